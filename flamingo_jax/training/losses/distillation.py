"""Distillation from the frozen language model, which reads words in place of each picture; not in the paper.

No answers are needed: any text after any captioned picture will do. The model learns to take from a picture what the
language model takes from its caption (compare Hinton et al. 2015).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from flamingo_jax.inputs.rows import Told
from flamingo_jax.inputs.tokenizer import ENDS_OF_CHUNK
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.training.losses import chunks
from flamingo_jax.training.losses.noise import NoiseConfig, features


def loss_sum(
    model: Flamingo, trained: Params, frozen: Params, batch: Told, key: Key[Array, ''], noise: NoiseConfig
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The difference between a Flamingo's predictions and those of its teacher, summed over a batch.

    Args:
      batch: rows of `inputs/rows.py`.
      (the others): as for `next_token.loss_sum`.

    Returns:
      sum over comparisons of weight * KL(told || shown) of the next token, in nats, where the teacher's newline counts
      as <EOC>; and sums for the metrics. `right` counts the comparisons in which both have the same likeliest token.
    """
    params = {**frozen, **trained}
    images = features(model, params, batch, key=key, noise=noise)
    shown = _take(model.hidden(params, images, batch.tokens, batch.phi), batch.at)
    told = _take(model.alone.hidden({'lm': jax.lax.stop_gradient(params['lm'])}, None, batch.told), batch.told_at)

    def of_chunk(trained, frozen, shown, others):
        told, newline, weights = others
        params = {**frozen, **trained}
        shown = jax.nn.log_softmax(model.unembed(params, shown))
        told = jax.nn.softmax(model.alone.unembed({'lm': jax.lax.stop_gradient(params['lm'])}, told))
        is_newline = jnp.arange(told.shape[-1]) == newline[..., None]
        ends = jnp.sum(jnp.where(is_newline, told, 0), axis=-1, keepdims=True)
        extra = [ends if name in ENDS_OF_CHUNK else jnp.zeros_like(ends) for name in model.config.extra_tokens]
        told = jnp.concatenate([jnp.where(is_newline, 0, told), *extra], axis=-1)
        divergence = jnp.sum(told * (jnp.log(jnp.maximum(told, 1e-30)) - shown), axis=-1)
        compared = weights > 0
        loss = jnp.sum(divergence * weights)
        right = jnp.sum(compared & (shown.argmax(-1) == told.argmax(-1)), dtype=jnp.float32)
        return loss, dict(loss=loss, answers=jnp.sum(compared, dtype=jnp.float32), right=right)

    newline = jnp.broadcast_to(batch.newline[:, None], batch.weights.shape)
    loss, sums = chunks.summed(
        of_chunk,
        trained,
        frozen,
        shown,
        others=(jax.lax.stop_gradient(told), newline, batch.weights),
        number=chunks.number(model, *batch.weights.shape),
    )
    return loss, sums | batch.counts()


def _take(y: Float[Array, 'b l d'], places: Int[Array, 'b k']) -> Float[Array, 'b k d']:
    return jnp.take_along_axis(y, places[..., None], axis=1)
