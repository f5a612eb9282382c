"""Command lines, libvirt's XML and monitor commands as an experiment's devices."""

from __future__ import annotations

import pytest

from crashsim.errors import ExperimentError
from crashsim.experiment.backing import Device
from crashsim.experiment.loader import plan

REST = """
workload: {kind: append-log, records: 5}
sync: {call: fsync}
"""
PASTED = """
device:
  qemu: >
    -object memory-backend-file,id=mem1,share,mem-path=./virtio_pmem.img,size=4G
    -device virtio-pmem-pci,memdev=mem1,id=nv1
"""
PLUGGED = """
monitor:
  - at: 5s
    do: object_add memory-backend-file,id=mem2,share=on,mem-path=virtio_pmem2.img,size=4G
  - {at: 6s, do: "device_add virtio-pmem-pci,id=virtio_pmem2,memdev=mem2"}
"""


def devices(text: str) -> list[Device]:
    (case,) = plan(text + REST, "x.yaml").cases
    return [device for device, _, _ in case.experiment.resolved_devices()]


def problems(text: str) -> list[str]:
    with pytest.raises(ExperimentError) as caught:
        plan(text + REST, "x.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_V7_the_command_of_qemus_document_is_the_device_as_pasted() -> None:
    assert devices(PASTED) == [Device(name="nv1", size=4 << 30)]


def test_V7_the_hot_plug_of_qemus_document_adds_a_device_when_it_is_plugged() -> None:
    first, second = devices(PASTED + PLUGGED)
    assert (first.name, first.plugged) == ("nv1", 0)
    assert (second.name, second.size, second.plugged) == ("virtio-pmem2", 4 << 30, 6 * 10**9)


def test_V7_a_device_can_be_plugged_beside_one_that_is_written_out() -> None:
    names = [device.name for device in devices("device: {name: own, size: 1MiB}" + PLUGGED)]
    assert names == ["own", "virtio-pmem2"]


def test_V7_several_pairs_are_several_devices() -> None:
    text = "device:\n  qemu: >\n    -device virtio-pmem-pci,memdev=b,id=two"
    for name in "ab":
        text += f"\n    -object memory-backend-file,id={name},share=on,mem-path={name},size=1M"
    found = devices(text + "\n    -device virtio-pmem-pci,memdev=a,id=one\n")
    assert [device.name for device in found] == ["two", "one"]


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("memory-backend-file,mem-path=a.img", "private"),  # share is off by default
        ("memory-backend-file,mem-path=a.img,share=off", "private"),
        ("memory-backend-file,mem-path=a.img,share=on,readonly=on", "private"),
        ("memory-backend-file,mem-path=/dev/shm/a,share=on", "tmpfs"),
        ("memory-backend-file,mem-path=/dev/hugepages/a,share=on", "hugetlbfs"),
        ("memory-backend-memfd", "tmpfs"),
        ("memory-backend-ram", "ram"),
        ("memory-backend-file,mem-path=a.img,share=on", "file"),
    ],
)
def test_V4_and_V5_options_of_the_backend_are_the_backing(backend: str, kind: str) -> None:
    text = f"device: {{qemu: '-object {backend},id=m,size=1M -device virtio-pmem-pci,memdev=m'}}"
    assert [device.backing.kind for device in devices(text)] == [kind]


def test_V5_discard_data_and_prealloc_are_read() -> None:
    options = "id=m,size=1M,share=on,mem-path=a,discard-data=on,prealloc=on"
    text = "device: {qemu: '-object memory-backend-file," + options
    (device,) = devices(text + " -device virtio-pmem-pci,memdev=m'}")
    assert (device.backing.discard_data, device.backing.prealloc) == (True, True)


def test_keys_beside_a_command_line_hold_for_its_devices_and_win() -> None:
    text = PASTED + "  backing: {extents: sparse}\n  name: log\n"
    (device,) = devices(text)
    assert (device.name, device.backing.kind, device.backing.extents) == ("log", "file", "sparse")


def test_libvirts_xml_gives_the_same_device() -> None:
    xml = (
        "<memory model='virtio-pmem' access='shared'><source><path>/a.img</path></source>"
        "<target><size unit='GiB'>4</size></target></memory>"
    )
    (device,) = devices(f'device: {{libvirt: "{xml}"}}')
    assert (device.size, device.backing.kind) == (4 << 30, "file")


def test_cloud_hypervisors_command_line_brings_its_monitor() -> None:
    text = 'device: {qemu: "cloud-hypervisor --pmem file=/a.img,size=2M,discard_writes=on"}'
    (case,) = plan(text + REST, "x.yaml").cases
    assert case.experiment.vmm == "cloud-hypervisor"
    assert [d.backing.kind for d, _, _ in case.experiment.resolved_devices()] == ["private"]


def test_a_sweep_over_command_lines_is_one_case_each() -> None:
    sweep = """
sweep:
  product:
    device.qemu:
      - -object memory-backend-ram,id=m,size=1M -device virtio-pmem-pci,memdev=m
      - -object memory-backend-file,id=m,size=2M,mem-path=a -device virtio-pmem-pci,memdev=m
"""
    cases = plan("device: {name: a}" + REST + sweep, "x.yaml").cases
    sizes = [case.experiment.resolved_devices()[0][0].size for case in cases]
    assert sizes == [1 << 20, 2 << 20]


def test_every_mistake_is_told_with_the_option_and_its_column_at_the_key() -> None:
    text = PASTED.replace("share,", "shar,") + PLUGGED.replace("memdev=mem2", "memdev=mem3")
    first, second = problems(text)
    assert first.startswith("x.yaml:3:9: word 2, column 29: ")
    assert "did you mean 'share'?" in first and first.endswith("^^^^")
    assert second.startswith("x.yaml:8:3: the command at 6 s, column 44: ")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("device_del nv1", "cannot be unplugged"),
        ("object_del mem1", "in use"),
        ("ndctl list", "not supported"),
    ],
)
def test_V7_what_qemu_refuses_is_refused_with_its_reason(command: str, reason: str) -> None:
    (problem,) = problems(PASTED + f'monitor: [{{at: 1s, do: "{command}"}}]\n')
    assert reason in problem


def test_a_command_line_without_the_device_is_told() -> None:
    assert problems("device: {qemu: '-m 4G'}")[0].endswith("no virtio-pmem device or nvdimm in it")


@pytest.mark.parametrize("entry", ["5", "{at: 5s}", "{at: soon, do: x}"])
def test_a_wrong_entry_of_the_timeline_is_told(entry: str) -> None:
    assert problems(PASTED + f"monitor: [{entry}]\n")


COMMAND = (
    "device: {qemu: '-object memory-backend-file,id=m,share=on,mem-path=a,size=1M"
    " -device virtio-pmem-pci,memdev=m'}\n"
)
OUTSIDE = [
    "sweep: {sync.call: [fsync, none]}",
    "sweep: {}",
    "sweep: []",
    "sweep: {product: {}}",
    "sweep: {product: {sync.call: []}}",
    "sweep: {product: {sync.call: none}}",
    "cases: {'*': {expekt: {}}}",
    "cases: {'*': {}}",
]


@pytest.mark.parametrize("block", OUTSIDE)
def test_a_mistake_elsewhere_is_told_beside_a_command_line(block: str) -> None:
    beside_size = problems("device: {size: 1MiB}\n" + block)
    assert beside_size and problems(COMMAND + block) == beside_size


def test_a_key_that_a_timeline_does_not_know_is_told() -> None:
    entry = "monitor: [{at: 1s, do: 'device_del v', after: 2s}]"
    told = problems(COMMAND.replace("memdev=m", "memdev=m,id=v") + entry)
    assert "x.yaml:2:40: unknown key 'after': expected at and do" in told


PRIVATE_FILE = ["private", "file"]


@pytest.mark.parametrize(
    ("device", "monitor", "kinds"),
    [
        ("{qemu: 'cloud-hypervisor --pmem file=/a,size=2M'}", "cloud-hypervisor", ["file"]),
        ("{cloud-hypervisor: '--pmem file=/a,size=2M'}", "cloud-hypervisor", ["file"]),
        ("{crosvm: 'crosvm run --pmem a,ro=true --pmem b', size: 2MiB}", "crosvm", PRIVATE_FILE),
        ("{crosvm: '--pmem a --pmem-device b', size: 2MiB}", "crosvm", ["file", "private"]),
        (
            '{firecracker: \'{"pmem": [{"id": "a", "path_on_host": "x", "read_only": true}]}\','
            " size: 2MiB}",
            "firecracker",
            ["private"],
        ),
    ],
)
def test_every_monitors_own_words_are_devices(device: str, monitor: str, kinds: list[str]) -> None:
    (case,) = plan(f"device: {device}" + REST, "x.yaml").cases
    assert case.experiment.vmm == monitor
    assert [d.backing.kind for d, _, _ in case.experiment.resolved_devices()] == kinds


def test_a_size_that_only_the_file_has_must_be_given() -> None:
    assert any("missing key 'size'" in one for one in problems("device: {crosvm: '--pmem a'}"))


def test_V9_an_nvdimm_is_that_type() -> None:
    nvdimm = PASTED.replace("virtio-pmem-pci", "nvdimm")
    (device,) = devices(nvdimm)
    assert (device.type, device.backing.kind) == ("nvdimm", "file")
    (device,) = devices(nvdimm.replace("size=4G", "size=4G,readonly=on"))
    assert (device.type, device.backing.kind) == ("nvdimm", "private")
    (device,) = devices(nvdimm.replace("./virtio_pmem.img", "/dev/dax0.0"))
    assert device.type == "real-nvdimm"
