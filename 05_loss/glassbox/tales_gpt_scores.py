"""The examination of `data/tales-gpt`: every figure that its card tells, computed.

Loss and recalls on unseen whole texts, beside those of simpler models; what it writes by itself; and what it cannot do.
The command is `python -m glassbox.tales_gpt`, the text of the card is in `glassbox.tales_gpt_card`.
"""

from __future__ import annotations

import functools
import json
import math
import random
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from glassbox import tales
from glassbox.datasets import data_folder
from glassbox.generation import evaluating, generate, generate_each
from glassbox.gpt2 import GPT
from glassbox.ngrams import NGram
from glassbox.preprocessing import IGNORE
from glassbox.sampling import sampler
from glassbox.tales_exam import BINS, TalesExam
from glassbox.tokenizer import BPETokenizer

__all__ = ["NAMES", "examine"]

HELDOUT_SEED, UNSEEN_SEED, SUMS_SEED, TRAINING_SEED = 2, 3, 5, 11  # of `tales.stream`
ORDERS = {"unigram": 1, "bigram": 2, "trigram": 3}
NAMES = ("uniform", *ORDERS, "lstm", "tales-gpt")
RECALLS = tuple(chain(*((bin, f"{bin}_of") for bin in BINS)))
COLUMNS = ("text", "genre", "tokens", "bytes", "floor", "nats", "first_floor", "first_nats", *RECALLS)


def examine(
    model: GPT, tokenizer: BPETokenizer, folder: Path, texts: int = 500, counted: int = 10_000
) -> tuple[dict[str, Any], str]:
    """All figures of the card as a dictionary, and the table of the single texts (CSV).

    texts: how many unseen whole texts are scored, the first of the stream whose 500 are `tales-heldout.txt`. counted:
    from how many texts of the training's stream the n-grams are counted. folder: where `lstm-scores.json` may lie.
    """
    exam = TalesExam(tokenizer, texts, model.config.block_size, HELDOUT_SEED)
    rows = score_each(model, exam, tokenizer)
    grams, ids = count_ngrams(tokenizer, counted)
    models = {"uniform": exam.score(lambda X: torch.zeros(*X.shape, tokenizer.vocab_size))}
    models |= {name: exam.score(next_logits(gram)) for name, gram in grams.items()}
    if (folder / "lstm-scores.json").is_file():
        lstm = json.loads((folder / "lstm-scores.json").read_text("utf-8"))
        models["lstm"] = {name: lstm[name] for name in ("loss", *BINS)}
    models["tales-gpt"] = totals(rows)
    unseen = TalesExam(tokenizer, 100, model.config.block_size, UNSEEN_SEED, genre="tale", pairs="unseen")
    scores = {
        "texts": texts,
        "tokens": exam.n_tokens,
        "bytes": exam.n_bytes,
        "floor": exam.floor,
        "above": excess(rows)[0],
        "error": excess(rows)[1],
        "recalls": {bin: sum(row[f"{bin}_of"] for row in rows) for bin in BINS},
        "models": models,
        "genres": by_genre(rows),
        "counted": {"texts": counted, "tokens": ids, "strength": NGram(1, 1).strength},
        "tales": {bin: share(rows, bin, "tale") for bin in BINS},
        "unseen_pairs": {"texts": 100, **{bin: unseen.score(model)[bin] for bin in BINS}},
        "sums": sums(model, tokenizer),
        "questions": questions(model, tokenizer),
        "free": free_texts(model, tokenizer),
    }
    lines = [",".join(COLUMNS), *(",".join(cell(row[name]) for name in COLUMNS) for row in rows)]
    return scores, "\n".join(lines) + "\n"


# --- the loss and the recalls ---


@torch.no_grad()
def score_each(model: GPT, exam: TalesExam, tokenizer: BPETokenizer) -> list[dict[str, Any]]:
    """A row (COLUMNS) for each text of the exam, in the order of the stream: nats, and how many recalls are right.

    first_nats: those of the first word, which names the genre; first_floor: what is the least for it.
    """
    rows: list[dict[str, Any]] = []
    with evaluating(model):
        for X, Y in exam.batches:
            logits = model(X)  # (B, T, V)
            nats = F.cross_entropy(logits.transpose(1, 2), Y, ignore_index=IGNORE, reduction="none").double()
            hits = logits.argmax(dim=-1) == Y  # (B, T)
            for i in range(len(X)):
                text, recalls = exam.texts[len(rows)], exam.recalls[len(rows)]
                row = {"genre": text.genre, "tokens": int((Y[i] != IGNORE).sum()), "bytes": len(text.text.encode())}
                first = len(tokenizer.encode(text.pieces[0]))
                row |= {"floor": -text.log_prob, "nats": float(nats[i].sum())}
                row |= {"first_floor": -text.log_probs[0], "first_nats": float(nats[i, :first].sum())}
                for bin in BINS:
                    right = [bool(hits[i, first:last].all()) for name, first, last in recalls if name == bin]
                    row |= {bin: sum(right), f"{bin}_of": len(right)}
                rows.append(row)
    lengths = [len(tokenizer.encode(text.text)) for text in tales.stream(HELDOUT_SEED, len(rows))]
    for number, row in zip(sorted(range(len(rows)), key=lengths.__getitem__), rows, strict=True):
        row["text"] = number  # the exam's order is that of length
    return sorted(rows, key=lambda row: row["text"])


def totals(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What `TalesExam.score` says, from the rows."""
    loss = sum(row["nats"] for row in rows) / sum(row["tokens"] for row in rows)
    return {"loss": loss, **{bin: share(rows, bin) for bin in BINS}}


def share(rows: list[dict[str, Any]], bin: str, genre: str | None = None) -> float:
    """Of the recalls of this distance the share that is right."""
    chosen = [row for row in rows if genre in (None, row["genre"])]
    return sum(row[bin] for row in chosen) / max(1, sum(row[f"{bin}_of"] for row in chosen))


def by_genre(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each genre: texts, tokens, floor and loss (nats a token), and how probable its first word is.

    above, error: nats a token above the floor after the first word, and their standard error. share, begins: how
    probable the first word is in the language, and what the model takes it for.
    """
    found = {}
    for genre in tales.GENRES:
        if not (chosen := [row for row in rows if row["genre"] == genre]):
            continue
        part: dict[str, float] = {"texts": len(chosen), "tokens": sum(row["tokens"] for row in chosen)}
        part |= {
            name: sum(row[f] for row in chosen) / part["tokens"] for name, f in (("floor", "floor"), ("loss", "nats"))
        }
        part |= dict(zip(("above", "error"), excess(chosen, first=False), strict=True))
        part |= {"share": math.exp(-chosen[0]["first_floor"]), "begins": math.exp(-chosen[0]["first_nats"])}
        found[genre] = part
    return found


def excess(rows: list[dict[str, Any]], first: bool = True) -> tuple[float, float]:
    """Nats a token above the floor, and the standard error of that over texts; `first`: the first words count too."""
    nats = np.array(
        [row["nats"] - row["floor"] - (0 if first else row["first_nats"] - row["first_floor"]) for row in rows]
    )
    tokens = sum(row["tokens"] for row in rows)
    error = nats.std(ddof=1) * len(rows) ** 0.5 / tokens if len(rows) > 1 else 0.0
    return float(nats.sum() / tokens), float(error)


def count_ngrams(tokenizer: BPETokenizer, texts: int) -> tuple[dict[str, NGram], int]:
    """The n-grams of the first texts of the stream that the model was trained on, and of how many tokens they are."""
    end = tokenizer.special_tokens[tales.END]
    ids = [end]
    for text in tales.stream(TRAINING_SEED, texts):
        ids += [*tokenizer.encode(text.text), end]
    return {name: NGram(order, tokenizer.vocab_size).fit(ids) for name, order in ORDERS.items()}, len(ids)


def next_logits(gram: NGram) -> Callable[[torch.Tensor], torch.Tensor]:
    """The n-gram as a model: ids (B, T) -> the logs of its probabilities (B, T, V)."""

    @functools.cache
    def after(*context: int) -> torch.Tensor:
        return torch.from_numpy(np.log(gram.probabilities(context)).astype(np.float32))

    def logits(X: torch.Tensor) -> torch.Tensor:
        m = gram.order - 1
        rows = [[after(*row[max(0, t + 1 - m) : t + 1]) for t in range(len(row))] for row in X.tolist()]
        return torch.stack([torch.stack(row) for row in rows])

    return logits


# --- what it can write, and what not ---


def go_on(model: GPT, tokenizer: BPETokenizer, prompts: list[str], n: int) -> list[str]:
    """The likeliest texts after the prompts, each begun after an end mark, up to the next or n tokens."""
    end = tokenizer.special_tokens[tales.END]
    rows = [[end, *tokenizer.encode(prompt)] for prompt in prompts]
    found = generate_each(model, rows, n, end=end)
    return [tokenizer.decode([i for i in new[len(row) :] if i != end]) for row, new in zip(rows, found, strict=True)]


def sums(model: GPT, tokenizer: BPETokenizer, n: int = 200) -> dict[str, int]:
    """How many sums of fresh texts it finishes rightly, given both numbers; and of numbers of three digits."""
    prompts, right = [], []
    for text in tales.stream(SUMS_SEED, n, "sum"):
        places = [i for i, piece in enumerate(text.pieces) if piece.strip().isdigit()]
        prompts.append("".join(text.pieces[: places[1] + 1]))
        right.append(int(text.facts["x.number"]) + int(text.facts["y.number"]))
    dice = random.Random(0)
    longer = [(dice.randint(100, 999), dice.randint(100, 999)) for _ in range(n)]
    texts = go_on(model, tokenizer, [*prompts, *(f"Sum.\n{a} + {b}" for a, b in longer)], 80)
    last = [int((re.findall(r"\d+", text) or ["-1"])[-1]) for text in texts]
    hits = [a == b for a, b in zip(last, [*right, *(a + b for a, b in longer)], strict=True)]
    return {"asked": n, "right": sum(hits[:n]), "longer_right": sum(hits[n:])}


def questions(model: GPT, tokenizer: BPETokenizer, n: int = 100) -> dict[str, int]:
    """How many of the first questions of `questions.jsonl` it answers, which it was never trained to do."""
    lines = (data_folder() / "questions.jsonl").read_text("utf-8").splitlines()[:n]
    asked = [json.loads(line) for line in lines]
    texts = go_on(model, tokenizer, [f"{item['text']}\n{item['question']}" for item in asked], 16)
    right = [text.strip().startswith(item["answer"]) for text, item in zip(texts, asked, strict=True)]
    return {"asked": n, "right": sum(right)}


def free_texts(model: GPT, tokenizer: BPETokenizer, n: int = 100) -> dict[str, Any]:
    """Texts drawn from the model's own probabilities: how many end, and how many the language could have written."""
    end, room = tokenizer.special_tokens[tales.END], model.config.block_size - 1
    dice = torch.Generator().manual_seed(0)
    rows = generate(model, torch.full((n, 1), end), room, sampler(generator=dice), end=end)[:, 1:].tolist()
    texts = [tokenizer.decode(row[: row.index(end)] if end in row else row) for row in rows]
    whole = [text for text, row in zip(texts, rows, strict=True) if end in row]
    return {"asked": n, "ended": len(whole), "possible": sum(map(possible, whole)), "first": texts[:5]}


def possible(text: str) -> bool:
    """Whether the language could have written this text, to the last word."""
    try:
        tales.score(text)
    except ValueError:
        return False
    return True


def cell(value: Any) -> str:
    return f"{value:.5f}" if isinstance(value, float) else str(value)
