"""The attention function of the whole model: resampler, gated cross-attention and language model.

Flamingo needs what ready-made attention functions do not have: a query that may attend to nothing must get exactly
zero. A text token before every image has an empty row in the cross-attention mask. `jax.nn.dot_product_attention`
returns the uniform average for an empty row, which would leak every picture into that token.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from flamingo_jax.model.layers import soft_cap


def attend(
    q: Float[Array, 'b l h k'],
    k: Float[Array, 'b g m k'],
    v: Float[Array, 'b g m k'],
    mask: Bool[Array, '#b l m'] | None = None,
    bias: Float[Array, 'b h l m'] | None = None,
    scale: float | None = None,
    cap: float = 0.0,
) -> Float[Array, 'b l h k']:
    """Scaled dot-product attention (Vaswani et al. 2017) with grouped keys and empty rows that give zero.

    Args:
      q: queries, h heads.
      k, v: keys and values, g heads where g divides h; each serves h / g query heads (g = h is the usual attention).
        Their layout is that of a cache, so that a new token does not move the earlier ones.
      mask: True = may attend. None attends to everything.
      bias: added to the scaled products before the softmax (relative positions).
      scale: factor of the products; None is head_dim ** -0.5.
      cap: soft bound of the scaled products; 0 is none.

    Returns:
      The attended values in the dtype of `q`; a row whose mask is False everywhere is exactly zero.

    The softmax is taken in float32 whatever the dtype of the inputs.
    """
    b, l, h, head_dim = q.shape
    if k.shape[2] == 0:  # A text without pictures: every row is empty.
        return jnp.zeros_like(q)
    weights = attention_weights(q, k, mask, bias, scale, cap)
    out = jnp.einsum('bglm,bgmk->bglk', weights.astype(v.dtype), v)
    return out.reshape(b, h, l, head_dim).transpose(0, 2, 1, 3).astype(q.dtype)


def attend_to_parts(
    q: Float[Array, 'b l h k'],
    parts: Sequence[tuple[Float[Array, '_ g _ k'], Float[Array, '_ g _ k']]],
    mask: Bool[Array, '#b l m'],
    bias: Float[Array, 'b h l m'] | None = None,
    scale: float | None = None,
    cap: float = 0.0,
) -> Float[Array, 'b l h k']:
    """`attend` to keys and values that come in parts, side by side: m is the sum of their n.

    Args:
      parts: keys and values. The rows c of a part divide b: b / c consecutive rows of q share one row of it, which is
        not repeated.
      q, mask, bias, scale, cap: as for `attend`.

    Returns:
      As `attend` for the parts repeated to b rows and concatenated.
    """
    if len(parts) == 1 and len(parts[0][0]) == len(q):
        return attend(q, *parts[0], mask=mask, bias=bias, scale=scale, cap=cap)
    b, l, h, head_dim = q.shape
    g = parts[0][0].shape[1]
    parts = [part for part in parts if part[0].shape[2]]
    if not parts:
        return jnp.zeros_like(q)
    q_of_heads = q.transpose(0, 2, 1, 3).reshape(b, g, h // g * l, head_dim)

    def fold(x, c):  # [b g i ...] -> [c g (b/c i) ...]: rows that share keys are more queries of one row.
        return x.reshape(c, b // c, *x.shape[1:]).swapaxes(1, 2).reshape(c, g, -1, x.shape[-1])

    def unfold(x):
        return x.reshape(len(x), g, b // len(x), -1, x.shape[-1]).swapaxes(1, 2).reshape(b, g, -1, x.shape[-1])

    logits = [
        unfold(jnp.einsum('cgik,cgmk->cgim', fold(q_of_heads, len(k)), k, preferred_element_type=jnp.float32))
        for k, _ in parts
    ]
    weights = _softmax(jnp.concatenate(logits, axis=-1), (h // g, l), head_dim, mask, bias, scale, cap)
    out, end = jnp.zeros((), jnp.float32), 0
    for _, v in parts:
        begin, end = end, end + v.shape[2]
        out += unfold(jnp.einsum('cgim,cgmk->cgik', fold(weights[..., begin:end].astype(v.dtype), len(v)), v))
    return out.reshape(b, h, l, head_dim).transpose(0, 2, 1, 3).astype(q.dtype)


def attention_weights(
    q: Float[Array, 'b l h k'],
    k: Float[Array, 'b g m k'],
    mask: Bool[Array, '#b l m'] | None = None,
    bias: Float[Array, 'b h l m'] | None = None,
    scale: float | None = None,
    cap: float = 0.0,
) -> Float[Array, 'b g _ m']:
    """The weights with which `attend` sums the values, float32: for each group of heads its h / g heads in turn."""
    b, l, h, head_dim = q.shape
    g = k.shape[1]
    # Batch and heads come first, as in batched products: XLA's CPU backend takes three times as long for the gradient
    # with another order. They stay two dimensions, because a mesh may shard both. The h / g query heads of a group are
    # rows.
    q = q.transpose(0, 2, 1, 3).reshape(b, g, h // g * l, head_dim)
    logits = jnp.einsum('bglk,bgmk->bglm', q, k, preferred_element_type=jnp.float32)
    return _softmax(logits, (h // g, l), head_dim, mask, bias, scale, cap)


def _softmax(logits, queries, head_dim, mask, bias, scale, cap):
    """Products [b g i m] of the queries (heads of a group, tokens) -> weights."""
    logits = soft_cap(logits * (head_dim**-0.5 if scale is None else scale), cap)
    if bias is not None:
        logits = logits + bias.reshape(logits.shape)
    if mask is not None:
        b, g, _, m = logits.shape
        mask = jnp.broadcast_to(mask[:, None, None], (b, g, *queries, m)).reshape(logits.shape)
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1)
    return weights if mask is None else jnp.where(mask, weights, 0)  # An empty row's uniform weights become zeros.
