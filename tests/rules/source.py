"""One source of truth, imports that run one way, and the form of helpers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rules.tree import (
    FENCE,
    HELPER_LINES,
    INFRASTRUCTURE,
    PLUMBING,
    SPEAKING,
    WORKBENCH,
    Cell,
    Notebook,
    modules,
    notebooks,
    parse_cell,
    place,
    project,
    read_python,
    repository,
)

# --- Definitions: what a helper ships and what a notebook shows ------------------------------------------------------

TYPING_ONLY = {"overload", "final", "override", "no_type_check", "runtime_checkable"}


class _Bare(ast.NodeTransformer):
    """Takes away what may differ between the notebook and the helper: docstrings, annotations, typing decorators."""

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        body = node.body
        if ast.get_docstring(node, clean=False) is not None:
            body = body[1:]
        node.body = body or [ast.Pass()]
        return node

    def _function(self, node: Any) -> Any:
        node.returns = None
        node.decorator_list = [d for d in node.decorator_list if last_name(d) not in TYPING_ONLY]
        return self._body(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        return self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        node.decorator_list = [d for d in node.decorator_list if last_name(d) not in TYPING_ONLY]
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> Any:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        self.generic_visit(node)
        node.annotation = ast.Constant(None)  # the field of a dataclass stays, its type does not count
        return node


def last_name(node: ast.AST) -> str:
    """`a.b.c(...)` -> "c"."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def bare(node: ast.AST) -> str:
    """A definition as text, docstrings, annotations and comments aside: equal texts are equal definitions."""
    copy = ast.parse(ast.unparse(node))
    copy = _Bare().visit(copy)
    for part in ast.walk(copy):  # `x: int = 1` and `x = 1` are one
        for field in ("body", "orelse", "finalbody"):
            block = getattr(part, field, None)
            if isinstance(block, list):
                setattr(part, field, [plain_assignment(statement) for statement in block])
    return ast.unparse(ast.fix_missing_locations(copy))


def plain_assignment(node: ast.stmt) -> ast.stmt:
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return ast.Assign([node.target], node.value)
    return node


def is_stub(node: ast.AST) -> bool:
    """A function whose body is only a docstring and `...` or `raise NotImplementedError`."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return all(isinstance(s, ast.Raise) and s.exc and last_name(s.exc) == "NotImplementedError" for s in body)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """What the top level of a file or cell binds by def, class or assignment, in order.

    Stubs, `f = check(f, ...)` and imports are no definitions.
    """
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            overloaded = any(last_name(d) == "overload" for d in node.decorator_list)
            if not is_stub(node) and not overloaded:
                yield node.name, node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            if isinstance(node.value, ast.Call) and last_name(node.value) == "check":
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
                    if name := dotted(part):
                        yield name, node


def exported(tree: ast.Module) -> list[str] | None:
    """The literal `__all__` of a helper, or None."""
    for name, node in definitions(tree):
        if name == "__all__" and isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            try:
                return [str(n) for n in ast.literal_eval(node.value)]
            except (ValueError, TypeError):
                return None
    return None


def public_names(tree: ast.Module) -> list[str]:
    names = exported(tree)
    if names is None:
        names = list(dict.fromkeys(n for n, _ in definitions(tree) if not n.startswith("_") and "." not in n))
    return names


def exempt(stem: str, name: str = "") -> bool:
    """Whether a helper file, or one name of it, need not be shown: to show the exercises' answers would spoil them."""
    return stem in INFRASTRUCTURE or stem.endswith("_exercises") or f"{stem}.{name}" in PLUMBING


def solution_blocks(source: str) -> list[str]:
    """The fenced Python blocks inside a cell's <details>."""
    folded = re.findall(r"(?s)<details>(.*?)</details>", source)
    return [body for part in folded for language, body in FENCE.findall(part) if language in {"python", "py"}]


def shown(book: Notebook) -> dict[str, tuple[Cell, ast.stmt]]:
    """The last definition of each name that a notebook shows, in code or in a folded solution."""
    found: dict[str, tuple[Cell, ast.stmt]] = {}
    for cell in book.cells:
        trees = [cell.tree] if cell.code else [parse_cell(block) for block in solution_blocks(cell.source)]
        for tree in trees:
            for name, node in definitions(tree):
                found[name] = (cell, node)
    return found


def rule_one_source(root: Path) -> list[str]:
    """The last definition that a notebook shows of a public name is the helper's."""
    faults = []
    for module in modules(root):
        book = module.notebook
        if book is None:
            continue
        seen = shown(book)
        for helper in module.helpers:
            if exempt(helper.stem):
                continue
            tree = read_python(helper)
            public = set(public_names(tree))
            ships = {n: bare(d) for n, d in definitions(tree) if n.split(".")[0] in public}
            where = place(root, helper)
            for name in sorted(public - set(ships)):
                faults.append(
                    f"{where}: __all__ names {name}, which the file does not define: define it here or drop it."
                )
            for name, text in ships.items():
                if exempt(helper.stem, name):
                    continue
                if name not in seen:
                    faults.append(
                        f"{place(root, book.path)}: {name} of {where} is never shown: derive it in a cell or a folded "
                        "solution (or name it in PLUMBING with the reason, if it is no algorithm)."
                    )
                elif (ours := bare(seen[name][1])) != text:
                    line = first_difference(ours, text)
                    faults.append(
                        f"{place(root, book.path, seen[name][0])}: the last definition shown of {name} differs from "
                        f"{where}: {line}. Make the two equal."
                    )
    helpers = {h.stem: h for m in modules(root) for h in m.helpers}
    for entry in PLUMBING:
        stem, _, name = entry.partition(".")
        if stem in helpers and name not in public_names(read_python(helpers[stem])):
            faults.append(f"tests/house.py: PLUMBING names {entry}, which no helper ships: remove the entry.")
    return faults


def first_difference(ours: str, theirs: str) -> str:
    """The first line in which two definitions part."""
    left, right = ours.splitlines(), theirs.splitlines()
    for a, b in zip(left, right, strict=False):
        if a != b:
            return f"the notebook has `{a.strip()}`, the helper `{b.strip()}`"
    longer, who = (left, "notebook") if len(left) > len(right) else (right, "helper")
    return f"only the {who} has `{longer[min(len(left), len(right))].strip()}`"


def rule_no_redefinition(root: Path) -> list[str]:
    """No notebook and no helper defines a public name that an earlier module ships."""
    faults = []
    earlier: dict[str, str] = {}
    for module in modules(root):
        for helper in (h for h in module.helpers if h.stem in WORKBENCH):
            earlier.update({n: place(root, helper) for n in public_names(read_python(helper))})
        if book := module.notebook:
            for cell in book.cells:
                trees = [cell.tree] if cell.code else [parse_cell(block) for block in solution_blocks(cell.source)]
                for name in sorted({n for tree in trees for n, _ in definitions(tree)} & set(earlier)):
                    faults.append(
                        f"{place(root, book.path, cell)}: defines {name}, which {earlier[name]} ships: import it, or "
                        "choose another name."
                    )
        fresh: dict[str, str] = {}
        for helper in module.helpers:
            if exempt(helper.stem):
                continue
            for name in public_names(read_python(helper)):
                if name in earlier:
                    faults.append(
                        f"{place(root, helper)}: ships {name}, which {earlier[name]} ships already: import it, or "
                        "choose another name."
                    )
                fresh[name] = place(root, helper)
        earlier.update(fresh)
    return faults


def rule_namespace(root: Path) -> list[str]:
    """No `__init__.py` lies in a `glassbox/` folder."""
    return [
        f"{place(root, path)}: hides all other modules, because glassbox is one package over many folders: delete it."
        for folder in [root / "glassbox", *(m.path / "glassbox" for m in modules(root))]
        for path in [folder / "__init__.py"]
        if path.exists()
    ]


# --- Imports run one way ---------------------------------------------------------------------------------------------


def course_imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The modules of glassbox that a file imports anywhere in it, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("glassbox."):
                    yield alias.name.split(".")[1], node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level == 1:
                base = f"glassbox.{base}".rstrip(".")
            if base == "glassbox":
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif base.startswith("glassbox."):
                yield base.split(".")[1], node.lineno


def rule_imports(root: Path) -> list[str]:
    """A helper imports earlier modules only; from 02 on it builds on at least one of them."""
    owner = {h.stem: m for m in modules(root) for h in m.helpers}
    faults = []
    for module in modules(root):
        for helper in module.helpers:
            imports = list(course_imports(read_python(helper)))
            for name, line in imports:
                where = place(root, helper, line=line)
                if name not in owner:
                    faults.append(
                        f"{where}: imports glassbox.{name}, which no folder ships: create it or drop the import."
                    )
                elif owner[name].number > module.number:
                    faults.append(
                        f"{where}: imports glassbox.{name} of the later module {owner[name].folder}: imports run from "
                        "later to earlier modules only, so move what is needed to the earlier one."
                    )
                elif name.endswith("_exercises"):
                    faults.append(f"{where}: imports glassbox.{name}: exercises are for notebooks and tests only.")
            if module.number < 2 or exempt(helper.stem):
                continue
            used = {owner[n] for n, _ in imports if n in owner and n not in INFRASTRUCTURE}
            beside = helper.stem != module.name and module in used
            if not beside and not any(m.number < module.number for m in used):
                faults.append(
                    f"{place(root, helper)}: builds on no earlier helper: from 02 on every helper imports and uses at "
                    "least one (lab and tales do not count)."
                )
    for module, book in notebooks(root):
        for cell in book.code:
            for name, _ in course_imports(cell.tree):
                if name in owner and owner[name].number > module.number:
                    faults.append(
                        f"{place(root, book.path, cell)}: imports glassbox.{name} of the later module "
                        f"{owner[name].folder}: a reader has not been there yet."
                    )
    return faults


def rule_packaging(root: Path) -> list[str]:
    """pyproject.toml lists every numbered folder wherever it lists folders."""
    settings = project(root)
    if not settings:
        return ["pyproject.toml: is missing or no TOML: the package cannot be built."]
    tool = settings.get("tool", {})
    hatch = tool.get("hatch", {}).get("build", {})
    folders = [m.folder for m in modules(root)]
    sources = hatch.get("targets", {}).get("wheel", {}).get("sources", {})
    lists = {
        "[tool.hatch.build] dev-mode-dirs": hatch.get("dev-mode-dirs", []),
        "[tool.hatch.build.targets.wheel] sources": list(sources),
        "[tool.pyright] extraPaths": tool.get("pyright", {}).get("extraPaths", []),
    }
    faults = []
    for name, listed in lists.items():
        for folder in folders:
            if folder not in listed:
                faults.append(f"pyproject.toml: {name} lacks {folder}: add it.")
        for folder in listed:
            if re.match(r"\d\d_", folder) and folder not in folders:
                faults.append(f"pyproject.toml: {name} lists {folder}, which does not exist: remove it.")
    if not repository(root).startswith("https://github.com/"):
        faults.append(
            "pyproject.toml: [project.urls] Repository is no https://github.com/ address: links to Colab need one."
        )
    return faults


# --- Helpers ---------------------------------------------------------------------------------------------------------


def rule_helpers(root: Path) -> list[str]:
    """Helpers are documented, typed, silent and short."""
    faults = []
    for module in modules(root):
        for helper in module.helpers:
            tree, where = read_python(helper), place(root, helper)
            lines = len(helper.read_text("utf-8").splitlines())
            plumbing = exempt(helper.stem)
            if not plumbing and lines > HELPER_LINES:
                faults.append(
                    f"{where}: {lines} lines; 250 is the aim, {HELPER_LINES} the most: a second subject gets a file."
                )
            if not ast.get_docstring(tree):
                faults.append(f"{where}: has no docstring: say in one line what the file ships.")
            names = exported(tree)
            if names is None:
                faults.append(f"{where}: has no literal `__all__` list: name what it ships.")
            elif len(set(names)) != len(names):
                faults.append(f"{where}: `__all__` names something twice.")
            faults += docstring_faults(root, helper, tree, set(names or ()))
            faults += [
                f"{place(root, helper, line=n.lineno)}: {n.name} lacks type hints for {', '.join(untyped(n))}."
                for n in functions(tree)
                if untyped(n)
            ]
            if helper.stem not in SPEAKING:
                faults += [
                    f"{place(root, helper, line=line)}: prints: helpers return values; progress is tqdm's."
                    for line in prints(tree)
                ]
    return faults


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of the top level and the methods of its classes."""
    for node in tree.body:
        body = node.body if isinstance(node, ast.ClassDef) else [node]
        yield from (n for n in body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def untyped(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The arguments, and the result, of a function that have no annotation."""
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    arguments += [a for a in (given.vararg, given.kwarg) if a]
    missing = [a.arg for a in arguments if a.annotation is None and a.arg not in {"self", "cls"}]
    return missing + (["the result"] if node.returns is None else [])


def docstring_faults(root: Path, helper: Path, tree: ast.Module, names: set[str]) -> Iterator[str]:
    """Public functions, classes and methods without a docstring."""
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        public = node.name in names if names else not node.name.startswith("_")
        if not public:
            continue
        inside = node.body if isinstance(node, ast.ClassDef) else []
        methods = [n for n in inside if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
        for part in [node, *methods]:
            overloaded = any(last_name(d) in {"overload", "setter"} for d in part.decorator_list)
            if not ast.get_docstring(part) and not overloaded:
                name = part.name if part is node else f"{node.name}.{part.name}"
                yield f"{place(root, helper, line=part.lineno)}: {name} has no docstring: say in one line what it does."


def prints(tree: ast.Module) -> Iterator[int]:
    """Lines that print, command lines (`main` and `if __name__ == ...`) aside."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            continue
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "print":
                yield part.lineno
