"""Each distinct view of the files is mounted and checked once.

Contract: before an image is mounted, what a mount would show is read from it (`crashsim.ext4`). A
view that was met before with the same acknowledgements has the verdict that it got then. All else
is mounted: a view not met yet, an image that only a mount can tell about, and file systems other
than ext4. What was not judged (`hang`, `unstable`, `broken`) is not remembered.

One in `SAMPLED` of the views met before is mounted all the same, by a draw that depends on the view
and how often it was met alone, and every one with `paranoid`. Then the mounted folder is held
against what was read, and the verdict against the one that is known. What differs is a
ReplayMismatch; but when the files are the same and the checker gives both verdicts on them, the
state is `unstable`.

A checker that is no function of the files and the acknowledgements has every state mounted from
then on: one that is unstable, and one that opens the image.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import xxhash

from crashsim.checkers.image_session import ImageSession, Question, Sandbox
from crashsim.checkers.inotify import Inotify
from crashsim.checkers.retry import Askable, Confirmed, agree, unstable
from crashsim.checkers.verdict import NO_ACKS, Acks, Ranges, Verdict
from crashsim.errors import ReplayMismatch
from crashsim.ext4.listing import difference, folder_listing
from crashsim.ext4.view import View

SAMPLED = 64
_KEPT = 1 << 14  # verdicts
_MOST_RANGES = 1 << 14
_REMEMBERED = ("ok", "finding", "crash")
_ASKED_AGAIN = 3

Key = tuple[int, int]  # of a view and acknowledgements


class OfFiles(Askable, Protocol):
    """A checker of the files of a file system."""

    @property
    def session(self) -> ImageSession: ...


class EachView:
    """A checker of files that is asked once about each view."""

    def __init__(self, checker: OfFiles, paranoid: bool = False) -> None:
        checker.session.witness = self._witness
        self._asked = checker
        self._checker = Confirmed(checker)
        self._paranoid = paranoid
        self._view: View | None = View()
        self._known: OrderedDict[Key, tuple[Verdict, int]] = OrderedDict()  # and how often met
        self._unseen: set[tuple[int, int]] | None = None  # what the checker has not seen of changes
        self._acks: tuple[Acks, int] = NO_ACKS, 0
        self._compared = False  # whether what is mounted is held against what was read
        self._mounted = 0  # how often that went well
        self._watch: tuple[Path, Inotify] | None = None

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        self._take(changed)
        view = None if self._view is None else self._view.of(image, changed)
        if view is None:
            return self._mount(image, acks)
        key = view, self._digest(acks)
        known, met = self._known.get(key, (None, 0))
        if known is None:
            found = self._mount(image, acks)
            if self._mounted and found.kind in _REMEMBERED and self._view is not None:
                self._remember(key, found, 1)
            return found
        self._remember(key, known, met + 1)
        if not self._paranoid and not _is_sampled(key, met):
            return known
        return self._compare(image, acks, known)

    def close(self) -> None:
        self._checker.close()
        if self._watch is not None:
            self._watch[1].close()
        self._watch = None

    def _compare(self, image: memoryview, acks: Acks, known: Verdict) -> Verdict:
        """The verdict on a state whose view is known: the same, or that there is none."""
        self._compared = True
        try:
            found = self._mount(image, acks)
        finally:
            self._compared = False
        if agree(found, known) or found.kind not in _REMEMBERED or self._view is None:
            return found
        if not self._mounted:
            raise ReplayMismatch(
                f"files that were read, and judged {_named(known)} before, do not mount: "
                f"{found.message}"
            )
        for _ in range(_ASKED_AGAIN):
            then = self._asked.again(image, acks, 1)
            if agree(then, known):
                self._view = None
                return unstable(found, then)
        raise ReplayMismatch(
            "two states with the same files and acknowledgements were judged "
            f"{_named(known)} and {_named(found)}: the checker may look at more than them (then "
            "--paranoid mounts every state), or crashsim reads ext4 wrongly"
        )

    def _mount(self, image: memoryview, acks: Acks) -> Verdict:
        unseen = None if self._unseen is None else sorted(self._unseen)
        self._unseen, self._mounted = None, 0  # unknown, if this does not come to an end
        found = self._checker.check(image, acks, unseen)
        self._unseen = set()
        if found.kind == "unstable":
            self._view = None
        return found

    def _witness(self, sandbox: Sandbox, ask: Question) -> Verdict:
        """Asks about the files that the kernel has mounted."""
        if self._view is None:
            return ask(sandbox)
        if self._compared:
            read, truncated = self._view.listing()
            folder = Path(f"/proc/{sandbox.helper.process}/root{sandbox.files}")
            differs = difference(read, folder_listing(folder, truncated))
            if differs:
                raise ReplayMismatch(f"a mount does not show what crashsim read: {differs}")
        opened = self._watched(sandbox.image.path)
        opened.touched()  # by us
        found = ask(sandbox)
        if opened.touched():
            self._view = None  # it looks at more than the files
            self._known.clear()
        self._mounted += 1
        return found

    def _watched(self, image: Path) -> Inotify:
        if self._watch is None or self._watch[0] != image:
            if self._watch is not None:
                self._watch[1].close()
            opened = Inotify()
            opened.add_opened(image)
            self._watch = image, opened
        return self._watch[1]

    def _take(self, changed: Ranges | None) -> None:
        if changed is None or self._unseen is None:
            self._unseen = None
            return
        self._unseen.update(changed)
        if len(self._unseen) > _MOST_RANGES:
            self._unseen = None

    def _digest(self, acks: Acks) -> int:
        if self._acks[0] is not acks:
            told = repr((acks.labels, list(acks.records))).encode()
            self._acks = acks, xxhash.xxh3_128_intdigest(told)
        return self._acks[1]

    def _remember(self, key: Key, found: Verdict, met: int) -> None:
        self._known[key] = found, met
        self._known.move_to_end(key)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)


def _is_sampled(key: Key, met: int) -> bool:
    """Drawn from the view and how often it was met."""
    return xxhash.xxh3_64_intdigest(repr((key, met)).encode()) % SAMPLED == 0


def _named(one: Verdict) -> str:
    return f"{one.kind} ({one.outcome})" if one.outcome else one.kind
