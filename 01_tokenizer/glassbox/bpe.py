"""The algorithm of byte-pair encoding, on ids alone: learn merges, and apply them.

A *word* is a sequence of ids, at first one for each byte. A *merge* replaces a pair of neighbours by a new id. Training
chooses the merges, encoding applies them in the same order. What the ids stand for is the business of tokenizer.py.

Sources: Gage, A New Algorithm for Data Compression (1994); Sennrich, Haddow and Birch, Neural Machine Translation of
Rare Words with Subword Units (2016).
"""

from __future__ import annotations

import heapq
import operator
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from operator import add

from tqdm import trange

__all__ = [
    "count_pairs",
    "encode_long_word",
    "encode_word",
    "merge_pair",
    "pop_most_frequent",
    "train_merges",
]

Pair = tuple[int, int]
GONE = -1  # stands where an id was merged into the one on its left


# --- training ---


def count_pairs(words: Iterable[Sequence[int]], counts: Iterable[int]) -> dict[Pair, int]:
    """Count neighbours: how often each pair of ids stands side by side in words that occur `counts` times each."""
    pairs: Counter[Pair] = Counter()
    for ids, count in zip(words, counts, strict=True):
        for pair in pairwise(ids):
            pairs[pair] += count
    return dict(pairs)


def merge_pair(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    """Return ids with each occurrence of the pair replaced by the id `new`, from left to right, without overlap."""
    merged: list[int] = []
    i = 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def pop_most_frequent(heap: list[tuple[int, str]], totals: Mapping[str, int]) -> str | None:
    """Take the most frequent pair from a heap of (-total, pair); None where none is left.

    A total in the heap may be out of date, but only too high: a merge makes new pairs and takes from old ones. So the
    top is compared with `totals`, and goes back with its true count where the two differ.
    """
    while heap:
        total, pair = heapq.heappop(heap)
        if 0 < totals[pair] == -total:
            return pair
        if totals[pair] > 0:
            heapq.heappush(heap, (-totals[pair], pair))
    return None


def train_merges(
    words: Iterable[Sequence[int]], counts: Iterable[int], n_merges: int, first_id: int = 256, progress: bool = False
) -> dict[Pair, int]:
    """Learn merges from words that occur `counts` times each: pairs of ids, in order, with the id that each makes.

    Every step merges the most frequent pair; of equally frequent ones that with the smaller left id, then that with the
    smaller right one. Raises ValueError where the words have too few pairs, where `counts` are not as many or below 0,
    and where `first_id` is taken; TypeError for counts that are not whole. Source: Sennrich, Haddow and Birch (2016).

    A word is kept as a string of one character per id, so that C finds and replaces the pair. A merge touches only the
    words that hold the pair, and changes only the counts of its neighbours there.
    """
    spelled = ["".join(map(chr, word)) for word in words]
    counts = check_counts(counts, spelled, first_id)
    places: defaultdict[str, list[int]] = defaultdict(list)  # which words hold a pair, or held it once
    for i, word in enumerate(spelled):
        for pair in map(add, word, word[1:]):
            places[pair].append(i)
    totals = defaultdict(int, {pair: sum(map(counts.__getitem__, found)) for pair, found in places.items()})
    heap = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(heap)
    ranks: dict[Pair, int] = {}
    for new_id in trange(first_id, first_id + n_merges, desc="merges", disable=not progress):
        pair = pop_most_frequent(heap, totals)
        if pair is None:
            raise ValueError(
                f"these words have pairs for {len(ranks)} merges, not for {n_merges}: give more text, or ask for a "
                f"vocabulary smaller by {n_merges - len(ranks)}"
            )
        (left, right), new = pair, chr(new_id)
        ranks[ord(left), ord(right)] = new_id
        # Replace the pair, and note what stands next to it: the words are listed once for each time.
        before: defaultdict[str, list[int]] = defaultdict(list)
        after: defaultdict[str, list[int]] = defaultdict(list)
        twice: list[int] = []  # the pair stands twice in a row
        for i in set(places.pop(pair)):
            parts = spelled[i].split(pair)
            spelled[i] = new.join(parts)
            for head, tail in pairwise(parts):
                before[head[-1:]].append(i)
                after[tail[:1]].append(i)
            twice += [i] * parts[1:-1].count("")
        # Each neighbour leaves an old pair and enters a new one.
        changes = [(other + left, other + new, found) for other, found in before.items() if other]
        changes += [(right + other, new + other, found) for other, found in after.items() if other]
        changes += [(right + left, new + new, twice)] if twice else []
        for old, born, found in changes:
            total = sum(map(counts.__getitem__, found))
            totals[old] -= total
            totals[born], places[born] = total, found
            heapq.heappush(heap, (-total, born))
        totals[pair] = 0
    return ranks


def check_counts(counts: Iterable[int], spelled: Sequence[str], first_id: int) -> list[int]:
    """The counts as ints of Python, which do not overflow; a ValueError where they do not fit the words."""
    found = [operator.index(count) for count in counts]
    if len(found) != len(spelled) or min(found, default=0) < 0:
        raise ValueError(
            f"counts must hold a number from 0 on for each of the {len(spelled)} words, not {len(found)} numbers from "
            f"{min(found, default=0)} on"
        )
    top = max("".join(spelled), default="")
    if top and first_id <= ord(top):
        raise ValueError(f"first_id must be above {ord(top)}, the largest id in the words, not {first_id}")
    return found


# --- encoding ---


def encode_word(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Merge the ids of one pre-token: always the pair that was learned first, until no pair is left to merge.

    ranks: the id that a pair makes; ids rise with the merges, so the least one was learned first. Walks through the
    whole word for each merge: the work grows with the square of the length. Source: Sennrich, Haddow and Birch (2016).
    """
    ids = list(ids)
    while made := [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]:
        new, i = min(made)  # the leftmost place; others of the same pair follow in the next rounds
        ids[i : i + 2] = [new]
    return ids


def encode_long_word(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Return the same as `encode_word`, in a time that grows little faster than the length.

    Each place knows the one before and the one after it that are still there. `places` lists where each pair with a
    merge stands, or stood; a heap hands out the pair that was learned first.
    """
    ids = [*ids, GONE]  # ends the word; ids[-1] also is what stands before the first id
    before, after = list(range(-1, len(ids) - 1)), list(range(1, len(ids) + 1))
    places: defaultdict[Pair, list[int]] = defaultdict(list)
    for i, pair in enumerate(pairwise(ids)):
        if pair in ranks:
            places[pair].append(i)
    heap = [(ranks[pair], pair) for pair in places]
    heapq.heapify(heap)
    while heap:
        new, (left, right) = heapq.heappop(heap)
        for i in sorted(places.pop((left, right))):
            j = after[i]
            if ids[i] != left or ids[j] != right:
                continue  # an earlier merge took one of the two
            ids[i], ids[j] = new, GONE
            after[i] = k = after[j]
            before[k] = i
            for a, b in ((before[i], i), (i, k)):
                pair = ids[a], ids[b]
                if pair in ranks:
                    if pair not in places:
                        heapq.heappush(heap, (ranks[pair], pair))
                    places[pair].append(a)
    return [i for i in ids if i != GONE]
