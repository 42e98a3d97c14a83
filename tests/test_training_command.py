"""The command: what it writes, what it refuses before it writes anything, how it stops and goes on, and torchrun."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from glassbox import training_command, training_options
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.tales import END, write
from glassbox.token_file import write_tokens
from glassbox.tokenizer import BPETokenizer
from glassbox.training_command import main
from glassbox.training_options import EXAMPLES, parser, recall
from glassbox.training_state import Checkpoints
from safetensors.torch import load_file

SMALL = ["--preset", "tiny", "--steps", "5", "--batch-size", "2", "--exam", "2", "--sample-tokens", "6", "--quiet"]
PATIENCE = 200  # seconds, for a machine at work with other things
torchrun = pytest.mark.skipif(
    sys.platform == "win32" or not (dist.is_available() and dist.is_gloo_available()),
    reason="torchrun needs a torch with gloo, and on Windows one with libuv",
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "mine.txt"
    path.write_text(END.join(write(i).text for i in range(12)), encoding="utf-8")
    return path


def model_in(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# --- a run ---


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five steps with dropout."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert main([*SMALL, "--dropout", "0.1", "--seed", "1", "--out", str(folder)]) == 0
    return folder


def test_a_run_leaves_all_about_it_in_its_folder(done: Path) -> None:
    names = {path.name for path in done.iterdir()}
    assert names >= {"settings.json", "log.csv", "evaluations.csv", "samples.jsonl", "model.safetensors", "best.json"}
    assert not [name for name in names if name.startswith(".partial")]
    rows = [json.loads(line) for line in (done / "samples.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 4, 5]
    steps = [int(line.split(",")[0]) for line in (done / "evaluations.csv").read_text().splitlines()[1:]]
    assert steps == [1, 2, 4, 5]


def test_the_settings_tell_how_to_build_the_model_and_no_path(done: Path) -> None:
    written = (done / "settings.json").read_text("utf-8")
    assert str(done.parent) not in written
    settings = json.loads(written)
    assert settings["versions"]["torch"] == torch.__version__
    assert settings["warmup"] == 0  # a tenth of 5 steps
    GPT(GPTConfig(**settings["config"])).load_state_dict(model_in(done))


def test_a_run_that_is_finished_says_so(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    assert main(["--resume", str(done)]) == 0
    assert "is finished: all 5 steps" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before


def test_a_folder_with_a_run_or_with_files_is_left_alone(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--out", str(done)]) == 1
    assert f"holds a run already: go on with it (--resume {done})" in capsys.readouterr().err
    (tmp_path / "mine.txt").write_text("mine")
    assert main([*SMALL, "--out", str(tmp_path)]) == 1
    assert "holds files: choose another --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_two_starts_into_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second is refused while the first opens its data, and leaves its files alone."""
    out, before, status = tmp_path / "run", training_command.open_data, []

    def slow(job: Any) -> Any:
        if not status:
            status.append(main([*SMALL, "--seed", "7", "--out", str(out)]))
        return before(job)

    monkeypatch.setattr(training_command, "open_data", slow)
    assert main([*SMALL, "--seed", "3", "--out", str(out)]) == 0
    assert status == [1]
    assert "another training is at work there" in capsys.readouterr().err
    assert json.loads((out / "settings.json").read_text())["seed"] == 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few users make links")
def test_a_start_that_fails_removes_only_what_it_has_written(text: Path, tmp_path: Path) -> None:
    own, link = tmp_path / "own", tmp_path / "link"
    own.mkdir()
    link.symlink_to(own, target_is_directory=True)
    given = [*SMALL, "--data", str(text), "--block-size", "128", "--validation", "0.001", "--out", str(link)]
    assert main(given) == 1
    assert link.is_symlink()
    assert not list(own.iterdir())
    rival = Checkpoints(own)
    rival.claim()
    assert main(given) == 1
    assert own.exists()
    rival.close()


def test_a_start_that_was_killed_while_it_wrote_ids_is_given_again(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in ("training.tokens.partial", "training.tokens.partial.ends", ".partial-settings.json-1"):
        (out / name).write_bytes(b"half")
    given = [*SMALL, "--block-size", "32", "--samples", "0", "--out", str(out)]
    assert main(given) == 1  # of tales there are no such files
    assert main([*given, "--data", str(text)]) == 0
    assert not list(out.glob("*partial*"))


# --- stopping and going on ---


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell that starts tests in the background lets it be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(monkeypatch: pytest.MonkeyPatch, *kinds: signal.Signals) -> None:
    """Send these signals to the command while it writes its second sample."""
    before, calls = training_command.write_samples, []

    def send(*given: Any) -> list[str]:
        calls.append(1)
        if len(calls) == 2:
            for kind in kinds:
                signal.raise_signal(kind)
        return before(*given)

    monkeypatch.setattr(training_command, "write_samples", send)


@pytest.mark.parametrize("kinds", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)])
def test_a_stop_keeps_the_step_and_a_resumed_run_ends_with_the_same_bits(
    done: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kinds: tuple[signal.Signals, ...],
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt(patch, *kinds)
        assert main([*SMALL, "--dropout", "0.1", "--seed", "1", "--save-every", "0", "--out", str(out)]) == 130
    told = capfd.readouterr()
    assert f"go on with: python -m glassbox.training --resume {shlex.quote(str(out))}" in told.out
    assert "stopping after this step" in told.err
    assert (out / "step-00000002").is_dir()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main(["--resume", str(out), "--quiet", "--log-every", "2"]) == 0
    assert same(model_in(out), model_in(done))


def test_a_second_ctrl_c_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(monkeypatch, signal.SIGINT, signal.SIGINT)
    assert main([*SMALL, "--out", str(tmp_path / "run")]) == 130
    assert "stopped at once; go on with:" in capsys.readouterr().err
    assert not (tmp_path / "run/step-00000002").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_before_the_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(job: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(training_command, "open_data", stop)
    assert main([*SMALL, "--out", str(tmp_path / "run")]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_it_runs_in_a_thread_where_signals_cannot_be_caught(tmp_path: Path) -> None:
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(main([*SMALL, "--out", str(tmp_path / "run")])))
    thread.start()
    thread.join(PATIENCE)
    assert status == [0]


def test_what_may_change_when_a_run_goes_on(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--resume", str(done), "--threads", "2", "--samples", "0"]
    options = recall(parser().parse_args(given), given)
    assert (options.threads, options.samples, options.seed, options.dropout) == (2, 0, 1, 0.1)
    assert options.out == done
    for option, value in (("--seed", "0"), ("--lr", "3"), ("--preset", "tales")):
        assert main(["--resume", str(done), option, value]) == 1  # 0 is the default of --seed, and yet another
        assert f"{option} was" in capsys.readouterr().err


def test_a_run_keeps_its_joint_batch_on_another_number_of_processes(done: Path) -> None:
    options = argparse.Namespace(accumulate=3, processes=4)
    assert [training_options._share_out(options, world) for world in (1, 2, 6, 12)] == [12, 6, 2, 1]
    with pytest.raises(ValueError, match="12 micro-batches, too uneven for 5 processes: start 1, 2, 3, 4, 6, 12"):
        training_options._share_out(options, 5)
    assert json.loads((done / "settings.json").read_text())["processes"] == 1


def test_out_is_not_used_with_resume(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--resume", str(done), "--out", "other"]) == 1
    assert "--out other is not used with --resume" in capsys.readouterr().err


def test_settings_that_were_edited(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, path = json.loads((done / "settings.json").read_text()), tmp_path / "settings.json"
    changes = [
        ("lr", "fast"),
        ("lr", [1]),
        ("steps", 2.5),
        ("seed", -1),
        ("preset", "big"),
        ("compile", "no"),
        ("betas", 0.9),
    ]
    for name, value in [*changes, ("betas", [0.9]), ("data", 3), ("steps", None), ("processes", "two")]:
        path.write_text(json.dumps({**settings, name: value}))
        assert main(["--resume", str(tmp_path)]) == 1
        told = capsys.readouterr().err
        assert re.fullmatch(rf"glassbox\.training: .*settings\.json is damaged \(.*{name}.*\): mend it.*\n", told), told
    sound = {**settings, "prompt": "--x", "clip": float("inf"), "compile": True}
    path.write_text("\ufeff" + json.dumps(sound), "utf-8")
    given = ["--resume", str(tmp_path), "--no-compile"]
    options = vars(recall(parser().parse_args(given), given))
    for name in settings.keys() & options.keys():
        assert options[name] == {**sound, "compile": False}[name]


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_sound_settings_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content:
        (tmp_path / "settings.json").write_text(content)
    assert main(["--resume", str(tmp_path)]) == 1
    assert ("damaged" if content else "holds no run") in capsys.readouterr().err


# --- data ---


def test_a_text_a_token_file_and_a_vocabulary_of_ones_own(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = BPETokenizer.load()
    tokenizer.save(tmp_path / "words")
    write_tokens(tmp_path / "mine.tokens", [write(i).text for i in range(12)], tokenizer)
    small = [*SMALL, "--steps", "2", "--block-size", "32"]
    for i, given in enumerate((["--data", str(text), "--tokenizer", str(tmp_path / "words")], [str(text)])):
        data = given if i == 0 else ["--data", str(tmp_path / "mine.tokens")]
        assert main([*small, *data, "--prompt", "Once", "--out", str(tmp_path / f"run{i}")]) == 0
        assert "\nOnce" in capsys.readouterr().out


def test_a_run_goes_on_with_the_same_data_only(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data.txt", tmp_path / "run"
    data.write_bytes(text.read_bytes())
    with monkeypatch.context() as patch:
        interrupt(patch, signal.SIGINT)
        assert main([*SMALL, "--block-size", "32", "--data", str(data), "--out", str(out)]) == 130
    data.write_text("Once upon another time.")
    assert main(["--resume", str(out), "--quiet"]) == 1
    assert "is not what it was when" in capsys.readouterr().err
    data.unlink()
    assert main(["--resume", str(out), "--quiet"]) == 1
    assert "give --data again with its new place: it is known by its content" in capsys.readouterr().err
    assert main(["--resume", str(out), "--quiet", "--data", str(text)]) == 0  # the same text at another place
    assert main(["--resume", str(out)]) == 0  # it is finished, and needs no text


# --- what is refused ---

FAULTS: dict[str, tuple[list[str], str]] = {
    "no such data": (["--data", "missing.txt"], "missing.txt: there is no such file"),
    "no such vocabulary": (["--tokenizer", "missing"], "missing"),
    "a text too short": (["--data", "SHORT"], "too short"),
    "an empty text": (["--data", "EMPTY"], "empty"),
    "a share that is none": (["--data", "TEXT", "--validation", "1.5"], "between 0 and 1"),
    "a context too short for a tale": (["--block-size", "64"], "block_size = 64"),
    "samples too long": (["--sample-tokens", "256"], "room for 255 more"),
    "a prompt too long": (["--prompt", "far away " * 200], "room for 0 more"),
    "a prompt with the end mark": (["--prompt", f"x{END}y"], "ends a text"),
    "no end of warm-up": (["--warmup", "5"], "leaves nothing of steps = 5"),
    "a rate that is none": (["--lr", "nan"], "lr must be"),
    "dropout that is none": (["--dropout", "1.5"], "dropout"),
    "no GPU": (["--device", "cuda"], "no GPU"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    name: str,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    given, words = FAULTS[name]
    texts = {"TEXT": text, "SHORT": tmp_path / "short.txt", "EMPTY": tmp_path / "empty.txt"}
    texts["SHORT"].write_text("Once upon a time.")
    texts["EMPTY"].write_text("")
    given = [str(texts.get(value, value)) for value in given]
    assert main([*SMALL, *given, "--out", str(tmp_path / "run")]) == 1
    told = capsys.readouterr().err
    assert words in told
    assert re.fullmatch(r"glassbox\.training: [^\n]+\n", told)  # one line
    assert not (tmp_path / "run").exists()


def test_a_compiler_that_is_missing_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("no C++ compiler\nand ninety lines more")

    monkeypatch.setattr(torch, "compile", lambda model: broken)
    assert main([*SMALL, "--compile", "--out", str(tmp_path / "run")]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(r"glassbox\.training: --compile: .*\(no C\+\+ compiler\): install.*--no-compile\n", told)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given", [["--steps", "0"], ["--seed", str(2**63)], ["--batch-size", "-1"], ["--seed", "x"], ["--step", "3"]]
)
def test_options_that_are_none_end_with_status_2(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    assert given[0] in capsys.readouterr().err


def test_the_help_explains_every_option_and_its_examples_are_right() -> None:
    for action in parser()._actions:
        assert action.help, action.option_strings
        assert action.metavar or action.choices or action.nargs == 0, action.option_strings
    lines = re.findall(r"-m glassbox\.training (.*)", EXAMPLES)
    assert len(lines) == 5
    for line in lines:
        parser().parse_args(shlex.split(line))


# --- torchrun ---


def start(*given: str, **named: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    lines = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    interface = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    environment = {**os.environ, **({"GLOO_SOCKET_IFNAME": interface} if interface else {})}
    return subprocess.Popen([*command, "-m", "glassbox.training", *given], env=environment, **lines, **named)


def finish(process: subprocess.Popen[str], until: Callable[[], bool] = lambda: True) -> tuple[int, str, str]:
    """Its status and what it said; once `until` is so, it gets a Ctrl-C. It fails where the process hangs."""
    try:
        if until is not finish.__defaults__[0]:  # pyright: ignore[reportOptionalSubscript]
            end = time.monotonic() + PATIENCE
            while not until() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


@torchrun
def test_two_processes_in_parts_are_one_with_twice_as_many_micro_batches(tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    status, out, err = finish(start(*SMALL, "--shard", "--device", "cpu", "--out", str(two)))
    assert status == 0, err
    assert "2 processes (FSDP2) on cpu" in out
    assert out.count("--- a sample ---") == 4  # one process speaks for both
    assert main([*SMALL, "--accumulate", "2", "--device", "cpu", "--out", str(one)]) == 0
    assert (two / "samples.jsonl").read_text("utf-8") == (one / "samples.jsonl").read_text("utf-8")
    mine, theirs = model_in(one), model_in(two)
    assert mine.keys() == theirs.keys()
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 1e-4  # float32; Adam's first steps


@torchrun
def test_ctrl_c_stops_two_processes_and_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    given = [*SMALL, "--steps", "100000", "--ladder", "--samples", "0", "--evaluate-every", "0", "--device", "cpu"]
    status, said, err = finish(start(*given, "--out", str(out)), until=lambda: (out / "step-00000002").exists())
    assert status != 0
    assert "go on with: torchrun --nproc-per-node 2 -m glassbox.training --resume" in said, err
    last = max(int(path.name[5:]) for path in out.glob("step-*"))
    assert json.loads((out / f"step-{last:08d}/state.json").read_text())["batches"] == 2 * last
    seen: list[int] = []

    def once(*given: Any) -> Any:
        seen.append(given[2].accumulate)
        raise KeyboardInterrupt

    monkeypatch.setattr(training_command, "train", once)
    assert main(["--resume", str(out), "--quiet"]) == 130
    assert seen == [2]


@torchrun
def test_a_refusal_ends_both_processes_and_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    status, _, err = finish(start(*SMALL, "--device", "cpu", "--out", str(tmp_path)))
    assert status != 0
    assert err.count("glassbox.training: ") == 1
    assert "holds files: choose another --out" in err
