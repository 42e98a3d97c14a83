"""03_attention: attention, heads, cache and the layer of GPT-2, against PyTorch's and transformers' own.

Tolerances are absolute, for numbers of the order of 1: 2e-6 in float32 forward, 2e-5 for gradients, which add up many
more numbers; 1e-13 and 1e-12 in float64.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from glassbox.attention import (
    CausalSelfAttention,
    KVCache,
    attention,
    attention_weights,
    causal_mask,
    merge_heads,
    split_heads,
)
from glassbox.basics import softmax
from hypothesis import given
from hypothesis import strategies as st
from test_pretokens import examples
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
FORWARD = {torch.float32: 2e-6, torch.float64: 1e-13}
BACKWARD = {torch.float32: 2e-5, torch.float64: 1e-12}
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
SIZES = pytest.mark.parametrize(
    ("B", "T", "C", "nh"), [(1, 1, 4, 1), (2, 7, 12, 3), (3, 33, 32, 8), (1, 64, 60, 5)], ids=str
)


def numbers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0, grad: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 1000 * sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(grad)


def heads(*batch: int, Tq: int, Tk: int, hs: int, dtype: torch.dtype = torch.float64, grad: bool = False) -> Heads:
    """Queries, keys and values."""
    q, k, v = (numbers(*batch, T, hs, dtype=dtype, seed=seed, grad=grad) for seed, T in ((1, Tq), (2, Tk), (3, Tk)))
    return q, k, v


def furthest(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    """The largest difference; one that is no number counts as infinite."""
    assert [x.shape for x in found] == [x.shape for x in wanted]
    with torch.no_grad():
        differences = [(a.double() - b.double()).abs().max() for a, b in zip(found, wanted, strict=True)]
        return float(torch.stack(differences).nan_to_num(nan=math.inf).max())


def gradients(result: torch.Tensor, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(result, inputs, numbers(*result.shape, dtype=result.dtype, seed=9))


def layer(C: int, nh: int, block_size: int, dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(7)
    return CausalSelfAttention(C, nh, block_size, dropout).to(dtype)


# --- the mask ---


@examples(60)
@given(st.integers(1, 20), st.integers(0, 20))
def test_mask_shows_the_past_and_the_token_itself(T: int, past: int) -> None:
    mask = causal_mask(T, past)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[column <= past + row for column in range(past + T)] for row in range(T)]
    assert torch.equal(mask, causal_mask(past + T)[past:])  # the last rows of the whole text's mask


@pytest.mark.parametrize(
    ("T", "past", "error", "said"),
    [
        (0, 0, ValueError, "T must be 1 or more, not 0"),
        (-1, 0, ValueError, "T must be 1 or more, not -1"),
        (3, -1, ValueError, "past must be 0 or more, not -1"),
        (2.0, 0, TypeError, "T must be a whole number, not 2.0"),
        (2, "3", TypeError, "past must be a whole number, not '3'"),
    ],
)
def test_mask_of_no_rows_is_refused(T: Any, past: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        causal_mask(T, past)


def test_small_whole_numbers_of_numpy_do_not_overflow() -> None:
    assert causal_mask(np.uint8(200), np.uint8(200)).shape == (200, 400)  # type: ignore[arg-type]
    model = CausalSelfAttention(np.uint8(128), np.uint8(2), np.uint8(250))  # type: ignore[arg-type]
    assert model.c_attn.weight.shape == (384, 128)
    assert model(torch.zeros(1, 200, 128)).shape == (1, 200, 128)


# --- one head ---


def test_weights_by_the_definition() -> None:
    """Number by number, with the softmax of module 00."""
    q, k, v = heads(Tq=4, Tk=6, hs=5)
    mask = causal_mask(4, 2)
    weights, result = attention_weights(q, k, mask), attention(q, k, v, mask)
    for t in range(4):
        scores = [sum(float(q[t, c] * k[j, c]) for c in range(5)) / math.sqrt(5) for j in range(t + 3)]
        wanted = np.append(softmax(scores), np.zeros(3 - t))
        np.testing.assert_allclose(weights[t].numpy(), wanted, atol=1e-15)
        np.testing.assert_allclose(result[t].numpy(), wanted @ v.numpy(), atol=1e-15)
    assert torch.equal(weights == 0, ~mask)


MASKS: dict[str, Callable[[], torch.Tensor | None]] = {
    "none": lambda: None,
    "causal": lambda: causal_mask(9, 4),
    "padding": lambda: (torch.arange(13) < torch.tensor([[5], [13]]))[:, None, None],  # (B, 1, 1, Tk)
    "each head": lambda: numbers(3, 9, 13) > 0,
    "everything": lambda: numbers(2, 3, 9, 13) > 0,
    "one row for all": lambda: numbers(13) > 0,
    "empty rows": lambda: (numbers(2, 1, 9, 13) > 0) & (torch.arange(9) % 3 > 0)[:, None],
    "one number": lambda: torch.tensor(True),
}


@TYPES
@pytest.mark.parametrize("name", MASKS)
def test_attention_is_torchs(name: str, dtype: torch.dtype) -> None:
    mask = MASKS[name]()
    inputs = heads(2, 3, Tq=9, Tk=13, hs=8, dtype=dtype, grad=True)
    ours = attention(*inputs, mask)
    theirs = F.scaled_dot_product_attention(*inputs, None if mask is None else mask.expand(2, 3, 9, 13))
    assert furthest([ours], [theirs]) <= FORWARD[dtype]
    assert furthest(gradients(ours, inputs), gradients(theirs, inputs)) <= BACKWARD[dtype]
    weights = attention_weights(inputs[0], inputs[1], mask)
    some = torch.ones(2, 3, 9) if mask is None else mask.expand(2, 3, 9, 13).any(-1)
    assert furthest([weights.sum(-1)], [some.to(dtype)]) <= FORWARD[dtype]  # 1, or 0 where nothing is allowed


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_a_row_that_may_look_nowhere_is_zero_and_has_no_gradient() -> None:
    q, k, v = heads(2, Tq=3, Tk=4, hs=2, grad=True)
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    with torch.autograd.detect_anomaly(check_nan=True):  # not even on the way
        result = attention(q, k, v, mask)
        dq, dk, dv = torch.autograd.grad(result.square().sum(), (q, k, v))
    assert torch.equal(result[:, 1], torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(dq[:, 1], torch.zeros(2, 2, dtype=torch.float64))
    assert all(x.isfinite().all() and x.abs().sum() > 0 for x in (dq, dk, dv))
    none = attention(q, k, v, torch.tensor(False))
    assert torch.equal(none, torch.zeros_like(none))


def test_huge_scores_stay_finite() -> None:
    """Softmax of scores around 10,000 chooses one key, and a common part of all scores changes nothing."""
    q, k, v = heads(2, Tq=5, Tk=6, hs=4, dtype=torch.float32)
    result = attention(q * 1e3, k * 1e3, v, causal_mask(5, 1))
    best = (q @ k.transpose(1, 2)).masked_fill(~causal_mask(5, 1), -math.inf).argmax(-1)
    assert furthest([result], [torch.stack([v[b, best[b]] for b in range(2)])]) <= 1e-6


@examples(40)
@given(st.permutations(range(7)))
def test_without_positions_order_says_nothing(order: list[int]) -> None:
    """Inputs in another order give the results in that order; the last token sees the same bag either way."""
    q, k, v = heads(2, Tq=7, Tk=7, hs=4)
    shuffled = attention(*(x[:, order] for x in (q, k, v)))
    assert furthest([shuffled], [attention(q, k, v)[:, order]]) <= 1e-14
    model, x = layer(8, 2, 8), numbers(1, 8, 8)
    before_last = [*order, 7]
    assert furthest([model(x[:, before_last])[:, 7]], [model(x)[:, 7]]) <= 1e-14


# --- many heads ---


@examples(60)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(1, 5))
def test_heads_are_cut_from_the_channels(B: int, T: int, nh: int, hs: int) -> None:
    x = numbers(B, T, nh * hs)
    cut = split_heads(x, nh)
    assert cut.shape == (B, nh, T, hs)
    for head in range(nh):
        assert torch.equal(cut[:, head], x[:, :, head * hs : (head + 1) * hs])
    assert cut.data_ptr() == x.data_ptr()  # a view
    assert torch.equal(merge_heads(cut), x)


def test_a_stack_of_heads_is_one_matrix() -> None:
    """Three heads, each with matrices of its own, their results side by side: what one c_attn computes."""
    B, T, C, nh = 2, 6, 12, 3
    hs, x, model = C // nh, numbers(B, T, C), layer(C, nh, T)
    weights, biases = (part.view(3, nh, hs, *part.shape[1:]) for part in (model.c_attn.weight, model.c_attn.bias))
    results = []
    for head in range(nh):
        q, k, v = (F.linear(x, weights[part, head], biases[part, head]) for part in range(3))  # (B, T, hs)
        results.append(attention(q, k, v, causal_mask(T)))
    assert furthest([model(x)], [model.c_proj(torch.cat(results, dim=-1))]) <= 1e-14


def test_causal_by_perturbation_and_by_gradient_at_every_place() -> None:
    T, C = 7, 12
    model, x = layer(C, 3, T), numbers(1, T, C, grad=True)
    result = model(x)
    for t in range(T):
        (gradient,) = torch.autograd.grad(result[0, t].square().sum(), x, retain_graph=True)
        size = gradient[0].abs().amax(dim=-1)  # (T,)
        assert size[t + 1 :].eq(0).all()
        assert size[: t + 1].gt(0).all()


@examples(60)
@given(st.data())
def test_changing_a_token_changes_nothing_before_it(data: st.DataObject) -> None:
    T = data.draw(st.integers(1, 40))
    t = data.draw(st.integers(0, T - 1))
    model, x = layer(8, 2, 40), numbers(2, T, 8)
    changed = x.clone()
    changed[:, t] += data.draw(st.sampled_from([1e-3, 1.0, -1e4]))
    with torch.no_grad():
        before, after = model(x), model(changed)
    assert torch.equal(after[:, :t], before[:, :t])
    assert (after[:, t:] != before[:, t:]).any(dim=-1).all()


# --- the same weights in other libraries ---


def twin_of_torch(model: CausalSelfAttention) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    C = model.c_proj.in_features
    twin = torch.nn.MultiheadAttention(C, model.n_head, batch_first=True, dtype=model.c_proj.weight.dtype)
    theirs = [twin.in_proj_weight, twin.in_proj_bias, twin.out_proj.weight, twin.out_proj.bias]
    with torch.no_grad():
        for to, part in zip(theirs, model.parameters(), strict=True):
            to.copy_(part)
    return twin, theirs


def twin_of_transformers(model: CausalSelfAttention, kind: str) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """transformers keeps the matrices of GPT-2 transposed."""
    config = GPT2Config(n_embd=model.c_proj.in_features, n_head=model.n_head, n_positions=model.block_size)
    config.attn_pdrop = config.resid_pdrop = model.dropout
    config._attn_implementation = kind
    twin = GPT2Attention(config, layer_idx=0).to(model.c_proj.weight.dtype)
    twin.load_state_dict({name: part.T if part.ndim == 2 else part for name, part in model.state_dict().items()})
    return twin, list(twin.parameters())


@TYPES
@SIZES
def test_layer_is_torchs_multihead_attention(B: int, T: int, C: int, nh: int, dtype: torch.dtype) -> None:
    model, x = layer(C, nh, T + 1, dtype=dtype), numbers(B, T, C, dtype=dtype, grad=True)
    twin, parameters = twin_of_torch(model)
    ours, (theirs, _) = model(x), twin(x, x, x, attn_mask=~causal_mask(T), need_weights=False)
    assert furthest([ours], [theirs]) <= FORWARD[dtype]
    found, wanted = gradients(ours, [x, *model.parameters()]), gradients(theirs, [x, *parameters])
    assert furthest(found, wanted) <= BACKWARD[dtype]


@TYPES
@SIZES
@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_layer_is_gpt2s_in_transformers(B: int, T: int, C: int, nh: int, dtype: torch.dtype, kind: str) -> None:
    model, x = layer(C, nh, T + 1, dtype=dtype), numbers(B, T, C, dtype=dtype, grad=True)
    twin, parameters = twin_of_transformers(model, kind)
    forbidden = torch.zeros(T, T, dtype=dtype).masked_fill(~causal_mask(T), torch.finfo(dtype).min)
    ours, theirs = model(x), twin(x, attention_mask=forbidden[None, None] if kind == "eager" else None)[0]
    assert furthest([ours], [theirs]) <= FORWARD[dtype]
    found, wanted = gradients(ours, [x, *model.parameters()]), gradients(theirs, [x, *parameters])
    wanted = [part.T if part.ndim == 2 else part for part in wanted]
    assert furthest(found, wanted) <= BACKWARD[dtype]


def test_parameters_have_gpt2s_names() -> None:
    model = layer(12, 3, 8)
    assert {name: tuple(part.shape) for name, part in model.state_dict().items()} == {
        "c_attn.weight": (36, 12),
        "c_attn.bias": (36,),
        "c_proj.weight": (12, 12),
        "c_proj.bias": (12,),
    }
    assert torch.equal(copy.deepcopy(model)(numbers(1, 8, 12)), model(numbers(1, 8, 12)))


# --- dropout ---


def test_dropout_acts_in_training_only() -> None:
    model, plain, x = layer(12, 3, 8, dropout=0.5), layer(12, 3, 8), numbers(2, 8, 12)
    torch.manual_seed(1)
    first, second = model(x), model(x)
    assert (first != second).any()
    assert (first == 0).double().mean() == pytest.approx(0.5, abs=0.15)  # the result's own share
    model.eval()
    assert torch.equal(model(x), plain(x))
    assert torch.equal(model(x), model(x))


def test_dropout_of_the_weights_keeps_the_mean() -> None:
    """Over 20,000 draws the mean is that without dropout, to five standard errors; the result is not dropped here."""
    n, T, C = 20_000, 4, 8
    model, x = layer(C, 2, T, dropout=0.4), numbers(1, T, C)
    model.resid_dropout.p = 0.0
    torch.manual_seed(3)
    with torch.no_grad():
        drawn = model(x.expand(n, T, C))
        wanted = model.eval()(x)[0]
    error = drawn.std(dim=0) / n**0.5
    assert error.min() > 0  # weights were dropped at every place
    assert ((drawn.mean(dim=0) - wanted).abs() <= 5 * error).all()


# --- the cache ---


def pieces(cuts: Sequence[bool]) -> list[int]:
    """Lengths of the pieces of a text that is cut after token i where cuts[i]."""
    places = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(cuts) + 1]
    return [b - a for a, b in pairwise(places)]


@examples(80)
@given(st.lists(st.booleans(), max_size=14))
def test_a_cache_changes_nothing_however_the_text_is_cut(cuts: list[bool]) -> None:
    lengths = pieces(cuts)
    T = sum(lengths)
    model, cache = layer(12, 3, T), KVCache(T)
    with torch.no_grad():
        for seed, B in ((0, 2), (1, 3)):  # the second text after a reset, with another batch size
            x = numbers(B, T, 12, seed=seed)
            found = [model(part, cache) for part in x.split(lengths, dim=1)]
            assert furthest([torch.cat(found, dim=1)], [model(x)]) <= 1e-14
            assert cache.length == T
            cache.reset()
            assert cache.length == 0


@TYPES
def test_each_new_token_alone(dtype: torch.dtype) -> None:
    model, cache, x = layer(32, 4, 50, dtype=dtype), KVCache(64), numbers(2, 50, 32, dtype=dtype)
    with torch.no_grad():
        found = torch.cat([model(token, cache) for token in x.split(1, dim=1)], dim=1)
        assert furthest([found], [model(x)]) <= FORWARD[dtype]


def test_cache_hands_back_all_it_holds_and_takes_its_memory_once() -> None:
    cache, k, v = KVCache(6), numbers(2, 3, 5, 4, seed=1), numbers(2, 3, 5, 7, seed=2)  # values may have another size
    first = cache.append(k[:, :, :2], v[:, :, :2])
    assert cache.keys is not None
    held, place = [part.clone() for part in first], cache.keys.data_ptr()
    last = cache.append(k[:, :, 2:], v[:, :, 2:])
    assert all(torch.equal(a, b) for a, b in zip(last, (k, v), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, held, strict=True))  # what was handed out stays
    assert cache.keys.data_ptr() == place
    cache.reset()
    again = cache.append(v[:1].float(), k[:1].float())
    assert all(torch.equal(a, b) for a, b in zip(last, (k, v), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(again, (v[:1].float(), k[:1].float()), strict=True))


REFUSED: dict[str, tuple[Callable[[], tuple[torch.Tensor, ...]], str]] = {
    "batch": (lambda: (numbers(3, 4, 1, 2), numbers(3, 4, 1, 2)), r"batch size 3, the cache holds batch size 2.*reset"),
    "heads": (lambda: (numbers(2, 1, 1, 2), numbers(2, 1, 1, 2)), "heads 1, the cache holds heads 4"),
    "head size": (lambda: (numbers(2, 4, 1, 3), numbers(2, 4, 1, 2)), "new keys have head size 3.* holds head size 2"),
    "value size": (lambda: (numbers(2, 4, 1, 2), numbers(2, 4, 1, 3)), "new values have head size 3"),
    "type": (lambda: (numbers(2, 4, 1, 2).float(), numbers(2, 4, 1, 2).float()), "type torch.float32.*torch.float64"),
    "device": (lambda: (torch.empty(2, 4, 1, 2, device="meta").double(),) * 2, "device meta, the cache holds.*cpu"),
    "too many": (lambda: (numbers(2, 4, 4, 2), numbers(2, 4, 4, 2)), r"4 tokens after 3.*block_size.?=.?6"),
    "none": (lambda: (numbers(2, 4, 0, 2), numbers(2, 4, 0, 2)), "none of them 0"),
    "lengths": (lambda: (numbers(2, 4, 2, 2), numbers(2, 4, 1, 2)), "same B, nh and T"),
    "axes": (lambda: (numbers(4, 1, 2), numbers(4, 1, 2)), r"must be \(B, nh, T, hs\)"),
    "gradients": (lambda: (numbers(2, 4, 1, 2), numbers(2, 4, 1, 2, grad=True)), r"torch.no_grad\(\)"),
    "two types": (lambda: (numbers(2, 4, 1, 2), numbers(2, 4, 1, 2).float()), "values torch.float32.* one type"),
    "two devices": (lambda: (numbers(2, 4, 1, 2), numbers(2, 4, 1, 2).to("meta")), "on meta: both must have one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_cache_refuses_what_does_not_fit_and_stays_as_it_was(name: str) -> None:
    make, said = REFUSED[name]
    cache = KVCache(6)
    k, v = numbers(2, 4, 3, 2, seed=1), numbers(2, 4, 3, 2, seed=2)
    cache.append(k, v)
    new_k, new_v = make()
    with pytest.raises(ValueError, match=said):
        cache.append(new_k, new_v)
    assert cache.length == 3
    rest = numbers(2, 4, 3, 2, seed=3)
    assert torch.equal(cache.append(rest, rest)[0], torch.cat([k, rest], dim=2))


def test_cache_wants_tensors() -> None:
    with pytest.raises(TypeError, match=r"v must be a tensor.*NoneType"):
        KVCache(6).append(numbers(2, 4, 1, 2), None)  # type: ignore[arg-type]


def test_cache_begun_in_inference_mode_goes_on_only_there() -> None:
    cache, k = KVCache(6), numbers(2, 4, 1, 2)
    with torch.inference_mode():
        cache.append(k, k)
    with torch.no_grad(), pytest.raises(ValueError, match=r"inference_mode.* call reset\(\) first"):
        cache.append(k, k)
    assert cache.length == 1
    with torch.inference_mode():
        assert torch.equal(cache.append(k, k)[1], torch.cat([k, k], dim=2))
    cache.reset()
    with torch.no_grad():
        cache.append(k, k)
    with torch.inference_mode():  # the other way round is no harm
        assert torch.equal(cache.append(k, k)[1], torch.cat([k, k], dim=2))


def test_cache_with_gradients_is_refused_by_the_layer() -> None:
    model, cache, x = layer(12, 3, 8), KVCache(8), numbers(1, 2, 12)
    with pytest.raises(ValueError, match=r"torch.no_grad\(\)"):
        model(x, cache)
    assert cache.length == 0
    assert cache.keys is None
    model.requires_grad_(False)
    assert torch.equal(model(x, cache), model(x))  # nothing here wants gradients


# --- what later modules will put together ---


@pytest.mark.parametrize("window", [1, 3, 20])
def test_a_sliding_window_is_a_mask(window: int) -> None:
    """Each token sees itself and the window - 1 tokens before it: two masks, one of them turned round."""
    T = 11
    mask = causal_mask(T) & ~causal_mask(T).tril(-window)
    distance = torch.arange(T)[:, None] - torch.arange(T)
    assert torch.equal(mask, (distance >= 0) & (distance < window))
    q, k, v = (split_heads(numbers(2, T, 12, seed=seed), 3) for seed in range(3))
    theirs = F.scaled_dot_product_attention(q, k, v, mask)
    assert furthest([attention(q, k, v, mask)], [theirs]) <= 1e-13
    k, v = KVCache(T).append(k, v)  # a window over a cache: the last row alone
    assert furthest([attention(q[:, :, -1:], k, v, mask[-1:])], [theirs[:, :, -1:]]) <= 1e-13


@pytest.mark.parametrize("n_kv", [1, 2, 3, 6])
def test_fewer_heads_for_keys_and_values(n_kv: int) -> None:
    """Grouped queries (Ainslie et al., 2023): split with two numbers of heads, keep few, repeat them for attention."""
    B, T, nh, hs = 2, 9, 6, 4
    q = split_heads(numbers(B, T, nh * hs, seed=1), nh)
    k, v = (split_heads(numbers(B, T, n_kv * hs, seed=seed), n_kv) for seed in (2, 3))
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    cache = KVCache(T)
    for part in range(0, T, 3):
        span = slice(part, part + 3)
        few = cache.append(k[:, :, span], v[:, :, span])
        many_k, many_v = (x.repeat_interleave(nh // n_kv, dim=1) for x in few)
        found = attention(q[:, :, span], many_k, many_v, causal_mask(3, part))
        assert furthest([found], [theirs[:, :, span]]) <= 1e-13
    assert cache.keys is not None
    assert cache.keys.shape == (B, n_kv, T, hs)
    # or by broadcasting, without a copy
    found = attention(q.reshape(B, n_kv, nh // n_kv, T, hs), k[:, :, None], v[:, :, None], causal_mask(T))
    assert furthest([found.view(B, nh, T, hs)], [theirs]) <= 1e-13


# --- other types, and the compiler ---


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)], ids=str)
def test_half_precision_is_close(dtype: torch.dtype, tolerance: float) -> None:
    model, x = layer(32, 4, 40), numbers(2, 40, 32).to(dtype)
    wanted = model.to(dtype).double()(x.double())  # the rounded weights, computed exactly
    model, cache = model.to(dtype), KVCache(40)
    with torch.no_grad():
        assert furthest([model(x)], [wanted]) <= tolerance
        found = torch.cat([model(part, cache) for part in x.split([25, 1, 14], dim=1)], dim=1)
        assert furthest([found], [wanted]) <= tolerance
    q, k, v = heads(2, Tq=5, Tk=5, hs=8, dtype=dtype)
    wanted = attention(q.double(), k.double(), v.double(), causal_mask(5))
    assert furthest([attention(q, k, v, causal_mask(5))], [wanted]) <= tolerance
    assert attention(q, k, v, torch.tensor(False)).eq(0).all()


def test_layer_is_one_graph_for_the_compiler() -> None:
    """Traced whole, with any length and with a cache."""
    model, x = layer(12, 3, 16), numbers(2, 10, 12)
    torch._dynamo.reset()
    traced: Any = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for T in (10, 7):
        assert furthest([traced(x[:, :T])], [model(x[:, :T])]) <= 1e-14
    with torch.no_grad():
        cache = KVCache(16)
        found = torch.cat([traced(part, cache) for part in x.split([4, 1, 5], dim=1)], dim=1)
        assert furthest([found], [model(x)]) <= 1e-14
    torch._dynamo.reset()


# --- what is refused ---


@pytest.mark.parametrize(
    ("mask", "error", "said"),
    [
        (torch.zeros(9, 13), TypeError, r"mask holds torch.float32; it must be a bool.*mask.bool\(\)"),
        (torch.ones(9, 13, dtype=torch.int64), TypeError, "mask holds torch.int64"),
        ([[True]], TypeError, "mask holds list"),
        (torch.ones(13, 9, dtype=torch.bool), ValueError, r"\(13, 9\); it must broadcast to .* = \(2, 3, 9, 13\)"),
        (torch.ones(9, 1, 1, dtype=torch.bool), ValueError, r"\(9, 1, 1\); it must broadcast"),
        (torch.ones(2, 9, 13, dtype=torch.bool), ValueError, r"\(2, 9, 13\); it must broadcast"),
        (torch.ones(5, 2, 3, 9, 13, dtype=torch.bool), ValueError, r"\(5, 2, 3, 9, 13\); it must broadcast"),
        (causal_mask(8, 4), ValueError, r"\(8, 12\); it must broadcast"),
    ],
    ids=str,
)
def test_masks_that_do_not_fit_are_refused(mask: Any, error: type[Exception], said: str) -> None:
    inputs = heads(2, 3, Tq=9, Tk=13, hs=4)
    with pytest.raises(error, match=said):
        attention(*inputs, mask)
    with pytest.raises(error, match=said):
        attention_weights(inputs[0], inputs[1], mask)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((2, 3, 4), (2, 5, 3), (2, 5, 4)), "the same hs"),
        (((2, 3, 4), (2, 5, 4), (2, 6, 4)), "the same length Tk"),
        (((2, 3, 4), (3, 5, 4), (3, 5, 4)), "must be equal or 1"),
        (((2, 3, 4), (5, 4), (7, 5, 4)), "must be equal or 1"),
        (((2, 6, 3, 4), (2, 2, 3, 4), (2, 2, 3, 4)), "repeat_interleave"),
        (((2, 0, 4), (2, 5, 4), (2, 5, 4)), "none of them 0"),
        (((2, 3, 4), (2, 0, 4), (2, 0, 4)), "none of them 0"),
        (((2, 3, 0), (2, 3, 0), (2, 3, 4)), "none of them 0"),
        (((4,), (3, 4), (3, 4)), r"q must be \(..., Tq, hs\)"),
    ],
    ids=str,
)
def test_heads_that_do_not_go_together_are_refused(shapes: Sequence[tuple[int, ...]], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        attention(torch.zeros(shapes[0]), torch.zeros(shapes[1]), torch.zeros(shapes[2]))
    assert all(str(shape) in str(caught.value) for shape in shapes)


def test_types_that_do_not_go_together_are_refused() -> None:
    q, k, v = heads(2, Tq=3, Tk=3, hs=4)
    with pytest.raises(TypeError, match=r"q torch.float64 .* k torch.float32 .*\.to\("):
        attention(q, k.float(), v)
    with pytest.raises(TypeError, match=r"q torch.float64 .* k torch.float32 .*\.to\("):
        attention_weights(q, k.float())
    with pytest.raises(ValueError, match="the same hs"):
        attention_weights(q, k[..., :3])
    with pytest.raises(TypeError, match=r"v torch.float32"):
        attention(q, k, v.float())
    with pytest.raises(TypeError, match="floating point"):
        attention(q.long(), k.long(), v.long())
    for wrong in (None, [1.0], np.zeros((3, 4))):
        with pytest.raises(TypeError, match=f"v must be a tensor.*not {type(wrong).__name__}"):
            attention(q, k, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="q on cpu, k on meta: all must be on one device"):
        attention_weights(q, k.to("meta"))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: CausalSelfAttention(10, 3, 8), ValueError, "n_embd = 10 cannot be cut into n_head = 3"),
        (lambda: CausalSelfAttention(10, 20, 8), ValueError, "n_embd = 10 cannot be cut into n_head = 20"),
        (lambda: CausalSelfAttention(10, 0, 8), ValueError, "n_head must be 1 or more, not 0"),
        (lambda: CausalSelfAttention(0, 1, 8), ValueError, "n_embd must be 1 or more, not 0"),
        (lambda: CausalSelfAttention(10, 2, 0), ValueError, "block_size must be 1 or more, not 0"),
        (lambda: CausalSelfAttention(10, 2.5, 8), TypeError, "n_head must be a whole number"),  # type: ignore
        (lambda: CausalSelfAttention(10, 2, 8, 1.5), ValueError, "1.5"),
        (lambda: CausalSelfAttention(10, 2, 8, float("nan")), ValueError, "dropout.* nan"),
        (lambda: CausalSelfAttention(10, 2, 8, "0.1"), TypeError, "dropout.* '0.1'"),  # type: ignore
        (lambda: KVCache(0), ValueError, "block_size must be 1 or more, not 0"),
        (lambda: split_heads(torch.zeros(1, 2, 10), 3), ValueError, "n_embd = 10 cannot be cut into n_head = 3"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make: Callable[[], object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make()


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        (torch.zeros(2, 3, 11), ValueError, r"\(2, 3, 11\); it must be \(B, T, 12\)"),
        (torch.zeros(3, 12), ValueError, r"\(3, 12\); it must be \(B, T, 12\)"),
        (torch.zeros(2, 0, 12), ValueError, "at least 1"),
        (torch.zeros(0, 2, 12), ValueError, "at least 1"),
        (torch.zeros(2, 3, 12, dtype=torch.long), TypeError, "embed ids first"),
        (torch.zeros(2, 9, 12), ValueError, r"9 tokens.*block_size.?=.?8"),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit_are_refused(
    x: torch.Tensor, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = layer(12, 3, 8, dtype=torch.float32)
    monkeypatch.setattr(model, "c_attn", Untouched(12))  # no work is done
    with pytest.raises(error, match=said):
        model(x)


class Untouched(torch.nn.Module):
    """A layer that must not be called."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features = in_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("work was done before the input was refused")


def test_a_text_longer_than_the_block_is_refused_with_its_past() -> None:
    model, cache = layer(12, 3, 8), KVCache(20)
    with torch.no_grad():
        model(numbers(1, 6, 12), cache)
        with pytest.raises(ValueError, match=r"3 tokens after 6.*block_size.?=.?8"):
            model(numbers(1, 3, 12), cache)
        assert cache.length == 6
        assert model(numbers(1, 2, 12), cache).shape == (1, 2, 12)
        small = KVCache(4)  # the cache has a limit of its own
        with pytest.raises(ValueError, match=r"5 tokens.*block_size.?=.?4"):
            model(numbers(1, 5, 12), small)
        assert small.length == 0
