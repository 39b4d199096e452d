"""The GATED XATTN-DENSE block (paper, section 2.2, figure 4), inserted before blocks of the frozen language model.

    y = y + tanh(alpha_xattn) * attention(q = LN(y), kv = LN(media))      each token sees only the image phi(token)
    y = y + tanh(alpha_dense) * ffw(LN(y))

Both alphas start at 0 (the config may open them), so that a new Flamingo computes exactly what its language model does.
The ablation `gates=False` adds both branches directly. Keys and values share one layer norm (paper v1); linear maps
have no biases. OpenFlamingo and IDEFICS do not norm the media; IDEFICS has RMS norms, norms of queries and keys, and a
gated feed-forward.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.attention import Mask, attend_to_parts
from flamingo_jax.model.bridges.bridge import Bridge, BridgeConfig, Parts
from flamingo_jax.model.component import check
from flamingo_jax.model.language_model import LanguageModelConfig
from flamingo_jax.model.layers import ACTIVATIONS, NORMS, FeedForward, Linear, Norm, constrain, times


@dataclasses.dataclass(frozen=True)
class GatedXattnConfig(BridgeConfig):
    """OpenFlamingo and IDEFICS differ from the paper in the fields from `first` on."""

    kind = 'gated_xattn'
    every: int = 1
    heads: int = 16
    head_dim: int = 128
    ffw_multiplier: int = 4
    # alpha_xattn and alpha_dense at first. With the paper's 0 a new model equals its language model.
    initial_alpha: float = 0.0
    initial_alpha_dense: float = 0.0
    only_last_image: bool = True  # False: a token sees all images before it (ablation, table 10 row ii).
    gates: bool = True  # False: no alphas, both branches are added directly (ablation, table 3 row iii).
    first: int = 0
    norm: str = 'layer'  # Norm of the text: 'layer' or 'rms'.
    norm_eps: float = 1e-5
    norm_media: bool = True  # Whether the media have a layer norm too.
    qk_norms: bool = False  # Whether each head's queries and keys have RMS norms.
    activation: str = 'squared_relu'
    gated_ffw: bool = False
    ffw_width: int = 0  # 0: ffw_multiplier times the LM's width.
    vector_alphas: bool = False  # Whether each channel has its own alpha.

    def __post_init__(self):
        check(self, 'xattn.', 'every heads head_dim ffw_multiplier', norm=NORMS, activation=ACTIVATIONS)

    def module(
        self, lm: LanguageModelConfig, media_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain'
    ) -> 'GatedXattnDense':
        """See `BridgeConfig.module`."""
        return GatedXattnDense(self, lm, media_width, dtype, kernel)

    def hidden(self, width: int) -> int:
        """See `BridgeConfig.hidden`."""
        return self.ffw_width or self.ffw_multiplier * width

    def operations(self, width: int, l: int | float, m: int | float) -> tuple[int | float, int | float, int | float]:
        """See `BridgeConfig.operations`."""
        heads, ffw = self.heads * self.head_dim, self.hidden(width)
        weights = 2 * l * width * (2 * heads + ffw * (3 if self.gated_ffw else 2))
        # The gradient of a gate needs the result of the last product.
        return weights, 2 * 2 * l * m * heads, 0 if self.gates else 2 * l * width * ffw

    def operations_of_media(self, media_width: int, m: int | float) -> int | float:
        """See `BridgeConfig.operations_of_media`: the keys and values."""
        return 2 * m * media_width * 2 * self.heads * self.head_dim


class GatedXattnDense(Bridge):
    """One gated cross-attention and one gated feed-forward, at the language model's width d; the media have width e."""

    config: GatedXattnConfig
    lm: LanguageModelConfig
    media_width: int
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    def setup(self) -> None:
        """Creates the parameters. Alphas are always float32, and scalars unless the config says vectors."""
        c, dtype = self.config, self.dtype
        shape, axes = (self.lm.width, c.heads, c.head_dim), ('heads', 'head_dim')
        self.norm_text, self.norm_ffw = self.norm(), self.norm()
        if c.norm_media:
            self.norm_media = Norm(axis='media', dtype=dtype)
        if c.qk_norms:
            self.norm_query, self.norm_key = (Norm('rms', c.norm_eps, 'head_dim', dtype=dtype) for _ in range(2))
        media_shape = (self.media_width, *shape[1:])
        self.query = Linear(shape, ('embed', *axes), dtype=dtype)
        self.key = Linear(media_shape, ('media', *axes), dtype=dtype)
        self.value = Linear(media_shape, ('media', *axes), dtype=dtype)
        self.out = Linear(shape[1:] + shape[:1], (*axes, 'embed'), contracted=2, dtype=dtype)
        self.ffw = FeedForward(c.hidden(self.lm.width), c.activation, c.gated_ffw, dtype=dtype)
        if not c.gates:
            return
        alpha_shape, alpha_axes = ((self.lm.width,), ('embed',)) if c.vector_alphas else ((), ())

        def gate(value):
            return nn.with_logical_partitioning(nn.initializers.constant(value), alpha_axes)

        self.alpha_xattn = self.param('alpha_xattn', gate(c.initial_alpha), alpha_shape)
        self.alpha_dense = self.param('alpha_dense', gate(c.initial_alpha_dense), alpha_shape)

    def norm(self) -> Norm:
        """A norm of the text."""
        return Norm(self.config.norm, self.config.norm_eps, dtype=self.dtype)

    def keys_values(self, media: Float[Array, 'b m e']) -> Parts:
        """The block's keys and values of the media."""
        if self.config.norm_media:
            media = self.norm_media(media)
        key, value = self.key(media), self.value(media)
        if self.config.qk_norms:
            key = self.norm_key(key)
        key, value = (constrain(x.swapaxes(1, 2), 'batch', 'heads', None, None) for x in (key, value))
        return ((key, value),)

    def __call__(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """The text, changed by both gated branches; a token that sees no image only by the feed-forward."""
        attended = self.attended(y, keys_values, mask)
        if self.config.gates:
            attended = times(attended, jnp.tanh(self.alpha_xattn))
        y = constrain(y + attended, 'batch', None, 'embed')
        fed = self.fed(y, keys_values, mask)
        if self.config.gates:
            fed = times(fed, jnp.tanh(self.alpha_dense))
        return constrain(y + fed, 'batch', None, 'embed')

    def attended(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """What the cross-attention adds, without its gate."""
        q = self.query(self.norm_text(y))
        if self.config.qk_norms:
            q = self.norm_query(q)
        q = constrain(q, 'batch', None, 'heads', None)
        return self.out(attend_to_parts(q, keys_values, mask, kernel=self.kernel))

    def fed(self, y: Float[Array, 'b l d'], keys_values: Parts, mask: Mask) -> Float[Array, 'b l d']:
        """What the feed-forward adds, without its gate."""
        return self.ffw(self.norm_ffw(y))
