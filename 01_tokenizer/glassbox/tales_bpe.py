"""The course's own vocabulary, `data/tales-bpe`: what `BPETokenizer.load()` returns.

    python -m glassbox.tales_bpe            trains it on data/tales.txt and writes its two files
    python -m glassbox.tales_bpe --check    writes nothing; says what differs from the files that are there

Training knows no chance, so the same corpus gives the same bytes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from glassbox.datasets import data_folder, dataset
from glassbox.tales import END
from glassbox.tokenizer import BPETokenizer

__all__ = ["FOLDER", "VOCAB_SIZE", "trained"]

VOCAB_SIZE = 2048
FOLDER = "tales-bpe"


def trained() -> BPETokenizer:
    """Return the tokenizer, trained anew on the texts of the training sample."""
    texts = dataset("tales").read_text(encoding="utf-8").split(f"{END}\n")
    return BPETokenizer.train(texts, VOCAB_SIZE)


def main(arguments: list[str] | None = None) -> int:
    """The command: write, or with `--check` compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say what differs")
    options = parser.parse_args(arguments)
    folder = data_folder() / FOLDER
    tokenizer = trained()
    with tempfile.TemporaryDirectory() as fresh:
        tokenizer.save(fresh)
        files = sorted(Path(fresh).iterdir())
        there = [folder / file.name for file in files]
        stale = [
            path.name
            for file, path in zip(files, there, strict=True)
            if not path.is_file() or path.read_bytes() != file.read_bytes()
        ]
    if stale and not options.check:
        tokenizer.save(folder)
    for name in stale:
        print(f"{FOLDER}/{name} {'differs' if options.check else 'written'}")
    if not stale:
        print("both files are as the training sample makes them")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
