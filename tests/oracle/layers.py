"""Which version of every byte each layer holds: one dict each, and the journal of all changes.

A version is (begin of the store, vCPU, write), so versions compare in the order of stores. L0 is
what the program stored, wherever it lies; L1 the guest's page cache (empty with DAX); M the
device's memory, whatever that is; L2 the host's page cache of a file (or of a tmpfs); L3 what was
last submitted to the disk and will arrive; L4 its cache; L5 the media. A store enters the journal
at its begin, although its extent is known only when it ends or is divided.

A disk can lose a page again (D4), so L3, L4 and L5 have shadows: what they would hold if it never
did. Only the recovery point asks them.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.oracle.inputs import PAGE_BYTES

Version = tuple[int, int, int]
NOTHING: Version = (-1, -1, -1)
NAMES = ("L0", "L1", "M", "L2", "L3", "L4", "L5")
SHADOWS = {"L3": "shadow of L3", "L4": "shadow of L4", "L5": "shadow of L5"}


class Change(NamedTuple):
    """From `instant` on; the version NOTHING: the layer does not hold the byte any more."""

    instant: int
    layer: str
    address: int
    version: Version


class Layers:
    """`content[layer][page][address]` is the version that the layer holds now."""

    def __init__(self) -> None:
        self.content: dict[str, dict[int, dict[int, Version]]] = {
            name: {} for name in (*NAMES, *SHADOWS.values())
        }
        self.changes: list[Change] = []

    def store(self, layer: str, first: int, length: int, version: Version) -> None:
        """The bytes of one store, at its begin. One told late does not hide a later store."""
        for address in range(first, first + length):
            self.changes.append(Change(version[0], layer, address, version))
            held = self.content[layer].setdefault(address // PAGE_BYTES, {})
            held[address] = max(version, held.get(address, NOTHING))

    def page(self, layer: str, page: int) -> dict[int, Version]:
        """A copy of one page's versions."""
        return dict(self.content[layer].get(page, {}))

    def move(self, instant: int, layer: str, content: dict[int, Version]) -> None:
        """Bytes that came from the layer above. No layer may go back to an earlier version."""
        for address, version in content.items():
            held = self.content[layer].setdefault(address // PAGE_BYTES, {})
            assert version >= held.get(address, NOTHING), "a layer went back in time"
            if held.get(address) != version:
                held[address] = version
                self.changes.append(Change(instant, layer, address, version))

    def arrive(self, instant: int, layer: str, content: dict[int, Version]) -> None:
        """Bytes that came to the disk, or further on it."""
        self.move(instant, layer, content)
        self.move(instant, SHADOWS[layer], content)

    def lose(self, instant: int, layer: str, page: int) -> None:
        """The layer does not hold the page any more; its shadow does."""
        for address in self.content[layer].pop(page, {}):
            self.changes.append(Change(instant, layer, address, NOTHING))

    def view(self, instant: int, layer: str) -> dict[int, int]:
        """The write that each byte of the layer came from, with all that happened up to then."""
        latest: dict[int, Version] = {}
        for change in self.changes:
            if change.instant <= instant and change.layer == layer:
                apply(latest, change)
        return {address: version[2] for address, version in sorted(latest.items())}


def apply(held: dict[int, Version], change: Change) -> None:
    """Makes a layer's next change. What was told late does not hide a later store."""
    if change.version == NOTHING:
        held.pop(change.address, None)
    else:
        held[change.address] = max(change.version, held.get(change.address, NOTHING))
