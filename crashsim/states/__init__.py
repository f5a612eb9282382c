"""Which states a power cut may leave: the space of all of them, and an image that walks it.

    space = Space(history, content, before, device, Rules(host="any-host", atom_bytes=512))
    walker = Walker(space)               its image, at first what the device held before
    for epoch in space.epochs():         in order; space.epoch(n) is one alone
        walker.enter(epoch)              any epoch, forward or back
        walker.move_to(choices)          walker.view is the image of that state now
    Rebuilt(history, content, before, device, rules).image(epoch, choices)   the same image, slowly

A state is an epoch and `Choices`, the ascending (atom number, version) pairs of the atoms that are
not at version 0; atoms are numbered by their place in `Epoch.atoms`. `Atom.versions[0]` is what is
guaranteed and `versions[newest]` what the guest had stored. The epoch's first `acks`
acknowledgements of the device accompany each of its states. Rows are in the order in which the
stores began, so a prefix of the run is one row for all atoms.
"""

from crashsim.states.atoms import Atom
from crashsim.states.from_history import Rebuilt
from crashsim.states.numbers import power_of_ten
from crashsim.states.rules import HostKind, Rules
from crashsim.states.space import Epoch, Space
from crashsim.states.walker import Choices, Versions, Walker

__all__ = [
    "Atom",
    "Choices",
    "Epoch",
    "HostKind",
    "Rebuilt",
    "Rules",
    "Space",
    "Versions",
    "Walker",
    "power_of_ten",
]
