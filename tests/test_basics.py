"""00_basics: every gradient against torch and finite differences, the faults, and what is built on the engine."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from glassbox import basics, engine
from glassbox.basics import SGD, Network, Perceptron, gradcheck, mean_surprise, softmax, surprise_gradient
from glassbox.engine import Tensor, record
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([0, 1, 1, 0])


def values(low: float = -3.0, high: float = 3.0) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, width=32)


@st.composite
def arrays(draw: Any, shape: tuple[int, ...], low: float = -3.0, high: float = 3.0) -> np.ndarray:
    return draw(hnp.arrays(np.float64, shape, elements=values(low, high)))


def gradients(f: Callable[..., Any], *inputs: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Values and gradients of our engine for sum(f * w) with fixed weights w."""
    ours = [Tensor(x, requires_grad=True) for x in inputs]
    out = f(*ours)
    out.backward(weights_like(out.shape))
    return out.data, [np.zeros(x.shape) if x.grad is None else x.grad for x in ours]


def torch_gradients(f: Callable[..., Any], *inputs: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    out = f(*theirs)
    out.backward(torch.from_numpy(weights_like(tuple(out.shape))))
    return out.detach().numpy(), [np.zeros(x.shape) if x.grad is None else x.grad.numpy() for x in theirs]


def weights_like(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape)


def assert_same(f: Callable[..., Any], *inputs: np.ndarray, torch_f: Callable[..., Any] | None = None) -> None:
    value, grads = gradients(f, *inputs)
    expected, expected_grads = torch_gradients(torch_f or f, *inputs)
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)
    for found, wanted in zip(grads, expected_grads, strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)


# --- operations against torch and finite differences ---

BINARY = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / (b * b + 0.5),
    "used twice": lambda a, b: a * b + a * a - b,
}
UNARY = {
    "exp": lambda x: x.exp(),
    "log": lambda x: (x * x + 0.25).log(),
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "negative": lambda x: -x,
    "cube": lambda x: x**3,
    "square": lambda x: x**2,
    "zeroth": lambda x: x**0,
    "root": lambda x: (x * x + 0.25) ** 0.5,
    "reciprocal": lambda x: (x * x + 0.25) ** -1,
    "from the right": lambda x: 2 - 3 / (2.0 * x * x + 1.0),
}


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_binary_operations_under_broadcasting(name: str, data: st.DataObject) -> None:
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)).input_shapes
    a, b = (data.draw(arrays(shape)) for shape in shapes)
    assert_same(BINARY[name], a, b)
    assert gradcheck(BINARY[name], a, b, tolerance=1e-5) <= 1e-5


@pytest.mark.parametrize("name", UNARY)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_unary_operations(name: str, data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=3))))
    assert_same(UNARY[name], x)
    assert gradcheck(UNARY[name], x, tolerance=1e-5) <= 1e-5


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_relu(data: st.DataObject) -> None:
    x = data.draw(arrays(data.draw(hnp.array_shapes(max_dims=3, max_side=3))))
    assert_same(lambda t: t.relu(), x)  # the kink included: slope 0 at 0, as in torch
    away = np.where(np.abs(x) < 0.01, 1.0, x)
    gradcheck(lambda t: t.relu(), away)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reductions(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3))
    x = data.draw(arrays(shape))
    axes = st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True).map(tuple)
    axis = data.draw(st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1), axes))
    keepdims = data.draw(st.booleans())
    for name in ("sum", "mean"):
        assert_same(
            lambda t, name=name: getattr(t, name)(axis, keepdims),
            x,
            torch_f=lambda t, name=name: getattr(t, name)(dim=axis, keepdim=keepdims),
        )
    gradcheck(lambda t: t.mean(axis, keepdims) * 3.0 + t.sum(), x)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_matmul_of_stacks_with_broadcasting(data: st.DataObject) -> None:
    lead = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    n, k, m = (data.draw(st.integers(1, 3)) for _ in range(3))
    a, b = data.draw(arrays((*lead[0], n, k))), data.draw(arrays((*lead[1], k, m)))
    assert_same(lambda x, y: x @ y, a, b)
    gradcheck(lambda x, y: x @ y, a, b)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_reshape_and_transpose(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=4, max_side=3))
    x = data.draw(arrays(shape))
    order = data.draw(st.permutations(range(len(shape))))
    signed = [axis - len(shape) if data.draw(st.booleans()) else axis for axis in order]
    scale = weights_like(tuple(shape[axis] for axis in order))
    assert_same(
        lambda t: t.transpose(*signed) * scale,
        x,
        torch_f=lambda t: t.permute(*signed) * torch.from_numpy(scale),
    )
    assert_same(lambda t: (t * t).reshape(-1, shape[-1]), x)
    gradcheck(lambda t: t.T * t.T, x)


KEYS = {
    "one": 1,
    "last": -1,
    "slice": slice(1, None),
    "ellipsis": (..., 0),
    "new axis": (None, 1),
    "repeats": np.array([0, 2, 2, 2, 0]),
    "pairs with repeats": (np.array([0, 1, 1]), np.array([2, 0, 0])),
    "table of rows": np.array([[0, 1], [1, 1]]),
    "mask": np.array([True, False, True]),
}


@pytest.mark.parametrize("name", KEYS)
def test_index(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4))
    key = KEYS[name]
    torch_key = tuple(map(torch_index, key)) if isinstance(key, tuple) else torch_index(key)
    assert_same(lambda t: t[key] * t[key], x, torch_f=lambda t: t[torch_key] * t[torch_key])
    gradcheck(lambda t: t[key] * t[key], x)


def torch_index(key: Any) -> Any:
    return torch.from_numpy(key) if isinstance(key, np.ndarray) else key


def test_index_with_repeats_adds_up() -> None:
    x = Tensor(np.zeros(3), requires_grad=True)
    x[np.array([1, 1, 1, 2])].sum().backward()
    assert x.grad.tolist() == [0.0, 3.0, 1.0]


def test_arrays_on_the_left_leave_the_work_to_the_tensor() -> None:
    x, array = Tensor(np.ones((2, 2)), requires_grad=True), np.array([[1.0, 2.0], [3.0, 4.0]])
    for out in (array + x, array - x, array * x, array / x, array @ x):
        assert isinstance(out, Tensor)
        assert out.shape == (2, 2)
        assert out.requires_grad
    assert_same(lambda t: array @ t, np.eye(2), torch_f=lambda t: torch.from_numpy(array) @ t)


# --- the way back ---


def test_unbroadcast_returns_each_shape_its_own_sum() -> None:
    grad = np.arange(12.0).reshape(3, 4)
    assert engine.unbroadcast(grad, (3, 1)).tolist() == grad.sum(1, keepdims=True).tolist()
    assert engine.unbroadcast(grad, (4,)).tolist() == grad.sum(0).tolist()
    assert engine.unbroadcast(grad, (1, 1)).tolist() == [[66.0]]
    assert engine.unbroadcast(grad, ()).shape == ()
    assert engine.unbroadcast(grad, (3, 4)) is grad
    assert engine.unbroadcast(np.ones((2, 1, 4)), (1, 4)).tolist() == [[2.0] * 4]


def test_a_value_used_twice_receives_both_gradients() -> None:
    x = Tensor(3.0, requires_grad=True)
    (x * x + x).backward()
    assert x.grad == 7.0


def test_each_node_is_visited_once_even_where_paths_multiply() -> None:
    x = Tensor(1.0, requires_grad=True)
    y = x
    for _ in range(200):  # 2 to the 200 paths
        y = y * 0.5 + y * 0.5
    assert len(engine.topological_order(y)) == 1 + 200 * 5
    y.backward()
    assert math.isclose(x.grad, 1.0)


def test_inputs_come_before_results() -> None:
    a, b = Tensor(2.0, requires_grad=True), Tensor(3.0, requires_grad=True)
    c = a * b
    d = c + a
    order = engine.topological_order(d * c)
    place = {id(node): i for i, node in enumerate(order)}
    assert len(order) == 5
    assert all(place[id(parent)] < place[id(node)] for node in order for parent in node.parents)


def test_a_chain_of_20000_operations_neither_recurses_forwards_backwards_nor_when_freed() -> None:
    x = Tensor(1.0, requires_grad=True)
    y = x
    for _ in range(10_000):
        y = y * 1.0 + 0.0
    y.backward()
    assert x.grad == 1.0
    del y


def test_leaves_collect_over_several_graphs_until_they_are_cleared() -> None:
    x = Tensor(2.0, requires_grad=True)
    (x * 3.0).backward()
    (x * 4.0).backward()
    assert x.grad == 7.0


def test_gradients_of_two_leaves_are_separate_arrays() -> None:
    a, b = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0], requires_grad=True)
    (a + b).sum().backward()
    a.grad *= 100.0
    assert b.grad.tolist() == [1.0, 1.0]


def test_backward_from_a_given_gradient() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x * x).backward([10.0, 1.0])
    assert x.grad.tolist() == [20.0, 4.0]


def test_constants_remember_nothing() -> None:
    out = Tensor([1.0]) * Tensor([2.0]) + 1
    assert out.parents == ()
    assert not out.requires_grad


def test_gradcheck_catches_a_wrong_rule() -> None:
    def wrong_square(x: Tensor) -> Tensor:
        return engine.record("wrong", x.data**2, (x, lambda g: g * x.data))  # the 2 is forgotten

    with pytest.raises(AssertionError, match=r"0.26, more than 1e-06, worst for input 0 at \(1,\)"):
        gradcheck(wrong_square, np.array([0.1, 2.0]))
    with pytest.raises(AssertionError, match="nan"):
        gradcheck(lambda x: engine.record("nan", x.data, (x, lambda g: g * np.nan)), np.array([1.0]))
    assert gradcheck(lambda x: x**2, np.array([0.1, 2.0])) < 1e-8


# --- faults: each names the value, the limit and the fix ---


def grad(value: Any) -> Tensor:
    return Tensor(value, requires_grad=True)


any_power: Any = engine.power
FAULTS = {
    "shapes": (lambda: grad(np.ones((2, 3))) + np.ones(4), ValueError, r"\(2, 3\) and \(4,\) do not broadcast"),
    "inner sizes": (lambda: grad(np.ones((2, 3))) @ np.ones((2, 3)), ValueError, r"\(2, 3\) and \(2, 3\) do not fit"),
    "a vector": (lambda: grad(np.ones(3)) @ np.ones((3, 2)), ValueError, "second axis with reshape"),
    "stacks": (lambda: grad(np.ones((2, 1, 1))) @ np.ones((3, 1, 1)), ValueError, "could not be broadcast"),
    "integers with gradient": (lambda: grad([1, 2]), TypeError, "Write 3.0 for 3"),
    "a string": (lambda: Tensor("abc"), TypeError, "holds numbers, not .* 'abc'"),
    "objects": (lambda: Tensor([None, 1.0]), TypeError, "holds numbers, not object"),
    "complex": (lambda: Tensor(1j), TypeError, "holds numbers, not complex128"),
    "a string as operand": (lambda: grad(1.0) + "x", TypeError, "holds numbers"),
    "tensor in tensor": (lambda: Tensor(grad([1.0])), TypeError, "holds numbers, not object"),
    "no number to start from": (lambda: (grad([1.0, 2.0]) * 2).backward(), ValueError, r"shape \(2,\).*\.sum\(\)"),
    "gradient of another shape": (
        lambda: (grad([1.0, 2.0]) * 2).backward([1.0]),
        ValueError,
        r"shape \(1,\), \(2,\) is needed",
    ),
    "nothing to differentiate": (lambda: Tensor(1.0).backward(), RuntimeError, "requires_grad=True"),
    "log of zero": (lambda: grad([1.0, 0.0]).log(), ValueError, "0.0 is not positive"),
    "log of a negative": (lambda: grad([-2.0, 1.0]).log(), ValueError, "-2.0 is not positive"),
    "division by zero": (lambda: 1 / grad([1.0, 0.0]), ZeroDivisionError, "holds a 0"),
    "root of a negative": (lambda: grad([-1.0]) ** 0.5, ValueError, r"-1.0 \*\* 0.5"),
    "zero to the -1": (lambda: grad([0.0]) ** -1, ValueError, r"0.0 \*\* -1"),
    "a Tensor as exponent": (lambda: any_power(2.0, Tensor(2.0)), TypeError, "must be a number, not Tensor"),
    "index too large": (lambda: grad([1.0, 2.0])[2], IndexError, r"shape \(2,\).*index 2"),
    "reshape": (lambda: grad(np.ones(6)).reshape(4, 2), ValueError, r"size 6 into shape \(4,2\)"),
    "mean of nothing": (lambda: grad(np.ones((0, 2))).mean(), ValueError, "at least one"),
    "softmax of a Tensor": (lambda: softmax(grad([1.0])), (TypeError, ValueError), "sequence|number"),
    "target too large": (lambda: mean_surprise(np.zeros((1, 3)), [3]), ValueError, "3, allowed are 0 to 2"),
    "negative target": (lambda: mean_surprise(np.zeros((1, 3)), [-1]), ValueError, "-1 to -1, allowed are 0 to 2"),
    "targets as floats": (lambda: mean_surprise(np.zeros((1, 3)), [1.0]), ValueError, "integer targets"),
    "too many targets": (lambda: mean_surprise(np.zeros((1, 3)), [1, 1]), ValueError, r"got \(1, 3\)"),
    "one size": (lambda: Network([3]), ValueError, r"\(3,\)"),
    "empty layer": (lambda: Network([3, 0, 1]), ValueError, "each at least 1"),
    "activation": (lambda: Network([3, 1], "swish"), ValueError, "'swish'.*tanh, sigmoid, relu"),
    "input too wide": (lambda: Network([3, 1])(np.ones((1, 4))), ValueError, r"\(1, 4\) and \(3, 1\)"),
    "learning rate": (lambda: SGD([grad(1.0)], lr=0.0), ValueError, "lr=0.0"),
    "momentum": (lambda: SGD([grad(1.0)], lr=0.1, momentum=1.0), ValueError, "momentum=1.0"),
    "no parameters": (lambda: SGD([], lr=0.1), ValueError, "0 parameters"),
    "step before backward": (lambda: SGD([grad(1.0)], lr=0.1).step(), RuntimeError, "parameter 0 .*backward"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    act, error, words = FAULTS[name]
    with pytest.raises(error, match=words):
        act()


def test_backward_twice_is_refused_and_changes_no_gradient() -> None:
    x = grad(3.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match=r"backward ran through this '\*' before"):
        y.backward()
    with pytest.raises(RuntimeError, match="before"):
        (y + 1.0).backward()
    assert x.grad == 6.0


def test_data_cannot_change_inside() -> None:
    mine = np.array([1.0, 2.0])
    x = grad(mine)
    y = (x * x).sum()
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 5.0
    with pytest.raises(ValueError, match="read-only"):
        x.data += 1.0
    with pytest.raises(TypeError, match="item assignment"):
        x[0] = 5.0  # pyright: ignore
    mine[0] = 5.0  # the array that it was made from is another one
    y.backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_a_read_only_view_of_a_writable_array_is_copied() -> None:
    base = np.array([1.0, 2.0])
    view = base[:]
    view.flags.writeable = False
    x = Tensor(view)
    base[0] = 9.0
    assert x.data.tolist() == [1.0, 2.0]


def test_an_index_array_that_changes_later_does_no_harm() -> None:
    x, rows = grad([1.0, 2.0, 3.0]), np.array([0, 0])
    y = x[rows].sum()
    rows[:] = 2
    y.backward()
    assert x.grad.tolist() == [2.0, 0.0, 0.0]
    scores, targets = grad(np.zeros((1, 2))), np.array([0])
    loss = mean_surprise(scores, targets)
    targets[0] = 1
    loss.backward()
    assert scores.grad.tolist() == [[-0.5, 0.5]]


@pytest.mark.parametrize("which", ["parameter", "constant"])
def test_data_replaced_between_use_and_backward_is_refused(which: str) -> None:
    x, c = grad([1.0, 2.0]), Tensor([3.0, 4.0])
    y = (x * c).sum()
    changed = x if which == "parameter" else c
    changed.data = changed.data - 0.1
    with pytest.raises(RuntimeError, match=r"'\*' were replaced after use"):
        y.backward()
    assert x.grad is None


def test_replacing_data_keeps_the_shape() -> None:
    x = grad([1.0, 2.0])
    x.data = [3, 4]
    assert x.data.dtype == np.float64
    with pytest.raises(ValueError, match=r"shape \(3,\), \(2,\) is needed"):
        x.data = np.zeros(3)


# --- softmax and surprise ---


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_softmax_equals_torch(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    x = data.draw(arrays(shape, -1000.0, 1000.0))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    expected = torch.softmax(torch.from_numpy(x), dim=axis).numpy()
    np.testing.assert_allclose(softmax(x, axis), expected, rtol=1e-9, atol=1e-300)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mean_surprise_equals_torch(data: st.DataObject) -> None:
    B, V = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    scores = data.draw(arrays((B, V), -50.0, 50.0))
    targets = data.draw(hnp.arrays(np.int64, (B,), elements=st.integers(0, V - 1)))
    assert_same(
        lambda s: mean_surprise(s, targets),
        scores,
        torch_f=lambda s: torch.nn.functional.cross_entropy(s, torch.from_numpy(targets)),
    )
    gradcheck(lambda s: mean_surprise(s, targets), scores, tolerance=1e-5)


def test_huge_scores_stay_finite() -> None:
    scores = Tensor([[1e5, 0.0], [-1e5, 0.0]], requires_grad=True)
    loss = mean_surprise(scores, [1, 0])
    loss.backward()
    assert loss.item() == 1e5
    assert scores.grad.tolist() == [[0.5, -0.5], [-0.5, 0.5]]


def test_the_gradient_of_the_surprise_is_p_minus_y() -> None:
    scores, targets = np.log([[0.2, 0.3, 0.5]]), np.array([2])
    np.testing.assert_allclose(surprise_gradient(scores, targets), [[0.2, 0.3, -0.5]])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_softmax_on_the_graph(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    x = data.draw(arrays(shape, -500.0, 500.0))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    assert_same(lambda t: t.softmax(axis), x)
    gradcheck(lambda t: t.softmax(axis), x, tolerance=1e-5)


def test_the_softmax_jacobian_of_the_readme() -> None:
    z = np.array([0.3, -1.0, 2.0])
    p, step = softmax(z), 1e-6
    jacobian = np.diag(p) - np.outer(p, p)
    for j in range(3):
        shift = step * np.eye(3)[j]
        np.testing.assert_allclose((softmax(z + shift) - softmax(z - shift)) / (2 * step), jacobian[:, j], atol=1e-9)


# --- networks ---


def test_perceptron_learns_what_a_line_separates_and_never_xor() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 2))
    X = X[np.abs(X @ [1.0, -2.0] + 0.3) > 0.2]  # a gap between the classes
    y = (X @ [1.0, -2.0] + 0.3 > 0).astype(int)
    line = Perceptron(2)
    mistakes = line.fit(X, y, epochs=100)
    assert mistakes[0] > 0
    assert mistakes[-1] == 0
    assert (line.predict(X) == y).all()

    xor = Perceptron(2)
    assert min(xor.fit(XOR_X, XOR_Y, epochs=200)) > 0
    assert (xor.predict(XOR_X) == XOR_Y).sum() < 4


def test_xor_by_hand_by_the_engine_and_by_torch_gives_one_curve() -> None:
    net = Network((2, 8, 2), "tanh", seed=1)
    start = [p.data.copy() for p in net.parameters()]
    lr, momentum, steps = 0.1, 0.9, 150

    engine, optimiser = [], SGD(net.parameters(), lr, momentum)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = mean_surprise(net(XOR_X), XOR_Y)
        loss.backward()
        optimiser.step()
        engine.append(loss.item())

    W1, b1, W2, b2 = (x.copy() for x in start)
    velocity, hand = [np.zeros_like(x) for x in start], []
    for _ in range(steps):
        H = np.tanh(XOR_X @ W1 + b1)
        Z = H @ W2 + b2
        P = np.exp(Z) / np.exp(Z).sum(1, keepdims=True)
        hand.append(-np.log(P[range(4), XOR_Y]).mean())
        dZ = (P - np.eye(2)[XOR_Y]) / 4
        dA = (dZ @ W2.T) * (1 - H**2)
        for x, v, g in zip((W1, b1, W2, b2), velocity, (XOR_X.T @ dA, dA.sum(0), H.T @ dZ, dZ.sum(0)), strict=True):
            v *= momentum
            v += g
            x -= lr * v

    model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value.T)))
    X, y, theirs = torch.from_numpy(XOR_X), torch.from_numpy(XOR_Y), []
    torch_optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for _ in range(steps):
        torch_optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(X), y)
        loss.backward()
        torch_optimiser.step()
        theirs.append(loss.item())

    np.testing.assert_allclose(engine, hand, rtol=1e-9)
    np.testing.assert_allclose(engine, theirs, rtol=1e-9)
    assert engine[0] > 0.5
    assert engine[-1] < 0.02
    assert (net(XOR_X).data.argmax(1) == XOR_Y).all()


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_network_gradients(activation: str) -> None:
    net = Network((3, 4, 4, 2), activation, seed=3)
    assert [p.shape for p in net.parameters()] == [(3, 4), (4,), (4, 4), (4,), (4, 2), (2,)]
    X = np.random.default_rng(1).normal(size=(5, 3))

    def loss(*parameters: Tensor) -> Tensor:
        net.layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        return mean_surprise(net(X), [0, 1, 0, 1, 1])

    gradcheck(loss, *(p.data for p in net.parameters()))


def test_the_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    one, same, other = (Network((4, 5, 2), seed=seed) for seed in (1, 1, 2))
    assert all((a.data == b.data).all() for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert (one.parameters()[0].data != other.parameters()[0].data).any()


def test_initial_weights_have_the_stated_variance() -> None:
    rng = np.random.default_rng(0)
    weights = basics.initial_weights(400, 500, 2.0**0.5, rng)
    assert weights.shape == (400, 500)
    assert math.isclose(weights.var(), 2 / 400, rel_tol=0.02)
    x = rng.normal(size=(200, 400))  # thirty layers of relu keep the mean square
    for _ in range(30):
        x = np.maximum(x @ basics.initial_weights(400, 400, 2.0**0.5, rng), 0)
    assert 0.3 < (x**2).mean() * 2 < 3.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_equals_torch(momentum: float) -> None:
    ours, theirs = grad([3.0, -2.0]), torch.tensor([3.0, -2.0], dtype=torch.float64, requires_grad=True)
    our_steps, their_steps = SGD([ours], 0.05, momentum), torch.optim.SGD([theirs], 0.05, momentum)
    for _ in range(12):
        for x, optimiser in ((ours, our_steps), (theirs, their_steps)):
            optimiser.zero_grad()
            ((x**4).sum() * 0.1 + (x * x).sum()).backward()
            optimiser.step()
        np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-12)


# --- what a hostile reader tried ---


def test_gradcheck_never_forgets_a_nan() -> None:
    for factors in ([np.nan, 1.0], [1.0, np.nan]):
        with pytest.raises(AssertionError, match="differ by inf"):
            gradcheck(lambda x, f=factors: record("b", x.data * 1.0, (x, lambda g: g * np.array(f))), [1.0, 2.0])


def test_copies_and_pickles_are_leaves_whose_data_cannot_be_written() -> None:
    t = Tensor([1.0, 2.0], requires_grad=True)
    (t * t).sum().backward()
    for twin in (copy.deepcopy(t), copy.copy(t), pickle.loads(pickle.dumps(t)), copy.deepcopy([t * t])[0]):
        assert twin.requires_grad
        assert twin.parents == ()
        with pytest.raises(ValueError, match="read-only"):
            twin.data[0] = 50.0
    assert np.array_equal(copy.deepcopy(t).grad, [2.0, 4.0])
    deep = t.sum()
    for _ in range(5000):
        deep = deep + 1.0
    assert copy.deepcopy(deep).item() == deep.item()


def test_sigmoid_keeps_its_accuracy_far_to_the_left() -> None:
    x = Tensor([-700.0, -36.0, -30.0, 0.0, 30.0, 800.0], requires_grad=True)
    y = x.sigmoid()
    wanted = [math.exp(v) / (1 + math.exp(v)) if v < 0 else 1 / (1 + math.exp(-v)) for v in x.data]
    np.testing.assert_allclose(y.data, wanted, rtol=1e-12)
    assert Tensor([-40.0]).sigmoid().log().item() == pytest.approx(-40.0)


def test_division_by_very_small_and_large_numbers_has_finite_gradients() -> None:
    for a, b, wanted in ((1e-200, 1e-180, -1e160), (1e300, 1e200, -1e-100)):
        divisor = Tensor([b], requires_grad=True)
        (Tensor([a]) / divisor).sum().backward()
        np.testing.assert_allclose(divisor.grad, [wanted], rtol=1e-12)


def test_numpy_scalars_as_exponents_count_as_floats() -> None:
    x = Tensor([3.0], requires_grad=True)
    (x ** np.int8(-128)).sum().backward()  # type: ignore[operator]
    np.testing.assert_allclose(x.grad, [-128 * 3.0**-129], rtol=1e-12)


@pytest.mark.parametrize("axes", [(0, 5), (0,), (0, 0), (-3, 0)])
def test_transpose_refuses_axes_that_do_not_name_each_once(axes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"transpose: .* must name each axis of shape \(2, 3\) once"):
        Tensor(np.ones((2, 3))).transpose(*axes)


def test_an_interrupted_walk_is_refused_the_second_time() -> None:
    x = Tensor(1.0, requires_grad=True)
    once = iter([KeyboardInterrupt])

    def rule(g: np.ndarray) -> np.ndarray:
        for interruption in once:
            raise interruption
        return 3 * g

    y = record("three times", x.data * 3, (x, rule))
    with pytest.raises(KeyboardInterrupt):
        y.backward()
    with pytest.raises(RuntimeError, match="before"):
        y.backward()
    assert x.grad is None


def test_sgd_moves_all_parameters_or_none() -> None:
    a, b = Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True)
    (a * a).sum().backward()
    with pytest.raises(RuntimeError, match="parameter 1 of shape"):
        SGD([a, b], lr=0.1).step()
    assert a.item() == 1.0
    for parameters, lr in (([a, a], 0.1), ([a], float("inf")), ([a], float("nan"))):
        with pytest.raises(ValueError, match="each once, 0 < lr < inf"):
            SGD(parameters, lr=lr)
