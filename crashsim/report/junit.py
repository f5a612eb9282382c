"""A run as JUnit XML, the form that CI servers show.

Contract: one test case for each expectation of each case, one for a case without expectations, and
one for whether it is safe: that one is skipped, with the reason, where the case is not, as a test
that is known to fail is: whether a loss was expected is said by the expectations. A
failure carries the condition, the actual value and the command that reproduces it; one of findings
their stories, and how each is replayed in the run's folder. A case that
wrote nothing or was not explored as far as asked for, an interrupted run and a run without cases
are errors, never green. No times: the same results give the same bytes.
"""

from __future__ import annotations

from itertools import islice
from xml.etree import ElementTree

from crashsim.printable import printable
from crashsim.report.causes import story, told_findings
from crashsim.report.standing import standing
from crashsim.report.words import NOTHING, UNCOVERED, expectation_line, quantity, uncovered
from crashsim.results import CaseResult, Expectation, Results

_KNOWN = "known_findings"
MOST_FINDINGS = 10  # of a case are told; all are in its results


def junit_xml(results: Results, command: str) -> bytes:
    """The document; `command` is what the user would type to run the experiment again."""
    suite = ElementTree.Element("testsuite", name=printable(results.experiment))
    for case in results.cases:
        _add_case(suite, results, case, command)
    if results.interrupted:
        _error(suite, results.experiment, "every case ran", "the run was interrupted", command)
    if not results.cases:
        _error(suite, results.experiment, "something ran", "no case came to a result", command)
    failures, errors = len(suite.findall(".//failure")), len(suite.findall(".//error"))
    skipped = len(suite.findall(".//skipped"))
    counts = {"tests": len(suite), "failures": failures, "errors": errors, "skipped": skipped}
    root = ElementTree.Element("testsuites", name="crashsim")
    for key, number in counts.items():
        suite.set(key, str(number))
        if key != "skipped":
            root.set(key, str(number))
    root.append(suite)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _test(suite: ElementTree.Element, group: str, name: str) -> ElementTree.Element:
    attributes = {"classname": printable(group), "name": printable(name)}
    return ElementTree.SubElement(suite, "testcase", attributes)


def _error(suite: ElementTree.Element, group: str, name: str, message: str, command: str) -> None:
    test = _test(suite, group, name)
    ElementTree.SubElement(test, "error", message=message).text = _story(message, command)


def _add_case(suite: ElementTree.Element, results: Results, case: CaseResult, command: str) -> None:
    group = f"{results.experiment}.{case.name}"
    if case.writes == 0:
        _error(suite, group, "something was written", NOTHING, command)
    elif not case.expectations:
        _test(suite, group, "ran, nothing expected")
    if uncovered(case):
        _error(suite, group, "the states were checked", UNCOVERED, command)
    safe = _test(suite, group, "safe")
    found = standing(case)
    if not found.safe:
        said = "not safe" if found.safe is False else "not shown to be safe"
        ElementTree.SubElement(safe, "skipped", message=f"{said}: {'; '.join(found.why)}")
    for one in case.exploration.known if case.exploration else ():
        if one.happens:  # as xfail: it is told, and neither green nor red
            test = _test(suite, group, f"known: {one.name}")
            ElementTree.SubElement(test, "skipped", message=printable(f"known: {one.why}"))
    for expectation in case.expectations:
        if expectation.metric == _KNOWN and expectation.holds:
            continue
        test = _test(suite, group, f"{expectation.metric} {expectation.condition}")
        if not expectation.holds:
            _add_failure(test, case, expectation, command)


def _add_failure(
    test: ElementTree.Element, case: CaseResult, expectation: Expectation, command: str
) -> None:
    message = expectation_line(case, expectation)
    unit = f" {expectation.unit}" if expectation.unit else ""
    lines = [
        f"case: {printable(case.name)}",
        f"expected: {expectation.metric} {printable(expectation.condition)}",
        f"actual: {quantity(expectation.actual, expectation.unit)} ({expectation.actual}{unit})",
        f"seed: {case.seed}",
        *_found(case, expectation),
    ]
    failure = ElementTree.SubElement(test, "failure", message=message, type="expectation")
    failure.text = _story("\n".join(lines), command)


def _found(case: CaseResult, expectation: Expectation) -> list[str]:
    """An example of a loss; the stories of findings if it is these that were not expected."""
    if expectation.metric != "findings":
        return [f"example: {printable(example.text)}" for example in case.examples[:1]]
    told = enumerate(islice(told_findings(case), MOST_FINDINGS), start=1)
    return [line for number, (finding, file) in told for line in story(finding, number, file, "")]


def _story(text: str, command: str) -> str:
    return f"\n{text}\nto reproduce: {printable(command)}\n"
