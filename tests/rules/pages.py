"""Pages of text: the parts of a module, its README, links, pictures, words and paths."""

from __future__ import annotations

import html
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from rules.mathematics import math_pieces
from rules.tree import (
    PLAN,
    Cell,
    Module,
    Notebook,
    modules,
    notebooks,
    outside_fences,
    pages,
    place,
    project_files,
    read_notebook,
    repository,
)

# --- A module folder and its README ----------------------------------------------------------------------------------


def rule_parts(root: Path) -> list[str]:
    """Every module folder has its parts, and the numbers run without a gap."""
    faults = []
    for index, module in enumerate(modules(root)):
        parts = {
            "README.md": "the concept page",
            f"{module.name}.ipynb": "the notebook",
            f"glassbox/{module.name}.py": "the helper",
            f"glassbox/{module.name}_exercises.py": "the references and known mistakes of the exercises",
        }
        for part, what in parts.items():
            if not (module.path / part).is_file():
                faults.append(f"{module.folder}: has no {part}, {what}: every module folder has one.")
        if not (root / "tests" / f"test_{module.name}.py").is_file():
            faults.append(f"{module.folder}: has no tests/test_{module.name}.py, its tests: every module has one.")
        if module.number != index:
            faults.append(f"{module.folder}: should bear the number {index:02d}: numbers run from 00 without a gap.")
        if index < len(PLAN) and module.folder not in PLAN:
            faults.append(
                f"{module.folder}: is not the planned name {PLAN[index]}: rename it or change PLAN in tests/house.py."
            )
        for extra in sorted(module.path.glob("*.ipynb")):
            if extra != module.notebook_path:
                faults.append(
                    f"{place(root, extra)}: a folder has one notebook, {module.name}.ipynb: move this one away."
                )
        if module.notebook_path.is_file() and module.notebook is None:
            faults.append(
                f"{place(root, module.notebook_path)}: is no notebook that can be read: write it with nbformat."
            )
    if modules(root) and not (modules(root)[0].path / "glassbox" / "py.typed").is_file():
        faults.append(
            f"{modules(root)[0].folder}: has no glassbox/py.typed, which tells editors that the types are there."
        )
    return faults


def question(module: Module) -> str:
    """The first sentence of a module's README: the question that the module answers."""
    path = module.path / "README.md"
    if not path.is_file():
        return ""
    for block in re.split(r"\n\s*\n", path.read_text("utf-8")):
        block = " ".join(block.split())
        if block and not re.match(r"[#!<\[>|`$*_-]", block):
            return re.split(r"(?<=[.?!])\s", block, maxsplit=1)[0]
    return ""


def rule_module_readme(root: Path) -> list[str]:
    """A module's README is a concept page: question, figure, mathematics, pitfalls, other names, papers, exercises."""
    faults = []
    for module in modules(root):
        path = module.path / "README.md"
        if not path.is_file():
            continue
        text, where = path.read_text("utf-8"), place(root, path)
        headings = [h.lower() for _, _, h in markdown_headings(text)]
        if not text.startswith(f"# {module.folder[:2]} · "):
            faults.append(f"{where}: begins with its number and title: `# {module.folder[:2]} · ...`.")
        if not question(module).endswith("?"):
            faults.append(f"{where}: the first sentence is to be the question that the module answers, with a `?`.")
        if not re.search(r"!\[[^\]]+\]\(|<img ", text):
            faults.append(f"{where}: has no figure: show the idea in one picture with alternative text.")
        if not any(piece.display for piece in math_pieces(text)[0]):
            faults.append(f"{where}: has no displayed formula: derive what the helper implements.")
        if not re.search(r"(?mi)^\|\s*here\s*\|\s*in PyTorch\s*\|\s*in Hugging Face\s*\|", text):
            faults.append(f"{where}: has no table `| here | in PyTorch | in Hugging Face |`.")
        for part in ("pitfalls", "in other words", "papers", "exercises"):
            if not any(part in h for h in headings):
                faults.append(f"{where}: has no section with a heading that says `{part.capitalize()}`.")
    return faults


# --- Markdown: headings, links, pictures -----------------------------------------------------------------------------


def markdown_headings(text: str) -> list[tuple[int, int, str]]:
    """(line, level, text) of every heading outside fences."""
    lines = outside_fences(text).splitlines()
    found = ((n, re.match(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$", line)) for n, line in enumerate(lines, 1))
    return [(n, len(m[1]), m[2]) for n, m in found if m]


def plain_heading(text: str) -> str:
    """A heading without its Markdown: links give their text, code and stars go."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return html.unescape(re.sub(r"[`*]|<[^>]+>|(?<!\w)_|_(?!\w)", "", text))


def github_anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page: slugs of headings, the second of a name with -1, and explicit ids."""
    seen: dict[str, int] = {}
    anchors = set(re.findall(r"<a\s+(?:id|name)=[\"']([^\"']+)[\"']", text))
    for _, _, heading in markdown_headings(text):
        slug = re.sub(r"[^\w\- ]", "", plain_heading(heading).lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return anchors


def notebook_anchors(book: Notebook) -> set[str]:
    """The anchors that Jupyter and GitHub's notebook page both give: the heading with `-` for each space."""
    texts = [cell.source for cell in book.cells if not cell.code]
    headings = [plain_heading(h) for t in texts for _, _, h in markdown_headings(t)]
    explicit = {a for t in texts for a in re.findall(r"<a\s+(?:id|name)=[\"']([^\"']+)[\"']", t)}
    return {h.replace(" ", "-") for h in headings} | explicit


def without_code(text: str) -> str:
    """Markdown with fences and code spans blanked, so that only running text stays; lines keep their place."""
    text = outside_fences(re.sub(r"(?s)<!--.*?-->", lambda m: "\n" * m[0].count("\n"), text))
    return re.sub(r"(?s)(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", lambda m: re.sub(r"[^\n]", " ", m[0]), text)


INLINE_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\]\([^)]*\))*)\]\(\s*<?([^)\s>]*)>?(?:\s+[\"'][^)]*[\"'])?\s*\)")
HTML_LINK = re.compile(r"<(a|img|source)\b[^>]*?\b(?:href|src|srcset)=[\"']([^\"']+)[\"'][^>]*>", re.IGNORECASE)
REFERENCE = re.compile(r"(?m)^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*(?:[\"'].*)?$")


def links(text: str) -> Iterator[tuple[int, bool, str, str]]:
    """(line, is a picture, its words, target) of every link of a page."""
    plain = without_code(text)
    offset = [(plain.count("\n", 0, m.start()) + 1, m) for m in INLINE_LINK.finditer(plain)]
    for line, m in offset:
        yield line, bool(m[1]), m[2], m[3]
        for inner in INLINE_LINK.finditer(m[2]):
            yield line, bool(inner[1]), inner[2], inner[3]
    for m in HTML_LINK.finditer(plain):
        alt = re.search(r"\balt=[\"']([^\"']*)[\"']", m[0])
        picture = m[1].lower() == "img"
        yield plain.count("\n", 0, m.start()) + 1, picture, (alt[1] if alt else "") if picture else "-", m[2]
    for m in REFERENCE.finditer(plain):
        yield plain.count("\n", 0, m.start()) + 1, False, "-", m[1]


def anchors_of(path: Path) -> set[str] | None:
    """The anchors of a page, or None where the file has none that can be known."""
    if path.suffix == ".ipynb":
        book = read_notebook(path)
        return notebook_anchors(book) if book else None
    return github_anchors(path.read_text("utf-8")) if path.suffix == ".md" else None


def rule_links(root: Path) -> list[str]:
    """Relative links and anchors lead somewhere, and pictures are local and described in words."""
    faults = []
    known = {p.resolve() for p in project_files(root)}
    known |= {parent for p in known for parent in p.parents}
    home = f"{repository(root)}/" if repository(root) else "\0"
    for page in pages(root):
        for line, picture, words, target in links(page.text):
            at = place(root, page.path, page.cell, line)
            if picture and len(words.strip()) < 10:
                faults.append(f"{at}: the picture {target} has no alternative text of ten letters: say what it shows.")
            if target.startswith(home):
                target = re.sub(r"^(?:blob|tree|raw)/[^/]+/?", "", target.removeprefix(home))
                base = root
            elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//", target):
                if picture:
                    faults.append(f"{at}: the picture {target} lies elsewhere: put it beside the page.")
                continue
            else:
                base = page.path.parent
            name, _, anchor = urllib.parse.unquote(target).partition("#")
            goal = (base / name).resolve() if name else page.path.resolve()
            if goal not in known:
                there = "which git does not track" if goal.exists() else "which does not exist"
                faults.append(f"{at}: links to {target or '(nothing)'}, {there}.")
            elif anchor:
                anchors = anchors_of(goal)
                if anchors is not None and anchor not in anchors:
                    faults.append(f"{at}: links to {target}, but that page has no heading or id of this name.")
    for _, book in notebooks(root):
        for cell in book.code:
            for tag in re.findall(r"<img[^>]*src=[\"'](?:https?:)?//[^>]*>", cell.output_text):
                faults.append(f"{place(root, book.path, cell)}: an output shows a picture from elsewhere: {tag[:80]}.")
    return faults


# --- Words and paths -------------------------------------------------------------------------------------------------

# Written in halves, so that this file does not hold the words that it looks for.
UNFINISHED = re.compile(
    r"\b(?:" + "|".join(("TO" "DO", "FIX" "ME", "XX" "X")) + r")\b"
    r"|(?i:\b(?:" + "|".join(("place" "holder", "not implemented " "yet", "for " "now", "coming " "soon")) + r")\b)"
)  # fmt: skip
BELITTLING = re.compile(r"\b(?:" + "|".join(("simp" "ly", "obvious" "ly")) + r")\b", re.IGNORECASE)  # fmt: skip
MACHINE = re.compile(r"/(?:home|root|Users|opt|work|content)/[A-Za-z]|\b[A-Z]:\\\\?Users\b|\.\./" + "shared")


def words_of(path: Path) -> Iterator[tuple[Cell | None, int, str]]:
    """(cell, line number, line) of everything a file says: for a notebook its sources and the words of its outputs."""
    if path.suffix == ".ipynb":
        if book := read_notebook(path):
            for cell in book.cells:
                for text in (cell.source, cell.output_text):
                    yield from ((cell, n, line) for n, line in enumerate(text.splitlines(), 1))
        return
    yield from ((None, n, line) for n, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1))


def rule_words(root: Path) -> list[str]:
    """Nothing is announced as unfinished, and no reader is told that something is easy."""
    faults = []
    for path in project_files(root, ".py", ".md", ".toml", ".ipynb"):
        for cell, number, line in words_of(path):
            if match := UNFINISHED.search(line):
                faults.append(f"{place(root, path, cell, number)}: `{match[0]}` marks unfinished work: finish it.")
            if match := BELITTLING.search(line):
                faults.append(
                    f"{place(root, path, cell, number)}: `{match[0]}` tells the reader that it is easy: drop the word."
                )
    return faults


def rule_machine_paths(root: Path) -> list[str]:
    """No path of one machine, and none outside the project, stands in a file."""
    faults = []
    for path in project_files(root, ".py", ".md", ".toml", ".ipynb", ".txt", ".yml", ".yaml", ".svg"):
        for cell, number, line in words_of(path):
            if match := MACHINE.search(line):
                faults.append(
                    f"{place(root, path, cell, number)}: `{match[0]}...` is a path of one machine: make it relative."
                )
    return faults
