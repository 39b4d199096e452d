"""The projector of LLaVA 1.5 (Liu et al. 2023): each feature by itself, through two linear maps with biases.

It has no norms, as published models have it. `mlp.py` is the ablation of the paper's table 3.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.component import check
from flamingo_jax.model.connectors.connector import Connector, ConnectorConfig
from flamingo_jax.model.layers import ACTIVATIONS, Linear


@dataclasses.dataclass(frozen=True)
class ProjectorConfig(ConnectorConfig):
    """An image has a media token for each feature.

    width: between the two maps; LLaVA's is that of the language model.
    """

    kind = 'projector'
    frames: ClassVar[int] = 0  # The frames of a video are averaged.
    projects: ClassVar[bool] = True
    width: int = 4096
    activation: str = 'gelu'
    bias: bool = True

    def __post_init__(self):
        check(self, 'resampler.', 'width', activation=ACTIVATIONS)

    def module(self, out_width: int, dtype: DTypeLike = jnp.float32, kernel: str = 'plain') -> 'Projector':
        """See `ConnectorConfig.module`."""
        return Projector(self, out_width, dtype, kernel)

    def operations(self, r: int, s: int) -> tuple[int | float, int | float]:
        """See `ConnectorConfig.operations`. The two maps are its ends, and there is nothing between them."""
        return 0, 0


class Projector(Connector):
    """Each feature, projected."""

    config: ProjectorConfig

    @nn.compact
    def __call__(self, features: Float[Array, 'b n t s d_v']) -> Float[Array, 'b n s e']:
        """The media tokens of each image by itself: the mean over its frames."""
        c, d_v = self.config, features.shape[-1]
        into = Linear((d_v, c.width), ('vision_out', 'ffw'), bias=c.bias, dtype=self.dtype, name='up')
        out = Linear((c.width, self.out_width), ('ffw', 'media'), bias=c.bias, dtype=self.dtype, name='down')
        return out(ACTIVATIONS[c.activation](into(features.astype(self.dtype)))).mean(axis=2)
