"""What a training reads: micro-batches that are numbered from its start, so that a run goes on where it stopped.

A source is called with the number of the first micro-batch and the distance to the next, and yields (X, Y), both
(B, T): process r of W asks for r, r + W, r + 2 W ... and gets a share that overlaps with no other's.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from glassbox import tales
from glassbox.preprocessing import (
    BatchOrder,
    TokenDataset,
    check_size,
    check_split,
    clean_text,
    read_documents,
    split_documents,
)
from glassbox.tales_exam import UNSEEN, pad_rows
from glassbox.token_file import TokenFile, write_tokens
from glassbox.tokenizer import BPETokenizer
from glassbox.training_tables import write_atomically

__all__ = ["Source", "TalesBatches", "TokenBatches", "open_tokens"]

STREAM = 1_000_003  # texts of one seed of `tales.stream`
SIDES = ("training", "validation")
OWN = re.compile(r"(text|training|validation)\.tokens(\.partial(\.ends|\.json(\.new)?)?)?|text\.split\.json")
SCORED = 64  # validation batches of a file that an evaluation of the command reads at most
POOL = 16  # batches that are written together, so that texts of like length can share one


class Source(Protocol):
    """Micro-batches by number: `source(start, every)` yields those of the numbers start, start + every, ..."""

    def __call__(self, start: int = 0, every: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]: ...


class TalesBatches:
    """Fresh whole Tiny Tales without end: each row is one text, from the end mark before it to the end mark after it.

    Texts of like length share a batch, so that little of it is filled up. A text of more than block_size tokens is cut
    there. Raises TypeError and ValueError for sizes that are none, and for the seed of the examination's texts.
    """

    def __init__(self, tokenizer: BPETokenizer, batch_size: int, block_size: int, seed: int = 11) -> None:
        self.tokenizer, self.end = tokenizer, tokenizer.special_tokens[tales.END]
        self.batch_size, self.block_size = check_size("batch_size", batch_size), check_size("block_size", block_size)
        if (seed := check_size("seed", seed, 0)) == UNSEEN:
            raise ValueError(f"seed = {UNSEEN} writes the texts of the examination: train on another one")
        self.seed = seed

    def __call__(self, start: int = 0, every: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Micro-batches start, start + every, ...: without end, since the texts are written as they are needed."""
        pool, groups = -1, []
        for number in itertools.count(start, every):
            if number // POOL != pool:
                pool = number // POOL
                groups = self._write(pool)
            yield pad_rows(groups[number % POOL], self.end)

    def _write(self, pool: int) -> list[list[list[int]]]:
        """The groups of rows of one pool of texts, in a shuffled order."""
        size = POOL * self.batch_size
        first, rows = pool * size, []
        for k in range(first, first + size):
            text = tales.write(self.seed * STREAM + k % STREAM)
            rows.append([self.end, *self.tokenizer.encode(text.text), self.end][: self.block_size + 1])
        rows.sort(key=len)
        groups = [rows[i : i + self.batch_size] for i in range(0, size, self.batch_size)]
        random.Random(self.seed * STREAM + pool).shuffle(groups)
        return groups


class TokenBatches:
    """Batches of a data set of windows, shuffled anew in each epoch, without end. Errors as of `BatchOrder`."""

    def __init__(self, dataset: TokenDataset, batch_size: int, seed: int | None = 0) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        BatchOrder(len(dataset), batch_size, seed)  # raises what is to be raised now

    def __call__(self, start: int = 0, every: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Micro-batches start, start + every, ... of the order."""
        order = BatchOrder(len(self.dataset), self.batch_size, self.seed, start_step=start, epochs=None)
        for indices in itertools.islice(order, 0, None, every):
            yield self.dataset.__getitems__(indices)

    def once(self, most: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each item once, in order: for scoring. most: only so many batches, spread evenly over all."""
        n = len(BatchOrder(len(self.dataset), self.batch_size))
        count = n if most is None else min(n, check_size("most", most))
        for i in range(count):
            order = BatchOrder(len(self.dataset), self.batch_size, start_step=i * n // count)
            yield self.dataset.__getitems__(next(iter(order)))


def open_tokens(
    path: str | os.PathLike[str],
    tokenizer: BPETokenizer,
    block_size: int,
    folder: str | os.PathLike[str],
    validation: float = 0.1,
    seed: int = 0,
) -> tuple[TokenDataset, TokenDataset]:
    """A token file (`write_tokens`) or a text file as two data sets: for training, and for validation.

    A text's documents (between end marks) are split by their own content, so that copies are on one side; its ids are
    written to token files in `folder`, and read from there the next time. A token file gives its last documents to
    validation. A single document is cut in two. Raises ValueError for a share outside (0, 1), an empty file, bytes that
    are no UTF-8, a side too short for one window, a token file of another vocabulary, and files in `folder` that were
    written from another text, share or seed.
    """
    path, folder = Path(path), Path(folder)
    share, seed = check_split(validation, seed)
    block_size = check_size("block_size", block_size)
    with open(path, "rb") as file:
        is_tokens = file.read(9) == b"GLASSBOX{"
    if is_tokens:
        return _cut(TokenFile(path, tokenizer), block_size, share, path)
    documents = _read(path)
    if len({clean_text(text).strip() for text in documents}) == 1:  # copies of it would be on both sides
        return _cut_text(folder, documents[:1], tokenizer, block_size, share, seed, path)
    try:
        texts = split_documents(documents, share, seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    files = [
        _written(folder / f"{name}.tokens", side, tokenizer, path) for name, side in zip(SIDES, texts, strict=True)
    ]
    training, held = (_windows(file.ids, file.ends, block_size, i, path) for i, file in enumerate(files))
    return training, held


def _read(path: Path) -> list[str]:
    try:
        documents = [text for text in read_documents(path) if text.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}): save it as UTF-8, or give a token file") from None
    if not documents:
        raise ValueError(f"{path} is empty: give a text file with documents, or a token file")
    return documents


def _written(place: Path, documents: list[str], tokenizer: BPETokenizer, source: Path) -> TokenFile:
    """The token file of these documents, from an earlier start or new."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        return write_tokens(place, documents, tokenizer)
    file, chain = TokenFile(place, tokenizer), ""
    for text in documents:  # the hash of all text that a token file's header holds
        chain = hashlib.sha256((chain + text).encode("utf-8", "surrogatepass")).hexdigest()
    if file.header["chain"] != chain:
        raise _other(place, source)
    return file


def _other(place: Path, source: Path) -> ValueError:
    return ValueError(
        f"{place} was written from another text, share or seed than {source} gives now: restore the text to go on"
        " with this run, or choose another folder for a new one"
    )


def _cut_text(
    folder: Path, documents: list[str], tokenizer: BPETokenizer, block_size: int, share: float, seed: int, source: Path
) -> tuple[TokenDataset, TokenDataset]:
    """A single document cut in two. Its ids are the same for every share, so the share is kept beside them."""
    place, split = folder / "text.split.json", json.dumps({"validation": share, "seed": seed})
    if (known := place.exists()) and place.read_text("utf-8", errors="replace") != split:
        raise _other(folder / "text.tokens", source)
    sides = _cut(_written(folder / "text.tokens", documents, tokenizer, source), block_size, share, source)
    if not known:
        write_atomically(place, split)
    return sides


def _cut(file: TokenFile, block_size: int, share: float, source: Path) -> tuple[TokenDataset, TokenDataset]:
    """A token file's first documents for training and its last ones for validation."""
    n = min(file.documents - 1, max(1, round(file.documents * (1 - share))))
    cut = int(file.ends[n - 1]) if n else round(len(file) * (1 - share))
    ends = (file.ends[:n], file.ends[n:] - file.ends[n - 1]) if n else (None, None)
    training = _windows(file.ids[:cut], ends[0], block_size, 0, source)
    return training, _windows(file.ids[cut:], ends[1], block_size, 1, source)


def _windows(ids: np.ndarray, ends: np.ndarray | None, block_size: int, side: int, source: Path) -> TokenDataset:
    try:
        return TokenDataset(ids, block_size, ends=ends)
    except ValueError as error:
        raise ValueError(
            f"{source} is too short for {SIDES[side]}: {error}, or a {('smaller', 'larger')[side]} share for validation"
        ) from None
