"""Plain loops over columns, compiled by numba when they are called for the first time.

Contract: a compiled function gives what the same function gives uncompiled (NUMBA_DISABLE_JIT=1),
only sooner: it has integers that stay below 2^63, flags and records of them, no objects. What was
compiled is kept beside the module, or where nobody may write there in the user's cache
(NUMBA_CACHE_DIR names another folder), for each processor and each text of the module. Files appear
there whole, so processes may come at once and be killed. Where nothing can be kept, each process
compiles for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """The function, compiled."""
    try:
        made = numba.njit(cache=True)(function)
    except RuntimeError:  # no folder to keep it in
        return cast(F, numba.njit(function))
    if cache := getattr(made, "_cache", None):
        try:
            cache._cache_file._load_index()
        except (AttributeError, ImportError):
            cache.flush()  # numba cannot tell that it is older if a class that it names is gone
    return cast(F, made)
