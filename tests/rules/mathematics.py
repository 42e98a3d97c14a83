"""Formulas that balance, that GitHub and Jupyter both know, and that survive Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rules.tree import FENCE, outside_fences, pages, place

GREEK = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi varpi rho varrho
sigma varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
"""
SYMBOLS = """
cdot cdots ldots dots dotsc dotsb vdots ddots times div pm mp ast star circ bullet oplus ominus otimes odot le leq
ge geq ne neq lt gt ll gg equiv approx approxeq sim simeq cong propto in ni notin subset subseteq supset supseteq
cup cap setminus emptyset varnothing forall exists nexists neg lnot land lor wedge vee to rightarrow leftarrow
Rightarrow Leftarrow leftrightarrow Leftrightarrow longrightarrow longleftarrow Longrightarrow mapsto longmapsto
gets iff implies impliedby uparrow downarrow updownarrow nearrow searrow hookrightarrow partial nabla infty hbar ell
Re Im aleph top bot perp parallel mid nmid vert Vert lvert rvert lVert rVert langle rangle lbrace rbrace lbrack
rbrack lfloor rfloor lceil rceil backslash prime triangle triangleq square blacksquare Box checkmark dagger angle
therefore because degree odot leqslant geqslant lesssim gtrsim models vdash dashv bowtie bigtriangleup diamond star
preceq succeq prec succ
"""
OPERATORS = """
sum prod int iint oint coprod bigcup bigcap bigoplus bigotimes bigvee bigwedge lim limsup liminf sup inf max min arg
det dim exp log ln lg sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth gcd ker deg hom Pr limits
nolimits
"""
STRUCTURE = """
frac dfrac tfrac cfrac sqrt binom dbinom tbinom over choose overline underline overbrace underbrace overset underset
stackrel hat widehat tilde widetilde bar vec dot ddot acute grave check breve mathring overrightarrow overleftarrow
left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm Bigm begin end mathrm mathbf
mathit mathsf mathtt mathbb mathcal mathscr mathfrak boldsymbol bm pmb text textbf textit textrm textsf texttt
mathop mathbin mathrel mathord operatornamewithlimits quad qquad thinspace negthinspace enspace space hspace
displaystyle textstyle scriptstyle scriptscriptstyle substack boxed not tag color textcolor colorbox cancel
xrightarrow xleftarrow pmod bmod mod cr newline hline nonumber notag rm bf it
"""
COMMANDS = set(f"{GREEK} {SYMBOLS} {OPERATORS} {STRUCTURE}".split())
COMMANDS -= {"bm", "mathscr", "operatornamewithlimits", "cancel"}  # not in both sets that are loaded everywhere
LAYOUTS = """
aligned alignedat gathered cases matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix array split
"""
ENVIRONMENTS = set(LAYOUTS.split())
INSTEAD = {
    "operatorname": "\\mathrm{...}",
    "bm": "\\boldsymbol",
    "mbox": "\\text",
    "mathscr": "\\mathcal",
    "argmax": "\\arg\\max",
    "argmin": "\\arg\\min",
    "softmax": "\\mathrm{softmax}",
    "\\{": "\\lbrace",
    "\\}": "\\rbrace",
    "\\|": "\\Vert",
    "\\,": "\\thinspace",
}
DELIMITERS = (
    r"[()\[\]|./<>]|\\[{}|]|\\(?:[lr]?vert|[lr]?Vert|[lr]angle|[lr]brace|[lr]brack|[lr]floor|[lr]ceil|backslash"
    r"|(?:up|down|updown)arrow)(?![A-Za-z])"
)


@dataclass(frozen=True)
class Formula:
    """A piece of mathematics: its text without delimiters, where it begins, and how it is written."""

    text: str
    line: int
    kind: str  # "$", "$$", "$`" or "```math"
    before: str = ""
    after: str = ""

    @property
    def display(self) -> bool:
        return self.kind in {"$$", "```math"}


def math_pieces(text: str) -> tuple[list[Formula], list[tuple[int, str]]]:
    """The formulas of a Markdown text, and faults of their delimiters as (line, sentence)."""
    pieces: list[Formula] = []
    faults: list[tuple[int, str]] = []

    def take_fence(m: re.Match[str]) -> str:
        if m[1] == "math":
            pieces.append(Formula(m[2], text.count("\n", 0, m.start()) + 1, "```math"))
        return "\n" * m[0].count("\n")

    plain = FENCE.sub(take_fence, text)
    plain = re.sub(r"(?s)<!--.*?-->", lambda m: "\n" * m[0].count("\n"), plain)
    for start, block in blocks(plain):
        i = 0
        while i < len(block):
            line = start + block.count("\n", 0, i)
            if block[i] == "\\":
                i += 2
            elif block[i] == "`":
                ticks = len(block[i:]) - len(block[i:].lstrip("`"))
                close = re.compile(rf"(?<!`)`{{{ticks}}}(?!`)").search(block, i + ticks)
                i = close.end() if close else i + ticks
            elif block[i] != "$":
                i += 1
            else:
                kind = next(k for k in ("$$", "$`", "$") if block.startswith(k, i))
                closing = kind[::-1]
                end = block.find(closing, i + len(kind))
                while kind == "$" and end > 0 and block[end - 1] == "\\":
                    end = block.find("$", end + 1)
                if end < 0:
                    faults.append(
                        (
                            line,
                            f"`{kind}` is opened and not closed in its paragraph: close it, or put a dollar in `code`",
                        )
                    )
                    break
                after = block[end + len(closing) :]
                pieces.append(Formula(block[i + len(kind) : end], line, kind, block[:i], after))
                i = end + len(closing)
    return pieces, faults


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of the blocks that Markdown reads one by one: paragraphs, list items, headings, cells of tables."""
    current: list[str] = []
    start, display = 1, False
    for number, line in enumerate([*text.split("\n"), ""], 1):
        dollars = len(re.findall(r"(?<!\\)\$\$", re.sub(r"`[^`]*`", "", line)))
        fresh = not display and re.match(r"\s*(?:[-*+]\s|\d+[.)]\s|#{1,6}\s|>)", line)
        table = not display and line.lstrip().startswith("|")
        if (not line.strip() or fresh or table) and current:
            yield start, "\n".join(current)
            current = []
            display = display and bool(line.strip())
        if dollars % 2 and line.strip():
            display = not display
        if table:
            for part in re.split(r"(?<!\\)\|", line):
                if part.strip():
                    yield number, part
        elif line.strip():
            if not current:
                start = number
            current.append(line)


def tex_faults(formula: Formula) -> Iterator[str]:
    """What is wrong with a formula as TeX, wherever it is shown."""
    text = formula.text
    if not text.strip():
        yield "an empty formula"
        return
    for command in dict.fromkeys(re.findall(r"\\([A-Za-z]+)", text)):
        if command not in COMMANDS:
            instead = f": write {INSTEAD[command]}" if command in INSTEAD else ""
            yield f"\\{command} is not known or not allowed on GitHub and in Jupyter both{instead}"
    for symbol in dict.fromkeys(re.findall(r"\\([^A-Za-z])", text)):
        if symbol not in "\\,;:!{}|_%#&$ >\n":
            yield f"\\{symbol} is no command"
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            break
    if depth:
        yield "braces do not balance"
    stack: list[str] = []
    for side, delimiter in re.findall(rf"\\(left|right)(?![A-Za-z])\s*({DELIMITERS})?", text):
        if not delimiter:
            yield f"\\{side} has no delimiter after it (write \\{side}\\lbrace, \\{side}( ...)"
        if side == "left":
            stack.append(side)
        elif stack:
            stack.pop()
        else:
            stack = ["right"]
            break
    if stack:
        yield "\\left and \\right do not pair"
    opened: list[str] = []
    for side, name in re.findall(r"\\(begin|end)\{([^}]*)\}", text):
        if name not in ENVIRONMENTS:
            yield f"the environment {name} does not work in all places: use aligned, cases, pmatrix, array ..."
        if side == "begin":
            opened.append(name)
        elif not opened or opened.pop() != name:
            opened = [name]
            break
    if opened:
        yield f"\\begin and \\end of {opened[-1]} do not pair"
    if "\\begin" not in text and "\\substack" not in text and re.search(r"\\\\|(?<!\\)&", text):
        yield "\\\\ or & outside an environment does nothing: put it into \\begin{aligned}"
    if re.search(r"(?<!\\)[#%]", text):
        yield "# or % begins a comment or a macro in TeX: write the word"
    script = r"(?:\{[^{}]*\}|\\[A-Za-z]+|[^\s{}\\_^])"
    if re.search(rf"_\s*{script}\s*_", text) or re.search(rf"\^\s*{script}\s*\^", text):
        yield "two subscripts or two superscripts in a row: set braces"
    if re.search(r"<[A-Za-z/!]", text):
        yield "`<` before a letter is read as the start of an HTML tag: write \\lt"
    if formula.display and re.search(r"\n[ \t]*\n", text):
        yield "an empty line ends the formula: remove it"


def place_faults(formula: Formula) -> Iterator[str]:
    """What is wrong with where a dollar formula stands."""
    before, after, text = formula.before, formula.after, formula.text
    if formula.kind in {"$", "$`"}:
        if re.search(r"[\w\-\"'$]\Z", before):
            yield f"`{before[-1]}` directly before the dollar: GitHub then shows the source; put a space there"
        if re.match(r"[\w$]", after):
            yield f"`{after[0]}` directly after the dollar: GitHub then shows the source; put a space or a stop there"
        if "\n" in text:
            yield "an inline formula goes over a line end: keep it on one line"
    if formula.kind == "$" and text != text.strip():
        yield "a space inside the dollars: GitHub then shows the source"
    if formula.kind == "$$":
        line_before = before.rpartition("\n")[2].strip(" >\t")
        if before.strip() or line_before or after.strip():
            yield "a displayed formula stands alone: `$$` begins and ends its lines, empty lines around it"
    if re.search(r"\[[^\]]*\Z", before) and re.match(r"[^\[]*\]\(", after):
        yield "a formula inside a link's words is not rendered: take it out"


def markdown_faults(formula: Formula) -> Iterator[str]:
    """What GitHub's Markdown does to a dollar formula before MathJax sees it."""
    text = formula.text
    safe = "a ```math fence" if formula.display else "dollar and backtick, $`...`$"
    for escape in dict.fromkeys(re.findall(r"\\[^\sA-Za-z0-9]|\\\n", text)):
        instead = f", or {INSTEAD[escape]}" if escape in INSTEAD else ""
        yield f"GitHub's Markdown takes a backslash of `{escape.strip() or 'line end'}` away: use {safe}{instead}"
    if re.search(r"\]\(", text):
        yield f"`[...](...)` is read as a link: use {safe}"
    if formula.kind == "$$":
        for line in text.strip("\n").split("\n"):
            if re.match(r"\s*(?:[-+*=>#]|\d+[.)])(?:\s|$)|\s*[-=]+\s*$", line):
                yield f"a line that begins with `{line.split()[0]}` is read as a list, heading or quote: use {safe}"


def emphasis_faults(text: str) -> Iterator[tuple[int, str]]:
    """Subscripts and stars in dollar formulas that GitHub's Markdown reads as emphasis, as (line, sentence)."""
    plain = re.sub(r"(?s)<!--.*?-->", lambda m: "\n" * m[0].count("\n"), outside_fences(text))
    for start, block in blocks(plain):
        spans = [
            (m.start(), m.end(), bool(m[1]))
            for m in re.finditer(r"(?s)\$`.*?`\$|`[^`]*`|(\$\$.*?\$\$|\$[^$]*\$)", block)
        ]
        masked = list(block)
        for a, b, is_math in spans:
            if not is_math:
                masked[a:b] = "x" * (b - a)
        line = "".join(masked)
        formula = [(a, b) for a, b, is_math in spans if is_math]
        for char in "_*":
            openers: list[int] = []
            for m in re.finditer(rf"(?<!\\){re.escape(char)}+", line):
                left, right = flanking(line, m.start(), m.end())
                previous, following = line[m.start() - 1 : m.start()], line[m.end() : m.end() + 1]
                can_open = left and (char == "*" or not right or is_punctuation(previous))
                can_close = right and (char == "*" or not left or is_punctuation(following))
                if can_close and openers:
                    opener = openers.pop()
                    inside = any(a <= p < b for a, b in formula for p in (opener, m.start()))
                    around = char == "_" and any(opener < a and b <= m.start() for a, b in formula)
                    where = start + line.count("\n", 0, opener)
                    if inside:
                        yield (
                            where,
                            f"`{line[opener : m.end()][:40]}` is read as emphasis: use $`...`$ or a ```math fence",
                        )
                    elif around:
                        yield where, "a formula inside _emphasis_ is not rendered: use *stars*"
                elif can_open:
                    openers.append(m.start())


def is_punctuation(char: str) -> bool:
    return bool(char) and not char.isalnum() and not char.isspace()


def flanking(line: str, start: int, end: int) -> tuple[bool, bool]:
    """CommonMark's left- and right-flanking of a run of emphasis marks."""
    before, after = line[start - 1 : start] or " ", line[end : end + 1] or " "
    left = not after.isspace() and (not is_punctuation(after) or before.isspace() or is_punctuation(before))
    right = not before.isspace() and (not is_punctuation(before) or after.isspace() or is_punctuation(after))
    return left, right


def rule_mathematics(root: Path) -> list[str]:
    """Formulas balance, use commands known everywhere, and survive Markdown on GitHub."""
    faults = []
    for page in pages(root):
        if "$" not in page.text and "```math" not in page.text:
            continue
        pieces, broken = math_pieces(page.text)
        for line, words in broken:
            faults.append(f"{place(root, page.path, page.cell, line)}: {words}.")
        found: list[tuple[int, str]] = []
        for piece in pieces:
            words = [*tex_faults(piece), *place_faults(piece)]
            if page.cell is not None and piece.kind in {"$`", "```math"}:
                words.append(f"`{piece.kind}` is not rendered in Jupyter: use dollars")
            if page.cell is None and piece.kind in {"$", "$$"}:
                words += markdown_faults(piece)
            short = " ".join(piece.text.split())
            found += [(piece.line, f"in `{short[:50]}`: {w}") for w in words]
        if page.cell is None:
            found += list(emphasis_faults(page.text))
        faults += [f"{place(root, page.path, page.cell, line)}: {words}." for line, words in found]
    return faults
