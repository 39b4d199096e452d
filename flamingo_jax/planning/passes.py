"""How often a training step reads each weight from memory: the bytes that no cache saves.

Every micro-batch of every data set reads the weights again: forward, in the backward pass (the gradient of a product's
input needs its weight, frozen or trained), and between them if `remat` recomputes. A model larger than the chip's
on-chip memory cannot keep them there. `tests/planning/test_passes.py` finds these passes in the compiled program.

Activations, norms and biases are left out: what is counted here is a lower bound.
"""

import math
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from flamingo_jax.model import quantised
from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig
from flamingo_jax.parallel import rules
from flamingo_jax.planning.programs import Planned, reads_copies
from flamingo_jax.training.objectives import chunks


class Weight(NamedTuple):
    """A weight of the model (of all blocks, if it is a stack), as one chip reads it: whole, but for `tensor`."""

    name: str  # Path in the parameter tree.
    shape: tuple[int, ...]  # Of the chip's part, gathered over `fsdp`.
    bytes: int | float  # Of one pass.
    gathered: bool  # Whether each pass has to gather it over `fsdp`.
    trained: bool
    times: int | float = 0  # Passes in a step.


def stored(run: Planned) -> list[Weight]:
    """Every weight, without its passes: these depend on the mesh alone.

    A trained weight is stored in float32, but products read a copy of it in the dtype of the computation.
    """
    out = []
    for tree, boxed in run.shapes.items():
        trained = tree in run.trained
        shardings = rules.shardings(boxed, run.mesh)
        for path, leaf in jax.tree_util.tree_leaves_with_path(nn.meta.unbox(boxed)):
            name = f'{tree}/{jax.tree_util.keystr(path, simple=True, separator="/")}'
            sharding = shardings
            for key in path:
                sharding = sharding[key.key]
            shape = _shape(sharding, leaf.shape)
            copied = path[-1].key == 'kernel' and tree != 'vision' and reads_copies(run)  # `step.working_copies`.
            size = jnp.dtype(run.model.dtype_of(tree)).itemsize if copied or not trained else 4
            if tree == 'lm' and run.model.quantised:
                size = quantised.itemsize([key.key for key in path], run.model.quantised) or size
            gathered = run.mesh.shape['fsdp'] > 1 and 'fsdp' in _axes(sharding)
            out.append(Weight(name, shape, size * math.prod(shape), gathered, trained))
    return out


def weights(run: Planned, of: list[Weight] | None = None) -> list[Weight]:
    """Every weight of a product, with its passes in a training step.

    A frozen trunk encodes the images of all data sets, in as many parts as the data set of most micro-batches has.

    Args:
      of: `stored`, if it is at hand.
    """
    read = (one._replace(times=_passes(run, one.name)) for one in (stored(run) if of is None else of))
    return [one for one in read if one.times]


def logits(run: Planned) -> dict[str, tuple[int, int | float]]:
    """Of each data set, the chunks of a micro-batch's logits, and the bytes of one chunk on a device."""
    out = {}
    for name, data in run.sources.items():
        if data.row.has_logits:
            rows = data.batch_size // data.micro_batches * data.lines
            of = run.model, rows, data.targets or data.length, run.mesh
            number = chunks.number(*of)
            out[name] = number, chunks.logits_bytes(*of) / number
    return out


def update(run: Planned, read: list[Weight], held: dict[str, int]) -> int | float:
    """Bytes that a chip moves for gradients, parameters and moments in a step.

    For each micro-batch of each data set, products write the gradient in the dtype of the weights that they read, whole
    but for `tensor`. The chip's share of it is then read, and added to the sum, which is read and written in float32.
    Once a step, the parameters are read and their copies written, the sum is read for its norm and for the update, and
    parameters and moments are read and written.

    Args:
      read: `weights`.
      held: bytes on a chip of 'gradients', 'moments', 'copies', and of each tree of parameters.
    """
    trained = [one for one in read if one.trained]
    whole = sum(one.bytes for one in trained)
    params = sum(size for name, size in held.items() if name.endswith('(float32)'))
    share = held['gradients'] * whole / max(sum(4 * math.prod(one.shape) for one in trained), 1)
    each = sum(data.micro_batches for data in run.sources.values()) * (whole + share + 2 * held['gradients'])
    return each + 2 * held['gradients'] + 3 * params + held['copies'] + 2 * held['moments']


def _passes(run: Planned, name: str) -> int | float:
    """Passes over a weight in a step."""
    tree, _, rest = name.partition('/')
    parts = rest.split('/')

    def micro_batches(which):
        return [data.micro_batches for data in run.sources.values() if which(data)]

    if tree == 'vision':
        pixels = micro_batches(lambda data: data.images and not data.features)
        kernel = parts[-1] == 'kernel' or len(parts) == 1
        again = sum(micro_batches(lambda data: data.row.compares_rows and data.micro_batches > 1))
        return (2 * sum(pixels) + again if 'vision' in run.trained else max(pixels, default=0)) if kernel else 0
    if tree == 'lm' and parts[0] == 'embedder':
        # The logits. Text looks its embeddings up, row by row.
        of_logits = parts[1:] == ['tokens'] if run.model.config.lm.tied else parts[1:2] == ['output']
        # Each chunk of the logits reads them for its product, and for the gradient of its text.
        read = sum(run.sources[name].micro_batches * number for name, (number, _) in logits(run).items())
        return 2 * read if of_logits else 0
    again = run.model.remat == 'full'  # 'dots' keeps the products.
    every = sum(micro_batches(lambda data: True))
    # What the frozen language model reads beside a row has no gradient.
    beside = sum(micro_batches(lambda data: data.row.lengths(data.length, data.images, 0)[1] > 0))
    if parts[-1] == 'relative':
        # The keys of distances, which depend on no activation: nothing flows back through this weight.
        return (1 + again) * every + beside
    if parts[-1] != 'kernel':
        return 0
    images = sum(micro_batches(lambda data: data.images))
    if tree == 'resampler':
        if parts[0] == 'project_in' and 'vision' not in run.trained:
            return images  # Nothing flows back into the features. The compiler keeps the result.
        return 2 * images if _last(run, tree, parts) else (2 + again) * images
    times = 2 if _last(run, tree, parts) else 2 + again
    if tree == 'lm':
        return times * every + beside
    return times * (images if tree == 'xattn' and parts[0] in ('key', 'value') else every)


def _last(run: Planned, tree: str, parts: list[str]) -> bool:
    """Whether no backward pass needs the product's result, so that `remat` does not recompute it.

    The gate of a gated block needs its result.
    """
    if tree == 'resampler':
        return parts[0] == 'project_out'
    return parts[-2] == 'down' and not (tree == 'xattn' and cast(GatedXattnConfig, run.model.config.xattn).gates)


def _axes(sharding: NamedSharding) -> set[str]:
    return {axis for part in sharding.spec if part for axis in (part if isinstance(part, tuple) else (part,))}


def _shape(sharding: NamedSharding, shape: tuple[int, ...]) -> tuple[int, ...]:
    tensor = sharding.mesh.shape['tensor']
    spec = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    return tuple(size // tensor if axis == 'tensor' else size for size, axis in zip(shape, spec, strict=True))
