"""How two results are compared, and how their difference is put into words.

Knows numbers, text, lists, tuples, dictionaries, NumPy arrays, torch tensors, dataclasses, objects with `.data` and
`.grad` such as the Tensor of module 00, and what a probe found. Shape is compared first, then NaN and infinity, then
dtype, then values.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Finding", "difference", "likely_cause", "short"]

_NUMERIC = ("a number", "a numpy array", "a torch tensor")


@dataclass(frozen=True)
class Finding:
    """What a probe found out about an answer. Two findings are equal where they are of one sort.

    `shown` is what a reader sees of it, with the numbers of this very answer; where it is empty, the sort is shown.
    """

    sort: str
    shown: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return self.shown or self.sort


def difference(mine: Any, right: Any, tolerance: float, where: str = "your result") -> str | None:
    """What differs between a result and the expected one, as a clause in plain words; None where nothing does.

    tolerance: relative, and absolute below 1; never finer than the float type of the result can hold; 0 is exact.
    """
    if mine is right:
        return None
    if _kind(mine) == "None":
        return f"{where} is None: did you forget `return`?" if where == "your result" else f"{where} is None"
    if isinstance(mine, Finding) or isinstance(right, Finding):  # a sentence of its own, whatever it was found in
        place = "" if where == "your result" else f"{where}: "
        return None if mine == right else f"{place}{short(mine)}, expected: {short(right)}"
    kind = _kind(right)
    if _kind(mine) != kind:
        return f"{where} is {_named(mine)}, expected {_named(right)}"
    if kind in _NUMERIC:
        return _numbers_differ(mine, right, tolerance, where)
    if kind in ("a list", "a tuple"):
        if len(mine) != len(right):
            return f"{where} has {len(mine)} items, expected {len(right)}"
        pairs = enumerate(zip(mine, right, strict=True))
        return _first(difference(a, b, tolerance, f"{where}[{i}]") for i, (a, b) in pairs)
    if kind == "a dict":
        if mine.keys() != right.keys():
            missing, extra = [k for k in right if k not in mine], [k for k in mine if k not in right]
            said = [f"lacks the keys {short(missing)}"] * bool(missing)
            said += [f"has the keys {short(extra)} too many"] * bool(extra)
            return f"{where} {' and '.join(said)}"
        return _first(difference(mine[key], right[key], tolerance, f"{where}[{key!r}]") for key in right)
    fields = _fields(right)
    if fields is not None:
        values = ((getattr(mine, name, None), getattr(right, name)) for name in fields)
        return _first(
            difference(a, b, tolerance, f"{where}.{name}") for name, (a, b) in zip(fields, values, strict=True)
        )
    # Two objects that only know whether they are the same one cannot be compared: their kind has to do.
    if type(right).__eq__ is object.__eq__ or mine == right:
        return None
    return f"{where} is {short(mine)}, expected {short(right)}"


def _first(differences: Iterable[str | None]) -> str | None:
    return next((found for found in differences if found), None)


def _fields(value: Any) -> list[str] | None:
    """The attributes by which an object is compared."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value) if field.compare]
    return ["data", "grad"] if _kind(value) == "a Tensor" else None


def _is_torch(value: Any) -> bool:
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if _is_torch(value):
        return "a torch tensor"
    if isinstance(value, np.ndarray | np.generic | int | float | complex):
        return "a numpy array" if np.ndim(value) else "a number"
    for kind in (str, bytes, list, tuple, dict, set):
        if isinstance(value, kind):
            return f"a {kind.__name__}"
    if hasattr(value, "data") and hasattr(value, "grad"):
        return "a Tensor"
    return f"a {type(value).__name__}"


def _named(value: Any) -> str:
    kind = _kind(value)
    return kind if kind in ("None", "a numpy array", "a torch tensor", "a Tensor") else f"{kind}, {short(value)}"


# --- numbers and arrays ---


def _numbers_differ(mine: Any, right: Any, tolerance: float, where: str) -> str | None:
    whole = f"{where} is {short(mine)}, expected {short(right)}"
    if type(mine) is int and type(right) is int:  # exact, however large
        return None if mine == right else whole
    a, b = _array(mine), _array(right)
    if a.shape != b.shape:
        return f"{where} has shape {a.shape}, expected {b.shape}"
    if a.dtype.kind not in "biufc" or b.dtype.kind not in "biufc":  # arrays of text or of objects
        return None if np.array_equal(a, b) else whole
    for name, test in (("NaN", np.isnan), ("inf", _is_inf), ("-inf", _is_minus_inf)):
        wrong = test(a) != test(b)
        if wrong.any():
            said, many = ("has", test(a)) if test(a)[_worst(wrong)] else ("lacks", test(b))
            place = f" at {_place(wrong)} ({many.sum()} of {many.size} values)" if a.ndim else ""
            return f"{where} {said} {name}{place}, expected {_number(b[_worst(wrong)])}{' there' * bool(a.ndim)}"
    if not _same_dtype(mine, right):
        value = "" if a.ndim else f" ({short(mine)})"
        return f"{where} has dtype {_dtype(mine)}{value}, expected {_dtype(right)}"
    wrong = ~_close(a, b, _widened(tolerance, mine, right))
    if not wrong.any():
        return None
    if not a.ndim:
        return f"{where} is {_two_numbers(a[()], b[()])}"
    with np.errstate(all="ignore"):
        distance = np.where(wrong, np.abs(a.astype(np.result_type(a, np.float64)) - b), -1.0)
    values = _two_numbers(a[_worst(distance)], b[_worst(distance)])
    return f"{where}: {wrong.sum()} of {a.size} values differ, most at {_place(distance)}: {values}"


def _is_inf(x: np.ndarray) -> np.ndarray:
    return np.isinf(x) & (np.real(x) > 0)


def _is_minus_inf(x: np.ndarray) -> np.ndarray:
    return np.isinf(x) & (np.real(x) < 0)


def _array(value: Any) -> np.ndarray:
    if _is_torch(value):
        value = value.detach().cpu().resolve_conj().resolve_neg()
        return (value.double() if value.is_floating_point() else value).numpy()
    if type(value) is int and abs(value) >= 2**63:
        value = float(value) if abs(value) < 2**1023 else math.copysign(math.inf, value)
    return np.asarray(value)


def _dtype(value: Any) -> str:
    if _is_torch(value):
        return str(value.dtype).removeprefix("torch.")
    return type(value).__name__ if isinstance(value, bool | int | float | complex) else str(value.dtype)


def _same_dtype(mine: Any, right: Any) -> bool:
    """Kinds must agree, and in arrays the width of floats; an int may stand for a single float."""
    a, b = (_array(value).dtype.kind.replace("u", "i") for value in (mine, right))
    if _kind(right) == "a number":
        return a == b or (b in "fc" and a in "ifc")
    return a == b and (b not in "fc" or _dtype(mine) == _dtype(right))


def _widened(tolerance: float, *values: Any) -> float:
    """A tolerance that the coarsest float type among the values can meet; 0 stays exact."""
    steps = {"float32": 2**-23, "complex64": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}
    return tolerance and max(tolerance, *(16 * steps.get(_dtype(value), 0.0) for value in values))


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    """True where |a - b| <= tolerance * |b|, or tolerance times the size of b's largest entry where that is below 1.

    The second limit lets entries near zero differ by rounding, and yet tells an array of 1e-9s from zeros.
    """
    if a.dtype.kind in "biu" and b.dtype.kind in "biu":
        return np.asarray(a == b)
    sizes = np.abs(b[np.isfinite(b)])
    scale = min(1.0, float(sizes.max())) if sizes.any() else 1.0
    return np.isclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _worst(amount: np.ndarray) -> tuple:
    return np.unravel_index(int(amount.argmax()), amount.shape)


def _place(amount: np.ndarray) -> str:
    return f"[{', '.join(str(int(i)) for i in _worst(amount))}]"


def _number(value: Any, digits: int = 4) -> str:
    return f"{value:.{digits}g}" if isinstance(value, np.inexact) else str(value)


def _two_numbers(a: Any, b: Any) -> str:
    """Two numbers with as many digits as tell them apart."""
    digits = next((n for n in (4, 8) if _number(a, n) != _number(b, n)), 17)
    return f"{_number(a, digits)}, expected {_number(b, digits)}"


# --- likely causes ---

Trial = tuple[Any, Any, Any]  # a result, the expected one, and the arguments


def likely_cause(wrong: Trial, trials: list[Trial], tolerance: float = 1e-6) -> str:
    """A guess at why numbers are wrong: turned, scaled, shifted. Empty where nothing fits all of them.

    wrong: the case to explain; trials: all cases, of use where each gives but a single number.
    """
    pair = _wrong_numbers(wrong[0], wrong[1], tolerance)
    if pair is None or any(values.dtype.kind not in "biuf" for values in pair):
        return ""
    a, b = pair
    if a.shape == b.shape and _close(a, b, tolerance).all():  # only the dtype differs
        return ""
    if a.shape != b.shape or a.ndim:
        turned = _turned(a, b, tolerance)
        if turned or a.shape != b.shape:
            return turned
    if b.size > 1:
        return _scaled(a.astype(float), b.astype(float), [_sizes(wrong[2])], tolerance)
    single = [(x, y, _sizes(arguments)) for x, y, arguments in trials if _kind(x) == _kind(y) == "a number"]
    if not single:
        return ""
    mine, right, sizes = zip(*single, strict=True)
    return _scaled(np.array(mine, dtype=float), np.array(right, dtype=float), list(sizes), tolerance)


def _wrong_numbers(mine: Any, right: Any, tolerance: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The first pair of differing numbers or arrays inside two results of one structure."""
    kind = _kind(right)
    if _kind(mine) != kind or not difference(mine, right, tolerance):
        return None
    if kind in _NUMERIC:
        return _array(mine), _array(right)
    inside: Iterable[tuple[Any, Any]] = ()
    if kind in ("a list", "a tuple") and len(mine) == len(right):
        if all(isinstance(x, int | float) for x in (*mine, *right)):
            return np.array(mine, dtype=float), np.array(right, dtype=float)
        inside = zip(mine, right, strict=True)
    elif kind == "a dict" and mine.keys() == right.keys():
        inside = ((mine[key], right[key]) for key in right)
    elif _fields(right) is not None:
        inside = ((getattr(mine, name, None), getattr(right, name)) for name in _fields(right) or ())
    return _first_pair(_wrong_numbers(x, y, tolerance) for x, y in inside)


def _first_pair(pairs: Iterable[tuple[np.ndarray, np.ndarray] | None]) -> tuple[np.ndarray, np.ndarray] | None:
    return next((pair for pair in pairs if pair is not None), None)


def _sizes(arguments: Any) -> set[int]:
    """The lengths of all axes among a case's arguments: a factor between results may come from one of them."""
    found: set[int] = set()
    for value in arguments if isinstance(arguments, tuple) else ():
        value = value.data if _kind(value) == "a Tensor" else value
        found |= {len(value)} if isinstance(value, list | tuple) else set(getattr(value, "shape", ()))
    return found


def _turned(a: np.ndarray, b: np.ndarray, tolerance: float) -> str:
    """The right numbers in another shape or order."""
    if a.size != b.size or a.size < 2 or a.ndim > 5:
        return ""

    def same(x: np.ndarray) -> bool:
        return x.shape == b.shape and bool(_close(x, b, tolerance).all())

    if a.squeeze().shape == b.squeeze().shape and same(a.reshape(b.shape)):
        lost = a.ndim < b.ndim
        where = "lost: keepdims=True, in torch keepdim=True" if lost else "out of place"
        return f"the numbers are right, an axis of length 1 is {where}."
    for order in itertools.permutations(range(a.ndim)):
        if same(a.transpose(order)):
            return (
                "it is transposed." if a.ndim == 2 else f"its axes are in another order: transpose({order}) mends it."
            )
    if same(a.reshape(b.shape)):
        return "the numbers are right and in order, only the shape is not: see reshape."
    for axis in range(a.ndim):
        if same(np.flip(a, axis)):
            return f"it runs backwards along axis {axis}."
    if a.ndim > 1 and same(np.sort(a, None)[np.argsort(np.argsort(b, None))].reshape(b.shape)):
        return "all the right numbers, but in wrong places: was reshape used where transpose was meant?"
    return ""


def _scaled(a: np.ndarray, b: np.ndarray, sizes: list[set[int]], tolerance: float) -> str:
    """A constant factor or a constant offset between two arrays of one shape.

    sizes: the lengths of axes that may explain a factor, one set for the whole array or one for each entry.
    """
    if not (np.isfinite(a).all() and np.isfinite(b).all() and b.any()):
        return ""
    if not a.any():
        return "it is zero everywhere."
    loose, live = max(tolerance, 1e-5), b != 0
    if not a[~live].any():
        ratios = a[live] / b[live]
        factor = float(np.median(ratios))
        if live.sum() > 1 and np.allclose(ratios, factor, rtol=loose, atol=0):
            known = _known_factor([(factor, set.union(*sizes))], loose)
            if math.isclose(factor, -1.0, rel_tol=loose):
                return "it differs by a sign: yours is minus the expected."
            return f"off by a constant factor {factor:.4g}{': ' + known if known else '.'}"
        if len(sizes) == b.size and live.all():  # one number a case: each with a factor of its own
            odd = [(r, n) for r, n in zip(ratios, sizes, strict=True) if not math.isclose(r, 1.0, rel_tol=loose)]
            known = _known_factor(odd, loose)
            if known:
                return f"off by a factor: {known}"
    offset = float(np.median(a - b))
    largest = float(np.abs(b).max())
    telling = np.unique(b).size > 1 and abs(offset) > 1e-3 * largest  # else any small fault would look like one
    if telling and np.allclose(a - b, offset, rtol=loose, atol=tolerance * largest):
        return f"off by a constant: yours is {abs(offset):.4g} too {'high' if offset > 0 else 'low'} everywhere."
    return ""


def _known_factor(factors: list[tuple[float, set[int]]], loose: float) -> str:
    """A name that fits every factor, each with the lengths of axes that it may come from; empty where none does."""
    by_one = "is one divided by n, and the other by n - 1?"
    named = {
        "ln 2: are natural and binary logarithms mixed?": (math.log(2), 1 / math.log(2)),
        "n = {n}, the length of an axis: a sum in place of a mean?": lambda n: (n,),
        "1/n with n = {n}, the length of an axis: a mean in place of a sum?": lambda n: (1 / n,),
        f"n/(n-1) with n = {{n}}: {by_one}": lambda n: (n / (n - 1), (n - 1) / n),
        f"the root of n/(n-1) with n = {{n}}: {by_one}": lambda n: (math.sqrt(n / (n - 1)), math.sqrt((n - 1) / n)),
        "the root of n = {n}, the length of an axis.": lambda n: (math.sqrt(n), 1 / math.sqrt(n)),
    }
    for name, values in named.items():
        fits = [
            next((n for n in sorted(sizes | {0}) if _is_one_of(factor, values, n, loose)), None)
            for factor, sizes in factors
        ]
        if fits and None not in fits:
            return name.format(n=fits[0])
    return ""


def _is_one_of(factor: float, values: Any, n: int, loose: float) -> bool:
    if callable(values):
        values = values(n) if n > 1 else ()
    return any(math.isclose(factor, value, rel_tol=loose) for value in values)


# --- short descriptions ---


def short(value: Any, width: int = 72) -> str:
    """A value on one line of about `width` characters: small arrays in full, large ones by their shape."""
    try:
        if _kind(value) in ("a numpy array", "a torch tensor"):
            array, name = _array(value), "tensor" if _is_torch(value) else "array"
            if array.size > 16:
                return f"{name} of shape {array.shape}"
            text = np.array2string(array, precision=4, separator=", ", max_line_width=10**6, threshold=10**6)
            return f"{name}({' '.join(text.split()).replace('[ ', '[')})"
        if type(value) in (list, tuple):
            items = [short(item, width) for item in value[:16]] + ["..."] * (len(value) > 16)
            inside = ", ".join(items) + "," * (type(value) is tuple and len(value) == 1)
            return f"[{inside}]" if type(value) is list else f"({inside})"
        if isinstance(value, float | np.floating):
            return f"{float(value):.6g}"
        text = value.__name__ if callable(value) and hasattr(value, "__name__") else " ".join(repr(value).split())
        return text if len(text) <= width else f"{text[: width - 3]}..."
    except Exception:  # a reader's __repr__ may raise anything
        return f"<{type(value).__name__}>"
