"""From a number to a network: what is built on the engine of `engine.py`.

`gradcheck` tries a gradient against finite differences; `softmax` and `mean_surprise` turn scores into a loss;
`Perceptron` and `Network` are the first models of the course, `SGD` trains them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from glassbox.engine import Tensor, as_tensor, record

__all__ = [
    "GAIN",
    "SGD",
    "Network",
    "Perceptron",
    "gradcheck",
    "initial_weights",
    "mean_surprise",
    "momentum_step",
    "softmax",
    "surprise_gradient",
]


def gradcheck(f: Callable[..., Tensor], *inputs: Any, step: float = 1e-6, tolerance: float = 1e-6) -> float:
    """Compare the gradients of `f(*Tensors)` with central differences; return the largest relative error.

    Each number of each input is moved by +step and -step; a result of many numbers is weighted with fixed
    random weights first. AssertionError names input and position of the worst number if it exceeds `tolerance`.
    """
    arrays = [np.array(x, dtype=np.float64) for x in inputs]
    tensors = [Tensor(x, requires_grad=True) for x in arrays]
    out = f(*tensors)
    weights = np.random.default_rng(0).normal(size=out.shape)
    out.backward(weights)
    worst, place = 0.0, ""
    for number, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
        found = np.zeros(array.shape) if tensor.grad is None else tensor.grad
        for position in np.ndindex(array.shape):
            value = array[position]
            array[position] = value + step
            above = (f(*map(Tensor, arrays)).data * weights).sum()
            array[position] = value - step
            below = (f(*map(Tensor, arrays)).data * weights).sum()
            array[position] = value
            slope = (above - below) / (2 * step)
            error = abs(found[position] - slope) / max(1.0, abs(slope))
            error = error if error == error else np.inf  # nan is the worst of all
            if error > worst:
                worst, place = error, f"input {number} at {position}: {found[position]:.6g}, measured {slope:.6g}"
    if not worst <= tolerance:
        raise AssertionError(f"gradients differ by {worst:.2g}, more than {tolerance:.2g}, worst for {place}")
    return worst


# --------------------------------------------------------------------------- from scores to probabilities
def softmax(x: Any, axis: int = -1) -> np.ndarray:
    """Scores to probabilities along `axis`: positive, summing to 1. For arrays; a Tensor has its own method.

    Subtracting the largest score of each row changes nothing in the result and keeps e^x finite.
    """
    x = np.asarray(x, dtype=np.float64)
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def surprise_gradient(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Gradient of the mean surprise, (p - y) / B with y 1 at the target, else 0. (B, V), (B,) -> (B, V)."""
    gradient = softmax(scores)
    gradient[np.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


def mean_surprise(scores: Any, targets: Any) -> Tensor:
    """Mean of -log p(target), in nats: the cross-entropy of softmax(scores). (B, V) scores, (B,) integers.

    log p = score - log sum exp(scores), computed relative to the largest score: finite for any scores.
    """
    scores, targets = as_tensor(scores), np.array(targets)
    if scores.data.ndim != 2 or targets.shape != scores.shape[:1] or targets.dtype.kind not in "iu" or not targets.size:
        raise ValueError(
            f"mean_surprise needs scores (B, V) and B integer targets, B > 0; got {scores.shape} and "
            f"{targets.dtype} {targets.shape}"
        )
    if targets.min() < 0 or targets.max() >= scores.shape[1]:
        raise ValueError(f"targets run from {targets.min()} to {targets.max()}, allowed are 0 to {scores.shape[1] - 1}")
    shifted = scores.data - scores.data.max(axis=1, keepdims=True)
    surprise = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(targets)), targets]
    return record("mean_surprise", surprise.mean(), (scores, lambda g: g * surprise_gradient(scores.data, targets)))


# --------------------------------------------------------------------------------------------- networks
class Perceptron:
    """One neuron with a step: answers 1 where x·w + b > 0, else 0. Rosenblatt (1958).

    `n_inputs`: how many numbers each example has.
    """

    def __init__(self, n_inputs: int) -> None:
        self.weights, self.bias = np.zeros(n_inputs), 0.0

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(B, n_inputs) -> (B,) of 0 and 1."""
        return (X @ self.weights + self.bias > 0).astype(int)

    def fit(self, X: np.ndarray, y: np.ndarray, epochs: int = 20) -> list[int]:
        """After each mistake move the line towards the example; returns the mistakes of each pass over the data."""
        mistakes = []
        for _ in range(epochs):
            errors = 0
            for x, target in zip(X, y, strict=True):
                error = int(target - self.predict(x[None])[0])  # -1, 0 or 1
                self.weights, self.bias = self.weights + error * x, self.bias + error
                errors += abs(error)
            mistakes.append(errors)
        return mistakes


GAIN = {"tanh": 1.0, "sigmoid": 1.0, "relu": 2.0**0.5}


def initial_weights(n_in: int, n_out: int, gain: float, rng: np.random.Generator) -> np.ndarray:
    """Random (n_in, n_out) weights of variance gain² / n_in: a sum of n_in terms then keeps the size of its inputs.

    Gain 1: LeCun et al. (1998). Gain sqrt(2) for relu, which silences half of its inputs: He et al. (2015).
    """
    return rng.normal(0.0, gain / n_in**0.5, size=(n_in, n_out))


class Network:
    """A multi-layer perceptron: (B, sizes[0]) -> (B, sizes[-1]), an activation between the layers, none at the end.

    `Network((2, 8, 1), "tanh", seed=1)`: 2 inputs, 8 hidden neurons, 1 output.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "tanh", seed: int = 1337) -> None:
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes {tuple(sizes)}: a network needs at least input and output size, each at least 1")
        if activation not in GAIN:
            raise ValueError(f"activation {activation!r} is not known, choose from {', '.join(GAIN)}")
        rng = np.random.default_rng(seed)
        self.activation, self.layers = activation, []
        for n_in, n_out in pairwise(sizes):
            weights = initial_weights(n_in, n_out, GAIN[activation], rng)
            self.layers.append((Tensor(weights, requires_grad=True), Tensor(np.zeros(n_out), requires_grad=True)))

    def __call__(self, x: Any) -> Tensor:
        *hidden, (last_weights, last_bias) = self.layers
        for weights, bias in hidden:
            x = getattr(x @ weights + bias, self.activation)()  # (B, n_out)
        return x @ last_weights + last_bias

    def parameters(self) -> list[Tensor]:
        """Weights and bias of each layer, first layer first."""
        return [parameter for layer in self.layers for parameter in layer]


def momentum_step(
    value: np.ndarray, gradient: np.ndarray, velocity: np.ndarray, lr: float, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    """One step downhill: the velocity keeps a part of itself and adds the gradient. Returns (value, velocity).

    Polyak (1964), in the form that PyTorch uses: v = momentum * v + g, x = x - lr * v.
    """
    velocity = momentum * velocity + gradient
    return value - lr * velocity, velocity


class SGD:
    """Stochastic gradient descent with momentum over a list of parameters. Robbins and Monro (1951)."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.0) -> None:
        self.parameters = list(parameters)
        if not 0 < len(set(self.parameters)) == len(self.parameters) or not 0 < lr < np.inf or not 0 <= momentum < 1:
            raise ValueError(
                f"SGD needs parameters, each once, 0 < lr < inf and 0 <= momentum < 1; got {len(self.parameters)} "
                f"parameters ({len(set(self.parameters))} different), lr={lr}, momentum={momentum}"
            )
        self.lr, self.momentum = lr, momentum
        self.velocities = [np.zeros(p.shape) for p in self.parameters]

    def step(self) -> None:
        """Move every parameter against its gradient."""
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                raise RuntimeError(f"parameter {i} of shape {p.shape} has no gradient. Call backward() on a loss first")
        for i, p in enumerate(self.parameters):
            p.data, self.velocities[i] = momentum_step(p.data, p.grad, self.velocities[i], self.lr, self.momentum)

    def zero_grad(self) -> None:
        """Forget all gradients: `backward` adds to what is there."""
        for p in self.parameters:
            p.grad = None
