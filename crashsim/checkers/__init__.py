"""What a state is held against: a program, a function, or what a workload knows of itself."""

from crashsim.checkers.verdict import (
    Acks,
    Checker,
    Verdict,
    acknowledgements,
    self_test,
)

__all__ = ["Acks", "Checker", "Verdict", "acknowledgements", "self_test"]
