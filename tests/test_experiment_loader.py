"""Loading a file: every mistake at once, each at its line and column, in words that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from crashsim.errors import ExperimentError
from crashsim.experiment.loader import Plan, load, plan

VALID = """\
device: {size: 64MiB}
workload:
  kind: append-log
  records: 10
"""


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ExperimentError) as caught:
        plan(text, "x.yaml", overrides)
    return [str(problem) for problem in caught.value.problems]


def accepted(text: str, *overrides: str) -> Plan:
    return plan(text, "x.yaml", overrides)


def test_a_valid_file_is_one_case_named_after_the_file(tmp_path: Path) -> None:
    path = tmp_path / "My Log (2).yaml"
    path.write_text(VALID)
    found = load(path)
    assert found.experiment.name == "my-log-2"
    assert [case.name for case in found.cases] == ["my-log-2"]
    assert found.cases[0].experiment == found.experiment
    assert found.cases[0].parameters == {}


def test_an_unknown_key_is_answered_with_the_nearest_known_one() -> None:
    text = VALID.replace("  records: 10", "  recrods: 10\n  records: 10")
    assert problems(text) == ["x.yaml:4:3: unknown key 'recrods'; did you mean 'records'?"]


def test_a_value_without_a_unit_is_answered_with_an_example() -> None:
    assert problems(VALID + "host:\n  dirty_expire: 5\n") == [
        "x.yaml:6:17: expected a duration with a unit such as 5s or 200ms, got 5"
    ]


def test_all_mistakes_of_a_file_are_reported_at_once_in_its_order() -> None:
    text = """\
device: {size: 64}
workload: {kind: append-lgo, records: 10}
gest: {}
host: {dirty_ratio: 5, fault: fast}
disk: {profile: HDD, plp: yes}
sync: {call: none, every: 10 records}
power: {at: 5s, domains: [power-cut, fire]}
expect: {at_risk_max: 5, holes: "<= 1s"}
seed: -1
seed: 1.5
"""
    assert problems(text) == [
        "x.yaml:1:16: expected a size with a unit such as 64MiB or 512B, got 64",
        "x.yaml:2:18: expected one of append-log, key-value, double-buffer, write-ahead-log, "
        "fill, recording, got 'append-lgo'; did you mean 'append-log'?",
        "x.yaml:3:1: unknown key 'gest'; did you mean 'guest'?",
        "x.yaml:4:31: expected a duration with a unit such as 5s or 200ms, got 'fast'",
        "x.yaml:5:17: expected one of plp-nvme, consumer-nvme, sata-ssd, hdd, ignores-flush, "
        "got 'HDD'",
        "x.yaml:5:27: expected true or false, got 'yes'",
        "x.yaml:6:20: call is none, so there is nothing to do every time",
        "x.yaml:7:13: expected a list, got '5s'",
        "x.yaml:7:38: expected one of program-kill, guest-crash, vmm-kill, vmm-quit, migration, "
        "live-copy, storage-snapshot, host-crash, power-cut, got 'fire'",
        "x.yaml:8:23: expected a comparison with a size such as '<= 1MiB', got 5",
        "x.yaml:8:33: expected a comparison with a count such as '== 0', got '<= 1s'",
        "x.yaml:9:7: expected at least 0, got -1",
        "x.yaml:10:1: duplicate key 'seed', first in line 9",
    ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("host:", "5:1: expected a mapping of keys to values, got nothing"),
        ("sync: fsync", "5:7: expected a mapping of keys to values, got 'fsync'"),
        ("seed: 1.5", "5:7: expected a whole number, got 1.5"),
        ("seed: 18446744073709551616", "5:7: expected less than 18446744073709551616, got"),
        ("description: 5", "5:14: expected text, got 5"),
        ("name: My Log", "5:7: expected lower-case letters, digits and dashes, got 'My Log'"),
        ("name: ''", "5:7: expected lower-case letters, digits and dashes, got ''"),
        ("duration: 0s", "5:11: expected more than 0, got '0s'"),
        ("disk: {bandwidth: 1.2GB}", "5:19: expected a byte rate with a unit such as 1.2GB/s"),
        ("disk: {sector: 1000B}", "5:8: expected 512B, 1KiB, 2KiB or 4KiB, got 1000B"),
        ("host: {early_writeback: {every: 1s}}", "5:8: missing key 'share': Chance of each dirty"),
        ("host: {dirty_ratio: 5}", "5:8: dirty_background_ratio (10) must be below dirty_ratio"),
        ("cases: {a: {expects: 1}}", "5:13: unknown key 'expects'; did you mean 'expect'?"),
        ("power: {domains: []}", "5:18: expected at least one value, got a list"),
        ("sync: {call: fsync, every: 5}", "5:28: expected a number of records such as 100 rec"),
        ("cases: [1]", "5:8: expected a mapping of keys to values, got a list"),
        ("1: 2", "5:1: unknown key '1'"),
        ("? [a]\n: 2", "5:3: expected a key, got a list or a mapping"),
        ("<<: {seed: 1}", "5:1: merge keys (<<) are not read"),
        ("seed: !secret 5", "5:7: tags such as !secret are not read"),
        ('description: "\\ud800"', "5:14: half of a surrogate pair is not a character"),
        ("duration: 5s\npower: {at: [1s, 6s]}", "6:18: a cut at 6s is after the end"),
    ],
)
def test_a_mistake_is_told_at_its_place(lines: str, problem: str) -> None:
    found = problems(VALID + lines + "\n")
    assert any(f"x.yaml:{problem}" in line for line in found), found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "x.yaml: expected a mapping of keys to values, got nothing"),
        ("# only a comment\n", "x.yaml: expected a mapping of keys to values, got nothing"),
        ("- 1\n", "x.yaml:1:1: expected a mapping of keys to values, got a list"),
        ("5\n", "x.yaml:1:1: expected a mapping of keys to values, got 5"),
        ("a: b: c\n", "x.yaml:1:5: not YAML: mapping values are not allowed here"),
        ("a: [1\nb: 2\n", "x.yaml:2:2: not YAML: expected ',' or ']'"),
        ("a: 'x\n", "x.yaml:2:1: not YAML: found unexpected end of stream"),
        ("a: *b\n", "x.yaml:1:4: not YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 1\n", "x.yaml:2:1: not YAML: but found another document"),
        ("a: >= 1\n", "x.yaml:1:5: not YAML: quote a value that begins with > or |"),
        ("a: 1\nb: \x07\n", "x.yaml:2:4: not YAML: character U+0007 is not allowed"),
        ("[" * 5000, "x.yaml:1:41: nested more than 40 deep"),
        ("a: " + "{ [\n" * 5000, "nested more than 40 deep"),
        ("- " * 5000, "x.yaml:1:81: nested more than 40 deep"),
        ("[" * 60 + "]" * 60, "x.yaml:1:41: nested more than 40 deep"),
        ("a: &a [*a]\n", "nested more than 40 deep"),
    ],
)
def test_what_is_no_experiment_at_all_is_told_at_its_place(text: str, problem: str) -> None:
    [found] = problems(text)
    assert problem in found


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for name, below in zip("bcdefgh", "abcdefg", strict=True):
        lines.append(f"{name}: &{name} [" + ", ".join([f"*{below}"] * 10) + "]")
    assert any("more than 100000 values" in line for line in problems("\n".join(lines)))


def test_an_alias_repeats_a_block() -> None:
    text = "devices:\n- {name: a, size: &s 4MiB}\n- {name: b, size: *s}\n" + VALID[22:]
    devices = accepted(text).experiment.devices
    assert devices is not None
    assert [device.size for device in devices] == [4 << 20, 4 << 20]


def test_two_blocks_that_exclude_each_other_are_told_beside_other_mistakes() -> None:
    text = "devices: []\nseed: x\n" + VALID
    assert problems(text) == [
        "x.yaml:1:1: there is a device already: use either device or devices",
        "x.yaml:1:10: expected at least one value, got a list",
        "x.yaml:2:7: expected a whole number, got 'x'",
    ]


def test_null_means_the_default_where_there_is_one() -> None:
    assert accepted(VALID + "duration: null\n").experiment.duration is None


def test_a_byte_order_mark_and_carriage_returns_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert load(path).experiment.workload is not None


def test_a_missing_file_is_a_problem_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="cannot be read: No such file or directory"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ExperimentError, match="cannot be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(ExperimentError, match="cannot be read: embedded null byte"):
        load("\0")


def test_a_file_that_is_not_utf_8_is_told_where(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"# caf\xc3\xa9\nname: caf\xe9\n")
    with pytest.raises(ExperimentError, match=r"x\.yaml:2:10: not UTF-8: byte 0xe9"):
        load(path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with path.open("wb") as stream:
        stream.truncate(5 << 20)
    with pytest.raises(ExperimentError, match="larger than 1 MiB"):
        load(path)


def test_set_changes_a_value_by_its_dotted_path() -> None:
    found = accepted(VALID, "disk.profile=hdd", "sync={call: fsync, every: 5 records}", "seed=7")
    assert found.experiment.disk.flush == 10_000_000
    assert found.experiment.sync.every_records == 5
    assert found.experiment.seed == 7


def test_set_reaches_into_lists() -> None:
    text = "devices:\n- {name: a, size: 4MiB}\n- {name: b, size: 4MiB}\n" + VALID[22:]
    devices = accepted(text, "devices.1.size=8MiB").experiment.devices
    assert devices is not None
    assert [device.size >> 20 for device in devices] == [4, 8]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("disk.flush=5", "--set disk.flush: expected a duration with a unit such as 5s"),
        ("dsik.flush=5ms", "--set dsik.flush: unknown key 'dsik'; did you mean 'disk'?"),
        ("seed=[", "--set seed: not YAML: "),
        ("seed=", "--set seed: expected"),
        ("seed", "--set seed: expected key=value with a dotted key"),
        ("=5", "--set =5: expected key=value with a dotted key"),
        ("disk..flush=5", "--set disk..flush=5: expected key=value with a dotted key"),
        ("workload.records.x=5", "--set workload.records.x: 'x' leads into 10"),
        ("seed={a: 1, a: 2}", "--set seed: duplicate key 'a'"),
    ],
)
def test_a_wrong_set_is_told_by_its_key(override: str, problem: str) -> None:
    assert any(line.startswith(problem) for line in problems(VALID, override))


def test_the_seed_may_be_given_apart() -> None:
    assert plan(VALID + "seed: 5\n", "x.yaml", seed=9).experiment.seed == 9
    with pytest.raises(ExperimentError, match="--seed: expected at least 0, got -1"):
        plan(VALID, "x.yaml", seed=-1)


RECORDING = """\
device: {size: 32MiB}
workload: {kind: recording, log: logs/a.log, times: logs/a.times}
"""


def test_a_recordings_files_are_relative_to_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").touch()
    (tmp_path / "logs" / "a.times").touch()
    (tmp_path / "x.yaml").write_text(RECORDING)
    workload = load(tmp_path / "x.yaml").cases[0].experiment.workload
    assert getattr(workload, "log", None) == str(tmp_path / "logs" / "a.log")


def test_a_recordings_files_given_by_set_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.log").touch()
    (tmp_path / "sub" / "logs").mkdir(parents=True)
    (tmp_path / "sub" / "logs" / "a.times").touch()
    (tmp_path / "sub" / "x.yaml").write_text(RECORDING)
    monkeypatch.chdir(tmp_path)
    workload = load("sub/x.yaml", ["workload.log=b.log"]).experiment.workload
    assert getattr(workload, "log", None) == str(tmp_path / "b.log")


def test_a_recordings_missing_files_are_told_at_their_place(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(RECORDING)
    with pytest.raises(ExperimentError) as caught:
        load(tmp_path / "x.yaml")
    places = [(p.line, p.column, p.message.split(":")[0]) for p in caught.value.problems]
    assert places == [(2, 34, "no such file"), (2, 53, "no such file")]


@pytest.mark.parametrize(
    ("command", "name"),
    [("fsck {ack}", "ack"), ("a {image} {imag}", "imag"), ("awk '{print}' {image}", "print")],
)
def test_an_unknown_placeholder_is_told_with_the_known_ones(command: str, name: str) -> None:
    text = f'{VALID}explore: {{check: {{command: "{command}"}}}}\n'
    (problem,) = problems(text)
    assert f"unknown placeholder {{{name}}}: " in problem
    assert "{image}, {device}, {acks}, {mnt}" in problem and f"{{{{{name}}}}}" in problem


@pytest.mark.parametrize(
    "command",
    ["a {mnt}/x{acks}", "find . -exec b {} ;", "sh -c 'c ${HOME} {1,2} a{3}'", "awk '{{print}}'"],
)
def test_what_is_a_placeholder_or_none_passes(command: str) -> None:
    accepted(f'{VALID}explore: {{check: {{command: "{command}"}}}}\n')


def test_a_name_is_a_shipped_experiment_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = load("sqlite-wal-normal")
    assert Path(shipped.file).is_file() and Path(shipped.file).parent.name == "experiments"
    (workload,) = (workload for _, workload, _ in shipped.cases[0].experiment.resolved_devices())
    assert Path(getattr(workload, "log", "")).is_file()
    (tmp_path / "append-log").mkdir()  # a folder of that name is no file
    assert load("append-log").cases[0].experiment.name == "append-log"
    Path("demo").write_text("device: {size: 1MiB}\nworkload: {kind: fill}\nname: mine\n")
    assert load("demo").file == "demo" and load("demo").cases[0].name == "mine"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("append-lgo", "no shipped experiment of this name; did you mean append-log"),
        ("qqq", "no shipped experiment of this name; those are in /"),
        ("./append-log", r"\./append-log: cannot be read: No such file"),
        ("append-log.yaml", r"append-log\.yaml: cannot be read: No such file"),
    ],
)
def test_a_name_that_is_neither_is_told_with_near_ones(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExperimentError, match=expected):
        load(name)
