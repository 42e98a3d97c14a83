"""What a tokenizer knows: its tokens and merges, and the files and tools that can hold them.

GPT-2's `encoder.json` gives every token its id; `vocab.bpe` lists the merges, one a line, in the order in which they
were learned (Radford and others, 2019). Hugging Face calls the same two files `vocab.json` and `merges.txt`. The files
are text, and a token is bytes that need not be text, so each byte is spelled as a printable character of its own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from glassbox.bpe import Pair, encode_long_word
from glassbox.datasets import dataset
from glassbox.tales import END

if TYPE_CHECKING:
    import tiktoken

__all__ = ["BYTE_IDS", "Vocabulary", "bytes_to_unicode"]

NAMES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))  # OpenAI's and Hugging Face's
VERSION = "#version: 0.2"  # the first line of a list of merges
GPT2_REGEX = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def bytes_to_unicode() -> dict[int, str]:
    """Return a printable character for each of the 256 bytes, in the order of GPT-2's ids.

    Bytes that are visible characters in Latin-1 stand for themselves and come first. The other 68 follow in their order
    and are spelled with the characters from U+0100 on, so that a space (32) is "Ġ" (Radford and others, 2019).
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


BYTE_IDS = tuple(list(bytes_to_unicode()).index(byte) for byte in range(256))  # GPT-2's id of each byte


class Vocabulary:
    """The tokens of a byte-level BPE: `vocabulary` holds the bytes of each by id, `vocab_size` says how many there are.

    ranks: pairs of ids in the order in which they were learned, with the id that each makes, as `train_merges` returns.
    special_tokens: their ids. byte_ids: the id of each of the 256 bytes. Ids run from 0 without a gap and rise with the
    merges. Raises ValueError where they do not, or where a special token is empty or has white space in it.
    """

    def __init__(
        self,
        ranks: Mapping[Pair, int],
        special_tokens: Mapping[str, int] | None = None,
        byte_ids: Sequence[int] = BYTE_IDS,
    ) -> None:
        self.ranks, self.special_tokens, self.byte_ids = dict(ranks), dict(special_tokens or {}), tuple(byte_ids)
        self.vocabulary = _spell_out(self.ranks, self.special_tokens, self.byte_ids)
        self.vocab_size = len(self.vocabulary)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ranks, self.special_tokens, self.byte_ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.__reduce__() == other.__reduce__()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, special_tokens={self.special_tokens})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the ids of the bytes, the merges and the special tokens, in 64 hexadecimal digits.

        Equal vocabularies have the same one, others another. A file of ids carries it, to be read with no other.
        """
        parts = (self.byte_ids, list(self.ranks.items()), sorted(self.special_tokens.items()))
        return hashlib.sha256(json.dumps(parts, default=int).encode()).hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write GPT-2's two files, `encoder.json` and `vocab.bpe`, into a folder, which is made where it is missing.

        Raises ValueError where a special token is spelled like an ordinary one: a file could not tell them apart.
        """
        encoder, merges = _spelled(self)
        lines = [VERSION, *(f"{left} {right}" for left, right in merges), ""]
        _write(folder, {"encoder.json": json.dumps(encoder), "vocab.bpe": "\n".join(lines)})

    @classmethod
    def load(cls, folder: str | os.PathLike[str] | None = None, special_tokens: Collection[str] = ()) -> Self:
        """Read GPT-2's two files, under OpenAI's names or Hugging Face's.

        folder: where they are; None for the course's own vocabulary, trained on Tiny Tales. special_tokens: those not
        of the form <|name|>, which is recognised. Raises FileNotFoundError where files are missing, ValueError where
        they are damaged, contradict each other, or number their tokens in another order than the merges.
        """
        files = (dataset("tales-encoder"), dataset("tales-merges")) if folder is None else _find(folder)
        return cls(*_read(*files, special_tokens))

    @classmethod
    def from_gpt2(cls) -> Self:
        """Read OpenAI's vocabulary of GPT-2, which is fetched once. Raises DatasetError where it cannot be had."""
        return cls(*_read(dataset("gpt2-encoder"), dataset("gpt2-vocab")))

    def to_tiktoken(self, name: str = "glassbox") -> tiktoken.Encoding:
        """Return the same tokenizer as tiktoken's `Encoding`, which gives the same ids. tiktoken must be installed.

        tiktoken joins two tokens whenever what they make is a token, however it was learned. That is the same rule if
        each token's own bytes lead to it, as training makes sure. Raises ValueError naming a token for which they do
        not, and where one special token begins another: tiktoken has no rule for which of them counts.
        """
        import tiktoken

        for token, longer in itertools.permutations(self.special_tokens, 2):
            if longer.startswith(token):
                raise ValueError(f"tiktoken may take the special token {token!r} for {longer!r}: rename one of the two")
        for (left, right), new in self.ranks.items():
            token = self.vocabulary[new]
            if encode_long_word([self.byte_ids[byte] for byte in token], self.ranks) != [new]:
                raise ValueError(f"the merge {(left, right)} is never reached, but tiktoken would make {token!r} of it")
        ordinary = {token: i for i, token in self.vocabulary.items() if i not in self.special_tokens.values()}
        return tiktoken.Encoding(
            name, pat_str=GPT2_REGEX, mergeable_ranks=ordinary, special_tokens=dict(self.special_tokens)
        )

    def to_huggingface(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` for Hugging Face tokenizers and, for AutoTokenizer, `tokenizer_config.json`.

        They give the same ids, but recognise special tokens in any text, as `encode` does with allowed_special="all".
        """
        tokenizer, config = _huggingface(self)
        contents = {"tokenizer.json": tokenizer, "tokenizer_config.json": config}
        _write(folder, {name: json.dumps(book, ensure_ascii=False, indent=1) for name, book in contents.items()})


def check_special(special_tokens: Iterable[str]) -> None:
    """Raise TypeError or ValueError for special tokens that could not be told from text or from each other."""
    if isinstance(special_tokens, str | bytes) or not isinstance(special_tokens, Collection):
        raise TypeError(f"special_tokens must be a list, such as ['<|name|>'], not {special_tokens!r}")
    seen: set[str] = set()
    for token in special_tokens:
        if not isinstance(token, str) or not token or any(map(str.isspace, token)):
            raise ValueError(f"special token {token!r} must be text without white space, such as <|name|>")
        if token in seen or token == "all":
            reason = "means every special token" if token == "all" else "stands there twice"
            raise ValueError(f"special token {token!r} {reason}: give it another name, such as <|name|>")
        if any("\ud800" <= letter <= "\udfff" for letter in token):
            raise ValueError(f"special token {token!r} holds half a character, which UTF-8 cannot: leave it out")
        seen.add(token)


def _spell_out(
    ranks: Mapping[Pair, int], special_tokens: Mapping[str, int], byte_ids: Sequence[int]
) -> dict[int, bytes]:
    """The bytes of each token by id; a ValueError where ids are missing, double or out of order."""
    check_special(special_tokens)
    for i in (*byte_ids, *ranks.values(), *special_tokens.values()):
        if type(i) is not int:
            raise TypeError(f"ids must be of type int, not {i!r} of type {type(i).__name__}")
    if len(byte_ids) != 256:
        raise ValueError(f"byte_ids must give an id for each of the 256 bytes, not for {len(byte_ids)}")
    found = {i: bytes([byte]) for byte, i in enumerate(byte_ids)}
    last, made = -1, set(found.values())
    for (left, right), new in ranks.items():
        if left not in found or right not in found:
            raise ValueError(f"the merge {(left, right)} uses an id that neither a byte nor an earlier merge has")
        if new <= last:
            raise ValueError(f"the merge {(left, right)} makes id {new}, not above {last}, that of the merge before")
        token = found[left] + found[right]
        if token in made:
            raise ValueError(f"the merge {(left, right)} makes {token!r}, which an earlier merge has made already")
        found[new] = token
        made.add(token)
        last = new
    found |= {i: token.encode() for token, i in special_tokens.items()}
    if sorted(found) != list(range(256 + len(ranks) + len(special_tokens))):
        raise ValueError("ids must run from 0 without a gap, and none may stand for two tokens")
    return dict(sorted(found.items()))


# --- GPT-2's two files ---


def _spelled(tokenizer: Vocabulary) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Every token's id and every merge, with bytes spelled as characters."""
    symbols = bytes_to_unicode()
    spelled = {i: "".join(map(symbols.__getitem__, token)) for i, token in tokenizer.vocabulary.items()}
    spelled |= {i: token for token, i in tokenizer.special_tokens.items()}
    encoder = {spelled[i]: i for i in sorted(spelled)}
    if len(encoder) < len(spelled):
        token = next(token for i, token in spelled.items() if encoder[token] != i)
        raise ValueError(
            f"the special token {token!r} is spelled like an ordinary token, and the file could hold only one of them: "
            "give it another name, such as <|name|>"
        )
    return encoder, [(spelled[left], spelled[right]) for left, right in tokenizer.ranks]


def _find(folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Return the two files of a vocabulary in a folder, under OpenAI's names or under Hugging Face's."""
    for names in NAMES:
        encoder, merges = (Path(folder, name) for name in names)
        if encoder.is_file() and merges.is_file():
            return encoder, merges
    wanted = " nor ".join(" with ".join(names) for names in NAMES)
    raise FileNotFoundError(f"{folder} holds neither {wanted}: give the folder that a tokenizer was saved in")


def _read(
    encoder: str | os.PathLike[str], merges: str | os.PathLike[str], special_tokens: Collection[str] = ()
) -> tuple[dict[Pair, int], dict[str, int], tuple[int, ...]]:
    """Read a vocabulary from GPT-2's two files.

    special_tokens: names of those that are not of the form <|name|>, which is recognised. Raises ValueError naming the
    file, the place and the fault where the files are damaged, contradict each other or number their tokens in another
    order than the merges.
    """
    check_special(special_tokens)
    ids = _read_ids(Path(encoder))
    byte_ids = _byte_ids(ids, Path(encoder))
    ranks = _read_ranks(Path(merges), ids)
    ordinary = {*byte_ids, *ranks.values()}
    special = {token: i for token, i in ids.items() if i not in ordinary}
    for token in special:
        if token not in special_tokens and not re.fullmatch(r"<\|.+\|>", token):
            raise ValueError(
                f"{Path(merges).name} has no merge that makes {token!r}, id {special[token]} of {Path(encoder).name}: "
                "the file may be cut short, or of another vocabulary; if this is a special token, name it in "
                "special_tokens"
            )
    if missing := sorted(set(special_tokens) - set(special)):
        raise ValueError(f"{Path(encoder).name} has no special token {missing[0]!r}; it has {sorted(special)}")
    return ranks, special, byte_ids


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): it is damaged, or another file") from error


def _read_ids(path: Path) -> dict[str, int]:
    text = _read_text(path)
    try:
        ids = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not whole JSON ({error}): it may be cut short; get it again") from error
    if not isinstance(ids, dict) or not all(type(i) is int for i in ids.values()):
        raise ValueError(f'{path} should map each token to its id, as in {{"!": 0, ...}}')
    if sorted(ids.values()) != list(range(len(ids))):
        found = sorted(ids.values())
        wrong = next((i for i, number in enumerate(found) if i != number), len(found))
        raise ValueError(f"{path} should number its {len(ids)} tokens from 0 on, each once; id {wrong} is not so")
    return ids


def _byte_ids(ids: Mapping[str, int], path: Path) -> tuple[int, ...]:
    symbols = bytes_to_unicode()
    for byte, symbol in symbols.items():
        if symbol not in ids:
            raise ValueError(f"{path} has no token {symbol!r} for byte {byte}: it is not a byte-level vocabulary")
    return tuple(ids[symbols[byte]] for byte in range(256))


def _read_ranks(path: Path, ids: Mapping[str, int]) -> dict[tuple[int, int], int]:
    ranks: dict[tuple[int, int], int] = {}
    made = set(bytes_to_unicode().values())
    last = -1
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.rstrip("\r").partition(" ")
        for part in (left, right):
            if part not in made:
                raise ValueError(f"{path}, line {number}: {part!r} in {line!r} is no token that an earlier merge made")
        if left + right not in ids:
            raise ValueError(f"{path}, line {number}: the merge {line!r} makes {left + right!r}, which has no id")
        new = ids[left + right]
        if new <= last:
            raise ValueError(
                f"{path}, line {number}: {left + right!r} has id {new}, not above {last}, that of the merge before: "
                "ids must rise with the merges, as in GPT-2's files"
            )
        last = ranks[ids[left], ids[right]] = new
        made.add(left + right)
    return ranks


def _write(folder: str | os.PathLike[str], contents: Mapping[str, str]) -> None:
    """Write files into a folder, which is made where it is missing. All are written aside before the first is renamed,
    so that a full disk leaves the old ones.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    aside: dict[str, str] = {}
    try:
        for name, text in contents.items():
            handle, aside[name] = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(aside[name], 0o644)  # mkstemp lets only the owner read
        for name in contents:
            os.replace(aside[name], Path(folder, name))
    except BaseException:
        for path in aside.values():
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


# --- Hugging Face's files ---


def _huggingface(tokenizer: Vocabulary) -> tuple[dict[str, Any], dict[str, Any]]:
    encoder, merges = _spelled(tokenizer)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    book: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **flags} for token, i in tokenizer.special_tokens.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": encoder, "merges": merges, "ignore_merges": False, "byte_fallback": False},
    }
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if END in tokenizer.special_tokens:
        config |= {"bos_token": END, "eos_token": END}
    return book, config
