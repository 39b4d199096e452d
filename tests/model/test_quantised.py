"""Quantised matrices: their error, both kinds of product against plain formulas, gradients, and a whole model."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.model import quantised
from flamingo_jax.model.config import TINY, FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.layers import Linear
from flamingo_jax.model.quantised import Quantisation, dot, quantise, take, to_values
from flamingo_jax.model.stack import checkpoint
from flamingo_jax.parallel import rules
from flamingo_jax.parallel.mesh import batch_sharding, make_mesh
from tests.operations import operations

pytestmark = pytest.mark.usefixtures('quick_compilation')
logits = jax.jit(Flamingo.logits, static_argnums=0)
EVERY = [
    Quantisation('int8'),
    Quantisation('int8', True),
    Quantisation('int4'),
    Quantisation('fp8'),
    Quantisation('fp8', True),
]
# A whole model of each takes seconds to compile.
SOME = [pytest.param(how, marks=[] if how in (EVERY[1], EVERY[2]) else pytest.mark.long) for how in EVERY]
TOLERANCE = 1e-5  # Relative to the largest, of what differs by the order of a sum alone.


def close(a, b, tolerance=TOLERANCE):
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.fixture(scope='module')
def matrix():
    """[64 96], with a column of zeros, a large and a small one."""
    w = np.random.default_rng(0).standard_normal((64, 96), np.float32)
    w[:, 3], w[:, 4], w[:, 5] = 0, 1000 * w[:, 4], 1e-6 * w[:, 5]
    return w


@pytest.fixture(scope='module')
def x():
    x = np.random.default_rng(1).standard_normal((5, 64), np.float32)
    x[2, 7], x[3] = 100, 0  # An outlier, and a token of zeros.
    return x


def one(matrix, how):
    """The matrix as a kernel of a block, without layers."""
    return quantised._rounded((1, 0), 1, how.dtype, how.inputs, jnp.asarray(matrix))


def dequantise(kernel, inputs=1):
    """The float32 matrix or stack that a kernel stands for, inputs before outputs, by NumPy."""
    values, scale = (np.asarray(x, np.float32) for x in (kernel.values, kernel.scale))
    if kernel.packed:
        signed = np.asarray(kernel.values).astype(np.int32)
        halves = np.stack([(signed + 8) % 16 - 8, signed >> 4]).reshape(2, *scale.shape, -1)  # Bytes of each group.
        values = np.concatenate(list(halves), axis=-1) * scale[..., None]
        values, scale = values.reshape(*kernel.values.shape[:-1], -1), 1
    return np.moveaxis(values * scale, range(-inputs, 0), range(inputs))


@pytest.mark.parametrize('how', EVERY, ids=str)
def test_a_weight_is_off_by_half_a_step_at_most(matrix, how):
    kernel = one(matrix, how)
    error = np.abs(dequantise(kernel) - matrix)
    groups = np.abs(matrix).reshape(-1, quantised.GROUP if how.dtype == 'int4' else 64, 96).max(1, keepdims=True)
    step = np.broadcast_to(groups / quantised.LARGEST[how.dtype], (len(groups), 64 // len(groups), 96)).reshape(64, 96)
    if how.dtype == 'fp8':  # Three bits after the first; below 2 ** -6 steps are equal.
        assert (error <= np.maximum(np.abs(matrix) / 16, step * 2.0**-10) * 1.001).all()
    else:
        assert (error <= step / 2 * (1.07 if how.dtype == 'int4' else 1.001)).all()  # int4's scale is a bfloat16.
    assert (np.asarray(kernel.values)[3] == 0).all()
    assert kernel.values.nbytes == matrix.size * (0.5 if how.dtype == 'int4' else 1)


def test_both_in_int8_are_multiplied_exactly(matrix, x):
    kernel = one(matrix, Quantisation('int8', True))
    values, of_token = (np.asarray(part) for part in to_values(jnp.asarray(x), 1, 'int8'))
    assert np.abs(values).max(axis=1).tolist() == [127, 127, 127, 0, 127]
    exact = values.astype(np.int64) @ np.asarray(kernel.values, np.int64).T
    expected = exact.astype(np.float32) * of_token * np.asarray(kernel.scale)[:, 0]
    np.testing.assert_array_equal(dot(jnp.asarray(x), kernel, jnp.float32), expected)
    close(expected, x @ matrix, 0.02)


@pytest.mark.parametrize('how', [how for how in EVERY if not how.inputs], ids=str)
def test_weights_alone_are_multiplied_as_their_float_matrix(matrix, x, how, monkeypatch):
    """On a CPU row by row, the matrix at once, or in pieces."""
    kernel = one(matrix, how)
    expected = x @ dequantise(kernel)
    for few, piece in ((8, 2**30), (1, 2**30), (1, 16384)):
        monkeypatch.setattr(quantised, 'FEW', few)
        monkeypatch.setattr(quantised, 'PIECE', piece)
        product = jax.jit(lambda x, kernel: dot(x, kernel, jnp.float32))
        in_pieces = piece == 16384 or (few == 8 and how.dtype != 'int4')  # Rows one by one: in two halves.
        assert ('while' in product.lower(jnp.asarray(x), kernel).as_text()) == in_pieces
        close(product(jnp.asarray(x), kernel), expected)


@pytest.mark.parametrize('how', EVERY, ids=str)
@pytest.mark.parametrize('inputs, outputs', [(1, 1), (7, 5), (2, 3), (33, 97), (34, 13), (94, 101), (44, 1), (130, 7)])
def test_odd_shapes(how, inputs, outputs):
    """Products, and their gradients, with few and many rows. No matrix takes more than 1.6 bytes a weight."""
    rng = np.random.default_rng(inputs)
    w = rng.standard_normal((inputs, outputs), np.float32)
    if how.dtype == 'int4' and inputs % 2:
        with pytest.raises(ValueError, match=f'has {inputs} inputs, an odd number'):
            quantise(
                dict(logits=dict(kernel=jnp.asarray(w)), blocks=dict(up=dict(kernel=jnp.asarray(w)[None]))), how, 'f4'
            )
        return
    kernel = one(w, how)
    number = kernel.values.nbytes + kernel.scale.nbytes * (1 if how.dtype == 'int4' else 0)
    assert number <= max(1.0 if how.dtype != 'int4' else 0.63, 3 / inputs) * w.size
    whole, step = dequantise(kernel), {'int8': 0.51 / 127, 'int4': 0.54 / 7, 'fp8': 1 / 16}[how.dtype]
    assert whole.shape == w.shape
    np.testing.assert_allclose(whole, w, atol=np.abs(w).max() * step)
    for rows in (1, 3, 9):
        x, dy = (rng.standard_normal((rows, n), np.float32) for n in (inputs, outputs))
        y, back = jax.vjp(lambda x: dot(x, kernel, jnp.float32), jnp.asarray(x))
        rounded = x
        if how.inputs:
            values, scale = to_values(jnp.asarray(x), 1, how.dtype)
            rounded = np.asarray(values, np.float32) * np.asarray(scale)
        close(y, rounded @ whole)
        close(back(jnp.asarray(dy))[0], dy @ whole.T)


def test_inputs_of_int4_share_a_scale_in_groups_that_save_bytes():
    sizes = {2: 2, 6: 6, 34: 34, 44: 22, 64: 32, 94: 94, 96: 32, 130: 26, 576: 32, 4096: 32, 2 * 3 * 47: 94}
    assert {size: quantised.group_of(size) for size in sizes} == sizes


@pytest.mark.parametrize('how', SOME, ids=str)
def test_a_model_of_odd_shapes_is_quantised(how):
    """A vocabulary of 301 tokens, 3 heads of 6 numbers, a width of 34, a feed-forward of 46."""
    lm = dict(positions='rotary', vocab_size=301, width=34, depth=2, heads=3, kv_heads=1, head_dim=6, ffw_width=46)
    lm = dataclasses.replace(TINY['lm'], **lm, context=32)
    model = Flamingo(FlamingoConfig(lm=lm), quantised=how)
    plain = Flamingo(FlamingoConfig(lm=lm))
    params = nn.meta.unbox(jax.jit(plain.init)(jax.random.key(0)))
    kept = {'lm': quantise(params['lm'], how, jnp.float32)}
    tokens = np.random.default_rng(0).integers(0, 301, (3, 7)).astype(np.int32)
    got = logits(model, kept, None, tokens)
    expected = logits(plain, {'lm': dequantised(params['lm'], kept['lm'])}, None, tokens)
    close(got, expected, {'int8': 0.02, 'fp8': 0.1}[how.dtype] if how.inputs else TOLERANCE)


def test_rows_are_taken(matrix):
    kernel = one(matrix, Quantisation('int8'))
    np.testing.assert_array_equal(take(kernel, jnp.array([[4], [0]]), jnp.float32), dequantise(kernel).T[[[4], [0]]])


@pytest.mark.parametrize('how', EVERY, ids=str)
def test_the_gradient_is_straight_through(matrix, x, how):
    """That of x times the matrix that was multiplied: the rounding of x is passed as if it were not there."""
    kernel = one(matrix, how)
    dy = np.random.default_rng(2).standard_normal((5, 96), np.float32)
    _, back = jax.vjp(lambda x: dot(x, kernel, jnp.float32), jnp.asarray(x))
    close(back(jnp.asarray(dy))[0], dy @ dequantise(kernel).T)


@pytest.mark.parametrize('how', EVERY, ids=str)
def test_its_products_are_kept_where_those_with_weights_are(matrix, x, how):
    """And not computed again: `remat` sees them."""
    kernel = one(matrix, how)

    def of_step(remat):
        apply = checkpoint(lambda x: jnp.tanh(dot(jnp.tanh(x), kernel, jnp.float32)), remat)
        return operations(jax.grad(lambda x: jnp.square(apply(x)).sum()), jnp.asarray(x))

    assert of_step('dots') == of_step('') < of_step('full')


def dequantised(lm, kept):
    """The `lm` tree of floats that a quantised one stands for."""

    def of(path, whole, q):
        keys = [key.key for key in path]
        if not isinstance(q, quantised.Quantised):
            return q
        if keys[-1] == 'tokens':
            return dequantise(q, 0)
        number = len(quantised.contracted(keys, whole.ndim))
        of_layers = [jax.tree.map(lambda x, i=i: x[i], q) for i in range(len(whole))]
        return np.stack([dequantise(of_layer, number) for of_layer in of_layers])

    return jax.tree_util.tree_map_with_path(of, lm, kept)


@pytest.mark.parametrize('how', SOME, ids=str)
def test_a_model_computes_with_the_matrices_that_it_keeps(config, params, features, tokens, how):
    """Through the scan with its ragged group. With both in 8 bits, the activations are rounded too."""
    kept = params | {'lm': quantise(params['lm'], how, jnp.float32)}
    got = logits(Flamingo(config, quantised=how), kept, features, tokens)
    expected = logits(Flamingo(config), params | {'lm': dequantised(params['lm'], kept['lm'])}, features, tokens)
    close(got, expected, {'int8': 0.02, 'fp8': 0.1}[how.dtype] if how.inputs else TOLERANCE)
    if how.inputs:
        assert not np.allclose(got, expected, rtol=1e-6)  # The inputs were rounded.


def test_closed_gates_leave_the_quantised_language_model_as_it_is(config, params, features, tokens):
    how = Quantisation('int8', inputs=True)
    kept = quantise(params['lm'], how, jnp.float32)
    closed = {name: jnp.zeros_like(x) if name.startswith('alpha') else x for name, x in params['xattn'].items()}
    text = np.minimum(tokens, config.lm.vocab_size - 1)
    whole = logits(Flamingo(config, quantised=how), params | dict(lm=kept, xattn=closed), features, text)
    alone = logits(Flamingo(FlamingoConfig(lm=config.lm), quantised=how), {'lm': kept}, None, text)
    np.testing.assert_array_equal(whole[..., : config.lm.vocab_size], alone)


def test_lora_is_added_to_a_quantised_kernel(matrix, x):
    """Its gradient is that on the matrix that is kept."""
    kernel, noise = one(matrix, Quantisation('int4')), np.random.default_rng(3)
    pair = dict(a=noise.standard_normal((64, 2), np.float32), b=noise.standard_normal((2, 96), np.float32))
    layer = Linear((64, 96), ('embed', 'ffw'))

    def loss(pair, kernel):
        return jnp.square(layer.apply({'params': {'kernel': kernel}, 'lora': {'kernel': pair}}, jnp.asarray(x))).mean()

    whole = jnp.asarray(dequantise(kernel))
    jax.tree.map(close, jax.value_and_grad(loss)(pair, kernel), jax.value_and_grad(loss)(pair, whole))


@pytest.mark.parametrize('how', SOME, ids=str)
def test_shards_are_laid_out_by_the_same_rules(model, params, features, tokens, how):
    mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
    boxed = quantise(jax.eval_shape(model.init, jax.random.key(0))['lm'], how, jnp.float32)
    where = rules.shardings(boxed, mesh)
    kept = quantise(params['lm'], how, jnp.float32)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), nn.meta.unbox(boxed)) == jax.tree.map(
        lambda x: (x.shape, x.dtype), kept
    )
    up = where['blocks']['ffw']['up']['kernel']
    assert (*up.values.spec,) == (None, 'tensor', 'fsdp') and (*up.scale.spec,) == (None, 'tensor', None)
    model = dataclasses.replace(model, quantised=how)
    plain = logits(model, params | {'lm': kept}, features, tokens)
    everywhere = jax.device_put(
        {name: x for name, x in params.items() if name != 'lm'}, jax.NamedSharding(mesh, jax.P())
    )
    with rules.activations(mesh):
        shown, text = jax.device_put((features, tokens), batch_sharding(mesh))
        sharded = logits(model, everywhere | {'lm': jax.device_put(kept, where)}, shown, text)
    # A sum in another order may round an activation the other way.
    close(sharded, plain, 2e-2 if how.inputs else TOLERANCE)


def test_what_cannot_be_quantised_is_refused(params):
    with pytest.raises(ValueError, match="'int7' is not a dtype.*'int8', 'int4', 'fp8'"):
        Quantisation('int7')
    with pytest.raises(ValueError, match='not in 4'):
        Quantisation('int4', inputs=True)
    with pytest.raises(ValueError, match='lm/blocks/query/kernel has 3 inputs, an odd number.*Give int8'):
        quantise(dict(blocks=dict(query=dict(kernel=jnp.ones((2, 3, 4, 4))))), Quantisation('int4'), jnp.float32)
