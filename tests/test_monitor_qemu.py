"""QEMU's command line is the device: every spelling, and every mistake at its place."""

from __future__ import annotations

import pickle

import pytest

from crashsim.errors import CommandLineError
from crashsim.vmm.hotplug import read_timeline
from crashsim.vmm.machine import Backend, Machine, PmemDevice
from crashsim.vmm.monitors import before_options, monitor_of, read_command, read_text
from crashsim.vmm.probe import HostFile
from crashsim.vmm.qemu import options
from crashsim.vmm.spans import split

GIB = 1 << 30
OBJECT = "-object memory-backend-file,id=mem1,share=on,mem-path=./p.img,size=4G"
DEVICE = "-device virtio-pmem-pci,memdev=mem1,id=nv1"
FILE = Backend("mem1", "memory-backend-file", 4 * GIB, "./p.img", share=True)
MACHINE = (PmemDevice("nv1", FILE),)

# The two lines of QEMU's docs/system/devices/virtio-pmem.rst, as they stand there.
DOCUMENT = """
    -object memory-backend-file,id=mem1,share,mem-path=./virtio_pmem.img,size=4G
    -device virtio-pmem-pci,memdev=mem1,id=nv1
"""


def mistakes(text: str, look: object = None) -> list[str]:
    """`word:column:width message` of every mistake."""
    with pytest.raises(CommandLineError) as caught:
        read_text(text, look)  # type: ignore[arg-type]
    found = []
    for mistake in caught.value.mistakes:
        assert mistake.place is not None
        word = mistake.place.where.removeprefix("word ")
        found.append(f"{word}:{mistake.place.column}:{mistake.place.width} {mistake.message}")
    return found


def only(text: str, look: object = None) -> str:
    (mistake,) = mistakes(text, look)
    return mistake


def test_the_documents_command_is_read_as_pasted() -> None:
    (device,) = read_text(DOCUMENT).devices
    assert device == PmemDevice(
        "nv1", Backend("mem1", "memory-backend-file", 4 * GIB, "./virtio_pmem.img", share=True)
    )


@pytest.mark.parametrize(
    "text",
    [
        f"{OBJECT} {DEVICE}",
        f"{DEVICE} {OBJECT}",
        f"-{OBJECT} -{DEVICE}",
        f"qemu-system-x86_64 {OBJECT} {DEVICE}",
        f"/usr/bin/qemu-system-aarch64 -M virt {OBJECT} -nographic {DEVICE} disk.img",
        f"sudo -u qemu qemu-system-x86_64 -enable-kvm {OBJECT} {DEVICE}",
        f"kvm -s -S -snapshot {OBJECT} -daemonize {DEVICE}",
        f"qemu-kvm -append '-object x' -name -device {OBJECT} {DEVICE}",
        f"qemu-system-x86_64 -unknown {OBJECT} -other value {DEVICE}",
        f"qemu-system-x86_64 \\\n  {OBJECT} \\\r\n  {DEVICE}",
        OBJECT.replace("memory-backend-file", "qom-type=memory-backend-file") + " " + DEVICE,
        OBJECT.replace("share=on", "share") + " " + DEVICE,
        OBJECT.replace("share=on", "share=off,share=yes") + " " + DEVICE,
        OBJECT.replace("size=4G", "size=4096M") + " " + DEVICE,
        OBJECT.replace("size=4G", "size=0x100000000") + " " + DEVICE,
        OBJECT.replace("-file,", "-file,merge=off,dump=on,reserve=on,host-nodes=0,policy=bind,")
        + f" {DEVICE},bus=pci.0,addr=0x5,x-something=1",
        f"{OBJECT} -device driver=virtio-pmem-pci,id=nv1,memdev=mem1",
        '-object \'{"qom-type":"memory-backend-file","id":"mem1","mem-path":"./p.img","share":true,'
        '"size":4294967296}\' -device \'{"driver":"virtio-pmem-pci","memdev":"mem1","id":"nv1",'
        '"bus":"pci.0","addr":"0x5"}\'',
        "-object \"{'qom-type':'memory-backend-file','id':'mem1','mem-path':'./p.img',"
        f"'share':true,'size':4294967296}}\" {DEVICE}",
        f"{OBJECT} {DEVICE} -object rng-random,id=rng0,filename=/dev/urandom "
        "-device virtio-rng-pci,rng=rng0 -object memory-backend-epc,id=epc,size=1G",
        f"-m 4G,slots=2,maxmem=8G {OBJECT} {DEVICE}",
        f"-m size=2048,maxmem=8G {OBJECT} {DEVICE}",
    ],
)
def test_every_spelling_gives_the_same_device(text: str) -> None:
    assert read_text(text).devices == MACHINE


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("noshare", {"share": False}),
        ("share=no", {"share": False}),
        ("readonly=on,share=off,rom=off", {"readonly": True, "share": False}),
        ("readonly=on", {"readonly": True, "rom": True}),
        ("readonly=on,rom=auto", {"readonly": True, "rom": True}),
        ("discard-data=true", {"discard_data": True}),
        ("prealloc=y", {"prealloc": True}),
        ("pmem", {"pmem": True}),
        ("align=2M", {"align_bytes": 2 << 20}),
        ("offset=1M", {"offset_bytes": 1 << 20}),
        ("mem-path=a,,b", {"mem_path": "a,b"}),
    ],
)
def test_each_property_comes_to_the_device(text: str, changed: dict[str, object]) -> None:
    (device,) = read_text(f"{OBJECT},{text} {DEVICE}").devices
    values = {name: getattr(FILE, name) for name in FILE.__dataclass_fields__} | changed
    assert device.backend == Backend(**values)


def test_share_is_off_unless_it_is_given() -> None:
    (device,) = read_text(f"{OBJECT.replace('share=on,', '')} {DEVICE}").devices
    assert not device.backend.share


@pytest.mark.parametrize("kind", ["memory-backend-memfd", "memory-backend-shm"])
def test_memory_of_its_own_file_is_shared_unless_told(kind: str) -> None:
    (device,) = read_text(f"-object {kind},id=mem1,size=4G {DEVICE}").devices
    assert device.backend.share and device.backend.kind == kind


def test_mem_prealloc_is_the_default_of_every_backend() -> None:
    (device,) = read_text(f"{OBJECT} {DEVICE} -mem-prealloc").devices
    assert device.backend.prealloc
    (device,) = read_text(f"-mem-prealloc {OBJECT},prealloc=off {DEVICE}").devices
    assert not device.backend.prealloc


def test_V7_each_pair_is_a_device() -> None:
    second = f"{OBJECT} {DEVICE}".replace("mem1", "mem2").replace("nv1", "nv2")
    devices = read_text(f"{OBJECT} {second} {DEVICE}").devices
    assert [(d.name, d.backend.name) for d in devices] == [("nv2", "mem2"), ("nv1", "mem1")]


def test_a_device_without_an_id_is_called_after_its_backend() -> None:
    assert read_text(f"{OBJECT} -device virtio-pmem-pci,memdev=mem1").devices[0].name == "mem1"


def test_a_backend_without_a_device_is_a_note() -> None:
    machine = read_text(OBJECT)
    assert machine == Machine((), (FILE,), notes=("no device uses the backend 'mem1'",))


@pytest.mark.parametrize(
    "user",
    ["-machine q35,memory-backend=mem1", "-numa node,memdev=mem1", "-device pc-dimm,memdev=mem1"],
)
def test_a_backend_that_something_else_uses_is_no_note_and_not_free(user: str) -> None:
    assert read_text(f"{OBJECT} {user}") == Machine((), other_objects=("mem1",))
    assert "'mem1' is in use already" in only(f"{OBJECT} {DEVICE} {user}")


@pytest.mark.parametrize(
    "option",
    ["-readconfig x.cfg", "-set device.nv1.memdev=mem9", "-global virtio-pmem-pci.memdev=mem9"],
)
def test_what_is_not_followed_is_a_note(option: str) -> None:
    assert "is not followed" in read_text(f"{OBJECT} {DEVICE} {option}").notes[0]


def test_properties_that_decide_nothing_are_passed_over_and_said() -> None:
    machine = read_text(f"{OBJECT},merge=off {DEVICE}")
    assert machine.devices == MACHINE and machine.notes == ()
    machine = read_text(f"{OBJECT} {DEVICE},bus=pci.0,ats=on,romfile=x -global kvm-pit.a=b")
    assert machine.devices == MACHINE
    assert machine.notes == ("passed over, of word 4: ats, romfile",)


def test_a_machine_without_room_for_memory_devices_is_a_note() -> None:
    assert "maxmem" in read_text(f"-m 4G {OBJECT} {DEVICE}").notes[0]


@pytest.mark.parametrize("option", ["-machine q35,nvdimm=on", "-M pc,nvdimm"])
def test_V7_nvdimm_on_does_nothing_for_virtio_pmem(option: str) -> None:
    (note,) = read_text(f"{option} {OBJECT} {DEVICE}").notes
    assert "regions and namespaces" in note


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"{OBJECT} {DEVICE.replace('mem1', 'mem9')}",
            "4:17:11 there is no backend 'mem9'; did you mean 'mem1'?",
        ),
        (f"{OBJECT} {OBJECT} {DEVICE}", "4:21:7 the id 'mem1' is given twice; the first is at"),
        (f"{OBJECT} {DEVICE} {DEVICE},x=1", "the id 'nv1' is given twice"),
        (f"{OBJECT} {DEVICE} {DEVICE[:-7]}", "6:17:11 backend 'mem1' is in use already"),
        (f"{OBJECT.replace(',size=4G', '')} {DEVICE}", "2:1:53 memory-backend-file needs size="),
        (f"{OBJECT.replace(',mem-path=./p.img', '')} {DEVICE}", "memory-backend-file needs mem-pa"),
        (f"{OBJECT.replace('./p.img', '')} {DEVICE}", "2:38:9 mem-path is no path"),
        (f"{OBJECT.replace('4G', '0')} {DEVICE}", "2:55:6 size is 0"),
        (f"{OBJECT.replace('4G', '4097')} {DEVICE}", "2:55:9 size is not a multiple of 4096 bytes"),
        (f"{OBJECT.replace('4G', '4GB')} {DEVICE}", "2:55:8 size takes a size such as 4G"),
        (f"{OBJECT},offset=1 {DEVICE}", "2:63:8 offset is not a multiple of 4096 bytes"),
        (f"{OBJECT},align=3M {DEVICE}", "2:63:8 align must be a power of two (V5)"),
        (f"{OBJECT},share=maybe {DEVICE}", "2:63:11 share takes 'on' or 'off'"),
        (f"{OBJECT},rom=perhaps {DEVICE}", "2:63:11 rom takes 'on', 'off' or 'auto'"),
        (f"{OBJECT},rom=on {DEVICE}", "2:63:6 rom=on needs readonly=on"),
        (f"{OBJECT},readonly=on,rom=off {DEVICE}", "rom=off is refused with readonly=on,share=on"),
        (f"{OBJECT},sharing=on {DEVICE}", "has no property 'sharing'; did you mean 'share'?"),
        (f"{OBJECT},hugetlb=on {DEVICE}", "2:63:10 memory-backend-file has no property 'hugetlb'"),
        (f"{OBJECT.replace('id=mem1', 'id=1')} -S", "2:21:4 id takes an identifier"),
        (f"{OBJECT.replace('id=mem1,', '')} -S", "id= is missing"),
        ("-object id=mem1", "2:1:7 qom-type= is missing"),
        ("-object memory-backend-fil,id=m", "unknown memory backend 'memory-backend-fil'; did yo"),
        ("-device virtio-pmem-pci", "2:1:15 virtio-pmem-pci needs memdev="),
        ("-device virtio-pmem,memdev=m", "2:1:11 'virtio-pmem' is no device that can be plugged"),
        (f"{OBJECT} {DEVICE},memdve=x", "virtio-pmem-pci has no property 'memdve'; did you mean"),
        ("-object rng-random,id=r -device virtio-pmem-pci,memdev=r", "'r' is no memory backend"),
        ("-object", "1:1:7 -object needs an argument"),
        (f"{OBJECT} {DEVICE} -device", "5:1:7 -device needs an argument"),
        ("-object '{\"id\": 1}'", "2:1:9 qom-type= is missing"),
        (f"-m 4G,maxmem=6G {OBJECT} {DEVICE}", "2:4:9 maxmem leaves 2GiB above the guest's memory"),
        (f"-m 4G,maxmem=X {OBJECT} {DEVICE}", "2:4:8 maxmem takes a size"),
        ("-object memory-backend-shm,id=mem1,size=4G,share=off -S", "needs share=on"),
        (f"{OBJECT} {DEVICE},share=on", "4:36:8 virtio-pmem-pci has no property 'share'"),
        (
            f"{OBJECT.replace('-object', '-objcet')} {DEVICE}",
            "1:1:7 no option -objcet takes a pmem",
        ),
        (f"{OBJECT} -devcie virtio-pmem-pci,memdev=mem1", "did you mean 'device'?"),
        (f"{OBJECT} -drvice nvdimm,memdev=mem1", "no option -drvice takes a pmem device or"),
    ],
)
def test_a_mistake_is_reported_where_it_stands(text: str, expected: str) -> None:
    assert expected in " | ".join(mistakes(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{OBJECT} -device nvdimm,memdev=mem1,memaddr=1", "nvdimm has no property 'memaddr'"),
        (f"{OBJECT} {DEVICE},label-size=2M", "regions and namespaces are not supported"),
        (OBJECT.replace("./p.img", "/dev/dax0.0") + " " + DEVICE, "real nvdimm device backend is"),
        ("ndctl create-namespace -f", "1:1:5 QEMU: the ndctl command is not supported"),
    ],
)
def test_V7_what_nvdimms_have_is_refused_with_qemus_reason(text: str, expected: str) -> None:
    assert expected in only(text)


# What Kata Containers starts: `Object.QemuParams` in src/runtime/pkg/govmm/qemu/qemu.go and
# `appendNvdimmImage` in src/runtime/virtcontainers/qemu_arch_base.go; of runtime-rs,
# `MemoryBackendFile` and `DeviceNvdimm` in crates/hypervisor/src/qemu/cmdline_generator.rs.
KATA = [
    "/opt/kata/bin/qemu-system-x86_64 -name sandbox-1 -machine q35,accel=kvm,nvdimm=on -cpu host "
    "-m 2048M,slots=10,maxmem=65536M "
    "-object memory-backend-file,id=mem0,mem-path=/opt/kata/kata.img,size=268435456,readonly=on "
    "-device nvdimm,id=nv0,memdev=mem0,unarmed=on "
    "-object memory-backend-file,id=dimm1,size=2048M,mem-path=/dev/shm,share=on "
    "-numa node,memdev=dimm1 -append 'root=/dev/pmem0p1 rootflags=dax,errors=remount-ro ro'",
    "qemu-system-x86_64 -machine q35,accel=kvm,nvdimm=on -m 2048M,slots=4,maxmem=9G "
    "-object memory-backend-file,id=TODO,mem-path=/opt/kata/kata.img,size=268435456,share=off,"
    "prealloc=off,readonly=on -device nvdimm,memdev=TODO,unarmed=on",
]


@pytest.mark.parametrize("text", KATA)
def test_katas_image_is_a_read_only_nvdimm(text: str) -> None:
    machine = read_text(text)
    (device,) = machine.devices
    assert (device.kind, device.backend.mem_path) == ("nvdimm", "/opt/kata/kata.img")
    assert device.backend.is_read_only and machine.notes == ()


def test_an_nvdimm_stays_plugged() -> None:
    device = read_text(KATA[0]).devices[0]
    with pytest.raises(CommandLineError, match="nvdimm device hot unplug is not supported yet"):
        read_timeline([(0, f"device_del {device.name}")], Machine((device,)))


@pytest.mark.parametrize(
    "text",
    [
        "ls -la",
        "bhyve -s 0:0,hostbridge vm",
        "/usr/bin/lkvm run --pmem a",
        "VBoxHeadless --startvm x",
        "--jsn",
        "--pmem file=a,size=1G",
        "sudo -u firecracker something",
    ],
)
def test_a_program_that_is_not_known_cannot_be_read(text: str) -> None:
    assert "cannot be read" in only(text)


@pytest.mark.parametrize(
    ("text", "monitor"),
    [
        ("sudo -u crosvm qemu-system-x86_64 -S", "qemu"),
        ("ip netns exec a /usr/bin/crosvm --no-syslog run --pmem a", "crosvm"),
        ("/opt/crosvm-v1 run --pmem a", "crosvm"),
        ("cloud-hypervisor-static --pmem file=a,size=2M", "cloud-hypervisor"),
        ("-name crosvm -object x", "qemu"),
    ],
)
def test_the_monitor_is_the_program_that_runs(text: str, monitor: str) -> None:
    words = split(text)
    before = before_options(words)
    named = monitor_of(words[before - 1]) if before else None
    assert (named.name if named else "qemu") == monitor


def test_json_types_are_not_converted() -> None:
    text = (
        '-object \'{"qom-type":"memory-backend-file","id":"m","mem-path":1,"size":"4G","share":1}\''
    )
    found = mistakes(text)
    assert [mistake.split(" ", 1)[1].split(" takes ")[0] for mistake in found] == [
        "mem-path",
        "size",
        "share",
    ]


def test_all_mistakes_are_reported_at_once_and_shown_with_a_caret() -> None:
    with pytest.raises(CommandLineError) as caught:
        read_text(f"-object memory-backend-file,id=mem1,size=1,sahre=on {DEVICE} -device")
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "word 2, column 36: memory-backend-file has no property 'sahre'; did you mean 'share'?\n"
        "    memory-backend-file,id=mem1,size=1,sahre=on\n"
        "                                       ^^^^^^^^\n"
        "word 2, column 1: memory-backend-file needs mem-path=\n"
        "    memory-backend-file,id=mem1,size=1,sahre=on\n"
        "    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "word 5, column 1: -device needs an argument\n"
        "    -device\n"
        "    ^^^^^^^"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_quote_that_does_not_end_is_reported() -> None:
    with pytest.raises(CommandLineError, match="no closing quotation"):
        read_text("qemu-system-x86_64 -append 'console=ttyS0")


def test_V5_a_file_smaller_than_size_is_refused_when_it_can_be_seen() -> None:
    def small(mem_path: str) -> HostFile:
        return HostFile("file", 1 << 20)

    expected = "2:55:7 ./p.img has 1048576 bytes, fewer than size (4294967296): refused (V5)"
    assert only(f"{OBJECT} {DEVICE}", small) == expected
    assert "fewer than size plus offset" in only(f"{OBJECT},offset=4k {DEVICE}", small)
    assert read_text(f"{OBJECT} {DEVICE}").devices == MACHINE


@pytest.mark.parametrize("size_bytes", [0, 4 * GIB, 5 * GIB])
def test_V5_an_empty_file_grows_and_a_larger_one_is_used_in_part(size_bytes: int) -> None:
    machine = read_text(f"{OBJECT} {DEVICE}", lambda mem_path: HostFile("file", size_bytes))
    assert machine.devices == MACHINE


def test_V5_a_missing_file_is_created_but_not_for_reading_only() -> None:
    def missing(mem_path: str) -> HostFile:
        return HostFile("missing")

    assert read_text(f"{OBJECT} {DEVICE}", missing).devices == MACHINE
    assert "creates no file" in only(f"{OBJECT},readonly=on {DEVICE}", missing)


def test_cloud_hypervisors_pmem_is_read() -> None:
    text = "cloud-hypervisor --kernel k --pmem file=a,size=1G file=b,size=2G,discard_writes=on,id=x"
    first, second = read_text(text).devices
    assert (first.backend.mem_path, first.backend.share) == ("a", True)
    assert (second.name, second.backend.share, second.monitor) == ("x", False, "cloud-hypervisor")
    (device,) = read_command(
        ["/opt/cloud-hypervisor", "--pmem=file=a,size=1G", "--api", "y"]
    ).devices
    assert device.backend == first.backend


def test_cloud_hypervisors_device_is_as_large_as_its_file() -> None:
    text = "cloud-hypervisor --pmem file=a"
    (device,) = read_text(text, lambda path: HostFile("file", 8192)).devices
    assert device.backend.size_bytes == 8192
    (device,) = read_text(text).devices
    assert device.backend.size_bytes is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("size=1G", "--pmem needs file="),
        ("file=a,size=x", "size takes"),
        ("file=a,size=1M", "size takes a multiple of 2 MiB"),
        ("file=a,size=1G,discard_writes=maybe", "discard_writes takes"),
        ("file=a,size=1G,discard_write=on", "did you mean 'discard_writes'?"),
        ("file=a,size=1G,id=x file=b,size=1G,id=x", "the id 'x' is given twice"),
    ],
)
def test_cloud_hypervisors_mistakes_are_reported(value: str, expected: str) -> None:
    assert expected in only(f"cloud-hypervisor --pmem {value}")


def test_the_argument_of_an_option_is_the_next_word() -> None:
    words = split("qemu-system-x86_64 -S -append '-x y' -nographic -k de img --object a -foo -s")
    assert [(o.name, o.argument.text if o.argument else None) for o in options(words, 1)] == [
        ("S", None),
        ("append", "-x y"),
        ("nographic", None),
        ("k", "de"),
        ("object", "a"),
        ("foo", None),
        ("s", None),
    ]
