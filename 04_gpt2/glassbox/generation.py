"""Writing: the one loop of the course that lets a model go on with a text, token by token.

What to take from the model's scores is the caller's choice: `choose(logits, ids)` gets the scores of the next token
(B, V) and all ids so far (B, T), and returns the next ids (B,). Here the likeliest is taken; module 05 has the dice.

The rule at the end of the context: prompt and new tokens together must fit into block_size. What would not fit is
refused before the first token is computed, since what a model has seen must not change under the reader's eyes.

Letters: B batch, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.gpt2 import GPT, check_call
from glassbox.preprocessing import check_ids, check_row, check_size
from torch.overrides import TorchFunctionMode

__all__ = ["Choose", "evaluating", "generate", "generate_each", "greedy", "stream_tokens"]

ROWS = 4, 64  # for so many rows a product that begins with the weights was measured to be faster

Choose = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def greedy(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The likeliest token, the one with the smallest id where several are: (B, V) -> (B,)."""
    return logits.argmax(dim=-1)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside the `with`; afterwards each part is in the mode it was in, also after an error.

    For one thread at a time: where several share a model, call model.eval() first.
    """
    training = [module for module in model.modules() if module.training]
    try:
        if training:
            model.eval()
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def stream_tokens(
    model: GPT, ids: torch.Tensor, n: int, choose: Choose = greedy, cached: bool = True
) -> Iterator[torch.Tensor]:
    """Yield the next ids (B,) of the texts (B, T), n times; the caller may stop before.

    With the cache each token is computed once; without it (`cached=False`) every step reads the whole text again, and
    the scores are the same, up to rounding. The model is asked for its `features` and its `head`, and between two steps
    it is in the caller's mode. Errors as of `generate`, at the first step.
    """
    n = check_prompt(model, ids, n, choose)
    caches = model.new_caches(ids.shape[1] + n) if cached else None
    ids = new = ids.clone()  # whatever `choose` does to them, the caller's own stay as they are
    for _ in range(n):
        with evaluating(model), few_rows(new):
            features = model.features(new if cached else ids, caches)
            logits = check_logits(model.head(features[:, -1]))  # (B, V)
        chosen = check_chosen(choose(logits, ids), ids, model.config.vocab_size).clone()  # (B,)
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        new = ids[:, -1:]
        yield chosen


def generate(
    model: GPT, ids: torch.Tensor, n: int, choose: Choose = greedy, cached: bool = True, end: int | None = None
) -> torch.Tensor:
    """Texts of ids (B, T) with n new tokens each: (B, T + n).

    With `end`, a text that has chosen this id is over: it is filled with `end`, and when all are over the work stops,
    so that the result may be shorter. Raises TypeError or ValueError before any work for no tokens, ids outside the
    vocabulary, T + n above block_size and n below 1.
    """
    check_prompt(model, ids, n, choose)
    end = check_end(end, model.config.vocab_size)
    over = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    columns = [ids]
    for new in stream_tokens(model, ids, n, choose, cached):
        if end is not None:
            new = new.masked_fill(over, end)
            over |= new == end
        columns.append(new[:, None])
        if over.all():
            break
    return torch.cat(columns, dim=1)


def generate_each(
    model: GPT, prompts: Sequence[Sequence[int]], n: int, choose: Choose = greedy, end: int | None = None
) -> list[list[int]]:
    """Prompts of unequal lengths, each with up to n new ids (to `end`, included): what each would get alone.

    Nothing is padded. The texts advance together from the end of the shortest prompt on, and where a prompt still has
    a token of its own, that one is taken in place of the chosen one. (A `choose` with dice throws them there too, so it
    may choose otherwise than alone.) Errors as of `generate`, and for no prompts.
    """
    rows, n = check_prompts(model, prompts, n, choose)
    end = check_end(end, model.config.vocab_size)
    first, last = min(map(len, rows)), max(map(len, rows))
    known = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, last); what fills it up is never taken
    own = torch.tensor([len(row) for row in rows], device=known.device)

    def next_ids(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        t, chosen = ids.shape[1], check_chosen(choose(logits, ids), ids, model.config.vocab_size)
        return torch.where(t < own, known[:, min(t, last - 1)], chosen)

    texts = [row.tolist() for row in rows]
    going = set(range(len(texts)))
    for t, new in enumerate(stream_tokens(model, known[:, :first], last - first + n, next_ids), first):
        for i in [i for i in going if len(texts[i]) == t]:
            texts[i].append(int(new[i]))
            if texts[i][-1] == end or len(texts[i]) == len(rows[i]) + n:
                going.remove(i)
        if not going:
            break
    return texts


# --- what is faster ---


class FewRows(TorchFunctionMode):
    """Inside the `with`, a linear layer of 4 to 64 rows on a CPU is W xᵀ and not x Wᵀ: the same numbers, sooner.

    The next tokens of B texts are B rows. All the weights are read for them, and of the two ways that a CPU's library
    has for the product, the one that starts from W reads them faster.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not types and not kwargs and args[0].device.type == "cpu":  # types: of subclasses
            x, weight, bias = args if len(args) == 3 else (*args, None)
            few, many = (limit * x.shape[-1] for limit in ROWS)
            if weight.ndim == 2 and (bias is None or bias.ndim == 1) and 0 < few <= x.numel() <= many:
                rows = x.reshape(-1, x.shape[-1])
                y = weight @ rows.T if bias is None else torch.addmm(bias[:, None], weight, rows.T)  # (out, rows)
                return y.T.contiguous().view(*x.shape[:-1], len(weight))
        return func(*args, **(kwargs or {}))


def few_rows(ids: torch.Tensor) -> AbstractContextManager[Any]:
    """What makes one step for these new ids faster, where that is known: `FewRows`, or nothing."""
    few, many = ROWS
    return FewRows() if few <= ids.numel() <= many else nullcontext()


# --- what is refused ---


def check_prompt(model: GPT, ids: torch.Tensor, n: int, choose: Choose) -> int:
    """n as an int. Raises unless ids are texts (B, T) that the model can read, and n more tokens fit."""
    if not isinstance(ids, torch.Tensor):
        raise TypeError(
            f"ids must be a tensor (B, T), not {type(ids).__name__}: write torch.tensor([ids]) for one text, and use "
            "generate_each for lists of unequal lengths"
        )
    check_call(model, ids)
    if ids.is_meta:
        raise ValueError("the model is on meta and has no numbers: build it on a device, or load its weights first")
    return check_room(model, ids.shape[1], n, choose)


def check_prompts(
    model: GPT, prompts: Sequence[Sequence[int]], n: int, choose: Choose
) -> tuple[list[torch.Tensor], int]:
    """The prompts as rows of ids on the model's device, none of them empty, and n as an int."""
    if isinstance(prompts, str) or not isinstance(prompts, Iterable):
        raise TypeError(f"prompts must be a list of rows of ids, not {prompts!r}: encode text first")
    rows = [check_row(prompt, f"prompt {i}") for i, prompt in enumerate(prompts)]
    if not rows or not all(map(len, rows)):
        which = f"prompt {[len(row) for row in rows].index(0)} is empty" if rows else "there are no prompts"
        raise ValueError(f"{which}: give at least one token, such as the end mark")
    ids = [torch.as_tensor(row.astype(np.int64), device=model.wte.weight.device) for row in rows]
    for row in ids:
        check_ids(row, model.config.vocab_size)
    return ids, check_room(model, max(map(len, ids)), n, choose)


def check_room(model: GPT, T: int, n: int, choose: Choose) -> int:
    """n as an int. ValueError where T tokens and n more do not fit, TypeError where nothing can choose them."""
    n, room = check_size("n", n), model.config.block_size - T
    if n > room:
        raise ValueError(
            f"{T} tokens and n = {n} new ones are more than block_size = {model.config.block_size}: "
            + (f"ask for at most {room}, or give a shorter prompt" if room > 0 else "give a shorter prompt")
        )
    if not callable(choose):
        raise TypeError(f"choose must be a function of logits and ids, such as greedy, not {choose!r}")
    return n


def check_end(end: int | None, vocab_size: int) -> int | None:
    """The id that ends a text as an int. ValueError where it is none of the vocabulary."""
    end = None if end is None else check_size("end", end, 0)
    if end is not None and end >= vocab_size:
        raise ValueError(f"end = {end} is outside 0 to {vocab_size - 1}: use the id of the tokenizer's end mark")
    return end


def check_logits(logits: torch.Tensor) -> torch.Tensor:
    """The logits, if there is no NaN among them."""
    if logits.isnan().any():
        raise ValueError("the model's logits hold NaN: its weights are damaged or its training diverged; load others")
    return logits


def check_chosen(chosen: torch.Tensor, ids: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """The chosen ids, if `choose` has returned one of the vocabulary for each text."""
    if not isinstance(chosen, torch.Tensor) or chosen.shape != ids.shape[:1] or chosen.device != ids.device:
        found = f"{tuple(chosen.shape)} on {chosen.device}" if isinstance(chosen, torch.Tensor) else repr(chosen)
        raise ValueError(
            f"choose returned {found}; it must return a tensor of {len(ids)} ids on {ids.device}, one for each text"
        )
    try:
        check_ids(chosen, vocab_size)
    except (TypeError, ValueError) as error:
        raise type(error)(f"choose returned no ids of the vocabulary: {error}") from None
    return chosen
