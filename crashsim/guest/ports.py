"""What a vCPU asks of the memory it stores to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from crashsim.engine.folios import Folios

Done = Callable[[bool], None]  # whether the call succeeded


class Memory(Protocol):
    """Host pages with DAX, the guest's own page cache without."""

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
