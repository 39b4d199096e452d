"""One training step: the accumulated gradients of all data sets, then one update (paper, appendix B.1.2)."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from flamingo_jax.inputs.rows import COUNTS, Batch
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.model.layers import constrain
from flamingo_jax.parallel import compiler, rules
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.training.objectives.noise import NoiseConfig
from flamingo_jax.training.objectives.objective import loss_sum
from flamingo_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def make_step(
    model: Flamingo,
    optimizer: optax.GradientTransformation,
    loss_weights: dict[str, float],
    micro_batches: dict[str, int],
    noise: NoiseConfig,
    shardings: TrainState,
) -> Callable[[TrainState, Params, dict[str, Batch]], tuple[TrainState, Metrics]]:
    """The jitted step.

    Args:
      loss_weights: lambda_m of each data set.
      micro_batches: the number of parts into which each data set's batch is cut. A scan accumulates their gradients;
        the result is that of the whole batch.
      shardings: the state's shardings. The new state keeps them. If the compiler chose others, the second step would
        have to be compiled again.

    Returns:
      step(state, frozen, batches) -> (new state, metrics). The old state's buffers are donated. Metrics are on the
      devices; reading them waits for the step. A step whose loss or gradient is not finite is skipped: only the step
      number, and with it the position in the data, advances, and the metric 'skipped' is 1. So is one in which nothing
      has a weight: its loss is 0 / 0, and momentum and decay alone would move the parameters.

    Every micro-batch reads all weights. So a frozen trunk encodes all images first, in one loop, and products with
    trained weights read copies in the computation's dtype, which are made once a step. If the trunk is trained, or the
    model is two towers, it runs inside the loss instead. A loss that compares rows adds over micro-batches itself, and
    reads the weights.
    """

    mesh = cast(Any, shardings).step.mesh

    def share(grads: Params) -> Params:
        """Each copy of the model keeps its share of the gradient, as it does of the moments."""
        return jax.tree.map(
            lambda x, w: jax.lax.with_sharding_constraint(x, rules.over_data(w, x.shape)), grads, shardings.params
        )

    how = dict(donate_argnames='state', out_shardings=(shardings, None), compiler_options=compiler.options(mesh))

    @functools.partial(jax.jit, **how)
    def step(state: TrainState, frozen: Params, batches: dict[str, Batch]) -> tuple[TrainState, Metrics]:
        with rules.activations(mesh):
            return update(state, frozen, batches)

    def update(state: TrainState, frozen: Params, batches: dict[str, Batch]) -> tuple[TrainState, Metrics]:
        weights = {name: batch.total_weight() for name, batch in batches.items()}
        totals = {name: jnp.maximum(weight, 1e-6) for name, weight in weights.items()}
        step_key = jax.random.fold_in(state.key, state.step)
        keys = {
            name: jax.random.split(jax.random.fold_in(step_key, number), micro_batches[name])
            for number, name in enumerate(sorted(batches))
        }
        batches = encode(model, mesh, frozen, batches, parts=max(micro_batches[name] for name in batches))
        copies = working_copies(model, state.params)

        def add(name, grads, batch_and_key):
            batch, key = batch_and_key

            def weighted_loss(params):
                loss, sums = loss_sum(batch, model, params, frozen, key, noise)
                return loss_weights[name] * loss / totals[name], sums

            # The scans within these losses would sum the gradients of bfloat16 copies in bfloat16.
            of = state.params if batch.compares_rows else copies
            new, sums = jax.grad(weighted_loss, has_aux=True)(of)
            return jax.tree.map(lambda total, x: total + x.astype(total.dtype), grads, share(new)), sums

        grads, sums = share(jax.tree.map(jnp.zeros_like, state.params)), {}
        for name, batch in batches.items():
            parts, add_one = cut(batch, micro_batches[name]), functools.partial(add, name)
            if batch.compares_rows:  # Its micro-batches are compared with one another.
                grads, sums[name] = add_one(grads, (parts, keys[name][0]))
            else:
                grads, sums[name] = jax.lax.scan(add_one, grads, (parts, keys[name]))
        metrics = {}
        for name, of in jax.tree.map(jnp.sum, sums).items():
            metrics |= {
                f'{name}/loss': jnp.where(weights[name] > 0, of['loss'] / totals[name], jnp.nan),
                f'{name}/accuracy': of['right'] / jnp.maximum(of['answers'], 1),
            }
            metrics |= {f'{name}/{count}': of[count] for count in COUNTS}
        # A data set that has nothing to learn in this step adds nothing.
        terms = [jnp.where(weights[name] > 0, loss_weights[name] * metrics[f'{name}/loss'], 0) for name in batches]
        metrics['loss'] = jnp.where(sum(weights.values()) > 0, sum(terms), jnp.nan)
        metrics['grad_norm'] = optax.tree.norm(grads)
        # The norm is finite only if every gradient is. `where` instead of a condition would keep the old moments in
        # memory beside the new ones.
        finite = jnp.isfinite(metrics['loss']) & jnp.isfinite(metrics['grad_norm'])

        def learn(params: Params, opt_state: optax.OptState) -> tuple[Params, optax.OptState]:
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return cast(Params, optax.apply_updates(params, updates)), opt_state

        params, opt_state = jax.lax.cond(finite, learn, lambda *same: same, state.params, state.opt_state)
        metrics['skipped'] = 1 - finite.astype(jnp.float32)
        for alpha in ('alpha_xattn', 'alpha_dense'):  # Figure 6 of the paper: the gates open during training.
            if alpha in params.get('xattn', {}):
                metrics[f'gates/{alpha}'] = jnp.abs(jnp.tanh(params['xattn'][alpha])).mean()
        return TrainState(state.step + 1, params, opt_state, state.key), metrics

    return step


def working_copies(model: Flamingo, params: Params) -> Params:
    """The trained trees as a step's products read them: kernels in the computation's dtype, all else as it is.

    A product casts its kernel anyway, and its gradient comes in that dtype; so the numbers are the same. What is added
    or scaled stays float32, and so do the kernels of a trunk, which may standardise them in float32.
    """

    def of(path, x):
        tree, leaf = path[0].key, path[-1].key
        return x.astype(model.dtype) if leaf == 'kernel' and tree != 'vision' else x

    return jax.tree_util.tree_map_with_path(of, params)


def encode(model: Flamingo, mesh: Mesh, frozen: Params, batches: dict[str, Batch], parts: int = 1) -> dict[str, Batch]:
    """Pixels -> features, in one loop of the trunk over equal parts of the images of all data sets.

    They differ in n and t only, and the trunk compiles slowly. Their features are small: 614 kB an image of 320 pixels
    in NFNet-F6, twice its pixels.

    If the trunk is trained, or the model is two towers, it runs inside the loss instead.
    """
    pixels = {name: batch.images for name, batch in batches.items() if batch.images is not None}
    if not pixels or model.config.xattn is None or 'vision' not in frozen:
        return batches
    # Images are joined within the rows of each device, so that none moves to another device. Blank ones are added
    # until all parts have the same number, and all devices of a row (tensor).
    rows, tensor = meshes.row_shards(mesh), mesh.shape['tensor']
    side_by_side = [images.reshape(rows, -1, 1, *images.shape[3:]) for images in pixels.values()]
    together = jnp.concatenate(side_by_side, axis=1)
    size = -(-together.shape[1] // (parts * tensor)) * tensor
    blank = -together.shape[1] % size
    together = jnp.pad(together, ((0, 0), (0, blank), *[(0, 0)] * 4))
    together = together.reshape(rows, -1, size, *together.shape[2:]).swapaxes(0, 1)
    features = jax.lax.map(
        lambda part: model.features(frozen, part), constrain(together, None, 'batch', *[None] * (together.ndim - 2))
    )
    features = features.swapaxes(0, 1).reshape(rows, -1, *features.shape[3:])
    ends = np.cumsum([images.shape[1] for images in side_by_side])
    return batches | {
        name: batches[name]._replace(images=None, features=part.reshape(*images.shape[:3], *part.shape[3:]))
        for (name, images), part in zip(pixels.items(), jnp.split(features, ends, axis=1)[:-1], strict=True)
    }


def cut(batch: Batch, micro_batches: int) -> Batch:
    """Cuts a batch into m micro-batches along a new first dimension: number i has rows i, i + m, ...

    So each device has rows of its own in every micro-batch, and no row moves to another device.
    """
    return jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
