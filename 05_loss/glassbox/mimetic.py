"""A start in which attention already looks for what is alike and hands it on.

GPT-2 starts from small random numbers, and heads that copy have to be found by chance. Here queries and keys of a head
agree from the start, and what value takes apart, output puts together again. A small model then finds out how to copy
many times sooner (`tests/benchmarks/start_study.py` measures it). It is a variant of what is known as mimetic
initialisation, which was made for models of images and has the opposite sign for value and output.

Source: Trockman and Kolter, Mimetic Initialization of Self-Attention Layers (2023).
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
import torch.nn as nn
from glassbox.gpt2 import GPT

__all__ = ["mimetic_start"]


@torch.no_grad()
def mimetic_start(model: GPT, alike: float = 0.8, noise: float = 0.08, table: float = 0.1) -> GPT:
    """Give a GPT this start in place, and return it. Draws from torch's global dice.

    alike: how strongly a head's queries equal its keys; noise: the deviation of what is random in the matrices; table:
    the deviation of the token table. Positions start as sines and cosines, so that neighbours are alike (Vaswani et
    al., 2017); an untied head, biases and normalisations keep the start they have. Raises TypeError for what is no GPT,
    ValueError for a number below 0 or not finite.
    """
    blocks = check_start(model, alike=alike, noise=noise, table=table)
    C, nh = model.config.n_embd, model.config.n_head
    nn.init.normal_(model.wte.weight, std=table)
    turns = torch.arange(model.config.block_size)[:, None] / 1000 ** (torch.arange(0, C, 2) / C)  # (block_size, C / 2)
    model.wpe.weight.copy_(table * math.sqrt(2) * torch.cat([turns.sin(), turns.cos()], dim=1)[:, :C])
    for block in blocks:
        attn, mlp = block.attn, block.mlp
        for linear, size in ((attn.c_attn, noise), (mlp.c_fc, noise), (mlp.c_proj, noise / 2)):
            nn.init.normal_(linear.weight, std=size)
        query, key, value = attn.c_attn.weight.split(C)  # each (C, C): rows are channels of the heads
        for q, k in zip(query.split(C // nh), key.split(C // nh), strict=True):
            same = alike * rotation(q)[: C // nh]  # (hs, C)
            q += same
            k += same
        turn = rotation(value)
        value.copy_(turn)
        attn.c_proj.weight.copy_(turn.T)  # output undoes value: what is looked at is handed on as it is
    return model


def rotation(weight: torch.Tensor) -> torch.Tensor:
    """A random rotation or reflection (C, C) for a weight (..., C), on its device, in float32 at least."""
    C, dtype = weight.shape[-1], torch.promote_types(weight.dtype, torch.float32)
    return nn.init.orthogonal_(torch.empty(C, C, dtype=dtype, device=weight.device))


# --- what is refused ---


def check_start(model: Any, **numbers: Any) -> Any:
    """The model's blocks. Raises for what is no GPT, and for a number below 0 or not finite."""
    if not all(hasattr(model, name) for name in ("wte", "wpe", "h", "config")):
        raise TypeError(f"model must be a GPT, not {type(model).__name__}: the start is made for its tables and blocks")
    for name, value in numbers.items():
        if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
            raise ValueError(f"{name} must be 0 or more, and finite, not {value!r}")
    return model.h
