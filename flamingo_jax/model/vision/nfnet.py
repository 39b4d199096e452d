"""NFNet-F (Brock et al. 2021, arXiv:2102.06171): the family of the paper's vision trunk, which is F6 (section 2.1).

A residual network without norms. Instead, every kernel is standardised over its fan-in before it is applied, and every
activation is scaled to keep variance 1. A block divides its input by the deviation that earlier blocks have built up
(beta) and scales its output (alpha, and a learnt skip gain). The paper trained its F6 contrastively on its own data
and did not publish it; the public weights are the authors' ImageNet ones.

The trunk is usually frozen, so there is no stochastic depth, no dropout and no classifier. Parameters are stored as
published. Kernels are standardised once, when a frozen trunk is loaded (`NFNetConfig.kept`), and otherwise when used.
All blocks of a stage except the first have equal shapes: they are stacked and scanned, so that compile time does not
grow with depth.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from flamingo_jax.errors import UserError
from flamingo_jax.model.layers import ACTIVATIONS, Linear, scan_layers, spread
from flamingo_jax.model.vision.convolution import KERNEL_AXES, VECTOR_AXES, conv, grouped_conv
from flamingo_jax.model.vision.trunk import VisionConfig
from flamingo_jax.ranges import choose

# Of ImageNet's pixels in 0..255, as in the training of the published weights.
PIXEL_MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32)
PIXEL_STD = 255 * np.array([0.229, 0.224, 0.225], np.float32)
# Activation -> the factor that gives it variance 1 for an input of N(0, 1), from the authors' code.
GAINS = {'gelu': 1.7015043497085571, 'gelu_tanh': 1.7015043497085571}


@dataclasses.dataclass(frozen=True)
class NFNetConfig(VisionConfig):
    """The fields in which sizes differ. The defaults are F0.

    The arithmetic is that of the authors' code. timm's port has the exact GELU and adds an epsilon to the kernels'
    variance: activation='gelu', epsilon=1e-5.

    depths, widths: blocks and output channels of each stage; the stem has half the first width.
    group_width: channels of a group of the 3x3 convolutions.
    bottleneck: channels between a block's convolutions, as a share of its output's.
    squeeze: hidden width of the squeeze-and-excite, as a share of the block's.
    alpha: scale of a block's output.
    final_width: channels of the last 1x1 convolution, which the Resampler reads.
    resolution: height and width of the training images, in pixels (the paper's Flamingo reads 320). Other sizes work.
    activation: 'gelu_tanh' or 'gelu'.
    epsilon: added to the variance of a kernel's weights.
    """

    depths: Sequence[int] = (1, 2, 6, 3)
    widths: Sequence[int] = (256, 512, 1536, 1536)
    group_width: int = 128
    bottleneck: float = 0.5
    squeeze: float = 0.5
    alpha: float = 0.2
    final_width: int = 3072
    resolution: int = 192
    activation: str = 'gelu_tanh'
    epsilon: float = 0.0

    family: ClassVar[str] = 'nfnet'  # Its name in a bundle.
    float32_only: ClassVar[bool] = False  # Stored and computed in the dtype of the model, as in the paper.
    fit: ClassVar[str] = 'mean'  # How an image is made square (the paper's way), see `inputs/images.py`.

    def __post_init__(self):
        # JSON has lists, but a module's field must be hashable.
        object.__setattr__(self, 'depths', tuple(self.depths))
        object.__setattr__(self, 'widths', tuple(self.widths))
        if len(self.depths) != len(self.widths) or min(self.depths) < 1:
            raise UserError(
                f'An NFNet needs one width and at least one block per stage; depths are {self.depths}, '
                f'widths {self.widths}.'
            )
        if empty := [width for width in self.widths if not self.inner_width(width)]:
            raise UserError(
                f'The share {self.bottleneck} of the widths {empty} is less than one group of {self.group_width} '
                'channels.'
            )
        choose('vision', vars(self), activation=GAINS)

    @property
    def width(self) -> int:
        """d_v, the channels of the features."""
        return self.final_width

    @property
    def stem_widths(self) -> tuple[int, ...]:
        """Output channels of the stem's four convolutions."""
        return tuple(self.widths[0] // share for share in (16, 8, 4, 2))

    def spatial(self, image_size: int) -> int:
        """s, the number of features of an image. The stem halves its side twice, each later stage once."""
        return (-(-image_size // 2 ** (len(self.depths) + 1))) ** 2

    def inner_width(self, width: int) -> int:
        """Channels between the convolutions of a block with `width` output channels: a whole number of groups."""
        return int(width * self.bottleneck) // self.group_width * self.group_width

    def betas(self, stage: int) -> list[float]:
        """1 / the deviation of each block's input in a stage, when skip gains are 1.

        Each block adds alpha^2 to the variance. The first block of a stage resets it to 1, since its shortcut is a
        convolution of the divided input.
        """
        before = self.depths[stage - 1] if stage else 0
        return [(1 + blocks * self.alpha**2) ** -0.5 for blocks in (before, *range(1, self.depths[stage]))]

    def operations(self, image_size: int) -> float:
        """Operations of the forward pass; see `VisionConfig`."""
        size = image_size
        total, d = 0, 3
        for width, stride in zip(self.stem_widths, (2, 1, 1, 2), strict=True):
            size = -(-size // stride)
            total, d = total + size**2 * 9 * d * width, width
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            inner = self.inner_width(width)
            for block in range(depth):
                before, size = size, -(-size // 2) if stage and not block else size
                total += size**2 * d * width if not block else 0  # The shortcut.
                total += before**2 * d * inner + size**2 * (2 * 9 * inner * self.group_width + inner * width)
                total += 2 * width * int(width * self.squeeze)
                d = width
        return 2.0 * (total + size**2 * d * self.final_width)

    def kept(self, params: dict[str, Any]) -> dict[str, Any]:
        """The tree with its kernels standardised, float32, and therefore without their gains; see `VisionConfig`."""
        if 'gain' not in params:
            return {name: self.kept(part) if isinstance(part, dict) else part for name, part in params.items()}
        (gain,) = jax.tree.leaves(params['gain'])

        def of(kernel):
            each = functools.partial(standardise, epsilon=self.epsilon)
            return jax.vmap(each)(kernel, gain) if gain.ndim > 1 else each(kernel, gain)

        rest = {name: part for name, part in params.items() if name not in ('kernel', 'gain')}
        return rest | dict(kernel=jax.tree.map(of, params['kernel']))

    def trunk(self, dtype: DTypeLike, name: str) -> nn.Module:
        """The module; see `VisionConfig`."""
        return NFNet(self, dtype, name=name)


NFNET_F0 = NFNetConfig(depths=(1, 2, 6, 3), resolution=192)
NFNET_F1 = NFNetConfig(depths=(2, 4, 12, 6), resolution=224)
NFNET_F2 = NFNetConfig(depths=(3, 6, 18, 9), resolution=256)
NFNET_F3 = NFNetConfig(depths=(4, 8, 24, 12), resolution=320)
NFNET_F4 = NFNetConfig(depths=(5, 10, 30, 15), resolution=384)
NFNET_F5 = NFNetConfig(depths=(6, 12, 36, 18), resolution=416)
NFNET_F6 = NFNetConfig(depths=(7, 14, 42, 21), resolution=448)
NFNETS = (NFNET_F0, NFNET_F1, NFNET_F2, NFNET_F3, NFNET_F4, NFNET_F5, NFNET_F6)


class NFNet(nn.Module):
    """Pixels to a grid of features.

    config: one of the sizes above. dtype: the computation's.

    Measured with the random weights of tests/golden/make_nfnet.py, 8 blocks: features change by 1.0 % (relative L2)
    with computation in bfloat16, by 1.3 % with weights in bfloat16 as well, and by 1.1 % from the authors' arithmetic
    to timm's.
    """

    config: NFNetConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, 'b height width 3'] | UInt8[Array, 'b height width 3']
    ) -> Float[Array, 'b s d']:
        """Features of images.

        images: RGB, 0 to 255. The preprocessing belongs to the trunk and happens here.
        Returns the last convolution's features after its activation, row by row: s = ceil(height / 32) * ceil(width /
        32), d = 3072.
        """
        c, dtype = self.config, self.dtype
        x = (images.astype(jnp.float32) - PIXEL_MEAN) / PIXEL_STD
        for i, (width, stride) in enumerate(zip(c.stem_widths, (2, 1, 1, 2), strict=True)):
            x = activation(x, c.activation) if i else x
            x = StandardisedConv(width, 3, stride, epsilon=c.epsilon, dtype=dtype, name=f'stem_{i}')(x)
        # In contrastive pretraining, only the input of a block is kept for the backward pass, which computes the block
        # again: what is inside the blocks of F6 takes 2.8 GB an image of 288 x 288. A frozen trunk has no backward
        # pass.
        for stage, width in enumerate(c.widths):
            first, *rest = c.betas(stage)
            stride = 2 if stage else 1
            x = nn.remat(Block)(c, width, stride, True, dtype, name=f'first_{stage}')(x, first)
            if rest:
                block, betas = Block(c, width, dtype=dtype, name=f'rest_{stage}'), jnp.array(rest, jnp.float32)
                x = scan_layers(block, len(rest), x, betas, in_axes=0, remat=True)
        x = StandardisedConv(c.final_width, epsilon=c.epsilon, dtype=dtype, name='final')(x)
        x = activation(x, c.activation)
        return x.reshape(x.shape[0], -1, x.shape[-1])  # [b height width d] -> [b s d]


class Block(nn.Module):
    """A residual block: a 1x1 convolution to fewer channels, two grouped 3x3 ones, a 1x1 one back, squeeze and excite.

    projects: whether the shortcut is a pool and a convolution (the first block of a stage), not x itself.
    """

    config: NFNetConfig
    width: int
    stride: int = 1
    projects: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b height width d'], beta: Float[Array, ''] | float
    ) -> Float[Array, 'b height2 width2 d2']:
        c, width = self.config, self.width
        inner = c.inner_width(width)
        groups = inner // c.group_width
        convolution = functools.partial(StandardisedConv, epsilon=c.epsilon, dtype=self.dtype)

        y = activation(x, c.activation, beta)
        shortcut = x
        if self.projects:
            shortcut = y
            if self.stride > 1:
                strides = (self.stride, self.stride)
                shortcut = nn.avg_pool(y, strides, strides, 'SAME', count_include_pad=False)
            shortcut = convolution(width, name='shortcut')(shortcut)
        y = convolution(inner, name='conv_0')(y)
        y = convolution(inner, 3, self.stride, groups, name='conv_1')(activation(y, c.activation))
        y = convolution(inner, 3, 1, groups, name='conv_2')(activation(y, c.activation))
        y = convolution(width, name='conv_3')(activation(y, c.activation))
        gate = SqueezeExcite(int(width * c.squeeze), self.dtype, name='squeeze_excite')(y)
        skip_gain: Any = self.param('skip_gain', nn.with_logical_partitioning(nn.initializers.zeros, ()), ())
        # The gate is about 1/2 at first. Twice the gate keeps the variance.
        return (shortcut + y.astype(jnp.float32) * gate * (2 * c.alpha * skip_gain.astype(jnp.float32))).astype(y.dtype)


class SqueezeExcite(nn.Module):
    """A gate for each channel, from the mean of all channels over space (Hu et al. 2018)."""

    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b height width d']) -> Float[Array, 'b 1 1 d']:
        axes, d = ('vision_in', 'vision_out'), x.shape[-1]
        y = x.mean(axis=(1, 2), keepdims=True)
        y = nn.relu(Linear((d, self.hidden), axes, bias=True, dtype=self.dtype, name='squeeze')(y))
        return nn.sigmoid(Linear((self.hidden, d), axes, bias=True, dtype=self.dtype, name='excite')(y))


class StandardisedConv(nn.Module):
    """A convolution with a bias, whose kernel is standardised and scaled by a learnt gain before it is applied.

    Parameters without a gain have a kernel that was standardised before (`NFNetConfig.kept`).
    """

    width: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    epsilon: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'b height width d']) -> Float[Array, 'b height2 width2 d2']:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.width)
        fan_in = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
        kernel: Any = self.param('kernel', nn.with_logical_partitioning(fan_in, KERNEL_AXES), shape)
        vector = functools.partial(nn.with_logical_partitioning, names=VECTOR_AXES)
        if self.is_initializing() or self.has_variable('params', 'gain'):
            gain = self.param('gain', vector(nn.initializers.ones), (self.width,))
            kernel = standardise(kernel, gain, self.epsilon)
        bias = self.param('bias', vector(nn.initializers.zeros), (self.width,))
        kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
        if self.groups > 1:
            x = grouped_conv(x, kernel, self.stride, self.groups)
        else:
            x = conv(x, kernel, self.stride)
        return x + spread(bias, x.shape, self.dtype)


def standardise(
    kernel: Float[Array, 'k k d e'], gain: Float[Array, 'e'], epsilon: float = 0.0
) -> Float[Array, 'k k d e']:
    """Weights of mean 0 and variance 1 / fan-in for each output channel, times its gain; always in float32."""
    kernel, gain = kernel.astype(jnp.float32), gain.astype(jnp.float32)
    fan_in = kernel[..., 0].size
    mean, variance = kernel.mean(axis=(0, 1, 2)), kernel.var(axis=(0, 1, 2))
    # The lower bound is the authors'. It makes equal weights 0, not NaN.
    return (kernel - mean) * gain * lax.rsqrt(jnp.maximum(fan_in * (variance + epsilon), 1e-4))


def activation(x: Float[Array, '...'], name: str, beta: Float[Array, ''] | float = 1.0) -> Float[Array, '...']:
    """beta * gain * f(x), which keeps variance 1.

    In float32, since errors of a rounded gain would multiply with depth.
    """
    return (ACTIVATIONS[name](x.astype(jnp.float32)) * (GAINS[name] * beta)).astype(x.dtype)
