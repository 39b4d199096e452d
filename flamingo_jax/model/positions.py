"""How a language model knows the order of its text: four kinds behind one signature.

Learned positions are added to the embedded text (`language_model.Embedder`). The others act in each attention:

    q, k, bias = KINDS[c.positions](block, q, k, positions, key_positions, window)

    block           the module whose config has the fields of the kind, and which owns its parameters
    q, k            queries [b l h k] and keys [b l g k] of the text
    positions       int32 [b l], of the text
    key_positions   int32 [b m], of the places of a cache, if the keys come from one; None: they are the text's
    window          how many tokens a token of this block sees; 0 is all
    bias            what is added to queries times keys, [b h l m] or broadcast to it; None is nothing
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flamingo_jax.model.layers import spread


def none(
    block: Any, q: Array, k: Array, positions: Array, key_positions: Array | None, window: Any
) -> tuple[Array, Array, Any]:
    """Nothing in the attention: learned positions are in the text already."""
    return q, k, None


def rotary(
    block: Any, q: Array, k: Array, positions: Array, key_positions: Array | None, window: Any
) -> tuple[Array, Array, Any]:
    """Rotary position embedding of queries and keys."""
    frequency = rotary_frequencies(block.config, window)
    return rotate(q, positions, frequency), rotate(k, positions, frequency), None


def alibi(
    block: Any, q: Array, k: Array, positions: Array, key_positions: Array | None, window: Any
) -> tuple[Array, Array, Any]:
    """Attention's loss per token of distance."""
    slopes = alibi_slopes(block.config.heads, block.config.alibi_max)
    return q, k, -slopes[:, None, None] * distances(positions, key_positions)[:, None]


def relative(
    block: Any, q: Array, k: Array, positions: Array, key_positions: Array | None, window: Any
) -> tuple[Array, Array, Any]:
    """Transformer-XL (Dai et al. 2019, section 3.3): logit(i, j) = (q_i + u) . k_j + (q_i + v) . (W wave(i - j)).

    The queries become q + u; the second term, scaled, is the bias.
    """
    c, init, axes = block.config, nn.initializers, ('embed', 'heads', 'head_dim')
    waves = nn.with_logical_partitioning(init.variance_scaling(1.0, 'fan_in', 'normal', 0, (1, 2)), axes)
    kernel = block.param('relative', waves, (c.width, c.heads, c.head_dim)).astype(block.dtype)
    zeros = nn.with_logical_partitioning(init.zeros, axes[1:])
    biases = (block.param(name, zeros, q.shape[2:]) for name in ('content_bias', 'relative_bias'))
    u, v = (spread(bias, q.shape, block.dtype) for bias in biases)
    scaled = (q + v) * c.head_dim**-0.5
    if key_positions is None:
        return q + u, k, relative_shift(by_distance(scaled, kernel, q.shape[1]))
    length = key_positions.shape[1]
    distance = jnp.clip(distances(positions, key_positions), 0, length - 1)
    return q + u, k, jnp.take_along_axis(by_distance(scaled, kernel, length), distance[:, None], axis=-1)


KINDS = dict(rotary=rotary, learned=none, alibi=alibi, relative=relative)


def distances(positions: Int[Array, 'b l'], key_positions: Int[Array, 'b m'] | None) -> Int[Array, 'b l m']:
    """How many tokens each key is before each query; negative behind it."""
    return positions[:, :, None] - (positions if key_positions is None else key_positions)[:, None]


def rotate(
    x: Float[Array, 'b l h k'], positions: Int[Array, 'b l'], frequency: Float[Array, 'half']
) -> Float[Array, 'b l h k']:
    """Rotary position embedding (Su et al. 2021), halves convention (GPT-NeoX, LLaMA), angles in float32.

    Dimension i rotates with dimension i + half; those beyond the first 2 * half do not rotate.
    """
    half = frequency.shape[0]
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    a, b = x[..., :half].astype(jnp.float32), x[..., half : 2 * half].astype(jnp.float32)
    turned = jnp.concatenate(
        [a * jnp.cos(angle) - b * jnp.sin(angle), b * jnp.cos(angle) + a * jnp.sin(angle)], axis=-1
    )
    return jnp.concatenate([turned.astype(x.dtype), x[..., 2 * half :]], axis=-1)


def rotary_frequencies(c: Any, window: Int[Array, ''] | int) -> Float[Array, 'half']:
    """Radians per position of each pair of dimensions, in a block with this window."""
    numbers = int(c.head_dim * c.rotary_share)
    exponent = np.arange(0, numbers, 2) / numbers
    frequency = c.rotary_base**-exponent
    share = 1.0  # Share of each frequency that is divided.
    if c.rotary_bands:
        low, high, context = c.rotary_bands
        share = np.clip((high - frequency * context / (2 * np.pi)) / (high - low), 0, 1)
    frequency = jnp.asarray(frequency * (1 - share + share / c.rotary_factor), jnp.float32)
    if c.rotary_local_base is None:
        return frequency
    return jnp.where(window > 0, jnp.asarray(c.rotary_local_base**-exponent, jnp.float32), frequency)


def alibi_slopes(heads: int, largest: float) -> Float[np.ndarray, '{heads}']:
    """The slopes of ALiBi, attention's loss per token of distance, of each head; at least 2 ** -largest.

    By Press, Smith and Lewis 2022. Geometric for 2 ** n heads. For fewer, every second slope of 2 ** n comes first,
    then those between.
    """
    full = 1 << (heads - 1).bit_length()
    slopes = 2.0 ** (-np.arange(1, full + 1) * largest / full)
    return (slopes if full == heads else np.concatenate([slopes[1::2], slopes[::2]])[:heads]).astype(np.float32)


def distance_waves(length: int, width: int) -> Float[Array, '{length} {width}']:
    """Sinusoids of the distances 0, 1, ... of Transformer-XL (Dai and others 2019): sines, then cosines; float32."""
    frequency = 10_000.0 ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angle = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def by_distance(
    q: Float[Array, 'b l h k'], kernel: Float[Array, 'd h k'], length: int
) -> Float[Array, 'b h l {length}']:
    """q . (kernel^T wave(distance)) for the distances 0 to length - 1, float32.

    The product is computed in the cheaper order: keys of distances first if many queries share them, as in training;
    queries first when decoding a token at a time.
    """
    (b, l, h, k), d = q.shape, kernel.shape[0]
    waves = distance_waves(length, d).astype(q.dtype)
    if length * h * k * (d + b * l) <= b * l * h * d * (k + length):
        keys = jnp.einsum('md,dhk->mhk', waves, kernel)
        return jnp.einsum('blhk,mhk->bhlm', q, keys, preferred_element_type=jnp.float32)
    q = jnp.einsum('blhk,dhk->blhd', q, kernel)
    return jnp.einsum('blhd,md->bhlm', q, waves, preferred_element_type=jnp.float32)


def relative_shift(x: Float[Array, 'b h l l']) -> Float[Array, 'b h l l']:
    """x [.., i, i - j] -> [.., i, j] for j <= i; values above the diagonal are meaningless.

    Pads a column and reshapes (Dai et al. 2019, appendix B). The TPU compiler takes many times as long for a gather
    that does the same.
    """
    b, h, l, _ = x.shape
    x = jnp.pad(x[..., ::-1], ((0, 0), (0, 0), (0, 0), (1, 0)))
    return x.reshape(b, h, l + 1, l)[:, :, 1:]
