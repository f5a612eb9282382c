"""The command line: one function a command; heavy imports inside, so that `--help` is at once.

Standard output carries results, standard error progress and messages. Exit codes: 0 as expected · 1
an expectation failed, a regression, or a configured fault that never fired · 2 wrong usage,
experiment or trace, or results that cannot be written · 3 an error of crashsim · 4 the time for
exploring ran out before the coverage · 5 nothing explored · 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crashsim import __version__
from crashsim.cli import interrupts
from crashsim.cli.output import Commands, open_closed, printing, say_on_output
from crashsim.errors import CrashsimError, NothingExplored, OutputError, UnitError, UsageError
from crashsim.printable import echo
from crashsim.results import Domain

if TYPE_CHECKING:
    from crashsim.cli.running import Ran
    from crashsim.experiment.loader import Plan
    from crashsim.results import Results

RUN = click.Path(path_type=Path)
DOMAINS = tuple(map(str, Domain))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crashsim")
def cli() -> None:
    """What a power cut takes from a virtual machine's virtio-pmem disk.

    Begin with:  crashsim new my.yaml  and  crashsim run my.yaml
    """


@cli.command()
@click.argument("experiments", metavar="EXPERIMENT...", nargs=-1, required=True, type=RUN)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one value.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), help="Another seed.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of a table.")
@click.option("--paranoid", is_flag=True, help="Compute every loss and state twice.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one a core.")
@click.option("--output", type=RUN, default=Path("runs"), show_default=True, help="Where runs go.")
@click.option("--findings", type=RUN, help="Replay the saved findings of this folder first.")
@click.option("--trust", is_flag=True, help="Run the checkers of --findings without asking.")
def run(
    experiments: tuple[Path, ...],
    overrides: tuple[str, ...],
    seed: int | None,
    as_json: bool,
    paranoid: bool,
    workers: int | None,
    output: Path,
    findings: Path | None,
    trust: bool,
) -> None:
    """Simulate experiments, find what is lost, and report."""
    from crashsim.cli.running import Options, run_experiment
    from crashsim.experiment.loader import load

    if as_json and len(experiments) > 1:
        raise UsageError("--json prints one document: name one experiment")
    plans = [load(experiment, overrides, seed) for experiment in experiments]
    exit_code = 0 if findings is None else _replay_all(findings, trust, plans)
    options = Options(workers or os.cpu_count() or 1, paranoid, output, _command())
    done: list[Ran] = []
    for plan in plans:
        ran = run_experiment(plan, options)
        _print(ran.results, ran.folder, as_json, options.command, ran.file)
        done.append(ran)
        if ran.ended_early:
            sys.exit(ran.exit_code)
    if not as_json:
        _print_truth(done)
    codes = [exit_code, *(ran.exit_code for ran in done)]
    sys.exit(1 if 1 in codes else max(codes))  # what was found counts more than what was not seen


def _print_truth(done: list[Ran]) -> None:
    """Several explorations side by side: what came of the states of each."""
    from crashsim.report.causes import print_outcomes

    with printing():
        print_outcomes([ran.results for ran in done])


def _replay_all(folder: Path, trust: bool, plans: list[Plan]) -> int:
    """1 if a saved finding still fails. What these experiments name anyhow needs no agreement."""
    from crashsim.explore.session import read_finding
    from crashsim.explore.trust import agree
    from crashsim.runs.exploring import named_checker, replay_file, saved_files

    files = [read_finding(path) for path in saved_files(folder)]
    if not files:
        echo(f"{folder}: no saved findings yet, so none to replay", err=True)
    cases = [(case.experiment.explore, plan.file) for plan in plans for case in plan.cases]
    ours = [named_checker(wanted, file) for wanted, file in cases if wanted is not None]
    agree([(file.path, file.spec) for file in files], trust, ours)
    failing = 0
    for file in files:
        again = replay_file(file)
        fails = again.verdict.kind != "ok"
        failing += fails
        said = again.verdict.outcome or again.verdict.message or again.verdict.kind
        echo(f"{file.path}: {'still fails: ' + said if fails else 'ok now'}", err=True)
        if fails:
            for line in file.saved.story:
                echo(f"  {line}", err=True)
    return 1 if failing else 0


@cli.command()
@click.argument("file", metavar="FINDING", type=RUN)
@click.option("--image", "output", type=RUN, help="Write the state's image to a new file.")
@click.option("--mount", is_flag=True, help="A shell in the files of the image's file system.")
@click.option("--trust", is_flag=True, help="Run the checker that the file names without asking.")
def replay(file: Path, output: Path | None, mount: bool, trust: bool) -> None:
    """Rebuild the state of a saved finding and run its checker again.

    Exit code 1 if it still fails, 0 if it is fine now. A checker that nobody here has agreed to is
    shown and asked about first. With --image or --mount no checker runs.
    """
    from crashsim.engine.units import format_bytes
    from crashsim.explore.session import read_finding
    from crashsim.explore.trust import agree
    from crashsim.runs.exploring import image_of, look_into, replay_file

    if output is not None and mount:
        raise UsageError("either --image or --mount, not both")
    if output is not None:
        size = format_bytes(image_of(file, output))
        say_on_output(f"{output}: the image of {file}, {size}; its checker was not run")
        return
    if mount:
        told = look_into(file, _shell)
        if told:
            echo(told, err=True)
        return
    one = read_finding(file)
    agree([(file, one.spec)], trust)
    again = replay_file(one)
    expected = f"expected: {again.expected.kind} {again.expected.outcome}".rstrip()
    lines = [*one.saved.story, expected]
    lines.append(f"found:    {again.verdict.kind} {again.verdict.outcome}".rstrip())
    if again.verdict.message and again.verdict.kind != "ok":
        lines.append(again.verdict.message)
    say_on_output("\n".join(lines))
    sys.exit(0 if again.verdict.kind == "ok" else 1)


def _shell(folder: Path) -> None:
    shell = os.environ.get("SHELL", "/bin/sh")
    echo(f"{folder}: the files after recovery; leave the shell to end", err=True)
    subprocess.run([shell], cwd=folder, check=False)


def _print(results: Results, final: Path, as_json: bool, command: str, file: str) -> None:
    from crashsim.report.causes import print_explored
    from crashsim.report.github import append_step_summary, error_annotations
    from crashsim.report.markdown import summary
    from crashsim.report.terminal import print_results
    from crashsim.report.words import expectation_line, failed
    from crashsim.report.write import json_text

    annotate = os.environ.get("GITHUB_ACTIONS") == "true"
    if annotate:
        append_step_summary(summary(results), os.environ)
    with printing():
        if as_json:
            echo(json_text(results), nl=False)
            for case in results.cases:
                lines = [expectation_line(case, wrong) for wrong in failed(case)]
                for text in [*lines, *case.notices]:
                    echo(f"{case.name}: {text}", err=True)
        else:
            print_results(results)
            print_explored(results, str(final))
        if annotate:
            for line in error_annotations(results, file, _metric_lines(file)):
                echo(line, err=as_json)
        if not as_json:
            if any(not e.holds for case in results.cases for e in case.expectations):
                echo(f"Again: {command}")
            echo(f"Report: {final / 'report.html'}")


def _metric_lines(file: str) -> dict[str, int]:
    """Line of the first mention of each metric, and of what is explored, for annotations."""
    from crashsim.experiment.expect import METRICS

    found: dict[str, int] = {}
    for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), start=1):
        key = line.strip().partition(":")[0]
        if key in (*METRICS, "explore"):
            found.setdefault(key, number)
    return found


def _command() -> str:
    """What the user typed."""
    return shlex.join(["crashsim", *click.get_current_context().obj])


def _instant(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    from crashsim.engine.units import parse_duration

    try:
        return parse_duration(value)
    except UnitError as error:
        raise click.BadParameter(str(error)) from None


def _survivors(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value not in ("none", "all") and not (value.isdecimal() and int(value) < 1 << 64):
        raise click.BadParameter(f"expected none, all or a seed (a number), got {value!r}")
    return value


@cli.command()
@click.argument("folder", metavar="RUN", type=RUN)
@click.option("--at", "at_ns", required=True, callback=_instant, help="Instant, such as 12.3s.")
@click.option("--domain", type=click.Choice(DOMAINS), default="power-cut", show_default=True)
@click.option("-o", "--output", type=RUN, required=True, help="The new file.")
@click.option(
    "--survivors",
    default="none",
    show_default=True,
    callback=_survivors,
    help="Of what was under way: none, all, or a seed.",
)
@click.option("--case", "case_name", help="Which case, if the run has several.")
@click.option("--device", help="Which device, if there are several.")
def image(
    folder: Path,
    at_ns: int,
    domain: str,
    output: Path,
    survivors: str,
    case_name: str | None,
    device: str | None,
) -> None:
    """Write the image of a device that a cut leaves.

    It holds what is certain to survive, or with --survivors some of what was still in flight or in
    the disk's cache.
    """
    from crashsim.engine.units import format_bytes
    from crashsim.runs.archive import load_run

    run = load_run(folder, case_name)
    if output.exists():
        raise OutputError(f"{output}: exists already; nothing was written")
    working = output.with_name(f".{output.name}.unfinished-{os.getpid()}")
    try:
        stored = run.write_image(working, at_ns, survivors, domain, device)
        os.link(working, output)  # unlike a rename, never over a file that is there
    except FileExistsError:
        raise OutputError(f"{output}: exists already; nothing was written") from None
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from None
    except OutputError as error:
        raise OutputError(str(error).replace(str(working), str(output))) from None
    finally:
        working.unlink(missing_ok=True)
    say_on_output(f"{output}: {format_bytes(stored)} of the run survive on it.")


@cli.command()
@click.argument("folder", metavar="RUN", type=RUN)
@click.option("--at", "at_ns", required=True, callback=_instant, help="Instant, such as 12.3s.")
@click.option("--domain", type=click.Choice(DOMAINS), default="power-cut", show_default=True)
@click.option("--case", "case_name", help="Which case, if the run has several.")
def loss(folder: Path, at_ns: int, domain: str, case_name: str | None) -> None:
    """Tell in words what a cut at one instant takes."""
    from crashsim.runs.archive import load_run

    say_on_output(load_run(folder, case_name).why(at_ns, domain))


@cli.command()
@click.argument("old", type=RUN)
@click.argument("new", type=RUN)
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="METRIC=AMOUNT",
    help="What is no regression, such as at_risk_p99=5% or recovery_point_max=100ms.",
)
def compare(old: Path, new: Path, tolerances: tuple[str, ...]) -> None:
    """Compare two runs (folders or results.json files); exit 1 if the new one is worse."""
    from crashsim.report import compare as comparing
    from crashsim.report.github import append_step_summary
    from crashsim.report.markdown import comparison_summary
    from crashsim.report.readback import read_document
    from crashsim.report.terminal import print_comparison

    documents = [
        read_document(path / "results.json" if path.is_dir() else path) for path in (old, new)
    ]
    found = comparing.compare(
        documents[0], documents[1], comparing.parse_tolerances(list(tolerances))
    )
    append_step_summary(comparison_summary(found), os.environ)
    with printing():
        print_comparison(found)
    sys.exit(1 if found.regressed else 0)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--pid", type=click.IntRange(1), help="A running monitor instead of a command.")
@click.option("--xml", type=RUN, help="libvirt's XML instead of a command.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(words: tuple[str, ...], pid: int | None, xml: Path | None, as_json: bool) -> None:
    """Say which settings of a command line lose data, before any simulation.

    crashsim doctor -- qemu-system-x86_64 ...   (QEMU, cloud-hypervisor, crosvm, Firecracker)
    """
    from crashsim.cli.diagnosis import print_diagnosis
    from crashsim.vmm.doctor import examine

    diagnosis = examine(words, pid, xml, Path.cwd())
    with printing():
        print_diagnosis(diagnosis, as_json)
    sys.exit(diagnosis.exit_code)


@cli.command()
@click.argument("experiment", type=RUN)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one value.")
@click.option("--case", "case_name", help="Which case; default: all of them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def advise(
    experiment: Path, overrides: tuple[str, ...], case_name: str | None, as_json: bool
) -> None:
    """Say the cheapest change that ends a loss, and what shows it.

    Every change that is named was run, and explored where the experiment explores. Exit code 1 if
    something is lost and nothing that was tried ends it.
    """
    from crashsim.advise.changes import Typed
    from crashsim.advise.search import advise as advised
    from crashsim.advise.sentences import lines, to_json
    from crashsim.experiment.loader import load

    plan = load(experiment, overrides, None)
    cases = [case for case in plan.cases if case_name in (None, case.name)]
    if not cases:
        raise UsageError(f"no case {case_name!r}: {', '.join(case.name for case in plan.cases)}")
    typed = Typed(str(experiment), overrides)
    found = {}
    for case in cases:
        one = found[case.name] = advised(case, typed, os.cpu_count() or 1)
        if not as_json:
            say_on_output("\n".join(lines(case.name, one)))
    if as_json:
        say_on_output(json.dumps({name: to_json(one) for name, one in found.items()}, indent=2))
    codes = [one.exit_code for one in found.values()]
    sys.exit(1 if 1 in codes else max(codes))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors."""
    from crashsim.experiment.schema import json_schema

    say_on_output(json.dumps(json_schema(), indent=2))


@cli.command()
@click.argument("file", type=RUN, required=False)
def new(file: Path | None) -> None:
    """Write a commented experiment to begin with (to standard output without FILE)."""
    from crashsim.experiment.shipped import starter

    text = starter()
    if file is None:
        say_on_output(text.rstrip("\n"))
        return
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise OutputError(f"{file}: exists already; nothing was written") from None
    except OSError as error:
        raise OutputError(f"{file}: cannot be written: {error.strerror or error}") from None
    say_on_output(f"{file}: written. Now: crashsim run {shlex.quote(str(file))}")


@cli.command()
@click.argument("experiment", type=RUN)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one value.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), help="Another seed.")
def show(experiment: Path, overrides: tuple[str, ...], seed: int | None) -> None:
    """Print the effective configuration and where each value came from."""
    from crashsim.experiment.loader import load
    from crashsim.experiment.show import show as shown

    say_on_output(shown(load(experiment, overrides, seed)).rstrip("\n"))


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code. No traceback ever reaches the user."""
    open_closed()
    if sys.stdout is None:
        return _say("Error: standard output is closed: use >/dev/null to see no results", 2)
    try:
        typed = sys.argv[1:] if arguments is None else arguments
        result: Any = cli.main(args=typed, obj=typed, standalone_mode=False)
        return int(result) if isinstance(result, int) else 0
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
