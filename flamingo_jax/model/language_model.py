"""The frozen decoder-only language model of a Flamingo. Families differ by `LanguageModelConfig`.

The parameters are two trees: `embedder` (embeddings, final norm, output) and `blocks` (every block, stacked on a
leading axis 'layers' so that the depth can be scanned). It is the same tree whether the model stands alone or inside a
Flamingo.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from flamingo_jax.errors import UserError
from flamingo_jax.model import quantised
from flamingo_jax.model.attention import Mask, as_array, attend_to_parts
from flamingo_jax.model.component import check
from flamingo_jax.model.layers import ACTIVATIONS, NORMS, FeedForward, Linear, Norm, constrain, product, stored
from flamingo_jax.model.positions import KINDS, distances
from flamingo_jax.model.quantised import Quantised
from flamingo_jax.model.stack import put


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """A decoder-only language model; families differ by these fields."""

    vocab_size: int = 32_000
    width: int = 2048
    depth: int = 24
    heads: int = 16
    kv_heads: int = 16
    head_dim: int = 128
    ffw_width: int = 8192
    context: int = 2048  # The longest sequence, in tokens.
    norm: str = 'rms'  # 'rms' or 'layer'.
    norm_eps: float = 1e-5
    norm_bias: bool = True  # Whether layer norms have a bias.
    norm_offset: float = 0.0  # Added to the scales of the norms (Gemma: 1).
    norm_embeddings: bool = False  # Whether the embedded text is normed (BLOOM).
    # 'before' attention and feed-forward, or 'around' (their outputs are normed too: Gemma 2 and 3).
    norm_place: str = 'before'
    # '', 'head' (each head by itself: Qwen3, Gemma 3) or 'token' (all heads together: MPT-1B).
    norm_query_key: str = ''
    parallel: bool = False  # Whether attention and feed-forward both read the block's input (GPT-NeoX).
    activation: str = 'gelu_tanh'
    gated_ffw: bool = False  # Whether the feed-forward is gated (Shazeer 2020: LLaMA, Gemma).
    bias: bool = False  # Whether every linear map in the blocks has a bias.
    bias_qkv: bool = False  # Whether at least queries, keys and values have one (Qwen2).
    bias_out: bool = False  # Whether at least the attention's output has one.
    attention_scale: float | None = None  # Factor of queries times keys; None is head_dim ** -0.5.
    attention_cap: float = 0.0  # Soft bound of queries times keys (Gemma 2: 50); 0 is none.
    logit_cap: float = 0.0  # The same for the logits (Gemma 2: 30).
    clip_qkv: float = 0.0  # Queries, keys and values are clipped to +- this (some MPT); 0 does not.
    # 'rotary', 'learned', 'alibi' or 'relative' (Transformer-XL, as in Gopher and Chinchilla).
    positions: str = 'rotary'
    alibi_max: float = 8.0  # The smallest slope of ALiBi is 2 ** -alibi_max.
    rotary_base: float = 10_000.0
    rotary_share: float = 1.0  # Share of each head's dimensions that rotate (Pythia: a quarter).
    rotary_factor: float = 1.0  # Divides the frequencies: positions are interpolated (Chen et al. 2023).
    # (low, high, context): LLaMA 3.1 divides only frequencies with fewer than `low` turns in `context` tokens, none
    # with more than `high` turns, and interpolates in between. () divides all.
    rotary_bands: tuple[float, ...] = ()
    rotary_local_base: float | None = None  # Base in blocks with a window, which use no factor (Gemma 3).
    # For each block, how many tokens a token sees, itself included; 0 is all. () is all in every block.
    windows: tuple[int, ...] = ()
    tied: bool = True  # Whether the output is the transpose of the token embedding.
    # Whether embeddings are multiplied by sqrt(width) (Vaswani et al. 2017, Gemma). The paper does not say.
    scale_embeddings: bool = True

    def __post_init__(self):
        check(
            self,
            'lm.',
            'vocab_size width depth heads kv_heads head_dim ffw_width context',
            norm=NORMS,
            norm_place=('before', 'around'),
            norm_query_key=('', 'head', 'token'),
            activation=ACTIVATIONS,
            positions=KINDS,
        )
        if len(self.windows) not in (0, self.depth):
            raise UserError(
                f'{len(self.windows)} windows do not fit {self.depth} blocks. Give one window per block, or none.'
            )


class KeysValues(NamedTuple):
    """Self-attention keys and values of one block, or of all with a leading axis, in the layout of attention."""

    k: Float[Array, '*depth b g m k']
    v: Float[Array, '*depth b g m k']


class Run(NamedTuple):
    """The images that stand side by side, up to a token or before it."""

    first: Int[Array, 'b *l']  # The number of the first, 0 = none.
    open: Bool[Array, 'b *l']  # Whether the token is an image's, so that an image after it stands beside them.


class Placement(NamedTuple):
    """Where the tokens of a text stand, and what they may see."""

    positions: Int[Array, 'b l']
    mask: Mask  # Of the self-attention; the keys are the text's own, or the past's.
    phi: Int[Array, 'b l']  # Which image each token may see, 0 = none.
    document: Int[Array, 'b l'] | None = None  # Which document of its row each belongs to, if rows hold several.
    run: Run | None = None  # Which images each may see beside that, if the bridge shows several.


class Past(NamedTuple):
    """Self-attention keys and values of every block, or of one, of tokens before a text and of its own."""

    cache: KeysValues | None  # [depth b g p k]; None: nothing is kept.
    index: Int[Array, '*b'] | int = 0  # Where the text begins in them: in all rows, or in each.
    key_positions: Int[Array, 'b p'] | None = None  # Positions of all places, the shared ones' before the cache's.
    # Of earlier tokens, whose places come before the cache's: [depth c g p k]. b / c consecutive rows share one.
    shared: Sequence[KeysValues] = ()


class Embedder(nn.Module):
    """Everything of the language model outside its blocks: tokens -> y, and y -> logits."""

    config: LanguageModelConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Names the parameters."""
        c = self.config
        init = nn.with_logical_partitioning(nn.initializers.normal(c.width**-0.5), ('vocab', 'embed'))
        self.tokens = stored(self, 'tokens', init, (c.vocab_size, c.width))
        if c.positions == 'learned':
            init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ('positions', 'embed'))
            self.learned_positions = self.param('positions', init, (c.context, c.width))
        if c.norm_embeddings:
            self.norm_in = text_norm(c, self.dtype)
        self.norm_out = text_norm(c, self.dtype)
        if not c.tied:
            # float32 logits: bfloat16 rounds values near 16 to multiples of 1/16, which changes probabilities by a
            # factor of 1.06.
            exact: dict[str, Any] = dict(dtype=self.dtype, result_dtype=jnp.float32)
            self.output = Linear((c.width, c.vocab_size), ('embed', 'vocab'), **exact)

    def embed(self, tokens: Int[Array, 'b l']) -> Float[Array, 'b l d']:
        """Token embeddings (scaled by sqrt(d), or normed, if the config says so), without positions."""
        c = self.config
        if isinstance(self.tokens, Quantised):
            y = quantised.take(self.tokens, tokens, self.dtype)
        else:
            y = jnp.take(self.tokens, tokens, axis=0).astype(self.dtype)
        y = constrain(y, 'batch', None, 'embed')
        y = y * c.width**0.5 if c.scale_embeddings else y
        return self.norm_in(y) if c.norm_embeddings else y

    def add_positions(self, y: Float[Array, 'b l d'], positions: Int[Array, 'b l']) -> Float[Array, 'b l d']:
        """Adds learned positions if the family has them. Other positions act in the attention."""
        if self.config.positions == 'learned':
            # Padding may lie past the context. By default its positions would be NaN, which even a weight of 0 spreads.
            y = y + jnp.take(self.learned_positions, positions, axis=0, mode='clip').astype(self.dtype)
        return y

    def normalise(self, y: Float[Array, 'b l d']) -> Float[Array, 'b l d']:
        """The final norm."""
        return self.norm_out(y)

    def logits(self, y: Float[Array, 'b l d']) -> Float[Array, 'b l v']:
        """float32 logits of the normalised y; a tied output is the embedding's transpose."""
        if self.config.tied and isinstance(self.tokens, Quantised):
            return quantised.dot(y.reshape(-1, y.shape[-1]), self.tokens, jnp.float32).reshape(*y.shape[:-1], -1)
        if self.config.tied:
            return product('bld,vd->blv', y, cast(Array, self.tokens).astype(self.dtype))
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
      float32, after the next block's norm or the final one.
    """
    each, last = params['blocks']['norm_attention'], params['embedder']['norm_out']
    norms = jax.tree.map(lambda each, last: jnp.concatenate([each[1:], last[None]]), each, last)
    normed = jax.vmap(lambda norm, x: text_norm(config, jnp.float32).apply({'params': norm}, x))(norms, states)
    return cast(Array, normed)


class Block(nn.Module):
    """One transformer block: self-attention, then feed-forward; both residual, by default both after a norm."""

    config: LanguageModelConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(
        self,
        y: Float[Array, 'b l d'],
        at: Placement,
        past: Past | None = None,
        window: Int[Array, ''] | int = 0,
    ) -> tuple[Float[Array, 'b l d'], KeysValues | None]:
        """The block.

        Args:
          y, at: text, and where its tokens stand.
          past: what this block keeps of earlier tokens: the keys and values of y go to the l places from its `index`
            on. Relative positions, ALiBi and windows need its `key_positions`, and are causal.
          window: how many tokens a token sees, itself included; 0 is all.

        Returns:
          The new y, and the new cache (None without one).
        """
        c = self.config
        norm_attention, norm_ffw = (text_norm(c, self.dtype, name=name) for name in ('norm_attention', 'norm_ffw'))
        attended, cache = self._attention(norm_attention(y), at, past or Past(None), window)
        if c.norm_place == 'around':
            attended = text_norm(c, self.dtype, name='norm_attended')(attended)
        block_input, y = y, constrain(y + attended, 'batch', None, 'embed')
        x = norm_ffw(block_input if c.parallel else y)
        fed = FeedForward(c.ffw_width, c.activation, c.gated_ffw, c.bias, dtype=self.dtype, name='ffw')(x)
        if c.norm_place == 'around':
            fed = text_norm(c, self.dtype, name='norm_fed')(fed)
        return constrain(y + fed, 'batch', None, 'embed'), cache

    def _attention(self, x, at, past, window):
        c, mask, cache = self.config, at.mask, past.cache
        axes, kv_axes = ('embed', 'heads', 'head_dim'), ('embed', 'kv_heads', 'head_dim')
        linear: dict[str, Any] = dict(bias=c.bias or c.bias_qkv, dtype=self.dtype)
        q = Linear((c.width, c.heads, c.head_dim), axes, **linear, name='query')(x)
        k, v = (Linear((c.width, c.kv_heads, c.head_dim), kv_axes, **linear, name=n)(x) for n in ('key', 'value'))
        if c.clip_qkv:
            q, k, v = (jnp.clip(x, -c.clip_qkv, c.clip_qkv) for x in (q, k, v))
        if c.norm_query_key:
            q, k = self._norm_heads(q, 'norm_query', 'heads'), self._norm_heads(k, 'norm_key', 'kv_heads')

        q, k, bias = KINDS[c.positions](self, q, k, at.positions, past.key_positions, window)
        if c.windows:
            distance = distances(at.positions, past.key_positions)
            mask = as_array(mask, *distance.shape[1:]) & ((distance < window) | (window == 0))

        k, v = (x.swapaxes(1, 2) for x in (k, v))
        if cache is not None:
            new = (x.astype(cache.k.dtype) for x in (k, v))
            cache = KeysValues(*(put(*pair, past.index, axis=-2) for pair in zip(cache, new, strict=True)))
            k, v = cache
        q = constrain(q, 'batch', None, 'heads', None)
        k, v = (constrain(x, 'batch', 'kv_heads', None, None) for x in (k, v))
        linear: dict[str, Any] = dict(bias=c.bias or c.bias_out, dtype=self.dtype)
        out = Linear((c.heads, c.head_dim, c.width), axes[1:] + axes[:1], contracted=2, **linear, name='out')
        how = dict(scale=c.attention_scale, cap=c.attention_cap, kernel=self.kernel)
        return out(attend_to_parts(q, (*past.shared, (k, v)), mask, bias=bias, **how)), cache

    def _norm_heads(self, x, name, axis):
        """Normalises queries or keys [b l h k], each head by itself or all heads of a token together."""
        if self.config.norm_query_key == 'head':
            return text_norm(self.config, self.dtype, 'head_dim', name)(x)
        b, l, *heads = x.shape
        return text_norm(self.config, self.dtype, axis, name)(x.reshape(b, l, -1)).reshape(b, l, *heads)
