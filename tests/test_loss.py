"""05_loss, loss.py: cross-entropy and its gradient against torch and against 00's engine; units; the mean over batches.

Tolerances, relative to the largest number of a tensor, 1 at least: 2e-6 in float32, 1e-13 in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.basics import mean_surprise, surprise_gradient
from glassbox.engine import Tensor
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.loss import bits_per_byte, cross_entropy, cross_entropy_gradient, mean_loss, perplexity
from glassbox.preprocessing import IGNORE
from hypothesis import given, settings
from hypothesis import strategies as st

CLOSE = {torch.float32: 2e-6, torch.float64: 1e-13}
TYPES = pytest.mark.parametrize("dtype", CLOSE, ids=["float32", "float64"])


def scored(
    shape: tuple[int, ...], V: int, seed: int = 0, size: float = 3.0, left_out: float = 0.3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (float64) and targets, a share of which do not count."""
    generator = torch.Generator().manual_seed(seed)
    logits = size * torch.randn(*shape, V, generator=generator, dtype=torch.float64)
    targets = torch.randint(V, shape, generator=generator)
    return logits, targets.masked_fill(torch.rand(shape, generator=generator) < left_out, IGNORE)


def torchs(logits: torch.Tensor, targets: torch.Tensor, ignore_index: int = IGNORE) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore_index)


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    found, wanted = found.detach(), wanted.detach()
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    size = max(1.0, float(wanted.abs().max()))
    assert float((found - wanted).abs().max()) <= CLOSE[wanted.dtype] * size


@TYPES
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 9),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1.0, 30.0, 1e4]),
)
def test_loss_and_gradient_are_torchs(dtype: torch.dtype, shape: list[int], V: int, seed: int, size: float) -> None:
    """Any number of axes; logits from all equal to so large that their exponentials overflow."""
    logits, targets = scored(tuple(shape), V, seed, size)
    if not (targets != IGNORE).any():
        targets.flatten()[0] = 0
    ours, theirs = (logits.to(dtype, copy=True).requires_grad_() for _ in range(2))
    found, wanted = cross_entropy(ours, targets), torchs(theirs, targets)
    assert_close(found, wanted)
    found.backward()
    wanted.backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert_close(ours.grad, theirs.grad)
    assert_close(cross_entropy_gradient(logits.to(dtype), targets), theirs.grad)
    assert not cross_entropy_gradient(logits.to(dtype), targets)[targets == IGNORE].any()


@TYPES
def test_huge_logits_give_the_number_that_they_mean(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4 + 1, -1e4], [3e4, 3e4, 3e4]], dtype=dtype)
    right = 2e4, math.log(2 + math.e), math.log(3)
    for i, nats in enumerate(right):
        found = cross_entropy(logits[i : i + 1], torch.tensor([1 if i == 0 else 0]))
        assert abs(found.item() - nats) <= 1e-5 * nats if dtype == torch.float32 else 1e-12 * nats
    assert cross_entropy(logits[:1], torch.tensor([0])).item() == 0
    assert cross_entropy_gradient(logits, torch.tensor([0, 1, 2])).isfinite().all()
    assert not (logits.exp() / logits.exp().sum(-1, keepdim=True)).isfinite().all()  # what the plain formula gives


def test_forbidden_tokens() -> None:
    """-infinity is a token that cannot come; where it comes all the same, the surprise is infinite."""
    logits = torch.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0]))
    assert abs(loss.item() - math.log(2)) < 1e-6
    loss.backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.tensor([[-0.5, 0.0, 0.5]]))
    assert cross_entropy(logits, torch.tensor([1])).item() == math.inf


def test_what_does_not_count_is_not_looked_at() -> None:
    logits, targets = scored((4, 3), 6)
    targets[2] = IGNORE
    clean = cross_entropy(logits, targets)
    logits[2] = math.nan
    logits.requires_grad_()
    found = cross_entropy(logits, targets)
    assert torch.equal(found.detach(), clean)
    found.backward()
    assert logits.grad is not None
    assert not logits.grad[2].any()
    assert not cross_entropy_gradient(logits.detach(), targets)[2].any()
    assert logits.grad.isfinite().all()


def test_any_number_may_stand_for_what_does_not_count() -> None:
    logits, targets = scored((20,), 6, left_out=0)
    assert_close(cross_entropy(logits, targets, 3), torchs(logits, targets, 3))
    assert_close(cross_entropy(logits, targets.int()), torchs(logits, targets))
    logits.requires_grad_()
    (wanted,) = torch.autograd.grad(torchs(logits, targets, 3), logits)
    assert_close(cross_entropy_gradient(logits, targets.int(), 3), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    logits, targets = scored((500,), 2000)
    logits = logits.to(dtype)
    found = cross_entropy(logits, targets)
    assert found.dtype == torch.float32
    assert_close(found, torchs(logits.float(), targets))


def test_the_gradient_is_that_of_00s_engine() -> None:
    """The course's own automatic differentiation, and its formula of 00, agree to 1e-12 in float64."""
    logits, targets = scored((7,), 5, seed=3, left_out=0)
    ours = Tensor(logits.numpy(), requires_grad=True)
    shifted = ours - logits.numpy().max(axis=1, keepdims=True)
    surprises = shifted.exp().sum(axis=1).log() - shifted[np.arange(7), targets.numpy()]
    loss = surprises.mean()
    loss.backward()
    found = cross_entropy_gradient(logits, targets).numpy()
    assert ours.grad is not None
    np.testing.assert_allclose(found, ours.grad, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found, surprise_gradient(logits.numpy(), targets.numpy()), rtol=0, atol=1e-12)
    assert abs(cross_entropy(logits, targets).item() - loss.item()) < 1e-12
    assert abs(loss.item() - mean_surprise(ours, targets.numpy()).item()) < 1e-12


# --- units ---


def test_perplexity() -> None:
    assert abs(perplexity(math.log(50)) - 50) < 1e-12
    assert perplexity(0.0) == 1
    assert perplexity(709.5) == perplexity(1e4) == perplexity(math.inf) == math.inf
    assert math.isnan(perplexity(math.nan))
    uniform = cross_entropy(torch.zeros(3, 17), torch.tensor([1, 2, 3]))
    assert abs(perplexity(float(uniform)) - 17) < 1e-4


def test_bits_per_byte() -> None:
    """A uniform guess among 256 bytes costs 8 bits a byte; tokens of four bytes cost a quarter of their bits each."""
    assert abs(bits_per_byte(math.log(256), 10, 10) - 8) < 1e-12
    assert abs(bits_per_byte(math.log(2) * 6, 25, 100) - 1.5) < 1e-12
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="n_bytes must be 1 or more"):
            bits_per_byte(1.0, 5, wrong)
        with pytest.raises(ValueError, match="n_tokens must be 1 or more"):
            bits_per_byte(1.0, wrong, 5)
    with pytest.raises(TypeError, match="n_bytes must be a whole number"):
        bits_per_byte(1.0, 5, 2.5)  # pyright: ignore[reportArgumentType]


# --- many batches ---


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for B, T in ((3, 8), (1, 5), (4, 2)):
        X, Y = torch.randint(20, (2, B, T), generator=generator)
        found.append((X, Y.masked_fill(torch.rand(B, T, generator=generator) < 0.4, IGNORE)))
    found.append((X, torch.full_like(X, IGNORE)))  # a batch in which nothing counts changes nothing
    return found


def small(dropout: float = 0.0) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=20, block_size=8, n_layer=1, n_head=2, n_embd=8, dropout=dropout))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def test_every_token_weighs_the_same() -> None:
    model = small().double()
    rows = [
        (logits, y)
        for X, Y in batches()
        for logits, y in zip(model(X).flatten(0, 1), Y.flatten(), strict=True)
        if y != IGNORE
    ]
    wanted = cross_entropy(torch.stack([logits for logits, _ in rows]), torch.stack([y for _, y in rows])).item()
    assert abs(mean_loss(model, batches()) - wanted) < 1e-12
    assert abs(mean_loss(model, iter(batches())) - wanted) < 1e-12
    of_means = np.mean([cross_entropy(model(X), Y).item() for X, Y in batches()[:3]])
    assert abs(of_means - wanted) > 1e-3  # the mean of the batches' means is another number


def test_mean_loss_leaves_the_model_as_it_was() -> None:
    model = small(dropout=0.5).train()
    model.ln_f.eval()
    modes = [module.training for module in model.modules()]
    first = mean_loss(model, batches())
    assert [module.training for module in model.modules()] == modes
    assert first == mean_loss(model, batches()) == mean_loss(model.eval(), batches())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_models_are_scored_in_float32() -> None:
    model = small().to(torch.bfloat16)
    wanted = F.cross_entropy(model(batches()[0][0]).float().flatten(0, 1), batches()[0][1].flatten())
    assert abs(mean_loss(model, batches()[:1]) - wanted.item()) < 1e-6


def test_a_model_without_parameters_can_be_scored() -> None:
    class Uniform(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*ids.shape, 20)

    assert abs(mean_loss(Uniform(), batches()) - math.log(20)) < 1e-6


def test_nothing_to_score_is_refused() -> None:
    for nothing in ([], batches()[-1:]):
        with pytest.raises(ValueError, match=r"nothing to score.*at least one batch"):
            mean_loss(small(), nothing)


# --- what is refused ---


@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_gradient])
@pytest.mark.parametrize(
    ("logits", "targets", "error", "words"),
    [
        (torch.zeros(2, 5), torch.tensor([0, 5]), ValueError, "target 5 is outside 0 to 4.*-100"),
        (torch.zeros(2, 5), torch.tensor([-1, 4]), ValueError, "target -1 is outside 0 to 4"),
        (torch.zeros(2, 5), torch.tensor([-100, -100]), ValueError, "no target counts: all 2 are -100"),
        (torch.zeros(0, 5), torch.zeros(0).long(), ValueError, "no target counts"),
        (torch.zeros(2, 5), torch.zeros(3).long(), ValueError, r"logits \(2, 5\) and targets \(3,\).*must be \(2,\)"),
        (torch.zeros(2, 3, 5), torch.zeros(6).long(), ValueError, r"must be \(2, 3\)"),
        (torch.zeros(2, 0), torch.zeros(2).long(), ValueError, "do not go together"),
        (torch.tensor(1.0), torch.tensor(0), ValueError, "do not go together"),
        (torch.zeros(2, 5), torch.zeros(2), TypeError, r"torch.int64, not torch.float32; write targets.long\(\)"),
        (torch.zeros(2, 5), torch.zeros(2).bool(), TypeError, "targets must be ids"),
        (torch.zeros(2, 5).long(), torch.zeros(2).long(), TypeError, "logits must be floating-point"),
        ([[0.0]], torch.zeros(1).long(), TypeError, "logits must be a tensor, not list"),
        (torch.zeros(1, 5), [0], TypeError, "targets must be a tensor, not list"),
    ],
)
def test_what_does_not_go_together_is_refused(
    function: Callable[..., Any], logits: Any, targets: Any, error: Any, words: str
) -> None:
    with pytest.raises(error, match=words):
        function(logits, targets)
