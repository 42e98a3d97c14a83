"""Pre-norm and post-norm: both blocks are torch's own, and the committed log is what anyone measures again."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.depth import PostBlock, build, glorot, gradient_norms, step_effect, train_short
from glassbox.gpt2 import GPT, Block, GPTConfig, initialise

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

import norm_order  # tests/benchmarks/norm_order.py

SMALL = GPTConfig(vocab_size=50, block_size=16, n_layer=3, n_head=4, n_embd=32)


def deep(n_layer: int) -> GPTConfig:
    return GPTConfig(vocab_size=200, block_size=32, n_layer=n_layer, n_head=4, n_embd=64)


def batch(config: GPTConfig, B: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.randint(config.vocab_size, (B, config.block_size + 1), generator=torch.Generator().manual_seed(seed))
    return rows[:, :-1], rows[:, 1:]


# --- the blocks ---


@pytest.mark.parametrize(("kind", "first"), [(Block, True), (PostBlock, False)])
def test_a_block_is_that_of_torch(kind: type[Block], first: bool) -> None:
    """torch's layer of the Transformer knows both orders; it gets our weights and gives our numbers and gradients."""
    torch.manual_seed(0)
    block = kind(SMALL)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = nn.TransformerEncoderLayer(
        32, 4, 128, dropout=0, activation=lambda x: F.gelu(x, approximate="tanh"), batch_first=True, norm_first=first
    )
    names = {
        "self_attn.in_proj_": "attn.c_attn.", "self_attn.out_proj.": "attn.c_proj.", "linear1.": "mlp.c_fc.",
        "linear2.": "mlp.c_proj.", "norm1.": "ln_1.", "norm2.": "ln_2.",
    }  # fmt: skip
    ours = dict(block.named_parameters())
    renamed = {old + part: ours[new + part] for old, new in names.items() for part in ("weight", "bias")}
    theirs.load_state_dict(renamed)
    x = torch.randn(2, 9, 32)
    mask = nn.Transformer.generate_square_subsequent_mask(9)
    mine, other = block(x), theirs(x, src_mask=mask, is_causal=True)
    assert torch.allclose(mine, other, atol=1e-5)
    mine.square().mean().backward()
    other.square().mean().backward()
    for name, parameter in theirs.named_parameters():
        gradient = renamed[name].grad
        assert gradient is not None
        assert parameter.grad is not None
        assert torch.allclose(gradient, parameter.grad, atol=1e-5), name


def test_the_post_norm_stream_has_size_one_after_every_block() -> None:
    ids, _ = batch(SMALL)
    model = build(SMALL, "post")
    x = model.wte(ids) + model.wpe(torch.arange(16))
    for block in model.h:
        x = block(x)
        assert torch.allclose(x.square().mean(dim=-1), torch.ones(4, 16), atol=1e-3)
    assert torch.equal(model.features(ids), x)  # nothing stands behind the last block


# --- building ---


@pytest.mark.parametrize("start", [glorot, initialise])
def test_both_orders_begin_with_the_same_numbers(start: Callable[[GPT], None]) -> None:
    pre, post, other = (build(SMALL, order, seed, start) for order, seed in (("pre", 3), ("post", 3), ("pre", 4)))
    parameters = dict(pre.named_parameters())
    for name, parameter in post.named_parameters():
        assert torch.equal(parameter, parameters.pop(name))
    assert sorted(parameters) == ["ln_f.bias", "ln_f.weight"]
    assert not torch.equal(pre.wte.weight, other.wte.weight)
    ids, _ = batch(SMALL)
    assert not torch.allclose(pre(ids), post(ids), atol=1e-3)


def test_the_start_of_2017_has_the_variance_of_glorot_and_bengio() -> None:
    model = build(GPTConfig(vocab_size=500, block_size=300, n_layer=2, n_head=4, n_embd=64, tied=False), "pre")
    for name, parameter in model.state_dict().items():
        if name in ("wte.weight", "wpe.weight"):
            assert abs(float(parameter.std()) * 8 - 1) < 0.05, name
        elif parameter.ndim == 2:
            variance = 2 / sum(parameter.shape)
            assert abs(float(parameter.var()) / variance - 1) < 0.05, name
            assert float(parameter.abs().max()) <= (3 * variance) ** 0.5  # uniform
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name


@pytest.mark.parametrize("order", ["middle", "", None, "Pre"])
def test_another_order_is_refused(order: str) -> None:
    with pytest.raises(ValueError, match='order must be "pre" or "post"'):
        build(SMALL, order)


# --- what is measured ---


@pytest.mark.parametrize("order", ["pre", "post"])
def test_gradient_norms_are_those_of_each_block(order: str) -> None:
    ids, targets = batch(SMALL)
    model = build(SMALL, order)
    found = gradient_norms(model, ids, targets)
    assert all(parameter.grad is None for parameter in model.parameters())
    F.cross_entropy(model(ids).flatten(0, 1), targets.flatten()).backward()
    for i, norm in enumerate(found):
        parts = [
            p.grad.flatten()
            for name, p in model.named_parameters()
            if name.startswith(f"h.{i}.") and p.grad is not None
        ]
        assert math.isclose(norm, float(torch.cat(parts).norm()), rel_tol=1e-4)


def test_the_last_gradient_falls_with_depth_only_in_pre_norm() -> None:
    """Xiong et al. (2020): in pre-norm it falls like the root of the depth, in post-norm the depth does not matter."""
    last = {
        (order, L): sum(gradient_norms(build(deep(L), order, seed), *batch(deep(L)))[-1] for seed in range(3)) / 3
        for order in ("pre", "post")
        for L in (2, 18)
    }
    assert 2 < last["pre", 2] / last["pre", 18] < 5  # the root of 9 is 3
    assert 0.5 < last["post", 2] / last["post", 18] < 1.6
    assert last["post", 18] > 1.8 * last["pre", 18]


def test_a_step_of_adam_does_more_the_deeper_and_far_more_in_post_norm() -> None:
    """Liu et al. (2020)."""
    grown = {}
    for order in ("pre", "post"):
        shallow, deeper = (step_effect(build(deep(L), order), *batch(deep(L))) for L in (2, 18))
        grown[order] = deeper / shallow
    assert 2 < grown["pre"] < 0.5 * grown["post"]


def test_a_step_is_taken_by_a_copy_and_is_as_long_as_the_rate() -> None:
    ids, targets = batch(SMALL)
    model = build(SMALL, "pre")
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    one, ten = (step_effect(model, ids, targets, lr) for lr in (1e-6, 1e-5))
    assert 9 < ten / one < 11
    assert step_effect(model, ids, targets, lr=0) == 0
    assert all(torch.equal(before[name], parameter) for name, parameter in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("measure", [gradient_norms, step_effect])
def test_targets_that_do_not_fit_are_refused(measure: Callable[..., object]) -> None:
    ids, targets = batch(SMALL)
    model = build(SMALL, "pre")
    with pytest.raises(ValueError, match=r"targets have the shape \(4, 15\)"):
        measure(model, ids, targets[:, :-1])
    with pytest.raises(ValueError, match="id 50 is outside 0 to 49"):
        measure(model, ids, torch.full_like(targets, 50))
    with pytest.raises(ValueError, match=r"must be \(B, T\)"):
        measure(model, ids[0], targets[0])
    with pytest.raises(TypeError, match="ids must be whole numbers"):
        measure(model, ids, targets.float())


# --- training ---


@pytest.mark.parametrize(("warmup", "length"), [(0, 0.01), (1, 0.01), (50, 0.01 / 50)])
def test_the_first_step_is_as_long_as_the_warm_up_allows(warmup: int, length: float) -> None:
    """Adam's first step moves every number with a gradient by the learning rate."""
    model = build(SMALL, "post")
    matrix = model.get_parameter("h.0.mlp.c_fc.weight")
    before = matrix.detach().clone()
    losses = train_short(model, np.arange(200) % 50, lr=0.01, warmup=warmup, steps=1)
    moved = (matrix.detach() - before).abs()
    assert math.isclose(float(moved.max()), length, rel_tol=1e-2)
    assert len(losses) == 1


def test_training_learns_and_can_be_repeated() -> None:
    row = np.tile(np.arange(50, dtype=np.uint16), 30)  # as a token file holds it
    one, other = (train_short(build(SMALL, "pre"), row, lr=0.003, steps=40, warmup=10) for _ in range(2))
    assert one == other
    assert one[-1] < 0.5 * one[0]
    assert train_short(build(SMALL, "pre"), row, lr=0.003, steps=40, warmup=10, seed=1) != one
    assert train_short(build(SMALL, "pre"), row.tolist(), lr=0.003, steps=0) == []


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr must be a number of 0 or more, not -1.0"),
        ({"lr": "fast"}, TypeError, "lr must be a number"),
        ({"warmup": -1}, ValueError, "warmup must be 0 or more, not -1"),
        ({"steps": 2.5}, TypeError, "steps must be a whole number"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"ids": [0, 1, 2]}, ValueError, "3"),
        ({"ids": [50] * 40}, ValueError, "id 50 is outside 0 to 49"),
    ],
)
def test_bad_plans_are_refused(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    model = build(SMALL, "pre")
    before = model.wte.weight.detach().clone()
    with pytest.raises(error, match=message):
        train_short(model, **{"ids": [1] * 40, "lr": 0.1, "steps": 2, **changed})
    assert torch.equal(before, model.wte.weight)


# --- the committed log ---


@pytest.fixture(scope="module")
def log() -> dict[norm_order.Run, list[float]]:
    return norm_order.read()


def test_the_log_holds_every_run_whole(log: dict[norm_order.Run, list[float]]) -> None:
    assert list(log) == list(norm_order.runs())
    assert {len(losses) for losses in log.values()} == {norm_order.STEPS // norm_order.EVERY}


def test_the_first_steps_of_the_log_are_found_again(log: dict[norm_order.Run, list[float]]) -> None:
    ids = norm_order.corpus()
    again = [run for run in log if (run.lr, run.seed) == (3e-3, 0)]
    assert len(again) == 4
    for run in again:
        (found,) = norm_order.train(run, ids, norm_order.EVERY)
        assert abs(found - log[run][0]) < 0.02, run


def test_the_log_says_what_the_notebook_says(log: dict[norm_order.Run, list[float]]) -> None:
    for run, losses in log.items():
        stuck = run.order == "post" and (run.lr == 1e-2 or (run.lr == 3e-3 and not run.warmup))
        last = sum(losses[-2:]) / 2
        assert last > 5.4 if stuck else last < 4.8, run


def test_the_script_has_a_short_form(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_order, "EVERY", 1)
    monkeypatch.setattr(norm_order, "write", lambda curves: pytest.fail("the short form writes a table"))
    norm_order.main(["--smoke"])
    assert capsys.readouterr().out.count("last") == 4


# --- what an attacker found ---


def test_the_effect_of_a_step_is_that_of_the_step_alone() -> None:
    model, (ids, targets) = build(GPTConfig(**{**vars(SMALL), "dropout": 0.5}), "pre"), batch(SMALL)
    assert model.training
    assert step_effect(model, ids, targets, lr=0) == 0
    with torch.no_grad():
        assert step_effect(model, ids, targets.int()) == pytest.approx(step_effect(model, ids, targets))
    assert model.training


def test_gradients_are_measured_where_the_caller_wants_none_and_refused_where_a_block_is_frozen() -> None:
    model, (ids, targets) = build(SMALL, "post"), batch(SMALL)
    found = gradient_norms(model, ids, targets)
    with torch.no_grad():
        assert gradient_norms(model, ids, targets.int()) == found
    model.h[1].requires_grad_(False)
    for measure in (gradient_norms, step_effect):
        with pytest.raises(ValueError, match="a block is frozen"):
            measure(model, ids, targets)


@pytest.mark.parametrize(("order", "seed"), [("pre", 1.5), ("pre", True), ("pre", 2**70), ("pre", -1), (["pre"], 0)])
def test_an_order_and_a_seed_that_are_none_are_refused(order: Any, seed: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"seed|order"):
        build(SMALL, order, seed)
