"""The training loop: from batches to a model that has learned, on a laptop, a GPU or many machines.

    python -m glassbox.training --help
    torchrun --nproc-per-node 2 -m glassbox.training --help

The loss of a step is the mean over all its counted targets, of all its micro-batches and all processes together: so
many small batches, or many processes, take the same step as one large batch. What is random in a step depends on
nothing but the step's number and the saved state of the dice: so a run that was killed goes on bit for bit.

Source: Radford et al. (2019) for the model; Micikevicius et al., Mixed Precision Training (2017); Chen et al., Training
Deep Nets with Sublinear Memory Cost (2016), for recomputing; Li et al., PyTorch Distributed (2020).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.gpt2 import GPT
from glassbox.optimisation import clip_gradients, cosine_schedule, decay_groups, trapezoid_schedule
from glassbox.preprocessing import IGNORE
from glassbox.processes import ALONE, Processes
from glassbox.training_checks import (
    PRECISION_NAMES,
    check_config,
    check_finite,
    check_logits,
    check_parts,
    check_precision,
    check_same_plan,
    check_scores,
    check_step,
    check_word,
)
from glassbox.training_data import Source
from glassbox.training_state import Checkpoints
from glassbox.training_tables import read_rows, table
from torch.amp.grad_scaler import GradScaler
from torch.utils.checkpoint import checkpoint
from tqdm import trange

__all__ = ["PRECISIONS", "Run", "TrainConfig", "autocast", "learning_rate", "recompute_blocks", "train", "train_step"]

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. TypeError and ValueError for numbers out of range.

    steps; lr: the highest step size; schedule: "cosine", "trapezoid" or "constant"; warmup: steps on the way up; least:
    the last step size as a share of lr; table_lr: how many times faster the tables learn (a rare token's row seldom
    gets a gradient); betas, weight_decay: of AdamW; clip: the longest gradient; accumulate: micro-batches a step;
    precision: "float32", "bf16" or "fp16" (autocast); recompute: keep no activations inside blocks, compute them again;
    compile: torch.compile; evaluate_every, save_every, log_every: in steps, 0 for only at the end (with evaluate_every
    above 0 an evaluation also comes at each power of two, since most happens early; with save_every above 0 the best
    evaluated model is saved too); ladder: save at each power of two, and keep these checkpoints.
    """

    steps: int = 1000
    lr: float = 1e-3
    schedule: str = "cosine"
    warmup: int = 100
    least: float = 0.1
    table_lr: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "float32"
    recompute: bool = False
    compile: bool = False
    evaluate_every: int = 0
    save_every: int = 0
    log_every: int = 10
    ladder: bool = False

    def __post_init__(self) -> None:
        check_config(self)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The step size at `step` (from 0)."""
    plan = config.steps, config.warmup, config.lr, config.least * config.lr
    if config.schedule == "constant":
        return config.lr * min(1.0, (step + 1) / (config.warmup + 1))
    return (cosine_schedule if config.schedule == "cosine" else trapezoid_schedule)(step, *plan)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """torch's fused AdamW over `decay_groups`, the tables in a group of their own; each group has a `speed`.

    Its step size is the schedule's times its speed.
    """
    matrices, rest = decay_groups(model, config.weight_decay)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    quick = {"params": [p for p in rest["params"] if id(p) in tables], "weight_decay": 0.0, "speed": config.table_lr}
    rest["params"] = [p for p in rest["params"] if id(p) not in tables]
    groups = [group for group in ({**matrices, "speed": 1.0}, {**rest, "speed": 1.0}, quick) if group["params"]]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Inside the `with`, matrix products are done in this precision; parameters and sums stay float32."""
    check_word("precision", precision, PRECISION_NAMES)
    kind = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=kind) if kind else contextlib.nullcontext()


def recompute_blocks(model: GPT, on: bool = True) -> None:
    """Let each block keep only its input for the way back, and compute the rest again: less memory, a third more work.

    on=False: as it was. The numbers are the same either way, with dropout too.
    """
    for block in model.h:
        block.__dict__.pop("forward", None)
        if on:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[tuple[torch.Tensor, torch.Tensor]],
    clip: float = math.inf,
    precision: str = "float32",
    scaler: GradScaler | None = None,
    processes: Processes = ALONE,
) -> tuple[float, float, int]:
    """One step on micro-batches (X, Y), both (B, T): returns the mean loss, the gradient's length, the counted tokens.

    The parts may differ in shape. Raises TypeError and ValueError for what are no batches, and where no target counts;
    FloatingPointError for a loss or gradient that is NaN or infinite; all that before a parameter is changed. (With
    fp16 an infinite gradient is usual: `scaler` passes over that step and scales less.)
    """
    scaler = scaler or GradScaler(enabled=False)
    tokens = round(processes.sum(check_parts(parts)))
    if not tokens:
        raise ValueError("a step without a target that counts: give at least one that is not IGNORE")
    optimizer.zero_grad()
    losses = []
    for i, (X, Y) in enumerate(parts):
        X, Y = X.to(processes.device), Y.to(processes.device)
        with processes.accumulating(model, last=i == len(parts) - 1):
            with autocast(processes.device, precision):
                logits = model(X)  # (B, T, V)
            loss = summed_loss(logits, Y) / tokens
            scaler.scale(loss * processes.world).backward()  # processes average their gradients: times their number
        losses.append(loss.detach())
    total = processes.sum(float(sum(losses)))
    scaler.unscale_(optimizer)
    length = float(clip_gradients((p for group in optimizer.param_groups for p in group["params"]), clip))
    check_finite(total, length, scaler)
    scaler.step(optimizer)
    scaler.update()
    return total, length, tokens


def train(
    model: nn.Module,
    source: Source,
    config: TrainConfig,
    folder: str | os.PathLike[str] | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    processes: Processes = ALONE,
    progress: bool = False,
    watch: Callable[[Run], None] = lambda run: None,
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Train a model in place on the micro-batches of `source`; returns the run with its `log` and `evaluations`.

    folder: where checkpoints and tables are kept; a run that is in it already goes on from its last checkpoint, to the
    same bits as if it had not been stopped (same machine, as many threads and processes). evaluate: model -> scores,
    one of them "loss", by which the best checkpoint is chosen. watch: called after each evaluation. Neither moves the
    training's dice. stop: asked after each step; True ends the run early, with a checkpoint.

    Raises what `train_step` raises, a FloatingPointError with the last good checkpoint and the likely causes;
    ValueError for a source that runs dry, scores without a loss, and a folder of another model or a longer run;
    OSError where the folder is in use or cannot be written. However it ends, the model is in the mode it was in.
    """
    run = Run(model, config, folder, processes)
    try:
        data = source(run.batches + processes.rank, processes.world)
        for step in trange(run.step, config.steps, initial=run.step, total=config.steps, disable=not progress):
            model.train()
            for group in run.optimizer.param_groups:
                group["lr"] = group["speed"] * learning_rate(config, step)
            parts = take(data, config.accumulate, step)
            done = train_step(run.forward, run.optimizer, parts, config.clip, config.precision, run.scaler, processes)
            run.record(*done)
            if evaluate and due(run.step, config.evaluate_every, config.steps, powers=config.evaluate_every > 0):
                with keep_dice(processes.device):
                    run.judge(processes.share(evaluate(model)))
                    watch(run)
            last = processes.sum(float(stop())) > 0 or run.step == config.steps
            if last or run.is_best() or due(run.step, config.save_every, config.steps, powers=config.ladder):
                run.save()
            if last:
                break
    except FloatingPointError as error:
        raise FloatingPointError(run.diverged(error)) from None
    finally:
        run.close()
    return run


def due(step: int, every: int, steps: int, powers: bool = False) -> bool:
    """Whether something that is done every so many steps (0: only at the end) is to be done after this one."""
    return step == steps or (every > 0 and step % every == 0) or (powers and step & (step - 1) == 0)


def take(data: Iterator[tuple[torch.Tensor, torch.Tensor]], n: int, step: int) -> list[Any]:
    """The next n micro-batches. ValueError where there are not so many, TypeError where none can be asked for."""
    if not isinstance(data, Iterator):
        raise TypeError(
            f"a source must return an iterator, which goes on where it was, not a {type(data).__name__}: write yield in"
            " the function, or return iter(...)"
        )
    parts = list(itertools.islice(data, n))
    if len(parts) < n:
        raise ValueError(
            f"the source has run dry: step {step + 1} needs {n} micro-batches and got {len(parts)}; give more data,"
            " fewer steps, or a source that begins anew (TokenBatches does)"
        )
    return parts


def summed_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The surprise at all counted targets together, nats: logits (B, T, V), targets (B, T) -> a number, in float32.

    (float64 stays what it is.) ValueError where the logits are of another shape or vocabulary.
    """
    check_logits(logits, targets)
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(exact.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")


def keep_dice(device: torch.device) -> AbstractContextManager[None]:
    """Inside the `with`, torch's dice may be thrown; afterwards they lie as before."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


class Run:
    """A training under way: the optimiser, what is called in place of the model, and what has been recorded.

    log: a row (dict) for every `log_every` steps with step, tokens, seconds (of CPU), lr, loss (mean over the tokens
    since the row before) and norm (of the last step's gradient); evaluations: a row for each, with its scores. step,
    batches, tokens: how many are done. best, best_step: the lowest loss of an evaluation, and when it was.
    """

    def __init__(
        self, model: nn.Module, config: TrainConfig, folder: str | os.PathLike[str] | None, processes: Processes
    ) -> None:
        check_precision(config.precision, processes)
        if config.recompute and not hasattr(model, "h"):
            raise ValueError("recompute=True needs a model with blocks in a list `h`, as GPT has")
        self.config, self.processes = config, processes
        self.model: Any = model.to(processes.device)
        self.modes = [(module, module.training) for module in model.modules()]
        self.checkpoints = None if folder is None else Checkpoints(folder, processes, config.ladder)
        try:
            if self.checkpoints:
                self.checkpoints.claim()
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        model = self.model
        if self.config.recompute:
            recompute_blocks(model)
        self.forward: Any = self.processes.wrap(model)
        self.optimizer = make_optimizer(model, self.config)
        self.scaler = GradScaler(self.processes.device.type, enabled=self.config.precision == "fp16")
        if self.config.compile:
            self.forward = torch.compile(self.forward)
        state = self.checkpoints.load(model, self.optimizer) if self.checkpoints else {}
        self.step, self.tokens, self.seconds = state.get("step", 0), state.get("tokens", 0), state.get("seconds", 0.0)
        self.batches = state.get("batches", self.step * self.config.accumulate * self.processes.world)
        self.best, self.best_step = state.get("best", math.inf), state.get("best_step")
        self.pending: list[float] = state.get("pending", [0.0, 0.0])  # nats and tokens since the last row
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        check_step(self.step, self.config.steps)
        check_same_plan(state.get("config", {}), self.config, self.checkpoints and self.checkpoints.folder)
        folder = self.checkpoints and self.checkpoints.folder
        self.log, self.evaluations = (
            read_rows(folder / name, self.step) if folder else [] for name in ("log.csv", "evaluations.csv")
        )
        self.began = time.process_time()

    @property
    def used(self) -> float:
        """CPU seconds that the training has taken, over all its sessions."""
        return self.seconds + time.process_time() - self.began

    def record(self, loss: float, norm: float, tokens: int) -> None:
        """Take note of a step that is done."""
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.batches += self.config.accumulate * self.processes.world
        self.pending = [self.pending[0] + loss * tokens, self.pending[1] + tokens]
        if due(self.step, self.config.log_every, self.config.steps):
            row = {"step": self.step, "tokens": self.tokens, "seconds": round(self.used, 2)}
            row |= {"lr": learning_rate(self.config, self.step - 1), "loss": self.pending[0] / self.pending[1]}
            self.log.append({**row, "norm": norm})
            self.pending = [0.0, 0.0]

    def judge(self, scores: Mapping[str, float]) -> None:
        """Take note of an evaluation. Errors as of `train` for scores that are none."""
        found = check_scores(scores)
        self.evaluations.append({"step": self.step, "tokens": self.tokens, "seconds": round(self.used, 2), **found})
        if found["loss"] < self.best:
            self.best, self.best_step = found["loss"], self.step

    def is_best(self) -> bool:
        """Whether this step's checkpoint is to be kept as the best so far (where any are saved before the end)."""
        return self.config.save_every > 0 and self.best_step == self.step

    def save(self) -> None:
        """Write a checkpoint and the tables, if the run has a folder."""
        if not self.checkpoints:
            return
        names = ("step", "batches", "tokens", "pending", "best", "best_step")
        state = {**{name: getattr(self, name) for name in names}, "seconds": self.used}
        tables = {"log.csv": table(self.log), "evaluations.csv": table(self.evaluations)}
        state |= {"scaler": self.scaler.state_dict(), "config": asdict(self.config)}
        self.checkpoints.save(self.model, self.optimizer, state, tables)

    def close(self) -> None:
        """Leave the folder to others, and the model in the modes it was in."""
        if self.checkpoints:
            self.checkpoints.close()
        if self.config.recompute:
            recompute_blocks(self.model, on=False)
        for module, mode in self.modes:
            module.training = mode

    def diverged(self, fault: FloatingPointError) -> str:
        """What to say when a step came out as NaN or infinite."""
        kept = self.checkpoints.whole() if self.checkpoints else "no checkpoint was kept, since there is no folder"
        return (
            f"step {self.step + 1}: {fault}; {kept}. Likely causes: lr = {self.config.lr} is too high,"
            f" warmup = {self.config.warmup} is too short, fp16 where bf16 is needed, or damaged weights or data"
        )


if __name__ == "__main__":
    from glassbox.training_command import main

    raise SystemExit(main())
