"""Noise on what is read, as regularisation of small runs; the paper's sizes need none."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from flamingo_jax.inputs.rows import Batch
from flamingo_jax.model.flamingo import Flamingo, Params


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """Regularisation of small runs on few pictures and little text; the paper's size needs none of it.

    The two on text are for pretraining a language model, in half of the rows. Their unit is the embedding's own deviation.
    """

    feature_dropout: float = 0.0  # Share of each picture's feature channels set to zero.
    # Largest share of another picture in an aligned one, and of what that means in what is learned (mixup, Zhang et al. 2018).
    blend: float = 0.0
    text: float = 0.0  # Gaussian noise on the embedded text, each token by itself.
    vocabulary: float = 0.0  # The same wherever a row repeats a token: it must be recognised by likeness, not by heart.


def features(
    model: Flamingo, params: Params, batch: Batch, key: Key[Array, ''], noise: NoiseConfig
) -> Float[Array, 'b n t s d_v'] | None:
    """The features of a batch's pictures, of the trunk or computed before, some channels dropped; None for text alone."""
    features = batch.features
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
    v, d = embeddings.shape
    key_table, key_shift, key_tokens, key_rows = jax.random.split(key, 4)
    table = jax.random.normal(key_table, (v, d), model.dtype)
    shift = jax.random.randint(key_shift, (len(tokens), 1), 0, v)  # A table for every row, at the price of one.
    total = noise.text * jax.random.normal(key_tokens, (*tokens.shape, d), model.dtype)
    total += noise.vocabulary * table[(tokens + shift) % v]
    scale = jnp.std(embeddings.astype(jnp.float32)) * (d**0.5 if model.config.lm.scale_embeddings else 1)
    return (scale * total * jax.random.bernoulli(key_rows, 0.5, (len(tokens), 1, 1))).astype(model.dtype)
