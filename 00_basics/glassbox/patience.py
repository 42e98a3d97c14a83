"""A time limit for a call: an endless loop in a reader's answer must not hang the notebook.

The exception is thrown into the thread that runs the call, so it works in notebooks, terminals and tests, on every
system. It arrives between two steps of Python: a long call into C is waited for.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

__all__ = ["PatienceError", "patience"]


class PatienceError(RuntimeError):
    """A call was stopped because it took longer than it was given."""


class _Stop(BaseException):
    """Thrown into the running thread; no Exception, so that the call's own handlers let it pass."""


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Stop what runs inside after so many seconds, with a PatienceError whose traceback says where it was."""
    thread, lock, over = threading.get_ident(), threading.Lock(), False

    def stop() -> None:
        with lock:
            if not over:
                _throw(thread, _Stop)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        try:
            yield
        finally:
            with lock:
                over = True
                _throw(thread, None)  # one thrown at the last moment must not arrive later
            timer.cancel()
    except _Stop as stopped:
        error = PatienceError(f"still running after {seconds:.0f} seconds")
        raise error.with_traceback(stopped.__traceback__) from None


def _throw(thread: int, kind: type[BaseException] | None) -> None:
    exception = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)
