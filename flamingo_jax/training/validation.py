"""The loss on held-out data during training. Memorised data lowers the training loss, but not this one."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import grain.python as grain
import jax
import jax.numpy as jnp
from clu.metrics import Average

from flamingo_jax.errors import UserError
from flamingo_jax.inputs import pipeline
from flamingo_jax.inputs.rows import Batch
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import processes, rules
from flamingo_jax.training.objectives.noise import NoiseConfig
from flamingo_jax.training.objectives.objective import loss_sum
from flamingo_jax.training.state import TrainState
from flamingo_jax.training.step import cut, encode

# Seed of the order of held-out data. All runs are validated on the same batches, whatever their seed.
SEED = 0


def held_out(datasets: dict[str, Source]) -> dict[str, Source]:
    """The data sets that have a `validation_split`, each opened at that split. `Documents` change no image there.

    Raises:
      ValueError: a data set is a .jsonl file, which has no splits.
    """
    chosen = {name: data for name, data in datasets.items() if data.validation_split}
    if files := [name for name, data in chosen.items() if data.path.endswith('.jsonl')]:
        raise UserError(
            f"The data sets {files} are .jsonl files, which have no splits. Set their validation_split to ''."
        )

    def opened(data: Source) -> Source:
        as_they_are = {field: False for field in ('flip', 'recolour') if hasattr(data, field)}
        return dataclasses.replace(data, split=data.validation_split, **as_they_are)

    return {name: opened(data) for name, data in chosen.items()}


class Validation:
    """The mean loss and accuracy, without noise, over the first batches of every held-out split."""

    def __init__(
        self,
        model: Flamingo,
        batches: dict[str, grain.MapDataset],
        datasets: dict[str, Source],
        number: int,
        shardings: TrainState,
    ):
        """Reads nothing yet.

        Args:
          batches: the batches of every held-out data set (`pipeline.batches`).
          datasets: their configs, which say into how many micro-batches each batch is cut.
          number: how many batches of each to use.
          shardings: the state's shardings.
        """
        self._batches = {name: batches[name][:number] for name in batches}
        self._datasets = datasets
        mesh = cast(Any, shardings).step.mesh
        self._rows = meshes.batch_sharding(mesh)

        @functools.partial(jax.jit, out_shardings=shardings.step, static_argnames='micro_batches')
        def means(params: Params, frozen: Params, batch: Batch, micro_batches: int) -> tuple[dict[str, Average], Any]:
            def of_part(part):
                return loss_sum(part, model, params, frozen, jax.random.key(0), NoiseConfig())[1]

            def of_micro_batch(micro):
                return of_part(encode(model, mesh, frozen, dict(micro=micro))['micro'])

            with rules.activations(mesh):
                parts = cut(batch, micro_batches)
                parts = of_part(parts) if batch.compares_rows else jax.lax.map(of_micro_batch, parts)
            sums = jax.tree.map(jnp.sum, parts)
            loss = Average(total=sums['loss'], count=batch.total_weight())
            return dict(loss=loss, accuracy=Average(total=sums['right'], count=sums['answers'])), sums['unreadable']

        self._means = means  # Compiled once per data set.

    def __bool__(self) -> bool:
        """Whether any data set has a held-out split."""
        return bool(self._batches)

    def __call__(self, params: Params, frozen: Params, goes_on: Callable[[], bool]) -> dict[str, float]:
        """validation/NAME/loss and validation/NAME/accuracy of each data set: means over the targets of all batches.

        And validation/NAME/unreadable, the number of damaged images, whose text is left out with them. A mean without
        a target is NaN.

        goes_on: is called once for each batch. After False the validation ends at once, and gives {}.
        """
        out = {}
        for name, batches in self._batches.items():
            total, damaged = None, 0
            for batch in pipeline.read(batches, start=0, workers=0):
                batch = pipeline.put(batch, self._rows, self._datasets[name].batch_size)
                means, unreadable = self._means(params, frozen, batch, micro_batches=self._datasets[name].micro_batches)
                jax.block_until_ready(total)  # Of the batches before. Devices compute while the next batch is read.
                total = {key: total[key].merge(mean) for key, mean in means.items()} if total else means
                damaged = damaged + unreadable
                if not goes_on():
                    return {}
            out |= {f'validation/{name}/{key}': float(mean.compute()) for key, mean in total.items()}
            out[f'validation/{name}/unreadable'] = float(damaged)
            if damaged:
                processes.say(f'{damaged:.0f} damaged images of the validation of {name!r} are left out.')
        return out
