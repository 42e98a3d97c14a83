"""05_loss: a training step as `train_step` takes it, its parts by hand against torch's, and choosing the next token.

Both sides of a row get the same numbers, and the first call of both must give the same result. A training step is
forward, loss, backward, clipping and AdamW, without dropout. Ours has decay groups and the fused AdamW; the peer takes
torch's default AdamW as it comes, which most people run, or the fused one too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from bench_gpt2 import HF, SMALL, TINY, models, texts
from glassbox.generation import evaluating
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.loss import cross_entropy
from glassbox.optimisation import AdamW, clip_gradients
from glassbox.sampling import beam_search, repetition_penalty, sampler, temperature, top_k, top_p
from glassbox.training import TrainConfig, make_optimizer, train_step
from run import Case
from transformers.generation import logits_process

TORCH = f"torch {torch.__version__.split('+')[0]}"


def close(ours: list[torch.Tensor], theirs: list[torch.Tensor], limit: float = 1e-4) -> bool:
    return all((a - b).abs().max() <= limit * b.abs().max() for a, b in zip(ours, theirs, strict=True))


# --- a step and its parts ---


def training(config: GPTConfig, what: str, B: int, T: int, goal: float | None, fused: bool) -> Case:
    ours, theirs = models(config)
    ids = texts(config, B, T + 1)
    X, Y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    ours.train()
    theirs.train()
    optimizer = make_optimizer(ours, TrainConfig(lr=1e-4))
    peer: Any = torch.optim.AdamW(theirs.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True if fused else None)
    table = theirs.transformer.wte.weight

    def our_step() -> list[torch.Tensor]:
        loss, _, _ = train_step(ours, optimizer, [(X, Y)], clip=1.0)
        assert ours.wte.weight.grad is not None
        return [torch.tensor(loss), ours.wte.weight.grad]

    def their_step() -> list[torch.Tensor]:
        peer.zero_grad()
        loss = theirs(X, labels=Y, shift_labels=Y, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        peer.step()
        return [loss.detach(), table.grad]

    work = f"training step with train_step, {what}, B={B}, T={T}"
    return Case(work, our_step, their_step, f"{HF}, AdamW {'fused too' if fused else 'as it comes'}", goal, close)


def with_gradients(config: GPTConfig, size: float = 1.0) -> list[torch.nn.Parameter]:
    chosen = list(models(config)[0].parameters())
    generator = torch.Generator().manual_seed(2)
    for parameter in chosen:
        parameter.grad = size * torch.randn(parameter.shape, generator=generator)
    return chosen


def adamw(config: GPTConfig, what: str) -> Case:
    def step(chosen: list[torch.nn.Parameter], optimiser: Any) -> Callable[[], list[torch.Tensor]]:
        def call() -> list[torch.Tensor]:
            optimiser.step()
            return [parameter.detach() for parameter in chosen]

        return call

    ours, theirs = with_gradients(config), with_gradients(config)
    fused = torch.optim.AdamW(theirs, lr=1e-4, fused=True)
    return Case(
        f"AdamW by hand, {what}", step(ours, AdamW(ours, lr=1e-4)), step(theirs, fused), f"{TORCH}, fused", None, close
    )


def clipping(config: GPTConfig, what: str) -> Case:
    """The limit falls from call to call, so that there is something to clip each time."""

    def call(clip: Callable[..., torch.Tensor]) -> Callable[[], list[torch.Tensor]]:
        chosen = with_gradients(config)
        limit = float(clip_gradients(chosen, float("inf")))

        def once() -> list[torch.Tensor]:
            nonlocal limit
            limit *= 0.99
            return [clip(chosen, limit), *(p.grad for p in chosen if p.grad is not None)]

        return once

    ours, theirs = call(clip_gradients), call(torch.nn.utils.clip_grad_norm_)
    return Case(f"clip_gradients, {what}", ours, theirs, f"{TORCH} clip_grad_norm_", None, close)


def losses(rows: int, V: int) -> Case:
    """Forward and backward."""
    logits = 3 * torch.randn(rows, V, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(V, (rows,), generator=torch.Generator().manual_seed(1))

    def call(function: Callable[..., torch.Tensor]) -> Callable[[], list[torch.Tensor]]:
        def both() -> list[torch.Tensor]:
            z = logits.detach().requires_grad_()
            loss = function(z, targets)
            loss.backward()
            assert z.grad is not None
            return [loss.detach(), z.grad]

        return both

    work = f"cross_entropy with its gradient, {rows:,} x {V:,}"
    return Case(work, call(cross_entropy), call(F.cross_entropy), f"{TORCH} F.cross_entropy", None, close)


# --- choosing ---


def choosing(B: int, V: int, k: int | None) -> Case:
    """Filters and the draw, with the same seed: the same tokens."""
    logits = 3 * torch.randn(B, V, generator=torch.Generator().manual_seed(0))
    ids: Any = torch.randint(V, (B, 100), generator=torch.Generator().manual_seed(1))
    row = [repetition_penalty(1.1), temperature(0.8), *([top_k(k)] if k else []), top_p(0.95)]
    choose = sampler(*row)
    theirs: Any = transformers.LogitsProcessorList(
        [
            logits_process.RepetitionPenaltyLogitsProcessor(1.1),
            logits_process.TemperatureLogitsWarper(0.8),
            *([logits_process.TopKLogitsWarper(k)] if k else []),
            logits_process.TopPLogitsWarper(0.95),
        ]
    )

    def ours() -> torch.Tensor:
        torch.manual_seed(0)
        return choose(logits, ids)

    def peer() -> torch.Tensor:
        torch.manual_seed(0)
        return theirs(ids, logits).softmax(dim=-1).multinomial(1)[:, 0]

    names = f"penalty, temperature, {f'top-k {k}, ' if k else ''}top-p"
    return Case(f"next token of {V:,}, B={B}: {names}", ours, peer, f"{HF} processors", None, torch.equal)


@torch.no_grad()
def reading_again(model: GPT, ids: torch.Tensor, n: int, beams: int) -> torch.Tensor:
    """Beam search without a cache."""
    sums = torch.zeros(1)
    with evaluating(model):
        for _ in range(n):
            guesses = model.head(model.features(ids)[:, -1]).log_softmax(dim=-1)
            sums, where = (sums[:, None] + guesses).flatten().topk(beams)
            V = guesses.shape[1]
            ids = torch.cat([ids[where // V], (where % V)[:, None]], dim=1)
    return ids


def searching(config: GPTConfig, what: str, T: int, n: int, beams: int, goal: float | None, cached: bool) -> Case:
    ours, theirs = models(config)
    theirs.eval()
    ids = texts(config, 1, T)
    options: dict[str, Any] = {"num_beams": beams, "num_return_sequences": beams, "do_sample": False, "pad_token_id": 0}
    options |= {"early_stopping": "never", "length_penalty": 0.0, "attention_mask": torch.ones_like(ids)}

    def peer() -> torch.Tensor:
        return theirs.generate(ids, max_new_tokens=n, **options)

    work = f"beam search, {what}, {beams} beams, {n} tokens after {T}"
    other, name = (peer, f"{HF} generate") if cached else (lambda: reading_again(ours, ids, n, beams), "no cache")
    return Case(work, lambda: beam_search(ours, ids, n, beams)[0], other, name, goal, torch.equal)


def cases(smoke: bool) -> list[Case]:
    if smoke:
        return [
            training(TINY, "tiny", 2, 8, 1.0, fused=False),
            training(TINY, "tiny", 2, 8, None, fused=True),
            adamw(TINY, "tiny"),
            clipping(TINY, "tiny"),
            losses(20, 30),
            choosing(2, 50, 8),
            choosing(2, 50, None),
            searching(TINY, "tiny", 3, 4, 3, None, cached=True),
            searching(TINY, "tiny", 3, 4, 3, None, cached=False),
        ]
    small = "4 layers of 128"
    return [
        training(SMALL, small, 8, 256, 1.4, fused=False),
        training(SMALL, small, 8, 256, None, fused=True),
        adamw(SMALL, small),
        clipping(SMALL, small),
        losses(2048, SMALL.vocab_size),
        choosing(1, 50_257, 50),
        choosing(1, 50_257, None),
        searching(SMALL, small, 32, 128, 4, None, cached=True),
        searching(SMALL, small, 32, 128, 4, None, cached=False),
    ]
