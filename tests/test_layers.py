"""04_gpt2, layers.py: normalisation and the bends, by hand against PyTorch's kernels and transformers' modules.

Tolerances are for numbers of the order of 1: 1e-12 in float64, forward and backward; 2e-6 in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from glassbox.layers import (
    GELU,
    LayerNorm,
    gelu,
    gelu_slope,
    gelu_tanh,
    layer_norm,
    layer_norm_gradient,
    rms_norm,
    swiglu,
)
from hypothesis import given
from hypothesis import strategies as st
from test_attention import FORWARD, TYPES, furthest, numbers
from test_pretokens import examples
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

EXACT = 1e-12
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def rows(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, weight and bias, away from 0 and 1, that want gradients."""
    x, weight, bias = numbers(*shape), numbers(shape[-1], seed=1) + 2, numbers(shape[-1], seed=2)
    return tuple((part * 3 + 1).to(dtype).requires_grad_() for part in (x, weight, bias))  # type: ignore[return-value]


def slack(wanted: Sequence[torch.Tensor], eps: float) -> float:
    """Gradients of nearly constant rows are differences times 1 / root of eps, and so is their rounding."""
    return EXACT / math.sqrt(eps) * max(1.0, *(float(part.abs().max()) for part in wanted))


# --- normalisation ---


@examples(60)
@given(SHAPES, st.sampled_from([1e-5, 1e-2, 1.0]))
def test_layer_norm_and_its_gradient_are_torchs(shape: tuple[int, ...], eps: float) -> None:
    inputs = rows(*shape)
    ours, theirs = layer_norm(*inputs, eps), F.layer_norm(inputs[0], shape[-1:], *inputs[1:], eps)
    assert furthest([ours], [theirs]) <= EXACT
    gradient = numbers(*shape, seed=9)
    wanted = torch.autograd.grad(theirs, inputs, gradient)
    assert furthest(layer_norm_gradient(gradient, *inputs[:2], eps), wanted) <= slack(wanted, eps)
    assert furthest(torch.autograd.grad(ours, inputs, gradient), wanted) <= slack(wanted, eps)


def test_layer_norm_of_an_example_worked_by_hand() -> None:
    """Mean 4, deviations -3, -1, 1, 3, their squares' mean 5: with eps = 4 the root is 3."""
    x = torch.tensor([1.0, 3, 5, 7])
    found = layer_norm(x, torch.tensor([3.0, 3, 3, 6]), torch.tensor([0.0, 0, 10, 0]), eps=4.0)
    assert torch.equal(found, torch.tensor([-3.0, -1, 11, 6]))


@TYPES
def test_layer_norm_module_is_the_function(dtype: torch.dtype) -> None:
    model, x = LayerNorm(24).to(dtype), numbers(2, 5, 24, dtype=dtype)
    assert [(name, tuple(part.shape)) for name, part in model.named_parameters()] == [
        ("weight", (24,)),
        ("bias", (24,)),
    ]
    assert model.eps == 1e-5
    fresh = model(x)
    assert furthest([fresh.mean(-1), fresh.var(-1, unbiased=False)], [torch.zeros(2, 5), torch.ones(2, 5)]) <= 1e-4
    _, weight, bias = rows(24, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(bias)
    assert furthest([model(x)], [layer_norm(x, weight, bias)]) <= 10 * FORWARD[dtype]
    assert furthest([model(x)], [F.layer_norm(x, (24,), weight, bias)]) == 0


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4])
def test_constant_rows_become_the_bias(value: float) -> None:
    """Nothing is divided by zero, since eps stands inside the root."""
    x = torch.full((3, 8), value, dtype=torch.float64, requires_grad=True)
    weight, bias = rows(8)[1:]
    ours = layer_norm(x, weight, bias)
    assert torch.equal(ours, bias.expand(3, 8))
    gradient = numbers(3, 8)
    theirs = torch.autograd.grad(F.layer_norm(x, (8,), weight, bias), (x, weight, bias), gradient)
    assert furthest(layer_norm_gradient(gradient, x, weight), theirs) <= slack(theirs, 1e-5)
    assert all(part.isfinite().all() for part in theirs)


@pytest.mark.parametrize("size", [1e6, 1e12, 1e18])
def test_huge_rows_come_out_in_order(size: float) -> None:
    """A row and the row times a million are the same to it, also in float32, as long as the squares are finite."""
    x, (_, weight, bias) = numbers(4, 32), rows(32)
    wanted = layer_norm(x, weight, bias, eps=0.0)
    x, weight, bias = (part.detach().float() for part in (x, weight, bias))
    found = layer_norm(x * size, weight, bias)
    assert furthest([found], [wanted]) <= 1e-5
    assert furthest([found], [F.layer_norm(x * size, (32,), weight, bias)]) <= 1e-5
    small = numbers(4, 32) / size  # far below the root of eps: nearly constant, so nearly the bias
    assert furthest([layer_norm(small.float(), weight, bias)], [bias.expand(4, 32)]) <= 1e-2


def test_a_shift_and_a_scale_of_a_row_change_nothing() -> None:
    """So the gradient has no part along either: it is orthogonal to a row of ones and, but for eps, to the row."""
    x, weight, bias = rows(3, 16)
    assert furthest([layer_norm(5 * x + 7, weight, bias, 0.0)], [layer_norm(x, weight, bias, 0.0)]) <= EXACT
    dx, _, _ = layer_norm_gradient(numbers(3, 16, seed=5), x, weight, 0.0)
    assert furthest([dx.sum(-1), (dx * x).sum(-1)], [torch.zeros(3), torch.zeros(3)]) <= EXACT


@examples(40)
@given(SHAPES, st.sampled_from([1e-6, 1e-5, 0.1]))
def test_rms_norm_is_torchs_and_llamas(shape: tuple[int, ...], eps: float) -> None:
    x, weight, _ = rows(*shape)
    theirs = F.rms_norm(x, shape[-1:], weight, eps)
    llama = LlamaRMSNorm(shape[-1], eps).double()
    with torch.no_grad():
        llama.weight.copy_(weight)
    assert torch.equal(rms_norm(x, weight), rms_norm(x, weight, 1e-6))  # Llama's
    assert furthest([rms_norm(x, weight, eps)], [theirs]) <= EXACT
    rounded = llama(x.float()).double()  # transformers computes it in float32, whatever comes
    assert furthest([rms_norm(x, weight, eps)], [rounded]) <= 1e-4
    gradient = numbers(*shape, seed=9)
    found, wanted = (torch.autograd.grad(side, (x, weight), gradient) for side in (rms_norm(x, weight, eps), theirs))
    assert furthest(found, wanted) <= slack(wanted, eps)


# --- the bend ---

POINTS = torch.cat([torch.linspace(-9, 9, 2001, dtype=torch.float64), torch.tensor([-1e3, -0.0, 1e-12, 1e3])])


@pytest.mark.parametrize(("ours", "kind"), [(gelu, "none"), (gelu_tanh, "tanh")])
def test_gelu_is_torchs(ours: Callable[[torch.Tensor], torch.Tensor], kind: str) -> None:
    x = POINTS.clone().requires_grad_()
    theirs = F.gelu(x, approximate=kind)
    assert furthest([ours(x)], [theirs]) <= EXACT
    assert furthest([ours(x.float())], [theirs]) <= 2e-6
    slopes = [torch.autograd.grad(side, x, torch.ones_like(x))[0] for side in (ours(x), theirs)]
    assert furthest(slopes[:1], slopes[1:]) <= EXACT


def test_gelus_slope_is_autograds() -> None:
    x = POINTS.clone().requires_grad_()
    wanted = torch.autograd.grad(F.gelu(x, approximate="tanh").sum(), x)[0]
    assert furthest([gelu_slope(POINTS)], [wanted]) <= EXACT


def test_gelu_module_is_the_tanh_kind() -> None:
    x = numbers(3, 7)
    assert furthest([GELU()(x)], [gelu_tanh(x)]) <= EXACT
    assert furthest([GELU()(x)], [gelu(x)]) > 1e-5
    assert not list(GELU().parameters())


def test_the_two_gelus_are_close() -> None:
    """The tanh was fitted to the exact curve: less than 5e-4 apart everywhere."""
    apart = furthest([gelu_tanh(POINTS)], [gelu(POINTS)])
    assert 4e-4 < apart < 5e-4


def test_swiglu_is_llamas() -> None:
    config = LlamaConfig(hidden_size=12, intermediate_size=20, num_attention_heads=2)
    mlp: Any = LlamaMLP(config).double()
    x = numbers(2, 5, 12)
    parts = numbers(2, 5, 20, grad=True), numbers(2, 5, 20, seed=3, grad=True)
    assert furthest([mlp.down_proj(swiglu(mlp.gate_proj(x), mlp.up_proj(x)))], [mlp(x)]) <= EXACT
    theirs = F.silu(parts[0]) * parts[1]
    assert furthest([swiglu(*parts)], [theirs]) <= EXACT
    gradient = numbers(2, 5, 20, seed=9)
    found, wanted = (torch.autograd.grad(side, parts, gradient) for side in (swiglu(*parts), theirs))
    assert furthest(found, wanted) <= EXACT


@pytest.mark.parametrize("size", [0, -1, 2.0, "8", True])
def test_a_layer_norm_of_no_size_is_refused(size: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"n_embd must be .* not {size!r}"):
        LayerNorm(size)
