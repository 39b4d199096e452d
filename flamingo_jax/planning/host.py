"""The host's work for a step: decoding of images, and the batches that its workers hold."""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from flamingo_jax.inputs import pipeline
from flamingo_jax.inputs.rows import Batch
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning.topology import Topology

# JPEGs of 640 x 480 that one core reads, fits to 320 x 320 and recolours in a second: `python -m benchmarks.decoding`.
IMAGES_A_SECOND = 340


def chips(hardware: Topology) -> int:
    """The chips of one host."""
    return min(hardware.chip.host_chips, math.prod(hardware.shape))


def share(hardware: Topology, mesh: Mesh) -> float:
    """The most that a host reads of each batch, as a share: the rows of its chips, of which several may have the same.

    Which chips a host has is as the devices of a TPU say; those of GPUs, for which others stand in, follow their order.
    """
    groups = meshes.row_shards(mesh)
    rows = np.broadcast_to(np.arange(groups).reshape(*mesh.devices.shape[:2], 1), mesh.devices.shape).ravel()
    if hardware.chip.torus:
        hosts = np.array([device.process_index for device in mesh.devices.ravel()])
    else:
        hosts = np.arange(mesh.size) // hardware.chip.host_chips
    return max(len(np.unique(rows[hosts == host])) for host in np.unique(hosts)) / groups


def seconds(sources: Mapping[str, Source], hardware: Topology, mesh: Mesh) -> int | float:
    """Least seconds in which a host decodes the images of its share of a step, with all of its cores."""
    images = sum(
        data.batch_size * data.images * data.frames for data in sources.values() if data.images and not data.features
    )
    cores = hardware.chip.host_cores * chips(hardware) / hardware.chip.host_chips
    return images * share(hardware, mesh) / cores / IMAGES_A_SECOND


def memory(sources: Mapping[str, Source], batches: Mapping[str, Batch], hardware: Topology, mesh: Mesh) -> int | float:
    """Bytes of the batches that the workers of a host hold when all are read ahead.

    Args:
      batches: shapes of each data set's batches.
    """
    held = 0.0
    for name, data in sources.items():
        size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(batches[name]))
        held += size * share(hardware, mesh) * pipeline.held_ahead(data.workers)
    return held
