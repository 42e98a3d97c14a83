"""The registry and its downloads, against a server on this machine that breaks off, lies and serves wrong bytes."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from glassbox import datasets
from glassbox.datasets import DatasetError, dataset

ROOT = Path(__file__).resolve().parents[1]
REGISTRY = tomllib.loads((ROOT / "data" / "datasets.toml").read_text(encoding="utf-8"))
GOOD = bytes(range(256)) * 400
SHA = hashlib.sha256(GOOD).hexdigest()

Answer = Callable[[BaseHTTPRequestHandler], None]


def send(body: bytes, length: int | None = None, status: int = 200) -> Answer:
    """An answer with a body and a stated length, which may be a lie."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def slow(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(GOOD)))
    handler.end_headers()
    for start in range(0, len(GOOD), 10240):
        handler.wfile.write(GOOD[start : start + 10240])
        time.sleep(0.05)


TAKEN_WHOLE: list[str] = []


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(800):
        handler.wfile.write(bytes(65536))
    TAKEN_WHOLE.append(handler.path)


GOOD_ANSWER = send(GOOD)
BREAKS_OFF = send(GOOD[:50_000], length=len(GOOD))
SAYS_TOO_LITTLE = send(GOOD, length=50_000)
SAYS_TOO_MUCH = send(GOOD, length=10 * len(GOOD))
WRONG_BYTES = send(GOOD[:-1] + b"!")
NOT_FOUND = send(b"no", status=404)
BUSY = send(b"later", status=503)


class Server:
    """Gives the answers of a script, one a request, and the last one for ever."""

    def __init__(self) -> None:
        self.script: list[Answer] = [GOOD_ANSWER]
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = outer.script[min(outer.asked, len(outer.script) - 1)]
                outer.asked += 1
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/set.bin"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def write_registry(folder: Path, url: str | None, **more: str) -> Path:
    folder.mkdir(exist_ok=True)
    lines = ["[tales]", 'file = "tales.txt"', 'what = "tales"', 'licence = "CC0-1.0"', "", "[far]"]
    entry = {"path": "sub/far.bin", "file": "far.bin", "what": "a set", "licence": "MIT", "page": "https://far.example"}
    entry |= {"sha256": SHA, "stand_in": "tales"} | ({"url": url} if url else {}) | more
    lines += [f'{key} = "{value}"' for key, value in entry.items()] + [f"size = {len(GOOD)}"]
    (folder / "datasets.toml").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tales.txt").write_text("Once.", encoding="utf-8")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "a cache é"
    monkeypatch.setenv("GLASSBOX_CACHE", str(cache))
    monkeypatch.delenv("GLASSBOX_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(datasets, "_PAUSE", 0.0)
    return cache


@pytest.fixture
def root(tmp_path: Path, server: Server, cache: Path) -> Path:
    return write_registry(tmp_path / "data", server.url)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


# --- the registry of the course ---


def test_registry_is_complete() -> None:
    embedded = {name for name, entry in REGISTRY.items() if "sha256" not in entry}
    assert {"tales", "tales-heldout", "questions", "dialogues", "few-shot", "stance"} <= embedded
    assert {"tiny-shakespeare", "fomc-train", "hellaswag", "gpt2-encoder"} <= set(REGISTRY) - embedded
    for name, entry in REGISTRY.items():
        assert entry["what"], name
        assert entry["licence"], name
        if name not in embedded:
            assert len(entry["sha256"]) == 64, name
            assert entry["size"] > 0, name
            assert entry["page"].startswith("https://"), name
            assert entry.get("url", "https://").startswith("https://"), name
            assert entry.get("stand_in", "tales") in embedded, name
    cached = [entry["file"] for name, entry in REGISTRY.items() if name not in embedded]
    assert len(set(cached)) == len(cached), "two sets would overwrite each other in the cache"


@pytest.mark.parametrize("name", [name for name, entry in REGISTRY.items() if "sha256" not in entry])
def test_embedded_sets_are_here(name: str) -> None:
    assert dataset(name).stat().st_size > 0


@pytest.mark.parametrize("name", [name for name, entry in REGISTRY.items() if "sha256" in entry])
def test_registry_describes_the_real_files(name: str, data_dir: Path) -> None:
    path = dataset(name).resolve()
    assert path == data_dir / REGISTRY[name]["path"]
    assert path.stat().st_size == REGISTRY[name]["size"]


# --- where a set is looked for ---


def test_unknown_name_lists_the_names(root: Path) -> None:
    with pytest.raises(ValueError, match=r"no data set is named 'shakespeare'; there are far, tales"):
        dataset("shakespeare", root=root)


def test_embedded_set_missing_from_the_course(root: Path) -> None:
    assert dataset("tales", root=root).read_text() == "Once."
    (root / "tales.txt").unlink()
    with pytest.raises(DatasetError, match=r"tales.txt should lie in .*install it again"):
        dataset("tales", root=root)


def test_data_folder_is_used_first(root: Path, cache: Path, tmp_path: Path, server: Server, monkeypatch) -> None:
    dataset("far", root=root)
    assert (cache / "far.bin").is_file()
    mine = tmp_path / "mine" / "sub" / "far.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(GOOD)
    monkeypatch.setenv("GLASSBOX_DATA", str(tmp_path / "mine"))
    assert dataset("far", root=root) == mine
    assert server.asked == 1


def test_data_folder_without_the_file_is_passed_over(root: Path, tmp_path: Path, cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("GLASSBOX_DATA", str(tmp_path / "no such folder"))
    assert dataset("far", root=root) == cache / "far.bin"


def test_wrong_file_in_the_data_folder_names_both_hashes(root: Path, tmp_path: Path, server: Server, monkeypatch):
    mine = tmp_path / "mine" / "sub" / "far.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"other")
    monkeypatch.setenv("GLASSBOX_DATA", str(tmp_path / "mine"))
    with pytest.raises(ValueError, match="is not the 'far'") as caught:
        dataset("far", root=root)
    assert hashlib.sha256(b"other").hexdigest() in str(caught.value)
    assert SHA in str(caught.value)
    assert mine.read_bytes() == b"other"
    assert server.asked == 0


def test_second_call_reads_the_cache(root: Path, cache: Path, server: Server) -> None:
    assert dataset("far", root=root) == dataset("far", root=root) == cache / "far.bin"
    assert server.asked == 1
    if os.name == "posix":  # a cache may serve a whole class
        assert (cache / "far.bin").stat().st_mode & 0o777 == 0o644


def test_spoiled_cache_is_replaced(root: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / "far.bin").write_bytes(GOOD[:1000])
    assert dataset("far", root=root).read_bytes() == GOOD


# --- downloads ---


@pytest.mark.parametrize(
    "bad", [BREAKS_OFF, SAYS_TOO_LITTLE, SAYS_TOO_MUCH, WRONG_BYTES, BUSY], ids=["cut", "short", "long", "wrong", "503"]
)
def test_bad_answers_then_a_good_one(bad: Answer, root: Path, cache: Path, server: Server) -> None:
    server.script = [bad, bad, GOOD_ANSWER]
    assert dataset("far", root=root).read_bytes() == GOOD
    assert server.asked == 3
    assert files(cache) == ["far.bin"]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (BREAKS_OFF, "broke off 3 times"),
        (SAYS_TOO_LITTLE, "serves another file than expected"),
        (SAYS_TOO_MUCH, "broke off 3 times"),
        (WRONG_BYTES, "serves another file than expected"),
        (endless, "serves another file than expected"),
        (NOT_FOUND, "answers 404"),
        (BUSY, "answers 503"),
    ],
    ids=["cut", "short", "long", "wrong", "endless", "404", "503"],
)
def test_only_bad_answers(bad: Answer, says: str, root: Path, cache: Path, server: Server) -> None:
    server.script = [bad]
    with pytest.raises(DatasetError, match=says) as caught:
        dataset("far", root=root)
    assert "dataset('tales') serves instead" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not TAKEN_WHOLE, "52 MB were taken where 0.1 were expected"
    assert files(cache) == []
    assert server.asked == (1 if bad is NOT_FOUND else 3)
    server.script = [GOOD_ANSWER]
    assert dataset("far", root=root).read_bytes() == GOOD
    assert files(cache) == ["far.bin"]


def test_offline(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.time, "sleep", lambda seconds: pytest.fail("offline, nobody wants to wait"))
    with socket.socket() as taken:  # a port on which nobody listens
        taken.bind(("127.0.0.1", 0))
        root = write_registry(tmp_path / "data", f"http://127.0.0.1:{taken.getsockname()[1]}/")
        with pytest.raises(DatasetError) as caught:
            dataset("far", root=root)
    assert isinstance(caught.value, FileNotFoundError)
    assert str(caught.value).startswith("the data set 'far' (a set) is not here, and http://127.0.0.1:")
    assert str(caught.value).endswith(
        "cannot be reached; try again later, or lay it under $GLASSBOX_DATA as sub/far.bin; "
        "dataset('tales') serves instead."
    )
    assert files(cache) == []


def test_set_without_an_address(tmp_path: Path, cache: Path) -> None:
    root = write_registry(tmp_path / "data", None)
    with pytest.raises(
        DatasetError, match=r"get it yourself from https://far.example and lay it under \$GLASSBOX_DATA"
    ):
        dataset("far", root=root)


@pytest.mark.parametrize("way", ["a file in place of the folder", "no permission", "full disk"])
def test_cache_that_cannot_be_written(way: str, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "a file in place of the folder":
        cache.write_text("not a folder")
    elif way == "no permission":

        def refuse(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(datasets.tempfile, "TemporaryDirectory", refuse)
    else:

        def fill(*args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(datasets._Bar, "update", fill)
    with pytest.raises(DatasetError, match=r"cannot be stored in .*set GLASSBOX_CACHE to a folder you may write to"):
        dataset("far", root=root)
    assert files(cache) == []


def test_ctrl_c_leaves_nothing(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets._Bar, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        dataset("far", root=root)
    assert files(cache) == []


def child(root: Path) -> subprocess.Popen:
    code = (
        "import sys; from glassbox.datasets import dataset; print(len(dataset('far', root=sys.argv[1]).read_bytes()))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT / "00_basics")}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, str(root)], env=env, text=True, **pipes)


def test_two_processes_at_once(root: Path, cache: Path, server: Server) -> None:
    server.script = [slow]
    children = [child(root), child(root)]
    said = [process.communicate(timeout=60)[0] for process in children]
    assert said == [f"{len(GOOD)}\n"] * 2
    assert server.asked == 2
    assert files(cache) == ["far.bin"]


def test_killed_download(root: Path, cache: Path, server: Server) -> None:
    server.script = [slow]
    process = child(root)
    deadline = time.monotonic() + 60
    while not any(path.is_file() and path.stat().st_size for path in cache.rglob("*")):
        assert time.monotonic() < deadline, "the download never began"
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (cache / "far.bin").exists()
    for left in cache.glob(".part-*"):  # a day later
        os.utime(left, (1, 1))
    server.script = [GOOD_ANSWER]
    assert dataset("far", root=root).read_bytes() == GOOD
    assert files(cache) == ["far.bin"]


def test_no_bar_where_nobody_watches(root: Path) -> None:
    assert child(root).communicate(timeout=60) == (f"{len(GOOD)}\n", "")


def test_bar_on_a_terminal(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    dataset("far", root=root)
    assert "far.bin" in capsys.readouterr().err
