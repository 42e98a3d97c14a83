"""The first language model: count what follows what, and fall back on shorter memories where a longer one is blank.

Counts of short contexts say little that is specific but are seldom blank; those of long ones are the reverse. Each
order is mixed with the one below it, and the more often a context was seen, the more its own counts weigh.

Sources: Shannon (1948), MacKay and Peto (1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Self

import numpy as np
from glassbox.preprocessing import Ids, check_row, check_size

__all__ = ["NGram", "find_keys"]

MOST = 2**31  # of ids in a vocabulary: contexts, which are numbered, times ids stay within int64


def find_keys(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each wanted number stands in `keys`, which rise; -1 where it does not."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


class NGram:
    """A model of the next id given the `order` - 1 ids before it: order 1 counts ids, 2 pairs, 3 triples.

    With c the counts, h a context, h' the same without its first id, and a the strength:
    p(w|h) = (c(h, w) + a p(w|h')) / (c(h) + a); below the empty context all vocab_size ids are equally probable.
    So every id has a probability above 0, and an unknown context gives that of the shorter one. strength: how many
    occurrences of a context weigh as much as all shorter ones. Raises ValueError for order or vocab_size below 1, a
    strength not above 0, ids outside the vocabulary (MacKay and Peto, 1995).
    """

    def __init__(self, order: int, vocab_size: int, strength: float = 4.0) -> None:
        self.order, self.vocab_size, self.strength = check_model(order, vocab_size, strength)
        self.levels: list[tuple[np.ndarray, ...]] = []  # by length of context; filled by `fit`

    def fit(self, ids: Ids) -> Self:
        """Count a row of ids, such as documents joined with their end marks; contexts reach across the marks.

        Begins afresh. Raises ValueError for fewer ids than the order.
        """
        row, V, levels = check_tokens(ids, self.vocab_size, least=self.order), self.vocab_size, []
        keys, contexts = np.zeros(1, np.int64), np.zeros(len(row), np.int64)  # one context at first: the empty one
        for m in range(self.order):
            if m:  # one id further back
                keys, contexts = np.unique(contexts[1:] * V + row[:-m], return_inverse=True)
            pairs, counts = np.unique(contexts * V + row[m:], return_counts=True)
            levels.append((keys, np.bincount(contexts), pairs, counts))
        self.levels = levels
        return self

    def log_probs(self, ids: Ids) -> np.ndarray:
        """Return the natural log of each id's probability given those before it, float64, as long as `ids`.

        At the start of the row the contexts are as long as they can be. Raises ValueError before `fit`.
        """
        row, V, a = check_tokens(ids, self.vocab_size), self.vocab_size, self.strength
        p, contexts = np.full(len(row), 1 / V), np.zeros(len(row), np.int64)
        for m, (keys, totals, pairs, counts) in enumerate(check_fitted(self.levels)):
            if m:
                contexts = find_keys(keys, contexts[1:] * V + row[:-m])  # that of -1 is below 0: not found either
            found = find_keys(pairs, contexts * V + row[m:])
            seen, times = np.where(contexts < 0, 0, totals[contexts]), np.where(found < 0, 0, counts[found])
            p[m:] = (times + a * p[m:]) / (seen + a)
        return np.log(p)

    def probabilities(self, context: Ids = ()) -> np.ndarray:
        """Return the probability of each id (V,) after a context, of which the last order - 1 ids count."""
        before, V, a = check_tokens(context, self.vocab_size, least=0)[::-1], self.vocab_size, self.strength
        p, at = np.full(V, 1 / V), 0
        for m, (keys, totals, pairs, counts) in enumerate(check_fitted(self.levels)[: len(before) + 1]):
            at = int(find_keys(keys, at * V + before[m - 1])) if m else 0
            if at < 0:
                break
            first, last = np.searchsorted(pairs, [at * V, (at + 1) * V])  # the ids that followed this context
            p *= a
            p[pairs[first:last] - at * V] += counts[first:last]
            p /= totals[at] + a
        return p

    def sample(self, n: int, rng: np.random.Generator, prompt: Sequence[int] = ()) -> list[int]:
        """Return the prompt with n ids after it, each drawn from `probabilities` of those before."""
        ids = check_tokens(prompt, self.vocab_size, least=0).tolist()
        for _ in range(check_draws(n, rng)):
            p = self.probabilities(ids[-self.order :])
            ids.append(int(rng.choice(self.vocab_size, p=p / p.sum())))  # the sum is 1 but for the last digits
        return ids


# --- what is refused ---


def check_model(order: int, vocab_size: int, strength: float) -> tuple[int, int, float]:
    order, vocab_size = check_size("order", order), check_size("vocab_size", vocab_size)
    if vocab_size > MOST:
        raise ValueError(f"vocab_size must be {MOST:,} or less, not {vocab_size:,}: give the tokenizer's")
    if not isinstance(strength, Real) or isinstance(strength, bool):
        raise TypeError(f"strength must be a number above 0, not {strength!r}")
    if not 0 < strength < np.inf:
        raise ValueError(f"strength must be a number above 0, not {strength!r}; without it unseen ids are impossible")
    return order, vocab_size, float(strength)


def check_draws(n: int, rng: np.random.Generator) -> int:
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a generator of NumPy's, not {rng!r}; write np.random.default_rng(0)")
    return check_size("n", n, 0)


def check_tokens(ids: Ids, vocab_size: int, least: int = 1) -> np.ndarray:
    row = check_row(ids).astype(np.int64)
    if len(row) < least:
        raise ValueError(f"{len(row)} ids are too few: give {least} or more")
    if len(row) and (row.min() < 0 or row.max() >= vocab_size):
        wrong = row.min() if row.min() < 0 else row.max()
        raise ValueError(f"id {wrong} is outside 0 to {vocab_size - 1}: use the tokenizer whose vocab_size this is")
    return row


def check_fitted(levels: list[tuple[np.ndarray, ...]]) -> list[tuple[np.ndarray, ...]]:
    if not levels:
        raise ValueError("nothing has been counted yet: call fit(ids) first")
    return levels
