"""The real train step and decode step of a config, lowered for a mesh from shapes alone: no weights, no data."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from flamingo_jax.inference import decode
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model.flamingo import Flamingo, Media, Params
from flamingo_jax.model.language_model import KeysValues
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules
from flamingo_jax.training.assemble import Parts, assemble
from flamingo_jax.training.losses.noise import NoiseConfig
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.state import TrainState, boxed_shapes, lay_out
from flamingo_jax.training.step import make_step, working_copies


@dataclasses.dataclass(frozen=True)
class Planned:
    """A config on a mesh: everything of a run except its arrays."""

    config: ConfigDict
    parts: Parts
    mesh: Mesh

    @property
    def model(self) -> Flamingo:
        """The model."""
        return self.parts.model

    @property
    def sources(self) -> dict[str, Source]:
        """The data sets, with the batch sizes of this machine."""
        return self.parts.sources

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the component trees that are trained."""
        return tuple(name for name in self.parts.trained if name in self.shapes)

    @functools.cached_property
    def shapes(self) -> Params:
        """The model's parameters, boxed with their logical axes."""
        return boxed_shapes(self.model)

    def frozen(self, names: tuple[str, ...] | None = None) -> Params:
        """The frozen trees (or those named) in their stored dtype, with their shardings."""
        names = tuple(name for name in self.shapes if name not in self.trained) if names is None else names
        out = {}
        for name in names:
            shardings = rules.shardings(self.shapes[name], self.mesh)
            dtype = self.model.dtype_of(name)
            out[name] = jax.tree.map(
                lambda sharding, x, dtype=dtype: jax.ShapeDtypeStruct(x.shape, dtype, sharding=sharding),
                shardings,
                nn.meta.unbox(self.shapes[name]),
            )
        return out


def prepare(
    config: ConfigDict,
    mesh: Mesh,
    micro_batches: int | dict[str, int],
    batch: float,
    remat: str | None = None,
) -> Planned:
    """The run of a config.

    Args:
      micro_batches: replaces the config's: of every data set, or of each.
      batch: factor of every data set's batch size.
      remat: replaces the config's.

    Raises:
      ValueError: the mesh does not divide a parameter, a batch or its micro-batches, or the config has several
        programs. Raised before anything is compiled.
    """
    if config.round_robin and len(config.datasets) > 1:
        raise ValueError(
            'With config.round_robin each data set has its own program. Plan with --config.round_robin=False.'
        )
    parts = assemble(config, mesh.devices.flat[0], all_here=False)
    numbers = dict.fromkeys(parts.sources, micro_batches) if isinstance(micro_batches, int) else micro_batches
    sources = {
        name: dataclasses.replace(source, batch_size=round(source.batch_size * batch), micro_batches=numbers[name])
        for name, source in parts.sources.items()
    }
    for name, source in sources.items():
        meshes.check_batch(name, source.batch_size, source.micro_batches, mesh)
    model = parts.model if remat is None else dataclasses.replace(parts.model, remat=remat)
    run = Planned(config, dataclasses.replace(parts, model=model, sources=sources), mesh)
    run.frozen(tuple(run.shapes))  # Raises if the mesh does not divide a parameter.
    return run


def train_step(run: Planned) -> tuple[jax.stages.Lowered, TrainState]:
    """The step of `training/step.py`, lowered; and the shapes of its state."""
    optimizer = make_optimizer(OptimizerConfig(**run.config.optimizer.to_dict()), run.config.steps)
    _, state = lay_out(run.model, optimizer, run.trained, run.mesh)
    weights = {name: source.loss_weight for name, source in run.sources.items()}
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = make_step(
        run.model,
        optimizer,
        weights,
        micro_batches={name: source.micro_batches for name, source in run.sources.items()},
        noise=NoiseConfig(**run.config.noise),
        shardings=shardings,
    )
    return step.lower(state, run.frozen(), run.parts.batch_shapes(run.mesh)), state


def held(run: Planned, state: TrainState | None = None) -> dict[str, int]:
    """Bytes that a chip holds: 'moments' and each tree between steps, 'gradients' and 'copies' within one.

    Args:
      state: the shapes of the run's state, if they are at hand.
    """
    if state is None:
        optimizer = make_optimizer(OptimizerConfig(**run.config.optimizer.to_dict()), run.config.steps)
        _, state = lay_out(run.model, optimizer, run.trained, run.mesh)
    shards = dict(
        {f'{name} (float32)': tree for name, tree in state.params.items()},
        moments=state.opt_state,
        **{f'{name} (frozen)': tree for name, tree in run.frozen().items()},
    )
    out = {name: sum(_bytes(x, x.sharding) for x in jax.tree.leaves(tree)) for name, tree in shards.items()}
    gradients = (_bytes(x, rules.over_data(x.sharding, x.shape)) for x in jax.tree.leaves(state.params))
    copies = jax.tree.leaves(jax.eval_shape(functools.partial(working_copies, run.model), state.params))
    copied = (
        _bytes(copy, x.sharding)
        for copy, x in zip(copies, jax.tree.leaves(state.params), strict=True)
        if copy.dtype != x.dtype
    )
    return out | dict(gradients=sum(gradients), copies=sum(copied))


def _bytes(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> int:
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):
        return 0
    return x.dtype.itemsize * math.prod(sharding.shard_shape(x.shape))


def decode_step(run: Planned, pictures: int) -> tuple[jax.stages.Lowered, int]:
    """A decode step (`inference/decode.py`) with a full cache, lowered; and the number of prompts.

    Args:
      pictures: number of pictures in each prompt. Each shard of the mesh's batch axes has one prompt.
    """
    c, mesh, dtype = run.model.config, run.mesh, run.model.dtype
    b, places = mesh.shape['data'] * mesh.shape['fsdp'], c.lm.context

    def shape(shape, dtype, *spec):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    rows = ('data', 'fsdp')
    keys = shape((c.lm.depth, b, c.lm.kv_heads, places, c.lm.head_dim), dtype, None, rows, 'tensor')
    text = decode.Text(
        KeysValues(keys, keys),
        shape((b, places), jnp.bool_, rows),
        shape((), jnp.int32),
        shape((b,), jnp.int32, rows),
        shape((b,), jnp.int32, rows),
    )
    media = None
    if c.xattn is not None:
        m = pictures * c.media_tokens
        keys = shape((c.xattn_blocks, b, c.xattn.heads, m, c.xattn.head_dim), dtype, None, rows, 'tensor')
        media = Media(None, ((keys, keys),))
    # The trees that decoding reads: trunk and resampler have already run, and LoRA is merged.
    names = tuple(name for name in run.shapes if name not in ('vision', 'resampler', 'lora'))
    model = dataclasses.replace(run.model, config=dataclasses.replace(c, lora=None))

    def step(params: Params, media: Media | None, text: decode.Text, tokens: Any) -> tuple[Any, decode.Text]:
        with rules.activations(mesh):
            return decode.extend(model, params, media, text, tokens)

    jitted = jax.jit(step, donate_argnums=2)
    return jitted.lower(run.frozen(names), media, text, shape((b, 1), jnp.int32, rows)), b
