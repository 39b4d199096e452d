"""What is learned of a row, by its class."""

from flamingo_jax.inputs.rows import Aligned, Interleaved
from flamingo_jax.training.losses import alignment, next_token

# Class of a batch -> the summed loss of it: (model, trained, frozen, batch, key, noise) -> (sum, sums for the metrics).
LOSSES = {Interleaved: next_token.loss_sum, Aligned: alignment.loss_sum}
