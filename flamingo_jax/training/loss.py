"""The loss of one data set: mean negative log-likelihood of its targets (paper section 2.4)."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from flamingo_jax.inputs.pipeline import Batch
from flamingo_jax.model.flamingo import Flamingo, Params


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """Regularisation of small runs on few pictures and little text; the paper's size needs none of it.

    The two on text are for pretraining a language model, in half of the rows. Their unit is the embedding's own deviation.
    """

    feature_dropout: float = 0.0  # Share of each picture's feature channels set to zero.
    text: float = 0.0  # Gaussian noise on the embedded text, each token by itself.
    vocabulary: float = 0.0  # The same wherever a row repeats a token: it must be recognised by likeness, not by heart.


def loss_sum(
    model: Flamingo, trained: Params, frozen: Params, batch: Batch, key: Key[Array, ''], noise: NoiseConfig
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The summed loss of a batch, to be divided by the batch's summed weights.

    Args:
      trained: component trees that the gradient is taken of.
      frozen: the others. Being another argument, they have no gradient.
      batch: tokens [b l], weights [b l] (of each token as a target), phi [b l] and, unless the data is text alone,
        images (pixels or features).
      key: for the noise.

    Returns:
      sum over targets of weight * -log p(token | tokens and pictures before it), and sums for the metrics.
    """
    params = {**frozen, **trained}
    key_features, key_text = jax.random.split(key)
    images = batch['images'] if 'images' in batch else None
    if images is not None and images.ndim == 6:
        images = model.features(params, images)
    if images is not None and noise.feature_dropout:
        b, n, *_, d_v = images.shape
        keep = jax.random.bernoulli(key_features, 1 - noise.feature_dropout, (b, n, 1, 1, d_v))
        images = jnp.where(keep, images / (1 - noise.feature_dropout), 0).astype(images.dtype)
    tokens, targets = batch['tokens'][:, :-1], batch['tokens'][:, 1:]
    weights = batch['weights'][:, 1:]
    text_noise = None
    if noise.text or noise.vocabulary:
        text_noise = _text_noise(params['lm']['embedder']['tokens'], tokens, key_text, noise, model)
    logits = model.logits(params, images, tokens, batch['phi'][:, :-1], text_noise)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    answers = weights >= 1.0  # Targets of full weight: the accuracy is of these.
    sums = dict(
        loss=jnp.sum(nll * weights),
        answers=jnp.sum(answers, dtype=jnp.float32),
        right=jnp.sum(answers & (logits.argmax(-1) == targets), dtype=jnp.float32),
        tokens=jnp.sum(batch['tokens'] != 0, dtype=jnp.float32),
        unreadable=jnp.sum(batch['unreadable'], dtype=jnp.float32),
    )
    return sums['loss'], sums


def _text_noise(
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
