"""The one way out: what is written is read back, and its bytes do not depend on who wrote them."""

import gzip
import hashlib
import io
import json
import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from data.obelics import build as obelics
from flamingo_jax.building import write
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.runner import beam
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.sources.array_record import open_split, splits
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.training.validation import held_out


def png(colour: int) -> bytes:
    made = io.BytesIO()
    PIL.Image.fromarray(np.full((4, 6, 3), colour, np.uint8)).save(made, 'PNG')
    return made.getvalue()


def make(number: int) -> Document:
    texts, images = ['', f'text {number}'], [png(number % 256), b'']
    return Document(f'id {number}', texts, images, [0.0, 0.5], f'http://a.b/{number // 2}', '{"language": "en"}')


def drop(number: int) -> Dropped:
    return Dropped(f'rule {number % 2}', 'text', f'http://a.b/{number}', number, f'excerpt {number}')


def in_hebrew(number: int) -> Document:
    return Document(f'חתול {number}', ['', f'חתול {number}'], [png(number), b''], [0.0, 1.0], f'http://a.b/{number}')


class Numbers(write.DocumentsBuilder):
    """Documents made from numbers."""

    VERSION = tfds.core.Version('1.0.0')
    MAKE, DROPPED = staticmethod(make), staticmethod(drop)

    def __init__(self, numbers=(), **rest):
        self.numbers = numbers
        super().__init__(**rest)

    def sources(self, pipeline, work):
        """Each number as a document, and as a dropped thing."""
        numbers = pipeline | beam.Create(self.numbers) | beam.Reshuffle()
        return write.Sources({'train': numbers | beam.Map(self.MAKE)}, [numbers | 'drop' >> beam.Map(self.DROPPED)])


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
    return write.build(Numbers, str(tmp_path_factory.mktemp('numbers')), numbers=list(range(20)))


def test_what_is_written_is_read_back(folder):
    opened = Documents(path=str(folder)).open(ImageFormat(8))
    assert len(opened) == 20
    found = set()
    for i in range(20):
        [chunk] = opened.document(i, np.random.default_rng(0))
        number = int(chunk.texts[0].removeprefix('text '))
        found.add(number)
        assert chunk.weights == [0.5]
        assert (chunk.image() == number).all()
    assert found == set(range(20))


def test_the_ledger_counts_everything_and_lists_it(folder):
    counts = json.loads((folder / 'ledger.json').read_text())
    assert counts['dropped'] == {'rule 0': {'text': 10}, 'rule 1': {'text': 10}}
    kept = counts['kept']['train']
    assert kept == dict(
        documents=20,
        images=20,
        characters=sum(len(f'text {n}') for n in range(20)),
        **{'documents by language': {'en': 20}},
    )
    assert tfds.builder_from_directory(folder).info.metadata['dropped'] == counts['dropped']
    lines = [json.loads(line) for file in folder.glob('dropped-*') for line in gzip.open(file, 'rt')]
    assert sorted(line['place'] for line in lines) == list(range(20))
    page = (folder / 'ledger.html').read_text()
    assert 'rule 1: 10 dropped' in page and page.count('class=pair') == write.SAMPLES


class Hebrew(Numbers):
    """Documents in a script that is not ASCII, and is written from right to left."""

    MAKE = staticmethod(in_hebrew)
    DROPPED = staticmethod(lambda number: Dropped('כלל', 'text', f'http://a.b/{number}', number, 'כלב'))


def test_the_ledger_is_utf_8_whatever_the_locale(tmp_path, ascii_locale):
    """And a browser shows each text in its own direction."""
    folder = write.build(Hebrew, str(tmp_path), numbers=[1])
    assert 'כלל' in write.summary(folder)
    page = (folder / 'ledger.html').read_text(encoding='utf-8')
    assert '<p dir=auto>חתול 1</p>' in page and '<span dir=auto>כלב</span>' in page


@pytest.mark.parametrize('workers', [1, pytest.param(3, marks=pytest.mark.long)])
def test_bytes_do_not_depend_on_order_or_workers(tmp_path, workers, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', str(pathlib.Path(__file__).parent))  # So that workers can import this file.
    monkeypatch.setattr(write, 'SHARD_BYTES', 2000)
    monkeypatch.setattr(write, 'SHARD_RECORDS', 10)
    one = digests(write.build(Numbers, str(tmp_path / 'a'), numbers=list(range(60))))
    other = digests(write.build(Numbers, str(tmp_path / 'b'), numbers=list(range(60))[::-1], workers=workers))
    assert one == other
    assert sum('array_record' in name for name in one) > 2


def test_the_second_document_of_an_id_is_dropped(tmp_path):
    folder = write.build(Numbers, str(tmp_path), numbers=[1, 2, 2, 3])
    assert json.loads((folder / 'ledger.json').read_text())['dropped']['document_id'] == {'document': 1}
    assert len(Documents(path=str(folder)).open(ImageFormat(8))) == 3


@pytest.mark.parametrize('workers', [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_share_is_held_out_and_read_while_training(tmp_path, workers, monkeypatch):
    """The same documents whoever builds. Documents of one URL stay together."""
    monkeypatch.setenv('PYTHONPATH', str(pathlib.Path(__file__).parent))
    monkeypatch.setattr(write, 'SHARD_RECORDS', 10)
    both = []
    for name, numbers, how in (('a', range(200), {}), ('b', range(199, -1, -1), dict(workers=workers))):
        both.append(write.build(Numbers, str(tmp_path / name), numbers=list(numbers), validation=0.3, **how))
    assert digests(both[0]) == digests(both[1])
    train, validation = ({(one['url'], one['id']) for one in open_split(both[0], split)} for split in splits(both[0]))
    assert len(train | validation) == len(train) + len(validation) == 200 and 40 < len(validation) < 80
    assert not {url for url, _ in train} & {url for url, _ in validation}
    source = Documents(path=str(both[0]), validation_split='validation')
    opened = held_out(dict(numbers=source))['numbers'].open(ImageFormat(8))
    assert len(opened) == len(validation)


def test_questions_about_one_image_are_held_out_together():
    def part(name: int, image: bytes) -> int:
        return write._part(Document(f'{name}', ['', 'x'] if image else ['y', 'x'], [image, b''], [0.0, 1.0]), 2, 0.5)

    of_images = [{part(row, png(colour)) for row in range(10)} for colour in range(20)]
    assert all(len(of_one) == 1 for of_one in of_images) and {0} in of_images and {1} in of_images
    assert {part(row, b'') for row in range(20)} == {0, 1}  # Texts alone go by their own name.


def test_what_has_splits_is_not_split_again():
    made = write.Sources(dict(test=beam.Pipeline() | beam.Create([])))
    with pytest.raises(ValueError, match="has the splits .'test'. already. Leave --validation out"):
        made.hold_out(0.1)


def test_nothing_left_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match='No document is left for the split train.'):
        write.build(Numbers, str(tmp_path), numbers=[])
    assert not list(tmp_path.rglob('*.array_record*')) and not list(tmp_path.rglob('dataset_info.json'))


def test_the_old_data_set_is_there_until_the_new_one_is(tmp_path):
    folder = write.build(Numbers, str(tmp_path), numbers=[1, 2])
    old = digests(folder)
    with pytest.raises(ValueError, match='No document is left'):
        write.build(Numbers, str(tmp_path), overwrite=True, numbers=[])
    assert digests(folder) == old
    assert write.build(Numbers, str(tmp_path), overwrite=True, numbers=[1, 2, 3]) == folder
    assert len(Documents(path=str(folder)).open(ImageFormat(8))) == 3
    assert [left.name for left in folder.parent.iterdir()] == [folder.name]


def test_no_other_program_is_started_to_read_an_image(tmp_path, monkeypatch):
    started = tmp_path / 'started'
    ghostscript = tmp_path / 'gs'
    ghostscript.write_text(f'#!/bin/sh\ntouch {started}\n')
    ghostscript.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    monkeypatch.setattr('PIL.EpsImagePlugin.gs_binary', None)  # PIL has not looked for it.
    eps = io.BytesIO()
    PIL.Image.new('RGB', (8, 8)).save(eps, 'EPS')
    document = Document('a', ['', 'x'], [eps.getvalue(), b''], [0.0, 1.0])
    assert write._shown(document)['parts'][0] == dict(image='data:,')
    assert obelics._page(eps.getvalue(), 0) == b'damaged'
    assert not started.exists()


def test_a_document_holds_one_thing_at_each_place():
    with pytest.raises(ValueError, match='both a text and an image at place 0'):
        Document('a', ['x'], [b'y'], [1.0])
    with pytest.raises(ValueError, match='neither'):
        Document('a', [''], [b''], [1.0])
    with pytest.raises(ValueError, match='2 texts, 1 images'):
        Document('a', ['x', 'y'], [b''], [1.0])


@pytest.mark.long
def test_another_runner_writes_the_same_bytes(folder, tmp_path):
    """Beam has an older runner for one process, which makes other bundles."""
    flags = ['--runner=BundleBasedDirectRunner']
    other = write.build(Numbers, str(tmp_path), beam_flags=flags, numbers=list(range(20)))
    assert digests(folder) == digests(other)
