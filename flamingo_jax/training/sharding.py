"""Where everything lies on the mesh: three mesh axes, one rules table.

    data     copies of the model, each with its share of the batch
    fsdp     parameters, gradients and moments cut over their width; also a share of the batch
    tensor   heads, feed-forward and vocabulary cut (Megatron)

A mesh is data in a config: `mesh=dict(data=1, fsdp=8, tensor=1)`. Data parallelism, FSDP, tensor parallelism and mixtures
are mesh shapes; no code path knows of them. The copies of the model share the optimizer's work (`over_data`, ZeRO-1).
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')

# Logical axis -> mesh axis or axes. Every logical axis of every parameter and activation is here. A mesh axis cuts only one
# dimension of an array: activations, whose batch has `fsdp`, keep their width whole.
RULES = (
    ('batch', ('data', 'fsdp')),
    # Pictures inside the trunk: each device has whole ones, and the whole trunk.
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
    # The trunk is not cut over heads or channels (paper: "NFNet is not sharded"); it is small beside the rest.
    ('conv_height', None),
    ('conv_width', None),
    ('vision_in', None),
    ('vision_out', None),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices, or the given ones; one axis may be -1, which takes what the others leave.

    Devices of several slices (pods joined by a slower network) are cut along `data`: only the sum of the gradients crosses.

    Raises:
      ValueError: the axes do not multiply to the number of devices, or the slices do not divide `data`.
    """
    every = list(jax.devices() if devices is None else devices)
    devices = len(every)
    shape = [data, fsdp, tensor]
    rest = int(np.prod([size for size in shape if size != -1]))
    bad = any(size == 0 or size < -1 for size in shape) or shape.count(-1) > 1
    if bad or devices % rest or (-1 not in shape and rest != devices):
        raise ValueError(
            f'The mesh data={data} fsdp={fsdp} tensor={tensor} does not fit {devices} devices: their product must be '
            f'{devices}, and at most one may be -1.'
        )
    shape = tuple(devices // rest if size == -1 else size for size in shape)
    slices = len({getattr(device, 'slice_index', 0) for device in every})
    if shape[0] % slices:
        raise ValueError(f'The mesh data={shape[0]} is not divided by the {slices} slices of the devices.')
    if slices > 1:
        within = (shape[0] // slices, *shape[1:])
        grid = mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), every)
        return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)
    # An axis of 16 fits into a torus of 4x8x8 only if one of its sides is split.
    grid = mesh_utils.create_device_mesh(shape, every, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def check_batch(name: str, batch_size: int, micro_batches: int, mesh: Mesh) -> None:
    """Raises ValueError if the micro-batches and the mesh do not divide a data set's batch."""
    rows = mesh.shape['data'] * mesh.shape['fsdp']
    if batch_size % (rows * micro_batches):
        raise ValueError(
            f'Data set {name}: batch_size {batch_size} is not divided by {micro_batches} micro-batches of the {rows} rows '
            f'of the mesh (data {mesh.shape["data"]} x fsdp {mesh.shape["fsdp"]}). Change the batch size or the mesh.'
        )


def shardings(boxed: Any, mesh: Mesh) -> Any:
    """The sharding of every parameter of a tree that is boxed with logical axis names (shapes are enough).

    Raises:
      ValueError: a logical axis that is not in the table, or a dimension that its mesh axis does not divide; the message
        names the parameter, the dimension and the mesh.
    """
    rules = dict(RULES)

    def one(path, box):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        shape, axes = box.value.shape, box.names
        spec = []
        for size, axis in zip(shape, axes, strict=True):
            if axis not in rules:
                raise ValueError(
                    f'{name}: the logical axis {axis!r} is not in the rules table of training/sharding.py.'
                )
            mesh_axis = rules[axis] if rules[axis] not in spec else None  # A mesh axis cuts one dimension only.
            if mesh_axis and size % mesh.shape[mesh_axis]:
                raise ValueError(
                    f'{name}: its dimension {axis!r} of {size} is not divided by the mesh axis {mesh_axis!r} of '
                    f'{mesh.shape[mesh_axis]} devices. Choose another mesh.'
                )
            spec.append(mesh_axis)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def over_data(where: NamedSharding, shape: Sequence[int]) -> NamedSharding:
    """Where a parameter's moments and gradient lie: as itself, and cut over `data` too where that divides a dimension.

    This is stage 1 of ZeRO (Rajbhandari et al. 2020; paper, section 3.1): each copy of the model updates its share.
    """
    mesh, spec = where.mesh, [*where.spec, *[None] * (len(shape) - len(where.spec))]
    # Whole dimensions first, then large ones: layers are few, and scanned.
    for i in sorted(range(len(shape)), key=lambda i: (spec[i] is not None, -shape[i])):
        axes = (*([spec[i]] if spec[i] else []), 'data')
        if shape[i] % np.prod([mesh.shape[axis] for axis in axes]) == 0:
            spec[i] = axes if len(axes) > 1 else 'data'
            return NamedSharding(mesh, PartitionSpec(*spec))
    return where


@contextlib.contextmanager
def activations(mesh: Mesh) -> Iterator[None]:
    """What is traced inside lays its activations on the mesh by the rules table."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(RULES):
        yield


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
