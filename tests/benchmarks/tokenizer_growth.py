"""How do the costs of a tokenizer grow: with the text, the vocabulary, the length of a word?

    python tests/benchmarks/tokenizer_growth.py           measures (about ten minutes), writes the CSV and the figure
    python tests/benchmarks/tokenizer_growth.py --draw    draws the figure from the CSV that is there

Times are CPU seconds of one thread, the median of three rounds with all sides in turn; one round where a call takes
long. Memory is the peak of a process of its own, less the peak of one that only imports and loads the same text; it
hardly changes from run to run. The text is that of bench_tokenizer.py: the real corpora under $GLASSBOX_DATA, else
fresh Tiny Tales. Only 14 MB of the real ones are English prose; what follows has many more kinds of word.

A trainer that recounts all pairs before each merge needs twenty minutes for a megabyte, so a sample of its steps is
timed: each on the words as they stand then, and as many times as there are steps from one sample to the next. For the
smallest text it also runs from start to end, to show that the sample tells the truth.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench_tokenizer import (
    TALES,
    TALES_VOCABULARY,
    VOCABULARY,
    lines_of,
    long_words,
    recount_once,
    train,
    train_by_recounting,
    train_hf,
    vocabulary,
)
from glassbox.bpe import Pair, encode_long_word, encode_word
from glassbox.tokenizer import BPETokenizer, count_words, pretokenize
from glassbox.vocabulary import BYTE_IDS
from run import cpu_seconds
from run import seconds as seconds_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
TABLE = HERE / "tokenizer-growth.csv"
FIGURE = HERE.parents[1] / "01_tokenizer" / "growth.svg"
COLUMNS = ("figure", "what", "x", "unit", "value")
Row = tuple[str, str, float, str, float]

ROUNDS = 3
LONG = 15.0  # seconds: a call that takes this long is measured once
TEXTS = (100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000)
RECOUNTED = 2_000_000  # the largest text for the trainer that recounts
SAMPLES = 24  # steps of it that are timed
VOCABULARIES = (512, 1024, 2048, 4096, 8192, 16_384, 32_768)
WORDS = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
SQUARE = 10_000  # the longest word for `encode_word`
STREAMS = (1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000, 100_000_000)

# --- time ---


def in_turn(sides: Mapping[str, Callable[[], object]], round_seconds: float = 0.05) -> dict[str, float]:
    """The median CPU seconds of each side."""
    first = {what: cpu_seconds(side, 1) for what, side in sides.items()}
    times = {what: [seconds] if seconds >= LONG else [] for what, seconds in first.items()}
    for _ in range(ROUNDS):
        for what, side in sides.items():
            if first[what] < LONG:
                times[what].append(cpu_seconds(side, max(1, round(round_seconds / first[what]))))
    return {what: statistics.median(found) for what, found in times.items()}


def recounting(lines: list[str], ranks: dict[Pair, int], distinct: bool, samples: int = SAMPLES) -> float:
    """CPU seconds that a trainer which recounts would take to learn these ranks, from a sample of its steps."""
    found = Counter(word for line in lines for word in pretokenize(line))
    spelled = {word: [BYTE_IDS[byte] for byte in word.encode()] for word in found}
    counts = list(found.values()) if distinct else [1] * found.total()
    pairs, stride = list(ranks), len(ranks) / samples
    total = 0.0
    for sample in range(samples):
        k = int((sample + 0.5) * stride)
        known = dict(itertools.islice(ranks.items(), k))
        state = {word: encode_word(ids, known) for word, ids in spelled.items()}
        words = [state[word] for word in (found if distinct else found.elements())]
        learned: list[Pair] = []
        total += stride * cpu_seconds(lambda: learned.append(recount_once(words, counts, 256 + k)[0]), 1)  # noqa: B023
        if learned != [pairs[k]]:
            raise ValueError(f"recounting finds the pair {learned[0]} at step {k}, not {pairs[k]}")
    return total


def training_by_text() -> Iterator[Row]:
    for size in TEXTS:
        lines, text = lines_of(size)
        tokens = largest(text)
        yield "texts", text, size, "kinds of word", len(count_words(lines))
        for what, seconds in in_turn(trainers(lines, tokens)).items():
            yield "training by text", what, size, "CPU s", seconds
        if size <= RECOUNTED:
            ranks = train(lines, tokens).ranks
            for distinct, what in ((True, "recounts distinct words"), (False, "recounts every word")):
                yield "training by text", f"{what}, sampled", size, "CPU s", recounting(lines, ranks, distinct)
        if size == TEXTS[0]:
            seconds = cpu_seconds(lambda lines=lines, n=tokens: train_by_recounting(lines, n), 1)
            yield "training by text", "recounts every word", size, "CPU s", seconds


def trainers(lines: list[str], vocab_size: int) -> dict[str, Callable[[], object]]:
    return {"ours": lambda: train(lines, vocab_size), "Hugging Face": lambda: train_hf(lines, vocab_size)}


def largest(text: str, vocab_size: int = VOCABULARY) -> int:
    return min(vocab_size, TALES_VOCABULARY) if text == TALES else vocab_size


def training_by_vocabulary() -> Iterator[Row]:
    lines, text = lines_of(5_000_000)
    for size in sorted({largest(text, size) for size in VOCABULARIES}):
        for what, seconds in in_turn(trainers(lines, size)).items():
            yield "training by vocabulary", what, size, "CPU s", seconds
    counting = in_turn({"counting": lambda: count_words(lines)})["counting"]
    yield "training by vocabulary", "ours, counting words only", VOCABULARIES[0], "CPU s", counting


def encoding_by_length() -> Iterator[Row]:
    tokenizer, _ = vocabulary()
    peer, prose = tokenizer.to_tiktoken(), long_words(WORDS[-1])["prose's letters"]
    for length in WORDS:
        word = prose[:length]
        ids = [tokenizer.byte_ids[byte] for byte in word.encode()]
        sides: dict[str, Callable[[], list[int]]] = {
            "encode_long_word": lambda ids=ids: encode_long_word(ids, tokenizer.ranks),
            "tiktoken": lambda word=word: peer.encode_ordinary(word),
        }
        if length <= SQUARE:
            sides["encode_word"] = lambda ids=ids: encode_word(ids, tokenizer.ranks)
        answers = [side() for side in sides.values()]
        if any(answer != answers[0] for answer in answers):
            raise ValueError(f"{', '.join(sides)} give different ids for a word of {length} letters")
        for what, seconds in in_turn(sides).items():
            yield "encoding by length", what, length, "CPU s", seconds


# --- memory ---


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def chunks(path: Path, size: int) -> Iterator[str]:
    """The lines of a file, from its start again where it is shorter than `size` bytes."""
    while size > 0:
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line
                size -= len(line.encode())
                if size <= 0:
                    return


def child(job: str, path: Path, size: int, tokens: int) -> None:
    """Do one job in this process and print its peak."""
    lines = list(chunks(path, size)) if job in ("load", "ours", "hf", "encode") else []
    tokenizer: BPETokenizer | None = vocabulary()[0] if job in ("encode", "stream") else None
    if job == "ours":
        train(lines, tokens)
    elif job == "hf":
        train_hf(lines, tokens)
    elif tokenizer and job == "encode":
        text = "".join(lines)
        del lines
        tokenizer.encode(text)
    elif tokenizer and job == "stream":
        for _ in tokenizer.encode_iterable(chunks(path, size)):
            pass
    print(peak_megabytes())


def peak(job: str, path: Path, size: int, tokens: int = 0) -> float:
    command = [sys.executable, str(Path(__file__).resolve()), "--child", job, str(path), str(size), str(tokens)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory() -> Iterator[Row]:
    lines, text = lines_of(TEXTS[-1])
    tokens = largest(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        path.write_text("".join(lines), encoding="utf-8", newline="\n")
        for size in TEXTS[3:]:
            base = peak("load", path, size)
            yield "memory", "training, ours", size, "MB", peak("ours", path, size, tokens) - base
            yield "memory", "training, Hugging Face", size, "MB", peak("hf", path, size, tokens) - base
        base = peak("load", path, 0)  # no text and no vocabulary, so that GPT-2's counts as well
        for size in STREAMS:
            if size <= TEXTS[-1]:
                yield "memory", "encode", size, "MB", peak("encode", path, size) - base
            yield "memory", "encode_iterable", size, "MB", peak("stream", path, size) - base


# --- what is made of it ---


def measure() -> list[Row]:
    found: list[Row] = []
    for row in itertools.chain(training_by_text(), training_by_vocabulary(), encoding_by_length(), memory()):
        print(f"{row[0]:24} {row[1]:30} {row[2]:>13,.0f} {row[4]:12.4g} {row[3]}", flush=True)
        found.append(row)
    return found


def write(rows: Iterable[Row], path: Path = TABLE) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((figure, what, f"{x:.0f}", unit, f"{value:.4g}") for figure, what, x, unit, value in rows)


def read(path: Path = TABLE) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            (row["figure"], row["what"], float(row["x"]), row["unit"], float(row["value"]))
            for row in csv.DictReader(file)
        ]


def series(rows: Iterable[Row], figure: str, what: str) -> dict[float, float]:
    return {x: value for name, kind, x, _, value in rows if (name, kind) == (figure, what)}


def exponent(points: dict[float, float]) -> float:
    """The slope of the line nearest to the points on two logarithmic axes: 1 is in proportion, 2 the square."""
    x, y = [math.log(x) for x in points], [math.log(y) for y in points.values()]
    return statistics.linear_regression(x, y).slope


def summary(rows: list[Row]) -> str:
    """Where each series begins and ends, and its slope over the last factor of ten, as a table."""
    lines = [
        "| figure | what | from | to | exponent over the last factor of ten |",
        "|---|---|---|---|---|",
    ]
    for figure, what in dict.fromkeys((row[0], row[1]) for row in rows):
        points = series(rows, figure, what)
        unit = next(row[3] for row in rows if row[:2] == (figure, what))
        (first, low), (last, high) = min(points.items()), max(points.items())
        late = {x: y for x, y in points.items() if x * 10 >= last}
        slope = f"{exponent(late):.2f}" if len(late) > 1 else "-"
        ends = (f"{x:,.0f}: {y:.3g} {unit}" for x, y in ((first, low), (last, high)))
        lines.append(f"| {figure} | {what} | {' | '.join(ends)} | {slope} |")
    ours, peer = (series(rows, "training by text", what) for what in ("ours", "Hugging Face"))
    slow = [series(rows, "training by text", f"recounts {what}, sampled") for what in ("distinct words", "every word")]
    heads = ("text", "Hugging Face / ours", "recounts distinct words / ours", "recounts every word / ours")
    lines += ["", f"| {' | '.join(heads)} |", "|---|---|---|---|"]
    for x, seconds in ours.items():
        recounts = (f"{points[x] / seconds:.0f}" if x in points else "-" for points in slow)
        lines.append(f"| {x / 1e6:g} MB | {peer[x] / seconds:.2f} | {' | '.join(recounts)} |")
    return "\n".join(lines)


# --- the figure ---

NAME = "What a tokenizer costs"
PANELS = {  # title, x axis, y axis, and a power to compare slopes with
    "training by text": ("Training: more text, 4,096 tokens", "text, MB", "CPU time", (1.0, "in proportion")),
    "training by vocabulary": ("Training: more tokens, 5 MB of text", "vocabulary, tokens", "CPU time", None),
    "encoding by length": ("Encoding: a word of many letters", "letters", "CPU time", (2.0, "square")),
    "memory": ("Peak memory", "text, MB", "added memory, MB", (1.0, "in proportion")),
}
SCALE = {"training by text": 1e6, "memory": 1e6}
ROOM = {  # the least and the greatest of each axis, as factors of the data's own
    "training by text": ((0.8, 1.3), (0.15, 3)),
    "training by vocabulary": ((0.8, 1.3), (0.4, 2.5)),
    "encoding by length": ((0.6, 5), (0.6, 6)),
    "memory": ((0.8, 1.4), (0.25, 2)),
}
STYLES = {  # colour, line, marker, label, at which point it stands, how far off and on which side
    ("training by text", "ours"): ("blue", "-", "o", "ours (Python)", 2, (0, 13), "right"),
    ("training by text", "Hugging Face"): ("orange", "-", "s", "Hugging Face (Rust)", 3, (8, -11), "left"),
    ("training by text", "recounts distinct words, sampled"): (
        "purple",
        "-",
        "D",
        "recounts distinct words",
        0,
        (4, -14),
        "left",
    ),
    ("training by text", "recounts every word, sampled"): (
        "red",
        "-",
        "^",
        "recounts every word",
        4,
        (-12, 6),
        "right",
    ),
    ("training by vocabulary", "ours"): ("blue", "-", "o", "ours (Python)", 0, (0, -14), "left"),
    ("training by vocabulary", "Hugging Face"): ("orange", "-", "s", "Hugging Face (Rust)", 3, (0, 14), "center"),
    ("encoding by length", "encode_word"): ("red", "-", "^", "encode_word", 4, (-8, 2), "right"),
    ("encoding by length", "encode_long_word"): ("blue", "-", "o", "encode_long_word", 10, (-14, 13), "center"),
    ("encoding by length", "tiktoken"): ("green", "-", "s", "tiktoken (Rust)", 7, (9, -8), "left"),
    ("memory", "training, ours"): ("blue", "-", "o", "training, ours", 0, (4, -14), "left"),
    ("memory", "training, Hugging Face"): ("orange", "-", "s", "training,\nHugging Face", 4, (9, 0), "left"),
    ("memory", "encode"): ("purple", "--", "D", "encode, whole text", 3, (-10, 4), "right"),
    ("memory", "encode_iterable"): ("green", "--", "v", "encode_iterable", 5, (0, -14), "center"),
}


def draw(rows: list[Row], path: Path = FIGURE) -> None:
    """Four panels on logarithmic axes, so that a power is a straight line. The same rows give the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from glassbox.lab import COLOURS, use_style
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    use_style()
    matplotlib.rcParams["svg.fonttype"] = "none"
    texts = {x: what for figure, what, x, _, _ in rows if figure == "texts"}
    largest_text = max(texts, default=0)
    figure, axes = plt.subplots(2, 2, figsize=(9.2, 7.4))
    for ax, (name, (title, xlabel, ylabel, slope)) in zip(axes.flat, PANELS.items(), strict=True):
        scale = SCALE.get(name, 1)
        if name in SCALE and len(set(texts.values())) > 1:
            xlabel += f" (at {largest_text / scale:g}: {texts[largest_text]})"
        ax.set(xscale="log", yscale="log", title=title, xlabel=xlabel, ylabel=ylabel)
        for (panel, what), (colour, line, marker, label, i, offset, side) in STYLES.items():
            points = [(x / scale, y) for x, y in series(rows, name, what).items()]
            if panel != name or not points:
                continue
            x, y = zip(*points, strict=True)
            ax.plot(x, y, line, marker=marker, markersize=5, color=COLOURS[colour])
            at = points[min(i, len(points) - 1)]
            ax.annotate(
                label, at, offset, textcoords="offset points", color=COLOURS[colour], ha=side, va="center", fontsize=10
            )
        data = [(x / scale, y) for panel, what in STYLES if panel == name for x, y in series(rows, name, what).items()]
        for values, (least, most), limit in zip(
            zip(*data, strict=True), ROOM[name], (ax.set_xlim, ax.set_ylim), strict=True
        ):
            limit(min(values) * least, max(values) * most)
        for axis, is_time in ((ax.xaxis, False), (ax.yaxis, ylabel == "CPU time")):
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 40 else (1.0,)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(duration if is_time else number))
        if slope:
            power, label = slope
            guide(ax, power, label, COLOURS["grey"])
    figure.savefig(path, metadata={"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None})
    plt.close(figure)
    if path.suffix == ".svg":
        tell(path)


def tell(path: Path) -> None:
    """Give the drawing a title and a description for those who cannot see it, and fonts that every system has."""
    about = "; ".join(panel[0] for panel in PANELS.values())
    head = f'<title id="t">{NAME}</title>\n <desc id="d">Four panels on logarithmic axes. {about}.</desc>\n <metadata>'
    text = path.read_text(encoding="utf-8").replace(" <metadata>", f" {head}", 1)
    text = text.replace("<svg ", '<svg role="img" aria-labelledby="t d" ', 1)
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8", newline="\n")


def number(value: float, _: object = None) -> str:
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e6 if letter == 'M' else 1e3):g}{letter}"
    return f"{value:,g}"


def duration(value: float, _: object = None) -> str:
    return seconds_of(value) if value < 999 else f"{value:,.0f} s"


def guide(ax: Axes, power: float, label: str, colour: str) -> None:
    """A dotted line of this power in the lower right, with its name, to compare slopes with."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    start = (left * (right / left) ** 0.45, low * (high / low) ** 0.04)
    far = min(right / start[0], ((high / low) ** 0.4) ** (1 / power)) ** 0.6
    ax.plot([start[0], start[0] * far], [start[1], start[1] * far**power], ":", color=colour, linewidth=1.6)
    middle = (start[0] * far**0.5, start[1] * far ** (power / 2))
    ax.annotate(label, middle, (9, -5), textcoords="offset points", color=colour, fontsize=10, va="center")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw from the CSV")
    parser.add_argument("--child", nargs=4, metavar=("JOB", "FILE", "SIZE", "TOKENS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        job, path, size, tokens = options.child
        child(job, Path(path), int(size), int(tokens))
        return
    if not options.draw:
        write(measure())
    rows = read()
    draw(rows)
    print(summary(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
