"""The style test: the project keeps its own rules, and each check finds what it is for."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import rule_table, tidy

ROOT = Path(__file__).parents[1]
PLACES = ("crashsim", "benchmarks", "tests", "tools")
PACKAGE = sorted((ROOT / "crashsim").rglob("*.py"))
ALL = sorted(
    [
        *PACKAGE,
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "tools").rglob("*.py"),
    ]
)
# Where a module's distribution has another name; pydantic_core is pinned by pydantic.
DISTRIBUTION = {"ruamel": "ruamel.yaml", "pydantic_core": "pydantic"}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def fail_on(faults: list[str]) -> None:
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


def hold(paths: list[Path], check: Callable[[str], list[str]]) -> None:
    assert paths
    fail_on([f"{path.relative_to(ROOT)}: {fault}" for path in paths for fault in check(read(path))])


def hold_modules(check: Callable[[str, str], list[str]]) -> None:
    assert PACKAGE
    fail_on(
        [
            f"{path.relative_to(ROOT)}: {fault}"
            for path in PACKAGE
            for fault in check(tidy.module_name(path, ROOT), read(path))
        ]
    )


# The project


def test_rooms_import_only_what_the_table_of_the_design_allows() -> None:
    hold_modules(tidy.wrong_imports)


def test_no_arrow_runs_back_up() -> None:
    rooms = list(tidy.ROOMS)
    for place, room in enumerate(rooms):
        assert set(tidy.ROOMS[room]) <= set(rooms[:place]), room


def test_no_line_and_no_file_is_too_long() -> None:
    hold(ALL, tidy.too_long)


def test_every_module_says_what_it_is() -> None:
    hold(ALL, tidy.without_docstring)


def test_only_the_command_line_prints() -> None:
    hold_modules(tidy.prints)


def test_commands_speak_with_control_characters_spelt_out() -> None:
    hold_modules(tidy.echoes)


def test_a_blind_except_gives_its_reason() -> None:
    hold(ALL, tidy.blind_excepts)


def test_input_is_never_checked_by_an_assertion() -> None:
    hold_modules(tidy.assertions)


def test_nothing_in_the_model_differs_from_run_to_run() -> None:
    hold_modules(tidy.unstable)


def test_nothing_in_the_model_takes_its_order_from_a_set() -> None:
    hold_modules(tidy.order_from_sets)


def test_only_declared_packages_are_imported() -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    declared = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]}
    imported = {
        name.split(".")[0] for path in PACKAGE for _, name in tidy.imports(ast.parse(read(path)))
    }
    others = imported - set(sys.stdlib_module_names) - {"crashsim"}
    assert {DISTRIBUTION.get(name, name) for name in others} <= declared


def test_every_rule_stands_in_the_table_with_a_module_and_a_test_that_exist() -> None:
    architecture = ROOT / "ARCHITECTURE.md"
    if not architecture.exists():
        pytest.xfail("ARCHITECTURE.md is not written yet")
    fail_on(rule_table.faults(read(architecture), ROOT))


def test_modules_name_only_rules_that_exist() -> None:
    known = [f"{letter}{n + 1}" for letter, count in rule_table.RULES.items() for n in range(count)]
    named = [rule for path in PACKAGE for rule in rule_table.mentioned(read(path))]
    assert [rule for rule in named if rule not in known] == []
    assert named


# The checks


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("crashsim.guest.vcpu", "from crashsim.device.virtio_pmem import VirtioPmem"),
        ("crashsim.guest.vcpu", "import crashsim.disk.pipe"),
        ("crashsim.guest.vcpu", "def f():\n    from crashsim.pagecache import cache"),
        ("crashsim.guest.vcpu", "from crashsim.pagecache.cache import PageCache"),
        ("crashsim.guest.vcpu", "from crashsim import device"),
        ("crashsim.guest.vcpu", "from .plan import Plan"),
        ("crashsim.engine.clock", "from crashsim.results import Spread"),
        ("crashsim.report.html", "from crashsim.power.losses import Losses"),
        ("crashsim.report.html", "from crashsim.experiment.model import Experiment"),
        ("crashsim.traces.csv", "from crashsim.guest.program import Program"),
        ("crashsim.results", "from crashsim.simulate.stack import simulate"),
        ("crashsim.__init__", "from crashsim.cli.commands import main"),
        ("crashsim.helpers", ""),
    ],
)
def test_an_import_across_rooms_is_found(module: str, source: str) -> None:
    assert len(tidy.wrong_imports(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("crashsim.guest.vcpu", "from crashsim.engine.clock import Clock\nimport numpy as np"),
        ("crashsim.guest.vcpu", "from crashsim.guest.plan import Plan"),
        ("crashsim.guest.vcpu", "from crashsim.errors import TraceError"),
        ("crashsim.guest.policy", "from crashsim.experiment.model import Sync"),
        ("crashsim.report.html", "from crashsim import __version__"),
        ("crashsim.simulate.stack", "from crashsim.guest.vcpu import VCpu"),
    ],
)
def test_an_import_that_the_table_allows_is_no_fault(module: str, source: str) -> None:
    assert tidy.wrong_imports(module, source) == []


def test_long_lines_and_long_files_are_found() -> None:
    assert tidy.too_long("x" * 100) == []
    assert tidy.too_long("\n" + "x" * 101) == ["line 2 has 101 columns"]
    assert tidy.too_long("x\n" * 500) == []
    assert tidy.too_long("x\n" * 501) == ["501 lines"]


def test_a_module_without_docstring_is_found() -> None:
    assert tidy.without_docstring('"""Says what it is."""\n') == []
    for source in ("x = 1\n", '"""  """\n', "# only a comment\n"):
        assert tidy.without_docstring(source) == ["no docstring"]


def test_print_is_found_but_where_the_command_speaks() -> None:
    assert tidy.prints("crashsim.simulate.stack", "def f():\n    print(1)") == ["line 2: print()"]
    assert tidy.prints("crashsim.cli", "print(1)") == []
    assert tidy.prints("crashsim.report.terminal", "print(1)") == []


def test_an_echo_of_clicks_own_is_found() -> None:
    assert len(tidy.echoes("crashsim.cli", "click.echo(1)\nclick.secho(2)\necho(3)")) == 2


@pytest.mark.parametrize("caught", ["", " Exception", " BaseException", " (OSError, Exception)"])
def test_a_blind_except_without_a_reason_is_found(caught: str) -> None:
    source = f"try:\n    f()\nexcept{caught}:{{}}\n    pass\n"
    assert len(tidy.blind_excepts(source.format(""))) == 1
    assert len(tidy.blind_excepts(source.format("  # noqa: BLE001"))) == 1
    assert tidy.blind_excepts(source.format("  # a checker may raise anything")) == []


def test_a_narrow_except_needs_no_reason() -> None:
    assert tidy.blind_excepts("try:\n    f()\nexcept OSError:\n    pass\n") == []


def test_an_assertion_where_input_is_checked_is_found() -> None:
    assert len(tidy.assertions("crashsim.traces.csv", "assert size > 0")) == 1
    assert tidy.assertions("crashsim.engine.clock", "assert size > 0") == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import time",
        "import random",
        "from numpy import random",
        "import numpy.random",
        "np.random.default_rng(1)",
        "from datetime import datetime",
        "hash('a')",
        "id(x)",
        "os.urandom(8)",
    ],
)
def test_what_differs_from_run_to_run_is_found(source: str) -> None:
    assert len(tidy.unstable("crashsim.disk.pipe", source)) == 1
    assert tidy.unstable("crashsim.cli", source) == []


@pytest.mark.parametrize(
    "source",
    [
        "for x in {1, 2}: pass",
        "[x for x in set(pages)]",
        "list(frozenset(pages))",
        "names = {x for x in pages}\nfor name in names: pass",
        "class A:\n    def f(self):\n        self.seen: set[int] = set()\n        list(self.seen)",
        "def f(pages: set[int]):\n    for page in pages: pass",
        "for x in set(a) | b: pass",
        "def f():\n    seen = set()\n    def g():\n        return list(seen)",
        "', '.join({1})",
        "[*{1, 2}]",
    ],
)
def test_an_order_taken_from_a_set_is_found(source: str) -> None:
    assert len(tidy.order_from_sets("crashsim.engine.clock", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "sorted(set(x))",
        "1 in {1, 2}",
        "for x in [1]: pass",
        "def f(seen: set[int]): return 1 in seen\ndef g(seen: list[int]): return list(seen)",
        "seen = {1}\ndef g(seen: list[int]): return list(seen)",
    ],
)
def test_a_set_that_gives_no_order_is_no_fault(source: str) -> None:
    assert tidy.order_from_sets("crashsim.engine.clock", source) == []


def test_rules_are_found_alone_in_lists_and_in_ranges() -> None:
    source = "as Rule H6 says. Rules D1, D2 and P1-P3, G10: so be it. See V1."
    assert rule_table.mentioned(source) == ["H6", "D1", "D2", "P1", "P2", "P3", "G10"]


def table(tmp_path: Path, **changed: str) -> list[str]:
    """The faults of a table that is right but for the rows `changed`."""
    (tmp_path / "a.py").write_text('"""Rules G1-G10, V1-V9, H1-H16, D1-D5 and P1-P5."""\n')
    (tmp_path / "test_a.py").write_text("def test_it(): pass\n")
    every = [f"{letter}{n + 1}" for letter, count in rule_table.RULES.items() for n in range(count)]
    lines = [changed.get(rule, f"| {rule} | a.py | `test_a.py::test_it` |") for rule in every]
    lines[-1] = changed.get("P6", "| P6 | not modelled yet | |")
    return rule_table.faults("\n".join(lines), tmp_path)


def test_a_table_that_the_tree_bears_out_has_no_fault(tmp_path: Path) -> None:
    assert table(tmp_path) == []


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("", "H6 has 0 rows"),
        ("| H6 | gone.py | test_a.py::test_it |", "H6: gone.py does not exist"),
        ("| H6 | test_a.py | test_a.py::test_it |", "H6: test_a.py does not name Rule H6"),
        ("| H6 | a.py | test_b.py::test_it |", "H6: test_b.py does not exist"),
        ("| H6 | a.py | test_a.py::test_gone |", "H6: test_a.py has no test test_gone"),
        ("| H6 | a.py | test_a.py |", "H6: test_a.py has no test (none is named)"),
        ("| H6 | a.py | |", "H6: needs a module and a test"),
        ("| H6 | a.py, gone.py | test_a.py::test_it |", "H6: gone.py does not exist"),
    ],
)
def test_a_row_that_the_tree_does_not_bear_out_is_found(
    tmp_path: Path, row: str, fault: str
) -> None:
    assert table(tmp_path, H6=row) == [fault]


def test_a_rule_that_does_not_exist_is_found(tmp_path: Path) -> None:
    extra = "| H6 | a.py | test_a.py::test_it |\n| H99 | a.py | test_a.py::test_it |"
    assert table(tmp_path, H6=extra) == ["H99 is no rule", "H99: a.py does not name Rule H99"]
