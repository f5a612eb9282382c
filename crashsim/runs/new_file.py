"""A file that appears whole, or not at all, and never over one that is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crashsim.errors import OutputError


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Where to write what will be at `path` when the block ends well. OutputError when something is
    there already, or it cannot be written."""
    there = OutputError(f"{path}: exists already; nothing was written")
    if path.exists():
        raise there
    working = path.with_name(f".{path.name}.unfinished-{os.getpid()}")
    try:
        yield working
        os.link(working, path)  # unlike a rename, never over a file that is there
    except FileExistsError:
        raise there from None
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
    except OutputError as error:
        raise OutputError(str(error).replace(str(working), str(path))) from None
    finally:
        working.unlink(missing_ok=True)
