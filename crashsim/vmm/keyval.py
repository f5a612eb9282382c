"""`key=value,key=value`: one option of QEMU, split into settings.

Contract: `read` gives the settings by name (of a repeated one the last counts) and reports what
cannot be read. In a value `,,` is a comma. The first value may go without its key. Sources:
util/qemu-option.c (`-object`, `-device`: a key alone is `on`, and with `no` before it `off`; QEMU
warns that this is deprecated, and takes it), util/keyval.c (the monitor's `object_add`, where a key
alone is an error), qobject/json-lexer.c (an option that begins with `{` is JSON, whose texts may
stand in single quotes).

Values are read as QEMU reads them, or a `ValueError` ends the sentence "expected ...". Sources:
`qapi_bool_parse` in qapi/qapi-util.c (exactly eight words, small letters), `do_strtosz` in
util/cutils.c (suffixes are powers of 1024 whatever their case; no suffix means bytes; a fraction
needs a suffix above bytes and is rounded to the nearest byte; hexadecimal takes neither fraction
nor suffix; no exponent), `id_wellformed` in util/id.c.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from crashsim.engine.units import LARGEST
from crashsim.vmm.spans import Objection, Span

_MOST_KEYS = 100  # several times what any monitor knows of one device
_KEY = re.compile(r"[^=,]*")
_VALUE = re.compile(r"(?:[^,]|,,)*", re.DOTALL)
_TEXT = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL)


_TRUTH = {"on": True, "yes": True, "true": True, "y": True} | {
    "off": False,
    "no": False,
    "false": False,
    "n": False,
}
_SIZE = re.compile(r"[ \t\n\v\f\r]*\+?([0-9]*)(\.[0-9]*)?([bkmgtpe]?)", re.IGNORECASE)
_HEXADECIMAL = re.compile(r"[ \t\n\v\f\r]*\+?0x([0-9a-f]+)", re.IGNORECASE)
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_MOST_DIGITS = 40


@dataclass(frozen=True, slots=True)
class Setting:
    """One `key=value`. `typed` is set for JSON, whose numbers and truths are no texts."""

    name: str
    value: object
    place: Span
    typed: bool = False


Settings = dict[str, Setting]
Report = Callable[[Objection], None]


def places(settings: Settings, whole: Span, **other_names: str) -> dict[str, Span]:
    """Where each setting stands, under its name and under QEMU's if `other_names` has that (with
    `_` for `-`; the whole if it was not given); under "" the whole."""
    found = {setting.name: setting.place for setting in settings.values()}
    renamed = {
        qemus.replace("_", "-"): found.get(name, whole) for qemus, name in other_names.items()
    }
    return {"": whole, **found, **renamed}


def read(
    whole: Span, first_key: str, report: Report, flags: bool = True
) -> dict[str, Setting] | None:
    """The settings in the text of a place; nothing if they cannot be told apart.

    `flags`: a key alone means `on`."""
    if whole.text.startswith("{", whole.column - 1):
        return _read_json(whole, report)
    settings: Settings = {}
    for key, value, place in _items(whole, first_key):
        name = key
        if value is None:
            if not flags:
                message = (
                    f"expected '=' after {key!r}: the monitor takes no key alone; write {key}=on"
                )
                report(Objection(place, message))
                value = "on"
            elif key.startswith("no"):
                name, value = key[2:], "off"
            else:
                value = "on"
        settings[name] = Setting(name, value, place)
    return settings


def _items(whole: Span, first_key: str) -> Iterator[tuple[str, str | None, Span]]:
    text, at = whole.text, whole.column - 1
    implied = first_key
    while at < len(text):
        begin = at
        match = _KEY.match(text, at)
        key = match[0] if match else ""
        at += len(key)
        value: str | None = None
        if text[at : at + 1] == "=":
            value, at = _value(text, at + 1)
        elif implied:
            key = implied
            value, at = _value(text, begin)
        yield key, value, Span(whole.where, text, begin + 1, at - begin)
        implied = ""
        at += 1


def _value(text: str, at: int) -> tuple[str, int]:
    match = _VALUE.match(text, at)
    raw = match[0] if match else ""
    return raw.replace(",,", ","), at + len(raw)


def _read_json(whole: Span, report: Report) -> Settings | None:
    offset = whole.column - 1
    body = whole.text[offset:]
    pairs, problem, at = parse_json(body)
    if problem:
        report(Objection(Span(whole.where, whole.text, offset + at + 1, 1), problem))
        return None
    return from_members(pairs, whole, report)


def parse_json(body: str) -> tuple[list[tuple[str, object]], str, int]:
    """The members of a JSON object; else what is wrong, and where in the text.

    An object within is a list of pairs too, so that a repeated key is seen."""
    try:
        found = json.loads(_TEXT.sub(_double_quoted, body), object_pairs_hook=_Members)
    except json.JSONDecodeError as error:
        return [], f"this is not JSON: {error.msg}", min(error.pos, len(body))
    except (ValueError, RecursionError):  # a number of thousands of digits, or thousands of braces
        return [], "this is not JSON that can be read", 0
    if not isinstance(found, _Members):
        return [], "expected a JSON object", 0
    return found, "", 0


class _Members(list[tuple[str, object]]):
    """A JSON object."""


def _double_quoted(match: re.Match[str]) -> str:
    text = match[0]
    if text[0] == '"':
        return text
    inner = text[1:-1].replace("\\'", "'")
    return '"' + re.sub(r'(?<!\\)"', '\\"', inner) + '"'


def from_members(pairs: list[tuple[str, object]], whole: Span, report: Report) -> Settings:
    """The settings of a JSON object that stands in the text of `whole`."""
    settings: Settings = {}
    if len(pairs) > _MOST_KEYS:
        report(Objection(whole, f"{len(pairs)} keys: expected at most {_MOST_KEYS}"))
    for name, value in pairs[:_MOST_KEYS]:
        place = _place_of(name, whole)
        if name in settings:
            report(Objection(place, f"the key {name!r} is given twice"))
        settings[name] = Setting(name, value, place, typed=True)
    return settings


def _place_of(name: str, whole: Span) -> Span:
    pattern = rf"[\"']{re.escape(name)}[\"']\s*:\s*(\"[^\"]*\"|'[^']*'|[^,}}\s]*)"
    match = re.compile(pattern).search(whole.text, whole.column - 1)
    if match is None:
        return whole
    return Span(whole.where, whole.text, match.start() + 1, match.end() - match.start())


def parse_truth(text: str) -> bool:
    if text not in _TRUTH:
        raise ValueError("'on' or 'off' (also yes, true, y, no, false, n)")
    return _TRUTH[text]


def parse_size(text: str, without_suffix: str = "b") -> int:
    """Bytes of `4G`, `1.5M`, `512`, `0x1000`. `without_suffix` is the unit of a bare number."""
    expected = "a size such as 4G, 1.5M or 4294967296 (suffixes b k M G T P E)"
    match = _HEXADECIMAL.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if match is not None:
        return _bounded(int(match[1], 16))
    match = _SIZE.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if match is None or not (match[1] or (match[2] or "").strip(".")):
        raise ValueError(expected)
    scale = 1024 ** "bkmgtpe".index((match[3] or without_suffix).lower())
    fraction = Fraction("0" + match[2]) if match[2] and match[2] != "." else Fraction(0)
    if fraction and scale == 1:
        raise ValueError("a whole number of bytes")
    return _bounded(int(match[1] or "0") * scale + int(fraction * scale + Fraction(1, 2)))


def _bounded(size_bytes: int) -> int:
    if size_bytes > LARGEST:
        raise ValueError("a smaller size")
    return size_bytes


def parse_id(text: str) -> str:
    if _ID.fullmatch(text) is None:
        raise ValueError("an identifier: a letter, then letters, digits, '-', '.' and '_'")
    return text
