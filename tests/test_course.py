"""course.py executes notebooks as the course wants it, and both it and nbval answer a dead kernel within seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import course
import nbformat
import pytest

HERE = Path(__file__).resolve().parent


def write(path: Path, *cells: str | tuple[str, list[str]]) -> Path:
    """A notebook of code cells; a cell is its source, or (source, tags)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = []
    for i, cell in enumerate(cells):
        source, tags = cell if isinstance(cell, tuple) else (cell, [])
        made.append(nbformat.v4.new_code_cell(source, id=f"cell-{i}", metadata={"tags": tags} if tags else {}))
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


def stored(path: Path) -> list[str]:
    """What each code cell's outputs say."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join("".join(out.get("text", "")) for out in cell["outputs"]) for cell in notebook["cells"]]


CELLS = (
    "import time\nfor word in ('one', 'two'):\n    print(word, flush=True)\n    time.sleep(0.05)",
    ("print(time.time())", ["measured"]),
    "1 + 1",
    "assert 1 == 1\nassert 2 == 2",
    ("print('○ softmax: not attempted yet')", ["exercise"]),
)


def test_notebooks_are_stored_byte_stable(tmp_path: Path) -> None:
    path = write(tmp_path / "00_a" / "a.ipynb", *CELLS)
    result, changed = course.renew(path)
    assert changed
    assert (result.fault, result.cells, result.checks, result.exercises) == ("", 5, 2, 1)
    first = path.read_bytes()
    result, changed = course.renew(path)
    assert not changed
    assert path.read_bytes() == first
    notebook = json.loads(first)
    assert notebook["metadata"] == course.METADATA
    assert [cell["execution_count"] for cell in notebook["cells"]] == [1, 2, 3, 4, 5]
    assert set().union(*(cell["metadata"] for cell in notebook["cells"])) == {"tags"}, "no time stamps"
    assert len(notebook["cells"][0]["outputs"]) == 1, "one stream, however it was flushed"


def test_measured_cells_change_with_measure_only(tmp_path: Path) -> None:
    path = write(tmp_path / "00_a" / "a.ipynb", "import time", ("print(time.time())", ["measured"]), "print(7)")
    course.renew(path)
    before = stored(path)
    course.renew(path)
    assert stored(path) == before
    course.renew(path, measure=True)
    assert stored(path)[1] != before[1]


def test_optional_data_cells_keep_their_outputs_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        tmp_path / "00_a" / "a.ipynb", ("import os; print(os.environ.get('GLASSBOX_DATA'))", ["optional-data"])
    )
    monkeypatch.setenv("GLASSBOX_DATA", str(tmp_path))
    course.renew(path)
    assert stored(path) == [f"{tmp_path}\n"]
    monkeypatch.delenv("GLASSBOX_DATA")
    course.renew(path)
    assert stored(path) == [f"{tmp_path}\n"]


def test_a_failing_notebook_is_left_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "00_a" / "a.ipynb", "x = 1", "raise ValueError('three is not two')", "x")
    before = path.read_bytes()
    result, changed = course.renew(path)
    assert result.fault == "cell 2 raised ValueError: three is not two"
    assert not changed
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == [path], "nothing is left beside it"


def test_a_slow_cell_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "00_a" / "a.ipynb", "import time", "time.sleep(60)")
    assert course.run_one(path, cell_seconds=1).fault == "cell 2 ran longer than 1 s"


DEATH = ("x = 1", "import os; os._exit(9)", "x", "x + 1")


def test_a_dead_kernel_is_named_within_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "00_a" / "a.ipynb", *DEATH)
    write(tmp_path / "01_b" / "b.ipynb", "assert True")
    assert course.run([], tmp_path) == 1  # a wait would end as "ran longer than 300 s"
    out = capsys.readouterr().out
    assert "FAILED 00_a/a.ipynb: the kernel died in cell 2" in out
    assert out.count("FAILED") == 1
    lines = [line.split() for line in out.splitlines()]
    assert ["notebook", "seconds", "cells", "checks", "exercises"] in lines
    assert ["01_b/b.ipynb", "1", "1", "0"] in [line[:1] + line[2:] for line in lines], "the others still run"


def nbval(folder: Path, *notebooks: Path) -> str:
    """Run pytest over notebooks as `python start.py test` does: with the course's conftest.py and nbval."""
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "conftest.py").write_bytes((HERE / "conftest.py").read_bytes())
    (folder / "tests" / "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "--nbval-lax", "tests"]
    command += ["--nbval-cell-timeout=300", "--nbval-sanitize-with", str(HERE / "nbval_sanitize.cfg")]
    env = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "GLASSBOX_REQUIRE")}
    done = subprocess.run(
        [*command, *map(str, notebooks)],
        cwd=folder,
        env=env,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=200,  # less than the cell's 300 s: nbval alone would wait for those
    )
    return done.stdout + done.stderr


def test_nbval_answers_a_dead_kernel_within_seconds_and_once(tmp_path: Path) -> None:
    out = nbval(tmp_path, write(tmp_path / "00_a" / "a.ipynb", *DEATH))
    assert "the notebook's kernel died in this cell" in out
    assert "1 failed, 2 passed, 2 skipped" in out, out


def test_nbval_compares_marked_cells_and_spares_times(tmp_path: Path) -> None:
    cells = (
        "# NBVAL_CHECK_OUTPUT\nimport time\nprint(f'{time.time() % 10:.6f} s')",
        "# NBVAL_CHECK_OUTPUT\nprint(41)",
        "print(5)",
    )
    path = write(tmp_path / "00_a" / "a.ipynb", *cells)
    course.renew(path)
    assert "4 passed" in nbval(tmp_path, path)
    path.write_text(
        path.read_text(encoding="utf-8").replace("41\\n", "42\\n").replace('"5\\n', '"6\\n'), encoding="utf-8"
    )
    out = nbval(tmp_path, path)
    assert "1 failed, 3 passed" in out, "the marked cell is compared, the unmarked one is not"


# --- conftest.py ------------------------------------------------------------------------------------------------------


def guarded(folder: Path, test: str, **settings: str) -> str:
    (folder / "conftest.py").write_bytes((HERE / "conftest.py").read_bytes())
    (folder / "test_planted.py").write_text(test, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GLASSBOX_", "PYTEST_"))}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **settings}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, encoding="utf-8", check=False)
    return done.stdout + done.stderr


WANTS_DATA = "def test_planted(data_dir):\n    assert data_dir.is_dir()\n"


def test_absent_data_skips_and_says_so(tmp_path: Path) -> None:
    out = guarded(tmp_path, WANTS_DATA)
    assert "1 skipped" in out
    assert "GLASSBOX_DATA is not set" in out


@pytest.mark.parametrize(("name", "fixture"), [("data", "data_dir"), ("browser", "browser")])
def test_a_required_thing_that_is_missing_fails(tmp_path: Path, name: str, fixture: str) -> None:
    test = f"def test_planted({fixture}):\n    pass\n"
    out = guarded(tmp_path, test, GLASSBOX_REQUIRE="browser,data", GLASSBOX_DATA=str(tmp_path / "gone"), PATH="")
    assert "1 error" in out, out
    assert f"GLASSBOX_REQUIRE names '{name}'" in out
    assert "1 skipped" in guarded(tmp_path, test, PATH="")


def test_present_data_is_found(tmp_path: Path) -> None:
    assert "1 passed" in guarded(tmp_path, WANTS_DATA, GLASSBOX_DATA=str(tmp_path), GLASSBOX_REQUIRE="data")


def test_an_unknown_requirement_is_refused(tmp_path: Path) -> None:
    assert "known are browser, data" in guarded(tmp_path, WANTS_DATA, GLASSBOX_REQUIRE="dta")


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org", "2001:db8::1"])
def test_tests_reach_this_machine_only(tmp_path: Path, host: str) -> None:
    family = "AF_INET6" if ":" in host else "AF_INET"
    out = guarded(
        tmp_path,
        "import socket\n\ndef test_planted():\n"
        f"    socket.socket(socket.{family}, socket.SOCK_STREAM).connect(({host!r}, 80))\n",
    )
    assert f"a test may only talk to this machine, not to ({host!r}, 80)" in out


def test_loopback_is_open() -> None:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname(), timeout=5):
            pass


# --- progress ---------------------------------------------------------------------------------------------------------


def answered(text: str) -> dict[str, Any]:
    outputs = [{"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}] if text else []
    return {
        "cell_type": "code",
        "id": "x",
        "execution_count": 1,
        "metadata": {"tags": ["exercise"]},
        "outputs": outputs,
        "source": ["def relu(x):\n", "    ...\n", "relu = check(relu, exercises.relu)"],
    }


def test_progress_reads_what_the_checks_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [
        answered("✓ softmax: right on all 5 cases. From here on the notebook uses yours.\n"),
        answered("✗ backward: the shape differs\n"),
        answered("○ momentum: not attempted yet, the course's own goes on. Hint: ...\n"),
        answered(""),
    ]
    path = tmp_path / "my" / "00_a" / "a.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    (tmp_path / "my" / "01_b").mkdir()
    (tmp_path / "my" / "01_b" / "b.ipynb").write_text("{half a", encoding="utf-8")
    assert course.progress([], tmp_path) == 0
    out = capsys.readouterr().out
    assert "00_a  1 of 4  ✓ softmax  ✗ backward  ○ momentum  · relu" in out
    assert "01_b  ?       the notebook cannot be read" in out
    assert "1 of 4 exercises are solved" in out


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path / "00_a" / "a.ipynb", "1")
    with pytest.raises(SystemExit, match=r"there are: 00_a/a\.ipynb"):
        course.run(["07"], tmp_path)
