"""What is read back is what was written, or an error, or the checkpoint before."""

import json
import resource
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.checkpoints.run_format import read_latest
from flamingo_jax.training.checkpoint import Checkpoints
from flamingo_jax.training.progress import Skipped
from flamingo_jax.training.state import TrainState

pytestmark = pytest.mark.usefixtures('quick_compilation')

RECIPE = {
    'seed': 0,
    'datasets': ['web'],
    'datasets.web.batch_size': 8,
    'datasets.web.documents': 1,
    'optimizer.learning_rate': 0.1,
}


def a_state(step, size=4):
    params = dict(xattn=jax.random.normal(jax.random.key(step), (size,)))
    return TrainState(jnp.int32(step), params, dict(mu=params), jax.random.key(step))


def shapes_of(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def write(folder, about, steps, keep=3, size=4, recipe=RECIPE):
    checkpoints = Checkpoints(folder, keep, about, recipe)
    for step in steps:
        checkpoints.save(a_state(step, size), dict(web=step), Skipped(step, 1))
    checkpoints.close()


def assert_restores(folder, about, step):
    restored, positions, skipped = Checkpoints(folder, 3, about, RECIPE).restore(shapes_of(a_state(99)))
    assert positions == dict(web=step) and skipped == Skipped(step, 1)
    np.testing.assert_array_equal(restored.params['xattn'], a_state(step).params['xattn'])
    assert (jax.random.key_data(restored.key) == jax.random.key_data(a_state(step).key)).all()


@pytest.fixture
def about(config):
    return dict(model=config.to_json(), trained=['xattn'])


@pytest.fixture(scope='module')
def written(config, tmp_path_factory):
    """Three checkpoints; tests that damage them copy the folder."""
    folder = tmp_path_factory.mktemp('written')
    write(folder, dict(model=config.to_json(), trained=['xattn']), (1, 2, 3))
    return folder


@pytest.fixture
def run(written, tmp_path):
    subprocess.run(['cp', '-r', f'{written}/checkpoints', str(tmp_path)], check=True)
    return tmp_path


def files(checkpoint):
    return sorted(file for file in checkpoint.rglob('*') if file.is_file() and file.stat().st_size)


def test_a_run_from_before_a_field_of_the_config_existed_resumes(config, about, tmp_path):
    old = json.loads(json.dumps(about))
    del old['model']['vision']['family'], old['model']['lm']['kv_heads']
    write(tmp_path, old, [1])
    # The missing number of heads means today's default, which is not what this model has.
    with pytest.raises(ValueError, match=r'another model.* model.lm.kv_heads \(there 16, here 2\)\. '):
        Checkpoints(tmp_path, 1, about, RECIPE)
    about['model']['lm']['kv_heads'] = 16
    assert_restores(tmp_path, about, 1)


def test_the_newest_are_kept(about, tmp_path):
    write(tmp_path, about, (1, 2, 5, 7), keep=2)
    assert sorted(entry.name for entry in (tmp_path / 'checkpoints').iterdir()) == ['5', '7']
    assert_restores(tmp_path, about, 7)


@pytest.mark.parametrize('damage', ['flip', 'cut', 'empty', 'delete'])
def test_damage_to_any_file_falls_back_to_the_checkpoint_before(run, about, damage, capsys):
    """A reader changes nothing, so that each file is damaged and mended in turn."""
    seen = files(run / 'checkpoints/3')
    assert {'checksums.json', '_METADATA', 'manifest.ocdbt'} <= {file.name for file in seen}
    rng = np.random.default_rng(0)
    for file in seen:
        whole = file.read_bytes()
        at = rng.integers(len(whole))
        flipped = whole[:at] + bytes([whole[at] ^ 1 << rng.integers(8)]) + whole[at + 1 :]
        file.unlink()
        if damage != 'delete':
            file.write_bytes(dict(flip=flipped, cut=whole[:-1], empty=b'')[damage])
        assert read_latest(run)[2] == 2, file
        assert f'The checkpoint {run}/checkpoints/3 is damaged' in capsys.readouterr().out
        file.write_bytes(whole)
    assert read_latest(run)[2] == 3


def test_a_damaged_checkpoint_is_put_aside_and_the_run_goes_on(run, about, capsys):
    (run / 'checkpoints/3/state/manifest.ocdbt').unlink()
    assert_restores(run, about, 2)
    out = capsys.readouterr().out
    assert 'state/manifest.ocdbt is missing' in out and 'Using the one before' in out
    # keep=1: the damaged checkpoint, though newer, must not count as the one to keep.
    write(run, about, [3], keep=1)
    assert sorted(entry.name for entry in (run / 'checkpoints').iterdir()) == ['3', 'damaged-3']
    assert_restores(run, about, 3)


def test_if_none_is_whole_nothing_is_started_anew(run, about):
    for step in (1, 2, 3):
        (run / f'checkpoints/{step}/checksums.json').unlink()
    for read in (lambda: Checkpoints(run, 3, about, RECIPE), lambda: read_latest(run)):
        with pytest.raises(OSError, match=r'All checkpoints in .* are damaged: those of the steps \[3, 2, 1\]'):
            read()
    assert sorted(entry.name for entry in (run / 'checkpoints').iterdir()) == ['1', '2', '3']


def test_what_a_killed_process_left_is_removed(run, about):
    left = run / 'checkpoints/writing-4'
    left.mkdir()
    (left / 'state').write_bytes(b'half')
    assert read_latest(run)[2] == 3
    assert_restores(run, about, 3)
    assert not left.exists()


def test_another_recipe_is_refused_unless_it_is_wanted(run, about, capsys):
    other = RECIPE | {
        'seed': 1,
        'datasets': ['pairs', 'web'],
        'datasets.web.batch_size': 4,
        'optimizer.learning_rate': 0.2,
    }
    with pytest.raises(ValueError, match='another recipe') as error:
        Checkpoints(run, 3, about, other)
    for line in (
        "datasets (there ['web'], here ['pairs', 'web'])",
        'web.batch_size (there 8, here 4)',
        'seed (there 0',
    ):
        assert line in str(error.value)
    assert 'optimizer' not in str(error.value) and 'config.resume_changed=True' in str(error.value)
    for changed, allowed, batches in ((other, True, 6), (RECIPE | {'optimizer.learning_rate': 0.2}, False, 3)):
        assert Checkpoints(run, 3, about, changed, allowed).restore(shapes_of(a_state(99)))[1] == dict(web=batches)
        assert 'optimizer.learning_rate (there 0.1, here 0.2)' in capsys.readouterr().out


@pytest.mark.parametrize(
    'key, value, batches', [('batch_size', 2, 12), ('batch_size', 7, 4), ('batch_size', 32, 1), ('documents', 2, 2)]
)
def test_a_run_with_other_batches_goes_on_after_the_documents_already_read(run, about, key, value, batches):
    """Three batches of 8 documents."""
    checkpoints = Checkpoints(run, 3, about, RECIPE | {f'datasets.web.{key}': value}, resume_changed=True)
    assert checkpoints.restore(shapes_of(a_state(99)))[1] == dict(web=batches)


def test_a_checkpoint_from_before_recipes_resumes(about, tmp_path, capsys):
    write(tmp_path, about, [1], recipe={})
    assert_restores(tmp_path, about, 1)
    write(tmp_path, about, [2], recipe=RECIPE)
    # A key that the checkpoint does not know is not compared.
    Checkpoints(tmp_path, 3, about, RECIPE | dict(round_robin=True))
    assert 'Changed' not in capsys.readouterr().out


@pytest.mark.parametrize('where', ['params', 'opt_state'])
def test_a_state_that_is_not_finite_is_never_saved(about, tmp_path, where):
    checkpoints = Checkpoints(tmp_path, 3, about, RECIPE)
    checkpoints.save(a_state(1), dict(web=1), Skipped())
    bad = jax.tree.map(lambda x: x.at[2].set(jnp.inf), getattr(a_state(2), where))
    with pytest.raises(FloatingPointError, match='not finite after step 2.*optimizer.learning_rate'):
        checkpoints.save(a_state(2)._replace(**{where: bad}), dict(web=2), Skipped())
    checkpoints.close()
    assert [entry.name for entry in (tmp_path / 'checkpoints').iterdir()] == ['1']


def test_a_checkpoint_from_before_there_were_checksums_is_read(run, about, capsys):
    for step in (1, 2, 3):
        file = run / f'checkpoints/{step}/_CHECKPOINT_METADATA'
        fields = json.loads(file.read_text())
        del fields['custom_metadata']['checksums']
        file.write_text(json.dumps(fields))
        (run / f'checkpoints/{step}/checksums.json').unlink()
    assert_restores(run, about, 3)
    assert 'used unchecked' in capsys.readouterr().out


@pytest.fixture(params=['tmpfs', 'limit'])
def small_disk(request, tmp_path):
    """A folder that takes two checkpoints of 300 kB and not four, or no file above 200 kB."""
    if request.param == 'limit':
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        yield tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    else:
        if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1M', 'none', str(tmp_path)]).returncode:
            pytest.skip('only root may mount a file system')
        yield tmp_path, lambda: None
        subprocess.run(['umount', '-l', str(tmp_path)], check=True)


def test_a_full_disk_is_an_error_that_leaves_older_checkpoints_whole(small_disk, about):
    folder, fill = small_disk
    size = 35_000
    checkpoints = Checkpoints(folder, 9, about, RECIPE)
    checkpoints.save(a_state(1, size), dict(web=1), Skipped())
    checkpoints.wait()
    fill()
    with pytest.raises(
        OSError, match=r'could not be written to .*[\s\S]*The checkpoints of the steps \[(3, )?(2, )?1\] are whole'
    ):
        for step in (2, 3, 4):
            checkpoints.save(a_state(step, size), dict(web=step), Skipped())
        checkpoints.close()
    step = read_latest(folder)[2]
    assert step in (1, 2, 3)
    restored, *_ = Checkpoints(folder, 9, about, RECIPE).restore(shapes_of(a_state(99, size)))
    np.testing.assert_array_equal(restored.params['xattn'], a_state(step, size).params['xattn'])


def test_a_disk_that_is_full_for_a_while_does_not_end_a_run(about, tmp_path, capsys, monkeypatch):
    """What failed is saved again with a later state; the last state, which has no later one, at once."""
    before, paused = resource.getrlimit(resource.RLIMIT_FSIZE), []
    checkpoints = Checkpoints(tmp_path, 9, about, RECIPE)

    def fill(yes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000 if yes else before[0], before[1]))

    def has_room_after(pause):
        paused.append(pause)
        fill(False)

    def save(step, **how):
        checkpoints.save(a_state(step, 75_000), dict(web=step), Skipped(), **how)

    monkeypatch.setattr('flamingo_jax.training.checkpoint.time.sleep', has_room_after)
    try:
        save(1)
        assert checkpoints.wait()
        fill(True)
        save(2)
        assert not checkpoints.wait() and 'of step 2 could not be written' in capsys.readouterr().out
        save(3)
        assert checkpoints.wait() and len(paused) == 1
        fill(True)
        save(4, last=True)
        assert len(paused) == 2 and 'The checkpoints of the steps [3, 1] are whole' in capsys.readouterr().out
        checkpoints.close()
    finally:
        fill(False)
    assert sorted(entry.name for entry in (tmp_path / 'checkpoints').iterdir()) == ['1', '3', '4']
    np.testing.assert_array_equal(read_latest(tmp_path)[1]['xattn'], a_state(4, 75_000).params['xattn'])


@pytest.mark.parametrize('devices', [4, 1])
def test_a_checkpoint_goes_onto_other_devices(about, tmp_path, devices):
    """Written by 8 devices; each reads only what it holds."""

    def lay(state, devices):
        mesh = jax.make_mesh((devices,), ('x',), devices=jax.devices()[:devices])
        where = {64: jax.sharding.NamedSharding(mesh, jax.P('x'))}
        whole = jax.sharding.NamedSharding(mesh, jax.P())
        return jax.device_put(state, jax.tree.map(lambda x: where.get(x.size, whole), state))

    checkpoints = Checkpoints(tmp_path, 1, about, RECIPE)
    checkpoints.save(lay(a_state(1, 64), 8), dict(web=1), Skipped())
    checkpoints.close()
    shapes = shapes_of(lay(a_state(99, 64), devices))
    restored, *_ = Checkpoints(tmp_path, 1, about, RECIPE).restore(shapes)
    assert restored.params['xattn'].sharding == shapes.params['xattn'].sharding
    np.testing.assert_array_equal(restored.params['xattn'], a_state(1, 64).params['xattn'])
