"""`crashsim doctor`: read, judged, printed, and the exit code."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from crashsim.cli.diagnosis import print_diagnosis
from crashsim.errors import CommandLineError, UsageError
from crashsim.vmm import probe
from crashsim.vmm.examine import examine, examine_process, examine_words, examine_xml

GOOD = "-object memory-backend-file,id=mem1,share=on,mem-path=p.img,size=1M"
DEVICE = "-device virtio-pmem-pci,memdev=mem1,id=nv1"

OWN_COPY = "readonly=on,rom=off,share=off"
RAW = """\
note: how the guest uses its device is not seen here: only a file system mounted with -o dax, devdax
or O_DIRECT stores straight into it; /dev/pmem0 that is mapped or written as it is goes through the
guest's page cache (G2)""".splitlines()

GOLDEN = """\
nv1: memory-backend-file p.img, 1MiB
  V4 loses data: share=off, QEMU's default
     where: word 3, column 1
     why:   the file is mapped privately: stores stay in the monitor's own memory and end
            with it, every flush succeeds and nothing reaches the file
     mend:  share=on, if the file is this guest's own: guests that share it would change it
            for each other
  V5 note: pmem=on
     where: word 3, column 52
     why:   if the file is on no DAX file system, QEMU warns and maps it like any other:
            flushes are needed all the same

mem2: memory-backend-ram, 4GiB
  V5 fails: memory-backend-ram
     where: word 7, column 1
     why:   there is no file behind it, so every flush fails and the guest's fsync gets EIO
     mend:  memory-backend-file,id=mem2,share=on,mem-path=FILE,size=...

note: no device uses the backend 'idle'
2 devices: 2 settings lose data or fail.
"""
BAD = f"""qemu-system-x86_64 {GOOD.replace("share=on,", "")},pmem=on {DEVICE}
    -object memory-backend-ram,id=mem2,size=4G -device virtio-pmem-pci,memdev=mem2
    -object memory-backend-ram,id=idle,size=4G"""


@pytest.fixture(autouse=True)
def _small_folios(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed does not depend on the file system that the tests run on (H2)."""
    monkeypatch.setattr(probe, "_has_large_folios", lambda filesystem: False)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.img").write_bytes(b"x" * (1 << 20))
    return tmp_path


def printed(text: str, folder: Path) -> tuple[int, str]:
    stream = io.StringIO()
    diagnosis = examine_words([text], folder)
    print_diagnosis(diagnosis, stream=stream)
    return diagnosis.exit_code, stream.getvalue()


def test_the_text_is_what_it_was(folder: Path) -> None:
    assert printed(BAD, folder) == (1, GOLDEN)


def test_nothing_that_loses_data_is_exit_code_0(folder: Path) -> None:
    code, text = printed(f"{GOOD} {DEVICE}", folder)
    assert code == 0
    assert text.splitlines() == [
        "nv1: memory-backend-file p.img, 1MiB",
        "  nothing found",
        "",
        *RAW,
        "1 device: no setting was found that loses data that is to be kept.",
    ]


def test_one_setting_that_loses_is_exit_code_1(folder: Path) -> None:
    code, text = printed(f"{GOOD},discard-data=on {DEVICE}", folder)
    assert code == 1
    assert text.endswith("1 device: 1 setting loses data or fails.\n")


@pytest.mark.parametrize(
    ("options", "summary"),
    [("readonly=on", "1 read-only, nothing to lose"), (OWN_COPY, "1 discarding what is written")],
)
def test_what_keeps_nothing_by_design_is_exit_code_0_and_told(
    folder: Path, options: str, summary: str
) -> None:
    code, text = printed(f"{GOOD},{options} {DEVICE}", folder)
    told = f"1 device: no setting was found that loses data that is to be kept; {summary}."
    assert code == 0 and text.splitlines()[-1] == told and "mend:" not in text


def test_a_katas_line_and_a_firecrackers_configuration_are_examined(folder: Path) -> None:
    kata = f"qemu-system-x86_64 {GOOD},readonly=on -device nvdimm,id=nv0,memdev=mem1,unarmed=on"
    code, text = printed(kata, folder)
    assert code == 0
    assert text.startswith("nv0: nvdimm, memory-backend-file p.img, 1MiB\n")
    (folder / "vm.json").write_text(
        '{"boot-source": {}, "drives": [],\n'
        ' "pmem": [{"id": "a", "path_on_host": "p.img", "read_only": true}]}'
    )
    for line in ("firecracker --no-api --config-file vm.json", "firecracker --config-file=vm.json"):
        code, text = printed(line, folder)
        assert code == 0
        assert text.startswith('a: firecracker, p.img, 1MiB\n  V4 read-only: "read_only": true\n')
        assert "where: vm.json, pmem[0], column " in text


def test_what_was_not_followed_is_not_called_nothing(folder: Path) -> None:
    code, text = printed("qemu-system-x86_64 -readconfig vm.cfg", folder)
    assert code == 2
    assert text.splitlines()[-1] == (
        "No virtio-pmem device in what could be read, and not all could: see the note."
    )


def test_a_cost_is_no_loss(folder: Path) -> None:
    code, text = printed(f"{GOOD},prealloc=on {DEVICE}", folder)
    assert code == 0 and "V5 costs: prealloc=on" in text


def test_zero_devices_are_never_green(folder: Path) -> None:
    code, text = printed("qemu-system-x86_64 -m 4G disk.img", folder)
    assert code == 2
    assert text == "No virtio-pmem device here: there is nothing to judge.\n"


def test_a_wrong_command_line_is_exit_code_2(folder: Path) -> None:
    with pytest.raises(CommandLineError) as caught:
        examine_words([f"{GOOD} {DEVICE},memdev=x"], folder)
    assert caught.value.exit_code == 2


def test_V5_a_file_smaller_than_size_is_refused(folder: Path) -> None:
    with pytest.raises(CommandLineError, match=r"p\.img has 1048576 bytes, fewer than size"):
        examine_words([f"{GOOD.replace('1M', '2M')} {DEVICE}"], folder)


def test_words_and_a_pasted_text_are_the_same(folder: Path) -> None:
    text = f"qemu-system-x86_64 {GOOD} {DEVICE}"
    assert examine_words(text.split(), folder) == examine_words([text], folder)


def test_json_is_pure_json(folder: Path) -> None:
    stream = io.StringIO()
    print_diagnosis(examine_words([BAD], folder), as_json=True, stream=stream)
    found = json.loads(stream.getvalue())
    assert [device["name"] for device in found["devices"]] == ["nv1", "mem2"]
    assert [(f["device"], f["rule"], f["mend"][:9]) for f in found["findings"]] == [
        ("nv1", "V4", "share=on,"),
        ("nv1", "V5", ""),
        ("mem2", "V5", "memory-ba"),
    ]
    assert found["findings"][1]["column"] == 52 and found["exit_code"] == 1


def test_what_a_terminal_would_act_on_is_not_printed(folder: Path) -> None:
    code, text = printed(f"'{GOOD[:7]}' '{GOOD[8:]},mem-path=\x1b[2J[bold]\udcff' {DEVICE}", folder)
    assert "\x1b" not in text and "[bold]" in text
    text.encode()
    assert code == 0


def test_a_character_that_the_stream_cannot_carry_is_replaced(folder: Path) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_diagnosis(examine_words([f"{GOOD},mem-path=p\u00e9.img {DEVICE}"], folder), stream=stream)
    stream.seek(0)
    assert stream.readline() == "nv1: memory-backend-file p?.img, 1MiB\n"


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False)])
def test_a_terminal_gets_colour_unless_it_is_declined(
    folder: Path, monkeypatch: pytest.MonkeyPatch, no_color: str | None, coloured: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    print_diagnosis(examine_words([BAD], folder), stream=stream)
    assert ("\x1b[1;31m" in stream.getvalue()) == coloured


def test_a_running_process_is_examined(folder: Path) -> None:
    own = folder / "7"
    own.mkdir()
    (own / "cwd").symlink_to(folder)
    (own / "root").symlink_to("/")
    words = f"/usr/bin/qemu-system-x86_64 {GOOD} {DEVICE}".split()
    (own / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
    diagnosis = examine_process(7, proc=folder)
    (raw,) = diagnosis.notes
    assert diagnosis.exit_code == 0 and "/dev/pmem0" in raw


def test_libvirts_xml_is_examined(folder: Path) -> None:
    path = folder / "domain.xml"
    path.write_text(
        "<memory model='virtio-pmem' access='shared'>"
        f"<source><path>{folder}/p.img</path></source>"
        "<target><size unit='MiB'>1</size></target></memory>"
    )
    assert examine_xml(path).exit_code == 0
    with pytest.raises(UsageError, match="No such file"):
        examine_xml(folder / "none.xml")
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a text in UTF-8"):
        examine_xml(folder / "binary")


def test_exactly_one_thing_is_examined(folder: Path) -> None:
    for words, process_id in (([], None), (["x"], 1)):
        with pytest.raises(UsageError, match="give one of"):
            examine(words, process_id, None, folder)
    assert examine(["qemu-system-x86_64"], None, None, folder).exit_code == 2
    with pytest.raises(UsageError, match="none of QEMU"):
        examine([], os.getpid(), None, folder)
    with pytest.raises(UsageError, match="No such file"):
        examine([], None, folder / "none.xml", folder)


@pytest.mark.parametrize(("columns", "least"), [(60, 50), (140, 110)])
def test_a_pipe_that_says_how_wide_it_is_gets_lines_of_that_width(
    folder: Path, monkeypatch: pytest.MonkeyPatch, columns: int, least: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    print_diagnosis(examine_words([BAD], folder), stream=stream)
    assert least < max(map(len, stream.getvalue().splitlines())) <= columns
