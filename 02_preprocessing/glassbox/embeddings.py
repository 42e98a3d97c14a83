"""Ids become vectors: a table of tokens, a table of positions, and vectors of words learned from their neighbours.

A look-up in a table is the product of a one-hot row with it, without the multiplications by zero. A position gets a
vector too, since attention alone does not know the order of its inputs.

Axes: B batch, T time, C = n_embd, V vocabulary, K negatives a pair.
Sources: Mikolov and others (2013), Levy and Goldberg (2014), Vaswani and others (2017), Radford and others (2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from glassbox.preprocessing import check_ids, check_row, check_size
from torch import nn

__all__ = [
    "Embeddings",
    "nearest",
    "negative_sampling_loss",
    "noise_distribution",
    "sinusoidal_positions",
    "skipgram_pairs",
    "train_vectors",
]

# --- positions ---


def sinusoidal_positions(T: int, n_embd: int) -> torch.Tensor:
    """Return a vector for each of T positions, (T, n_embd) float32: sines at even places, cosines at odd ones.

    Places 2i and 2i + 1 turn by 10000 ** (-2i / n_embd) radians a position. So a step of k positions is one fixed
    rotation, wherever it begins. Raises ValueError for an odd n_embd (Vaswani and others, 2017).
    """
    T, n_embd = check_pairs(T, n_embd)
    speeds = 10000.0 ** (-torch.arange(0, n_embd, 2, dtype=torch.float64) / n_embd)  # (C/2,) radians a position
    angles = torch.arange(T, dtype=torch.float64)[:, None] * speeds  # (T, C/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()  # (T, C/2, 2) -> (T, C)


class Embeddings(nn.Module):
    """GPT-2's first layer: the token's vector plus the position's, and dropout.

    Its parameters have GPT-2's names and shapes: `wte.weight` (vocab_size, n_embd), `wpe.weight` (block_size, n_embd),
    drawn from a normal distribution of deviation 0.02 (Radford and others, 2019).
    """

    def __init__(self, vocab_size: int, block_size: int, n_embd: int, dropout: float = 0.0) -> None:
        super().__init__()
        vocab_size, block_size, n_embd = check_table(vocab_size, block_size, n_embd)
        self.wte, self.wpe = nn.Embedding(vocab_size, n_embd), nn.Embedding(block_size, n_embd)
        self.drop = nn.Dropout(check_dropout(dropout))
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids: torch.Tensor, offset: int = 0) -> torch.Tensor:
        """Return vectors (B, T, n_embd) of ids (B, T), or (T, n_embd) of (T,); the first stands at position `offset`.

        Raises TypeError or ValueError for ids outside the vocabulary, no ids, and positions beyond block_size.
        """
        check_ids(ids, self.wte.num_embeddings)
        check_axes(ids)
        T = ids.shape[-1]
        offset = check_length(T, self.wpe.num_embeddings, offset)
        positions = torch.arange(offset, offset + T, device=ids.device)
        return self.drop(self.wte(ids) + self.wpe(positions))  # (B, T, C) + (T, C)


# --- words by their neighbours ---


def skipgram_pairs(ids: torch.Tensor, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every pair of ids at most `window` places apart, as (centres, contexts), each in both roles.

    ids: one axis. Raises ValueError for a window below 1 and for fewer than two ids.
    """
    window = check_pairable(ids, window)
    steps = range(1, min(window, len(ids) - 1) + 1)
    left, right = torch.cat([ids[:-d] for d in steps]), torch.cat([ids[d:] for d in steps])
    return torch.cat([left, right]), torch.cat([right, left])


def noise_distribution(counts: torch.Tensor, power: float = 0.75) -> torch.Tensor:
    """Return the probabilities (V,) from which negatives are drawn: counts (V,) to a power, made to sum to 1.

    The power below 1 lifts rare tokens (Mikolov and others, 2013). Raises TypeError for counts that are no tensor and a
    power that is no number, ValueError for negative or infinite ones and for no counts above 0.
    """
    power = check_counts(counts, power)
    shares = counts.double() / counts.max()  # at most 1: no power of them overflows
    weights = shares**power * (counts > 0)  # 0 ** 0 is 1, but what never occurs is no noise
    return (weights / weights.sum()).float()


def negative_sampling_loss(centre: torch.Tensor, context: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Return the mean over B pairs of -log sigmoid(w.c) - sum over K of log sigmoid(-w.n), in nats.

    centre w and context c: (B, C); negatives n: (B, K, C). Raises ValueError for other shapes (Mikolov and others,
    2013).
    """
    check_shapes(centre, context, negatives)
    near = (centre * context).sum(-1)  # (B,)
    far = torch.einsum("bc,bkc->bk", centre, negatives)
    return -(F.logsigmoid(near) + F.logsigmoid(-far).sum(-1)).mean()  # logsigmoid: no underflow before the log


@torch.enable_grad()
def train_vectors(
    ids: torch.Tensor,
    vocab_size: int,
    n_embd: int = 32,
    window: int = 3,
    negatives: int = 5,
    batch_size: int = 2048,
    steps: int = 1500,
    lr: float = 0.01,
    seed: int = 0,
) -> tuple[torch.Tensor, list[float]]:
    """Learn a vector for each token from its neighbours in a row of ids: skip-gram with negative sampling.

    Adam with a step size that falls from lr to 0. Returns the centres' table (vocab_size, n_embd) float32 and the loss
    of every step in nats; with steps=0 the random start. Errors as of the functions above. Gradients flow in it even
    under torch.no_grad().
    """
    check_ids(ids, vocab_size)
    sizes = check_training(vocab_size, n_embd, negatives, batch_size, steps, lr, seed)
    vocab_size, n_embd, negatives, batch_size, steps, lr, seed = sizes
    dice = torch.Generator().manual_seed(seed)
    centres, contexts = skipgram_pairs(ids, window)
    noise = noise_distribution(ids.bincount(minlength=vocab_size))
    table = (torch.randn(vocab_size, n_embd, generator=dice) / n_embd**0.5).requires_grad_()
    other = torch.zeros(vocab_size, n_embd, requires_grad=True)  # a token as a neighbour has a vector of its own
    optimiser = torch.optim.Adam([table, other], lr=lr, fused=True)
    losses: list[float] = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        chosen = torch.randint(len(centres), (batch_size,), generator=dice)
        drawn = torch.multinomial(noise, batch_size * negatives, replacement=True, generator=dice)
        loss = negative_sampling_loss(
            table[centres[chosen]], other[contexts[chosen]], other[drawn.view(batch_size, negatives)]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return table.detach(), losses


def nearest(vectors: torch.Tensor, i: int, k: int, among: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
    """Return the k ids (k,) whose vectors point most nearly where that of i does, the nearest first, i left out.

    vectors: (V, C); nearness is the cosine of the angle. among: the ids to choose from, each once; None for all.
    Raises ValueError for ids outside 0 to V - 1, a k for which there are too few, and vectors that are not finite;
    TypeError for what is no id.
    """
    i, k, others = check_neighbours(vectors, i, k, among)  # others: the ids to choose from, without i
    cosines = F.cosine_similarity(vectors[others], vectors[i], dim=-1)
    return others[cosines.topk(k).indices]


# --- what is refused ---


def check_number(name: str, value: Any, least: float = 0.0, most: float = math.inf) -> float:
    """The number as Python's own float."""
    bounds = f"of {least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number {bounds}, not {value!r}")
    number = float(value)
    if not least <= number <= most or not math.isfinite(number):
        raise ValueError(f"{name} must be a number {bounds}, not {value!r}")
    return number


def check_dropout(dropout: float) -> float:
    """A share of numbers to drop, as a float. TypeError for anything but a number, ValueError outside 0 to 1."""
    return check_number("dropout", dropout, 0, 1)


def check_pairs(T: int, n_embd: int) -> tuple[int, int]:
    T, n_embd = check_size("T", T), check_size("n_embd", n_embd)
    if n_embd % 2:
        raise ValueError(f"n_embd must be even, a sine and a cosine for each speed, not {n_embd}; take {n_embd + 1}")
    return T, n_embd


def check_table(vocab_size: int, block_size: int, n_embd: int) -> tuple[int, int, int]:
    return check_size("vocab_size", vocab_size), check_size("block_size", block_size), check_size("n_embd", n_embd)


def check_axes(ids: torch.Tensor) -> None:
    if ids.ndim not in (1, 2):
        raise ValueError(f"ids must be of shape (T,) or (B, T), not {tuple(ids.shape)}")


def check_length(T: int, block_size: int, past: int = 0) -> int:
    """Return `past` as a Python int. Raises ValueError unless there is a token and `past` tokens with T more fit.

    Under `torch.compile` `past` is left as it is: its type would become a part of what is compiled.
    """
    if not torch.compiler.is_compiling():
        past = check_size("the first position", past, 0)
    if T < 1:
        raise ValueError("there are no tokens (T = 0): give at least one, such as the end mark")
    if past + T > block_size:
        before = f" after {past} before them" if past else ""
        raise ValueError(
            f"{T} tokens{before} are more than block_size={block_size}: give a shorter text, or build a model with a "
            f"block_size of {past + T} or more"
        )
    return past


def check_pairable(ids: torch.Tensor, window: int) -> int:
    window = check_size("window", window)
    if not isinstance(ids, torch.Tensor):
        raise TypeError(f"ids must be a tensor, not {type(ids).__name__}; write torch.tensor(ids)")
    if ids.ndim != 1 or len(ids) < 2:
        raise ValueError(f"ids must be one row of two ids or more, not of shape {tuple(ids.shape)}")
    return window


def check_counts(counts: torch.Tensor, power: float) -> float:
    if not isinstance(counts, torch.Tensor) or counts.is_complex():
        what = "complex numbers" if isinstance(counts, torch.Tensor) else type(counts).__name__
        raise TypeError(f"counts must be a tensor of plain numbers, not {what}; write torch.tensor(counts)")
    fits = counts.ndim == 1 and bool(((counts >= 0) & counts.isfinite()).all()) and bool((counts > 0).any())
    if not fits:
        raise ValueError(
            "counts must be one row of numbers of 0 or more, at least one above 0 and none infinite: count the ids of "
            "a text"
        )
    return check_number("power", power)


def check_shapes(centre: torch.Tensor, context: torch.Tensor, negatives: torch.Tensor) -> None:
    shapes = tuple(tuple(part.shape) for part in (centre, context, negatives))
    wrong = centre.ndim != 2 or context.shape != centre.shape or negatives.ndim != 3
    if wrong or negatives.shape[::2] != centre.shape or not negatives.numel():
        raise ValueError(f"shapes must be (B, C), (B, C) and (B, K, C) with none of them 0, not {shapes}")


def check_training(
    vocab_size: int, n_embd: int, negatives: int, batch_size: int, steps: int, lr: float, seed: int
) -> tuple[int, int, int, int, int, float, int]:
    named = (("vocab_size", vocab_size), ("n_embd", n_embd), ("negatives", negatives), ("batch_size", batch_size))
    vocab_size, n_embd, negatives, batch_size = (check_size(name, size) for name, size in named)
    steps, seed = check_size("steps", steps, 0), check_size("seed", seed, None)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must fit into 64 bits, and {seed} does not")
    if not (lr := check_number("lr", lr, -math.inf)) > 0:
        raise ValueError(f"lr must be above 0, not {lr}")
    return vocab_size, n_embd, negatives, batch_size, steps, lr, seed


def check_neighbours(vectors: torch.Tensor, i: Any, k: int, among: Any) -> tuple[int, int, torch.Tensor]:
    """i, k and the ids to choose from: each once, as int64, without i."""
    if not isinstance(vectors, torch.Tensor) or not vectors.is_floating_point():
        kind = vectors.dtype if isinstance(vectors, torch.Tensor) else type(vectors).__name__
        raise TypeError(f"vectors must be a tensor of floats, not {kind}")
    if vectors.ndim != 2:
        raise ValueError(f"vectors must be a table (V, C), not of shape {tuple(vectors.shape)}")
    if not bool(vectors.isfinite().all()):
        raise ValueError("vectors hold numbers that are infinite or NaN: train them with a smaller lr")
    chosen = np.arange(len(vectors)) if among is None else np.unique(check_row(among, "among").astype(np.int64))
    i = check_size("i", i, None)
    for name, number in (("i", i), *(("among", int(limit)) for limit in (*chosen[:1], *chosen[-1:]))):
        if not 0 <= number < len(vectors):
            raise ValueError(f"{name}: id {number} is outside 0 to {len(vectors) - 1}: take the table's own tokenizer")
    others = torch.from_numpy(chosen[chosen != i]).to(vectors.device)
    if (k := check_size("k", k)) > len(others):
        raise ValueError(f"k={k}, but there are only {len(others)} others to choose from")
    return i, k, others
