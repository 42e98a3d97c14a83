"""Every benchmark script runs for one short round, and the harness measures what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

import run as bench  # tests/benchmarks/run.py

SPIN = 20_000


def spin(times: int) -> int:
    return sum(range(SPIN * times))


@pytest.mark.parametrize("path", bench.scripts(), ids=lambda path: path.stem)
def test_benchmark_runs(path: Path) -> None:
    rows = bench.run_script(path, smoke=True)
    assert all(row.ours > 0 for row in rows)


def test_ratio_is_peer_divided_by_ours() -> None:
    """The peer does four times the work, so the ratio is about four; the other way round it is far below one."""
    case = bench.Case("spin", ours=lambda: spin(1), peer=lambda: spin(4), peer_name="slow", goal=1.5)
    row = bench.measure(case, rounds=3, round_seconds=0.02)
    assert row.ratio is not None
    assert row.ratio > 1.5
    assert row.verdict == "reached"
    turned = bench.Case("spin", ours=lambda: spin(4), peer=lambda: spin(1), peer_name="fast", goal=1.5)
    assert bench.measure(turned, rounds=3, round_seconds=0.02).verdict == "missed"


def test_sides_run_in_turn_for_every_round() -> None:
    calls: list[str] = []
    case = bench.Case("x", ours=lambda: calls.append("o"), peer=lambda: calls.append("p"), peer_name="p")
    bench.measure(case, rounds=5, round_seconds=0)
    assert "".join(calls) == "op" * 6  # warming up and five rounds
    assert bench.ROUNDS >= 5


def test_different_answers_are_refused() -> None:
    case = bench.Case("sum", ours=lambda: 1, peer=lambda: 2, peer_name="other", same=lambda a, b: a == b)
    with pytest.raises(ValueError, match="different answers"):
        bench.measure(case, rounds=1, round_seconds=0)


def test_a_script_without_cases_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bench_empty.py").write_text("def cases(smoke):\n    return []\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no case"):
        bench.run_script(tmp_path / "bench_empty.py", smoke=True)


def test_results_name_machine_versions_and_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "from run import Case\n\ndef cases(smoke):\n"
    text += "    return [Case('adding', lambda: 1 + 1, lambda: 2, 'none', 0.1)]\n"
    (tmp_path / "bench_adding.py").write_text(text, encoding="utf-8")
    assert bench.main([], tmp_path) == 0
    written = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    for part in ("| adding |", "Python 3.", "torch ", "Measured on 20", "cores"):
        assert part in written
    assert written.partition("## adding\n\n")[2] in capsys.readouterr().out
    (tmp_path / "bench_more.py").write_text(text.replace("adding", "doubling"), encoding="utf-8")
    assert bench.main(["more"], tmp_path) == 0
    grown = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert grown.startswith(written)  # the other section stays as it was
    assert "## more" in grown
    assert "| doubling |" in grown
    (tmp_path / "bench_more.py").unlink()
    assert bench.main(["add"], tmp_path) == 0
    assert "doubling" not in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="bench_adding"):
        bench.main(["multiplying"], tmp_path)
