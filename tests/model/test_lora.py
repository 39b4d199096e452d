"""Low-rank additions: nothing at the start, the same merged and unmerged, in training's pass and in decoding's."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from flamingo_jax.inference import decode
from flamingo_jax.model import lora
from flamingo_jax.model.config import FlamingoConfig, LoraConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.layers import Linear
from flamingo_jax.model.stack import checkpoint
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.parallel.rules import shardings
from tests.operations import operations

pytestmark = pytest.mark.usefixtures('quick_compilation')
logits = jax.jit(Flamingo.logits, static_argnums=0)
TOLERANCE = 1e-5  # Relative to the largest logit.

EVERY = LoraConfig(rank=3, alpha=6.0, targets=('query', 'key', 'value', 'out', 'up', 'down'))


@pytest.fixture(scope='module')
def adapted(config, params):
    """The tests' model, with a ragged last group and LoRA on every kernel; parameters as if trained: B is not 0."""
    model = Flamingo(dataclasses.replace(config, lora=EVERY))
    return model, params | {'lora': learnt(model)}


def learnt(model):
    noise = np.random.default_rng(0)
    shapes = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0))['lora'])
    return jax.tree.map(lambda x: jnp.asarray(noise.normal(0, 0.2, x.shape), jnp.float32), shapes)


def test_at_the_start_nothing_is_changed(adapted, model, params, features, tokens):
    """Bit for bit; in bfloat16, where a sum is rounded."""
    with_lora, without = (dataclasses.replace(one, dtype=jnp.bfloat16) for one in (adapted[0], model))
    frozen = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    blocks = jax.eval_shape(model.init, jax.random.key(0))['lm']['blocks']
    new = nn.meta.unbox(lora.init(EVERY, blocks, jax.random.key(1)))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(new)) and new['query']['kernel']['a'].any()
    got = logits(with_lora, frozen | {'lora': new}, features, tokens)
    np.testing.assert_array_equal(got, logits(without, frozen, features, tokens))


@pytest.mark.parametrize('bare', [False, True])
def test_merged_is_the_same_model(adapted, features, tokens, bare):
    """Where each block is taken from the whole stack, and where groups are cut from it."""
    model, params = adapted
    if bare:
        model, features = Flamingo(FlamingoConfig(lm=model.config.lm, lora=EVERY)), None
        tokens = np.minimum(tokens, 303)
    plain = Flamingo(dataclasses.replace(model.config, lora=None))
    unmerged = logits(model, params, features, tokens)
    lm = lora.merge(EVERY, params['lm'], params['lora'])
    assert jax.tree.map(jnp.shape, lm) == jax.tree.map(jnp.shape, params['lm'])
    merged = logits(plain, params | {'lm': lm}, features, tokens)
    scale = np.abs(merged).max()
    assert np.abs(merged - unmerged).max() < TOLERANCE * scale
    assert np.abs(merged - logits(plain, params, features, tokens)).max() > 0.1 * scale


def test_the_products_are_those_of_the_paper(adapted):
    _, params = adapted
    merged = lora.merge(EVERY, params['lm'], params['lora'])['blocks']
    for kernel, before, pair, inputs in (
        (merged['query'], params['lm']['blocks']['query'], params['lora']['query'], 1),
        (merged['out'], params['lm']['blocks']['out'], params['lora']['out'], 2),
        (merged['ffw']['up'], params['lm']['blocks']['ffw']['up'], params['lora']['ffw']['up'], 1),
    ):
        for i in range(3):
            w = np.asarray(before['kernel'][i])
            a, b = (np.asarray(pair['kernel'][name][i]) for name in 'ab')
            expected = w.reshape(np.prod(w.shape[:inputs]), -1) + 6 / 3 * a.reshape(-1, 3) @ b.reshape(3, -1)
            np.testing.assert_allclose(kernel['kernel'][i].reshape(expected.shape), expected, atol=1e-5)


def test_what_bfloat16_weights_would_round_away_is_in_the_output(adapted, params, features, tokens):
    """Steps of training change weights by less than half of what separates two bfloat16 numbers."""
    rng = np.random.default_rng(1)
    model, bfloat16 = dataclasses.replace(adapted[0], dtype=jnp.bfloat16), jnp.bfloat16
    frozen = jax.tree.map(lambda x: x.astype(bfloat16), params)
    low_rank = jax.tree_util.tree_map_with_path(
        lambda path, x: x * (2e-4 if path[-1].key == 'b' else 1), adapted[1]['lora']
    )
    query = frozen['lm']['blocks']['query']['kernel']
    merged = lora.merge(EVERY, frozen['lm'], low_rank)['blocks']['query']['kernel']
    assert merged.dtype == jnp.float32 and (merged.astype(bfloat16) == query).mean() > 0.9
    nothing = jax.tree.map(jnp.zeros_like, low_rank)
    before, after = (logits(model, frozen | {'lora': of}, features, tokens) for of in (nothing, low_rank))
    assert (before != after).mean() > 0.5

    kernel = jnp.asarray(rng.normal(0, 32**-0.5, (32, 32)), bfloat16)
    pair = dict(a=rng.normal(0, 0.3, (32, 3)), b=rng.normal(0, 1e-3, (3, 32)))
    x = jnp.asarray(rng.normal(0, 1, (1000, 32)), bfloat16)
    linear = Linear((32, 32), ('embed', 'ffw'), dtype=bfloat16)
    plain = {'params': {'kernel': kernel}}
    more = linear.apply(plain | {'lora': {'kernel': jax.tree.map(jnp.asarray, pair)}}, x)
    change = np.asarray(more.astype(float) - linear.apply(plain, x).astype(float))
    expected = np.asarray(x, float) @ pair['a'] @ pair['b']
    # Roundings average out: what is there is what was meant.
    assert (change * expected).sum() / np.square(expected).sum() == pytest.approx(1, abs=0.1)


def test_what_is_merged_into_bfloat16_is_kept(adapted):
    """Whatever its size; a kernel is float32 where bfloat16 would lose more than a tenth of the change."""
    lm = jax.tree.map(lambda x: x.astype(jnp.bfloat16), adapted[1]['lm'])
    dtypes = []
    for size in (1.0, 1e-2, 1e-3, 1e-4, 0.0):
        low_rank = jax.tree_util.tree_map_with_path(
            lambda path, x, size=size: x * size if path[-1].key == 'b' else x, adapted[1]['lora']
        )
        merged = lora.merge(EVERY, lm, low_rank)
        before, after, a, b = (
            np.asarray(x, np.float64)
            for x in (
                lm['blocks']['query']['kernel'],
                merged['blocks']['query']['kernel'],
                *(low_rank['query']['kernel'][name] for name in 'ab'),
            )
        )
        meant = np.einsum('lir,lrhd->lihd', a, b) * EVERY.alpha / EVERY.rank
        assert size == 0 or ((after - before) * meant).sum() / np.square(meant).sum() == pytest.approx(1, abs=0.1)
        dtypes.append(str(merged['blocks']['query']['kernel'].dtype))
        named = lora.in_float32(lm, merged)
        assert ('blocks/query/kernel' in named) == (dtypes[-1] == 'float32')
    assert dtypes[0] == dtypes[-1] == 'bfloat16' and dtypes[-2] == 'float32'


def test_its_products_are_kept_where_those_with_weights_are():
    """And not computed again: `remat` sees into them."""
    linear, x = Linear((32, 48), ('embed', 'ffw'), dtype=jnp.bfloat16), jnp.ones((8, 32), jnp.bfloat16)
    kernel, pair = jnp.ones((32, 48), jnp.bfloat16), dict(a=jnp.ones((32, 3)), b=jnp.ones((3, 48)))

    def of_step(remat):
        apply = checkpoint(
            lambda pair, x: linear.apply(dict(params=dict(kernel=kernel), lora=dict(kernel=pair)), x), remat
        )
        return operations(jax.grad(lambda pair, x: jnp.square(apply(pair, x)).sum(), (0, 1)), pair, x)

    assert of_step('dots') == of_step('') < of_step('full')


def test_it_decodes(adapted, features, tokens):
    model, params = adapted
    whole = logits(model, params, features, tokens)
    media = decode.encode_images(model, params, [list(row) for row in features])
    read = jax.jit(decode.prefill, static_argnums=(0, 5))
    last, text = read(model, params, media, tokens[:, :12], np.ones((2, 12), bool), 4)
    np.testing.assert_allclose(last, whole[:, 11], atol=1e-4)
    more, _ = jax.jit(decode.extend, static_argnums=0)(model, params, media, text, tokens[:, 12:])
    np.testing.assert_allclose(more, whole[:, 12:], atol=1e-4)


def test_it_lies_on_the_mesh_as_the_kernels_do(config):
    boxed = jax.eval_shape(Flamingo(dataclasses.replace(config, lora=EVERY)).init, jax.random.key(0))
    where = jax.tree.map(lambda s: s.spec, shardings(boxed, make_mesh(2, 2, 2)))['lora']
    assert where['query']['kernel']['a'] == PartitionSpec(None, 'fsdp', None)
    assert where['query']['kernel']['b'] == PartitionSpec(None, None, 'tensor', None)
    assert where['out']['kernel']['a'] == PartitionSpec(None, 'tensor', None, None)
    assert where['ffw']['down']['kernel']['b'] == PartitionSpec(None, None, 'fsdp')


def test_what_makes_no_sense_is_refused(config):
    def init(**fields):
        model = Flamingo(FlamingoConfig(lm=config.lm, lora=LoraConfig(**fields)))
        return jax.eval_shape(model.init, jax.random.key(0))

    with pytest.raises(ValueError, match="Name some of .'query', 'key', 'value', 'out', 'up', 'down'."):
        init(targets=('query', 'gate'))  # This feed-forward has none.
    with pytest.raises(ValueError, match='Name some of'):
        init(targets=())
    with pytest.raises(ValueError, match='rank is -1'):
        init(rank=-1)
