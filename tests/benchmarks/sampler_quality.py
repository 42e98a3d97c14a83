"""Quality against diversity: how to choose the next token, judged by the one who knows the language exactly.

    python tests/benchmarks/sampler_quality.py --write tests/benchmarks/sampler-quality.csv
    python tests/benchmarks/sampler_quality.py --smoke    two texts of three settings; writes nothing

The embedded model (`load_tales_gpt`) goes on with the first 12 tokens of 64 unseen tales until it chooses the end mark,
with each setting of each way of choosing. Every text is then read by `read_along`, word by word, until the first one
that the language never says there. A row of the table:

- `faultless`: the share of texts without a fault, their end included;
- `reach`: the mean share of what was written that comes before the first fault;
- `facts`: of the words that had to repeat a fact (before the first fault, and at it), how many are right;
- `nats`: the mean surprise, by the language's exact probabilities, of a word that was read: low where the same common
  words come again and again;
- `distinct`: of all runs of four words in the 64 texts, the share of different ones; what is low repeats itself,
  within a text or from text to text; `repeated`: the share of runs of four words that their own text has had before;
- `words`: the mean length of what was written; texts are cut at 260 tokens, and a cut text has no end that could be
  right or wrong.

Owners and things may meet that no training text brings together: to write that is no fault. Beam search goes on with
the first 32 tales only. The family "language" is how the 64 tales really go on. With 64 texts, `reach` and `faultless`
are good to about 0.05: smaller differences say nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from glassbox import tales
from glassbox.generation import Choose, generate, greedy
from glassbox.gpt2 import GPT
from glassbox.sampling import beam_search, min_p, repetition_penalty, sampler, temperature, top_k, top_p
from glassbox.tales_gpt import load_tales_gpt
from glassbox.tales_reading import read_along
from glassbox.tokenizer import BPETokenizer
from studies import Row, command, write

HERE = Path(__file__).resolve().parent
TABLE = HERE / "sampler-quality.csv"
COLUMNS: tuple[str, ...] = (
    "family", "setting", "faultless", "reach", "facts", "nats", "distinct", "repeated", "words", "texts"
)  # fmt: skip
TEXTS, PROMPT, MOST, UNSEEN = 64, 12, 260, 2
FEW = 32  # texts of beam search, which writes one at a time
BEAMS = (4,)


def settings() -> Iterator[tuple[str, str, Choose]]:
    """Each way of choosing with its family and its setting; every one throws dice of the same seed."""
    yield "greedy", "", greedy
    for name, filter_, values in (
        ("temperature", temperature, (0.5, 0.8, 1.0, 1.25)),
        ("top-k", lambda k: top_k(int(k)), (2, 10)),
        ("top-p", top_p, (0.5, 0.9)),
        ("min-p", min_p, (0.05, 0.3)),
        ("repetition penalty", repetition_penalty, (1.1, 1.3)),
    ):
        for value in values:
            yield name, f"{value:g}", sampler(filter_(value), generator=torch.Generator().manual_seed(0))


def prompts(tokenizer: BPETokenizer, n: int) -> tuple[torch.Tensor, list[str]]:
    """The first tokens of n unseen tales with the end mark before them, (n, PROMPT), and the whole tales."""
    texts = [text.text for text in tales.stream(UNSEEN, n)]
    end = tokenizer.special_tokens[tales.END]
    return torch.tensor([[end, *tokenizer.encode(text)][:PROMPT] for text in texts]), texts


def written(tokenizer: BPETokenizer, rows: Sequence[Sequence[int]]) -> list[tuple[str, bool]]:
    """Rows of ids as texts, and whether each came to its end."""
    end = tokenizer.special_tokens[tales.END]
    found = []
    for row in rows:
        body = list(row[1:])
        stop = body.index(end) if end in body else len(body)
        found.append((tokenizer.decode(body[:stop]), stop < len(body)))
    return found


def judge(texts: Sequence[tuple[str, bool]], heads: Sequence[str]) -> Row:
    """What the reader says of the texts; only what comes after their heads (the prompts) counts."""
    reach, faultless, kept, due, nats, words, runs, again = [], 0, 0, 0, [], [], [], 0
    for (text, ended), head in zip(texts, heads, strict=True):
        begin = len(tales.split_pieces(head)) - 1  # the prompt's last word may have gone on
        marks = read_along(text, ended)[begin:]
        good = [mark for mark in marks if mark.probability]
        reach.append(len(good) / max(1, len(marks)))
        faultless += len(good) == len(marks)
        nats += [mark.probability for mark in good]
        kept += sum(mark.kind == "recalled" for mark in marks)
        due += sum(mark.kind in ("recalled", "forgotten") for mark in marks)
        pieces = [mark.piece for mark in marks]
        words.append(len(pieces))
        own = list(zip(*(pieces[i:] for i in range(4)), strict=False))
        again += len(own) - len(set(own))
        runs += own
    return {
        "faultless": faultless / len(texts),
        "reach": statistics.mean(reach),
        "facts": kept / max(1, due),
        "nats": -float(torch.tensor(nats).log().mean()),
        "distinct": len(set(runs)) / max(1, len(runs)),
        "repeated": again / max(1, len(runs)),
        "words": statistics.mean(words),
        "texts": len(texts),
    }


def study(model: GPT, tokenizer: BPETokenizer, names: Sequence[str] | None = None, n: int = TEXTS) -> Iterator[Row]:
    """A row for each setting of the families named (None: all), and for the language itself."""
    ids, whole = prompts(tokenizer, n)
    end = tokenizer.special_tokens[tales.END]
    heads = [tokenizer.decode(row[1:].tolist()) for row in ids]
    yield {"family": "language", "setting": "", **judge([(text, True) for text in whole], heads)}
    for family, setting, choose in settings():
        if names is None or family in names:
            rows = generate(model, ids, MOST, choose, end=end).tolist()
            yield {"family": family, "setting": setting, **judge(written(tokenizer, rows), heads)}
    if names is None or "beam search" in names:
        for beams in BEAMS:
            rows = [beam_search(model, row, MOST, beams, end)[0][0].tolist() for row in ids[:FEW]]
            yield {"family": "beam search", "setting": str(beams), **judge(written(tokenizer, rows), heads[:FEW])}


def main(arguments: list[str] | None = None) -> None:
    options = command(__doc__, "two texts of three settings").parse_args(arguments)
    model, tokenizer = load_tales_gpt()
    names, n = (("greedy", "repetition penalty"), 2) if options.smoke else (None, TEXTS)
    rows, began = [], time.process_time()
    for row in study(model, tokenizer, names, n):
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
        told = "  ".join(f"{key} {value}" for key, value in rows[-1].items())
        print(f"{time.process_time() - began:4.0f} s  {told}", flush=True)
        if options.write and not options.smoke:
            write(rows, options.write, COLUMNS)


if __name__ == "__main__":
    main(sys.argv[1:])
