"""Noise on the inputs, as regularisation of small runs. The paper's sizes need none."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from flamingo_jax.inputs.rows import Batch
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.ranges import require


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """Regularisation of small runs on few images and little text.

    `text` and `vocabulary` are for pretraining a language model and apply to half of the rows. Their unit is the
    standard deviation of the embedding.
    """

    feature_dropout: float = 0.0  # Share of each image's feature channels that is set to zero.
    # Largest share of another image that is mixed into an aligned one, and into its target (mixup, Zhang et al.
    # 2018).
    blend: float = 0.0
    text: float = 0.0  # Gaussian noise on the embedded text, each token by itself.
    # The same noise wherever a row repeats a token: tokens must be told by comparison, not from memory.
    vocabulary: float = 0.0

    def __post_init__(self):
        """ValueError for a number that is out of its range."""
        require('config.noise', vars(self), '0 or more and below 1', 'feature_dropout')
        require('config.noise', vars(self), 'from 0 to 1', 'blend')
        require('config.noise', vars(self), '0 or more', 'text', 'vocabulary')


def features(
    model: Flamingo, params: Params, batch: Batch, key: Key[Array, ''], noise: NoiseConfig
) -> Float[Array, 'b n t s d_v'] | None:
    """The features of a batch's images, from the trunk or the batch, with channels dropped; None for text alone."""
    features: Any = batch.features
    if batch.images is not None:
        features = model.features(params, batch.images)
    if features is not None and noise.feature_dropout:
        b, n, *_, d_v = features.shape
        keep = jax.random.bernoulli(key, 1 - noise.feature_dropout, (b, n, 1, 1, d_v))
        features = jnp.where(keep, features / (1 - noise.feature_dropout), 0).astype(features.dtype)
    return features


def text_noise(
    embeddings: Float[Array, 'v d'], tokens: Int[Array, 'b l'], key: Key[Array, ''], noise: NoiseConfig, model: Flamingo
) -> Float[Array, 'b l d']:
    """Gaussian noise for the embedded text of half of the rows; 0 for the others.

    Args:
      embeddings: the language model's table. The standard deviation of the text that it embeds is the unit.
      tokens: the text.
      noise: `text` is drawn for each token, `vocabulary` for each word: a row's equal tokens get the same.
      model: the noise has its dtype, and its config says whether embeddings are scaled.
    """
    v, d = embeddings.shape
    key_table, key_shift, key_tokens, key_rows = jax.random.split(key, 4)
    table = jax.random.normal(key_table, (v, d), model.dtype)
    # A shift gives each row a table of its own for the cost of one.
    shift = jax.random.randint(key_shift, (len(tokens), 1), 0, v)
    total = noise.text * jax.random.normal(key_tokens, (*tokens.shape, d), model.dtype)
    total += noise.vocabulary * table[(tokens + shift) % v]
    scale = jnp.std(embeddings.astype(jnp.float32)) * (d**0.5 if model.config.lm.scale_embeddings else 1)
    return (scale * total * jax.random.bernoulli(key_rows, 0.5, (len(tokens), 1, 1))).astype(model.dtype)
