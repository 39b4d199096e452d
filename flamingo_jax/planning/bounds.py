"""The least time of a step on given chips, and what limits it: arithmetic, memory or network."""

from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from flamingo_jax.planning.collectives import Collective
from flamingo_jax.planning.topology import Topology


class Bounds(NamedTuple):
    """Seconds that each part of the machine needs by itself at full speed."""

    compute: int | float
    memory: int | float
    network: int | float

    @property
    def seconds(self) -> int | float:
        """The step's lower bound: all three at once, perfectly overlapped."""
        return max(self)

    @property
    def bound_by(self) -> str:
        """The slowest part."""
        return max(zip(self, self._fields, strict=True))[1]


def bounds(flops: int | float, read: int | float, sent: list[Collective], topology: Topology, mesh: Mesh) -> Bounds:
    """Bounds of a program.

    Args:
      flops: operations over all chips.
      read: least bytes that each chip moves to and from its memory.
      sent: collectives of each chip.
    """
    chip = topology.chip
    network = sum(one.bytes / bandwidth(one.axes, topology, mesh) for one in sent)
    return Bounds(flops / topology.chips / chip.flops, read / chip.memory_bandwidth, network)


def bandwidth(axes: tuple[str, ...], topology: Topology, mesh: Mesh) -> int | float:
    """Bytes per second that a chip can send along mesh axes: in both directions of each dimension of the torus in them.

    Between slices it is that of the data-centre network, which then limits the whole collective.
    """
    chip = topology.chip
    if not topology.slices == 1 and 'data' in axes:
        return chip.host_bandwidth
    if not chip.torus:
        return chip.link_bandwidth
    which = tuple(slice(None) if name in axes else 0 for name in mesh.axis_names)
    coords = np.array([device.coords for device in mesh.devices[which].flat])
    spanned = max(1, int((coords != coords[0]).any(axis=0).sum()))
    return 2 * spanned * chip.link_bandwidth
