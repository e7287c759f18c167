"""A file that is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import OutputError, reason_of

_NAME_KEPT = 100
"""Characters of a file's name in the name of what becomes it: the whole may be as long as names can be."""

_DEVICES = Path("/dev")


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` in place of what stood at `path`, which stays as it was where that fails: then OutputError.

    A device or a pipe (`/dev/null`, `/dev/stdout`) is written to; a link goes on to point at its file.
    """
    partial: Path | None = None
    try:
        if path.parent == _DEVICES or (path.exists() and not path.is_file()):
            with path.open("wb") as file:
                file.write(data)
            return
        place = path.resolve()
        partial = place.with_name(f".{place.name[:_NAME_KEPT]}.{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(place)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {reason_of(error)}") from None
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
