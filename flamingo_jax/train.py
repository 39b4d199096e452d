"""Trains a Flamingo, or pretrains its language model on text alone.

    python -m flamingo_jax.train --config=experiments/NAME.py --workdir=DIR [--config.KEY=VALUE ...]

All keys of a config, with meanings and defaults, are in flamingo_jax/training/config.py, or in the dataclasses named
there.

The workdir gets run.json (which describes the model), tokenizer.model, parameters.txt (their shapes and shardings),
checkpoints/ and TensorBoard's files; for metrics elsewhere, see flamingo_jax/training/writers.py. To resume
from the newest checkpoint, bit for bit, run the same command again. After SIGTERM, training writes a checkpoint after
the current step and exits with code 0.

Several processes, one per host, each with the same command and the same shared workdir:

    ... --coordinator=HOST:PORT --processes=4 --process_id=0
    ... --coordinator=auto                                       (TPU pods, SLURM: JAX finds all three by itself)

JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID can replace these flags.
"""

from absl import flags

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
    commands.define_processes()
    commands.start(__doc__, config=True)

import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from clu import parameter_overview
from ml_collections import ConfigDict

from flamingo_jax import memory
from flamingo_jax.checkpoints import bundle
from flamingo_jax.files import Path, as_path, write_whole
from flamingo_jax.inputs import pipeline
from flamingo_jax.inputs.sources.documents import contents
from flamingo_jax.inputs.sources.features import views_of
from flamingo_jax.locks import alone_in
from flamingo_jax.model.flamingo import Params
from flamingo_jax.parallel import copies, processes
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import flops, topology
from flamingo_jax.training import validation
from flamingo_jax.training.assemble import Parts, assemble
from flamingo_jax.training.checkpoint import Checkpoints
from flamingo_jax.training.config import on_machine, recipe
from flamingo_jax.training.objectives.aligned import TextStates
from flamingo_jax.training.objectives.noise import NoiseConfig
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.progress import Profile, Progress, Skipped
from flamingo_jax.training.state import lay_out, new_state
from flamingo_jax.training.step import make_step
from flamingo_jax.training.watchdog import Watchdog
from flamingo_jax.training.writers import Writer

AT_LEAST_1 = ('steps', 'micro_batches', 'log_every', 'checkpoint_every', 'keep_checkpoints', 'validate_every')
AT_LEAST_1 += ('validation_batches', 'max_skipped_steps')


@alone_in('workdir')
def train(config: ConfigDict, workdir: str | Path, writers: Sequence[Writer] | None = None) -> dict[str, float]:
    """Runs a config to its last step, or until SIGTERM, and returns the last logged metrics.

    writers: where process 0 writes metrics; None is TensorBoard's event files in the workdir (`training/writers.py`).
    They are closed when the steps end, after an error too.

    Raises:
      OSError: a checkpoint cannot be written, or no existing one is whole; or what is trained on cannot be read.
      DivergedError: the loss, the gradient or the state is not finite for too long; the last good checkpoint is
        kept.
      PartedError: processes hold different copies of the same rows or parameters; nothing of it is saved.
      ValueError, FileNotFoundError: bad input, or another process trains in the workdir. Raised before anything is
        computed.
    """
    began = time.perf_counter()
    config = on_machine(config)
    for field in AT_LEAST_1:
        if config[field] < 1:
            raise UserError(f'config.{field} is {config[field]}. It must be 1 or more.')
    if not config.datasets:
        raise UserError('config.datasets is empty. Give at least one data set to train on.')
    folder = as_path(workdir)
    if (folder / bundle.CONFIG).exists() and not (folder / 'run.json').exists():  # The run has a tokenizer.model too.
        raise UserError(f'{folder} is a bundle, whose files the run would replace. Give another --workdir.')
    if writers is None:
        from flamingo_jax.training.tensorboard import TensorBoard  # An extra, whose absence is said before all work.

        writers = [TensorBoard(workdir)]
    parts = assemble(config)
    model, sources = parts.model, parts.sources
    profile = Profile(config.profile, workdir)
    mesh = meshes.make_mesh(**config.mesh)
    for name, source in sources.items():
        meshes.check_batch(name, source.batch_size, source.micro_batches, mesh)
    rows = meshes.batch_sharding(mesh)
    how = (parts.tokenizer, parts.image_format)
    readable = pipeline.batches(sources, *how, config.seed, rows)
    held_out = validation.held_out(sources)
    held_out_batches = pipeline.batches(held_out, *how, validation.SEED, rows)

    # Refuses a folder of another model or recipe.
    about = _about(parts)
    described = {f'datasets.{name}.contents': contents(source) for name, source in sources.items()}
    described |= {
        f'datasets.{name}.views_of_features': views_of(source.features, source.split)
        for name, source in sources.items()
        if source.features and source.images
    }
    described |= recipe(config) | dict(
        tokenizer=hashlib.sha256(parts.tokenizer.model).hexdigest(),
        dtype=str(jnp.dtype(model.dtype)),
        attention_kernel=model.attention_kernel,
    )
    checkpoints = Checkpoints(
        workdir, config.keep_checkpoints, about, recipe=described, resume_changed=config.resume_changed
    )
    optimizer = make_optimizer(OptimizerConfig(**config.optimizer.to_dict()), config.steps)
    _, shapes = lay_out(model, optimizer, parts.trained, mesh)
    frozen = parts.read_frozen(mesh)
    _write_run(workdir, config, parts, about)
    positions = dict.fromkeys(sources, 0)  # Trained batches of each data set, without those read ahead.
    skipped = Skipped()
    if restored := checkpoints.restore(shapes):
        state, positions, skipped = restored[0], positions | restored[1], restored[2]
        processes.say(f'Resumed from step {int(state.step)}.')
    else:
        state = new_state(model, optimizer, parts.trained, seed=config.seed, mesh=mesh)
        state = state._replace(params=parts.begin(state.params, frozen, mesh))
    copies.check(dict(trained=state, frozen=frozen))
    shared = copies.Rows({name: source.batch_size for name, source in sources.items()}, rows)
    iterators = {
        name: pipeline.read(readable[name], positions[name], source.workers) for name, source in sources.items()
    }

    texts = TextStates(model, frozen)
    turns = [(name,) for name in sources] if config.round_robin else [tuple(sources)]
    weights = {name: source.loss_weight for name, source in sources.items()}
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step_fn = make_step(
        model,
        optimizer,
        weights,
        micro_batches={name: source.micro_batches for name, source in sources.items()},
        noise=NoiseConfig(**config.noise),
        shardings=shardings,
    )
    validate = validation.Validation(
        model,
        held_out_batches,
        held_out,
        number=config.validation_batches,
        shardings=shardings,
    )
    first, due = int(state.step), False
    step = first
    device = jax.devices()[0]
    dtype, kernel = jnp.dtype(model.dtype), model.attention_kernel
    processes.say(f'On {jax.device_count()} x {device.device_kind}, in {dtype}, with the attention kernel {kernel!r}.')
    _write_sizes(workdir, state.params, frozen)
    operations = flops.train_step(model.config, parts.trained, sources)['total'] / len(turns)
    peak = topology.peak_flops(device.device_kind)

    def useful(name: str, counts: dict[str, float]) -> float:
        work = flops.useful(model.config, sources[name], counts)
        return flops.operations(model.config, parts.trained, sources[name], work)['total']

    progress = Progress(
        config,
        first,
        writers=writers if jax.process_index() == 0 else (),
        flops=operations,
        useful=useful,
        peak=peak and peak * jax.device_count(),
        skipped=skipped,
        began=began,
    )
    with (
        processes.Preemption() as preemption,
        Watchdog(config.hang_seconds) as watchdog,
        progress,
        _kept_on_error(progress, checkpoints),
    ):
        for step in range(first + 1, config.steps + 1):
            waited = time.perf_counter()
            # The previous step is still running: devices compute while the next batch is read and copied to them.
            turn = turns[(step - 1) % len(turns)]
            read = {name: next(iterators[name]) for name in turn}
            shared.check(step, read)
            batches = {name: pipeline.put(texts(read[name]), rows, sources[name].batch_size) for name in turn}
            waited = time.perf_counter() - waited
            with profile.step(step):
                state, metrics = step_fn(state, frozen, batches)
            profile.stop_after(step, metrics)
            positions = positions | {name: positions[name] + 1 for name in turn}
            # Metrics are read one step late. Reading those of this step would wait for it and leave the devices idle.
            progress.add(step, metrics, waited)
            watchdog.wait_anew()
            due = checkpoints.failed() or due
            preempted = preemption.reached()
            if validate and not preempted and (step % config.validate_every == 0 or step == config.steps):

                def goes_on() -> bool:
                    watchdog.wait_anew()
                    return not preemption.reached()

                progress.validate(step, functools.partial(validate, state.params, frozen, goes_on))
                preempted = preemption.reached()  # A validation may take longer than a machine's grace.
            due, ends = due or step % config.checkpoint_every == 0, step == config.steps or preempted
            if due or ends:
                progress.flush()
                # Skipped steps do not change the state, and every step from it may fail; damaged images teach nothing.
                # What is saved then must not replace older checkpoints.
                if ends or not progress.in_doubt:
                    watchdog.wait_anew()  # The checkpoint before may still be on its way.
                    copies.check(dict(trained=state, frozen=frozen))
                    checkpoints.save(state, positions, progress.skipped, last=ends, beside_all=progress.in_doubt)
                    due = False
            if preempted:
                break
        profile.close()
        watchdog.wait_anew()
        checkpoints.close()  # Here, so that a SIGTERM after the last step does not interrupt the last write.
    if step < config.steps:
        processes.say(f'Stopped by SIGTERM after step {step}, which is saved. The same command resumes from it.')
    elif model.config.lm is not None and model.config.vision is not None:
        processes.say(
            f'Ask it: python -m flamingo_jax.generate --checkpoint={workdir} --image=IMAGE\n'
            f'On a page: python -m flamingo_jax.demo --checkpoint={workdir}'
        )
    return progress.last


@contextlib.contextmanager
def _kept_on_error(progress: Progress, checkpoints: Checkpoints) -> Iterator[None]:
    """After an error the files have every step that was trained, and the checkpoint that is being written is whole.

    Only of one process: several would wait for one that is gone.
    """
    try:
        yield
    except BaseException as error:  # An interrupt too.
        if jax.process_count() == 1:
            if checkpoints.writing:  # A bucket that fails is tried again for minutes. This is known now.
                processes.say(
                    f'{type(error).__name__}: {error}\nFirst the checkpoint is waited for that is being written.'
                )
            with contextlib.suppress(Exception):  # Steps that fail likewise. The first error is told.
                progress.flush()
            try:
                checkpoints.close()
            except OSError as another:
                processes.say(str(another))
        raise


def _about(parts: Parts) -> dict[str, Any]:
    """What a checkpoint must match: the model, the trained trees, and the checksums of the frozen trees."""
    return dict(
        model=parts.model.config.to_json(),
        image_tag=parts.image_tag,
        trained=list(parts.trained),
        frozen={name: source.checksums[name] for name, source in parts.frozen.items()},
    )


def _write_run(workdir: str | Path, config: ConfigDict, parts: Parts, about: dict[str, Any]) -> None:
    """Writes run.json, the tokenizer and the config to the workdir, in one process."""
    if jax.process_index() == 0:
        folder = as_path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: str(source.path) for name, source in parts.frozen.items()}
        write_whole(folder / 'run.json', f'{json.dumps(about | dict(frozen_paths=paths), indent=2)}\n'.encode())
        write_whole(folder / parts.tokenizer.file, parts.tokenizer.model)
        write_whole(folder / 'config.yaml', config.to_yaml().encode())


@dataclasses.dataclass
class _Tree:
    """A row of the table of parameters."""

    component: str
    role: str
    parameters: int
    dtype: str


def _write_sizes(workdir: str | Path, trained: Params, frozen: Params) -> None:
    """Says how large each component tree is. parameters.txt in the workdir has every array, with its sharding."""
    roles = dict(trained=trained, frozen=frozen)
    trees = [(name, role, _by_name(tree)) for role, named in roles.items() for name, tree in named.items()]
    rows = [
        _Tree(name, role, int(parameter_overview.count_parameters(arrays)), str(next(iter(arrays.values())).dtype))
        for name, role, arrays in trees
    ]
    processes.say(parameter_overview.make_table(rows))
    if jax.process_index() == 0:
        table = parameter_overview.get_parameter_overview(_by_name(roles), include_stats='sharding')
        write_whole(as_path(workdir) / 'parameters.txt', f'{table}\n'.encode())


def _by_name(tree: Params) -> dict[str, jax.Array]:
    """The arrays of a tree by the names on their paths, also those of a quantised matrix."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def main() -> None:
    """Runs the training that the flags describe."""
    memory.keep_freed()
    f = flags.FLAGS
    commands.refuse_config_of('training', f.config)
    processes.join(f.coordinator, f.processes, f.process_id)
    try:
        train(f.config, f.workdir)
    finally:
        for worker in multiprocessing.active_children():
            worker.kill()  # Grain ends them one after the other, while other hosts wait for this one to leave.


if __name__ == '__main__':
    main()
