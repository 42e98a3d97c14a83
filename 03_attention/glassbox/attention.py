"""Attention: every token asks all tokens before it, and takes what answers.

Each token has a query (what it looks for), a key (what it can be found by) and a value (what it hands over). A query is
compared with every key, softmax turns the scores into weights, and the result is the weighted mean of the values.

The functions stand alone, so that later modules can put them together in other ways: a mask of their own, fewer heads
for keys than for queries, keys that are turned by their position. Letters: B batch, T time (Tq queries, Tk keys),
C = n_embd channels, nh heads, hs = C / nh channels of one head.

Sources: Vaswani et al., Attention Is All You Need (2017); Radford et al., Language Models are Unsupervised Multitask
Learners (2019), whose names the parameters have.
"""

from __future__ import annotations

from itertools import zip_longest

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.embeddings import check_dropout, check_length
from glassbox.preprocessing import check_size

__all__ = [
    "CausalSelfAttention",
    "KVCache",
    "attention",
    "attention_weights",
    "causal_mask",
    "merge_heads",
    "split_heads",
]


# --- one head ---


def causal_mask(T: int, past: int = 0, device: torch.device | str | None = None) -> torch.Tensor:
    """Say who may look where: bool (T, past + T), True where row t may see a column, which is 0 to past + t.

    `past`: how many tokens came before these T. ValueError for T < 1 or past < 0, TypeError for no whole numbers.
    """
    T, past = check_times(T, past)
    return torch.ones(T, past + T, dtype=torch.bool, device=device).tril(past)


def attention_weights(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """How much each query takes from each key: softmax(q kᵀ / √hs), (..., Tq, hs), (..., Tk, hs) -> (..., Tq, Tk).

    Where `mask` (bool, broadcast to the result) is False the weight is 0; a row that is False throughout gets zeros.
    Raises TypeError for a mask that is not bool, ValueError for shapes that do not fit. Source: Vaswani et al. (2017).
    """
    check_heads(q=q, k=k)
    check_mask(mask, q, k)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (..., Tq, Tk)
    if mask is None:
        return scores.softmax(dim=-1)
    some = mask.any(dim=-1, keepdim=True)  # (..., Tq, 1), rows that may look at something
    scores = scores.masked_fill(~mask & some, float("-inf"))  # e to the power -inf is 0
    return scores.softmax(dim=-1) * some


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Each query's weighted mean of the values: (..., Tq, hs), (..., Tk, hs), (..., Tk, D) -> (..., Tq, D).

    Mask and errors as in `attention_weights`. Every value must be finite, also one that nobody may look at: its weight
    is 0, and 0 times infinity is no number. Source: Vaswani et al. (2017).
    """
    check_heads(q=q, k=k, v=v)
    return attention_weights(q, k, mask) @ v


# --- many heads ---


def split_heads(x: torch.Tensor, n_head: int) -> torch.Tensor:
    """Cut the channels into heads: (B, T, nh * hs) -> (B, nh, T, hs), a view. ValueError where nh does not divide."""
    check_division(x.shape[-1], n_head)
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 2)


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    """Put the heads side by side again: (B, nh, T, hs) -> (B, T, nh * hs), undoing `split_heads`."""
    B, nh, T, hs = x.shape
    return x.transpose(1, 2).reshape(B, T, nh * hs)


class KVCache:
    """The keys and values of one layer for all tokens so far, so that a new token computes only its own.

    `block_size`: for how many tokens there is room. Memory for all of them is taken at the first `append`.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = check_size("block_size", block_size)
        self.reset()

    def reset(self) -> None:
        """Forget all tokens; the next `append` may bring another batch size, type or device."""
        self.length = 0
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def append(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep keys and values of T new tokens, (B, nh, T, hs) each; return all: (B, nh, length, hs) each.

        Raises ValueError where there is no room, where they do not fit what the cache holds, and where gradients are
        wanted; then nothing has changed.
        """
        check_append(self.keys, self.values, k, v)
        check_length(k.shape[2], self.block_size, self.length)
        if self.keys is None or self.values is None:
            self.keys, self.values = (x.new_empty(*x.shape[:2], self.block_size, x.shape[3]) for x in (k, v))
        length = self.length + k.shape[2]
        self.keys[:, :, self.length : length] = k
        self.values[:, :, self.length : length] = v
        self.length = length
        return self.keys[:, :, :length], self.values[:, :, :length]


class CausalSelfAttention(nn.Module):
    """Attention of a text to itself and its past, many heads at once: (B, T, n_embd) -> (B, T, n_embd).

    Each head has n_embd / n_head channels. `dropout` acts in training only, on the weights and on the result.
    ValueError where n_head does not divide n_embd. Sources: Vaswani et al. (2017), Radford et al. (2019).
    """

    def __init__(self, n_embd: int, n_head: int, block_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        n_embd, self.n_head = check_division(n_embd, n_head)
        self.block_size, self.dropout = check_size("block_size", block_size), check_dropout(dropout)
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)  # query, key and value of all heads in one matrix
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        """Attend. With a cache, x are the tokens after those that the cache holds, and it takes them in.

        ValueError where past and new tokens are more than block_size, where x is empty or not (B, T, n_embd).
        """
        past = cache.length if cache is not None else 0
        check_input(x, self.c_attn.in_features)
        check_length(x.shape[1], self.block_size, past)
        q, k, v = (split_heads(part, self.n_head) for part in self.c_attn(x).chunk(3, dim=-1))  # (B, nh, T, hs)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, nh, past + T, hs)
        one = x.shape[1] == 1  # a single token may look at all there is
        mask = causal_mask(x.shape[1], past, x.device) if past and not one else None
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=mask is None and not one)
        return self.resid_dropout(self.c_proj(merge_heads(y)))


# --- what is refused ---


def check_input(x: torch.Tensor, n_embd: int) -> None:
    """ValueError where x is not (B, T, n_embd) with at least one number, TypeError where it holds no floats."""
    if x.ndim != 3 or x.shape[2] != n_embd or not x.numel():
        raise ValueError(f"x has the shape {tuple(x.shape)}; it must be (B, T, {n_embd}), with B and T at least 1")
    if not x.is_floating_point():
        raise TypeError(f"x holds {x.dtype}; it must hold floating point numbers: embed ids first, or use x.float()")


def check_times(T: int, past: int) -> tuple[int, int]:
    """Both as they are, if T is a whole number above 0 and past one of 0 or more. torch.compile is not held up."""
    if torch.compiler.is_compiling():
        return T, past
    return check_size("T", T), check_size("past", past, 0)


def check_division(n_embd: int, n_head: int) -> tuple[int, int]:
    """Both as they are. ValueError where the channels cannot be cut into n_head equal heads."""
    n_embd, n_head = check_size("n_embd", n_embd), check_size("n_head", n_head)
    if n_embd % n_head:
        raise ValueError(
            f"n_embd = {n_embd} cannot be cut into n_head = {n_head} equal heads: take a number that divides n_embd"
        )
    return n_embd, n_head


def check_heads(**given: torch.Tensor) -> None:
    """ValueError where queries q, keys k and values v do not go together, TypeError where their types differ."""
    for name, x in given.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{name} must be a tensor of floating point numbers, not {type(x).__name__}")
    q, k = given["q"], given["k"]
    if any(x.dtype != q.dtype or not x.is_floating_point() for x in given.values()):
        raise TypeError(f"{told(given)}: all must hold floating point numbers of one type; convert them with .to(...)")
    if any(x.device != q.device for x in given.values()):
        devices = ", ".join(f"{name} on {x.device}" for name, x in given.items())
        raise ValueError(f"{devices}: all must be on one device; move them with .to(...)")
    if any(x.ndim < 2 or not x.shape[-2] for x in given.values()) or q.shape[-1] != k.shape[-1] or not q.shape[-1]:
        raise ValueError(
            f"{told(given)}: q must be (..., Tq, hs) and k (..., Tk, hs), with the same hs, none of them 0"
        )
    if given.get("v", k).shape[-2] != k.shape[-2]:
        raise ValueError(f"{told(given)}: k and v must have the same length Tk, one value for each key")
    if not broadcasts(*(x.shape[:-2] for x in given.values())):
        raise ValueError(f"{told(given)}: the axes before the last two must be equal or 1; repeat_interleave can do it")


def told(given: dict[str, torch.Tensor]) -> str:
    """Names, types and shapes, for a message."""
    return ", ".join(f"{name} {x.dtype} {tuple(x.shape)}" for name, x in given.items())


def check_mask(mask: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor) -> None:
    """TypeError where a mask is not bool, ValueError where it does not broadcast to (..., Tq, Tk)."""
    if mask is None:
        return
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise TypeError(f"mask holds {found}; it must be a bool tensor, True where a row may look: use mask.bool()")
    batch = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    scores = (*batch, q.shape[-2], k.shape[-2])
    if mask.ndim > len(scores) or any(
        m not in (1, n) for m, n in zip(reversed(mask.shape), reversed(scores), strict=False)
    ):
        raise ValueError(
            f"mask has the shape {tuple(mask.shape)}; it must broadcast to (..., Tq, Tk) = {scores}: each axis, "
            "counted from the right, is equal or 1"
        )


def broadcasts(*shapes: tuple[int, ...]) -> bool:
    """Whether tensors of these shapes can be combined: each axis, counted from the right, is equal or 1."""
    axes = zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    return all(len({*sizes} - {1}) <= 1 for sizes in axes)


def check_append(keys: torch.Tensor | None, values: torch.Tensor | None, k: torch.Tensor, v: torch.Tensor) -> None:
    """ValueError where new keys and values do not fit each other or those that a cache holds, or want gradients."""
    for name, new in (("k", k), ("v", v)):
        if not isinstance(new, torch.Tensor):
            raise TypeError(f"{name} must be a tensor (B, nh, T, hs), not {type(new).__name__}")
    if k.dtype != v.dtype or k.device != v.device:
        raise ValueError(
            f"keys {k.dtype} on {k.device}, values {v.dtype} on {v.device}: both must have one type and place"
        )
    if k.ndim != 4 or v.ndim != 4 or k.shape[:3] != v.shape[:3] or not k.numel() * v.numel():
        raise ValueError(
            f"keys {tuple(k.shape)} and values {tuple(v.shape)}: both must be (B, nh, T, hs) with the same B, nh and "
            "T, none of them 0"
        )
    for name, held, new in (("keys", keys, k), ("values", values, v)):
        if held is None:
            continue
        had = (held.shape[0], held.shape[1], held.shape[3], held.dtype, held.device)
        got = (new.shape[0], new.shape[1], new.shape[3], new.dtype, new.device)
        for what, old, found in zip(("batch size", "heads", "head size", "type", "device"), had, got, strict=True):
            if old != found:
                raise ValueError(
                    f"the new {name} have {what} {found}, the cache holds {what} {old}: use one cache for each batch "
                    "and layer, or call reset() first"
                )
    if torch.is_grad_enabled() and (k.requires_grad or v.requires_grad):
        raise ValueError(
            "a cache cannot keep keys and values that want gradients, since it writes over its memory: generate under "
            "torch.no_grad(), and train without a cache"
        )
    if torch.compiler.is_compiling():  # which cannot ask about inference mode
        return
    if keys is not None and keys.is_inference() and not torch.is_inference_mode_enabled():
        raise ValueError(
            "this cache was begun under torch.inference_mode() and can only go on there: call reset() first, or use "
            "either inference_mode or no_grad throughout"
        )
