"""The style test: the project keeps its own rules, and each check finds what it is for."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tidy

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
DISTRIBUTION = {
    "google_crc32c": "google-crc32c",
    "pydantic_core": "pydantic",
    "ruamel": "ruamel.yaml",
}


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


def test_no_two_classes_modules_or_rooms_share_a_name() -> None:
    fail_on(tidy.doubled(ROOT))


def test_few_modules_lie_loose_at_the_top() -> None:
    assert len([path for path in PACKAGE if path.parent == ROOT / "crashsim"]) <= 6


def test_names_that_differ_by_an_ending_are_found(tmp_path: Path) -> None:
    for place in ("explore/__init__.py", "exploring.py", "runs/curve.py", "report/curves.py"):
        path = tmp_path / "crashsim" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("class Curve: ...\n" if "curve" in place else "", encoding="utf-8")
    found = tidy.doubled(tmp_path)
    assert [line.split(":")[0] for line in found] == ["Curve", "explor", "curv"]


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


# The checks


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("crashsim.device.virtio_pmem", "from crashsim.guest.vcpu import VCpu"),
        ("crashsim.guest.vcpu", "import crashsim.disk.pipe"),
        ("crashsim.guest.vcpu", "def f():\n    from crashsim.disk import pipe"),
        ("crashsim.pagecache.cache", "from crashsim.guest.vcpu import VCpu"),
        ("crashsim.guest.vcpu", "from crashsim import simulate"),
        ("crashsim.guest.vcpu", "from .plan import Plan"),
        ("crashsim.engine.clock", "from crashsim.results import Spread"),
        ("crashsim.report.html", "from crashsim.power.losses import Losses"),
        ("crashsim.report.html", "from crashsim.experiment.model import Experiment"),
        ("crashsim.traces.csv", "from crashsim.guest.program import Program"),
        ("crashsim.results", "from crashsim.simulate.stack import simulate"),
        ("crashsim.__init__", "from crashsim.cli.dispatch import main"),
        ("crashsim.helpers", ""),
    ],
)
def test_an_import_across_rooms_is_found(module: str, source: str) -> None:
    assert len(tidy.wrong_imports(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("crashsim.guest.vcpu", "from crashsim.engine.clock import Clock\nimport numpy as np"),
        ("crashsim.guest.vcpu", "from crashsim.guest.stretch import Stretch"),
        ("crashsim.guest.vcpu", "from crashsim.errors import TraceError"),
        ("crashsim.guest.synthetic", "from crashsim.experiment.model import Sync"),
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
