"""Ctrl-C, SIGTERM and a terminal that hangs up.

Contract: each raises KeyboardInterrupt in what is being done, so that it is ended in order and what
was done is kept; `first` says later which it was. While a module is being imported, and where an
exception would be lost, it is raised a moment later instead. Nothing is imported here that takes
time: `guard` comes before everything else.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_A_MOMENT_S = 0.01
_came: list[int] = []  # those that came, in order


def first() -> int:
    """The signal that came first, 0 if none did."""
    return _came[0] if _came else 0


def guard() -> None:
    """From here on. Those that whoever started us has ignored (nohup) stay ignored."""
    signal.signal(signal.SIGALRM, _raise)
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _note_and_raise)
    sys.unraisablehook = _not_lost


def leave() -> None:
    """Whatever comes from here on changes nothing: all is done, and said."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGALRM, *_ENDING):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def unhurried() -> Iterator[list[int]]:
    """The first one waits until the block is done; a second one does not. Yields those that
    came."""
    pressed: list[int] = []
    before = {number: signal.getsignal(number) for number in _ENDING}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def later(number: int, _frame: FrameType | None) -> None:
        pressed.append(number)
        _came.append(number)
        restore()

    for number, handler in before.items():
        if handler is not signal.SIG_IGN and handler is not signal.SIG_DFL:
            signal.signal(number, later)
    try:
        yield pressed
    finally:
        restore()


def _note_and_raise(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    _raise(number, frame)


def _raise(_number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        signal.setitimer(signal.ITIMER_REAL, _A_MOMENT_S)
    else:
        raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Modules in C make another error, or a traceback, of an exception in the midst of them."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _not_lost(unraisable: sys.UnraisableHookArgs) -> None:
    """In a destructor or a callback from C."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _A_MOMENT_S)
    else:
        sys.__unraisablehook__(unraisable)
