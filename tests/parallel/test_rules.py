import dataclasses
import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.parallel.mesh import AXES, batch_sharding, check_batch, make_mesh, usual_dtype
from flamingo_jax.parallel.rules import activations, over_data, shardings

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.mark.parametrize(
    'sizes, shape', [((), (8, 1, 1)), ((-1, 2, 2), (2, 2, 2)), ((1, -1, 1), (1, 8, 1)), ((1, 2, 4), (1, 2, 4))]
)
def test_a_mesh_is_three_numbers(sizes, shape):
    mesh = make_mesh(*sizes)
    assert mesh.axis_names == AXES and mesh.devices.shape == shape
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)


@pytest.mark.parametrize('sizes', [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (4, 1, 1), (16, 1, 1), (0, 1, 1), (-2, -4, 1)])
def test_a_mesh_that_does_not_fit_says_how_many_devices_there_are(sizes):
    with pytest.raises(ValueError, match=f'data={sizes[0]} fsdp={sizes[1]} tensor={sizes[2]} does not fit 8 devices'):
        make_mesh(*sizes)


@dataclasses.dataclass(frozen=True)
class Device:
    """A device as XLA describes it, as far as a mesh looks."""

    id: int
    platform: str
    slice_index: int
    coords: tuple[int, ...] = ()
    core_on_chip: int = 0

    @property
    def process_index(self) -> int:
        return self.slice_index

    @property
    def device_kind(self) -> str:
        return self.platform


def test_accelerators_compute_in_bfloat16():
    found = {platform: usual_dtype(Device(0, platform, 0)) for platform in ('tpu', 'gpu', 'cpu')}
    assert found == dict(tpu=jnp.bfloat16, gpu=jnp.bfloat16, cpu=jnp.float32)


@pytest.mark.parametrize('shape', [(1, 4, 1), (1, 1, 4), (1, 2, 2), (2, 2, 1), (4, 1, 1)])
def test_a_model_may_be_sharded_over_hosts_of_gpus(shape):
    """To XLA, each host is a slice of its own."""
    devices = [Device(i, 'gpu', i // 2) for i in range(4)]
    found = make_mesh(*shape, devices=devices).devices
    assert found.shape == shape and sorted(device.id for device in found.flat) == [0, 1, 2, 3]
    if shape[0] == 2:  # Where hosts divide `data`, each has a copy of the model.
        assert [{device.slice_index for device in copy.flat} for copy in found] == [{0}, {1}]
    if shape[0] == 1:
        tpus = [dataclasses.replace(device, platform='tpu') for device in devices]
        with pytest.raises(ValueError, match='data=1, which is not a multiple of the 2 slices'):
            make_mesh(*shape, devices=tpus)


def test_each_of_several_slices_is_a_mesh_that_one_slice_takes():
    """Of a torus of 4x8x8, whose sides must be split for an axis of 16."""
    torus = list(itertools.product(range(4), range(8), range(8)))
    devices = [Device(256 * j + i, 'tpu', j, coords) for j in range(2) for i, coords in enumerate(torus)]
    one, two = (make_mesh(n, 16, 16, devices=devices[: 256 * n]).devices for n in (1, 2))
    place = np.vectorize(lambda device: device.id % 256)
    np.testing.assert_array_equal(place(two), np.concatenate([place(one)] * 2))


def test_a_batch_must_be_divided(config):
    check_batch('web', 16, 2, make_mesh(2, 4, 1))
    with pytest.raises(ValueError, match='web: batch_size 12 .* 8 rows .*data 2 x fsdp 4'):
        check_batch('web', 12, 2, make_mesh(2, 4, 1))
    assert batch_sharding(make_mesh(2, 2, 2)).shard_shape((16, 3)) == (4, 3)


def test_a_parameter_lies_where_its_axes_say(config):
    boxed = jax.eval_shape(Flamingo(config).init, jax.random.key(0))
    where = jax.tree.map(lambda s: s.spec, shardings(boxed, make_mesh(2, 2, 2)))
    assert where['lm']['blocks']['query']['kernel'] == PartitionSpec(None, 'fsdp', 'tensor', None)
    assert where['lm']['blocks']['ffw']['down']['kernel'] == PartitionSpec(None, 'tensor', 'fsdp')
    assert where['lm']['embedder']['tokens'] == PartitionSpec('tensor', 'fsdp')
    assert where['xattn']['key']['kernel'] == PartitionSpec(None, 'fsdp', 'tensor', None)
    assert where['xattn']['alpha_dense'] == PartitionSpec(None)
    # Two axes that go to the same mesh axis: only the first is cut.
    assert where['resampler']['project_out']['kernel'] == PartitionSpec('fsdp', None)
    assert all(set(spec) <= {None} for spec in jax.tree.leaves(where['vision'], is_leaf=lambda x: isinstance(x, tuple)))


@pytest.mark.parametrize(
    'spec, shape, expected',
    [
        (
            (None, 'fsdp', 'tensor'),
            (8, 16, 32),
            ('data', 'fsdp', 'tensor'),
        ),  # The whole dimension, though the smallest.
        ((None, 'fsdp', 'tensor'), (3, 16, 32), (None, 'fsdp', ('tensor', 'data'))),
        ((None, 'fsdp', 'tensor'), (3, 16, 34), (None, ('fsdp', 'data'), 'tensor')),
        ((None,), (3,), (None,)),
        ((), (), ()),
    ],
)
def test_moments_are_cut_over_the_copies_where_that_divides(spec, shape, expected):
    where = over_data(NamedSharding(make_mesh(2, 2, 2), PartitionSpec(*spec)), shape)
    assert where.spec == PartitionSpec(*expected)


@pytest.mark.parametrize(
    'shape, parts',
    [((3, 16, 32), 6), ((3, 9), 3), ((5, 4), 2), ((5, 7), 1)],
)
def test_copies_that_divide_no_dimension_share_by_their_factors(shape, parts):
    """Six copies are 2 x 3; those that are left have the same share. What is added stays whole and right."""
    mesh = make_mesh(6, 1, 1, devices=jax.devices()[:6])
    whole = NamedSharding(mesh, PartitionSpec())
    where = over_data(whole, shape)
    assert math.prod(where.shard_shape(shape)) == math.prod(shape) // parts
    value = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    moment, param = jax.device_put(value, where), jax.device_put(value, whole)
    assert len({str(shard.index) for shard in moment.addressable_shards}) == parts

    @functools.partial(jax.jit, out_shardings=(where, whole))
    def update(moment, param):
        with activations(mesh):
            moment = moment + jax.lax.with_sharding_constraint(2 * param, where)
            return moment, param + moment

    for got, expected in zip(update(moment, param), (3 * value, 4 * value), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('sizes', [(8, 1, 1), (4, 1, 2), (4, 2, 1)])
def test_the_compiled_scan_keeps_a_share_of_each_layers_gradient(sizes):
    """If the layers were cut, a copy would have all of some layers' gradient: each is then summed whole."""
    mesh, shape = make_mesh(*sizes), (8, 16, 48)
    own = NamedSharding(mesh, PartitionSpec(None, 'fsdp', 'tensor'))
    scattered = over_data(own, shape)
    down = NamedSharding(mesh, PartitionSpec(None, 'tensor', 'fsdp'))

    def gradient(up, down, rows):
        def loss(up):
            return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w[0]) @ w[1], None), rows, (up, down))[0].sum()

        return jax.lax.with_sharding_constraint(jax.grad(loss)(up), scattered)

    sizes = (shape, own), ((8, 48, 16), down), ((16, 16), batch_sharding(mesh))
    args = [jax.ShapeDtypeStruct(size, jnp.float32, sharding=where) for size, where in sizes]
    program = jax.jit(gradient, out_shardings=scattered).lower(*args).compile().as_text()
    backward = re.findall(r'= \((.*?)\) while\(', program)[-1]
    share, whole = (f'f32[{",".join(map(str, where.shard_shape(shape)))}]' for where in (scattered, own))
    assert share.startswith('f32[8,') and share in backward, (share, backward)  # All layers of it.
    assert backward.count(whole) <= 1  # The parameter itself.


def test_an_indivisible_dimension_names_the_parameter(config):
    lm = dataclasses.replace(config.lm, vocab_size=301)
    boxed = jax.eval_shape(Flamingo(dataclasses.replace(config, lm=lm)).init, jax.random.key(0))
    says = "lm/embedder/tokens: the dimension 'vocab' has size 301, .* the 2 devices of the mesh axis 'tensor'"
    with pytest.raises(ValueError, match=says):
        shardings(boxed, make_mesh(2, 2, 2))
    with pytest.raises(
        ValueError, match="lm/.*: the dimension '(kv_)?heads' has size [42], .* the 8 devices of the mesh axis 'tensor'"
    ):
        shardings(jax.eval_shape(Flamingo(config).init, jax.random.key(0)), make_mesh(1, 1, 8))


def test_an_unknown_axis_names_the_parameter(config, monkeypatch):
    boxed = jax.eval_shape(Flamingo(config).init, jax.random.key(0))
    boxed['lm']['embedder']['tokens'] = boxed['lm']['embedder']['tokens'].replace(names=('vocab', 'wdith'))
    with pytest.raises(ValueError, match="lm/embedder/tokens: the logical axis 'wdith'"):
        shardings(boxed, make_mesh())
