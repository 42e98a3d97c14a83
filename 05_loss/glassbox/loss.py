"""How wrong is a guess? Cross-entropy, its gradient, and the units in which it is told.

A model's scores (logits) for the next token become probabilities; the loss is how surprised it is by the token that
came, in nats. Letters: B texts, T tokens, V vocabulary.

Sources: Shannon, A Mathematical Theory of Communication (1948); Good, Rational Decisions (1952).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.generation import evaluating
from glassbox.preprocessing import IGNORE, check_size

__all__ = ["bits_per_byte", "cross_entropy", "cross_entropy_gradient", "mean_loss", "perplexity"]


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, ignore_index: int = IGNORE) -> torch.Tensor:
    """The mean surprise in nats at the right answers: logits (..., V), targets (...) -> one number.

    -log softmax(z)_y = log(sum exp z) - z_y. The largest logit is taken off first: then no exponential overflows, and
    huge logits give the number that they mean. Targets of `ignore_index` do not count. Half-precision logits are summed
    in float32. Raises TypeError and ValueError for shapes and types that do not go together, targets outside the
    vocabulary, and where no target counts (torch returns NaN there).
    """
    counted = check_targets(logits, targets, ignore_index)  # (...,) bool
    z, y = wide(logits[counted]), targets[counted].long()  # (N, V), (N,)
    z = z - z.detach().amax(dim=-1, keepdim=True)  # the largest is 0: the probabilities are the same
    return (z.exp().sum(dim=-1).log() - z.gather(-1, y[:, None]).squeeze(-1)).mean()


def cross_entropy_gradient(logits: torch.Tensor, targets: torch.Tensor, ignore_index: int = IGNORE) -> torch.Tensor:
    """The gradient of `cross_entropy` by the logits: (p - y) / how many count, (..., V). Errors as there."""
    counted = check_targets(logits, targets, ignore_index)
    p = logits.softmax(dim=-1)
    y = F.one_hot(targets.where(counted, 0).long(), logits.shape[-1])
    return (p - y).masked_fill(~counted[..., None], 0) / counted.sum()


def perplexity(loss: float) -> float:
    """Between how many equally likely tokens a model of this loss (nats a token) is torn: e to the loss."""
    return math.exp(loss) if not loss > 709 else math.inf  # e to the 710 is more than a float can hold


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """Nats a token to bits a byte of the text, which compares models whose vocabularies differ.

    n_tokens, n_bytes: how many of both the scored text has. Raises TypeError and ValueError unless both are above 0.
    """
    return loss * check_size("n_tokens", n_tokens) / check_size("n_bytes", n_bytes) / math.log(2)


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Nats a token over batches (X, Y), both (B, T): every counted target weighs the same, dropout is off.

    Raises ValueError where there is no batch or no target that counts.
    """
    device = next(model.parameters(), torch.empty(0)).device
    nats, count = 0.0, 0
    with evaluating(model):
        for X, Y in batches:
            logits, Y = model(X.to(device)), Y.to(device)
            logits, Y = wide(logits.flatten(0, 1)), Y.flatten()  # (B * T, V), (B * T,)
            nats += F.cross_entropy(logits, Y, ignore_index=IGNORE, reduction="sum").item()
            count += int((Y != IGNORE).sum())
    if not count:
        raise ValueError("there is nothing to score: give at least one batch with a target that is not IGNORE")
    return nats / count


def wide(logits: torch.Tensor) -> torch.Tensor:
    """The logits in float32 at least: half precision has too few digits for a sum over a vocabulary."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


# --- what is refused ---


def check_targets(logits: Any, targets: Any, ignore_index: int) -> torch.Tensor:
    """Which targets count, (...,) bool. Raises where logits and targets do not go together."""
    for name, given in (("logits", logits), ("targets", targets)):
        if not isinstance(given, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(given).__name__}; write torch.tensor({name})")
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating-point numbers, not {logits.dtype}; write logits.float()")
    if targets.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"targets must be ids of type torch.int64, not {targets.dtype}; write targets.long()")
    if not logits.ndim or not logits.shape[-1] or logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} do not go together: the targets must be "
            f"{tuple(logits.shape[:-1])}, one id for each row of logits"
        )
    counted = targets != ignore_index
    if not counted.any():
        raise ValueError(
            f"no target counts: all {targets.numel()} are {ignore_index} (ignore_index), or there are none"
        )
    low, high = (int(limit) for limit in targets[counted].aminmax())
    if low < 0 or high >= logits.shape[-1]:
        raise ValueError(
            f"target {low if low < 0 else high} is outside 0 to {logits.shape[-1] - 1}: use the ids of the model's own "
            f"tokenizer, and {ignore_index} for what must not count"
        )
    return counted
