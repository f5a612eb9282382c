"""The command line: its commands, and how each of them ends.

Contract: standard output carries results, standard error progress and messages; no traceback
reaches the user. Exit codes: 0 as expected · 1 an expectation failed, a regression, or a configured
fault that never fired · 2 wrong usage, experiment or trace, or results that cannot be written · 3
an error of crashsim · 4 the time for exploring ran out before the coverage · 5 nothing explored ·
130 interrupted. Modules of commands import what takes time inside, so that `--help` is at once.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from importlib import import_module

import click

from crashsim import __version__
from crashsim.cli import interrupts
from crashsim.cli.output import Commands, open_closed
from crashsim.errors import CrashsimError, NothingExplored
from crashsim.printable import echo

COMMANDS = (
    *("advise", "compare", "doctor", "fleet", "image", "loss"),
    *("new", "replay", "run", "schema", "show"),
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crashsim")
def crashsim() -> None:
    """What a power cut takes from a virtual machine's virtio-pmem disk.

    Begin with:  crashsim new my.yaml  and  crashsim run my.yaml
    """


for _name in COMMANDS:
    crashsim.add_command(getattr(import_module(f"crashsim.cli.{_name}_command"), _name))


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    open_closed()
    if sys.stdout is None:
        return _say("Error: standard output is closed: use >/dev/null to see no results", 2)
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        result = crashsim.main(args=typed, obj=typed, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _say("Interrupted.", 130)
    except click.ClickException as error:
        return _say(_shown(error), 2)
    except CrashsimError as error:
        kind = "Nothing explored" if isinstance(error, NothingExplored) else "Error"
        return _say(f"{kind}: {error}", error.exit_code)
    except MemoryError:
        return _say("Error: not enough memory for this experiment", 3)
    # Anything else is our own fault: say so, and how to show it.
    except Exception as error:  # noqa: BLE001
        if interrupts.first():  # what was interrupted made another error of it
            return _say("Interrupted.", 130)
        if os.environ.get("CRASHSIM_DEBUG"):
            import traceback

            traceback.print_exc()
        kind = type(error).__name__
        return _say(
            f"Internal error ({kind}: {error}). This is a fault of crashsim, not of your files; "
            "with CRASHSIM_DEBUG=1 it shows where.",
            3,
        )


def _shown(error: click.ClickException) -> str:
    text = io.StringIO()
    error.show(text)
    return text.getvalue().rstrip("\n")


def _say(message: str, code: int) -> int:
    with suppress(OSError):  # nobody can be told
        echo(message, err=True)
    return code
