"""The one way out: documents of any source -> a TFDS data set of ArrayRecord files, with its ledger.

The bytes do not depend on the number of workers: a document's place follows from its id. Workers spill documents to
files and write each shard from them in order (`spill.py`), so that memory does not grow with the data set. TFDS builds
under another name and renames the folder when it is whole.

    DATA/NAME/CONFIG/VERSION/   NAME-train.array_record-00000-of-00004, dataset_info.json, features.json, metadata.json
                                ledger.json                  counts by rule
                                ledger.html                  kept and dropped documents, to look at
                                dropped-00000-of-00002.jsonl.gz   everything that was dropped, sorted by page
"""

import contextlib
import gzip
import json
import math
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from flamingo_jax.building import ledger_page
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.runner import beam, pipeline_options
from flamingo_jax.building.spill import Spill, Spilled, read_sorted, sort_key

SHARD_BYTES = 256 * 2**20  # About the size of a shard,
SHARD_RECORDS = 1000  # which has at least about so many records. A shard of none cannot be read.
LEDGER_BYTES = 64 * 2**20
SAMPLES = 12  # Dropped things of each rule, and kept documents, to look at.


class Sources:
    """What a source gives: documents for each split, and what was dropped. Give each collection as it is made.

    Beam would hold a `Flatten` of them in memory.
    """

    def __init__(self, documents: Mapping[str, 'beam.PCollection'], dropped: Sequence['beam.PCollection'] = ()):
        """documents: of `Document`, by split. dropped: each of `Dropped`."""
        self.documents, self.dropped = dict(documents), list(dropped)


class DocumentsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder of documents. A subclass in `data/` gives VERSION, BUILDER_CONFIGS and `sources`."""

    def sources(self, pipeline: 'beam.Pipeline', work: str) -> Sources:
        """The documents.

        Args:
          pipeline: where they are computed. Its code must be in this package, which workers import.
          work: a folder for intermediate files, which is deleted in the end.
        """
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=features(),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager, pipeline):
        raise NotImplementedError('`_generate_splits` takes its place.')

    def _generate_examples(self):
        raise NotImplementedError('`_generate_splits` takes its place.')

    def _generate_splits(self, dl_manager, download_config) -> list[tfds.core.SplitInfo]:
        """Runs the pipeline. It takes the place of TFDS's own, whose writer groups whole records in memory."""
        folder = pathlib.Path(self.data_path)  # Under its temporary name.
        work = folder / 'work'
        work.mkdir()
        with _progress(work, self.name), beam.Pipeline(options=download_config.beam_options) as pipeline:
            made = self.sources(pipeline, str(work))
            shards = []
            for split in sorted(made.documents):
                template = self._get_filename_template(split_name=split)
                documents = made.documents[split]
                shards.append(_write_documents(documents, split, str(work), str(template.data_dir), self.name))
            _write_ledger(made, [repeated for _, repeated in shards], str(work), str(folder))
            _ = (
                [written for written, _ in shards]
                | 'all shards' >> beam.Flatten()
                | 'shards' >> _as_one_file(str(work / 'shards.json'))
            )
        counts = json.loads((folder / 'ledger.json').read_text())
        written = json.loads((work / 'shards.json').read_text())
        if missing := sorted(set(made.documents) - {shard['split'] for shard in written}):
            rules = sorted(counts['dropped'].items(), key=lambda item: -item[1]['count'])[:6]
            why = ', '.join(f'{rule} {entry["count"]}' for rule, entry in rules) or 'nothing was found'
            raise ValueError(f'No document is left for {" and ".join(missing)}. Dropped: {why}.')
        self.info.metadata.update(counts)
        ledger_page.write(folder, json.loads((work / 'samples.json').read_text()), f'{self.name}: kept and dropped')
        shutil.rmtree(work)
        infos = []
        for split in sorted(made.documents):
            of_split = sorted((s for s in written if s['split'] == split), key=lambda shard: shard['shard'])
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[shard['records'] for shard in of_split],
                    num_bytes=sum(shard['bytes'] for shard in of_split),
                    filename_template=self._get_filename_template(split_name=split),
                )
            )
        return infos


def features() -> tfds.features.FeaturesDict:
    """The features of a stored document. Pictures are stored as they are, without decoding."""
    return tfds.features.FeaturesDict(
        {
            'id': tfds.features.Text(),
            'url': tfds.features.Text(),
            'meta': tfds.features.Text(),
            'texts': tfds.features.Sequence(tfds.features.Text()),
            'images': tfds.features.Sequence(tfds.features.Text()),
            'weights': tfds.features.Sequence(np.float32),
        }
    )


def build(
    builder: DocumentsBuilder, workers: int = 1, beam_flags: Sequence[str] = (), overwrite: bool = False
) -> pathlib.Path:
    """Builds a data set and returns its folder, which `tfds.builder_from_directory` opens.

    An existing one is kept unless `overwrite`; then it is replaced when the new one is whole.

    Raises:
      ValueError: no document is left in a split, or `workers` is below 1.
    """
    folder = pathlib.Path(builder.data_path)
    options = pipeline_options(workers, beam_flags)
    if folder.exists() and not overwrite:
        tqdm.write(f'{folder} exists. To build it again, add --overwrite.')
        return folder
    for leftover in folder.parent.glob(f'incomplete.*_{folder.name}'):
        shutil.rmtree(leftover)  # Left by a build that was killed.
    old = folder.with_name(f'.{folder.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    config = tfds.download.DownloadConfig(beam_options=options, compute_stats=tfds.download.ComputeStatsMode.SKIP)
    tfds.disable_progress_bar()
    if folder.exists():
        folder.rename(old)
    try:
        builder = type(builder)
    except Exception:
        raise
    return folder
