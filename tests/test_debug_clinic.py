"""The debug clinic of 05: its committed curves are those of its code, and each fault shows as the notebook says."""

from __future__ import annotations

import csv
from pathlib import Path

import glassbox.debug_clinic as debug_clinic
import pytest
from glassbox import tales
from glassbox.loss_exercises import FAULTS, fault_of
from glassbox.tokenizer import BPETokenizer

TABLE = Path(__file__).resolve().parent / "benchmarks" / "debug-clinic.csv"


@pytest.fixture(scope="module")
def curves() -> dict[str, list[tuple[int, float, float]]]:
    found: dict[str, list[tuple[int, float, float]]] = {}
    with open(TABLE, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["run"], []).append((int(row["step"]), float(row["loss"]), float(row["held_back"])))
    return found


def test_the_table_holds_every_run_whole(curves: dict[str, list[tuple[int, float, float]]]) -> None:
    steps = list(range(debug_clinic.EVERY, debug_clinic.STEPS + 1, debug_clinic.EVERY))
    assert list(curves) == list(debug_clinic.RUNS)
    assert all([row[0] for row in rows] == steps for rows in curves.values())


@pytest.mark.parametrize("run", ["sound", "C"])
def test_the_first_steps_of_the_table_are_those_of_the_code(
    run: str, curves: dict[str, list[tuple[int, float, float]]]
) -> None:
    step, loss, held_back = debug_clinic.training(debug_clinic.RUNS[run], steps=debug_clinic.EVERY)[0]
    assert (step, loss, held_back) == pytest.approx(curves[run][0], abs=0.02)


def test_each_fault_shows_as_the_notebook_says(curves: dict[str, list[tuple[int, float, float]]]) -> None:
    texts = list(tales.stream(2, 100))
    tokens = sum(len(BPETokenizer.load().encode(text.text)) + 1 for text in texts)
    floor = -sum(text.log_prob for text in texts) / tokens
    last = {run: rows[-1] for run, rows in curves.items()}
    assert last["C"][2] < 0.1 * floor < floor < last["sound"][2] < last["sound"][1]  # dropout is in the way of training
    assert all(6.6 < loss < 7.63 for _, loss, _ in curves["A"])
    assert min(loss for _, loss, _ in curves["B"]) > 100
    assert abs(last["D"][1] - last["sound"][1]) < 0.05
    assert last["D"][2] - last["sound"][2] > 0.2  # the same learning, another report
    assert curves["E"][0][1] < 7.62 < last["E"][1] < min(loss for _, loss, _ in curves["B"])


def test_the_exercise_names_the_faults_as_the_code_does() -> None:
    named = {run: FAULTS[fault_of.reference(run)] for run in "ABCDE"}
    assert named == {run: fault for run, fault in debug_clinic.RUNS.items() if run != "sound"}


def test_the_command_writes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug_clinic, "RUNS", {"sound": "nothing"})
    monkeypatch.setattr(debug_clinic, "EVERY", 1)
    assert debug_clinic.main([str(tmp_path / "table.csv"), "--steps", "1"]) == 0
    lines = (tmp_path / "table.csv").read_text("utf-8").splitlines()
    assert lines[0] == "run,step,loss,held_back"
    assert [line.split(",")[:2] for line in lines[1:]] == [["sound", "1"]]
