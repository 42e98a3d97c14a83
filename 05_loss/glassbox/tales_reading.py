"""A text that a model wrote, read by one who knows the language: which words are possible, which facts are kept?

`glassbox.tales` knows exactly what may come next. So a written tale can be read piece by piece until the first one that
the language never says there; what comes after it cannot be judged.

Training texts leave out a tenth of all pairs of an owner and a thing. A model that has learned the language, and not
the list, writes them too. That is no fault: the reader here lets every owner have every thing, unless told otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

from glassbox.tales import END, Reader, Seen, split_pieces
from glassbox.tales_grammar import Said, State, start

__all__ = ["Mark", "read_along"]

CERTAIN = 0.99  # a piece of this probability follows from the text before it, as in `Text.recalls`
UNSEEN = 0.1  # the share of all pairs that training texts leave out


class Mark(NamedTuple):
    """A piece of a text and what its reader says of it.

    kind: "said" (possible), "recalled" (repeats a fact, and only this one was possible), "forgotten" (a fact should be
    repeated here, and this is not it), "impossible" (the language does not go on like this), "after" (not judged).
    probability: the exact one, given what came before; 0 from the first fault on.
    """

    piece: str
    kind: str
    probability: float


def read_along(text: str, ended: bool = True, pairs: str = "any") -> list[Mark]:
    """What a reader with a perfect memory says of each piece of `text`.

    ended: whether the end of the text is judged too, as a last piece `END`; a text that was cut off has none. pairs:
    which owners and things may meet: "any", or "seen" or "unseen", as in `tales.score`. ValueError for another word.
    """
    reader = AnyPairs() if pairs == "any" else Reader(start(pairs=pairs))
    marks, said = list[Mark](), set[str]()
    for piece in (*split_pieces(text), *([END] if ended else [])):
        if marks and not marks[-1].probability:
            marks.append(Mark(piece, "after", 0.0))
            continue
        due, chances = _due(reader, said), reader.next()
        if piece in chances:
            marks.append(Mark(piece, "recalled" if due else "said", reader.read(piece).probability))
        else:
            marks.append(Mark(piece, "forgotten" if due else "impossible", 0.0))
        said.add(piece.strip().lower())
    return marks


class AnyPairs(Reader):
    """A reader for whom any owner may have any thing: each draw is from the seen pairs or, one in ten, the others.

    Between two pieces every reading goes on twice, once for each kind of pair; where no pair was drawn the two have
    become the same again by the next piece.
    """

    def __init__(self) -> None:
        super().__init__()
        self._go_on([(1.0, start())])

    def read(self, piece: str) -> Seen:
        """Take the next piece; as `Reader.read`."""
        matching = [(p, said) for p, said in self.live if said and said.piece == piece]
        if not matching:  # the end, or a piece that cannot be
            return super().read(piece)
        heard, total = (sum(p for p, _ in live) for live in (matching, self.live))
        self._go_on([(p / heard, said.state) for p, said in matching])
        self.count += 1
        facts = tuple(said.fact for _, said in matching)
        return Seen(min(1.0, heard / total), facts if all(facts) else ())

    def _go_on(self, states: list[tuple[float, State]]) -> None:
        merged: list[tuple[float, State]] = []
        for p, state in states:
            state = _with_pairs(state, "seen")
            i = next((i for i, (_, other) in enumerate(merged) if other == state), len(merged))
            merged[i:] = [(p + (merged[i][0] if i < len(merged) else 0.0), state), *merged[i + 1 :]]
        live: list[tuple[float, Said | None]] = []
        for p, state in merged:
            for share, pairs in ((1 - UNSEEN, "seen"), (UNSEEN, "unseen")):
                live += [(p * share * q, said) for q, said in Reader(_with_pairs(state, pairs)).live]
        self.live = live


def _with_pairs(state: State, pairs: str) -> State:
    return state._replace(facts={**state.facts, "world.pairs": pairs})


def _due(reader: Reader, said: set[str]) -> bool:
    """Whether the next piece is one that repeats a fact and follows from the text."""
    piece, chance = max(reader.next().items(), key=lambda item: item[1])
    if chance < CERTAIN or piece.strip().lower() not in said:
        return False
    return all(mention.fact for _, mention in reader.live if mention and mention.piece == piece)
