"""Fixtures for the tests of the whole program, and how all tests run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from crashsim.report import write
from tests.cli_support import Program

# No test is about time: a busy machine must not fail one. Nor about luck: the examples are the same
# in each run, but for `make fuzz`. Of a change to the code it is enough to know that it is seen.
settings.register_profile("fuzz", deadline=None)
settings.register_profile("crashsim", deadline=None, derandomize=True, database=None)
settings.register_profile(
    "mutants", settings.get_profile("crashsim"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "crashsim"))

# Nor about the terminal of whoever runs it: pipes are no wider than it.
os.environ.pop("COLUMNS", None)

# In the background a shell has them ignore Ctrl-C, and what they start with them.
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        back = signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        signal.signal(_number, back)


@pytest.fixture(autouse=True, scope="session")
def _no_fsync() -> Iterator[None]:
    """What tests write outlives no power cut, so that none of them waits for a disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test touches what the developer agreed to (`crashsim.explore.trust`)."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def drawn() -> None:
    """The runs of a test that asks for this have their plots."""


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take most of a small run's time: they are tested with the reports."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(write, "draw", lambda results: ())


@pytest.fixture
def program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Program:
    """crashsim in this process."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return Program(tmp_path, capsys)
