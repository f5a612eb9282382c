"""Which states a cut may leave, found the slow way: at one instant, byte by byte, from the events.

Nothing here knows epochs, guarantees' instants or open parts. An atom may hold what it held at some
instant after (any host), or at a snapshot after (this host), the one that is safe for certain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crashsim.engine.history import NEVER, History
from crashsim.engine.pages import PAGE_BYTES
from crashsim.engine.streams import I64


@dataclass(frozen=True)
class Letters:
    """Content from a small alphabet, so that different writes may store equal bytes."""

    letters: int

    def parts(self, write: I64, start: I64, end: I64, length: I64) -> Iterator[memoryview]:
        for number, low, high in zip(write.tolist(), start.tolist(), end.tolist(), strict=True):
            yield memoryview(self.of(number, low, high))

    def of(self, write: int, start: int, end: int) -> bytes:
        """Never zero."""
        return bytes((write + (i >> 3)) % self.letters + 1 for i in range(start, end))


@dataclass(frozen=True)
class Store:
    begin: int
    start: int  # device-relative
    content: bytes

    def landed(self, start: int, end: int) -> int:
        """When the store's last word inside [start, end) has landed."""
        last = min(end, self.start + len(self.content)) - 1
        return self.begin + (last >> 3) - (self.start >> 3)


class Slowly:
    """One device of a run."""

    def __init__(
        self, history: History, content: Letters, before: bytes, device: int, unit_bytes: int
    ) -> None:
        self.history, self.device, self.unit_bytes = history, device, unit_bytes
        span = history.devices[device]
        self.first_page = span.first_page
        self.before = before.ljust(span.pages * PAGE_BYTES, b"\0")
        self.stores = []
        write_start: dict[int, int] = {}
        rows = (history.store_t_ns, history.store_offset, history.store_length, history.store_write)
        for begin, offset, length, write in zip(*(r.tolist() for r in rows), strict=True):
            skipped = offset - write_start.setdefault(write, offset)  # the rest of a divided write
            data = content.of(write, skipped, skipped + length)
            if span.first_byte <= offset < span.end_byte:
                self.stores.append(Store(begin, offset - span.first_byte, data))
        self.over: dict[int, list[Store]] = {}  # atom -> stores, by begin
        for store in self.stores:
            first = store.start // unit_bytes * unit_bytes
            for atom in range(first, store.start + len(store.content), unit_bytes):
                self.over.setdefault(atom, []).append(store)
        self.atoms = sorted(self.over)
        self.remembered: dict[tuple[int, int], bytes] = {}

    def instants(self) -> list[int]:
        """Every instant up to the end at which anything happens, and those next to them."""
        h = self.history
        times = {0, h.end_ns}
        for column in (
            h.store_t_ns,
            h.copy_t_ns,
            h.batch_t_ns,
            h.io_complete_ns,
            h.flush_disk_end_ns,
            h.flush_submit_ns,
            h.flush_ack_ns,
            h.ack_t_ns,
        ):
            times.update(column.tolist())
        for atom, stores in self.over.items():
            times.update(store.landed(atom, atom + self.unit_bytes) for store in stores)
        near = {t + d for t in times if t != NEVER for d in (-1, 0)}
        return sorted(t for t in near if 0 <= t <= h.end_ns)

    def acks(self, t: int) -> int:
        acks = zip(self.history.ack_device, self.history.ack_t_ns, strict=True)
        return sum(int(device) == self.device and int(at) <= t for device, at in acks)

    def any_host(self, t: int) -> dict[int, list[bytes]]:
        """Atom -> its possible contents, the guaranteed one first."""
        flushed = self._flushed(t)
        return {atom: self._any_host(atom, flushed, t) for atom in self.atoms}

    def this_host(self, t: int) -> dict[int, list[bytes]]:
        return {atom: self._this_host(atom, t) for atom in self.atoms}

    def _flushed(self, t: int) -> int:
        """When the latest flush was submitted that is acknowledged with success, -1: none."""
        h = self.history
        columns = (h.flush_device, h.flush_result, h.flush_submit_ns, h.flush_ack_ns)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return max(
            (s for d, r, s, ack in rows if d == self.device and r == 0 and ack <= t), default=-1
        )

    def _any_host(self, atom: int, flushed: int, t: int) -> list[bytes]:
        if not self.history.info.dax[self.device]:
            flushed = self._copied(atom, flushed)
        landings = [s.landed(atom, atom + self.unit_bytes) for s in self.over[atom]]
        instants = [flushed, *(landed for landed in landings if flushed < landed <= t)]
        return [self._held(atom, instant) for instant in instants]

    def _this_host(self, atom: int, t: int) -> list[bytes]:
        h = self.history
        page = atom // PAGE_BYTES + self.first_page
        durable, under_way = -1, []
        for batch, first, pages, complete in zip(
            h.io_batch, h.io_first_page, h.io_pages, h.io_complete_ns, strict=True
        ):
            snapshot = int(h.batch_t_ns[batch])
            if not first <= page < first + pages or snapshot > t:
                continue
            if self._durable(int(complete)) <= t:
                durable = max(durable, snapshot)
            else:
                under_way.append(snapshot)
        snapshots = [durable, *(s for s in under_way if s > durable)]
        if not h.info.dax[self.device]:
            snapshots = [self._copied(atom, s) for s in snapshots]
        return [self._held(atom, s) for s in snapshots]

    def _durable(self, complete: int) -> int:
        h = self.history
        if h.info.plp:
            return complete
        ends = [
            int(end)
            for issue, end in zip(h.flush_disk_issue_ns, h.flush_disk_end_ns, strict=True)
            if issue >= complete and not h.info.ignores_flush
        ]
        return min(ends, default=NEVER)

    def _copied(self, atom: int, t: int) -> int:
        """The last instant at which the guest copied the atom's page to the host."""
        page = atom // PAGE_BYTES + self.first_page
        copies = zip(self.history.copy_page, self.history.copy_t_ns, strict=True)
        return max((int(at) for p, at in copies if p == page and at <= t), default=-1)

    def _held(self, atom: int, t: int) -> bytes:
        if (atom, t) not in self.remembered:
            self.remembered[atom, t] = self._work_out(atom, t)
        return self.remembered[atom, t]

    def _work_out(self, atom: int, t: int) -> bytes:
        """The atom as of the stores that had landed in it, each over those that began before."""
        held = bytearray(self.before[atom : atom + self.unit_bytes])
        for store in self.over[atom]:
            if store.landed(atom, atom + self.unit_bytes) <= t:
                for at, byte in enumerate(store.content, store.start - atom):
                    if 0 <= at < self.unit_bytes:
                        held[at] = byte
        return bytes(held)
