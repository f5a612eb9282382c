"""The examples of docs/api.md run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def examples() -> list[str]:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


def test_the_examples_run_one_after_another_and_say_what_the_page_says(tmp_path: Path) -> None:
    found = examples()
    assert len(found) == 5
    checker = re.search(r"def acknowledged.*?return False\n", found[3], flags=re.DOTALL)
    assert checker is not None
    (tmp_path / "checks.py").write_text(checker.group())
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    program = tmp_path / "tour.py"
    program.write_text("\n".join(found))
    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "25600 bytes at worst" in done.stdout
    assert "1000 records acknowledged" in done.stdout
    assert "power-cut at 550ms" in done.stdout
    assert "500 records are on image" in done.stdout
    assert "was lost" in done.stdout and "acknowledgement" in done.stdout
    assert list(tmp_path.glob("*.crashsim-finding"))
