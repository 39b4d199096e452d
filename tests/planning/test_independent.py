"""The bytes that a plan reads from a program are those of a second reader."""

import importlib.util

import jax
import pytest

from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.planning import collectives, programs, topology
from tests.planning.independent import bytes_sent

pytestmark = pytest.mark.usefixtures('quick_compilation')
# As the TPU's compiler writes what it overlaps: a sum that fusions start, continue (one of them in a loop) and end, in
# several layouts; a scatter in a wrapper; a gather split in two; a permutation with nothing to do meanwhile.
ASYNCHRONOUS = """HloModule test, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %s = f32[] add(%x, %y)
}

%begin (p: bf16[4,8]) -> (bf16[4,8], u32[]) {
  %p = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %r = bf16[4,8]{1,0:T(8,128)(2,1)} all-reduce(%p), channel_id=5, replica_groups=[4,2]<=[8], to_apply=%add
  ROOT %c = (bf16[4,8]{1,0}, u32[]{:S(2)}) custom-call(%r), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p.1: bf16[4,8], w: bf16[8,8]) -> (bf16[4,8], bf16[4,8]) {
  %p.1 = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %w = bf16[8,8]{1,0} parameter(1)
  %d = bf16[4,8]{1,0} convolution(%p.1, %w), dim_labels=bf_io->bf
  %r.1 = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} all-reduce(%p.1), channel_id=5, replica_groups=[4,2]<=[8], to_apply=%add
  ROOT %t = (bf16[4,8]{1,0}, bf16[4,8]{1,0}) tuple(%d, %r.1)
}

%async_collective_fusion.2 (p.2: bf16[4,8]) -> bf16[4,8] {
  %p.2 = bf16[4,8]{1,0} parameter(0)
  ROOT %r.2 = bf16[4,8]{1,0:T(4,128)(2,1)S(1)} all-reduce(%p.2), channel_id=5, replica_groups=[4,2]<=[8], to_apply=%add
}

%finish (p.3: bf16[4,8]) -> bf16[4,8] {
  %p.3 = bf16[4,8]{1,0} parameter(0)
  %r.3 = bf16[4,8]{1,0:T(8,128)(2,1)} all-reduce(%p.3), channel_id=5, replica_groups=[4,2]<=[8], to_apply=%add
  ROOT %c.3 = bf16[4,8]{1,0} custom-call(%r.3), custom_call_target="AsyncCollectiveDone"
}

%wrapped (p.4: f32[16]) -> f32[8] {
  %p.4 = f32[16]{0} parameter(0)
  ROOT %rs = f32[8]{0} reduce-scatter(%p.4), channel_id=6, replica_groups=[4,2]<=[8], dimensions={0}, to_apply=%add
}

%twice (v: (bf16[4,8], s32[])) -> (bf16[4,8], s32[]) {
  %v = (bf16[4,8]{1,0}, s32[]) parameter(0)
  %e = bf16[4,8]{1,0} get-tuple-element(%v), index=0
  %i = s32[] get-tuple-element(%v), index=1
  %f = bf16[4,8]{1,0} fusion(%e), kind=kOutput, calls=%async_collective_fusion.2
  ROOT %g = (bf16[4,8]{1,0}, s32[]) tuple(%f, %i)
}

%layer (z: (bf16[4,8], s32[])) -> (bf16[4,8], s32[]) {
  %z = (bf16[4,8]{1,0}, s32[]) parameter(0)
  %a = bf16[4,8]{1,0} get-tuple-element(%z), index=0
  %k = s32[] get-tuple-element(%z), index=1
  %async-collective-start = (bf16[4,8]{1,0}, u32[]{:S(2)}) fusion(%a), kind=kCustom, calls=%begin
  %b = bf16[4,8]{1,0} get-tuple-element(%async-collective-start), index=0
  %m = (bf16[4,8]{1,0}, bf16[4,8]{1,0}) fusion(%b, %a), kind=kOutput, calls=%async_collective_fusion.1
  %l = (bf16[4,8]{1,0}, s32[]) while(%z), condition=%less, body=%twice, backend_config={"known_trip_count":{"n":"2"}}
  %async-collective-done = bf16[4,8]{1,0} fusion(%b), kind=kCustom, calls=%finish
  ROOT %o = (bf16[4,8]{1,0}, s32[]) tuple(%async-collective-done, %k)
}

ENTRY %main (x.1: f32[16], q: (bf16[4,8], s32[])) -> f32[8] {
  %x.1 = f32[16]{0} parameter(0)
  %q = (bf16[4,8]{1,0}, s32[]) parameter(1)
  %w.1 = (bf16[4,8]{1,0}, s32[]) while(%q), condition=%less, body=%layer, backend_config={"known_trip_count":{"n":"3"}}
  %n = ((f32[16]{0}), f32[8]{0}, u32[]) async-start(%x.1), calls=%wrapped
  %u = ((f32[16]{0}), f32[8]{0}, u32[]) async-update(%n), calls=%wrapped
  %h = f32[16]{0} add(%x.1, %x.1)
  %j = f32[8]{0} async-done(%u), calls=%wrapped
  %ag = (f32[8]{0}, f32[16]{0}) all-gather-start(%j), channel_id=7, replica_groups=[4,2]<=[8], dimensions={0}
  %h.1 = f32[16]{0} multiply(%h, %h)
  %ah = f32[16]{0} all-gather-done(%ag)
  %cp = (f32[16]{0}, f32[16]{0}, u32[], u32[]) collective-permute-start(%ah), source_target_pairs={{0,4},{4,0}}
  %bc = f32[16]{0} bitcast(%h.1)
  %cd = f32[16]{0} collective-permute-done(%cp)
  ROOT %ar = f32[8]{0} all-reduce(%j), channel_id=8, replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add
}
"""


def sent(text: str, mesh: jax.sharding.Mesh) -> float:
    return sum(one.bytes for one in collectives.read(text, mesh))


def test_what_starts_and_ends_apart_is_sent_once():
    mesh = make_mesh(2, 2, 2)
    found = {(one.kind, one.overlapped): (one.bytes, one.times) for one in collectives.read(ASYNCHRONOUS, mesh)}
    assert found == {
        ('all-reduce', True): (3 * 2 * 64 / 2, 3),
        ('reduce-scatter', True): (32, 1),
        ('all-gather', True): (64 / 2, 1),
        ('collective-permute', False): (64, 1),
        ('all-reduce', False): (2 * 32 * 3 / 4, 1),
    }
    assert sent(ASYNCHRONOUS, mesh) == bytes_sent(ASYNCHRONOUS, 8)


@pytest.mark.parametrize('shape', [(2, 2, 2), (8, 1, 1), (1, 4, 2)])
def test_the_step_on_a_cpu(tiny, shape):
    mesh = make_mesh(*shape)
    del tiny.datasets.videos
    text = programs.train_step(programs.prepare(tiny, mesh))[0].compile().as_text()
    assert 0 < sent(text, mesh) == pytest.approx(bytes_sent(text, 8), rel=1e-9)


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason="needs libtpu: pip install -e '.[plan]'")
@pytest.mark.parametrize('shape', [(4, 1, 2), (1, 4, 2)])
def test_the_step_on_a_tpu(tiny, shape):
    del tiny.datasets.videos
    mesh = make_mesh(*shape, devices=topology.parse('v5e:2x4').devices())
    text = programs.train_step(programs.prepare(tiny, mesh))[0].compile().as_text()
    assert 0 < sent(text, mesh) == pytest.approx(bytes_sent(text, 8), rel=1e-9)
