"""The loss of one data set (paper, section 2.4): the mean negative log-likelihood of a batch's targets.

The paper's formula sums over the tokens of a sequence, and does not say by what its code divides. Here lambda_m weighs
a mean over targets, so that a data set of short texts counts as much as its lambda says. Nor does the paper say which
tokens are targets. Here they are texts, <EOC> and <EOS>; the tokens of tags and the padding are not
(`inputs/layout.py`).
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from flamingo_jax.inputs.rows import Interleaved
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.training.objectives import chunks
from flamingo_jax.training.objectives.noise import NoiseConfig, features, text_noise
from flamingo_jax.training.objectives.objective import loss_of


@loss_of(Interleaved)
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
      sum over targets of weight * -log p(token | tokens and images before it), and sums for the metrics.
    """
    params = {**frozen, **trained}
    key_features, key_text = jax.random.split(key)
    shown = features(model, params, batch, key=key_features, noise=noise)
    counts, batch = batch.counts(), batch.lines()
    # All tokens are read, though the last has no target: a length that 2 divides often is one that kernels take.
    tokens = batch.tokens
    targets, weights = (jnp.pad(x[:, 1:], ((0, 0), (0, 1))) for x in (tokens, batch.weights))
    y = model.embed(params, tokens)
    if noise.text or noise.vocabulary:
        y += text_noise(params['lm']['embedder']['tokens'], tokens, key_text, noise=noise, model=model)
    at = model.place(tokens, batch.phi, batch.document)
    y, _ = model.decoder(params, y, at, model.media(params, shown))
    if batch.at is not None:  # The product with the vocabulary is a large part of a small model's cost.
        at = jnp.maximum(batch.at, 0)
        y = jnp.take_along_axis(y, at[..., None], axis=1)
        targets = jnp.take_along_axis(targets, at, axis=1)
        weights = jnp.where(batch.at < 0, 0, jnp.take_along_axis(weights, at, axis=1))

    def of_chunk(trained, frozen, y, others):
        targets, weights = others
        logits = model.unembed({**frozen, **trained}, y)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        answers = weights >= 1.0  # The accuracy counts targets of full weight.
        loss = jnp.sum(nll * weights)
        answered = jnp.sum(answers, dtype=jnp.float32)
        right = jnp.sum(answers & (logits.argmax(-1) == targets), dtype=jnp.float32)
        return loss, dict(loss=loss, answers=answered, right=right)

    loss, sums = chunks.summed(
        of_chunk, trained, frozen, y, others=(targets, weights), number=chunks.number(model, *targets.shape)
    )
    return loss, sums | counts
