"""The figures of the notebook 05_loss: they draw what the notebook has computed, and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from glassbox.lab import COLOURS, show
from glassbox.tokenizer_pictures import HUES, tint, visible
from matplotlib.axes import Axes

__all__: list[str] = []  # nothing that another module would import

LINES = ("-", "--", "-.", ":")


# --- how wrong? ---


def ruler(marks: Mapping[str, float], bytes_a_token: float) -> None:
    """Losses on one axis, told in three units: nats a token, perplexity, bits a byte."""
    figure, ax = plt.subplots(figsize=(6.2, 2.5), layout="none")  # the usual layout would cut off the third axis
    figure.subplots_adjust(left=0.04, right=0.96, top=0.79, bottom=0.42)
    highest = 1.08 * max(marks.values())
    ax.axhline(0, color=COLOURS["grey"], lw=1)
    for i, (name, nats) in enumerate(marks.items()):
        colour = HUES[i % len(HUES)]
        ax.plot(nats, 0, "o", color=colour, ms=9, zorder=3)
        ax.annotate(
            f"{name}\n{nats:.2f}",
            (nats, 0),
            (0, 13),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=colour,
            weight="bold",
            fontsize=9.5,
        )
    ax.set(xlim=(0, highest), ylim=(-0.4, 1), yticks=[], xlabel="nats a token")
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False)
    powers = [p for p in (1, 2, 5, 10, 30, 100, 300, 1000, 3000) if np.log(p) < highest]
    top = ax.secondary_xaxis("top")
    top.set_xticks(np.log(powers), [f"{p:,}" for p in powers])
    top.set_xlabel("perplexity")
    below = ax.secondary_xaxis(-0.5)
    step = np.log(2) * bytes_a_token
    bits = np.arange(0, highest / step, 0.5)
    below.set_xticks(bits * step, [f"{b:g}" for b in bits])
    below.set_xlabel("bits a byte")
    show()


# --- one step ---


def paths(walks: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Walks over the plane of two numbers; the cross is the lowest point."""
    figure, ax = plt.subplots(figsize=(4.8, 2.0))
    for (name, walk), colour, style in zip(walks.items(), HUES, ("-", "-", "-"), strict=False):
        points = np.array(walk)
        ax.plot(points[:, 0], points[:, 1], ls=style, color=colour, lw=1.3, label=name)
    ax.plot(0, 0, "x", color=COLOURS["black"], ms=9, mew=2)
    ax.set(xlabel="first number", ylabel="second number", xlim=(-10.5, 1.5), ylim=(-1.1, 1.1))
    ax.grid(visible=False)
    figure.legend(fontsize=8.5, loc="outside upper left", ncols=3)
    show()


def schedules(curves: Mapping[str, Sequence[float]]) -> None:
    """The step size at each step, for several plans."""
    _, ax = plt.subplots(figsize=(4.4, 1.8))
    for (name, values), colour, style in zip(curves.items(), HUES, LINES, strict=False):
        ax.plot(values, color=colour, ls=style, label=name)
    ax.set(xlabel="step", ylabel="step size lr", ylim=(0, None))
    ax.legend(fontsize=9, loc=(0.14, 0.06))
    show()


# --- the clinic ---


def clinic(
    runs: Mapping[str, Sequence[tuple[float, float, float]]],
    sound: Sequence[tuple[float, float, float]],
    lines: Mapping[str, float],
) -> None:
    """Loss curves of sick runs, each beside the sound one in grey: solid while training, dashed on held-out texts.

    A row is step, training loss, held-out loss. Losses above the panel are drawn at its upper edge.
    """
    _, axes = plt.subplots(2, 3, figsize=(5.7, 2.9), sharex=True, sharey=True)
    top, flat = 13.0, axes.ravel()
    for ax, (name, rows) in zip(flat, {**runs, "sound": sound}.items(), strict=False):
        for part, colour in ((sound, COLOURS["grey"]), (rows, COLOURS["blue"])):
            steps, loss, held = np.minimum(np.array(part).T, [[np.inf], [top], [top]])
            if name != "sound" or part is rows:
                ax.plot(steps, loss, color=colour, lw=1.3)
                ax.plot(steps, held, color=colour, ls="--", lw=1.6)
        for height in lines.values():
            ax.axhline(height, color=COLOURS["red"], lw=0.8)
        ax.grid(visible=False)
        ax.set(title=name if name == "sound" else f"run {name}", ylim=(0, top + 0.5))
        ax.title.set_fontsize(10.5)
        highest = max(loss for _, loss, _ in rows)
        if highest > top:
            ax.text(0.96, 0.4, f"up to {highest:,.0f}", transform=ax.transAxes, ha="right", color=COLOURS["blue"])
    for name, height in lines.items():
        flat[-1].annotate(
            name,
            (0.98, height),
            (0, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color=COLOURS["red"],
            fontsize=8.5,
        )
    for ax in axes[-1]:
        ax.set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel("nats a token")
    show()


# --- the sentence that travels ---


def journey(sentences: Sequence[tuple[Sequence[str], Sequence[float], Sequence[float], Sequence[bool]]]) -> None:
    """Sentences in the colours of the course. Over each word the model's surprise, full, and the exact one, outlined.

    A sentence: its words, both surprises in nats, and which words are recalls: these are framed.
    """
    _, axes = plt.subplots(len(sentences), 1, figsize=(6.9, 1.7 * len(sentences)), sharey=True, squeeze=False)
    for ax, (words, model, exact, recalls) in zip(axes[:, 0], sentences, strict=True):
        edges = np.cumsum([0, *(len(word) + 0.9 for word in words)])
        for i, (nats, truth) in enumerate(zip(model, exact, strict=True)):
            width, colour = edges[i + 1] - edges[i] - 0.3, HUES[i % len(HUES)]
            ax.bar(edges[i] + 0.15 + width / 4, nats, width / 2, color=colour, lw=0)
            ax.bar(edges[i] + 0.15 + 3 * width / 4, truth, width / 2, fc="none", ec=colour, lw=1.4)
        ax.set(xlim=(0, edges[-1] + 1), ylabel="nats")
        ax.grid(axis="x", visible=False)
        _under(ax, words, edges, recalls)
    show()


def _under(ax: Axes, tokens: Sequence[str], edges: np.ndarray, framed: Sequence[bool]) -> None:
    """Tokens below an axis, tinted in their colours."""
    ax.set_xticks([(edges[i] + edges[i + 1]) / 2 for i in range(len(tokens))], [visible(token) for token in tokens])
    ax.tick_params(axis="x", length=0, pad=5)
    for i, label in enumerate(ax.get_xticklabels()):
        label.set(family="DejaVu Sans Mono", fontsize=8)
        label.set_bbox(
            {"facecolor": tint(HUES[i % len(HUES)]), "edgecolor": COLOURS["black"] if framed[i] else "none", "pad": 1.8}
        )


# --- choosing the next word ---


def filtered(tokens: Sequence[str], panels: Mapping[str, Sequence[float]]) -> None:
    """What dice would be thrown with: the probabilities of the same tokens, a panel for each way to change them."""
    _, axes = plt.subplots(1, len(panels), figsize=(5.8, 2.2), sharey=True)
    places = np.arange(len(tokens))
    for ax, (name, values), colour in zip(axes, panels.items(), HUES, strict=False):
        ax.barh(places, values, color=colour, lw=0)
        ax.plot([0] * sum(v == 0 for v in values), [i for i, v in enumerate(values) if v == 0], "x", color="#7a7f85")
        ax.set_title(name, fontsize=9.5)
        ax.set(xlim=(-0.04, 1.0), xticks=[0, 0.5, 1])
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(places, [visible(token) for token in tokens], family="DejaVu Sans Mono", fontsize=8.5)
    axes[0].invert_yaxis()
    axes[len(panels) // 2].set_xlabel("probability")
    show()
