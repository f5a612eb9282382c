"""What was explored, in words: how much of what there is, what came of it, each finding's story.

Contract: a pure function of results. Numbers of states are exact; how far they speak for the rest
is said with them.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator
from itertools import chain, repeat

from rich.text import Text

from crashsim.engine.units import format_bytes
from crashsim.printable import printable
from crashsim.report.speaker import Speaker, console_for
from crashsim.report.words import UNCOVERED, among, count, some, uncovered
from crashsim.results import CaseResult, Results
from crashsim.results.discovery import EpochResult, ExplorationResult, FindingResult

MOST_PICTURES = 6
MOST_EPOCHS = 200  # in the page's table
_AGAIN = "  Again"  # begins the line of a story that has the command
TELLING = 0.05  # a larger share that may be bad is not worth a word
_DEPTHS = ("all", "some", "an end or both", "none")
_HOSTS = {"any-host": "any host", "this-host": "this host"}


def headline(one: ExplorationResult) -> str:
    """How much was explored."""
    host = _HOSTS[one.host]
    atom = format_bytes(one.atom_bytes)
    seen, there = len(one.epochs), one.all_epochs
    epochs = some(there, "epoch") if seen == there else f"the first {seen:,} of {there:,} epochs"
    images = states_text(one.images, one.images_text)
    return (
        f"{printable(one.device)}: {one.checked:,} of {images} that a cut may leave on {host} were "
        f"checked ({epochs}, atoms of {atom})"
    )


def states_text(images: int | None, text: str) -> str:
    """A number of images, as a power of ten when it is huge: `over 10^36 images`."""
    if images is not None and "e+" not in text:
        return some(images, "image")
    return f"over {text.partition('(')[2].rstrip(')')} images"


def rejected(epoch: EpochResult) -> int:
    """States of an epoch that the checker did not accept."""
    return epoch.checked - epoch.verdicts.get("ok", 0)


def bad_outcomes(one: ExplorationResult) -> set[str]:
    """Outcomes of states that were rejected, as far as they were grouped."""
    return {finding.outcome or finding.kind for finding in one.findings}


def percent(number: int, total: int) -> str:
    """`0.02 %`; never 0 % of something, nor 100 % of less than all."""
    if number in (0, total):
        return "100 %" if number else "0 %"
    share = 100 * number / total
    if share < 0.01:
        return "under 0.01 %"
    return f"{min(share, 99.99):.3g} %" if share < 99.9 else "over 99.9 %"


def pictured(cases: list[CaseResult]) -> list[tuple[CaseResult, int]]:
    """The findings (case, number from 0) that are drawn: of each case the first before the second
    of any."""
    turns: dict[int, list[tuple[CaseResult, int]]] = {}
    for case in cases:
        for number, (finding, _) in enumerate(told_findings(case)):
            if finding.picture.rows:
                turns.setdefault(number, []).append((case, number))
    return [pair for number in sorted(turns) for pair in turns[number]][:MOST_PICTURES]


def coverage(one: ExplorationResult) -> str:
    """Of how many epochs all images were checked, some, the ends alone, and none."""
    epochs = one.epochs
    if not one.checked:
        return "that shows nothing"
    depths = Counter(_depth(epoch) for epoch in epochs)
    depths["none"] += one.all_epochs - len(epochs)
    if len(+depths) == 1 and depths["all"]:
        return "every image of every epoch was checked"
    told = ", ".join(f"{depth} in {depths[depth]:,}" for depth in _DEPTHS if depths[depth])
    text = f"images checked, by epoch: {told}"
    quiet = [e for e in epochs if 0 < e.unseen_share <= TELLING and not rejected(e)]
    if quiet:
        worst = max(epoch.unseen_share for epoch in quiet)
        text += (
            f"; in {len(quiet):,} of them, of whose images at least "
            f"{min(e.kinds['random'] for e in quiet):,} were drawn at random and none was "
            f"rejected, at most {worst:.1%} of the images are bad (95 % confidence, each epoch by "
            "itself)"
        )
    return text


def all_checked(one: ExplorationResult) -> bool:
    """Whether every image of every epoch was."""
    epochs = one.epochs
    return len(epochs) == one.all_epochs and all(_depth(epoch) == "all" for epoch in epochs)


def _depth(epoch: EpochResult) -> str:
    """How far an epoch was checked."""
    if epoch.checked >= (epoch.images or math.inf):
        return "all"
    if not epoch.checked:
        return "none"
    return "an end or both" if epoch.kinds.keys() <= {"none", "all"} else "some"


def verdict(one: ExplorationResult) -> str:
    """What came of it."""
    found = one.outcomes
    outcomes = ", ".join(f"{printable(name)} {states:,}" for name, states in found.items())
    if not one.checked:
        return "no state was checked"
    if not one.failing:
        accepted = f"none was rejected, {told}" if (told := unjudged(one)) else "all were accepted"
        return accepted + (f" ({outcomes})" if len(found) > 1 else "")
    were = "was" if one.failing == 1 else "were"
    text = f"{one.failing:,} {were} rejected, for {_causes(one)}"
    text += f", {told}" if (told := unjudged(one)) else ""
    return f"{text}{_ungrouped(one)}; outcomes: {outcomes}"


def unjudged(one: ExplorationResult) -> str:
    """States that were checked and say nothing, and why; '' without any."""
    late, unstable = one.timed_out, one.unstable
    why = []
    if late:
        why.append(f"in {late:,} the checker was not done in its time, nor in four times as much")
    if unstable:
        why.append(f"in {unstable:,} it answered differently when it was asked again")
    were = "was" if late + unstable == 1 else "were"
    return f"{late + unstable:,} {were} not judged: {' and '.join(why)}" if why else ""


def _ungrouped(one: ExplorationResult) -> str:
    rest = one.ungrouped
    return f" ({some(rest, 'state')} in none of them)" if rest else ""


def _causes(one: ExplorationResult) -> str:
    there = len(one.findings)
    known = sum(bool(finding.known) for finding in one.findings)
    if known and known == there:
        return f"{there:,} known cause" + ("" if there == 1 else "s")
    return some(there, "cause") + (f", {known:,} of them known" if known else "")


def verdict_lines(results: Results, told: CaseResult | None) -> list[str]:
    """What was explored in a sentence or two, for the head of a report. `told`: of that case how
    many states were checked and rejected has been said."""
    found = [(case, case.exploration) for case in results.cases if case.exploration]
    bad = [(case, one) for case, one in found if one.failing]
    lines = []
    if bad:
        case, worst = max(bad, key=lambda pair: (len(pair[1].findings), pair[1].failing))
        name = among(case, results.cases)
        others = some(len(bad) - 1, "other case has", "other cases have")
        more = f"; {others} states that are rejected, too" if len(bad) > 1 else ""
        if case is told:
            lines.append(f"What the checker rejects has {_causes(worst)}{_ungrouped(worst)}{more}.")
        else:
            lines.append(
                f"The checker rejects {worst.failing:,} of {worst.checked:,} states{name}, "
                f"for {_causes(worst)}{_ungrouped(worst)}{more}."
            )
    if short := [case for case in results.cases if uncovered(case)]:
        where = f" in {some(len(short), 'case')}" if len(results.cases) > 1 else ""
        name = among(short[0], results.cases)
        lines.append(f"Not enough was explored{where}{name}: {UNCOVERED}.")
    accepted = ((case, one) for case, one in found if one.checked and not one.failing)
    fine = [(case, one) for case, one in accepted if not unjudged(one)]
    if fine and [case for case, _ in fine] != [told]:
        checked = sum(one.checked for _, one in fine)
        where = f" in {some(len(fine), 'case')}" if len(results.cases) > 1 else ""
        lines.append(
            f"The checker accepts all {some(checked, 'state')} that were tried{where}, of those "
            "that a cut may leave."
        )
    return lines


_KINDS = {"crash": "the checker crashed", "hang": "the checker did not end"}


def sentences(one: ExplorationResult) -> list[str]:
    """How much was explored and what came of it, as sentences."""
    said = (verdict(one), coverage(one))
    return [f"{headline(one)}.", *(f"{text[0].upper()}{text[1:]}." for text in said)]


def telling_epochs(one: ExplorationResult) -> list[EpochResult]:
    """All, or of very many those in which something was rejected and those covered least."""
    worst = sorted(one.epochs, key=lambda e: (-rejected(e), -e.unseen_share, e.number))
    return sorted(worst[:MOST_EPOCHS], key=lambda e: e.number)


def share_text(epoch: EpochResult) -> str:
    """How much of an epoch was checked."""
    return "under 0.01 %" if epoch.images is None else percent(epoch.checked, epoch.images)


def unseen(epoch: EpochResult) -> str:
    """At most this share of an epoch's images is bad, where nothing was rejected."""
    share = epoch.unseen_share
    if rejected(epoch) or not share:
        return "" if rejected(epoch) else "none"
    return f"{100 * share:.2g} %" if share <= TELLING else "unknown"


def title(finding: FindingResult) -> str:
    """A finding in a few words."""
    parts = [_KINDS.get(finding.kind, ""), finding.outcome]
    return printable(": ".join(part for part in parts if part) or "rejected")


def seen_in(finding: FindingResult) -> str:
    """How often it was seen."""
    minimal = "" if finding.minimal else ", not shrunk to the end"
    known = f"; known: {finding.known}" if finding.known else ""
    seen = f"{some(finding.states, 'state')} in {some(finding.epochs, 'epoch')}"
    return printable(f"{seen}{minimal}{known}")


def replay_command(file: str, folder: str = "") -> str:
    """What to type to see a finding again, without `folder` inside of it."""
    return shlex.join(["crashsim", "replay", f"{folder}/{file}" if folder else file])


def told_findings(case: CaseResult) -> Iterator[tuple[FindingResult, str]]:
    """The findings of a case, each with its file."""
    found = case.exploration.findings if case.exploration else []
    return zip(found, chain(case.findings, repeat("")), strict=False)


def story(finding: FindingResult, number: int, file: str, folder: str) -> list[str]:
    """One finding, and how to see it again; `folder`: the run's, if it is known."""
    lines = [f"Finding {number}: {title(finding)} ({seen_in(finding)})"]
    lines += [f"  {line}" for line in finding.story]
    if file:
        where = "" if folder else ", in the run's folder"
        lines.append(f"{_AGAIN}{where}: {replay_command(file, folder)}")
    return [printable(line) for line in lines]


def lines_of(case: CaseResult, folder: str) -> list[str]:
    """All that is said of a case's exploration on a terminal."""
    one = case.exploration
    if one is None:
        return []
    lines = [f"{printable(case.name)}: explored {headline(one)}"]
    lines += [f"  {verdict(one)}", f"  {coverage(one)}"]
    if uncovered(case):
        lines.append(f"  {UNCOVERED}")
    for number, (finding, file) in enumerate(told_findings(case), start=1):
        lines += [f"  {line}" for line in story(finding, number, file, folder)]
    return lines


def print_explored(results: Results, folder: str) -> None:
    """The explorations of a run."""
    say = Speaker(console_for())
    for case in results.cases:
        for line in lines_of(case, folder):
            # A command is there to be copied.
            say(line, whole=line.startswith(f"  {_AGAIN}"))


def print_outcomes(runs: list[Results]) -> None:
    """Explorations side by side, when there are several."""
    rows = []
    for results in runs:
        for case, one in ((case, case.exploration) for case in results.cases if case.exploration):
            name = f"{results.experiment}: {case.name}"
            rows.append(
                [
                    printable(name if len(results.cases) > 1 else results.experiment),
                    states_text(one.images, one.images_text).rpartition(" ")[0],
                    count(one.checked),
                    count(one.failing),
                    str(len(one.findings)),
                    ", ".join(
                        f"{printable(outcome)} {percent(states, max(1, one.checked))}"
                        for outcome, states in one.outcomes.items()
                    ),
                ]
            )
    if len(rows) < 2:
        return
    headings = ["case", "images", "checked", "rejected", "findings", "outcomes"]
    say = Speaker(console_for())
    say("")
    say.table(headings, [[Text(cell) for cell in row] for row in rows])
