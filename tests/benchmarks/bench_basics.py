"""00_basics: the engine against torch, and a matrix product in Python loops against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from glassbox.basics import SGD, Network, mean_surprise
from run import Case


def engine_step(X: np.ndarray, y: np.ndarray, sizes: tuple[int, ...]) -> Callable[[], float]:
    net = Network(sizes, "relu")
    optimiser = SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def step() -> float:
        optimiser.zero_grad()
        loss = mean_surprise(net(X), y)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def torch_step(X: np.ndarray, y: np.ndarray, sizes: tuple[int, ...]) -> Callable[[], float]:
    layers: list[torch.nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1]).double()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    inputs, targets = torch.from_numpy(X), torch.from_numpy(y)

    def step() -> float:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def matmul_loops(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    C = np.zeros((A.shape[0], B.shape[1]))
    for i in range(A.shape[0]):
        for j in range(B.shape[1]):
            for k in range(A.shape[1]):
                C[i, j] += A[i, k] * B[k, j]
    return C


def cases(smoke: bool) -> list[Case]:
    rng = np.random.default_rng(0)
    sizes, B, n = ((20, 8, 5), 8, 8) if smoke else ((584, 256, 73), 128, 64)
    X, y = rng.normal(size=(B, sizes[0])), rng.integers(sizes[-1], size=B)
    left, right = rng.normal(size=(n, n)), rng.normal(size=(n, n))
    name = "-".join(map(str, sizes))
    return [
        Case(
            f"engine: training step, float64, {name}, B={B}", engine_step(X, y, sizes), torch_step(X, y, sizes), "torch"
        ),
        Case(
            f"matrix product {n} x {n}: NumPy",
            lambda: left @ right,
            lambda: matmul_loops(left, right),
            "three Python loops",
            goal=100.0,
            same=np.allclose,
        ),
    ]
