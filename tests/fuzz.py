"""`make fuzz`: the tests of random inputs, again and again with other examples, for FUZZ_SECONDS
(60) each.

What is no error of the user's, a traceback, a round that takes far too long or too much memory ends
it with exit code 1, with what failed and how to see it again.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from secrets import randbits

FILES = ("tests/test_experiment_fuzz.py", "tests/test_monitor_fuzz.py", "tests/test_files_fuzz.py")
PROFILE = {"HYPOTHESIS_PROFILE": "fuzz"}
ROUND_S = 600  # a round takes some ten seconds; this is a hang, or a very busy machine
MEMORY_BYTES = 4 << 30


def fuzz(file: str, seconds: float) -> bool:
    """Whether all rounds of one file's tests passed."""
    end, rounds = time.monotonic() + seconds, 0
    while rounds == 0 or time.monotonic() < end:
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        words += ["-o", "faulthandler_timeout=120", f"--hypothesis-seed={randbits(32)}", file]
        try:
            done = subprocess.run(
                words,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=ROUND_S,
                env=os.environ | PROFILE,
                preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)
                ),
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            said = late.stdout.decode(errors="replace") if late.stdout else ""
            print(f"{said}\n{' '.join(words)}: not done after {ROUND_S} s")
            return False
        if done.returncode:
            print(f"{done.stdout}\nAgain: HYPOTHESIS_PROFILE=fuzz {' '.join(words)}")
            return False
        rounds += 1
    print(f"{file}: {rounds} rounds passed")
    return True


def main() -> int:
    """Fuzz all files."""
    seconds = float(os.environ.get("FUZZ_SECONDS", "60"))
    passed = [fuzz(file, seconds) for file in FILES]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
