import numpy as np
import pytest

from flamingo_jax.planning.bounds import links
from flamingo_jax.planning.topology import parse


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
