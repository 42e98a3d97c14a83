"""How much memory does a training step of GPT-2 take, beside transformers' model with the same weights?

    python tests/benchmarks/gpt2_memory.py               measures (about a minute) and writes gpt2-memory.csv

124 million parameters, 2 texts of 256 tokens, float32, the fused AdamW and no dropout on both sides. Three figures, in
bytes of tensors, which are the same in every run: what autograd keeps between forward and backward; the most that the
step takes at one time beyond weights and optimiser state (so activations, logits and gradients); and all together.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from attention_memory import peak_bytes
from bench_gpt2 import FULL, losses
from glassbox.costs import saved_bytes
from glassbox.gpt2 import GPTConfig
from run import one_thread

TABLE = Path(__file__).resolve().parent / "gpt2-memory.csv"
COLUMNS = ("side", "kept for backward MB", "step MB", "all MB")
Row = tuple[str, float, float, float]


def measure(config: GPTConfig = FULL, B: int = 2, T: int = 256) -> list[Row]:
    ours, theirs, our_loss, their_loss = losses(config, B, T)
    return [row("glassbox", ours, our_loss), row("transformers", theirs, their_loss)]


def row(side: str, model: Any, loss: Any) -> Row:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss().backward()
        optimiser.step()

    step()  # from here on the optimiser has its state
    optimiser.zero_grad(set_to_none=True)
    kept = saved_bytes(loss, model.parameters())
    most = peak_bytes(step)
    states = [part.nbytes for state in optimiser.state.values() for part in state.values()]
    stands = sum(parameter.nbytes for parameter in model.parameters()) + sum(states)
    return side, kept / 1e6, most / 1e6, (stands + most) / 1e6


def write(rows: Iterable[Row], path: Path = TABLE) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((side, *(f"{figure:.5g}" for figure in figures)) for side, *figures in rows)


def read(path: Path = TABLE) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(line[0], float(line[1]), float(line[2]), float(line[3])) for line in list(csv.reader(file))[1:]]


def main() -> None:
    one_thread()
    rows = measure()
    for side, *figures in rows:
        print(f"{side:14}", *(f"{what}: {figure:9,.1f}" for what, figure in zip(COLUMNS[1:], figures, strict=True)))
    print("ratios        ", *(f"{ours / theirs:.3f}" for ours, theirs in zip(rows[0][1:], rows[1][1:], strict=True)))
    write(rows)


if __name__ == "__main__":
    sys.exit(main())
