"""crashsim: what a power cut takes from a virtual machine's virtio-pmem disk.

    import crashsim

    run = crashsim.run("experiment.yaml")
    run.loss("power-cut").max
    print(run.why(at="12.3s"))

`docs/api.md` has worked examples. The names below are the public ones; they are loaded when they
are first used, so that `import crashsim` is at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crashsim.errors import CrashsimError
    from crashsim.experiment.model import Experiment
    from crashsim.runs.curve import Curve
    from crashsim.runs.run import Image, Run, run, sweep

__version__ = "0.1.0"

_PLACES = {
    "CrashsimError": "crashsim.errors",
    "Curve": "crashsim.runs.curve",
    "Experiment": "crashsim.experiment.model",
    "Image": "crashsim.runs.run",
    "Run": "crashsim.runs.run",
    "run": "crashsim.runs.run",
    "sweep": "crashsim.runs.run",
}
__all__ = ["CrashsimError", "Curve", "Experiment", "Image", "Run", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'crashsim' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
