"""03_attention: RNN and LSTM, against PyTorch's own with the same weights.

Tolerances: 2e-6 in float32 for outputs and states, 1e-4 for gradients that are sums over 40 steps and a whole batch;
1e-14 and 1e-12 in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from glassbox.recurrent import LSTM, RNN, lstm_step, rnn_step
from hypothesis import given
from hypothesis import strategies as st
from test_attention import furthest, gradients, numbers
from test_pretokens import examples

FORWARD = {torch.float32: 2e-6, torch.float64: 1e-14}
BACKWARD = {torch.float32: 1e-4, torch.float64: 1e-12}
PAIRS: dict[str, tuple[Any, Any]] = {"RNN": (RNN, torch.nn.RNN), "LSTM": (LSTM, torch.nn.LSTM)}
KINDS = pytest.mark.parametrize("kind", PAIRS)


def pair(kind: str, n_in: int, n_hidden: int, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """Ours and torch's, with our weights."""
    ours, theirs = PAIRS[kind][0](n_in, n_hidden), PAIRS[kind][1](n_in, n_hidden, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return ours.to(dtype), theirs.to(dtype)


def parts(state: Any) -> list[torch.Tensor]:
    """A state as a list of (B, H); torch's has an axis for layers in front."""
    tensors = [state] if isinstance(state, torch.Tensor) else list(state)
    return [x[0] if x.ndim == 3 else x for x in tensors]


@KINDS
@pytest.mark.parametrize("dtype", FORWARD, ids=str)
@pytest.mark.parametrize(("B", "T", "n_in", "n_hidden"), [(1, 1, 1, 1), (2, 5, 3, 4), (3, 40, 7, 16)], ids=str)
@pytest.mark.parametrize("begun", [False, True], ids=["from zeros", "from a state"])
def test_network_is_torchs(
    kind: str, dtype: torch.dtype, B: int, T: int, n_in: int, n_hidden: int, begun: bool
) -> None:
    ours, theirs = pair(kind, n_in, n_hidden, dtype)
    x = numbers(B, T, n_in, dtype=dtype, grad=True)
    start = [
        numbers(B, n_hidden, dtype=dtype, seed=seed, grad=True) for seed in range(len(PAIRS) if kind == "LSTM" else 1)
    ]
    state = (tuple(start) if kind == "LSTM" else start[0]) if begun else None
    layered = (tuple(s[None] for s in start) if kind == "LSTM" else start[0][None]) if begun else None
    (found, found_state), (wanted, wanted_state) = ours(x, state), theirs(x, layered)
    assert furthest([found, *parts(found_state)], [wanted, *parts(wanted_state)]) <= FORWARD[dtype]
    inputs = [x, *start] if begun else [x]
    ends = [
        torch.cat([out.flatten(), *(s.flatten() for s in parts(last))])
        for out, last in ((found, found_state), (wanted, wanted_state))
    ]
    ours_gradients = gradients(ends[0], [*inputs, *ours.parameters()])
    assert furthest(ours_gradients, gradients(ends[1], [*inputs, *theirs.parameters()])) <= BACKWARD[dtype]


@KINDS
def test_weights_have_torchs_names_and_first_values(kind: str) -> None:
    ours_class, theirs_class = PAIRS[kind]
    torch.manual_seed(5)
    ours = ours_class(3, 4)
    torch.manual_seed(5)
    theirs = theirs_class(3, 4, batch_first=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_steps_by_the_definition() -> None:
    """Number by number: one unit of the state, one text."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    weight = torch.tensor([[0.5]], dtype=torch.float64)
    inputs, h, c = (torch.tensor([[x]], dtype=torch.float64) for x in (0.3, -0.8, 2.0))
    assert rnn_step(inputs, h, weight).item() == pytest.approx(math.tanh(0.3 - 0.4), abs=1e-15)
    weights = torch.tensor([[0.5], [-1.0], [2.0], [0.1]], dtype=torch.float64)
    inputs = torch.tensor([[0.3, 1.0, -0.2, 0.7]], dtype=torch.float64)
    write, keep, new, show = (x - 0.8 * w for x, w in zip((0.3, 1.0, -0.2, 0.7), (0.5, -1.0, 2.0, 0.1), strict=True))
    memory = sigmoid(keep) * 2.0 + sigmoid(write) * math.tanh(new)
    found = lstm_step(inputs, h, c, weights)
    assert [x.item() for x in found] == pytest.approx([sigmoid(show) * math.tanh(memory), memory], abs=1e-15)


@KINDS
@examples(25)
@given(T=st.integers(2, 12), data=st.data())
def test_a_text_may_be_read_in_pieces(kind: str, T: int, data: st.DataObject) -> None:
    """The state is all that the future needs of the past."""
    cut = data.draw(st.integers(1, T - 1))
    ours, _ = pair(kind, 3, 4)
    x = numbers(2, T, 3)
    whole, last = ours(x)
    first, state = ours(x[:, :cut])
    second, end = ours(x[:, cut:], state)
    assert furthest([torch.cat([first, second], dim=1), *parts(end)], [whole, *parts(last)]) <= 1e-14


@KINDS
def test_the_future_changes_nothing(kind: str) -> None:
    ours, _ = pair(kind, 3, 4)
    x = numbers(1, 9, 3, grad=True)
    for t in (0, 4, 8):
        (gradient,) = torch.autograd.grad(ours(x)[0][0, t].sum(), x)
        size = gradient[0].abs().amax(dim=-1)
        assert size[t + 1 :].eq(0).all()
        assert size[: t + 1].gt(0).all()


@pytest.mark.parametrize("make", [RNN, LSTM])
def test_under_autocast_a_state_may_be_handed_on(make: type[RNN]) -> None:
    net, x = make(3, 4), torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        whole, _ = net(x)
        first, state = net(x[:, :2])
        second, _ = net(x[:, 2:], state)
    assert (torch.cat([first, second], dim=1) - whole).abs().max() < 0.02


def test_small_whole_numbers_of_numpy_do_not_overflow() -> None:
    outputs, _ = LSTM(np.uint8(3), np.uint8(100))(torch.zeros(1, 2, 3))  # type: ignore[arg-type]
    assert outputs.shape == (1, 2, 100)


@KINDS
def test_half_precision_is_close(kind: str) -> None:
    ours, _ = pair(kind, 8, 16, torch.bfloat16)
    x = numbers(2, 20, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        found, state = ours(x)
        wanted, last = ours.double()(x.double())
    assert found.dtype == torch.bfloat16
    assert furthest([found, *parts(state)], [wanted, *parts(last)]) <= 3e-2


REFUSED: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: RNN(0, 4), ValueError, "n_in must be 1 or more, not 0"),
    (lambda: LSTM(3, 0), ValueError, "n_hidden must be 1 or more, not 0"),
    (lambda: RNN(3, 4)(torch.zeros(2, 5, 4)), ValueError, r"\(2, 5, 4\); it must be \(B, T, 3\)"),
    (lambda: LSTM(3, 4)(torch.zeros(5, 3)), ValueError, r"\(5, 3\); it must be \(B, T, 3\)"),
    (lambda: LSTM(3, 4)(torch.zeros(2, 0, 3)), ValueError, "at least 1"),
    (lambda: RNN(3, 4)(torch.zeros(2, 5, 3, dtype=torch.long)), TypeError, "embed ids first"),
    (lambda: RNN(3, 4)(torch.zeros(2, 5, 3), torch.zeros(1, 4)), ValueError, r"\(1, 4\).* must be \(2, 4\)"),
    (lambda: RNN(3, 4)(torch.zeros(2, 5, 3), torch.zeros(1, 2, 4)), ValueError, r"\(1, 2, 4\).* must be \(2, 4\)"),
    (lambda: LSTM(3, 4)(torch.zeros(2, 5, 3), (torch.zeros(2, 4), torch.zeros(2, 5))), ValueError, r"\(2, 5\)"),
    (
        lambda: RNN(3, 4)(torch.zeros(2, 5, 3), torch.zeros(2, 4).double()),
        TypeError,
        "torch.float64 and x torch.float32",
    ),
]


@pytest.mark.parametrize(("make", "error", "said"), REFUSED)
def test_what_does_not_fit_is_refused(make: Callable[[], object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make()
