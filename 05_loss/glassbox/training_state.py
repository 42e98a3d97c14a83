"""What a training leaves in its folder, so that it can be killed at any moment and go on as if nothing had happened.

    settings.json            what the run was started with (by the command)
    log.csv                  a row every few steps
    evaluations.csv          a row for each evaluation
    best.json                the step whose checkpoint is the best, and its loss
    step-00000100/           a checkpoint: complete, or it does not bear this name
        state.safetensors    parameters, AdamW's running means, the state of the dice
        state.json           step, tokens, seconds ... and a hash of all that and of state.safetensors
        *.distcp, .metadata  with --shard, in place of the tensors: each process has written its own part

A checkpoint is written beside its place, flushed to the disk, then renamed. The last and the best one are kept. While a
training is at work it holds a lock on its folder, which the system takes off when it ends, however it ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn
from glassbox.processes import ALONE, Processes
from glassbox.training_tables import PARTIAL, flush, write_atomically
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as load_parts
from torch.distributed.checkpoint.state_dict_saver import save as save_parts
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["Checkpoints"]

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
FAULTS = (OSError, SafetensorError, CheckpointException)  # the last is no Exception to Python: it must be named


class Checkpoints:
    """The checkpoints in a folder. `claim`, `save` and `load` are called by all processes together.

    ladder: keep those of the powers of two for good, beside the last and the best. Reading needs no claim.
    """

    def __init__(self, folder: str | os.PathLike[str], processes: Processes = ALONE, ladder: bool = False) -> None:
        self.folder, self.processes, self.ladder = Path(folder), processes, ladder
        self.claimed, self._lock = False, -1

    def claim(self) -> None:
        """Make the folder, keep other trainings off it until `close`, and remove what a killed one left half done.

        Raises OSError where another training is at work in it, or nothing can be written.
        """
        try:
            self._first(self._clear, f"cannot train in {self.folder}", lambda: "choose another folder")
        except BaseException:
            self.close()
            raise
        self.claimed = True

    def _clear(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder)
        for litter in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(litter) if litter.is_dir() else litter.unlink()
        write_atomically(self.folder / f"{PARTIAL}try", "")  # better now than after an hour's work
        (self.folder / f"{PARTIAL}try").unlink()

    def _all(self, act: Callable[[], None], what: str, fix: Callable[[], str]) -> None:
        """Do it in all processes; where it fails in one, it fails in all."""

        def told() -> None:
            try:
                act()
            except FAULTS as error:
                raise OSError(f"{what} ({_cause(error)}); {fix()}") from error

        self.processes.together(told)

    def _first(self, act: Callable[[], None], what: str, fix: Callable[[], str]) -> None:
        """Do it in the first process only."""
        self._all(act if self.processes.rank == 0 else lambda: None, what, fix)

    def close(self) -> None:
        """Let other trainings into the folder."""
        self.claimed = False
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, rising."""
        found = (int(path.name[5:]) for path in self.folder.glob("step-*") if re.fullmatch("[0-9]{8,}", path.name[5:]))
        ours = ("state.json", "state.safetensors")  # else the folder is somebody else's
        return sorted(step for step in found if any((self.path(step) / name).exists() for name in ours))

    def best(self) -> dict[str, Any]:
        """`step` and `loss` of the best evaluation that has a checkpoint, or nothing."""
        path = self.folder / "best.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else {}

    def path(self, step: int) -> Path:
        """Where the checkpoint of this step lies."""
        return self.folder / f"step-{step:08d}"

    def whole(self) -> str:
        """Which checkpoint a run could go on from, in words."""
        steps = self.steps()
        return f"the last good checkpoint is {self.path(steps[-1])}" if steps else "there is no checkpoint yet"

    # --- writing ---

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
        tables: Mapping[str, str] | None = None,
    ) -> None:
        """Save a checkpoint of `state["step"]`; all older ones but that of `state["best_step"]` are removed.

        tables: texts by file name, written first, since rows that are ahead of the checkpoint do no harm. Raises
        OSError where the disk is full or refuses, naming the checkpoint that is still whole, and FloatingPointError
        where the model holds NaN or infinity; nothing is left of the new one.
        """
        mine = not self.claimed
        if mine:
            self.claim()
        aside = self.folder / f"{PARTIAL}step-{state['step']}"
        try:
            tensors = _tensors(model, optimizer)
            fixed = {f"model.{name}" for name, _ in model.named_buffers()}  # these may hold -inf, as masks do
            _check_numbers({name: part for name, part in tensors.items() if name not in fixed}, self.processes)
            dice = _all_dice(self.processes)
            fault = (
                f"could not save step {state['step']} in {self.folder}",
                lambda: f"{self.whole()}: make room, then resume",
            )
            self._first(lambda: self._begin(aside, tables or {}), *fault)
            self._all(lambda: self._write(aside, tensors, dice, state), *fault)
            self._first(lambda: self._publish(aside, state), *fault)
        finally:
            if self.processes.rank == 0:
                shutil.rmtree(aside, ignore_errors=True)
            if mine:
                self.close()

    def _begin(self, aside: Path, tables: Mapping[str, str]) -> None:
        for name, text in tables.items():
            write_atomically(self.folder / name, text)
        aside.mkdir()

    def _write(
        self, aside: Path, tensors: dict[str, Any], dice: dict[str, torch.Tensor], state: Mapping[str, Any]
    ) -> None:
        if self.processes.shard:
            save_parts(tensors, checkpoint_id=aside)
        if self.processes.rank:
            return
        whole = {} if self.processes.shard else _apart(tensors)
        save_file({**whole, **dice}, aside / "state.safetensors")
        sealed = {**state, "sha256": _seal(aside, state)}
        (aside / "state.json").write_text(json.dumps(sealed), "utf-8")
        for file in aside.iterdir():
            flush(file)
        flush(aside)

    def _publish(self, aside: Path, state: Mapping[str, Any]) -> None:
        step = state["step"]
        if self.path(step).exists():  # of a time line that was left: an earlier checkpoint was loaded by hand
            self._remove(step)
        os.replace(aside, self.path(step))
        flush(self.folder)
        self._tidy(state)

    def _tidy(self, state: Mapping[str, Any]) -> None:
        """Leave what this state says is to be kept, also where a kill came between the checkpoint and this."""
        self._mend_best(state)
        for old in set(self.steps()) - {state["step"], state.get("best_step")}:
            if not (self.ladder and old & (old - 1) == 0):
                self._remove(old)

    def _mend_best(self, state: Mapping[str, Any]) -> None:
        best = {"step": state.get("best_step"), "loss": state.get("best")}
        if best["step"] is not None and self.path(best["step"]).exists():
            with contextlib.suppress(ValueError):  # edited by hand, and no JSON any more
                if self.best() == best:
                    return
            write_atomically(self.folder / "best.json", json.dumps(best))

    def _remove(self, step: int) -> None:
        """First it loses its name: what has one is complete. What cannot be removed (it is open elsewhere) may stay."""
        with contextlib.suppress(OSError):
            old = self.folder / f"{PARTIAL}old-{step}"
            os.replace(self.path(step), old)
            shutil.rmtree(old)

    # --- reading ---

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int | None = None) -> dict[str, Any]:
        """Take over a checkpoint (None: the last), and return its `state`; an empty one where there is none.

        Written by any number of processes, read by any. Raises ValueError, before a parameter is changed, where it is
        of another model or damaged, and where there is none of this step.
        """
        steps = self.processes.share(self.steps())
        if step is not None and step not in steps:
            raise ValueError(f"{self.folder} has no checkpoint of step {step}; there are: {steps}")
        if not steps:
            return {}
        place = self.path(steps[-1] if step is None else step)
        state, found = self.processes.together(lambda: _read(place))
        dice = {name: found.pop(name) for name in list(found) if name.startswith("dice.")}
        optimizer.zero_grad()  # where a gradient is left, torch would not tell the names of the running means
        tensors = _tensors(model, optimizer)
        in_parts = (place / ".metadata").exists()
        sizes = _sizes(place) if in_parts else {name: (tuple(part.shape), part.dtype) for name, part in found.items()}
        tensors = {name: value for name, value in tensors.items() if not _untouched(name, sizes)}
        _check_same(sizes, tensors, place)
        if in_parts:
            found = {name: value.clone() for name, value in tensors.items()}
            with _as_damage(place), warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message="torch.distributed is disabled"
                )  # one process reads for itself
                load_parts(found, checkpoint_id=place)
        found: dict[str, Any] = {name: _cut_like(value, tensors[name]) for name, value in found.items()}
        parameters = {name[6:]: value for name, value in found.items() if name.startswith("model.")}
        running = {name[10:]: value for name, value in found.items() if name.startswith("optimizer.")}
        running = {**get_state_dict(model, optimizer, options=FLAT)[1], **running}
        set_state_dict(model, optimizer, model_state_dict=parameters, optim_state_dict=running, options=FLAT)
        _set_dice(dice, self.processes)
        if self.claimed and self.processes.rank == 0 and state["step"] == steps[-1]:
            self._tidy(state)
        return state


def _read(place: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a checkpoint holds besides the parts of processes. Raises ValueError where it is not as it was written."""
    with _as_damage(place):
        state = json.loads((place / "state.json").read_text("utf-8"))
        seal = state.pop("sha256", None)  # the first runs of this course had none
        if state["step"] != int(place.name[5:]):
            raise ValueError(f"its state.json is of step {state['step']}")
        if seal is not None and seal != _seal(place, state):
            raise ValueError("its files are not as they were written")
        return state, load_file(place / "state.safetensors")


@contextlib.contextmanager
def _as_damage(place: Path) -> Iterator[None]:
    try:
        yield
    except (*FAULTS, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{place} is damaged ({_cause(error)}): delete it to go on from an earlier one") from error


def _cause(error: BaseException) -> BaseException:
    """The error itself, or the first of those that many processes have had: theirs tells whole tracebacks."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def _seal(place: Path, state: Mapping[str, Any]) -> str:
    """A hash of the state and of the file of tensors."""
    with open(place / "state.safetensors", "rb") as file:
        tensors = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(f"{json.dumps(state)} {tensors}".encode()).hexdigest()


def _lock(folder: Path) -> int:
    """Keep other trainings off the folder, as 02's token files do: the system takes the lock off when this one ends."""
    windows = sys.platform == "win32"
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT) if windows else os.open(folder, os.O_RDONLY)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        os.close(handle)
        raise OSError("another training is at work there") from error
    except OSError:  # a file system without locks
        pass
    return handle


# --- tensors ---


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Parameters and running means by name, not copied; of a model in parts this process's part of each."""
    parameters, running = get_state_dict(model, optimizer, options=FLAT)
    named = {f"model.{name}": value for name, value in parameters.items()}
    return named | {f"optimizer.{name}": value for name, value in running.items() if isinstance(value, torch.Tensor)}


def _apart(tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Each tensor in memory of its own, as the file wants it: a weight with two names is written under both."""
    seen: set[int] = set()
    whole = {}
    for name, value in tensors.items():
        value = value.cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        whole[name] = value.clone() if place in seen else value
        seen.add(place)
    return whole


def _cut_like(value: torch.Tensor, own: Any) -> torch.Tensor:
    """A whole tensor in parts, where the model's own lies in parts and this one does not; or the tensor itself."""
    if not isinstance(own, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value, own.device_mesh, own.placements)


def _sizes(place: Path) -> dict[str, Any]:
    """Shape and type of what the parts of many processes are put together to, by name."""
    known = FileSystemReader(place).read_metadata().state_dict_metadata
    parts = {name: part for name, part in known.items() if isinstance(part, TensorStorageMetadata)}
    return {name: (tuple(part.size), part.properties.dtype) for name, part in parts.items()}


def _untouched(name: str, found: Mapping[str, Any]) -> bool:
    """Whether this is the running mean of a saved parameter that had no gradient yet: it begins at 0, as a new one."""
    parameter = name.removeprefix("optimizer.state.").rpartition(".")[0]
    return name not in found and name.startswith("optimizer.state.") and f"model.{parameter}" in found


def _check_same(found: Mapping[str, Any], tensors: Mapping[str, Any], place: Path) -> None:
    """found: shapes and types by name. tensors: what the model and the optimiser have."""
    for words, names in (("lacks", tensors.keys() - found.keys()), ("also holds", found.keys() - tensors.keys())):
        if names:
            raise ValueError(f"{place} is of another model: it {words} {sorted(names)[0]} ({len(names)} in all)")
    for name, value in tensors.items():
        for theirs, ours in zip(found[name], (tuple(value.shape), value.dtype), strict=True):
            if theirs != ours:
                raise ValueError(f"{place} is of another model: its {name} is {theirs}, this model's {ours}")


def _check_numbers(tensors: Mapping[str, Any], processes: Processes) -> None:
    """Raises FloatingPointError, in all processes, where a number is NaN or infinite: no good checkpoint holds one."""
    parts = {name: value.to_local() if hasattr(value, "to_local") else value for name, value in tensors.items()}
    bad = [name for name, value in parts.items() if not value.isfinite().all()]
    if processes.sum(float(len(bad))):
        raise FloatingPointError(f"{', '.join(bad[:3]) or 'a part of the model'} has become NaN or infinite")


def _all_dice(processes: Processes) -> dict[str, torch.Tensor]:
    """The state of torch's dice of every process, by rank."""
    own = {"cpu": torch.get_rng_state()}
    if processes.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(processes.device)
    every: list[Any] = [own]
    if processes.world > 1:
        every = [None] * processes.world
        dist.all_gather_object(every, own)
    return {f"dice.{rank}.{name}": state for rank, states in enumerate(every) for name, state in states.items()}


def _set_dice(dice: Mapping[str, torch.Tensor], processes: Processes) -> None:
    """Take over this rank's dice. (A rank that had none when they were saved keeps those it was started with.)"""
    if (state := dice.get(f"dice.{processes.rank}.cpu")) is not None:
        torch.set_rng_state(state)
    if processes.device.type == "cuda" and (state := dice.get(f"dice.{processes.rank}.cuda")) is not None:
        torch.cuda.set_rng_state(state, processes.device)
