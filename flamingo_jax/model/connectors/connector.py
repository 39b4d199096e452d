"""What every connector is: the features of an image -> media tokens, which the text is shown.

A connector is a config and a module in one file of this folder. Its layers differ; its ends are these, and are those of
the Perceiver Resampler: a linear map to its own width and time embeddings before the layers, a norm and a linear map to
the language model's width after them.

In this folder d is the width of the connector, and e that of its media tokens.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.component import Component, build, find
from flamingo_jax.model.layers import Linear, Norm, constrain, spread

# Small compared with the features. With latents of N(0, 1) the media tokens of all images are nearly equal at first,
# and a short run never learns to tell them apart.
SMALL = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class ConnectorConfig(Component):
    """What every kind has."""

    # Each kind has these as fields.
    width: ClassVar[int]
    frames: ClassVar[int]  # For which there are time embeddings; 0 is none.
    projects: ClassVar[bool]
    # Of kinds that have them: learnt queries, layers, heads of their attention, hidden units of their feed-forward.
    latents: ClassVar[int] = 0
    depth: ClassVar[int] = 1
    heads: ClassVar[int] = 0
    head_dim: ClassVar[int] = 0
    ffw_multiplier: ClassVar[int] = 0
    qk_norms: ClassVar[bool] = False
    activation: ClassVar[str] = ''

    def media_tokens(self, spatial: int) -> int:
        """r, the media tokens of an image whose frames have `spatial` features."""
        return self.latents or spatial

    def media_width(self, lm: int, vision: int) -> int:
        """e, by the widths of the language model and of the trunk."""
        return lm if self.projects else vision

    def module(self, out_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain') -> 'Connector':
        """The connector itself. out_width: e, if the config projects."""
        raise NotImplementedError

    def operations(self, r: int, s: int) -> tuple[int | float, int | float]:
        """Floating-point operations of the layers for s features of an image, all frames together: products with
        weights, and of attention.
        """
        raise NotImplementedError

    def sources(self, captured: dict[str, Any], t: int, s: int) -> Float[Array, 'r {t}*{s}']:
        """How much each media token draws on each feature of an image of t frames of s features, for a reader.

        By default a media token is the mean of one place over the frames.
        captured: the queries and keys of each attention, as flax's `capture_intermediates` gives them.
        """
        return jnp.tile(jnp.eye(s), t) / t


class Connector(nn.Module):
    """Features of an image, or of the frames of a video, -> media tokens."""

    config: ConnectorConfig
    out_width: int
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, features: Float[Array, 'b n t s d_v']) -> Float[Array, 'b n r e']:
        """The media tokens of each image by itself.

        Args:
          features: n images of t frames of s spatial features. t may differ from the number of frames in training: time
            embeddings are linearly interpolated (paper: 8 frames in training, 30 at inference).

        Returns:
          r media tokens per image.
        """
        c = self.config
        b, n, t, s, d_v = features.shape
        x = features.astype(self.dtype)
        if c.projects:
            x = Linear((d_v, c.width), ('vision_out', 'resampler'), dtype=self.dtype, name='project_in')(x)
        latents = None
        if c.latents:
            latents = self.param(
                'latents', nn.with_logical_partitioning(SMALL, ('latents', 'resampler')), (c.latents, c.width)
            )
        if c.frames:
            time: Any = self.param(
                'time', nn.with_logical_partitioning(SMALL, ('frames', 'resampler')), (c.frames, c.width)
            )
            if t not in (1, c.frames):  # An image is a video of one frame and gets the first time embedding.
                time = jax.image.resize(time, (t, c.width), 'linear')
            x = x + spread(time[:t, None], x.shape, self.dtype)
        x = constrain(x.reshape(b * n, t * s, c.width), 'batch', None, 'resampler')
        if latents is not None:
            latents = spread(latents, (b * n, c.latents, c.width), self.dtype)
        media = Norm(axis='resampler', dtype=self.dtype, name='norm_out')(self.layers(latents, x, t))
        if c.projects:
            out = Linear((c.width, self.out_width), ('resampler', 'media'), dtype=self.dtype, name='project_out')
            media = out(media)
        return media.reshape(b, n, -1, media.shape[-1])

    def layers(
        self, latents: Float[Array, 'b latents d'] | None, x: Float[Array, 'b ts d'], t: int
    ) -> Float[Array, 'b r d']:
        """What differs by kind: the latents, if the kind has some, and an image's features -> media tokens."""
        raise NotImplementedError


def connector_from(fields: dict[str, Any]) -> ConnectorConfig:
    """A connector from its fields as JSON has them; without a kind, the paper's. UserError for what is unknown."""
    fields = dict(fields)
    return build(find(__package__, fields.pop('kind', 'perceiver')), fields, 'resampler')
