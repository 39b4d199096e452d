"""The config of a model: frozen dataclasses, one per component, which a bundle stores as JSON.

`SIZES`, at the end, has the paper's models (tables 4 and 5), which differ from `TINY` in numbers, norms, positions and
trunk. Where the paper contradicts itself, a comment says which reading is the default.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from flamingo_jax.errors import UserError
from flamingo_jax.model.layers import ACTIVATIONS
from flamingo_jax.model.vision.efficientnet import EfficientNetConfig
from flamingo_jax.model.vision.nfnet import NFNET_F6
from flamingo_jax.model.vision.trunk import VisionConfig, family

NORMS = ('rms', 'layer')


def _check(config: Any, part: str, sizes: str, **choices: Iterable[str]) -> None:
    """ValueError if one of the named sizes is no positive whole number, or a choice is unknown.

    An unknown choice would be read as one of the known ones.
    """
    for field in sizes.split():
        value = getattr(config, field)
        if not isinstance(value, int | np.integer) or value < 1:
            raise UserError(f'{part}{field} is {value!r}. It must be a whole number, 1 or more.')
    for field, known in choices.items():
        *most, last = map(repr, known)
        if getattr(config, field) not in tuple(known):
            raise UserError(f'{part}{field} must be {", ".join(most)} or {last}, not {getattr(config, field)!r}.')


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """A decoder-only language model; families differ by these fields."""

    vocab_size: int = 32_000
    width: int = 2048
    depth: int = 24
    heads: int = 16
    kv_heads: int = 16
    head_dim: int = 128
    ffw_width: int = 8192
    context: int = 2048  # The longest sequence, in tokens.
    norm: str = 'rms'  # 'rms' or 'layer'.
    norm_eps: float = 1e-5
    norm_bias: bool = True  # Whether layer norms have a bias.
    norm_offset: float = 0.0  # Added to the scales of the norms (Gemma: 1).
    norm_embeddings: bool = False  # Whether the embedded text is normed (BLOOM).
    # 'before' attention and feed-forward, 'around' (their outputs are normed too: Gemma 2 and 3), or 'sum' (only the
    # sum with the residual is, as in Vaswani et al. 2017, and there is no final norm: OPT-350m).
    norm_place: str = 'before'
    # '', 'head' (each head by itself: Qwen3, Gemma 3) or 'token' (all heads together: MPT-1B).
    norm_query_key: str = ''
    parallel: bool = False  # Whether attention and feed-forward both read the block's input (GPT-NeoX).
    activation: str = 'gelu_tanh'
    gated_ffw: bool = False  # Whether the feed-forward is gated (Shazeer 2020: LLaMA, Gemma).
    bias: bool = False  # Whether every linear map in the blocks has a bias.
    bias_qkv: bool = False  # Whether at least queries, keys and values have one (Qwen2).
    bias_out: bool = False  # Whether at least the attention's output has one.
    attention_scale: float | None = None  # Factor of queries times keys; None is head_dim ** -0.5.
    attention_cap: float = 0.0  # Soft bound of queries times keys (Gemma 2: 50); 0 is none.
    logit_cap: float = 0.0  # The same for the logits (Gemma 2: 30).
    clip_qkv: float = 0.0  # Queries, keys and values are clipped to +- this (some MPT); 0 does not.
    # 'rotary', 'learned', 'alibi' or 'relative' (Transformer-XL, as in Gopher and Chinchilla).
    positions: str = 'rotary'
    alibi_max: float = 8.0  # The smallest slope of ALiBi is 2 ** -alibi_max.
    rotary_base: float = 10_000.0
    rotary_share: float = 1.0  # Share of each head's dimensions that rotate (Pythia: a quarter).
    rotary_factor: float = 1.0  # Divides the frequencies: positions are interpolated (Chen et al. 2023).
    # (low, high, context): LLaMA 3.1 divides only frequencies with fewer than `low` turns in `context` tokens, none
    # with more than `high` turns, and interpolates in between. () divides all.
    rotary_bands: tuple[float, ...] = ()
    rotary_local_base: float | None = None  # Base in blocks with a window, which use no factor (Gemma 3).
    # For each block, how many tokens a token sees, itself included; 0 is all. () is all in every block.
    windows: tuple[int, ...] = ()
    embedding_width: int = 0  # Width of token embedding and output; 0 is `width` (OPT-350m: half of it).
    tied: bool = True  # Whether the output is the transpose of the token embedding.
    # Whether embeddings are multiplied by sqrt(width) (Vaswani et al. 2017, Gemma). The paper does not say.
    scale_embeddings: bool = True

    def __post_init__(self):
        _check(
            self,
            'lm.',
            'vocab_size width depth heads kv_heads head_dim ffw_width context',
            norm=NORMS,
            norm_place=('before', 'around', 'sum'),
            norm_query_key=('', 'head', 'token'),
            activation=ACTIVATIONS,
            positions=('rotary', 'learned', 'alibi', 'relative'),
        )
        if len(self.windows) not in (0, self.depth):
            raise UserError(
                f'{len(self.windows)} windows do not fit {self.depth} blocks. Give one window per block, or none.'
            )


@dataclasses.dataclass(frozen=True)
class ResamplerConfig:
    """The Perceiver Resampler (paper: 6 layers, width 1536, 16 heads, 64 latents at every size).

    OpenFlamingo and IDEFICS differ from the paper in `frames` and in the fields from `projects` on. The last is for
    ablations.
    """

    latents: int = 64
    width: int = 1536
    depth: int = 6
    heads: int = 16
    head_dim: int = 96  # Paper v2; v1 says 128, which gives the printed 194M parameters.
    ffw_multiplier: int = 4
    frames: int = 8  # Number of time embeddings; other numbers of frames interpolate. 0: none, frames have no order.
    projects: bool = True  # Maps to its own width before, to the LM's after. False keeps the trunk's width.
    activation: str = 'squared_relu'
    qk_norms: bool = False  # Whether each head's queries and keys have layer norms.
    # The layers: 'perceiver' (paper); 'mlp', of its ablation (table 3 row vi, whose Transformer is not here), which
    # gives a media token for each place in the picture and uses no `latents`; 'pooling', one attention of the latents
    # to the features (not in the paper); 'qformer', BLIP-2's: the latents attend to one another, then to the features.
    kind: str = 'perceiver'

    def __post_init__(self):
        _check(
            self,
            'resampler.',
            'latents width depth heads head_dim ffw_multiplier',
            kind=('perceiver', 'mlp', 'pooling', 'qformer'),
            activation=ACTIVATIONS,
        )


@dataclasses.dataclass(frozen=True)
class XattnConfig:
    """The gated xattn-dense blocks: one before the language model's blocks first, first + every, first + 2 every, ...

    OpenFlamingo and IDEFICS differ from the paper in the fields from `first` on. Those from `only_at_tag` on are in
    none of the three. With `only_at_tag` and `ffw_where_seen`, no token but a picture's tag is changed.
    """

    every: int = 1
    heads: int = 16
    head_dim: int = 128
    ffw_multiplier: int = 4
    # alpha_xattn and alpha_dense at first. With the paper's 0 a new model equals its language model.
    initial_alpha: float = 0.0
    initial_alpha_dense: float = 0.0
    only_last_image: bool = True  # False: a token sees all images before it (ablation, table 10 row ii).
    gates: bool = True  # False: no alphas, both branches are added directly (ablation, table 3 row iii).
    first: int = 0
    norm: str = 'layer'  # Norm of the text: 'layer' or 'rms'.
    norm_eps: float = 1e-5
    norm_media: bool = True  # Whether the media have a layer norm too.
    qk_norms: bool = False  # Whether each head's queries and keys have RMS norms.
    activation: str = 'squared_relu'
    gated_ffw: bool = False
    ffw_width: int = 0  # 0: ffw_multiplier times the LM's width.
    vector_alphas: bool = False  # Whether each channel has its own alpha.
    # True: only the tokens of its tag see a picture; the text after it sees the tag through self-attention.
    only_at_tag: bool = False
    ffw_where_seen: bool = False  # True: the gated feed-forward acts only on tokens that may see a picture.
    # True: the norms are of the language model's kind, and a new gated block begins with those of the block behind it.
    # If that one norms what its branches add (Gemma 2 and 3), so does the gated one. Gemma's states are up to a hundred
    # times as large as what a gated block adds without.
    norms_of_lm: bool = False
    # True: no cross-attention. The media tokens stand in the text, in place of the tag's tokens (`model/prefix.py`).
    # Of the other fields, `initial_alpha` sets their size, and `only_at_tag` and `ffw_where_seen` must be set.
    prefix: bool = False

    def __post_init__(self):
        _check(self, 'xattn.', 'every heads head_dim ffw_multiplier', norm=NORMS, activation=ACTIVATIONS)


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank additions to the language model's weights (`model/lora.py`)."""

    rank: int = 8
    alpha: float = 16.0  # The product is scaled by alpha / rank.
    targets: tuple[str, ...] = ('query', 'value')  # Some of query, key, value, out; up, gate, down of the feed-forward.

    def __post_init__(self):
        if self.rank < 1:
            raise UserError(f'lora.rank is {self.rank}. It must be at least 1.')


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig:
    """The space that pictures and texts share in contrastive pretraining (model/contrastive.py; paper, B.1.3).

    The trunk is the vision tower and the language model the text tower. If the config has a resampler, the vision tower
    ends with it. On a frozen trunk it learns what different pictures of a thing have in common.
    """

    width: int = 1376  # Of the shared space, if there is one.
    # 'softmax' both ways (paper, CLIP) or 'sigmoid' (SigLIP). 'classes' reads no text: each text is a class of its own,
    # and a linear classifier tells them apart. That is harder than to tell a batch's texts apart.
    loss: str = 'softmax'
    classes: int = 16384  # Of the classifier. A text's is a hash of its tokens, so that two may share one.
    smoothing: float = 0.1  # Label smoothing of the softmax.
    # Initial inverse temperature beta, and bias of the sigmoid. The paper does not give its own: 1 / 0.07 is CLIP's.
    # SigLIP has scale=10, bias=-10.
    scale: float = 1 / 0.07
    bias: float = 0.0

    def __post_init__(self):
        if self.loss not in ('softmax', 'sigmoid', 'classes'):
            raise UserError(f"contrastive.loss must be 'softmax', 'sigmoid' or 'classes', not {self.loss!r}.")
        if not 0 <= self.smoothing < 1 or self.scale <= 0:
            raise UserError(
                f'contrastive.smoothing is {self.smoothing} and scale {self.scale}. Smoothing must be from 0 to below '
                '1, scale above 0.'
            )


@dataclasses.dataclass(frozen=True)
class FlamingoConfig:
    """A whole model. A bundle that holds only a language model, or only a trunk, has None for the rest."""

    lm: LanguageModelConfig | None = None
    vision: VisionConfig | None = None
    resampler: ResamplerConfig | None = None
    xattn: XattnConfig | None = None
    image_tag: tuple[int, ...] = ()  # The tokens of '<image>': several pieces of plain text, or one extra token.
    extra_tokens: tuple[str, ...] = ()  # Learnt tokens beyond the language model's; ids follow its vocabulary.
    extra_tied: bool = False  # Whether their output rows are their input rows (OpenFlamingo with a tied LM).
    image_size: int = 320  # Height and width of the pictures, in pixels.
    lora: LoraConfig | None = None  # Only during fine-tuning; a bundle has it merged into the language model.
    contrastive: ContrastiveConfig | None = None  # Makes it two towers, a trunk and a text tower, without a Flamingo.

    def __post_init__(self):
        _check(self, '', 'image_size')
        if self.contrastive is not None:
            if self.xattn is not None or self.lm is None or self.vision is None:
                raise UserError(
                    'Contrastive pretraining needs a trunk and a text tower, and no gated blocks between them. Set '
                    'vision and lm, and leave xattn None.'
                )
            if self.contrastive.loss != 'classes' and self.lm.positions not in ('learned', 'rotary'):
                raise UserError(
                    f'The positions {self.lm.positions!r} of the text tower are for text that sees only what comes '
                    "before. Set lm.positions to 'learned' or 'rotary'."
                )
        if self.xattn is not None:
            missing = [name for name in ('lm', 'vision') if getattr(self, name) is None]
            if missing:
                raise UserError(f'A model with gated cross-attention also needs: {", ".join(missing)}.')
            if not 0 <= self.xattn.first < self.lm.depth:
                raise UserError(
                    f'xattn.first is {self.xattn.first}, but there are only {self.lm.depth} blocks. It must be below '
                    'the depth.'
                )
            if self.xattn.only_at_tag and not self.image_tag:
                raise UserError('xattn.only_at_tag needs an image_tag. Without one, no token would see a picture.')
            if self.xattn.norms_of_lm and self.lm.norm_place == 'sum':
                raise UserError('xattn.norms_of_lm needs a language model that norms the text before its blocks.')
            if self.xattn.prefix:
                self._check_prefix()
            if self.resampler is None and not self.vision.without_resampler:
                raise UserError(
                    'A model without a resampler needs a vision transformer as its trunk, which has few '
                    'features. Change the trunk, or add a resampler.'
                )
            if self.resampler and not self.resampler.projects and self.resampler.width != self.vision.width:
                raise UserError(
                    f'A resampler that does not project has the width of the trunk, {self.vision.width}, not '
                    f'{self.resampler.width}.'
                )

    def _check_prefix(self):
        x = self.xattn
        if not x.only_at_tag or not x.ffw_where_seen or self.xattn_blocks != 1 or x.first:
            raise UserError(
                'xattn.prefix needs only_at_tag and ffw_where_seen, first 0, and every at least the depth of the '
                f'language model, {self.lm.depth}.'
            )
        if self.media_width != self.lm.width:
            raise UserError(
                f'xattn.prefix needs media tokens of the width of the language model, {self.lm.width}, not '
                f'{self.media_width}. Add a resampler that projects.'
            )
        if len(self.image_tag) != self.media_tokens:
            raise UserError(
                f'xattn.prefix needs a tag of {self.media_tokens} tokens, one for each media token, but image_tag has '
                f'{len(self.image_tag)}.'
            )

    @property
    def xattn_blocks(self) -> int:
        """The number of gated blocks: ceil((depth - first) / every), 0 in a language model alone."""
        return -(-(self.lm.depth - self.xattn.first) // self.xattn.every) if self.xattn else 0

    @property
    def fit(self) -> str:
        """How the trunk's pictures are made square (`inputs/images.py`); 'pad' without a trunk."""
        return self.vision.fit if self.vision else 'pad'

    def at(self, image_size: int) -> 'FlamingoConfig':
        """The same for pictures of another height and width in pixels. ValueError for a size that is too small."""
        least = getattr(self.vision, 'patch', 1)
        if image_size < least:
            raise UserError(f'image_size is {image_size}. This trunk needs at least {least} pixels.')
        return dataclasses.replace(self, image_size=image_size)

    @property
    def media_tokens(self) -> int:
        """r, the media tokens per image: the resampler's latents, or without one all features."""
        if self.resampler and self.resampler.kind != 'mlp':
            return self.resampler.latents
        return self.vision.spatial(self.image_size)

    @property
    def media_width(self) -> int:
        """The width of the media tokens: the language model's if a resampler projects to it, else the trunk's."""
        return self.lm.width if self.resampler and self.resampler.projects else self.vision.width

    def to_json(self) -> dict[str, Any]:
        """Nested dicts and lists; `family` names the kind of trunk."""
        fields = json.loads(json.dumps(dataclasses.asdict(self)))  # Tuples become lists.
        if self.vision is not None:
            fields['vision']['family'] = self.vision.family
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> 'FlamingoConfig':
        """The inverse of `to_json`; an unknown field raises ValueError with its name, a missing one has its default."""
        parts = dict(lm=LanguageModelConfig, resampler=ResamplerConfig, xattn=XattnConfig, lora=LoraConfig)
        parts['contrastive'] = ContrastiveConfig
        fields = dict(fields)
        if fields.get('vision') is not None:
            fields['vision'] = dict(fields['vision'])
            # A bundle that names no family holds an EfficientNet.
            parts['vision'] = family(fields['vision'].pop('family', 'efficientnet'))
        for name, part in parts.items():
            if fields.get(name) is not None:
                fields[name] = _build(part, fields[name], name)
        return _build(cls, fields, 'the model')


def _build(cls: type, fields: dict[str, Any], name: str):
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(fields) - known):
        raise UserError(
            f'Unknown fields in the config of {name}: {unknown}. Known: {sorted(known)}. If a newer version wrote '
            'them, update flamingo_jax.'
        )
    return cls(**{key: _tuples(value) for key, value in fields.items()})


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


# For the quickstart, tests and CPUs. `experiments/lm_dictionary.py` pretrains the language model. Its positions are
# learned: on a small version of its text (width 64, 3 layers, 1,000 steps) they predicted 97 % of the labels, rotary
# positions 55 %. Rotary positions have no bias with which to attend to the previous token.
TINY = dict(
    lm=LanguageModelConfig(
        vocab_size=4096,
        width=192,
        depth=4,
        heads=4,
        kv_heads=4,
        head_dim=48,
        ffw_width=768,
        context=128,
        norm='layer',
        positions='learned',
    ),
    resampler=ResamplerConfig(latents=8, width=256, depth=2, heads=4, head_dim=64),
    xattn=XattnConfig(every=1, heads=4, head_dim=48),
    vision=EfficientNetConfig(),
)


def _paper(width: int, depth: int, heads: int, every: int) -> dict[str, Any]:
    return dict(
        lm=LanguageModelConfig(
            width=width, depth=depth, heads=heads, kv_heads=heads, ffw_width=4 * width, positions='relative'
        ),
        resampler=ResamplerConfig(head_dim=128),  # As in v1. The 96 of v2 gives 175M parameters, not 194M.
        xattn=XattnConfig(every=every, heads=heads),
        vision=NFNET_F6,
    )


# Size -> fields of its FlamingoConfig.
SIZES = {
    'tiny': TINY,
    '3b': _paper(width=2048, depth=24, heads=16, every=1),
    # Table 4 says 40 layers and 10 gated blocks, but these have 8.9B and 2.0B parameters. 32 and 8 have the 7.1B and
    # 1.6B of table 5.
    '9b': _paper(width=4096, depth=32, heads=32, every=4),
    '80b': _paper(width=8192, depth=80, heads=64, every=7),
}
