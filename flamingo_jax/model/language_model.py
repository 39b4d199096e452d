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
from flamingo_jax.model.layers import FeedForward, Linear, Norm


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
        y = jnp.take(self.tokens, tokens, axis=0).astype(self.dtype)
        return y * self.config.width**0.5 if self.config.scale_embeddings else y

    def add_positions(self, y: Float[Array, 'b l d'], positions: Int[Array, 'b l']) -> Float[Array, 'b l d']:
        """Adds learned positions, where the family has them; rotary ones act inside the attention."""
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
    ) -> tuple[Float[Array, 'b l d'], KeysValues | None]:
        """The block.

        Args:
          y, positions: text and its positions.
          mask: which of the m keys each token may attend to; m = l without a cache.
          cache: keys and values of m places; those of y are written at `index` to `index` + l before attending.

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
        if cache is not None:
            start = (0, index, 0, 0)
            k = jax.lax.dynamic_update_slice(cache.k, k.astype(cache.k.dtype), start)
            v = jax.lax.dynamic_update_slice(cache.v, v.astype(cache.v.dtype), start)
            cache = KeysValues(k, v)
        out = Linear((c.heads, c.head_dim, c.width), axes[1:] + axes[:1], contracted=2, **linear, name='out')
        y = y + out(attend(q, k, v, mask))
        ffw = FeedForward(c.ffw_width, c.activation, c.gated_ffw, c.bias, dtype=self.dtype, name='ffw')
        return y + ffw(Norm(c.norm, c.norm_eps, dtype=self.dtype, name='norm_ffw')(y)), cache
