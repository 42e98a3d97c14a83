"""The exercises of 00_basics: the course's answer, the cases that try a reader's, and the mistakes known by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from glassbox import basics, engine
from glassbox.basics import Network
from glassbox.engine import Tensor, accumulate, topological_order
from glassbox.lab import Exercise, Mistake

__all__ = ["backward", "momentum_step", "planted_fault", "softmax", "surprise_gradient", "unbroadcast"]

GRADS = np.arange(12.0).reshape(3, 4)


# --- break it ---


def planted_fault(network: Network) -> Network:
    """The same network with all weights of a layer equal: its neurons are twins and stay so."""
    for weights, _bias in network.layers:
        weights.data = np.full(weights.shape, 0.3)
    return network


# --- 1. unbroadcast ---


def _sums_new_axes_only(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return grad.sum(axis=tuple(range(grad.ndim - len(shape))))


def _drops_the_axes(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    grad = _sums_new_axes_only(grad, shape)
    return grad.sum(axis=tuple(axis for axis, size in enumerate(shape) if size == 1))


def _takes_the_mean(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return engine.unbroadcast(grad, shape) * (np.prod(shape) / grad.size)


def _takes_the_first(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return grad.reshape(-1)[: int(np.prod(shape))].reshape(shape)


unbroadcast = Exercise(
    name="unbroadcast",
    reference=engine.unbroadcast,
    cases=[
        (GRADS, (3, 1)),
        (GRADS, (4,)),
        (GRADS, (1, 4)),
        (GRADS, ()),
        (GRADS, (3, 4)),
        (np.arange(24.0).reshape(2, 3, 4), (3, 1)),
    ],
    mistakes=[
        Mistake(_sums_new_axes_only, "you summed the new axes; also sum those that were 1, with keepdims."),
        Mistake(_drops_the_axes, "an axis of size 1 must stay, with size 1: sum it with keepdims=True."),
        Mistake(_takes_the_mean, "add the gradients up, do not average them: each use counts in full."),
        Mistake(_takes_the_first, "a value used in four places receives all four gradients: sum, do not pick."),
    ],
    hint="first sum the axes that broadcasting put in front, then those where `shape` has a 1 (keepdims=True).",
)


# --- 2. backward ---


def square_plus_itself(f: Callable[[Tensor], Any]) -> float:
    """the gradient of y = x*x + x at x = 3 (7 is right)"""
    x = Tensor(3.0, requires_grad=True)
    f(x * x + x)
    return float(x.grad)


def chain_of_three(f: Callable[[Tensor], Any]) -> list[float]:
    """the gradients of y = tanh(w x + b) at x = 2, w = 0.5, b = -1"""
    x, w, b = (Tensor(value, requires_grad=True) for value in (2.0, 0.5, -1.0))
    f((w * x + b).tanh())
    return [float(t.grad) for t in (x, w, b)]


def stretched(f: Callable[[Tensor], Any]) -> list[list[int]]:
    """the shapes of the gradients after a (3, 1) and a (4,) Tensor were added"""
    a, b = Tensor(np.ones((3, 1)), requires_grad=True), Tensor(np.ones(4), requires_grad=True)
    f((a + b).sum())
    return [list(np.shape(a.grad)), list(np.shape(b.grad))]


def diamonds(f: Callable[[Tensor], Any]) -> dict[str, float]:
    """eight diamonds in a row, y = y + y each: the gradient, and how often the first node's rule was called"""
    calls = 0

    def rule(g: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return g

    x = Tensor(1.0, requires_grad=True)
    y = engine.record("counted", x.data + 0.0, (x, rule))
    for _ in range(8):
        y = y + y
    f(y)
    return {"gradient": float(x.grad), "calls of the rule": calls}


def two_graphs(f: Callable[[Tensor], Any]) -> float:
    """the gradient of x after two graphs that both use it, 3 x and then 4 x (7 is right)"""
    x = Tensor(2.0, requires_grad=True)
    f(x * 3.0)
    f(x * 4.0)
    return float(x.grad)


def long_chain(f: Callable[[Tensor], Any]) -> float:
    """the gradient through a chain of 3,000 operations"""
    x = Tensor(1.0, requires_grad=True)
    y = x
    for _ in range(3000):
        y = y + 1.0
    f(y)
    return float(x.grad)


def _overwrites(root: Tensor, gradient: Any = None) -> None:
    root.grad = np.ones(root.shape)
    for node in reversed(topological_order(root)):
        for parent, rule in zip(node.parents, node.rules, strict=True):
            parent.grad = engine.unbroadcast(rule(node.grad), parent.shape)


def _forgets_unbroadcast(root: Tensor, gradient: Any = None) -> None:
    accumulate(root, np.ones(root.shape))
    for node in reversed(topological_order(root)):
        for parent, rule in zip(node.parents, node.rules, strict=True):
            accumulate(parent, rule(node.grad))


def _walks_every_path(root: Tensor, gradient: Any = None) -> None:
    share = np.ones(root.shape) if gradient is None else gradient
    accumulate(root, share)
    for parent, rule in zip(root.parents, root.rules, strict=True):
        _walks_every_path(parent, engine.unbroadcast(rule(share), parent.shape))


def _walks_on_with_the_sum(root: Tensor, gradient: Any = None) -> None:
    if root.grad is None:
        root.grad = np.ones(root.shape)
    for parent, rule in zip(root.parents, root.rules, strict=True):
        accumulate(parent, engine.unbroadcast(rule(root.grad), parent.shape))
        _walks_on_with_the_sum(parent)


def _clears_first(root: Tensor, gradient: Any = None) -> None:
    for node in topological_order(root):
        node.grad = None
    engine.backward(root, gradient)


backward = Exercise(
    name="backward",
    reference=engine.backward,
    cases=[square_plus_itself, chain_of_three, stretched, diamonds, two_graphs, long_chain],
    mistakes=[
        Mistake(_overwrites, "a later use overwrote the gradient: accumulate, do not assign."),
        Mistake(_forgets_unbroadcast, "a gradient must have the shape of its value: unbroadcast each share."),
        Mistake(
            _walks_every_path,
            "every path was walked on its own, and paths double at each diamond: go through topological_order "
            "backwards, so that each node passes its gradient on once, when it is complete.",
        ),
        Mistake(
            _walks_on_with_the_sum,
            "a node passed its gradient on before all of its users had paid in: the order must be reversed "
            "topological, results before inputs.",
        ),
        Mistake(_clears_first, "do not clear old gradients: a leaf collects over several graphs until zero_grad."),
    ],
    hint="start with gradient 1 at the root; for node in reversed(topological_order(root)): every rule once.",
)


# --- 3. softmax ---


def _no_maximum(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def _maximum_over_everything(x: np.ndarray, axis: int = -1) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum(axis=axis, keepdims=True)


def _last_axis_always(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return basics.softmax(x)


def _sum_over_everything(x: np.ndarray, axis: int = -1) -> np.ndarray:
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    return weights / weights.sum()


softmax = Exercise(
    name="softmax",
    reference=basics.softmax,
    cases=[
        (np.array([1.0, 2.0, 3.0]),),
        (np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]]),),
        (np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]]), 0),
        (np.array([[1000.0, 0.0], [-1000.0, 0.0]]),),
        (np.linspace(-900.0, 900.0, 24).reshape(2, 3, 4), 1),
    ],
    mistakes=[
        Mistake(_no_maximum, "e^1000 is too large for a float: subtract the maximum before exp."),
        Mistake(_maximum_over_everything, "e^-2000 became 0 and 0/0 is NaN: the maximum per row, keepdims=True."),
        Mistake(_last_axis_always, "the axis that was asked for is not used: hand it to max and sum."),
        Mistake(_sum_over_everything, "each row must sum to 1: sum along the axis, keepdims=True."),
    ],
    hint="subtract the maximum along the axis, exponentiate, divide by the sum along the axis; keepdims=True twice.",
)


# --- 4. the gradient of the mean surprise ---


def _forgets_the_mean(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return basics.surprise_gradient(scores, targets) * len(targets)


def _wrong_sign(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return -basics.surprise_gradient(scores, targets)


def _forgets_y(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return basics.softmax(scores) / len(targets)


def _forgets_softmax(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return (scores - np.eye(scores.shape[1])[targets]) / len(targets)


def _whole_columns(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    gradient = basics.softmax(scores)
    gradient[:, targets] -= 1
    return gradient / len(targets)


surprise_gradient = Exercise(
    name="surprise_gradient",
    reference=basics.surprise_gradient,
    cases=[
        (np.array([[0.0, 0.0]]), np.array([1])),
        (np.array([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]), np.array([2, 0])),
        (np.array([[5.0, -5.0, 0.0], [0.0, 1.0, 2.0], [9.0, 9.0, 9.0]]), np.array([1, 1, 0])),
    ],
    mistakes=[
        Mistake(_forgets_the_mean, "this is the gradient of the sum; the loss is a mean: divide by B, the rows."),
        Mistake(
            _wrong_sign, "p - y, not y - p: the gradient points uphill, and the surprise rises where p is too high."
        ),
        Mistake(_forgets_y, "the target is missing: subtract 1 at each row's target."),
        Mistake(_forgets_softmax, "p is missing: turn the scores into probabilities with softmax first."),
        Mistake(
            _whole_columns, "gradient[:, targets] takes whole columns: gradient[np.arange(B), targets] one per row."
        ),
    ],
    hint="p = softmax(scores); then subtract 1 at [row, target] of every row; then divide by the number of rows.",
)


# --- 5. a step with momentum ---

Step = tuple[np.ndarray, np.ndarray]


def _averages(value: np.ndarray, gradient: np.ndarray, velocity: np.ndarray, lr: float, momentum: float) -> Step:
    velocity = momentum * velocity + (1 - momentum) * gradient
    return value - lr * velocity, velocity


def _uphill(value: np.ndarray, gradient: np.ndarray, velocity: np.ndarray, lr: float, momentum: float) -> Step:
    velocity = momentum * velocity + gradient
    return value + lr * velocity, velocity


def _late(value: np.ndarray, gradient: np.ndarray, velocity: np.ndarray, lr: float, momentum: float) -> Step:
    return value - lr * velocity, momentum * velocity + gradient


def _rate_in_velocity(
    value: np.ndarray, gradient: np.ndarray, velocity: np.ndarray, lr: float, momentum: float
) -> Step:
    velocity = momentum * velocity + lr * gradient
    return value - velocity, velocity


def _no_memory(value: np.ndarray, gradient: np.ndarray, velocity: np.ndarray, lr: float, momentum: float) -> Step:
    return value - lr * gradient, gradient


def five_steps(f: Callable[..., Step]) -> np.ndarray:
    """five steps down the bowl x², from x = 1 with lr 0.1 and momentum 0.9"""
    value, velocity, path = np.array([1.0]), np.zeros(1), []
    for _ in range(5):
        value, velocity = f(value, 2 * value, velocity, 0.1, 0.9)
        path.append(value)
    return np.concatenate(path)


momentum_step = Exercise(
    name="momentum_step",
    reference=basics.momentum_step,
    cases=[
        (np.array([1.0, 2.0]), np.array([0.5, -1.0]), np.zeros(2), 0.1, 0.0),
        (np.array([1.0, 2.0]), np.array([0.5, -1.0]), np.zeros(2), 0.1, 0.9),
        (np.array([1.0, 2.0]), np.array([0.5, -1.0]), np.array([0.3, 0.3]), 0.1, 0.9),
        five_steps,
    ],
    mistakes=[
        Mistake(_averages, "this is a running average; here the gradient is added whole, without (1 - momentum)."),
        Mistake(_uphill, "you went uphill: subtract lr * velocity."),
        Mistake(_late, "you moved with the old velocity: first add the new gradient to it, then move."),
        Mistake(_rate_in_velocity, "lr belongs in the move, not in the velocity: a new lr should act at once."),
        Mistake(_no_memory, "the old velocity is forgotten: the new one is momentum * velocity + gradient."),
    ],
    hint="velocity = momentum * velocity + gradient; then value - lr * velocity. Return both.",
)
