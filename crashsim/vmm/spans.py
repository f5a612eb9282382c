"""Where a setting stands in what the user wrote, and what is wrong there.

Contract: a `Span` is a stretch of a text that the user can find again: a word of a command line, a
line of XML, a monitor command at an instant. A `Refusal` names one and says what was expected;
`CommandLineError` carries all mistakes at once. What is shown is one line of printable characters
whatever the text holds, with a caret below the stretch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from crashsim.errors import CommandLineError
from crashsim.printable import printable

MOST_MISTAKES = 50
_WIDEST = 88
_BEFORE = 30


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for a word that resembles a known one, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True, slots=True)
class Span:
    """`width` characters of `text` from `column` (counted from 1); `where` says which text."""

    where: str
    text: str
    column: int = 1
    width: int = 0

    def __str__(self) -> str:
        return f"{self.where}, column {self.column}"

    def caret(self) -> list[str]:
        """Two lines: the text, cut to fit around the stretch, and a caret below the stretch."""
        column = self.column - 1  # no more is looked at than can be seen of it
        before = printable(self.text[max(0, column - _WIDEST) : column])
        text, start = before + printable(self.text[column : column + _WIDEST]), len(before)
        width = max(1, len(printable(self.text[column : column + min(self.width, _WIDEST)])))
        if len(text) > _WIDEST:
            first = max(0, min(start - _BEFORE, len(text) - _WIDEST))
            text, start = text[first : first + _WIDEST], start - first
        return [text, " " * start + "^" * min(width, max(1, len(text) - start))]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that is wrong; without a place it concerns the whole."""

    place: Span | None
    message: str

    def __str__(self) -> str:
        if self.place is None:
            return printable(self.message)
        shown = "\n".join(f"    {line}".rstrip() for line in self.place.caret())
        return f"{self.place}: {printable(self.message)}\n{shown}"


class Refusals(list[Refusal]):
    """What was found wrong so far. Nobody reads more than `MOST_MISTAKES`: with that many the
    search ends, by the CommandLineError that tells them."""

    def append(self, mistake: Refusal) -> None:
        super().append(mistake)
        if len(self) >= MOST_MISTAKES:
            more = Refusal(None, f"these are the first {len(self)} mistakes; there may be more")
            raise CommandLineError([*self, more])
