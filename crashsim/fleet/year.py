"""What failures take in a year, from what one failure takes.

Contract: failures are Poisson processes with the rates that are given. Each strikes a host at an
instant of its run that is as likely as any other, each host for itself, also where one cut takes
several. So of the loss X of one failure all moments are exact integrals over the run, and of a year
with `rate` failures that take n hosts each

    mean = rate n E[X]        variance = rate (n Var[X] + n^2 E[X]^2)

The quantiles are of years that are drawn, from counter-based streams: the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, sqrt

import numpy as np
import numpy.typing as npt

from crashsim.engine.streams import I64, Stream

F64 = npt.NDArray[np.float64]
MOST_DRAWS = 20_000_000  # losses drawn for one figure; fewer years are drawn where it takes more


@dataclass(frozen=True, slots=True)
class OneLoss:
    """What a failure takes: `amount[k]` for `ns[k]` ns of the run, int64."""

    amount: I64
    ns: I64

    @property
    def mean(self) -> float:
        return self._integral(self.amount.astype(np.float64))

    @property
    def mean_square(self) -> float:
        return self._integral(self.amount.astype(np.float64) ** 2)

    def _integral(self, values: F64) -> float:
        return float((values * self.ns).sum() / max(1, int(self.ns.sum())))

    def drawn(self, stream: Stream, number: I64) -> F64:
        """The loss of the failures so numbered."""
        ends = np.cumsum(self.ns)
        share = (stream.draws(number) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        instant = np.minimum((share * float(ends[-1])).astype(np.int64), ends[-1] - 1)
        found: F64 = self.amount[np.searchsorted(ends, instant, "right")].astype(np.float64)
        return found


@dataclass(frozen=True, slots=True)
class Failures:
    """`rate` failures a year that take `together` hosts each, and what each takes of a host."""

    rate: float
    together: int
    loss: OneLoss

    @property
    def mean(self) -> float:
        return self.rate * self.together * self.loss.mean

    @property
    def variance(self) -> float:
        mean, n = self.loss.mean, self.together
        return self.rate * (n * (self.loss.mean_square - mean**2) + (n * mean) ** 2)

    def drawn(self, seed: int, name: str, years: int) -> F64:
        """The loss of each of so many years, float64[years]."""
        count = poisson(self.rate, Stream(seed, f"{name}/failures"), years)
        year = np.repeat(np.arange(years), count * self.together)
        losses = self.loss.drawn(Stream(seed, f"{name}/losses"), np.arange(year.size))
        return np.bincount(year, weights=losses, minlength=years).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Yearly:
    """A loss in a year: its mean and deviation, exact; 5 and 95 of 100 years drawn stay below
    `low` and `high`."""

    mean: float
    deviation: float
    low: float
    high: float


def yearly(failures: list[Failures], seed: int, name: str, years: int) -> tuple[Yearly, F64]:
    """What several kinds of failures take together, and the years that were drawn."""
    mean = sum(one.mean for one in failures)
    deviation = sqrt(sum(one.variance for one in failures))
    expected = sum(one.rate * one.together for one in failures)
    if expected:
        years = max(100, min(years, int(MOST_DRAWS / expected)))
    drawn = np.zeros(years)
    for number, one in enumerate(failures):
        drawn = drawn + one.drawn(seed, f"{name}/{number}", years)
    return spread_of(mean, deviation, drawn), drawn


def spread_of(mean: float, deviation: float, drawn: F64) -> Yearly:
    low, high = np.quantile(drawn, [0.05, 0.95], method="inverted_cdf").tolist()
    return Yearly(mean, deviation, low, high)


def poisson(rate: float, stream: Stream, draws: int) -> I64:
    """So many numbers of a Poisson distribution, by inversion."""
    if rate <= 0:
        return np.zeros(draws, dtype=np.int64)
    reach = 10 * sqrt(rate) + 20
    first = max(0, int(rate - reach))
    number = np.arange(first, int(rate + reach) + 1)
    chance = np.exp([k * log(rate) - rate - lgamma(k + 1) for k in number.tolist()])
    below = np.cumsum(chance)
    share = (stream.draws(np.arange(draws)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    found: I64 = first + np.minimum(np.searchsorted(below, share, "right"), number.size - 1)
    return found
