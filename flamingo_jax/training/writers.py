"""Where the metrics of a run go. A writer for another service is a class of two methods, passed to `train`:

class Wandb:
    def __init__(self, **options):
        self._run = wandb.init(**options)

    def write(self, step, scalars):
        self._run.log(dict(scalars), step=step)

    def close(self):
        self._run.finish()

train(config, workdir, writers=[TensorBoard(workdir), Wandb(project='flamingo')])
"""

import csv
import os
import time
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from flamingo_jax.files import as_path


@runtime_checkable
class Writer(Protocol):
    """Takes metrics. Only process 0 of a run calls its writers."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes the metrics of a step, or their means up to it. Names may differ from one call to the next."""

    def close(self) -> None:
        """Ends the record, after an error too."""


class Csv:
    """A file on this machine with a line for each metric: wall_time, step, name, value. A resumed run adds its lines.

    One line a metric, since validation has others than training, and a resumed run may have new ones.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Creates the file, and its folder if needed."""
        path = as_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        begins = not path.exists()
        self._file = open(path, 'a', newline='', encoding='utf-8')
        self._lines = csv.writer(self._file)
        if begins:
            self._lines.writerow(('wall_time', 'step', 'name', 'value'))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step to disk."""
        now = f'{time.time():.3f}'
        self._lines.writerows((now, step, name, value) for name, value in scalars.items())
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
