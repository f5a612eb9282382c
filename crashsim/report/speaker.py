"""Lines and tables on a stream, as it can carry them.

Contract: a terminal gets tables that fit it, colour unless NO_COLOR is set; a pipe or a file gets
plain aligned columns without boxes, colours or shortened names, no wider than COLUMNS if that is
set. A character that the stream cannot carry is replaced, never a traceback. Text from the user's
files is never taken for markup or for a terminal's control sequences.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crashsim.printable import printable


def console_for(stream: TextIO | None = None) -> Console:
    """A console on `stream` (standard output unless given) that leaves words as they are."""
    stream = stream or sys.stdout
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)


def width_of(console: Console) -> int | None:
    """Columns that lines have to fit; None: as many as they take."""
    asked = os.environ.get("COLUMNS", "")
    return console.width if console.is_terminal or asked.isdecimal() else None


class Speaker:
    """Says lines and tables as the console's stream can carry them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._encoding = getattr(console.file, "encoding", None) or "utf-8"

    def __call__(self, line: str, style: str = "", whole: bool = False) -> None:
        """A line; `whole`: not wrapped whatever the width."""
        text = Text(self._carried(printable(line)), style)
        self._console.print(text, soft_wrap=whole or width_of(self._console) is None)

    def table(self, headings: list[str], rows: list[list[Text]], note: str = "") -> None:
        rows = [[self._carried_text(cell) for cell in row] for row in rows]
        if self._console.is_terminal:
            self._boxed(headings, rows)
        else:
            self._plain(headings, rows)
        if note:
            self(note, "dim")

    def _boxed(self, headings: list[str], rows: list[list[Text]]) -> None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
        names = headings.index("case")
        for index, heading in enumerate(headings):
            if heading == "":
                table.add_column("", no_wrap=True)
            elif index <= names:
                table.add_column(heading, overflow="fold", vertical="bottom")
            else:
                # One word a line: a heading is no wider than its figures.
                words = heading.replace(" ", "\n")
                table.add_column(words, justify="right", no_wrap=True, vertical="bottom")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def _plain(self, headings: list[str], rows: list[list[Text]]) -> None:
        lines = [headings, *([cell.plain for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        names = headings.index("case")
        for line in lines:
            cells = [
                cell.ljust(width) if index <= names else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            self("  ".join(cells).rstrip(), whole=True)

    def _carried_text(self, text: Text) -> Text:
        carried = self._carried(text.plain)
        return text if carried == text.plain else Text(carried, text.style)

    def _carried(self, text: str) -> str:
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            for character, plain in (("µ", "u"), ("✗", "x"), ("✓", "+"), ("…", "...")):
                text = text.replace(character, plain)
            return text.encode(self._encoding, "replace").decode(self._encoding)
        return text
