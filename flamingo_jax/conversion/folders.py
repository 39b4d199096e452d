"""What the converters of whole models share that read and write a Hugging Face folder (`idefics.py`, `llava.py`)."""

import contextlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flamingo_jax.conversion import language_model_configs
from flamingo_jax.conversion.hugging_face import ACTIVATIONS, read_json
from flamingo_jax.conversion.tensors import Path, Tensor, matrix, norm
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.component import differences
from flamingo_jax.model.config import FlamingoConfig, LanguageModelConfig

# Constants that old versions of transformers stored.
BUFFERS = re.compile(r'.*(rotary_emb\.inv_freq|embeddings\.position_ids)')
# The model_types of language models, with the sizes that a config.json leaves out where they are transformers' own.
COMMON: dict[str, Any] = dict(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32)
TEXTS: dict[str, dict[str, Any]] = dict(
    llama=COMMON | dict(vocab_size=32_000, intermediate_size=11_008),
    mistral=COMMON
    | dict(vocab_size=32_000, intermediate_size=14_336, num_key_value_heads=8)
    | dict(max_position_embeddings=131_072),
    qwen2=COMMON | dict(vocab_size=151_936, intermediate_size=22_016, max_position_embeddings=32_768),
)
NAMES = {ours: theirs for theirs, ours in ACTIVATIONS.items()}  # Our names of activations -> those of transformers.


@contextlib.contextmanager
def reading(folder: pathlib.Path, name: str, remedy: str) -> Iterator[None]:
    """What is wrong with a folder becomes a UserError that names the folder, the model and the remedy."""
    try:
        yield
    except ValueError as error:
        raise UserError(f'{folder} is not a whole {name}: {error}. {remedy}') from error


@contextlib.contextmanager
def reading_config() -> Iterator[None]:
    """A value of a wrong type in a config.json becomes a UserError."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise UserError(f'its config.json has an invalid value ({error})') from error


def language_model(text: Mapping[str, Any], tied: bool) -> LanguageModelConfig:
    """The config of a language model from the `text_config` of a whole model.

    tied: whether the whole model's config.json ties the embeddings; the text_config may do so, too.
    """
    kind = text.get('model_type', 'llama')
    if kind not in TEXTS:
        raise UserError(f'its language model is a {kind!r}, not one of {", ".join(TEXTS)}')
    given = {name: value for name, value in text.items() if value is not None or name == 'sliding_window'}
    tied = tied or text.get('tie_word_embeddings', False)
    fields = TEXTS[kind] | given | dict(model_type=kind, tie_word_embeddings=tied)
    return language_model_configs.config_of(fields, 'its text_config')


def text_fields(lm: LanguageModelConfig, name: str) -> dict[str, Any]:
    """The `text_config` of a language model, as that of the first family that has such. `name`: of the whole model."""
    rope: dict[str, Any] = dict(rope_type='default', rope_theta=lm.rotary_base)
    if lm.rotary_factor != 1:
        rope |= dict(rope_type='llama3' if lm.rotary_bands else 'linear', factor=lm.rotary_factor)
    bands = ('low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
    rope |= dict(zip(bands, lm.rotary_bands, strict=False))
    fields: dict[str, Any] = dict(
        vocab_size=lm.vocab_size,
        hidden_size=lm.width,
        intermediate_size=lm.ffw_width,
        num_hidden_layers=lm.depth,
        num_attention_heads=lm.heads,
        num_key_value_heads=lm.kv_heads,
        head_dim=lm.head_dim,
        hidden_act=NAMES.get(lm.activation),
        rms_norm_eps=lm.norm_eps,
        max_position_embeddings=lm.context,
        rope_theta=lm.rotary_base,
        rope_parameters=rope,
        tie_word_embeddings=lm.tied,
    )
    windows = dict(sliding_window=max(lm.windows, default=None), use_sliding_window=bool(lm.windows))
    kinds = ['sliding_attention' if window else 'full_attention' for window in lm.windows]
    own = dict(
        llama=dict(attention_bias=lm.bias_out),
        mistral=windows,
        qwen2=windows | (dict(layer_types=kinds) if kinds else {}),
    )
    found = [fields | dict(model_type=kind) | own[kind] for kind in TEXTS]
    same = [one for one in found if language_model_configs.config_of(one) == lm]
    if not same:
        raise UserError(f'This model cannot be written as {name}: its language model is no {", ".join(TEXTS)}.')
    return same[0]


def refuse_other(config: FlamingoConfig, written: FlamingoConfig, name: str) -> None:
    """UserError that names what differs, if what would be read back is not the model that is written."""
    if written != config:
        wrong = '; '.join(differences(config.to_json(), written.to_json()))
        raise UserError(f'This model cannot be written as {name}: {wrong}.')


def chat_template(folder: pathlib.Path) -> str:
    """How a model was trained to chat, as its folder says it; '' if it does not."""
    if (file := folder / 'chat_template.jinja').is_file():
        return file.read_text(encoding='utf-8')
    for name in ('chat_template.json', 'processor_config.json', 'tokenizer_config.json'):
        found = read_json(folder / name).get('chat_template') if (folder / name).is_file() else None
        if isinstance(found, str):
            return found
    return ''


def card_of(folder: pathlib.Path, kind: str) -> dict[str, Any]:
    """What the model card of a bundle says of a folder (`checkpoints/model_card.py`)."""
    return dict(
        title=f'{folder.name}, {kind}',
        description='Its licence is that of its source.',
        tags=['image-text-to-text'],
    )


def roles_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The fields of config.json about a tokenizer."""
    ends = list(tokenizer.ends)
    ends = ends[0] if len(ends) == 1 else ends
    return dict(bos_token_id=tokenizer.bos, eos_token_id=ends, pad_token_id=tokenizer.pad)


def tokenizer_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """The fields of tokenizer_config.json for a tokenizer that is in its tokenizer.json."""
    return dict(
        tokenizer_class='PreTrainedTokenizerFast',
        bos_token=tokenizer.name(tokenizer.bos),
        eos_token=tokenizer.name(tokenizer.eos),
        pad_token=tokenizer.name(tokenizer.pad),
        unk_token=tokenizer.unk,
        padding_side='left',
        clean_up_tokenization_spaces=False,
    )


def without_tokens(path: pathlib.Path, beyond: int) -> tuple[dict[str, Any], dict[int, str]]:
    """A tokenizer.json without the tokens that were added from the id `beyond` on, and these by their ids."""
    content = read_json(path)
    tokens = content.get('added_tokens') or ()
    added = {token['id']: token['content'] for token in tokens if token['id'] >= beyond}
    if added:
        content['added_tokens'] = [token for token in tokens if token['id'] < beyond]
    return content, added


def with_tokens(tokenizer: Tokenizer, added: Mapping[str, int]) -> dict[str, Any]:
    """The tokenizer.json of a tokenizer that came from one, with tokens beyond it by their names."""
    content = json.loads(tokenizer.model)
    del content['roles']
    how: dict[str, Any] = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    if added:
        content['added_tokens'] += [dict(id=i, content=name) | how for name, i in added.items()]
    return content


def llama_layer(
    ours: Path, theirs: str, attention: str, norm_name: str, lm: LanguageModelConfig, media: int
) -> Iterator[Tensor]:
    """The tensors that a LLaMA's block and a gated block of the same shape have in common.

    Args:
      ours: the path of the block.
      theirs: the beginning of its names, with a dot at the end.
      attention: the name of its attention there.
      norm_name: of the norm before the attention, here.
      media: the width of what keys and values are computed from.
    """
    d, inner, names = lm.width, lm.heads * lm.head_dim, f'{theirs}{attention}.'
    yield from norm((*ours, norm_name), f'{theirs}input_layernorm', d, bias=False)
    yield from norm((*ours, 'norm_ffw'), f'{theirs}post_attention_layernorm', d, bias=False)
    for name, width, heads in (('query', d, lm.heads), ('key', media, lm.kv_heads), ('value', media, lm.kv_heads)):
        split = (width, heads, lm.head_dim)
        yield matrix((*ours, name, 'kernel'), f'{names}{name[0]}_proj.weight', width, heads * lm.head_dim, split)
    yield matrix((*ours, 'out', 'kernel'), f'{names}o_proj.weight', inner, d, (lm.heads, lm.head_dim, d))
    # Ours is act(up) * gate, so that LLaMA's gate_proj is our 'up'.
    for name, original in (('up', 'gate'), ('gate', 'up')):
        yield matrix((*ours, 'ffw', name, 'kernel'), f'{theirs}mlp.{original}_proj.weight', d, lm.ffw_width)
    yield matrix((*ours, 'ffw', 'down', 'kernel'), f'{theirs}mlp.down_proj.weight', lm.ffw_width, d)


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes an object as a JSON file."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
