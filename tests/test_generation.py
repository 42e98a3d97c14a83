"""04_gpt2, generation.py: the loop, with and without the cache, against transformers' greedy `generate`.

The models have weights much larger than GPT-2's at its start, so that the texts wander, and computing is in float64, so
that no two scores are equal to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from glassbox.attention import KVCache
from glassbox.generation import FewRows, evaluating, few_rows, generate, generate_each, greedy, stream_tokens
from glassbox.gpt2 import GPT, GPTConfig
from hypothesis import given
from hypothesis import strategies as st
from test_attention import furthest, numbers, pieces
from test_gpt2 import CONFIGS, EACH, batch, pair
from test_pretokens import examples
from torch.utils.flop_counter import FlopCounterMode

V = 101
CONFIG = GPTConfig(vocab_size=V, block_size=40, n_layer=2, n_head=2, n_embd=16)


def wandering(config: GPTConfig = CONFIG) -> tuple[GPT, Any]:
    """Ours and transformers' model with the same weights; their scores depend on the whole text."""
    ours, theirs = pair(config, dtype=torch.float64)
    theirs.generation_config.eos_token_id = None
    with torch.no_grad():
        for name, parameter in [*ours.named_parameters(), *theirs.named_parameters()]:
            parameter.mul_(10.0 if "h." in name and parameter.ndim == 2 else 1.0)
    return ours.eval(), theirs.eval()


MODEL = wandering()[0]


def theirs_of(theirs: Any, ids: torch.Tensor, n: int, **more: Any) -> torch.Tensor:
    more = {"pad_token_id": 0, **more}
    return theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, **more)


# --- the same tokens ---


@pytest.mark.filterwarnings("ignore:.*attention mask.*")
@EACH
def test_cached_uncached_and_transformers_write_the_same(config: GPTConfig) -> None:
    ours, theirs = wandering(config)
    room = config.block_size
    for B, T, n in ((1, 1, room - 1), (4, 5, room - 5), (2, room - 1, 1), (6, 2, 9)):
        ids = batch(config, B, T, seed=B)
        found = generate(ours, ids, n)
        assert found.shape == (B, T + n)
        assert torch.equal(found[:, :T], ids)
        assert torch.equal(found, generate(ours, ids, n, cached=False))
        assert torch.equal(found, theirs_of(theirs, ids, n))
        if n > 8:
            assert len(set(found[:, T:].flatten().tolist())) > 4  # no row of the same token


def test_each_token_is_the_likeliest() -> None:
    ids = batch(CONFIG, 3, 4)
    text = generate(MODEL, ids, 20)
    with torch.no_grad():
        assert torch.equal(MODEL(text).argmax(-1)[:, 3:-1], text[:, 4:])
    assert greedy(torch.tensor([[1.0, 3, 3], [2, 2, 2]]), ids).tolist() == [1, 0]  # the first of several


def test_the_end_is_transformers_end() -> None:
    """A text that has chosen the end is filled with it; when all are over the work stops."""
    ours, theirs = wandering()
    ids = batch(CONFIG, 4, 3)
    free = generate(ours, ids, 30)
    lengths = set()
    for end in free[:, 3:].unique().tolist():
        found = generate(ours, ids, 30, end=end)
        assert torch.equal(found, theirs_of(theirs, ids, 30, eos_token_id=end, pad_token_id=end))
        for row, whole in zip(found.tolist(), free.tolist(), strict=True):
            stop = whole.index(end, 3) + 1 if end in whole[3:] else len(whole)
            assert row == whole[: min(stop, len(row))] + [end] * (len(row) - stop)
        lengths.add(found.shape[1])
    assert torch.equal(generate(ours, ids, 30, end=max(set(range(V)) - set(free.flatten().tolist()))), free)
    alone = free[:1]  # one text alone stops at once
    assert generate(ours, ids[:1], 30, end=int(alone[0, 5])).shape[1] == alone[0, 3:].tolist().index(alone[0, 5]) + 4


def test_an_end_in_the_prompt_ends_nothing() -> None:
    ids = batch(CONFIG, 2, 5)
    free = generate(MODEL, ids, 6)
    end = next(i for i in ids[0].tolist() if i not in free[:, 5:].flatten().tolist())
    assert torch.equal(generate(MODEL, ids, 6, end=end), free)


def test_stream_yields_what_generate_joins_and_computes_no_more_than_asked() -> None:
    ids, calls = batch(CONFIG, 3, 4), []

    def choose(logits: torch.Tensor, so_far: torch.Tensor) -> torch.Tensor:
        calls.append((tuple(logits.shape), so_far.shape[1]))
        return greedy(logits, so_far)

    wanted = generate(MODEL, ids, 5)
    tokens = stream_tokens(MODEL, ids, 5, choose)
    assert calls == []
    for t in range(3):
        new = next(tokens)
        assert torch.equal(new, wanted[:, 4 + t])
        new.zero_()  # the caller's own; the text goes on as it was
    assert calls == [((3, V), 4), ((3, V), 5), ((3, V), 6)]
    assert torch.equal(torch.stack(list(tokens), dim=1), wanted[:, 7:])
    assert len(calls) == 5


def test_choose_sees_all_scores_and_all_ids() -> None:
    """The most unlikely token that is not there yet: what no model would write by itself."""
    ids = batch(CONFIG, 2, 3)

    def contrary(logits: torch.Tensor, so_far: torch.Tensor) -> torch.Tensor:
        return logits.scatter(1, so_far, math.inf).argmin(-1)

    text = generate(MODEL, ids, 15, contrary)
    assert all(len(set(row[2:])) == 16 for row in text.tolist())
    assert torch.equal(text, generate(MODEL, ids, 15, contrary, cached=False))


@examples(25)
@given(
    st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=12), min_size=1, max_size=5),
    st.integers(1, 10),
    st.none() | st.integers(0, V - 1),
)
def test_prompts_of_unequal_lengths_get_what_each_gets_alone(prompts: list[list[int]], n: int, end: int | None) -> None:
    alone = [generate(MODEL, torch.tensor([prompt]), n)[0].tolist() for prompt in prompts]
    if end is not None:  # one that does occur, where there is one
        end = alone[-1][len(prompts[-1]) + end % n]
        wanted = [generate(MODEL, torch.tensor([prompt]), n, end=end)[0].tolist() for prompt in prompts]
    else:
        wanted = alone
    assert generate_each(MODEL, prompts, n, end=end) == wanted
    tensors: Any = [torch.tensor(prompt, dtype=torch.int32) for prompt in prompts]
    assert generate_each(MODEL, tensors, n, end=end) == wanted


def test_unequal_prompts_fill_the_context() -> None:
    prompts = [[1], list(range(37)), [2, 3]]
    found = generate_each(MODEL, prompts, 3)
    assert [len(text) for text in found] == [4, 40, 5]
    arrays: Any = [np.array(prompt, dtype=np.uint8) for prompt in prompts]
    assert generate_each(MODEL, arrays, np.int64(3)) == found  # type: ignore[arg-type]


# --- what a token costs ---


class Passed:
    """How many tokens go through the first block, and the operations of the matrices, step by step."""

    def __init__(self, model: GPT, ids: torch.Tensor, n: int, cached: bool) -> None:
        self.tokens: list[int] = []
        handle = model.h[0].register_forward_pre_hook(lambda _, args: self.tokens.append(args[0].shape[1]))
        self.flops: list[int] = []
        steps = stream_tokens(model, ids, n, cached=cached)
        for _ in range(n):
            with FlopCounterMode(display=False) as counter:
                next(steps)
            self.flops.append(counter.get_total_flops())
        handle.remove()


def test_with_the_cache_a_token_costs_the_same_at_every_place() -> None:
    ids, n = batch(CONFIG, 1, 4), 30
    cached, again = Passed(MODEL, ids, n, True), Passed(MODEL, ids, n, False)
    assert cached.tokens == [4] + [1] * (n - 1)
    assert again.tokens == list(range(4, 4 + n))
    assert len(set(cached.flops[1:])) == 1
    assert all(a < b for a, b in pairwise(again.flops))
    matrices = 2 * (12 * 2 * 16**2 + V * 16)
    assert cached.flops[1] == matrices  # besides attention, which looks at every token there is


@pytest.mark.parametrize("lengths", [[1] * 7, [3, 4], [7], [2, 1, 4]], ids=str)
def test_a_chat_goes_on_in_the_caches_it_has(lengths: list[int]) -> None:
    """Read, write, read more, write more: the same as everything at once, however the reading is cut."""
    ids, more = batch(CONFIG, 2, 7), batch(CONFIG, 2, 4, seed=5)
    caches = MODEL.new_caches()

    def write(n: int, last: torch.Tensor) -> torch.Tensor:
        written = []
        for _ in range(n):
            written.append(MODEL.head(last[:, -1]).argmax(-1, keepdim=True))
            last = MODEL.features(written[-1], caches)
        return torch.cat(written, dim=1)

    with torch.no_grad():
        answer = write(5, [MODEL.features(part, caches) for part in ids.split(lengths, dim=1)][-1])
        text = torch.cat([ids, answer, more], dim=1)
        second = write(5, MODEL.features(more, caches))
    assert torch.equal(answer, generate(MODEL, ids, 5)[:, 7:])
    assert torch.equal(second, generate(MODEL, text, 5)[:, 16:])
    assert {cache.length for cache in caches} == {21}


@examples(20)
@given(st.lists(st.booleans(), max_size=14))
def test_features_are_the_same_in_any_pieces(cuts: list[bool]) -> None:
    lengths = pieces(cuts)
    ids, caches = batch(CONFIG, 2, sum(lengths)), MODEL.new_caches(sum(lengths))
    with torch.no_grad():
        found = [MODEL.features(part, caches) for part in ids.split(lengths, dim=1)]
        assert furthest([torch.cat(found, dim=1)], [MODEL.features(ids)]) <= 1e-12


@pytest.mark.parametrize("shape", [(3, 8), (4, 8), (2, 2, 8), (8, 1, 8), (64, 8), (65, 8), (8,)], ids=str)
def test_few_rows_are_the_same_product(shape: tuple[int, ...]) -> None:
    x, weight, bias = numbers(*shape), numbers(5, 8, seed=1), numbers(5, seed=2)
    layer = torch.nn.Linear(8, 5, bias=False).double()
    wanted = [F.linear(x, weight, bias), F.linear(x, weight), layer(x)]
    with FewRows():
        found = [F.linear(x, weight, bias), F.linear(x, weight), layer(x)]
        assert furthest(found, wanted) <= 1e-13
        assert all(part.is_contiguous() for part in found)
        named = F.linear(input=x, weight=weight, bias=bias)
    assert furthest([named], wanted[:1]) <= 1e-13


# --- the model afterwards ---


def modes(model: GPT) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.fixture
def mixed() -> Iterator[GPT]:
    """A model that drops half of all numbers while it trains, one block of which does not."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**vars(CONFIG), "dropout": 0.5}))
    model.h[1].eval()
    yield model
    assert modes(model)[0]


def test_writing_drops_nothing_and_leaves_the_modes_as_they_were(mixed: GPT) -> None:
    before, ids = modes(mixed), batch(CONFIG, 2, 4)
    found = generate(mixed, ids, 8)
    assert modes(mixed) == before
    assert generate_each(mixed, ids.tolist(), 8) == found.tolist()
    steps = stream_tokens(mixed, ids, 8)
    next(steps)
    assert modes(mixed) == before  # also between two steps
    other = stream_tokens(mixed, ids, 8)
    assert all(torch.equal(a, b) for a, b in zip(steps, [*other][1:], strict=True))  # two at once
    abandoned: Any = stream_tokens(mixed, ids, 8)
    next(abandoned)
    abandoned.close()
    assert modes(mixed) == before
    mixed.eval()
    assert torch.equal(generate(mixed, ids, 8), found)
    assert not any(modes(mixed))
    mixed.train()


def test_the_modes_come_back_after_an_error(mixed: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    before = modes(mixed)
    monkeypatch.setattr(mixed.h[1], "forward", interrupt)
    for cached in (True, False):
        with pytest.raises(KeyboardInterrupt):
            generate(mixed, batch(CONFIG, 1, 2), 3, cached=cached)
        assert modes(mixed) == before
    with pytest.raises(KeyboardInterrupt), evaluating(mixed):
        interrupt(mixed.h[0].eval())
    assert modes(mixed) == before
    with evaluating(mixed):
        assert not any(modes(mixed))


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_it_writes_under_any_mode_of_autograd_and_wants_no_gradients() -> None:
    model, ids = wandering()[0].train(), batch(CONFIG, 2, 4)
    found = generate(model, ids, 6)
    with torch.inference_mode():
        assert torch.equal(generate(model, ids, 6), found)
    assert torch.is_grad_enabled()
    for _ in stream_tokens(model, ids, 2):
        assert torch.is_grad_enabled()  # the caller's own

    def looks(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        assert not logits.requires_grad
        assert not torch.is_grad_enabled()
        assert model.training  # the step is over: the model is in the caller's mode
        return greedy(logits, ids)

    assert torch.equal(generate(model, ids, 6, looks), found)
    with torch.autocast("cpu", torch.bfloat16):
        assert generate(GPT(CONFIG), ids, 6).shape == (2, 10)


# --- what is refused ---

IDS = batch(CONFIG, 2, 5)
PROMPT_FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "outside": (torch.tensor([[V]]), ValueError, "id 101 is outside 0 to 100"),
    "negative": (torch.tensor([[-1]]), ValueError, "id -1 is outside"),
    "floats": (IDS.float(), TypeError, r"not torch.float32; write ids.long\(\)"),
    "bools": (IDS.bool(), TypeError, "not torch.bool"),
    "a list": (IDS.tolist(), TypeError, r"not list: write torch.tensor\(\[ids\]\).*generate_each"),
    "text": ("Once", TypeError, "not str"),
    "one axis": (IDS[0], ValueError, r"they must be \(B, T\): write ids\[None\]"),
    "no texts": (IDS[:0], ValueError, r"\(0, 5\)"),
    "no tokens": (IDS[:, :0], ValueError, r"no tokens \(T = 0\): give at least one, such as the end mark"),
    "too long": (batch(CONFIG, 1, 41), ValueError, "41 tokens are more than block_size=40"),
    "elsewhere": (IDS.to("meta"), ValueError, "ids are on meta, the model is on cpu"),
}
OTHER_FAULTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "n of 0": ({"n": 0}, ValueError, "n must be 1 or more, not 0"),
    "n below 0": ({"n": -1}, ValueError, "n must be 1 or more, not -1"),
    "n no whole number": ({"n": 2.0}, TypeError, "n must be a whole number, not 2.0"),
    "n too many": (
        {"n": 36},
        ValueError,
        "5 tokens and n = 36 new ones are more than block_size = 40: ask for at most 35",
    ),
    "choose": ({"choose": 0.8}, TypeError, "choose must be a function of logits and ids, such as greedy, not 0.8"),
    "end outside": ({"end": V}, ValueError, "end = 101 is outside 0 to 100"),
    "end below 0": ({"end": -1}, ValueError, "end must be 0 or more, not -1"),
    "end no id": ({"end": "."}, TypeError, "end must be a whole number, not '.'"),
}
EACH_FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "no prompts": ([], ValueError, "there are no prompts"),
    "one empty": ([[1], []], ValueError, "prompt 1 is empty: give at least one token"),
    "outside": ([[1], [V]], ValueError, "id 101 is outside"),
    "not nested": ([1, 2], ValueError, "prompt 0 must be one row of whole numbers"),
    "too nested": ([[[1]]], ValueError, "prompt 0 must be one row"),
    "ragged": ([[1, [2]]], ValueError, "prompt 0 must be one row"),
    "floats": ([[1], [1.5]], TypeError, "prompt 1 must be whole numbers, not of type float64"),
    "bools": ([[True]], TypeError, "prompt 0 must be whole numbers"),
    "nothing": ([[1], [None]], TypeError, "prompt 1 must be whole numbers"),
    "texts": (["Once", "upon"], ValueError, "prompt 0 must be one row"),
    "text": ("Once", TypeError, "prompts must be a list of rows of ids, not 'Once': encode text first"),
    "none": (None, TypeError, "prompts must be a list of rows of ids, not None"),
    "too long": ([[1], [1] * 40], ValueError, "40 tokens and n = 5 new ones are more.*give a shorter prompt"),
}


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> GPT:
    """A model that fails when it computes anything."""
    for part in (MODEL.wte, MODEL.h[0]):
        monkeypatch.setattr(part, "forward", interrupt)
    monkeypatch.setattr(KVCache, "append", interrupt)
    return MODEL


@pytest.mark.parametrize("name", PROMPT_FAULTS)
def test_prompts_that_do_not_fit_are_refused(name: str, still: GPT) -> None:
    ids, error, said = PROMPT_FAULTS[name]
    for call in (lambda: generate(still, ids, 3), lambda: next(stream_tokens(still, ids, 3))):
        with pytest.raises(error, match=said):
            call()


@pytest.mark.parametrize("name", OTHER_FAULTS)
def test_arguments_that_cannot_be_are_refused(name: str, still: GPT) -> None:
    arguments, error, said = OTHER_FAULTS[name]
    arguments = {"n": 3, **arguments}
    calls: list[Callable[[], Any]] = [
        lambda: generate(still, IDS, **arguments),
        lambda: generate_each(still, [[1], IDS[0].tolist()], **arguments),
    ]
    if "end" not in arguments:
        calls.append(lambda: next(stream_tokens(still, IDS, **arguments)))
    for call in calls:
        with pytest.raises(error, match=said):
            call()


@pytest.mark.parametrize("name", EACH_FAULTS)
def test_unequal_prompts_that_do_not_fit_are_refused(name: str, still: GPT) -> None:
    prompts, error, said = EACH_FAULTS[name]
    with pytest.raises(error, match=said):
        generate_each(still, prompts, 5)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (lambda x: None, ValueError, "choose returned None; it must return a tensor of 2 ids on cpu"),
        (lambda x: 3, ValueError, "choose returned 3"),
        (lambda x: [1, 2], ValueError, r"choose returned \[1, 2\]"),
        (lambda x: x.argmax(-1, keepdim=True), ValueError, r"choose returned \(2, 1\) on cpu"),
        (lambda x: x.argmax(), ValueError, r"choose returned \(\)"),
        (lambda x: x.argmax(-1).to("meta"), ValueError, r"choose returned \(2,\) on meta"),
        (lambda x: x.max(-1).values, TypeError, "choose returned no ids of the vocabulary: .*torch.float64"),
        (lambda x: x.argmax(-1) + V, ValueError, "choose returned no ids of the vocabulary: id .* outside 0 to 100"),
        (lambda x: -1 - x.argmax(-1), ValueError, "choose returned no ids of the vocabulary: id -"),
    ],
)
def test_choices_that_are_no_ids_are_refused(
    answer: Callable[[torch.Tensor], Any], error: type[Exception], said: str
) -> None:
    def choose(logits: torch.Tensor, ids: torch.Tensor) -> Any:
        return answer(logits)

    with pytest.raises(error, match=said):
        generate(MODEL, IDS, 3, choose)
    with pytest.raises(error, match=said):
        generate_each(MODEL, [[1], [2, 3]], 3, choose)


def test_scores_that_are_no_numbers_are_refused() -> None:
    model = GPT(CONFIGS[1])
    with torch.no_grad():
        model.ln_f.bias[3] = math.nan
    with pytest.raises(ValueError, match="logits hold NaN: its weights are damaged or its training diverged"):
        generate(model, batch(CONFIGS[1], 1, 2), 3)
    assert model.training


# --- what an attacker found ---


def test_a_choose_may_use_its_buffer_again_and_write_into_what_it_gets() -> None:
    ids = batch(CONFIG, 2, 4)
    found, kept, buffer = generate(MODEL, ids, 12), ids.clone(), torch.zeros(2, dtype=torch.int64)

    def reuses(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return buffer.copy_(greedy(logits, ids))

    def scribbles(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        chosen = greedy(logits, ids)
        logits.zero_()
        ids.zero_()
        return chosen

    assert torch.equal(generate(MODEL, ids, 12, reuses), found)
    assert torch.equal(torch.stack([*stream_tokens(MODEL, ids, 12, reuses)], dim=1), found[:, 4:])
    assert torch.equal(generate(MODEL, ids, 12, scribbles)[:, 4:], found[:, 4:])
    assert torch.equal(ids, kept)


def test_an_interrupt_while_the_modes_change_leaves_no_part_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPT(CONFIG)
    monkeypatch.setattr(model.h[1].mlp, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(model, batch(CONFIG, 1, 3), 2)
    assert all(modes(model))


def test_no_more_work_than_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head reads one row a text, the caches have room for prompt and answer, and what is over stops."""
    rows: list[tuple[int, ...]] = []
    rooms: list[int | None] = []
    head, new_caches = GPT.head, GPT.new_caches

    def watched_head(self: GPT, x: torch.Tensor) -> torch.Tensor:
        rows.append(tuple(x.shape))
        return head(self, x)

    def watched_caches(self: GPT, length: int | None = None) -> list[KVCache]:
        rooms.append(length)
        return new_caches(self, length)

    monkeypatch.setattr(GPT, "head", watched_head)
    monkeypatch.setattr(GPT, "new_caches", watched_caches)
    ids = batch(CONFIG, 3, 7)
    generate(MODEL, ids, 5)
    assert rows == [(3, 16)] * 5
    assert rooms == [12]
    texts = generate_each(MODEL, [[1, 2, 3], [4, 5, 6, 7, 8]], 6)
    rows.clear()
    assert generate_each(MODEL, [[1, 2, 3]], 6, end=texts[0][4]) == [texts[0][: texts[0].index(texts[0][4], 3) + 1]]
    assert len(rows) == texts[0].index(texts[0][4], 3) - 2


def test_few_rows_are_multiplied_from_the_weights_side() -> None:
    assert [isinstance(few_rows(torch.zeros(n, 1)), FewRows) for n in (1, 3, 4, 64, 65)] == [0, 0, 1, 1, 0]
    products: list[str] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            products.append(func.__name__)
            return func(*args, **(kwargs or {}))

    for B in (1, 8):
        products.clear()
        with Watch():
            generate(MODEL, batch(CONFIG, B, 1), 3)
        assert ("addmm" in products) == (B == 8)
    with FewRows():
        for x, weight in ((torch.ones(8, 3), torch.ones(3)), (torch.ones(8, 0), torch.ones(2, 0))):
            assert F.linear(x, weight).shape == x.shape[:1] + weight.shape[:-1]
        assert torch.equal(F.linear(torch.ones(8, 3), torch.ones(2, 3), torch.ones(1)), torch.full((8, 2), 4.0))


def test_a_model_without_numbers_is_refused() -> None:
    with torch.device("meta"):
        model, ids = GPT(CONFIG), torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="on meta and has no numbers"):
        generate(model, ids, 2)


def test_double_precision_writes_under_autocast() -> None:
    ids = batch(CONFIG, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(generate(MODEL, ids, 6), generate(MODEL, ids, 6, cached=False))
