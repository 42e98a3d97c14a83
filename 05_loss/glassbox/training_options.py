"""The options of the training command: what they mean, what a run that goes on remembers, and what is refused."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from time import time_ns
from typing import Any, NoReturn

import torch
from glassbox import tales
from glassbox.gpt2 import PRESETS, GPTConfig
from glassbox.processes import Processes
from glassbox.tokenizer import BPETokenizer
from glassbox.training import PRECISIONS, TrainConfig
from glassbox.training_checks import check_precision
from glassbox.training_data import SCORED

__all__ = ["Job", "check_options", "parser", "recall"]

ABOUT = """Train a GPT on Tiny Tales, a text file or a token file, in one process or (started by torchrun) in many.

Everything about a run is in one folder: settings, log.csv, evaluations.csv, samples.jsonl, checkpoints, and in the end
the model. A run that was stopped, killed or out of room goes on with --resume as if nothing had happened.
"""

EXAMPLES = """
examples:
  a small model on Tiny Tales:      python -m glassbox.training --preset tiny --steps 500
  on your own text:                 python -m glassbox.training --data my.txt --block-size 128 --out runs/mine
  go on where a run stopped:        python -m glassbox.training --resume runs/mine
  two processes on one machine:     torchrun --nproc-per-node 2 -m glassbox.training --out runs/two
  each keeps a part of the model:   torchrun --nproc-per-node 2 -m glassbox.training --shard --out runs/parts

Ctrl-C ends a run after the step that is under way, with a checkpoint; a second Ctrl-C ends it at once.
Exit status: 0 done, 1 refused or stopped by a fault, 2 options that are none, 130 stopped by Ctrl-C or SIGTERM.
"""
WORDS = {  # of the options that are fields of TrainConfig
    "steps": "how many steps are taken",
    "lr": "the highest step size",
    "schedule": "how the step size changes",
    "warmup": "steps on the way up",
    "least": "the last step size as a share of --lr",
    "table_lr": "how many times faster the tables learn, whose rows seldom get a gradient",
    "betas": "how long AdamW remembers gradients and their squares",
    "weight_decay": "how fast matrices shrink, as a share of --lr",
    "clip": "the longest gradient; a longer one is made shorter",
    "accumulate": "micro-batches a step, in each process",
    "precision": "of matrix products; parameters stay float32",
    "recompute": "keep less for the way back and compute it again: less memory, more work",
    "compile": "let torch.compile make the model faster; needs a C++ compiler",
    "evaluate_every": "steps from one evaluation to the next, 0 for only at the end",
    "save_every": "steps from one checkpoint to the next, 0 for only at the end",
    "log_every": "steps from one row of log.csv to the next",
    "ladder": "also save at each power of two, and keep these checkpoints",
}
CHOICES = {"schedule": ("cosine", "trapezoid", "constant"), "precision": tuple(PRECISIONS)}
FREE = {  # what may differ when a run goes on: it concerns where and how it runs, not what is computed
    *("resume", "progress", "threads", "device", "shard", "recompute", "compile", "data", "tokenizer"),
    *("evaluate_every", "save_every", "log_every", "samples", "prompt", "sample_tokens"),
}
KEPT = {"processes", "fingerprint"}  # of settings.json beside the options
MOST = 2**63 - 1  # that torch takes for a seed
UNSET: Any = object()


class _Raising(argparse.ArgumentParser):
    """A parser that raises ValueError where others end the program."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """What the command understands."""
    make = kind(
        "python -m glassbox.training",
        usage="%(prog)s [--out FOLDER | --resume FOLDER] [options]",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    one, none = _count(1), _count(0)
    add = make.add_argument_group("the run").add_argument
    add("--out", type=Path, metavar="FOLDER", default=Path("runs/new"), help="a new folder for it (default: runs/new)")
    again = "go on with the run in FOLDER, with its own options; where and how often may differ (" + ", ".join(
        f"--{name.replace('_', '-')}" for name in sorted(FREE - {"resume", "progress"})
    )
    add("--resume", type=Path, metavar="FOLDER", help=again + ", --quiet), and the number of processes too")
    add("--seed", type=none, metavar="N", default=0, help="of start, order of the data and dice (default: 0)")
    add("--quiet", dest="progress", action="store_false", help="no progress bar")
    add = make.add_argument_group("the model").add_argument
    add("--preset", choices=PRESETS, default="tales", help="its sizes (default: tales, 1.1 million parameters)")
    add("--block-size", type=one, metavar="N", help="the longest text in tokens (default: the preset's)")
    add("--dropout", type=float, metavar="X", default=0.0, help="share of numbers dropped (default: 0, for fresh data)")
    add("--start", choices=("gpt2", "mimetic"), default="gpt2", help="how the parameters begin (default: gpt2)")
    add = make.add_argument_group("the data").add_argument
    add("--data", metavar="FILE", default="tales", help="a text or token file (default: tales: new ones all the time)")
    add("--tokenizer", metavar="FOLDER", help="its vocabulary (default: the course's own, of 2,048 tokens)")
    add("--batch-size", type=one, metavar="N", default=8, help="texts or windows in a micro-batch (default: 8)")
    share = f"share of a file kept for scoring, which reads at most {SCORED} micro-batches of it (default: 0.1)"
    add("--validation", type=float, metavar="X", default=0.1, help=share)
    add = make.add_argument_group("evaluation").add_argument
    add("--exam", type=one, metavar="N", default=100, help="unseen tales that are scored (default: 100)")
    add("--samples", type=none, metavar="N", default=1, help="texts that the model writes each time (default: 1)")
    add("--prompt", metavar="TEXT", default="", help="how they begin (default: with nothing)")
    add("--sample-tokens", type=one, metavar="N", help="their length (default: 160, or what fits into the block)")
    add = make.add_argument_group("where it runs").add_argument
    add("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    add("--threads", type=one, metavar="N", help="of torch (default: its own choice; other sums, other last digits)")
    both = argparse.BooleanOptionalAction
    add("--shard", action=both, default=False, help="each process keeps only a part of the model (FSDP2)")
    _add_plan(make.add_argument_group("training"))
    return make


def _add_plan(group: Any) -> None:
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    for name, default in {**defaults, "evaluate_every": 200, "save_every": 200, "warmup": None}.items():
        option, words = f"--{name.replace('_', '-')}", WORDS[name]
        told = "100, or a tenth of a short run" if name == "warmup" else default
        if isinstance(default, bool):
            group.add_argument(option, action=argparse.BooleanOptionalAction, default=default, help=words)
        elif isinstance(default, tuple):
            words += f" (default: {default[0]} {default[1]})"
            group.add_argument(option, type=float, nargs=2, metavar="X", default=list(default), help=words)
        else:
            kind = {float: float, str: str}.get(type(default), _count(int(name in ("steps", "accumulate"))))
            metavar = None if name in CHOICES else "X" if kind is float else "N"
            group.add_argument(
                option,
                type=kind,
                default=default,
                choices=CHOICES.get(name),
                metavar=metavar,
                help=f"{words} (default: {told})",
            )


def _count(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        number = int(text)
        if not least <= number <= MOST:
            limit = f"{least} or more" if number < least else f"{MOST} or less"
            raise argparse.ArgumentTypeError(f"must be {limit}, not {number}")
        return number

    whole.__name__ = "whole number"  # which argparse puts into its error
    return whole


def recall(options: argparse.Namespace, given: Sequence[str]) -> argparse.Namespace:
    """The options that the run was started with. ValueError where others are given beside --resume."""
    path = options.resume / "settings.json"
    if not path.is_file():
        raise ValueError(f"{options.resume} holds no run to go on with: {path} is missing")
    try:
        known = _check_settings(json.loads(path.read_text("utf-8-sig")))  # some editors put a mark before the text
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): mend it, it is plain JSON") from None
    marked = argparse.Namespace(**{name: UNSET for name in vars(options)})
    explicit = {name: value for name, value in vars(parser().parse_args(given, marked)).items() if value is not UNSET}
    for name, value in explicit.items():
        if name == "out" and value != options.resume:
            raise ValueError(f"--out {value} is not used with --resume: {options.resume} is gone on with; leave it out")
        if name not in {*FREE, "out"} and value != known[name]:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} was {known[name]} when the run began, and cannot be {value}: leave {option} out"
            )
    free = {name: value for name, value in explicit.items() if name in FREE}
    fresh = {"progress": options.progress, "threads": options.threads, "device": options.device}
    return argparse.Namespace(**{**known, **fresh, **free, "out": options.resume})


def _check_settings(found: Any) -> dict[str, Any]:
    """The settings as options, read by the parser as if they had been typed. ValueError names what it refuses."""
    if not isinstance(found, dict):
        raise ValueError("it holds no settings by name")
    typed = [word for action in parser()._actions for word in _type(action, found)]
    kept = {name: found[name] for name in KEPT & found.keys()}
    if type(count := kept.get("processes", 1)) is not int or count < 1:
        raise ValueError(f"processes must be a whole number from 1, not {count!r}")
    return {**vars(parser(_Raising).parse_args(typed)), **kept}


def _type(action: argparse.Action, found: dict[str, Any]) -> list[str]:
    """How a setting is typed as an option; nothing for one that is missing or not set."""
    option = action.option_strings[0]
    value: Any = found.get(action.dest, action.default)
    if action.dest in ("help", "out", "resume", "progress") or value is action.default:
        return []
    wanted = ""
    if isinstance(action, argparse.BooleanOptionalAction):
        wanted = "" if isinstance(value, bool) else "true or false"
        option = option if value else action.option_strings[1]
    elif action.nargs:
        wanted = "" if isinstance(value, list) else f"a list of {action.nargs} numbers"
    elif action.type in (None, str):
        wanted = "" if isinstance(value, str) else "a text"
    if wanted:
        raise ValueError(f"argument {option}: must be {wanted}, not {value!r}")
    if action.nargs and isinstance(value, list):
        return [option, *map(str, value)]
    return [option] if action.nargs == 0 else [f"{option}={value}"]


@dataclass(frozen=True)
class Job:
    """What the options ask for, checked: nothing has been written yet."""

    options: argparse.Namespace
    tokenizer: BPETokenizer
    config: GPTConfig
    plan: TrainConfig
    prompt: list[int]
    length: int
    fingerprint: str


def check_options(options: argparse.Namespace, processes: Processes) -> Job:
    """Raises ValueError, TypeError or OSError for what cannot be done, before anything is written."""
    _check_places(options)
    tokenizer = BPETokenizer.load(options.tokenizer) if options.tokenizer else BPETokenizer.load()
    if tales.END not in tokenizer.special_tokens:
        raise ValueError(f"the vocabulary in {options.tokenizer} has no {tales.END}, which stands between documents")
    sizes = {"block_size": options.block_size} if options.block_size else {}
    config = GPTConfig.preset(options.preset, vocab_size=tokenizer.vocab_size, dropout=options.dropout, **sizes)
    chosen = {field.name: getattr(options, field.name) for field in fields(TrainConfig)}
    chosen["warmup"] = min(100, options.steps // 10) if options.warmup is None else options.warmup
    chosen["accumulate"] = _share_out(options, processes.world)
    plan = TrainConfig(**{**chosen, "betas": tuple(options.betas)})
    check_precision(plan.precision, processes)
    if plan.compile:
        _check_compiler(processes.device)
    prompt, length = _check_prompt(options, tokenizer, config.block_size)
    job = Job(options, tokenizer, config, plan, prompt, length, _fingerprint(options.data, tokenizer))
    if options.resume and job.fingerprint != vars(options).get("fingerprint", job.fingerprint):
        raise ValueError(f"--data {options.data} or the vocabulary is not what it was when {options.out} began")
    return job


def _check_places(options: argparse.Namespace) -> None:
    """Raises ValueError where the data or the vocabulary is not there, and says how to go on."""
    here = f"there is no such {{}} (looked for from {Path.cwd()})"
    again = "give {} again with its new place: it is known by its content"
    if options.data != "tales" and not Path(options.data).is_file():
        fix = again.format("--data") if options.resume else "give a text file, a token file, or tales"
        raise ValueError(f"--data {options.data}: {here.format('file')}; {fix}")
    if options.tokenizer and not Path(options.tokenizer).exists():
        fix = again.format("--tokenizer") if options.resume else "give the folder of a vocabulary, or leave it out"
        raise ValueError(f"--tokenizer {options.tokenizer}: {here.format('folder')}; {fix}")


def _check_compiler(device: torch.device) -> None:
    """Compile a trifle, since a compiler that is missing shows only at the first step. Raises ValueError."""
    size = 1000 + time_ns() % 100_000  # another one each time: what was compiled once is kept, and needs no compiler
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(size, device=device))
    except Exception as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"--compile: torch.compile does not work here ({cause}): install a C++ compiler such as g++ (on a GPU also"
            " Triton), or go on with --no-compile"
        ) from None


def _check_prompt(options: argparse.Namespace, tokenizer: BPETokenizer, block_size: int) -> tuple[list[int], int]:
    if tales.END in options.prompt:
        raise ValueError(f"--prompt holds {tales.END}, which ends a text: a sample would be over before it began")
    prompt = [tokenizer.special_tokens[tales.END], *tokenizer.encode(options.prompt)]
    room = block_size - len(prompt)
    if (length := options.sample_tokens or max(1, min(160, room))) > room:
        raise ValueError(
            f"the end mark and --prompt take {len(prompt)} of a block of {block_size} tokens: it has room for"
            f" {max(0, room)} more, not for --sample-tokens {length}"
        )
    return prompt, length


def _share_out(options: argparse.Namespace, world: int) -> int:
    """Micro-batches for each process, so that a step has as many as when the run began."""
    joint = options.accumulate * vars(options).get("processes", world)
    if joint % world:
        fit = ", ".join(str(n) for n in range(1, joint + 1) if joint % n == 0)
        raise ValueError(f"a step of this run has {joint} micro-batches, too uneven for {world} processes: start {fit}")
    return joint // world


def _fingerprint(data: str, tokenizer: BPETokenizer) -> str:
    """A hash of what is read: of the file, or of one tale, and of the vocabulary."""
    if data == "tales":
        digest = hashlib.sha256(tales.write(0).text.encode())
    else:
        with open(data, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    digest.update(tokenizer.fingerprint.encode())
    return digest.hexdigest()
