"""What is trained on is a function of seed and position alone."""

import dataclasses
import io
import itertools
import pathlib

import grain.python as grain
import jax
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from absl import flags

from flamingo_jax.few_shot.sequences import FewShotConfig, game
from flamingo_jax.few_shot.words import Words
from flamingo_jax.inputs.pipeline import DatasetConfig, _Rows, _seed_of, batches, put, read, sequences
from flamingo_jax.parallel.mesh import batch_sharding, make_mesh

SAMPLE = str(pathlib.Path(__file__).parents[2] / 'data/picture_dictionary/sample')
DOCUMENTS = 13


def png(number):
    file = io.BytesIO()
    PIL.Image.new('RGB', (8, 8), (number, 0, 0)).save(file, 'PNG')
    return file.getvalue()


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """Thirteen documents: a title, a picture, its caption; every fourth picture is damaged."""
    folder = tmp_path_factory.mktemp('documents')
    kinds = dict(texts=tfds.features.Text(), images=tfds.features.Text(), weights=np.float32)
    features = tfds.features.FeaturesDict({name: tfds.features.Sequence(kind) for name, kind in kinds.items()})

    def records():
        for i in range(DOCUMENTS):
            image = b'damaged' if i % 4 == 3 else png(100 + i)
            yield i, dict(texts=[f'page {i}', '', f'word {i}'], images=[b'', image, b''], weights=[0.0, 1.0, 0.5])

    class Pages(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version('1.0.0')

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {'train': records()}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Pages(data_dir=folder, file_format='array_record')
    skip = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
    builder.download_and_prepare(download_dir=folder / 'downloads', download_config=skip)
    return str(builder.data_path)


@pytest.fixture(params=['documents', 'few_shot', 'align'])
def config(request, stored):
    shape = dict(length=32, batch_size=4)
    if request.param in ('documents', 'align'):
        return DatasetConfig(path=stored, images=1, align=request.param == 'align', **shape)
    few_shot = FewShotConfig(shots=3, games=dict(bind=game(Words, classes=(2, 3))))
    return DatasetConfig(
        path=SAMPLE, split='train', styles=('noto', 'fluent-flat'), images=3, few_shot=few_shot, **shape
    )


def equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def iterator(config, tokenizer, seed=0, start=0):
    return read(batches({'x': config}, tokenizer, 8, seed)['x'], start, config.workers)


def test_one_seed_gives_the_same_batches(config, tokenizer):
    one, again, other = (list(itertools.islice(iterator(config, tokenizer, seed), 3)) for seed in (0, 0, 1))
    for a, b in zip(one, again, strict=True):
        equal(a, b)
    drawn = 'text' if config.align else 'tokens'
    assert not np.array_equal(one[0][drawn], other[0][drawn])
    assert not np.array_equal(one[0][drawn], one[1][drawn])
    shapes = {key: (value.shape, value.dtype) for key, value in one[0].items()}
    images = (4, config.images, 1, 8, 8, 3)
    places = len(one[0]['tokens'][0]) if config.align else 32
    row, number = ((4, places), np.int32), ((4,), np.int32)
    expected = dict(
        tokens=row, phi=row, weights=((4, places), np.float32), images=(images, np.uint8), unreadable=number
    )
    assert shapes == expected | (dict(text=((4, 32), np.int32), ends=number) if config.align else {})


def test_a_run_resumes_in_the_middle(config, tokenizer):
    """Past the end of an epoch of documents, too."""
    whole = list(itertools.islice(iterator(config, tokenizer), 8))
    for expected, got in zip(whole[5:], iterator(config, tokenizer, start=5), strict=False):
        equal(got, expected)


def test_processes_read_the_rows_that_their_devices_hold(config, tokenizer):
    """The position counts batches of all processes together. That rows fit devices: tests/training/test_processes.py."""
    whole = sequences(config, tokenizer, 8, _seed_of(0, 'x'))
    two_of_four = grain.MapDataset.source(_Rows(whole, 4, (1, 3))).batch(2)
    for start in (0, 5):
        batch, some = next(iterator(config, tokenizer, start=start)), next(read(two_of_four, start, 0))
        for row in range(4):
            equal({key: value[row] for key, value in batch.items()}, whole[4 * start + row])
        equal(some, {key: value[1::2] for key, value in batch.items()})


def test_workers_change_nothing(config, tokenizer, stored):
    """Processes that build sequences; one of the two kinds is enough."""
    if config.few_shot:
        pytest.skip('the same path')
    flags.FLAGS.mark_as_parsed()  # Grain's workers read flags of its own.
    expected = list(itertools.islice(iterator(config, tokenizer), 3))
    got = list(itertools.islice(iterator(dataclasses.replace(config, workers=1), tokenizer, start=1), 2))
    for a, b in zip(got, expected[1:], strict=True):
        equal(a, b)


def test_an_epoch_has_every_document_once_and_the_next_another_order(stored, tokenizer):
    config = DatasetConfig(path=stored, length=40, images=1, batch_size=4)
    rows = sequences(config, tokenizer, 8, _seed_of(0, 'x'))
    texts = [tokenizer.decode(rows[i]['tokens'][1:]) for i in range(2 * DOCUMENTS)]
    assert len(set(texts[:DOCUMENTS])) == DOCUMENTS == len(set(texts[DOCUMENTS:]))
    assert set(texts[:DOCUMENTS]) == set(texts[DOCUMENTS:]) and texts[:DOCUMENTS] != texts[DOCUMENTS:]


def test_documents_become_chunks(stored, tokenizer):
    config = DatasetConfig(path=stored, length=40, images=1, batch_size=4)
    rows = sequences(config, tokenizer, 8, _seed_of(0, 'x'))
    seen = 0
    for i in range(DOCUMENTS):
        text, row = tokenizer.decode(rows[i]['tokens'][1:]), rows[i]
        number = int(text.split('<EOC>')[0].removeprefix('page '))
        damaged = number % 4 == 3
        assert text == f'page {number}<EOC>' + ('' if damaged else f'<image>word {number}<EOC>')
        assert row['unreadable'] == damaged and row['phi'].max() == 1 - damaged
        assert set(row['weights']) == ({0.0} if damaged else {0.0, 0.5})
        assert (row['images'][0, 0, :, :, 0] == (0 if damaged else 100 + number)).all()
        seen += damaged
    assert seen == 3
    bare = sequences(DatasetConfig(path=stored, length=40, images=0, batch_size=4), tokenizer, 8, 0)[0]
    assert 'images' not in bare and not bare['phi'].any()


def test_rows_are_put_on_the_mesh(config, tokenizer):
    mesh = make_mesh(2, 2, 2)
    batch = next(iterator(config, tokenizer))
    on_mesh = put(batch, batch_sharding(mesh), 4)
    equal(jax.tree.map(np.asarray, on_mesh), batch)
    assert {shard.data.shape[0] for shard in on_mesh['tokens'].addressable_shards} == {1}


def test_errors(tokenizer, stored, tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        iterator(DatasetConfig(path=str(tmp_path / 'x')), tokenizer)
    with pytest.raises(ValueError, match="no split 'test'"):
        iterator(DatasetConfig(path=stored, split='test'), tokenizer)
    with pytest.raises(ValueError, match='set its images to 1, not 5'):
        iterator(DatasetConfig(path=stored, align=True), tokenizer)
