"""What a vCPU does between its stores: syncs, flushes and marks, and what it does after errors
(Rules G9, H12, H14)."""

from __future__ import annotations

import numpy as np

from crashsim.engine.pages import pages_touched, unique_sorted
from crashsim.engine.streams import I64
from crashsim.guest.program import FLUSHES, Op
from crashsim.guest.stretch import Operation
from crashsim.guest.windows import Windows


class VCpu(Windows):
    """One virtual CPU at work."""

    def _operate(self, op: Operation) -> bool:
        """Do one operation; True if the vCPU is to wait."""
        delay_ns = op[2]
        self._next_op += 1
        if delay_ns:
            self._free_ns = self._clock.now + delay_ns
            self._clock.at(self._free_ns, self._rank, self._delayed, op)
            return True
        return self._call(op)

    def _delayed(self, op: Operation) -> None:
        if not self._call(op):
            self._proceed()

    def _call(self, op: Operation) -> bool:
        _row, kind, _delay, argument, _free, _new, record, _begin = op
        now = self._clock.now
        program = self._program
        position = self._plan.first_write - self._plan.head + self._row
        if kind == Op.MARK:
            self.marks.append((now, position, argument))
            return False
        if kind == Op.SYNC_IF_DUE and now - self.acknowledged.last_sync_ns < argument:
            return False
        if self._call_does_nothing and kind not in (*FLUSHES, Op.GROUP_SYNC):
            self._returned(kind, record, True)
            return False

        def done(ok: bool) -> None:
            self._asked_ns = None
            self._clean_wait = False
            if self.dirty.count and self._memory.cleaned_by_sync:
                self._stale = True  # the call cleaned nothing: it got another one's result (V3)
            self._free_ns = self._clock.now
            self.wait_ns += self._clock.now - now
            reacts = self._on_sync_error == "panic" or (
                self._on_sync_error != "give-up" and not self._dead
            )
            if not ok and kind not in FLUSHES and reacts:
                if not self._react(op):
                    return
            else:
                if ok:
                    self._unsynced = max(self._unsynced, position)
                self._returned(kind, record, ok)
                if kind == Op.PREFLUSH and not ok:
                    self._skip_write(argument)
            self._go_on_at(self._free_ns, self._resume)

        if kind == Op.SYNC_IF_DUE:
            self._stale = True
        self._clean_wait = kind in FLUSHES or self._call_cleans
        self._asked_ns = now
        if kind in FLUSHES:
            self._kernel.flush(self.number, argument if kind == Op.FLUSH else 1, done)
        elif kind == Op.GROUP_SYNC:
            self._kernel.group_sync(self.number, program, done)
        else:
            self._kernel.sync(self.number, program.call, self._range(position), done)
        return True

    def _range(self, position: int) -> I64 | None:
        """The pages that a call with a range is for, ascending; None for one without."""
        if not self._program.ranged:
            return None
        here = slice(self._unsynced, position)
        page, _row = pages_touched(self._program.offset[here], self._program.length[here])
        return unique_sorted(page)

    def journal_aborted(self) -> None:
        """Nothing that would begin after this instant happens (Rule G9)."""
        self.catch_up()
        self._dead = True
        if not self._in_window:
            return  # it ends when its call returns, or when it would go on
        plan, row = self._plan, self._dirty_row
        self._token += 1
        self._memory.reserve(-self._reserved)
        self._reserved = 0
        self._careful = False
        self._bound = row
        free_ns = self._shift + int(plan.free[row])
        self._go_on_at(max(self._clock.now, free_ns), self._end_window)

    def _react(self, op: Operation) -> bool:
        """A sync failed, and the program does not just go on (Rules G9, H14); False: not at
        all."""
        acknowledged = self.acknowledged
        acknowledged.sync_returned(self._clock.now, acknowledged.record, False)
        if self._on_sync_error == "panic":
            self._panic()
            return False
        if self._on_sync_error == "retry":
            self._next_op -= 1
            kind = Op.GROUP_SYNC if op[1] == Op.GROUP_SYNC else Op.SYNC
            self._ops.append((op[0], kind, 0, *op[3:]))
        else:
            self._write_again()
        return True

    def _write_again(self) -> None:
        """Go back to the first write behind the last record that is acknowledged."""
        program, plan = self._program, self._plan
        record = self.acknowledged.record
        position = int(program.record_high[record - 1]) if record else 0
        if position >= plan.first_write - plan.head + self._row:
            return  # it is still to come
        self._retire()
        self.stores.whole = False
        self._next_op = int(np.searchsorted(program.op_at, position, "right"))
        self._make_plan(position)

    def _skip_write(self, operations: int) -> None:
        """The request failed before its data was copied (Rule G7): neither its write happens nor
        the `operations` behind it."""
        self._retire()
        self._row += 1
        self._next_op += operations
        self._ops.clear()
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
        end_ns = max(self._clock.now, self._paused_from_ns)
        self.throttle_ns -= max(0, self._paused_until_ns - end_ns)
        if not self.done:
            self.catch_up()
            self._close()
            if self._asked_ns is not None:
                self.wait_ns += self._clock.now - self._asked_ns

    def _close(self) -> None:
        """Nothing more happens: put what did into the columns."""
        plan = self._plan
        if self._rest is not None or (plan.head and self._row == self._dirty_row == 0):
            position = plan.first_write - plan.head + self._row
            self.unfinished_write = self._program.first_write + position
        self._landed(max(self._row, self._dirty_row))
        self._retire()

    def _end(self) -> None:
        """The program has died."""
        if not self.done:
            self._close()
            self.stores.whole = False
            self.done = True
            self._finished()
