"""What the house rules know about the course, and how they read its files."""

from __future__ import annotations

import ast
import functools
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# --- What the rules know about the course ----------------------------------------------------------------------------

PLAN = (
    "00_basics",
    "01_tokenizer",
    "02_preprocessing",
    "03_attention",
    "04_gpt2",
    "05_loss",
    "06_load_weights",
    "07_finetune",
    "08_moe",
)
INFRASTRUCTURE = {  # files that every module may use and none has to show, each with the reason
    "lab": "the workbench of every notebook: seeds, devices, plot style",
    "checking": "the part of the workbench that answers exercises",
    "comparing": "the part of the workbench that compares two results",
    "patience": "the part of the workbench that stops an endless loop",
    "datasets": "the part of the workbench that finds and fetches data sets",
    "tales": "the generator of the corpus: a subject of its own, documented in data/README.md",
    "tales_grammar": "the part of the generator that reads the grammar and walks through it",
    "tales_data": "the files, task sets and counts of the corpus",
    "tales_bpe": "the command that trains the course's own vocabulary and writes its files",
    "tales_exam": "the part of the laboratory that scores models on unseen tales, against the floor",
    "tales_reading": "the part of the laboratory that reads what a model wrote, up to the first impossible word",
    "tales_gpt": "the command that writes the embedded model's files and its card; 06 teaches how weights are loaded",
    "tales_gpt_card": "the part of that command that writes the card",
    "tales_gpt_scores": "the part of that command that scores the model and its rivals",
    "training_command": "the command line: what it does",
    "training_options": "the command line: what it understands and refuses",
    "training_tables": "the format of a run's tables, and how a kill leaves them whole",
    "unicode_classes": "the table of Unicode's letters and numbers, which Python's regular expressions lack",
}
PLUMBING: dict[str, str] = {  # `file.name` of what a helper ships and its notebook need not show, with the reason
    "vocabulary.Vocabulary": "the formats of vocabulary files, and what is refused in them",
    "token_file.TokenFile": "the format of token files, and what is refused in them",
    "token_file.write_tokens": "the same, and how a killed run goes on; the notebook shows the idea in a few lines",
    "training.Run": "the bookkeeping of a training: rows of its tables, what resumes, what to say when it diverged",
    "training_data.Source": "the type of what a training reads",
    "training_data.TalesBatches": "reading by number, so that a run resumes; the notebook says what it does",
    "training_data.TokenBatches": "the same, for files",
    "training_data.open_tokens": "opening files, and what is refused in them",
    "training_state.Checkpoints": "the format of checkpoints, and how a kill at any moment leaves one whole",
    "lstm_model.LSTMConfig": "the opponent: 03's LSTM between a token table and its tied head",
    "lstm_model.LSTMModel": "the same",
    "lstm_model.lstm_flops_per_token": "the same, counted as 04 counts a GPT's",
    "processes.ALONE": "process groups",
    "processes.OtherProcessError": "process groups",
    "processes.Processes": "process groups; the notebook does the all-reduce by hand",
    "processes.join": "process groups",
}
WORKBENCH = {"lab", "tales"}  # the infrastructure that notebooks import; its names are taken everywhere
SPEAKING = {"lab", "checking"}  # the workbench prints on purpose
BRANCH = "main"
COLAB = "https://colab.research.google.com/github/"
TAGS = {"bootstrap", "exercise", "measured", "optional-data", "training"}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
BOOTSTRAP_METADATA = {"jupyter": {"source_hidden": True}, "tags": ["bootstrap"]}
BOOTSTRAP_LINES, IMPORT_LINES, LONG_CELL, LONGEST_CELL, LONG_CELLS, IN_A_ROW = 15, 8, 25, 45, 3, 3
MEDIAN_LINES, WORDS_A_LINE, CORE_CELLS, COMPARED, SECTIONS, NOTEBOOK_BYTES = 7, (4, 12), 45, 8, (4, 8), 300_000
FIGURE_WIDTH, HELPER_LINES, EXERCISES = 700, 400, 3
MAP_START, MAP_END = "<!-- modules:start -->", "<!-- modules:end -->"

BOOTSTRAP = """\
# @title Set-up: finds the course, or fetches it (the same cell in every notebook)
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from subprocess import run

if (found := find_spec("glassbox")) and found.origin:
    raise ImportError(f"{found.origin} is another package of the name glassbox: uninstall it and restart the kernel")
if not found or not find_spec("glassbox.lab"):
    new, home = Path("glass-box").absolute(), "@REPOSITORY@"
    course = next((p for p in new.parents if (p / "00_basics/glassbox/lab.py").exists()), new)
    course.exists() or run(["git", "clone", "-q", "--depth=1", os.environ.get("GLASSBOX_REPO", home), new], check=True)
    sys.path[:0] = sorted(map(str, course.glob("[0-9][0-9]_*")))
if missing := [name for name in (@LIGHT@) if not find_spec(name)]:
    run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
"""


# --- Reading the tree ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook, with what the rules ask of it."""

    number: int
    kind: str
    source: str
    name: str
    metadata: dict[str, Any]
    outputs: tuple[dict[str, Any], ...]
    count: int | None

    @property
    def code(self) -> bool:
        return self.kind == "code"

    @property
    def tags(self) -> set[str]:
        return set(self.metadata.get("tags", ()))

    @property
    def lines(self) -> int:
        return sum(1 for line in self.source.splitlines() if line.strip())

    @functools.cached_property
    def tree(self) -> ast.Module:
        return parse_cell(self.source)

    @functools.cached_property
    def output_text(self) -> str:
        """Everything that the outputs say in words: streams, text and HTML, no pictures."""
        return "\n".join(output_words(self.outputs))

    @property
    def has_figure(self) -> bool:
        return any(kind.startswith("image/") for out in self.outputs for kind in out.get("data", {}))


@dataclass(frozen=True)
class Notebook:
    path: Path
    text: str
    book: dict[str, Any]
    cells: tuple[Cell, ...]

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.code]


@dataclass(frozen=True)
class Module:
    """A numbered folder of the course."""

    root: Path
    folder: str

    @property
    def number(self) -> int:
        return int(self.folder[:2])

    @property
    def name(self) -> str:
        return self.folder[3:]

    @property
    def title(self) -> str:
        return f"{self.folder[:2]} {self.name}"

    @property
    def path(self) -> Path:
        return self.root / self.folder

    @property
    def notebook_path(self) -> Path:
        return self.path / f"{self.name}.ipynb"

    @property
    def notebook(self) -> Notebook | None:
        return read_notebook(self.notebook_path)

    @property
    def helpers(self) -> list[Path]:
        """The folder's files in `glassbox/`, the one that bears the folder's name first."""
        files = sorted((self.path / "glassbox").glob("*.py"))
        return sorted((f for f in files if f.stem != "__init__"), key=lambda f: (f.stem != self.name, f.stem))


def modules(root: Path) -> list[Module]:
    """The numbered folders that exist, in order."""
    folders = sorted(p.name for p in root.glob("[0-9][0-9]_*") if p.is_dir())
    return [Module(root, f) for f in folders if re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", f)]


def text_of(value: str | list[str] | None) -> str:
    return value if isinstance(value, str) else "".join(value or ())


def output_words(outputs: Iterable[dict[str, Any]]) -> Iterator[str]:
    for out in outputs:
        yield text_of(out.get("text"))
        yield "\n".join(out.get("traceback", ()))
        for kind, data in out.get("data", {}).items():
            if not kind.startswith("image/") or kind == "image/svg+xml":
                yield text_of(data) if isinstance(data, (str, list)) else json.dumps(data)


def parse_cell(source: str) -> ast.Module:
    """The syntax tree of a code cell; IPython's own lines (%, !) left out; a fault gives nothing."""
    if source.lstrip().startswith("%%"):
        return ast.Module([], [])
    plain = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source)
    try:
        return ast.parse(plain)
    except SyntaxError:
        return ast.Module([], [])


def stamp(path: Path) -> tuple[str, int, int]:
    """A key under which the reading of a file may be kept."""
    state = path.stat()
    return str(path), state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=256)
def _read_notebook(key: tuple[str, int, int]) -> Notebook | None:
    path = Path(key[0])
    text = path.read_text("utf-8")
    try:
        book = json.loads(text)
        cells = tuple(
            Cell(
                number,
                cell.get("cell_type", ""),
                text_of(cell.get("source")),
                cell.get("id", ""),
                cell.get("metadata", {}),
                tuple(cell.get("outputs", ())),
                cell.get("execution_count"),
            )
            for number, cell in enumerate(book["cells"], 1)
        )
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return Notebook(path, text, book, cells)


def read_notebook(path: Path) -> Notebook | None:
    """The notebook, or None where the file is missing or is no notebook."""
    return _read_notebook(stamp(path)) if path.is_file() else None


@functools.lru_cache(maxsize=256)
def _read_python(key: tuple[str, int, int]) -> ast.Module:
    try:
        return ast.parse(Path(key[0]).read_text("utf-8"))
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def read_python(path: Path) -> ast.Module:
    """The syntax tree of a file; an empty one where it does not parse (ruff names that fault)."""
    return _read_python(stamp(path)) if path.is_file() else ast.Module([], [])


def project(root: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return {}


def repository(root: Path) -> str:
    """Where the course lives: written once, in [project.urls]."""
    return project(root).get("project", {}).get("urls", {}).get("Repository", "").rstrip("/")


KEPT, LEFT_OUT = {".github", ".ci"}, {"my", "dist", "build"}  # where git is not there to ask


def project_files(root: Path, *endings: str) -> list[Path]:
    """The files of the project that end so: what git tracks or would track, without git every file not hidden."""
    listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names: list[str] = []
    if (root / ".git").exists() and shutil.which("git"):
        done = subprocess.run(listing, capture_output=True, check=False)
        names = sorted(set(done.stdout.decode("utf-8", "surrogateescape").split("\0")) - {""})
    if not names:
        found = (p.relative_to(root) for p in root.rglob("*"))
        names = sorted(
            p.as_posix()
            for p in found
            if p.parts[0] in KEPT or not (p.parts[0].startswith(".") or p.parts[0] in LEFT_OUT)
        )
    files = (root / name for name in names if "__pycache__" not in name and ".ipynb_checkpoints" not in name)
    return [f for f in files if f.is_file() and (not endings or f.name.endswith(endings))]


def place(root: Path, path: Path, cell: Cell | None = None, line: int | None = None) -> str:
    """Where a fault is, in words."""
    words = path.relative_to(root).as_posix()
    if cell:
        words += f" cell {cell.number} ({cell.name or 'no id'})"
    return words + (f" line {line}" if line else "")


def notebooks(root: Path) -> Iterator[tuple[Module, Notebook]]:
    for module in modules(root):
        if book := module.notebook:
            yield module, book


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


LINK = re.compile(r"(?m)^\[Open in Colab\]\([^)\n]*\)[ \t]*$")


MAP = re.compile(r"(?m)^Map:.*$")


FENCE = re.compile(r"(?ms)^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$")


def outside_fences(text: str) -> str:
    """Markdown with its fenced blocks blanked, line for line."""
    return FENCE.sub(lambda m: "\n" * m[0].count("\n"), text)


EXERCISE = re.compile(r"(?m)^### Exercise (\d+) (★{1,3}) \((\d+) min\): \S")


def exercise_headings(book: Notebook) -> list[tuple[Cell, int]]:
    cells = (cell for cell in book.cells if not cell.code)
    return [(cell, int(m[1])) for cell in cells for m in EXERCISE.finditer(outside_fences(cell.source))]


@dataclass(frozen=True)
class Page:
    """A stretch of Markdown: a whole file, or one text cell."""

    path: Path
    text: str
    cell: Cell | None = None


def pages(root: Path) -> Iterator[Page]:
    """Every Markdown text of the project."""
    for path in project_files(root, ".md"):
        yield Page(path, path.read_text("utf-8"))
    for _, book in notebooks(root):
        for cell in book.cells:
            if not cell.code:
                yield Page(book.path, cell.source, cell)
