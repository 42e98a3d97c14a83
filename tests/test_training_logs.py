"""The committed logs of module 05's experiments: whole, as the notebook tells them, and found again by anyone."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from glassbox.tokenizer import BPETokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

import sampler_quality
import scaling_study
import start_study
import studies
import training_options


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.load()


@pytest.fixture(scope="module")
def stock(tokenizer: BPETokenizer) -> start_study.Stock:
    return start_study.Stock(start_study.EVERY, tokenizer)


def table(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- two ways to begin ---


@pytest.fixture(scope="module")
def starts() -> dict[str, list[studies.Row]]:
    rows = studies.read(start_study.TABLE)
    return {name: [row for row in rows if row["start"] == name] for name in start_study.STARTS}


def test_the_log_of_the_starts_is_whole(starts: dict[str, list[studies.Row]]) -> None:
    steps = list(range(start_study.EVERY, start_study.STEPS + 1, start_study.EVERY))
    for rows in starts.values():
        assert [row["step"] for row in rows] == steps
        assert [row["step"] for row in rows if "unseen" in row][-1] == start_study.STEPS


@pytest.mark.parametrize("start", start_study.STARTS)
def test_the_first_steps_of_each_start_are_found_again(
    start: str, starts: dict[str, list[studies.Row]], stock: start_study.Stock
) -> None:
    (row,) = start_study.study(start, stock, None, start_study.EVERY)
    assert abs(float(row["loss"]) - float(starts[start][0]["loss"])) < 0.005


def test_the_mimetic_start_recalls_sooner(starts: dict[str, list[studies.Row]]) -> None:
    last = {name: [float(rows[-1][bin]) for bin in ("near", "middle", "far")] for name, rows in starts.items()}
    assert min(last["mimetic"]) > 2 * max(last["gpt2"])


# --- four sizes ---


@pytest.fixture(scope="module")
def widths() -> dict[int, list[studies.Row]]:
    rows = studies.read(scaling_study.TABLE)
    return {width: [row for row in rows if row["width"] == width] for width in scaling_study.WIDTHS}


def test_the_log_of_the_sizes_is_whole(widths: dict[int, list[studies.Row]]) -> None:
    steps = list(range(start_study.EVERY, scaling_study.STEPS + 1, start_study.EVERY))
    for rows in widths.values():
        assert [row["step"] for row in rows] == steps
        assert [row["tokens"] for row in rows] == [row["tokens"] for row in widths[24]]  # the same texts
        assert float(rows[-1]["unseen"]) > float(rows[-1]["floor"])


@pytest.mark.parametrize("width", scaling_study.WIDTHS)
def test_the_first_steps_of_each_size_are_found_again(
    width: int, widths: dict[int, list[studies.Row]], stock: start_study.Stock
) -> None:
    (row,) = scaling_study.study(width, stock, None, start_study.EVERY)
    first = widths[width][0]
    assert abs(float(row["loss"]) - float(first["loss"])) < 0.005
    assert (row["parameters"], row["tokens"], float(row["flops"])) == (
        first["parameters"], first["tokens"], first["flops"]
    )  # fmt: skip


def test_a_power_law_is_fitted() -> None:
    sizes = [1e4, 1e5, 3e5, 1e6]
    assert scaling_study.fit(sizes, [7 * size**-0.3 for size in sizes]) == pytest.approx((7, 0.3))


# --- the options of the loop ---


@pytest.fixture(scope="module")
def options() -> dict[str, dict[str, Any]]:
    return {row["option"]: row for row in table(training_options.TABLE)}


def test_options_that_rearrange_the_work_have_the_same_loss(options: dict[str, dict[str, Any]]) -> None:
    assert tuple(options) == training_options.OPTIONS
    for name in ("recompute", "compile", "accumulate"):
        assert abs(float(options[name]["loss"]) - float(options["float32"]["loss"])) < 5e-3, name


def test_the_memory_of_the_options_is_found_again(options: dict[str, dict[str, Any]]) -> None:
    (batch,) = training_options.windows(1)
    kept = {name: training_options.Way(name).memory(batch) for name in ("float32", "bf16", "recompute", "accumulate")}
    for name, bytes_ in kept.items():
        assert abs(bytes_ / kept["float32"] - float(options[name]["memory"])) < 0.01, name


def test_no_gpu_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_options.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a GPU, and torch finds none here"):
        training_options.main(["--gpu"])


# --- the ways to choose ---


@pytest.fixture(scope="module")
def ways() -> list[dict[str, Any]]:
    return table(sampler_quality.TABLE)


def test_the_table_of_the_samplers_is_whole(ways: list[dict[str, Any]]) -> None:
    expected = [("language", ""), *(way[:2] for way in sampler_quality.settings())]
    expected += [("beam search", str(beams)) for beams in sampler_quality.BEAMS]
    assert [(row["family"], row["setting"]) for row in ways] == expected
    assert float(ways[0]["faultless"]) == float(ways[0]["reach"]) == float(ways[0]["facts"]) == 1


def test_what_is_greedy_is_found_again(ways: list[dict[str, Any]]) -> None:
    """A sum in another order may turn one word in many, so a few texts may differ."""
    language, found = sampler_quality.study(*sampler_quality.load_tales_gpt(), ["greedy"])
    for row, again in zip(ways[:2], (language, found), strict=True):
        for name in ("faultless", "reach", "facts", "distinct", "repeated"):
            assert abs(float(row[name]) - float(again[name])) < 0.06, name


@pytest.mark.parametrize("script", [start_study, scaling_study, training_options, sampler_quality])
def test_each_script_has_a_short_form_that_writes_nothing(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(["--smoke", "--write", str(tmp_path / "table.csv")])
    assert capsys.readouterr().out
    assert not list(tmp_path.iterdir())
