"""The loss of a data set whose pictures are aligned with their texts; not in the paper."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from flamingo_jax.inputs.rows import Aligned
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.training.losses.noise import NoiseConfig, features


def loss_sum(
    model: Flamingo, trained: Params, frozen: Params, batch: Aligned, key: Key[Array, ''], noise: NoiseConfig
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """The distance of each picture's states from those of its text, summed over a batch; not in the paper.

    After every block of the language model, the state at the picture's tag is compared with the state of the frozen
    language model, which sees no picture, at the end of the picture's text. If they agree, the language model treats
    the picture like its text. The next-token loss alone does not lead there: the quickest way to predict the next
    token is to change the last state, and the gates of earlier blocks close.

    Args:
      batch: rows of `inputs/rows.py`.
      (the others): as for `next_token.loss_sum`.

    Returns:
      sum over rows of weight * the mean over blocks of |state - text's state|^2 / |text's state|^2; and sums for the
      metrics, `right` counts the rows whose last state is nearest to that of their own text, among all texts in the
      (micro-)batch.
    """
    params = {**frozen, **trained}
    weights = batch.weight
    key_features, key_blend = jax.random.split(key)
    other = jax.random.uniform(key_blend, weights.shape, maxval=noise.blend)
    other = jnp.where(jnp.roll(weights, 1) > 0, other, 0)

    def blended(x: Float[Array, 'b ...']) -> Float[Array, 'b ...']:
        if not noise.blend:
            return x
        share = other.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
        return x + share * (jnp.roll(x, 1, axis=0) - x)

    images = blended(features(model, params, batch, key_features, noise))
    shown = model.states(params, images, batch.tokens[:, :-1], batch.phi[:, :-1])[:, :, -1]
    alone = dataclasses.replace(model.config, xattn=None, lora=None, extra_tokens=())
    read = dataclasses.replace(model, config=alone).states({'lm': params['lm']}, None, batch.text)
    read = jnp.take_along_axis(read, (batch.used - 1)[None, :, None, None], axis=2)[:, :, 0]
    shown, read = (x.swapaxes(0, 1).astype(jnp.float32) for x in (shown, read))  # [b depth d]
    read = jax.lax.stop_gradient(blended(read))
    distance = jnp.mean(jnp.sum((shown - read) ** 2, axis=-1) / jnp.sum(read**2, axis=-1), axis=1)
    between = jnp.sum((shown[:, None, -1] - read[:, -1]) ** 2, axis=-1)  # [picture text]
    right = jnp.diagonal(between) <= between.min(axis=1)  # Several rows may have the same text.
    sums = dict(
        loss=jnp.sum(distance * weights),
        answers=weights.sum(),
        right=jnp.sum(right * weights),
        tokens=jnp.sum(batch.used, dtype=jnp.float32),
        unreadable=jnp.sum(batch.unreadable, dtype=jnp.float32),
    )
    return sums['loss'], sums
