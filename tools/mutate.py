"""`make mutate`: the rules changed a little, one place at a time, and which changes no test sees.

mutmut (`[tool.mutmut]` in pyproject.toml) makes the changes in a copy of the tree, `mutants/`, and
tries each on the tests that run the changed function. All of them take many hours, so a sample is
tried, the same each time for the same code: `python -m tools.mutate NUMBER [PATTERN ...]`, with
patterns of names such as `crashsim.power.*`. Changes that nobody could see are in
docs/mutants.md, with the reason.

Exit codes: 0 every other change is seen · 1 one is not · 2 mutmut did not run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from random import Random

from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import get_mutant_name

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "mutants.md"
SEEN = ("killed", "timeout", "segfault", "suspicious")


def main(number: int, patterns: list[str]) -> int:
    os.chdir(ROOT)
    names = [name for name in all_names() if any(fnmatch(name, one) for one in patterns)]
    sample = sorted(Random(1).sample(names, min(number, len(names))))
    print(f"{len(sample)} of {len(names)} changes", flush=True)
    words = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *sample]
    if subprocess.run(words, env=os.environ | {"HYPOTHESIS_PROFILE": "mutants"}).returncode:
        return 2
    status = statuses()
    unseen = {name: change(name) for name in sample if status[name] not in SEEN}
    known = equivalent()
    left = {name: what for name, what in unseen.items() if (called(name), what) not in known}
    for name, what in left.items():
        print(f"\n{name}: {status[name]}\n    {what}")
    counts = Counter(status[name] for name in sample)
    print("\n" + ", ".join(f"{count} {how}" for how, count in counts.items()))
    print(
        f"{len(unseen) - len(left)} of those not seen are in {DOCUMENT.name}, {len(left)} are left"
    )
    return 1 if left else 0


def all_names() -> list[str]:
    """Of every change, in order."""
    found = []
    for path in walk_mutatable_files():
        made = mutate_file_contents(str(path), path.read_text())
        found += [get_mutant_name(path, name) for name in made.mutant_names]
    return sorted(found)


def statuses() -> dict[str, str]:
    """What became of each change."""
    found: dict[str, str] = {}
    for path in (ROOT / "mutants").rglob("*.py.meta"):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        found |= {name: status_by_exit_code[code] for name, code in codes.items()}
    return found


def change(name: str) -> str:
    """The lines as changed."""
    words = [sys.executable, "-m", "mutmut", "show", name]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return " ".join(re.findall(r"^\+ *([^+ ].*)$", shown, re.M))


def called(name: str) -> str:
    """`crashsim.disk.faults.x_alive__mutmut_7` -> `crashsim.disk.faults.alive`."""
    module, _, function = name.partition("__mutmut_")[0].rpartition(".")
    return f"{module}.{function.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"


def equivalent() -> set[tuple[str, str]]:
    """(function, lines as changed) of the document's table."""
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \|", DOCUMENT.read_text(), re.M)
    return {(function, what.replace(r"\|", "|")) for function, what in rows}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:] or ["*"]))
