"""Style, typing and import order of the whole tree: one failing test a tool, with the tool's own words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def tool(module: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", errors="replace", check=False)


def assert_clean(done: subprocess.CompletedProcess[str], advice: str) -> None:
    if done.returncode:
        pytest.fail(f"{done.stdout}{done.stderr}\n{advice}", pytrace=False)


# --- ruff -------------------------------------------------------------------------------------------------------------


def test_ruff_finds_no_fault() -> None:
    assert_clean(tool("ruff", "check", "."), "`ruff check --fix` mends most of it.")


def test_ruff_would_format_nothing() -> None:
    assert_clean(tool("ruff", "format", "--check", "."), "`ruff format` does it.")


@pytest.mark.parametrize("name", ["planted.py", "planted.ipynb"])
def test_ruff_reads_scripts_and_notebooks(tmp_path: Path, name: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    code = "import os\nx = 'unused import and wrong quotes'\n"
    cell = {"cell_type": "code", "id": "a", "execution_count": None, "metadata": {}, "outputs": [], "source": code}
    notebook = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    (tmp_path / name).write_text(notebook if name.endswith("ipynb") else code, encoding="utf-8")
    assert "F401" in tool("ruff", "check", ".", cwd=tmp_path).stdout
    assert tool("ruff", "format", "--check", ".", cwd=tmp_path).returncode == 1


# --- imports run one way ----------------------------------------------------------------------------------------------


def folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("[0-9][0-9]_*") if (path / "glassbox").is_dir())


def layers(root: Path) -> str:
    """An import-linter contract: each numbered folder is a layer that may import the layers of earlier folders only."""
    modules = [" : ".join(f"glassbox.{m.stem}" for m in sorted((f / "glassbox").glob("*.py"))) for f in folders(root)]
    lines = ["[tool.importlinter]", 'root_packages = ["glassbox"]', "[[tool.importlinter.contracts]]"]
    lines += ['name = "a module imports earlier modules only"', 'type = "layers"']
    return "\n".join([*lines, f"layers = {json.dumps([m for m in reversed(modules) if m])}"]) + "\n"


LINT_IMPORTS = """
import sys
sys.path[:0] = sys.argv[2:]
from importlinter.cli import lint_imports
sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True))
"""


def lint_imports(root: Path, config: Path) -> subprocess.CompletedProcess[str]:
    config.write_text(layers(root), encoding="utf-8")
    command = [sys.executable, "-c", LINT_IMPORTS, str(config), *map(str, folders(root))]
    return subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", errors="replace", check=False)


def test_modules_import_earlier_ones_only(tmp_path: Path) -> None:
    assert_clean(lint_imports(ROOT, tmp_path / "imports.toml"), "Move what both need to the earlier module.")


def test_a_planted_later_import_is_found(tmp_path: Path) -> None:
    """A course of two folders in which the earlier one imports the later one, through a third module."""
    for path, text in {
        "00_early/glassbox/early_a.py": "from glassbox import early_b\n",
        "00_early/glassbox/early_b.py": "",
        "01_late/glassbox/late.py": "from glassbox import early_a\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    config = tmp_path / "imports.toml"
    kept = lint_imports(tmp_path, config)
    assert kept.returncode == 0, kept.stdout + kept.stderr
    (tmp_path / "00_early/glassbox/early_b.py").write_text("import glassbox.late\n", encoding="utf-8")
    broken = lint_imports(tmp_path, config)
    assert broken.returncode == 1
    assert "glassbox.early_b -> glassbox.late" in broken.stdout


# --- types ------------------------------------------------------------------------------------------------------------


def pyright(*paths: str, cwd: Path = ROOT) -> dict:
    done = tool("basedpyright", "--outputjson", "--pythonpath", sys.executable, *paths, cwd=cwd)
    try:
        return json.loads(done.stdout)
    except ValueError:
        pytest.fail(f"basedpyright gave no report: {done.stdout}{done.stderr}", pytrace=False)


def errors(report: dict) -> list[str]:
    return [
        f"{fault['file']}:{fault['range']['start']['line'] + 1}: {fault['message']}"
        for fault in report["generalDiagnostics"]
        if fault["severity"] == "error"
    ]


def test_types_hold_in_every_file() -> None:
    report = pyright()
    if errors(report):
        pytest.fail("\n".join(errors(report)), pytrace=False)
    expected = len([p for f in folders(ROOT) for p in (f / "glassbox").glob("*.py")])
    expected += len(list((ROOT / "tests").rglob("*.py"))) + 1  # start.py
    assert report["summary"]["filesAnalyzed"] == expected, "[tool.pyright] include does not reach every file"


def test_an_editor_resolves_the_course_and_sees_a_wrong_type(tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text(
        "from glassbox.lab import seed_everything\nseed: str = seed_everything(1)\n", encoding="utf-8"
    )
    found = errors(pyright("reader.py", cwd=tmp_path))
    assert len(found) == 1, found
    assert '"int" is not assignable to "str"' in found[0]
