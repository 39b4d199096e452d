"""What is trained on is a function of seed and position alone."""

import dataclasses
import io
import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import grain.python as grain
import jax
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from absl import flags

from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.pipeline import _Rows, _seed_of, batches, put, read, rows
from flamingo_jax.inputs.rows import Interleaved
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.parallel.mesh import batch_sharding, make_mesh
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.words import Words
from flamingo_jax.training.objectives.aligned import Aligned

pytestmark = pytest.mark.usefixtures('quick_compilation')

ROOT = pathlib.Path(__file__).parents[2]
SAMPLE = str(ROOT / 'data/picture_dictionary/sample')
DOCUMENTS = 13
IMAGES = ImageFormat(8)


def png(number):
    file = io.BytesIO()
    PIL.Image.new('RGB', (8, 8), (number, 0, 0)).save(file, 'PNG')
    return file.getvalue()


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """Thirteen documents: a title, an image, its caption; every fourth image is damaged."""
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


@pytest.fixture(params=['documents', 'lines', 'few_shot', 'align'])
def config(request, stored):
    shape = dict(length=32, batch_size=4)
    if request.param in ('documents', 'align'):
        row = Aligned if request.param == 'align' else Interleaved
        return Documents(path=stored, images=1, row=row, **shape)
    if request.param == 'lines':
        return Documents(path=stored, images=4, documents=5, window=(24, 1), lines=2, **shape)
    games = dict(bind=game(Words, classes=(2, 3)))
    return FewShot(path=SAMPLE, styles=('noto', 'fluent-flat'), images=3, shots=3, games=games, **shape)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def iterator(config, tokenizer, seed=0, start=0):
    return read(batches({'x': config}, tokenizer, IMAGES, seed)['x'], start, config.workers)


def test_one_seed_gives_the_same_batches(config, tokenizer):
    one, again, other = (list(itertools.islice(iterator(config, tokenizer, seed), 3)) for seed in (0, 0, 1))
    for a, b in zip(one, again, strict=True):
        equal(a, b)
    drawn = [batch.text if config.row is Aligned else batch.tokens for batch in (one[0], other[0], one[1])]
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    # An empty document tells the shapes of all, without the data: `plan` has them from there.
    empty = config.empty_row(tokenizer, IMAGES)
    kinds = [jax.tree.map(lambda x: (np.shape(x), x.dtype), part) for part in (one[0], empty)]
    assert kinds[0] == jax.tree.map(lambda kind: ((4, *kind[0]), kind[1]), kinds[1], is_leaf=lambda x: type(x) is tuple)
    assert one[0].images.shape == (4, config.images, 1, 8, 8, 3) and drawn[0].shape[-1] == 32
    assert drawn[0].shape[:-1] == ((4,) if config.lines == 1 else (4, 2))


def test_a_run_resumes_in_the_middle(config, tokenizer):
    """Past the end of an epoch of documents, too."""
    whole = list(itertools.islice(iterator(config, tokenizer), 8))
    for expected, got in zip(whole[5:], iterator(config, tokenizer, start=5), strict=False):
        equal(got, expected)


def test_processes_read_the_rows_that_their_devices_hold(config, tokenizer):
    """The position counts batches of all processes together.

    That rows fit devices: tests/parallel/test_processes.py.
    """
    whole = rows(config, tokenizer, IMAGES, _seed_of(0, 'x'))
    two_of_four = grain.MapDataset.source(_Rows(whole, 4, (1, 3))).batch(2)
    for start in (0, 5):
        batch, some = next(iterator(config, tokenizer, start=start)), next(read(two_of_four, start, 0))
        for row in range(4):
            equal(jax.tree.map(lambda x, row=row: x[row], batch), whole[4 * start + row])
        equal(some, jax.tree.map(lambda x: x[1::2], batch))


def test_workers_change_nothing(config, tokenizer, stored):
    """Processes that build sequences; one of the two kinds is enough."""
    flags.FLAGS.mark_as_parsed()  # Grain's workers read flags of its own.
    expected = list(itertools.islice(iterator(config, tokenizer), 3))
    got = list(itertools.islice(iterator(dataclasses.replace(config, workers=1), tokenizer, start=1), 2))
    for a, b in zip(got, expected[1:], strict=True):
        equal(a, b)


def test_workers_go_on_when_their_group_is_told_to_stop(tokenizer, stored):
    """The process that trains needs batches until it has saved; machines that are taken away tell all processes."""
    flags.FLAGS.mark_as_parsed()
    config = Documents(path=stored, images=1, length=32, batch_size=4, workers=2)
    several, before = iterator(config, tokenizer), set(multiprocessing.active_children())
    workers = set()

    def tell():
        while len(workers) < 2:
            for worker in set(multiprocessing.active_children()) - before - workers:
                os.kill(worker.pid, signal.SIGTERM)
                workers.add(worker)

    telling = threading.Thread(target=tell, daemon=True)  # It must not outlive a test that fails.
    telling.start()
    next(several)  # Each worker is told as soon as it is there, and again below, once it works.
    telling.join(60)
    assert len(workers) == 2
    for _ in range(30):  # More than wait.
        next(several)
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
    for _ in range(30):
        next(several)
    assert all(worker.is_alive() for worker in workers)
    with pytest.raises(KeyboardInterrupt):  # This process still hears it.
        handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, handler)


def test_a_worker_ends_with_the_process_that_trains():
    """Its parent was killed: nobody would end it."""
    script = (
        'import multiprocessing, os, time\n'
        'from flamingo_jax.inputs.pipeline import _go_on\n'
        'def work():\n'
        '    _go_on(0, 1)\n'
        '    print(os.getpid(), flush=True)\n'
        '    time.sleep(1)\n'
        '    print("goes on", flush=True)\n'
        '    time.sleep(600)\n'
        'multiprocessing.get_context("fork").Process(target=work).start()\n'
        'time.sleep(600)\n'
    )
    parent = subprocess.Popen([sys.executable, '-c', script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, signal.SIGTERM)
    assert parent.stdout.readline() == 'goes on\n'  # It lives as long as its parent does.
    parent.kill()
    parent.wait()
    while pathlib.Path(f'/proc/{worker}').exists() and 'Z' not in pathlib.Path(f'/proc/{worker}/stat').read_text():
        time.sleep(0.05)


def test_an_epoch_has_every_document_once_and_the_next_another_order(stored, tokenizer):
    config = Documents(path=stored, length=40, images=1, batch_size=4)
    every = rows(config, tokenizer, IMAGES, _seed_of(0, 'x'))
    texts = [tokenizer.decode(every[i].tokens[1:]) for i in range(2 * DOCUMENTS)]
    assert len(set(texts[:DOCUMENTS])) == DOCUMENTS == len(set(texts[DOCUMENTS:]))
    assert set(texts[:DOCUMENTS]) == set(texts[DOCUMENTS:]) and texts[:DOCUMENTS] != texts[DOCUMENTS:]


def test_documents_become_chunks(stored, tokenizer):
    config = Documents(path=stored, length=40, images=1, batch_size=4)
    every = rows(config, tokenizer, IMAGES, _seed_of(0, 'x'))
    seen = 0
    for i in range(DOCUMENTS):
        text, row = tokenizer.decode(every[i].tokens[1:]), every[i]
        number = int(text.split('<EOC>')[0].removeprefix('page '))
        damaged = number % 4 == 3
        assert text == f'page {number}<EOC>' + ('' if damaged else f'<image>word {number}<EOC>')
        assert row.unreadable == damaged and row.phi.max() == 1 - damaged
        assert set(row.weights) == ({0.0} if damaged else {0.0, 0.5})
        assert (row.images[0, 0, :, :, 0] == (0 if damaged else 100 + number)).all()
        seen += damaged
    assert seen == 3
    bare = rows(Documents(path=stored, length=40, images=0, batch_size=4), tokenizer, IMAGES, 0)[0]
    assert bare.images is None and not bare.phi.any()


def test_packed_rows_offer_every_document_once_an_epoch(stored, tokenizer):
    config = Documents(path=stored, length=100, images=4, documents=4, window=(24, 1), batch_size=1)
    every = rows(config, tokenizer, IMAGES, _seed_of(0, 'x'))
    texts = ''.join(tokenizer.decode(every[i].tokens[: every[i].used]) for i in range(DOCUMENTS))  # Four epochs.
    assert [texts.count(f'word {number}<EOC>') for number in range(DOCUMENTS)] == [
        0 if number % 4 == 3 else 4 for number in range(DOCUMENTS)
    ]


def test_packed_rows_are_full(tokenizer):
    """Real sequences: names of the sample's images in its languages, of very different lengths."""
    names = dict(name=game(Names, languages=('en', 'de', 'ja', 'fi')))
    common = dict(path=SAMPLE, shots=1, games=names, batch_size=1, styles=('noto', 'fluent-flat'))
    config = FewShot(length=256, images=24, documents=24, window=(64, 2), **common)
    every = rows(config, tokenizer, IMAGES, 0)
    used = np.array([every[i].used for i in range(12)])
    alone = rows(FewShot(length=64, images=2, **common), tokenizer, IMAGES, 0)
    before = np.mean([alone[i].used for i in range(60)]) / 64
    assert used.mean() / 256 > 0.9 > before + 0.2
    assert {int(every[i].document.max()) for i in range(12)} != {1}


@pytest.mark.parametrize('documents', [1, 12])
def test_every_answer_of_a_game_sees_its_image(tokenizer, documents):
    """Names in Georgian are longer than the window here. What is cut is the end, never an image before its answer."""
    names = dict(name=game(Names, prompt=' Question: What is this? Answer:', languages=('en', 'ka')))
    common = dict(path=SAMPLE, shots=3, games=names, styles=('noto', 'fluent-flat'), documents=documents)
    every = rows(FewShot(length=96, images=8, window=(48, 3), **common), tokenizer, IMAGES, 0)
    drawn = [every[i] for i in range(20)]
    assert all((row.phi[row.weights > 0] > 0).all() for row in drawn)
    assert sum((row.weights > 0).any() for row in drawn) > 15
    assert any(row.used == 96 for row in drawn)  # Some are cut.


def test_rows_are_put_on_the_mesh(config, tokenizer):
    mesh = make_mesh(2, 2, 2)
    batch = next(iterator(config, tokenizer))
    on_mesh = put(batch, batch_sharding(mesh), 4)
    equal(jax.tree.map(np.asarray, on_mesh), batch)
    assert {shard.data.shape[0] for shard in on_mesh.tokens.addressable_shards} == {1}


def test_errors(tokenizer, stored, tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        iterator(Documents(path=str(tmp_path / 'x')), tokenizer)
    with pytest.raises(ValueError, match="no split 'test'"):
        iterator(Documents(path=stored, split='test'), tokenizer)
    with pytest.raises(ValueError, match='has images=5. Set its images to 1'):
        iterator(Documents(path=stored, row=Aligned), tokenizer)
    with pytest.raises(ValueError, match='not Aligned. Set `documents` of the data set to 1'):
        iterator(Documents(path=stored, row=Aligned, images=1, documents=2), tokenizer)
    with pytest.raises(ValueError, match='have 2 lines. Set `documents`'):
        iterator(Documents(path=stored, lines=2), tokenizer)
    with pytest.raises(ValueError, match='cannot hold 0 documents'):
        iterator(Documents(path=stored, documents=0), tokenizer)
    asked = dict(name=game(Names, prompt=' Question: What is this? Answer:'))
    few_shot = dict(path=SAMPLE, shots=1, games=asked, styles=('noto',))
    with pytest.raises(ValueError, match="game 'name', 16 have no answer within 8 tokens and 5 .* larger `length`"):
        iterator(FewShot(length=8, **few_shot), tokenizer)
    with pytest.raises(ValueError, match='within 9 tokens and 1 images. Give the data set a larger `window`'):
        iterator(FewShot(length=64, documents=5, window=(9, 1), **few_shot), tokenizer)


def test_data_sets_of_one_kind_draw_apart():
    assert len({_seed_of(seed, name) for seed in range(3) for name in ('words', 'names', 'pages')}) == 9
