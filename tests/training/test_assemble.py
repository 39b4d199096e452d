"""What a plan compiles is what a run compiles: both are assembled by one function, for every config that there is."""

import dataclasses
import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import quickstart
from flamingo_jax.checkpoints import bundle
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.rows import Interleaved
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.bridges.bridge import bridge_from
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.quantised import Quantisation
from flamingo_jax.model.vision.vit import ViTConfig
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.tasks.source import FewShot
from flamingo_jax.training import config as training
from flamingo_jax.training.assemble import assemble
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.state import new_state
from tests.plans import TOKENIZER, compare_with_run
from tests.tiny_run import tiny_config

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = [path.stem for path in sorted((ROOT / 'experiments').glob('*.py'))]
pytestmark = pytest.mark.usefixtures('quick_compilation')


def config_of(name):
    """Of experiments/NAME.py."""
    return importlib.import_module(f'experiments.{name}').get_config()


@pytest.mark.parametrize('name', CONFIGS)
def test_a_plan_has_the_shapes_of_the_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    compare_with_run(config_of(name), tmp_path)


def test_images_may_have_another_size_than_their_trunk_learned_at(parts):
    """As in the paper: 288 pixels for the trunk, 320 for the Flamingo, 480 for fine-tuning."""
    c = config_of('quickstart')
    c.vision, c.lm, c.image_size = str(parts / 'trunk'), str(ROOT / 'experiments/lm_dictionary'), 64
    found = assemble(c).model.config
    assert found.image_size == 64 and found.vision.spatial(64) < found.vision.spatial(96)
    assert [training.paper(size).image_size for size in ('3b', '9b', '80b')] == [320] * 3
    further = training.base()
    further.start, further.image_size = str(ROOT / 'experiments/picture_dictionary'), 224
    assert assemble(further).model.config.image_size == 224
    c.image_size = -5
    with pytest.raises(ValueError, match='image_size is -5. This trunk needs at least 1 pixels'):
        assemble(c)


def test_what_a_config_plays_with_the_sample_can_be_played(parts, monkeypatch):
    """As pixels or by features, as the config says. What must be fetched first is not here."""
    monkeypatch.chdir(ROOT)
    trunk, tokenizer, opened = bundle.read(parts / 'trunk'), Tokenizer.read(TOKENIZER, 'token'), []
    image_format = ImageFormat.of(trunk.config, trunk.checksums['vision'])
    for config in CONFIGS:
        for name, fields in config_of(config).datasets.items():
            if fields.kind is FewShot and fields.path == quickstart.SAMPLE:
                source = training.source_of(fields)
                source = dataclasses.replace(source, features=source.features and str(parts / 'features'))
                source.check(source.open(image_format), tokenizer)
                opened.append((config, name))
    assert {('quickstart', 'names'), ('own_images', 'before'), ('smollm_own_images', 'games')} <= set(opened)


def test_only_a_frozen_language_model_is_quantised():
    c = training.base()
    c.frozen_dtype = 'fp8'
    assert training.quantisation(c, ('xattn',)) == Quantisation('fp8', inputs=True)
    with pytest.raises(ValueError, match="config.trained has 'lm'.*config.lora"):
        training.quantisation(c, ('lm', 'xattn'))
    c.noise.vocabulary = 0.1
    with pytest.raises(ValueError, match='set noise.text and noise.vocabulary to 0'):
        training.quantisation(c, ('xattn',))
    c.frozen_dtype = 'int4'
    c.noise.vocabulary = 0.0
    assert training.quantisation(c, ('xattn',)) == Quantisation('int4')


@pytest.mark.parametrize('features, dtype', [('', np.uint8), ('x', np.float16)])
def test_the_rows_of_a_plan_are_those_that_are_read(tokenizer, features, dtype):
    """Where the bundles are not here yet, the stand-in of their tokenizer writes rows of the same shapes."""
    vision = ViTConfig(width=64, depth=1, heads=4, ffw_width=64, resolution=28)
    fields = FlamingoConfig(vision=vision, image_size=28).to_json()
    for tag in ('text', 'token'):
        c = training.base()
        c.image_tag, c.lm, c.vision, c.dtype = tag, 'not/here', 'not/here/either', 'bfloat16'
        c.model = ConfigDict(fields | dict(lm=dict(vocab_size=tokenizer.vocab_size), xattn=dict(), resampler=dict()))
        for kind in (Documents, FewShot):
            c.datasets[kind.__name__] = training.dataset(kind, features=features, length=40, images=2)
        parts = assemble(c, all_here=False)
        for name, source in parts.sources.items():
            row = source.empty_row(parts.tokenizer, parts.image_format)
            real = source.empty_row(tokenizer, parts.image_format)
            kinds = [jax.tree.map(lambda x: (np.shape(x), x.dtype), part) for part in (row, real)]
            assert kinds[0] == kinds[1] and isinstance(row, Interleaved), name
            shown = row.features if features else row.images
            assert shown.dtype == dtype and shown.shape == ((2, 1, 4, 64) if features else (2, 1, 28, 28, 3))


@pytest.mark.parametrize(
    'key, value, says',
    [
        ('optimizer.learning_rate', 0.0, 'It must be above 0'),
        ('optimizer.learning_rate', float('nan'), 'It must be above 0'),
        ('optimizer.eps', 0.0, 'It must be above 0'),
        ('optimizer.clip', -1.0, 'It must be 0 or more'),  # It would turn gradients round.
        ('optimizer.warmup_steps', -5, 'It must be 0 or more'),
        ('optimizer.gate_factor', float('nan'), 'It must be 0 or more'),
        ('optimizer.tree_factors.lm', -1.0, 'It must be 0 or more'),
        ('optimizer.b2', 1.0, 'It must be 0 or more and below 1'),
        ('optimizer.average', 1.5, 'It must be 0 or more and below 1'),
        ('optimizer.final_fraction', -2.0, 'It must be from 0 to 1'),
        ('noise.feature_dropout', 1.5, 'It must be 0 or more and below 1'),
        ('noise.blend', 2.0, 'It must be from 0 to 1'),
        ('noise.text', -1.0, 'It must be 0 or more'),
        ('seed', -1, 'It must be from 0 to'),
        ('hang_seconds', -1.0, 'It must be 0 or more'),
        ('dtype', 'int32', "It must be 'float32' or 'bfloat16'"),
        ('profile', (500_001, 500_003), 'the run ends at step 500000'),
    ],
)
def test_numbers_out_of_range_are_refused_before_a_bundle_is_read(key, value, says):
    c = training.base()
    c.lm = 'not/here'
    *above, field = key.split('.')
    functools.reduce(lambda part, name: part[name], above, c)[field] = value
    with pytest.raises(ValueError, match=f'config.{key} is .*{says}'):
        assemble(c)


def test_what_is_missing_is_named(tmp_path):
    c = training.base()
    c.datasets.own = training.dataset(Documents, path='own.jsonl')
    c.lm = str(tmp_path / 'nothing')
    c.model.lm = ConfigDict(vars(FlamingoConfig().lm) if FlamingoConfig().lm else dict(vocab_size=100))
    with pytest.raises(FileNotFoundError, match='nothing is not a bundle'):
        assemble(c)
    c.datasets.own.lenght = 3
    with pytest.raises(TypeError, match='lenght'):
        assemble(c)


def test_norms_begin_as_those_of_the_language_model(parts):
    """Of the blocks behind the gated ones. All else is new."""
    c = tiny_config(parts)
    c.model.xattn = ConfigDict(
        bridge_from(c.model.xattn.to_dict()).as_kind('selective_xattn', norms_of_lm=True).to_json()
    )
    made, mesh = assemble(c), make_mesh(1, 1, 1, devices=jax.devices()[:1])
    state = new_state(made.model, make_optimizer(OptimizerConfig(), 6), made.trained, 0, mesh)
    frozen, rng = made.read_frozen(mesh), np.random.default_rng(0)
    blocks = frozen['lm']['blocks']
    theirs = dict(norm_text='norm_attention', norm_ffw='norm_ffw')
    for of_lm in theirs.values():
        blocks[of_lm] = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0, 2, x.shape), jnp.float32), blocks[of_lm])
    xattn = made.begin(state.params, frozen, mesh)['xattn']
    for name, of_lm in theirs.items():
        jax.tree.map(lambda x, of_lm: np.testing.assert_array_equal(x, of_lm[::2]), xattn[name], blocks[of_lm])
    jax.tree.map(np.testing.assert_array_equal, xattn['ffw'], state.params['xattn']['ffw'])
