"""The config of a model: frozen dataclasses, one per component, which a bundle stores as JSON.

`SIZES`, at the end, has the paper's models (tables 4 and 5), which differ from `TINY` in numbers, norms, positions and
trunk. Where the paper contradicts itself, a comment says which reading is the default.
"""

import dataclasses
import json
from typing import Any

from flamingo_jax.errors import UserError
from flamingo_jax.model.bridges.bridge import BridgeConfig, bridge_from
from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig
from flamingo_jax.model.component import build, check
from flamingo_jax.model.connectors.connector import ConnectorConfig, connector_from
from flamingo_jax.model.connectors.perceiver import PerceiverConfig
from flamingo_jax.model.language_model import LanguageModelConfig
from flamingo_jax.model.vision.efficientnet import EfficientNetConfig
from flamingo_jax.model.vision.nfnet import NFNET_F6
from flamingo_jax.model.vision.trunk import VisionConfig, family
from flamingo_jax.ranges import require


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank additions to the language model's weights (`model/lora.py`)."""

    rank: int = 8
    alpha: float = 16.0  # The product is scaled by alpha / rank.
    targets: tuple[str, ...] = ('query', 'value')  # Some of query, key, value, out; up, gate, down of the feed-forward.

    def __post_init__(self):
        check(self, 'lora.', 'rank')


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig:
    """The space that images and texts share in contrastive pretraining (model/contrastive.py; paper, B.1.3).

    The trunk is the vision tower and the language model the text tower. If the config has a resampler, the vision tower
    ends with it. On a frozen trunk it learns what different images of a thing have in common.
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
        check(self, 'contrastive.', '', loss=('softmax', 'sigmoid', 'classes'))
        require('contrastive', vars(self), '0 or more and below 1', 'smoothing')
        require('contrastive', vars(self), 'above 0', 'scale')


@dataclasses.dataclass(frozen=True)
class FlamingoConfig:
    """A whole model. A bundle that holds only a language model, or only a trunk, has None for the rest."""

    lm: LanguageModelConfig | None = None
    vision: VisionConfig | None = None
    resampler: ConnectorConfig | None = None
    xattn: BridgeConfig | None = None
    image_tag: tuple[int, ...] = ()  # The tokens of '<image>': several pieces of plain text, or one extra token.
    extra_tokens: tuple[str, ...] = ()  # Learnt tokens beyond the language model's; ids follow its vocabulary.
    extra_tied: bool = False  # Whether their output rows are their input rows (OpenFlamingo with a tied LM).
    extra_unwritten: bool = False  # Whether they have no output rows, so that no text is continued by them.
    image_size: int = 320  # Height and width of the images, in pixels.
    lora: LoraConfig | None = None  # Only during fine-tuning; a bundle has it merged into the language model.
    contrastive: ContrastiveConfig | None = None  # Makes it two towers, a trunk and a text tower, without a Flamingo.

    def __post_init__(self):
        check(self, '', 'image_size')
        if self.vision is not None and self.vision.classes > self.vision.width:
            raise UserError(
                f'The {self.vision.classes} classes of the trunk do not fit its width of {self.vision.width} channels. '
                'Convert it without --classifier.'
            )
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
            self.xattn.check(self)
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

    @property
    def xattn_blocks(self) -> int:
        """The number of gated blocks; 0 in a language model alone."""
        return self.xattn.blocks(self.lm.depth) if self.xattn else 0

    @property
    def fit(self) -> str:
        """How the trunk's images are made square (`inputs/images.py`); 'pad' without a trunk."""
        return self.vision.fit if self.vision else 'pad'

    def at(self, image_size: int) -> 'FlamingoConfig':
        """The same for images of another height and width in pixels. ValueError for a size that is too small."""
        least = getattr(self.vision, 'patch', 1)
        if image_size < least:
            raise UserError(f'image_size is {image_size}. This trunk needs at least {least} pixels.')
        return dataclasses.replace(self, image_size=image_size)

    @property
    def media_tokens(self) -> int:
        """r, the media tokens per image: what the connector makes of the features, or without one all of them."""
        spatial = self.vision.places(self.image_size) if self.vision else 0
        return self.resampler.media_tokens(spatial) if self.resampler else spatial

    @property
    def media_width(self) -> int:
        """The width of the media tokens: the language model's if a resampler projects to it, else the trunk's."""
        return self.resampler.media_width(self.lm.width, self.vision.width) if self.resampler else self.vision.width

    def to_json(self) -> dict[str, Any]:
        """Nested dicts and lists; `family` names the kind of trunk, `kind` that of connector and bridge."""
        fields = json.loads(json.dumps(dataclasses.asdict(self)))  # Tuples become lists.
        if self.vision is not None:
            fields['vision']['family'] = self.vision.family
        for name in ('resampler', 'xattn'):
            if fields[name] is not None:
                fields[name] = getattr(self, name).to_json()
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> 'FlamingoConfig':
        """The inverse of `to_json`; an unknown field raises ValueError with its name, a missing one has its default."""
        parts = dict(lm=LanguageModelConfig, lora=LoraConfig, contrastive=ContrastiveConfig)
        fields = {name: dict(value) if isinstance(value, dict) else value for name, value in fields.items()}
        if fields.get('vision') is not None:
            # A bundle that names no family holds an EfficientNet.
            parts['vision'] = family(fields['vision'].pop('family', 'efficientnet'))
        if fields.get('resampler') is not None:
            fields['resampler'] = connector_from(fields['resampler'])
        if fields.get('lm') is not None and fields['lm'].pop('embedding_width', 0):
            raise UserError('A language model whose embeddings have another width (OPT-350m) is not supported.')
        if fields.get('xattn') is not None:
            fields['xattn'] = bridge_from(fields['xattn'])
        for name, part in parts.items():
            if fields.get(name) is not None:
                fields[name] = build(part, fields[name], name)
        return build(cls, fields, 'the model')


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
    resampler=PerceiverConfig(latents=8, width=256, depth=2, heads=4, head_dim=64),
    xattn=GatedXattnConfig(every=1, heads=4, head_dim=48),
    vision=EfficientNetConfig(),
)


def _paper(width: int, depth: int, heads: int, every: int) -> dict[str, Any]:
    return dict(
        lm=LanguageModelConfig(
            width=width, depth=depth, heads=heads, kv_heads=heads, ffw_width=4 * width, positions='relative'
        ),
        resampler=PerceiverConfig(head_dim=128),  # As in v1. The 96 of v2 gives 175M parameters, not 194M.
        xattn=GatedXattnConfig(every=every, heads=heads),
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
