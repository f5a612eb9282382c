"""Plain loops over columns, compiled by numba when they are called for the first time.

Contract: a compiled function gives what the same function gives uncompiled (NUMBA_DISABLE_JIT=1),
only sooner: it has integers that stay below 2^63, flags and records of them, no objects. What was
compiled is kept beside the module, or where nobody may write there in the user's cache
(NUMBA_CACHE_DIR names another folder), for each processor and each state of the package's sources:
a loop holds what it took from other modules. Files appear there whole, so processes may come at
once and be killed. Where nothing can be kept, each process compiles for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def stamp_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """(name, time of change in ns, bytes) of each module below a folder."""
    found = [(str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*.py"))]
    return tuple((name, about.st_mtime_ns, about.st_size) for name, about in found)


_stamp = stamp_of(Path(__file__).parents[1])


def compiled(function: F) -> F:
    """The function, compiled."""
    try:
        made = numba.njit(cache=True)(function)
    except RuntimeError:  # no folder to keep it in
        return cast(F, numba.njit(function))
    if cache := getattr(made, "_cache", None):
        file = cache._cache_file
        file._source_stamp = file._source_stamp, _stamp  # numba's own is of one module
        try:
            file._load_index()
        except (AttributeError, ImportError):
            cache.flush()  # numba cannot tell that it is older if a class that it names is gone
    return cast(F, made)
