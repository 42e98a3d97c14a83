"""05_loss, sampling.py: filters, dice and beam search, against transformers, exhaustive search and the chi-square test.

What a filter keeps is compared as an exact set; its numbers bit for bit where both sides do the same arithmetic.
Scores of beams: 1e-12 in float64 against exhaustive search, 1e-5 against transformers, which counts in float32.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from glassbox.generation import generate, generate_each, greedy, stream_tokens
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.sampling import (
    Filter,
    beam_search,
    check_scores,
    min_p,
    repetition_penalty,
    sampler,
    temperature,
    top_k,
    top_p,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_gpt2 import CONFIGS, pair
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

NONE = torch.zeros(1, 0, dtype=torch.long)
FILTERS: dict[str, tuple[Any, Any]] = {  # name: ours, theirs
    "temperature": (temperature, TemperatureLogitsWarper),
    "top_k": (top_k, TopKLogitsWarper),
    "top_p": (top_p, TopPLogitsWarper),
    "min_p": (min_p, MinPLogitsWarper),
    "repetition_penalty": (repetition_penalty, RepetitionPenaltyLogitsProcessor),
}
ODD = st.one_of(st.floats(-30, 30, width=32), st.sampled_from([-2.0, 0.0, 0.5, 3.0]))  # the latter make ties


def kept(logits: torch.Tensor) -> list[set[int]]:
    return [set(row.isfinite().nonzero()[:, 0].tolist()) for row in logits]


def peer(name: str, value: Any) -> Any:
    """transformers' filter of this name."""
    return LogitsProcessorList([FILTERS[name][1](value)])


def scores(B: int, V: int, seed: int = 0, size: float = 3.0) -> torch.Tensor:
    return size * torch.randn(B, V, generator=torch.Generator().manual_seed(seed))


def nothing_seen(logits: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(logits), 0, dtype=torch.long)


@st.composite
def batches(draw: Any, most: int = 12) -> torch.Tensor:
    B, V = draw(st.integers(1, 3)), draw(st.integers(1, most))
    return torch.tensor([draw(st.lists(ODD, min_size=V, max_size=V)) for _ in range(B)])


# --- each filter is transformers' ---


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from([0.05, 0.5, 1.0, 1.7, 100.0]))
def test_temperature_is_transformers(logits: torch.Tensor, t: float) -> None:
    found = temperature(t)(logits, nothing_seen(logits))
    assert torch.equal(found, peer("temperature", t)(nothing_seen(logits), logits))


@settings(max_examples=80, deadline=None)
@given(batches(), st.data())
def test_top_k_is_transformers(logits: torch.Tensor, data: Any) -> None:
    k = data.draw(st.integers(1, logits.shape[1]))
    found = top_k(k)(logits, nothing_seen(logits))
    assert torch.equal(found, peer("top_k", k)(nothing_seen(logits), logits))
    assert all(len(row) >= k for row in kept(found))


@settings(max_examples=80, deadline=None)
@given(batches(), st.floats(0, 1))
def test_min_p_is_transformers(logits: torch.Tensor, p: float) -> None:
    found = min_p(p)(logits, nothing_seen(logits))
    assert torch.equal(found, peer("min_p", p)(nothing_seen(logits), logits))


@settings(max_examples=80, deadline=None)
@given(batches(), st.floats(0.1, 4), st.data())
def test_repetition_penalty_is_transformers(logits: torch.Tensor, r: float, data: Any) -> None:
    """Tokens that stand in the text once or several times, or nowhere; also one that is forbidden already."""
    B, V = logits.shape
    T = data.draw(st.integers(0, 6))
    ids = torch.tensor(
        data.draw(st.lists(st.integers(0, V - 1), min_size=B * T, max_size=B * T)), dtype=torch.long
    ).view(B, T)
    logits[0, 1:2] = -math.inf
    found = repetition_penalty(r)(logits, ids)
    assert torch.equal(found, peer("repetition_penalty", r)(ids, logits))


@settings(max_examples=80, deadline=None)
@given(batches(), st.floats(0.01, 1))
def test_top_p_is_transformers(logits: torch.Tensor, p: float) -> None:
    """The same logits are kept. Of equal ones theirs keeps some by the chance of sorting; ours those of higher ids."""
    found = top_p(p)(logits, nothing_seen(logits))
    theirs = peer("top_p", p)(nothing_seen(logits), logits)
    assert torch.equal(found.sort(dim=-1).values, theirs.sort(dim=-1).values)
    for row, left, other in zip(logits, kept(found), kept(theirs), strict=True):
        least = min(row[i].item() for i in left)
        edge = [i for i in range(len(row)) if row[i] == least]
        assert sorted(left & set(edge)) == edge[-len(left & set(edge)) :]
        assert left - set(edge) == other - set(edge)


@settings(max_examples=80, deadline=None)
@given(batches(), st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_that_reach_p(logits: torch.Tensor, p: float) -> None:
    """By the definition, in Python's own numbers; sums within 1e-5 of p, where rounding decides, are left out."""
    found = kept(top_p(p)(logits, nothing_seen(logits)))
    for row, left in zip(logits.double().softmax(-1).tolist(), found, strict=True):
        sums = list(itertools.accumulate(sorted(row, reverse=True)))
        assume(all(abs(total - p) > 1e-5 for total in sums))
        assert len(left) == (1 + sum(total < p for total in sums) if p < sums[-1] else len(row))
        assert min(row[i] for i in left) >= max([row[i] for i in range(len(row)) if i not in left], default=0)


@pytest.mark.parametrize(("p", "left"), [(1e-9, {0}), (0.5, {0}), (0.6, {0, 1}), (0.8, {0, 1}), (0.81, {0, 1, 2})])
def test_top_p_keeps_the_token_that_crosses_the_line(p: float, left: set[int]) -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    assert kept(top_p(p)(logits, NONE)) == [left]
    assert kept(top_p(p)(logits.flip(1), NONE)) == [{2 - i for i in left}]


def test_top_p_of_1_keeps_every_token() -> None:
    logits = scores(2, 50_000, size=1.5)
    assert kept(top_p(1)(logits, nothing_seen(logits))) == [set(range(50_000))] * 2


def test_equal_tokens() -> None:
    """top_k keeps all that are as likely as its last, min_p all that are likely enough, top_p as few as it can."""
    logits = torch.tensor([[1.0, 2.0, 1.0, 1.0, 0.0]])
    assert kept(top_k(2)(logits, NONE)) == [{0, 1, 2, 3}]
    assert kept(top_k(1)(torch.zeros(1, 4), NONE)) == [{0, 1, 2, 3}]
    assert kept(top_p(0.5)(torch.zeros(1, 4), NONE)) == [{2, 3}]
    assert kept(min_p(1)(torch.zeros(1, 4), NONE)) == [{0, 1, 2, 3}]
    assert kept(temperature(0)(torch.tensor([[0.0, 5.0, 5.0], [7.0, 7.0, 7.0]]), torch.zeros(2, 0).long())) == [
        {1},
        {0},
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(list(FILTERS)),
    st.integers(2, 5),
    st.integers(0, 10**6),
    st.sampled_from([0.5, 0.9, 1.5]),
    st.integers(1, 40),
    st.sampled_from([0.1, 0.7, 0.93]),
    st.sampled_from([0.01, 0.2]),
)
def test_filters_in_any_order_are_transformers(
    names: list[str], n: int, seed: int, t: float, k: int, p: float, least: float
) -> None:
    """Two to all five in a row. Where a sum lies within 1e-6 of p, rounding decides: such a case is left out."""
    values = {"temperature": t, "top_k": k, "top_p": p, "min_p": least, "repetition_penalty": 1.3}
    logits, ids = scores(3, 40, seed), torch.randint(40, (3, 9), generator=torch.Generator().manual_seed(seed))
    found, theirs = logits, logits
    for name in names[:n]:
        if name == "top_p":
            sums = theirs.double().sort(dim=-1).values.softmax(-1).cumsum(-1)
            assume((sums - (1 - p)).abs().min() > 1e-6)
        found = FILTERS[name][0](values[name])(found, ids)
        theirs = peer(name, values[name])(ids, theirs)
        assert torch.equal(found, theirs), name


def test_rows_of_a_batch_do_not_meet() -> None:
    logits, ids = scores(6, 30), torch.randint(30, (6, 8), generator=torch.Generator().manual_seed(1))
    for change in filters():
        together = change(logits, ids)
        assert torch.equal(together, torch.cat([change(logits[i : i + 1], ids[i : i + 1]) for i in range(6)]))


def filters() -> list[Filter]:
    return [repetition_penalty(1.3), temperature(0.7), temperature(0), top_k(5), top_p(0.8), min_p(0.1)]


def test_filters_leave_what_they_are_given_as_it_is() -> None:
    logits, ids = scores(3, 30), torch.randint(30, (3, 8), generator=torch.Generator().manual_seed(1))
    before = logits.clone(), ids.clone()
    for change in [*filters(), sampler(*filters())]:
        change(logits, ids)
        assert torch.equal(logits, before[0])
        assert torch.equal(ids, before[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_counted_in_float32(dtype: torch.dtype) -> None:
    """A sum of 50,000 probabilities in half precision stands still long before 1."""
    logits = scores(1, 50_000).to(dtype)
    for change in [top_p(0.95), temperature(0.9), min_p(0.02)]:
        found = change(logits, NONE)
        assert found.dtype == torch.float32
        assert torch.equal(found, change(logits.float(), NONE))
    choose = [sampler(top_p(0.9), generator=torch.Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(choose[0](logits, NONE), choose[1](logits.float(), NONE))


def test_float64_stays() -> None:
    assert all(change(scores(1, 9).double(), NONE).dtype == torch.float64 for change in filters())


# --- the dice ---


def chi_square(counts: torch.Tensor, wanted: torch.Tensor) -> float:
    """How far counts are from what probabilities let one expect, in deviations of the statistic from its mean."""
    likely = wanted > 0
    assert not counts[~likely].any()
    expected = wanted[likely] * counts.sum()
    statistic = float(((counts[likely] - expected) ** 2 / expected).sum())
    freedom = int(likely.sum()) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def drawn(choose: Any, logits: torch.Tensor, n: int = 40_000) -> torch.Tensor:
    return torch.bincount(choose(logits.expand(n, -1), torch.zeros(n, 0).long()), minlength=logits.shape[1]).double()


@pytest.mark.parametrize(
    "row",
    [
        [],
        [temperature(0.6)],
        [temperature(1.8)],
        [top_k(7)],
        [top_p(0.8)],
        [min_p(0.1)],
        [temperature(0.7), top_p(0.9)],
    ],
    ids=["none", "0.6", "1.8", "top_k", "top_p", "min_p", "two"],
)
def test_tokens_come_as_often_as_they_should(row: list[Filter]) -> None:
    """Drawn 40,000 times. A statistic of more than 4 deviations is one chance in thousands, and the seed is fixed."""
    logits = scores(1, 20, seed=5, size=1.0)
    wanted = functools.reduce(lambda x, change: change(x, NONE), row, logits).double().softmax(-1)[0]
    counts = drawn(sampler(*row, generator=torch.Generator().manual_seed(0)), logits)
    assert abs(chi_square(counts, wanted)) < 4
    if row:
        likely = wanted > 0
        other = logits.double().softmax(-1)[0] * likely + 1e-9 * likely  # what comes where the filters are forgotten
        plain = drawn(sampler(generator=torch.Generator().manual_seed(0)), logits)
        assert plain[~likely].any() or chi_square(counts, other / other.sum()) > 50


def test_the_same_dice_give_the_same_text_and_leave_the_others_alone() -> None:
    model = GPT(CONFIGS[1])
    ids = torch.tensor([[3, 1, 4], [1, 5, 9]])
    before = torch.random.get_rng_state()
    texts = [generate(model, ids, 9, sampler(generator=torch.Generator().manual_seed(s))) for s in (7, 7, 8)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
    torch.manual_seed(4)
    again = [generate(model, ids, 9, sampler())]
    torch.manual_seed(4)
    assert torch.equal(again[0], generate(model, ids, 9, sampler()))


@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda c: f"{c.n_layer} x {c.n_embd}")
def test_drawn_texts_are_transformers(config: GPTConfig) -> None:
    """The same weights, filters and seed of torch's dice: the same text, token by token."""
    ours, theirs = pair(config)
    theirs.eval()
    ids = torch.randint(1, config.vocab_size, (3, 5), generator=torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"do_sample": True, "pad_token_id": 0, "eos_token_id": None, "use_cache": True}
    for seed, (t, k, p, r) in enumerate([(1.0, config.vocab_size, 1.0, 1.0), (0.8, 20, 0.9, 1.2), (1.5, 7, 0.6, 0.8)]):
        torch.manual_seed(seed)
        chosen = {"temperature": t, "top_k": k, "top_p": p, "repetition_penalty": r}
        wanted = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, **chosen, **options)
        torch.manual_seed(seed)
        row = [repetition_penalty(r), temperature(t), top_k(k), top_p(p)]
        assert torch.equal(generate(ours, ids, 12, sampler(*row)), wanted)


def test_the_coldest_dice_are_greedy() -> None:
    model = GPT(CONFIGS[1])
    ids = torch.tensor([[3, 1, 4], [1, 5, 9]])
    wanted = generate(model, ids, 12)
    for row in ([temperature(0)], [top_k(1)], [top_p(1e-6)], [min_p(1)], [temperature(1e-4)]):
        assert torch.equal(generate(model, ids, 12, sampler(*row)), wanted)
    ties = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    assert torch.equal(sampler(temperature(0))(ties, torch.zeros(2, 0).long()), greedy(ties, ties))


def test_every_loop_takes_it() -> None:
    model, prompt = GPT(CONFIGS[1]), [3, 1, 4]
    make = lambda: sampler(top_k(9), generator=torch.Generator().manual_seed(1))  # noqa: E731
    ids = torch.tensor([prompt])
    text = generate(model, ids, 6, make())
    assert [int(new) for new in stream_tokens(model, ids, 6, make())] == text[0, 3:].tolist()
    assert generate_each(model, [prompt], 6, make()) == text.tolist()


# --- beam search ---


def tiny(V: int, seed: int = 0, block_size: int = 12) -> GPT:
    """A model whose guesses differ much from token to token and from text to text."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(vocab_size=V, block_size=block_size, n_layer=2, n_head=2, n_embd=8)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.4)
    return model


@torch.no_grad()
def every_text(model: GPT, prompt: list[int], n: int, end: int | None, power: float) -> list[tuple[float, list[int]]]:
    """All texts of n new tokens, or fewer where one ends, and their scores, the best first."""
    found = []
    for length in range(1, n + 1):
        new = torch.tensor(list(itertools.product(range(model.config.vocab_size), repeat=length)))
        texts = torch.cat([torch.tensor([prompt]).expand(len(new), -1), new], dim=1)
        guesses = model(texts).log_softmax(-1)[:, len(prompt) - 1 : -1]
        totals = guesses.gather(2, new[..., None]).sum(dim=(1, 2)).tolist()
        for total, text in zip(totals, texts.tolist(), strict=True):
            added = text[len(prompt) :]
            if end not in added[:-1] and (length == n or added[-1] == end):
                found.append((total / length**power, text))
    return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize("power", [0.0, 1.0, 0.6, -0.5, 2.0])
@pytest.mark.parametrize("end", [None, 2])
@pytest.mark.parametrize(("V", "n"), [(4, 4), (6, 3), (3, 1)])
def test_beams_enough_find_the_best_of_all_texts(V: int, n: int, end: int | None, power: float) -> None:
    for seed in range(2):
        model, prompt = tiny(V, seed), [1, 0]
        wanted = every_text(model, prompt, n, end, power)
        texts, scores = beam_search(model, torch.tensor([prompt]), n, V ** (n - 1), end, power)
        assert len(texts) == len(scores) == min(len(wanted), V ** (n - 1))
        fill = [0 if end is None else end]
        for (score, text), row, found in zip(wanted, texts.tolist(), scores.tolist(), strict=False):
            assert row == text + fill * (texts.shape[1] - len(text))
            assert abs(found - score) < 1e-12 * max(1, abs(score))


@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda c: f"{c.n_layer} x {c.n_embd}")
@pytest.mark.parametrize("end", [None, 7])
def test_one_beam_is_greedy(config: GPTConfig, end: int | None) -> None:
    ours, _ = pair(config)
    for first in range(3):
        ids = torch.tensor([[first, 5]])
        texts, scores = beam_search(ours, ids, 9, 1, end)
        assert torch.equal(texts, generate(ours, ids, 9, end=end))
        assert scores.shape == (1,)


@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda c: f"{c.n_layer} x {c.n_embd}")
@pytest.mark.parametrize(("beams", "power"), [(2, 1.0), (5, 0.0), (4, 2.0), (3, -1.0)])
def test_beams_are_transformers(config: GPTConfig, beams: int, power: float) -> None:
    """All their beams and scores. With `early_stopping="never"` theirs stops no sooner than is safe, as ours does."""
    ours, theirs = pair(config)
    theirs.eval()
    for first in range(3):
        ids = torch.tensor([[first, 2, 11]])
        end = int(generate(ours, ids, 4)[0, 6])  # so that texts do end
        found, scores = beam_search(ours, ids, 10, beams, end, power)
        wanted = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=10,
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            early_stopping="never",
            length_penalty=power,
            eos_token_id=end,
            pad_token_id=end,
            output_scores=True,
            return_dict_in_generate=True,
        )
        assert torch.equal(found, wanted.sequences)
        assert (scores - wanted.sequences_scores).abs().max() < 1e-5 * max(1, float(scores.abs().max()))


def plain_beams(model: GPT, ids: torch.Tensor, n: int, beams: int) -> list[tuple[float, list[int]]]:
    """Beam search as one would explain it: no cache, no end, a list of texts."""
    texts = [(0.0, ids[0].tolist())]
    for _ in range(n):
        longer = []
        for score, text in texts:
            guesses = model(torch.tensor([text]))[0, -1].log_softmax(-1).tolist()
            longer += [(score + guess, [*text, i]) for i, guess in enumerate(guesses)]
        texts = sorted(longer, reverse=True)[:beams]
    return texts


def test_the_cache_follows_the_beams() -> None:
    for beams in (2, 3, 6, 20):
        model, ids = tiny(7, beams, block_size=20), torch.tensor([[1, 2, 3, 4, 5]])
        with torch.no_grad():
            wanted = plain_beams(model, ids, 8, beams)
        texts, scores = beam_search(model, ids, 8, beams)
        assert texts.tolist() == [text for _, text in wanted]
        assert torch.allclose(
            scores, torch.tensor([score for score, _ in wanted], dtype=torch.float64), rtol=0, atol=1e-12
        )


class Planned(GPT):
    """A GPT whose next token depends on the last alone, by a table of probabilities."""

    def __init__(self, table: list[list[float]]) -> None:
        super().__init__(GPTConfig(vocab_size=len(table), block_size=8, n_layer=1, n_head=1, n_embd=2))
        self.table = torch.tensor(table).log()

    def features(self, ids: torch.Tensor, caches: Any = None) -> torch.Tensor:
        super().features(ids, caches)
        return F.one_hot(ids, len(self.table)).float()

    def head(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[x.argmax(-1)]


def test_more_beams_are_not_always_better() -> None:
    """Two beams leave the path on which greedy finds certainty later; for two tokens more are never worse."""
    e = 1e-6
    table = [
        [e, 0.55, 0.45, e, e, e],  # 0: 1 or 2
        [0.1, 0.1, 0.1, 0.36, 0.17, 0.17],  # 1: 3 at best
        [e, e, e, e, 0.5, 0.5],  # 2: 4 or 5, both likelier on the whole than 0 1 3
        [1.0, e, e, e, e, e],  # 3: certainty
        [0.25, 0.25, 0.25, 0.25, e, e],
        [0.25, 0.25, 0.25, 0.25, e, e],
    ]
    model, ids = Planned(table), torch.tensor([0])
    found = {beams: beam_search(model, ids, 3, beams) for beams in (1, 2, 36)}
    assert found[1][0][0].tolist() == [0, 1, 3, 0]
    assert found[2][1][0] < found[1][1][0] - 1
    assert torch.allclose(found[36][1][0], found[1][1][0])
    for seed in range(4):
        model = tiny(9, seed)
        best = [float(beam_search(model, ids, 2, beams)[1][0]) for beams in range(1, 10)]
        assert all(fewer <= more + 1e-12 for fewer, more in itertools.pairwise(best))


def test_beam_search_leaves_the_model_as_it_was() -> None:
    """Dropout is off while it searches; no gradient is kept; the mode, the weights and the caller's ids stay."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=30, block_size=16, n_layer=2, n_head=2, n_embd=16, dropout=0.5)).train()
    model.ln_f.eval()
    modes = [module.training for module in model.modules()]
    ids = torch.tensor([[1, 2, 3]])
    texts, scores = beam_search(model, ids, 6, 4)
    assert [module.training for module in model.modules()] == modes
    assert not scores.requires_grad
    assert ids.tolist() == [[1, 2, 3]]
    again = beam_search(model.eval(), ids[0], 6, 4)
    assert torch.equal(texts, again[0])
    assert torch.equal(scores, again[1])
    assert texts.dtype == ids.dtype
    assert (texts[:, :3] == ids).all()
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)


def test_texts_that_end_are_filled() -> None:
    e = 1e-4
    model = Planned([[e, 1.0, e, e], [e, e, 0.45, 0.55], [1.0, e, e, e], [e, e, e, 1.0]])
    texts, scores = beam_search(model, torch.tensor([0]), 5, 2, end=3)
    assert texts.tolist() == [[0, 1, 3, 3, 3, 3], [0, 1, 2, 0, 1, 3]]
    assert torch.allclose(scores, torch.tensor([0.55, 0.45 * 0.55]).log(), atol=5e-3)
    longer, means = beam_search(model, torch.tensor([0]), 5, 2, end=3, length_penalty=1)
    assert longer.tolist() == [[0, 1, 2, 0, 1, 3], [0, 1, 3, 3, 3, 3]]
    assert torch.allclose(means, torch.tensor([math.log(0.45 * 0.55) / 5, math.log(0.55) / 2]), atol=5e-3)
    one = beam_search(Planned([[1.0, e], [e, 1.0]]), torch.tensor([0]), 3, 1, end=0)
    assert one[0].tolist() == [[0, 0]]  # all are over: no work is done for the rest


def test_a_search_stops_only_when_nothing_better_can_come() -> None:
    """A text that is worse than the one that is over may become better where the mean of a token counts."""
    e = 1e-6
    model = Planned([[e, 0.45, e, 0.55], [e, e, 1.0, e], [e, 1.0, e, e], [e, e, e, 1.0]])
    ids = torch.tensor([0])
    assert beam_search(model, ids, 5, 1, end=3)[0].tolist() == [[0, 3]]
    texts, scores = beam_search(model, ids, 5, 1, end=3, length_penalty=1)
    assert texts.tolist() == [[0, 1, 2, 1, 2, 1]]
    assert torch.allclose(scores, torch.tensor([math.log(0.45) / 5]), atol=1e-3)


def test_a_vocabulary_of_one_token() -> None:
    model = tiny(1)
    for end, text in ((None, [0, 0, 0, 0]), (0, [0, 0])):
        texts, scores = beam_search(model, torch.tensor([0]), 3, 5, end)
        assert texts.tolist() == [text]
        assert scores.tolist() == [0.0]


# --- what is refused ---


@pytest.mark.parametrize(
    ("make", "value", "words"),
    [
        (temperature, -0.1, "temperature must be at least 0.*-0.1.*likeliest"),
        (temperature, math.nan, "temperature must be at least 0.*nan"),
        (temperature, math.inf, "temperature must be .*finite, not inf"),
        (top_k, 0, "k must be 1 or more, not 0"),
        (top_k, -3, "k must be 1 or more, not -3"),
        (top_p, 0, "top_p must be above 0 and at most 1.*not 0"),
        (top_p, 1.01, "top_p must be above 0 and at most 1.*1.01"),
        (top_p, -0.5, "top_p must be"),
        (top_p, math.nan, "top_p must be"),
        (min_p, -0.01, "min_p must be at least 0 and at most 1.*-0.01"),
        (min_p, 1.5, "min_p must be at least 0 and at most 1.*1.5"),
        (repetition_penalty, 0, "repetition penalty must be above 0.*not 0"),
        (repetition_penalty, -1.2, "repetition penalty must be above 0.*-1.2"),
        (repetition_penalty, math.inf, "repetition penalty must be .*finite"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Any, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(value)


@pytest.mark.parametrize("make", [temperature, top_k, top_p, min_p, repetition_penalty])
@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], torch.ones(2)], ids=str)
def test_what_is_no_number_is_refused(make: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="must be a"):
        make(value)


def test_numbers_may_be_numpys_or_torchs() -> None:
    logits = scores(2, 8)
    cases: Any = ((temperature, 0.5), (top_p, 0.5), (min_p, 0.25), (top_k, 3), (repetition_penalty, 2.0))
    for make, value in cases:
        x = torch.tensor(value)
        ids = torch.tensor([[1], [2]])
        assert torch.equal(make(x)(logits, ids), make(value)(logits, ids))
        assert torch.equal(make(x.numpy()[()])(logits, ids), make(value)(logits, ids))


def test_k_above_the_vocabulary_is_refused_when_the_vocabulary_is_known() -> None:
    change = top_k(9)
    with pytest.raises(ValueError, match="k = 9 is more than the vocabulary's 8 tokens"):
        change(scores(1, 8), NONE)
    assert kept(top_k(8)(scores(1, 8), NONE)) == [set(range(8))]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("change", [*filters(), sampler()], ids=lambda change: change.__qualname__.split(".")[0])
def test_logits_that_are_no_scores_are_refused(change: Any, value: float) -> None:
    logits = scores(3, 9)
    logits[1, 4] = value
    with pytest.raises(ValueError, match=rf"logits hold {'NaN' if value != value else 'infinity'} \(text 1\).*load"):
        change(logits, torch.zeros(3, 1).long())
    with pytest.raises(ValueError, match=r"no token: all logits are -infinity \(text 0\)"):
        change(torch.full((1, 9), -math.inf), torch.zeros(1, 1).long())


@pytest.mark.parametrize("change", [*filters(), sampler()], ids=lambda change: change.__qualname__.split(".")[0])
def test_shapes_and_types_that_do_not_fit_are_refused(change: Any) -> None:
    ids = torch.zeros(2, 3).long()
    for logits, other in (
        (scores(3, 9), ids),
        (scores(1, 9)[0], ids),
        (scores(2, 9), ids[0]),
        (torch.zeros(2, 0), ids),
    ):
        with pytest.raises(ValueError, match=r"must be \(B, V\) and \(B, T\)"):
            change(logits, other)
    with pytest.raises(TypeError, match="floating-point"):
        change(torch.zeros(2, 9).long(), ids)
    with pytest.raises(TypeError, match="must be tensors"):
        change([[0.5]], ids)


def test_a_filter_that_leaves_nothing_is_named() -> None:
    def forbid(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return torch.full_like(logits, -math.inf)

    def spoil(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return logits * math.nan

    logits = scores(2, 5)
    ids = torch.zeros(2, 1).long()
    cases: Any = (
        (forbid, "left no token: all logits are -infinity"),
        (spoil, "left NaN"),
        (temperature(1e-40), "temperature left infinity"),
        (lambda x, ids: x[:1], r"returned \(1, 5\)"),
        (lambda x, ids: None, "returned None"),
    )
    for change, words in cases:
        with pytest.raises(ValueError, match=words):
            sampler(top_p(0.9), change)(logits, ids)


def test_what_is_no_filter_is_refused_at_once() -> None:
    for wrong in (0.8, top_k, temperature, None, "top_k"):
        with pytest.raises(TypeError, match="is no filter"):
            sampler(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, not 42"):
        sampler(generator=42)  # pyright: ignore[reportArgumentType]
    assert check_scores(scores(1, 3), NONE).shape == (1, 3)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"ids": torch.zeros(2, 3).long()}, ValueError, "2 texts.*call it for each"),
        ({"ids": torch.zeros(1, 0).long()}, ValueError, "token"),
        ({"ids": [1, 2]}, TypeError, "must be a tensor"),
        ({"ids": torch.tensor([[99]])}, ValueError, "99"),
        ({"n": 0}, ValueError, "n must be 1 or more"),
        ({"n": 15}, ValueError, "block_size"),
        ({"beams": 0}, ValueError, "beams must be 1 or more, not 0"),
        ({"beams": 2.0}, TypeError, "beams must be a whole number"),
        ({"end": 20}, ValueError, "end = 20 is outside 0 to 19"),
        ({"end": -1}, ValueError, "end must be 0 or more"),
        ({"length_penalty": math.nan}, ValueError, "length_penalty must be at least -10 and at most 10"),
        ({"length_penalty": 11}, ValueError, "length_penalty must be"),
        ({"length_penalty": "1"}, TypeError, "length_penalty must be a number"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_any_work(changes: Any, error: Any, words: str) -> None:
    model = GPT(GPTConfig(vocab_size=20, block_size=16, n_layer=1, n_head=1, n_embd=8))
    model.features = None  # pyright: ignore[reportAttributeAccessIssue]  # would fail if it were called
    arguments: dict[str, Any] = {"ids": torch.zeros(1, 3).long(), "n": 4, "beams": 2, **changes}
    with pytest.raises(error, match=words):
        beam_search(model, **arguments)


def test_a_search_with_damaged_weights_is_refused() -> None:
    model = tiny(6)
    with torch.no_grad():
        model.ln_f.weight[0] = math.nan
    with pytest.raises(ValueError, match="logits hold NaN"):
        beam_search(model, torch.tensor([1]), 3, 2)


def test_ids_outside_the_vocabulary_are_named() -> None:
    with pytest.raises(ValueError, match=r"id 9 is outside 0 to 3"):
        repetition_penalty(1.2)(torch.zeros(1, 4), torch.tensor([[1, 9]]))
    with pytest.raises(TypeError, match="whole numbers"):
        repetition_penalty(1.2)(torch.zeros(1, 4), torch.zeros(1, 2))
