"""The Q-Former of BLIP-2 as it is published (Li et al. 2023, section 3.1): a BERT whose words are learnt queries.

Queries attend to one another in every layer, and in every second one to the image's features. As in BERT, norms come
after what a branch adds, and there are biases. There are no positions and no words. `qformer.py` is the ablation's,
with norms before.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.errors import UserError
from flamingo_jax.model.attention import attend
from flamingo_jax.model.component import check
from flamingo_jax.model.connectors.connector import SMALL, Connector, ConnectorConfig
from flamingo_jax.model.layers import ACTIVATIONS, Linear, Norm, scan_layers, spread


@dataclasses.dataclass(frozen=True)
class BertQFormerConfig(ConnectorConfig):
    """The defaults are BLIP-2's.

    latents: the queries, which become the media tokens.
    width, depth, heads, ffw_width: of the layers.
    every: the first of so many layers attends to the features.
    """

    kind = 'bert_qformer'
    frames: ClassVar[int] = 0  # The features of all frames are attended to, without their order.
    projects: ClassVar[bool] = True
    latents: int = 32
    width: int = 768
    depth: int = 12
    heads: int = 12
    ffw_width: int = 3072
    every: int = 2
    activation: str = 'gelu'
    norm_eps: float = 1e-12

    def __post_init__(self):
        check(self, 'resampler.', 'latents width depth heads ffw_width every', activation=ACTIVATIONS)
        for name, part, whole in (('heads', self.heads, self.width), ('every', self.every, self.depth)):
            if whole % part:
                raise UserError(f'resampler.{name} is {part}, which does not divide {whole}.')

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.width // self.heads

    def module(self, out_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain') -> 'BertQFormer':
        """See `ConnectorConfig.module`."""
        return BertQFormer(self, out_width, dtype, kernel)

    def operations(self, r: int, s: int) -> tuple[int | float, int | float]:
        """See `ConnectorConfig.operations`. Keys and values are computed from the features' own width."""
        d, seeing = self.width, self.depth // self.every
        weights = self.depth * (4 * r * d * d + 2 * r * d * self.ffw_width) + seeing * (2 * r * d * d + 2 * s * d * d)
        return 2 * weights, 2 * 2 * r * d * (self.depth * r + seeing * s)


class BertQFormer(Connector):
    """Queries, layer after layer."""

    config: BertQFormerConfig

    @nn.compact
    def __call__(self, features: Float[Array, 'b n t s d_v']) -> Float[Array, 'b n r e']:
        """The media tokens of each image by itself."""
        c = self.config
        b, n, t, s, d_v = features.shape
        x = features.astype(self.dtype).reshape(b * n, t * s, d_v)
        queries = self.param(
            'latents', nn.with_logical_partitioning(SMALL, ('latents', 'resampler')), (c.latents, c.width)
        )
        y = Norm(eps=c.norm_eps, axis='resampler', dtype=self.dtype, name='norm_in')(
            spread(queries, (b * n, c.latents, c.width), self.dtype)
        )
        group = _Layers(c, self.dtype, self.kernel, name='layers')
        y = scan_layers(group, c.depth // c.every, y, x)
        out = Linear((c.width, self.out_width), ('resampler', 'media'), bias=True, dtype=self.dtype, name='project_out')
        return out(y).reshape(b, n, c.latents, -1)


class _Layers(nn.Module):
    """`every` layers, of which the first attends to the features."""

    config: BertQFormerConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'

    @nn.compact
    def __call__(self, y: Float[Array, 'b r d'], x: Float[Array, 'b s d_v']) -> Float[Array, 'b r d']:
        for i in range(self.config.every):
            y = self.attended(f'self_{i}', y, y)
            y = y if i else self.attended('cross', y, x)
            y = self.fed(i, y)
        return y

    def attended(self, name: str, y: Float[Array, 'b r d'], x: Float[Array, 'b m d_x']) -> Float[Array, 'b r d']:
        """The queries and what they get from x, normed."""
        c = self.config
        split, axes = (c.heads, c.head_dim), ('resampler_heads', 'head_dim')
        linear: dict[str, Any] = dict(bias=True, dtype=self.dtype)

        def heads(inputs, part):
            into = 'resampler' if inputs.shape[-1] == c.width else 'vision_out'
            return Linear((inputs.shape[-1], *split), (into, *axes), **linear, name=f'{name}_{part}')(inputs)

        q, k, v = heads(y, 'query'), *(heads(x, part).swapaxes(1, 2) for part in ('key', 'value'))
        z = attend(q, k, v, kernel=self.kernel, axes=('batch', 'resampler_heads'))
        z = Linear((*split, c.width), (*axes, 'resampler'), contracted=2, **linear, name=f'{name}_out')(z)
        return Norm(eps=c.norm_eps, axis='resampler', dtype=self.dtype, name=f'{name}_norm')(y + z)

    def fed(self, i: int, y: Float[Array, 'b r d']) -> Float[Array, 'b r d']:
        """The queries and their feed-forward, normed."""
        c, linear = self.config, dict(bias=True, dtype=self.dtype)
        z = Linear((c.width, c.ffw_width), ('resampler', 'ffw'), **linear, name=f'up_{i}')(y)
        z = Linear((c.ffw_width, c.width), ('ffw', 'resampler'), **linear, name=f'down_{i}')(
            ACTIVATIONS[c.activation](z)
        )
        return Norm(eps=c.norm_eps, axis='resampler', dtype=self.dtype, name=f'ffw_{i}_norm')(y + z)
