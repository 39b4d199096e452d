"""The least time of a step on given chips, and what limits it: arithmetic, memory, network or the host."""

from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from flamingo_jax.model.quantised import Quantisation
from flamingo_jax.planning.collectives import Collective
from flamingo_jax.planning.topology import Chip, Topology


class Bounds(NamedTuple):
    """Seconds that each part of the machine needs by itself at full speed."""

    compute: int | float
    memory: int | float
    network: int | float
    host: int | float = 0.0
    synchronous: int | float = 0.0  # Of the network, what nothing else overlaps.

    @property
    def in_turn(self) -> int | float:
        """Arithmetic and the collectives that it waits for, one after the other."""
        return self.compute + self.synchronous

    @property
    def seconds(self) -> int | float:
        """The step's lower bound: all at once, perfectly overlapped."""
        return max(self)

    @property
    def bound_by(self) -> str:
        """The slowest part."""
        return max(zip(self[:4], self._fields, strict=False))[1]


def bounds(
    flops: int | float,
    read: int | float,
    sent: list[Collective],
    topology: Topology,
    mesh: Mesh,
    host: int | float = 0.0,
) -> Bounds:
    """Bounds of a program.

    Args:
      flops: operations over all chips.
      read: least bytes that each chip moves to and from its memory.
      sent: collectives of each chip. They run one after the other.
      host: seconds of the host's own work (`host.seconds`).
    """
    chip = topology.chip
    seconds = [one.bytes / bandwidth(one.axes, topology, mesh) for one in sent]
    alone = sum(time for time, one in zip(seconds, sent, strict=True) if not one.overlapped)
    return Bounds(flops / topology.chips / chip.flops, read / chip.memory_bandwidth, sum(seconds), host, alone)


def in_bfloat16(counted: dict[str, int | float], quantised: Quantisation | None, chip: Chip) -> int | float:
    """bfloat16 operations that take a chip as long at its peak as a step's, of which some may be in 8 bits.

    Args:
      counted: `flops.train_step`.
      quantised: how the frozen language model is kept.
    """
    done = counted['total'] + counted['recomputed']
    if quantised is None or not quantised.inputs:
        return done
    return done - counted['lm in 8 bits'] * (1 - 1 / getattr(chip, quantised.dtype))


def bandwidth(axes: tuple[str, ...], topology: Topology, mesh: Mesh) -> int | float:
    """Bytes per second that the chip with the fewest links can send along mesh axes.

    A ring that leaves a slice, or a host of GPUs, and comes back must pass the data-centre network once: there it has
    the share of all chips that the group has in the slice or host.
    """
    chip = topology.chip
    which = tuple(slice(None) if name in axes else 0 for name in mesh.axis_names)
    group = mesh.devices[which].ravel()
    if chip.torus:
        coords = np.array([device.coords for device in group])[:, : len(topology.shape)]
        within = links(coords, topology) * chip.link_bandwidth
        homes = [getattr(device, 'slice_index', 0) for device in group]
    else:  # The devices stand in for GPUs, which have their order in the mesh.
        places = np.arange(mesh.size).reshape(mesh.devices.shape)[which].ravel()
        within, homes = chip.link_bandwidth, places // chip.host_chips
    each = np.unique(homes, return_counts=True)[1]
    return within if len(each) == 1 else min(within, chip.host_bandwidth * each.min())


def links(coords: Int[np.ndarray, 'chips dimensions'], topology: Topology) -> int | float:
    """Links from the chip at a corner of a group to the rest of the group. A group is a box of the torus.

    In an open dimension a corner has one link, in a ring that the group fills two. If the group has every s-th chip of
    a dimension, each step takes s links, which s such groups share: each then counts as 1 / s.

    Args:
      coords: places of the group's chips in the torus.
    """
    total = 0.0
    for dimension, (size, ring) in enumerate(zip(topology.shape, topology.rings, strict=True)):
        places = np.unique(coords[:, dimension])
        if len(places) == 1:
            continue
        apart = int(np.diff(places).min())
        total += (2 if ring and len(places) * apart == size else 1) / apart
    return total or 1.0
