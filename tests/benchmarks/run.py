"""Benchmarks: `python start.py bench [names]` runs bench_*.py here and writes RESULTS.md, a section for each.

A script defines `cases(smoke: bool)`, which returns `Case`s:

    from run import Case

    def cases(smoke: bool) -> list[Case]:
        size = 10 if smoke else 1000
        ours, peer = lambda: size * (size - 1) // 2, lambda: sum(range(size))
        return [Case(work="sum of a range", ours=ours, peer=peer, peer_name="sum", goal=2.0)]

Both sides run in turn in one process, at least five rounds, on one torch thread; a round repeats a short call until
it lasts long enough to be measured. Times are CPU seconds, the ratio is the peer's median divided by ours (2 means that
ours takes half the time), and `goal` is the least ratio wanted. `same` may compare the two results: a wrong answer is
no benchmark. With smoke=True a script makes its work tiny; one short round then only shows that it runs.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import importlib.util
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

HERE = Path(__file__).resolve().parent
ROUNDS = 5
ROUND_SECONDS = 0.2


@dataclass(frozen=True)
class Case:
    """One comparison: our callable, and the peer's where there is one."""

    work: str
    ours: Callable[[], Any]
    peer: Callable[[], Any] | None = None
    peer_name: str = "-"
    goal: float | None = None
    same: Callable[[Any, Any], bool] | None = None


@dataclass(frozen=True)
class Row:
    """One measured comparison; seconds are CPU seconds of one call."""

    work: str
    ours: float
    peer_name: str = "-"
    peer: float | None = None
    low: float | None = None
    high: float | None = None
    goal: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else self.peer / self.ours

    @property
    def verdict(self) -> str:
        if self.goal is None or self.ratio is None:
            return "-"
        return "reached" if self.ratio >= self.goal else "missed"


def cpu_seconds(call: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of one call, averaged over `repeats`, the garbage collector at rest."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        started = time.process_time()
        for _ in range(repeats):
            call()
        return max((time.process_time() - started) / repeats, 1e-9)
    finally:
        if was_on:
            gc.enable()


def measure(case: Case, rounds: int = ROUNDS, round_seconds: float = ROUND_SECONDS) -> Row:
    """Both sides in turn; the first calls warm up, check the answers and say how often a round repeats."""
    sides = [case.ours] if case.peer is None else [case.ours, case.peer]
    answers = [side() for side in sides]
    if case.same is not None and len(answers) == 2 and not case.same(*answers):
        raise ValueError(f"{case.work}: ours and {case.peer_name} give different answers, so their times say nothing")
    repeats = [max(1, round(round_seconds / cpu_seconds(side, 1))) if round_seconds else 1 for side in sides]
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for i, side in enumerate(sides):
            times[i].append(cpu_seconds(side, repeats[i]))
    ours = statistics.median(times[0])
    if case.peer is None:
        return Row(case.work, ours, goal=case.goal)
    ratios = [peer / own for own, peer in zip(*times, strict=True)]
    return Row(case.work, ours, case.peer_name, statistics.median(times[1]), min(ratios), max(ratios), case.goal)


def scripts(names: list[str] | None = None, folder: Path = HERE) -> list[Path]:
    found = sorted(folder.glob("bench_*.py"))
    for name in names or []:
        if not any(name in path.stem for path in found):
            raise SystemExit(
                f"No benchmark's name holds {name!r}; there are: {', '.join(p.stem for p in found) or 'none'}."
            )
    return [path for path in found if not names or any(name in path.stem for name in names)]


def load(path: Path) -> ModuleType:
    sys.modules.setdefault("run", sys.modules[__name__])  # a script's `from run import Case` means this file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_script(path: Path, smoke: bool) -> list[Row]:
    found = list(load(path).cases(smoke))
    if not found:
        raise ValueError(f"{path.name}: cases() returned no case")
    return [measure(case, rounds=1, round_seconds=0) if smoke else measure(case) for case in found]


def one_thread() -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


def machine() -> str:
    """The processor, without the machine's name."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("torch", "numpy", "transformers", "tokenizers", "tiktoken", "peft"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


INTRODUCTION = """\
# Benchmark results

Written by `python start.py bench`; `python start.py bench attention` renews one section. Both sides run in turn in one
process; times are medians of CPU seconds on one torch thread; the ratio is the peer's time divided by ours, with its
range over the rounds.
"""


def section(rows: list[Row]) -> str:
    """What one script measured, as Markdown: when, where, with which versions, and a table."""
    lines = [
        f"Measured on {datetime.date.today().isoformat()} with {machine()}; {versions()}.",
        "",
        "| work | ours | peer | peer's time | ratio | range | goal | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peer = seconds(row.peer) if row.peer is not None else "-"
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
        spread = f"{row.low:.2f} to {row.high:.2f}" if row.low is not None and row.high is not None else "-"
        goal = f"{row.goal:g}" if row.goal is not None else "-"
        cells = (row.work, seconds(row.ours), row.peer_name, peer, ratio, spread, goal, row.verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def sections(text: str) -> dict[str, str]:
    """The sections of a results file by their headings."""
    parts = re.split(r"(?m)^## (.+)\n\n", text)[1:]
    return {heading: body.rstrip("\n") + "\n" for heading, body in zip(parts[::2], parts[1::2], strict=True)}


def heading(path: Path) -> str:
    return path.stem.removeprefix("bench_")


def main(arguments: list[str], folder: Path = HERE) -> int:
    parser = argparse.ArgumentParser(prog="python start.py bench", description="Run the benchmarks.")
    parser.add_argument(
        "names", nargs="*", help="parts of script names (default: all); other sections stay as they are"
    )
    chosen = parser.parse_args(arguments)
    one_thread()
    results = folder / "RESULTS.md"
    found = sections(results.read_text(encoding="utf-8")) if results.exists() else {}
    if not scripts(chosen.names, folder):
        print("There is no benchmark in tests/benchmarks/ yet.")
        return 1
    for path in scripts(chosen.names, folder):
        print(f"running {path.name} ...", flush=True)
        found[heading(path)] = section(run_script(path, smoke=False))
        print(found[heading(path)])
        kept = [heading(other) for other in scripts(folder=folder) if heading(other) in found]
        results.write_text(
            "\n".join([INTRODUCTION, *(f"## {name}\n\n{found[name]}" for name in kept)]), encoding="utf-8"
        )
    print("Wrote tests/benchmarks/RESULTS.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
