"""SVG made small, and made part of a page.

Contract: what is seen does not change. A step function is mostly horizontal and vertical lines, and
hundredths of a point are finer than any screen: both are said in a third of the bytes.
"""

from __future__ import annotations

import re

_COORDINATES = re.compile(rb' (d|x|y)="([^"]*)"')
_LONG = re.compile(rb"-?[0-9]+\.[0-9]{3,}")
_STRAIGHT = re.compile(rb"[MLz0-9.\s-]*\Z")


def compact(svg: bytes) -> bytes:
    """The same picture in fewer bytes."""
    return _COORDINATES.sub(_attribute, svg)


def _attribute(match: re.Match[bytes]) -> bytes:
    name, value = match[1], _LONG.sub(_hundredths, match[2])
    if name == b"d":
        value = _path(value) if _STRAIGHT.match(value) else b" ".join(value.split())
    return b' %s="%s"' % (name, value)


def _hundredths(number: re.Match[bytes]) -> bytes:
    text = b"%.2f" % float(number[0])
    text = text.rstrip(b"0").rstrip(b".")
    return b"0" if text == b"-0" else text


def _path(value: bytes) -> bytes:
    """A path of straight lines: H and V where one coordinate stays, nothing where both do."""
    words = value.split()
    parts: list[bytes] = []
    x = y = b""
    place = 0
    while place < len(words):
        command = words[place]
        if command == b"z":
            parts.append(b"z")
            place += 1
            continue
        to_x, to_y = words[place + 1], words[place + 2]
        place += 3
        if command == b"M":
            parts.append(b"M%s %s" % (to_x, to_y))
        elif to_y == y and to_x != x:
            parts.append(b"H" + to_x)
        elif to_x == x and to_y != y:
            parts.append(b"V" + to_y)
        elif to_x != x:
            parts.append(b"L%s %s" % (to_x, to_y))
        x, y = to_x, to_y
    return b"".join(parts)


# Everything in a plot that is named, and every use of a name.
_NAMES = re.compile(rb'((?: id=")|(?: xlink:href="#)|(?: href="#)|(?:url\(#))')


def inlined(svg: bytes, prefix: str, colours: dict[str, str]) -> str:
    """The `<svg>` element for a page: its ids begin with `prefix`, so that two plots do not share
    any, `colours` are replaced, and it is as wide as the page allows."""
    start = svg.index(b"<svg")
    element = re.sub(rb"<metadata>.*?</metadata>", b"", svg[start:], flags=re.DOTALL)
    element = _NAMES.sub(lambda match: match[1] + prefix.encode(), element)
    element = re.sub(rb' (?:width|height)="[0-9.]+pt"', b"", element, count=2)
    text = element.decode()
    for colour, replacement in colours.items():
        text = text.replace(colour, replacement)
    return text
