"""Reads and writes Idefics 3 and SmolVLM (Laurençon et al. 2024; Marafioti et al. 2025), versions 1 and 2.

In transformers it is Idefics3ForConditionalGeneration or SmolVLMForConditionalGeneration, which compute the same.
Everything is in one Hugging Face folder:

    trunk      a SigLIP after the last norm; each tile of an image is an image of its own         `ViTConfig`
    connector  squares of features become one, and a linear map                                   `PixelShuffleConfig`
    text       a LLaMA (SmolLM2), in which a tile is one token, as often as it has media tokens    `PrefixConfig`
    tiles      how an image is cut, and the marks around its tiles, are said by the tokenizer      `inputs/splitting.py`

All tiles are whole, so that the original's mask of patches is always full, and its positions are those of the patches.
It finds them by comparing fractions in float32. On grids of 26, 27 and 32 patches a side, which published models have,
that is exact; on some others, such as 25, it takes a few patches for their neighbours, which is not followed here.
"""

import dataclasses
import json
import pathlib
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
from flamingo_jax.conversion.tensors import Empty, Tensor, in_memory, matrix, to_tree
from flamingo_jax.conversion.vit import preprocessor, vit_tensors
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.splitting import FAKE, LANCZOS, Splitting
from flamingo_jax.inputs.tokenizer import IMAGE, Tokenizer
from flamingo_jax.model.bridges.prefix import PrefixConfig
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.connectors.pixel_shuffle import PixelShuffleConfig
from flamingo_jax.model.vision.vit import SIGLIP_MEAN, SIGLIP_STD, ViTConfig

REMEDY = 'Give a folder of HuggingFaceM4/Idefics3-8B-Llama3, of a SmolVLM or SmolVLM2, or of one fine-tuned.'
VISION, TEXT, PROJECTION = 'model.vision_model.', 'model.text_model.', 'model.connector.modality_projection.proj.'
MOST = 4096  # Pixels of a side, to which the original shrinks what is larger.


def convert(source: str, empty: Empty = in_memory, progress: bool = False) -> Converted:
    """Reads an Idefics 3 or a SmolVLM from its Hugging Face folder, in the dtypes of its tensors.

    Args:
      source: the folder.
      empty, progress: as for `tensors.to_tree`.

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged or of another model; the message names it and a remedy.
    """
    folder = pathlib.Path(source).expanduser()
    fields = read_json(folder / 'config.json')
    with reading(folder, 'Idefics 3', REMEDY):
        with reading_config():
            images = preprocessor(folder)
            config = config_of(fields, images)
            splitting = splitting_of(images, config.image_size)
        tokenizer = _open_tokenizer(folder, fields, config, splitting)
        state = open_tensors(folder)
        unused = ('lm_head.',) if config.lm.tied else ()
        leftover = [name for name in state if BUFFERS.fullmatch(name) or name.startswith(unused)]
        params = to_tree(tensors_of(config), state, leftover, empty=empty, progress=progress)
    params['vision'] |= not_standardised(config.vision.width)
    return Converted(config, params, tokenizer, card_of(folder, 'an Idefics 3'), config.image_tag)


def config_of(fields: Mapping[str, Any], images: Mapping[str, Any]) -> FlamingoConfig:
    """The config of a config.json, and of what the preprocessor's file says of images (their mean and std)."""
    if fields.get('model_type') not in ('idefics3', 'smolvlm'):
        raise UserError(f"its config.json has model_type {fields.get('model_type')!r}, not 'idefics3' or 'smolvlm'")
    text, seen = (dict(fields.get(part) or {}) for part in ('text_config', 'vision_config'))
    if text.get('model_type', 'llama') != 'llama':
        raise UserError(f'its language model is a {text["model_type"]!r}, and only a llama is supported')
    tied = fields.get('tie_word_embeddings', False)  # transformers does not ask the text_config.
    lm = language_model(dict(rms_norm_eps=1e-5) | text | dict(tie_word_embeddings=False), tied)
    vision = ViTConfig(
        width=seen.get('hidden_size', 1152),
        depth=seen.get('num_hidden_layers', 12),
        heads=seen.get('num_attention_heads', 16),
        ffw_width=seen.get('intermediate_size', 3072),
        patch=seen.get('patch_size', 32),
        resolution=seen.get('image_size', 224),
        activation=activation_of(seen.get('hidden_act', 'gelu_pytorch_tanh')),
        norm_eps=seen.get('layer_norm_eps', 1e-6),
        class_token=False,
        norm_in=False,
        patch_bias=True,
        norm_features=True,
        mean=images.get('image_mean') or SIGLIP_MEAN,
        std=images.get('image_std') or SIGLIP_STD,
        fit='squash',
    )
    connector = PixelShuffleConfig(fields.get('scale_factor', 2))
    image = fields.get('image_token_id', 128_257)
    if type(image) is not int or not 0 <= image < lm.vocab_size:
        raise UserError(f'its image_token_id is {image!r}, but its language model has {lm.vocab_size} tokens')
    tag = (image,) * connector.media_tokens(vision.spatial(vision.resolution))
    return FlamingoConfig(lm, vision, connector, PrefixConfig(), image_tag=tag, image_size=vision.resolution)


def splitting_of(images: Mapping[str, Any], side: int) -> Splitting:
    """How images become tiles, by the preprocessor's file. side: height and width of the trunk's images, in pixels."""
    size = images.get('size') or {'longest_edge': 4 * side}
    tile = images.get('max_image_size') or {'longest_edge': side}
    longest, of_tile = size.get('longest_edge'), tile.get('longest_edge')
    if of_tile != side:
        raise UserError(f'its images have the max_image_size {tile}, but its trunk is for {side} pixels')
    if type(longest) is not int or not 0 < longest <= MOST:
        raise UserError(f'its images have the size {size}, not a longest_edge of 1 to {MOST} pixels')
    if images.get('resample', LANCZOS) != LANCZOS or not images.get('do_resize', True):
        raise UserError('its images are not resized, or by another filter than Lanczos (resample=1)')
    return Splitting(side, longest, bool(images.get('do_image_splitting', True)))


def fields_of(config: FlamingoConfig) -> dict[str, Any]:
    """The config.json of a model, the inverse of `config_of`. ValueError says why a model does not fit Idefics 3."""
    lm, vision, connector = config.lm, config.vision, config.resampler
    fits = isinstance(vision, ViTConfig) and isinstance(connector, PixelShuffleConfig)
    if not fits or not isinstance(config.xattn, PrefixConfig) or config.extra_tokens:
        raise UserError(
            'This model cannot be written as an Idefics 3: that has a SigLIP, a pixel shuffle, a prefix, and no tokens '
            'beside those of its language model.'
        )
    vision, connector = cast(ViTConfig, vision), cast(PixelShuffleConfig, connector)
    fields: dict[str, Any] = dict(
        architectures=['Idefics3ForConditionalGeneration'],
        model_type='idefics3',
        image_token_id=config.image_tag[0],
        scale_factor=connector.factor,
        tie_word_embeddings=lm.tied,
        text_config=text_fields(lm, 'an Idefics 3'),
        vision_config=dict(
            model_type='idefics3_vision',
            hidden_size=vision.width,
            num_hidden_layers=vision.depth,
            num_attention_heads=vision.heads,
            intermediate_size=vision.ffw_width,
            patch_size=vision.patch,
            image_size=vision.resolution,
            hidden_act=NAMES.get(vision.activation),
            layer_norm_eps=vision.norm_eps,
        ),
    )
    refuse_other(config, config_of(fields, dict(image_mean=vision.mean, image_std=vision.std)), 'an Idefics 3')
    return fields


def tensors_of(config: FlamingoConfig) -> Iterator[Tensor]:
    """All tensors of an Idefics 3, by their names in the published files."""
    for tensor in language_models.tensors_of(language_models.FAMILIES['llama'], config.lm, TEXT):
        name = tensor.name.replace(f'{TEXT}model.', TEXT)
        yield dataclasses.replace(tensor, path=('lm', *tensor.path), name=name)
    for tensor in vit_tensors(cast(ViTConfig, config.vision), 'transformers', VISION):
        yield dataclasses.replace(tensor, path=('vision', 'trunk', *tensor.path))
    inputs = config.vision.width * cast(PixelShuffleConfig, config.resampler).factor ** 2
    yield matrix(('resampler', 'project', 'kernel'), f'{PROJECTION}weight', inputs, config.lm.width)


def _open_tokenizer(
    folder: pathlib.Path, fields: Mapping[str, Any], config: FlamingoConfig, splitting: Splitting
) -> Tokenizer:
    """The folder's tokenizer, which has tokens for an image and around it, and says how images become tiles."""
    read_json(folder / 'tokenizer.json')  # No other file has the image's token.
    said = dict(fields['text_config']) | {name: value for name, value in fields.items() if value is not None}
    tokenizer, image = open_tokenizer(folder, said, config.lm.vocab_size), config.image_tag[0]
    if image >= tokenizer.size or tokenizer.name(image) != IMAGE:
        raise UserError(f'its image_token_id is {image}, but in its tokenizer.json that is not {IMAGE}')
    if len(tokenizer.encode(FAKE, continues=True)) != 1:
        raise UserError(f'its tokenizer.json has no token {FAKE}')
    content = json.loads(tokenizer.model)
    content['roles'] |= dict(chat_template=chat_template(folder), splitting=dataclasses.asdict(splitting))
    return Tokenizer(json.dumps(content, ensure_ascii=False).encode(), config.image_tag, config.lm.vocab_size)


def write_processor(folder: pathlib.Path, config: FlamingoConfig, tokenizer: Tokenizer) -> None:
    """Writes what transformers' AutoProcessor reads: how images are prepared, and the tokenizer."""
    vision, common = cast(ViTConfig, config.vision), dict(processor_class='Idefics3Processor')
    splitting = tokenizer.splitting or Splitting(config.image_size, 4 * config.image_size)
    images: dict[str, Any] = dict(
        image_processor_type='Idefics3ImageProcessor',
        image_mean=vision.mean,
        image_std=vision.std,
        resample=int(LANCZOS),
        size=dict(longest_edge=splitting.longest),
        max_image_size=dict(longest_edge=splitting.side),
        do_image_splitting=splitting.split,
    )
    write_json(folder / 'tokenizer.json', with_tokens(tokenizer, {}))
    write_json(folder / 'tokenizer_config.json', common | tokenizer_settings(tokenizer))
    write_json(folder / 'generation_config.json', roles_of(tokenizer))
    write_json(folder / 'preprocessor_config.json', common | images)
    write_json(folder / 'processor_config.json', common | dict(image_seq_len=config.media_tokens))
    if tokenizer.chat_template:
        (folder / 'chat_template.jinja').write_text(tokenizer.chat_template, encoding='utf-8')
