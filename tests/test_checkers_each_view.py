"""Each view of the files is mounted once, and a sample of those met before, which must agree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from crashsim.checkers import Verdict, each_view
from crashsim.checkers.each_view import SAMPLED, EachView
from crashsim.checkers.image_session import Question, Sandbox
from crashsim.checkers.spec import Command, Files
from crashsim.checkers.verdict import Acks
from crashsim.errors import ReplayMismatch
from crashsim.explore.budget import Budget
from crashsim.explore.survey import explore
from crashsim.ext4.view import View
from tests.checkers_support import ACKS, after_requests, empty_ext4, image_of, own_prefix, python
from tests.ext4_support import made
from tests.sqlite_truth import NAMES, cases, subject_of
from tests.test_checkers_files import has_e2fsprogs, has_loops

SIZE = 16 << 20
Changed = Sequence[tuple[int, int]]

pytestmark = [has_loops, has_e2fsprogs]


@pytest.fixture(autouse=True)
def prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    return own_prefix(monkeypatch)


class Asked:
    """A checker with a count of how often files were mounted for it."""

    def __init__(self, command: str, paranoid: bool = False) -> None:
        self.mounted = 0
        self.checker = EachView(Command(command).checker(paranoid=paranoid), paranoid)
        session = self.checker._asked.session
        witness = session.witness
        assert witness is not None

        def counted(sandbox: Sandbox, ask: Question) -> Verdict:
            self.mounted += 1
            return witness(sandbox, ask)

        session.witness = counted

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        self.checker.close()


@pytest.fixture(scope="module")
def empty() -> bytes:
    return empty_ext4()


@pytest.fixture
def image(empty: bytes) -> memoryview:
    return image_of(empty, len(empty))


def free_byte(image: memoryview) -> int:
    """In a block that nothing has."""
    return image.nbytes - 4096


def flip(image: memoryview, at: int) -> list[tuple[int, int]]:
    image[at] ^= 1
    return [(at, at + 1)]


def test_the_same_view_is_mounted_once(image: memoryview) -> None:
    with Asked("/bin/ls {mnt}") as asked:
        first = asked.checker.check(image, ACKS)
        assert first.kind == "ok"
        for _ in range(SAMPLED // 4):
            assert asked.checker.check(image, ACKS, flip(image, free_byte(image))) == first
        assert 1 <= asked.mounted < SAMPLED // 4


def test_a_sample_is_mounted_all_the_same(image: memoryview) -> None:
    with Asked("/bin/ls {mnt}") as asked:
        for _ in range(10 * SAMPLED):
            assert asked.checker.check(image, ACKS, []).kind == "ok"
        assert 1 + 3 < asked.mounted < 1 + 30


def test_other_acknowledgements_are_another_question(image: memoryview) -> None:
    wanted = (
        python("import sys; sys.exit('ack 0' not in open(sys.argv[1]).read())") + " {acks} {mnt}"
    )
    with Asked(wanted) as asked:
        for _ in range(3):
            assert asked.checker.check(image, ACKS, []).kind == "ok"
            assert asked.checker.check(image, ACKS.first(1), []).kind == "finding"
            same = Acks(ACKS.labels, ACKS.records)
            assert asked.checker.check(image, same, []).kind == "ok"


def test_what_changed_while_nothing_was_mounted_reaches_the_checker(image: memoryview) -> None:
    """The copy that is mounted is then proved to be the state, byte by byte."""
    free = free_byte(image)
    with Asked("/bin/ls {mnt}") as asked:
        asked.checker._asked.session._paranoid = True
        for number in range(4 * SAMPLED):
            changed = flip(image, free - 4096 * (number % 7))
            assert asked.checker.check(image, ACKS, changed).kind == "ok"
        assert asked.mounted > 1


def test_paranoid_mounts_every_state(image: memoryview) -> None:
    with Asked("/bin/ls {mnt}", paranoid=True) as asked:
        for _ in range(5):
            asked.checker.check(image, ACKS, [])
        assert asked.mounted == 5


def test_what_does_not_mount_is_told_each_time(image: memoryview) -> None:
    with Asked("/bin/ls {mnt}") as asked:
        asked.checker.check(image, ACKS)
        for _ in range(3):
            changed = flip(image, 1024 + 0x20)  # of the superblock
            found = asked.checker.check(image, ACKS, changed)
            assert found.outcome == "file system does not mount"
            assert asked.checker.check(image, ACKS, flip(image, 1024 + 0x20)).kind == "ok"


def test_other_file_systems_are_mounted_each_time(tmp_path: Path) -> None:
    made(tmp_path / "image", ("-b", "4096", "-O", "^has_journal"), SIZE)
    image = image_of((tmp_path / "image").read_bytes(), SIZE)
    with Asked("/bin/ls {mnt}") as asked:
        for _ in range(5):
            assert asked.checker.check(image, ACKS, []).kind == "ok"
        assert asked.mounted == 5


@pytest.mark.parametrize("way", ["{mnt} {image}", "{mnt}"])
def test_a_checker_that_opens_the_image_sees_every_state(image: memoryview, way: str) -> None:
    code = "import os, sys; f = open(os.environ['CRASHSIM_IMAGE'], 'rb'); f.seek(%d); "
    code = code % free_byte(image) + "sys.exit(f.read(1)[0] & 1)"
    with Asked(f"{python(code)} {way}") as asked:
        asked.checker.check(image, ACKS)
        for number in range(1, 6):
            found = asked.checker.check(image, ACKS, flip(image, free_byte(image)))
            assert found.kind == ("finding" if number % 2 else "ok")


def counting(tmp_path: Path, answers: str) -> str:
    """A command that ends with the next digit each time it is run, and then with the last."""
    count = tmp_path / "count"
    count.write_bytes(b"")
    code = (
        f"import sys; f = open({str(count)!r}, 'r+b'); n = len(f.read()); f.write(b'x');"
        f"sys.exit(int({answers!r}[min(n, {len(answers) - 1})]))"
    )
    return f"{python(code)} {{mnt}}"


def test_an_unstable_checker_is_found_and_then_asked_about_every_state(
    image: memoryview, tmp_path: Path
) -> None:
    with Asked(counting(tmp_path, "101" + "0" * 9)) as asked:
        assert asked.checker.check(image, ACKS).kind == "unstable"
        mounted = asked.mounted
        for _ in range(4):
            asked.checker.check(image, ACKS, [])
        assert asked.mounted >= mounted + 4


def sampled_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(each_view, "_is_sampled", lambda key, met: True)


def test_a_sample_finds_a_checker_that_answers_otherwise(
    image: memoryview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First ok; then twice a finding, so it counts; asked again, it is ok."""
    sampled_each_time(monkeypatch)
    with Asked(counting(tmp_path, "0110")) as asked:
        assert asked.checker.check(image, ACKS).kind == "ok"
        assert asked.checker.check(image, ACKS, []).kind == "unstable"


def test_two_verdicts_on_the_same_files_are_an_error_that_names_both(
    image: memoryview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled_each_time(monkeypatch)
    with Asked(counting(tmp_path, "01")) as asked:
        assert asked.checker.check(image, ACKS).kind == "ok"
        with pytest.raises(ReplayMismatch, match=r"ok and finding.*--paranoid") as caught:
            asked.checker.check(image, ACKS, [])
    assert caught.value.exit_code == 3


def test_a_reader_that_reads_something_else_is_an_error_that_names_both(
    image: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled_each_time(monkeypatch)
    whole = View.listing

    def without(view: View) -> object:
        read, truncated = whole(view)
        return {path: line for path, line in read.items() if path != b"lost+found"}, truncated

    monkeypatch.setattr(View, "listing", without)
    with Asked("/bin/ls {mnt}") as asked:
        asked.checker.check(image, ACKS)
        with pytest.raises(ReplayMismatch, match=r"/lost\+found: read as None, mounted as \(.*11"):
            asked.checker.check(image, ACKS, [])


def test_a_reader_that_sees_no_difference_is_found_by_the_sample(
    image: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly = View.of

    def blindly(view: View, image: memoryview, changed: Changed | None) -> int | None:
        return None if truly(view, image, changed) is None else 1

    monkeypatch.setattr(View, "of", blindly)
    sampled_each_time(monkeypatch)
    with Asked("/bin/ls {mnt}/app.db") as asked:
        there = after_requests("sqlite-wal-full", 400)[0]
        assert asked.checker.check(there, ACKS).kind == "ok"
        with pytest.raises(ReplayMismatch, match="ok and finding"):
            asked.checker.check(image, ACKS)


def says_folder(folder: Path, acks: Acks) -> Verdict:
    names = sorted(os.listdir(folder))
    return Verdict("ok", ",".join(names))


def test_a_function_is_asked_once_about_each_view(image: memoryview) -> None:
    checker = EachView(Files(f"{__name__}:says_folder").checker())
    try:
        first = checker.check(image, ACKS)
        assert (first.kind, first.outcome) == ("ok", "lost+found")
        assert checker.check(image, ACKS, []) is first
    finally:
        checker.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_recordings_have_the_same_findings_when_every_state_is_mounted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With causes, which take many checks, where there are few."""
    target, causes = subject_of(cases(name)[0]), name in ("sqlite-wal-off", "sqlite-delete-off")
    once = explore(target, Budget(20), 1, causes=causes)
    monkeypatch.setattr(View, "of", lambda view, image, changed: None)
    assert explore(target, Budget(20), 1, causes=causes) == once
    assert once.result.checked > 2
