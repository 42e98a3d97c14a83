"""Many processes that train one model: who is who, and what they tell each other.

`torchrun --nproc-per-node N` starts the same program N times and tells each its number (rank). Each reads other data,
and their gradients are averaged, so that all take the same step. DDP keeps the whole model in each process; FSDP2
(`fully_shard`) keeps a part of every matrix in each, and puts a block together while it is at work.

What one process decides alone, the others must learn, or they wait for it for ever: so a fault in one stops all
(`together`), and where a rounding could make them differ, all take the word of process 0 (`share`).

Sources: Li et al., PyTorch Distributed (2020); Zhao et al., PyTorch FSDP (2023).
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn as nn
from glassbox.gpt2 import GPT

__all__ = ["ALONE", "OtherProcessError", "Processes", "join"]

PATIENCE = timedelta(hours=2)  # for a process that has more to do than others, such as turning a long text into ids
DDP = nn.parallel.DistributedDataParallel
BUFFERS = {"forward_sync_buffers", "broadcast_buffers"} & inspect.signature(DDP).parameters.keys()
QUIET: Any = {max(BUFFERS): False}  # the newer name where torch knows it: the older one is a warning there
T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """Another process of the training has failed; it says there what was wrong."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training: this one's rank, how many there are, its device, and whether they share parts."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    shard: bool = False

    def wrap(self, model: GPT) -> nn.Module:
        """The model as it is to be called in training: itself, in DDP, or cut into parts in place (FSDP2).

        All begin with the parameters of process 0.
        """
        if self.shard:
            return self._cut(model)
        if self.world == 1:
            return model
        return DDP(model, gradient_as_bucket_view=True, **QUIET)

    def _cut(self, model: GPT) -> GPT:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        with torch.no_grad():
            for parameter in model.parameters():
                dist.broadcast(parameter, src=0)
        mesh = init_device_mesh(self.device.type, (self.world,))
        for block in model.h:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for name in ("features", "head"):  # which generation calls: the parts are put together for them too
            register_fsdp_forward_method(model, name)
        return model

    def accumulating(self, model: Any, last: bool) -> AbstractContextManager[None]:
        """Inside the `with`, gradients of a micro-batch are exchanged only if it is the last one of its step."""
        if self.shard:
            model.set_requires_gradient_sync(last)
        return contextlib.nullcontext() if last or self.shard or self.world == 1 else model.no_sync()

    def sum(self, number: float) -> float:
        """The sum of this number over all processes; all get the same one."""
        if self.world == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.item()

    def share(self, value: T) -> T:
        """What process 0 has given, in all of them."""
        if self.world == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def together(self, act: Callable[[], T]) -> T:
        """Do something in all processes. If it fails in one, it fails in all, and none is left waiting.

        The first process that failed raises its own error, the others OtherProcessError.
        """
        if self.world == 1:
            return act()
        result, fault = None, None
        try:
            result = act()
        except Exception as error:
            fault = error
        faults: list[str | None] = [None] * self.world
        dist.all_gather_object(faults, fault and f"{type(fault).__name__}: {fault}")
        for rank, text in enumerate(faults):
            if text is not None:
                if rank == self.rank and fault is not None:
                    raise fault
                raise OtherProcessError(f"process {rank} has failed ({text})")
        return result  # pyright: ignore[reportReturnType]  # there was no fault, so it is what `act` returned

    def whole(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """All parameters by name, put together, on the CPU: for process 0, while the others get nothing."""
        found = {}
        for name, value in model.state_dict().items():
            whole = value.full_tensor() if hasattr(value, "full_tensor") else value  # all take part in this
            if self.rank == 0:
                found[name] = whole.detach().cpu().contiguous()
        return found

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.sum(0.0)


ALONE = Processes()


@contextlib.contextmanager
def join(device: str | None = None, shard: bool = False) -> Iterator[Processes]:
    """Join the processes that torchrun has started, and leave them at the end; alone where it has not.

    device: "cpu" or "cuda"; None for a GPU where there is one. With shard=True a single process is a group too. Raises
    ValueError where there is no GPU for this process, or no torch.distributed.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    started = {"RANK", "WORLD_SIZE"} <= os.environ.keys()
    place = _find_device(kind, int(os.environ.get("LOCAL_RANK", "0")) if started else 0)
    if not started and not shard:
        yield Processes(device=place)
        return
    if not dist.is_available():
        raise ValueError("this build of torch has no torch.distributed: train in one process, without --shard")
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    if started:
        dist.init_process_group(backend, timeout=PATIENCE)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), place, shard)
    finally:
        dist.destroy_process_group()


def _find_device(kind: str, number: int) -> torch.device:
    if kind != "cuda":
        return torch.device(kind)
    if number >= torch.cuda.device_count():
        raise ValueError(
            f"there is no GPU for process {number} (from 0) of this machine, which has {torch.cuda.device_count()}:"
            " start as many processes as there are GPUs, or use the device cpu"
        )
    torch.cuda.set_device(number)
    return torch.device(kind, number)
