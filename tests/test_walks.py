"""The two walks of ARCHITECTURE.md, walked: a store to its point of the curve, a state to its file.

Every step names a public function of a module; profiling a run shows that they return in the order
of the page, and their imports that none reaches back from a later one.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

import crashsim
from tests import tidy

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
STORE, STATE = "One store, from YAML", "One state, from a log"
MOST_MODULES, MOST_FORMS, LONGEST_PAGE = 10, 6, 110
_ROW = re.compile(
    r"^\| \d+ \| `(crashsim/[\w/]+\.py)` `([\w.]+)` \| [^|]*\|([^|]*)\|$", re.MULTILINE
)
_PATH = re.compile(r"`((?:crashsim|tests|docs|tools|benchmarks|experiments)/[\w./*-]+)`")


class Step(NamedTuple):
    module: str
    name: str
    form: str  # what the store or state is after it, '': as before


def steps(title: str) -> list[Step]:
    section = PAGE.split(f"## {title}")[1].split("\n## ")[0]
    return [Step(module, name, form.strip()) for module, name, form in _ROW.findall(section)]


def returned(walk: Callable[[], object]) -> list[tuple[str, str]]:
    """(module, qualified name) of all of crashsim that returned, in the order of first times."""
    seen: dict[tuple[str, str], None] = {}

    def look(frame: FrameType, event: str, _argument: object) -> None:
        path = frame.f_code.co_filename
        if event == "return" and path.startswith(str(ROOT / "crashsim")):
            module = str(Path(path).relative_to(ROOT))
            seen.setdefault((module, frame.f_code.co_qualname))

    sys.setprofile(look)
    try:
        walk()
    finally:
        sys.setprofile(None)
    return list(seen)


def hold(title: str, walk: Callable[[], object]) -> None:
    walked = returned(walk)
    places = []
    for step in steps(title):
        mine = [n for n, (module, name) in enumerate(walked) if (module, name) == step[:2]]
        assert mine, f"{step.module} {step.name} was not passed"
        places.append(mine[0])
    assert places == sorted(places), list(zip(places, steps(title), strict=True))


def test_one_store_is_followed_from_yaml_to_a_point_of_the_curve(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    text = """
        device: {size: 1MiB}
        guest: {file_system: none, access: direct}
        workload: {kind: append-log, record_size: 256B, records: 10, rate: 1000/s}
        sync: {call: fdatasync, every: 5 records}
    """
    file.write_text(text, encoding="utf-8")
    found = []
    hold(STORE, lambda: found.append(crashsim.run(file).loss("power-cut").at("4500us")))
    assert found == [4 * 256]  # of the five before the first sync


def test_one_state_is_followed_from_a_log_to_a_saved_finding(tmp_path: Path) -> None:
    file = ROOT / "experiments" / "sqlite-wal-off.yaml"
    kept = tmp_path / "one.crashsim-finding"

    def walk() -> None:
        check = crashsim.Function(f"{__file__}:no_commit_was_given")
        run = crashsim.sweep(file)[0]
        run.explore(check, states=40).findings[0].save(kept)

    hold(STATE, walk)
    assert kept.stat().st_size


def no_commit_was_given(_image: memoryview, acks: object) -> None:
    """A checker that rejects every state but the first ones."""
    assert not len(acks.labels)  # type: ignore[attr-defined]


@pytest.mark.parametrize("title", [STORE, STATE])
def test_a_walk_is_short_and_never_climbs_back(title: str) -> None:
    walk = steps(title)
    assert 5 <= len({step.module for step in walk}) <= MOST_MODULES
    assert len({step.form for step in walk} - {""}) <= MOST_FORMS
    modules = [step.module.removesuffix(".py").replace("/", ".") for step in walk]
    for place, step in enumerate(walk):
        source = (ROOT / step.module).read_text(encoding="utf-8")
        taken = [name for _, name in tidy.imports(ast.parse(source))]
        back = [name for name in taken if tidy.within(name, tuple(modules[place + 1 :]))]
        assert not back, f"{step.module} takes {back} of what comes after it"
    for step in walk:
        assert not step.name.startswith("_")


def test_the_page_is_short_and_all_that_it_names_is_there() -> None:
    assert len(PAGE.splitlines()) <= LONGEST_PAGE
    named = set(_PATH.findall(PAGE))
    assert len(named) > 15
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_house_is_drawn_as_it_stands() -> None:
    rooms = {path.name for path in (ROOT / "crashsim").iterdir() if (path / "__init__.py").exists()}
    drawn: list[tuple[int, str]] = []
    floor = 0
    for line in PAGE.split("```")[1].splitlines():
        floor = int(line[1]) if line[1:2].isdigit() else floor
        drawn += [(floor, word) for word in line[4:43].split()]
    assert {room for _, room in drawn} == rooms and len(drawn) == len(rooms)
    assert {floor for floor, _ in drawn} == {1, 2, 3, 4, 5}
    places = {room: (floor, n) for n, (floor, room) in enumerate(drawn)}
    for room in rooms:
        for taken in set(tidy.ROOMS[room]) & rooms:
            assert places[taken] < places[room], f"{room} stands below {taken}"
