"""Which states of an epoch are checked, and in which order.

Contract: `plan` gives exactly as many distinct states as it is allowed (or as there are), always
the same ones in the same order, and a larger allowance is spent on these kinds, in this order:

| kind | states |
|---|---|
| none, all | everything undecided is lost; everything is kept |
| pair | every two atoms in all four combinations of guaranteed and newest (with none and all) |
| prefix | after each write in the order of time: what had begun by then is kept |
| only | one write is kept, the rest is lost (with what its atoms held before it) |
| all-but | one write is lost, the rest is kept (but for later stores to its atoms) |
| everything | whatever is left, if it fits |
| random | else: each of the remaining images is as likely as any other |

Where prefix, only and all-but do not all fit, each has an equal share, spread evenly over the
writes. A state that an earlier kind gave is not given again; versions of an atom are distinct, so
distinct states of an epoch are distinct images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress, count, islice, product
from typing import Literal, NamedTuple

import numpy as np

from crashsim.engine.streams import I64, Stream
from crashsim.states import Atom, Choices, Epoch, Versions

StepKind = Literal["none", "all", "pair", "prefix", "only", "all-but", "everything", "random"]
VersionList = list[int]  # of every atom; `Choices` leave out those at 0

_DRAWS = 1 << 14  # at once
_KEY_BYTES = 16


class Step(NamedTuple):
    """A state to be checked, and why; `held`: the version of every atom, uint32."""

    kind: StepKind
    held: bytes

    @property
    def versions(self) -> Versions:
        """Of every atom."""
        return np.frombuffer(self.held, dtype=np.uint32)

    @property
    def choices(self) -> Choices:
        """Of atoms not at 0."""
        return as_choices(self.versions.tolist())


class Touch(NamedTuple):
    """A write's part in an atom: the versions without and with it, and the number of the choice
    with it."""

    atom: int
    before: int
    after: int
    choice: int


def plan(epoch: Epoch, store_write: I64, allowance: int, seed: int) -> Iterator[Step]:
    """`min(allowance, epoch.images)` states. `store_write`: write of each row of the History."""
    seen: set[bytes] = set()
    wanted = min(allowance, epoch.images)
    for kind, versions in _candidates(epoch, store_write, wanted, seed):
        if len(seen) == wanted:
            return
        held = versions.tobytes()
        short = len(held) <= _KEY_BYTES
        key = held if short else hashlib.blake2b(held, digest_size=_KEY_BYTES).digest()
        if key not in seen:
            seen.add(key)
            yield Step(kind, held)


def as_choices(versions: Iterable[int]) -> Choices:
    """Those not at 0."""
    held = tuple(versions)
    return tuple(zip(compress(count(), held), filter(None, held), strict=True))


def as_versions(choices: Choices, atoms: int) -> VersionList:
    """The inverse of `as_choices`."""
    versions = [0] * atoms
    for atom, version in choices:
        versions[atom] = version
    return versions


def newest(atoms: Sequence[Atom]) -> VersionList:
    """Everything that was stored is kept."""
    return [atom.newest for atom in atoms]


def structured_size(atoms: int, writes: int) -> int:
    """How many states the kinds before everything and random come to, at most."""
    return 2 + len(codes(atoms)) + 3 * writes


def codes(atoms: int) -> list[list[bool]]:
    """Rows of a covering array: every two columns differ in some row, and in its complement the
    other way round. With a row of zeros and one of ones every two columns have all four
    combinations."""
    rows: list[list[bool]] = []
    for bit in range((atoms - 1).bit_length() if atoms > 1 else 0):
        row = [bool(atom >> bit & 1) for atom in range(atoms)]
        rows += [row, [not value for value in row]]
    return rows


def touches(atoms: Sequence[Atom], store_write: I64) -> dict[int, list[Touch]]:
    """What each write did to which atoms; writes in the order of time."""
    changes: list[tuple[int, int, Touch]] = []
    for number, atom in enumerate(atoms):
        before = 0
        for choice, (row, after) in enumerate(zip(atom.stores, atom.after, strict=True), start=1):
            changes.append((row, number, Touch(number, before, after, choice)))
            before = after
    changes.sort()
    found: dict[int, list[Touch]] = {}
    for row, number, touch in changes:
        mine = found.setdefault(int(store_write[row]), [])
        if mine and mine[-1].atom == number:  # a divided write goes on
            touch = touch._replace(before=mine.pop().before)
        mine.append(touch)
    return found


def _candidates(
    epoch: Epoch, store_write: I64, wanted: int, seed: int
) -> Iterator[tuple[StepKind, Versions]]:
    atoms = epoch.atoms
    none, full = _held([0] * len(atoms)), _held(newest(atoms))
    yield "none", none
    yield "all", full
    rows = codes(len(atoms))
    high = _held([atom.newest or len(atom.versions) - 1 for atom in atoms])
    for row in rows:
        yield "pair", np.where(row, high, none)
    writes = touches(atoms, store_write)
    each = len(writes)
    if wanted < structured_size(len(atoms), each):
        each = max(0, wanted - 2 - len(rows)) // 3
    yield from _of_writes(list(writes.values()), full, each)
    if epoch.images <= wanted:
        for versions in product(*(range(len(atom.versions)) for atom in atoms)):
            yield "everything", _held(versions)
    else:
        yield from (("random", versions) for versions in _random(epoch, seed))


def _held(versions: Sequence[int]) -> Versions:
    return np.array(versions, dtype=np.uint32)


def _of_writes(
    writes: list[list[Touch]], full: Versions, each: int
) -> Iterator[tuple[StepKind, Versions]]:
    """Prefix, only and all-but, `each` of them, spread over the writes."""
    chosen = [number * len(writes) // each for number in range(each)]
    versions = np.zeros_like(full)
    done = 0
    for number in chosen:
        for touch in chain.from_iterable(islice(writes, done, number + 1)):
            versions[touch.atom] = touch.after
        done = number + 1
        yield "prefix", versions
    for number in chosen:
        only = np.zeros_like(full)
        for touch in writes[number]:
            only[touch.atom] = touch.after
        yield "only", only
    for number in chosen:
        without = full.copy()
        for touch in writes[number]:
            without[touch.atom] = touch.before
        yield "all-but", without


def _random(epoch: Epoch, seed: int) -> Iterator[Versions]:
    """Each atom's version drawn for itself, so that all images are alike; without end."""
    stream = Stream(seed, f"explore/{epoch.number}")
    counts = np.array([len(atom.versions) for atom in epoch.atoms], dtype=np.uint64)
    states = max(1, _DRAWS // counts.size)
    block = np.arange(states * counts.size, dtype=np.int64)
    while True:
        draws = stream.draws(block).reshape(states, counts.size) >> np.uint64(32)
        yield from ((draws * counts) >> np.uint64(32)).astype(np.uint32)
        block += block.size
