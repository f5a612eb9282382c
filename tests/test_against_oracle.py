"""The simulator against the independent oracle: the same random worlds, the same everything.

The worlds are the same in every run. `CRASHSIM_EXAMPLES=20000` looks at that many new ones instead.
"""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import HealthCheck, assume, event, given, settings

from crashsim.power.safety import Domain
from tests.against_oracle import (
    comparable,
    differences,
    is_recorded,
    predicted,
    simulate_world,
    simulated,
)
from tests.lost_against_oracle import predicted_loss, simulated_loss
from tests.oracle import OracleWorld, run
from tests.oracle.colliding import colliding
from tests.oracle.tangled import tangled
from tests.oracle.worlds import worlds

MORE = os.environ.get("CRASHSIM_EXAMPLES")
RANDOM_WORLDS = settings(
    max_examples=int(MORE or 100),
    derandomize=MORE is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def agree(drawn: OracleWorld) -> None:
    world = comparable(drawn)
    recorded = is_recorded(world)
    outcome = run(world)
    assume(not tangled(world, outcome))
    assume(outcome.killed_ns is None or outcome.killed_ns > 1)  # else there is nothing to run
    history = simulate_world(world)
    assert differences(simulated(history), predicted(outcome, recorded)) == {}
    for domain in Domain:
        expected = predicted_loss(outcome, domain, recorded)
        found = simulated_loss(history, domain)
        if world.guest.on_sync_error == "rewrite":  # each attempt may be torn, not only the bytes
            found = replace(found, torn=expected.torn)
        assert differences(found, expected) == {}, domain
        for kind in ("holes", "torn", "broken"):
            event(f"{kind}: {bool(getattr(expected, kind))}")


@given(worlds())
@RANDOM_WORLDS
def test_the_simulator_and_the_oracle_agree_on_what_happened_and_on_what_is_lost(
    drawn: OracleWorld,
) -> None:
    agree(drawn)


@given(worlds(new=True))
@RANDOM_WORLDS
def test_they_agree_on_other_monitors_memories_devices_faults_and_reactions_too(
    drawn: OracleWorld,
) -> None:
    agree(drawn)


@given(colliding())
@RANDOM_WORLDS
def test_they_agree_where_two_events_are_made_to_fall_on_one_instant(drawn: OracleWorld) -> None:
    agree(drawn)
