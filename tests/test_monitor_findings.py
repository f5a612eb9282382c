"""What loses data is found before any simulation, and nothing that is in no rule."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crashsim.vmm.firecracker import read_json
from crashsim.vmm.hazards import (
    COSTS,
    DISCARDS,
    FAILS,
    LOSES,
    NOTE,
    READ_ONLY,
    Hazard,
    judge,
    remarks,
)
from crashsim.vmm.monitors import read_text
from crashsim.vmm.probe import HostFile, Look, looker

GIB = 1 << 30
OWN = (
    "share=on, if the file is this guest's own: guests that share it would change it for each other"
)
GOOD = "-object memory-backend-file,id=m,share=on,mem-path=p.img,size=4G"
DEVICE = " -device virtio-pmem-pci,memdev=m,id=nv1"


def seen(file: HostFile | None) -> Look:
    return lambda mem_path: file


WHOLE = seen(HostFile("file", 4 * GIB, 4 * GIB, GIB))


def found(text: str, look: Look | None = WHOLE) -> list[Hazard]:
    return judge(read_text(text + DEVICE), look)


def only(text: str, look: Look | None = WHOLE) -> Hazard:
    (finding,) = found(text, look)
    return finding


def test_a_good_machine_has_no_finding() -> None:
    assert found(GOOD) == [] and found(GOOD, None) == []
    text = "cloud-hypervisor --pmem file=a,size=4G,discard_writes=off"
    assert judge(read_text(text), WHOLE) == []


@pytest.mark.parametrize(
    ("text", "rule", "severity", "mend", "column"),
    [
        (GOOD.replace("share=on,", ""), "V4", LOSES, OWN, 1),
        (GOOD.replace("on", "off"), "V4", LOSES, OWN, 26),
        (f"{GOOD},readonly=on", "V4", READ_ONLY, "", 58),
        (GOOD.replace("on", "off") + ",readonly=on,rom=off", "V4", DISCARDS, "", 71),
        (f"{GOOD},discard-data=on", "V5", LOSES, "discard-data=off", 58),
        (f"{GOOD},prealloc=on", "V5", COSTS, "prealloc=off", 58),
        (f"{GOOD},pmem=on", "V5", NOTE, "", 58),
    ],
)
def test_V4_V5_a_setting_that_loses_or_costs_is_found_where_it_stands(
    text: str, rule: str, severity: str, mend: str, column: int
) -> None:
    finding = only(text)
    assert (finding.rule, finding.severity, finding.mend) == (rule, severity, mend)
    assert (finding.place.where, finding.place.column) == ("word 2", column)
    assert finding.device == "nv1"


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("share=on,", ""),
        f"{GOOD},discard-data=on",
        f"{GOOD},prealloc=on",
    ],
)
def test_the_mend_ends_the_finding(text: str) -> None:
    option = only(text).mend.partition(",")[0]
    assert found(f"{text},{option}") == []


@pytest.mark.parametrize("option", ["readonly=on", "readonly=on,share=off", "readonly=on,rom=on"])
def test_a_read_only_image_has_nothing_to_lose_and_nothing_to_mend(option: str) -> None:
    look = seen(HostFile("file", 4 * GIB, 0, 0, "tmpfs"))
    for device in (DEVICE, DEVICE.replace("virtio-pmem-pci", "nvdimm") + ",unarmed=on"):
        options = f"{GOOD},{option},prealloc=on,discard-data=on{device}"
        (finding,) = judge(read_text(options), look)
        assert (finding.severity, finding.mend) == (READ_ONLY, "")
        assert "nothing to lose" in finding.why


def test_no_advice_opens_a_read_only_image_to_writers() -> None:
    for share in ("on", "off"):
        for rom in ("", ",rom=on", ",rom=off"):
            if (share, rom) == ("on", ",rom=off"):
                continue  # which QEMU refuses
            text = GOOD.replace("share=on", f"share={share}") + f",readonly=on{rom}"
            assert not any("share=on" in f.mend or "readonly" in f.mend for f in found(text))


def test_V9_an_emulated_nvdimm_has_no_flush_path() -> None:
    nvdimm = DEVICE.replace("virtio-pmem-pci", "nvdimm")
    (finding,) = judge(read_text(GOOD + nvdimm), WHOLE)
    assert (finding.rule, finding.severity) == ("V9", LOSES)
    assert finding.mend == "-device virtio-pmem-pci,memdev=m"
    assert finding.place.where == "word 4"
    assert judge(read_text(GOOD + DEVICE), WHOLE) == []
    (finding,) = judge(read_text(f"{GOOD},pmem=on{nvdimm}"), WHOLE)
    assert (finding.rule, finding.severity, finding.mend) == ("V9", NOTE, "")
    real = GOOD.replace("p.img", "/dev/dax0.0")
    assert judge(read_text(real + nvdimm), WHOLE) == []
    (finding,) = judge(read_text(GOOD.replace("on", "off") + nvdimm), WHOLE)
    assert (finding.rule, finding.severity, finding.mend) == ("V4", LOSES, OWN)


@pytest.mark.parametrize("name", ["ext4", "xfs"])
def test_H2_only_qemu_advises_huge_pages_for_a_device(name: str) -> None:
    look = seen(HostFile("file", 4 * GIB, 4 * GIB, GIB, name, large_folios=True))
    finding = only(GOOD, look)
    assert (finding.rule, finding.severity) == ("H2", COSTS)
    assert name in finding.why and "/proc/PID/smaps" in finding.why
    assert only(f"{GOOD},readonly=on", look).severity == READ_ONLY
    for text in (
        "cloud-hypervisor --pmem file=a,size=4G",
        "crosvm run --pmem a",
    ):
        assert judge(read_text(text, look), look) == []
    document = '{"pmem": [{"id": "a", "path_on_host": "a"}]}'
    assert judge(read_json(document, look), look) == []


@pytest.mark.parametrize("monitor", ["crosvm", "firecracker"])
def test_V4_what_lies_behind_the_files_end_is_in_no_file(monitor: str) -> None:
    def machine(size_bytes: int) -> list[Hazard]:
        look = seen(HostFile("file", size_bytes, size_bytes, GIB))
        if monitor == "crosvm":
            return judge(read_text("crosvm run --pmem a", look), look)
        return judge(read_json('{"pmem": [{"id": "a", "path_on_host": "a"}]}', look), look)

    assert machine(4 << 20) == []
    (finding,) = machine((4 << 20) - 4096)
    assert (finding.rule, finding.severity, finding.option) == ("V4", LOSES, "a")
    assert finding.mend == f"truncate -s {4 << 20} a" and "4KiB larger" in finding.why


def test_V4_a_vma_of_crosvm_is_no_file() -> None:
    (finding,) = judge(read_text("crosvm run --pmem a,vma-size=4096,swap-interval-ms=5"), WHOLE)
    assert (finding.rule, finding.severity, finding.option) == ("V4", LOSES, "vma-size=")


def test_V6_cloud_hypervisor_maps_beyond_a_file_that_is_too_small() -> None:
    look = seen(HostFile("file", 2 << 20, 2 << 20, GIB))
    (finding,) = judge(read_text("cloud-hypervisor --pmem file=a,size=4M", look), look)
    assert (finding.rule, finding.severity) == ("V6", FAILS) and "SIGBUS" in finding.why


def test_V5_without_a_file_every_flush_fails() -> None:
    finding = only("-object memory-backend-ram,id=m,size=4G")
    assert (finding.rule, finding.severity, finding.place.column) == ("V5", FAILS, 1)
    assert finding.mend == "memory-backend-file,id=m,share=on,mem-path=FILE,size=..."


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("memory-backend-memfd", "(tmpfs)"),
        ("memory-backend-shm", "(tmpfs)"),
        ("memory-backend-memfd,hugetlb=on", "(hugetlbfs)"),
    ],
)
def test_V4_H15_a_file_of_the_monitors_own_is_in_memory(kind: str, where: str) -> None:
    finding = only(f"-object {kind},id=m,size=4G")
    assert (finding.rule, finding.severity) == ("V4", LOSES) and where in finding.why


@pytest.mark.parametrize("name", ["tmpfs", "hugetlbfs"])
@pytest.mark.parametrize("kind", ["file", "missing", "directory"])
def test_V4_H15_a_file_in_memory_is_found(name: str, kind: str) -> None:
    finding = only(GOOD, seen(HostFile(kind, 4 * GIB if kind == "file" else 0, 0, 0, name)))
    assert (finding.rule, finding.severity, finding.option) == ("V4", LOSES, "p.img")
    assert f"({name})" in finding.why and finding.place.column == 35


def test_V4_discard_writes_of_cloud_hypervisor_is_found() -> None:
    machine = read_text("cloud-hypervisor --pmem file=a,size=4G,discard_writes=on")
    (finding,) = judge(machine, WHOLE)
    assert (finding.rule, finding.severity, finding.option) == ("V4", DISCARDS, "discard_writes=on")
    assert (finding.mend, finding.place.column) == ("", 16)
    assert "a file of its own" in finding.why


@pytest.mark.parametrize(
    ("allocated", "free", "expected"),
    [(GIB, 3 * GIB - 1, ["V6"]), (GIB, 3 * GIB, []), (4 * GIB, 0, []), (0, 0, ["V6"])],
)
def test_V6_holes_larger_than_what_is_free_are_found(
    allocated: int, free: int, expected: list[str]
) -> None:
    findings = found(GOOD, seen(HostFile("file", 4 * GIB, allocated, free)))
    assert [finding.rule for finding in findings] == expected
    assert all(finding.severity == FAILS and "SIGBUS" in finding.why for finding in findings)


@pytest.mark.parametrize("text", [GOOD.replace("on", "off"), f"{GOOD},readonly=on"])
def test_V6_holes_do_no_harm_where_no_store_reaches_the_file(text: str) -> None:
    assert "V6" not in [finding.rule for finding in found(text, seen(HostFile("file", 4 * GIB)))]


def test_V5_a_missing_file_is_noted_as_sparse_and_judged_by_what_is_free() -> None:
    finding = only(GOOD, seen(HostFile("missing", free_bytes=5 * GIB)))
    assert (finding.rule, finding.severity) == ("V5", NOTE) and "sparse" in finding.why
    assert finding.mend == "fallocate -l 4294967296 p.img, before the start"
    assert only(GOOD, seen(HostFile("missing", free_bytes=GIB))).rule == "V6"


def test_every_device_is_judged_on_its_own() -> None:
    second = (GOOD + DEVICE).replace("id=m,", "id=n,").replace("=m,", "=n,").replace("nv1", "nv2")
    machine = read_text(
        f"{GOOD.replace('on', 'off')}{DEVICE} {second},readonly=on".replace(
            "nv2,readonly=on", "nv2"
        )
    )
    assert [(f.device, f.rule) for f in judge(machine, WHOLE)] == [("nv1", "V4")]


def test_what_could_not_be_judged_is_said() -> None:
    machine = read_text(GOOD + DEVICE)
    (raw,) = remarks(machine, WHOLE)
    assert "-o dax" in raw and "/dev/pmem0" in raw
    assert remarks(read_text(f"{GOOD},readonly=on{DEVICE}"), WHOLE) == []
    assert "cannot be looked at" in remarks(machine, seen(None))[0]
    assert "is a folder" in remarks(machine, seen(HostFile("directory")))[0]
    assert remarks(read_text(f"-object memory-backend-ram,id=m,size=4G{DEVICE}"), seen(None)) == []


# The real host


def test_the_host_shows_a_files_size_holes_and_free_space(tmp_path: Path) -> None:
    path = tmp_path / "sparse.img"
    path.write_bytes(b"x" * 4096)
    os.truncate(path, 1 << 20)
    file = looker(tmp_path)("sparse.img")
    assert file is not None and file == looker(Path("/"))(str(path))
    assert (file.kind, file.size_bytes) == ("file", 1 << 20)
    assert 4096 <= file.allocated_bytes < 1 << 20 and file.free_bytes > 0


def test_a_missing_file_is_looked_at_in_its_folder(tmp_path: Path) -> None:
    file = looker(tmp_path)("not-there.img")
    assert file is not None and (file.kind, file.allocated_bytes) == ("missing", 0)
    assert file.free_bytes > 0


def test_what_cannot_be_seen_is_nothing(tmp_path: Path) -> None:
    look = looker(tmp_path)
    assert look("no-folder/file") is None and look("a\0b") is None and look("x" * 5000) is None


def test_kinds_of_files_are_told_apart(tmp_path: Path) -> None:
    look = looker(tmp_path)
    folder, device = look("."), look("/dev/null")
    assert folder is not None and folder.kind == "directory"
    assert device is not None and device.kind == "other"


def test_paths_are_those_of_the_processs_own_root(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"1234")
    file = looker(Path("/"), root=tmp_path)("/data")
    assert file is not None and file.size_bytes == 4


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a tmpfs at /dev/shm")
def test_V4_H15_tmpfs_is_known_by_its_magic_number() -> None:
    file = looker(Path("/"))("/dev/shm/crashsim-is-never-created.img")
    assert file is not None and (file.kind, file.filesystem) == ("missing", "tmpfs")
    assert looker(Path("/"))("/proc/self/stat") != file
