"""Opens prepared data sets by path: ArrayRecord files written by TFDS, read in random access without TensorFlow."""

import copy
import errno
import os
import resource
from collections.abc import Sequence
from typing import Any

from absl import logging as absl_logging

from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path, below, in_bucket, local, persist

# Grain warns about files with more than one record a group. The sample in the repository has 16, to be small.
absl_logging.get_absl_logger().addFilter(lambda record: 'group size' not in record.getMessage())

# Of more records than these, the places in their files are read when they are needed, and not held in memory: each
# process would hold 9 bytes a record.
LARGE = 10_000_000
OFFLOADED = dict(index_storage_option='offloaded', footer_prefetch_bytes='0')
AGAIN = 'Copy it again (after git clone: git lfs pull), or prepare it again.'
BLOCK = 2**16  # An ArrayRecord file is a whole number of blocks of so many bytes.
END = bytes.fromhex('10dec0ebfe84cec3c971')  # In the first bytes of the last one: the field 2 of its postscript.
OPEN_FILES, OTHER_FILES = 65_536, 256  # That a process opens where there is no limit; and beside the data set's.


class Records(Sequence):
    """The records of a split, by number. TFDS reads them.

    Attributes:
      source: TFDS's own.
    """

    def __init__(self, source: Any, path: Path):
        """path: the folder of the data set."""
        self.source, self._path = source, path

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Record `index`. OSError as for `files.persist`, also for a record that is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f'There is no record {index} of {len(self)} in {self._path}.')
        return persist(lambda: self._read(index), self._path)

    def _read(self, index: int) -> dict[str, Any]:
        try:
            return self.source[index]
        except (OSError, MemoryError):
            raise
        except Exception as error:  # ArrayRecord and TFDS say all in words.
            # A reader that failed once would fail forever.
            self.source.data_source = copy.copy(self.source.data_source)
            code = next((code for code in errno.errorcode if os.strerror(code) in str(error)), errno.EIO)
            raise OSError(code, f'Record {index} of {len(self)} cannot be read: {error}') from error


def open_split(path: str | Path, split: str) -> Sequence[dict[str, Any]]:
    """Opens one split of a prepared data set as a random-access sequence of records.

    Args:
      path: the folder that holds `dataset_info.json` and the ArrayRecord files. Records at gs:// are read where they
        are; a folder at s3:// is first copied to this machine's disk (`files.local`).
      split: the name of a TFDS split.

    Raises:
      FileNotFoundError: the folder is missing, or the data set is incomplete.
      ValueError: there is no such split, a file is cut short or not ArrayRecord, or there are more than a process may
        open.
    """
    path, builder = _opened(path)
    if split not in builder.info.splits:
        raise UserError(f'The data set {path} has no split {split!r}; it has {sorted(builder.info.splits)}.')
    there = below(path)
    missing = [file for file in builder.info.splits[split].filepaths if file.name not in there]
    if missing:
        raise FileNotFoundError(f'The data set {path} is incomplete: {missing[0]} is missing. Prepare it again.')
    if not str(builder.info.splits[split].filepaths[0]).count('array_record'):
        raise UserError(
            f'The data set {path} is not in ArrayRecord files. Prepare it again with file_format="array_record".'
        )
    for file in builder.info.splits[split].filepaths:
        if _is_cut(file, there[file.name]):
            raise UserError(f'The data set {path} is damaged: {file.name} is cut short, or a pointer. {AGAIN}')
    _allow_files(len(builder.info.splits[split].filepaths), path)
    source = builder.as_data_source(split)
    if len(source) > LARGE:
        import tensorflow_datasets as tfds
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        files = tfds.core.data_sources.base.file_instructions(builder.info, split)  # pyright: ignore[reportAttributeAccessIssue]  # TFDS loads it when it is asked for.
        source.data_source = ArrayRecordDataSource(files, OFFLOADED)
    return Records(source, path)


def splits(path: str | Path) -> list[str]:
    """The names of the splits of a prepared data set. FileNotFoundError, ValueError if it is missing or damaged."""
    return list(_opened(path)[1].info.splits)


def _opened(path: str | Path) -> tuple[Path, Any]:
    """The folder, on this machine if its records are read there, and the TFDS builder of what is in it."""
    path = as_path(path)
    if not (path / 'dataset_info.json').is_file():
        state = 'is not a prepared data set (it has no dataset_info.json)' if path.exists() else 'does not exist'
        raise FileNotFoundError(f'The data set {path} {state}. Prepare it first: data/README.md has the command.')
    if str(path).startswith('s3://'):
        path = local(path)  # ArrayRecord's own reader has the file systems of this machine and of gs://.
    import tensorflow_datasets as tfds  # Takes half a second, so it is imported only when a data set is opened.

    try:
        return path, tfds.builder_from_directory(path)
    except OSError:
        raise
    except Exception as error:  # Of protobuf, JSON and TFDS.
        raise UserError(
            f'The data set {path} is damaged: its dataset_info.json or features.json cannot be read ({error}). {AGAIN}'
        ) from error


def _is_cut(file: Path, size: int) -> bool:
    """Whether an ArrayRecord file lacks its last block, which begins with a mark."""
    if not size or size % BLOCK:
        return True
    if in_bucket(file):  # To look into each would take long.
        return False
    with open(file, 'rb') as opened:
        opened.seek(size - BLOCK)
        return END not in opened.read(128)


def _allow_files(number: int, path: Path) -> None:
    """Lets this process open so many files more: each that is read stays open. ValueError if the machine forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    if number + OTHER_FILES > most:
        raise UserError(
            f'The data set {path} has {number} files, all of which are held open, but a process may open {most}. '
            "Raise the machine's limit (ulimit -Hn, or nofile in /etc/security/limits.conf)."
        )
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
