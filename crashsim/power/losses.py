"""What a failure that keeps one stage takes, at every instant.

Contract: every figure is worked out once, when it is asked for. Where nothing that was safe is ever
lost again the answers come in bulk (`power.at_risk`, `power.per_write`), otherwise from intervals
(`power.media_loss`).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from crashsim.engine.history import History
from crashsim.engine.streams import I64
from crashsim.power import per_write
from crashsim.power.at_risk import at_risk
from crashsim.power.media_loss import UnsafeAgain, lost_again
from crashsim.power.per_write import WriteSafety
from crashsim.power.safety import Safety, Stage
from crashsim.power.steps import Ramps, StepFunction


class Losses:
    """The losses of one History and stage."""

    def __init__(self, history: History, stage: Stage) -> None:
        self.history = history
        self.safety = Safety(history, stage)
        self._lost_again = lost_again(history, self.safety, stage)

    @cached_property
    def _again(self) -> UnsafeAgain | None:
        if self._lost_again is None:
            return None
        return UnsafeAgain(self.history, self.safety, self._lost_again, self.writes)

    @cached_property
    def at_risk(self) -> StepFunction:
        """Bytes whose latest value is not safe."""
        return at_risk(self.history, self.safety, self._lost_again)

    @cached_property
    def rows(self) -> tuple[I64, I64]:
        """(first, last) safe instant over the pieces of each store."""
        return per_write.rows_safe(self.history, self.safety)

    @cached_property
    def writes(self) -> WriteSafety:
        """Writes in order of begin; when each is safe for the first time."""
        return per_write.write_safety(self.history, *self.rows)

    @cached_property
    def unsaved(self) -> StepFunction:
        """Writes begun and not wholly safe."""
        return self._again.unsaved() if self._again else per_write.unsaved(self.writes)

    def unsaved_at(self, t_ns: int) -> I64:
        """Positions of the writes that are not wholly safe at an instant."""
        if self._again:
            return self._again.unsaved_at(t_ns)
        return np.flatnonzero((self.writes.begin_ns <= t_ns) & (self.writes.whole_ns > t_ns))

    @cached_property
    def recovery(self) -> Ramps:
        """Age of the oldest unsaved write."""
        return (
            self._again.recovery_point() if self._again else per_write.recovery_point(self.writes)
        )

    @cached_property
    def covered_ns(self) -> I64:
        """When each acknowledgement is covered for the first time."""
        return per_write.acknowledgements_safe(self.history, self.writes)

    @cached_property
    def uncovered(self) -> StepFunction:
        """Acknowledgements given and not covered."""
        if self._again:
            return self._again.uncovered(self.covered_ns)
        return per_write.uncovered(self.history, self.covered_ns)

    @cached_property
    def broken(self) -> tuple[I64, I64, I64]:
        """Broken promises: request, a store it covers, and until when that is not safe (V2)."""
        last = self.rows[1]
        request, store = per_write.broken_promises(self.history, last)
        if not self._again:
            return request, store, last[store]
        more, lost, until = self._again.broken_promises()
        new = ~np.isin(more, request)
        return (
            np.append(request, more[new]),
            np.append(store, lost[new]),
            np.append(last[store], until[new]),
        )

    @cached_property
    def holes(self) -> I64:
        """Positions of writes that are lost at some instant, a later one not."""
        end_ns = self.history.end_ns
        return self._again.holes(end_ns) if self._again else per_write.holes(self.writes, end_ns)

    def hole_at(self, position: int) -> tuple[int, int]:
        """For a hole an instant, and the position of the later write that is safe then."""
        if self._again:
            return self._again.hole_at(position, self.history.end_ns)
        writes = self.writes
        later = np.flatnonzero(
            (writes.begin_ns > writes.begin_ns[position])
            & (writes.whole_ns < writes.whole_ns[position])
        )
        other = int(later[np.argmin(writes.whole_ns[later])])
        return int(writes.whole_ns[other]), other

    @cached_property
    def torn(self) -> I64:
        """Positions of writes of which at some instant a part is safe, another not."""
        end_ns = self.history.end_ns
        return self._again.torn(end_ns) if self._again else per_write.torn(self.writes, end_ns)

    def torn_at(self, position: int) -> int:
        """An instant at which that write is torn."""
        if self._again:
            return self._again.torn_at(position, self.history.end_ns)
        return int(self.writes.part_ns[position])
