"""Where programs check images: a private folder, a private copy of the image, and what runs them.

Contract: made when it is first used, once in each process that uses it, so that a checker can be
made before its workers are forked. Files a program finds:

- the image, and the same under the name that the guest knows its device by;
- the acknowledgements, a line for each;
- an empty folder to work in, which is emptied afterwards, and one for a file system's files.
"""

from __future__ import annotations

import os

from crashsim.checkers.helper import Helper
from crashsim.checkers.image_copy import ImageCopy
from crashsim.checkers.inotify import Inotify
from crashsim.checkers.scratch import Folder, empty
from crashsim.checkers.spawn import Ended, Environment
from crashsim.checkers.verdict import Acks, Ranges


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
