"""The house rules: each holds for the real tree, passes a clean small course and finds what is planted in it."""

# ruff: noqa: E501 (a planted violation stands on one line, with what it must be called)

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import house
import pytest
from rules.generated import bootstrap, fix, module_table, rule_generated, rule_readme_map
from rules.mathematics import COMMANDS, emphasis_faults, math_pieces, rule_mathematics, tex_faults
from rules.notebook import rule_cells, rule_exercises, rule_opening, rule_outputs, rule_sections, rule_times
from rules.pages import github_anchors, rule_links, rule_machine_paths, rule_module_readme, rule_parts, rule_words
from rules.source import (
    bare,
    rule_helpers,
    rule_imports,
    rule_namespace,
    rule_no_redefinition,
    rule_one_source,
    rule_packaging,
)
from rules.tree import BOOTSTRAP_LINES, PLAN, modules, project_files, read_python

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: rule.__name__)
def test_the_course_keeps(rule: house.Rule) -> None:
    faults = rule(ROOT)
    if faults:
        pytest.fail(f"{rule.__doc__}\n" + "\n".join(f"  - {fault}" for fault in faults), pytrace=False)


# --- a small course that keeps every rule -----------------------------------------------------------------------------


def png(width: int) -> str:
    """A one-line picture, as a notebook stores it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, 1, 8, 0, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    picture += chunk(b"IDAT", zlib.compress(bytes(width + 1))) + chunk(b"IEND", b"")
    return base64.b64encode(picture).decode()


def text(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source.splitlines(keepends=True)}


def code(name: str, source: str, *tags: str, says: str = "", figure: int = 0) -> dict[str, Any]:
    outputs: list[dict[str, Any]] = []
    if says:
        outputs.append({"name": "stdout", "output_type": "stream", "text": [says + "\n"]})
    if figure:
        data = {"image/png": png(figure), "text/plain": ["<Figure size 600x300>"]}
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    cell = {"cell_type": "code", "execution_count": None, "id": name, "metadata": {"tags": list(tags)} if tags else {}}
    return {**cell, "outputs": outputs, "source": source.splitlines(keepends=True)}


def helper_code(name: str, task: str, before: str | None) -> str:
    call = f"{before}_one(x) - {before}_one(x) + " if before else ""
    return f"def {name}_{task}(x):\n    return {call}x * {len(task)}"


def notebook_cells(folder: str, before: str | None) -> list[dict[str, Any]]:
    number, name = folder[:2], folder[3:]
    opening = (
        f"# {number} · About {name}\n\n[Open in Colab]()\n\nWhat does {name} do to a number, and why does it matter?\n\n"
        "**You will build** three functions.\n\n**You need** nothing but numbers.\n\n**Minutes**: 30.\n\nMap:"
    )
    needs = f"from glassbox.{before} import {before}_one\n" if before else ""
    cells = [
        text("title", opening),
        code("bootstrap", ""),
        code("imports", f"from glassbox import {name}_exercises as exercises\n{needs}from glassbox.lab import check, seed_everything\n\n_ = seed_everything(1)"),
    ]  # fmt: skip
    prose = "Here we look at one number after the other."
    for index, task in enumerate(("one", "two", "three"), 1):
        own = f"{name}_{task}"
        definition = helper_code(name, task, before)
        section = f"## {index}. The number {task} · {'Depth' if index == 3 else 'Core'}\n\n{prose}\n\n"
        section += (
            f"The result is $x_{index} = {index} \\cdot x$, always.\n\n$$\n\\begin{{aligned}} a &= b \\\\ c &= d "
        )
        section += "\\end{aligned}\n$$\n\nSee [the opening](#" + f"{number}-·-About-{name})."
        stub = f'def {own}(x):\n    """Multiply."""\n    raise NotImplementedError\n\n\n{own} = check({own}, exercises.{task})'
        solution = f"<details><summary>Hint</summary>\n\nMultiply the number as often as needed.\n\n</details>\n\n<details><summary>Solution</summary>\n\n```python\n{definition}\n```\n\n</details>"  # fmt: skip
        cells += [
            text(f"section-{index}", section),
            code(f"look-{index}", f"# NBVAL_CHECK_OUTPUT\nassert {index} > 0\nprint({index})", says=str(index)),
            text(f"between-{index}", prose),
            code(f"again-{index}", f"# NBVAL_CHECK_OUTPUT\nprint({index}, {index})", says=f"{index} {index}"),
            text(f"exercise-{index}", f"### Exercise {index} ★ (5 min): multiply\n\nWrite it. {prose}"),
            code(f"stub-{index}", stub, "exercise", says=f"○ {own}: not attempted yet"),
            text(f"solution-{index}", solution),
        ]
    cells += [
        text("section-4", f"## 4. A picture · Core\n\n{prose}\n\n![a line that rises](line.svg)"),
        code("figure", "# NBVAL_CHECK_OUTPUT\nassert 1 < 2\nprint(1)", says="1", figure=600),
        text("see", f"The line rises from left to right. {prose}"),
        code("speed", "import time\n\nstart = time.perf_counter()\nprint(time.perf_counter() - start)", "measured", says="0.1"),
        text("oracle-title", f"## Check it against the real thing\n\n{prose}"),
        code("oracle", "# NBVAL_CHECK_OUTPUT\nassert 2 == 1 + 1\nprint(2)", says="2"),
        text(
            "recap",
            f"## Recap\n\n{prose}\n\n| name | file | who imports it next |\n|---|---|---|\n| `{name}_one` | {name}.py | all |\n\n"
            "**Questions to think about**: why?\n\n**Papers**: none.\n\n**Next**: the next.",
        ),
    ]  # fmt: skip
    return cells


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")


def small_course(root: Path, count: int = 3) -> Path:
    """Modules with README, notebook, helper, exercises and tests, in order, generated parts included."""
    folders = PLAN[:count]
    sources = ", ".join(f'"{f}" = ""' for f in folders)
    write(
        root / "pyproject.toml",
        '[project]\nname = "x"\ndependencies = ["numpy>=2", "torch>=2.6", "pooch"]\n'
        '[project.urls]\nRepository = "https://github.com/someone/course"\n'
        f"[tool.hatch.build]\ndev-mode-dirs = {json.dumps(folders)}\n"
        f"[tool.hatch.build.targets.wheel]\nsources = {{ {sources} }}\n"
        f"[tool.pyright]\nextraPaths = {json.dumps(folders)}\n",
    )
    write(
        root / "README.md", "# Course\n\nSee [the first](00_basics/README.md#pitfalls).\n\n<!-- modules:start -->\n<!-- modules:end -->\n"
    )  # fmt: skip
    before = None
    for folder in folders:
        number, name = folder[:2], folder[3:]
        tasks = ("one", "two", "three")
        imports = f"from glassbox.{before} import {before}_one\n\n" if before else ""
        body = "\n\n\n".join(
            helper_code(name, t, before).replace("(x):\n", '(x: int) -> int:\n    """Multiply."""\n') for t in tasks
        )
        listing = ", ".join(f'"{name}_{t}"' for t in tasks)
        write(root / folder / f"glassbox/{name}.py", f'"""Numbers."""\n\n{imports}__all__ = [{listing}]\n\n\n{body}\n')
        write(root / folder / f"glassbox/{name}_exercises.py", '"""Exercises."""\n\n__all__ = ["one"]\none = 1\n')
        write(root / folder / "line.svg", "<svg/>\n")
        write(
            root / folder / "README.md",
            f"# {number} · About {name}\n\nWhat does {name} do to a number? It multiplies, as $x_1$ shows.\n\n"
            "![a line that rises](line.svg)\n\n```math\n\\begin{aligned} y &= x \\\\ z &= x \\end{aligned}\n```\n\n"
            "## Pitfalls\n\nNone; see [below](#papers-1).\n\n## In other words\n\n| here | in PyTorch | in Hugging Face |\n"
            "|---|---|---|\n| a | b | c |\n\n## Papers\n\n## Papers\n\n## Exercises\n\nThree.\n",
        )
        write(root / "tests" / f"test_{name}.py", "def test_it():\n    pass\n")
        book = {"cells": notebook_cells(folder, before), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        write(root / folder / f"{name}.ipynb", json.dumps(book))
        before = name
    write(
        root / "00_basics/glassbox/lab.py",
        '"""The workbench."""\n\n__all__ = ["check", "seed_everything"]\n\n\n'
        'def check(f: object, g: object) -> object:\n    """Check."""\n    print(f, g)\n    return f\n\n\n'
        'def seed_everything(seed: int) -> int:\n    """Seed."""\n    return seed\n',
    )
    write(root / "00_basics/glassbox/py.typed", "")
    fix(root)
    for module in modules(root):
        change(module.notebook_path, number_cells)
    return root


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit a notebook and write it back in the fixed form."""
    book = json.loads(path.read_text("utf-8"))
    edit(book)
    stored = json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    path.write_text(stored, encoding="utf-8", newline="\n")


def number_cells(book: dict[str, Any]) -> None:
    for count, cell in enumerate((c for c in book["cells"] if c["cell_type"] == "code"), 1):
        cell["execution_count"] = count


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_course(tmp_path_factory.mktemp("house") / "small course ü")


@pytest.fixture
def course(pattern: Path, tmp_path: Path) -> Path:
    """A fresh copy of the small course."""
    return Path(shutil.copytree(pattern, tmp_path / "course"))


def test_a_clean_course_passes_every_rule(pattern: Path) -> None:
    assert [fault for rule in house.RULES for fault in rule(pattern)] == []


def test_nine_modules_pass_and_an_empty_folder_does_not_crash(tmp_path: Path) -> None:
    nine = small_course(tmp_path / "nine", 9)
    assert [fault for rule in house.RULES for fault in rule(nine)] == []
    (tmp_path / "empty").mkdir()
    assert rule_readme_map(tmp_path / "empty") == ["README.md: is missing: the first page of the course."]
    for rule in house.RULES:
        rule(tmp_path / "empty")


def test_half_a_course_gives_faults_and_no_crash(course: Path) -> None:
    (course / "00_basics/basics.ipynb").write_text('{"cells": [{"cell_type": "code"}, 7]}')
    (course / "01_tokenizer/tokenizer.ipynb").write_text("{")
    (course / "01_tokenizer/glassbox/tokenizer.py").write_text("def broken(:\n")
    (course / "02_preprocessing/preprocessing.ipynb").write_text('{"cells": []}')
    (course / "pyproject.toml").write_text("[")
    assert sum(len(rule(course)) for rule in house.RULES) > 10
    fix(course)


# --- planted violations -----------------------------------------------------------------------------------------------

Edit = Callable[[Path], Any]
BOOK = "00_basics/basics.ipynb"
HELPER = "00_basics/glassbox/basics.py"


def replaced(name: str, old: str, new: str) -> Edit:
    """Replace text in a file of the course; the text must be there."""

    def edit(root: Path) -> None:
        before = (root / name).read_text("utf-8")
        assert old in before, f"{old!r} is not in {name}"
        (root / name).write_text(before.replace(old, new), encoding="utf-8", newline="\n")

    return edit


def cell(name: str, book: str = BOOK, **fields: Any) -> Edit:
    """Set fields of one cell of a notebook; `add` is put after its source."""

    def edit(root: Path) -> None:
        def apply(data: dict[str, Any]) -> None:
            found = next(c for c in data["cells"] if c["id"] == name)
            if "add" in fields:
                found["source"] = ["".join(found["source"]) + fields["add"]]
            found.update({key: value for key, value in fields.items() if key != "add"})

        change(root / book, apply)

    return edit


def added(*cells: dict[str, Any], after: str = "section-1", book: str = BOOK) -> Edit:
    """Put cells behind one cell of a notebook, numbered anew."""

    def edit(root: Path) -> None:
        def apply(data: dict[str, Any]) -> None:
            at = next(i for i, c in enumerate(data["cells"]) if c["id"] == after) + 1
            data["cells"][at:at] = json.loads(json.dumps(cells))
            number_cells(data)

        change(root / book, apply)

    return edit


def removed(name: str) -> Edit:
    return lambda root: (root / name).unlink()


def written(name: str, content: str) -> Edit:
    return lambda root: write(root / name, content)


def output(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "stdout", "output_type": "stream", "text": ["x\n"], **fields}]


def said(words: str) -> Edit:
    return cell("look-1", outputs=output(text=[words]))


LONG = "\n".join(f"assert {n} == {n}" for n in range(30))
MARK = "TO" + "DO"
PLANTED: dict[str, tuple[house.Rule, Edit, str]] = {
    # one source of truth
    "another body in the notebook": (
        rule_one_source,
        cell("solution-1", add="\n\n<details>\n\n```python\ndef basics_one(x):\n    return x * 4\n```\n\n</details>"),
        "the last definition shown of basics_one differs from 00_basics/glassbox/basics.py: the notebook has `return x * 4`",
    ),
    "redefined later in a cell": (
        rule_one_source,
        added(code("late", "def basics_one(x):\n    return x + x + x"), after="see"),
        "(late): the last definition shown of basics_one differs",
    ),
    "never shown": (rule_one_source, cell("solution-2", source="nothing"), "basics_two of 00_basics/glassbox/basics.py is never shown"),
    "exported and not defined": (rule_one_source, replaced(HELPER, '"basics_one"', '"basics_four"'), "__all__ names basics_four"),
    "an earlier name redefined": (
        rule_no_redefinition,
        added(code("again", "def basics_one(x):\n    return x"), book="01_tokenizer/tokenizer.ipynb"),
        "defines basics_one, which 00_basics/glassbox/basics.py ships: import it",
    ),
    "a name of the workbench as a variable": (rule_no_redefinition, added(code("v", "check = 1")), "defines check, which"),
    "an earlier name shipped again": (
        rule_no_redefinition,
        replaced("01_tokenizer/glassbox/tokenizer.py", "tokenizer_two", "basics_two"),
        "01_tokenizer/glassbox/tokenizer.py: ships basics_two",
    ),
    "an __init__.py": (rule_namespace, written("01_tokenizer/glassbox/__init__.py", ""), "01_tokenizer/glassbox/__init__.py: hides all"),
    # imports
    "import of a later module": (
        rule_imports,
        replaced("01_tokenizer/glassbox/tokenizer.py", '"""Numbers."""', "import glassbox.preprocessing"),
        "01_tokenizer/glassbox/tokenizer.py line 1: imports glassbox.preprocessing of the later module 02_preprocessing",
    ),
    "import inside a function": (
        rule_imports,
        replaced(HELPER, "    return x * 3", "    from glassbox import tokenizer\n    return x * 3"),
        "imports glassbox.tokenizer of the later module 01_tokenizer",
    ),
    "import of nothing": (rule_imports, replaced(HELPER, '"""Numbers."""', "from .ghost import x"), "glassbox.ghost, which no folder"),
    "an island": (
        rule_imports,
        replaced("02_preprocessing/glassbox/preprocessing.py", "from glassbox.tokenizer", "from glassbox.lab"),
        "02_preprocessing/glassbox/preprocessing.py: builds on no earlier helper",
    ),
    "a notebook reads ahead": (
        rule_imports,
        added(code("ahead", "from glassbox.tokenizer import tokenizer_one")),
        "(ahead): imports glassbox.tokenizer of the later module",
    ),
    "a folder not packed": (
        rule_packaging,
        replaced("pyproject.toml", 'dev-mode-dirs = ["00_basics", ', "dev-mode-dirs = ["),
        "dev-mode-dirs lacks 00_basics",
    ),
    "a folder that is gone": (rule_packaging, replaced("pyproject.toml", '"00_basics" = ""', '"07_x" = ""'), "sources lists 07_x, which"),
    # parts
    "no README": (rule_parts, removed("00_basics/README.md"), "00_basics: has no README.md"),
    "no notebook": (rule_parts, removed(BOOK), "00_basics: has no basics.ipynb"),
    "no helper": (rule_parts, removed(HELPER), "00_basics: has no glassbox/basics.py"),
    "no exercises": (rule_parts, removed("00_basics/glassbox/basics_exercises.py"), "has no glassbox/basics_exercises.py"),
    "no tests": (rule_parts, removed("tests/test_basics.py"), "00_basics: has no tests/test_basics.py"),
    "no py.typed": (rule_parts, removed("00_basics/glassbox/py.typed"), "has no glassbox/py.typed"),
    "a gap": (rule_parts, lambda r: (r / "02_preprocessing").rename(r / "04_gpt2"), "04_gpt2: should bear the number 02"),
    "a stray notebook": (rule_parts, written("00_basics/draft.ipynb", "{}"), "00_basics/draft.ipynb: a folder has one notebook"),
    "a broken notebook": (rule_parts, written(BOOK, "{"), "is no notebook that can be read"),
    "README without a question": (rule_module_readme, replaced("00_basics/README.md", "number?", "number."), "with a `?`"),
    "README without a figure": (rule_module_readme, replaced("00_basics/README.md", "![a line", "[a line"), "has no figure"),
    "README without a formula": (rule_module_readme, replaced("00_basics/README.md", "```math", "```text"), "no displayed formula"),
    "README without other names": (rule_module_readme, replaced("00_basics/README.md", "in PyTorch", "there"), "has no table"),
    "README without papers": (rule_module_readme, replaced("00_basics/README.md", "## Papers", "## Reading"), "says `Papers`"),
    # generated
    "another set-up": (rule_generated, cell("bootstrap", source="import os"), "(bootstrap): the set-up cell differs from the template"),
    "an unfolded set-up": (rule_generated, cell("bootstrap", metadata={"tags": ["bootstrap"]}), "metadata is not the template's"),
    "a set-up that printed": (rule_generated, cell("bootstrap", outputs=output()), "the set-up cell has an output"),
    "no set-up": (rule_generated, cell("bootstrap", metadata={}), "the first code cell, and no other, is the set-up"),
    "a wrong link": (rule_generated, replaced(BOOK, "someone/course/blob/main/00", "other/course/blob/main/00"), "not exactly one line `[Open in"),
    "a link in a README": (
        rule_generated,
        replaced("README.md", "# Course", "# Course\nhttps://colab.research.google.com/github/someone/course/blob/main/x.ipynb"),
        "blob/main/x.ipynb is no notebook of the course",
    ),
    "a map of before": (rule_generated, replaced(BOOK, "Map: **00 basics**", "Map: 00 basics"), "not exactly the map"),
    "other metadata": (
        rule_generated,
        lambda r: change(r / BOOK, lambda b: b["metadata"].update({"language_info": {"name": "python", "version": "3.11"}})),
        "metadata or format number is not the fixed one",
    ),
    "another way of writing": (rule_generated, lambda r: (r / BOOK).write_text(json.dumps(json.loads((r / BOOK).read_text("utf-8")))), "is not written as nbformat"),
    "an old module table": (rule_readme_map, replaced("00_basics/README.md", "What does", "How does"), "the map of modules is not what"),
    "no markers": (rule_readme_map, replaced("README.md", "<!-- modules:end -->", ""), "README.md: has no `<!-- modules:start -->`"),
    # opening
    "no title": (rule_opening, replaced(BOOK, "# 00 · About", "# About"), "the first line is `# 00 · title`"),
    "no question": (rule_opening, replaced(BOOK, "why does it matter?", "it matters."), "a paragraph with the question"),
    "no minutes": (rule_opening, replaced(BOOK, "**Minutes**", "Minutes"), "no line that begins with **Minutes**"),
    "no need": (rule_opening, replaced(BOOK, "**You need**", "You need"), "no line that begins with **You need**"),
    "long imports": (rule_opening, cell("imports", add="\nimport os" * 9), "imports and seed have at most 8"),
    "no seed": (rule_opening, cell("imports", source="from glassbox.lab import check"), "calls seed_everything()"),
    # sections
    "an unmarked section": (rule_sections, replaced(BOOK, "The number one · Core", "The number one"), "`1. The number one` ends in neither"),
    "too few sections": (rule_sections, replaced(BOOK, " · Core", ""), "1 sections are marked"),
    "nothing asserted": (rule_sections, cell("look-1", source="print(1)"), "`1. The number one · Core` asserts nothing"),
    "Core leans on Depth": (
        rule_sections,
        lambda r: (added(code("d", "deep = 1"), after="between-3")(r), added(code("c", "print(deep)", says="1"), after="see")(r)),
        "(c): a Core cell uses deep, which only a Depth section defines",
    ),
    "too much Core": (
        rule_sections,
        added(*[c for n in range(40) for c in (code(f"n{n}", "assert True"), text(f"t{n}", "And so on."))]),
        "code cells outside Depth; at most 45",
    ),
    "no oracle": (rule_sections, replaced(BOOK, "## Check it against", "### Check it against"), "has no section `## Check it against"),
    "no recap": (rule_sections, replaced(BOOK, "## Recap", "### Recap"), "has no section `## Recap`"),
    "no recap table": (rule_sections, replaced(BOOK, "who imports it next", "who"), "the recap has no table"),
    "no papers": (rule_sections, replaced(BOOK, "**Papers**", "Papers"), "no paragraph that begins with **Papers**"),
    # cells
    "a very long cell": (rule_cells, cell("look-1", source="\n".join([LONG, LONG])), "(look-1): 60 lines; no cell has over 45"),
    "many long cells": (
        rule_cells,
        lambda r: [cell(n, source=LONG)(r) for n in ("look-1", "look-2", "look-3", "again-1")],
        "4 cells of over 25 lines",
    ),
    "a long median": (
        rule_cells,
        lambda r: [cell(f"{n}-{i}", source="\n".join(["a = 1"] * 9))(r) for n in ("look", "again", "stub") for i in (1, 2, 3)],
        "the median code cell has 9 lines",
    ),
    "four in a row": (rule_cells, added(*(code(f"r{n}", "assert True") for n in range(3))), "the code cell number 4 in a row"),
    "few words": (rule_cells, added(code("w", LONG), code("w2", LONG), code("w3", LONG)), "words of prose per line of code"),
    "an empty cell": (rule_cells, added(code("void", "\n")), "(void): is empty"),
    "a semicolon": (rule_cells, cell("look-1", add=";"), "(look-1): ends in `;`"),
    "an unknown tag": (rule_cells, cell("look-1", metadata={"tags": ["slow"]}), "unknown tag slow"),
    "other cell metadata": (rule_cells, cell("look-1", metadata={"collapsed": True}), "has the metadata collapsed"),
    "no id": (rule_cells, cell("look-1", id=""), "(no id): has no valid id"),
    "an id twice": (rule_cells, cell("look-2", id="look-1"), "has the id of cell"),
    "an attachment": (rule_cells, cell("see", attachments={"a.png": {}}), "has an attachment"),
    "no Python": (rule_cells, cell("look-1", source="print(1"), "(look-1): is no Python"),
    # outputs
    "executed out of order": (rule_outputs, cell("look-1", execution_count=99), "cells are not numbered 1..n"),
    "not executed": (rule_outputs, lambda r: change(r / BOOK, lambda b: [c.update(outputs=[]) for c in b["cells"] if "outputs" in c]), "has no outputs"),
    "a stored error": (rule_outputs, cell("look-1", outputs=[{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]), "an error is stored"),
    "a warning": (rule_outputs, said("UserWarning: do not"), "a warning is stored"),
    "stderr": (rule_outputs, cell("look-1", outputs=output(name="stderr")), "something on stderr"),
    "a widget": (rule_outputs, cell("look-1", outputs=[{"output_type": "display_data", "metadata": {}, "data": {"application/vnd.jupyter.widget-view+json": {}}}]), "widget state"),
    "a progress bar": (rule_outputs, said("100%|####| 3/3"), "the rest of a progress bar"),
    "a machine path": (rule_outputs, said("/ho" + "me/me/x.py"), "a path of the machine"),
    "a Windows path": (rule_outputs, said("C:\\Temp"), "a path of the machine"),
    "a time stamp": (rule_outputs, said("2024-05-06 07:08"), "a time stamp"),
    "a memory address": (rule_outputs, said("<object at 0x7f00aa11bb22>"), "a memory address"),
    "too large": (rule_outputs, said("x" * 300_001), "kB; under 300 kB"),
    "few compared": (rule_outputs, cell("look-1", source="assert True\nprint(1)"), "7 cells carry `# NBVAL_CHECK_OUTPUT`"),
    "compared without output": (rule_outputs, cell("look-1", outputs=[]), "(look-1): is to be compared but has no output"),
    "compared although measured": (rule_outputs, cell("look-1", metadata={"tags": ["measured"]}), "is compared although"),
    "a wide figure": (rule_outputs, cell("figure", outputs=code("", "", figure=701)["outputs"]), "a figure of 701 pixels"),
    "a figure without a word": (rule_outputs, added(code("f", "assert True", figure=5)), "(f): a figure is followed by no sentence"),
    "a lost output": (rule_outputs, added(code("p", "print(1)")), "(p): prints, but no output is stored"),
    # exercises
    "few exercises": (rule_exercises, replaced(BOOK, "### Exercise 3 ★", "### Task 3 ★"), "2 exercises; at least 3"),
    "wrong numbers": (rule_exercises, replaced(BOOK, "### Exercise 3", "### Exercise 4"), "not numbered 1, 2, 3"),
    "no minutes of an exercise": (rule_exercises, replaced(BOOK, "Exercise 1 ★ (5 min)", "Exercise 1 ★"), "a heading reads `### Exercise"),
    "no tag": (rule_exercises, cell("stub-1", metadata={}), "is not followed by the code cell tagged exercise"),
    "no stub": (rule_exercises, cell("stub-1", source="basics_one = check(basics_one, 1)"), "(stub-1): has no stub"),
    "no check": (rule_exercises, cell("stub-1", source="def basics_one(x):\n    raise NotImplementedError"), "does not end in `name = check"),
    "no hint": (rule_exercises, replaced(BOOK, "<summary>Hint</summary>", "<summary>Help</summary>"), "<summary>Hint</summary>"),
    "a solution of something else": (rule_exercises, cell("solution-1", source="<details><summary>Solution</summary>\n\n```python\ny = 1\n```\n\n</details>"), "does not define basics_one"),
    # times
    "a time asserted": (
        rule_times,
        added(code("t", "import time\na = time.time()\nb = time.time() - a\nassert b < 3", "measured")),
        "(t) line 4: asserts an absolute time",
    ),
    "a time from a function": (
        rule_times,
        written("tests/test_x.py", "import time\n\n\ndef took():\n    a = time.perf_counter()\n    return time.perf_counter() - a\n\n\ndef test():\n    assert 5 > min(took(), took())\n"),
        "tests/test_x.py line 10: asserts an absolute time",
    ),
    "a time shown and not tagged": (rule_times, cell("speed", metadata={}), "(speed): reads a clock"),
    # links
    "a dead link": (rule_links, replaced("README.md", "(00_basics/README.md", "(00_basics/READ.md"), "README.md line 3: links to 00_basics/READ.md#pitfalls, which does not exist"),
    "a dead anchor": (rule_links, replaced("README.md", "#pitfalls", "#pits"), "links to 00_basics/README.md#pits, but that page"),
    "a dead second anchor": (rule_links, replaced("00_basics/README.md", "#papers-1", "#papers-2"), "#papers-2, but that page"),
    "a dead anchor in a notebook": (rule_links, replaced(BOOK, "(#00-·-About-basics)", "(#about)"), "links to #about"),
    "a lost picture": (rule_links, removed("01_tokenizer/line.svg"), "links to line.svg, which does not exist"),
    "a picture from elsewhere": (rule_links, replaced(BOOK, "(line.svg)", "(https://example.org/line.svg)"), "lies elsewhere"),
    "a picture without words": (rule_links, replaced("00_basics/README.md", "![a line that rises]", "![]"), "no alternative text"),
    "an HTML picture without words": (rule_links, replaced("README.md", "# Course", "# Course\n\n<img src='00_basics/line.svg'>"), "no alternative text"),
    "a link out of the project": (rule_links, replaced("README.md", "(00_basics/README.md#pitfalls)", "(../elsewhere.md)"), "links to ../elsewhere.md"),
    "a link to our own page": (rule_links, replaced("README.md", "(00_basics/README.md#pitfalls)", "(https://github.com/someone/course/blob/main/no.md)"), "links to no.md"),
    # words
    "unfinished": (rule_words, replaced(HELPER, '"""Numbers."""', f'"""Numbers. {MARK}"""'), f"basics.py line 1: `{MARK}` marks unfinished"),
    "unfinished in a notebook": (rule_words, cell("see", add=" It works for " + "now."), "(see) line 1: `for " + "now`"),
    "unfinished in an output": (rule_words, said("not implemented " + "yet"), "(look-1) line 1: `not implemented"),
    "belittling": (rule_words, replaced("README.md", "# Course", "# Course, simp" + "ly"), "tells the reader that it is easy"),
    "a path in a page": (rule_machine_paths, replaced("README.md", "# Course", "# /ho" + "me/someone"), "README.md line 1: `/ho" + "me/s...`"),
    "a path outside": (rule_machine_paths, written("tests/x.py", "DATA = '../sha" + "red'\n"), "tests/x.py line 1"),
    # helpers
    "no docstring": (rule_helpers, replaced(HELPER, '    """Multiply."""\n', ""), "line 6: basics_one has no docstring"),
    "no module docstring": (rule_helpers, replaced(HELPER, '"""Numbers."""', ""), "basics.py: has no docstring"),
    "no type hint": (rule_helpers, replaced(HELPER, "basics_one(x: int)", "basics_one(x)"), "basics_one lacks type hints for x"),
    "no result": (rule_helpers, replaced(HELPER, " -> int", ""), "lacks type hints for the result"),
    "a helper that prints": (rule_helpers, replaced(HELPER, "    return x * 3", "    print(x)\n    return x * 3"), "prints: helpers return values"),
    "no __all__": (rule_helpers, replaced(HELPER, "__all__ =", "_names ="), "has no literal `__all__`"),
    "a helper too long": (rule_helpers, lambda r: write(r / HELPER, (r / HELPER).read_text("utf-8") + "\n# more\n" * 200), "400 the most"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(name: str, course: Path) -> None:
    rule, plant, words = PLANTED[name]
    plant(course)
    faults = rule(course)
    assert any(words in fault for fault in faults), "\n".join(faults) or "no fault was found"


def test_every_rule_has_a_planted_violation() -> None:
    tried = {rule for rule, _, _ in PLANTED.values()} | {rule_mathematics}  # whose violations stand further down
    assert set(house.RULES) == tried


def test_every_rule_of_the_rules_folder_is_run() -> None:
    names = {
        name
        for p in (ROOT / "tests/rules").glob("*.py")
        for name in re.findall(r"(?m)^def (rule_\w+)", p.read_text("utf-8"))
    }
    assert names == {rule.__name__ for rule in house.RULES}


def test_what_may_differ_between_notebook_and_helper() -> None:
    shown = "class A:\n    x = 1\n    y: int\n    def f(self, a, *b):\n        c = a  # why\n        return c"
    ships = 'class A:\n    """Doc."""\n    x: int = 1\n    y: "float"\n    def f(self, a: int, *b: str) -> int:\n        """Doc."""\n        c: int = a\n        return (c)'
    first, second = (bare(read(source)) for source in (shown, ships))
    assert first == second
    assert bare(read(ships.replace("= a", "= -a"))) != first
    assert bare(read(ships.replace("y:", "z:"))) != first


def read(source: str) -> Any:
    return ast.parse(source).body[0]


def test_a_ratio_of_times_may_be_asserted(course: Path) -> None:
    source = "import time\na = time.time()\nb = time.time() - a\nc = time.time() - a\nratio = b / c\nassert ratio > 3\nassert b < c"
    added(code("t", source, "measured"))(course)
    assert rule_times(course) == []


def test_anchors_are_those_of_github() -> None:
    page = "# A `b_c` (d): e!\n## A\n## A\n## [Link](x) *star*\n```\n# no\n```\n### Über-uns & mehr\n"
    assert github_anchors(page) == {"a-b_c-d-e", "a", "a-1", "link-star", "über-uns--mehr"}


# --- mathematics ------------------------------------------------------------------------------------------------------

GOOD = [
    "a word\n$x$ at the start of a line, $y$\nat its end",
    "where $x_i = y_i$ and $\\mathbf{x}$, ($z$), **$w$**; $n$-th",
    "inline $`\\{x_{i}\\}_{j} \\, \\mathbf{y}_{k}`$ is safe, `$HOME` and \\$5 are no formula",
    "$$\ny = \\frac{a}{b} \\left( c \\right)\n$$",
    "```math\n\\begin{aligned}\na_{i} &= b_{j} \\\\\n&= \\{c\\}\n\\end{aligned}\n```",
    "| $a$ | $\\vert b \\vert$ |\n|---|---|\n| $c_1$ | $c_2$ |",
    "```python\nprice = '$5'\n```",
    "- $a_1$\n- $b_1$\n\n  $$\n  x\n  $$\n\n> $q$",
]
BAD = {
    "costs $5 today": "is opened and not closed",
    "a$x$": "directly before the dollar",
    "-$x$": "directly before the dollar",
    "$x$2": "directly after the dollar",
    "$ x$": "a space inside the dollars",
    "$x\ny$": "over a line end",
    "$\\operatorname{softmax}(x)$": "\\operatorname is not known or not allowed on GitHub and in Jupyter both: write \\mathrm",
    "$\\sotfmax$": "\\sotfmax is not known",
    "$\\{x\\}$": "takes a backslash of `\\{` away: use dollar and backtick, $`...`$, or \\lbrace",
    "$a\\,b$": "\\thinspace",
    "$$\n\\begin{aligned} a \\\\ b \\end{aligned}\n$$": "takes a backslash of `\\\\` away: use a ```math fence",
    "$$\na\n= b\n$$": "a line that begins with `=`",
    "$$\na\n- b\n$$": "a line that begins with `-`",
    "text\n$$\na\n$$": "a displayed formula stands alone",
    "see $$a$$ here": "a displayed formula stands alone",
    "$\\mathbf{x}_i + y_{j}$": "is read as emphasis",
    "$\\hat{a}_{1}$ and $\\hat{b}_{2}$": "is read as emphasis",
    "$a*b*c$": "is read as emphasis",
    "_see $x$ here_": "inside _emphasis_",
    "$[a](b)$": "is read as a link",
    "[the $x$](README.md)": "inside a link",
    "$a<b$": "write \\lt",
    "$\\frac{a}{b$": "braces do not balance",
    "$\\left( x$": "\\left and \\right do not pair",
    "$`\\left{ x \\right)`$": "\\left has no delimiter",
    "```math\n\\begin{cases} a\n```": "\\begin and \\end of cases do not pair",
    "```math\n\\begin{align} a \\end{align}\n```": "the environment align",
    "```math\na \\\\ b\n```": "outside an environment",
    "$a_b_c$": "two subscripts",
    "$50%$": "# or %",
    "$$\na\n\nb\n$$": "is opened and not closed",
    "| $|x|$ | b |": "is opened and not closed",
    "$$ $$": "an empty formula",
}  # fmt: skip


@pytest.mark.parametrize("page", GOOD)
def test_a_good_formula_passes(page: str, tmp_path: Path) -> None:
    write(tmp_path / "page.md", page)
    assert rule_mathematics(tmp_path) == []


@pytest.mark.parametrize("page", BAD)
def test_a_bad_formula_is_found(page: str, tmp_path: Path) -> None:
    write(tmp_path / "page.md", f"# Page\n\n{page}\n")
    faults = rule_mathematics(tmp_path)
    assert any(BAD[page] in fault for fault in faults), "\n".join(faults) or "no fault was found"
    assert all(fault.startswith("page.md line ") for fault in faults)


def test_a_notebook_keeps_to_what_jupyter_renders(course: Path) -> None:
    cell("see", source="$`x`$")(course)
    cell("between-1", source="```math\nx\n```")(course)
    cell("between-2", source="$\\{a_{1}\\}_{2}\\,b_{3}$ and\n\n$$\n\\begin{aligned} a \\\\ b \\end{aligned}\n$$")(
        course
    )
    faults = rule_mathematics(course)
    assert len(faults) == 2, faults
    assert all("is not rendered in Jupyter: use dollars" in fault for fault in faults)


def test_formulas_are_found_where_they_are() -> None:
    pieces, faults = math_pieces("a $x$\n\n$$\ny\n$$\n\n- `$no$` $`z`$\n\n```math\nw\n```\n")
    assert not faults
    assert sorted((p.line, p.text.strip(), p.display) for p in pieces) == [
        (1, "x", False),
        (3, "y", True),
        (7, "z", False),
        (9, "w", True),
    ]
    assert list(emphasis_faults("$a_i$ and $b_j$")) == []
    assert not [fault for p in pieces for fault in tex_faults(p)]
    assert not {"operatorname", "mbox", "phantom", "def", "newcommand", "href", "require"} & COMMANDS


# --- what is generated ------------------------------------------------------------------------------------------------


def test_fix_mends_what_is_generated_and_nothing_else(course: Path) -> None:
    before = {p: p.read_bytes() for p in project_files(course)}
    assert fix(course) == [], "a clean course is left alone"
    for name in (
        "another set-up",
        "no set-up",
        "a wrong link",
        "a map of before",
        "other metadata",
        "an old module table",
    ):
        rule, plant, _ = PLANTED[name]
        for path, content in before.items():
            path.write_bytes(content)
        plant(course)
        assert rule(course), name
        assert fix(course), name
        assert rule(course) == [], name
        assert fix(course) == [], "the second time nothing is left to mend"


def test_fix_writes_the_missing_parts(course: Path) -> None:
    book = {
        "cells": [text("t", "# 00 · Bare\n\nWhy?"), code("a", "x = 1")],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    (course / BOOK).write_text(json.dumps(book))
    fix(course)
    number = rule_generated(course)
    assert number == []
    assert "Map: **00 basics** · [01 tokenizer](../01_tokenizer/tokenizer.ipynb)" in (course / BOOK).read_text("utf-8")


def test_the_module_table_counts_what_is_there(course: Path) -> None:
    row = module_table(course).splitlines()[2]
    assert row == (
        "| [00 basics](00_basics/) | What does basics do to a number? | `basics_one`, `basics_two`, `basics_three`; "
        "the workbench `lab` | [notebook](00_basics/basics.ipynb) of 14 code cells, 3 exercises, [1 test](tests/test_basics.py) |"
    )
    (course / BOOK).unlink()
    (course / "tests/test_basics.py").unlink()
    assert module_table(course).splitlines()[2].endswith("| no notebook, no tests |")


def test_the_command_prints_faults_and_fixes(course: Path) -> None:
    shutil.copy(ROOT / "tests/house.py", course / "tests")
    shutil.copytree(ROOT / "tests/rules", course / "tests/rules", ignore=shutil.ignore_patterns("__pycache__"))
    replaced(BOOK, "Map: **00 basics**", "Map: 00 basics")(course)

    def command(*arguments: str) -> tuple[int, str]:
        call = [sys.executable, "-I", "-c", "import runpy, sys; sys.path.insert(0, 'tests'); runpy.run_path('tests/house.py', run_name='__main__')", *arguments]  # fmt: skip
        done = subprocess.run(call, cwd=course, capture_output=True, encoding="utf-8", env={**os.environ, "PYTHONIOENCODING": "utf-8"}, check=False)  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    status, words = command()
    assert status == 1
    assert "not exactly the map" in words
    status, words = command("--fix")
    assert "rewritten: 00_basics/basics.ipynb" in words
    assert command() == (0, f"\n{len(house.RULES)} rules, 0 faults.\n")
    assert command("--mend")[0] == 2


# --- the set-up cell on other hosts -----------------------------------------------------------------------------------

# As a notebook's kernel: the working folder is on the path. What this Python knows of the course is taken away.
HOST = """
import sys
from pathlib import Path
sys.path[:] = ["", *(p for p in sys.path if p and not (Path(p) / "glassbox").exists())]
sys.path[:0] = sys.argv[2:]
exec(compile(Path(sys.argv[1]).read_text("utf-8"), "set-up cell", "exec"))
from glassbox.lab import check
print(Path(sys.modules[check.__module__].__file__).resolve())
"""


def on_a_host(folder: Path, address: str, *path: str) -> tuple[int, str, str]:
    """Run the set-up cell and the first import in a fresh Python whose working folder is `folder`."""
    setup = folder.parent / "set-up.txt"
    setup.write_text(bootstrap(ROOT), encoding="utf-8")
    env = {**os.environ, "GLASSBOX_REPO": address, "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}
    call = [sys.executable, "-I", "-X", "utf8", "-c", HOST, str(setup), *path]
    done = subprocess.run(call, cwd=folder, env=env, capture_output=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.fixture(scope="module")
def working_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git tracks or would track."""
    copy = tmp_path_factory.mktemp("host") / "a course with ü"
    for path in project_files(ROOT):
        goal = copy / path.relative_to(ROOT)
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, goal)
    return copy


@pytest.mark.skipif(not shutil.which("git"), reason="git is not here, so nothing can be cloned")
def test_the_set_up_cell_on_a_fresh_host(working_tree: Path, tmp_path: Path) -> None:
    """Only the one notebook in an empty folder: the course is cloned once, and found the next time."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    source, bare_clone, folder = tmp_path / "source", tmp_path / "a bare ü.git", tmp_path / "an empty folder é"
    shutil.copytree(working_tree, source)
    for command in (["init", "-q"], ["add", "--all", "--force"], ["commit", "-q", "--no-gpg-sign", "-m", "all"]):
        subprocess.run([*git, *command], cwd=source, check=True, capture_output=True)
    subprocess.run([*git, "clone", "-q", "--bare", str(source), str(bare_clone)], check=True, capture_output=True)
    folder.mkdir()
    notebook = ROOT / BOOK
    if notebook.is_file():
        shutil.copy(notebook, folder)

    address = bare_clone.as_posix()
    status, where, errors = on_a_host(folder, f"file://{'' if address.startswith('/') else '/'}{address}")
    assert status == 0, errors
    assert Path(where).is_relative_to(folder.resolve() / "glass-box" / "00_basics" / "glassbox")
    assert not errors, "cloning is quiet"

    shutil.rmtree(bare_clone)
    status, where, errors = on_a_host(folder, "file:///nowhere")
    assert status == 0, errors
    assert Path(where).is_relative_to(folder.resolve() / "glass-box")


def test_the_set_up_cell_in_a_working_copy(working_tree: Path) -> None:
    """In my/00_basics of a checkout nothing is fetched."""
    folder = working_tree / "my" / "00_basics"
    folder.mkdir(parents=True, exist_ok=True)
    status, where, errors = on_a_host(folder, "file:///nowhere")
    assert status == 0, errors
    assert Path(where).is_relative_to(working_tree.resolve() / "00_basics")
    assert not (folder / "glass-box").exists()


def test_the_set_up_cell_leaves_an_installed_course_alone(working_tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "anywhere"
    folder.mkdir()
    installed = tmp_path / "site"
    shutil.copytree(working_tree / "00_basics" / "glassbox", installed / "glassbox")
    status, where, errors = on_a_host(folder, "file:///nowhere", str(installed))
    assert status == 0, errors
    assert Path(where).is_relative_to(installed.resolve())


@pytest.mark.parametrize("name", ["glassbox/__init__.py", "glassbox.py"])
def test_the_set_up_cell_names_a_foreign_package(name: str, working_tree: Path, tmp_path: Path) -> None:
    folder, foreign = working_tree / "my" / "00_basics", tmp_path / "elsewhere"
    folder.mkdir(parents=True, exist_ok=True)
    write(foreign / name, "")
    status, _, errors = on_a_host(folder, "file:///nowhere", str(foreign))
    assert status == 1
    last = errors.strip().splitlines()[-1]
    assert "is another package of the name glassbox: uninstall it and restart the kernel" in last
    assert str(foreign / name) in last


@pytest.mark.skipif(not shutil.which("git"), reason="git is not here, so nothing can be cloned")
def test_the_set_up_cell_says_when_it_cannot_fetch(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    status, _, errors = on_a_host(folder, "file:///nowhere/at/all")
    assert status == 1
    assert "file:///nowhere/at/all" in errors
    assert not (folder / "glass-box").exists(), "no half course stays"


def test_the_set_up_cell_installs_what_is_missing_and_never_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in {"pooch", "torch"} else real(name))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command))
    monkeypatch.setattr(sys, "path", [*(str(m.path) for m in modules(ROOT)), *sys.path])
    exec(compile(bootstrap(ROOT), "set-up cell", "exec"), {})
    assert calls == [[sys.executable, "-m", "pip", "install", "--quiet", "pooch"]]


def test_the_set_up_cell_is_short_and_in_style(tmp_path: Path) -> None:
    cell_text = bootstrap(ROOT)
    assert sum(1 for line in cell_text.splitlines() if line.strip()) <= BOOTSTRAP_LINES
    assert "torch" not in cell_text
    assert read_python(ROOT / "tests/rules/tree.py").body, "the template's file can be read"
    book = {"cells": [code("a", cell_text)], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "a.ipynb").write_text(json.dumps(book))
    for verb in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        call = [
            sys.executable,
            "-m",
            "ruff",
            *verb,
            "--config",
            str(ROOT / "pyproject.toml"),
            str(tmp_path / "a.ipynb"),
        ]
        done = subprocess.run(call, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
