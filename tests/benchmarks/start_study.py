"""Does the start decide when a model finds out how to copy? GPT-2's own start against the mimetic one.

    python tests/benchmarks/start_study.py --write tests/benchmarks/start-study.csv
    python tests/benchmarks/start_study.py --smoke    two steps of each; writes nothing

The small GPT of the notebook (two blocks of 96 channels) learns Tiny Tales twice, all else equal: the same texts in
the same order, the same step size, one thread. Once it begins as GPT-2 did (normal numbers of deviation 0.02), once
with `mimetic_start`. The step size is level after its warm-up, so that a longer run would begin with the same steps.

A row of the table: the mean loss of the steps since the row before, and, every 100 steps, the loss of 40 unseen texts
and the share of the words that repeat a fact which the model names right. A perfect model would have the loss `floor`.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from glassbox.gpt2 import GPT, GPTConfig, initialise
from glassbox.mimetic import mimetic_start
from glassbox.tales_exam import TalesExam
from glassbox.tokenizer import BPETokenizer
from glassbox.training import TrainConfig, train
from glassbox.training_data import TalesBatches
from studies import Row, command, write

HERE = Path(__file__).resolve().parent
TABLE = HERE / "start-study.csv"
COLUMNS = ("start", "step", "loss", "unseen", "near", "middle", "far", "floor")

CONFIG = GPTConfig(vocab_size=2048, block_size=256, n_layer=2, n_head=2, n_embd=96)
STARTS: dict[str, Callable[[GPT], object]] = {"gpt2": initialise, "mimetic": mimetic_start}
STEPS, EVERY, LOOK = 1000, 20, 100
TEXTS = 4  # a step
PLAN = TrainConfig(
    steps=STEPS, lr=2e-3, schedule="constant", warmup=50, table_lr=4.5, betas=(0.9, 0.98), weight_decay=0.01,
    evaluate_every=LOOK, log_every=EVERY,
)  # fmt: skip


class Stock:
    """The first n batches of Tiny Tales, written once and read round and round: a source for `train`."""

    def __init__(self, n: int, tokenizer: BPETokenizer, texts: int = TEXTS, block_size: int = 256) -> None:
        self.batches = list(itertools.islice(TalesBatches(tokenizer, texts, block_size)(), n))

    def __call__(self, start: int = 0, every: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return itertools.islice(itertools.cycle(self.batches), start, None, every)


def follow(model: GPT, plan: TrainConfig, stock: Stock, exam: TalesExam | None, steps: int) -> list[dict[str, float]]:
    """Train for the first so many steps of a plan: rows of step, loss and, where there was an exam, its scores."""
    done = itertools.count(1)
    plan = replace(plan, log_every=min(plan.log_every, steps))
    run = train(model, stock, plan, evaluate=exam and exam.score, stop=lambda: next(done) == steps)
    scores = {row["step"]: row for row in run.evaluations}
    rows = []
    for row in run.log:
        seen = scores.get(row["step"], {})
        found = {"unseen": seen["loss"], **{bin: seen[bin] for bin in ("near", "middle", "far")}} if seen else {}
        rows.append({"step": row["step"], "loss": row["loss"], **found})
    return rows


def study(start: str, stock: Stock, exam: TalesExam | None, steps: int = STEPS) -> list[Row]:
    """The rows of one start, for the first so many steps."""
    torch.manual_seed(0)
    model = GPT(CONFIG)
    STARTS[start](model)
    floor: Row = {"floor": exam.floor} if exam else {}
    return [{"start": start, **row, **floor} for row in follow(model, PLAN, stock, exam, steps)]


def main(arguments: list[str] | None = None) -> None:
    options = command(__doc__, "two steps of each start").parse_args(arguments)
    tokenizer = BPETokenizer.load()
    stock = Stock(2 if options.smoke else 500, tokenizer)
    exam = TalesExam(tokenizer, 2 if options.smoke else 40, CONFIG.block_size)
    rows: list[Row] = []
    for start in STARTS:
        began = time.process_time()
        rows += study(start, stock, exam, 2 if options.smoke else STEPS)
        took = time.process_time() - began
        last = {k: v for k, v in rows[-1].items() if isinstance(v, float)} if len(rows) else {}
        print(f"{start:8} {took:5.0f} s  " + "  ".join(f"{k} {v:.3f}" for k, v in last.items()), flush=True)
        if options.write and not options.smoke:
            write(rows, options.write, COLUMNS)


if __name__ == "__main__":
    main(sys.argv[1:])
