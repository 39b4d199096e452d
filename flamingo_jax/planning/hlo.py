"""The text of a compiled program (HLO): its computations, how often each runs, and the operations in their lines."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = dict(pred=1, s4=0.5, u4=0.5, s8=1, u8=1, s16=2, u16=2, bf16=2, f16=2, s32=4, u32=4, f32=4, s64=8, u64=8, f64=8)

_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{\s*$')
_OPERATION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?')
_CALLS = re.compile(r'\b(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)')
_MANY_CALLS = re.compile(r'\b(?:branch_computations|called_computations)=\{([^}]*)\}')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONDITION = re.compile(r'\bcondition=%?([\w.\-]+)')
_BODY = re.compile(r'\bbody=%?([\w.\-]+)')
_CONSTANT = re.compile(r'%?([\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)')
_INDEX = re.compile(r' get-tuple-element\(.*\bindex=(\d+)')
_OPERANDS = re.compile(r' (?:tuple|add)\((.*?)\)(?:,|$)')

Computations = dict[str, list[str]]  # Name -> its lines, in the order in which they run.


class Operation(NamedTuple):
    """One line of a computation: %name = result code(operands), attributes."""

    name: str
    result: str  # The arrays that it makes, as text.
    code: str
    rest: str  # From the operands on.


def operation(line: str) -> Operation | None:
    """The operation in a line, if there is one."""
    found = _OPERATION.match(line)
    return Operation(found[1], found[2], found[3], line[found.end() :]) if found else None


def sizes(result: str) -> Iterator[tuple[int | float, str]]:
    """(bytes, layout) of each array in the text of a result. Tokens and the like have no bytes."""
    for dtype, dims, layout in _ARRAY.findall(result):
        if dtype in BYTES or dtype.startswith('f8'):
            yield BYTES.get(dtype, 1) * math.prod(int(x) for x in dims.split(',') if x), layout


def computations(hlo: str) -> tuple[Computations, str]:
    """The lines of each computation of a program, and the name of its entry."""
    found, entry, lines = {}, '', None
    for line in hlo.splitlines():
        if lines is None:
            if header := _COMPUTATION.match(line):
                lines = found[header[2]] = []
                entry = header[2] if header[1] else entry
        elif line == '}':  # Attributes of splash's kernels have lines that begin with braces.
            lines = None
        else:
            lines.append(line)
    return found, entry


def called(line: str) -> list[str]:
    """The computations that a line calls.

    An asynchronous one is named by its start, by what continues it and by its end, but runs once.
    """
    if '-done(' in line or '-update(' in line:
        return []
    out = _CALLS.findall(line)
    for many in _MANY_CALLS.findall(line):
        out += [one.strip().lstrip('%') for one in many.split(',') if one.strip()]
    return out


def times_of(parts: Computations, entry: str) -> dict[str, float]:
    """How often each computation runs.

    HLO defines a computation before its caller, so callers come first in reverse. Loops with an unknown number of
    iterations count once. All branches of a conditional count.
    """
    times = dict.fromkeys(parts, 0.0)
    times[entry] = 1.0
    for name in reversed(parts):
        if not times[name]:
            continue
        for line in parts[name]:
            trips = _trips(line, parts) if ' while(' in line else 1
            for one in called(line):
                if one in times:
                    times[one] += times[name] * trips
    return times


def _trips(line: str, parts: Computations) -> int:
    """Iterations of a loop, from the compiler's note or from the bound of its counter, which starts at 0."""
    if known := _TRIPS.search(line):
        return int(known[1])
    condition, body = (parts.get(which.search(line)[1], []) for which in (_CONDITION, _BODY))
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
