import dataclasses
import json
import pathlib
import runpy
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from experiments import quickstart
from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import standardise, vision_trunks
from flamingo_jax.conversion.readers import read_torch_checkpoint
from flamingo_jax.conversion.trunk import Trunk, alone
from flamingo_jax.conversion.vision_trunks import efficientnet_lite0_file, efficientnet_params, nfnet_params
from flamingo_jax.errors import MissingPackageError
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.vision.efficientnet import LITE0, LITE1, LITE2, EfficientNet
from flamingo_jax.model.vision.nfnet import NFNETS, NFNet, NFNetConfig
from tests import tiny_run

pytestmark = pytest.mark.usefixtures('quick_compilation')
GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'


@pytest.fixture
def state():
    return read_torch_checkpoint(efficientnet_lite0_file())


def test_tree_is_that_of_the_module(state):
    config, params = efficientnet_params(state)
    assert config == LITE0
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = nn.meta.unbox(jax.eval_shape(EfficientNet(config).init, jax.random.key(0), images)['params'])
    assert jax.tree.map(lambda p: p.shape, params) == jax.tree.map(lambda p: p.shape, shapes)
    np.testing.assert_array_equal(params['block_3']['depthwise']['kernel'][4, 1, 0, 7], _depthwise(state)[7, 0, 4, 1])


def _depthwise(state):
    return state['_blocks.3._depthwise_conv.weight']


@pytest.mark.parametrize('config', [LITE0, LITE1, LITE2])
def test_sizes_are_told_apart(config):
    tensors = vision_trunks._tensors(config)
    state = {tensor.name: np.zeros(tensor.shape) for tensor in tensors}
    assert efficientnet_params(state)[0] == config


def test_all_faults_are_named(state):
    del state['_blocks.2._bn1.running_var']
    state['_conv_stem.weight'] = state['_conv_stem.weight'][:, :1]
    state['_blocks.2._se_reduce.weight'] = np.zeros(3)
    with pytest.raises(ValueError) as error:
        efficientnet_params(state)
    assert 'missing: _blocks.2._bn1.running_var (144,)' in str(error.value)
    assert '_conv_stem.weight has shape (32, 1, 3, 3), not (32, 3, 3, 3)' in str(error.value)
    assert 'unused: _blocks.2._se_reduce.weight' in str(error.value)


def test_the_classifier_may_be_absent(state):
    del state['_fc.weight'], state['_fc.bias']
    assert efficientnet_params(state)[0] == LITE0


def test_another_model_is_refused():
    with pytest.raises(ValueError, match='0 blocks.*efficientnet-lite0'):
        efficientnet_params({'layer1.weight': np.zeros(3)})


def test_the_package_is_found_and_not_imported(monkeypatch):
    assert efficientnet_lite0_file().is_file()
    assert vision_trunks.LITE0_PACKAGE not in sys.modules
    monkeypatch.setattr(vision_trunks, 'LITE0_PACKAGE', 'a_package_that_is_not_installed')
    with pytest.raises(MissingPackageError, match=r"pip install 'flamingo_jax\[trunk\]'"):
        efficientnet_lite0_file()


@pytest.fixture(scope='module')
def small():
    """(config, state dict as timm names it) of the network of tests/golden/make_nfnet.py."""
    made = runpy.run_path(str(GOLDEN / 'make_nfnet.py'))
    shapes = json.loads(str(np.load(GOLDEN / 'nfnet.npz')['shapes']))
    state = made['random_state']({name: tuple(shape) for name, shape in shapes.items()})
    return NFNetConfig(made['DEPTHS'], made['WIDTHS'], made['GROUP_WIDTH'], final_width=made['FINAL_WIDTH']), state


def test_nfnet_tree_is_that_of_the_module_with_blocks_stacked(small):
    config, state = small
    _, params = nfnet_params(state, config)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = nn.meta.unbox(jax.eval_shape(NFNet(config).init, jax.random.key(0), images)['params'])
    assert jax.tree.map(lambda p: (p.shape, p.dtype), params) == jax.tree.map(lambda p: (p.shape, p.dtype), shapes)
    kernel = state['stages.2.2.conv2b.weight']
    np.testing.assert_array_equal(params['rest_2']['conv_2']['kernel'][1, 2, 0, 5, 40], kernel[40, 5, 2, 0])
    assert params['rest_2']['skip_gain'][1] == state['stages.2.2.skipinit_gain']


@pytest.mark.parametrize('config', NFNETS)
def test_sizes_of_nfnet_are_told_apart(config):
    # Zeros that take no memory: only shapes are looked at.
    names = {tensor.name for tensor in vision_trunks._nfnet_tensors(config)}
    assert vision_trunks._nfnet_size({name: np.zeros(()) for name in names}) == config


def test_all_faults_of_an_nfnet_are_named(small):
    config, state = small
    state = dict(state)
    # What timm's own nfnet_f0, which is another network, has not.
    del state['stages.1.0.skipinit_gain']
    state['stem.conv1.weight'] = state['stem.conv1.weight'][:, :1]
    state['stages.0.0.attn.conv.weight'] = np.zeros(3)
    with pytest.raises(ValueError, match='dm_nfnet_f0') as error:
        nfnet_params(state, config)
    assert 'missing: stages.1.0.skipinit_gain ()' in str(error.value)
    assert 'stem.conv1.weight has shape (16, 1, 3, 3), not (16, 3, 3, 3)' in str(error.value)
    assert 'unused: stages.0.0.attn.conv.weight' in str(error.value)
    with pytest.raises(ValueError, match=r'stages of \(1, 2, 3, 2\) blocks.*dm_nfnet_f0'):
        nfnet_params(state)
    with pytest.raises(ValueError, match=r'stages of \(\) blocks'):
        nfnet_params({'layer1.weight': np.zeros(3)})


def test_a_safetensors_file_becomes_a_bundle_that_computes_as_timm(small, tmp_path, monkeypatch):
    """With the small network in place of F0, whose file has 286 MB."""
    config, state = small
    monkeypatch.setattr(vision_trunks, 'NFNETS', (config,))
    safetensors.numpy.save_file(state, tmp_path / 'model.safetensors')
    write(alone(vision_trunks.nfnet), str(tmp_path / 'model.safetensors'), str(tmp_path / 'bundle'), image_size=64)
    read = bundle.read(tmp_path / 'bundle')
    assert read.config.vision == dataclasses.replace(config, activation='gelu', epsilon=1e-5)
    assert read.config.image_size == 64
    expected = nfnet_params(state, config)[1]
    jax.tree.map(np.testing.assert_array_equal, read.params('vision')['trunk'], expected)
    card = (tmp_path / 'bundle' / 'README.md').read_text()
    assert '\n# NFNet vision trunk\n' in card and 'EfficientNet' not in card


def test_a_random_trunk_is_drawn_and_not_read(state, tmp_path):
    write(alone(vision_trunks.efficientnet), '', str(tmp_path / 'trunk'), random_seed=0, image_size=64)
    found = bundle.read(tmp_path / 'trunk')
    assert found.config.vision == LITE0 and found.config.image_size == 64
    drawn, published = found.params('vision')['trunk'], efficientnet_params(state)[1]
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, published)
    assert np.any(drawn['head']['kernel'] != published['head']['kernel'])
    # Were it scaled by all channels, 16 blocks would leave features of 1e-9, which standardisation takes for dead.
    assert np.std(drawn['block_3']['depthwise']['kernel']) == pytest.approx((2 / 25) ** 0.5, rel=0.05)
    assert 'Random weights of seed 0' in (tmp_path / 'trunk/README.md').read_text()


def test_channels_are_measured_on_training_images_of_the_styles_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(standardise, 'STANDARDISE_ON', 64)
    trunk = tiny_run.make_trunk(tmp_path / 'random')
    vision, params = trunk.config.vision, trunk.params('vision')['trunk']
    tiny, styles = Trunk('Tiny', vision, params), ('noto', 'fluent-flat')
    how = dict(image_size=16, standardise=tiny_run.SAMPLE, styles=styles)
    write(alone(lambda _: tiny), '', str(tmp_path / 'trunk'), **how)
    found = bundle.read(tmp_path / 'trunk').params('vision')
    records = open_split(tiny_run.SAMPLE, 'train')
    records = [records[i] for i in range(len(records))]
    allowed = {record['frames'][0] for record in records if record['style'] in (b'noto', b'fluent-flat')}
    assert len(allowed) < len({record['frames'][0] for record in records})
    measured = standardise.to_measure(tiny_run.SAMPLE, ('noto', 'fluent-flat'))
    assert set(measured) <= allowed and len(measured) == min(len(allowed), standardise.STANDARDISE_ON)
    frames = np.stack([to_frames(image, 16, vision.fit) for image in measured])
    raw = dict(trunk=params, mean=np.zeros(vision.width, np.float32), std=np.ones(vision.width, np.float32))
    rows = jax.jit(Flamingo(trunk.config).features)({'vision': raw}, frames[:, None]).reshape(-1, vision.width)
    np.testing.assert_allclose(found['mean'], rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(found['std'], np.maximum(rows.std(0), 1e-3), atol=1e-5)
    assert 'of noto, fluent-flat alone' in (tmp_path / 'trunk/README.md').read_text()


def test_a_style_that_no_training_image_has_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"train split .* has no images of style \['notto'\]. Its styles are .*'noto': "
    ):
        standardise.to_measure(tiny_run.SAMPLE, ('noto', 'notto'))


def test_the_quickstart_measures_on_what_it_trains_on(monkeypatch, tmp_path):
    """And not on the style that it is asked about."""
    commands = []
    monkeypatch.setattr(quickstart, 'run', lambda *command: commands.append(command))
    monkeypatch.chdir(tmp_path)
    quickstart.main(str(tmp_path), steps=None, episodes=1)
    assert f'--styles={",".join(quickstart.get_config().datasets.names.styles)}' in commands[0]
