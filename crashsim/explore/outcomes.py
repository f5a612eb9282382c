"""What a state came to, in a word: how verdicts are counted and told apart.

Contract: the checker's own outcome, where it gives one. Else what it said: of a program the last
line, of a function what its assertion says; lines that only say where, or with which exit code,
count when there is nothing else, and the text of a bare assertion never does. Numbers and addresses
are left out of it, because they vary from state to state.
"""

from __future__ import annotations

import re

from crashsim.checkers import Verdict
from crashsim.checkers.verdict import LONGEST_OUTCOME

_SAYING = ("finding", "crash")  # kinds of verdicts that have a reason of their own
_NUMBER = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+(?:[.,:]\d+)*", re.IGNORECASE)
_EXIT = re.compile(r"exit code \d+|killed by \S+")
_PLACE = re.compile(r"\S+\.py:\d+, \S+")
_BARE = re.compile(r"assert\b")


def outcome_of(verdict: Verdict) -> str:
    """One line, '' when the kind of the verdict says all."""
    if verdict.outcome or verdict.kind not in _SAYING:
        return verdict.outcome
    return normal(said(verdict))[:LONGEST_OUTCOME]


def said(verdict: Verdict) -> str:
    """The line of the message that tells most."""
    lines = [line.strip() for line in verdict.message.splitlines()]
    lines = [line for line in lines if line and not _BARE.match(line)]
    telling = [line for line in lines if not (_EXIT.fullmatch(line) or _PLACE.fullmatch(line))]
    if telling:
        return telling[-1]
    places = [line for line in lines if _PLACE.fullmatch(line)]
    return f"assertion failed at {places[-1]}" if places else next(iter(lines), "")


def normal(text: str) -> str:
    """Without what varies."""
    return _NUMBER.sub("N", text)
