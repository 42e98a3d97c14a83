"""The cloakroom: how far back can a network remember, and which kind of network?

On a slow evening 16 guests come to a cloakroom, each once, at some of 104 rows of its book; in all other rows nobody
comes. In every row after the first guest's somebody also asks for what a guest has handed in, and the network has to
name it. Questions about near and far guests are mixed on a logarithmic scale, the farthest being the rarest. What is
handed in is drawn by dice, so only memory helps: who has none is right in one of eight cases.

`RecallModel` is the same for all three kinds of network but for its middle part, the mixer, which is all that carries
anything from one row to another. Letters: B evenings, T rows, C numbers for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.attention import CausalSelfAttention
from glassbox.preprocessing import IGNORE
from glassbox.recurrent import LSTM, RNN

__all__ = [
    "GUESTS",
    "NOBODY",
    "RATES",
    "ROWS",
    "THINGS",
    "RecallModel",
    "cloakroom",
    "contestants",
    "recall_by_distance",
    "train_recall",
]

ROWS, GUESTS, THINGS = 104, 16, 8  # rows of an evening, guests that come, kinds of things
NOBODY = 2 * GUESTS + THINGS  # ids: guests who come, things, guests who are asked for, and this one for an empty place


def cloakroom(B: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Write B evenings: the book (B, T, 3) of ids, the right answers (B, T), and how many rows back each stands (B, T).

    A row is (guest who comes, thing, guest who is asked for). Before the first guest there is nothing to ask for: there
    the answer is IGNORE and the distance 0.
    """
    if B < 1:
        raise ValueError(f"B = {B}: ask for at least one evening")
    came = torch.rand(B, ROWS, generator=generator).argsort(1)[:, :GUESTS]  # (B, GUESTS), the row of each guest
    things = torch.randint(THINGS, (B, GUESTS), generator=generator)
    back = torch.arange(ROWS)[:, None] - came[:, None]  # (B, T, GUESTS), how many rows ago each guest came
    chance = (back > 0) / back.clamp(min=1) + 1e-9  # a guest of 50 rows ago is asked for less often than one of 5
    asked = chance.flatten(0, 1).multinomial(1, generator=generator).view(B, ROWS)
    distances = back.gather(2, asked[..., None])[..., 0].clamp(min=0)  # (B, T)
    book = torch.full((B, ROWS, 3), NOBODY)
    book[:, :, 0].scatter_(1, came, torch.arange(GUESTS).expand(B, -1))
    book[:, :, 1].scatter_(1, came, GUESTS + things)
    book[:, :, 2] = torch.where(distances > 0, GUESTS + THINGS + asked, NOBODY)
    return book, torch.where(distances > 0, things.gather(1, asked), IGNORE), distances


class RecallModel(nn.Module):
    """Names what was handed in: the book (B, T, 3) -> scores of all things (B, T, THINGS).

    mixer: a module (B, T, n_embd) -> (B, T, n_hidden), or a tuple whose first part that is.
    """

    def __init__(self, mixer: nn.Module, n_embd: int, n_hidden: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(NOBODY + 1, n_embd)
        self.mixer = mixer
        self.head = nn.Linear(n_hidden, THINGS)

    def forward(self, book: torch.Tensor) -> torch.Tensor:
        """Look up the three ids of each row and add them, mix the rows, score the things."""
        x = self.wte(book).sum(dim=2)  # (B, T, C)
        mixed = self.mixer(x)
        return self.head(mixed[0] if isinstance(mixed, tuple) else mixed)


def contestants(seed: int = 0) -> dict[str, RecallModel]:
    """The three models, fresh, with nearly the same number of parameters."""
    torch.manual_seed(seed)
    return {
        "RNN": RecallModel(RNN(64, 99), 64, 99),
        "LSTM": RecallModel(LSTM(64, 40), 64, 40),
        "attention": RecallModel(CausalSelfAttention(64, n_head=1, block_size=ROWS), 64, 64),
    }


RATES = {"RNN": 1e-3, "LSTM": 1e-2, "attention": 3e-3}  # learning rates, the best for each of those that were tried


def train_recall(model: RecallModel, lr: float, steps: int, batch_size: int = 16, seed: int = 0) -> list[float]:
    """Train on fresh evenings, the same for every model; returns the loss of each step.

    The learning rate rises over 30 steps, stays, and falls over the last two fifths. Gradients are cut to length 1.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr, betas=(0.9, 0.98), fused=True)
    losses = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * min(1, (step + 1) / 30, 0.05 + (1 - step / steps) / 0.4)
        book, answers, _ = cloakroom(batch_size, generator)
        loss = F.cross_entropy(model(book).flatten(0, 1), answers.flatten(), ignore_index=IGNORE)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def recall_by_distance(model: RecallModel, edges: Sequence[int], n: int = 400, seed: int = 10_000) -> list[float]:
    """The share of right answers over n fresh evenings, for distances from each edge to just before the next."""
    book, answers, distances = cloakroom(n, torch.Generator().manual_seed(seed))
    right = model(book).argmax(-1) == answers
    return [right[(distances >= a) & (distances < b)].float().mean().item() for a, b in pairwise(edges)]
