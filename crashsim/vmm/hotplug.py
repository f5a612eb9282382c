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
# Each command, and which of its settings may go without a key.
_COMMANDS = {
    "object_add": "qom-type",
    "device_add": "driver",
    "object_del": "id",
    "device_del": "id",
}


def read_timeline(
    commands: Sequence[tuple[int, str]], present: Machine, look: Look | None = None
) -> Machine:
    """The machine after commands, each an instant in nanoseconds and a text."""
    assembly = Assembly(look)
    assembly.resume(present)
    for instant_ns, text in sorted(commands, key=lambda command: command[0]):
        text = text.strip()
        whole = Span(f"the command at {format_duration(instant_ns)}", text, 1, len(text))
        name, settings, argument = (_qmp if text.startswith("{") else _hmp)(whole, assembly)
        if settings is None:
            continue
        if name == "object_add":
            assembly.add_object(settings, argument)
        elif name == "device_add":
            assembly.add_device(settings, argument, instant_ns)
        elif "id" not in settings:
            assembly.report(argument, f"{name} needs an id")
        else:
            one = settings["id"]
            remove = assembly.remove_object if name == "object_del" else assembly.remove_device
            remove(str(one.value), one.place)
    return assembly.finished()


def _hmp(whole: Span, assembly: Assembly) -> tuple[str, Settings | None, Span]:
    text = whole.text
    name, _, rest = text.removeprefix(_PROMPT).lstrip().partition(" ")
    column = len(text) - len(rest.lstrip()) + 1
    argument = Span(whole.where, text, column, len(text) - column + 1)
    settings = None
    if not _known(name, whole, assembly):
        pass
    elif not rest.strip():
        assembly.report(argument, f"{name} needs an argument")
    else:
        report = assembly.mistakes.append
        settings = read(argument, _COMMANDS[name], report, flags=name != "object_add")
    return name, settings, argument


def _qmp(whole: Span, assembly: Assembly) -> tuple[str, Settings | None, Span]:
    members, problem, at = parse_json(whole.text)
    command = dict(members)
    name = str(command.get("execute", "")).replace("-", "_")
    arguments = command.get("arguments", [])
    settings = None
    if problem:
        assembly.report(Span(whole.where, whole.text, at + 1, 1), problem)
    elif not isinstance(command.get("execute"), str):
        assembly.report(whole, "a QMP command needs 'execute', a text")
    elif not _known(name, whole, assembly):
        pass
    elif not isinstance(arguments, list) or not all(isinstance(pair, tuple) for pair in arguments):
        assembly.report(whole, "'arguments' is no object")
    else:
        flat = [pair for member in arguments for pair in _unfolded(member)]
        settings = from_members(flat, whole, assembly.mistakes.append)
    return name, settings, whole


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
