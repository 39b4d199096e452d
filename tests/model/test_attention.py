import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.model.attention import attend

attend_jit = jax.jit(attend)


@pytest.fixture(scope='module')
def qkv():
    """q [2 5 4 8], and k, v [2 4 6 8]."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.array(rng.standard_normal((2, length, 4, 8), np.float32)) for length in (5, 6, 6))
    return q, k.swapaxes(1, 2), v.swapaxes(1, 2)


@pytest.fixture(scope='module')
def mask():
    """[2 5 6]; the rows (0, 1) and (1, 4) are empty, no other is."""
    mask = np.random.default_rng(1).random((2, 5, 6)) < 0.5
    mask[:, :, 2] = True
    mask[0, 1] = mask[1, 4] = False
    return mask


def reference(q, k, v, mask, bias=None):
    """Attention as loops over everything, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    for b, l, h in np.ndindex(q.shape[:3]):
        group = h // (q.shape[2] // k.shape[1])
        seen = np.flatnonzero(mask[b, l])
        if len(seen):
            logits = k[b, group, seen] @ q[b, l, h] / q.shape[3] ** 0.5
            weights = np.exp(logits if bias is None else logits + bias[b, h, l, seen])
            out[b, l, h] = weights / weights.sum() @ v[b, group, seen]
    return out


@pytest.mark.parametrize('groups', [4, 2, 1])
def test_equals_a_loop_over_rows_and_heads(qkv, mask, groups):
    q, k, v = qkv[0], *(x[:, :groups] for x in qkv[1:])
    np.testing.assert_allclose(attend_jit(q, k, v, mask), reference(q, k, v, mask), rtol=1e-5, atol=1e-6)
    everything = np.ones_like(mask)
    np.testing.assert_allclose(attend_jit(q, k, v), reference(q, k, v, everything), rtol=1e-5, atol=1e-6)


def test_equals_jax_where_a_row_is_not_empty(qkv, mask):
    q, k, v = qkv
    ours = attend_jit(q, k, v, mask)
    theirs = jax.nn.dot_product_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask=mask[:, None])
    some = mask.any(axis=-1)
    np.testing.assert_allclose(ours[some], theirs[some], rtol=1e-5, atol=1e-6)
    assert np.abs(theirs[~some]).max() > 0.01  # Why the function exists: theirs leaks the average into an empty row.


def test_a_bias_is_added_to_the_scaled_products(qkv, mask):
    q, k, v = qkv[0], *(x[:, :2] for x in qkv[1:])
    bias = np.random.default_rng(2).standard_normal((2, 4, 5, 6), np.float32)
    np.testing.assert_allclose(attend_jit(q, k, v, mask, bias), reference(q, k, v, mask, bias), rtol=1e-5, atol=1e-6)


def test_grouped_heads_are_repeated_heads(qkv, mask):
    q, k, v = qkv[0], *(x[:, :2] for x in qkv[1:])
    repeated = attend_jit(q, *(np.repeat(x, 2, axis=1) for x in (k, v)), mask)
    np.testing.assert_allclose(attend_jit(q, k, v, mask), repeated, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_empty_rows_are_exactly_zero_and_have_no_nan_gradient(qkv, mask, dtype):
    q, k, v = (jnp.asarray(x, dtype) for x in qkv)
    out = attend_jit(q, k, v, mask)
    assert out.dtype == dtype and not np.any(out[~mask.any(axis=-1)])
    weights = np.random.default_rng(2).standard_normal(out.shape, np.float32)

    @jax.jit
    def grad(mask):
        return jax.grad(lambda *qkv: jnp.sum(attend(*qkv, mask) * weights), argnums=(0, 1, 2))(q, k, v)

    for rows in (mask, np.zeros_like(mask)):
        grads = grad(rows)
        assert all(np.isfinite(g.astype(np.float32)).all() for g in grads)
        assert not np.any(grads[0][~rows.any(axis=-1)])
    assert not any(np.any(g) for g in grads)


def test_one_mask_serves_all_rows(qkv, mask):
    both = np.broadcast_to(mask[:1], mask.shape)
    np.testing.assert_array_equal(attend_jit(*qkv, mask[:1]), attend_jit(*qkv, both))


def test_no_keys_at_all_give_zero(qkv):
    q, k, v = qkv[0], *(x[:, :, :0] for x in qkv[1:])
    np.testing.assert_array_equal(attend(q, k, v, jnp.zeros((2, 5, 0), bool)), np.zeros_like(q))
