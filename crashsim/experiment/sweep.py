"""One document, many cases.

Contract: `expand` gives the cases of a document in the order written: the product's last key varies
fastest, the zip's rows fastest of all. A case's name is made of what is varied in it
(`call=none,profile=hdd`), with as much of each key as tells the keys apart.
`with_case_expectations` adds what `cases:` says about a name. Mistakes are returned, never raised.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field

from crashsim.engine.units import shown
from crashsim.errors import NoSuchPath
from crashsim.experiment.block import Block, Clash, Key
from crashsim.experiment.document import Mistake, Node, child, find, plain, with_value, without

MOST_CASES = 10_000
NULL = "null"
FIXED = ("name", "description", "sweep", "cases", "expect")


@dataclass(frozen=True, slots=True)
class RawCase:
    """A case before it is validated: its document, and what the sweep set, as written."""

    name: str
    tree: Node
    parameters: dict[str, str]


SweepValues = Annotated[
    dict[str, Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]], Field(min_length=1)
]


class Sweep(Block):
    """One case for each combination of values. Keys are dotted paths such as `sync.call`."""

    product: SweepValues | None = Key(None, "Every value with every other.")
    zip: SweepValues | None = Key(
        None, "The first values together, the second together, and so on."
    )

    def contradictions(self) -> Iterator[Clash]:
        if self.product is None and self.zip is None:
            yield Clash((), "expected product or zip, with the values of some keys")
        first = next(iter(self.zip or {}), "")
        for key, values in (self.zip or {}).items():
            if len(values) != len((self.zip or {})[first]):
                yield Clash(
                    ("zip", key),
                    f"{key} has {len(values)} values, {first} has {len((self.zip or {})[first])}: "
                    "zip needs as many of each",
                )


Choice = tuple[str, Node]  # a dotted key and the value it takes


def expand(tree: Node, name: str) -> tuple[list[RawCase], list[Mistake]]:
    """The cases of a document; without a sweep the one case that carries the experiment's name."""
    base = without(tree, ("sweep", "cases"))
    sweep = child(tree, "sweep")
    if sweep is None or sweep.value is None:
        return [RawCase(name, base, {})], []
    columns, rows = _columns(sweep, "product"), _columns(sweep, "zip")
    keys = [*columns, *rows]
    mistakes = _key_mistakes(keys, sweep)
    count = 1
    for values in columns.values():
        count *= len(values)
    count *= max((len(values) for values in rows.values()), default=1)
    if count > MOST_CASES:
        message = f"{count} cases are too many: at most {MOST_CASES}"
        mistakes.append(Mistake(sweep.key, message))
    if mistakes or not keys:
        return [], mistakes
    short = short_names(keys)
    cases: dict[str, RawCase] = {}
    for choices in _combinations(columns, rows):
        case = _case(base, choices, short)
        if isinstance(case, Mistake):
            mistakes.append(case)
        elif case.name in cases:
            last = choices[-1][1]
            mistakes.append(Mistake(last.place, f"two cases are called {shown(case.name)}"))
        else:
            cases[case.name] = case
    return list(cases.values()), list(dict.fromkeys(mistakes))


def _columns(sweep: Node, block: str) -> dict[str, list[Node]]:
    """The keys of a block and their values; what has another form is the validation's to tell."""
    node = child(sweep, block)
    return {
        key: [replace(value, key=below.key) for value in below.entries]
        for key, below in (node.members if node else {}).items()
        if below.entries
    }


def _combinations(
    columns: Mapping[str, Sequence[Node]], rows: Mapping[str, Sequence[Node]]
) -> Iterable[list[Choice]]:
    # Columns of unequal length are refused by the model; here they only must not fail.
    zipped = [list(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=False)]
    for chosen in itertools.product(*columns.values()):
        for row in zipped or [[]]:
            yield [*zip(columns, chosen, strict=True), *row]


def _key_mistakes(keys: Sequence[str], sweep: Node) -> list[Mistake]:
    mistakes = []
    for index, key in enumerate(keys):
        place = next(
            below.key
            for block in ("zip", "product")
            if (below := find(sweep, (block, key))) is not None
        )
        parts = key.split(".")
        if parts[0] in FIXED:
            mistakes.append(Mistake(place, f"{parts[0]} cannot be swept"))
        for other in keys[:index]:
            shorter, longer = sorted((parts, other.split(".")), key=len)
            if longer[: len(shorter)] == shorter:
                mistakes.append(Mistake(place, f"{key} and {other} set the same thing"))
    return mistakes


def _case(base: Node, choices: Sequence[Choice], short: Mapping[str, str]) -> RawCase | Mistake:
    tree = base
    for key, value in choices:
        try:
            tree = with_value(tree, key.split("."), replace(value, by_sweep=True))
        except NoSuchPath as error:
            return Mistake(value.place, f"{key}: {error}")
    parameters = {key: written(value) for key, value in choices}
    # Null says that a key does not apply: it is told only if nothing else is.
    told = {key: text for key, text in parameters.items() if text != NULL} or parameters
    name = ",".join(f"{short[key]}={text}" for key, text in told.items())
    return RawCase(name, tree, parameters)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key's shortest ending that no other key has."""
    result = {}
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            ending = parts[-length:]
            same = [other for other in keys if other.split(".")[-length:] == ending]
            if len(same) == 1:
                break
        result[key] = ".".join(ending)
    return result


def written(node: Node) -> str:
    """A value as it stands in a case's name: `hdd`, `call:fdatasync+every:10 records`."""
    return _written(plain(node))


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(f"{key}:{_written(below)}" for key, below in value.items()) or "{}"
    if isinstance(value, list):
        return "+".join(_written(below) for below in value) or "[]"
    if isinstance(value, str):
        return " ".join(value.split())
    return NULL if value is None else shown(value)


def with_case_expectations(
    cases: Sequence[RawCase], blocks: Node | None
) -> tuple[list[RawCase], list[Mistake]]:
    """The cases with what `cases:` expects of them laid over what the experiment expects."""
    members = blocks.members if blocks else {}
    names = ", ".join(shown(case.name) for case in cases[:4])
    more = f" and {len(cases) - 4} more" if len(cases) > 4 else ""
    mistakes = [
        Mistake(block.key, f"no case matches {shown(pattern)}; the cases are {names}{more}")
        for pattern, block in members.items()
        if not any(_matches(case.name, pattern) for case in cases)
    ]
    return [_expecting(case, members) for case in cases], mistakes


def _matches(name: str, pattern: str) -> bool:
    # A name is its own pattern, whatever brackets its values bring.
    return name == pattern or fnmatchcase(name, pattern)


def _expecting(case: RawCase, blocks: Mapping[str, Node]) -> RawCase:
    tree = case.tree
    own = child(tree, "expect")
    if own is not None and not isinstance(own.value, dict | None):
        return case  # which validation tells
    for pattern, block in blocks.items():
        expect = child(block, "expect") if _matches(case.name, pattern) else None
        for metric, condition in expect.members.items() if expect else ():
            tree = with_value(tree, ("expect", metric), condition)
    return replace(case, tree=tree)
