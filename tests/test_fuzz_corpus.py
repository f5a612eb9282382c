"""What fuzzing has found: each is answered by a clear error, or simply works."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crashsim.checkers.command import Command
from crashsim.checkers.python import Function
from crashsim.checkers.verdict import NO_ACKS
from crashsim.errors import ExperimentError
from crashsim.experiment.loader import plan
from crashsim.inputs import make_inputs
from crashsim.monitor.command import read_text
from crashsim.monitor.firecracker import read_json
from crashsim.monitor.libvirt import read_xml
from crashsim.monitor.machine import Machine
from crashsim.monitor.place import MOST_MISTAKES, CommandLineError
from crashsim.stack import simulate

DEVICE = "device: {size: 1MiB}\n"
LOG = "workload: {kind: append-log, record_size: 512B, records: 6, rate: 10/s}\n"
PLUGGED = "monitor: [{at: 1s, do: device_del a}]\n"


def told(text: str) -> list[str]:
    """What is said of an experiment that is refused."""
    with pytest.raises(ExperimentError) as caught:
        plan(text, "x.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "workload",
    [
        "kind: write-ahead-log, table_size: 64KiB",
        "kind: append-log, record_size: 512B",
        "kind: key-value, slots: 9, slot_size: 4KiB, value_size: 1KiB",
        "kind: double-buffer, body_size: 4KiB",
    ],
)
def test_a_vcpu_may_have_no_record_to_write(workload: str) -> None:
    case = plan(f"{DEVICE}workload: {{{workload}, records: 2, vcpus: 4}}\n", "x.yaml").cases[0]
    inputs = make_inputs(case.experiment)
    history = simulate(case.experiment, inputs.programs)
    assert [program.record_low.size for program in inputs.programs] == [1, 1, 0, 0]
    assert history.ack_t_ns.size == 2


@pytest.mark.parametrize("devices", ["x", "5", "{a: b}", "null"])
def test_devices_beside_a_monitor_are_a_list(devices: str) -> None:
    (said,) = told(f"devices: {devices}\n{PLUGGED}{LOG}")
    assert said.startswith("x.yaml:1:10: expected a list of devices, got ")


@pytest.mark.parametrize("opening", ["{a,", "[a,", "[{a: [b, ", "- ", "? ", "["])
@pytest.mark.parametrize("before", ["", f"{DEVICE}{LOG}description:\n  "])
def test_what_is_nested_without_end_is_read_no_deeper_than_an_experiment(
    before: str, opening: str
) -> None:
    (said,) = told(before + opening * (240_000 // len(opening)))
    assert said.endswith("nested more than 40 deep")
    assert int(said.split(":")[2]) < 50 * len(opening), "the column at which it was given up"


def test_what_is_explored_is_a_device_of_the_experiment() -> None:
    explored = 'explore: {device: nosuch, check: {command: "true"}}\n'
    assert told(DEVICE + LOG + explored) == ["x.yaml:3:11: expected one of pmem0, got 'nosuch'"]


def test_which_of_several_devices_is_explored_is_said() -> None:
    devices = "devices: [{name: a, size: 1MiB}, {name: b, size: 1MiB}]\n"
    explored = 'explore: {check: {command: "true"}}\n'
    assert told(devices + LOG + explored) == ["x.yaml:3:1: expected device: one of a, b"]


WRONG_XML = "<memory model='virtio-pmem'><source></source></memory>"
WRONG_PMEM = '{"id": 1}'


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_xml, f"<devices>{WRONG_XML * 1000}</devices>"),
        (read_xml, f"<devices>\u202e{WRONG_XML * 1000}</devices>"),
        (read_json, f'{{"pmem": [{", ".join([WRONG_PMEM] * 1000)}]}}'),
        (read_text, f"qemu-system-x86_64 {'-device virtio-pmem-pci,memdev=a ' * 1000}"),
        (read_text, f"cloud-hypervisor --pmem {'file=a,b=1 ' * 1000}"),
        (read_text, f"crosvm run {'--pmem path=a,b=1 ' * 1000}"),
    ],
)
def test_of_a_thousand_mistakes_the_first_are_told(
    read: Callable[[str], Machine], text: str
) -> None:
    with pytest.raises(CommandLineError) as caught:
        read(text)
    mistakes = caught.value.mistakes
    assert len(mistakes) == MOST_MISTAKES + 1
    assert "there may be more" in str(mistakes[-1])
    assert len(str(caught.value)) < 1000 * len(mistakes)


def test_a_device_has_no_thousands_of_keys() -> None:
    keys = ", ".join(f'"path_on_hos{number}": 1' for number in range(1000))
    with pytest.raises(CommandLineError, match="1000 keys: expected at most 100"):
        read_json(f'{{"pmem": [{{{keys}}}]}}')


def test_no_program_is_started_with_a_word_of_a_million_letters() -> None:
    with pytest.raises(CommandLineError, match="longer than 128 KiB: no command line"):
        read_text("qemu-system-x86_64 -object " + "x" * 1_000_000)


LARGEST_S = (1 << 62) / 1e9
NUMBERS = '''
def check(image, acks):
    """Accept everything."""
'''


@pytest.mark.parametrize("time_limit_s", [(1 << 31) / 1e3, (1 << 32) / 1e3 + 1, LARGEST_S])
def test_a_checkers_time_limit_may_be_longer_than_poll_can_wait(
    tmp_path_factory: pytest.TempPathFactory, time_limit_s: float
) -> None:
    folder = tmp_path_factory.mktemp("checker")
    (folder / "accepts.py").write_text(NUMBERS)
    function = Function("accepts.py:check", time_limit_s=time_limit_s, folder=folder)
    for checker in (Command("true", time_limit_s=time_limit_s), function):
        try:
            assert checker.check(memoryview(bytes(4096)), NO_ACKS).kind == "ok"
        finally:
            checker.close()
