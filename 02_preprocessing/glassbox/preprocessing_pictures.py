"""The figures of the notebook 02_preprocessing: they draw what the notebook has computed, and compute nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from glassbox.lab import COLOURS, show
from glassbox.tokenizer_pictures import HUES, visible
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import Normal, Stroke

__all__: list[str] = []  # nothing that another module would import

CARD = "#fcfbf7"  # the background of every figure


def tint(colour: str, part: float = 0.28) -> tuple[float, ...]:
    """A pale version of a colour, light enough for black letters on it."""
    return tuple(1 - part + part * channel for channel in to_rgb(colour))


# --- windows over a text ---


def rulers(tokens: Sequence[str], block_size: int, stride: int) -> None:
    """Windows over a strip of tokens: an x ruler and, one place further, a y ruler for each; arrows to the targets."""
    starts = range(0, len(tokens) - block_size, stride)
    edges = np.cumsum([0, *(max(len(token), 2) + 0.8 for token in tokens)])
    figure = plt.figure(figsize=(6.9, 1.25 + 0.62 * len(starts)), layout="none")
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set(xlim=(-3.2, edges[-1] + 0.8), ylim=(2.6 + 1.3 * len(starts), -1.6))
    ax.axis("off")
    owner = {place: number for number, start in enumerate(starts) for place in range(start, start + block_size)}
    for place, token in enumerate(tokens):
        _token(ax, edges[place], edges[place + 1], token)
        if place in owner:
            _arrow(ax, edges, place, HUES[owner[place] % len(HUES)])
    for number, start in enumerate(starts):
        for row, (name, first) in enumerate((("x", start), ("y", start + 1))):
            y = 1.9 + 1.3 * number + 0.52 * row
            colour = HUES[number % len(HUES)]
            left, right = edges[first], edges[first + block_size]
            ax.add_patch(
                Rectangle((left + 0.15, y), right - left - 0.3, 0.42, lw=0, color=tint(colour, 0.75 - 0.4 * row))
            )
            for edge in edges[first + 1 : first + block_size]:
                ax.plot([edge, edge], [y, y + 0.42], color=CARD, lw=1.6)
            ax.text(left - 0.35, y + 0.22, name, ha="right", va="center", fontsize=11, color=colour, weight="bold")
    show()


def _token(ax: Axes, left: float, right: float, token: str) -> None:
    ax.add_patch(Rectangle((left + 0.1, 0), right - left - 0.2, 1.1, facecolor="#efece2", edgecolor="#c9c5b8", lw=0.8))
    ax.text((left + right) / 2, 0.56, visible(token), ha="center", va="center", fontsize=9.5, family="DejaVu Sans Mono")


def _arrow(ax: Axes, edges: np.ndarray, place: int, colour: str) -> None:
    ends = [(edges[p] + edges[p + 1]) / 2 for p in (place, place + 1)]
    arrow = FancyArrowPatch(
        (ends[0] + 0.35, -0.05),
        (ends[1] - 0.35, -0.05),
        connectionstyle="arc3,rad=-0.45",
        arrowstyle="-|>",
        mutation_scale=9,
        color=colour,
        lw=1.6,
    )
    ax.add_patch(arrow)


def rows(panels: Mapping[str, np.ndarray]) -> None:
    """Rows of a batch as strips: each document in a colour of its own, padding pale. values: document number, or -1."""
    _, axes = plt.subplots(1, len(panels), figsize=(6.9, 3.1), sharey=True, squeeze=False)
    palette = ListedColormap(["#e9e6dc", *HUES])
    for ax, (name, owner) in zip(axes[0], panels.items(), strict=True):
        ax.imshow(
            np.where(owner < 0, 0, 1 + owner % len(HUES)),
            cmap=palette,
            vmin=0,
            vmax=len(HUES),
            aspect="auto",
            interpolation="nearest",
        )
        for row in range(len(owner) - 1):
            ax.axhline(row + 0.5, color=CARD, lw=2)
        ax.set(title=name, xlabel="place in the row", yticks=range(0, len(owner), 2))
        ax.grid(visible=False)
    axes[0][0].set_ylabel("row")
    show()


# --- a model that counts ---


def scores(names: Sequence[str], values: Sequence[float], floor: float | None) -> None:
    """The mean surprise of several models on unseen text, as bars, and the floor below which none can go."""
    _, ax = plt.subplots(figsize=(6.6, 0.42 * len(names) + 1.2))
    bars = ax.barh(names, values, color=COLOURS["blue"], height=0.62)
    ax.bar_label(bars, [f"{value:.2f}" for value in values], padding=4, fontsize=9.5)
    ax.set(xlabel="nats a token, unseen texts", xlim=(0, 1.12 * max(values)))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    _floor(ax, floor, vertical=True)
    show()


def by_order(orders: Sequence[int], curves: Mapping[str, Sequence[float]], floor: float | None) -> None:
    """Mean surprise against how many tokens a model looks at, its guess included."""
    _, ax = plt.subplots()
    for (name, values), colour in zip(curves.items(), HUES, strict=False):
        ax.plot(orders, values, marker="o", ms=5, color=colour, label=name)
    ax.set(xlabel="order of the model (1 = it sees no token before)", ylabel="nats a token", ylim=(0, None))
    ax.set_xticks(orders)
    _floor(ax, floor)
    ax.legend()
    show()


def _floor(ax: Axes, floor: float | None, vertical: bool = False) -> None:
    if floor is None:
        return
    (ax.axvline if vertical else ax.axhline)(floor, color=COLOURS["black"], lw=1.5)
    if vertical:
        ax.text(floor, 1.01, "floor", transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=9.5)
    else:
        ax.text(0.005, floor, "floor", transform=ax.get_yaxis_transform(), ha="left", va="bottom", fontsize=9.5)


def by_document(panels: Mapping[str, Sequence[float]], floor: float | None) -> None:
    """A dot for each validation document: its mean surprise. The dashed line is the mean of all."""
    _, axes = plt.subplots(1, len(panels), figsize=(6.9, 3.3), sharey=True, squeeze=False)
    for ax, (name, values), colour in zip(axes[0], panels.items(), HUES, strict=False):
        ax.plot(range(len(values)), values, ".", color=colour, ms=4)
        mean = float(np.mean(values))
        ax.axhline(mean, color=colour, lw=1.2, ls="--")
        ax.set(title=f"{name}: mean {mean:.2f}", xlabel="validation document")
        _floor(ax, floor)
    axes[0][0].set(ylabel="nats a token", ylim=(0, 1.05 * max(map(max, panels.values()))))
    show()


# --- positions ---


def positions(table: np.ndarray) -> None:
    """A table of positions, and the dot product of each of its rows with each other."""
    figure, axes = plt.subplots(1, 2, figsize=(6.9, 3.4))
    for ax, values, title, label in (
        (axes[0], table, "the table", "channel"),
        (axes[1], table @ table.T, "dot products", "position"),
    ):
        image = ax.imshow(values, aspect="auto", interpolation="nearest")
        ax.set(title=title, xlabel=label, ylabel="position")
        ax.grid(visible=False)
        figure.colorbar(image, ax=ax, shrink=0.85)
    show()


def by_distance(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    """Dot products of one position with others, against how far away these are."""
    _, ax = plt.subplots()
    for (name, (distances, values)), colour, style in zip(curves.items(), HUES, ("-", "--", ":", "-"), strict=False):
        ax.plot(distances, values, style, color=colour, label=name, lw=2.4 if style != "-" else 1.8)
    ax.set(xlabel="distance (positions)", ylabel="dot product")
    ax.legend()
    show()


# --- word vectors ---

EDGES = [  # which dots of a kind are named: axis, end of it, where the name stands
    (0, -1, (6, 0), {"ha": "left", "va": "center"}),
    (0, 0, (-6, 0), {"ha": "right", "va": "center"}),
    (1, -1, (0, 5), {"ha": "center", "va": "bottom"}),
    (1, 0, (0, -5), {"ha": "center", "va": "top"}),
]


def losses(values: Sequence[float], chance: float) -> None:
    """The loss of each step, and what a model without knowledge gets."""
    _, ax = plt.subplots(figsize=(6.6, 3.0))
    ax.plot(values, color=COLOURS["blue"], lw=1.5)
    ax.axhline(chance, color=COLOURS["grey"], lw=1.2, ls="--")
    ax.text(len(values), chance, "all answers one half", ha="right", va="bottom", fontsize=9.5, color=COLOURS["grey"])
    ax.set(xlabel="step", ylabel="loss (nats a pair)", ylim=(0, 1.15 * max(*values, chance)))
    show()


def word_map(
    panels: Mapping[str, np.ndarray], words: Sequence[str], kinds: Sequence[str], named: Collection[str] = ()
) -> None:
    """Words as dots on a plane, one panel above the other, a colour for each kind; some words are named.

    panels: for each title the places, (n, 2); words, kinds: of the n dots; named: words that must have their name.
    """
    _, axes = plt.subplots(len(panels), 1, figsize=(6.9, 3.9 * len(panels)), squeeze=False)
    for ax, (title, places) in zip(axes[:, 0], panels.items(), strict=True):
        ax.set(title=title, xticks=[], yticks=[])
        ax.grid(visible=False)
        chosen: list[tuple[Any, ...]] = []
        for kind, colour in zip(dict.fromkeys(kinds), HUES, strict=False):
            mine = np.array([i for i, k in enumerate(kinds) if k == kind])
            ax.plot(*places[mine].T, "o", ms=4.5, color=colour, alpha=0.75, label=kind)
            chosen[:0] = [(i, colour, *EDGES[0][2:]) for i in mine if words[i] in named]  # these first
            chosen += [(mine[np.argsort(places[mine, axis])[end]], colour, *rest) for axis, end, *rest in EDGES]
        taken: list[np.ndarray] = []
        for i, colour, offset, style in chosen:
            at = (places[i] / np.ptp(places, axis=0)) + np.array(offset) / 200
            if all(abs(at - other)[0] > 0.16 or abs(at - other)[1] > 0.06 for other in taken):
                taken.append(at)
                label = ax.annotate(words[i], places[i], offset, textcoords="offset points", fontsize=9, **style)
                label.set(color=colour, path_effects=[Stroke(linewidth=3, foreground=CARD), Normal()], zorder=3)
        ax.margins(x=0.12, y=0.1)
        ax.legend(loc="best", fontsize=9, handletextpad=0.2)
    show()


def against_theory(expected: Sequence[float], found: Sequence[float]) -> None:
    """What the products of word vectors should be, and what they are, one dot for each pair of words."""
    _, ax = plt.subplots(figsize=(4.4, 3.7))
    ends = [min(expected), max(expected)]
    ax.plot(ends, ends, color=COLOURS["grey"], lw=1.2)
    ax.plot(expected, found, "o", ms=5, color=COLOURS["blue"])
    ax.set(xlabel="ln p(w, c) / (p(w) q(c)) - ln K (nats)", ylabel="product of the vectors")
    show()
