"""What a model costs, from its sizes alone: parameters, operations, bytes. And how to measure the bytes.

Letters: B texts, T tokens each, P = block_size positions, C = n_embd, V vocabulary, L = n_layer. A multiplication and
an addition are two floating point operations (FLOPs).

Sources: Kaplan et al., Scaling Laws for Neural Language Models (2020), for the count of operations; Korthikanti et al.,
Reducing Activation Recomputation in Large Transformer Models (2022), for the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from glassbox.embeddings import check_length
from glassbox.gpt2 import GPTConfig
from glassbox.preprocessing import check_size

__all__ = [
    "activation_bytes",
    "count_parameters",
    "flops_per_token",
    "parameter_parts",
    "saved_bytes",
    "training_bytes",
]


def count_parameters(config: GPTConfig) -> int:
    """How many numbers a model of this configuration learns; a tied head counts once."""
    V, P, L, C = config.vocab_size, config.block_size, config.n_layer, config.n_embd
    attention = 4 * C * C + 4 * C  # c_attn: C to 3C, c_proj: C to C, each with its biases
    mlp = 8 * C * C + 5 * C  # c_fc: C to 4C, c_proj: 4C to C
    norm = 2 * C
    head = 0 if config.tied else V * C
    return V * C + P * C + L * (attention + mlp + 2 * norm) + norm + head


def parameter_parts(config: GPTConfig) -> dict[str, int]:
    """The same numbers by the part of the model that they belong to; together they are `count_parameters`."""
    V, P, L, C = config.vocab_size, config.block_size, config.n_layer, config.n_embd
    return {
        "wte": V * C,
        "wpe": P * C,
        "attn": L * (4 * C * C + 4 * C),
        "mlp": L * (8 * C * C + 5 * C),
        "ln": (2 * L + 1) * 2 * C,
        "lm_head": 0 if config.tied else V * C,
    }


def flops_per_token(config: GPTConfig, T: int) -> int:
    """Operations of the forward pass for one token of a text of T tokens; backward takes twice as many again.

    Every matrix number is used once a token. Attention's two products compare each token with all T, as kernels without
    a causal shortcut do. Normalisations, biases and the like are left out. ValueError for T above block_size. Source:
    Kaplan and others (2020).
    """
    _, T = check_batch(config, 1, T)
    matrices = config.n_layer * 12 * config.n_embd**2 + config.vocab_size * config.n_embd
    return 2 * matrices + config.n_layer * 2 * 2 * T * config.n_embd


def activation_bytes(config: GPTConfig, B: int, T: int, itemsize: int = 4) -> int:
    """Bytes that the forward pass and its cross-entropy keep for the backward pass, without dropout.

    A block keeps 16 C numbers a token: the stream (C) and its normalised copy (C) for each of the two parts, q, k and v
    (3C), the attention's result (C), and the MLP's inside before and after GELU (4C and 4C); besides, one number for
    each head and two for each normalisation. After the blocks come the last stream and its normalised copy, and the V
    logarithms of the loss; then how many targets it counted, and the ids, 8 bytes each. So it is with the fused kernels
    for attention and GELU, exactly in float32 and float64 (itemsize 8). ValueError for T above block_size. Source: the
    count follows Korthikanti and others (2022), who keep dropout's masks and attention's matrix too.
    """
    B, T = check_batch(config, B, T)
    C, V = config.n_embd, config.vocab_size
    streams, copies, mlp = 2 * C, 2 * C, 8 * C  # before and after each normalisation; before and after GELU
    attention = 3 * C + C + config.n_head  # q, k, v; the result; a number for each head
    block = streams + copies + attention + mlp + 2 * 2  # and two numbers for each normalisation
    numbers = B * T * (config.n_layer * block + 2 * C + 2 + V) + 1
    ids = 2 * B * T + T  # inputs, targets, positions
    return check_size("itemsize", itemsize) * numbers + 8 * ids


def training_bytes(config: GPTConfig, B: int, T: int) -> dict[str, int]:
    """Bytes of one training step on B texts of T tokens in float32 with AdamW, by what they are for."""
    weights = 4 * count_parameters(config)
    return {
        "weights": weights,
        "gradients": weights,
        "optimiser": 2 * weights,  # AdamW keeps two running means of every number
        "activations": activation_bytes(config, B, T),
    }


def saved_bytes(call: Callable[[], Any], without: Iterable[torch.Tensor] = ()) -> int:
    """Bytes of all tensors that autograd keeps while `call` runs, each piece of memory once.

    `call` returns what hangs on the graph, such as the loss. `without`: tensors that are kept anyway and do not count,
    such as the model's parameters. Tensors on meta take no memory and count for nothing.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in without}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()  # held until here: memory that is given back could be counted twice
    del result
    return sum(kept.values())


# --- what is refused ---


def check_batch(config: GPTConfig, B: int, T: int) -> tuple[int, int]:
    """B and T as ints. ValueError where there is no text or the model cannot read one of T tokens."""
    B, T = check_size("B", B), check_size("T", T)
    check_length(T, config.block_size)
    return B, T
