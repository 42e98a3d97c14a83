"""What does size buy? Four widths of one GPT, the same recipe, the same texts.

    python tests/benchmarks/scaling_study.py --write tests/benchmarks/scaling-study.csv
    python tests/benchmarks/scaling_study.py --smoke    two steps of each; writes nothing

Two blocks of 24, 48, 96 and 192 channels with heads of 24. Each model reads the same batches in the same order, so
that size alone differs: equal numbers of tokens, and so a larger model also gets more operations, which are in the
table (three times the forward pass, `flops_per_token`). Step size and the deviation of the first numbers fall with the
root of the width, since a layer that adds up more numbers needs smaller ones. All are trained for one thousand steps of
four texts, a small part of what they could use: the study compares beginnings, not what each could become.

A row of the table: the mean loss of the steps since the row before, and at the end the loss of 60 unseen texts, the
recalls that are right, and the floor, which no size can pass: there only the language's own dice are left.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from glassbox.costs import count_parameters, flops_per_token
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.mimetic import mimetic_start
from glassbox.preprocessing import IGNORE
from glassbox.tales_exam import TalesExam
from glassbox.tokenizer import BPETokenizer
from glassbox.training import TrainConfig
from start_study import PLAN, Stock, follow
from studies import Row, command, write

HERE = Path(__file__).resolve().parent
TABLE = HERE / "scaling-study.csv"
COLUMNS = ("width", "parameters", "flops", "step", "tokens", "loss", "unseen", "near", "middle", "far", "floor")
WIDTHS = (24, 48, 96, 192)
STEPS = 1000


def config(width: int) -> GPTConfig:
    return GPTConfig(vocab_size=2048, block_size=256, n_layer=2, n_head=width // 24, n_embd=width)


def plan(width: int) -> TrainConfig:
    lr = 2.5e-3 * math.sqrt(96 / width)
    return replace(PLAN, steps=STEPS, lr=lr, schedule="trapezoid", least=0.02, evaluate_every=0)


def study(width: int, stock: Stock, exam: TalesExam | None, steps: int = STEPS) -> list[Row]:
    """The rows of one width, for the first so many steps."""
    torch.manual_seed(0)
    model = mimetic_start(GPT(config(width)), noise=0.08 * math.sqrt(96 / width))
    counts = [int((Y != IGNORE).sum()) for _, Y in stock.batches]
    lengths = [Y.shape[1] for _, Y in stock.batches]
    rows: list[Row] = []
    tokens = flops = done = 0  # so far
    for row in follow(model, plan(width), stock, exam, steps):
        for i in range(done, int(row["step"])):
            tokens += counts[i % len(counts)]
            flops += 3 * counts[i % len(counts)] * flops_per_token(config(width), lengths[i % len(counts)])
        done = int(row["step"])
        rows.append(
            {"width": width, "parameters": count_parameters(config(width)), "flops": f"{flops:.4g}", "tokens": tokens}
            | row
        )
    if exam:
        rows[-1]["floor"] = exam.floor
    return rows


def fit(sizes: list[float], above: list[float]) -> tuple[float, float]:
    """a and b of above = a size^-b: the straight line through the logarithms, by least squares."""
    slope, start = np.polyfit(np.log(sizes), np.log(above), 1)
    return float(np.exp(start)), -float(slope)


def main(arguments: list[str] | None = None) -> None:
    options = command(__doc__, "two steps of each width").parse_args(arguments)
    tokenizer = BPETokenizer.load()
    stock = Stock(2 if options.smoke else 500, tokenizer)
    exam = TalesExam(tokenizer, 2 if options.smoke else 60, 256)
    rows: list[Row] = []
    ends: dict[int, float] = {}
    for width in WIDTHS:
        began = time.process_time()
        rows += study(width, stock, exam, 2 if options.smoke else STEPS)
        took, size = time.process_time() - began, count_parameters(config(width))
        if "unseen" in rows[-1]:
            ends[size] = float(rows[-1]["unseen"]) - exam.floor
        print(f"width {width:3} {size:9,} parameters {took:4.0f} s  {rows[-1]}", flush=True)
        if options.write and not options.smoke:
            write(rows, options.write, COLUMNS)
    if len(ends) == len(WIDTHS):
        a, b = fit(list(ends), list(ends.values()))
        print(f"above the floor: {a:.3g} N^-{b:.3f}, from {len(ends)} points")


if __name__ == "__main__":
    main(sys.argv[1:])
