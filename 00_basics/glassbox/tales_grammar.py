"""The grammar of Tiny Tales as a machine: what `data/tales.grammar` says, and one step of walking through it.

A rule is a list of alternatives, an alternative a sequence of symbols. A *state* says what is still to come and which
facts are settled; `step` says what can happen next. Writers let dice choose among the forks, readers let the text
choose: `glassbox.tales` does both. Standard library only.

Source: probabilistic context-free grammars (Booth and Thompson, 1973), here with a memory for facts.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from glassbox.datasets import data_folder

__all__ = ["Grammar", "Said", "State", "grammar", "parse_grammar", "split_pieces", "start", "step", "unseen_pair"]

# The pieces of a text: GPT-2's own pre-tokens, for plain ASCII. Joined together again they are the text.
PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
# Words too common to carry a fact: repeating one of them is grammar, not memory.
FUNCTION_WORDS = frozenset(
    "a an the in on under behind beside by among inside near at of she he her his him".split()  # noqa: SIM905
)


def split_pieces(text: str) -> list[str]:
    """Cut `text` into pieces: a word with the space before it, a number, a run of signs, a line end."""
    return PIECE.findall(text)


# ---------------------------------------------------------------------------------------------------------------------
# The grammar as data: a rule is a list of alternatives, an alternative a sequence of symbols.
# ---------------------------------------------------------------------------------------------------------------------


class Words(NamedTuple):
    """Words to say, piece by piece; the piece `" "` alone asks for a space before whatever comes next."""

    pieces: tuple[str, ...]
    fact: str = ""  # the settled fact that these words repeat, such as "a.thing"


class Slot(NamedTuple):
    """A fact of somebody or something: drawn when first met, repeated afterwards."""

    owner: str
    kind: str
    style: str  # "" as it is, "^" with a capital, "a" or "A" with the article before it


class Call(NamedTuple):
    """Go on with a rule; `{owner.kind}` inside the name is replaced by that fact's word."""

    rule: str
    arguments: tuple[str, ...]


class Pick(NamedTuple):
    """Alternatives written in place: `[hid|put]`."""

    options: Alternatives


Symbol = Words | Slot | Call | Pick
Todo = tuple[Symbol, "Todo"] | None  # what is still to be said: a linked list, (next symbol, the rest)
Alternatives = tuple[tuple[float, tuple[Symbol, ...]], ...]  # (probability, symbols), probabilities summing to one


@dataclass(frozen=True)
class Grammar:
    """What `data/tales.grammar` says: `rules` by name with their parameters, and word lists by kind."""

    rules: dict[str, tuple[tuple[str, ...], Alternatives]]
    words: dict[str, tuple[tuple[str, float], ...]]  # kind -> (word, weight)
    distinct: frozenset[str]  # kinds whose words never share a content word within a text
    female: frozenset[str]  # names that take "she"
    relations: dict[str, tuple[bool, tuple[tuple[str, ...], ...]]]  # name -> (may be trained on, its pairs of words)


def parse_grammar(text: str) -> Grammar:
    """Read a grammar file. Lines starting with `#` are comments; the file itself explains its notation.

    Raises ValueError that names the line where a rule or slot cannot be understood.
    """
    rules: dict[str, tuple[tuple[str, ...], list[tuple[float, tuple[Symbol, ...]]]]] = {}
    words: dict[str, tuple[tuple[str, float], ...]] = {}
    relations: dict[str, tuple[bool, tuple[tuple[str, ...], ...]]] = {}
    distinct: set[str] = set()
    female: set[str] = set()
    current: list[tuple[float, tuple[Symbol, ...]]] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] == " ":
            if current is None:
                raise ValueError(f"grammar line {number}: an alternative stands before any rule")
            weight = re.match(r"\((\d+)\) ", line.strip())
            body = line.strip()[weight.end() :] if weight else line.strip()
            current.append((float(weight[1]) if weight else 1.0, _parse_symbols(body.replace("\\n", "\n"), number)))
            continue
        head, colon, rest = line.partition(":")
        parts = head.split()
        if not colon or not parts:
            raise ValueError(f"grammar line {number}: expected 'rule:' or 'words kind: ...', got {line!r}")
        if parts[0] in ("words", "anywords", "evenwords", "numbers"):
            entries = [entry.strip() for entry in rest.split(",") if entry.strip()]
            if parts[0] == "numbers":
                low, high = map(int, entries[0].split("-"))
                entries = [str(n) for n in range(low, high + 1)]
            # Zipf's law, flattened at the top (Mandelbrot, 1953): the first word of a list is the commonest.
            zipf = parts[0] in ("words", "anywords")
            words[parts[1]] = tuple(
                (e.removesuffix("/f"), 1.0 / (i + 8) if zipf else 1.0) for i, e in enumerate(entries)
            )
            female.update(entry.removesuffix("/f") for entry in entries if entry.endswith("/f"))
            if parts[0] in ("words", "evenwords"):
                distinct.add(parts[1])
            current = None
        elif parts[0] in ("pairs", "newpairs"):
            table = tuple(tuple(entry.strip().split("/")) for entry in rest.split(","))
            relations[parts[1]] = (parts[0] == "pairs", table)
            current = None
        else:
            if parts[0] in rules:
                raise ValueError(f"grammar line {number}: the rule {parts[0]!r} stands twice")
            current = []
            rules[parts[0]] = (tuple(parts[1:]), current)
    return Grammar(
        rules={name: (parameters, _normalised(body)) for name, (parameters, body) in rules.items()},
        words=words,
        distinct=frozenset(distinct),
        female=frozenset(female),
        relations=relations,
    )


def _normalised(body: list[tuple[float, tuple[Symbol, ...]]]) -> Alternatives:
    total = sum(weight for weight, _ in body)
    return tuple((weight / total, symbols) for weight, symbols in body)


def _parse_symbols(text: str, number: int) -> tuple[Symbol, ...]:
    """One alternative as symbols. `number` is its line, for errors."""
    symbols: list[Symbol] = []
    position = 0
    while position < len(text):
        mark = text[position]
        if mark == "[":
            depth, end, cuts = 0, position, [position]
            for end in range(position, len(text)):
                depth += (text[end] == "[") - (text[end] == "]")
                if text[end] == "|" and depth == 1:
                    cuts.append(end)
                if depth == 0:
                    break
            if depth:
                raise ValueError(f"grammar line {number}: '[' without ']' in {text!r}")
            cuts.append(end)
            options = [(1.0, _parse_symbols(text[i + 1 : j], number)) for i, j in itertools.pairwise(cuts)]
            symbols.append(Pick(_normalised(options)))
            position = end + 1
        elif mark in "<{":
            end = text.find(">" if mark == "<" else "}", position)
            inside = text[position + 1 : end]
            if mark == "<":
                name, *arguments = inside.split(" ") if "{" not in inside else [inside]
                symbols.append(Call(name, tuple(arguments)))
            else:
                slot = re.fullmatch(r"(\^|[aA] )?(\w+)\.(\w+)", inside)
                if end < 0 or not slot:
                    raise ValueError(
                        f"grammar line {number}: expected a slot such as {{a.thing}}, got {text[position:]!r}"
                    )
                symbols.append(Slot(slot[2], slot[3], (slot[1] or "").strip()))
            position = end + 1
        else:
            end = next((i for i in range(position, len(text)) if text[i] in "[<{"), len(text))
            symbols.append(Words(tuple(split_pieces(text[position:end]))))
            position = end
    return tuple(symbols)


@functools.cache
def grammar() -> Grammar:
    """The grammar of Tiny Tales."""
    return parse_grammar((data_folder() / "tales.grammar").read_text("utf-8"))


# ---------------------------------------------------------------------------------------------------------------------
# The machine that writers and readers share: a state says what is still to come and which facts are settled.
# ---------------------------------------------------------------------------------------------------------------------


class State(NamedTuple):
    """A place in the grammar, never changed in place, so that many readings can be followed side by side."""

    todo: Todo
    facts: dict[str, str]  # "a.thing" -> "lantern"
    space: bool = False  # a space is due before the next piece


class Said(NamedTuple):
    """One piece leaves the machine. `fact` names the settled fact that it repeats, if it does."""

    piece: str
    state: State
    fact: str = ""


def start(rule: str = "text", facts: dict[str, str] | None = None, pairs: str = "seen") -> State:
    """The state before the first piece of `rule`, with some `facts` already settled.

    `pairs` decides which owners and things may meet: "seen" leaves out a tenth of all name-thing pairs, "unseen" uses
    only these. A model that was trained on the one and answers on the other composes; it does not remember.
    """
    if pairs not in ("seen", "unseen"):
        raise ValueError(f"pairs must be 'seen' or 'unseen', not {pairs!r}")
    if rule not in grammar().rules:
        raise ValueError(f"the grammar has no rule {rule!r}; 'text' is where a text starts")
    return State((Call(rule, ()), None), {"world.pairs": pairs, **(facts or {})})


def step(state: State) -> Said | list[tuple[float, State]] | None:
    """What can happen next: one piece is said, or the grammar forks (probability, state), or the text ends (None)."""
    if state.todo is None:
        return None
    symbol, rest = state.todo
    match symbol:
        case Words(pieces, fact):
            return _say(pieces, fact, rest, state)
        case Pick(options):
            return [(p, State(_push(symbols, rest), state.facts, state.space)) for p, symbols in options]
        case Call(rule, arguments):
            if "{" in rule:
                rule = re.sub(r"\{(\w+)\.(\w+)\}", lambda slot: known(state.facts, slot[1], slot[2]) or "", rule)
            return [(p, State(_push(symbols, rest), state.facts, state.space)) for p, symbols in _body(rule, arguments)]
        case Slot(owner, kind, style):
            name, value = f"{owner}.{kind}", known(state.facts, owner, kind)
            if value is not None:
                repeat = Words(_spell(value, style), "" if kind in DERIVED else name)
                return [(1.0, State((repeat, rest), state.facts, state.space))]
            return [
                (p, State((Words(_spell(word, style)), rest), settle(state.facts, name, word), state.space))
                for p, word in draws(state.facts, owner, kind)
            ]


def _say(pieces: tuple[str, ...], fact: str, rest: Todo, state: State) -> Said | list[tuple[float, State]]:
    piece = pieces[0]
    todo = (Words(pieces[1:], fact), rest) if len(pieces) > 1 else rest
    if piece == " ":
        return [(1.0, State(todo, state.facts, True))]
    if state.space and piece[0] != " ":
        piece = " " + piece
    carries_fact = fact and piece.strip().lower() not in FUNCTION_WORDS
    return Said(piece, State(todo, state.facts), fact if carries_fact else "")


def _push(symbols: tuple[Symbol, ...], rest: Todo) -> Todo:
    for symbol in reversed(symbols):
        rest = (symbol, rest)
    return rest


def _spell(word: str, style: str) -> tuple[str, ...]:
    """A fact's words as pieces, with a capital (`^`) or with the article before them (`a`, `A`)."""
    if style == "^":
        word = word[0].upper() + word[1:]
    elif style:
        word = f"{style}{'n' if word[0] in 'aeiou' else ''} {word}"
    return tuple(split_pieces(word))


@functools.cache
def _body(rule: str, arguments: tuple[str, ...]) -> Alternatives:
    """The alternatives of `rule` with its parameters replaced: `intro x` called as `<intro a>` speaks of `a`."""
    if rule not in grammar().rules:
        raise ValueError(f"the grammar has no rule {rule!r}")
    parameters, alternatives = grammar().rules[rule]
    if len(parameters) != len(arguments):
        raise ValueError(f"the rule {rule!r} takes {parameters}, was called with {arguments}")
    names = dict(zip(parameters, arguments, strict=True))

    def renamed(symbol: Symbol) -> Symbol:
        match symbol:
            case Slot(owner, kind, style):
                return Slot(names.get(owner, owner), kind, style)
            case Call(name, inner):
                name = re.sub(r"\{(\w+)\.", lambda slot: "{" + names.get(slot[1], slot[1]) + ".", name)
                return Call(name, tuple(names.get(argument, argument) for argument in inner))
            case Pick(options):
                return Pick(tuple((p, tuple(map(renamed, symbols))) for p, symbols in options))
        return symbol

    return tuple((p, tuple(map(renamed, symbols))) for p, symbols in alternatives)


# What follows from settled facts: pronouns from the name, digits and carries from the numbers `x` and `y`.
def _pronoun(she: str, he: str) -> Callable[[dict[str, str], str], str]:
    return lambda facts, owner: she if facts[f"{owner}.name"] in grammar().female else he


def _ones(facts: dict[str, str]) -> int:
    return int(facts["x.number"]) % 10 + int(facts["y.number"]) % 10


def _tens(facts: dict[str, str]) -> int:
    return int(facts["x.number"]) // 10 + int(facts["y.number"]) // 10 + _ones(facts) // 10


DERIVED: dict[str, Callable[[dict[str, str], str], str]] = {
    "he": _pronoun("she", "he"),
    "him": _pronoun("her", "him"),
    "his": _pronoun("her", "his"),
    "tens": lambda facts, owner: str(int(facts[f"{owner}.number"]) // 10),
    "ones": lambda facts, owner: str(int(facts[f"{owner}.number"]) % 10),
    "onesum": lambda facts, owner: str(_ones(facts)),
    "write": lambda facts, owner: str(_ones(facts) % 10),
    "carry": lambda facts, owner: "yes" if _ones(facts) > 9 else "no",
    "tensum": lambda facts, owner: str(_tens(facts)),
    "total": lambda facts, owner: str(int(facts["x.number"]) + int(facts["y.number"])),
}


def settle(facts: dict[str, str], name: str, word: str) -> dict[str, str]:
    """The facts with one more; what belongs to `any` is drawn afresh each time and settles nothing."""
    return facts if name.startswith("any.") else {**facts, name: word}


def known(facts: dict[str, str], owner: str, kind: str) -> str | None:
    """The word of a settled fact, or of one that follows from settled facts; None if it is still open."""
    if kind in DERIVED:
        return DERIVED[kind](facts, owner)
    return facts.get(f"{owner}.{kind}")


def draws(facts: dict[str, str], owner: str, kind: str) -> list[tuple[float, str]]:
    """The words that an open slot can take, with their probabilities.

    Facts of a text never share a content word, so that every fact can be asked for; and only the pairs of name and
    thing that `facts["world.pairs"]` allows are drawn.
    """
    language = grammar()
    if kind not in language.words:
        raise ValueError(f"the grammar has no words of kind {kind!r} (slot {owner}.{kind})")
    entries = language.words[kind]
    if kind in language.distinct:
        used = {w for fact, value in facts.items() if fact.split(".")[1] in language.distinct for w in _content(value)}
        entries = tuple(entry for entry in entries if used.isdisjoint(_content(entry[0])))
    partner = facts.get(f"{owner}.name" if kind == "thing" else f"{owner}.thing" if kind == "name" else "")
    if partner is not None:
        wanted = facts["world.pairs"] == "unseen"
        entries = tuple(entry for entry in entries if unseen_pair(partner, entry[0]) == wanted)
    if not entries:
        raise ValueError(f"no word of kind {kind!r} is left for {owner}: {facts}")
    total = sum(weight for _, weight in entries)
    return [(weight / total, word) for word, weight in entries]


@functools.cache
def _content(value: str) -> frozenset[str]:
    return frozenset(value.lower().split()) - FUNCTION_WORDS


@functools.cache
def _ranks() -> dict[str, int]:
    return {word: rank for kind in ("name", "thing") for rank, (word, _) in enumerate(grammar().words[kind])}


def unseen_pair(one: str, other: str) -> bool:
    """Whether a name and a thing (in either order) are one of the pairs that training texts leave out."""
    return (_ranks()[one] + _ranks()[other]) % 10 == 0
