"""Writes a file as a whole or not at all, even if the process is killed."""

import os
import pathlib


def write_whole(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """Writes a file so that it always has either the old or the new content, even on a full disk. Returns its path.

    Raises:
      OSError: the file could not be written; it keeps the old content.
    """
    aside = path.with_name(f'.{path.name}.writing')
    try:
        with open(aside, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path
