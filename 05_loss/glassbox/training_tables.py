"""The small files of a training: written so that a kill leaves the old or the new one, and read though edited."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from glassbox.preprocessing import check_size

__all__ = ["read_rows", "table", "write_atomically"]

PARTIAL = ".partial-"  # how the name of everything begins that is not whole yet


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that it is the old one or the new one at any moment, and on the disk when this returns."""
    aside = path.with_name(f"{PARTIAL}{path.name}-{os.getpid()}")
    try:
        with open(aside, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until the file or folder is on the disk."""
    if path.is_dir() and sys.platform == "win32":
        return  # which opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_rows(path: Path, until: int) -> list[dict[str, float]]:
    """The rows of a CSV file up to step `until`; those after it belong to steps that will be taken again.

    Rows that are no rows of numbers (cut by an editor) are left out. Raises ValueError where there is no column "step".
    """
    until = check_size("until", until, 0)
    if not path.exists():
        return []
    text = path.read_text("utf-8-sig", errors="replace")
    lines = text[: text.rfind("\n") + 1].splitlines()  # a last line without its end may be cut inside a number
    if lines and lines[0] and "step" not in lines[0].split(","):
        raise ValueError(f"{path} is no table of a training: its first line names no step. Move it away, or mend it")
    rows = []
    for row in csv.DictReader(lines):
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            rows.append({name: _value(cell) for name, cell in row.items() if cell != ""})
    return [row for row in rows if row.get("step", math.inf) <= until]


def table(rows: Iterable[Mapping[str, float]]) -> str:
    """Rows as the text of a CSV file: whole numbers without a point, others with six digits, nothing for what lacks."""
    rows = list(rows)
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(_number(row[name]) if name in row else "" for name in names) for row in rows)]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def _value(cell: str) -> float:
    return int(cell) if cell.isdigit() else float(cell)
