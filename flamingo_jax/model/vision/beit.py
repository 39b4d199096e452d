"""BEiT (Bao et al. 2022, arXiv:2106.08254): a vision transformer that knows where patches lie relative to one another.

It differs from `vit.py` in what a token knows of places. Attention gets a bias for each head and each distance in rows
and columns, from a table of each block, or from one that all share. Three more entries are for the class token. Keys
have no bias, and each branch is scaled by a learnt vector before it is added.
"""

import dataclasses
from typing import Any, ClassVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from flamingo_jax.errors import UserError
from flamingo_jax.model.attention import attend
from flamingo_jax.model.layers import ACTIVATIONS, Linear, Norm, scan_layers, spread, times
from flamingo_jax.model.vision.convolution import KERNEL_AXES, VECTOR_AXES
from flamingo_jax.model.vision.trunk import VisionConfig
from flamingo_jax.model.vision.vit import in_patches, operations, resize_positions
from flamingo_jax.ranges import choose


@dataclasses.dataclass(frozen=True)
class BEiTConfig(VisionConfig):
    """The fields in which models differ. The defaults are the published base model, fine-tuned on ImageNet.

    width, depth, heads, ffw_width: of the blocks.
    patch: height and width of a patch, in pixels.
    resolution: height and width of the training images, in pixels. At others the tables are interpolated.
    activation: 'gelu', 'gelu_tanh' or another of `layers.ACTIVATIONS`.
    norm_eps: of every layer norm.
    relative: the tables of relative positions: of each 'block', 'shared' by all, or '' for none.
    absolute: whether patches have learnt positions too.
    layer_scale: whether branches are scaled.
    norm_out: whether the features are normed (models that classify by the class token; the others norm their mean).
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    ffw_width: int = 3072
    patch: int = 16
    resolution: int = 224
    activation: str = 'gelu'
    norm_eps: float = 1e-12
    relative: str = 'block'
    absolute: bool = False
    layer_scale: bool = True
    norm_out: bool = False

    family: ClassVar[str] = 'beit'  # Its name in a bundle.
    fit: ClassVar[str] = 'squash'  # How an image is made square, see `inputs/images.py`.
    without_resampler: ClassVar[bool] = True
    float32_only: ClassVar[bool] = False

    def __post_init__(self):
        if self.width % self.heads:
            raise UserError(f'A BEiT of width {self.width} cannot have {self.heads} heads, which do not divide it.')
        choose('vision', vars(self), activation=ACTIVATIONS, relative=('block', 'shared', ''))

    @property
    def grid(self) -> int:
        """Patches along a side at the training resolution."""
        return self.resolution // self.patch

    @property
    def distances(self) -> int:
        """Entries of a table: every distance in rows and columns, and three for the class token."""
        return (2 * self.grid - 1) ** 2 + 3

    def spatial(self, image_size: int) -> int:
        """s, the number of features of an image with sides of image_size pixels."""
        return (image_size // self.patch) ** 2

    def operations(self, image_size: int) -> float:
        """Operations of the forward pass; see `VisionConfig`."""
        return operations(self, image_size, class_tokens=1)

    def trunk(self, dtype: DTypeLike, name: str) -> nn.Module:
        """The module; see `VisionConfig`."""
        return BEiT(self, dtype, name=name)


class BEiT(nn.Module):
    """Pixels to the features of a grid of patches. dtype: the computation's."""

    config: BEiTConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, 'b height width 3'] | UInt8[Array, 'b height width 3']
    ) -> Float[Array, 'b s d']:
        """Features of images: the patches', row by row, without the class token.

        images: RGB, 0 to 255. The preprocessing happens here: pixels 0..255 become -1..1. Pixels beyond a whole number
          of patches are left out, at the right and at the bottom.
        """
        c, p = self.config, self.config.patch
        x = in_patches(images.astype(jnp.float32) / 127.5 - 1, p)
        b, height, width = x.shape[:3]
        x = Linear((p, p, 3, c.width), KERNEL_AXES, contracted=3, bias=True, dtype=self.dtype, name='patches')(x)
        x = x.reshape(b, height * width, c.width)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, VECTOR_AXES)
        first = self.param('class_token', zeros, (c.width,))
        x = jnp.concatenate([spread(first, (b, 1, c.width), self.dtype), x], axis=1)
        if c.absolute:
            shape = (c.grid**2 + 1, c.width)
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, ('positions', 'vision_out'))
            positions = resize_positions(self.param('positions', zeros, shape), c.grid, height, width)
            x = x + spread(positions, x.shape, self.dtype)
        shared = _table(self, c) if c.relative == 'shared' else None
        x = scan_layers(BEiTLayer(c, self.dtype, name='layers'), c.depth, x, height, width, shared)
        if c.norm_out:
            x = Norm(eps=c.norm_eps, axis='vision_out', dtype=self.dtype, name='norm_out')(x)
        return x[:, 1:]


class BEiTLayer(nn.Module):
    """A pre-norm block: attention among all tokens, then a feed-forward; both scaled and residual."""

    config: BEiTConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b s d'], height: int, width: int, shared: Float[Array, 'n h'] | None
    ) -> Float[Array, 'b s d']:
        """shared: the table of all blocks; None: the block's own, if it has one."""
        c = self.config
        head_dim = c.width // c.heads
        norm: dict[str, Any] = dict(eps=c.norm_eps, axis='vision_out', dtype=self.dtype)
        into, out = (c.width, c.heads, head_dim), ('vision_in', 'vision_out', 'head_dim')
        y = Norm(**norm, name='norm_attention')(x)
        q, k, v = (
            Linear(into, out, bias=name != 'key', dtype=self.dtype, name=name)(y) for name in ('query', 'key', 'value')
        )
        table = _table(self, c) if c.relative == 'block' else shared
        bias = None
        if table is not None:
            bias = relative_bias(table, c.grid, height, width)
            bias = jnp.broadcast_to(bias, (x.shape[0], *bias.shape))
        attended = attend(q, k.swapaxes(1, 2), v.swapaxes(1, 2), bias=bias)
        back, axes = (c.heads, head_dim, c.width), ('vision_in', 'head_dim', 'vision_out')
        linear: dict[str, Any] = dict(bias=True, dtype=self.dtype)
        x = x + self._scale('scale_attention', Linear(back, axes, 2, **linear, name='out')(attended))
        y = Norm(**norm, name='norm_ffw')(x)
        axes = ('vision_in', 'vision_out')
        y = ACTIVATIONS[c.activation](Linear((c.width, c.ffw_width), axes, **linear, name='up')(y))
        return x + self._scale('scale_ffw', Linear((c.ffw_width, c.width), axes, **linear, name='down')(y))

    def _scale(self, name: str, y: Float[Array, 'b s d']) -> Float[Array, 'b s d']:
        if not self.config.layer_scale:
            return y
        init = nn.with_logical_partitioning(nn.initializers.constant(0.1), VECTOR_AXES)
        return times(y, self.param(name, init, y.shape[-1:]))


def _table(module: nn.Module, c: BEiTConfig) -> Float[Array, 'n h']:
    zeros = nn.with_logical_partitioning(nn.initializers.zeros, ('positions', 'vision_out'))
    return cast(Array, module.param('relative', zeros, (c.distances, c.heads)))


def relative_bias(table: Float[Array, 'n h'], grid: int, height: int, width: int) -> Float[Array, 'h s s']:
    """The bias of attention among the class token and height * width patches, from a table of grid * grid patches.

    The table's distances are interpolated for another grid, as in transformers: linearly, without antialiasing.
    """
    side = 2 * grid - 1
    distances, of_class = jnp.split(table.astype(jnp.float32), [side**2])
    if (height, width) != (grid, grid):
        distances = distances.reshape(side, side, -1)
        shape = (2 * height - 1, 2 * width - 1, distances.shape[-1])
        distances = jax.image.resize(distances, shape, 'linear', antialias=False).reshape(-1, shape[-1])
    table = jnp.concatenate([distances, of_class])
    return table[entries(height, width)].transpose(2, 0, 1)


def entries(height: int, width: int) -> Int[np.ndarray, 's s']:
    """The entry of a table for each query and key: the class token, then patches row by row.

    The last three entries are those of the class token to a patch, of a patch to it, and of it to itself.
    """
    rows, columns = (axis.reshape(-1) for axis in np.indices((height, width)))
    down, right = (x[:, None] - x + size - 1 for x, size in ((rows, height), (columns, width)))
    patches, number = down * (2 * width - 1) + right, (2 * height - 1) * (2 * width - 1)
    out = np.full((len(rows) + 1,) * 2, number)
    out[1:, 1:], out[1:, 0], out[0, 0] = patches, number + 1, number + 2
    return out
