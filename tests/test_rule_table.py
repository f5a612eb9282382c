"""docs/rules.md: each rule with its code and its tests, as the tree has them now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import __main__ as tools
from tools import rule_table
from tools.rule_table import ROOT, TITLES, faults, mentioned, page


def test_every_rule_has_a_module_and_a_test_and_no_other_is_named() -> None:
    assert faults(ROOT) == []


def test_the_page_is_what_the_tree_says_now() -> None:
    assert page() == (ROOT / "docs" / "rules.md").read_text(encoding="utf-8"), "make docs"


def test_rules_are_found_alone_in_lists_and_in_ranges() -> None:
    source = "as Rule H6 says. Rules D1, D2 and P1-P3, G10: so be it. See V1."
    assert mentioned(source) == ["H6", "D1", "D2", "P1", "P2", "P3", "G10"]


def tree(tmp_path: Path, module: str, test: str, model: str = "") -> Path:
    """A tree in which all rules but H6 are right."""
    others = [name for name in TITLES if name != "H6"]
    files = {
        "docs/model.md": f"# Model\n\nH6\n\n## The `flusher` (H6)\n\n{model}\n",
        "crashsim/a.py": f'"""Rules {", ".join(others)}."""\n',
        "crashsim/b.py": module,
        "tests/test_a.py": "".join(f"def test_{name}_is_so(): pass\n" for name in others) + test,
        "tests/test_oracle_a.py": "def test_H6_is_so_in_the_oracle(): pass\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_rule_is_told_with_its_statement_its_code_and_its_tests(tmp_path: Path) -> None:
    root = tree(tmp_path, "# Rule H6", "def test_D1_and_H6_are_so(): pass", "## Else\nof H6, too")
    assert faults(root) == []
    _, _, told = page(root).partition("### H6: ")
    told, _, _ = told.partition("###")
    assert "[The `flusher` (H6)](model.md#the-flusher-h6), [Else](model.md#else)." in told
    assert "Code: [b.py](../crashsim/b.py)." in told
    assert "- `tests/test_a.py::test_D1_and_H6_are_so`" in told and "oracle" not in told


def test_a_rule_that_nothing_names_is_said_not_to_be_modelled(tmp_path: Path) -> None:
    root = tree(tmp_path, "", "")
    assert faults(root) == []
    assert page(root).count("Not modelled yet.") == 1
    assert f"### H6: {TITLES['H6']}\n\nNot modelled yet.\n" in page(root)


@pytest.mark.parametrize(
    ("module", "test", "fault"),
    [
        ("# Rule H6", "", "H6 needs a module and a test"),
        ("", "def test_H6_is_so(): pass", "H6 needs a module and a test"),
        ("# Rule H17", "", "H17 is no rule: crashsim/b.py"),
        ("", "def test_P7_is_so(): pass", "P7 is no rule: tests/test_a.py::test_P7_is_so"),
    ],
)
def test_a_rule_that_the_tree_does_not_bear_out_is_found(
    tmp_path: Path, module: str, test: str, fault: str
) -> None:
    assert faults(tree(tmp_path, module, test)) == [fault]


def test_check_fails_on_a_page_that_is_out_of_date_and_writing_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(rule_table, "ROOT", tmp_path)
    monkeypatch.setattr(tools, "PAGES", {"page.md": lambda: "as it is now\n"})
    assert tools.main(["--check"]) == 1
    assert "page.md is out of date: make docs" in capsys.readouterr().err
    assert tools.main([]) == 0
    assert tools.main(["--check"]) == 0
    assert tools.main(["--help"]) == 2
