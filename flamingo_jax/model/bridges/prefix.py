"""A visual prefix, as LLaVA (Liu et al. 2023) has it: an image's media tokens stand in the text as soft words.

    text    A <image> <image> ... <image> cat           r places, r media tokens of their image
    y       e   media 1 media 2 ...  media r  e         e: the language model's own embeddings

It has no parameters. The language model's own attention reads the soft words, so that they cost r places of text in
every block, and nothing else is kept of an image.
"""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.errors import UserError
from flamingo_jax.model.attention import Mask, as_array
from flamingo_jax.model.bridges.bridge import Bridge, BridgeConfig, Parts
from flamingo_jax.model.language_model import LanguageModelConfig

if TYPE_CHECKING:
    from flamingo_jax.model.config import FlamingoConfig


@dataclasses.dataclass(frozen=True)
class PrefixConfig(BridgeConfig):
    """Before the first block alone. The model's tag has one token for each media token."""

    kind = 'prefix'
    at_tag: ClassVar[bool] = True
    takes_places: ClassVar[bool] = True
    acts_on_text: ClassVar[bool] = False
    attends: ClassVar[bool] = False
    first: ClassVar[int] = 0
    every: ClassVar[int] = 2**30  # Deeper than any model.
    # Whether a soft word has the position of its place added, in a language model with learned ones (BLIP-2).
    with_positions: bool = False

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
    ) -> 'Prefix':
        """See `BridgeConfig.module`."""
        return Prefix(self)


class Prefix(Bridge):
    """Puts the media tokens into the embedded text."""

    config: PrefixConfig

    def words(self, media: Float[Array, 'b m d']) -> Float[Array, 'b m d']:
        """The soft words."""
        return media

    def keys_values(self, media: Float[Array, 'b m d']) -> Parts:
        """The soft words, in the form of a gated block's keys and values: one head, with the words as both."""
        words = self.words(media)[:, None]
        return ((words, words),)

    def __call__(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """The text, in which the j-th token that sees an image is its j-th soft word.

        Only the tokens of an image's tag see it, side by side, and all r of them must be in y.
        """
        b, l = y.shape[:2]
        words = jnp.concatenate([jnp.repeat(key[:, 0], b // key.shape[0], axis=0) for key, _ in keys_values], axis=1)
        mask = as_array(mask, l, words.shape[1])
        # The token's place in its tag: how many before it see the same image.
        first, seen = jnp.argmax(mask, axis=-1), mask.any(axis=-1)
        begins = jnp.diff(jnp.where(seen, first, -1), axis=1, prepend=-1) != 0
        number = jnp.arange(l)
        place = first + number - jax.lax.cummax(jnp.where(begins, number, 0), axis=1)
        place = jnp.where(seen, place, 0)
        found = jnp.take_along_axis(words, place[..., None], axis=1)
        return jnp.where(seen[..., None], found + y if self.config.with_positions else found, y)
