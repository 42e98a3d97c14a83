"""The form of a notebook: opening, sections, cells, outputs, exercises; and times are never asserted."""

from __future__ import annotations

import ast
import base64
import binascii
import re
import statistics
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rules.source import course_imports, definitions, dotted, is_stub, last_name, solution_blocks
from rules.tree import (
    COMPARED,
    CORE_CELLS,
    EXERCISE,
    EXERCISES,
    FIGURE_WIDTH,
    IMPORT_LINES,
    IN_A_ROW,
    LINK,
    LONG_CELL,
    LONG_CELLS,
    LONGEST_CELL,
    MAP,
    MEDIAN_LINES,
    NOTEBOOK_BYTES,
    SECTIONS,
    TAGS,
    WORDS_A_LINE,
    Cell,
    Notebook,
    exercise_headings,
    notebooks,
    outside_fences,
    parse_cell,
    place,
    plural,
    project_files,
    read_python,
    text_of,
)

# --- The form of a notebook ------------------------------------------------------------------------------------------

SECTION = re.compile(r"(?m)^## (.+?)[ \t]*$")
FREE_HEADINGS = ("Check it against the real thing", "Recap", "Quiz", "Half-way", "What")


def imports_cell(book: Notebook) -> Cell | None:
    return book.code[1] if len(book.code) > 1 else None


def rule_opening(root: Path) -> list[str]:
    """A notebook opens with title, question, what you will build, what you need, minutes; then set-up and imports."""
    faults = []
    for module, book in notebooks(root):
        where = place(root, book.path)
        if not book.cells or book.cells[0].code:
            faults.append(f"{where}: opens with code: the first cell is the title page.")
            continue
        first = book.cells[0].source
        title = rf"# {module.folder[:2]} · \S.*"
        if not re.fullmatch(title, first.partition("\n")[0]):
            faults.append(f"{where} cell 1: the first line is `# {module.folder[:2]} · title`.")
        paragraphs = [p for p in re.split(r"\n\s*\n", first)[1:] if not LINK.match(p) and not MAP.match(p)]
        if not paragraphs or "?" not in paragraphs[0] or paragraphs[0].startswith(("**", "#", "-", "|")):
            faults.append(
                f"{where} cell 1: after the link comes a paragraph with the question this notebook answers (`?`)."
            )
        for label in ("You will build", "You need", "Minutes"):
            if not re.search(rf"(?m)^(?:[-*] )?\*\*{label}\b[^*\n]*\*\*", first):
                faults.append(f"{where} cell 1: has no line that begins with **{label}**.")
        second = imports_cell(book)
        if second is None:
            faults.append(f"{where}: has no cell of imports after the set-up cell.")
            continue
        if second.lines > IMPORT_LINES:
            faults.append(
                f"{place(root, book.path, second)}: {second.lines} lines; imports and seed have at most {IMPORT_LINES}."
            )
        calls = {last_name(n) for n in ast.walk(second.tree) if isinstance(n, ast.Call)}
        if "seed_everything" not in calls or not any(True for _ in course_imports(second.tree)):
            faults.append(
                f"{place(root, book.path, second)}: imports from glassbox and calls seed_everything(): it does not."
            )
    return faults


@dataclass(frozen=True)
class Part:
    """The cells under one level-2 heading; the part before the first heading has the heading ''."""

    heading: str
    cells: tuple[Cell, ...]

    @property
    def mark(self) -> str:
        return next((m for m in ("Core", "Depth") if self.heading.endswith(f" · {m}")), "")


def parts(book: Notebook) -> list[Part]:
    found: list[tuple[str, list[Cell]]] = [("", [])]
    for cell in book.cells:
        if not cell.code:
            for heading in SECTION.findall(outside_fences(cell.source)):
                found.append((heading, []))
        found[-1][1].append(cell)
    return [Part(heading, tuple(cells)) for heading, cells in found]


def bound_names(tree: ast.Module) -> set[str]:
    """Every name that a cell's top level binds, imports and loops included."""
    names: set[str] = set()
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue
        if isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        if isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        stack.extend(ast.iter_child_nodes(node))
    return names


def used_names(tree: ast.Module) -> set[str]:
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def rule_sections(root: Path) -> list[str]:
    """Four to eight sections marked Core or Depth, each with an assertion; no Core cell leans on a Depth cell."""
    faults = []
    for _, book in notebooks(root):
        where = place(root, book.path)
        pieces = parts(book)
        marked = [p for p in pieces if p.mark]
        if not SECTIONS[0] <= len(marked) <= SECTIONS[1]:
            faults.append(
                f"{where}: {len(marked)} sections are marked Core or Depth; {SECTIONS[0]} to {SECTIONS[1]} are right."
            )
        first_code = book.code[0].number if book.code else 0
        for part in pieces[1:]:
            free = part.heading.startswith(FREE_HEADINGS) or part.cells[0].number < first_code
            if not part.mark and not free:
                faults.append(f"{where}: the section `{part.heading}` ends in neither ` · Core` nor ` · Depth`.")
            asserts = any("assert" in cell.source for cell in part.cells if cell.code)
            if part.mark and not asserts:
                faults.append(
                    f"{where}: the section `{part.heading}` asserts nothing: assert a shape or a number in it."
                )
        core = [c for p in pieces if p.mark != "Depth" for c in p.cells if c.code]
        if len(core) > CORE_CELLS + 2:  # the set-up and the imports are no lesson
            faults.append(
                f"{where}: {len(core) - 2} code cells outside Depth; at most {CORE_CELLS}: mark sections as Depth."
            )
        in_core: set[str] = set()
        in_depth: set[str] = set()
        for part in pieces:
            for cell in (c for c in part.cells if c.code):
                if part.mark == "Depth":
                    in_depth |= bound_names(cell.tree)
                    continue
                own = bound_names(cell.tree)
                for name in sorted((used_names(cell.tree) & in_depth) - in_core - own):
                    faults.append(
                        f"{place(root, book.path, cell)}: a Core cell uses {name}, which only a Depth section defines: "
                        "define it in a Core section."
                    )
                in_core |= own
        for name in FREE_HEADINGS[:2]:
            if not any(p.heading.startswith(name) for p in pieces):
                faults.append(f"{where}: has no section `## {name}`.")
        if not pieces[-1].heading.startswith("Recap"):
            faults.append(f"{where}: the last section is `{pieces[-1].heading}`, not the Recap.")
        recap = "\n".join(c.source for c in pieces[-1].cells if not c.code)
        if not re.search(r"(?m)^\| *name *\| *file *\| *who imports it next *\|", recap):
            faults.append(f"{where}: the recap has no table `| name | file | who imports it next |`.")
        for label in ("Questions to think about", "Papers", "Next"):
            if not re.search(rf"(?m)^(?:[-*] )?\*\*{label}", recap):
                faults.append(f"{where}: the recap has no paragraph that begins with **{label}**.")
    return faults


def rule_cells(root: Path) -> list[str]:
    """Cells are short, mixed with prose, tagged and named as agreed."""
    faults = []
    for _, book in notebooks(root):
        where = place(root, book.path)
        lessons = [cell for cell in book.code if "bootstrap" not in cell.tags]
        long = [cell for cell in lessons if cell.lines > LONG_CELL]
        if len(long) > LONG_CELLS:
            numbers = ", ".join(str(c.number) for c in long)
            faults.append(
                f"{where}: {len(long)} cells of over {LONG_CELL} lines (cells {numbers}); at most {LONG_CELLS}: split."
            )
        for cell in lessons:
            at = place(root, book.path, cell)
            if cell.lines > LONGEST_CELL:
                faults.append(f"{at}: {cell.lines} lines; no cell has over {LONGEST_CELL}: split it.")
            if not cell.source.strip():
                faults.append(f"{at}: is empty: remove it.")
            if cell.source.rstrip().endswith(";"):
                faults.append(
                    f"{at}: ends in `;`, which the strict comparison of outputs cannot take: write `_ = ...`."
                )
            if cell.tags - TAGS:
                faults.append(
                    f"{at}: unknown tag {', '.join(sorted(cell.tags - TAGS))}: known are {', '.join(sorted(TAGS))}."
                )
            if set(cell.metadata) - {"tags"}:
                extra = ", ".join(sorted(set(cell.metadata) - {"tags"}))
                faults.append(f"{at}: has the metadata {extra}: only tags are kept.")
            if not cell.source.lstrip().startswith("%%") and not parses(cell.source):
                faults.append(f"{at}: is no Python that can be read: mend the syntax.")
        if lessons and statistics.median(c.lines for c in lessons) > MEDIAN_LINES:
            median = statistics.median(c.lines for c in lessons)
            faults.append(
                f"{where}: the median code cell has {median:g} lines; 5 is the aim, {MEDIAN_LINES} the most: split."
            )
        for cell, run in runs_of_code(book):
            if run == IN_A_ROW + 1:
                faults.append(
                    f"{place(root, book.path, cell)}: the code cell number {run} in a row: put a sentence between."
                )
        code_lines = sum(cell.lines for cell in lessons)
        words = sum(len(cell.source.split()) for cell in book.cells if not cell.code)
        low, high = WORDS_A_LINE
        if code_lines and not low <= words / code_lines <= high:
            ratio = f"{words / code_lines:.1f} words of prose per line of code"
            faults.append(f"{where}: {ratio}; 5 to 10 is the aim, {low} to {high} the limits.")
        names = [cell.name for cell in book.cells]
        for cell in book.cells:
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", cell.name):
                faults.append(f"{place(root, book.path, cell)}: has no valid id: give it one and keep it.")
            elif names.index(cell.name) != cell.number - 1:
                faults.append(
                    f"{place(root, book.path, cell)}: has the id of cell {names.index(cell.name) + 1}: ids differ."
                )
            if not cell.code and cell.metadata:
                faults.append(f"{place(root, book.path, cell)}: a text cell has metadata: remove it.")
            if "attachments" in book.book["cells"][cell.number - 1]:
                faults.append(
                    f"{place(root, book.path, cell)}: has an attachment: put the picture beside the notebook."
                )
    return faults


def parses(source: str) -> bool:
    try:
        ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source))
    except SyntaxError:
        return False
    return True


def runs_of_code(book: Notebook) -> Iterator[tuple[Cell, int]]:
    """Each code cell with its place in the unbroken run of code cells."""
    run = 0
    for cell in book.cells:
        run = run + 1 if cell.code else 0
        if cell.code:
            yield cell, run


def png_width(data: str) -> int:
    try:
        head = base64.b64decode(data[:64] + "=" * (-len(data[:64]) % 4))
        return struct.unpack(">I", head[16:20])[0]
    except (binascii.Error, ValueError, struct.error):
        return 0


STAINS = (
    (
        re.compile(r"/(?:home|root|Users|tmp|opt|content|private/var)/|[A-Z]:\\\\?\w"),
        "a path of the machine that ran it",
    ),
    (re.compile(r"\b\w*[wW]arning:"), "a warning"),
    (re.compile(r"\d+%\|| \d+(?:\.\d+)?(?:it/s|s/it)\b"), "the rest of a progress bar"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d|\b\d\d:\d\d:\d\d\b"), "a time stamp"),
    (re.compile(r"\bat 0x[0-9a-f]{6,}"), "a memory address"),
)


def rule_outputs(root: Path) -> list[str]:
    """Outputs are there, come from one clean run, and hold nothing that the next run would change."""
    faults = []
    for _, book in notebooks(root):
        where = place(root, book.path)
        if [cell.count for cell in book.code] != list(range(1, len(book.code) + 1)):
            faults.append(f"{where}: cells are not numbered 1..n: execute all of it in a clean kernel.")
        if len(book.text.encode()) > NOTEBOOK_BYTES:
            kilobytes = len(book.text.encode()) // 1000
            faults.append(
                f"{where}: {kilobytes} kB; under {NOTEBOOK_BYTES // 1000} kB: draw fewer or simpler pictures."
            )
        if "widgets" in book.book.get("metadata", {}) or "application/vnd.jupyter.widget" in book.text:
            faults.append(f"{where}: widget state is stored, and GitHub then refuses the notebook: clear it.")
        if book.code and not any(cell.outputs for cell in book.code):
            faults.append(f"{where}: has no outputs: commit it executed.")
        compared = [c for c in book.code if re.search(r"(?m)^\s*#\s*NBVAL_CHECK_OUTPUT\s*$", c.source)]
        if len(compared) < COMPARED:
            faults.append(f"{where}: {len(compared)} cells carry `# NBVAL_CHECK_OUTPUT`; at least {COMPARED}.")
        for cell in book.code:
            at = place(root, book.path, cell)
            if cell in compared and not cell.outputs:
                faults.append(f"{at}: is to be compared but has no output: print the result.")
            if cell in compared and cell.tags & {"measured", "optional-data"}:
                faults.append(
                    f"{at}: is compared although it is tagged as changing: drop NBVAL_CHECK_OUTPUT or the tag."
                )
            if not cell.outputs and any(top_level_call(s) in {"print", "check"} for s in cell.tree.body):
                faults.append(f"{at}: prints, but no output is stored: execute the notebook.")
            for out in cell.outputs:
                kind = out.get("output_type")
                if kind == "error":
                    faults.append(f"{at}: an error is stored: mend it and execute again.")
                if kind == "stream" and out.get("name") == "stderr":
                    faults.append(
                        f"{at}: something on stderr is stored: a warning or a progress bar; silence its cause."
                    )
                if "execution" in out.get("metadata", {}):
                    faults.append(f"{at}: time stamps are stored: execute with record_timing=False.")
                if png := out.get("data", {}).get("image/png"):
                    size = out.get("metadata", {}).get("image/png", {}).get("width") or png_width(text_of(png))
                    if size > FIGURE_WIDTH:
                        faults.append(
                            f"{at}: a figure of {size} pixels; at most {FIGURE_WIDTH} wide: see lab.use_style()."
                        )
            for pattern, what in STAINS:
                if match := pattern.search(cell.output_text):
                    faults.append(f"{at}: {what} is stored: `{match[0]}`. Print something that every run repeats.")
            following = book.cells[cell.number] if cell.number < len(book.cells) else None
            if cell.has_figure and (following is None or following.code):
                faults.append(f"{at}: a figure is followed by no sentence: say what to see in it.")
    return faults


def top_level_call(node: ast.stmt) -> str:
    value = getattr(node, "value", None) if isinstance(node, (ast.Expr, ast.Assign)) else None
    return last_name(value) if isinstance(value, ast.Call) else ""


def rule_exercises(root: Path) -> list[str]:
    """Exercises: specification, stub and check, then hint and solution folded; numbered in order."""
    faults = []
    for _, book in notebooks(root):
        where = place(root, book.path)
        headings = exercise_headings(book)
        if len(headings) < EXERCISES:
            faults.append(
                f"{where}: {plural(len(headings), 'exercise')}; at least {EXERCISES}: `### Exercise 1 ★ (10 min): ...`."
            )
        if [n for _, n in headings] != list(range(1, len(headings) + 1)):
            faults.append(f"{where}: the exercises are not numbered 1, 2, 3 ... in order.")
        for cell in book.cells:
            if not cell.code and len(EXERCISE.findall(cell.source)) < len(
                re.findall(r"(?m)^### Exercise", cell.source)
            ):
                faults.append(f"{place(root, book.path, cell)}: a heading reads `### Exercise 2 ★★ (15 min): task`.")
        tagged = [cell for cell in book.code if "exercise" in cell.tags]
        if len(tagged) != len(headings):
            faults.append(
                f"{where}: {len(headings)} exercise headings, but {len(tagged)} code cells tagged exercise: one each."
            )
        for cell, _ in headings:
            following = book.cells[cell.number] if cell.number < len(book.cells) else None
            if following is None or "exercise" not in following.tags:
                faults.append(f"{place(root, book.path, cell)}: is not followed by the code cell tagged exercise.")
        for cell in tagged:
            at = place(root, book.path, cell)
            functions = [n for n in cell.tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
            stubs = {f.name for f in functions if any(is_stub(n) for n in ast.walk(f))}
            checked = {
                dotted(n.targets[0])
                for n in cell.tree.body
                if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call) and last_name(n.value) == "check"
            }
            if not stubs:
                faults.append(
                    f"{at}: has no stub: a function whose body is a docstring and `raise NotImplementedError`."
                )
            if not checked or not checked <= stubs:
                faults.append(f"{at}: does not end in `name = check(name, ...)` for its stub.")
            following = book.cells[cell.number] if cell.number < len(book.cells) else None
            text = following.source if following and not following.code else ""
            for summary in ("Hint", "Solution"):
                if not re.search(rf"<details>\s*<summary>{summary}</summary>[ \t]*\n[ \t]*\n", text):
                    faults.append(
                        f"{at}: the next cell has no `<details><summary>{summary}</summary>` and an empty line."
                    )
            if text.count("<details>") != text.count("</details>"):
                faults.append(f"{at}: <details> and </details> do not pair in the next cell.")
            solved = {n for block in solution_blocks(text) for n, _ in definitions(parse_cell(block))}
            for name in sorted(stubs - solved):
                faults.append(f"{at}: the folded solution does not define {name} in a ```python block.")
    return faults


# --- Times are never asserted ----------------------------------------------------------------------------------------

CLOCKS = {"time", "perf_counter", "process_time", "monotonic", "thread_time"}
CLOCKS |= {f"{clock}_ns" for clock in CLOCKS} | {"timeit", "repeat"}
CLOCK_WORDS = re.compile(r"\b(?:import time|from time|timeit)\b|%time")


def reads_clock(node: ast.AST) -> bool:
    """Whether an expression calls a clock, as `time.perf_counter()`, `perf_counter()` or `timeit.timeit(...)`."""
    if not isinstance(node, ast.Call):
        return False
    name = last_name(node)
    if isinstance(node.func, ast.Attribute):
        return name in CLOCKS and dotted(node.func.value) in {"time", "timeit"}
    return name in CLOCKS - {"time", "repeat"}


class _Times:
    """Follows which names hold a time. The ratio of two times is none."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def is_time(self, node: ast.AST | None) -> bool:
        if node is None:
            return False
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.BinOp):
            left, right = self.is_time(node.left), self.is_time(node.right)
            if isinstance(node.op, (ast.Div, ast.FloorDiv)):
                return left and not right
            return left or right
        if isinstance(node, ast.Call):
            if reads_clock(node) or self.is_time(node.func):
                return True
            return any(self.is_time(a) for a in node.args)
        if isinstance(node, (ast.Compare, ast.Constant, ast.Lambda)):
            return False
        return any(self.is_time(child) for child in ast.iter_child_nodes(node))

    def learn(self, nodes: list[ast.AST]) -> None:
        bindings = [n for n in nodes if isinstance(n, (ast.Assign, ast.AnnAssign, ast.AugAssign))]
        functions = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
        returns = {f.name: [n.value for n in ast.walk(f) if isinstance(n, ast.Return)] for f in functions}
        known = -1
        while known != len(self.names):  # names may depend on names bound further down
            known = len(self.names)
            for node in bindings:
                if self.is_time(node.value):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    self.names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            self.names |= {name for name, values in returns.items() if any(map(self.is_time, values))}

    def faults(self, nodes: list[ast.AST]) -> Iterator[int]:
        for node in nodes:
            if not isinstance(node, ast.Assert):
                continue
            for test in ast.walk(node.test):
                if isinstance(test, ast.Compare):
                    sides = [test.left, *test.comparators]
                    numbers = any(isinstance(n, ast.Constant) for s in sides for n in ast.walk(s))
                    if numbers and any(map(self.is_time, sides)) and not all(map(self.is_time, sides)):
                        yield node.lineno


def rule_times(root: Path) -> list[str]:
    """No assertion compares a time with a number; what shows a time is tagged measured."""
    faults = []
    mend = (
        "times depend on the machine: compare two, measured in the same run, as a ratio (a limit against hanging is a "
        "`timeout=`)."
    )
    for _, book in notebooks(root):
        if not CLOCK_WORDS.search("\n".join(cell.source for cell in book.code)):
            continue
        times = _Times()
        for cell in book.code:
            nodes = list(ast.walk(cell.tree))
            times.learn(nodes)
            at = place(root, book.path, cell)
            faults += [f"{at} line {line}: asserts an absolute time: {mend}" for line in times.faults(nodes)]
            clock = any(map(reads_clock, nodes)) or re.search(r"(?m)^\s*%%?time", cell.source)
            if clock and cell.outputs and "measured" not in cell.tags:
                faults.append(f"{at}: reads a clock and shows an output, but is not tagged measured: tag it.")
    for path in project_files(root, ".py"):
        source = path.read_text("utf-8")
        if "assert" not in source or not CLOCK_WORDS.search(source):
            continue
        nodes, times = list(ast.walk(read_python(path))), _Times()
        times.learn(nodes)
        faults += [f"{place(root, path, line=line)}: asserts an absolute time: {mend}" for line in times.faults(nodes)]
    return faults
