"""A memory backend out of QEMU's settings, and what a monitor refuses of it.

Contract: `read_backend` gives the backend with QEMU's defaults, or reports every setting that is
unknown, missing or of the wrong kind; those in `_PASSED_OVER` decide nothing here and are not
looked at. `refused` lists what QEMU refuses of one that can be read (V5):
`file_backend_memory_alloc` in backends/hostmem-file.c, `qemu_ram_alloc_from_fd` and
`file_ram_alloc` in system/physmem.c, hw/mem/memory-device.c; properties are in qapi/qom.json (`rom`
since 8.2, `offset` since 8.1, shm since 9.1; read whatever the version). A missing file is created
sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crashsim.engine.pages import PAGE_BYTES
from crashsim.printable import nearest
from crashsim.vmm.keyval import Report, Setting, Settings, parse_size, parse_truth, places
from crashsim.vmm.machine import FILE, MEMFD, RAM, SHM, Backend
from crashsim.vmm.probe import Look
from crashsim.vmm.spans import Objection, Span


def _truth(setting: Setting) -> bool:
    if isinstance(setting.value, bool):
        return setting.value
    if setting.typed:
        raise ValueError("true or false in JSON")
    return parse_truth(str(setting.value))


def _size(setting: Setting) -> int:
    if setting.typed and (isinstance(setting.value, bool) or not isinstance(setting.value, int)):
        raise ValueError("a number of bytes in JSON")
    return parse_size(str(setting.value))


def _text(setting: Setting) -> str:
    if not isinstance(setting.value, str):
        raise ValueError("a text")
    return setting.value


def _auto(setting: Setting) -> str:
    if setting.value == "auto":
        return "auto"
    try:
        return "on" if parse_truth(_text(setting)) else "off"
    except ValueError:
        raise ValueError("'on', 'off' or 'auto'") from None


_Readers = dict[str, Callable[[Setting], bool | int | str]]
_ANY: _Readers = {"prealloc": _truth, "share": _truth, "size": _size}
# What decides, of each kind of backend, and how it is read.
DECIDING: dict[str, _Readers] = {
    FILE: _ANY
    | {"mem-path": _text, "align": _size, "offset": _size, "rom": _auto}
    | dict.fromkeys(("discard-data", "pmem", "readonly"), _truth),
    MEMFD: _ANY | {"hugetlb": _truth},
    RAM: _ANY,
    SHM: _ANY,
}
_PASSED_OVER = (
    *("qom-type", "id", "dump", "host-nodes", "merge", "policy", "prealloc-context"),
    *("prealloc-threads", "reserve", "x-use-canonical-path-for-ramblock-id"),
)
_PASSED_OVER_OF_MEMFD = ("hugetlbsize", "seal")


def read_backend(
    kind: str, name: str, settings: Settings, whole: Span, prealloc: bool, report: Report
) -> Backend | None:
    """`prealloc` is the default that `-mem-prealloc` sets."""
    values = _values(kind, settings, whole, report)
    if values is None:
        return None
    readonly = bool(values.get("readonly", False))
    rom = str(values.get("rom", "auto"))
    return Backend(
        name=name,
        kind=kind,
        size_bytes=int(values["size"]),
        mem_path=str(values.get("mem-path", "")),
        share=bool(values.get("share", kind in (MEMFD, SHM))),
        readonly=readonly,
        rom=readonly if rom == "auto" else rom == "on",
        discard_data=bool(values.get("discard-data", False)),
        prealloc=bool(values.get("prealloc", prealloc)),
        pmem=bool(values.get("pmem", False)),
        hugetlb=bool(values.get("hugetlb", False)),
        align_bytes=int(values.get("align", 0)),
        offset_bytes=int(values.get("offset", 0)),
        places=places(settings, whole),
    )


def _values(
    kind: str, settings: Settings, whole: Span, report: Report
) -> dict[str, bool | int | str] | None:
    values: dict[str, bool | int | str] = {}
    wrong: list[Objection] = []
    deciding = DECIDING[kind]
    known = (*deciding, *_PASSED_OVER, *(_PASSED_OVER_OF_MEMFD if kind == MEMFD else ()))
    for setting in settings.values():
        try:
            if setting.name not in known:
                message = f"{kind} has no property {setting.name!r}" + nearest(setting.name, known)
                wrong.append(Objection(setting.place, message))
            elif setting.name in deciding:
                values[setting.name] = deciding[setting.name](setting)
        except ValueError as error:
            wrong.append(Objection(setting.place, f"{setting.name} takes {error}"))
    for needed in ("size", "mem-path") if kind == FILE else ("size",):
        if needed not in settings:
            wrong.append(Objection(whole, f"{kind} needs {needed}="))
    for one in wrong:
        report(one)
    return None if wrong else values


def refused(backend: Backend, look: Look | None) -> list[Objection]:
    """What QEMU refuses; the file's size only if it can be looked at."""
    own = [Objection(backend.place_of(option), text) for option, text in _wrong(backend)]
    return own or [
        Objection(backend.place_of(option), text) for option, text in _seen(backend, look)
    ]


def refused_elsewhere(backend: Backend, look: Look | None) -> list[Objection]:
    """What monitors refuse that create no file."""
    if backend.kind != FILE:
        return []
    path, place = backend.mem_path, backend.place_of("mem-path")
    if not path or "\0" in path:
        return [Objection(place, "this is no path")]
    found = look(path) if look is not None else None
    if found is not None and found.kind == "missing":
        return [Objection(place, f"{path} does not exist, and this monitor creates no file")]
    if found is not None and found.kind == "file" and found.size_bytes == 0:
        return [Objection(place, f"{path} is empty")]
    return []


def _wrong(backend: Backend) -> Iterator[tuple[str, str]]:
    for option, size_bytes in (("size", backend.size_bytes), ("offset", backend.offset_bytes)):
        if size_bytes is not None and size_bytes % PAGE_BYTES:
            yield option, f"{option} is not a multiple of {PAGE_BYTES} bytes"
    if backend.size_bytes == 0:
        yield "size", "size is 0"
    if backend.align_bytes & (backend.align_bytes - 1):
        yield "align", "align must be a power of two (V5)"
    if backend.kind == FILE and (not backend.mem_path or "\0" in backend.mem_path):
        yield "mem-path", "mem-path is no path"
    if backend.kind == SHM and not backend.share:
        yield "share", f"{SHM} needs share=on"
    if backend.rom and not backend.readonly:
        yield "rom", "rom=on needs readonly=on"
    if not backend.rom and backend.readonly and backend.share:
        yield "rom", "rom=off is refused with readonly=on,share=on"


def _seen(backend: Backend, look: Look | None) -> Iterator[tuple[str, str]]:
    found = look(backend.mem_path) if look is not None and backend.mem_path else None
    if found is None:
        return
    if found.kind == "missing" and backend.readonly:
        yield "mem-path", f"{backend.mem_path} does not exist, and readonly=on creates no file"
    end_bytes = backend.offset_bytes + (backend.size_bytes or 0)
    if found.kind == "file" and backend.offset_bytes < found.size_bytes < end_bytes:
        wanted = "size plus offset" if backend.offset_bytes else "size"
        yield (
            "size",
            f"{backend.mem_path} has {found.size_bytes} bytes, fewer than {wanted} ({end_bytes}): "
            "refused (V5)",
        )
