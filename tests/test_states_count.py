"""Closed forms: how many states there are, and which."""

from __future__ import annotations

import pytest

from crashsim.errors import UsageError
from crashsim.states import Rules, Space, power_of_ten
from crashsim.states.numbers import product
from tests.every_state import Enumerator
from tests.states_slowly import Letters
from tests.states_support import Flush, run_of, space_of

SECTOR = 512


def totals(space: Space) -> tuple[int, int, int]:
    choices = sum(space.choices())
    assert choices == sum(epoch.choices for epoch in space.epochs())
    return len(space), choices, sum(epoch.images for epoch in space.epochs())


def test_a_run_without_stores_has_one_state() -> None:
    assert totals(space_of(run_of([]))) == (1, 1, 1)


@pytest.mark.parametrize("n", [1, 2, 7, 70, 2000])
def test_n_independent_dirty_sectors_have_two_to_the_n_states(n: int) -> None:
    space = space_of(run_of([(100 * i, SECTOR * 3 * i, SECTOR) for i in range(n)], pages=2000))
    assert totals(space) == (1, 2**n, 2**n)


@pytest.mark.parametrize("m", [1, 2, 40])
def test_a_sector_rewritten_m_times_has_m_plus_one_states(m: int) -> None:
    space = space_of(run_of([(100 * i, SECTOR, SECTOR) for i in range(m)]))
    assert totals(space) == (1, m + 1, m + 1)


def test_equal_contents_are_one_image() -> None:
    space = space_of(run_of([(100 * i, SECTOR, SECTOR) for i in range(40)]), letters=4)
    assert totals(space) == (1, 41, 5)  # zeros, and four contents over and over
    (atom,) = space.epoch(0).atoms
    assert atom.choices == 41
    assert atom.after == (1, 2, 3, 4) * 10
    assert atom.writes == (-1, 0, 1, 2, 3)


def test_a_store_of_what_is_there_already_leaves_no_choice_of_image() -> None:
    held = memoryview(bytes([1]) * 512)
    space = Space(run_of([(0, 0, 8)]), Letters(1), held, 0, Rules())
    assert totals(space) == (1, 2, 1)
    assert space.epoch(0).atoms == ()


def test_a_flush_between_halves_the_exponents() -> None:
    stores = [(100 * i, SECTOR * i, SECTOR) for i in range(10)]
    stores += [(5000 + 100 * i, SECTOR * (20 + i), SECTOR) for i in range(10)]
    assert totals(space_of(run_of(stores))) == (1, 2**20, 2**20)
    flushed = space_of(run_of(stores, [Flush(2000, 3000)]))
    assert totals(flushed) == (2, 2 * 2**10, 2 * 2**10)


def test_a_flush_that_failed_guarantees_nothing() -> None:
    stores = [(100 * i, SECTOR * i, SECTOR) for i in range(10)]
    assert totals(space_of(run_of(stores, [Flush(2000, 3000, result=1)]))) == (1, 1024, 1024)


def test_a_flush_covers_what_had_landed_when_it_was_submitted() -> None:
    stores = [(0, 0, SECTOR), (1000, SECTOR, SECTOR)]  # 64 words: the second lands at 1063
    covered = space_of(run_of(stores, [Flush(1063, 3000)])).epoch(1)
    assert (covered.first_ns, covered.choices) == (3000, 1)
    late = space_of(run_of(stores, [Flush(1062, 3000)])).epoch(1)
    assert (late.choices, late.atoms[0].offset) == (2, SECTOR)


def test_flushes_that_cover_nothing_new_part_no_epochs() -> None:
    flushes = [Flush(2000, 3000), Flush(2500, 3500), Flush(2600, 3400)]
    assert len(space_of(run_of([(0, 0, 8)], flushes))) == 2


def test_an_epoch_ends_just_before_the_guarantee_and_the_last_one_with_the_run() -> None:
    space = space_of(run_of([(0, 0, 8)], [Flush(100, 200)], end_ns=900))
    assert [(e.first_ns, e.cut_ns) for e in space.epochs()] == [(0, 199), (200, 900)]


def test_an_acknowledgement_in_an_epoch_accompanies_all_of_its_states() -> None:
    acks = [50, 199, 200, 900]
    space = space_of(run_of([(0, 0, 8)], [Flush(100, 200)], acks, end_ns=900))
    assert [epoch.acks for epoch in space.epochs()] == [2, 4]


def test_three_fields_and_a_flag_stored_first_have_sixteen_images_six_of_them_bad() -> None:
    # A flag and three numbers of 8 bytes in one line, the flag stored first, nothing between them.
    space = space_of(run_of([(i, 8 * i, 8) for i in range(4)]), atom_bytes=8)
    assert totals(space) == (1, 16, 16)
    walker = Enumerator(space)
    image = walker.view
    walker.enter(space.epoch(0))
    bad = 0
    for _ in walker.enumerate_all():
        flag, *fields = (bool(image[8 * i]) for i in range(4))
        bad += flag and len(set(fields)) == 2
    assert bad == 6


def test_H4_a_page_that_is_not_stable_under_its_io_can_mix_the_words_of_two_stores() -> None:
    history = run_of([(0, 0, 16), (1, 0, 16)])  # the same two words, written twice
    assert totals(space_of(history, 512)) == (1, 3, 3)
    assert totals(space_of(history, 8)) == (1, 9, 9)  # each word has its own version


def test_larger_atoms_tear_less_and_no_atom_is_larger_than_a_page() -> None:
    history = run_of([(0, 0, 8192)])
    assert totals(space_of(history, 8)) == (1, 2**1024, 2**1024)
    assert totals(space_of(history, 512)) == (1, 2**16, 2**16)
    assert totals(space_of(history, 4096)) == (1, 4, 4)
    assert totals(space_of(history, 65536)) == (1, 4, 4)


@pytest.mark.parametrize("size", [0, 4, 12, 131072, -512])
def test_an_atom_is_a_power_of_two_from_a_word_to_64_kib(size: int) -> None:
    with pytest.raises(UsageError, match="power of two"):
        Rules("any-host", size)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999_999_999_999_999, "999999999999999"),
        (10**15, "1.0e+15 (10^15)"),
        (10**16 - 1, "9.9e+15 (10^15)"),
        (10**300, "1.0e+300 (10^300)"),
        (10**300 - 1, "9.9e+299 (10^299)"),
    ],
)
def test_a_huge_number_is_shown_as_a_power_of_ten(number: int, text: str) -> None:
    assert power_of_ten(number) == text


def test_a_number_too_long_to_be_printed_is_shown_all_the_same() -> None:
    assert power_of_ten(13 * 10**4710 + 7) == "1.3e+4711 (10^4711)"
    assert power_of_ten(-(2**100_000)) == "-9.9e+30102 (10^30102)"


def test_a_product_is_exact() -> None:
    factors = [2, 3, 5] * 100
    assert product(factors) == 30**100
