"""libvirt's XML gives the same devices as the command line that libvirt makes of it."""

from __future__ import annotations

import pytest

from crashsim.errors import CommandLineError
from crashsim.vmm.libvirt import read_xml
from crashsim.vmm.monitors import read_text
from crashsim.vmm.probe import HostFile

# As in libvirt's docs/kbase/memorydevices.rst, and the command line that libvirt makes of it.
MEMORY = """<memory model='virtio-pmem' access='shared'>
  <source>
    <path>/tmp/virtio_pmem</path>
  </source>
  <target>
    <size unit='KiB'>524288</size>
  </target>
  <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>
</memory>
"""
COMMAND = """qemu-system-x86_64 -m size=2097152k,slots=1,maxmem=4194304k
-object '{"qom-type":"memory-backend-file","id":"memvirtiopmem0","mem-path":"/tmp/virtio_pmem",
"share":true,"size":536870912}'
-device '{"driver":"virtio-pmem-pci","memdev":"memvirtiopmem0","id":"virtiopmem0","bus":"pci.0"}'
"""
DOMAIN = f"""<?xml version='1.0' encoding='UTF-8'?>
<domain type='kvm' id='1'>
  <name>guest</name>
  <memory unit='KiB'>4194304</memory>
  <devices>
    <memory model='dimm'><target><size unit='KiB'>523264</size><node>0</node></target></memory>
    {MEMORY}
    {MEMORY.replace("virtio_pmem", "other").replace("</memory>", "<alias name='ua-two'/></memory>")}
  </devices>
</domain>
"""


def only(text: str) -> str:
    with pytest.raises(CommandLineError) as caught:
        read_xml(text)
    (mistake,) = caught.value.mistakes
    assert mistake.place is not None
    return f"{mistake.place}: {mistake.message}"


def test_the_xml_and_its_command_line_give_equal_devices() -> None:
    assert read_xml(MEMORY).devices == read_text(COMMAND).devices


def test_a_whole_domain_is_read() -> None:
    first, second = read_xml(DOMAIN).devices
    assert (first,) == read_text(COMMAND).devices
    assert (second.name, second.backend.name) == ("ua-two", "memua-two")
    assert second.backend.mem_path == "/tmp/other"


def test_a_domain_without_virtio_pmem_has_no_device() -> None:
    assert read_xml("<domain><memory unit='KiB'>4194304</memory></domain>").devices == ()


@pytest.mark.parametrize(
    ("size", "size_bytes"),
    [
        ("<size>524288</size>", 524288 << 10),
        ("<size unit='bytes'>4096</size>", 4096),
        ("<size unit='b'>4096</size>", 4096),
        ("<size unit='k'>4</size>", 4096),
        ("<size unit='KB'>4096</size>", 4096000),
        ("<size unit='M'>1</size>", 1 << 20),
        ("<size unit='MiB'>1</size>", 1 << 20),
        ("<size unit='MB'>4096</size>", 4096 * 10**6),
        ("<size unit='GiB'> 4 </size>", 4 << 30),
        ("<size unit='TiB'>1</size>", 1 << 40),
        ("<size unit='gib'>4</size>", 4 << 30),
    ],
)
def test_a_size_has_libvirts_units(size: str, size_bytes: int) -> None:
    (device,) = read_xml(MEMORY.replace("<size unit='KiB'>524288</size>", size)).devices
    assert device.backend.size_bytes == size_bytes


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            " access='shared'",
            "",
            "line 1, column 1: access is not given: libvirt: shared access mo",
        ),
        (
            "access='shared'",
            "access='private'",
            "access='private': libvirt: shared access mode req",
        ),
        ("access='shared'", "access='shared' discard='yes'", "discard is not supported"),
        (
            "<target>",
            "<target><node>0</node>",
            "line 5, column 11: libvirt: virtio-pmem does not su",
        ),
        ("<path>/tmp/virtio_pmem</path>", "", "line 2, column 3: <source><path> is missing"),
        ("/tmp/virtio_pmem", " ", "line 3, column 5: <source><path> is missing"),
        ("<size unit='KiB'>524288</size>", "", "line 5, column 3: <target><size> is missing"),
        ("'KiB'", "'KiX'", "line 6, column 5: unknown unit 'KiX'"),
        ("524288", "many", "<size> takes a whole number"),
        ("524288", "0", "line 6, column 5: size is 0"),
        ("524288", "1", "size is not a multiple of 4096 bytes"),
        ("524288", "9" * 20, "<size> takes a smaller size"),
        ("</memory>", "", "line 10, column 1: this is not XML: no element found"),
        ("<source>", "<source", "this is not XML"),
        ("<memory", "<!DOCTYPE memory><memory", "a DTD is not read"),
    ],
)
def test_a_mistake_is_reported_at_its_line(old: str, new: str, expected: str) -> None:
    assert old in MEMORY
    assert expected in only(MEMORY.replace(old, new))


@pytest.mark.parametrize(
    ("access", "shared"), [(" access='shared'", True), (" access='private'", False), ("", False)]
)
def test_V9_an_nvdimm_is_one(access: str, shared: bool) -> None:
    text = MEMORY.replace("virtio-pmem", "nvdimm").replace(" access='shared'", access)
    (device,) = read_xml(text).devices
    assert (device.kind, device.name) == ("nvdimm", "nvdimm0")
    assert (device.backend.share, device.backend.is_read_only) == (shared, False)
    (device,) = read_xml(text.replace("<target>", "<target><readonly/>")).devices
    assert device.backend.is_read_only
    default = "<memoryBacking><access mode='shared'/></memoryBacking>"
    (device,) = read_xml(f"<domain>{default}{text}</domain>").devices
    assert device.backend.share == (shared or not access)


def test_no_entity_is_expanded_or_fetched() -> None:
    laughs = '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><memory>&b;</memory>'
    assert "a DTD is not read" in only(laughs)
    outside = '<!DOCTYPE m SYSTEM "file:///etc/passwd"><memory/>'
    assert "a DTD is not read" in only(outside)
    assert "undefined entity" in only("<memory>&b;</memory>")


def test_V5_a_file_smaller_than_size_is_refused_in_xml_too() -> None:
    with pytest.raises(CommandLineError, match="fewer than size"):
        read_xml(MEMORY, lambda path: HostFile("file", 4096))
