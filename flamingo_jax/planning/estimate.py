"""What a chip sends and holds in a training step, by formulas: for a search, which cannot compile every mesh.

The compiled program has the exact figures (`plan.py`). Bytes sent are a lower bound, as if every gradient that is cut
over copies or shards were scattered, not summed whole. Bytes held are an estimate; docs/scaling.md compares both with
compiled programs.
"""

from typing import Any

import jax.numpy as jnp

from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model import attention
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.planning import flops, passes
from flamingo_jax.planning.collectives import Collective
from flamingo_jax.planning.passes import Weight
from flamingo_jax.planning.programs import Planned

# Bytes that a norm keeps of each channel for the backward pass: its input and its result in float32, and the latter in
# the dtype of the computation.
NORM = 10
WEIGHTS = 6  # Of each attention weight: float32, and the dtype of the computation.
SUMS = 4  # Of each query and head, if a kernel computes attention: the logarithm of its sum, float32.


def sent(run: Planned, read: list[Weight], held: dict[str, int]) -> list[Collective]:
    """The collectives of a step that sharding implies, most bytes first.

    Args:
      read: `passes.weights`.
      held: `programs.held`.
    """
    data, fsdp, tensor = run.mesh.shape.values()
    found: dict[tuple[str, tuple[str, ...]], float] = {}

    def send(kind, axes, size):
        found[kind, axes] = found.get((kind, axes), 0.0) + size

    for one in read:
        if one.gathered:
            send('all-gather', ('fsdp',), one.bytes * one.times * (fsdp - 1) / fsdp)
        if one.trained:
            micro_batches = sum(source.micro_batches for source in run.sources.values())
            own = one.bytes / fsdp if one.gathered else one.bytes
            send('reduce-scatter', ('fsdp',), one.bytes * micro_batches * (fsdp - 1) / fsdp)
            send('reduce-scatter', ('data',), own * micro_batches * (data - 1) / data)
    params = sum(size for name, size in held.items() if name.endswith('(float32)'))
    send('all-gather', ('data',), params * (data - 1) / data)  # Of the parameters that each copy has updated.
    if tensor > 1:
        for source in run.sources.values():
            send('all-reduce', ('tensor',), 2 * (tensor - 1) / tensor * _summed(run, source) / (data * fsdp))
            if source.images and not source.features and 'vision' not in run.trained:
                features = _images(run, source) * source.frames * _spatial(run) * run.model.config.vision.width
                send('all-gather', ('tensor',), 2 * features / (data * fsdp) * (tensor - 1) / tensor)
    ordered = (Collective(kind, axes, size, 0) for (kind, axes), size in found.items() if size)
    return sorted(ordered, key=lambda one: -one.bytes)


def _summed(run: Planned, source: Source) -> int | float:
    """Bytes of activations that are summed over `tensor`, of all rows of a data set.

    After each of a block's two products that contract heads or hidden units; the same for the gradients of its two
    inputs; and again where `remat` recomputes a product that something needs.
    """
    c, work = run.model.config, flops.computed(run.model.config, source)
    again, tokens = run.model.remat == 'full', work.texts * work.length
    out = c.lm.depth * (4 + again) * tokens * c.lm.width + work.targets * c.lm.width
    if c.xattn:
        media = work.images * c.media_tokens
        out += c.xattn_blocks * ((4 + 2 * again) * tokens * c.lm.width + media * c.media_width)
        if c.resampler and work.images:
            places = work.images * (c.media_tokens * (4 + 2 * again) + source.frames * _spatial(run))
            out += c.resampler.depth * c.resampler.width * places
    return jnp.dtype(run.model.dtype).itemsize * out


def memory(run: Planned, read: list[Weight], held: dict[str, int], batches: int | float) -> dict[str, int | float]:
    """Bytes on a chip at the peak of a step, by what they are for.

    Args:
      read, held: as for `sent`.
      batches: bytes of all batches of a step, over all devices.
    """
    rows = meshes.row_shards(run.mesh)
    pixels = [source for source in run.sources.values() if source.images and not source.features]
    features = sum(_images(run, source) * source.frames * _spatial(run) for source in pixels)
    width = run.model.config.vision.width if pixels else 0
    layers = [one.bytes / (one.shape[0] if len(one.shape) > 2 else 1) for one in read if one.gathered]
    return held | dict(
        batches=batches / rows,
        features=2 * features * width / rows,
        # Of one micro-batch, before it is added to the sum.
        gradient=held['copies'] or held['gradients'],
        gathered=2 * max(layers, default=0),
        activations=max(activations(run, source) for source in run.sources.values()),
        logits=3 * max((size for _, size in passes.logits(run).values()), default=0),
    )


def activations(run: Planned, source: Source) -> int | float:
    """Bytes that one micro-batch of a data set keeps on a chip for its backward pass, and in its largest block."""
    c, tensor = run.model.config, run.mesh.shape['tensor']
    size = jnp.dtype(run.model.dtype).itemsize
    parts = source.micro_batches * meshes.row_shards(run.mesh)
    work = flops.computed(c, source)
    tokens, images = work.texts * work.length / parts, work.images / parts
    block = tokens * _block(run, work.length, tensor)
    each = {'full': size * tokens * c.lm.width, 'dots': tokens * _products(run, tensor), '': block}[run.model.remat]
    total = c.lm.depth * each + (block if run.model.remat else 0)
    if c.xattn is None:
        return total
    x, d = c.xattn, c.lm.width
    width, ffw = x.heads * x.head_dim / tensor, x.hidden(d) / tensor
    how = dict(lengths=(source.lines * work.length, work.media), head_dim=x.head_dim, in_segments=x.only_last_image)
    weights = x.heads / tensor * _weights(run, **how)
    gated = tokens * (2 * NORM * d + size * (3 * d + 2 * width + 3 * ffw) + weights)
    gated += images * c.media_tokens * (NORM * c.media_width + size * 2 * width)
    products = size * (tokens * (2 * d + width + ffw) + images * c.media_tokens * 2 * width)
    each = {'full': size * tokens * d, 'dots': products, '': gated}[run.model.remat]
    total += c.xattn_blocks * each + (max(gated - block, 0) if run.model.remat else 0)
    if c.resampler and images:
        total += images * _resampler(run, source.frames * _spatial(run), tensor)
    return total


def _weights(run: Planned, lengths: tuple[int, int], head_dim: int, **mask: Any) -> int | float:
    """Bytes of attention's weights of each query and head: those of all keys, or the sum that a kernel keeps of them.

    Args:
      lengths: queries and keys.
      mask: `in_segments` and `cap`, as for `attention.fused`.
    """
    if attention.fused(run.model.attention_kernel, *lengths, head_dim=head_dim, dtype=run.model.dtype, **mask):
        return SUMS
    return WEIGHTS * lengths[1]


def _block(run: Planned, l: int, tensor: int) -> int | float:
    """Bytes that a block of the language model keeps of each of a text's l tokens, if nothing is recomputed."""
    c, size = run.model.config.lm, jnp.dtype(run.model.dtype).itemsize
    if c.positions in ('relative', 'alibi'):
        heads = c.heads / tensor * l * (WEIGHTS + 4)
    else:
        how = dict(head_dim=c.head_dim, cap=c.attention_cap, in_segments=not c.windows)
        heads = c.heads / tensor * _weights(run, (l, l), **how)
    hidden = c.ffw_width / tensor * (4 + c.gated_ffw)  # Before and in the activation, and its result.
    qkv = (2 * c.heads + 2 * c.kv_heads) * c.head_dim / tensor
    return 2 * NORM * c.width + heads + size * (2 * c.width + hidden + qkv)


def _products(run: Planned, tensor: int) -> int | float:
    """Bytes of each token's products with weights in a block."""
    c, size = run.model.config.lm, jnp.dtype(run.model.dtype).itemsize
    wide = (c.heads + 2 * c.kv_heads) * c.head_dim + c.ffw_width * (1 + c.gated_ffw)
    return size * (3 * c.width + wide / tensor)


def _resampler(run: Planned, s: int, tensor: int) -> int | float:
    """Bytes that all layers keep of an image of s features. They are recomputed together, if at all."""
    c, r, size = run.model.config.resampler, run.model.config.media_tokens, jnp.dtype(run.model.dtype).itemsize
    width = c.heads * c.head_dim / tensor
    norms = NORM * (s + 2 * r) * c.width
    products = size * ((s + r) * (c.width + 2 * width) + 2 * r * width + 3 * r * c.ffw_multiplier * c.width / tensor)
    weights = c.heads / tensor * r * _weights(run, (r, s + r), head_dim=c.head_dim)
    return c.depth * (norms + products + weights)


def _images(run: Planned, source: Source) -> int:
    return source.batch_size * source.images


def _spatial(run: Planned) -> int:
    return run.model.config.vision.places(run.model.config.image_size) if run.model.config.vision else 0
