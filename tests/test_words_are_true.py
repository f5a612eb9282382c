"""Of random runs every sentence is read back and held against a slow, independent count.

A sentence that no reader here knows fails: nothing may be said that is not checked.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from crashsim.engine.history import History
from crashsim.engine.units import format_bytes, format_duration, parse_duration
from crashsim.errors import NothingExplored
from crashsim.experiment.loader import Case, plan
from crashsim.experiment.model import Experiment
from crashsim.power.safety import Domain
from crashsim.power.tell import loss_at
from crashsim.report.standing import headline, sentences, standing
from crashsim.results import CaseResult, Example, Results
from crashsim.runs.one import run_case
from tests.log_writer import FLUSH, FUA, Entry, flush, mark, write, write_log
from tests.random_experiments import experiments
from tests.told_slowly import Slowly

ANY = "any-host"
SEVERAL = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # shrinking a run takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
DEVICE_ONLY = "A recording shows what reached the device, not what its guest still held in memory."
WHERE = (
    r"write (?P<write>\d+) \((?P<length>[\d.]+ \w+) at offset (?P<offset>\d+)"
    r"(?: of (?P<device>\w+))?, made at (?P<made>\w[\w.]*)\) was in (?P<layer>[\w' ]+)"
)


class Told:
    """A run, and the truth of it."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        domains = tuple(str(domain) for domain in Domain)
        power = experiment.power.model_copy(update={"domains": domains, "random": 1})
        self.experiment = experiment.model_copy(update={"power": power})
        case = Case("case", self.experiment, {}, None)  # type: ignore[arg-type]
        finished = run_case(case)
        self.case: CaseResult = finished.figures
        self.history: History = finished.history
        self.recorded = self.history.info.recorded
        self.options = power.host_crash
        self.slowly: dict[Domain, Slowly] = {}
        by_stage: dict[object, Slowly] = {}
        for domain in Domain:
            found = Slowly(self.history, domain, self.options, folder)
            self.slowly[domain] = by_stage.setdefault(found.stage, found)
        self.power_cut = self.slowly[Domain.POWER_CUT]
        self.results = Results("x", "", "1", 1, [self.case])

    # --- the verdict

    def check_headline(self) -> None:
        end = self.history.end_ns
        lost = {
            domain.failure: truth.most_uncovered
            for domain, truth in self.slowly.items()
            if not self.recorded or domain is Domain.POWER_CUT
        }
        broken = self.power_cut.broken(self.slowly[Domain.GUEST_CRASH])
        given = len(self.power_cut.given(end))
        text = headline(self.results)
        if text.startswith("Not safe: "):
            said = {}
            for clause in text.removeprefix("Not safe: ").rstrip(".").split("; "):
                if found := re.fullmatch(
                    r"of ([\d,]+) acknowledgements? up to ([\d,]+) (?:would be lost to (.+)|"
                    r"had no flush behind them)",
                    clause,
                ):
                    assert number(found[1]) == given
                    said[found[3] or Domain.POWER_CUT.failure] = number(found[2])
                else:
                    flushes = re.match(r"([\d,]+) flush(es)? reported success before", clause)
                    assert flushes, clause
                    assert number(flushes[1]) == broken
                    broken = 0
            assert said == {failure: count for failure, count in lost.items() if count}
            assert broken == 0
            return
        assert not any(lost.values())
        assert not broken
        if text.startswith("Safe: "):
            assert given
            assert not self.recorded
            named = text.removeprefix("Safe: nothing acknowledged is lost to ")
            assert named == f"{' or '.join(domain.failure for domain in Domain)} at any instant."
        else:
            assert text == f"Not shown to be safe: {standing(self.case).why[0]}."
            assert self.recorded or not given

    def check_sentences(self) -> None:
        for text in sentences(self.results):
            assert self._read_broken(text) or self._read_worst(text), text

    def _read_broken(self, text: str) -> bool:
        found = re.fullmatch(
            r"Promises are broken in 1 case: in case ([\d,]+) flush(?:es)? reported success before "
            r"the data was safe from a power cut\.",
            text,
        )
        if found:
            truth = self.power_cut.broken(self.slowly[Domain.GUEST_CRASH])
            assert number(found[1]) == truth
        return bool(found)

    def _read_worst(self, text: str) -> bool:
        truth, end = self.power_cut, self.history.end_ns
        found = re.match(
            r"(?:Without a sync|With syncs), a power cut takes "
            r"(?P<size>nothing|[\d.]+ \w+)(?P<of> of what had reached the device)?"
            r"(?: at any instant| at worst, and work up to (?P<age>\S+ \S+) old)\.",
            text,
        )
        if not found:
            return False
        most = truth.most_bytes
        assert found["size"] == (format_bytes(most) if most else "nothing")
        assert bool(found["of"]) == self.recorded
        if most:
            assert found["age"] == format_duration(truth.oldest_ns)
        rest = text[found.end() :]
        uncovered, given = truth.most_uncovered, len(truth.given(end))
        rest, told = taken(
            rest,
            r" Of the (?:acknowledged records, up to ([\d,]+) would be lost|"
            r"acknowledgements, up to ([\d,]+) had no flush behind them)\.",
        )
        if told:
            assert number(told[1] or told[2]) == uncovered
        else:  # then the headline, which is held against the same
            assert not uncovered or f" up to {uncovered:,} " in headline(self.results)
        rest, kept = taken(rest, r" No acknowledged record is lost at any instant\.")
        if kept:
            assert not self.recorded
            assert given
        rest, flushed = taken(
            rest,
            r" Every acknowledgement had a flush behind it(?:; what the guest still held in memory "
            r"then is not in a recording)?\.",
        )
        if flushed:
            assert self.recorded
            assert given
        rest, price = taken(
            rest,
            r" The price: (?:([\d,]+) flush(?:es)?, )?(\S+ \S+) of waiting"
            r"(?:, ([\d,]+) records? acknowledged a second)?\.",
        )
        if price:
            assert number(price[1] or "0") == self.history.flush_device.size
            assert price[2] == format_duration(self.history.info.guest_wait_ns)
            assert abs(number(price[3] or "0") - given * 10**9 / end) <= 0.5
        assert rest == ""
        return True

    # --- examples

    def check_examples(self) -> None:
        readers: dict[str, Callable[[Example], None]] = {
            "at-risk-peak": self._read_peak,
            "hole": self._read_hole,
            "torn": self._read_torn,
            "uncovered": self._read_uncovered,
            "broken-promise": self._read_broken_promise,
        }
        for example in self.case.examples:
            readers[example.kind](example)

    def _where(self, found: re.Match[str], t: int, lost_to: Slowly) -> int:
        """Holds what is said of a write; its number."""
        history, number_ = self.history, int(found["write"])
        rows = [r for r, w in enumerate(history.store_write.tolist()) if w == number_]
        row = rows[-1]
        span = next(
            s for s in history.devices if s.first_byte <= history.store_offset[row] < s.end_byte
        )
        assert int(found["offset"]) == int(history.store_offset[row]) - span.first_byte
        assert found["length"] == format_bytes(int(history.store_length[row]))
        assert found["device"] == (span.name if len(history.devices) > 1 else None)
        assert parse_duration(found["made"]) == lost_to.begun_ns(number_)
        assert number_ in lost_to.unsaved(t)
        return number_

    def _read_peak(self, example: Example) -> None:
        found = re.fullmatch(
            r"A power cut at (?P<t>\S+) takes (?P<size>\S+ \w+) of (?P<writes>[\d,]+) writes? "
            rf"(?:that had reached the device, )?not yet safe\. The oldest was (?P<age>.+) old: "
            rf"{WHERE}\.",
            example.text,
        )
        assert found, example.text
        truth, t = self.power_cut, parse_duration(found["t"])
        assert found["size"] == format_bytes(truth.at(t).lost_bytes)
        assert truth.at(t).lost_bytes == truth.most_bytes
        assert number(found["writes"]) == len(truth.unsaved(t))
        oldest = min(truth.begun_ns(write) for write in truth.unsaved(t))
        assert found["age"] == format_duration(t - oldest)
        assert truth.begun_ns(self._where(found, t, truth)) == oldest
        again = loss_at(self.history, Domain.POWER_CUT, self.options, t)
        assert again[1].strip().startswith(found["size"])

    def _read_hole(self, example: Example) -> None:
        found = re.fullmatch(
            r"A power cut at (?P<t>\S+) keeps write (?P<kept>\d+) \(made at (?P<then>\S+)\) but "
            rf"not an earlier one: {WHERE}\.",
            example.text,
        )
        assert found, example.text
        truth, t = self.power_cut, parse_duration(found["t"])
        lost = self._where(found, t, truth)
        kept = int(found["kept"])
        assert parse_duration(found["then"]) == truth.begun_ns(kept) > truth.begun_ns(lost)
        assert truth.begun_ns(kept) <= t
        assert kept not in truth.unsaved(t)

    def _read_torn(self, example: Example) -> None:
        found = re.fullmatch(
            rf"A power cut at (?P<t>\S+) keeps a part only: {WHERE}\.", example.text
        )
        assert found, example.text
        truth, t = self.power_cut, parse_duration(found["t"])
        torn = self._where(found, t, truth)
        rows = {r for r, w in enumerate(self.history.store_write.tolist()) if w == torn}
        begun = {row for row in rows if self.history.store_t_ns[row] <= t}
        assert rows & truth.at(t).partly or begun - truth.at(t).unsafe

    def _read_uncovered(self, example: Example) -> None:
        found = re.fullmatch(
            r"The acknowledgement (?:of writes? (?P<low>\d+)(?: to (?P<high>\d+))?|'(?P<label>.*)')"
            r" given at (?P<t>\S+) (?:could be lost|had no flush behind it) until (?P<until>.+)\.",
            example.text,
        )
        assert found, example.text
        history, truth, t = self.history, self.power_cut, parse_duration(found["t"])
        (ack, *_) = [
            a
            for a in truth.uncovered(t)
            if history.ack_t_ns[a] == t
            and (found["label"] == str(history.ack_label[a]) or found["low"] is not None)
            and (found["low"] is None or int(found["low"]) == history.ack_low[a])
        ]
        if found["until"] == "the end of the run":
            assert ack in truth.uncovered(history.end_ns)
        else:
            assert ack not in truth.uncovered(parse_duration(found["until"]))

    def _read_broken_promise(self, example: Example) -> None:
        found = re.fullmatch(
            r"The flush submitted at (?P<submitted>\S+) was acknowledged with success at (?P<t>\S+)"
            rf", yet {WHERE} and not durable(?: until (?P<until>\S+))?\.",
            example.text,
        )
        assert found, example.text
        history, t = self.history, parse_duration(found["t"])
        self._where(found, t, self.power_cut)
        same = (history.flush_ack_ns == t) & (history.flush_result == 0)
        same &= history.flush_submit_ns == parse_duration(found["submitted"])
        assert bool(same.any())

    # --- `crashsim loss`

    def check_loss(self, t: int) -> None:
        for domain, truth in self.slowly.items():
            first, lost, acks, *rest = (
                line.strip() for line in loss_at(self.history, domain, self.options, t)
            )
            assert re.fullmatch(rf"{domain} at (\S+):", first)
            assert parse_duration(first.split(" at ")[1].rstrip(":")) == t
            size, writes = truth.at(t).lost_bytes, len(truth.unsaved(t))
            of = " of what had reached the device" if self.recorded else ""
            if lost == f"nothing{of} is lost.":
                assert size == writes == 0
            else:
                found = re.fullmatch(
                    rf"(.+?){of} are lost; ([\d,]+) writes? (?:is|are) not wholly safe\.", lost
                )
                assert found, lost
                assert found[1] == format_bytes(size)
                assert number(found[2]) == writes
            self._read_acks(acks, truth, t)
            if self.recorded:
                assert rest.pop(0) == DEVICE_ONLY
            if rest and (more := re.fullmatch(r"\.\.\. and ([\d,]+) more\.", rest[-1])):
                rest.pop()
                writes -= number(more[1])
            told = [re.fullmatch(rf"{WHERE}\.", line) for line in rest]
            assert len(told) == writes
            for one in told:
                assert one
                self._where(one, t, truth)

    def _read_acks(self, text: str, truth: Slowly, t: int) -> None:
        if text == "Nothing had been acknowledged.":
            assert not truth.given(t)
            return
        found = re.fullmatch(
            r"Of ([\d,]+) acknowledgements? ([\d,]+) (would be lost|had no flush behind them)\.",
            text,
        )
        assert found, text
        assert number(found[1]) == len(truth.given(t))
        assert number(found[2]) == len(truth.uncovered(t))
        assert (found[3] == "had no flush behind them") == self.recorded


def number(text: str) -> int:
    return int(text.replace(",", ""))


def taken(text: str, pattern: str) -> tuple[str, re.Match[str] | None]:
    """The text without what the pattern finds at its beginning."""
    found = re.match(pattern, text)
    return (text[found.end() :], found) if found else (text, None)


def check(experiment: Experiment, share: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        told = Told(experiment, Path(folder))
    told.check_headline()
    told.check_sentences()
    told.check_examples()
    end = told.history.end_ns
    for t in {end * share // 100, end, *(example.t_ns for example in told.case.examples)}:
        told.check_loss(t)


@given(experiment=experiments(ANY), share=st.integers(0, 100))
@SEVERAL
def test_what_is_said_of_a_random_run_is_true(experiment: Experiment, share: int) -> None:
    try:
        check(experiment, share)
    except NothingExplored:
        assume(False)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    data = st.builds(
        write,
        st.integers(0, 40),
        st.sampled_from((b"a" * 512, b"b" * 1024, b"c" * 4096)),
        st.sampled_from((0, 0, 0, FUA, FLUSH, FLUSH | FUA)),
    )
    marks = st.builds(mark, st.sampled_from(("one", "two", "three")))
    drawn = draw(st.lists(st.one_of(data, data, marks, st.builds(flush)), min_size=1, max_size=25))
    return [write(0, b"x" * 512), *drawn]


@given(log=entries(), disk=st.sampled_from(("plp-nvme", "hdd")), share=st.integers(0, 100))
@SEVERAL
def test_what_is_said_of_a_random_recording_is_true(
    log: list[Entry], disk: str, share: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_log(Path(folder) / "r.log", log)
        tree = {
            "device": {"size": "1MiB"},
            "workload": {"kind": "recording", "log": "r.log"},
            "guest": {"file_system": "none"},
            "disk": {"profile": disk},
        }
        (case,) = plan(json.dumps(tree), str(Path(folder) / "r.yaml")).cases
        check(case.experiment, share)
