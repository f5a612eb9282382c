"""A Python function as a checker, in a process of its own: our end of a keeper and its child.

Contract: whatever the function does there is its verdict (`called.py`); nothing of that reaches
this process, and every question gets an answer: the function's, or that it died, ended its process,
did not end in its time, or was stopped. One child answers many questions, because starting one
costs a hundred times what asking does; when it is gone the next question is for a new one, and
`renew` makes it so. The image is shared with the child, which cannot write to it; an image that is
in no `SharedImage` is copied into one. What the keeper (`keeper.py`) or its child prints is read as
it comes, so that neither ever has to wait; the first and the last bytes of it are kept.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from crashsim.checkers.begin import Begun
from crashsim.checkers.keeper import LONGEST_WORD
from crashsim.checkers.spawn import (
    LONGEST_POLL_MS,
    PIPE_BYTES,
    is_stopped,
    shorten,
    signal_name,
)
from crashsim.checkers.verdict import OK, Acks, Verdict, verdict
from crashsim.engine.shared import SharedImage
from crashsim.errors import UsageError

if TYPE_CHECKING:
    from crashsim.checkers.spec import Files, Function
from crashsim.checkers.image_session import DEVICE, ImageSession, Sandbox
from crashsim.checkers.verdict import Ranges

if TYPE_CHECKING:
    from crashsim.checkers.spec import Files

_WHERE = re.compile(r'File "([^"]*)", line (\d+) in (\S+)')
_FATAL = "Fatal Python error"
_IMPORT_S = 60.0  # a module that takes longer to import is given up
_KEEPER_S = 10.0  # it only has to kill and to reap
_AT_ONCE_S = 0.02
_MOST_AT_ONCE = 16
_MOST_BYTES_AT_ONCE = 1 << 26


class Child:
    """Who answers, and what it knows."""

    def __init__(self, process: int, talk: socket.socket) -> None:
        self.process = process
        self.talk = talk
        self._images: dict[int, SharedImage] = {}  # by number
        self._known: Acks | None = None

    def ask(self, word: bytes, images: Sequence[SharedImage], acks: Acks) -> None:
        """A question, and what it does not know yet. ConnectionError when it is gone."""
        for number, image in enumerate(images):
            if image is not self._images.get(number):
                self._give(b"i%d" % number, image.reading())
                self._images[number] = image
        whole = acks.whole or acks
        if whole is not self._known:
            every = json.dumps([whole.labels, list(whole.records)])
            self._give(b"a", _file_of(every.encode()))
            self._known = whole
        self.talk.send(b"%s %d" % (word, acks.count))

    def _give(self, word: bytes, fd: int) -> None:
        try:
            self.talk.send(word)
            socket.send_fds(self.talk, [b"."], [fd])
        finally:
            os.close(fd)


def _file_of(content: bytes) -> int:
    """In memory, to be read by who is given the descriptor."""
    fd = os.memfd_create("crashsim", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class Keeper:
    """Of one function, in the process that made it."""

    def __init__(self, spec: Function | Files, code: bytes, mounts: int | None) -> None:
        """`code`: that of the spec; `mounts`: the process whose mounts it is to see, if it has its
        own."""
        self.child: Child | None = None
        self.mounts = mounts
        self._name = spec.name
        self._said = bytearray()
        self._out, out = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._out, False)
        sent = _file_of(code)
        wanted: dict[str, object] = {
            "name": spec.name,
            "code": sent if code else None,
            "folder": os.path.abspath(spec.folder),
            "memory_bytes": spec.memory_bytes,
            "mounts": mounts,
        }
        try:
            self.begun = Begun("keeper", wanted, out, plain=False, given=[sent])
        finally:
            os.close(out)
            os.close(sent)
        self._control = self.begun.control
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._out, select.POLLIN)

    def start_child(self) -> None:
        """UsageError when there is no such function."""
        with suppress(ConnectionError):  # it has ended; it may have said why
            self._control.send(b"f")
        if not self._heard(time.monotonic() + _IMPORT_S):
            raise UsageError(f"{self._name}: not imported after {_IMPORT_S:g} s")
        try:
            word, fds, _, _ = socket.recv_fds(self._control, LONGEST_WORD, 1)
        except ConnectionError:
            word, fds = b"", []
        if word[:1] == b"u":
            raise UsageError(word[1:].decode("utf-8", "replace"))
        if not fds:
            code = self.begun.wait()
            how = f"killed by {signal_name(-code)}" if code < 0 else f"exit code {code}"
            told = f"{self._name}: importing it ended the process ({how})"
            raise UsageError("\n".join([told, self.output()]).strip())
        talk = socket.socket(fileno=fds[0])
        talk.set_inheritable(False)
        self._poll.register(talk, select.POLLIN)
        self.child = Child(int(word[1:]), talk)

    def answer(self, end: float) -> bytes | None:
        """What the child says until then: nothing if it has ended, None if its time is up."""
        assert self.child is not None, "there is a child"
        talk = self.child.talk.fileno()
        while True:
            ready = self._ready(end)
            if talk in ready:
                with suppress(ConnectionError):
                    return os.read(talk, LONGEST_WORD)
                return b""
            if self._control.fileno() in ready:
                return b""
            if not ready:
                return None

    def answers(self, count: int, time_s: float) -> list[bytes | None]:
        """So many, each with that time, up to the first that does not come."""
        found = [self.answer(time.monotonic() + time_s)]
        while found[-1] and len(found) < count:
            assert self.child is not None, "it has answered"
            try:
                found.append(self.child.talk.recv(LONGEST_WORD, socket.MSG_DONTWAIT))
            except BlockingIOError:
                found.append(self.answer(time.monotonic() + time_s))
            except ConnectionError:
                found.append(b"")
        return found

    def kill_child(self) -> int | None:
        """How it ended, as in `ended_child`."""
        with suppress(ConnectionError):
            self._control.send(b"k")
        return self.ended_child()

    def ended_child(self) -> int | None:
        """Its exit code or minus the signal that killed it, once nothing of it is left; None if
        it took the keeper with it."""
        assert self.child is not None, "there is a child"
        self._forget_child()
        if self._heard(time.monotonic() + _KEEPER_S):
            with suppress(ConnectionError):
                word = self._control.recv(LONGEST_WORD)
                if word[:1] == b"d":
                    return int(word[1:])
        self.begun.kill()  # its child ends with it
        return None

    def forget_output(self) -> None:
        self._said.clear()

    def output(self) -> str:
        """What was printed since it was forgotten."""
        self._drain()
        return self._said.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """In a process that inherited it, only let go of it."""
        if self.child is not None:
            self._forget_child()
        os.close(self._out)
        self.begun.close()

    def _forget_child(self) -> None:
        assert self.child is not None, "there is a child"
        self._poll.unregister(self.child.talk)
        self.child.talk.close()
        self.child = None

    def _heard(self, end: float) -> bool:
        """Wait for a word of the keeper."""
        while ready := self._ready(end):
            if self._control.fileno() in ready:
                return True
        return False

    def _ready(self, end: float) -> list[int]:
        """What can be read; nothing when the time is up. What was printed is taken."""
        ready: list[int] = []
        left_ms = max((end - time.monotonic()) * 1000, 0)
        while not ready and left_ms >= 0:
            ready = [descriptor for descriptor, _ in self._poll.poll(min(left_ms, LONGEST_POLL_MS))]
            left_ms -= LONGEST_POLL_MS
        if self._out in ready and not self._drain():
            self._poll.unregister(self._out)  # the child and all that it started have closed it
        return ready

    def _drain(self) -> bool:
        """Whether there may be more some time."""
        with suppress(BlockingIOError):
            new = os.read(self._out, PIPE_BYTES)
            self._said += new
            shorten(self._said)
            return bool(new)
        return True


class Contained:
    """The limit of memory is what it may take besides the image and what its modules take."""

    def __init__(self, spec: Function | Files) -> None:
        self._spec = spec
        self._code = spec.code
        self._mounts: int | None = None
        self._keeper: Keeper | None = None
        self._own: SharedImage | None = None
        self._pace_s = self._spec.time_limit_s  # what the last question took, for each image

    def ask_image(self, image: memoryview, acks: Acks, patience: int = 1) -> Verdict:
        """The verdict on an image; `patience`: with so many times the time. UsageError when there
        is no such function."""
        return self._ask(b"b1", [self._shared(image)], acks, patience)[0]

    def at_once(self, image_bytes: int) -> int:
        """How many images of that size are best asked about together, so that an answer does not
        take long: 1 for a function that is slow, or has just died."""
        most = min(
            _MOST_AT_ONCE, _MOST_BYTES_AT_ONCE // image_bytes, int(_AT_ONCE_S / self._pace_s)
        )
        return max(1, most)

    def ask_images(self, images: Sequence[memoryview], acks: Acks) -> list[Verdict]:
        """The verdicts on these `SharedImage`s, up to the first without an answer. What is printed
        meanwhile is told with none of them."""
        shared = [image.obj for image in images if isinstance(image.obj, SharedImage)]
        return self._ask(b"b%d" % len(shared), shared, acks, 1, len(shared))

    def ask_files(
        self, folder: Path, mounts: int | None, image_bytes: int, acks: Acks, patience: int = 1
    ) -> Verdict:
        """The same of the files in a folder, as the process `mounts` sees it, of an image of that
        size."""
        self._mounts = mounts
        return self._ask(b"f%s %d" % (os.fsencode(folder), image_bytes), [], acks, patience)[0]

    def renew(self) -> None:
        """The next question is for a new child."""
        keeper = self._keeper
        if keeper is not None and keeper.child is not None and keeper.begun.is_ours:
            keeper.kill_child()

    def close(self) -> None:
        """End all; it can be used again."""
        if self._keeper is not None:
            self._keeper.close()
        self._keeper = self._own = None

    def _shared(self, image: memoryview) -> SharedImage:
        there = image.obj
        if isinstance(there, SharedImage) and len(there) == image.nbytes:
            return there
        if self._own is None or len(self._own) != image.nbytes:
            self._own = SharedImage(image.nbytes)
        self._own[:] = image
        return self._own

    def _ask(
        self,
        word: bytes,
        images: Sequence[SharedImage],
        acks: Acks,
        patience: int,
        count: int = 1,
    ) -> list[Verdict]:
        """So many verdicts, or up to the first without an answer."""
        keeper = self._keeper
        if keeper is None or keeper.child is None or not self._fits(keeper):
            keeper = self._made_ready()
        assert keeper.child is not None, "it was made ready"
        keeper.forget_output()
        with suppress(ConnectionError):  # it has ended: the keeper says how
            keeper.child.ask(word, images, acks)
        asked, time_s = time.monotonic(), self._spec.time_limit_s * patience
        answers = keeper.answers(count, time_s)
        took_s = (time.monotonic() - asked) / len(answers)
        self._pace_s = took_s if answers[-1] else self._spec.time_limit_s
        verdicts = []
        for answer in answers:
            if answer == b"+":
                verdicts.append(OK)
            elif answer:
                kind, outcome, message = json.loads(answer)
                printed = keeper.output() if count == 1 else ""
                verdicts.append(verdict(kind, outcome, _joined(message, printed)))
            elif answer is None:
                verdicts.append(self._late(keeper, time_s))
            else:
                verdicts.append(_ended(keeper.ended_child(), keeper.output()))
        return verdicts

    def _made_ready(self) -> Keeper:
        """A keeper with a child that waits for questions."""
        keeper = self._keeper
        if keeper is None or not (self._fits(keeper) and keeper.begun.is_usable):
            self.close()
            keeper = self._keeper = Keeper(self._spec, self._code, self._mounts)
        if keeper.child is None:
            try:
                keeper.start_child()
            except BaseException:  # also an interrupt: no half-made keeper stays
                self.close()
                raise
        return keeper

    def _fits(self, keeper: Keeper) -> bool:
        return keeper.begun.is_ours and keeper.mounts == self._mounts

    def _late(self, keeper: Keeper, time_s: float) -> Verdict:
        assert keeper.child is not None, "it was asked"
        stopped = is_stopped(keeper.child.process)
        keeper.kill_child()
        if stopped:
            return verdict("hang", "stopped", _joined("its process was stopped", keeper.output()))
        told = f"no answer after {time_s:g} s"
        return verdict("hang", "timed out", _joined(told, keeper.output()))


def _ended(status: int | None, output: str) -> Verdict:
    """Without an answer."""
    if status is None:
        return verdict("crash", "died: with its keeper", output)
    if status >= 0:
        told = f"it ended its process with exit code {status} and gave no answer"
        return verdict("crash", f"ended: exit code {status}", _joined(told, output))
    name = signal_name(-status)
    said, _, report = output.partition(_FATAL)  # what Python's fault handler prints has addresses
    where = _WHERE.search(report)
    place = f"{Path(where[1]).name}:{where[2]}, {where[3]}" if where else ""
    return verdict("crash", f"died: {name}", _joined(f"killed by {name}", place, said.strip()))


def _joined(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


class FunctionChecker(Contained):
    """Calls a function with the image. The function is looked for when the first image is checked:
    that raises UsageError when there is none."""

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        return self.ask_image(image, acks)

    def again(self, image: memoryview, acks: Acks, patience: int) -> Verdict:
        self.renew()
        return self.ask_image(image, acks, patience)


class FilesChecker:
    """Calls a function with the files of the file system in the image; it may write to them."""

    def __init__(self, spec: Files, paranoid: bool) -> None:
        self._contained = Contained(spec)
        needs = [Path(spec.folder).absolute()]
        limits = spec.time_limit_s, spec.memory_bytes
        self.session = ImageSession(spec.how, DEVICE, *limits, paranoid, needs)
        self._sandbox: Sandbox | None = None

    @property
    def way(self) -> str | None:
        """How the files are made, `loop` or `debugfs`, once an image was checked."""
        return self.session.way

    def check(self, image: memoryview, acks: Acks, changed: Ranges | None = None) -> Verdict:
        return self._check(image, acks, changed, 1)

    def again(self, image: memoryview, acks: Acks, patience: int) -> Verdict:
        self._contained.renew()
        self.session.renew()
        return self._check(image, acks, None, patience)

    def close(self) -> None:
        self._contained.close()  # first: it may have files open
        self.session.close()
        self._sandbox = None

    def _check(
        self, image: memoryview, acks: Acks, changed: Ranges | None, patience: int
    ) -> Verdict:
        def ask(sandbox: Sandbox) -> Verdict:
            if sandbox is not self._sandbox:
                self._contained.renew()  # it may keep files of the last sandbox open
                self._sandbox = sandbox
            mounts = sandbox.helper.process if sandbox.helper.has_mounts else None
            return self._contained.ask_files(sandbox.files, mounts, image.nbytes, acks, patience)

        return self.session.check(image, acks, changed, ask, patience)
