"""The bytes that a compiled program moves to and from a device's memory, read from its HLO text.

Every operation reads its operands there and writes its result, but for what the compiler keeps on the chip (memory
spaces other than 0, as `S(1)` in a layout). A fusion reads and writes once, and of an array that it slices, or that it
updates in place, the slice alone. Loops count as often as they run. So activations, norms, moments and copies are in
it, which the formula of `passes.py` leaves out. What a kernel reads twice, and what a cache saves, is not seen.
"""

import re
from collections.abc import Iterable

from flamingo_jax.planning.hlo import Computations, Operation, called, computations, operation, sizes, times_of

# They move nothing themselves, or are counted where they start.
FREE = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id', 'iota')
FREE += ('while', 'conditional', 'call', 'optimization-barrier')
SLICES = ('dynamic-slice', 'slice', 'gather')
# What a fusion hands on: an array that it returns as it is, or a sum that goes on beside its work.
PASSED = ('tuple', 'all-reduce', 'custom-call')
_ELSEWHERE = re.compile(r'S\([1-9]')
_NOTHING = re.compile(r'custom_call_target="(AllocateBuffer|ConcatBitcast|AsyncCollective\w*)"')


def moved(text: str) -> int | float:
    """Bytes that one run of a program reads from a device's memory and writes to it."""
    parts, entry = computations(text)
    times = times_of(parts, entry)
    total = 0.0
    for name in _in_turn(parts, entry):
        lines = _operations(parts[name])
        total += times[name] * sum(_of(one, lines, parts) for one in lines.values())
    return total


def _in_turn(parts: Computations, entry: str) -> Iterable[str]:
    """The computations whose operations run one by one, and are no part of a fusion or of a reduction."""
    found = [entry]
    for name in found:
        for line in parts[name]:
            if ' while(' in line or ' conditional(' in line or ' call(' in line:
                found += [one for one in called(line) if one in parts and one not in found]
    return found


def _operations(lines: list[str]) -> dict[str, Operation]:
    return {one.name: one for one in map(operation, lines) if one}


def _operands(one: Operation) -> list[str]:
    return re.findall(r'%([\w.\-]+)', one.rest.split(')')[0])


def _size(result: str) -> int | float:
    """Bytes of the arrays of a result that are in the device's memory."""
    return sum(size for size, layout in sizes(result) if not _ELSEWHERE.search(layout))


def _of(one: Operation, lines: dict[str, Operation], parts: Computations) -> int | float:
    """Bytes that an operation moves."""
    if one.code in FREE or one.code.endswith(('-done', '-update')) or _NOTHING.search(one.rest):
        return 0.0
    if one.code.endswith('-start') and one.code != 'all-reduce-start':
        return _size(one.result)  # It names inputs and outputs.
    operands = [lines[name] for name in _operands(one) if name in lines]
    if one.code == 'fusion':
        inner = _operations(parts[called(one.rest)[0]])
        read = sum(min(_size(operand.result), _read(number, inner, parts)) for number, operand in enumerate(operands))
        return read + sum(
            min(size, written)
            for (size, layout), written in zip(sizes(one.result), _written(inner, parts), strict=False)
            if not _ELSEWHERE.search(layout)
        )
    if one.code in SLICES:
        return 2 * _size(one.result)
    if one.code == 'dynamic-update-slice':
        return 2 * _size(operands[1].result)
    return _size(one.result) + sum(_size(operand.result) for operand in operands)


def _read(number: int, inner: dict[str, Operation], parts: Computations) -> int | float:
    """Bytes that a fusion reads of an operand."""
    names = [one.name for one in inner.values() if one.code == 'parameter' and one.rest.startswith(f'{number})')]
    total = 0.0
    for name in names:
        for one in inner.values():
            for place, operand in enumerate(_operands(one)):
                if operand != name:
                    continue
                if one.code == 'bitcast':
                    names.append(one.name)
                elif one.code in SLICES and place == 0:
                    total += _all(one)
                elif one.code == 'fusion':
                    total += _read(place, _operations(parts[called(one.rest)[0]]), parts)
                elif one.code not in PASSED and (one.code != 'dynamic-update-slice' or place):
                    total += _all(inner[name])
    return total


def _written(inner: dict[str, Operation], parts: Computations) -> list[int | float]:
    """Bytes that a fusion writes of each array of its result."""
    root = list(inner.values())[-1]
    out = []
    for name in _operands(root) if root.code == 'tuple' else [root.name]:
        one = inner[name]
        while one.code == 'bitcast' and _operands(one)[0] in inner:
            one = inner[_operands(one)[0]]
        if one.code == 'dynamic-update-slice':
            out.append(_all(inner[_operands(one)[1]]))
        elif one.code == 'fusion':
            out += _written(_operations(parts[called(one.rest)[0]]), parts)
        elif one.code in ('parameter', *PASSED):
            out.append(0)
        else:
            out += [size for size, _ in sizes(one.result)]
    return out


def _all(one: Operation) -> int | float:
    return sum(size for size, _ in sizes(one.result))
