"""Exercises that answer back: `check` tries a reader's function on cases and says what it found.

Three answers are possible. An untouched stub is passed over and the course's own function goes on; a right one is
handed back, and the rest of the notebook runs on it; a wrong one gets a diagnosis in plain words. `check` prints,
on purpose: it is the teacher of the notebooks. `comparing.py` holds how two results are compared.
"""

from __future__ import annotations

import contextlib
import copy
import dis
import functools
import inspect
import itertools
import linecache
import os
import random
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from glassbox.comparing import Finding, difference, likely_cause, short
from glassbox.patience import PatienceError, patience

__all__ = ["Exercise", "ExerciseError", "Finding", "Mistake", "check", "ledger"]

Case = tuple | Callable[[Any], Any]
_PATIENCE = 5.0  # seconds for one call of a reader's function; right ones take milliseconds


class ExerciseError(AssertionError):
    """A wrong answer to an exercise, raised only where the environment has GLASSBOX_STRICT=1."""


@dataclass(frozen=True)
class Mistake:
    """A wrong function that readers are known to write, and the sentence that helps them.

    `does` takes what the exercise's function takes; `says` is printed where a reader's answers equal those of `does`.
    """

    does: Callable
    says: str


@dataclass(frozen=True)
class Exercise:
    """One exercise: the course's own answer, the cases that try it, known mistakes and a hint.

    A case is a tuple of positional arguments, or a function `probe(f)` that uses f and returns something to compare;
    the first line of its docstring tells the reader what was tried. Where the reference refuses a case with a
    ValueError or TypeError, so must the answer; where it changes its arguments, the answer must change them alike.
    """

    name: str
    reference: Callable
    cases: Sequence[Case]
    mistakes: Sequence[Mistake] = ()
    hint: str = ""
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not callable(self.reference):
            raise TypeError(f"{self.name}: the reference must be a function or class, not {self.reference!r}")
        if isinstance(self.cases, str) or not isinstance(self.cases, Sequence) or not self.cases:
            raise ValueError(f"{self.name}: cases must be a list with at least one case, not {self.cases!r}")
        for case in self.cases:
            if not isinstance(case, tuple) and not callable(case):
                raise TypeError(f"{self.name}: a case is a tuple of arguments or a probe(f), not {case!r}")
        for mistake in self.mistakes:
            if not isinstance(mistake, Mistake):
                raise TypeError(f"{self.name}: expected Mistake(does=..., says=...), not {mistake!r}")
        if not self.tolerance >= 0:
            raise ValueError(f"{self.name}: tolerance must be 0 or more, not {self.tolerance!r}")


def check(
    f: Callable,
    reference: Callable | Exercise,
    cases: Sequence[Case] | None = None,
    *,
    hint: str = "",
    mistakes: Sequence[Mistake] = (),
    name: str | None = None,
    tolerance: float = 1e-6,
) -> Any:
    """Try a reader's function or class and return the one to use from here on.

    f: the reader's. reference: the course's own, or an `Exercise` that holds everything that follows.
    cases, mistakes, hint, tolerance: see `Exercise`; the tolerance is relative, and absolute below 1.
    Arguments are copied for every call, and every call starts from the same random seed; the notebook's own random
    state is left as it was.

    Returns f itself where it is right, else the reference. Prints one of the three answers.
    Raises ExerciseError for a wrong answer where GLASSBOX_STRICT=1 is set; ValueError or TypeError where the exercise
    itself is ill-made.
    """
    if not isinstance(reference, Exercise):
        title = name or getattr(reference, "__name__", "exercise")
        exercise = Exercise(title, reference, () if cases is None else cases, mistakes, hint, tolerance)
    elif cases is not None or hint or mistakes or name is not None:
        raise TypeError("give an Exercise, or a reference with cases, hint, mistakes and name: not both")
    else:
        exercise = reference
    name, hint = exercise.name, f" Hint: {exercise.hint}" if exercise.hint else ""

    if f is ... or _is_stub(f):
        return _untouched(
            exercise, f"not attempted yet, the course's own goes on{'; a hint is folded below' * bool(hint)}."
        )
    if not callable(f):
        return _wrong(exercise, f"{name} is {short(f)}, not a function: has another line reused its name?")

    with _laboratory():
        right = [_try_reference(exercise, case) for case in exercise.cases]
        mine = _try_all(f, exercise.cases)
        faults = [_fault(f, name, *both, exercise.tolerance) for both in zip(mine, right, strict=True)]
        passed = f"{sum(not fault for fault in faults)} of {len(faults)} cases"
        if any(faults) and _is_unfinished(f, mine, faults):
            words = f"right on {passed}, not finished: it still reaches `raise NotImplementedError`"
            return _untouched(exercise, f"{words}. The course's own goes on.{hint}")
        if any(faults):
            return _wrong(exercise, f"right on {passed}. {_diagnosis(exercise, mine, right, faults)}")

    passed = "its one case" if len(faults) == 1 else f"all {len(faults)} cases"
    if f is exercise.reference:  # as when the cell is run twice: nothing here is the reader's
        return _untouched(exercise, f"this is the course's own, right on {passed}.")
    _LEDGER[name] = True
    print(f"✓ {name}: right on {passed}. From here on the notebook uses yours.")
    return f


# --- the ledger: whose parts this session runs on ---

_LEDGER: dict[str, bool] = {}


def ledger() -> None:
    """Print which exercises of this session are the reader's own, and which are still the course's."""
    mine = [name for name, own in _LEDGER.items() if own]
    rest = [name for name, own in _LEDGER.items() if not own]
    if not _LEDGER:
        print("No exercise has been checked in this session yet.")
        return
    print(f"{len(mine)} of {len(_LEDGER)} parts are yours{': ' + ', '.join(mine) if mine else ''}.")
    if rest:
        print(f"Still the course's own: {', '.join(rest)}.")


def _untouched(exercise: Exercise, words: str) -> Callable:
    _LEDGER[exercise.name] = False
    print(f"○ {exercise.name}: {words}")
    return exercise.reference


def _wrong(exercise: Exercise, words: str) -> Callable:
    _LEDGER[exercise.name] = False
    message = f"✗ {exercise.name}: {words}"
    print(f"{message}\n  The notebook goes on with the course's own; change yours and run this cell again.")
    if os.environ.get("GLASSBOX_STRICT") == "1":
        raise ExerciseError(message)
    return exercise.reference


# --- one call ---


@dataclass
class _Answer:
    """What one call gave: a result or an error, and the arguments as the call left them."""

    case: Case
    result: Any = None
    error: Exception | SystemExit | None = None
    arguments: tuple = ()


def _try_all(f: Callable, cases: Sequence[Case]) -> list[_Answer]:
    """The reader's answers; once a call had to be stopped, the other cases are not tried."""
    answers: list[_Answer] = []
    for case in cases:
        if answers and isinstance(answers[-1].error, PatienceError):
            answers.append(_Answer(case, error=answers[-1].error))
        else:
            answers.append(_try(f, case, _PATIENCE))
    return answers


def _try(f: Callable, case: Case, seconds: float | None = None) -> _Answer:
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    answer = _Answer(case)
    if isinstance(case, tuple):
        try:
            answer.arguments = copy.deepcopy(case)
        except TypeError as error:
            raise ValueError(f"the case {case!r} cannot be copied ({error}): make it a probe(f)") from error

    def call() -> Any:
        result = f(*answer.arguments) if isinstance(case, tuple) else case(f)
        return list(itertools.islice(result, 10_000)) if isinstance(result, types.GeneratorType) else result

    try:
        answer.result = patience(seconds, call) if seconds else call()
    except (Exception, SystemExit) as error:  # a reader's code may raise anything; Ctrl-C is no Exception and passes
        answer.error = error
    return answer


def _try_reference(exercise: Exercise, case: Case) -> _Answer:
    answer = _try(exercise.reference, case)
    refused = isinstance(answer.error, ValueError | TypeError) and not _misfit(exercise.reference, case)
    if answer.error is not None and not refused:
        raise ValueError(f"{exercise.name}: the reference itself fails on {case!r}: {answer.error!r}") from answer.error
    return answer


@contextlib.contextmanager
def _laboratory() -> Iterator[None]:
    """Calls inside neither warn nor move the random state of the notebook."""
    states = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    torch_state = torch.get_rng_state() if torch else None
    cuda_states = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else None
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if torch and torch_state is not None:
            torch.set_rng_state(torch_state)
        if torch and cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)


# --- an untouched stub ---

# What the body of a stub compiles to: a constant that is returned, or NotImplementedError that is raised.
_STUB_STEPS = {
    *("RESUME", "NOP", "CACHE", "PUSH_NULL", "PRECALL", "CALL"),
    *("LOAD_GLOBAL", "LOAD_CONST", "RAISE_VARARGS", "RETURN_VALUE", "RETURN_CONST"),
}


def _is_stub(f: Any) -> bool:
    """Whether a body is only a docstring and `...`, `pass` or `raise NotImplementedError(...)`; of a class: all bodies.

    Read from the byte code, since not every host can show the source of a cell.
    """
    codes = _codes(f)
    if isinstance(f, type):
        values = [name for name, member in vars(f).items() if not name.startswith("__") and not _codes(member)]
        return not values and all(_is_stub_code(code) for code in codes)
    return bool(codes) and all(_is_stub_code(code) for code in codes)


def _is_stub_code(code: types.CodeType) -> bool:
    steps = list(dis.get_instructions(code))
    if any(step.opname not in _STUB_STEPS for step in steps):
        return False
    names = {step.argval for step in steps if step.opname == "LOAD_GLOBAL"}
    if any(step.opname == "RAISE_VARARGS" for step in steps):
        return names == {"NotImplementedError"}
    constants = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return not names and all(value is None or value is ... for value in constants)


def _codes(f: Any) -> list[types.CodeType]:
    """The code objects that are the reader's own: of a function, or of all methods that a class defines."""
    if isinstance(f, type):
        members = [member for name, member in vars(f).items() if not name.startswith("__annot")]
        return [code for member in members if not isinstance(member, type) for code in _codes(member)]
    if isinstance(f, functools.partial):
        return _codes(f.func)
    if isinstance(f, property):
        return [code for part in (f.fget, f.fset) if part for code in _codes(part)]
    f = getattr(f, "__func__", f)
    code = getattr(inspect.unwrap(f) if callable(f) else f, "__code__", None)
    return [code] if isinstance(code, types.CodeType) else []


def _is_unfinished(f: Callable, mine: list[_Answer], faults: list[str]) -> bool:
    """Whether each fault is a `raise NotImplementedError` in the reader's own body, not in something that it calls.

    Where only some cases end there, it must be the whole body of a method: a branch left open is a fault like others.
    """
    ends = [_unfinished_at(f, answer) for answer, fault in zip(mine, faults, strict=True) if fault]
    return None not in ends and (all(faults) or all(_is_stub_code(code) for code in ends if code))


def _unfinished_at(f: Callable, answer: _Answer) -> types.CodeType | None:
    if type(answer.error) is not NotImplementedError:
        return None
    *_, (last, _line) = traceback.walk_tb(answer.error.__traceback__)
    return last.f_code if last.f_code in _codes(f) else None


# --- what is wrong, in plain words ---


def _fault(f: Callable, name: str, mine: _Answer, right: _Answer, tolerance: float) -> str:
    """What is wrong with one answer; empty where nothing is."""
    if right.error is not None:
        kind = type(right.error).__name__
        if mine.error is None:
            return f"it returned {short(mine.result)}, but should refuse this with a {kind}: {right.error}"
        if not isinstance(mine.error, type(right.error)) or _misfit(f, mine.case):
            return f"it should refuse this with a {kind}, but {_raised(f, name, mine)}"
        return ""
    if mine.error is not None:
        return _raised(f, name, mine)
    found = difference(mine.result, right.result, tolerance)
    changed = _changed_arguments(mine, right, tolerance)
    if found and changed:
        return f"{found}. Also, {changed}"
    return found or (f"the result is right, but {changed}" if changed else "")


def _changed_arguments(mine: _Answer, right: _Answer, tolerance: float) -> str:
    """Which argument the call left otherwise than the reference did."""
    if not isinstance(mine.case, tuple):
        return ""
    for i, (after, meant, before) in enumerate(zip(mine.arguments, right.arguments, mine.case, strict=True), 1):
        if difference(meant, before, 0.0):  # changing it is part of the task
            found = difference(after, meant, tolerance, f"argument {i} after the call")
        else:
            found = difference(after, before, 0.0)
            found = found and f"it changes its input: argument {i} was {short(before)} and is now {short(after)}"
            found = found and f"{found}; work on a copy"
        if found:
            return found
    return ""


def _diagnosis(exercise: Exercise, mine: list[_Answer], right: list[_Answer], faults: list[str]) -> str:
    """The first wrong case, what is wrong there, and why that may be."""
    first = next(i for i, fault in enumerate(faults) if fault)
    words = [f"{_called(exercise.name, exercise.cases[first])}:", faults[first]]
    a, b = mine[first], right[first]
    if a.error is None and b.error is None and "expected" in faults[first]:
        shown = short(a.result), short(b.result)
        if max(map(len, shown)) <= 100 and any(value not in faults[first] for value in shown):
            words.append(f"yours {shown[0]}, expected {shown[1]}")
    known = cause = _known_mistake(exercise, mine, first)
    if not known and a.error is None and b.error is None:
        both = zip(mine, right, strict=True)
        trials = [(m.result, r.result, m.case) for m, r in both if m.error is None and r.error is None]
        with contextlib.suppress(ArithmeticError, TypeError, ValueError):  # numbers too odd to reason about: no guess
            cause = likely_cause((a.result, b.result, a.case), trials, exercise.tolerance)
    if cause:
        words.append(f"Likely cause: {cause}")
    if exercise.hint and not known:
        words.append(f"Hint: {exercise.hint}")
    return "\n  ".join(words)


def _known_mistake(exercise: Exercise, mine: list[_Answer], first: int) -> str:
    """The sentence of the mistake that answers as the reader does: in all cases, or else in the first wrong one.

    Where several agree in the first wrong case, the one that agrees in the most cases speaks.
    """
    partly, most = "", 0
    for mistake in exercise.mistakes:
        theirs = [_try(mistake.does, case) for case in exercise.cases]
        alike = [_alike(a, b, exercise.tolerance) for a, b in zip(mine, theirs, strict=True)]
        if all(alike):
            return mistake.says
        if alike[first] and sum(alike) > most:
            partly, most = mistake.says, sum(alike)
    return partly


def _alike(a: _Answer, b: _Answer, tolerance: float) -> bool:
    if a.error is not None or b.error is not None:
        return type(a.error) is type(b.error) and str(a.error) == str(b.error)
    return not difference(a.result, b.result, tolerance) and not difference(a.arguments, b.arguments, tolerance)


def _called(name: str, case: Case) -> str:
    if isinstance(case, tuple):
        return f"{name}({', '.join(short(argument) for argument in case)})"
    said = inspect.getdoc(case) or getattr(case, "__name__", type(case).__name__).strip("_").replace("_", " ")
    return said.splitlines()[0].rstrip(".:")


def _raised(f: Callable, name: str, answer: _Answer) -> str:
    """The error in words, with the last line of the reader's own code on the way to it."""
    error, line = answer.error, _line(f, answer)
    misfit = _misfit(f, answer.case)
    if misfit:
        return f"{name} is called with {misfit}"
    if _unfinished_at(f, answer):
        return f"this case is still open: it reaches `raise NotImplementedError`{line}"
    if isinstance(error, AssertionError) and not isinstance(answer.case, tuple) and not line:
        return str(error)  # the probe's own finding, after the reader's code had ended
    if isinstance(error, PatienceError):
        return f"it was {error}{line}. Does its loop ever end? Something in it must change on every way through"
    if isinstance(error, RecursionError):
        return f"it calls itself without end (RecursionError){line}: when should it stop?"
    return f"it raised {type(error).__name__}: {error}".rstrip(": ,") + line


def _line(f: Callable, answer: _Answer) -> str:
    files = {code.co_filename for code in _codes(f)}
    steps = traceback.walk_tb(answer.error.__traceback__) if answer.error else ()
    own = [(frame, number) for frame, number in steps if frame.f_code.co_filename in files]
    if not own:
        return ""
    frame, number = own[-1]
    source = linecache.getline(frame.f_code.co_filename, number, frame.f_globals).strip()
    return f", at line {number}" + (f": `{source}`" if source else "")


def _misfit(f: Callable, case: Case) -> str:
    """Why f cannot be called with the arguments of a case; empty where it can."""
    if not isinstance(case, tuple):
        return ""
    try:
        signature = inspect.signature(f)
    except (ValueError, TypeError):  # some built-in functions have no signature
        return ""
    try:
        signature.bind(*case)
    except TypeError as error:
        return f"{len(case)} argument{'s' * (len(case) != 1)}, but yours is defined as {signature}: {error}"
    return ""
