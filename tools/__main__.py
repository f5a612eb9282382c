"""`make docs`: the pages that are made, not written. `python -m tools` writes them; with `--check`
it says with exit code 1 which are not what they would be now."""

from __future__ import annotations

import sys

from crashsim.errors import CrashsimError
from tools import rule_table, what_you_lose

PAGES = {"rules.md": rule_table.page, "what-you-lose.md": what_you_lose.fresh_page}


def main(arguments: list[str]) -> int:
    """0 as it should be, 1 a page is out of date, 2 wrong usage."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m tools [--check]", file=sys.stderr)
        return 2
    stale = 0
    for name, made in PAGES.items():
        file = rule_table.ROOT / "docs" / name
        try:
            text = made()
        except CrashsimError as error:
            print(f"Error: {error}", file=sys.stderr)
            return error.exit_code
        if not arguments:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            print(f"{name} is out of date: make docs", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
