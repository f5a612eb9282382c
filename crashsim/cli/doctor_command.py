"""`crashsim doctor`: settings that lose data, before any simulation."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crashsim.cli import options
from crashsim.cli.output import Printing, printing


@click.command(cls=Printing, context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--pid", type=click.IntRange(1), help="A running monitor instead of a command.")
@click.option("--xml", type=options.FILE, help="libvirt's XML instead of a command.")
@options.as_json
def doctor(words: tuple[str, ...], pid: int | None, xml: Path | None, as_json: bool) -> None:
    """Say which settings of a command line lose data, before any simulation.

    crashsim doctor -- qemu-system-x86_64 ...   (QEMU, cloud-hypervisor, crosvm, Firecracker)
    """
    from crashsim.cli.diagnosis import print_diagnosis
    from crashsim.vmm.examine import examine

    diagnosis = examine(words, pid, xml, Path.cwd())
    with printing():
        print_diagnosis(diagnosis, as_json)
    sys.exit(diagnosis.exit_code)
