"""02_preprocessing: fetching batches from a token file, writing one, word vectors and n-grams, each beside a plain way.

Batches are 32 x 256 ids, drawn at random from a memory-mapped file. The peers fetch the same rows: item by item with
torch's default collate, and the loop that nanoGPT made popular, which slices the file at random places and stacks the
slices. Writing is measured against encoding the whole text at once, in Python and in Rust, and saving an array.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_tokenizer import HF, TIKTOKEN, as_huggingface
from glassbox.embeddings import negative_sampling_loss, skipgram_pairs
from glassbox.ngrams import NGram
from glassbox.preprocessing import TokenDataset, make_loader
from glassbox.tales import END
from glassbox.token_file import TokenFile, write_tokens
from glassbox.tokenizer import BPETokenizer
from run import Case
from token_file_memory import documents
from torch.utils.data import DataLoader, Dataset

B, T = 32, 256
Batches = list[tuple[torch.Tensor, torch.Tensor]]


@functools.cache
def folder() -> Path:
    """A place for the files of this script, which goes when the process ends."""
    made = tempfile.mkdtemp(prefix="glassbox-bench-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


# --- batches ---


class ItemByItem(Dataset[Any]):
    """The same items, but torch's loader can only ask for one at a time."""

    def __init__(self, data: TokenDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Any:
        return self.data[i]


def crops(ids: np.ndarray, starts: list[list[int]], block_size: int) -> Batches:
    """Slices of the file at given places, stacked: the loop that nanoGPT made popular, with its places drawn before."""
    found = []
    for batch in starts:
        x = torch.stack([torch.from_numpy(ids[i : i + block_size].astype(np.int64)) for i in batch])
        y = torch.stack([torch.from_numpy(ids[i + 1 : i + 1 + block_size].astype(np.int64)) for i in batch])
        found.append((x, y))
    return found


def same_batches(ours: Batches, peer: Batches) -> bool:
    return all(a.equal(c) and b.equal(d) for (a, b), (c, d) in zip(ours, peer, strict=True))


def fetching(file: TokenFile, steps: int, block_size: int) -> Iterator[Case]:
    data = TokenDataset(file.ids, block_size)
    order = make_loader(data, B, seed=0, epochs=None).batch_sampler
    assert order is not None
    chosen = list(itertools.islice(order, steps))
    starts = [[int(i) * block_size for i in batch] for batch in chosen]
    mapped = np.memmap(file.path, "<u2", "r", 4096, (len(file),))

    def ours() -> Batches:
        return list(itertools.islice(make_loader(data, B, seed=0, epochs=None), steps))

    def one_by_one() -> Batches:
        return [tuple(batch) for batch in DataLoader(ItemByItem(data), batch_sampler=chosen)]  # type: ignore[misc]

    work = f"{steps:,} shuffled batches of {B} x {block_size} from a memory-mapped file of {len(file):,} ids"
    yield Case(work, ours, one_by_one, "item by item, default collate", 3.0, same_batches)
    yield Case(work, ours, lambda: crops(mapped, starts, block_size), "slices and torch.stack", 1.0, same_batches)
    yield Case(
        f"{work}: without the loader around it",
        lambda: [data.__getitems__(batch) for batch in chosen],
        lambda: crops(mapped, starts, block_size),
        "slices and torch.stack",
        same=same_batches,
    )


# --- writing ---


def writing(texts: list[str], tokenizer: BPETokenizer) -> Iterator[Case]:
    end = tokenizer.special_tokens[END]
    rust, openai = as_huggingface(tokenizer), tokenizer.to_tiktoken()
    whole = END.join([*texts, ""])
    numbers = itertools.count()
    tokenizer.encode(whole)  # warms the cache, which every side of ours shares

    def save(ids: list[int]) -> np.ndarray:
        array = np.array(ids, np.uint16)
        np.save(folder() / "naive.npy", array)
        return array

    def ours() -> np.ndarray:
        path = folder() / f"{next(numbers)}.tok"
        ids = np.array(write_tokens(path, texts, tokenizer).ids)
        path.unlink()
        return ids

    def by_tiktoken() -> np.ndarray:
        return save([i for text in texts for i in [*openai.encode_ordinary(text), end]])

    def by_rust() -> np.ndarray:
        return save([i for found in rust.encode_batch_fast(texts, add_special_tokens=False) for i in [*found.ids, end]])

    size = len(whole.encode())
    work = f"writing a token file of {len(texts):,} documents, {size / 1e6:.2g} MB, cache warm"
    peers: dict[str, tuple[Callable[[], np.ndarray], float | None]] = {
        "encode of the whole text, one array": (lambda: save(tokenizer.encode(whole, "all")), 0.6),
        f"{TIKTOKEN}, one array": (by_tiktoken, None),
        f"{HF}, one thread, one array": (by_rust, None),
    }
    for name, (peer, goal) in peers.items():
        yield Case(work, ours, peer, name, goal, np.array_equal)


# --- word vectors and n-grams ---


def plain_loss(centre: torch.Tensor, context: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """The loss pair by pair, as the formula reads."""
    total = torch.zeros(())
    for w, c, others in zip(centre, context, negatives, strict=True):
        total = total - torch.log(torch.sigmoid(w @ c))
        for n in others:
            total = total - torch.log(torch.sigmoid(-(w @ n)))
    return total / len(centre)


def plain_pairs(ids: list[int], window: int) -> list[tuple[int, int]]:
    return [
        (ids[i], ids[j])
        for i in range(len(ids))
        for j in range(max(0, i - window), min(len(ids), i + window + 1))
        if i != j
    ]


def plain_scores(text: list[int], scored: list[int], vocab_size: int, a: float) -> list[float]:
    """Trigrams counted in dictionaries, and every id scored on its own."""
    counts = [Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for n in (1, 2, 3)]
    totals = [Counter(tuple(text[i : i + n]) for i in range(len(text) - n)) for n in (0, 1, 2)]
    found = []
    for t in range(len(scored)):
        p = 1 / vocab_size
        for n in range(1, min(3, t + 1) + 1):
            gram = tuple(scored[t - n + 1 : t + 1])
            p = (counts[n - 1][gram] + a * p) / (totals[n - 1][gram[:-1]] + a)
        found.append(float(np.log(p)))
    return found


def learning(ids: list[int], vocab_size: int, smoke: bool) -> Iterator[Case]:
    dice = torch.Generator().manual_seed(0)
    n = 4 if smoke else 256
    w, c, others = (torch.randn(*shape, generator=dice) for shape in ((n, 32), (n, 32), (n, 5, 32)))
    yield Case(
        f"negative-sampling loss of {n} pairs, 5 negatives, 32 numbers a vector",
        lambda: negative_sampling_loss(w, c, others),
        lambda: plain_loss(w, c, others),
        "Python loop over torch vectors",
        20.0,
        lambda ours, peer: torch.allclose(ours, peer, rtol=1e-4),
    )
    row = torch.tensor(ids)
    yield Case(
        f"skip-gram pairs of {len(ids):,} ids, window 3",
        lambda: skipgram_pairs(row, 3),
        lambda: plain_pairs(ids, 3),
        "Python loop",
        20.0,
        lambda ours, peer: Counter(zip(*(part.tolist() for part in ours), strict=True)) == Counter(peer),
    )
    cut = 9 * len(ids) // 10
    yield Case(
        f"trigrams: {cut:,} ids counted, {len(ids) - cut:,} scored",
        lambda: NGram(3, vocab_size, 4.0).fit(ids[:cut]).log_probs(ids[cut:]),
        lambda: plain_scores(ids[:cut], ids[cut:], vocab_size, 4.0),
        "dictionaries",
        2.0,
        lambda ours, peer: np.allclose(ours[2:], peer[2:]),
    )


def cases(smoke: bool) -> list[Case]:
    tokenizer = BPETokenizer.load()
    texts = list(documents(20_000 if smoke else 2_000_000))
    path = folder() / f"corpus-{smoke}.tok"
    file = TokenFile(path, tokenizer) if path.exists() else write_tokens(path, texts, tokenizer)
    steps, block_size = (2, 16) if smoke else (200, T)
    ids = file.ids[: 2000 if smoke else 200_000].tolist()
    return [
        *fetching(file, steps, block_size),
        *writing(texts, tokenizer),
        *learning(ids, tokenizer.vocab_size, smoke),
    ]
