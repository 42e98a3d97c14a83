"""The figures of the notebook 01_tokenizer: they draw what the notebook has computed, and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from glassbox.lab import COLOURS, show
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

__all__: list[str] = []  # nothing that another module would import

HUES = [COLOURS[name] for name in ("blue", "orange", "green", "red", "sky", "purple")]
THOUSANDS = FuncFormatter(lambda x, _: f"{x:,.0f}")
COLUMNS = 64  # characters of a line of coloured tokens


def tint(colour: str) -> tuple[float, ...]:
    """A pale version of a colour, light enough for black letters on it."""
    return tuple(0.72 + 0.28 * part for part in to_rgb(colour))


def visible(token: str) -> str:
    """A token with its spaces and line ends made visible."""
    return token.replace(" ", "·").replace("\n", "⏎")


def lines_of(tokens: Sequence[str]) -> list[list[str]]:
    """Tokens broken into lines of at most COLUMNS characters."""
    lines: list[list[str]] = [[]]
    for token in tokens:
        if lines[-1] and sum(map(len, lines[-1])) + len(token) > COLUMNS:
            lines.append([])
        lines[-1].append(visible(token))
    return lines


def coloured_tokens(rows: Mapping[str, Sequence[str]]) -> None:
    """Texts as rows of coloured boxes, one for each token, with a label above each text. A dot stands for a space."""
    broken = {label: lines_of(tokens) for label, tokens in rows.items()}
    height = 0.5 * len(broken) + 0.42 * sum(map(len, broken.values()))
    figure = plt.figure(figsize=(6.9, 0.1 + 0.62 * height), layout="none")
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set(xlim=(-1, COLUMNS + 1), ylim=(height, 0))
    ax.axis("off")
    y = 0.0
    for label, lines in broken.items():
        y += 0.36
        ax.text(0, y, label, fontsize=9.5, color=COLOURS["grey"], va="bottom")
        number = 0
        for line in lines:
            x = 0
            for token in line:
                _box(ax, x, y, token, HUES[number % len(HUES)])
                x += len(token)
                number += 1
            y += 0.42
        y += 0.14
    show()


def _box(ax: Axes, x: float, y: float, token: str, colour: str) -> None:
    ax.add_patch(Rectangle((x + 0.07, y + 0.03), len(token) - 0.14, 0.36, color=tint(colour), lw=0))
    for i, letter in enumerate(token):
        ax.text(x + i + 0.5, y + 0.215, letter, family="DejaVu Sans Mono", fontsize=10.5, ha="center", va="center")


def by_merge(curves: Mapping[str, Sequence[int]]) -> None:
    """How frequent each pair was when it was chosen: one dot for each merge, one panel for each trainer."""
    _, axes = plt.subplots(1, len(curves), figsize=(6.9, 3.3), sharey=True, squeeze=False)
    for ax, (name, found), colour in zip(axes[0], curves.items(), HUES, strict=False):
        ax.plot(range(1, len(found) + 1), found, ".", color=colour, ms=4)
        ax.set_yscale("symlog", linthresh=10)  # a logarithmic axis that has a zero
        ax.set(xlabel="merge", title=name, ylim=(-2, None))
        ax.set_yticks([0, 10, 100, 1000, 10_000], ["0", "10", "100", "1,000", "10,000"])
        ax.minorticks_off()
    axes[0][0].set_ylabel("count of the chosen pair")
    show()


def compression(sizes: Sequence[int], values: Sequence[float], best: float) -> None:
    """Characters a token against vocabulary size; dashed, what one token for each pre-token would give."""
    _, ax = plt.subplots()
    ax.plot(sizes, values, marker="o", ms=5, color=COLOURS["blue"])
    ax.axhline(best, color=COLOURS["orange"], lw=1.4, ls="--")
    ax.text(sizes[0], best, "one token for each pre-token", color=COLOURS["orange"], weight="bold", va="bottom")
    ax.set(xscale="log", xlabel="vocabulary size (tokens)", ylabel="characters a token", ylim=(0, 1.12 * best))
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.minorticks_off()
    show()


def losses(
    sizes: Sequence[int], per_token: Sequence[float], per_character: Sequence[float], floor: float | None
) -> None:
    """The same losses counted in two ways, against the size of the vocabulary."""
    _, axes = plt.subplots(1, 2, figsize=(6.9, 3.3))
    places = range(len(sizes))
    for ax, values, unit, colour in zip(axes, (per_token, per_character), ("token", "character"), HUES, strict=False):
        bars = ax.bar(places, values, color=colour, width=0.6)
        ax.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=9.5)
        ax.set(xlabel="vocabulary size", ylabel=f"nats a {unit}", title=f"counted by {unit}")
        ax.set_xticks(places, [f"{size:,}" for size in sizes])
        ax.grid(axis="x", visible=False)
    if floor is not None:
        axes[1].axhline(floor, color=COLOURS["black"], lw=1.5)
        axes[1].set_xlim(-0.5, len(sizes) + 0.2)
        axes[1].text(len(sizes) + 0.2, floor, "floor", ha="right", va="bottom", fontsize=9.5)
    show()


def price(counts: Mapping[str, Mapping[str, int]]) -> None:
    """One sentence in several languages: a cell for each token. counts: tokens by language, for each vocabulary."""
    languages = list(next(iter(counts.values())))
    size = (6.9, 0.27 * len(languages) + 1.0)
    _, axes = plt.subplots(1, len(counts), figsize=size, sharey=True, sharex=True, squeeze=False)
    for ax, (name, by_language), colour in zip(axes[0], counts.items(), HUES, strict=False):
        for row, language in enumerate(languages):
            cells = by_language[language]
            ax.barh([row] * cells, 0.75, left=range(cells), height=0.66, color=colour, lw=0)
            ax.text(cells + 1, row, str(cells), va="center", fontsize=9)
        ax.set_yticks(range(len(languages)), languages)
        ax.set(title=name, xlabel="tokens", xlim=(0, 1.15 * max(max(costs.values()) for costs in counts.values())))
        ax.grid(axis="y", visible=False)
    axes[0][0].invert_yaxis()
    show()


def fertility(ratios: Mapping[str, float]) -> None:
    """How many tokens a text costs in each language, relative to English."""
    names = sorted(ratios, key=ratios.__getitem__)
    _, ax = plt.subplots(figsize=(6.6, 0.22 * len(names) + 0.9))
    bars = ax.barh(names, [ratios[name] for name in names], color=COLOURS["blue"], height=0.7)
    ax.bar_label(bars, [f"{ratios[name]:.1f}" for name in names], padding=3, fontsize=9)
    ax.axvline(1.0, color=COLOURS["black"], lw=1.2)
    ax.set(xlabel="tokens of the same text, English = 1", xlim=(0, 1.1 * max(ratios.values())))
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", labelsize=9)
    show()


def by_length(lengths: Sequence[int], curves: Mapping[str, Sequence[float]]) -> None:
    """Seconds to encode one word against its length, on logarithmic axes."""
    _, ax = plt.subplots()
    for (name, seconds), colour in zip(curves.items(), HUES, strict=False):
        ax.plot(lengths[: len(seconds)], seconds, marker="o", ms=4, color=colour, label=name)
    ax.set(xscale="log", yscale="log", xlabel="length of the word (letters)", ylabel="time (s)")
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.legend()
    show()
