"""The figures of the experiments of 05: they draw what the notebook or a committed log holds, and compute next to
nothing.

A *run* is here a list of rows (dicts of numbers) with `tokens`, `loss`, `near`, `middle` and `far`, as in
`Run.evaluations` and in the committed tables. A log that was read from a file may hold text: `numbers` converts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from glassbox.attention_pictures import MARKERS
from glassbox.lab import CARD, COLOURS, show
from glassbox.tales_reading import read_along
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

__all__: list[str] = []  # nothing that another module would import

Rows = Sequence[Mapping[str, float]]
BINS = {"near": ("-", COLOURS["green"]), "middle": ("--", COLOURS["orange"]), "far": (":", COLOURS["purple"])}
MODELS = {"GPT": (COLOURS["blue"], "-"), "LSTM": (COLOURS["orange"], "--")}
LINE_COLOUR = COLOURS["grey"]
# what a reader says of a word (`read_along`): colour, bold or not
KINDS = {
    "said": (COLOURS["black"], "normal"),
    "recalled": (COLOURS["green"], "bold"),
    "forgotten": (CARD, "bold"),
    "impossible": (COLOURS["red"], "bold"),
    "after": ("#a9adb2", "normal"),
}
BOXES = {"forgotten": COLOURS["red"], "impossible": "#f6d9d5"}
PLACES = {  # of a point's name beside it
    "top-k": ("center", (0, -13)),
    "top-p": ("left", (8, -4)),
    "min-p": ("right", (-7, -8)),
    "repetition penalty": ("left", (7, -3)),
}


# --- a run and its lines ---


def poster(runs: Mapping[str, Rows], lines: Mapping[str, float], floor: float) -> None:
    """Above, the loss of each run as it reads more, with the lines of other models and the floor; below, what the first
    run recalls, by distance. Between the evaluations at the ends of the tinted stripe its recalls pass one in eight and
    one in two.
    """
    _, (top, low) = plt.subplots(2, 1, figsize=(6.4, 5.8), sharex=True, height_ratios=(1.6, 1))
    first = next(iter(runs.values()))
    begin, end = first[0]["tokens"], first[-1]["tokens"]
    for name, height in lines.items():
        top.axhline(height, color=LINE_COLOUR, lw=1.2, ls=":")
        top.text(end * 1.8, height * 1.02, f"{name} {height:.2f}", color=LINE_COLOUR, fontsize=9, ha="right")
    top.axhline(floor, color=COLOURS["black"], lw=1.6)
    top.text(begin, floor * 0.97, f"the floor, {floor:.3f}: what no model can beat", fontsize=9, va="top")
    for name, rows in runs.items():
        colour, style = MODELS.get(name, (COLOURS["purple"], "-."))
        top.plot(*_columns(rows, "tokens", "loss"), color=colour, ls=style, lw=2.4 if rows is first else 1.8)
        height = max(rows[-1]["loss"], 1.09 * floor)  # clear of the floor's line
        _name(top, f"{name} {rows[-1]['loss']:.2f}", rows[-1]["tokens"], height, colour)
    for bin, (style, colour) in BINS.items():
        low.plot(*_columns(first, "tokens", bin, 100), color=colour, ls=style, label=bin)
    for ax in (top, low):
        ax.axvspan(*_step(first), color=COLOURS["sky"], alpha=0.15, lw=0)
    low.text(_step(first)[1] * 1.15, 2, "← the step: copying is found", fontsize=9, color=COLOURS["blue"])
    top.set(ylabel="loss (nats a token)", xscale="log", yscale="log", xlim=(begin / 1.2, end * 5))
    _plain(top, [0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8])
    top.set_ylim(floor * 0.84, None)
    low.set(xlabel="tokens read in training", ylabel="facts recalled (%)", ylim=(-4, 104))
    low.legend(loc="upper left", title="distance of the fact", title_fontsize=9, fontsize=9)
    show()


def ladder(samples: Sequence[tuple[int, str]], width: int = 94, most: int = 4) -> None:
    """Texts that the model wrote at the steps given, marked by `read_along`: green what repeats a fact rightly, white
    on red what repeats it wrongly, red any other first word that the language cannot say there, grey what comes after
    it. At most so many lines each.
    """
    rungs = [(step, _lines(text, width, most)) for step, text in samples]
    height = sum(len(lines) + 1.35 for _, lines in rungs)
    figure = plt.figure(figsize=(6.6, 0.158 * height + 0.25), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width + 1.5), ylim=(height + 0.3, -0.9))
    ax.axis("off")
    y = 0.0
    for step, lines in rungs:
        ax.text(0.8, y, f"after step {step:,}", fontsize=8.5, weight="bold", color=COLOURS["blue"])
        for i, line in enumerate(lines, 1):
            for column, word, kind in line:
                colour, weight = KINDS[kind]
                place = (0.8 + column, y + i)
                style: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": 8, "va": "baseline"}
                box = {"facecolor": BOXES[kind], "pad": 1, "lw": 0} if kind in BOXES else None
                ax.text(*place, word, color=colour, weight=weight, bbox=box, **style)
        y += len(lines) + 1.35
    show()


def live_figure(runs: Mapping[str, Rows], flops: Mapping[str, float], bigram: float, floor: float) -> None:
    """The live runs on the same unseen texts: loss at equal CPU seconds, at equal operations, and facts recalled.

    flops: of training on one token, of each model.
    """
    _, axes = plt.subplots(1, 3, figsize=(6.9, 3.1), width_ratios=(1, 1, 1))
    for ax in axes[:2]:
        ax.axhline(bigram, color=LINE_COLOUR, lw=1.2, ls=":")
        ax.axhline(floor, color=COLOURS["black"], lw=1.4)
    for name, rows in runs.items():
        colour, style = MODELS[name]
        rows = [row for row in rows if row["step"] >= 32]
        seconds, losses = _columns(rows, "seconds", "loss")
        operations = [row["tokens"] * flops[name] / 1e12 for row in rows]
        recalled = [100 * sum(row[bin] for bin in BINS) / len(BINS) for row in rows]
        for ax, x, y in ((axes[0], seconds, losses), (axes[1], operations, losses), (axes[2], seconds, recalled)):
            ax.plot(x, y, color=colour, ls=style, label=name)
    end = axes[0].get_xlim()[1]
    axes[0].text(end, bigram * 0.96, "bigram", color=LINE_COLOUR, fontsize=9, va="top", ha="right")
    axes[0].text(end, floor * 1.03, "floor", fontsize=9, ha="right")
    for ax in axes[:2]:
        ax.set(yscale="log", ylim=(floor * 0.86, None))
        _plain(ax, [0.5, 0.7, 1, 1.5, 2, 3, 4, 6])
    axes[0].set(title="equal time", xlabel="CPU seconds", ylabel="loss (nats a token)")
    axes[1].set(title="equal work", xlabel="operations ($10^{12}$)")
    axes[1].set_yticklabels([])
    axes[2].set(title="facts recalled (%)", xlabel="CPU seconds", ylim=(-4, 104))
    axes[2].legend(loc="upper left", fontsize=9)
    show()


# --- what to choose ---


def quality_diversity(rows: Sequence[Mapping[str, Any]], near: float = 8) -> None:
    """Each way of choosing as a point: how much of its text differs, and how far it comes without a fault.

    rows: dicts with `family`, `setting`, `reach` (the mean share of a text before its first impossible word),
    `distinct` (the share of different runs of four words); the family "language" is the language itself. Right, the
    points that are within `near` per cent of the language's own diversity, larger.
    """
    figure, axes = plt.subplots(1, 2, figsize=(6.9, 4.4), width_ratios=(1, 1.25))
    families = list(dict.fromkeys(row["family"] for row in rows))
    own = next(100 * row["distinct"] for row in rows if row["family"] == "language")
    colours = ["black", "orange", "green", "red", "sky", "purple", "grey", "blue"] * 2
    for family, marker, colour in zip(families, f"*{MARKERS}Xd<>", colours, strict=False):
        points = [(100 * row["distinct"], 100 * row["reach"], row) for row in rows if row["family"] == family]
        for ax in axes:
            x, y = [point[0] for point in points], [point[1] for point in points]
            ax.plot(x, y, marker=marker, color=COLOURS[colour], ms=13 if family == "language" else 7, lw=1)
        for x, y, row in points:
            close = own - x < near and family != "language"
            label = "" if family == "language" else f"{row.get('setting', '')}".removesuffix(".0")
            style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": COLOURS[colour]}
            side, place = PLACES.get(family, ("left", (5, 6))) if close else ("right", (-6, 5))
            axes[int(close)].annotate(label, (x, y), place, ha=side, **style)
        axes[0].plot([], [], marker, color=COLOURS[colour], ms=7, label=family)
    close = [row for row in rows if own - 100 * row["distinct"] < near and row["family"] != "language"]
    width = [100 * row["distinct"] for row in close]
    height = [100 * row["reach"] for row in close]
    axes[1].set(xlim=(min(width) - 1.2, max(width) + 1.2), ylim=(min(height) - 2, max(height) + 3), title="near")
    axes[0].set(ylabel="quality: read before the first fault (%)", title="all")
    figure.supxlabel("diversity: different runs of four words (%)", fontsize=11)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)
    show()


# --- what size, start and options do ---


def scaling(rows: Rows, floor: float, fit: tuple[float, float]) -> None:
    """The last loss of each size above the floor, against parameters and against operations; a, b of a N^-b drawn."""
    _, axes = plt.subplots(1, 2, figsize=(6.6, 3.3), sharey=True)
    sizes, above = [row["parameters"] for row in rows], [row["unseen"] - floor for row in rows]
    span = np.geomspace(min(sizes) / 1.5, max(sizes) * 1.5, 2)
    axes[0].plot(span, fit[0] * span ** -fit[1], color=LINE_COLOUR, ls="--", lw=1.4)
    label = f"{fit[0]:.3g} $N^{{-{fit[1]:.2f}}}$\nthrough {len(rows)} points"
    axes[0].text(0.97, 0.95, label, transform=axes[0].transAxes, color=LINE_COLOUR, ha="right", va="top", fontsize=9)
    for ax, x in ((axes[0], sizes), (axes[1], [row["flops"] for row in rows])):
        ax.plot(x, above, "o", color=COLOURS["blue"], ms=7)
        for row, a, b in zip(rows, x, above, strict=True):
            ax.annotate(f"{row['width']:.0f} wide", (a, b), (7, 4), textcoords="offset points", fontsize=9)
        ax.set(xscale="log", yscale="log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.margins(0.32, 0.12)
    axes[0].set(xlabel="parameters N", ylabel=f"loss above the floor of {floor:.3f}\n(nats a token)")
    axes[1].set(xlabel="operations of the training")
    low, high = axes[0].get_ylim()
    _plain(axes[0], [tick for tick in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3) if low <= tick <= high])
    show()


def options(rows: Sequence[Mapping[str, Any]]) -> None:
    """What each option costs in time and keeps in memory, as shares of the plain loop.

    rows: dicts with `option`, `time` and `memory` (both relative to the first row, which is the plain one).
    """
    _, axes = plt.subplots(1, 2, figsize=(6.6, 0.42 * len(rows) + 1.2), sharey=True)
    names = [row["option"] for row in rows]
    for ax, key, colour, title in (
        (axes[0], "time", COLOURS["blue"], "CPU seconds a step"),
        (axes[1], "memory", COLOURS["purple"], "kept for the way back"),
    ):
        values = [row[key] for row in rows]
        ax.barh(names, values, color=colour, height=0.62)
        ax.axvline(1, color=COLOURS["black"], lw=1.2)
        for i, value in enumerate(values):
            box = {"facecolor": CARD, "lw": 0, "pad": 0.8}
            ax.text(value + 0.03 * max(values), i, f"{value:.2f}", va="center", fontsize=9, bbox=box)
        ax.set(title=title, xlabel=f"times {names[0]}", xlim=(0, 1.22 * max(values)))
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    show()


def starts(runs: Mapping[str, Rows], floor: float) -> None:
    """Two ways to begin, all else equal: loss and facts recalled on unseen texts as training goes on.

    runs: rows with `step`, `unseen`, `near`, `middle`, `far`, as in start-study.csv; rows without `unseen` are skipped.
    """
    _, axes = plt.subplots(1, 2, figsize=(6.6, 3.1))
    looks = ((COLOURS["orange"], "--", "s"), (COLOURS["blue"], "-", "o"))
    for (name, all_rows), (colour, style, marker) in zip(runs.items(), looks, strict=False):
        rows = [row for row in all_rows if "unseen" in row]
        axes[0].plot(*_columns(rows, "step", "unseen"), color=colour, ls=style, marker=marker, ms=4, label=name)
        steps, recalled = [row["step"] for row in rows], [100 * sum(row[bin] for bin in BINS) / 3 for row in rows]
        axes[1].plot(steps, recalled, color=colour, ls=style, marker=marker, ms=4, label=name)
    axes[0].axhline(floor, color=COLOURS["black"], lw=1.4)
    axes[0].text(axes[0].get_xlim()[1], floor * 1.03, "floor", fontsize=9, va="bottom", ha="right")
    axes[0].set(title="loss", xlabel="step", ylabel="nats a token", yscale="log")
    _plain(axes[0], [0.5, 0.7, 1, 1.5, 2, 3, 4, 6])
    axes[1].set(title="facts recalled (%)", xlabel="step", ylim=(-3, None))
    axes[1].legend(loc="upper left", fontsize=9)
    show()


def numbers(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The rows of a table that was read as text, with numbers where there are numbers; what is blank is left out."""
    return [{key: _value(text) for key, text in row.items() if text} for row in rows]


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _columns(rows: Rows, x: str, y: str, scale: float = 1) -> tuple[list[float], list[float]]:
    return [row[x] for row in rows], [scale * row[y] for row in rows]


def _step(rows: Rows) -> tuple[float, float]:
    """The tokens between which the mean of the three bins goes from one eighth to one half (or as far as it comes)."""
    means = [sum(row[bin] for bin in BINS) / len(BINS) for row in rows]
    begin = next((row["tokens"] for row, mean in zip(rows, means, strict=True) if mean >= 1 / 8), rows[-1]["tokens"])
    return begin, next((row["tokens"] for row, mean in zip(rows, means, strict=True) if mean >= 1 / 2), begin)


def _lines(text: str, width: int, most: int) -> list[list[tuple[int, str, str]]]:
    """A text set in lines of at most so many letters: for each piece its column, itself and its kind."""
    lines: list[list[tuple[int, str, str]]] = [[]]
    column = 0
    for mark in read_along(text, ended=False):
        piece = mark.piece.replace("\n", " / ")
        if piece[0] == " " and column + len(piece.rstrip()) > width - 4 * (len(lines) == most):
            if len(lines) == most:
                lines[-1].append((column + 1, "...", "after"))
                break
            lines.append([])
            column, piece = 0, piece.lstrip()
        shown = piece.lstrip(" ")
        lines[-1].append((column + len(piece) - len(shown), shown, mark.kind))
        column += len(piece)
    return lines


def _name(ax: Axes, name: str, x: float, y: float, colour: Any) -> None:
    """The name of a curve at its right end."""
    ax.annotate(name, (x, y), (6, 0), textcoords="offset points", color=colour, weight="bold", va="center")


def _plain(ax: Axes, ticks: Sequence[float]) -> None:
    """Ticks of a logarithmic axis as plain numbers."""
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
