"""The kernels of the attention function: splash runs here, interpreted; what cuDNN would be asked is looked at."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.experimental.pallas.ops.tpu import splash_attention

from flamingo_jax.model import attention
from flamingo_jax.model.attention import Segments, as_array, attend, kernel_of
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules

pytestmark = pytest.mark.usefixtures('quick_compilation')
EXACT, HALF = dict(rtol=1e-5, atol=2e-5), dict(rtol=2e-2, atol=2e-2)
# phi of two rows of 30 tokens; the third and the fourth image of the second row are blank.
PHI = jnp.stack([np.repeat([0, 1, 2, 4], [3, 10, 4, 13]), np.repeat([1, 2], [20, 10])])
IMAGE = jnp.repeat(jnp.arange(1, 5), 3)[None]
DOCUMENT = jnp.stack([np.repeat([0, 1, 2], [50, 60, 27]), np.repeat([0, 1], [130, 7])])  # Of 137 tokens.
# Name -> mask, lengths of queries and keys, heads of queries and keys.
MASKS = {
    'cross-attention': (Segments(PHI, IMAGE), 30, 12, (4, 4)),
    'packed text, grouped heads': (Segments(DOCUMENT, DOCUMENT, causal=True), 137, 137, (4, 2)),
    'text': (Segments(causal=True), 11, 11, (2, 1)),
    'resampler': (None, 6, 15, (2, 2)),
}


@pytest.fixture
def interpreted(monkeypatch):
    """Splash attention runs on a CPU, and takes short texts too."""
    monkeypatch.setattr(attention, 'LEAST', 1)
    make = functools.partial(splash_attention.make_splash_mha, interpret=True)
    monkeypatch.setattr(splash_attention, 'make_splash_mha', make)


def inputs(l, m, heads, dtype=np.float32, rows=2):
    rng = np.random.default_rng(0)
    shapes = (2, l, heads[0], 8), (rows, heads[1], m, 8), (rows, heads[1], m, 8)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def values_and_gradients(attention, qkv):
    weights = np.random.default_rng(1).standard_normal(qkv[0].shape, np.float32)

    def weighed(*qkv):
        out = attention(*qkv)
        return jnp.sum(out * weights), out

    (_, out), grads = jax.jit(jax.value_and_grad(weighed, argnums=(0, 1, 2), has_aux=True))(*qkv)
    return [np.asarray(x, np.float32) for x in (out, *grads)]


def check_equal(kernel, qkv, mask, tolerance, **how):
    plain, fused = (
        values_and_gradients(lambda *qkv, k=k: attend(*qkv, mask, kernel=k, **how), qkv) for k in ('plain', kernel)
    )
    for expected, found in zip(plain, fused, strict=True):
        np.testing.assert_allclose(found, expected, **tolerance)
    if mask is not None:
        empty = ~np.broadcast_to(as_array(mask, qkv[0].shape[1], qkv[1].shape[2]).any(axis=-1), qkv[0].shape[:2])
        assert not np.any(fused[0][empty]) and not np.any(fused[1][empty])


@pytest.mark.parametrize('name', ['cross-attention', 'packed text, grouped heads', 'resampler'])
def test_splash_equals_plain(interpreted, name):
    mask, l, m, heads = MASKS[name]
    how = dict(cap=3.0) if name == 'packed text, grouped heads' else dict(scale=0.5)
    check_equal('splash', inputs(l, m, heads), mask, EXACT, **how)


@pytest.mark.parametrize('name', ['cross-attention', 'packed text, grouped heads', 'resampler'])
def test_what_cudnn_is_asked_is_plain_attention(monkeypatch, name):
    """XLA answers what cuDNN would be asked, which tests masks, padding, scale, and what is done with the answer."""
    asked, empty, real = [], [], jax.nn.dot_product_attention

    def by_xla(q, k, v, implementation, mask=None, **how):
        assert implementation == 'cudnn'
        asked.append((q.shape[1], k.shape[1]))
        if mask is not None:
            jax.debug.callback(empty.append, ~mask.any(axis=-1).all())
        return real(q, k, v, implementation='xla', mask=mask, **how)

    monkeypatch.setattr(attention, 'LEAST', 1)
    monkeypatch.setattr(jax.nn, 'dot_product_attention', by_xla)
    mask, l, m, heads = MASKS[name]
    check_equal('cudnn', inputs(l, m, heads, jnp.bfloat16), mask, HALF, scale=0.5)
    assert asked and all(size % 2 == 0 for sizes in asked for size in sizes)  # cuDNN has no gradient for others.
    jax.effects_barrier()
    assert len(empty) > 0 and not any(empty)  # Nor one that can be trusted for rows that see nothing.


def test_cudnn_is_in_the_program_of_a_gpu(monkeypatch):
    monkeypatch.setattr(cudnn, 'check_cudnn_version', lambda: 91000)  # It is not installed here.
    monkeypatch.setattr(attention, 'LEAST', 1)
    for name, (mask, l, m, heads) in MASKS.items():
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs(l, m, heads, jnp.bfloat16)]

        def loss(*qkv, mask=mask):
            return attend(*qkv, mask, kernel='cudnn').astype(jnp.float32).sum()

        text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*shapes).lower(lowering_platforms=('cuda',)).as_text()
        bias = 'ScaleBias' if name != 'text' else ''
        assert f'__cudnn$fmha{bias}SoftmaxBackward' in text, name
        assert ('CAUSAL' in text) == ('text' in name)


def kernels(q, k, v, mask=None, **how) -> list[str]:
    """Which kernels are in the program of this call, for each that may be chosen."""
    marks = dict(splash='pallas_call', cudnn='dot_product_attention_fwd')

    def takes(kernel):
        return marks[kernel] in str(jax.make_jaxpr(functools.partial(attend, kernel=kernel, **how))(q, k, v, mask))

    return [kernel for kernel in marks if takes(kernel)]


def test_what_a_kernel_does_not_take_is_plain(monkeypatch):
    monkeypatch.setattr(cudnn, 'check_cudnn_version', lambda: 91000)
    assert kernels(*inputs(128, 128, (4, 2), jnp.bfloat16)) == ['splash', 'cudnn']
    for l, m in ((127, 128), (128, 127)):
        assert kernels(*inputs(l, m, (4, 2), jnp.bfloat16)) == ['cudnn']
    assert kernels(*inputs(127, 127, (4, 2), jnp.bfloat16)) == []
    monkeypatch.setattr(attention, 'LEAST', 1)
    half = inputs(6, 6, (4, 2), jnp.bfloat16)
    full = [x.astype(jnp.float32) for x in half]
    array = jnp.ones((2, 6, 6), bool)
    assert kernels(*half) == kernels(*half, Segments(causal=True)) == ['splash', 'cudnn']
    assert kernels(*half, array) == ['cudnn']
    assert kernels(*half, cap=5.0) == kernels(*full) == ['splash']
    assert kernels(*half, bias=jnp.zeros((2, 4, 6, 6))) == kernels(half[0][:, :1], *half[1:]) == []
    wide = [jnp.zeros((2, *x.shape[1:3], 144), x.dtype) for x in half]
    assert kernels(*wide) == kernels(*(x[..., :4] for x in half)) == ['splash']
    for sizes in ((4, 1, 2), (2, 1, 4)):  # Four for two rows; four for two heads of keys.
        with rules.activations(meshes.make_mesh(*sizes)):
            assert kernels(*half) == ['cudnn']
    with rules.activations(meshes.make_mesh(2, 1, 2, devices=jax.devices()[:4])):
        assert kernels(*half) == ['splash', 'cudnn']


@pytest.fixture(scope='module')
def loss(params, features):
    """(model of two blocks, mesh) -> loss and gradients of two rows of images, which two packed texts each share."""
    tokens = jax.random.randint(jax.random.key(0), (4, 16), 10, 304)
    document = jnp.broadcast_to(jnp.repeat(jnp.arange(2), jnp.array([7, 9])), (4, 16))
    blocks, gated = (
        jax.tree.map(lambda x, n=n: x[:n], stack) for stack, n in ((params['lm']['blocks'], 2), (params['xattn'], 1))
    )
    two = params | dict(lm=params['lm'] | dict(blocks=blocks), xattn=gated)
    phi = jnp.stack([np.repeat([0, 1, 0, 2], [2, 5, 1, 8]), np.repeat([1, 2], [7, 9])] * 2)

    def of(model, mesh, trained):
        with rules.activations(mesh):
            y = model.hidden(trained, jnp.asarray(features), tokens, phi=phi, document=document)
            return -jax.nn.log_softmax(model.unembed(trained, y))[..., 5].mean()

    def run(model, mesh):
        everywhere = jax.device_put(two, meshes.replicated(mesh))
        return jax.jit(jax.value_and_grad(functools.partial(of, model, mesh)))(everywhere)

    return run


@pytest.mark.parametrize('remat', ['', pytest.param('dots', marks=pytest.mark.long)])
def test_a_flamingo_learns_the_same_with_the_kernel(interpreted, model, loss, remat):
    mesh = meshes.make_mesh(2, 1, 2, devices=jax.devices()[:4])
    lm = dataclasses.replace(model.config.lm, depth=2)
    plain = Flamingo(dataclasses.replace(model.config, lm=lm), remat=remat)
    expected = loss(plain, mesh)
    found = loss(dataclasses.replace(plain, attention_kernel='splash'), mesh)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for tree in ('resampler', 'xattn', 'lm'):
        assert any(np.any(x) for x in jax.tree.leaves(found[1][tree]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **EXACT), *(x[1] for x in (found, expected)))


def test_an_unknown_kernel_is_refused(model):
    with pytest.raises(ValueError, match="attention_kernel must be .*'splash'.*, not 'flash'"):
        Flamingo(model.config, attention_kernel='flash')


def test_devices_have_their_kernels():
    """Not on a GPU that is older than cuDNN's kernel, nor on one that is not NVIDIA's."""

    def of(platform, **fields):
        return kernel_of(types.SimpleNamespace(platform=platform, **fields))

    assert kernel_of(jax.devices()[0]) == 'plain' and of('tpu') == 'splash'
    found = {capability: of('gpu', compute_capability=capability) for capability in ('7.5', '8.0', '12.0', 'gfx90a')}
    assert found == {'7.5': 'plain', '8.0': 'cudnn', '12.0': 'cudnn', 'gfx90a': 'plain'}
