"""A fleet's year: exact means and deviations, drawn years that agree, and what is said."""

from __future__ import annotations

import io
import json
from math import exp, factorial, sqrt
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from crashsim.engine.streams import Stream
from crashsim.engine.units import format_bytes
from crashsim.errors import ExperimentError, UsageError
from crashsim.fleet.annual import FleetLost, Lost, lost_in_a_year, may_corrupt, one_loss
from crashsim.fleet.display import draw_fleet, print_fleet, sentences, to_json
from crashsim.fleet.hosts import Fleet, Hosts, PerYear, read_fleet
from crashsim.fleet.year import Failures, OneLoss, poisson, yearly
from crashsim.runs.one import Run, run
from tests.cli_support import Program

LOG = """
device: {size: 1MiB}
guest: {file_system: none, access: direct}
workload: {kind: append-log, records: 400, record_size: 256B, rate: 1000/s}
sync: {call: fdatasync, every: 50 records}
disk: {profile: consumer-nvme}
"""


def not_explored(_run: Run, _file: str) -> float | None:
    return None


def quiet(_done: int, _name: str) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "log.yaml").write_text(LOG, encoding="utf-8")
    return folder


def hosts(**changed: object) -> Hosts:
    given: dict[str, object] = {
        "name": "logs",
        "experiment": "log.yaml",
        "count": 40,
        "per_year": PerYear(power_cuts=2.0),
    }
    return Hosts.model_validate(given | changed)


def of(folder: Path, *kinds: Hosts, years: int = 2000) -> FleetLost:
    fleet = Fleet(hosts=list(kinds), years=years)
    return lost_in_a_year(fleet, folder, not_explored, quiet)


# The arithmetic


@pytest.mark.parametrize("rate", [0.05, 0.7, 3.0, 40.0, 5000.0])
def test_failures_come_as_often_as_a_poisson_process_says(rate: float) -> None:
    drawn = poisson(rate, Stream(7, "failures"), 40_000)
    assert abs(drawn.mean() - rate) < 5 * sqrt(rate / drawn.size)
    assert abs(drawn.var() / rate - 1) < 5 * sqrt((2 + 1 / rate) / drawn.size)
    if rate < 5:
        for k in range(4):
            chance = exp(-rate) * rate**k / factorial(k)
            share = np.count_nonzero(drawn == k) / drawn.size
            assert abs(share - chance) < 5 * sqrt(chance / drawn.size) + 1e-9
    assert not poisson(0.0, Stream(7, "failures"), 10).any()


def test_an_instant_of_the_run_is_as_likely_as_any_other() -> None:
    loss = OneLoss(np.array([0, 100, 900]), np.array([5, 3, 2]))
    assert loss.mean == pytest.approx((3 * 100 + 2 * 900) / 10)
    assert loss.mean_square == pytest.approx((3 * 100**2 + 2 * 900**2) / 10)
    drawn = loss.drawn(Stream(3, "losses"), np.arange(50_000))
    for amount, share in ((0.0, 0.5), (100.0, 0.3), (900.0, 0.2)):
        assert np.count_nonzero(drawn == amount) / drawn.size == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("together", [1, 8])
def test_drawn_years_have_the_mean_and_deviation_that_are_calculated(together: int) -> None:
    loss = OneLoss(np.array([0, 10, 500]), np.array([60, 30, 10]))
    failures = [Failures(1.5, together, loss), Failures(0.2, 1, loss)]
    found, drawn = yearly(failures, 11, "test", 40_000)
    assert abs(drawn.mean() - found.mean) < 5 * found.deviation / sqrt(drawn.size)
    assert drawn.std() == pytest.approx(found.deviation, rel=0.05)
    assert np.mean(drawn < found.low) <= 0.05 <= np.mean(drawn <= found.low)
    assert np.mean(drawn < found.high) <= 0.95 <= np.mean(drawn <= found.high)


def test_cuts_that_take_many_hosts_at_once_change_the_spread_and_not_the_mean() -> None:
    loss = OneLoss(np.array([0, 1000]), np.array([50, 50]))
    alone = Failures(8.0, 1, loss)
    racks = Failures(1.0, 8, loss)
    assert racks.mean == pytest.approx(alone.mean)
    assert racks.variance == pytest.approx(8 * 500**2 + (8 * 500) ** 2)
    assert racks.variance > 3 * alone.variance


# A fleet


def test_the_mean_is_the_rate_times_the_mean_of_the_curve(folder: Path) -> None:
    found = of(folder, hosts(), hosts(name="half", ups=0.5))
    curve = run(folder / "log.yaml").loss("power-cut")
    assert found.kinds[0].now.bytes.mean == pytest.approx(40 * 2 * curve.mean)
    assert found.kinds[1].now.bytes.mean == pytest.approx(40 * curve.mean)
    assert found.now.bytes.mean == pytest.approx(40 * 3 * curve.mean)
    assert found.kinds[0].failures == {"power-cut": 80.0}


def test_each_failure_takes_what_its_own_domain_takes(folder: Path) -> None:
    kinds = [
        hosts(name=name, per_year={name: 3.0})
        for name in ("power_cuts", "host_crashes", "vmm_kills", "disk_deaths")
    ]
    found = {kind.hosts.name: kind.now for kind in of(folder, *kinds).kinds}
    one = run(folder / "log.yaml")
    for name, domain in (("power_cuts", "power-cut"), ("host_crashes", "host-crash")):
        assert found[name].bytes.mean == pytest.approx(120 * one.loss(domain).mean)
    assert found["vmm_kills"].bytes.mean == 0  # the host's page cache outlives its monitor
    assert found["disk_deaths"].bytes.mean == 0 and found["disk_deaths"].disks == 120


def test_a_change_is_run_and_what_is_not_changed_stays(folder: Path) -> None:
    early = {"workload.acknowledge": "before-sync"}
    careless = hosts(name="careless", change={"sync.every": "5 records"})
    found = of(folder, careless, hosts(name="same"))
    kinds = {kind.hosts.name: kind for kind in found.kinds}
    changed = kinds["careless"].changed
    assert changed is not None and changed.bytes.mean < kinds["careless"].now.bytes.mean / 3
    assert kinds["same"].changed is None and found.changed is not None
    together = changed.bytes.mean + kinds["same"].now.bytes.mean
    assert found.changed.bytes.mean == pytest.approx(together)
    lost = of(folder, hosts(change=early)).kinds[0].changed
    assert lost is not None and lost.acknowledgements.mean > 0 and lost.machines > 0


def test_the_same_file_gives_the_same_years(folder: Path) -> None:
    assert to_json(of(folder, hosts())) == to_json(of(folder, hosts()))


def test_acknowledgements_that_are_covered_are_not_lost(folder: Path) -> None:
    lost = of(folder, hosts()).now
    assert lost.acknowledgements.mean == 0 and lost.machines == 0 and lost.bytes.mean > 0


def test_what_an_exploration_rejects_may_corrupt(folder: Path) -> None:
    fleet = Fleet(hosts=[hosts(ups=0.75)])
    found = lost_in_a_year(fleet, folder, lambda _run, _file: 0.25, quiet)
    assert found.now.corrupted == pytest.approx(40 * 2 * 0.25 * 0.25)
    assert of(folder, hosts()).now.corrupted is None


def test_the_values_of_a_curve_hold_for_the_whole_run(folder: Path) -> None:
    curve = run(folder / "log.yaml").loss()
    loss = one_loss(curve)
    assert int(loss.ns.sum()) == curve.end_ns and loss.mean == pytest.approx(curve.mean)


# The file


def test_every_mistake_is_told_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    text = "hosts:\n- name: a\n  experiment: x.yaml\n  count: 0\n  cuont: 3\n  ups: 140%\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExperimentError) as told:
        read_fleet(path)
    lines = {problem.line: problem.message for problem in told.value.problems}
    assert "greater than or equal to 1" in lines[4]
    assert lines[5] == "unknown key 'cuont': count?"
    assert lines[6] == "expected a share from 0% to 100%, such as 90%, got '140%'"


def test_shares_are_written_in_three_ways(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    for text in ("90%", "9/10", "0.9"):
        given = f"hosts: [{{name: a, experiment: x, count: 1, ups: {text}}}]"
        path.write_text(given, encoding="utf-8")
        assert read_fleet(path).hosts[0].ups == pytest.approx(0.9)


@pytest.mark.parametrize("text", ["", "- 1\n", "hosts: []\n", "hosts: 3\n", "{", "hosts: [{}]\n"])
def test_what_is_no_fleet_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExperimentError):
        read_fleet(path)


def test_two_kinds_need_two_names(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    one = "- {name: a, experiment: x, count: 1}\n"
    path.write_text(f"hosts:\n{one}{one}", encoding="utf-8")
    with pytest.raises(ExperimentError, match="two kinds"):
        read_fleet(path)


def test_a_sweep_needs_a_case(folder: Path) -> None:
    swept = LOG + "sweep: {product: {sync: [{call: none}, {call: fdatasync}]}}\n"
    (folder / "swept.yaml").write_text(
        swept.replace("sync: {call: fdatasync, every: 50 records}\n", ""), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="sync=call:none, sync=call:fdatasync"):
        of(folder, hosts(experiment="swept.yaml"))
    found = of(folder, hosts(experiment="swept.yaml", case="sync=call:none"))
    assert found.now.bytes.mean > 0


# What is said


def test_sentences_say_what_the_figures_are(folder: Path) -> None:
    found = of(
        folder,
        hosts(change={"workload.acknowledge": "before-sync"}),
        hosts(name="b", per_year={"disk_deaths": 1.0}),
    )
    told = " ".join(sentences(found))
    assert found.changed is not None
    assert f"{found.changed.acknowledgements.mean:,.0f} records" in told
    assert "80 hosts" in told and "dead disk" in told and "corrupted" not in told
    alone = " ".join(sentences(of(folder, hosts())))
    assert "would change" not in alone and "dead disk" not in alone


def test_a_row_of_the_table_says_what_its_figures_are(folder: Path) -> None:
    dying = {"power_cuts": 2.0, "disk_deaths": 0.5}
    change = {"workload.acknowledge": "before-sync"}
    found = of(folder, hosts(change=change, per_year=dying), hosts(name="b"))
    out = io.StringIO()
    print_fleet(found, out)
    lines = out.getvalue().splitlines()
    kind, other = found.kinds
    assert kind.changed is not None and found.changed is not None
    rows = {
        "logs  ": kind.now,
        "  with workload.acknowledge=before-sync": kind.changed,
        "b  ": other.now,
        "all  ": found.now,
        "all, changed": found.changed,
    }
    for begin, lost in rows.items():
        (row,) = (line for line in lines if line.startswith(begin))
        low, mean, high = (
            format_bytes(round(n)) for n in (lost.bytes.low, lost.bytes.mean, lost.bytes.high)
        )
        acks = lost.acknowledgements
        told = [f"{mean} ({low}–{high})", f"{acks.mean:,.0f} ({acks.low:,.0f}–{acks.high:,.0f})"]
        told += [f"{lost.machines:,.3g}", "?", f"{lost.disks:,.3g}"]
        cells = [cell for cell in row[len(begin) :].split("  ") if cell.strip()]
        assert [cell.strip() for cell in cells][-5:] == told
    (first,) = (line for line in lines if line.startswith("logs  "))
    assert first.split()[1:3] == ["40", "80"]  # hosts, failures in a year


def test_the_picture_has_a_bar_for_each_figure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crashsim.report import canvas

    drawn: list[Figure] = []

    def rendered(figure: Figure) -> tuple[bytes, bytes]:
        drawn.append(figure)
        return b"", b""

    monkeypatch.setattr(canvas, "rendered", rendered)
    found = of(folder, hosts(change={"workload.acknowledge": "before-sync"}), hosts(name="b"))
    draw_fleet(found)
    shown: list[Lost] = [found.kinds[0].now, found.kinds[1].now]
    changed = found.kinds[0].changed
    assert changed is not None
    shown.insert(1, changed)
    both = drawn[0].axes
    acks, sizes = [one.acknowledgements for one in shown], [one.bytes for one in shown]
    counts = [f"{one.mean:,.0f}" for one in acks]
    for axes, amounts, labels in (
        (both[0], acks, counts),
        (both[1], sizes, [format_bytes(round(one.mean)) for one in sizes]),
    ):
        widths = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
        assert widths == [one.mean for one in amounts]
        spreads = [list(map(float, np.asarray(line.get_xdata()))) for line in axes.lines]
        assert spreads == [[one.low, one.high] for one in amounts]
        said = [text.get_text() for text in axes.texts]
        assert said == labels
    names = [label.get_text() for label in both[0].get_yticklabels()]
    assert names == ["logs", "logs, changed", "b"]


def test_json_is_plain_data(folder: Path) -> None:
    document = json.loads(json.dumps(to_json(of(folder, hosts()))))
    assert document["kinds"][0]["hosts"]["count"] == 40
    assert set(document["now"]) == {"bytes", "acknowledgements", "machines", "corrupted", "disks"}


# The command


FLEET = """
description: One hall
hosts:
- name: logs
  experiment: log.yaml
  count: 40
  per_year: {power_cuts: 2}
"""


def test_the_command_tells_and_draws(folder: Path, program: Program) -> None:
    (folder / "hall.yaml").write_text(FLEET, encoding="utf-8")
    picture = folder / "hall.svg"
    answer = program("fleet", folder / "hall.yaml", "--picture", picture)
    assert answer.code == 0 and "One hall" in answer.out and f"Picture: {picture}" in answer.out
    assert picture.read_bytes().startswith(b"<?xml")
    again = program("fleet", folder / "hall.yaml", "--picture", picture)
    assert again.code == 2 and "exists already" in again.err
    found = json.loads(program("fleet", folder / "hall.yaml", "--json").out)
    assert found["fleet"]["hosts"][0]["name"] == "logs"


def test_the_share_of_the_run_in_which_a_state_is_rejected_may_be_corrupted(tmp_path: Path) -> None:
    explored = LOG + "explore: {states: 400, check: {rule: acknowledged}}\n"
    early = explored.replace("rate: 1000/s", "rate: 1000/s, acknowledge: before-sync")
    shares = []
    for text in (explored, early):
        file = tmp_path / "log.yaml"
        file.write_text(text, encoding="utf-8")
        shares.append(may_corrupt(1)(run(file), str(file)))
    assert shares[0] == 0.0
    uncovered = run(tmp_path / "log.yaml").uncovered()
    at_risk = float(one_loss(uncovered).ns[one_loss(uncovered).amount > 0].sum()) / uncovered.end_ns
    assert shares[1] is not None and at_risk - 0.01 <= shares[1] <= 1
    (tmp_path / "plain.yaml").write_text(LOG, encoding="utf-8")
    assert may_corrupt(1)(run(tmp_path / "plain.yaml"), "plain.yaml") is None
