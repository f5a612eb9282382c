"""Programs with a known mistake: each is found, and shrunk to what the mistake is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from crashsim.checkers import Acks
from crashsim.checkers.spec import Rule
from crashsim.experiment.model import Experiment
from crashsim.explore import grouping
from crashsim.explore.budget import Budget
from crashsim.explore.grouping import Cause
from crashsim.explore.picture import picture
from crashsim.explore.saved import saved
from crashsim.explore.selection import Step
from crashsim.explore.state_runner import Target
from crashsim.explore.survey import Exploration, explore
from crashsim.states import Rules
from tests.explore_support import Flush, Item, Judge, Judged, Mark, Write, open_target, target
from tests.states_support import Flush as Flushed
from tests.states_support import run_of, space_of

MOST_CHOICES = 3
ANY_HOST = Rules()
BUDGET = Budget(20_000)


def run(items: list[Item], judge: Judge, rules: Rules = ANY_HOST) -> Exploration:
    return explore(target(items, judge, rules), BUDGET, seed=1)


def the_finding(found: Exploration) -> Cause:
    assert found.result.exit_code == 1 and found.result.ungrouped == 0
    assert len(found.findings) == 1, [f.story for f in found.findings]
    finding = found.findings[0]
    assert finding.minimal and len(finding.changes) <= MOST_CHOICES
    assert len(finding.kept) + len(finding.lost) <= MOST_CHOICES
    assert finding.states == found.result.failing
    return finding


# An append log: a record is a page of data and, elsewhere, its checksum with a count.

RECORDS = 4


def page(number: int) -> bytes:
    return bytes([number + 1]) * 4096


def summed(number: int) -> bytes:
    return struct.pack("<II", number + 1, zlib.crc32(page(number)))


def append_log(sync_data: bool, sync_checksum: bool) -> list[Item]:
    items: list[Item] = []
    for number in range(RECORDS):
        items.append(Write(4096 * (number + 1), page(number)))
        items += [Flush()] if sync_data else []
        items.append(Write(8 * number, summed(number)))
        items += [Flush()] if sync_checksum else []
        items.append(Mark(f"record {number}"))
    return [*items, Flush()]


def judge_log(image: memoryview, acks: Acks) -> str:
    intact = 0
    for number in range(RECORDS):
        count, checksum = struct.unpack_from("<II", image, 8 * number)
        if count == 0:
            break
        data = image[4096 * (number + 1) : 4096 * (number + 2)]
        if count != number + 1 or zlib.crc32(data) != checksum:
            return "checksum without its data"
        intact += 1
    return "lost acknowledged record" if intact < acks.count else ""


def test_a_log_that_syncs_both_parts_of_a_record_has_no_finding() -> None:
    found = run(append_log(True, True), judge_log)
    assert found.findings == () and found.result.exit_code == 0
    assert found.result.checked == found.result.images


def test_a_log_that_forgets_to_sync_its_checksum_loses_the_record_it_acknowledged() -> None:
    finding = the_finding(run(append_log(True, False), judge_log))
    assert finding.outcome == "lost acknowledged record"
    assert [one.lost_write for one in finding.lost] == [1] and not finding.kept
    assert finding.ack == 0
    assert "acknowledgement 'record 0'" in finding.story[-2]
    assert "after write 1 and completed before that acknowledgement" in finding.story[-1]


def test_a_log_that_forgets_to_sync_its_data_keeps_a_checksum_without_it() -> None:
    finding = the_finding(run(append_log(False, True), judge_log))
    assert finding.outcome == "checksum without its data"
    assert {one.kept_write for one in finding.kept} == {1}
    assert {one.lost_write for one in finding.lost} == {0}
    assert "after write 0 and completed before write 1" in finding.story[-1]


# A double buffer: two bodies and one header that says which of them counts.


def double_buffer(header_atoms: int) -> list[Item]:
    items: list[Item] = []
    for turn in range(4):
        side = turn % 2
        header = struct.pack("<QQ", turn + 1, zlib.crc32(bytes([turn + 1]) * 512))
        whole = header.ljust(512 * header_atoms - 8, b"\0") + struct.pack("<Q", turn + 1)
        items += [Write(4096 * (1 + side), bytes([turn + 1]) * 512), Flush()]
        items += [Write(0, whole), Flush(), Mark(f"version {turn + 1}")]
    return items


def judge_buffer(header_atoms: int) -> Judge:
    def judge(image: memoryview, acks: Acks) -> str:
        version, checksum = struct.unpack_from("<QQ", image, 0)
        (again,) = struct.unpack_from("<Q", image, 512 * header_atoms - 8)
        if version != again:
            return "torn header"
        side = (version - 1) % 2
        if version and zlib.crc32(image[4096 * (1 + side) :][:512]) != checksum:
            return "header of another body"
        return "lost version" if version < acks.count else ""

    return judge


def test_a_double_buffer_whose_header_is_one_atom_has_no_finding() -> None:
    assert run(double_buffer(1), judge_buffer(1)).findings == ()


def test_a_double_buffer_whose_header_is_written_in_place_tears_it() -> None:
    finding = the_finding(run(double_buffer(2), judge_buffer(2)))
    assert finding.outcome == "torn header"
    assert finding.epoch == 1 and finding.epochs == 4  # from the first header on, each time
    assert "Write 1 is torn" in finding.story[-1]


# A file is replaced by renaming: a new file's data, then a directory entry, then the next file.


def rename(sync_directory: bool) -> list[Item]:
    items: list[Item] = [Write(0, b"old".ljust(512, b"\0")), Write(8192, b"A" * 512), Flush()]
    items += [Write(12288, b"B" * 512), Flush()]  # the new file is synced
    items += [Write(0, b"new".ljust(512, b"\0"))]  # renamed over the old one
    items += [Flush()] if sync_directory else []
    items += [Write(8192, b"C" * 512)]  # the old file's block is used again
    return [*items, Mark("renamed"), Flush()]


def judge_rename(image: memoryview, acks: Acks) -> str:
    name, old, new = bytes(image[0:3]), image[8192], image[12288]
    if name == b"new":
        return "" if new == ord("B") else "empty file"
    if name == b"old":
        return "" if old == ord("A") or not old else "another file's data"
    return ""


def test_a_rename_with_a_sync_of_the_directory_has_no_finding() -> None:
    assert run(rename(True), judge_rename).findings == ()


def test_a_rename_without_a_sync_of_the_directory_leaves_the_old_name_on_a_block_used_again() -> (
    None
):
    finding = the_finding(run(rename(False), judge_rename))
    assert finding.outcome == "another file's data"
    assert [one.lost_write for one in finding.lost] == [3]
    assert [one.kept_write for one in finding.kept] == [4]
    assert "after write 3 and completed before write 4" in finding.story[-1]


# Acknowledgements that come too early.


def judge_two(image: memoryview, acks: Acks) -> str:
    return "lost" if acks.count and not (image[0] and image[4096]) else ""


def test_an_acknowledgement_before_the_write_that_it_rests_on_is_told_as_such() -> None:
    items: list[Item] = [Write(0, b"1"), Flush(), Mark("one"), Write(4096, b"2"), Flush()]
    finding = the_finding(run(items, judge_two))
    assert not finding.kept and [one.lost_write for one in finding.lost] == [1]
    assert "rests on write 1, which was made only after that" in finding.story[-1]


def test_what_never_reached_the_disk_is_not_laid_to_a_write_that_was_lost() -> None:
    late: list[Item] = [Write(8192, b"3"), Flush(), Write(4096, b"2"), Flush()]
    found = run([Write(0, b"1"), Flush(), Mark("one"), *late], judge_two)
    first, second = found.findings
    assert (first.kept, first.lost) == ((), ()) and first.states == 2 and first.epochs == 1
    assert "still in the guest's memory" in first.story[-1]
    one = target([Write(0, b"1"), Flush(), Mark("one"), *late], judge_two)
    assert first.story[1].startswith("All that had reached the disk by then survived")
    assert {row.kept for row in picture(first, one).rows} == {1}  # and none is drawn as lost
    assert [one.lost_write for one in second.lost] == [2] and second.epochs == 1


def test_a_storys_writes_its_acknowledgement_and_its_message_are_those_of_one_state() -> None:
    """Everything fails that is not whole: the state is the one that lost least."""
    experiment = Experiment.model_validate(
        {
            "name": "log",
            "device": {"size": "4MiB"},
            "workload": {
                "kind": "write-ahead-log",
                "table_size": "64KiB",
                "records": 100,
                "acknowledge": "before-sync",
            },
            "sync": {"call": "fsync", "every": "100 records"},
        }
    )
    opened = open_target(experiment, Rule("acknowledged"), ANY_HOST)
    (finding,) = explore(opened.target, Budget(300), seed=1).findings
    (lost,) = [one.write for one in finding.account if one.fate == "lost"]
    assert finding.message.startswith(f"1 lost, the first: write {lost},")
    assert f"Write {lost} (256 B" in finding.story[1]
    assert f"acknowledgement of write {lost}," in finding.story[-2]
    assert f"A flush of the device after write {lost} " in finding.story[-1]
    assert [choice.write for choice in saved(finding, opened.target, {}, {}, {}).choices]


def test_a_flush_that_was_not_waited_for_is_named() -> None:
    history = run_of([(10, 0, 512), (200, 4096, 512)], [Flushed(100, 300)], end_ns=1000)
    bad: Judge = lambda image, acks: "lost" if image[4096] and not image[0] else ""  # noqa: E731
    one = Target(history, 0, space_of(history), lambda: Judged(bad))
    (finding,) = explore(one, BUDGET, seed=1).findings
    words = finding.story[-1]
    assert "completed before write 1 would have forbidden it; the one submitted at 100ns" in words
    assert words.endswith("was acknowledged at 300ns, too late.")


def test_an_order_that_only_recovery_can_mend_is_told_as_such() -> None:
    judge: Judge = lambda image, acks: "bad" if image[0] and not image[4096] else ""  # noqa: E731
    finding = the_finding(run([Write(0, b"1"), Write(4096, b"2"), Mark("one")], judge))
    assert finding.story[-1].startswith(
        "No flush forbids it: with all kept that was made before write 1 and nothing after"
    )


def test_what_goes_wrong_only_after_a_loss_is_not_said_to_be_any_disks() -> None:
    """Without write 0 all is well as long as nothing else is there; no single write is to blame."""
    items = [Write(4096 * n, b"1") for n in range(3)]
    odd: Judge = lambda image, acks: (  # noqa: E731
        "bad" if not image[0] and (image[4096] + image[8192] != 49) else ""
    )
    stories = [finding.story[-1] for finding in run([*items], odd).findings]
    assert stories and not any("No flush" in words for words in stories[1:])


# Three fields and a flag in one line, the flag first (PMDK's pmreorder_simple).


@pytest.mark.parametrize("flag_first", [True, False])
def test_a_flag_before_its_fields_has_the_counts_of_the_closed_form(flag_first: bool) -> None:
    fields = [Write(8 * n, b"\x07" * 8) for n in (1, 2, 3)]
    flag = Write(0, b"\x01" * 8)
    items: list[Item] = [flag, *fields] if flag_first else [*fields, flag]

    def judge(image: memoryview, _acks: Acks) -> str:
        values = {bytes(image[8 * n : 8 * n + 8]) for n in (1, 2, 3)}
        return "" if image[0] == 0 or len(values) == 1 else "inconsistent"

    found = run(items, judge, Rules(atom_bytes=8))
    assert (found.result.checked, found.result.failing) == (16, 6)
    assert (
        found.findings
        and found.findings[0].states + sum(one.states for one in found.findings[1:]) == 6
    )


def story(items: Sequence[Item], bad: Callable[[memoryview], bool]) -> tuple[str, ...]:
    """Of the first finding."""
    judge: Judge = lambda image, acks: "bad" if bad(image) else ""  # noqa: E731
    return run([*items], judge).findings[0].story


def last_words(items: Sequence[Item], bad: Callable[[memoryview], bool]) -> str:
    return story(items, bad)[-1]


def test_a_part_of_an_old_version_is_told_as_torn_whatever_else_is_kept() -> None:
    items = [Write(0, b"1" * 1024), Write(0, b"2" * 1024)]
    told = last_words(items, lambda image: image[0] == 49 and image[512] != 49)
    assert "Write 1 is torn" in told


def test_an_old_version_that_must_not_survive_is_no_matter_of_flushes() -> None:
    items = [Write(0, b"1" * 512), Write(0, b"2" * 512)]
    told = last_words(items, lambda image: image[0] == 49)
    assert "with all kept that was made before write 1 and nothing after, it fails, too" in told


def test_a_version_whose_bytes_were_stored_again_is_the_newest_one() -> None:
    items: list[Item] = [Write(0, bytes([letter]) * 512) for letter in b"121"]
    told = last_words([*items, Flush(), Write(0, b"3")], lambda image: image[0] == 49)
    assert told.startswith("Either recovery is wrong, or it needs what was still in the guest's")


@pytest.mark.parametrize("lost", [True, False])
def test_a_story_tells_of_writes_that_were_made_before_its_cut_and_of_what_fails_there(
    lost: bool,
) -> None:
    # The flush covers write 0 alone; writes 1 to 3 are undecided before and after it completes.
    stores = [(10, 0, 512), (80, 512, 512), (150, 1024, 512), (160, 512, 512), (300, 1536, 512)]
    history = run_of(stores, [Flushed(75, 250)], end_ns=1000)
    space = space_of(history)

    def judge(image: memoryview, acks: Acks) -> str:
        fine = image[1536] if lost else image[1024] and not image[1536]
        return "bad" if image[512] == 2 and not fine else ""  # as write 1 leaves it

    assert len(space) == 2 and [atom.offset for atom in space.epoch(1).atoms] == [512, 1024, 1536]
    held = [np.array(versions, dtype=np.uint32).tobytes() for versions in ([0, 0, 0], [1, 0, 0])]
    states = [Step("none", held[0]), Step("only", held[1])]
    causes = grouping.Grouping(Target(history, 0, space, lambda: Judged(judge)))
    causes.take([grouping.Bad(1, 1, "finding", "bad")], lambda _: iter(states))
    (found,) = causes.findings()
    assert found.epoch == 1 and [one.kept_write for one in found.kept] == [1]
    assert [one.lost_write for one in found.lost] == ([3, 4] if lost else [3])


def test_what_fails_with_everything_kept_is_told_so() -> None:
    items: list[Item] = [Write(0, b"1" * 512), Flush(), Write(0, b"2" * 512)]
    told = last_words(items, lambda image: image[0] == 49)
    assert told.startswith("Either recovery is wrong, or it needs what was still in the guest's")
    bad: Judge = lambda image, acks: "bad" if image[0] == 49 else ""  # noqa: E731
    one = target(items, bad)
    info = replace(one.history.info, recorded=False)  # its stores reach the device at once
    one = replace(one, history=replace(one.history, info=info))
    finding = explore(one, BUDGET, seed=1).findings[0]
    assert "fails even with everything kept that was stored" in finding.story[-1]


def test_a_finding_that_was_not_shrunk_to_the_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "CHECKS_EACH", 3)
    items = [Write(512 * n, b"1" * 512) for n in range(40)]
    told = story(
        items, lambda image: sum(image[: 512 * 40 : 512]) > 49 * 30 and not image[512 * 39]
    )
    assert told[-1] == "Less may do: it was not shrunk further after 3 checks."
    assert any(line.startswith("Write 39") and "was lost" in line for line in told)
    assert any(line.startswith("So did") for line in told) and len(told) < 30
