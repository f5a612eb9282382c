"""The table of ARCHITECTURE.md, rule by rule: which module has it, which test shows it.

A row is `| H6 | crashsim/pagecache/flusher.py | tests/test_rules.py::test_H6_... |`; a cell may
name several, with commas between. `not modelled yet` stands in the place of the module otherwise.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

RULES = {"G": 10, "V": 9, "H": 16, "D": 5, "P": 6}
NOT_MODELLED = "not modelled yet"

_ROW = re.compile(r"^\|\s*`?([GVHDP]\d+)`?\s*\|(.*)\|(.*)\|\s*$", re.MULTILINE)
_MENTION = re.compile(r"\bRules?\s+((?:[GVHDP]\d+|[-–,\s]|and\b)+)")
_ONE_OR_RANGE = re.compile(r"([GVHDP])(\d+)(?:\s*[-–]\s*\1(\d+))?")


@dataclass(frozen=True)
class Row:
    rule: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


def rows(document: str) -> list[Row]:
    return [
        Row(rule, _names(modules), _names(tests)) for rule, modules, tests in _ROW.findall(document)
    ]


def _names(cell: str) -> tuple[str, ...]:
    names = (name.strip().strip("`") for name in cell.split(","))
    return tuple(name for name in names if name)


def mentioned(source: str) -> list[str]:
    """The rules that a source names: `Rule H6`, `Rules D1, D2 and P1-P5`."""
    found = []
    for mention in _MENTION.findall(source):
        for letter, first, last in _ONE_OR_RANGE.findall(mention):
            found += [f"{letter}{n}" for n in range(int(first), int(last or first) + 1)]
    return found


def faults(document: str, root: Path) -> list[str]:
    """What the table states and the tree does not bear out."""
    table = rows(document)
    named = [row.rule for row in table]
    every = [f"{letter}{n + 1}" for letter, count in RULES.items() for n in range(count)]
    found = [f"{rule} has {named.count(rule)} rows" for rule in every if named.count(rule) != 1]
    found += [f"{rule} is no rule" for rule in named if rule not in every]
    for row in table:
        if row.modules == (NOT_MODELLED,):
            continue
        found += [f"{row.rule}: {problem}" for problem in _row_faults(row, root)]
    return found


def _row_faults(row: Row, root: Path) -> list[str]:
    found = []
    for name in row.modules:
        module = root / name
        if not module.is_file():
            found.append(f"{name} does not exist")
        elif row.rule not in mentioned(module.read_text(encoding="utf-8")):
            found.append(f"{name} does not name Rule {row.rule}")
    for name in row.tests:
        path, _, test = name.partition("::")
        if not (root / path).is_file():
            found.append(f"{path} does not exist")
        elif test not in _functions((root / path).read_text(encoding="utf-8")):
            found.append(f"{path} has no test {test or '(none is named)'}")
    if not row.modules or not row.tests:
        found.append("needs a module and a test")
    return found


def _functions(source: str) -> list[str]:
    nodes = ast.walk(ast.parse(source))
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
