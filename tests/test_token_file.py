"""02_preprocessing, token files: bytes against the documented format, kills, full disks, damage, workers' copies."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import itertools
import json
import os
import pickle
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from glassbox import token_file
from glassbox.datasets import dataset
from glassbox.preprocessing import TokenDataset, read_documents
from glassbox.tales import END
from glassbox.token_file import TokenFile, write_tokens
from glassbox.tokenizer import BPETokenizer
from hypothesis import given
from hypothesis import strategies as st
from test_pretokens import cuttings, examples, texts

DOCUMENTS = ["One tale.\n", f"é \U0001f600 {END} is text here", "a" * 300, "\r\n\tspaces  \0", "x", "The last one."]


@functools.cache
def course() -> BPETokenizer:
    return BPETokenizer.load()


@functools.cache
def tales() -> list[str]:
    return list(read_documents(dataset("tales")))


@functools.cache
def every_pair() -> dict[tuple[int, int], int]:
    """A merge for every two bytes: more tokens than two bytes can number."""
    return {(i // 256, i % 256): 256 + i for i in range(2**16)}


def large(vocab_size: int) -> BPETokenizer:
    merges = dict(itertools.islice(every_pair().items(), vocab_size - 257))
    return BPETokenizer(merges, {END: vocab_size - 1})


def joined(documents: Iterable[str], tokenizer: BPETokenizer) -> tuple[list[int], list[int]]:
    """The oracle: all ids and the ends, from `encode` of whole documents."""
    ids: list[int] = []
    ends = []
    for document in documents:
        ids += [*tokenizer.encode(document), tokenizer.special_tokens[END]]
        ends.append(len(ids))
    return ids, ends


def beside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir() if found != path)


def damaged(path: Path, data: bytes) -> Path:
    other = path.with_name("damaged.tok")
    other.write_bytes(data)
    return other


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    """A file of a few documents. Its number of ids is odd, so that there are zeros between ids and ends."""
    return write_tokens(tmp_path_factory.mktemp("written") / "small.tok", DOCUMENTS, course())


# --- the format ---


@pytest.mark.parametrize(("tokenizer", "dtype"), [(course(), "uint16"), (large(65_537), "uint32")], ids=["16", "32"])
def test_the_bytes_are_those_of_the_documented_format(tokenizer: BPETokenizer, dtype: str, tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "x.tok", DOCUMENTS, tokenizer)
    data = file.path.read_bytes()
    ids, ends = joined(DOCUMENTS, tokenizer)
    assert data[:8] == b"GLASSBOX"
    header, after = json.JSONDecoder().raw_decode(data[8:4096].decode())
    assert header == {
        "version": 1,
        "dtype": dtype,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        "end": tokenizer.special_tokens[END],
        "ids": len(ids),
        "documents": len(ends),
        "chain": functools.reduce(
            lambda before, text: hashlib.sha256((before + text).encode("utf-8", "surrogatepass")).hexdigest(),
            DOCUMENTS,
            "",
        ),
    }
    line = data[8 : 8 + after]
    assert data[8:4096].decode().split() == [*line.decode().split(), hashlib.sha256(line).hexdigest()]
    size = np.dtype(dtype).itemsize
    places = 4096 + size * len(ids)
    assert np.frombuffer(data[4096:places], f"<u{size}").tolist() == ids
    room = -places % 8
    assert data[places : places + room] == bytes(room)
    assert np.frombuffer(data[places + room :], "<u8").tolist() == ends
    assert beside(file.path) == []


def test_a_file_gives_back_its_ids_and_documents(written: TokenFile) -> None:
    ids, ends = joined(DOCUMENTS, course())
    assert written.ids.tolist() == ids
    assert written.ends.tolist() == ends
    assert (len(written), written.documents, written.ids.dtype) == (len(ids), len(ends), np.uint16)
    for i, document in enumerate(DOCUMENTS):
        assert course().decode(written.document(i)) == document + END
        assert written.document(i - len(DOCUMENTS)).tolist() == written.document(i).tolist()
    assert repr(written) == f"TokenFile('small.tok': {len(ids):,} ids in 6 documents, uint16)"
    for array in (written.ids, written.ends, written.document(0)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(IndexError, match="index 6 is outside the 6 items"):
        written.document(6)


@examples(60)
@given(st.lists(texts().filter(str.strip), min_size=1, max_size=5), st.data())
def test_any_documents_whole_or_in_parts_have_the_ids_of_encode(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, 60), max_size=6))
    parts = [iter(cuttings(document, places)) for document in documents]
    folder = tmp_path_factory.mktemp("any")
    whole = write_tokens(folder / "whole.tok", documents, course())
    cut = write_tokens(folder / "parts.tok", iter(parts), course(), checkpoint=data.draw(st.integers(1, 99)))
    assert (whole.ids.tolist(), whole.ends.tolist()) == joined(documents, course())
    assert cut.path.read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_the_type_is_the_smallest_that_holds_every_id(vocab_size: int, dtype: str, tmp_path: Path) -> None:
    tokenizer = large(vocab_size)
    file = write_tokens(tmp_path / "x.tok", ["ab\xff"], tokenizer)
    assert file.ids.dtype == dtype
    assert file.ids[-1] == vocab_size - 1
    wide = write_tokens(tmp_path / "wide.tok", ["ab\xff"], tokenizer, dtype=np.uint32)
    assert wide.ids.dtype == np.uint32
    assert wide.ids.tolist() == file.ids.tolist()


def test_tales_come_back(tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "tales.tok", read_documents(dataset("tales")), course(), progress=False)
    text = course().decode(file.ids)
    assert text == "".join(f"{document}{END}" for document in tales())
    assert text.replace(END, f"{END}\n") == dataset("tales").read_text(encoding="utf-8")
    assert file.documents == 2200


@pytest.mark.parametrize("name", ["tiny-shakespeare", "wikitext-2-test"])
def test_real_text_comes_back_with_gpt2s_vocabulary(name: str, data_dir: Path, tmp_path: Path) -> None:
    text = dataset(name).read_text(encoding="utf-8")
    tokenizer = BPETokenizer.from_gpt2()
    lines = (line for line in text.splitlines(keepends=True))
    file = write_tokens(tmp_path / "real.tok", [lines], tokenizer)
    assert file.ids.dtype == np.uint16
    again = TokenFile(str(tmp_path / "real.tok"), BPETokenizer.from_gpt2())
    assert tokenizer.decode(again.ids[:-1]) == text
    assert again.ids[-1] == 50_256


def test_memory_does_not_grow_with_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the documents, or the parts of one document, or the letters of one text: the peak hardly moves."""
    monkeypatch.setattr(token_file, "CHUNK", 20_000)
    documents = tales()[:100]
    write_tokens(tmp_path / "warm.tok", documents, course())  # fills the tokenizer's cache

    def peak(name: str, stream: Iterable[str | Iterable[str]]) -> int:
        tracemalloc.start()
        try:
            write_tokens(tmp_path / name, stream, course(), checkpoint=10_000)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def several(times: int) -> Iterator[str]:
        return itertools.chain.from_iterable(itertools.repeat(documents, times))

    for kind in ("documents", "parts", "text"):
        made = (several(times) if kind == "documents" else [several(times)] for times in (3, 12))
        if kind == "text":
            made = (["".join(several(times))] for times in (3, 12))  # the text itself is there before
        small, great = (peak(f"{kind}-{times}.tok", stream) for times, stream in zip((3, 12), made, strict=True))
        assert great < small + 100_000, (kind, small, great)
        assert (tmp_path / f"{kind}-12.tok").stat().st_size > 3.5 * (tmp_path / f"{kind}-3.tok").stat().st_size


# --- interrupted ---

KILLS = """
    import os, random, signal, sys, time
    from io import FileIO
    from pathlib import Path
    from glassbox import token_file
    from glassbox.token_file import TokenFile, write_tokens
    from glassbox.tokenizer import BPETokenizer

    path, kind = Path(sys.argv[1]), sys.argv[2]
    documents = Path(sys.argv[3]).read_text(encoding="utf-8").split("\\f")
    checkpoint = int(sys.argv[4])
    tokenizer = BPETokenizer.load()
    wanted = path.with_name("wanted.tok").read_bytes()


    def die():
        os.kill(os.getpid(), signal.SIGKILL)


    def doomed(k):
        '''Die at the k-th time that something is written, made safe, renamed or removed.'''
        left = iter(range(k))

        class Doomed(FileIO):
            def write(self, data):
                if next(left, None) is None:
                    super().write(data[: len(data) // 2])
                    die()
                return super().write(data)

        def before(call):
            def dying(*arguments, **more):
                if next(left, None) is None:
                    die()
                return call(*arguments, **more)
            return dying

        token_file.FileIO = Doomed
        os.fsync, os.replace, Path.unlink = before(os.fsync), before(os.replace), before(Path.unlink)


    def run(prepare, wait):
        '''Write in a process of its own; True where it came to its end.'''
        child = os.fork()
        if not child:
            code = 1
            try:
                prepare()
                write_tokens(path, documents, tokenizer, checkpoint=checkpoint)
                code = 0
            except FileExistsError:
                code = 0
            finally:
                os._exit(code)
        if wait is not None:
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            sys.exit("the writer failed")
        if path.exists() and path.read_bytes() != wanted:
            sys.exit("a file that is not whole has the name of one that is")
        return os.WIFEXITED(status)


    def check(k):
        again = run(lambda: None, None)
        if not again or path.read_bytes() != wanted:
            sys.exit(f"{k}: the file differs from one that was written at once")
        try:
            write_tokens(path, documents, tokenizer)
            sys.exit("an existing file was accepted")
        except FileExistsError:
            pass
        left = sorted(found.name for found in path.parent.iterdir())
        if left != sorted([path.name, "wanted.tok", Path(sys.argv[3]).name]):
            sys.exit(f"{k}: litter: {left}")
        path.unlink()


    dice, kills = random.Random(0), 0
    if kind == "calls":
        for k in range(10_000):
            if run(lambda: doomed(k), None):
                break
            kills += 1
            check(k)
    else:
        while kills < 12:
            if run(lambda: None, dice.uniform(0.002, 0.1)):
                check("random")  # it was faster than the kill
            else:
                kills += 1
                if dice.random() < 0.3:
                    check("random")
        check("random")
    print(kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes made by fork")
@pytest.mark.parametrize("kind", ["calls", "random moments"])
def test_a_killed_run_goes_on_to_the_same_bytes(kind: str, tmp_path: Path) -> None:
    """kill -9 in every write, fsync, rename and removal of a small file, and at random moments of a larger one."""
    documents, checkpoint = (DOCUMENTS, 5) if kind == "calls" else (tales()[:600], 3000)
    work = tmp_path / "päth with spaces"
    work.mkdir()
    write_tokens(work / "wanted.tok", documents, course())
    (work / "documents").write_bytes("\f".join(documents).encode())
    documents = (work / "documents").read_text(encoding="utf-8").split("\f")  # as the other process reads them
    (work / "wanted.tok").unlink()
    write_tokens(work / "wanted.tok", documents, course())
    command = [sys.executable, "-c", textwrap.dedent(KILLS), str(work / "x.tok"), kind]
    command += [str(work / "documents"), str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= (50 if kind == "calls" else 12)


def stopping(documents: Iterable[str], after: int) -> Iterator[str]:
    yield from itertools.islice(documents, after)
    raise RuntimeError("the source is gone")


def interrupted(path: Path, after: int = 40, checkpoint: int = 1000, **more: Any) -> list[str]:
    """A partial file of the first documents of the tales."""
    documents = tales()[:80]
    with pytest.raises(RuntimeError, match="the source is gone"):
        write_tokens(path, stopping(documents, after), course(), checkpoint=checkpoint, **more)
    assert not path.exists()
    assert beside(path) == [f"{path.name}.partial{end}" for end in ("", ".ends", ".json")]
    return documents


def test_what_is_done_is_not_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tok"
    documents = interrupted(path)
    tokenizer, encoded = BPETokenizer.load(), []
    original = tokenizer.encode

    def watched(text: str, *more: Any) -> list[int]:
        encoded.append(text)
        return original(text, *more)

    monkeypatch.setattr(tokenizer, "encode", watched)
    file = write_tokens(path, iter(documents), tokenizer)
    assert (file.ids.tolist(), file.ends.tolist()) == joined(documents, course())
    assert 40 <= len(encoded) < 50  # the last 40, and what came after the last record


def test_what_came_after_the_last_record_is_forgotten(tmp_path: Path) -> None:
    """Documents that were written but not recorded may be others now, or none."""
    path = tmp_path / "x.tok"
    documents = interrupted(path, checkpoint=3000)
    done = token_file._parse(path.with_name("x.tok.partial.json").read_bytes())["documents"]
    assert 10 < done < 39
    later = [*documents[:done], "x"]
    file = write_tokens(path, later, course())
    assert file.path.read_bytes() == write_tokens(tmp_path / "at once.tok", later, course()).path.read_bytes()


def test_a_run_that_was_interrupted_asks_for_the_same_arguments(tmp_path: Path) -> None:
    path = tmp_path / "x.tok"
    documents = interrupted(path)
    journal = path.with_name("x.tok.partial.json").read_bytes()
    other = BPETokenizer.train(tales()[:20], 300)
    changed = [*documents[:3], documents[3] + "!", *documents[4:]]
    faults = {
        r"begun with vocab_size 2048, not 300": lambda: write_tokens(path, documents, other),
        r"begun with dtype uint16, not uint32": lambda: write_tokens(path, documents, course(), dtype="uint32"),
        r"holds the first \d+ documents, but at least one of them is another now": lambda: write_tokens(
            path, changed, course()
        ),
        r"holds the first \d+ documents, but there are only 5 now": lambda: write_tokens(path, documents[:5], course()),
    }
    for message, call in faults.items():
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert f"delete {path}.partial.json to start afresh" in str(caught.value)
        assert path.with_name("x.tok.partial.json").read_bytes() == journal  # nothing is lost
    (tmp_path / "x.tok.partial.json").unlink()  # the fix that they name
    assert write_tokens(path, documents, other).documents == 80
    assert beside(path) == []


@pytest.mark.parametrize("name", ["x.tok.partial", "x.tok.partial.ends", "x.tok.partial.json"])
def test_a_damaged_partial_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tok"
    documents = interrupted(path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(
        ValueError, match=r"x\.tok\.partial.*(lacks bytes that its journal counts|is damaged): .*delete"
    ):
        write_tokens(path, documents, course())
    (tmp_path / "x.tok.partial.json").unlink()
    assert write_tokens(path, documents, course()).documents == 80


def test_a_journal_with_other_numbers_is_refused(tmp_path: Path) -> None:
    """One number changed: by chance, which the hash finds, and with a hash that fits."""
    path = tmp_path / "x.tok"
    documents = interrupted(path)
    journal = path.with_name("x.tok.partial.json")
    whole = journal.read_bytes()
    entry = token_file._parse(whole)
    ids = str(entry["ids"])
    faults = [whole.replace(f'"ids": {ids}'.encode(), f'"ids": {ids[:-1]}'.encode())]
    faults += [
        token_file._pack({**entry, name: wrong}) for name in ("ids", "documents") for wrong in (-5, "12", 1.0, True)
    ]
    faults += [token_file._pack({"ids": 5}), b"", b"{}", b"[1]"]
    assert faults[0] != whole
    for data in faults:
        journal.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.tok\.partial\.json is damaged: delete it to start afresh"):
            write_tokens(path, documents, course())
    journal.write_bytes(whole)
    file = write_tokens(path, documents, course())
    assert (file.ids.tolist(), file.ends.tolist()) == joined(documents, course())


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is of another kind there")
def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "x.tok"
    inner: list[str] = []

    def documents() -> Iterator[str]:
        yield from tales()[:3]
        with pytest.raises(ValueError, match="is being written by another process: wait") as caught:
            write_tokens(path, tales()[:3], course())
        inner.append(str(caught.value))
        yield tales()[3]

    file = write_tokens(path, documents(), course(), checkpoint=1)
    assert len(inner) == 1
    assert file.ids.tolist() == joined(tales()[:4], course())[0]
    assert beside(path) == []


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.tok"

    def documents() -> Iterator[str]:
        yield "one"
        path.write_bytes(b"of someone else")

    with pytest.raises(FileExistsError, match="exists: open it with TokenFile, or delete it first"):
        write_tokens(path, documents(), course())
    assert path.read_bytes() == b"of someone else"
    assert beside(path) == [f"x.tok.partial{end}" for end in ("", ".ends", ".json")]  # hours of work may lie there
    with pytest.raises(FileExistsError, match="delete it first"):
        write_tokens(path, unread(), course())
    path.unlink()
    file = write_tokens(path, ["one"], course())
    assert file.path.read_bytes() == write_tokens(tmp_path / "at once.tok", ["one"], course()).path.read_bytes()
    (tmp_path / "at once.tok").unlink()
    assert beside(path) == []


def test_what_a_run_left_that_was_killed_after_its_last_rename_is_removed(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "x.tok", ["one"], course()).path
    for end in (".ends", ".json"):
        path.with_name(f"x.tok.partial{end}").write_bytes(b"left")
    with pytest.raises(FileExistsError):
        write_tokens(path, unread(), course())
    assert beside(path) == []


# --- a full disk ---


class Disk:
    """A disk with so many bytes left: a write takes what has room, the next is refused."""

    def __init__(self, left: int) -> None:
        self.left = left

    def file(self, path: Path, mode: str) -> FileIO:
        disk = self

        class File(FileIO):
            def write(self, data: Any) -> int:
                fits = bytes(data)[: disk.left]
                if data and not fits:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                disk.left -= len(fits)
                return super().write(fits)

        return File(path, mode)


def test_a_full_disk_leaves_no_half_file_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = write_tokens(tmp_path / "wanted.tok", DOCUMENTS, course()).path.read_bytes()
    (tmp_path / "wanted.tok").unlink()
    path = tmp_path / "x.tok"
    left = -97
    while not path.exists():
        left += 97
        monkeypatch.setattr(token_file, "FileIO", Disk(left).file)
        with contextlib.suppress(OSError):
            write_tokens(path, DOCUMENTS, course(), checkpoint=5)
        monkeypatch.setattr(token_file, "FileIO", FileIO)
        if path.exists():
            break
        write_tokens(path, DOCUMENTS, course(), checkpoint=5)
        assert path.read_bytes() == wanted, left
        assert beside(path) == []
        path.unlink()
    assert left > len(wanted)
    assert path.read_bytes() == wanted


def test_a_full_disk_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "FileIO", Disk(200).file)
    with pytest.raises(OSError, match="No space left") as caught:
        write_tokens(tmp_path / "x.tok", DOCUMENTS, course())
    notes = "".join(caught.value.__notes__)
    assert f"{tmp_path / 'x.tok'}.partial keeps what was written: make room, then call write_tokens again" in notes


@pytest.mark.skipif(sys.platform == "win32", reason="there is no RLIMIT_FSIZE")
def test_the_systems_own_limit_is_met_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "x.tok"
    script = """
        import resource, signal, sys
        from glassbox.preprocessing import read_documents
        from glassbox.datasets import dataset
        from glassbox.token_file import write_tokens
        from glassbox.tokenizer import BPETokenizer

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_tokens(sys.argv[1], read_documents(dataset("tales")), BPETokenizer.load(), checkpoint=10_000)
        except OSError as error:
            print(error.errno)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == errno.EFBIG
    assert not path.exists()
    assert path.with_name("x.tok.partial").stat().st_size == 100_000
    assert token_file._parse(path.with_name("x.tok.partial.json").read_bytes())["documents"] > 200
    file = write_tokens(path, read_documents(dataset("tales")), course())
    assert (file.ids.tolist(), file.ends.tolist()) == joined(tales(), course())


# --- what is refused ---


@pytest.mark.parametrize(
    ("documents", "kind", "message"),
    [
        ("one text", TypeError, r"expected several documents, such as a list of str, not one str; write \[text\]"),
        (b"bytes", TypeError, "not one bytes"),
        ({"a": "b"}, TypeError, "not one dict"),
        (7, TypeError, "not one int"),
        (["a", b"b"], TypeError, r"document 1 \(from 0\) must be text as a str, not bytes"),
        (["a", 7], TypeError, r"document 1 \(from 0\) must be text as a str, not int"),
        (["a", ["b", b"c"]], TypeError, "expected text as a str, not bytes; decode bytes first"),
        (["a", "b", ""], ValueError, r"document 2 \(from 0\) is empty or blank: leave it out"),
        (["a", " \n\t"], ValueError, r"document 1 \(from 0\) is empty or blank"),
        ([["", " "], "b"], ValueError, r"document 0 \(from 0\) is empty or blank"),
        ([[]], ValueError, r"document 0 \(from 0\) is empty or blank"),
        ([], ValueError, "there is no document: a token file needs at least one"),
    ],
)
def test_what_are_no_documents_is_refused(documents: Any, kind: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        write_tokens(tmp_path / "x.tok", documents, course())
    assert not (tmp_path / "x.tok").exists()


def unread() -> Iterator[str]:
    raise AssertionError("a document was read before the arguments were checked")
    yield ""


@pytest.mark.parametrize(
    ("tokenizer", "more", "kind", "message"),
    [
        (large(65_537), {"dtype": "uint16"}, ValueError, "uint16 holds ids up to 65,535, but .* 65,536: use uint32"),
        (course(), {"dtype": "int64"}, ValueError, "dtype must be uint16 or uint32, not int64"),
        (course(), {"dtype": "uint17"}, ValueError, "dtype must be uint16 or uint32, not 'uint17'"),
        (course(), {"dtype": torch.uint16}, ValueError, "dtype must be uint16 or uint32, not torch.uint16"),
        (course(), {"checkpoint": torch.tensor(3.0)}, TypeError, "checkpoint must be a whole number"),
        (course(), {"checkpoint": 0}, ValueError, "checkpoint must be 1 or more, not 0"),
        (BPETokenizer({}, {"<|x|>": 256}), {}, ValueError, r"no special token '<\|endoftext\|>' to close documents"),
        ("gpt2", {}, TypeError, "tokenizer must be a BPETokenizer, not str"),
    ],
)
def test_arguments_are_checked_before_a_document_is_read(
    tokenizer: Any, more: dict[str, Any], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        write_tokens(tmp_path / "x.tok", unread(), tokenizer, **more)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tok"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"x\.tok exists: open it with TokenFile, or delete it first"):
        write_tokens(path, unread(), course())
    assert path.read_bytes() == b"mine"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_tokens(tmp_path / "nowhere" / "x.tok", unread(), course())


def test_paths_of_every_kind(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path / "x.tok")
    file = write_tokens(name, ["one"], course())
    assert (file.path, TokenFile(name, course()).path) == (tmp_path / "x.tok", tmp_path / "x.tok")
    with pytest.raises(FileExistsError, match="is a folder: give the path of a file in it"):
        write_tokens(tmp_path, unread(), course())
    with pytest.raises(ValueError, match="is a folder: give the path of a token file in it"):
        TokenFile(tmp_path, course())


def test_another_vocabulary_is_refused(written: TokenFile) -> None:
    other = BPETokenizer.train(tales()[:20], 300)
    with pytest.raises(ValueError, match="written with another vocabulary") as caught:
        TokenFile(written.path, other)
    for part in (str(written.path), course().fingerprint[:8], other.fingerprint[:8], "2,048", "300", "write the text"):
        assert part in str(caught.value)
    same_size = BPETokenizer(dict(itertools.islice(course().ranks.items(), 1790)), {END: 2046, "<|x|>": 2047})
    assert same_size.vocab_size == course().vocab_size
    with pytest.raises(ValueError, match="written with another vocabulary"):
        TokenFile(written.path, same_size)
    with pytest.raises(TypeError, match="tokenizer must be a BPETokenizer, not NoneType"):
        TokenFile(written.path, None)  # type: ignore[arg-type]


def test_a_truncated_file_is_refused_wherever_it_was_cut(written: TokenFile) -> None:
    data = written.path.read_bytes()
    beyond = 4096 + 2 * len(written)
    places = {*range(12), 100, 500, 4095, 4096, 4097, 4100, beyond - 1, *range(beyond, len(data), 3), len(data) - 1}
    for place in sorted(places):
        path = damaged(written.path, data[:place])
        with pytest.raises(
            ValueError, match=r"damaged\.tok .*; write the text to a new file with write_tokens"
        ) as caught:
            TokenFile(path, course())
        wanted = "is empty" if not place else "is no token file" if place < 8 else "is truncated"
        assert wanted in str(caught.value)
        if place >= 4096:
            assert f"{len(data) - place:,} of its {len(data):,} bytes are missing" in str(caught.value)
    written.path.with_name("damaged.tok").unlink()


def test_a_damaged_header_is_refused_whichever_byte_it_is(written: TokenFile) -> None:
    data = bytearray(written.path.read_bytes())
    for place in [*range(420), *range(420, 4096, 50)]:
        data[place] ^= 1
        path = damaged(written.path, bytes(data))
        with pytest.raises(ValueError, match=r"is damaged: its header is not what|is no token file"):
            TokenFile(path, course())
        data[place] ^= 1
    written.path.with_name("damaged.tok").unlink()


def test_files_that_are_too_long_of_another_version_or_another_kind_are_refused(written: TokenFile) -> None:
    data = written.path.read_bytes()
    with pytest.raises(ValueError, match="is damaged: it is 3 bytes longer than its header says"):
        TokenFile(damaged(written.path, data + b"abc"), course())
    header = token_file._unpack(written.path)
    later = token_file._pack({**header, "version": 2}) + data[4096:]
    with pytest.raises(ValueError, match="is of version 2 of the format, and only version 1 is read here"):
        TokenFile(damaged(written.path, later), course())
    with pytest.raises(ValueError, match=r"is no token file .it begins with b'PK"):
        TokenFile(damaged(written.path, b"PK\3\4" + bytes(5000)), course())
    written.path.with_name("damaged.tok").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing\.tok"):
        TokenFile(written.path.with_name("missing.tok"), course())


# --- copies for workers ---


def test_a_pickled_file_is_its_path(tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "x.tok", tales(), course())
    half = len(file) // 2
    for ids in (file.ids, file.ids[half:], file.ids[100:][:half], file.document(7)):
        data = TokenDataset(ids, 64 if len(ids) > 64 else 8)
        packed = pickle.dumps(data)
        assert len(packed) < 10_000
        again = pickle.loads(packed)
        assert len(again) == len(data)
        assert again.ids.tolist() == ids.tolist()
        assert not again.ids.flags.writeable
        assert again[len(data) - 1][1].equal(data[len(data) - 1][1])
    again = pickle.loads(pickle.dumps(file))
    assert len(pickle.dumps(file)) < 1000
    assert (again.ids == file.ids).all()
    assert (again.ends == file.ends).all()
    assert (again.path, again.header) == (file.path, file.header)
    for numbers in (file.ids[::2], file.ids + 1, file.ids[[3, 1, 2]], file.ids[:12].reshape(3, 4), file.ids[:0]):
        copy = pickle.loads(pickle.dumps(numbers))
        assert copy.tolist() == numbers.tolist()
        assert copy.dtype == numbers.dtype


def test_views_of_another_type_are_pickled_as_their_numbers(written: TokenFile) -> None:
    """They have the file's addresses, but not its numbers."""
    raw = written.ids.view(np.uint8)
    views = [
        raw[:6],
        raw[1:3],
        raw[1:-1].view(np.uint16),
        written.ids.view(np.int16)[2:5],
        written.ids[2:5].view(">u2"),
    ]
    for view in [*views, written.ends.view(np.int64), written.ends.view(np.uint16)[:4]]:
        copy = pickle.loads(pickle.dumps(view))
        assert copy.tolist() == view.tolist()
        assert copy.dtype.newbyteorder("=") == view.dtype.newbyteorder("=")  # NumPy's own pickles change the order


def test_a_text_of_the_same_length_is_another_file(tmp_path: Path) -> None:
    """The counts are equal; the hash of the text is not."""
    path = tmp_path / "x.tok"
    packed = pickle.dumps(write_tokens(path, ["a b"], course()).ids)
    path.unlink()
    write_tokens(path, ["b a"], course())
    with pytest.raises(ValueError, match="is another file than when it was opened"):
        pickle.loads(packed)


def test_a_pickled_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "x.tok", tales()[:9], course())
    packed = pickle.dumps(file.ids), pickle.dumps(file)
    del file
    (tmp_path / "x.tok").unlink()
    for data in packed:
        with pytest.raises(FileNotFoundError, match=r"x\.tok"):
            pickle.loads(data)
    write_tokens(tmp_path / "x.tok", tales()[:9], BPETokenizer.train(tales()[:9], 280))
    for data in packed:
        with pytest.raises(ValueError, match="is another file than when it was opened: open it again with TokenFile"):
            pickle.loads(data)
