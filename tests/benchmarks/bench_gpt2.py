"""04_gpt2: a training step and cached generation, against transformers' GPT2LMHeadModel with the same weights.

A step is forward, loss, backward and AdamW, no dropout, and both sides see the same texts. The first call of both sides
must give the same loss and gradients, or the same tokens; else the row is refused. Ours takes the fused AdamW, as the
course does; the peer takes it too, or torch's default as it comes, which most people run. `gpt2_memory.py` measures
memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from glassbox.generation import generate
from glassbox.gpt2 import GPT, GPTConfig
from run import Case
from transformers import GPT2Config, GPT2LMHeadModel

HF = f"transformers {transformers.__version__}"
FULL, SMALL = GPTConfig(), GPTConfig.preset("tales")
TINY = GPTConfig(vocab_size=20, block_size=16, n_layer=2, n_head=2, n_embd=8)


def models(config: GPTConfig) -> tuple[GPT, Any]:
    """Ours and theirs, with GPT-2's initialisation and the same weights, each in memory of its own."""
    torch.manual_seed(0)
    ours = GPT(config)
    sizes = {name: getattr(config, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
    off = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
    theirs: Any = GPT2LMHeadModel(
        GPT2Config(**sizes, **off, n_positions=config.block_size, bos_token_id=0, eos_token_id=0)
    )
    state = {f"transformer.{name}": part for name, part in ours.state_dict().items()}
    state = {name: part.T if part.ndim == 2 and ".h." in name else part for name, part in state.items()}
    theirs.load_state_dict({**state, "lm_head.weight": ours.wte.weight})
    theirs.generation_config.eos_token_id = None
    return ours, theirs


def texts(config: GPTConfig, B: int, T: int) -> torch.Tensor:
    return torch.randint(config.vocab_size, (B, T), generator=torch.Generator().manual_seed(1))


# --- training ---


def step(
    model: Any, loss: Callable[[], torch.Tensor], table: torch.nn.Parameter, **options: Any
) -> Callable[[], list[torch.Tensor]]:
    """One step of training; returns the loss and the gradient of the token table, which every part has a share in."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, **options)

    def call() -> list[torch.Tensor]:
        optimiser.zero_grad(set_to_none=True)
        found = loss()
        found.backward()
        optimiser.step()
        assert table.grad is not None
        return [found.detach(), table.grad]

    return call


def losses(config: GPTConfig, B: int, T: int) -> tuple[Any, ...]:
    """Both models, and a function for each that gives the mean loss of the next tokens of B texts of T."""
    ours, theirs = models(config)
    ids = texts(config, B, T + 1)
    x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    return (
        ours,
        theirs,
        lambda: F.cross_entropy(ours(x).flatten(0, 1), y.flatten()),
        lambda: theirs(x, labels=y, shift_labels=y, use_cache=False).loss,
    )


def close(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all((a - b).abs().max() <= 1e-4 * b.abs().max() for a, b in zip(ours, theirs, strict=True))


def training(config: GPTConfig, what: str, B: int, T: int, goal: float | None, fused: bool = True) -> Case:
    """Ours with the fused AdamW, theirs with it too, or with the default one, which people mostly run."""
    ours, theirs, our_loss, their_loss = losses(config, B, T)
    our_step = step(ours, our_loss, ours.wte.weight, fused=True)
    their_step = step(theirs, their_loss, theirs.transformer.wte.weight, fused=True if fused else None)
    work, peer = f"training step, {what}, B={B}, T={T}", f"{HF}, AdamW {'fused too' if fused else 'as it comes'}"
    return Case(work, our_step, their_step, peer, goal, close)


# --- generation ---


@cache
def shared(config: GPTConfig) -> tuple[GPT, Any]:
    """Writing changes no weights, so one pair of models serves all its rows."""
    return models(config)


def writing(config: GPTConfig, what: str, B: int, T: int, n: int, goal: float | None) -> Case:
    ours, theirs = shared(config)
    ids = texts(config, B, T)
    everything = torch.ones_like(ids)

    def their_way() -> torch.Tensor:
        return theirs.generate(ids, attention_mask=everything, max_new_tokens=n, do_sample=False, pad_token_id=0)

    theirs.eval()
    work = f"cached generation, {what}, B={B}, {n} tokens after {T}"
    return Case(work, lambda: generate(ours, ids, n), their_way, f"{HF} generate", goal, torch.equal)


def without_cache(config: GPTConfig, what: str, T: int, n: int, goal: float) -> Case:
    ours, ids = shared(config)[0], texts(config, 1, T)
    work = f"cached generation, {what}, B=1, {n} tokens after {T}"
    again = lambda: generate(ours, ids, n, cached=False)  # noqa: E731
    return Case(work, lambda: generate(ours, ids, n), again, "no cache", goal, torch.equal)


def cases(smoke: bool) -> list[Case]:
    if smoke:
        return [
            training(TINY, "tiny", 2, 8, 1.0),
            training(TINY, "tiny", 2, 8, None, fused=False),
            writing(TINY, "tiny", 2, 4, 6, 1.0),
            without_cache(TINY, "tiny", 4, 6, 1.0),
        ]
    small = "4 layers of 128"
    return [
        training(FULL, "124M", 2, 256, 1.35, fused=False),
        training(FULL, "124M", 2, 256, None),
        training(SMALL, small, 8, 256, 1.4, fused=False),
        training(SMALL, small, 8, 256, None),
        writing(FULL, "124M", 1, 16, 256, 1.1),
        writing(FULL, "124M", 8, 16, 256, 1.3),
        without_cache(FULL, "124M", 16, 256, 4.5),
        writing(SMALL, small, 1, 16, 256, None),
    ]
