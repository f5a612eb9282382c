"""crashsim: what a power cut takes from a virtual machine's virtio-pmem disk.

    import crashsim

    run = crashsim.run("experiment.yaml")
    run.loss("power-cut").max
    print(run.why(at="12.3s"))

`docs/api.md` has worked examples. The names below are the public ones; they are loaded when they
are first used, so that `import crashsim` is at once.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without loading it
if TYPE_CHECKING:
    from typing import Any

    from crashsim.checkers.spec import Command as Command
    from crashsim.checkers.spec import Files as Files
    from crashsim.checkers.spec import Function as Function
    from crashsim.errors import CrashsimError as CrashsimError
    from crashsim.experiment.model import Experiment as Experiment
    from crashsim.runs.archive import load_run as load_run
    from crashsim.runs.curve import Curve as Curve
    from crashsim.runs.one import Image as Image
    from crashsim.runs.one import Run as Run
    from crashsim.runs.one import run as run
    from crashsim.runs.one import sweep as sweep
    from crashsim.runs.session import Found as Found
    from crashsim.runs.session import FoundState as FoundState

__version__ = "0.1.0"

_PLACES = {
    "Command": "crashsim.checkers.spec",
    "CrashsimError": "crashsim.errors",
    "Curve": "crashsim.runs.curve",
    "Experiment": "crashsim.experiment.model",
    "Files": "crashsim.checkers.spec",
    "Found": "crashsim.runs.session",
    "FoundState": "crashsim.runs.session",
    "Function": "crashsim.checkers.spec",
    "Image": "crashsim.runs.one",
    "Run": "crashsim.runs.one",
    "load_run": "crashsim.runs.archive",
    "run": "crashsim.runs.one",
    "sweep": "crashsim.runs.one",
}
__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'crashsim' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
