"""A visual prefix in place of gated cross-attention: an image's media tokens stand in the text as soft words.

    text    A <image 1> <image 2> ... <image r> cat     r tokens of a tag, r media tokens of its image
    y       e   media 1   media 2  ...   media r  e     e: the language model's own embeddings

This is how LLaVA (Liu et al. 2023) and BLIP-2 (Li et al. 2023) show images to a language model; a norm and a gate are
ours. It is here to be measured beside the paper's bridge. The language model's own attention reads the soft words, so
that they cost r places of text in every block.
"""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.errors import UserError
from flamingo_jax.model.attention import Mask, as_array
from flamingo_jax.model.bridges.bridge import Bridge, BridgeConfig, Parts
from flamingo_jax.model.language_model import LanguageModelConfig
from flamingo_jax.model.layers import Norm, times

if TYPE_CHECKING:
    from flamingo_jax.model.config import FlamingoConfig


@dataclasses.dataclass(frozen=True)
class GatedPrefixConfig(BridgeConfig):
    """Before the first block alone. The model's tag has one token for each media token."""

    kind = 'gated_prefix'
    at_tag: ClassVar[bool] = True
    takes_places: ClassVar[bool] = True
    acts_on_text: ClassVar[bool] = False
    attends: ClassVar[bool] = False
    first: ClassVar[int] = 0
    every: ClassVar[int] = 2**30  # Deeper than any model.
    initial_alpha: float = 0.0  # The size of a soft word is tanh(alpha).
    norm_eps: float = 1e-5

    def check(self, model: 'FlamingoConfig') -> None:
        """See `BridgeConfig.check`."""
        if model.media_width != model.lm.width:
            raise UserError(
                f'A prefix needs media tokens of the width of the language model, {model.lm.width}, not '
                f'{model.media_width}. Add a resampler that projects.'
            )
        if len(model.image_tag) != model.media_tokens:
            raise UserError(
                f'A prefix needs a tag of {model.media_tokens} tokens, one for each media token, but image_tag has '
                f'{len(model.image_tag)}.'
            )

    def module(
        self, lm: LanguageModelConfig, media_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain'
    ) -> 'GatedPrefix':
        """See `BridgeConfig.module`."""
        return GatedPrefix(self, dtype)


class GatedPrefix(Bridge):
    """Puts the media tokens into the embedded text."""

    config: GatedPrefixConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the parameters: a norm, and the size of a soft word, tanh(alpha)."""
        self.norm_media = Norm('rms', self.config.norm_eps, dtype=self.dtype)
        alpha = nn.with_logical_partitioning(nn.initializers.constant(self.config.initial_alpha), ())
        self.alpha_xattn = self.param('alpha_xattn', alpha, ())

    def keys_values(self, media: Float[Array, 'b m d']) -> Parts:
        """The soft words, in the form of a gated block's keys and values: one head, with the words as both."""
        words = times(self.norm_media(media), jnp.tanh(self.alpha_xattn))
        return ((words[:, None], words[:, None]),)

    def __call__(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """The text, in which the j-th token that sees an image is its j-th soft word.

        Only the tokens of an image's tag see it, and all r of them must be in y.
        """
        b = len(y)
        words = jnp.concatenate([jnp.repeat(key[:, 0], b // len(key), axis=0) for key, _ in keys_values], axis=1)
        mask = as_array(mask, y.shape[1], words.shape[1])
        # The token's place in its tag: how many before it see the same image.
        first, seen = jnp.argmax(mask, axis=-1), mask.any(axis=-1)
        same = (first[:, :, None] == first[:, None]) & seen[:, None]
        place = first + jnp.tril(same, -1).sum(axis=-1)
        return jnp.where(seen[..., None], jnp.take_along_axis(words, place[..., None], axis=1), y)
