"""The communication of a compiled program, read from its HLO text. Loops count as often as they run."""

import collections
import math
import re
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
BYTES = dict(pred=1, s4=0.5, u4=0.5, s8=1, u8=1, s16=2, u16=2, bf16=2, f16=2, s32=4, u32=4, f32=4, s64=8, u64=8, f64=8)

_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{\s*$')
_OPERATION = re.compile(r'^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)\(')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
_CALLS = re.compile(r'\b(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)')
_MANY_CALLS = re.compile(r'\b(?:branch_computations|called_computations)=\{([^}]*)\}')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONDITION = re.compile(r'\bcondition=%?([\w.\-]+)')
_BODY = re.compile(r'\bbody=%?([\w.\-]+)')
_CONSTANT = re.compile(r'%?([\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)')
_INDEX = re.compile(r' get-tuple-element\(.*\bindex=(\d+)')
_OPERANDS = re.compile(r' (?:tuple|add)\((.*?)\)(?:,|$)')
_CHANNEL = re.compile(r'\bchannel_id=(\d+)')
_IOTA = re.compile(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?')
_MESH = re.compile(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}')
_GROUPS = re.compile(r'replica_groups=\{(\{[\d,]+\})')
_PAIRS = re.compile(r'source_target_pairs=\{(\{\d+,\d+\}(?:,\{\d+,\d+\})*)\}')


class Collective(NamedTuple):
    """All collectives of one kind over one set of mesh axes in a step."""

    kind: str
    axes: tuple[str, ...]  # Axes of the mesh; () if the groups are not those of axes.
    bytes: float  # Bytes that a device sends.
    times: float  # Number of times.


def read(hlo: str, mesh: Mesh) -> list[Collective]:
    """The collectives of a compiled program, most bytes first.

    With the usual ring algorithms over n devices, a device sends (n - 1) / n of the whole for a gather or scatter,
    twice that for a sum, and the whole for a permutation. A sum of which each device keeps only its share is a
    scatter. Loops with an unknown number of iterations count once. All branches of a conditional count.
    """
    parts, entry = computations(hlo)
    times = times_of(parts, entry)
    # The TPU compiler starts, continues and ends a collective in fusions with other work. One channel and result are
    # one collective. Its scatters are whole fusions, of which several may have the same channel.
    found: dict[Any, tuple[str, tuple[str, ...], float, float]] = {}
    for name, lines in parts.items():
        for line in lines:
            operation = _OPERATION.match(line)
            if not operation or not times[name]:
                continue
            kind = operation[2].removesuffix('-start')
            if kind not in KINDS:
                continue
            group = _group(line) or list(range(mesh.devices.size))
            size = _sent(kind, operation[1], operation[2].endswith('-start'), len(group))
            channel = _CHANNEL.search(line)
            key = (channel[1], kind, operation[1]) if channel else (name, line)
            if 'all-reduce-scatter' in name:  # A fusion of the TPU compiler's.
                kind, size, key = 'reduce-scatter', size / 2, (name, line)
            found[key] = kind, _axes(group, mesh), size, times[name]
    total = collections.defaultdict(lambda: [0.0, 0.0])
    for kind, axes, size, often in found.values():
        total[kind, axes][0] += size * often
        total[kind, axes][1] += often
    ordered = (Collective(kind, axes, *counts) for (kind, axes), counts in total.items())
    return sorted((one for one in ordered if one.bytes), key=lambda one: -one.bytes)


def computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation of a program, and the name of its entry."""
    computations, entry, lines = {}, '', None
    for line in hlo.splitlines():
        if lines is None:
            if header := _COMPUTATION.match(line):
                lines = computations[header[2]] = []
                entry = header[2] if header[1] else entry
        elif line == '}':  # Attributes of splash's kernels have lines that begin with braces.
            lines = None
        else:
            lines.append(line)
    return computations, entry


def times_of(computations: dict[str, list[str]], entry: str) -> dict[str, float]:
    """How often each computation runs.

    HLO defines a computation before its caller, so callers come first in reverse.
    """
    times = dict.fromkeys(computations, 0.0)
    times[entry] = 1.0
    for name in reversed(computations):
        if not times[name]:
            continue
        for line in computations[name]:
            called = _CALLS.findall(line)
            for many in _MANY_CALLS.findall(line):
                called += [one.strip().lstrip('%') for one in many.split(',') if one.strip()]
            trips = _trips(line, computations) if ' while(' in line else 1
            for one in called:
                if one in times:
                    times[one] += times[name] * trips
    return times


def _trips(line: str, computations: dict[str, list[str]]) -> int:
    """Iterations of a loop, from the compiler's note or from the bound of its counter, which starts at 0."""
    if known := _TRIPS.search(line):
        return int(known[1])
    condition, body = (computations.get(which.search(line)[1], []) for which in (_CONDITION, _BODY))
    limits = [int(found[2]) for found in map(_CONSTANT.search, condition) if found]
    if len(limits) != 1 or not any('direction=LT' in line for line in condition):
        return 1
    return -(-limits[0] // _step(condition, body))


def _step(condition: list[str], body: list[str]) -> int:
    """The step of a loop's counter: 2 if a product is split to overlap with communication, two shards per iteration."""
    counter = [int(found[1]) for found in map(_INDEX.search, condition) if found]
    carried = [_OPERANDS.search(line) for line in body if line.lstrip().startswith('ROOT ')]
    if len(counter) != 1 or not carried or not carried[0]:
        return 1
    name = re.findall(r'%([\w.\-]+)', carried[0][1])[counter[0]]
    grown = [found for line in body if f'%{name} =' in line and (found := _OPERANDS.search(line))]
    constants = {found[1]: int(found[2]) for found in map(_CONSTANT.search, body) if found}
    steps = [constants[one] for found in grown for one in re.findall(r'%([\w.\-]+)', found[1]) if one in constants]
    return steps[0] if steps else 1


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


def _sent(kind: str, result: str, started: bool, n: int) -> float:
    sizes = [
        BYTES[dtype] * math.prod(int(x) for x in dims.split(',') if x)
        for dtype, dims in _ARRAY.findall(result)
        if dtype in BYTES
    ]
    if started and kind in ('all-gather', 'reduce-scatter', 'collective-permute', 'all-to-all'):
        # The result lists inputs, then outputs (and counters without size).
        sizes = [size for size in sizes if size > 8] if kind == 'collective-permute' else sizes
        sizes = sizes[len(sizes) // 2 :]
    size, share = float(sum(sizes)), (n - 1) / max(n, 1)
    return {
        'all-reduce': 2 * size * share,
        'all-gather': size * share,
        'reduce-scatter': size * (n - 1),
        'all-to-all': size * share,
        'collective-permute': size,
    }[kind]
