"""The rival: a language model of the years before the Transformer, with a memory of fixed size.

It trains and is scored like a GPT: ids (B, T) -> logits (B, T, V), and `config` holds its sizes. The recurrence is
torch's `nn.LSTM`, whose numbers are those of 03's `LSTM`, but whose loop over the tokens is compiled.

Sources: Hochreiter and Schmidhuber (1997); Sundermeyer, Schlüter and Ney, LSTM Neural Networks for Language Modeling
(2012); Press and Wolf, Using the Output Embedding to Improve Language Models (2017), for the tied head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.preprocessing import check_ids, check_size

__all__ = ["LSTMConfig", "LSTMModel", "lstm_flops_per_token"]


@dataclass(frozen=True)
class LSTMConfig:
    """The sizes: V = vocab_size, the longest text in tokens, how many layers, C = n_embd. Errors as of `check_size`."""

    vocab_size: int = 2048
    block_size: int = 512
    n_layer: int = 2
    n_embd: int = 160

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_embd"):
            object.__setattr__(self, name, check_size(name, getattr(self, name)))


class LSTMModel(nn.Module):
    """A table, layers of LSTM, and the table again as the head: ids (B, T) -> logits (B, T, V)."""

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.config, C = config, config.n_embd
        self.wte = nn.Embedding(config.vocab_size, C)
        self.lstm = nn.LSTM(C, C, num_layers=config.n_layer, batch_first=True)
        nn.init.normal_(self.wte.weight, std=0.1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The scores of every next token. TypeError or ValueError for ids outside the vocabulary."""
        check_ids(ids, self.config.vocab_size)
        return F.linear(self.lstm(self.wte(ids))[0], self.wte.weight)


def lstm_flops_per_token(config: LSTMConfig) -> int:
    """Operations of the forward pass for one token, as `flops_per_token` counts those of a GPT.

    Each of a layer's four gates has two matrices of C x C, and the head has V x C. The way back takes twice as many.
    """
    return 2 * (config.n_layer * 8 * config.n_embd**2 + config.vocab_size * config.n_embd)
