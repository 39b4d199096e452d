"""The decoder-only language model that is frozen inside a Flamingo: one decoder, families differ by `LanguageModelConfig`.

The parameters are two trees: `embedder` (embeddings, final norm, output) and `blocks` (every block, stacked on a leading
axis 'layers' so that the depth can be scanned). It is the same tree whether the model stands alone or inside a Flamingo.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from flamingo_jax.model.attention import attend
from flamingo_jax.model.config import LanguageModelConfig
from flamingo_jax.model.layers import FeedForward, Linear, Norm, constrain


class KeysValues(NamedTuple):
    """Self-attention keys and values of one block, or of all blocks with a leading axis."""

    k: Float[Array, '*depth b m g k']
    v: Float[Array, '*depth b m g k']


def rotate(x: Float[Array, 'b l h k'], positions: Int[Array, 'b l'], base: float) -> Float[Array, 'b l h k']:
    """Rotary position embedding (Su et al. 2021), halves convention (GPT-NeoX, LLaMA), angles in float32."""
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    out = jnp.concatenate([a * jnp.cos(angle) - b * jnp.sin(angle), b * jnp.cos(angle) + a * jnp.sin(angle)], axis=-1)
    return out.astype(x.dtype)


def distance_waves(length: int, width: int) -> Float[Array, '{length} {width}']:
    """Sinusoids of the distances 0, 1, ... (Dai et al. 2019, after Vaswani et al. 2017): sines, then cosines; float32."""
    frequency = 10_000.0 ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angle = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def by_distance(
    q: Float[Array, 'b l h k'], kernel: Float[Array, 'd h k'], length: int
) -> Float[Array, 'b h l {length}']:
    """q . (kernel^T wave(distance)) for the distances 0 to length - 1, float32.

    The product is taken in the cheaper order: keys of the distances first where many queries share them, as in training;
    queries first where a token at a time is decoded.
    """
    (b, l, h, k), d = q.shape, kernel.shape[0]
    waves = distance_waves(length, d).astype(q.dtype)
    if length * h * k * (d + b * l) <= b * l * h * d * (k + length):
        keys = jnp.einsum('md,dhk->mhk', waves, kernel)
        return jnp.einsum('blhk,mhk->bhlm', q, keys, preferred_element_type=jnp.float32)
    q = jnp.einsum('blhk,dhk->blhd', q, kernel)
    return jnp.einsum('blhd,md->bhlm', q, waves, preferred_element_type=jnp.float32)


def relative_shift(x: Float[Array, 'b h l l']) -> Float[Array, 'b h l l']:
    """x [.., i, i - j] -> [.., i, j] where j <= i; what stands above the diagonal means nothing.

    Padded by a column and read again in rows of another length (Dai et al. 2019, appendix B): a gather that does the same
    takes the TPU compiler many times as long.
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
        init = nn.with_logical_partitioning(nn.initializers.normal(c.width**-0.5), ('vocab', 'embed'))
        self.tokens = self.param('tokens', init, (c.vocab_size, c.width))
        if c.positions == 'learned':
            init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ('positions', 'embed'))
            self.learned_positions = self.param('positions', init, (c.context, c.width))
        self.norm_out = Norm(c.norm, c.norm_eps, dtype=self.dtype)
        if not c.tied:
            self.output = Linear((c.width, c.vocab_size), ('embed', 'vocab'), dtype=self.dtype)

    def embed(self, tokens: Int[Array, 'b l']) -> Float[Array, 'b l d']:
        """Token embeddings (scaled by sqrt(d) if the config says so), without positions."""
        y = constrain(jnp.take(self.tokens, tokens, axis=0).astype(self.dtype), 'batch', None, 'embed')
        return y * self.config.width**0.5 if self.config.scale_embeddings else y

    def add_positions(self, y: Float[Array, 'b l d'], positions: Int[Array, 'b l']) -> Float[Array, 'b l d']:
        """Adds learned positions, where the family has them; the others act inside the attention."""
        if self.config.positions == 'learned':
            y = y + jnp.take(self.learned_positions, positions, axis=0).astype(self.dtype)
        return y

    def normalise(self, y: Float[Array, 'b l d']) -> Float[Array, 'b l d']:
        """The final norm."""
        return self.norm_out(y)

    def logits(self, y: Float[Array, 'b l d']) -> Float[Array, 'b l v']:
        """float32 logits of the normalised y; a tied output is the embedding's transpose."""
        if self.config.tied:
            return jnp.einsum('bld,vd->blv', y, self.tokens.astype(self.dtype), preferred_element_type=jnp.float32)
        return self.output(y).astype(jnp.float32)

    def __call__(self, tokens: Int[Array, 'b l']) -> Float[Array, 'b l v']:
        """Touches every parameter, for `init`."""
        y = self.add_positions(self.embed(tokens), jnp.zeros_like(tokens))
        return self.logits(self.normalise(y))


class Block(nn.Module):
    """One pre-norm transformer block: self-attention, then feed-forward; both residual."""

    config: LanguageModelConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        y: Float[Array, 'b l d'],
        positions: Int[Array, 'b l'],
        mask: Bool[Array, '#b l m'],
        cache: KeysValues | None = None,
        index: Int[Array, ''] | int = 0,
        key_positions: Int[Array, 'b m'] | None = None,
    ) -> tuple[Float[Array, 'b l d'], KeysValues | None]:
        """The block.

        Args:
          y, positions: text and its positions.
          mask: which of the m keys each token may attend to; m = l without a cache.
          cache: keys and values of m places; those of y are written at `index` to `index` + l before attending.
          key_positions: of the m places of a cache; relative positions need them, and are causal.

        Returns:
          The new y, and the new cache (None without one).
        """
        c = self.config
        linear = dict(bias=c.bias, dtype=self.dtype)
        axes = ('embed', 'heads', 'head_dim')
        x = Norm(c.norm, c.norm_eps, dtype=self.dtype, name='norm_attention')(y)
        q = Linear((c.width, c.heads, c.head_dim), axes, **linear, name='query')(x)
        kv = dict(shape=(c.width, c.kv_heads, c.head_dim), axes=('embed', 'kv_heads', 'head_dim'), **linear)
        k = Linear(**kv, name='key')(x)
        v = Linear(**kv, name='value')(x)
        if c.positions == 'rotary':
            q, k = rotate(q, positions, c.rotary_base), rotate(k, positions, c.rotary_base)
        bias = None
        if c.positions == 'relative':
            q, bias = self._relative(q, positions, key_positions)
        if cache is not None:
            start = (0, index, 0, 0)
            k = jax.lax.dynamic_update_slice(cache.k, k.astype(cache.k.dtype), start)
            v = jax.lax.dynamic_update_slice(cache.v, v.astype(cache.v.dtype), start)
            cache = KeysValues(k, v)
        out = Linear((c.heads, c.head_dim, c.width), axes[1:] + axes[:1], contracted=2, **linear, name='out')
        q = constrain(q, 'batch', None, 'heads', None)
        k, v = (constrain(x, 'batch', None, 'kv_heads', None) for x in (k, v))
        y = constrain(y + out(attend(q, k, v, mask, bias)), 'batch', None, 'embed')
        ffw = FeedForward(c.ffw_width, c.activation, c.gated_ffw, c.bias, dtype=self.dtype, name='ffw')
        y = y + ffw(Norm(c.norm, c.norm_eps, dtype=self.dtype, name='norm_ffw')(y))
        return constrain(y, 'batch', None, 'embed'), cache

    def _relative(self, q, positions, key_positions):
        """Transformer-XL (Dai et al. 2019, section 3.3): logit(i, j) = (q_i + u) . k_j + (q_i + v) . (W wave(i - j)).

        Returns q + u, and the second term, scaled, as attention's bias.
        """
        c = self.config
        init, axes = nn.initializers, ('embed', 'heads', 'head_dim')
        waves = nn.with_logical_partitioning(init.variance_scaling(1.0, 'fan_in', 'normal', 0, (1, 2)), axes)
        kernel = self.param('relative', waves, (c.width, c.heads, c.head_dim)).astype(self.dtype)
        zeros = nn.with_logical_partitioning(init.zeros, axes[1:])
        u, v = (self.param(name, zeros, q.shape[2:]).astype(self.dtype) for name in ('content_bias', 'relative_bias'))
        scaled = (q + v) * c.head_dim**-0.5
        if key_positions is None:
            return q + u, relative_shift(by_distance(scaled, kernel, q.shape[1]))
        length = key_positions.shape[1]
        distance = jnp.clip(positions[:, :, None] - key_positions[:, None], 0, length - 1)
        return q + u, jnp.take_along_axis(by_distance(scaled, kernel, length), distance[:, None], axis=-1)
