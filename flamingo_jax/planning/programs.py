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

from flamingo_jax.errors import UserError
from flamingo_jax.inference import decode, search
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model.flamingo import Flamingo, Media, Params
from flamingo_jax.model.quantised import quantise
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules
from flamingo_jax.training.assemble import Parts, assemble
from flamingo_jax.training.objectives.noise import NoiseConfig
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.state import TrainState, boxed_shapes, lay_out
from flamingo_jax.training.step import make_step, working_copies

NEW = 32  # Tokens of an answer, as `generate` gives at most if it is not told otherwise.


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
            boxed, dtype = self.shapes[name], self.model.dtype_of(name)
            if name == 'vision' and name not in self.trained and (kept := self.model.config.vision.kept):
                boxed = jax.eval_shape(kept, boxed)
            if name == 'lm' and self.model.quantised:
                shapes = nn.meta.unbox(boxed := quantise(boxed, self.model.quantised, dtype))
            else:
                shapes = jax.tree.map(lambda x, dtype=dtype: jax.ShapeDtypeStruct(x.shape, dtype), nn.meta.unbox(boxed))
            out[name] = _sharded(shapes, rules.shardings(boxed, self.mesh))
        return out


def prepare(config: ConfigDict, mesh: Mesh) -> Planned:
    """The run of a config on a mesh.

    Raises:
      ValueError: the mesh does not divide a parameter, a batch or its micro-batches, or the config has several
        programs. Raised before anything is compiled.
    """
    if config.round_robin and len(config.datasets) > 1:
        raise UserError(
            'With config.round_robin each data set has its own program. Plan with --config.round_robin=False.'
        )
    parts = assemble(config, mesh.devices.flat[0], all_here=False)
    for name, source in parts.sources.items():
        meshes.check_batch(name, source.batch_size, source.micro_batches, mesh)
    run = Planned(config, parts, mesh)
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
        if copy.dtype != x.dtype and reads_copies(run)
    )
    return out | dict(gradients=sum(gradients), copies=sum(copied))


def reads_copies(run: Planned) -> bool:
    """Whether some loss reads trained weights as copies in the dtype of the computation (`training/step.py`)."""
    return any(not source.row.compares_rows for source in run.sources.values())


def _sharded(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, w: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=w), shapes, shardings)


def _bytes(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> int:
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return 0
    return x.dtype.itemsize * math.prod(sharding.shard_shape(x.shape))


@dataclasses.dataclass(frozen=True)
class Answering:
    """The programs that answer prompts of a full context, one for each shard of the mesh's batch axes."""

    read: jax.stages.Lowered  # Reads the prompts, whose media tokens are there.
    step: jax.stages.Lowered  # Adds one token to each answer.
    prompts: int
    length: int  # Tokens of a prompt.
    visible: int  # Images that a new token sees.


def answering(run: Planned, images: int, new: int = NEW) -> Answering:
    """The programs that `Pretrained.generate` and `evaluate` run: `decode.prefill`, and a greedy step of `search.py`.

    The step has a part for each prompt, and room for the new tokens. Of the images, it has those that a new token may
    see.

    Args:
      images: number of images in each prompt.
      new: most tokens of an answer.
    """
    c, mesh = run.model.config, run.mesh
    b, length = meshes.row_shards(mesh), c.lm.context - new
    # The trees that decoding reads: trunk and resampler have already run, and LoRA is merged. Of what a product reads,
    # only weights are quantised.
    names = tuple(name for name in run.shapes if name not in ('vision', 'resampler', 'lora'))
    how = run.model.quantised and dataclasses.replace(run.model.quantised, inputs=False)
    model = dataclasses.replace(run.model, config=dataclasses.replace(c, lora=None), remat='', quantised=how)
    parts = dataclasses.replace(run.parts, model=model)
    params = dataclasses.replace(run, parts=parts).frozen(names)

    def on_mesh(shapes):
        """Rows over the batch's axes; keys and values [depth b heads places k] with heads over `tensor` too."""

        def spec(x):
            if x.ndim == 5:
                return PartitionSpec(None, ('data', 'fsdp'), 'tensor')
            return PartitionSpec(('data', 'fsdp')) if x.ndim and x.shape[0] == b else PartitionSpec()

        return _sharded(shapes, jax.tree.map(lambda x: NamedSharding(mesh, spec(x)), shapes))

    def media(params, tokens):
        return decode.keys_values(model, params, Media(tokens, None))

    def read(params, media, tokens, valid):
        return decode.prefill(model, params, media, tokens, valid, 0)

    shape = jax.ShapeDtypeStruct
    tokens, valid = on_mesh((shape((b, length), jnp.int32), shape((b, length), jnp.bool_)))
    greedy = Sampling(new).program
    fixed = dict(model=model, sampling=greedy, marks=search.Marks((0,)))
    key = on_mesh(jax.eval_shape(lambda: jax.random.key(0)))
    with rules.activations(mesh):
        seen = None
        if c.xattn is not None:
            m = shape((b, images * c.media_tokens, c.media_width), model.dtype)
            seen = on_mesh(jax.eval_shape(media, params, m))
        reading = jax.jit(read).lower(params, seen, tokens, valid)
        logits, text = jax.eval_shape(read, params, seen, tokens, valid)
        prompts = decode.Prompts(seen, text, logits)
        shared, prompts = jax.eval_shape(lambda x: search.begun(model, x, greedy), prompts)
        state = jax.eval_shape(lambda *x: search.start(*x, **fixed)[0], params, shared, key, prompts)
        step = search.step.lower(params, on_mesh(shared), key, on_mesh(state), **fixed)
    visible = 0 if shared[0] is None else shared[0].length // c.media_tokens
    return Answering(reading, step, b, length, visible)
