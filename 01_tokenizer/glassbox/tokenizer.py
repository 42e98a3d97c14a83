"""Byte-pair encoding, GPT-2's way: text to numbers and back.

A text is cut into pre-tokens by a regular expression, each pre-token becomes its UTF-8 bytes, and bytes that often
stand side by side are merged into longer tokens. Training finds the merges; encoding applies them in the same order.
With OpenAI's files the ids are those of GPT-2.

Sources: Gage (1994), Sennrich, Haddow and Birch (2016), Radford and others (2019).
"""

from __future__ import annotations

import codecs
import functools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Self

from glassbox.bpe import encode_long_word, encode_word, train_merges
from glassbox.tales import END
from glassbox.unicode_classes import LETTERS, NOT_SPACE, NUMBERS, OTHERS, SPACE
from glassbox.vocabulary import BYTE_IDS, Vocabulary, check_special

__all__ = [
    "PRETOKEN",
    "BPETokenizer",
    "WordCache",
    "count_words",
    "cut_stream",
    "pretokenize",
    "repair_surrogates",
    "split_special",
]

SHORT = 16  # up to this many bytes the simple loop is the faster one
KEPT_LETTERS, KEPT = 64, 2**17  # the longest word that a cache keeps, and how many words
CHUNK = 2**20  # characters that training looks at together
MOST = 0x110000  # tokens that training can tell apart: it writes an id as one character

# --- text to words ---

PRETOKEN = re.compile(rf"'(?:[sdmt]|ll|ve|re)| ?{LETTERS}| ?{NUMBERS}| ?{OTHERS}|{SPACE}+(?!{NOT_SPACE})|{SPACE}+")
LAST_CUT = re.compile(rf"(?s:.*){NOT_SPACE}(?={SPACE})")  # up to the last place in front of white space


def pretokenize(text: str) -> list[str]:
    """Cut a text into GPT-2's pre-tokens, which no token ever crosses. Joined, they are the text.

    English contractions; words, numbers and other signs, each with the space before it; what is left of white space.
    Source: Radford and others (2019).
    """
    return PRETOKEN.findall(text)


def split_special(text: str, special_tokens: Collection[str]) -> list[str]:
    """Cut a text at special tokens: ordinary parts at even places, special tokens at odd ones.

    Where two special tokens begin at the same place, the longer one counts.
    """
    if not any(token in text for token in special_tokens):
        return [text]
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)


def repair_surrogates(text: str, errors: str = "replace") -> str:
    """Return a text that UTF-8 can hold. A half of a UTF-16 pair that stands alone becomes U+FFFD; two halves, a pair.

    errors: "replace", or "strict" to raise UnicodeEncodeError (a ValueError) instead.
    """
    if errors not in ("replace", "strict"):
        raise ValueError(f"errors must be 'replace' or 'strict', not {errors!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        if errors == "strict":
            raise
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def cut_stream(chunks: Iterable[str]) -> Iterator[str]:
    """Cut a text that comes in chunks where it may be cut: joined, the parts' tokens are the tokens of the whole text.

    That is in front of white space that follows something else, since no pre-token has white space in it but at its
    start. Holds one chunk in memory, or as much as comes without white space.
    """
    held: list[str] = []
    for chunk in filter(None, chunks):
        last = held[-1][-1] if held else ""
        if found := LAST_CUT.match(last + chunk):
            cut = found.end() - len(last)
            yield "".join(held) + chunk[:cut]
            held = [chunk[cut:]]
        else:
            held.append(chunk)
    yield "".join(held)


def count_words(texts: Iterable[str], special_tokens: Collection[str] = ()) -> Counter[str]:
    """Count the pre-tokens of several texts. Special tokens are cut out, and nothing is counted across them."""
    words: Counter[str] = Counter()
    for text in check_texts(texts):
        for part in split_special(repair_surrogates(text), special_tokens)[::2]:
            slices = (
                [part] if len(part) <= CHUNK else cut_stream(part[i : i + CHUNK] for i in range(0, len(part), CHUNK))
            )
            for piece in slices:
                words.update(pretokenize(piece))
    return words


# --- encoding ---


class WordCache(dict[str, tuple[int, ...]]):
    """Ids by pre-token. One that is missing is encoded, and kept unless it is long; a full cache starts afresh."""

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self.encode = encode

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self.encode(word))
        if len(word) <= KEPT_LETTERS:
            if len(self) >= KEPT:
                self.clear()
            self[word] = ids
        return ids


# --- the tokenizer ---


class BPETokenizer(Vocabulary):
    """A byte-level BPE tokenizer like GPT-2's: text to ids with `encode`, ids to text with `decode`.

    Arguments as in `Vocabulary`, which saves, loads and exports; `train` learns them from text.
    """

    @functools.cached_property
    def cache(self) -> WordCache:
        """The ids of pre-tokens met before."""
        return WordCache(lambda word: self.encode_bytes(word.encode()))

    @classmethod
    def train(
        cls, texts: str | Iterable[str], vocab_size: int, special_tokens: Sequence[str] = (END,), progress: bool = False
    ) -> Self:
        """Learn a vocabulary of `vocab_size` tokens: 256 bytes, merges, and at the end the special tokens.

        texts: one text, or several; nothing is merged across their ends. Raises ValueError where `vocab_size` is too
        small to begin with, or too large for the text; TypeError for anything but text.
        """
        n_merges = room_for_merges(vocab_size, special_tokens)
        special = {token: 256 + n_merges + i for i, token in enumerate(special_tokens)}
        words = count_words([texts] if isinstance(texts, str) else texts, special)
        spelled = (word.encode().translate(bytes(BYTE_IDS)) for word in words)  # ids below 256: bytes again
        return cls(train_merges(spelled, list(words.values()), n_merges, progress=progress), special)

    def encode(self, text: str, allowed_special: str | Collection[str] = (), errors: str = "replace") -> list[int]:
        """Return the ids of a text.

        allowed_special: special tokens that may be recognised in the text, or "all". By default none is: text from
        outside must not be able to make them. errors: what to do with half of a UTF-16 pair, which UTF-8 cannot hold:
        "replace" it by U+FFFD, or "strict". Raises TypeError for anything but text, ValueError for unknown names.
        """
        ids: list[int] = []
        parts = split_special(repair_surrogates(check_text(text), errors), named(allowed_special, self.special_tokens))
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self.special_tokens[part])
            else:
                ids.extend(chain.from_iterable(map(self.cache.__getitem__, pretokenize(part))))
        return ids

    def encode_bytes(self, word: bytes) -> list[int]:
        """Return the ids of one pre-token, or of any other bytes, which are then merged as if they were one."""
        ids = [self.byte_ids[byte] for byte in check_bytes(word)]
        return encode_word(ids, self.ranks) if len(ids) <= SHORT else encode_long_word(ids, self.ranks)

    def encode_batch(
        self, texts: Iterable[str], allowed_special: str | Collection[str] = (), errors: str = "replace"
    ) -> list[list[int]]:
        """Return the ids of each text; arguments as in `encode`."""
        return [self.encode(text, allowed_special, errors) for text in check_texts(texts)]

    def encode_iterable(
        self, chunks: Iterable[str], allowed_special: str | Collection[str] = (), errors: str = "replace"
    ) -> Iterator[int]:
        """Yield the ids of one text that comes in chunks, such as the lines of an open file, in little memory.

        They are the ids of the joined chunks, wherever those were cut. Arguments as in `encode`.
        """
        parts, allowed = cut_stream(check_texts(chunks)), named(allowed_special, self.special_tokens)
        return chain.from_iterable(self.encode(part, allowed, errors) for part in parts)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text of ids: a list, an array or a tensor of one axis.

        errors: what to do with bytes that are not UTF-8, as when a character's tokens are not all there: "replace"
        each by U+FFFD, "ignore", or "strict". Raises ValueError for an id without a token, TypeError for anything but
        whole numbers.
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of ids, as in `decode`. Nothing is replaced."""
        ids = whole_numbers(ids)
        try:
            return b"".join(map(self.vocabulary.__getitem__, ids))
        except KeyError as error:
            raise ValueError(f"id {error.args[0]} has no token; the ids here are 0 to {self.vocab_size - 1}") from None

    def decode_iterable(self, ids: Iterable[int], errors: str = "replace") -> Iterator[str]:
        """Yield the text of ids as they come. A character of several tokens is held back until it is whole."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors)
        for i in several(ids):
            if text := decoder.decode(self.decode_bytes([i])):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text


# --- what is refused ---


def check_text(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"expected text as a str, not {type(text).__name__}; decode bytes first: data.decode('utf-8')")
    return text


def check_bytes(word: bytes) -> bytes:
    if not isinstance(word, bytes | bytearray | memoryview):
        raise TypeError(f"expected bytes, not {word!r} of type {type(word).__name__}; encode is for text")
    return bytes(word)


def check_texts(texts: Iterable[str]) -> Iterator[str]:
    if isinstance(texts, str):
        raise TypeError("expected several texts, such as a list of str, not one str; write [text]")
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        fix = "give its values()" if isinstance(texts, Mapping) else "read or decode it first"
        raise TypeError(f"expected several texts, such as a list of str, not one {type(texts).__name__}; {fix}")
    return map(check_text, texts)


def room_for_merges(vocab_size: int, special_tokens: Sequence[str]) -> int:
    """How many merges a vocabulary of this size has room for."""
    check_special(special_tokens)
    least = 256 + len(special_tokens)
    if not hasattr(vocab_size, "__index__") or isinstance(vocab_size, bool) or not least <= vocab_size <= MOST:
        raise ValueError(
            f"vocab_size must be a whole number from {least} (256 bytes and {len(special_tokens)} special tokens) to "
            f"{MOST:,}, not {vocab_size!r}"
        )
    return int(vocab_size) - least


def named(allowed: str | Collection[str], special_tokens: Mapping[str, int]) -> Collection[str]:
    """The special tokens that `allowed_special` means."""
    if isinstance(allowed, str):
        allowed = special_tokens.keys() if allowed == "all" else [allowed]
    if isinstance(allowed, bytes) or not isinstance(allowed, Collection):
        raise TypeError(f'allowed_special must be "all" or a list of special tokens, not {allowed!r}')
    for name in allowed:
        if name not in special_tokens:
            raise ValueError(f"allowed_special: {name!r} is none of this tokenizer's {list(special_tokens)}")
    return allowed


def several(ids: Iterable[int]) -> Iterable[int]:
    """Ids as they are, if they can be several ids."""
    if isinstance(ids, str | bytes | bytearray | memoryview):
        raise TypeError(f"ids must be whole numbers, not {type(ids).__name__} {ids!r}; use encode for text")
    if not isinstance(ids, Iterable):
        raise TypeError(f"ids must be several whole numbers, such as [3, 1], not {ids!r}")
    return ids


def whole_numbers(ids: Iterable[int]) -> list[int]:
    """The ids as a list of ints, also from an array or a tensor of one axis, and from numbers of NumPy or torch."""
    found = as_python(several(ids)) if hasattr(ids, "tolist") else list(several(ids))
    found = found if isinstance(found, list) else [found]  # an array without an axis
    if set(map(type, found)) - {int}:  # most often all are: then there is nothing to walk through
        for place, i in enumerate(map(as_python, found)):
            if type(i) is not int:
                raise TypeError(f"ids must be whole numbers in one row, not {i!r} of type {type(i).__name__}")
            found[place] = i
    return found


def as_python(numbers: Any) -> Any:
    """A number or an array of NumPy or torch as Python holds it; anything else as it is."""
    return numbers.tolist() if hasattr(numbers, "tolist") else numbers
