"""The real train step and the real decode step of a config, lowered for a mesh from shapes alone: no weights, no data."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from flamingo_jax.inference import bundle, decode
from flamingo_jax.inputs.pipeline import Batch, DatasetConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Media, Params
from flamingo_jax.model.language_model import KeysValues
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules
from flamingo_jax.planning import flops
from flamingo_jax.training.config import dataset_config, lora_fields, trained_trees
from flamingo_jax.training.losses.noise import NoiseConfig
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.state import TrainState, lay_out
from flamingo_jax.training.step import make_step


@dataclasses.dataclass(frozen=True)
class Run:
    """A config on a mesh: everything of a run except its arrays."""

    config: ConfigDict
    model: Flamingo
    mesh: Mesh
    datasets: dict[str, DatasetConfig]
    micro_batches: int

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the component trees that are trained."""
        return tuple(name for name in trained_trees(self.config) if name in self.shapes)

    @functools.cached_property
    def shapes(self) -> Params:
        """The model's parameters, boxed with their logical axes."""
        return jax.eval_shape(self.model.init, jax.random.key(0))

    def frozen(self, names: tuple[str, ...] | None = None) -> Params:
        """The frozen trees (or those named) in the dtype that they are kept in, with their shardings."""
        names = tuple(name for name in self.shapes if name not in self.trained) if names is None else names
        out = {}
        for name in names:
            where = rules.shardings(self.shapes[name], self.mesh)
            dtype = self.model.dtype_of(name)
            out[name] = jax.tree.map(
                lambda w, x, dtype=dtype: jax.ShapeDtypeStruct(x.shape, dtype, sharding=w),
                where,
                nn.meta.unbox(self.shapes[name]),
            )
        return out


def prepare(config: ConfigDict, mesh: Mesh, micro_batches: int, batch: float, bfloat16: bool) -> Run:
    """The run of a config.

    Args:
      micro_batches: as the config's.
      batch: every data set's batch size is multiplied by it.
      bfloat16: whether the devices compute in it where the config does not say.

    Raises:
      ValueError: a mesh that does not divide a parameter, a batch or its micro-batches, or several programs in one config,
        before anything is compiled.
    """
    if config.round_robin and len(config.datasets) > 1:
        raise ValueError('With config.round_robin there is a program a data set: plan with --config.round_robin=False.')
    if config.start:
        fields = bundle.read(config.start).config.to_json()
    else:
        fields = _new_model(config)
    fields['lora'] = lora_fields(config)
    dtype = jnp.dtype(config.dtype or ('bfloat16' if bfloat16 else 'float32'))
    model = Flamingo(FlamingoConfig.from_json(fields), dtype, config.remat)
    datasets = {}
    for name, data in config.datasets.items():
        data = dataset_config(data)
        rows = round(data.batch_size * batch)
        datasets[name] = dataclasses.replace(data, batch_size=rows)
        meshes.check_batch(name, rows, micro_batches, mesh)
    run = Run(config, model, mesh, datasets, micro_batches)
    run.frozen(tuple(run.shapes))  # Raises if the mesh does not divide a parameter.
    return run


def _new_model(config: ConfigDict) -> dict[str, Any]:
    """The fields of a new model's config, its bundles and its tokenizer being there or not."""
    fields = config.model.to_dict()
    for name in ('lm', 'vision'):  # A bundle need not be here yet, where the config says what it will hold.
        if fields[name] is None and config[name]:
            fields[name] = bundle.read(config[name]).config.to_json()[name]
    token = config.image_tag == 'token'
    fields['extra_tokens'] = ('<EOC>',) + (('<image>',) if token else ()) if fields['xattn'] else ()
    v = fields['lm']['vocab_size']
    fields['image_tag'] = ((v + 1,) if token else (1, 2, 3)) if fields['xattn'] else ()
    return fields


def train_step(run: Run) -> tuple[jax.stages.Lowered, TrainState, Params]:
    """The step of `training/step.py`, lowered; and the shapes of its state and of the frozen trees."""
    optimizer = make_optimizer(OptimizerConfig(**run.config.optimizer), run.config.steps)
    _, state = lay_out(run.model, optimizer, run.trained, run.mesh)
    frozen = run.frozen()
    weights = {name: data.loss_weight for name, data in run.datasets.items()}
    where = jax.tree.map(lambda x: x.sharding, state)
    step = make_step(run.model, optimizer, weights, run.micro_batches, NoiseConfig(**run.config.noise), where)
    batches = {name: batch_shapes(run, data) for name, data in run.datasets.items()}
    return step.lower(state, frozen, batches), state, frozen


def batch_shapes(run: Run, data: DatasetConfig) -> Batch:
    """What `inputs/pipeline.py` gives of one data set, as shapes on the mesh."""
    b, l, size = data.batch_size, data.length, run.model.config.image_size
    s = 2 + len(run.model.config.image_tag) if data.align else l
    shapes = dict(tokens=((b, s), jnp.int32), weights=((b, s), jnp.float32), phi=((b, s), jnp.int32))
    shapes |= dict(text=((b, l), jnp.int32), ends=((b,), jnp.int32)) if data.align else dict(length=((b,), jnp.int32))
    shapes['unreadable'] = ((b,), jnp.int32)
    if data.images:
        shapes['images'] = ((b, data.images, data.frames, size, size, 3), jnp.uint8)
        if data.features:
            vision = run.model.config.vision
            spatial, _ = flops.trunk(vision, size)
            shapes['images'] = ((b, data.images, data.frames, spatial, vision.width), jnp.float32)
    rows = meshes.batch_sharding(run.mesh)
    return {name: jax.ShapeDtypeStruct(*shape, sharding=rows) for name, shape in shapes.items()}


def decode_step(run: Run, pictures: int) -> tuple[jax.stages.Lowered, int]:
    """One token more for each prompt (`inference/decode.py`), lowered, with a full cache; and the number of prompts.

    Args:
      pictures: that each prompt has. One prompt stands on each share of the mesh's batch axes.
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
        media = Media(None, (keys, keys))
    # What decoding reads: the trunk and the resampler are done with, LoRA is merged.
    names = tuple(name for name in run.shapes if name not in ('vision', 'resampler', 'lora'))
    model = dataclasses.replace(run.model, config=dataclasses.replace(c, lora=None))

    def step(params: Params, media: Media | None, text: decode.Text, tokens: Any) -> tuple[Any, decode.Text]:
        with rules.activations(mesh):
            return decode.extend(model, params, media, text, tokens)

    jitted = jax.jit(step, donate_argnums=2)
    return jitted.lower(run.frozen(names), media, text, shape((b, 1), jnp.int32, rows)), b
