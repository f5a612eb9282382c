"""What a vCPU asks of the layers below it: the memory it stores to, and its guest's kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from crashsim.engine.folios import Folios
from crashsim.engine.pageset import Work
from crashsim.engine.streams import I64
from crashsim.experiment.sync_calls import SyncCall
from crashsim.guest.program import Program

Done = Callable[[bool], None]


class Memory(Protocol):
    """What a vCPU asks of the memory it stores to: host pages with DAX, the guest's own page cache
    without."""

    @property
    def fault_ns(self) -> int: ...
    @property
    def folios(self) -> Folios:
        """What it dirties and cleans as one."""

    @property
    def cleaned_by_sync(self) -> bool:
        """Whether a sync leaves every page clean."""

    @property
    def stamp_bar_ns(self) -> int:
        """Stores that dirty pages before that leave the memory's time stamp as it is."""

    def will_store(self, t_ns: int) -> None: ...
    def dirtied(self, first_ns: int, stamped_ns: int | None, last_ns: int) -> None:
        """Stores from `first_ns` to `last_ns` dirtied pages, that at `stamped_ns` as the first at
        or after the bar."""

    def reserve(self, pages: int) -> None: ...
    def room(self) -> int: ...
    def dirtied_many(self) -> None: ...
    def pause_ns(self, dirtied_pages: int) -> int: ...


class Kernel(Protocol):
    """What a vCPU asks of its guest's kernel; `done(ok)` comes when the call returns."""

    def will_store(self, t_ns: int) -> None: ...
    @property
    def stamp_bar_ns(self) -> int: ...
    def stored(self, stamped_ns: int | None, last_ns: int) -> None: ...
    def does_nothing(self, call: SyncCall) -> bool: ...
    def cleans(self, call: SyncCall) -> bool: ...
    def sync(self, vcpu: int, call: SyncCall, pages: I64 | None, done: Done) -> None:
        """`pages`: those that a call with a range is for."""

    def sync_uncontended(self, vcpu: int, call: SyncCall, work: Work) -> I64: ...
    def group_sync(self, vcpu: int, program: Program, done: Done) -> None: ...
    def flush(self, vcpu: int, count: int, done: Done) -> None: ...
