"""`check` gives three answers, and each wrong one its diagnosis; every planted fault here must be named."""

import contextlib
import functools
import math
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from glassbox import checking
from glassbox.checking import Exercise, ExerciseError, Finding, Mistake, check, ledger
from glassbox.comparing import difference, likely_cause, short
from glassbox.patience import PatienceError, patience

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_LEDGER", {})
    monkeypatch.delenv("GLASSBOX_STRICT", raising=False)


def mean(x: Any) -> Any:
    return x.mean(axis=1, keepdims=True)


ROWS = np.array([[1.0, 2.0, 3.0], [5.0, 7.0, 9.0]])
HALF = np.array([[0.5], [0.0]])
SQUARE = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 10.0]])


def said(capsys: pytest.CaptureFixture[str], f: Any, reference: Any, cases: Any = None, **more: Any) -> str:
    """What check prints; it must return f exactly where it says that f is right."""
    result = check(f, reference, cases, **more)
    text = capsys.readouterr().out
    own = reference.reference if isinstance(reference, Exercise) else reference
    assert result is (f if text.startswith("✓") else own)
    return text


# --- the three answers ---


def stub_docstring_and_raise(x):
    """Docstring."""
    raise NotImplementedError


def stub_with_message(x):
    raise NotImplementedError("write this")


def stub_dots(x):
    """Docstring."""
    ...


def stub_pass(x):
    pass


def stub_docstring_only(x):
    """Docstring."""


def stub_defaults(x, axis=-1, *, keep=True):
    raise NotImplementedError()


class StubClass:
    """Docstring."""

    def __init__(self, n):
        raise NotImplementedError

    @property
    def size(self):
        raise NotImplementedError

    @staticmethod
    def make(n): ...


class StubEmptyClass:
    """Docstring."""


STUBS = [
    stub_docstring_and_raise,
    stub_with_message,
    stub_dots,
    stub_pass,
    stub_docstring_only,
    stub_defaults,
    lambda x: ...,
    lambda x: None,
    StubClass,
    StubEmptyClass,
    functools.lru_cache(stub_dots),
    functools.partial(stub_defaults, axis=0),
    ...,
]


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: getattr(stub, "__name__", type(stub).__name__))
def test_untouched_stub(stub: Any, capsys, monkeypatch) -> None:
    monkeypatch.setenv("GLASSBOX_STRICT", "1")
    text = said(capsys, stub, mean, [(ROWS,)], hint="Sum, then divide.")
    assert text == "○ mean: not attempted yet, the course's own goes on; a hint is folded below.\n"


def helper_that_is_open(x):
    raise NotImplementedError


def calls_an_open_helper(x):
    return helper_that_is_open(x)


def branch_left_open(x):
    if len(x) > 2:
        raise NotImplementedError
    return mean(x)


def returns_zero(x):
    return 0


class HasOnlyValues:
    n = 3


@pytest.mark.parametrize("f", [calls_an_open_helper, branch_left_open, returns_zero, HasOnlyValues])
def test_an_attempt_is_no_stub(f: Any, capsys) -> None:
    assert said(capsys, f, mean, [(ROWS,), (SQUARE,)]).startswith("✗ mean")


def test_open_branch_is_named_with_its_line(capsys) -> None:
    text = said(capsys, branch_left_open, mean, [(ROWS,), (SQUARE,)])
    assert "right on 1 of 2 cases" in text
    assert "this case is still open: it reaches `raise NotImplementedError`, at line" in text
    assert "it raised NotImplementedError, at line" in said(capsys, calls_an_open_helper, mean, [(ROWS,)])


def test_stub_with_lines_given(capsys) -> None:
    def begun(x):
        total = x.sum(axis=1, keepdims=True)
        raise NotImplementedError(f"divide {total}")

    assert said(capsys, begun, mean, [(ROWS,), (SQUARE,)]).startswith("○ mean: right on 0 of 2 cases, not finished")


def test_right_answer_is_handed_back(capsys) -> None:
    def mine(x):
        return x.sum(axis=1, keepdims=True) / x.shape[1]

    assert said(capsys, mine, mean, [(ROWS,), (SQUARE,)]) == (
        "✓ mean: right on all 2 cases. From here on the notebook uses yours.\n"
    )
    assert said(capsys, mine, mean, [(ROWS,)], name="average").startswith("✓ average: right on its one case.")


def test_reference_itself_is_not_the_readers(capsys) -> None:
    assert said(capsys, mean, mean, [(ROWS,)]) == "○ mean: this is the course's own, right on its one case.\n"


def test_wrong_answer_stops_only_in_strict_mode(capsys, monkeypatch) -> None:
    text = said(capsys, lambda x: x, mean, [(ROWS,)])
    assert "The notebook goes on with the course's own" in text
    monkeypatch.setenv("GLASSBOX_STRICT", "1")
    with pytest.raises(ExerciseError, match=r"✗ mean: right on 0 of 1 cases"):
        check(lambda x: x, mean, [(ROWS,)])
    check(lambda x: x.sum(1, keepdims=True) / x.shape[1], mean, [(ROWS,)])


def test_ledger(capsys) -> None:
    ledger()
    assert capsys.readouterr().out == "No exercise has been checked in this session yet.\n"
    for name, f in [("a", lambda x: mean(x)), ("b", lambda x: x), ("c", stub_pass), ("d", lambda x: mean(x))]:
        check(f, mean, [(ROWS,)], name=name)
    capsys.readouterr()
    ledger()
    assert capsys.readouterr().out == "2 of 4 parts are yours: a, d.\nStill the course's own: b, c.\n"
    check(lambda x: x, mean, [(ROWS,)], name="a")
    capsys.readouterr()
    ledger()
    assert capsys.readouterr().out.startswith("1 of 4 parts are yours: d.")


# --- diagnoses of functions ---


def changes_input(x):
    x -= 1
    return mean(x) + 1


def endless(x):
    return endless(x)


def raises(x):
    y = x + np.zeros(7)
    return y


DIAGNOSES = {
    "no return": (lambda x: None if x is None else print(end=""), "your result is None: did you forget `return`?"),
    "raises": (
        raises,
        "it raised ValueError: operands could not be broadcast together with shapes (2,3) (7,), at line",
    ),
    "its line": (raises, "`y = x + np.zeros(7)`"),
    "endless": (endless, "it calls itself without end (RecursionError), at line"),
    "arguments": (lambda x, axis: x, "called with 1 argument, but yours is defined as (x, axis): missing a required"),
    "no arguments": (lambda: 3, "called with 1 argument, but yours is defined as (): too many positional arguments"),
    "shape": (lambda x: x.mean(axis=1), "your result has shape (2,), expected (2, 1)"),
    "keepdims": (lambda x: x.mean(axis=1), "an axis of length 1 is lost: keepdims=True"),
    "other shape": (lambda x: np.zeros((3, 4)), "your result has shape (3, 4), expected (2, 1)"),
    "nan": (lambda x: mean(x) * np.array([[1], [np.nan]]), "has NaN at [1, 0] (1 of 2 values), expected 7 there"),
    "inf": (lambda x: mean(x) + np.array([[np.inf], [0]]), "has inf at [0, 0] (1 of 2 values), expected 2 there"),
    "dtype": (lambda x: mean(x).astype(int), "your result has dtype int64, expected float64"),
    "float32": (lambda x: mean(x).astype(np.float32), "your result has dtype float32, expected float64"),
    "values": (lambda x: mean(x) + HALF, "1 of 2 values differ, most at [0, 0]: 2.5, expected 2"),
    "close": (lambda x: mean(x) + HALF / 50_000, "most at [0, 0]: 2.00001, expected 2"),
    "whole result": (lambda x: mean(x) + HALF, "yours array([[2.5], [7. ]]), expected array([[2.], [7.]])"),
    "factor": (lambda x: mean(x) * math.pi, "off by a constant factor 3.142."),
    "sum": (lambda x: x.sum(1, keepdims=True), "factor 3: n = 3, the length of an axis: a sum in place of a mean?"),
    "n - 1": (lambda x: mean(x) * 1.5, "factor 1.5: n/(n-1) with n = 3: is one divided by n, and the other by n - 1?"),
    "root": (lambda x: mean(x) * math.sqrt(2 / 3), "the root of n/(n-1) with n = 3"),
    "log base": (lambda x: mean(x) / math.log(2), "ln 2: are natural and binary logarithms mixed?"),
    "sign": (lambda x: -mean(x), "it differs by a sign"),
    "offset": (lambda x: mean(x) - 0.25, "off by a constant: yours is 0.25 too low everywhere"),
    "zero": (lambda x: 0 * mean(x), "it is zero everywhere"),
    "list": (lambda x: [1, 2], "your result is a list, [1, 2], expected a numpy array"),
    "tensor": (lambda x: torch.tensor(mean(x)), "your result is a torch tensor, expected a numpy array"),
    "input": (changes_input, "the result is right, but it changes its input: argument 1 was array([[1., 2., 3.], [5."),
    "no function": (mean(ROWS), "is array([[2.], [7.]]), not a function: has another line reused its name?"),
    "shown": (lambda x: mean(x) + 1j, "mean(array([[1., 2., 3.], [5., 7., 9.]])):"),
}


def test_no_cause_is_made_up_for_a_dtype(capsys) -> None:
    for f in (lambda x: mean(x).astype(int), lambda x: mean(x).astype(np.float32)):
        assert "cause" not in said(capsys, f, mean, [(ROWS,)])


@pytest.mark.parametrize("fault", DIAGNOSES)
def test_diagnosis(fault: str, capsys) -> None:
    f, says = DIAGNOSES[fault]
    text = said(capsys, f, mean, [(ROWS,)])
    assert text.startswith("✗ mean: ")
    assert says in text


def test_a_probe_may_say_in_words_what_it_did_not_find(capsys) -> None:
    def probe(f):
        """the list after a call"""
        found = []
        f(found)
        assert found, "nothing was appended"
        return found

    mine = eval(compile("lambda found: found.clear()", "a cell of the reader's", "eval"))
    text = said(capsys, mine, lambda found: found.append(1), [probe])
    assert "the list after a call:\n  nothing was appended\n" in text


def test_an_error_is_a_known_mistake_only_with_the_same_words(capsys) -> None:
    known = Mistake(lambda x: [][5], says="You read past the end.")
    assert known.says in said(capsys, lambda x: [][7], mean, [(ROWS,)], mistakes=[known])
    assert known.says not in said(capsys, lambda x: ()[len(x)], mean, [(ROWS,)], mistakes=[known])


ORDERS = {
    "transposed": (lambda x: x.T, lambda x: x * 1.0, [(SQUARE,)], "it is transposed."),
    "transposed shape": (lambda x: x.T, lambda x: x * 1.0, [(ROWS,)], "it is transposed."),
    "axes": (
        lambda x: x.transpose(2, 0, 1),
        lambda x: x * 1.0,
        [(np.arange(24.0).reshape(2, 3, 4),)],
        "its axes are in another order: transpose((1, 2, 0)) mends it",
    ),
    "view": (
        lambda x: x.reshape(2, 2, 3),
        lambda x: x.reshape(2, 3, 2).swapaxes(1, 2),
        [(np.arange(12.0).reshape(2, 6),)],
        "in wrong places: was reshape used where transpose was meant?",
    ),
    "flat": (lambda x: x.ravel(), lambda x: x * 1.0, [(ROWS,)], "only the shape is not: see reshape"),
    "backwards": (lambda x: x[::-1], lambda x: x * 1.0, [(np.arange(4.0),)], "it runs backwards along axis 0"),
    "sum of a list": (sum, lambda x: sum(x) / len(x), [([1.0, 3.0],), ([2.0, 5.0, 8.0],)], "a sum in place of a mean?"),
    "sign of numbers": (lambda x: -x, lambda x: x, [(2.0,), (5.0,)], "it differs by a sign"),
    "offset of numbers": (lambda x: x + 1, lambda x: x, [(2.0,), (5.0,)], "yours is 1 too high everywhere"),
    "inside a tuple": (lambda x: (x, -x), lambda x: (x, x * 1.0), [(ROWS,)], "it differs by a sign"),
    "inside a list": (lambda x: [1.0, 2.0], lambda x: [2.0, 4.0], [(1,)], "off by a constant factor 0.5"),
}


@pytest.mark.parametrize("fault", ORDERS)
def test_likely_cause(fault: str, capsys) -> None:
    f, reference, cases, says = ORDERS[fault]
    assert says in said(capsys, f, reference, cases)


@pytest.mark.parametrize(
    ("mine", "right"),
    [
        (np.array([1.0, 2.0, 4.1]), np.array([2.0, 4.0, 8.0])),
        (np.array([1.0, 2.0, 0.5]), np.array([2.0, 4.0, 0.0])),
        (np.array([3.0, 1.0, 2.0, 9.0]), np.array([1.0, 2.0, 3.0, 4.0])),
        (np.array([2.0, 1.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0])),
        (np.array([np.nan, 1.0]), np.array([2.0, 2.0])),
        (np.array([0.9001, 2.1001]), np.array([0.9, 2.1])),
        ("a", "b"),
        (np.array(["a", "b"]), np.array(["b", "a"])),
        (3.0, 4.0),
    ],
)
def test_no_cause_is_made_up(mine: Any, right: Any) -> None:
    assert likely_cause((mine, right, ()), [(mine, right, ())]) == ""


def test_several_cases_name_the_first_wrong_one(capsys) -> None:
    text = said(capsys, lambda x: abs(x), lambda x: x, [(1.0,), (-2.0,), (-3.0,)], name="same", hint="Keep it.")
    assert text.splitlines()[:2] == ["✗ same: right on 1 of 3 cases. same(-2):", "  your result is 2, expected -2"]
    assert "Hint: Keep it." in text


def test_known_mistake_speaks_first(capsys) -> None:
    exercise = Exercise(
        "mean",
        mean,
        [(ROWS,), (SQUARE,)],
        [
            Mistake(lambda x: x.sum(1, keepdims=True), "Divide by the length of the row."),
            Mistake(lambda x: x.mean(0, keepdims=True), "That is the other axis."),
            Mistake(raises, "Look at the shapes."),
            Mistake(changes_input, "Work on a copy."),
        ],
        "Sum, then divide.",
    )
    for mistake in exercise.mistakes:
        text = said(capsys, mistake.does, exercise)
        assert f"Likely cause: {mistake.says}" in text
        assert "Hint" not in text
    for other in (lambda x: mean(x) * 7, lambda x: mean(x).T):
        text = said(capsys, other, exercise)
        assert not any(mistake.says in text for mistake in exercise.mistakes)
        assert "Hint: Sum, then divide." in text


def test_mistake_that_fits_all_cases_goes_before_one_that_fits_the_first(capsys) -> None:
    mistakes = [Mistake(lambda x: 0 if x < 3 else 5, "only first"), Mistake(lambda x: 0, "all")]
    assert "Likely cause: all" in said(capsys, lambda x: 0, lambda x: x, [(1,), (4,)], mistakes=mistakes, name="f")
    assert "Likely cause: only first" in said(
        capsys, lambda x: 0 if x < 3 else 9, lambda x: x, [(1,), (4,)], mistakes=mistakes, name="f"
    )


def test_mistake_that_changes_its_input_is_not_one_that_does_not(capsys) -> None:
    def empties(x):
        x.clear()
        return 0

    mistakes = [Mistake(empties, "Leave the list alone.")]
    assert "Leave the list alone." not in said(capsys, lambda x: 0, len, [([1, 2],)], mistakes=mistakes)
    assert "Leave the list alone." in said(capsys, lambda x: x.clear() or 0, len, [([1, 2],)], mistakes=mistakes)


def test_error_inside_a_readers_helper_names_the_line_of_the_helper(capsys) -> None:
    def inverse(x):
        return 1 / (x - x)

    def outer(x):
        return 2 * inverse(x)

    text = said(capsys, outer, lambda x: 2 / x, [(1.0,)], name="f")
    assert "it raised ZeroDivisionError: " in text
    assert "`return 1 / (x - x)`" in text


# --- refusals, changed arguments, chance ---


def test_a_case_that_must_be_refused(capsys) -> None:
    def root(x):
        if x < 0:
            raise ValueError(f"x must be 0 or more, not {x}")
        return math.sqrt(x)

    def refuses_alike(x):
        if x < 0:
            raise ValueError("no")
        return x**0.5

    cases = [(4.0,), (-1.0,)]
    assert said(capsys, refuses_alike, root, cases).startswith("✓")
    text = said(capsys, lambda x: abs(x) ** 0.5, root, cases)
    assert "it returned 1, but should refuse this with a ValueError: x must be 0 or more, not -1.0" in text
    text = said(capsys, lambda x: x**0.5 if x > 0 else [][0], root, cases)
    assert "it should refuse this with a ValueError, but it raised IndexError: list index out of range" in text


def test_a_task_that_changes_its_argument(capsys) -> None:
    def double(x):
        x *= 2

    def rebinds(x):
        x = x * 2

    assert said(capsys, lambda x: x.__imul__(2) is None or None, double, [(ROWS,)]).startswith("✓")
    assert "argument 1 after the call: 6 of 6 values differ" in said(capsys, rebinds, double, [(ROWS,)])


def test_arguments_of_one_call_do_not_reach_another(capsys) -> None:
    data = [1, 2]

    def greedy(x):
        x.append(9)
        return len(x)

    assert "changes its input: argument 1 was [1, 2] and is now [1, 2, 9]" in said(capsys, greedy, len, [(data,)])
    assert data == [1, 2]


def test_unknown_objects_as_arguments(capsys) -> None:
    rng = np.random.default_rng(0)
    assert said(capsys, lambda r: r.normal(size=3), lambda r: r.normal(size=3), [(rng,)], name="draw").startswith("✓")


def test_chance_is_the_same_for_both_and_stays_as_it_was(capsys) -> None:
    def draw():
        return random.random() + np.random.rand() + torch.rand(1).item()

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    assert said(capsys, lambda: draw(), draw, [(), ()]).startswith("✓")
    assert draw() == expected


def test_warnings_of_a_readers_code_are_held_back(capsys) -> None:
    def noisy(x):
        warnings.warn("careful", stacklevel=1)
        return np.log(np.zeros(1)) + x

    assert "has -inf at [0]" in said(capsys, noisy, lambda x: np.zeros(1), [(1.0,)])


def test_ctrl_c_passes_through() -> None:
    def stopped(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(stopped, mean, [(ROWS,)])


def test_generators_are_read_out(capsys) -> None:
    def count(n):
        yield from range(n)

    def upwards(n):
        i = 0
        while True:
            yield i
            i += 1

    assert said(capsys, lambda n: (i for i in range(n)), count, [(3,)]).startswith("✓")
    assert "has 10000 items, expected 3" in said(capsys, upwards, count, [(3,)])


# --- probes and classes ---


class Counter:
    def __init__(self, start=0):
        self.value = start

    def step(self):
        self.value += 1
        return self


def counts_up(cls):
    """Two steps from 5 make 7."""
    return cls(5).step().step().value


def starts_at_zero(cls):
    return cls().value


class OpenCounter:
    def __init__(self, start=0):
        self.value = start

    def step(self):
        """Docstring."""
        raise NotImplementedError


class StuckCounter(Counter):
    def step(self):
        self.value = 1
        return self


class MyCounter:
    def __init__(self, start=0):
        self.value = start

    def step(self):
        self.value = self.value + 1
        return self


def test_class_exercise(capsys) -> None:
    exercise = Exercise("Counter", Counter, [starts_at_zero, counts_up], [Mistake(StuckCounter, "Add to the old.")])
    assert said(capsys, MyCounter, exercise).startswith("✓ Counter")
    text = said(capsys, StuckCounter, exercise)
    assert "Two steps from 5 make 7:\n  your result is 1, expected 7\n  Likely cause: Add to the old." in text
    assert said(capsys, OpenCounter, exercise).startswith("○ Counter: right on 1 of 2 cases, not finished")
    assert "starts at zero:\n  it raised TypeError" in said(capsys, lambda n: 3, exercise)


# --- results of every kind ---


class Engine:
    """As the Tensor of module 00: an array and its gradient."""

    def __init__(self, data, grad=None):
        self.data, self.grad = np.asarray(data, dtype=float), grad


@dataclass
class Point:
    x: float
    y: Any


FALSE_FRIENDS = [
    (1.0, 1, "dtype float (1), expected int"),
    (1, True, "dtype int (1), expected bool"),
    (0, None, "your result is a number, 0, expected None"),
    ("a", "b", "your result is 'a', expected 'b'"),
    (b"a", "a", "your result is a bytes, b'a', expected a str, 'a'"),
    ([1, 2], (1, 2), "your result is a list, [1, 2], expected a tuple, (1, 2)"),
    ([1, 2], [1, 2, 3], "your result has 2 items, expected 3"),
    ([1, [2, 3]], [1, [2, 4]], "your result[1][1] is 3, expected 4"),
    ({"a": 1}, {"b": 1}, "your result lacks the keys ['b'] and has the keys ['a'] too many"),
    ({"a": [1.0]}, {"a": [2.0]}, "your result['a'][0] is 1, expected 2"),
    ({1, 2}, {1, 3}, "your result is {1, 2}, expected {1, 3}"),
    (Engine([1.0], np.ones(1)), Engine([1.0], np.zeros(1)), "your result.grad: 1 of 1 values differ, most at [0]: 1"),
    (Engine([1.0]), Engine([1.0], np.zeros(1)), "your result.grad is None"),
    (np.ones(1), Engine([1.0]), "your result is a numpy array, expected a Tensor"),
    (Point(1, np.ones(2)), Point(1, np.ones(3)), "your result.y has shape (2,), expected (3,)"),
    (10**30, 10**30 + 1, "expected 1000000000000000000000000000001"),
    (np.zeros(3), np.full(3, 1e-9), "3 of 3 values differ, most at [0]: 0, expected 1e-09"),
    (np.array([1e9, 1.0]), np.array([1e9, 1.1]), "1 of 2 values differ, most at [1]: 1, expected 1.1"),
    (np.array([1, 2]), np.array([1, 3]), "most at [1]: 2, expected 3"),
    (np.array([10**9]), np.array([10**9 + 1]), "most at [0]: 1000000000, expected 1000000001"),
    (np.array([True]), np.array([False]), "most at [0]: True, expected False"),
    (np.array(["a"]), np.array(["b"]), "your result is array(['a']), expected array(['b'])"),
    (np.array([1.0, 5.0]), np.array([1.0, -np.inf]), "your result lacks -inf at [1] (1 of 2 values), expected -inf"),
    (np.array([1j]), np.array([2j]), "1 of 1 values differ"),
    (torch.ones(2), torch.ones(2, dtype=torch.float64), "dtype float32, expected float64"),
    (torch.ones(2), torch.zeros(2), "2 of 2 values differ"),
    (torch.ones(1, 2), torch.ones(2, 1), "shape (1, 2), expected (2, 1)"),
    (1.0, torch.tensor(1.0), "your result is a number, 1, expected a torch tensor"),
]


@pytest.mark.parametrize(("mine", "right", "says"), FALSE_FRIENDS, ids=[says for _, _, says in FALSE_FRIENDS])
def test_difference(mine: Any, right: Any, says: str) -> None:
    assert says in (difference(mine, right, 1e-6) or "")


SAME = [
    (1, 1.0),
    (np.float64(2.0), 2.0),
    (np.array(2.0), 2.0),
    (np.int32(4), 4),
    (True, np.True_),
    (None, None),
    ((1, [2.0, {"a": "b"}]), (1, [2.0 + 1e-9, {"a": "b"}])),
    (np.array([1, 2], dtype=np.int32), np.array([1, 2], dtype=np.int64)),
    (np.array([1.0, np.nan, -np.inf]), np.array([1.0 + 1e-8, np.nan, -np.inf])),
    (np.array([1.0, 1e-12]), np.array([1.0, 0.0])),
    (np.zeros((0, 3)), np.zeros((0, 3))),
    (np.array([0.1, 0.7], np.float32) * np.float32(3), np.array([0.3, 2.1], np.float32)),
    (np.array([1.0], np.float32), np.array([1.000003], np.float32)),
    (Engine([1.0], np.ones(1)), Engine([1.0], np.ones(1))),
    (Point(1, np.ones(2)), Point(1, np.ones(2))),
    (torch.ones(2, requires_grad=True), torch.ones(2)),
    (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    (10**400, 10**400),
]


@pytest.mark.parametrize(("mine", "right"), SAME, ids=[str(i) for i in range(len(SAME))])
def test_no_difference(mine: Any, right: Any) -> None:
    assert difference(mine, right, 1e-6) is None


def test_tolerance_zero_is_exact() -> None:
    assert difference(np.array([1.0], np.float32), np.array([1.0000001], np.float32), 0.0)
    assert difference(1.0, 1.0 + 2**-52, 0.0)


def test_short() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

    assert short(np.zeros((30, 40))) == "array of shape (30, 40)"
    assert short(torch.zeros(64, 64)) == "tensor of shape (64, 64)"
    assert short((1,)) == "(1,)"
    assert short(list(range(50))).endswith(", 15, ...]")
    assert len(short("x" * 500)) <= 72
    assert short(mean) == "mean"
    assert short(Shy()) == "<Shy>"


# --- an ill-made exercise ---


@pytest.mark.parametrize(
    ("arguments", "more", "kind", "says"),
    [
        ((mean,), {}, ValueError, "at least one case"),
        ((mean, []), {}, ValueError, "at least one case"),
        ((mean, "ab"), {}, ValueError, "at least one case"),
        ((mean, [ROWS]), {}, TypeError, "a tuple of arguments or a probe"),
        ((3, [(ROWS,)]), {}, TypeError, "must be a function or class, not 3"),
        ((mean, [(ROWS,)]), {"mistakes": [mean]}, TypeError, "expected Mistake"),
        ((mean, [(ROWS,)]), {"tolerance": -1}, ValueError, "tolerance must be 0 or more, not -1"),
        ((mean, [(ROWS, 1, 2)]), {}, ValueError, "the reference itself fails"),
        ((lambda x: x.nothing, [(ROWS,)]), {}, ValueError, "the reference itself fails"),
        ((Exercise("mean", mean, [(ROWS,)]), [(ROWS,)]), {}, TypeError, "not both"),
        ((Exercise("mean", mean, [(ROWS,)]),), {"hint": "h"}, TypeError, "not both"),
    ],
)
def test_ill_made_exercise(arguments: tuple, more: dict, kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        check(lambda x: x, *arguments, **more)


def test_a_case_that_cannot_be_copied_is_the_authors_fault() -> None:
    with pytest.raises(ValueError, match=r"cannot be copied .*: make it a probe\(f\)"):
        check(lambda numbers: "rubbish", sum, [((i for i in range(3)),)])


def test_numbers_beyond_floats_are_compared_without_a_guess_at_the_cause(capsys: pytest.CaptureFixture) -> None:
    check(lambda n: 2**n, lambda n: 2**n + 1, [(2000,)], name="big")
    assert "✗ big" in capsys.readouterr().out


def test_of_two_mistakes_that_share_the_first_wrong_case_the_closer_one_speaks(
    capsys: pytest.CaptureFixture,
) -> None:
    reference, cases = (lambda x: x * x), [(1,), (2,), (3,), (4,)]
    mistakes = (
        Mistake(lambda x: 4 if x == 1 else -x, "the one that agrees once"),
        Mistake(lambda x: 4 if x == 1 else 2 * x, "the one that agrees three times"),
    )
    check(lambda x: 4 if x == 1 else (2 * x if x < 4 else 0), reference, cases, name="square", mistakes=mistakes)
    assert "the one that agrees three times" in capsys.readouterr().out


# --- endless loops ---


def never_ends(x: Any) -> Any:
    total = 0
    while total < 1:
        x = x + 0
    return x


def hides_the_stop(x: Any) -> Any:
    while True:
        try:
            x = x + 0
        except Exception:
            return x


@pytest.mark.parametrize("f", [never_ends, hides_the_stop])
def test_an_endless_loop_is_stopped_and_named(
    f: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "_PATIENCE", 0.2)
    tried = []

    def counted(x: Any) -> Any:
        tried.append(x)
        return f(x)

    text = said(capsys, counted, mean, [(ROWS,), (HALF,), (SQUARE,)])
    assert text.startswith("✗")
    assert "right on 0 of 3 cases" in text
    assert "still running after 0.2 seconds" in text
    assert "Does its loop ever end?" in text
    assert len(tried) == 1  # the other cases would only take as long again


def test_the_stopped_line_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_PATIENCE", 0.2)
    text = said(capsys, never_ends, mean, [(ROWS,)])
    assert "`x = x + 0`" in text or "`while total < 1:`" in text


def test_a_call_that_ends_in_time_is_never_stopped_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(200):
        with contextlib.suppress(PatienceError):
            patience(0.001, lambda: sum(range(3000)))
    for _ in range(20):  # a stop that was late would strike here
        sum(range(100_000))


def test_a_stop_never_escapes_as_another_exception() -> None:
    for limit in (0.0, 0.0005, 0.001, 0.002):
        for _ in range(100):
            with contextlib.suppress(PatienceError):
                patience(limit, lambda: sum(range(20_000)))


def test_the_limit_within_a_limit_leaves_the_outer_one() -> None:
    def slow() -> None:
        while True:
            pass

    with pytest.raises(PatienceError, match=r"after 0\.2 seconds"):
        patience(0.2, lambda: patience(60, slow))


def test_an_answer_that_exits_is_only_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert "it raised SystemExit" in said(capsys, lambda x: exit(3), mean, [(ROWS,)])


def test_a_finding_is_one_value_wherever_it_stands() -> None:
    right, wrong = Finding("even"), Finding("odd", "3 is odd")
    assert difference([1, wrong], [1, right], 0.0) == "your result[1]: 3 is odd, expected: even"
    assert difference([wrong], [Finding("odd", "5 is odd")], 0.0) is None
    assert difference(wrong, (1, 2), 0.0) == "3 is odd, expected: (1, 2)"


def test_findings_of_one_sort_are_equal_whatever_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    def probe(f: Callable[[int], int]) -> Finding:
        return Finding("even") if f(3) % 2 == 0 else Finding("odd", f"f(3) is {f(3)}, which is odd")

    assert Finding("odd", "3") == Finding("odd", "5") != Finding("even", "3")
    known = Mistake(lambda x: x, says="Double it.")
    exercise = Exercise(name="double", reference=lambda x: 2 * x, cases=[probe], mistakes=[known])
    check(lambda x: 2 * x + 1, exercise)
    said = capsys.readouterr().out
    assert "\n  f(3) is 7, which is odd, expected: even\n" in said
    assert ".sort" not in said
    assert "Double it." in said  # 3 is another odd number, but of the same sort
