"""The figures of the notebook 04_gpt2: they draw what the notebook has computed, and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from glassbox.lab import COLOURS, show
from glassbox.tokenizer_pictures import HUES, tint, visible
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle

__all__: list[str] = []  # nothing that another module would import

MARKERS = "osD^vP"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
# one colour for each kind of matrix, as in shapes.svg
PARTS = {
    "wte": COLOURS["green"],
    "wpe": COLOURS["green"],
    "attn": COLOURS["blue"],
    "mlp": COLOURS["orange"],
    "ln": COLOURS["grey"],
    "lm_head": COLOURS["green"],
}


# --- the bend ---


def bends(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    slopes: Mapping[str, Sequence[float]],
    error: Sequence[float],
) -> None:
    """Functions, their slopes, and the difference of two of them, side by side over the same x."""
    _, axes = plt.subplots(1, 3, figsize=(6.6, 2.6))
    for ax, lines, title in ((axes[0], curves, "value"), (axes[1], slopes, "slope")):
        for (name, y), colour, style in zip(lines.items(), HUES, LINES, strict=False):
            ax.plot(x, y, color=colour, ls=style, label=name)
        ax.set(title=title, xlabel="x")
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=9)
    axes[2].plot(x, 1e4 * np.array(error), color=COLOURS["purple"])
    axes[2].set(title="tanh form - exact", xlabel="x", ylabel="ten-thousandths")
    show()


# --- the stream ---


def streams(panels: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """The size of the stream after each block, for stacks of several depths; a panel for each way to begin."""
    _, axes = plt.subplots(1, len(panels), figsize=(6.6, 2.7), sharey=True, squeeze=False)
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for (depth, sizes), colour, marker in zip(curves.items(), HUES, MARKERS, strict=False):
            ax.plot(range(len(sizes)), sizes, color=colour, lw=1.6)
            ax.plot(len(sizes) - 1, sizes[-1], marker, color=colour, ms=6, label=f"{depth} blocks")
        ax.set(title=title, xlabel="block", ylim=(0, None))
    axes[0][0].set_ylabel("mean length of a token's row")
    axes[0][0].legend(fontsize=9)
    show()


def suspects(curves: Mapping[str, Sequence[float]]) -> None:
    """The size of the stream after each block, on a logarithmic axis, one named curve for each stack."""
    _, ax = plt.subplots(figsize=(6.0, 3.0))
    for (name, sizes), colour, marker in zip(curves.items(), HUES, MARKERS, strict=False):
        ax.semilogy(range(len(sizes)), sizes, marker + "-", ms=4, color=colour, lw=1.6)
        ax.annotate(
            name,
            (len(sizes) - 1, sizes[-1]),
            (8, 0),
            textcoords="offset points",
            color=colour,
            weight="bold",
            va="center",
        )
    ax.set(xlabel="block", ylabel="mean length of a token's row")
    show()


def learned_streams(curves: Mapping[str, Sequence[float]], labels: Sequence[str]) -> None:
    """The size of the stream at each station of one model, before and after training."""
    _, ax = plt.subplots(figsize=(6.0, 2.8))
    for (name, sizes), colour, marker in zip(curves.items(), (COLOURS["grey"], COLOURS["blue"]), MARKERS, strict=False):
        ax.plot(range(len(sizes)), sizes, marker + "-", ms=5, color=colour, label=name)
    ax.set_xticks(range(len(labels)), labels)
    highest = max(size for sizes in curves.values() for size in sizes)
    ax.set(xlabel="after", ylabel="mean length of\na token's row", ylim=(0, 1.1 * highest))
    ax.legend(fontsize=9)
    show()


# --- the whole model ---


def to_scale(parameters: Sequence[tuple[str, int]], zoomed: str = "h.0.") -> None:
    """Every parameter of a model as a box whose width is its number of numbers; below, one block drawn wider.

    parameters: name and count, in the order of the model; zoomed: what the names of the block below begin with.
    """
    total = sum(count for _, count in parameters)
    block = [(name, count) for name, count in parameters if name.startswith(zoomed)]
    _, ax = plt.subplots(figsize=(6.9, 3.1))
    edges = _boxes(ax, parameters, 1.0 / total, 2.0, 0.0)
    inside = [edge for edge, (name, _) in zip(edges, parameters, strict=False) if name.startswith(zoomed)]
    left, right = inside[0], inside[-1] + block[-1][1] / total
    ax.add_patch(Polygon([(left, 2.0), (right, 2.0), (0.98, 1.0), (0.02, 1.0)], color="#e3e1d9", lw=0, zorder=0))
    size = sum(count for _, count in block)
    starts = _boxes(ax, block, 0.96 / size, 0.0, 0.02)
    for start, (name, count) in zip(starts, block, strict=True):
        if count > 0.05 * size:
            words = name.removeprefix(zoomed).removesuffix(".weight").replace(".", "\n")
            dark = kind(name) == "attn" and "c_proj" not in name
            words = f"{words}\n{count / 1e6:.2f} M"
            ink = "white" if dark else COLOURS["black"]
            ax.text(start + 0.48 * count / size, 0.5, words, ha="center", va="center", fontsize=10, color=ink)
    for prefix, place in (("wte", edges[0]), ("h.", left)):
        share = sum(count for name, count in parameters if name.startswith(prefix)) / 1e6
        words = f"wte: {share:.1f} M" if prefix == "wte" else f"the blocks h.0, h.1, ...: {share:.1f} M"
        ax.text(place, 3.06, words, fontsize=10.5, va="bottom", weight="bold")
    ax.text(0.02, -0.06, f"one block: {size / 1e6:.2f} M", fontsize=10.5, va="top", weight="bold")
    ax.text(1.0, -0.06, f"the whole: {total:,}", fontsize=10.5, va="top", ha="right", weight="bold")
    ax.set(xlim=(-0.005, 1.005), ylim=(-0.4, 3.4))
    ax.axis("off")
    show()


def kind(name: str) -> str:
    """Which part of the model a parameter belongs to: a key of PARTS."""
    return next((part for part in PARTS if part != "ln" and part in name.split(".")), "ln")


def _boxes(ax: Axes, parameters: Sequence[tuple[str, int]], unit: float, y: float, x: float) -> list[float]:
    """A row of boxes from x on; their left edges."""
    edges = []
    for name, count in parameters:
        second = name.split(".")[-2] in ("c_proj", "wpe")  # the paler one of two in one colour
        edges.append(x)
        if count * unit > 0.0015:  # a dot of the screen; what is thinner would show here and there, by chance
            ax.add_patch(Rectangle((x, y), unit * count, 1.0, fc=PARTS[kind(name)], alpha=0.6 if second else 1.0, lw=0))
        if count * unit > 0.002:
            ax.plot([x, x], [y, y + 1.0], color="#fcfbf7", lw=0.7)
        x += unit * count
    return edges


# --- the sentence that travels ---


def journey(tokens: Sequence[str], rows: Mapping[str, Sequence[float]]) -> None:
    """A sentence in the colours of the course, and above each token the probability that a model gave it.

    rows: for each stage a probability for every token but the first, which has nothing before it.
    """
    edges = np.cumsum([0, *(len(token) + 0.9 for token in tokens)])
    _, axes = plt.subplots(len(rows), 1, figsize=(6.9, 0.85 + 0.95 * len(rows)), sharex=True, squeeze=False)
    for ax, (name, values) in zip(axes[:, 0], rows.items(), strict=True):
        for i, value in enumerate(values, 1):
            ax.bar((edges[i] + edges[i + 1]) / 2, value, edges[i + 1] - edges[i] - 0.3, color=HUES[i % len(HUES)], lw=0)
        ax.set(ylim=(0, 1.08), xlim=(0, edges[-1]))
        ax.set_yticks([0, 0.5, 1])
        ax.grid(axis="x", visible=False)
        ax.set_title(name, fontsize=10, weight="normal")
    axes[len(rows) // 2][0].set_ylabel("probability of this token")
    last = axes[-1][0]
    last.set_xticks([(edges[i] + edges[i + 1]) / 2 for i in range(len(tokens))], [visible(token) for token in tokens])
    last.tick_params(axis="x", length=0, pad=5)
    for i, label in enumerate(last.get_xticklabels()):
        label.set(family="DejaVu Sans Mono", fontsize=8)
        label.set_bbox({"facecolor": tint(HUES[i % len(HUES)]), "edgecolor": "none", "pad": 1.8})
    show()


# --- writing and learning ---


def by_position(milliseconds: Mapping[str, Sequence[float]], window: int = 8) -> None:
    """Milliseconds for each new token against its position; drawn is the median of `window` neighbours."""
    _, ax = plt.subplots(figsize=(5.8, 2.8))
    for (name, values), colour, style in zip(
        milliseconds.items(), (COLOURS["red"], COLOURS["blue"]), LINES, strict=False
    ):
        many = len(values) // window * window
        smooth = np.median(np.array(values[:many]).reshape(-1, window), axis=1)
        ax.plot(np.arange(len(smooth)) * window + window / 2, smooth, color=colour, ls=style, label=name)
    ax.set(xlabel="tokens so far", ylabel="processor time for\nthe next token (ms)", ylim=(0, None))
    ax.legend()
    show()


def learning(losses: Sequence[float], lines: Mapping[str, float]) -> None:
    """The loss of each step on a logarithmic axis, with named heights to compare it with."""
    _, ax = plt.subplots(figsize=(6.0, 3.0))
    ax.plot(losses, color=COLOURS["blue"])
    for (name, height), colour in zip(lines.items(), (COLOURS["grey"], COLOURS["black"]), strict=False):
        ax.axhline(height, color=colour, lw=1.4, ls="--")
        ax.annotate(
            name,
            (len(losses), height),
            (0, 3),
            textcoords="offset points",
            color=colour,
            ha="right",
            va="bottom",
            weight="bold",
            fontsize=9.5,
        )
    ax.set(xlabel="step", ylabel="loss (nats a token)", yscale="log", ylim=(0.8 * min(losses), 15))
    ticks = [tick for tick in (0.01, 0.03, 0.1, 0.3, 1, 3, 10) if tick > 0.8 * min(losses)]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    show()


def memory(models: Mapping[str, Mapping[str, int]]) -> None:
    """Bytes of one training step, one bar for each model, stacked by what they are for."""
    _, ax = plt.subplots(figsize=(6.9, 2.6))
    left = np.zeros(len(models))
    colours = [COLOURS[name] for name in ("blue", "orange", "green", "purple")]
    hatches = ("", "//", "", "\\\\")
    for part, colour, hatch in zip(next(iter(models.values())), colours, hatches, strict=False):
        values = np.array([sizes[part] for sizes in models.values()]) / 1e9
        ax.barh(list(models), values, left=left, color=colour, hatch=hatch, label=part)
        left += values
    for y, total in enumerate(left):
        ax.text(total, y, f" {total:,.1f}", va="center", fontsize=9.5)
    ax.invert_yaxis()
    ax.set(xlabel="memory of one training step (GB)", xlim=(0, 1.12 * left.max()))
    ax.grid(axis="y", visible=False)
    ax.legend(fontsize=9, loc="upper right")
    show()
