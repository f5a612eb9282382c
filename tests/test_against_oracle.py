"""The simulator against the independent oracle: the same random worlds, the same everything.

The worlds are the same in every run. `CRASHSIM_EXAMPLES=20000` looks at that many new ones instead.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, assume, event, given, settings

from crashsim.power.safety import Domain
DOMAINS = ("program-kill", "guest-crash", "vmm-kill", "host-crash", "power-cut")
from tests.against_oracle import (
    comparable,
    differences,
    is_recorded,
    predicted,
    predicted_loss,
    simulate_world,
    simulated,
    simulated_loss,
    tangled,
)
from tests.oracle import OracleWorld, run
from tests.oracle.worlds import worlds

MORE = os.environ.get("CRASHSIM_EXAMPLES")
RANDOM_WORLDS = settings(
    max_examples=int(MORE or 250),
    derandomize=MORE is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@given(worlds())
@RANDOM_WORLDS
def test_the_simulator_and_the_oracle_agree_on_what_happened_and_on_what_is_lost(
    drawn: OracleWorld,
) -> None:
    world = comparable(drawn)
    recorded = is_recorded(world)
    outcome = run(world)
    assume(not tangled(outcome))
    history = simulate_world(world)
    assert differences(simulated(history), predicted(outcome, recorded)) == {}
    for domain in DOMAINS:
        expected = predicted_loss(outcome, domain, recorded)
        assert differences(simulated_loss(history, domain), expected) == {}, domain
        for kind in ("holes", "torn", "broken"):
            event(f"{kind}: {bool(getattr(expected, kind))}")
