"""How often a training step reads each weight from memory: the bytes that no cache saves.

Every micro-batch of every data set reads the weights again: forward, in the backward pass (the gradient of a product's
input needs its weight, frozen or trained), and between them if `remat` recomputes. A model larger than the chip's
on-chip memory cannot keep them there. `tests/planning/test_passes.py` finds these passes in the compiled program.

Activations, norms and biases are left out: what is counted here is a lower bound.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
from jax.sharding import NamedSharding

from flamingo_jax.inputs.rows import Aligned, Paired
from flamingo_jax.parallel import rules
from flamingo_jax.planning.programs import Planned


class Weight(NamedTuple):
    """A weight of the model (of all blocks, if it is a stack), as one chip reads it: whole, but for `tensor`."""

    name: str  # Path in the parameter tree.
    shape: tuple[int, ...]  # Of the chip's part, gathered over `fsdp`.
    bytes: int | float  # Of one pass.
    times: int | float  # Passes in a step.
    gathered: bool  # Whether each pass has to gather it over `fsdp`.
    trained: bool


def weights(run: Planned) -> list[Weight]:
    """Every weight of a product, with its passes in a training step.

    A trained weight is stored, and read in every pass, in float32. A frozen trunk encodes the pictures of all data
    sets in one pass a micro-batch.
    """
    out = []
    for tree, boxed in run.shapes.items():
        trained = tree in run.trained
        shardings = rules.shardings(boxed, run.mesh)
        for path, leaf in jax.tree_util.tree_leaves_with_path(nn.meta.unbox(boxed)):
            name = f'{tree}/{jax.tree_util.keystr(path, simple=True, separator="/")}'
            times = run.micro_batches * _passes(run, name)
            if not times:
                continue
            sharding = shardings
            for key in path:
                sharding = sharding[key.key]
            shape = _shape(sharding, leaf.shape)
            size = 4 if trained else jax.numpy.dtype(run.model.dtype_of(tree)).itemsize
            gathered = run.mesh.shape['fsdp'] > 1 and 'fsdp' in _axes(sharding)
            out.append(Weight(name, shape, size * math.prod(shape), times, gathered, trained))
    return out


def update(run: Planned, held: dict[str, int]) -> int | float:
    """Bytes that a chip moves for gradients, parameters and moments in a step, all float32.

    For each micro-batch of each data set, products write the gradient, whole but for `tensor`. The chip's share of it
    is then written, read, and added to the sum, which is read and written. Once a step, the sum is read for its norm
    and for the update, and parameters and moments are read and written.

    Args:
      held: bytes on a chip of 'gradients', 'moments', and of each tree of parameters.
    """
    whole = sum(one.bytes for one in weights(run) if one.trained)
    each = run.micro_batches * len(run.sources) * (whole + 4 * held['gradients'])
    params = sum(size for name, size in held.items() if name.endswith('(float32)'))
    return each + 2 * held['gradients'] + 2 * params + 2 * held['moments']


def _passes(run: Planned, name: str) -> int | float:
    """Passes over a weight for one micro-batch of all data sets."""
    tree, _, rest = name.partition('/')
    parts = rest.split('/')
    sources = run.sources.values()
    if tree == 'vision':
        pixels = sum(bool(data.images and not data.features) for data in sources)
        kernel = parts[-1] == 'kernel' or len(parts) == 1
        again = pixels if run.micro_batches > 1 and any(data.row is Paired for data in sources) else 0
        return (2 * pixels + again if 'vision' in run.trained else min(pixels, 1)) if kernel else 0
    if tree == 'lm' and parts[0] == 'embedder':
        # The logits. Text looks its embeddings up, row by row.
        of_logits = parts[1:] == ['tokens'] if run.model.config.lm.tied else parts[1:2] == ['output']
        return 2 * sum(data.row not in (Aligned, Paired) for data in sources) if of_logits else 0
    again = run.model.remat == 'full'  # 'dots' keeps the products.
    if parts[-1] == 'relative':
        # The keys of distances, which depend on no activation: nothing flows back through this weight.
        return sum(1 + again + (data.row is Aligned) for data in sources)
    if parts[-1] != 'kernel':
        return 0
    pictures = sum(bool(data.images) for data in sources)
    if tree == 'resampler':
        if parts[0] == 'project_in' and 'vision' not in run.trained:
            return pictures  # Nothing flows back into the features. The compiler keeps the result.
        return 2 * pictures if _last(run, tree, parts) else (2 + again) * pictures
    times = sum(
        (2 if _last(run, tree, parts) else 2 + again) + (tree == 'lm' and data.row is Aligned) for data in sources
    )
    return times if tree != 'xattn' or parts[0] not in ('key', 'value') else times * pictures / len(sources)


def _last(run: Planned, tree: str, parts: list[str]) -> bool:
    """Whether no backward pass needs the product's result, so that `remat` does not recompute it.

    The gate of a gated block needs its result.
    """
    if tree == 'resampler':
        return parts[0] == 'project_out'
    return parts[-2] == 'down' and not (tree == 'xattn' and run.model.config.xattn.gates)


def _axes(sharding: NamedSharding) -> set[str]:
    return {axis for part in sharding.spec if part for axis in (part if isinstance(part, tuple) else (part,))}


def _shape(sharding: NamedSharding, shape: tuple[int, ...]) -> tuple[int, ...]:
    tensor = sharding.mesh.shape['tensor']
    spec = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    return tuple(size // tensor if axis == 'tensor' else size for size, axis in zip(shape, spec, strict=True))
