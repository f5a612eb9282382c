"""The examples of docs/api.md run as they stand, and show what the page shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import crashsim

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
CELL = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
# Runs cells in one namespace, as a notebook does; prints what each of them shows.
NOTEBOOK = """
import ast, contextlib, io, json, sys
namespace, shown = {}, []
for cell in json.load(sys.stdin):
    tree = ast.parse(cell)
    last = tree.body[-1]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(tree.body[:-1], []), "cell", "exec"), namespace)
            exec(compile(ast.Interactive([last]), "cell", "single"), namespace)
        else:
            exec(compile(tree, "cell", "exec"), namespace)
    shown.append(out.getvalue())
curve = namespace["curve"]._repr_png_()
print(json.dumps([shown, curve[:8].hex()]))
"""


def cells() -> list[tuple[str, str]]:
    """Each with what stands below it."""
    return CELL.findall(PAGE.read_text(encoding="utf-8"))


def shown(folder: Path) -> tuple[list[str], str]:
    """What the cells show, and how the picture of a curve begins."""
    checker = next(code for code, _ in cells() if "def acknowledged" in code)
    (folder / "checks.py").write_text(checker[: checker.index("\n\n\n")])
    (folder / "experiments").symlink_to(ROOT / "experiments")
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=json.dumps([code for code, _ in cells()]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    texts, picture = json.loads(done.stdout)
    return texts, picture


def test_each_cell_shows_what_stands_below_it(tmp_path: Path) -> None:
    texts, picture = shown(tmp_path)
    assert texts == [below for _, below in cells()]
    assert sum(bool(text) for text in texts) >= 8
    assert bytes.fromhex(picture) == b"\x89PNG\r\n\x1a\n"
    assert (ROOT / "docs" / "api-curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "lost.crashsim-finding").exists()


def test_there_are_five_examples() -> None:
    headings = re.findall(r"^## (\d)\.", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["1", "2", "3", "4", "5"]


def test_every_public_name_is_on_the_page_or_in_the_docstring_of_one_that_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = page + "".join(getattr(crashsim, name).__doc__ or "" for name in crashsim.__all__)
    assert [name for name in crashsim.__all__ if not re.search(rf"\b{name}\b", told)] == []
