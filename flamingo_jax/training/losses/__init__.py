"""The loss of a batch, by the class of its rows."""

from flamingo_jax.inputs.rows import Aligned, Interleaved, Told
from flamingo_jax.training.losses import alignment, distillation, next_token

# Class of a batch -> its summed loss: (model, trained, frozen, batch, key, noise) -> (sum, sums for the metrics).
LOSSES = {Interleaved: next_token.loss_sum, Aligned: alignment.loss_sum, Told: distillation.loss_sum}
