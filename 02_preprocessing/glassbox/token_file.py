"""Files of ids: written from a stream of documents larger than memory, read through a map of the file.

A token file has four parts, one after the other, all numbers little-endian:

    4096 bytes   b"GLASSBOX", one line of JSON, spaces. The JSON holds the version of this format, the type of the ids,
                 the size and the fingerprint of the vocabulary, the id that ends a document, the counts of ids and
                 documents, and a hash of all their text; its SHA-256 follows it
    ids          of all documents, each closed by its end mark: uint16 or uint32
    0 to 7       bytes of zero, so that the next part begins at a multiple of 8
    ends         for each document one past its last id, counted from the first id of the file: uint64

While a file is written it lies beside its place as `NAME.partial` (header's room and ids), `NAME.partial.ends` and
`NAME.partial.json`, the journal: a header of what was safe on the disk when it was last looked at. It gets its name
when it is whole, so a file of that name is never half a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from glassbox.preprocessing import check_index, check_size
from glassbox.tales import END
from glassbox.tokenizer import CHUNK, BPETokenizer, check_text
from glassbox.vocabulary import Vocabulary
from tqdm import tqdm

__all__ = ["TokenFile", "write_tokens"]

MAGIC, VERSION, ROOM = b"GLASSBOX", 1, 4096
TYPES = ("uint16", "uint32")
BLOCK = 2**14  # ids that are turned into bytes together
CHECKPOINT = 2**22  # ids between two entries in the journal
FAR = 2**62  # the byte that Windows locks: beyond every file, so that reading and writing stay free
Header = dict[str, Any]

# --- writing ---


def write_tokens(
    path: str | bytes | os.PathLike[Any],
    documents: Iterable[str | Iterable[str]],
    tokenizer: BPETokenizer,
    dtype: str | np.dtype[Any] | type | None = None,
    progress: bool = False,
    checkpoint: int = CHECKPOINT,
) -> TokenFile:
    """Write the ids of documents to a new file, each closed by the end mark's id, and open it.

    documents: texts, from a generator too; a document larger than memory comes as an iterable of its parts. dtype:
    "uint16" or "uint32"; None for the smaller one that holds every id. Memory does not grow with the text.

    Killed or out of room, it leaves what it has; called again with the same arguments it reads the documents that are
    done, checks that they are the same and goes on, to the same bytes. checkpoint: ids between two records of progress,
    which are made between documents.

    Raises FileExistsError where `path` exists; ValueError for a vocabulary without end mark, a dtype too small, a blank
    document (by number), no document, and a partial file of other arguments or in use; TypeError for anything but text.
    """
    path, header = Path(os.path.abspath(os.fsdecode(path))), _plan(tokenizer, dtype)
    checkpoint, stream = check_size("checkpoint", checkpoint), _check_documents(documents)
    _check_free(path)
    with contextlib.ExitStack() as stack:
        writer = _Writer(path, header, stack)
        writer.skip(stream)
        for document in tqdm(stream, unit=" documents", initial=writer.documents, disable=not progress):
            writer.add(document, tokenizer)
            if writer.ids - writer.safe >= checkpoint:
                writer.record()
        writer.finish()
    return TokenFile(path, tokenizer)


class _Writer:
    """A token file in the making: its two growing files, its counts, and the journal."""

    def __init__(self, path: Path, header: Header, stack: contextlib.ExitStack) -> None:
        self.path, self.header, self.kind, self.stack = path, header, _kind(header), stack
        self.partial, self.aside, self.journal, self.new = _beside(path)
        self.ids = self.documents = self.safe = 0
        self.chain = ""  # a hash of the last document and of the chain before it
        self.fix = f"give the same arguments to go on, or delete {self.journal} to start afresh"
        self.file = self._open(self.partial)
        _lock(self.file, self.partial)
        self.ends = self._open(self.aside)
        self._restore()

    def _open(self, path: Path) -> FileIO:
        path.touch()
        return self.stack.enter_context(FileIO(path, "r+"))  # no buffer that a close could fail to write

    def _write(self, file: FileIO, data: bytes) -> None:
        """Write all of the data: where the disk is nearly full, the system takes a part and refuses the rest."""
        try:
            while data:
                data = data[file.write(data) :]
        except OSError as error:
            error.add_note(f"{self.partial} keeps what was written: make room, then call write_tokens again to go on")
            raise

    def _restore(self) -> None:
        """Go back to the last entry of the journal; without one to the start."""
        if self.journal.exists():
            try:
                entry = _parse(self.journal.read_bytes())
                self.ids, self.documents = (check_size(name, entry[name], 0) for name in ("ids", "documents"))
                self.chain = entry["chain"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.journal} is damaged: delete it to start afresh") from error
            for name, value in self.header.items():
                if (was := entry.get(name)) != value:
                    raise ValueError(
                        f"{self.partial.name} was begun with {name} {str(was)[:12]}, not {str(value)[:12]}: {self.fix}"
                    )
        self.safe = self.ids
        for file, size in ((self.file, ROOM + self.ids * self.kind.itemsize), (self.ends, 8 * self.documents)):
            if os.fstat(file.fileno()).st_size < size and self.documents:
                raise ValueError(f"{self.partial.name} lacks bytes that its journal counts: {self.fix}")
            file.truncate(size)
            file.seek(size)

    def skip(self, stream: Iterator[str | Iterable[str]]) -> None:
        """Read the documents that are done, and check that they are the ones that were written."""
        chain, n = "", 0
        for n, document in enumerate(itertools.islice(stream, self.documents), start=1):
            digest = hashlib.sha256(chain.encode())
            for _ in _parts(document, n - 1, digest):
                pass
            chain = digest.hexdigest()
        if chain != self.chain:
            what = f"there are only {n} now" if n < self.documents else "at least one of them is another now"
            raise ValueError(
                f"{self.partial.name} holds the first {self.documents:,} documents, but {what}: {self.fix}"
            )

    def add(self, document: str | Iterable[str], tokenizer: BPETokenizer) -> None:
        """Encode one document and write it behind the others."""
        digest = hashlib.sha256(self.chain.encode())
        parts = _parts(document, self.documents, digest)
        short = isinstance(document, str) and len(document) <= CHUNK  # the same ids either way, but sooner
        found = tokenizer.encode("".join(parts)) if short else tokenizer.encode_iterable(parts)
        ids = itertools.chain(found, [self.header["end"]])
        while (block := np.fromiter(itertools.islice(ids, BLOCK), self.kind)).size:
            self._write(self.file, block.tobytes())
            self.ids += block.size
        self.documents += 1
        self._write(self.ends, self.ids.to_bytes(8, "little"))
        self.chain = digest.hexdigest()

    def record(self) -> bytes:
        """Make sure that all is on the disk, and only then say so in the journal. Returns its header."""
        for file in (self.file, self.ends):
            os.fsync(file)
        entry = _pack({**self.header, "ids": self.ids, "documents": self.documents, "chain": self.chain})
        with FileIO(self.new, "w") as file:
            self._write(file, entry)
            os.fsync(file)
        os.replace(self.new, self.journal)
        self.safe = self.ids
        return entry

    def finish(self) -> None:
        """Add what stands behind and before the ids, and give the file its name."""
        if not self.documents:
            raise ValueError("there is no document: a token file needs at least one")
        header = self.record()
        self._write(self.file, bytes(-self.ids * self.kind.itemsize % 8))
        self.ends.seek(0)
        while data := self.ends.read(BLOCK):
            self._write(self.file, data)
        self.file.seek(0)
        self._write(self.file, header)
        os.fsync(self.file)
        _check_free(self.path)
        if sys.platform == "win32":
            self.stack.close()  # Windows renames no open file; elsewhere the lock holds until all is done
        os.replace(self.partial, self.path)
        _clear(self.path)


def _plan(tokenizer: Vocabulary, dtype: Any) -> Header:
    """What stands in the header before the first document is read."""
    if END not in _check_tokenizer(tokenizer).special_tokens:
        raise ValueError(f"the tokenizer has no special token {END!r} to close documents with: train it with one")
    size = tokenizer.vocab_size
    try:
        name = TYPES[size > 2**16] if dtype is None else np.dtype(dtype).name
    except TypeError:  # no type of NumPy's
        name = repr(dtype)
    if name not in TYPES:
        raise ValueError(f"dtype must be {' or '.join(TYPES)}, not {name}")
    if (most := np.iinfo(name).max) < size - 1:
        raise ValueError(f"{name} holds ids up to {most:,}, but this vocabulary's go up to {size - 1:,}: use uint32")
    end = tokenizer.special_tokens[END]
    return {"version": VERSION, "dtype": name, "vocab_size": size, "fingerprint": tokenizer.fingerprint, "end": end}


def _check_tokenizer(tokenizer: Any) -> Vocabulary:
    if not isinstance(tokenizer, Vocabulary):
        raise TypeError(f"tokenizer must be a BPETokenizer, not {type(tokenizer).__name__}")
    return tokenizer


def _check_documents(documents: Any) -> Iterator[Any]:
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        kind = type(documents).__name__
        raise TypeError(f"expected several documents, such as a list of str, not one {kind}; write [text]")
    return iter(documents)


def _parts(document: Any, number: int, digest: Any) -> Iterator[str]:
    """The text of a document in parts of moderate size, which the digest takes in. Raises where there is none."""
    if isinstance(document, bytes | Mapping) or not isinstance(document, Iterable):
        raise TypeError(f"document {number} (from 0) must be text as a str, not {type(document).__name__}")
    blank = True
    for chunk in [document] if isinstance(document, str) else document:
        for i in range(0, len(check_text(chunk)), CHUNK):
            part = chunk[i : i + CHUNK]
            blank = blank and part.isspace()
            digest.update(part.encode("utf-8", "surrogatepass"))
            yield part
    if blank:
        raise ValueError(f"document {number} (from 0) is empty or blank: leave it out, and call again to go on")


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        if not os.path.lexists(_beside(path)[0]):
            _clear(path)  # a run was killed between its last two steps; while its ids lie there, it can still go on
        what = "exists: open it with TokenFile, or delete it first to write it anew"
        raise FileExistsError(f"{path} {'is a folder: give the path of a file in it' if path.is_dir() else what}")


def _beside(path: Path) -> list[Path]:
    """The files that lie beside a token file while it is written."""
    return [path.with_name(f"{path.name}.partial{end}") for end in ("", ".ends", ".json", ".json.new")]


def _clear(path: Path) -> None:
    for file in reversed(_beside(path)):  # the ids last: without a journal they are written anew
        with contextlib.suppress(OSError):
            file.unlink()


def _lock(file: FileIO, path: Path) -> None:
    """Keep other processes off the partial file; the system lets go of the lock when this one ends, however it ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise ValueError(f"{path} is being written by another process: wait for it, or choose another path") from error
    except OSError:  # a file system without locks
        pass


# --- the header ---


def _pack(header: Header) -> bytes:
    line = json.dumps(header).encode()
    return (MAGIC + line + b" " + hashlib.sha256(line).hexdigest().encode()).ljust(ROOM)


def _parse(data: bytes) -> Header:
    """What `_pack` packed; an empty dict where it is not as it was."""
    line, _, digest = data[len(MAGIC) :].rstrip().rpartition(b" ")
    return json.loads(line) if hashlib.sha256(line).hexdigest().encode() == digest else {}


def _unpack(path: Path) -> Header:
    """The header of a token file. Raises ValueError naming what is wrong with the file."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the path of a token file in it")
    with open(path, "rb") as file:
        start, size = file.read(ROOM), os.fstat(file.fileno()).st_size
    header, fault = {}, None
    if not start.startswith(MAGIC):
        fault = f"is no token file (it begins with {start[:8]!r})" if start else "is empty"
    elif len(start) < ROOM:
        fault = f"is truncated: {ROOM - len(start):,} bytes of its header and all ids are missing"
    elif not (header := _parse(start)):
        fault = "is damaged: its header is not what was written"
    elif header["version"] != VERSION:
        fault = f"is of version {header['version']} of the format, and only version {VERSION} is read here"
    elif (more := size - _places(header)[-1]) < 0:
        fault = f"is truncated: {-more:,} of its {size - more:,} bytes are missing"
    elif more:
        fault = f"is damaged: it is {more:,} bytes longer than its header says"
    if fault:
        raise ValueError(f"{path} {fault}; write the text to a new file with write_tokens")
    return header


def _places(header: Header) -> tuple[int, int]:
    """Where the ends begin in the file, and where the file ends."""
    ids = ROOM + header["ids"] * _kind(header).itemsize
    ends = ids + -ids % 8
    return ends, ends + 8 * header["documents"]


def _kind(header: Header) -> np.dtype[Any]:
    return np.dtype(header["dtype"]).newbyteorder("<")


# --- reading ---


class TokenFile:
    """A token file, mapped into memory: only what is looked at is read from the disk.

    ids: all ids of the file, end marks included, (N,) uint16 or uint32. ends: one past the last id of each document,
    (documents,) uint64. Both are read-only, `len` counts ids. The tokenizer must be the one of the file. Raises
    FileNotFoundError where there is no file; ValueError for another tokenizer, and for a file that is no token file,
    truncated, damaged or of another version. A token file, its `ids`, its `ends` and slices of them are pickled as the
    file's path, and opened again by whoever gets them.
    """

    def __init__(self, path: str | bytes | os.PathLike[Any], tokenizer: Vocabulary) -> None:
        ours = _check_tokenizer(tokenizer).fingerprint
        self._open(Path(os.path.abspath(os.fsdecode(path))))
        if (known := self.header["fingerprint"]) != ours:
            raise ValueError(
                f"{self.path} was written with another vocabulary ({self.header['vocab_size']:,} tokens, fingerprint "
                f"{known[:8]}) than this tokenizer's ({tokenizer.vocab_size:,} tokens, {ours[:8]}): use the tokenizer "
                "of the file, or write the text again with this one"
            )

    def _open(self, path: Path) -> None:
        self.path, self.header = path, _unpack(path)
        ends = np.memmap(path, "<u8", "r", _places(self.header)[0], (self.header["documents"],))
        ids = np.memmap(path, _kind(self.header), "r", ROOM, (self.header["ids"],))
        self.ids, self.ends = (part.view(_Mapped) for part in (ids, ends))
        for part, name in ((self.ids, "ids"), (self.ends, "ends")):
            part.source = (str(path), self.header, name, part.ctypes.data, len(part), part.dtype)

    @property
    def documents(self) -> int:
        """How many documents the file holds."""
        return len(self.ends)

    def document(self, i: int) -> np.ndarray:
        """Return the ids of document i, its end mark included. Raises IndexError where there is none."""
        i = check_index(i, self.documents)
        return self.ids[int(self.ends[i - 1]) if i else 0 : int(self.ends[i])]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        name, documents, dtype = self.path.name, self.documents, self.header["dtype"]
        return f"TokenFile({name!r}: {len(self):,} ids in {documents:,} documents, {dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (str(self.path), self.header)


class _Mapped(np.ndarray):
    """Ids or ends of a token file, or a slice of them. Pickled it is the file's path and the slice's place."""

    source: tuple[str, Header, str, int, int, np.dtype[Any]] | None = None

    def __array_finalize__(self, obj: Any) -> None:
        self.source = getattr(obj, "source", None)

    def __reduce__(self) -> Any:
        if self.source and self.ndim == 1 and self.strides == (self.itemsize,):
            path, header, name, address, length, kind = self.source
            start, rest = divmod(self.ctypes.data - address, kind.itemsize)
            if self.dtype == kind and not rest and 0 <= start <= length - len(self):
                return _slice_again, (path, header, name, start, start + len(self))
        return np.array(self).__reduce__()  # numbers made from the file's: they travel themselves


def _open_again(path: str, header: Header) -> TokenFile:
    file = TokenFile.__new__(TokenFile)
    file._open(Path(path))
    if file.header != header:
        raise ValueError(f"{path} is another file than when it was opened: open it again with TokenFile")
    return file


def _slice_again(path: str, header: Header, name: str, start: int, stop: int) -> np.ndarray:
    return getattr(_open_again(path, header), name)[start:stop]
