"""Checkpoints of a training run: Orbax, trained trees only, with the position in the data beside them.

WORKDIR/checkpoints/STEP             finished: written aside, checksums added, then renamed
WORKDIR/checkpoints/writing-STEP     under way, or what a killed process left; removed by the next run
WORKDIR/checkpoints/damaged-STEP     was STEP, and differs from its checksums

A checkpoint holds checksums.json, a SHA-256 of each of its files. None is read before its files agree with it. Retention is
ours and not Orbax's, which deletes the old before the new has its checksums.
"""

import concurrent.futures
import json
import pathlib
import shutil
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from flamingo_jax.files import write_whole
from flamingo_jax.inference.run import CHECKSUMS, digests, newest_whole, steps
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.parallel import processes
from flamingo_jax.training.progress import REMEDY, Skipped
from flamingo_jax.training.state import TrainState, is_finite

# Of a recipe, what may differ when a run resumes: a learning rate is often lowered on the way.
MAY_CHANGE = 'optimizer.'


class Checkpoints:
    """The checkpoints of one run. With several processes, each calls every method."""

    def __init__(
        self,
        workdir: str | pathlib.Path,
        keep: int,
        about: dict[str, Any],
        recipe: dict[str, Any],
        resume_changed: bool = False,
    ):
        """Opens the folder, which may be empty, and prints which checkpoints are damaged.

        Args:
          keep: the newest so many are kept.
          about: JSON that says what model this is: its config, what is trained, the frozen trees' checksums.
          recipe: what it is trained on (`training/config.py`).
          resume_changed: go on with another recipe than that of the newest checkpoint.

        Raises:
          ValueError: the folder holds checkpoints of another model or recipe; the message names what differs.
          OSError: every checkpoint in the folder is damaged.
        """
        self._folder = pathlib.Path(workdir).absolute() / 'checkpoints'
        self._keep, self._about, self._recipe = keep, about, recipe
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._saved: tuple[int, concurrent.futures.Future] | None = None
        first = jax.process_index() == 0
        # One process reads the files for all: a pod would read them a thousand times.
        self._newest = processes.from_first((newest_whole(self._folder) if first else 0) or 0)
        if self._newest:
            before = self._metadata()['about']
            # A field of the config that is newer than the checkpoint has its default there.
            before = before | dict(model=FlamingoConfig.from_json(before['model']).to_json())
            if different := _differences(before, about):
                raise ValueError(
                    f'{self._folder} holds checkpoints of another model. Different are: {"; ".join(different)}. '
                    'Give the config that they were made with, or another workdir.'
                )
            self._compare(self._metadata().get('recipe', {}), resume_changed)
        if first:
            self._clear()
        processes.wait_for_all('checkpoints')

    def _compare(self, before: dict[str, Any], resume_changed: bool) -> None:
        """Raises ValueError for another recipe, unless `resume_changed`; tells what changed. {} is not known."""
        # A key that only one side has is older or newer than the other.
        shared = sorted(before.keys() & self._recipe.keys())
        different = {key: f'{key} (there {before[key]!r}, here {self._recipe[key]!r})' for key in shared}
        different = {key: line for key, line in different.items() if before[key] != self._recipe[key]}
        refused = [line for key, line in different.items() if not key.startswith(MAY_CHANGE)]
        if refused and not resume_changed:
            raise ValueError(
                f'The run in {self._folder} began with another recipe. Different are: {"; ".join(refused)}. Give the config '
                'that it began with, or another workdir; or go on with the new recipe by --config.resume_changed=True.'
            )
        if different:
            processes.say(f'Changed since the newest checkpoint: {"; ".join(different.values())}.')

    def _metadata(self) -> dict[str, Any]:
        return ocp.metadata(self._folder / str(self._newest)).custom_metadata

    def _clear(self) -> None:
        """Puts aside what is newer than the newest whole checkpoint, and removes what killed processes left."""
        for step in steps(self._folder):
            if step > self._newest:
                aside = self._folder / f'damaged-{step}'
                shutil.rmtree(aside, ignore_errors=True)
                (self._folder / str(step)).rename(aside)
        for left in {*self._folder.glob('writing-*'), *self._folder.glob('*.orbax-checkpoint-tmp*')}:
            shutil.rmtree(left)

    def save(self, state: TrainState, positions: dict[str, int], skipped: Skipped) -> None:
        """Saves in the background. Waits for a save still under way, and raises what went wrong in it.

        Args:
          positions: batches read of each data set.
          skipped: the steps that were skipped so far.

        Raises:
          OSError: a checkpoint could not be written; older ones are whole.
          FloatingPointError: the state is not finite, and is not saved.
        """
        self.wait()
        step = int(state.step)
        if not is_finite(state):
            raise FloatingPointError(f'The parameters or moments are not finite after step {step}. {REMEDY}')
        aside = self._folder / f'writing-{step}'
        # 'checksums' tells that there must be a checksums.json.
        about = dict(about=self._about, recipe=self._recipe, data=positions, skipped=skipped._asdict(), checksums=True)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            writing = ocp.save_async(aside, _as_arrays(state), custom_metadata=about)
        except Exception as error:
            raise self._not_written(step, error) from error
        self._saved = step, self._thread.submit(self._finish, step, aside, writing)

    def _finish(self, step: int, aside: pathlib.Path, writing: Any) -> None:
        writing.result()  # Every process has written its part.
        if jax.process_index() == 0:
            write_whole(aside / CHECKSUMS, json.dumps(digests(aside), indent=1).encode())
            aside.rename(self._folder / str(step))
            for old in steps(self._folder)[self._keep :]:
                shutil.rmtree(self._folder / str(old))

    def wait(self) -> None:
        """Waits for the save under way; OSError if it failed."""
        if self._saved is not None:
            (step, future), self._saved = self._saved, None
            try:
                future.result()
            except Exception as error:
                raise self._not_written(step, error) from error

    def raise_if_failed(self) -> None:
        """OSError if the save under way has failed already; does not wait."""
        if self._saved is not None and self._saved[1].done():
            self.wait()

    def _not_written(self, step: int, error: Exception) -> OSError:
        return OSError(
            f'The checkpoint of step {step} could not be written into {self._folder}: {error}\n'
            f'Whole are those of the steps {steps(self._folder)}. When there is room again, the same command resumes.'
        )

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, int], Skipped] | None:
        """The newest whole checkpoint, laid out on the devices like `state`; None if there is none.

        Returns:
          the state, the batches read of each data set, and the steps skipped.
        """
        if not self._newest:
            return None
        arrays = _as_arrays(state)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), arrays)
        loaded = ocp.load(self._folder / str(self._newest), abstract)
        beside = self._metadata()
        skipped = Skipped(**beside.get('skipped', {}))  # Checkpoints from before do not count them.
        return loaded._replace(key=jax.random.wrap_key_data(loaded.key)), beside['data'], skipped

    def close(self) -> None:
        """Waits for the save under way, in every process."""
        self.wait()
        self._thread.shutdown()
        processes.wait_for_all('saved')


def _as_arrays(state: TrainState) -> TrainState:
    return state._replace(key=jax.random.key_data(state.key))


def _differences(before: Any, now: Any, path: str = '') -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            for line in _differences(before.get(key), now.get(key), f'{path}.{key}' if path else key)
        ]
    return [] if before == now else [f'{path} (there {before!r}, here {now!r})']
