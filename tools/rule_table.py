"""`docs/rules.md`: each rule of the model, where it is stated, its code and its tests.

Contract: a module has a rule if its source says `Rule H6` (`Rules D1, D2 and P1-P5`), a test shows
it if its name does (`test_H6_...`), and `docs/model.md` states it under the headings below which it
is named. A rule with neither module nor test is not modelled, and the page says so; one with a
module and no test, or the other way about, is a fault. Tests of the oracle show nothing of ours.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TITLES = {
    "G1": "a flush has no range",
    "G2": "DAX, and the guest's page cache that no flush sees",
    "G3": "nothing but a flush makes a store durable",
    "G4": "device flushes of each call",
    "G5": "a flush persists the stores of everybody",
    "G6": "the guest's journal commits by itself",
    "G7": "generations of the guest's driver",
    "G8": "a full virtqueue",
    "G9": "a failed flush, and the journal that it aborts",
    "G10": "a store lands word by word",
    "V1": "QEMU's flush",
    "V2": "the promise of a flush",
    "V3": "flushes of other monitors",
    "V4": "flushes that succeed and persist nothing",
    "V5": "options of QEMU's memory backends",
    "V6": "a full host",
    "V7": "several devices, and hot-plug",
    "V8": "migration",
    "V9": "other devices, to compare with",
    "H1": "the first store to a clean page",
    "H2": "folios",
    "H3": "writeback of a page",
    "H4": "a page that changes under its own I/O",
    "H5": "order and merging of I/Os",
    "H6": "the flusher, and the age of a file",
    "H7": "background writeback and throttling",
    "H8": "any page may be written early",
    "H9": "writeback makes no FLUSH",
    "H10": "what an fsync covers",
    "H11": "block requests of a sync",
    "H12": "msync",
    "H13": "new extents",
    "H14": "a failed write",
    "H15": "files in memory",
    "H16": "the host's own commits",
    "D1": "FLUSH",
    "D2": "what no FLUSH covered",
    "D3": "the unit that tears",
    "D4": "faults",
    "D5": "service times",
    "P1": "the program is killed",
    "P2": "the guest crashes",
    "P3": "the monitor is killed",
    "P4": "the host crashes",
    "P5": "the power is cut",
    "P6": "copies and snapshots",
}
ROOMS = {"G": "Guest", "V": "Monitor", "H": "Host's page cache", "D": "Disk", "P": "Failures"}

_MENTION = re.compile(r"\bRules?\s+((?:[GVHDP]\d+|[-–,\s]|and\b)+)")
_ONE_OR_RANGE = re.compile(r"([GVHDP])(\d+)(?:\s*[-–]\s*\1(\d+))?")
_IN_NAME = re.compile(r"_([GVHDP]\d+)(?=_)")
_HEAD = """\
# The rules

Made by `make docs` from the modules' text (`Rule H6`), the tests' names (`test_H6_...`) and the
headings of [model.md](model.md), which states the rules exactly. All tests of one:
`pytest -k test_H6`. Those of the oracle, a second program written from the model alone, are in
`tests/test_oracle_*.py`, named alike.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """`stated`: headings of the model; `modules`: files; `tests`: `file::name`."""

    name: str
    stated: tuple[str, ...]
    modules: tuple[str, ...]
    tests: tuple[str, ...]


def mentioned(source: str) -> list[str]:
    """The rules that a source names: `Rule H6`, `Rules D1, D2 and P1-P5`."""
    found = []
    for mention in _MENTION.findall(source):
        for letter, first, last in _ONE_OR_RANGE.findall(mention):
            found += [f"{letter}{n}" for n in range(int(first), int(last or first) + 1)]
    return found


def rules(root: Path) -> list[Rule]:
    """All rules, as the tree below `root` has them."""
    stated, modules, tests = dict[str, list[str]](), dict[str, list[str]](), dict[str, list[str]]()
    for heading, paragraph in _stated(root / "docs" / "model.md"):
        for name in re.findall(r"\b[GVHDP]\d+\b", paragraph):
            stated.setdefault(name, []).append(heading)
    for path in sorted((root / "crashsim").rglob("*.py")):
        for name in mentioned(path.read_text(encoding="utf-8")):
            modules.setdefault(name, []).append(str(path.relative_to(root)))
    for path in sorted((root / "tests").glob("test_*.py")):
        if not path.name.startswith("test_oracle_"):
            for test in _functions(path):
                for name in _IN_NAME.findall(test):
                    tests.setdefault(name, []).append(f"{path.relative_to(root)}::{test}")
    found = {*TITLES, *modules, *tests}
    return [
        Rule(name, *(tuple(dict.fromkeys(of.get(name, ()))) for of in (stated, modules, tests)))
        for name in sorted(found, key=lambda name: ([*ROOMS].index(name[0]), int(name[1:])))
    ]


def _stated(page: Path) -> Iterator[tuple[str, str]]:
    heading = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("##"):
            heading = line.lstrip("# ")
        if heading:
            yield heading, line


def _functions(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef)]


def faults(root: Path) -> list[str]:
    """Rules that do not exist, and those that only a module or only a test has."""
    found = []
    for rule in rules(root):
        if rule.name not in TITLES:
            found.append(f"{rule.name} is no rule: {', '.join([*rule.modules, *rule.tests])}")
        elif bool(rule.modules) != bool(rule.tests):
            found.append(f"{rule.name} needs a module and a test")
    return found


def page(root: Path = ROOT) -> str:
    """The page, in Markdown."""
    text = [_HEAD]
    for letter, room in ROOMS.items():
        text.append(f"## {room}\n")
        text += [_rule(rule) for rule in rules(root) if rule.name.startswith(letter)]
    return "\n".join(text)


def _rule(rule: Rule) -> str:
    lines = [f"### {rule.name}: {TITLES.get(rule.name, '')}\n"]
    if not rule.modules:
        return f"{lines[0]}\nNot modelled yet.\n"
    if rule.stated:
        links = (f"[{heading}](model.md#{_anchor(heading)})" for heading in rule.stated)
        lines.append(f"Stated in {', '.join(links)}.")
    code = (f"[{name.removeprefix('crashsim/')}](../{name})" for name in rule.modules)
    lines += [f"Code: {', '.join(code)}.\n", *(f"- `{test}`" for test in rule.tests), ""]
    return "\n".join(lines)


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
