"""Which states a power cut may leave: the space of all of them, and an image that walks it.

    space = Space(history, content, before, device, Rules(host="any-host", atom_bytes=512))
    space.size_bytes, len(space)         bytes of the device, epochs
    space.count() -> StateCount               exact: epochs, choices, images (looks at all contents)
    space.choices() -> Iterator[int]     exact choices of each epoch, at once, contents unseen
    space.epochs(first=0) -> Iterator[Epoch]    in order; space.epoch(n) -> Epoch: one alone

    Epoch: number, first_ns, cut_ns, acks, atoms, choices, images
    Atom:  offset, start, versions, writes, choices, stores, after, newest, before_store(row)

    walker = Walker(space)               its image, at first what the device held before
    walker.view                          the image, read-only
    walker.written() -> set[Range]       where it was written since this was last asked
    walker.enter(epoch)                  any epoch of the space, forward or back
    walker.move_to(choices); walker.restore()
    walker.enumerate_all(first=0, last=None) -> Iterator[int]   numbers of a Gray code; digests
    walker.choices, walker.digest        where it is; equal images have equal digests everywhere

    Rebuilt(history, content, before, device, rules).image(epoch, choices)   the same image, slowly

    gray(number, radices) -> (versions, directions)    the state that enumerate_all numbers so
    power_of_ten(number) -> str

A state is an epoch and `Choices`, the ascending (atom number, version) pairs of the atoms that are
not at version 0; atoms are numbered by their place in `Epoch.atoms`. `Atom.versions[0]` is what is
guaranteed and `versions[newest]` what the guest had stored. The epoch's first `acks`
acknowledgements of the device accompany each of its states. In order of time, choice k (from 1 on)
adds the store in row `stores[k - 1]` of the History and makes the atom's version `after[k - 1]`;
`before_store(row)` is the version in which exactly the stores before `row` have arrived. Rows are
in the order in which the stores began, so a prefix of the run is one row for all atoms.
"""

from crashsim.states.atoms import Atom
from crashsim.states.from_history import Rebuilt
from crashsim.states.numbers import gray, power_of_ten
from crashsim.states.rules import HostKind, Rules
from crashsim.states.space import Epoch, Space, StateCount
from crashsim.states.walker import Choices, Walker

__all__ = [
    "Atom",
    "Choices",
    "Epoch",
    "HostKind",
    "Rebuilt",
    "Rules",
    "Space",
    "StateCount",
    "Walker",
    "gray",
    "power_of_ten",
]
