"""The walker: one image, patched from state to state, with its digest."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashsim.states import Epoch, Rules, Space
from crashsim.states.walker import PRIME
from tests.every_state import Enumerator, gray
from tests.states_slowly import Letters
from tests.states_support import Flush, run_of, space_of

BEFORE = bytes(range(1, 256)) * 40


def a_space(letters: int = 3) -> Space:
    """Some atoms with several versions, three epochs, parts of sectors, stores over stores."""
    stores = [(0, 0, 700), (200, 512, 512), (400, 4000, 200), (600, 100, 50), (800, 9000, 8)]
    stores += [(5000 + at, offset, length) for at, offset, length in stores]
    flushes = [Flush(500, 1500), Flush(5500, 7000)]
    history = run_of(stores, flushes, pages=4)
    return Space(history, Letters(letters), memoryview(BEFORE), 0, Rules())


def fresh_image(space: Space, epoch: Epoch, choices: dict[int, int]) -> bytearray:
    """The state built from the ground up."""
    image = bytearray(BEFORE).ljust(space.size_bytes, b"\0")
    for start, content in space.guaranteed(-1, epoch.number):
        image[start : start + len(content)] = content
    for number, version in choices.items():
        atom = epoch.atoms[number]
        image[atom.start : atom.start + len(atom.versions[0])] = atom.versions[version]
    return image


def fresh_digest(image: memoryview) -> int:
    before = BEFORE.ljust(len(image), b"\0")
    return (int.from_bytes(image, "little") - int.from_bytes(before, "little")) % PRIME


@st.composite
def journeys(draw: st.DrawFn) -> list[tuple[int, dict[int, int]]]:
    """Epochs in any order, and states in them."""
    epochs = list(a_space().epochs())
    legs = []
    for number in draw(st.lists(st.integers(0, len(epochs) - 1), min_size=1, max_size=8)):
        choices = {
            i: draw(st.integers(0, len(atom.versions) - 1))
            for i, atom in enumerate(epochs[number].atoms)
        }
        legs.append((number, choices))
    return legs


@given(journeys())
@settings(max_examples=100, derandomize=True, database=None, deadline=None)
def test_however_the_walker_came_its_image_and_digest_are_those_of_the_state(
    journey: list[tuple[int, dict[int, int]]],
) -> None:
    space = a_space()
    walker = Enumerator(space)
    image = walker.view
    assert image == BEFORE.ljust(space.size_bytes, b"\0")
    for number, choices in journey:
        epoch = space.epoch(number)
        walker.enter(epoch)
        assert walker.choices == ()
        assert image == fresh_image(space, epoch, {})
        walker.move_to(choices.items())
        assert image == fresh_image(space, epoch, choices)
        assert walker.digest == fresh_digest(image)
        assert walker.choices == tuple((i, v) for i, v in sorted(choices.items()) if v)
        walker.move_to(dict(list(choices.items())[::2]).items())
        assert walker.digest == fresh_digest(image)
    walker.restore()
    assert image == fresh_image(space, epoch, {})


def test_the_enumeration_visits_every_image_once_and_changes_one_atom_at_a_time() -> None:
    space = a_space()
    walker = Enumerator(space)
    image = walker.view
    for epoch in space.epochs():
        walker.enter(epoch)
        seen: dict[bytes, int] = {}
        last = None
        for digest in walker.enumerate_all():
            assert bytes(image) not in seen
            seen[bytes(image)] = digest
            assert digest == walker.digest == fresh_digest(image)
            assert image == fresh_image(space, epoch, dict(walker.choices))
            if last is not None:
                assert len(set(last) ^ set(walker.choices)) <= 2
            last = walker.choices
        assert len(seen) == epoch.images == len(set(seen.values()))


def test_equal_images_of_two_epochs_have_equal_digests() -> None:
    space = a_space()
    walker = Enumerator(space)
    first, second = space.epoch(0), space.epoch(1)
    walker.enter(first)
    walker.move_to(enumerate(atom.newest for atom in first.atoms))
    newest = walker.digest
    walker.enter(second)
    walker.move_to((i, atom.before_store(5)) for i, atom in enumerate(second.atoms))
    assert walker.digest == newest


@given(st.lists(st.integers(2, 4), max_size=5), st.data())
@settings(max_examples=60, derandomize=True, database=None, deadline=None)
def test_the_gray_code_numbers_every_state_and_neighbours_differ_in_one_digit_by_one(
    radices: list[int], data: st.DataObject
) -> None:
    total = 1
    for radix in radices:
        total *= radix
    codes = [gray(number, radices)[0] for number in range(total)]
    assert len({tuple(code) for code in codes}) == total
    for one, other in pairwise(codes):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) == 1


def test_stretches_of_the_enumeration_join_to_the_whole() -> None:
    space = a_space()
    epoch = max(space.epochs(), key=lambda epoch: epoch.images)
    walker = Enumerator(space)
    walker.enter(epoch)
    whole = list(walker.enumerate_all())
    bounds = [0, 1, 2, 7, len(whole) // 2, len(whole) - 1, len(whole), len(whole) + 9]
    parts = [list(walker.enumerate_all(*pair)) for pair in pairwise(bounds)]
    assert [digest for part in parts for digest in part] == whole
    assert list(walker.enumerate_all(3, 3)) == []


def test_the_digest_tells_equal_bytes_at_two_places_apart() -> None:
    stores = [(100 * i, 512 * i, 8) for i in range(8)]
    space = space_of(run_of(stores), letters=1)
    walker = Enumerator(space)
    walker.enter(space.epoch(0))
    assert len(set(walker.enumerate_all())) == 256


def test_a_digest_modulo_the_prime_is_one_of_a_prime_of_128_bits() -> None:
    assert PRIME.bit_length() == 128
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 3, 5, 7, 11))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_epoch_alone_is_the_one_in_the_sequence(number: int) -> None:
    space = a_space()
    assert space.epoch(number) == list(space.epochs())[number]
    assert list(space.epochs(number)) == list(space.epochs())[number:]


def test_a_store_guaranteed_late_stays_below_one_that_began_after_it() -> None:
    # A long store of one vCPU, and a short one of another that begins later and lands first.
    history = run_of([(0, 0, 512), (5, 16, 8)], [Flush(20, 200), Flush(100, 300)])
    space = space_of(history)
    walker = Enumerator(space)
    image = walker.view
    found = []
    for epoch in space.epochs():
        walker.enter(epoch)
        found.append(bytes(image[0:24]))
    assert found == [
        bytes(24),
        bytes(16) + b"\x02" * 8,
        b"\x01" * 8 + b"\x02" * 16,
    ]
