"""Plans of an epoch, and one budget shared by all."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashsim.explore.budget import allot, fill, rounds
from crashsim.explore.selection import Step, as_choices, as_versions, codes, newest, plan
from crashsim.states import Atom, Epoch

QUICK = settings(max_examples=40, derandomize=True, database=None, deadline=None)
WRITES = np.arange(1000)  # every store is a write of its own


def atom(number: int, rows: tuple[int, ...]) -> Atom:
    """An atom that each row of the History gives another content."""
    versions = tuple(bytes([n]) for n in range(len(rows) + 1))
    after = tuple(range(1, len(versions)))
    return Atom(512 * number, versions, 512 * number, (-1, *rows), len(versions), rows, after)


def epoch(*rows: tuple[int, ...], number: int = 0) -> Epoch:
    """An epoch whose atoms were stored to by these rows."""
    atoms = tuple(atom(n, mine) for n, mine in enumerate(rows))
    images = math.prod(len(mine) + 1 for mine in rows)
    return Epoch(number, 0, 9, 0, atoms, images, images)


def steps(one: Epoch, allowance: int, seed: int = 1) -> list[Step]:
    return list(plan(one, WRITES, allowance, seed))


def of_kind(planned: list[Step], kind: str) -> list[tuple[int, ...]]:
    return [tuple(atom for atom, _ in step.choices) for step in planned if step.kind == kind]


EPOCHS = st.lists(st.integers(1, 3), max_size=6).map(
    lambda sizes: epoch(
        *(tuple(range(low, high)) for low, high in pairwise(np.cumsum([0, *sizes]).tolist()))
    )
)


@given(EPOCHS, st.integers(0, 300))
@QUICK
def test_a_plan_has_exactly_the_states_it_is_allowed_and_none_twice(one: Epoch, size: int) -> None:
    planned = steps(one, size)
    assert len(planned) == min(size, one.images)
    assert len({step.choices for step in planned}) == len(planned)
    for step in planned:
        assert list(step.choices) == sorted(step.choices)
        assert all(0 < v < len(one.atoms[n].versions) for n, v in step.choices)


@given(EPOCHS)
@QUICK
def test_everything_is_checked_when_it_fits(one: Epoch) -> None:
    assert len({step.choices for step in steps(one, one.images)}) == one.images


def test_an_epoch_with_nothing_undecided_has_one_state() -> None:
    assert [(step.kind, step.choices) for step in steps(epoch(), 5)] == [("none", ())]


def test_none_and_all_come_first() -> None:
    found = [(step.kind, step.choices) for step in steps(epoch((0,), (1, 2)), 2)]
    assert found == [("none", ()), ("all", ((0, 1), (1, 2)))]


@given(st.integers(0, 70))
@QUICK
def test_every_two_atoms_are_covered_in_all_four_combinations(atoms: int) -> None:
    rows = [*codes(atoms), [False] * atoms, [True] * atoms]
    assert len(rows) <= 2 + 2 * max(1, atoms).bit_length()
    for one, other in combinations(range(atoms), 2):
        assert len({(row[one], row[other]) for row in rows}) == 4


@given(EPOCHS.filter(lambda one: len(one.atoms) > 1))
@QUICK
def test_a_plan_covers_all_pairs_before_anything_else(one: Epoch) -> None:
    size = 2 + len(codes(len(one.atoms)))
    seen = [as_versions(step.choices, len(one.atoms)) for step in steps(one, size)]
    full = newest(one.atoms)
    for a, b in combinations(range(len(one.atoms)), 2):
        pairs = {(versions[a], versions[b]) for versions in seen}
        assert pairs >= {(0, 0), (0, full[b]), (full[a], 0), (full[a], full[b])}


def test_prefixes_grow_write_by_write_in_the_order_of_time() -> None:
    one = epoch(*((row,) for row in (4, 1, 3, 0, 2, 5, 6)))
    assert of_kind(steps(one, 60), "prefix") == [
        (3,),
        (1, 3),
        (1, 3, 4),
        (1, 2, 3, 4),
        (0, 1, 2, 3, 4),
        (0, 1, 2, 3, 4, 5),
    ]  # and the last is `all`


def test_a_prefix_holds_the_version_that_an_atom_had_by_then() -> None:
    one = epoch((0, 3), (1,), *((row,) for row in range(4, 10)))
    prefixes = [step.choices for step in steps(one, 100) if step.kind == "prefix"]
    assert prefixes[:3] == [((0, 1),), ((0, 1), (1, 1)), ((0, 2), (1, 1))]


def test_each_write_is_once_the_only_one_kept_and_once_the_only_one_lost() -> None:
    one = epoch(*((row,) for row in range(9)))
    planned = {step.choices for step in steps(one, 100)}
    for n in range(9):
        assert ((n, 1),) in planned
        assert tuple((m, 1) for m in range(9) if m != n) in planned


def test_a_write_of_several_atoms_is_kept_and_lost_as_a_whole() -> None:
    both = np.zeros(1000, dtype=np.int64)
    both[2:] = np.arange(998) + 1  # rows 0 and 1 are one write, divided
    one = epoch((0,), (1,), *((row,) for row in range(2, 9)))
    planned = list(plan(one, both, 100, 1))
    assert of_kind(planned, "only")[0] == (1,) or of_kind(planned, "only")[0] == (2,)
    assert (0, 1) in of_kind(planned, "prefix")
    assert tuple(range(2, 9)) in of_kind(planned, "all-but")


def test_writes_that_do_not_all_fit_are_chosen_evenly() -> None:
    one = epoch(*((row,) for row in range(64)))
    size = 2 + len(codes(64)) + 3 * 8
    assert of_kind(steps(one, size), "only") == [(n,) for n in range(0, 64, 8) if n]  # 0: a prefix


def test_equal_contents_that_return_are_the_guaranteed_version_again() -> None:
    back = Atom(0, (b"a", b"b"), 0, (-1, 0), 3, (0, 1), (1, 0))
    one = Epoch(0, 0, 9, 0, (back,), 3, 2)
    assert [step.choices for step in steps(one, 9)] == [(), ((0, 1),)]


def test_random_states_differ_by_seed_and_by_epoch_and_a_larger_budget_goes_on() -> None:
    rows = tuple((row,) for row in range(40))
    few, many = (of_kind(steps(epoch(*rows), size), "random") for size in (200, 300))
    assert many[: len(few)] == few and len(many) == len(few) + 100
    assert of_kind(steps(epoch(*rows), 200, seed=2), "random") != few
    assert of_kind(steps(epoch(*rows, number=1), 200), "random") != few


def test_random_states_take_every_version_of_an_atom_alike() -> None:
    one = epoch(*(((2 * n), (2 * n + 1)) for n in range(30)))
    drawn = [as_versions(step.choices, 30) for step in steps(one, 3000) if step.kind == "random"]
    share = np.array([(np.array(drawn) == version).mean() for version in range(3)])
    assert np.all(np.abs(share - 1 / 3) < 0.01)


@given(st.lists(st.integers(0, 2), max_size=9))
@QUICK
def test_choices_and_versions_are_inverse(versions: list[int]) -> None:
    assert as_versions(as_choices(versions), len(versions)) == versions


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 400))
@QUICK
def test_shares_are_as_even_as_their_caps_let_them_be(caps: list[int], total: int) -> None:
    shares = fill(caps, total)
    assert sum(shares) == min(total, sum(caps))
    assert all(share <= cap for share, cap in zip(shares, caps, strict=True))
    waiting = [share for share, cap in zip(shares, caps, strict=True) if share < cap]
    if waiting:
        assert max(shares) <= min(waiting) + 1


def test_every_epoch_has_its_ends_before_one_has_more() -> None:
    images, structured = [10**40, 2, 1, 600], [50, 2, 1, 20]
    assert allot(images, structured, 7) == [2, 2, 1, 2]
    assert (
        allot(images, structured, 47) == [22, 2, 1, 20] or sum(allot(images, structured, 47)) == 47
    )
    assert allot(images, structured, 73) == [50, 2, 1, 20]
    assert allot(images, structured, 10_000) == [9397, 2, 1, 600]


def test_a_budget_too_small_for_the_ends_is_spread_over_the_run() -> None:
    assert allot([100] * 10, [50] * 10, 5) == [1, 0] * 5


@pytest.mark.parametrize(
    ("allowance", "structured"), [(0, 2), (1, 2), (2, 2), (700, 40), (9999, 1)]
)
def test_rounds_cover_a_plan_once_and_in_order(allowance: int, structured: int) -> None:
    bounds = rounds(allowance, structured)
    assert bounds[0] == 0 and bounds[-1] == allowance and bounds == sorted(bounds)
