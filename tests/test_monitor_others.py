"""crosvm's command line and Firecracker's JSON: every spelling, and every mistake at its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crashsim.errors import CommandLineError
from crashsim.vmm import probe
from crashsim.vmm.firecracker import read_json
from crashsim.vmm.machine import Machine
from crashsim.vmm.monitors import read_command, read_text
from crashsim.vmm.probe import HostFile, looker, reader

MIB = 1 << 20


def whole(path: str) -> HostFile:
    return HostFile("file", 4 * MIB, 4 * MIB, MIB)


def only(text: str, look: probe.Look | None = None) -> str:
    with pytest.raises(CommandLineError) as caught:
        read_text(text, look)
    (mistake,) = caught.value.mistakes
    assert mistake.place is not None
    return f"{mistake.place}: {mistake.message}"


# crosvm


@pytest.mark.parametrize(
    ("options", "path", "readonly"),
    [
        ("--pmem disk.img", "disk.img", False),
        ("--pmem=disk.img,ro", "disk.img", True),
        ("--pmem path=disk.img,ro=true,root=true", "disk.img", True),
        ("--pmem disk.img,ro=false", "disk.img", False),
        ("--pmem-device disk.img", "disk.img", True),
        ("--pmem-device path=disk.img,sparse=false", "disk.img", True),
        ("--rw-pmem-device disk.img", "disk.img", False),
    ],
)
def test_crosvms_pmem_is_read(options: str, path: str, readonly: bool) -> None:
    machine = read_text(f"crosvm --no-syslog run --mem 512 {options} vmlinux", whole)
    (device,) = machine.devices
    assert (device.name, device.monitor, device.backend.mem_path) == ("pmem0", "crosvm", path)
    assert device.backend.size_bytes == 4 * MIB and device.backend.share
    assert device.backend.is_read_only == readonly


def test_crosvms_devices_are_in_its_order() -> None:
    text = "crosvm run --pmem-ext2 /d:size=33554432 --rw-pmem-device c --pmem-device b --pmem a"
    machine = read_text(text)
    assert [(d.name, d.backend.mem_path) for d in machine.devices] == [
        ("pmem0", "a"),
        ("pmem1", "b"),
        ("pmem2", "c"),
        ("pmem3", "/d"),
    ]
    folder = machine.devices[3].backend
    assert (folder.size_bytes, folder.is_read_only) == (32 * MIB, True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--pmem a,readonly=true", "word 4, column 3: --pmem has no key 'readonly'"),
        ("--pmem a,ro=on", "word 4, column 3: ro takes true or false"),
        ("--pmem ro=true", "word 4, column 1: --pmem needs a path"),
        ("--pmem", "word 3, column 1: --pmem needs a value"),
        ("--pmem=a,path=b", "word 3, column 10: path is given twice"),
        ("--pmem 'a,path=\"b\"'", "cannot be read: quotes within a value"),
        ("--pmem a,vma-size=1M", "vma-size takes a number of bytes"),
        ("--pmem-dev a", "no option --pmem-dev; did you mean 'pmem-device'?"),
        ("--pmem-ext2 d:siz=1", "has no key 'siz'; did you mean 'size'?"),
        ("--pmem-ext2 d:size=1M", "size takes a number of bytes"),
    ],
)
def test_crosvms_mistakes_are_reported(options: str, expected: str) -> None:
    assert expected in only(f"crosvm run {options}")


def test_only_a_run_of_crosvm_is_a_machine() -> None:
    assert "only `crosvm run` starts a machine" in only("crosvm stop /run/vm.sock")
    assert read_text("crosvm run vmlinux").devices == ()


@pytest.mark.parametrize("text", ["crosvm run --pmem a", "cloud-hypervisor --pmem file=a"])
def test_a_file_that_is_not_there_is_refused_by_those_who_create_none(text: str) -> None:
    assert "creates no file" in only(text, lambda path: HostFile("missing"))
    assert "is empty" in only(text, lambda path: HostFile("file"))


# Firecracker

ENTRY = '{"id": "rootfs", "path_on_host": "./root.ext4"%s}'
DOCUMENT = '{"boot-source": {"kernel_image_path": "vmlinux"}, "drives": [], "pmem": [%s]}'


def configured(entries: str, look: probe.Look | None = None) -> Machine:
    return read_json(DOCUMENT % entries, look)


def test_firecrackers_pmem_is_read() -> None:
    limiter = '"rate_limiter": {"ops": {"size": 1, "refill_time": 100}}'
    first = ENTRY % f', "root_device": true, "read_only": true, {limiter}'
    second = '{"id": "b", "path_on_host": "/b.img"}'
    machine = configured(f"{first}, {second}", whole)
    assert [(d.name, d.monitor, d.backend.mem_path) for d in machine.devices] == [
        ("rootfs", "firecracker", "./root.ext4"),
        ("b", "firecracker", "/b.img"),
    ]
    assert [d.backend.is_read_only for d in machine.devices] == [True, False]
    assert all(d.backend.share and d.backend.size_bytes == 4 * MIB for d in machine.devices)
    assert read_json('{"boot-source": {}}').devices == ()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (DOCUMENT % ENTRY % ', "readonly": true', "pmem has no key 'readonly'; did you mean"),
        (DOCUMENT % ENTRY % ', "read_only": "yes"', "read_only takes true or false"),
        (DOCUMENT % '{"id": "a"}', "configuration, pmem[0], column 1: a pmem entry needs path_on"),
        (DOCUMENT % f"{ENTRY % ''}, {ENTRY % ''}", "the id 'rootfs' is given twice"),
        (DOCUMENT % ENTRY % ', "id": 1', "id takes a text"),
        ('{"pmem": {}}', "cannot be read: expected an object whose pmem is a list of objects"),
        ('{"pmem": [1]}', "cannot be read: expected"),
        ("[]", "cannot be read: expected"),
        ('{"pmem": [\n}', "configuration, line 2, column 1: cannot be read: not JSON"),
        ("[" * 100_000, "cannot be read: not JSON"),
        ("1" * 10_000, "cannot be read: not JSON"),
    ],
)
def test_firecrackers_mistakes_are_reported(document: str, expected: str) -> None:
    with pytest.raises(CommandLineError) as caught:
        read_json(document)
    (mistake,) = caught.value.mistakes
    assert expected in f"{mistake.place}: {mistake.message}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("firecracker --api-sock /run/fc.sock", "the devices come over the API socket"),
        ("firecracker --config-file none.json", "none.json is no file that can be read here"),
        ("jailer --id 1 --exec-file /bin/firecracker -- --config-file a", "lies in its jail"),
    ],
)
def test_what_no_command_line_tells_cannot_be_read(
    text: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(CommandLineError, match="cannot be read") as caught:
        read_command(text.split(), looker(tmp_path), reader(tmp_path))
    assert expected in str(caught.value)


def test_a_configuration_is_a_regular_file_of_bounded_size(tmp_path: Path) -> None:
    read = reader(tmp_path)
    (tmp_path / "a").write_bytes(b"\xff")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 << 20)
    names = ("a", "pipe", "large", "none", "a\0b", "/dev/zero", ".")
    assert [read(name) for name in names] == [None] * len(names)


# The host (H2)


@pytest.mark.parametrize(
    ("filesystem", "release", "expected"),
    [
        ("xfs", "5.18.0-1", True),
        ("xfs", "5.17.3", False),
        ("ext4", "6.16-rc1", True),
        ("ext4", "6.12.41+deb13", False),
        ("ext4", "10.0", True),
        ("btrfs", "6.18", False),
        ("", "6.18", False),
        ("ext4", "odd", False),
    ],
)
def test_H2_file_systems_with_large_folios_are_known_by_kernel(
    filesystem: str,
    release: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(probe, "_THP", tmp_path)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "", release, "", "")))
    assert probe._has_large_folios(filesystem) is expected
    monkeypatch.setattr(probe, "_THP", tmp_path / "none")  # a kernel without huge pages
    assert probe._has_large_folios(filesystem) is False
