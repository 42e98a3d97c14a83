"""What do memory and time of attention grow with, when a text gets longer?

    python tests/benchmarks/attention_memory.py           measures (about three minutes) and writes attention-memory.csv

Three ways to compute the same: `attention` with its whole matrix, `flash_attention` tile by tile, and PyTorch's
scaled_dot_product_attention. Four heads of 64 channels, one text, float32, one thread; every token looks at all.

Memory is the peak of what torch's allocator hands out during the call, less what stood before: queries, keys and
values do not count, results and gradients do. It is the same in every run. Times are CPU seconds, the median of
rounds with all sides in turn; one round where a call takes long.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from glassbox.attention import attention
from glassbox.flash import flash_attention
from run import cpu_seconds, one_thread
from run import seconds as seconds_of

HERE = Path(__file__).resolve().parent
TABLE = HERE / "attention-memory.csv"
COLUMNS = ("what", "pass", "T", "MB", "CPU seconds")
Row = tuple[str, str, int, float, float]

HEADS, HEAD_SIZE = 4, 64
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
ROUNDS = 3
LONG = 5.0  # seconds: a call that takes this long is measured once
PASSES = ("forward", "forward and backward")
SIDES: dict[str, Callable[..., torch.Tensor]] = {
    "attention": attention,
    "flash_attention": flash_attention,
    "scaled_dot_product_attention": F.scaled_dot_product_attention,
}


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made during a call take up at one time."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as found:
        call()
    profiler: Any = found.profiler
    now = peak = 0
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":  # bytes handed out, or below zero: given back
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def calls(T: int, backward: bool) -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, HEADS, T, HEAD_SIZE, generator=generator, requires_grad=backward) for _ in range(3)]
    gradient = torch.randn(inputs[0].shape, generator=generator)

    def call(side: Callable[..., torch.Tensor]) -> object:
        result = side(*inputs)
        return torch.autograd.grad(result, inputs, gradient) if backward else result

    return {what: lambda side=side: call(side) for what, side in SIDES.items()}


def measure(lengths: Iterable[int] = LENGTHS) -> Iterator[Row]:
    for T in lengths:
        for kind in PASSES:
            sides = calls(T, kind != PASSES[0])
            seconds = in_turn(sides)
            for what, side in sides.items():
                yield what, kind, T, peak_bytes(side) / 1e6, seconds[what]


def in_turn(sides: dict[str, Callable[[], object]], round_seconds: float = 0.1) -> dict[str, float]:
    """The median CPU seconds of each side; the first call warms up."""
    first = {what: cpu_seconds(side, 1) for what, side in sides.items()}
    times: dict[str, list[float]] = {what: [] for what in sides}
    for round_number in range(ROUNDS):
        for what, side in sides.items():
            if first[what] < LONG or not round_number:
                times[what].append(cpu_seconds(side, max(1, round(round_seconds / first[what]))))
    return {what: statistics.median(found) for what, found in times.items()}


def write(rows: Iterable[Row], path: Path = TABLE) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((what, kind, T, f"{memory:.4g}", f"{time:.4g}") for what, kind, T, memory, time in rows)


def read(path: Path = TABLE) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            (row["what"], row["pass"], int(row["T"]), float(row["MB"]), float(row["CPU seconds"]))
            for row in csv.DictReader(file)
        ]


def main() -> None:
    one_thread()
    rows = []
    for row in measure():
        what, kind, T, memory, time = row
        print(f"{T:6,} {kind:22} {what:30} {memory:10.2f} MB {seconds_of(time):>10}", flush=True)
        rows.append(row)
    write(rows)


if __name__ == "__main__":
    sys.exit(main())
