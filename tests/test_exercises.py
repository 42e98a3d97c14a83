"""Every exercise: its solution is right, its stub is passed over, and each known mistake gets its sentence.

A notebook's exercise is run with only the cells it needs: those that define the names it uses, and in turn the names
that these use. A cell tagged `training`, `measured` or `optional-data` is never run.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import importlib
import io
import json
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from glassbox.lab import Exercise, ExerciseError, check

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = {"training", "measured", "optional-data", "bootstrap"}
FENCE = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Cell:
    number: int
    kind: str
    source: str
    tags: frozenset[str]


@dataclass(frozen=True)
class Task:
    """One exercise of a notebook: its code cell, and the solution folded below it."""

    path: Path
    cell: Cell
    solution: str

    @property
    def name(self) -> str:
        return next(node.name for node in ast.parse(self.cell.source).body if isinstance(node, DEFINITION))


DEFINITION = (ast.FunctionDef, ast.ClassDef)


def cells_of(path: Path) -> list[Cell]:
    book = json.loads(path.read_text(encoding="utf-8"))
    return [
        Cell(i, c["cell_type"], "".join(c["source"]), frozenset(c["metadata"].get("tags", ())))
        for i, c in enumerate(book["cells"])
    ]


def tasks() -> Iterator[Task]:
    for path in sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb")):
        cells = cells_of(path)
        for cell, below in pairwise(cells):
            if "exercise" in cell.tags:
                found = FENCE.search(below.source)
                yield Task(path, cell, found[1] if found else "")


def modules() -> list[str]:
    return sorted(path.stem for path in ROOT.glob("[0-9][0-9]_*/glassbox/*_exercises.py"))


def known_exercises() -> Iterator[tuple[str, Exercise]]:
    for stem in modules():
        for name, value in vars(importlib.import_module(f"glassbox.{stem}")).items():
            if isinstance(value, Exercise):
                yield f"{stem}.{name}", value


TASKS = list(tasks())
EXERCISES = dict(known_exercises())
MISTAKES = [(f"{name}-{i}", e, mistake) for name, e in EXERCISES.items() for i, mistake in enumerate(e.mistakes)]


# --- which cells an exercise needs ---


def defined(source: str) -> set[str]:
    """The names that a cell binds at its top level."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, DEFINITION):
            names.add(node.name)
        else:
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            for imported in (n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)):
                names |= {(alias.asname or alias.name).split(".")[0] for alias in imported.names}
    return names


def used(source: str) -> set[str]:
    """The global names that a cell reads, in its functions too; their parameters and local names are none."""
    names: set[str] = set()
    codes = [compile(source, "<cell>", "exec")]
    while codes:
        code = codes.pop()
        names |= {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_NAME", "LOAD_GLOBAL")}
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return names - set(vars(builtins))


def needed(cells: list[Cell], target: Cell, source: str) -> list[Cell]:
    """The code cells above `target` that bind what `source` uses, and what these use in turn, in order.

    Each name comes from the last cell above its user that binds it. A function may also use what is bound only later,
    above `target`: Python looks names up when it is called.
    """
    above = [c for c in cells if c.kind == "code" and c.number < target.number and not c.tags & NOT_RUN]
    chosen: dict[int, Cell] = {}
    wanted = [(name, target.number) for name in used(source)]
    seen: set[tuple[str, int]] = set()
    while wanted:
        name, user = wanted.pop()
        if (name, user) in seen:
            continue
        seen.add((name, user))
        binding = [c for c in above if name in defined(c.source)]
        before = [c for c in binding if c.number < user] or binding
        if before and before[-1].number not in chosen:
            chosen[before[-1].number] = before[-1]
            wanted += [(other, before[-1].number) for other in used(before[-1].source)]
    return [chosen[number] for number in sorted(chosen)]


def run(task: Task, source: str) -> tuple[dict[str, Any], str]:
    """The namespace and what was printed after running the cells that the exercise needs, and then `source`."""
    space: dict[str, Any] = {"__name__": "__main__"}
    cells = cells_of(task.path)
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in needed(cells, task.cell, source):
            exec(compile(cell.source, f"{task.path.name} cell {cell.number}", "exec"), space)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, f"{task.path.name} cell {task.cell.number}", "exec"), space)
    return space, printed.getvalue()


def pasted(task: Task) -> str:
    """The exercise's cell with the stub replaced by the folded solution, as a reader would do it."""
    tree = ast.parse(task.cell.source)
    stub = next(node for node in tree.body if isinstance(node, DEFINITION))
    lines = task.cell.source.splitlines()
    first = min([stub.lineno, *(d.lineno for d in stub.decorator_list)])
    return "\n".join([*lines[: first - 1], task.solution, *lines[stub.end_lineno :]])


def title(task: Task) -> str:
    return f"{task.path.parent.name}-{task.name}"


# --- the tests ---


def test_there_are_exercises_and_each_has_a_solution() -> None:
    books = {task.path for task in TASKS}
    assert books == set(ROOT.glob("[0-9][0-9]_*/*.ipynb"))
    assert [title(task) for task in TASKS if not task.solution] == []
    assert len(EXERCISES) >= len(TASKS)


@pytest.mark.parametrize("task", TASKS, ids=title)
def test_the_folded_solution_is_right(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLASSBOX_STRICT", "1")
    space, printed = run(task, pasted(task))
    assert f"✓ {task.name}: right" in printed
    assert space[task.name].__module__ == "__main__"  # the reader's own goes on


@pytest.mark.parametrize("task", TASKS, ids=title)
def test_an_untouched_stub_is_passed_over(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLASSBOX_STRICT", "1")
    space, printed = run(task, task.cell.source)
    assert "not attempted yet" in printed
    exercise = next(e for e in EXERCISES.values() if e.name == task.name and e.reference is space[task.name])
    assert "a hint is folded below" in printed
    assert exercise.hint not in printed


@pytest.mark.parametrize(("exercise", "mistake"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_known_mistake_gets_its_sentence(
    exercise: Exercise, mistake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GLASSBOX_STRICT", raising=False)
    assert check(mistake.does, exercise) is exercise.reference
    assert mistake.says in capsys.readouterr().out
    monkeypatch.setenv("GLASSBOX_STRICT", "1")
    with pytest.raises(ExerciseError) as caught:
        check(mistake.does, exercise)
    assert mistake.says in str(caught.value)


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_knows_at_least_two_mistakes_and_has_a_hint(name: str) -> None:
    assert len(EXERCISES[name].mistakes) >= 2
    assert EXERCISES[name].hint


def test_the_closure_takes_what_is_needed_and_no_more() -> None:
    sources = ["import math", "a = 1", "def f(x):\n    return g(x) + a", "b = 9", "def g(x):\n    return math.floor(x)"]
    cells = [Cell(i, "code", source, frozenset()) for i, source in enumerate(sources)]
    cells.append(Cell(5, "code", "a = slow()", frozenset({"training"})))
    target = Cell(6, "code", "print(f(2.5))", frozenset({"exercise"}))
    assert [c.number for c in needed(cells, target, target.source)] == [0, 1, 2, 4]


def test_modules_are_importable_from_their_folder() -> None:
    assert "basics_exercises" in modules()
    assert all(f"glassbox.{stem}" in sys.modules for stem in modules())
