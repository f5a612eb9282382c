"""The checkers that know the synthetic workloads, against what is told from the bytes alone."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from crashsim.checkers import Acks, Checker, Verdict, acknowledgements
from crashsim.checkers.builtin import RuleName, built_in
from crashsim.errors import UsageError
from crashsim.states import Rules, Space
from tests.checkers_support import Ran, image_of, run_experiment
from tests.every_state import Enumerator

EXPERIMENT = """
device: {{size: {size}}}
workload: {workload}
sync: {sync}
guest: {{file_system: none}}
disk: {{profile: consumer-nvme}}
"""
NEVER = "{call: none}"
SYNCED = "{call: fdatasync, every: 2 records}"
MOST_STATES = 400  # of an epoch
RECORD = 768  # a sector and a half: every other one shares a sector with each neighbour


def ran(folder: Path, workload: str, sync: str, size: str = "64KiB") -> Ran:
    return run_experiment(folder, EXPERIMENT.format(size=size, workload=workload, sync=sync))


def append_log(records: int, vcpus: int = 1, acknowledge: str = "after-sync") -> str:
    return (
        f"{{kind: append-log, records: {records}, record_size: {RECORD}B, vcpus: {vcpus},"
        f" acknowledge: {acknowledge}}}"
    )


def checker(run: Ran, rule: RuleName) -> Checker:
    return built_in(rule, run.kind, run.history, run.programs, 0, run.inputs.content)


def contents(run: Ran) -> dict[int, tuple[int, bytes]]:
    """Write -> where it goes, and its bytes."""
    found = {}
    for program in run.programs:
        number = np.arange(program.offset.size) + program.first_write
        parts = run.inputs.content.parts(number, number * 0, program.length, program.length)
        for write, offset, part in zip(
            number.tolist(), program.offset.tolist(), parts, strict=True
        ):
            found[write] = offset, bytes(part)
    return found


def there(image: memoryview, write: tuple[int, bytes]) -> bool:
    offset, content = write
    return bytes(image[offset : offset + len(content)]) == content


def tour(run: Ran) -> Iterator[tuple[memoryview, Acks]]:
    """The image in the first and last states of each epoch, in the order of a Gray code."""
    space = Space(run.history, run.inputs.content, None, 0, Rules())
    walker = Enumerator(space)
    image = walker.view
    every_ack = acknowledgements(run.history, 0)
    for epoch in space.epochs():
        walker.enter(epoch)
        acks = every_ack.first(epoch.acks)
        for first, last in ((0, MOST_STATES), (max(MOST_STATES, epoch.images - MOST_STATES), None)):
            for _ in walker.enumerate_all(first, last):
                yield image, acks


def changed_sectors(old: bytes, new: memoryview) -> list[tuple[int, int]]:
    unequal = np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8)
    sectors = np.flatnonzero(unequal.reshape(-1, 512).any(axis=1)).tolist()
    return [(sector * 512, (sector + 1) * 512) for sector in sectors]


Slow = Callable[[memoryview, Acks], bool]


def outcomes(run: Ran, rule: RuleName, slow: Slow | None = None) -> Counter[str]:
    """Outcomes over all states; each verdict is that of a checker that knows nothing of the states
    before, and of the slow one."""
    told = checker(run, rule)
    found: Counter[str] = Counter()
    old: bytes | None = None
    for number, (image, acks) in enumerate(tour(run)):
        changed = None if old is None else changed_sectors(old, image)
        verdict = told.check(image, acks, changed)
        assert verdict.kind in ("ok", "finding")
        if number % 7 == 0:
            assert verdict == checker(run, rule).check(image, acks)
        if slow is not None:
            assert (verdict.kind == "ok") == slow(image, acks), verdict
        old = bytes(image)
        found[verdict.outcome] += 1
    return found


# Logs, told by their checksums


def intact(image: memoryview, offset: int) -> bool:
    """What a program that knows the format of a record sees."""
    record = bytes(image[offset : offset + RECORD])
    checksum, length, _number = struct.unpack_from("<IIQ", record)
    return bool(length == RECORD and zlib.crc32(record[4:]) == checksum)


def slow_records(image: memoryview, acks: Acks) -> bool:
    slots = range(0, len(image) - RECORD + 1, RECORD)
    return all(intact(image, at) or not any(image[at : at + RECORD]) for at in slots)


def slow_prefix(run: Ran) -> Slow:
    def holds(image: memoryview, acks: Acks) -> bool:
        for program in run.programs:
            here = [intact(image, at) for at in program.offset.tolist()]
            if sorted(here, reverse=True) != here:
                return False
        return True

    return holds


def slow_acknowledged(run: Ran) -> Slow:
    offsets = {write: offset for write, (offset, _) in contents(run).items()}

    def holds(image: memoryview, acks: Acks) -> bool:
        return all(intact(image, offsets[low]) for low, _ in acks.records)

    return holds


@pytest.mark.parametrize("rule", ["records", "atomic"])
def test_a_record_is_torn_exactly_when_its_checksum_says_so(tmp_path: Path, rule: RuleName) -> None:
    found = outcomes(ran(tmp_path, append_log(8), SYNCED), rule, slow_records)
    assert set(found) == {"", "torn record"}


@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_log_has_a_hole_exactly_when_a_record_is_there_and_an_earlier_one_is_not(
    tmp_path: Path, vcpus: int
) -> None:
    run = ran(tmp_path, append_log(8, vcpus), SYNCED)
    assert set(outcomes(run, "prefix", slow_prefix(run))) == {"", "hole"}


@pytest.mark.parametrize(
    ("sync", "acknowledge", "expected"),
    [
        (SYNCED, "after-sync", {""}),
        (SYNCED, "before-sync", {"", "lost acknowledged record", "torn acknowledged record"}),
    ],
)
def test_an_acknowledged_record_is_lost_exactly_when_it_is_not_intact(
    tmp_path: Path, sync: str, acknowledge: str, expected: set[str]
) -> None:
    run = ran(tmp_path, append_log(8, acknowledge=acknowledge), sync)
    assert set(outcomes(run, "acknowledged", slow_acknowledged(run))) == expected


def test_a_log_that_is_written_again_from_its_beginning_lost_nothing(tmp_path: Path) -> None:
    """It has room for five records: the others are written over old ones, on purpose."""
    run = ran(tmp_path, append_log(14), SYNCED, "4KiB")
    assert set(outcomes(run, "acknowledged")) == {""}
    assert "hole" in outcomes(run, "prefix")


def test_a_record_that_was_overwritten_by_an_older_one_is_lost(tmp_path: Path) -> None:
    run = ran(tmp_path, append_log(14), SYNCED, "4KiB")
    written = contents(run)
    image = image_of(size_bytes=4096)
    for offset, content in written.values():
        image[offset : offset + len(content)] = content
    acks = acknowledgements(run.history, 0)
    assert checker(run, "acknowledged").check(image, acks).kind == "ok"
    offset, older = written[8]  # 13 lies over 8, and 8 over 3
    image[offset : offset + RECORD] = older
    assert checker(run, "acknowledged").check(image, acks).outcome == "lost acknowledged record"
    assert checker(run, "acknowledged").check(image, acks.first(13)).kind == "ok"
    image[offset + 512 : offset + RECORD] = written[3][1][512:]
    assert checker(run, "acknowledged").check(image, acks.first(13)).kind == "finding"
    image[offset + 512 : offset + RECORD] = written[13][1][512:]
    assert checker(run, "acknowledged").check(image, acks.first(13)).kind == "ok"


# Keys and values


def key_value(acknowledge: str = "after-sync", sizes: str = "1KiB", vcpus: int = 1) -> str:
    return (
        f"{{kind: key-value, records: 12, slots: 4, value_size: {sizes},"
        f" acknowledge: {acknowledge}, vcpus: {vcpus}}}"
    )


@pytest.mark.parametrize("acknowledge", ["after-sync", "before-sync"])
def test_an_acknowledged_value_is_there_or_a_later_one_of_its_slot(
    tmp_path: Path, acknowledge: str
) -> None:
    """A value of two sectors written in place can be torn, whatever was synced."""
    run = ran(tmp_path, key_value(acknowledge), SYNCED)
    written = contents(run)

    def holds(image: memoryview, acks: Acks) -> bool:
        newest = {written[low][0]: low for low, _ in acks.records}
        return all(
            any(
                there(image, written[write])
                for write in written
                if write >= low and written[write][0] == offset
            )
            for offset, low in newest.items()
        )

    found = outcomes(run, "acknowledged", holds)
    assert "torn acknowledged record" in found
    assert ("lost acknowledged record" in found) == (acknowledge == "before-sync")


def test_values_of_one_sector_that_are_synced_are_never_lost(tmp_path: Path) -> None:
    run = ran(tmp_path, key_value(sizes="512B"), SYNCED)
    assert set(outcomes(run, "acknowledged")) == {""}
    assert set(outcomes(run, "records")) == {""}


@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_value_is_whole_whatever_a_longer_one_left_behind_it(tmp_path: Path, vcpus: int) -> None:
    """All slots lie within one sector; of two vCPUs one may divide a write of the other."""
    run = ran(tmp_path, key_value(sizes="{min: 8B, max: 256B}", vcpus=vcpus), SYNCED)
    slots: dict[int, list[tuple[int, bytes]]] = {}
    for write in contents(run).values():
        slots.setdefault(write[0], []).append(write)

    def holds(image: memoryview, acks: Acks) -> bool:
        return all(
            any(there(image, write) for write in writes) or not any(image[offset : offset + 256])
            for offset, writes in slots.items()
        )

    found = outcomes(run, "records", holds)
    if vcpus == 1:
        assert set(found) == {""}
        assert set(outcomes(run, "acknowledged")) == {""}
    else:
        assert set(found) == {"", "torn record"}


def test_the_order_of_several_vcpus_in_one_table_is_nobodys_promise(tmp_path: Path) -> None:
    run = ran(tmp_path, key_value(vcpus=2), SYNCED)
    with pytest.raises(UsageError, match="several vCPUs write to the same place"):
        checker(run, "prefix")


# Double buffers


def double_buffer(sync: str, folder: Path, acknowledge: str = "after-sync") -> Ran:
    workload = f"{{kind: double-buffer, records: 6, body_size: 1KiB, acknowledge: {acknowledge}}}"
    return ran(folder, workload, sync)


def slow_buffer(run: Ran, promised: bool) -> Slow:
    """The newest header is not older than what was acknowledged, and its body is there."""
    written = contents(run)

    def holds(image: memoryview, acks: Acks) -> bool:
        headers = [write for write in written if write % 2 and there(image, written[write])]
        acknowledged = max((high - 1 for _, high in acks.records), default=-1)
        if promised and acknowledged < 0:
            return True
        newest = max(headers, default=-1)
        whole = newest < 0 or there(image, written[newest - 1])
        return whole and (not promised or newest >= acknowledged)

    return holds


@pytest.mark.parametrize("rule", ["atomic", "acknowledged"])
def test_a_double_buffer_that_syncs_before_its_header_is_never_broken(
    tmp_path: Path, rule: RuleName
) -> None:
    run = double_buffer("{call: fdatasync}", tmp_path)
    assert set(outcomes(run, rule, slow_buffer(run, rule == "acknowledged"))) == {""}


@pytest.mark.parametrize("rule", ["atomic", "acknowledged"])
def test_a_double_buffer_that_does_not_sync_is_committed_in_part(
    tmp_path: Path, rule: RuleName
) -> None:
    run = double_buffer(NEVER, tmp_path)
    found = outcomes(run, rule, slow_buffer(run, rule == "acknowledged"))
    assert "committed in part" in found
    assert ("lost acknowledged record" in found) == (rule == "acknowledged")


# Write-ahead logs


def write_ahead_log(folder: Path) -> Ran:
    workload = (
        f"{{kind: write-ahead-log, records: 12, record_size: {RECORD}B, table_size: 8KiB,"
        " checkpoint_every: 3}"
    )
    return ran(folder, workload, SYNCED, "12KiB")


def test_a_write_ahead_log_that_syncs_around_its_checkpoints_loses_nothing(tmp_path: Path) -> None:
    assert set(outcomes(write_ahead_log(tmp_path), "acknowledged")) == {""}


def test_a_log_that_is_reused_before_its_checkpoint_is_in_the_table_is_found(
    tmp_path: Path,
) -> None:
    run = write_ahead_log(tmp_path)
    written = contents(run)
    image = image_of(size_bytes=12 << 10)
    told = checker(run, "acknowledged")
    acks = acknowledgements(run.history, 0)
    pages = [write for write, (offset, _) in written.items() if offset < 8 << 10]
    records = [low for low, _ in acks.records]
    for write in range(pages[-1] + 1):
        offset, content = written[write]
        image[offset : offset + len(content)] = content
    reused = acks.first(sum(write < pages[-1] for write in records))
    assert told.check(image, reused).kind == "ok"
    offset, content = written[pages[0]]
    later = [write for write in pages if written[write][0] == offset][-1]
    image[offset : offset + 512] = bytes(512)
    found = told.check(image, reused, [(offset, offset + 512)])
    assert found.outcome == "log reused too early"
    assert told.check(image, reused.first(2), ()).kind == "finding"
    assert told.check(image, reused.first(0), ()).kind == "ok"
    image[offset : offset + len(content)] = written[later][1]
    assert told.check(image, reused, [(offset, offset + len(content))]).kind == "ok"


# What they are for


def test_a_recording_has_no_records_that_we_know(tmp_path: Path) -> None:
    run = ran(tmp_path, append_log(2), SYNCED)
    with pytest.raises(UsageError, match="a recording has no records"):
        built_in("records", "recording", run.history, run.programs, 0, run.inputs.content)


def test_what_a_device_held_before_is_no_torn_record(tmp_path: Path) -> None:
    run = ran(tmp_path, append_log(2), SYNCED)
    before = memoryview(b"\1" * 4096)
    image = image_of(before.tobytes())
    told = built_in("records", run.kind, run.history, run.programs, 0, run.inputs.content, before)
    assert told.check(image, Acks()) == Verdict("ok")
    assert checker(run, "records").check(image, Acks()).outcome == "torn record"


def test_a_fill_is_checked_write_by_write(tmp_path: Path) -> None:
    run = ran(tmp_path, "{kind: fill, size: 8KiB, write_size: 1KiB}", NEVER)
    assert set(outcomes(run, "records")) == {"", "torn record"}
    assert set(outcomes(run, "prefix")) == {"", "hole"}
