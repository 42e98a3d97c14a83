"""The exercises of 01_tokenizer: the course's answer, the cases that try a reader's, and the mistakes known by name."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain, pairwise, repeat
from typing import Any

from glassbox import bpe, tokenizer
from glassbox.bpe import Pair
from glassbox.lab import Exercise, Finding, Mistake
from glassbox.tokenizer import BPETokenizer

__all__ = [
    "boundary_attack",
    "count_pairs",
    "describe_cut",
    "encode_word",
    "merge_pair",
    "planted_fault",
    "split_special",
    "two_trainers",
]

Words = Sequence[Sequence[int]]
Counts = Sequence[int]


# --- break it ---


def planted_fault(words: Iterable[Sequence[int]], counts: Sequence[int], n_merges: int) -> dict[Pair, int]:
    """A trainer like `train_merges` that adds the pairs which a merge makes, and forgets those which it destroys."""
    spelled = [list(word) for word in words]
    totals = Counter(bpe.count_pairs(spelled, counts))
    ranks: dict[Pair, int] = {}
    for new in range(256, 256 + n_merges):
        if not totals:
            raise ValueError(f"these words have pairs for {len(ranks)} merges, not for {n_merges}: give more text")
        pair = min(totals, key=lambda pair: (-totals[pair], pair))
        del totals[pair]
        ranks[pair] = new
        for i, word in enumerate(spelled):
            if pair in pairwise(word):
                spelled[i] = bpe.merge_pair(word, pair, new)
                for neighbours in pairwise(spelled[i]):
                    if new in neighbours:
                        totals[neighbours] += counts[i]
    return ranks


def two_trainers(words: Sequence[Sequence[int]], counts: Sequence[int], n_merges: int) -> dict[str, dict[Pair, int]]:
    """The merges of a right trainer and of the faulty one, under names that do not tell which is which."""
    return {
        "trainer A": planted_fault(words, counts, n_merges),
        "trainer B": bpe.train_merges(words, counts, n_merges),
    }


# --- 1. count_pairs ---


def _ignores_counts(words: Words, counts: Counts) -> dict[Pair, int]:
    return bpe.count_pairs(words, [1] * len(words))


def _across_words(words: Words, counts: Counts) -> dict[Pair, int]:
    copies = chain.from_iterable(map(repeat, words, counts))
    return dict(Counter(pairwise(chain.from_iterable(copies))))


def _counts_if(words: Words, counts: Counts, keep: Callable[[Sequence[int], int], bool]) -> dict[Pair, int]:
    """The right counts, but only of the pairs that begin at certain places."""
    pairs: Counter[Pair] = Counter()
    for ids, count in zip(words, counts, strict=True):
        for i, pair in enumerate(pairwise(ids)):
            if keep(ids, i):
                pairs[pair] += count
    return dict(pairs)


def _without_overlap(words: Words, counts: Counts) -> dict[Pair, int]:
    pairs: Counter[Pair] = Counter()
    for ids, count in zip(words, counts, strict=True):
        for pair in set(pairwise(ids)):
            pairs[pair] += count * (len(ids) - len(bpe.merge_pair(ids, pair, 0)))
    return dict(pairs)


def _even_places(words: Words, counts: Counts) -> dict[Pair, int]:
    return _counts_if(words, counts, lambda ids, i: i % 2 == 0)


def _last_pair_lost(words: Words, counts: Counts) -> dict[Pair, int]:
    return _counts_if(words, counts, lambda ids, i: i < len(ids) - 2)


def _first_pair_lost(words: Words, counts: Counts) -> dict[Pair, int]:
    return _counts_if(words, counts, lambda ids, i: i > 0)


def _once_per_word(words: Words, counts: Counts) -> dict[Pair, int]:
    return _counts_if(words, counts, lambda ids, i: (ids[i], ids[i + 1]) not in list(pairwise(ids))[:i])


def _last_word_only(words: Words, counts: Counts) -> dict[Pair, int]:
    return {pair: count for ids, count in zip(words, counts, strict=True) for pair in pairwise(ids)}


def _from_two_on(words: Words, counts: Counts) -> dict[Pair, int]:
    return {pair: count for pair, count in bpe.count_pairs(words, counts).items() if count > 1}


def _sorts_the_pair(words: Words, counts: Counts) -> dict[Pair, int]:
    return bpe.count_pairs([pair for ids in words for pair in map(sorted, pairwise(ids))], _each_pair(words, counts))


def _each_pair(words: Words, counts: Counts) -> list[int]:
    """The count of each word, once for each of its pairs."""
    return [count for ids, count in zip(words, counts, strict=True) for _ in ids[1:]]


def _in_a_circle(words: Words, counts: Counts) -> dict[Pair, int]:
    return bpe.count_pairs([[*ids[-1:], *ids] for ids in words], counts)


def _past_the_end(words: Words, counts: Counts) -> dict[Pair, int]:
    return {(ids[i], ids[i + 1]): count for ids, count in zip(words, counts, strict=True) for i in range(len(ids))}


def _adds_to_nothing(words: Words, counts: Counts) -> dict[Pair, int]:
    pairs: dict[Pair, int] = {}
    for pair, count in zip(chain.from_iterable(map(pairwise, words)), _each_pair(words, counts), strict=True):
        pairs[pair] += count
    return pairs


def _lists_as_keys(words: Words, counts: Counts) -> dict[Any, int]:
    pairs: dict[Any, int] = {}
    for ids, count in zip(words, counts, strict=True):
        for i in range(len(ids) - 1):
            pairs[ids[i : i + 2]] = pairs.get(ids[i : i + 2], 0) + count
    return pairs


count_pairs = Exercise(
    name="count_pairs",
    reference=bpe.count_pairs,
    cases=[
        ([[1, 2, 3]], [1]),
        ([[1, 2, 3, 1, 2]], [1]),
        ([[1, 2], [3, 4, 5]], [4, 2]),
        ([[1, 2], [1, 2, 3]], [5, 2]),
        ([[7, 7, 7]], [1]),
        ([[1, 2], [2, 1]], [1, 3]),
        ([[4], [], [5, 6]], [3, 2, 1]),
        ([], []),
    ],
    mistakes=[
        Mistake(_ignores_counts, "a word that occurs 4 times has its pairs 4 times: add the word's count, not 1."),
        Mistake(_across_words, "you count across the border of two words: each word on its own, no pair crosses."),
        Mistake(_without_overlap, "7, 7, 7 has two pairs of neighbours, (7, 7) twice: here overlaps count."),
        Mistake(_even_places, "you step over two ids at a time: a pair begins at every id but the last."),
        Mistake(_last_pair_lost, "the last pair of each word is missing: n ids have n - 1 pairs."),
        Mistake(_first_pair_lost, "the first pair of each word is missing: begin at place 0."),
        Mistake(_once_per_word, "a pair that stands twice in a word counts twice: a set forgets that."),
        Mistake(_last_word_only, "a later find overwrote the earlier ones: add to the count of a pair, do not assign."),
        Mistake(_from_two_on, "pairs that occur once are missing: count them all, the trainer chooses."),
        Mistake(_sorts_the_pair, "(1, 2) and (2, 1) are two different pairs: keep the order of the ids."),
        Mistake(
            _in_a_circle, "the last id is paired with the first: ids[-1] is the end of a word, not what is before it."
        ),
        Mistake(_past_the_end, "the last id has no right neighbour: stop one earlier, range(len(ids) - 1)."),
        Mistake(_adds_to_nothing, "a dict knows no pair at first: pairs.get(pair, 0), or a Counter, begins at 0."),
        Mistake(_lists_as_keys, "a list cannot be a key: make the pair a tuple, (ids[i], ids[i + 1])."),
    ],
    hint="walk over words and counts together; for each pair of neighbours in the word, add the word's count.",
)


# --- 2. merge_pair ---


def _every_occurrence(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    found = [i for i, both in enumerate(pairwise(ids)) if both == pair]
    return [new if i in found else old for i, old in enumerate(ids) if i in found or i - 1 not in found]


def _one_step_on(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    return [new if tuple(ids[i : i + 2]) == pair else ids[i] for i in range(len(ids))]


def _right_to_left(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    return bpe.merge_pair(ids[::-1], (pair[1], pair[0]), new)[::-1]


def _changes_input(ids: list[int], pair: Pair, new: int) -> list[int]:
    ids[:] = bpe.merge_pair(ids, pair, new)
    return ids


def _looks_for_the_left(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    merged = list(ids)
    while pair in pairwise(merged):
        at = merged.index(pair[0])
        merged[at : at + 2] = [new]
    return merged


def _replaces_in_text(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    text = " ".join(map(str, ids)).replace(f"{pair[0]} {pair[1]}", str(new))
    return [int(number) for number in text.split()]


def _replaces_in_bytes(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    return list(bytes(ids).replace(bytes(pair), bytes([new])))


def _loses_the_last(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    ends_alone = ids and bpe.merge_pair(ids, pair, new)[-1] == ids[-1]
    return bpe.merge_pair(ids, pair, new)[: -1 if ends_alone else None]


def _last_twice(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    merged = bpe.merge_pair(ids, pair, new)
    return [*merged, *ids[-1:]] if merged[-1:] == [new] else merged


def _last_pair_stays(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    return [*bpe.merge_pair(ids[:-1], pair, new), *ids[-1:]]


def _beyond_the_end(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    merged, i = [], 0
    while i < len(ids):
        found = (ids[i], ids[i + 1]) == pair
        merged.append(new if found else ids[i])
        i += 1 + found
    return merged


def _first_only(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    at = [*pairwise(ids), pair].index(pair)
    return [*ids[:at], *bpe.merge_pair(ids[at : at + 2], pair, new), *ids[at + 2 :]]


def _single_members(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    return [new if old in pair else old for old in ids]


def _list_against_tuple(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    return list(ids)


def _blocks_of_two(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    blocks = (ids[i : i + 2] for i in range(0, len(ids), 2))
    return [i for block in blocks for i in bpe.merge_pair(block, pair, new)]


def _either_order(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    merged, i = [], 0
    while i < len(ids):
        found = sorted(ids[i : i + 2]) == sorted(pair)
        merged.append(new if found else ids[i])
        i += 1 + found
    return merged


def _adds_but_keeps(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    merged = bpe.merge_pair(ids, pair, new)
    return [i for old in merged for i in ([*pair, new] if old == new else [old])]


def _a_tuple(ids: Sequence[int], pair: Pair, new: int) -> Any:
    return tuple(bpe.merge_pair(ids, pair, new))


merge_pair = Exercise(
    name="merge_pair",
    reference=bpe.merge_pair,
    cases=[
        ([5, 1, 2, 6], (1, 2), 256),
        ([7, 7, 7], (7, 7), 256),
        ([1, 2, 3, 1, 2], (1, 2), 256),
        ([1, 3, 2, 1, 1, 2, 4], (1, 2), 256),
        ([2, 1, 2, 2], (2, 1), 300),
        ([11, 2, 1, 22], (1, 2), 256),
        ([9, 7, 7, 7, 7, 7], (7, 7), 256),
        ([1], (1, 2), 256),
        ([], (1, 2), 256),
    ],
    mistakes=[
        Mistake(_every_occurrence, "7, 7, 7 gives [256, 7], left to right: an id that was merged is used up."),
        Mistake(_one_step_on, "the right member of the pair stays behind: after a merge go two places on, not one."),
        Mistake(_right_to_left, "7, 7, 7 gives [256, 7]: merge from the left, not from the right."),
        Mistake(_changes_input, "the caller's list was changed: build a new list and return that."),
        Mistake(
            _looks_for_the_left,
            "the left id was looked for alone, and replaced where the right one does not follow: compare both.",
        ),
        Mistake(_replaces_in_text, 'as text "11 2" holds "1 2": compare the ids themselves, not their digits.'),
        Mistake(_replaces_in_bytes, "a byte ends at 255, and new ids begin at 256: work on a list of ids."),
        Mistake(_loses_the_last, "the last id is lost where it belongs to no pair: it has to be copied too."),
        Mistake(_last_twice, "the last id is there twice, merged and as it was: copy it only if no merge took it."),
        Mistake(_last_pair_stays, "a pair at the very end is not merged: the loop stops one place too early."),
        Mistake(_beyond_the_end, "the last id has no right neighbour: ids[i + 1] only where i + 1 < len(ids)."),
        Mistake(_first_only, "only the first occurrence was merged: go on to the end of the word."),
        Mistake(
            _single_members, "an id of the pair that stands alone is not the pair: both, side by side, become one."
        ),
        Mistake(_list_against_tuple, "nothing was merged: is a list compared with a tuple? They are never equal."),
        Mistake(
            _blocks_of_two, "a pair may begin at any place, not only at 0, 2, 4: go on by one where none is found."
        ),
        Mistake(_either_order, "(2, 1) is not (1, 2): compare the pair in its order."),
        Mistake(_adds_but_keeps, "the new id replaces the pair: the two old ids must go."),
        Mistake(_a_tuple, "the ids are right, but in a tuple: return a list."),
    ],
    hint="a while loop with a place i: where ids[i] and ids[i + 1] are the pair, append `new` and go on by two.",
)


# --- 3. encode_word ---


def _merges(*merges: str) -> dict[Pair, int]:
    """Ranks from merges in the order in which they were learned, such as "t+h", "th+e"."""
    ids, ranks = {chr(byte): byte for byte in range(128)}, {}
    for new, merge in enumerate(merges, start=256):
        left, right = merge.split("+")
        ranks[ids[left], ids[right]] = ids[left + right] = new
    return ranks


def _spelled(ranks: Mapping[Pair, int]) -> dict[int, str]:
    """The letters of each id."""
    spelled = {byte: chr(byte) for byte in range(128)}
    for (left, right), new in ranks.items():
        spelled[new] = spelled[left] + spelled[right]
    return spelled


def _letters(ids: Iterable[int], ranks: Mapping[Pair, int]) -> str:
    """Ids as text, "th|e"."""
    spelled = _spelled(ranks)
    return "|".join(spelled.get(i, f"<{i}>") for i in ids)


def _closed(token: int, start: int, ranks: Mapping[Pair, int]) -> list[int]:
    """The cuts inside a token that begins at `start`, in an order in which its merges can close them."""
    pair = next((pair for pair, new in ranks.items() if new == token), None)
    if pair is None:
        return []
    middle = start + len(_spelled(ranks)[pair[0]])
    return [*_closed(pair[0], start, ranks), *_closed(pair[1], middle, ranks), middle]


def _steps(word: str, parse: list[int], ranks: Mapping[Pair, int]) -> str:
    """How a parse can come about, token by token from the left: "t|h|e -> th|e"."""
    closed: list[int] = []
    start = 0
    for token in parse:
        closed += _closed(token, start, ranks)
        start += len(_spelled(ranks)[token])
    shown = []
    for n in range(len(closed) + 1):
        shown.append("".join("|" * (i > 0 and i not in closed[:n]) + letter for i, letter in enumerate(word)))
    return " -> ".join(shown)


def _steps_by_rank(word: str, ranks: Mapping[Pair, int]) -> str:
    """The right parse, in its order."""
    ids = list(word.encode())
    shown = [_letters(ids, ranks)]
    for pair, new in ranks.items():
        if pair in pairwise(ids):
            ids = bpe.merge_pair(ids, pair, new)
            shown.append(_letters(ids, ranks))
    return " -> ".join(shown)


def _parsed(word: str, *merges: str) -> Callable[[Callable[..., Any]], Any]:
    """A probe: a word under hand-made merges. Another parse is shown beside the right one, step by step."""
    ranks, ids = _merges(*merges), list(word.encode())
    right = bpe.encode_word(ids, ranks)

    def probe(f: Callable[..., Any]) -> Any:
        mine = f(list(ids), dict(ranks))
        if type(mine) is list and mine != right and all(type(i) is int for i in mine):
            right_way = f"right, by rank: {_steps_by_rank(word, ranks)}"
            if _letters(mine, ranks).replace("|", "") != word:
                raise AssertionError(f"your ids spell {_letters(mine, ranks)!r}, another word\n  {right_way}")
            raise AssertionError(f"another parse\n  yours, from the left: {_steps(word, mine, ranks)}\n  {right_way}")
        return mine

    probe.__doc__ = f'"{word}" under the merges {", ".join(merges)}, learned in this order'
    return probe


def _known(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[Pair]:
    return [pair for pair in pairwise(ids) if pair in ranks]


def _by(ids: Sequence[int], ranks: Mapping[Pair, int], choose: Callable[[list[Pair]], Pair]) -> list[int]:
    """The course's loop with another choice of the next merge."""
    ids = list(ids)
    while pairs := _known(ids, ranks):
        pair = choose(pairs)
        ids = bpe.merge_pair(ids, pair, ranks[pair])
    return ids


def _first_found(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    return _by(ids, ranks, lambda pairs: pairs[0])


def _last_found(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    return _by(ids, ranks, lambda pairs: pairs[-1])


def _latest_learned(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    return _by(ids, ranks, lambda pairs: max(pairs, key=ranks.__getitem__))


def _longest_result(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    return _by(ids, ranks, lambda pairs: max(pairs, key=lambda pair: len(_spelled(ranks)[ranks[pair]])))


def _most_frequent(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    return _by(ids, ranks, lambda pairs: max(pairs, key=pairs.count))


def _smallest_pair(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    return _by(ids, ranks, min)


def _longest_from_the_left(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    whole: dict[int, tuple[int, ...]] = {i: (i,) for i in {*ids, *chain.from_iterable(ranks)}}
    for (left, right), new in ranks.items():
        whole[new] = (*whole[left], *whole[right])
    tokens = {parts: token for token, parts in whole.items()}
    parse, at = [], 0
    while at < len(ids):
        size = max(n for n in range(1, len(ids) - at + 1) if tuple(ids[at : at + n]) in tokens)
        parse.append(tokens[tuple(ids[at : at + size])])
        at += size
    return parse


def _one_sweep(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    merged, i = [], 0
    while i < len(ids):
        found = tuple(ids[i : i + 2]) in ranks
        merged.append(ranks[ids[i], ids[i + 1]] if found else ids[i])
        i += 1 + found
    return merged


def _one_merge(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    pairs = _known(ids, ranks)
    first = min(pairs, key=ranks.__getitem__, default=None)
    return bpe.merge_pair(ids, first, ranks[first]) if first else list(ids)


def _pairs_of_the_bytes(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    for pair in sorted(_known(ids, ranks), key=ranks.__getitem__):
        ids = bpe.merge_pair(ids, pair, ranks[pair])
    return list(ids)


def _one_place_per_rank(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    for pair, new in ranks.items():
        ids = _first_only(ids, pair, new)
    return list(ids)


def _asks_for_unknown(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    while len(ids) > 1:
        first = min(pairwise(ids), key=lambda pair: ranks[pair])
        ids = bpe.merge_pair(ids, first, ranks[first])
    return list(ids)


def _compares_none(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    ids = list(ids)
    while any(pair in ranks for pair in pairwise(ids)):
        first: Any = min(pairwise(ids), key=ranks.get)  # type: ignore[arg-type]
        ids = bpe.merge_pair(ids, first, ranks[first])
    return ids


def _no_end(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    while True:
        first = min(_known(ids, ranks), key=lambda pair: ranks[pair])
        ids = bpe.merge_pair(ids, first, ranks[first])


def _numbers_the_ranks(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    return bpe.encode_word(ids, {pair: 256 + i for i, pair in enumerate(ranks)})


def _merges_in_place(ids: list[int], ranks: Mapping[Pair, int]) -> list[int]:
    ids[:] = bpe.encode_word(ids, ranks)
    return ids


def _as_a_tuple(ids: Sequence[int], ranks: Mapping[Pair, int]) -> Any:
    return tuple(bpe.encode_word(ids, ranks))


RULE = "always the pair that was learned first, the one with the least id"

encode_word = Exercise(
    name="encode_word",
    reference=bpe.encode_word,
    cases=[
        _parsed("mother", "o+t", "h+e", "he+r", "e+r", "m+o"),
        _parsed("remember", "e+m", "b+e", "be+r", "e+r", "em+be", "r+e"),
        _parsed("banana", "n+a", "a+na", "a+n", "na+na", "b+a", "a+nana"),
        _parsed("tomato", "o+m", "t+o", "m+a", "ma+t", "a+to", "a+t"),
        _parsed("weather", "e+a", "h+e", "e+r", "ea+t", "w+e", "w+ea"),
        ([1, 2, 3], {(2, 3): 10, (1, 10): 11}),
        ([5, 6, 7], {(5, 6): 300}),
        ([5, 6, 7], {}),
        ([], {(1, 2): 10}),
    ],
    mistakes=[
        Mistake(_first_found, f"you merge the first pair from the left that is known; {RULE}."),
        Mistake(_last_found, f"you merge the first pair from the right that is known; {RULE}."),
        Mistake(_latest_learned, f"you merge the pair that was learned last; {RULE}: min, not max."),
        Mistake(_longest_result, f"you merge the pair that makes the longest token; {RULE}, however short."),
        Mistake(_longest_from_the_left, "you take the longest token that fits, from the left; BPE repeats its merges."),
        Mistake(_most_frequent, f"the most frequent pair is the rule of training; in encoding {RULE}."),
        Mistake(_smallest_pair, "min compares the ids in the pair; compare the id that it makes, key=ranks.get."),
        Mistake(
            _one_sweep, "one sweep from the left joins whatever is known; look for the least rank, and look again."
        ),
        Mistake(_one_merge, "one merge is not the end: a new id has new neighbours. Repeat until no pair is known."),
        Mistake(_pairs_of_the_bytes, "the pairs were listed once, at the start: after each merge list them anew."),
        Mistake(_one_place_per_rank, "a pair that occurs twice is merged twice: take every occurrence."),
        Mistake(
            _asks_for_unknown, "most pairs were never learned, and ranks[pair] fails for those: leave them out first."
        ),
        Mistake(_compares_none, "ranks.get gives None for an unknown pair, which has no order: leave those out first."),
        Mistake(_no_end, "no pair is left and the loop goes on: stop where no neighbours are in `ranks`."),
        Mistake(_numbers_the_ranks, "the new id is ranks[pair]; do not number the merges yourself."),
        Mistake(_merges_in_place, "the caller's list was changed: begin with a copy, list(ids)."),
        Mistake(_as_a_tuple, "the parse is right, but in a tuple: return a list."),
    ],
    hint="while some neighbours are in `ranks`: the pair with the least ranks[pair], merge_pair, and look again.",
)


# --- 4. split_special ---


def _alternatives(special_tokens: Iterable[str]) -> str:
    return "|".join(map(re.escape, special_tokens))


def _shorter_first(text: str, special_tokens: Sequence[str]) -> list[str]:
    return re.split(f"({_alternatives(sorted(special_tokens, key=len))})", text) if special_tokens else [text]


def _order_as_given(text: str, special_tokens: Sequence[str]) -> list[str]:
    return re.split(f"({_alternatives(special_tokens)})", text) if special_tokens else [text]


def _longest_first(special_tokens: Sequence[str]) -> list[str]:
    return sorted(special_tokens, key=len, reverse=True)


def _not_escaped(text: str, special_tokens: Sequence[str]) -> list[str]:
    return re.split(f"({'|'.join(_longest_first(special_tokens))})", text) if special_tokens else [text]


def _bar_escaped(text: str, special_tokens: Sequence[str]) -> list[str]:
    return re.split(f"({re.escape('|'.join(_longest_first(special_tokens)))})", text) if special_tokens else [text]


def _only_bars_escaped(text: str, special_tokens: Sequence[str]) -> list[str]:
    escaped = (token.replace("|", r"\|") for token in _longest_first(special_tokens))
    return re.split(f"({'|'.join(escaped)})", text) if special_tokens else [text]


def _drops_empty_parts(text: str, special_tokens: Sequence[str]) -> list[str]:
    return [part for part in tokenizer.split_special(text, special_tokens) if part]


def _loses_the_tokens(text: str, special_tokens: Sequence[str]) -> list[str]:
    return tokenizer.split_special(text, special_tokens)[::2]


def _no_ordinary_parts(text: str, special_tokens: Sequence[str]) -> list[str]:
    return tokenizer.split_special(text, special_tokens)[1::2]


def _group_each(text: str, special_tokens: Sequence[str]) -> list[Any]:
    groups = "|".join(f"({re.escape(token)})" for token in _longest_first(special_tokens))
    return re.split(groups, text) if special_tokens else [text]


def _first_token_only(text: str, special_tokens: Sequence[str]) -> list[str]:
    return tokenizer.split_special(text, special_tokens[:1])


def _first_place_only(text: str, special_tokens: Sequence[str]) -> list[str]:
    return (
        re.split(f"({_alternatives(_longest_first(special_tokens))})", text, maxsplit=1) if special_tokens else [text]
    )


def _nothing_splits(text: str, special_tokens: Sequence[str]) -> list[str]:
    return re.split(f"({_alternatives(_longest_first(special_tokens))})", text)


def _no_text_left(text: str, special_tokens: Sequence[str]) -> list[str]:
    return tokenizer.split_special(text, special_tokens) if special_tokens else []


def _strips(text: str, special_tokens: Sequence[str]) -> list[str]:
    return [part.strip() for part in tokenizer.split_special(text, special_tokens)]


def _sorts_in_place(text: str, special_tokens: list[str]) -> list[str]:
    special_tokens.sort(key=len, reverse=True)
    return tokenizer.split_special(text, special_tokens)


END_TAG, END_TAGS, DOTTED = "<|end|>", "<|end|>s", "<v1.0>"

split_special = Exercise(
    name="split_special",
    reference=tokenizer.split_special,
    cases=[
        ("One. <|end|> Two.", [END_TAG]),
        ("<|end|>a<|end|><|end|>", [END_TAG]),
        ("x <|end|>s y <|end|> z", [END_TAG, END_TAGS]),
        ("x <|end|>s y <|end|> z", [END_TAGS, END_TAG]),
        ("v1.0 <v1.0> <v1x0>", [DOTTED]),
        ("no end in sight", [END_TAG]),
        ("a <|end|> b", []),
        ("", [END_TAG]),
    ],
    mistakes=[
        Mistake(_shorter_first, "the shorter of two tokens that begin alike won: try the longer ones first."),
        Mistake(
            _order_as_given, "re takes the first alternative that fits, in your order: sort the longer ones first."
        ),
        Mistake(_not_escaped, "in a regular expression | means `or`, and a dot any sign: use re.escape on each token."),
        Mistake(_bar_escaped, "you escaped the | between the tokens too: re.escape each one, and then join."),
        Mistake(
            _only_bars_escaped, "an unescaped dot stands for any sign, so <v1x0> was cut: re.escape does all signs."
        ),
        Mistake(
            _drops_empty_parts, "empty parts are needed: without them the special tokens are no longer at odd places."
        ),
        Mistake(_loses_the_tokens, "the special tokens are gone: re.split keeps them where the pattern has a (group)."),
        Mistake(_no_ordinary_parts, "only the special tokens are left: the text between them belongs to the answer."),
        Mistake(_group_each, "each group of its own adds a None where it found nothing: one group around them all."),
        Mistake(_first_token_only, "you cut at one of the special tokens only: join them all with |."),
        Mistake(_first_place_only, "you cut at the first place only: go on to the end of the text."),
        Mistake(_nothing_splits, "a pattern of no tokens fits between any two signs: without tokens return [text]."),
        Mistake(_no_text_left, "without special tokens the whole text is one ordinary part: return [text]."),
        Mistake(_strips, "white space belongs to the text: joined, the parts must be the text again."),
        Mistake(_sorts_in_place, "the caller's list was sorted: sorted(...) makes a new one, .sort() does not."),
    ],
    hint="re.split with one (group) of all tokens, each through re.escape, joined with |, the longest first.",
)


# --- 5. boundary_attack ---


@functools.cache
def _course() -> BPETokenizer:
    return BPETokenizer.load()


def _shown(ids: Sequence[int], place: int) -> str:
    """One token as text, as bytes where it is only part of a sign, or that there is none."""
    if place >= len(ids):
        return "missing"
    token = _course().decode_bytes([ids[place]])
    text = token.decode("utf-8", "replace")
    return repr(token if "\ufffd" in text else text)


def _parting(prompt: str, continuation: str) -> tuple[list[int], list[int], int]:
    """The ids of the prompt, those of the whole, and how many of the first are the same."""
    ids, whole = _course().encode(prompt), _course().encode(prompt + continuation)
    same = next((i for i, (a, b) in enumerate(zip(ids, whole, strict=False)) if a != b), min(len(ids), len(whole)))
    return ids, whole, same


def describe_cut(prompt: str, continuation: str) -> str:
    """Say in words which token, in the course's vocabulary, crosses the cut between a prompt and its continuation."""
    ids, whole, same = _parting(prompt, continuation)
    if same == len(ids):
        return f"nothing changes: the prompt's {len(ids)} tokens are the first {len(ids)} of the whole"
    lost = ", ".join(_shown(ids, i) for i in range(same, len(ids)))
    differs = f"token {same} (counted from 0) is the first that differs"
    said = f"{differs}: the prompt ends in {lost}, the whole has {_shown(whole, same)}"
    ends = list(accumulate(len(_course().decode_bytes([i])) for i in whole))
    cut = len(prompt.encode())
    crossing = next(i for i, end in enumerate(ends) if end >= cut)
    if ends[crossing] == cut:
        return f"{said}; no token crosses the cut, but what follows it changes what is before"
    return f"{said}; token {crossing} of the whole, {_shown(whole, crossing)}, crosses the cut"


def _holds(prompt: str, continuation: str) -> bool:
    ids, _whole, same = _parting(prompt, continuation)
    return same < len(ids)


def at_the_cut(f: Callable[..., Any]) -> Finding:
    """the cut between your prompt and your continuation, with the course's vocabulary"""
    pair = f(_course().encode)
    if pair is None:
        return Finding("None, and not two texts")
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        return Finding("not a pair of two texts")
    prompt, continuation = pair
    if not isinstance(prompt, str) or not isinstance(continuation, str):
        return Finding("a pair, but not of texts")
    if not prompt or not continuation:
        return Finding(f"an empty {'continuation' if prompt else 'prompt'}")
    if _holds(prompt, continuation):
        return Finding("changed tokens")
    if continuation.startswith(" "):
        sort = "two spaces" if prompt.endswith(" ") else "a space that goes with its word"
    elif prompt.endswith(" "):
        sort = "a space that stays alone"
    else:
        sort = "turned round" if _holds(continuation, prompt) else "tokens meet here"
    _ids, whole, same = _parting(prompt, continuation)
    return Finding(sort, f"unchanged tokens: {same - 1} is {_shown(whole, same - 1)}, {same} is {_shown(whole, same)}")


def _boundary_attack(encode: Callable[[str], list[int]]) -> tuple[str, str]:
    """A prompt and a continuation such that the tokens of the prompt are not the first tokens of both together."""
    prompt, continuation = "Once upon a time ", "there was"
    ids = encode(prompt)
    assert encode(prompt + continuation)[: len(ids)] != ids
    return prompt, continuation


def _natural_cut(encode: Callable[[str], list[int]]) -> tuple[str, str]:
    return "Once upon a time", " there was"


def _two_spaces(encode: Callable[[str], list[int]]) -> tuple[str, str]:
    return "Once upon a time ", " there was"


def _space_alone(encode: Callable[[str], list[int]]) -> tuple[str, str]:
    return "Once upon a time ", "Ω"


def _where_tokens_meet(encode: Callable[[str], list[int]]) -> tuple[str, str]:
    return "On", "ce upon a time"


def _turned_round(encode: Callable[[str], list[int]]) -> tuple[str, str]:
    return "there was", "Once upon a time "


def _empty_continuation(encode: Callable[[str], list[int]]) -> tuple[str, str]:
    return "Once upon a time ", ""


def _empty_prompt(encode: Callable[[str], list[int]]) -> tuple[str, str]:
    return "", "there was"


def _compares_text(encode: Callable[[str], list[int]]) -> Any:
    text = "Once upon a time there was"
    return next(((text[:i], text[i:]) for i in range(1, len(text)) if not text.startswith(text[:i])), None)


def _one_text(encode: Callable[[str], list[int]]) -> Any:
    return "Once upon a time there was"


def _gives_ids(encode: Callable[[str], list[int]]) -> Any:
    return encode("Once upon a time "), encode("there was")


boundary_attack = Exercise(
    name="boundary_attack",
    reference=_boundary_attack,
    cases=[at_the_cut],
    mistakes=[
        Mistake(
            _natural_cut, "the space goes with the word after it, so no token crosses the natural cut: cut inside one."
        ),
        Mistake(
            _two_spaces, "two spaces: the second goes with the word, and the prompt keeps the first. One is enough."
        ),
        Mistake(
            _space_alone,
            "no token holds this space and what follows it, so the space stays alone: let a common word follow.",
        ),
        Mistake(
            _where_tokens_meet,
            "two tokens of the whole meet just here, and nothing crosses: cut inside one. Which tokens hold a space?",
        ),
        Mistake(_turned_round, "the order is (prompt, continuation): turned round, yours would be right."),
        Mistake(
            _empty_continuation, "with nothing after it the prompt is the whole, token for token: say how it goes on."
        ),
        Mistake(_empty_prompt, "an empty prompt has no tokens that could change: it needs at least one sign."),
        Mistake(
            _compares_text,
            "nothing was returned. Did you compare texts? A prompt always begins the whole text: compare the ids.",
        ),
        Mistake(_one_text, "return two texts, (prompt, continuation): the cut between them is what is asked for."),
        Mistake(_gives_ids, "return the texts themselves, not their ids: the check encodes them."),
    ],
    hint="print the tokens of a sentence: which of them begin with a space? What if a prompt ends inside one?",
)
