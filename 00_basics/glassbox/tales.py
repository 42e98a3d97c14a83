"""Tiny Tales: a small invented language in which every probability is known.

The course trains its models on texts that this file writes. They come from a *grammar with a memory*
(`data/tales.grammar`, a file to read and to edit; `tales_grammar.py` walks through it): rules offer alternatives, and a
slot such as `{a.thing}` draws a word the first time it is met and repeats that word ever after. Writing walks through
the grammar and lets dice decide. Reading walks through it too and lets the text decide. Because both walk the same way,
the probability of every next word is known exactly, and so is the entropy of the whole language: the loss that no
model can beat.

Standard library only; the same seed gives the same bytes on every Python. Source: entropy (Shannon, 1948).
"""

from __future__ import annotations

import functools
import math
import operator
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from glassbox.tales_grammar import Said, State, split_pieces, start, step

__all__ = ["END", "GENRES", "Reader", "Recall", "Text", "score", "split_pieces", "stream", "truth", "walk", "write"]

END = "<|endoftext|>"
JOURNEY_SEED = 40  # of the tale that travels through all notebooks
STREAM = 1_000_003  # texts that belong to one seed of `stream`
GENRES = ("tale", "recipe", "letter", "sum", "glossary")  # in the grammar's order


@dataclass(frozen=True)
class Recall:
    """A piece that repeats a fact and follows from the text before it: `index` repeats the word at `source`."""

    index: int
    source: int
    fact: str

    @property
    def distance(self) -> int:
        """How many pieces back the word stood last."""
        return self.index - self.source


class Seen(NamedTuple):
    """What a reader says of a piece that came: how probable it was, and which facts it may repeat (none: no recall).

    There are several where readings differ in whose fact it is; what comes later settles it.
    """

    probability: float
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """A written text. Joined `pieces` are `text`; `log_prob` is its exact natural-log probability, end included."""

    pieces: tuple[str, ...]
    genre: str
    facts: dict[str, str] = field(repr=False, hash=False)
    log_prob: float

    @property
    def text(self) -> str:
        """The text as it is read, without the end mark."""
        return "".join(self.pieces)

    @functools.cached_property
    def log_probs(self) -> tuple[float, ...]:
        """Natural log of the exact probability of each piece given those before it; the last one is the end's."""
        return tuple(math.log(seen.probability) for seen in self._reading)

    @functools.cached_property
    def recalls(self) -> tuple[Recall, ...]:
        """The pieces that a reader with a perfect memory knows (probability at least 0.99) from an earlier mention."""
        last: dict[str, int] = {}
        found = []
        for index, (piece, seen) in enumerate(zip(self.pieces, self._reading, strict=False)):
            word = piece.strip().lower()
            if seen.facts and seen.probability >= 0.99 and word in last:
                fact = next(fact for fact in seen.facts if word in self.facts.get(fact, "").lower().split())
                found.append(Recall(index, last[word], fact))
            last[word] = index
        return tuple(found)

    @functools.cached_property
    def _reading(self) -> list[Seen]:
        reader = Reader(start(pairs=self.facts["world.pairs"]))
        return [reader.read(piece) for piece in (*self.pieces, END)]


class Reader:
    """Reads a text piece by piece and knows the exact distribution of the next one.

    `live` holds every reading that the text so far allows, with its probability; they are summed over. Two readings
    that differ only in what has not been said yet (which of two neighbours will lose her lantern?) live side by side.
    """

    def __init__(self, state: State | None = None) -> None:
        self.live: list[tuple[float, Said | None]] = _until_said([(1.0, state or start())])
        self.count = 0  # pieces read

    def next(self) -> dict[str, float]:
        """The probability of each piece that may come next; `END` stands for the end of the text."""
        chances: dict[str, float] = {}
        total = sum(p for p, _ in self.live)
        for p, said in self.live:
            piece = said.piece if said else END
            chances[piece] = min(1.0, chances.get(piece, 0.0) + p / total)
        return chances

    def read(self, piece: str) -> Seen:
        """Take the next piece (or `END`). Raises ValueError if the language cannot go on with it."""
        matching = [(p, said) for p, said in self.live if (said.piece if said else END) == piece]
        heard = sum(p for p, _ in matching)
        if not heard:
            likely = sorted(self.next().items(), key=lambda item: -item[1])[:5] or "nothing: the text has ended"
            raise ValueError(
                f"Tiny Tales never go on with {piece!r} here (piece {self.count}); most likely would be {likely}. "
                "A prefix ends after a whole piece, and lines end with \\n"
            )
        probability = min(1.0, heard / sum(p for p, _ in self.live))
        facts = [said.fact if said else "" for _, said in matching]
        self.live = _until_said([(p / heard, said.state) for p, said in matching if said])
        self.count += 1
        return Seen(probability, tuple(facts) if all(facts) else ())


def _until_said(states: list[tuple[float, State]]) -> list[tuple[float, Said | None]]:
    """Follow every fork until each reading has its next piece on the tongue."""
    ready: list[tuple[float, Said | None]] = []
    while states:
        p, state = states.pop()
        move = step(state)
        if isinstance(move, list):
            states.extend((p * q, forked) for q, forked in move)
        else:
            ready.append((p, move))
    return ready


def write(seed: int, genre: str | None = None, pairs: str = "seen") -> Text:
    """Write the text that belongs to `seed`.

    Args:
        seed: an integer from 0 up; the same seed gives the same text on every Python.
        genre: one of `GENRES`, or None to draw it too. `log_prob` always includes the genre's probability.
        pairs: "seen" as in training, or "unseen" (see `start`).
    Raises: ValueError for an unknown genre or a negative seed, TypeError for a seed that is no integer.
    """
    dice = random.Random(_checked(seed, genre))
    state, log_prob = start(pairs=pairs), 0.0
    if genre is not None:
        forks = step(state)
        assert isinstance(forks, list)
        p, state = forks[GENRES.index(genre)]
        log_prob = math.log(p)
    pieces, facts, walked = walk(state, dice)
    return Text(tuple(pieces), pieces[0].rstrip(".").lower(), facts, log_prob + walked)


def _checked(seed: int, genre: str | None) -> int:
    if genre is not None and genre not in GENRES:
        raise ValueError(f"genre must be one of {', '.join(GENRES)}, not {genre!r}")
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an integer, not {seed!r}")
    if operator.index(seed) < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}: Python's dice do not tell -5 from 5")
    return operator.index(seed)


def walk(state: State, dice: random.Random) -> tuple[list[str], dict[str, str], float]:
    """Go on from `state` to the end by dice: the pieces said, all facts, and the natural log of the probability."""
    pieces: list[str] = []
    log_prob = 0.0
    while (move := step(state)) is not None:
        if isinstance(move, Said):
            pieces.append(move.piece)
            state = move.state
            continue
        p, state = move[-1]  # the last fork also takes the crumb that rounding may leave
        rest = dice.random()
        for q, forked in move:
            rest -= q
            if rest < 0:
                p, state = q, forked
                break
        log_prob += math.log(p)
    return pieces, state.facts, log_prob


def stream(seed: int, n: int | None = None, genre: str | None = None, pairs: str = "seen") -> Iterator[Text]:
    """Fresh texts: `n` of them, or all 1,000,003 of this seed. Text k is `write(seed * 1_000_003 + k)`.

    Streams of different seeds never share a text's seed, so a stream that is held out stays held out.

    Raises: ValueError, at once, for an unknown genre, a negative seed, or n outside 0 to 1,000,003.
    """
    first = _checked(seed, genre) * STREAM
    count = STREAM if n is None else operator.index(n)
    if not 0 <= count <= STREAM:
        raise ValueError(f"n must lie between 0 and {STREAM:,}, the texts of one seed, not {n}: take another seed")
    return (write(first + k, genre, pairs) for k in range(count))


def truth(prefix: str, pairs: str = "seen") -> dict[str, float]:
    """The exact distribution of the next piece after `prefix`, which starts at a text's start. Sums to one.

    Raises: ValueError if no Tiny Tale begins like this, naming the first piece that does not fit.
    """
    reader = Reader(start(pairs=pairs))
    for piece in split_pieces(prefix):
        reader.read(piece)
    return reader.next()


def score(text: str, pairs: str = "seen") -> tuple[float, ...]:
    """Natural log of the exact probability of every piece of `text` and, last, of its end.

    Raises: ValueError if the language cannot write `text`.
    """
    reader = Reader(start(pairs=pairs))
    return tuple(math.log(reader.read(piece).probability) for piece in (*split_pieces(text), END))


def __getattr__(name: str) -> Text:
    """`JOURNEY`, the tale whose first sentence travels through all notebooks, is written when first asked for."""
    if name == "JOURNEY":
        return write(JOURNEY_SEED, "tale")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
