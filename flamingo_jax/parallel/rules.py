"""The sharding of every array: one table from logical axis names to mesh axes.

Copies of the model share the work of the optimizer (`over_data`, ZeRO-1).
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

# Logical axis -> mesh axis or axes, for every parameter and activation. A mesh axis shards only one dimension of an
# array: activations, whose batch uses `fsdp`, keep their whole width.
RULES = (
    ('batch', ('data', 'fsdp')),
    # Pictures in the trunk: each device has whole pictures and the whole trunk.
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
    ('positions', None),
    ('frames', None),
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
                raise ValueError(f'{name}: the logical axis {axis!r} is not in the rules table of parallel/rules.py.')
            mesh_axis = rules[axis] if rules[axis] not in spec else None  # A mesh axis shards one dimension only.
            if mesh_axis and size % mesh.shape[mesh_axis]:
                raise ValueError(
                    f'{name}: the dimension {axis!r} has size {size}, which is not a multiple of the '
                    f'{mesh.shape[mesh_axis]} devices of the mesh axis {mesh_axis!r}. Choose another mesh.'
                )
            spec.append(mesh_axis)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def over_data(sharding: NamedSharding, shape: Sequence[int]) -> NamedSharding:
    """The sharding of a parameter's moments and gradient: its own, and also over `data` if that divides a dimension.

    This is stage 1 of ZeRO (Rajbhandari et al. 2020; paper, section 3.1): each copy of the model updates its share.
    """
    mesh, spec = sharding.mesh, [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    # Dimensions that are not sharded yet come first, then large ones: layers are few, and scanned.
    for i in sorted(range(len(shape)), key=lambda i: (spec[i] is not None, -shape[i])):
        axes = (*([spec[i]] if spec[i] else []), 'data')
        if shape[i] % np.prod([mesh.shape[axis] for axis in axes]) == 0:
            spec[i] = axes if len(axes) > 1 else 'data'
            return NamedSharding(mesh, PartitionSpec(*spec))
    return sharding


def shards(axis: str, mesh: Mesh | AbstractMesh | None = None) -> int:
    """The number of parts into which a logical axis is cut: on a mesh, or where `activations` holds; 1 without one."""
    sizes = (jax.sharding.get_abstract_mesh() if mesh is None else mesh).shape
    axes = dict(RULES)[axis]
    return int(np.prod([sizes.get(name, 1) for name in ((axes,) if isinstance(axes, str) else axes or ())]))


@contextlib.contextmanager
def activations(mesh: Mesh | None) -> Iterator[None]:
    """Activations of what is traced inside are sharded on the mesh by the rules table; None is one device."""
    if mesh is None:
        yield
        return
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(RULES):
        yield
