"""What crashsim brings along: the experiment that `crashsim new` writes, and its own experiments,
which run by their names alone.

Contract: `starter()` is YAML that `load` accepts as it stands; keys that are commented out show
what else there is. `file_of` gives the file that a user means: a file that is there wins; a name
without a slash or suffix that is none is looked up among the experiments of the package (of the
checkout, where it is installed from one).
"""

from __future__ import annotations

import difflib
import os
import re
from importlib import resources
from pathlib import Path

from crashsim.errors import ExperimentError, Problem

_PACKAGE = Path(__file__).parents[1]


def starter() -> str:
    """The text of a commented experiment."""
    return (resources.files(__package__) / "starter.yaml").read_text(encoding="utf-8")


def file_of(given: str) -> str:
    """The experiment's file; ExperimentError for a name that neither file nor experiment has."""
    if not re.fullmatch(r"[\w-]+", given) or os.path.isfile(given):
        return given
    folder = _PACKAGE / "experiments"
    if not folder.is_dir():
        folder = _PACKAGE.parent / "experiments"
    known = {path.stem: str(path) for path in sorted(folder.glob("*.yaml"))}
    if given in known:
        return known[given]
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    which = f"did you mean {' or '.join(near)}?" if near else f"those are in {folder}"
    message = f"no such file, and no shipped experiment of this name; {which}"
    raise ExperimentError([Problem(given, 0, 0, message)])
