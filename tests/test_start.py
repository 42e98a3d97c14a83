"""start.py: what it does on a good machine, and the one sentence that it says on each kind of bad one.

Nothing here uses the network. Most tests replace `start.sh`, through which every installing command goes; two run the
real program: one sets up a small course with plain pip and no index, one finds a closed port where the index should be.
"""

from __future__ import annotations

import ast
import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[1]
NOTEBOOK = {
    "cells": [
        {
            "cell_type": "markdown",
            "id": "a",
            "metadata": {},
            "source": [
                "![net](net.svg) and [the README](README.md), [next](../01_b/b.ipynb), [web](https://example.org/x)"
            ],
        }
    ],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}


class Installer:
    """Stands in for `start.sh`: makes the venv as files, and answers each installing command as planted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.answers: dict[str, tuple[int, str]] = {}
        self.uv_can_be_installed = True
        self.pip_config = ""

    def kind(self, command: list[str]) -> str:
        words = " ".join(command)
        if "-m venv" in words:
            return "venv"
        if "pip config list" in words:
            return "config"
        if command[0].endswith(("uv", "uv.exe")):
            return "uv cpu" if "--torch-backend=cpu" in words else "uv"
        if "-m pip install" in words:
            return "pip uv" if command[-1] == "uv" else "pip"
        if "import matplotlib" in words:
            return "import"
        return "question" if "sys.version_info" in words else "other"

    def __call__(self, command: list[str], env: dict[str, str] | None = None, show: bool = True) -> tuple[int, str]:
        kind = self.kind(command)
        self.commands.append(command)
        self.environments.append(env or {})
        if kind in self.answers:
            return self.answers[kind]
        if kind == "question":
            return 0, "{} {} {} True\n".format(*sys.version_info[:3])
        if kind == "config":
            return 0, self.pip_config
        binaries = self.root / ".venv" / ("Scripts" if os.name == "nt" else "bin")
        suffix = ".exe" if os.name == "nt" else ""
        if kind == "venv":
            binaries.mkdir(parents=True, exist_ok=True)
            (binaries / f"python{suffix}").write_text("a Python", encoding="utf-8")
        if kind == "pip uv" and self.uv_can_be_installed:
            (binaries / f"uv{suffix}").write_text("a uv", encoding="utf-8")
        return 0, ""

    @property
    def kinds(self) -> list[str]:
        return [self.kind(command) for command in self.commands]

    @property
    def installs(self) -> list[str]:
        return [kind for kind in self.kinds if kind in ("venv", "pip uv", "uv", "uv cpu", "pip")]


def checkout(folder: Path) -> Path:
    """A small course: the real start.py and pyproject.toml, and one module."""
    folder.mkdir(parents=True)
    for name in ("start.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(SOURCE / name, folder / name)
    (folder / "00_a" / "glassbox").mkdir(parents=True)
    (folder / "00_a" / "a.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    (folder / "00_a" / "net.svg").write_text("<svg/>", encoding="utf-8")
    (folder / "00_a" / "unused.svg").write_text("<svg/>", encoding="utf-8")
    (folder / "00_a" / "README.md").write_text("# A\n", encoding="utf-8")
    return folder


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("start_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return checkout(tmp_path / "Glass Böx 1")


@pytest.fixture
def start(course: Path) -> Any:
    return load(course / "start.py")


@pytest.fixture
def installer(start: Any, course: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    """A machine with a fit Python, no NVIDIA driver, no pip settings, enough disk, and a planted installer."""
    fake = Installer(course)
    calls: list[list[str]] = []
    monkeypatch.setattr(start, "sh", fake)
    monkeypatch.setattr(start, "call", lambda command, env=None: calls.append(command) or 0)
    monkeypatch.setattr(start, "calls", calls, raising=False)
    monkeypatch.setattr(start, "nvidia_driver", lambda: False)
    monkeypatch.setattr(start, "probe", lambda command: (command[0], None))
    monkeypatch.setattr(start.platform, "system", lambda: "Linux")
    monkeypatch.setattr(start.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**12))  # type: ignore[attr-defined]
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_", "GLASSBOX_")):
            monkeypatch.delenv(name)
    return fake


def fails_with_one_sentence(start: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert start.main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("start.py: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


# --- the good case ----------------------------------------------------------------------------------------------------


def test_first_call_sets_up_and_opens_the_first_notebook(start: Any, course: Path, installer: Installer) -> None:
    assert start.main([]) == 0
    assert installer.installs == ["venv", "pip uv", "uv cpu"]
    install = installer.commands[installer.kinds.index("uv cpu")]
    assert install[-4:] == ["-c", "constraints.txt", "-e", ".[lab]"]
    (command,) = start.calls
    assert command[1:4] == ["-m", "jupyterlab", "my/00_a/a.ipynb"]
    assert "--no-browser" not in command
    assert json.loads((course / ".venv" / start.STAMP).read_text(encoding="utf-8"))["extras"] == ["lab"]
    assert not (course / ".venv" / start.MARKER).exists()


def test_second_call_starts_at_once(start: Any, installer: Installer) -> None:
    start.main([])
    installer.commands.clear()
    assert start.main([]) == 0
    assert installer.kinds == ["question"]  # one question to the venv's Python, nothing else


def test_another_verb_adds_its_extra_and_keeps_the_first(start: Any, installer: Installer) -> None:
    start.main([])
    installer.commands.clear()
    assert start.main(["test"]) == 0
    assert installer.installs == ["uv cpu"]
    assert installer.commands[installer.kinds.index("uv cpu")][-1] == ".[dev,lab]"
    installer.commands.clear()
    start.main([])
    assert installer.installs == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_file_is_installed(start: Any, course: Path, installer: Installer, name: str) -> None:
    start.main([])
    installer.commands.clear()
    with (course / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    start.main([])
    assert installer.installs == ["uv cpu"]


def test_no_browser(start: Any, installer: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start.main(["--no-browser", "--port=9999"]) == 0
    assert {"--no-browser", "--port=9999"} <= set(start.calls[-1])
    monkeypatch.setenv("GLASSBOX_NO_BROWSER", "1")
    start.main([])
    assert "--no-browser" in start.calls[-1]


def test_test_is_one_pytest_run_over_tests_and_notebooks(start: Any, installer: Installer) -> None:
    start.main(["test", "-x"])
    (command,) = start.calls
    assert command[1:3] == ["-m", "pytest"]
    assert command[-3:] == ["-x", "tests", "00_a/a.ipynb"]
    assert {"--nbval-lax", "--nbval-cell-timeout=300", "loadfile"} <= set(command)
    start.main(["test", "tests/test_lab.py::test_x", "-k", "data"])
    assert start.calls[-1][-3:] == ["tests/test_lab.py::test_x", "-k", "data"]
    start.main(["test", "-k", "tests_or_data"])
    assert start.calls[-1][-2:] == ["tests", "00_a/a.ipynb"]


# --- the installer ----------------------------------------------------------------------------------------------------


def test_settings_of_pip_are_handed_to_uv(start: Any, course: Path, installer: Installer) -> None:
    installer.pip_config = (
        ":env:.find-links='wheels more'\nglobal.extra-index-url='\\nfile:///a\\nfile:///b'\n"
        "global.find-links='weaker'\nglobal.index-url='https://mirror.example/simple'\n"
    )
    start.main([])
    env = installer.environments[installer.kinds.index("uv")]
    assert env["UV_FIND_LINKS"] == "wheels,more"
    assert env["UV_EXTRA_INDEX_URL"] == "file:///a file:///b"
    assert env["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert "uv cpu" not in installer.kinds, "with a folder of wheels, the exact pin selects the build"


def test_own_settings_of_uv_win(start: Any, installer: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    installer.pip_config = "global.find-links='weaker'\n"
    monkeypatch.setenv("UV_FIND_LINKS", "mine")
    start.main([])
    assert installer.environments[installer.kinds.index("uv")]["UV_FIND_LINKS"] == "mine"


def test_small_torch_first_and_then_the_usual_one_with_its_size(
    start: Any, installer: Installer, capsys: pytest.CaptureFixture[str]
) -> None:
    installer.answers["uv cpu"] = (1, "error: something about an index")
    assert start.main([]) == 0
    assert installer.installs == ["venv", "pip uv", "uv cpu", "uv"]
    assert "about 3 GB" in capsys.readouterr().out


@pytest.mark.parametrize("system", ["Linux with a driver", "Darwin", "Windows"])
def test_small_torch_is_asked_for_on_linux_without_driver_only(
    start: Any, installer: Installer, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr(start, "nvidia_driver", lambda: "driver" in system)
    monkeypatch.setattr(start.platform, "system", lambda: system.split()[0])
    start.main([])
    assert installer.installs == ["venv", "pip uv", "uv"]


def test_plain_pip_where_uv_cannot_be_had(start: Any, installer: Installer) -> None:
    installer.uv_can_be_installed = False
    assert start.main([]) == 0
    assert installer.installs == ["venv", "pip uv", "pip"]


def test_plain_pip_where_uv_fails(start: Any, installer: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    installer.answers.update({"uv": (2, "uv is confused"), "uv cpu": (2, "uv is confused")})
    assert start.main([]) == 0
    assert installer.installs == ["venv", "pip uv", "uv cpu", "uv", "pip"]
    assert "trying plain pip" in capsys.readouterr().out


# --- faults -----------------------------------------------------------------------------------------------------------

NO_NETWORK = (
    "Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...: Failed to establish a new connection"
    ": [Errno -3] Temporary failure in name resolution')'\nERROR: No matching distribution found for uv"
)


def test_no_network(start: Any, course: Path, installer: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    installer.answers["pip uv"] = (1, NO_NETWORK)
    assert "check the network" in fails_with_one_sentence(start, [], capsys)
    assert installer.installs == ["venv", "pip uv"]
    del installer.answers["pip uv"]  # the network is back: the same command goes on
    installer.commands.clear()
    assert start.main([]) == 0
    assert installer.installs == ["pip uv", "uv cpu"]


def test_network_lost_after_uv(start: Any, installer: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    lost = (1, "error: Failed to fetch: `https://.../torch/`\n  Caused by: dns error")
    installer.answers.update({"uv": lost, "uv cpu": lost, "pip": (1, NO_NETWORK)})
    assert "check the network" in fails_with_one_sentence(start, [], capsys)


@pytest.mark.parametrize("step", ["venv", "pip uv", "uv cpu", "pip"])
def test_full_disk(start: Any, installer: Installer, capsys: pytest.CaptureFixture[str], step: str) -> None:
    installer.answers[step] = (1, "OSError: [Errno 28] No space left on device")
    installer.uv_can_be_installed = step != "pip"
    assert "The disk is full: free about 2.5 GB" in fails_with_one_sentence(start, [], capsys)


def test_too_little_disk_is_said_before_anything_is_made(
    start: Any, course: Path, installer: Installer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    little = shutil._ntuple_diskusage(10**12, 10**12, 3 * 10**8)  # type: ignore[attr-defined]
    monkeypatch.setattr(start.shutil, "disk_usage", lambda path: little)
    assert "Only 0.3 GB are free and the set-up needs about 2.5 GB" in fails_with_one_sentence(start, [], capsys)
    assert not (course / ".venv").exists()
    assert installer.commands == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_read_only_folder(
    start: Any,
    course: Path,
    installer: Installer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number), str(course))

    monkeypatch.setattr(start.tempfile, "TemporaryFile", refused)  # root may write anywhere, so this is planted
    message = fails_with_one_sentence(start, [], capsys)
    assert str(course) in message
    assert "copy the course to a folder of your own" in message
    assert not (course / ".venv").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere; the planted test covers it")
def test_read_only_folder_for_real(
    start: Any, course: Path, installer: Installer, capsys: pytest.CaptureFixture[str]
) -> None:
    course.chmod(0o555)
    try:
        assert "copy the course to a folder of your own" in fails_with_one_sentence(start, [], capsys)
    finally:
        course.chmod(0o755)


def test_a_ready_course_needs_no_writable_folder(
    start: Any, installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.main([])

    def refused(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(start.tempfile, "TemporaryFile", refused)
    assert start.main([]) == 0


@pytest.mark.parametrize("fault", ["python is gone", "python does not run", "unfit python", "no pip", "moved"])
def test_broken_venv_is_built_anew(start: Any, course: Path, installer: Installer, fault: str) -> None:
    start.main([])
    (course / ".venv" / "old").touch()
    python = start.python_of(course / ".venv")
    answers = {"python does not run": (1, ""), "unfit python": (0, "3 8 18 True"), "no pip": (0, "3 12 1 False")}
    if fault == "python is gone":
        python.unlink()
    elif fault == "moved":
        stamp = course / ".venv" / start.STAMP
        stamp.write_text(json.dumps({**json.loads(stamp.read_text(encoding="utf-8")), "root": "/elsewhere", "key": ""}))
    else:
        planted = iter([answers[fault]])
        plain = type(installer).__call__

        def once(command: list[str], env: Any = None, show: bool = True) -> tuple[int, str]:
            if installer.kind(command) == "question":
                answer = next(planted, None)
                if answer is not None:
                    return answer
            return plain(installer, command, env, show)

        start.sh = once
    installer.commands.clear()
    assert start.main([]) == 0
    assert installer.installs == ["venv", "pip uv", "uv cpu"]
    assert not (course / ".venv" / "old").exists()


@pytest.mark.parametrize("during", ["venv", "pip uv", "uv cpu", "import"])
def test_interrupted_install_is_repaired(
    start: Any, course: Path, installer: Installer, capsys: pytest.CaptureFixture[str], during: str
) -> None:
    plain = type(installer).__call__

    def interrupted(command: list[str], env: Any = None, show: bool = True) -> tuple[int, str]:
        if installer.kind(command) == during:
            raise KeyboardInterrupt
        return plain(installer, command, env, show)

    start.sh = interrupted
    assert start.main([]) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert not (course / ".venv" / start.STAMP).exists(), "the stamp is written last"
    (course / ".venv" / "half-written").touch()
    start.sh = installer
    installer.commands.clear()
    assert start.main([]) == 0
    assert installer.installs == ["venv", "pip uv", "uv cpu"]
    assert not (course / ".venv" / "half-written").exists()


def test_an_upgrade_that_is_interrupted_leaves_no_stamp(start: Any, course: Path, installer: Installer) -> None:
    start.main([])

    def interrupted(command: list[str], env: Any = None, show: bool = True) -> tuple[int, str]:
        if installer.kind(command) == "uv cpu":
            raise KeyboardInterrupt
        return installer(command, env, show)

    start.sh = interrupted
    assert start.main(["test"]) == 130
    assert not (course / ".venv" / start.STAMP).exists()


def test_two_set_ups_at_once(
    start: Any, course: Path, installer: Installer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second one neither waits for ever nor removes what the first one is making."""
    with start.only_one():
        assert "Another `python start.py`" in fails_with_one_sentence(load(course / "start.py"), [], capsys)
    assert not (course / ".venv").exists()
    assert start.main([]) == 0


def test_packages_that_do_not_import(
    start: Any, course: Path, installer: Installer, capsys: pytest.CaptureFixture[str]
) -> None:
    installer.answers["import"] = (1, "Traceback ...\nOSError: DLL load failed")
    message = fails_with_one_sentence(start, [], capsys)
    assert "OSError: DLL load failed" in message
    assert "start.py clean" in message
    assert not (course / ".venv" / start.STAMP).exists()


@pytest.mark.parametrize("found", ["glassbox-0.0.7.dist-info", "glassbox/__init__.py"])
def test_a_foreign_glassbox_is_named(
    start: Any, course: Path, installer: Installer, capsys: pytest.CaptureFixture[str], found: str
) -> None:
    start.main([])
    site = course / ".venv" / ("Lib/site-packages" if os.name == "nt" else "lib/python3.12/site-packages")
    (site / "glassbox_course-0.1.0.dist-info").mkdir(parents=True)
    assert start.main([]) == 0, "the course's own distribution is no stranger"
    (site / found).parent.mkdir(parents=True, exist_ok=True)
    (site / found).touch()
    message = fails_with_one_sentence(start, [], capsys)
    assert "Another project's `glassbox`" in message
    assert found in message
    assert "start.py clean" in message


def test_unknown_verb_and_argument(start: Any, installer: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the verbs are test, run, notebooks" in fails_with_one_sentence(start, ["tset"], capsys)
    assert "'--prot=1'" in fails_with_one_sentence(start, ["--prot=1"], capsys)
    assert installer.commands == []


def test_chat_is_honest(start: Any, course: Path, installer: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no module that ships the chat page" in fails_with_one_sentence(start, ["chat"], capsys)
    (course / "00_a" / "glassbox" / "chat.py").touch()
    assert start.main(["chat"]) == 0
    assert start.calls[-1][1:] == ["-m", "glassbox.chat"]


# --- which Python -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([(3, 9, 18), True, "x86_64", True], "it is Python 3.9.18 and the course needs Python 3.11 to 3.14"),
        ([(3, 15, 0), True, "x86_64", True], "it is Python 3.15.0"),
        ([(3, 12, 1), False, "x86", True], "32-bit"),
        ([(3, 12, 1), True, "x86_64", False], "python3-venv"),
        ([(3, 11, 0), True, "x86_64", True], None),
        ([(3, 14, 9), True, "arm64", True], None),
    ],
)
def test_what_is_fit(start: Any, monkeypatch: pytest.MonkeyPatch, answer: list[Any], reason: str | None) -> None:
    monkeypatch.setattr(start.platform, "system", lambda: "Linux")
    found = start.unfit(*answer)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


def test_intel_macs_are_told(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start.platform, "system", lambda: "Darwin")
    assert "Intel Macs" in start.unfit((3, 12, 0), True, "x86_64", True)
    assert start.unfit((3, 12, 0), True, "arm64", True) is None


def unfit_here(start: Any, monkeypatch: pytest.MonkeyPatch, others: dict[str, str | None]) -> None:
    """The Python that runs start.py is too old; the machine has the others (name -> fault)."""

    def probe(command: list[str]) -> tuple[str, str | None]:
        if command[0] == sys.executable or command[0] == start.own_python():
            return command[0], "it is Python 3.9.18 and the course needs Python 3.11 to 3.14"
        return "/usr/bin/" + command[0], others.get(command[0], "it does not run")

    monkeypatch.setattr(start, "probe", probe)
    monkeypatch.setattr(start.shutil, "which", lambda name: f"/usr/bin/{name}" if name in others else None)


def test_an_unfit_python_looks_for_a_fit_one(start: Any, installer: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    unfit_here(start, monkeypatch, {"python3.12": "it does not run", "python3.13": None, "python3": None})
    assert start.main([]) == 0
    assert installer.commands[installer.kinds.index("venv")][0] == "/usr/bin/python3.13"


def test_an_unfit_python_lets_uv_fetch_one(start: Any, installer: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    unfit_here(start, monkeypatch, {"uv": "no Python", "/fetched/python3.12": None})
    installer.answers["uv"] = (0, "/fetched/python3.12\n")
    monkeypatch.setattr(start, "install", lambda extras: None)
    assert start.main([]) == 0
    assert ["/usr/bin/uv", "python", "install", "3.12"] in installer.commands
    assert installer.commands[installer.kinds.index("venv")][0] == "/fetched/python3.12"


def test_an_unfit_python_says_which_to_install(
    start: Any, course: Path, installer: Installer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unfit_here(start, monkeypatch, {})
    installer.answers["venv"] = (1, "this old Python has no venv")
    message = fails_with_one_sentence(start, [], capsys)
    assert "it is Python 3.9.18" in message
    assert "install Python 3.12" in message
    assert not (course / ".venv").exists()


def test_an_old_python_can_read_the_file() -> None:
    ast.parse((SOURCE / "start.py").read_text(encoding="utf-8"), feature_version=(3, 8))


def test_versions_agree_with_pyproject(start: Any) -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    low, high = (".".join(map(str, version)) for version in start.PYTHONS)
    assert project["requires-python"] == f">={low},<{high}"
    assert start.declared_extras() == set(project["optional-dependencies"])
    constraints = (SOURCE / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(rf"^torch=={re.escape(start.TORCH)}$", constraints, re.MULTILINE)


# --- working copies ---------------------------------------------------------------------------------------------------


def test_working_copies_carry_their_pictures_and_lead_back(start: Any, course: Path) -> None:
    start.working_copies()
    copy = course / "my" / "00_a"
    assert sorted(path.name for path in copy.iterdir()) == ["a.ipynb", "net.svg"]
    text = (copy / "a.ipynb").read_text(encoding="utf-8")
    json.loads(text)
    assert "](net.svg)" in text
    assert "](../../00_a/README.md)" in text
    assert (copy / "../../00_a/README.md").exists()
    assert "](../01_b/b.ipynb)" in text
    assert "](https://example.org/x)" in text


def test_working_copies_are_never_overwritten(start: Any, course: Path, installer: Installer) -> None:
    start.main([])
    copy = course / "my" / "00_a" / "a.ipynb"
    copy.write_text("my own work", encoding="utf-8")
    (copy.parent / "net.svg").write_text("my own picture", encoding="utf-8")
    (course / "00_a" / "a.ipynb").write_text(json.dumps(NOTEBOOK | {"metadata": {"new": 1}}), encoding="utf-8")
    (course / "01_b" / "glassbox").mkdir(parents=True)
    (course / "01_b" / "b.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    start.main([])
    assert copy.read_text(encoding="utf-8") == "my own work"
    assert (copy.parent / "net.svg").read_text(encoding="utf-8") == "my own picture"
    assert (course / "my" / "01_b" / "b.ipynb").exists(), "a module that came later gets its copy"
    assert "my own" not in (course / "00_a" / "a.ipynb").read_text(encoding="utf-8")


def test_clean_keeps_the_readers_work(start: Any, course: Path, installer: Installer) -> None:
    start.main([])
    (course / "00_a" / "__pycache__").mkdir()
    (course / "my" / "00_a" / "__pycache__").mkdir()
    before = sorted(path for path in (course / "my").rglob("*"))
    assert start.main(["clean"]) == 0
    assert not (course / ".venv").exists()
    assert not (course / "00_a" / "__pycache__").exists()
    assert sorted(path for path in (course / "my").rglob("*")) == before


def test_progress_before_anything(start: Any, installer: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    assert "python start.py" in fails_with_one_sentence(start, ["progress"], capsys)
    assert installer.commands == []


# --- the real program -------------------------------------------------------------------------------------------------

BACKEND = '''
"""A build backend without dependencies: an editable wheel that puts 00_a on the path."""
import base64, hashlib, pathlib, zipfile

def build_editable(folder, settings=None, metadata=None):
    name, info = "glassbox_course-0.1.0-py3-none-any.whl", "glassbox_course-0.1.0.dist-info/"
    extras = "Provides-Extra: lab\\nProvides-Extra: dev\\n"
    files = {
        "glassbox_course.pth": str(pathlib.Path("00_a").resolve()) + "\\n",
        "torch.py": "", "numpy.py": "", "matplotlib.py": "",
        info + "METADATA": "Metadata-Version: 2.1\\nName: glassbox-course\\nVersion: 0.1.0\\n" + extras,
        info + "WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    record = "".join(f"{path},,\\n" for path in files) + info + "RECORD,,\\n"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for path, text in {**files, info + "RECORD": record}.items():
            wheel.writestr(path, text)
    return name
'''

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "glassbox-course"
version = "0.1.0"

[project.optional-dependencies]
lab = []
dev = []
"""


def real(course: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "GLASSBOX_"))}
    env |= {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "PYTHONUTF8": "1", **settings}
    command = [sys.executable, str(course / "start.py"), *arguments]
    return subprocess.run(
        command, env=env, cwd=tempfile.gettempdir(), capture_output=True, encoding="utf-8", timeout=300, check=False
    )


def test_from_nothing_for_real(course: Path) -> None:
    """A real venv, plain pip, no index, in a folder with a space and a letter that is not ASCII."""
    (course / "backend.py").write_text(BACKEND, encoding="utf-8")
    (course / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (course / "tests").mkdir()
    (course / "tests" / "course.py").write_text("import glassbox, sys\nprint('ran', sys.argv[1:])\n", encoding="utf-8")
    first = real(course, "run", "00", PIP_NO_INDEX="1")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "ran ['run', '00']" in first.stdout
    assert "trying plain pip" not in first.stderr
    second = real(course, "run", PIP_NO_INDEX="1")
    assert second.stdout.splitlines() == ["ran ['run']"], "the second call installs nothing and says nothing"


def test_no_network_for_real(course: Path) -> None:
    """The package index is a closed port of this machine."""
    done = real(course, "test", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")
    assert done.returncode == 1
    assert "check the network" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def old_pythons() -> list[str]:
    found = [shutil.which(name) for name in ("python3.8", "python3.9", "python3.10")]
    for version in ("3.8", "3.9", "3.10"):
        found += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    return [path for path in found if path and runs(path)]


def runs(path: str) -> bool:
    return subprocess.run([path, "-c", "pass"], capture_output=True, check=False).returncode == 0


def test_an_old_python_gets_a_sentence(course: Path) -> None:
    old = old_pythons()
    if not old:
        pytest.skip("no Python older than 3.11 is here; the file's syntax is checked by another test")
    done = subprocess.run(
        [old[0], str(course / "start.py"), "chat"], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("start.py: This checkout has no module that ships the chat page")


@pytest.mark.parametrize("arguments", [["clean", "--help"], ["run", "-h"], ["bench", "00", "--help"], ["help"]])
def test_help_anywhere_shows_the_page_and_does_nothing(
    start: Any, course: Path, installer: Installer, capsys: pytest.CaptureFixture, arguments: list[str]
) -> None:
    (course / ".venv").mkdir()
    assert start.main(arguments) == 0
    assert "usage: python start.py" in capsys.readouterr().out
    assert (course / ".venv").is_dir()
    assert start.calls == []


def test_clean_takes_no_arguments_and_then_removes_nothing(
    start: Any, course: Path, installer: Installer, capsys: pytest.CaptureFixture
) -> None:
    (course / ".venv").mkdir()
    assert start.main(["clean", "--dry-run"]) == 1
    assert "clean takes no arguments, got '--dry-run'; nothing was removed" in capsys.readouterr().err
    assert (course / ".venv").is_dir()
    shutil.rmtree(course / ".venv")
    (course / ".venv").write_text("a file in its place")
    assert start.main(["clean"]) == 0
    assert not (course / ".venv").exists()
