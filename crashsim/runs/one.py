"""One experiment, run: simulated once, and then asked anything.

Contract: a `Run` holds one case of an experiment and its History; every answer is a pure function
of these, worked out when it is asked for and kept. It prints nothing, writes no folder, installs no
signal handler and starts no process (exploring may start some, and ends them). It can be pickled:
its History travels, recordings are read again.
"""

from __future__ import annotations

import json
import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crashsim.engine.history import History
from crashsim.engine.units import exact_duration
from crashsim.errors import UsageError
from crashsim.executor import Job, executor
from crashsim.experiment.loader import Case, load, plan
from crashsim.experiment.model import Experiment
from crashsim.power.losses import Losses
from crashsim.power.safety import Domain, Stage, kept_stage
from crashsim.power.tell import loss_at
from crashsim.replay.build import write_image
from crashsim.replay.image import damaged
from crashsim.replay.survivors import surviving
from crashsim.results import CaseResult
from crashsim.runs.curve import Curve, Instant, instant, of_ramps, of_steps
from crashsim.runs.measure import measure
from crashsim.runs.new_file import new_file
from crashsim.simulate.inputs import Inputs, make_inputs
from crashsim.simulate.stack import simulate

if TYPE_CHECKING:
    from crashsim.checkers.called import Judge
    from crashsim.checkers.spec import Spec
    from crashsim.runs.session import Found
    from crashsim.states import HostKind

Survivors = str | int  # none, all, or a seed
Source = str | Path | Mapping[str, Any] | Experiment


@dataclass(frozen=True, slots=True)
class Image:
    """What a cut leaves of a device: a file of its own at `path`, its bytes in `data` (read-only),
    `stored`: how many of them the run stored. The file is gone when the `with` block ends."""

    path: Path
    data: memoryview
    stored: int


class Run:
    """One case of an experiment. `run(...)` and `load_run(...)` make them."""

    def __init__(
        self,
        case: Case,
        paranoid: bool = False,
        history: History | None = None,
        files: dict[str, str] | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        """`paranoid`: compare all that can be compared. `history`, `inputs` and `files`
        (recordings, path -> SHA-256) are those of a run that was made before."""
        self.case = case
        self.paranoid = paranoid
        self._files = files
        given = {"history": history, "inputs": inputs}
        self.__dict__ |= {name: value for name, value in given.items() if value is not None}

    @property
    def name(self) -> str:
        """The case's name: the experiment's, or what the sweep set."""
        return self.case.name

    @property
    def experiment(self) -> Experiment:
        """What was run, complete."""
        return self.case.experiment

    @cached_property
    def inputs(self) -> Inputs:
        """What the guests do. UsageError when a recording has changed since the run was made."""
        return make_inputs(self.experiment, self._files)

    @cached_property
    def history(self) -> History:
        """Everything that happened. The simulation runs when this is first asked for."""
        return simulate(self.experiment, self.inputs.programs)

    @cached_property
    def figures(self) -> CaseResult:
        """All figures of the case, as `results.json` has them. NothingExplored when the guest wrote
        nothing."""
        return measure(self.case, self.history, self.inputs, self.paranoid)

    @property
    def end_ns(self) -> int:
        """The run covers the instants [0, end_ns)."""
        return self.history.end_ns

    @property
    def acknowledged(self) -> int:
        """Acknowledgements that the guest's programs gave to the world by the end."""
        return int((self.history.ack_t_ns <= self.end_ns).sum())

    def loss(self, domain: str = "power-cut") -> Curve:
        """Bytes that a failure at each instant takes. `domain`: what fails, such as `vmm-kill`."""
        steps = self._losses(self._stage(domain)).at_risk
        return of_steps(f"lost in a {domain}", steps, self.end_ns)

    def uncovered(self, domain: str = "power-cut") -> Curve:
        """Acknowledgements that were given and that a failure at each instant takes."""
        steps = self._losses(self._stage(domain)).uncovered
        name = f"acknowledgements lost in a {domain}"
        return of_steps(name, steps, self.end_ns, "acknowledgements")

    @property
    def recovery_point(self) -> Curve:
        """Age of the oldest write that a power cut at each instant takes, ns."""
        ramps = self._losses(Stage.DURABLE).recovery
        return of_ramps("recovery point", ramps, self.end_ns)

    def why(self, at: Instant, domain: str = "power-cut") -> str:
        """What a failure at one instant takes, and where it was, in words."""
        t_ns = self._inside(at)
        self._stage(domain)  # refuses what is no domain
        options = self.experiment.power.host_crash
        return "\n".join(loss_at(self.history, Domain(domain), options, t_ns))

    @contextmanager
    def image(
        self,
        at: Instant,
        survivors: Survivors = "none",
        domain: str = "power-cut",
        device: str | None = None,
    ) -> Iterator[Image]:
        """The image that a cut at one instant leaves. `survivors`: of what was under way `none`,
        `all`, or a seed. UsageError when the instant is not in the run, or the disk is dead."""
        with tempfile.TemporaryDirectory(prefix="crashsim-") as folder:
            path = Path(folder) / "image"
            stored = self.write_image(path, at, survivors, domain, device)
            with path.open("rb") as file:
                view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            yield Image(path, memoryview(view), stored)  # unmapped when nobody looks at it

    def write_image(
        self,
        path: str | Path,
        at: Instant,
        survivors: Survivors = "none",
        domain: str = "power-cut",
        device: str | None = None,
    ) -> int:
        """The same, as a new file of yours. Returns the bytes of the run that survive on it.
        OutputError when something is there already, or it cannot be written."""
        t_ns, number, stage = self._inside(at), self.device_number(device), self._stage(domain)
        span = self.history.devices[number]
        lost = damaged(self.history, stage, t_ns)
        lost = lost[(lost >= span.first_page) & (lost < span.end_page)]
        if lost.size and t_ns >= self.history.info.dead_ns:
            dead = exact_duration(self.history.info.dead_ns)
            raise UsageError(f"the disk is dead since {dead} (D4): there is no image to write")
        extents = surviving(self.history, stage, t_ns, str(survivors))
        before = self.inputs.before[number]
        with new_file(Path(path)) as working:
            return write_image(working, span, extents, self.inputs.content, before, damaged=lost)

    def explore(
        self,
        check: str | Judge | Spec,
        states: int = 10_000,
        host: HostKind = "any-host",
        atom: int | None = None,
        device: str | None = None,
        workers: int = 1,
        advance: Callable[[int, int], None] | None = None,
    ) -> Found:
        """Check the states that a power cut may leave. `check`: a function, `module:function` or
        `file.py:function`, called with the image and the acknowledgements; or `Files`, or a
        `Command`. It runs in processes of its own. `host`: any that the rules allow, or this one;
        `atom`: what survives or not as one, bytes, by default what the disk never tears;
        `advance(checked, planned)` tells how far it is.
        NothingExplored when there is nothing to check, CheckerError when the checker is of no
        use."""
        from crashsim.checkers.spec import spec_of
        from crashsim.explore.budget import Budget
        from crashsim.runs.session import Found, FoundState, open_session

        session = open_session(self, spec_of(check), host, atom, device)
        found = session.explore(Budget(states), workers, advance)
        return Found(found.result, tuple(FoundState(one, session) for one in found.findings))

    def device_number(self, wanted: str | None) -> int:
        """A device by its name; without one the only one. UsageError when there is none."""
        names = [span.name for span in self.history.devices]
        if wanted is None and len(names) == 1:
            return 0
        if wanted in names:
            return names.index(wanted)
        raise UsageError(f"which device? expected one of {', '.join(names)}, got {wanted}")

    def _inside(self, at: Instant) -> int:
        t_ns = instant(at)
        if not 0 <= t_ns <= self.end_ns:
            end = exact_duration(self.end_ns)
            raise UsageError(f"the run ended at {end}; choose an instant up to then")
        return t_ns

    def _stage(self, domain: str) -> Stage:
        if domain not in list(Domain):
            raise UsageError(f"expected one of {', '.join(Domain)}, got {domain!r}")
        return kept_stage(Domain(domain), self.experiment.power.host_crash)

    def _losses(self, stage: Stage) -> Losses:
        if stage not in self._known_losses:
            self._known_losses[stage] = Losses(self.history, stage)
        return self._known_losses[stage]

    @cached_property
    def _known_losses(self) -> dict[Stage, Losses]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        kept = {"case": self.case, "paranoid": self.paranoid, "_files": self._files}
        if "history" in self.__dict__:
            kept |= {"history": self.history, "_files": self.inputs.files}
        if "figures" in self.__dict__:
            kept["figures"] = self.figures
        return kept

    def __repr__(self) -> str:
        state = "" if "history" in self.__dict__ else ", not simulated yet"
        return f"<Run {self.name}{state}>"


def run(source: Source, seed: int | None = None) -> Run:
    """An experiment, ready to be asked: a file, the content of one as a mapping, or an
    `Experiment`. ExperimentError with every mistake; UsageError when it has a sweep (see
    `sweep`)."""
    cases = sweep(source, seed)
    if len(cases) > 1:
        raise UsageError(f"a sweep of {len(cases)} cases: crashsim.sweep() gives a Run for each")
    return cases[0]


def sweep(source: Source, seed: int | None = None) -> list[Run]:
    """A Run for each case of the experiment, in the order of its sweep; one without a sweep."""
    if isinstance(source, Experiment):
        return [Run(Case(source.name, source, {}))]
    if isinstance(source, Mapping):
        found = plan(json.dumps(source), "experiment", seed=seed)
    else:
        found = load(source, seed=seed)
    return [Run(case) for case in found.cases]


def run_case(case: Case, paranoid: bool = False) -> Run:
    """Simulate one case and measure it."""
    run = Run(case, paranoid)
    _ = run.figures
    return run


def run_cases(
    cases: tuple[Case, ...], workers: int, paranoid: bool, advance: Callable[[int, str], None]
) -> Iterator[Run]:
    """Run all cases, in order; `advance(done, now)` tells how far it is.

    Interrupted, or with a case whose process was killed twice (WorkerDied), it gives what is
    finished before it raises; no process is left."""

    def run(number: int) -> Run:
        return run_case(cases[number], paranoid)

    def waiting(number: int, done: int) -> None:
        advance(done, cases[number].name)

    job = Job(lambda: nullcontext(run), lambda number: cases[number].name, waiting)
    numbers = range(len(cases))
    for _, one in executor(min(workers, len(cases))).run(job, numbers):
        yield one
