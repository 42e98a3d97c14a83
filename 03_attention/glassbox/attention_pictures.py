"""The figures of the notebook 03_attention: they draw what the notebook has computed, and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from glassbox.lab import CARD, COLOURS, show
from glassbox.tokenizer_pictures import THOUSANDS, visible
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

__all__: list[str] = []  # nothing that another module would import

HUES = [COLOURS[name] for name in ("red", "orange", "blue", "green", "purple", "sky")]
MARKERS = "osD^vP"
BLUES = LinearSegmentedColormap.from_list("blues", [CARD, COLOURS["sky"], COLOURS["blue"], "#101f5c"])
COLUMNS = 43  # characters of a line beside the triangle


def gradients(curves: Mapping[str, Sequence[float]]) -> None:
    """How much the last output depends on the input of each distance, each curve relative to distance 0."""
    _, ax = plt.subplots(figsize=(6.9, 3.7))
    for (name, values), colour in zip(curves.items(), HUES, strict=False):
        ax.semilogy(np.array(values) / values[0], color=colour, label=name)
    ax.set(xlabel="distance (steps back)", ylabel="size of the gradient\n(at distance 0: 1)", ylim=(1e-12, 1e6))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    show()


def recall(edges: Sequence[int], curves: Mapping[str, Sequence[float]], chance: float) -> None:
    """The share of right answers against the distance, on a logarithmic axis, with the line of those who guess."""
    middles = [((a * (b - 1)) ** 0.5) for a, b in pairwise(edges)]
    _, ax = plt.subplots(figsize=(6.9, 3.9))
    for (name, values), colour, marker in zip(curves.items(), HUES, MARKERS, strict=False):
        ax.plot(middles, [100 * value for value in values], marker + "-", ms=5, color=colour)
        place = 4 if name != "attention" else 6
        ax.annotate(
            name, (middles[place], 100 * values[place]), (6, 6), textcoords="offset points", color=colour, weight="bold"
        )
    ax.axhline(100 * chance, color=COLOURS["grey"], lw=1.4, ls="--")
    ax.text(1, 100 * chance - 2, "chance", color=COLOURS["grey"], weight="bold", va="top")
    ax.set(xscale="log", xlabel="distance (rows back)", ylabel="right answers (%)", ylim=(0, 109))
    ax.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    ax.minorticks_off()
    show()


def lit_row(tokens: Sequence[str], weights: torch.Tensor, row: int) -> None:
    """The causal triangle with one row lit, and beside it the text so far, underlined as thickly as it is looked at."""
    size = row + 1
    figure = plt.figure(figsize=(6.9, 3.5), layout="none")
    left = figure.add_axes((0.01, 0.04, 0.37, 0.83), anchor="N")
    left.fill([0, 0, size], [0, size, size], color="#e3e1d9", lw=0)
    for column, weight in enumerate(weights[row, :size].tolist()):
        left.add_patch(Rectangle((column, row - 1.5), 1, 2.5, color=BLUES(0.1 + 0.95 * weight), lw=0))
    left.add_patch(Rectangle((0, row - 1.5), size, 2.5, fill=False, ec=COLOURS["orange"], lw=1.6))
    left.set(xlim=(-0.5, size + 0.5), ylim=(size + 0.5, -0.5), aspect="equal")
    left.axis("off")
    left.set_title("who may look where", fontsize=10, weight="normal")
    right = figure.add_axes((0.40, 0.04, 0.59, 0.83))
    right.axis("off")
    right.set_title(f'what "{tokens[row].strip()}" looks at', fontsize=10, weight="normal")
    _underlined(right, tokens[:size], weights[row, :size].tolist())
    show()


def _underlined(ax: Axes, tokens: Sequence[str], weights: Sequence[float]) -> None:
    """A text in lines of COLUMNS characters; under each token a bar, as thick as its weight."""
    x, y = 0, 0.0
    for i, (token, weight) in enumerate(zip(tokens, weights, strict=True)):
        word = token.replace("\n", "⏎").replace("<|endoftext|>", "")
        if x and x + len(word) > COLUMNS:
            x, y = 0, y + 1.6
            word = word.lstrip()
        last = i == len(tokens) - 1
        space = len(word) - len(word.lstrip())
        ax.text(
            x, y, word, family="DejaVu Sans Mono", fontsize=11, weight="bold" if last else "normal",
            color=COLOURS["orange"] if last else COLOURS["black"],
        )  # fmt: skip
        ax.add_patch(Rectangle((x + space, y + 0.22), len(word) - space, 0.9 * weight, color=COLOURS["blue"], lw=0))
        x += len(word)
    ax.set(xlim=(0, COLUMNS + 1), ylim=(max(y + 1.6, 9), -1))


def maps(weights: Mapping[str, torch.Tensor], rows: Sequence[str], columns: Sequence[str], lit: int) -> None:
    """Attention weights (rows, columns) as dark squares, one panel above the other, one row framed."""
    height = 0.155 * len(rows) * len(weights) + 1.9
    _, axes = plt.subplots(len(weights), 1, figsize=(6.9, height), sharex=True, squeeze=False)
    for ax, (name, part) in zip(axes[:, 0], weights.items(), strict=True):
        ax.imshow(part.numpy(), cmap=BLUES, vmin=0, vmax=1, aspect="auto")
        ax.set_yticks(range(len(rows)), [token.strip() for token in rows], fontsize=7.5)
        ax.set_title(name, fontsize=10, weight="normal")
        ax.add_patch(Rectangle((-0.5, lit - 0.5), len(columns), 1, fill=False, ec=COLOURS["orange"], lw=1.4))
        _cells(ax, len(rows), len(columns))
    axes[-1][0].set_xticks(
        range(len(columns)), [visible(token).strip("·") for token in columns], fontsize=7, rotation=90
    )
    show()


def squares(weights: Mapping[str, torch.Tensor], tokens: Sequence[str]) -> None:
    """Square maps of attention weights side by side: a row for each query, a column for each key."""
    _, axes = plt.subplots(1, len(weights), figsize=(6.9, 3.1), sharey=True, squeeze=False)
    labels = [visible(token).strip("·") for token in tokens]
    for ax, (name, part) in zip(axes[0], weights.items(), strict=True):
        ax.imshow(part.numpy(), cmap=BLUES, vmin=0, vmax=1)
        ax.set_xticks(range(len(labels)), labels, fontsize=7, rotation=90)
        ax.set_yticks(range(len(labels)), labels, fontsize=7)
        ax.set_title(name, fontsize=10, weight="normal")
        _cells(ax, len(labels), len(labels))
    show()


def _cells(ax: Axes, rows: int, columns: int) -> None:
    """Thin lines between the cells of a map, and none at the ticks."""
    ax.set_xticks(np.arange(-0.5, columns), minor=True)
    ax.set_yticks(np.arange(-0.5, rows), minor=True)
    ax.grid(False)
    ax.grid(which="minor", color="#e3e1d9", lw=0.4)
    ax.tick_params(which="both", length=0)


def cost(lengths: Sequence[int], seconds: Mapping[str, Sequence[float]], kept: Mapping[str, Sequence[int]]) -> None:
    """Time, and memory kept for the backward pass, against the number of tokens, on logarithmic axes."""
    _, axes = plt.subplots(1, 2, figsize=(6.9, 3.6))
    parts = ((axes[0], seconds, 1.0, "processor time (s)"), (axes[1], kept, 1e6, "kept for the way back (MB)"))
    for ax, curves, unit, label in parts:
        for (name, values), colour, style in zip(curves.items(), HUES, ("o-", "s-", "D--"), strict=False):
            ax.plot(lengths, np.array(values) / unit, style, ms=4, color=colour, label=name)
        ax.set(xscale="log", yscale="log", xlabel="tokens T", ylabel=label)
        ax.set_xticks(lengths[::2], [f"{T:,}" for T in lengths[::2]])
        ax.minorticks_off()
    axes[1].yaxis.set_major_formatter(THOUSANDS) if max(map(max, kept.values())) > 1e9 else None
    axes[0].legend(fontsize=9)
    show()
