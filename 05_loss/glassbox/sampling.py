"""How the next token is chosen: filters on the model's scores, then the dice; and beam search, which throws none.

A filter is a function of the scores of the next token, logits (B, V), and of all ids so far (B, T). It returns the
logits it would rather see: those that it forbids are -infinity. `sampler` puts filters in a row and draws from what
they leave: a `choose` for `generate`, `generate_each` and `stream_tokens`. Filters act in the order in which they are
written, and the order matters: the usual one is repetition_penalty, temperature, top_k, top_p, min_p.

Letters: B texts, T tokens, V vocabulary, K beams.

Sources: Ackley, Hinton and Sejnowski, A Learning Algorithm for Boltzmann Machines (1985), for temperature; Fan et al.,
Hierarchical Neural Story Generation (2018), top-k; Holtzman et al., The Curious Case of Neural Text Degeneration
(2019), top-p; Nguyen et al., Turning Up the Heat: Min-p Sampling (2024); Keskar et al., CTRL (2019), repetition
penalty; Lowerre, The HARPY Speech Recognition System (1976), beam search.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from glassbox.attention import KVCache
from glassbox.generation import Choose, check_end, check_prompt, evaluating, greedy
from glassbox.gpt2 import GPT
from glassbox.preprocessing import check_ids, check_size

__all__ = [
    "Filter",
    "beam_search",
    "min_p",
    "repetition_penalty",
    "sampler",
    "temperature",
    "top_k",
    "top_p",
]

Filter = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits (B, V), ids (B, T) -> logits (B, V)


# --- filters ---


def temperature(t: float) -> Filter:
    """Divide the logits by t: below 1 the likely become likelier, above 1 all come closer, 0 leaves only the likeliest.

    At 0 the token with the smallest id is left where several are likeliest, as `greedy` takes it. ValueError for t < 0.
    """
    t = check_number("temperature", t, 0, math.inf)

    def cool(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        logits = check_scores(logits, ids)
        if t > 0:
            return logits / t
        best = logits.argmax(dim=-1, keepdim=True)  # (B, 1)
        return torch.full_like(logits, -math.inf).scatter(1, best, logits.gather(1, best))

    return cool


def top_k(k: int) -> Filter:
    """Keep the k likeliest tokens, and those that are as likely as the last of them. ValueError for k < 1 or k > V."""
    k = check_size("k", k)

    def keep(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        logits = check_scores(logits, ids, k)
        last = logits.topk(k, dim=-1).values[:, -1:]  # (B, 1)
        return logits.masked_fill(logits < last, -math.inf)

    return keep


def top_p(p: float) -> Filter:
    """Keep the fewest likeliest tokens that have p of the probability together, the one that crosses the line included.

    Of tokens that are equally likely, those of higher ids are kept first. ValueError unless 0 < p <= 1.
    """
    p = check_number("p of top_p", p, 0, 1, above=True)

    def keep(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        logits = check_scores(logits, ids)
        ordered, order = logits.sort(dim=-1, stable=True)  # the least likely first
        tail = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
        tail[:, -1] = False  # the likeliest stays, however small p is
        return logits.scatter(1, order, ordered.masked_fill(tail, -math.inf))

    return keep


def min_p(p: float) -> Filter:
    """Keep the tokens whose probability is at least p times that of the likeliest. ValueError unless 0 <= p <= 1."""
    p = check_number("p of min_p", p, 0, 1)

    def keep(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        logits = check_scores(logits, ids)
        probabilities = logits.softmax(dim=-1)
        least = p * probabilities.amax(dim=-1, keepdim=True)  # (B, 1)
        return logits.masked_fill(probabilities < least, -math.inf)

    return keep


def repetition_penalty(r: float) -> Filter:
    """Make tokens of the text less likely: their logits are divided by r where positive, multiplied by it where not.

    Above 1 it punishes, below 1 it rewards. It counts from a logit of 0, which softmax does not know, so that it acts
    otherwise on a model whose logits are all shifted; put it before temperature. ValueError unless r > 0.
    """
    r = check_number("repetition penalty", r, 0, math.inf, above=True)

    def punish(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        logits = check_scores(logits, ids)
        seen = logits.gather(1, ids)  # (B, T); a token that stands there twice is punished once
        return logits.scatter(1, ids, torch.where(seen > 0, seen / r, seen * r))

    return punish


# --- choosing ---


def sampler(*filters: Filter, generator: torch.Generator | None = None) -> Choose:
    """A `choose` for `generate`: the filters in this order, then one draw a text from the softmax of what they leave.

    generator: the dice, on the model's device; None: torch's global ones. Half-precision logits become float32 first.
    Raises TypeError for what is no filter, and ValueError, when it chooses, for logits that are NaN or infinite, and
    where a filter forbids every token.
    """
    check_filters(filters, generator)

    def choose(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        logits = check_scores(logits, ids)
        for change in filters:
            logits = check_left(change(logits, ids), logits, change)
        return check_dice(logits, generator).softmax(dim=-1).multinomial(1, generator=generator)[:, 0]

    return choose


@torch.no_grad()
def beam_search(
    model: GPT, ids: torch.Tensor, n: int, beams: int, end: int | None = None, length_penalty: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest texts that a search with K = `beams` under way finds: ids (1, T) or (T,) -> texts and scores (K,).

    At each step every text under way is followed by every token, and the K likeliest of these are kept. Those of them
    that have chosen `end`, or have n new tokens, are over; others go on in their places. Texts, the best first, are
    (K, T + up to n), filled with `end`; there are fewer than K where no more exist. A score is the log-probability in
    nats of a text's m new tokens, given the prompt, divided by m ** length_penalty: with 0 a token more is never a
    gain, with 1 the mean of a token counts. One beam without penalty is `greedy` (where two tokens are exactly as
    likely, it may take the other); V ** (n - 1) beams find the best of all texts; between them more are mostly, not
    always, better. Errors as of `generate`, ValueError for more than one prompt.
    """
    ids, n, beams, end, power = check_search(model, ids, n, beams, end, length_penalty)
    T, V = ids.shape[1], model.config.vocab_size
    caches = model.new_caches(T + n)
    texts, sums = ids, torch.zeros(1, device=ids.device)  # under way: (K, T + t), and their log-probabilities (K,)
    new, over = ids, []  # over: (score, text), the best first
    with evaluating(model):
        for t in range(1, n + 1):
            logits = check_scores(model.head(model.features(new, caches)[:, -1]), texts)  # (K, V)
            sums = (sums[:, None] + logits.log_softmax(dim=-1)).flatten()  # (K * V,)
            best, where = sums.topk(min(2 * beams, len(sums)))  # twice as many as go on: half of them may be over
            rows, chosen = where // V, where % V
            last = torch.full_like(chosen, t == n, dtype=torch.bool) if end is None else (chosen == end) | (t == n)
            for i in last[:beams].nonzero()[:, 0]:
                over.append((float(best[i]) / t**power, torch.cat([texts[rows[i]], chosen[i : i + 1]]).tolist()))
            over = sorted(over, key=lambda found: -found[0])[:beams]
            going = (~last).nonzero()[:beams, 0]
            hope = [float(best[i]) / m**power for i in going[:1] for m in (t + 1, n)]  # the best that may still come
            if not hope or (len(over) == beams and max(hope) <= over[-1][0]):
                break
            texts, new, sums = torch.cat([texts[rows], chosen[:, None]], dim=1)[going], chosen[going, None], best[going]
            reorder(caches, rows[going])
    width = max(len(text) for _, text in over)
    filled = [text + [end] * (width - len(text)) for _, text in over]
    return ids.new_tensor(filled), sums.new_tensor([score for score, _ in over])


def reorder(caches: Sequence[KVCache], rows: torch.Tensor) -> None:
    """Let row i of each cache hold what row rows[i] held, so that a text finds the past of the one it continues."""
    for cache in caches:
        assert cache.keys is not None
        assert cache.values is not None
        cache.keys, cache.values = cache.keys[rows], cache.values[rows]


# --- what is refused ---


def check_number(name: str, value: Any, low: float, high: float, above: bool = False) -> float:
    """The value as a float, if it is a finite number from low (or above it) to high."""
    limits = f"{'above' if above else 'at least'} {low}" + (f" and at most {high}" if high < math.inf else "")
    scalar = isinstance(value, torch.Tensor) and not value.ndim and not value.is_complex()
    if isinstance(value, bool) or not (isinstance(value, Real) or scalar):
        raise TypeError(f"{name} must be a number {limits}, not {value!r}")
    number = float(value)
    if not (low < number if above else low <= number) or number > high or math.isinf(number):
        raise ValueError(f"{name} must be {limits}, and finite, not {value!r}{HINTS.get(name, '')}")
    return number


HINTS = {
    "temperature": ": 0 takes the likeliest token, 1 leaves the logits as they are",
    "p of top_p": ": 1 keeps every token, a small p only the likeliest",
    "p of min_p": ": 0 keeps every token, 1 only the likeliest",
    "repetition penalty": ": 1 changes nothing, 1.2 punishes a little",
    "length_penalty": ": 0 compares sums of log-probabilities, 1 means of a token",
}


def check_scores(logits: torch.Tensor, ids: torch.Tensor, k: int = 1) -> torch.Tensor:
    """The logits in float32 at least. Raises unless they are (B, V) for ids (B, T), V >= k, and can be drawn from."""
    if not isinstance(logits, torch.Tensor) or not isinstance(ids, torch.Tensor):
        raise TypeError(f"logits and ids must be tensors, not {type(logits).__name__} and {type(ids).__name__}")
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating-point numbers, not {logits.dtype}; write logits.float()")
    if logits.ndim != 2 or not logits.numel() or ids.ndim != 2 or len(ids) != len(logits):
        raise ValueError(
            f"logits {tuple(logits.shape)} and ids {tuple(ids.shape)} must be (B, V) and (B, T): write x[None] for one"
        )
    check_ids(ids, logits.shape[1])
    if k > logits.shape[1]:
        raise ValueError(f"k = {k} is more than the vocabulary's {logits.shape[1]} tokens: ask top_k for fewer")
    check_highest(logits, "logits hold", "the model's weights are damaged or its training diverged: load others")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def check_left(left: Any, logits: torch.Tensor, change: Filter) -> torch.Tensor:
    """What a filter has left of the logits, if each text can be drawn from."""
    name = getattr(change, "__qualname__", repr(change)).split(".")[0]
    if not isinstance(left, torch.Tensor) or left.shape != logits.shape or left.device != logits.device:
        found = f"{tuple(left.shape)} on {left.device}" if isinstance(left, torch.Tensor) else repr(left)
        raise ValueError(f"{name} returned {found}; it must return logits {tuple(logits.shape)} on {logits.device}")
    check_highest(left, f"the filter {name} left", "choose milder settings, or temperature(0) for the likeliest token")
    return left


def check_highest(logits: torch.Tensor, who: str, fix: str) -> None:
    """ValueError where a row holds NaN or infinity, or nothing but -infinity: its highest logit tells."""
    highest = logits.amax(dim=-1)  # (B,), NaN where one is
    if highest.isfinite().all():
        return
    row = int((~highest.isfinite()).nonzero()[0])
    found = {math.inf: "infinity", -math.inf: "no token: all logits are -infinity"}.get(float(highest[row]), "NaN")
    raise ValueError(f"{who} {found} (text {row}); {fix}")


def check_filters(filters: Sequence[Any], generator: Any) -> None:
    """TypeError for what cannot be called with logits and ids, and for dice that are none."""
    for change in filters:
        try:
            inspect.signature(change).bind(None, None)
        except ValueError:  # a built-in function that does not tell its arguments
            continue
        except TypeError:
            name = getattr(change, "__name__", repr(change))
            raise TypeError(
                f"{name} is no filter, a function of logits and ids: write sampler(temperature(0.8), top_k(40))"
            ) from None
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, not {generator!r}: write torch.Generator()")


def check_dice(logits: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """The logits, if the dice are where they are."""
    if generator is not None and generator.device.type != logits.device.type:
        raise ValueError(
            f"generator is on {generator.device}, the logits are on {logits.device}: "
            f"write torch.Generator('{logits.device.type}').manual_seed(0)"
        )
    return logits


def check_search(
    model: GPT, ids: Any, n: int, beams: int, end: int | None, length_penalty: Any
) -> tuple[torch.Tensor, int, int, int | None, float]:
    """ids (1, T), and the numbers with which beam search computes."""
    if isinstance(ids, torch.Tensor) and ids.ndim == 1:
        ids = ids[None]
    n = check_prompt(model, ids, n, greedy)
    if len(ids) != 1:
        raise ValueError(f"ids are {len(ids)} texts; beam search goes on with one: call it for each, ids[i]")
    power = check_number("length_penalty", length_penalty, -10, 10)
    return ids, n, check_size("beams", beams), check_end(end, model.config.vocab_size), power
