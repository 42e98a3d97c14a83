"""05_loss, tales_gpt.py: the embedded model, against transformers with the same files, and against what its card says.

Tolerances. Logits, of the order of 10, against transformers: 2e-5. Nats of a text (about 100), scored again: 1e-3,
since another machine sums in another order.
"""

from __future__ import annotations

import copy
import csv
import itertools
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from glassbox import tales
from glassbox.datasets import data_folder
from glassbox.generation import generate
from glassbox.gpt2 import GPT, GPTConfig
from glassbox.mimetic import mimetic_start
from glassbox.ngrams import NGram
from glassbox.tales_exam import BINS, TalesExam, pad_rows
from glassbox.tales_gpt import FOLDER, LARGEST_LOG, load_tales_gpt, main, thinned, write_tales_gpt
from glassbox.tales_gpt_card import GOAL, card, differences
from glassbox.tales_gpt_scores import (
    COLUMNS,
    NAMES,
    free_texts,
    next_logits,
    possible,
    questions,
    score_each,
    sums,
    totals,
)
from glassbox.tokenizer import BPETokenizer
from glassbox.training import TrainConfig, train
from glassbox.training_command import main as training
from glassbox.training_data import TalesBatches
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2Model

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

import lstm_baseline  # tests/benchmarks/lstm_baseline.py

HERE = data_folder() / FOLDER
MODEL, TOKENIZER = load_tales_gpt()
END = TOKENIZER.special_tokens[tales.END]
TEXTS = (data_folder() / "tales-heldout.txt").read_text("utf-8").split(f"{tales.END}\n")[:-1]
SCORES = json.loads((HERE / "scores.json").read_text("utf-8"))
FILES = {
    "README.md",
    "config.json",
    "evaluations.csv",
    "generation_config.json",
    "heldout.csv",
    "ladder.jsonl",
    "lstm-evaluations.csv",
    "lstm-scores.json",
    "merges.txt",
    "model.safetensors",
    "scores.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training-log.csv",
    "training.json",
    "vocab.json",
}


def rows_of(name: str) -> list[dict[str, Any]]:
    """A table of the folder; what looks like a number is one."""
    with open(HERE / name, encoding="utf-8", newline="") as file:
        return [{k: v if v.isalpha() else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def theirs_of(folder: Path) -> Any:
    """transformers' model of a folder, offline; it must find every weight, and no other."""
    opened: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    model, found = opened
    assert not any(found.values()), found
    return model.eval()


@pytest.fixture(scope="module")
def theirs() -> Any:
    return theirs_of(HERE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of three steps with all that the export reads."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    words = "--preset tiny --steps 3 --warmup 1 --batch-size 2 --exam 2 --samples 0 --evaluate-every 1 --save-every 1"
    assert (
        training([*words.split(), "--ladder", "--log-every", "1", "--device", "cpu", "--quiet", "--out", str(folder)])
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of that training, written into a folder in which the LSTM's scores lie."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "lstm-scores.json").write_text("{}", "utf-8")
    write_tales_gpt(run, folder)
    return folder


# --- the same as in transformers ---


@torch.no_grad()
def test_it_opens_in_transformers_with_the_same_logits(theirs: Any) -> None:
    assert next(theirs.parameters()).dtype == torch.float32
    rows = [[END, *TOKENIZER.encode(text), END] for text in TEXTS[:6]]
    rows.append([END, *TOKENIZER.encode("\n".join(TEXTS[:6]))][:513])  # the whole context
    for row in rows:
        ids = torch.tensor([row[:-1]])
        ours = MODEL(ids)
        assert ours.abs().max() > 5
        assert (ours - theirs(ids).logits).abs().max() <= 2e-5


def test_it_writes_the_same_tokens_as_in_transformers(theirs: Any) -> None:
    journey = tales.JOURNEY.text
    for prompt in ("", journey[: len(journey) // 3], "Sum.\n", "Letter.\n"):
        ids = torch.tensor([[END, *TOKENIZER.encode(prompt)]])
        found = generate(MODEL, ids, 100)
        same = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=100, eos_token_id=None
        )
        assert found.shape[1] == ids.shape[1] + 100
        assert torch.equal(found, same)


def test_the_end_mark_ends_a_text_in_transformers_too(theirs: Any) -> None:
    ids = torch.tensor([[END, *TOKENIZER.encode("Sum.\n12 + 34")]])
    found = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=200)
    assert torch.equal(found, generate(MODEL, ids, 200, end=END))
    assert found[0, -1] == END
    assert ids.shape[1] < found.shape[1] < ids.shape[1] + 200


def test_its_tokenizer_is_the_courses_in_transformers_too() -> None:
    auto = AutoTokenizer.from_pretrained(HERE, local_files_only=True)
    assert BPETokenizer.load() == TOKENIZER
    assert TOKENIZER.fingerprint == BPETokenizer.load().fingerprint
    assert auto.eos_token_id == auto.bos_token_id == END
    assert len(auto) == TOKENIZER.vocab_size == MODEL.config.vocab_size
    for text in TEXTS[:200]:
        ids = TOKENIZER.encode(text)
        assert auto(text)["input_ids"] == ids
        assert auto.decode(ids) == TOKENIZER.decode(ids) == text
    assert auto(tales.END)["input_ids"] == [END]


def test_weights_have_the_names_and_shapes_of_openais_checkpoint() -> None:
    from safetensors import safe_open

    config: Any = GPT2Config.from_pretrained(HERE, local_files_only=True)
    assert (config.n_positions, config.activation_function, config.tie_word_embeddings) == (512, "gelu_new", True)
    assert config.layer_norm_epsilon == MODEL.ln_f.eps
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0
    expected = {name: list(value.shape) for name, value in GPT2Model(config).state_dict().items()}
    with safe_open(HERE / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {name: file.get_slice(name).get_shape() for name in file.keys()} == expected  # noqa: SIM118
        assert {file.get_slice(name).get_dtype() for name in expected} == {"F32"}


# --- the folder ---


def test_the_folder_is_whole_small_and_names_no_machine() -> None:
    assert {path.name for path in HERE.iterdir()} == FILES
    assert sum(path.stat().st_size for path in HERE.iterdir()) <= 8 * 2**20
    assert MODEL.config.block_size >= 512
    assert not MODEL.training
    for name in FILES - {"model.safetensors", "vocab.json", "merges.txt", "tokenizer.json"}:
        text = (HERE / name).read_text("utf-8")
        assert not re.search(r"/(tmp|home|root|work|mnt|users)/|[a-z]:\\\\", text, re.IGNORECASE), name
        assert "\r" not in text, name


def test_it_loads_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, tokenizer = load_tales_gpt()
    assert tokenizer == TOKENIZER
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), MODEL.parameters(), strict=True))
    assert model.wte.weight is not MODEL.wte.weight  # each call makes a model of its own


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json", "merges.txt"])
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(HERE, tmp_path / "copy"))
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(name)):
        load_tales_gpt(folder)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_tales_gpt(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_what_is_cut_short_is_refused(name: str, share: float, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(HERE, tmp_path / "copy"))
    os.truncate(folder / name, int(share * (HERE / name).stat().st_size))
    with pytest.raises(ValueError, match=r"damaged|cut short"):
        load_tales_gpt(folder)


def test_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(HERE, tmp_path / "copy"))
    (folder / "training.json").unlink()  # without the hashes that are in it
    book = json.loads((folder / "config.json").read_text("utf-8"))
    for change in ({"n_layer": 3}, {"n_embd": 64}, {"vocab_size": 2047}, {"n_positions": "512"}, {"n_head": 3}):
        (folder / "config.json").write_text(json.dumps({**book, **change}), "utf-8")
        with pytest.raises(ValueError, match="damaged"):
            load_tales_gpt(folder)
    (folder / "config.json").write_text(json.dumps(book), "utf-8")
    BPETokenizer.train(TEXTS[:20], 400).save(folder)  # OpenAI's names come first
    with pytest.raises(ValueError, match="400 tokens"):
        load_tales_gpt(folder)


@pytest.mark.parametrize(("name", "place"), [("model.safetensors", -5), ("config.json", 20)])
def test_a_changed_byte_is_noticed(name: str, place: int, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(HERE, tmp_path / "copy"))
    data = bytearray((folder / name).read_bytes())
    data[place] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} in .* is damaged"):
        load_tales_gpt(folder)


# --- what the card says ---


def test_the_card_is_made_of_the_files_beside_it() -> None:
    assert (HERE / "README.md").read_text("utf-8") == card(HERE)
    text = card(HERE)
    loss, floor = SCORES["models"]["tales-gpt"]["loss"], SCORES["floor"]
    for figure in (f"| {loss:.4f} | {loss / floor:.3f} |", f"| {floor:.4f} | 1.000 |", f"{SCORES['tokens']:,} tokens"):
        assert figure in text
    assert set(SCORES["models"]) == set(NAMES)
    assert SCORES["texts"] == len(TEXTS) == 500


def test_a_changed_figure_is_found(tmp_path: Path) -> None:
    folder, heldout = Path(shutil.copytree(HERE, tmp_path / "copy")), (HERE / "heldout.csv").read_text("utf-8")
    assert differences(folder, SCORES, heldout) == []
    other = json.loads(json.dumps(SCORES))
    other["models"]["bigram"]["loss"] += 0.01
    other["models"]["tales-gpt"]["far"] -= 0.02
    other["genres"]["sum"]["texts"] += 1
    found = differences(folder, other, heldout)
    assert [fault.split()[1] for fault in found] == ["genres.sum.texts", "models.bigram.loss", "models.tales-gpt.far"]
    (folder / "scores.json").write_text(json.dumps(other), "utf-8")
    assert any("README.md" in fault for fault in differences(folder, other, heldout))


def test_its_loss_and_recalls_are_those_of_the_table() -> None:
    """The first 60 of the 500 texts, scored again one by one."""
    kept = rows_of("heldout.csv")
    assert tuple(kept[0]) == COLUMNS
    exam = TalesExam(TOKENIZER, 60, 512)
    fresh = score_each(MODEL, exam, TOKENIZER)
    for number, (row, again) in enumerate(zip(kept[:60], fresh, strict=True)):
        assert row["text"] == again["text"] == number
        assert row["genre"] == again["genre"] == TEXTS[number].split(".")[0].lower()
        assert row["bytes"] == again["bytes"] == len(TEXTS[number].encode())
        assert row["tokens"] == again["tokens"] == len(TOKENIZER.encode(TEXTS[number])) + 1
        assert row["floor"] == pytest.approx(again["floor"], abs=1e-4)
        assert row["nats"] == pytest.approx(again["nats"], abs=1e-3)
        assert row["first_floor"] == pytest.approx(-tales.score(TEXTS[number])[0], abs=1e-5)
        assert row["first_nats"] == pytest.approx(again["first_nats"], abs=1e-4)
        for bin in BINS:
            assert row[f"{bin}_of"] == again[f"{bin}_of"]
            assert abs(row[bin] - again[bin]) <= 1
    score = exam.score(MODEL)  # and all of them at once
    assert score["loss"] == pytest.approx(sum(r["nats"] for r in fresh) / exam.n_tokens, abs=1e-5)
    assert score["loss"] == pytest.approx(sum(r["nats"] for r in kept[:60]) / exam.n_tokens, abs=1e-4)
    assert score["far"] == sum(r["far"] for r in fresh) / sum(r["far_of"] for r in fresh)
    for bin in BINS:
        assert score[bin] >= SCORES["models"]["tales-gpt"][bin] - 0.02


def test_texts_are_scored_one_by_one_as_the_exam_scores_them_together() -> None:
    """With a model that is often wrong, also in one of a word's tokens only."""
    exam, model = TalesExam(TOKENIZER, 20, 512), copy.deepcopy(MODEL)
    with torch.no_grad():
        model.ln_f.weight.add_(torch.randn(128, generator=torch.Generator().manual_seed(0)), alpha=0.8)
    found, score = totals(score_each(model, exam, TOKENIZER)), exam.score(model)
    assert found["loss"] == pytest.approx(score["loss"], abs=1e-5)
    for bin in BINS:
        assert found[bin] == score[bin]
        assert 0.2 < found[bin] < 0.97


def test_the_scores_are_the_sums_of_the_table() -> None:
    rows, ours = rows_of("heldout.csv"), SCORES["models"]["tales-gpt"]
    assert len(rows) == SCORES["texts"]
    assert sum(row["tokens"] for row in rows) == SCORES["tokens"]
    assert sum(row["bytes"] for row in rows) == SCORES["bytes"]
    assert sum(row["floor"] for row in rows) / SCORES["tokens"] == pytest.approx(SCORES["floor"], abs=1e-6)
    assert sum(row["nats"] for row in rows) / SCORES["tokens"] == pytest.approx(ours["loss"], abs=1e-6)
    for bin in BINS:
        asked = sum(row[f"{bin}_of"] for row in rows)
        assert asked == SCORES["recalls"][bin]
        assert sum(row[bin] for row in rows) / asked == pytest.approx(ours[bin])
    assert sum(part["begins"] for part in SCORES["genres"].values()) <= 1.0001
    assert sum(part["share"] for part in SCORES["genres"].values()) == pytest.approx(1)
    for genre, part in SCORES["genres"].items():
        chosen = [row for row in rows if row["genre"] == genre]
        assert len(chosen) == part["texts"]
        assert sum(row["nats"] for row in chosen) / part["tokens"] == pytest.approx(part["loss"], abs=1e-5)
        later = [row["nats"] - row["first_nats"] - row["floor"] + row["first_floor"] for row in chosen]
        assert sum(later) / part["tokens"] == pytest.approx(part["above"], abs=1e-5)
        assert part["above"] > -3 * part["error"]  # below the floor nothing but chance
        assert len({row["first_nats"] for row in chosen}) == 1
        assert part["begins"] == pytest.approx(math.exp(-chosen[0]["first_nats"]), abs=1e-5)


def test_it_is_near_the_floor_and_far_from_the_baselines() -> None:
    losses = [SCORES["models"][name]["loss"] for name in NAMES]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(torch.tensor(2048.0).log().item(), abs=1e-4)  # uniform
    ours = SCORES["models"]["tales-gpt"]
    assert SCORES["floor"] < ours["loss"] <= GOAL["ratio"] * SCORES["floor"]
    for bin in BINS:
        assert ours[bin] >= GOAL[bin]
        assert SCORES["models"]["lstm"][bin] < ours[bin] - 0.2
        assert SCORES["unseen_pairs"][bin] >= GOAL[bin] - 0.1


def test_the_ngrams_are_scored_with_their_own_probabilities() -> None:
    rows = [[END, *TOKENIZER.encode(text), END] for text in TEXTS[:20]]
    for order in (1, 2, 3):
        gram = NGram(order, TOKENIZER.vocab_size).fit([i for row in rows[:12] for i in row])
        row = rows[15]
        X, Y = pad_rows([row], END)
        found = next_logits(gram)(X)[0].gather(1, Y[0, :, None])[:, 0]
        assert torch.allclose(found.double(), torch.from_numpy(gram.log_probs(row)[1:]), atol=1e-5)


def test_what_it_can_do_is_counted_rightly() -> None:
    assert possible(TEXTS[0])
    assert not possible(TEXTS[0].replace(".", ",", 5))
    found = sums(MODEL, TOKENIZER, 12)
    assert found["right"] >= 12 * (SCORES["sums"]["right"] / SCORES["sums"]["asked"] - 0.2)
    assert found["longer_right"] <= 3
    assert questions(MODEL, TOKENIZER, 3)["asked"] == 3
    free = free_texts(MODEL, TOKENIZER, 8)
    assert 0 <= free["possible"] <= free["ended"] <= 8 == free["asked"]
    assert len(free["first"]) == 5
    noise = GPT(GPTConfig.preset("tales"))
    assert sums(noise, TOKENIZER, 6)["right"] == 0
    assert free_texts(noise, TOKENIZER, 2)["possible"] == 0


# --- the run behind it ---


def test_the_tables_tell_of_one_run() -> None:
    story = json.loads((HERE / "training.json").read_text("utf-8"))
    log, curve, lstm = rows_of("training-log.csv"), rows_of("evaluations.csv"), rows_of("lstm-evaluations.csv")
    assert list(log[0]) == ["step", "tokens", "seconds", "lr", "loss", "norm"]
    assert list(curve[0]) == list(lstm[0]) == ["step", "tokens", "seconds", "loss", *BINS]
    assert log[-1]["step"] == curve[-1]["step"] == story["step"] == story["settings"]["steps"]
    assert log[-1]["tokens"] == curve[-1]["tokens"] == story["tokens"]
    for rows in (log, curve, lstm):
        for name in ("step", "tokens", "seconds"):
            values = [row[name] for row in rows]
            assert values == sorted(values)
    assert story["parameters"] == sum(parameter.numel() for parameter in MODEL.parameters())
    first = rows_of("heldout.csv")[: story["settings"]["exam"]]
    again = sum(row["nats"] for row in first) / sum(row["tokens"] for row in first)
    assert curve[-1]["loss"] == pytest.approx(again, abs=1e-5)
    assert (HERE / "training-log.csv").stat().st_size <= 150_000


def test_the_first_steps_of_the_run_come_out_again() -> None:
    story = json.loads((HERE / "training.json").read_text("utf-8"))
    settings, done = story["settings"], []
    names = ("steps", "lr", "schedule", "warmup", "least", "table_lr", "weight_decay", "clip", "accumulate")
    config = TrainConfig(**{name: settings[name] for name in names}, betas=tuple(settings["betas"]), evaluate_every=1)
    torch.manual_seed(settings["seed"])
    model = GPT(GPTConfig.preset(settings["preset"], vocab_size=TOKENIZER.vocab_size))
    assert settings["start"] == "mimetic"
    mimetic_start(model)
    source = TalesBatches(TOKENIZER, settings["batch_size"], 512, 11 + settings["seed"])
    exam = TalesExam(TOKENIZER, settings["exam"], 512)
    train(model, source, config, None, exam.score, watch=done.append, stop=lambda: len(done) == 2)
    for row, kept in zip(done[-1].evaluations, rows_of("evaluations.csv"), strict=False):
        assert row["tokens"] == kept["tokens"]
        assert row["loss"] == pytest.approx(kept["loss"], abs=1e-3)


def test_the_ladder_has_two_samples_of_each_rung() -> None:
    rows = [json.loads(line) for line in (HERE / "ladder.jsonl").read_text("utf-8").splitlines()]
    last = json.loads((HERE / "training.json").read_text("utf-8"))["step"]
    powers = [2**k for k in range(20) if 2**k < last]
    assert [row["step"] for row in rows] == [step for step in (*powers, last) for _ in range(2)]
    for free, going in zip(rows[::2], rows[1::2], strict=True):
        assert free["prompt"] == ""
        assert tales.JOURNEY.text.startswith(going["prompt"])
        assert len(going["prompt"]) > 200
    assert rows[-1]["ended"]
    assert rows[-2]["ended"]
    assert not possible(rows[0]["text"])  # noise


def test_the_lstm_baseline_writes_its_two_files(tmp_path: Path) -> None:
    files = lstm_baseline.baseline(tmp_path / "run", 2, 5e-3, 1, 3, 4)
    assert set(files) == {"lstm-evaluations.csv", "lstm-scores.json"}
    assert lstm_baseline.baseline(tmp_path / "run", 2, 5e-3, 1, 3, 4) == files  # which goes on from the last step
    kept = json.loads((HERE / "lstm-scores.json").read_text("utf-8"))
    scores = json.loads(files["lstm-scores.json"])
    assert list(scores) == list(kept)
    assert scores["parameters"] == kept["parameters"]
    ours = sum(parameter.numel() for parameter in MODEL.parameters())
    assert abs(kept["parameters"] - ours) < 0.01 * ours
    assert files["lstm-evaluations.csv"].splitlines()[0] == "step,tokens,seconds,loss,near,middle,far"
    assert {name: kept[name] for name in ("loss", *BINS)} == SCORES["models"]["lstm"]


# --- any run ---


@torch.no_grad()
def test_a_fresh_run_opens_in_transformers(exported: Path) -> None:
    model, tokenizer = load_tales_gpt(exported)
    assert model.config == GPTConfig.preset("tiny")
    assert tokenizer == TOKENIZER
    ids = torch.tensor([[END, *TOKENIZER.encode(TEXTS[0])]])
    theirs = theirs_of(exported)
    for book in (theirs.config, theirs.generation_config):
        assert book.eos_token_id == book.bos_token_id == END
    assert (model(ids) - theirs(ids).logits).abs().max() <= 2e-5
    same = theirs.generate(ids[:, :9], attention_mask=torch.ones(1, 9), do_sample=False, max_new_tokens=20)
    assert torch.equal(same, generate(model, ids[:, :9], 20, end=END))


def test_a_fresh_run_is_told_as_it_was(run: Path, exported: Path) -> None:
    mine = {"scores.json", "heldout.csv", "README.md", "lstm-evaluations.csv"}  # of the scoring, and of the LSTM
    assert {path.name for path in exported.iterdir()} == FILES - mine
    assert (exported / "lstm-scores.json").read_text("utf-8") == "{}"
    story = json.loads((exported / "training.json").read_text("utf-8"))
    assert story["step"] == 3
    assert "out" not in story["settings"]
    words = story["command"].split()
    assert words[:5] == ["python", "-m", "glassbox.training", "--preset", "tiny"]
    assert words[-2:] == ["--out", "runs/tales-gpt"]
    assert "--ladder" in words
    assert str(run) not in story["command"]


def test_the_command_it_tells_is_the_run(exported: Path, tmp_path: Path) -> None:
    words = json.loads((exported / "training.json").read_text("utf-8"))["command"].split()[3:-2]
    assert training([*words, "--quiet", "--out", str(tmp_path / "again")]) == 0
    write_tales_gpt(tmp_path / "again", tmp_path / "two")
    for name in ("model.safetensors", "ladder.jsonl", "config.json", "tokenizer.json", "merges.txt"):
        assert (exported / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_what_is_no_run_is_refused_and_leaves_the_old_files(run: Path, exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match="no run"):
        write_tales_gpt(tmp_path, folder)
    broken = Path(shutil.copytree(run, tmp_path / "broken"))
    os.truncate(broken / "step-00000003" / "state.safetensors", 5000)
    with pytest.raises(ValueError, match="damaged"):
        write_tales_gpt(broken, folder)
    other = Path(shutil.copytree(run, tmp_path / "other"))
    settings = json.loads((other / "settings.json").read_text("utf-8"))
    (other / "settings.json").write_text(json.dumps({**settings, "preset": "tales"}), "utf-8")
    with pytest.raises(ValueError, match="another model"):
        write_tales_gpt(other, folder)
    for path in other.glob("step-*"):
        shutil.rmtree(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        write_tales_gpt(other, folder)
    assert {path.name for path in folder.iterdir()} == {path.name for path in exported.iterdir()}
    for path in folder.iterdir():
        assert path.read_bytes() == (exported / path.name).read_bytes()


def test_a_full_disk_leaves_the_old_files(run: Path, exported: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    folder = Path(shutil.copytree(exported, tmp_path / "out"))
    monkeypatch.setattr("glassbox.tales_gpt.samples", lambda *_: iter(()))
    monkeypatch.setattr("glassbox.tales_gpt.save_file", full)
    with pytest.raises(OSError, match="No space"):
        write_tales_gpt(run, folder)
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == {
        path.name: path.stat().st_size for path in exported.iterdir()
    }
    assert (folder / "ladder.jsonl").read_bytes() == (exported / "ladder.jsonl").read_bytes()


def test_a_long_log_is_thinned_and_keeps_its_end() -> None:
    lines = ["step,loss\n", *(f"{step},{'1' * 20}\n" for step in range(1, 20_001))]
    log = thinned("".join(lines))
    steps = [int(line.split(",")[0]) for line in log.splitlines()[1:]]
    assert log.startswith(lines[0])
    assert log.endswith(lines[-1])
    assert LARGEST_LOG / 3 < len(log) <= LARGEST_LOG
    assert {b - a for a, b in itertools.pairwise(steps)} == {4}
    assert thinned("".join(lines[:2000])) == "".join(lines[:2000])


def test_the_command_says_what_is_wrong(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "settings.json is missing" in capsys.readouterr().err
    assert main(["--check", "--out", str(tmp_path / "nowhere")]) == 1
    assert "config.json is missing" in capsys.readouterr().err
    for words in ([], [str(run), "--check"]):
        with pytest.raises(SystemExit):
            main(words)
    capsys.readouterr()
    folder = Path(shutil.copytree(HERE, tmp_path / "copy"))
    heldout = (HERE / "heldout.csv").read_text("utf-8")
    monkeypatch.setattr("glassbox.tales_gpt.examine", lambda *_: (SCORES, heldout))
    assert main(["--check", "--out", str(folder)]) == 0
    assert "is what its card says" in capsys.readouterr().out
    (folder / "README.md").write_text("Another card.\n", "utf-8")
    assert main(["--check", "--out", str(folder)]) == 1
    assert "README.md" in capsys.readouterr().out
    assert main(["--card", "--out", str(folder)]) == 0
    assert (folder / "README.md").read_text("utf-8") == card(HERE)
