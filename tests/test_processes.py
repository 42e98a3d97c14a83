"""Two real processes (gloo) against one: the same numbers, whichever way the model is kept; and no fault lets one hang.

All that needs two processes is done by one pair, started once: each part leaves a file, and the tests compare files.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn as nn
from glassbox.generation import generate
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.preprocessing import IGNORE
from glassbox.processes import ALONE, OtherProcessError, Processes, join
from glassbox.training import Run, TrainConfig, train
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this build of torch has no gloo"
)

SIZES = GPTConfig(vocab_size=50, block_size=16, n_layer=2, n_head=2, n_embd=16)
PLAN = TrainConfig(steps=6, lr=1e-2, warmup=0, clip=0.05, log_every=1, evaluate_every=2, save_every=2)
KINDS = {"DDP": False, "FSDP2": True}
PATIENCE = 240  # seconds, for a machine at work with other things


def batches(start: int = 0, every: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Micro-batches of unequal lengths and unequal shares of targets that count: every fourth has none at all."""
    for number in count(start, every):
        dice = torch.Generator().manual_seed(number)
        X, Y = (torch.randint(0, 50, (3, 4 + number % 5), generator=dice) for _ in range(2))
        Y[torch.rand(Y.shape, generator=dice) < (number % 4) / 3] = IGNORE
        yield X, Y


def new_model(tied: bool = True, dropout: float = 0.0, seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(replace(SIZES, tied=tied, dropout=dropout)).double()


def score(model: Any) -> dict[str, float]:
    """A loss, and what the model writes: both need the whole model."""
    model.eval()
    with torch.no_grad():
        logits = model(torch.arange(12)[None])
    text = generate(model, torch.tensor([[7, 8]]), 5)[0].tolist()
    return {"loss": -float(logits.log_softmax(-1)[0, :, 3].mean()), **{f"id{i}": text[i] for i in range(2, 7)}}


def fit(
    model: GPT, folder: Path | None, processes: Processes = ALONE, stop: int | None = None, **changes: Any
) -> tuple[dict[str, torch.Tensor], Run]:
    """The parameters after a training with these changes of the plan, and the run."""
    plan = replace(PLAN, **changes)
    seen: list[int] = []

    def ask() -> bool:  # only the last process is asked to stop, as a signal may reach one alone
        seen.append(1)
        return stop is not None and len(seen) >= stop and processes.rank == processes.world - 1

    run = train(model, batches, plan, folder, score, processes, stop=ask)
    return processes.whole(model), run


# --- what the two processes do ---


def work(rank: int, port: int, folder: Path, parts: list[str]) -> None:
    """The life of one of the two."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    if sys.platform in ("linux", "darwin"):
        os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    with join("cpu") as joined:
        for name, shard in KINDS.items():
            processes, place = replace(joined, shard=shard), folder / name
            for part in parts:
                found = globals()[part](processes, place)
                if rank == 0:
                    place.mkdir(exist_ok=True)
                    save_file(found.pop("weights", {}), place / f"{part}.safetensors")
                (folder / f"{name}-{part}-{rank}.json").write_text(json.dumps(found))


def tied(processes: Processes, folder: Path) -> dict[str, Any]:
    weights, run = fit(new_model(), folder / "tied", processes, accumulate=2)
    return {"weights": weights, "log": run.log, "evaluations": run.evaluations}


def untied(processes: Processes, folder: Path) -> dict[str, Any]:
    model = new_model(tied=False, seed=processes.rank)  # all take the parameters of the first
    return {"weights": fit(model, None, processes, accumulate=2, recompute=True)[0]}


def straight(processes: Processes, folder: Path) -> dict[str, Any]:
    """With dropout, in one go."""
    model = new_model(dropout=0.2)
    torch.manual_seed(processes.rank)
    return {"weights": fit(model, folder / "straight", processes)[0]}


def in_two_goes(processes: Processes, folder: Path) -> dict[str, Any]:
    """With dropout, stopped by one of the two, and gone on with from the checkpoint."""
    model = new_model(dropout=0.2)
    torch.manual_seed(processes.rank)
    run = fit(model, folder / "goes", processes, stop=3)[1]
    model = new_model(dropout=0.2, seed=5)
    return {"weights": fit(model, folder / "goes", processes)[0], "stopped": run.step}


def begun(processes: Processes, folder: Path) -> dict[str, Any]:
    """The first half of a training, which one process will end."""
    return {"stopped": fit(new_model(), folder / "begun", processes, stop=3)[1].step}


def ended(processes: Processes, folder: Path) -> dict[str, Any]:
    """The second half of a training, which one process has begun."""
    place = folder.parent / f"alone-{folder.name}"
    return {"weights": fit(new_model(seed=5), place, processes)[0]}


def no_number(processes: Processes, folder: Path) -> dict[str, Any]:
    """The loss of one of the two becomes NaN in the fourth step."""
    model, calls = new_model(), count()

    def poison(module: Any, given: Any, found: torch.Tensor) -> torch.Tensor:
        bad = module.training and processes.rank == 1 and next(calls) == 3
        return found * math.nan if bad else found

    model.register_forward_hook(poison)
    return fault(lambda: fit(model, folder / "nan", processes, save_every=1))


def full_disk(processes: Processes, folder: Path) -> dict[str, Any]:
    """In one of the two the second checkpoint finds no room: with FSDP2 in the second, which writes then too."""
    from glassbox import training_state
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    place, name = (FileSystemWriter, "write_data") if processes.shard else (training_state, "save_file")
    write, calls = getattr(place, name), count()

    def refuse(*given: Any, **named: Any) -> Any:
        if next(calls) == 1 and processes.rank == int(processes.shard):
            raise OSError(28, "No space left on device")
        return write(*given, **named)

    setattr(place, name, refuse)
    try:
        found = fault(lambda: fit(new_model(), folder / "full", processes))
    finally:
        setattr(place, name, write)
    return found | {"left": sorted(path.name for path in (folder / "full").iterdir())}


def words(processes: Processes, folder: Path) -> dict[str, Any]:
    """The means by which they tell each other."""

    def act() -> str:
        if processes.rank == 1:
            raise ValueError("only here")
        return "done"

    found = fault(lambda: processes.together(act))
    both = fault(lambda: processes.together(lambda: 1 // (processes.world - 2)))
    return {
        **found,
        "both": both["kind"],
        "fine": processes.together(lambda: processes.rank),
        "share": processes.share(f"of {processes.rank}"),
        "sum": processes.sum(processes.rank + 0.5),
    }


def fault(act: Callable[[], Any]) -> dict[str, Any]:
    try:
        act()
    except Exception as error:
        return {"kind": type(error).__name__, "text": str(error)}
    return {"kind": "none", "text": ""}


# --- their start ---


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the two processes leave."""
    folder = tmp_path_factory.mktemp("processes")
    for name in KINDS:
        fit(new_model(), folder / f"alone-{name}", accumulate=2, stop=3)
    parts = [tied, untied, straight, in_two_goes, begun, ended, no_number, full_disk, words]
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
    # spawn, as on every system: what pytest has loaded is not carried over
    context = torch.multiprocessing.get_context("spawn")
    names = [part.__name__ for part in parts]
    workers = [context.Process(target=work, args=(rank, store.port, folder, names), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
    hung = [worker for worker in workers if worker.is_alive()]
    for worker in hung:
        worker.kill()
    assert not hung, f"{len(hung)} of the two processes hang"
    assert [worker.exitcode for worker in workers] == [0, 0]
    return folder


def weights(results: Path, kind: str, part: str) -> dict[str, torch.Tensor]:
    return load_file(results / kind / f"{part}.safetensors")


def told(results: Path, kind: str, part: str) -> list[Any]:
    return [json.loads((results / f"{kind}-{part}-{rank}.json").read_text()) for rank in range(2)]


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


@pytest.fixture(scope="module")
def alone() -> tuple[dict[str, torch.Tensor], Run]:
    """What one process makes of the joint batch of two."""
    return fit(new_model(), None, accumulate=4)


# --- the same numbers ---


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one_with_the_joint_batch(
    results: Path, alone: tuple[dict[str, torch.Tensor], Run], kind: str
) -> None:
    expected, run = alone
    assert all(row["norm"] > PLAN.clip for row in run.log)  # the limit was at work in each step
    assert distance(weights(results, kind, "tied"), expected) < 1e-10
    for found in told(results, kind, "tied"):
        for name in ("loss", "norm", "tokens"):
            assert [row[name] for row in found["log"]] == pytest.approx([row[name] for row in run.log], abs=1e-10)
        for row, other in zip(found["evaluations"], run.evaluations, strict=True):
            assert row == pytest.approx({**other, "seconds": row["seconds"]}, abs=1e-10)  # the ids it wrote too


@pytest.mark.parametrize("kind", KINDS)
def test_an_untied_head_and_recomputed_blocks(results: Path, kind: str) -> None:
    expected = fit(new_model(tied=False), None, accumulate=4)[0]
    assert "lm_head.weight" in expected
    assert distance(weights(results, kind, "untied"), expected) < 1e-10


def test_the_parameters_have_moved(alone: tuple[dict[str, torch.Tensor], Run]) -> None:
    assert distance(alone[0], dict(new_model().state_dict())) > 0.01  # or all these tests would pass without a step


# --- checkpoints ---


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_go_on_to_the_same_bits(results: Path, kind: str) -> None:
    one, two = (weights(results, kind, part) for part in ("straight", "in_two_goes"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [found["stopped"] for found in told(results, kind, "in_two_goes")] == [3, 3]  # though one alone was asked


@pytest.mark.parametrize("kind", KINDS)
def test_the_dice_of_the_two_differ_and_are_kept(results: Path, kind: str) -> None:
    kept = load_file(next((results / kind / "straight").glob("step-*6")) / "state.safetensors")
    assert not torch.equal(kept["dice.0.cpu"], kept["dice.1.cpu"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_ends_what_two_began(results: Path, kind: str) -> None:
    assert [found["stopped"] for found in told(results, kind, "begun")] == [3, 3]
    found, run = fit(new_model(seed=5), results / kind / "begun", accumulate=2)
    expected = fit(new_model(), None, accumulate=2)[0]
    assert run.step == 6
    assert distance(found, expected) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_end_what_one_began(results: Path, kind: str) -> None:
    assert distance(weights(results, kind, "ended"), fit(new_model(), None, accumulate=2)[0]) < 1e-10


# --- faults ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_no_number_in_one_stops_both(results: Path, kind: str) -> None:
    for found in told(results, kind, "no_number"):
        assert found["kind"] == "FloatingPointError"
        assert "step 4" in found["text"]
        assert "step-00000003" in found["text"]  # the last good checkpoint


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_in_one_stops_both(results: Path, kind: str) -> None:
    first, second = told(results, kind, "full_disk")  # with FSDP2 the second's fault reaches both: the first tells it
    assert first["kind"] == "OSError"
    assert "No space left" in first["text"]
    assert "step-00000001" in first["text"]  # the checkpoint that is whole
    assert "\n" not in first["text"]
    assert second["kind"] == "OtherProcessError"
    assert second["text"].startswith("process 0 has failed (OSError: could not save step 2")
    assert [name for name in first["left"] if name.startswith((".partial", "step"))] == ["step-00000001"]


def test_what_processes_tell_each_other(results: Path) -> None:
    first, second = told(results, "DDP", "words")
    assert (first["kind"], second["kind"]) == ("OtherProcessError", "ValueError")
    assert first["text"] == "process 1 has failed (ValueError: only here)"
    assert (first["both"], second["both"]) == ("ZeroDivisionError", "OtherProcessError")  # one speaks for both
    assert (first["fine"], second["fine"]) == (0, 1)
    assert (first["share"], second["share"]) == ("of 0", "of 0")
    assert (first["sum"], second["sum"]) == (2.0, 2.0)


# --- one process ---


def test_one_process_is_spared_all_that() -> None:
    model = new_model()
    assert ALONE.wrap(model) is model
    assert ALONE.sum(2.5) == 2.5
    assert ALONE.share("x") == "x"
    with pytest.raises(ZeroDivisionError):
        ALONE.together(lambda: 1 // 0)
    assert issubclass(OtherProcessError, RuntimeError)
    ALONE.wait()


def test_one_process_may_keep_its_model_in_parts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join("cpu", shard=True) as processes:
        assert (processes.rank, processes.world, processes.shard) == (0, 1, True)
        found = fit(new_model(), None, processes, accumulate=4)[0]
    assert distance(found, fit(new_model(), None, accumulate=4)[0]) < 1e-10
    assert not dist.is_initialized()


def test_a_model_in_ddp_asks_torch_for_nothing_that_it_warns_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with join("cpu", shard=True), warnings.catch_warnings():  # a group of one, which DDP can join too
        warnings.simplefilter("error", FutureWarning)
        wrapped = Processes(0, 2).wrap(new_model())
    assert isinstance(wrapped, nn.parallel.DistributedDataParallel)
    assert not wrapped.broadcast_buffers


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="no GPU for process 0"), join("cuda"):
        pass
