"""05_loss, training_data.py: micro-batches by number, files of every kind as two data sets, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from glassbox import tales
from glassbox.preprocessing import IGNORE, TokenDataset
from glassbox.token_file import TokenFile, write_tokens
from glassbox.tokenizer import BPETokenizer
from glassbox.training_data import POOL, STREAM, TalesBatches, TokenBatches, open_tokens

END = tales.END
DOCUMENTS = [f"Document {i} has words, {'and more ' * (i % 5)}and an end." for i in range(40)]


@pytest.fixture(scope="module")
def course() -> BPETokenizer:
    return BPETokenizer.load()


def text_file(folder: Path, documents: list[str]) -> Path:
    path = folder / "my.txt"
    path.write_text("".join(f"{text}{END}\n" for text in documents), "utf-8")
    return path


def rows(dataset: TokenDataset, tokenizer: BPETokenizer) -> str:
    """All counted targets and first inputs of a data set as text."""
    parts = []
    for i in range(len(dataset)):
        x, y = dataset[i]
        parts.append(tokenizer.decode([int(x[0]), *y[y != IGNORE].tolist()]))
    return "".join(parts)


# --- tales ---


def test_every_text_of_the_stream_comes_once_whole_between_end_marks(course: BPETokenizer) -> None:
    batches = TalesBatches(course, 3, 512, seed=7)
    end = course.special_tokens[END]
    found = []
    for X, Y in itertools.islice(batches(), POOL):
        assert X.shape == Y.shape
        assert X.shape[0] == 3
        assert int((Y == IGNORE).sum(1).min()) == 0  # the longest row has nothing to fill
        for x, y in zip(X, Y, strict=True):
            n = int((y != IGNORE).sum())
            assert x[1:n].equal(y[: n - 1])
            assert (x[n:] == end).all()
            assert (int(x[0]), int(y[n - 1])) == (end, end)
            found.append(course.decode(y[: n - 1].tolist()))
    wanted = [tales.write(7 * STREAM + k).text for k in range(3 * POOL)]
    assert sorted(found) == sorted(wanted)
    assert found != wanted


def test_micro_batches_are_known_by_their_number(course: BPETokenizer) -> None:
    batches = TalesBatches(course, 2, 300, seed=5)
    whole = list(itertools.islice(batches(), 2 * POOL + 4))
    for start, every in ((1, 1), (POOL - 1, 2), (3, POOL), (2 * POOL, 3)):
        for (X, Y), (x, y) in zip(batches(start, every), whole[start::every], strict=False):
            assert X.equal(x)
            assert Y.equal(y)
    other = next(TalesBatches(course, 2, 300, seed=6)())
    assert other[0].shape != whole[0][0].shape or not other[0].equal(whole[0][0])


def test_long_texts_are_cut(course: BPETokenizer) -> None:
    for X, Y in itertools.islice(TalesBatches(course, 4, 20)(), POOL):
        assert X.shape == (4, 20)
        assert (Y != IGNORE).all()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be a whole number"),
        ({"block_size": 0}, ValueError, "block_size must be 1 or more"),
        ({"seed": -1}, ValueError, "seed must be 0 or more"),
        ({"seed": 2}, ValueError, "seed = 2 writes the texts of the examination: train on another one"),
    ],
)
def test_sizes_that_are_none(
    course: BPETokenizer, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        TalesBatches(course, **{"batch_size": 2, "block_size": 9, **changes})


# --- windows ---


def test_batches_of_windows_go_on_where_they_stopped_and_share_nothing() -> None:
    data = TokenDataset(torch.arange(71), 5)  # 14 windows
    batches = TokenBatches(data, 4, seed=3)
    whole = [X.tolist() for X, _ in itertools.islice(batches(), 12)]
    assert [X.tolist() for X, _ in itertools.islice(batches(5), 7)] == whole[5:]
    assert [X.tolist() for X, _ in itertools.islice(batches(1, 2), 6)] == whole[1::2]
    for epoch in range(3):
        firsts = [row[0] for batch in whole[4 * epoch : 4 * epoch + 4] for row in batch]
        assert sorted(firsts) == list(range(0, 70, 5))
    assert whole[:4] != whole[4:8]
    once = torch.cat([X for X, _ in batches.once()])
    assert once.flatten().tolist() == list(range(70))
    spread = [X[0, 0].item() for X, _ in TokenBatches(data, 2).once(3)]
    assert spread == [0, 20, 40]  # batches 0, 2 and 4 of 7
    assert torch.cat([X for X, _ in batches.once(99)]).equal(once)
    with pytest.raises(ValueError, match="batch_size must be 1 or more, not 0"):
        TokenBatches(data, 0)


# --- files ---


def test_documents_go_whole_to_one_side_and_the_files_are_used_again(tmp_path: Path, course: BPETokenizer) -> None:
    path, folder = text_file(tmp_path, [*DOCUMENTS, *DOCUMENTS[:9]]), tmp_path / "run"
    sides = open_tokens(path, course, 32, folder, 0.3)
    texts = [rows(side, course) for side in sides]
    for i, document in enumerate(DOCUMENTS):
        assert [text.count(document) for text in texts].count(0) == 1
        assert sum(text.count(document) for text in texts) == 1 + (i < 9)
    stamps = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert set(stamps) == {"training.tokens", "validation.tokens"}
    again = open_tokens(path, course, 32, folder, 0.3)
    assert [rows(side, course) for side in again] == texts
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == stamps


def test_files_of_another_text_share_or_seed_are_not_used(tmp_path: Path, course: BPETokenizer) -> None:
    path, folder = text_file(tmp_path, DOCUMENTS), tmp_path / "run"
    open_tokens(path, course, 32, folder, 0.3)
    message = r"training\.tokens was written from another text, share or seed than .*my\.txt gives now: restore"
    for share, seed in ((0.5, 0), (0.3, 9)):
        with pytest.raises(ValueError, match=message):
            open_tokens(path, course, 32, folder, share, seed)
    text_file(tmp_path, [*DOCUMENTS[:-1], "another"])
    with pytest.raises(ValueError, match=r"\.tokens was written from another text"):
        open_tokens(path, course, 32, folder, 0.3)
    other = BPETokenizer.train(DOCUMENTS, 300)
    with pytest.raises(ValueError, match=r"training\.tokens was written with another vocabulary"):
        open_tokens(text_file(tmp_path, DOCUMENTS), other, 32, folder, 0.3)


@pytest.mark.parametrize("copies", [1, 3])
def test_a_single_document_is_cut_in_two(tmp_path: Path, course: BPETokenizer, copies: int) -> None:
    """Copies of it would be on both sides, so it is taken once."""
    text = " ".join(DOCUMENTS)
    path = tmp_path / "my.txt"
    path.write_text(f"{END}\n".join([text, f" {text}\n", text][:copies]), "utf-8")
    training, validation = open_tokens(path, course, 16, tmp_path / "run", 0.25)
    ids = [*course.encode(text), course.special_tokens[END]]
    assert [*training.ids.tolist(), *validation.ids.tolist()] == ids
    assert len(validation.ids) == len(ids) - round(len(ids) * 0.75)
    assert training.starts[1] == 16


def test_a_single_document_is_cut_as_the_first_time(tmp_path: Path, course: BPETokenizer) -> None:
    path = text_file(tmp_path, [" ".join(DOCUMENTS)])
    first = open_tokens(path, course, 16, tmp_path / "run", 0.25)
    again = open_tokens(path, course, 16, tmp_path / "run", 0.25)
    assert [side.ids.tolist() for side in again] == [side.ids.tolist() for side in first]
    for share, seed in ((0.5, 0), (0.25, 9)):
        with pytest.raises(ValueError, match=r"text\.tokens was written from another text, share or seed"):
            open_tokens(path, course, 16, tmp_path / "run", share, seed)


def test_a_token_file_gives_its_last_documents_to_validation(tmp_path: Path, course: BPETokenizer) -> None:
    file = write_tokens(tmp_path / "x.tokens", DOCUMENTS, course)
    training, validation = open_tokens(file.path, course, 64, tmp_path / "run", 0.1)
    assert len(training.ids) == file.ends[35]
    text = rows(validation, course)
    assert [document in text for document in DOCUMENTS] == [i >= 36 for i in range(40)]
    assert not (tmp_path / "run").exists()
    one = write_tokens(tmp_path / "one.tokens", [" ".join(DOCUMENTS)], course)
    sides = open_tokens(one.path, course, 64, tmp_path / "run", 0.5)
    assert abs(len(sides[0].ids) - len(sides[1].ids)) <= 1


def test_a_text_that_begins_like_a_token_file_is_a_text(tmp_path: Path, course: BPETokenizer) -> None:
    path = tmp_path / "my.txt"
    path.write_text("GLASSBOX is the name. " * 40)
    assert len(open_tokens(path, course, 8, tmp_path, 0.2)) == 2
    assert TokenFile(tmp_path / "text.tokens", course).documents == 1


def test_what_is_refused_is_named_with_the_way_out(tmp_path: Path, course: BPETokenizer) -> None:
    path = tmp_path / "my.txt"
    for data, message in (
        (b"", r"my\.txt is empty: give a text file with documents, or a token file"),
        (f" \n{END}\n \n{END}\n".encode(), r"my\.txt is empty"),
        (
            b"\x89PNG\r\n\x1a\n\0\0\xff\xfe" * 9,
            r"my\.txt is no UTF-8 text \(.*\): save it as UTF-8, or give",
        ),
        (b"GLASSBOX{", r"my\.txt is truncated"),
        (b"Too short.", r"my\.txt is too short for training: .* smaller block_size, or a smaller share for validation"),
        (b"A few words. " * 9, r"my\.txt is too short for validation: .*smaller block_size, or a larger share"),
        (f"One.{END}Two.{END}".encode(), r"my\.txt: of 2 different documents none fell on the side of"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            open_tokens(path, course, 20, tmp_path / str(len(data)), 0.1, seed=1)
    path.write_text("Words. " * 100)
    for share in (0, 1, -0.5, 2, "x", None, float("nan"), True):
        with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
            open_tokens(path, course, 20, tmp_path / "run", share)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="block_size must be 1 or more"):
        open_tokens(path, course, 0, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        open_tokens(tmp_path / "none.txt", course, 20, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    file = write_tokens(tmp_path / "x.tokens", DOCUMENTS, BPETokenizer.train(DOCUMENTS, 300))
    with pytest.raises(ValueError, match=r"x\.tokens was written with another vocabulary"):
        open_tokens(file.path, course, 20, tmp_path / "run")
