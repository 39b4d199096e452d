"""TensorBoard's event files, written without TensorFlow."""

import os
import pathlib
import time
from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Events:
    """A new event file in a run's folder; TensorBoard shows all files of a folder as one run."""

    def __init__(self, workdir: str | os.PathLike[str]):
        """Creates the file, and the folder if needed."""
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard expects this beginning. The name is new, so that a resumed run does not overwrite the earlier
        # file.
        path = folder / f'events.out.tfevents.{time.time():.6f}.{os.getpid()}'
        # EventFileWriter, which wraps this class, would import TensorFlow if it is installed.
        self._records = RecordWriter(path.open('xb'))
        self._write(Event(wall_time=time.time(), file_version='brain.Event:2'))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step to disk."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Closes the file."""
        self._records.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()
