"""A time limit for a call: an endless loop in a reader's answer must not hang the notebook.

An exception is thrown into the thread that runs the call, so it works in notebooks, terminals and tests, on every
system. It arrives between two steps of Python: a long call into C is waited for.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PatienceError", "patience"]

T = TypeVar("T")


class PatienceError(RuntimeError):
    """A call was stopped because it took longer than it was given."""


def patience(seconds: float, f: Callable[[], T]) -> T:
    """Return what f returns; stop it after so many seconds, with a PatienceError whose traceback says where it was."""
    thread, lock, over = threading.get_ident(), threading.Lock(), False
    # Of this call alone, so that one call within another stops the right one. No Exception: handlers let it pass.
    kind = type("Stop", (BaseException,), {})

    def stop() -> None:
        with lock:
            if not over:
                _throw(thread, kind)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    try:
        try:
            timer.start()
            return f()
        finally:
            with lock:
                over = True
                _throw(thread, None)  # one thrown at the last moment must not arrive later
            timer.cancel()
    except kind as stopped:
        error = PatienceError(f"still running after {seconds:g} seconds")
        raise error.with_traceback(stopped.__traceback__) from None


def _throw(thread: int, kind: type[BaseException] | None) -> None:
    exception = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)
