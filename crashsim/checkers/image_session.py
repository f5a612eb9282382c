"""Where programs check images: a private folder, a private copy of the image, and what runs them.

Contract: made when it is first used, once in each process that uses it, so that a checker can be
made before its workers are forked. Whatever a checker does to its files is undone before the next
image, if need be by making the sandbox anew. Files a program finds:

- the image, and the same under the name that the guest knows its device by;
- the acknowledgements, a line for each;
- an empty folder to work in, which is emptied afterwards, and one for a file system's files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from crashsim.checkers.filesystem import How, Way, choose, close_quietly
from crashsim.checkers.helper import Helper
from crashsim.checkers.image_copy import ImageCopy
from crashsim.checkers.inotify import Inotify
from crashsim.checkers.scratch import Folder, empty
from crashsim.checkers.spawn import Ended, Environment, Limits
from crashsim.checkers.verdict import Acks, Ranges, Verdict, verdict
from crashsim.errors import CrashsimError, HelperDied
from crashsim.experiment.trial import MEMORY_BYTES as MEMORY_BYTES
from crashsim.experiment.trial import TIME_LIMIT_NS


class Sandbox:
    """Of one process, for images of one size; `files`: whether `files/` is somebody's to fill.
    `helper`: who runs programs, for so long."""

    def __init__(
        self, helper: Helper, time_s: float, image_bytes: int, device: str, files: bool
    ) -> None:
        self.helper = helper
        self._time_s = time_s
        self._process = os.getpid()
        self._folder = Folder()
        at = self._folder.path
        self.work = self._folder.work
        self.device = at / "device" / device
        self.acks = at / "acks"
        self.files = at / "files"
        self.image = ImageCopy(at / "image", image_bytes)
        self._shown: Acks | None = None
        self._watch = Inotify()
        self.device.parent.mkdir()
        self.device.symlink_to(self.image.path)
        self.files.mkdir()
        self.acks.touch()
        self._image_number = self._watch.add(self.image.path)
        self._work_number = self._watch.add(self.work)
        for path in (at, self.device.parent, self.acks, *(() if files else (self.files,))):
            self._watch.add(path)
        self._emptied = True  # by us: what the watch says next is not a checker's doing
        self.patience = 1  # programs have so many times their time
        self.touched = False  # set it after writing to the image in a way that nobody watches

    def usable(self, image_bytes: int) -> bool:
        """Ours, of that size, and no more was changed than the content of the image and what is in
        `work`, which is emptied."""
        if self._process != os.getpid() or self.image.size_bytes != image_bytes:
            return False
        touched = self._watch.touched()
        if not touched:
            return True
        self.touched |= self._image_number in touched
        if not touched <= {self._image_number, self._work_number}:
            return False
        empty(self.work)
        self._emptied = True
        return True

    def show(self, image: memoryview, acks: Acks, changed: Ranges | None) -> None:
        """Lay out what a program is to find."""
        seen = self.image.bring(image, changed, self.touched)
        self.touched = False
        if acks is not self._shown:
            self.acks.write_text(acks.lines)
            self._shown, seen = acks, True
        if seen or self._emptied:
            self._watch.touched()  # by this very function, and by `usable`
            self._emptied = False

    def run(self, words: list[str], environment: Environment) -> Ended:
        """Run a program here."""
        return self.helper.run(words, environment, self.work, self._time_s * self.patience)

    def close(self) -> None:
        """Remove it; in a process that inherited it, only let go of it."""
        self.image.close()
        self._watch.close()
        if self._process == os.getpid():
            self._folder.close()
        else:
            self._folder.abandon()


TIME_LIMIT_S = TIME_LIMIT_NS / 1e9
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
                return told
            witness = self.witness if way.name == "loop" else None
            found = ask(sandbox) if witness is None else witness(sandbox, ask)
            if not told:
                return found
            return verdict(found.kind, found.outcome, f"{found.message}\n{told}")
        finally:
            try:
                way.clear(sandbox)
            except (CrashsimError, OSError):
                self.renew()  # the next image gets a new sandbox

    def _shown(self, image: memoryview, acks: Acks, changed: Ranges | None) -> Sandbox:
        limits = Limits(self._memory_bytes, image.nbytes + self._memory_bytes)
        helper = self._helper
        if helper is None or helper.limits != limits or not helper.begun.is_usable:
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
