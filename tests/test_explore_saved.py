"""Findings as files: written, read, found again, and refused when they do not fit any more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from crashsim.errors import OutputError, StaleFinding, UsageError
from crashsim.explore.budget import Budget
from crashsim.explore.grouping import Cause
from crashsim.explore.saved import (
    Saved,
    locate,
    read_saved,
    replay,
    saved,
    write_image,
    write_saved,
)
from crashsim.explore.state_runner import Target
from crashsim.explore.survey import explore
from crashsim.states import Rules
from tests.explore_support import Item, Judged, Write, target
from tests.test_explore_canaries import append_log, judge_log
from tests.test_explore_run import items, judge


def finding_of(one: Target) -> Cause:
    return explore(one, Budget(2000), 1).findings[0]


def kept(one: Target) -> Saved:
    return saved(finding_of(one), one, {"name": "log"}, {"a.log": "00"}, {"command": "check"})


@pytest.fixture(name="one")
def _one() -> Target:
    return target(items(), judge)


def test_a_saved_finding_replays_without_a_seed(one: Target, tmp_path: Path) -> None:
    path = tmp_path / "second.crashsim-finding"
    write_saved(kept(one), path)
    again = read_saved(path)
    assert again == kept(one)
    result = replay(again, one)
    assert result.as_saved and result.verdict.outcome == "second without first"
    assert again.rules == Rules()


def test_the_file_begins_with_the_story_and_can_be_read_by_people(
    one: Target, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    write_saved(kept(one), path)
    text = path.read_text()
    assert text.index("story") < text.index("verdict") < text.index("choices")
    assert len(text) < 4000
    (choice,) = json.loads(text)["choices"]
    assert choice["offset"] >= 8192 and "content" not in choice  # 512 bytes: a digest will do


def test_small_contents_are_in_the_file(tmp_path: Path) -> None:
    log = target(append_log(False, True), judge_log, Rules(atom_bytes=8))
    assert kept(log).choices[0].content is not None


def test_a_mended_checker_is_told_from_one_that_still_fails(one: Target) -> None:
    file = kept(one)
    mended = replace(one, make_checker=lambda: Judged(lambda image, acks: ""))
    assert not replay(file, mended).as_saved
    other = replace(one, make_checker=lambda: Judged(lambda image, acks: "otherwise"))
    assert not replay(file, other).as_saved


def test_the_image_of_a_finding_is_written_as_a_file(one: Target, tmp_path: Path) -> None:
    file = kept(one)
    write_image(file, one, tmp_path / "out.img")
    image = (tmp_path / "out.img").read_bytes()
    assert len(image) == one.space.size_bytes
    acks = one.history.ack_t_ns[: file.acks]
    assert acks.size == 1
    assert any(image[8192 + 512 * (n + 1)] and not image[8192 + 512 * n] for n in range(0, 8, 2))
    with pytest.raises(OutputError):
        write_image(file, one, tmp_path / "out.img")


def test_choices_do_not_depend_on_the_order_in_which_states_are_numbered(one: Target) -> None:
    file = kept(one)
    more: list[Item] = [Write(4096 * 9, b"x" * 512), *items()]  # an atom and writes in front
    other = target(more, judge)
    epoch, choices = locate(one.space, file)
    moved = file.model_copy(update={"cut_ns": other.space.epoch(epoch.number).cut_ns})
    _, there = locate(other.space, moved)
    assert [n for n, _ in there] == [n for n, _ in choices]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cut_ns": 12345}, "no guarantee ends an epoch at 12345 ns"),
        ({"acks": 7}, "7 acknowledgements"),
        ({"image": "abc"}, "the image differs"),
    ],
)
def test_a_finding_that_does_not_fit_any_more_is_refused(
    one: Target, change: dict[str, object], said: str
) -> None:
    with pytest.raises(StaleFinding, match=said):
        replay(kept(one).model_copy(update=change), one)


def test_bytes_that_are_not_possible_any_more_are_refused(one: Target) -> None:
    file = kept(one)
    (choice,) = file.choices
    for change in ({"sha256": "00"}, {"offset": choice.offset + 65536}):
        other = file.model_copy(update={"choices": [choice.model_copy(update=change)]})
        with pytest.raises(StaleFinding, match="no longer possible"):
            replay(other, one)


def test_a_recording_that_changed_is_refused(one: Target) -> None:
    changed = [
        replace(item, content=b"?" * 512) if isinstance(item, Write) and item.offset == 0 else item
        for item in items()
    ]
    with pytest.raises(StaleFinding):
        replay(kept(one), target(changed, judge))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a saved finding"),
        ("{}", "crashsim-finding"),
        ('{"crashsim-finding": 2}', "crashsim-finding"),
        ("[1]", "not a saved finding"),
        ("\xff", "not a saved finding"),
    ],
)
def test_a_file_that_is_no_finding_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "f"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=said):
        read_saved(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_saved(tmp_path)


def test_a_file_with_something_else_in_it_is_refused(one: Target, tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_saved(kept(one), path)
    document = json.loads(path.read_text())
    for change in ({"rest": "some"}, {"cut_ns": "soon"}, {"more": 1}, {"host": "none"}):
        path.write_text(json.dumps(document | change))
        with pytest.raises(UsageError, match=next(iter(change))):
            read_saved(path)


def test_a_finding_of_a_lost_acknowledgement_holds_its_acknowledgements() -> None:
    log = target(append_log(True, False), judge_log)
    file = kept(log)
    assert file.acks >= 1 and replay(file, log).as_saved
