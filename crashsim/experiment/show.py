"""The effective configuration, and where each value came from.

Contract: `show` gives YAML, one document for each case, that `load` accepts and that gives the same
experiment again. Behind every value stands its origin: file and line, `--set`, `--seed`, the sweep,
the disk's profile, or `default`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from crashsim.experiment.block import Block
from crashsim.experiment.document import Node, Path, child
from crashsim.experiment.expect import Expect
from crashsim.experiment.loader import Case, Plan
from crashsim.experiment.profiles import PROFILES

COMMENT_COLUMN = 44
BLOCKS = ("device", "devices", "workload", "sync", "early_writeback")


class _Representer(RoundTripRepresenter):
    """Says `null`, which a reader sees, where the library leaves a blank."""


_Representer.add_representer(
    type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
)


def show(plan: Plan) -> str:
    """The plan as YAML with a comment for each value."""
    texts = []
    for number, case in enumerate(plan.cases, 1):
        heading = f"# {plan.file}"
        if len(plan.cases) > 1:
            heading += f", case {number} of {len(plan.cases)}: {case.name}"
        texts.append(f"{heading}\n{_document(case)}")
    return "---\n".join(texts)


def _document(case: Case) -> str:
    yaml = YAML(typ="rt", pure=True)
    yaml.Representer = _Representer
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(_block(case.experiment, case, ()), stream)
    return stream.getvalue()


def _block(part: Block, case: Case, path: Path) -> CommentedMap:
    block = CommentedMap()
    for name, value in _entries(part):
        below = (*path, name)
        if isinstance(value, Block):
            block[name] = _block(value, case, below)
        elif isinstance(value, tuple) and value and isinstance(value[0], Block):
            items = [_block(item, case, (*below, i)) for i, item in enumerate(value)]
            block[name] = CommentedSeq(items)
        else:
            block[name] = _scalar(part, name)
            block.yaml_add_eol_comment(_origin(case, below), name, column=COMMENT_COLUMN)
    return block


def _entries(part: Block) -> Iterator[tuple[str, Any]]:
    """What is worth showing: neither keys that do not apply nor blocks that are not there."""
    hidden = part.inapplicable()
    for name, value in sorted(part, key=lambda entry: entry[0] != "kind"):
        absent = value is None and (name in BLOCKS or isinstance(part, Expect))
        empty = name in ("sweep", "cases") or (isinstance(value, Block) and not _shown(value))
        if name not in hidden and not absent and not empty:
            yield name, value


def _shown(part: Block) -> bool:
    return next(_entries(part), None) is not None


def _scalar(part: Block, name: str) -> Any:
    value = part.model_dump(mode="json", include={name})[name]
    if isinstance(value, list):
        items = CommentedSeq(value)
        items.fa.set_flow_style()
        return items
    return value


def _origin(case: Case, path: Path) -> str:
    node: Node | None = case.tree
    last = case.tree
    for part in path:
        node = child(last, part)
        if node is None:
            break
        last = node
    if node is None and (isinstance(last.value, dict) or last is case.tree):
        profile = case.experiment.disk.profile
        return (
            f"profile {profile}"
            if path[0] == "disk" and path[-1] in PROFILES[profile]
            else "default"
        )
    where = os.path.basename(last.place.source)
    if last.place.line:
        where += f":{last.place.line}"
    return f"sweep, {where}" if last.by_sweep else where
