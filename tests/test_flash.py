"""03_attention: attention tile by tile, against `attention` with its whole matrix; and the memory of both.

Tolerances: 1e-5 in float32, forward and backward; 1e-12 in float64.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from glassbox.attention import attention, causal_mask
from glassbox.flash import flash_attention, online_softmax, tile_scores, visible_tiles
from hypothesis import given
from hypothesis import strategies as st
from test_attention import Heads, furthest, gradients, heads, layer, numbers
from test_pretokens import examples

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

import attention_memory
from attention_memory import peak_bytes

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
TYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def both_ways(
    inputs: Heads, mask: torch.Tensor | None = None, is_causal: bool = False, **tiles: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Result and gradients, tile by tile and with the whole matrix."""
    whole = mask
    if is_causal:
        Tq, Tk = inputs[0].shape[-2], inputs[1].shape[-2]
        whole = causal_mask(Tq, Tk - Tq) if mask is None else mask & causal_mask(Tq, Tk - Tq)
    found, wanted = flash_attention(*inputs, mask, is_causal, **tiles), attention(*inputs, whole)
    assert found.dtype == wanted.dtype
    return [found, *gradients(found, inputs)], [wanted, *gradients(wanted, inputs)]


# --- equal to the plain one ---


@examples(150)
@given(st.data())
def test_any_sizes_tiles_and_masks(data: st.DataObject) -> None:
    """Ragged sizes, tiles of one and tiles larger than the whole, masks with empty rows and empty tiles, broadcast."""
    sizes, tiles = st.integers(1, 11), st.sampled_from([1, 2, 3, 4, 7, 100])
    B, nh, hs, D = (data.draw(st.integers(1, 3)) for _ in range(4))
    Tq, is_causal = data.draw(sizes), data.draw(st.booleans())
    Tk = Tq + data.draw(st.integers(0, 6)) if is_causal else data.draw(sizes)
    q, k, _ = heads(B, nh, Tq=Tq, Tk=Tk, hs=hs, grad=True)
    inputs = q, k, numbers(B, nh, Tk, D, seed=4, grad=True)
    mask = None
    if data.draw(st.booleans()):
        full = (B, nh, Tq, Tk)
        shape = tuple(n if data.draw(st.booleans()) else 1 for n in full)[data.draw(st.integers(0, 4)) :]
        share = data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
        seed = data.draw(st.integers(0, 2**32))
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share
    found, wanted = both_ways(inputs, mask, is_causal, tile_q=data.draw(tiles), tile_k=data.draw(tiles))
    assert furthest(found, wanted) <= 1e-12


@TYPES
@pytest.mark.parametrize("is_causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize(("Tq", "Tk"), [(257, 300), (1, 700), (512, 512), (300, 301)], ids=str)
def test_ragged_sizes_with_the_usual_tiles(Tq: int, Tk: int, is_causal: bool, dtype: torch.dtype) -> None:
    found, wanted = both_ways(heads(2, 2, Tq=Tq, Tk=Tk, hs=16, dtype=dtype, grad=True), None, is_causal)
    assert furthest(found, wanted) <= TOLERANCE[dtype]


@TYPES
@pytest.mark.parametrize("is_causal", [False, True], ids=["all", "causal"])
def test_tiles_rows_and_everything_forbidden(is_causal: bool, dtype: torch.dtype) -> None:
    inputs = heads(2, 3, Tq=12, Tk=16, hs=4, dtype=dtype, grad=True)
    mask = numbers(2, 1, 12, 16) > -0.5
    mask[:, :, :4, :] = False  # whole rows of tiles
    mask[:, :, 4:8, :8] = False  # the first tiles of a row
    mask[:, :, 8:, 12:] = False  # the last ones
    mask[1, 0, 9] = False  # a row in a tile
    mask[0, 0, 4:8, 8:12] = False  # a tile of one text of the batch
    found, wanted = both_ways(inputs, mask, is_causal, tile_q=4, tile_k=4)
    assert furthest(found, wanted) <= TOLERANCE[dtype]
    assert found[0][:, :, :4].eq(0).all()
    found, wanted = both_ways(inputs, torch.tensor(False), is_causal, tile_q=4, tile_k=4)
    assert all(x.eq(0).all() for x in (*found, *wanted))


@TYPES
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_huge_scores_stay_finite(size: float, dtype: torch.dtype) -> None:
    """Scores of ±size, rising from tile to tile, falling, and mixed: e to that power is no float.

    The way back knows each row's sum by its logarithm, which is as large as the scores: the weights are off by the
    precision of the type times `size`, and keys of that size are added up with them. PyTorch's kernel errs as much.
    """
    rise = torch.linspace(-size, size, 23, dtype=dtype)
    v = numbers(23, 5, dtype=dtype)
    for keys in (rise, rise.flip(0), rise[torch.randperm(23, generator=torch.Generator().manual_seed(0))]):
        q, k = torch.ones(9, 1, dtype=dtype), keys[:, None]
        inputs = q.requires_grad_(), k.clone().requires_grad_(), v.clone().requires_grad_()
        found, wanted = both_ways(inputs, tile_q=2, tile_k=4)
        assert all(x.isfinite().all() for x in found)
        assert furthest(found[:1], wanted[:1]) <= TOLERANCE[dtype]
        assert furthest(found, wanted) <= 10 * torch.finfo(dtype).eps * size * size


def test_torchs_kernel_agrees() -> None:
    inputs = heads(2, 3, Tq=70, Tk=70, hs=8, dtype=torch.float32, grad=True)
    found = flash_attention(*inputs, is_causal=True, tile_q=16, tile_k=32)
    wanted = F.scaled_dot_product_attention(*inputs, is_causal=True)
    assert furthest([found], [wanted]) <= 1e-6
    assert furthest(gradients(found, inputs), gradients(wanted, inputs)) <= 1e-5


def test_batch_axes_broadcast() -> None:
    """Four heads of queries share one head of keys and values, whose gradients add up."""
    q, k, v = numbers(2, 4, 9, 3, grad=True), numbers(2, 1, 9, 3, seed=1, grad=True), numbers(9, 5, seed=2, grad=True)
    found, wanted = both_ways((q, k, v), is_causal=True, tile_q=2, tile_k=4)
    assert furthest(found, wanted) <= 1e-12
    q, k = (x.detach()[0, 0].requires_grad_() for x in (q, k))
    found, wanted = both_ways((q, k, v), tile_q=2, tile_k=4)  # no batch at all
    assert furthest(found, wanted) <= 1e-12


def test_gradients_by_finite_differences() -> None:
    inputs = heads(2, Tq=5, Tk=7, hs=3, grad=True)
    mask = numbers(5, 7) > -0.3
    mask[2] = False

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return flash_attention(q, k, v, mask, True, tile_q=2, tile_k=3)

    assert torch.autograd.gradcheck(call, inputs)
    result = call(*inputs)
    (gradient,) = torch.autograd.grad(result.square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


def test_a_second_derivative_is_refused() -> None:
    """The tiles of the way back are not recorded, so torch would miss them and say nothing."""
    inputs = heads(1, Tq=5, Tk=5, hs=4)
    for x in inputs:
        x.requires_grad_()
    loss = flash_attention(*inputs).sum()
    slopes = torch.autograd.grad(loss, inputs, create_graph=True)
    assert furthest(slopes, torch.autograd.grad(attention(*inputs).sum(), inputs)) < 1e-12
    with pytest.raises(RuntimeError, match="no second derivative"):
        (loss + slopes[0].square().sum()).backward()


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_under_autocast_it_is_what_attention_is(dtype: torch.dtype, inside: bool) -> None:
    """Large scores: weights that the way back made otherwise than the way there would be far off."""
    inputs = [(4 * x).to(dtype).requires_grad_() for x in heads(2, Tq=40, Tk=40, hs=16)]
    rounded = [x.detach().bfloat16().to(dtype).requires_grad_() for x in inputs]
    exact = inputs if dtype == torch.float64 else rounded  # autocast leaves float64 alone
    wanted = attention(*exact)
    with torch.autocast("cpu", torch.bfloat16):
        found = flash_attention(inputs[0], inputs[1], inputs[2], tile_q=16, tile_k=16)
        assert found.dtype == attention(*inputs).dtype
        slopes = torch.autograd.grad(found.square().sum(), inputs) if inside else ()
    slopes = slopes or torch.autograd.grad(found.square().sum(), inputs)
    tolerance = 1e-12 if dtype == torch.float64 else 0.02
    assert furthest([found.to(dtype)], [wanted]) <= tolerance * wanted.abs().max().item()
    for one, other in zip(slopes, torch.autograd.grad(wanted.square().sum(), exact), strict=True):
        assert furthest([one], [other]) <= tolerance * other.abs().max().item()


def test_small_whole_numbers_of_numpy_do_not_overflow() -> None:
    inputs = heads(1, Tq=500, Tk=500, hs=4)
    tiled = flash_attention(*inputs, tile_q=np.uint8(200), tile_k=np.uint8(200))  # type: ignore[arg-type]
    assert furthest([tiled], [attention(*inputs)]) < 1e-12


def test_only_what_is_wanted_gets_a_gradient() -> None:
    q, k, v = heads(2, Tq=5, Tk=7, hs=3)
    flash_attention(q, k.requires_grad_(), v, tile_q=2, tile_k=3).sum().backward()
    wanted = torch.autograd.grad(attention(q, k, v).sum(), k)
    assert q.grad is None
    assert k.grad is not None
    assert furthest([k.grad], wanted) <= 1e-12
    assert not flash_attention(q, k.detach(), v).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_once(dtype: torch.dtype) -> None:
    """Sums are kept in float32: what comes out is the exact answer, rounded, but for ties."""
    inputs = heads(2, Tq=300, Tk=300, hs=16, dtype=dtype, grad=True)
    found = flash_attention(*inputs, is_causal=True, tile_q=32, tile_k=32)
    gradient = numbers(*found.shape, dtype=dtype, seed=9)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    wanted = attention(exact[0], exact[1], exact[2], causal_mask(300))
    pairs = [(found, wanted)]
    pairs += zip(
        torch.autograd.grad(found, inputs, gradient),
        torch.autograd.grad(wanted, exact, gradient.double()),
        strict=True,
    )
    for a, b in pairs:
        assert a.dtype == dtype
        assert (a != b.to(dtype)).double().mean() < 0.01


# --- the pieces ---


@examples(80)
@given(st.data())
def test_online_softmax_is_softmax_for_any_chunks(data: st.DataObject) -> None:
    """However the scores are cut, and in whatever order the chunks come; the first may hold nothing allowed."""
    Tq, lengths = data.draw(st.integers(1, 3)), data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    n, seed = sum(lengths), data.draw(st.integers(0, 1000))
    scores, values = numbers(2, Tq, n, seed=seed) * data.draw(st.sampled_from([1.0, 300.0])), numbers(2, n, 3)
    scores[..., : data.draw(st.integers(0, n))] = -math.inf
    before = scores.clone()
    chunks = list(zip(scores.split(lengths, dim=-1), values.split(lengths, dim=-2), strict=True))
    result, log_total = online_softmax(data.draw(st.permutations(chunks)))
    assert torch.equal(scores, before)  # the caller's numbers are left alone
    if before.isfinite().any():
        assert furthest([result], [scores.softmax(-1) @ values]) <= 1e-13
        assert furthest([log_total[..., 0]], [scores.logsumexp(-1)]) <= 1e-12
    else:
        assert result.eq(0).all()
        assert log_total.isfinite().all()


def test_online_softmax_without_chunks_is_refused() -> None:
    with pytest.raises(ValueError, match="no chunks"):
        online_softmax([])


@examples(80)
@given(st.data())
def test_tiles_cover_what_is_allowed_and_leave_out_the_rest(data: st.DataObject) -> None:
    Tq, more = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 4))
    tile_q, tile_k = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    q, k, past = numbers(Tq, 2), numbers(Tq + more, 2), data.draw(st.sampled_from([None, more]))
    mask = None
    if data.draw(st.booleans()):
        mask = numbers(Tq, Tq + more, seed=data.draw(st.integers(0, 99))) > data.draw(st.sampled_from([-1.0, 1.0]))
    wanted = torch.ones(Tq, Tq + more, dtype=torch.bool) if past is None else causal_mask(Tq, more)
    wanted = wanted if mask is None else wanted & mask
    found = torch.zeros_like(wanted)
    for rows, tiles in visible_tiles(q, k, mask, past, tile_q, tile_k):
        assert rows.stop - rows.start <= tile_q
        for columns, allowed in tiles:
            assert columns.stop - columns.start <= tile_k
            here = torch.ones_like(found[rows, columns]) if allowed is None else allowed
            assert here.any()  # a tile with nothing in it is no work
            assert not found[rows, columns].any()  # each place once
            found[rows, columns] = here
    assert torch.equal(found, wanted)


def test_forbidden_scores_are_minus_infinity() -> None:
    q, k = numbers(2, 3, 4), numbers(2, 5, 4, seed=1)
    allowed = numbers(3, 5) > 0
    scores = tile_scores(q, k, allowed)
    assert torch.equal(scores == -math.inf, ~allowed.expand(2, 3, 5))
    assert torch.equal(scores[:, allowed], (q @ k.transpose(-2, -1))[:, allowed])
    assert torch.equal(tile_scores(q, k, None), q @ k.transpose(-2, -1))


# --- memory ---


def growth(call: Callable[..., torch.Tensor], T: int, backward: bool) -> float:
    """By what the peak of memory grows when a text becomes twice as long."""
    peaks = []
    for length in (T, 2 * T):
        inputs = heads(2, Tq=length, Tk=length, hs=16, dtype=torch.float32, grad=backward)
        peaks.append(peak_bytes(lambda inputs=inputs: run(call, inputs, backward)))
    return peaks[1] / peaks[0]


def run(call: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], backward: bool) -> None:
    result = call(*inputs)
    if backward:
        torch.autograd.grad(result.sum(), inputs)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward and backward"])
def test_memory_grows_with_the_length_and_not_with_its_square(backward: bool) -> None:
    def tiled(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return flash_attention(q, k, v, is_causal=True, tile_q=32, tile_k=32)

    def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        padding = torch.arange(k.shape[-2]) < 300
        return flash_attention(q, k, v, padding, tile_q=32, tile_k=32)

    assert 1.3 < growth(tiled, 256, backward) <= 2.0
    assert 1.3 < growth(masked, 256, backward) <= 2.0
    assert 3.8 < growth(attention, 256, backward) < 4.1


def test_memory_of_the_layer_is_linear_too() -> None:
    """No (T, T) matrix and no mask: the kernel of torch works on tiles as well."""

    def call(x: torch.Tensor) -> torch.Tensor:
        return model(x)

    T = 4096
    model, x = layer(16, 2, T, dtype=torch.float32), numbers(1, T, 16, dtype=torch.float32, grad=True)
    assert peak_bytes(lambda: run(call, [x], True)) < T * T  # less than one byte for each pair of tokens


def test_a_peak_is_counted_in_bytes() -> None:
    def call() -> torch.Tensor:
        a = torch.empty(1000)  # 4,000 bytes
        b = a.double()  # and 8,000
        del a
        return torch.empty(500) + b[:500].sum()  # b still stands: and 2,000, 4 or 8 for the sum, 2,000

    assert 12_000 <= peak_bytes(call) <= 12_300


def test_script_of_the_figure_measures_and_writes(tmp_path: Path) -> None:
    rows = list(attention_memory.measure((16, 32)))
    assert len(rows) == 2 * len(attention_memory.SIDES) * len(attention_memory.PASSES)
    assert all(memory > 0 and seconds > 0 for *_, memory, seconds in rows)
    attention_memory.write(rows, tmp_path / "rows.csv")
    assert [row[:3] for row in attention_memory.read(tmp_path / "rows.csv")] == [row[:3] for row in rows]


def test_figure_shows_what_the_module_says() -> None:
    """From 4,096 to 8,192 tokens memory doubles tile by tile, and grows fourfold with the whole matrix."""
    found = {row[:3]: row[3] for row in attention_memory.read()}
    sides, lengths = attention_memory.SIDES, attention_memory.LENGTHS
    assert set(found) == {(what, kind, T) for what in sides for kind in attention_memory.PASSES for T in lengths}
    for what in sides:
        for kind in attention_memory.PASSES:
            growth = found[what, kind, 8192] / found[what, kind, 4096]
            assert growth == pytest.approx(4 if what == "attention" else 2, rel=0.3)


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"tile_q": 0}, ValueError, "tile_q must be 1 or more, not 0"),
        ({"tile_k": -1}, ValueError, "tile_k must be 1 or more, not -1"),
        ({"tile_k": 2.5}, TypeError, "tile_k must be a whole number"),
        ({"mask": torch.ones(5, 7)}, TypeError, "mask holds torch.float32"),
        ({"mask": torch.ones(7, 5, dtype=torch.bool)}, ValueError, r"\(7, 5\); it must broadcast to .* = \(2, 5, 7\)"),
        ({"q": torch.zeros(2, 5, 4)}, TypeError, "of one type"),
        ({"q": torch.zeros(3, 5, 4).double()}, ValueError, "must be equal or 1"),
        ({"v": torch.zeros(2, 6, 4).double()}, ValueError, "the same length Tk"),
        ({"k": torch.zeros(2, 7, 3).double()}, ValueError, "the same hs"),
        ({"q": torch.zeros(2, 8, 4).double(), "is_causal": True}, ValueError, "Tq = 8 queries and Tk = 7 keys"),
        ({"q": torch.zeros(2, 0, 4).double()}, ValueError, "none of them 0"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(
    arguments: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = heads(2, Tq=5, Tk=7, hs=4)
    monkeypatch.setattr("glassbox.flash.FlashAttention", None)  # no work is done
    with pytest.raises(error, match=said):
        flash_attention(**{"q": q, "k": k, "v": v, **arguments})


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
def test_works_under_the_compiler() -> None:
    q, k, v = heads(2, Tq=10, Tk=10, hs=4, grad=True)

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return flash_attention(q, k, v, is_causal=True, tile_q=4, tile_k=4)

    torch._dynamo.reset()
    traced: Any = torch.compile(call, backend="eager")
    result = traced(q, k, v)
    assert furthest([result], [call(q, k, v)]) <= 1e-14
    assert furthest(gradients(result, [q, k, v]), gradients(call(q, k, v), [q, k, v])) <= 1e-14
    torch._dynamo.reset()
