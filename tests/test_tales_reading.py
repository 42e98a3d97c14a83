"""Reading along with what a model wrote: every fact is found where the language itself says it is, every fault too."""

from __future__ import annotations

import math
import re

import pytest
from glassbox import tales
from glassbox.tales_grammar import unseen_pair
from glassbox.tales_reading import read_along


@pytest.mark.parametrize("text", list(tales.stream(2, 12)), ids=lambda text: text.genre)
def test_a_text_of_the_language_has_no_fault_and_its_recalls_are_marked(text: tales.Text) -> None:
    marks = read_along(text.text, pairs="seen")
    assert [mark.piece for mark in marks] == [*text.pieces, tales.END]
    assert {mark.kind for mark in marks} <= {"said", "recalled"}
    assert [i for i, mark in enumerate(marks) if mark.kind == "recalled"] == [recall.index for recall in text.recalls]
    assert sum(math.log(mark.probability) for mark in marks) == pytest.approx(text.log_prob)


@pytest.mark.parametrize("pairs", ["seen", "unseen"])
def test_any_owner_may_have_any_thing(pairs: str) -> None:
    """The same facts are found, and a text of unseen pairs is no fault, unless the reader is told so."""
    for text in tales.stream(3, 8, "tale", pairs):
        marks = read_along(text.text)
        assert {mark.kind for mark in marks} <= {"said", "recalled"}
        exact = read_along(text.text, pairs=pairs)
        assert [mark.kind for mark in marks] == [mark.kind for mark in exact]
        other = read_along(text.text, pairs="unseen" if pairs == "seen" else "seen")
        assert "impossible" in {mark.kind for mark in other}


def test_a_pair_of_each_kind_may_stand_in_one_text() -> None:
    """In this tale one owner's thing is changed to one that no training text gives her; the other's stays."""
    text = next(t for t in tales.stream(3, 50, "tale") if t.facts["a.name"] == "Mira")
    thing = text.facts["a.thing"]
    changed = re.sub(rf"\b{thing}\b", "pipe", text.text)
    assert unseen_pair("Mira", "pipe")
    assert not unseen_pair("Mira", thing)
    assert all(mark.probability for mark in read_along(changed))
    for pairs in ("seen", "unseen"):
        assert "impossible" in {mark.kind for mark in read_along(changed, pairs=pairs)}


def test_other_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs must be"):
        read_along("Tale", pairs="all")


def test_a_fact_that_is_repeated_wrongly_is_forgotten_and_nothing_after_it_is_judged() -> None:
    text = tales.JOURNEY
    recall = text.recalls[3]
    wrong = [*text.pieces[: recall.index], " nonsense", *text.pieces[recall.index + 1 :]]
    marks = read_along("".join(wrong))
    assert marks[recall.index][1:] == ("forgotten", 0.0)
    assert {mark.kind for mark in marks[recall.index + 1 :]} == {"after"}
    assert marks[: recall.index] == read_along(text.text)[: recall.index]


def test_another_fault_is_impossible() -> None:
    recalls = {recall.index for recall in tales.JOURNEY.recalls}
    spot = next(i for i in range(3, 40) if i not in recalls)
    wrong = [*tales.JOURNEY.pieces[:spot], " nonsense"]
    assert [mark.kind for mark in read_along("".join(wrong))][spot:] == ["impossible", "after"]


def test_an_end_that_comes_too_soon_is_a_fault_only_where_the_text_ended() -> None:
    text = "".join(tales.JOURNEY.pieces[:10])
    assert read_along(text)[-1][:2] == (tales.END, "impossible")
    assert len(read_along(text, ended=False)) == 10
    assert all(mark.probability for mark in read_along(text, ended=False))


@pytest.mark.parametrize("text", ["", " pudding\ufffd lesday", "\n\n", "Tale"])
def test_any_text_can_be_read(text: str) -> None:
    marks = read_along(text)
    assert marks[-1].piece == tales.END
    assert not marks[-1].probability
