"""The exercises of 02_preprocessing: the course's answers, cases that try a reader's, mistakes known by name."""

from __future__ import annotations

import builtins
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from glassbox import embeddings, preprocessing
from glassbox.lab import Exercise, Finding, Mistake
from glassbox.preprocessing import clean_text
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = [
    "embedding_gradient",
    "negative_sampling_loss",
    "planted_fault",
    "split_documents",
    "two_pipelines",
    "windows",
]

Split = tuple[list[str], list[str]]
Pair = tuple[torch.Tensor, torch.Tensor]


# --- break it ---


def planted_fault(documents: Sequence[str], fraction: float, seed: int) -> Split:
    """A split that looks at the texts before they are cleaned, so that copies are not recognised as such."""
    sides: Split = ([], [])
    for text in documents:
        sides[random.Random(f"{seed} {text}").random() < fraction].append(clean_text(text))
    return sides


def two_pipelines(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> dict[str, Split]:
    """The documents, a third of them there twice (with other line ends), split by a right and a faulty pipeline.

    The names do not tell which is which.
    """
    found = [*documents, *(document.replace("\n", "\r\n") for document in documents[::3])]
    return {
        "pipeline A": preprocessing.split_documents([clean_text(text) for text in found], fraction, seed),
        "pipeline B": planted_fault(found, fraction, seed),
    }


# --- 1. windows ---


def _as_windows(ids: Any, block_size: int, stride: int | None, starts: Iterable[int], shift: int = 1) -> Pair:
    """The windows at some starts, cut without a look at what is right."""
    ids = torch.as_tensor(ids).long()
    starts = list(starts)
    x = [ids[start : start + block_size] for start in starts]
    y = [ids[start + shift : start + shift + block_size] for start in starts]
    return torch.stack(x), torch.stack(y)


def _checked(ids: Any, block_size: int, stride: int | None) -> tuple[torch.Tensor, int]:
    preprocessing.windows(ids, block_size, stride)  # refuses what is to be refused
    return torch.as_tensor(ids).long(), stride or block_size


def _one_too_few(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    ids, stride = _checked(ids, block_size, stride)
    starts = range(0, len(ids) - block_size, stride)
    return _as_windows(ids, block_size, stride, starts[:-1] or starts)


def _exclusive_end(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    ids, stride = _checked(ids, block_size, stride)
    starts = range(0, len(ids) - block_size - 1, stride) or range(1)
    return _as_windows(ids, block_size, stride, starts)


def _one_too_many(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    ids, stride = _checked(ids, block_size, stride)
    return _as_windows(ids, block_size, stride, range(0, len(ids) - block_size + 1, stride))


def _not_shifted(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    x, _ = preprocessing.windows(ids, block_size, stride)
    return x, x.clone()


def _next_window(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    ids, stride = _checked(ids, block_size, stride)
    starts = range(0, len(ids) - 2 * block_size + 1, stride)
    return _as_windows(ids, block_size, stride, starts, shift=block_size)


def _shifted_back(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    x, y = preprocessing.windows(ids, block_size, stride)
    return y, x


def _rolled(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    x, _ = preprocessing.windows(ids, block_size, stride)
    return x, x.roll(-1, dims=1)


def _stride_one(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    return preprocessing.windows(ids, block_size, 1 if stride is None else stride)


def _ignores_stride(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    _checked(ids, block_size, stride)
    return preprocessing.windows(ids, block_size)


def _block_one_longer(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    _checked(ids, block_size, stride)
    return preprocessing.windows(ids, block_size, block_size + 1 if stride is None else stride)


def _refuses_nothing(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    ids = torch.as_tensor(ids).long()
    step = block_size if stride is None else stride
    if not step or block_size < 1:
        return ids[:0].view(0, block_size), ids[:0].view(0, block_size)
    starts = range(0, len(ids) - block_size, step)
    if not starts:
        return ids[:0].view(0, block_size), ids[:0].view(0, block_size)
    return _as_windows(ids, block_size, step, starts)


def _block_one_shorter(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    ids, stride = _checked(ids, block_size, stride)
    rows = ids.unfold(0, block_size, stride)
    return rows[:, :-1], rows[:, 1:]


def _lists(ids: Any, block_size: int, stride: int | None = None) -> Any:
    x, y = preprocessing.windows(ids, block_size, stride)
    return x.tolist(), y.tolist()


def _int32(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    x, y = preprocessing.windows(ids, block_size, stride)
    return x.int(), y.int()


def _type_as_given(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    x, y = preprocessing.windows(ids, block_size, stride)
    kind = torch.as_tensor(ids).dtype
    return x.to(kind), y.to(kind)


def _tensors_only(ids: Any, block_size: int, stride: int | None = None) -> Pair:
    _checked(ids, block_size, stride)
    rows = ids.unfold(0, block_size + 1, stride or block_size).long()
    return rows[:, :-1], rows[:, 1:]


def every_target_once(f: Callable[..., Any]) -> Finding:
    """22 ids in windows of 4: how often is each id a target?"""
    _, y = f(torch.arange(22), 4)
    times = Counter(torch.as_tensor(y).flatten().tolist())
    if times[0]:
        return Finding("target 0", "target 0 is predicted, though nothing stands before it")
    twice = [target for target in range(1, 21) if times[target] > 1]
    never = [target for target in range(1, 21) if not times[target]]
    if twice:
        return Finding("twice", f"target {twice[0]} predicted {times[twice[0]]} times")
    if never:
        return Finding("never", f"target {never[0]} never predicted")
    return Finding("each of the targets 1 to 20 once")


def given_a_list(f: Callable[..., Any]) -> Finding:
    """7 ids in a list, in windows of 3: are they those of a tensor?"""
    ids = [5, 3, 8, 1, 9, 2, 7]
    try:
        answer = f(list(ids), 3)
    except (AttributeError, TypeError) as error:
        return Finding("a list refused", f"{type(error).__name__}: {error}")
    same = str(answer) == str(f(torch.tensor(ids), 3))
    return Finding("the same windows" if same else "other windows")


def which_types(f: Callable[..., Any]) -> Finding:
    """ids of type int64, then of type int32: of which type are x and y?"""
    for given in (torch.int64, torch.int32):
        for name, ids in zip("xy", f(torch.arange(7, dtype=given), 3), strict=True):
            found = torch.as_tensor(ids).dtype
            if found != torch.int64:
                return Finding("another type", f"{found} (that is {name}, where ids are {given})")
    return Finding("torch.int64")


windows = Exercise(
    name="windows",
    reference=preprocessing.windows,
    cases=[
        (torch.tensor([5, 3, 8, 1, 9, 2, 7]), 3),
        (torch.tensor([5, 3, 8, 1, 9, 2, 7]), 3, 1),
        (torch.arange(9), 4, 2),
        (torch.arange(12), 3, 5),
        (torch.tensor([4, 6]), 1),
        (torch.arange(10), 4),
        every_target_once,
        given_a_list,
        which_types,
        (torch.arange(5), 5),
        (torch.arange(9), 4, 0),
        (torch.arange(9), 0),
    ],
    mistakes=[
        Mistake(_one_too_few, "the last window that still fits is missing: it may end with its y on the last id."),
        Mistake(_exclusive_end, "off by one: range excludes its end, so the last start is len(ids) - block_size - 1."),
        Mistake(_one_too_many, "the last window has no target for its last place: y needs block_size + 1 ids in all."),
        Mistake(_not_shifted, "y is x: the model would be asked for what it was just shown. Shift y by one."),
        Mistake(_next_window, "y is the window after x: each place should be asked for the very next id only."),
        Mistake(_shifted_back, "x and y are swapped: y is the later one, the first of y is the second of x."),
        Mistake(_rolled, "the last target is the first id of the row: take block_size + 1 ids from the text."),
        Mistake(_stride_one, "stride=None means block_size: then each id is a target once, not block_size times."),
        Mistake(_ignores_stride, "the stride is ignored: one window begins `stride` ids after the other."),
        Mistake(
            _block_one_longer,
            "every id between two windows is lost as a target: the stride is block_size, not one more.",
        ),
        Mistake(_refuses_nothing, "stride 0, block_size 0 and too few ids are faults: raise ValueError and name them."),
        Mistake(_block_one_shorter, "x and y are one place too short: cut block_size + 1 ids for both together."),
        Mistake(_lists, "the numbers are right, but in lists: return two torch tensors."),
        Mistake(_tensors_only, "ids may come in a list too: begin with ids = torch.as_tensor(ids)."),
        Mistake(
            _int32, "x and y must be int64: F.cross_entropy takes no int32 targets. Write .long(), whatever ids are."
        ),
        Mistake(
            _type_as_given,
            "x and y must be int64: F.cross_entropy takes no int32 targets. Write .long(), whatever ids are.",
        ),
    ],
    hint="the starts are range(0, len(ids) - block_size, stride); x and y are slices from start and from start + 1.",
)


# --- 2. split_documents ---


def _documents(n: int) -> list[str]:
    """Made-up documents, each another."""
    return [f"Letter {i}.\n{'The bank says so. ' * (i % 5 + 1)}" for i in range(n)]


def _clean(text: str) -> str:
    return clean_text(text).strip()


def _split(f: Callable[..., Any], documents: list[str], fraction: float = 0.1, seed: int = 0) -> Split | Finding:
    """What an answer makes of documents; an AssertionError where the list that it got is another afterwards."""
    given = list(documents)
    answer = f(given, fraction, seed)
    if given != documents:
        raise AssertionError("it changes its input: the list of documents is another after the call")
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return Finding("not a pair (train, validation)")
    train, validation = answer
    if not isinstance(train, list) or not isinstance(validation, list):
        return Finding("two sides that are not lists")
    if not all(isinstance(text, str) for text in [*train, *validation]):
        return Finding("sides that hold something other than documents")
    return train, validation


def nothing_lost(f: Callable[..., Any]) -> Finding:
    """400 documents: is each of them on one side, whole and unchanged?"""
    return _accounted(f, _documents(400))


def copies_kept(f: Callable[..., Any]) -> Finding:
    """100 documents, 40 of them twice, 20 once more with other line ends: is every copy there, as it came?"""
    documents = [text.replace("\n", "\r\n") for text in _documents(100)]
    again = [text.replace("\r\n", "\r") for text in documents[:20]]
    return _accounted(f, [*documents[:40], *again, *documents])


def _accounted(f: Callable[..., Any], documents: list[str]) -> Finding:
    sides = _split(f, documents)
    if isinstance(sides, Finding):
        return sides
    before, after = Counter(documents), Counter([*sides[0], *sides[1]])
    if after == before:
        kept = all(_in_order(side, documents) for side in sides)
        return Finding("each on one side") if kept else Finding("in another order")
    if len(sides[0]) < len(sides[1]):
        return Finding("turned", f"{len(sides[0])} documents to train on and {len(sides[1])} for validation")
    unknown = sum(after[text] for text in after if text not in before)
    missing = before.total() - after.total()
    if unknown:
        fewer = f", and {missing} texts too few" if missing > 0 else ""
        return Finding("changed" + bool(fewer) * ", fewer", f"{unknown} texts other than they came{fewer}")
    if missing > 0:
        return Finding("lost", f"{missing} of {before.total()} documents on no side")
    return Finding("twice", f"{(after - before).total()} documents more often than they came")


def _in_order(side: list[str], documents: list[str]) -> bool:
    rest = iter(documents)
    return all(text in rest for text in side)  # each search goes on where the last one ended


def copies_apart(f: Callable[..., Any]) -> Finding:
    """200 documents, 60 of them there twice: does any stand on both sides?"""
    return _shared(f, _documents(200) + _documents(60))


def saved_by_others(f: Callable[..., Any]) -> Finding:
    """the same, but the copies have other line ends, and a line end more"""
    return _shared(f, _documents(200) + [text.replace("\n", "\r\n") + "\n" for text in _documents(60)])


def _shared(f: Callable[..., Any], documents: list[str]) -> Finding:
    sides = _split(f, documents, 0.3)
    if isinstance(sides, Finding):
        return sides
    train = {_clean(text) for text in sides[0]}
    both = [text for text in sides[1] if _clean(text) in train]
    if not both:
        return Finding("none on both sides")
    return Finding("both", f"{len(both)} of {len(sides[1])} validation documents stand in the training too")


def windows_apart(f: Callable[..., Any]) -> Finding:
    """windows of 64 words cut from both sides: how much do they share?"""
    words = [f"w{i}" for i in range(6000)]
    documents = [" ".join(words[i : i + 150]) for i in range(0, len(words), 150)]
    sides = _split(f, documents, 0.3)
    if isinstance(sides, Finding):
        return sides
    train, validation = (
        {tuple(t.split()[i : i + 60]) for t in side for i in range(max(len(t.split()) - 59, 0))} for side in sides
    )
    shared = len(train & validation)
    return Finding(
        "shared" if shared else "nothing", f"{shared} runs of 60 words stand on both sides" if shared else ""
    )


def a_tenth(f: Callable[..., Any]) -> Finding:
    """2,000 documents, fraction 0.1: how many are held out?"""
    return _share(f, 0.1)


def four_tenths(f: Callable[..., Any]) -> Finding:
    """2,000 documents, fraction 0.4: how many are held out?"""
    return _share(f, 0.4)


def _share(f: Callable[..., Any], fraction: float) -> Finding:
    sides = _split(f, _documents(2000), fraction)
    if isinstance(sides, Finding):
        return sides
    n, meant = len(sides[1]), round(2000 * fraction)
    spread = 5 * (meant * (1 - fraction)) ** 0.5  # dice go further in one case of two millions
    if abs(n - meant) <= spread:
        return Finding(f"about {meant}")
    return Finding("turned" if abs(2000 - n - meant) <= spread else f"{n / 2000:.1f} of all", f"{n} documents")


def told_apart(f: Callable[..., Any]) -> Finding:
    """200 long texts that differ in one number in their middle: are there some on both sides?"""
    alike = "Once upon a time there was a bank by the river. " * 25
    sides = _split(f, [f"{alike}{i:03d} {alike}" for i in range(200)], 0.3)
    if isinstance(sides, Finding):
        return sides
    return Finding("some on both sides") if all(sides) else Finding("all on one side")


def from_everywhere(f: Callable[..., Any]) -> Finding:
    """the documents are in order, tales first, letters last: what does the validation hold?"""
    documents = [f"{'Tale' if i < 500 else 'Letter'} {i}." for i in range(1000)]
    sides = _split(f, documents)
    if isinstance(sides, Finding):
        return sides
    tales = sum(text.startswith("Tale") for text in sides[1])
    if 0 < tales < len(sides[1]):
        return Finding("some of both")
    return Finding("one genre", f"{tales} tales and {len(sides[1]) - tales} letters")


def by_seed(f: Callable[..., Any]) -> Finding:
    """the same seed twice, then another one"""
    documents = _documents(300)
    one, again, other = (_split(f, documents, 0.2, seed) for seed in (1, 1, 2))
    if isinstance(one, Finding) or isinstance(again, Finding) or isinstance(other, Finding):
        return one if isinstance(one, Finding) else Finding("not a pair every time")
    if set(one[1]) != set(again[1]):
        return Finding("never the same", "the same seed gave two different splits")
    if set(one[1]) == set(other[1]):
        return Finding("always the same", "another seed gave the same split")
    return Finding("the seed decides")


def when_more_come(f: Callable[..., Any]) -> Finding:
    """100 documents more, and all in another order: does any old one change sides?"""
    old = _documents(300)
    more = [*(f"A new letter, number {i}." for i in range(100)), *reversed(old)]
    before, after = (_split(f, documents, 0.2) for documents in (old, more))
    if isinstance(before, Finding) or isinstance(after, Finding):
        return before if isinstance(before, Finding) else Finding("not a pair every time")
    moved = len(set(before[1]) & set(after[0])) + len(set(before[0]) & set(after[1]))
    return Finding("moved", f"{moved} of 300 old documents changed sides") if moved else Finding("none moved")


def in_another_session(f: Callable[..., Any]) -> Finding:
    """the same call in another session of Python"""
    documents, own = _documents(300), builtins.hash
    before = _split(f, documents, 0.2)
    builtins.hash = lambda value: own(("another session", value))  # the dice that each session throws for hash()
    try:
        after = _split(f, documents, 0.2)
    finally:
        builtins.hash = own
    if isinstance(before, Finding) or isinstance(after, Finding):
        return before if isinstance(before, Finding) else Finding("not a pair every time")
    return Finding("the same" if before == after else "another", "" if before == after else "another split")


def _digest(text: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed} {text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64  # a number from 0 to 1 that belongs to the text


def _by_digest(documents: Sequence[str], fraction: float, seed: int, key: Callable[[str], str]) -> Split:
    held = [_digest(key(text), seed) < fraction for text in documents]
    return (
        [text for text, out in zip(documents, held, strict=True) if not out],
        [text for text, out in zip(documents, held, strict=True) if out],
    )


def _by_position(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    cut = round(len(documents) * (1 - fraction))
    return list(documents[:cut]), list(documents[cut:])


def _every_tenth(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    step = round(1 / fraction)
    return [text for i, text in enumerate(documents) if i % step], list(documents[::step])


def _shuffled(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    order = random.Random(seed).sample(list(documents), len(documents))
    return _by_position(order, fraction)


def _dealt_out(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    held = set(random.Random(seed).sample(range(len(documents)), round(len(documents) * fraction)))
    return (
        [text for i, text in enumerate(documents) if i not in held],
        [text for i, text in enumerate(documents) if i in held],
    )


def _set_shuffled(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _shuffled(sorted(set(documents)), fraction, seed)


def _by_hash(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    held = [_digest(str(hash((seed, _clean(text)))), 0) < fraction for text in documents]
    return (
        [text for text, out in zip(documents, held, strict=True) if not out],
        [text for text, out in zip(documents, held, strict=True) if out],
    )


def _reordered(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    train, validation = _by_digest(documents, fraction, seed, _clean)
    return train[::-1], validation[::-1]


def _shuffled_once_each(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    different = sorted({_clean(text) for text in documents})
    held = set(_shuffled(different, fraction, seed)[1])
    return (
        [text for text in documents if _clean(text) not in held],
        [text for text in documents if _clean(text) in held],
    )


def _by_place_and_text(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    numbered = [f"{i} {text}" for i, text in enumerate(documents)]
    train, validation = _by_digest(numbered, fraction, seed, str)
    return [text.partition(" ")[2] for text in train], [text.partition(" ")[2] for text in validation]


def _as_it_came(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest(documents, fraction, seed, str)


def _by_windows(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    pieces = []
    for text in documents:
        words = text.split(" ")
        pieces += [" ".join(words[i : i + 64]) for i in range(0, max(len(words) - 63, 1), 4)]
    return _shuffled(pieces, fraction, seed)


def _no_seed(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest(documents, fraction, 0, _clean)


def _swapped(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    train, validation = _by_digest(documents, fraction, seed, _clean)
    return validation, train


def _drops_copies(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest(list({_clean(text): _clean(text) for text in documents}), fraction, seed, str)


def _drops_exact_copies(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest(list(dict.fromkeys(documents)), fraction, seed, _clean)


def _drops_near_copies(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest(list({_clean(text): text for text in documents}.values()), fraction, seed, _clean)


def _returns_cleaned(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest([_clean(text) for text in documents], fraction, seed, str)


def _returns_half_cleaned(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest([clean_text(text) for text in documents], fraction, seed, str.strip)


def _takes_out(documents: Any, fraction: float = 0.1, seed: int = 0) -> Split:
    _, validation = _by_digest(documents, fraction, seed, _clean)
    for text in validation:
        documents.remove(text)
    return documents, validation


def _always_a_tenth(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest(documents, 0.1, seed, _clean)


def _remainder(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest(documents, 1 / round(1 / fraction), seed, _clean)


def _first_characters(documents: Sequence[str], fraction: float = 0.1, seed: int = 0) -> Split:
    return _by_digest(documents, fraction, seed, lambda text: _clean(text)[:40])


split_documents = Exercise(
    name="split_documents",
    reference=preprocessing.split_documents,
    cases=[
        nothing_lost,
        copies_kept,
        a_tenth,
        four_tenths,
        from_everywhere,
        windows_apart,
        copies_apart,
        saved_by_others,
        told_apart,
        by_seed,
        when_more_come,
        in_another_session,
    ],
    mistakes=[
        Mistake(
            _by_windows, "windows were cut before the split: those that overlap fall on both sides. Split documents."
        ),
        Mistake(
            _by_position,
            "the end of the list is held out: it may be of one sort. Which side must not depend on the place.",
        ),
        Mistake(
            _every_tenth, "the place in the list decides: copies part, and one document more moves all the others."
        ),
        Mistake(
            _shuffled, "dice or places deal out copies like any other documents: only the text and the seed may decide."
        ),
        Mistake(
            _dealt_out,
            "dice or places deal out copies like any other documents: only the text and the seed may decide.",
        ),
        Mistake(
            _by_place_and_text,
            "dice or places deal out copies like any other documents: only the text and the seed may decide.",
        ),
        Mistake(
            _shuffled_once_each,
            "copies stay together, but a new document moves old ones: let each text decide by itself.",
        ),
        Mistake(_as_it_came, "copies with other line ends part: compare texts as clean_text and strip() leave them."),
        Mistake(_set_shuffled, "a set drops copies, a shuffle lets new texts move old ones: each text decides alone."),
        Mistake(_by_hash, "Python's hash of a text is another one in every session: hashlib's is always the same."),
        Mistake(_reordered, "the sides are right, in another order: keep the order in which the documents came."),
        Mistake(_no_seed, "another seed gives the same split: mix the seed into what you compute from the text."),
        Mistake(
            _swapped, "the sides are swapped: return (train, validation), and `fraction` is the share of validation."
        ),
        Mistake(_drops_copies, "copies were dropped and texts changed: each document goes to a side, as it came."),
        Mistake(_drops_exact_copies, "copies were dropped: each goes to the side of the others, and none is left out."),
        Mistake(_drops_near_copies, "copies were dropped: each goes to the side of the others, and none is left out."),
        Mistake(_returns_cleaned, "texts were changed: return each as it came. Clean only what you hash."),
        Mistake(_returns_half_cleaned, "texts were changed: return each as it came. Clean only what you hash."),
        Mistake(
            _takes_out, "remove, pop or sort change the caller's own list, which is needed again: make two new lists."
        ),
        Mistake(_always_a_tenth, "a tenth is held out, whatever `fraction` is: compare your number with `fraction`."),
        Mistake(
            _remainder,
            "one in 1 / fraction is held out, for 0.4 one in 2: compare a number from 0 to 1 with `fraction`.",
        ),
        Mistake(
            _first_characters, "only a part of each text was hashed: texts that differ elsewhere go together. Hash all."
        ),
    ],
    hint="make a number from 0 to 1 of the cleaned text and the seed, with hashlib; below `fraction` it is validation.",
)


# --- 3. embedding_gradient ---


def _embedding_gradient(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """The gradient of the loss with respect to the table, given the one with respect to the rows looked up."""
    gradient = torch.zeros(vocab_size, upstream.shape[-1], dtype=upstream.dtype)
    return gradient.index_add(0, ids.flatten(), upstream.reshape(-1, upstream.shape[-1]))


def _overwrites(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    gradient = torch.zeros(vocab_size, upstream.shape[-1], dtype=upstream.dtype)
    for i, row in zip(ids.flatten().tolist(), upstream.reshape(-1, upstream.shape[-1]), strict=True):
        gradient[i] = row
    return gradient


def _averages(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    times = torch.bincount(ids.flatten(), minlength=vocab_size).clamp(min=1)
    return _embedding_gradient(ids, upstream, vocab_size) / times[:, None]


def _looks_up(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    return upstream


def _only_the_used(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    return _embedding_gradient(ids, upstream, vocab_size)[ids.flatten().unique()]


def _not_transposed(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    return _embedding_gradient(ids, upstream, vocab_size).T


def _counts_only(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    return _embedding_gradient(ids, torch.ones_like(upstream), vocab_size)


def _first_row_only(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    return _embedding_gradient(ids[:1], upstream[:1], vocab_size)


def _not_flattened(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    gradient = torch.zeros(vocab_size, upstream.shape[-1], dtype=upstream.dtype)
    for i, row in zip(ids, upstream, strict=True):
        gradient[i] += row
    return gradient


def _float32_rows(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    return _embedding_gradient(ids, upstream, vocab_size).float()


def _float32_index_add(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    gradient = torch.zeros(vocab_size, upstream.shape[-1])
    return gradient.index_add(0, ids.flatten(), upstream.reshape(-1, upstream.shape[-1]))


def _float32_index_put(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    gradient = torch.zeros(vocab_size, upstream.shape[-1])
    return gradient.index_put((ids.flatten(),), upstream.reshape(-1, upstream.shape[-1]), accumulate=True)


def _float32_scatter(ids: torch.Tensor, upstream: torch.Tensor, vocab_size: int) -> torch.Tensor:
    rows = upstream.reshape(-1, upstream.shape[-1])
    return torch.zeros(vocab_size, rows.shape[-1]).scatter_add(0, ids.flatten()[:, None].expand_as(rows), rows)


_TYPED = "the table has a type of its own: write torch.zeros(V, C, dtype=upstream.dtype)."


embedding_gradient = Exercise(
    name="embedding_gradient",
    reference=_embedding_gradient,
    cases=[
        (torch.tensor([2, 0]), torch.tensor([[1.0, 2.0], [3.0, 5.0]]), 3),
        (torch.tensor([1, 1, 3]), torch.tensor([[1.0, 2.0], [30.0, 50.0], [7.0, 9.0]]), 5),
        (torch.tensor([[0, 2], [2, 2]]), torch.arange(12.0).view(2, 2, 3) + 1, 4),
        (torch.tensor([[1, 1, 1]]), torch.tensor([[[0.5], [0.25], [2.0]]]), 2),
        (torch.tensor([0, 2, 0]), torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 9.0]], dtype=torch.float64), 3),
    ],
    mistakes=[
        Mistake(
            _overwrites,
            "an id that stands twice keeps only its last row: its rows add up. `+=` with a list of ids forgets too.",
        ),
        Mistake(_not_flattened, "ids of two axes: flatten them and upstream first, so that each place is one id."),
        Mistake(_averages, "the rows of an id that stands twice add up: no average."),
        Mistake(_looks_up, "this has a row for each place: a row for each id of the vocabulary is asked for, V x C."),
        Mistake(_only_the_used, "ids that do not occur have a row too: zeros."),
        Mistake(_not_transposed, "rows are ids, columns are channels: (V, C)."),
        Mistake(_counts_only, "this counts how often an id occurs: add the rows of `upstream` instead."),
        Mistake(_first_row_only, "only the first entry of the batch was counted: flatten ids and upstream alike."),
        Mistake(_float32_rows, _TYPED),
        Mistake(_float32_index_add, _TYPED),
        Mistake(_float32_index_put, _TYPED),
        Mistake(_float32_scatter, _TYPED),
    ],
    hint="begin with zeros (V, C); add to each id's row the rows of upstream at its places: index_add does it.",
)


# --- 4. negative_sampling_loss ---

Vectors = torch.Tensor
Function = Callable[[torch.Tensor], torch.Tensor]


def _scores(centre: Vectors, context: Vectors, negatives: Vectors) -> Pair:
    return (centre * context).sum(-1), (negatives * centre[:, None]).sum(-1)


def _wrong_sign(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    good, bad = _scores(centre, context, negatives)
    return -(F.logsigmoid(good) + F.logsigmoid(bad).sum(-1)).mean()


def _positive_sign(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    good, bad = _scores(centre, context, negatives)
    return -(F.logsigmoid(-good) + F.logsigmoid(bad).sum(-1)).mean()


def _terms(near: Function, far: Function) -> Callable[..., Vectors]:
    """A loss whose two logarithms are computed by two functions of the score, in place of F.logsigmoid."""

    def loss(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
        good, bad = _scores(centre, context, negatives)
        return -(near(good) + far(-bad).sum(-1)).mean()

    return loss


def _log_of_sigmoid(score: Vectors) -> Vectors:
    return score.sigmoid().log()


def _log_of_exp(score: Vectors) -> Vectors:
    return -(1 + (-score).exp()).log()


def _one_minus(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    good, bad = _scores(centre, context, negatives)
    return -(F.logsigmoid(good) + (1 - bad.sigmoid()).log().sum(-1)).mean()


def _mean_of_negatives(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    good, bad = _scores(centre, context, negatives)
    return -(F.logsigmoid(good) + F.logsigmoid(-bad).mean(-1)).mean()


def _mean_of_all(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    good, bad = _scores(centre, context, negatives)
    return -torch.cat([F.logsigmoid(good)[:, None], F.logsigmoid(-bad)], dim=1).mean()


def _sums_the_batch(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    return embeddings.negative_sampling_loss(centre, context, negatives) * len(centre)


def _maximises(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    return -embeddings.negative_sampling_loss(centre, context, negatives)


def _for_each(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    good, bad = _scores(centre, context, negatives)
    return -(F.logsigmoid(good) + F.logsigmoid(-bad).sum(-1))


def _no_negatives(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    return -F.logsigmoid((centre * context).sum(-1)).mean()


def _against_the_context(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    good = (centre * context).sum(-1)
    return -(F.logsigmoid(good) + F.logsigmoid(-(negatives * context[:, None]).sum(-1)).sum(-1)).mean()


def _sum_of_negatives(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    good, bad = _scores(centre, context, negatives)
    return -(F.logsigmoid(good) + F.logsigmoid(-bad.sum(-1))).mean()


def _softmax(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    good, bad = _scores(centre, context, negatives)
    return -(good - torch.cat([good[:, None], bad], dim=1).logsumexp(-1)).mean()


def _all_pairs(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    bad = (negatives * centre[:, None]).sum(-1)
    return -(F.logsigmoid(centre @ context.T) + F.logsigmoid(-bad).sum(-1)).mean()


def _squeezes(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    bad = (negatives @ centre[:, :, None]).squeeze()
    return -(F.logsigmoid((centre * context).sum(-1)) + F.logsigmoid(-bad).sum(-1)).mean()


def _one_in_a_row(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    return embeddings.negative_sampling_loss(centre, context, negatives)[None]


def _detached(centre: Vectors, context: Vectors, negatives: Vectors) -> Vectors:
    return embeddings.negative_sampling_loss(centre, context, negatives).detach()


def _item(centre: Vectors, context: Vectors, negatives: Vectors) -> float:
    return embeddings.negative_sampling_loss(centre, context, negatives).item()


class _Watch(TorchFunctionMode):
    """Notes by name the first function of torch that yields something infinite, or no number."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.first and isinstance(result, torch.Tensor) and not result.isfinite().all():
            self.first = func.__name__
        return result


def at_large_scores(f: Callable[..., Any]) -> list[str]:
    """a true pair at a score of -200, then a negative at 200 and one at 20: is anything infinite, and why?"""
    found = []
    for context, negative in ((-10.0, 0.0), (0.0, 10.0), (0.0, 1.0)):
        with _Watch() as watch:
            loss = f(torch.tensor([[20.0, 0.0]]), torch.tensor([[context, 1.0]]), torch.tensor([[[negative, 1.0]]]))
        if torch.as_tensor(loss).isfinite().all():
            found.append("finite")
        else:
            found.append("infinite, the logarithm of 0" if watch.first.startswith("log") else "infinite, an overflow")
    return found


def gradients(f: Callable[..., Any]) -> Any:
    """the gradients of your loss: which vectors does a step against them pull together, and which apart?"""
    draw = torch.Generator().manual_seed(0)
    vectors = [torch.randn(*shape, generator=draw).requires_grad_() for shape in ((3, 4), (3, 4), (3, 2, 4))]
    loss = f(*vectors)
    if isinstance(loss, torch.Tensor) and loss.ndim:
        raise AssertionError(f"the loss has shape {tuple(loss.shape)}: one number is asked for, of shape ()")
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        raise AssertionError("the loss is cut off from the vectors: a step could not change them")
    found = torch.autograd.grad(loss, vectors, allow_unused=True)
    names = [name for name, grad in zip(("centre", "context", "negatives"), found, strict=True) if grad is None]
    if names:
        raise AssertionError(f"no gradient reaches {' and '.join(names)}: no detach, item or no_grad on the way")
    return found


_OVERFLOW = "at a score of -200 this computes e^200, which overflows to infinity in float32: use F.logsigmoid."
_CUT_OFF = "no gradient reaches the vectors: no detach, item or no_grad."
_DRAW = torch.Generator().manual_seed(1)
negative_sampling_loss = Exercise(
    name="negative_sampling_loss",
    reference=embeddings.negative_sampling_loss,
    cases=[
        (torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 5.0]]), torch.tensor([[[-1.0, 3.0], [0.5, 1.0]]])),
        (torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2, 4, 3)),
        (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.ones(2, 2), torch.tensor([[[-1.0, 3.0]], [[4.0, 1.0]]])),
        tuple(torch.randn(*shape, generator=_DRAW) for shape in ((5, 8), (5, 8), (5, 3, 8))),
        (torch.tensor([[20.0, 0.0]]), torch.tensor([[-10.0, 1.0]]), torch.tensor([[[0.0, 1.0]]])),
        (torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[[10.0, 1.0]]])),
        at_large_scores,
        gradients,
    ],
    mistakes=[
        Mistake(_wrong_sign, "negatives pull together: sign. A negative wants logsigmoid(-score)."),
        Mistake(_positive_sign, "both signs are turned: real neighbours are pushed apart, drawn ones pulled together."),
        Mistake(
            _terms(_log_of_sigmoid, _log_of_sigmoid),
            "at a score of -200 sigmoid is 0 and its logarithm minus infinity: use F.logsigmoid.",
        ),
        Mistake(
            _terms(F.logsigmoid, _log_of_sigmoid),
            "sigmoid(-200) is 0 and its logarithm minus infinity: use F.logsigmoid for the negatives too.",
        ),
        Mistake(_terms(_log_of_exp, _log_of_exp), _OVERFLOW),
        Mistake(_terms(_log_of_exp, F.logsigmoid), _OVERFLOW),
        Mistake(_terms(F.logsigmoid, _log_of_exp), _OVERFLOW),
        Mistake(
            _one_minus,
            "1 - sigmoid(200) is 0 and its logarithm minus infinity: it is sigmoid(-200), so logsigmoid(-score).",
        ),
        Mistake(
            _mean_of_negatives, "the K negatives are summed, each is a question of its own: mean only over the batch."
        ),
        Mistake(_mean_of_all, "a mean over all 1 + K questions: sum them for each pair, mean only over the batch."),
        Mistake(
            _sums_the_batch, "the batch is summed: take the mean over it, so that its size does not change the step."
        ),
        Mistake(_maximises, "a loss should fall when the answers get better: minus the logarithm."),
        Mistake(_for_each, "one number is asked for, not one for each pair: take the mean."),
        Mistake(_one_in_a_row, "one number is asked for, of shape (), and this is a row of length 1: see keepdim."),
        Mistake(
            _squeezes, "squeeze() drops the axis of K too where K is 1, and the batch is summed: write squeeze(-1)."
        ),
        Mistake(_detached, _CUT_OFF),
        Mistake(_item, _CUT_OFF),
        Mistake(_no_negatives, "the negatives are missing: without them all vectors may become equal at no cost."),
        Mistake(_against_the_context, "the negatives are compared with the context word: they belong to the centre."),
        Mistake(_sum_of_negatives, "the scores of the negatives are added before the logsigmoid: each gets its own."),
        Mistake(_all_pairs, "each centre was paired with every context: row by row, (centre * context).sum(-1)."),
        Mistake(_softmax, "this is a softmax over 1 + K words: here each word is a yes-or-no question of its own."),
    ],
    hint="a score is a sum of products; the true pair costs -logsigmoid(score), each negative -logsigmoid(-score).",
)
