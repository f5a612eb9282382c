"""A workshop when it is needed, with the image's files laid out where a checker wants them.

Contract: whatever a checker does to its files is undone before the next image, if need be by making
the workshop anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from crashsim.checkers.filesystem import How, Way, choose, close_quietly
from crashsim.checkers.helper import Helper
from crashsim.checkers.sandbox import Workshop
from crashsim.checkers.spawn import Limits
from crashsim.checkers.verdict import Acks, Ranges, Verdict, verdict
from crashsim.errors import CrashsimError, HelperDied

TIME_LIMIT_S = 10.0
MEMORY_BYTES = 2 << 30
DEVICE = "pmem0"


class Station:
    """Lays out one image after another; `how` is None for a checker that wants no files."""

    def __init__(
        self,
        time_s: float,
        memory_bytes: int,
        device: str,
        how: How | None,
        paranoid: bool = False,
        needs: Sequence[Path] = (),
    ) -> None:
        """`paranoid`: before each question all of the image's copy is compared with it. `needs`:
        files and folders that the checker must be able to see."""
        self._time_s = time_s
        self._memory_bytes = memory_bytes
        self._device = Path(device).name or DEVICE
        self._how = how
        self._paranoid = paranoid
        self._needs = needs
        self._helper: Helper | None = None
        self._shop: Workshop | None = None
        self._way: Way | None = None

    @property
    def way(self) -> str | None:
        """`loop` or `debugfs`, once an image was laid out with its files."""
        return None if self._way is None else self._way.name

    def check(
        self,
        image: memoryview,
        acks: Acks,
        changed: Ranges | None,
        ask: Callable[[Workshop], Verdict],
        patience: int = 1,
    ) -> Verdict:
        """What `ask` says of the image, once all is laid out; `patience`: programs have so many
        times their time."""
        try:
            return self._checked(self._shown(image, acks, changed), ask, patience)
        except HelperDied as error:
            self.close()
            return verdict("crash", "died: with its helper", str(error))

    def renew(self) -> None:
        """All that programs see is made anew for the next image."""
        close_quietly(self._way)
        if self._shop is not None:
            self._shop.close()
        self._way = self._shop = None

    def close(self) -> None:
        """Remove everything; it can be used again."""
        self.renew()
        if self._helper is not None:
            self._helper.close()
        self._helper = None

    def _checked(
        self, shop: Workshop, ask: Callable[[Workshop], Verdict], patience: int
    ) -> Verdict:
        shop.patience = patience
        if self._how is None:
            return ask(shop)
        if self._way is None:
            self._way = choose(self._how, shop, self._needs)
        way = self._way
        try:
            told = way.lay_out(shop)
            found = told if isinstance(told, Verdict) else _with(ask(shop), told)
        finally:
            try:
                way.clear(shop)
            except (CrashsimError, OSError):
                self.renew()  # the next image gets a new workshop
        return found

    def _shown(self, image: memoryview, acks: Acks, changed: Ranges | None) -> Workshop:
        limits = Limits(self._memory_bytes, image.nbytes + self._memory_bytes)
        helper = self._helper
        if helper is None or helper.limits != limits or not helper.is_usable:
            self.close()
            helper = self._helper = Helper(limits)
        if self._shop is not None and not self._shop.usable(image.nbytes):
            self.renew()
        if self._shop is None:
            wants_files = self._how is not None
            self._shop = Workshop(helper, self._time_s, image.nbytes, self._device, wants_files)
            changed = None
        self._shop.show(image, acks, changed)
        if self._paranoid:
            self._shop.image.prove(image)
        return self._shop


def _with(found: Verdict, told: str) -> Verdict:
    return verdict(found.kind, found.outcome, f"{found.message}\n{told}") if told else found
