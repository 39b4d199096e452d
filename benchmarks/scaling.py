"""Plans the paper's sizes for many machines, and Flamingo-80B for 16 to 6,144 chips, for docs/scaling.md.

    pip install -e '.[plan]' && python -m benchmarks.scaling [--out=runs/scaling] [--only=3b] [--counted]

Each row is a result of `python -m flamingo_jax.plan`, compiled by the TPU compiler without a TPU. Rows already in the
folder are not compiled again. With `--counted` nothing is compiled: all is by formula (`planning/search.py`), which
takes seconds a row.
"""

import argparse
import importlib
import json
import pathlib
from typing import Any

import jax
import matplotlib
from ml_collections import ConfigDict

from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.plan import PAPER_STEPS, plan
from flamingo_jax.planning import flops, programs, search, topology
from flamingo_jax.planning.topology import GIB, Topology
from flamingo_jax.training.config import machine, on_machine

# Plans that must fit; with --counted, the other machines of the configs come last.
GOALS = (('80b', 'v4:8x12x16'), ('3b', 'v5e-16'), ('3b', 'h100:1'), ('9b', 'v5e-64'), ('9b', 'h100:8'))
# (Shape of a slice of TPU v4, slices); the third is the paper's machine. 16 chips (tensor) hold a copy of the model.
SWEEP = (('2x2x4', 1), ('4x8x8', 1), ('8x12x16', 1), ('8x12x16', 4))
TENSOR = 16
# Multiples of the 256 pages of the paper's ablations: four pages per micro-batch for each copy, and one micro-batch on
# the largest machine.
STRONG_BATCH = 6.0


def rows(only: str, every: bool) -> list[tuple[str, Topology, Any, str]]:
    """(size, machine, how to train on it or None for the config's own, table) of every row.

    every: also the other machines of the configs, of which there are too many to compile.
    """
    others = []
    for size in ('3b', '9b', '80b'):
        machines = importlib.import_module(f'experiments.flamingo_{size}').get_config().machines
        others += [(size, name) for name in machines if (size, name) not in GOALS]
    table = [(size, topology.parse(name), None, 'machines') for size, name in GOALS]
    for shape, slices in SWEEP:
        where = topology.parse(f'v4:{shape}', slices)
        copies = where.chips // TENSOR
        weak = machine(copies, 1, TENSOR, batch=copies / 64)
        strong = machine(copies, 1, TENSOR, micro_batches=384 // copies, batch=STRONG_BATCH)
        table += [('80b', where, weak, 'weak'), ('80b', where, strong, 'strong')]
    table += [(size, topology.parse(name), None, 'machines') for size, name in others if every]
    return [row for row in table if only in (row[0], row[3], '')]


def config_of(size: str, where: Topology, how: Any) -> ConfigDict:
    """The config of a row."""
    config = importlib.import_module(f'experiments.flamingo_{size}').get_config()
    if how is not None:
        config.machines[where.name] = how
        config.datasets = ConfigDict(dict(m3w=config.datasets.m3w))  # A quarter of the compile time.
    return config


def counted(size: str, where: Topology, how: Any) -> dict[str, Any]:
    """What the tables take of a row's plan, by formula."""
    config = config_of(size, where, how)
    config = on_machine(config, config.machines[where.name])
    run = programs.prepare(config, meshes.make_mesh(**config.mesh.to_dict(), devices=where.devices()))
    way = search.count(run, where)
    images = sum(data.batch_size * data.images * data.frames for data in run.sources.values())
    flops_of_use = flops.train_step(run.model.config, run.trained, run.sources)['total']
    return dict(
        topology=where.name,
        chips=where.chips,
        mesh=way.mesh,
        micro_batches=way.micro_batches,
        batch={name: data.batch_size for name, data in run.sources.items()},
        lines={name: data.lines for name, data in run.sources.items()},
        train=dict(
            fits=way.bytes <= where.chip.memory,
            bytes=dict(peak=way.bytes),
            chip_memory=where.chip.memory,
            bounds=way.bounds._asdict(),
            bound_by=way.bounds.bound_by,
            seconds=way.bounds.seconds,
            images_per_second=images / way.bounds.seconds,
            days_for_500k_steps=way.bounds.seconds * PAPER_STEPS / 86_400,
            seconds_in_turn=way.bounds.in_turn,
            mfu_ceiling=flops_of_use / where.chips / where.chip.flops / max(way.bounds.seconds, way.bounds.in_turn),
        ),
    )


def planned(size: str, where: Topology, how: Any, table: str, out: pathlib.Path) -> dict[str, Any]:
    """A row's plan, read from the folder, or computed and written there."""
    file = out / f'{table}_{size}_{where.name.replace(":", "-").replace(" ", "")}.json'
    if not file.is_file():
        print(f'\n{size} on {where.name}, {table}', flush=True)
        result = plan(config_of(size, where, how), where, decode=table == 'machines')
        file.write_text(json.dumps(result, indent=1) + '\n')
    return json.loads(file.read_text())


def machines_table(plans: list[tuple[str, dict[str, Any]]]) -> str:
    """A table of what fits, and what limits it."""
    lines = [
        '| size | machine | chips | mesh (data x fsdp x tensor), micro-batches | GiB a chip, train | decode | of '
        '| step at least | bound by | arithmetic + synchronous network | MFU at most | days for 500,000 steps |',
        '|---|---|---|---|---|---|---|---|---|---|---|---|',
    ]
    for size, one in plans:
        train, decode = one['train'], one.get('decode')
        mesh = f'{" x ".join(map(str, one["mesh"].values()))}, {_numbers(one)}'
        sizes = train['bytes']['peak'], decode and decode['bytes']['peak'], train['chip_memory']
        held = ' | '.join(f'{size / GIB:.1f}' if size else '' for size in sizes)
        speed = 'does not fit | | | | '
        if train['fits']:
            speed = (
                f'{train["seconds"]:.2f} s | {train["bound_by"]} | {train["seconds_in_turn"]:.2f} s | '
                f'{train["mfu_ceiling"]:.0%} | '
                f'{train["days_for_500k_steps"]:.1f}'
            )
        lines.append(f'| {size} | {one["topology"]} | {one["chips"]:,} | {mesh} | {held} | {speed} |')
    return '\n'.join(lines)


def _numbers(one: dict[str, Any]) -> str:
    """The micro-batches of a plan: one number, or that of each data set."""
    numbers = one['micro_batches']
    if len(set(numbers.values())) == 1:
        return str(next(iter(numbers.values())))
    return ', '.join(f'{name} {number}' for name, number in numbers.items())


def sweep_table(plans: list[dict[str, Any]]) -> str:
    """A table of the times of the three parts for growing numbers of chips."""
    lines = [
        '| chips | sequences a step | micro-batches | GiB a chip | arithmetic | memory | network | bound by | images/s '
        '| images/s a chip, of the first row |',
        '|---|---|---|---|---|---|---|---|---|---|',
    ]
    first = None
    for one in plans:
        train = one['train']
        sequences = sum(size * one['lines'][name] for name, size in one['batch'].items())
        start = f'| {one["chips"]:,} | {sequences:,} | {_numbers(one)} | '
        if not train['fits']:
            lines.append(f'{start}does not fit | | | | | | |')
            continue
        start += f'{train["bytes"]["peak"] / GIB:.1f} '
        a_chip = train['images_per_second'] / one['chips']
        first = first or a_chip
        parts = ' | '.join(f'{train["bounds"][part]:.3f} s' for part in ('compute', 'memory', 'network'))
        lines.append(
            f'{start}| {parts} | {train["bound_by"]} | {train["images_per_second"]:,.0f} | {a_chip / first:.0%} |'
        )
    return '\n'.join(lines)


def plot(sweeps: dict[str, list[dict[str, Any]]], file: pathlib.Path) -> None:
    """Plots images per second against chips, with the line of perfect scaling."""
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout='constrained')
    for (name, plans), marker in zip(sweeps.items(), 'os', strict=True):
        fits = [one for one in plans if one['train']['fits']]
        chips, speed = [one['chips'] for one in fits], [one['train']['images_per_second'] for one in fits]
        axes.loglog(chips, speed, marker=marker, label=f'{name} scaling')
        axes.loglog(chips, [speed[0] * n / chips[0] for n in chips], ':', color='grey')
    axes.set_xlabel('TPU v4 chips')
    axes.set_ylabel('images a second at the bound')
    axes.set_title('Flamingo-80B; dotted: in proportion to the chips')
    axes.legend(frameon=False)
    figure.savefig(file, dpi=130)


def main() -> None:
    """Computes missing rows, prints the tables and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/scaling'))
    parser.add_argument('--only', default='', help='3b, 9b, 80b, machines, weak or strong')
    parser.add_argument('--counted', action='store_true', help='compile nothing')
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    jax.config.update('jax_platforms', 'cpu')  # This process does not compute.
    plans = {'machines': [], 'weak': [], 'strong': []}
    for size, where, how, table in rows(arguments.only, arguments.counted):
        found = counted(size, where, how) if arguments.counted else planned(size, where, how, table, arguments.out)
        plans[table].append((size, found))
    if plans['machines']:
        print('\n' + machines_table(plans['machines']))
    sweeps = {table: [one for _, one in plans[table]] for table in ('weak', 'strong')}
    for table, of in sweeps.items():
        if of:
            print(f'\n{table}\n{sweep_table(of)}')
    if all(sweeps.values()):
        plot(sweeps, arguments.out / 'scaling.png')


if __name__ == '__main__':
    main()
