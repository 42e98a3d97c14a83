"""The two small parts of a block that work on one token's numbers alone: normalisation and the bend between matrices.

Each stands here twice: by hand, as a function that shows the formula, and as a module that calls PyTorch's kernel. The
gradients are written out too, as `README.md` derives them. C = n_embd channels, the last axis everywhere.

Sources: Ba, Kiros and Hinton, Layer Normalization (2016); Hendrycks and Gimpel, Gaussian Error Linear Units (2016);
Zhang and Sennrich, Root Mean Square Layer Normalization (2019); Shazeer, GLU Variants Improve Transformer (2020).
"""

from __future__ import annotations

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.preprocessing import check_size

__all__ = [
    "GELU",
    "LayerNorm",
    "gelu",
    "gelu_slope",
    "gelu_tanh",
    "layer_norm",
    "layer_norm_gradient",
    "rms_norm",
    "swiglu",
]


# --- normalisation ---


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """Each token's C numbers moved to mean 0 and variance 1, then stretched and shifted: (..., C) -> (..., C).

    weight and bias: (C,). The variance divides by C, and eps stands inside the root. For float32 and float64: the
    kernel of `LayerNorm` also knows how to take shorter numbers. Source: Ba and others (2016).
    """
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    return centred / (variance + eps).sqrt() * weight + bias


def layer_norm_gradient(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the gradient of layer_norm's result makes of x, weight and bias: (..., C) -> (..., C), (C,), (C,)."""
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = ((centred**2).mean(dim=-1, keepdim=True) + eps).sqrt()  # (..., 1)
    normal = centred / deviation
    g = gradient * weight
    along = g.mean(dim=-1, keepdim=True) + normal * (g * normal).mean(dim=-1, keepdim=True)
    weights, biases = (part.reshape(-1, x.shape[-1]).sum(dim=0) for part in (gradient * normal, gradient))  # all tokens
    return (g - along) / deviation, weights, biases


class LayerNorm(nn.Module):
    """`layer_norm` with its two learned rows, by PyTorch's kernel: (..., n_embd) -> (..., n_embd)."""

    def __init__(self, n_embd: int, eps: float = 1e-5) -> None:
        super().__init__()
        n_embd = check_size("n_embd", n_embd)
        self.weight, self.bias = nn.Parameter(torch.ones(n_embd)), nn.Parameter(torch.zeros(n_embd))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each token."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Each token divided by the root of the mean of its squares, then stretched; no mean is taken off (2019)."""
    return x / (x**2).mean(dim=-1, keepdim=True).add(eps).sqrt() * weight


# --- the bend ---


def gelu(x: torch.Tensor) -> torch.Tensor:
    """x times the probability that a standard normal number is below x. Source: Hendrycks and Gimpel (2016)."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """GPT-2's GELU: the probability is approximated by a tanh, which was faster than erf in 2019."""
    return x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_slope(x: torch.Tensor) -> torch.Tensor:
    """The derivative of `gelu_tanh` at x."""
    t = torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner


class GELU(nn.Module):
    """`gelu_tanh` by PyTorch's kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Bend every number."""
        return F.gelu(x, approximate="tanh")


def swiglu(gate: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The value, let through by a gate: gate * sigmoid(gate) * value. Source: Shazeer (2020)."""
    return gate * torch.sigmoid(gate) * value
