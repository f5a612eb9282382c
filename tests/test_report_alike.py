"""Cases that draw the same picture are found, and named by what they share."""

from __future__ import annotations

import numpy as np
import pytest

from crashsim.report.alike import Shape, alike, names_of
from tests import report_fixtures as fixtures


def curve(*values: float, end_ns: int = 1000) -> Shape:
    heights = np.array(values, dtype=np.float64)
    return Shape(end_ns, heights, heights)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (curve(0, 0, 100, 0, 0, 0), True),
        (curve(1, 2, 99, 0, 0, 0), True),
        (curve(0, 100, 0, 0, 0, 0), True),  # one column aside
        (curve(0, 0, 0, 0, 100, 0), False),
        (curve(0, 0, 90, 0, 0, 0), False),
        (curve(0, 0, 100, 0, 0, 5), False),
        (curve(0, 0, 100, 0, 0, 0, end_ns=1600), False),
        (curve(0, 0, 100), False),
    ],
)
def test_curves_within_a_column_and_a_fiftieth_of_each_other_are_alike(
    other: Shape, same: bool
) -> None:
    assert alike([curve(0, 0, 100, 0, 0, 0), other]) == ([[0, 1]] if same else [[0], [1]])


def test_on_a_common_scale_what_is_small_is_alike() -> None:
    small = [curve(1, 1, 1), curve(2, 2, 2), curve(90, 90, 90)]
    assert alike(small, 100) == [[0, 1], [2]]
    assert alike(small) == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("names", "group", "expected"),
    [
        (["a", "b"], [0], "a"),
        (["vmm=qemu", "vmm=crosvm", "vmm=x"], [0, 1], "vmm=qemu / crosvm"),
        (["s=n,d=a", "s=n,d=b", "s=f,d=a"], [0, 1], "n, a / b"),
        (["s=n,d=a", "s=n,d=b", "s=f,d=a"], [2], "f, a"),
        (["s=n,d=a", "s=f,d=b", "s=f,d=a"], [0, 1], "n, a / f, b"),
        (list("abcde"), [0, 1, 2, 3, 4], "all 5 cases"),
        (list("abcdef"), [0, 1, 2, 3, 4], "a / b / c / 2 more"),
        (["a" * 50, "b"], [0], "a" * 20 + "…" + "a" * 19),
    ],
)
def test_a_group_is_named_by_what_its_cases_share(
    names: list[str], group: list[int], expected: str
) -> None:
    cases = [fixtures.case(name) for name in names]
    assert names_of([group], cases, 40) == [expected]
