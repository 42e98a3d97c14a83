"""02_preprocessing, n-grams: against a recount of the whole text for every single probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from glassbox.datasets import dataset
from glassbox.ngrams import NGram, find_keys
from glassbox.preprocessing import read_documents
from glassbox.tales import END
from glassbox.tokenizer import BPETokenizer
from hypothesis import given
from hypothesis import strategies as st
from test_pretokens import examples

V = 4
ROWS = st.lists(st.integers(0, V - 1), min_size=5, max_size=30)


def recounted(text: list[int], context: list[int], word: int, order: int, a: float) -> float:
    """p(w|h) by its definition: counts of h and of h with w behind it, over all places of the text."""
    if order == 0:
        return 1 / V
    h = context[len(context) - order + 1 :] if order > 1 else []
    n = order - 1
    places = [i for i in range(len(text) - n) if text[i : i + n] == h]  # places where something follows h
    c_h = len(places)
    c_hw = sum(text[i + n] == word for i in places)
    return (c_hw + a * recounted(text, context, word, order - 1, a)) / (c_h + a)


@examples(150)
@given(ROWS, ROWS, st.integers(1, 5), st.sampled_from([0.1, 1.0, 4.0]))
def test_every_probability_is_that_of_a_recount(text: list[int], scored: list[int], order: int, a: float) -> None:
    model = NGram(order, V, a).fit(text)
    assert model.log_probs(scored).dtype == np.float64
    for row in (scored, text, scored[:1]):
        wanted = [recounted(text, row[:t], word, min(order, t + 1), a) for t, word in enumerate(row)]
        assert np.allclose(np.exp(model.log_probs(row)), wanted, rtol=1e-12)
    for context in ([], scored[:1], scored[:2], scored, text):
        p = model.probabilities(context)
        wanted = [recounted(text, context, word, min(order, len(context) + 1), a) for word in range(V)]
        assert np.allclose(p, wanted, rtol=1e-12)
        assert math.isclose(p.sum(), 1, rel_tol=1e-12)
        assert (p > 0).all()


def test_a_worked_example() -> None:
    """In 0 1 0 1 0 2 with strength 1: 0 is followed by 1 twice and by 2 once; 1 is a third of the text."""
    model = NGram(2, 3, 1.0).fit([0, 1, 0, 1, 0, 2])
    unigram = [(3 + 1 / 3) / 7, (2 + 1 / 3) / 7, (1 + 1 / 3) / 7]
    assert np.allclose(model.probabilities(), unigram)
    assert np.allclose(model.probabilities([0]), [unigram[0] / 4, (2 + unigram[1]) / 4, (1 + unigram[2]) / 4])
    assert np.allclose(model.probabilities([2]), unigram)  # nothing ever followed 2


def test_a_weak_memory_counts_and_a_strong_one_flattens() -> None:
    text = np.random.default_rng(0).integers(V, size=200)
    counted = np.bincount(text, minlength=V) / 200
    assert np.allclose(NGram(1, V, 1e-9).fit(text).probabilities(), counted)
    assert np.allclose(NGram(3, V, 1e12).fit(text).probabilities(text[:2]), 1 / V)


def test_a_longer_memory_is_better_on_held_out_tales() -> None:
    tokenizer = BPETokenizer.load()
    end = tokenizer.special_tokens[END]
    ids = [i for text in read_documents(dataset("tales")) for i in [*tokenizer.encode(text), end]][:150_000]
    losses = [-NGram(order, 2048).fit(ids[:130_000]).log_probs(ids[130_000:]).mean() for order in (1, 2, 3)]
    assert all(longer < 0.85 * shorter for shorter, longer in pairwise([math.log(2048), *losses]))


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_ids_of_every_kind(kind: Callable[[list[int]], Any]) -> None:
    text = [0, 3, 2, 2, 1, 0, 3]
    model = NGram(2, V).fit(kind(text))
    assert (
        model.log_probs(kind([3, 2])).tolist() == NGram(2, V).fit(np.array(text, np.uint16)).log_probs([3, 2]).tolist()
    )
    assert model.probabilities(kind([3])).tolist() == model.probabilities([0, 3]).tolist()


def test_large_vocabularies_do_not_overflow() -> None:
    """Five ids below 50,257 have more combinations than 64 bits can number; contexts are numbered as they occur."""
    text = np.random.default_rng(0).integers(50_250, 50_257, size=500)
    model, small = NGram(6, 50_257, 1e-3).fit(text), NGram(6, 7, 1e-3).fit(text - 50_250)
    ours, theirs = np.exp(model.log_probs(text)), np.exp(small.log_probs(text - 50_250))
    assert np.allclose(ours, theirs, atol=1e-2)


@pytest.mark.parametrize("kind", [np.int32, np.uint16, np.uint64, np.uint8])
def test_sizes_of_numpy_do_not_overflow(kind: Any) -> None:
    text = np.random.default_rng(0).integers(250, size=2000).astype(kind)
    text[0] = 249
    model, wanted = NGram(kind(3), text.max() + 1, np.float32(4)).fit(text), NGram(3, 250).fit(text)  # type: ignore[arg-type]
    for context in (text[:0], text[:1], text[5:7], text[-2:]):
        assert model.probabilities(context).tolist() == wanted.probabilities(context).tolist()
    assert model.log_probs(text[:50]).tolist() == wanted.log_probs(text[:50]).tolist()


def test_samples_follow_the_probabilities_and_their_seed() -> None:
    text = [0, 1, 2, 3, 1, 0] * 3  # what follows 1 depends on what stood before it
    model = NGram(3, V, 0.5).fit(text)
    first, again = (model.sample(40, np.random.default_rng(5), [0]) for _ in range(2))
    assert first == again
    assert first[0] == 0
    assert len(first) == 41
    assert model.sample(0, np.random.default_rng(0), np.array([1, 2], np.uint16)) == [1, 2]  # type: ignore[arg-type]
    long = np.array(model.sample(6000, np.random.default_rng(1)))
    for context in ([0, 1], [3, 1]):
        after = np.flatnonzero((long[:-2] == context[0]) & (long[1:-1] == context[1]))
        found = np.bincount(long[after + 2], minlength=V) / len(after)
        assert len(after) > 500
        assert np.abs(found - model.probabilities(context)).max() < 4 * (0.25 / len(after)) ** 0.5


def test_fitting_begins_afresh() -> None:
    model = NGram(2, V).fit([0, 0, 0, 0])
    model.fit([1, 2, 1, 2])
    assert model.log_probs([1, 2, 0]).tolist() == NGram(2, V).fit([1, 2, 1, 2]).log_probs([1, 2, 0]).tolist()


@examples(100)
@given(st.lists(st.integers(-9, 9), min_size=1, unique=True).map(sorted), st.lists(st.integers(-12, 12)))
def test_find_keys_is_index(keys: list[int], wanted: list[int]) -> None:
    found = find_keys(np.array(keys), np.array(wanted, np.int64))
    assert found.tolist() == [keys.index(number) if number in keys else -1 for number in wanted]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda f: NGram(0, V), ValueError, "order must be 1 or more, not 0"),
        (lambda f: NGram(2, 2**70), ValueError, "vocab_size must be 2,147,483,648 or less"),
        (lambda f: NGram(2, V, "4"), TypeError, "strength must be a number above 0, not '4'"),  # type: ignore[arg-type]
        (lambda f: NGram(2, V, None), TypeError, "strength must be a number above 0, not None"),  # type: ignore[arg-type]
        (lambda f: NGram(2, V, True), TypeError, "strength must be a number above 0, not True"),
        (lambda f: NGram(2, V, torch.tensor(4.0)), TypeError, "strength must be a number above 0, not tensor"),  # type: ignore[arg-type]
        (
            lambda f: f.sample(1, 0),
            TypeError,
            r"rng must be a generator of NumPy's, not 0; write np.random.default_rng",
        ),  # type: ignore[arg-type]
        (lambda f: f.sample(1, None), TypeError, "rng must be a generator of NumPy's, not None"),  # type: ignore[arg-type]
        (lambda f: f.fit(np.array([0, 2**64 - 1], np.uint64)), ValueError, "ids must fit into int64"),
        (lambda f: NGram(2.5, V), TypeError, "order must be a whole number, not 2.5"),  # type: ignore[arg-type]
        (lambda f: NGram(2, 0), ValueError, "vocab_size must be 1 or more, not 0"),
        (lambda f: NGram(2, V, 0), ValueError, "strength must be a number above 0, not 0; without it unseen"),
        (lambda f: NGram(2, V, math.nan), ValueError, "strength must be a number above 0, not nan"),
        (lambda f: NGram(2, V, math.inf), ValueError, "strength must be a number above 0, not inf"),
        (lambda f: NGram(3, V).fit([0, 1]), ValueError, "2 ids are too few: give 3 or more"),
        (lambda f: NGram(1, V).fit([]), ValueError, "0 ids are too few: give 1 or more"),
        (lambda f: NGram(2, V).fit([0, V]), ValueError, f"id {V} is outside 0 to {V - 1}: use the tokenizer"),
        (lambda f: NGram(2, V).fit([0, -1]), ValueError, "id -1 is outside"),
        (lambda f: NGram(2, V).fit([[0, 1], [1, 2]]), ValueError, r"not of shape \(2, 2\); join documents first"),  # type: ignore[list-item]
        (lambda f: NGram(2, V).fit([0.5, 1]), TypeError, "ids must be whole numbers"),  # type: ignore[list-item]
        (lambda f: NGram(2, V).log_probs([0]), ValueError, "nothing has been counted yet: call fit"),
        (lambda f: NGram(2, V).probabilities([0]), ValueError, "nothing has been counted yet"),
        (lambda f: f.log_probs([]), ValueError, "0 ids are too few"),
        (lambda f: f.log_probs([V]), ValueError, f"id {V} is outside"),
        (lambda f: f.probabilities([V]), ValueError, f"id {V} is outside"),
        (lambda f: f.sample(-1, np.random.default_rng()), ValueError, "n must be 0 or more, not -1"),
        (lambda f: f.sample(1, np.random.default_rng(), [V]), ValueError, f"id {V} is outside"),
    ],
)
def test_what_cannot_be_counted_is_refused(call: Callable[[NGram], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(NGram(2, V).fit([0, 1, 2, 3]))
