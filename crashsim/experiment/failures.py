"""Which failures are told byte by byte, and when (Rules P1 to P6).

Contract: the failures are those of `crashsim.results.Domain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from crashsim.experiment.block import Block, Contradiction
from crashsim.experiment.quantities import Duration, NameIn
from crashsim.results import Domain


class HostCrash(Block):
    """What a crash of the host leaves undecided."""

    in_flight: Literal["lost", "kept"] = Field(
        default="lost", description="Writes submitted to the disk but not completed."
    )
    disk_cache: Literal["kept", "lost"] = Field(
        default="kept", description="Completed writes in the disk's volatile cache."
    )


class Power(Block):
    """Which cuts are told byte by byte. The loss at every instant is known without any."""

    domains: tuple[Annotated[str, NameIn([*map(str, Domain)])], ...] = Field(
        default=("power-cut",), strict=False, min_length=1, description="What fails."
    )
    at: tuple[Duration, ...] = Field(default=(), strict=False, description="Cut at these instants.")
    random: int = Field(
        default=0, ge=0, le=100_000, description="Cut at this many random instants."
    )
    every_durability_event: bool = Field(
        default=False, description="Cut at each instant at which something became durable."
    )
    host_crash: HostCrash = Field(
        default=HostCrash(), description="What a host crash leaves undecided."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        for index, domain in enumerate(self.domains):
            if domain in self.domains[:index]:
                yield Contradiction(("domains", index), f"{domain} is listed twice")
