"""The communication of a compiled program, read from its HLO text. Loops count as often as they run."""

import collections
import math
import re
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from flamingo_jax.planning.hlo import Computations, called, computations, operation, sizes, times_of

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
# Operations that take no time, or are communication themselves: none of them hides a collective.
IDLE = (*KINDS, 'parameter', 'constant', 'bitcast', 'tuple', 'get-tuple-element', 'copy', 'after-all', 'partition-id')
PHASE = 'custom_call_target="AsyncCollective'  # Of the TPU's compiler: AsyncCollectiveStart, AsyncCollectiveDone.

_CHANNEL = re.compile(r'\bchannel_id=(\d+)')
_IOTA = re.compile(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?')
_MESH = re.compile(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}')
_GROUPS = re.compile(r'replica_groups=\{(\{[\d,]+\})')
_PAIRS = re.compile(r'source_target_pairs=\{(\{\d+,\d+\}(?:,\{\d+,\d+\})*)\}')


class Collective(NamedTuple):
    """All collectives of one kind over one set of mesh axes in a step: those that work overlaps, or all others."""

    kind: str
    axes: tuple[str, ...]  # Axes of the mesh; () if the groups are not those of axes.
    bytes: float  # Bytes that a device sends.
    times: float  # Number of times.
    overlapped: bool = False  # Whether other work runs between their start and their end.


class _Place(NamedTuple):
    """A line of a computation that the program runs line by line."""

    computation: str
    line: int


class _Phase(NamedTuple):
    """A line that names a collective: all of it, or its start, a continuation or its end."""

    kind: str
    axes: tuple[str, ...]
    bytes: float
    times: float
    place: _Place


def read(hlo: str, mesh: Mesh) -> list[Collective]:
    """The collectives of a compiled program, most bytes first.

    With the usual ring algorithms over n devices, a device sends (n - 1) / n of the whole for a gather or scatter,
    twice that for a sum, and the whole for a permutation. A sum of which each device keeps only its share is a
    scatter. Loops with an unknown number of iterations count once. All branches of a conditional count.

    The lines of a compiled program are in the order in which they run. So a collective is overlapped if it starts and
    ends in two lines with work between them. Whether that work takes as long is not asked.
    """
    parts, entry = computations(hlo)
    times, callers = times_of(parts, entry), _callers(parts)
    found: dict[tuple, list[_Phase]] = collections.defaultdict(list)
    for name, lines in parts.items():
        for number, line in enumerate(lines):
            here = operation(line)
            kind = here.code.removesuffix('-start') if here else ''
            if not here or kind not in KINDS or not times[name]:
                continue
            group = _group(line) or list(range(mesh.devices.size))
            size = _sent(kind, here.result, here.code.endswith('-start'), len(group))
            place, key = callers.get(name), (name, number)
            channel = _CHANNEL.search(line)
            if 'all-reduce-scatter' in name:  # A fusion of the TPU compiler's. Several may have the same channel.
                kind, size = 'reduce-scatter', size / 2
            elif channel and place:
                # The TPU's compiler starts, continues and ends a collective in fusions with other work, in which its
                # result has several layouts. One channel is one collective.
                key = channel[1], kind
            axes = _axes(group, mesh)
            found[key].append(_Phase(kind, axes, size, times[name], place or _Place(name, number)))
    total = collections.defaultdict(lambda: [0.0, 0.0])
    for phases in found.values():
        one = min(phases, key=lambda phase: phase.times)  # A loop of products may continue it several times.
        counts = total[one.kind, one.axes, _overlapped([phase.place for phase in phases], parts)]
        counts[0] += one.bytes * one.times
        counts[1] += one.times
    ordered = (
        Collective(kind, axes, size, often, overlapped) for (kind, axes, overlapped), (size, often) in total.items()
    )
    return sorted((one for one in ordered if one.bytes), key=lambda one: -one.bytes)


def _callers(parts: Computations) -> dict[str, _Place]:
    """Where each fusion, and each computation that is started and ended apart, runs."""
    return {
        one: _Place(name, number)
        for name, lines in parts.items()
        for number, line in enumerate(lines)
        if ' fusion(' in line or ' async-start(' in line
        for one in called(line)
    }


def _overlapped(places: list[_Place], parts: Computations) -> bool:
    """Whether work runs between the phases of a collective."""
    if len({place.computation for place in places}) > 1:
        return True  # A loop between them continues it.
    lines, first = parts[places[0].computation], min(place.line for place in places)
    last = _end(lines, first) if '-start(' in lines[first] else max(place.line for place in places)
    return any(_is_work(line, parts) for line in lines[first + 1 : last])


def _end(lines: list[str], start: int) -> int:
    """The line that ends what a line starts; the number of lines if it ends elsewhere."""
    begun = operation(lines[start])
    name = begun.name if begun else ''
    for number in range(start + 1, len(lines)):
        here = operation(lines[number])
        if here and here.code.endswith(('-done', '-update')) and re.search(rf'%{re.escape(name)}[,)]', here.rest):
            if here.code.endswith('-done'):
                return number
            name = here.name
    return len(lines)


def _is_work(line: str, parts: Computations) -> bool:
    here = operation(line)
    if not here or here.code in IDLE or here.code.endswith(('-start', '-done', '-update')) or PHASE in line:
        return False
    if here.code == 'fusion':
        return any(_is_work(inner, parts) for one in called(line) for inner in parts.get(one, ()))
    return True


def _group(line: str) -> list[int]:
    """The devices of the first group, as positions in the mesh."""
    if iota := _IOTA.search(line):
        shape, dims = ([int(x) for x in text.split(',')] for text in iota.groups()[:2])
        ids = np.arange(math.prod(dims)).reshape(dims)
        if iota[3]:
            ids = ids.transpose([int(x) for x in iota[3].split(',')])
        return ids.reshape(shape)[0].tolist()
    if form := _MESH.search(line):  # mesh['a'=96,'b'=16] {'a'}: the groups along some dimensions of the device numbers.
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", form[1])}
        along = re.findall(r"'(\w+)'", form[2])
        ids = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
        return ids[tuple(slice(None) if name in along else 0 for name in sizes)].ravel().tolist()
    if groups := _GROUPS.search(line):
        return [int(x) for x in groups[1].strip('{}').split(',')]
    if pairs := _PAIRS.search(line):
        return [int(x) for x in re.findall(r'\d+', pairs[1])]
    return []


def _axes(group: list[int], mesh: Mesh) -> tuple[str, ...]:
    places = np.stack(np.unravel_index(np.array(group) % mesh.devices.size, mesh.devices.shape))
    # Pairs of a permutation: its axes are those that change within a pair.
    if len(group) % 2 == 0 and len(set(group)) < len(group):
        places = places.reshape(len(mesh.axis_names), -1, 2)
        changes = (places[..., 0] != places[..., 1]).any(axis=1)
    else:
        changes = (places != places[:, :1]).any(axis=1)
    return tuple(name for name, changed in zip(mesh.axis_names, changes, strict=True) if changed)


def _sent(kind: str, result: str, started: bool, n: int) -> int | float:
    arrays = [size for size, _ in sizes(result)]
    if started and kind in ('all-gather', 'reduce-scatter', 'collective-permute', 'all-to-all'):
        # The result lists inputs, then outputs (and counters without size).
        arrays = [size for size in arrays if size > 8] if kind == 'collective-permute' else arrays
        arrays = arrays[len(arrays) // 2 :]
    size, share = float(sum(arrays)), (n - 1) / max(n, 1)
    return {
        'all-reduce': 2 * size * share,
        'all-gather': size * share,
        'reduce-scatter': size * (n - 1),
        'all-to-all': size * share,
        'collective-permute': size,
    }[kind]
