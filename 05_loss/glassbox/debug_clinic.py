"""The debug clinic: one sound training, and five with a line that is wrong. Nothing raises; only the curves tell.

    python -m glassbox.debug_clinic tests/benchmarks/debug-clinic.csv     # about seven minutes of one processor core

The notebook draws the table that this command wrote, and a test repeats its first steps. Whoever reads on sees which
line is wrong in which run: try to tell it from the curves first (notebook, section 4).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from glassbox.generation import evaluating
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.mimetic import mimetic_start
from glassbox.preprocessing import IGNORE
from glassbox.tokenizer import BPETokenizer
from glassbox.training import TrainConfig, make_optimizer
from glassbox.training_data import TalesBatches

__all__: list[str] = []  # nothing that another module would import

STEPS, EVERY = 500, 20
RUNS = {
    "sound": "nothing",
    "A": "softmax before cross_entropy",
    "B": "lr in the wrong unit",
    "C": "y not shifted",
    "D": "eval mode missing",
    "E": "no zero_grad",
}


def training(fault: str, steps: int = STEPS) -> list[tuple[int, float, float]]:
    """One run: every 20 steps the step, the mean loss of these 20 and the loss on texts held back, nats a token."""
    torch.manual_seed(0)
    model = mimetic_start(GPT(GPTConfig.preset("tiny", dropout=0.3)))  # a start that learns sooner: section 7
    model.train()
    lr = 3.0 if fault == "lr in the wrong unit" else 0.003  # somebody thought in thousandths
    optimizer = make_optimizer(model, TrainConfig(lr=lr, table_lr=4.0, weight_decay=0.01, betas=(0.9, 0.98)))
    for group in optimizer.param_groups:
        group["lr"] *= group["speed"]  # the tables learn four times faster
    tokenizer = BPETokenizer.load()
    held_back = list(itertools.islice(TalesBatches(tokenizer, 8, 256, seed=99)(), 4))
    rows, losses = [], []
    for step, (X, Y) in zip(range(1, steps + 1), TalesBatches(tokenizer, 8, 256)(), strict=False):
        loss = loss_of(model, X, Y, fault)
        if fault != "no zero_grad":
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % EVERY == 0:
            rows.append((step, sum(losses[-EVERY:]) / EVERY, evaluate(model, held_back, fault)))
    return rows


def loss_of(model: GPT, X: torch.Tensor, Y: torch.Tensor, fault: str) -> torch.Tensor:
    """The mean loss over the targets (B, T) that count."""
    logits = model(X)  # (B, T, V)
    if fault == "softmax before cross_entropy":
        logits = logits.softmax(dim=-1)
    if fault == "y not shifted":
        Y = torch.where(Y == IGNORE, IGNORE, X)
    return F.cross_entropy(logits.flatten(0, 1), Y.flatten(), ignore_index=IGNORE)


@torch.no_grad()
def evaluate(model: GPT, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], fault: str) -> float:
    """The loss on batches that the model has not learned from."""
    with contextlib.nullcontext() if fault == "eval mode missing" else evaluating(model):
        found = [(loss_of(model, X, Y, fault).item(), int((Y != IGNORE).sum())) for X, Y in batches]
    return sum(loss * n for loss, n in found) / sum(n for _, n in found)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: trains all runs and writes their table."""
    parser = argparse.ArgumentParser(prog="python -m glassbox.debug_clinic", description=str(__doc__).split("\n")[0])
    parser.add_argument("path", type=Path, help="where to write the table")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = []
    for name, fault in RUNS.items():
        lines += [
            [name, step, f"{loss:.4f}", f"{held_back:.4f}"] for step, loss, held_back in training(fault, options.steps)
        ]
        sys.stdout.write(f"run {name} is done\n")
    with open(options.path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["run", "step", "loss", "held_back"], *lines])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
