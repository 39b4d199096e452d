import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.model.attention import as_array
from flamingo_jax.model.bridges.bridge import media_mask
from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig
from flamingo_jax.model.config import TINY

pytestmark = pytest.mark.usefixtures('quick_compilation')
LM = dataclasses.replace(TINY['lm'], width=16)
BLOCK = GatedXattnConfig(heads=2, head_dim=8, initial_alpha=0.5).module(LM, 16)
PHI = jnp.array([[0, 0, 1, 1, 2], [0, 1, 2, 2, 2]], jnp.int32)


@jax.jit
def run(params, y, media, mask):
    p = {'params': params}
    return BLOCK.apply(p, y, BLOCK.apply(p, media, method='keys_values'), mask)


@pytest.fixture(scope='module')
def y():
    return jnp.array(np.random.default_rng(0).standard_normal((2, 5, 16), np.float32))


@pytest.fixture(scope='module')
def media():
    return jnp.array(np.random.default_rng(1).standard_normal((2, 6, 16), np.float32))  # Two images of three tokens.


@pytest.fixture(scope='module')
def params(y, media):
    init = jax.jit(lambda key: BLOCK.init(key, y, media, media_mask(PHI, 2, 3), method='touch'))
    return nn.meta.unbox(init(jax.random.key(0)))['params'] | {'alpha_dense': jnp.full((), 0.5)}  # Both gates open.


def test_mask_is_as_drawn():
    drawn = '. . . .   . . . .   # # . .   # # . .   . . # #'
    rows = [[mark == '#' for mark in row.split()] for row in drawn.split('   ')]
    np.testing.assert_array_equal(as_array(media_mask(PHI[:1], 2, 2), 5, 4), [rows])
    rows[4] = [True] * 4
    np.testing.assert_array_equal(media_mask(PHI[:1], 2, 2, only_last_image=False), [rows])


def test_closed_gates_are_the_identity_bit_for_bit(params, y, media):
    closed = params | {'alpha_xattn': jnp.zeros(()), 'alpha_dense': jnp.zeros(())}
    np.testing.assert_array_equal(run(closed, y, media, media_mask(PHI, 2, 3)), y)
    new = GatedXattnConfig(heads=2, head_dim=8).module(LM, 16)
    new = nn.meta.unbox(new.init(jax.random.key(0), y, media, media_mask(PHI, 2, 3), method='touch'))['params']
    assert new['alpha_xattn'] == new['alpha_dense'] == 0 and new['alpha_xattn'].shape == ()


def test_without_gates_both_branches_are_added_as_they_are(params, y, media):
    """As where they are open as wide as can be: tanh(20) is 1. There are no alphas."""
    bare = dataclasses.replace(BLOCK.config, gates=False).module(LM, 16)
    mask, alphas = media_mask(PHI, 2, 3), ('alpha_xattn', 'alpha_dense')
    shapes = jax.eval_shape(lambda: bare.init(jax.random.key(0), y, media, mask, method='touch'))['params']
    assert set(shapes) == set(params) - set(alphas)
    without = {name: params[name] for name in shapes}
    y_bare = jax.jit(lambda p: bare.apply({'params': p}, y, media, mask, method='touch'))(without)
    y_open = run(params | dict.fromkeys(alphas, jnp.full((), 20.0)), y, media, mask)
    np.testing.assert_allclose(y_bare, y_open, rtol=1e-5, atol=1e-6)


def test_closed_gates_learn(params, y, media):
    """The alphas have a gradient at zero, which is what opens them."""
    closed = params | {'alpha_xattn': jnp.zeros(()), 'alpha_dense': jnp.zeros(())}
    grads = jax.grad(lambda p: jnp.sum(run(p, y, media, media_mask(PHI, 2, 3)) ** 2))(closed)
    assert grads['alpha_xattn'] != 0 and grads['alpha_dense'] != 0


@pytest.mark.parametrize('image', [1, 2])
def test_an_image_matters_only_where_phi_names_it(params, y, media, image):
    changed = media.at[:, (image - 1) * 3 : image * 3].multiply(-1.0)
    for only_last, sees in ((True, PHI == image), (False, PHI >= image)):
        mask = media_mask(PHI, 2, 3, only_last)
        difference = np.abs(run(params, y, changed, mask) - run(params, y, media, mask)).max(axis=-1)
        assert (difference[sees] > 1e-3).all() and (difference[~sees] == 0).all()


@pytest.mark.parametrize('only_last', [True, False])
def test_a_feed_forward_may_act_only_where_an_image_may_be_seen(params, y, media, only_last):
    """Whatever the gates: bit for bit unchanged where none may, the paper's block elsewhere."""
    block = BLOCK.config.as_kind('selective_xattn', ffw_where_seen=True).module(LM, 16)
    mask = media_mask(PHI, 2, 3, only_last)
    out = jax.jit(lambda p: block.apply({'params': p}, y, media, mask, method='touch'))(params)
    seen = np.asarray(PHI > 0)
    np.testing.assert_array_equal(out[~seen], y[~seen])
    np.testing.assert_allclose(out[seen], run(params, y, media, mask)[seen], rtol=1e-5, atol=1e-6)
    assert (np.abs(out - y).max(axis=-1)[seen] > 1e-3).all()


def test_equals_the_two_equations(params, y, media):
    """y + tanh(a) attention, then y + tanh(b) ffw, in numpy; one norm of the media serves keys and values."""
    p = jax.tree.map(np.asarray, params)

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    q = np.einsum('bld,dhk->blhk', norm(y), p['query']['kernel'])
    k, v = (np.einsum('bmd,dhk->bmhk', norm(media), p[name]['kernel']) for name in ('key', 'value'))
    logits = np.einsum('blhk,bmhk->bhlm', q, k) / 8**0.5
    weights = np.exp(logits) * np.asarray(as_array(media_mask(PHI, 2, 3), 5, 6))[:, None]
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)
    attended = np.einsum('bhlm,bmhk,hkd->bld', weights, v, p['out']['kernel'])
    x = y + np.tanh(0.5) * attended
    x = x + np.tanh(0.5) * np.maximum(norm(x) @ p['ffw']['up']['kernel'], 0) ** 2 @ p['ffw']['down']['kernel']
    np.testing.assert_allclose(run(params, y, media, media_mask(PHI, 2, 3)), x, rtol=1e-4, atol=1e-5)


def test_norms_of_a_language_model_that_norms_its_branches(params, y, media):
    """As Gemma's: rms norms of the text and of what both branches add, by stored scales that lack 1."""
    lm = dataclasses.replace(LM, norm='rms', norm_offset=1.0, norm_eps=1e-6, norm_place='around')
    block = BLOCK.config.as_kind('selective_xattn', norms_of_lm=True).module(lm, 16)
    names, rng = ('norm_text', 'norm_attended', 'norm_ffw', 'norm_fed'), np.random.default_rng(5)
    scales = {name: rng.uniform(0, 3, 16).astype(np.float32) for name in names}
    mask, p = media_mask(PHI, 2, 3), params | {name: dict(scale=scale) for name, scale in scales.items()}
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), y, media, mask, method='touch'))['params']
    assert jax.tree.structure(nn.meta.unbox(shapes)) == jax.tree.structure(p)
    out = jax.jit(lambda p: block.apply({'params': p}, y, media, mask, method='touch'))(p)

    def norm(x, name):
        return x / np.sqrt((np.asarray(x) ** 2).mean(-1, keepdims=True) + 1e-6) * (1 + scales[name])

    q = np.einsum('bld,dhk->blhk', norm(y, 'norm_text'), p['query']['kernel'])
    keys_values = BLOCK.apply({'params': params}, media, method='keys_values')
    (k, v), seen = keys_values[0], np.asarray(as_array(mask, 5, 6))[:, None]
    weights = np.exp(np.einsum('blhk,bhmk->bhlm', q, k) / 8**0.5) * seen
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)
    attended = np.einsum('bhlm,bhmk,hkd->bld', weights, v, p['out']['kernel'])
    x = y + np.tanh(0.5) * norm(attended, 'norm_attended')
    fed = np.maximum(norm(x, 'norm_ffw') @ p['ffw']['up']['kernel'], 0) ** 2 @ p['ffw']['down']['kernel']
    np.testing.assert_allclose(out, x + np.tanh(0.5) * norm(fed, 'norm_fed'), rtol=1e-4, atol=1e-4)


def test_rows_share_media_without_a_copy(params, media):
    """Three beams for each of two prompts."""
    y = np.random.default_rng(3).standard_normal((6, 5, 16), np.float32)
    mask = media_mask(jnp.repeat(PHI, 3, axis=0), 2, 3)
    shared, copied = run(params, y, media, mask), run(params, y, np.repeat(media, 3, axis=0), mask)
    np.testing.assert_allclose(shared, copied, rtol=1e-5, atol=1e-6)
