"""The mean colour of each of 4 x 4 blocks: a trunk without parameters."""

import dataclasses

import flax.linen as nn

from flamingo_jax.model.vision.trunk import VisionConfig


@dataclasses.dataclass(frozen=True)
class BlocksConfig(VisionConfig):
    """No fields of its own. See `VisionConfig` for what each gives."""

    family = 'blocks'
    width = 3
    resolution = 32

    def spatial(self, image_size):
        return 16

    def operations(self, image_size):
        return 3 * image_size**2

    def trunk(self, dtype, name):
        return Blocks(dtype, name=name)


class Blocks(nn.Module):
    """float32 [b height width 3] -> [b 16 3]."""

    dtype: object

    def __call__(self, images):
        b, size = images.shape[:2]
        blocks = images.reshape(b, 4, size // 4, 4, size // 4, 3).mean(axis=(2, 4))
        return (blocks / 255).reshape(b, 16, 3).astype(self.dtype)
