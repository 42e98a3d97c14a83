"""The cloakroom: what an evening looks like, that the contest is fair, and who remembers how far."""

from __future__ import annotations

import math

import pytest
import torch
from glassbox.attention import CausalSelfAttention
from glassbox.preprocessing import IGNORE
from glassbox.recall import (
    GUESTS,
    NOBODY,
    RATES,
    ROWS,
    THINGS,
    RecallModel,
    cloakroom,
    contestants,
    recall_by_distance,
    train_recall,
)


def evenings(B: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return cloakroom(B, torch.Generator().manual_seed(seed))


def test_the_answer_stands_where_the_distance_says() -> None:
    book, answers, distances = evenings(20)
    for b in range(20):
        for t in range(ROWS):
            comes, thing, asked = [*book[b, t - int(distances[b, t])].tolist()[:2], int(book[b, t, 2])]
            if distances[b, t] == 0:
                assert (asked, int(answers[b, t])) == (NOBODY, IGNORE)
            else:
                assert (comes, thing) == (asked - GUESTS - THINGS, GUESTS + int(answers[b, t]))


def test_each_guest_comes_once_and_brings_one_thing() -> None:
    book, _, _ = evenings(50)
    for evening in book:
        came = evening[:, 0][evening[:, 0] != NOBODY]
        assert sorted(came.tolist()) == list(range(GUESTS))
        assert ((evening[:, 0] == NOBODY) == (evening[:, 1] == NOBODY)).all()


def test_there_is_a_question_as_soon_as_somebody_has_come() -> None:
    book, answers, _ = evenings(50)
    first = (book[:, :, 0] != NOBODY).int().argmax(dim=1)
    for evening, row in zip(answers, first.tolist(), strict=True):
        assert (evening[: row + 1] == IGNORE).all()
        assert (evening[row + 1 :] != IGNORE).all()


def test_things_are_drawn_evenly_and_distances_reach_from_near_to_far() -> None:
    _, answers, distances = evenings(400)
    shares = torch.bincount(answers[answers != IGNORE], minlength=THINGS) / (answers != IGNORE).sum()
    assert shares.sub(1 / THINGS).abs().max() < 0.02
    assert int(distances.max()) >= 100
    for low, high in ((1, 3), (5, 10), (20, 40), (50, 104)):
        assert ((distances >= low) & (distances < high)).float().mean() > 0.05


def test_the_same_seed_gives_the_same_evenings() -> None:
    assert all(torch.equal(a, b) for a, b in zip(evenings(3), evenings(3), strict=True))
    assert not torch.equal(evenings(3)[0], evenings(3, seed=1)[0])


def test_no_evening_is_refused() -> None:
    with pytest.raises(ValueError, match="B = 0"):
        evenings(0)


def test_the_contest_is_fair() -> None:
    sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in contestants().items()}
    assert max(sizes.values()) / min(sizes.values()) < 1.02
    assert sizes.keys() == RATES.keys()
    again = contestants()
    for name, model in contestants().items():
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again[name].parameters(), strict=True))


def test_a_model_never_reads_the_rows_to_come() -> None:
    book, _, _ = evenings(2)
    changed = book.clone()
    changed[:, 60:] = book[:, 60:].flip(0)
    for model in contestants().values():
        assert torch.allclose(model(book)[:, :60], model(changed)[:, :60], atol=1e-6)


def test_a_fresh_model_guesses_and_training_starts_near_the_logarithm() -> None:
    for model in contestants().values():
        first = train_recall(model, lr=1e-3, steps=1)[0]
        assert abs(first - math.log(THINGS)) < 0.35


def test_recall_is_counted_by_distance() -> None:
    class Perfect(RecallModel):
        """Looks the answer up in the book, for distances below 10."""

        def forward(self, book: torch.Tensor) -> torch.Tensor:
            B, T, _ = book.shape
            scores = torch.zeros(B, T, THINGS)
            for b in range(B):
                for t in range(T):
                    who = int(book[b, t, 2]) - GUESTS - THINGS
                    for s in range(max(0, t - 9), t):
                        if int(book[b, s, 0]) == who:
                            scores[b, t, int(book[b, s, 1]) - GUESTS] = 1
            return scores

    model = Perfect(torch.nn.Identity(), 4, 4)
    near, far = recall_by_distance(model, [1, 10, 104], n=40)
    assert near == 1.0
    assert far < 0.3


def test_attention_learns_to_remember_a_hundred_rows() -> None:
    torch.manual_seed(0)
    model = RecallModel(CausalSelfAttention(64, n_head=1, block_size=ROWS), 64, 64)
    losses = train_recall(model, RATES["attention"], steps=200)
    assert losses[-1] < 0.3 < losses[0]
    assert min(recall_by_distance(model, [1, 5, 20, 50, 104], n=50)) > 0.9


def test_training_can_be_repeated() -> None:
    one, other = (train_recall(contestants()["LSTM"], RATES["LSTM"], steps=3, batch_size=2) for _ in range(2))
    assert one == other
