"""The sharding of every array: one table from logical axis names to mesh axes.

Copies of the model share the work of the optimizer (`over_data`, ZeRO-1).
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from flamingo_jax.errors import UserError

# Logical axis -> mesh axis or axes, for every parameter and activation. A mesh axis shards only one dimension of an
# array: activations, whose batch uses `fsdp`, keep their whole width.
RULES = (
    ('batch', ('data', 'fsdp')),
    # Images in the trunk: each device has whole images and the whole trunk.
    ('images', ('data', 'fsdp', 'tensor')),
    ('embed', 'fsdp'),
    ('media', 'fsdp'),
    ('resampler', 'fsdp'),
    ('heads', 'tensor'),
    ('kv_heads', 'tensor'),
    ('resampler_heads', 'tensor'),
    ('ffw', 'tensor'),
    ('vocab', 'tensor'),
    ('layers', None),
    ('head_dim', None),
    ('projection', None),  # Between two widths.
    ('positions', None),
    ('frames', None),
    ('tiles', None),  # And their arrangements.
    ('latents', None),
    ('extra_tokens', None),
    ('rank', None),
    ('groups', None),  # Of a quantised matrix's scale.
    # The trunk's heads and channels are not sharded (paper: "NFNet is not sharded"): it is small.
    ('conv_height', None),
    ('conv_width', None),
    ('vision_in', None),
    ('vision_out', None),
)


def shardings(boxed: Any, mesh: Mesh) -> Any:
    """The shardings of a tree of parameters or shapes that are boxed with logical axis names.

    Raises:
      ValueError: a logical axis is not in the table, or a mesh axis does not divide its dimension; the message names
        the parameter, the dimension and the mesh.
    """
    rules = dict(RULES)

    def one(path, box):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        shape, axes = box.value.shape, box.names
        spec = []
        for size, axis in zip(shape, axes, strict=True):
            if axis not in rules:
                raise UserError(f'{name}: the logical axis {axis!r} is not in the rules table of parallel/rules.py.')
            mesh_axis = rules[axis] if rules[axis] not in spec else None  # A mesh axis shards one dimension only.
            if mesh_axis and size % mesh.shape[mesh_axis]:
                raise UserError(
                    f'{name}: the dimension {axis!r} has size {size}, which is not a multiple of the '
                    f'{mesh.shape[mesh_axis]} devices of the mesh axis {mesh_axis!r}. Choose another mesh.'
                )
            spec.append(mesh_axis)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def over_data(sharding: NamedSharding, shape: Sequence[int]) -> NamedSharding:
    """The sharding of a parameter's moments and gradient: its own, and also over `data`.

    This is stage 1 of ZeRO (Rajbhandari et al. 2020; paper, appendix B.1.2): each copy of the model updates its share.
    If `data` divides no dimension, its factors are spread over several: 96 copies of a stack [12 8192] are 3 x 32, and
    each has the 32nd part of 4 layers. The copies that are left have the same share.
    """
    mesh, spec = sharding.mesh, [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    own = [size // _size(axes, mesh) for size, axes in zip(shape, spec, strict=True)]
    rest, cut = mesh.shape['data'], []
    # Dimensions of which most copies have a share come first, then those that are in one piece on this mesh, then large
    # ones: layers are few, and a scan over them sums what is cut over them whole.
    for i in sorted(range(len(shape)), key=lambda i: (-math.gcd(own[i], rest), _size(spec[i], mesh) > 1, -shape[i])):
        if (factor := math.gcd(own[i], rest)) > 1:
            cut, rest = [*cut, (i, factor)], rest // factor
    if not cut:
        return sharding
    sizes = [factor for _, factor in cut] + ([rest] if rest > 1 else [])
    names = [f'data_{i}' for i in range(len(sizes))] if len(sizes) > 1 else ['data']
    for name, (i, _) in zip(names, cut, strict=False):
        spec[i] = (spec[i], name) if spec[i] else name
    if len(names) > 1:
        devices = mesh.devices.reshape(*sizes, *mesh.devices.shape[1:])
        types = (mesh.axis_types[0],) * len(sizes) + mesh.axis_types[1:]
        mesh = Mesh(devices, (*names, *mesh.axis_names[1:]), axis_types=types)
    return NamedSharding(mesh, PartitionSpec(*spec))


def shards(axis: str, mesh: Mesh | AbstractMesh | None = None) -> int:
    """The number of parts into which a logical axis is cut: on a mesh, or where `activations` holds; 1 without one."""
    return _size(dict(RULES)[axis], jax.sharding.get_abstract_mesh() if mesh is None else mesh)


def _size(axes: str | Sequence[str] | None, mesh: Mesh | AbstractMesh) -> int:
    """The product of some mesh axes; those that the mesh does not have count 1."""
    return math.prod(mesh.shape.get(name, 1) for name in ((axes,) if isinstance(axes, str) else axes or ()))


@contextlib.contextmanager
def activations(mesh: Mesh | None) -> Iterator[None]:
    """Activations of what is traced inside are sharded on the mesh by the rules table; None is one device."""
    if mesh is None:
        yield
        return
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(RULES):
        yield
