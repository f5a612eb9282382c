"""YAML text as a tree in which every value knows where it was written.

Contract: `read` gives a tree of `Node`s and every mistake of the text (syntax, duplicate keys, keys
that are not text, tags, merge keys), with line and column. Scalars are plain Python values: text,
int, bool, None, and Decimal (never float, so that no digit is lost). Nodes are values: `with_value`
returns a new tree. Aliases are followed, but a document that grows beyond `MOST_VALUES` or is
nested deeper than `DEEPEST` is refused while it is read, so that no few lines can fill the memory
or take minutes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from crashsim.engine.units import shown
from crashsim.errors import NoSuchPath

MOST_VALUES = 100_000
DEEPEST = 40
LONGEST_NUMBER = 40

Path = tuple[str | int, ...]
Scalar = str | int | bool | Decimal | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value comes from: a position in a file, counted from 1, or (0) `source` itself."""

    source: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A value, the place it was written at, and the place of its key (its own in lists).

    `by_sweep` marks what a sweep has put there.
    """

    value: Scalar | dict[str, Node] | list[Node]
    place: Place
    key: Place
    by_sweep: bool = False

    @property
    def members(self) -> dict[str, Node]:
        """Of a mapping; of anything else none."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def entries(self) -> list[Node]:
        """Of a list; of anything else none."""
        return self.value if isinstance(self.value, list) else []


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong place in a document."""

    place: Place
    message: str
    # About how keys go together: a sweep that sets one of them may put it right.
    relation: bool = False


_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = ("str", "timestamp", "value")
_TRUE = ("true", "yes", "on", "y")  # the last three in YAML 1.1 only


def read(text: str, source: str) -> tuple[Node | None, list[Mistake]]:
    """The tree of a YAML document, None when it is empty or no YAML, and its mistakes."""
    reader = YAML(typ="rt", pure=True)
    reader.max_depth = DEEPEST
    try:
        with warnings.catch_warnings():
            # Anchors defined twice are legal; ruamel.yaml warns of them on standard error.
            warnings.simplefilter("ignore")
            root = reader.compose(text)
    except MaxDepthExceededError as error:
        mark = error.problem_mark
        place = Place(source, mark.line + 1, mark.column + 1)
        return None, [Mistake(place, f"nested more than {DEEPEST} deep")]
    except YAMLError as error:
        return None, [_syntax_mistake(error, text, source)]
    if root is None:
        return None, [Mistake(Place(source), "expected a mapping of keys to values, got nothing")]
    builder = _Builder(source)
    try:
        node = builder.build(root, None, 0)
    except _TooMuchError:
        return None, builder.mistakes
    return node, builder.mistakes


class _TooMuchError(Exception):
    """What is read is too large, which was told."""


class _Builder:
    """From the YAML library's nodes to ours."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.mistakes: list[Mistake] = []
        self.built = 0

    def build(self, node: Any, key: Place | None, depth: int) -> Node:
        place = self.place(node)
        if key is not None and node.start_mark.index == node.end_mark.index:
            # `host:` with nothing behind it; the library says that its value is at the next token.
            place = key
        self.built += 1
        if self.built > MOST_VALUES or depth > DEEPEST:
            many = f"more than {MOST_VALUES} values (aliases count as often as they are used)"
            deep = f"nested more than {DEEPEST} deep"
            self.mistakes.append(Mistake(place, deep if depth > DEEPEST else many))
            raise _TooMuchError
        value: Scalar | dict[str, Node] | list[Node]
        if isinstance(node, MappingNode):
            value = self.mapping(node, depth)
        elif isinstance(node, SequenceNode):
            value = [self.build(item, None, depth + 1) for item in node.value]
        else:
            value = self.scalar(node)
        return Node(value, place, key or place)

    def place(self, node: Any) -> Place:
        return Place(self.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def mapping(self, node: Any, depth: int) -> dict[str, Node]:
        result: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node)
            built = self.build(value_node, place, depth + 1)
            if not isinstance(key_node, ScalarNode):
                self.mistakes.append(Mistake(place, "expected a key, got a list or a mapping"))
            elif key_node.tag == f"{_TAG}merge":
                message = "merge keys (<<) are not read: write the keys out, or use an alias"
                self.mistakes.append(Mistake(place, message))
            elif key_node.value in result:
                first = result[key_node.value].key
                message = f"duplicate key {shown(key_node.value)}, first in line {first.line}"
                self.mistakes.append(Mistake(place, message))
            else:
                result[key_node.value] = built
        return result

    def scalar(self, node: Any) -> Scalar:
        tag = str(node.tag)
        kind = tag.removeprefix(_TAG)
        text: str = node.value
        if node.style == ">":  # the library marks where it folded lines
            text = text.replace("\a", "")
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            message = "half of a surrogate pair is not a character"
            self.mistakes.append(Mistake(self.place(node), message))
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in _TRUE
        if kind in _NUMBERS:
            number = _NUMBERS[kind](text) if len(text) <= LONGEST_NUMBER else None
            # Of a text, whoever wants a number here will say what it should look like.
            return text if number is None else number
        if kind not in _TEXT_TAGS:
            self.mistakes.append(Mistake(self.place(node), f"tags such as {tag} are not read"))
        return text


def _integer(text: str) -> int | None:
    digits = text.replace("_", "")
    try:
        return int(digits, 10) if digits.lstrip("+-").isdigit() else int(digits, 0)
    except ValueError:
        return None


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text.replace("_", ""))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


_NUMBERS: dict[str, Callable[[str], int | Decimal | None]] = {"int": _integer, "float": _decimal}


def _syntax_mistake(error: YAMLError, text: str, source: str) -> Mistake:
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        message = str(error.problem or error.context)
        if "chomping or indentation indicators" in message:
            message = "quote a value that begins with > or |, such as '>= 1'"
        if mark is not None:
            return Mistake(Place(source, mark.line + 1, mark.column + 1), f"not YAML: {message}")
        return Mistake(Place(source), f"not YAML: {message}")
    position = getattr(error, "position", None)
    character = getattr(error, "character", None)
    if isinstance(position, int):
        code = f"U+{character:04X}" if isinstance(character, int) else shown(character)
        message = f"not YAML: character {code} is not allowed"
        return Mistake(_at(text, position, source), message)
    return Mistake(Place(source), f"not YAML: {str(error).splitlines()[0]}")


def _at(text: str, position: int, source: str) -> Place:
    line_start = text.rfind("\n", 0, position) + 1
    return Place(source, text.count("\n", 0, position) + 1, position - line_start + 1)


def plain(node: Node) -> Any:
    """The tree as dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(below) for key, below in node.value.items()}
    return [plain(one) for one in node.value] if isinstance(node.value, list) else node.value


def child(node: Node, part: str | int) -> Node | None:
    """The node under a key or a list index, if there is one."""
    if isinstance(node.value, list):
        index = int(part) if isinstance(part, int) or part.isdecimal() else -1
        return node.value[index] if 0 <= index < len(node.value) else None
    return node.members.get(part) if isinstance(part, str) else None


def find(node: Node, path: Path) -> Node | None:
    """The node at a path, if there is one."""
    found: Node | None = node
    for part in path:
        found = child(found, part) if found is not None else None
    return found


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every node below, with its path, parents first."""
    yield path, node
    parts: list[tuple[str | int, Node]] = [*node.members.items(), *enumerate(node.entries)]
    for part, below in parts:
        yield from walk(below, (*path, part))


def with_value(node: Node, path: Sequence[str], new: Node) -> Node:
    """The tree with `new` at a dotted path; missing mappings on the way are made, in `new`'s name.

    Raises NoSuchPath when the way leads through a scalar or beyond a list's end.
    """
    if not path:
        return new
    part, rest = path[0], path[1:]
    if node.value is None:
        node = replace(node, value={})
    if isinstance(node.value, dict):
        below = node.value.get(part) or Node({}, new.place, new.key, new.by_sweep)
        return replace(node, value={**node.value, part: with_value(below, rest, new)})
    if isinstance(node.value, list):
        at = child(node, part)
        if at is None:
            raise NoSuchPath(f"{shown(part)} is not an index of a list of {len(node.value)}")
        items = list(node.value)
        items[int(part)] = with_value(at, rest, new)
        return replace(node, value=items)
    raise NoSuchPath(f"{shown(part)} leads into {shown(node.value)}, which has no keys")


def without(node: Node, keys: Sequence[str]) -> Node:
    """A mapping without some of its keys."""
    return replace(node, value={k: v for k, v in node.members.items() if k not in keys})
