import numpy as np
import pytest
from jax.sharding import Mesh

from flamingo_jax.model.quantised import Quantisation
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning.bounds import bandwidth, bounds, in_bfloat16, links
from flamingo_jax.planning.collectives import Collective
from flamingo_jax.planning.topology import CHIPS, parse
from tests.parallel.test_rules import Device


def everywhere(shape: tuple[int, ...]) -> np.ndarray:
    return np.array(list(np.ndindex(shape)))


@pytest.mark.parametrize(
    'name, count',
    [
        ('v5e-16', 2),
        ('v5e-64', 2),
        ('v5e:8x16', 1 + 2),
        ('v5e-256', 4),
        ('v6e-256', 4),
        ('v4:2x2x4', 3),
        ('v4:4x8x8', 6),
        ('v4:8x12x16', 6),
        ('v5p:2x4x4', 3),
        ('v5p:4x4x4', 6),
    ],
)
def test_a_corner_has_fewer_links_unless_a_ring_closes(name, count):
    topology = parse(name)
    assert links(everywhere(topology.shape), topology) == count


def test_a_group_in_half_of_a_ring_has_a_corner():
    assert links(everywhere((1, 4, 4)), parse('v4:4x8x8')) == 1 + 1
    assert links(everywhere((4, 4, 1)), parse('v4:4x8x8')) == 2 + 1


def test_groups_share_the_links_between_chips_that_are_apart():
    assert links(np.array([[0, 0, 0], [0, 4, 0]]), parse('v4:4x8x8')) == 2 / 4
    assert links(np.array([[0, 0], [0, 2]]), parse('v5e-16')) == 1 / 2


@pytest.mark.parametrize(
    'name, slices, sizes, axes, gigabytes',
    [
        ('h100:8', 1, (8, 1, 1), ('data',), 450),
        ('h100:16', 1, (16, 1, 1), ('data',), 8 * 50),  # Eight network cards a host.
        ('h100:16', 1, (2, 1, 8), ('data',), 50),  # Each pair has one of them.
        ('h100:16', 1, (2, 1, 8), ('tensor',), 450),
        ('v5e-16', 1, (8, 1, 2), ('data', 'tensor'), 2 * 45),
        ('v4:2x2x4', 2, (2, 1, 16), ('data',), 6.25),
        ('v4:2x2x4', 2, (2, 1, 16), ('tensor',), 3 * 45),
        ('v4:2x2x4', 2, (32, 1, 1), ('data',), 16 * 6.25),
    ],
)
def test_what_leaves_a_host_or_a_slice_passes_the_data_centre(name, slices, sizes, axes, gigabytes):
    topology = parse(name, slices)
    places = [(i, place) for i in range(slices) for place in np.ndindex(topology.shape)]
    devices = [Device(0, 'tpu', slice_index, place) for slice_index, place in places]
    mesh = Mesh(np.array(devices).reshape(sizes), meshes.AXES)
    assert bandwidth(axes, topology, mesh) == gigabytes * 1e9


@pytest.mark.parametrize(
    'chip, how, as_long',
    [
        ('v6e', ('int8', True), 12 - 4 / 2),
        ('v4', ('int8', True), 12),  # It has no products in 8 bits,
        ('v6e', ('fp8', True), 12),
        ('h100', ('fp8', True), 12 - 4 / 2),
        ('v6e', ('int8',), 12),  # and inputs in bfloat16 need none.
    ],
)
def test_products_in_8_bits_take_half_the_time_where_the_chip_has_them(chip, how, as_long):
    counted = {'total': 10.0, 'recomputed': 2.0, 'lm in 8 bits': 4.0}
    assert in_bfloat16(counted, Quantisation(*how), CHIPS[chip]) == as_long
    assert in_bfloat16(counted, None, CHIPS[chip]) == 12


def test_arithmetic_waits_for_what_nothing_overlaps():
    topology = parse('h100:8')
    mesh = Mesh(np.array([Device(0, 'tpu', 0, (i,)) for i in range(8)]).reshape(8, 1, 1), meshes.AXES)
    sent = [Collective('all-reduce', ('data',), 450e9, 1.0), Collective('all-gather', ('data',), 900e9, 1.0, True)]
    limit = bounds(8 * 989e12 / 2, 3.35e12 / 4, sent, topology, mesh)
    assert (limit.compute, limit.memory, limit.network, limit.synchronous) == (0.5, 0.25, 3, 1)
    assert (limit.in_turn, limit.seconds, limit.bound_by) == (1.5, 3, 'network')
