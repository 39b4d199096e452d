"""The loss on held-out data during training: what is learnt by heart shows in the training loss, and not here."""

import dataclasses
import functools

import grain.python as grain
import jax
import jax.numpy as jnp

from flamingo_jax.inputs import pipeline
from flamingo_jax.inputs.rows import Batch
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules
from flamingo_jax.training.losses import LOSSES
from flamingo_jax.training.losses.noise import NoiseConfig
from flamingo_jax.training.state import TrainState
from flamingo_jax.training.step import cut, encode

# Of the order of the held-out data: runs of other seeds are validated on the same batches.
SEED = 0


def held_out(datasets: dict[str, Source]) -> dict[str, Source]:
    """The data sets that have a `validation_split`, with that split in the place of their own.

    Raises:
      ValueError: a file of documents, which has no splits.
    """
    chosen = {name: data for name, data in datasets.items() if data.validation_split}
    if files := [name for name, data in chosen.items() if data.path.endswith('.jsonl')]:
        raise ValueError(
            f"The data sets {files} are .jsonl files, which have no splits: set their validation_split to ''."
        )
    return {name: dataclasses.replace(data, split=data.validation_split) for name, data in chosen.items()}


class Validation:
    """The mean loss and accuracy over the first batches of every held-out split, without noise."""

    def __init__(
        self,
        model: Flamingo,
        batches: dict[str, grain.MapDataset],
        datasets: dict[str, Source],
        number: int,
        micro_batches: int,
        shardings: TrainState,
    ):
        """Reads nothing yet.

        Args:
          batches: of every held-out data set (`pipeline.batches`).
          datasets: their configs.
          number: so many batches of each.
          micro_batches: each batch is cut into so many, one after the other, as in training.
          shardings: the state's shardings.
        """
        self._batches = {name: batches[name][:number] for name in batches}
        self._sizes = {name: data.batch_size for name, data in datasets.items()}
        mesh = shardings.step.mesh
        self._rows = meshes.batch_sharding(mesh)

        @functools.partial(jax.jit, out_shardings=shardings.step)
        def sums(params: Params, frozen: Params, batch: Batch) -> dict[str, jax.Array]:
            def of_micro_batch(micro):
                micro = encode(model, mesh, frozen, dict(micro=micro))['micro']
                return LOSSES[type(micro)](model, params, frozen, micro, jax.random.key(0), NoiseConfig())[1]

            with rules.activations(mesh):
                parts = jax.lax.map(of_micro_batch, cut(batch, micro_batches))
            return jax.tree.map(jnp.sum, parts) | dict(weights=batch.total_weight())

        self._sums = sums  # Compiled once for each data set.

    def __bool__(self) -> bool:
        """Whether any data set has a held-out split."""
        return bool(self._batches)

    def __call__(self, params: Params, frozen: Params) -> dict[str, float]:
        """validation/NAME/loss and validation/NAME/accuracy of each data set: means over the targets of all batches."""
        out = {}
        for name, batches in self._batches.items():
            total = None
            for batch in pipeline.read(batches, start=0, workers=0):
                sums = self._sums(params, frozen, pipeline.put(batch, self._rows, self._sizes[name]))
                total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            total = {key: float(value) for key, value in total.items()}
            out[f'validation/{name}/loss'] = total['loss'] / max(total['weights'], 1e-6)
            out[f'validation/{name}/accuracy'] = total['right'] / max(total['answers'], 1)
        return out
