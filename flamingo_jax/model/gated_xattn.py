"""The GATED XATTN-DENSE block (paper, section 2.2, figure 4), inserted before blocks of the frozen language model.

    y = y + tanh(alpha_xattn) * attention(q = LN(y), kv = LN(media))      each token sees only the image phi(token)
    y = y + tanh(alpha_dense) * ffw(LN(y))

Both alphas start at 0 (`XattnConfig` may open them), so that a new Flamingo computes exactly what its language model
does. The ablation `gates=False` adds both branches directly. Keys and values share one layer norm (paper v1);
linear maps have no biases. OpenFlamingo and IDEFICS do not norm the media; IDEFICS has RMS norms, norms of queries and
keys, and a gated feed-forward: see `XattnConfig`. With `ffw_where_seen`, a token that may see no picture passes the
whole block unchanged, not only its cross-attention. With `norms_of_lm`, the norms are those of the language model.
"""

import functools
from collections.abc import Sequence
from typing import TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from flamingo_jax.model.attention import Mask, Segments, as_array, attend_to_parts
from flamingo_jax.model.config import LanguageModelConfig, XattnConfig
from flamingo_jax.model.language_model import text_norm
from flamingo_jax.model.layers import FeedForward, Linear, Norm, constrain, times

# Keys and values of the media, in one or several parts side by side.
Parts: TypeAlias = Sequence[tuple[Float[Array, '_ h _ k'], Float[Array, '_ h _ k']]]


def media_mask(
    phi: Int[Array, 'b l'], n: int, r: int, only_last_image: bool = True, document: Int[Array, 'b l'] | None = None
) -> Mask:
    """Which media tokens each text token may see (paper section 2.3).

    Args:
      phi: the number, from 1, of the one image that a token may see; 0 = none.
      n, r: the number of images, and of media tokens per image.
      only_last_image: False lets a token see the images 1 to phi: the ablation of table 10, row (ii).
      document: of a packed row, which document each token belongs to. It sees no picture of another.

    Returns:
      The mask. For two images of two tokens and a text with phi = 0 0 1 1 2 (# = may see; `attention.as_array` gives
      [b l n*r]):

          image  1 1 2 2
                 . . . .    before every image: nothing
                 . . . .
                 # # . .
                 # # . .
                 . . # #    `only_last_image=False` has # # # # here
    """
    image = jnp.repeat(jnp.arange(1, n + 1), r)
    if only_last_image:  # Which is always one of the token's own document.
        return Segments(phi, image[None])
    own, seen = phi[..., None] == image, phi[..., None] >= image
    if document is not None:
        of_image = jnp.where(own, document[..., None], 0).max(axis=1)
        seen &= document[..., None] == of_image[:, None]
    return seen


class GatedXattnDense(nn.Module):
    """One gated cross-attention and one gated feed-forward, at the language model's width d; the media have width e."""

    config: XattnConfig
    lm: LanguageModelConfig
    media_width: int
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    def setup(self):
        """Creates the parameters. Alphas are always float32, and scalars unless the config says vectors."""
        c, dtype = self.config, self.dtype
        shape, axes = (self.lm.width, c.heads, c.head_dim), ('heads', 'head_dim')
        norm = functools.partial(Norm, c.norm, c.norm_eps, dtype=dtype)
        if c.norms_of_lm:
            norm = functools.partial(text_norm, self.lm, dtype)
        self.norm_text, self.norm_ffw = norm(), norm()
        self.norms_branches = c.norms_of_lm and self.lm.norm_place == 'around'
        if self.norms_branches:
            self.norm_attended, self.norm_fed = norm(), norm()
        if c.norm_media:
            self.norm_media = Norm(axis='media', dtype=dtype)
        if c.qk_norms:
            self.norm_query, self.norm_key = (Norm('rms', c.norm_eps, 'head_dim', dtype=dtype) for _ in range(2))
        media_shape = (self.media_width, *shape[1:])
        self.query = Linear(shape, ('embed', *axes), dtype=dtype)
        self.key = Linear(media_shape, ('media', *axes), dtype=dtype)
        self.value = Linear(media_shape, ('media', *axes), dtype=dtype)
        self.out = Linear(shape[1:] + shape[:1], (*axes, 'embed'), contracted=2, dtype=dtype)
        self.ffw = FeedForward(c.ffw_width or c.ffw_multiplier * self.lm.width, c.activation, c.gated_ffw, dtype=dtype)
        if not c.gates:
            return
        alpha_shape, alpha_axes = ((self.lm.width,), ('embed',)) if c.vector_alphas else ((), ())

        def gate(value):
            return nn.with_logical_partitioning(nn.initializers.constant(value), alpha_axes)

        self.alpha_xattn = self.param('alpha_xattn', gate(c.initial_alpha), alpha_shape)
        self.alpha_dense = self.param('alpha_dense', gate(c.initial_alpha_dense), alpha_shape)

    def keys_values(self, media: Float[Array, 'b m e']) -> Parts:
        """The block's keys and values of the media. They do not depend on the text, so decoding computes them once."""
        if self.config.norm_media:
            media = self.norm_media(media)
        key, value = self.key(media), self.value(media)
        if self.config.qk_norms:
            key = self.norm_key(key)
        return (tuple(constrain(x.swapaxes(1, 2), 'batch', 'heads', None, None) for x in (key, value)),)

    def __call__(
        self,
        y: Float[Array, 'b l d'],
        keys_values: Parts,
        mask: Mask,
    ) -> Float[Array, 'b l d']:
        """The gated block.

        Args:
          y: text.
          keys_values: from `keys_values`, of the same rows, or in several parts side by side: those of a beginning that
            prompts share, and their own. The rows of a part may be fewer: then consecutive rows of y (the beams or the
            candidates of one prompt) share a row, which is not repeated.
          mask: from `media_mask`; a token whose row is empty passes the cross-attention unchanged, and with
            `ffw_where_seen` the feed-forward too.

        Returns:
          y, changed by both gated residual branches.
        """
        q = self.query(self.norm_text(y))
        if self.config.qk_norms:
            q = self.norm_query(q)
        q = constrain(q, 'batch', None, 'heads', None)
        attended = self.out(attend_to_parts(q, keys_values, mask, kernel=self.kernel))
        if self.norms_branches:
            attended = self.norm_attended(attended)
        if self.config.gates:
            attended = times(attended, jnp.tanh(self.alpha_xattn))
        y = constrain(y + attended, 'batch', None, 'embed')
        fed = self.ffw(self.norm_ffw(y))
        if self.norms_branches:
            fed = self.norm_fed(fed)
        if self.config.gates:
            fed = times(fed, jnp.tanh(self.alpha_dense))
        if self.config.ffw_where_seen:
            m = sum(key.shape[2] for key, _ in keys_values)
            fed = jnp.where(as_array(mask, y.shape[1], m).any(axis=-1, keepdims=True), fed, 0)
        return constrain(y + fed, 'batch', None, 'embed')
