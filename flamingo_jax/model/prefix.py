"""A visual prefix in place of gated cross-attention: a picture's media tokens stand in the text as soft words.

    text    A <image 1> <image 2> ... <image r> cat     r tokens of a tag, r media tokens of its picture
    y       e   media 1   media 2  ...   media r  e     e: the language model's own embeddings

This is how LLaVA (Liu et al. 2023) and BLIP-2 (Li et al. 2023) show pictures to a language model. It is here to be
measured beside the paper's bridge (`XattnConfig.prefix`). The language model's own attention reads the soft words, so
that they cost r places of text in every block.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.attention import Mask, as_array
from flamingo_jax.model.config import XattnConfig
from flamingo_jax.model.gated_xattn import Parts
from flamingo_jax.model.layers import Norm, times


class Prefix(nn.Module):
    """Puts the media tokens into the embedded text. It is called as a gated block is, before the first block alone."""

    config: XattnConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        """Creates the parameters: a norm, and the size of a soft word, tanh(alpha)."""
        self.norm_media = Norm('rms', self.config.norm_eps, dtype=self.dtype)
        alpha = nn.with_logical_partitioning(nn.initializers.constant(self.config.initial_alpha), ())
        self.alpha_xattn = self.param('alpha_xattn', alpha, ())

    def keys_values(self, media: Float[Array, 'b m d']) -> Parts:
        """The soft words, in the form of a gated block's keys and values: one head, with the words as both."""
        words = times(self.norm_media(media), jnp.tanh(self.alpha_xattn))
        return ((words[:, None], words[:, None]),)

    def __call__(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """The text, in which the j-th token that sees a picture is its j-th soft word.

        Args:
          y: embedded text.
          keys_values: from `keys_values`, in one or several parts, as for a gated block.
          mask: from `media_mask`. Only the r tokens of a picture's tag may see it (`XattnConfig.only_at_tag`), and all
            of them must be in y.
        """
        b = len(y)
        words = jnp.concatenate([jnp.repeat(key[:, 0], b // len(key), axis=0) for key, _ in keys_values], axis=1)
        mask = as_array(mask, y.shape[1], words.shape[1])
        # The token's place in its tag: how many before it see the same picture.
        first, seen = jnp.argmax(mask, axis=-1), mask.any(axis=-1)
        same = (first[:, :, None] == first[:, None]) & seen[:, None]
        place = first + jnp.tril(same, -1).sum(axis=-1)
        return jnp.where(seen[..., None], jnp.take_along_axis(words, place[..., None], axis=1), y)
