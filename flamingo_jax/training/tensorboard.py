"""The writer of TensorBoard's event files, without TensorFlow."""

import io
import os
import time
from collections.abc import Mapping
from typing import Any

from flamingo_jax.errors import MissingPackageError
from flamingo_jax.files import as_path, in_bucket, write_whole

try:
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  # Made when it is imported.
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]  # Made when it is imported.
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError as error:
    raise MissingPackageError(
        "Metrics are written for TensorBoard: pip install 'flamingo_jax[tensorboard]'. Or pass train() other writers: "
        f'flamingo_jax/training/writers.py ({error}).'
    ) from error

LARGEST = 4 * 2**20  # Bytes of a file in a bucket, after which the next begins: training waits for each upload.
EVERY = 60  # Seconds: nothing can be added to a file in a bucket, so that it is written anew.


class TensorBoard:
    """A new event file in a run's folder, from the first metrics on; TensorBoard shows a folder's files as one run."""

    def __init__(self, workdir: str | os.PathLike[str]):
        """Creates nothing yet, so that a folder that training refuses stays as it is."""
        self._folder = as_path(workdir)
        self._records: RecordWriter | None = None
        self._content: Any = None  # A file, or in a bucket the bytes of the next object.

    def _begin(self) -> None:
        """Creates a file, and the folder if needed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard expects this beginning. The name is new, so that a resumed run does not overwrite the earlier
        # file.
        path = self._folder / f'events.out.tfevents.{time.time():.6f}.{os.getpid()}'
        # EventFileWriter, which wraps this class, would import TensorFlow if it is installed.
        self._path, self._content, self._written = path, io.BytesIO() if in_bucket(path) else path.open('xb'), 0.0
        self._records = RecordWriter(self._content)
        self._append(Event(wall_time=time.time(), file_version='brain.Event:2'))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step to disk."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Closes the file."""
        if self._records is not None:
            self._upload()
            self._records.close()

    def _write(self, event: Event) -> None:
        if self._records is None:
            self._begin()
        elif in_bucket(self._path) and self._content.tell() > LARGEST:
            self._upload()
            self._begin()
        self._append(event)

    def _append(self, event: Event) -> None:
        assert self._records is not None
        self._records.write(event.SerializeToString())
        self._records.flush()
        if time.monotonic() - self._written > EVERY:
            self._upload()

    def _upload(self) -> None:
        if in_bucket(self._path):
            write_whole(self._path, self._content.getvalue())
            self._written = time.monotonic()
