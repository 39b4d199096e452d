"""A second reader of compiled programs, which shares no code with `planning/collectives.py`: bytes sent a step.

It walks down from the entry, as the program runs, where the package counts calls first; it takes what ends a collective
to be the thing that was started; and it adds the hops of a ring one by one.
"""

import re
from typing import NamedTuple

WIDTH = {'pred': 8, 'bf16': 16}  # Bits; of other types they are in the name: f32, s8, f8e4m3fn.
KINDS = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'


class Program(NamedTuple):
    """The lines of each computation, and the name of the entry."""

    lines: dict[str, list[str]]
    entry: str


def bytes_sent(text: str, devices: int) -> float:
    """Bytes that a device sends in all collectives of a run of the program."""
    blocks = re.findall(r'^(ENTRY )?%(\S+)[^\n]*\{\n(.*?)^\}$', text, re.DOTALL | re.MULTILINE)
    program = Program({name: body.split('\n') for _, name, body in blocks}, next(name for e, name, _ in blocks if e))
    return _run(program, program.entry, devices)


def _run(program: Program, name: str, devices: int) -> float:
    """Bytes sent by one run of a computation."""
    sent = 0.0
    for line in program.lines.get(name, ()):
        inner = re.findall(r'(?:calls|body|to_apply|(?:true|false)_computation)=%([\w.\-]+)', line)
        for several in re.findall(r'branch_computations=\{(.*?)\}', line):
            inner += re.findall(r'%([\w.\-]+)', several)
        if found := re.search(rf' ({KINDS})(-start)?\(', line):
            sent += _hops(line, found[1], bool(found[2]), devices)
        elif ' while(' in line:
            sent += _trips(program, line) * _run(program, inner[0], devices)
        elif ' async-start(' in line or ' call(' in line or ' conditional(' in line:
            sent += sum(_run(program, one, devices) for one in inner)
        elif ' fusion(' in line:
            body = '\n'.join(program.lines.get(inner[0], ()))
            if inner[0].startswith('all-reduce-scatter'):
                sent += _run(program, inner[0], devices) / 2  # Each device keeps its share: half of a sum's hops.
            elif 'AsyncCollectiveStart' in body:
                sent += _run(program, inner[0], devices)
            elif 'AsyncCollectiveDone' not in body and not inner[0].startswith('async_collective_fusion'):
                sent += _run(program, inner[0], devices)
    return sent


def _trips(program: Program, line: str) -> int:
    if known := re.search(r'known_trip_count":\{"n":"(\d+)', line):
        return int(known[1])
    # Without the note a counter from 0 runs to the one constant of the condition, by the constant that the body adds.
    condition = '\n'.join(program.lines[re.search(r'condition=%([\w.\-]+)', line)[1]])
    body = '\n'.join(program.lines[re.search(r'body=%([\w.\-]+)', line)[1]])
    (last,) = re.findall(r'[su]32\[\]\S* constant\((\d+)\)', condition)
    index = int(re.search(r'get-tuple-element\(.*index=(\d+)', condition)[1])
    root = re.search(r'ROOT .* tuple\((.*?)\)', body)[1].replace('%', '').split(', ')[index]
    grown = re.search(rf'%{re.escape(root)} = .* add\((.*?)\)', body)  # Not by a fusion, whose step is 1.
    constants = dict(re.findall(r'%(\S+) = [su]32\[\]\S* constant\((\d+)\)', body))
    step = next(
        (int(constants[one]) for one in re.findall(r'%([\w.\-]+)', grown[1] if grown else '') if one in constants), 1
    )
    return len(range(0, int(last), step))


def _hops(line: str, kind: str, started: bool, devices: int) -> float:
    """Bytes of each hop around a ring of n devices, times the hops."""
    result = line.split(' = ', 1)[1].split(f' {kind}')[0]
    arrays = []
    for dtype, dims in re.findall(r'([a-z]+\d*\w*)\[([\d,]*)\]', result):
        size = 1
        for x in filter(None, dims.split(',')):
            size *= int(x)
        arrays.append(size * (WIDTH.get(dtype) or int(re.search(r'\d+', dtype)[0])) / 8)
    if started and kind != 'all-reduce':  # Inputs, outputs, and for permutations two counters.
        arrays = arrays[:-2] if 'u32[]' in result else arrays
        arrays = arrays[len(arrays) // 2 :]
    size, n = sum(arrays), _ring(line, devices)
    if kind == 'collective-permute':
        return size
    if kind == 'reduce-scatter':
        return sum(size for _ in range(n - 1))  # A device has its share, 1 / n of what is scattered.
    once = sum(size / n for _ in range(n - 1))
    return 2 * once if kind == 'all-reduce' else once


def _ring(line: str, devices: int) -> int:
    """The number of devices that take part together."""
    if iota := re.search(r'replica_groups=\[\d+,(\d+)\]<=', line):
        return int(iota[1])
    if mesh := re.search(r'replica_groups=mesh\[(.*?)\] \{(.*?)\}', line):
        axes, n = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1])), 1
        for axis in re.findall(r"'(\w+)'", mesh[2]):
            n *= int(axes[axis])
        return n
    listed = re.search(r'replica_groups=\{\{([\d,]*)\}', line)
    return len(listed[1].split(',')) if listed else devices
