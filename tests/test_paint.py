"""The kernel behind the loss and the images, against a loop over single bytes."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashsim.engine import coverage as paint
from crashsim.engine.pages import PAGE_BYTES
from crashsim.engine.streams import I64

Piece = tuple[int, int, int]

_pieces = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, PAGE_BYTES - 1),
        st.one_of(st.integers(1, PAGE_BYTES), st.integers(1, 8)),
    ).map(lambda drawn: (drawn[0], drawn[1], min(PAGE_BYTES, drawn[1] + drawn[2]))),
    max_size=60,
)


def columns(pieces: list[Piece]) -> tuple[I64, I64, I64]:
    table = np.array(pieces, dtype=np.int64).reshape(-1, 3)
    return table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy()


def cover_by_byte(pieces: list[Piece]) -> list[int]:
    seen: set[tuple[int, int]] = set()
    cover = []
    for group, start, end in pieces:
        fresh = {(group, byte) for byte in range(start, end)} - seen
        cover.append(len(fresh))
        seen |= fresh
    return cover


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
    group, start, end = columns(pieces)
    assert paint.first_cover_bytes(group, start, end).tolist() == cover_by_byte(pieces)
    found = paint.visible_segments(group, start, end)
    assert list(zip(*(c.tolist() for c in found), strict=True)) == segments_by_byte(pieces)


@given(_pieces)
@settings(deadline=None)
def test_every_byte_goes_to_its_first_and_its_last_writer(pieces: list[Piece]) -> None:
    check(pieces)


@given(_pieces, st.integers(1, 5))
@settings(deadline=None)
def test_small_chunks_and_dense_groups_give_the_same_answer(
    pieces: list[Piece], dense: int
) -> None:
    with mock.patch.multiple(paint, _CHUNK_PIECES=4, _DENSE_PIECES=dense):
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


def test_a_group_larger_than_a_chunk_is_painted_whole() -> None:
    pieces = [(i % 3 // 2, i * 37 % 4000, i * 37 % 4000 + 1 + i % 90) for i in range(3000)]
    check(pieces)


def test_the_sum_of_first_covers_is_the_union_and_of_visible_segments_too() -> None:
    rng = np.random.default_rng(7)
    group = rng.integers(0, 3000, 60_000)
    start = rng.integers(0, 4000, 60_000).astype(np.int32)
    end = start + rng.integers(1, 97, 60_000).astype(np.int32)
    cover = paint.first_cover_bytes(group, start, end)
    seen = paint.visible_segments(group, start, end)
    union = np.bincount(group, weights=cover)
    assert np.array_equal(union, np.bincount(group[seen.piece], weights=seen.end - seen.start))
    assert (seen.start >= start[seen.piece]).all() and (seen.end <= end[seen.piece]).all()
    key = group[seen.piece] * PAGE_BYTES + seen.start
    assert (np.diff(key) > 0).all()


def test_the_arguments_are_left_as_they_were() -> None:
    group, start, end = columns([(0, 0, 9), (0, 4, 12), (0, 1, 2), (1, 3, 4)])
    before = group.copy(), start.copy(), end.copy()
    paint.first_cover_bytes(group, start, end)
    paint.visible_segments(group, start, end)
    assert all(np.array_equal(a, b) for a, b in zip(before, (group, start, end), strict=True))
