"""`python -m benchmarks [--quick] [--json FILE]`: measure, print a Markdown table.

Exit codes: 0 measured · 1 crashsim and SimPy disagree, or nothing was compared · 2 wrong usage or
an unwritable file · 3 a measurement broke off · 130 interrupted. No time changes the exit code.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import harness


def main(arguments: list[str] | None = None, side: str = harness.SIDE) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure crashsim.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows only that it runs")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every value here")
    options = parser.parse_args(arguments)
    sizes = harness.QUICK if options.quick else harness.FULL
    try:
        report = harness.run(sizes, side, progress=_say)
    except harness.MeasurementFailed as error:
        _say(f"error: {error}")
        return 3
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    print(harness.markdown(report))
    for problem in report.problems:
        _say(f"error: {problem}")
    if options.json:
        text = json.dumps(harness.document(report), indent=2, ensure_ascii=False)
        try:
            options.json.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            _say(f"error: {error}")
            return 2
    return 1 if report.problems else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
