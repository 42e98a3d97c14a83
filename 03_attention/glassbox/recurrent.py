"""Recurrent networks: a text is read from left to right into a state of fixed size.

The parameters have the names, shapes and first values of torch.nn.RNN and torch.nn.LSTM, so that weights can be
exchanged. What the inputs add to each step does not depend on the state and is computed for all steps at once; only the
product with the state has to wait for the step before. Letters: B batch, T time, H = n_hidden numbers of the state.

Sources: Elman, Finding Structure in Time (1990); Hochreiter and Schmidhuber, Long Short-Term Memory (1997); Gers,
Schmidhuber and Cummins, Learning to Forget (2000), who added the forget gate.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.attention import check_input
from glassbox.preprocessing import check_size

__all__ = [
    "LSTM",
    "RNN",
    "lstm_step",
    "rnn_step",
]


def rnn_step(inputs: torch.Tensor, h: torch.Tensor, weight_hh: torch.Tensor) -> torch.Tensor:
    """One token: the new state is tanh(inputs + h W_hhᵀ). Shapes (B, H), (B, H), (H, H) -> (B, H). Elman (1990)."""
    return torch.tanh(inputs + h @ weight_hh.T)


def lstm_step(
    inputs: torch.Tensor, h: torch.Tensor, c: torch.Tensor, weight_hh: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token: (B, 4H) inputs, (B, H) output h, (B, H) memory c, (4H, H) weights -> new h and c.

    Three gates between 0 and 1 say what to write, what to keep and what to show. Hochreiter and Schmidhuber (1997).
    """
    write, keep, new, show = (inputs + h @ weight_hh.T).chunk(4, dim=-1)  # (B, H) each
    c = keep.sigmoid() * c + write.sigmoid() * new.tanh()
    return show.sigmoid() * c.tanh(), c


class RNN(nn.Module):
    """A recurrent network: (B, T, n_in) -> outputs (B, T, n_hidden) and the last state (B, n_hidden). Elman (1990)."""

    gates = 1  # how many numbers each step computes for each one of the state

    def __init__(self, n_in: int, n_hidden: int) -> None:
        super().__init__()
        n_in, n_hidden = check_size("n_in", n_in), check_size("n_hidden", n_hidden)
        self.n_in, self.n_hidden = n_in, n_hidden
        rows, bound = self.gates * n_hidden, n_hidden**-0.5
        self.weight_ih_l0 = nn.Parameter(torch.empty(rows, n_in).uniform_(-bound, bound))
        self.weight_hh_l0 = nn.Parameter(torch.empty(rows, n_hidden).uniform_(-bound, bound))
        self.bias_ih_l0 = nn.Parameter(torch.empty(rows).uniform_(-bound, bound))
        self.bias_hh_l0 = nn.Parameter(torch.empty(rows).uniform_(-bound, bound))

    def from_inputs(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What x (B, T, n_in) adds to each step, all computed at once: T tensors (B, gates * n_hidden)."""
        return F.linear(x, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0).unbind(1)

    def forward(self, x: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Read x from left to right, from `state` or else from zeros. ValueError for shapes that do not fit."""
        check_input(x, self.n_in)
        h = x.new_zeros(len(x), self.n_hidden) if state is None else state
        check_state(x, self.n_hidden, h)
        outputs = []
        for inputs in self.from_inputs(x):
            h = rnn_step(inputs, h, self.weight_hh_l0)
            outputs.append(h)
        return torch.stack(outputs, dim=1), h


class LSTM(RNN):
    """Long short-term memory: as RNN, but the state is a pair (output h, memory c), (B, n_hidden) each.

    Sources: Hochreiter and Schmidhuber (1997), Gers, Schmidhuber and Cummins (2000).
    """

    gates = 4

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Read x from left to right, from `state` or else from zeros. ValueError for shapes that do not fit."""
        check_input(x, self.n_in)
        h, c = (x.new_zeros(len(x), self.n_hidden),) * 2 if state is None else state
        check_state(x, self.n_hidden, h, c)
        outputs = []
        for inputs in self.from_inputs(x):
            h, c = lstm_step(inputs, h, c, self.weight_hh_l0)
            outputs.append(h)
        return torch.stack(outputs, dim=1), (h, c)


def check_state(x: torch.Tensor, n_hidden: int, *state: torch.Tensor) -> None:
    """ValueError where a state is not (B, n_hidden), TypeError where it is of another type than x."""
    for part in state:
        if part.shape != (len(x), n_hidden):
            raise ValueError(
                f"a state has the shape {tuple(part.shape)}; for x {tuple(x.shape)} it must be ({len(x)}, {n_hidden}): "
                "one row for each text of the batch"
            )
        if part.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"the state holds {part.dtype} and x {x.dtype}: convert one of them with .to(...)")
