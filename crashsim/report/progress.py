"""A progress bar on standard error, for work that takes long enough to be wondered about.

Contract: nothing is shown when the stream is no terminal, nor for work that is done within
`DELAY_SECONDS`; when it ends, however it ends, the bar is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from crashsim.report.words import shortened

DELAY_SECONDS = 1.0
_LONGEST = 40

Advance = Callable[[int, str], None]


@contextmanager
def progress(
    total: int, console: Console | None = None, delay_seconds: float = DELAY_SECONDS
) -> Iterator[Advance]:
    """Yields `advance(done, what)`: how much of `total` is done, and what is being done now."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, what: None
        return
    columns = (BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    words = TextColumn("{task.description}", markup=False)
    bar = Progress(words, *columns, console=console, transient=True)
    task = bar.add_task("", total=total)

    def advance(done: int, what: str) -> None:
        bar.update(task, completed=done, description=shortened(what, _LONGEST))

    with _started_later(bar, delay_seconds):
        yield advance


@contextmanager
def _started_later(bar: Progress, delay_seconds: float) -> Iterator[None]:
    """One long case without news shows its bar all the same: a timer starts it."""
    lock = threading.Lock()
    ended = False

    def start() -> None:
        with lock:
            if not ended:
                bar.start()

    timer = threading.Timer(delay_seconds, start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            ended = True
            bar.stop()
