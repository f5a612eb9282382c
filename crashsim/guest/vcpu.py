"""What a vCPU does between its stores: syncs, flushes and marks, and what it does after errors
(Rules G9, H12, H14)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crashsim.engine.clock import Clock
from crashsim.engine.pages import pages_touched, unique_sorted
from crashsim.engine.pageset import PageSet
from crashsim.engine.streams import I64
from crashsim.guest.program import FLUSHES, Op, Program
from crashsim.guest.stretch import Operation
from crashsim.guest.syscalls import GuestKernel
from crashsim.guest.windows import Windows
from crashsim.pagecache.writeback import Memory


class VCpu(Windows):
    """One virtual CPU at work."""

    def __init__(
        self,
        clock: Clock,
        number: int,
        program: Program,
        dirty: PageSet,
        memory: Memory,
        kernel: GuestKernel,
        on_sync_error: str,
        finished: Callable[[], None],
        panic: Callable[[], None],
    ) -> None:
        super().__init__(clock, number, program, dirty, memory, kernel, finished)
        self.marks: list[tuple[int, int, int]] = []  # instant, writes so far, label
        self.unfinished_write: int | None = None  # of which a rest had not begun at the run's end
        self._on_sync_error = on_sync_error
        self._panic = panic
        self._call_does_nothing = kernel.does_nothing(program.call)
        self._asked_ns: int | None = None  # when the call began that it is blocked in
        self._once_more = False  # the next operation is one that failed: it is called at once
        self._unsynced = 0  # writes from here on no ranged call has covered

    def _operate(self, op: Operation) -> bool:
        self._next_op += 1
        if self._once_more:
            self._once_more = False
            kind = Op.SYNC if op.kind == Op.SYNC_IF_DUE else op.kind
            return self._call(op._replace(kind=kind))
        if op.delay_ns:
            self._free_ns = self._clock.now + op.delay_ns
            self._clock.at(self._free_ns, self._rank, self._delayed, op)
            return True
        return self._call(op)

    def _delayed(self, op: Operation) -> None:
        if not self._call(op):
            self._proceed()

    def _call(self, op: Operation) -> bool:
        now, program, kind = self._clock.now, self.program, op.kind
        kernel, position = self._kernel, self._position
        if kind == Op.MARK:
            self.marks.append((now, position, op.argument))
            return False
        if kind == Op.SYNC_IF_DUE and now - self.acknowledged.last_sync_ns < op.argument:
            return False
        if kind not in (*FLUSHES, Op.GROUP_SYNC) and self._call_does_nothing:
            self._returned(kind, op.record, True)
            return False

        def done(ok: bool) -> None:
            self._came_back(op, now, position, ok)

        if kind == Op.SYNC_IF_DUE:
            self._stale = True
        self._clean_wait = kind in FLUSHES or self._call_cleans
        self._asked_ns = now
        if kind in FLUSHES:
            kernel.flush(self.number, op.argument if kind == Op.FLUSH else 1, done)
        elif kind == Op.GROUP_SYNC:
            kernel.group_sync(self.number, program, done)
        else:
            kernel.sync(self.number, program.call, self._range(position), done)
        return True

    def _came_back(self, op: Operation, asked_ns: int, position: int, ok: bool) -> None:
        """From the call at `asked_ns`, behind the writes before `position`."""
        self._asked_ns = None
        self._clean_wait = False
        if self.dirty.count and self._memory.cleaned_by_sync:
            self._stale = True  # the call cleaned nothing: it got another one's result (V3)
        self._free_ns = self._clock.now
        self.wait_ns += self._clock.now - asked_ns
        if not ok and op.kind not in FLUSHES and self._reacts():
            self._react()
            return
        if ok:
            self._unsynced = max(self._unsynced, position)
        self._returned(op.kind, op.record, ok)
        if op.kind == Op.PREFLUSH and not ok:
            self._skip_write(op.argument)
        self._pending.at(self._free_ns, self._proceed)

    def _range(self, position: int) -> I64 | None:
        """The pages that a call with a range is for, ascending; None for one without."""
        if not self.program.ranged:
            return None
        here = slice(self._unsynced, position)
        page, _row = pages_touched(self.program.offset[here], self.program.length[here])
        return unique_sorted(page)

    def journal_aborted(self) -> None:
        """Nothing that would begin after this instant happens (Rule G9)."""
        self.catch_up()
        self._dead = True
        window, row = self._window, self._dirty_row
        if not window.open:
            return  # it ends when its call returns, or when it would go on
        self._pending.void()
        self._reserve(0)
        window.careful = False
        window.bound = row
        free_ns = window.shift + int(self._stretch.free[row])
        self._pending.at(max(self._clock.now, free_ns), self._end_window)

    def _reacts(self) -> bool:
        """Whether the program does not just go on after an error."""
        if self._on_sync_error == "panic":
            return True
        return self._on_sync_error != "give-up" and not self._dead

    def _react(self) -> None:
        """A sync failed (Rules G9, H14)."""
        acknowledged = self.acknowledged
        acknowledged.sync_returned(self._clock.now, acknowledged.record, False)
        if self._on_sync_error == "panic":
            self._panic()
            return
        if self._on_sync_error == "retry":
            self._next_op -= 1
            self._once_more = True
        else:
            self._write_again()
        self._pending.at(self._free_ns, self._proceed)

    def _write_again(self) -> None:
        """Go back to the first write behind the last record that is acknowledged."""
        program, record = self.program, self.acknowledged.record
        position = int(program.record_high[record - 1]) if record else 0
        if position >= self._position:
            return  # it is still to come
        self.stores.retire(self._stretch)
        self.stores.whole = False
        self._next_op = int(np.searchsorted(program.op_at, position, "right"))
        self._plan(position)

    def _skip_write(self, operations: int) -> None:
        """The request failed before its data was copied (Rule G7): neither its write happens nor
        the `operations` behind it."""
        self.stores.retire(self._stretch)
        self._row += 1
        self._next_op += operations
        self.stores.whole = False
        self._stale = True

    def _returned(self, kind: int, record: int, ok: bool) -> None:
        acknowledged, now = self.acknowledged, self._clock.now
        if kind in FLUSHES:
            acknowledged.flush_returned(now, record, ok)
        else:
            acknowledged.sync_returned(now, record, ok)

    def stop(self) -> None:
        """The run ends now: account for what was stored, and for a wait that is not over."""
        self.throttle.stop(self._clock.now)
        if not self.done:
            self.catch_up()
            self._close()
            if self._asked_ns is not None:
                self.wait_ns += self._clock.now - self._asked_ns

    def _close(self) -> None:
        """Nothing more happens: put what did into the columns."""
        not_begun = self._stretch.has_rest and self._row == self._dirty_row == 0
        if self._rest is not None or not_begun:
            self.unfinished_write = self.program.first_write + self._position
        self._landed(max(self._row, self._dirty_row))
        self.stores.retire(self._stretch)

    def _end(self) -> None:
        if not self.done:
            self._close()
            self.stores.whole = False
            self.done = True
            self._finished()
