"""Machines that a run may be planned for: chips, how they are joined, and a mesh over devices that need not be here.

    v4:8x12x16      1,536 TPU v4 chips, as in the paper        v5e-16   is v5e:4x4, as the cloud names it (v6e alike)
    h100:8          8 GPUs of one host                          cpu:8    8 devices of this machine's CPU

The TPU compiler comes with `pip install libtpu` and needs no TPU.
"""

import dataclasses
import math
import os
import re

import jax
from jax.experimental import topologies

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip (cloud.google.com/tpu/docs, jax-ml.github.io/scaling-book; NVIDIA's data sheet)."""

    memory: int  # Bytes.
    flops: float  # bfloat16 a second, at most.
    memory_bandwidth: float  # Bytes a second.
    link_bandwidth: float  # Bytes a second in one direction of one link of the torus (of the GPU's whole NVLink).
    torus: int  # Dimensions of the torus; 0: every device reaches every other at `link_bandwidth`.
    host_bandwidth: float  # Bytes a second and chip between slices or hosts (data-centre network).
    device_kinds: tuple[str, ...] = ()  # What JAX's `device_kind` begins with.


CHIPS = {
    'v4': Chip(32 * GIB, 275e12, 1.228e12, 45e9, 3, 6.25e9, ('TPU v4',)),
    'v5e': Chip(16 * GIB, 197e12, 0.82e12, 45e9, 2, 3.125e9, ('TPU v5 lite', 'TPU v5e')),
    'v5p': Chip(95 * GIB, 459e12, 2.765e12, 90e9, 3, 6.25e9, ('TPU v5',)),
    'v6e': Chip(32 * GIB, 918e12, 1.64e12, 90e9, 2, 12.5e9, ('TPU v6',)),
    'a100': Chip(80 * 10**9, 312e12, 2.039e12, 300e9, 0, 25e9, ('NVIDIA A100',)),
    'h100': Chip(80 * 10**9, 989e12, 3.35e12, 450e9, 0, 50e9, ('NVIDIA H100',)),
    'h200': Chip(141 * 10**9, 989e12, 4.8e12, 450e9, 0, 50e9, ('NVIDIA H200',)),
    'cpu': Chip(16 * GIB, 1e11, 2e10, 1e10, 0, 1e9),  # Nominal: a plan for cpu shows that a config works, not how fast.
}
# What the cloud calls v5e-16, and v6e-16.
SHAPES = {1: '1x1', 4: '2x2', 8: '2x4', 16: '4x4', 32: '4x8', 64: '8x8', 128: '8x16', 256: '16x16'}


@dataclasses.dataclass(frozen=True)
class Topology:
    """So many slices of chips of one kind."""

    name: str
    kind: str
    shape: tuple[int, ...]  # Of the torus of one slice; (n,) for GPUs and CPUs.
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """The figures of one of its chips."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """In all slices."""
        return math.prod(self.shape) * self.slices

    def devices(self) -> list:
        """One device a chip, for the compiler: they cannot run anything, except those of `cpu`.

        A GPU's are those of as many TPU v5p, whose compiler stands in: the count of what must lie in memory is the same.

        Raises:
          ValueError: the TPU compiler is not installed, does not know the shape, or this process has too few CPU devices.
        """
        if self.kind == 'cpu':
            if len(jax.devices('cpu')) < self.chips:
                raise ValueError(
                    f'{self.name} needs {self.chips} CPU devices, and this process has {len(jax.devices("cpu"))}: '
                    "jax.config.update('jax_num_cpu_devices', ...) comes too late."
                )
            return jax.devices('cpu')[: self.chips]
        kind, shape = (self.kind, self.shape) if self.chip.torus else ('v5p', _stand_in(self.chips))
        host = tuple(min(a, b) for a, b in zip(shape + (1,) * (3 - len(shape)), (2, 2, 1), strict=True))
        options = dict(chips_per_host_bounds=host, num_slices=self.slices)
        if kind == 'v4':
            options['chip_config_name'] = 'megacore'  # Both cores of a chip are one device.
        os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
        os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v4-8')  # Of the machine that compiles; any will do.
        os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
        os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', 'true')  # Several plans at once: none holds a TPU.
        try:
            name = f'{kind}:{"x".join(map(str, shape))}'
            return list(topologies.get_topology_desc(platform='tpu', topology_name=name, **options).devices)
        except Exception as error:  # Whatever the plugin raises: a missing library, an unknown shape.
            raise ValueError(
                f'The TPU compiler gives no topology {self.name}: {str(error).splitlines()[0]} '
                "(It comes with: pip install -e '.[plan]')"
            ) from error


def peak_flops(device_kind: str) -> float | None:
    """bfloat16 operations a second of a device at most, by JAX's name for it; None where that is not known, as of a CPU."""
    kinds = [(kind, chip) for chip in CHIPS.values() for kind in chip.device_kinds if device_kind.startswith(kind)]
    return max(kinds, key=lambda one: len(one[0]))[1].flops if kinds else None


def _stand_in(n: int) -> tuple[int, ...]:
    shapes = {1: (1, 1, 1), 2: (1, 2, 1), 4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4)}
    if n not in shapes:
        raise ValueError(f'A plan for GPUs is for {sorted(shapes)} of them, and not for {n}.')
    return shapes[n]


def parse(name: str, slices: int = 1) -> Topology:
    """Reads 'v4:8x12x16', 'v5e-16', 'h100:8' or 'cpu:8'.

    Raises:
      ValueError: an unknown chip or shape; the message says which there are.
    """
    match = re.fullmatch(r'(\w+)(?::(\d+(?:x\d+)*)|-(\d+))', name)
    if not match or match[1] not in CHIPS:
        raise ValueError(
            f'A topology is KIND:SHAPE, as in v4:8x12x16, v5e-16, h100:8 or cpu:8, with a kind of {sorted(CHIPS)}; '
            f'{name!r} is not.'
        )
    kind, shape = match[1], match[2]
    torus = CHIPS[kind].torus
    if shape is None:
        if torus != 2 or int(match[3]) not in SHAPES:
            raise ValueError(
                f'{name!r}: only v5e-N and v6e-N are known, N of {sorted(SHAPES)}; give the shape, as in v4:4x4x4.'
            )
        shape = SHAPES[int(match[3])]
    shape = tuple(int(size) for size in shape.split('x'))
    if 0 in shape or len(shape) != max(torus, 1):
        raise ValueError(f'{name!r}: {kind} has a shape of {max(torus, 1)} numbers, none of them 0.')
    if slices < 1 or (slices > 1 and not torus):
        raise ValueError(f'{slices} slices of {name!r}: only TPUs come in several slices.')
    return Topology(name if slices == 1 else f'{slices} x {name}', kind, shape, slices)
