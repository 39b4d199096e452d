"""The vision transformer of Llama 3.2 Vision (`mllama`): up to four tiles of an image, seen together.

An image is a canvas of tiles, one of ARRANGEMENTS (`inputs/canvas.py`); its height and width say which. Each tile is
cut into patches, after a class token of its own. Embeddings say where a patch lies in its tile, and where the tile lies
in the canvas. All tokens of all tiles attend to one another, in `depth` layers and in `global_depth` gated ones. A
feature is the last state of a token, and beside it those before some of the layers (`tapped`).

As in the originals, the tiles that a canvas does not have are computed too, and each tile is padded to a multiple of 8
tokens. Nothing but a padding token does not see padding tokens, so that they change the others. The features of tiles
that are not there are zeros, which no text may see (`connectors/linear.py`, `bridges/mllama_xattn.py`).

transformers 5.24 keeps the states after the layers `tapped`. Meta's code, and this file, keep those before them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from flamingo_jax.errors import UserError
from flamingo_jax.model.attention import attend
from flamingo_jax.model.layers import ACTIVATIONS, Linear, Norm, scan_layers, spread
from flamingo_jax.model.vision.convolution import KERNEL_AXES, VECTOR_AXES
from flamingo_jax.model.vision.trunk import VisionConfig
from flamingo_jax.model.vision.vit import CLIP_MEAN, CLIP_STD, in_patches
from flamingo_jax.ranges import choose

TILES = 4
# Rows and columns of tiles, in the order of the originals. Their numbers begin with 1; 0 is no image.
ARRANGEMENTS = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1))
MULTIPLE = 8  # Of the tokens of a tile.


@dataclasses.dataclass(frozen=True)
class MllamaViTConfig(VisionConfig):
    """The fields in which models differ. The defaults are those of the 11B and 90B models.

    inner, depth, heads, ffw_width: of the layers; global_depth: of those with gates, after them.
    tapped: before which layers the state of a token becomes a part of its feature.
    patch, resolution: height and width in pixels of a patch and of a tile.
    activation: of the feed-forward.
    norm_eps: of the norms in the layers.
    mean, std: of RGB in 0..1, by which pixels are standardised.
    """

    inner: int = 1280
    depth: int = 32
    global_depth: int = 8
    heads: int = 16
    ffw_width: int = 5120
    tapped: Sequence[int] = (3, 7, 15, 23, 30)
    patch: int = 14
    resolution: int = 560
    activation: str = 'gelu'
    norm_eps: float = 1e-5
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD

    family: ClassVar[str] = 'mllama_vit'  # Its name in a bundle.
    fit: ClassVar[str] = 'canvas'
    without_resampler: ClassVar[bool] = True
    at_once: ClassVar[int] = 1  # Its weights of attention take 2.6 GB in float32, for tiles of 560 pixels.

    def __post_init__(self):
        for name in ('tapped', 'mean', 'std'):  # JSON has lists, but a module's field must be hashable.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.inner % self.heads:
            raise UserError(f'A ViT of width {self.inner} cannot have {self.heads} heads, which do not divide it.')
        if list(self.tapped) != sorted(set(self.tapped) & set(range(self.depth))):
            raise UserError(f'vision.tapped is {self.tapped}. Give numbers of the {self.depth} layers in their order.')
        choose('vision', vars(self), activation=ACTIVATIONS)

    @property
    def width(self) -> int:
        """d_v: the last state of a token, and those that are kept."""
        return self.inner * (1 + len(self.tapped))

    @property
    def tile_places(self) -> int:
        """Tokens of a tile: its patches, and its class token."""
        return (self.resolution // self.patch) ** 2 + 1

    def spatial(self, image_size: int) -> int:
        """s, the number of features of an image: those of four tiles, whatever the image."""
        return TILES * self.tile_places

    def operations(self, image_size: int) -> float:
        """Operations of the forward pass; see `VisionConfig`."""
        s = TILES * -(-self.tile_places // MULTIPLE) * MULTIPLE
        patches = TILES * (self.tile_places - 1) * 3 * self.patch**2 * self.inner
        layer = s * self.inner * (4 * self.inner + 2 * self.ffw_width + 2 * s)
        return 2.0 * (patches + (self.depth + self.global_depth) * layer)

    def trunk(self, dtype: DTypeLike, name: str) -> nn.Module:
        """The module; see `VisionConfig`."""
        return MllamaViT(self, dtype, name=name)

    def arrangement(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles of a canvas of so many pixels. UserError if there is no such canvas."""
        found = height // self.resolution, width // self.resolution
        if found not in ARRANGEMENTS or (height % self.resolution, width % self.resolution) != (0, 0):
            raise UserError(
                f'An image of {height} x {width} pixels is no canvas of up to {TILES} tiles of {self.resolution} x '
                f'{self.resolution}. Give the image itself, or set image_size to {self.resolution}.'
            )
        return found


class MllamaViT(nn.Module):
    """Pixels of canvases to the features of their tiles. dtype: the computation's."""

    config: MllamaViTConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, 'b height width 3'] | UInt8[Array, 'b height width 3']
    ) -> Float[Array, 'b s d_v']:
        """Features of canvases of one arrangement.

        images: RGB, 0 to 255.
        Returns those of four tiles; of each its class token's, then its patches', row by row. Those of tiles that the
          canvas does not have are zeros.
        """
        c = self.config
        b, rows, columns = len(images), *c.arrangement(*images.shape[1:3])
        tiles, places, padding = rows * columns, c.tile_places, -c.tile_places % MULTIPLE
        number = ARRANGEMENTS.index((rows, columns)) + 1
        x = (images.astype(jnp.float32) / 255 - np.float32(c.mean)) / np.float32(c.std)
        x = in_patches(x, c.resolution)  # Tiles are large patches.
        x = x.reshape(b, tiles, c.resolution, c.resolution, 3)
        x = jnp.pad(x, ((0, 0), (0, TILES - tiles), *[(0, 0)] * 3))  # After the standardisation, as in the originals.
        x = in_patches(x.reshape(b * TILES, *x.shape[2:]), c.patch)
        x = Linear((c.patch, c.patch, 3, c.inner), KERNEL_AXES, 3, dtype=self.dtype, name='patches')(x)
        x = x.reshape(b, TILES, places - 1, c.inner)
        x = x + self.gated('tiles_in', number, x.shape, TILES, 1)
        first = self.param('class_token', _normal(c.inner**-0.5, *VECTOR_AXES), (c.inner,))
        x = jnp.concatenate([spread(first, (b, TILES, 1, c.inner), self.dtype), x], axis=2)
        x = x + self.positions(number, x.shape)
        norm: dict[str, Any] = dict(axis='vision_out', dtype=self.dtype)
        x = jnp.pad(Norm(**norm, name='norm_in')(x), ((0, 0), (0, 0), (0, padding), (0, 0)))
        s, padded = x.shape, jnp.array(_padded(tiles, places, padding))
        mask = ~(padded[:, None] & padded)[None]  # Only from padding, padding is hidden.
        x = x.reshape(b, -1, c.inner)
        slots = jnp.array([sum(i > kept for kept in c.tapped) for i in range(c.depth)])
        kept = jnp.zeros((len(c.tapped) + 1, *x.shape), x.dtype)
        x, kept = scan_layers(
            MllamaViTLayer(c, self.dtype, name='layers'), c.depth, (x, kept), mask, slots, in_axes=(nn.broadcast, 0)
        )
        x = Norm(**norm, name='norm_out')(x).reshape(s)
        x = (x + self.gated('tiles_out', number, s, TILES, 1)).reshape(b, -1, c.inner)
        layer = MllamaViTLayer(c, self.dtype, gated=True, name='global_layers')
        x = scan_layers(layer, c.global_depth, x, mask)
        # A channel's kept states stand side by side, after all last states.
        kept = jnp.moveaxis(kept[:-1], 0, -1).reshape(b, s[1] * s[2], -1)
        x = jnp.concatenate([x, kept], axis=-1).reshape(*s[:3], -1)[:, :tiles, :places]
        return jnp.pad(x, ((0, 0), (0, TILES - tiles), (0, 0), (0, 0))).reshape(b, TILES * places, -1)

    def gated(self, name: str, number: int, to: Sequence[int], *shape: int) -> Float[Array, '...']:
        """Embeddings of an arrangement's tiles, behind their gate."""
        table = self.param(
            name, _normal(0.02, 'tiles', 'tiles', 'positions', 'vision_out'), (self.arrangements, *shape, to[-1])
        )
        gate = self.param(f'{name}_gate', _gate(0.0), ())
        return spread(jnp.tanh(gate) * table[number].astype(jnp.float32), to, self.dtype)

    def positions(self, number: int, to: Sequence[int]) -> Float[Array, '...']:
        """Embeddings of places: those of any tile, and those of this tile of this arrangement, weighed by a gate."""
        shape = self.config.tile_places, self.config.inner
        table = self.param('positions', _normal(shape[1] ** -0.5, 'positions', 'vision_out'), shape)
        by_tile = _normal(0.02, 'tiles', 'tiles', 'positions', 'vision_out')
        of_tiles = self.param('tile_positions', by_tile, (self.arrangements, TILES, *shape))
        gate = jnp.tanh(self.param('positions_gate', _gate(0.0), ()))
        both = (1 - gate) * table.astype(jnp.float32) + gate * of_tiles[number].astype(jnp.float32)
        return spread(both, to, self.dtype)

    @property
    def arrangements(self) -> int:
        """Rows of the tables by arrangement."""
        return len(ARRANGEMENTS) + 1


class MllamaViTLayer(nn.Module):
    """A pre-norm block: attention among all tokens, then a feed-forward; both residual, in `gated` layers by a gate."""

    config: MllamaViTConfig
    dtype: DTypeLike = jnp.float32
    gated: bool = False

    @nn.compact
    def __call__(self, state: Any, mask: Bool[Array, '1 s s'], slot: Int[Array, ''] | None = None) -> Any:
        """The new state: x [b s d], or with a slot (x, kept states [k b s d]), of which x before the layer is one."""
        c = self.config
        x, kept = (state, None) if slot is None else state
        kept = kept if slot is None else kept.at[slot].set(x)  # The next layers write over it, up to one of `c.tapped`.
        head_dim = c.inner // c.heads
        norm: dict[str, Any] = dict(eps=c.norm_eps, axis='vision_out', dtype=self.dtype)
        into, out = (c.inner, c.heads, head_dim), ('vision_in', 'vision_out', 'head_dim')
        y = Norm(**norm, name='norm_attention')(x)
        q, k, v = (Linear(into, out, dtype=self.dtype, name=name)(y) for name in ('query', 'key', 'value'))
        k, v = (z.swapaxes(1, 2) for z in (k, v))
        back, axes = (c.heads, head_dim, c.inner), ('vision_in', 'head_dim', 'vision_out')
        x = x + self.gate('attention', Linear(back, axes, 2, dtype=self.dtype, name='out')(attend(q, k, v, mask)))
        axes, linear = ('vision_in', 'vision_out'), dict(bias=True, dtype=self.dtype)
        y = Norm(**norm, name='norm_ffw')(x)
        y = ACTIVATIONS[c.activation](Linear((c.inner, c.ffw_width), axes, **linear, name='up')(y))
        x = x + self.gate('ffw', Linear((c.ffw_width, c.inner), axes, **linear, name='down')(y))
        return x if slot is None else (x, kept)

    def gate(self, name: str, x: Float[Array, 'b s d']) -> Float[Array, 'b s d']:
        """What a branch adds, behind its gate if the layer has gates."""
        if not self.gated:
            return x
        return (jnp.tanh(self.param(f'gate_{name}', _gate(np.pi / 4), ())) * x.astype(jnp.float32)).astype(x.dtype)


def _padded(tiles: int, places: int, padding: int) -> Bool[np.ndarray, 's']:
    """Which of the tokens of four tiles are none: of tiles that are not there, and at the end of each."""
    return np.array([[tile >= tiles or i >= places for i in range(places + padding)] for tile in range(TILES)]).ravel()


def _normal(scale: float, *axes: str) -> Any:
    return nn.with_logical_partitioning(nn.initializers.normal(scale), axes)


def _gate(value: float) -> Any:
    return nn.with_logical_partitioning(nn.initializers.constant(value), ())
