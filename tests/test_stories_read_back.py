"""Random explorations: whatever is told of a finding is true of its state and the History."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from crashsim.checkers import Acks
from crashsim.checkers.spec import Rule
from crashsim.engine.history import History
from crashsim.engine.pages import PAGE_BYTES
from crashsim.errors import CheckerError, UsageError
from crashsim.experiment.model import Experiment
from crashsim.explore.budget import Budget
from crashsim.explore.state_runner import Target
from crashsim.explore.survey import explore
from crashsim.guest.content import Content
from crashsim.simulate.inputs import make_inputs
from crashsim.simulate.stack import simulate
from crashsim.states import HostKind, Rules, Space
from tests.against_oracle import comparable, simulate_world
from tests.explore_support import Bytes, Flush, Item, Judged, Mark, Write, history_of, open_target
from tests.oracle import OracleWorld
from tests.states_slowly import Letters, Slowly
from tests.stories_read_back import Reader
from tests.test_states_epochs import crowded_worlds

HOSTS: tuple[HostKind, ...] = ("any-host", "this-host")
MORE = os.environ.get("CRASHSIM_EXAMPLES")
Judge = Callable[[memoryview, Acks], str]


def few(examples: int) -> settings:
    return settings(
        max_examples=int(MORE or examples),
        derandomize=MORE is None,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def judge_of(seed: int, slowly: Slowly, size: int) -> Judge:
    """A checker drawn from a seed, that accepts the image with everything stored."""
    drawn = random.Random(seed)
    final = bytearray(slowly.before[:size].ljust(size, b"\0"))
    for atom in slowly.atoms:
        held = slowly._held(atom, 1 << 60)
        final[atom : atom + slowly.unit_bytes] = held
    whole = bytes(final)
    places = [s.start + drawn.randrange(len(s.content)) for s in slowly.stores]
    a, b = drawn.choice(places), drawn.choice(places)
    before, least, salt = slowly.before, drawn.randint(0, 3), drawn.randrange(1 << 30)
    spans = [(s.start, s.start + len(s.content)) for s in slowly.stores]

    def there(image: memoryview, at: int) -> bool:
        return image[at] != before[at]

    def odd(image: memoryview, acks: Acks) -> bool:
        parts = (bytes(image[low:high]) for low, high in spans)
        return hash((salt, acks.count * (seed % 2), *map(sum, parts))) % 3 == 0

    rules: list[Callable[[memoryview, Acks], bool]] = [
        lambda image, acks: there(image, b) and not there(image, a),
        lambda image, acks: acks.count > least and not there(image, a),
        lambda image, acks: acks.count > least and image[a] != whole[a],
        lambda image, acks: sum(image[p] == whole[p] for p in places) <= least,
        lambda image, acks: there(image, a) and not there(image, b) and acks.count <= least,
        odd,
    ]
    rule, name = rules[seed % len(rules)], f"it is {drawn.randrange(2)}"

    def judge(image: memoryview, acks: Acks) -> str:
        return name if bytes(image) != whole and rule(image, acks) else ""

    return judge


def held_to_be_true(
    history: History, content: Content, before: bytes, rules: Rules, seed: int, judge: Judge | None
) -> int:
    """Explore, and hold every finding's story against the History. Returns how many there are."""
    size = history.devices[0].pages * PAGE_BYTES
    before = before[:size]

    def space() -> Space:
        return Space(history, content, memoryview(before), 0, rules)

    reader = Reader(Target(history, 0, space(), lambda: Judged(judging)), space(), content, before)
    judging = judge or judge_of(seed, reader.slowly, size)
    try:
        found = explore(reader.target, Budget(120), seed)
    except CheckerError:  # this host had not written all that the checker wants to see
        return 0
    for finding in found.findings:
        reader.hold(finding)
    assert (
        sum(finding.states for finding in found.findings) + found.result.ungrouped
        == found.result.failing
    )
    for name in reader.seen:
        event(name)
    return len(found.findings)


@given(
    crowded_worlds(),
    st.sampled_from((8, 512, 4096)),
    st.sampled_from(HOSTS),
    st.integers(0, 10**6),
)
@few(80)
def test_stories_of_colliding_worlds_are_true(
    drawn: OracleWorld, unit: int, host: HostKind, seed: int
) -> None:
    history = simulate_world(comparable(drawn))
    if history.rows_of(0).size:
        rules = Rules(host, unit)
        held_to_be_true(history, Letters(250), bytes(range(1, 200)) * 50, rules, seed, None)


def recordings() -> st.SearchStrategy[list[Item]]:
    place = st.integers(0, 15).map(lambda n: 512 * n)
    write = st.builds(
        lambda at, sectors, byte: Write(at, bytes([byte]) * 512 * sectors),
        place,
        st.integers(1, 3),
        st.integers(1, 255),
    )
    mark = st.builds(Mark, st.sampled_from(("one", "two", "it's", "a\\b")))
    return st.lists(st.one_of(write, write, write, st.just(Flush()), mark), min_size=2, max_size=14)


@given(recordings(), st.sampled_from(HOSTS), st.integers(0, 10**6))
@few(120)
def test_stories_of_recordings_are_true(items: list[Item], host: HostKind, seed: int) -> None:
    if host == "this-host":  # it wrote some versions only: which write made bytes has to be plain
        items = [
            Write(item.offset, bytes([n + 1]) * len(item.content))
            if isinstance(item, Write)
            else item
            for n, item in enumerate(items)
        ]
    contents = [item.content for item in items if isinstance(item, Write)]
    if contents:
        held_to_be_true(history_of(items, 4), Bytes(contents), b"", Rules(host), seed, None)


GUESTS: tuple[dict[str, str], ...] = (
    {"file_system": "ext4", "access": "dax"},
    {"file_system": "none", "access": "direct"},
    {"file_system": "none", "access": "cached"},
)


@st.composite
def experiments(draw: st.DrawFn) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = [
        {"kind": "append-log", "record_size": draw(st.sampled_from(("256B", "512B", "2KiB")))},
        {"kind": "write-ahead-log", "table_size": "8KiB", "checkpoint_every": 4},
        {"kind": "key-value", "slots": 3, "value_size": "1KiB"},
        {"kind": "double-buffer", "body_size": "1KiB", "header_size": "1KiB"},
    ]
    workload = draw(st.sampled_from(kinds)) | {"records": draw(st.integers(3, 9))}
    workload |= {"acknowledge": draw(st.sampled_from(("before-sync", "after-sync")))}
    workload |= draw(st.sampled_from(({}, {"rate": "500/s"})))
    call = draw(st.sampled_from(("none", "fsync", "fdatasync")))
    every = {} if call == "none" else {"every": draw(st.sampled_from(("1 record", "4 records")))}
    return {
        "name": "drawn",
        "device": {
            "size": "64KiB",
            **draw(st.sampled_from(({}, {}, {"backing": {"kind": "private"}}, {"type": "nvdimm"}))),
        },
        "host": draw(st.sampled_from(({}, {"dirty_writeback": "3ms", "dirty_expire": "1ms"}))),
        "disk": draw(st.sampled_from(({}, {"ignores_flush": True}, {"profile": "plp-nvme"}))),
        "guest": draw(st.sampled_from(GUESTS)),
        "workload": workload,
        "sync": {"call": call, **every},
    }


@given(
    experiments(),
    st.sampled_from(("records", "prefix", "acknowledged", "atomic", None)),
    st.sampled_from(HOSTS),
    st.integers(0, 10**6),
)
@few(60)
def test_stories_of_workloads_are_true(
    drawn: dict[str, Any], rule: str | None, host: HostKind, seed: int
) -> None:
    experiment = Experiment.model_validate(drawn)
    inputs = make_inputs(experiment)
    history = simulate(experiment, inputs.programs)
    if not history.rows_of(0).size:
        return
    before = bytes(inputs.before[0] or b"")
    rules = Rules(host)
    if rule is None:
        held_to_be_true(history, inputs.content, before, rules, seed, None)
        return
    try:
        opened = open_target(experiment, Rule(rule), rules)  # type: ignore[arg-type]
        opened.target.make_checker()
    except UsageError:  # the rule has nothing to say of such a workload
        return
    target = opened.target
    again = Space(history, inputs.content, inputs.before[0], 0, rules)
    reader = Reader(target, again, inputs.content, before)
    try:
        found = explore(target, Budget(120), seed)
    except CheckerError:
        return
    for finding in found.findings:
        reader.hold(finding)
    for name in reader.seen:
        event(name)
