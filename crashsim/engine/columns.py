"""Small helpers for columns."""

from __future__ import annotations

import numpy as np

from crashsim.engine.streams import I64


def column(values: list[int]) -> I64:
    """int64[n] of the values."""
    return np.array(values, dtype=np.int64)


def join(parts: list[I64]) -> I64:
    """Columns one behind the other; one alone is not copied."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
