"""What is generated from a template or from the tree: links to Colab, maps, set-up cells, the README table."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from rules.pages import question
from rules.source import exempt, public_names
from rules.tree import (
    BOOTSTRAP,
    BOOTSTRAP_LINES,
    BOOTSTRAP_METADATA,
    BRANCH,
    COLAB,
    LINK,
    MAP,
    MAP_END,
    MAP_START,
    METADATA,
    PLAN,
    Module,
    exercise_headings,
    modules,
    notebooks,
    place,
    plural,
    project,
    project_files,
    read_python,
    repository,
    text_of,
)


def bootstrap(root: Path) -> str:
    """The set-up cell, the same in every notebook."""
    needs = project(root).get("project", {}).get("dependencies", ())
    names = [re.split(r"[^A-Za-z0-9_.-]", need, maxsplit=1)[0].replace("-", "_") for need in needs]
    light = ", ".join(f'"{name}"' for name in sorted(names) if name != "torch")
    return BOOTSTRAP.replace("@REPOSITORY@", repository(root)).replace("@LIGHT@", light).rstrip("\n")


def colab_address(module: Module) -> str:
    slug = repository(module.root).removeprefix("https://github.com/")
    return f"{COLAB}{slug}/blob/{BRANCH}/{module.folder}/{module.name}.ipynb"


def colab_link(module: Module) -> str:
    return f"[Open in Colab]({colab_address(module)})"


def course_map(module: Module) -> str:
    """One line with all modules: this one marked, those that exist linked, those to come by name."""
    there = {m.folder: m for m in modules(module.root)}
    entries = []
    for folder in sorted({*PLAN, *there}):
        title = f"{folder[:2]} {folder[3:]}"
        if folder == module.folder:
            entries.append(f"**{title}**")
        elif folder in there and there[folder].notebook_path.is_file():
            entries.append(f"[{title}](../{folder}/{folder[3:]}.ipynb)")
        else:
            entries.append(title)
    return "Map: " + " · ".join(entries)


def canonical(book: dict[str, Any]) -> str:
    """A notebook as nbformat writes it."""
    return json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": ")) + "\n"


def as_lines(source: str) -> list[str]:
    return source.splitlines(keepends=True)


def rule_generated(root: Path) -> list[str]:
    """Colab links, maps, set-up cells and metadata are those of the template."""
    faults = []
    mend = "Run: python tests/house.py --fix"
    wanted = bootstrap(root)
    if sum(1 for line in wanted.splitlines() if line.strip()) > BOOTSTRAP_LINES:
        faults.append(f"tests/house.py: the set-up cell has more than {BOOTSTRAP_LINES} lines: shorten it.")
    addresses = {colab_address(m) for m in modules(root)}
    for module, book in notebooks(root):
        where = place(root, book.path)
        first = book.cells[0].source if book.cells and not book.cells[0].code else ""
        links, maps = LINK.findall(first), MAP.findall(first)
        if [link.rstrip() for link in links] != [colab_link(module)]:
            faults.append(f"{where}: the first cell has not exactly one line `{colab_link(module)}`. {mend}")
        if maps != [course_map(module)]:
            faults.append(f"{where}: the first cell has not exactly the map `{course_map(module)}`. {mend}")
        tagged = [cell for cell in book.cells if "bootstrap" in cell.tags]
        if not book.code or tagged != book.code[:1]:
            faults.append(f"{where}: the first code cell, and no other, is the set-up cell, tagged bootstrap. {mend}")
        elif tagged[0].source != wanted:
            faults.append(f"{place(root, book.path, tagged[0])}: the set-up cell differs from the template. {mend}")
        elif tagged[0].metadata != BOOTSTRAP_METADATA:
            faults.append(
                f"{place(root, book.path, tagged[0])}: the set-up cell's metadata is not the template's. {mend}"
            )
        elif tagged[0].outputs:
            faults.append(
                f"{place(root, book.path, tagged[0])}: the set-up cell has an output: execute it in a checkout."
            )
        form = (book.book.get("metadata"), book.book.get("nbformat"), book.book.get("nbformat_minor"))
        if form != (METADATA, 4, 5):
            faults.append(f"{where}: the notebook's metadata or format number is not the fixed one. {mend}")
        elif book.text != canonical(book.book):
            faults.append(f"{where}: is not written as nbformat writes it (sorted keys, indent 1). {mend}")
    for path in project_files(root, ".md", ".ipynb"):
        for address in sorted(set(re.findall(re.escape(COLAB) + r"[^\s)\"'\\<>]*", path.read_text("utf-8")))):
            if address not in addresses:
                faults.append(
                    f"{place(root, path)}: {address} is no notebook of the course. Use the link of its notebook."
                )
    return faults


def is_set_up(cell: dict[str, Any]) -> bool:
    """Whether a code cell is meant as the set-up cell."""
    return "bootstrap" in (cell.get("id"), *cell.get("metadata", {}).get("tags", ()))


def fix_notebook(module: Module) -> bool:
    """Rewrite the generated parts of a notebook; True if the file changed."""
    book = module.notebook
    if book is None:
        return False
    data = json.loads(book.text)
    data["metadata"], data["nbformat"], data["nbformat_minor"] = METADATA, 4, 5
    cells = data["cells"]
    if not cells or cells[0]["cell_type"] != "markdown":
        cells.insert(0, {"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {module.title}\n"})
    text = text_of(cells[0]["source"])
    link, line = colab_link(module), course_map(module)
    if LINK.search(text):
        text = LINK.sub(lambda _: link, text, count=1)
    else:
        title, _, rest = text.partition("\n")
        text = f"{title}\n\n{link}\n{rest}"
    text = MAP.sub(lambda _: line, text, count=1) if MAP.search(text) else f"{text.rstrip()}\n\n{line}"
    cells[0]["source"] = as_lines(text)
    first = next((i for i, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
    if first == len(cells) or not is_set_up(cells[first]):
        new = {"cell_type": "code", "execution_count": None, "id": "bootstrap", "metadata": {}, "outputs": []}
        cells.insert(first, new)
    cells[first]["source"] = as_lines(bootstrap(module.root))
    cells[first]["metadata"] = BOOTSTRAP_METADATA
    for cell in cells:
        cell["source"] = as_lines(text_of(cell.get("source")))
    return write_if_changed(book.path, canonical(data))


def write_if_changed(path: Path, text: str) -> bool:
    if path.read_text("utf-8") == text:
        return False
    path.write_text(text, "utf-8", newline="\n")
    return True


def module_table(root: Path) -> str:
    """The map of modules, from what is in the tree."""
    rows = ["| module | the question it answers | what it ships | state |", "|---|---|---|---|"]
    for module in modules(root):
        names = [name for h in module.helpers if not exempt(h.stem) for name in headline(h, module.name)]
        ships = ", ".join(f"`{name}`" for name in names) or "nothing"
        if any(h.stem == "lab" for h in module.helpers):
            ships += "; the workbench `lab`"
        if any(h.stem == "tales" for h in module.helpers):
            ships += "; the corpus `tales`"
        state = []
        if book := module.notebook:
            state.append(f"[notebook]({module.folder}/{module.name}.ipynb) of {len(book.code)} code cells")
            state.append(plural(len(exercise_headings(book)), "exercise"))
        else:
            state.append("no notebook")
        tests = root / "tests" / f"test_{module.name}.py"
        count = len(re.findall(r"(?m)^\s*(?:async )?def test_", tests.read_text("utf-8"))) if tests.is_file() else 0
        state.append(f"[{plural(count, 'test')}](tests/test_{module.name}.py)" if count else "no tests")
        asks = (question(module) or "no README").replace("|", "\\|")
        rows.append(f"| [{module.title}]({module.folder}/) | {asks} | {ships} | {', '.join(state)} |")
    return "\n".join(rows)


def headline(helper: Path, module: str) -> list[str]:
    """What the map says that a helper ships: all of the main helper, of the others the classes where there are any.

    With them goes the function that the file is named after (`train` of training.py).
    """
    tree = read_python(helper)
    names, defined = public_names(tree), {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    chief = [name for name in names if name in defined or (defined & set(names) and helper.stem.startswith(name))]
    return names if helper.stem == module else chief or names


def with_table(root: Path, text: str) -> str | None:
    """The main README with its table made anew; None where the markers are missing."""
    start, end = text.find(MAP_START), text.find(MAP_END)
    if start < 0 or end < start:
        return None
    return f"{text[: start + len(MAP_START)]}\n\n{module_table(root)}\n\n{text[end:]}"


def rule_readme_map(root: Path) -> list[str]:
    """The main README's table of modules is what the tree says."""
    path = root / "README.md"
    if not path.is_file():
        return ["README.md: is missing: the first page of the course."]
    text = path.read_text("utf-8")
    wanted = with_table(root, text)
    if wanted is None:
        return [f"README.md: has no `{MAP_START}` followed by `{MAP_END}`: put them where the map of modules belongs."]
    if wanted != text:
        return ["README.md: the map of modules is not what the tree says. Run: python tests/house.py --fix"]
    return []


def fix(root: Path) -> list[str]:
    """Rewrite everything that is generated; the files that changed."""
    changed = [m.notebook_path for m in modules(root) if m.notebook and fix_notebook(m)]
    readme = root / "README.md"
    if readme.is_file():
        text = with_table(root, readme.read_text("utf-8"))
        if text is not None and write_if_changed(readme, text):
            changed.append(readme)
    return [place(root, path) for path in changed]
