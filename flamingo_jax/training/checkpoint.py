"""Checkpoints of a training run, by Orbax: the trained trees, the moments and the position in the data.

WORKDIR/checkpoints/STEP             finished: written under another name, given checksums, then renamed
WORKDIR/checkpoints/writing-STEP     being written, or left by a killed process; the next run removes it
WORKDIR/checkpoints/damaged-STEP     a checkpoint that differs from its checksums

checksums.json in a checkpoint has a SHA-256 of each of its files, computed by the process that wrote the file. A
checkpoint is read only if they agree. Old checkpoints are not deleted by Orbax, which would do so before the new one
has its checksums.

In a bucket, where nothing can be renamed at once, a checkpoint is written under its own name. It is finished when it
has its checksums.json, which is written last and deleted first. That file then has sizes (`checkpoints/run_format.py`).

A disk or a bucket that fails for a moment does not end a run of one process: it saves again after the next step. Of
several, each would have to learn of it at the same step; there it ends the run, which the same command resumes.
"""

import concurrent.futures
import json
import math
import re
import time
from typing import Any, cast

import jax
from orbax.checkpoint import v1 as ocp

from flamingo_jax.checkpoints.run_format import CHECKSUMS, digests, newest_whole, steps, unfinished
from flamingo_jax.errors import DivergedError, StorageError, UserError
from flamingo_jax.files import Path, as_path, in_bucket, move, remove, write_whole
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.parallel import processes
from flamingo_jax.training.progress import REMEDY, Skipped
from flamingo_jax.training.state import TrainState, is_finite

# Beginnings of keys of a recipe that may change when a run resumes: the learning rate is often lowered, and another
# machine may compute in another way.
MAY_CHANGE = ('optimizer.', 'dtype', 'attention_kernel')
PAUSES = (1.0, 4.0, 16.0)  # Seconds before a save that failed is made again.
AVERAGE = 'optimizer.average'  # Whether there is one may not: it is a part of the state.


class Checkpoints:
    """The checkpoints of one run. If there are several processes, all of them must call every method."""

    def __init__(
        self,
        workdir: str | Path,
        keep: int,
        about: dict[str, Any],
        recipe: dict[str, Any],
        resume_changed: bool = False,
    ):
        """Opens the folder, which may be empty, and prints damaged checkpoints.

        Args:
          keep: how many of the newest checkpoints to keep.
          about: JSON that describes the model: its config, the trained trees, the checksums of the frozen trees.
          recipe: what determines the training (`training/config.py`).
          resume_changed: resume although the recipe differs from that of the newest checkpoint.

        Raises:
          ValueError: the folder has checkpoints of another model or recipe; the message says what differs.
          OSError: every checkpoint in the folder is damaged.
        """
        self._folder = as_path(workdir) / 'checkpoints'
        self._keep, self._about, self._recipe = keep, about, recipe
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._saved: tuple[int, concurrent.futures.Future] | None = None
        self._failed = 0  # Saves in a row.
        first = jax.process_index() == 0
        self._newest = newest_whole(self._folder) or 0
        if self._newest:
            before = self._metadata()['about']
            # A config field that is newer than the checkpoint gets its default.
            before = before | dict(model=FlamingoConfig.from_json(before['model']).to_json())
            if different := _differences(before, about):
                raise UserError(
                    f'{self._folder} has checkpoints of another model. These fields differ: {"; ".join(different)}. '
                    'Use the config of these checkpoints, or another --workdir.'
                )
            self._compare(self._metadata().get('recipe', {}), resume_changed)
        if first:
            self._clear()
        processes.wait_for_all('checkpoints')

    def _compare(self, before: dict[str, Any], resume_changed: bool) -> None:
        """Compares recipes and prints what changed.

        ValueError if they differ, unless `resume_changed`. {} is unknown.
        """
        was, now = (recipe.get(AVERAGE) or 0.0 for recipe in (before, self._recipe))
        if before and was != now:  # A sum of parameters by two decays is no average of either.
            raise UserError(
                f'The run in {self._folder} began {"with" if was else "without"} an average of its parameters. Set '
                f'config.{AVERAGE} to {was}, or take another --workdir.'
            )
        # A key that only one side has was added or removed in between.
        shared = sorted(before.keys() & self._recipe.keys())
        different = {key: f'{key} (there {before[key]!r}, here {self._recipe[key]!r})' for key in shared}
        different = {key: line for key, line in different.items() if before[key] != self._recipe[key]}
        refused = [line for key, line in different.items() if not key.startswith(MAY_CHANGE)]
        if refused and not resume_changed:
            raise UserError(
                f'The run in {self._folder} began with another recipe. These fields differ: {"; ".join(refused)}. Use '
                'the config that it began with, or another --workdir, or resume with the new recipe by '
                '--config.resume_changed=True.'
            )
        if different:
            processes.say(f'Changed since the newest checkpoint: {"; ".join(different.values())}.')

    def _metadata(self) -> dict[str, Any]:
        return cast(dict[str, Any], ocp.metadata(self._folder / str(self._newest)).custom_metadata)

    def _clear(self) -> None:
        """Renames damaged checkpoints newer than the newest whole one, and removes what killed processes left."""
        for step in steps(self._folder):
            if step > self._newest:
                aside = self._folder / f'damaged-{step}'
                remove(aside)
                move(self._folder / str(step), aside)
        self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        for left in unfinished(self._folder):
            remove(left)

    def save(
        self,
        state: TrainState,
        positions: dict[str, int],
        skipped: Skipped,
        last: bool = False,
        beside_all: bool = False,
    ) -> None:
        """Saves in the background. First waits for the previous save.

        Args:
          positions: the number of batches read of each data set.
          skipped: the skipped steps so far.
          last: wait for it, and make it again if it fails: there is no later state to save in its place.
          beside_all: keep every older checkpoint too, since this one may be no good.

        Raises:
          StorageError: checkpoints could not be written, several times; older ones are whole.
          DivergedError: the state is not finite; it is not saved.
        """
        self.wait()
        self._begin(state, positions, skipped, beside_all)
        while last and not self.wait():
            self._begin(state, positions, skipped, beside_all)

    def _begin(self, state: TrainState, positions: dict[str, int], skipped: Skipped, beside_all: bool) -> None:
        step = int(state.step)
        if not is_finite(state):
            raise DivergedError(f'The parameters or moments are not finite after step {step}. {REMEDY}')
        if self._failed:
            time.sleep(PAUSES[self._failed - 1])
        aside = self._folder / (str(step) if in_bucket(self._folder) else f'writing-{step}')
        # 'checksums' records that there must be a checksums.json.
        about = dict(about=self._about, recipe=self._recipe, data=positions, skipped=skipped._asdict(), checksums=True)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._failed:
                self._remove_unfinished()  # It may fill the disk.
            writing = ocp.save_async(aside, _as_arrays(state), custom_metadata=about)
        except Exception as error:
            self._saved = step, concurrent.futures.Future()
            self._saved[1].set_exception(error)
            return
        self._saved = step, self._thread.submit(self._finish, step, aside, writing, beside_all)

    def _finish(self, step: int, aside: Path, writing: Any, beside_all: bool) -> None:
        writing.result()  # Every process has written its part.
        sums = _digests(aside)
        if jax.process_index() == 0:
            write_whole(aside / CHECKSUMS, json.dumps(sums, indent=1).encode())
            if aside.name != str(step):
                aside.rename(self._folder / str(step))
            try:
                for old in () if beside_all else steps(self._folder)[self._keep :]:
                    remove(self._folder / str(old), first=CHECKSUMS)
            except Exception as error:  # This one is whole. The next save removes them.
                print(f'Old checkpoints in {self._folder} could not be removed now: {error}', flush=True)

    def wait(self) -> bool:
        """Waits for the current save. Returns whether it succeeded, if there was one; errors as for `save`."""
        if self._saved is None:
            return True
        (step, future), self._saved = self._saved, None
        try:
            future.result()
        except Exception as error:
            self._failed += 1
            if jax.process_count() > 1 or self._failed > len(PAUSES):
                raise self._not_written(step, error) from error
            print(f'{self._not_written(step, error)}\nIt is tried again, {self._failed} of {len(PAUSES)}.', flush=True)
            return False
        self._failed = 0
        return True

    @property
    def writing(self) -> bool:
        """Whether a save is on its way."""
        return self._saved is not None and not self._saved[1].done()

    def failed(self) -> bool:
        """Whether the current save has failed and is to be made again; does not wait. Errors as for `save`."""
        return self._saved is not None and self._saved[1].done() and not self.wait()

    def _not_written(self, step: int, error: Exception) -> StorageError:
        try:
            whole = f'The checkpoints of the steps {steps(self._folder)} are whole.'
        except Exception as another:  # The storage does not even answer.
            whole = f'Which are whole is not known now ({another}).'
        return StorageError(
            f'The checkpoint of step {step} could not be written to {self._folder}: {error}\n{whole} Make room, or '
            'repair the storage; then resume with the same command.'
        )

    def restore(self, shapes: TrainState) -> tuple[TrainState, dict[str, int], Skipped] | None:
        """The newest whole checkpoint; None if there is none.

        Args:
          shapes: of the state, with their shardings (`state.lay_out`). A second state might not fit beside it.

        Returns:
          The state, the number of batches read of each data set, of the size that they have now, and the skipped steps.
        """
        if not self._newest:
            return None
        key = jax.eval_shape(jax.random.key_data, shapes.key)
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=shapes.key.sharding)
        loaded = ocp.load(self._folder / str(self._newest), shapes._replace(key=key))
        beside = self._metadata()
        skipped = Skipped(**beside.get('skipped', {}))  # Absent in older checkpoints.
        positions = _positions(beside['data'], beside.get('recipe', {}), self._recipe)
        return loaded._replace(key=jax.random.wrap_key_data(loaded.key)), positions, skipped

    def close(self) -> None:
        """Waits for the current save in every process; StorageError if it failed."""
        self._failed = len(PAUSES)  # The state is gone.
        self.wait()
        self._thread.shutdown()
        processes.wait_for_all('saved')


def _digests(folder: Path) -> dict[str, str]:
    """`digests` of a checkpoint that was just written, in the first process; of its own part in any other.

    Each process reads what it wrote itself, most of which is still in its memory: one process alone would take minutes
    for a large model, and a machine that is taken away gives it seconds.
    """
    here, number = jax.process_index(), jax.process_count()
    if number == 1 or in_bucket(folder):
        return digests(folder) if here == 0 else {}
    if here == 0:
        processes.post(
            f'{folder} is written', True
        )  # Under this name; Orbax lets only the first process wait for that.
    else:
        processes.posted(f'{folder} is written', 0)
    sums = digests(folder, of=lambda file: writer(file, number) == here)
    if here > 0:
        processes.post(f'{folder} has checksums', sums)
        return sums
    for i in range(1, number):
        sums |= processes.posted(f'{folder} has checksums', i)
    return sums | digests(folder, of=lambda file: file not in sums)  # On a shared disk, one may see files late.


def writer(file: str, number: int) -> int:
    """Which of a number of processes wrote a file of a checkpoint, by its path there: state/ocdbt.process_3/d/0c6f.

    The first writes what belongs to all.
    """
    found = re.search(r'(?:^|/)ocdbt\.process_(\d+)/', file)
    return int(found[1]) if found and int(found[1]) < number else 0


def _as_arrays(state: TrainState) -> TrainState:
    return state._replace(key=jax.random.key_data(state.key))


def _positions(batches: dict[str, int], before: dict[str, Any], now: dict[str, Any]) -> dict[str, int]:
    """How many batches of each data set hold the documents of those read, of which a recipe may have other numbers.

    Rounded up, so that no document is read twice.
    """

    def documents(recipe: dict[str, Any], name: str) -> int:
        return math.prod(recipe.get(f'datasets.{name}.{key}', 1) for key in ('batch_size', 'documents'))

    # What one of the recipes does not know has not changed.
    return {
        name: -(-number * documents(now | before, name) // documents(before | now, name))
        for name, number in batches.items()
    }


def _differences(before: Any, now: Any, path: str = '') -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            for line in _differences(before.get(key), now.get(key), f'{path}.{key}' if path else key)
        ]
    return [] if before == now else [f'{path} (there {before!r}, here {now!r})']
