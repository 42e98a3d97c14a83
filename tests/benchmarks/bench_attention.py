"""03_attention: attention with and without its whole matrix, the layer of GPT-2, a cache, and recurrent networks.

Peers are PyTorch's scaled_dot_product_attention, MultiheadAttention, RNN and LSTM, and transformers' GPT2Attention, all
with the same numbers or the same weights: a row whose answers differ is refused. `attention_memory.py` measures the
memory, and how it grows with the length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from glassbox.attention import CausalSelfAttention, KVCache, attention, causal_mask
from glassbox.flash import flash_attention
from glassbox.recurrent import LSTM, RNN
from run import Case
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

SDPA = "torch SDPA"
HF = f"transformers {transformers.__version__} GPT2Attention"


def close(ours: Any, theirs: Any) -> bool:
    """Whether both are the same numbers, up to rounding, relative to the largest."""
    pairs = [(ours, theirs)] if isinstance(ours, torch.Tensor) else list(zip(ours, theirs, strict=True))
    return all((a - b).abs().max() <= 1e-4 * b.abs().max() for a, b in pairs)


# --- attention alone ---


def kernels(smoke: bool) -> list[Case]:
    T = 16 if smoke else 4096
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, T, 64, generator=generator, requires_grad=True) for _ in range(3))
    gradient = torch.randn(q.shape, generator=generator)

    def forward(side: Callable[..., torch.Tensor], **arguments: Any) -> Callable[[], torch.Tensor]:
        @torch.no_grad()
        def call() -> torch.Tensor:
            return side(q, k, v, **arguments)

        return call

    def both(side: Callable[..., torch.Tensor], **arguments: Any) -> Callable[[], Sequence[torch.Tensor]]:
        return lambda: torch.autograd.grad(side(q, k, v, **arguments), (q, k, v), gradient)

    def case(what: str, ours: Callable[[], Any], peer: Callable[[], Any], name: str, goal: float | None) -> Case:
        return Case(f"{what}, T={T:,}, 4 heads of 64", ours, peer, name, goal, close)

    sdpa, tiled, causal, third = F.scaled_dot_product_attention, flash_attention, {"is_causal": True}, 1 / 3
    there, back = "flash_attention forward", "flash_attention forward and backward, causal"
    plain = both(attention, mask=causal_mask(T))
    return [
        case("attention forward", forward(attention), forward(sdpa), SDPA, None),
        case(there, forward(tiled), forward(sdpa), SDPA, third),
        case(there, forward(tiled), forward(attention), "attention", 1.0),
        case(f"{there}, causal", forward(tiled, **causal), forward(sdpa, **causal), SDPA, third),
        case(back, both(tiled, **causal), both(sdpa, **causal), SDPA, third),
        case(back, both(tiled, **causal), plain, "attention", 1.0),
    ]


# --- the layer ---


def trained(
    model: torch.nn.Module, call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> Callable[[], list[torch.Tensor]]:
    """One forward and backward pass; returns the result and the gradient of the input."""

    def step() -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        inputs = x.detach().requires_grad_()
        result = call(inputs)
        result.backward(torch.ones_like(result))
        assert inputs.grad is not None
        return [result.detach(), inputs.grad]

    return step


def layers(smoke: bool) -> list[Case]:
    B, T, C, nh = (1, 4, 8, 2) if smoke else (2, 256, 768, 12)
    torch.manual_seed(0)
    model, x = CausalSelfAttention(C, nh, T), torch.randn(B, T, C)
    config = GPT2Config(n_embd=C, n_head=nh, n_positions=T, attn_pdrop=0.0, resid_pdrop=0.0)
    config._attn_implementation = "sdpa"
    gpt2 = GPT2Attention(config, layer_idx=0)
    gpt2.load_state_dict({name: part.T if part.ndim == 2 else part for name, part in model.state_dict().items()})
    heads = torch.nn.MultiheadAttention(C, nh, batch_first=True)
    with torch.no_grad():
        own = (heads.in_proj_weight, heads.in_proj_bias, heads.out_proj.weight, heads.out_proj.bias)
        for to, part in zip(own, model.parameters(), strict=True):
            to.copy_(part)
    forbidden = ~causal_mask(T)
    ours = trained(model, model, x)
    work = f"CausalSelfAttention forward and backward, B={B}, T={T}, C={C}"
    torchs = trained(heads, lambda x: heads(x, x, x, attn_mask=forbidden, is_causal=True, need_weights=False)[0], x)
    return [
        Case(work, ours, trained(gpt2, lambda x: gpt2(x)[0], x), HF, 0.9, close),
        Case(work, ours, torchs, "torch MultiheadAttention", 1.0, close),
    ]


def decoding(smoke: bool) -> Case:
    """Token after token, with the keys and values of the past kept, and with all computed again each time."""
    T, C, nh = (4, 8, 2) if smoke else (256, 768, 12)
    torch.manual_seed(0)
    model, x = CausalSelfAttention(C, nh, T), torch.randn(1, T, C)

    @torch.no_grad()
    def cached() -> torch.Tensor:
        cache = KVCache(T)
        return torch.cat([model(token, cache) for token in x.split(1, dim=1)], dim=1)

    @torch.no_grad()
    def again() -> torch.Tensor:
        return torch.cat([model(x[:, : t + 1])[:, -1:] for t in range(T)], dim=1)

    return Case(f"KVCache: {T} tokens, one at a time, C={C}", cached, again, "no cache", 4.5, close)


# --- recurrent networks ---


def recurrent(smoke: bool) -> list[Case]:
    B, T, C = (2, 3, 4) if smoke else (32, 128, 256)
    torch.manual_seed(0)
    x, found = torch.randn(B, T, C), []
    for ours, theirs in ((RNN(C, C), torch.nn.RNN), (LSTM(C, C), torch.nn.LSTM)):
        peer = theirs(C, C, batch_first=True)
        peer.load_state_dict(ours.state_dict())
        sides = [trained(net, lambda x, net=net: net(x)[0], x) for net in (ours, peer)]
        name = type(ours).__name__
        work = f"{name} forward and backward, B={B}, T={T}, {C} to {C}"
        found.append(Case(work, sides[0], sides[1], f"torch {name}", same=close))
    return found


def cases(smoke: bool) -> list[Case]:
    return [*kernels(smoke), *layers(smoke), decoding(smoke), *recurrent(smoke)]
