"""The reader of dm-log-writes logs: what it returns, what it refuses, what it says."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashsim.errors import TraceError
from crashsim.traces.block_log import Trace, check_fits
from crashsim.traces.dm_log_writes import read_log
from tests.log_writer import (
    DISCARD,
    FLUSH,
    FUA,
    MARK,
    METADATA,
    Entry,
    discard,
    flush,
    log_bytes,
    mark,
    write,
    write_log,
)

RECORDINGS = Path(__file__).parents[1] / "experiments" / "recordings"
A, B = b"a" * 512, b"b" * 1024
STORY = [write(8, A), mark("ready"), write(100, B, FUA | METADATA), flush(), mark("ack 0")]


def refusal(path: Path, times: Path | None = None) -> TraceError:
    with pytest.raises(TraceError) as caught:
        read_log(path, times)
    return caught.value


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def times_file(path: Path, times: list[int]) -> Path:
    return put(path, struct.pack(f"<{len(times)}Q", *times))


def label_of(recording: Trace, entry: int) -> str:
    """The label of a mark; empty for an entry that is none."""
    label = int(recording.label[entry])
    return recording.labels[label] if label >= 0 else ""


def data_of(recording: Trace, entry: int) -> bytes:
    begin = int(recording.payload_at[entry])
    return bytes(recording.payload[begin : begin + int(recording.length_bytes[entry])])


# What is read


def test_entries_come_in_the_order_of_the_log_with_offsets_and_lengths_in_bytes(
    tmp_path: Path,
) -> None:
    recording = read_log(write_log(tmp_path / "log", STORY))
    assert recording.offset_bytes.tolist() == [8 * 512, 0, 100 * 512, 0, 0]
    assert recording.length_bytes.tolist() == [512, 0, 1024, 0, 0]
    assert recording.flags.tolist() == [0, MARK, FUA | METADATA, FLUSH, MARK]
    assert (data_of(recording, 0), data_of(recording, 2)) == (A, B)
    for column in (recording.t_ns, recording.offset_bytes, recording.flags, recording.payload_at):
        assert column.dtype == np.int64


def test_marks_have_labels_and_other_entries_have_none(tmp_path: Path) -> None:
    recording = read_log(write_log(tmp_path / "log", STORY))
    assert recording.labels == ("ready", "ack 0")
    assert [label_of(recording, entry) for entry in range(5)] == ["", "ready", "", "", "ack 0"]


def test_sectors_count_in_units_of_the_sector_size(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log", [write(3, b"x" * 4096)], sector_bytes=4096)
    recording = read_log(path)
    assert recording.offset_bytes.tolist() == [3 * 4096]
    assert data_of(recording, 0) == b"x" * 4096


def test_a_discard_has_a_length_but_no_payload_and_is_said_to_be_left_out(tmp_path: Path) -> None:
    recording = read_log(write_log(tmp_path / "log", [discard(4, 1000), write(1, A)]))
    assert recording.length_bytes.tolist() == [512_000, 512]
    assert recording.flags[0] == DISCARD
    assert data_of(recording, 1) == A
    discards = "discards left out, as they promise nothing about the data: 1"
    assert discards in recording.notices


def test_a_write_may_state_the_length_of_its_data_as_the_kernel_does_for_dax_copies(
    tmp_path: Path,
) -> None:
    content = bytearray(log_bytes([write(8, B)]))
    content[512 + 24 : 512 + 32] = struct.pack("<Q", 1024)
    assert data_of(read_log(put(tmp_path / "log", bytes(content))), 0) == B


def test_a_label_that_is_not_text_is_shown_escaped(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log", [Entry(flags=MARK, data=b"ack \xff\0")])
    assert read_log(path).labels == ("ack \\xff",)


def test_gzip_is_known_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    packed = put(tmp_path / "packed.log", gzip.compress(log_bytes(STORY)))
    plain = put(tmp_path / "plain.log.gz", log_bytes(STORY))
    assert data_of(read_log(packed), 2) == data_of(read_log(plain), 2) == B


def test_the_payload_cannot_be_written_to(tmp_path: Path) -> None:
    for content in (log_bytes(STORY), gzip.compress(log_bytes(STORY))):
        assert read_log(put(tmp_path / "log", content)).payload.readonly


def test_reading_leaves_the_users_files_as_they_were(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", STORY)
    times = times_file(tmp_path / "times", [0, 1, 2, 3, 4])
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (log, times)]
    for path in (log, times):
        path.chmod(0o400)
    read_log(log, times)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in (log, times)] == before


# Times


def test_times_are_those_of_the_file_and_two_entries_may_share_one(tmp_path: Path) -> None:
    times = times_file(tmp_path / "times", [5, 5, 700, 800, 800])
    recording = read_log(write_log(tmp_path / "log", STORY), times)
    assert recording.t_ns.tolist() == [5, 5, 700, 800, 800]
    assert recording.notices == ()


def test_without_times_the_entries_are_evenly_apart_and_this_is_said(tmp_path: Path) -> None:
    recording = read_log(write_log(tmp_path / "log", STORY), clock_ns=2_000)
    assert recording.t_ns.tolist() == [0, 2_000, 4_000, 6_000, 8_000]
    assert any("no times" in notice and "2000 ns" in notice for notice in recording.notices)


@pytest.mark.parametrize(
    ("times", "offset", "message"),
    [
        ([0, 1, 2, 3], 32, "expected 8 bytes for each of the 5 entries"),
        ([0, 1, 2, 3, 4, 5], 40, "found 48"),
        ([], 0, "found 0"),
        ([0, 9, 8, 10, 11], 16, "the time of entry 2 (8 ns) is before that of the one before"),
        ([0, 1, 2, 3, 1 << 63], 32, "out of range"),
    ],
)
def test_times_that_do_not_fit_the_log_are_refused(
    tmp_path: Path, times: list[int], offset: int, message: str
) -> None:
    log, path = write_log(tmp_path / "log", STORY), times_file(tmp_path / "times", times)
    error = refusal(log, path)
    assert (error.file, error.offset) == (str(path), offset)
    assert message in str(error)


def test_a_missing_times_file_is_refused_by_its_own_name(tmp_path: Path) -> None:
    error = refusal(write_log(tmp_path / "log", STORY), tmp_path / "no-such.times")
    assert error.file.endswith("no-such.times")


def test_a_clock_that_would_run_over_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="do not fit the clock"):
        read_log(write_log(tmp_path / "log", STORY), clock_ns=1 << 62)


# Files that are no log


@pytest.mark.parametrize(
    ("content", "offset", "message"),
    [
        (b"", 0, "empty"),
        (b"\0" * 10, 10, "too short"),
        (b"\0" * 512, 0, "not a dm-log-writes log"),
        (b"name: an-experiment\n" * 100, 0, "not a dm-log-writes log"),
        (struct.pack("<3QI", 0x6A736677736872, 2, 0, 512) + b"\0" * 484, 8, "version 2"),
        (struct.pack("<3QI", 0x6A736677736872, 1, 0, 0) + b"\0" * 484, 24, "sector size is 0"),
        (struct.pack("<3QI", 0x6A736677736872, 1, 0, 513) + b"\0" * 484, 24, "sector size is 513"),
        (struct.pack("<3QI", 0x6A736677736872, 1, 0, 1 << 30), 24, "sector size is 1073741824"),
        (struct.pack("<3QI", 0x6A736677736872, 1, 0, 512) + b"\0" * 9, 37, "first sector is cut"),
    ],
)
def test_a_file_that_is_no_log_is_refused(
    tmp_path: Path, content: bytes, offset: int, message: str
) -> None:
    error = refusal(put(tmp_path / "log", content))
    assert (error.offset, error.exit_code) == (offset, 2)
    assert message in str(error)


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert "No such file" in str(refusal(tmp_path / "missing"))
    assert "not a file" in str(refusal(tmp_path))
    assert "cannot be read" in str(refusal(Path("nul\0inside")))
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in str(refusal(tmp_path / "pipe"))


def test_a_gzip_file_that_is_cut_or_damaged_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(log_bytes(STORY))
    assert "cut short" in str(refusal(put(tmp_path / "cut", packed[:-12])))
    damaged = bytearray(packed)
    damaged[-6] ^= 0xFF
    assert "damaged" in str(refusal(put(tmp_path / "damaged", bytes(damaged))))
    assert "damaged" in str(refusal(put(tmp_path / "head", b"\x1f\x8bnot gzip at all")))


# Entries that are not valid


def header(sector: int, nr_sectors: int, flags: int, data_len: int) -> bytes:
    return struct.pack("<4Q", sector, nr_sectors, flags, data_len).ljust(512, b"\0")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (header(8, 1, 32, 0) + A, "unknown flags"),
        (header(8, 0, 0, 0), "no flags and no sectors"),
        (header(1 << 60, 1, 0, 0) + A, "beyond any device"),
        (header(1, (1 << 64) - 1, 0, 0) + A, "beyond any device"),
        (header(1, 1 << 60, DISCARD, 0), "beyond any device"),
        (header(0, 1, MARK, 3) + A, "is a mark and has sectors"),
        (header(0, 0, MARK, 481), "label of over 480 bytes"),
        (header(8, 1, 0, 100) + A, "not that of its data"),
        (header(8, 1, DISCARD, 512), "not that of its data"),
        (header(8, 1000, 0, 0) + A, "its data goes beyond the end of the file"),
    ],
)
def test_an_entry_that_is_not_valid_is_refused_with_the_byte_at_which_it_begins(
    tmp_path: Path, bad: bytes, message: str
) -> None:
    good = log_bytes(STORY, stated=7)
    error = refusal(put(tmp_path / "log", good + bad + log_bytes(STORY)[512:]))
    assert error.offset == len(good)
    assert "entry 5 of 7 " in str(error) and message in str(error)


def test_a_log_cut_in_the_middle_of_an_entry_is_refused(tmp_path: Path) -> None:
    whole = log_bytes([mark("ready"), write(100, B)])
    header_at = 1024
    for cut in (header_at + 40, header_at + 511):
        error = refusal(put(tmp_path / "log", whole[:cut]))
        assert (error.offset, "its header is not complete" in str(error)) == (header_at, True)
    for cut in (header_at + 512, len(whole) - 1):
        error = refusal(put(tmp_path / "log", whole[:cut]))
        assert (error.offset, "its data goes beyond" in str(error)) == (header_at, True)


# A stale number of entries


def test_entries_behind_a_stale_count_are_read_and_this_is_said(tmp_path: Path) -> None:
    recording = read_log(write_log(tmp_path / "log", STORY, stated=2))
    assert recording.flags.size == 5
    assert recording.labels == ("ready", "ack 0")
    assert "the log states 2 entries and has 5: all are read" in recording.notices


def test_a_log_that_ends_between_entries_before_its_count_is_read_and_this_is_said(
    tmp_path: Path,
) -> None:
    for rest in (b"", b"\0" * 5000):
        recording = read_log(put(tmp_path / "log", log_bytes(STORY, stated=9) + rest))
        assert recording.flags.size == 5
        assert "the log states 9 entries and ends after 5: all are read" in recording.notices


def test_zeros_behind_the_last_entry_are_the_rest_of_the_log_device(tmp_path: Path) -> None:
    for rest in (b"\0" * 100, b"\0" * 100_000):
        recording = read_log(put(tmp_path / "log", log_bytes(STORY) + rest), clock_ns=1)
        assert recording.flags.size == 5
        assert len(recording.notices) == 1  # that of the clock


@pytest.mark.parametrize(
    "rest",
    [
        b"some earlier content of the log device".ljust(512, b"."),
        header(8, 1, 32, 0) + A,
        header(8, 1000, 0, 0) + A,
        header(0, 0, MARK, 481),
        header(8, 1, 0, 0)[:-1] + b"." + A,
        header(0, 0, MARK, 3)[:-1] + b".",
        b"cut",
    ],
)
def test_what_is_no_entry_behind_the_last_is_left_out_and_this_is_said(
    tmp_path: Path, rest: bytes
) -> None:
    good = log_bytes(STORY)
    recording = read_log(put(tmp_path / "log", good + rest))
    assert recording.flags.size == 5
    assert f"what follows from byte {len(good)} on is no entry and is left out" in recording.notices


# The device


def test_a_log_fits_a_device_that_ends_with_its_last_sector_and_no_smaller_one(
    tmp_path: Path,
) -> None:
    far_flush = Entry(sector=1 << 40, flags=FLUSH)
    recording = read_log(write_log(tmp_path / "log", [*STORY, far_flush]))
    check_fits(recording, 102 * 512)
    with pytest.raises(
        TraceError, match=r"entry 2 goes to byte 52224 of the device.* the whole log needs 52224"
    ) as caught:
        check_fits(recording, 102 * 512 - 1)
    assert caught.value.offset == 512 * 4


def test_a_flush_fits_wherever_its_sector_is(tmp_path: Path) -> None:
    recording = read_log(write_log(tmp_path / "log", [Entry(sector=1 << 40, flags=FLUSH)]))
    check_fits(recording, 4096)


# Whatever the file holds

ENTRIES = st.lists(
    st.one_of(
        st.builds(
            lambda sector, sectors, flags, fill: write(
                sector, bytes([fill]) * 512 * sectors, flags
            ),
            st.integers(0, 1 << 40),
            st.integers(1, 3),
            st.sampled_from([0, FUA, FLUSH, FLUSH | FUA, METADATA]),
            st.integers(0, 255),
        ),
        st.builds(discard, st.integers(0, 1 << 40), st.integers(1, 1 << 20)),
        st.text("ack 0123456789µ", max_size=200).map(mark),
        st.just(flush()),
    ),
    max_size=8,
)


@given(entries=ENTRIES, packed=st.booleans(), stale=st.integers(0, 8))
def test_every_log_that_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], packed: bool, stale: int
) -> None:
    content = log_bytes(entries, stated=min(stale, len(entries)))
    path = put(
        tmp_path_factory.getbasetemp() / "round-trip", gzip.compress(content) if packed else content
    )
    recording = read_log(path)
    assert recording.flags.tolist() == [entry.flags for entry in entries]
    for place, entry in enumerate(entries):
        assert recording.offset_bytes[place] == entry.sector * 512
        if entry.flags == DISCARD:
            assert recording.length_bytes[place] == entry.sectors * 512
        elif entry.flags == MARK:
            assert label_of(recording, place) == entry.data.decode()
        else:
            assert data_of(recording, place) == entry.data


@st.composite
def damaged_logs(draw: st.DrawFn) -> bytes:
    content = bytearray(log_bytes(draw(ENTRIES)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content) - 8))
        value = draw(st.one_of(st.integers(0, 40), st.integers(0, (1 << 64) - 1)))
        content[at : at + 8] = struct.pack("<Q", value)
    whole = bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else content
    if draw(st.booleans()):
        packed = bytearray(gzip.compress(whole))
        packed[draw(st.integers(0, len(packed) - 1))] ^= draw(st.integers(0, 255))
        whole = packed[: draw(st.integers(1, len(packed)))]
    return bytes(whole)


@given(content=st.one_of(st.binary(max_size=2000), damaged_logs()))
def test_any_content_gives_a_recording_within_the_file_or_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = put(tmp_path_factory.getbasetemp() / "fuzz", content)
    try:
        recording = read_log(path)
    except TraceError:
        return
    has_data = recording.flags & DISCARD == 0
    ends = recording.payload_at + np.where(has_data, recording.length_bytes, 0)
    assert bool(np.all(ends <= recording.payload.nbytes))
    assert bool(np.all(recording.offset_bytes >= 0))
    assert len(recording.labels) == np.count_nonzero(recording.flags & MARK)


# The recordings that come with the project


@pytest.mark.parametrize(
    ("name", "entries", "writes", "flushes", "acknowledged"),
    [
        ("sqlite-wal-full", 631, 319, 211, 100),
        ("sqlite-wal-normal", 123, 13, 9, 100),
        ("sqlite-wal-off", 118, 10, 7, 100),
        ("sqlite-delete-full", 1091, 579, 411, 100),
        ("sqlite-delete-off", 104, 1, 2, 100),
        ("sqlite-wal-normal-90s", 1062, 100, 61, 900),
        ("sqlite-wal-off-90s", 1003, 61, 41, 900),
    ],
)
def test_a_shipped_recording_holds_what_its_readme_states(
    name: str, entries: int, writes: int, flushes: int, acknowledged: int
) -> None:
    recording = read_log(RECORDINGS / f"{name}.log.gz", RECORDINGS / f"{name}.times")
    assert recording.t_ns.size == entries
    assert np.count_nonzero(recording.length_bytes) == writes
    assert np.count_nonzero(recording.flags & FLUSH) == flushes
    assert recording.labels == ("ready", *(f"ack {i}" for i in range(acknowledged)))
    assert recording.notices == ()
    check_fits(recording, 32 << 20)


def test_a_shipped_recording_holds_the_database_that_sqlite_wrote() -> None:
    recording = read_log(RECORDINGS / "sqlite-delete-full.log.gz")
    written = [data_of(recording, entry) for entry in range(recording.t_ns.size)]
    assert any(data.startswith(b"SQLite format 3\0") for data in written)
