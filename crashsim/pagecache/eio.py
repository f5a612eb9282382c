"""Errors of the host's I/O at given instants (Rules G9, H14)."""

from __future__ import annotations

from crashsim.engine.history import NEVER
from crashsim.engine.injector import Injector


class _AtInstants(Injector):
    """What ends first at or after each of them."""

    def quiet_until_ns(self) -> int:
        return self.at[0] if self.at else NEVER

    def not_fired(self, _end_ns: int) -> list[int]:
        return self.at

    def _is_due(self, end_ns: int) -> bool:
        left = [t for t in self.at if t > end_ns]
        due = len(left) < len(self.at)
        self.at = left
        return due


class WriteError(_AtInstants):
    """A batch fails."""

    def fails(self, _batch: int, end_ns: int) -> bool:
        return self._is_due(end_ns)


class FsyncError(_AtInstants):
    """An fsync fails, whatever it wrote."""

    def fails_sync(self, now_ns: int) -> bool:
        return self._is_due(now_ns)


HOST_ERRORS: dict[str, type[Injector]] = {"write_errors": WriteError, "fsync_errors": FsyncError}
