"""How much memory and time does a token file take as the corpus grows: 5, 50 and 500 MB?

    python tests/benchmarks/token_file_memory.py            measures (a few minutes), writes the CSV, prints a table
    python tests/benchmarks/token_file_memory.py --smoke    0.1 and 0.2 MB, and no CSV

The corpus is never whole, neither in memory nor on the disk: documents of eight sentences, drawn at random from Tiny
Tales, are made while they are written. Each measurement is a process of its own. `write_tokens` is measured at every
size; the naive way, one string, one list of ids and one array of them, only up to 50 MB. `read` fetches 2,000 shuffled
batches of 32 x 256 ids from the file that was written; the pages of a mapped file that were touched count as memory
there, though the system may take them back at any time. The peak is the most that the process held at once; `base` is
what it held before, with torch, the tokenizer and the sentences loaded. Seconds are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from glassbox.datasets import dataset
from glassbox.preprocessing import TokenDataset, make_loader, read_documents
from glassbox.token_file import TokenFile, write_tokens
from glassbox.tokenizer import BPETokenizer
from tokenizer_growth import peak_megabytes

TABLE = Path(__file__).resolve().parent / "token-file-memory.csv"
COLUMNS = ("what", "megabytes", "ids", "base_mb", "peak_mb", "cpu_seconds", "megabytes_per_second")
Row = dict[str, str | float]
SIZES = (5_000_000, 50_000_000, 500_000_000)
NAIVE = 50_000_000  # the largest corpus for the naive way
BATCHES = 2000


def documents(size: int, seed: int = 0) -> Iterator[str]:
    """Documents of `size` bytes together, and at most one more: eight sentences each, the same ones every time."""
    sentences = [part for text in read_documents(dataset("tales")) for part in re.findall(r"(?s).+?[.!?]\s*", text)]
    dice = random.Random(seed)
    while size > 0:
        document = "".join(dice.choices(sentences, k=8))
        size -= len(document.encode())
        yield document


def child(job: str, path: Path, size: int) -> Row:
    """Do one job in this process, and say what it took."""
    tokenizer = BPETokenizer.load()
    list(documents(10_000))
    base, started = peak_megabytes(), time.process_time()
    if job == "write":
        ids = len(write_tokens(path, documents(size), tokenizer))
    elif job == "naive":
        ids = len(np.array(tokenizer.encode("".join(documents(size))), np.uint16))
    else:
        file = TokenFile(path, tokenizer)
        loader = make_loader(TokenDataset(file.ids, 256), 32, seed=0, epochs=None)
        ids = sum(x.numel() for _, (x, _) in zip(range(BATCHES), loader, strict=False))
        size = 2 * ids  # bytes that were asked for
    spent = time.process_time() - started
    numbers = (size / 1e6, base, peak_megabytes(), spent, size / 1e6 / spent)
    megabytes, base, peak, spent, speed = (float(f"{number:.4g}") for number in numbers)
    return dict(zip(COLUMNS, (job, megabytes, ids, base, peak, spent, speed), strict=True))


def measured(job: str, path: Path, size: int) -> Row:
    command = [sys.executable, str(Path(__file__).resolve()), "--child", job, str(path), str(size)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def rows(sizes: tuple[int, ...]) -> Iterator[Row]:
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "corpus.tok")
            yield measured("write", path, size)
            yield {**measured("read", path, size), "what": f"read, {size / 1e6:g} MB corpus"}
        if size <= NAIVE:
            yield measured("naive", path, size)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, no CSV")
    parser.add_argument("--child", nargs=3, metavar=("JOB", "FILE", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        job, path, size = options.child
        print(json.dumps(child(job, Path(path), int(size))))
        return
    found = []
    print("\t".join(COLUMNS))
    for row in rows((100_000, 200_000) if options.smoke else SIZES):
        print("\t".join(str(row[name]) for name in COLUMNS), flush=True)
        found.append(row)
    if not options.smoke:
        with TABLE.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    main(sys.argv[1:])
