"""The files of Tiny Tales: samples, task sets with known answers, and the counts in their datasheet.

    python -m glassbox.tales_data            writes every file in data/ and the counts in data/README.md anew
    python -m glassbox.tales_data --check    writes nothing; says what differs from the files that are there

Everything follows from `data/tales.grammar` and the seeds below, so the same commands give the same bytes.
Standard library only.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from glassbox import tales
from glassbox.datasets import data_folder
from glassbox.tales_grammar import grammar, start

__all__ = ["counts", "dialogues", "few_shot", "files", "questions", "stance"]

TRAINING_SEED, HELDOUT_SEED, UNSEEN_SEED, TASK_SEED = 1, 2, 3, 4
TRAINING_TEXTS, HELDOUT_TEXTS, UNSEEN_TEXTS = 2200, 500, 100
STANCES = ("hawkish", "neutral", "dovish")
STANCE_TRAINING = 1600  # of the 2,000 stance statements; the others are for tests
MISLABELLED = 0.05  # of the stance statements carry a wrong label: nobody can be right more often than 95 % of the time
BINS = {"5-20": (5, 20), "21-60": (21, 60), "61-200": (61, 200)}  # pieces back to the last mention


def joined(texts: Iterator[tales.Text]) -> str:
    """Texts as one file: each followed by the end mark and a line end."""
    return "".join(f"{text.text}{tales.END}\n" for text in texts)


def questions(seed: int, n: int) -> Iterator[dict[str, Any]]:
    """Questions about `n` tales: `text`, `question`, `answer`, and the `kind` of fact that is asked for."""
    kinds = sorted(rule for rule in grammar().rules if rule.startswith("question_"))
    for k, text in enumerate(tales.stream(seed, n, "tale")):
        kind = kinds[k % len(kinds)]
        dice = random.Random(seed * 1_000_003 + k)
        pieces, _, _ = tales.walk(start(kind, dict(text.facts)), dice)
        question, answer = "".join(pieces).split(" => ")
        yield {"text": text.text, "question": question, "answer": answer, "kind": kind.removeprefix("question_")}


def dialogues(seed: int, n: int) -> Iterator[dict[str, Any]]:
    """Dialogues of two to six turns (a line of the user, a line of the bot); the last answer was told in the first."""
    for k in range(n):
        turns = 2 + k % 5
        pieces, facts, _ = tales.walk(start(f"dialogue_{turns}"), random.Random(seed * 1_000_003 + k))
        lines = [line.split(": ", 1) for line in "".join(pieces).split("\n")]
        roles = {"User": "user", "Bot": "assistant"}
        messages = [{"role": roles[speaker], "content": said} for speaker, said in lines]
        told = sorted(fact.removeprefix("u.") for fact in facts if fact.startswith("u."))
        yield {"turns": turns, "fact": " and ".join(told), "answer": messages[-1]["content"], "messages": messages}


def few_shot(seed: int, n: int, seen: bool) -> Iterator[dict[str, Any]]:
    """Lists of one to eight answered examples of one relation and a last one to answer.

    `seen` relations may be trained on; the others are held out, to tell a rule that was learned from one recalled.
    """
    relations = {name: pairs for name, (trained, pairs) in grammar().relations.items() if trained is seen}
    for k in range(n):
        dice = random.Random(seed * 1_000_003 + k)
        name = sorted(relations)[k % len(relations)]
        *examples, (asked, answer) = dice.sample(relations[name], 2 + k // len(relations) % 8)
        prompt = "".join(f"{one} : {other}\n" for one, other in examples) + f"{asked} :"
        yield {"relation": name, "shots": len(examples), "prompt": prompt, "answer": answer}


def stance(seed: int, n: int) -> Iterator[dict[str, Any]]:
    """Bank statements: `text`, its `label`, and the `truth`; a share `MISLABELLED` of the labels is wrong."""
    met: set[str] = set()
    k = 0
    while len(met) < n:
        dice = random.Random(seed * 1_000_003 + k)
        k += 1
        truth = STANCES[len(met) % 3]
        text = "".join(tales.walk(start(f"stance_{truth}"), dice)[0])
        if text in met:
            continue
        met.add(text)
        wrong = [other for other in STANCES if other != truth]
        yield {"text": text, "label": dice.choice(wrong) if dice.random() < MISLABELLED else truth, "truth": truth}


def files() -> dict[str, str]:
    """Every generated file of `data/` by name."""
    stances = list(stance(TASK_SEED, 2000))
    lists = [*few_shot(TASK_SEED, 640, True), *({**x, "held_out": True} for x in few_shot(TASK_SEED, 160, False))]
    return {
        "tales.txt": joined(tales.stream(TRAINING_SEED, TRAINING_TEXTS)),
        "tales-heldout.txt": joined(tales.stream(HELDOUT_SEED, HELDOUT_TEXTS)),
        "tales-unseen-pairs.txt": joined(tales.stream(UNSEEN_SEED, UNSEEN_TEXTS, "tale", "unseen")),
        "questions.jsonl": _lines(questions(TASK_SEED, 700)),
        "dialogues.jsonl": _lines(dialogues(TASK_SEED, 1000)),
        "few-shot.jsonl": _lines(lists),
        "stance.jsonl": _lines(
            {**s, "part": "test" if i >= STANCE_TRAINING else "train"} for i, s in enumerate(stances)
        ),
    }


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def counts(sample: str, n: int = 300) -> str:
    """The datasheet's counts as Markdown: words of the training `sample`, the rest from `n` held-out texts."""
    texts = list(tales.stream(HELDOUT_SEED, n))
    vocabulary = Counter(piece.strip().lower() for piece in tales.split_pieces(sample.replace(tales.END, "")))
    words = sum(1 for word in vocabulary if word.isalpha())
    rows = [
        f"Counted on the first {n} held-out texts ({TRAINING_TEXTS} training texts for the words in use).",
        "",
        f"- words in use: {words:,}, besides {sum(1 for word in vocabulary if word.isdigit())} numbers and "
        f"{sum(1 for word in vocabulary if word and not word.isalnum())} signs",
        f"- a text has {sum(len(text.pieces) + 1 for text in texts) / n:.0f} pieces with its end mark, "
        f"{sum(len(text.text) for text in texts) / n:.0f} characters on average",
        "",
        "| genre | share of texts | pieces: least - median - most | floor, nats a piece | free | recall |",
        "|---|---|---|---|---|---|",
    ]
    for genre in (*tales.GENRES, "all"):
        chosen = [text for text in texts if genre in (text.genre, "all")]
        lengths = sorted(len(text.pieces) + 1 for text in chosen)
        pieces = sum(lengths)
        free = sum(sum(1 for p in text.log_probs if p < math.log(0.99)) for text in chosen)
        rows.append(
            f"| {genre} | {len(chosen) / n:.0%} | {lengths[0]} - {lengths[len(lengths) // 2]} - {lengths[-1]} "
            f"| {-sum(text.log_prob for text in chosen) / pieces:.3f} | {free / pieces:.0%} "
            f"| {sum(len(text.recalls) for text in chosen) / pieces:.1%} |"
        )
    characters = sum(len(text.text) + 1 for text in texts)
    floor = -sum(text.log_prob for text in texts) / characters
    tale_texts = [text for text in texts if text.genre == "tale"]
    rows += [
        "",
        f"Counted by characters (the end mark as one) the floor is {floor:.4f} nats a character.",
        "",
        "| distance to the last mention | recall pieces a tale, mean | fewest in a tale |",
        "|---|---|---|",
    ]
    for name, (low, high) in BINS.items():
        found = [sum(low <= recall.distance <= high for recall in text.recalls) for text in tale_texts]
        rows.append(f"| {name} | {sum(found) / len(found):.1f} | {min(found)} |")
    stances = list(stance(TASK_SEED, 2000))
    test = stances[STANCE_TRAINING:]
    wrong, wrong_in_test = (sum(item["label"] != item["truth"] for item in part) for part in (stances, test))
    rows += [
        "",
        f"Stance: {wrong} of {len(stances)} labels are wrong, {wrong_in_test} of them among the {len(test)} for tests, "
        f"so the best reachable accuracy there is {1 - wrong_in_test / len(test):.1%}.",
    ]
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """The command: write, or with `--check` compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say what differs")
    options = parser.parse_args(arguments)
    folder = data_folder()
    datasheet = folder / "README.md"
    marked = re.compile(r"(?<=<!-- counts:start -->\n).*(?=<!-- counts:end -->)", re.DOTALL)
    fresh = {folder / name: content for name, content in files().items()}
    fresh[datasheet] = marked.sub(lambda _: counts(fresh[folder / "tales.txt"]) + "\n", datasheet.read_text("utf-8"))
    stale = [path for path, content in fresh.items() if not path.is_file() or path.read_bytes() != content.encode()]
    for path in stale:
        print(f"{path.name} {'differs' if options.check else 'written'}")
        if not options.check:
            path.write_bytes(fresh[path].encode())
    if not stale:
        print("every file is as the grammar and the seeds make it")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
