"""The exercises of 05_loss: the course's answer, the cases that try a reader's, and the mistakes known by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from glassbox import optimisation, sampling
from glassbox.lab import Exercise, Finding, Mistake
from glassbox.preprocessing import IGNORE
from torch import nn

__all__ = ["adamw_step", "add_up_gradients", "fault_of", "top_p"]

Tensor = torch.Tensor
Parts = Sequence[tuple[Tensor, Tensor]]
Step = Callable[..., Any]


def _numbers(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    """Random numbers of a given shape, the same every time, of 64 bits."""
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- 1. adamw_step ---


def _adamw(**wrong: Any) -> Step:
    """adamw_step with the named things done wrongly."""

    def step(
        parameter: Tensor,
        gradient: Tensor,
        mean: Tensor,
        square: Tensor,
        t: int,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        if wrong.get("swapped"):
            betas = betas[1], betas[0]
        if wrong.get("first_beta"):
            betas = betas[0], betas[0]
        eps, weight_decay, betas = wrong.get("eps", eps), wrong.get("decay", weight_decay), wrong.get("betas", betas)
        if wrong.get("l2"):
            gradient = gradient + weight_decay * parameter
        if wrong.get("l2_in_place"):
            gradient += weight_decay * parameter
        share = betas if wrong.get("shares") else (1 - betas[0], 1 - betas[1])
        new_mean = mean + share[0] * (gradient - mean)
        new_square = square + share[1] * (gradient**2 - square)
        if wrong.get("square_of_mean"):
            new_square = square + share[1] * (mean**2 - square)
        if wrong.get("absolute"):
            new_square = square + share[1] * (gradient.abs() - square)
        if wrong.get("summed"):
            new_mean, new_square = betas[0] * mean + gradient, betas[1] * square + gradient**2
        if not wrong.get("kept_aside"):
            mean.copy_(new_mean)
            square.copy_(new_square)
        t += wrong.get("late", 0)
        corrections = [1.0 if i in wrong.get("uncorrected", ()) else 1 - betas[i] ** t for i in (0, 1)]
        if wrong.get("power"):
            corrections = [1 - betas[0] * t, 1 - betas[1] * t]
        direction, size = new_mean / corrections[0], new_square / corrections[1]
        if wrong.get("means_overwritten"):
            mean.copy_(direction)
            square.copy_(size)
        if wrong.get("gradient_itself"):
            direction = gradient
        size = size if wrong.get("no_root") else (size + eps).sqrt() if wrong.get("eps_inside") else size.sqrt()
        size = size if wrong.get("eps_inside") else size + eps
        shrink = 1 - weight_decay if wrong.get("decay_without_lr") else 1 - lr * weight_decay
        if wrong.get("l2") or wrong.get("l2_in_place"):
            shrink = 1.0
        moved = lr * direction / size * (-1 if wrong.get("uphill") else 1)
        found = (parameter - moved) * shrink if wrong.get("decay_after") else parameter * shrink - moved
        if wrong.get("grows"):
            found = parameter * (2 - shrink) - moved
        if not wrong.get("new_tensor"):
            parameter.copy_(found)

    return step


def _run(step: Step, steps: int, lr: float = 0.1, size: float = 1.0, seed: int = 0, **rates: Any) -> Any:
    """The parameter after some steps; the gradients differ in size by factors of thousands."""
    parameter, mean, square = _numbers(4, seed=seed) + 2, torch.zeros(4).double(), torch.zeros(4).double()
    sizes = size * torch.tensor([1.0, 0.01, 30.0, 1.0], dtype=torch.float64)
    for t in range(1, steps + 1):
        gradient = sizes * (_numbers(4, seed=seed + t) + 0.5)
        given = gradient.clone()
        step(parameter, gradient, mean, square, t, lr, **rates)
        if not torch.equal(given, gradient):
            return Finding("gradient changed", f"after step {t} the gradient has changed: it is the caller's")
    return parameter


def one_step(f: Step) -> Any:
    """1 step: the parameter afterwards"""
    return _run(f, 1)


def two_steps(f: Step) -> Any:
    """2 steps: the parameter afterwards"""
    return _run(f, 2)


def ten_steps(f: Step) -> Any:
    """10 steps: the parameter afterwards"""
    return _run(f, 10, lr=0.02, seed=20)


def strong_decay(f: Step) -> Any:
    """3 steps with weight_decay=0.5 and lr=0.2: the parameter afterwards"""
    return _run(f, 3, lr=0.2, seed=40, weight_decay=0.5)


def no_decay(f: Step) -> Any:
    """3 steps with weight_decay=0: the parameter afterwards"""
    return _run(f, 3, seed=60, weight_decay=0.0)


def large_eps(f: Step) -> Any:
    """2 steps with eps=0.01 and gradients of about 0.001 (here the place of eps decides): the parameter afterwards"""
    return _run(f, 2, size=0.001, seed=80, eps=0.01)


def other_betas(f: Step) -> Any:
    """5 steps with betas=(0.5, 0.8): the parameter afterwards"""
    return _run(f, 5, seed=100, betas=(0.5, 0.8))


def a_matrix(f: Step) -> Any:
    """a matrix of 2 x 3 in place of a row, 2 steps: the parameter afterwards"""
    parameter, mean, square = _numbers(2, 3), torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for t in (1, 2):
        f(parameter, _numbers(2, 3, seed=t), mean, square, t, 0.1)
    return parameter


def no_gradient(f: Step) -> Any:
    """a step with a gradient of 0 and no means so far: only the decay is left"""
    parameter, zeros = torch.tensor([1.0, -2.0], dtype=torch.float64), [torch.zeros(2).double() for _ in range(3)]
    f(parameter, *zeros, 1, 0.1, weight_decay=0.5)
    return parameter


_T = "t counts from 1, and the correction is 1 - beta ** t."
_L2 = "the decay is in the gradient (Adam with L2): there it is divided by the size too. Shrink the parameter itself."

adamw_step = Exercise(
    name="adamw_step",
    reference=optimisation.adamw_step,
    cases=[
        one_step,
        two_steps,
        ten_steps,
        strong_decay,
        no_decay,
        large_eps,
        other_betas,
        a_matrix,
        no_gradient,
    ],
    mistakes=[
        Mistake(_adamw(new_tensor=True), "nothing has moved: `x = ...` makes a new tensor. Change it IN PLACE (-=)."),
        Mistake(_adamw(l2=True), _L2),
        Mistake(_adamw(l2_in_place=True), "the gradient is the caller's, and " + _L2),
        Mistake(_adamw(decay=0.0), "the parameter does not decay: first multiply it by 1 - lr * weight_decay."),
        Mistake(_adamw(decay=0.01), "the argument weight_decay is not used: the caller may want another than 0.01."),
        Mistake(_adamw(decay_without_lr=True), "the decay of a step is lr * weight_decay, not weight_decay alone."),
        Mistake(_adamw(decay_after=True), "shrink first, then step: here what the step has added shrinks too."),
        Mistake(_adamw(grows=True), "the parameter grows: the decay has the wrong sign."),
        Mistake(_adamw(eps_inside=True), "eps stands outside the root: square.sqrt() + eps."),
        Mistake(_adamw(eps=0.0), "eps is missing: where a gradient is 0, 0/0 is no number."),
        Mistake(_adamw(eps=1e-8), "the argument eps is not used: the caller may want another than 1e-8."),
        Mistake(_adamw(betas=(0.9, 0.999)), "the argument betas is not used."),
        Mistake(_adamw(first_beta=True), "the squares have a beta of their own, betas[1]."),
        Mistake(_adamw(swapped=True), "betas are swapped: the first is that of the mean, the second of the squares."),
        Mistake(_adamw(shares=True), "old and new are swapped: beta * mean + (1 - beta) * gradient."),
        Mistake(_adamw(summed=True), "the new gradient enters a running mean with the weight 1 - beta, not 1."),
        Mistake(_adamw(uncorrected=(0, 1)), "both means begin at 0 and are too small at first: divide by 1 - beta**t."),
        Mistake(_adamw(uncorrected=(0,)), "the mean is not corrected: divide it by 1 - betas[0] ** t."),
        Mistake(_adamw(uncorrected=(1,)), "the mean of squares is not corrected: divide it by 1 - betas[1] ** t."),
        Mistake(_adamw(late=1), "the corrections are those of the next step: " + _T),
        Mistake(_adamw(late=-1), "the corrections are those of the step before, at step 1 a division by 0: " + _T),
        Mistake(_adamw(power=True), "the correction is a power, 1 - beta ** t, not beta * t."),
        Mistake(
            _adamw(means_overwritten=True),
            "step 1 is right, step 2 wrong: you keep the corrected means. Keep the plain ones, correct a copy.",
        ),
        Mistake(
            _adamw(kept_aside=True),
            "step 1 is right, step 2 wrong: mean and square must be changed in place, or the next step finds zeros.",
        ),
        Mistake(_adamw(gradient_itself=True), "the step goes along the running mean, not along the gradient itself."),
        Mistake(_adamw(square_of_mean=True), "square is the running mean of gradient ** 2, not of mean ** 2."),
        Mistake(_adamw(absolute=True), "square is the running mean of the SQUARES of the gradient."),
        Mistake(_adamw(no_root=True), "divide by the root of the mean of squares: .sqrt()."),
        Mistake(_adamw(uphill=True), "the step goes uphill: subtract it."),
    ],
    hint="mean.lerp_(gradient, 1 - betas[0]); the same for squares; correct copies; shrink; then parameter.sub_(...).",
)


# --- 2. add_up_gradients ---


def _reference(model: nn.Module, parts: Parts) -> float:
    tokens = sum(int((Y != IGNORE).sum()) for _, Y in parts)
    model.zero_grad()
    total = 0.0
    for X, Y in parts:
        loss = F.cross_entropy(model(X).flatten(0, 1), Y.flatten(), ignore_index=IGNORE, reduction="sum") / tokens
        loss.backward()
        total += loss.item()
    return total


def _added(**wrong: Any) -> Callable[[nn.Module, Parts], Any]:
    """add_up_gradients with the named things done wrongly."""

    def add(model: nn.Module, parts: Parts) -> Any:
        counts = [int((Y != IGNORE).sum()) for _, Y in parts]
        if wrong.get("all_count"):
            counts = [Y.numel() for _, Y in parts]
        if not wrong.get("not_cleared"):
            model.zero_grad()
        total = 0.0
        for (X, Y), count in zip(parts, counts, strict=True):
            if wrong.get("cleared_inside"):
                model.zero_grad()
            logits, Y = model(X).flatten(0, 1), Y.flatten()
            if wrong.get("ignored_learned"):
                Y = Y.clamp(min=0)
            share = count / sum(counts)
            if wrong.get("mean_of_means"):
                share = 1 / len(parts)
            if wrong.get("sum_of_means"):
                share = 1.0
            if wrong.get("sums"):
                share = float(count)
            loss = F.cross_entropy(logits, Y, ignore_index=IGNORE)
            (loss if wrong.get("backward_undivided") else loss * share).backward()
            total += (loss if wrong.get("loss_undivided") else loss * share).item()
            if wrong.get("last_loss"):
                total = loss.item()
        if wrong.get("divided_after"):
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= len(parts)
            total /= len(parts)
        return None if wrong.get("no_return") else total

    return add


class _Small(nn.Module):
    """A language model of one matrix that counts how many texts it is asked about at once."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 7)
        self.most = 0
        self.ready: list[bool] = []  # at each call: are there gradients already?
        with torch.no_grad():
            for seed, parameter in enumerate(self.parameters()):
                parameter.copy_(_numbers(*parameter.shape, seed=seed))
        self.double()

    def forward(self, ids: Tensor) -> Tensor:
        self.most = max(self.most, len(ids))
        self.ready.append(any(p.grad is not None and bool(p.grad.any()) for p in self.parameters()))
        return self.head(self.table(ids).tanh())


def _part(B: int, T: int, ignored: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(seed)
    X, Y = (torch.randint(7, (B, T), generator=dice) for _ in range(2))
    if ignored:
        Y[:, -ignored:] = IGNORE
    return X, Y


def _gradients_of(f: Callable[..., Any], parts: Parts, before: float = 0.0) -> Any:
    model = _Small()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, before)
    f(model, parts)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def equal_parts(f: Callable[..., Any]) -> Any:
    """two parts with 6 targets each: the gradients afterwards"""
    return _gradients_of(f, [_part(2, 3, seed=1), _part(2, 3, seed=2)])


def unequal_parts(f: Callable[..., Any]) -> Any:
    """parts with 12, 2 and 5 targets that count: the gradients afterwards"""
    return _gradients_of(f, [_part(2, 6, seed=3), _part(2, 4, ignored=3, seed=4), _part(1, 5, seed=5)])


def one_part(f: Callable[..., Any]) -> Any:
    """a single part, of which some targets do not count: the gradients afterwards"""
    return _gradients_of(f, [_part(3, 4, ignored=1, seed=6)])


def old_gradients(f: Callable[..., Any]) -> Any:
    """gradients of an earlier step are still there: the gradients afterwards"""
    return _gradients_of(f, [_part(2, 3, seed=7), _part(1, 4, seed=8)], before=9.0)


def the_loss(f: Callable[..., Any]) -> Any:
    """the loss that comes back, for parts with 12, 2 and 5 targets"""
    result = f(_Small(), [_part(2, 6, seed=3), _part(2, 4, ignored=3, seed=4), _part(1, 5, seed=5)])
    return float(result) if isinstance(result, Tensor) and result.ndim == 0 else result


def one_at_a_time(f: Callable[..., Any]) -> Finding:
    """three parts of two texts each: how many texts does the model see at once?"""
    model = _Small()
    f(model, [_part(2, 4, seed=seed) for seed in range(3)])
    if model.most > 2:
        return Finding("joined", f"{model.most} texts at once: that is the large batch, for which there is no memory")
    return Finding("one part at a time")


def backward_each_time(f: Callable[..., Any]) -> Finding:
    """three parts: is each one's way back done before the next one is read?"""
    model = _Small()
    f(model, [_part(2, 4, seed=seed) for seed in range(3)])
    if len(model.ready) == 3 and not all(model.ready[1:]):
        return Finding("late", "the next part is read before backward(): so all parts are held in memory at once")
    return Finding("it is")


def the_weights(f: Callable[..., Any]) -> Finding:
    """are the weights still what they were?"""
    model, fresh = _Small(), _Small()
    f(model, [_part(2, 4), _part(1, 4, seed=1)])
    if not all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True)):
        return Finding("moved", "they have moved: only the gradients are asked for, the step is the optimiser's")
    return Finding("they are")


def part_without_targets(f: Callable[..., Any]) -> Any:
    """the loss that comes back, for a part in which no target counts beside one with 6"""
    result = f(_Small(), [_part(2, 3, seed=1), _part(1, 4, ignored=4, seed=2)])
    return float(result) if isinstance(result, Tensor) and result.ndim == 0 else result


add_up_gradients = Exercise(
    name="add_up_gradients",
    reference=_reference,
    cases=[
        equal_parts,
        unequal_parts,
        one_part,
        old_gradients,
        the_loss,
        one_at_a_time,
        backward_each_time,
        the_weights,
        part_without_targets,
    ],
    mistakes=[
        Mistake(
            _added(mean_of_means=True),
            "the mean of means: a token of a short part weighs more. Divide each SUM by the tokens of all parts.",
        ),
        Mistake(
            _added(sum_of_means=True, divided_after=True),
            "the mean of means: a token of a short part weighs more. Divide each SUM by the tokens of all parts.",
        ),
        Mistake(_added(sum_of_means=True), "the means are added up: with K parts the gradient is K times too large."),
        Mistake(_added(sums=True), "the sums are added up: divide by the number of targets that count, in all parts."),
        Mistake(_added(cleared_inside=True), "zero_grad stands inside the loop: only the last part is left."),
        Mistake(_added(not_cleared=True), "the gradients of the step before are still in it: zero_grad, once, first."),
        Mistake(_added(all_count=True), "targets of IGNORE do not count: divide by the number of the others."),
        Mistake(_added(ignored_learned=True), "targets of IGNORE are learned: give cross_entropy ignore_index=IGNORE."),
        Mistake(_added(loss_undivided=True), "the gradients are right, but the loss is the sum of the parts' means."),
        Mistake(_added(last_loss=True), "the gradients are right, but the loss is that of the last part alone."),
        Mistake(_added(backward_undivided=True), "the loss is right, but backward was called on the undivided one."),
        Mistake(_added(), "a part in which no target counts has no mean (0/0 is nan): add up sums, then divide."),
        Mistake(_added(no_return=True), "the gradients are right; return the loss, too: a `return` is missing."),
    ],
    hint="Count the targets of all parts first. reduction='sum' gives the sum of a part; divide it, then backward().",
    tolerance=1e-5,
)


# --- 3. fault_of ---

FAULTS = {
    0: "no fault",
    1: "no zero_grad",
    2: "softmax before cross_entropy",
    3: "y not shifted",
    4: "eval mode missing",
    5: "lr in the wrong unit",
}
_TRUE = {"A": 2, "B": 5, "C": 3, "D": 4, "E": 1}
_FLOOR = (
    "curve C is not good, it is too good: it falls below the floor, the entropy of the language. There no model can be "
    "in expectation. So it has seen the answers"
)
_SHOWS = {
    "A": "run A hardly moves from the line of one who knows nothing, and never wildly: something holds it up there",
    "B": "run B leaps above the top line at its very first steps: no error in the data does that",
    "C": _FLOOR,
    "D": "run D learns as the sound one does: look how far its two curves are apart, and how smooth the dashed one is",
    "E": "run E begins near the uniform line and climbs for hundreds of steps: something adds up that should not",
}


def _curve(name: str) -> Callable[[Callable[..., Any]], Finding]:
    def probe(f: Callable[..., Any]) -> Finding:
        said = f(name)
        if isinstance(said, bool | str | float) or said not in FAULTS:
            return Finding(f"{said!r}", f"{said!r}: answer with a number of the list, 0 to 5")
        if said == _TRUE[name]:
            return Finding("named")
        return Finding(f"named {said}", f"{FAULTS[said]!r}, but {_SHOWS[name]}")

    probe.__doc__ = f"which fault has run {name}?"
    return probe


def _says(**answers: int) -> Callable[[str], int]:
    return lambda run: {**_TRUE, **answers}[run]


fault_of = Exercise(
    name="fault_of",
    reference=lambda run: _TRUE[run],
    cases=[_curve(name) for name in _TRUE],
    mistakes=[
        Mistake(_says(C=0), "the best curve of all is a leak. Never trust a loss below the floor."),
        Mistake(_says(D=0), "D learns well, and yet what it reports is wrong: compare where its dashed curve lies."),
        Mistake(_says(C=0, D=0), "two of them are not sound. C is below the floor; D's dashed curve lies too high."),
        Mistake(_says(C=4, D=3), "C and D are swapped: only who sees the answers gets below the floor."),
        Mistake(_says(B=1, E=5), "B and E are swapped: a step that is far too long shows at once, a sum grows slowly."),
        Mistake(_says(A=5, B=2), "A and B are swapped: probabilities lie between 0 and 1, so their loss cannot leap."),
        Mistake(lambda run: 0, "none of the five is sound: each differs from the grey one in some way."),
    ],
    hint="One leaps, one cannot fall, one climbs and wanders, one is below the floor, one has its curves too close.",
)


# --- 4. top_p ---


def _filter(keep: Callable[[Tensor, float], Tensor], fill: float = -math.inf) -> Callable[[float], Any]:
    """A wrong top_p from a rule: probabilities (B, V) and p to what is kept, bool (B, V)."""
    return lambda p: lambda logits, ids: logits.masked_fill(~keep(logits.softmax(dim=-1), p), fill)


def _before(probabilities: Tensor, least_first: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's own probability, and the sum of those before it, in falling order; and the order."""
    ordered, order = probabilities.sort(dim=-1, descending=not least_first, stable=True)
    return ordered, ordered.cumsum(dim=-1) - ordered, order


def _back(kept: Tensor, order: Tensor) -> Tensor:
    return torch.zeros_like(kept).scatter(-1, order, kept)


def _crossing_dropped(q: Tensor, p: float) -> Tensor:
    own, before, order = _before(q)
    return _back(before + own <= p, order)


def _crossing_dropped_one_kept(q: Tensor, p: float) -> Tensor:
    own, before, order = _before(q)
    kept = before + own <= p
    kept[:, 0] = True
    return _back(kept, order)


def _one_too_many(q: Tensor, p: float) -> Tensor:
    _, before, order = _before(q)
    kept = before < p
    more = torch.cat([torch.ones_like(kept[:, :1]), kept[:, :-1]], dim=-1)
    return _back(more, order)


def _none_at_small_p(q: Tensor, p: float) -> Tensor:
    own, before, order = _before(q)
    gone = before >= p
    gone[:, 0] = own[:, 0] >= p  # the mask was moved by one place, and its first left as it was
    return _back(~gone, order)


def _not_sorted_back(q: Tensor, p: float) -> Tensor:
    return _before(q)[1] < p


def _not_sorted(q: Tensor, p: float) -> Tensor:
    return q.cumsum(dim=-1) - q < p


def _as_threshold(q: Tensor, p: float) -> Tensor:
    return q >= p


def _as_min_p(q: Tensor, p: float) -> Tensor:
    return q >= p * q.amax(dim=-1, keepdim=True)


def _tail_kept(q: Tensor, p: float) -> Tensor:
    _, before, order = _before(q, least_first=True)
    return _back(before < p, order)


def _ties_kept(q: Tensor, p: float) -> Tensor:
    own, before, _ = _before(q)
    least = torch.where(before < p, own, 1.0).amin(dim=-1, keepdim=True)
    return q >= least


def _first_row_only(q: Tensor, p: float) -> Tensor:
    own, before, order = _before(q)
    return _back((before < p)[:1].expand_as(own), order)


def _raw_logits(p: float) -> Any:
    def keep(logits: Tensor, ids: Tensor) -> Tensor:
        ordered, order = logits.sort(dim=-1, descending=True)
        return logits.masked_fill(~_back(ordered.cumsum(dim=-1) - ordered < p, order), -math.inf)

    return keep


def _probabilities_back(p: float) -> Any:
    def keep(logits: Tensor, ids: Tensor) -> Tensor:
        q = logits.softmax(dim=-1)
        _, before, order = _before(q)
        return q * _back(before < p, order)

    return keep


def _sorted_result(p: float) -> Any:
    def keep(logits: Tensor, ids: Tensor) -> Tensor:
        ordered = logits.sort(dim=-1, descending=True).values
        q = ordered.softmax(dim=-1)
        return ordered.masked_fill(~(q.cumsum(dim=-1) - q < p), -math.inf)

    return keep


def _in_place(p: float) -> Any:
    def keep(logits: Tensor, ids: Tensor) -> Tensor:
        return logits.copy_(sampling.top_p(p)(logits.clone(), ids))

    return keep


def _right(q: Tensor, p: float) -> Tensor:
    _, before, order = _before(q)
    return _back(before < p, order)


def _kept(f: Callable[[float], Any], p: float, rows: Sequence[Sequence[float]]) -> Any:
    """Which tokens survive, for each row of probabilities; a Finding where the result is no row of logits."""
    logits = torch.tensor(rows, dtype=torch.float64).log() + 1.5  # adding a number to all changes no probability
    given = logits.clone()
    result = f(p)(logits, torch.zeros(len(rows), 1, dtype=torch.int64))
    if not torch.equal(given, logits):
        return Finding("changed", "the logits that were handed in have changed: make new ones (masked_fill)")
    if not isinstance(result, Tensor) or result.shape != given.shape:
        shown = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        return Finding(f"shape {shown}", f"a result {shown}: it must be logits {tuple(given.shape)}")
    finite = result.isfinite()
    if (result.isposinf() | result.isnan()).any():
        return Finding("no numbers", f"{result.tolist()}: what is forbidden is -inf, and all else stays")
    if not torch.allclose(result[finite], given[finite]):
        return Finding(
            f"other logits {finite.tolist()} {bool((result < -1e6).any())}",
            f"{result.tolist()}: kept logits must not change",
        )
    return [[i for i, kept in enumerate(row) if kept] for row in finite.tolist()]


def _case(p: float, *rows: Sequence[float], words: str = "") -> Callable[..., Any]:
    def probe(f: Callable[[float], Any]) -> Any:
        return _kept(f, p, rows)

    shown = " and ".join(str(list(row)) for row in rows)
    probe.__doc__ = f"which of {shown} are kept at p = {p}{words}"
    return probe


def _on_the_line(p: float, row: Sequence[float], right: list[int]) -> Callable[..., Any]:
    """A case in which the sum is p exactly: rounding may let one more token stay, and both answers are taken."""

    def probe(f: Callable[[float], Any]) -> Any:
        found = _kept(f, p, [row])
        return [right] if found == [[*right, len(right)]] else found

    probe.__doc__ = f"which of {list(row)} are kept at p = {p}"
    return probe


def ties(f: Callable[[float], Any]) -> Any:
    """how many of [0.4, 0.3, 0.3] are kept at p = 0.5, and of four equal ones at p = 0.3"""
    found = _kept(f, 0.5, [[0.4, 0.3, 0.3]]), _kept(f, 0.3, [[0.25, 0.25, 0.25, 0.25]])
    return [len(kept[0]) if isinstance(kept, list) else kept for kept in found]


top_p = Exercise(
    name="top_p",
    reference=sampling.top_p,
    cases=[
        _on_the_line(0.5, [0.5, 0.3, 0.2], [0]),
        _case(0.6, [0.5, 0.3, 0.2]),
        _on_the_line(0.8, [0.5, 0.3, 0.2], [0, 1]),
        _case(0.9, [0.5, 0.3, 0.2]),
        _case(0.6, [0.2, 0.5, 0.3], words=" (not sorted)"),
        _case(0.7, [0.1, 0.2, 0.6, 0.1], [0.4, 0.15, 0.25, 0.2], words=" (two rows, each with its own set)"),
        _case(0.001, [0.3, 0.5, 0.2], words=": one at least"),
        _case(1.0, [0.3, 0.5, 0.2], words=": all"),
        ties,
    ],
    mistakes=[
        Mistake(_filter(_crossing_dropped), "keep the token that crosses the line: without it their sum is below p."),
        Mistake(
            _filter(_crossing_dropped_one_kept),
            "keep the token that crosses the line: a token stays if the sum BEFORE it is below p.",
        ),
        Mistake(_filter(_one_too_many), "one too many: where the sum has reached p, the next token goes."),
        Mistake(_filter(_not_sorted_back), "the places are those of the sorted row: scatter them back by the order."),
        Mistake(_filter(_not_sorted), "sort first: the likeliest tokens are kept, wherever they stand."),
        Mistake(_filter(_as_threshold), "p is compared with single probabilities: their running SUM counts."),
        Mistake(_filter(_as_min_p), "this is min-p, a share of the likeliest: top-p looks at the running sum."),
        Mistake(_filter(_tail_kept), "the unlikely ones are kept: sort in falling order."),
        Mistake(_filter(_ties_kept), "ties: of equally likely tokens only as many stay as are needed to reach p."),
        Mistake(_filter(_first_row_only), "each row has its own order and sum: here the first decides for all."),
        Mistake(_filter(_right, fill=-1e9), "a large negative number is not forbidden: write float('-inf')."),
        Mistake(_filter(_none_at_small_p), "at least one token always stays, however small p is."),
        Mistake(_filter(_right, fill=0.0), "a logit of 0 is not forbidden, e to the 0 is 1: write float('-inf')."),
        Mistake(_raw_logits, "logits are no probabilities: take softmax before you sum."),
        Mistake(_probabilities_back, "you return probabilities: a filter takes logits and returns logits."),
        Mistake(_sorted_result, "the result is sorted: each logit must stay at the place of its token."),
        Mistake(_in_place, "the caller's logits have changed: use masked_fill, not masked_fill_."),
    ],
    hint="Sort in falling order, softmax, cumsum. A token stays if the sum before it is below p. Then scatter back.",
)
