import jax
import jax.numpy as jnp
import pytest

from flamingo_jax.planning.traffic import moved


def compiled(function, *shapes) -> jax.stages.Compiled:
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()


def test_without_loops_it_is_the_compilers_own_count():
    program = compiled(lambda x, w, v: jnp.tanh(x @ w) @ v, (64, 128), (128, 256), (256, 32))
    assert moved(program.as_text()) == pytest.approx(program.cost_analysis()['bytes accessed'], rel=0.02)


def test_a_scan_reads_a_slice_of_its_stack_each_time():
    """Six layers; each reads its own matrix and the activations, and writes these."""
    program = compiled(lambda x, w: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0], (8, 64), (6, 64, 64))
    matrix, rows = 4 * 64 * 64, 4 * 8 * 64
    found = moved(program.as_text())
    assert 6 * matrix < found < 6 * (3 * matrix + 6 * rows)  # A copy of the slice is read and written, at most.


def test_what_the_compiler_keeps_on_the_chip_is_not_moved():
    """A TPU's program: a slice is fetched, multiplied on the chip, and one row of the result is updated in place."""
    text = """HloModule test, is_scheduled=true

%update (p: f32[9,4], q: f32[4], i: s32[]) -> f32[9,4] {
  %p = f32[9,4]{1,0:T(8,128)} parameter(0)
  %q = f32[4]{0:T(128)S(1)} parameter(1)
  %b = f32[1,4]{1,0} bitcast(%q)
  %i = s32[]{:T(128)S(6)} parameter(2)
  %z = s32[] constant(0)
  ROOT %d = f32[9,4]{1,0} dynamic-update-slice(%p, %b, %i, %z)
}

%pick (w: f32[5,4,4], i.1: s32[]) -> f32[4,4] {
  %w = f32[5,4,4]{2,1,0:T(8,128)} parameter(0)
  %i.1 = s32[]{:T(128)S(6)} parameter(1)
  %z.1 = s32[] constant(0)
  %s = f32[1,4,4]{2,1,0} dynamic-slice(%w, %i.1, %z.1, %z.1), dynamic_slice_sizes={1,4,4}
  ROOT %c = f32[4,4]{1,0} bitcast(%s)
}

ENTRY %main (a: f32[5,4,4], o: f32[9,4], x: f32[4], n: s32[]) -> f32[9,4] {
  %a = f32[5,4,4]{2,1,0:T(8,128)} parameter(0)
  %o = f32[9,4]{1,0:T(8,128)} parameter(1)
  %x = f32[4]{0:T(128)} parameter(2)
  %n = s32[]{:T(128)S(6)} parameter(3)
  %m = f32[4,4]{1,0:T(8,128)S(1)} fusion(%a, %n), kind=kLoop, calls=%pick
  %f = (f32[4]{0:T(128)S(1)}, f32[4]{0:T(128)}, u32[]{:S(2)}) copy-start(%x)
  %g = f32[4]{0:T(128)S(1)} copy-done(%f)
  %y = f32[4]{0:T(128)S(1)} dot(%m, %g), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  ROOT %r = f32[9,4]{1,0:T(8,128)} fusion(%o, %y, %n), kind=kLoop, calls=%update
}
"""
    assert moved(text) == 4 * (16 + 4 + 4)  # The slice and the row are read, and the row of the result is written.


def test_what_a_fusion_hands_on_is_not_moved():
    """It continues a sum, of which it reads and writes nothing itself, and returns an array as it is."""
    text = """HloModule test, is_scheduled=true

%async_collective_fusion.1 (p: f32[64], k: f32[32], x: f32[4]) -> (f32[4], f32[64], f32[32]) {
  %p = f32[64]{0:T(128)} parameter(0)
  %k = f32[32]{0:T(128)} parameter(1)
  %x = f32[4]{0:T(128)} parameter(2)
  %r = f32[64]{0:T(128)} all-reduce(%p), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %n = f32[4]{0:T(128)} negate(%x)
  ROOT %t = (f32[4]{0}, f32[64]{0}, f32[32]{0}) tuple(%n, %r, %k)
}

ENTRY %main (a: f32[64], b: f32[32], c: f32[4]) -> (f32[4], f32[64], f32[32]) {
  %a = f32[64]{0:T(128)} parameter(0)
  %b = f32[32]{0:T(128)} parameter(1)
  %c = f32[4]{0:T(128)} parameter(2)
  ROOT %f = (f32[4]{0}, f32[64]{0}, f32[32]{0}) fusion(%a, %b, %c), kind=kOutput, calls=%async_collective_fusion.1
}
"""
    assert moved(text) == 4 * (4 + 4)
