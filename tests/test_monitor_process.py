"""The command line of a running process, read as the process sees it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crashsim.errors import UsageError
from crashsim.vmm.examine import read_process


def process(proc: Path, *words: str) -> Path:
    """A stand-in for /proc with one process, number 7."""
    own = proc / "7"
    (own / "cwd").mkdir(parents=True)
    (own / "root").mkdir()
    (own / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
    return own


def test_words_are_taken_as_the_process_got_them(tmp_path: Path) -> None:
    process(tmp_path, "/usr/bin/qemu-system-x86_64", "-name", "a b", "-append", "", "\udcff")
    words, _, _ = read_process(7, tmp_path)
    assert words == ["/usr/bin/qemu-system-x86_64", "-name", "a b", "-append", "", "\udcff"]


def test_files_are_looked_at_through_the_processs_folder_and_root(tmp_path: Path) -> None:
    own = process(tmp_path, "qemu-kvm")
    (own / "cwd" / "a.img").write_bytes(b"1")
    (own / "root" / "b.img").write_bytes(b"12")
    _, look, read = read_process(7, tmp_path)
    assert read("./a.img") == "1" and read("/b.img") == "12" and read("c.img") is None
    relative, absolute = look("./a.img"), look("/b.img")
    assert relative is not None and relative.size_bytes == 1
    assert absolute is not None and absolute.size_bytes == 2


@pytest.mark.parametrize(
    "name",
    [
        "kvm",
        "/usr/libexec/qemu-kvm",
        "cloud-hypervisor-static",
        "/usr/bin/crosvm",
        "firecracker-v1.13.1",
    ],
)
def test_monitors_are_known_by_their_programs(tmp_path: Path, name: str) -> None:
    process(tmp_path, name)
    assert read_process(7, tmp_path)[0] == [name]


def test_another_program_is_refused_by_name(tmp_path: Path) -> None:
    process(tmp_path, "/bin/bash", "-c", "qemu-system-x86_64")
    with pytest.raises(UsageError, match=r"process 7 is none of QEMU, .* it runs /bin/bash"):
        read_process(7, tmp_path)


def test_a_process_without_a_command_line_is_refused(tmp_path: Path) -> None:
    process(tmp_path)
    with pytest.raises(UsageError, match="process 7 has no command line"):
        read_process(7, tmp_path)


def test_no_such_process_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no process 8"):
        read_process(8, tmp_path)


def test_a_process_of_someone_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UsageError, match="process 7: no permission"):
        read_process(7)


def test_a_real_process_is_read() -> None:
    with pytest.raises(
        UsageError, match="is none of QEMU, cloud-hypervisor, crosvm and Firecracker"
    ):
        read_process(os.getpid())
