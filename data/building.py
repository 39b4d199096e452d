"""Builds a TFDS data set from a folder of fetched files into a folder of ArrayRecord, without TensorFlow."""

import functools
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import tensorflow_datasets as tfds
from absl import logging

from flamingo_jax.errors import UserError
from flamingo_jax.files import in_bucket, replacing

T = TypeVar('T')


def build(
    builder_class: type[tfds.core.GeneratorBasedBuilder], config: str, raw: str, out: str, overwrite: bool = False
) -> Path:
    """Prepares `config` from `raw` under `out` and returns the folder, which `tfds.builder_from_directory` opens.

    The folder appears when it is complete: TFDS writes under another name and renames it. An existing one is kept
    unless `overwrite`, and then until the new one is there. FileNotFoundError if `raw` does not exist or is empty; the
    builder must check what is in it. ValueError if `out` is in a bucket.
    """
    refuse_bucket(out)
    if not Path(raw).is_dir() or not any(Path(raw).iterdir()):
        raise FileNotFoundError(f'{raw} is not a folder, or is empty. {builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS}')
    make = functools.partial(builder_class, config=config, data_dir=out, file_format='array_record')
    folder = Path(make().data_path)
    if folder.exists() and not overwrite:
        logging.info('%s exists. To build it again, add --overwrite.', folder)
        return folder
    for leftover in folder.parent.glob(f'incomplete.*_{folder.name}'):
        shutil.rmtree(leftover)  # Left by a build that was killed.
    tfds.disable_progress_bar()  # It does not know the number of records.
    # Nothing is downloaded, but TFDS makes the folder.
    with replacing(folder), tempfile.TemporaryDirectory() as downloads:
        builder = make()  # It looks for the folder.
        # Statistics would need TensorFlow.
        download_config = tfds.download.DownloadConfig(
            manual_dir=raw, compute_stats=tfds.download.ComputeStatsMode.SKIP
        )
        builder.download_and_prepare(download_dir=downloads, download_config=download_config)
    for split, info in builder.info.splits.items():
        logging.info('%s: %d records, %.1f MB', split, info.num_examples, info.num_bytes / 1e6)
    logging.info('Built %s', folder)
    return folder


def refuse_bucket(out: str) -> None:
    """ValueError if `out` is in a bucket, where a folder cannot get its name when it is complete."""
    if in_bucket(out):
        raise UserError(f'{out} is in a bucket. Build in a folder of this machine, and copy the data set.')


def progress(items: Iterable[T], total: int, name: str) -> Iterator[T]:
    """Yields the items. Logs the number done, the rate and the time left every 5 seconds and at the end."""
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= 5 or done == total:
            last = now
            rate = done / max(now - start, 1e-9)
            logging.info('%s: %d of %d, %.0f/s, %.0f s left', name, done, total, rate, (total - done) / rate)
