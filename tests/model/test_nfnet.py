import dataclasses
import functools
import json
import pathlib
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.conversion.vision_trunks import nfnet_params
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.vision.convolution import conv, conv_by_group
from flamingo_jax.model.vision.nfnet import (
    NFNET_F1,
    NFNET_F6,
    NFNETS,
    Block,
    NFNet,
    NFNetConfig,
    StandardisedConv,
    activation,
    standardise,
)
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.parallel.rules import shardings

pytestmark = pytest.mark.usefixtures('quick_compilation')
GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
# timm 1.0.31's dm_nfnet_f0 to f6, less its classifier of 3073 * 1000.
PUBLISHED = (68_416_284, 129_561_256, 190_706_228, 251_851_200, 312_996_172, 374_141_144, 435_286_116)


@pytest.fixture(scope='module')
def made():
    """What the script of the golden file defines."""
    return runpy.run_path(str(GOLDEN / 'make_nfnet.py'))


@pytest.fixture(scope='module')
def small(made):
    """The authors' arithmetic, at the golden file's size."""
    return NFNetConfig(
        made['DEPTHS'], made['WIDTHS'], group_width=made['GROUP_WIDTH'], final_width=made['FINAL_WIDTH'], resolution=64
    )


@pytest.fixture(scope='module')
def state(made):
    shapes = json.loads(str(np.load(GOLDEN / 'nfnet.npz')['shapes']))
    return made['random_state']({name: tuple(shape) for name, shape in shapes.items()})


@pytest.fixture(scope='module')
def params(state, small):
    return jax.tree.map(jnp.asarray, nfnet_params(state, small)[1])


@functools.partial(jax.jit, static_argnums=(0, 3))
def features_of(config, params, images, dtype=jnp.float32):
    return NFNet(config, dtype).apply({'params': params}, images)


@functools.cache
def shapes_of(config):
    """(features, boxed params) as shapes."""
    images = jax.ShapeDtypeStruct((2, 320, 300, 3), jnp.uint8)
    features, variables = jax.eval_shape(NFNet(config).init_with_output, jax.random.key(0), images)
    assert list(variables) == ['params']
    return features, variables['params']


@pytest.mark.parametrize('config, elements', zip(NFNETS, PUBLISHED, strict=True))
def test_sizes_have_the_published_numbers_of_parameters(config, elements):
    features, params = shapes_of(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(nn.meta.unbox(params))) == elements
    assert features.shape == (2, 10 * 10, config.width) and config.width == 3072


def test_f6_is_the_papers():
    """435M parameters: its table 5 counts the last convolution and not the classifier."""
    assert NFNET_F6.depths == (7, 14, 42, 21) and round(PUBLISHED[6] / 1e6) == 435


def test_every_parameter_has_its_logical_names_and_a_whole_copy_on_every_device():
    boxed = shapes_of(NFNET_F6)[1]
    for box in jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned)):
        assert len(box.names) == box.value.ndim
    assert boxed['rest_2']['conv_1']['kernel'].names == (
        'layers',
        'conv_height',
        'conv_width',
        'vision_in',
        'vision_out',
    )
    assert boxed['rest_2']['conv_1']['kernel'].value.shape == (41, 3, 3, 128, 768)
    assert boxed['rest_0']['skip_gain'].names == ('layers',)
    assert all(s.is_fully_replicated for s in jax.tree.leaves(shardings(boxed, make_mesh(2, 2, 2))))


def test_what_is_compiled_does_not_grow_with_depth():
    images = jax.ShapeDtypeStruct((1, 320, 320, 3), jnp.uint8)

    def convolutions(config):
        traced = jax.jit(NFNet(config).apply).trace({'params': nn.meta.unbox(shapes_of(config)[1])}, images)
        return traced.lower(lowering_platforms=('tpu',)).as_text().count('stablehlo.convolution')

    assert convolutions(NFNET_F6) == convolutions(NFNET_F1) == 4 + 4 * (5 + 4) + 1


def test_features_equal_timm(small, params, made):
    golden, config = np.load(GOLDEN / 'nfnet.npz'), dataclasses.replace(small, activation='gelu', epsilon=1e-5)
    assert golden['timm'].shape == (2, 3 * 2, 256) and golden['timm'].std() > 0.1
    np.testing.assert_allclose(features_of(config, params, made['random_images']()), golden['timm'], atol=1e-5)


def test_features_equal_the_authors_code(small, params, made):
    features = features_of(small, params, made['random_images']())
    np.testing.assert_allclose(features.mean(axis=1), np.load(GOLDEN / 'nfnet.npz')['authors'], atol=1e-5)


def test_kernels_standardised_once_give_the_same_features(small, params, made):
    """A frozen trunk is kept so; one that is trained has its gains, and standardises in the step."""
    kept = jax.jit(small.kept)(params)
    paths = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(kept)}
    assert paths and not any('gain' in path and 'skip_gain' not in path for path in paths)
    kernel = kept['rest_2']['conv_0']['kernel']  # A stack of blocks, each of which is standardised by itself.
    np.testing.assert_allclose(
        kernel[1], standardise(*(params['rest_2']['conv_0'][name][1] for name in ('kernel', 'gain'))), rtol=1e-6
    )
    expected = features_of(small, params, made['random_images']())
    np.testing.assert_allclose(
        features_of(small, kept, made['random_images']()), expected, atol=1e-6 * np.abs(expected).max()
    )
    boxed = jax.eval_shape(NFNETS[0].kept, shapes_of(NFNETS[0])[1])
    assert boxed['stem_0']['kernel'].names == ('conv_height', 'conv_width', 'vision_in', 'vision_out')


def test_bfloat16_changes_features_little(small, params, made):
    images = made['random_images']()
    expected = features_of(small, params, images)
    half = features_of(small, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params), images, jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    error = np.linalg.norm(half.astype(np.float32) - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.02


def test_scanned_equals_unrolled(small, params, made):
    """The network as a loop over all its blocks, each with its beta from the paper's recursion, on float pixels."""

    @jax.jit
    def unrolled(x):
        for i, width in enumerate(small.stem_widths):
            x = x if i == 0 else activation(x, small.activation)
            x = StandardisedConv(width, 3, (2, 1, 1, 2)[i]).apply({'params': params[f'stem_{i}']}, x)
        deviation = 1.0
        for stage, (depth, width) in enumerate(zip(small.depths, small.widths, strict=True)):
            for number in range(depth):
                block = Block(small, width, 2 if stage and not number else 1, projects=number == 0)
                p = jax.tree.map(lambda leaf: leaf[number - 1], params[f'rest_{stage}']) if number else None  # noqa: B023
                x = block.apply({'params': p or params[f'first_{stage}']}, x, 1 / deviation)
                deviation = ((deviation if number else 1.0) ** 2 + small.alpha**2) ** 0.5
        return activation(StandardisedConv(256).apply({'params': params['final']}, x), small.activation)

    pixels = made['random_images']().astype(np.float32)
    expected = unrolled(jnp.asarray((pixels - made['MEAN']) / made['STD'], jnp.float32))
    assert expected.shape == (2, 3, 2, 256)
    features = features_of(small, params, pixels)
    np.testing.assert_allclose(features.reshape(expected.shape), expected, atol=1e-5)
    np.testing.assert_allclose(features, features_of(small, params, made['random_images']()), atol=1e-6)


def test_kernels_and_activations_keep_the_variance():
    kernel = 3 + 7 * jax.random.normal(jax.random.key(0), (3, 3, 16, 32))
    standardised = standardise(kernel, jnp.ones(32))
    np.testing.assert_allclose(standardised.sum((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose((standardised**2).sum((0, 1, 2)), 1, rtol=1e-4)
    np.testing.assert_array_equal(standardise(jnp.ones((1, 1, 4, 2)), jnp.ones(2)), 0)
    noise = jax.random.normal(jax.random.key(1), 100_000)
    for name in ('gelu', 'gelu_tanh'):
        assert activation(noise, name).std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize('stride', [1, 2])
def test_the_forms_of_a_grouped_convolution_agree(stride):
    x = jax.random.normal(jax.random.key(0), (2, 7, 4, 12))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 18))
    np.testing.assert_allclose(conv_by_group(x, kernel, stride, 3), conv(x, kernel, stride, 3), atol=1e-4)


def test_a_config_that_makes_no_network_says_why():
    with pytest.raises(ValueError, match='one width .*stage'):
        NFNetConfig(depths=(1, 2, 3))
    with pytest.raises(ValueError, match=r'widths \[128\] .* 128 channels'):
        NFNetConfig(widths=(128, 256, 512, 512))
    with pytest.raises(ValueError, match="'gelu_tanh'.*'swish'"):
        NFNetConfig(activation='swish')


def test_a_flamingo_keeps_and_computes_it_in_its_own_dtype(config, small, params):
    """Unlike EfficientNet, which stays float32."""
    model = Flamingo(dataclasses.replace(config, vision=small), jnp.bfloat16)
    assert model.dtype_of('vision') == model.dtype_of('lm') == jnp.bfloat16
    assert Flamingo(config, jnp.bfloat16).dtype_of('vision') == jnp.float32
    vision = dict(trunk=params, mean=np.zeros(256), std=np.ones(256))
    vision = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), vision)
    images = jnp.zeros((1, 2, 1, 32, 32, 3), jnp.uint8)
    jaxpr = str(jax.make_jaxpr(lambda p: model.features({'vision': p}, images))(vision))
    convolutions = [line for line in jaxpr.splitlines() if 'conv_general_dilated[' in line]
    assert convolutions and all(':bf16' in line for line in convolutions)
