"""The two towers of contrastive pretraining (paper, appendix B.1.3; Radford et al. 2021).

    image --trunk--> features [b s d_v] --mean, linear, length 1--> [b width]    (or the resampler's latents [b r e])
    text    --blocks-> states   [b l d]   --mean, linear, length 1--> [b width]

An image and a text belong together if their vectors point the same way. The towers are those of any Flamingo: a
trunk of `model/vision/` and the blocks of `language_model.py`, whose tokens see the whole text here, as in BERT. After
the training only the trunk is kept (paper): `config.vision` takes the bundle of the whole, and `config.resampler` does
if a resampler was trained on a frozen trunk.
"""

import math
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from flamingo_jax.model.attention import Segments
from flamingo_jax.model.config import ContrastiveConfig
from flamingo_jax.model.language_model import Placement
from flamingo_jax.model.layers import Linear

if TYPE_CHECKING:
    from flamingo_jax.model.flamingo import Flamingo

LARGEST_SCALE = 100.0  # Of beta, as in CLIP.


class SharedSpace(nn.Module):
    """The tree `contrastive`: both projections, the logarithm of beta, and what a loss has of its own.

    That is the bias of the sigmoid, or in place of the projections the classifier `classes` [e classes] of the mean.
    """

    config: ContrastiveConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, 'b s d_v'] | None,
        states: Float[Array, 'b l d'] | None,
        valid: Bool[Array, 'b l'] | None = None,
    ) -> tuple[Float[Array, 'b width'] | None, Float[Array, 'b width'] | None, Float[Array, ''], Float[Array, '']]:
        """Vectors of images and of texts (either may be None), beta, and the bias (0 but for the sigmoid); float32.

        valid: the tokens over which a text's states are averaged.
        """
        c = self.config

        def project(x, axes, name):
            linear = Linear((x.shape[-1], c.width), axes, dtype=self.dtype, result_dtype=jnp.float32, name=name)
            return normalise(linear(x))

        images = texts = None
        if features is not None:
            images = features.astype(jnp.float32).mean(axis=1)
            if c.loss == 'classes':  # Without a projection, so that the mean itself tells classes apart.
                zeros = nn.with_logical_partitioning(nn.initializers.zeros, ('projection', 'vocab'))
                self.param('classes', zeros, (images.shape[-1], c.classes))
                images = normalise(images)
            else:
                images = project(images, ('vision_in', 'vision_out'), 'image')
        if c.loss != 'classes' and states is not None:
            weights = valid[..., None].astype(jnp.float32)
            mean = (states.astype(jnp.float32) * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)
            texts = project(mean, ('embed', 'projection'), 'text')
        scale: Any = self.param('log_scale', _scalar(math.log(c.scale)), ())
        bias: Any = self.param('bias', _scalar(c.bias), ()) if c.loss == 'sigmoid' else jnp.zeros(())
        # The gradient passes the cap, so that a scale above it can come down.
        over = jax.lax.stop_gradient(jnp.maximum(scale - math.log(LARGEST_SCALE), 0.0))
        return images, texts, jnp.exp(scale - over), bias


def paired(
    model: 'Flamingo',
    params: dict[str, Any],
    features: Float[Array, 'b n t s d_v'] | None,
    text: Int[Array, 'b l'] | None,
    used: Int[Array, ' b'] | None,
) -> tuple[Float[Array, 'b width'] | None, Float[Array, 'b width'] | None, Float[Array, ''], Float[Array, '']]:
    """The vectors of images and of texts in the space that they share; either may be None.

    Args:
      features: of the trunk. A vector is their mean over everything but the batch, projected, of length 1. With a
        resampler it is the mean of its latents, and n is 1.
      text, used: tokens, and how many come before the padding.

    Returns:
      (vectors of images, of texts, beta, the bias: 0 but for the sigmoid), float32.
    """
    states = valid = None
    if text is not None:
        valid = valid_tokens(used, text.shape[1])
        states = whole_text(model, params, text, valid)
    if features is not None:
        if model.config.resampler is not None:
            features = model.resampled(params, features)
        features = features.reshape(features.shape[0], -1, features.shape[-1])
    space = SharedSpace(model.config.contrastive, model.dtype)
    applied: Any = space.apply({'params': params['contrastive']}, features, states, valid)
    return applied


def whole_text(
    model: 'Flamingo', params: dict[str, Any], text: Int[Array, 'b l'], valid: Bool[Array, 'b l']
) -> Float[Array, 'b l d']:
    """The normed states of a text whose tokens all see one another, as in BERT; `valid` ones are no padding."""
    mask = Segments(jnp.ones_like(text), valid.astype(text.dtype))  # Padding is segment 0.
    positions = jnp.broadcast_to(jnp.arange(text.shape[1]), text.shape)
    y, _ = model.decoder(params, model.embed(params, text), Placement(positions, mask, jnp.zeros_like(text)), None)
    normed: Any = model.embedder.apply({'params': params['lm']['embedder']}, y, method='normalise')
    return normed


def _scalar(value: float):
    return nn.with_logical_partitioning(nn.initializers.constant(value), ())


def normalise(x: Float[Array, '... d']) -> Float[Array, '... d']:
    """x of length 1. A zero stays zero, and its gradient is finite."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-12))


def class_of(text: Int[Array, '*b l'], used: Int[Array, '*b'], classes: int) -> Int[Array, '*b']:
    """The class of each text, below `classes`: a polynomial hash of its tokens, without the padding."""
    powers = jnp.cumprod(jnp.full(text.shape[-1], 0x9E3779B1, jnp.uint32))  # It wraps around.
    tokens = jnp.where(valid_tokens(used, text.shape[-1]), text + 1, 0).astype(jnp.uint32)
    mixed = (tokens * powers).sum(-1)
    return ((mixed ^ (mixed >> 15)) % jnp.uint32(classes)).astype(jnp.int32)


def valid_tokens(used: Int[Array, '*b'], length: int) -> Bool[Array, '*b {length}']:
    """The tokens before the padding."""
    return jnp.arange(length) < used[..., None]
