"""Attention without its matrix: the same result as `attention`, tile by tile, in memory that grows with T and not T².

Softmax needs the sum over a whole row, but that sum can be kept up to date while the row is read in pieces: with the
largest score so far. So the (Tq, Tk) weights are made a tile at a time, used and thrown away. The backward pass makes
them once more, from the one number per row that the forward pass keeps: the logarithm of the row's sum.

Sources: Milakov and Gimelshein, Online normalizer calculation for softmax (2018); Rabe and Staats, Self-attention Does
Not Need O(n²) Memory (2021); Dao et al., FlashAttention (2022); Dao, FlashAttention-2 (2023).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from glassbox.attention import check_heads, check_mask
from glassbox.preprocessing import check_size

__all__ = [
    "FlashAttention",
    "flash_attention",
    "online_softmax",
    "tile_scores",
    "visible_tiles",
]

Tile = tuple[slice, torch.Tensor | None]  # some columns, and where each row may look in them; None is everywhere


def online_softmax(chunks: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(scores) @ values in one pass over chunks of them: scores (..., Tq, n), their values (..., n, D).

    A score of -inf is forbidden; a row with nothing else gets zeros. Returns the result (..., Tq, D) and the logarithm
    of each row's sum of e^score (..., Tq, 1). Sources: Milakov and Gimelshein (2018), Dao et al. (2022).
    """
    largest: Any = None
    total: Any = 0.0
    result: Any = 0.0
    for scores, values in chunks:
        # The least finite number, and not -inf: -inf less -inf is no number.
        before = torch.finfo(scores.dtype).min if largest is None else largest
        largest = scores.amax(dim=-1, keepdim=True).clamp(min=before)  # (..., Tq, 1)
        shrink = (before - largest).exp()  # what was added so far was relative to a smaller largest score
        weights = (scores - largest).exp_()
        total = total * shrink + weights.sum(dim=-1, keepdim=True)
        result = result * shrink + weights @ values
    if largest is None:
        raise ValueError("there are no chunks: give at least one pair of scores and values")
    total = total.clamp(min=1)  # the largest score counts 1; only a row with nothing allowed has less
    return result / total, largest + total.log()


def tile_scores(q: torch.Tensor, k: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
    """Scores of some queries, already divided by √hs, and some keys: q kᵀ, -inf where not allowed."""
    scores = q @ k.transpose(-2, -1)
    return scores if allowed is None else scores.masked_fill_(~allowed, float("-inf"))


def visible_tiles(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, past: int | None, tile_q: int, tile_k: int
) -> Iterator[tuple[slice, list[Tile]]]:
    """Cut the (Tq, Tk) matrix: for each span of rows, the tiles that hold at least one allowed place.

    mask: (..., Tq, Tk) or None. past: row t sees the columns 0 to past + t at most; None where there is no such limit.
    """
    Tq, Tk = q.shape[-2], k.shape[-2]
    for i in range(0, Tq, tile_q):
        rows = slice(i, min(i + tile_q, Tq))
        end = Tk if past is None else min(Tk, past + rows.stop)  # what follows is the future of all these rows
        tiles: list[Tile] = []
        for j in range(0, end, tile_k):
            columns = slice(j, min(j + tile_k, end))
            allowed = None if mask is None else mask[..., rows, columns]
            if past is not None and columns.stop > past + i + 1:  # the diagonal runs through this tile
                size = (rows.stop - i, columns.stop - j)
                below = torch.ones(size, dtype=torch.bool, device=q.device).tril(past + i - j)
                allowed = below if allowed is None else allowed & below
            if allowed is None or allowed.any():
                tiles.append((columns, allowed))
        yield rows, tiles


def without_autocast(work: Callable[..., Any]) -> Callable[..., Any]:
    """Let a pass compute in the type of its inputs, also under autocast: both passes must make the same weights."""

    @functools.wraps(work)
    def worked(ctx: Any, first: torch.Tensor, *others: Any) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            return work(ctx, first, *others)

    return worked


class NoSecond(torch.autograd.Function):
    """Hands a gradient on; who wants the derivative of it gets an error."""

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, *sources: torch.Tensor) -> torch.Tensor:
        """The gradient as it is, for torch a function of `sources`."""
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> None:  # pyright: ignore
        """Raise RuntimeError."""
        raise RuntimeError("flash_attention has no second derivative: use attention where you need one")


def first_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Do not record a backward pass; without an error torch would take its results for constants and say nothing."""

    @functools.wraps(backward)
    def unrecorded(ctx: Any, gradient: torch.Tensor) -> Any:
        with torch.no_grad():
            found = backward(ctx, gradient)
        if not torch.is_grad_enabled():  # as always but with create_graph=True
            return found
        return tuple(None if x is None else NoSecond.apply(x, gradient, *ctx.saved_tensors[:3]) for x in found)

    return unrecorded


class FlashAttention(torch.autograd.Function):
    """The two passes of `flash_attention`, for inputs of equal batch axes. Dao et al. (2022)."""

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        past: int | None,
        tile_q: int,
        tile_k: int,
    ) -> torch.Tensor:
        """The result (..., Tq, D); kept for the way back: the inputs, the result and one number per row."""
        scale = q.shape[-1] ** -0.5
        result = q.new_zeros(*q.shape[:-1], v.shape[-1])
        log_total = q.new_zeros(*q.shape[:-1], 1)
        for rows, tiles in visible_tiles(q, k, mask, past, tile_q, tile_k):
            queries = q[..., rows, :] * scale
            chunks = ((tile_scores(queries, k[..., at, :], allowed), v[..., at, :]) for at, allowed in tiles)
            if tiles:
                result[..., rows, :], log_total[..., rows, :] = online_softmax(chunks)
        ctx.save_for_backward(q, k, v, mask, result, log_total)
        ctx.tiling = past, tile_q, tile_k
        return result

    @staticmethod
    @without_autocast
    @first_only
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore
        """The gradients of q, k and v: the weights of each tile are made once more."""
        q, k, v, mask, result, log_total = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        mean = (gradient * result).sum(dim=-1, keepdim=True)  # of the weights' gradients, weighted
        for rows, tiles in visible_tiles(q, k, mask, *ctx.tiling):
            queries, g = q[..., rows, :] * scale, gradient[..., rows, :]
            for at, allowed in tiles:
                weights = (tile_scores(queries, k[..., at, :], allowed) - log_total[..., rows, :]).exp_()
                dv[..., at, :] += weights.transpose(-2, -1) @ g
                dscores = (g @ v[..., at, :].transpose(-2, -1) - mean[..., rows, :]).mul_(weights)
                dq[..., rows, :] += dscores @ k[..., at, :] * scale
                dk[..., at, :] += dscores.transpose(-2, -1) @ queries
        return dq, dk, dv, None, None, None, None


def flash_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    is_causal: bool = False,
    tile_q: int = 256,
    tile_k: int = 256,
) -> torch.Tensor:
    """Return what `attention` returns, in memory linear in Tq + Tk, forward and backward.

    q (..., Tq, hs), k (..., Tk, hs), v (..., Tk, D) -> (..., Tq, D). A bool mask broadcasts to (..., Tq, Tk) and is
    read tile by tile. is_causal: as with causal_mask(Tq, Tk - Tq) besides, which is never made. tile_q, tile_k: rows
    and columns that are worked on at once. ValueError, TypeError: as `attention`. There is no second derivative, and
    no vmap. Source: Dao et al. (2022).
    """
    check_heads(q=q, k=k, v=v)
    check_mask(mask, q, k)
    check_causal(q.shape[-2], k.shape[-2], is_causal)
    tile_q, tile_k = check_size("tile_q", tile_q), check_size("tile_k", tile_k)
    batch = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    parts = [x.expand(*batch, -1, -1) for x in (q, k, v)]
    if mask is not None:
        mask = mask.expand(*mask.shape[:-2], q.shape[-2], k.shape[-2])
    past = k.shape[-2] - q.shape[-2] if is_causal else None
    kind = result_type(q)
    if kind in (torch.float16, torch.bfloat16):  # too coarse to add up in
        parts = [x.to(kind).float() for x in parts]
    result: Any = FlashAttention.apply(*parts, mask, past, tile_q, tile_k)
    return result.to(kind)


def result_type(q: torch.Tensor) -> torch.dtype:
    """The type in which a product of q comes out: q's own, or what autocast makes of it."""
    kind = q.device.type
    if torch.is_autocast_enabled(kind) and q.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return q.dtype


def check_causal(Tq: int, Tk: int, is_causal: bool) -> None:
    """ValueError where causal queries are more than the keys."""
    if is_causal and Tq > Tk:
        raise ValueError(
            f"Tq = {Tq} queries and Tk = {Tk} keys: causal queries are the last ones of the keys, so there cannot be "
            "more of them; use a mask for anything else"
        )
