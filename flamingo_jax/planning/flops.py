"""Floating-point operations of a training step, counted from the config: 2 for each multiply and add of a product.

Norms, activations and softmaxes are left out, as usual for MFU. The backward pass costs twice the forward pass for a
trained part, once for a frozen part after a trained one (its inputs have gradients, its parameters do not), and
nothing for a frozen trunk. `tests/planning/test_flops.py` compares these counts with the compiler's.
"""

from typing import NamedTuple

from flamingo_jax.inputs.rows import Aligned, Paired
from flamingo_jax.inputs.sources.source import Source
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.vision.trunk import VisionConfig


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


def train_step(
    config: FlamingoConfig,
    trained: tuple[str, ...],
    datasets: dict[str, Source],
    remat: str = '',
    micro_batches: int = 1,
) -> dict[str, float]:
    """Operations of one step over all data sets, by component; 'total' is the sum.

    'recomputed' is what the backward pass computes again: by `remat`, or if the micro-batches of a batch are compared.
    """
    out = dict.fromkeys(('vision', 'resampler', 'xattn', 'lm', *(['lora'] if config.lora else [])), 0.0)
    out |= dict(contrastive=0.0) if config.contrastive else {}
    recomputed = 0.0
    for data in datasets.values():
        if data.row is Paired:
            costs = paired(config, data)
            for name, cost in costs.items():
                # Nothing flows back into a frozen trunk.
                out[name] += cost.forward if name == 'vision' and name not in trained else cost.total(name in trained)
            # The products of pictures with texts, once more; and both towers, block by block or as a whole.
            again = costs['lm'].recomputed(remat)
            if micro_batches > 1:
                again += costs['lm'].forward + costs['vision'].forward
            recomputed += costs['contrastive'].activations + again
            continue
        b, l, n = data.batch_size, data.length - 1, data.images
        if data.row is Aligned:  # <BOS> and the tag. The text is read without a backward pass.
            l = 1 + len(config.image_tag)
            out['lm'] += lm_blocks(config, data.length, data.length).forward * b
        pictures = b * n * data.frames
        blocks = {'lm': lm_blocks(config, l, l) * b}
        if config.xattn is not None:
            m = n * config.media_tokens
            blocks['xattn'] = xattn_blocks(config, l, m) * b
            if n:
                spatial, trunk_cost = trunk(config.vision, config.image_size)
                if not data.features:
                    out['vision'] += trunk_cost * pictures * (3 if 'vision' in trained else 1)
                if config.resampler is not None:
                    blocks['resampler'] = resampler(config, data.frames, spatial) * (b * n)
        if config.lora is not None:
            blocks['lora'] = lora(config, l) * b
        for name, cost in blocks.items():
            out[name] += cost.total(name in trained)
            recomputed += cost.recomputed(remat)
        if data.row is not Aligned:
            out['lm'] += Cost(2 * l * config.lm.width * config.lm.vocab_size).total('lm' in trained) * b
    return out | dict(total=sum(out.values()), recomputed=recomputed)


def paired(config: FlamingoConfig, data: Source) -> dict[str, Cost]:
    """Both towers for a batch of pairs, and the space that they share, with the product of every picture and text."""
    b, c = data.batch_size, config.contrastive
    spatial, trunk_cost = trunk(config.vision, config.image_size)
    return dict(
        vision=Cost(0 if data.features else trunk_cost) * (b * data.frames),
        lm=lm_blocks(config, data.length, data.length) * b,
        contrastive=Cost(2 * b * c.width * (config.vision.width + config.lm.width), 2 * b * b * c.width),
    )


def decode_step(config: FlamingoConfig, b: int, places: int, pictures: int) -> int | float:
    """Operations of one more token for b rows, with `places` tokens in the cache and `pictures` visible pictures."""
    cost = lm_blocks(config, 1, places)
    if config.xattn is not None:
        m = pictures * config.media_tokens
        cost = cost + xattn_blocks(config, 1, m) + xattn_keys_values(config, m) * -1
    return b * (cost.forward + 2 * config.lm.width * config.lm.vocab_size)


def lm_blocks(config: FlamingoConfig, l: int, m: int) -> Cost:
    """All blocks of the language model, for l tokens of one row that attend to m."""
    c = config.lm
    attention = 2 * l * c.width * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
    ffw = 2 * l * c.width * c.ffw_width * (3 if c.gated_ffw else 2)
    products = 2 * 2 * l * m * c.heads * c.head_dim
    if c.positions == 'relative':  # Queries times the keys of distances, which are computed once for a whole batch.
        attention += 2 * l * m * c.heads * c.head_dim
    return Cost(attention + ffw, products, 2 * l * c.width * c.ffw_width) * c.depth


def lora(config: FlamingoConfig, l: int) -> Cost:
    """The low-rank products of all blocks, for l tokens."""
    c = config.lm
    heads, kv_heads = c.width + c.heads * c.head_dim, c.width + c.kv_heads * c.head_dim
    ffw = dict.fromkeys(('up', 'gate', 'down'), c.width + c.ffw_width)
    sizes = dict(query=heads, key=kv_heads, value=kv_heads, out=heads) | ffw
    return Cost(2 * l * config.lora.rank * sum(sizes[name] for name in config.lora.targets)) * c.depth


def xattn_blocks(config: FlamingoConfig, l: int, m: int) -> Cost:
    """All gated blocks, for l tokens of one row that attend to m media tokens (computed for all, then masked)."""
    c, d = config.xattn, config.lm.width
    if c.prefix:  # Nothing is computed but a norm.
        return Cost(0)
    width = c.heads * c.head_dim
    ffw = (c.ffw_width or c.ffw_multiplier * d) * (3 if c.gated_ffw else 2)
    weights = 2 * l * d * (2 * width + ffw)
    # The gradient of a gate needs the result of the last product.
    down = 0 if c.gates else 2 * l * d * (c.ffw_width or c.ffw_multiplier * d)
    return Cost(weights, 2 * 2 * l * m * width, down) * config.xattn_blocks + xattn_keys_values(config, m)


def xattn_keys_values(config: FlamingoConfig, m: int) -> Cost:
    """Keys and values of m media tokens in all gated blocks."""
    c = config.xattn
    if c.prefix:
        return Cost(0)
    return Cost(2 * m * config.media_width * 2 * c.heads * c.head_dim) * config.xattn_blocks


def resampler(config: FlamingoConfig, frames: int, spatial: int) -> Cost:
    """One picture or video of `frames` frames with `spatial` features each."""
    c, r, s = config.resampler, config.media_tokens, frames * spatial
    width = c.heads * c.head_dim
    ends = 2 * c.width * (s * config.vision.width + r * config.lm.width) if c.projects else 0
    if c.kind == 'mlp':
        return Cost(2 * 2 * s * c.width * c.ffw_multiplier * c.width + ends)
    if c.kind == 'pooling':
        return Cost(2 * c.width * 2 * (r + s) * width + ends, 2 * 2 * r * s * width)
    if c.kind == 'qformer':
        layer = 2 * c.width * (6 * r * width + 2 * s * width + 2 * r * c.ffw_multiplier * c.width)
        return Cost(layer * c.depth + ends, c.depth * 2 * 2 * r * (s + r) * width)
    layer = 2 * c.width * (2 * r * width + 2 * (s + r) * width + 2 * r * c.ffw_multiplier * c.width)
    return Cost(layer * c.depth + ends, c.depth * 2 * 2 * r * (s + r) * width)


def trunk(config: VisionConfig, image_size: int) -> tuple[int, float]:
    """(spatial features, operations of the forward pass) of one picture."""
    return config.spatial(image_size), config.operations(image_size)
