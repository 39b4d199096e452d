"""A published language model, from its Hugging Face folder or its .gguf file."""

import pathlib

from flamingo_jax.conversion import gguf_models, hugging_face, language_model_tokenizers, language_models
from flamingo_jax.conversion.converted import FROZEN, Converted
from flamingo_jax.conversion.language_model_configs import config_of
from flamingo_jax.conversion.tensors import Empty, in_memory
from flamingo_jax.errors import UserError
from flamingo_jax.model.config import FlamingoConfig


def convert(source: str, first_token: str = '', empty: Empty = in_memory, progress: bool = False) -> Converted:
    """Reads a language model: a Hugging Face folder in the dtypes of its tensors, a .gguf file in bfloat16.

    Args:
      first_token: is put before every text, for a model that was trained without one; '' puts none.
      empty, progress: as for `tensors.to_tree`.

    Raises:
      FileNotFoundError, ImportError, ValueError: a file is missing, damaged or does not fit, or the package `gguf` is
        not installed. The message names it.
    """
    path, family = pathlib.Path(source).expanduser(), None
    if path.suffix == '.gguf':
        model = gguf_models.read_model(path)
        fields, tokenizer, tensors, family = model.fields, model.tokenizer, model.tensors, gguf_models.FAMILY
        config_of(fields, path)
        title, licence = model.name or path.stem, model.licence or 'that of its source'
        description = f'The language model of {path.name} in bfloat16. Its licence: {licence}.'
    else:
        fields = hugging_face.read_json(path / 'config.json')
        config = config_of(fields, path / 'config.json')
        tokenizer = hugging_face.open_tokenizer(path, fields, config.vocab_size)
        tensors = hugging_face.open_tensors(path)
        title, kind = path.name, fields['model_type']
        description = f'The language model of a {kind!r} folder; its licence is that of its source.'
    if first_token:
        tokenizer = language_model_tokenizers.begin_with(tokenizer, first_token)
    try:
        config, params = language_models.convert(fields, tensors, empty, progress, family)
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error
    uses = FROZEN.format('language model')
    card = dict(title=title, description=description, tags=['text-generation'], uses=uses)
    return Converted(FlamingoConfig(lm=config), {'lm': params}, tokenizer, card)
