"""The recurrent line on the poster: an LSTM of as many parameters as tales-gpt, trained on the same texts.

    python tests/benchmarks/lstm_baseline.py --out data/tales-gpt       about 20 CPU minutes of one thread

Two layers and a tied head (`glassbox.lstm_model`). Data, batches, optimiser, schedule and seed are those of the GPT; so
is the curve's examination. It writes `lstm-evaluations.csv` (columns as in `evaluations.csv`) and `lstm-scores.json`,
its scores on the 500 texts of the model card. A run that was killed goes on with the same command.

The step size is the LSTM's own. Three were tried for 400 steps (`--steps 400 --curve 40 --texts 40 --lr X`): the GPT's,
0.002, came to 1.706 nats a token, 0.005 to 1.207, and 0.01 to 1.145. A long run wants a smaller one than a short run,
so the middle one was taken.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, cast

import torch
from glassbox.lstm_model import LSTMConfig, LSTMModel
from glassbox.tales_exam import TalesExam
from glassbox.tokenizer import BPETokenizer
from glassbox.training import Run, TrainConfig, train
from glassbox.training_data import TalesBatches
from glassbox.training_tables import table, write_atomically

WIDTH, BLOCK_SIZE, BATCH_SIZE, SEED = 208, 512, 8, 0


def baseline(folder: Path, steps: int, lr: float, every: int, curve: int, texts: int) -> dict[str, str]:
    """The two files by name: the curve, scored on `curve` texts, and the scores at the end, on `texts` texts."""
    tokenizer = BPETokenizer.load()
    torch.manual_seed(SEED)
    model = LSTMModel(LSTMConfig(tokenizer.vocab_size, BLOCK_SIZE, n_embd=WIDTH))
    config = TrainConfig(
        steps=steps,
        lr=lr,
        schedule="trapezoid",
        warmup=min(100, steps - 1),
        least=0.02,
        table_lr=4.5,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        evaluate_every=every,
        save_every=every,
    )
    source = TalesBatches(tokenizer, BATCH_SIZE, BLOCK_SIZE, 11 + SEED)
    exam = TalesExam(tokenizer, curve, BLOCK_SIZE)
    # `train` asks of a model no more than ids -> logits and parameters
    run = train(cast(Any, model), source, config, folder, exam.score, watch=show)
    scores: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in model.parameters()), "lr": lr}
    scores |= {"steps": steps, "tokens": run.tokens, "seconds": run.evaluations[-1]["seconds"], "texts": texts}
    scores |= TalesExam(tokenizer, texts, BLOCK_SIZE).score(model)
    return {"lstm-evaluations.csv": table(run.evaluations), "lstm-scores.json": json.dumps(scores, indent=1) + "\n"}


def show(run: Run) -> None:
    """Say how far the training is."""
    row = run.evaluations[-1]
    sys.stderr.write("  ".join(f"{name} {value:.4g}" for name, value in row.items()) + "\n")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6200)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--every", type=int, default=500, help="steps between two evaluations")
    parser.add_argument("--curve", type=int, default=100, help="texts that an evaluation scores")
    parser.add_argument("--texts", type=int, default=500, help="texts that are scored at the end")
    parser.add_argument("--run", type=Path, default=Path("runs/lstm"), help="where the training keeps its checkpoints")
    parser.add_argument("--out", type=Path, help="the folder for the two files (default: they are shown)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = baseline(options.run, options.steps, options.lr, options.every, options.curve, options.texts)
    for name, text in files.items():
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            write_atomically(options.out / name, text)
        else:
            sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
