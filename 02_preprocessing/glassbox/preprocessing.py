"""From text to batches: clean documents, a split without leakage, windows shifted by one, and an order that resumes.

A language model learns to predict the next id. Its inputs x are windows of `block_size` ids; its targets y are the same
windows one place further on. All text before a target and inside its window is what the model may look at.
Data sets and loaders stand here and never in a notebook: workers that are started afresh import them by name.

Axes: B batch, T time (= block_size).
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import operator
import os
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import torch
from glassbox.tales import END
from glassbox.tokenizer import CHUNK, check_text, check_texts
from torch.utils.data import DataLoader, Dataset

__all__ = [
    "IGNORE",
    "BatchOrder",
    "TokenDataset",
    "clean_text",
    "make_loader",
    "pack_documents",
    "read_documents",
    "split_documents",
    "windows",
]

IGNORE = -100  # a target that no loss counts: torch's own default for `ignore_index`
Ids: TypeAlias = "Sequence[int] | np.ndarray | torch.Tensor"
Pair: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"

# --- documents ---


def clean_text(text: str) -> str:
    """Return a text in one spelling: no byte order mark at its start, lines that end with \\n, Unicode's form NFC.

    NFC writes "é" as one character, never as "e" with an accent behind it. Nothing else is changed. Raises TypeError
    for anything but text. Source: Unicode Standard Annex 15.
    """
    text = check_text(text).removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text)


def read_documents(path: str | os.PathLike[str], separator: str = END) -> Iterator[str]:
    """Yield the documents of a UTF-8 file of any size, one at a time; memory is in proportion to the longest.

    separator: what stands between two documents; a newline right after it belongs to it. A blank rest after the last
    separator is no document. Line ends come as \\n, a byte order mark is dropped. Raises at once FileNotFoundError for
    no file, TypeError for a separator that is no text, ValueError for one that is empty or has a \\r; while it reads,
    UnicodeDecodeError (a ValueError) where the file is not UTF-8.
    """
    check_source(path, separator)

    def read() -> Iterator[str]:
        held, after = "", ""
        with open(path, encoding="utf-8-sig") as file:
            while chunk := file.read(max(CHUNK, len(held))):  # a long document doubles: no character is copied often
                *whole, held = (held + chunk).split(separator)
                for text in whole:
                    yield text.removeprefix(after)
                    after = "\n"
            if held.strip():
                yield held.removeprefix(after)

    return read()


def split_documents(documents: Iterable[str], fraction: float = 0.1, seed: int = 0) -> tuple[list[str], list[str]]:
    """Put each document whole on one of two sides: training, and about `fraction` of all for validation.

    A document's own text and the seed decide, by a hash: its copies are on the same side (copies after `clean_text`,
    white space around them aside), and it stays there when others are added, dropped or moved. Raises ValueError for a
    fraction outside (0, 1), an empty document, fewer than two different ones, and where a side came out empty.
    """
    fraction, seed = check_split(fraction, seed)
    sides: tuple[list[str], list[str]] = ([], [])
    seen = set()
    for number, document in enumerate(check_texts(documents)):
        key = check_document(clean_text(document).strip(), number)
        digest = hashlib.sha256(f"{seed} {key}".encode("utf-8", "surrogatepass")).digest()
        chance = int.from_bytes(digest[:8], "big") / 2**64  # spread evenly over 0 to 1
        sides[chance < fraction].append(document)
        seen.add(digest)
    check_sides(sides, len(seen), fraction, seed)
    return sides


# --- windows ---


def windows(ids: Ids, block_size: int, stride: int | None = None) -> Pair:
    """Cut a row of ids into windows x and targets y, both (N, block_size) int64; y is x one place further on.

    stride: how far one window starts after the last; None for block_size, so that every target is predicted once. The
    last window is the last that fits. Raises ValueError for a size or stride below 1 and fewer than block_size + 1 ids.
    """
    row = check_row(ids)
    stride = block_size if stride is None else stride
    block_size, stride = check_windows(len(row), block_size, stride)
    starts = torch.arange(0, len(row) - block_size, stride)
    places = starts[:, None] + torch.arange(block_size)  # (N, T)
    whole = torch.from_numpy(row.astype(np.int64))
    return whole[places], whole[places + 1]


def pack_documents(ends: Ids, block_size: int) -> np.ndarray:
    """Fill rows with whole documents: (N, 2) int64, the start and the stop of each row of ids.

    ends: one past the last id of each document; the first document begins at 0. A row holds at most block_size + 1 ids,
    which is block_size targets. It takes whole documents while they fit. A document longer than a row begins a row of
    its own and is cut; each further row begins with the last id of the row before, so that nothing is lost between.
    Thus every id is a target exactly once, but for the first of a row that begins with a document: there is nothing to
    predict it from. A document of a single id that finds no room in a row has no target and is left out.
    Raises ValueError where ends do not rise from above 0.
    """
    known, rows, start = check_ends(ends).tolist(), [], 0
    block_size = check_size("block_size", block_size)
    while start < known[-1]:
        i = bisect_right(known, start + block_size + 1)  # so many documents end within reach
        fits = i > 0 and known[i - 1] > start
        stop = known[i - 1] if fits else start + block_size + 1
        if stop - start > 1:
            rows.append((start, stop))
        start = stop if fits else stop - 1
    return np.array(rows, np.int64).reshape(-1, 2)


class TokenDataset(Dataset):
    """Windows over a row of ids as a torch data set: item i is (x, y), both (block_size,) int64.

    ids: a list, an array, a memory-mapped file's `ids`, or a tensor of one axis. Without `ends` the items are those of
    `windows`. With `ends`, the documents' ends, they are the rows of `pack_documents`: a short row is filled up at the
    right with its own last id in x and IGNORE in y. Errors as of these two functions, and ValueError for stride and
    ends together. Nothing is copied before it is asked for; a token file goes to a worker as its path.
    """

    def __init__(self, ids: Ids, block_size: int, stride: int | None = None, ends: Ids | None = None) -> None:
        self.ids, self.block_size = check_row(ids), check_size("block_size", block_size)
        if ends is None:
            stride = block_size if stride is None else stride
            block_size, stride = check_windows(len(self.ids), block_size, stride)
            self.starts: range | np.ndarray = range(0, len(self.ids) - block_size, stride)
            self.stops: range | np.ndarray = range(block_size + 1, len(self.ids) + 1, stride)
        else:
            check_packing(len(self.ids), stride, ends)
            self.starts, self.stops = check_rows(pack_documents(ends, block_size)).T

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: int) -> Pair:
        X, Y = self.__getitems__([i])
        return X[0], Y[0]

    def __getitems__(self, indices: Sequence[int]) -> Pair:
        """Return the items of several indices as two tensors (B, block_size): torch's loader asks for a batch so."""
        chosen = [check_index(i, len(self)) for i in indices]
        starts, stops = (np.array([row[i] for i in chosen], np.int64)[:, None] for row in (self.starts, self.stops))
        places = starts + np.arange(self.block_size + 1)  # (B, T + 1)
        ids = np.asarray(self.ids)[np.minimum(places, stops - 1)].astype(np.int64)
        y = np.where(places[:, 1:] < stops, ids[:, 1:], IGNORE)
        return torch.from_numpy(ids[:, :-1].copy()), torch.from_numpy(y)


# --- batches ---


class BatchOrder:
    """Which items make up which batch: yields lists of indices below n, `epochs` times over all of them.

    seed: None for the order of the items; else epoch e is shuffled by NumPy's generator seeded with (seed, e).
    start_step: begin with the batch that a run from the start yields as its k-th (from 0), also in a later epoch: so a
    training that was stopped goes on with the same batches. epochs: None for no end. drop_last: leave out the smaller
    batch at the end of an epoch. Raises ValueError for numbers out of range, and TypeError for `len` without an end.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int | None = None,
        start_step: int = 0,
        epochs: int | None = 1,
        drop_last: bool = False,
    ) -> None:
        n, batch_size, seed, start_step, epochs = check_order(n, batch_size, seed, start_step, epochs, drop_last)
        self.n, self.batch_size, self.seed, self.start_step, self.epochs = n, batch_size, seed, start_step, epochs
        self.per_epoch = n // batch_size if drop_last else -(-n // batch_size)

    def __len__(self) -> int:
        if self.epochs is None:
            raise TypeError("an order with epochs=None has no end, so it has no length; give a number of epochs")
        return self.epochs * self.per_epoch - self.start_step

    def __iter__(self) -> Iterator[list[int]]:
        first, skipped = divmod(self.start_step, self.per_epoch)
        for epoch in itertools.count(first) if self.epochs is None else range(first, self.epochs):
            order = (
                range(self.n) if self.seed is None else np.random.default_rng((self.seed, epoch)).permutation(self.n)
            )
            for batch in range(skipped, self.per_epoch):
                yield [int(i) for i in order[batch * self.batch_size : (batch + 1) * self.batch_size]]
            skipped = 0


def whole_batch(batch: Any) -> Any:
    """The batch as it is, made already by `__getitems__`; a function with a name, because workers get it by name."""
    return batch


def make_loader(
    dataset: TokenDataset,
    batch_size: int,
    seed: int | None = None,
    start_step: int = 0,
    epochs: int | None = 1,
    drop_last: bool = False,
    num_workers: int = 0,
    start_method: str | None = None,
) -> DataLoader[Pair]:
    """Return torch's DataLoader of batches (X, Y), both (B, block_size) int64, in the order of `BatchOrder`.

    num_workers: processes that fetch batches ahead; any number of them gives the same batches. start_method: how they
    begin, "fork", "spawn" or "forkserver"; None for the system's own. torch's global dice are left alone.
    Errors as of `BatchOrder`; ValueError for a start method that the system does not have.
    """
    num_workers = check_workers(num_workers, start_method)
    return DataLoader(
        dataset,
        batch_sampler=BatchOrder(len(dataset), batch_size, seed, start_step, epochs, drop_last),
        collate_fn=whole_batch,
        num_workers=num_workers,
        multiprocessing_context=start_method if num_workers else None,
        generator=torch.Generator(),  # else each epoch would draw from the global one
    )


# --- what is refused ---


def check_ids(ids: torch.Tensor, vocab_size: int) -> None:
    """Raise TypeError or ValueError unless ids are whole numbers from 0 to vocab_size - 1; nothing when compiling."""
    if torch.compiler.is_compiling():
        return
    vocab_size = check_size("vocab_size", vocab_size)
    if not isinstance(ids, torch.Tensor):
        raise TypeError(f"ids must be a tensor, not {type(ids).__name__}; write torch.tensor(ids)")
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids must be whole numbers of type torch.int64 or int32, not {ids.dtype}; write ids.long()")
    if ids.numel() and not ids.is_meta:
        low, high = (int(limit) for limit in ids.aminmax())
        if low < 0 or high >= vocab_size:
            raise ValueError(
                f"id {low if low < 0 else high} is outside 0 to {vocab_size - 1}: use the model's own tokenizer, whose "
                f"vocab_size is {vocab_size}{', and leave padding and IGNORE to the targets' * (low < 0)}"
            )


def check_size(name: str, value: Any, least: int | None = 1) -> int:
    """The number as Python's own int, which does not overflow as NumPy's do: compute with this one."""
    refused = isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool or getattr(value, "ndim", 0)
    number: Any = None if refused else value
    try:
        size = operator.index(number)
    except (TypeError, RuntimeError):  # RuntimeError: a tensor on "meta" has no number
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if least is not None and size < least:
        raise ValueError(f"{name} must be {least} or more, not {size}")
    return size


def check_source(path: Any, separator: Any) -> None:
    if not isinstance(separator, str):
        raise TypeError(f"separator must be text as a str, not {separator!r}")
    if not separator or "\r" in separator:
        raise ValueError(f"{separator!r} parts no documents: write \\n for the end of a line, and no empty separator")
    os.stat(path)


def check_row(ids: Any, name: str = "ids") -> np.ndarray:
    """Ids as an array of one axis; what is an array already is not copied."""
    try:
        row = np.asanyarray(ids.detach().cpu() if isinstance(ids, torch.Tensor) else ids)
    except ValueError:  # rows of several lengths
        row = np.empty((0, 0))
    if row.ndim != 1:
        shape = f"shape {row.shape}" if row.size else "several rows"
        raise ValueError(f"{name} must be one row of whole numbers, not of {shape}; join documents first")
    if row.size and not np.issubdtype(row.dtype, np.integer):
        raise TypeError(f"{name} must be whole numbers, not of type {row.dtype}; encode text first")
    if row.size and row.dtype.kind == "u" and row.dtype.itemsize == 8 and row.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit into int64, and {row.max()} does not")
    return row


def check_windows(n: int, block_size: int, stride: int) -> tuple[int, int]:
    block_size, stride = check_size("block_size", block_size), check_size("stride", stride)
    if n < block_size + 1:
        raise ValueError(
            f"{n} ids are too few for a window of block_size={block_size} with its targets, which needs "
            f"{block_size + 1}: give a longer text or a smaller block_size"
        )
    return block_size, stride


def check_ends(ends: Any) -> np.ndarray:
    row = check_row(ends, "ends")
    if not len(row):
        raise ValueError("ends is empty: there must be at least one document")
    steps = np.diff(row.astype(np.int64), prepend=0)
    if (steps < 1).any():
        i = int(np.argmax(steps < 1))
        raise ValueError(
            f"document {i} (from 0) ends at {row[i]}, {'after 0' if i == 0 else f'the one before at {row[i - 1]}'}: "
            "ends must rise, since a document has at least one id"
        )
    return row


def check_packing(n: int, stride: int | None, ends: Any) -> None:
    if stride is not None:
        raise ValueError(f"stride={stride} and ends exclude each other: rows of documents begin where documents begin")
    if (last := check_ends(ends)[-1]) != n:
        raise ValueError(f"the last document ends at {last}, but there are {n} ids: give ids and ends of the same file")


def check_rows(rows: np.ndarray) -> np.ndarray:
    if not len(rows):
        raise ValueError("no document is longer than one id: there is nothing to predict; give longer documents")
    return rows


def check_index(i: int, n: int) -> int:
    place = operator.index(i)
    if not -n <= place < n:
        raise IndexError(f"index {place} is outside the {n} items")
    return place % n


def check_split(fraction: float, seed: int) -> tuple[float, int]:
    if not isinstance(fraction, Real) or isinstance(fraction, bool) or not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, such as 0.1 for a tenth, not {fraction!r}")
    return float(fraction), check_size("seed", seed, None)


def check_document(text: str, number: int) -> str:
    if not text:
        raise ValueError(f"document {number} (from 0) is empty or blank: leave it out")
    return text


def check_sides(sides: tuple[list[str], list[str]], distinct: int, fraction: float, seed: int) -> None:
    if distinct < 2:
        raise ValueError(f"a split needs two different documents, but there are {distinct}: cut the text into more")
    for side, name in zip(sides, ("training", "validation"), strict=True):
        if not side:
            raise ValueError(
                f"of {distinct} different documents none fell on the side of {name} with fraction={fraction} and "
                f"seed={seed}: give more documents, a fraction nearer to 0.5, or another seed"
            )


def check_order(
    n: int, batch_size: int, seed: int | None, start_step: int, epochs: int | None, drop_last: bool
) -> tuple[int, int, int | None, int, int | None]:
    n, batch_size = check_size("n", n), check_size("batch_size", batch_size)
    start_step = check_size("start_step", start_step, 0)
    seed = None if seed is None else check_size("seed", seed, 0)
    if drop_last and n < batch_size:
        raise ValueError(f"drop_last leaves nothing of {n} items with batch_size={batch_size}: make it {n} or less")
    if epochs is not None:
        epochs = check_size("epochs", epochs)
        steps = epochs * (n // batch_size if drop_last else -(-n // batch_size))
        if start_step > steps:
            raise ValueError(f"{start_step=} lies beyond the {steps} steps of {epochs=}: give more epochs")
    return n, batch_size, seed, start_step, epochs


def check_workers(num_workers: int, start_method: str | None) -> int:
    num_workers = check_size("num_workers", num_workers, 0)
    known = multiprocessing.get_all_start_methods()
    if start_method is not None and start_method not in known:
        raise ValueError(f"start_method must be None or one of {', '.join(known)} on this system, not {start_method!r}")
    return num_workers
