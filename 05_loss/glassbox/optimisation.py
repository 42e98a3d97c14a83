"""How a step is taken: AdamW, a schedule of step sizes, and a limit on the gradient.

Each piece stands here by hand; `glassbox.training` uses the schedules, the groups and the limit as they are, and for
AdamW torch's fused kernel, which a test holds equal to `adamw_step`.

Sources: Kingma and Ba, Adam (2014); Loshchilov and Hutter, SGDR (2016) and Decoupled Weight Decay Regularization
(2017); Pascanu et al., On the difficulty of training recurrent neural networks (2013); Hägele et al., Scaling Laws and
Compute-Optimal Training Beyond Fixed Training Durations (2024), for the trapezoid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import torch
import torch.nn as nn
from glassbox.preprocessing import check_size

__all__ = ["AdamW", "adamw_step", "clip_gradients", "cosine_schedule", "decay_groups", "trapezoid_schedule"]


@torch.no_grad()
def adamw_step(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    t: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> None:
    """Step t (from 1) of AdamW for one parameter, in place: `parameter`, and its running `mean` and `square`.

    The parameter shrinks by lr · weight_decay whatever its gradient is (decoupled decay). mean and square, both begun
    at 0, are too small at first; dividing by 1 - beta^t mends that. ValueError for t below 1.
    """
    t = check_size("t", t)
    mean.lerp_(gradient, 1 - betas[0])  # beta · mean + (1 - beta) · gradient
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    direction = mean / (1 - betas[0] ** t)
    size = (square / (1 - betas[1] ** t)).sqrt() + eps
    parameter.mul_(1 - lr * weight_decay).sub_(lr * direction / size)


class AdamW(torch.optim.Optimizer):
    """`adamw_step` for every parameter that has a gradient; groups may differ in lr, betas, eps and weight_decay.

    Raises ValueError for numbers out of range, at the start.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        for group in self.param_groups:
            check_rates(group["lr"], group["betas"], group["eps"], group["weight_decay"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step for all parameters with a gradient. `closure`, if given, computes the loss first."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state.update(t=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
                state["t"] += 1
                rates = group["lr"], group["betas"], group["eps"], group["weight_decay"]
                adamw_step(parameter, parameter.grad, state["mean"], state["square"], state["t"], *rates)
        return loss


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimiser: matrices, which decay, and the rest, which does not.

    The rest are biases, the factors of normalisations and the tables (`nn.Embedding`): a row of a table gets a
    gradient only when its token occurs, and must not fade while it waits. Frozen parameters are in neither, each other
    one in exactly one. Raises TypeError for what is no model, ValueError for a decay below 0 and where nothing is
    trainable.
    """
    check_trainable(model, weight_decay)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim < 2 or id(parameter) in tables].append(parameter)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def cosine_schedule(step: int, steps: int, warmup: int, peak: float, least: float = 0.0) -> float:
    """The step size at `step` (from 0) of `steps`: a straight line up for `warmup` steps, then half a cosine down.

    It is `peak` at step `warmup` and `least` at the last step, and stays there. (Where warm-up leaves one step, that is
    `peak`.) Raises ValueError for what is no plan.
    """
    done = check_plan(step, steps, warmup, peak, least)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return least + (peak - least) * (1 + math.cos(math.pi * done)) / 2


def trapezoid_schedule(step: int, steps: int, warmup: int, peak: float, least: float = 0.0, stay: float = 0.4) -> float:
    """The step size at `step` (from 0) of `steps`: a line up, level for a while, and a straight line down to `least`.

    stay: the share of the steps after warm-up that are level. A run that turns out too short is made longer without
    loss: its level part does not depend on where the end is. Errors as of `cosine_schedule`.
    """
    done = check_plan(step, steps, warmup, peak, least, stay)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak - (peak - least) * max(0.0, (done - stay) / (1 - stay))


def clip_gradients(parameters: Iterable[torch.Tensor], limit: float) -> torch.Tensor:
    """Scale all gradients together so that their joint length is at most `limit`; returns the length before, a scalar.

    Their direction stays. Parameters without gradient (frozen, unused) are passed over; without any the length is 0.
    A gradient that holds NaN or infinity gives such a length, by which the caller notices: nothing is scaled then.
    Raises ValueError unless limit is above 0, TypeError for a tensor in place of a list of them.
    """
    check_clipping(parameters, limit)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    lengths = [whole(torch.linalg.vector_norm(gradient)) for gradient in gradients]
    length = torch.linalg.vector_norm(
        torch.stack([part.to(lengths[0].device) for part in lengths] or [torch.zeros(())])
    )
    if limit < length < math.inf:
        for gradient in gradients:
            gradient.mul_((limit / (length + 1e-6)).to(gradient.device))
    return length


def whole(number: Any) -> torch.Tensor:
    """The number itself; put together first where its parts lie on several processes (a DTensor)."""
    return number.full_tensor() if hasattr(number, "full_tensor") else number


# --- what is refused ---


def check_rates(lr: Any, betas: Sequence[Any], eps: Any, weight_decay: Any) -> None:
    """Raises ValueError for rates that no AdamW can work with."""
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers, such as (0.9, 0.999), not {betas!r}")
    for name, value, high, limit in (
        ("lr", lr, math.inf, "0 or more, and finite"),
        ("the first of betas", betas[0], 1, "from 0 to below 1"),
        ("the second of betas", betas[1], 1, "from 0 to below 1"),
        ("eps", eps, math.inf, "0 or more, and finite"),
        ("weight_decay", weight_decay, math.inf, "0 or more, and finite"),
    ):
        if not isinstance(value, Real | torch.Tensor) or not 0 <= float(value) < high:
            raise ValueError(f"{name} must be {limit}, not {value!r}")


def check_trainable(model: Any, weight_decay: Any) -> None:
    """Raises unless the model has something to train and the decay is one."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, not {type(model).__name__}: the groups depend on its layers")
    if not isinstance(weight_decay, Real) or not 0 <= float(weight_decay) < math.inf:
        raise ValueError(f"weight_decay must be 0 or more, and finite, not {weight_decay!r}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("no parameter is trainable: set requires_grad for those that should learn")


def check_clipping(parameters: Any, limit: Any) -> None:
    """Raises for a limit that is none, and for a tensor, whose parts have no gradients of their own."""
    if isinstance(parameters, torch.Tensor):
        raise TypeError("parameters must be a list of tensors, not one: write [parameter]")
    if not limit > 0:
        raise ValueError(f"limit must be above 0, not {limit}; for no limit write float('inf')")


def check_plan(step: int, steps: int, warmup: int, peak: float, least: float, stay: float = 0.0) -> float:
    """The share of the way down that is done at this step, 0 to 1. Raises for numbers that make no plan."""
    step, steps, warmup = check_size("step", step, 0), check_size("steps", steps), check_size("warmup", warmup, 0)
    if not 0 <= least <= peak < math.inf:
        raise ValueError(f"least = {least} and peak = {peak} must be step sizes with 0 <= least <= peak, both finite")
    if not 0 <= stay < 1:
        raise ValueError(f"stay must be a share from 0 to below 1, not {stay}")
    if warmup >= steps:
        raise ValueError(f"warmup = {warmup} leaves nothing of steps = {steps}: warm up for fewer")
    return min(1.0, max(0.0, (step - warmup) / max(1, steps - 1 - warmup)))
