"""What the studies of module 05 share: their command line, and the tables that they write and tests read."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from glassbox.training_pictures import numbers
from run import one_thread

Row = dict[str, float | int | str]


def command(about: str | None, smoke: str) -> argparse.ArgumentParser:
    """The options --smoke and --write. Times are those of one thread, so from here on there is one only."""
    one_thread()
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help=smoke)
    parser.add_argument("--write", type=Path, metavar="CSV", help="also write the table to this file")
    return parser


def write(rows: Sequence[Row], path: Path, columns: Sequence[str]) -> None:
    """Write a table, numbers with four digits, what a row lacks as blank."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read(path: Path) -> list[Row]:
    """The rows of a table, with numbers where there are numbers; what is blank is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        return numbers(list(csv.DictReader(file)))
