"""An engine that differentiates: reverse-mode automatic differentiation on NumPy arrays, with broadcasting.

Read it from top to bottom: how a gradient finds its way back, how a result remembers where it came from, the
operations, and the `Tensor` that binds them. Every operation computes its result and names, for each input, a *rule*:
a function that turns the gradient of the result into the gradient of that input. Values are float64 everywhere.
Reverse mode: Linnainmaa (1970); for networks: Rumelhart, Hinton and Williams (1986).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "Tensor",
    "accumulate",
    "add",
    "as_floats",
    "as_tensor",
    "backward",
    "divide",
    "exp",
    "index",
    "log",
    "matmul",
    "mean",
    "multiply",
    "negate",
    "pair",
    "power",
    "record",
    "relu",
    "reshape",
    "sigmoid",
    "start_gradient",
    "subtract",
    "swapped",
    "tanh",
    "tensor_softmax",
    "topological_order",
    "total",
    "transpose",
    "unbroadcast",
    "verify",
]

Rule = Callable[[np.ndarray], np.ndarray]


# ------------------------------------------------------------------------------------- how gradients go back
def unbroadcast(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum `grad` down to `shape`, the shape that an input had before broadcasting stretched it.

    A value that was used in many places receives the sum of their gradients.
    """
    if grad.shape == shape:
        return grad
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))  # axes that broadcasting put in front
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return grad.sum(axis=stretched, keepdims=True)  # axes of size 1 that it repeated


def topological_order(root: Tensor) -> list[Tensor]:
    """Every Tensor that `root` was computed from, each once, inputs before results.

    A stack instead of recursion: a chain of 10,000 operations is deeper than Python may recurse.
    """
    order: list[Tensor] = []
    seen: set[Tensor] = set()
    stack = [(root, False)]
    while stack:
        node, inputs_done = stack.pop()
        if inputs_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)
    return order


def start_gradient(root: Tensor, gradient: Any) -> np.ndarray:
    """What `backward` starts from: `gradient` as an array of root's shape, or 1 for a Tensor of one number."""
    if not root.requires_grad:
        raise RuntimeError("nothing to differentiate. Make an input with Tensor(..., requires_grad=True)")
    if gradient is None and root.data.size != 1:
        raise ValueError(
            f"backward starts from one number, this Tensor has shape {root.shape}. "
            "Reduce it with .sum() or .mean(), or give backward(gradient) of that shape"
        )
    return np.ones(root.shape) if gradient is None else as_floats(gradient, root.shape)


def verify(order: list[Tensor]) -> None:
    """RuntimeError if a gradient through these nodes would be counted twice or belong to other data."""
    for node in order:
        if node.spent:
            raise RuntimeError(f"backward ran through this '{node.op}' before. Compute the expression again")
        if any(parent.data is not data for parent, data in zip(node.parents, node.used, strict=True)):
            raise RuntimeError(
                f"the data of an input of '{node.op}' were replaced after use: its gradient would belong to "
                "another function. Call backward before you change data, or compute the expression again"
            )


def accumulate(node: Tensor, share: np.ndarray) -> None:
    """Add one share to the gradient of `node`. The first one is copied: other nodes may hold the same array."""
    node.grad = np.array(share) if node.grad is None else node.grad + share


def backward(root: Tensor, gradient: Any = None) -> None:
    """Add to `.grad` of every Tensor behind `root` the derivative of `root` with respect to it (reverse mode).

    `gradient` has the shape of `root` and says what to start from; a Tensor of one number starts from 1.
    Raises ValueError or RuntimeError, before any gradient is written, where the answer would be wrong.
    """
    start = start_gradient(root, gradient)
    order = topological_order(root)
    verify(order)
    for node in order:
        node.spent = bool(node.parents)
    accumulate(root, start)
    for node in reversed(order):
        for parent, rule in zip(node.parents, node.rules, strict=True):
            if parent.requires_grad:
                accumulate(parent, unbroadcast(rule(node.grad), parent.shape))


# ------------------------------------------------------------------------------------------ making a Tensor
def as_floats(data: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Numbers as a new float64 array that is read-only: what a graph remembers must not change under it.

    TypeError for other things than numbers; ValueError if `shape` is given and not met.
    """
    array = np.asarray(data)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a Tensor holds numbers, not {array.dtype} such as {data!r:.40}. Convert it to float first")
    if shape is not None and array.shape != shape:
        raise ValueError(f"these numbers have shape {array.shape}, {shape} is needed. Reshape or broadcast them first")
    array = array.astype(np.float64)
    array.flags.writeable = False
    return array


def as_tensor(value: Any) -> Tensor:
    """A Tensor as it is; a number, list or array as a constant Tensor."""
    return value if isinstance(value, Tensor) else Tensor(value)


def record(op: str, data: Any, *links: tuple[Tensor, Rule]) -> Tensor:
    """The result of an operation: its `data`, and for each input a link `(input, rule)`.

    If no input needs a gradient, nothing is remembered.
    """
    out = Tensor(data)
    if any(parent.requires_grad for parent, _ in links):
        out.requires_grad, out.op = True, op
        out.parents = tuple(parent for parent, _ in links)
        out.rules = tuple(rule for _, rule in links)
        out.used = tuple(parent.data for parent in out.parents)
    return out


# -------------------------------------------------------------------------------------------- the operations
def pair(op: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both operands as Tensors; ValueError unless their shapes broadcast."""
    a, b = as_tensor(a), as_tensor(b)
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"{op}: shapes {a.shape} and {b.shape} do not broadcast. Line them up from the right: "
            "two sizes must be equal, or one of them 1. Insert axes of size 1 with reshape"
        ) from None
    return a, b


def add(a: Any, b: Any) -> Tensor:
    """a + b. Both inputs receive the gradient as it comes."""
    a, b = pair("+", a, b)
    return record("+", a.data + b.data, (a, lambda g: g), (b, lambda g: g))


def subtract(a: Any, b: Any) -> Tensor:
    """a - b."""
    a, b = pair("-", a, b)
    return record("-", a.data - b.data, (a, lambda g: g), (b, lambda g: -g))


def negate(x: Any) -> Tensor:
    """-x."""
    return multiply(x, -1.0)


def multiply(a: Any, b: Any) -> Tensor:
    """a * b, element by element. Each input receives the gradient times the other input."""
    a, b = pair("*", a, b)
    return record("*", a.data * b.data, (a, lambda g: g * b.data), (b, lambda g: g * a.data))


def divide(a: Any, b: Any) -> Tensor:
    """a / b; ZeroDivisionError if b holds a zero."""
    a, b = pair("/", a, b)
    if not b.data.all():
        raise ZeroDivisionError(f"/: the divisor of shape {b.shape} holds a 0. Add a small number to it first")
    return record("/", a.data / b.data, (a, lambda g: g / b.data), (b, lambda g: -g * (a.data / b.data) / b.data))


def power(x: Any, exponent: float) -> Tensor:
    """x ** exponent for a plain number as exponent; ValueError where no real result exists."""
    x = as_tensor(x)
    if isinstance(exponent, bool) or not isinstance(exponent, int | float | np.integer | np.floating):
        raise TypeError(f"**: the exponent must be a number, not {type(exponent).__name__}. Write (x.log() * y).exp()")
    exponent = float(exponent)
    if (exponent < 0 and not x.data.all()) or (exponent % 1 and (x.data < 0).any()):
        raise ValueError(f"**: {x.data.min()} ** {exponent:g} is not a real number. The base must be positive here")
    slope = exponent * x.data ** (exponent - 1) if exponent else np.zeros(x.shape)
    return record(f"**{exponent:g}", x.data**exponent, (x, lambda g: g * slope))


def matmul(a: Any, b: Any) -> Tensor:
    """a @ b: (..., n, k) @ (..., k, m) -> (..., n, m); leading axes broadcast.

    With C = A B, the gradients are dA = dC Bᵀ and dB = Aᵀ dC.
    """
    a, b = as_tensor(a), as_tensor(b)
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"@: shapes {a.shape} and {b.shape} do not fit. It needs (..., n, k) @ (..., k, m): the last size on "
            "the left equal to the last but one on the right. Give a vector a second axis with reshape"
        )
    left, right = lambda g: g @ b.data.swapaxes(-1, -2), lambda g: a.data.swapaxes(-1, -2) @ g
    return record("@", a.data @ b.data, (a, left), (b, right))


def exp(x: Any) -> Tensor:
    """e to the x. Its derivative is itself."""
    x = as_tensor(x)
    y = np.exp(x.data)
    return record("exp", y, (x, lambda g: g * y))


def log(x: Any) -> Tensor:
    """Natural logarithm; ValueError unless every value is positive."""
    x = as_tensor(x)
    if (x.data <= 0).any():
        raise ValueError(f"log: {x.data.min()} is not positive, log needs x > 0. For probabilities use mean_surprise")
    return record("log", np.log(x.data), (x, lambda g: g / x.data))


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent: squeezes every number into (-1, 1). Slope 1 - tanh²."""
    x = as_tensor(x)
    y = np.tanh(x.data)
    return record("tanh", y, (x, lambda g: g * (1 - y**2)))


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + e^-x): squeezes every number into (0, 1). Slope s (1 - s), at most 1/4."""
    x = as_tensor(x)
    s = np.exp(-np.logaddexp(0.0, -x.data))  # 1 / (1 + e^-x), without an overflow in e^-x
    return record("sigmoid", s, (x, lambda g: g * s * (1 - s)))


def relu(x: Any) -> Tensor:
    """max(x, 0). Slope 1 where x > 0, else 0."""
    x = as_tensor(x)
    return record("relu", np.maximum(x.data, 0), (x, lambda g: g * (x.data > 0)))


def total(x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis` (all axes if None). Each summand receives the gradient of its sum."""
    x = as_tensor(x)

    def spread(g: np.ndarray) -> np.ndarray:
        if axis is not None and not keepdims:
            g = np.expand_dims(g, axis)
        return np.broadcast_to(g, x.shape)

    return record("sum", x.data.sum(axis=axis, keepdims=keepdims), (x, spread))


def mean(x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis` (all axes if None): the sum divided by how many values went into each result."""
    x = as_tensor(x)
    sums = total(x, axis, keepdims)
    if not x.data.size:
        raise ValueError(f"mean: a Tensor of shape {x.shape} has no values to average. It needs at least one")
    return sums * (sums.data.size / x.data.size)


def reshape(x: Any, *shape: int) -> Tensor:
    """The same values in the same order under another shape; one size may be -1."""
    x = as_tensor(x)
    return record("reshape", x.data.reshape(*shape), (x, lambda g: g.reshape(x.shape)))


def transpose(x: Any, *axes: int) -> Tensor:
    """All axes in a new order, as in NumPy; reversed if none are given."""
    x = as_tensor(x)
    n = x.data.ndim
    order = [range(n)[axis] if -n <= axis < n else axis for axis in axes] or list(reversed(range(n)))
    if sorted(order) != list(range(n)):
        raise ValueError(f"transpose: {axes} must name each axis of shape {x.shape} once, counted from 0")
    return record("transpose", x.data.transpose(order), (x, lambda g: g.transpose(np.argsort(order))))


def index(x: Any, key: Any) -> Tensor:
    """x[key]. A value picked twice receives both gradients."""
    x, key = as_tensor(x), copy.deepcopy(key)  # ours: the caller may change an index array later
    try:
        picked = x.data[key]
    except IndexError as error:
        raise IndexError(f"[]: the index does not fit a Tensor of shape {x.shape}: {error}") from None

    def scatter(g: np.ndarray) -> np.ndarray:
        out = np.zeros(x.shape)
        np.add.at(out, key, g)
        return out

    return record("[]", picked, (x, scatter))


def tensor_softmax(x: Any, axis: int = -1) -> Tensor:
    """Scores to probabilities along `axis`, on the graph: e^x / sum e^x, from the operations above.

    The largest score is subtracted as a constant: that changes neither the result nor its gradient.
    """
    x = as_tensor(x)
    weights = exp(x - x.data.max(axis=axis, keepdims=True))
    return weights / total(weights, axis, keepdims=True)


def swapped(op: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """`op` with its operands the other way round: Python asks the right operand for `3 - x` this way."""
    return lambda right, left: op(left, right)


# --------------------------------------------------------------------------------------------- the Tensor
class Tensor:
    """An array that remembers how it was computed, so that `backward` can differentiate it.

    `data`: read-only float64 array; what a graph remembers cannot change under it. Replace it as a whole
    (`t.data = t.data - step`), never inside. `grad`: None, or an array of the same shape, filled by `backward`.
    TypeError for anything but numbers, and for integers that should have a gradient.
    """

    __slots__ = ("_data", "grad", "op", "parents", "requires_grad", "rules", "spent", "used")
    __array_ufunc__ = None  # array + Tensor: NumPy leaves it to the Tensor

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if requires_grad and np.asarray(data).dtype.kind in "biu":
            raise TypeError(f"only floats have gradients, not {data!r:.40}. Write 3.0 for 3, or array.astype(float)")
        self._data = as_floats(data)
        self.requires_grad = requires_grad
        self.grad: Any = None
        self.op = ""  # the operation that made it; none for a leaf
        self.parents: tuple[Tensor, ...] = ()  # its inputs
        self.rules: tuple[Rule, ...] = ()  # how each input gets its gradient
        self.used: tuple[np.ndarray, ...] = ()  # the inputs' data at that time
        self.spent = False  # backward has run through it

    @property
    def data(self) -> np.ndarray:
        """The numbers, read-only; set it to other numbers of the same shape to replace them all."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self._data = as_floats(value, self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """How many numbers lie along each axis."""
        return self.data.shape

    def item(self) -> float:
        """The one number of a Tensor that holds one."""
        return self.data.item()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy or a pickle is a leaf: the numbers, the gradient so far, and no graph."""
        return Tensor, (np.array(self._data), self.requires_grad), (None, {"grad": self.grad})

    def __repr__(self) -> str:
        return f"Tensor({np.array2string(self.data, precision=4, separator=', ')})"

    __add__ = __radd__ = add
    __mul__ = __rmul__ = multiply
    __sub__, __truediv__, __matmul__ = subtract, divide, matmul
    __rsub__, __rtruediv__, __rmatmul__ = swapped(subtract), swapped(divide), swapped(matmul)
    __neg__, __pow__, __getitem__ = negate, power, index
    exp, log, softmax = exp, log, tensor_softmax
    tanh, sigmoid, relu = tanh, sigmoid, relu
    sum, mean, reshape, transpose = total, mean, reshape, transpose
    T = property(transpose)
    backward = backward
