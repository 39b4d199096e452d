import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Past, Placement
from flamingo_jax.model.language_model import Block
from flamingo_jax.model.positions import alibi_slopes, by_distance, distance_waves, rotate

pytestmark = pytest.mark.usefixtures('quick_compilation')
ROTARY = dict(positions='rotary', norm='rms', kv_heads=2)
LEARNED = dict(
    positions='learned', norm='layer', bias=True, gated_ffw=True, activation='silu', tied=False, scale_embeddings=False
)


RELATIVE = dict(positions='relative', norm='rms', kv_heads=2)


ALIBI = dict(
    positions='alibi',
    windows=(0, 5, 3),
    norm='layer',
    norm_bias=False,
    norm_query_key='token',
    clip_qkv=0.7,
)
WINDOWS = dict(
    positions='rotary',
    windows=(5, 0, 5),
    rotary_local_base=100.0,
    rotary_factor=4.0,
    rotary_bands=(1.0, 4.0, 16.0),
    norm_place='around',
    norm_query_key='head',
    norm_offset=1.0,
    attention_scale=0.5,
    attention_cap=2.0,
    logit_cap=3.0,
)
FAMILIES = dict(rotary=ROTARY, learned=LEARNED, relative=RELATIVE, alibi=ALIBI, windows=WINDOWS)


@pytest.fixture(scope='module', params=FAMILIES.values(), ids=FAMILIES)
def lm(config, request):
    """(model, params) of a bare language model of one family."""
    model = Flamingo(FlamingoConfig(lm=dataclasses.replace(config.lm, **request.param)))
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    # Zero biases would hide a bias that is forgotten.
    return model, jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), params)


@pytest.fixture(scope='module')
def logits(lm):
    """The language model as a jitted function of tokens."""
    model, params = lm
    return jax.jit(lambda tokens: model.logits(params, None, tokens))


@pytest.fixture(scope='module')
def advance(lm):
    """The decoder with a cache, jitted: (tokens, positions, mask, cache, index, key_positions) -> (logits, cache)."""
    model, params = lm

    def run(tokens, positions, mask, cache, index, key_positions):
        y = model.embed(params, tokens)
        y, cache = model.decoder(
            params, y, Placement(positions, mask, jnp.zeros_like(tokens)), None, Past(cache, index, key_positions)
        )
        return model.unembed(params, y), cache

    return jax.jit(run)


def test_a_token_sees_nothing_after_it(logits, tokens):
    tokens = np.minimum(tokens, 303)
    changed = tokens.copy()
    changed[:, 9] = (changed[:, 9] + 1) % 300
    before, after = logits(tokens), logits(changed)
    assert before.shape == (2, 16, 304) and before.dtype == np.float32
    np.testing.assert_array_equal(after[:, :9], before[:, :9])
    assert (np.abs(after[:, 9:] - before[:, 9:]).max(axis=-1) > 1e-3).all()


def test_a_window_ends(config, tokens):
    """In two blocks of windows 4 and 2, token 9 depends on the tokens 5 to 9: 3 + 1 before it."""
    lm = dataclasses.replace(config.lm, depth=2, windows=(4, 2))
    model = Flamingo(FlamingoConfig(lm=lm))
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    logits = jax.jit(lambda tokens: model.logits(params, None, tokens))
    tokens = np.minimum(tokens, 303)
    changed = [np.array(tokens), np.array(tokens)]
    changed[0][:, 4] = (tokens[:, 4] + 1) % 300
    changed[1][:, 5] = (tokens[:, 5] + 1) % 300
    same, other = (np.abs(logits(c) - logits(tokens))[:, 9].max() for c in changed)
    assert same == 0 and other > 1e-4
    with pytest.raises(ValueError, match='2 windows do not fit 3 blocks'):
        dataclasses.replace(lm, depth=3)


def test_padding_past_the_context_is_not_seen(config):
    """A packed row may be longer than the context, and its padding has positions of its own."""
    lm = dataclasses.replace(config.lm, **LEARNED)
    model = Flamingo(FlamingoConfig(lm=lm))
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    tokens = np.arange(lm.context + 8)[None] % 300
    document = np.where(np.arange(lm.context + 8) < 4, 1, 0)[None]
    hidden = model.hidden(params, None, jnp.asarray(tokens), document=jnp.asarray(document))
    alone = model.hidden(params, None, jnp.asarray(tokens[:, :4]))
    np.testing.assert_allclose(hidden[:, :4], alone, atol=1e-5)


def test_slopes_of_alibi():
    """Press et al. 2022, section 3; for 6 heads the 4 of every second of 8, then those between, as in its code."""
    np.testing.assert_allclose(alibi_slopes(8, 8.0), [2.0**-n for n in range(1, 9)])
    np.testing.assert_allclose(alibi_slopes(6, 8.0), [2.0**-n for n in (2, 4, 6, 8, 1, 3)])


def test_order_matters(logits, tokens):
    tokens = np.minimum(tokens, 303)
    swapped = tokens.copy()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    assert np.abs(logits(swapped)[:, -1] - logits(tokens)[:, -1]).max() > 1e-3


def test_prefix_and_extension_are_the_whole(lm, logits, advance, tokens):
    tokens = np.minimum(tokens, 303)
    model, places = lm[0], np.arange(20)
    cache, parts = model.empty_cache(2, 20), []
    for begin, end in ((0, 9), (9, 14), (14, 16)):
        index = np.arange(begin, end)
        mask = (places <= index[:, None])[None]
        positions = np.broadcast_to(index, (2, end - begin))
        part, cache = advance(tokens[:, begin:end], positions, mask, cache, jnp.int32(begin), np.tile(places, (2, 1)))
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), logits(tokens), rtol=1e-4, atol=1e-5)


def test_padding_on_the_left_changes_nothing(lm, logits, advance, tokens):
    tokens = np.minimum(tokens, 303)
    padded = np.pad(tokens, ((0, 0), (4, 0)), constant_values=1)
    places = np.arange(20)
    mask = ((places <= places[:, None]) & (places >= 4))[None]
    positions = np.broadcast_to(np.maximum(places - 4, 0), (2, 20))
    out, _ = advance(padded, positions, mask, lm[0].empty_cache(2, 20), jnp.int32(0), positions)
    np.testing.assert_allclose(out[:, 4:], logits(tokens), rtol=1e-4, atol=1e-5)
    assert np.isfinite(out).all()


def test_rotation_depends_on_the_distance_alone():
    q, k = np.random.default_rng(0).standard_normal((2, 1, 1, 1, 8), np.float32)
    q, k, frequency = jnp.array(q), jnp.array(k), 100.0 ** (-jnp.arange(4) / 4)

    def product(i, j):
        return float(jnp.sum(rotate(q, jnp.array([[i]]), frequency) * rotate(k, jnp.array([[j]]), frequency)))

    assert product(0, 0) == pytest.approx(float(jnp.sum(q * k)), rel=1e-5)
    assert product(12, 5) == pytest.approx(product(7, 0), rel=1e-3, abs=1e-4)
    assert abs(product(7, 0) - product(6, 0)) > 1e-2
    # Halves convention: number i and number i + 4 turn by position * base ** (-i / 4).
    x = jnp.zeros((1, 1, 1, 8)).at[..., 1].set(1.0)
    turned = np.asarray(rotate(x, jnp.array([[3]]), frequency))[0, 0, 0]
    np.testing.assert_allclose(turned[[1, 5]], [np.cos(3 * 100**-0.25), np.sin(3 * 100**-0.25)], rtol=1e-5)
    assert np.count_nonzero(turned) == 2


@pytest.fixture(scope='module')
def relative_block(config):
    """(config, block, its parameters, y [2 7 32]) with relative positions."""
    c = dataclasses.replace(config.lm, **RELATIVE)
    y = jnp.array(np.random.default_rng(0).standard_normal((2, 7, c.width), np.float32))
    block = Block(c)
    nowhere = jnp.zeros((2, 7), int)
    at = Placement(nowhere, jnp.ones((1, 7, 7), bool), nowhere)
    params = nn.meta.unbox(block.init(jax.random.key(0), y, at)['params'])
    return c, block, jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), params), y


def relative_attention(c, p, x):
    """Equation (a) + (b) + (c) + (d) of Dai et al. 2019, section 3.3, as loops, in float64; x [l d] is normed."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), p)
    out = np.zeros_like(x)
    for i, h in np.ndindex(len(x), c.heads):
        g = h // (c.heads // c.kv_heads)
        q, logits = x[i] @ p['query']['kernel'][:, h], []
        for j in range(i + 1):
            frequency = [10_000 ** (-2 * f / c.width) for f in range(c.width // 2)]
            wave = np.array([np.sin((i - j) * f) for f in frequency] + [np.cos((i - j) * f) for f in frequency])
            key, distance = x[j] @ p['key']['kernel'][:, g], wave @ p['relative'][:, h]
            u, v = p['content_bias'][h], p['relative_bias'][h]
            logits.append((q @ key + q @ distance + u @ key + v @ distance) / c.head_dim**0.5)
        weights = np.exp(logits) / np.exp(logits).sum()
        value = sum(w * (x[j] @ p['value']['kernel'][:, g]) for j, w in enumerate(weights))
        out[i] += value @ p['out']['kernel'][h]
    return out


def test_relative_positions_are_a_loop_over_queries_and_keys(relative_block):
    c, block, p, y = relative_block
    p = p | {'ffw': jax.tree.map(jnp.zeros_like, p['ffw'])}  # The attention alone.
    nowhere = jnp.zeros((2, 7), int)
    at = Placement(nowhere, jnp.tril(jnp.ones((1, 7, 7), bool)), nowhere)
    got, _ = jax.jit(block.apply)({'params': p}, y, at)
    for row, new in zip(np.asarray(y, np.float64), got, strict=True):
        normed = row / np.sqrt((row**2).mean(-1, keepdims=True) + c.norm_eps) * np.asarray(p['norm_attention']['scale'])
        np.testing.assert_allclose(new, row + relative_attention(c, p, normed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('queries', [1, 64])
def test_both_orders_of_the_distance_product(queries):
    rng = np.random.default_rng(0)
    q, kernel = rng.standard_normal((2, queries, 3, 4), np.float32), rng.standard_normal((16, 3, 4), np.float32)
    expected = np.einsum('blhk,dhk,md->bhlm', q, kernel, distance_waves(32, 16), optimize=True)
    np.testing.assert_allclose(by_distance(jnp.array(q), jnp.array(kernel), 32), expected, rtol=1e-4, atol=1e-4)


def test_a_tied_output_is_the_embedding(config):
    for tied in (True, False):
        model = Flamingo(FlamingoConfig(lm=dataclasses.replace(config.lm, tied=tied)))
        embedder = jax.eval_shape(model.init, jax.random.key(0))['lm']['embedder']
        assert ('output' in embedder) != tied


@pytest.mark.parametrize('fields', [dict(tied=True), dict(tied=False), dict(tied=False, logit_cap=2.0)])
def test_logits_in_bfloat16_are_a_product_in_float32(config, fields):
    """Tied or not, capped or not, those of extra tokens too."""
    lm = dataclasses.replace(config.lm, **fields)
    model = Flamingo(FlamingoConfig(lm=lm, extra_tokens=('<EOC>', '<image>')), jnp.bfloat16)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    y = jax.random.normal(jax.random.key(1), (2, 5, 32), jnp.bfloat16) * 3
    embedder = params['lm']['embedder']
    rows = embedder['tokens'] if lm.tied else embedder['output']['kernel'].T
    rows = jnp.concatenate([rows, params['extra_tokens']['output']]).astype(jnp.bfloat16)
    normed = jax.jit(lambda y: model.embedder.apply({'params': embedder}, y, method='normalise'))(y)
    expected = np.asarray(normed, np.float32) @ np.asarray(rows, np.float32).T
    expected = lm.logit_cap * np.tanh(expected / lm.logit_cap) if lm.logit_cap else expected
    logits = jax.jit(model.unembed)(params, y)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
