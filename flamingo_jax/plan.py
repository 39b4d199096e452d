"""Compiles a config for another machine, to see whether it fits, the least time of a step, and what limits it.

    python -m flamingo_jax.plan --config=experiments/flamingo_80b.py --topology=v4:8x12x16 --out=plan.json

The real train step and the programs that answer prompts (one reads them, one adds a token) are compiled from shapes
alone by the TPU compiler (pip install 'flamingo_jax[plan]'): no TPU, no weights, no data. Topologies: v4, v5e, v5p,
v6e as KIND:SHAPE (v5e-16 is v5e:4x4), h100:N, cpu:N.
The mesh is the config's for that machine (`config.machines`), or its `mesh`, or --mesh. With --search it is the best of
all meshes, numbers of micro-batches and rematerialisation:

    python -m flamingo_jax.plan --config=experiments/flamingo_9b.py --topology=h100:8 --search

prints the ways that no other beats in both time and memory, by formulas alone, and compiles the fastest that fits.

Sizes and communication come from the compiler; operations, passes over the weights and the host's work from formulas.
Times are lower bounds by the chip's peak figures (docs/scaling.md): one with perfect overlap, and one in which
arithmetic waits for each collective that the compiler overlaps with nothing. No step is run.
"""

from absl import flags

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    flags.DEFINE_string('topology', None, 'The machine: v4:8x12x16, v5e-16, h100:8, cpu:8.', required=True)
    flags.DEFINE_integer('slices', 1, 'Number of slices, joined by the data-centre network.')
    commands.define_mesh("Replaces the config's mesh for this machine.")
    flags.DEFINE_bool('search', False, 'Look for the best mesh, micro-batches and rematerialisation.')
    flags.DEFINE_bool('compile', True, 'Compile the best ways that --search finds, until one fits.')
    flags.DEFINE_bool('decode', True, 'Compile what reads prompts and what adds a token too.')
    flags.DEFINE_string('out', None, 'File for the plan as JSON.')
    commands.start(__doc__, config=True)

import contextlib
import dataclasses
import json
import pathlib
import re
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import collectives, estimate, flops, host, passes, programs, search, topology, traffic
from flamingo_jax.planning.bounds import Bounds, bounds, in_bfloat16
from flamingo_jax.planning.topology import GIB, Topology
from flamingo_jax.training.config import machine, on_machine

PAPER_STEPS = 500_000
MOST_COMPILED = 3  # Ways that a search compiles until one fits.


def plan(
    config: ConfigDict, hardware: Topology, mesh: dict[str, int] | None = None, decode: bool = True
) -> dict[str, Any]:
    """Plans a config for a machine, and prints what it does.

    Args:
      mesh: replaces the config's mesh for this machine.
      decode: whether to compile the programs that answer prompts too.

    Returns:
      The plan that `report` prints, as JSON values.

    Raises:
      ValueError: the topology, mesh or batch does not fit. Raised before anything is compiled.
    """
    how = _of_machine(config, hardware)
    if how is None and config.machines:
        print(f'config.machines has no entry for {hardware.name}: its mesh and batches are those of the config.')
    config = on_machine(config, how)
    grid = meshes.make_mesh(**(mesh or config.mesh.to_dict()), devices=hardware.devices())
    run = programs.prepare(config, grid)
    out: dict[str, Any] = dict(
        topology=hardware.name,
        chips=hardware.chips,
        mesh=dict(grid.shape),
        micro_batches={name: data.micro_batches for name, data in run.sources.items()},
        remat=config.remat,
        batch={name: data.batch_size for name, data in run.sources.items()},
        lines={name: data.lines for name, data in run.sources.items()},
        parameters={
            name: dict(count=sum(x.size for x in jax.tree.leaves(tree)), trained=name in run.trained)
            for name, tree in run.shapes.items()
        },
    )
    lowered, state = _timed('Tracing the train step', lambda: programs.train_step(run))
    held = programs.held(run, state)
    out['train'] = _compile('train step', lowered, hardware, grid) | dict(held_bytes=held)
    counted = flops.train_step(run.model.config, run.trained, run.sources, run.model.remat)
    out['train'] |= dict(flops=counted)
    if out['train']['fits']:
        done = in_bfloat16(counted, run.model.quantised, hardware.chip)
        out['train'] |= _speed(run, done, out['train'], hardware, grid, out['batch'])
    if decode and 'lm' in out['parameters'] and run.model.config.contrastive is None:
        images = 33 if run.model.config.xattn else 0  # 32 shots and the question.
        found = _timed('Tracing how prompts are answered', lambda: programs.answering(run, images))
        c, about = run.model.config, dict(prompts=found.prompts, images=images, length=found.length)
        for name, lowered, operations, tokens in (
            ('read', found.read, flops.reading(c, found.prompts, found.length, images), found.length),
            ('decode', found.step, flops.decode_step(c, found.prompts, c.lm.context, found.visible), 1),
        ):
            out[name] = _compile(f'{name} step', lowered, hardware, grid) | about | dict(flops=operations)
            if out[name]['fits']:
                limit = bounds(operations, out[name]['bytes']['arguments'], _sent(out[name]), hardware, grid)
                rate = found.prompts * tokens / limit.seconds
                out[name] |= dict(bounds=limit._asdict(), bound_by=limit.bound_by, tokens_per_second=rate)
    return out


def _of_machine(config: ConfigDict, hardware: Topology) -> ConfigDict | None:
    """The config's entry for a machine, however its name is written: v5e-16 is v5e:4x4. None if it has none."""
    if hardware.name in config.machines or hardware.slices > 1:
        return config.machines.get(hardware.name)
    for name, how in config.machines.items():
        with contextlib.suppress(ValueError):  # A name of the user's own.
            if topology.parse(name) == dataclasses.replace(hardware, name=name):
                return how
    return None


def search_and_plan(
    config: ConfigDict, hardware: Topology, decode: bool = True, compiled: bool = True
) -> dict[str, Any]:
    """Prints the frontier of all ways to train (`planning/search.py`), and plans the fastest that fits.

    Returns:
      frontier=[ways, as JSON values], and with `compiled` the plan too. Of ways of which none fits, the last plan.

    Raises:
      ValueError: as for `plan`, or no way fits by estimate.
    """
    entry = _of_machine(config, hardware)
    batch = entry.batch if entry else 1.0
    found = _timed(f'Looking for ways to train on {hardware.name}', lambda: list(search.ways(config, hardware, batch)))
    best = search.frontier(found, hardware.chip.memory)
    if not best:
        least = min(found, key=lambda way: way.bytes, default=None)
        needs = (
            f'The smallest needs {least.bytes / 1e9:.0f} GB' if least else 'No mesh divides the model and the batches'
        )
        raise UserError(f'None of {len(found)} ways to train fits a chip of {hardware.name}. {needs}. Take more chips.')
    print(f'{len(found)} ways; those that no other beats in time and memory:\n')
    print(search.table(best, hardware.chip.memory) + '\n')
    out: dict[str, Any] = dict(frontier=[way._asdict() | dict(bounds=way.bounds._asdict()) for way in best])
    for way in best[:MOST_COMPILED] if compiled else ():
        config = config.copy_and_resolve_references()
        how = machine(**way.mesh, micro_batches=way.micro_batches, batch=batch, remat=way.remat)
        config.machines[hardware.name] = how
        out |= plan(config, hardware, decode=decode)
        if out['train']['fits']:
            numbers = ', '.join(f'{name}={number}' for name, number in way.micro_batches.items())
            print(
                f"\nIn the config: c.machines['{hardware.name}'] = machine({', '.join(map(str, way.mesh.values()))}, "
                f'micro_batches=dict({numbers}), batch={batch}, remat={way.remat!r}). To train so: '
                f'--config.machine={hardware.name}'
            )
            break
        print('  It does not fit. The next:')
    return out


def _timed(what: str, function):
    print(f'{what} ...', end=' ', flush=True)
    begin = time.perf_counter()
    result = function()
    print(f'{time.perf_counter() - begin:.0f} s', flush=True)
    return result


def _compile(name: str, lowered: jax.stages.Lowered, hardware: Topology, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Compiles a program and reads its needs; `fits` is False if the compiler runs out of memory."""
    begin = time.perf_counter()
    # For a GPU, a TPU program that need not be fast: it compiles in a third of the time, with a few GiB less
    # temporaries.
    quick = not hardware.chip.torus and hardware.kind != 'cpu'
    try:
        compiled = _timed(
            f'Compiling the {name} for {hardware.name}', lambda: _quickly(lowered) if quick else lowered.compile()
        )
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error) and 'Ran out of memory' not in str(error):
            raise
        return dict(fits=False, seconds_to_compile=time.perf_counter() - begin, **_exhausted(str(error), hardware))
    memory = compiled.memory_analysis()
    size = dict(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
    )
    # On some devices the compiler's own peak omits the arguments.
    size['peak'] = sum(size.values())
    try:
        text = compiled.as_text()
        sent, moved = collectives.read(text, mesh), traffic.moved(text)
    except jax.errors.JaxRuntimeError:  # A compiler newer than this JAX, which cannot read its output.
        sent, moved = None, None
    return dict(
        fits=size['peak'] <= hardware.chip.memory,
        seconds_to_compile=time.perf_counter() - begin,
        bytes=size,
        chip_memory=hardware.chip.memory,
        reserved=hardware.reserved,
        bytes_moved=moved,
        collectives=sent if sent is None else [dict(one._asdict(), axes=list(one.axes)) for one in sent],
    )


def _quickly(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    try:
        return lowered.compile(dict(optimization_level='O1'))
    except TypeError:  # JAX 0.10, the newest for Python 3.11, takes XLA's number of this level.
        return lowered.compile(dict(optimization_level=19))


def _exhausted(message: str, hardware: Topology) -> dict[str, Any]:
    """Reads the compiler's message: 'Used 20.66G of 15.75G hbm' and its largest allocations.

    Far beyond the memory, the compiler stops early with a lower bound: 'HLO temporaries (47.96G) exceeds available HBM
    (30.75G)'.
    """
    used = re.search(
        r'(?:Used|temporaries) \(?([\d.]+)([GM])\)? (?:of|exceeds available HBM) \(?([\d.]+)([GM])', message
    )
    unit = dict(G=GIB, M=2**20)
    peak, limit = (float(used[i]) * unit[used[i + 1]] for i in (1, 3)) if used else (None, hardware.chip.memory)
    largest = re.findall(
        r'Size: ([\d.]+[GMK])\s+(?:Operator: op_name="([^"]*)"[^\n]*\s+)?(?:[^\n]*\n)*?\s*Shape: (\S+)', message
    )
    return dict(
        bytes=dict(peak=peak),
        chip_memory=limit,
        largest=[dict(size=size, shape=shape, operation=name[-100:]) for size, name, shape in largest[:5]],
    )


def _sent(part: dict[str, Any]) -> list[collectives.Collective]:
    return [collectives.Collective(**(one | dict(axes=tuple(one['axes'])))) for one in part['collectives'] or ()]


def _speed(run, done: float, part: dict[str, Any], hardware: Topology, mesh, batch: dict[str, int]) -> dict[str, Any]:
    weights = passes.weights(run)
    read = sum(one.bytes * one.times for one in weights) + passes.update(run, weights, held=part['held_bytes'])
    decoding = host.seconds(run.sources, hardware, mesh)
    if part['collectives'] is None:
        by_formula = estimate.sent(run, weights, held=part['held_bytes'])
        part |= dict(collectives=[dict(one._asdict(), axes=list(one.axes)) for one in by_formula], by_formula=True)
    limit = bounds(done, read, _sent(part), hardware, mesh, host=decoding)
    tokens = sum(batch[name] * data.lines * data.length for name, data in run.sources.items())
    images = sum(batch[name] * data.images * data.frames for name, data in run.sources.items())
    return dict(
        bounds=limit._asdict(),
        bound_by=limit.bound_by,
        bytes_read=read,
        logits=max(size for _, size in passes.logits(run).values()) if passes.logits(run) else 0,
        host_memory=host.memory(run.sources, run.parts.batch_shapes(mesh), hardware, mesh),
        host_has=host.chips(hardware) * hardware.chip.host_memory / hardware.chip.host_chips,
        seconds=limit.seconds,
        seconds_in_turn=limit.in_turn,
        tokens_per_second=tokens / limit.seconds,
        images_per_second=images / limit.seconds,
        days_for_500k_steps=limit.seconds * PAPER_STEPS / 86_400,
        mfu_ceiling=part['flops']['total'] / hardware.chips / hardware.chip.flops / max(limit.seconds, limit.in_turn),
    )


def report(out: dict[str, Any]) -> str:
    """The plan as text."""
    gib = lambda size: f'{size / GIB:8.2f} GiB'  # noqa: E731
    mesh = ' x '.join(f'{name} {size}' for name, size in out['mesh'].items())
    lines = [f'{out["topology"]}: {out["chips"]:,} chips, mesh {mesh}, remat {out["remat"]!r}']
    sizes = (f'{name} {size:,} in {out["micro_batches"][name]}' for name, size in out['batch'].items())
    lines += [f'batch, in micro-batches: {", ".join(sizes)}', '', 'Parameters']
    for name, part in out['parameters'].items():
        lines.append(f'  {name:14} {part["count"]:16,} {"trained" if part["trained"] else "frozen"}')
    for name in ('train', 'read', 'decode'):
        if name not in out:
            continue
        part = out[name]
        lines += ['', f'{name.capitalize()} step, each chip (compiled in {part["seconds_to_compile"]:.0f} s)']
        for kind, size in part['bytes'].items():
            if size is not None:
                lines.append(
                    f'  {kind:14} {gib(size)}' + (f'  of {gib(part["chip_memory"])}' if kind == 'peak' else '')
                )
        if not part['fits']:
            lines += _does_not_fit(name, part, out, gib)
            continue
        if part['bytes']['peak'] > part['reserved'] * part['chip_memory']:
            lines.append("  JAX takes three quarters of a GPU's memory. This needs XLA_PYTHON_CLIENT_MEM_FRACTION=0.95")
        if part['collectives'] is None or part.get('by_formula'):
            how = 'What is sent is counted by formula' if part['collectives'] else 'What is sent is left out'
            lines.append(
                f'  JAX {jax.__version__} cannot read the output of the installed TPU compiler. {how}. The compiler of '
                'this JAX comes with: pip install "jax[tpu]"'
            )
        for one in part['collectives'] or ():
            axes = ' and '.join(one['axes']) or 'one device'
            lines.append(
                f'  sends {one["bytes"] / 1e9:9.3f} GB  {one["kind"]:18} over {axes}, {one["times"]:,.0f} times'
                + (', beside other work' if one['overlapped'] else '')
            )
        limit = Bounds(**part['bounds'])
        bound = ', '.join(f'{kind} {1e3 * part["bounds"][kind]:,.1f} ms' for kind in Bounds._fields[:4])
        lines.append(f'  at least: {bound}. Bound by {part["bound_by"]}.')
        lines.append(
            f'  arithmetic + synchronous network: {1e3 * limit.compute:,.1f} + {1e3 * limit.synchronous:,.1f} = '
            f'{1e3 * limit.in_turn:,.1f} ms, where the bound is max(...) = {1e3 * limit.seconds:,.1f} ms. '
            f'{1e3 * (limit.network - limit.synchronous):,.1f} ms of network run beside other work.'
        )
        if name == 'train':
            counted = {kind: f'{value:.3g}' for kind, value in part['flops'].items() if value}
            lines.append(f'  operations a step: {counted}')
            lines.append(
                f'  weights, gradients and moments: {part["bytes_read"] / 1e9:,.0f} GB to and from memory a step, by '
                'formula, which leaves out activations, norms and copies of arrays'
                + (f'; {part["bytes_moved"] / 1e9:,.0f} GB as compiled' if part['bytes_moved'] else '')
            )
            lines.append(f'  logits: {part["logits"] / 1e9:.2f} GB of float32 at once, in the temporaries')
            lines.append(
                f'  the workers of a host hold {part["host_memory"] / 1e9:,.0f} GB of batches; such a host has '
                f'{part["host_has"] / 1e9:,.0f} GB'
            )
            lines.append(
                f'  at that bound: {part["seconds"]:.3f} s a step, {part["tokens_per_second"]:,.0f} tokens/s, '
                f'{part["images_per_second"]:,.0f} images/s, {part["days_for_500k_steps"]:.1f} days for '
                f'{PAPER_STEPS:,} steps'
            )
            lines.append(
                f'  MFU at most {part["mfu_ceiling"]:.0%} (padding included), of the sum or the bound, whichever is '
                'longer'
            )
        else:
            lines.append(
                f'  at that bound: {part["tokens_per_second"]:,.0f} tokens/s for {part["prompts"]} prompts of '
                f'{part["images"]} images and {part["length"]} tokens'
            )
    return '\n'.join(lines)


def _does_not_fit(name: str, part: dict[str, Any], out: dict[str, Any], gib) -> list[str]:
    lines = [f'  DOES NOT FIT: the {name} step needs more than the {gib(part["chip_memory"]).strip()} that a chip has.']
    held = sorted(part.get('held_bytes', {}).items(), key=lambda item: -item[1])
    lines += [f'    {gib(size)}  {kind}' for kind, size in held if size]
    lines += [f'    {one["size"]:>10}  {one["shape"]}  {one["operation"]}' for one in part.get('largest', [])]
    kept = sum(size for _, size in held)
    advice = []
    if kept > part['chip_memory'] / 2:
        advice.append('a larger fsdp or tensor axis of the mesh (parameters and moments are most of it)')
    if name == 'train':
        advice.append(
            f'more micro-batches than {max(out["micro_batches"].values())}, or smaller batches (activations are the '
            'rest)'
        )
        if out['remat'] != 'full':
            advice.append("remat='full'")
    advice.append('more chips, or chips of more memory')
    return [*lines, '    What helps: ' + '; '.join(advice) + '.']


def main() -> None:
    """Plans what the flags describe; prints and writes the plan."""
    f = flags.FLAGS
    commands.refuse_config_of('training', f.config)
    hardware = topology.parse(f.topology, f.slices)
    if hardware.kind == 'cpu':
        jax.config.update('jax_num_cpu_devices', hardware.chips)
    jax.config.update('jax_platforms', 'cpu')  # This process does not compute.
    if f.search:
        if f.mesh:
            raise UserError('--search looks for the mesh itself. Give it without --mesh.')
        out = search_and_plan(f.config, hardware, f.decode, f.compile)
    else:
        out = plan(f.config, hardware, f.mesh and meshes.parse(f.mesh), f.decode)
    if 'train' in out:
        print('\n' + report(out))
    if f.out:
        pathlib.Path(f.out).write_text(json.dumps(out, indent=2) + '\n')


if __name__ == '__main__':
    main()
