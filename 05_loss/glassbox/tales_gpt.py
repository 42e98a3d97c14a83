"""The course's own model, `data/tales-gpt`: its files in Hugging Face's layout, and the command that writes them.

    python -m glassbox.tales_gpt RUN        writes the model of a run of `python -m glassbox.training`, and its card
    python -m glassbox.tales_gpt --card     scores the model that is there anew, and writes scores and card
    python -m glassbox.tales_gpt --check    the same, but writes nothing and says what differs

The matrices of the linear layers lie as in OpenAI's checkpoint, (in, out); `glassbox.gpt2` has them the other way
round. What the card says is computed in `glassbox.tales_gpt_scores`. Module 06 shows how weights are loaded in general.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from glassbox import tales
from glassbox.datasets import data_folder
from glassbox.generation import generate
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.sampling import sampler, top_p
from glassbox.tales_gpt_card import card, differences
from glassbox.tales_gpt_scores import examine
from glassbox.tokenizer import BPETokenizer
from glassbox.training_options import parser as training_parser
from glassbox.training_tables import write_atomically
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

__all__ = ["FOLDER", "load_tales_gpt", "write_tales_gpt"]

FOLDER = "tales-gpt"
LARGEST_LOG = 150_000  # bytes; a longer log is thinned
SEALED = ("config.json", "model.safetensors")
NEEDED = (*SEALED, "vocab.json", "merges.txt")
PLACE = ("out", "resume")  # settings of a run that say where it lies, not what it is


def load_tales_gpt(folder: str | os.PathLike[str] | None = None) -> tuple[GPT, BPETokenizer]:
    """The course's own model, in eval mode, and its tokenizer. folder: another one of the same layout.

    Raises FileNotFoundError where a file is missing, ValueError where one is damaged or does not go with the others.
    """
    folder = data_folder() / FOLDER if folder is None else Path(folder)
    for name in NEEDED:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{name} is missing in {folder}: get this folder of the course again")
    check_seal(folder)
    try:
        book = json.loads((folder / "config.json").read_text("utf-8"))
        sizes = {ours: book[theirs] for ours, theirs in SIZES.items()}
        model, tensors = GPT(GPTConfig(**sizes)), load_file(folder / "model.safetensors")
        model.load_state_dict({name: turned(name, value) for name, value in tensors.items()})
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} is damaged ({error}): get this folder of the course again") from error
    tokenizer = BPETokenizer.load(folder)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"{folder} has a vocabulary of {tokenizer.vocab_size} tokens and a model of {model.config.vocab_size}: "
            "get this folder of the course again"
        )
    return model.eval(), tokenizer


def seal(folder: Path) -> dict[str, str]:
    """The hash of each file that the numbers of the model come from."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SEALED}


def check_seal(folder: Path) -> None:
    """Raises ValueError where weights or sizes are not those that were written."""
    path = folder / "training.json"
    known = json.loads(path.read_text("utf-8")).get("sha256", {}) if path.is_file() else {}
    for name, digest in seal(folder).items():
        if known.get(name, digest) != digest:
            raise ValueError(
                f"{name} in {folder} is damaged (not as it was written): get this folder of the course again"
            )


def write_tales_gpt(run: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Write the last checkpoint of a run in Hugging Face's layout, with the run's tables and samples of its ladder.

    run: the folder of a run of `python -m glassbox.training`. All files are written aside, then renamed; others in the
    folder stay. Raises FileNotFoundError where there is no run or no checkpoint, ValueError for one of another model.
    """
    run, folder = Path(run), Path(folder)
    settings, steps = read_run(run)
    tokenizer = BPETokenizer.load(settings["tokenizer"]) if settings["tokenizer"] else BPETokenizer.load()
    model = GPT(config_of(settings, tokenizer))
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        ladder = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in samples(run, steps, model, tokenizer))
        (aside / "ladder.jsonl").write_text(ladder, "utf-8", newline="\n")
        save_model(model, tokenizer, aside)  # the samples end with the last checkpoint, which the model now holds
        state = json.loads((place(run, steps[-1]) / "state.json").read_text("utf-8"))
        write_json(aside / "training.json", {**story(settings, state, model), "sha256": seal(aside)})
        for name, target in (("log.csv", "training-log.csv"), ("evaluations.csv", "evaluations.csv")):
            (aside / target).write_text(thinned((run / name).read_text("utf-8")), "utf-8", newline="\n")
        for file in sorted(aside.iterdir()):
            file.chmod(0o644)
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


# --- the model's files ---

SIZES = {
    "vocab_size": "vocab_size",
    "block_size": "n_positions",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
}  # our name of a size: theirs


def turned(name: str, value: torch.Tensor) -> torch.Tensor:
    """A parameter in the other layout: the matrices of blocks change rows and columns."""
    return value.T.contiguous() if name.startswith("h.") and value.ndim == 2 else value.contiguous()


def save_model(model: GPT, tokenizer: BPETokenizer, folder: Path) -> None:
    """Weights, configuration and vocabulary, as transformers reads them."""
    end, config = tokenizer.special_tokens[tales.END], model.config
    ends = {"bos_token_id": end, "eos_token_id": end}
    tensors = {name: turned(name, value.float()) for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    book: dict[str, Any] = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    book |= {theirs: getattr(config, ours) for ours, theirs in SIZES.items()}
    book |= {"n_ctx": config.block_size, "activation_function": "gelu_new", "layer_norm_epsilon": model.ln_f.eps}
    book |= {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "tie_word_embeddings": True, **ends}
    write_json(folder / "config.json", book)
    write_json(folder / "generation_config.json", {**ends, "pad_token_id": end})
    tokenizer.to_huggingface(folder)
    tokenizer.save(folder)
    for ours, theirs in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        os.replace(folder / ours, folder / theirs)


def write_json(path: Path, book: dict[str, Any]) -> None:
    path.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", "utf-8", newline="\n")


# --- the run ---


def place(run: Path, step: int) -> Path:
    return run / f"step-{step:08d}"


def read_run(run: Path) -> tuple[dict[str, Any], list[int]]:
    """What a run was started with, and the steps of its checkpoints, rising."""
    path = run / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} holds no run of glassbox.training: {path.name} is missing")
    steps = sorted(int(file.parent.name[5:]) for file in run.glob("step-*/state.safetensors"))
    if not steps:
        raise FileNotFoundError(f"{run} has no checkpoint: train with --save-every (one of --shard cannot be read)")
    return json.loads(path.read_text("utf-8")), steps


def config_of(settings: dict[str, Any], tokenizer: BPETokenizer) -> GPTConfig:
    """The sizes of the run's model."""
    sizes = {"block_size": settings["block_size"]} if settings["block_size"] else {}
    return GPTConfig.preset(settings["preset"], vocab_size=tokenizer.vocab_size, **sizes)


def take(model: GPT, path: Path) -> GPT:
    """Give the model the parameters of a checkpoint."""
    try:
        tensors = load_file(path / "state.safetensors")
        model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged, or of another model than its settings.json says ({error})") from error
    return model.eval()


def samples(run: Path, steps: Sequence[int], model: GPT, tokenizer: BPETokenizer) -> Iterator[dict[str, Any]]:
    """Rows step, prompt, text: of each checkpoint a free text and one that goes on with a tale's first third.

    The dice are the same at each step (seed 0), tokens are drawn with top_p(0.95) up to the end mark or 256 of them.
    """
    end, journey = tokenizer.special_tokens[tales.END], tales.JOURNEY.pieces
    for step in steps:
        take(model, place(run, step))
        for prompt in ("", "".join(journey[: len(journey) // 3])):
            ids, dice = torch.tensor([[end, *tokenizer.encode(prompt)]]), torch.Generator().manual_seed(0)
            n = min(256, model.config.block_size - ids.shape[1])
            new = generate(model, ids, n, sampler(top_p(0.95), generator=dice), end=end)[0, ids.shape[1] :].tolist()
            text = tokenizer.decode(new[: new.index(end)] if end in new else new)
            yield {"step": step, "prompt": prompt, "text": text, "ended": end in new}


def story(settings: dict[str, Any], state: dict[str, Any], model: GPT) -> dict[str, Any]:
    """How the model came to be: the command that anyone can repeat, and what it took."""
    usual, words = vars(training_parser().parse_args([])), ["python -m glassbox.training"]
    here = {"python": platform.python_version(), "torch": torch.__version__}
    for name, value in settings.items():
        if name not in usual or name in PLACE or (value == usual[name] and name != "preset"):
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *([] if value is True else map(str, values))]
    return {
        "command": " ".join([*words, "--out", f"runs/{FOLDER}"]),
        "settings": {name: value for name, value in settings.items() if name not in PLACE},
        "step": state["step"],
        "tokens": state["tokens"],
        "seconds": round(state["seconds"]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "date": datetime.date.today().isoformat(),
        **{name: settings.get("versions", here)[name] for name in here},
    }


def thinned(text: str) -> str:
    """A table with every second row left out until it is small enough; its last row stays."""
    head, *rows = text.splitlines(keepends=True)
    while len(head) + sum(map(len, rows)) > LARGEST_LOG:
        rows = rows[::-1][::2][::-1]
    return "".join([head, *rows])


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status: 0 done or nothing differs, 1 refused or something differs."""
    make = argparse.ArgumentParser(
        "python -m glassbox.tales_gpt", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    make.add_argument("run", type=Path, nargs="?", help="the folder of a run of glassbox.training")
    make.add_argument("--card", action="store_true", help="score the model that is there and write scores and card")
    make.add_argument("--check", action="store_true", help="write nothing, say what differs")
    make.add_argument("--out", type=Path, help=f"the model's folder (default: the course's data/{FOLDER})")
    make.add_argument("--texts", type=int, default=500, help="unseen texts that are scored (default: 500)")
    options = make.parse_args(arguments)
    if (options.run is None) == (not (options.card or options.check)):
        make.error("give either the folder of a run, or --card or --check")
    folder = options.out or data_folder() / FOLDER
    try:
        if options.run:
            write_tales_gpt(options.run, folder)
        faults = describe(folder, options.texts, options.check)
    except (ValueError, OSError, SafetensorError) as error:
        sys.stderr.write(f"glassbox.tales_gpt: {error}\n")
        return 1
    sys.stdout.write("".join(f"{fault}\n" for fault in faults) or f"{folder.name} is what its card says\n")
    return int(bool(faults) and options.check)


def describe(folder: Path, texts: int, check: bool) -> list[str]:
    """Score the model and write scores.json, heldout.csv and README.md, or say what differs from those there are."""
    scores, heldout = examine(*load_tales_gpt(folder), folder, texts)
    if check:
        return differences(folder, scores, heldout)
    write_atomically(folder / "heldout.csv", heldout)
    write_atomically(folder / "scores.json", json.dumps(scores, indent=1) + "\n")
    write_atomically(folder / "README.md", card(folder))
    return [f"{folder.name}/{name} written" for name in ("heldout.csv", "scores.json", "README.md")]


if __name__ == "__main__":
    sys.exit(main())
