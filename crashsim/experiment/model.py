"""The experiment: everything that a run depends on, typed, checked and complete.

Contract: frozen pydantic models. Durations are integer nanoseconds, sizes integer bytes, byte rates
bytes per second; Python code may pass such integers, a file must write units (`quantities`). All
defaults are filled in, the disk profile's too: two equal experiments run alike. Contradictions are
found here (`Block.contradictions`), so that no `Experiment` exists that makes no sense.
`resolved_devices()` gives one device and several devices the same form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, cast

from crashsim.disk.faults import DISK_FAULTS
from crashsim.engine import units
from crashsim.experiment.applications import Recording, Sync, Workload
from crashsim.experiment.backing import LARGEST_FOLIO_BYTES, SMALLEST_FOLIO_BYTES, Device
from crashsim.experiment.block import NAME, Block, Clash, Key
from crashsim.experiment.expect import CaseBlock, Expect
from crashsim.experiment.failures import Power
from crashsim.experiment.linux import Guest, Host
from crashsim.experiment.profiles import Disk, take_over_disk_faults
from crashsim.experiment.quantities import NameIn, PositiveDuration
from crashsim.experiment.sweep import Sweep
from crashsim.experiment.trial import Explore
from crashsim.vmm.monitors import MONITORS

_CACHED_NVDIMM = (
    "a real NVDIMM is not modelled below the guest's page cache: expected guest.access dax, direct "
    "or devdax (cached is the default with file_system: none)"
)
_OF_THE_GUEST = "a recording is what left the guest's page cache"
_SYNC_OF_RECORDING = "sync does not apply to a recording: its flushes are in the log"


class Experiment(Block):
    """A crashsim experiment."""

    name: str = Key(
        "experiment",
        "Lower-case letters, digits and dashes. Default: the file's name.",
        pattern=NAME,
        max_length=64,
    )
    description: str = Key("", "One or two sentences for the report.")
    seed: int = Key(1, "Seed of every random choice.", ge=0, lt=1 << 64)
    duration: PositiveDuration | None = Key(
        None, "Run exactly this long. Default: until the guest is done."
    )
    device: Device | None = Key(None, "The device. Either this or devices.")
    devices: tuple[Device, ...] | None = Key(
        None, "Several devices. Either this or device.", strict=False, min_length=1
    )
    workload: Workload | None = Key(None, "What the guest's program writes.")
    sync: Sync = Key(Sync(), "When the program asks for durability.")
    vmm: Annotated[str, NameIn(MONITORS)] = Key(
        "qemu", "The virtual machine monitor that serves the flushes."
    )
    guest: Guest = Key(Guest(), "What the guest's kernel does with stores.")
    host: Host = Key(Host(), "The host's page cache.")
    disk: Disk = Key(Disk(), "The host's disk.")
    power: Power = Key(Power(), "What fails, and when.")
    explore: Explore | None = Key(None, "Try every state that a cut may leave. Default: do not.")
    sweep: Sweep | None = Key(None, "Values to try; one case for each combination.")
    expect: Expect = Key(Expect(), "Conditions that every case must meet.")
    cases: dict[str, CaseBlock] = Key(
        {}, "Per case name (`*` and `?` match): conditions of their own."
    )

    def resolved_devices(self) -> tuple[tuple[Device, Workload, Sync], ...]:
        """Each device with what is written to it and its sync policy."""
        devices = (self.device,) if self.device is not None else self.devices or ()
        return tuple(
            (
                device,
                # An experiment without one is refused by `structure`.
                cast(Workload, device.workload or self.workload),
                device.sync or self.sync,
            )
            for device in devices
        )

    def first_bytes(self) -> tuple[int, ...]:
        """Where each device lies in the global address space: one behind another, each at a
        multiple of its largest folio."""
        found: list[int] = []
        end = 0
        for device, _, _ in self.resolved_devices():
            folio = max(size for size, _ in self.folio_parts(device))
            found.append(-(-end // folio) * folio)
            end = found[-1] + device.size
        return tuple(found)

    def folio_parts(self, device: Device) -> list[tuple[int, int]]:
        """(largest folio, end within the device) of each part of the device's file, bytes (Rule
        H2)."""
        folio = device.backing.folio
        if isinstance(folio, tuple):
            return [(part.size, part.until or device.size) for part in folio]
        if folio == "auto":
            mapped = device.type in ("virtio-pmem", "nvdimm") and device.backing.kind == "file"
            advised = mapped and MONITORS[self.vmm].advises_huge_pages and self.host.thp != "none"
            large = advised and self.host.large_folios
            folio = LARGEST_FOLIO_BYTES if large else SMALLEST_FOLIO_BYTES
        return [(folio, device.size)]

    def inapplicable(self) -> frozenset[str]:
        workloads = [workload for _, workload, _ in self.resolved_devices()]
        only_recordings = all(isinstance(workload, Recording) for workload in workloads)
        return frozenset({"sync"}) if only_recordings else frozenset()

    def contradictions(self) -> Iterator[Clash]:
        missing = list(structure(dict(self)))
        yield from missing
        if not missing:
            yield from self._device_contradictions()
            yield from self._guest_contradictions()
            yield from self._explored_contradictions()
        for key in ("findings", "known"):
            if getattr(self.expect, key) not in (None, ()) and self.explore is None:
                yield Clash(("expect", key), "nothing is explored: there is no explore")
        if self.explore is not None and self.explore.host == "this-host":
            for name in self.disk.faults.configured():
                if not DISK_FAULTS[name].of_this_host:
                    message = f"states of this-host do not know disks that are {name}: use any-host"
                    yield Clash(("disk", "faults", name), message)
        for index, at in enumerate(self.power.at):
            if self.duration is not None and at > self.duration:
                yield Clash(
                    ("power", "at", index),
                    f"a cut at {units.exact_duration(at)} is after the end "
                    f"(duration: {units.exact_duration(self.duration)})",
                )

    def _explored_contradictions(self) -> Iterator[Clash]:
        names = [device.name for device, _, _ in self.resolved_devices()]
        if self.explore is None or self.explore.device in names:
            return
        if self.explore.device is not None:
            message = f"expected one of {', '.join(names)}, got {units.shown(self.explore.device)}"
            yield Clash(("explore", "device"), message)
        elif len(names) > 1:
            yield Clash(("explore",), f"expected device: one of {', '.join(names)}")

    def _device_contradictions(self) -> Iterator[Clash]:
        seen: set[str] = set()
        guest, monitor = self.guest, MONITORS[self.vmm]
        for index, (device, workload, _) in enumerate(self.resolved_devices()):
            path = ("device",) if self.device is not None else ("devices", index)
            recorded = isinstance(workload, Recording)
            if device.name in seen:
                blamed = (*path, "name") if "name" in device.model_fields_set else path
                yield Clash(blamed, f"another device is called {device.name} already")
            seen.add(device.name)
            if recorded and device.sync is not None:
                yield Clash((*path, "sync"), _SYNC_OF_RECORDING)
            if device.rate_limiter is not None and not monitor.limits_flushes:
                able = next(name for name, monitor in MONITORS.items() if monitor.limits_flushes)
                message = f"only {able} limits flushes, {self.vmm} does not"
                yield Clash((*path, "rate_limiter"), message)
            if device.type == "virtio-blk" and guest.access == "direct":
                message = "a virtio-blk is reached through the guest's page cache here: not direct"
                yield Clash((*path, "type"), message)
            if device.type == "real-nvdimm" and guest.access == "cached" and not recorded:
                yield Clash((*path, "type"), _CACHED_NVDIMM)
            if device.type == "virtio-blk" and recorded:
                yield Clash((*path, "type"), _OF_THE_GUEST)
            if guest.on_sync_error in ("retry", "rewrite") and device.backing.kind == "ram":
                message = f"{guest.on_sync_error} never ends where every flush fails"
                yield Clash((*path, "backing", "kind"), message)
            if not isinstance(workload, Recording) and workload.least_bytes() > device.size:
                yield Clash(
                    (*path, "size"),
                    f"the workload needs at least {units.exact_bytes(workload.least_bytes())}, "
                    f"{device.name} has {units.exact_bytes(device.size)}",
                )

    def _guest_contradictions(self) -> Iterator[Clash]:
        guest, resolved = self.guest, self.resolved_devices()
        if self.model_fields_set & self.inapplicable():
            yield Clash(("sync",), _SYNC_OF_RECORDING)
        recorded = any(isinstance(workload, Recording) for _, workload, _ in resolved)
        if recorded and guest.access == "cached" and guest.file_system != "none":
            yield Clash(("guest", "access"), f"{_OF_THE_GUEST}: cached does not apply")
        dead = self.disk.faults.final and self.duration is None
        if dead and guest.on_sync_error in ("retry", "rewrite"):
            message = f"{guest.on_sync_error} never ends on a dead disk: give a duration"
            yield Clash(("guest", "on_sync_error"), message)
        acknowledging = all(
            not isinstance(workload, Recording)
            and sync.what.writes
            and workload.acknowledge == "after-sync"
            for _, workload, sync in resolved
        )
        if guest.on_sync_error == "rewrite" and not acknowledging:
            message = "only a program whose syncs acknowledge its records can write them again"
            yield Clash(("guest", "on_sync_error"), message)


def structure(top: Mapping[str, Any]) -> Iterator[Clash]:
    """What is missing or too much among the top-level keys, judged by their presence alone.

    `top` has the values, validated or not: a file with other mistakes is told these too.
    """
    device, devices = top.get("device"), top.get("devices")
    if device is not None and devices is not None:
        yield Clash(("devices",), "there is a device already: use either device or devices")
    if device is None and devices is None:
        yield Clash((), "missing key 'device' (or 'devices'): what is written to")
    if device is not None:
        for key in ("workload", "sync"):
            if _key(device, key) is not None:
                yield Clash(("device", key), f"{key} of the only device belongs top-level")
    listed = devices if isinstance(devices, list | tuple) else []
    without = [i for i, entry in enumerate(listed) if _key(entry, "workload") is None]
    if top.get("workload") is None and (without or device is not None):
        where: tuple[str | int, ...] = ("devices", without[0]) if without else ()
        yield Clash(where, "missing key 'workload': what the guest writes")
    if top.get("workload") is not None and listed and not without:
        yield Clash(("workload",), "every device has a workload of its own: unused")


def _key(block: Any, key: str) -> Any:
    return block.get(key) if isinstance(block, Mapping) else getattr(block, key, None)


def disk_faults_changed() -> None:
    """Behind a change of `DISK_FAULTS`: an experiment has the keys that are in it now."""
    take_over_disk_faults()
    for block in (Disk, Experiment):
        block.model_rebuild(force=True)
