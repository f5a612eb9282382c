"""From settings to devices: pairs of `-object` and `-device`, and every mistake in them.

Contract: an `Assembly` is given objects and devices; it keeps those that are right, reports those
that are not, each with its place, and never raises. A device is paired with its backend at once, so
the caller decides the order: a command line gives all objects first, a timeline one after the
other. Rule V7. What is refused is what QEMU refuses: `virtio_pmem_realize` in
hw/virtio/virtio-pmem.c, and the limits in docs/system/devices/virtio-pmem.rst.
"""

from __future__ import annotations

from collections.abc import Sequence

from crashsim.errors import CommandLineError
from crashsim.printable import nearest
from crashsim.vmm.backend import DECIDING, read_backend, refused, refused_elsewhere
from crashsim.vmm.keyval import Setting, Settings, parse_id
from crashsim.vmm.machine import Backend, Machine, Monitor, PmemDevice
from crashsim.vmm.probe import Look
from crashsim.vmm.spans import Objection, Objections, Span

REAL_NVDIMM = "QEMU: real nvdimm device backend is not supported for virtio-pmem (V7)"
NAMESPACES = "QEMU: ACPI NVDIMM features like regions and namespaces are not supported (V7)"
_NAMESPACE_PROPERTIES = ("label-size", "unarmed", "uuid")
REAL = ("/dev/dax", "/dev/pmem")
PMEM, NVDIMM, PMEM_PCI = "virtio-pmem", "nvdimm", "virtio-pmem-pci"
ENCLAVE = "memory-backend-epc"  # memory that no pmem device can have
_PLACED = ("driver", "id", "bus", "addr", "memdev")
# What each driver makes, and its properties that decide or say where it is plugged in
# (hw/virtio/virtio-pmem.c, hw/mem/nvdimm.c, hw/mem/pc-dimm.c).
_DEVICES: dict[str, tuple[str, tuple[str, ...]]] = {
    PMEM_PCI: (PMEM, (*_PLACED, "memaddr", "multifunction")),
    NVDIMM: (NVDIMM, (*_PLACED, "slot", "node", *_NAMESPACE_PROPERTIES)),
}

Ids = dict[str, Span | None]


class Assembly:
    def __init__(self, look: Look | None = None) -> None:
        self.mistakes = Objections()
        self.notes: list[str] = []
        self.devices: list[PmemDevice] = []
        self.unread = False  # whether devices may be in what was passed over
        self.prealloc = False  # the default of all backends
        self._look = look
        self._backends: dict[str, Backend | None] = {}  # None: one that was refused
        self._users: dict[str, str] = {}
        self._device_ids: Ids = {}
        self._object_ids: Ids = {}

    def report(self, place: Span | None, message: str) -> None:
        self.mistakes.append(Objection(place, message))

    # Objects

    def add_object(self, settings: Settings, whole: Span) -> None:
        """`-object`: memory backends are kept, of all others only the id."""
        kind = self._text(settings, "qom-type", whole)
        name = self._new_id(settings, whole, self._object_ids, needed=True)
        if kind is None or not kind.startswith("memory-backend") or kind == ENCLAVE:
            return
        backend = None
        if kind in DECIDING:
            report = self.mistakes.append
            backend = read_backend(kind, name or "", settings, whole, self.prealloc, report)
        else:
            message = f"unknown memory backend {kind!r}" + nearest(kind, DECIDING)
            self.report(settings["qom-type"].place, message)
        if backend is not None:
            self.mistakes += refused(backend, self._look)
        if name is not None:
            self._backends[name] = backend

    def add_pair(
        self, backend: Backend, monitor: Monitor, name: str = "", kind: str = PMEM
    ) -> None:
        """A device and its memory in one, as libvirt and other monitors than QEMU have them; it is
        called like its backend unless it has a name of its own."""
        name, whole = name or backend.name, backend.place_of("")
        for taken in self.devices:
            if taken.name == name:
                self.report(backend.place_of("id"), f"the id {name!r} is given twice")
        refuses = refused if monitor.creates_file else refused_elsewhere
        self.mistakes += refuses(backend, self._look)
        self.devices.append(PmemDevice(name, backend, monitor=monitor.name, kind=kind, place=whole))

    def check_keys(self, settings: Settings, known: Sequence[str], whose: str) -> None:
        """Report keys that an option of another monitor than QEMU does not have."""
        for setting in settings.values():
            if setting.name not in known:
                message = f"{whose} has no key {setting.name!r}" + nearest(setting.name, known)
                self.report(setting.place, message)

    # Devices

    def add_device(self, settings: Settings, whole: Span, plug_ns: int = 0) -> None:
        """`-device`: virtio-pmem and nvdimm are kept, of all others the id and the backend."""
        driver = self._text(settings, "driver", whole)
        name = self._new_id(settings, whole, self._device_ids, needed=False)
        if driver is None:
            return
        if driver not in _DEVICES:
            if driver.startswith("virtio-pmem"):
                message = f"{driver!r} is no device that can be plugged in; write {PMEM_PCI}"
                self.report(settings["driver"].place, message)
            if "memdev" in settings:
                self.use(settings["memdev"], driver)
            return
        kind, properties = _DEVICES[driver]
        self._check_properties(settings, driver, properties, whole)
        backend = self._backend_of(settings, whole, driver)
        if backend is None:
            return
        if kind == PMEM and backend.mem_path.startswith(REAL):
            self.report(backend.place_of("mem-path"), f"{backend.mem_path}: {REAL_NVDIMM}")
            return
        named = name or backend.name
        self.devices.append(PmemDevice(named, backend, plug_ns, kind=kind, place=whole))

    def _check_properties(
        self, settings: Settings, driver: str, properties: Sequence[str], whole: Span
    ) -> None:
        """Report what is refused, what is a backend's, and what may be a misspelt one; of the rest,
        which decides nothing here, a note."""
        passed_over = []
        for setting in settings.values():
            name = setting.name
            near = nearest(name, properties)
            if name in properties or name.startswith("x-"):
                continue
            if driver == PMEM_PCI and name in _NAMESPACE_PROPERTIES:
                self.report(setting.place, f"{name}: {NAMESPACES}")
            elif near or any(name in of_backend for of_backend in DECIDING.values()):
                self.report(setting.place, f"{driver} has no property {name!r}{near}")
            else:
                passed_over.append(name)
        if passed_over:
            self.notes.append(f"passed over, of {whole.where}: {', '.join(passed_over)}")

    def _backend_of(self, settings: Settings, whole: Span, driver: str) -> Backend | None:
        """The backend that a device is given, from now on in use."""
        if "memdev" not in settings:
            self.report(whole, f"{driver} needs memdev=, the id of a memory backend")
            return None
        memdev = settings["memdev"]
        name = str(memdev.value)
        if name not in self._object_ids:
            self.report(
                memdev.place, f"there is no backend {name!r}{nearest(name, self._backends)}"
            )
        elif name not in self._backends:
            self.report(memdev.place, f"object {name!r} is no memory backend")
        elif self.use(memdev, driver):
            return self._backends[name]
        return None

    def use(self, memdev: Setting, user: str) -> bool:
        """Whether a backend is free; from now on it is not."""
        name = str(memdev.value)
        if name in self._users:
            message = f"backend {name!r} is in use already, by {self._users[name]}"
            self.report(memdev.place, message)
            return False
        if name in self._object_ids:
            self._users[name] = user
        return True

    # Ids

    def _text(self, settings: Settings, name: str, whole: Span) -> str | None:
        setting = settings.get(name)
        if setting is None:
            self.report(whole, f"{name}= is missing")
        elif not isinstance(setting.value, str):
            self.report(setting.place, f"{name} takes a text")
        else:
            return setting.value
        return None

    def _new_id(self, settings: Settings, whole: Span, ids: Ids, needed: bool) -> str | None:
        if "id" not in settings and not needed:
            return None
        name = self._text(settings, "id", whole)
        if name is None:
            return None
        place = settings["id"].place
        try:
            parse_id(name)
        except ValueError as error:
            self.report(place, f"id takes {error}")
            return None
        if name in ids:
            first = ids[name]
            where = f"; the first is at {first}" if first is not None else ""
            self.report(place, f"the id {name!r} is given twice{where}")
            return None
        ids[name] = place
        return name

    # A machine that runs

    def resume(self, machine: Machine) -> None:
        """Go on from a machine whose devices are there already."""
        self.devices += machine.devices
        for backend in [*(device.backend for device in machine.devices), *machine.spare]:
            self._backends[backend.name] = backend
            self._object_ids[backend.name] = None
        self._object_ids |= dict.fromkeys(machine.other_objects)
        self._device_ids |= dict.fromkeys(machine.other_devices)
        self._device_ids |= dict.fromkeys(device.name for device in machine.devices)
        self._users |= {device.backend.name: PMEM_PCI for device in machine.devices}

    def remove_object(self, name: str, place: Span) -> None:
        if name not in self._object_ids:
            self.report(place, f"object {name!r} not found" + nearest(name, self._object_ids))
        elif name in self._users:
            self.report(place, f"QEMU: object {name!r} is in use, can not be deleted")
        else:
            del self._object_ids[name]
            self._backends.pop(name, None)

    def remove_device(self, name: str, place: Span) -> None:
        kinds = [device.kind for device in self.devices if device.name == name]
        if PMEM in kinds:
            self.report(place, "QEMU: virtio based memory devices cannot be unplugged (V7)")
        elif kinds:
            self.report(place, "QEMU: nvdimm device hot unplug is not supported yet")
        elif name not in self._device_ids:
            self.report(place, f"device {name!r} not found" + nearest(name, self._device_ids))
        else:
            del self._device_ids[name]

    def finished(self) -> Machine:
        """What was put together; CommandLineError with every mistake if there is one."""
        if self.mistakes:
            raise CommandLineError(self.mistakes)
        spare = tuple(
            backend
            for name, backend in self._backends.items()
            if backend is not None and name not in self._users
        )
        pmem = {device.name for device in self.devices}
        known = {device.backend.name for device in self.devices} | {b.name for b in spare}
        return Machine(
            devices=tuple(self.devices),
            spare=spare,
            other_devices=tuple(name for name in self._device_ids if name not in pmem),
            other_objects=tuple(name for name in self._object_ids if name not in known),
            notes=(*self.notes, *(f"no device uses the backend {b.name!r}" for b in spare)),
            unread=self.unread,
        )
