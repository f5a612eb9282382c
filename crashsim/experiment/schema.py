"""The JSON Schema of experiment files, for editors.

Contract: a file that `load` accepts is valid against it; it describes every key. What only the
loader can judge (values that contradict each other, keys that are missing unless a sweep sets them,
files that do not exist) it lets pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crashsim.experiment.applications import KINDS
from crashsim.experiment.block import Block
from crashsim.experiment.command_lines import readers
from crashsim.experiment.model import Experiment
from crashsim.experiment.profiles import PROFILES

DIALECT = "https://json-schema.org/draft/2020-12/schema"


_COMMAND = {
    "type": "object",
    "properties": {
        "at": {"type": "string", "description": "When, such as 5s."},
        "do": {"type": "string", "description": "object_add ... or device_add ..."},
    },
    "additionalProperties": False,
}
_TIMELINE = {
    "type": "array",
    "items": _COMMAND,
    "description": "Commands of QEMU's monitor: what is plugged in while the guest runs.",
}


def json_schema() -> dict[str, Any]:
    """The schema as a plain document."""
    schema = Experiment.model_json_schema(mode="validation")
    parts = {part.__name__: part for part in blocks(Block)}
    for name, block in [*schema["$defs"].items(), ("Experiment", schema)]:
        _as_written(block, parts[name])
        # The sweep may set what is missing.
        block.pop("required", None)
    for name, field in schema["$defs"]["Disk"]["properties"].items():
        # Their default is the profile's, which a schema cannot say.
        if name in PROFILES["consumer-nvme"] or name == "atom":
            del field["default"]
    schema["$defs"]["Device"]["properties"] |= {
        key: {"type": "string", "description": f"{reader.written}: the device(s) in it."}
        for key, reader in readers().items()
    }
    schema["properties"]["monitor"] = _TIMELINE
    return {"$schema": DIALECT, **_by_kind(schema), "title": "crashsim experiment"}


def blocks(base: type[Block]) -> Iterator[type[Block]]:
    """Every kind of block, those within others, too."""
    for block in base.__subclasses__():
        yield block
        yield from blocks(block)


def _as_written(block: dict[str, Any], part: type[Block]) -> None:
    """Defaults as a file has them, with their units, and no titles that only repeat the key."""
    for name, field in block.get("properties", {}).items():
        field.pop("title", None)
        if "default" in field:
            default = part.model_construct(**{name: part.model_fields[name].default})
            field["default"] = default.model_dump(mode="json", include={name})[name]


def _by_kind(schema: Any) -> Any:
    """Workloads chosen by their kind, so that an editor tells what is wrong with that one only."""
    if isinstance(schema, list):
        return [_by_kind(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "discriminator" not in schema:
        return {key: _by_kind(value) for key, value in schema.items()}
    kinds = schema["discriminator"]["mapping"]
    return {
        "type": "object",
        "properties": {"kind": {"enum": list(KINDS), "description": "What the program does."}},
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": reference},
            }
            for kind, reference in kinds.items()
        ],
    }
