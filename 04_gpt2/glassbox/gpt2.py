"""GPT-2, whole: two tables, a stack of blocks, a last normalisation, and the first table again as the head.

Every parameter has the name that it has in OpenAI's checkpoint. The matrices of the linear layers lie as PyTorch keeps
them, (out, in); the checkpoint has them the other way round. Letters: B batch, T time, C = n_embd channels, V
vocabulary.

Source: Radford et al., Language Models are Unsupervised Multitask Learners (2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.attention import CausalSelfAttention, KVCache, check_division
from glassbox.embeddings import Embeddings, check_dropout, check_length
from glassbox.layers import GELU, LayerNorm
from glassbox.preprocessing import check_ids, check_size

__all__ = ["GPT", "MLP", "PRESETS", "Block", "GPTConfig", "initialise"]

PRESETS: dict[str, dict[str, int]] = {
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "gpt2-medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "gpt2-large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "gpt2-xl": {"n_layer": 48, "n_head": 25, "n_embd": 1600},
    "tales": {"vocab_size": 2048, "block_size": 512, "n_layer": 4, "n_head": 4, "n_embd": 128},
    "tiny": {"vocab_size": 2048, "block_size": 256, "n_layer": 2, "n_head": 2, "n_embd": 64},
}
FIX = "make new ones with model.new_caches()"
CACHED = ("batch size", "n_head", "head size", "type", "device")  # what a cache and a call must have in common


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a model. As they stand here they are those of the smallest GPT-2, of 124 million parameters.

    vocab_size V, block_size (the longest text in tokens), n_layer blocks, n_head heads a block, n_embd C channels;
    dropout: the share of numbers dropped in training; tied: the head is the token table itself.
    TypeError and ValueError for sizes that are no whole numbers above 0 or do not go together.
    """

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    tied: bool = True

    def __post_init__(self) -> None:
        check_config(self)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> GPTConfig:
        """The model of this name in PRESETS, with changes: `GPTConfig.preset("gpt2", tied=False)`."""
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"there is no model called {name!r}; there are: {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})


class MLP(nn.Module):
    """Each token's numbers to four times as many, bent, and back: (B, T, n_embd) -> (B, T, n_embd)."""

    def __init__(self, n_embd: int, dropout: float = 0.0) -> None:
        super().__init__()
        n_embd = check_size("n_embd", n_embd)
        self.c_fc = nn.Linear(n_embd, 4 * n_embd)
        self.act = GELU()
        self.c_proj = nn.Linear(4 * n_embd, n_embd)
        self.dropout = nn.Dropout(check_dropout(dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Work on every token alone."""
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class Block(nn.Module):
    """One layer: each part reads a normalised copy of the stream and adds what it found (pre-norm).

    (B, T, n_embd) -> (B, T, n_embd).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config.n_embd, config.n_head, config.block_size, config.dropout)
        self.ln_2 = LayerNorm(config.n_embd)
        self.mlp = MLP(config.n_embd, config.dropout)

    def forward(self, x: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        """Tokens look at each other, then each thinks alone. `cache`: this layer's keys and values so far."""
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class GPT(Embeddings):
    """GPT-2: ids (B, T) -> the scores (logits) of every possible next token, (B, T, vocab_size).

    It is 02's Embeddings with a stack of blocks on top, so that its parameters are called as in OpenAI's checkpoint:
    `wte.weight`, `wpe.weight`, `h.0.ln_1.weight` ... `ln_f.bias`, and `lm_head.weight` only where it is not tied.
    """

    def __init__(self, config: GPTConfig) -> None:
        config = check_kind(config)
        super().__init__(config.vocab_size, config.block_size, config.n_embd, config.dropout)
        self.config = config
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd)
        self.lm_head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        initialise(self)

    def features(self, ids: torch.Tensor, caches: Sequence[KVCache] | None = None) -> torch.Tensor:
        """What the model knows at each token before the head asks it: ids (B, T) -> (B, T, n_embd).

        With caches, one for each block, ids are the tokens after those that the caches hold, and they take them in.
        TypeError or ValueError, before anything is computed, for ids outside the vocabulary or not (B, T), more tokens
        than block_size, and caches of another model or batch (under torch.compile for uneven or missing caches only).
        Where a call with caches is interrupted, make new ones: they may have taken in some of its tokens.
        """
        past = check_call(self, ids, caches)
        x = super().forward(ids, past)
        for i, block in enumerate(self.h):
            x = block(x, caches[i] if caches else None)
        return self.ln_f(x)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """Features to logits: (..., n_embd) -> (..., vocab_size). Tied: how well x fits each token's own vector."""
        return F.linear(x, self.wte.weight) if self.lm_head is None else self.lm_head(x)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # a model takes caches, its first layer an offset
        self, ids: torch.Tensor, caches: Sequence[KVCache] | None = None
    ) -> torch.Tensor:
        """The logits after every token: ids (B, T) -> (B, T, vocab_size). Errors as of `features`."""
        return self.head(self.features(ids, caches))

    def new_caches(self, length: int | None = None) -> list[KVCache]:
        """An empty cache for each block, with room for `length` tokens (None: block_size)."""
        return [KVCache(self.config.block_size if length is None else length) for _ in self.h]


def initialise(model: nn.Module) -> None:
    """GPT-2's start: matrices normal with deviation 0.02, biases 0, the factors of normalisations 1.

    What a block adds to the stream (`c_proj`) is smaller by the root of the number of additions, two a block.
    """
    additions = sum(name.endswith("c_proj.weight") for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02 / additions**0.5 if name.endswith("c_proj.weight") else 0.02)
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)


# --- what is refused ---


def check_kind(config: Any) -> GPTConfig:
    """The configuration, if it is one. (The notebook has a GPTConfig of its own: what counts is that it has sizes.)"""
    if not all(hasattr(config, name) for name in GPTConfig.__annotations__):
        raise TypeError(f"config must be a GPTConfig, not {config!r}: write GPTConfig.preset('gpt2') or GPTConfig(...)")
    return config


def check_config(config: GPTConfig) -> None:
    """Sizes as Python's own ints, and errors for what is no size or does not go together."""
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
        object.__setattr__(config, name, check_size(name, getattr(config, name)))
    check_division(config.n_embd, config.n_head)
    object.__setattr__(config, "dropout", check_dropout(config.dropout))
    if not isinstance(config.tied, bool):
        raise TypeError(f"tied must be True or False, not {config.tied!r}")


def check_call(model: GPT, ids: torch.Tensor, caches: Sequence[KVCache] | None = None) -> int:
    """How many tokens the caches hold. Raises for ids and caches that do not fit the model or each other."""
    if caches is not None:
        check_number_of_caches(model, caches)
    if torch.compiler.is_compiling():
        return caches[0].length if caches else 0
    check_ids(ids, model.config.vocab_size)
    if ids.ndim != 2 or not ids.shape[0]:
        raise ValueError(f"ids have the shape {tuple(ids.shape)}; they must be (B, T): write ids[None] for one text")
    if ids.device != model.wte.weight.device:
        raise ValueError(f"ids are on {ids.device}, the model is on {model.wte.weight.device}: move one with .to(...)")
    past = 0 if caches is None else check_caches(model, ids, caches)
    return check_length(ids.shape[1], model.config.block_size, past)


def check_number_of_caches(model: GPT, caches: Sequence[KVCache]) -> None:
    """Raises unless there is one for each block and all hold as many tokens; under torch.compile too."""
    if not isinstance(caches, list | tuple) or not all(isinstance(cache, KVCache) for cache in caches):
        raise TypeError(f"caches must be a list of KVCache, one for each block, not {caches!r}: {FIX}")
    if len(caches) != model.config.n_layer:
        raise ValueError(f"{len(caches)} caches for n_layer = {model.config.n_layer} blocks: {FIX}")
    if any(cache.length != caches[0].length for cache in caches):
        raise ValueError(f"the caches hold {[cache.length for cache in caches]} tokens, not all the same: {FIX}")


def check_caches(model: GPT, ids: torch.Tensor, caches: Sequence[KVCache]) -> int:
    """How many tokens each cache holds. Raises where they are not this model's and batch's, or not all alike."""
    config, weight = model.config, model.wte.weight
    if len(set(map(id, caches))) != config.n_layer:
        raise ValueError(f"{len(set(map(id, caches)))} caches for n_layer = {config.n_layer} blocks: {FIX}")
    if torch.is_grad_enabled() and any(part.requires_grad for part in [weight, *model.h.parameters()]):
        raise ValueError("caches keep no gradients: generate under torch.no_grad(), and train without caches")
    autocast = torch.is_autocast_enabled(weight.device.type) and weight.dtype != torch.float64  # which it leaves alone
    dtype = torch.get_autocast_dtype(weight.device.type) if autocast else weight.dtype
    expected = (ids.shape[0], config.n_head, config.n_embd // config.n_head, dtype, weight.device)
    for i, cache in enumerate(caches):
        check_length(ids.shape[1], cache.block_size, cache.length)
        if cache.keys is None:
            continue
        B, nh, _, hs = cache.keys.shape
        held = (B, nh, hs, cache.keys.dtype, cache.keys.device)
        for what, found, needed in zip(CACHED, held, expected, strict=True):
            if found != needed:
                raise ValueError(f"cache {i} holds {what} {found}, this call has {needed}: {FIX}")
    return caches[0].length
