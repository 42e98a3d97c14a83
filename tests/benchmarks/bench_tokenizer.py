"""01_tokenizer: training and encoding against Hugging Face tokenizers (Rust), tiktoken and a trainer that recounts.

Training: both sides get the same list of lines, and what they learn must be the same, merge by merge. Hugging Face runs
on one thread; a row of its own says what its threads cost in CPU seconds. The trainers that recount all pairs before
each merge are given few merges only, since they would take many minutes otherwise: `tokenizer_growth.py` measures them
on whole vocabularies, and the memory of training.

Text: the real corpora under $GLASSBOX_DATA, lines in a fixed random order: 14 MB of English, and after that mostly the
UDHR in 388 languages. Without them, fresh Tiny Tales. Each row names its text.
"""

from __future__ import annotations

import bz2
import functools
import json
import os
import random
import string
import tempfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate, chain
from pathlib import Path

import tiktoken
import tokenizers
from glassbox import tales
from glassbox.bpe import Pair, count_pairs, merge_pair
from glassbox.datasets import data_folder, dataset
from glassbox.tales import END
from glassbox.tokenizer import BPETokenizer, pretokenize
from glassbox.vocabulary import BYTE_IDS, bytes_to_unicode
from run import Case
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

HF = f"tokenizers {tokenizers.__version__}"
TIKTOKEN = f"tiktoken {tiktoken.__version__}"
VOCABULARY = 4096
ENGLISH = ("tiny-shakespeare", "tinystories-sample", "wikitext-2-valid", "wikitext-2-test", "lambada", "hellaswag")
OTHERS = ("udhr", "the-verdict", "sms-spam", "fomc-train", "fomc-test", "instruction")  # where English is used up
TALES, TALES_VOCABULARY = "Tiny Tales", 2048  # this small language has no pairs for more tokens

# --- text ---


def read_lines(name: str) -> list[str]:
    """The lines of a data set, each with its end; none where $GLASSBOX_DATA does not hold it."""
    registry = tomllib.loads((data_folder() / "datasets.toml").read_text(encoding="utf-8"))
    given = os.environ.get("GLASSBOX_DATA")
    if not given or not Path(given, registry[name]["path"]).is_file():
        return []
    path = dataset(name)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as book:
            texts = [book.read(part).decode("utf-8", "replace") for part in sorted(book.namelist())]
    else:
        data = path.read_bytes()
        texts = [(bz2.decompress(data) if path.suffix == ".bz2" else data).decode("utf-8")]
    if path.suffix == ".jsonl":
        texts = [f"{json.loads(line)['text']}\n" for line in texts[0].splitlines()]
    return [f"{line}\n" for text in texts for line in text.split("\n") if line]


@functools.cache
def real_lines() -> tuple[list[str], list[str]]:
    """Lines of English prose and other ones, each in a random order that is always the same."""
    english, others = ([line for name in names for line in read_lines(name)] for names in (ENGLISH, OTHERS))
    random.Random(0).shuffle(english)
    random.Random(1).shuffle(others)
    return english, others


def lines_of(size: int, real: bool = True) -> tuple[list[str], str]:
    """Whole lines of text, `size` bytes and at most a line more, and what they are."""
    english, others = real_lines() if real else ([], [])
    for lines, what in ((english, "English"), (english + others, "English, then 388 languages")):
        ends = list(accumulate(len(line.encode()) for line in lines))
        if ends and ends[-1] >= size:
            return lines[: next(i for i, end in enumerate(ends, start=1) if end >= size)], what
    lines, room = [], size
    for text in tales.stream(1):
        lines += text.text.splitlines(keepends=True)
        room -= len(text.text.encode())
        if room <= 0:
            break
    return lines, TALES


def named(size: int) -> str:
    return f"{size / 1e6:g} MB" if size >= 500_000 else f"{size / 1e3:g} kB"


# --- training ---


def train(lines: list[str], vocab_size: int) -> BPETokenizer:
    return BPETokenizer.train(lines, vocab_size)


def train_hf(lines: list[str], vocab_size: int, threads: bool = False) -> Tokenizer:
    os.environ["TOKENIZERS_PARALLELISM"] = str(threads).lower()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    peer = Tokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    peer.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        ),
    )
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return peer


def train_by_recounting(lines: Iterable[str], vocab_size: int, distinct: bool = False) -> dict[Pair, int]:
    """Count all pairs of the whole text anew for each merge, and merge in each of its words.

    distinct: keep words that are alike once, with how often they occur.
    """
    found = Counter(chain.from_iterable(map(pretokenize, lines)))
    kinds = found if distinct else found.elements()
    words = [[BYTE_IDS[byte] for byte in word.encode()] for word in kinds]
    counts = list(found.values()) if distinct else [1] * len(words)
    ranks: dict[Pair, int] = {}
    for new in range(256, vocab_size - 1):  # the last token is special
        best, words = recount_once(words, counts, new)
        ranks[best] = new
    return ranks


def recount_once(words: list[list[int]], counts: list[int], new: int) -> tuple[Pair, list[list[int]]]:
    pairs = count_pairs(words, counts)
    best = min(pairs, key=lambda pair: (-pairs[pair], pair))
    return best, [merge_pair(word, best, new) for word in words]


def same_merges(ours: BPETokenizer, peer: Tokenizer) -> bool:
    symbols = bytes_to_unicode()
    spelled = {i: "".join(map(symbols.__getitem__, token)) for i, token in ours.vocabulary.items()}
    learned = [[spelled[left], spelled[right]] for left, right in ours.ranks]
    return learned == [list(pair) for pair in json.loads(peer.to_str())["model"]["merges"]]


def training(smoke: bool) -> list[Case]:
    goals = {1_000_000: 0.91, 5_000_000: 1.25, 13_900_000: None, 20_000_000: 1.43}
    found: list[Case] = []
    for size, goal in {20_000: None}.items() if smoke else goals.items():
        lines, text = lines_of(size, real=not smoke)
        vocabulary = 300 if smoke else TALES_VOCABULARY if text == TALES else VOCABULARY
        work = f"BPE training, {named(size)} {text} in {len(lines):,} lines, vocabulary {vocabulary:,}"
        ours = functools.partial(train, lines, vocabulary)
        found.append(
            Case(work, ours, functools.partial(train_hf, lines, vocabulary), f"{HF}, one thread", goal, same_merges)
        )
        if size <= 1_000_000:
            threads = functools.partial(train_hf, lines, vocabulary, threads=True)
            found.append(Case(work, ours, threads, f"{HF}, its threads on", same=same_merges))
    slow = [(100_000, 512, False), (100_000, 512, True), (1_000_000, 272, False)]
    for size, vocabulary, distinct in [(5_000, 262, False), (5_000, 262, True)] if smoke else slow:
        lines, text = lines_of(size, real=not smoke)
        found.append(
            Case(
                f"BPE training, {named(size)} {text}, vocabulary only {vocabulary:,}",
                functools.partial(train, lines, vocabulary),
                functools.partial(train_by_recounting, lines, vocabulary, distinct),
                "recounts distinct words" if distinct else "recounts every word",
                same=lambda ours, peer: list(ours.ranks.items()) == list(peer.items()),
            )
        )
    return found


# --- encoding ---


def vocabulary(smoke: bool = False) -> tuple[BPETokenizer, str]:
    """OpenAI's vocabulary where its files are under $GLASSBOX_DATA, else the course's own, and its name."""
    given = os.environ.get("GLASSBOX_DATA")
    if not smoke and given and Path(given, "gpt2-bpe", "vocab.bpe").is_file():
        return BPETokenizer.from_gpt2(), "GPT-2's vocabulary"
    return BPETokenizer.load(), "the course's vocabulary"


def as_huggingface(tokenizer: BPETokenizer) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.to_huggingface(folder)
        return Tokenizer.from_file(str(Path(folder, "tokenizer.json")))


def only_letters(text: str) -> str:
    return "".join(letter for letter in text if letter.isascii() and letter.isalpha())


def long_words(size: int, real: bool = True) -> dict[str, str]:
    """Two words of `size` letters: chosen at random, and prose with nothing between its letters."""
    dice = random.Random(0)
    prose = only_letters("".join(lines_of(2 * size, real)[0]))
    return {"random letters": "".join(dice.choices(string.ascii_lowercase, k=size)), "prose's letters": prose[:size]}


def same(ours: object, peer: object) -> bool:
    """Whether two answers are the same ids, or lists of ids; Hugging Face's are attributes."""
    plain = (
        [getattr(answer, "ids", answer) for answer in peer] if isinstance(peer, list) else getattr(peer, "ids", peer)
    )
    return ours == plain


def encoding(smoke: bool) -> list[Case]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer, name = vocabulary(smoke)
    openai, face = tokenizer.to_tiktoken(), as_huggingface(tokenizer)
    size, word_size = (4_000, 2_000) if smoke else (2_000_000, 1_000_000)
    lines, kind = lines_of(size, real=not smoke)
    text, half = "".join(lines), "".join(lines_of(word_size, real=not smoke)[0])
    ids = tokenizer.encode(text)

    def cold() -> list[int]:
        tokenizer.cache.clear()
        return tokenizer.encode(text)

    def warm() -> list[int]:
        return tokenizer.encode(text)

    def cold_batch() -> list[list[int]]:
        tokenizer.cache.clear()
        return tokenizer.encode_batch(lines)

    def openai_text() -> list[int]:
        return openai.encode_ordinary(text)

    def face_text() -> tokenizers.Encoding:
        return face.encode(text)

    def face_batch() -> list[tokenizers.Encoding]:
        return face.encode_batch_fast(lines, add_special_tokens=False)

    work = f"encoding {named(size)} {kind}, {name}"
    batch = f"encoding a batch of {len(lines):,} lines, {named(size)} {kind}, {name}"
    rust = f"{HF}, one thread"
    found = [
        Case(f"{work}, cache warm", warm, openai_text, TIKTOKEN, 0.6, same),
        Case(f"{work}, cache warm", warm, face_text, rust, None, same),
        Case(f"{work}, cache cold", cold, openai_text, TIKTOKEN, None, same),
        Case(f"{work}, cache cold", cold, face_text, rust, 1.5, same),
        Case(
            f"{batch}, cache warm",
            lambda: tokenizer.encode_batch(lines),
            lambda: [openai.encode_ordinary(line) for line in lines],
            TIKTOKEN,
            same=same,
        ),
        Case(f"{batch}, cache cold", cold_batch, face_batch, f"{rust}, encode_batch_fast", same=same),
        Case(
            f"{work}, line by line: encode_iterable",
            lambda: list(tokenizer.encode_iterable(lines)),
            warm,
            "encode of the whole text",
            same=same,
        ),
        Case(
            f"decoding {len(ids):,} ids, {name}",
            lambda: tokenizer.decode(ids),
            lambda: openai.decode(ids),
            TIKTOKEN,
            same=same,
        ),
    ]

    def prose() -> list[int]:
        return tokenizer.encode(half)

    def cold_prose() -> list[int]:
        tokenizer.cache.clear()
        return tokenizer.encode(half)

    words = list(long_words(word_size, real=not smoke).items())
    for kind_of_word, word in words[:1] if smoke else words:
        spelled = f"encoding one word of {named(word_size)}, {kind_of_word}"
        ours = functools.partial(tokenizer.encode, word)
        found.append(Case(spelled, ours, prose, f"ours, {named(word_size)} of prose, cache warm", goal=0.05))
        found.append(Case(spelled, ours, cold_prose, f"ours, {named(word_size)} of prose, cache cold"))
        found.append(Case(spelled, ours, functools.partial(openai.encode_ordinary, word), TIKTOKEN, same=same))
    return found


def cases(smoke: bool) -> list[Case]:
    return training(smoke) + encoding(smoke)
