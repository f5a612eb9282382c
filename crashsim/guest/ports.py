"""What a vCPU asks of the layers below it: the memory it stores to, and its guest's kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from crashsim.engine.pageset import Work
from crashsim.engine.streams import I64
from crashsim.guest.program import Call, Program


class Memory(Protocol):
    """What a vCPU asks of the memory it stores to: host pages with DAX, the guest's own page cache
    without."""

    @property
    def fault_ns(self) -> int: ...
    @property
    def shift(self) -> int:
        """Bytes of a page or folio, as a power of two."""

    @property
    def cleaned_by_sync(self) -> bool:
        """Whether a sync leaves every page clean."""

    def dirtied(self, t_ns: int) -> None: ...
    def reserve(self, pages: int) -> None: ...
    def room(self) -> int: ...
    def dirtied_many(self) -> None: ...
    def pause_ns(self, dirtied_pages: int) -> int: ...


class Kernel(Protocol):
    """What a vCPU asks of its guest's kernel; `done(ok)` comes when the call returns."""

    def will_store(self, t_ns: int) -> None: ...
    def stored(self, t_ns: int) -> None: ...
    def sync(self, vcpu: int, call: Call, done: Callable[[bool], None]) -> None: ...
    def sync_alone(self, vcpu: int, call: Call, work: Work) -> I64: ...
    def group_sync(self, vcpu: int, program: Program, done: Callable[[bool], None]) -> None: ...
    def flush(self, vcpu: int, count: int, done: Callable[[bool], None]) -> None: ...
