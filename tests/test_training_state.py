"""05_loss, training_state.py and training_tables.py: kills, full disks, damage, locks, other models; resume to the bit.

The kills happen in a process of their own, which forks a training, kills it and starts it again: before each file
operation of a short run in turn, in the middle of a tensor file, and at random moments of a longer one.
"""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn as nn
from glassbox import training_state, training_tables
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.training import Run, TrainConfig, train
from glassbox.training_state import Checkpoints
from glassbox.training_tables import read_rows, table, write_atomically
from safetensors.torch import load_file, save_file
from test_training import TINY, numbers, same, source, tiny

PLAN = TrainConfig(steps=6, warmup=1, save_every=3, log_every=2)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def states(run: Run) -> dict[str, torch.Tensor]:
    """All tensors of a run, by name."""
    return training_state._tensors(run.model, run.optimizer)


# --- kills ---

KILLS = r"""
import hashlib, json, os, random, signal, sys, time, traceback
from pathlib import Path
import torch
import torch.nn as nn
from glassbox import training_state
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.training import TrainConfig, train
from test_training import source

torch.set_num_threads(1)
base = Path(sys.argv[1])
config = GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=8, dropout=0.2)
SHORT = dict(steps=6, warmup=1, save_every=2, evaluate_every=3, log_every=4)
LONG = dict(steps=30, warmup=3, save_every=3, evaluate_every=7, log_every=4, accumulate=2, ladder=True)

def evaluate(model):
    torch.rand(3)  # the training's dice must not notice
    return {"loss": abs(float(model.wte.weight.detach().sum()))}

def work(folder, plan):
    torch.manual_seed(0)
    model = GPT(config)
    run = train(model, source, TrainConfig(**plan), folder, evaluate, watch=lambda run: torch.rand(5))
    digest = hashlib.sha256()
    for name, value in sorted(training_state._tensors(model, run.optimizer).items()):
        digest.update(name.encode() + value.numpy().tobytes())
    digest.update(torch.get_rng_state().numpy().tobytes())
    for name in ("log.csv", "evaluations.csv"):
        rows = [line.split(",") for line in (folder / name).read_text().splitlines()]
        column = rows[0].index("seconds")
        digest.update(str([row[:column] + row[column + 1 :] for row in rows]).encode())
    digest.update((folder / "best.json").read_bytes())
    return digest.hexdigest() + " " + " ".join(sorted(path.name for path in folder.iterdir()))

def arm(folder, strike):
    left = [strike]
    def count():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def hook(event, args):
        if event.split(".")[0] in ("open", "os", "shutil") and args and str(folder) in str(args[0]):
            count()
    fsync, save = os.fsync, training_state.save_file
    def half(tensors, path):
        save(tensors, path)
        if left[0] == 1:
            os.truncate(path, path.stat().st_size // 2)
        count()
    sys.addaudithook(hook)
    os.fsync = lambda handle: (count(), fsync(handle))
    training_state.save_file = half

def start(folder, plan, strike=0, seconds=None):
    pid = os.fork()
    if pid == 0:
        try:
            if strike:
                arm(folder, strike)
            result = work(folder, plan)
            (base / "result").write_text(result)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a resumed training failed"
    return not os.WIFSIGNALED(status)

def result(folder, plan):
    assert start(folder, plan)
    return (base / "result").read_text()

work(base / "warm", SHORT)  # what torch imports at first use is imported here, and not in every child
wanted = {name: result(base / name, plan) for name, plan in (("short", SHORT), ("long", LONG))}
kills = {"each": 0, "chains": 0, "moments": 0}
strike = 0
while True:  # before each file operation of the short run
    strike += 1 if strike < 60 else 5
    folder = base / f"each-{strike}"
    if start(folder, SHORT, strike):
        break
    kills["each"] += 1
    assert result(folder, SHORT) == wanted["short"], strike
dice = random.Random(1)
for chain in range(2):  # again and again in a longer one
    folder = base / f"chain-{chain}"
    while not start(folder, LONG, dice.randint(1, 90)):
        kills["chains"] += 1
    assert result(folder, LONG) == wanted["long"], chain
folder, began = base / "moments", time.perf_counter()
for _ in range(6):
    start(folder, LONG, seconds=dice.random() * 0.5)
    kills["moments"] += 1
assert result(folder, LONG) == wanted["long"]
print(json.dumps({**kills, "seconds": sum(os.times()[:4])}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_training_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Parameters, running means, dice, tables but for the seconds, best.json; and nothing else lies in the folder."""
    folders = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": folders},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kills = json.loads(done.stdout)
    assert kills["each"] >= 60
    assert kills["chains"] >= 6
    final = names(tmp_path / "chain-0")
    best = Checkpoints(tmp_path / "chain-0").best()["step"]
    assert Checkpoints(tmp_path / "chain-0").steps() == sorted({1, 2, 4, 8, 16, 30, best})
    assert not [name for name in final if name.startswith(".")]


# --- what is kept ---


def test_the_last_and_the_best_are_kept_and_the_best_can_be_loaded(tmp_path: Path) -> None:
    losses = iter([5.0, 4.0, 3.0, 3.5, 9.0])
    seen: dict[int, list[torch.Tensor]] = {}

    def evaluate(model: Any) -> dict[str, float]:
        return {"loss": next(losses)}

    plan = TrainConfig(steps=10, warmup=1, save_every=3, evaluate_every=4, log_every=3)  # evaluated at 1 2 4 8 10
    run = train(tiny(), source, plan, tmp_path, evaluate, watch=lambda run: seen.update({run.step: numbers(run.model)}))
    assert [row["step"] for row in run.evaluations] == [1, 2, 4, 8, 10]
    assert names(tmp_path) == ["best.json", "evaluations.csv", "log.csv", "step-00000004", "step-00000010"]
    assert Checkpoints(tmp_path).best() == {"step": 4, "loss": 3.0}
    other = tiny(seed=5)
    state = Checkpoints(tmp_path).load(other, Run(other, plan, None, run.processes).optimizer, 4)
    assert (state["step"], state["best"]) == (4, 3.0)
    assert same(numbers(other), seen[4])
    with pytest.raises(ValueError, match=r"has no checkpoint of step 5; there are: \[4, 10\]"):
        Checkpoints(tmp_path).load(other, run.optimizer, 5)


def test_without_save_every_only_the_end_is_saved_and_the_ladder_at_powers_of_two(tmp_path: Path) -> None:
    plan: dict[str, Any] = {"steps": 6, "warmup": 1, "evaluate_every": 1}
    train(tiny(), source, TrainConfig(**plan), tmp_path / "end", lambda model: {"loss": 1.0})
    assert names(tmp_path / "end") == ["evaluations.csv", "log.csv", "step-00000006"]
    train(tiny(), source, TrainConfig(**plan, ladder=True), tmp_path / "ladder")
    assert Checkpoints(tmp_path / "ladder").steps() == [1, 2, 4, 6]


def test_a_run_can_be_made_longer_but_not_shorter(tmp_path: Path) -> None:
    train(tiny(), source, PLAN, tmp_path)
    again = tiny(seed=3)
    done = train(again, source, PLAN, tmp_path)  # nothing is left to do: it is loaded
    assert (done.step, [row["step"] for row in done.log]) == (6, [2, 4, 6])
    run = train(tiny(), source, TrainConfig(steps=9, warmup=1, log_every=2), tmp_path)
    assert [row["step"] for row in run.log] == [2, 4, 6, 8, 9]
    assert run.batches == 9
    with pytest.raises(ValueError, match="the run in this folder has done 9 steps, more than steps = 6: ask for more"):
        train(tiny(), source, PLAN, tmp_path)
    train(tiny(), source, TrainConfig(steps=10, warmup=1), tmp_path)  # the refused one has left the folder free


def test_best_json_is_mended_where_a_kill_came_before_it(tmp_path: Path) -> None:
    train(tiny(), source, PLAN, tmp_path, lambda model: {"loss": 2.0})
    for text in ('{"step": 1, "loss": 7.0}', "{", None):
        (tmp_path / "best.json").unlink() if text is None else (tmp_path / "best.json").write_text(text)
        train(tiny(), source, PLAN, tmp_path)
        assert json.loads((tmp_path / "best.json").read_text()) == {"step": 6, "loss": 2.0}


# --- disks ---


class FullError(OSError):
    pass


def faults(monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """The disk is full from the left-th write on."""

    def guard(function: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                if function is save_file:
                    args[1].write_bytes(b"half")
                raise FullError(errno.ENOSPC, "No space left on device")
            return function(*args, **more)

        return call

    monkeypatch.setattr(training_state, "save_file", guard(save_file))
    monkeypatch.setattr(os, "fsync", guard(os.fsync))
    monkeypatch.setattr(Path, "mkdir", guard(Path.mkdir))


def test_a_full_disk_leaves_the_last_checkpoint_and_no_litter_and_the_run_goes_on(tmp_path: Path) -> None:
    wanted = states(train(tiny(), source, PLAN, tmp_path / "whole"))
    for left in range(1, 40, 3):
        folder = tmp_path / str(left)
        with pytest.MonkeyPatch.context() as patch:
            faults(patch, left)
            try:
                train(tiny(), source, PLAN, folder)
            except OSError as error:
                told = str(error)
            else:
                break
        assert "No space left on device" in told
        steps = Checkpoints(folder).steps()
        if "could not save" in told:
            kept = f"the last good checkpoint is {folder / f'step-{steps[-1]:08d}'}" if steps else "no checkpoint yet"
            assert kept in told
            assert "make room, then resume" in told
        assert [name for name in (names(folder) if folder.exists() else []) if name.startswith(".")] == []
        assert same(states(train(tiny(), source, PLAN, folder)), wanted)
    else:
        raise AssertionError("the disk was never large enough")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no RLIMIT_FSIZE")
def test_the_systems_own_limit_is_met_in_the_same_way(tmp_path: Path) -> None:
    script = """
        import resource, signal, sys
        from glassbox.gpt2 import GPT
        from glassbox.training import TrainConfig, train
        from test_training import TINY, source

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            train(GPT(TINY), source, TrainConfig(steps=2, warmup=1), sys.argv[1])
        except OSError as error:
            print(error)
    """
    folders = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": folders},
    )
    assert "could not save step 2" in done.stdout
    assert "there is no checkpoint yet" in done.stdout
    assert names(tmp_path) == ["evaluations.csv", "log.csv"]


def test_an_interrupt_inside_a_save_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(tensors: Any, path: Path) -> None:
        save_file(tensors, path)
        if tensors["optimizer.state.wte.weight.step"] > 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_state, "save_file", interrupted)
    model = tiny().eval()
    with pytest.raises(KeyboardInterrupt):
        train(model, source, PLAN, tmp_path)
    assert names(tmp_path) == ["evaluations.csv", "log.csv", "step-00000003"]
    assert not any(module.training for module in model.modules())
    monkeypatch.undo()
    assert train(tiny(), source, PLAN, tmp_path).step == 6


def test_a_folder_that_cannot_be_written_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(start: int = 0, every: int = 1) -> Any:
        raise AssertionError("a batch was read")

    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"cannot train in .*file.*; choose another folder"):
        train(tiny(), unread, PLAN, tmp_path / "file")

    def refuse(path: Path, text: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(training_state, "write_atomically", refuse)
    with pytest.raises(OSError, match=r"cannot train in .*Permission denied.*; choose another folder"):
        train(tiny(), unread, PLAN, tmp_path)


# --- two trainings, one folder ---


def test_a_second_training_is_kept_out_and_the_lock_is_let_go(tmp_path: Path) -> None:
    first, second = Checkpoints(tmp_path), Checkpoints(tmp_path)
    first.claim()
    half = tmp_path / ".partial-step-9"
    half.mkdir()
    with pytest.raises(OSError, match=r"another training is at work there.*; choose another folder"):
        second.claim()
    with pytest.raises(OSError, match="another training is at work there"):
        train(tiny(), source, PLAN, tmp_path)
    assert half.exists()
    assert second.steps() == []  # reading is free
    first.close()
    second.claim()
    assert not half.exists()
    second.close()
    assert train(tiny(), source, PLAN, tmp_path).step == 6
    assert train(tiny(), source, PLAN, tmp_path).step == 6


# --- damage and other models ---


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_damaged_checkpoints_are_refused_wherever_they_are_damaged(tmp_path: Path, name: str) -> None:
    train(tiny(), source, PLAN, tmp_path)
    path = tmp_path / "step-00000006" / name
    data = path.read_bytes()
    model = tiny(seed=4)
    before = numbers(model)
    for place in (0, 5, len(data) // 3, len(data) // 2, len(data) - 1):
        for cut in (True, False):
            path.write_bytes(data)
            path.write_bytes(data[:place]) if cut else flip(path, place)
            with pytest.raises(ValueError, match=r"step-00000006 is damaged \(.*\): delete it to go on"):
                train(model, source, PLAN, tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="step-00000006 is damaged"):
        train(model, source, PLAN, tmp_path)
    assert same(numbers(model), before)


@pytest.mark.parametrize("text", ["[]", "null", "7", "{}", '{"step": 7}', '{"step": null}', '{"step": 6, "sha256": 1}'])
def test_a_state_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    train(tiny(), source, PLAN, tmp_path)
    (tmp_path / "step-00000006" / "state.json").write_text(text)
    with pytest.raises(ValueError, match="step-00000006 is damaged"):
        train(tiny(), source, PLAN, tmp_path)


def test_a_checkpoint_of_another_model_is_refused_and_names_the_tensor(tmp_path: Path) -> None:
    train(tiny(), source, PLAN, tmp_path)
    for changes, message in (
        ({"n_layer": 3}, r"is of another model: it lacks model\.h\.2\.attn\.c_attn\.bias \(48 in all\)"),
        ({"n_layer": 1}, r"is of another model: it also holds model\.h\.1\.attn\.c_attn\.bias \(48 in all\)"),
        ({"n_embd": 16}, r"is of another model: its model\.wte\.weight is \(11, 8\), this model's \(11, 16\)"),
        ({"tied": False}, r"it lacks model\.lm_head\.weight \(4 in all\)"),
    ):
        other = GPT(GPTConfig(**{**vars(TINY), **changes}))
        before = numbers(other)
        with pytest.raises(ValueError, match=message):
            train(other, source, PLAN, tmp_path)
        assert same(numbers(other), before)
    with pytest.raises(ValueError, match=r"is torch\.float32, this model's torch\.float64"):
        train(tiny().double(), source, PLAN, tmp_path)


def test_a_gradient_left_in_the_model_and_frozen_parameters_do_not_hinder(tmp_path: Path) -> None:
    def frozen(seed: int = 0) -> GPT:
        model = tiny(seed=seed)
        model.wpe.weight.requires_grad_(False)
        return model

    wanted = states(train(frozen(), source, PLAN, tmp_path / "whole"))
    train(frozen(), source, PLAN, tmp_path / "two", stop=iter([False, True]).__next__)
    model = frozen(seed=9)
    model(next(source())[0]).sum().backward()
    assert same(states(train(model, source, PLAN, tmp_path / "two")), wanted)


class Odd(nn.Module):
    """A head that shares the table, a layer that is never used, and a mask that holds -inf."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.head, self.unused = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False), nn.Linear(8, 8)
        self.head.weight = self.wte.weight
        self.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))
        self.register_buffer("rows", self.mask[:1])  # in the same memory

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.wte(ids))


def test_shared_weights_unused_layers_and_masks_are_kept_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plan, whole, parted = TrainConfig(steps=6, warmup=1), Odd(), Odd()
    parted.load_state_dict(whole.state_dict())
    again = copy.deepcopy(parted)
    train(whole, source, plan)
    train(parted, source, plan, tmp_path, stop=iter([False, False, True]).__next__)
    run = train(again, source, plan, tmp_path)
    assert run.step == 6
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert again.head.weight is again.wte.weight


def test_a_folder_that_only_looks_like_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001/mine.txt").write_text("notes")
    train(tiny(), source, TrainConfig(steps=4, warmup=1, save_every=2), tmp_path)
    assert (tmp_path / "step-00000001/mine.txt").read_text() == "notes"
    assert Checkpoints(tmp_path).steps() == [4]


def test_a_model_that_is_no_number_any_more_is_not_saved(tmp_path: Path) -> None:
    def spoil(run: Run) -> None:
        if run.step == 4:
            with torch.no_grad():
                run.model.wte.weight[3, 2] = torch.inf

    plan = TrainConfig(steps=6, warmup=1, save_every=2, evaluate_every=2)
    message = r"step 5: model\.wte\.weight has become NaN or infinite; the last good checkpoint is .*step-00000002"
    with pytest.raises(FloatingPointError, match=message):
        train(tiny(), source, plan, tmp_path, lambda model: {"loss": 1.0}, watch=spoil)
    assert Checkpoints(tmp_path).steps() == [1, 2]


def test_checkpoints_of_the_first_runs_have_no_hash_and_no_count_of_batches(tmp_path: Path) -> None:
    plan = TrainConfig(steps=6, warmup=1, accumulate=3, save_every=2)
    wanted = states(train(tiny(), source, plan, tmp_path / "whole"))
    train(tiny(), source, plan, tmp_path / "old", stop=iter([False, False, True]).__next__)
    path = tmp_path / "old" / "step-00000003" / "state.json"
    state = json.loads(path.read_text())
    for name in ("sha256", "batches"):
        del state[name]
    path.write_text(json.dumps(state))
    assert same(states(train(tiny(), source, plan, tmp_path / "old")), wanted)


def test_the_files_are_safetensors_with_the_models_own_names(tmp_path: Path) -> None:
    run = train(tiny(), source, PLAN, tmp_path)
    found = load_file(tmp_path / "step-00000006" / "state.safetensors")
    for name, parameter in run.model.named_parameters():
        assert found[f"model.{name}"].equal(parameter)
        state = run.optimizer.state[parameter]
        for part in ("exp_avg", "exp_avg_sq", "step"):
            assert found[f"optimizer.state.{name}.{part}"].equal(state[part])
    assert found["dice.0.cpu"].equal(torch.get_rng_state())


# --- tables ---


def test_tables_are_read_as_they_were_written_and_survive_an_editor(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [{"step": 1, "loss": 2.5}, {"step": 2, "loss": float("inf")}, {"step": 30, "loss": 7, "far": 0.25}]
    write_atomically(path, table(rows))
    assert path.read_text() == "step,loss,far\n1,2.5,\n2,inf,\n30,7,0.25\n"
    assert read_rows(path, 30) == rows
    assert read_rows(path, 29) == rows[:2]
    assert table(read_rows(path, 30)) == path.read_text()
    text = path.read_text()
    for place in range(len("step,loss,far\n"), len(text) + 1):
        path.write_text(text[:place])
        lines = text[:place].count("\n") - 1
        assert read_rows(path, 99) == rows[:lines], text[:place]
    path.write_text("\ufeffstep,loss\r\n1,2.5\r\nnote: mine\r\n,,,\r\n2,x\r\n3,1,2\r\n4,0.5\r\n", "utf-8")
    assert read_rows(path, 99) == [{"step": 1, "loss": 2.5}, {"step": 4, "loss": 0.5}]
    path.write_text("step;loss\n1;2,5\n")
    with pytest.raises(ValueError, match=r"log\.csv is no table of a training: its first line names no step"):
        read_rows(path, 99)
    path.write_text("")
    assert read_rows(path, 9) == []
    assert read_rows(tmp_path / "none.csv", 9) == []


def test_a_small_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "old")

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training_tables.os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.json"]
