"""The gated cross-attention layer of Llama 3.2 Vision (`mllama`), before blocks of its language model.

    y = y + tanh(alpha_xattn) * attention(q = RMS(y), kv = media)      queries and keys have RMS norms, keys few heads
    y = y + tanh(alpha_dense) * ffw(RMS(y))                            only where text may see an image

A token sees the images that stand side by side before it, up to the last one; an image's own tag sees it and those
beside it so far. Text that sees no image is not changed. In transformers 5.24, text before the first image attends to
all images equally. In Meta's code and here it gets nothing.

Media tokens of zeros are tiles that an image does not have. No text sees them.
"""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from flamingo_jax.errors import UserError
from flamingo_jax.model.attention import Mask, as_array, attend_to_parts
from flamingo_jax.model.bridges.bridge import Bridge, BridgeConfig, Media, Parts
from flamingo_jax.model.component import check
from flamingo_jax.model.language_model import LanguageModelConfig, Placement
from flamingo_jax.model.layers import ACTIVATIONS, FeedForward, Linear, Norm, constrain, times

if TYPE_CHECKING:
    from flamingo_jax.model.config import FlamingoConfig


@dataclasses.dataclass(frozen=True)
class MllamaXattnConfig(BridgeConfig):
    """The defaults are those of the 11B model."""

    kind = 'mllama_xattn'
    acts_on_text: ClassVar[bool] = False
    only_last_image: ClassVar[bool] = False
    together: ClassVar[bool] = True
    first: int = 3
    every: int = 4
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    ffw_width: int = 14_336
    activation: str = 'silu'
    norm_eps: float = 1e-5
    # alpha_xattn and alpha_dense at first. With 0 a new model equals its language model.
    initial_alpha: float = 0.0

    def __post_init__(self):
        check(self, 'xattn.', 'every heads kv_heads head_dim ffw_width', activation=ACTIVATIONS)
        if self.heads % self.kv_heads:
            raise UserError(f'xattn.heads is {self.heads}, which xattn.kv_heads, {self.kv_heads}, does not divide.')

    def check(self, model: 'FlamingoConfig') -> None:
        """See `BridgeConfig.check`."""
        super().check(model)
        if len(model.image_tag) > 1:
            raise UserError(f'This bridge needs an image_tag of one token, but it has {len(model.image_tag)}.')

    def seen(self, at: Placement, media: Media, r: int) -> Mask:
        """See `BridgeConfig.seen`: the images from the first that stands beside the last, to the last."""
        image = jnp.repeat(jnp.arange(1, media.length // r + 1), r)
        first, b = at.phi if at.run is None else at.run.first, len(at.phi)
        seen = (first[..., None] <= image) & (image <= at.phi[..., None])
        if media.real is None:
            return seen
        return seen & jnp.concatenate([jnp.repeat(x[..., 0], b // len(x), axis=0) for x in media.real], axis=1)[:, None]

    def real(self, tokens: Float[Array, 'b m e']) -> tuple[Bool[Array, 'b m 1'], ...]:
        """See `BridgeConfig.real`: those that are not zeros."""
        return ((tokens != 0).any(axis=-1, keepdims=True),)

    def module(
        self, lm: LanguageModelConfig, media_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain'
    ) -> 'MllamaXattn':
        """See `BridgeConfig.module`."""
        return MllamaXattn(self, lm, media_width, dtype, kernel)

    def hidden(self, width: int) -> int:
        """See `BridgeConfig.hidden`."""
        return self.ffw_width

    def operations(self, width: int, l: int | float, m: int | float) -> tuple[int | float, int | float, int | float]:
        """See `BridgeConfig.operations`."""
        heads = self.heads * self.head_dim
        return 2 * l * width * (2 * heads + 3 * self.ffw_width), 2 * 2 * l * m * heads, 0

    def operations_of_media(self, media_width: int, m: int | float) -> int | float:
        """See `BridgeConfig.operations_of_media`: the keys and values."""
        return 2 * m * media_width * 2 * self.kv_heads * self.head_dim


class MllamaXattn(Bridge):
    """One gated cross-attention and one gated feed-forward, at the language model's width d; the media have width e."""

    config: MllamaXattnConfig
    lm: LanguageModelConfig
    media_width: int
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    def setup(self) -> None:
        """Creates the parameters. Alphas are scalars in float32."""
        c, d, dtype = self.config, self.lm.width, self.dtype
        self.norm_text, self.norm_ffw = (Norm('rms', c.norm_eps, dtype=dtype) for _ in range(2))
        self.norm_query, self.norm_key = (Norm('rms', c.norm_eps, 'head_dim', dtype=dtype) for _ in range(2))
        self.query = Linear((d, c.heads, c.head_dim), ('embed', 'heads', 'head_dim'), dtype=dtype)
        media = (self.media_width, c.kv_heads, c.head_dim)
        self.key, self.value = (Linear(media, ('media', 'kv_heads', 'head_dim'), dtype=dtype) for _ in range(2))
        self.out = Linear((c.heads, c.head_dim, d), ('heads', 'head_dim', 'embed'), contracted=2, dtype=dtype)
        self.ffw = FeedForward(c.ffw_width, c.activation, gated=True, dtype=dtype)
        alpha = nn.with_logical_partitioning(nn.initializers.constant(c.initial_alpha), ())
        self.alpha_xattn, self.alpha_dense = (self.param(name, alpha, ()) for name in ('alpha_xattn', 'alpha_dense'))

    def keys_values(self, media: Float[Array, 'b m e']) -> Parts:
        """See `Bridge.keys_values`."""
        pair = self.norm_key(self.key(media)), self.value(media)
        key, value = (constrain(x.swapaxes(1, 2), 'batch', 'kv_heads', None, None) for x in pair)
        return ((key, value),)

    def __call__(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """The text, changed by both gated branches where it may see an image."""
        mask = as_array(mask, y.shape[1], sum(key.shape[2] for key, _ in keys_values))
        q = constrain(self.norm_query(self.query(self.norm_text(y))), 'batch', None, 'heads', None)
        attended = self.out(attend_to_parts(q, keys_values, mask, kernel=self.kernel))
        y = constrain(y + times(attended, jnp.tanh(self.alpha_xattn)), 'batch', None, 'embed')
        fed = jnp.where(mask.any(axis=-1, keepdims=True), self.ffw(self.norm_ffw(y)), 0)
        return constrain(y + times(fed, jnp.tanh(self.alpha_dense)), 'batch', None, 'embed')
