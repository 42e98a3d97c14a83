"""04_gpt2, costs.py: what a model costs, predicted from its sizes, against what is counted and measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from glassbox.costs import (
    activation_bytes,
    count_parameters,
    flops_per_token,
    parameter_parts,
    saved_bytes,
    training_bytes,
)
from glassbox.gpt2 import GPT, PRESETS, GPTConfig
from hypothesis import given
from hypothesis import strategies as st
from test_pretokens import examples
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

import gpt2_memory  # tests/benchmarks/gpt2_memory.py

KNOWN = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200}
SMALL = [
    GPTConfig(vocab_size=100, block_size=32, n_layer=3, n_head=4, n_embd=32),
    GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=1, n_embd=4, tied=False),
    GPTConfig(vocab_size=3, block_size=20, n_layer=2, n_head=5, n_embd=10, tied=False),
    GPTConfig.preset("tiny"),
]
CONFIGS = pytest.mark.parametrize("config", SMALL, ids=lambda config: f"{config.n_layer} x {config.n_embd}")


def batch(config: GPTConfig, B: int, T: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(config.vocab_size, (B, T + 1), generator=torch.Generator().manual_seed(B + T))
    return ids[:, :-1].clone(), ids[:, 1:].clone()  # each a piece of memory of its own


def loss_of(model: GPT, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())


# --- parameters ---


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", PRESETS)
def test_parameters_by_formula_by_code_and_by_transformers(name: str, tied: bool) -> None:
    config = GPTConfig.preset(name, tied=tied)
    sizes = {"n_positions": config.block_size, "tie_word_embeddings": tied, "bos_token_id": 0, "eos_token_id": 0}
    for field in ("vocab_size", "n_layer", "n_head", "n_embd"):
        sizes[field] = getattr(config, field)
    with torch.device("meta"):  # shapes without numbers
        ours, theirs = GPT(config), GPT2LMHeadModel(GPT2Config(**sizes))
    wanted = sum(p.numel() for p in theirs.parameters())
    assert count_parameters(config) == sum(p.numel() for p in ours.parameters()) == wanted
    if name in KNOWN:
        assert wanted == KNOWN[name] + (0 if tied else 50257 * config.n_embd)


@CONFIGS
def test_parts_are_those_of_the_model(config: GPTConfig) -> None:
    found: dict[str, int] = dict.fromkeys(parameter_parts(config), 0)
    for name, parameter in GPT(config).named_parameters():
        found[next(part for part in ("wte", "wpe", "attn", "mlp", "ln", "lm_head") if part in name)] += (
            parameter.numel()
        )
    assert parameter_parts(config) == found
    assert sum(parameter_parts(config).values()) == count_parameters(config)


# --- operations ---


@CONFIGS
@pytest.mark.parametrize("B", [1, 3])
def test_operations_are_those_that_torch_counts(config: GPTConfig, B: int) -> None:
    """Its counter knows the products of attention where they are products, not inside the CPU's fused kernel."""
    for T in (1, 7, 8):
        ids, targets = batch(config, B, T)
        model = GPT(config)
        with sdpa_kernel(SDPBackend.MATH):
            with FlopCounterMode(display=False) as counter:
                loss = loss_of(model, ids, targets)
            forward = counter.get_total_flops()
            assert forward == B * T * flops_per_token(config, T)
            with FlopCounterMode(display=False) as counter:
                loss.backward()
        assert counter.get_total_flops() == 2 * forward


# --- memory ---


@examples(25)
@given(
    st.builds(
        lambda V, T, L, nh, hs, tied: GPTConfig(V, T, L, nh, nh * hs, tied=tied),
        *(st.integers(least, top) for least, top in ((1, 60), (1, 20), (1, 3), (1, 4), (1, 6))),
        st.booleans(),
    ),
    st.integers(1, 3),
    st.data(),
)
def test_activations_measured_are_those_predicted_to_the_byte(config: GPTConfig, B: int, data: st.DataObject) -> None:
    T = data.draw(st.integers(1, config.block_size))
    ids, targets = batch(config, B, T)
    for dtype in (torch.float32, torch.float64):
        model = GPT(config).to(dtype)
        found = saved_bytes(lambda model=model: loss_of(model, ids, targets), model.parameters())
        assert found == activation_bytes(config, B, T, dtype.itemsize)


def test_activations_at_the_width_of_gpt2() -> None:
    config = GPTConfig.preset("gpt2", n_layer=2)
    model, (ids, targets) = GPT(config), batch(config, 2, 128)
    found = saved_bytes(lambda: loss_of(model, ids, targets), model.parameters())
    assert found == activation_bytes(config, 2, 128)


def test_dropout_keeps_more() -> None:
    """A mask a number and what it makes, after the embeddings and twice a block; and attention's whole matrix.

    The CPU's fused kernel has no dropout, so the weights of every head are kept, T numbers a token, several times over.
    """
    config = GPTConfig.preset("tiny", dropout=0.1)
    model, (ids, targets) = GPT(config), batch(config, 2, 64)
    plain = activation_bytes(config, 2, 64)
    assert saved_bytes(lambda: loss_of(model.eval(), ids, targets), model.parameters()) == plain
    found = saved_bytes(lambda: loss_of(model.train(), ids, targets), model.parameters())
    L, C, nh, per_token = config.n_layer, config.n_embd, config.n_head, 2 * 64 * 4
    assert found - plain > per_token * ((1 + 2 * L) * C + 2 * L * nh * 64)


@CONFIGS
def test_gradients_and_optimiser_are_as_large_as_predicted(config: GPTConfig) -> None:
    model, (ids, targets) = GPT(config), batch(config, 2, 8)
    optimiser = torch.optim.AdamW(model.parameters())
    loss_of(model, ids, targets).backward()
    optimiser.step()
    predicted = training_bytes(config, 2, 8)
    assert list(predicted) == ["weights", "gradients", "optimiser", "activations"]
    assert predicted["weights"] == sum(p.nbytes for p in model.parameters())
    assert predicted["gradients"] == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    kept = [part for state in optimiser.state.values() for name, part in state.items() if name != "step"]
    assert predicted["optimiser"] == sum(part.nbytes for part in kept)  # and a step counter of 4 bytes a parameter
    assert predicted["activations"] == activation_bytes(config, 2, 8)


def test_saved_bytes_of_an_example_counted_by_hand() -> None:
    """a * b keeps both; a * a keeps one piece of memory; exp keeps its result; a sum keeps nothing."""
    a, b = torch.ones(3, 5, requires_grad=True), torch.ones(3, 5, requires_grad=True)
    assert saved_bytes(lambda: a * b) == 2 * 60
    assert saved_bytes(lambda: a * b, [b]) == 60
    assert saved_bytes(lambda: a * a) == 60
    assert saved_bytes(lambda: a * a.view(15)[:5]) == 60  # a view is the same memory
    assert saved_bytes(lambda: a.exp().sum()) == 60
    assert saved_bytes(lambda: a.sum()) == 0
    assert saved_bytes(lambda: [part * 2.0 for part in (a, b)]) == 0
    assert a.grad is None


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda c: flops_per_token(c, 0), ValueError, "T must be 1 or more, not 0"),
        (lambda c: flops_per_token(c, 257), ValueError, "257 tokens are more than block_size=256"),
        (lambda c: flops_per_token(c, False), TypeError, "T must be a whole number, not False"),
        (lambda c: activation_bytes(c, 0, 4), ValueError, "B must be 1 or more, not 0"),
        (lambda c: activation_bytes(c, 1, 257), ValueError, "257 tokens"),
        (lambda c: activation_bytes(c, 1, 4, 0), ValueError, "itemsize must be 1 or more, not 0"),
        (lambda c: training_bytes(c, 1, 257), ValueError, "257 tokens"),
        (lambda c: training_bytes(c, True, 4), TypeError, "B must be a whole number, not True"),
    ],
)
def test_sizes_that_cannot_be_are_refused(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call(GPTConfig.preset("tiny"))


def test_small_whole_numbers_of_numpy_do_not_overflow() -> None:
    config = GPTConfig.preset("tiny")
    B, T = np.uint8(200), np.uint8(200)
    assert activation_bytes(config, B, T) == activation_bytes(config, 200, 200)  # type: ignore[arg-type]
    assert flops_per_token(config, T) == flops_per_token(config, 200)  # type: ignore[arg-type]
    small = GPTConfig(np.uint8(200), np.uint8(200), np.uint8(2), np.uint8(4), np.uint8(200))  # type: ignore[arg-type]
    assert count_parameters(small) == count_parameters(GPTConfig(200, 200, 2, 4, 200))


# --- the committed table ---


def test_memory_table_can_be_made_again(tmp_path: Path) -> None:
    small = GPTConfig(vocab_size=20, block_size=16, n_layer=2, n_head=2, n_embd=8)
    rows = gpt2_memory.measure(small, 2, 8)
    assert rows[0][1] * 1e6 == pytest.approx(activation_bytes(small, 2, 8))
    gpt2_memory.write(rows, tmp_path / "rows.csv")
    assert [row[0] for row in gpt2_memory.read(tmp_path / "rows.csv")] == ["glassbox", "transformers"]


def test_memory_table_says_what_the_formula_says() -> None:
    """At the full size; and less is kept for the backward pass than transformers keeps."""
    ours, theirs = gpt2_memory.read()
    assert ours[1] == pytest.approx(activation_bytes(GPTConfig(), 2, 256) / 1e6, rel=1e-4)
    assert ours[1] < 0.85 * theirs[1]
    assert all(a <= b for a, b in zip(ours[2:], theirs[2:], strict=True))
