"""Trains a Flamingo, or pretrains its language model on text alone: one straight line.

    python -m flamingo_jax.train --config=experiments/NAME.py --workdir=DIR [--config.KEY=VALUE ...]

The run's folder holds run.json (what model this is), tokenizer.model, checkpoints/ and TensorBoard's files. The same
command again resumes from the newest checkpoint, bit for bit. SIGTERM writes a checkpoint after the step under way and
ends with exit code 0.

Several processes, one a host, each with the same command and the same shared workdir:

    ... --coordinator=HOST:PORT --processes=4 --process_id=0     (or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID)
    ... --coordinator=auto                                       (TPU pods, SLURM: JAX finds out the three by itself)
"""

import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from flamingo_jax import memory
from flamingo_jax.files import write_whole
from flamingo_jax.inference import bundle
from flamingo_jax.inputs import pipeline
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import processes, rules
from flamingo_jax.planning import flops, topology
from flamingo_jax.training.checkpoint import Checkpoints
from flamingo_jax.training.config import dataset_config, lora_fields, trained_trees
from flamingo_jax.training.losses.noise import NoiseConfig
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.progress import Profile, Progress
from flamingo_jax.training.state import new_state
from flamingo_jax.training.step import make_step


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run consists of before any training: the model, its tokenizer, and where pretrained trees come from."""

    model: Flamingo
    tokenizer: Tokenizer
    frozen: dict[str, bundle.Bundle]  # Component tree -> the bundle that holds it.
    start: dict[str, bundle.Bundle]  # The same for trees that are trained on from there.
    trained: tuple[str, ...]
    image_tag: str | None  # How the tokenizer writes <image>.

    def read_frozen(self, mesh: jax.sharding.Mesh) -> Params:
        """The frozen trees, in the dtype of the computation, on the mesh."""
        return self._read(self.frozen, {name: self.model.dtype_of(name) for name in self.frozen}, mesh)

    def read_start(self, mesh: jax.sharding.Mesh) -> Params:
        """The pretrained trees that are trained further, float32, on the mesh."""
        return self._read(self.start, dict.fromkeys(self.start, jnp.float32), mesh)

    def _read(self, sources: dict[str, bundle.Bundle], dtypes: dict[str, Any], mesh: jax.sharding.Mesh) -> Params:
        boxed = jax.eval_shape(self.model.init, jax.random.key(0))
        return {
            name: source.params(name, dtypes[name], rules.shardings(boxed[name], mesh))
            for name, source in sources.items()
        }


def build(config: ConfigDict) -> Parts:
    """The model of a config, with the parts that its bundles bring.

    Raises:
      FileNotFoundError, ValueError: a bundle, a tokenizer or a field that is missing or does not fit.
    """
    if config.start:
        fields, frozen, tokenizer, tag = _from_start(config)
    else:
        fields, frozen, tokenizer, tag = _from_parts(config)
    fields |= dict(lora=lora_fields(config))
    model_config = FlamingoConfig.from_json(fields)
    if model_config.lm is None:
        raise ValueError('The config has no language model: set config.lm to a bundle, or config.model.lm to a dict.')
    if model_config.lm.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f'The language model has {model_config.lm.vocab_size} tokens, its tokenizer {tokenizer.vocab_size}: '
            "set config.model.lm.vocab_size to the tokenizer's."
        )
    trained = trained_trees(config)
    start = {name: frozen.pop(name) for name in trained if name in frozen}
    dtype = jnp.dtype(config.dtype or ('bfloat16' if jax.default_backend() in ('tpu', 'gpu') else 'float32'))
    parts = Parts(Flamingo(model_config, dtype, config.remat), tokenizer, frozen, start, trained, tag)
    have = set(jax.eval_shape(parts.model.init, jax.random.key(0)))
    if without := sorted(have - set(trained) - set(frozen)):
        raise ValueError(f'Nothing gives the parameters of {without}: name a bundle, or add them to config.trained.')
    for name, data in config.datasets.items():
        if data.length > model_config.lm.context:
            raise ValueError(
                f'Data set {name}: sequences of {data.length} tokens exceed the context of {model_config.lm.context}.'
            )
    return parts


_Found = tuple[dict[str, Any], dict[str, bundle.Bundle], Tokenizer, str | None]


def _from_start(config: ConfigDict) -> _Found:
    """(fields of the model's config, tree -> bundle, tokenizer, image tag) of a whole model that is trained further."""
    whole = bundle.read(config.start)
    given = [name for name in ('vision', 'tokenizer') if config[name]]
    given += ['model'] if FlamingoConfig.from_json(config.model.to_dict()) != FlamingoConfig() else []
    if given:
        raise ValueError(f'config.start brings the whole model: leave {", ".join(given)} empty, or start.')
    if whole.config.lm is None:
        raise ValueError(f'The bundle {config.start} holds no language model: a trunk alone is named by config.vision.')
    found, tokenizer = dict.fromkeys(whole.checksums, whole), whole.tokenizer()
    if config.lm:
        found['lm'] = bundle.read(config.lm)
        if found['lm'].config.lm != whole.config.lm or found['lm'].tokenizer(whole.image_tag).model != tokenizer.model:
            raise ValueError(
                f'config.lm is to replace the language model of config.start, and {config.lm} has another shape or tokenizer.'
            )
    return whole.config.to_json(), found, tokenizer, whole.image_tag


def _from_parts(config: ConfigDict) -> _Found:
    """The same of a new model, on a language model and a trunk that may be pretrained."""
    fields, frozen = config.model.to_dict(), {}
    tag = config.image_tag if config.vision else None
    if config.lm:
        frozen['lm'] = bundle.read(config.lm)
        fields['lm'] = frozen['lm'].config.to_json()['lm']
        tokenizer = frozen['lm'].tokenizer(tag)
    else:
        tokenizer = Tokenizer.read(config.tokenizer, tag)
    if config.vision:
        frozen['vision'] = bundle.read(config.vision)
        fields['vision'] = frozen['vision'].config.to_json()['vision']
        fields['image_size'] = frozen['vision'].config.image_size
    fields |= dict(image_tag=tokenizer.image_tag, extra_tokens=tokenizer.extra_tokens)
    return fields, frozen, tokenizer, tag


def train(config: ConfigDict, workdir: str) -> dict[str, float]:
    """Runs a config to its last step, or until SIGTERM, and returns the last logged metrics.

    Raises:
      OSError: a checkpoint cannot be written, or none there is whole.
      FloatingPointError: the loss is not finite; the last good checkpoint stays.
      ValueError, FileNotFoundError: bad input, before anything is computed.
    """
    parts = build(config)
    model, tokenizer = parts.model, parts.tokenizer
    profile = Profile(config.profile, workdir)
    mesh = meshes.make_mesh(**config.mesh)
    datasets = {name: dataset_config(data) for name, data in config.datasets.items()}
    for name, data in datasets.items():
        meshes.check_batch(name, data.batch_size, config.micro_batches, mesh)
    trunk = parts.frozen['vision'].checksums['vision'] if 'vision' in parts.frozen else ''
    rows = meshes.batch_sharding(mesh)
    size, fit = model.config.image_size, model.config.fit
    readable = pipeline.batches(datasets, tokenizer, size, config.seed, trunk, rows, fit)

    optimizer = make_optimizer(OptimizerConfig(**config.optimizer), config.steps)
    state = new_state(model, optimizer, parts.trained, config.seed, mesh)
    frozen = parts.read_frozen(mesh)
    about = _about(parts)
    checkpoints = Checkpoints(workdir, config.keep_checkpoints, about)  # Refuses a folder of another model.
    _write_run(workdir, config, parts, about)
    positions = dict.fromkeys(datasets, 0)  # Batches trained on, of each data set. Those read ahead do not count.
    if restored := checkpoints.restore(state):
        state, positions = restored[0], positions | restored[1]
        processes.say(f'Resumed from step {int(state.step)}.')
    else:
        state = state._replace(params=state.params | parts.read_start(mesh))
    iterators = {name: pipeline.read(readable[name], positions[name], data.workers) for name, data in datasets.items()}

    turns = [(name,) for name in datasets] if config.round_robin else [tuple(datasets)]
    weights = {name: data.loss_weight for name, data in datasets.items()}
    where = jax.tree.map(lambda x: x.sharding, state)
    step_fn = make_step(model, optimizer, weights, config.micro_batches, NoiseConfig(**config.noise), where)
    first = step = int(state.step)
    _print_sizes(state.params, frozen)
    operations = flops.train_step(model.config, parts.trained, datasets)['total'] / len(turns)
    peak = topology.peak_flops(jax.devices()[0].device_kind)
    progress = Progress(workdir, config, first, operations, peak and peak * jax.device_count())
    with processes.Preemption() as preemption:
        for step in range(first + 1, config.steps + 1):
            waited = time.perf_counter()
            # The step before still runs: its devices compute while the next batch is read and travels to them.
            turn = turns[(step - 1) % len(turns)]
            batches = {name: pipeline.put(next(iterators[name]), rows, datasets[name].batch_size) for name in turn}
            waited = time.perf_counter() - waited
            with profile.step(step):
                state, metrics = step_fn(state, frozen, batches)
            profile.stop_after(step, metrics)
            positions = positions | {name: positions[name] + 1 for name in turn}
            # Metrics are read one step late: reading this step's would wait for it, and leave the devices without work.
            progress.add(step, metrics, waited)
            checkpoints.raise_if_failed()
            preempted = preemption.reached(step)
            if step % config.checkpoint_every == 0 or step == config.steps or preempted:
                progress.flush()  # Raises if this step's loss is not finite: such a state is never saved.
                checkpoints.save(state, positions)
            if preempted:
                break
        profile.close()
        progress.close()
        checkpoints.close()  # Here, so that SIGTERM after the last step does not end the process in the last write.
    if step < config.steps:
        processes.say(f'Stopped by SIGTERM after step {step}, which is saved. The same command resumes from it.')
    return progress.last


def _about(parts: Parts) -> dict[str, Any]:
    """What a checkpoint must agree with: the model, what is trained, and the frozen trees' checksums."""
    return dict(
        model=parts.model.config.to_json(),
        image_tag=parts.image_tag,
        trained=list(parts.trained),
        frozen={name: source.checksums[name] for name, source in parts.frozen.items()},
    )


def _write_run(workdir: str, config: ConfigDict, parts: Parts, about: dict[str, Any]) -> None:
    """Writes run.json, the tokenizer and the config into the run's folder, by one process."""
    if jax.process_index() == 0:
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: str(source.path) for name, source in parts.frozen.items()}
        write_whole(folder / 'run.json', f'{json.dumps(about | dict(frozen_paths=paths), indent=2)}\n'.encode())
        write_whole(folder / parts.tokenizer.file, parts.tokenizer.model)
        write_whole(folder / 'config.yaml', config.to_yaml().encode())


def _print_sizes(trained: Params, frozen: Params) -> None:
    for label, trees in (('trained', trained), ('frozen', frozen)):
        for name, tree in trees.items():
            leaves = jax.tree.leaves(tree)
            size = sum(leaf.size for leaf in leaves)
            processes.say(f'{label:8} {name:13} {size:14,} parameters, {leaves[0].dtype}')


def main(argv):
    """Reads the flags and trains."""
    del argv
    memory.keep_freed()
    logging.set_verbosity(logging.WARNING)  # Orbax tells its every step.
    processes.join_as_told(flags.FLAGS)
    train(_CONFIG.value, _WORKDIR.value)


if __name__ == '__main__':
    _CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
    _WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
    processes.define_flags()
    flags.mark_flag_as_required('config')
    app.run(main)
