"""Floating-point operations of a training step, counted from the config: 2 for each multiply and add of a product.

Norms, activations and softmaxes are left out, as usual for MFU. The backward pass costs twice the forward pass for a
trained part, once for a frozen part after a trained one (its inputs have gradients, its parameters do not), and
nothing for a frozen trunk. `tests/planning/test_flops.py` compares these counts with the compiler's.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax

from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.planning import topology
from flamingo_jax.training.assemble import Parts
from flamingo_jax.training.progress import Operations


class Cost(NamedTuple):
    """Operations of a forward pass: of products with a parameter, and of products of two activations (attention).

    `last` are those of the weights' operations whose results only a later block needs.
    """

    weights: int | float
    activations: int | float = 0.0
    last: int | float = 0.0

    def __add__(self, other: 'Cost') -> 'Cost':
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def __mul__(self, times: int | float) -> 'Cost':
        return Cost(*(a * times for a in self))

    @property
    def forward(self) -> int | float:
        """Operations of a forward pass."""
        return self.weights + self.activations

    def total(self, trained: bool) -> int | float:
        """Operations of a forward and a backward pass."""
        return (3 if trained else 2) * self.weights + 3 * self.activations

    def recomputed(self, remat: str) -> int | float:
        """Operations that `remat` (model/stack.py) adds: 'dots' keeps products with weights, 'full' only the last."""
        return {'': 0, 'dots': self.activations, 'full': self.forward - self.last}[remat]


class Work(NamedTuple):
    """What is computed of a data set: texts of equal length, with images."""

    texts: int | float
    length: int | float  # Tokens of each, each of which attends to as many.
    images: int | float  # In all.
    media: int | float  # Media tokens that each token is multiplied by.
    targets: int | float  # Tokens that have logits, in all.
    told: int | float = 0.0  # Tokens of each text's other reading, which has no gradient and as many targets.
    gated: int | float | None = None  # Tokens in the gated blocks, in all; None is all tokens.


def computed(config: FlamingoConfig, data: Source) -> Work:
    """All places of a batch, filled or not."""
    lines = data.batch_size * data.lines
    media = data.images * config.media_tokens if config.xattn else 0
    images = data.batch_size * data.images
    length, told = data.row.lengths(data.length, data.images, len(config.image_tag))
    targets = lines * (data.targets or data.length) if data.row.has_logits else 0
    return Work(lines, length, images, media, targets, told=told)


def useful(config: FlamingoConfig, data: Source, counts: Mapping[str, int | float]) -> Work:
    """The part that was of use: no padding, of attention a token's own document and image.

    Args:
      counts: of the data set's steps (`counts` of a batch in `inputs/rows.py`).
    """
    texts, images = max(counts['documents'], 1), counts['images']
    length, told = data.row.lengths(counts['tokens'] / texts, 0, len(config.image_tag))
    at_tags = images * len(config.image_tag) if config.xattn and config.xattn.at_tag else None
    media = config.media_tokens if config.xattn and images else 0
    return Work(texts, length, images, media, counts['targets'], told=told, gated=at_tags)


def of_run(parts: Parts) -> Operations:
    """What the MFU of a run is computed from, on the devices of this process's JAX."""
    config, trained, sources = parts.model.config, parts.trained, parts.sources

    def of_use(name: str, counts: dict[str, float]) -> float:
        return operations(config, trained, sources[name], useful(config, sources[name], counts))['total']

    step = train_step(config, trained, sources)['total']
    return Operations(step, of_use, topology.peak_flops(jax.devices()[0].device_kind))


def train_step(
    config: FlamingoConfig, trained: tuple[str, ...], datasets: dict[str, Source], remat: str = ''
) -> dict[str, float]:
    """Operations of one step over all data sets, by component; 'total' is the sum.

    'recomputed' is what the backward pass computes again: by `remat`, or if the micro-batches of a batch are compared.
    'lm in 8 bits' are those of both that a quantised language model multiplies in 8 bits (`Quantisation.inputs`): the
    forward products of its blocks. All places count, filled or not.
    """
    parts = [operations(config, trained, data, computed(config, data), remat) for data in datasets.values()]
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def operations(
    config: FlamingoConfig, trained: tuple[str, ...], data: Source, work: Work, remat: str = ''
) -> dict[str, float]:
    """Operations for one data set's work, forward and backward, as `train_step` gives them."""
    out = dict.fromkeys(_components(config), 0.0)
    if data.row.compares_rows:
        return _paired(config, trained, data, remat)
    recomputed, in_8_bits, l = 0.0, 0.0, work.length
    vocabulary = 2 * config.lm.width * config.lm.vocab_size
    blocks = {'lm': lm_blocks(config, l, l) * work.texts}
    # Nothing flows back through blocks below the first gated one, unless it is into something that is trained.
    first = min(config.xattn.first, config.lm.depth) if config.xattn else 0
    if first and not {'lm', 'lora', 'extra_tokens'} & set(trained):
        below = first / config.lm.depth
        out['lm'] += blocks['lm'].forward * below
        in_8_bits += blocks['lm'].weights * below
        blocks['lm'] = blocks['lm'] * (1 - below)
    if work.told:
        told = lm_blocks(config, work.told, work.told) * work.texts
        out['lm'] += told.forward
        in_8_bits += told.weights
        out['lm'] += vocabulary * work.targets
    if config.xattn is not None:
        share = 1 if work.gated is None else min(work.gated / max(work.texts * l, 1), 1)
        blocks['xattn'] = xattn_tokens(config, l, work.media) * (work.texts * share)
        blocks['xattn'] += xattn_keys_values(config, config.media_tokens) * work.images
        if work.images:
            if not data.features:
                trunk = config.vision.operations(config.image_size)
                out['vision'] += trunk * work.images * data.frames * (3 if 'vision' in trained else 1)
            if config.resampler is not None:
                spatial = config.vision.places(config.image_size)
                blocks['resampler'] = resampler(config, data.frames, spatial) * work.images
    if config.lora is not None:
        blocks['lora'] = lora(config, l) * work.texts
    for name, cost in blocks.items():
        out[name] += cost.total(name in trained)
        recomputed += cost.recomputed(remat)
    of_lm = blocks['lm']._replace(activations=0)
    in_8_bits += of_lm.forward + of_lm.recomputed(remat)
    out['lm'] += Cost(vocabulary * work.targets).total('lm' in trained)
    return out | {'total': sum(out.values()), 'recomputed': recomputed, 'lm in 8 bits': in_8_bits}


def _components(config: FlamingoConfig) -> list[str]:
    more = [name for name in ('lora', 'contrastive') if getattr(config, name)]
    return ['vision', 'resampler', 'xattn', 'lm', *more]


def _paired(config: FlamingoConfig, trained: tuple[str, ...], data: Source, remat: str) -> dict[str, float]:
    """`operations` of images that are compared with texts."""
    out, costs = dict.fromkeys(_components(config), 0.0), paired(config, data)
    for name, cost in costs.items():
        # Nothing flows back into a frozen trunk.
        out[name] += cost.forward if name == 'vision' and name not in trained else cost.total(name in trained)
    # The products of images with texts, once more; and both towers, block by block or as a whole.
    recomputed = costs['contrastive'].activations + costs['lm'].recomputed(remat)
    if data.micro_batches > 1:
        recomputed += sum(cost.forward for name, cost in costs.items() if name != 'contrastive')
    return out | {'total': sum(out.values()), 'recomputed': recomputed, 'lm in 8 bits': 0.0}


def paired(config: FlamingoConfig, data: Source) -> dict[str, Cost]:
    """Both towers for a batch of pairs, and the space that they share, with the product of every image and text."""
    b, c = data.batch_size, config.contrastive
    trunk = 0 if data.features else config.vision.operations(config.image_size)
    out = dict(vision=Cost(trunk) * (b * data.frames))
    if c.loss == 'classes':
        out |= dict(lm=Cost(0), contrastive=Cost(2 * b * config.media_width * c.classes))
    else:
        projections = 2 * b * c.width * (config.media_width + config.lm.width)
        out |= dict(
            lm=lm_blocks(config, data.length, data.length) * b,
            contrastive=Cost(projections, 2 * b * b * c.width),
        )
    if config.resampler is not None:
        out['resampler'] = resampler(config, data.frames, config.vision.places(config.image_size)) * b
    return out


def reading(config: FlamingoConfig, b: int, places: int, images: int) -> int | float:
    """Operations of reading b prompts of so many tokens and images, from the media tokens to the logits."""
    cost = lm_blocks(config, places, places)
    if config.xattn is not None:
        cost = cost + xattn_tokens(config, places, images * config.media_tokens)
        cost = cost + xattn_keys_values(config, images * config.media_tokens)
    return b * (cost.forward + 2 * config.lm.width * config.lm.vocab_size)


def decode_step(config: FlamingoConfig, b: int, places: int, images: int) -> int | float:
    """Operations of one more token for b rows, with `places` tokens in the cache and `images` visible images."""
    cost = lm_blocks(config, 1, places)
    if config.xattn is not None:
        m = images * config.media_tokens
        cost = cost + xattn_tokens(config, 1, m)
    return b * (cost.forward + 2 * config.lm.width * config.lm.vocab_size)


def lm_blocks(config: FlamingoConfig, l: int | float, m: int | float) -> Cost:
    """All blocks of the language model, for l tokens of one row that attend to m."""
    c = config.lm
    attention = 2 * l * c.width * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
    ffw = 2 * l * c.width * c.ffw_width * (3 if c.gated_ffw else 2)
    products = 2 * 2 * l * m * c.heads * c.head_dim
    if c.positions == 'relative':  # Queries times the keys of distances, which are computed once for a whole batch.
        attention += 2 * l * m * c.heads * c.head_dim
    return Cost(attention + ffw, products, 2 * l * c.width * c.ffw_width) * c.depth


def lora(config: FlamingoConfig, l: int | float) -> Cost:
    """The low-rank products of all blocks, for l tokens."""
    c = config.lm
    heads, kv_heads = c.width + c.heads * c.head_dim, c.width + c.kv_heads * c.head_dim
    ffw = dict.fromkeys(('up', 'gate', 'down'), c.width + c.ffw_width)
    sizes = dict(query=heads, key=kv_heads, value=kv_heads, out=heads) | ffw
    return Cost(2 * l * config.lora.rank * sum(sizes[name] for name in config.lora.targets)) * c.depth


def xattn_tokens(config: FlamingoConfig, l: int | float, m: int | float) -> Cost:
    """All gated blocks without keys and values, for l tokens that attend to m media tokens each."""
    weights, products, down = config.xattn.operations(config.lm.width, l, m)
    return Cost(weights, products, down) * config.xattn_blocks


def xattn_keys_values(config: FlamingoConfig, m: int) -> Cost:
    """Keys and values of m media tokens in all gated blocks."""
    return Cost(config.xattn.operations_of_media(config.media_width, m)) * config.xattn_blocks


def resampler(config: FlamingoConfig, frames: int, spatial: int) -> Cost:
    """One image or video of `frames` frames with `spatial` features each."""
    c, r, s = config.resampler, config.media_tokens, frames * spatial
    weights, products = c.operations(r, s)
    ends = 2 * c.width * (s * config.vision.width + r * config.lm.width) if c.projects else 0
    return Cost(weights + ends, products)
