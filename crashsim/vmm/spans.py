"""Where a setting stands in what the user wrote, and what is wrong there.

Contract: a `Span` is a stretch of a text that the user can find again: a word of a command line, a
line of XML, a monitor command at an instant. A `Objection` names one and says what was expected;
`CommandLineError` carries all of them at once. What is shown is one line of printable characters
whatever the text holds, with a caret below the stretch. `split` reads a pasted command as a shell
does: quotes, backslashes, lines continued by a backslash.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from crashsim.errors import CommandLineError
from crashsim.printable import printable

MOST_MISTAKES = 50
_WIDEST = 88
_BEFORE = 30
_CONTINUED = re.compile(r"\\\r?\n")
_LONGEST_COMMAND = 128 << 10  # Linux starts no program with a longer word


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
class Objection:
    """One thing that is wrong; without a place it concerns the whole."""

    place: Span | None
    message: str

    def __str__(self) -> str:
        if self.place is None:
            return printable(self.message)
        shown = "\n".join(f"    {line}".rstrip() for line in self.place.caret())
        return f"{self.place}: {printable(self.message)}\n{shown}"


class Objections(list[Objection]):
    """What was found wrong so far. Nobody reads more than `MOST_MISTAKES`: with that many the
    search ends, by the CommandLineError that tells them."""

    def append(self, refusal: Objection) -> None:
        super().append(refusal)
        if len(self) >= MOST_MISTAKES:
            more = Objection(None, f"these are the first {len(self)} mistakes; there may be more")
            raise CommandLineError([*self, more])


def split(text: str) -> list[str]:
    """The words of a pasted command."""
    if len(text) > _LONGEST_COMMAND:
        message = f"longer than {_LONGEST_COMMAND >> 10} KiB: no command line"
        raise CommandLineError([Objection(None, message)])
    joined = _CONTINUED.sub("", text)
    try:
        return shlex.split(joined)
    except ValueError as error:
        place = Span("command line", joined.strip(), 1, len(joined.strip()))
        raise CommandLineError(
            [Objection(place, str(error)[:1].lower() + str(error)[1:])]
        ) from None


def word(words: Sequence[str], index: int, behind: int = 0) -> Span:
    """A word of a command line, or what stands in it behind its first characters (`--pmem=`)."""
    text = words[index]
    return Span(f"word {index + 1}", text, behind + 1, len(text) - behind)
