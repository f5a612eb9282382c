"""Worlds in which only the order of events of one instant decides, which the page leaves open."""

from __future__ import annotations

from tests.oracle.inputs import OracleWorld
from tests.oracle.outcome import Outcome


def tangled(world: OracleWorld, outcome: Outcome) -> bool:
    """Whether only the order of events says what happens at one instant: how long a writer was held
    up where two vCPUs' stores begin when, moreover, a snapshot is taken; or, where a flush takes no
    time, whether a store is in a copy of the instant at which its own vCPU's sync returned."""
    at_once = ("tmpfs", "hugetlbfs", "ram")
    for device in world.devices:
        timeless = device.backing in at_once or device.kind == "nvdimm" or device.cache == "unsafe"
        if timeless and len(device.vcpus) > 1 and not world.guest.dax_on(device):
            return True
    if not outcome.pauses:
        return False
    snapshots = {batch.instant for batch in outcome.batches}
    begins: dict[int, set[int]] = {}
    for store in outcome.stores:
        begins.setdefault(store.begin, set()).add(store.vcpu)
    return any(len(vcpus) > 1 and begin in snapshots for begin, vcpus in begins.items())
