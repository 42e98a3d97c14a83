"""01_tokenizer: the files of a vocabulary, what may be wrong with them, and where vocabularies come from."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import os
import pickle
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from glassbox import tales_bpe, vocabulary
from glassbox.datasets import DatasetError, data_folder
from glassbox.tales import END
from glassbox.tokenizer import BPETokenizer
from glassbox.vocabulary import BYTE_IDS, Vocabulary, bytes_to_unicode
from hypothesis import given
from hypothesis import strategies as st
from test_pretokens import examples, texts

EMBEDDED = data_folder() / tales_bpe.FOLDER


def small(special: tuple[str, ...] = (END,), text: str = "abab abc cab") -> BPETokenizer:
    return BPETokenizer.train(text, 259 + len(special), special)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def parsed(folder: Path, encoder: str = "encoder.json", merges: str = "vocab.bpe") -> tuple[dict[str, int], list[str]]:
    ids = json.loads((folder / encoder).read_text(encoding="utf-8"))
    return ids, (folder / merges).read_text(encoding="utf-8").splitlines()


# --- bytes and characters ---


def test_bytes_are_spelled_as_gpt2_spells_them() -> None:
    from transformers.convert_slow_tokenizer import bytes_to_unicode as oracle

    assert list(bytes_to_unicode().items()) == list(oracle().items())
    assert (bytes_to_unicode()[32], bytes_to_unicode()[10], bytes_to_unicode()[ord("A")]) == ("Ġ", "Ċ", "A")
    assert [BYTE_IDS[byte] for byte in b'!"~'] == [0, 1, 93]
    assert sorted(BYTE_IDS) == list(range(256))


def test_byte_ids_are_those_of_openais_file(data_dir: Path) -> None:
    ids, _ = parsed(data_dir / "gpt2-bpe")
    assert tuple(ids[bytes_to_unicode()[byte]] for byte in range(256)) == BYTE_IDS


# --- what a vocabulary must be ---


def test_the_bytes_of_tokens_follow_from_the_merges() -> None:
    found = BPETokenizer({(64, 65): 256, (256, 256): 257}, {"<|a|>": 258, "é": 259})
    assert found.vocabulary[64] == b"a"
    assert [found.vocabulary[i] for i in range(256, 260)] == [b"ab", b"abab", b"<|a|>", "é".encode()]
    assert list(found.vocabulary) == list(range(260))
    assert found.vocab_size == 260
    assert repr(found) == "BPETokenizer(vocab_size=260, special_tokens={'<|a|>': 258, 'é': 259})"


def test_ids_may_stand_in_any_order_that_rises_with_the_merges(tmp_path: Path) -> None:
    """Special tokens first, bytes last."""
    byte_ids = [2 + (byte * 7) % 256 + (byte * 7 % 256 > 99) for byte in range(256)]
    a, b = byte_ids[97], byte_ids[98]
    found = BPETokenizer(
        {(a, b): 102, (102, 102): 258}, {END: 0, "<|a|>": 1}, [i if i < 258 else 259 for i in byte_ids]
    )
    assert found.encode(f"abab{END}ab", "all") == [258, 0, 102]
    assert found.to_tiktoken().encode(f"abab{END}ab b", allowed_special="all") == found.encode(f"abab{END}ab b", "all")
    found.save(tmp_path)
    for twin in (BPETokenizer.load(tmp_path), pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert twin == found
        assert twin.encode(f"abab{END}ab", "all") == [258, 0, 102]
    assert BPETokenizer({}) != BPETokenizer({}, {}, range(256))


WRONG: dict[str, tuple[tuple[Any, ...], str]] = {
    "unknown part": (({(1, 300): 256},), r"the merge \(1, 300\) uses an id that neither a byte nor an earlier merge"),
    "later part": (({(1, 257): 256, (1, 2): 257},), r"the merge \(1, 257\) uses an id"),
    "not rising": (({(1, 2): 257, (1, 3): 256},), r"the merge \(1, 3\) makes id 256, not above 257"),
    "twice": (({(1, 2): 256, (1, 3): 256},), r"the merge \(1, 3\) makes id 256, not above 256"),
    "gap": (({(1, 2): 257},), "from 0 without a gap"),
    "special on a byte": (({}, {"<|a|>": 3}), "none may stand for two tokens"),
    "special beyond": (({}, {"<|a|>": 300}), "from 0 without a gap"),
    "negative": (({}, {"<|a|>": -1}), "from 0 without a gap"),
    "bytes missing": (({}, {}, range(255)), "each of the 256 bytes, not for 255"),
    "bytes doubled": (({}, {}, [0] * 256), "none may stand for two tokens"),
    "white space": (({}, {"<|a b|>": 256}), r"'<\|a b\|>' must be text without white space, such as <\|name\|>"),
    "other white space": (({}, {"a\u2003": 256}), "must be text without white space"),
    "empty": (({}, {"": 256}), "special token '' must be text"),
    "no text": (({}, {7: 256}), "special token 7 must be text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_vocabularies_are_refused(name: str) -> None:
    arguments, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        BPETokenizer(*arguments)


def test_merges_that_tiktoken_would_apply_otherwise_are_not_exported() -> None:
    a, b, c = (BYTE_IDS[byte] for byte in b"abc")
    never = BPETokenizer({(b, c): 256, (a, b): 257, (257, c): 258})
    with pytest.raises(ValueError, match=rf"the merge \(257, {c}\) is never reached, but tiktoken .* b'abc'"):
        never.to_tiktoken()


# --- saving and loading ---


@examples(60)
@given(
    texts(st.text("abc ", max_size=20)),
    st.integers(0, 20),
    st.lists(st.sampled_from(["<|a|>", "[b]", "é"]), unique=True),
)
def test_what_is_saved_is_loaded(text: str, merges: int, special: list[str]) -> None:
    try:
        found = BPETokenizer.train(text, 256 + merges + len(special), special)
    except ValueError:
        return
    if "é" in special:
        special = [*special[: special.index("é")], "éé", *special[special.index("é") + 1 :]]
        found = BPETokenizer.train(text, 256 + merges + len(special), special)  # "é" alone spells a byte
    with tempfile.TemporaryDirectory() as folder:
        found.save(folder)
        one = BPETokenizer.load(folder, special)
        assert one == found
        assert list(one.ranks.items()) == list(found.ranks.items())
        assert one.vocabulary == found.vocabulary
        assert one.encode(text, "all") == found.encode(text, "all")


def test_saving_writes_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        BPETokenizer.load().save(tmp_path / name / "deep")
    small().save(tmp_path / "two" / "deep")  # something else in between
    BPETokenizer.load().save(tmp_path / "two" / "deep")
    for file in ("encoder.json", "vocab.bpe"):
        data = (tmp_path / "one" / "deep" / file).read_bytes()
        assert data == (tmp_path / "two" / "deep" / file).read_bytes() == (EMBEDDED / file).read_bytes()
        assert b"\r" not in data
    assert names(tmp_path / "two" / "deep") == ["encoder.json", "vocab.bpe"]
    if os.name == "posix":
        assert (tmp_path / "one" / "deep" / "vocab.bpe").stat().st_mode & 0o777 == 0o644


def test_equal_vocabularies_have_one_fingerprint_and_others_another(tmp_path: Path) -> None:
    trained = small()
    trained.save(tmp_path)
    assert BPETokenizer.load(tmp_path).fingerprint == trained.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", trained.fingerprint)
    ranks, special = {(0, 1): 256, (2, 3): 257}, {END: 258}
    one = Vocabulary(ranks, special)
    others = [
        Vocabulary({(2, 3): 256, (0, 1): 257}, special),
        Vocabulary(ranks, {"<|end|>": 258}),
        Vocabulary(ranks),
        Vocabulary(ranks, special, (BYTE_IDS[1], BYTE_IDS[0], *BYTE_IDS[2:])),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_the_files_have_gpt2s_form(tmp_path: Path) -> None:
    small().save(tmp_path)
    ids, lines = parsed(tmp_path)
    assert list(ids.values()) == list(range(260))
    assert list(ids)[:256] == list(bytes_to_unicode().values())
    assert list(ids)[256:] == ["ab", "abab", "Ġc", END] or ids["ab"] == 256
    assert lines[:2] == ["#version: 0.2", "a b"]
    assert len(lines) == 4
    assert (tmp_path / "vocab.bpe").read_bytes().endswith(b"\n")
    (tmp_path / "encoder.json").read_bytes().decode("ascii")


def test_both_pairs_of_names_are_read(tmp_path: Path) -> None:
    small().save(tmp_path)
    (tmp_path / "encoder.json").rename(tmp_path / "vocab.json")
    with pytest.raises(FileNotFoundError, match=r"neither encoder.json with vocab.bpe nor vocab.json with merges.txt"):
        BPETokenizer.load(tmp_path)
    (tmp_path / "vocab.bpe").rename(tmp_path / "merges.txt")
    assert BPETokenizer.load(str(tmp_path)) == small()


def test_files_of_hugging_face_are_read(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    BPETokenizer.load().to_huggingface(tmp_path)
    theirs: Any = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.model.save(str(tmp_path))
    assert names(tmp_path) == ["merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]
    assert BPETokenizer.load(tmp_path) == BPETokenizer.load()


@pytest.mark.parametrize("way", ["crlf", "bom", "no version", "no last line end", "indented"])
def test_other_ways_to_write_the_same_files(way: str, tmp_path: Path) -> None:
    small().save(tmp_path)
    for name in ("encoder.json", "vocab.bpe"):
        data = (tmp_path / name).read_bytes()
        if way == "crlf":
            data = data.replace(b"\n", b"\r\n")
        elif way == "bom":
            data = b"\xef\xbb\xbf" + data
        elif way == "indented" and name == "encoder.json":
            data = json.dumps(json.loads(data), indent=2, ensure_ascii=False).replace("\n", "\r\n").encode()
        elif name == "vocab.bpe":
            data = data.partition(b"\n")[2] if way == "no version" else data.rstrip()
        (tmp_path / name).write_bytes(data)
    assert BPETokenizer.load(tmp_path) == small()


def test_openais_files_are_saved_as_they_were(data_dir: Path, tmp_path: Path) -> None:
    found = BPETokenizer.load(data_dir / "gpt2-bpe")
    assert found == BPETokenizer.from_gpt2()
    found.save(tmp_path)
    theirs = parsed(data_dir / "gpt2-bpe")
    assert parsed(tmp_path) == theirs
    assert (tmp_path / "vocab.bpe").read_bytes() == (data_dir / "gpt2-bpe" / "vocab.bpe").read_bytes()
    assert list(parsed(tmp_path)[0].values()) == list(range(50257))
    assert BPETokenizer.load(tmp_path) == found


def test_special_tokens_of_another_form_are_named(tmp_path: Path) -> None:
    found = small(("[end]", "<|x|>"))
    found.save(tmp_path)
    assert BPETokenizer.load(tmp_path, ["[end]"]) == found
    assert BPETokenizer.load(tmp_path, ["<|x|>", "[end]"]) == found
    with pytest.raises(ValueError, match=r"no merge that makes '\[end\]', id 259 .* name it in special_tokens"):
        BPETokenizer.load(tmp_path)
    with pytest.raises(ValueError, match=r"has no special token '<\|y\|>'; it has \['<\|x\|>', '\[end\]'\]"):
        BPETokenizer.load(tmp_path, ["[end]", "<|y|>"])


@pytest.mark.parametrize("token", ["a", "ab", "Ġ", "é"])
def test_special_tokens_spelled_like_others_are_not_saved(token: str, tmp_path: Path) -> None:
    found = BPETokenizer({(64, 65): 256}, {token: 257})
    for act in (found.save, found.to_huggingface):
        with pytest.raises(ValueError, match=f"special token '{token}' is spelled like .* such as <|name|>"):
            act(tmp_path / "new")
    assert names(tmp_path) == []


def test_two_merges_that_make_the_same_bytes_are_named() -> None:
    a, b, c = (BYTE_IDS[byte] for byte in b"abc")
    with pytest.raises(ValueError, match=rf"the merge \({a}, 257\) makes b'abc', which an earlier merge has made"):
        BPETokenizer({(a, b): 256, (b, c): 257, (256, c): 258, (a, 257): 259})


# --- damaged files ---


def cut(name: str, where: Callable[[bytes], int]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: where(data)])

    return damage


def change(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return damage


def write(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return damage


def swap(folder: Path) -> None:
    (folder / "encoder.json").rename(folder / "x")
    (folder / "vocab.bpe").rename(folder / "encoder.json")
    (folder / "x").rename(folder / "vocab.bpe")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "encoder cut": (
        cut("encoder.json", lambda data: 1000),
        "encoder.json is not whole JSON .* cut short; get it again",
    ),
    "encoder empty": (cut("encoder.json", lambda data: 0), "encoder.json is not whole JSON"),
    "merges cut at a line end": (
        cut("vocab.bpe", lambda data: data.rindex(b"\n", 0, -1) + 1),
        "vocab.bpe has no merge that makes .* id 2046 of encoder.json: the file may be cut short",
    ),
    "merges cut in a line": (cut("vocab.bpe", lambda data: data.rindex(b" ") + 1), r"vocab.bpe, line 1792: '' in"),
    "merges cut in a token": (cut("vocab.bpe", lambda data: len(data) - 2), "vocab.bpe(, line 1792: | has no merge)"),
    "merges empty": (cut("vocab.bpe", lambda data: 0), "vocab.bpe has no merge that makes .*, id 256 of"),
    "a merge left out": (change("vocab.bpe", "\nh e\n", "\n"), r"vocab.bpe, line \d+: 'he' in .* is no token that an"),
    "a merge twice": (change("vocab.bpe", "\nh e\n", "\nh e\nh e\n"), "line 4: 'he' has id 257, not above 257"),
    "merges exchanged": (
        change("vocab.bpe", "Ġ t\nh e\n", "h e\nĠ t\n"),
        "line 3: 'Ġt' has id 256, not above 257, that of the merge before: ids must rise with the merges",
    ),
    "unknown part": (change("vocab.bpe", "\nh e\n", "\nh zz\n"), "line 3: 'zz' in 'h zz' is no token"),
    "unknown merge": (change("vocab.bpe", "\nh e\n", "\nh e\nq x\n"), "line 4: the merge 'q x' makes 'qx', .* no id"),
    "three parts": (change("vocab.bpe", "\nh e\n", "\nh e r\n"), "line 3: 'e r' in 'h e r' is no token"),
    "byte missing": (change("encoder.json", '"A": 32', '"AAA": 32'), "encoder.json has no token 'A' for byte 65"),
    "id twice": (change("encoder.json", '"A": 32', '"A": 33'), "number its 2048 tokens from 0 on, each once; id 32"),
    "gap": (change("encoder.json", ": 2047", ": 2048"), "from 0 on, each once; id 2047 is not so"),
    "token twice": (change("encoder.json", '"A": 32', '"B": 32'), "number its 2047 tokens"),
    "ids as text": (change("encoder.json", '"A": 32', '"A": "32"'), 'should map each token to its id, as in {"!": 0'),
    "ids as truth": (change("encoder.json", '"\\"": 1,', '"\\"": true,'), "should map each token to its id"),
    "a list": (write("encoder.json", b"[1, 2]"), "encoder.json should map each token to its id"),
    "nothing": (write("encoder.json", b"{}"), "encoder.json has no token '!' for byte 33"),
    "swapped": (swap, "encoder.json is not whole JSON"),
    "encoder not UTF-8": (
        write("encoder.json", b'{"\xff": 0}'),
        r"encoder.json is not UTF-8 \(byte 2\): it is damaged",
    ),
    "merges not UTF-8": (write("vocab.bpe", "h e\n".encode("utf-16")), r"vocab.bpe is not UTF-8 \(byte 0\)"),
    "merges of another": (write("vocab.bpe", b"#version: 0.2\nz q\n"), "vocab.bpe, line 2: .* makes 'zq', .* no id"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    damage, words = DAMAGE[name]
    shutil.copytree(EMBEDDED, tmp_path, dirs_exist_ok=True)
    assert BPETokenizer.load(tmp_path).vocab_size == 2048
    damage(tmp_path)
    with pytest.raises(ValueError, match=words) as caught:
        BPETokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


@examples(120)
@given(st.sampled_from(["encoder.json", "vocab.bpe"]), st.floats(0, 1))
def test_a_file_cut_anywhere_is_never_taken_for_whole(name: str, share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(EMBEDDED, folder, dirs_exist_ok=True)
        data = (EMBEDDED / name).read_bytes()
        Path(folder, name).write_bytes(data[: int(share * (len(data.rstrip()) - 1))])
        with pytest.raises(ValueError, match=r"encoder\.json|vocab\.bpe"):
            BPETokenizer.load(folder)


def test_folders_without_files(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=r"holds neither .* give the folder that a tokenizer was saved in"):
            BPETokenizer.load(folder)


# --- disks that fail ---


def fail(error: BaseException, after: int = 0) -> Callable[..., Any]:
    calls = iter(range(100))

    def act(*arguments: Any, original: Callable[..., Any] = os.replace, **options: Any) -> Any:
        if next(calls) >= after:
            raise error
        return original(*arguments, **options)

    return act


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failure_while_saving_leaves_the_old_files(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small().save(tmp_path)
    monkeypatch.setattr(vocabulary.os, step, fail(error))
    with pytest.raises(type(error)):
        BPETokenizer.load().save(tmp_path)
    monkeypatch.undo()
    assert names(tmp_path) == ["encoder.json", "vocab.bpe"]
    assert BPETokenizer.load(tmp_path) == small()


def test_a_disk_full_at_the_second_file_leaves_both_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small().save(tmp_path)
    fsync = os.fsync
    monkeypatch.setattr(
        vocabulary.os, "fsync", functools.partial(fail(OSError(28, "No space left"), after=1), original=fsync)
    )
    with pytest.raises(OSError, match="No space left"):
        BPETokenizer.load().save(tmp_path)
    monkeypatch.undo()
    assert names(tmp_path) == ["encoder.json", "vocab.bpe"]
    assert BPETokenizer.load(tmp_path) == small()


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        small().save(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        small().save(tmp_path / "file" / "below")

    small().save(tmp_path / "mine")
    if os.name != "posix" or os.geteuid() == 0:  # the superuser may write anywhere
        monkeypatch.setattr(vocabulary.tempfile, "mkstemp", fail(PermissionError(13, "Permission denied", "mine")))
    else:
        (tmp_path / "mine").chmod(0o555)
    with pytest.raises(PermissionError, match=r"Permission denied.*mine"):
        BPETokenizer.load().save(tmp_path / "mine")
    (tmp_path / "mine").chmod(0o755)
    assert BPETokenizer.load(tmp_path / "mine") == small()


# --- where vocabularies come from ---


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A registry whose GPT-2 is a small vocabulary on a server of this machine; yields the cache and what was asked."""
    shelf, asked = tmp_path / "shelf", []
    small().save(shelf)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(shelf))

        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    lines = []
    for name, file in (("gpt2-encoder", "encoder.json"), ("gpt2-vocab", "vocab.bpe")):
        data = (shelf / file).read_bytes()
        entry = {"path": f"gpt2-bpe/{file}", "file": f"gpt2-{file}", "what": "a small GPT-2", "licence": "CC0-1.0"}
        entry |= {"url": f"http://127.0.0.1:{server.server_address[1]}/{file}", "page": "https://far.example"}
        entry |= {"sha256": hashlib.sha256(data).hexdigest()}
        lines += [f"[{name}]", *(f'{key} = "{value}"' for key, value in entry.items()), f"size = {len(data)}"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "datasets.toml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr("glassbox.datasets.data_folder", lambda: tmp_path / "data")
    monkeypatch.setattr("glassbox.datasets._PAUSE", 0.0)
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GLASSBOX_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield tmp_path / "cache", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_gpt2_is_fetched_once(registry: tuple[Path, list[str]]) -> None:
    cache, asked = registry
    assert BPETokenizer.from_gpt2() == small()
    assert names(cache) == ["gpt2-encoder.json", "gpt2-vocab.bpe"]
    assert len(asked) == 2
    assert BPETokenizer.from_gpt2() == small()
    assert len(asked) == 2


def test_gpt2_that_cannot_be_had(registry: tuple[Path, list[str]], tmp_path: Path) -> None:
    (tmp_path / "shelf" / "vocab.bpe").unlink()
    with pytest.raises(
        DatasetError, match=r"'gpt2-vocab' \(a small GPT-2\) .* answers 404.* as gpt2-bpe/vocab.bpe"
    ) as e:
        BPETokenizer.from_gpt2()
    assert "\n" not in str(e.value)


def test_gpt2_is_found_in_the_data_folder(
    registry: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tmp_path / "shelf", tmp_path / "mine" / "gpt2-bpe")
    monkeypatch.setenv("GLASSBOX_DATA", str(tmp_path / "mine"))
    assert BPETokenizer.from_gpt2() == small()
    assert not registry[1]
    (tmp_path / "mine" / "gpt2-bpe" / "vocab.bpe").write_text("h e\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"is not the 'gpt2-vocab' .* replace the file"):
        BPETokenizer.from_gpt2()


# --- the course's own vocabulary ---


def test_the_embedded_files_are_what_training_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert tales_bpe.main(["--check"]) == 0
    assert "both files are as the training sample makes them" in capsys.readouterr().out
    assert BPETokenizer.load().vocab_size == tales_bpe.VOCAB_SIZE == 2048
    assert BPETokenizer.load().special_tokens == {END: 2047}


@pytest.mark.parametrize("way", ["changed", "missing", "line ends"])
def test_the_check_notices_other_files_and_writing_mends_them(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(EMBEDDED, tmp_path / tales_bpe.FOLDER)
    file = tmp_path / tales_bpe.FOLDER / "vocab.bpe"
    with contextlib.nullcontext(file.read_bytes()) as data:
        if way == "missing":
            file.unlink()
        else:
            file.write_bytes(data.replace(b"h e", b"e h", 1) if way == "changed" else data.replace(b"\n", b"\r\n"))
    monkeypatch.setattr(tales_bpe, "data_folder", lambda: tmp_path)
    assert tales_bpe.main(["--check"]) == 1
    assert capsys.readouterr().out == "tales-bpe/vocab.bpe differs\n"
    assert tales_bpe.main([]) == 0
    assert capsys.readouterr().out == "tales-bpe/vocab.bpe written\n"
    assert tales_bpe.main(["--check"]) == 0
    assert file.read_bytes() == (EMBEDDED / "vocab.bpe").read_bytes()
