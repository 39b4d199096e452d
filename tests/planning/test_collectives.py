import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.planning.collectives import read


def test_collectives_of_a_compiled_program():
    """A scan of 5 layers, each cut over fsdp and gathered, whose products are summed over tensor."""
    mesh = make_mesh(2, 2, 2)

    def put(shape, *spec):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    def layer(x, w):
        w = jax.lax.with_sharding_constraint(w, NamedSharding(mesh, PartitionSpec('tensor', None)))
        x = jax.lax.with_sharding_constraint(x @ w, NamedSharding(mesh, PartitionSpec('data', None)))
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec('data', 'tensor'))), None

    lowered = jax.jit(lambda x, w: jax.lax.scan(layer, x, w)[0]).lower(
        put((16, 64), 'data', 'tensor'), put((5, 64, 64), None, 'tensor', 'fsdp')
    )
    found = {(one.kind, one.axes): one for one in read(lowered.compile().as_text(), mesh)}
    gathered = found['all-gather', ('fsdp',)]
    assert gathered.times == 5 and gathered.bytes == 5 * (32 * 64 * 4) / 2
    summed = found['all-reduce', ('tensor',)]
    assert summed.times == 5 and summed.bytes == 5 * 2 * (8 * 64 * 4) / 2
    assert set(found) == {('all-gather', ('fsdp',)), ('all-reduce', ('tensor',))}


def test_every_way_to_write_groups():
    """As the TPU compiler writes them: started and finished apart, groups as lists and as an iota, pairs."""
    mesh = make_mesh(2, 2, 2)  # Device = 4 data + 2 fsdp + tensor.
    hlo = """HloModule test

%cond (i: s32[]) -> pred[] {
  %i = s32[]{:T(128)} parameter(0)
  %n = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%all-reduce-scatter.1 (y: bf16[6]) -> bf16[3] {
  %y = bf16[6]{0} parameter(0)
  %m = bf16[6]{0} all-reduce(%y), channel_id=1, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, to_apply=%add
  ROOT %d = bf16[3]{0} dynamic-slice(%m, %i), dynamic_slice_sizes={3}
}

%all-reduce-scatter.2 (y.2: bf16[6]) -> bf16[3] {
  %y.2 = bf16[6]{0} parameter(0)
  %m = bf16[6]{0} all-reduce(%y), channel_id=1, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, to_apply=%add
  ROOT %d.3 = bf16[3]{0} dynamic-slice(%m, %i), dynamic_slice_sizes={3}
}

%start (p.1: bf16[8,16]) -> bf16[16,16] {
  %p.1 = bf16[8,16]{1,0} parameter(0)
  ROOT %a.1 = bf16[16,16]{1,0} all-gather(%p.1), channel_id=5, replica_groups=[4,2]<=[8], dimensions={0}
}

%end (p.2: bf16[8,16]) -> bf16[16,16] {
  %p.2 = bf16[8,16]{1,0} parameter(0)
  ROOT %a.2 = bf16[16,16]{1,0} all-gather(%p.2), channel_id=5, replica_groups=[4,2]<=[8], dimensions={0}
}

%body (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %a = (bf16[8,16]{1,0:T(8,128)(2,1)}, bf16[16,16]{1,0}) all-gather-start(%p), replica_groups=[4,2]<=[2,2,2]T(0,2,1)
  %b = bf16[16,16]{1,0} all-gather-done(%a)
  %d.1 = bf16[16,16]{1,0} fusion(%p), kind=kCustom, calls=%start
  %d.2 = bf16[16,16]{1,0} fusion(%p), kind=kCustom, calls=%end
  ROOT %c = f32[4]{0} copy(%p)
}

%body.2 (z: f32[4]) -> f32[4] {
  ROOT %f = bf16[3]{0} fusion(%z), kind=kCustom, calls=%all-reduce-scatter.1
}

%cond.3 (r: (f32[4], u32[])) -> pred[] {
  %r = (f32[4]{0}, u32[]{:T(128)}) parameter(0)
  %j = u32[]{:T(128)} get-tuple-element(%r), index=1
  %o = u32[]{:T(128)} constant(7)
  ROOT %lt.3 = pred[]{:T(512)} compare(%j, %o), direction=LT
}

%body.3 (v: (f32[4], u32[])) -> (f32[4], u32[]) {
  %v = (f32[4]{0}, u32[]{:T(128)}) parameter(0)
  %two = u32[]{:T(128)} constant(2)
  %e = f32[4]{0} get-tuple-element(%v), index=0
  %k = u32[]{:T(128)} get-tuple-element(%v), index=1
  %h = f32[4]{0} collective-permute(%e), source_target_pairs={{0,1},{1,0},{2,3},{3,2},{4,5},{5,4},{6,7},{7,6}}
  %next = u32[]{:T(128)} add(%k, %two), metadata={op_name="windowed"}
  ROOT %g = (f32[4]{0}, u32[]{:T(128)}) tuple(%h, %next), metadata={op_name="windowed"}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %kernel = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512}"
}}, metadata={op_name="splash"}
  %s = f32[2]{0} reduce-scatter(%x), replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  %q = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,4},{4,0},{1,5},{5,1}}
  %w = f32[4]{0} while(%x), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %u = f32[4]{0} while(%w), condition=%cond, body=%body.2
  %p.3 = (f32[4]{0}, u32[]{:T(128)}) while(%start), condition=%cond.3, body=%body.3
  %f.2 = bf16[3]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.2
  ROOT %r.1 = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups={}, to_apply=%add
}
"""
    found = {(one.kind, one.axes): (one.bytes, one.times) for one in read(hlo, mesh)}
    assert found == {
        ('all-gather', ('fsdp',)): (3 * 16 * 16 * 2 / 2, 3),
        ('all-gather', ('tensor',)): (3 * 16 * 16 * 2 / 2, 3),  # Started and ended in fusions.
        ('reduce-scatter', ('data', 'fsdp')): (3 * 2 * 4, 1),
        ('reduce-scatter', ('tensor',)): (8 * 6 * 2 / 2, 8),  # In fusions of one channel, which is also the last sum's.
        ('collective-permute', ('data',)): (8 * 4, 1),
        ('collective-permute', ('tensor',)): (4 * 4 * 4, 4),  # A counter below 7 that grows by 2.
        ('all-reduce', ('data', 'fsdp', 'tensor')): (2 * 8 * 4 * 7 / 8, 1),
    }
