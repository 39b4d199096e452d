"""The Perceiver Resampler (paper section 2.1, appendix A.1.1, figure 5): any number of visual features -> R latents.

Where the paper gives no detail, this follows OpenFlamingo: separate layer norms for features and latents, linear maps
without biases, a final layer norm. Two linear maps are our reading: one from features to the resampler's width before
the layers (which gives the paper's 194M parameters), and one from the latents to the language model's width after
them. The resamplers of OpenFlamingo and IDEFICS have neither (`projects=False`), and no time embeddings.

`ResamplerConfig.kind` replaces the layers by an MLP (ablation, table 3 row vi; the paper gives no details of its own),
by one attention (not in the paper), or by BLIP-2's.

In this file d is the width of the resampler, and e that of its media tokens.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flamingo_jax.model.attention import attend
from flamingo_jax.model.config import ResamplerConfig
from flamingo_jax.model.layers import FeedForward, Linear, Norm, constrain, scan_layers, spread


def _attended(
    c: ResamplerConfig, dtype: DTypeLike, kernel: str, latents: Float[Array, 'b r d'], x: Float[Array, 'b s d']
):
    """The latents' attention to x, both normed already. Its maps belong to the compact module that calls it."""
    shape, axes = (c.width, c.heads, c.head_dim), ('resampler', 'resampler_heads', 'head_dim')
    q, k, v = (
        constrain(Linear(shape, axes, dtype=dtype, name=name)(inputs), 'batch', None, 'resampler_heads', None)
        for name, inputs in (('query', latents), ('key', x), ('value', x))
    )
    if c.qk_norms:
        head = dict(axis='head_dim', dtype=dtype)
        q, k = Norm(**head, name='norm_query')(q), Norm(**head, name='norm_key')(k)
    k, v = (y.swapaxes(1, 2) for y in (k, v))
    out = Linear(shape[1:] + shape[:1], axes[1:] + axes[:1], contracted=2, dtype=dtype, name='out')
    return out(attend(q, k, v, kernel=kernel, axes=('batch', 'resampler_heads')))


def _fed(c: ResamplerConfig, dtype: DTypeLike, latents: Float[Array, 'b r d']):
    """The latents with their feed-forward added, which belongs to the compact module that calls it."""
    latents = constrain(latents, 'batch', None, 'resampler')
    ffw = FeedForward(c.ffw_multiplier * c.width, c.activation, axis='resampler', dtype=dtype, name='ffw')
    return latents + ffw(Norm(axis='resampler', dtype=dtype, name='norm_ffw')(latents))


class ResamplerLayer(nn.Module):
    """Latents attend to features and latents, then a feed-forward; both residual."""

    config: ResamplerConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, latents: Float[Array, 'b r d'], features: Float[Array, 'b s d']) -> Float[Array, 'b r d']:
        """One layer; the keys and values come from the features and the latents, concatenated (figure 5)."""
        c = self.config
        norm = dict(axis='resampler', dtype=self.dtype)
        normed_latents = Norm(**norm, name='norm_latents')(latents)
        normed_features = Norm(**norm, name='norm_features')(features)
        x = jnp.concatenate([normed_features, normed_latents], axis=1)
        latents = latents + _attended(c, self.dtype, self.kernel, latents=normed_latents, x=x)
        return _fed(c, self.dtype, latents)


class QFormerLayer(nn.Module):
    """BLIP-2's layer: latents attend to one another, then to the features, then a feed-forward; all residual.

    In BLIP-2 (Li et al. 2023, section 3.1) every second layer has the attention to the features, norms come after the
    residual, and the layers begin as BERT's. Here every layer has it, and norms come before, as elsewhere.
    """

    config: ResamplerConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, latents: Float[Array, 'b r d'], features: Float[Array, 'b s d']) -> Float[Array, 'b r d']:
        """One layer."""
        c = self.config
        norm = dict(axis='resampler', dtype=self.dtype)
        normed = Norm(**norm, name='norm_self')(latents)
        latents = latents + Attention(c, self.dtype, self.kernel, name='self_attention')(normed, normed)
        normed = Norm(**norm, name='norm_latents')(latents)
        features = Norm(**norm, name='norm_features')(features)
        latents = latents + Attention(c, self.dtype, self.kernel, name='cross_attention')(normed, features)
        return _fed(c, self.dtype, latents)


class Attention(nn.Module):
    """One of a layer's two attentions."""

    config: ResamplerConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, latents: Float[Array, 'b r d'], features: Float[Array, 'b s d']) -> Float[Array, 'b r d']:
        """The attended values; both arguments are normed already."""
        return _attended(self.config, self.dtype, self.kernel, latents=latents, x=features)


class Mlp(nn.Module):
    """The paper's ablation of the layers (table 3 row vi): two linear maps, applied to each feature.

    With ffw_multiplier = depth * (2 + that of the layers) it has as many parameters as `depth` layers with heads *
    head_dim = width.
    """

    config: ResamplerConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, 'b s d']) -> Float[Array, 'b s d']:
        """Maps each feature by itself."""
        c = self.config
        ffw = FeedForward(c.ffw_multiplier * c.width, c.activation, axis='resampler', dtype=self.dtype, name='ffw')
        return ffw(Norm(axis='resampler', dtype=self.dtype, name='norm_features')(features))


class Pooling(nn.Module):
    """An ablation of the layers, not in the paper: the latents attend to the features once."""

    config: ResamplerConfig
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, latents: Float[Array, 'b r d'], features: Float[Array, 'b s d']) -> Float[Array, 'b r d']:
        """The attended values, with features alone as keys and without a residual."""
        c = self.config
        latents = Norm(axis='resampler', dtype=self.dtype, name='norm_latents')(latents)
        features = Norm(axis='resampler', dtype=self.dtype, name='norm_features')(features)
        return _attended(c, self.dtype, self.kernel, latents=latents, x=features)


class Resampler(nn.Module):
    """Features of an image (or of the frames of a video) -> media tokens, by default `config.latents`.

    out_width: width of the media tokens, if the config projects to it: the language model's.
    """

    config: ResamplerConfig
    out_width: int
    dtype: DTypeLike = jnp.float32
    kernel: str = 'plain'  # Of the attention.

    @nn.compact
    def __call__(self, features: Float[Array, 'b n t s d_v']) -> Float[Array, 'b n r e']:
        """Resamples each image by itself.

        Args:
          features: n images of t frames of s spatial features. t may differ from the number of frames in training: time
            embeddings are linearly interpolated (paper: 8 frames in training, 30 at inference).

        Returns:
          r latents per image. For the kind 'mlp', r is s, and each is the mean over frames.
        """
        c = self.config
        b, n, t, s, d_v = features.shape
        x = features.astype(self.dtype)
        if c.projects:
            x = Linear((d_v, c.width), ('vision_out', 'resampler'), dtype=self.dtype, name='project_in')(x)
        # Small compared with the features. With latents of N(0, 1) the media tokens of all pictures are nearly equal
        # at first, and a short run never learns to tell them apart.
        small = nn.initializers.normal(0.02)
        if c.kind != 'mlp':
            latents = self.param(
                'latents', nn.with_logical_partitioning(small, ('latents', 'resampler')), (c.latents, c.width)
            )
        if c.frames:
            time = self.param('time', nn.with_logical_partitioning(small, ('frames', 'resampler')), (c.frames, c.width))
            if t not in (1, c.frames):  # An image is a video of one frame and gets the first time embedding.
                time = jax.image.resize(time, (t, c.width), 'linear')
            x = x + spread(time[:t, None], x.shape, self.dtype)
        x = constrain(x.reshape(b * n, t * s, c.width), 'batch', None, 'resampler')
        if c.kind == 'mlp':
            media = Mlp(c, self.dtype, name='mlp')(x).reshape(b * n, t, s, c.width).mean(axis=1)
        else:
            media = spread(latents, (b * n, c.latents, c.width), self.dtype)
            if c.kind == 'pooling':
                media = Pooling(c, self.dtype, self.kernel, name='pooling')(media, x)
            else:
                layer = QFormerLayer if c.kind == 'qformer' else ResamplerLayer
                media = scan_layers(layer(c, self.dtype, self.kernel, name='layers'), c.depth, media, x)
        media = Norm(axis='resampler', dtype=self.dtype, name='norm_out')(media)
        if c.projects:
            out = Linear((c.width, self.out_width), ('resampler', 'media'), dtype=self.dtype, name='project_out')
            media = out(media)
        return media.reshape(b, n, -1, media.shape[-1])
