"""A training run: it is opened and checked, restored or started, and goes on to its last step or until SIGTERM."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain.python as grain
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from flamingo_jax.checkpoints import bundle
from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path
from flamingo_jax.inputs import pipeline
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.locks import alone_in
from flamingo_jax.model.flamingo import Params
from flamingo_jax.parallel import copies, processes
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.training import description, validation
from flamingo_jax.training.assemble import Parts, assemble
from flamingo_jax.training.checkpoint import Checkpoints
from flamingo_jax.training.config import check_loop, on_machine
from flamingo_jax.training.objectives.aligned import TextStates
from flamingo_jax.training.objectives.noise import NoiseConfig
from flamingo_jax.training.optimizer import OptimizerConfig, make_optimizer
from flamingo_jax.training.progress import Operations, Profile, Progress, Skipped
from flamingo_jax.training.state import TrainState, lay_out, new_state
from flamingo_jax.training.step import make_step
from flamingo_jax.training.watchdog import Watchdog
from flamingo_jax.training.writers import Writer


@alone_in('workdir')
def train(
    config: ConfigDict,
    workdir: str | Path,
    operations: Callable[[Parts], Operations],
    writers: Sequence[Writer] | None = None,
) -> dict[str, float]:
    """Runs a config to its last step, or until SIGTERM, and returns the last logged metrics.

    Args:
      operations: counts the floating-point operations of a run, of which its MFU is a share (`planning/flops.py`).
      writers: as for `flamingo_jax.train.train`, whose errors these are, too.
    """
    began = time.perf_counter()
    config = on_machine(config)
    check_loop(config)
    _refuse_bundle(as_path(workdir))
    if writers is None:
        from flamingo_jax.training.tensorboard import TensorBoard  # An extra, whose absence is said before all work.

        writers = [TensorBoard(workdir)]
    run = _open(config, workdir)
    begun = _restore_or_start(run)
    batches = _Batches(run, begun)
    programs = _compile(run, begun)
    model, device = run.parts.model, jax.devices()[0]
    processes.say(
        f'On {jax.device_count()} x {device.device_kind}, in {jnp.dtype(model.dtype)}, with the attention kernel '
        f'{model.attention_kernel!r}.'
    )
    description.write_sizes(workdir, begun.state.params, begun.frozen)
    counted = operations(run.parts)
    progress = Progress(
        config,
        int(begun.state.step),
        writers=writers if jax.process_index() == 0 else (),
        flops=counted.step / len(batches.turns),
        useful=counted.useful,
        peak=counted.peak and counted.peak * jax.device_count(),
        skipped=begun.skipped,
        began=began,
    )
    last = _loop(run, begun, batches, programs, progress)
    if last < config.steps:
        processes.say(f'Stopped by SIGTERM after step {last}, which is saved. The same command resumes from it.')
    elif model.config.lm is not None and model.config.vision is not None:
        processes.say(
            f'Ask it: python -m flamingo_jax.generate --checkpoint={workdir} --image=IMAGE\n'
            f'On a page: python -m flamingo_jax.demo --checkpoint={workdir}'
        )
    return progress.last


def _refuse_bundle(folder: Path) -> None:
    """ValueError if the workdir is a bundle, and no run."""
    if (folder / bundle.CONFIG).exists() and not (folder / 'run.json').exists():  # The run has a tokenizer.model too.
        raise UserError(f'{folder} is a bundle, whose files the run would replace. Give another --workdir.')


@dataclasses.dataclass(frozen=True)
class _Open:
    """What a run reads and writes, opened and checked before anything is computed."""

    config: ConfigDict
    workdir: str | Path
    parts: Parts
    profile: Profile
    mesh: Mesh
    batches: dict[str, grain.MapDataset]  # Of each data set.
    held_out: dict[str, Source]
    held_out_batches: dict[str, grain.MapDataset]
    optimizer: optax.GradientTransformation
    shapes: TrainState  # With their shardings.
    checkpoints: Checkpoints

    @property
    def rows(self) -> NamedSharding:
        """How the rows of a batch lie on the mesh."""
        return meshes.batch_sharding(self.mesh)


def _open(config: ConfigDict, workdir: str | Path) -> _Open:
    """Opens all of a run. The folder of another model or recipe is refused."""
    parts = assemble(config)
    profile = Profile(config.profile, workdir)
    mesh = meshes.make_mesh(**config.mesh)
    for name, source in parts.sources.items():
        meshes.check_batch(name, source.batch_size, source.micro_batches, mesh)
    rows, how = meshes.batch_sharding(mesh), (parts.tokenizer, parts.image_format)
    batches = pipeline.batches(parts.sources, *how, config.seed, rows)
    held_out = validation.held_out(parts.sources)
    held_out_batches = pipeline.batches(held_out, *how, validation.SEED, rows)
    checkpoints = Checkpoints(
        workdir,
        config.keep_checkpoints,
        description.about(parts),
        recipe=description.recipe_of(config, parts),
        resume_changed=config.resume_changed,
    )
    optimizer = make_optimizer(OptimizerConfig(**config.optimizer.to_dict()), config.steps)
    _, shapes = lay_out(parts.model, optimizer, parts.trained, mesh)
    return _Open(
        config, workdir, parts, profile, mesh, batches, held_out, held_out_batches, optimizer, shapes, checkpoints
    )


class _Begun(NamedTuple):
    """Where a run goes on."""

    state: TrainState
    frozen: Params
    positions: dict[str, int]  # Trained batches of each data set, without those read ahead.
    skipped: Skipped


def _restore_or_start(run: _Open) -> _Begun:
    """The newest checkpoint that is whole, or the first step. The workdir then says what is trained."""
    parts, mesh = run.parts, run.mesh
    frozen = parts.read_frozen(mesh)
    description.write_run(run.workdir, run.config, parts)
    positions, skipped = dict.fromkeys(parts.sources, 0), Skipped()
    if restored := run.checkpoints.restore(run.shapes):
        state, positions, skipped = restored[0], positions | restored[1], restored[2]
        processes.say(f'Resumed from step {int(state.step)}.')
    else:
        state = new_state(parts.model, run.optimizer, parts.trained, seed=run.config.seed, mesh=mesh)
        state = state._replace(params=parts.begin(state.params, frozen, mesh))
    copies.check(dict(trained=state, frozen=frozen))
    return _Begun(state, frozen, positions, skipped)


class _Batches:
    """The batches of each step, on the devices.

    Attributes:
      turns: the data sets of the first step, of the second and so on, over and over.
      positions: trained batches of each data set.
    """

    def __init__(self, run: _Open, begun: _Begun):
        sources = run.parts.sources
        self.turns = [(name,) for name in sources] if run.config.round_robin else [tuple(sources)]
        self.positions = begun.positions
        self._sources, self._rows = sources, run.rows
        self._shared = copies.Rows({name: source.batch_size for name, source in sources.items()}, run.rows)
        self._iterators = {
            name: pipeline.read(run.batches[name], begun.positions[name], source.workers)
            for name, source in sources.items()
        }
        self._texts = TextStates(run.parts.model, begun.frozen)

    def of(self, step: int) -> dict[str, Any]:
        """The batches of a step, by data set. PartedError if processes that share rows have read others."""
        turn = self.turns[(step - 1) % len(self.turns)]
        read = {name: next(self._iterators[name]) for name in turn}
        self._shared.check(step, read)
        self.positions = self.positions | {name: self.positions[name] + 1 for name in turn}
        return {
            name: pipeline.put(self._texts(read[name]), self._rows, self._sources[name].batch_size) for name in turn
        }


class _Programs(NamedTuple):
    """What the devices compute."""

    step: Callable[..., Any]
    validate: validation.Validation


def _compile(run: _Open, begun: _Begun) -> _Programs:
    """The programs of a run, each compiled when it is called first."""
    model, sources = run.parts.model, run.parts.sources
    shardings = jax.tree.map(lambda x: x.sharding, begun.state)
    step = make_step(
        model,
        run.optimizer,
        {name: source.loss_weight for name, source in sources.items()},
        micro_batches={name: source.micro_batches for name, source in sources.items()},
        noise=NoiseConfig(**run.config.noise),
        shardings=shardings,
    )
    validate = validation.Validation(
        model, run.held_out_batches, run.held_out, number=run.config.validation_batches, shardings=shardings
    )
    return _Programs(step, validate)


def _loop(run: _Open, begun: _Begun, batches: _Batches, programs: _Programs, progress: Progress) -> int:
    """Trains to the last step, or to the one that SIGTERM ends, whose number is returned."""
    config, checkpoints, frozen, state = run.config, run.checkpoints, begun.frozen, begun.state
    first, due = int(state.step), False
    step = first
    with (
        processes.Preemption() as preemption,
        Watchdog(config.hang_seconds) as watchdog,
        progress,
        _kept_on_error(progress, checkpoints),
    ):

        def goes_on() -> bool:
            watchdog.wait_anew()
            return not preemption.reached()

        for step in range(first + 1, config.steps + 1):
            waited = time.perf_counter()
            # The previous step is still running: devices compute while the next batch is read and copied to them.
            read = batches.of(step)
            waited = time.perf_counter() - waited
            with run.profile.step(step):
                state, metrics = programs.step(state, frozen, read)
            run.profile.stop_after(step, metrics)
            # Metrics are read one step late. Reading those of this step would wait for it and leave the devices idle.
            progress.add(step, metrics, waited)
            watchdog.wait_anew()
            due = checkpoints.failed() or due
            preempted = preemption.reached()
            validates = step % config.validate_every == 0 or step == config.steps
            if programs.validate and not preempted and validates:
                progress.validate(step, functools.partial(programs.validate, state.params, frozen, goes_on))
                preempted = preemption.reached()  # A validation may take longer than a machine's grace.
            due, ends = due or step % config.checkpoint_every == 0, step == config.steps or preempted
            if due or ends:
                progress.flush()
                # Skipped steps do not change the state, and every step from it may fail; damaged images teach nothing.
                # What is saved then must not replace older checkpoints.
                if ends or not progress.in_doubt:
                    watchdog.wait_anew()  # The checkpoint before may still be on its way.
                    copies.check(dict(trained=state, frozen=frozen))
                    checkpoints.save(
                        state, batches.positions, progress.skipped, last=ends, beside_all=progress.in_doubt
                    )
                    due = False
            if preempted:
                break
        run.profile.close()
        watchdog.wait_anew()
        checkpoints.close()  # Here, so that a SIGTERM after the last step does not interrupt the last write.
    return step


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
