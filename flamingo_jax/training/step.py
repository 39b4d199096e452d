"""One training step: gradients of every data set, accumulated, then one update (paper appendix A.4.2)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from flamingo_jax.inputs.pipeline import Batch
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.training import sharding
from flamingo_jax.training.loss import NoiseConfig, loss_sum
from flamingo_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def make_step(
    model: Flamingo,
    optimizer: optax.GradientTransformation,
    loss_weights: dict[str, float],
    micro_batches: int,
    noise: NoiseConfig,
    where: TrainState,
) -> Callable[[TrainState, Params, dict[str, Batch]], tuple[TrainState, Metrics]]:
    """The jitted step.

    Args:
      loss_weights: lambda_m of each data set.
      micro_batches: each batch is cut into so many, whose gradients are accumulated by a scan; the result is that of
        the whole batch.
      where: the state's shardings. The new state lies as the old one did; left to the compiler it may not, and the
        second step would be compiled anew.

    Returns:
      step(state, frozen, batches) -> (new state, metrics). The old state's buffers are donated. Metrics are on the
      devices; reading them waits for the step.
    """

    mesh = where.step.mesh

    def share(grads: Params) -> Params:
        """Each copy of the model keeps its share of the gradient, as it has its share of the moments."""
        return jax.tree.map(
            lambda x, w: jax.lax.with_sharding_constraint(x, sharding.over_data(w, x.shape)), grads, where.params
        )

    @functools.partial(jax.jit, donate_argnames='state', out_shardings=(where, None))
    def step(state: TrainState, frozen: Params, batches: dict[str, Batch]) -> tuple[TrainState, Metrics]:
        with sharding.activations(mesh):
            return update(state, frozen, batches)

    def update(state: TrainState, frozen: Params, batches: dict[str, Batch]) -> tuple[TrainState, Metrics]:
        grads = share(jax.tree.map(jnp.zeros_like, state.params))
        metrics = {}
        for number, (name, batch) in enumerate(sorted(batches.items())):
            key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), number)
            total = jnp.maximum(batch['weights'][:, 1:].sum(), 1e-6)

            def weighted_loss(params, batch, key, weight=loss_weights[name], total=total):
                loss, sums = loss_sum(model, params, frozen, batch, key, noise)
                return weight * loss / total, sums

            def accumulate(grads, xs, weighted_loss=weighted_loss):
                new, sums = jax.grad(weighted_loss, has_aux=True)(state.params, *xs)
                return jax.tree.map(jnp.add, grads, share(new)), sums

            # Every so many-th row, so that each device has rows of its own in each micro-batch, and none are moved.
            micro = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
            grads, sums = jax.lax.scan(accumulate, grads, (micro, jax.random.split(key, micro_batches)))
            sums = jax.tree.map(jnp.sum, sums)
            metrics |= {
                f'{name}/loss': sums['loss'] / total,
                f'{name}/accuracy': sums['right'] / jnp.maximum(sums['answers'], 1),
                f'{name}/tokens': sums['tokens'],
                f'{name}/unreadable': sums['unreadable'],
            }
        metrics['loss'] = sum(loss_weights[name] * metrics[f'{name}/loss'] for name in batches)
        metrics['grad_norm'] = optax.global_norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if 'xattn' in params:
            for alpha in ('alpha_xattn', 'alpha_dense'):  # Figure 6 of the paper: the gates open during training.
                metrics[f'gates/{alpha}'] = jnp.abs(jnp.tanh(params['xattn'][alpha])).mean()
        return TrainState(state.step + 1, params, opt_state, state.key), metrics

    return step
