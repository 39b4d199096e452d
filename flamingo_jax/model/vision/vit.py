"""The vision transformer of CLIP and SigLIP, the trunk of OpenFlamingo, IDEFICS and many others.

It is that of Dosovitskiy and others 2021. One module serves all. CLIP (Radford et al. 2021; OpenAI's weights have
QuickGELU, OpenCLIP's mostly GELU) has a class token and a norm before its blocks; SigLIP (Zhai et al. 2023) has
neither, but a bias in the patches' map. The features differ too: OpenFlamingo takes the patch tokens before the last
norm without the class token, IDEFICS all tokens before the last norm, others the patch tokens after it. There is no
dropout, no pooling, and no projection into the space shared with texts. Depth is scanned over stacked parameters.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from flamingo_jax.errors import UserError
from flamingo_jax.model.attention import attend
from flamingo_jax.model.layers import ACTIVATIONS, Linear, Norm, scan_layers, spread
from flamingo_jax.model.vision.convolution import KERNEL_AXES, VECTOR_AXES
from flamingo_jax.model.vision.trunk import VisionConfig
from flamingo_jax.ranges import choose

# Of pixels in 0..1.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIGLIP_MEAN, SIGLIP_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class ViTConfig(VisionConfig):
    """The fields in which models differ. The defaults are OpenAI's CLIP ViT-L/14, as OpenFlamingo reads it.

    width, depth, heads, ffw_width: of the blocks.
    patch: height and width of a patch, in pixels.
    resolution: height and width of the training images, in pixels. At others the position embeddings are
      interpolated.
    activation: 'quick_gelu', 'gelu' or 'gelu_tanh'.
    norm_eps: of every layer norm.
    class_token: whether there is one, before the patches.
    norm_in: whether there is a norm before the blocks.
    patch_bias: whether the patches' map has a bias.
    norm_features: whether the features are taken after the last norm; it is kept in the parameters either way.
    class_feature: whether the class token is the first of the features.
    unused: layers at the end that the features do not go through; they are kept in the parameters (LLaVA).
    mean, std: of RGB in 0..1, by which pixels are standardised.
    fit: how an image is made square, see `inputs/images.py`.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    ffw_width: int = 4096
    patch: int = 14
    resolution: int = 224
    activation: str = 'quick_gelu'
    norm_eps: float = 1e-5
    class_token: bool = True
    norm_in: bool = True
    patch_bias: bool = False
    norm_features: bool = False
    class_feature: bool = False
    unused: int = 0
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    fit: str = 'crop'

    family: ClassVar[str] = 'vit'  # Its name in a bundle.
    without_resampler: ClassVar[bool] = True
    float32_only: ClassVar[bool] = False  # Stored and computed in the dtype of the model, as in the originals.

    def __post_init__(self):
        # JSON has lists, but a module's field must be hashable.
        object.__setattr__(self, 'mean', tuple(self.mean))
        object.__setattr__(self, 'std', tuple(self.std))
        if self.width % self.heads:
            raise UserError(f'A ViT of width {self.width} cannot have {self.heads} heads, which do not divide it.')
        choose('vision', vars(self), activation=ACTIVATIONS)
        if not 0 <= self.unused <= self.depth:
            raise UserError(f'A ViT of {self.depth} layers cannot leave out {self.unused} of them. Change unused.')
        if self.class_feature and not self.class_token:
            raise UserError('A ViT without a class token has no class feature. Set class_feature=False.')

    @property
    def grid(self) -> int:
        """Patches along a side at the training resolution."""
        return self.resolution // self.patch

    def spatial(self, image_size: int) -> int:
        """s, the number of features of an image with sides of image_size pixels."""
        return (image_size // self.patch) ** 2 + self.class_feature

    def operations(self, image_size: int) -> float:
        """Operations of the forward pass; see `VisionConfig`."""
        used = dataclasses.replace(self, depth=self.depth - self.unused, unused=0)
        return operations(used, image_size, class_tokens=int(self.class_token))

    def trunk(self, dtype: DTypeLike, name: str) -> nn.Module:
        """The module; see `VisionConfig`."""
        return ViT(self, dtype, name=name)


def operations(c: Any, image_size: int, class_tokens: int) -> float:
    """Operations of the forward pass of a transformer over patches; see `VisionConfig`.

    Args:
      c: has the fields width, depth, ffw_width and patch.
      image_size: height and width of the image, in pixels.
      class_tokens: tokens beside those of the patches.
    """
    patches = (image_size // c.patch) ** 2
    s = patches + class_tokens
    total = patches * 3 * c.patch**2 * c.width
    total += c.depth * s * c.width * (4 * c.width + 2 * c.ffw_width + 2 * s)
    return 2.0 * total


def in_patches(x: Float[Array, 'b height width 3'], patch: int) -> Float[Array, 'b rows columns {patch} {patch} 3']:
    """Cuts images into patches with sides of `patch` pixels. What is over at the right and the bottom is left out."""
    b, rows, columns = x.shape[0], x.shape[1] // patch, x.shape[2] // patch
    x = x[:, : rows * patch, : columns * patch].reshape(b, rows, patch, columns, patch, 3)
    return x.transpose(0, 1, 3, 2, 4, 5)


class ViT(nn.Module):
    """Pixels to the features of a grid of patches. dtype: the computation's."""

    config: ViTConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, 'b height width 3'] | UInt8[Array, 'b height width 3']
    ) -> Float[Array, 'b s d']:
        """Features of images.

        images: RGB, 0 to 255. The preprocessing belongs to the trunk and happens here. Pixels beyond a whole number of
          patches are left out, at the right and at the bottom, as by the originals' convolutions.
        Returns the class token's feature first if the config has it, then the patches', row by row.
        """
        c, p = self.config, self.config.patch
        x = in_patches((images.astype(jnp.float32) / 255 - np.float32(c.mean)) / np.float32(c.std), p)
        b, height, width = x.shape[:3]
        # A convolution whose stride is its size is a product of matrices.
        x = Linear((p, p, 3, c.width), KERNEL_AXES, 3, c.patch_bias, self.dtype, name='patches')(x)
        x = x.reshape(b, height * width, c.width)
        positions = self.param(
            'positions',
            nn.with_logical_partitioning(nn.initializers.normal(0.02), ('positions', 'vision_out')),
            (c.grid**2 + c.class_token, c.width),
        )
        if c.class_token:
            init = nn.with_logical_partitioning(nn.initializers.normal(c.width**-0.5), VECTOR_AXES)
            first = self.param('class_token', init, (c.width,))
            x = jnp.concatenate([spread(first, (b, 1, c.width), self.dtype), x], axis=1)
        x = x + spread(resize_positions(positions, c.grid, height, width), x.shape, self.dtype)
        norm: dict[str, Any] = dict(eps=c.norm_eps, axis='vision_out', dtype=self.dtype)
        if c.norm_in:
            x = Norm(**norm, name='norm_in')(x)
        if used := c.depth - c.unused:
            x = scan_layers(ViTLayer(c, self.dtype, name='layers'), used, x)
        if c.unused:  # The compiler leaves out what nothing reads, as it does the norm below.
            scan_layers(ViTLayer(c, self.dtype, name='unused_layers'), c.unused, x)
        normed = Norm(**norm, name='norm_out')(x)
        x = normed if c.norm_features else x
        return x[:, 1:] if c.class_token and not c.class_feature else x


def resize_positions(positions: Float[Array, 'n d'], grid: int, height: int, width: int) -> Float[Array, 'm d']:
    """Position embeddings of grid * grid patches (after those of a class token) -> of height * width patches.

    Bicubic with antialiasing, which is what open_clip and timm do when they load weights at another resolution.
    (transformers' `interpolate_pos_encoding` has no antialiasing and another cubic, of coefficient -0.75.)
    """
    if (height, width) == (grid, grid):
        return positions
    before, patches = jnp.split(positions.astype(jnp.float32), [positions.shape[0] - grid**2])
    patches = patches.reshape(grid, grid, -1)
    patches = jax.image.resize(patches, (height, width, patches.shape[-1]), 'cubic')
    return jnp.concatenate([before, patches.reshape(height * width, -1)])


class ViTLayer(nn.Module):
    """A pre-norm block: attention among all tokens, then a feed-forward; both residual, every map with a bias."""

    config: ViTConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b s d']) -> Float[Array, 'b s d']:
        c = self.config
        head_dim = c.width // c.heads
        norm: dict[str, Any] = dict(eps=c.norm_eps, axis='vision_out', dtype=self.dtype)
        linear: dict[str, Any] = dict(bias=True, dtype=self.dtype)
        into, out = (c.width, c.heads, head_dim), ('vision_in', 'vision_out', 'head_dim')
        y = Norm(**norm, name='norm_attention')(x)
        q, k, v = (Linear(into, out, **linear, name=name)(y) for name in ('query', 'key', 'value'))
        back, axes = (c.heads, head_dim, c.width), ('vision_in', 'head_dim', 'vision_out')
        k, v = (x.swapaxes(1, 2) for x in (k, v))
        x = x + Linear(back, axes, 2, **linear, name='out')(attend(q, k, v))
        y = Norm(**norm, name='norm_ffw')(x)
        # Not `layers.FeedForward`, which is sharded over the mesh. Here images are sharded (see `parallel/rules.py`).
        axes = ('vision_in', 'vision_out')
        y = ACTIVATIONS[c.activation](Linear((c.width, c.ffw_width), axes, **linear, name='up')(y))
        return x + Linear((c.ffw_width, c.width), axes, **linear, name='down')(y)
