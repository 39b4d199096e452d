"""The frozen decoder-only language model of a Flamingo. Families differ by `LanguageModelConfig`.

The parameters are two trees: `embedder` (embeddings, final norm, output) and `blocks` (every block, stacked on a
leading axis 'layers' so that the depth can be scanned). It is the same tree whether the model stands alone or inside a
Flamingo.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from flamingo_jax.model import quantised
from flamingo_jax.model.attention import Mask, as_array, attend_to_parts
from flamingo_jax.model.config import LanguageModelConfig
from flamingo_jax.model.layers import FeedForward, Linear, Norm, constrain, product, spread, stored
from flamingo_jax.model.quantised import Quantised
from flamingo_jax.model.stack import put


class KeysValues(NamedTuple):
    """Self-attention keys and values of one block, or of all with a leading axis, in the layout of attention."""

    k: Float[Array, '*depth b g m k']
    v: Float[Array, '*depth b g m k']


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


def rotary_frequencies(c: LanguageModelConfig, window: Int[Array, ''] | int) -> Float[Array, 'half']:
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


class Embedder(nn.Module):
    """Everything of the language model outside its blocks: tokens -> y, and y -> logits."""

    config: LanguageModelConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        """Names the parameters."""
        c = self.config
        width = c.embedding_width or c.width
        init = nn.with_logical_partitioning(nn.initializers.normal(width**-0.5), ('vocab', 'embed'))
        self.tokens = stored(self, 'tokens', init, (c.vocab_size, width))
        if c.embedding_width:
            self.project_in = Linear((width, c.width), ('embed', 'projection'), dtype=self.dtype)
            self.project_out = Linear((c.width, width), ('embed', 'projection'), dtype=self.dtype)
        if c.positions == 'learned':
            init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ('positions', 'embed'))
            self.learned_positions = self.param('positions', init, (c.context, c.width))
        if c.norm_embeddings:
            self.norm_in = text_norm(c, self.dtype)
        if c.norm_place != 'sum':
            self.norm_out = text_norm(c, self.dtype)
        if not c.tied:
            # float32 logits: bfloat16 rounds values near 16 to multiples of 1/16, which changes probabilities by a
            # factor of 1.06.
            exact = dict(dtype=self.dtype, result_dtype=jnp.float32)
            self.output = Linear((width, c.vocab_size), ('embed', 'vocab'), **exact)

    def embed(self, tokens: Int[Array, 'b l']) -> Float[Array, 'b l d']:
        """Token embeddings (scaled by sqrt(d), or normed, if the config says so), without positions."""
        c = self.config
        if isinstance(self.tokens, Quantised):
            y = quantised.take(self.tokens, tokens, self.dtype)
        else:
            y = jnp.take(self.tokens, tokens, axis=0).astype(self.dtype)
        y = constrain(self.project_in(y) if c.embedding_width else y, 'batch', None, 'embed')
        y = y * c.width**0.5 if c.scale_embeddings else y
        return self.norm_in(y) if c.norm_embeddings else y

    def add_positions(self, y: Float[Array, 'b l d'], positions: Int[Array, 'b l']) -> Float[Array, 'b l d']:
        """Adds learned positions if the family has them. Other positions act in the attention."""
        if self.config.positions == 'learned':
            # Padding may lie past the context. By default its positions would be NaN, which even a weight of 0 spreads.
            y = y + jnp.take(self.learned_positions, positions, axis=0, mode='clip').astype(self.dtype)
        return y

    def normalise(self, y: Float[Array, 'b l d']) -> Float[Array, 'b l d']:
        """The final norm, if the family has one."""
        return y if self.config.norm_place == 'sum' else self.norm_out(y)

    def logits(self, y: Float[Array, 'b l d']) -> Float[Array, 'b l v']:
        """float32 logits of the normalised y; a tied output is the embedding's transpose."""
        y = self.project_out(y) if self.config.embedding_width else y
        if self.config.tied and isinstance(self.tokens, Quantised):
            return quantised.dot(y.reshape(-1, y.shape[-1]), self.tokens, jnp.float32).reshape(*y.shape[:-1], -1)
        if self.config.tied:
            return product('bld,vd->blv', y, self.tokens.astype(self.dtype))
        return self.output(y)

    def __call__(self, tokens: Int[Array, 'b l']) -> Float[Array, 'b l v']:
        """Touches every parameter, for `init`."""
        y = self.add_positions(self.embed(tokens), jnp.zeros_like(tokens))
        return self.logits(self.normalise(y))


def text_norm(c: LanguageModelConfig, dtype: DTypeLike, axis: str = 'embed', name: str | None = None) -> Norm:
    """The norm of this family."""
    return Norm(c.norm, c.norm_eps, axis, c.norm_bias, c.norm_offset, dtype, name=name)


def as_read(
    config: LanguageModelConfig, params: Mapping[str, Any], states: Float[Array, 'depth b d']
) -> Float[Array, 'depth b d']:
    """The text after every block, as what comes next reads it: the next block's attention, or the output.

    Args:
      params: of the language model.
      states: after each block (`Flamingo.states`).

    Returns:
      float32, after the next block's norm or the final one. Unchanged if the family norms sums: nothing is left to do.
    """
    if config.norm_place == 'sum':
        return states.astype(jnp.float32)
    each, last = params['blocks']['norm_attention'], params['embedder']['norm_out']
    norms = jax.tree.map(lambda each, last: jnp.concatenate([each[1:], last[None]]), each, last)
    return jax.vmap(lambda norm, x: text_norm(config, jnp.float32).apply({'params': norm}, x))(norms, states)


class Block(nn.Module):
    """One transformer block: self-attention, then feed-forward; both residual, by default both after a norm."""

    config: LanguageModelConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(
        self,
        y: Float[Array, 'b l d'],
        positions: Int[Array, 'b l'],
        mask: Mask,
        cache: KeysValues | None = None,
        index: Int[Array, '*b'] | int = 0,
        key_positions: Int[Array, 'b m'] | None = None,
        window: Int[Array, ''] | int = 0,
        shared: Sequence[KeysValues] = (),
    ) -> tuple[Float[Array, 'b l d'], KeysValues | None]:
        """The block.

        Args:
          y, positions: text and its positions.
          mask: which of the m keys each token may attend to; m = l without a cache.
          cache: keys and values of m places; those of y go to the l places from `index` on, of all rows or of each.
          key_positions: positions of the m places of a cache. Relative positions, ALiBi and windows need them, and are
            causal.
          window: how many tokens a token sees, itself included; 0 is all.
          shared: keys and values of earlier tokens, which come before the cache's among the m; several rows may share
            a row of them (`attend_to_parts`).

        Returns:
          The new y, and the new cache (None without one).
        """
        c = self.config
        norm_attention, norm_ffw = (text_norm(c, self.dtype, name=name) for name in ('norm_attention', 'norm_ffw'))
        x = y if c.norm_place == 'sum' else norm_attention(y)
        attended, cache = self._attention(
            x,
            positions,
            mask,
            cache=cache,
            index=index,
            key_positions=key_positions,
            window=window,
            shared=shared,
        )
        if c.norm_place == 'around':
            attended = text_norm(c, self.dtype, name='norm_attended')(attended)
        block_input, y = y, constrain(y + attended, 'batch', None, 'embed')
        if c.norm_place == 'sum':
            y = norm_attention(y)
        x = block_input if c.parallel else y
        x = x if c.norm_place == 'sum' else norm_ffw(x)
        fed = FeedForward(c.ffw_width, c.activation, c.gated_ffw, c.bias, dtype=self.dtype, name='ffw')(x)
        if c.norm_place == 'around':
            fed = text_norm(c, self.dtype, name='norm_fed')(fed)
        y = y + fed
        if c.norm_place == 'sum':
            y = norm_ffw(y)
        return constrain(y, 'batch', None, 'embed'), cache

    def _attention(self, x, positions, mask, cache, index, key_positions, window, shared):
        c = self.config
        axes, kv_axes = ('embed', 'heads', 'head_dim'), ('embed', 'kv_heads', 'head_dim')
        linear = dict(bias=c.bias or c.bias_qkv, dtype=self.dtype)
        q = Linear((c.width, c.heads, c.head_dim), axes, **linear, name='query')(x)
        k, v = (Linear((c.width, c.kv_heads, c.head_dim), kv_axes, **linear, name=n)(x) for n in ('key', 'value'))
        if c.clip_qkv:
            q, k, v = (jnp.clip(x, -c.clip_qkv, c.clip_qkv) for x in (q, k, v))
        if c.norm_query_key:
            q, k = self._norm_heads(q, 'norm_query', 'heads'), self._norm_heads(k, 'norm_key', 'kv_heads')

        bias = None
        if c.positions == 'rotary':
            frequency = rotary_frequencies(c, window)
            q, k = rotate(q, positions, frequency), rotate(k, positions, frequency)
        if c.positions == 'relative':
            q, bias = self._relative(q, positions, key_positions)
        if c.positions == 'alibi' or c.windows:
            distance = positions[:, :, None] - (positions if key_positions is None else key_positions)[:, None]
        if c.positions == 'alibi':
            bias = -alibi_slopes(c.heads, c.alibi_max)[:, None, None] * distance[:, None]
        if c.windows:
            mask = as_array(mask, *distance.shape[1:]) & ((distance < window) | (window == 0))

        k, v = (x.swapaxes(1, 2) for x in (k, v))
        if cache is not None:
            new = (x.astype(cache.k.dtype) for x in (k, v))
            cache = KeysValues(*(put(*pair, index, axis=-2) for pair in zip(cache, new, strict=True)))
            k, v = cache
        q = constrain(q, 'batch', None, 'heads', None)
        k, v = (constrain(x, 'batch', 'kv_heads', None, None) for x in (k, v))
        linear = dict(bias=c.bias or c.bias_out, dtype=self.dtype)
        out = Linear((c.heads, c.head_dim, c.width), axes[1:] + axes[:1], contracted=2, **linear, name='out')
        how = dict(scale=c.attention_scale, cap=c.attention_cap, kernel=self.kernel)
        return out(attend_to_parts(q, (*shared, (k, v)), mask, bias=bias, **how)), cache

    def _norm_heads(self, x, name, axis):
        """Normalises queries or keys [b l h k], each head by itself or all heads of a token together."""
        if self.config.norm_query_key == 'head':
            return text_norm(self.config, self.dtype, 'head_dim', name)(x)
        b, l, *heads = x.shape
        return text_norm(self.config, self.dtype, axis, name)(x.reshape(b, l, -1)).reshape(b, l, *heads)

    def _relative(self, q, positions, key_positions):
        """Transformer-XL (Dai et al. 2019, section 3.3): logit(i, j) = (q_i + u) . k_j + (q_i + v) . (W wave(i - j)).

        Returns q + u, and the second term, scaled, as attention's bias.
        """
        c = self.config
        init, axes = nn.initializers, ('embed', 'heads', 'head_dim')
        waves = nn.with_logical_partitioning(init.variance_scaling(1.0, 'fan_in', 'normal', 0, (1, 2)), axes)
        kernel = self.param('relative', waves, (c.width, c.heads, c.head_dim)).astype(self.dtype)
        zeros = nn.with_logical_partitioning(init.zeros, axes[1:])
        biases = (self.param(name, zeros, q.shape[2:]) for name in ('content_bias', 'relative_bias'))
        u, v = (spread(bias, q.shape, self.dtype) for bias in biases)
        scaled = (q + v) * c.head_dim**-0.5
        if key_positions is None:
            return q + u, relative_shift(by_distance(scaled, kernel, q.shape[1]))
        length = key_positions.shape[1]
        distance = jnp.clip(positions[:, :, None] - key_positions[:, None], 0, length - 1)
        return q + u, jnp.take_along_axis(by_distance(scaled, kernel, length), distance[:, None], axis=-1)
