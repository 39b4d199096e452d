"""The search by formulas: what it counts against a compiled program, what it finds, and that it compiles little."""

import importlib
import math

import jax
import pytest

from flamingo_jax import plan
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import estimate, passes, programs, search, topology
from flamingo_jax.planning.bounds import Bounds
from flamingo_jax.planning.search import Way


def way(seconds: float, size: float, **fields) -> Way:
    return Way(dict(data=1, fsdp=1, tensor=1), dict(x=1), '', size, Bounds(seconds, 0.0, 0.0))._replace(**fields)


def test_the_frontier_holds_what_no_other_beats():
    fast, small, beaten, large = way(1.0, 50), way(2.0, 20), way(3.0, 30), way(0.5, 99)
    assert search.frontier([beaten, small, large, fast], memory=80) == [fast, small]
    alike = way(1.005, 40)
    assert search.frontier([fast, alike, small], memory=80) == [alike, small]
    assert search.frontier([large], memory=80) == []


def test_ways_are_all_that_divide_the_model_and_the_batches(tiny):
    """Eight devices; 2 heads and 8 rows. Each way's numbers divide what a device has of each batch."""
    found = list(search.ways(tiny, topology.parse('cpu:8')))
    shapes = {tuple(one.mesh.values()) for one in found}
    assert shapes == {(d, f, t) for d in (1, 2, 4, 8) for f in (1, 2, 4, 8) for t in (1, 2) if d * f * t == 8}
    assert {one.remat for one in found} == set(search.REMAT)
    for one in found:
        rows = one.mesh['data'] * one.mesh['fsdp']
        assert all(8 // rows % number == 0 for number in one.micro_batches.values())


def test_sums_over_tensor_by_hand(tiny):
    tiny.remat = 'full'
    mesh = meshes.make_mesh(2, 2, 2)
    run = programs.prepare(tiny, mesh)
    sent = estimate.sent(run, passes.weights(run), held=programs.held(run))
    assert {one.axes for one in sent} == {('data',), ('fsdp',), ('tensor',)}
    hidden = {one.axes: one.bytes for one in sent if one.kind == 'all-reduce'}
    # 3 blocks with 5 sums, 2 gated blocks with 6, the resampler's 2 layers.
    tokens = 8 * 24 + 8 * 12
    text = (3 * 5 + 2 * 6) * tokens * 32 + tokens * 32 + 2 * (8 * 2 + 8) * 3 * 32
    images = 2 * 16 * ((16 + 8) * 3 * 6 + 16 * 16 + 8 * 4 * 16)  # 16 features a frame.
    assert hidden[('tensor',)] == pytest.approx(4 * (text + images) / 4 * 2 / 2)


@pytest.mark.long
@pytest.mark.parametrize(
    'size, name, mesh, remat',
    [('9b', 'h100:8', (8, 1, 1), 'dots'), ('3b', 'h100:1', (1, 1, 1), 'dots')],
)
def test_the_papers_sizes_on_gpus(size, name, mesh, remat, monkeypatch):
    """Copies of the 9B beat its shards; neither size needs to recompute its products."""
    hardware = topology.parse(name)
    monkeypatch.setattr(topology.Topology, 'devices', lambda self: jax.devices()[: self.chips])
    config = importlib.import_module(f'experiments.flamingo_{size}').get_config()
    best = search.frontier(search.ways(config, hardware), hardware.chip.memory)
    assert tuple(best[0].mesh.values()) == mesh and best[0].remat in ('', remat)
    assert math.prod(best[0].mesh.values()) == hardware.chips
    assert all(a.apart < b.apart and a.bytes > b.bytes for a, b in zip(best, best[1:], strict=False))


def test_a_search_compiles_until_something_fits(tiny, monkeypatch, capsys):
    compiled = []

    def planned(config, hardware, decode):
        compiled.append(config.machines[hardware.name])
        return dict(train=dict(fits=len(compiled) == 2))

    monkeypatch.setattr(plan, 'plan', planned)
    ways = [way(1.0, 2e9, remat=''), way(2.0, 1e9, remat='dots'), way(3.0, 1e8, remat='full')]
    monkeypatch.setattr(search, 'ways', lambda *_: iter(ways))
    out = plan.search_and_plan(tiny, topology.parse('cpu:1'))
    assert [one.remat for one in compiled] == ['', 'dots'] and out['train']['fits']
    assert [one['remat'] for one in out['frontier']] == ['', 'dots', 'full']
    said = capsys.readouterr().out
    assert "c.machines['cpu:1'] = machine(1, 1, 1, micro_batches=dict(x=1), batch=1.0, remat='dots')" in said
    assert 'train' not in plan.search_and_plan(tiny, topology.parse('cpu:1'), compiled=False)
    monkeypatch.setattr(search, 'ways', lambda *_: iter([way(1.0, 1e12)]))
    with pytest.raises(ValueError, match='None of 1 ways to train fits a chip of cpu:1. The smallest needs 1000 GB'):
        plan.search_and_plan(tiny, topology.parse('cpu:1'))
