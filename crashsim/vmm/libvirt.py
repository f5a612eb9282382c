"""libvirt's XML: `<memory model='virtio-pmem'>` (or nvdimm) in a whole domain, or alone.

Contract: `read_xml` gives the same devices as the command line that libvirt makes of it, or one
`CommandLineError` with every mistake. A document with a DTD is refused before anything of it is
read, so there are no entities. Sources: libvirt's docs/formatdomain.rst (memory devices),
docs/kbase/memorydevices.rst; src/qemu/qemu_validate.c for what it refuses (access other than
shared, discard, NUMA nodes); `virScaleInteger` in src/util/virutil.c for units (KiB if none is
given).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from crashsim.engine.units import LARGEST
from crashsim.errors import CommandLineError
from crashsim.vmm.assembly import NVDIMM, PMEM, Assembly
from crashsim.vmm.machine import FILE, Backend, Machine
from crashsim.vmm.probe import Look
from crashsim.vmm.qemu import QEMU
from crashsim.vmm.spans import Objection, Span

_POWERS = "KMGTPE"
_UNITS: dict[str, int] = (
    {"b": 1, "byte": 1, "bytes": 1}
    | {f"{letter}b".lower(): 1000 * 1000**power for power, letter in enumerate(_POWERS)}
    | {f"{letter}ib".lower(): 1024 << 10 * power for power, letter in enumerate(_POWERS)}
    | {letter.lower(): 1024 << 10 * power for power, letter in enumerate(_POWERS)}
)
_NUMBER = re.compile(r"\s*([0-9]{1,20})\s*")


@dataclass(slots=True)
class _Element:
    name: str
    attributes: dict[str, str]
    place: Span
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def child(self, name: str) -> _Element | None:
        return next((child for child in self.children if child.name == name), None)


def read_xml(text: str, look: Look | None = None) -> Machine:
    """The machine of a domain's XML, or of one `<memory>` element."""
    assembly = Assembly(look)
    found = _elements(text)
    modes = [one.attributes.get("mode") for one in found if one.name == "access"]
    default_access = "shared" if "shared" in modes else "private"  # of <memoryBacking>
    number = 0
    for element in found:
        model = element.attributes.get("model")
        if element.name != "memory" or model is None:
            continue
        if model == "virtio-pmem":
            for wrong, message in _refused(element):
                assembly.report(wrong.place, message)
            _add(element, f"virtiopmem{number}", PMEM, True, assembly)
            number += 1
        elif model == NVDIMM:
            access = element.attributes.get("access", default_access)
            _add(element, f"nvdimm{number}", NVDIMM, access == "shared", assembly)
            number += 1
    return assembly.finished()


def _add(element: _Element, name: str, kind: str, shared: bool, assembly: Assembly) -> None:
    before = len(assembly.mistakes)
    alias = element.child("alias")
    name = (alias.attributes.get("name", "") if alias else "") or name
    source, target = element.child("source"), element.child("target")
    path = source.child("path") if source else None
    size = target.child("size") if target else None
    if path is None or not path.text.strip():
        assembly.report((path or source or element).place, "<source><path> is missing")
    if size is None:
        assembly.report((target or element).place, "<target><size> is missing")
    size_bytes = _size(size, assembly) if size is not None else 0
    readonly = target.child("readonly") if target else None
    if path is None or size is None or len(assembly.mistakes) > before:
        return
    backend = Backend(
        name=f"mem{name}",
        kind=FILE,
        size_bytes=size_bytes,
        mem_path=path.text.strip(),
        share=shared,
        readonly=readonly is not None,
        rom=readonly is not None,
        readonly_option="<readonly/>",
        places={
            "": element.place,
            "mem-path": path.place,
            "size": size.place,
            "readonly": readonly.place if readonly else element.place,
        },
    )
    assembly.add_pair(backend, QEMU, name, kind)


def _refused(element: _Element) -> Iterator[tuple[_Element, str]]:
    access = element.attributes.get("access")
    if access != "shared":
        given = f"access='{access}'" if access is not None else "access is not given"
        yield (
            element,
            f"{given}: libvirt: shared access mode required for virtio-pmem device; "
            "write access='shared'",
        )
    if element.attributes.get("discard") == "yes":
        yield element, "libvirt: discard is not supported for model 'virtio-pmem'"
    target = element.child("target")
    node = target.child("node") if target else None
    if node is not None:
        yield node, "libvirt: virtio-pmem does not support NUMA nodes"


def _size(size: _Element, assembly: Assembly) -> int:
    unit = size.attributes.get("unit", "KiB")
    number = _NUMBER.fullmatch(size.text)
    if number is None:
        assembly.report(size.place, "<size> takes a whole number")
    elif unit.lower() not in _UNITS:
        assembly.report(size.place, f"unknown unit {unit!r}: bytes, KiB, MiB, GiB, TiB")
    elif (size_bytes := _UNITS[unit.lower()] * int(number[1])) > LARGEST:
        assembly.report(size.place, "<size> takes a smaller size")
    else:
        return size_bytes
    return 0


def _elements(text: str) -> list[_Element]:
    """All elements in the document's order."""
    lines = text.splitlines()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_elements: list[_Element] = []
    found: list[_Element] = []

    def here(width: int = 1) -> Span:
        number, column = parser.CurrentLineNumber, parser.CurrentColumnNumber + 1
        line = lines[number - 1] if number <= len(lines) else ""
        return Span(f"line {number}", line, column, width)

    def start(name: str, attributes: dict[str, str]) -> None:
        place = here()
        end = place.text.find(">", place.column - 1)
        width = (end + 1 if end >= 0 else len(place.text)) - place.column + 1
        place = Span(place.where, place.text, place.column, width)
        element = _Element(name, attributes, place)
        if open_elements:
            open_elements[-1].children.append(element)
        open_elements.append(element)
        found.append(element)

    def characters(data: str) -> None:
        open_elements[-1].text += data

    def refuse_doctype(*_: object) -> None:
        raise CommandLineError([Objection(here(9), "a DTD is not read: libvirt's XML has none")])

    parser.StartDoctypeDeclHandler = refuse_doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: open_elements.pop()
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        line = lines[error.lineno - 1] if error.lineno <= len(lines) else ""
        place = Span(f"line {error.lineno}", line, error.offset + 1, 1)
        message = f"this is not XML: {expat.ErrorString(error.code)}"
        raise CommandLineError([Objection(place, message)]) from None
    except UnicodeEncodeError:
        raise CommandLineError([Objection(None, "this is not XML: it is no valid text")]) from None
    return found
