"""05_loss, optimisation.py and mimetic.py: AdamW, groups, schedules and clipping against torch's and transformers'.

Tolerances of 1000 steps of AdamW, relative to the largest number of a tensor, 1 at least: 1e-11 in float64; in float32,
where rounding is amplified step by step, 1e-4. Clipped gradients: 1e-6 in float32, 1e-13 in float64. Schedules: 1e-12
of the peak.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn as nn
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.mimetic import mimetic_start
from glassbox.optimisation import (
    AdamW,
    adamw_step,
    check_rates,
    clip_gradients,
    cosine_schedule,
    decay_groups,
    trapezoid_schedule,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import get_cosine_schedule_with_warmup, get_wsd_schedule

SHAPES = ((5, 7), (7,), (3, 2, 4), ())
Rule = dict[str, Any]


def numbers(seed: int, dtype: torch.dtype = torch.float64, size: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(size * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype) for shape in SHAPES]


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    return [nn.Parameter(x) for x in numbers(0, dtype)]


def furthest(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).detach().abs().max()) / max(1.0, float(b.detach().abs().max())) for a, b in pairs)


def rules(chosen: list[nn.Parameter]) -> list[Rule]:
    """Three groups that differ in everything; the last takes torch's defaults."""
    return [
        {"params": chosen[:2], "lr": 3e-3, "weight_decay": 0.3, "betas": (0.8, 0.95)},
        {"params": chosen[2:3], "lr": 1e-2, "weight_decay": 0.0, "eps": 1e-3},
        {"params": chosen[3:]},
    ]


def both_for(
    steps: int, dtype: torch.dtype, peer: dict[str, Any], groups: bool, missing: Callable[[int, int], bool]
) -> float:
    """How far our parameters and torch's are apart after these steps: same gradients, changing step sizes."""
    found = []
    for kind, options in ((AdamW, {}), (torch.optim.AdamW, peer)):
        chosen = parameters(dtype)
        given_ = rules(chosen) if groups else chosen
        optimiser: Any = kind(given_, lr=1e-2, **options)
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
        for step in range(steps):
            gradients = numbers(step + 1, dtype, 10.0 ** (step % 5 - 3))  # of very different sizes
            for i, (parameter, gradient) in enumerate(zip(chosen, gradients, strict=True)):
                parameter.grad = None if missing(step, i) else gradient
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * cosine_schedule(step, steps, steps // 10, 1.0)
            optimiser.step()
        found.append(chosen)
    return furthest(*found)


@pytest.mark.parametrize(
    ("peer", "groups"),
    [({"foreach": False}, True), ({"fused": True}, True), ({"fused": True}, False)],
    ids=["loop, three groups", "fused, three groups", "fused, one group"],
)
def test_1000_steps_are_torchs(peer: dict[str, Any], groups: bool) -> None:
    """One parameter never has a gradient, one only at every third step: its own t counts, and it does not decay."""
    missing = lambda step, i: i == 1 or (i == 2 and step % 3 != 1)  # noqa: E731
    assert both_for(1000, torch.float64, peer, groups, missing) <= 1e-11


def test_1000_steps_in_float32_are_torchs() -> None:
    assert both_for(1000, torch.float32, {"fused": True}, True, lambda step, i: False) <= 1e-4


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0, 0.5),
    st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
    st.floats(1e-12, 0.1),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_any_rates_are_torchs(
    lr: float, betas: tuple[float, float], eps: float, weight_decay: float, seed: int
) -> None:
    options: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    ours, theirs = parameters(), parameters()
    optimisers = [AdamW(ours, **options), torch.optim.AdamW(theirs, foreach=False, **options)]
    for step in range(4):
        for chosen, optimiser in zip((ours, theirs), optimisers, strict=True):
            for parameter, gradient in zip(chosen, numbers(seed + step), strict=True):
                parameter.grad = gradient
            optimiser.step()
        assert furthest(ours, theirs) <= 1e-12


def test_the_defaults_are_torchs() -> None:
    ours, theirs = (kind(parameters()).defaults for kind in (AdamW, torch.optim.AdamW))
    assert ours == {name: theirs[name] for name in ours}


def test_the_first_step_by_hand() -> None:
    """Its length is lr for every number, whatever the gradient: mean / √square is 1 or -1."""
    parameter, mean, square = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64), *torch.zeros(2, 3).double()
    adamw_step(parameter, torch.tensor([5.0, -1e-3, 0.0]).double(), mean, square, 1, 0.1, weight_decay=0.5)
    assert torch.allclose(parameter, torch.tensor([0.95 - 0.1, -1.9 + 0.1, 0.0]).double(), atol=2e-6)
    assert torch.allclose(mean, torch.tensor([0.5, -1e-4, 0.0]).double())
    assert torch.allclose(square, torch.tensor([0.025, 1e-9, 0.0]).double())
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="t must be 1 or more"):
            adamw_step(parameter, parameter, mean, square, wrong, 0.1)


def test_a_step_may_be_taken_outside_no_grad() -> None:
    parameter = nn.Parameter(torch.ones(2))
    adamw_step(parameter, torch.ones(2), torch.zeros(2), torch.zeros(2), 1, 0.1)
    assert parameter.grad_fn is None
    assert (parameter < 1).all()


def test_an_optimiser_that_was_stored_goes_on_bit_for_bit() -> None:
    chosen = parameters()
    optimiser = AdamW(rules(chosen), lr=1e-2)

    def advance(optimiser: AdamW, chosen: list[nn.Parameter], steps: range) -> None:
        for step in steps:
            for parameter, gradient in zip(chosen, numbers(step), strict=True):
                parameter.grad = gradient
            optimiser.step()

    advance(optimiser, chosen, range(5))
    again = [nn.Parameter(parameter.detach().clone()) for parameter in chosen]
    other = AdamW(rules(again), lr=1e-2)
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    advance(optimiser, chosen, range(5, 9))
    advance(other, again, range(5, 9))
    assert furthest(chosen, again) == 0


def test_a_closure_computes_the_loss_first() -> None:
    parameter = nn.Parameter(torch.tensor(3.0))
    optimiser = AdamW([parameter], lr=0.1, weight_decay=0.0)

    def closure() -> Any:
        optimiser.zero_grad()
        loss = parameter**2
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimiser.step(closure) == 9.0
    assert abs(parameter.item() - 2.9) < 1e-6
    parameter.grad = None
    assert optimiser.step() is None
    assert abs(parameter.item() - 2.9) < 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1e-3}, "lr must be 0 or more"),
        ({"lr": math.inf}, "lr must be 0 or more, and finite"),
        ({"lr": "fast"}, "lr must be"),
        ({"betas": (1.0, 0.9)}, "the first of betas must be from 0 to below 1, not 1.0"),
        ({"betas": (0.9, -0.1)}, "the second of betas"),
        ({"betas": 0.9}, "betas must be two numbers"),
        ({"eps": -1e-8}, "eps must be 0 or more"),
        ({"weight_decay": math.nan}, "weight_decay must be 0 or more"),
    ],
)
def test_rates_out_of_range_are_refused(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdamW(parameters(), **options)
    if "betas" not in options:
        with pytest.raises(ValueError, match=words):
            AdamW([{"params": parameters(), **options}])
    check_rates(torch.tensor(0.1), [0.9, 0.99], 1e-8, 0)


# --- groups ---


def tiny(**changes: Any) -> GPT:
    sizes = {"vocab_size": 30, "block_size": 12, "n_layer": 2, "n_head": 2, "n_embd": 16, **changes}
    torch.manual_seed(1)
    return GPT(GPTConfig(**sizes))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("frozen", [(), ("wte.weight", "h.0.attn.c_attn.weight", "ln_f.bias")], ids=["all", "some"])
def test_matrices_decay_and_nothing_else(tied: bool, frozen: tuple[str, ...]) -> None:
    model = tiny(tied=tied)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for name in frozen:
        model.get_parameter(name).requires_grad = False
    groups = decay_groups(model, 0.3)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    decaying, rest = ([names[id(parameter)] for parameter in group["params"]] for group in groups)
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    matrices = {f"h.{i}.{part}.weight" for i in range(2) for part in parts} | (set() if tied else {"lm_head.weight"})
    assert set(decaying) == matrices - set(frozen)
    assert set(rest) == set(names.values()) - matrices - set(frozen)
    assert len(decaying) + len(rest) == len(names) - len(frozen)
    torch.optim.AdamW(groups).step()


def test_a_group_may_be_empty() -> None:
    groups = decay_groups(nn.LayerNorm(3), 0.1)
    assert [len(group["params"]) for group in groups] == [0, 2]
    assert [group["weight_decay"] for group in torch.optim.AdamW(groups).param_groups] == [0.1, 0.0]


def test_groups_that_cannot_be_are_refused() -> None:
    for wrong in (-0.1, math.nan, math.inf, "0.1"):
        with pytest.raises(ValueError, match="weight_decay must be 0 or more"):
            decay_groups(tiny(), wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no parameter is trainable"):
        decay_groups(tiny().requires_grad_(False), 0.1)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, not list"):
        decay_groups([nn.Parameter(torch.zeros(2))], 0.1)  # pyright: ignore[reportArgumentType]


# --- schedules ---


def theirs(make: Callable[..., Any], steps: int, **options: Any) -> list[float]:
    """The step sizes of a schedule of transformers, from its step 0 on, for a peak of 1."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, found = make(optimiser, **options), []
    for _ in range(steps + 1):
        found.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.data())
def test_the_cosine_is_transformers_one_step_on(steps: int, data: Any) -> None:
    """Theirs wastes its first step (size 0) and never comes to its end. Ours is theirs a step later: the same curve for
    one step more of warm-up, so that the first step is above 0 and the last is `least`."""
    warmup = data.draw(st.integers(0, steps - 1))
    wanted = theirs(
        get_cosine_schedule_with_warmup, steps, num_warmup_steps=warmup + 1, num_training_steps=max(steps, warmup + 2)
    )
    for step in range(steps):
        assert abs(cosine_schedule(step, steps, warmup, 1.0) - wanted[step + 1]) <= 1e-12
        half = 0.25 + 0.75 * wanted[step + 1] if step >= warmup else wanted[step + 1]
        assert abs(cosine_schedule(step, steps, warmup, 1.0, 0.25) - half) <= 1e-12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 20), st.integers(1, 40), st.integers(1, 40))
def test_the_trapezoid_is_transformers_one_step_on(warmup: int, level: int, down: int) -> None:
    """Their warm-up, stable and decay phases ("WSD"), where the shares come out as whole steps."""
    steps = warmup + level + down + 1
    wanted = theirs(
        get_wsd_schedule,
        steps,
        num_warmup_steps=warmup + 1,
        num_stable_steps=level,
        num_decay_steps=down,
        decay_type="linear",
    )
    for step in range(steps):
        found = trapezoid_schedule(step, steps, warmup, 1.0, stay=level / (level + down))
        assert abs(found - wanted[step + 1]) <= 1e-12


@pytest.mark.parametrize("schedule", [cosine_schedule, trapezoid_schedule])
def test_where_a_schedule_begins_peaks_and_ends(schedule: Callable[..., float]) -> None:
    sizes = [schedule(step, 100, 10, 2e-3, 1e-4) for step in range(120)]
    assert sizes[0] == pytest.approx(2e-3 / 11)
    assert sizes[10] == max(sizes) == 2e-3
    assert sizes[:11] == sorted(sizes[:11])
    assert sizes[10:] == sorted(sizes[10:], reverse=True)
    assert sizes[98] > sizes[99] == pytest.approx(1e-4)
    assert len(set(sizes[99:])) == 1
    assert schedule(0, 1, 0, 2e-3) == schedule(4, 5, 4, 2e-3) == 2e-3  # one step after warm-up
    assert [schedule(step, 2, 0, 1.0, 0.5) for step in (0, 1)] == [1.0, 0.5]


def test_the_level_part_does_not_depend_on_the_end() -> None:
    for steps in (100, 1000):
        assert {trapezoid_schedule(step, steps, 10, 1.0, 0.1) for step in range(10, 46)} == {1.0}
    assert trapezoid_schedule(50, 101, 0, 1.0, stay=0.0) == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", [cosine_schedule, trapezoid_schedule])
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((-1, 10, 1, 1.0), ValueError, "step must be 0 or more"),
        ((0, 0, 0, 1.0), ValueError, "steps must be 1 or more"),
        ((0, 10, -1, 1.0), ValueError, "warmup must be 0 or more"),
        ((0, 10, 10, 1.0), ValueError, "warmup = 10 leaves nothing of steps = 10"),
        ((0, 10, 1, -1.0), ValueError, "0 <= least <= peak"),
        ((0, 10, 1, 1.0, 2.0), ValueError, "least = 2.0 and peak = 1.0"),
        ((0, 10, 1, math.nan), ValueError, "step sizes"),
        ((0, 10, 1, math.inf), ValueError, "finite"),
        ((0.5, 10, 1, 1.0), TypeError, "step must be a whole number"),
    ],
)
def test_plans_that_are_none_are_refused(schedule: Any, arguments: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        schedule(*arguments)
    for stay in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="stay must be a share"):
            trapezoid_schedule(0, 10, 1, 1.0, stay=stay)


# --- clipping ---


def with_gradients(dtype: torch.dtype, size: float) -> list[nn.Parameter]:
    """Some frozen, some that had no share in the loss."""
    chosen = [*parameters(dtype), nn.Parameter(torch.zeros(3, dtype=dtype)), nn.Parameter(torch.zeros(2))]
    chosen[-1].requires_grad = False
    for parameter, gradient in zip(chosen, numbers(5, dtype, size), strict=False):
        parameter.grad = gradient
    return chosen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("limit", [1e-3, 1.0, 50.0, math.inf])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_clipping_is_torchs(dtype: torch.dtype, limit: float, size: float) -> None:
    ours, peers = with_gradients(dtype, size), with_gradients(dtype, size)
    close = 1e-6 if dtype == torch.float32 else 1e-13
    found = clip_gradients((parameter for parameter in ours), limit)
    wanted = nn.utils.clip_grad_norm_(peers, limit)
    assert found.shape == ()
    assert float((found - wanted).abs()) <= close * float(wanted)
    had = [parameter.grad for parameter in peers if parameter.grad is not None]
    got = [parameter.grad for parameter in ours if parameter.grad is not None]
    assert len(got) == len(had) == 4
    assert all(float((a - b).abs().max()) <= close * float(b.abs().max()) for a, b in zip(got, had, strict=True))
    after = clip_gradients(ours, math.inf)
    assert float(after) <= limit * (1 + 1e-5)


def test_short_gradients_stay_bit_for_bit() -> None:
    chosen = with_gradients(torch.float32, 1.0)
    length = float(clip_gradients(chosen, math.inf))
    before = [parameter.grad.clone() for parameter in chosen if parameter.grad is not None]
    clip_gradients(chosen, length)
    after = [parameter.grad for parameter in chosen if parameter.grad is not None]
    assert all(map(torch.equal, before, after))


def test_several_types_at_once() -> None:
    chosen = [nn.Parameter(torch.ones(4, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32, torch.float64)]
    for parameter in chosen:
        parameter.grad = torch.full_like(parameter, 2.0)
    assert float(clip_gradients(chosen, 1.0)) == pytest.approx(math.sqrt(48))
    for parameter in chosen:
        assert parameter.grad is not None
        assert parameter.grad.dtype == parameter.dtype
        assert torch.allclose(parameter.grad.double(), torch.full((4,), 2 / math.sqrt(48)).double(), rtol=4e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_is_told_and_left(value: float) -> None:
    """torch would spread it: after its clipping every gradient is NaN or 0."""
    chosen = with_gradients(torch.float32, 1.0)
    assert chosen[0].grad is not None
    chosen[0].grad[0, 0] = value
    before = [parameter.grad.clone() for parameter in chosen if parameter.grad is not None]
    length = clip_gradients(chosen, 1.0)
    assert not length.isfinite()
    assert math.isnan(value) == length.isnan()
    after = [parameter.grad for parameter in chosen if parameter.grad is not None]
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(before, after, strict=True))


def test_without_any_gradient_the_length_is_0() -> None:
    for chosen in ([], [nn.Parameter(torch.ones(2))]):
        assert clip_gradients(chosen, 1.0) == 0


def test_limits_that_are_none_are_refused() -> None:
    for wrong in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="limit must be above 0"):
            clip_gradients([], wrong)
    with pytest.raises(TypeError, match="must be a list of tensors"):
        clip_gradients(nn.Parameter(torch.ones(2)), 1.0)


# --- mimetic start ---


@pytest.mark.parametrize(("C", "nh"), [(16, 2), (15, 3), (8, 1)])
def test_output_undoes_value_and_queries_are_like_keys(C: int, nh: int) -> None:
    torch.manual_seed(3)
    model = mimetic_start(tiny(n_embd=C, n_head=nh).double(), alike=0.8, noise=0.01)
    blocks: Any = model.h
    for block in blocks:
        query, key, value = block.attn.c_attn.weight.detach().split(C)
        both = block.attn.c_proj.weight.detach() @ value
        assert float((both - torch.eye(C)).abs().max()) < 1e-12
        for q, k in zip(query.split(C // nh), key.split(C // nh), strict=True):
            same = (q * k).sum() / q.norm() / k.norm()
            assert same > 0.98
            assert float((q @ k.T - 0.64 * torch.eye(C // nh)).abs().max()) < 0.15
            assert float((q @ k.T).trace()) > 0.5 * (C // nh)  # a text looks for what is like itself


def test_alike_0_leaves_nothing_in_common() -> None:
    torch.manual_seed(3)
    blocks: Any = mimetic_start(tiny(n_embd=64), alike=0.0).h
    query, key, _ = blocks[0].attn.c_attn.weight.detach().split(64)
    assert float((query * key).sum().abs() / query.norm() / key.norm()) < 0.1


def test_the_start_has_the_deviations_that_it_says() -> None:
    torch.manual_seed(0)
    model = mimetic_start(tiny(n_embd=64, vocab_size=500, block_size=200), noise=0.05, table=0.2)
    block: Any = model.h[1]
    for weight, size in (
        (model.wte.weight, 0.2),
        (block.mlp.c_fc.weight, 0.05),
        (block.mlp.c_proj.weight, 0.025),
    ):
        assert float(weight.detach().std()) == pytest.approx(size, rel=0.05)
    places = model.wpe.weight.detach()
    assert float(places.square().mean().sqrt()) == pytest.approx(0.2, rel=1e-4)
    near = nn.functional.cosine_similarity(places[:-1], places[1:]).mean()
    far = nn.functional.cosine_similarity(places[:-100], places[100:]).mean()
    assert near > 0.9 > 0.7 > far  # neighbours are alike


@pytest.mark.parametrize("tied", [True, False])
def test_the_start_keeps_shapes_and_what_is_no_matrix_and_is_drawn_from_the_seed(tied: bool) -> None:
    starts = []
    for seed in (5, 5, 6):
        model = tiny(tied=tied)
        before = {name: part.clone() for name, part in model.state_dict().items()}
        torch.manual_seed(seed)
        assert mimetic_start(model) is model
        assert {name: part.shape for name, part in model.state_dict().items()} == {
            name: part.shape for name, part in before.items()
        }
        assert all(parameter.requires_grad and parameter.grad_fn is None for parameter in model.parameters())
        for name, part in model.state_dict().items():
            stays = part.ndim == 1 or name == "lm_head.weight"
            assert torch.equal(part, before[name]) == stays, name
        starts.append(model.state_dict())
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not torch.equal(starts[0]["wte.weight"], starts[2]["wte.weight"])


def test_a_start_that_cannot_be_is_refused() -> None:
    model = tiny()
    before = model.wte.weight.detach().clone()
    for wrong in ({"alike": -0.1}, {"noise": math.nan}, {"table": math.inf}, {"table": "0.1"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be 0 or more"):
            mimetic_start(model, **wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="model must be a GPT, not Linear"):
        mimetic_start(nn.Linear(2, 2))  # pyright: ignore[reportArgumentType]
    assert torch.equal(model.wte.weight, before)
