"""Training for real: a run, its resumption, a kill, bad input."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import flamingo_jax
from flamingo_jax.checkpoints import bundle, bundle_of_run
from flamingo_jax.checkpoints.run_format import digests, read_latest
from flamingo_jax.inputs.rows import COUNTS
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.planning import flops, programs
from flamingo_jax.train import train
from flamingo_jax.training.config import machine
from flamingo_jax.training.objectives.aligned import Aligned
from tests.tiny_run import losses, tiny_config

# That a resumed run is bit-identical in what users compile, too, is for test_kills.py to show.
pytestmark = pytest.mark.usefixtures('quick_compilation')


def killed_after(step, run, workdir):
    """What a run is that was killed after some step: its checkpoint."""
    shutil.copytree(run / f'checkpoints/{step}', workdir / f'checkpoints/{step}')


def assert_same_parameters(a, b):
    (about_a, params_a, step_a), (about_b, params_b, step_b) = read_latest(a), read_latest(b)
    assert step_a == step_b
    assert about_a == about_b
    jax.tree.map(np.testing.assert_array_equal, params_a, params_b)


def test_a_run_reports_what_it_does(trained):
    workdir, metrics = trained
    assert np.isfinite(metrics['loss'])
    assert metrics['loss'] == pytest.approx(metrics['words/loss'] + 0.2 * metrics['names/loss'], rel=1e-5)
    assert {'gates/alpha_xattn', 'grad_norm', 'unreadable_images'} <= metrics.keys()
    assert 0 < metrics['speed/goodput'] <= 1
    # What a step counted is what its rows hold: images that are no blanks, documents, targets.
    assert 0 < metrics['words/images'] <= 8 * 4 and metrics['words/documents'] == 8
    assert 0 < metrics['words/targets'] < metrics['words/tokens'] <= 8 * 48
    assert list(workdir.glob('events.out.tfevents*'))
    assert sorted(p.name for p in (workdir / 'checkpoints').iterdir()) == ['2', '4', '6']


def test_speed_is_work_over_time_and_mfu_its_share_of_the_peak(parts, trained):
    _, metrics = trained
    seconds, both = metrics['speed/seconds_per_step'], ('words', 'names')
    for speed, counted in (('tokens', 'tokens'), ('images', 'images')):
        done = sum(metrics[f'{name}/{counted}'] for name in both)
        assert metrics[f'speed/{speed}_per_second'] * seconds == pytest.approx(done)
    run = programs.prepare(tiny_config(parts), make_mesh())
    every = flops.train_step(run.model.config, run.trained, run.sources)['total']
    peak = 1e12 * jax.device_count()  # Of `trained`.
    assert metrics['speed/mfu_with_padding'] * seconds * peak == pytest.approx(every)
    useful = 0
    for name in both:
        counts = {key: metrics[f'{name}/{key}'] for key in COUNTS}
        work = flops.useful(run.model.config, run.sources[name], counts)
        useful += flops.operations(run.model.config, run.trained, run.sources[name], work)['total']
    assert metrics['speed/mfu'] * seconds * peak == pytest.approx(useful) and 0 < useful < every


def test_checkpoints_hold_the_trained_trees_only(run):
    about, params, step = read_latest(run)
    assert step == 6
    assert set(params) == set(about['trained']) == {'resampler', 'xattn', 'extra_tokens'}
    assert set(about['frozen']) == {'lm', 'vision'}


def test_the_language_model_of_a_run_may_have_moved(parts, run, tmp_path):
    shutil.copytree(run, tmp_path / 'run')
    about = json.loads((run / 'run.json').read_text())
    about['frozen_paths']['lm'] = str(tmp_path / 'nowhere')
    (tmp_path / 'run/run.json').write_text(json.dumps(about))
    with pytest.raises(FileNotFoundError, match="The run .*run needs its frozen 'lm': .*nowhere is not .*--lm=BUNDLE"):
        flamingo_jax.load(tmp_path / 'run')
    assert flamingo_jax.load(tmp_path / 'run', lm=parts / 'lm').checksums == flamingo_jax.load(run).checksums


def test_a_run_without_its_tokenizer_says_how_to_get_it_back(run, tmp_path):
    shutil.copytree(run, tmp_path / 'run')
    (tmp_path / 'run/tokenizer.model').unlink()
    with pytest.raises(FileNotFoundError, match='Restore it, or start the training command again: it writes the file'):
        flamingo_jax.load(tmp_path / 'run')


def test_resumed_in_the_middle_is_bit_identical(parts, run, tmp_path):
    killed_after(4, run, tmp_path)
    train(tiny_config(parts), tmp_path)
    assert [step for step, _ in losses(tmp_path)] == [5, 6]
    assert_same_parameters(run, tmp_path)


@pytest.mark.long
def test_validation_disturbs_nothing_and_is_the_same_after_a_resumption(parts, run, tmp_path):
    tag, of = 'validation/words/loss', {}
    for step in (2, 4):
        killed_after(step, run, tmp_path / str(step))
        config = tiny_config(parts)
        config.datasets.words.validation_split, config.validate_every, config.validation_batches = 'test', 2, 3
        of[step] = train(config, tmp_path / str(step))
        assert dict(losses(tmp_path / str(step))).items() <= dict(losses(run)).items()
        assert_same_parameters(run, tmp_path / str(step))
    both, last = dict(losses(tmp_path / '2', tag)), dict(losses(tmp_path / '4', tag))
    assert both.keys() == {4, 6} and last.keys() == {6} and both[6] == last[6] and both[4] != both[6]
    assert of[4][tag] == of[2][tag] == pytest.approx(both[6]) and 'validation/names/loss' not in of[4]


@pytest.mark.long
def test_resumed_on_the_mesh_of_a_machine_is_the_same_run(parts, run, tmp_path):
    killed_after(4, run, tmp_path)
    config = tiny_config(parts)
    config.machines['cpu:8'], config.machine = machine(2, 2, 2, remat='dots'), 'cpu:8'
    train(config, tmp_path)
    got, expected = dict(losses(tmp_path)), dict(losses(run))
    assert got.keys() == {5, 6} and expected.keys() == {1, 2, 3, 4, 5, 6}
    for step, loss in got.items():
        assert loss == pytest.approx(expected[step], rel=1e-5), step


@pytest.fixture(scope='module')
def in_int8(parts, tmp_path_factory):
    """A run with the language model in int8."""
    workdir = tmp_path_factory.mktemp('int8')
    train(int8_config(parts), workdir)
    return workdir


def int8_config(parts):
    config = tiny_config(parts)
    del config.datasets.names
    config.frozen_dtype, config.checkpoint_every, config.optimizer.learning_rate = 'int8', 3, 3e-2
    return config


@pytest.mark.long
def test_a_frozen_language_model_in_int8_is_trained_with_and_resumed(parts, in_int8, tmp_path):
    killed_after(3, in_int8, tmp_path)
    train(int8_config(parts), tmp_path)
    assert_same_parameters(in_int8, tmp_path)
    recorded = [loss for _, loss in losses(in_int8)]
    assert len(recorded) == 6 and np.mean(recorded[-2:]) < recorded[0] - 0.05
    about, params, _ = read_latest(in_int8)
    assert about['frozen']['lm'] == bundle.read(parts / 'lm').checksums['lm']  # Of the bundle, which has not changed.
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    config = int8_config(parts)
    config.frozen_dtype = ''
    with pytest.raises(ValueError, match="frozen_dtype .there 'int8', here ''"):
        train(config, tmp_path)


@pytest.mark.long
def test_what_was_trained_is_loaded_in_int8_onto_a_mesh(in_int8):
    plain, on_mesh = (
        flamingo_jax.load(in_int8, mesh, dtype='int8') for mesh in (None, make_mesh(1, 4, 2, devices=jax.devices()))
    )
    jax.tree.map(np.testing.assert_array_equal, plain.params['lm'], on_mesh.params['lm'])
    up = on_mesh.params['lm']['blocks']['ffw']['up']['kernel']
    assert up.values.dtype == np.int8 and up.values.addressable_shards[0].data.size == up.values.size // 8
    prompt, candidates = [np.zeros((20, 20, 3), np.uint8), ' Output:'], [' dax', ' wug']
    np.testing.assert_allclose(plain.score(prompt, candidates), on_mesh.score(prompt, candidates), rtol=1e-4)
    whole = flamingo_jax.load(in_int8)
    np.testing.assert_allclose(plain.score(prompt, candidates), whole.score(prompt, candidates), rtol=2e-2)
    assert plain.generate(prompt, 4) == plain.at(16).generate(prompt, 4)


def test_a_bundle_is_quantised_into_the_shards_of_a_mesh(parts):
    plain, on_mesh = (
        flamingo_jax.load(parts / 'lm', mesh, dtype='int8').params['lm']
        for mesh in (None, make_mesh(1, 4, 2, devices=jax.devices()))
    )
    jax.tree.map(np.testing.assert_array_equal, plain, on_mesh)
    up = on_mesh['blocks']['ffw']['up']['kernel'].values
    assert up.dtype == np.int8 and up.addressable_shards[0].data.size == up.size // 8
    with pytest.raises(ValueError, match="dtype is 'int7'. Give one of 'float32', 'bfloat16', 'int8', 'int4', 'fp8'"):
        flamingo_jax.load(parts / 'lm', dtype='int7')


@pytest.mark.long
def test_int8_on_a_mesh_is_the_same_run(parts, in_int8, tmp_path):
    """But for activations that are rounded the other way, where a sum in another order lies on the border."""
    config = int8_config(parts)
    config.machines['cpu:8'], config.machine = machine(2, 2, 2, remat='dots'), 'cpu:8'
    train(config, tmp_path)
    got, expected = dict(losses(tmp_path)), dict(losses(in_int8))
    assert got[1] == pytest.approx(expected[1], rel=1e-3) and got[6] == pytest.approx(expected[6], rel=2e-2)


def test_a_run_becomes_a_bundle_that_stands_alone(run, tmp_path):
    bundle_of_run.write(str(run), str(tmp_path / 'bundle'))
    a, b = flamingo_jax.load(run), flamingo_jax.load(tmp_path / 'bundle')
    assert set(b.params) == {'vision', 'lm', 'resampler', 'xattn', 'extra_tokens'}
    image = np.zeros((20, 20, 3), np.uint8)
    scores = [m.score([image, ' Output:'], [' dax', ' wug']) for m in (a, b)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=2e-2)  # The bundle is bfloat16.


@pytest.mark.long
def test_a_trained_language_model_starts_from_its_bundle(parts, tmp_path):
    """The ablation of a language model that is not frozen (paper table 3, row viii) begins with the pretrained one."""
    config = tiny_config(parts)
    config.steps, config.optimizer.learning_rate = 1, 1e-12
    config.trained = ('lm', *config.trained)
    train(config, tmp_path)
    start = bundle.read(parts / 'lm').params('lm', np.float32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), read_latest(tmp_path)[1]['lm'], start)


@pytest.mark.long
def test_a_trunk_is_trained_from_its_bundle(parts, tmp_path):
    """One step moves it by no more than that step, and what was trained is what a user then loads."""
    config = tiny_config(parts)
    config.steps, config.trained, config.optimizer.warmup_steps = 1, ('vision', *config.trained), 0
    del config.datasets.words
    train(config, tmp_path)
    start, vision = bundle.read(parts / 'trunk').params('vision', np.float32), read_latest(tmp_path)[1]['vision']
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.02), vision, start)
    assert not np.array_equal(vision['trunk']['head']['kernel'], start['trunk']['head']['kernel'])
    loaded = flamingo_jax.load(tmp_path).params['vision']
    jax.tree.map(np.testing.assert_array_equal, loaded, vision)


@pytest.mark.long
def test_images_are_aligned_with_their_names(parts, tmp_path):
    """From pixels, blended, two rows a device. Each batch has other names, so it is validation that tells."""
    c = tiny_config(parts)
    c.steps, c.checkpoint_every, c.noise.blend = 12, 12, 0.5
    c.validate_every, c.validation_batches, c.optimizer.warmup_steps = 2, 8, 4
    del c.datasets.words
    c.datasets.names.update(length=12, images=1, row=Aligned, validation_split='test')
    c.datasets.names.shots, c.datasets.names.games.name.languages = 1, ('en',)
    c.mesh.tensor = 2
    train(c, tmp_path / 'run')
    assert len(losses(tmp_path / 'run')) == 12
    validated = dict(losses(tmp_path / 'run', 'validation/names/loss'))
    assert validated[12] < 0.97 * validated[2]


@pytest.mark.long
def test_steps_that_are_never_finite_stop_and_keep_the_last_good_checkpoint(parts, run, tmp_path):
    killed_after(2, run, tmp_path)
    config = tiny_config(parts)
    # Step 3 is finite and makes parameters of 1e30, from which no step is.
    config.steps, config.optimizer.learning_rate, config.max_skipped_steps = 12, 1e30, 3
    with pytest.raises(FloatingPointError, match='3 steps in a row, the last of them step 6 .*optimizer.learning_rate'):
        train(config, tmp_path)
    _, params, step = read_latest(tmp_path)
    assert step == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def _set(config: ConfigDict, key: str, value):
    *path, last = key.split('.')
    for part in path:
        config = config[part]
    config[last] = value


@pytest.mark.parametrize(
    'key, value, error, says',
    [
        ('lm', '/nowhere', FileNotFoundError, '/nowhere is not a bundle'),
        ('datasets.words.path', '/nowhere', FileNotFoundError, 'The data set /nowhere does not exist'),
        ('datasets.words.features', '/nowhere', FileNotFoundError, 'flamingo_jax.features'),
        ('datasets.words.styles', ('sketch',), ValueError, "no images of style \\['sketch'\\]"),
        ('datasets.words.length', 5000, ValueError, '5000 tokens exceed the context'),
        (
            'datasets.words.batch_size',
            6,
            ValueError,
            'Data set words: batch_size 6 is not a multiple of 1 micro-batches x 8 rows',
        ),
        ('datasets.names.games.name.languages', ('xx',), ValueError, "no names in \\['xx'\\]"),
        ('mesh.tensor', 3, ValueError, 'does not fit 8 devices'),
        ('machine', 'v5e-16', ValueError, "config.machine is 'v5e-16', but config.machines has none"),
        ('validate_every', 0, ValueError, 'config.validate_every is 0. It must be 1 or more'),
        ('keep_checkpoints', 0, ValueError, 'config.keep_checkpoints is 0. It must be 1 or more'),
        ('datasets', ConfigDict(), ValueError, 'config.datasets is empty'),
        (
            'mesh',
            dict(data=1, fsdp=1, tensor=8),
            ValueError,
            "dimension '.*heads' has size 2, .* the 8 devices of the mesh axis 'tensor'",
        ),
        ('trained', ('resampler',), ValueError, "No bundle gives the parameters of \\['extra_tokens', 'xattn'\\]"),
        ('image_tag', 'word', ValueError, 'image_tag'),
        ('frozen_dtype', 'int7', ValueError, "frozen_dtype is 'int7'. Give one of 'int8', 'int4', 'fp8'"),
        ('datasets.words.validation_split', 'held_out', ValueError, "has no split 'held_out'; it has"),
        (
            'trained',
            ('vision', 'resampler', 'xattn', 'extra_tokens'),
            ValueError,
            "data sets \\['words'\\] read features",
        ),
    ],
)
def test_bad_input_is_an_error_before_any_work(parts, tmp_path, key, value, error, says):
    config = tiny_config(parts)
    _set(config, key, value)
    with pytest.raises(error, match=says):
        train(config, tmp_path)
    assert not (tmp_path / 'checkpoints').exists() or not list((tmp_path / 'checkpoints').iterdir())


def test_a_bundle_is_no_workdir_and_stays_as_it_is(parts, tmp_path):
    shutil.copytree(parts / 'lm', tmp_path / 'lm')
    with pytest.raises(ValueError, match='lm is a bundle, .*Give another --workdir'):
        train(tiny_config(parts), tmp_path / 'lm')
    assert digests(tmp_path / 'lm') == digests(parts / 'lm')


def test_checkpoints_of_another_model_are_refused(parts, run):
    config = tiny_config(parts)
    config.model.resampler.latents = 4
    before = (run / 'run.json').read_bytes()
    with pytest.raises(ValueError, match=r'another model.*model.resampler.latents \(there 2, here 4\)'):
        train(config, run)
    assert (run / 'run.json').read_bytes() == before


@pytest.mark.parametrize(
    'key, value, says',
    [
        ('seed', 1, r'seed \(there 0, here 1\)'),
        ('datasets.words.batch_size', 16, r'datasets.words.batch_size \(there 8, here 16\)'),
        ('datasets.words.split', 'test', "datasets.words.split \\(there 'train', here 'test'\\)"),
        ('datasets.words.features', '', 'datasets.words.features'),
        ('datasets.names.shots', 5, 'datasets.names.shots'),
        ('datasets.names.loss_weight', 0.3, r'datasets.names.loss_weight \(there 0.2, here 0.3\)'),
        ('noise.feature_dropout', 0.0, 'noise.feature_dropout'),
    ],
)
def test_a_run_whose_data_were_changed_is_not_resumed(parts, run, key, value, says):
    config = tiny_config(parts)
    _set(config, key, value)
    with pytest.raises(ValueError, match=f'another recipe. These fields differ: .*{says}.*config.resume_changed'):
        train(config, run)


def test_features_of_another_trunk_are_refused(parts, tmp_path):
    other = tmp_path / 'features'
    other.mkdir()
    for file in (parts / 'features').iterdir():
        (other / file.name).symlink_to(file)
    about = json.loads((other / 'train.json').read_text())
    (other / 'train.json').unlink()
    (other / 'train.json').write_text(json.dumps(about | dict(trunk='of another model')))
    config = tiny_config(parts)
    config.datasets.words.features = str(other)
    with pytest.raises(ValueError, match='another trunk'):
        train(config, tmp_path / 'run')


def test_unknown_config_keys_are_refused(parts, tmp_path):
    config = pathlib.Path(__file__).parents[1] / 'experiments/quickstart.py'
    command = [
        sys.executable,
        '-m',
        'flamingo_jax.train',
        f'--config={config}',
        f'--workdir={tmp_path}',
        '--config.stpes=3',
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert 'stpes' in done.stderr
