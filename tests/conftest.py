"""What every test of the course shares: one thread, no screen, no network, real data only where it is there.

GLASSBOX_DATA names a folder of real data; tests that want it take the fixture `data_dir`.
GLASSBOX_REQUIRE names, with commas, what must be there (browser, data): then its absence fails instead of skipping.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: parallel workers must not fight for cores
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.pop("MPLBACKEND", None)  # kernels choose theirs; for the tests themselves see _no_screen

import pytest

KNOWN = ("browser", "data")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")


def required() -> set[str]:
    return {name.strip() for name in os.environ.get("GLASSBOX_REQUIRE", "").split(",") if name.strip()}


def missing(name: str, reason: str) -> NoReturn:
    """Skip, or fail where GLASSBOX_REQUIRE names the thing."""
    if name in required():
        pytest.fail(f"GLASSBOX_REQUIRE names {name!r}, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that $GLASSBOX_DATA names; its absence is reported as a skip."""
    value = os.environ.get("GLASSBOX_DATA")
    if not value:
        missing("data", "GLASSBOX_DATA is not set: no real data to test with")
    path = Path(value)
    if not path.is_dir():
        missing("data", f"GLASSBOX_DATA={value} is no folder")
    return path.resolve()


@pytest.fixture(scope="session")
def browser() -> str:
    """The path of a Chromium for tests of pages."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    missing("browser", f"no browser was found (looked for {', '.join(BROWSERS)})")


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn in memory. Set per test, because the notebooks' kernels inherit what stands longer."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    if "matplotlib" in sys.modules:
        sys.modules["matplotlib"].use("Agg")


class NetworkUseError(RuntimeError):
    """A test tried to reach another machine."""


def on_this_machine(address: Any) -> bool:
    if not isinstance(address, tuple):  # the path of a Unix socket
        return True
    host = address[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests talk to loopback only; anything else fails at once, and not after a time-out somewhere else."""

    def guarded(name: str) -> Any:
        original = getattr(socket.socket, name)

        def connect(self: socket.socket, address: Any) -> Any:
            if not on_this_machine(address):
                raise NetworkUseError(f"a test may only talk to this machine, not to {address!r}")
            return original(self, address)

        return connect

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(name))


def guard_kernels() -> None:
    """A dead kernel fails its cell within seconds and skips the rest; nbval alone waits for the cell's time limit."""
    from queue import Empty

    from nbval.kernel import RunningKernel
    from nbval.plugin import IPyNbCell

    if getattr(RunningKernel, "glassbox_guarded", False):
        return
    get_message, runtest = RunningKernel.get_message, IPyNbCell.runtest

    def patient(self: Any, stream: str, timeout: float | None = None) -> Any:
        waited = 0.0
        while True:
            share = 1.0 if timeout is None else min(1.0, timeout - waited)
            try:
                return get_message(self, stream, timeout=share)
            except Empty:
                waited += share
                if not self.is_alive():
                    raise KernelDiedError(
                        "the notebook's kernel died in this cell (out of memory, or a crash in native code)"
                    ) from None
                if timeout is not None and waited >= timeout:
                    raise

    def once(self: Any) -> None:
        if getattr(self.parent, "glassbox_died", False):
            pytest.skip("the kernel died in an earlier cell of this notebook")
        try:
            runtest(self)
        except KernelDiedError:
            self.parent.glassbox_died = True
            raise

    RunningKernel.get_message, IPyNbCell.runtest = patient, once
    RunningKernel.glassbox_guarded = True  # type: ignore[attr-defined]


class KernelDiedError(RuntimeError):
    """The process behind a notebook is gone."""


def pytest_configure(config: pytest.Config) -> None:
    unknown = required() - set(KNOWN)
    if unknown:
        raise pytest.UsageError(f"GLASSBOX_REQUIRE names {sorted(unknown)}; known are {', '.join(KNOWN)}")
    if config.pluginmanager.hasplugin("nbval"):
        guard_kernels()


def pytest_report_header() -> list[str]:
    data = os.environ.get("GLASSBOX_DATA") or "not set (tests that want real data say so and are skipped)"
    return [f"GLASSBOX_DATA: {data}", f"GLASSBOX_REQUIRE: {', '.join(sorted(required())) or 'nothing'}"]
