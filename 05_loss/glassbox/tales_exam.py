"""The examination of a model on unseen Tiny Tales: how far above the floor, and how many facts it recalls.

Every probability of the language is known (`glassbox.tales`), so the loss of a perfect model is known too: the floor.
A recall is a word that repeats a fact of its text and that a reader with a perfect memory would know; it is right when
the model's likeliest token is the right one at each of the word's tokens. Distances are in pieces (words) of the text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox import tales
from glassbox.generation import evaluating
from glassbox.loss import check_targets
from glassbox.preprocessing import IGNORE, check_size
from glassbox.tokenizer import BPETokenizer

__all__ = ["BINS", "TalesExam", "pad_rows"]

BINS = {"near": (5, 20), "middle": (21, 60), "far": (61, 200)}
UNSEEN = 2  # the seed of data/tales-heldout.txt; its 500 texts are this stream's first


def pad_rows(rows: list[list[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as inputs and targets (B, T), T the longest less one: `fill` and IGNORE after the end of a row."""
    T = max(map(len, rows)) - 1
    x = torch.full((len(rows), T), fill)
    y = torch.full((len(rows), T), IGNORE)
    for i, row in enumerate(rows):
        x[i, : len(row) - 1] = torch.tensor(row[:-1])
        y[i, : len(row) - 1] = torch.tensor(row[1:])
    return x, y


class TalesExam:
    """n unseen whole texts, from the end mark before them to the end mark after them, ready for scoring.

    They are `tales.stream(seed, n, genre, pairs)`. floor: the loss of a perfect model on them, nats a token. n_tokens,
    n_bytes: their size. batches: (X, Y) in order of length. block_size: texts of more tokens are refused with
    ValueError, since a whole text must be seen.
    """

    def __init__(
        self,
        tokenizer: BPETokenizer,
        n: int = 500,
        block_size: int = 512,
        seed: int = UNSEEN,
        genre: str | None = None,
        pairs: str = "seen",
    ) -> None:
        end, n, block_size = (
            tokenizer.special_tokens[tales.END],
            check_size("n", n),
            check_size("block_size", block_size),
        )
        encoded = [(text, tokenizer.encode(text.text)) for text in tales.stream(seed, n, genre, pairs)]
        encoded.sort(key=lambda pair: len(pair[1]))
        self.texts = [text for text, _ in encoded]
        self.rows = [[end, *ids, end] for _, ids in encoded]
        if (longest := len(self.rows[-1]) - 1) > block_size:
            raise ValueError(
                f"a text has {longest} tokens, more than block_size = {block_size}: a model that is examined must see"
                " whole texts, so give it a longer context"
            )
        self.n_tokens = sum(len(row) - 1 for row in self.rows)
        self.n_bytes = sum(len(text.text.encode()) for text in self.texts)
        self.floor = -sum(text.log_prob for text in self.texts) / self.n_tokens
        self.batches = [pad_rows(self.rows[i : i + 16], end) for i in range(0, n, 16)]
        lengths = [len(tokenizer.decode_bytes([i])) for i in range(tokenizer.vocab_size)]
        self.recalls = [list(_recalls(text, row, lengths)) for text, row in zip(self.texts, self.rows, strict=True)]

    def score(self, model: nn.Module | Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """`loss` in nats a token, and the share of recalls that are right, `near`, `middle` and `far`.

        model: ids (B, T) -> logits (B, T, V), which may be unnormalised. Errors as of `glassbox.loss.cross_entropy`
        for logits of another shape or vocabulary.
        """
        if isinstance(model, nn.Module):
            with evaluating(model):
                return self._score(model)
        return self._score(model)

    @torch.no_grad()
    def _score(self, model: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        nats, number, right, asked = 0.0, 0, Counter[str](), Counter[str]()
        parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        for X, Y in self.batches:
            logits = model(X if parameter is None else X.to(parameter.device)).cpu().float()
            check_targets(logits, Y, IGNORE)
            nats += float(F.cross_entropy(logits.flatten(0, 1), Y.flatten(), ignore_index=IGNORE, reduction="sum"))
            hits = logits.argmax(dim=-1) == Y  # (B, T)
            for i in range(len(X)):
                for bin, first, last in self.recalls[number + i]:
                    asked[bin] += 1
                    right[bin] += int(hits[i, first:last].all())
            number += len(X)
        return {"loss": nats / self.n_tokens, **{bin: right[bin] / max(1, asked[bin]) for bin in BINS}}


def _recalls(text: tales.Text, row: list[int], lengths: list[int]) -> Iterator[tuple[str, int, int]]:
    """Each recall's bin, and which targets (first, last) overlap with its word."""
    ends = list(accumulate(lengths[i] for i in row[1:-1]))  # where the token of target t ends, in bytes of the text
    starts = [0, *ends[:-1]]
    pieces = [0, *accumulate(len(piece.encode()) for piece in text.pieces)]
    for recall in text.recalls:
        for bin, (low, high) in BINS.items():
            if low <= recall.distance <= high:
                begin, stop = pieces[recall.index], pieces[recall.index + 1]
                yield bin, bisect_right(ends, begin), bisect_left(starts, stop)
