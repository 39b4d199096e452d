"""Writing a file so that no reader, and no kill, ever meets half of it."""

import os
import pathlib


def write_whole(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """Writes a file so that at any moment, and on a full disk, either the old content or the new is there; -> its path.

    Raises:
      OSError: it could not be written; the old content is there still.
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
