"""The base of every block of an experiment: frozen, strict, and naming all its contradictions.

Contract: unknown keys and wrong types are refused field by field. Rules that relate several keys
are `contradictions()`: each gives the path (relative to the block) of the key to blame and a
message, so that a file's reader is sent to the right line. They are collected, never one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

NAME = r"^[a-z0-9][a-z0-9-]*$"


class Clash(NamedTuple):
    """`path` leads from the block to the key that is to blame; empty for the block itself."""

    path: tuple[str | int, ...]
    message: str


def Key(default: Any, description: str, **constraints: Any) -> Any:
    """A key that may be left out."""
    return Field(default=default, description=description, **constraints)


class Block(BaseModel):
    """A block of an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def inapplicable(self) -> frozenset[str]:
        """Keys that mean nothing beside the values of the others."""
        return frozenset()

    def contradictions(self) -> Iterator[Clash]:
        """Rules between the block's keys that do not hold."""
        return iter(())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = list(self.contradictions())
        if found:
            raise PydanticCustomError(
                "contradictions",
                "{text}",
                {"text": "; ".join(item.message for item in found), "found": found},
            )
        return self
