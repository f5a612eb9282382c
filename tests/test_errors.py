"""Every exception: one tree, one file, one exit code each, and all of them travel."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest

from crashsim import errors
from crashsim.errors import CrashsimError

ROOT = Path(__file__).parents[1]
MADE_OF = {
    errors.ExperimentError: ([errors.Problem("x.yaml", 2, 1, "wrong")],),
    errors.CommandLineError: (["wrong"],),
    errors.TraceError: ("x.log", 12, "truncated"),
    errors.WorkerDied: ("case 1", -9),
}


def tree() -> list[type[CrashsimError]]:
    return [CrashsimError, *CrashsimError.__subclasses__()]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    said = re.findall(r"^[├└─ ]*(\w+)  .*exit (\d)$", errors.__doc__ or "", re.MULTILINE)
    ours = [
        (one.__name__, str(one.exit_code)) for one in tree() if one.__module__ == "crashsim.errors"
    ]
    assert sorted(said) == sorted(ours)
    assert not any(one.__subclasses__() for one in tree()[1:])


def test_none_is_defined_elsewhere() -> None:
    names = {one.__name__ for one in tree()}
    for path in (ROOT / "crashsim").rglob("*.py"):
        if path.name != "errors.py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                bases = node.bases if isinstance(node, ast.ClassDef) else []
                assert not {ast.unparse(base) for base in bases} & names, path


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_each_crosses_the_border_of_a_process(kind: type[CrashsimError]) -> None:
    one = kind(*MADE_OF.get(kind, ("what is wrong",)))
    again = pickle.loads(pickle.dumps(one))
    assert (type(again), str(again), again.exit_code) == (kind, str(one), kind.exit_code)
    assert vars(again) == vars(one) and str(one)
    assert kind.__doc__
