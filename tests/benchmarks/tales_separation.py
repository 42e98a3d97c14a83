"""Does Tiny Tales tell models apart, and for the right reason? A bigram table, an LSTM and a small GPT on equal terms.

    python tests/benchmarks/tales_separation.py --seconds 90 --seeds 5

Each model gets the same number of CPU seconds of one torch thread, the same stream of fresh whole texts and nearly the
same number of parameters; each is scored on the same held-out texts: nats a piece against the entropy floor, and the
share of recall pieces that it names right, by distance. The models are built of torch's own layers, so that nothing
here leans on what later modules build. The tables go to stdout and, with `--write`, to a CSV file.

The GPT is GPT-2 in small. Three choices of training let it find out how to copy within a minute: batches of four texts
(many steps); an initialisation in which heads look at what is near and alike and hand it on unchanged ("mimetic",
Trockman and Kolter, 2023), which alone more than doubled the recall pieces right at 40 seconds; and embeddings that
learn several times as fast as the rest, since most words are rare and so seldom get a gradient. The LSTM gains from
the last one too, and gets it.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from glassbox import tales
from torch import nn
from torch.nn import functional as F

BINS = {"near 5-20": (5, 20), "middle 20-60": (21, 60), "far 60-200": (61, 200)}
TRAINING, HELDOUT = 11, 12  # seeds of the two streams
PAD = -1
BATCH = 4  # texts a step


def vocabulary() -> dict[str, int]:
    """Every piece that 2,000 texts use; anything rarer shares the id of `<rare>`."""
    counts = Counter(piece for text in tales.stream(TRAINING + 100, 2000) for piece in text.pieces)
    return {piece: i for i, piece in enumerate(["<rare>", tales.END, *sorted(counts)])}


def encode(text: tales.Text, ids: dict[str, int]) -> list[int]:
    """The end mark, then the pieces, then the end mark: a text from its start to its end."""
    return [ids[tales.END], *(ids.get(piece, 0) for piece in text.pieces), ids[tales.END]]


def batches(ids: dict[str, int], size: int, seed: int) -> Iterator[torch.Tensor]:
    """Padded batches (B, T + 1) of whole fresh texts; texts of like length share a batch, so that little is padding."""
    texts, dice = tales.stream(TRAINING + seed * 1000), random.Random(seed)
    while True:
        pool = sorted((encode(next(texts), ids) for _ in range(16 * size)), key=len)
        groups = [pool[i : i + size] for i in range(0, len(pool), size)]
        dice.shuffle(groups)
        for rows in groups:
            batch = torch.full((size, len(rows[-1])), PAD)
            for row, line in zip(batch, rows, strict=True):
                row[: len(line)] = torch.tensor(line)
            yield batch


class LSTM(nn.Module):
    """Embedding, two LSTM layers, tied head. `forward` returns what the head `wte` turns into logits."""

    def __init__(self, vocab: int, width: int = 160) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
        nn.init.normal_(self.wte.weight, std=0.1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.wte(ids))[0]


class Block(nn.Module):
    """A layer of GPT-2: pre-norm attention, then a pre-norm network of two linear maps with GELU between them."""

    def __init__(self, width: int, heads: int, std: float = 0.08, alike: float = 0.8) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for linear, scale in ((self.c_attn, 1.0), (self.c_fc, 1.0), (self.c_out, 0.5)):
            nn.init.normal_(linear.weight, std=scale * std)
        for linear in (self.c_attn, self.c_proj, self.c_fc, self.c_out):
            nn.init.zeros_(linear.bias)
        # Mimetic: queries equal keys, so like looks at like; output undoes value, so what is seen is handed on.
        turn = nn.init.orthogonal_(torch.empty(width, width))
        for i in range(heads):
            part = slice(i * width // heads, (i + 1) * width // heads)
            same = alike * nn.init.orthogonal_(torch.empty(width, width))[: width // heads]
            self.c_attn.weight.data[:width][part] += same
            self.c_attn.weight.data[width : 2 * width][part] += same
        self.c_attn.weight.data[2 * width :] = turn
        self.c_proj.weight.data = turn.T.contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
            for part in self.c_attn(self.ln_1(x)).split(C, dim=2)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(seen.transpose(1, 2).reshape(B, T, C))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    """GPT-2 in small: token and position embedding, two blocks, tied head. Returns what the head `wte` reads.

    Positions are learned, as in GPT-2, but start as sines and cosines: neighbours are alike from the first step on.
    """

    def __init__(self, vocab: int, width: int = 128, layers: int = 2, heads: int = 2, context: int = 256) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        nn.init.normal_(self.wte.weight, std=0.1)
        angle = torch.arange(context)[:, None] / 1000 ** (torch.arange(0, width, 2) / width)
        self.wpe.weight.data = 0.1 * math.sqrt(2) * torch.cat([angle.sin(), angle.cos()], dim=1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x)


Model = LSTM | GPT
RATES = {"LSTM": (4e-3, 3.0), "GPT": (2e-3, 4.5)}  # learning rate; how many times faster the embeddings learn


def train(
    model: Model, stream: Iterator[torch.Tensor], seconds: float, rates: tuple[float, float], watch: Callable
) -> tuple[int, int]:
    """Train for `seconds` of CPU time inside the steps, looked in on by `watch(seconds_used, steps)`; steps and pieces.

    The learning rate warms up for 50 steps, stays, and falls in a straight line over the last two fifths of the time.
    """
    lr, faster = rates
    embeddings = [p for name, p in model.named_parameters() if name in ("wte.weight", "wpe.weight")]
    others = [p for name, p in model.named_parameters() if name not in ("wte.weight", "wpe.weight")]
    groups = [{"params": others, "peak": lr}, {"params": embeddings, "peak": faster * lr}]
    optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=0.01, fused=True, betas=(0.9, 0.98))
    used, steps, pieces, next_look = 0.0, 0, 0, seconds / 9
    while used < seconds:
        batch = next(stream)
        began = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(1, (steps + 1) / 50, 0.05 + 0.95 * (1 - used / seconds) / 0.4)
        targets = batch[:, 1:]
        real = targets != PAD
        logits = model(batch[:, :-1].clamp(min=0))[real] @ model.wte.weight.T
        loss = F.cross_entropy(logits, targets[real])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        used, steps, pieces = used + time.process_time() - began, steps + 1, pieces + len(logits)
        if used >= next_look and used < seconds:
            watch(used, steps)
            next_look += seconds / 9
    watch(used, steps)
    return steps, pieces


class Exam:
    """Held-out texts with their floor and their recall pieces, ready for scoring."""

    def __init__(self, ids: dict[str, int], n: int) -> None:
        self.texts = list(tales.stream(HELDOUT, n))
        self.rows = [torch.tensor(encode(text, ids)) for text in self.texts]
        self.pieces = sum(len(text.pieces) + 1 for text in self.texts)
        self.floor = -sum(text.log_prob for text in self.texts) / self.pieces

    def score(self, predict: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """Nats a piece, and the share of recall pieces named right by distance, of `predict(ids (T,)) -> (T, V)`."""
        nats, right, asked = 0.0, Counter(), Counter()
        for text, row in zip(self.texts, self.rows, strict=True):
            log_probs = predict(row[:-1])
            nats -= log_probs.gather(1, row[1:, None]).sum().item()
            guesses = log_probs.argmax(1)
            for recall in text.recalls:
                for name, (low, high) in BINS.items():
                    if low <= recall.distance <= high:
                        asked[name] += 1
                        right[name] += int(guesses[recall.index] == row[recall.index + 1])
        return {
            "nats": nats / self.pieces,
            **{name: right[name] / asked[name] if asked[name] else math.nan for name in BINS},
        }


def bigram(ids: dict[str, int], pieces: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Counts of neighbouring pieces, smoothed with the unigram; `pieces` of text are counted."""
    counts = torch.zeros(len(ids), len(ids))
    texts, seen = tales.stream(TRAINING), 0
    while seen < pieces:
        row = torch.tensor(encode(next(texts), ids))
        counts.index_put_((row[:-1], row[1:]), torch.ones(len(row) - 1), accumulate=True)
        seen += len(row) - 1
    unigram = (counts.sum(0) + 1) / (counts.sum() + len(ids))
    table = ((counts + unigram) / (counts.sum(1, keepdim=True) + 1)).log()
    return lambda row: table[row]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90.0, help="CPU seconds of training for each model")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=150, help="held-out texts")
    parser.add_argument("--write", type=Path, help="also write the curves to this CSV file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    ids = vocabulary()
    exam = Exam(ids, options.texts)
    makers: dict[str, type[Model]] = {"LSTM": LSTM, "GPT": GPT}
    rows: list[dict[str, str | float]] = []
    print(f"{len(ids)} kinds of piece, {exam.pieces} held-out pieces, floor {exam.floor:.4f} nats a piece")
    final: dict[str, list[dict[str, float]]] = defaultdict(list)
    for seed in range(options.seeds):
        trained = 0
        for name, maker in makers.items():
            torch.manual_seed(seed)
            model = maker(len(ids))

            def predict(row: torch.Tensor, model: Model = model) -> torch.Tensor:
                with torch.no_grad():
                    return (model(row[None])[0] @ model.wte.weight.T).log_softmax(1)

            def watch(used: float, steps: int, name: str = name, seed: int = seed, predict: Callable = predict) -> None:
                result = exam.score(predict)
                rows.append({"model": name, "seed": seed, "seconds": round(used, 1), "steps": steps, **result})
                print(f"{name:5} seed {seed} {used:5.0f} s {steps:5} steps {_line(result, exam.floor)}", flush=True)

            steps, pieces = train(model, batches(ids, BATCH, seed), options.seconds, RATES[name], watch)
            final[name].append({k: float(v) for k, v in rows[-1].items() if k in ("nats", *BINS)})
            trained = max(trained, pieces)
            if seed == 0:
                size = sum(p.numel() for p in model.parameters())
                speed = pieces / options.seconds
                print(f"{name}: {size:,} parameters, {steps} steps, {speed:,.0f} pieces a CPU second")
        result = exam.score(bigram(ids, trained))
        final["bigram"].append(result)
        rows.append({"model": "bigram", "seed": seed, "seconds": options.seconds, "steps": 0, **result})
    for name in ("bigram", *makers):
        median = {key: statistics.median(run[key] for run in final[name]) for key in ("nats", *BINS)}
        print(f"{name:6} median of {options.seeds}: {_line(median, exam.floor)}")
    if options.write:
        with options.write.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["model", "seed", "seconds", "steps", "nats", *BINS], lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def _line(result: dict[str, float], floor: float) -> str:
    recalls = "  ".join(f"{name} {result[name]:4.0%}" for name in BINS)
    return f"{result['nats']:.3f} nats = {result['nats'] / floor:.2f} x floor   {recalls}"


if __name__ == "__main__":
    main(sys.argv[1:])
