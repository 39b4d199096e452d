"""Whether several processes hold the same where they should: rows of a batch, and copies of an array.

Each process reads and decodes the rows that its devices hold, and with tensor parallelism several hold the same rows.
If one of them could not read an image, or read another file, copies of the parameters would part from there on, and
nothing else would notice. So each step compares a few bytes of each such row before it is trained on. Copies of arrays
are compared once at the start, and before each checkpoint.

Nothing is done in a single process: all its devices are given the same bytes.
"""

import collections
import functools
import itertools
import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped, UInt32

from flamingo_jax.errors import PartedError
from flamingo_jax.parallel import processes

_RUNS = itertools.count()  # Each run of a process needs names of its own.


class Rows:
    """Compares the rows that this process shares with others, in every step of one run."""

    def __init__(self, batch_sizes: Mapping[str, int], sharding: NamedSharding):
        """Finds out who holds what; says nothing to the others yet.

        Args:
          batch_sizes: rows of each data set's batch, in all processes together.
          sharding: how they lie on the mesh.
        """
        self._run, self._last, here = next(_RUNS), 0, jax.process_index()
        held = {name: holders(size, sharding) for name, size in batch_sizes.items()}
        self._own = {name: rows[here] for name, rows in held.items()}
        self._with = {  # Data set -> another process -> the rows that both hold.
            name: {other: shared for other in rows if other != here and (shared := rows[here] & rows[other])}
            for name, rows in held.items()
        }

    def check(self, step: int, batches: Mapping[str, Any]) -> None:
        """Compares this process's rows of some data sets with those of the processes that hold them too.

        Args:
          step: the step that will train on them.
          batches: data set -> its rows here, in order.

        Raises:
          PartedError: they differ; every process that holds such a row raises it.
        """
        others = sorted({other for name in batches for other in self._with[name]})
        if not others:
            return
        own = {}
        for name, batch in batches.items():
            shared, leaves = set().union(*self._with[name].values()), jax.tree.leaves(batch)
            places = enumerate(sorted(self._own[name]))
            own[name] = {str(row): _of_row(leaves, i) for i, row in places if row in shared}
        posted = f'rows {self._run}'
        processes.post(f'{posted} {step}', own)
        every = {jax.process_index(): own} | {i: processes.posted(f'{posted} {step}', i) for i in others}
        processes.withdraw(f'{posted} {self._last}')  # Who has posted this step has read the one before.
        self._last = step
        for name in batches:
            for row in sorted(own[name], key=int):
                groups = _groups((i, said[name][row]) for i, said in every.items() if row in said[name])
                if len(groups) > 1:
                    raise _parted(
                        f'data set {name}: row {row} of the batch of step {step}',
                        groups,
                        'Each of them reads the row itself: one has another file, or could not read an image. Give '
                        'all of them the same files, then resume with the same command.',
                    )


def holders(batch_size: int, sharding: NamedSharding) -> dict[int, set[int]]:
    """Process -> the rows of a batch that its devices hold."""
    held = collections.defaultdict(set)
    for device, (part, *_) in sharding.devices_indices_map((batch_size,)).items():
        held[device.process_index].update(range(*part.indices(batch_size)))
    return held


def _of_row(leaves: list[np.ndarray], row: int) -> int:
    """32 bits that change with the bytes of a row: 2.7 GB a second, and an accident is missed once in 4e9 times."""
    digest = 0
    for leaf in leaves:
        digest = zlib.crc32(np.ascontiguousarray(leaf[row]).reshape(-1).view(np.uint8), digest)
    return digest


def check(trees: Any) -> None:
    """Compares the copies of every array, or of a part of it, that several processes hold. All of them must call this.

    Devices compute 32 bits of each part, so that only these leave them.

    Args:
      trees: arrays on a mesh, or random keys.

    Raises:
      PartedError: copies differ, in every process; the message names the first such array and the processes. On GPUs
        this is only printed, unless XLA_FLAGS makes them deterministic: kernels that add in any order, on copies that
        each device computes, part them by a rounding.
    """
    if jax.process_count() == 1:
        return
    named = [
        (jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(trees)
    ]
    arrays = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for _, x in named]
    of_device = {}  # Of devices that are anywhere: the bits of what each holds of each array.
    for said in processes.gather(_of_arrays(arrays)):
        of_device |= {int(device): bits for device, bits in said.items()}
    for i, ((name, _), array) in enumerate(zip(named, arrays, strict=True)):
        copies = collections.defaultdict(dict)
        for device, part in array.sharding.devices_indices_map(array.shape).items():
            # Devices of one process may have parted alike in all of them: that is not what is looked for.
            copies[str(part)].setdefault(device.process_index, set()).add(of_device[device.id][i])
        for of_process in copies.values():
            groups = _groups((i, tuple(sorted(bits))) for i, bits in of_process.items())
            if len(groups) > 1:
                error = _parted(
                    name,
                    groups,
                    'What is on the disk is as it was: resume with the same command. If it happens again, a bundle '
                    'differs between their disks, or one has a faulty chip or memory.',
                )
                if _exact():
                    raise error
                return


def _of_arrays(arrays: list[Array]) -> dict[str, list[int]]:
    """This process's devices -> 32 bits of what each holds of each array."""
    on = collections.defaultdict(list)  # ZeRO's shares lie on a mesh of their own (`rules.over_data`).
    for i, array in enumerate(arrays):
        on[cast(NamedSharding, array.sharding).mesh].append(i)
    out = collections.defaultdict(lambda: [0] * len(arrays))
    for mesh, numbers in on.items():
        some = [arrays[i] for i in numbers]
        bits = _bits(mesh, tuple(array.sharding.spec for array in some), some)
        for shard in bits.addressable_shards:
            for i, value in zip(numbers, np.asarray(shard.data).reshape(-1).tolist(), strict=True):
                out[str(shard.device.id)][i] = value
    return dict(out)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _bits(mesh: Mesh, specs: tuple[PartitionSpec, ...], arrays: list[Array]) -> UInt32[Array, 'devices arrays']:
    def of_device(*parts):
        return jnp.stack([_of_part(part) for part in parts])[None]

    out = PartitionSpec(mesh.axis_names)
    return jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)(*arrays)


def _of_part(x: Shaped[Array, '...']) -> UInt32[Array, '']:
    """The sum of the bits of every number times an odd factor of its place: no single change keeps it."""
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = jax.lax.bitcast_convert_type(x, f'uint{8 * x.dtype.itemsize}').astype(jnp.uint32)
    place, step = jnp.zeros(x.shape, jnp.uint32), 1
    for i in reversed(range(x.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, x.shape, i) * jnp.uint32(step % 2**32)
        step *= x.shape[i]
    return jnp.sum(bits * (place * jnp.uint32(2654435761) * 2 + 1), dtype=jnp.uint32)


def _exact() -> bool:
    """Whether the devices compute the same bits from the same bits."""
    flags = os.environ.get('XLA_FLAGS', '')
    return jax.devices()[0].platform != 'gpu' or 'deterministic_ops=true' in flags or 'exclude_nondeterm' in flags


def _groups(said: Iterable[tuple[int, Any]]) -> list[list[int]]:
    """Processes by what they said, the most of them first."""
    groups = collections.defaultdict(list)
    for process, what in sorted(said):
        groups[what].append(process)
    return sorted(groups.values(), key=lambda group: (-len(group), group))


def _parted(what: str, groups: list[list[int]], remedy: str) -> PartedError:
    """The error, which is printed at once, before the end of another process takes this one with it."""
    said = ', '.join(f'{"process" if len(group) == 1 else "processes"} {_listed(group)}' for group in groups)
    message = f'The processes have parted: {what} is not the same in {said.replace(", process", " and process")}.'
    sys.stderr.write(f'[process {jax.process_index()}] {message} {remedy}\n')  # In one piece.
    sys.stderr.flush()
    return PartedError(f'{message} {remedy}')


def _listed(group: list[int]) -> str:
    return ', '.join(map(str, group[:8])) + (f' and {len(group) - 8} more' if len(group) > 8 else '')
