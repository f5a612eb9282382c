"""Whatever is typed, the only error is a `CommandLineError` that can be shown."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from crashsim.errors import CommandLineError
from crashsim.vmm.hazards import judge
from crashsim.vmm.hotplug import read_timeline
from crashsim.vmm.libvirt import read_xml
from crashsim.vmm.machine import Machine
from crashsim.vmm.monitors import read_command, read_text
from crashsim.vmm.probe import HostFile

WORDS = """
-object --object -device -m -M -machine -numa -set qemu-system-x86_64 cloud-hypervisor
--pmem --pmem= crosvm run firecracker jailer --config-file --pmem-device --pmem-ext2 ro=true
vma-size=1 path=a :size=1 {"pmem":[{"id":"a","path_on_host":"a"}]} {"pmem":[ ]} "read_only":true
ndctl memory-backend-file memory-backend-ram memory-backend-memfd rng-random
virtio-pmem-pci nvdimm id= id=a memdev=a memdev share noshare share=on size=4G size= size=4k
mem-path=a align=3 readonly=on rom=on rom=off file=a discard_writes discard_writes=on driver=
qom-type= maxmem=1G nvdimm=on , ,, = . { } {"id":"a"} {"qom-type":1} {"driver":"nvdimm"} ' " \\
object_add device_add device_del object_del (qemu) {"execute":"device_add","arguments":{}}
<memory model='virtio-pmem'> </memory> <source> <path> </path> <target> <size> 1 </size>
<!DOCTYPE &a; <?xml?>
"""
PIECES = st.sampled_from([*WORDS.split(), " ", ",", "\n", "\0", "\x1b", "é", "\udcff", "\\\n"])
TEXTS = st.lists(st.one_of(PIECES, PIECES, st.text(max_size=5)), max_size=12).map("".join)
SPACED = st.lists(st.one_of(PIECES, TEXTS), max_size=12).map(" ".join)
MONITORS = st.sampled_from(["qemu", "cloud-hypervisor", "crosvm", "firecracker"])
KEYS = st.sampled_from(["pmem", "id", "path_on_host", "read_only", "root_device", "x"])
JSONS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), KEYS)
LOOKS = st.sampled_from([None, HostFile("missing"), HostFile("file", 5), HostFile("directory")])


def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4))


def shown(error: CommandLineError) -> None:
    assert error.mistakes and all(mistake.message for mistake in error.mistakes)
    str(error).encode()


@settings(max_examples=150, deadline=None)
@given(st.one_of(TEXTS, SPACED), LOOKS, MONITORS)
def test_a_pasted_text_gives_a_machine_or_its_mistakes(
    text: str, file: HostFile | None, monitor: str
) -> None:
    try:
        judge(read_text(text, lambda path: file, monitor), lambda path: file)
    except CommandLineError as error:
        shown(error)


@settings(max_examples=150, deadline=None)
@given(st.one_of(TEXTS, SPACED, st.recursive(JSONS, nested, max_leaves=9).map(json.dumps)), LOOKS)
def test_a_configuration_gives_a_machine_or_its_mistakes(text: str, file: HostFile | None) -> None:
    try:
        machine = read_command(["firecracker", "--config-file", "a"], read=lambda path: text)
        judge(machine, lambda path: file)
    except CommandLineError as error:
        shown(error)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PIECES, TEXTS), max_size=10), LOOKS)
def test_words_give_a_machine_or_its_mistakes(words: list[str], file: HostFile | None) -> None:
    try:
        read_command(words, lambda path: file)
    except CommandLineError as error:
        shown(error)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), SPACED), max_size=4))
def test_a_timeline_gives_a_machine_or_its_mistakes(commands: list[tuple[int, str]]) -> None:
    try:
        read_timeline(commands, Machine(()))
    except CommandLineError as error:
        shown(error)


@settings(max_examples=150, deadline=None)
@given(st.one_of(TEXTS, SPACED, st.text()))
def test_xml_gives_a_machine_or_its_mistakes(text: str) -> None:
    try:
        read_xml(text)
    except CommandLineError as error:
        shown(error)
