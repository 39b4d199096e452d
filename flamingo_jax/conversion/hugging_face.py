"""A folder in the layout of Hugging Face: config.json, weights in one file or in shards, a tokenizer."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from flamingo_jax.conversion.language_model_tokenizers import beginning
from flamingo_jax.conversion.readers import read_weights
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import Tokenizer

# A language model may have more rows than its tokenizer has tokens, to make a round number: DeepSeek's 7B has 2,385.
SPARE_ROWS = 4096
# transformers' names of activations -> ours. Where several have one meaning, the last is what is written.
ACTIVATIONS = {
    'quick_gelu': 'quick_gelu',
    'gelu': 'gelu',
    'gelu_new': 'gelu_tanh',
    'gelu_fast': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'relu': 'relu',
    'silu': 'silu',
    'swish': 'silu',
}
SAVE_AS_JSON = 'transformers writes a tokenizer.json with AutoTokenizer.from_pretrained(...).save_pretrained(...).'


def activation_of(name: str) -> str:
    """Our name of an activation, as in `layers.ACTIVATIONS`, by that of transformers. ValueError: it is not known."""
    if name not in ACTIVATIONS:
        raise UserError(f'the activation {name!r} is not known. Known: {", ".join(sorted(ACTIVATIONS))}.')
    return ACTIVATIONS[name]


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file. FileNotFoundError and ValueError name the file and the remedy."""
    if not path.is_file():
        raise FileNotFoundError(
            f'{path.parent} has no {path.name}. Give the whole folder of a model from Hugging Face.'
        )
    try:
        fields = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path} is not JSON ({error}). Download it again.') from error
    if not isinstance(fields, dict):
        raise UserError(f'{path} has a {type(fields).__name__}, not an object. Download it again.')
    return fields


def open_tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a folder, mapped from model.safetensors or pytorch_model.bin, whole or in shards.

    Raises:
      FileNotFoundError: there are no weights, or a shard is missing; the message names it.
      ValueError: a file is damaged, or does not have the tensors that the index lists.
    """
    for whole in ('model.safetensors', 'pytorch_model.bin'):
        if (folder / whole).is_file():
            return read_weights(folder / whole)
        path = folder / f'{whole}.index.json'
        if path.is_file():
            return _open_shards(path)
    raise FileNotFoundError(
        f'{folder} has neither model.safetensors nor pytorch_model.bin, whole or in shards. Give '
        'the whole folder of a model.'
    )


def _open_shards(path: pathlib.Path) -> dict[str, np.ndarray]:
    index = read_json(path).get('weight_map')
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise UserError(f'{path} has no weight_map from tensors to shards. Download it again.')
    files = [path.parent / name for name in sorted(set(index.values()))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f'{path.parent} does not have {len(missing)} of {len(files)} shards: {missing}. Download them.'
        )
    tensors = {}
    for file in files:
        tensors |= read_weights(file)
        if lost := [name for name, shard in index.items() if shard == file.name and name not in tensors]:
            raise UserError(f'{file} does not have {lost[:5]}, which {path.name} lists. Download both again.')
    return tensors


def open_tokenizer(folder: pathlib.Path, fields: Mapping[str, Any], vocab_size: int) -> Tokenizer:
    """The tokenizer of a folder: tokenizer.json, or else tokenizer.model, or else vocab.json and merges.txt (OPT).

    Args:
      fields: of config.json.
      vocab_size: of the language model.

    Raises:
      FileNotFoundError: there is none of them.
      ValueError: the tokenizer cannot be read or does not fit the vocabulary, or no file says which token ends a text.
    """
    readers = {'tokenizer.json': _tokenizer_json, 'tokenizer.model': _sentencepiece, 'merges.txt': _byte_level}
    name = next((name for name in readers if (folder / name).is_file()), None)
    if name is None:
        raise FileNotFoundError(
            f'{folder} has no tokenizer.json and no tokenizer.model. Download one of them, or write one. {SAVE_AS_JSON}'
        )
    content = readers[name](folder, fields, vocab_size)
    try:
        tokenizer = Tokenizer(content)
    except Exception as error:  # Both libraries raise types of their own.
        raise UserError(f'{folder / name} cannot be read ({error}). Download it again.') from error
    if not 0 <= vocab_size - tokenizer.vocab_size < SPARE_ROWS:
        raise UserError(
            f'{folder / name} has {tokenizer.vocab_size} tokens, but the language model has {vocab_size}. Give the '
            'tokenizer that the language model was trained with.'
        )
    return Tokenizer(content, vocab_size=vocab_size)


def _tokenizer_json(folder: pathlib.Path, fields: Mapping[str, Any], vocab_size: int) -> bytes:
    read, settings = read_json(folder / 'tokenizer.json'), _if_there(folder / 'tokenizer_config.json')
    # Gemma 3 without vision has a token for images, and no row for it.
    read['added_tokens'] = [token for token in read.get('added_tokens') or () if token['id'] < vocab_size]
    # Only this class of transformers and its subclasses put their own step in place of the file's.
    if str(settings.get('tokenizer_class')).startswith('LlamaTokenizer') and 'add_bos_token' in settings:
        first, ids = _text(settings.get('bos_token')), _ids(read)
        if settings['add_bos_token'] and first not in ids:
            raise UserError(
                f'{folder / "tokenizer_config.json"} has a text begin with {first!r}, which is no added token of '
                'tokenizer.json. Download both again.'
            )
        read |= beginning(first, ids[first]) if settings['add_bos_token'] else dict(post_processor=None)
    said = roles(folder, fields)
    if beyond := sorted({i for i in (said['bos'], said['pad'], *said['eos']) if i >= vocab_size}):
        raise UserError(
            f'{folder} has a text begin, end or padded with the token {beyond[0]}, but the language model has '
            f'{vocab_size}. Give the tokenizer that the language model was trained with.'
        )
    return json.dumps(dict(roles=said) | read, ensure_ascii=False).encode()


def _sentencepiece(folder: pathlib.Path, fields: Mapping[str, Any], vocab_size: int) -> bytes:
    """tokenizer.model, if it is all that transformers would read."""
    content, added = (folder / 'tokenizer.model').read_bytes(), folder / 'added_tokens.json'
    ids = _if_there(added)
    try:
        size = sentencepiece.SentencePieceProcessor(model_proto=content).vocab_size()
    except RuntimeError:
        return content  # `open_tokenizer` says that it cannot be read.
    if beyond := [token for token, i in ids.items() if i >= size]:
        raise UserError(f'{added} has {beyond[:3]}, which tokenizer.model does not have. {SAVE_AS_JSON}')
    return content


def _byte_level(folder: pathlib.Path, fields: Mapping[str, Any], vocab_size: int) -> bytes:
    """The tokenizer files of GPT-2's own code, which OPT uses."""
    if fields.get('model_type') not in ('gpt2', 'opt'):
        raise UserError(
            f'{folder} has vocab.json and merges.txt, which do not say how a model of type '
            f'{fields.get("model_type")!r} splits a text. {SAVE_AS_JSON}'
        )
    vocabulary, said = read_json(folder / 'vocab.json'), roles(folder, fields)
    try:
        made = tokenizers.Tokenizer(BPE.from_file(str(folder / 'vocab.json'), str(folder / 'merges.txt')))
    except Exception as error:
        raise UserError(f'{folder / "merges.txt"} cannot be read ({error}). Download it again.') from error
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    special = {token: i for token, i in vocabulary.items() if i in (said['bos'], said['pad'], *said['eos'])}
    made.add_special_tokens(list(special))
    read = json.loads(made.to_str())
    if _if_there(folder / 'tokenizer_config.json').get('add_bos_token'):
        read |= beginning(*next(item for item in special.items() if item[1] == said['bos']))
    return json.dumps(dict(roles=said) | read, ensure_ascii=False).encode()


def _if_there(path: pathlib.Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _text(token: Any) -> Any:
    """The text of a token in tokenizer_config.json, which has it alone or with what else is known of the token."""
    return token['content'] if isinstance(token, dict) else token


def _ids(fields: Mapping[str, Any]) -> dict[str, int]:
    """The added tokens of a tokenizer.json."""
    return {token['content']: token['id'] for token in fields.get('added_tokens') or ()}


def roles(folder: pathlib.Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens that begin, end and pad a text.

    They are ids in generation_config.json, which takes precedence, or in config.json, or names in
    tokenizer_config.json. A negative id is none.
    """
    generation, settings = (_if_there(folder / name) for name in ('generation_config.json', 'tokenizer_config.json'))
    named = _ids(_if_there(folder / 'tokenizer.json'))

    def ids(role):
        for one in (generation, fields):
            given = one.get(f'{role}_token_id')
            given = given if isinstance(given, list) else [given]
            if some := [id for id in given if isinstance(id, int) and id >= 0]:
                return some
        id = named.get(_text(settings.get(f'{role}_token')))
        return [] if id is None else [id]

    ends = ids('eos')
    if not ends:
        raise UserError(
            f'{folder} does not say which token ends a text: there is no eos_token_id in config.json or '
            'generation_config.json, and no eos_token in tokenizer_config.json that tokenizer.json has. Add '
            'eos_token_id to config.json.'
        )
    return dict(bos=(ids('bos') or ends)[0], eos=ends, pad=(ids('pad') or ends)[0])
