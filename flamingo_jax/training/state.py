"""What a training step changes: the step, the trained trees, their moments, the random key."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, Key

from flamingo_jax.errors import UserError
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules


class TrainState(NamedTuple):
    """Everything in a checkpoint except the position in the data. Frozen trees are not part of it."""

    step: Int[Array, '']
    params: Params  # Trained trees only, float32.
    opt_state: optax.OptState
    key: Key[Array, '']


@jax.jit
def is_finite(state: TrainState) -> Bool[Array, '']:
    """Whether every parameter and moment is finite."""
    leaves = jax.tree.leaves((state.params, state.opt_state))
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def new_state(
    model: Flamingo, optimizer: optax.GradientTransformation, trained: tuple[str, ...], seed: int, mesh: Mesh
) -> TrainState:
    """A new state, created in shards: no device ever holds all of it.

    Args:
      trained: the component trees to train. All are initialised at random; pretrained ones are put in afterwards.

    Raises:
      ValueError: as for `lay_out`.
    """
    make, shapes = lay_out(model, optimizer, trained, mesh)
    return jax.jit(make, out_shardings=jax.tree.map(lambda x: x.sharding, shapes))(jax.random.key(seed))


def boxed_shapes(model: Flamingo) -> Params:
    """The shapes of the model's parameters, boxed with their logical axes."""
    return _boxed_shapes(dataclasses.replace(model, remat=''))


@functools.lru_cache(maxsize=1)  # A large model takes seconds, and a search asks for the same one on many meshes.
def _boxed_shapes(model: Flamingo) -> Params:
    return jax.eval_shape(model.init, jax.random.key(0))


def lay_out(
    model: Flamingo, optimizer: optax.GradientTransformation, trained: tuple[str, ...], mesh: Mesh
) -> tuple[Callable[[Key[Array, '']], TrainState], TrainState]:
    """A function that makes a state from a random key, and the state's shapes with their shardings.

    Nothing is computed.

    Raises:
      ValueError: the model does not have a component, or the mesh does not divide a parameter.
    """
    boxed = boxed_shapes(model)
    if unknown := sorted(set(trained) - set(boxed)):
        raise UserError(
            f'config.trained has {unknown}, which this model does not have. Its components are {sorted(boxed)}.'
        )

    def make(key):
        params_key, key = jax.random.split(key)
        params = {name: tree for name, tree in nn.meta.unbox(model.init(params_key)).items() if name in trained}
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), key)

    params = nn.meta.unbox({name: boxed[name] for name in trained})
    opt_state = jax.eval_shape(optimizer.init, params)
    key = jax.eval_shape(jax.random.key, 0)
    shapes = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, opt_state, key)
    params = rules.shardings({name: boxed[name] for name in trained}, mesh)
    replicated = meshes.replicated(mesh)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda moment, shardings: rules.over_data(shardings, moment.shape),
        shapes.opt_state,
        params,
        transform_non_params=lambda _: replicated,
    )
    shardings = TrainState(replicated, params, opt_state, replicated)
    return make, jax.tree.map(lambda x, w: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=w), shapes, shardings)
