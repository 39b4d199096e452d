import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flamingo_jax.parallel import compiler
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.planning import collectives, topology


def test_a_cpu_is_told_nothing():
    assert compiler.options(make_mesh(4, 1, 2)) == {}


@pytest.fixture
def chips() -> list:
    if importlib.util.find_spec('libtpu') is None:
        pytest.skip("needs libtpu: pip install -e '.[plan]'")
    return topology.parse('v5e:2x4').devices()


def test_what_the_user_gave_is_left(chips, monkeypatch):
    assert compiler.options(make_mesh(8, 1, 1, devices=chips)) == {}  # Nothing is summed over `tensor`.
    assert compiler.options(make_mesh(4, 1, 2, devices=chips)) == compiler.TPU
    monkeypatch.setenv('LIBTPU_INIT_ARGS', '--xla_enable_async_all_reduce=false')
    assert compiler.options(make_mesh(4, 1, 2, devices=chips)).keys() == compiler.TPU.keys() - {
        'xla_enable_async_all_reduce'
    }


def test_a_sum_over_tensor_runs_beside_a_product(chips):
    """The gradient of two products with frozen weights: its sums and the products of the layers beside it."""
    mesh = make_mesh(4, 1, 2, devices=chips)

    def put(shape, *spec):
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    def loss(weights, x):
        def block(x, w):
            up, down = w
            return x + jnp.tanh(x @ up) @ down, None

        return jax.lax.scan(block, x, weights)[0].astype(jnp.float32).sum()

    weights = put((4, 2048, 8192), None, None, 'tensor'), put((4, 8192, 2048), None, 'tensor', None)
    found = {}
    for how in ({}, compiler.options(mesh)):
        step = jax.jit(jax.grad(loss), compiler_options=how).lower(weights, put((4096, 2048), 'data'))
        sent = collectives.read(step.compile().as_text(), mesh)
        found[bool(how)] = {one.overlapped: one.bytes for one in sent if one.axes == ('tensor',)}
    assert True not in found[False] and found[True][True] > 0
    assert sum(found[True].values()) == sum(found[False].values())
