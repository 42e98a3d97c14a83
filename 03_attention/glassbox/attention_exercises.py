"""The exercises of 03_attention: the course's answer, the cases that try a reader's, and the mistakes known by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from glassbox import attention, flash
from glassbox.lab import Exercise, Finding, Mistake

__all__ = [
    "causal_weights",
    "look_up",
    "online_softmax",
    "planted_faults",
    "split_heads",
    "three_maps",
]

Tensor = torch.Tensor
Chunk = tuple[Tensor, Tensor]


def _numbers(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    """Random numbers of a given shape, the same every time."""
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _passes(f: Callable[..., Any], inputs: dict[str, Tensor], *others: Any) -> Finding:
    """Whether a gradient of the result reaches all of the inputs."""
    given = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    try:
        result = f(*given.values(), *others)
    except RuntimeError as error:  # x.numpy() of a tensor that wants a gradient
        if "numpy" not in str(error):
            raise
        result = None
    reached: Sequence[Tensor | None] = [None] * len(given)
    if isinstance(result, torch.Tensor) and result.requires_grad:
        reached = torch.autograd.grad(result.sum(), list(given.values()), allow_unused=True)
    lost = [name for name, gradient in zip(given, reached, strict=True) if gradient is None]
    if lost:
        return Finding("no gradient", f"no gradient reaches {', '.join(lost)}")
    return Finding("the gradient passes")


# --- break it ---


def planted_faults(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Two faulty versions of causal attention weights: softmax along the wrong axis, and a mask moved by one."""
    T = q.shape[-2]
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    hidden = scores.masked_fill(~attention.causal_mask(T), float("-inf"))
    moved = torch.ones(T, T, dtype=torch.bool).tril(1)
    return hidden.softmax(dim=-2), attention.attention_weights(q, k, moved)


def three_maps(q: Tensor, k: Tensor) -> dict[str, Tensor]:
    """The weights (T, T) of a right model and of two faulty ones, under names that do not tell which is which."""
    axis, moved = planted_faults(q, k)
    right = attention.attention_weights(q, k, attention.causal_mask(q.shape[-2]))
    return {"model A": axis, "model B": right, "model C": moved}


# --- 1. look_up ---


def _look_up(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √hs) v, without a mask."""
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ v


def _not_scaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def _divided_by_size(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / q.shape[-1]).softmax(dim=-1) @ v


def _divided_by_length(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / k.shape[-2] ** 0.5).softmax(dim=-1) @ v


def _multiplied(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** 0.5).softmax(dim=-1) @ v


def _scaled_afterwards(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).softmax(dim=-1) / q.shape[-1] ** 0.5 @ v


def _over_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-2) @ v


def _first_axis(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=0) @ v


def _second_axis(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=1) @ v


def _no_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 @ v


def _only_exponentials(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).exp() @ v


def _stops_at_the_weights(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)


def _turns_all_axes(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.permute(*range(k.ndim - 1, -1, -1)) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v


def _hardest(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    best = (q @ k.transpose(-2, -1)).argmax(dim=-1)
    return torch.nn.functional.one_hot(best, k.shape[-2]).to(v.dtype) @ v


def _means_of_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1) @ k


def _numbers_alone(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _look_up(q, k, v).detach()


def gradient_of_the_answer(f: Callable[..., Any]) -> Finding:
    """queries, keys and values that are to be learned: does a gradient reach them?"""
    return _passes(f, {"q": _numbers(3, 4), "k": _numbers(5, 4, seed=1), "v": _numbers(5, 2, seed=2)})


look_up = Exercise(
    name="look_up",
    reference=_look_up,
    cases=[
        (_numbers(3, 4), _numbers(5, 4, seed=1), _numbers(5, 2, seed=2)),
        (_numbers(1, 3), _numbers(6, 3, seed=1), _numbers(6, 3, seed=2)),
        (_numbers(4, 4), _numbers(4, 4, seed=1), _numbers(4, 4, seed=2)),
        (_numbers(2, 3, 4), _numbers(2, 5, 4, seed=1), _numbers(2, 5, 2, seed=2)),
        (_numbers(2, 2, 3, 4), _numbers(2, 2, 3, 4, seed=1), _numbers(2, 2, 3, 4, seed=2)),
        gradient_of_the_answer,
    ],
    mistakes=[
        Mistake(_not_scaled, "the scores are not divided by the square root of the head size, q.shape[-1] ** 0.5."),
        Mistake(_divided_by_size, "you divide by the head size: take its square root."),
        Mistake(_divided_by_length, "you divide by the root of the number of keys: it is the head size that counts."),
        Mistake(_multiplied, "you multiply by the root of the head size: divide, so that the scores become smaller."),
        Mistake(_scaled_afterwards, "you divide after the softmax: the rows no longer sum to 1. Divide the scores."),
        Mistake(_over_queries, "softmax runs over the queries: each query shares its 1 among the keys, dim=-1."),
        Mistake(_first_axis, "dim=0 is the batch as soon as there is one: count from the end, dim=-1."),
        Mistake(_second_axis, "dim=1 holds the keys only without a batch: count from the end, dim=-1."),
        Mistake(_no_softmax, "the scores themselves are no weights: they may be negative. Softmax is missing."),
        Mistake(_only_exponentials, "exponentials do not sum to 1: divide by their sum, or call softmax(dim=-1)."),
        Mistake(_stops_at_the_weights, "these are the weights: multiply them by v to get the answers."),
        Mistake(_turns_all_axes, "k.T turns round all axes: with a batch swap only the last two, k.transpose(-2, -1)."),
        Mistake(_hardest, "you take the best key alone: softmax lets every key answer, the better ones more."),
        Mistake(_means_of_keys, "you return a mean of the keys: they are for finding, the values are for taking."),
        Mistake(_numbers_alone, "the numbers are right, but nothing can be learned: no detach, no NumPy, no no_grad."),
    ],
    hint="scores = q @ k with its last two axes swapped, weights = softmax over the last axis, then weights @ v.",
)


# --- 2. causal_weights ---


def _causal_weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q kᵀ / √hs) in which no row looks at a later column; k may begin before q."""
    T, past = q.shape[-2], k.shape[-2] - q.shape[-2]
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.masked_fill(~attention.causal_mask(T, past), float("-inf")).softmax(dim=-1)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5


def _triangle(q: Tensor, k: Tensor, moved: int = 0) -> Tensor:
    """True where row t may see a column: up to t, the past and `moved` besides."""
    T, Tk = q.shape[-2], k.shape[-2]
    return torch.ones(T, Tk, dtype=torch.bool).tril(Tk - T + moved)


def _hidden(q: Tensor, k: Tensor, seen: Tensor, fill: float = float("-inf")) -> Tensor:
    return _scores(q, k).masked_fill(~seen, fill).softmax(dim=-1)


def _masked_afterwards(q: Tensor, k: Tensor) -> Tensor:
    return _scores(q, k).softmax(dim=-1) * _triangle(q, k)


def _wrong_way(q: Tensor, k: Tensor) -> Tensor:
    T, Tk = q.shape[-2], k.shape[-2]
    return _hidden(q, k, torch.ones(T, Tk, dtype=torch.bool).triu(Tk - T))


def _hides_what_may_be_seen(q: Tensor, k: Tensor) -> Tensor:
    return _hidden(q, k, ~_triangle(q, k))


def _sees_one_ahead(q: Tensor, k: Tensor) -> Tensor:
    return _hidden(q, k, _triangle(q, k, 1))


def _blind_for_itself(q: Tensor, k: Tensor) -> Tensor:
    return _hidden(q, k, _triangle(q, k, -1))


def _forgets_the_past(q: Tensor, k: Tensor) -> Tensor:
    return _hidden(q, k, torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril())


def _zeros_for_scores(q: Tensor, k: Tensor) -> Tensor:
    return (_scores(q, k) * _triangle(q, k)).softmax(dim=-1)


def _slightly_less(q: Tensor, k: Tensor) -> Tensor:
    return _hidden(q, k, _triangle(q, k), -1.0)


def _no_mask(q: Tensor, k: Tensor) -> Tensor:
    return _scores(q, k).softmax(dim=-1)


def _mask_without_scale(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).masked_fill(~_triangle(q, k), float("-inf")).softmax(dim=-1)


def _over_the_rows(q: Tensor, k: Tensor) -> Tensor:
    return _scores(q, k).masked_fill(~_triangle(q, k), float("-inf")).softmax(dim=-2)


def _minus_infinity_added_everywhere(q: Tensor, k: Tensor) -> Tensor:
    return (_scores(q, k) + (~_triangle(q, k)).float() * float("-inf")).softmax(dim=-1)


def _scaled_in_place(q: Tensor, k: Tensor) -> Tensor:
    q /= q.shape[-1] ** 0.5
    return (q @ k.transpose(-2, -1)).masked_fill(~_triangle(q, k), float("-inf")).softmax(dim=-1)


def _filled_without_past(q: Tensor, k: Tensor) -> Tensor:
    return _hidden(q, k, attention.causal_mask(q.shape[-2]))


def _chosen_without_past(q: Tensor, k: Tensor) -> Tensor:
    return torch.where(attention.causal_mask(q.shape[-2]), _scores(q, k), float("-inf")).softmax(dim=-1)


def _weighed_without_past(q: Tensor, k: Tensor) -> Tensor:
    return attention.attention_weights(q, k, attention.causal_mask(q.shape[-2]))


def _added_without_past(q: Tensor, k: Tensor) -> Tensor:
    seen = attention.causal_mask(q.shape[-2])
    return (_scores(q, k) + torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))).softmax(dim=-1)


def _mask_of_all_keys(q: Tensor, k: Tensor) -> Tensor:
    return _hidden(q, k, attention.causal_mask(k.shape[-2]))


def _past_is_all_keys(q: Tensor, k: Tensor) -> Tensor:
    return _hidden(q, k, attention.causal_mask(q.shape[-2], k.shape[-2]))


def _weights_alone(q: Tensor, k: Tensor) -> Tensor:
    return _causal_weights(q, k).detach()


def what_becomes_of_q_and_k(f: Callable[..., Any]) -> Finding:
    """6 tokens: are q and k afterwards what they were?"""
    q, k = _numbers(6, 8, seed=3), _numbers(6, 8, seed=4)
    given = q.clone(), k.clone()
    f(*given)
    changed = [name for name, x, y in zip("qk", (q, k), given, strict=True) if not torch.equal(x, y)]
    return Finding("changed", f"{' and '.join(changed)} changed") if changed else Finding("as they were")


def every_row_sums_to_one(f: Callable[..., Any]) -> Finding:
    """6 tokens: what do the weights of each row sum to?"""
    weights = torch.as_tensor(f(_numbers(6, 8, seed=3), _numbers(6, 8, seed=4)))
    sums = weights.sum(dim=-1)
    if sums.isnan().any():
        return Finding("no number", f"row {int(sums.isnan().nonzero()[0])} sums to no number (nan)")
    wrong = ((sums - 1).abs() > 1e-4).nonzero()
    if not len(wrong):
        return Finding("each row sums to 1")
    worst = int((sums - 1).abs().argmax())
    return Finding("other sums", f"row {worst} sums to {sums[worst]:.2f}")


def nobody_sees_the_future(f: Callable[..., Any]) -> Finding:
    """6 tokens, and then the same with another key of token 5: which rows change?"""
    q, k = _numbers(6, 8, seed=3), _numbers(6, 8, seed=4)
    other = k.clone()
    other[5] += 3
    changed = (torch.as_tensor(f(q.clone(), k)) - torch.as_tensor(f(q, other))).abs().nan_to_num().amax(dim=-1) > 1e-6
    if changed[:5].any():
        return Finding("the future", f"changing token 5 changed row {int(changed.nonzero()[0])}")
    return Finding("row 5 only" if changed[5] else "none", "row 5 only" if changed[5] else "no row changed, not even 5")


_PAST = "with more keys than queries the diagonal moves: past = k.shape[-2] - q.shape[-2]."


def gradient_of_the_weights(f: Callable[..., Any]) -> Finding:
    """queries and keys that are to be learned: does a gradient reach them?"""
    return _passes(f, {"q": _numbers(4, 3), "k": _numbers(4, 3, seed=1)})


causal_weights = Exercise(
    name="causal_weights",
    reference=_causal_weights,
    cases=[
        what_becomes_of_q_and_k,
        every_row_sums_to_one,
        nobody_sees_the_future,
        (_numbers(4, 3), _numbers(4, 3, seed=1)),
        (_numbers(2, 2, 5, 3), _numbers(2, 2, 5, 3, seed=1)),
        (_numbers(1, 3), _numbers(1, 3, seed=1)),
        (_numbers(2, 3), _numbers(5, 3, seed=1)),
        gradient_of_the_weights,
    ],
    mistakes=[
        Mistake(_scaled_in_place, "`/=` writes into the caller's own tensor: make a new one, q / root, or scores."),
        Mistake(_masked_afterwards, "masked after the softmax: rows no longer sum to 1. Hide the scores before it."),
        Mistake(_wrong_way, "the triangle lies the wrong way: row t sees the columns up to t, which is tril."),
        Mistake(_hides_what_may_be_seen, "the mask says True where a row MAY look: fill where it is False, ~mask."),
        Mistake(_sees_one_ahead, "off by one: each row sees one token of its future, just the one it should guess."),
        Mistake(
            _blind_for_itself, "off by one: a token may see itself; row 0 sees nothing at all, and softmax is nan."
        ),
        Mistake(_forgets_the_past, _PAST),
        Mistake(_filled_without_past, _PAST),
        Mistake(_chosen_without_past, _PAST),
        Mistake(_added_without_past, _PAST),
        Mistake(_weighed_without_past, _PAST),
        Mistake(_mask_of_all_keys, "the mask has a row for each key: a row for each query, causal_mask(T, past)."),
        Mistake(_past_is_all_keys, "past counts the keys before the first query, k.shape[-2] - q.shape[-2], not all."),
        Mistake(_zeros_for_scores, "a score of 0, or near it, is no ban: e to the power 0 is 1. Put -inf there."),
        Mistake(_slightly_less, "a low score is no ban: other scores may be lower still. Put -inf there."),
        Mistake(_no_mask, "nothing is hidden: use causal_mask."),
        Mistake(_mask_without_scale, "the mask is right, but the scores are not divided by the root of the head size."),
        Mistake(_over_the_rows, "softmax runs over the rows: each row is to sum to 1, dim=-1."),
        Mistake(_minus_infinity_added_everywhere, "0 times -inf is nan: do not multiply, use masked_fill or where."),
        Mistake(_weights_alone, "the numbers are right, but nothing can be learned: no detach, no NumPy, no no_grad."),
    ],
    hint="scores as before; causal_mask(T, past) is True where a row may look; masked_fill(~mask, -inf), then softmax.",
)


# --- 3. split_heads ---


def _sizes(x: Tensor, n_head: int) -> tuple[int, int, int]:
    """Batch, time and head size."""
    return x.shape[0], x.shape[1], x.shape[2] // n_head


def _viewed_at_once(x: Tensor, n_head: int) -> Tensor:
    B, T, hs = _sizes(x, n_head)
    return x.reshape(B, n_head, T, hs)


def _not_transposed(x: Tensor, n_head: int) -> Tensor:
    B, T, hs = _sizes(x, n_head)
    return x.reshape(B, T, n_head, hs)


def _every_second_channel(x: Tensor, n_head: int) -> Tensor:
    B, T, hs = _sizes(x, n_head)
    return x.reshape(B, T, hs, n_head).permute(0, 3, 1, 2)


def _turned_first(x: Tensor, n_head: int) -> Tensor:
    B, T, hs = _sizes(x, n_head)
    return x.transpose(1, 2).reshape(B, n_head, T, hs)


def _heads_in_front(x: Tensor, n_head: int) -> Tensor:
    return torch.stack(x.chunk(n_head, dim=-1))


def _heads_last(x: Tensor, n_head: int) -> Tensor:
    return torch.stack(x.chunk(n_head, dim=-1), dim=-1)


def _time_last(x: Tensor, n_head: int) -> Tensor:
    B, T, hs = _sizes(x, n_head)
    return x.reshape(B, T, n_head, hs).permute(0, 2, 3, 1)


def _cuts_time(x: Tensor, n_head: int) -> Tensor:
    return torch.stack(x.chunk(n_head, dim=1), dim=1)


def _heads_of_the_size(x: Tensor, n_head: int) -> Tensor:
    B, T, hs = _sizes(x, n_head)
    return x.reshape(B, T, hs, n_head).transpose(1, 2)


def _a_list(x: Tensor, n_head: int) -> Any:
    return list(x.chunk(n_head, dim=-1))


def _swapped_1_and_3(x: Tensor, n_head: int) -> Tensor:
    B, T, hs = _sizes(x, n_head)
    return x.reshape(B, T, n_head, hs).transpose(1, 3)


def _copied(x: Tensor, n_head: int) -> Tensor:
    return attention.split_heads(x, n_head).contiguous()


def _cut_off(x: Tensor, n_head: int) -> Tensor:
    return attention.split_heads(x, n_head).detach()


def _no_tensor(heads: Any) -> Finding:
    many = isinstance(heads, list | tuple)
    return Finding("many" if many else "other", f"the result is no tensor, but of type {type(heads).__name__}")


def what_head_0_holds(f: Callable[..., Any]) -> Finding:
    """2 heads of 3 channels, 4 tokens, each number saying its token: whose numbers are in the first row of head 0?"""
    x = torch.arange(4.0)[:, None].expand(4, 6)[None].contiguous()
    heads = f(x, 2)
    if not isinstance(heads, torch.Tensor):
        return _no_tensor(heads)
    if heads.shape != (1, 2, 4, 3):
        return Finding(
            f"shape {tuple(heads.shape)}",
            f"a result of shape {tuple(heads.shape)} and not (B, nh, T, hs) = (1, 2, 4, 3)",
        )
    for row in range(4):
        tokens = sorted({int(number) for number in heads[0, 0, row].tolist()})
        if len(tokens) > 1:
            named = " and ".join(map(str, tokens))
            return Finding("mixed", f"row {row} of head 0 holds parts of the tokens {named}")
        if tokens != [row]:
            return Finding("moved", f"row {row} of head 0 holds token {tokens[0]}")
    return Finding("row t of head 0 holds token t")


def whose_memory(f: Callable[..., Any]) -> Finding:
    """where the numbers of the heads stand: in the memory of x, or somewhere else?"""
    x = _numbers(2, 4, 6)
    heads = f(x, 2)
    if not isinstance(heads, torch.Tensor):
        return _no_tensor(heads)
    shared = heads.data_ptr() == x.data_ptr()
    return Finding("in the memory of x") if shared else Finding("somewhere else", "the result is a copy")


def gradient_of_the_heads(f: Callable[..., Any]) -> Finding:
    """an x that is to be learned: does a gradient reach it?"""
    return _passes(f, {"x": _numbers(2, 4, 6)}, 2)


split_heads = Exercise(
    name="split_heads",
    reference=attention.split_heads,
    cases=[
        what_head_0_holds,
        (torch.arange(24.0).view(1, 4, 6), 2),
        (torch.arange(24.0).view(1, 4, 6), 3),
        (_numbers(2, 3, 8), 4),
        (_numbers(2, 4, 4), 4),
        (_numbers(1, 5, 4), 1),
        whose_memory,
        gradient_of_the_heads,
    ],
    mistakes=[
        Mistake(_viewed_at_once, "the shape is right and time is scrambled: view as (B, T, nh, hs), then transpose."),
        Mistake(_not_transposed, "the heads come after the time: the view is right, transpose(1, 2) is missing."),
        Mistake(
            _every_second_channel, "a head owns channels side by side: view the channels as (nh, hs), in this order."
        ),
        Mistake(_turned_first, "you transpose before the channels are cut: cut them first, then swap time and heads."),
        Mistake(_heads_in_front, "the heads come before the batch: the order is (B, nh, T, hs)."),
        Mistake(_heads_last, "the heads come last: the order is (B, nh, T, hs)."),
        Mistake(_time_last, "time and head size are swapped: the order is (B, nh, T, hs)."),
        Mistake(_cuts_time, "you cut the time into pieces: each head sees all tokens, and a part of their channels."),
        Mistake(_heads_of_the_size, "nh and hs are mixed up: the number of heads is n_head, their size C // n_head."),
        Mistake(_swapped_1_and_3, "you swapped axes 1 and 3: the heads are axis 2 of the view, so transpose(1, 2)."),
        Mistake(_copied, "the result is a copy: cut with view and transpose, which only look at x in another way."),
        Mistake(_cut_off, "no gradient reaches x: no detach, no NumPy."),
        Mistake(_a_list, "return one tensor of shape (B, nh, T, hs), not a list of heads."),
    ],
    hint="view cuts one axis into two neighbours: the last one into (nh, hs). Then swap the axes of time and heads.",
)


# --- 4. online_softmax ---


def _one_pass(
    chunks: Iterable[Chunk],
    *,
    total_shrinks: bool = True,
    result_shrinks: bool = True,
    start: float | None = None,
    upside_down: bool = False,
    with_largest: bool = True,
    own_largest: bool = False,
    same_for_all: bool = False,
    at_least_1: bool = True,
    axis_kept: bool = True,
) -> tuple[Tensor, Tensor]:
    """`online_softmax` with single parts of it left out."""
    largest: Any = None
    total: Any = 0.0
    result: Any = 0.0
    for scores, values in chunks:
        least = torch.finfo(scores.dtype).min if start is None else start
        before = torch.full_like(scores[..., :1], least) if largest is None else largest
        own = scores.amax() if same_for_all else scores.amax(dim=-1, keepdim=axis_kept)
        largest = own.clamp(min=least) if own_largest else torch.maximum(before, own)
        shrink = (largest - before).exp() if upside_down else (before - largest).exp()
        weights = (scores - largest).exp()
        total = total * (shrink if total_shrinks else 1) + weights.sum(dim=-1, keepdim=axis_kept)
        result = result * (shrink if result_shrinks else 1) + weights @ values
    if largest is None:
        raise ValueError("there are no chunks: give at least one pair of scores and values")
    total = total.clamp(min=1) if at_least_1 else total
    return result / total, total.log() + (largest if with_largest else 0)


def _denominator_forgotten(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, total_shrinks=False)


def _numerator_forgotten(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, result_shrinks=False)


def _never_shrinks(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, total_shrinks=False, result_shrinks=False)


def _begins_at_minus_infinity(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, start=float("-inf"))


def _begins_at_zero(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, start=0.0)


def _begins_at_zero_and_divides_by_zero(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, start=0.0, at_least_1=False)


def _divides_by_zero(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, at_least_1=False)


def _same_for_all_rows(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, same_for_all=True)


def _same_for_all_rows_and_divides_by_zero(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, same_for_all=True, at_least_1=False)


def _axis_dropped(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, axis_kept=False)


def _axis_dropped_at_the_end(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    result, log_total = flash.online_softmax(chunks)
    return result, log_total.squeeze(-1)


def _all_at_once(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    kept = list(chunks)
    if not kept:
        raise ValueError("there are no chunks")
    scores, values = (torch.cat(parts, dim=axis) for parts, axis in zip(zip(*kept, strict=True), (-1, -2), strict=True))
    return flash.online_softmax([(scores, values)])


def _numbers_of_softmax(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    result, log_total = flash.online_softmax(chunks)
    return result.detach(), log_total.detach()


def _grows_instead(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, upside_down=True)


def _largest_of_the_chunk(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, own_largest=True)


def _logarithm_of_the_shifted(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return _one_pass(chunks, with_largest=False)


def _no_largest_at_all(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    total: Any = 0.0
    result: Any = 0.0
    for scores, values in chunks:
        total = total + scores.exp().sum(dim=-1, keepdim=True)
        result = result + scores.exp() @ values
    if isinstance(total, float):
        raise ValueError("there are no chunks")
    return result / total, total.log()


def _mean_of_means(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    parts = [(scores.softmax(dim=-1) @ values, scores.logsumexp(dim=-1, keepdim=True)) for scores, values in chunks]
    if not parts:
        raise ValueError("there are no chunks")
    results, logs = zip(*parts, strict=True)
    return torch.stack(results).mean(dim=0), torch.cat(logs, dim=-1).logsumexp(dim=-1, keepdim=True)


def _result_alone(chunks: Iterable[Chunk]) -> Any:
    return flash.online_softmax(chunks)[0]


def _total_itself(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    result, log_total = flash.online_softmax(chunks)
    return result, log_total.exp()


def _not_divided(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    kept = list(chunks)
    result, log_total = flash.online_softmax(kept)
    largest = torch.cat([scores for scores, _ in kept], dim=-1).amax(dim=-1, keepdim=True)
    return result * (log_total - largest).exp(), log_total


def _last_chunk_only(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    return flash.online_softmax(list(chunks)[-1:])


def _largest_of_everything(chunks: Iterable[Chunk]) -> tuple[Tensor, Tensor]:
    kept = list(chunks)
    if not kept:
        raise ValueError("there are no chunks")
    largest = torch.stack([scores.max() for scores, _ in kept]).max()
    total = sum((scores - largest).exp().sum(dim=-1, keepdim=True) for scores, _ in kept)
    result = sum((scores - largest).exp() @ values for scores, values in kept)
    return torch.as_tensor(result) / torch.as_tensor(total), torch.as_tensor(total).log() + largest


def _cut(scores: Tensor, values: Tensor, widths: Sequence[int]) -> list[Chunk]:
    """Scores (..., Tq, n) and values (..., n, D) in chunks of some widths."""
    pairs = zip(scores.split(list(widths), dim=-1), values.split(list(widths), dim=-2), strict=True)
    return [(a.clone(), b.clone()) for a, b in pairs]


def _with_ban(scores: Tensor, columns: slice, rows: slice = slice(None)) -> Tensor:
    banned = scores.clone()
    banned[..., rows, columns] = float("-inf")
    return banned


def any_order(f: Callable[..., Any]) -> Finding:
    """three chunks, forwards and then backwards: is the result the same?"""
    chunks = _cut(_numbers(2, 6, size=3), _numbers(6, 2, seed=1), (2, 2, 2))
    forwards, backwards = (torch.as_tensor(f(order)[0]) for order in (chunks, chunks[::-1]))
    if forwards.isnan().any() or backwards.isnan().any():
        return Finding("no number", "a result that is no number (nan)")
    if torch.allclose(forwards, backwards, atol=1e-5):
        return Finding("the same in both orders")
    there, back = ([round(x, 3) for x in result.flatten()[:2].tolist()] for result in (forwards, backwards))
    return Finding("order matters", f"{there} forwards, {back} backwards")


def each_chunk_once(f: Callable[..., Any]) -> Any:
    """chunks that come from a generator, which can be walked through only once"""
    chunks = _cut(_numbers(2, 6, seed=5), _numbers(6, 2, seed=1), (3, 3))

    def handed_out() -> Iterator[Chunk]:
        yield from chunks

    return f(handed_out())


def from_one_memory(f: Callable[..., Any]) -> Finding:
    """a generator that writes every chunk into the same memory: is each used before the next one comes?"""
    scores, values = _numbers(2, 6, seed=5), _numbers(6, 2, seed=1)

    def handed_out() -> Iterator[Chunk]:
        memory = torch.empty(2, 2), torch.empty(2, 2)
        for chunk in _cut(scores, values, (2, 2, 2)):
            for place, numbers in zip(memory, chunk, strict=True):
                place.copy_(numbers)
            yield memory
        for place in memory:
            place.fill_(float("nan"))

    result = torch.as_tensor(f(handed_out())[0])
    right = scores.softmax(dim=-1) @ values
    if result.shape == right.shape and torch.allclose(result, right, atol=1e-5):
        return Finding("each is used at once")
    return Finding("overwritten", "a chunk is read again, after the next has overwritten it")


def nothing_allowed(f: Callable[..., Any]) -> Finding:
    """2 rows, and the first may look at nothing: what does it get, and what the second?"""
    answer = f(_cut(_with_ban(_SCORES, slice(None), slice(0, 1)), _VALUES, (3, 3)))
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return Finding("not two results")
    (result, other), log_total = torch.as_tensor(answer[0]), torch.as_tensor(answer[1])[0]
    if result.isnan().any():
        return Finding("no number", "the row gets no numbers (nan)")
    if result.any():
        return Finding("other than zeros", f"the row gets {[round(x, 4) for x in result.flatten().tolist()]}")
    if not log_total.isfinite().all():
        return Finding("no finite logarithm", f"zeros, but the row's logarithm is {log_total.flatten()[0]:g}")
    if not torch.allclose(other, _SCORES[1].softmax(dim=-1) @ _VALUES, atol=1e-5):
        return Finding("the second row", "zeros, but the second row is wrong beside it")
    return Finding("zeros, and a finite logarithm")


def gradient_of_one_pass(f: Callable[..., Any]) -> Finding:
    """scores and values that are to be learned: can a gradient reach them?"""
    cut = _cut(_SCORES, _VALUES, (2, 4))
    lost = []
    for i, name in enumerate(("the scores", "the values")):
        chunks = [(scores.requires_grad_(i == 0), values.requires_grad_(i == 1)) for scores, values in cut]
        try:
            result = f(chunks)[0]
        except RuntimeError as error:  # x.numpy() of a tensor that wants a gradient
            if "numpy" not in str(error):
                raise
            result = None
        if not isinstance(result, torch.Tensor) or not result.requires_grad:
            lost.append(name)
    return Finding("no gradient", f"no gradient reaches {' and '.join(lost)}") if lost else Finding("it can")


_SCORES, _VALUES = _numbers(2, 6, size=2), _numbers(6, 3, seed=1)

_ZERO = "beginning with a largest score of 0 fails where all scores are far below: e^-300 is 0."
_EACH_ROW = "one largest score for all rows: each row has its own, scores.amax(dim=-1, keepdim=True)."

online_softmax = Exercise(
    name="online_softmax",
    reference=flash.online_softmax,
    cases=[
        (_cut(_SCORES, _VALUES, (6,)),),
        (_cut(torch.arange(6.0).expand(1, 6), _VALUES, (3, 3)),),
        (_cut(_SCORES, _VALUES, (1, 3, 2)),),
        any_order,
        (_cut(_with_ban(_SCORES, slice(0, 2)), _VALUES, (2, 2, 2)),),
        (_cut(_SCORES - 300, _VALUES, (2, 4)),),
        (_cut(_SCORES + 300 * torch.arange(2.0)[:, None], _VALUES, (2, 4)),),
        nothing_allowed,
        (_cut(_SCORES + 500, _VALUES, (2, 4)),),
        (_cut(torch.tensor([[201.0, 200.0, 2.0, 1.0, 0.0, 1.0]]), _VALUES, (2, 4)),),
        (_cut(_numbers(2, 3, 4, 6), _numbers(2, 3, 6, 2, seed=1), (4, 2)),),
        each_chunk_once,
        ([],),
        from_one_memory,
        gradient_of_one_pass,
    ],
    mistakes=[
        Mistake(
            _denominator_forgotten,
            "the sum is too big by e^(old - new): shrink the denominator too, not only the result.",
        ),
        Mistake(
            _numerator_forgotten, "the result is too big by e^(old - new): shrink the numerator too, not only the sum."
        ),
        Mistake(
            _never_shrinks, "when the largest score changes, what was added before must be shrunk by e^(old - new)."
        ),
        Mistake(
            _begins_at_minus_infinity,
            "a chunk with nothing allowed: -inf less -inf is nan. Begin with the least finite number.",
        ),
        Mistake(_begins_at_zero, _ZERO),
        Mistake(_begins_at_zero_and_divides_by_zero, _ZERO),
        Mistake(_divides_by_zero, "a row with nothing allowed divides 0 by 0: let the total count as at least 1."),
        Mistake(_grows_instead, "upside down: shrink by e^(old - new), which is at most 1."),
        Mistake(
            _largest_of_the_chunk,
            "the largest of all chunks so far is wanted: where this chunk's is smaller, the old one stays.",
        ),
        Mistake(
            _logarithm_of_the_shifted,
            "the sum is relative to the largest score: its logarithm is largest + total.log().",
        ),
        Mistake(_no_largest_at_all, "e^500 is infinite: subtract the largest score so far before every exp."),
        Mistake(_mean_of_means, "chunks do not count alike: each weighs as much as its sum of exponentials."),
        Mistake(_result_alone, "return two things: the result, and the logarithm of each row's sum of e^score."),
        Mistake(_total_itself, "the second result is the logarithm of the sum: the sum itself may be infinite."),
        Mistake(_not_divided, "the result is still to be divided by the sum of the weights, once, at the end."),
        Mistake(_last_chunk_only, "only the last chunk counts: add to what the earlier ones gave."),
        Mistake(_largest_of_everything, _EACH_ROW),
        Mistake(_same_for_all_rows, _EACH_ROW),
        Mistake(_same_for_all_rows_and_divides_by_zero, _EACH_ROW),
        Mistake(_axis_dropped, "amax and sum lose the last axis, and what is left does not fit: keepdim=True in both."),
        Mistake(_axis_dropped_at_the_end, "the logarithms have lost their last axis, (..., Tq, 1): keepdim=True."),
        Mistake(_all_at_once, "the chunks were kept: use each and let it go."),
        Mistake(_numbers_of_softmax, "the numbers are right, but nothing can be learned: no detach, no NumPy."),
    ],
    hint="keep largest, total and result of each row. A new chunk: new largest, shrink both by e^(old - new), add.",
)
