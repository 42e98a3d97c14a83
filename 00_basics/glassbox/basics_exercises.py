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


def _sums_one_axis_only(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    return grad.sum(axis=shape.index(1), keepdims=True) if 1 in shape else grad


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
        (GRADS, (1, 1)),
        (np.arange(24.0).reshape(2, 3, 4), (1, 3, 1)),
    ],
    mistakes=[
        Mistake(_sums_new_axes_only, "you summed the new axes; also sum those that were 1, with keepdims."),
        Mistake(_sums_one_axis_only, "there may be more than one axis of size 1: sum each of them, with keepdims."),
        Mistake(_drops_the_axes, "an axis of size 1 must stay, with size 1: sum it with keepdims=True."),
        Mistake(_takes_the_mean, "add the gradients up, do not average them: each use counts in full."),
        Mistake(_takes_the_first, "a value used in four places receives all four gradients: sum, do not pick."),
    ],
    hint="first sum the axes that broadcasting put in front, then those where `shape` has a 1 (keepdims=True).",
)


# --- 2. backward ---


def _reached(tensor: Tensor, name: str) -> float:
    """The gradient as a float; an AssertionError in words where none came."""
    assert tensor.grad is not None, f"{name}.grad is still None: no gradient reached {name}"
    return float(tensor.grad)


def square_plus_itself(f: Callable[[Tensor], Any]) -> float:
    """the gradient of y = x*x + x at x = 3 (7 is right)"""
    x = Tensor(3.0, requires_grad=True)
    f(x * x + x)
    return _reached(x, "x")


def chain_of_three(f: Callable[[Tensor], Any]) -> list[float]:
    """the gradients of y = tanh(w x + b) at x = 2, w = 0.5, b = -1"""
    x, w, b = (Tensor(value, requires_grad=True) for value in (2.0, 0.5, -1.0))
    f((w * x + b).tanh())
    return [_reached(t, name) for t, name in ((x, "x"), (w, "w"), (b, "b"))]


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
    return {"gradient": _reached(x, "x"), "calls of the rule": calls}


def two_graphs(f: Callable[[Tensor], Any]) -> float:
    """the gradient of x after two graphs that both use it, 3 x and then 4 x (7 is right)"""
    x = Tensor(2.0, requires_grad=True)
    f(x * 3.0)
    f(x * 4.0)
    return _reached(x, "x")


def long_chain(f: Callable[[Tensor], Any]) -> float:
    """the gradient through a chain of 3,000 operations"""
    x = Tensor(1.0, requires_grad=True)
    y = x
    for _ in range(3000):
        y = y + 1.0
    f(y)
    return _reached(x, "x")


def started_with(f: Callable[..., Any]) -> np.ndarray | None:
    """the gradient of x after backward(3 x, gradient) with the gradient [2, 5] ([6, 15] is right)"""
    x = Tensor([1.0, 1.0], requires_grad=True)
    f(x * 3.0, np.array([2.0, 5.0]))
    assert x.grad is not None, "x.grad is still None: no gradient reached x"
    return x.grad


def _is_refused(f: Callable[[Tensor], Any], root: Tensor) -> bool:
    try:
        f(root)
    except RuntimeError:
        return True
    return False


def constants(f: Callable[[Tensor], Any]) -> Any:
    """.grad of the constant 2 after y = x * 2"""
    x, two = Tensor(3.0, requires_grad=True), Tensor(2.0)
    f(x * two)
    return two.grad


def second_walk(f: Callable[[Tensor], Any]) -> dict[str, bool]:
    """what is spent after a walk from y = x*x + x, and whether wrong walks are refused (RuntimeError)"""
    x, z = Tensor(3.0, requires_grad=True), Tensor(3.0, requires_grad=True)
    y, replaced = x * x + x, z * z
    f(y)
    said = {"y.spent": bool(y.spent), "x.spent": bool(x.spent), "a second walk is refused": _is_refused(f, y)}
    z.data = 4.0
    return {**said, "a walk after x.data was replaced is refused": _is_refused(f, replaced)}


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


def _backward_but(
    root: Tensor,
    gradient: Any = None,
    *,
    verifies: bool = True,
    spends: Callable[[Tensor], bool] = lambda node: bool(node.parents),
    order: Callable[[list[Tensor]], Any] = reversed,
    adds: Callable[[Tensor, np.ndarray], None] = accumulate,
    fills_constants: bool = False,
) -> None:
    """The course's walk, with one part of it changed."""
    start = engine.start_gradient(root, gradient)
    nodes = topological_order(root)
    if verifies:
        engine.verify(nodes)
    for node in nodes:
        node.spent = spends(node)
    accumulate(root, start)
    for node in order(nodes):
        for parent, rule in zip(node.parents, node.rules, strict=True):
            if parent.requires_grad or fills_constants:
                adds(parent, engine.unbroadcast(rule(node.grad), parent.shape))


def _ignores_gradient(root: Tensor, gradient: Any = None) -> None:
    engine.backward(root, np.ones(root.shape))


def _starts_only(root: Tensor, gradient: Any = None) -> None:
    _backward_but(root, gradient, order=lambda nodes: [])


def _forward_order(root: Tensor, gradient: Any = None) -> None:
    _backward_but(root, gradient, order=list)


def _forward_order_past_none(root: Tensor, gradient: Any = None) -> None:
    _backward_but(root, gradient, order=lambda nodes: (node for node in nodes if node.grad is not None))


def _adds_in_place(root: Tensor, gradient: Any = None) -> None:
    def adds(node: Tensor, share: np.ndarray) -> None:
        if node.grad is None:
            node.grad = share
        else:
            node.grad += share

    _backward_but(root, gradient, adds=adds)


def _adds_to_none(root: Tensor, gradient: Any = None) -> None:
    def adds(node: Any, share: np.ndarray) -> None:
        node.grad += share

    _backward_but(root, gradient, adds=adds)


def _forgets_verify(root: Tensor, gradient: Any = None) -> None:
    _backward_but(root, gradient, verifies=False)


def _forgets_spent(root: Tensor, gradient: Any = None) -> None:
    _backward_but(root, gradient, spends=lambda node: False)


def _forgets_verify_and_spent(root: Tensor, gradient: Any = None) -> None:
    _backward_but(root, gradient, verifies=False, spends=lambda node: False)


def _spends_leaves(root: Tensor, gradient: Any = None) -> None:
    _backward_but(root, gradient, spends=lambda node: True)


def _fills_constants(root: Tensor, gradient: Any = None) -> None:
    _backward_but(root, gradient, fills_constants=True)


SPENT = "After verify, set node.spent = True on every node that has parents"

backward = Exercise(
    name="backward",
    reference=engine.backward,
    cases=[
        square_plus_itself,
        chain_of_three,
        stretched,
        diamonds,
        two_graphs,
        long_chain,
        started_with,
        constants,
        second_walk,
    ],
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
        Mistake(_ignores_gradient, "you ignored `gradient`: begin with start_gradient(root, gradient)."),
        Mistake(
            _starts_only, "the walk does not reach the inputs: visit every node, and call the rule of each parent."
        ),
        Mistake(_forward_order, "you visit inputs before results: reversed(topological_order(root))."),
        Mistake(_forward_order_past_none, "inputs were visited before results: reversed(topological_order(root))."),
        Mistake(
            _adds_in_place,
            "`+=` changed an array that another node holds too: use accumulate(parent, share), which makes a new one.",
        ),
        Mistake(
            _adds_to_none, "a gradient begins as None: use accumulate(parent, share), which knows the first share."
        ),
        Mistake(_fills_constants, "constants need no gradient: pass on only where parent.requires_grad."),
        Mistake(_forgets_verify, "a wrong walk went through without a word: call verify(order) before the first step."),
        Mistake(_forgets_spent, f"a second walk went through without a word. {SPENT}: then `verify` can refuse."),
        Mistake(_forgets_verify_and_spent, f"a second walk went through without a word: call verify(order). {SPENT}."),
        Mistake(
            _spends_leaves, "leaves stay usable in other graphs: set node.spent only where node.parents is not ()."
        ),
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


def _one_table(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return basics.softmax(x.reshape(-1)).reshape(x.shape)


def _first_axis_always(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return basics.softmax(x, 0)


def _powers_of_two(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return basics.softmax(np.asarray(x) * np.log(2.0), axis)


def _clips(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return _no_maximum(np.clip(x, -700, 700), axis)


softmax = Exercise(
    name="softmax",
    reference=basics.softmax,
    cases=[
        (np.array([1.0, 2.0, 3.0]),),
        (np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]]),),
        (np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]]), 0),
        (np.array([[1000.0, 0.0], [-1000.0, 0.0]]),),
        (np.array([[1000.0, 998.0]]),),
        (np.linspace(-900.0, 900.0, 24).reshape(2, 3, 4), 1),
    ],
    mistakes=[
        Mistake(_no_maximum, "e^1000 is too large for a float: subtract the maximum before exp."),
        Mistake(_maximum_over_everything, "e^-2000 became 0 and 0/0 is NaN: the maximum per row, keepdims=True."),
        Mistake(_last_axis_always, "the axis that was asked for is not used: hand it to max and sum."),
        Mistake(_sum_over_everything, "each row must sum to 1: sum along the axis, keepdims=True."),
        Mistake(_one_table, "the whole table sums to 1, not each row: max and sum along the axis, keepdims=True."),
        Mistake(_first_axis_always, "you used axis 0, whatever was asked for: hand `axis` to max and sum."),
        Mistake(_powers_of_two, "these are powers of 2: the scores are exponents of e, so use np.exp."),
        Mistake(_clips, "clipping makes different scores equal (1000 and 998): subtract the maximum of each row."),
    ],
    hint="subtract the maximum along the axis, exponentiate, divide by the sum along the axis; keepdims=True twice.",
)


# --- 4. the gradient of the mean surprise ---


def _overflows(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    gradient = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    gradient[np.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


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


def _subtracts_the_places(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return (basics.softmax(scores) - targets) / len(targets)


def _subtracts_the_places_from_rows(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return (basics.softmax(scores) - targets[:, None]) / len(targets)


def _divides_by_answers(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return basics.surprise_gradient(scores, targets) * len(targets) / scores.shape[1]


def _softmax_down_the_columns(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return (basics.softmax(scores, 0) - np.eye(scores.shape[1])[targets]) / len(targets)


def _whole_rows(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    gradient = basics.softmax(scores)
    gradient[targets] -= 1
    return gradient / len(targets)


PLACES = "`targets` are places, not the 0/1 row y: subtract 1 only at the place"

surprise_gradient = Exercise(
    name="surprise_gradient",
    reference=basics.surprise_gradient,
    cases=[
        (np.array([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]), np.array([2, 0])),
        (np.array([[5.0, -5.0, 0.0], [0.0, 1.0, 2.0], [9.0, 9.0, 9.0]]), np.array([1, 1, 0])),
        (np.array([[0.0, 0.0]]), np.array([1])),
        (np.array([[1000.0, 0.0]]), np.array([1])),
    ],
    mistakes=[
        Mistake(_overflows, "e^1000 is too large for a float: use your softmax, which subtracts the maximum."),
        Mistake(_forgets_the_mean, "this is the gradient of the sum; the loss is a mean: divide by B, the rows."),
        Mistake(
            _wrong_sign, "p - y, not y - p: the gradient points uphill, and the surprise rises where p is too high."
        ),
        Mistake(_forgets_y, "the target is missing: subtract 1 at each row's target."),
        Mistake(_forgets_softmax, "p is missing: turn the scores into probabilities with softmax first."),
        Mistake(
            _whole_columns, "gradient[:, targets] takes whole columns: gradient[np.arange(B), targets] one per row."
        ),
        Mistake(_subtracts_the_places, f"{PLACES}, gradient[np.arange(B), targets] -= 1."),
        Mistake(_subtracts_the_places_from_rows, f"{PLACES}, not the number of the place everywhere in the row."),
        Mistake(
            _divides_by_answers, "divide by B, the number of rows (len(targets)), not by V, the number of answers."
        ),
        Mistake(
            _softmax_down_the_columns, "each row of scores is one question: softmax along the last axis, not axis 0."
        ),
        Mistake(
            _whole_rows, "gradient[targets] takes whole rows: gradient[np.arange(B), targets] is one place per row."
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


def _moves_by_gradient(
    value: np.ndarray, gradient: np.ndarray, velocity: np.ndarray, lr: float, momentum: float
) -> Step:
    return value - lr * gradient, momentum * velocity + gradient


def _other_order(value: np.ndarray, gradient: np.ndarray, velocity: np.ndarray, lr: float, momentum: float) -> Step:
    value, velocity = basics.momentum_step(value, gradient, velocity, lr, momentum)
    return velocity, value


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
        (np.array([1.0, 2.0]), np.array([0.5, -1.0]), np.array([0.3, -0.2]), 0.1, 0.9),
        five_steps,
    ],
    mistakes=[
        Mistake(_averages, "this is a running average; here the gradient is added whole, without (1 - momentum)."),
        Mistake(_uphill, "you went uphill: subtract lr * velocity."),
        Mistake(_late, "you moved with the old velocity: first add the new gradient to it, then move."),
        Mistake(_rate_in_velocity, "lr belongs in the move, not in the velocity: a new lr should act at once."),
        Mistake(_no_memory, "the old velocity is forgotten: the new one is momentum * velocity + gradient."),
        Mistake(_moves_by_gradient, "you moved by the gradient alone: move by lr times the new velocity."),
        Mistake(_other_order, "the order of the pair is (value, velocity)."),
    ],
    hint="velocity = momentum * velocity + gradient; then value - lr * velocity. Return both.",
)
