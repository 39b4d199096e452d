"""Reads and writes LLaVA 1.5 (Liu et al. 2023): llava-hf/llava-1.5-7b-hf, -13b-hf, bakLlava, llava-interleave.

In transformers it is LlavaForConditionalGeneration. Everything is in one Hugging Face folder:

    trunk      a CLIP or a SigLIP, at the layer `vision_feature_layer`, before the last norm     `vision.unused`
               without the class token if `vision_feature_select_strategy` is 'default'          `class_feature`
    projector  two linear maps with an activation between them                                   `ProjectorConfig`
    text       a LLaMA (Vicuna), a Mistral or a Qwen2, in which an image is one token of its     `PrefixConfig`
               vocabulary, as often as the image has features                                    `image_tag`
"""

import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from flamingo_jax.conversion import language_models
from flamingo_jax.conversion.converted import Converted, not_standardised
from flamingo_jax.conversion.folders import (
    BUFFERS,
    NAMES,
    card_of,
    chat_template,
    language_model,
    reading,
    reading_config,
    refuse_other,
    roles_of,
    text_fields,
    tokenizer_settings,
    with_tokens,
    write_json,
)
from flamingo_jax.conversion.hugging_face import activation_of, open_tensors, open_tokenizer, read_json
from flamingo_jax.conversion.tensors import Empty, Tensor, in_memory, matrix, to_tree, vector
from flamingo_jax.conversion.vit import config_of_transformers, preprocessor, said_by_preprocessor, vit_tensors
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import IMAGE, Tokenizer
from flamingo_jax.model.bridges.prefix import PrefixConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.connectors.projector import ProjectorConfig
from flamingo_jax.model.vision.vit import ViTConfig

REMEDY = 'Give a folder of llava-hf/llava-1.5-7b-hf or -13b-hf, or another of LlavaForConditionalGeneration.'
VISION, TEXT, PROJECTOR = 'vision_tower.vision_model.', 'language_model.', 'multi_modal_projector.'
# Names that newer versions of transformers write -> those of the published files.
RENAMED = (
    (re.compile(r'(model\.)?language_model\.(?!model\.|lm_head\.)'), f'{TEXT}model.'),
    (re.compile(r'model\.language_model\.'), TEXT),
    (re.compile(r'lm_head\.'), f'{TEXT}lm_head.'),
    (re.compile(r'(model\.)?vision_tower\.(vision_model\.)?'), VISION),
    (re.compile(r'model\.multi_modal_projector\.'), PROJECTOR),
)


def convert(source: str, empty: Empty = in_memory, progress: bool = False) -> Converted:
    """Reads a LLaVA from its Hugging Face folder, in the dtypes of its tensors.

    Args:
      source: the folder.
      empty, progress: as for `tensors.to_tree`.

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged or of another model; the message names it and a remedy.
    """
    folder = pathlib.Path(source).expanduser()
    fields = read_json(folder / 'config.json')
    with reading(folder, 'LLaVA', REMEDY):
        with reading_config():
            images = preprocessor(folder)
            config = config_of(fields, said_by_preprocessor(images))
            _check_images(images, config.image_size)
        tokenizer = _open_tokenizer(folder, fields, config)
        state = {_published(name): tensor for name, tensor in open_tensors(folder).items()}
        # Old files have constants, some repeat a tied embedding, and a SigLIP may have a head, which nothing uses.
        unused = (f'{VISION}head.', *([f'{TEXT}lm_head.'] if config.lm.tied else []))
        leftover = [name for name in state if BUFFERS.fullmatch(name) or name.startswith(unused)]
        params = to_tree(tensors_of(config), state, leftover, empty=empty, progress=progress)
    params['vision'] |= not_standardised(config.vision.width)
    return Converted(config, params, tokenizer, card_of(folder, 'a LLaVA'), config.image_tag)


def config_of(fields: Mapping[str, Any], said: Mapping[str, Any]) -> FlamingoConfig:
    """The config of a config.json, and of what the preprocessor's file says of images (`mean`, `std`, `fit`)."""
    if fields.get('model_type') != 'llava':
        raise UserError(f"its config.json has model_type {fields.get('model_type')!r}, not 'llava'")
    text, seen = (cast(dict[str, Any], fields.get(part) or {}) for part in ('text_config', 'vision_config'))
    lm = language_model(text, tied=fields.get('tie_word_embeddings', False))
    vision = _trunk(seen, fields.get('vision_feature_layer', -2), fields.get('vision_feature_select_strategy'), said)
    image = fields.get('image_token_index', fields.get('image_token_id', 32_000))
    if not (isinstance(image, int) and 0 <= image < lm.vocab_size):
        raise UserError(f'its image_token_index is {image!r}, but its language model has {lm.vocab_size} tokens')
    return FlamingoConfig(
        lm=lm,
        vision=vision,
        resampler=ProjectorConfig(
            width=lm.width,
            activation=activation_of(fields.get('projector_hidden_act', 'gelu')),
            bias=fields.get('multimodal_projector_bias', True),
        ),
        xattn=PrefixConfig(),
        image_tag=(image,) * vision.spatial(vision.resolution),
        image_size=vision.resolution,
    )


def _trunk(seen: dict[str, Any], layer: Any, strategy: str | None, said: Mapping[str, Any]) -> ViTConfig:
    """The trunk, at the `layer` and with the features that the text is shown."""
    kind = str(seen.get('model_type')).removesuffix('_vision_model')
    if kind not in ('clip', 'siglip'):
        raise UserError(f'its trunk is a {seen.get("model_type")!r}, not a clip_vision_model or a siglip_vision_model')
    vision, strategy = config_of_transformers(seen, kind), strategy or 'default'
    depth = vision.depth
    unused = (-1 - layer if layer < 0 else depth - layer) if type(layer) is int else -1
    if not 0 <= unused <= depth:
        raise UserError(f'its vision_feature_layer is {layer!r}, but one layer of its {depth} is needed')
    if strategy not in ('default', 'full') or (strategy == 'default' and not vision.class_token):
        raise UserError(f'its vision_feature_select_strategy {strategy!r} is not supported with a {kind}')
    choice: dict[str, Any] = dict(unused=unused, norm_features=False)
    choice['class_feature'] = strategy == 'full' and vision.class_token
    return ViTConfig(**vars(vision) | dict(said) | choice)


def _check_images(images: Mapping[str, Any], resolution: int) -> None:
    sizes = [images.get('size'), images.get('crop_size') if images.get('do_center_crop') else None]
    sides = {side for size in sizes if size for side in (size.values() if isinstance(size, dict) else [size])}
    if images.get('do_pad') or sides - {resolution}:
        how = 'padded to squares' if images.get('do_pad') else f'prepared with sides of {sorted(sides)} pixels'
        raise UserError(f'its images are {how}, which is not supported with a trunk for {resolution} pixels')


def fields_of(config: FlamingoConfig) -> dict[str, Any]:
    """The config.json of a model, the inverse of `config_of`. ValueError says why a model does not fit LLaVA."""
    lm, vision, resampler, xattn = config.lm, config.vision, config.resampler, config.xattn
    fits = isinstance(vision, ViTConfig) and isinstance(resampler, ProjectorConfig) and isinstance(xattn, PrefixConfig)
    if not fits or config.extra_tokens or vision.fit not in ('crop', 'squash'):
        raise UserError(
            'This model cannot be written as a LLaVA: that has a vision transformer whose images are cropped or '
            'squashed, a projector, a prefix, and no tokens beside those of its language model.'
        )
    vision, resampler = cast(ViTConfig, vision), cast(ProjectorConfig, resampler)
    fields: dict[str, Any] = dict(
        architectures=['LlavaForConditionalGeneration'],
        model_type='llava',
        image_token_index=config.image_tag[0],
        image_seq_length=config.media_tokens,
        projector_hidden_act=NAMES.get(resampler.activation),
        multimodal_projector_bias=resampler.bias,
        vision_feature_layer=-1 - vision.unused,
        vision_feature_select_strategy='default' if vision.class_token and not vision.class_feature else 'full',
        tie_word_embeddings=lm.tied,
        text_config=text_fields(lm, 'a LLaVA'),
        vision_config=dict(
            model_type='clip_vision_model' if vision.class_token else 'siglip_vision_model',
            hidden_size=vision.width,
            num_hidden_layers=vision.depth,
            num_attention_heads=vision.heads,
            intermediate_size=vision.ffw_width,
            patch_size=vision.patch,
            image_size=vision.resolution,
            hidden_act=NAMES.get(vision.activation),
            layer_norm_eps=vision.norm_eps,
            **({} if vision.class_token else dict(vision_use_head=False)),
        ),
    )
    said = dict(mean=vision.mean, std=vision.std, fit=vision.fit)
    refuse_other(config, config_of(fields, said), 'a LLaVA')
    return fields


def tensors_of(config: FlamingoConfig) -> Iterator[Tensor]:
    """All tensors of a LLaVA, by their names in the published files."""

    def at(tensor, *path, prefix=''):
        return Tensor(**vars(tensor) | dict(path=(*path, *tensor.path), name=prefix + tensor.name))

    for tensor in language_models.tensors_of(language_models.FAMILIES['llama'], config.lm, 'model.'):
        yield at(tensor, 'lm', prefix=TEXT)
    for tensor in vit_tensors(cast(ViTConfig, config.vision), 'transformers', VISION):
        yield at(tensor, 'vision', 'trunk')
    c, d = cast(ProjectorConfig, config.resampler), config.lm.width
    for ours, theirs, inputs, outputs in (
        ('up', 'linear_1', config.vision.width, c.width),
        ('down', 'linear_2', c.width, d),
    ):
        yield matrix(('resampler', ours, 'kernel'), f'{PROJECTOR}{theirs}.weight', inputs, outputs=outputs)
        if c.bias:
            yield vector(('resampler', ours, 'bias'), f'{PROJECTOR}{theirs}.bias', outputs)


def _published(name: str) -> str:
    """The name of a tensor in the published files."""
    for newer, published in RENAMED:
        if newer.match(name):
            return newer.sub(published, name, count=1)
    return name


def _open_tokenizer(folder: pathlib.Path, fields: Mapping[str, Any], config: FlamingoConfig) -> Tokenizer:
    """The folder's tokenizer, in which the image's token is one of the language model's own."""
    read_json(folder / 'tokenizer.json')  # No other file has the image's token.
    said = dict(fields['text_config']) | {name: value for name, value in fields.items() if value is not None}
    tokenizer, image = open_tokenizer(folder, said, config.lm.vocab_size), config.image_tag[0]
    if image >= tokenizer.size or tokenizer.name(image) != IMAGE:
        raise UserError(f'its image_token_index is {image}, but in its tokenizer.json that is not {IMAGE}')
    content = json.loads(tokenizer.model)
    content['roles'] |= dict(chat_template=chat_template(folder))
    model = json.dumps(content, ensure_ascii=False).encode()
    return Tokenizer(model, config.image_tag, config.lm.vocab_size)


def write_processor(folder: pathlib.Path, config: FlamingoConfig, tokenizer: Tokenizer) -> None:
    """Writes what transformers' AutoProcessor reads: how images are prepared, and the tokenizer."""
    vision, side = cast(ViTConfig, config.vision), config.image_size
    images: dict[str, Any] = dict(image_mean=vision.mean, image_std=vision.std, resample=3)
    square = dict(height=side, width=side)
    if vision.fit == 'crop':
        images |= dict(image_processor_type='CLIPImageProcessor', size=dict(shortest_edge=side))
        images |= dict(do_center_crop=True, crop_size=square)
    else:
        images |= dict(image_processor_type='SiglipImageProcessor', size=square)
    common = dict(processor_class='LlavaProcessor')
    strategy = 'default' if vision.class_token and not vision.class_feature else 'full'
    places = dict(patch_size=vision.patch, vision_feature_select_strategy=strategy, image_token=IMAGE)
    write_json(folder / 'tokenizer.json', with_tokens(tokenizer, {}))
    write_json(folder / 'tokenizer_config.json', common | tokenizer_settings(tokenizer))
    write_json(folder / 'generation_config.json', roles_of(tokenizer))
    write_json(folder / 'preprocessor_config.json', common | images)
    if tokenizer.chat_template:
        (folder / 'chat_template.jinja').write_text(tokenizer.chat_template, encoding='utf-8')
    write_json(
        folder / 'processor_config.json', common | places | dict(num_additional_image_tokens=int(vision.class_token))
    )
