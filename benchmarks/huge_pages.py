"""How much a host writes for one stored byte and one sync: `python -m benchmarks.huge_pages`.

A file of 256 MiB on a file system of its own, mapped shared. 50 times: one byte is stored to a
page drawn at random, then the file is fsynced, 6 ms apart (more than a tick, so that each fsync
finds the time stamps dirty). Counted in the loop device's `/sys/block/*/stat`: KiB written and
FLUSHes (Rules H2, H11). `docs/huge-pages.md` tells what comes of it.

Who stores: a plain mapping, one with `MADV_HUGEPAGE`, or with `--qemu` a real QEMU whose
virtio-pmem memory the file is. Its guest never runs: the bytes are put there through QEMU's port
for debuggers.

Needs root, for the loop device and the mounts. Everything is done in a mount namespace of its own
over files that have no name any more, so nothing is left behind, also when it is killed. No setting
of the machine is changed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

FILE_BYTES = 256 << 20
DISK_BYTES = 1 << 30
PAGE_BYTES = 4096
SYNCS = 50
PAUSE_S = 0.006
_CLONE_NEWNS = 0x20000
_PR_SET_PDEATHSIG, _PR_SET_THP_DISABLE = 1, 41
_SIGKILL = 9
_LIBC = ctypes.CDLL(None, use_errno=True)

Store = Callable[[int], None]  # puts a byte at an offset


@dataclass(frozen=True, slots=True)
class Case:
    """A row: a file system, how it is mounted, and who stores. `way` is a key of `_WAYS`."""

    name: str
    mkfs: tuple[str, ...]
    mount: str = "defaults"
    way: str = "MADV_HUGEPAGE"
    qemu: str = ""  # more of the memory backend's properties
    then: tuple[str, ...] = ()  # a command on the new file system


_EXT4 = ("mkfs.ext4", "-q", "-F")
_XFS = ("mkfs.xfs", "-q", "-f")
_BTRFS = ("mkfs.btrfs", "-q", "-f")
MAPPED = (
    Case("ext4, plain mapping", _EXT4, way="plain"),
    Case("ext4, MADV_HUGEPAGE", _EXT4),
    Case("ext4 with blocks of 1 KiB, MADV_HUGEPAGE", (*_EXT4, "-b", "1024")),
    Case("ext4 mounted nodelalloc, MADV_HUGEPAGE", _EXT4, "nodelalloc"),
    Case("ext4 mounted dioread_lock, MADV_HUGEPAGE", _EXT4, "dioread_lock"),
    Case("ext4 with a journal of 4 MiB, MADV_HUGEPAGE", (*_EXT4, "-J", "size=4")),
    Case("ext4, PR_SET_THP_DISABLE, MADV_HUGEPAGE", _EXT4, way="THP disabled"),
    Case("ext4, every page read before by a mapping with MADV_RANDOM", _EXT4, way="read before"),
    Case("ext4 mounted data=journal, MADV_HUGEPAGE", _EXT4, "data=journal"),
    Case("ext4 made with -O verity, MADV_HUGEPAGE", (*_EXT4, "-O", "verity")),
    Case("ext4, then tune2fs -O verity, MADV_HUGEPAGE", _EXT4, then=("tune2fs", "-O", "verity")),
    Case("XFS, plain mapping", _XFS, way="plain"),
    Case("XFS, MADV_HUGEPAGE", _XFS),
    Case("XFS with blocks of 1 KiB, MADV_HUGEPAGE", (*_XFS, "-b", "size=1024")),
    Case("XFS, every page read before by a mapping with MADV_RANDOM", _XFS, way="read before"),
    Case("btrfs, MADV_HUGEPAGE", _BTRFS),
)
QEMU = (
    Case("ext4, QEMU", _EXT4, way="QEMU"),
    Case("ext4, QEMU with prealloc=on", _EXT4, way="QEMU", qemu=",prealloc=on"),
    Case("ext4, QEMU with align=4K", _EXT4, way="QEMU", qemu=",align=4K"),
    Case("ext4, QEMU with merge=off,dump=off", _EXT4, way="QEMU", qemu=",merge=off,dump=off"),
    Case("ext4 made with -O verity, QEMU", (*_EXT4, "-O", "verity"), way="QEMU"),
    Case("ext4 mounted data=journal, QEMU", _EXT4, "data=journal", way="QEMU"),
    Case("XFS, QEMU", _XFS, way="QEMU"),
    Case("btrfs, QEMU", _BTRFS, way="QEMU"),
)


@contextmanager
def _mapping(file: int, advice: int | None) -> Iterator[Store]:
    memory = mmap.mmap(file, FILE_BYTES)
    if advice is not None:
        memory.madvise(advice)

    def store(offset: int) -> None:
        memory[offset] = 1

    yield store
    memory.close()


@contextmanager
def _without_thp(file: int) -> Iterator[Store]:
    _LIBC.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)  # of this process, which ends with its case
    with _mapping(file, mmap.MADV_HUGEPAGE) as store:
        yield store


@contextmanager
def _read_before(file: int) -> Iterator[Store]:
    memory = mmap.mmap(file, FILE_BYTES)
    memory.madvise(mmap.MADV_RANDOM)
    for offset in range(0, FILE_BYTES, PAGE_BYTES):
        memory[offset]  # faults it in, alone
    memory.close()
    with _mapping(file, mmap.MADV_HUGEPAGE) as store:
        yield store


_WAYS: dict[str, Callable[[int], AbstractContextManager[Store]]] = {
    "plain": lambda file: _mapping(file, None),
    "MADV_HUGEPAGE": lambda file: _mapping(file, mmap.MADV_HUGEPAGE),
    "THP disabled": _without_thp,
    "read before": _read_before,
}


@contextmanager
def _qemu(program: str, path: Path, properties: str, folder: Path) -> Iterator[Store]:
    """A QEMU that stands still; its memory is written through the port for debuggers."""
    ports = {name: folder / name for name in ("gdb", "qmp")}
    memory = f"memory-backend-file,id=m,share=on,mem-path={path},size={FILE_BYTES}{properties}"
    words = [program, "-S", "-accel", "tcg", "-machine", "q35", "-m", "256M,slots=1,maxmem=2G"]
    words += ["-nodefaults", "-display", "none", "-object", memory]
    words += ["-device", "virtio-pmem-pci,memdev=m"]
    words += ["-gdb", f"unix:{ports['gdb']},server=on,wait=off"]
    words += ["-qmp", f"unix:{ports['qmp']},server=on,wait=off"]
    with ExitStack() as held:
        process = subprocess.Popen(words)
        held.callback(process.wait)
        held.callback(process.kill)
        qmp = held.enter_context(_connected(ports["qmp"], process))
        lines = held.enter_context(qmp.makefile("r"))
        lines.readline()
        _asked(qmp, lines, "qmp_capabilities")
        devices = _asked(qmp, lines, "query-memory-devices")
        first = int(devices[0]["data"]["memaddr"])
        gdb = held.enter_context(_connected(ports["gdb"], process))
        _told(gdb, "Qqemu.PhyMemMode:1")
        yield lambda offset: _told(gdb, f"M{first + offset:x},1:01")


def _connected(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    port = socket.socket(socket.AF_UNIX)
    while process.poll() is None:
        try:
            port.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.05)
        else:
            return port
    raise RuntimeError("QEMU ended at once")


def _asked(port: socket.socket, lines: IO[str], command: str) -> Any:
    port.sendall(json.dumps({"execute": command}).encode())
    while True:
        answer = json.loads(lines.readline())
        if "return" in answer:
            return answer["return"]


def _told(port: socket.socket, packet: str) -> None:
    """One packet of gdb's remote protocol that is answered with OK."""
    port.sendall(f"${packet}#{sum(packet.encode()) % 256:02x}".encode())
    answer = b""
    while b"#" not in answer:
        answer += port.recv(64)
    port.sendall(b"+")
    if b"$OK#" not in answer:
        raise RuntimeError(f"QEMU answered {answer!r} to {packet}")


def measure(case: Case, program: str) -> tuple[int, int]:
    """(KiB written, FLUSHes) of `SYNCS` stores with a sync behind each. Call it in a process that
    ends afterwards: it leaves the mounts to the end of its mount namespace."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if _LIBC.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare: no mount namespace of its own")
    _run("mount", "--make-rprivate", "/")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run("mount", "-t", "tmpfs", "none", name)  # sockets and the disk's image end with it
        image, point = folder / "disk", folder / "files"
        with image.open("wb") as disk:
            disk.truncate(DISK_BYTES)
        _run(*case.mkfs, str(image))
        if case.then:
            _run(*case.then, str(image))
        point.mkdir()
        _run("mount", "-o", f"loop,{case.mount}", str(image), str(point))
        with _loop_stat(point).open() as counters:
            found = _counted(case, program, point / "file", folder, counters)
        _run("umount", str(point))
        _run("umount", name)
    return found


def _counted(
    case: Case, program: str, path: Path, folder: Path, counters: IO[str]
) -> tuple[int, int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, FILE_BYTES)
    os.fsync(file)
    drawn = random.Random(1)
    by_qemu = case.way == "QEMU"
    way = _qemu(program, path, case.qemu, folder) if by_qemu else _WAYS[case.way](file)
    with way as store:
        os.fsync(file)
        before = _counts(counters)
        for _ in range(SYNCS):
            store(drawn.randrange(FILE_BYTES // PAGE_BYTES) * PAGE_BYTES)
            os.fsync(file)
            time.sleep(PAUSE_S)
        after = _counts(counters)
    os.close(file)
    return after[0] - before[0], after[1] - before[1]


def _loop_stat(point: Path) -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[4] == str(point):
            return Path("/sys/block") / Path(words[words.index("-") + 2]).name / "stat"
    raise RuntimeError(f"{point}: not mounted")


def _counts(counters: IO[str]) -> tuple[int, int]:
    """(KiB written, FLUSHes) of a block device so far."""
    counters.seek(0)
    fields = counters.read().split()
    return int(fields[6]) // 2, int(fields[15])


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.huge_pages")
    parser.add_argument("--qemu", metavar="PROGRAM", default="", help="also as QEMU's memory")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if os.geteuid():
        print("needs root, for a loop device and mounts of its own", file=sys.stderr)
        return 2
    cases = {case.name: case for case in (*MAPPED, *QEMU)}
    if options.case is not None:
        print(*measure(cases[options.case], options.qemu))
        return 0
    print(f"Linux {os.uname().release}; {SYNCS} times one byte stored and an fsync\n")
    print("| file system, and who stores | KiB written | KiB for each sync | FLUSHes |")
    print("|---|---:|---:|---:|")
    for name in [case.name for case in (*MAPPED, *(QEMU if options.qemu else ()))]:
        again = [sys.executable, "-m", "benchmarks.huge_pages", "--case", name]
        done = subprocess.run(
            [*again, "--qemu", options.qemu], check=False, capture_output=True, text=True
        )
        if done.returncode:
            print(f"| {name} | not measured: {done.stderr.splitlines()[-1]} | | |", flush=True)
            continue
        written, flushes = map(int, done.stdout.split())
        print(f"| {name} | {written:,} | {written / SYNCS:,.0f} | {flushes} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
