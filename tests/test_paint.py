"""Who wrote each byte of a page last, against a loop over single bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashsim.engine.pages import PAGE_BYTES, Pieces
from crashsim.replay.cells import visible_segments

Piece = tuple[int, int, int]

_pieces = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, PAGE_BYTES - 1),
        st.one_of(st.integers(1, PAGE_BYTES), st.integers(1, 8)),
    ).map(lambda drawn: (drawn[0], drawn[1], min(PAGE_BYTES, drawn[1] + drawn[2]))),
    max_size=60,
)


def columns(pieces: list[Piece]) -> Pieces:
    table = np.array(pieces, dtype=np.int64).reshape(-1, 3)
    return Pieces(np.arange(len(pieces)), *(column.copy() for column in table.T))


def segments_by_byte(pieces: list[Piece]) -> list[tuple[int, int, int]]:
    owner: dict[tuple[int, int], int] = {}
    for index, (group, start, end) in enumerate(pieces):
        for byte in range(start, end):
            owner[group, byte] = index
    segments: list[tuple[int, int, int]] = []
    for (_group, byte), index in sorted(owner.items()):
        if segments and segments[-1][0] == index and segments[-1][2] == byte:
            segments[-1] = (index, segments[-1][1], byte + 1)
        else:
            segments.append((index, byte, byte + 1))
    return segments


def check(pieces: list[Piece]) -> None:
    found = visible_segments(columns(pieces))
    assert list(zip(*(c.tolist() for c in found), strict=True)) == segments_by_byte(pieces)


@given(_pieces)
@settings(deadline=None)
def test_every_byte_goes_to_its_last_writer(pieces: list[Piece]) -> None:
    check(pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0, 0, PAGE_BYTES)],
        [(0, 0, 8), (0, 8, 16)],
        [(0, 8, 16), (0, 0, 8), (0, 4, 12)],
        [(0, 0, PAGE_BYTES), (1, 0, PAGE_BYTES), (0, 5, 6), (1, 5, 6), (0, 5, 6)],
        [(0, 0, PAGE_BYTES), (0, 5, 6), (0, 0, PAGE_BYTES)],
        [(2, 0, 1), (0, 4095, 4096), (1, 0, 1), (0, 4094, 4096), (1, 0, 1)],
    ],
)
def test_edges_of_pages_and_pieces_are_exact(pieces: list[Piece]) -> None:
    check(pieces)


def test_a_page_of_very_many_pieces_is_painted_whole() -> None:
    pieces = [(i % 3 // 2, i * 37 % 4000, i * 37 % 4000 + 1 + i % 90) for i in range(3000)]
    check(pieces)


def test_the_arguments_are_left_as_they_were() -> None:
    pieces = columns([(0, 0, 9), (0, 4, 12), (0, 1, 2), (1, 3, 4)])
    before = [column.copy() for column in pieces]
    visible_segments(pieces)
    assert all(np.array_equal(a, b) for a, b in zip(before, pieces, strict=True))
