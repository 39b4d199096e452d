"""The attention function of the whole model: resampler, gated cross-attention and language model.

Flamingo needs what ready-made attention functions do not have: a query that may attend to nothing must get exactly
zero. A text token before every image has an empty row in the cross-attention mask. `jax.nn.dot_product_attention`
returns the uniform average for an empty row, which would leak every image into that token.

**Kernels.** `plain` is XLA's two products with a softmax between them, whose weights [b h l m] go through memory.
`cudnn` (GPU) and `splash` (TPU, Pallas) compute the same in one pass, in forward and backward, without them. Which one
is a model's choice (`Flamingo.attention_kernel`); a run takes that of its devices (`kernel_of`). Whatever a kernel does
with an empty row, one `where` after it makes the row zero, and with it the row's gradient. (cuDNN is asked for no empty
row: its backward pass makes some of them NaN, which no `where` mends.)

The kernels take the gated cross-attention in training, the self-attention of language models with rotary or learned
positions, and `cudnn` the resampler. The plain path is taken, whatever the choice, for

- a bias (relative positions, ALiBi, BEiT): it is as large as the weights that a kernel is to avoid;
- one query (decoding a token at a time), and keys in several parts, which rows share;
- with `splash` masks that are no `Segments` (windows, the ablation `only_last_image=False`, the cache of decoding),
  which it would have to read;
- with `cudnn` float32, a soft cap, and heads that have more than 128 dimensions or no multiple of 8: it has no program
  for them on every GPU; and fewer than 128 queries and keys, whose weights are small;
- with `splash` fewer queries or keys than its block, such as the resampler's 64 latents: padded to a block, they need
  more memory than the weights (`benchmarks/attention.py`);
- with `splash` a mesh that does not divide rows or heads: each device runs the kernel on its own.

The trunks are not asked: they are usually frozen, and then keep no weights.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from flamingo_jax.model.layers import soft_cap

KERNELS = ('plain', 'cudnn', 'splash')
# Of splash attention. Lengths are padded to a multiple of BLOCK. At a time it takes MOST (queries, keys) at most. So
# many fit the on-chip memory of v4 and v5e; no chip was there to find what is fastest. It is used only if there
# are at least LEAST queries and LEAST keys; cuDNN if there are LEAST of either.
BLOCK, MOST, LEAST = 128, (512, 1024), 128


def kernel_of(device: Any) -> str:
    """The kernel of a run on such devices. cuDNN's needs an NVIDIA GPU of compute capability 8.0, an A100, or newer."""
    if device.platform == 'gpu' and re.fullmatch(r'(8|9|\d\d)\.\d', getattr(device, 'compute_capability', '')):
        return 'cudnn'
    return 'splash' if device.platform == 'tpu' else 'plain'


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments:
    """A mask in the form that kernels take: a query sees the keys of its own segment.

    All masks of training are of this kind, but for windows and the ablation `only_last_image=False`. In a packed row, a
    text token's segment is its document. In the gated cross-attention, a token's segment is phi, the one image that it
    may see, and a media token's is its image.
    """

    queries: Int[Array, '#b l'] | None = None  # The segment of each query, 0 or more; None: all are of one.
    keys: Int[Array, '#b m'] | None = None
    # Whether a query sees no key after it; l = m.
    causal: bool = dataclasses.field(default=False, metadata=dict(static=True))


Mask: TypeAlias = Bool[Array, '#b l m'] | Segments


def as_array(mask: Mask, l: int, m: int) -> Bool[Array, '#b {l} {m}']:
    """The mask of l queries and m keys as an array: True = may attend."""
    if not isinstance(mask, Segments):
        return mask
    seen = jnp.tril(jnp.ones((1, l, m), bool)) if mask.causal else jnp.ones((1, l, m), bool)
    return seen if mask.queries is None else seen & (mask.queries[:, :, None] == mask.keys[:, None])


def attend(
    q: Float[Array, 'b l h k'],
    k: Float[Array, 'b g m k'],
    v: Float[Array, 'b g m k'],
    mask: Mask | None = None,
    bias: Float[Array, 'b h l m'] | None = None,
    scale: float | None = None,
    cap: float = 0.0,
    kernel: str = 'plain',
    axes: tuple[str, str] = ('batch', 'heads'),
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
      kernel: 'plain', 'cudnn' or 'splash', where it takes these arguments: see the head of this file.
      axes: the logical axes of rows and of heads, by which a mesh shards them.

    Returns:
      The attended values in the dtype of `q`; a row whose mask is False everywhere is exactly zero.

    The softmax is taken in float32 whatever the dtype of the inputs.
    """
    b, l, h, head_dim = q.shape
    m = k.shape[2]
    if m == 0:  # A text without images: every row is empty.
        return jnp.zeros_like(q)
    scale = head_dim**-0.5 if scale is None else scale
    in_segments = mask is None or isinstance(mask, Segments)
    if bias is None and fused(kernel, l, m, head_dim, q.dtype, cap=cap, in_segments=in_segments):
        out = None
        if kernel == 'cudnn':
            out = _cudnn(q, k, v, mask, scale)
        elif spec := _sharding(q, k, axes):
            out = _splash(q, k, v, mask or Segments(), scale=scale, cap=cap, spec=spec)
        if out is not None:
            return out if mask is None else jnp.where(as_array(mask, l, m).any(axis=-1)[..., None, None], out, 0)
    weights = attention_weights(q, k, mask, bias, scale, cap)
    out = jnp.einsum('bglm,bgmk->bglk', weights.astype(v.dtype), v)
    return out.reshape(b, h, l, head_dim).transpose(0, 2, 1, 3).astype(q.dtype)


def fused(
    kernel: str, l: int, m: int, head_dim: int, dtype: DTypeLike, cap: float = 0.0, in_segments: bool = True
) -> bool:
    """Whether a kernel takes an attention without a bias of these sizes, on a mesh that divides it.

    Args:
      in_segments: whether the mask, if any, is `Segments`.
    """
    if l == 1:  # One more token: nothing to gain.
        return False
    if kernel == 'cudnn':
        return (
            max(l, m) >= LEAST and jnp.dtype(dtype).itemsize == 2 and not cap and head_dim <= 128 and head_dim % 8 == 0
        )
    return kernel == 'splash' and min(l, m) >= LEAST and in_segments


def attend_to_parts(
    q: Float[Array, 'b l h k'],
    parts: Sequence[tuple[Float[Array, '_ g _ k'], Float[Array, '_ g _ k']]],
    mask: Mask,
    bias: Float[Array, 'b h l m'] | None = None,
    scale: float | None = None,
    cap: float = 0.0,
    kernel: str = 'plain',
) -> Float[Array, 'b l h k']:
    """`attend` to keys and values that come in parts, side by side: m is the sum of their n.

    Args:
      parts: keys and values. The rows c of a part divide b: b / c consecutive rows of q share one row of it, which is
        not repeated.
      q, mask, bias, scale, cap, kernel: as for `attend`.

    Returns:
      As `attend` for the parts repeated to b rows and concatenated.
    """
    b, l, h, head_dim = q.shape
    c = parts[0][0].shape[0]
    if len(parts) == 1 and (c == b or (bias is None and isinstance(mask, Segments) and not mask.causal)):
        if c < b:  # Rows that share keys are more queries of one row.
            mask = cast(Segments, mask)
            mask = Segments(mask.queries.reshape(c, -1), mask.keys)
        out = attend(
            q.reshape(c, -1, h, head_dim),
            *parts[0],
            mask=mask,
            bias=bias,
            scale=scale,
            cap=cap,
            kernel=kernel,
        )
        return out.reshape(q.shape)
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
    mask: Mask | None = None,
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


def weights_of(layers: dict[str, Float[Array, 'depth 1 _ h k']]) -> list[Float[Array, 'r m']]:
    """The weights of each layer's attention, averaged over heads, by its queries and keys; for a reader of a model."""
    pairs = zip(layers['query'], layers['key'], strict=True)
    return [attention_weights(q, k.swapaxes(1, 2))[0].mean(axis=0) for q, k in pairs]


def _softmax(logits, queries, head_dim, mask, bias, scale, cap):
    """Products [b g i m] of the queries (heads of a group, tokens) -> weights."""
    logits = soft_cap(logits * (head_dim**-0.5 if scale is None else scale), cap)
    if bias is not None:
        logits = logits + bias.reshape(logits.shape)
    if mask is not None:
        b, g, _, m = logits.shape
        mask = as_array(mask, queries[-1], m)
        mask = jnp.broadcast_to(mask[:, None, None], (b, g, *queries, m)).reshape(logits.shape)
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1)
    return weights if mask is None else jnp.where(mask, weights, 0)  # An empty row's uniform weights become zeros.


def _cudnn(q, k, v, mask, scale):
    """`attend` but for empty rows, which get an average. cuDNN reads a mask as a bias, and skips what is not causal."""
    l, m, causal = q.shape[1], k.shape[2], isinstance(mask, Segments) and mask.causal
    if causal:
        mask = None if mask.queries is None else dataclasses.replace(mask, causal=False)
    elif mask is None and m % 2:
        mask = Segments()
    # cuDNN has no gradient for odd lengths. The key of the padding is masked, or comes after all queries.
    if mask is not None:
        mask = jnp.pad(as_array(mask, l, m), ((0, 0), (0, l % 2), (0, m % 2)))[:, None]
        # Of an empty row it divides by next to nothing: the gradient of its query is NaN on some GPUs and lengths
        # (NVIDIA/cudnn-frontend, pull request 628), and 0 * NaN is NaN. The row may see all; what it gets is dropped.
        mask |= ~mask.any(axis=-1, keepdims=True)
    k, v = (x.swapaxes(1, 2) for x in (k, v))
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    out = jax.nn.dot_product_attention(q, k, v, mask=mask, scale=scale, is_causal=causal, implementation='cudnn')
    return out[:, :l]


def _splash(q, k, v, mask, scale, cap, spec):
    """`attend` but for empty rows, which get an average. Lengths are padded to the kernel's blocks."""
    # Here, so that nobody else waits for Pallas.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    b, l, m = *q.shape[:2], k.shape[2]
    queries, keys = mask.queries, mask.keys
    if queries is None and m % BLOCK and not mask.causal:  # Padding is a segment that no query is of.
        queries, keys = jnp.zeros((1, l), jnp.int32), jnp.zeros((1, m), jnp.int32)
    segments = None
    if queries is not None:
        queries, keys = (jnp.broadcast_to(x, (b, x.shape[1])) for x in (queries, keys))
        segments = splash.SegmentIds(_pad(queries, 1), _pad(keys, 1, -1))
    # The kernel has no scale. In bfloat16 the scale itself would be rounded, alike for all products.
    q = (q.astype(jnp.float32) * scale).astype(q.dtype).swapaxes(1, 2)

    def on_device(q, k, v, segments):
        shape = q.shape[2], k.shape[2]
        one = splash.CausalMask(shape) if mask.causal else splash.FullMask(shape)
        q_block, k_block = (_block(*pair) for pair in zip(shape, MOST, strict=True))
        blocks = dict.fromkeys(('block_q', 'block_q_dkv', 'block_q_dq'), q_block)
        blocks |= dict.fromkeys(('block_kv', 'block_kv_dkv', 'block_kv_dq'), k_block)
        kernel = splash.make_splash_mha(
            splash.MultiHeadMask([one] * q.shape[1]),
            block_sizes=splash.BlockSizes(**blocks),
            attn_logits_soft_cap=cap or None,
            head_shards=1,
            q_seq_shards=1,
        )
        return jax.vmap(kernel)(q, k, v, segments)

    if jax.sharding.get_abstract_mesh().size > 1:  # XLA cannot shard a kernel: each device has its rows and heads.
        rows = PartitionSpec(spec[0])
        on_device = jax.shard_map(on_device, in_specs=(spec, spec, spec, rows), out_specs=spec, check_vma=False)
    attended: Any = on_device
    return attended(_pad(q, 2), _pad(k, 2), _pad(v, 2), segments)[:, :, :l].swapaxes(1, 2)


def _pad(x, axis, value=0):
    return jnp.pad(x, [(0, -size % BLOCK if i == axis else 0) for i, size in enumerate(x.shape)], constant_values=value)


def _block(length, most):
    return next(size for size in range(most, 0, -BLOCK) if length % size == 0)


def _sharding(q, k, axes):
    """The spec of rows and heads on the current mesh; None if it does not divide them."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return PartitionSpec(None, None)
    spec: Any = nn.logical_to_mesh_axes(axes)
    rows, heads = (math.prod(mesh.shape[name] for name in jax.tree.leaves(axis)) for axis in spec)
    return None if q.shape[0] % rows or q.shape[2] % heads or k.shape[1] % heads else spec
