"""Values of QEMU's options: truth, sizes, ids, as QEMU reads them.

Contract: every function takes text and gives a value, or raises `ValueError` whose text ends the
sentence "expected ...". Sources: `qapi_bool_parse` in qapi/qapi-util.c (exactly eight words, small
letters), `do_strtosz` in util/cutils.c (suffixes are powers of 1024 whatever their case; no suffix
means bytes; a fraction needs a suffix above bytes and is rounded to the nearest byte; hexadecimal
takes neither fraction nor suffix; no exponent), `id_wellformed` in util/id.c.
"""

from __future__ import annotations

import re
from fractions import Fraction

from crashsim.engine.units import LARGEST

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
