"""The plan command, on this machine's CPU; and with the TPU compiler where that is installed."""

import importlib.util
import json
import math
import pathlib
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from flamingo_jax.model import attention, quantised
from flamingo_jax.model.layers import constrain
from flamingo_jax.parallel import rules
from flamingo_jax.parallel.mesh import batch_sharding, make_mesh
from flamingo_jax.plan import _exhausted, plan, report
from flamingo_jax.planning import estimate, passes, programs, topology
from flamingo_jax.training.config import machine
from tests.planning.conftest import tiny  # noqa: F401

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture
def planned(tiny):  # noqa: F811
    return plan(tiny, topology.parse('cpu:8'))


def estimated(config) -> dict[str, float]:
    """Bytes that a chip sends over each axis, by formula."""
    mesh = make_mesh(**config.mesh, devices=jax.devices()[:8])
    run = programs.prepare(config, mesh)
    sent = estimate.sent(run, passes.weights(run), held=programs.held(run))
    return {axis: sum(one.bytes for one in sent if axis in one.axes) for axis in mesh.axis_names}


def test_a_plan_says_what_fits_and_what_bounds_it(planned, tiny):  # noqa: F811
    assert planned == json.loads(json.dumps(planned))
    assert planned['mesh'] == dict(data=2, fsdp=2, tensor=2) and planned['batch'] == dict(pages=8, videos=8)
    trained = {name for name, part in planned['parameters'].items() if part['trained']}
    assert trained == {'resampler', 'xattn', 'extra_tokens'}
    train, decode = planned['train'], planned['decode']
    assert train['fits'] and decode['fits']
    axes = {axis for one in train['collectives'] for axis in one['axes']}
    assert axes == {'data', 'fsdp', 'tensor'}  # Gradients, parameters, activations.
    assert train['seconds'] == max(train['bounds'].values()) == train['bounds'][train['bound_by']]
    alone = train['bounds']['synchronous']
    assert train['seconds_in_turn'] == train['bounds']['compute'] + alone and 0 < alone <= train['bounds']['network']
    assert train['bytes_moved'] > train['bytes_read']  # The formula leaves things out.
    held = train['held_bytes']
    moments = 2 * (held['xattn (float32)'] + held['resampler (float32)'] + held['extra_tokens (float32)'])
    assert moments / 2 <= held['moments'] < 0.6 * moments  # Two a parameter, cut over the copies too.
    for axis, size in estimated(tiny).items():  # What a search counts is sent. The compiler sends more.
        assert 0.2 < size / sum(one['bytes'] for one in train['collectives'] if axis in one['axes']) < 1.05, axis
    words = report(planned)
    for part in ('lm', 'frozen', 'peak', 'all-gather', 'Bound by', 'days for 500,000 steps', 'tokens/s'):
        assert part in words
    for part in (
        'arithmetic + synchronous network: ',
        'where the bound is max(...) = ',
        'GB as compiled',
        'MFU at most',
    ):
        assert part in words


def test_a_compiler_newer_than_this_jax_leaves_what_is_sent_to_formulas(tiny, monkeypatch):  # noqa: F811
    def read(text, mesh):
        raise jax.errors.JaxRuntimeError('INVALID_ARGUMENT: unknown field')

    monkeypatch.setattr('flamingo_jax.planning.collectives.read', read)
    out = plan(tiny, topology.parse('cpu:8'), decode=False)
    sent = out['train']['collectives']
    found = {axis: sum(one['bytes'] for one in sent if axis in one['axes']) for axis in out['mesh']}
    assert found == pytest.approx(estimated(tiny)) and 'by formula' in report(out)


def test_the_command_searches_without_a_compiler(tmp_path):
    file = tmp_path / 'plan.json'
    what = ['--config=experiments/flamingo_3b.py', '--topology=cpu:8', '--search', '--nocompile']
    done = subprocess.run(
        [sys.executable, '-m', 'flamingo_jax.plan', *what, f'--out={file}'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found.keys() == {'frontier'}  # Nothing was compiled.
    assert all(math.prod(way['mesh'].values()) == 8 for way in found['frontier'])
    sizes = [way['bytes'] for way in found['frontier']]
    assert sizes == sorted(sizes, reverse=True)  # The slower, the smaller.


def test_data_sets_in_turn_are_no_one_program(tiny):  # noqa: F811
    tiny.round_robin = True
    with pytest.raises(ValueError, match='--config.round_robin=False'):
        plan(tiny, topology.parse('cpu:8'))


def test_what_does_not_fit_is_said_with_its_largest_parts(tiny, monkeypatch):  # noqa: F811
    small = topology.Chip(2**17, 1e12, 1e9, 1e9, 0, 1e9, 8, 8, 2**30)
    monkeypatch.setitem(topology.CHIPS, 'cpu', small)
    out = plan(tiny, topology.parse('cpu:8'), decode=False)
    assert not out['train']['fits']
    words = report(out)
    assert 'DOES NOT FIT: the train step needs more than the 0.00 GiB' in words
    assert 'moments' in words and 'more micro-batches than 1' in words


@pytest.mark.parametrize(
    'message',
    [
        'Ran out of memory in memory space hbm. Used 20.66G of 15.75G hbm. Exceeded hbm capacity by 4.91G.',
        'Ran out of memory on HBM, the total memory required for HLO temporaries (20.66G) exceeds available HBM '
        '(15.75G).',
    ],
)
def test_both_ways_in_which_the_compiler_refuses_are_read(message):
    found = _exhausted(message, topology.parse('v5e-16'))
    assert found['bytes']['peak'] == 20.66 * topology.GIB and found['chip_memory'] == 15.75 * topology.GIB


def test_what_cannot_be_is_said_before_anything_is_compiled(tiny, monkeypatch):  # noqa: F811
    monkeypatch.setattr('flamingo_jax.plan._compile', None)
    with pytest.raises(ValueError, match='data=3 fsdp=2 tensor=2 does not fit 8 devices'):
        plan(tiny, topology.parse('cpu:8'), dict(data=3, fsdp=2, tensor=2))
    with pytest.raises(ValueError, match="has size 2, .* the 8 devices of the mesh axis 'tensor'"):
        plan(tiny, topology.parse('cpu:8'), dict(data=1, fsdp=1, tensor=8))
    tiny.machines['cpu:8'] = machine(data=8, fsdp=1, tensor=1, micro_batches=2)
    with pytest.raises(ValueError, match='pages: batch_size 8 .* 2 micro-batches'):
        plan(tiny, topology.parse('cpu:8'))


def test_a_machine_has_one_entry_however_its_name_is_written(tiny, monkeypatch):  # noqa: F811
    """The mesh of `v5e-16` is that of `v5e:4x4`."""
    monkeypatch.setattr(topology.Topology, 'devices', lambda self: jax.devices()[:8])
    tiny.machines['v5e-16'] = machine(data=8, fsdp=1, tensor=1, micro_batches=2)
    for name in ('v5e-16', 'v5e:4x4'):
        with pytest.raises(ValueError, match='pages: batch_size 8 .* 2 micro-batches'):
            plan(tiny, topology.parse(name))


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None, reason="needs libtpu: pip install -e '.[plan]'"
)


@needs_libtpu
@pytest.mark.parametrize('name, chips', [('v5e:2x4', 8), ('v4:2x2x2', 8), ('tpu7x:2x2x1', 8)])
def test_the_tpu_compiler(tiny, name, chips):  # noqa: F811
    out = plan(tiny, topology.parse(name), decode=False)
    assert out['chips'] == chips and out['train']['fits']
    assert {axis for one in out['train']['collectives'] for axis in one['axes']} == {'data', 'fsdp', 'tensor'}


@needs_libtpu
def test_the_step_of_a_tpu_has_the_kernels_of_attention(tiny, monkeypatch):  # noqa: F811
    """Each of self-attention, cross-attention and resampler, in forward and backward, on its rows and heads alone."""
    monkeypatch.setattr(attention, 'LEAST', 1)  # The model is tiny.
    del tiny.datasets.videos
    tiny.remat = 'dots'
    tiny.model.lm.update(depth=2, positions='rotary')
    mesh = make_mesh(1, 2, 2, devices=topology.parse('v5e:2x2').devices())
    text = programs.train_step(programs.prepare(tiny, mesh))[0].compile().as_text()
    kernels = re.findall(r'%(splash_mha_\w+?)_(?:no_)?residuals[.\d]* = .*custom_call_target="tpu_custom_call"', text)
    for phase, most in (('fwd', 2), ('dq', 1), ('dkv', 1)):  # 'dots' recomputes attention.
        # The text is causal. Cross-attention has the segments of its images, and the resampler's keys are padded.
        assert 1 <= kernels.count(f'splash_mha_{phase}') <= most
        assert 2 <= kernels.count(f'splash_mha_{phase}_segmented') <= 2 * most
    tiny.attention_kernel = 'plain'
    assert programs.prepare(tiny, mesh).model.attention_kernel == 'plain'


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason="needs libtpu: pip install -e '.[plan]'")
@pytest.mark.parametrize('dtype', ['int8', 'fp8'])
def test_a_tpu_multiplies_in_8_bits_what_is_in_8_bits(dtype):
    """The forward product alone; the gradient's is in bfloat16, from weights that are gathered in 8 bits."""
    mesh = make_mesh(1, 4, 2, devices=topology.parse('v6e:2x4').devices())
    boxed = dict(
        blocks=dict(up=dict(kernel=nn.LogicallyPartitioned(jnp.ones((4, 512, 1024)), ('layers', 'embed', 'ffw'))))
    )
    kept = quantised.quantise(boxed, quantised.Quantisation(dtype, inputs=True), jnp.bfloat16)
    where = rules.shardings(kept, mesh)['blocks']['up']['kernel']
    kernel = jax.tree.map(
        lambda x, w: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=w),
        nn.meta.unbox(kept)['blocks']['up']['kernel'],
        where,
    )

    def loss(x, kernel):
        def block(x, kernel):
            y = quantised.dot(x, kernel, jnp.bfloat16)
            return constrain(jnp.tanh(y[:, :512] + y[:, 512:]), 'batch', None), None

        return jax.lax.scan(block, x, kernel)[0].astype(jnp.float32).sum()

    x = jax.ShapeDtypeStruct((256, 512), jnp.bfloat16, sharding=batch_sharding(mesh))
    with rules.activations(mesh):
        text = jax.jit(jax.grad(loss)).lower(x, kernel).compile().as_text()
    stored, summed = dict(int8=('s8', 's32'), fp8=('f8e4m3fn', 'f32'))[dtype]
    assert sorted(re.findall(r' = (\w+)\[64,512\]\S* convolution\(', text)) == sorted([summed, 'bf16'])
    assert re.findall(r' = (\w+)\[1,512,512\]\S* all-gather\(', text) == [stored] * 2  # Forward and backward.
