import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.model.config import TINY
from flamingo_jax.model.connectors.perceiver import PerceiverConfig, PerceiverLayer

pytestmark = pytest.mark.usefixtures('quick_compilation')
CONFIG = PerceiverConfig(latents=3, width=16, depth=1, heads=2, head_dim=4, frames=8)
resample = jax.jit(lambda params, features: CONFIG.module(12).apply({'params': params}, features))


@pytest.fixture(scope='module')
def features():
    return np.random.default_rng(0).standard_normal((2, 2, 8, 5, 6), np.float32)  # [b n t s d_v]


@pytest.fixture(scope='module')
def params(features):
    """With norms that do something: their scales and biases are drawn too."""
    params = nn.meta.unbox(jax.jit(CONFIG.module(12).init)(jax.random.key(0), features))['params']
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32) if x.ndim == 1 or x.shape[:-1] == (1,) else x,
        params,
    )


def test_equals_the_words_of_the_paper(params, features):
    """Each image by itself: time embeddings added, flattened, latents attend to features and latents, then the FFW."""

    def norm(x, p):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * np.asarray(p['scale']) + np.asarray(p['bias'])

    p = jax.tree.map(np.asarray, params)
    layer = jax.tree.map(lambda x: x[0], p['layers'])
    expected = np.zeros((2, 2, 3, 12), np.float32)
    for b, n in np.ndindex(2, 2):
        x_f = features[b, n] @ p['project_in']['kernel']  # [t s d]
        x_f = (x_f + p['time'][:, None]).reshape(-1, 16)  # [t*s d]
        x = p['latents']  # [r d]
        q_in, media = norm(x, layer['norm_latents']), norm(x_f, layer['norm_features'])
        kv_in = np.concatenate([media, q_in])
        heads = []
        for h in range(2):
            q, k, v = (
                a @ layer[name]['kernel'][:, h] for name, a in (('query', q_in), ('key', kv_in), ('value', kv_in))
            )
            weights = np.exp(q @ k.T / 4**0.5)
            heads.append(weights / weights.sum(-1, keepdims=True) @ v @ layer['out']['kernel'][h])
        x = x + sum(heads)
        hidden = np.maximum(norm(x, layer['norm_ffw']) @ layer['ffw']['up']['kernel'], 0) ** 2
        x = x + hidden @ layer['ffw']['down']['kernel']
        expected[b, n] = norm(x, p['norm_out']) @ p['project_out']['kernel']
    np.testing.assert_allclose(resample(params, features), expected, rtol=1e-4, atol=1e-4)


def test_places_have_no_order_but_frames_have(params, features):
    media = resample(params, features)
    order = [3, 1, 4, 0, 2]
    np.testing.assert_allclose(resample(params, features[:, :, :, order]), media, rtol=1e-4, atol=1e-5)
    frames = features[:, :, ::-1]
    assert np.abs(resample(params, frames) - media).max() > 1e-2


def test_images_do_not_mix(params, features):
    changed = features.copy()
    changed[0, 1] += 1
    media, after = resample(params, features), resample(params, changed)
    same = np.ones((2, 2), bool)
    same[0, 1] = False
    np.testing.assert_allclose(after[same], media[same], rtol=1e-6, atol=1e-6)
    assert np.abs(after[0, 1] - media[0, 1]).max() > 1e-2


def test_an_image_has_the_first_time_embedding(params, features):
    one = features[:, :, :1]
    first = params | {'time': params['time'].at[0].multiply(-1.0)}
    others = params | {'time': params['time'].at[1:].multiply(-1.0)}
    assert np.abs(resample(first, one) - resample(params, one)).max() > 1e-2
    np.testing.assert_array_equal(resample(others, one), resample(params, one))


def test_thirty_frames_interpolate_between_eight(params, features):
    long = np.random.default_rng(2).standard_normal((1, 1, 30, 5, 6), np.float32)
    # The centre of frame i of 30 lies at (i + 1/2) * 8 / 30 - 1/2 among the 8; outside the ends, the ends.
    place = np.clip((np.arange(30) + 0.5) * 8 / 30 - 0.5, 0, 7)
    time = np.stack([np.interp(place, np.arange(8), column) for column in np.asarray(params['time']).T], axis=-1)
    whole = PerceiverConfig(latents=3, width=16, depth=1, heads=2, head_dim=4, frames=30)
    expected = jax.jit(whole.module(12).apply)({'params': params | {'time': jnp.asarray(time, jnp.float32)}}, long)
    np.testing.assert_allclose(resample(params, long), expected, rtol=1e-4, atol=1e-5)


def test_the_latents_are_keys_too(params):
    """A latent reads the others even where the features say nothing."""
    layer = PerceiverLayer(CONFIG)
    latents = np.random.default_rng(3).standard_normal((1, 3, 16), np.float32)
    changed = latents.copy()
    changed[0, 2] = -changed[0, 2]
    apply = jax.jit(
        lambda latents: layer.apply(
            {'params': jax.tree.map(lambda x: x[0], params['layers'])}, latents, jnp.zeros((1, 5, 16))
        )
    )
    assert np.abs(apply(changed)[0, 0] - apply(latents)[0, 0]).max() > 1e-4


def simpler(kind, features, frames=8):
    """(a function of features, its parameters) of an ablation."""
    module = CONFIG.as_kind(kind, frames=frames).module(12)
    params = nn.meta.unbox(jax.jit(module.init)(jax.random.key(0), features))
    return jax.jit(lambda features: module.apply(params, features)), params['params']


def test_an_mlp_reads_each_place_by_itself(features):
    mlp, params = simpler('mlp', features)
    media = mlp(features)
    assert media.shape == (2, 2, 5, 12) and mlp(features[:, :, :1]).shape == (2, 2, 5, 12)  # The same for an image.
    assert 'latents' not in params
    changed = features.copy()
    changed[0, 1, 3, 2] *= -1  # One place of one frame.
    difference = np.abs(mlp(changed) - media).max(axis=-1)
    assert difference[0, 1, 2] > 1e-2 and np.count_nonzero(difference) == 1
    assert np.abs(mlp(features[:, :, ::-1]) - media).max() > 1e-4  # Frames have an order, by their embeddings.
    unordered, _ = simpler('mlp', features, frames=0)
    np.testing.assert_allclose(unordered(features[:, :, ::-1]), unordered(features), rtol=1e-4, atol=1e-5)


def test_an_mlp_can_have_as_many_parameters_as_the_layers():
    """With the multiplier that its docstring gives."""
    tiny, count = TINY['resampler'], {}
    for config in (tiny, tiny.as_kind('mlp', ffw_multiplier=tiny.depth * (2 + tiny.ffw_multiplier))):
        shapes = jax.eval_shape(config.module(192).init, jax.random.key(0), jnp.zeros((1, 1, 1, 1, 1280)))
        count[config.kind] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count['mlp'] == pytest.approx(count['perceiver'], rel=5e-3)


def test_pooling_gives_what_is_attended_to_and_nothing_else(features):
    """Of features that are all the same every latent gets the same; and places have no order."""
    pool, params = simpler('pooling', features)
    media = pool(features)
    assert media.shape == (2, 2, 3, 12) and 'layers' not in params
    np.testing.assert_allclose(pool(features[:, :, :, [3, 1, 4, 0, 2]]), media, rtol=1e-4, atol=1e-5)
    assert np.abs(media[..., 0, :] - media[..., 1, :]).max() > 1e-3
    same = pool(np.broadcast_to(features[:, :, :1, :1], (2, 2, 1, 5, 6)))
    np.testing.assert_allclose(same, np.broadcast_to(same[:, :, :1], same.shape), rtol=1e-5, atol=1e-5)
