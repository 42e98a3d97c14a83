"""The command `python -m glassbox.training`: trains a GPT and shows how it comes along.

Its options are in `glassbox.training_options`. What it needs is opened and checked before it writes anything, and what
one process decides (a folder that is refused, a text that is too short, Ctrl-C) all of them do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from glassbox.generation import generate
from glassbox.gpt2 import GPT
from glassbox.loss import mean_loss
from glassbox.mimetic import mimetic_start
from glassbox.processes import OtherProcessError, Processes, join
from glassbox.sampling import sampler, top_p
from glassbox.tales_exam import TalesExam
from glassbox.training import Run, train
from glassbox.training_data import OWN, SCORED, Source, TalesBatches, TokenBatches, open_tokens
from glassbox.training_options import Job, check_options, parser, recall
from glassbox.training_state import Checkpoints
from glassbox.training_tables import PARTIAL, write_atomically
from safetensors.torch import save_file
from tqdm import tqdm

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 refused or stopped by a fault, 130 stopped by Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    rank = int(os.environ.get("RANK", "0"))
    told = int(os.environ.get("LOCAL_RANK", "0")) == 0  # before they have joined, one process of each machine speaks
    try:
        if options.resume:
            options = recall(options, given)
        with join(options.device, options.shard) as processes:
            told = True
            return run(options, processes)
    except OtherProcessError:
        return 1  # that one has said what was wrong
    except KeyboardInterrupt:
        if rank == 0:
            kept = (options.out / "settings.json").exists()
            _tell(f"stopped at once; {f'go on with: {_again(options.out)}' if kept else 'nothing was written'}")
        return 130
    except (ValueError, TypeError, OSError, FloatingPointError, torch.OutOfMemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            error = "the GPU's memory is full: try --recompute, --precision bf16, --shard, or a smaller --batch-size"
        if rank == 0 or (told and not isinstance(error, FloatingPointError)):  # which is found by all of them
            _tell(f"{f'process {rank}: ' if rank else ''}{error}")
        return 1


def run(options: argparse.Namespace, processes: Processes) -> int:
    """Train as the options say."""
    say = _say if processes.rank == 0 else lambda line: None
    if options.threads:
        torch.set_num_threads(options.threads)
    out = options.out
    if options.resume and processes.share(_is_finished(options)):  # which needs no data any more
        say(f"the run in {out} is finished: all {options.steps:,} steps are done, and the model is {_model(out)}")
        return 0
    job = processes.together(lambda: check_options(options, processes))
    plan = job.plan
    source, score = open_run(job, processes)
    torch.manual_seed(options.seed)
    model = GPT(job.config)
    if options.start == "mimetic":
        mimetic_start(model)
    torch.manual_seed(options.seed + 1_000_003 * processes.rank)  # each process has dice of its own, for dropout
    n, kind = sum(p.numel() for p in model.parameters()), "FSDP2" if processes.shard else "DDP"
    place = f"{processes.world} processes ({kind})" if processes.world > 1 else "one process"
    say(f"{n:,} parameters, {plan.steps:,} steps, {place} on {processes.device.type}, all about it in {out}")
    watch = _watcher(job, processes, say)
    with _on_interrupt(processes.rank) as stopped:
        done = train(model, source, plan, out, score, processes, options.progress and say is _say, watch, stopped)
    say(f"{done.step:,} of {plan.steps:,} steps, {done.tokens:,} tokens, {done.used:,.0f} CPU seconds")
    if done.step < plan.steps:
        say(f"stopped; go on with: {_again(out)}")
        return 130
    weights = processes.whole(model)
    processes.together(lambda: None if processes.rank else keep_model(out, weights))
    say(f"the model is {_model(out)}")
    return 0


def _is_finished(options: argparse.Namespace) -> bool:
    steps = Checkpoints(options.out).steps() or [0]
    return steps[-1] == options.steps and (options.out / "model.safetensors").exists()


def open_run(job: Job, processes: Processes) -> tuple[Source, Callable[[nn.Module], dict[str, float]]]:
    """What the run reads and how it is scored. A new run gets its folder and settings, if all that can be had."""
    first = open_data if job.options.resume else lambda job: begin(job, processes)
    processes.together(lambda: None if processes.rank else first(job))  # one writes what is missing, then all read it
    return processes.together(lambda: open_data(job))


def begin(job: Job, processes: Processes) -> None:
    """Claim the folder, and write token files and settings to it. Where that fails, all of that is removed again."""
    out = job.options.out
    check_free(job.options)  # before the claim too, which a run at work in the folder could take for a rival
    made, place = not out.exists(), Checkpoints(out)
    place.claim()
    before = set(os.listdir(out))
    try:
        check_free(job.options)
        open_data(job)
        write_atomically(out / "settings.json", json.dumps(_settings(job, processes), indent=1) + "\n")
    except BaseException:
        for name in set(os.listdir(out)) - before:
            if OWN.fullmatch(name):
                (out / name).unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):  # somebody has put a file there
                out.rmdir()
        raise
    finally:
        place.close()


def check_free(options: argparse.Namespace) -> None:
    """Raises FileExistsError where the folder holds more than this command, killed while it wrote ids, has left."""
    out = options.out
    if not out.exists():
        return
    if (out / "settings.json").exists():
        raise FileExistsError(
            f"{out} holds a run already: go on with it (--resume {shlex.quote(str(out))}) or choose another --out"
        )
    foreign = not out.is_dir()
    for path in [] if foreign else out.iterdir():
        left = options.data != "tales" and OWN.fullmatch(path.name) and not path.samefile(options.data)
        foreign = foreign or not (left or path.name == ".lock" or path.name.startswith(PARTIAL))
    if foreign:
        raise FileExistsError(f"{out} holds files: choose another --out")


def open_data(job: Job) -> tuple[Source, Callable[[nn.Module], dict[str, float]]]:
    """Where the micro-batches come from, and how a model is scored."""
    options, block_size = job.options, job.config.block_size
    if options.data == "tales":
        exam = TalesExam(job.tokenizer, options.exam, block_size)
        return TalesBatches(job.tokenizer, options.batch_size, block_size, 11 + options.seed), exam.score
    data = open_tokens(options.data, job.tokenizer, block_size, options.out, options.validation, options.seed)
    held = TokenBatches(data[1], options.batch_size)
    return TokenBatches(data[0], options.batch_size, options.seed), lambda model: {
        "loss": mean_loss(model, held.once(SCORED))
    }


def _settings(job: Job, processes: Processes) -> dict[str, Any]:
    kept = {name: value for name, value in vars(job.options).items() if name not in ("out", "resume", "progress")}
    try:
        course = version("glassbox-course")
    except PackageNotFoundError:  # read from the checkout
        course = None
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "glassbox-course": course}
    own = {"warmup": job.plan.warmup, "processes": processes.world, "fingerprint": job.fingerprint}
    return {**kept, **own, "config": asdict(job.config), "versions": versions}


def keep_model(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write the parameters, by GPT's own names, to one file, which is whole or not there."""
    aside = folder / ".partial-model"
    try:
        save_file(weights, aside)
        os.replace(aside, folder / "model.safetensors")
    finally:
        aside.unlink(missing_ok=True)


# --- what the user sees ---


def _watcher(job: Job, processes: Processes, say: Callable[[str], None]) -> Callable[[Run], None]:
    def watch(run: Run) -> None:
        scores = {k: v for k, v in run.evaluations[-1].items() if k not in ("step", "tokens", "seconds")}
        say(f"step {run.step:,}  " + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        if processes.rank == 0 or processes.shard:  # for a model in parts all must be at work
            texts = write_samples(run.model, job, processes)
            if texts and processes.rank == 0:
                keep_samples(job.options.out / "samples.jsonl", run.step, texts)
            for text in texts:
                say(f"--- a sample ---\n{text}")

    return watch


def write_samples(model: GPT, job: Job, processes: Processes) -> list[str]:
    """Texts of the model as it is; the training's dice are left alone."""
    end, texts = job.prompt[0], []
    ids = torch.tensor([job.prompt], device=processes.device)
    for number in range(job.options.samples):
        draw = sampler(top_p(0.95), generator=torch.Generator(processes.device).manual_seed(number))

        def choose(logits: torch.Tensor, ids: torch.Tensor, draw: Any = draw) -> torch.Tensor:
            chosen = draw(logits, ids)  # of a model in parts all must read the same token next
            return torch.tensor(processes.share(chosen.tolist()), device=ids.device) if processes.shard else chosen

        new = generate(model, ids, job.length, choose, end=end)[0].tolist()[1:]
        texts.append(job.tokenizer.decode(new[: new.index(end)] if end in new else new))
    return texts


def keep_samples(path: Path, step: int, texts: list[str]) -> None:
    """Add the samples of a step to the file; those of this step and later ones, of a run that was stopped, give way."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    rows = [row for row in rows if row["step"] < step] + [{"step": step, "text": text} for text in texts]
    write_atomically(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


@contextlib.contextmanager
def _on_interrupt(rank: int = 0) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and a polite kill end the run after the step that is under way, with a checkpoint."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        if not asked and rank == 0:
            with contextlib.suppress(OSError):  # not through sys.stderr, which may be at work when the signal comes
                os.write(2, b"\nstopping after this step, with a checkpoint; Ctrl-C again stops at once\n")
        asked.append(number)

    names = ("SIGINT", "SIGTERM", "SIGBREAK") if threading.current_thread() is threading.main_thread() else ()
    kinds = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {kind: signal.signal(kind, ask) for kind in kinds}
    try:
        yield lambda: bool(asked)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler or signal.SIG_DFL)


def _again(folder: Path) -> str:
    local = os.environ.get("LOCAL_WORLD_SIZE")
    start = f"torchrun --nproc-per-node {local}" if local else "python"
    return f"{start} -m glassbox.training --resume {shlex.quote(str(folder))}"


def _model(folder: Path) -> str:
    return f"in {folder / 'model.safetensors'}"


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stdout)  # above the progress bar, if there is one
    sys.stdout.flush()


def _tell(line: str) -> None:
    sys.stderr.write(f"glassbox.training: {line}\n")
