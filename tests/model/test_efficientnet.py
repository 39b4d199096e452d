import dataclasses
import json
import pathlib
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.conversion.readers import read_torch_checkpoint
from flamingo_jax.conversion.vision_trunks import CLASSIFIER, efficientnet_lite0_file, efficientnet_params
from flamingo_jax.model.vision.depthwise import depthwise_by_library, depthwise_by_shifts, depthwise_conv
from flamingo_jax.model.vision.efficientnet import (
    LITE0,
    LITE1,
    LITE2,
    EfficientNet,
    EfficientNetConfig,
)

pytestmark = pytest.mark.usefixtures('quick_compilation')

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
# Elements in the published files: the trunk, a classifier of 1281 * 1000, and a counter for each batch norm.
PUBLISHED = [(LITE0, 4_694_073, 49), (LITE1, 5_470_408, 64), (LITE2, 6_150_232, 64)]


@pytest.fixture(scope='module')
def lite0():
    """(state dict, params) with the published weights."""
    state = read_torch_checkpoint(efficientnet_lite0_file())
    config, params = efficientnet_params(state)
    assert config == LITE0
    return state, params


@jax.jit
def features_of(params, images):
    return EfficientNet(LITE0).apply({'params': params}, images)


@pytest.mark.parametrize('config, elements, norms', PUBLISHED)
def test_sizes_have_the_published_numbers_of_parameters(config, elements, norms):
    images = jax.ShapeDtypeStruct((2, config.resolution, config.resolution, 3), jnp.float32)
    features, variables = jax.eval_shape(EfficientNet(config).init_with_output, jax.random.key(0), images)
    assert list(variables) == ['params']
    params = jax.tree.leaves(nn.meta.unbox(variables))
    assert sum(p.size for p in params) == elements - 1281 * 1000 - norms
    side = -(-config.resolution // 32)
    assert features.shape == (2, side * side, config.width) and config.width == 1280 and config.stride == 32


def test_every_parameter_has_one_logical_name_a_dimension():
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    boxed = jax.eval_shape(EfficientNet(LITE0).init, jax.random.key(0), images)
    for box in jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned)):
        assert len(box.names) == box.value.ndim


def test_config_survives_json():
    assert EfficientNetConfig(**json.loads(json.dumps(dataclasses.asdict(LITE2)))) == LITE2
    assert hash(LITE0) != hash(LITE1)


@pytest.mark.parametrize('kernel_size', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('height, width', [(16, 16), (15, 18), (3, 1)])
def test_the_forms_of_a_depthwise_convolution_agree(kernel_size, stride, height, width):
    x = jax.random.normal(jax.random.key(0), (2, height, width, 6))
    kernel = jax.random.normal(jax.random.key(1), (kernel_size, kernel_size, 1, 6))
    library = depthwise_by_library(x, kernel, stride)
    np.testing.assert_allclose(depthwise_by_shifts(x, kernel, stride), library, atol=1e-5)
    np.testing.assert_allclose(jax.jit(depthwise_conv, static_argnums=2)(x, kernel, stride), library, atol=1e-5)

    g = jax.random.normal(jax.random.key(2), library.shape)  # The gradients, of pixels and of the kernel.
    expected, got = (
        jax.vjp(lambda x, kernel, form=form: form(x, kernel, stride), x, kernel)[1](g)
        for form in (depthwise_by_library, depthwise_by_shifts)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got, expected)


def test_the_form_follows_the_platform_that_is_compiled_for():
    x, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 1, 4))
    traced = jax.jit(lambda x, kernel: depthwise_conv(x, kernel, 2)).trace(x, kernel)
    assert 'convolution' not in traced.lower(lowering_platforms=('cpu',)).as_text()
    assert 'convolution' in traced.lower(lowering_platforms=('tpu',)).as_text()


def test_features_equal_those_of_the_published_implementation(lite0):
    state, params = lite0
    golden = np.load(GOLDEN / 'efficientnet_lite0.npz')
    features = features_of(params, golden['images'])
    np.testing.assert_allclose(features[:, :, golden['channels']], golden['features'], atol=1e-4)
    weight, bias = (state[name] for name in CLASSIFIER)
    logits = np.asarray(features).mean(1) @ weight.T + bias
    assert list(logits.argmax(-1)) == list(golden['classes'])
    np.testing.assert_allclose(logits.max(-1), golden['largest_logits'], rtol=1e-4)


def test_uint8_and_float_pixels_and_bfloat16():
    config = EfficientNetConfig(stages=((1, 3, 1, 1, 8), (2, 5, 2, 6, 16)), stem_width=8, head_width=24)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), np.uint8)
    model = EfficientNet(config)
    variables = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), images))
    expected = jax.jit(model.apply)(variables, images)
    assert expected.shape == (2, 4 * 6, 24) and config.stride == 4
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, images.astype(np.float32)), expected)
    half = jax.jit(EfficientNet(config, jnp.bfloat16).apply)(variables, images)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), expected, atol=0.05)


@pytest.mark.parity
@pytest.mark.parametrize('size', [64, 97, 160, 224])
def test_features_equal_timm(lite0, size):
    torch = pytest.importorskip('torch')
    pytest.importorskip('timm')
    published = runpy.run_path(str(GOLDEN / 'make_efficientnet.py'))['published']
    model = published(0, {name: torch.tensor(value) for name, value in lite0[0].items()})
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size + 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model.forward_features(torch.from_numpy((images - 127) / 128).permute(0, 3, 1, 2))
    features = features_of(lite0[1], images)
    np.testing.assert_allclose(features, expected.flatten(2).permute(0, 2, 1).numpy(), atol=1e-4)
