"""Opens prepared data sets by path: ArrayRecord files written by TFDS, read in random access without TensorFlow."""

from collections.abc import Sequence
from typing import Any

from absl import logging as absl_logging

from flamingo_jax.files import Path, as_path, below, local

# Grain warns about files with more than one record a group. The sample in the repository has 16, to be small.
absl_logging.get_absl_logger().addFilter(lambda record: 'group size' not in record.getMessage())


def open_split(path: str | Path, split: str) -> Sequence[dict[str, Any]]:
    """Opens one split of a prepared data set as a random-access sequence of records.

    Args:
      path: the folder that holds `dataset_info.json` and the ArrayRecord files. Records at gs:// are read where they
        are; a folder at s3:// is first copied to this machine's disk (`files.local`).
      split: the name of a TFDS split.

    Raises:
      FileNotFoundError: the folder is missing, or the data set is incomplete.
      ValueError: there is no such split, or the files are not ArrayRecord.
    """
    path = as_path(path)
    if not (path / 'dataset_info.json').is_file():
        state = 'is not a prepared data set (it has no dataset_info.json)' if path.exists() else 'does not exist'
        raise FileNotFoundError(f'The data set {path} {state}. Prepare it first: data/README.md has the command.')
    if str(path).startswith('s3://'):
        path = local(path)  # ArrayRecord's own reader has the file systems of this machine and of gs://.
    import tensorflow_datasets as tfds  # Takes half a second, so it is imported only when a data set is opened.

    builder = tfds.builder_from_directory(path)
    if split not in builder.info.splits:
        raise ValueError(f'The data set {path} has no split {split!r}; it has {sorted(builder.info.splits)}.')
    there = below(path)
    missing = [file for file in builder.info.splits[split].filepaths if file.name not in there]
    if missing:
        raise FileNotFoundError(f'The data set {path} is incomplete: {missing[0]} is missing. Prepare it again.')
    if not str(builder.info.splits[split].filepaths[0]).count('array_record'):
        raise ValueError(
            f'The data set {path} is not in ArrayRecord files. Prepare it again with file_format="array_record".'
        )
    return builder.as_data_source(split)
