"""A sandbox when it is needed, with the image's files laid out where a checker wants them.

Contract: whatever a checker does to its files is undone before the next image, if need be by making
the sandbox anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from crashsim.checkers.filesystem import How, Way, choose, close_quietly
from crashsim.checkers.helper import Helper
from crashsim.checkers.sandbox import Sandbox
from crashsim.checkers.spawn import Limits
from crashsim.checkers.verdict import Acks, Ranges, Verdict, verdict
from crashsim.errors import CrashsimError, HelperDied

TIME_LIMIT_S = 10.0
MEMORY_BYTES = 1 << 30
DEVICE = "pmem0"
Question = Callable[[Sandbox], Verdict]


class ImageSession:
    """Lays out one image after another; `how` is None for a checker that wants no files."""

    def __init__(
        self,
        how: How | None,
        device: str = DEVICE,
        time_s: float = TIME_LIMIT_S,
        memory_bytes: int = MEMORY_BYTES,
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
        self._sandbox: Sandbox | None = None
        self._way: Way | None = None
        # Asks in place of us when the kernel has mounted the files.
        self.witness: Callable[[Sandbox, Question], Verdict] | None = None

    @property
    def way(self) -> str | None:
        """`loop` or `debugfs`, once an image was laid out with its files."""
        return None if self._way is None else self._way.name

    @property
    def shows_files(self) -> bool:
        """Whether the checker wants those of the file system in the image."""
        return self._how is not None

    def check(
        self,
        image: memoryview,
        acks: Acks,
        changed: Ranges | None,
        ask: Question,
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
        if self._sandbox is not None:
            self._sandbox.close()
        self._way = self._sandbox = None

    def close(self) -> None:
        """Remove everything; it can be used again."""
        self.renew()
        if self._helper is not None:
            self._helper.close()
        self._helper = None

    def _checked(self, sandbox: Sandbox, ask: Question, patience: int) -> Verdict:
        sandbox.patience = patience
        if self._how is None:
            return ask(sandbox)
        if self._way is None:
            self._way = choose(self._how, sandbox, self._needs)
        way = self._way
        try:
            told = way.lay_out(sandbox)
            if isinstance(told, Verdict):
                found = told
            elif self.witness is not None and way.name == "loop":
                found = self.witness(sandbox, ask)
            else:
                found = _with(ask(sandbox), told)
        finally:
            try:
                way.clear(sandbox)
            except (CrashsimError, OSError):
                self.renew()  # the next image gets a new sandbox
        return found

    def _shown(self, image: memoryview, acks: Acks, changed: Ranges | None) -> Sandbox:
        limits = Limits(self._memory_bytes, image.nbytes + self._memory_bytes)
        helper = self._helper
        if helper is None or helper.limits != limits or not helper.is_usable:
            self.close()
            helper = self._helper = Helper(limits)
        if self._sandbox is not None and not self._sandbox.usable(image.nbytes):
            self.renew()
        if self._sandbox is None:
            wants_files = self._how is not None
            self._sandbox = Sandbox(helper, self._time_s, image.nbytes, self._device, wants_files)
            changed = None
        self._sandbox.show(image, acks, changed)
        if self._paranoid:
            self._sandbox.image.prove(image)
        return self._sandbox


def _with(found: Verdict, told: str) -> Verdict:
    return verdict(found.kind, found.outcome, f"{found.message}\n{told}") if told else found
