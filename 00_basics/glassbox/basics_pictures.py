"""The figures of the notebook 00_basics: they draw numbers that the notebook has computed, and compute none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from glassbox.lab import COLOURS, show

__all__: list[str] = []  # nothing that another module would import

BOX = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": COLOURS["black"]}


def graph(a: Any, b: Any, c: Any, L: Any) -> None:
    """The graph of c = a * b, L = c + a: values forward, and back the share of the gradient that each rule computes."""
    place = {"a": (0.0, 0.0), "b": (0.0, 2.0), "c": (1.6, 1.6), "L": (3.2, 0.5)}
    formula = {"a": "a", "b": "b", "c": "c = a·b", "L": "L = c + a"}
    _, ax = plt.subplots(figsize=(6.8, 3.7))
    for name, node in zip("abcL", (a, b, c, L), strict=True):
        text = f"{formula[name]} = {node.data:g}\ngradient {node.grad:g}"
        ax.text(*place[name], text, ha="center", va="center", bbox=BOX, zorder=3)
    for end, node, inputs in (("c", c, "ab"), ("L", L, "ca")):
        for name, rule in zip(inputs, node.rules, strict=True):
            start, stop = np.array(place[name]), np.array(place[end])
            across = np.array([-(stop - start)[1], (stop - start)[0]])
            side = 0.09 * across / np.linalg.norm(across)
            style = {"arrowstyle": "-|>", "shrinkA": 42, "shrinkB": 42}
            ax.annotate(
                "", tuple(stop + side), tuple(start + side), arrowprops={**style, "color": COLOURS["grey"], "lw": 1.4}
            )
            ax.annotate(
                "", tuple(start - side), tuple(stop - side), arrowprops={**style, "color": COLOURS["orange"], "lw": 2.6}
            )
            x, y = (start + stop) / 2 - 2.6 * side
            share = f"{rule(node.grad):g}"
            ax.text(x, y, share, color=COLOURS["orange"], weight="bold", ha="center", va="center")
    ax.set(xlim=(-0.75, 4.0), ylim=(-0.55, 2.5))
    ax.axis("off")
    show()


def lines(X: np.ndarray, rows: np.ndarray, fits: np.ndarray) -> None:
    """The four points of XOR and lines x·w + b = 0, given as rows (w, b): the side of 1 shaded, wrong points ringed.

    fits: which points each line has on their right side, (lines, 4).
    """
    _, axes = plt.subplots(1, len(rows), figsize=(6.9, 2.9), sharey=True)
    square = (-0.5, 1.5, -0.5, 1.5)
    grid = np.linspace(-0.5, 1.5, 60)
    for ax, (w1, w2, b), right in zip(axes, rows, fits, strict=True):
        sums = w1 * grid[None, :] + w2 * grid[:, None] + b
        ax.contourf(sums, levels=[-1e9, 0, 1e9], extent=square, colors=["#f6e3c2", "#c9d4f3"])
        ax.contour(sums, levels=[0], extent=square, colors=COLOURS["black"], linewidths=1.5)
        ax.scatter(*X[[0, 3]].T, marker="o", color=COLOURS["orange"], s=70, zorder=3, label="0")
        ax.scatter(*X[[1, 2]].T, marker="X", color=COLOURS["blue"], s=80, zorder=3, label="1")
        ax.scatter(*X[~right].T, marker="o", facecolors="none", edgecolors=COLOURS["red"], s=330, lw=2.2, zorder=4)
        ax.set(xlabel="input 1", xticks=[0, 1], yticks=[0, 1], aspect="equal")
        ax.grid(False)
    axes[0].set_ylabel("input 2")
    axes[-1].legend(title="XOR is", loc="center left", bbox_to_anchor=(1, 0.5))
    show()


def xor_frames(X: np.ndarray, y: np.ndarray, frames: Mapping[int, np.ndarray], losses: Sequence[float]) -> None:
    """The answers of a network over the square at six steps, and below them the loss."""
    _, axes = plt.subplot_mosaic("012345;LLLLLL", figsize=(6.9, 3.7), height_ratios=[1, 1.25])
    square = (-0.5, 1.5, -0.5, 1.5)
    for name, (step, answer) in zip("012345", frames.items(), strict=True):
        ax = axes[name]
        ax.contourf(answer, levels=[-1e9, 0.5, 1e9], extent=square, colors=["#f6e3c2", "#c9d4f3"])
        ax.contour(answer, levels=[0.5], extent=square, colors=COLOURS["black"], linewidths=1.5)
        ax.scatter(*X[y.ravel() == 0].T, marker="o", color=COLOURS["orange"], s=42, zorder=3)
        ax.scatter(*X[y.ravel() == 1].T, marker="X", color=COLOURS["blue"], s=48, zorder=3)
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.set_title(f"step {step}", fontsize=10, loc="center", weight="normal")
    axes["L"].plot(losses, color=COLOURS["grey"])
    axes["L"].plot(list(frames), [losses[step] for step in frames], "o", color=COLOURS["blue"])
    axes["L"].set(xlabel="step", ylabel="mean squared error", ylim=(0, None))
    show()


def walks(paths: Mapping[str, np.ndarray]) -> None:
    """Ways down the valley x²/2 + 10 y², one panel each, with the distance to the bottom that is left."""
    _, axes = plt.subplots(1, len(paths), figsize=(6.9, 2.9), sharey=True)
    x, y = np.meshgrid(np.linspace(-10, 10, 80), np.linspace(-2.2, 2.2, 80))
    colours = ("sky", "green", "red") if len(paths) == 3 else ("green", "purple")
    for ax, (name, path), colour in zip(axes, paths.items(), colours, strict=True):
        ax.contour(x, y, 0.5 * x**2 + 10 * y**2, levels=[1, 5, 15, 30, 50], colors="#bdb9ac", linewidths=0.8)
        ax.plot(*path.T, ".-", color=COLOURS[colour], linewidth=1.1, markersize=6)
        ax.plot(0, 0, "+", color=COLOURS["black"], markersize=10)
        left = f"left after {len(path) - 1} steps: {np.hypot(*path[-1]):.2f}"
        ax.set_title(f"{name}\n{left}", fontsize=10, weight="normal")
        ax.set(xlim=(-10, 10), ylim=(-2.2, 2.2), xlabel="x")
    axes[0].set_ylabel("y")
    show()


def sentence(pieces: Sequence[str], nats: Sequence[float]) -> None:
    """The surprise of each piece of a sentence, in reading order from the top."""
    _, ax = plt.subplots(figsize=(6.6, 0.9 + 0.25 * len(pieces)))
    ax.barh(range(len(pieces)), nats, color=COLOURS["blue"], height=0.7)
    ax.set_yticks(range(len(pieces)), [piece.strip() for piece in pieces])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="exact surprise, nats")
    show()


def letters(curve: Sequence[float], held: Mapping[int, float], lines: Mapping[str, float]) -> None:
    """A loss curve over training steps with the lines that give it a meaning."""
    _, ax = plt.subplots(figsize=(6.9, 4.4))
    smooth, last = np.convolve(curve, np.ones(50) / 50, "valid"), len(curve) - 1
    ax.plot(np.arange(len(smooth)) + 49, smooth, color=COLOURS["sky"], linewidth=1.2, label="training, mean of 50")
    ax.plot(list(held), list(held.values()), "o-", color=COLOURS["blue"], markersize=5, label="unseen texts")
    for (name, height), colour in zip(lines.items(), ("grey", "purple", "orange", "red"), strict=False):
        ax.axhline(height, color=COLOURS[colour], linestyle="--", linewidth=1.4)
        ax.text(last, height + 0.07, f"{name}: {height:.2f}", color=COLOURS[colour], ha="right", weight="bold")
    ax.set(xlabel="step", ylabel="nats per letter", ylim=(0, 1.12 * max(lines.values())), xlim=(-60, last))
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0.88))
    show()


def by_depth(depths: Sequence[int], sizes: Mapping[str, Sequence[float]]) -> None:
    """The gradient at the first layer against the number of layers, each curve relative to its own start."""
    _, ax = plt.subplots()
    for (name, values), colour, marker in zip(sizes.items(), ("blue", "red", "green"), "osD", strict=True):
        relative = np.array(values) / values[0]
        ax.semilogy(depths, relative, marker + "-", color=COLOURS[colour], label=name)
    ax.set(xlabel="layers", ylabel="gradient at the first layer\n(with 2 layers: 1)")
    ax.legend()
    show()


def by_layer(sizes: Mapping[float, Sequence[float]]) -> None:
    """The typical size of each layer's output for several gains at the start."""
    _, ax = plt.subplots()
    for (gain, values), colour, marker in zip(sizes.items(), ("sky", "green", "red"), "osD", strict=True):
        ax.semilogy(range(1, len(values) + 1), values, marker + "-", markersize=4, color=COLOURS[colour])
        ax.text(len(values) + 0.5, values[-1], f"gain {gain:.2f}", color=COLOURS[colour], va="center")
    ax.set(xlabel="layer", ylabel="typical size of its output", xlim=(0, 36))
    show()


def first_weights(networks: Mapping[str, Any]) -> None:
    """The weights of the first layer of some networks: a row for each input, a column for each hidden neuron."""
    _, axes = plt.subplots(1, len(networks), figsize=(6.9, 2.2))
    for ax, (name, network) in zip(axes, networks.items(), strict=True):
        ax.imshow(network.layers[0][0].data, cmap="RdBu", vmin=-2, vmax=2, aspect="auto")
        ax.set(xlabel="hidden neuron", yticks=[0, 1], yticklabels=["input 1", "input 2"])
        ax.set_title(name, fontsize=11)
        ax.grid(False)
    plt.colorbar(axes[0].images[0], ax=axes, label="weight")
    show()
