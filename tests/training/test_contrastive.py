"""The contrastive losses by their published equations, and the ring against the dense loss."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from flamingo_jax.inputs.rows import Chunk, RowFormat
from flamingo_jax.inputs.tokenizer import MissingTokenizer
from flamingo_jax.model.config import ContrastiveConfig, FlamingoConfig
from flamingo_jax.model.connectors.perceiver import PerceiverConfig
from flamingo_jax.model.contrastive import SharedSpace, class_of, paired
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.parallel import rules
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.training.objectives.contrastive import Paired, classified, dense, loss_sum, ring
from flamingo_jax.training.objectives.noise import NoiseConfig
from flamingo_jax.training.step import cut

pytestmark = pytest.mark.usefixtures('quick_compilation')

SOFTMAX = ContrastiveConfig(width=16)
SIGMOID = ContrastiveConfig(width=16, loss='sigmoid')
TOLERANCE = 1e-5  # Relative to the largest of an array: sums of float32 in another order.


def unit(rng, b, width=16):
    """Random rows of length 1."""
    x = rng.standard_normal((b, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def vectors(b, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(unit(rng, b)), jnp.asarray(unit(rng, b))


def mesh_of(*shape):
    return make_mesh(*shape, devices=jax.devices()[: int(np.prod(shape))])


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_the_papers_equations(smoothing):
    images, texts = vectors(7)
    scores = np.exp(20 * np.asarray(texts, np.float64) @ images.T)  # [text image]
    targets = (1 - smoothing) * np.eye(7) + smoothing / 7
    text_to_image = -(targets * np.log(scores / scores.sum(1, keepdims=True))).sum()
    image_to_text = -(targets * np.log(scores / scores.sum(0))).sum()
    config = dataclasses.replace(SOFTMAX, smoothing=smoothing)
    loss, right = dense(config, images, texts, jnp.ones(7), jnp.float32(20), jnp.float32(0))
    assert float(loss) == pytest.approx(text_to_image + image_to_text, rel=TOLERANCE)
    assert float(right) == (scores.argmax(0) == np.arange(7)).sum()


@pytest.mark.parametrize('scale', [99.0, 120.0])
def test_beta_is_at_most_100_and_can_come_down_from_there(scale):
    def beta(log_scale):
        return SharedSpace(SOFTMAX).apply({'params': dict(log_scale=log_scale)}, None, None)[2]

    value, slope = jax.value_and_grad(beta)(jnp.log(scale))
    assert float(value) == pytest.approx(min(scale, 100.0)) == pytest.approx(float(slope))


def test_a_text_is_a_class():
    """Its padding does not count, but all its tokens and their order do; few of many texts share a class."""
    rng = np.random.default_rng(0)
    texts = np.unique(rng.integers(1, 50, (3000, 4)), axis=0)
    labels = np.asarray(class_of(jnp.asarray(texts), jnp.full(len(texts), 4), 16384))
    assert 0 <= labels.min() and labels.max() < 16384
    # As many as if classes were drawn at random.
    assert len(np.unique(labels)) == pytest.approx(16384 * (1 - np.exp(-len(texts) / 16384)), rel=0.02)
    padded = np.pad(texts[:9], ((0, 0), (0, 3)), constant_values=7)
    np.testing.assert_array_equal(class_of(jnp.asarray(padded), jnp.full(9, 4), 16384), labels[:9])


def test_a_classifier_is_the_textbooks():
    images, _ = vectors(7)
    classes = np.random.default_rng(1).standard_normal((16, 5)).astype(np.float32)
    labels, weight = np.array([0, 4, 2, 2, 1, 3, 0]), np.array([1, 1, 0, 1, 1, 1, 1], np.float32)
    p = np.exp(3 * np.asarray(images, np.float64) @ classes)
    p /= p.sum(1, keepdims=True)
    loss, right = classified(images, jnp.asarray(classes), jnp.asarray(labels), jnp.asarray(weight), jnp.float32(3))
    assert float(loss) == pytest.approx(-(weight * np.log(p[np.arange(7), labels])).sum(), rel=TOLERANCE)
    assert float(right) == (weight * (p.argmax(1) == labels)).sum()


def test_siglips_equation():
    images, texts = vectors(7)
    sign = 2 * np.eye(7) - 1
    pairs = np.log1p(np.exp(-sign * (10 * np.asarray(images, np.float64) @ texts.T - 3)))
    loss, _ = dense(SIGMOID, images, texts, jnp.ones(7), jnp.float32(10), jnp.float32(-3))
    assert float(loss) == pytest.approx(pairs.sum(), rel=TOLERANCE)


@pytest.mark.parametrize('config', [SOFTMAX, SIGMOID], ids=['softmax', 'sigmoid'])
def test_a_row_without_weight_changes_nothing(config):
    images, texts = vectors(6)
    weight = jnp.array([1.0, 1, 0, 1, 1, 0])
    kept = np.flatnonzero(weight)
    some = dense(config, images, texts, weight, jnp.float32(20), jnp.float32(-1))
    alone = dense(config, images[kept], texts[kept], jnp.ones(4), jnp.float32(20), jnp.float32(-1))
    np.testing.assert_allclose(some, alone, rtol=TOLERANCE)
    loss, right = dense(config, images, texts, jnp.zeros(6), jnp.float32(20), jnp.float32(-1))
    assert float(loss) == float(right) == 0


def with_gradients(compare, config, b, weight):
    """Loss, count, and gradients of images, texts, scale and bias."""
    bias = jnp.float32(-2.0 if config.loss == 'sigmoid' else 0.0)
    arguments = (*vectors(b), jnp.float32(15.0), bias)

    def loss(images, texts, scale, bias):
        return compare(config, images, texts, weight, scale=scale, bias=bias)

    wanted = (0, 1, 2, 3) if config.loss == 'sigmoid' else (0, 1, 2)
    return jax.jit(jax.value_and_grad(loss, wanted, has_aux=True))(*arguments)


@pytest.mark.parametrize('config', [SOFTMAX, SIGMOID], ids=['softmax', 'sigmoid'])
@pytest.mark.parametrize(
    'shape, b',
    [((1, 1, 1), 5), ((2, 1, 1), 6), ((1, 4, 1), 8), ((2, 2, 1), 7), ((8, 1, 1), 16), ((2, 2, 2), 13), ((8, 1, 1), 3)],
)
def test_the_ring_equals_the_dense_loss_at_any_size(config, shape, b):
    """Also where the devices do not divide the batch, and where there are more devices than rows."""
    weight = jnp.ones(b).at[1].set(0)
    whole = with_gradients(dense, config, b, weight)
    chunked = with_gradients(functools.partial(ring, mesh=mesh_of(*shape)), config, b, weight)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(chunked), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=TOLERANCE * max(1, np.abs(one).max()))


def test_memory_does_not_grow_with_the_devices():
    """Of a device with 32 rows; the dense loss holds the products of all."""

    def temporaries(devices):
        mesh = mesh_of(devices, 1, 1)
        rows = jax.sharding.NamedSharding(mesh, PartitionSpec('data'))
        x = jax.ShapeDtypeStruct((32 * devices, 16), jnp.float32, sharding=rows)
        weight = jax.ShapeDtypeStruct((32 * devices,), jnp.float32, sharding=rows)

        def loss(images, texts, weight):
            return ring(SOFTMAX, images, texts, weight, jnp.float32(15), jnp.float32(0), mesh=mesh)[0]

        return jax.jit(jax.grad(loss, (0, 1))).lower(x, x, weight).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8) < 1.1 * temporaries(2)


@pytest.fixture(scope='module')
def towers(config):
    lm = dataclasses.replace(config.lm, vocab_size=64, context=8)
    config = FlamingoConfig(lm=lm, vision=config.vision, image_size=16, contrastive=SOFTMAX)
    model = Flamingo(config)
    return model, nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))


def batch_of(b):
    rng = np.random.default_rng(0)
    return Paired(
        text=rng.integers(1, 64, (b, 8), np.int32),
        used=rng.integers(1, 9, b, np.int32),
        weight=np.float32(np.arange(b) != 2),
        unreadable=np.zeros(b, np.int32),
        images=rng.integers(0, 256, (b, 1, 1, 16, 16, 3)).astype(np.uint8),
    )


def test_micro_batches_and_a_mesh_give_the_loss_and_the_gradient_of_the_whole_batch(towers):
    model, params = towers

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(batch, m, params):
        def loss(params):
            return loss_sum(model, params, {}, cut(batch, m), jax.random.key(0), NoiseConfig())

        return jax.value_and_grad(loss, has_aux=True)(params)

    whole = gradient(batch_of(8), 1, params)
    mesh = mesh_of(2, 1, 1)
    rows = jax.sharding.NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
    with rules.activations(mesh):
        parts = gradient(jax.device_put(batch_of(8), rows), 2, jax.device_put(params, mesh_replicated(mesh)))
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-4 * max(1e-2, np.abs(one).max()), err_msg=name)
    gradients = whole[1]
    for tree in ('vision', 'lm', 'contrastive'):
        assert any(np.any(leaf) for leaf in jax.tree.leaves(gradients[tree])), tree
    assert not np.any(gradients['vision']['trunk']['stem']['mean'])  # Statistics are frozen.


def mesh_replicated(mesh):
    return jax.sharding.NamedSharding(mesh, PartitionSpec())


def test_a_text_is_read_both_ways_and_its_padding_is_not(towers):
    model, params = towers
    text, used = np.array([[3, 4, 5, 6, 0, 0, 0, 0]], np.int32), np.array([4], np.int32)

    def vector(text, model=model):
        return np.asarray(paired(model, params, None, jnp.asarray(text), jnp.asarray(used))[1])[0]

    other_padding, other_end = text.copy(), text.copy()
    other_padding[0, 5], other_end[0, 3] = 9, 9
    assert np.linalg.norm(vector(text)) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(vector(text), vector(other_padding))
    assert not np.allclose(vector(text), vector(other_end))


def test_an_image_is_the_mean_of_its_latents(towers):
    """With a resampler, whose gradient then is that of the images; its trunk may be frozen."""
    model, _ = towers
    config = dataclasses.replace(
        model.config, resampler=PerceiverConfig(latents=2, width=16, depth=1, heads=2, head_dim=8)
    )
    model = Flamingo(config)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    features = jax.random.normal(jax.random.key(1), (3, 1, 1, config.vision.spatial(config.image_size), 24))
    latents = jax.jit(model.resampled)(params, features)
    assert latents.shape == (3, 1, 2, config.lm.width)
    expected = latents[:, 0].mean(1) @ params['contrastive']['image']['kernel']
    expected /= jnp.linalg.norm(expected, axis=1, keepdims=True)
    images, *_ = jax.jit(lambda params: paired(model, params, features, None, None))(params)
    np.testing.assert_allclose(images, expected, atol=TOLERANCE)
    batch = jax.tree.map(lambda x: jnp.asarray(x[:3]), batch_of(8))._replace(images=None, features=features)
    trained = {name: params[name] for name in ('resampler', 'contrastive', 'lm')}

    def loss(trained):
        return loss_sum(model, trained, params, cut(batch, 1), jax.random.key(0), NoiseConfig())[0]

    gradients = jax.jit(jax.grad(loss))(trained)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients['resampler']['project_in']))


def test_a_pair_is_the_first_image_with_a_text():
    tokenizer, blank = MissingTokenizer(64, None), np.zeros((1, 4, 4, 3), np.uint8)
    chunks = [Chunk(None, ['alone'], [1.0]), Chunk(lambda: blank + 7, ['a', 'b'], [0.0, 1.0])]
    row = Paired.of(chunks, tokenizer, blank, np.random.default_rng(0), RowFormat(6))
    assert (row.images == 7).all() and row.weight == 1 and row.used == len(row.text[: row.used]) > 0
    empty = Paired.of([], tokenizer, blank, np.random.default_rng(0), RowFormat(6))
    assert empty.weight == 0 and empty.text.shape == row.text.shape
    with pytest.raises(ValueError, match='images=2. Set its images to 1'):
        Paired.of(chunks, tokenizer, blank, np.random.default_rng(0), RowFormat(6, 2))


def test_what_does_not_fit_is_refused(config):
    with pytest.raises(ValueError, match='no gated blocks between them'):
        dataclasses.replace(config, contrastive=SOFTMAX)
    relative = dataclasses.replace(config.lm, positions='relative')
    with pytest.raises(ValueError, match="Set lm.positions to 'learned' or 'rotary'"):
        FlamingoConfig(lm=relative, vision=config.vision, contrastive=SOFTMAX)
    FlamingoConfig(lm=relative, vision=config.vision, contrastive=ContrastiveConfig(loss='classes'))  # Reads no text.
    with pytest.raises(ValueError, match="'softmax', 'sigmoid' or 'classes', not 'clip'"):
        ContrastiveConfig(loss='clip')
