"""The `crashsim` command, and `python -m crashsim`: from the first import to the last flush.

Contract: however it is interrupted it ends without a traceback and with 128 and the signal's
number: 130 for Ctrl-C, 143 for SIGTERM. Until all modules are there nothing is begun, and it ends
at once.
"""

import _signal  # type: ignore[import-not-found]  # `signal` takes longer than all before it
import os
import sys

_INTERRUPTED = 130


def _end_at_once(number: int, _frame: object) -> None:
    os.write(2, b"Interrupted.\n")
    os._exit(128 + number)


for _number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
    if _signal.getsignal(_number) != _signal.SIG_IGN:
        _signal.signal(_number, _end_at_once)


def main() -> int:
    """The exit code; from then on signals are ignored."""
    from crashsim.cli import interrupts

    try:
        try:
            interrupts.guard()
            code = _command()
        finally:
            interrupts.leave()
    except KeyboardInterrupt:
        code = _INTERRUPTED
    return 128 + interrupts.first() if code == _INTERRUPTED and interrupts.first() else code


def _command() -> int:
    from crashsim.cli import dispatch

    try:
        return dispatch.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
