"""The experiment that `crashsim new` writes: small, complete, and every key explained.

Contract: `starter()` is YAML that `load` accepts as it stands. Keys that are commented out show
what else there is.
"""

from __future__ import annotations

from importlib import resources


def starter() -> str:
    """The text of a commented experiment."""
    return (resources.files(__package__) / "starter.yaml").read_text(encoding="utf-8")
