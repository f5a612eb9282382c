"""What is wrong with a document, in words and at the right line.

Contract: `validate` gives an `Experiment`, or every mistake found in the tree: each with the place
of the key or value to blame, what was expected there, and for an unknown key or word the nearest
known one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from crashsim.engine.units import shown
from crashsim.experiment.applications import KINDS
from crashsim.experiment.block import Block, Clash
from crashsim.experiment.document import Mistake, Node, Path, Place, child, plain
from crashsim.experiment.model import Experiment, structure
from crashsim.experiment.quantities import FROM_FILE, any_of
from crashsim.printable import nearest


def validate(tree: Node) -> tuple[Experiment | None, list[Mistake]]:
    """The experiment that a tree describes, or its mistakes in the file's order."""
    raw = plain(tree)
    try:
        return Experiment.model_validate(raw, context=FROM_FILE), []
    except ValidationError as error:
        found = [mistake for entry in error.errors() for mistake in _mistakes(tree, entry)]
    if isinstance(raw, Mapping):
        # These need only the keys' presence, but pydantic comes to them last, or not at all.
        known = {mistake.message for mistake in found}
        found += [_blame(tree, item) for item in structure(raw) if item.message not in known]
    return None, sorted(set(found), key=lambda m: (m.place.line, m.place.column, m.message))


def _blame(tree: Node, contradiction: Clash, below: Path = ()) -> Mistake:
    path = (*below, *contradiction.path)
    return Mistake(_key_place(tree, path), contradiction.message, _is_relation(path))


def _is_relation(path: Path) -> bool:
    return path[:1] not in (("sweep",), ("cases",))


def _mistakes(tree: Node, entry: ErrorDetails) -> Iterator[Mistake]:
    location: Path = entry["loc"]
    kind, context = entry["type"], entry.get("ctx", {})
    if kind == "contradictions":
        for item in context["found"]:
            yield _blame(tree, item, location)
    elif kind == "extra_forbidden":
        name = str(location[-1])
        text = f"unknown key {shown(name)}"
        text += RENAMED.get(location) or nearest(name, known_keys(location[:-1]))
        yield Mistake(_key_place(tree, location), text)
    elif kind in ("missing", "union_tag_not_found"):
        where = _key_place(tree, location)
        yield Mistake(where, _missing(location, kind), _is_relation(location))
    else:
        if kind == "union_tag_invalid":
            location = (*location, "kind")
        yield Mistake(_value_place(tree, location), _expected(entry, context))


def _missing(location: Path, kind: str) -> str:
    if kind == "union_tag_not_found":
        return f"missing key 'kind': one of {', '.join(KINDS)}"
    name = str(location[-1])
    part = part_at(location[:-1])
    field = part.model_fields.get(name) if part is not None else None
    described = f": {field.description}" if field is not None and field.description else ""
    return f"missing key {shown(name)}{described}"


def _expected(entry: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind, got = entry["type"], shown(entry["input"])
    if kind == "refused":
        return str(context["message"])
    if kind == "literal_error":
        words = [word.strip().strip("'") for word in _words(str(context["expected"]))]
        return any_of(words, entry["input"])
    if kind == "union_tag_invalid":
        tag = context["tag"]
        return any_of(KINDS, tag)
    wanted = _WANTED.get(kind)
    if wanted is not None:
        return f"expected {wanted.format_map(context)}, got {got}"
    return entry["msg"][:1].lower() + entry["msg"][1:] + f", got {got}"


# Keys of earlier versions.
RENAMED: dict[Path, str] = {
    ("guest", "dax"): ": write access: dax for dax: true, access: cached for dax: false",
}

# pydantic's error types that an experiment can meet, as the end of "expected ...".
_WANTED = {
    "int_type": "a whole number",
    "int_parsing_size": "a smaller number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "some text",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "lower-case letters, digits and dashes",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "tuple_type": "a list",
    "too_short": "at least one value",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}


def _words(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _steps(tree: Node, location: Path) -> Iterator[Node]:
    """The nodes along a location; pydantic's union tags, which are no keys, are passed over."""
    node = tree
    yield node
    for part in location:
        below = child(node, part)
        if below is not None:
            node = below
            yield node


def _value_place(tree: Node, location: Path) -> Place:
    return list(_steps(tree, location))[-1].place


def _key_place(tree: Node, location: Path) -> Place:
    return list(_steps(tree, location))[-1].key


def known_keys(location: Path) -> list[str]:
    """The keys that the block at a location of pydantic's may have."""
    part = part_at(location)
    return list(part.model_fields) if part is not None else []


def part_at(location: Path) -> type[Block] | None:
    """The model of the block at a location of pydantic's."""
    part: type[Block] | None = Experiment
    for step in location:
        if isinstance(step, int):
            continue
        if step in KINDS and part in KINDS.values():
            part = KINDS[step]
        elif part is not None and step in part.model_fields:
            annotation: Any = part.model_fields[step].annotation
            part = _part_of(annotation)
        # Anything else is a key of a mapping of blocks (`cases:`), whose model is found already.
    return part


@cache
def _part_of(annotation: Any) -> type[Block] | None:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple, dict):
        parts = (_part_of(argument) for argument in get_args(annotation))
        return next((part for part in parts if part is not None), None)
    return None
