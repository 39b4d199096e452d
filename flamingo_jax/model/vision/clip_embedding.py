"""The embedding of a CLIP: one vector of an image, in the space that it shares with texts (Radford et al. 2021).

It is no trunk of a Flamingo. OpenFlamingo's RICES compares images by it (`evaluation/rices.py`).
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from flamingo_jax.model.layers import Linear
from flamingo_jax.model.vision.trunk import VisionConfig
from flamingo_jax.model.vision.vit import ViT, ViTConfig


@dataclasses.dataclass(frozen=True)
class ClipEmbeddingConfig(VisionConfig):
    """A CLIP with its projection.

    tower: of its vision transformer, whose class token after the last norm is projected.
    width: of the space that images share with texts.
    """

    tower: Any = ViTConfig()  # Or its fields, as JSON has them.
    width: int = 768

    family: ClassVar[str] = 'clip_embedding'  # Its name in a bundle.
    without_resampler: ClassVar[bool] = True
    float32_only: ClassVar[bool] = True  # So that two images are as near to each other on every device.

    def __post_init__(self):
        if not isinstance(self.tower, ViTConfig):  # As JSON has it.
            object.__setattr__(self, 'tower', ViTConfig(**self.tower))

    @property
    def resolution(self) -> int:
        """Height and width of the training images, in pixels."""
        return self.tower.resolution

    @property
    def patch(self) -> int:
        """Height and width of a patch, in pixels."""
        return self.tower.patch

    @property
    def fit(self) -> str:
        """How an image is made square; see `VisionConfig`."""
        return self.tower.fit

    def spatial(self, image_size: int) -> int:
        """One vector of an image of any size."""
        return 1

    def operations(self, image_size: int) -> float:
        """Operations of the forward pass; see `VisionConfig`."""
        return self.tower.operations(image_size) + 2.0 * self.tower.width * self.width

    def trunk(self, dtype: DTypeLike, name: str) -> nn.Module:
        """The module; see `VisionConfig`."""
        return ClipEmbedding(self, dtype, name=name)


class ClipEmbedding(nn.Module):
    """Pixels to the embedding, not yet of length 1. dtype: the computation's."""

    config: ClipEmbeddingConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, 'b height width 3'] | UInt8[Array, 'b height width 3']
    ) -> Float[Array, 'b 1 d']:
        """The embeddings of RGB images, 0 to 255."""
        tower = dataclasses.replace(self.config.tower, norm_features=True, class_feature=True)
        tokens = ViT(tower, self.dtype, name='tower')(images)
        shape = (tower.width, self.config.width)
        return Linear(shape, ('vision_in', 'vision_out'), dtype=self.dtype, name='projection')(tokens[:, :1])
