"""Tiny Tales: what the language promises, checked against enumeration, sampling and the texts themselves."""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.util
import itertools
import math
import random
import re
import shutil
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from glassbox import tales, tales_data, tales_grammar
from glassbox.datasets import data_folder

TEXTS = list(tales.stream(77, 100))
TALES = list(tales.stream(78, 60, "tale"))

SMALL = """
text:
    (2) {a.name} has {a a.thing} <tail>.
    {a.name} saw {b.name}, and {b.name} [saw|heard] {a.name}.
    {^a.thing}!

tail:
    and {a.name} likes the {a.thing}
    that is {any.mood}

words name: Mira/f, Otto, Anna/f
words thing: bell, owl
anywords mood: red, old
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[tales_grammar.Grammar]:
    """A grammar small enough to write down everything that it can say."""
    grammar = tales_grammar.parse_grammar(SMALL)
    tales_grammar.grammar.cache_clear()
    for cache in (tales_grammar._body, tales_grammar._ranks):
        cache.cache_clear()
    monkeypatch.setattr(tales_grammar, "grammar", lambda: grammar)
    yield grammar
    for cache in (tales_grammar._body, tales_grammar._ranks):
        cache.cache_clear()


def enumerate_texts(state: tales_grammar.State, prefix: tuple[str, ...] = (), p: float = 1.0):
    move = tales_grammar.step(state)
    if move is None:
        yield "".join(prefix), p
    elif isinstance(move, list):
        for q, forked in move:
            yield from enumerate_texts(forked, prefix, p * q)
    else:
        yield from enumerate_texts(move.state, (*prefix, move.piece), p)


def test_probabilities_of_a_small_grammar_sum_to_one(small: tales_grammar.Grammar) -> None:
    everything: dict[str, float] = defaultdict(float)
    for text, p in enumerate_texts(tales_grammar.start()):
        everything[text] += p
    assert len(everything) > 20
    assert math.isclose(sum(everything.values()), 1.0, rel_tol=1e-12)
    for text, p in everything.items():  # and reading gives each text the probability that writing gave it
        assert math.isclose(math.exp(sum(tales.score(text))), p, rel_tol=1e-12), text


def test_truth_of_a_small_grammar_is_the_share_of_its_texts(small: tales_grammar.Grammar) -> None:
    everything = list(enumerate_texts(tales_grammar.start()))
    for prefix in ("", "Mira", "Otto has", "Anna has a bell"):
        going_on = [(tales.split_pieces(text), p) for text, p in everything if text.startswith(prefix)]
        depth = len(tales.split_pieces(prefix))
        total = sum(p for _, p in going_on)
        wanted: dict[str, float] = defaultdict(float)
        for pieces, p in going_on:
            wanted[pieces[depth] if len(pieces) > depth else tales.END] += p / total
        assert tales.truth(prefix) == pytest.approx(wanted, rel=1e-9)


def test_the_pieces_are_those_of_gpt2_and_join_to_the_text() -> None:
    for text in TEXTS:
        assert tales.split_pieces(text.text) == list(text.pieces)
        assert text.text.isascii()
        assert not re.search(r"  | [.,!]|[ \n]$", text.text), text.text
        assert not re.search(r"[{}<>\[\]|]", text.text)


def test_reading_back_gives_the_probability_of_writing() -> None:
    for text in TEXTS:
        assert math.isclose(sum(text.log_probs), text.log_prob, rel_tol=1e-9), text.text
        assert len(text.log_probs) == len(text.pieces) + 1


def test_every_text_has_one_derivation() -> None:
    for text in TEXTS:
        reader = tales.Reader()
        for piece in text.pieces:
            reader.read(piece)
        assert sum(said is None for _, said in reader.live) == 1, text.text


def test_truth_sums_to_one_and_knows_the_next_piece() -> None:
    text = TALES[0]
    for length in range(0, len(text.pieces), 7):
        chances = tales.truth("".join(text.pieces[:length]))
        assert math.isclose(sum(chances.values()), 1.0, rel_tol=1e-9)
        assert math.isclose(math.log(chances[text.pieces[length]]), text.log_probs[length], rel_tol=1e-9, abs_tol=1e-12)
    assert tales.truth(text.text)[tales.END] > 0.9


def test_the_floor_is_confirmed_by_sampling() -> None:
    """Mean surprise equals the entropy of the exact distributions, summed over the places of the same texts."""
    surprise, entropy, places = 0.0, 0.0, 0
    for text in TEXTS:
        reader = tales.Reader()
        for piece, log_prob in zip((*text.pieces, tales.END), text.log_probs, strict=True):
            entropy -= sum(p * math.log(p) for p in reader.next().values())
            surprise -= log_prob
            places += 1
            reader.read(piece)
    difference = (surprise - entropy) / places
    assert abs(difference) < 4 * 1.2 / math.sqrt(places), (surprise / places, entropy / places)


def test_a_text_that_the_language_cannot_write_is_refused() -> None:
    with pytest.raises(ValueError, match=r"never go on with ' purpur' here .*; most likely would be"):
        tales.truth("Tale.\nMira the purpur")
    reader = tales.Reader()
    for piece in (*TEXTS[0].pieces, tales.END):
        reader.read(piece)
    with pytest.raises(ValueError, match="the text has ended"):
        reader.read(" more")
    with pytest.raises(ValueError, match="genre must be one of tale, recipe, letter, sum, glossary, not 'poem'"):
        tales.write(1, "poem")
    with pytest.raises(ValueError, match="'seen' or 'unseen', not 'all'"):
        tales.write(1, pairs="all")
    with pytest.raises(ValueError, match=r"' purpur' here \(piece 5\)"):
        tales.score("Tale.\nMira the purpur")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tales.write(-5), ValueError, "seed must be 0 or more, not -5"),
        (lambda: tales.write(True), TypeError, "seed must be an integer, not True"),
        (lambda: tales.write(1.5), TypeError, "seed must be an integer, not 1.5"),  # type: ignore[arg-type]
        (lambda: tales.stream(1, genre="poem"), ValueError, "genre must be one of"),
        (lambda: tales.stream(1, 2_000_000), ValueError, "n must lie between 0 and 1,000,003"),
        (lambda: tales.stream(1, -1), ValueError, "not -1"),
    ],
)
def test_odd_seeds_and_counts_are_refused_at_once(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_streams_of_neighbouring_seeds_never_meet() -> None:
    last_of_one = tales.write(1 * tales.STREAM + tales.STREAM - 1)
    assert next(tales.stream(2)).text == tales.write(2 * tales.STREAM).text != last_of_one.text
    assert tales.stream(1, tales.STREAM) is not None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("text:\n    {a}", r"line 2: expected a slot such as \{a.thing\}"),
        ("text:\n    [one|two", "line 2: '\\[' without '\\]'"),
        ("    an alternative", "line 1: an alternative stands before any rule"),
        ("text:\n    x\ntext:\n    y", "line 3: the rule 'text' stands twice"),
        ("no rule at all", "line 1: expected 'rule:'"),
    ],
)
def test_a_grammar_with_a_mistake_names_its_line(wrong: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tales_grammar.parse_grammar(wrong)


def test_every_rule_is_reached_and_every_kind_has_words() -> None:
    grammar = tales_grammar.grammar()

    def symbols(alternatives: tales_grammar.Alternatives):
        for _, sequence in alternatives:
            for symbol in sequence:
                yield symbol
                if isinstance(symbol, tales_grammar.Pick):
                    yield from symbols(symbol.options)

    everything = [s for _, alternatives in grammar.rules.values() for s in symbols(alternatives)]
    called = {s.rule for s in everything if isinstance(s, tales_grammar.Call)}
    tops = {"text"} | {rule for rule in grammar.rules if re.match("question_|dialogue_|stance_", rule)}
    patterns = [re.sub(r"\{.*?\}", r"\\w+", rule) for rule in called]
    choices = {rule for rule in grammar.rules if any(re.fullmatch(pattern, rule) for pattern in patterns)}
    assert set(grammar.rules) == tops | choices
    for slot in everything:
        if isinstance(slot, tales_grammar.Slot):
            assert slot.kind in grammar.words or slot.kind in tales_grammar.DERIVED, slot


def test_slots_have_fifteen_frames_and_there_are_six_plots() -> None:
    rules = tales_grammar.grammar().rules
    for slot in ("intro", "again", "meet", "search", "talk", "found", "verdict", "stayed"):
        assert len(rules[slot][1]) >= 15, slot
    assert len(rules["middle"][1]) >= 6


def test_recalls_point_at_what_they_repeat() -> None:
    for text in TALES:
        assert text.recalls
        for recall in text.recalls:
            word = text.pieces[recall.index].strip().lower()
            assert text.pieces[recall.source].strip().lower() == word
            assert word not in [piece.strip().lower() for piece in text.pieces[recall.source + 1 : recall.index]]
            assert text.log_probs[recall.index] >= math.log(0.99)
            assert word in text.facts[recall.fact].lower().split()


def test_every_tale_recalls_near_and_far() -> None:
    for text in TALES:
        assert 120 <= len(text.pieces) <= 220
        for name, (low, high) in tales_data.BINS.items():
            assert sum(low <= recall.distance <= high for recall in text.recalls) >= 3, (name, text.text)


def test_the_thing_was_moved_so_that_the_first_place_is_wrong() -> None:
    for text in TALES:
        assert text.facts["n.place"] != text.facts["a.place"]
        assert text.text.lower().count(text.facts["n.place"]) >= 2


def test_no_two_of_fifty_tales_share_a_skeleton() -> None:
    skeletons = set()
    for text in TALES[:50]:
        line = text.text
        for value in sorted(text.facts.values(), key=len, reverse=True):
            line = re.sub(rf"\b{re.escape(value)}\b", "_", line, flags=re.IGNORECASE)
        skeletons.add(line)
    assert len(skeletons) == 50


def test_training_never_meets_the_pairs_that_are_held_out() -> None:
    for text in TALES:
        for owner in "ac":
            assert not tales_grammar.unseen_pair(text.facts[f"{owner}.name"], text.facts[f"{owner}.thing"])
    for text in tales.stream(5, 30, "tale", "unseen"):
        for owner in "ac":
            assert tales_grammar.unseen_pair(text.facts[f"{owner}.name"], text.facts[f"{owner}.thing"])
    names, things = (tales_grammar.grammar().words[kind] for kind in ("name", "thing"))
    held_out = [tales_grammar.unseen_pair(name, thing) for (name, _), (thing, _) in itertools.product(names, things)]
    share = sum(held_out) / len(held_out)
    assert 0.08 < share < 0.12


def test_sums_are_right_and_carries_are_written_out() -> None:
    carried = 0
    for text in tales.stream(6, 80, "sum"):
        x, y = int(text.facts["x.number"]), int(text.facts["y.number"])
        assert text.text.rstrip(".").endswith(str(x + y))
        steps = re.findall(r"(\d+(?: plus \d+)+) is (\d+)", text.text)
        assert len(steps) == 2
        for summands, result in steps:
            assert sum(map(int, summands.split(" plus "))) == int(result), text.text
        carries = x % 10 + y % 10 > 9
        assert f" {(x % 10 + y % 10) % 10}, carry" in text.text
        assert ("carry 1" in text.text) == carries
        carried += carries
    assert 20 < carried < 60


def test_at_least_eight_hundred_words_are_in_use() -> None:
    text = (data_folder() / "tales.txt").read_text("utf-8")
    assert len(set(re.findall("[a-z]+", text.lower()))) >= 800
    assert 1_000_000 <= len(text) <= 2_000_000


@functools.cache
def files() -> dict[str, str]:
    return tales_data.files()


def fingerprint() -> str:
    return hashlib.sha256(tales_data.joined(tales.stream(3, 40)).encode()).hexdigest()


def other_pythons() -> list[str]:
    found = [path for name in ("python3.11", "python3.12", "python3.13", "python3.14") if (path := shutil.which(name))]
    shims = Path.home() / ".pyenv" / "versions"
    found += [str(path) for path in sorted(shims.glob("3.1[1-4]*/bin/python3"))] if shims.is_dir() else []
    return [python for python in found if _works(python)]


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def test_the_same_seed_gives_the_same_bytes_on_every_python_here() -> None:
    here = str(Path(tales.__file__).parents[1])
    code = (
        f"import sys, hashlib; sys.path.insert(0, {here!r}); from glassbox import tales, tales_data; "
        "print(hashlib.sha256(tales_data.joined(tales.stream(3, 40)).encode()).hexdigest())"
    )
    pythons = [sys.executable, *other_pythons()]
    prints = {}
    for python in pythons:
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
        prints[python] = done.stdout.strip()
    assert set(prints.values()) == {fingerprint()}, prints


def test_the_committed_files_are_those_of_the_grammar_and_the_seeds() -> None:
    stale = [name for name, content in files().items() if (data_folder() / name).read_bytes() != content.encode()]
    assert not stale, "run python -m glassbox.tales_data"


def test_the_datasheet_counts_are_those_of_the_script() -> None:
    assert tales_data.counts(files()["tales.txt"]) in (data_folder() / "README.md").read_text("utf-8")


def test_held_out_texts_are_not_training_texts() -> None:
    fresh = files()
    parts = {name: set(fresh[name].split(tales.END + "\n")[:-1]) for name in ("tales.txt", "tales-heldout.txt")}
    shared = parts["tales.txt"] & parts["tales-heldout.txt"]
    assert {text.split(".")[0] for text in shared} <= {"Sum"}, shared  # 8,100 sums: a few must meet


def test_questions_have_the_answers_of_their_tale() -> None:
    kinds = Counter()
    for item in tales_data.questions(9, 40):
        kinds[item["kind"]] += 1
        answer = item["answer"].rstrip(".").lower().removesuffix(" one")
        answer = re.sub("^an? ", "", answer)
        assert answer in item["text"].lower(), item
        assert item["question"].endswith("?")
    assert len(kinds) >= 7
    assert kinds["steps"] <= sum(kinds.values()) / 5


def test_dialogues_ask_at_the_end_for_what_was_told_at_the_start() -> None:
    turns = Counter()
    for item in tales_data.dialogues(9, 50):
        messages = item["messages"]
        turns[item["turns"]] += 1
        assert len(messages) == 2 * item["turns"]
        assert [m["role"] for m in messages[:2]] == ["user", "assistant"]
        told = re.sub("^an? ", "", item["answer"].rstrip(".").lower())
        assert told in (messages[0]["content"] + messages[1]["content"]).lower()
        between = " ".join(m["content"] for m in messages[2:-1]).lower()
        assert told not in between
    assert set(turns) == {2, 3, 4, 5, 6}


def test_few_shot_lists_never_ask_for_an_example() -> None:
    for seen in (True, False):
        shots = Counter()
        for item in tales_data.few_shot(9, 80, seen):
            trained, pairs = tales_grammar.grammar().relations[item["relation"]]
            assert trained is seen
            *examples, asked = item["prompt"].split("\n")
            assert (asked.removesuffix(" :"), item["answer"]) in pairs
            assert asked not in [example.split(" : ")[0] + " :" for example in examples]
            shots[item["shots"]] += 1
        assert set(shots) == set(range(1, 9))


def test_the_share_of_wrong_stance_labels_is_as_stated() -> None:
    items = list(tales_data.stance(4, 2000))
    assert len({item["text"] for item in items}) == len(items)
    wrong = sum(item["label"] != item["truth"] for item in items) / len(items)
    assert abs(wrong - tales_data.MISLABELLED) < 4 * math.sqrt(0.05 * 0.95 / len(items))
    counts = Counter(item["truth"] for item in items)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_stance_can_be_told_from_the_text_alone() -> None:
    """Exactly one of the three grammars can write each statement, so the truth is in the words."""
    for item in tales_data.stance(4, 60):
        able = []
        for label in tales_data.STANCES:
            reader = tales.Reader(tales_grammar.start(f"stance_{label}"))
            try:
                for piece in (*tales.split_pieces(item["text"]), tales.END):
                    reader.read(piece)
            except ValueError:
                continue
            able.append(label)
        assert able == [item["truth"]]


def test_words_follow_zipf_and_lengths_vary() -> None:
    text = (data_folder() / "tales.txt").read_text("utf-8")
    counts = sorted(Counter(re.findall("[a-z]+", text.lower())).values(), reverse=True)
    assert counts[0] > 50 * counts[400]
    assert statistics.pstdev(len(t.pieces) for t in TEXTS) > 20


def test_dice_decide_as_the_probabilities_say() -> None:
    dice = random.Random(1)
    drawn = Counter(tales.walk(tales_grammar.start(), dice)[0][0].rstrip(".") for _ in range(1500))
    for genre, p in tales.truth("").items():
        assert abs(drawn[genre.rstrip(".")] / 1500 - p) < 4 * math.sqrt(p * (1 - p) / 1500), genre


def test_the_separation_script_scores_models_against_the_floor(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    place = Path(__file__).parent / "benchmarks" / "tales_separation.py"
    spec = importlib.util.spec_from_file_location("tales_separation", place)
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(["--seconds", "1", "--seeds", "1", "--texts", "3", "--write", str(tmp_path / "curves.csv")])
    lines = (tmp_path / "curves.csv").read_text("utf-8").splitlines()
    assert lines[0].startswith("model,seed,seconds,steps,nats,near")
    assert {line.split(",")[0] for line in lines[1:]} == {"LSTM", "GPT", "bigram"}
    out = capsys.readouterr().out
    floor = float(re.search(r"floor ([0-9.]+) nats", out)[1])  # type: ignore[index]
    assert all(float(line.split(",")[4]) > floor for line in lines[1:]), "a loss below the floor is a leak"


def test_the_datasheets_table_of_models_is_that_of_the_curves() -> None:
    place = Path(__file__).parent / "benchmarks" / "tales-separation.csv"
    last: dict[tuple[str, str], dict[str, str]] = {}
    for row in csv.DictReader(place.read_text("utf-8").splitlines()):
        last[row["model"], row["seed"]] = row
    sheet = (data_folder() / "README.md").read_text("utf-8")
    bins = ("near 5-20", "middle 20-60", "far 60-200")
    for model in ("bigram", "LSTM", "GPT"):
        runs = [row for (name, _), row in last.items() if name == model]
        nats, *shares = (statistics.median(float(run[key]) for run in runs) for key in ("nats", *bins))
        assert f"| {model} | {nats:.3f} |" in sheet
        assert " | ".join(f"{share:.0%}" for share in shares) + " |" in sheet
    seeds = {seed for _, seed in last}
    assert len(seeds) == 5
    for seed in seeds:
        bigram, lstm, gpt = (last[model, seed] for model in ("bigram", "LSTM", "GPT"))
        assert float(bigram["nats"]) > float(lstm["nats"]) > float(gpt["nats"])
        assert float(gpt["far 60-200"]) - float(lstm["far 60-200"]) >= 0.37
