"""Whose checkers may run: a saved finding names a program, and anybody may have written it.

Contract: the checker that a finding names is run only if somebody here agreed to it: by the answer
to the question that `agree` asks in a terminal, by `--trust`, or because a run of their own used it
(`crashsim run` of an experiment that names it). Agreement is to these words, in this folder, with
these contents of the files that the words name, and is kept as one file in the user's state folder
(`$XDG_STATE_HOME/crashsim/trusted`, by default below `~/.local/state`); removing that file takes it
back. What such a file imports or starts in its turn is not looked at. crashsim's own rules need no
agreement. docs/security.md says against whom this helps.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from crashsim.checkers.spec import Rule, Spec, words
from crashsim.errors import UsageError
from crashsim.printable import echo, printable


@dataclass(frozen=True, slots=True)
class NamedChecker:
    """A checker that is not crashsim's: which kind, its words, its folder (absolute, no links), and
    the digest of each file that the words name."""

    kind: str
    words: str
    folder: str
    files: dict[str, str]

    @property
    def key(self) -> str:
        text = json.dumps([self.kind, self.words, self.folder, sorted(self.files.items())])
        return hashlib.sha256(text.encode()).hexdigest()

    def shown(self) -> str:
        """Two lines, in which nothing hides."""
        kind = self.kind.replace("_", " ")
        return f"  {kind}: {printable(self.words)}\n  in folder: {printable(self.folder)}"


def named(spec: Spec) -> NamedChecker | None:
    """What is to be agreed to; nothing for a checker of crashsim's own."""
    kind, said = words(spec)
    if isinstance(spec, Rule):
        return None
    folder = _real(str(spec.folder))
    names = [name for name in _files(kind, said) if os.path.isfile(folder / name)]
    return NamedChecker(kind, said, str(folder), {name: _digest(folder / name) for name in names})


def remember(spec: Spec) -> None:
    """Keep that this checker was agreed to. Where nothing can be kept, it is asked for again."""
    one, folder = named(spec), _kept()
    if one is None or folder is None:
        return
    text = json.dumps({one.kind: one.words, "folder": one.folder, "files": one.files}, indent=1)
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / f"{one.key}.json").write_text(text + "\n", encoding="utf-8")


def agree(
    findings: Sequence[tuple[Path, Spec]],
    trust: bool,
    ours: Sequence[Spec] = (),
) -> None:
    """Come back once all checkers of these findings may run: all with `trust`, and those that
    `ours` names. UsageError when one may not."""
    known = {one.key for one in map(named, ours) if one is not None}
    strange: dict[str, tuple[Path, Spec, NamedChecker]] = {}
    for path, spec in findings:
        one = named(spec)
        if one is not None and one.key not in known and not _is_kept(one):
            strange.setdefault(one.key, (path, spec, one))
    if trust or not strange:
        return
    told = "\n".join(
        f"{printable(str(path))} names a checker:\n{one.shown()}"
        for path, _, one in strange.values()
    )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{told}\nIt was not run: nobody here has agreed to it. Read it; then run this in a "
            "terminal and agree, or run it with --trust."
        )
    echo(f"{told}\nIt would run as you, and may do whatever you may.", err=True)
    if not click.confirm("Run it, now and again?", default=False, err=True):
        raise UsageError("nothing was run")
    for _, spec, _ in strange.values():
        remember(spec)


def _files(kind: str, words: str) -> Iterator[str]:
    """What may be the name of a file in the checker's words."""
    if kind == "command":
        with suppress(ValueError):  # no command at all: it will be refused
            yield from shlex.split(words)
        return
    place = words.rpartition(":")[0]
    if place.endswith(".py"):
        yield place
    else:
        path = place.replace(".", "/")
        yield from (f"{path}.py", f"{path}/__init__.py")


def _real(folder: str) -> Path:
    try:
        return Path(os.path.realpath(folder))
    except ValueError:  # a zero byte
        raise UsageError(f"{folder!r} can be no folder of a checker") from None


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return error.strerror or "cannot be read"


def _kept() -> Path | None:
    """The folder of what was agreed to; none where there is no home."""
    given = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(given):
        given = os.path.expanduser("~/.local/state")
    return Path(given) / "crashsim" / "trusted" if os.path.isabs(given) else None


def _is_kept(one: NamedChecker) -> bool:
    """Only what this user wrote counts: a home may be somebody else's (sudo)."""
    folder = _kept()
    try:
        return folder is not None and os.stat(folder / f"{one.key}.json").st_uid == os.geteuid()
    except OSError:
        return False
