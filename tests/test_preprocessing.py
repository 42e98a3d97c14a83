"""02_preprocessing: documents, windows, packing, the order of batches and the loader, each against a plain count."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import pickle
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from glassbox import preprocessing
from glassbox.datasets import dataset
from glassbox.preprocessing import (
    IGNORE,
    BatchOrder,
    TokenDataset,
    check_ids,
    check_size,
    clean_text,
    make_loader,
    pack_documents,
    read_documents,
    split_documents,
    windows,
)
from glassbox.tales import END
from glassbox.token_file import TokenFile, write_tokens
from glassbox.tokenizer import BPETokenizer
from hypothesis import example, given
from hypothesis import strategies as st
from test_pretokens import examples, texts
from torch.utils.data import DataLoader

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)

# --- cleaning and documents ---


@examples(200)
@given(texts())
@example("\ufeff\ufeffa\r\n\rb\r\r\n")
@example("e\u0301 A\u030a \u1112\u1161\u11ab \u2126")
def test_clean_text_is_nfc_with_one_kind_of_line_end(text: str) -> None:
    clean = clean_text(text)
    assert "\r" not in clean
    assert unicodedata.is_normalized("NFC", clean)
    assert clean_text(clean) == clean or clean.startswith("\ufeff")
    wanted = "\n".join(unicodedata.normalize("NFC", text[text.startswith("\ufeff") :]).split("\r\n"))
    assert clean == wanted.translate({13: 10})


def test_clean_text_changes_nothing_else() -> None:
    text = "  tab\tspace \xa0 \ufb01 \u2028\n\n a\ufeffb \0 ½ ＡＢ\n"
    assert clean_text(text) == text
    assert clean_text("\ufeff" + text.replace("\n", "\r\n")) == text
    assert clean_text("cafe\u0301") == "café"
    with pytest.raises(TypeError, match="expected text as a str, not bytes; decode bytes first"):
        clean_text(b"text")  # type: ignore[arg-type]


@examples(150)
@given(st.lists(texts(size=8), max_size=6), st.sampled_from([END, "\n\n", "a", "aa"]), st.integers(1, 9), st.booleans())
def test_reading_documents_is_splitting_the_text(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], separator: str, size: int, bom: bool
) -> None:
    """However small the pieces that are read: separators and the newline behind them may lie across two pieces."""
    text = separator.join(documents).replace("\r\n", "\n").replace("\r", "\n")
    path = tmp_path_factory.getbasetemp() / "documents.txt"
    path.write_text("\ufeff" * bom + text, encoding="utf-8", newline="")
    if text.startswith("\ufeff"):
        text = text[not bom :]
    first, *others = text.split(separator)
    wanted = [first, *(part[part.startswith("\n") :] for part in others)]
    if not wanted[-1].strip():
        wanted.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocessing, "CHUNK", size)
        assert list(read_documents(path, separator)) == wanted


def test_reading_is_lazy_and_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"one\r\n" + END.encode() + b"\r\ntwo" + END.encode() + b"\r\n")
    assert list(read_documents(path)) == ["one\n", "two"]
    path.write_bytes((b"one" + END.encode() + b"\n") * 500_000 + b"\xff")
    found = read_documents(str(path))
    assert next(found) == "one"  # before the fault is met
    with pytest.raises(UnicodeDecodeError, match="0xff"):
        list(found)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_documents(tmp_path / "nowhere")  # at the call, before a document is asked for


@pytest.mark.parametrize(
    ("separator", "kind", "message"),
    [
        (None, TypeError, "separator must be text as a str, not None"),
        (b"\n\n", TypeError, r"separator must be text as a str, not b'\\n\\n'"),
        ("", ValueError, "no empty separator"),
        ("\r\n\r\n", ValueError, r"parts no documents: write \\n for the end of a line"),
    ],
)
def test_separators_that_part_nothing_are_refused_at_the_call(
    separator: Any, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.txt").write_text("one two", encoding="utf-8")
    with pytest.raises(kind, match=message):
        read_documents(tmp_path / "x.txt", separator)


def test_a_long_document_is_read_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces grow with what is held, so a document of 1,000 pieces is copied about ten times and not 500 times."""
    path = tmp_path / "long.txt"
    path.write_text("abcde\n" * 20_000, encoding="utf-8")
    reads: list[int] = []

    class File:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> File:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def read(self, size: int) -> str:
            reads.append(size)
            return self.file.read(size)

    monkeypatch.setattr(preprocessing, "CHUNK", 120)
    monkeypatch.setattr("builtins.open", lambda *a, _open=open, **more: File(_open(*a, **more)))
    assert sum(map(len, read_documents(path))) == 120_000
    assert len(reads) <= 13


# --- the split ---


def documents_of(n: int, seed: int = 0) -> list[str]:
    dice = random.Random(seed)
    return [" ".join(dice.choices(["a", "bee", "sea", "dee", "\n"], k=12)) + str(i) for i in range(n)]


@examples(60)
@given(st.integers(0, 5), st.integers(0, 9), st.randoms(use_true_random=False), st.floats(0.05, 0.95))
def test_a_documents_side_is_its_own(data: int, seed: int, dice: random.Random, fraction: float) -> None:
    """Dropping, adding and moving others, and copies with other line ends or spaces around: the side stays."""
    documents = documents_of(120, data)
    train, validation = split_documents(documents, fraction, seed)
    assert Counter(train + validation) == Counter(documents)
    assert train == [document for document in documents if document in set(train)]  # in their order
    sides = {**dict.fromkeys(train, 0), **dict.fromkeys(validation, 1)}
    others = documents_of(40, 99) + dice.sample(documents, 60)
    copies = [
        dice.choice(["", " ", "\n\n"]) + text.replace("\n", "\r\n") + dice.choice(["", "\t"]) for text in documents
    ]
    mixed = others + copies + ["\ufeff" + documents[0]]
    dice.shuffle(mixed)
    for side, found in enumerate(split_documents(mixed, fraction, seed)):
        for text in found:
            assert sides.get(clean_text(text).strip(), side) == side
    more = split_documents(documents, min(0.96, fraction + 0.1), seed)[1]
    assert set(validation) <= set(more)  # a larger fraction only adds


def test_the_fraction_is_met_and_seeds_differ() -> None:
    documents = documents_of(4000)
    sizes = {fraction: len(split_documents(documents, fraction)[1]) for fraction in (0.02, 0.1, 0.5, 0.9)}
    for fraction, size in sizes.items():
        assert abs(size - 4000 * fraction) < 4 * (4000 * fraction * (1 - fraction)) ** 0.5
    first, second = (set(split_documents(documents, 0.5, seed)[1]) for seed in (0, 1))
    assert 850 < len(first & second) < 1150  # as independent halves do


def test_the_split_is_the_same_on_every_machine() -> None:
    """The rule is a number of the document's text: no order of a set and no seed of Python's own hash is in it."""
    documents = [f"document {i}" for i in range(20)]
    numbers = {text: int(hashlib.sha256(f"7 {text}".encode()).hexdigest()[:16], 16) for text in documents}
    wanted = [text for text, number in numbers.items() if number < 0.2 * 2**64]
    assert wanted
    assert split_documents(documents, 0.2, seed=7)[1] == wanted


def test_numbers_of_numpy_split_as_pythons_do() -> None:
    documents = documents_of(60)
    wanted = split_documents(documents, 0.25, 3)
    for fraction, seed in ((np.float64(0.25), 3), (np.float32(0.25), np.uint8(3)), (0.25, torch.tensor(3))):
        assert split_documents(documents, fraction, seed) == wanted  # type: ignore[arg-type]
    assert split_documents(documents, 0.25, -3) != wanted


@pytest.mark.parametrize(
    ("documents", "more", "kind", "message"),
    [
        (["a", "b"], {"fraction": 0}, ValueError, "fraction must lie between 0 and 1, such as 0.1 .*, not 0"),
        (["a", "b"], {"fraction": 1.0}, ValueError, "not 1.0"),
        (["a", "b"], {"fraction": 10}, ValueError, "not 10"),
        (["a", "b"], {"fraction": float("nan")}, ValueError, "not nan"),
        (["a", "b"], {"fraction": "a"}, ValueError, "not 'a'"),
        (["a", "b"], {"seed": 0.5}, TypeError, "seed must be a whole number, not 0.5"),
        (["a", "b"], {"seed": True}, TypeError, "seed must be a whole number, not True"),
        (["a", "b"], {"seed": None}, TypeError, "seed must be a whole number, not None"),
        (["a", "b", " \n"], {}, ValueError, r"document 2 \(from 0\) is empty or blank: leave it out"),
        (["a", "", "b"], {}, ValueError, r"document 1 \(from 0\) is empty or blank"),
        ([], {}, ValueError, "needs two different documents, but there are 0: cut the text"),
        (["a", " a", "a\n"], {}, ValueError, "needs two different documents, but there are 1"),
        (
            ["a", "b", "c"],
            {"fraction": 1e-9},
            ValueError,
            "of 3 different documents none fell on the side of validation",
        ),
        (["a", "b", "c"], {"fraction": 1 - 1e-9}, ValueError, "none fell on the side of training .*another seed"),
        ("a text", {}, TypeError, "expected several texts"),
        (["a", 7], {}, TypeError, "expected text as a str, not int"),
    ],
)
def test_what_cannot_be_split_is_refused(
    documents: Any, more: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        split_documents(documents, **more)


# --- windows ---


def plain_windows(ids: list[int], T: int, stride: int) -> tuple[list[list[int]], list[list[int]]]:
    starts = [s for s in range(0, len(ids), stride) if s + T + 1 <= len(ids)]
    return [ids[s : s + T] for s in starts], [ids[s + 1 : s + T + 1] for s in starts]


@examples(200)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 60))
def test_windows_are_those_of_a_plain_loop(T: int, stride: int, n: int) -> None:
    ids = [3 * i for i in range(n)]
    if n < T + 1:
        with pytest.raises(ValueError, match=f"{n} ids are too few .*block_size={T} .* needs {T + 1}"):
            windows(ids, T, stride)
        return
    x, y = windows(ids, T, stride)
    assert (x.tolist(), y.tolist()) == plain_windows(ids, T, stride)
    assert x.dtype == y.dtype == torch.int64
    assert x.is_contiguous()
    data = TokenDataset(ids, T, stride)
    assert len(data) == len(x)
    X, Y = data.__getitems__(range(len(data)))
    assert X.is_contiguous()  # so that a model may `view` it
    assert Y.is_contiguous()
    assert X.equal(x)
    assert Y.equal(y)


@examples(100)
@given(st.integers(1, 9), st.integers(2, 80))
def test_every_target_is_counted_once_at_the_default_stride(T: int, n: int) -> None:
    if n >= T + 1:
        _, y = windows(range(n), T)  # type: ignore[arg-type]
        assert y.flatten().tolist() == list(range(1, 1 + (n - 1) // T * T))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda f: f([1, 2, 3], 0), ValueError, "block_size must be 1 or more, not 0"),
        (lambda f: f([1, 2, 3], 2, 0), ValueError, "stride must be 1 or more, not 0"),
        (lambda f: f([1, 2, 3], 2, -1), ValueError, "stride must be 1 or more, not -1"),
        (lambda f: f([1, 2, 3], 2.5), TypeError, "block_size must be a whole number, not 2.5"),
        (lambda f: f([1, 2, 3], True), TypeError, "block_size must be a whole number, not True"),
        (
            lambda f: f([1, 2, 3], 3),
            ValueError,
            "3 ids are too few for a window of block_size=3 .*needs 4: give a longer",
        ),
        (lambda f: f([], 3), ValueError, "0 ids are too few"),
        (lambda f: f([[1, 2], [3, 4]], 1), ValueError, r"one row of whole numbers, not of shape \(2, 2\)"),
        (
            lambda f: f([[1, 2], [3]], 1),
            ValueError,
            "one row of whole numbers, not of several rows; join documents first",
        ),
        (lambda f: f([1.0, 2.0], 1), TypeError, "ids must be whole numbers, not of type float64; encode text first"),
        (lambda f: f(torch.ones(5), 1), TypeError, "ids must be whole numbers, not of type float32"),
        (lambda f: f(np.array([True, False]), 1), TypeError, "not of type bool"),
        (lambda f: f("text", 1), ValueError, "one row of whole numbers"),
        (
            lambda f: f(np.array([1, 2**63], np.uint64), 1),
            ValueError,
            "ids must fit into int64, and 9223372036854775808",
        ),
        (lambda f: f(np.array([1, 2**63], ">u8"), 1), ValueError, "ids must fit into int64"),
        (lambda f: f([1, 2, 3], torch.tensor(2.0)), TypeError, r"a whole number, not tensor\(2.\)"),
        (lambda f: f(["text", "b"], 1), TypeError, "whole numbers, not of type <U4"),
    ],
)
@pytest.mark.parametrize("make", [windows, TokenDataset])
def test_windows_that_cannot_be_are_refused(
    make: Callable[..., Any], call: Callable[..., Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        call(make)


# --- packing ---


def plain_packing(lengths: list[int], T: int) -> list[list[int]]:
    """The rule told another way: documents are lists of places; take, cut, close."""
    rows: list[list[int]] = []
    row: list[int] = []
    place = 0
    for length in lengths:
        document = list(range(place, place + length))
        place += length
        if len(row) + length <= T + 1:
            row = row + document
            continue
        rows.append(row)
        while len(document) > T + 1:
            rows.append(document[: T + 1])
            document = document[T:]
        row = document
    return [row for row in [*rows, row] if len(row) > 1]


@examples(400)
@given(LENGTHS, st.integers(1, 8))
@example([1, 9, 1], 3)
@example([4, 4], 3)
@example([5], 3)
def test_packing_is_the_plain_rule(lengths: list[int], T: int) -> None:
    ends = np.cumsum(lengths)
    rows = pack_documents(ends, T)
    assert rows.dtype == np.int64
    assert [list(range(start, stop)) for start, stop in rows] == plain_packing(lengths, T)


@examples(300)
@given(LENGTHS, st.integers(1, 8))
def test_packing_counts_every_target_as_documented(lengths: list[int], T: int) -> None:
    ends = np.cumsum(lengths)
    begins = {0, *ends.tolist()[:-1]}
    rows = pack_documents(ends, T)
    targets = Counter(place for start, stop in rows for place in range(start + 1, stop))
    firsts = {int(start) for start, _ in rows if start in begins}
    alone = {end - 1 for end, length in zip(ends.tolist(), lengths, strict=True) if length == 1}
    assert all(2 <= stop - start <= T + 1 for start, stop in rows)
    for place in range(ends[-1]):
        if place in targets:
            assert targets[place] == 1
            assert place not in firsts
        else:
            assert place in firsts or place in alone
    for start, _ in rows:
        assert start in begins or any(start == stop - 1 for _, stop in rows)
    for end, length in zip(ends.tolist(), lengths, strict=True):
        if length > T + 1:
            assert all(targets[place] == 1 for place in range(end - length + 1, end))
        else:  # a document that fits is whole in one row
            assert any(start <= end - length and end <= stop for start, stop in rows) or length == 1


@examples(200)
@given(LENGTHS, st.integers(1, 8), st.data())
def test_items_of_packed_documents(lengths: list[int], T: int, data: st.DataObject) -> None:
    n = sum(lengths)
    ids = np.arange(1000, 1000 + n, dtype=np.uint16)
    wanted = plain_packing(lengths, T)
    ends = np.cumsum(lengths).astype(np.uint64)
    if not wanted:
        with pytest.raises(ValueError, match="no document is longer than one id: there is nothing to predict"):
            TokenDataset(ids, T, ends=ends)
        return
    items = TokenDataset(ids, T, ends=ends)
    assert len(items) == len(wanted)
    chosen = data.draw(st.lists(st.integers(-len(wanted), len(wanted) - 1), max_size=5))
    X, Y = items.__getitems__(chosen)
    assert X.shape == Y.shape == (len(chosen), T)
    for i, x, y in zip(chosen, X, Y, strict=True):
        row = [1000 + place for place in wanted[i]]
        assert x.tolist() == row[:T] + [row[-1]] * (T - len(row))
        assert y.tolist() == row[1:] + [IGNORE] * (T + 1 - len(row))
        assert items[i][0].equal(x)
        assert items[i][1].equal(y)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: pack_documents([], 4), ValueError, "ends is empty: there must be at least one document"),
        (lambda: pack_documents([0, 3], 4), ValueError, r"document 0 \(from 0\) ends at 0, after 0: ends must rise"),
        (lambda: pack_documents([3, 3], 4), ValueError, r"document 1 \(from 0\) ends at 3, the one before at 3"),
        (lambda: pack_documents([3, 2], 4), ValueError, "ends at 2, the one before at 3"),
        (lambda: pack_documents(np.array([9, 2], np.uint64), 4), ValueError, "ends at 2, the one before at 9"),
        (lambda: pack_documents([3.0], 4), TypeError, "ends must be whole numbers, not of type float64"),  # type: ignore[list-item]
        (lambda: pack_documents([3], 0), ValueError, "block_size must be 1 or more, not 0"),
        (lambda: pack_documents(np.array([3, 2**63], np.uint64), 4), ValueError, "ends must fit into int64"),
        (lambda: TokenDataset([1, 2, 3], 2, ends=[2]), ValueError, "document ends at 2, but there are 3 ids"),
        (lambda: TokenDataset([1, 2, 3], 2, ends=[4]), ValueError, "document ends at 4, but there are 3 ids: give ids"),
        (lambda: TokenDataset([1, 2, 3], 2, 1, [3]), ValueError, "stride=1 and ends exclude each other"),
        (lambda: TokenDataset([1, 2, 3], 0, ends=[3]), ValueError, "block_size must be 1 or more, not 0"),
    ],
)
def test_packing_that_cannot_be_is_refused(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


# --- the data set ---


@pytest.mark.parametrize(
    "ids",
    [
        list(range(50)),
        range(50),
        np.arange(50, dtype=np.uint16),
        np.arange(50, dtype=">i4"),
        np.arange(100, dtype=np.uint32)[::2] // 2,
        torch.arange(50),
        torch.arange(50, dtype=torch.int32),
        torch.arange(50).to(torch.uint16),
    ],
    ids=["list", "range", "uint16", "big-endian", "strided", "int64 tensor", "int32 tensor", "uint16 tensor"],
)
def test_ids_of_every_kind(ids: Any) -> None:
    data = TokenDataset(ids, 7, stride=3)
    x, y = data[4]
    assert (x.tolist(), y.tolist()) == (list(range(12, 19)), list(range(13, 20)))
    assert x.dtype == y.dtype == torch.int64
    assert pickle.loads(pickle.dumps(data))[4][0].equal(x)
    x.zero_()  # an item is the caller's own
    y.zero_()
    assert data[4][1].tolist() == list(range(13, 20))


def test_indices_are_those_of_a_list() -> None:
    data = TokenDataset(range(20), 4)
    assert len(data) == 4
    assert data[-1][0].tolist() == data[3][0].tolist()
    for i in (np.int64(3), torch.tensor(3)):
        assert data[i][0].tolist() == [12, 13, 14, 15]  # type: ignore[index]
    for i in (4, -5, 10**30):
        with pytest.raises(IndexError, match=f"index {i} is outside the 4 items"):
            data[i]
        with pytest.raises(IndexError, match=f"index {i} is outside the 4 items"):
            data.__getitems__([0, i])
    with pytest.raises(TypeError, match="slice"):
        data[1:2]  # type: ignore[index]
    assert [part.shape for part in data.__getitems__([])] == [(0, 4), (0, 4)]
    assert [x.tolist() for x, _ in itertools.islice(iter(data), 2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]  # type: ignore[call-overload]


def test_no_window_costs_memory() -> None:
    data = TokenDataset(np.zeros(1, np.uint16).repeat(2_000_000), 64, stride=1)
    assert len(data) == 2_000_000 - 64
    assert len(pickle.dumps((data.starts, data.stops))) < 200
    again = TokenDataset(data.ids, 64)
    assert again.ids is data.ids


# --- the order ---


@examples(300)
@given(st.integers(1, 20), st.integers(1, 8), st.one_of(st.none(), st.integers(0, 9)), st.integers(1, 4), st.booleans())
def test_a_resumed_order_is_the_tail_of_the_whole(n: int, B: int, seed: int | None, epochs: int, drop: bool) -> None:
    if drop and n < B:
        with pytest.raises(ValueError, match=f"drop_last leaves nothing of {n} items with batch_size={B}"):
            BatchOrder(n, B, seed, drop_last=True)
        return
    whole = list(BatchOrder(n, B, seed, epochs=epochs, drop_last=drop))
    per_epoch = n // B if drop else -(-n // B)
    assert len(whole) == len(BatchOrder(n, B, seed, epochs=epochs, drop_last=drop)) == epochs * per_epoch
    for k in range(len(whole) + 1):
        order = BatchOrder(n, B, seed, start_step=k, epochs=epochs, drop_last=drop)
        assert list(order) == whole[k:]
        assert list(order) == whole[k:]  # each time it is asked
        assert len(order) == len(whole) - k
        endless = BatchOrder(n, B, seed, start_step=k, epochs=None, drop_last=drop)
        assert list(itertools.islice(endless, len(whole) - k)) == whole[k:]
    for epoch in range(epochs):
        batches = whole[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert all(len(batch) == B for batch in batches[:-1])
        seen = list(itertools.chain.from_iterable(batches))
        assert len(set(seen)) == len(seen) == (n // B * B if drop else n)
        assert set(seen) <= set(range(n))
        assert all(type(i) is int for i in seen)
        if seed is None:
            assert seen == list(range(len(seen)))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(next(iter(BatchOrder(50, 50, seed, start_step=epoch, epochs=None))))

    orders = {order(seed, epoch) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36
    assert order(3, 2) == tuple(np.random.default_rng((3, 2)).permutation(50))
    first = Counter(order(seed, 0)[0] for seed in range(3000))  # each item is as likely to come first
    assert max(abs(first[i] - 60) for i in range(50)) < 5 * 60**0.5


def test_an_endless_order_has_no_length() -> None:
    with pytest.raises(TypeError, match="epochs=None has no end, so it has no length; give a number of epochs"):
        len(BatchOrder(5, 2, epochs=None))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"n": 0}, ValueError, "n must be 1 or more, not 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more, not 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be a whole number, not 2.0"),
        ({"seed": -1}, ValueError, "seed must be 0 or more, not -1"),
        ({"seed": "a"}, TypeError, "seed must be a whole number, not 'a'"),
        ({"start_step": -1}, ValueError, "start_step must be 0 or more, not -1"),
        ({"start_step": 4}, ValueError, "start_step=4 lies beyond the 3 steps of epochs=1: give more epochs"),
        ({"epochs": 0}, ValueError, "epochs must be 1 or more, not 0"),
        ({"batch_size": 6, "drop_last": True}, ValueError, "drop_last leaves nothing of 5 items with batch_size=6"),
    ],
)
def test_orders_that_cannot_be_are_refused(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = {"n": 5, "batch_size": 2, **arguments}
    with pytest.raises(kind, match=message):
        BatchOrder(**arguments)
    n = arguments.pop("n")
    if n == 5:
        with pytest.raises(kind, match=message):
            make_loader(TokenDataset(range(6), 1), **arguments)


# --- the loader ---


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    path = tmp_path_factory.mktemp("loader") / "tales.tok"
    return write_tokens(path, itertools.islice(read_documents(dataset("tales")), 100), BPETokenizer.load())


def batches(loader: DataLoader[Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(loader)


def same(ours: list[tuple[torch.Tensor, torch.Tensor]], theirs: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(ours) == len(theirs) and all(
        a.equal(c) and b.equal(d) for (a, b), (c, d) in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("packed", [False, True], ids=["windows", "packed"])
def test_the_loader_is_torchs_own_without_the_shuffle(file: TokenFile, packed: bool) -> None:
    data = TokenDataset(file.ids, 32, ends=file.ends if packed else None)

    class ItemByItem(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, i: int) -> Any:
            return data[i]

    theirs = [(x, y) for x, y in DataLoader(ItemByItem(), batch_size=16)]
    assert same(batches(make_loader(data, 16)), theirs)
    assert all(isinstance(batch, tuple) for batch in make_loader(data, 16))
    ours = batches(make_loader(data, 16, seed=4))
    shuffled = batches(DataLoader(ItemByItem(), batch_size=16, shuffle=True))

    def counted(found: list[tuple[torch.Tensor, torch.Tensor]]) -> Counter[tuple[int, ...]]:
        return Counter(tuple(row) for x, y in found for row in torch.cat([x, y], 1).tolist())

    assert not same(ours, theirs)
    assert counted(ours) == counted(shuffled) == counted(theirs)  # every item once
    order = BatchOrder(len(data), 16, seed=4)
    assert same(ours, [data.__getitems__(indices) for indices in order])
    assert len(make_loader(data, 16, seed=4)) == len(ours)


def test_a_loader_resumes_with_the_same_batches(file: TokenFile) -> None:
    data = TokenDataset(file.ids, 64, stride=50)
    whole = batches(make_loader(data, 32, seed=1, epochs=3))
    for k in (0, 1, len(whole) // 3, len(whole) // 3 + 1, len(whole) - 1, len(whole)):
        assert same(batches(make_loader(data, 32, seed=1, start_step=k, epochs=3)), whole[k:])
        endless: Iterator[Any] = iter(make_loader(data, 32, seed=1, start_step=k, epochs=None))
        assert same(list(itertools.islice(endless, len(whole) - k)), whole[k:])


def test_a_loader_leaves_the_global_dice_alone(file: TokenFile) -> None:
    data = TokenDataset(file.ids, 64)
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    list(make_loader(data, 32, seed=1, epochs=2))
    assert torch.get_rng_state().equal(before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine of one core
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same_batches_as_none(method: str, file: TokenFile) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    data = TokenDataset(file.ids, 32, ends=file.ends)
    wanted = batches(make_loader(data, 64, seed=5, start_step=3, epochs=2))
    loader = make_loader(data, 64, seed=5, start_step=3, epochs=2, num_workers=2, start_method=method)
    assert same(batches(loader), wanted)


def test_workers_that_cannot_be_are_refused(file: TokenFile) -> None:
    data = TokenDataset(file.ids, 32)
    with pytest.raises(ValueError, match="num_workers must be 0 or more, not -1"):
        make_loader(data, 4, num_workers=-1)
    with pytest.raises(ValueError, match=r"start_method must be None or one of .*spawn.* on this system, not 'thread'"):
        make_loader(data, 4, num_workers=2, start_method="thread")
    assert make_loader(data, 4, num_workers=0, start_method="spawn").num_workers == 0


# --- sizes ---


def test_sizes_of_numpy_do_not_overflow() -> None:
    """Each of these sums and products is beyond the type of the size that was given."""
    assert len(list(BatchOrder(np.uint16(60_000), np.uint16(20_000)))) == 3  # type: ignore[arg-type]
    small = BatchOrder(np.uint8(200), np.uint8(60), epochs=np.uint8(250), start_step=np.uint8(255))  # type: ignore[arg-type]
    assert list(small) == list(BatchOrder(200, 60, epochs=250, start_step=255))
    assert len(small) == 250 * 4 - 255
    assert len(BatchOrder(3_000_000, 1, epochs=np.int32(1000))) == 3 * 10**9  # type: ignore[arg-type]
    order = BatchOrder(np.int64(5), np.int32(2), np.uint8(7), np.int8(1), np.uint64(3))  # type: ignore[arg-type]
    assert list(order) == list(BatchOrder(5, 2, 7, 1, 3))
    for ends, size in (([100, 300, 400], np.uint8(250)), ([1000], np.int8(127))):
        assert pack_documents(ends, size).tolist() == pack_documents(ends, int(size)).tolist()  # type: ignore[arg-type]
    ids, size = np.arange(1000), np.uint8(255)
    wanted, found = windows(ids, 255), windows(ids, size, size)  # type: ignore[arg-type]
    assert found[0].equal(wanted[0])
    assert found[1].equal(wanted[1])
    for ends in (None, [400, 1000]):
        data = TokenDataset(ids, size, ends=ends)  # type: ignore[arg-type]
        assert type(data.block_size) is int
        assert data[len(data) - 1][1].equal(TokenDataset(ids, 255, ends=ends)[len(data) - 1][1])
    assert make_loader(TokenDataset(ids, 4), 8, num_workers=np.int64(0)).num_workers == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [7, np.int64(7), np.uint8(7), np.array(7), torch.tensor(7), torch.tensor(7).int()])
def test_a_size_is_pythons_own_int(size: Any) -> None:
    assert check_size("size", size) == 7
    assert type(check_size("size", size)) is int


@pytest.mark.parametrize(
    "size",
    [
        *(True, np.True_, 7.0, np.float64(7), "7", None, [7], np.array([7]), np.array(7.0), np.array(True)),
        *(torch.tensor(3.0), torch.tensor(True), torch.tensor([3]), torch.tensor(3, device="meta"), torch.tensor(3j)),
    ],
)
def test_a_size_that_is_no_whole_number_is_refused(size: Any) -> None:
    with pytest.raises(TypeError, match="size must be a whole number, not "):
        check_size("size", size)


# --- ids for a model ---


@pytest.mark.parametrize("ids", [torch.tensor([[0, 9], [5, 3]]), torch.tensor(9), torch.empty(0, dtype=torch.int32)])
def test_good_ids_pass(ids: torch.Tensor) -> None:
    check_ids(ids, 10)
    check_ids(ids.to("meta"), 1)


@pytest.mark.parametrize(
    ("ids", "kind", "message"),
    [
        (
            torch.tensor([3, 10]),
            ValueError,
            "id 10 is outside 0 to 9: use the model's own tokenizer, whose vocab_size is 10$",
        ),
        (torch.tensor([3, -100]), ValueError, "id -100 is outside 0 to 9: .*leave padding and IGNORE to the targets"),
        (torch.tensor([3.0]), TypeError, r"torch.int64 or int32, not torch.float32; write ids.long\(\)"),
        (torch.tensor([True]), TypeError, "not torch.bool"),
        (torch.tensor([1], dtype=torch.uint8), TypeError, "not torch.uint8"),
        ([1, 2], TypeError, r"ids must be a tensor, not list; write torch.tensor\(ids\)"),
        (np.array([1, 2]), TypeError, "ids must be a tensor, not ndarray"),
    ],
)
def test_bad_ids_are_named(ids: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        check_ids(ids, 10)


@pytest.mark.parametrize("size", [5.5, None, torch.tensor(5.0)])
def test_ids_of_a_vocabulary_without_a_size_are_refused(size: Any) -> None:
    with pytest.raises(TypeError, match="vocab_size must be a whole number"):
        check_ids(torch.tensor([1]), size)


def test_ids_are_not_looked_at_while_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    check_ids(torch.tensor([99]), 10)
