"""The figures of the experiment in depth.py: they draw what the notebook has computed, and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from glassbox.attention_pictures import BLUES, MARKERS
from glassbox.lab import COLOURS, show
from matplotlib.axes import Axes

__all__: list[str] = []  # nothing that another module would import

PAIR = {"post": COLOURS["orange"], "pre": COLOURS["blue"]}
# post-norm orange, pre-norm blue; with a warm-up a whole line, without one a dashed line
STYLES = {
    "post, warm-up": (COLOURS["orange"], "-", "o"),
    "post, no warm-up": (COLOURS["orange"], "--", "D"),
    "pre, warm-up": (COLOURS["blue"], "-", "s"),
    "pre, no warm-up": (COLOURS["blue"], "--", "^"),
}


def gradients(panels: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """The gradient in each block, a panel for each order and a curve for each depth, which its last block names."""
    _, axes = plt.subplots(1, len(panels), figsize=(6.6, 3.2), sharey=True, squeeze=False)
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for i, ((depth, norms), marker) in enumerate(zip(curves.items(), MARKERS, strict=False)):
            colour = BLUES(0.45 + 0.55 * i / max(len(curves) - 1, 1))
            ax.plot(range(1, depth + 1), norms, color=colour, lw=1.5)
            ax.plot(depth, norms[-1], marker, color=colour, ms=6)
            _name(ax, str(depth), depth, norms[-1], colour)
        ax.set(title=title, xlabel="block", yscale="log", xlim=(0, 27.5))
        ax.set_xticks([1, 4, 8, 12, 16, 20, 24])
    axes[0][0].set_ylabel("length of the gradient\n(numbers at the ends: blocks in all)")
    _plain(axes[0][0], [0.5, 1, 2, 3])
    show()


def sizes_and_effects(sizes: Mapping[str, Sequence[float]], effects: Mapping[str, Mapping[int, float]]) -> None:
    """Two panels: the stream's size after each block, and how far one step of Adam moves models of several depths."""
    _, axes = plt.subplots(1, 2, figsize=(6.6, 2.8))
    for name, values in sizes.items():
        axes[0].plot(range(len(values)), values, color=PAIR[name])
        _name(axes[0], name, len(values) - 1, values[-1], PAIR[name])
    axes[0].set(title="the stream", xlabel="block", ylabel="mean length of a token's row", ylim=(0, None))
    axes[0].set_xlim(0, 1.16 * (len(next(iter(sizes.values()))) - 1))
    depths = list(next(iter(effects.values())))
    for (name, curve), marker in zip(effects.items(), MARKERS, strict=False):
        moved = [100 * value for value in curve.values()]
        axes[1].plot(depths, moved, marker + "-", ms=5, color=PAIR[name])
        _name(axes[1], name, depths[-1], moved[-1], PAIR[name])
    axes[1].set(title="one small step of Adam", xlabel="blocks in all", ylabel="features move by (%)", xscale="log")
    axes[1].set(yscale="log", xlim=(depths[0] / 1.15, depths[-1] * 1.9))
    axes[1].set_xticks(depths, [str(depth) for depth in depths])
    axes[1].minorticks_off()
    _plain(axes[1], [0.2, 0.5, 1, 2, 5, 10, 20])
    show()


def trained(
    steps: Sequence[int],
    curves: Mapping[str, Sequence[Sequence[float]]],
    last: Mapping[str, Mapping[float, Sequence[float]]],
    lines: Mapping[str, float],
) -> None:
    """Left the losses of each combination, the mean of its runs; right the last loss against the learning rate.

    Orange lines are broad and lie below the narrow blue ones, so that both can be seen where they meet.
    """
    _, axes = plt.subplots(1, 2, figsize=(6.6, 3.3), sharey=True, width_ratios=(1.45, 1))
    for name, height in lines.items():
        for ax in axes:
            ax.axhline(height, color=COLOURS["grey"], lw=1.2, ls=":")
        axes[0].text(steps[-1], height - 0.06, name, color=COLOURS["grey"], fontsize=9, ha="right", va="top")
    for name in sorted(curves, reverse=True):  # pre-norm, then post-norm
        colour, style, _ = STYLES[name]
        means = [sum(found) / len(found) for found in zip(*curves[name], strict=True)]
        broad = name.startswith("post")
        axes[0].plot(steps, means, color=colour, ls=style, lw=3.4 if broad else 1.5, zorder=2 if broad else 3)
    for name, by_rate in last.items():
        colour, style, marker = STYLES[name]
        middles = [sum(found) / len(found) for found in by_rate.values()]
        axes[1].plot(list(by_rate), middles, color=colour, ls=style, lw=1.4, marker=marker, ms=6, label=name)
        for rate, found in by_rate.items():
            axes[1].plot([rate, rate], [min(found), max(found)], color=colour, lw=1)
    axes[0].set(title="on the way", xlabel="step", ylabel="loss (nats a token)")
    axes[1].set(title="at the end", xlabel="learning rate", xscale="log")
    rates = list(next(iter(last.values())))
    axes[1].set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes[1].minorticks_off()
    axes[1].set_xlim(rates[0] / 1.5, rates[-1] * 1.5)
    axes[1].figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)
    show()


def _name(ax: Axes, name: str, x: float, y: float, colour: Any) -> None:
    """The name of a curve at its right end."""
    ax.annotate(name, (x, y), (7, 0), textcoords="offset points", color=colour, weight="bold", va="center")


def _plain(ax: Axes, ticks: Sequence[float]) -> None:
    """Ticks of a logarithmic axis as plain numbers."""
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
