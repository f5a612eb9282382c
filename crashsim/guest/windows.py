"""A vCPU's stores: in bulk between operations, brought up to date whenever the host looks (Rules
G9, G10, H1, H7).

The vCPU is either in a *window* (writes up to the next operation, one event for all of them), at an
operation, or blocked in one. A snapshot of the host inside a window first accounts for the stores
that have begun (`catch_up`), then splits the store in progress at its last landed word and plans
what follows again (`split_at_snapshot`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crashsim.engine.clock import Clock, Rank
from crashsim.engine.pageset import PageSet
from crashsim.guest.acks import Acknowledged
from crashsim.guest.pacing import Attempts, Pending, Throttle
from crashsim.guest.program import Program
from crashsim.guest.stretch import Operation, Planner, StoreLog
from crashsim.guest.syscalls import GuestKernel
from crashsim.pagecache.writeback import Memory


@dataclass(slots=True)
class Window:
    """Writes under way: rows up to `bound`, which begin `shift` later than planned and may dirty
    `reserved` more pages. `careful`: its only write may cross a threshold. `looked_row`: up to
    which thresholds were looked at."""

    open: bool = False
    careful: bool = False
    bound: int = 0
    shift: int = 0
    reserved: int = 0
    looked_row: int = 0


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
        kernel: GuestKernel,
        finished: Callable[[], None],
    ) -> None:
        self.number = number
        self.dirty = dirty
        self.done = False
        self.stores = StoreLog()
        self.acknowledged = Acknowledged(program.acknowledge_at_once)
        self.wait_ns = 0
        self.throttle = Throttle()
        self._rank = Rank.GUEST + number
        self._clock = clock
        self.program = program
        self._memory = memory
        self._kernel = kernel
        self._finished = finished
        self._pending = Pending(clock, self._rank)
        self._attempts = Attempts()
        self._window = Window()
        self._call_cleans = kernel.cleans(program.call)
        self._planner = Planner(program, memory, dirty, self._call_cleans)
        self._split_ns = -1  # when a snapshot was taken last
        self._clean_wait = False  # blocked in a call that cleans every page for certain
        self._free_ns = 0
        self._next_op = 0  # in the program
        self._rest: tuple[int, int] | None = None  # (offset, length) left of a split write
        self._dead = False  # of SIGBUS or EROFS: the journal has aborted
        self._plan(0)

    def start(self, t_ns: int) -> None:
        """Begin at an instant."""
        self._free_ns = t_ns
        self._pending.at(t_ns, self._proceed)

    # planning

    def _plan(self, position: int) -> None:
        """Plan from write `position` on (the rest of a split write first)."""
        self._stretch = self._planner.plan(position, self._next_op, self._rest)
        self._rest = None
        self._row = 0  # rows before have landed whole
        self._dirty_row = 0  # rows before have begun
        self._window.looked_row = 0
        self._stale = False

    def _plan_again(self) -> None:
        stretch, row = self._stretch, self._row
        self._planner.came_to(row, interrupted=self._stale)
        self.stores.retire(stretch)
        if stretch.has_rest and row == 0 and self._rest is None:  # not begun: still a rest
            self._rest = (int(stretch.offset[0]), int(stretch.length[0]))
        self._plan(self._position + (self._rest is not None))

    @property
    def _position(self) -> int:
        """The write, within the program, that is next."""
        return self._stretch.first + self._row

    def _at_operation(self) -> bool:
        return self._stretch.stop(self._next_op) == self._row

    # windows

    def _proceed(self) -> None:
        """The vCPU is free now (or was, at `_free_ns`): do operations until it stores or blocks."""
        if self._dead:
            self._end()
            return
        while True:
            if self._at_operation():
                if self._operate(self._stretch.operation(self._next_op)):
                    return
                continue
            if self._stale or self._row == self._stretch.rows:
                self._plan_again()
                if self._at_operation():
                    continue
                if self._row == self._stretch.rows:
                    self.stores.retire(self._stretch)
                    self.done = True
                    self._finished()
                    return
            if not self._sync_uncontended():
                self._start_window()
                return

    def _sync_uncontended(self) -> bool:
        """Do as many of the next windows and their syncs as nothing else comes between; whether
        there were any. What a loop over them would do, at once."""
        stretch, op = self._stretch, self._next_op
        if not stretch.only_syncs or stretch.stop(op) is None:
            return False
        if self.dirty.count or self.throttle.pause_ns:
            return False
        tried = self._attempts.next()
        if not tried:  # it was in vain before: not again at once
            return False
        ahead = stretch.ahead(op, tried, self._row)
        ends = self._kernel.sync_uncontended(self.number, self.program.call, ahead)
        n = ends.size
        self._attempts.came(n, ahead.row.size)
        if n == 0:
            return False
        before, first_row = np.append(self._free_ns, ends[:-1]), self._row
        stretch.happened(ahead.low[:n], ahead.row[:n], before - ahead.free[:n])
        self._next_op += n
        self._row = self._dirty_row = int(ahead.row[n - 1])
        self.wait_ns += int((ends - before - ahead.busy_ns[:n]).sum())
        self._free_ns = self._clock.now = int(ends[-1])
        if self._row > first_row:
            self._kernel.stored(None, stretch.shift[-1] + int(stretch.begin[self._row - 1]))
        self.acknowledged.many(ends, stretch.op_record[op - stretch.first_op :][:n])
        return True

    def _start_window(self) -> None:
        stretch, row, window = self._stretch, self._row, self._window
        stop = stretch.stop(self._next_op)
        bound = stretch.rows if stop is None else stop
        new = int(stretch.new[row])
        room = self._memory.room()
        window.careful = False
        paused = bool(self.throttle.pause_ns)
        if paused or int(stretch.new[bound]) - new > room:
            limit = new + max(room, 0)
            bound = row + int(np.searchsorted(stretch.new[row + 1 : bound + 1], limit, "right"))
            if bound == row or paused:
                bound, window.careful = row + 1, True
        window.open, window.bound = True, bound
        window.shift = shift = self._free_ns - int(stretch.free[row])
        self._reserve(int(stretch.new[bound]) - new)
        first = shift + int(stretch.begin[row])
        self._kernel.will_store(first)
        self._memory.will_store(first)
        if window.careful:
            self._pending.look_at(first, self.catch_up)
        self._pending.at(shift + int(stretch.free[bound]), self._end_window)
        if first == self._split_ns:  # the snapshot of this instant has its first word
            self.catch_up()
            self.split_at_snapshot()

    def _reserve(self, pages: int) -> None:
        """What the window may dirty from now on."""
        self._memory.reserve(pages - self._window.reserved)
        self._window.reserved = pages

    def _crossed(self) -> None:
        """The write that may cross a threshold has begun (Rule H7)."""
        window, new = self._window, self._stretch.new
        window.careful = False
        window.looked_row = row = window.bound
        dirtied = int(new[row] - new[row - 1])
        if dirtied:
            self.throttle.pause_ns += self._memory.pause_ns(dirtied)
            self._memory.dirtied_many()

    def _end_window(self) -> None:
        window = self._window
        self._began(window.bound, window.reserved)
        self._landed(window.bound)
        window.open = False
        self._free_ns = self._clock.now
        if self.throttle.pause_ns:
            self._free_ns = self.throttle.begin(self._free_ns)
            self._pending.at(self._free_ns, self._proceed)
        else:
            self._proceed()

    def _began(self, row: int, new: int) -> None:
        """Rows before `row` have begun: their pages are dirty, `new` of them since the last
        call."""
        low = self._dirty_row
        if row > low:
            stretch, shift = self._stretch, self._window.shift
            begin = shift + int(stretch.begin[low])
            last = begin if row == low + 1 else shift + int(stretch.begin[row - 1])
            self.dirty.add_range(stretch.offset, stretch.length, low, row, new)
            if new:
                self._reserve(self._window.reserved - new)
                self._faulted(low, row, begin)
            bar = self._kernel.stamp_bar_ns
            stamped: int | None = begin
            if begin < bar:
                at = self._first_at(low, row, bar) if last >= bar else None
                stamped = None if at is None else shift + int(stretch.begin[at])
            self._kernel.stored(stamped, last)
            self._dirty_row = row

    def _first_at(self, low: int, row: int, t_ns: int) -> int:
        """The first of these rows that begins at an instant or later; there is one."""
        begin = self._stretch.begin[low:row]
        return low + int(np.searchsorted(begin, t_ns - self._window.shift, "left"))

    def _faulted(self, low: int, row: int, begin: int) -> None:
        """Some of the rows [low, row), the first of which begins at `begin`, dirtied pages."""
        bar = self._memory.stamp_bar_ns
        if row == low + 1:
            self._memory.dirtied(begin, begin if begin >= bar else None, begin)
            return
        new, shift = self._stretch.new, self._window.shift
        begins = self._stretch.begin
        here = new[low + 1 : row + 1]
        first_ns = shift + int(begins[low + int(np.searchsorted(here, new[low], "right"))])
        last_ns = shift + int(begins[low + int(np.searchsorted(here, new[row], "left"))])
        stamped_ns: int | None = first_ns
        if first_ns < bar:
            stamped_ns = None
            if last_ns >= bar:
                at = self._first_at(low, row, bar)
                at += int(np.searchsorted(new[at + 1 : row + 1], new[at], "right"))
                stamped_ns = shift + int(begins[at])
        self._memory.dirtied(first_ns, stamped_ns, last_ns)

    def _landed(self, row: int) -> None:
        """Rows before `row` have landed whole."""
        if row > self._row:
            self._stretch.low.append(self._row)
            self._stretch.high.append(row)
            self._stretch.shift.append(self._window.shift)
            self._row = row

    # what others ask of it (`engine.timers.Storer`)

    def catch_up(self) -> None:
        """Account for every store that has begun by now."""
        if self._pending.due_ns == self._clock.now and self._store_is_next():
            self._pending.fire_now()
        window, stretch, row = self._window, self._stretch, self._row
        if not window.open:
            return
        elapsed = self._clock.now - window.shift
        begin = stretch.begin[row : window.bound]
        begun = row + int(np.searchsorted(begin, elapsed, "right"))
        if begun > row:
            self._began(begun, int(stretch.new[begun]) - int(stretch.new[self._dirty_row]))
            last = begun - 1
            whole = int(stretch.begin[last]) + int(stretch.words[last]) - 1 <= elapsed
            self._landed(begun if whole else last)
            if window.careful:
                self._crossed()

    def _store_is_next(self) -> bool:
        """Whether the program goes on with a write, not with an operation or its end."""
        row = self._window.bound if self._window.open else self._row
        position, program, op = self._stretch.first + row, self.program, self._next_op
        if position >= program.offset.size and self._rest is None:
            return False
        return op >= program.op_at.size or int(program.op_at[op]) != position

    def recheck_room(self) -> None:
        """There is less room for dirty pages than the window was given: look before its next store,
        and at one that began at this very instant."""
        self.catch_up()
        window, stretch, row = self._window, self._stretch, self._dirty_row
        if window.careful or not window.open:
            return
        just_begun = row > 0 and window.shift + int(stretch.begin[row - 1]) == self._clock.now
        if row < window.bound:
            self._pending.void()
            self._reserve(0)
            if just_begun or row > self._row:
                window.bound = row
                self._pending.at(window.shift + int(stretch.free[row]), self._end_window)
            else:
                self._leave_window()
                self._start_window()
        if just_begun and window.looked_row != row:
            self._crossed()

    def _leave_window(self) -> None:
        """Before its next row."""
        self._window.open = False
        self._free_ns = self._window.shift + int(self._stretch.free[self._row])

    def split_at_snapshot(self) -> None:
        """A snapshot is taken now (Rule G10): what has landed is in it, what follows is planned
        again."""
        now = self._split_ns = self._clock.now
        if self._clean_wait and self._memory.cleaned_by_sync:
            return  # afterwards everything is clean, as planned
        self._stale = True
        if not self._window.open:
            return
        self._pending.void()
        self._reserve(0)
        self._leave_window()
        if self._dirty_row > self._row:
            self._split(now)
            self._free_ns = now
        elif self._row or not self._stretch.has_rest:  # a rest of a write pauses at its own end
            self._free_ns = self.throttle.begin(self._free_ns)
        self._pending.at(max(now, self._free_ns), self._proceed)

    def _split(self, now_ns: int) -> None:
        """The store in progress ends with the word that lands now."""
        stretch, row = self._stretch, self._row
        begin = self._window.shift + int(stretch.begin[row])
        offset, length = int(stretch.offset[row]), int(stretch.length[row])
        end = ((offset >> 3) + now_ns - begin + 1) << 3
        self.stores.retire(stretch)
        write = self.program.first_write + self._position
        one = np.array([begin, offset, end - offset, write], dtype=np.int64)
        self.stores.add(one[0:1], one[1:2], one[2:3], one[3:4])
        self.stores.whole = False
        self._rest = (end, offset + length - end)

    def next_begin_ns(self) -> int | None:
        """When the next planned store begins, None outside of a window."""
        if not self._window.open or self._dirty_row >= self._window.bound:
            return None
        return self._window.shift + int(self._stretch.begin[self._dirty_row])

    def _operate(self, op: Operation) -> bool:
        """Do one operation; True if the vCPU is to wait."""
        raise NotImplementedError

    def _end(self) -> None:
        """The program has died."""
        raise NotImplementedError
