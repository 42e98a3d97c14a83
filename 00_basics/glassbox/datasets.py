"""Where the course's texts come from: `dataset(name)` returns the path of a file that is whole and verified.

`data/datasets.toml` lists two kinds. Embedded sets travel with the course. Named sets are public files that the
course does not contain: they are looked for in the folder that $GLASSBOX_DATA names, then in the user's cache
($GLASSBOX_CACHE, or the system's usual place), then downloaded. A download goes to a folder of its own, is compared
with the sha256 in the registry, and only then moved into the cache in one step: a half file is never seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any, cast

__all__ = ["DatasetError", "data_folder", "dataset"]

_ATTEMPTS = 3
_PAUSE = 1.0  # seconds before another attempt, times the attempts made
_WAIT = (10, 30)  # seconds for a connection, and for the next bytes, before it counts as broken


class DatasetError(FileNotFoundError):
    """A named data set that is neither here nor to be had now; the sentence says what to do and what serves instead."""


def dataset(name: str, *, root: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of a data set's file, downloading it where it must and can be.

    name: as in data/datasets.toml. root: the folder with `datasets.toml` and the embedded files; the course's own
    if None.

    Raises ValueError for an unknown name, and for a file under $GLASSBOX_DATA that is not the one the registry
    describes; DatasetError (a FileNotFoundError) where the set cannot be had.
    """
    folder = data_folder() if root is None else Path(root)
    registry = tomllib.loads((folder / "datasets.toml").read_text(encoding="utf-8"))
    if name not in registry:
        raise ValueError(f"no data set is named {name!r}; there are {', '.join(sorted(registry))}")
    entry = registry[name]
    if "sha256" not in entry:
        path = folder / entry["file"]
        if not path.is_file():
            raise DatasetError(f"{path.name} should lie in {folder}, as part of the course: install it again.")
        return path
    return _from_data_folder(name, entry) or _from_cache(entry) or _download(name, entry)


def data_folder() -> Path:
    """The folder `data/`: that of the checkout, else `glassbox/data` of the installed package."""
    here = Path(__file__).resolve()
    for folder in (here.parents[2] / "data", here.parent / "data"):
        if (folder / "datasets.toml").is_file():
            return folder
    raise DatasetError(f"datasets.toml was found neither in {here.parents[2] / 'data'} nor in {here.parent / 'data'}.")


def _from_data_folder(name: str, entry: dict[str, Any]) -> Path | None:
    given = os.environ.get("GLASSBOX_DATA")
    path = Path(given, entry["path"]) if given else None
    if path is None or not path.is_file():
        return None
    found = _sha256(path)
    if found != entry["sha256"]:
        raise ValueError(
            f"{path} is not the {name!r} that the registry describes: its sha256 is {found}, expected "
            f"{entry['sha256']}; replace the file, or unset GLASSBOX_DATA."
        )
    return path


def _cache() -> Path:
    given = os.environ.get("GLASSBOX_CACHE")
    if given:
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("glassbox-course"))


def _from_cache(entry: dict[str, Any]) -> Path | None:
    path = _cache() / entry["file"]
    return path if path.is_file() and _sha256(path) == entry["sha256"] else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- download ---


def _download(name: str, entry: dict[str, Any]) -> Path:
    if "url" not in entry:
        raise _unavailable(name, entry, "is not here, and no address is known that serves this very file")
    cache = _cache()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _sweep(cache)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=cache) as folder:
            fault = _fetch(entry, Path(folder))
            if not fault:
                return _move(Path(folder, entry["file"]), cache / entry["file"], entry)
    except OSError as error:
        said = error.strerror or error
        raise _unavailable(
            name, entry, f"cannot be stored in {cache} ({said}): set GLASSBOX_CACHE to a folder you may write to"
        ) from error
    raise _unavailable(name, entry, f"is not here, and {fault}")


def _fetch(entry: dict[str, Any], folder: Path) -> str:
    """Download into `folder`; return what went wrong in words, or nothing where the file is there and verified."""
    import pooch
    import requests

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    fault = ""
    try:
        for attempt in range(1, _ATTEMPTS + 1):
            bar = _Bar(entry["file"], entry["size"])
            try:
                load: Any = pooch.HTTPDownloader(progressbar=cast(Any, bar), timeout=_WAIT)
                pooch.retrieve(entry["url"], f"sha256:{entry['sha256']}", entry["file"], folder, downloader=load)
                return ""
            except requests.exceptions.HTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                fault = f"{entry['url']} answers {status}"
                if status < 500:  # not a busy server: asking again would not help
                    return fault
            except requests.exceptions.ConnectionError:
                fault = f"{entry['url']} cannot be reached"
                if not bar.received:
                    return fault
            except requests.exceptions.RequestException:
                fault = f"the download from {entry['url']} broke off {attempt} times"
            except ValueError:
                fault = f"{entry['url']} serves another file than expected (its sha256 is not {entry['sha256']})"
            finally:
                bar.close()
            if attempt < _ATTEMPTS:
                time.sleep(_PAUSE * attempt)
    finally:
        logger.setLevel(level)
    return fault


def _move(part: Path, path: Path, entry: dict[str, Any]) -> Path:
    try:
        part.chmod(0o644)  # a cache may serve a whole class
        os.replace(part, path)
    except PermissionError:  # Windows, while another process reads the same file
        if _from_cache(entry) is None:
            raise
    return path


def _sweep(cache: Path, days: float = 1.0) -> None:
    """Remove what a killed download left behind."""
    for folder in cache.glob(".part-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > days * 86400:
                shutil.rmtree(folder)


def _unavailable(name: str, entry: dict[str, Any], fault: str) -> DatasetError:
    words = f"the data set {name!r} ({entry['what']}) {fault}; "
    if "url" not in entry:
        words += f"get it yourself from {entry['page']} and "
    else:
        words += "try again later, or "
    words += f"lay it under $GLASSBOX_DATA as {entry['path']}"
    if "stand_in" in entry:
        words += f"; dataset({entry['stand_in']!r}) serves instead"
    return DatasetError(f"{words}.")


class _Bar:
    """The progress bar of one download, in the form that pooch asks for; stops a server that sends without end."""

    def __init__(self, name: str, size: int) -> None:
        from tqdm import tqdm

        notebook = "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None
        # Where outputs are stored, TQDM_DISABLE=1 in the environment silences the bar of a notebook too.
        silent: dict[str, Any] = {} if notebook or sys.stderr.isatty() else {"disable": True}
        self.received, self.total = 0, size
        self.limit = 16 * size + 2**20  # generous: pooch counts a short chunk as a full one
        self._bar = tqdm(total=size, desc=name, unit="B", unit_scale=True, leave=False, **silent)

    def update(self, count: int) -> None:
        self.received += count
        if self.received > self.limit:
            raise ValueError(f"more than {self.limit} bytes came")
        self._bar.update(count)

    def reset(self) -> None:
        """pooch rounds the bar to its end after a download: nothing is left to do here."""
        self.received = 0

    def close(self) -> None:
        self._bar.close()
