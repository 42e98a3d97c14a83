"""Who learns, and at which learning rate: pre-norm or post-norm, with a warm-up or without?

    python tests/benchmarks/norm_order.py            trains (about five minutes) and writes norm-order.csv
    python tests/benchmarks/norm_order.py --smoke    ten steps of each kind; writes nothing

A GPT of 6 blocks and 64 channels learns Tiny Tales from the start of 2017 (`glorot`): 300 steps of 8 windows of 64
tokens, by Adam, on one thread. Each of the four combinations is trained at the learning rate 0.003 with three seeds,
a seed standing for the first numbers and the order of the windows, and at a lower and a higher rate with one.

A row of the table is the mean loss of ten steps, the last of which it names.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glassbox.depth import build, train_short
from glassbox.gpt2 import GPTConfig
from glassbox.lab import dataset
from glassbox.tokenizer import BPETokenizer
from run import one_thread

HERE = Path(__file__).resolve().parent
TABLE = HERE / "norm-order.csv"
COLUMNS = ("order", "warmup", "lr", "seed", "step", "loss")

CONFIG = GPTConfig(vocab_size=2048, block_size=64, n_layer=6, n_head=4, n_embd=64)
ORDERS, WARMUPS = ("post", "pre"), (0, 100)
SEEDS = {3e-3: 3, 1e-3: 1, 1e-2: 1}  # of each learning rate
STEPS, EVERY = 300, 10


@dataclass(frozen=True)
class Run:
    """One training."""

    order: str
    warmup: int
    lr: float
    seed: int


def runs() -> Iterator[Run]:
    for lr, seeds in SEEDS.items():
        for seed in range(seeds):
            yield from (Run(order, warmup, lr, seed) for order in ORDERS for warmup in WARMUPS)


def corpus() -> list[int]:
    return BPETokenizer.load().encode(dataset("tales").read_text(encoding="utf-8"), "all")


def train(run: Run, ids: list[int], steps: int = STEPS) -> list[float]:
    """The mean loss of every ten steps."""
    model = build(CONFIG, run.order, run.seed)
    losses = train_short(model, ids, run.lr, run.warmup, steps, seed=run.seed)
    return [sum(losses[i : i + EVERY]) / EVERY for i in range(0, steps, EVERY)]


def write(curves: dict[Run, list[float]], path: Path = TABLE) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run, losses in curves.items():
            for i, loss in enumerate(losses, 1):
                writer.writerow((run.order, run.warmup, f"{run.lr:g}", run.seed, i * EVERY, f"{loss:.4f}"))


def read(path: Path = TABLE) -> dict[Run, list[float]]:
    curves: dict[Run, list[float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            run = Run(row["order"], int(row["warmup"]), float(row["lr"]), int(row["seed"]))
            curves.setdefault(run, []).append(float(row["loss"]))
    return curves


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="ten steps of each kind")
    options = parser.parse_args(arguments)
    one_thread()
    ids, curves = corpus(), {}
    for run in list(runs())[: 4 if options.smoke else None]:
        began = time.process_time()
        curves[run] = train(run, ids, EVERY if options.smoke else STEPS)
        name = f"{run.order:4} warm-up {run.warmup:3} lr {run.lr:<5g} seed {run.seed}"
        took = time.process_time() - began
        print(f"{name}: first {curves[run][0]:.3f} last {curves[run][-1]:.3f} {took:5.1f} s", flush=True)
        if not options.smoke:
            write(curves)


if __name__ == "__main__":
    main(sys.argv[1:])
