"""Shrinking a failing state to the fewest atoms, against predicates whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from crashsim.explore.selection import as_choices, as_versions, newest
from crashsim.explore.shrink import Core, find_cause
from crashsim.states import Choices
from tests.test_explore_plan import QUICK, epoch

PLENTY = 10_000


def cause(
    versions: list[int], bad: Callable[[list[int]], bool], high: int = 1, limit: int = PLENTY
) -> Core:
    atoms = epoch(*(tuple(range(high)) for _ in versions)).atoms
    asked: list[Choices] = []

    def fails(choices: Choices) -> bool:
        assert choices not in asked, "a state is checked once"
        asked.append(choices)
        return bad(as_versions(choices, len(atoms)))

    found = find_cause(atoms, as_choices(versions), fails, limit)
    assert bad(state_of(found, newest(atoms))) and bad(as_versions(found.kept, len(atoms)))
    assert found.checks == len(asked) <= limit
    return found


def state_of(found: Core, end: list[int]) -> list[int]:
    versions = end.copy()
    for atom, version in found.lost:
        versions[atom] = version
    return versions


def test_a_flag_kept_without_its_data_is_one_atom_kept_and_one_lost() -> None:
    found = cause([1, 0] * 40, lambda v: v[6] == 1 and v[31] == 0)
    assert found.kept == ((6, 1),) and found.lost == ((31, 0),)
    assert found.minimal


def test_a_lost_acknowledgement_needs_nothing_kept() -> None:
    found = cause([0] * 30, lambda v: v[7] == 0)
    assert (found.kept, found.lost) == ((), ((7, 0),))


def test_what_fails_with_everything_kept_needs_nothing_lost() -> None:
    found = cause([1] * 30, lambda v: v[7] == 1)
    assert (found.kept, found.lost) == (((7, 1),), ())


def test_what_fails_at_both_ends_needs_nothing() -> None:
    found = cause([1, 0] * 3, lambda v: True)
    assert (found.kept, found.lost, found.minimal) == ((), (), True)


def test_the_search_goes_on_from_the_nearer_end() -> None:
    wanted = {3, 8, 12}
    found = cause([1] * 15 + [0], lambda v: all(v[n] for n in wanted) and not v[15])
    assert found.lost == ((15, 0),)
    assert found.kept == tuple((n, 1) for n in sorted(wanted))


def test_of_two_causes_of_one_state_the_smaller_is_found_from_whichever_end() -> None:
    def bad(v: list[int]) -> bool:
        return (sum(v[6:12]) == 0 and sum(v[13:]) == 3) or (v[12] == 1 and v[0] == 0)

    found = cause([0] * 12 + [1] * 4, bad)
    assert (found.kept, found.lost) == (((12, 1),), ((0, 0),))


def test_versions_go_as_near_to_the_ends_as_they_can() -> None:
    found = cause([5, 5, 0], lambda v: v[0] >= 2 and v[2] <= 3, high=5)
    assert (found.kept, found.lost) == (((0, 2),), ((2, 3),))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 2**40))
@QUICK
def test_no_part_of_what_is_found_can_be_left_out_whatever_the_predicate(
    start: list[int], salt: int
) -> None:
    def bad(versions: list[int]) -> bool:
        return versions == start or hash((salt, *versions)) % 3 == 0

    atoms = epoch(*((0, 1) for _ in start)).atoms
    found = cause(start, bad, high=2)
    for end, changes in ((newest(atoms), found.lost), ([0] * len(start), found.kept)):
        for number, version in changes:
            step = 1 if end[number] < version else -1
            for nearer in range(end[number], version, step):
                versions = end.copy()
                for other, held in changes:
                    versions[other] = nearer if other == number else held
                assert not bad(versions)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 2**40))
@QUICK
def test_what_is_enough_is_there_in_the_state(start: list[int], salt: int) -> None:
    def bad(versions: list[int]) -> bool:
        return versions == start or hash((salt, *versions)) % 3 == 0

    found = cause(start, bad, high=2)
    state = state_of(found, newest(epoch(*((0, 1) for _ in start)).atoms))
    assert all(version <= state[number] for number, version in found.kept)


def test_the_same_state_is_always_shrunk_to_the_same() -> None:
    def bad(v: list[int]) -> bool:
        return sum(v) in (5, 9, 11, 20) and v[3] == 1

    start = [1] * 20 + [0] * 20
    assert cause(start, bad) == cause(start, bad)


def test_checks_are_bounded_and_what_was_found_by_then_is_given() -> None:
    found = cause([1] * 200 + [0] * 200, lambda v: sum(v[:200]) >= 150, limit=20)
    assert found.checks == 20 and not found.minimal


def test_finding_one_atom_of_thousands_takes_some_dozen_checks() -> None:
    found = cause([1, 0] * 2000, lambda v: v[2468] == 1 and v[1357] == 0)
    assert found.kept == ((2468, 1),) and found.lost == ((1357, 0),)
    assert found.checks < 160
