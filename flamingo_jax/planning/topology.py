"""Machines to plan for: chips, their network, and a mesh over devices that are not here.

    v4:8x12x16      1,536 TPU v4 chips, as in the paper        v5e-16   the cloud's name of v5e:4x4 (v6e alike)
    v5p-16          the cloud's name of v5p:2x2x2, by cores    h100:8   8 GPUs of one host
    tpu7x:2x2x1     4 TPU7x chips, of two devices each         cpu:8    8 devices of this machine's CPU

The TPU compiler comes with `pip install libtpu` and needs no TPU.
"""

import dataclasses
import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from flamingo_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip and of its share of a host; of a device, where a chip is several.

    Sources: cloud.google.com/tpu/docs (a page for each kind, with its hosts), jax-ml.github.io/scaling-book, NVIDIA's
    data sheets, and for the hosts of GPUs cloud.google.com/compute/docs/gpus.
    """

    memory: int  # Bytes.
    flops: float  # Most bfloat16 operations per second.
    memory_bandwidth: float  # Bytes per second.
    link_bandwidth: float  # Bytes per second in one direction of one link of the torus (of the GPU's whole NVLink).
    torus: int  # Dimensions of the torus; 0: all devices are connected at `link_bandwidth`.
    host_bandwidth: float  # Bytes per second and chip between slices or hosts (data-centre network).
    host_chips: int  # Chips of one host of a slice of several.
    host_cores: int  # Cores of such a host, as clouds count them: hardware threads (vCPUs).
    host_memory: int  # Its bytes.
    device_kinds: tuple[str, ...] = ()  # Beginnings of JAX's `device_kind`.
    # How many times `flops` are done in products of two arrays in 8 bits; 1 where the chip has none, and converts them.
    int8: int = 1
    fp8: int = 1
    devices: int = 1  # As which a chip appears in JAX: the figures are those of one of them, a share of the links too.


CHIPS = {
    'v4': Chip(32 * GIB, 275e12, 1.228e12, 45e9, 3, 6.25e9, 4, 240, 407 * 10**9, ('TPU v4',)),
    'v5e': Chip(16 * GIB, 197e12, 0.82e12, 45e9, 2, 3.125e9, 4, 112, 192 * 10**9, ('TPU v5 lite', 'TPU v5e'), 2),
    'v5p': Chip(95 * GIB, 459e12, 2.765e12, 90e9, 3, 6.25e9, 4, 208, 448 * 10**9, ('TPU v5',), 2),
    'v6e': Chip(32 * GIB, 918e12, 1.64e12, 90e9, 2, 12.5e9, 4, 180, 720 * 10**9, ('TPU v6',), 2),
    'tpu7x': Chip(96 * GIB, 1153.5e12, 3.69e12, 45e9, 3, 6.25e9, 8, 224, 960 * 10**9, ('TPU7x',), 1, 2, 2),
    'l4': Chip(24 * 10**9, 121e12, 0.3e12, 32e9, 0, 1.5625e9, 8, 96, 384 * 10**9, ('NVIDIA L4',), 2, 2),  # PCIe.
    'a100': Chip(80 * 10**9, 312e12, 2.039e12, 300e9, 0, 25e9, 8, 96, 1360 * 10**9, ('NVIDIA A100',), 2),
    'h100': Chip(80 * 10**9, 989e12, 3.35e12, 450e9, 0, 50e9, 8, 208, 1872 * 10**9, ('NVIDIA H100',), 2, 2),
    'h200': Chip(141 * 10**9, 989e12, 4.8e12, 450e9, 0, 50e9, 8, 224, 2952 * 10**9, ('NVIDIA H200',), 2, 2),
    # Nominal: a plan for cpu shows that a config works, not its speed.
    'cpu': Chip(16 * GIB, 1e11, 2e10, 1e10, 0, 1e9, 8, 8, 64 * 10**9),
}
# Most bfloat16 operations per second of other GPUs, for the MFU of a run alone: dense, by NVIDIA's data sheets.
OTHER_PEAKS = {
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H100 NVL': 835e12,
    'NVIDIA GH200': 989e12,
    'NVIDIA B200': 2250e12,
    'NVIDIA L40S': 362e12,
    'NVIDIA A10': 125e12,
    'NVIDIA RTX A6000': 155e12,
    'NVIDIA GeForce RTX 4090': 165e12,
}
# Dimensions of the torus -> the cloud's number -> shape. Of two it is that of chips (v5e-16, v6e-16), of three that of
# cores, of which a chip has two (v4-16, v5p-16).
SHAPES = {
    2: {1: '1x1', 4: '2x2', 8: '2x4', 16: '4x4', 32: '4x8', 64: '8x8', 128: '8x16', 256: '16x16'},
    3: {8: '2x2x1', 16: '2x2x2', 32: '2x2x4', 64: '2x4x4', 128: '4x4x4', 256: '4x4x8', 512: '4x8x8'},
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or more slices of chips of one kind."""

    name: str
    kind: str
    shape: tuple[int, ...]  # Shape of the torus of one slice; (n,) for GPUs and CPUs.
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """The figures of one chip."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """The number of chips in all slices; of devices, where a chip is several."""
        return math.prod(self.shape) * self.slices * self.chip.devices

    @property
    def attention_kernel(self) -> str:
        """What computes attention there (`model/attention.py`)."""
        return 'splash' if self.chip.torus else 'plain' if self.kind == 'cpu' else 'cudnn'

    @property
    def reserved(self) -> float:
        """The share of a chip's memory that JAX takes unless told otherwise."""
        return 1.0 if self.chip.torus or self.kind == 'cpu' else 0.75

    @property
    def rings(self) -> tuple[bool, ...]:
        """Whether each dimension of the torus is closed by links from its last chips to its first.

        v4 and v5p: all are, if each has a multiple of 4 chips; smaller slices are open (cloud.google.com/tpu/docs/v4,
        /v5p). v5e and v6e: those of 16 chips (jax-ml.github.io/scaling-book/tpus).
        """
        if self.chip.torus == 2:
            return tuple(size == 16 for size in self.shape)
        return (all(size % 4 == 0 for size in self.shape),) * self.chip.torus

    def devices(self) -> list:
        """The devices of all chips, for the compiler. They cannot run anything, except those of `cpu`.

        For GPUs they are as many TPU v5p devices, whose compiler gives the same count of bytes in memory.

        Raises:
          ValueError: the TPU compiler is not installed, does not know the shape, or this process has too few CPU
            devices.
        """
        if self.kind == 'cpu':
            if len(jax.devices('cpu')) < self.chips:
                raise UserError(
                    f'{self.name} needs {self.chips} CPU devices, but this process already has '
                    f'{len(jax.devices("cpu"))}. Plan in a new process.'
                )
            return jax.devices('cpu')[: self.chips]
        kind, shape = (self.kind, self.shape) if self.chip.torus else ('v5p', _stand_in(self.chips))
        host = tuple(min(a, b) for a, b in zip(shape + (1,) * (3 - len(shape)), (2, 2, 1), strict=True))
        options = dict(chips_per_host_bounds=host, num_slices=self.slices)
        if kind == 'v4':
            options['chip_config_name'] = 'megacore'  # Both cores of a chip are one device.
        os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
        os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v4-8')  # Describes the machine that compiles; any value works.
        os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
        os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', 'true')  # For several plans at once: none uses a TPU.
        try:
            name = f'{kind}:{"x".join(map(str, shape))}'
            return list(topologies.get_topology_desc(platform='tpu', topology_name=name, **options).devices)
        except Exception as error:  # The plugin raises many types: a missing library, an unknown shape.
            remedy = 'Give a slice that is made, such as v5e:4x4 or v4:4x4x8: its first two sizes are 1 or even.'
            if importlib.util.find_spec('libtpu') is None:
                remedy = "It is not installed: pip install 'flamingo_jax[plan]'"
            raise UserError(
                f'The TPU compiler does not know the topology {self.name}. {remedy} ({str(error).splitlines()[0]})'
            ) from error


def peak_flops(device_kind: str) -> float | None:
    """Most bfloat16 operations per second of a device, by JAX's name for it; None if unknown, as for a CPU."""
    peaks = {kind: chip.flops for chip in CHIPS.values() for kind in chip.device_kinds} | OTHER_PEAKS
    kinds = [kind for kind in peaks if device_kind.startswith(kind)]
    return peaks[max(kinds, key=len)] if kinds else None


def _stand_in(n: int) -> tuple[int, ...]:
    shapes = {1: (1, 1, 1), 2: (1, 2, 1), 4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4)}
    if n not in shapes:
        raise UserError(f'A plan for GPUs needs {sorted(shapes)} of them, not {n}.')
    return shapes[n]


def parse(name: str, slices: int = 1) -> Topology:
    """Reads 'v4:8x12x16', 'v5e-16', 'v5p-16', 'h100:8' or 'cpu:8'.

    Raises:
      ValueError: the chip or the shape is unknown; the message lists the known ones.
    """
    match = re.fullmatch(r'(\w+)(?::(\d+(?:x\d+)*)|-(\d+))', name)
    if not match or match[1] not in CHIPS:
        raise UserError(
            f'{name!r} is not a topology. Give KIND:SHAPE, such as v4:8x12x16, v5e-16, h100:8 or cpu:8, with a kind '
            f'of {sorted(CHIPS)}.'
        )
    kind, shape = match[1], match[2]
    torus = CHIPS[kind].torus
    if shape is None:
        if not torus:
            raise UserError(f'{name!r} is not known. Give the number of devices after a colon: {kind}:{match[3]}.')
        if int(match[3]) not in SHAPES[torus]:
            raise UserError(
                f'{name!r} is not known. Give {kind}-N with N of {sorted(SHAPES[torus])}, or the shape, such as '
                f'{"v5e:4x4" if torus == 2 else "v4:4x4x4"}.'
            )
        shape = SHAPES[torus][int(match[3])]
    shape = tuple(int(size) for size in shape.split('x'))
    if 0 in shape or len(shape) != max(torus, 1):
        raise UserError(f'{name!r} is not a shape of {kind}, which has {max(torus, 1)} numbers, each 1 or more.')
    if slices < 1 or (slices > 1 and not torus):
        raise UserError(f'{name!r} cannot have {slices} slices. Only TPUs can have more than one.')
    return Topology(name if slices == 1 else f'{slices} x {name}', kind, shape, slices)
