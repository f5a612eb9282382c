"""`python -m crashsim`: the same as the `crashsim` command."""

from __future__ import annotations

import sys

from crashsim.cli import main

if __name__ == "__main__":
    sys.exit(main())
