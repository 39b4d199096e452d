"""The one way out: documents of any source -> a TFDS data set of ArrayRecord files, with its ledger.

The bytes do not depend on the number of workers: a document's place follows from its id. Workers spill documents to
files and write each shard from them in order (`spill.py`), so memory does not grow with the data set. TFDS builds under
another name and renames the folder when it is whole. In a bucket nothing is renamed: shards are put in their place, and
dataset_info.json, without which there is no data set, comes last.

    DATA/NAME/CONFIG/VERSION/   NAME-train.array_record-00000-of-00004, dataset_info.json, features.json
                                metadata.json, ledger.json       counts by rule
                                ledger.html                      kept and dropped, to look at
                                dropped-00000-of-00002.jsonl.gz  everything that was dropped, sorted by page
"""

import base64
import collections
import contextlib
import functools
import gzip
import hashlib
import io
import json
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from flamingo_jax.building import ledger_page
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped, check_sums
from flamingo_jax.building.runner import beam, pipeline_options
from flamingo_jax.building.spill import KEYS, Spill, Spilled, read_sorted, sort_key
from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path, in_bucket, remove, replacing, upload, whole
from flamingo_jax.inputs.images import opened
from flamingo_jax.locks import alone

SHARD_BYTES = 256 * 2**20  # About the size of a shard,
SHARD_RECORDS = 1000  # and about its fewest records: an empty shard cannot be read.
LEDGER_BYTES = 64 * 2**20
SAMPLES = 12  # Documents, and dropped things of each rule, to look at.
THUMBNAIL = 160  # Pixels.
INFO = 'dataset_info.json'


class Sources:
    """What a builder gives: documents by split, and what was dropped, in as many collections as it comes in.

    A `Flatten` of large collections would be held in memory, so they stay apart.
    """

    def __init__(
        self,
        documents: Mapping[str, beam.PCollection],
        dropped: Sequence[beam.PCollection] = (),
        read: beam.PCollection | None = None,
    ):
        """documents: of `Document`. dropped: of `Dropped`. read: ((what, kind), number), for `check_sums`."""
        self.documents, self.dropped, self.read = dict(documents), list(dropped), read

    def hold_out(self, share: float) -> None:
        """Moves a share of the documents, chosen by chance but the same in every build, to a split `validation`.

        Documents of one URL stay together: the captions of an image, or a page's parts. So do those without a URL
        whose first image is the same: questions about it.

        Raises:
          ValueError: the documents have splits already.
        """
        if set(self.documents) != {'train'}:
            raise UserError(f'The data set has the splits {sorted(self.documents)} already. Leave --validation out.')
        train, validation = self.documents['train'] | 'hold out' >> beam.Partition(_part, 2, share)
        self.documents = dict(train=train, validation=validation)


class DocumentsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder of documents. A subclass in `data/` gives VERSION, BUILDER_CONFIGS and `sources`."""

    shards: Path | None = None  # The folder in a bucket for the large files; None is the data set's own.
    validation: float = 0.0  # Share of the documents that is held out.

    def sources(self, pipeline: beam.Pipeline, work: str) -> Sources:
        """The documents.

        Args:
          pipeline: where they are computed. The code must be in this package, which workers import.
          work: an empty folder for intermediate files. It is deleted in the end.
        """
        raise NotImplementedError

    def changed_rules(self) -> dict[str, Any]:
        """The rules by which this build differs from others, by their names. The ledger holds them."""
        return {}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, features=_features(), metadata=tfds.core.MetadataDict()
        )

    def _split_generators(self, dl_manager):
        raise NotImplementedError('`_generate_splits` replaces it.')

    def _generate_examples(self):
        raise NotImplementedError('`_generate_splits` replaces it.')

    def _generate_splits(self, dl_manager, download_config) -> list[tfds.core.SplitInfo]:
        """Runs the pipeline. TFDS's own method would group whole records in memory."""
        folder = pathlib.Path(self.data_path)  # Under its temporary name.
        large = self.shards or folder
        work = folder / 'work'
        work.mkdir(parents=True)
        with _progress(work, self.name), beam.Pipeline(options=download_config.beam_options) as pipeline:
            made = self.sources(pipeline, str(work))
            if self.validation:
                made.hold_out(self.validation)
            shards = {
                split: _write_split(documents, split, str(work), str(large / self.name))
                for split, documents in made.documents.items()
            }
            dropped = made.dropped + [repeated for _, repeated in shards.values()]
            written = [written for written, _ in shards.values()]
            _ = written | beam.Flatten() | 'shards' >> _JsonFile(str(work / 'shards.json'))
            _write_ledger(pipeline, made, dropped, work=str(work), folder=str(large))
        counts = dict(rules=self.changed_rules()) | _read(work / 'counts.json')
        check_sums(counts)
        written = _read(work / 'shards.json')
        if missing := sorted(set(made.documents) - {shard['split'] for shard in written}):
            most = sorted(counts['dropped'].items(), key=lambda item: -sum(item[1].values()))[:5]
            why = ', '.join(f'{rule} {sum(number.values())}' for rule, number in most) or 'nothing'
            raise UserError(
                f'No document is left for the split {" or ".join(missing)}. Dropped, by rule: {why}. Give other input, '
                'or change the rules of the config or --validation.'
            )
        self.info.metadata.update(counts)
        (folder / 'ledger.json').write_text(json.dumps(counts, indent=1, ensure_ascii=False), encoding='utf-8')
        ledger_page.write(folder, self.name, counts, _read(work / 'samples.json'))
        shutil.rmtree(work)
        return [self._split_info(split, written) for split in sorted(made.documents)]

    def _split_info(self, split: str, written: list[dict[str, Any]]) -> tfds.core.SplitInfo:
        shards = sorted((shard for shard in written if shard['split'] == split), key=lambda shard: shard['part'])
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard['records'] for shard in shards],
            num_bytes=sum(shard['bytes'] for shard in shards),
            filename_template=self._get_filename_template(split_name=split),
        )


def build(
    builder_class: type[DocumentsBuilder],
    out: str,
    config: str | tfds.core.BuilderConfig | None = None,
    workers: int = 1,
    beam_flags: Sequence[str] = (),
    overwrite: bool = False,
    validation: float = 0.0,
    **source: Any,
) -> Path:
    """Builds a data set under `out` and returns its folder, which `tfds.builder_from_directory` opens.

    An existing one is kept unless `overwrite`, and then until the new one is there; in a bucket, where the new one is
    written in its place, it is deleted first. What a killed build left is deleted. If `out` is in a bucket,
    intermediate files are in this machine's folder for temporary files.

    Args:
      validation: share of the documents that is held out, in a split of this name; 0 has the builder's splits alone.
      source: further arguments of the builder's class, which say where its raw material is.

    Raises:
      ValueError: no document is left for a split, the builder's documents have splits already, `workers` is below 1,
        another process builds the same, or `out` is in a bucket and the workers are elsewhere.
    """
    options = pipeline_options(workers, beam_flags)
    if in_bucket(out) and any(flag.startswith('--runner') for flag in beam_flags):
        raise UserError(
            f'{out} is in a bucket, so that intermediate files would be on this machine, which other machines do not '
            'reach. Build in a folder that all share, and copy the data set, or build on this machine.'
        )
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory()) if in_bucket(out) else out
        make = functools.partial(builder_class, data_dir=home, config=config, file_format='array_record', **source)
        folder = pathlib.Path(make().data_path)
        target = as_path(out) / folder.relative_to(home) if in_bucket(out) else folder
        if (target / INFO if in_bucket(out) else target).exists() and not overwrite:
            tqdm.write(f'{target} exists. To build it again, add --overwrite.')
            return target
        stack.enter_context(alone(target, beside=True))
        stack.enter_context(replacing(folder))
        builder = make()  # It looks for the folder.
        for leftover in folder.parent.glob(f'incomplete.*_{folder.name}'):
            shutil.rmtree(leftover)
        if in_bucket(out):
            remove(target, first=INFO)
            builder.shards = target
        builder.validation = validation
        _prepare(builder, options)
        if in_bucket(out):
            upload(folder, target, last=INFO)
    return target


def summary(folder: Path) -> str:
    """What a data set holds and what was dropped, as lines for whoever is about to train on it."""
    counts = json.loads((folder / 'ledger.json').read_text(encoding='utf-8'))
    lines = [
        f'{folder}, {split}: {of_split["documents"]:,} documents with {of_split["images"]:,} images'
        for split, of_split in counts['kept'].items()
    ]
    for rule, of_rule in sorted(counts['dropped'].items(), key=lambda item: -sum(item[1].values())):
        lines += [f'  dropped by {rule}: {number:,} ({what})' for what, number in of_rule.items()]
    if 'read' in counts:
        read = ', '.join(f'{of["all"]:,} {what}s' for what, of in counts['read'].items() if 'all' in of)
        lines.append(f'  read: {read}; each is kept or dropped')
    if counts.get('rules'):
        lines.append('  with the rules ' + ', '.join(f'{name}={value}' for name, value in counts['rules'].items()))
    return '\n'.join(lines)


def _prepare(builder: DocumentsBuilder, options: Any) -> None:
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as downloads:  # Nothing is downloaded, but TFDS makes the folder.
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                beam_options=options, compute_stats=tfds.download.ComputeStatsMode.SKIP, try_download_gcs=False
            ),
            download_dir=downloads,
        )


def _features() -> tfds.features.FeaturesDict:
    # Images are stored as they came. An Image feature would decode them.
    text, several = tfds.features.Text, tfds.features.Sequence
    parts = dict(texts=several(text()), images=several(text()), weights=several(np.float32))
    return tfds.features.FeaturesDict(dict(id=text(), url=text(), meta=text(), **parts))


@functools.cache
def _serializer():
    features = _features()
    return features, tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())  # pyright: ignore[reportAttributeAccessIssue]  # TFDS loads it when it is asked for.


def _record(document: Document) -> tuple[str, bytes]:
    features, serializer = _serializer()
    fields = {name: getattr(document, name) for name in ('id', 'url', 'meta', 'texts', 'images')}
    encoded = features.encode_example(fields | dict(weights=np.array(document.weights, np.float32)))
    # The order of a map's fields would differ between processes.
    return document.id, serializer.get_tf_example(encoded).SerializeToString(deterministic=True)


def _part(document: Document, _: int, share: float) -> int:
    """0 is for training, 1 is held out."""
    first = next((hashlib.md5(image).hexdigest() for image in document.images if image), '')
    key = sort_key(f'validation {document.url or first or document.id}')  # Not that which orders each split.
    return int(int(key, 16) < share * KEYS)


def _write_split(documents, split: str, work: str, stem: str) -> tuple[beam.PCollection, beam.PCollection]:
    """Writes the shards of a split. Gives what each holds, and documents whose id another one has."""
    files = beam.pvalue.AsList(
        documents | f'{split} records' >> beam.Map(_record) | f'{split} spill' >> beam.ParDo(Spill(work))
    )
    outputs = (
        documents.pipeline
        | f'{split} start' >> beam.Create([None])
        | f'{split} parts' >> beam.FlatMap(_parts, files, SHARD_BYTES, SHARD_RECORDS)
        | f'{split} spread' >> beam.Reshuffle()
        | f'{split} write' >> beam.FlatMap(_write_shard, files, split, stem).with_outputs('repeated', main='written')
    )
    return outputs.written, outputs.repeated


def _parts(_, files: Sequence[Spilled], most_bytes: int, fewest: int) -> Iterator[tuple[int, int]]:
    records, size = sum(file.records for file in files), sum(file.bytes for file in files)
    parts = max(1, min(size // most_bytes, records // fewest))
    yield from ((part, parts) for part in range(parts) if records)


def _write_shard(of_parts: tuple[int, int], files: Sequence[Spilled], split: str, stem: str):
    part, parts = of_parts
    # As the file adapter of TFDS writes it: one record a group, for random access.
    with whole(as_path(f'{stem}-{split}.array_record-{part:05d}-of-{parts:05d}')) as path:
        writer = ArrayRecordWriter(str(path), 'group_size:1')
        records, size, last = 0, 0, None
        for key, data in read_sorted(sorted(files), part, parts):
            if key == last:
                identity = _id(data)
                yield beam.pvalue.TaggedOutput('repeated', Dropped('document_id', 'document', identity))
                continue
            writer.write(data)
            records, size, last = records + 1, size + len(data), key
        writer.close()
    yield dict(split=split, part=part, records=records, bytes=size)


def _id(data: bytes) -> str:
    features, _ = _serializer()
    parser = tfds.core.example_parser.ExampleParserNp(features.get_tensor_info())  # pyright: ignore[reportAttributeAccessIssue]  # TFDS loads it when it is asked for.
    return parser.parse_example(data)['id'].decode()


def _write_ledger(pipeline, made: Sources, dropped: Sequence[Any], work: str, folder: str) -> None:
    counts, samples, files = [], [], []
    if made.read is not None:
        counts.append(made.read | 'numbers read' >> beam.Map(lambda one: (('read', *one[0]), one[1])))
    for split, kept in made.documents.items():
        counts.append(kept | f'{split} numbers' >> beam.FlatMap(_numbers, split))
        samples.append(
            kept
            | f'{split} sample' >> beam.combiners.Top.Smallest(SAMPLES, key=_order)
            | f'{split} shown' >> beam.Map(lambda top, split=split: (f'kept {split}', [_shown(one) for one in top]))
        )
    for i, some in enumerate(dropped):
        counts.append(some | f'number {i}' >> beam.FlatMap(_dropped_numbers))
        samples.append(
            some
            | f'rule {i}' >> beam.Map(lambda one: (one.rule, one))
            | f'sample {i}' >> beam.combiners.Top.SmallestPerKey(SAMPLES, key=_order)
        )
        files.append(
            some
            | f'line {i}' >> beam.Map(lambda one: (one.where, f'{one.line()}\n'.encode('utf-8', 'replace')))
            | f'spill {i}' >> beam.ParDo(Spill(work))
        )
    counted = [some | f'count {i}' >> beam.CombinePerKey(sum) for i, some in enumerate(counts)]
    _ = counted | 'all counts' >> beam.Flatten() | 'counts' >> _JsonFile(f'{work}/counts.json', _nested)
    _ = samples | 'all samples' >> beam.Flatten() | 'samples' >> _JsonFile(f'{work}/samples.json', _by_rule)
    if files:
        spilled = beam.pvalue.AsList(files | 'all files' >> beam.Flatten())
        _ = (
            pipeline
            | 'ledger start' >> beam.Create([None])
            | 'ledger parts' >> beam.FlatMap(_parts, spilled, LEDGER_BYTES, SHARD_RECORDS)
            | 'ledger spread' >> beam.Reshuffle()
            | 'ledger write' >> beam.Map(_write_lines, spilled, folder)
        )


def _write_lines(of_parts: tuple[int, int], files: Sequence[Spilled], folder: str) -> None:
    part, parts = of_parts
    with (
        whole(as_path(f'{folder}/dropped-{part:05d}-of-{parts:05d}.jsonl.gz')) as path,
        open(path, 'wb') as file,
        gzip.GzipFile(filename='', mode='wb', fileobj=file, mtime=0) as lines,  # Without a date: the same bytes.
    ):
        for _, line in read_sorted(sorted(files), part, parts):
            lines.write(line)


def _numbers(document: Document, split: str) -> Iterator[tuple[tuple[str, str, str], int]]:
    yield (split, 'documents', ''), 1
    yield (split, 'images', ''), sum(1 for image in document.images if image)
    yield (split, 'characters', ''), sum(map(len, document.texts))
    if language := json.loads(document.meta).get('language'):
        yield (split, 'documents by language', language), 1


def _dropped_numbers(one: Dropped) -> Iterator[tuple[tuple[str, str, str], int]]:
    yield ('dropped', one.rule, one.what), 1
    if one.images:
        yield ('dropped', one.rule, 'image'), one.images


def _nested(counts: Sequence[tuple[tuple[str, str, str], int]]) -> dict[str, Any]:
    """{'kept': {split: {...}}, 'dropped': {rule: {what: number}}}, and 'read' by what and kind if it was counted."""
    kept: dict[str, Any] = collections.defaultdict(dict)
    dropped: dict[str, Any] = collections.defaultdict(dict)
    read: dict[str, Any] = collections.defaultdict(dict)
    totals: dict[tuple[str, str, str], int] = collections.Counter()
    for key, number in counts:
        totals[key] += number
    for (first, second, third), number in sorted(totals.items()):
        if first == 'dropped':
            dropped[second][third] = number
        elif first == 'read':
            read[second][third] = number
        elif third:
            kept[first].setdefault(second, {})[third] = number
        else:
            kept[first][second] = number
    return dict(kept=kept, dropped=dropped) | (dict(read=read) if read else {})


def _order(one: Document | Dropped) -> tuple[bytes, str]:
    """An order by chance, but the same in every build."""
    name = one.id if isinstance(one, Document) else one.line()
    return sort_key(name), name


def _by_rule(samples: Sequence[tuple[str, list]]) -> dict[str, Any]:
    kept, dropped = {}, collections.defaultdict(list)
    for name, some in samples:
        if name.startswith('kept '):
            kept[name.removeprefix('kept ')] = some
        else:
            dropped[name] += some
    return dict(
        kept=kept,
        dropped={
            rule: [_shown(one) for one in sorted(some, key=_order)[:SAMPLES]] for rule, some in sorted(dropped.items())
        },
    )


def _shown(one: Document | Dropped) -> dict[str, Any]:
    """What the page of the ledger shows."""
    if isinstance(one, Dropped):
        return json.loads(one.line()) | dict(image=_thumbnail(one.image))
    parts = []
    for text, image in zip(one.texts, one.images, strict=True):
        parts.append(dict(text=text) if text else dict(image=_thumbnail(image) or 'data:,'))
    return dict(id=one.id, url=one.url, meta=json.loads(one.meta), parts=parts)


def _thumbnail(data: bytes) -> str:
    """A small JPEG as the URL of its bytes; '' if there is no image, or none that can be read."""
    try:
        image = opened(data)
        if max(image.size) > 20_000:
            return ''
        image.draft('RGB', (2 * THUMBNAIL, 2 * THUMBNAIL))
        image = image.convert('RGBA')
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        white = PIL.Image.new('RGBA', image.size, 'white')
        made = io.BytesIO()
        PIL.Image.alpha_composite(white, image).convert('RGB').save(made, 'JPEG', quality=80)
    except Exception:  # Each of PIL's decoders has its own errors for damaged data.
        return ''
    return f'data:image/jpeg;base64,{base64.b64encode(made.getvalue()).decode()}'


class _JsonFile(beam.PTransform):
    """All elements of a small collection, as one JSON file."""

    def __init__(self, path: str, form=lambda items: items):
        super().__init__()
        self._path, self._form = path, form

    def expand(self, items):
        return items | beam.combiners.ToList() | beam.Map(_dump, self._path, self._form)


def _dump(items: list, path: str, form) -> None:
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(form(items), file)


def _read(path: pathlib.Path) -> Any:
    return json.loads(path.read_text(encoding='utf-8'))


@contextlib.contextmanager
def _progress(work: pathlib.Path, name: str) -> Iterator[None]:
    """A bar of what the workers have written so far."""
    done = threading.Event()

    def watch() -> None:
        with tqdm(desc=name, unit='B', unit_scale=True, delay=2) as bar:
            while not done.wait(1):
                with contextlib.suppress(FileNotFoundError):  # A file may go at any time.
                    written = sum(file.stat().st_size for file in work.rglob('*') if file.is_file())
                    bar.update(max(written - bar.n, 0))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
