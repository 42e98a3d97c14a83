"""Executes the course's notebooks; `python start.py run`, `notebooks` and `progress` call it inside .venv.

    python tests/course.py run [names]                     headless, in order, nothing written; prints a table
    python tests/course.py notebooks [--measure] [names]   in place, byte-stable
    python tests/course.py progress [names]                reads the working copies under my/

A name is a part of a notebook's path: `run 00` or `notebooks attention`. Notebooks run from a clean kernel, in their
own folder, as a reader runs them. Cells tagged `measured` show times or memory: they keep their stored outputs unless
--measure. Cells tagged `optional-data` keep theirs where $GLASSBOX_DATA is not set.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CELL_SECONDS = 300
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = ("jupyter", "tags")  # what a stored cell may say of itself


@dataclass(frozen=True)
class Result:
    """One executed notebook."""

    path: Path
    seconds: float
    cells: int
    checks: int
    exercises: int
    fault: str = ""


def notebooks(root: Path = ROOT, names: list[str] | None = None) -> list[Path]:
    """The notebooks of the numbered folders in the order of the course, or those whose path holds one of the names."""
    found = sorted(root.glob("[0-9][0-9]_*/*.ipynb"))
    if not names:
        return found
    for name in names:
        if not any(name in path.relative_to(root).as_posix() for path in found):
            known = ", ".join(path.relative_to(root).as_posix() for path in found) or "none"
            raise SystemExit(f"No notebook's path holds {name!r}; there are: {known}.")
    return [path for path in found if any(name in path.relative_to(root).as_posix() for name in names)]


COMPARED = re.compile(r"^\s*#+\s*NBVAL_CHECK_OUTPUT\s*$", re.MULTILINE)  # nbval wants it alone on its line


def tags(cell: Any) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", []))


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell: Any) -> str:
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def count_checks(notebook: Any) -> int:
    """What a run of the notebook verifies: its `assert` statements and its cells with a compared output."""
    total = 0
    for cell in code_cells(notebook):
        text = source(cell)
        try:
            total += sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text)))
        except SyntaxError:  # a cell with a %magic
            total += len(re.findall(r"^\s*assert\b", text, re.MULTILINE))
        total += bool(COMPARED.search(text))
    return total


def count_exercises(notebook: Any) -> int:
    return sum("exercise" in tags(cell) for cell in code_cells(notebook))


# --- execution --------------------------------------------------------------------------------------------------------


def last_line(text: str) -> str:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def execute(notebook: Any, folder: Path, cell_seconds: float = CELL_SECONDS) -> str:
    """Run all cells of a notebook (changed in place) in a clean kernel; return the fault in one line, or ""."""
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    for cell in code_cells(notebook):
        cell["outputs"], cell["execution_count"] = [], None
    reached = [0]

    def note(cell: Any, cell_index: int) -> None:
        reached[0] = sum(other["cell_type"] == "code" for other in notebook["cells"][: cell_index + 1])

    client = NotebookClient(
        notebook,
        timeout=cell_seconds,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
        on_cell_execute=note,
    )
    try:
        client.execute(stderr=subprocess.DEVNULL)  # the kernel's log; what a cell writes to stderr is an output
    except CellExecutionError as error:
        return f"cell {reached[0]} raised {error.ename}: {last_line(str(error.evalue))}"
    except CellTimeoutError:
        return f"cell {reached[0]} ran longer than {cell_seconds:g} s"
    except DeadKernelError:
        return f"the kernel died in cell {reached[0]} (out of memory, or a crash in native code)"
    except NoSuchKernel:
        return "there is no Python kernel here: install ipykernel"
    return ""


def run_one(path: Path, cell_seconds: float = CELL_SECONDS) -> Result:
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    started = time.monotonic()
    fault = execute(notebook, path.parent, cell_seconds)
    seconds = time.monotonic() - started
    return Result(path, seconds, len(code_cells(notebook)), count_checks(notebook), count_exercises(notebook), fault)


def stored_form(fresh: Any, stored: Any, measure: bool, data: bool) -> Any:
    """The form in which a notebook is committed: fixed metadata, and kept outputs where cells ask for that."""
    kept = {"measured"} if not measure else set()
    kept |= set() if data else {"optional-data"}
    for new, old in zip(code_cells(fresh), code_cells(stored), strict=True):
        if kept & set(tags(new)) and old["outputs"]:
            new["outputs"] = old["outputs"]
        for output in new["outputs"]:
            if output["output_type"] == "execute_result":
                output["execution_count"] = new["execution_count"]
    for cell in fresh["cells"]:
        cell["metadata"] = {name: cell["metadata"][name] for name in CELL_METADATA if name in cell["metadata"]}
    fresh["metadata"] = json.loads(json.dumps(METADATA))
    return fresh


def renew(path: Path, measure: bool = False, cell_seconds: float = CELL_SECONDS) -> tuple[Result, bool]:
    """Execute a shipped notebook in place; on a fault the file stays as it was. Returns the result and "changed"."""
    import nbformat

    before = path.read_bytes()
    stored = nbformat.reads(before.decode("utf-8"), as_version=4)
    fresh = nbformat.reads(before.decode("utf-8"), as_version=4)
    started = time.monotonic()
    fault = execute(fresh, path.parent, cell_seconds)
    seconds = time.monotonic() - started
    result = Result(path, seconds, len(code_cells(fresh)), count_checks(fresh), count_exercises(fresh), fault)
    if fault:
        return result, False
    fresh = stored_form(fresh, stored, measure, data=bool(os.environ.get("GLASSBOX_DATA")))
    after = (nbformat.writes(fresh, version=nbformat.NO_CONVERT).rstrip("\n") + "\n").encode("utf-8")
    if after != before:
        aside = path.with_name(path.name + ".new")
        aside.write_bytes(after)
        os.replace(aside, path)
    return result, after != before


# --- the verbs --------------------------------------------------------------------------------------------------------


def table(rows: list[tuple[str, ...]], left: int = 1) -> str:
    """Rows as aligned columns: the first `left` ones to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def report(results: list[Result], root: Path = ROOT) -> str:
    head = ("notebook", "seconds", "cells", "checks", "exercises")
    rows = [
        (r.path.relative_to(root).as_posix(), f"{r.seconds:.1f}", str(r.cells), str(r.checks), str(r.exercises))
        for r in results
    ]
    total = ("the course" if len(results) != 1 else "together", f"{sum(r.seconds for r in results):.1f}")
    total += tuple(str(sum(getattr(r, name) for r in results)) for name in ("cells", "checks", "exercises"))
    lines = [table([head, *rows, total])]
    lines += [f"FAILED {r.path.relative_to(root).as_posix()}: {r.fault}" for r in results if r.fault]
    return "\n".join(lines)


def run(names: list[str], root: Path = ROOT) -> int:
    results = []
    for path in notebooks(root, names):
        print(f"running {path.relative_to(root).as_posix()} ...", flush=True)
        results.append(run_one(path))
    if not results:
        print("There is no notebook in this checkout.")
        return 1
    print(report(results, root))
    return int(any(r.fault for r in results))


def renew_all(names: list[str], measure: bool, root: Path = ROOT) -> int:
    failed = False
    for path in notebooks(root, names):
        result, changed = renew(path, measure)
        failed |= bool(result.fault)
        word = f"FAILED, file left as it was: {result.fault}" if result.fault else "renewed" if changed else "unchanged"
        print(f"{path.relative_to(root).as_posix()}  {result.seconds:.1f} s  {word}", flush=True)
    if not os.environ.get("GLASSBOX_DATA"):
        print("GLASSBOX_DATA is not set: cells tagged `optional-data` kept their stored outputs.")
    return int(failed)


MARKS = {"✓": "yours", "✗": "not right yet", "○": "not attempted yet"}


def exercise_states(notebook: Any) -> list[tuple[str, str]]:
    """Each exercise's name and its mark: that of the check's last stored output, or "·" where it has not run."""
    states = []
    for cell in code_cells(notebook):
        if "exercise" not in tags(cell):
            continue
        printed = "".join(
            text if isinstance(text, str) else "".join(text)
            for text in (output.get("text", "") for output in cell.get("outputs", []))
        )
        answers = re.findall(r"^([✓✗○]) ([\w.]+):", printed, re.MULTILINE)
        if answers:
            mark, name = answers[-1]
        else:
            named = re.findall(r"^(\w+)\s*=\s*(?:\w+\.)?check\(", source(cell), re.MULTILINE)
            mark, name = "·", named[-1] if named else "?"
        states.append((name, mark))
    return states


def progress(names: list[str], root: Path = ROOT) -> int:
    """Say which exercises of the working copies are solved, as their last saved run tells."""
    copies = notebooks(root / "my", names)
    if not copies:
        print("There are no working copies yet: `python start.py` makes them and opens the first notebook.")
        return 1
    rows, solved, total = [], 0, 0
    for path in copies:
        try:
            states = exercise_states(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            rows.append((path.parent.name, "?", "the notebook cannot be read: it is not valid JSON"))
            continue
        right = sum(mark == "✓" for _, mark in states)
        solved, total = solved + right, total + len(states)
        shown = "  ".join(f"{mark} {name}" for name, mark in states)
        rows.append((path.parent.name, f"{right} of {len(states)}", shown or "no exercises"))
    print(table(rows, left=3))
    print(f"{solved} of {total} exercises are solved. ✓ yours, ✗ not right yet, ○ not attempted yet, · not run yet.")
    print("This reads the saved notebooks: save yours first (Ctrl-S).")
    return 0


def main(arguments: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog="python start.py", description="Execute the notebooks of the course.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("run", "notebooks", "progress"):
        sub = verbs.add_parser(verb)
        sub.add_argument("names", nargs="*", help="parts of notebook paths (default: all)")
        if verb == "notebooks":
            sub.add_argument("--measure", action="store_true", help="renew the outputs of cells tagged `measured` too")
    chosen = parser.parse_args(arguments)
    os.environ.pop("MPLBACKEND", None)  # the kernels draw into the notebook
    if chosen.verb == "run":
        return run(chosen.names)
    if chosen.verb == "notebooks":
        return renew_all(chosen.names, chosen.measure)
    return progress(chosen.names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
