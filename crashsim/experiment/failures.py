"""Which failures are told byte by byte, and when (Rules P1 to P6).

Contract: the failures are those of `crashsim.results.Domain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from crashsim.experiment.block import Block, Clash, Key
from crashsim.experiment.quantities import Duration, NameIn
from crashsim.results import Domain


class HostCrash(Block):
    """What a crash of the host leaves undecided."""

    in_flight: Literal["lost", "kept"] = Key(
        "lost", "Writes submitted to the disk but not completed."
    )
    disk_cache: Literal["kept", "lost"] = Key(
        "kept", "Completed writes in the disk's volatile cache."
    )


class Power(Block):
    """Which cuts are told byte by byte. The loss at every instant is known without any."""

    domains: tuple[Annotated[str, NameIn([*map(str, Domain)])], ...] = Key(
        ("power-cut",), "What fails.", strict=False, min_length=1
    )
    at: tuple[Duration, ...] = Key((), "Cut at these instants.", strict=False)
    random: int = Key(0, "Cut at this many random instants.", ge=0, le=100_000)
    every_durability_event: bool = Key(
        False, "Cut at each instant at which something became durable."
    )
    host_crash: HostCrash = Key(HostCrash(), "What a host crash leaves undecided.")

    def contradictions(self) -> Iterator[Clash]:
        for index, domain in enumerate(self.domains):
            if domain in self.domains[:index]:
                yield Clash(("domains", index), f"{domain} is listed twice")
