"""Every report of a run, written into a folder.

Contract: the folder is temporary to its owner, who brings it to the disk and renames it when this
returned: nothing here looks finished before it is. A disk that is full or a folder that cannot be
written is an `OutputError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from crashsim.errors import OutputError
from crashsim.report.html import html_report
from crashsim.report.junit import junit_xml
from crashsim.report.markdown import summary
from crashsim.report.plots import draw
from crashsim.results import Results, to_json


def json_text(results: Results) -> str:
    """The content of `results.json`, also what `--json` prints."""
    # ASCII, so that no standard output can fail to carry it.
    return json.dumps(to_json(results), separators=(",", ":")) + "\n"


def write_reports(results: Results, folder: Path, command: str, plots: bool = True) -> None:
    """`results.json`, `summary.md`, `junit.xml`, `report.html` and, with `plots`, `plots/` into
    `folder`.

    `command` is what the user would type to run it again. OutputError."""
    for name, content in _files(results, command, plots):
        _write(folder / name, content)


def _files(results: Results, command: str, drawn: bool) -> Iterator[tuple[str, bytes]]:
    """The figures first: a plot that cannot be written takes nothing from them."""
    yield "results.json", json_text(results).encode()
    yield "summary.md", summary(results).encode()
    yield "junit.xml", junit_xml(results, command)
    plots = draw(results) if drawn else []
    yield "report.html", html_report(results, plots, command).encode()
    for plot in plots:
        yield f"plots/{plot.name}.svg", plot.svg
        yield f"plots/{plot.name}.png", plot.png


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
