"""Checkpoints of a training run: Orbax v1, trained trees only, with the position in the data beside them."""

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run, in WORKDIR/checkpoints/STEP. Each is written aside and then renamed, or not at all."""

    def __init__(self, workdir: str | pathlib.Path, keep: int, about: dict[str, Any]):
        """Opens the folder, which may be empty.

        Args:
          keep: the newest so many are kept.
          about: JSON that says what model this is: its config, what is trained, the frozen trees' checksums.

        Raises:
          ValueError: the folder holds checkpoints of another model; the message names what differs.
        """
        self._folder = pathlib.Path(workdir).absolute() / 'checkpoints'
        self._about = about
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        if self._checkpointer.latest is not None:
            before = self._checkpointer.metadata(self._checkpointer.latest.step).custom_metadata['about']
            # A field of the config that is newer than the checkpoint has its default there.
            before = before | dict(model=FlamingoConfig.from_json(before['model']).to_json())
            if different := _differences(before, about):
                raise ValueError(
                    f'{self._folder} holds checkpoints of another model. Different are: {"; ".join(different)}. '
                    'Give the config that they were made with, or another workdir.'
                )

    def save(self, state: TrainState, data: dict[str, Any]) -> None:
        """Saves in the background; `data` is the iterators' state as JSON. Waits for a save still under way."""
        self._checkpointer.save_async(
            int(state.step), _as_arrays(state), custom_metadata=dict(about=self._about, data=data), overwrite=True
        )

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint, laid out on the devices like `state`, and the data's position; None if there is none."""
        latest = self._checkpointer.latest
        if latest is None:
            return None
        arrays = _as_arrays(state)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), arrays)
        loaded = self._checkpointer.load(latest.step, abstract)
        data = self._checkpointer.metadata(latest.step).custom_metadata['data']
        return loaded._replace(key=jax.random.wrap_key_data(loaded.key)), data

    def close(self) -> None:
        """Waits for the save under way."""
        self._checkpointer.close()


def _as_arrays(state: TrainState) -> TrainState:
    return state._replace(key=jax.random.key_data(state.key))


def read_latest(workdir: str | pathlib.Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The newest checkpoint of a run, for use: (about, trained trees on one device, step).

    Raises:
      FileNotFoundError: the run has no finished checkpoint.
    """
    folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    if not folder.is_dir():
        raise FileNotFoundError(f'{workdir} holds no checkpoints.')
    with ocp.training.Checkpointer(folder) as checkpointer:
        if checkpointer.latest is None:
            raise FileNotFoundError(f'{workdir} holds no finished checkpoint yet.')
        step = checkpointer.latest.step
        found = checkpointer.metadata(step)
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(lambda _: ocp.PLACEHOLDER, found.metadata)  # The optimizer's state is not read.
        abstract['params'] = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), found.metadata['params']
        )
        return found.custom_metadata['about'], checkpointer.load(step, abstract)['params'], step


def _differences(before: Any, now: Any, path: str = '') -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            for line in _differences(before.get(key), now.get(key), f'{path}.{key}' if path else key)
        ]
    return [] if before == now else [f'{path} (there {before!r}, here {now!r})']
