"""01_tokenizer: training, encoding and decoding, against oracles written plainly, tiktoken and Hugging Face."""

from __future__ import annotations

import bz2
import copy
import functools
import json
import pickle
import random
import re
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
import torch
from glassbox import tokenizer
from glassbox.bpe import count_pairs, encode_long_word, encode_word, merge_pair, pop_most_frequent, train_merges
from glassbox.datasets import dataset
from glassbox.tales import END
from glassbox.tokenizer import KEPT_LETTERS, SHORT, BPETokenizer
from glassbox.vocabulary import bytes_to_unicode
from hypothesis import example, given
from hypothesis import strategies as st
from test_pretokens import EVERY, HALVES, cuttings, examples, texts
from tiktoken_ext.openai_public import r50k_pat_str
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

Pair = tuple[int, int]
SPECIALS = st.sampled_from([END, END[:-1], f" {END}\n", END * 2, "<|x|>", "<|x|>y"])


@functools.cache
def course() -> BPETokenizer:
    return BPETokenizer.load()


@functools.cache
def tales() -> tuple[str, ...]:
    return tuple(dataset("tales").read_text(encoding="utf-8").split(f"{END}\n"))


@functools.cache
def two_specials() -> BPETokenizer:
    """The course's vocabulary with a special token more, of which the first is the beginning."""
    ours = course()
    return BPETokenizer(ours.ranks, {END: 2047, f"{END}y": 2048, "<|x|>": 2049}, ours.byte_ids)


@pytest.fixture(scope="module")
def gpt2(data_dir: Path) -> BPETokenizer:
    return BPETokenizer.from_gpt2()


@pytest.fixture(scope="module")
def openai(data_dir: Path) -> tiktoken.Encoding:
    """GPT-2 as tiktoken itself reads it, with tiktoken's own pattern."""
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = data_dir / "gpt2-bpe"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # no copies of the files
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=str(folder / "vocab.bpe"), encoder_json_file=str(folder / "encoder.json")
        )
    return tiktoken.Encoding(
        "gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={END: 50256}, explicit_n_vocab=50257
    )


# --- training ---


def words(alphabet: int, size: int = 12) -> st.SearchStrategy[list[list[int]]]:
    runs = st.tuples(st.integers(0, alphabet - 1), st.integers(1, 7)).map(lambda run: [run[0]] * run[1])
    word = st.one_of(st.lists(st.integers(0, alphabet - 1), max_size=size), runs)
    return st.lists(word, min_size=1, max_size=8)


def recount(words: list[list[int]], counts: list[int], n_merges: int) -> tuple[dict[Pair, int], list[int]]:
    """Merges by the definition: everything is counted again at each step. Also how often each merged pair stood."""
    spelled, ranks, heights = [list(word) for word in words], {}, []
    for new in range(256, 256 + n_merges):
        pairs = count_pairs(spelled, counts)
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        ranks[best] = new
        heights.append(pairs[best])
        spelled = [merge_pair(word, best, new) for word in spelled]
    return ranks, heights


@examples(200)
@given(st.lists(st.integers(0, 2), max_size=20), st.integers(0, 2), st.integers(0, 2))
def test_merging_a_pair_is_replacing_a_string(ids: list[int], left: int, right: int) -> None:
    text = "".join("abc"[i] for i in ids).replace("abc"[left] + "abc"[right], "N")
    assert merge_pair(tuple(ids), (left, right), 9) == [{"a": 0, "b": 1, "c": 2, "N": 9}[sign] for sign in text]
    assert merge_pair(ids, (left, right), 9) == merge_pair(tuple(ids), (left, right), 9)


@examples(100)
@given(words(3), st.data())
def test_pairs_are_counted_with_overlap_and_weight(words: list[list[int]], data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 9), min_size=len(words), max_size=len(words)))
    found = count_pairs(words, counts)
    wanted = {
        (a, b): sum(
            count * sum(word[i : i + 2] == [a, b] for i in range(len(word)))
            for word, count in zip(words, counts, strict=True)
        )
        for a in range(3)
        for b in range(3)
    }
    assert found == {pair: count for pair, count in wanted.items() if count}
    with pytest.raises(ValueError, match="shorter"):
        count_pairs([*words, [1, 2]], counts)


@pytest.mark.parametrize("alphabet", [1, 2, 4])
@examples(150)
@given(data=st.data())
def test_training_equals_counting_everything_at_every_step(alphabet: int, data: st.DataObject) -> None:
    found = data.draw(words(alphabet))
    counts = data.draw(st.lists(st.integers(1, 3), min_size=len(found), max_size=len(found)))
    ranks, heights = recount(found, counts, 60)
    assert list(train_merges(found, counts, len(ranks)).items()) == list(ranks.items())
    assert heights == sorted(heights, reverse=True)
    if len(ranks) < 60:
        with pytest.raises(ValueError, match="pairs for") as caught:
            train_merges(found, counts, 60)
        said = re.search(r"pairs for (\d+) merges, not for 60: .* smaller by (\d+)$", str(caught.value))
        assert said
        assert [int(number) for number in said.groups()] == [len(ranks), 60 - len(ranks)]


def test_training_on_tales_equals_counting_everything_and_counts_never_rise() -> None:
    found = tokenizer.count_words(tales()[:150])
    spelled = [list(word.encode()) for word in found]
    ranks, heights = recount(spelled, list(found.values()), 120)
    assert list(train_merges(spelled, list(found.values()), 120).items()) == list(ranks.items())
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > 20 * heights[-1]


def test_of_equally_frequent_pairs_the_smaller_ids_win() -> None:
    assert list(train_merges([[5, 1], [2, 9], [2, 7]], [3, 3, 3], 3)) == [(2, 7), (2, 9), (5, 1)]
    assert list(train_merges([[5, 1], [2, 9], [2, 7]], [4, 3, 3], 1)) == [(5, 1)]


def test_ids_start_where_they_are_told_to_and_the_bar_is_shown_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_merges([[0, 1, 0, 1]], [1], 2, first_id=10) == {(0, 1): 10, (10, 10): 11}
    assert capsys.readouterr().err == ""
    train_merges([[0, 1, 0, 1]], [1], 2, progress=True)
    assert "merges: 100%" in capsys.readouterr().err


def test_an_outdated_count_goes_back_into_the_heap() -> None:
    heap = [(-9, "ab"), (-8, "bc"), (-7, "cd")]
    assert pop_most_frequent(heap, {"ab": 5, "bc": 0, "cd": 7}) == "cd"
    assert heap == [(-5, "ab")]
    assert pop_most_frequent(heap, {"ab": 5}) == "ab"
    assert pop_most_frequent(heap, {}) is None


def spelled_merges(found: BPETokenizer) -> list[tuple[str, str]]:
    symbols = bytes_to_unicode()
    names = {i: "".join(map(symbols.__getitem__, token)) for i, token in found.vocabulary.items()}
    return [(names[left], names[right]) for left, right in found.ranks]


def hugging_face_merges(texts: list[str], vocab_size: int) -> list[tuple[str, str]]:
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)  # type: ignore
    learner.train_from_iterator(texts, trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]


def test_training_on_tales_equals_hugging_face() -> None:
    found = BPETokenizer.train(tales(), 2048, ())
    assert spelled_merges(found) == hugging_face_merges(list(tales()), 2048)
    assert found.ranks == {**course().ranks, list(found.ranks)[-1]: 2047}  # one merge more than with a special token


@examples(150)
@given(st.lists(texts(st.text("ab ", max_size=9)), max_size=4))
def test_training_on_any_text_equals_hugging_face(found: list[str]) -> None:
    theirs = hugging_face_merges(found, 256 + 15)
    if theirs:
        ours = BPETokenizer.train(found, 256 + len(theirs), ())
        assert spelled_merges(ours) == theirs


@pytest.mark.parametrize(
    "name", ["names.txt", "the-verdict.txt", "tinyshakespeare.txt", "tinystories-sample.txt", "wiki.test.raw", "udhr"]
)
def test_training_on_real_text_equals_hugging_face(name: str, data_dir: Path) -> None:
    if name == "udhr":
        found = [text[:1500] for text in declarations(data_dir).values()]
    else:
        found = [(data_dir / "corpora" / name).read_text(encoding="utf-8")]
    assert spelled_merges(BPETokenizer.train(found, 1500, ())) == hugging_face_merges(found, 1500)


def test_the_order_of_documents_does_not_matter() -> None:
    found = list(tales()[:300])
    one = BPETokenizer.train(found, 500)
    random.Random(1).shuffle(found)
    assert BPETokenizer.train(found, 500) == one
    assert BPETokenizer.train(iter(found), 500) == one
    assert list(BPETokenizer.train(found, 500).ranks) == list(one.ranks)


def learned(found: BPETokenizer) -> list[bytes]:
    return [found.vocabulary[i] for i in found.ranks.values()]


def test_special_tokens_are_not_learned_and_nothing_merges_across_them_or_across_texts() -> None:
    parts = ["abab" * 5, "cdcd" * 5]
    apart = BPETokenizer.train(parts, 262)
    assert BPETokenizer.train(END.join(parts), 262) == apart
    assert BPETokenizer.train([END, parts[0] + END, END + parts[1] + END * 99], 262) == apart
    assert apart.special_tokens == {END: 261}
    assert all(set(token) <= set(b"ab") or set(token) <= set(b"cd") for token in learned(apart))
    glued = BPETokenizer.train(END * 50, 267, ())  # not named, it is text like any other
    assert any(b"|><|" in token for token in learned(glued))


def test_a_vocabulary_as_large_as_the_text_allows() -> None:
    with pytest.raises(ValueError, match=r"pairs for 6 merges, not for 743: .* vocabulary smaller by 737"):
        BPETokenizer.train("abcdefg", 1000)
    full = BPETokenizer.train("abcdefg", 1000 - 737)
    assert full.encode("abcdefg") == [261]
    assert BPETokenizer.train("a", 257).ranks == {}  # nothing to learn was asked for


# --- words ---


@st.composite
def any_ranks(draw: Any) -> dict[Pair, int]:
    """Merges that need not come from training: some of them no word ever reaches."""
    ranks: dict[Pair, int] = {}
    for new in range(4, 4 + draw(st.integers(0, 14))):
        pair = draw(st.tuples(st.integers(0, new - 1), st.integers(0, new - 1)))
        if pair not in ranks and all(i < 4 or i in ranks.values() for i in pair):
            ranks[pair] = new
    return ranks


@examples(500)
@given(any_ranks(), st.lists(st.integers(0, 3), max_size=40))
def test_long_words_are_merged_as_short_ones(ranks: dict[Pair, int], word: list[int]) -> None:
    ids = encode_word(word, ranks)
    assert encode_long_word(tuple(word), ranks) == ids
    assert not any(pair in ranks for pair in pairwise(ids))


@examples(100)
@given(words(2, 25), words(2, 60))
def test_long_words_are_merged_as_short_ones_with_learned_merges(
    sample: list[list[int]], others: list[list[int]]
) -> None:
    ranks, _ = recount(sample, [1] * len(sample), 40)
    for word in others + sample:
        assert encode_long_word(word, ranks) == encode_word(word, ranks)


@pytest.mark.parametrize("length", [0, 1, 2, 3, SHORT - 1, SHORT, SHORT + 1, 255, 256, 257, 1000])
@pytest.mark.parametrize("of", ["a", "ab", "aab", "abcde fgh"])
def test_runs_of_any_length(length: int, of: str) -> None:
    word = (of * length)[:length].encode()
    ids = course().encode_bytes(word)
    spelled = [course().byte_ids[byte] for byte in word]
    assert ids == encode_word(spelled, course().ranks) == encode_long_word(spelled, course().ranks)
    assert course().decode_bytes(ids) == word


def test_encoding_applies_the_merges_in_the_order_of_training() -> None:
    found = tokenizer.count_words(tales()[:50])
    ranks = train_merges([word.encode() for word in found], list(found.values()), 200)
    for word in list(found)[:400]:
        ids = list(word.encode())
        for pair, new in ranks.items():
            ids = merge_pair(ids, pair, new)
        assert encode_word(word.encode(), ranks) == ids


# --- the course's vocabulary against the two tools ---


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Callable[[str], list[int]], ...]]:
    """How each tool encodes with the vocabulary of three special tokens: as text alone, and with special tokens."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("exported")
    two_specials().to_huggingface(folder)
    fast, plain = (Tokenizer.from_file(str(folder / "tokenizer.json")) for _ in range(2))
    plain.encode_special_tokens = True  # type: ignore[assignment]
    auto = AutoTokenizer.from_pretrained(folder)
    two_specials().save(folder / "saved")
    saved = BPETokenizer.load(folder / "saved", [f"{END}y"])
    return {
        "tokenizers": (lambda text: plain.encode(text).ids, lambda text: fast.encode(text).ids),
        "transformers": (
            lambda text: auto(text, split_special_tokens=True)["input_ids"],
            lambda text: auto.encode(text),
        ),
        "saved": (saved.encode, lambda text: saved.encode(text, "all")),
    }


@pytest.mark.parametrize("tool", ["tokenizers", "transformers", "saved"])
def test_ids_are_those_of_the_tools(tool: str, tools: dict[str, tuple[Callable[[str], list[int]], ...]]) -> None:
    ordinary, special = tools[tool]

    @examples(250)
    @given(texts(SPECIALS))
    @example(f"{END}y{END}yy <|x|>\n{END}")
    @example(f"{END[:-1]}{END}>")
    @example("")
    def same(text: str) -> None:
        assert two_specials().encode(text) == ordinary(text)
        assert two_specials().encode(text, "all") == special(text)

    same()
    sample = f"{END}\n".join(tales()[:1200])
    assert two_specials().encode(sample, "all") == special(sample)
    assert two_specials().encode(sample) == ordinary(sample)
    assert len(sample) > 400_000


def test_ids_are_those_of_tiktoken(tmp_path: Path) -> None:
    course().save(tmp_path)
    theirs, saved = course().to_tiktoken(), BPETokenizer.load(tmp_path)
    assert theirs.n_vocab == 2048
    assert saved == course()

    @examples(250)
    @given(texts(SPECIALS, HALVES))
    @example("")
    def same(text: str) -> None:
        assert course().encode(text) == saved.encode(text) == theirs.encode_ordinary(text)
        assert course().encode(text, "all") == theirs.encode(text, allowed_special="all")
        assert theirs.decode(course().encode(text)) == tokenizer.repair_surrogates(text)

    same()
    sample = f"{END}\n".join(tales())
    assert course().encode(sample, "all") == theirs.encode(sample, allowed_special="all")


def test_a_special_token_that_is_a_word_stays_text_in_tiktoken() -> None:
    found = BPETokenizer.train("ab ab cd", 258, ["abba"])
    assert found.encode("abba") == found.to_tiktoken().encode_ordinary("abba")
    assert found.encode("abba", "all") == found.to_tiktoken().encode("abba", allowed_special="all") == [257]


def test_tiktoken_cannot_have_a_special_token_that_begins_another() -> None:
    """Which one tiktoken takes, the order of its hash table decides; so the export is refused."""
    with pytest.raises(ValueError, match=r"tiktoken may take the special token .* rename one of the two"):
        two_specials().to_tiktoken()


def test_where_one_special_token_begins_another_the_longer_counts() -> None:
    assert two_specials().encode(f"{END}y{END}z", "all") == [2048, 2047, *two_specials().encode("z")]
    assert two_specials().encode(f"{END}y", {END}) == [2047, *two_specials().encode("y")]
    assert two_specials().encode(f"{END}y", END) == [2047, *two_specials().encode("y")]


def test_decoding_equals_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    course().to_huggingface(tmp_path)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert (auto.eos_token, auto.eos_token_id, auto.bos_token) == (END, 2047, END)
    assert len(auto) == course().vocab_size
    ids = course().encode(f" It 's  here , n't . {tales()[0]}\r\n é字{END}", "all")
    assert auto.decode(ids) == course().decode(ids)
    rng = random.Random(0)
    for _ in range(200):
        ids = rng.choices(range(2048), k=rng.randint(0, 12))
        assert auto.decode(ids) == course().decode(ids)


def test_without_the_end_of_text_no_end_of_text_is_exported(tmp_path: Path) -> None:
    BPETokenizer.train("abab", 258, ["<|x|>"]).to_huggingface(tmp_path)
    assert "eos_token" not in json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))


# --- OpenAI's vocabulary ---


def test_from_gpt2_has_openais_tokens(gpt2: BPETokenizer, openai: tiktoken.Encoding) -> None:
    assert gpt2.vocab_size == openai.n_vocab == 50257
    assert gpt2.special_tokens == {END: 50256}
    for i in range(50257):
        assert gpt2.vocabulary[i] == openai.decode_single_token_bytes(i)


@examples(600)
@given(text=texts(HALVES, SPECIALS, size=40))
@example("")
@example("\ufeff\ud83d\ude00\ude00 \ud83d")
def test_any_text_has_gpt2s_ids(gpt2: BPETokenizer, openai: tiktoken.Encoding, text: str) -> None:
    ids = gpt2.encode(text)
    assert ids == openai.encode_ordinary(text)
    assert gpt2.encode(text, "all") == openai.encode(text, allowed_special="all")
    assert gpt2.decode(ids) == tokenizer.repair_surrogates(text)


def declarations(data_dir: Path) -> dict[str, str]:
    """The Universal Declaration of Human Rights, by language."""
    with zipfile.ZipFile(data_dir / "corpora" / "udhr2.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        return {name: archive.read(name).decode("utf-8", "replace") for name in names}


def test_all_languages_have_gpt2s_ids(
    gpt2: BPETokenizer, openai: tiktoken.Encoding, data_dir: Path, record_property: Callable[[str, object], None]
) -> None:
    found = declarations(data_dir)
    record_property("languages", len(found))
    record_property("characters", sum(map(len, found.values())))
    differ = [name for name, text in found.items() if gpt2.encode(text) != openai.encode_ordinary(text)]
    assert not differ, f"{len(differ)} of {len(found)} languages differ: {differ[:5]}"
    assert len(found) == 388
    for text in list(found.values())[::8]:
        assert gpt2.decode(gpt2.encode(text)) == text


def test_every_text_of_the_data_folder_has_gpt2s_ids(
    gpt2: BPETokenizer, openai: tiktoken.Encoding, data_dir: Path, record_property: Callable[[str, object], None]
) -> None:
    compared = 0
    for path in sorted(path for path in data_dir.rglob("*") if path.is_file() and path.suffix != ".zip"):
        data = path.read_bytes()
        text = (bz2.decompress(data) if path.suffix == ".bz2" else data).decode("utf-8", "replace")[:600_000]
        ids = openai.encode_ordinary(text)
        assert gpt2.encode(text) == ids, path.name
        assert gpt2.decode(ids) == text, path.name
        compared += len(text)
    record_property("characters", compared)
    assert compared > 4_000_000, f"only {compared} characters were compared"


def test_every_code_point_has_gpt2s_ids(gpt2: BPETokenizer, openai: tiktoken.Encoding) -> None:
    for text in (EVERY, "\n".join(EVERY[::25])):
        ids = gpt2.encode(text)
        assert ids == openai.encode_ordinary(text)
        assert gpt2.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            END,
            END * 3,
            f"a{END}",
            f"{END}a",
            f" {END} ",
            f"\n\n{END}\n\n",
            f"\ud83d{END}\ude00",
            f"<|{END}|>",
            END[1:],
        ),
        *("\r\n" * 9, "a\r\n\r\n b\r\r  c \n \n\td", " " * 100, "\t" * 30 + "x", "\n" * 50 + " x", "x" + " " * 20),
        *("\x85\x1c\x1d \u3000a\u2028\u2029 b", "\0\0 \0", "\ufeffa", "e\u0301\u0301", "''s''ll'LL", "1\u00b2\u2167x"),
    ],
)
def test_hard_places_have_gpt2s_ids(text: str, gpt2: BPETokenizer, openai: tiktoken.Encoding) -> None:
    assert gpt2.encode(text) == openai.encode_ordinary(text)
    assert gpt2.encode(text, "all") == openai.encode(text, allowed_special="all")
    assert gpt2.encode(text, [END]) == openai.encode(text, allowed_special={END})
    assert END not in text or 50256 not in gpt2.encode(text)
    assert gpt2.decode(gpt2.encode(text, "all")) == tokenizer.repair_surrogates(text)


@pytest.mark.parametrize("signs", ["a", "abcdefghijklmnopqrstuvwxyz"])
def test_a_word_of_a_million_letters_has_gpt2s_ids(signs: str, gpt2: BPETokenizer, openai: tiktoken.Encoding) -> None:
    word = "".join(random.Random(0).choices(signs, k=1_000_000))
    assert gpt2.encode(word) == openai.encode_ordinary(word)


def test_ids_and_text_are_those_of_transformers(gpt2: BPETokenizer, data_dir: Path) -> None:
    from transformers import GPT2Tokenizer

    folder = data_dir / "gpt2-bpe"
    theirs: Any = GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
    sample = (data_dir / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:200_000]
    for text in (sample, f"I don't know.{END} '\u0301 字 \U0001f600\r\n  x  "):
        ids = gpt2.encode(text, "all")
        assert theirs.encode(text) == ids
        assert theirs(text, split_special_tokens=True)["input_ids"] == gpt2.encode(text)
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == gpt2.decode(ids) == text


# --- encoding, other ways ---


def test_special_tokens_are_ordinary_text_unless_allowed() -> None:
    ours = two_specials()
    assert not {2047, 2048, 2049} & set(ours.encode(f"{END}<|x|>"))
    assert ours.encode(f"{END}<|x|>", [END])[0] == 2047
    assert 2049 not in ours.encode(f"{END}<|x|>", [END])
    assert ours.encode(f"{END}<|x|>", "all") == ours.encode(f"{END}<|x|>", (END, "<|x|>")) == [2047, 2049]
    assert ours.encode_batch([END, "<|x|>"], "all") == [[2047], [2049]]
    assert list(ours.encode_iterable([END, "<|x|>"], "<|x|>"))[-1] == 2049


@pytest.mark.parametrize("allowed", ["<|y|>", ["<|y|>"], [END, "<|y|>"], "", {"all"}])
def test_unknown_special_tokens_are_refused(allowed: Any) -> None:
    wrong = r"allowed_special: '(<\|y\|>|all|)' is none of this tokenizer's \['<\|endoftext\|>'\]"
    with pytest.raises(ValueError, match=wrong):
        course().encode("text", allowed)
    with pytest.raises(ValueError, match=wrong):
        list(course().encode_iterable(["text"], allowed))


def test_strict_refuses_lone_halves() -> None:
    for act in (
        lambda: course().encode("a\ud83d", errors="strict"),
        lambda: course().encode_batch(["a", "\ude00"], errors="strict"),
        lambda: list(course().encode_iterable(["a", "\ude00"], errors="strict")),
    ):
        with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
            act()
    assert course().encode("a\ud83d") == course().encode("a\ufffd")
    assert course().encode("\ud83d\ude00") == course().encode("\U0001f600")
    with pytest.raises(ValueError, match="errors must be 'replace' or 'strict', not 'ignore'"):
        course().encode("a", errors="ignore")


@examples(300)
@given(texts(HALVES, SPECIALS), st.lists(st.integers(0, 200), max_size=20), st.sampled_from(["all", END, ()]))
@example(f"a{END}", list(range(30)), "all")
@example(f"no_space{END * 3}at_all\ud83d\ude00", list(range(60)), "all")
def test_a_stream_has_the_ids_of_the_whole_text(text: str, places: list[int], allowed: Any) -> None:
    ids = list(two_specials().encode_iterable(cuttings(text, places), allowed))
    assert ids == two_specials().encode(text, allowed)


def test_a_stream_of_nothing() -> None:
    assert list(course().encode_iterable([])) == []
    assert list(course().encode_iterable(["", ""])) == []
    assert course().encode_batch([]) == []
    assert course().encode("") == []


def test_a_stream_needs_the_same_memory_however_long_it_is() -> None:
    lines = [f"{line}\n" for line in "".join(tales()[:40]).splitlines()]

    def peak(repeats: int) -> int:
        tracemalloc.start()
        try:
            count = sum(1 for _ in course().encode_iterable(line for _ in range(repeats) for line in lines))
            assert count > repeats * 1000
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    course().encode("".join(lines))  # fills the cache
    short, long = peak(2), peak(20)
    assert long < 1.5 * short, f"{short} bytes for a stream, {long} for one ten times as long"


def test_the_cache_is_bounded_and_changes_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = "".join(tales()[:60])
    wanted = course().encode(sample)
    monkeypatch.setattr(tokenizer, "KEPT", 7)
    fresh = BPETokenizer.load()
    for _ in range(2):
        assert fresh.encode(sample) == wanted
        assert 0 < len(fresh.cache) <= 7


def test_long_words_are_not_kept() -> None:
    fresh = BPETokenizer.load()
    fresh.encode(f"{'a' * KEPT_LETTERS} {'b' * KEPT_LETTERS}")
    assert list(fresh.cache) == ["a" * KEPT_LETTERS]  # the second has a space before it


def test_threads_share_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "KEPT", 20)
    fresh, found = BPETokenizer.load(), [tales()[i : i + 40] for i in range(0, 160, 40)]
    results: dict[int, list[list[int]]] = {}

    def work(i: int) -> None:
        results[i] = [ids for _ in range(3) for ids in fresh.encode_batch(found[i])]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: course().encode_batch(found[i]) * 3 for i in range(4)}


def test_pickles_and_copies_are_equal_and_encode_alike() -> None:
    ours = two_specials()
    ours.encode("fill the cache")
    for twin in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours), copy.copy(ours)):
        assert twin == ours
        assert type(twin) is BPETokenizer
        assert twin.encode(f"Once {END}y", "all") == ours.encode(f"Once {END}y", "all")
        assert len(pickle.dumps(twin)) == len(pickle.dumps(BPETokenizer(ours.ranks, ours.special_tokens)))
    assert ours != course()
    assert ours != "text"


# --- decoding ---


@examples(300)
@given(st.lists(st.integers(0, 2049), max_size=30), st.sampled_from(["replace", "ignore"]))
def test_decoding_any_ids_at_once_and_one_by_one(ids: list[int], errors: str) -> None:
    text = two_specials().decode(ids, errors)
    assert "".join(two_specials().decode_iterable(iter(ids), errors)) == text
    assert two_specials().decode_bytes(ids).decode("utf-8", errors) == text
    assert two_specials().decode_bytes(ids) == b"".join(two_specials().vocabulary[i] for i in ids)


def test_a_character_is_held_back_until_it_is_whole() -> None:
    ids = [course().byte_ids[byte] for byte in "é字\U0001f600a".encode()]
    assert list(course().decode_iterable(ids)) == ["é", "字", "\U0001f600", "a"]
    assert list(course().decode_iterable(ids[:3])) == ["é", "\ufffd"]
    assert course().decode(ids[1:]) == "\ufffd字\U0001f600a"
    assert course().decode(ids[1:], "ignore") == "字\U0001f600a"
    for act in (lambda: course().decode(ids[:1], "strict"), lambda: list(course().decode_iterable(ids[:1], "strict"))):
        with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
            act()
    with pytest.raises(UnicodeDecodeError, match="invalid start byte"):
        course().decode(ids[1:2], "strict")


@pytest.mark.parametrize(
    "make",
    [
        *(list, tuple, iter, np.array, torch.tensor, lambda ids: np.array(ids, np.uint16)),
        lambda ids: torch.tensor(ids, dtype=torch.int32),
    ],
    ids=["list", "tuple", "iterator", "numpy", "torch", "uint16", "int32"],
)
def test_ids_may_come_in_many_forms(make: Callable[[list[int]], Any]) -> None:
    ids = course().encode("Once upon a time.")
    assert course().decode(make(ids)) == "Once upon a time."
    assert course().decode_bytes(make(ids)) == b"Once upon a time."
    assert course().decode(make(ids)[:0] if not hasattr(make(ids), "__next__") else iter([])) == ""


@pytest.mark.parametrize(
    "make", [np.array, torch.tensor, lambda ids: list(np.array(ids))], ids=["numpy", "torch", "list"]
)
def test_whole_numbers_of_arrays_one_by_one(make: Callable[[list[int]], Any]) -> None:
    ids = make(course().encode("Once upon a time."))
    assert "".join(course().decode_iterable(ids)) == "Once upon a time."
    assert course().decode(list(ids)) == "Once upon a time."


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        ([-1], ValueError, "id -1 has no token; the ids here are 0 to 2047"),
        ([5, 2048], ValueError, "id 2048 has no token; the ids here are 0 to 2047"),
        (np.array([1, -7]), ValueError, "id -7 has no token"),
        ([1.0], TypeError, "whole numbers in one row, not 1.0 of type float"),
        ([True], TypeError, "not True of type bool"),
        (["a"], TypeError, "not 'a' of type str"),
        ([[1, 2]], TypeError, r"one row, not \[1, 2\] of type list"),
        (np.array([[1, 2]]), TypeError, r"one row, not \[1, 2\] of type list"),
        (np.array([True]), TypeError, "not True of type bool"),
        (torch.tensor([1.0]), TypeError, "not 1.0 of type float"),
        (torch.tensor([[1]]), TypeError, r"not \[1\] of type list"),
        ("text", TypeError, "not str 'text'; use encode for text"),
        (b"text", TypeError, "not bytes b'text'; use encode for text"),
    ],
)
def test_ids_that_are_none(ids: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        course().decode(ids)
    with pytest.raises(error, match=words):
        course().decode_bytes(ids)


# --- what is refused ---

OURS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "vocab_size": (lambda: BPETokenizer.train("abab", 256), ValueError, "257.*1 special tokens.*256$"),
    "two special": (
        lambda: BPETokenizer.train("a", 257, ("<|a|>", "<|b|>")),
        ValueError,
        "258.*2 special tokens.*257$",
    ),
    "no text": (lambda: BPETokenizer.train("", 260), ValueError, "for 0 merges, not for 3: give more text"),
    "no texts": (lambda: BPETokenizer.train([], 260), ValueError, "for 0 merges, not for 3"),
    "special only": (lambda: BPETokenizer.train([END, ""], 258), ValueError, "for 0 merges, not for 1"),
    "small text": (lambda: BPETokenizer.train("ab", 300), ValueError, "for 1 merges, not for 43: .* smaller by 42"),
    "space": (lambda: BPETokenizer.train("a", 257, ["<| |>"]), ValueError, r"special token '<\| \|>' .* white space"),
    "empty special": (lambda: BPETokenizer.train("a", 257, [""]), ValueError, "special token '' must be text without"),
    "train bytes": (lambda: BPETokenizer.train(b"abab", 258), TypeError, "not one bytes"),  # type: ignore
    "train on bytes": (lambda: BPETokenizer.train([b"ab"], 258), TypeError, "as a str, not bytes; decode"),  # type: ignore
    "encode bytes": (lambda: course().encode(b"ab"), TypeError, r"not bytes; decode bytes first: data.dec"),  # type: ignore
    "encode None": (lambda: course().encode(None), TypeError, "expected text as a str, not NoneType"),  # type: ignore
    "encode a list": (lambda: course().encode(["a"]), TypeError, "as a str, not list"),  # type: ignore
    "batch of one": (lambda: course().encode_batch("ab"), TypeError, r"a list of str, not one str; write \[text\]"),
    "batch of bytes": (lambda: course().encode_batch([b"a"]), TypeError, "as a str, not bytes"),  # type: ignore
    "stream of one": (lambda: list(course().encode_iterable("ab")), TypeError, "not one str"),
    "stream of one, at once": (lambda: course().encode_iterable("ab"), TypeError, "not one str"),
    "stream, unknown special": (lambda: course().encode_iterable(["a"], "<|x|>"), ValueError, "is none of"),
    "special as one str": (lambda: BPETokenizer.train("a", 300, "<|x|>"), TypeError, r"must be a list, such as \['<"),
    "special twice": (lambda: BPETokenizer.train("a", 300, ["<|x|>", "<|x|>"]), ValueError, "stands there twice"),
    "special named all": (lambda: BPETokenizer.train("a", 300, ["all"]), ValueError, "means every special token"),
    "special of half a character": (lambda: BPETokenizer.train("a", 300, ["<\ud800>"]), ValueError, "half a character"),
    "vocab_size of a float": (lambda: BPETokenizer.train("a", 300.0), ValueError, r"whole number .* not 300\.0"),  # type: ignore
    "train on nothing": (lambda: BPETokenizer.train(None, 300), TypeError, "not one NoneType"),  # type: ignore
    "ids of one": (lambda: course().decode(5), TypeError, r"several whole numbers, such as \[3, 1\], not 5"),  # type: ignore
    "ids of nothing": (lambda: course().decode(None), TypeError, "several whole numbers"),  # type: ignore
    "allowed bytes": (lambda: course().encode("a", b"x"), TypeError, "allowed_special must be"),  # type: ignore
    "allowed nothing": (lambda: course().encode("a", None), TypeError, "allowed_special must be"),  # type: ignore
    "float ids": (lambda: BPETokenizer({(1, 2): 256.0}), TypeError, r"of type int, not 256\.0"),  # type: ignore
    "id of a special token": (lambda: BPETokenizer({}, {"<|x|>": "256"}), TypeError, "of type int"),  # type: ignore
    "train on a dict": (lambda: BPETokenizer.train({"a": "b"}, 300), TypeError, r"not one dict; give its values\(\)"),
    "vocab_size beyond all": (lambda: BPETokenizer.train("a", 10**30), ValueError, "to 1,114,112"),
    "special as one str, loading": (lambda: BPETokenizer.load(None, END), TypeError, "must be a list"),
    "bytes of text": (lambda: course().encode_bytes("the"), TypeError, "expected bytes, not 'the'"),  # type: ignore
    "bytes of ids": (lambda: course().encode_bytes([-1]), TypeError, r"expected bytes, not \[-1\]"),  # type: ignore
    "ids of bytes": (lambda: list(course().decode_iterable(b"ab")), TypeError, "not bytes b'ab'; use encode"),
    "stream of one id": (lambda: list(course().decode_iterable(5)), TypeError, "several whole numbers"),  # type: ignore
    "stream of bytes": (lambda: list(course().encode_iterable([b"a"])), TypeError, "not bytes"),  # type: ignore
}


@pytest.mark.parametrize("name", OURS)
def test_fault(name: str) -> None:
    act, error, words = OURS[name]
    with pytest.raises(error, match=words):
        act()


def test_vocab_size_may_be_a_number_of_numpy() -> None:
    assert BPETokenizer.train("abab", np.int64(258)) == BPETokenizer.train("abab", 258)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "counts", "first", "error", "message"),
    [
        ([[1, 2]], [1, 5], 256, ValueError, "each of the 1 words, not 2 numbers"),
        ([[1, 2], [3]], [1], 256, ValueError, "each of the 2 words, not 1 numbers"),
        ([[1, 2]], [-1], 256, ValueError, "from -1 on"),
        ([[1, 2]], [1.5], 256, TypeError, "float"),
        ([[1, 300]], [1], 300, ValueError, "first_id must be above 300"),
        ([[0, 4, 2], [1, 3, 1, 3]], [10, 0], 1000, ValueError, "pairs for 2 merges, not for 4"),
    ],
)
def test_training_refuses_counts_that_do_not_fit(
    words: Any, counts: Any, first: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train_merges(words, counts, 4, first)


def test_training_takes_counts_of_any_kind() -> None:
    words = {(1, 2, 1, 2): 100, (2, 1): 100, (1, 2, 3): 100}
    expected = train_merges(list(words), list(words.values()), 3)
    assert train_merges(words.keys(), words.values(), 3) == expected
    assert train_merges(list(words), np.array([100] * 3, dtype=np.int8), 3) == expected
