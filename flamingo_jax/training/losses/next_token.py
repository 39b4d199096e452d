"""The loss of one data set: the mean negative log-likelihood of its targets (paper, section 2.4)."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from flamingo_jax.inputs.rows import Interleaved
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.training.losses.noise import NoiseConfig, features, text_noise


def loss_sum(
    model: Flamingo, trained: Params, frozen: Params, batch: Interleaved, key: Key[Array, ''], noise: NoiseConfig
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The summed loss of a batch, to be divided by the batch's summed weights.

    Args:
      trained: the component trees whose gradient is computed.
      frozen: the other trees. They are a separate argument, so that they have no gradient.
      batch: rows of `inputs/rows.py`.
      key: for the noise.

    Returns:
      sum over targets of weight * -log p(token | tokens and pictures before it), and sums for the metrics.
    """
    params = {**frozen, **trained}
    key_features, key_text = jax.random.split(key)
    shown = features(model, params, batch, key=key_features, noise=noise)
    tokens, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
    weights = batch.weights[:, 1:]
    added = None
    if noise.text or noise.vocabulary:
        added = text_noise(params['lm']['embedder']['tokens'], tokens, key_text, noise=noise, model=model)
    document = None if batch.document is None else batch.document[:, :-1]
    y = model.hidden(params, shown, tokens, phi=batch.phi[:, :-1], text_noise=added, document=document)
    if batch.at is not None:  # The product with the vocabulary is a large part of a small model's cost.
        unused = batch.at < 0
        at = jnp.maximum(batch.at, 0)
        y = jnp.take_along_axis(y, at[..., None], axis=1)
        targets = jnp.take_along_axis(targets, at, axis=1)
        weights = jnp.where(unused, 0, jnp.take_along_axis(weights, at, axis=1))
    logits = model.unembed(params, y)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    answers = weights >= 1.0  # The accuracy counts targets of full weight.
    sums = dict(
        loss=jnp.sum(nll * weights),
        answers=jnp.sum(answers, dtype=jnp.float32),
        right=jnp.sum(answers & (logits.argmax(-1) == targets), dtype=jnp.float32),
        tokens=jnp.sum(batch.used, dtype=jnp.float32),
        unreadable=jnp.sum(batch.unreadable, dtype=jnp.float32),
    )
    return sums['loss'], sums
