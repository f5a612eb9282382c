"""Monitor commands on a timeline: devices that are plugged in while the machine runs.

Contract: `read_timeline` goes through the commands by their instants and gives the machine as it is
after the last, each device with the instant of its `device_add`; or one `CommandLineError` with
every mistake. A command is in the words of the human monitor, with or without its prompt, or in
QMP's JSON. Order counts: an object is there before the device that uses it. Rule V7. Sources:
docs/system/devices/virtio-pmem.rst (Hotplug, Limitations), hmp-commands.hx, qapi/qom.json,
qapi/qdev.json, `pc_virtio_md_pci_unplug_request` in hw/i386/pc.c, `user_creatable_del` in
qom/object_interfaces.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from crashsim.engine.units import format_duration
from crashsim.printable import nearest
from crashsim.vmm.assembly import Assembly
from crashsim.vmm.keyval import Settings, from_members, parse_json, read
from crashsim.vmm.machine import Machine
from crashsim.vmm.probe import Look
from crashsim.vmm.spans import Span

NDCTL = "QEMU: the ndctl command is not supported for virtio-pmem (V7)"
_PROMPT = "(qemu)"
_COMMANDS = ("object_add", "device_add", "object_del", "device_del")


def read_timeline(
    commands: Sequence[tuple[int, str]], present: Machine, look: Look | None = None
) -> Machine:
    """The machine after commands, each an instant in nanoseconds and a text."""
    assembly = Assembly(look)
    assembly.resume(present)
    for instant_ns, text in sorted(commands, key=lambda command: command[0]):
        _apply(instant_ns, text, assembly)
    return assembly.finished()


def _apply(instant_ns: int, text: str, assembly: Assembly) -> None:
    text = text.strip()
    whole = Span(f"the command at {format_duration(instant_ns)}", text, 1, len(text))
    if text.startswith("{"):
        name, settings = _qmp(whole, assembly)
        argument = whole
    else:
        at = len(text) - len(text.removeprefix(_PROMPT).lstrip())
        name, _, rest = text[at:].partition(" ")
        column = len(text) - len(rest.lstrip()) + 1
        argument = Span(whole.where, text, column, len(text) - column + 1)
        settings = _hmp(name, argument, assembly)
    if settings is None:
        return
    if name == "object_add":
        assembly.add_object(settings, argument)
    elif name == "device_add":
        assembly.add_device(settings, argument, instant_ns)
    else:
        _remove(name, settings, argument, assembly)


def _remove(name: str, settings: Settings, argument: Span, assembly: Assembly) -> None:
    if "id" not in settings:
        assembly.report(argument, f"{name} needs an id")
        return
    setting = settings["id"]
    if name == "object_del":
        assembly.remove_object(str(setting.value), setting.place)
    else:
        assembly.remove_device(str(setting.value), setting.place)


def _hmp(name: str, argument: Span, assembly: Assembly) -> Settings | None:
    if not _known(name, Span(argument.where, argument.text, 1, len(argument.text)), assembly):
        return None
    first_key = {"object_add": "qom-type", "device_add": "driver"}.get(name, "id")
    if not argument.text[argument.column - 1 :]:
        assembly.report(argument, f"{name} needs an argument")
        return None
    return read(argument, first_key, assembly.mistakes.append, flags=name != "object_add")


def _qmp(whole: Span, assembly: Assembly) -> tuple[str, Settings | None]:
    members, problem, at = parse_json(whole.text)
    if problem:
        assembly.report(Span(whole.where, whole.text, at + 1, 1), problem)
        return "", None
    command = dict(members)
    if not isinstance(command.get("execute"), str):
        assembly.report(whole, "a QMP command needs 'execute', a text")
        return "", None
    name = str(command["execute"]).replace("-", "_")
    if not _known(name, whole, assembly):
        return name, None
    arguments = command.get("arguments", [])
    if not isinstance(arguments, list) or not all(isinstance(pair, tuple) for pair in arguments):
        assembly.report(whole, "'arguments' is no object")
        return name, None
    flat = [pair for member in arguments for pair in _unfolded(member)]
    return name, from_members(flat, whole, assembly.mistakes.append)


def _unfolded(member: tuple[str, object]) -> list[tuple[str, object]]:
    """Before QEMU 6.0 the properties of an object were in an object of their own, `props`."""
    name, value = member
    return value if name == "props" and isinstance(value, list) else [member]


def _known(name: str, whole: Span, assembly: Assembly) -> bool:
    if name == "ndctl":
        assembly.report(whole, NDCTL)
    elif name not in _COMMANDS:
        message = f"{name!r} is not one of {', '.join(_COMMANDS)}" + nearest(name, _COMMANDS)
        assembly.report(whole, message)
    return name in _COMMANDS
