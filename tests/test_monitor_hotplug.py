"""Devices are plugged in by the monitor's own commands, in order, and never out."""

from __future__ import annotations

import pytest

from crashsim.errors import CommandLineError
from crashsim.vmm.hotplug import read_timeline
from crashsim.vmm.machine import Backend, Machine
from crashsim.vmm.monitors import read_text

SECOND = 10**9
GIB = 1 << 30
PRESENT = read_text(
    "-object memory-backend-file,id=mem1,share=on,mem-path=p,size=4G "
    "-device virtio-pmem-pci,memdev=mem1,id=nv1 -device virtio-net-pci,id=net0 "
    "-object rng-random,id=rng0 -object memory-backend-file,id=spare,share=on,mem-path=s,size=1G"
)
# The two commands of QEMU's docs/system/devices/virtio-pmem.rst, as they stand there.
ADD = "(qemu) object_add memory-backend-file,id=mem2,share=on,mem-path=virtio_pmem2.img,size=4G"
PLUG = "(qemu) device_add virtio-pmem-pci,id=virtio_pmem2,memdev=mem2"
QMP_ADD = """{"execute": "object-add", "arguments": {"qom-type": "memory-backend-file",
    "id": "mem2", "share": true, "mem-path": "virtio_pmem2.img", "size": 4294967296}}"""
QMP_PLUG = """{"execute": "device_add", "arguments": {"driver": "virtio-pmem-pci",
    "id": "virtio_pmem2", "memdev": "mem2"}}"""
OLD_QMP_ADD = """{"execute": "object-add", "arguments": {"qom-type": "memory-backend-file",
    "id": "mem2", "props": {"share": true, "mem-path": "virtio_pmem2.img", "size": 4294967296}}}"""


def run(*commands: str) -> Machine:
    return read_timeline([(number * SECOND, text) for number, text in enumerate(commands)], PRESENT)


def mistakes(*commands: str) -> str:
    with pytest.raises(CommandLineError) as caught:
        run(*commands)
    return " | ".join(f"{mistake.place}: {mistake.message}" for mistake in caught.value.mistakes)


@pytest.mark.parametrize("add", [ADD, ADD.removeprefix("(qemu) "), QMP_ADD, OLD_QMP_ADD])
@pytest.mark.parametrize("plug", [PLUG, PLUG.removeprefix("(qemu) "), QMP_PLUG])
def test_V7_the_documents_commands_plug_a_device_in(add: str, plug: str) -> None:
    first, second = run(add, plug).devices
    assert first == PRESENT.devices[0] and first.plug_ns == 0
    assert (second.name, second.plug_ns) == ("virtio_pmem2", SECOND)
    expected = Backend("mem2", "memory-backend-file", 4 * GIB, "virtio_pmem2.img", share=True)
    assert second.backend == expected


def test_commands_are_taken_in_the_order_of_their_instants() -> None:
    machine = read_timeline([(2 * SECOND, PLUG), (SECOND, ADD)], PRESENT)
    assert machine.devices[1].plug_ns == 2 * SECOND


def test_an_object_of_the_command_line_can_be_plugged_in() -> None:
    assert run("device_add virtio-pmem-pci,memdev=spare").devices[1].backend.mem_path == "s"


def test_an_object_that_nothing_uses_can_be_deleted_and_its_id_used_again() -> None:
    machine = run(ADD, "object_del mem2", ADD, PLUG, "object_del rng0", "device_del net0")
    assert len(machine.devices) == 2
    assert (machine.other_objects, machine.other_devices) == ((), ())


@pytest.mark.parametrize(
    "command", ["device_del nv1", '{"execute":"device_del","arguments":{"id":"nv1"}}']
)
def test_V7_a_virtio_pmem_device_is_never_unplugged(command: str) -> None:
    expected = "QEMU: virtio based memory devices cannot be unplugged (V7)"
    assert expected in mistakes(command)
    assert expected in mistakes(ADD, PLUG, "device_del virtio_pmem2")


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ((PLUG, ADD), "the command at 0 ns, column 51: there is no backend 'mem2'"),
        (
            (ADD, ADD),
            "the command at 1 s, column 39: the id 'mem2' is given twice; the first is at",
        ),
        ((ADD.replace("mem2", "mem1"),), "the id 'mem1' is given twice"),
        ((ADD, PLUG, PLUG), "the id 'virtio_pmem2' is given twice"),
        ((ADD, PLUG.replace("virtio_pmem2", "nv1")), "the id 'nv1' is given twice"),
        (("device_add virtio-pmem-pci,memdev=mem1",), "'mem1' is in use already"),
        ((ADD.replace("share=on", "share"),), "column 47: expected '=' after 'share'"),
        ((ADD.replace("4G", "0"),), "size is 0"),
        (("object_del mem1",), "object 'mem1' is in use, can not be deleted"),
        (("object_del mem9",), "object 'mem9' not found; did you mean 'mem1'?"),
        (("device_del nv9",), "device 'nv9' not found; did you mean 'nv1'?"),
        (("object_del",), "object_del needs an argument"),
        (("object_add",), "object_add needs an argument"),
        (("object_ad x",), "did you mean 'object_add'?"),
        (("",), "'' is not one of"),
        (("ndctl list",), "QEMU: the ndctl command is not supported"),
        (("device_add nvdimm,memdev=mem1",), "'mem1' is in use already"),
        (('{"execute": 1}',), "needs 'execute', a text"),
        (('{"execute": "device_add", "arguments": 1}',), "'arguments' is no object"),
        (('{"execute": "device_add", "arguments": [1]}',), "'arguments' is no object"),
        (('{"execute": "device_del"}',), "device_del needs an id"),
        (('{"execute": "quit"}',), "'quit' is not one of"),
        (('{"execute": ',), "this is not JSON"),
    ],
)
def test_a_wrong_command_is_reported_with_its_instant(
    commands: tuple[str, ...], expected: str
) -> None:
    assert expected in mistakes(*commands)


def test_all_wrong_commands_are_reported_at_once() -> None:
    assert mistakes("object_del mem1", "device_del nv1", "x").count("the command at") == 3
