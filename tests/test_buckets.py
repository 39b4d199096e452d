"""What is in a bucket is there as a whole or not at all, at gs:// and at s3://, while requests fail and writers die."""

import contextlib
import json
import pathlib
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

import flamingo_jax
from data.pairs.build import Pairs
from flamingo_jax import files, locks
from flamingo_jax.building import write as building
from flamingo_jax.checkpoints import bundle, bundle_of_run
from flamingo_jax.checkpoints.run_format import newest_whole, read_latest, steps
from flamingo_jax.errors import StorageError
from flamingo_jax.evaluation import answered
from flamingo_jax.evaluation.answered import Answered
from flamingo_jax.evaluation.run import evaluate
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.tasks.texts import Texts
from flamingo_jax.training import tensorboard
from flamingo_jax.training.checkpoint import Checkpoints
from flamingo_jax.training.progress import Skipped
from tests.building.readers.published import SETS
from tests.object_stores import FAILURES, STORES
from tests.test_evaluate import small
from tests.tiny_run import ROOT, SAMPLE, losses, make_parts
from tests.training.test_checkpoint import RECIPE, a_state, assert_restores, write

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(params=STORES)
def store(request):
    """An empty bucket."""
    store = STORES[request.param]()
    yield store
    store.states, store.failures = None, 0.0
    files.remove(files.as_path(store.url) / 'here')


@pytest.fixture
def place(store):
    return files.as_path(store.url) / 'here'


@pytest.fixture
def about(config):
    return dict(model=config.to_json(), trained=['xattn'])


def test_files_are_written_listed_copied_and_removed(place, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    files.write_whole(place / 'a/b.txt', b'first')
    files.write_whole(place / 'c.tar', b'')
    assert files.below(place) == {'a/b.txt': 5, 'c.tar': 0}
    assert files.find(f'{place}/*.tar') == [f'{place}/c.tar'] and files.find(f'{place}/**/b.*') == [f'{place}/a/b.txt']
    copy = files.local(place / 'a')
    assert copy.name == 'a' and (copy / 'b.txt').read_bytes() == b'first' and files.local(place / 'a') == copy
    files.write_whole(place / 'a/b.txt', b'later')
    assert (files.local(place / 'a') / 'b.txt').read_bytes() == b'later'
    assert files.local(place / 'a/b.txt').read_bytes() == b'later'
    with pytest.raises(FileNotFoundError, match='no file and no folder'):
        files.local(place / 'nothing')
    with files.beside(f'{place}/a/b.txt') as here:
        assert open(here).read() == 'later'
    with files.whole(place / 'd', last='2') as aside:
        aside.mkdir()
        for name in '312':
            (aside / name).write_text(name)
    assert list(files.below(place / 'd')) == ['1', '2', '3']
    files.remove(place, first='c.tar')
    files.remove(place)
    assert not place.exists() and files.below(place) == {}


def test_an_error_leaves_nothing(place):
    with pytest.raises(ZeroDivisionError), files.whole_folder(place / 'm', 'last') as folder:
        files.write_whole(folder / 'first', b'1')
        1 / 0  # noqa: B018
    assert files.below(place) == {}
    files.write_whole(place / 'm/first', b'of somebody else')
    for folder in ('m', ''):
        with pytest.raises(FileExistsError, match='exists already'), files.whole_folder(place / folder, 'last'):
            pass
    assert files.below(place) == {'m/first': 16}
    files.write_whole(place / 'm' / files.FILLING, b'')  # What a process left that was killed.
    with files.whole_folder(place / 'm', 'last') as folder:
        files.write_whole(folder / 'last', b'')
    assert files.below(place) == {'m/last': 0}
    with pytest.raises(FileExistsError, match='exists already'), files.whole_folder(place / 'm', 'last'):
        pass


def test_answers_that_are_kept_are_not_uploaded_again_and_again(place, monkeypatch):
    monkeypatch.setattr(answered, 'OBJECT', 200)
    kept = Answered(['a checkpoint'], place / 'run')
    for i in range(20):
        kept.add({f'question {i}': 'dog'})
    sizes = files.below(place / 'run').values()
    assert 3 < len(sizes) < 20 and max(sizes) < 300
    again = Answered(['a checkpoint'], place / 'run')
    assert {again.get(f'question {i}') for i in range(20)} == {'dog'}


def test_events_are_in_several_objects(place, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(tensorboard, 'LARGEST', 400)
    monkeypatch.setattr(tensorboard, 'EVERY', -1)
    written = tensorboard.TensorBoard(place / 'run')
    for step in range(20):
        written.write(step, dict(loss=1.0))
    written.close()
    assert len(files.below(place / 'run')) > 2
    assert sorted(losses(files.local(place / 'run'))) == [(step, 1.0) for step in range(20)]


@pytest.mark.long
def test_checkpoints_are_kept_and_restored_while_requests_fail(store, place, about):
    with store.failing(0.05):
        write(place, about, (1, 2, 5), keep=2)
        assert_restores(place, about, 5)
    assert store.failed > 2
    assert sorted(entry.name for entry in (place / 'checkpoints').iterdir()) == ['2', '5']


@pytest.mark.long
@pytest.mark.parametrize('how', FAILURES)
def test_what_was_saved_outlives_a_bucket_that_fails(store, place, about, how, monkeypatch):
    """A save while requests fail is made, or ends with an error that says what is whole. Both may be: so by chance."""
    monkeypatch.setattr('flamingo_jax.training.checkpoint.PAUSES', (0.0, 0.0, 0.0))
    write(place, about, (1, 2))
    checkpoints = Checkpoints(place, 9, about, RECIPE)
    made, told = [], []

    def save():
        try:
            checkpoints.save(a_state(3), dict(web=3), Skipped(3, 1), last=True)
            made.append(3)
        except StorageError as error:
            told.append(str(error))

    with store.failing(0.2, how):
        # Orbax writes its metadata by s3fs 2026.9, which may wait for ever for a request that was reset. A run's
        # Watchdog then ends the process.
        saving = threading.Thread(target=save, daemon=True)
        saving.start()
        saving.join(100)
    assert made or all('The checkpoint of step 3 could not be written to' in text for text in told)
    assert made or told or saving.is_alive()
    assert store.failed
    newest = newest_whole(place / 'checkpoints')
    assert newest == 3 or newest == 2 and not made
    assert_restores(place, about, newest)
    files.remove(place / 'checkpoints' / '3', first='checksums.json')
    assert_restores(place, about, 2)


@pytest.mark.long
def test_a_bucket_that_does_not_answer_is_not_an_empty_one(store, place, about, monkeypatch):
    """Whether a checkpoint is there cannot be told: an error, and nothing is begun anew or cleared away."""
    monkeypatch.setattr('gcsfs.retry.asyncio.sleep', no_pause)
    monkeypatch.setattr('s3fs.core.asyncio.sleep', no_pause)
    write(place, about, (1, 2))
    with store.failing(1.0), pytest.raises(StorageError, match='checkpoints cannot be listed'):
        Checkpoints(place, 9, about, RECIPE)
    assert_restores(place, about, 2)


async def no_pause(*_):
    """Instead of the pauses of clients between two tries."""


@pytest.mark.long
def test_a_lost_answer_loses_no_finished_checkpoint(store, place, about):
    """A request that is carried out and repeated can be an error, which ends a save and not what was saved before."""
    write(place, about, [1])
    with store.failing(0.2, lost=True), contextlib.suppress(OSError):
        write(place, about, [2])
    assert_restores(place, about, newest_whole(place / 'checkpoints'))


@pytest.mark.long
def test_after_a_kill_at_any_request_the_newest_finished_checkpoint_is_read(store, place, about):
    store.states = []
    write(place, about, (1, 2), keep=1)
    states, store.states = store.states, None
    seen = []
    for state in states:
        store.go_back(state)
        seen.append(newest_whole(place / 'checkpoints') or 0)
        if seen[-1] not in (0, *seen[:-1]):
            trained, step = read_latest(place)[1:]
            assert step == seen[-1]
            np.testing.assert_array_equal(trained['xattn'], a_state(step).params['xattn'])
    assert sorted(set(seen)) == [0, 1, 2] and seen == sorted(seen)
    # The last state before each finished checkpoint has the most of an unfinished one.
    for step in (1, 2):
        store.go_back(states[seen.index(step) - 1])
        checkpoints = Checkpoints(place, 1, about, RECIPE)
        checkpoints.save(a_state(9), dict(web=9), Skipped(9, 1))
        checkpoints.close()
        assert [entry.name for entry in (place / 'checkpoints').iterdir()] == ['9']
        assert_restores(place, about, 9)


def test_a_damaged_checkpoint_is_put_aside(place, about, capsys):
    write(place, about, (1, 2))
    file = place / 'checkpoints/2/state/manifest.ocdbt'
    files.write_whole(file, file.read_bytes()[:-1])
    assert_restores(place, about, 1)
    assert 'manifest.ocdbt differs from its checksum' in capsys.readouterr().out
    assert sorted(entry.name for entry in (place / 'checkpoints').iterdir()) == ['1', 'damaged-2']


@pytest.mark.long
def test_a_bundle_is_whole_or_none_after_a_kill_at_any_request(store, place, config, params):
    store.states = []
    bundle.save(place / 'model', config, params, tokenizer=None, image_tag='text', card='# A card')
    states, store.states = store.states, None
    whole = 0
    for state in states:
        store.go_back(state)
        try:
            found = bundle.read(place / 'model')
        except FileNotFoundError:
            continue
        whole += 1
        for name in params:
            assert jax.tree.all(jax.tree.map(np.array_equal, found.params(name), params[name]))
    assert whole == 2  # With its last file, and then without the mark of one that is being filled.
    with pytest.raises(FileExistsError, match='exists already'):
        bundle.save(place / 'model', config, params, tokenizer=None, image_tag='text', card='')


def test_texts_about_images_may_lie_in_a_bucket(place):
    images = ImageSet(SAMPLE, 'train', ImageFormat(8))
    names = [found[0].names['en'] for found in images.by_concept.values()]
    lines = [json.dumps(dict(name=name, says=f'A {name}', text=f' is a {name}.')) for name in names[:2]]
    files.write_whole(place / 'texts.jsonl', '\n'.join(lines).encode())
    sequences = Texts.Sequences(path=f'{place}/texts.jsonl')
    sequences.open(images, shots=2)
    assert sorted(images.by_concept[concept][0].names['en'] for concept in sequences.concepts) == sorted(names[:2])


def test_a_data_set_is_built_from_a_bucket_into_a_bucket(store, place, tmp_path, monkeypatch):
    """The same bytes as on this machine, and after a kill at any request either all of it or no data set."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    (tmp_path / 'raw').mkdir()
    written = SETS['pairs'](tmp_path / 'raw')
    here = building.build(Pairs, str(tmp_path / 'out'), source=str(written.path))
    files.upload(tmp_path / 'raw', place / 'raw')
    store.states = []
    folder = building.build(Pairs, f'{place}/out', source=f'{place}/raw/*{written.path.suffix}')
    states, store.states = store.states, None
    assert str(folder) == f'{place}/out/{here.relative_to(tmp_path / "out")}'
    for name in files.below(here):
        if name != 'dataset_info.json':  # It says when it was made.
            assert (folder / name).read_bytes() == (here / name).read_bytes(), name
    records = list(open_split(here, 'train'))
    opened = 0
    for state in states:
        store.go_back(state)
        with contextlib.suppress(FileNotFoundError):
            assert [record['id'] for record in open_split(folder, 'train')] == [record['id'] for record in records]
            opened += 1
    assert opened == 2  # With its last file, and then without the lease of the process that built it.
    monkeypatch.setattr(locks, 'LEASE', 2.0)  # Here the holder of what is left lives, and does not renew it.
    store.go_back(states[-3])  # Of what a killed build left, the next one is made.
    assert files.below(building.build(Pairs, f'{place}/out', source=str(written.path))) == files.below(folder)


@pytest.mark.long
def test_a_run_is_killed_resumed_evaluated_and_exported_in_a_bucket(store, place, tmp_path, monkeypatch):
    """Bundles, features, data set, workdirs and reports are all there; the parameters are those of a run on a disk."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    make_parts(place / 'parts')
    data = f'{place}/data'
    files.upload(pathlib.Path(SAMPLE), place / 'data', last='dataset_info.json')
    run = [sys.executable, str(ROOT / 'tests/tiny_run.py'), f'{place}/parts']
    here = subprocess.run([*run, str(tmp_path / 'run'), '12'], cwd=ROOT, capture_output=True, text=True)
    assert here.returncode == 0, here.stderr
    # Killed once its first checkpoint is there, with others on their way. Tests above kill at any request.
    there = [*run, f'{place}/run', '12', f'--data={data}']
    begun = subprocess.Popen(there, cwd=ROOT, stderr=subprocess.PIPE)
    while not steps(place / 'run/checkpoints'):
        assert begun.poll() is None, begun.communicate()[1]
        time.sleep(0.1)
    begun.kill()
    begun.communicate()
    again = subprocess.run(there, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    (_, expected, _), (_, found, step) = read_latest(tmp_path / 'run'), read_latest(place / 'run')
    assert step == 12
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert any(name.startswith('events.out.tfevents') for name in files.below(place / 'run'))
    evaluate(small(place / 'parts', data=str(data)), f'{place}/run', f'{place}/report')
    assert {'report.json', 'report.png', 'contact_sheet.html', 'queries.jsonl'} <= set(files.below(place / 'report'))
    # This emulator of gs:// gives TensorStore a generation that it cannot read, for some of the bundle's objects.
    model = tmp_path / 'model' if str(place).startswith('gs') else f'{place}/model'
    bundle_of_run.write(f'{place}/run', str(model))
    loaded = flamingo_jax.load(str(model))
    again = flamingo_jax.load(f'{place}/run')
    assert loaded.generate(['x'], max_new_tokens=2) == again.generate(['x'], max_new_tokens=2)
