"""`{image}` and its kin in a checker's command.

Contract: a placeholder is a name in braces; `${name}` belongs to a shell and is none, and
`{{name}}` stands for `{name}` as it is. A name that is not known is a mistake, never passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

KNOWN = ("image", "device", "acks", "mnt")
_WRITTEN = re.compile(r"\{(\{[A-Za-z_]\w*\})\}|(?<!\$)\{([A-Za-z_]\w*)\}")


def named(text: str) -> list[str]:
    """The placeholders in a text, as they stand in it."""
    return [match[2] for match in _WRITTEN.finditer(text) if match[2]]


def unknown(text: str) -> str:
    """What is wrong with the placeholders of a command; empty if nothing is."""
    for name in named(text):
        if name not in KNOWN:
            known = ", ".join(f"{{{one}}}" for one in KNOWN)
            return (
                f"unknown placeholder {{{name}}}: the known ones are {known}; a {{{name}}} that is "
                f"none is written {{{{{name}}}}}"
            )
    return ""


def filled(words: Iterable[str], paths: Mapping[str, str]) -> list[str]:
    """Words with paths in place of placeholders; what a path holds is not looked at again."""
    return [_WRITTEN.sub(lambda match: match[1] or paths[match[2]], word) for word in words]
