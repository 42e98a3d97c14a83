"""What a training refuses, with the value, the limit and the fix: plans, batches, scores, and numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from glassbox.optimisation import check_rates
from glassbox.preprocessing import IGNORE, check_size
from glassbox.processes import Processes
from torch.amp.grad_scaler import GradScaler

__all__: list[str] = []  # checks have no place in a reader's namespace: who needs one imports it by name

SCHEDULES = ("cosine", "trapezoid", "constant")
PRECISION_NAMES = ("float32", "bf16", "fp16")


def check_config(config: Any) -> None:
    """Raises TypeError or ValueError for what no training can work with."""
    for name in ("steps", "warmup", "accumulate", "evaluate_every", "save_every", "log_every"):
        least = 1 if name in ("steps", "accumulate") else 0
        object.__setattr__(config, name, check_size(name, getattr(config, name), least))
    for name, words in (("schedule", SCHEDULES), ("precision", PRECISION_NAMES)):
        check_word(name, getattr(config, name), words)
    for name in ("recompute", "compile", "ladder"):
        if not isinstance(getattr(config, name), bool):
            raise TypeError(f"{name} must be True or False, not {getattr(config, name)!r}")
    if not isinstance(config.betas, list | tuple) or len(config.betas) != 2:
        raise ValueError(f"betas must be two numbers, such as (0.9, 0.95), not {config.betas!r}")
    object.__setattr__(config, "betas", tuple(config.betas))
    for name, fits, limit in (
        ("lr", lambda v: 0 <= v < math.inf, "0 or more"),
        ("weight_decay", lambda v: 0 <= v < math.inf, "0 or more"),
        ("least", lambda v: 0 <= v <= 1, "a share from 0 to 1"),
        ("table_lr", lambda v: 0 < v < math.inf, "above 0"),
        ("clip", lambda v: v > 0, "above 0 (inf for no limit)"),
    ):
        value = getattr(config, name)
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number, not {value!r}")
        if not fits(value):
            raise ValueError(f"{name} must be {limit}, not {value}")
    check_rates(config.lr, config.betas, 1e-8, config.weight_decay)
    if config.warmup >= config.steps:
        raise ValueError(f"warmup = {config.warmup} leaves nothing of steps = {config.steps}: warm up for fewer")


def check_word(name: str, value: Any, words: Iterable[str]) -> None:
    """Raises ValueError for a word that is not one of these."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}, not {value!r}")


def check_precision(precision: str, processes: Processes) -> None:
    """Raises ValueError where the device has no such arithmetic."""
    device = processes.device
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"{torch.cuda.get_device_name(device)} has no bf16: use precision='fp16' or 'float32'")
    if precision == "fp16" and processes.shard:  # each process would see infinities in its own part only
        raise ValueError("precision='fp16' does not go together with a model in parts (shard): use 'bf16'")


def check_step(step: int, steps: int) -> None:
    """Raises ValueError for a run that has gone beyond the end that is asked for."""
    if step > steps:
        raise ValueError(f"the run in this folder has done {step} steps, more than steps = {steps}: ask for more")


def check_parts(parts: Any) -> int:
    """How many targets count. Raises TypeError or ValueError for what are no micro-batches."""
    if isinstance(parts, torch.Tensor) or not isinstance(parts, Sequence) or not parts:
        raise ValueError("a step needs a list of at least one micro-batch (X, Y)")
    counted = 0
    for part in parts:
        if not isinstance(part, tuple | list) or [type(half) for half in part] != [torch.Tensor, torch.Tensor]:
            raise TypeError(f"a micro-batch must be two tensors (X, Y), not {type(part).__name__}: write [(X, Y)]")
        X, Y = part
        if X.ndim != 2 or X.shape != Y.shape:
            raise ValueError(f"X {tuple(X.shape)} and Y {tuple(Y.shape)} must both be (B, T): a target for each input")
        if Y.dtype != torch.int64:
            raise TypeError(f"targets must be ids of type torch.int64, not {Y.dtype}; write Y.long()")
        counted += Y.numel() - int((Y == IGNORE).sum())
    return counted


def check_logits(logits: torch.Tensor, targets: torch.Tensor) -> None:
    """Raises ValueError for logits that are not (B, T, V), and targets outside the vocabulary; not when compiling."""
    if logits.ndim != 3 or logits.shape[:2] != targets.shape:
        wanted = ", ".join(map(str, targets.shape))
        raise ValueError(
            f"the model gave logits {tuple(logits.shape)} for targets ({wanted}): they must be ({wanted}, V)"
        )
    V = logits.shape[-1]
    if targets.device.type == "cpu":  # a GPU would have to be waited for, and says so itself
        low, high = (int(limit) for limit in targets.where(targets != IGNORE, 0).aminmax())
        if low < 0 or high >= V:
            raise ValueError(
                f"target {low if low < 0 else high} is outside 0 to {V - 1}: use the ids of the model's own tokenizer,"
                f" and {IGNORE} for what must not count"
            )


def check_finite(loss: float, length: float, scaler: GradScaler) -> None:
    """Raises FloatingPointError for a loss or a gradient that is no number."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}. The step was not taken")
    if not math.isfinite(length) and not (scaler.is_enabled() and scaler.get_scale() > 1):
        raise FloatingPointError(
            f"the loss is {loss:.4g}, but the gradient's length is {length}. The step was not taken"
        )


def check_scores(scores: Any) -> dict[str, float]:
    """The scores as numbers. Raises where there is no loss, and FloatingPointError where it is NaN or infinite."""
    if not isinstance(scores, Mapping) or "loss" not in scores:
        raise ValueError(f"evaluate must return a dict with a 'loss', not {scores!r}")
    if taken := {"step", "tokens", "seconds"} & scores.keys():
        raise ValueError(f"a score cannot be called {sorted(taken)[0]}: the table of evaluations has such a column")
    if wild := [name for name in scores if not isinstance(name, str) or set(name) & set(',"\r\n')]:
        raise ValueError(f"a score cannot be called {wild[0]!r}: take a word without comma, quotation mark or line end")
    try:
        found = {str(name): float(value) for name, value in scores.items()}
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"evaluate must return a dict of numbers, not {scores!r}") from None
    if not math.isfinite(found["loss"]):
        raise FloatingPointError(f"the evaluation before it gave a loss of {found['loss']}")
    return found


def check_same_plan(known: Mapping[str, Any], config: Any, folder: Any) -> None:
    """Raises ValueError where a run would go on by another plan than it was begun with: its numbers would mix two."""
    for name in ("lr", "schedule", "warmup", "least", "table_lr", "betas", "weight_decay", "clip", "precision"):
        was, now = known.get(name, getattr(config, name)), getattr(config, name)
        if (tuple(was) if isinstance(was, list) else was) != now:
            raise ValueError(
                f"the run in {folder} was begun with {name} = {was}, not {now}: take another folder for a new run, or"
                f" {name} = {was} to go on with this one"
            )
