"""The loss of a batch, by the class of its rows."""

from flamingo_jax.inputs.rows import Aligned, Interleaved, Paired, Told
from flamingo_jax.training.losses import alignment, contrastive, distillation, next_token

# Class of a batch -> its summed loss: (model, trained, frozen, batch, key, noise) -> (sum, sums for the metrics).
LOSSES = {
    Interleaved: next_token.loss_sum,
    Aligned: alignment.loss_sum,
    Told: distillation.loss_sum,
    Paired: contrastive.loss_sum,
}
# Losses that compare all rows of a batch: they take all of its micro-batches at once, [m b ...].
WHOLE = (Paired,)
