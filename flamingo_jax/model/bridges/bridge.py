"""What every bridge is: the way from an image's media tokens into the text of the frozen language model.

A bridge is a config and a module in one file of this folder. `flamingo.py` asks it four questions:

    what stands for an image in the text?         `check` says what the model's image tag must be
    which text may see an image?                  `restricted` and `seen`, by `at_tag` and `only_last_image`
    what of an image is kept for decoding?        the module's `keys_values`
    before which blocks does it act, and how?     `first`, `every`, and the module's `__call__`
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from flamingo_jax.errors import UserError
from flamingo_jax.model.attention import Mask, Segments
from flamingo_jax.model.component import Component, build, find
from flamingo_jax.model.language_model import Run

if TYPE_CHECKING:
    from flamingo_jax.model.config import FlamingoConfig
    from flamingo_jax.model.language_model import LanguageModelConfig, Placement

# Keys and values of the media, in one or several parts side by side.
Parts: TypeAlias = Sequence[tuple[Float[Array, '_ h _ k'], Float[Array, '_ h _ k']]]


class Media(NamedTuple):
    """What the text can attend to: the media tokens, or their keys and values in every gated block."""

    tokens: Float[Array, 'b m e'] | None  # e: `FlamingoConfig.media_width`.
    # Parts side by side, as a gated block takes them, each [x c h n k] over the x gated blocks; None: computed in each
    # block.
    keys_values: Any
    # Which of the tokens there are, in as many parts, where images differ in their number; None: all.
    real: tuple[Bool[Array, 'c _ 1'], ...] | None = None

    @property
    def rows(self) -> int:
        """The number of rows of media. Each may serve several rows of text, one after the other."""
        return self.tokens.shape[0] if self.keys_values is None else jax.tree.leaves(self.keys_values)[0].shape[-4]

    @property
    def length(self) -> int:
        """m, the number of media tokens per row."""
        if self.keys_values is None:
            return self.tokens.shape[1]
        return sum(jax.tree.leaves(part)[0].shape[-2] for part in self.keys_values)

    def beside(self, other: 'Media') -> 'Media':
        """The parts of both, these first."""
        real = None if self.real is None else (*self.real, *(other.real or ()))
        return Media(None, (*self.keys_values, *other.keys_values), real)


@dataclasses.dataclass(frozen=True)
class BridgeConfig(Component):
    """What every kind has."""

    # Each kind has these as fields: it acts before the blocks first, first + every, ...
    first: ClassVar[int]
    every: ClassVar[int]

    at_tag: ClassVar[bool] = False  # Whether only the tokens of an image's tag see it.
    only_last_image: ClassVar[bool] = True  # Whether a token sees the last image before it, or all of them.
    together: ClassVar[bool] = False  # Whether it sees those that stand side by side with the last.
    takes_places: ClassVar[bool] = False  # Whether an image's tag has a token for each of its media tokens.
    with_positions: ClassVar[bool] = False  # Whether an image's tag is embedded as its positions alone.
    acts_on_text: ClassVar[bool] = True  # Whether text is changed that sees no image.
    attends: ClassVar[bool] = True  # Whether there is cross-attention, whose weights can be looked at.
    heads: ClassVar[int] = 0  # Of its attention, if it has one.
    head_dim: ClassVar[int] = 0

    def blocks(self, depth: int) -> int:
        """How often it acts in a language model of so many blocks."""
        return -(-(depth - self.first) // self.every)

    def check(self, model: 'FlamingoConfig') -> None:
        """UserError if it does not fit the other parts of the model."""
        if not 0 <= self.first < model.lm.depth:
            raise UserError(
                f'xattn.first is {self.first}, but there are only {model.lm.depth} blocks. It must be below the depth.'
            )

    def restricted(self, phi: Int[Array, 'b l'], begins: Bool[Array, 'b l'], length: int) -> Int[Array, 'b l']:
        """phi, the image that each token may see; 0 but in the tags if only they see images (`at_tag`).

        begins, length: where a tag begins, and how many tokens it has.
        """
        if not self.at_tag:
            return phi
        number = jnp.arange(phi.shape[1])
        begun = jax.lax.cummax(jnp.where(begins, number, -length), axis=1)
        return jnp.where(number < begun + length, phi, 0)

    def run(
        self, tokens: Int[Array, 'b l'], tag: tuple[int, ...], phi: Int[Array, 'b l'], before: Run | None = None
    ) -> Run | None:
        """The images side by side, for each token; None if the text sees one image, or all (`together`).

        Args:
          tokens: negative on padding.
          tag: of an image, of one token.
          phi: the number of images up to each token.
          before: of the last token before these, [b].
        """
        return runs(tokens, tags(tokens, tag), phi, before) if self.together else None

    def real(self, tokens: Float[Array, 'b m e']) -> tuple[Bool[Array, 'b m 1'], ...] | None:
        """Which of the media tokens there are, for `Media`; None: all."""
        return None

    def seen(self, at: 'Placement', media: Media, r: int) -> Mask:
        """Which media tokens, r of each image, each token of a text may see."""
        n = media.length // r
        if self.only_last_image:
            return media_mask(at.phi, n, r)
        rows = media.rows, -1  # Rows that share their media (lines, beams) are seen as one row.
        document = None if at.document is None else at.document.reshape(rows)
        seen: Any = media_mask(at.phi.reshape(rows), n, r, only_last_image=False, document=document)
        return seen.reshape(*at.phi.shape, media.length)

    def module(
        self, lm: 'LanguageModelConfig', media_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain'
    ) -> 'Bridge':
        """What acts before each of the blocks."""
        raise NotImplementedError

    def begin(self, xattn: dict[str, Any], blocks: dict[str, Any]) -> dict[str, Any]:
        """New parameters at the first step of a training: `xattn`, or what follows from the language model's blocks."""
        return xattn

    def hidden(self, width: int) -> int:
        """Hidden units of its feed-forward, in a language model of this width; 0 if it has none."""
        return 0

    def operations(self, width: int, l: int | float, m: int | float) -> tuple[int | float, int | float, int | float]:
        """Floating-point operations before one block, of l tokens that see m media tokens each.

        Returns:
          Products with weights, those of attention, and of the first those whose result no gradient needs.
        """
        return 0, 0, 0

    def operations_of_media(self, media_width: int, m: int | float) -> int | float:
        """Floating-point operations before one block that depend on m media tokens alone."""
        return 0


class Bridge(nn.Module):
    """What acts before a block."""

    def keys_values(self, media: Float[Array, 'b m e']) -> Parts:
        """What it needs of the media. It does not depend on the text, so that decoding computes it once."""
        raise NotImplementedError

    def __call__(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """The text y, changed.

        Args:
          y: text.
          keys_values: from `keys_values`, of the same rows, or in several parts side by side: those of a beginning that
            prompts share, and their own. The rows of a part may be fewer: then consecutive rows of y (the beams or the
            candidates of one prompt) share a row, which is not repeated.
          mask: from `media_mask`. A token whose row is empty sees no image.
        """
        raise NotImplementedError

    def touch(self, y: Float[Array, 'b l d'], media: Float[Array, 'b m e'], mask: Mask) -> Float[Array, 'b l d']:
        """What becomes of the text, by use of every parameter: a method for `init`."""
        return self(y, self.keys_values(media), mask)


def tags(tokens: Int[Array, 'b l'], tag: tuple[int, ...]) -> Bool[Array, 'b l']:
    """Where an <image> tag begins, whose tokens these are; nowhere without a tag.

    If they are one token r times, each r of those that stand side by side are a tag.
    """
    if (r := len(tag)) > 1 and len(set(tag)) == 1:
        place, number = tokens == tag[0], jnp.arange(tokens.shape[1])
        in_row = number - jax.lax.cummax(jnp.where(place, -1, number), axis=1)  # From 1, since the last other token.
        ahead = jnp.cumsum(jnp.pad(place, ((0, 0), (0, r))), axis=1, dtype=jnp.int32)
        whole = ahead[:, r - 1 : -1] - ahead[:, :-r] == r - 1
        return place & (in_row % r == 1) & whole
    begins = jnp.full(tokens.shape, bool(tag))
    for i, piece in enumerate(tag):
        ahead = jnp.pad(tokens, ((0, 0), (0, i)), constant_values=-1)[:, i:]  # A tag may be longer than a text.
        begins &= ahead == piece
    return begins


def runs(
    tokens: Int[Array, 'b l'], begins: Bool[Array, 'b l'], phi: Int[Array, 'b l'], before: Run | None = None
) -> Run:
    """The images that stand side by side, up to each token. begins: where a tag begins; else as `BridgeConfig.run`.

    For text 0, images 1 2, text, image 3, text the first is 0 1 1 1 3 3. Padding does not stand between images.
    """
    b, l = tokens.shape
    before = before or Run(jnp.zeros(b, jnp.int32), jnp.zeros(b, bool))
    last = jax.lax.cummax(jnp.where(tokens >= 0, jnp.arange(l), -1), axis=1)  # Of the tokens that are no padding.
    open = jnp.where(last < 0, before.open[:, None], jnp.take_along_axis(begins, jnp.maximum(last, 0), axis=1))
    was_open = jnp.concatenate([before.open[:, None], open[:, :-1]], axis=1)
    first = jax.lax.cummax(jnp.where(begins & ~was_open, phi, 0), axis=1)
    return Run(jnp.maximum(first, before.first[:, None]), open)


def media_mask(
    phi: Int[Array, 'b l'], n: int, r: int, only_last_image: bool = True, document: Int[Array, 'b l'] | None = None
) -> Mask:
    """Which media tokens each text token may see (paper section 2.3).

    Args:
      phi: the number, from 1, of the one image that a token may see; 0 = none.
      n, r: the number of images, and of media tokens per image.
      only_last_image: False lets a token see the images 1 to phi: the ablation of table 10, row (ii).
      document: of a packed row, which document each token belongs to. It sees no image of another.

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


def bridge_from(fields: dict[str, Any]) -> BridgeConfig:
    """A bridge from its fields as JSON has them.

    Before there was a `kind`, one config had the flags of all; it is read too.
    UserError for an unknown kind or field.
    """
    fields = dict(fields)
    kind = fields.pop('kind', '')
    if not kind:
        selective = {name: fields.pop(name, False) for name in ('only_at_tag', 'ffw_where_seen', 'norms_of_lm')}
        if fields.pop('prefix', False):
            kind, fields = 'gated_prefix', {n: fields[n] for n in ('initial_alpha', 'norm_eps') if n in fields}
        elif any(selective.values()):
            kind, fields = 'selective_xattn', fields | selective
        else:
            kind = 'gated_xattn'
    return build(find(__package__, kind), fields, 'xattn')
