"""What the tests of the checkers share: images, acknowledgements, programs to run, small runs."""

from __future__ import annotations

import ctypes
import gc
import gzip
import mmap
import os
import shlex
import signal
import struct
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from crashsim.checkers import Acks, Verdict
from crashsim.checkers.spec import Command
from crashsim.engine.history import History
from crashsim.experiment.loader import load
from crashsim.guest.program import Program
from crashsim.simulate.inputs import Inputs, make_inputs
from crashsim.simulate.stack import simulate

RECORDINGS = Path(__file__).parents[1] / "experiments" / "recordings"
IMAGE_BYTES = 1 << 16
_PR_GET_CHILD_SUBREAPER = 37
ACKS = Acks(("ready", "ack 0"), ((0, 1), (1, 2)))


def image_of(content: bytes = b"", size_bytes: int = IMAGE_BYTES) -> memoryview:
    """A writable image that begins with the content."""
    image = memoryview(mmap.mmap(-1, size_bytes))
    image[: len(content)] = content
    return image


def python(code: str) -> str:
    """A command that runs the code; `{image}` and so on can be its arguments, behind it."""
    return f"{shlex.quote(sys.executable)} -S -c {shlex.quote(code)}"


def once(
    command: str,
    image: memoryview | None = None,
    acks: Acks = ACKS,
    time_limit_s: float = 10.0,
    memory_bytes: int = 2 << 30,
) -> Verdict:
    """The verdict of a command on one image."""
    checker = Command(command, time_limit=time_limit_s, memory=memory_bytes).checker()
    try:
        return checker.check(image_of() if image is None else image, acks)
    finally:
        checker.close()


def processes_with(word: str) -> list[int]:
    """Processes of this machine with the word among their arguments, zombies left out, and those
    that another of pytest's workers has started: it may be at the same test."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                arguments = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:  # it ended
                continue
            if word.encode() in arguments and not _is_of_another_worker(int(entry)):
                found.append(int(entry))
    return found


def _is_of_another_worker(process: int) -> bool:
    with suppress(OSError):  # it ended
        while process not in (0, 1, os.getpid()):
            if process == os.getppid():
                return True
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def children() -> list[str]:
    """Processes that this one would have to wait for."""
    tasks = Path("/proc/self/task").glob("*/children")
    return sorted(" ".join(task.read_text() for task in tasks).split())


def caller() -> dict[str, object]:
    """What nobody may change of the process that uses a checker."""
    gc.collect()  # what others left open
    subreaper = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(subreaper), 0, 0, 0)
    return {
        "children": children(),
        "folder": os.getcwd(),
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "subreaper": subreaper.value,
        "mounts": os.readlink("/proc/self/ns/mnt"),
        "limits": Path("/proc/self/limits").read_text(),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def wait_until(done: Callable[[], bool]) -> None:
    """Of what others do: there is no telling when."""
    for _ in range(6000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def loops(prefix: str) -> list[str]:
    """Files below folders of that prefix that are attached to loop devices."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it was detached just now
            found.append(entry.read_text().strip())
    return [file for file in found if prefix in file]


def own_prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the private folders of this test alone: other tests may run at the same time."""
    # Not one that begins with what is usual: others would remove what a killed process left.
    unique = f"crashsim-of-a-test-{uuid.uuid4().hex}-"
    monkeypatch.setattr("crashsim.checkers.scratch._PREFIX", unique)
    return unique


def empty_ext4() -> bytes:
    """The disk before all recordings."""
    return gzip.decompress((RECORDINGS / "ext4-32M.img.gz").read_bytes())


@dataclass(frozen=True)
class Entry:
    """A request of a recording, or its mark."""

    offset: int
    content: bytes
    label: str


def entries(name: str) -> Iterator[Entry]:
    """The requests of a recording, in order."""
    log = gzip.decompress((RECORDINGS / f"{name}.log.gz").read_bytes())
    at = 512
    for _ in range(struct.unpack_from("<Q", log, 16)[0]):
        sector, sectors, _flags, label_bytes = struct.unpack_from("<4Q", log, at)
        label = log[at + 32 : at + 32 + label_bytes].decode()
        at += 512
        content = log[at : at + sectors * 512]
        at += len(content)
        yield Entry(sector * 512, content, label)


def after_requests(name: str, count: int) -> tuple[memoryview, Acks]:
    """The disk after the first requests of a recording, in their order, and what was promised."""
    image = image_of(empty_ext4(), 32 << 20)
    labels = []
    for number, entry in enumerate(entries(name)):
        if number == count:
            break
        if entry.label:
            labels.append(entry.label)
        image[entry.offset : entry.offset + len(entry.content)] = entry.content
    return image, Acks(tuple(labels), tuple((n, n) for n in range(len(labels))))


@dataclass(frozen=True)
class Ran:
    """A small experiment that has run."""

    history: History
    inputs: Inputs
    kind: str  # of the first device's workload

    @property
    def programs(self) -> list[Program]:
        return self.inputs.programs


def run_experiment(folder: Path, text: str) -> Ran:
    """Run an experiment given as text."""
    path = folder / "experiment.yaml"
    path.write_text(text)
    (case,) = load(path).cases
    inputs = make_inputs(case.experiment)
    (_, workload, _), *_ = case.experiment.resolved_devices()
    return Ran(simulate(case.experiment, inputs.programs), inputs, workload.kind)
