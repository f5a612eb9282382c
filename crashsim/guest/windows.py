"""A vCPU at work: stores in bulk between operations, brought up to date whenever the host looks
(Rules G9, G10, H1, H7).

The vCPU is either in a *window* (writes up to the next operation, one event for all of them), at an
operation, or blocked in one. A snapshot of the host inside a window first accounts for the stores
that have begun (`catch_up`), then splits the store in progress at its last landed word and plans
what follows again (`split_at_snapshot`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.pageset import PageSet
from crashsim.guest.acks import Acknowledged
from crashsim.guest.plan import Syncs
from crashsim.guest.ports import Kernel, Memory
from crashsim.guest.program import Program
from crashsim.guest.storelog import PlanLog, StoreLog
from crashsim.guest.stretch import Operation, next_stretch

CHUNK_ROWS_MAX = 1 << 16
CHUNK_ROWS_MIN = 64
_IN_VAIN_MAX = 256  # windows that are done one by one before another try to do many


class Windows:
    """A vCPU without its operations. `number` is global; `dirty` is the set of pages it touched
    since they were cleaned."""

    def __init__(
        self,
        clock: Clock,
        number: int,
        program: Program,
        dirty: PageSet,
        memory: Memory,
        kernel: Kernel,
        on_sync_error: str,
        finished: Callable[[], None],
        panic: Callable[[], None],
    ) -> None:
        self.number = number
        self._rank = Rank.GUEST + number
        self.dirty = dirty
        self.done = False
        self.stores = StoreLog()
        self.acknowledged = Acknowledged(program.acknowledge_at_once)
        self.marks: list[tuple[int, int, int]] = []  # instant, writes so far, label
        self.wait_ns = 0
        self.throttle_ns = 0
        self.unfinished_write: int | None = None  # of which a rest had not begun at the run's end
        self._clock = clock
        self._program = program
        self._memory = memory
        self._kernel = kernel
        self._on_sync_error = on_sync_error
        self._finished = finished
        self._panic = panic
        self._chunk_rows = CHUNK_ROWS_MAX
        self._token = 0
        self._due_ns = -1  # when the pending `_resume` or `_end_window` runs
        self._in_window = False
        self._asked_ns: int | None = None  # when the call began that it is blocked in
        self._divided_ns = -1  # when a snapshot was taken last
        self._clean_wait = False  # and whether that cleans every page for certain
        self._careful = False  # the window's only write may cross a threshold
        self._pause_ns = 0  # to come
        self._paused_from_ns = self._paused_until_ns = 0
        self._free_ns = 0
        self._next_op = 0  # in the program
        self._rest: tuple[int, int] | None = None  # (offset, length) left of a divided write
        self._stretch = 0  # how many windows and syncs to try at once; below 0: try later
        self._in_vain = 1
        self._dead = False  # of SIGBUS or EROFS: the journal has aborted
        self._unsynced = 0  # writes from here on no ranged call has covered
        self._call_does_nothing = kernel.does_nothing(program.call)
        self._call_cleans = kernel.cleans(program.call)
        self._make_plan(0)

    def start(self, t_ns: int) -> None:
        """Begin at an instant."""
        self._free_ns = t_ns
        self._go_on_at(t_ns, self._resume)

    # planning

    def _make_plan(self, position: int) -> None:
        """Plan from write `position` on (the rest of a divided write first)."""
        self._plan, self._ops, self._syncs = next_stretch(
            self._program,
            position,
            self._rest,
            self._next_op,
            self._chunk_rows,
            self._memory,
            self.dirty,
            self._call_cleans,
        )
        self._rest = None
        self._log = PlanLog(self._plan)
        self._row = self._dirty_row = self._looked_row = 0
        self._look_up(0)
        self._stale = False

    def _retire(self) -> None:
        """Put the rows that happened into the columns, and forget the plan."""
        self.stores.retire(self._log, self._program)

    # windows

    def _resume(self, token: int) -> None:
        if token == self._token:
            self._due_ns = -1
            self._proceed()

    def _proceed(self) -> None:
        """The vCPU is free now (or was, at `_free_ns`): do operations until it stores or blocks."""
        if self._dead:
            self._end()
            return
        while True:
            ops = self._ops
            if ops and ops[-1][0] == self._row:
                if self._operate(ops.pop()):
                    return
                continue
            if self._stale or self._row == self._plan.offset.size:
                self._replan()
                ops = self._ops
                if ops and ops[-1][0] == self._row:
                    continue
                if self._row == self._plan.offset.size:
                    self._retire()
                    self.done = True
                    self._finished()
                    return
            if self._syncs is None or not self._sync_uncontended(self._syncs):
                self._start_window()
                return

    def _sync_uncontended(self, syncs: Syncs) -> bool:
        """Do as many of the next windows and their syncs as nothing else comes between; whether
        there were any. What a loop over them would do, at once."""
        if not self._ops or self.dirty.count or self._pause_ns:
            return False
        if self._stretch < 0:  # it was in vain before: not again at once
            self._stretch += 1
            return False
        first = syncs.row.size - len(self._ops)
        ahead = syncs.ahead(first, max(1, self._stretch), self._row, self._rel_free, self._rel_new)
        ends = self._kernel.sync_uncontended(self.number, self._program.call, ahead)
        n = ends.size
        if n == 0:
            self._in_vain = min(2 * self._in_vain, _IN_VAIN_MAX)
            self._stretch = -self._in_vain
            return False
        self._in_vain = 1
        self._stretch = n if n < ahead.row.size else 4 * n
        before, first_row = np.append(self._free_ns, ends[:-1]), self._row
        self._log.extend(ahead.low[:n], ahead.row[:n], before - ahead.free[:n])
        del self._ops[-n:]
        self._next_op += n
        self._row = self._dirty_row = int(ahead.row[n - 1])
        self._look_up(self._row)
        self.wait_ns += int((ends - before - ahead.busy_ns[:n]).sum())
        self._free_ns = self._clock.now = int(ends[-1])
        if self._row > first_row:
            last = self._log.shift[-1] + int(self._plan.begin[self._row - 1])
            self._kernel.stored(None, last)
        self.acknowledged.many(ends, syncs.record[first : first + n])
        return True

    def _replan(self) -> None:
        plan = self._plan
        if self._stale:
            self._chunk_rows = min(max(CHUNK_ROWS_MIN, 2 * self._row), CHUNK_ROWS_MAX)
        else:
            self._chunk_rows = min(2 * self._chunk_rows, CHUNK_ROWS_MAX)
        self._retire()
        if (
            plan.head and self._row == 0 and self._rest is None
        ):  # not begun: still the rest of a write
            self._rest = (int(plan.offset[0]), int(plan.length[0]))
        head = self._rest is not None
        position = plan.first_write - plan.head + self._row + (1 if head else 0)
        self._make_plan(position)

    def _start_window(self) -> None:
        plan, row = self._plan, self._row
        if self._ops:
            bound, free, new = self._ops[-1][0], self._ops[-1][4], self._ops[-1][5]
        else:
            bound = plan.offset.size
            free, new = int(plan.free[bound]), int(plan.new[bound])
        shift = self._free_ns - self._rel_free
        first = shift + self._rel_begin
        careful = False
        room = self._memory.room()
        if new - self._rel_new > room or self._pause_ns:
            limit = self._rel_new + max(room, 0)
            bound = row + int(np.searchsorted(plan.new[row + 1 : bound + 1], limit, "right"))
            if bound == row or self._pause_ns:
                bound, careful = row + 1, True
            free, new = int(plan.free[bound]), int(plan.new[bound])
        self._reserved = new - self._rel_new
        self._memory.reserve(self._reserved)
        self._bound = bound
        self._shift = shift
        self._in_window = True
        self._careful = careful
        self._kernel.will_store(first)
        self._memory.will_store(first)
        if careful:
            self._clock.at(first, self._rank, self._look, self._token)
        self._go_on_at(shift + free, self._end_window)
        if first == self._divided_ns:  # the snapshot of this instant has its first word
            self.catch_up()
            self.split_at_snapshot()

    def _go_on_at(self, t_ns: int, call: Callable[[int], None]) -> None:
        self._due_ns = t_ns
        self._clock.at(t_ns, self._rank, call, self._token)

    def _look(self, token: int) -> None:
        """The write that may cross a threshold begins."""
        if token == self._token:
            self.catch_up()

    def _crossed(self) -> None:
        """The write that may cross a threshold has begun (Rule H7)."""
        self._careful = False
        self._looked_row = self._bound
        plan, row = self._plan, self._bound - 1
        dirtied = int(plan.new[row + 1] - plan.new[row])
        if dirtied:
            self._pause_ns += self._memory.pause_ns(dirtied)
            self._memory.dirtied_many()

    def _end_window(self, token: int) -> None:
        if token != self._token:
            return
        self._due_ns = -1
        bound = self._bound
        self._began(bound, self._reserved)
        self._landed(bound)
        self._in_window = False
        self._free_ns = self._clock.now
        if self._pause_ns:
            self._pause()
            self._go_on_at(self._free_ns, self._resume)
        else:
            self._proceed()

    def _pause(self) -> None:
        """Held up behind a write (Rule H7)."""
        if self._pause_ns:
            self.throttle_ns += self._pause_ns
            self._paused_from_ns = self._free_ns
            self._free_ns += self._pause_ns
            self._paused_until_ns = self._free_ns
            self._pause_ns = 0

    def _began(self, row: int, new: int) -> None:
        """Rows before `row` have begun: their pages are dirty, `new` of them since the last
        call."""
        low = self._dirty_row
        if row > low:
            plan, shift = self._plan, self._shift
            begin = shift + (self._rel_begin if low == self._row else int(plan.begin[low]))
            last = begin if row == low + 1 else shift + int(plan.begin[row - 1])
            self.dirty.add_range(plan.offset, plan.length, low, row, new)
            if new:
                self._reserved -= new
                self._memory.reserve(-new)
                self._faulted(low, row, begin, last)
            bar = self._kernel.stamp_bar_ns
            stamped: int | None = begin
            if begin < bar:
                stamped = None
                if last >= bar:
                    stamped = shift + int(plan.begin[self._first_at(low, row, bar)])
            self._kernel.stored(stamped, last)
            self._dirty_row = row

    def _first_at(self, low: int, row: int, t_ns: int) -> int:
        """The first of these rows that begins at an instant or later; there is one."""
        begin = self._plan.begin[low:row]
        return low + int(np.searchsorted(begin, t_ns - self._shift, "left"))

    def _faulted(self, low: int, row: int, begin: int, last: int) -> None:
        """Some of the rows [low, row), which begin from `begin` to `last`, dirtied pages."""
        if row == low + 1:
            stamped = begin if begin >= self._memory.stamp_bar_ns else None
            self._memory.dirtied(begin, stamped, begin)
            return
        plan, shift = self._plan, self._shift
        new = plan.new[low + 1 : row + 1]
        first_ns = shift + int(plan.begin[low + int(np.searchsorted(new, plan.new[low], "right"))])
        last_ns = shift + int(plan.begin[low + int(np.searchsorted(new, plan.new[row], "left"))])
        bar = self._memory.stamp_bar_ns
        stamped_ns: int | None = first_ns
        if first_ns < bar:
            stamped_ns = None
            if last_ns >= bar:
                at = self._first_at(low, row, bar)
                at += int(np.searchsorted(plan.new[at + 1 : row + 1], plan.new[at], "right"))
                stamped_ns = shift + int(plan.begin[at])
        self._memory.dirtied(first_ns, stamped_ns, last_ns)

    def _landed(self, row: int) -> None:
        """Rows before `row` have landed whole."""
        if row > self._row:
            log = self._log
            log.low.append(self._row)
            log.high.append(row)
            log.shift.append(self._shift)
            self._row = row
            self._look_up(row)

    def _look_up(self, row: int) -> None:
        """What the plan says of the row that is next."""
        if self._ops and self._ops[-1][0] == row:  # numbers already: every window ends here
            op = self._ops[-1]
            self._rel_free, self._rel_new, self._rel_begin = op[4], op[5], op[7]
            return
        plan = self._plan
        self._rel_free = int(plan.free[row])
        self._rel_new = int(plan.new[row])
        self._rel_begin = int(plan.begin[row]) if row < plan.begin.size else 0

    def catch_up(self) -> None:
        """Account for every store that has begun by now."""
        if self._due_ns == self._clock.now and self._store_is_next():
            self._token += 1  # in place of the pending event
            if self._in_window:
                self._end_window(self._token)
            else:
                self._resume(self._token)
        if not self._in_window:
            return
        plan, row = self._plan, self._row
        elapsed = self._clock.now - self._shift
        begun = row + int(np.searchsorted(plan.begin[row : self._bound], elapsed, "right"))
        if begun > row:
            self._began(begun, int(plan.new[begun]) - int(plan.new[self._dirty_row]))
            last = begun - 1
            whole = int(plan.begin[last]) + int(plan.words[last]) - 1 <= elapsed
            self._landed(begun if whole else last)
            if self._careful:
                self._crossed()

    def _store_is_next(self) -> bool:
        """Whether the program goes on with a write, not with an operation or its end."""
        plan, program = self._plan, self._program
        row = self._bound if self._in_window else self._row
        position = plan.first_write - plan.head + row
        if position >= program.offset.size and self._rest is None:
            return False
        ops = program.op_at
        return self._next_op >= ops.size or int(ops[self._next_op]) != position

    def recheck_room(self) -> None:
        """There is less room for dirty pages than the window was given: look before its next store,
        and at one that began at this very instant."""
        self.catch_up()
        if self._careful or not self._in_window:
            return
        plan, row = self._plan, self._dirty_row
        just_begun = row > 0 and self._shift + int(plan.begin[row - 1]) == self._clock.now
        if row < self._bound:
            self._token += 1
            self._memory.reserve(-self._reserved)
            self._reserved = 0
            if just_begun or row > self._row:
                self._bound = row
                self._go_on_at(self._shift + int(plan.free[row]), self._end_window)
            else:
                self._in_window = False
                self._free_ns = self._shift + self._rel_free
                self._start_window()
        if just_begun and self._looked_row != row:
            self._crossed()

    def split_at_snapshot(self) -> None:
        """A snapshot is taken now (Rule G10): what has landed is in it, what follows is planned
        again."""
        self._divided_ns = self._clock.now
        if self._clean_wait and self._memory.cleaned_by_sync:
            return  # afterwards everything is clean, as planned
        self._stale = True
        if not self._in_window:
            return
        now = self._clock.now
        self._token += 1  # the window's events are void
        self._in_window = False
        self._memory.reserve(-self._reserved)
        self._reserved = 0
        self._free_ns = self._shift + self._rel_free
        if self._dirty_row > self._row:
            plan, row = self._plan, self._row
            begin = self._shift + int(plan.begin[row])
            offset, length = int(plan.offset[row]), int(plan.length[row])
            cut = ((offset >> 3) + now - begin + 1) << 3
            self._retire()
            write = self._program.first_write + plan.first_write - plan.head + row
            one = np.array([begin, offset, cut - offset, write], dtype=np.int64)
            self.stores.add(one[0:1], one[1:2], one[2:3], one[3:4])
            self.stores.whole = False
            self._rest = (cut, offset + length - cut)
            self._free_ns = now
        elif self._row or not self._plan.head:  # what is left of a write pauses at its own end
            self._pause()
        self._go_on_at(max(now, self._free_ns), self._resume)

    def next_begin_ns(self) -> int | None:
        """When the next planned store begins, None outside of a window."""
        if not self._in_window or self._dirty_row >= self._bound:
            return None
        return self._shift + int(self._plan.begin[self._dirty_row])

    def _operate(self, op: Operation) -> bool:
        """Do one operation; True if the vCPU is to wait."""
        raise NotImplementedError

    def _end(self) -> None:
        """The program has died."""
        raise NotImplementedError
