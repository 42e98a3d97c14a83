"""01_tokenizer, from text to words: classes of characters, pre-tokens, special tokens, streams and surrogates."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest
import tiktoken
from glassbox import tokenizer, unicode_classes
from glassbox.tales import END
from glassbox.tokenizer import count_words, cut_stream, pretokenize, repair_surrogates, split_special
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

EVERY = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
RARE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u180e\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff\0\x7f"
    "'\u2019\u0301\u20dd\u200d\ufe0f_-.<|>sdmtrevlSDLaZé\u01c5\u02b0\u00aaßЖ字ㄱ가अ็๑٣0９²½Ⅷ〇"
    "\U0001d400\U0001d7ce\U00010107\U0001f600\U0001f1e9\U00020000\U000e0001\U000f0000\U0010ffff"
)
WORDS = ["'s", "'ll", "'re", "'ve", "'d", " 'm", "don't", "DON'T", "  ", "\n\n", " \n ", "\r\n", " the", "a" * 70, END]
CHARACTERS = st.one_of(st.sampled_from(RARE), st.characters(exclude_categories=["Cs"]))
HALVES = st.sampled_from(["\ud83d", "\ude00", "\ud800", "\udfff", "\ud83d\ude00"])


def texts(*more: st.SearchStrategy[str], size: int = 30) -> st.SearchStrategy[str]:
    """Texts of rare characters, any characters, contractions and runs of white space, and what else is given."""
    return st.lists(st.one_of(CHARACTERS, st.sampled_from(WORDS), *more), max_size=size).map("".join)


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


def cuttings(text: str, places: Iterable[int]) -> list[str]:
    """A text cut at places, which may be beyond its end."""
    at = sorted({0, len(text), *(min(place, len(text)) for place in places)})
    return [text[a:b] for a, b in pairwise(at)]


# --- classes of characters ---


def members(ranges: str) -> set[int]:
    return {code for first, last in unicode_classes.code_points(ranges) for code in range(first, last + 1)}


LETTERS, NUMBERS = members(unicode_classes.LETTER_RANGES), members(unicode_classes.NUMBER_RANGES)
SPACES = members(unicode_classes.SPACE_RANGES)


@pytest.mark.parametrize(
    ("pattern", "ours", "size"),
    [(r"\p{L}", LETTERS, 141_028), (r"\p{N}", NUMBERS, 1911), (r"\s", SPACES, 25)],
    ids=["letters", "numbers", "space"],
)
def test_classes_are_tiktokens_at_every_code_point(pattern: str, ours: set[int], size: int) -> None:
    assert len(EVERY) == 1_112_064
    one_byte_each = {bytes([byte]): byte for byte in range(256)}
    oracle = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=one_byte_each, special_tokens={})
    theirs = set(map(ord, oracle.decode(oracle.encode_ordinary(EVERY))))  # what the pattern leaves out is dropped
    assert len(theirs) == size
    assert ours == theirs


@pytest.mark.parametrize(
    ("run", "ours"),
    [
        (unicode_classes.LETTERS, LETTERS),
        (unicode_classes.NUMBERS, NUMBERS),
        (unicode_classes.SPACE, SPACES),
        (unicode_classes.NOT_SPACE, set(map(ord, EVERY)) - SPACES),
        (unicode_classes.OTHERS, set(map(ord, EVERY)) - LETTERS - NUMBERS - SPACES),
    ],
    ids=["letters", "numbers", "space", "not space", "others"],
)
def test_the_expressions_find_their_class_at_every_code_point(run: str, ours: set[int]) -> None:
    found = re.compile(run).findall(EVERY)
    assert {ord(character) for part in found for character in part} == ours
    if run in (unicode_classes.LETTERS, unicode_classes.NUMBERS, unicode_classes.OTHERS):  # each run is whole
        assert len(found) == len({code for code in ours if _before(code) not in ours})


def _before(code: int) -> int:
    return 0xD7FF if code == 0xE000 else code - 1


def test_classes_are_those_of_unicodedata_where_it_knows_the_code_point() -> None:
    if tuple(map(int, unicodedata.unidata_version.split("."))) > (16, 0, 0):
        pytest.skip(f"this Python knows Unicode {unicodedata.unidata_version}, later than 16.0")
    category = {ord(character): unicodedata.category(character) for character in EVERY}
    known = {code for code, name in category.items() if name != "Cn"}
    assert len(known) > 280_000
    assert {code for code in known if category[code][0] == "L"} == LETTERS & known
    assert {code for code in known if category[code][0] == "N"} == NUMBERS & known
    assert {code for code in known if category[code][0] == "Z"} <= SPACES


def test_classes_are_those_of_hugging_face() -> None:
    assert pretokenize(EVERY) == hugging_face(EVERY)  # a cut wherever the class changes, at all code points
    changes = [code for kind in (LETTERS, NUMBERS, SPACES) for code in kind if _before(code) not in kind]
    ends = [code for kind in (LETTERS, NUMBERS, SPACES) for code in kind if code + 1 not in kind]
    near = {code + step for code in changes + ends for step in (-1, 0, 1) if code + step in range(0xD800)}
    near |= set(map(ord, random.Random(0).sample(EVERY, 10_000))) | NUMBERS | SPACES
    probes = "".join(f"a{chr(code)}1!{chr(code)}" for code in sorted(near))
    assert len(near) > 12_000
    assert pretokenize(probes) == hugging_face(probes)


# --- pre-tokens ---

BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)


def hugging_face(text: str) -> list[str]:
    return [text[a:b] for _, (a, b) in BYTE_LEVEL.pre_tokenize_str(text)]


@examples(800)
@given(texts(size=40))
@example("a\U0001d400b\U0001d7ce1\U0001f600!")
@example("\x1c a \x1f\x85  b\u180e")
@example("it's it'S 's'll'' 'dx'\u0301  's")
def test_pretokens_are_those_of_hugging_face(text: str) -> None:
    words = pretokenize(text)
    assert "".join(words) == text
    assert words == hugging_face(text)


def test_pretokens_by_hand() -> None:
    assert pretokenize("I'll  pay 3.50\n\n  now, don't!") == [
        *("I", "'ll", " ", " pay", " 3", ".", "50", "\n\n ", " now", ",", " don", "'t", "!")
    ]
    for ending in ("s", "d", "m", "t", "ll", "ve", "re"):
        assert pretokenize(f"we'{ending}x'{ending.upper()}") == ["we", f"'{ending}", "x", "'", ending.upper()]
    assert pretokenize("") == []
    assert pretokenize("a \t\n") == ["a", " \t\n"]


def test_a_run_of_two_planes_is_no_trap() -> None:
    """A pattern that gives characters back would need time that doubles with each of them."""
    text = ("a\U0001d400" * 3000 + "\U0001f600!" * 3000 + "1\U0001d7ce" * 3000 + " ") * 3
    assert len(pretokenize(text)) == 3 * 3 + 1  # the spaces belong to what follows, but the last
    assert pretokenize("\n" * 20_000 + "x") == ["\n" * 19_999, "\n", "x"]


# --- special tokens ---


def test_special_tokens_stand_at_odd_places_and_the_longer_one_counts() -> None:
    names = ["<|a|>", "<|a|>b", "."]
    assert split_special("x<|a|>b<|a|>..y", names) == ["x", "<|a|>b", "", "<|a|>", "", ".", "", ".", "y"]
    assert split_special("x", names) == ["x"]
    assert split_special("", names) == [""]
    assert split_special("<|a|>", ()) == ["<|a|>"]


@examples(200)
@given(texts(st.sampled_from(["<|a|>", "<|a|>b", "<|"])), st.sets(st.sampled_from(["<|a|>", "<|a|>b", "<|", "a"])))
def test_the_parts_of_a_split_are_the_text(text: str, names: set[str]) -> None:
    parts = split_special(text, names)
    assert "".join(parts) == text
    assert set(parts[1::2]) <= names
    assert not any(name in part for part in parts[::2] for name in names)


# --- streams ---


@examples(300)
@given(texts(), st.lists(st.integers(0, 60), max_size=12))
@example("a  \n b", [1, 2, 3, 4])
def test_a_stream_may_be_cut_anywhere(text: str, places: list[int]) -> None:
    parts = list(cut_stream(cuttings(text, places)))
    assert "".join(parts) == text
    assert [word for part in parts for word in pretokenize(part)] == pretokenize(text)


def test_a_stream_is_handed_on_as_it_comes() -> None:
    taken = []

    def lines() -> Iterable[str]:
        for number in range(4):
            taken.append(number)
            yield f"line {number}\n"

    parts = cut_stream(lines())
    assert next(parts) == "line 0"
    assert taken == [0]
    assert next(parts) == "\nline 1"
    assert taken == [0, 1]
    assert list(cut_stream(["a", " b", "", "c\n", "\n", "d"])) == ["a", " bc", "\n\nd"]


@examples(100)
@given(texts(), st.lists(st.sampled_from(["<|a|>", "b"]), max_size=3))
@example("x<|a|>b<|a|>y", ["<|a|>"])
def test_words_are_counted_in_slices_as_in_one(text: str, special: list[str]) -> None:
    whole = Counter(word for part in split_special(text, special)[::2] for word in pretokenize(part))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "CHUNK", 3)
        assert count_words([text], special) == whole
    assert count_words([text, text], special) == Counter({word: 2 * count for word, count in whole.items()})


# --- surrogates ---


@examples(300)
@given(texts(HALVES))
@example("\ufeff\ud83d")
@example("\ud83d\ud83d\ude00\ude00")
def test_lone_halves_become_the_replacement_character_and_pairs_characters(text: str) -> None:
    wanted, at = "", 0
    while at < len(text):
        one, two = ord(text[at]), ord(text[at + 1]) if at + 1 < len(text) else 0
        if 0xD800 <= one < 0xDC00 and 0xDC00 <= two < 0xE000:
            wanted += chr(0x10000 + ((one - 0xD800) << 10) + (two - 0xDC00))
            at += 1
        else:
            wanted += "\ufffd" if 0xD800 <= one < 0xE000 else text[at]
        at += 1
    assert repair_surrogates(text) == wanted
    if any(0xD800 <= ord(character) < 0xE000 for character in text):
        with pytest.raises(ValueError, match="surrogates not allowed"):
            repair_surrogates(text, "strict")
    else:
        assert repair_surrogates(text, "strict") == text


def test_unknown_errors_are_named() -> None:
    with pytest.raises(ValueError, match="'replace' or 'strict', not 'ignore'"):
        repair_surrogates("", "ignore")
