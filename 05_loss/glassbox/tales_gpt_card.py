"""The card of `data/tales-gpt`, its README.md: a text that is made of the files beside it, with no figure by hand.

`glassbox.tales_gpt_scores` computes the figures; the command is `python -m glassbox.tales_gpt`.
"""

from __future__ import annotations

import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

from glassbox import tales
from glassbox.loss import bits_per_byte, perplexity
from glassbox.tales_exam import BINS
from glassbox.tales_gpt_scores import NAMES
from glassbox.training_tables import read_rows

__all__ = ["GOAL", "card", "differences"]

GOAL = {"ratio": 1.05, "near": 0.95, "middle": 0.95, "far": 0.90}
ROUGH = ("free.ended", "free.possible", "sums.right", "sums.longer_right", "questions.right")  # counts of written texts

CARD = """---
license: cc0-1.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# tales-gpt

A small GPT-2 that the course trained on Tiny Tales, its own invented language (see the [datasheet](../README.md)).
{parameters:,} parameters: {sizes}.
It reads and writes up to {context} tokens of the course's vocabulary.

Every figure here is computed by `python -m glassbox.tales_gpt --card`; `--check` computes them again and compares.

## Open it

```python
from glassbox.tales_gpt import load_tales_gpt

model, tokenizer = load_tales_gpt()
```

or, with the same weights and tokens, in transformers:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("data/tales-gpt")
tokenizer = AutoTokenizer.from_pretrained("data/tales-gpt")
```

A text begins after an end mark, `{end}`, and so does a prompt.

## How good it is

Scored on {texts} unseen whole texts: {tokens:,} tokens, {bytes:,} bytes. The floor is the loss of a perfect model,
known because every probability of the language is known. A recall is a word that repeats a fact of its text. It counts
as right when the likeliest token is the right one at each of the word's tokens. Recalls are told apart by how many
words back the fact stood last: near 5-20 ({near_of:,} recalls), middle 21-60 ({middle_of:,}), far 61-200 ({far_of:,}).

| model | nats a token | times the floor | perplexity | bits a byte | near | middle | far |
|---|---|---|---|---|---|---|---|
{models}

The loss is {above:.4f} ± {error:.4f} nats above the floor (± one standard error over the texts).
{goal}

The n-grams are counted on {counted_tokens:,} tokens, the first {counted_texts:,} texts of the model's own training.
Each order is mixed with the shorter one (strength {counted_strength:g}). {lstm}

| genre | texts | tokens | floor | nats a token | above the floor after the first word | first word: true | model |
|---|---|---|---|---|---|---|---|
{genres}

The last two columns say how probable it is that a text begins with the genre's word. The model has learned this with a
bias: texts of like length share a batch in its training, and a step's loss is the mean over the tokens of its batch, so
that a short text weighs more than a long one. It begins too many short texts and too few tales. For that reason the
loss of a short genre, taken alone, can lie below its floor though nothing has leaked. Over all genres the bias costs
{bias:.4f} nats a token of those {above:.4f}.

## What it can and cannot do

- **Writing.** Of {free_asked} texts drawn from its own probabilities, {free_ended} come to an end, and {free_possible}
  are such as the language could have written, to the last word.
- **Recalling what it never saw together.** In `tales-unseen-pairs.txt` ({unseen_texts} tales) people own things that
  they never owned in training. Right are {unseen_near:.1%} near, {unseen_middle:.1%} in the middle and
  {unseen_far:.1%} far; in the ordinary tales above {tales_near:.1%}, {tales_middle:.1%} and {tales_far:.1%}.
- **Adding.** Given both numbers, it finishes {sums_right} of {sums_asked} fresh sums of its language rightly. Of sums
  of three digits, which the language does not have, it gets {sums_longer_right} of {sums_asked}.
- **Answering.** It was never trained to: of {questions_asked} questions about a tale (`questions.jsonl`) it answers
  {questions_right}.
- It knows no words, names or facts but those of Tiny Tales. What it says of banks, prices and recipes is invented.

It is meant for this course: to load, look into, sample from, fine-tune and compare. It is of no use for anything else.

The first five of those texts, unedited:

{first}

## How it was made

```
{command}
python tests/benchmarks/lstm_baseline.py --out data/tales-gpt
python -m glassbox.tales_gpt runs/tales-gpt
```

{steps:,} steps on {seen:,} tokens of fresh texts, in {seconds:,} CPU seconds with Python {python} and
torch {torch}, written on {date}. The weights are those of the last step: none were chosen by their score.

| file | what |
|---|---|
| `config.json`, `generation_config.json`, `model.safetensors` | the model: float32, OpenAI's names and matrices |
| `tokenizer.json`, `tokenizer_config.json`, `vocab.json`, `merges.txt` | the vocabulary of `data/tales-bpe` |
| `training.json` | the command, its settings, what the training took |
| `training-log.csv` | every few steps: step, tokens, CPU seconds, lr, loss, the gradient's length |
| `evaluations.csv` | step, tokens, CPU seconds, loss and recalls on the first {curve} of the {texts} texts |
| `ladder.jsonl` | two samples at each power of two of the steps and at the end: `step`, `prompt`, `text`, `ended` |
| `lstm-evaluations.csv`, `lstm-scores.json` | the LSTM: the same evaluations, and its scores on the {texts} texts |
| `heldout.csv` | each of the {texts} texts: the floor and the model's nats (sums), recalls right and in all |
| `scores.json` | the figures of this card |

Model and data are in the public domain ([CC0 1.0](../../LICENSE)); the code that made them is under the Apache License
2.0.
"""


def card(folder: Path) -> str:
    """The text of README.md, from scores.json, training.json, config.json and lstm-scores.json in the folder."""
    scores, training, config = (
        json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("scores", "training", "config")
    )
    floor, loss = scores["floor"], scores["models"]["tales-gpt"]["loss"]
    parts = ("tales", "unseen_pairs", "sums", "questions", "free", "counted")
    figures = {f"{part.split('_')[0]}_{name}": value for part in parts for name, value in scores[part].items()}
    figures |= {name: scores[name] for name in ("texts", "tokens", "bytes", "error")}
    figures |= {f"{bin}_of": number for bin, number in scores["recalls"].items()}
    figures |= {name: training[name] for name in ("parameters", "command", "seconds", "python", "torch", "date")}
    return CARD.format(
        **figures,
        sizes=f"{config['n_layer']} blocks, {config['n_head']} heads, {config['n_embd']} channels, tied head",
        context=config["n_positions"],
        end=tales.END,
        models="\n".join(model_rows(scores)),
        above=scores["above"],
        bias=scores["above"] - sum(g["above"] * g["tokens"] for g in scores["genres"].values()) / scores["tokens"],
        goal=goal({"ratio": loss / floor, **scores["models"]["tales-gpt"]}),
        lstm=about_lstm(folder),
        genres="\n".join(genre_rows(scores)),
        first="\n\n".join("> " + text.replace("\n", "  \n> ") for text in scores["free"]["first"]),
        steps=training["step"],
        seen=training["tokens"],
        curve=training["settings"]["exam"],
    )


def model_rows(scores: dict[str, Any]) -> list[str]:
    """The table of the models, and the floor under them."""
    floor, size = scores["floor"], (scores["tokens"], scores["bytes"])
    models = [(name, scores["models"][name]) for name in NAMES if name in scores["models"]]
    return [
        f"| {name.replace('lstm', 'LSTM')} | {m['loss']:.4f} | {m['loss'] / floor:.3f} | {perplexity(m['loss']):.2f} "
        f"| {bits_per_byte(m['loss'], *size):.4f} | {m['near']:.1%} | {m['middle']:.1%} | {m['far']:.1%} |"
        for name, m in [*models, ("the floor", {"loss": floor, **dict.fromkeys(BINS, 1.0)})]
    ]


def genre_rows(scores: dict[str, Any]) -> list[str]:
    """The table of the genres."""
    return [
        f"| {name} | {g['texts']} | {g['tokens']:,} | {g['floor']:.4f} | {g['loss']:.4f} "
        f"| {g['above']:+.4f} ± {g['error']:.4f} | {g['share']:.1%} | {g['begins']:.1%} |"
        for name, g in scores["genres"].items()
    ]


def goal(found: dict[str, float]) -> str:
    """What the goal was, and where it is missed."""
    kept = {name: (found[name] <= limit) if name == "ratio" else (found[name] >= limit) for name, limit in GOAL.items()}
    missed = [f"{name} is {found[name]:.3f}" for name in GOAL if not kept[name]]
    text = "The goal was at most {ratio:g} times the floor, and {near:.0%}, {middle:.0%} and {far:.0%} of the recalls: "
    return text.format(**GOAL) + (f"missed, {', '.join(missed)}." if missed else "reached.")


def about_lstm(folder: Path) -> str:
    """How the LSTM was trained, and where the model stood after as many tokens."""
    path = folder / "lstm-scores.json"
    if not path.is_file():
        return ""
    lstm = json.loads(path.read_text("utf-8"))
    ours, theirs = (read_rows(folder / name, sys.maxsize) for name in ("evaluations.csv", "lstm-evaluations.csv"))
    then = [row for row in ours if row["tokens"] <= lstm["tokens"]][-1]
    return (
        f"The LSTM has {lstm['parameters']:,} parameters in\ntwo layers and a tied head. It was trained like "
        f"tales-gpt, with a step size of its own ({lstm['lr']:g}), but on fewer tokens:\n{lstm['tokens']:,}, in "
        f"{lstm['seconds']:,.0f} CPU seconds (`tests/benchmarks/lstm_baseline.py`). On the texts of the curves it ends "
        f"at\n{theirs[-1]['loss']:.4f} nats a token; there tales-gpt stood at {then['loss']:.4f} after "
        f"{then['tokens']:,.0f} tokens, and ends at {ours[-1]['loss']:.4f}."
    )


# --- what has changed ---


def differences(folder: Path, scores: dict[str, Any], heldout: str) -> list[str]:
    """Where fresh figures differ from the files: counts at all, losses by more than 0.0005, shares by more than 0.01.

    (Two machines may round differently, and then a likeliest token may be another.) And whether the card is of them.
    """
    kept = json.loads((folder / "scores.json").read_text("utf-8"))
    old, new = dict(leaves(kept)), dict(leaves(scores))
    faults = [f"scores.json: {name} is only in one of both" for name in sorted(old.keys() ^ new.keys())]
    for name in sorted(old.keys() & new.keys()):
        limit = 5 if name in ROUGH else 0.01 if name.split(".")[-1] in BINS else 5e-4
        if isinstance(old[name], int | float) and abs(old[name] - new[name]) > limit:
            faults.append(f"scores.json: {name} is {old[name]}, computed again {new[name]}")
    if (folder / "heldout.csv").read_text("utf-8").count("\n") != heldout.count("\n"):
        faults.append("heldout.csv has another number of texts")
    if (folder / "README.md").read_text("utf-8") != card(folder):
        faults.append("README.md is not what the files beside it make: write it with --card")
    return faults


def leaves(book: dict[str, Any], name: str = "") -> list[tuple[str, Any]]:
    """Every figure with its name, such as models.lstm.loss."""
    parts = [leaves(v, f"{name}{k}.") if isinstance(v, dict) else [(f"{name}{k}", v)] for k, v in book.items()]
    return list(chain(*parts))
