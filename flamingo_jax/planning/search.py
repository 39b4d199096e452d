"""The ways to train a config on a machine: meshes x micro-batches x rematerialisation, bounded without a compiler.

A way takes some milliseconds, where its compilation takes minutes. So `plan --search` compiles the best alone.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import estimate, flops, host, passes, programs
from flamingo_jax.planning.bounds import Bounds, bounds, in_bfloat16
from flamingo_jax.planning.passes import Weight
from flamingo_jax.planning.programs import Planned
from flamingo_jax.planning.topology import Topology
from flamingo_jax.training.config import machine, on_machine

REMAT = ('', 'dots', 'full')
BUDGETS = tuple(2.0**power for power in range(28, 38))  # Bytes of activations of a micro-batch: .25 to 137 GB.


class Way(NamedTuple):
    """A way to train, with its bounds and the memory that it needs by estimate."""

    mesh: dict[str, int]
    micro_batches: dict[str, int]
    remat: str
    bytes: int | float
    bounds: Bounds

    @property
    def apart(self) -> int | float:
        """Seconds of a step if nothing of a chip's work overlapped; it tells ways of the same bound apart."""
        return self.bounds.compute + self.bounds.memory + self.bounds.network


def ways(config: ConfigDict, hardware: Topology, batch: float = 1.0) -> Iterator[Way]:
    """Every way to train, whether it fits or not.

    A data set is cut into the fewest micro-batches that keep its activations within a budget, so that a search has one
    number for all of them.

    Args:
      batch: factor of every data set's batch size.
    """
    devices = hardware.devices()
    one = meshes.make_mesh(devices=devices[:1])
    base = programs.prepare(on_machine(config, machine(1, 1, 1, batch=batch)), one)
    batches = _batches(base)
    for shape in shapes(hardware.chips):
        try:
            run = dataclasses.replace(base, mesh=meshes.make_mesh(*shape, devices=devices))
            for name, source in run.sources.items():
                meshes.check_batch(name, source.batch_size, 1, run.mesh)
            weights, held = passes.stored(run), programs.held(run)
        except (ValueError, NotImplementedError):  # The mesh does not divide something, or does not fit the torus.
            continue
        for remat in REMAT:
            seen = set()
            for budget in BUDGETS:
                cut = _cut(_on(hardware, _with(run, remat=remat)), budget)
                numbers = {name: source.micro_batches for name, source in cut.sources.items()}
                if tuple(numbers.values()) in seen:
                    continue
                seen.add(tuple(numbers.values()))
                yield _way(cut, hardware, passes.weights(cut, weights), held, batches)


def count(run: Planned, hardware: Topology) -> Way:
    """The way in which a prepared run trains, with its bounds and memory."""
    run = _on(hardware, run)
    return _way(run, hardware, passes.weights(run), programs.held(run), _batches(run))


def shapes(chips: int) -> Iterable[tuple[int, int, int]]:
    """(data, fsdp, tensor) of all meshes."""
    divisors = [n for n in range(1, chips + 1) if chips % n == 0]
    return (
        (chips // (fsdp * tensor), fsdp, tensor)
        for tensor, fsdp in itertools.product(divisors, repeat=2)
        if chips % (fsdp * tensor) == 0
    )


def frontier(found: Iterable[Way], memory: int | float) -> list[Way]:
    """Those that fit and that no other beats in both time (`Way.apart`) and memory, the fastest first.

    Of several within one per cent, the one of least memory stands for all: a bound is no more exact.

    Args:
      memory: of a chip.
    """
    kept: list[Way] = []
    for way in sorted((way for way in found if way.bytes <= memory), key=lambda way: (way.apart, way.bytes)):
        if not kept or way.bytes < kept[-1].bytes:
            if kept and way.apart <= 1.01 * kept[-1].apart:
                kept.pop()
            kept.append(way)
    return kept


def table(found: Iterable[Way], memory: int | float) -> str:
    """The ways as lines of text."""
    lines = [
        f'{"data x fsdp x tensor":>20} {"remat":>6} {"GB of " + format(memory / 1e9, ".0f"):>9} {"at least":>9} '
        f'{"apart":>8} {"compute":>8} {"memory":>8} {"network":>8} {"host":>8}  micro-batches'
    ]
    for way in found:
        parts = ' '.join(f'{seconds:8.3f}' for seconds in way.bounds[:4])
        numbers = ', '.join(f'{name} {number}' for name, number in way.micro_batches.items())
        lines.append(
            f'{" x ".join(map(str, way.mesh.values())):>20} {way.remat or "none":>6} {way.bytes / 1e9:9.1f} '
            f'{way.bounds.seconds:8.3f}s {way.apart:8.3f} {parts}  {numbers}'
        )
    return '\n'.join(lines)


def _way(run: Planned, hardware: Topology, read: list[Weight], held: dict[str, int], batches: int) -> Way:
    """batches: bytes of all batches of a step, over all devices."""
    counted = flops.train_step(run.model.config, run.trained, run.sources, run.model.remat)
    moved = sum(one.bytes * one.times for one in read) + passes.update(run, read, held)
    decoding = host.seconds(run.sources, hardware, run.mesh)
    done = in_bfloat16(counted, run.model.quantised, hardware.chip)
    limit = bounds(done, moved, estimate.sent(run, read, held), hardware, mesh=run.mesh, host=decoding)
    numbers = {name: source.micro_batches for name, source in run.sources.items()}
    needed = sum(estimate.memory(run, read, held, batches=batches).values())
    return Way(dict(run.mesh.shape), numbers, run.model.remat, needed, limit)


def _batches(run: Planned) -> int:
    shapes = jax.tree.leaves(run.parts.batch_shapes(run.mesh))
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in shapes)


def _on(hardware: Topology, run: Planned) -> Planned:
    """The run with the attention kernel of the machine, not of the devices that stand in for a GPU's."""
    return _with(run, attention_kernel=run.config.attention_kernel or hardware.attention_kernel)


def _cut(run: Planned, budget: float) -> Planned:
    """The run with the fewest micro-batches of each data set whose activations are within the budget, if any are."""
    rows = meshes.row_shards(run.mesh)
    numbers = {}
    for name, source in run.sources.items():
        own = source.batch_size // rows
        needed = estimate.activations(run, source) / budget
        numbers[name] = next(n for n in range(1, own + 1) if own % n == 0 and (n >= needed or n == own))
    sources = {name: dataclasses.replace(source, micro_batches=numbers[name]) for name, source in run.sources.items()}
    return dataclasses.replace(run, parts=dataclasses.replace(run.parts, sources=sources))


def _with(run: Planned, **fields: str) -> Planned:
    """The run with other fields of its model."""
    model = dataclasses.replace(run.parts.model, **fields)
    return dataclasses.replace(run, parts=dataclasses.replace(run.parts, model=model))
