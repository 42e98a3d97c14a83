"""What do the options of the training loop cost, and what do they save?

    python tests/benchmarks/training_options.py --write tests/benchmarks/training-options.csv
    python tests/benchmarks/training_options.py --smoke    one step of each; writes nothing
    python tests/benchmarks/training_options.py --gpu      on a GPU: GPT-2 (124M), tokens a second and model FLOPs

One model (the preset "tales": four blocks of 128 channels), the same 8 windows of 256 tokens in every step, five ways:
plain float32; bf16 autocast; blocks that are computed again on the way back; compiled; two micro-batches of four. All
are trained side by side, a step of each in turn, so that a busy machine slows them all alike; `time` is the ratio of
the medians of CPU seconds. `memory` is what one forward pass keeps for the way back (`saved_bytes`), against the plain
one. `warmup` is the CPU seconds of the first step above those of a usual one: what compiling takes, its helpers
included. `loss` is the mean loss of the last two steps: ways that only rearrange the work must agree.

The table's figures hold for the machine that they come from: bf16 saves time only where the processor multiplies bf16
itself (`bf16` in the table says whether this one does), and elsewhere costs some.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from glassbox.costs import flops_per_token, saved_bytes
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.lab import dataset
from glassbox.mimetic import mimetic_start
from glassbox.tokenizer import BPETokenizer
from glassbox.training import TrainConfig, autocast, recompute_blocks, train_step
from glassbox.training import make_optimizer as optimizer_for
from studies import command, write

HERE = Path(__file__).resolve().parent
TABLE = HERE / "training-options.csv"
COLUMNS: tuple[str, ...] = ("option", "time", "memory", "warmup", "loss", "steps", "bf16")
OPTIONS = ("float32", "bf16", "recompute", "compile", "accumulate")
B, T, STEPS = 8, 256, 8
PLAN = TrainConfig(lr=2e-3, table_lr=4.5, betas=(0.9, 0.98), weight_decay=0.01)

Batch = tuple[torch.Tensor, torch.Tensor]


def has_bf16() -> bool:
    """Whether this processor multiplies bf16 itself."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def windows(n: int) -> list[Batch]:
    """n batches (X, Y) of B neighbouring windows of the training sample."""
    ids = torch.tensor(BPETokenizer.load().encode(dataset("tales").read_text("utf-8")[: 12_000 * n], "all"))
    rows = ids[: n * B * T + 1]
    return [
        (rows[i * B * T : (i + 1) * B * T].view(B, T), rows[i * B * T + 1 : (i + 1) * B * T + 1].view(B, T))
        for i in range(n)
    ]


@dataclass
class Way:
    """One model, trained with one option."""

    option: str
    config: GPTConfig = field(default_factory=lambda: GPTConfig.preset("tales"))
    device: str = "cpu"
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = mimetic_start(GPT(self.config)).to(self.device)
        if self.option == "recompute":
            recompute_blocks(self.model)
        self.optimizer = optimizer_for(self.model, PLAN)
        for group in self.optimizer.param_groups:
            group["lr"] *= group["speed"]
        self.forward: Any = torch.compile(self.model) if self.option == "compile" else self.model
        self.precision = "bf16" if self.option == "bf16" else "float32"

    def parts(self, batch: Batch) -> list[Batch]:
        X, Y = batch
        return list(zip(X.chunk(2), Y.chunk(2), strict=True)) if self.option == "accumulate" else [batch]

    def step(self, batch: Batch) -> None:
        began = _seconds()
        loss, _, _ = train_step(self.forward, self.optimizer, self.parts(batch), 1.0, self.precision)
        self.seconds.append(_seconds() - began)
        self.losses.append(loss)

    def memory(self, batch: Batch) -> int:
        """Bytes that the forward pass of one micro-batch keeps."""
        X, Y = self.parts(batch)[0]

        def call() -> torch.Tensor:
            with autocast(torch.device(self.device), self.precision):
                logits = self.forward(X)
            return F.cross_entropy(logits.float().flatten(0, 1), Y.flatten())

        return saved_bytes(call, self.model.parameters())


def _seconds() -> float:
    """CPU seconds of this process and of the helpers that it has waited for (compilers)."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def study(options: tuple[str, ...] = OPTIONS, steps: int = STEPS) -> list[dict[str, float | str | int]]:
    """Train all ways side by side and compare them: a row of the table for each."""
    batches = windows(steps)
    ways = [Way(option) for option in options]
    for batch in batches:
        for way in ways:
            way.step(batch)
    usual = [statistics.median(way.seconds[1:] or way.seconds) for way in ways]
    kept = [way.memory(batches[0]) for way in ways]
    return [
        {
            "option": way.option,
            "time": round(took / usual[0], 3),
            "memory": round(bytes_ / kept[0], 3),
            "warmup": round(way.seconds[0] - took, 1),
            "loss": round(sum(way.losses[-2:]) / len(way.losses[-2:]), 4),
            "steps": steps,
            "bf16": str(has_bf16()).lower(),
        }
        for way, took, bytes_ in zip(ways, usual, kept, strict=True)
    ]


def on_gpu(steps: int, peak: float | None) -> None:
    """Print tokens a second of GPT-2 (124M) with each option, and which share of the GPU's peak its FLOPs are."""
    if not torch.cuda.is_available():
        raise SystemExit("training_options: --gpu needs a GPU, and torch finds none here; leave the option out")
    config, size = GPTConfig.preset("gpt2"), (8, 1024)
    dice = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (8, 1025), generator=dice).cuda()
    batch = ids[:, :-1], ids[:, 1:]
    work = 3 * flops_per_token(config, 1024) * size[0] * size[1]  # a step, there and back
    for name, precision in (("float32", "float32"), ("bf16", "bf16"), ("recompute", "bf16"), ("compile", "bf16")):
        way = Way(name, config, "cuda")
        way.precision = precision
        for _ in range(3):
            way.step(batch)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        for _ in range(steps):
            way.step(batch)
        torch.cuda.synchronize()
        took = (time.perf_counter() - began) / steps
        share = f", {work / took / (peak * 1e12):.0%} of the peak" if peak else ""
        memory = torch.cuda.max_memory_allocated() / 2**30
        print(
            f"{name:10} {precision:8} {size[0] * size[1] / took:9,.0f} tokens/s "
            f"{work / took / 1e12:6.1f} TFLOP/s{share}, {memory:.1f} GiB"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = command(__doc__, "one step of each, without compiling")
    parser.add_argument("--gpu", action="store_true", help="measure GPT-2 on a GPU instead")
    parser.add_argument("--peak", type=float, help="with --gpu: the GPU's TFLOP/s in bf16, from its data sheet")
    options = parser.parse_args(arguments)
    if options.gpu:
        on_gpu(20, options.peak)
        return
    rows = study(tuple(o for o in OPTIONS if o != "compile"), 1) if options.smoke else study()
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.write and not options.smoke:
        write(rows, options.write, COLUMNS)


if __name__ == "__main__":
    main(sys.argv[1:])
