"""Text from outside, made so that it does nothing where it is read.

Contract: what comes from a file, a program or another machine passes through `printable` before it
is shown to anybody. What a terminal would act on or hide is spelt out as in Python's strings:
escape and control sequences (colours, titles, the clipboard's OSC 52), characters that turn the
direction of writing, invisible and unassigned ones, halves of pairs. `echo` is how commands speak.
What HTML, XML, Markdown or a workflow's commands take for their own is escaped where these are
written.
"""

from __future__ import annotations

from collections.abc import Iterable

LINES = "\n\t"


def printable(text: str, keep: str = "") -> str:
    """The text with every character that is not printable spelt out, but for those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for a word that resembles a known one, else nothing."""
    import difflib  # for mistakes alone

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def echo(text: str, err: bool = False, nl: bool = True) -> None:
    """Lines on standard output, or on standard error."""
    import click  # checkers that run as commands do not need it

    click.echo(printable(text, keep=LINES), err=err, nl=nl)
