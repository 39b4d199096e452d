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
from jaxtyping import Array, Bool, Float

from flamingo_jax.model.config import XattnConfig
from flamingo_jax.model.layers import Norm


class Prefix(nn.Module):
    """Puts the media tokens into the embedded text. It is called as a gated block is, before the first block alone."""

    config: XattnConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        """Creates the parameters: a norm, and the size of a soft word, tanh(alpha)."""
        self.norm_media = Norm('rms', self.config.norm_eps, dtype=self.dtype)
        alpha = nn.with_logical_partitioning(nn.initializers.constant(self.config.initial_alpha), ())
        self.alpha_xattn = self.param('alpha_xattn', alpha, ())

    def keys_values(self, media: Float[Array, 'b m d']) -> tuple[Float[Array, 'b 1 m d'], Float[Array, 'b 1 m 0']]:
        """The soft words, in the form of a gated block's keys and values: one head, and no values."""
        words = jnp.tanh(self.alpha_xattn).astype(self.dtype) * self.norm_media(media)
        return words[:, None], words[:, None, :, :0]

    def __call__(
        self,
        y: Float[Array, 'b l d'],
        keys_values: tuple[Float[Array, 'c 1 m d'], Float[Array, 'c 1 m 0']],
        mask: Bool[Array, 'b l m'],
    ) -> Float[Array, 'b l d']:
        """The text, in which the j-th token that sees a picture is its j-th soft word.

        Args:
          y: embedded text. Its batch b may be a multiple of c, as for a gated block.
          keys_values: from `keys_values`.
          mask: from `media_mask`. Only the r tokens of a picture's tag may see it (`XattnConfig.only_at_tag`), and all
            of them must be in y.
        """
        words = keys_values[0][:, 0]
        shape, c = y.shape, words.shape[0]
        y, mask = y.reshape(c, -1, *shape[1:]), mask.reshape(c, -1, *mask.shape[1:])
        # The token's place in its tag: how many before it see the same picture.
        first = jnp.argmax(mask, axis=-1)
        seen = mask.any(axis=-1)
        same = (first[..., :, None] == first[..., None, :]) & seen[..., None, :]
        place = first + jnp.tril(same, -1).sum(axis=-1)
        word = jnp.take_along_axis(words[:, None], place[..., None], axis=2)
        return jnp.where(seen[..., None], word, y).reshape(shape)

    def touch(
        self, y: Float[Array, 'b l d'], media: Float[Array, 'b m d'], mask: Bool[Array, 'b l m']
    ) -> Float[Array, 'b l d']:
        """Uses every parameter, for `init`."""
        return self(y, self.keys_values(media), mask)
