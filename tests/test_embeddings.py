"""02_preprocessing, embeddings: against one-hot products, the paper's formula, plain loops and a full softmax."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from glassbox.datasets import dataset
from glassbox.embeddings import (
    Embeddings,
    check_dropout,
    check_length,
    nearest,
    negative_sampling_loss,
    noise_distribution,
    sinusoidal_positions,
    skipgram_pairs,
    train_vectors,
)
from glassbox.preprocessing import read_documents
from glassbox.tales import END
from glassbox.tales_grammar import grammar
from glassbox.tokenizer import BPETokenizer
from hypothesis import given
from hypothesis import strategies as st
from test_pretokens import examples


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=dice(seed))


# --- positions ---


@pytest.mark.parametrize(("T", "n_embd"), [(1, 2), (7, 6), (50, 64), (5000, 4)])
def test_sinusoids_are_the_papers_formula(T: int, n_embd: int) -> None:
    table = sinusoidal_positions(T, n_embd)
    assert table.shape == (T, n_embd)
    assert table.dtype == torch.float32
    wanted = [
        [
            (math.sin if place % 2 == 0 else math.cos)(position / 10000 ** ((place - place % 2) / n_embd))
            for place in range(n_embd)
        ]
        for position in range(T)
    ]
    assert (table.double() - torch.tensor(wanted, dtype=torch.float64)).abs().max() < 6e-8  # half a unit of float32


@examples(60)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 12))
def test_a_step_is_a_rotation_that_does_not_depend_on_where(step: int, position: int, half: int) -> None:
    table = sinusoidal_positions(81, 2 * half).double()
    pairs = table.view(81, half, 2)
    for i in range(half):
        angle = step * 10000 ** (-i / half)
        turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        assert torch.allclose(pairs[position + step, i], turn.double() @ pairs[position, i], atol=3e-7)
    products = table @ table.T
    assert torch.allclose(products[position, position + step], products[0, step], atol=1e-5)
    assert math.isclose(products[position, position], half, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("T", "n_embd", "message"),
    [
        (4, 5, "n_embd must be even, a sine and a cosine for each speed, not 5; take 6"),
        (0, 4, "T must be 1 or more, not 0"),
        (4, 0, "n_embd must be 1 or more, not 0"),
    ],
)
def test_sinusoids_that_cannot_be_are_refused(T: int, n_embd: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinusoidal_positions(T, n_embd)


# --- GPT-2's first layer ---


@examples(40)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 4), st.integers(0, 99))
def test_a_look_up_is_a_product_with_a_one_hot(B: int, T: int, offset: int, seed: int) -> None:
    layer = Embeddings(11, 10, 4).double()
    ids = torch.randint(11, (B, T), generator=dice(seed))
    hot = F.one_hot(ids, 11).double()  # (B, T, V)
    where = F.one_hot(torch.arange(offset, offset + T), 10).double()  # (T, block_size)
    out, upstream = layer(ids, offset), random(B, T, 4, seed=seed)
    assert torch.allclose(out, hot @ layer.wte.weight + where @ layer.wpe.weight, atol=1e-15)
    assert layer(ids[0], offset).equal(out[0])
    out.backward(upstream)
    for table, rows in ((layer.wte, hot), (layer.wpe, where.expand(B, T, 10))):
        assert table.weight.grad is not None
        assert torch.allclose(table.weight.grad, torch.einsum("btv,btc->vc", rows, upstream), atol=1e-14)


def test_names_shapes_and_start_are_gpt2s() -> None:
    torch.manual_seed(0)
    layer = Embeddings(2000, 100, 32)
    assert {name: tuple(part.shape) for name, part in layer.state_dict().items()} == {
        "wte.weight": (2000, 32),
        "wpe.weight": (100, 32),
    }
    for part in layer.parameters():
        assert abs(part.std().item() - 0.02) < 0.001
        assert abs(part.mean().item()) < 0.002


def test_the_layer_is_the_bottom_of_transformers_gpt2() -> None:
    from transformers import GPT2Config, GPT2Model

    theirs = GPT2Model(GPT2Config(vocab_size=50, n_positions=12, n_embd=8, n_layer=1, n_head=2)).eval()
    ours = Embeddings(50, 12, 8)
    ours.load_state_dict({name: theirs.state_dict()[name] for name in ("wte.weight", "wpe.weight")})
    ids = torch.randint(50, (2, 9), generator=dice())
    hidden = theirs(ids, output_hidden_states=True).hidden_states
    assert hidden is not None
    assert hidden[0].equal(ours(ids))


def test_dropout_is_for_training_only() -> None:
    layer = Embeddings(7, 5, 1000, dropout=0.25)
    ids = torch.tensor([3, 3])
    out = layer(ids)
    kept = out != 0
    assert 0.7 < kept.double().mean() < 0.8
    assert torch.allclose(out[kept], layer.eval()(ids)[kept] / 0.75)
    assert (layer(ids) != 0).all()


def test_the_layer_is_traced_without_a_break() -> None:
    """Its checks look at numbers; while torch traces a graph they must not."""
    layer = Embeddings(7, 5, 4)
    exported = torch.export.export(layer, (torch.tensor([[3, 1]]),))
    assert torch.allclose(exported.module()(torch.tensor([[2, 6]])), layer(torch.tensor([[2, 6]])))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda f: f(torch.tensor([7])), ValueError, "id 7 is outside 0 to 6: use the model's own tokenizer"),
        (lambda f: f(torch.tensor([[-1]])), ValueError, "id -1 is outside 0 to 6"),
        (lambda f: f(torch.tensor([1.0])), TypeError, "int64 or int32, not torch.float32"),
        (lambda f: f([1]), TypeError, "ids must be a tensor, not list"),
        (lambda f: f(torch.tensor(1)), ValueError, r"ids must be of shape \(T,\) or \(B, T\), not \(\)"),
        (lambda f: f(torch.ones(1, 1, 1, dtype=torch.int64)), ValueError, r"not \(1, 1, 1\)"),
        (lambda f: f(torch.ones(2, 0, dtype=torch.int64)), ValueError, r"there are no tokens \(T = 0\): give at least"),
        (
            lambda f: f(torch.ones(2, 6, dtype=torch.int64)),
            ValueError,
            "6 tokens are more than block_size=5: give a short",
        ),
        (
            lambda f: f(torch.ones(2, dtype=torch.int64), 4),
            ValueError,
            "2 tokens after 4 before them are more than block_size=5: .* block_size of 6 or more",
        ),
        (lambda f: f(torch.ones(2, dtype=torch.int64), -1), ValueError, "first position must be 0 or more, not -1"),
        (lambda f: Embeddings(0, 5, 4), ValueError, "vocab_size must be 1 or more, not 0"),
        (lambda f: Embeddings(7, 0, 4), ValueError, "block_size must be 1 or more, not 0"),
        (lambda f: Embeddings(7, 5, float(4)), TypeError, "n_embd must be a whole number, not 4.0"),  # type: ignore[arg-type]
        (lambda f: Embeddings(7, 5, 4, dropout=1.5), ValueError, "dropout must be a number from 0 to 1, not 1.5"),
        (lambda f: Embeddings(7, 5, 4, dropout=math.nan), ValueError, "dropout must be a number from 0 to 1, not nan"),
        (lambda f: Embeddings(7, 5, 4, dropout="0.1"), TypeError, "dropout must be a number from 0 to 1, not '0.1'"),  # type: ignore[arg-type]
        (lambda f: Embeddings(7, 5, 4, dropout=None), TypeError, "dropout must be a number from 0 to 1, not None"),  # type: ignore[arg-type]
        *(
            (
                lambda f, past=past: f(torch.ones(2, dtype=torch.int64), past),
                TypeError,
                "position must be a whole number",
            )
            for past in (1.0, None, "1", True, torch.tensor(1.0))
        ),
    ],
)
def test_what_has_no_embedding_is_refused(call: Callable[[Any], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(Embeddings(7, 5, 4))


def test_lengths_up_to_the_block_size_pass() -> None:
    assert check_length(5, 5) == 0
    past = check_length(2, 5, np.uint8(3))  # type: ignore[arg-type]
    assert (past, type(past)) == (3, int)


@pytest.mark.parametrize("dropout", [0, 0.1, 1.0, np.float32(0.5)])
def test_shares_to_drop_from_none_to_all_pass(dropout: float) -> None:
    assert check_dropout(dropout) == dropout
    assert type(check_dropout(dropout)) is float


def test_sizes_of_numpy_do_not_overflow() -> None:
    size = np.uint8(254)
    assert sinusoidal_positions(size, size).equal(sinusoidal_positions(254, 254))  # type: ignore[arg-type]
    layer = Embeddings(size, np.int16(300), np.int8(4))  # type: ignore[arg-type]
    ids = torch.arange(10)
    assert layer(ids, np.uint8(250)).equal(layer(ids, 250))
    ids = torch.arange(600) % 9
    for found, wanted in zip(skipgram_pairs(ids, np.uint8(255)), skipgram_pairs(ids, 255), strict=True):  # type: ignore[arg-type]
        assert found.equal(wanted)
    B, K, S = np.uint8(100), np.uint8(5), np.uint8(3)
    ours, losses = train_vectors(ids, np.uint8(9), np.uint8(4), np.uint8(2), K, B, S, np.float32(0.5), np.uint8(1))  # type: ignore[arg-type]
    theirs = train_vectors(ids, 9, 4, 2, 5, 100, 3, 0.5, 1)
    assert ours.equal(theirs[0])
    assert losses == theirs[1]


def test_vectors_are_trained_where_gradients_are_switched_off() -> None:
    ids = torch.arange(30) % 5
    wanted = train_vectors(ids, 5, 4, steps=3, batch_size=8)
    with torch.no_grad():
        found = train_vectors(ids, 5, 4, steps=3, batch_size=8)
    assert found[0].equal(wanted[0])
    assert not found[0].requires_grad


def test_ids_to_choose_from_are_of_every_kind_and_each_once() -> None:
    vectors = random(12, 3)
    wanted = nearest(vectors, 2, 3, among=[1, 5, 7, 9])
    for among in (np.array([9, 7, 5, 1], np.uint16), torch.tensor([1, 5, 7, 9, 2]), [1, 1, 5, 7, 7, 9, 9, 9, 2]):
        found = nearest(vectors, np.int64(2), np.uint8(3), among=among)  # type: ignore[arg-type]
        assert found.tolist() == wanted.tolist()
        assert found.dtype == torch.int64


def test_noise_of_large_counts_does_not_overflow() -> None:
    counts = torch.tensor([1e300, 1e300, 0, 1], dtype=torch.float64)
    assert noise_distribution(counts, 2).tolist() == [0.5, 0.5, 0, 0]
    assert noise_distribution(torch.tensor([2, 1]), np.float32(2)).tolist() == pytest.approx([0.8, 0.2])  # type: ignore[arg-type]


# --- words by their neighbours ---


@examples(100)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=15), st.integers(1, 20))
def test_pairs_are_those_of_a_plain_loop(ids: list[int], window: int) -> None:
    centres, contexts = skipgram_pairs(torch.tensor(ids), window)
    wanted = Counter(
        (ids[i], ids[j]) for i in range(len(ids)) for j in range(len(ids)) if i != j and abs(i - j) <= window
    )
    assert Counter(zip(centres.tolist(), contexts.tolist(), strict=True)) == wanted


def test_noise_is_counts_to_a_power() -> None:
    counts = torch.tensor([16, 0, 81, 1])
    assert torch.allclose(noise_distribution(counts), torch.tensor([8, 0, 27, 1]) / 36)
    assert torch.allclose(noise_distribution(counts, 1), counts / 98)
    assert torch.allclose(noise_distribution(counts, 0), torch.tensor([1, 0, 1, 1]) / 3)


def plain_loss(centre: list[list[float]], context: list[list[float]], negatives: list[list[list[float]]]) -> float:
    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))

    def dot(a: list[float], b: list[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    total = 0.0
    for w, c, others in zip(centre, context, negatives, strict=True):
        total -= log_sigmoid(dot(w, c)) + math.fsum(log_sigmoid(-dot(w, n)) for n in others)
    return total / len(centre)


@examples(50)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.floats(0.1, 30))
def test_the_loss_is_that_of_a_plain_loop(B: int, C: int, K: int, scale: float) -> None:
    parts = [scale * random(B, C), random(B, C, seed=1), random(B, K, C, seed=2)]
    loss = negative_sampling_loss(*parts)
    assert math.isclose(loss.item(), plain_loss(*(part.tolist() for part in parts)), rel_tol=1e-12, abs_tol=1e-300)


def test_the_losss_gradients_are_the_derived_ones() -> None:
    """d/dw = (sigmoid(w.c) - 1) c + sum of sigmoid(w.n) n, and so on; also by finite differences."""
    w, c, n = (part.requires_grad_() for part in (random(3, 4), random(3, 4, seed=1), random(3, 2, 4, seed=2)))
    assert torch.autograd.gradcheck(negative_sampling_loss, (w, c, n))
    negative_sampling_loss(w, c, n).backward()
    near = torch.sigmoid((w * c).sum(-1, keepdim=True)) - 1  # (B, 1)
    far = torch.sigmoid((w[:, None] * n).sum(-1, keepdim=True))  # (B, K, 1)
    for part, wanted in ((w, near * c + (far * n).sum(1)), (c, near * w), (n, far * w[:, None])):
        assert part.grad is not None
        assert torch.allclose(part.grad, wanted / 3, atol=1e-14)


def test_the_loss_stays_finite_for_large_scores() -> None:
    w = torch.tensor([[200.0]], requires_grad=True)
    loss = negative_sampling_loss(w, torch.tensor([[-1.0]]), torch.tensor([[[1.0]]]))
    loss.backward()
    assert loss.item() == pytest.approx(400)
    assert w.grad is not None
    assert w.grad.item() == pytest.approx(2)


def test_training_finds_the_shifted_mutual_information() -> None:
    """With free vectors the best score is log p(w, c) / (p(w) noise(c)) - log K: Levy and Goldberg (2014)."""
    torch.manual_seed(0)
    V, K = 6, 3
    ids = torch.multinomial(torch.tensor([5.0, 3, 2, 2, 1, 1]), 30_000, replacement=True, generator=dice(1))
    ids = torch.where(torch.rand(len(ids), generator=dice(2)) < 0.3, ids.roll(1), ids)  # neighbours are not independent
    vectors, losses = train_vectors(ids, V, n_embd=8, window=1, negatives=K, batch_size=2048, steps=800, lr=0.05)
    centres, contexts = skipgram_pairs(ids, 1)
    joint = torch.zeros(V, V, dtype=torch.float64).index_put_(
        (centres, contexts), torch.ones(len(centres), dtype=torch.float64), accumulate=True
    )
    noise = noise_distribution(ids.bincount(minlength=V)).double()
    scores = (joint / (joint.sum(1, keepdim=True) * noise * K)).log()
    weights = joint / joint.sum()
    best = (
        -(weights * F.logsigmoid(scores)).sum()
        - K * (weights.sum(1, keepdim=True) * noise * F.logsigmoid(-scores)).sum()
    )
    assert abs(np.mean(losses[-200:]) - best.item()) < 0.01
    assert losses[0] == pytest.approx((1 + K) * math.log(2))  # the contexts' table begins at zero
    assert vectors.shape == (V, 8)


def test_words_of_a_kind_are_neighbours() -> None:
    """Half the steps of the notebook: of a word's 10 nearest more than 8 are of its kind; at random it is about 1."""
    tokenizer = BPETokenizer.load()
    end = tokenizer.special_tokens[END]
    ids = torch.tensor([i for text in read_documents(dataset("tales")) for i in [*tokenizer.encode(text), end]])
    used = ids.unique()
    for steps, least, most in ((0, 0.0, 0.15), (750, 0.8, 1.0)):
        vectors, _ = train_vectors(ids, tokenizer.vocab_size, steps=steps)
        for kind in ("name", "job", "thing", "look"):
            spelled = [tokenizer.encode(f" {word}") for word, _ in grammar().words[kind]]
            members = {word[0] for word in spelled if len(word) == 1} & set(used.tolist())
            assert len(members) >= 20
            shares = [len(members & set(nearest(vectors, i, 10, used).tolist())) / 10 for i in members]
            assert least <= np.mean(shares) <= most, (kind, steps, np.mean(shares))


def test_training_repeats_itself_and_leaves_the_global_dice_alone() -> None:
    ids = torch.randint(9, (200,), generator=dice())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (train_vectors(ids, 9, 4, steps=5, batch_size=16, seed=seed) for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(before)
    assert first[0].equal(again[0])
    assert first[1] == again[1]
    assert len(first[1]) == 5
    assert not first[0].equal(other[0])
    start, none = train_vectors(ids, 9, 4, steps=0, seed=1)
    assert none == []
    assert start.equal(torch.randn(9, 4, generator=dice(1)) / 2)
    assert not start.requires_grad


def test_the_step_size_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[float] = []

    class Watched(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            sizes.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    train_vectors(torch.arange(9), 9, 4, steps=5, lr=0.5)
    assert sizes == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])


@examples(50)
@given(st.integers(0, 11), st.integers(1, 11), st.integers(0, 9))
def test_nearest_is_a_sort_by_cosine(i: int, k: int, seed: int) -> None:
    vectors = random(12, 3, seed=seed)
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    order = sorted((j for j in range(12) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
    assert nearest(vectors, i, k).tolist() == order[:k]
    among = [j for j in range(12) if j % 3]
    wanted = [j for j in order if j in among]
    assert nearest(vectors, i, len(wanted), among=among).tolist() == wanted
    assert nearest(vectors * 7, i, len(wanted), among=torch.tensor(among)).tolist() == wanted


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: skipgram_pairs(torch.tensor([1, 2]), 0), ValueError, "window must be 1 or more, not 0"),
        (lambda: skipgram_pairs(torch.tensor([1]), 2), ValueError, r"two ids or more, not of shape \(1,\)"),
        (lambda: skipgram_pairs(torch.ones(2, 2), 2), ValueError, r"one row of two ids or more, not of shape \(2, 2\)"),
        (lambda: skipgram_pairs([1, 2], 2), TypeError, "ids must be a tensor, not list"),  # type: ignore[arg-type]
        (
            lambda: noise_distribution(torch.tensor([0, 0])),
            ValueError,
            "counts must be one row .* at least one above 0",
        ),
        (
            lambda: noise_distribution(torch.tensor([3, -1])),
            ValueError,
            "counts must be one row of numbers of 0 or more",
        ),
        (lambda: noise_distribution(torch.ones(2, 2)), ValueError, "counts must be one row"),
        (
            lambda: negative_sampling_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3)),
            ValueError,
            r"shapes must be \(B, C\), \(B, C\) and \(B, K, C\) .*, not \(\(2, 3\), \(2, 3\), \(2, 3\)\)",
        ),
        (lambda: negative_sampling_loss(torch.ones(2, 3), torch.ones(1, 3), torch.ones(2, 4, 3)), ValueError, "shapes"),
        (lambda: negative_sampling_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(1, 4, 3)), ValueError, "shapes"),
        (lambda: negative_sampling_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 0, 3)), ValueError, "shapes"),
        (lambda: train_vectors(torch.tensor([1, 9]), 9), ValueError, "id 9 is outside 0 to 8"),
        (lambda: train_vectors(torch.tensor([1, 2]), 9, lr=0), ValueError, "lr must be above 0, not 0"),
        (lambda: train_vectors(torch.tensor([1, 2]), 9, steps=-1), ValueError, "steps must be 0 or more, not -1"),
        (lambda: train_vectors(torch.tensor([1, 2]), 9, negatives=0), ValueError, "negatives must be 1 or more, not 0"),
        (lambda: nearest(torch.ones(3, 2), 3, 1), ValueError, "i: id 3 is outside 0 to 2"),
        (lambda: nearest(torch.ones(3, 2), 0, 3), ValueError, "k=3, but there are only 2 others to choose from"),
        (lambda: nearest(torch.ones(3, 2), 0, 0), ValueError, "k must be 1 or more, not 0"),
        (lambda: nearest(torch.ones(3, 2), 0, 1, among=[5]), ValueError, "among: id 5 is outside 0 to 2"),
        (lambda: noise_distribution(torch.tensor([1, math.inf])), ValueError, "at least one above 0 and none infinite"),
        (lambda: noise_distribution(torch.tensor([1, math.nan])), ValueError, "counts must be one row"),
        (lambda: noise_distribution([1, 2]), TypeError, "counts must be a tensor of plain numbers, not list"),  # type: ignore[arg-type]
        (
            lambda: noise_distribution(torch.ones(2), math.nan),
            ValueError,
            "power must be a number of 0 or more, not nan",
        ),
        (lambda: noise_distribution(torch.ones(2), -1), ValueError, "power must be a number of 0 or more, not -1"),
        (
            lambda: noise_distribution(torch.ones(2), math.inf),
            ValueError,
            "power must be a number of 0 or more, not inf",
        ),
        (lambda: noise_distribution(torch.ones(2), "1"), TypeError, "power must be a number of 0 or more, not '1'"),  # type: ignore[arg-type]
        *(
            (lambda more=more: train_vectors(torch.tensor([1, 2]), **{"vocab_size": 9, **more}), kind, message)
            for more, kind, message in (
                ({"seed": None}, TypeError, "seed must be a whole number, not None"),
                ({"seed": 1.0}, TypeError, "seed must be a whole number, not 1.0"),
                ({"seed": 2**70}, ValueError, "seed must fit into 64 bits, and 1180591620717411303424 does not"),
                ({"vocab_size": 5.0}, TypeError, "vocab_size must be a whole number, not 5.0"),
                ({"lr": "0.1"}, TypeError, "lr must be a number"),
                ({"lr": math.nan}, ValueError, "lr must be a number"),
                ({"steps": None}, TypeError, "steps must be a whole number, not None"),
            )
        ),
        (lambda: nearest(torch.ones(3, 2), True, 1), TypeError, "i must be a whole number, not True"),
        (lambda: nearest(torch.ones(3, 2), 0, 1, among=[True, False, True]), TypeError, "among must be whole numbers"),
        (lambda: nearest(torch.ones(3, 2), 0, 1, among=[1.0, math.nan]), TypeError, "among must be whole numbers"),  # type: ignore[list-item]
        (lambda: nearest(torch.ones(3, 2), 0, 2, among=[1, 1, 0]), ValueError, "k=2, but there are only 1 others"),
        (lambda: nearest(torch.ones(3, 2), 0, 1, among=[]), ValueError, "k=1, but there are only 0 others"),
        (lambda: nearest(torch.tensor([[1.0], [math.nan]]), 0, 1), ValueError, "infinite or NaN"),
        (lambda: nearest(torch.ones(3, 2).long(), 0, 1), TypeError, "a tensor of floats, not torch.int64"),
        (lambda: nearest([[1.0], [2.0]], 0, 1), TypeError, "a tensor of floats, not list"),  # type: ignore[arg-type]
        (lambda: nearest(torch.ones(3), 0, 1), ValueError, r"a table \(V, C\), not of shape \(3,\)"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
