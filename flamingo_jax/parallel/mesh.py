"""The mesh: all devices of a run on three axes. `rules.py` says how arrays are sharded over them.

    data     copies of the model, each with its share of the batch
    fsdp     shards of the width of parameters, gradients and moments; also shares of the batch
    tensor   shards of heads, feed-forward and vocabulary (Megatron)

A mesh is data in a config: `mesh=dict(data=1, fsdp=8, tensor=1)`. Data parallelism, FSDP, tensor parallelism and their
mixtures are mesh shapes, not code paths.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from flamingo_jax.errors import UserError

AXES = ('data', 'fsdp', 'tensor')


def parse(sizes: str) -> dict[str, int]:
    """A command's flag 'DATA,FSDP,TENSOR' -> the arguments of `make_mesh`.

    Raises:
      ValueError: the flag is not three whole numbers.
    """
    found = re.fullmatch(r'(-?\d+),(-?\d+),(-?\d+)', sizes)
    if not found:
        raise UserError(f'--mesh={sizes} is not three sizes. Give {",".join(AXES)}, for example --mesh=2,2,1.')
    return dict(zip(AXES, map(int, found.groups()), strict=True))


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices, or over the given ones. One axis may be -1, which takes the remaining devices.

    Several slices (pods joined by a slower network) are split along `data`, so that only gradients, once a micro-batch,
    and the updated parameters cross that network. So are hosts of GPUs, if they divide `data`.

    Raises:
      ValueError: the product of the axes is not the number of devices, or the slices do not divide `data`.
    """
    every = list(jax.devices() if devices is None else devices)
    number = len(every)
    shape = [data, fsdp, tensor]
    rest = int(np.prod([size for size in shape if size != -1]))
    bad = any(size == 0 or size < -1 for size in shape) or shape.count(-1) > 1
    if bad or number % rest or (-1 not in shape and rest != number):
        raise UserError(
            f'The mesh data={data} fsdp={fsdp} tensor={tensor} does not fit {number} devices. The product of its '
            f'sizes must be {number}; one of them may be -1.'
        )
    shape = tuple(number // rest if size == -1 else size for size in shape)
    slices = len({getattr(device, 'slice_index', 0) for device in every})
    if every[0].platform != 'tpu' and shape[0] % slices:
        slices = 1  # To XLA, each host of GPUs is a slice. A model may be sharded over several of them.
    if shape[0] % slices:
        raise UserError(
            f'The mesh has data={shape[0]}, which is not a multiple of the {slices} slices of the devices. Choose '
            'another mesh.'
        )
    # An axis of 16 fits a torus of 4x8x8 only if one side of the torus is split.
    how: dict[str, Any] = dict(devices=every, allow_split_physical_axes=True)
    if slices > 1:
        grid = mesh_utils.create_hybrid_device_mesh((shape[0] // slices, *shape[1:]), (slices, 1, 1), **how)
    else:
        grid = mesh_utils.create_device_mesh(shape, **how)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Shards the rows of a batch over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def usual_dtype(device: Any = None) -> np.dtype:
    """The dtype in which a device computes unless told otherwise: bfloat16 on TPU and GPU, else float32.

    NVIDIA's GPUs before the A100 have no bfloat16.

    device: None is one of this machine.
    """
    device = device or jax.devices()[0]
    older = re.fullmatch(r'[1-7]\.\d', getattr(device, 'compute_capability', ''))
    return jnp.dtype(jnp.bfloat16 if device.platform in ('tpu', 'gpu') and not older else jnp.float32)


def row_shards(mesh: Mesh | AbstractMesh | None) -> int:
    """The number of parts into which the rows of a batch are cut; 1 without a mesh."""
    return 1 if mesh is None else mesh.shape['data'] * mesh.shape['fsdp']


def fill(mesh: Mesh | None, rows: Sequence[Any]) -> list[Any]:
    """Rows of a batch, the last repeated until the mesh divides them. None is one device."""
    return [*rows, *[rows[-1]] * (-len(rows) % row_shards(mesh))]


def in_rows(mesh: Mesh | None, *arrays: Array | np.ndarray) -> tuple[list[Array | np.ndarray], int]:
    """Arrays with rows sharded over the mesh, and their number of rows before `fill`. None leaves them as they are."""
    b = len(arrays[0])
    if mesh is None:
        return list(arrays), b
    rest = -b % row_shards(mesh)
    filled = [np.concatenate([array, np.repeat(array[-1:], rest, axis=0)]) for array in arrays]
    return [jax.device_put(array, batch_sharding(mesh)) for array in filled], b


def local_mesh(shape: Mapping[str, int]) -> Mesh | None:
    """A mesh of this process's devices; None for a single device.

    Each process has a whole model, since it answers its own questions.

    shape: `data`, `fsdp` and `tensor`, of which one may be -1.

    ValueError if there are too few devices.
    """
    devices = jax.local_devices()
    if -1 not in shape.values():
        number = math.prod(shape.values())
        if number == 1:
            return None
        devices = devices[:number] if 0 < number <= len(devices) else devices
    mesh = make_mesh(**shape, devices=devices)
    return mesh if mesh.size > 1 else None


def check_batch(name: str, batch_size: int, micro_batches: int, mesh: Mesh) -> None:
    """Raises ValueError if the micro-batches and the mesh do not divide a data set's batch."""
    rows = row_shards(mesh)
    if batch_size % (rows * micro_batches):
        raise UserError(
            f'Data set {name}: batch_size {batch_size} is not a multiple of {micro_batches} micro-batches x {rows} '
            f'rows of the mesh (data {mesh.shape["data"]} x fsdp {mesh.shape["fsdp"]}). Change the batch size or the '
            'mesh.'
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
