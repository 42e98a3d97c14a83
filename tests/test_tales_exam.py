"""05_loss, tales_exam.py: floor, loss and recalls of the examination, against slow and exact computations."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import pytest
import torch
import torch.nn as nn
from glassbox import tales
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.loss import mean_loss
from glassbox.preprocessing import IGNORE
from glassbox.tales_exam import BINS, TalesExam, pad_rows
from glassbox.tokenizer import BPETokenizer

END = tales.END


@pytest.fixture(scope="module")
def course() -> BPETokenizer:
    return BPETokenizer.load()


@pytest.fixture(scope="module")
def exam(course: BPETokenizer) -> TalesExam:
    return TalesExam(course, 40)


def spans(text: tales.Text, tokenizer: BPETokenizer) -> list[tuple[int, int]]:
    """For each token of a text: where its bytes begin and end, by decoding ever longer beginnings."""
    ids = tokenizer.encode(text.text)
    places = [len(tokenizer.decode_bytes(ids[:n])) for n in range(len(ids) + 1)]
    return list(itertools.pairwise(places))


def exact_logits(exam: TalesExam, tokenizer: BPETokenizer) -> Any:
    """A model with the language's own probabilities: a piece's is given to its first token, the others are certain."""
    by_row = {tuple(row): text for row, text in zip(exam.rows, exam.texts, strict=True)}
    end = tokenizer.special_tokens[END]

    def model(X: torch.Tensor) -> torch.Tensor:
        logits = torch.full((*X.shape, tokenizer.vocab_size), -math.inf)
        for i, x in enumerate(X.tolist()):
            n = len(x)
            while n > 1 and x[n - 1] == end:
                n -= 1
            row = [*x[:n], end]
            text = by_row[tuple(row)]
            chances = []
            begin, tokens = 0, spans(text, tokenizer)
            given = [0.0] * len(tokens)
            for piece, log_prob in zip(text.pieces, text.log_probs, strict=False):
                first = next(t for t, (start, stop) in enumerate(tokens) if stop > begin)
                given[first] += log_prob
                begin += len(piece.encode())
            chances = [*given, text.log_probs[-1]]
            for t, log_prob in enumerate(chances):
                other = 0 if row[t + 1] else 1
                logits[i, t, row[t + 1]] = log_prob
                logits[i, t, other] = math.log(-math.expm1(log_prob)) if log_prob < 0 else -math.inf
            logits[i, len(chances) :] = math.nan  # what stands behind a text must not count
        return logits + 3.0  # and need not be normalised

    return model


def test_the_languages_own_probabilities_reach_the_floor_and_recall_everything(
    exam: TalesExam, course: BPETokenizer
) -> None:
    score = exam.score(exact_logits(exam, course))
    assert score["loss"] == pytest.approx(exam.floor, rel=2e-6)
    assert [score[bin] for bin in BINS] == [1.0, 1.0, 1.0]


def test_the_floor_is_the_texts_own_surprise_a_token(exam: TalesExam, course: BPETokenizer) -> None:
    texts = list(tales.stream(2, 40))
    surprise = -sum(sum(tales.score(text.text)) for text in texts)
    tokens = sum(len(course.encode(text.text)) + 1 for text in texts)
    assert (exam.n_tokens, exam.n_bytes) == (tokens, sum(len(text.text.encode()) for text in texts))
    assert exam.floor == pytest.approx(surprise / tokens, rel=1e-9)
    assert sum(int((Y != IGNORE).sum()) for _, Y in exam.batches) == tokens
    assert sorted(text.text for text in exam.texts) == sorted(text.text for text in texts)


def test_recalls_are_the_tokens_that_overlap_with_their_words(exam: TalesExam, course: BPETokenizer) -> None:
    """By a slow count over bytes: which tokens have a byte in common with the word."""
    asked = dict.fromkeys(BINS, 0)
    for text, row, found in zip(exam.texts, exam.rows, exam.recalls, strict=True):
        tokens, wanted = spans(text, course), []
        for recall in text.recalls:
            begin = len("".join(text.pieces[: recall.index]).encode())
            word = set(range(begin, begin + len(text.pieces[recall.index].encode())))
            touched = [t for t, (start, stop) in enumerate(tokens) if word & set(range(start, stop))]
            for bin, (low, high) in BINS.items():
                if low <= recall.index - recall.source <= high:
                    wanted.append((bin, touched[0], touched[-1] + 1))
                    asked[bin] += 1
                    said = course.decode(row[1 + touched[0] : 2 + touched[-1]])
                    assert text.pieces[recall.index].strip() in said
        assert found == wanted
    assert all(count > 20 for count in asked.values())


def test_one_wrong_token_of_a_word_makes_one_recall_wrong(exam: TalesExam, course: BPETokenizer) -> None:
    perfect = exact_logits(exam, course)
    for bin in BINS:
        number = next(i for i, found in enumerate(exam.recalls) if any(name == bin for name, *_ in found))
        _, _, last = next(found for found in exam.recalls[number] if found[0] == bin)
        hits = defaultdict(int)
        for name, first, stop in exam.recalls[number]:
            hits[name] += first <= last - 1 < stop

        def model(X: torch.Tensor, number: int = number, last: int = last) -> torch.Tensor:
            logits, row = perfect(X), exam.rows[number]
            for i, x in enumerate(X.tolist()):
                if x[: len(row) - 1] == row[:-1]:
                    logits[i, last - 1, (row[last] + 1) % logits.shape[-1]] = 50.0
            return logits

        score = exam.score(model)
        for name in BINS:
            asked = sum(found[0] == name for rows in exam.recalls for found in rows)
            assert score[name] == pytest.approx(1 - hits[name] / asked)
        assert score["loss"] > exam.floor


def test_the_loss_is_the_mean_over_tokens_and_the_model_keeps_its_mode(course: BPETokenizer) -> None:
    exam = TalesExam(course, 5)
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=2048, block_size=512, n_layer=1, n_head=1, n_embd=8, dropout=0.5))
    score = exam.score(model)
    assert model.training
    assert score == exam.score(model)
    assert score["loss"] == pytest.approx(mean_loss(model, exam.batches), rel=1e-6)
    assert score["loss"] == pytest.approx(math.log(2048), rel=0.01)
    assert exam.score(lambda X: torch.zeros(*X.shape, 2048))["loss"] == pytest.approx(math.log(2048), rel=1e-6)
    table = nn.Module()
    table.forward = lambda X: torch.zeros(*X.shape, 2048)  # a module without a parameter
    assert exam.score(table)["loss"] == pytest.approx(math.log(2048), rel=1e-6)


def test_other_texts_can_be_asked_for(course: BPETokenizer) -> None:
    exam = TalesExam(course, 4, seed=3, genre="tale", pairs="unseen")
    wanted = list(tales.stream(3, 4, "tale", "unseen"))
    assert sorted(text.text for text in exam.texts) == sorted(text.text for text in wanted)
    assert exam.floor == pytest.approx(-sum(text.log_prob for text in wanted) / exam.n_tokens)


def test_rows_are_padded_at_the_right() -> None:
    X, Y = pad_rows([[1, 2, 3, 4], [5, 6]], 9)
    assert X.tolist() == [[1, 2, 3], [5, 9, 9]]
    assert Y.tolist() == [[2, 3, 4], [6, IGNORE, IGNORE]]


def test_what_is_refused(course: BPETokenizer) -> None:
    with pytest.raises(ValueError, match=r"a text has \d+ tokens, more than block_size = 50: .* a longer context"):
        TalesExam(course, 5, 50)
    with pytest.raises(ValueError, match="n must be 1 or more, not 0"):
        TalesExam(course, 0)
    with pytest.raises(TypeError, match="block_size must be a whole number"):
        TalesExam(course, 5, 9.5)  # type: ignore[arg-type]
    exam = TalesExam(course, 2)
    with pytest.raises(ValueError, match=r"target \d+ is outside 0 to 9: use the ids of the model's own tokenizer"):
        exam.score(lambda X: torch.zeros(*X.shape, 10))
    with pytest.raises(ValueError, match="do not go together"):
        exam.score(lambda X: torch.zeros(len(X), 2048))
