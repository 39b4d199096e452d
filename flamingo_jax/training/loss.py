"""The loss of one data set: mean negative log-likelihood of its targets (paper section 2.4), or pictures aligned with texts."""

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
    # Largest share of another picture in an aligned one, and of what that means in what is learned (mixup, Zhang et al. 2018).
    blend: float = 0.0
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
    images = _features(model, params, batch, key_features, noise) if 'images' in batch else None
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


def alignment_sum(
    model: Flamingo, trained: Params, frozen: Params, batch: Batch, key: Key[Array, ''], noise: NoiseConfig
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """How far a picture is from meaning what its text says, summed over a batch; not in the paper.

    After every block of the language model, the state at the picture's tag is to be what the frozen language model, which sees
    no picture, has at the end of the picture's text. Then whatever it does with the text it does with the picture. Next tokens
    alone do not lead there: they are told soonest by what is added after the last block, and the gates of the others close.

    Args:
      batch: tokens, weights and phi [b s], images [b 1 ...], text [b l] and ends [b], of `inputs/interleave.py: pair`.
      (the others): as of `loss_sum`.

    Returns:
      sum over rows of weight * the mean over blocks of |state - text's state|^2 / |text's state|^2; and sums for the metrics,
      `right` being the rows whose last state is nearest to that of their own text, of all texts in the (micro-)batch.
    """
    params = {**frozen, **trained}
    weights = batch['weights'][:, -1]
    key_features, key_blend = jax.random.split(key)
    other = jax.random.uniform(key_blend, weights.shape, maxval=noise.blend)
    other = jnp.where(jnp.roll(weights, 1) > 0, other, 0)

    def blended(x: Float[Array, 'b ...']) -> Float[Array, 'b ...']:
        if not noise.blend:
            return x
        share = other.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
        return x + share * (jnp.roll(x, 1, axis=0) - x)

    images = blended(_features(model, params, batch, key_features, noise))
    shown = model.states(params, images, batch['tokens'][:, :-1], batch['phi'][:, :-1])[:, :, -1]
    alone = dataclasses.replace(model.config, xattn=None, lora=None, extra_tokens=())
    read = dataclasses.replace(model, config=alone).states({'lm': params['lm']}, None, batch['text'])
    read = jnp.take_along_axis(read, batch['ends'][None, :, None, None], axis=2)[:, :, 0]
    shown, read = (x.swapaxes(0, 1).astype(jnp.float32) for x in (shown, read))  # [b depth d]
    read = jax.lax.stop_gradient(blended(read))
    distance = jnp.mean(jnp.sum((shown - read) ** 2, axis=-1) / jnp.sum(read**2, axis=-1), axis=1)
    between = jnp.sum((shown[:, None, -1] - read[:, -1]) ** 2, axis=-1)  # [picture text]
    right = jnp.diagonal(between) <= between.min(axis=1)  # The same text may stand in several rows.
    sums = dict(
        loss=jnp.sum(distance * weights),
        answers=weights.sum(),
        right=jnp.sum(right * weights),
        tokens=jnp.sum(batch['text'] != 0, dtype=jnp.float32),
        unreadable=jnp.sum(batch['unreadable'], dtype=jnp.float32),
    )
    return sums['loss'], sums


def _features(
    model: Flamingo, params: Params, batch: Batch, key: Key[Array, ''], noise: NoiseConfig
) -> Float[Array, 'b n t s d_v']:
    images = batch['images']
    if images.ndim == 6:
        images = model.features(params, images)
    if noise.feature_dropout:
        b, n, *_, d_v = images.shape
        keep = jax.random.bernoulli(key, 1 - noise.feature_dropout, (b, n, 1, 1, d_v))
        images = jnp.where(keep, images / (1 - noise.feature_dropout), 0).astype(images.dtype)
    return images


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
