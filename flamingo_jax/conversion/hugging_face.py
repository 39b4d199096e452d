"""A folder in the layout of Hugging Face: config.json, weights in one file or in shards, a tokenizer."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from flamingo_jax.conversion.readers import read_weights
from flamingo_jax.inputs.tokenizer import Tokenizer

# A language model may have more rows than its tokenizer has tokens, to make a round number. Known models have fewer
# extra.
SPARE_ROWS = 1024


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file. FileNotFoundError and ValueError name the file and the remedy."""
    if not path.is_file():
        raise FileNotFoundError(
            f'{path.parent} has no {path.name}. Give the whole folder of a model from Hugging Face.'
        )
    try:
        fields = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f'{path} is not JSON ({error}). Download it again.') from error
    if not isinstance(fields, dict):
        raise ValueError(f'{path} has a {type(fields).__name__}, not an object. Download it again.')
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
        raise ValueError(f'{path} has no weight_map from tensors to shards. Download it again.')
    files = [path.parent / name for name in sorted(set(index.values()))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f'{path.parent} does not have {len(missing)} of {len(files)} shards: {missing}. Download them.'
        )
    tensors = {}
    for file in files:
        tensors |= read_weights(file)
        if lost := [name for name, shard in index.items() if shard == file.name and name not in tensors]:
            raise ValueError(f'{file} does not have {lost[:5]}, which {path.name} lists. Download both again.')
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
            f'{folder} has no tokenizer.json and no tokenizer.model. Download one of them; transformers writes a '
            'tokenizer.json with '
            'AutoTokenizer.from_pretrained(...).save_pretrained(...).'
        )
    content = readers[name](folder, fields)
    try:
        tokenizer = Tokenizer(content)
    except Exception as error:  # Both libraries raise types of their own.
        raise ValueError(f'{folder / name} cannot be read ({error}). Download it again.') from error
    if not 0 <= vocab_size - tokenizer.vocab_size < SPARE_ROWS:
        raise ValueError(
            f'{folder / name} has {tokenizer.vocab_size} tokens, but the language model has {vocab_size}. Give the '
            'tokenizer that the language model was trained with.'
        )
    return Tokenizer(content, vocab_size=vocab_size)


def _tokenizer_json(folder: pathlib.Path, fields: Mapping[str, Any]) -> bytes:
    read = read_json(folder / 'tokenizer.json')
    return json.dumps(dict(roles=roles(folder, fields)) | read, ensure_ascii=False).encode()


def _sentencepiece(folder: pathlib.Path, fields: Mapping[str, Any]) -> bytes:
    return (folder / 'tokenizer.model').read_bytes()


def _byte_level(folder: pathlib.Path, fields: Mapping[str, Any]) -> bytes:
    """The tokenizer files of GPT-2's own code, which OPT uses."""
    vocabulary, said = read_json(folder / 'vocab.json'), roles(folder, fields)
    try:
        made = tokenizers.Tokenizer(BPE.from_file(str(folder / 'vocab.json'), str(folder / 'merges.txt')))
    except Exception as error:
        raise ValueError(f'{folder / "merges.txt"} cannot be read ({error}). Download it again.') from error
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    special = {token: i for token, i in vocabulary.items() if i in (said['bos'], said['pad'], *said['eos'])}
    made.add_special_tokens(list(special))
    settings = folder / 'tokenizer_config.json'
    if settings.is_file() and read_json(settings).get('add_bos_token'):
        begin = next(item for item in special.items() if item[1] == said['bos'])
        made.post_processor = TemplateProcessing(f'{begin[0]} $A', special_tokens=[begin])
    return json.dumps(dict(roles=said) | json.loads(made.to_str()), ensure_ascii=False).encode()


def roles(folder: pathlib.Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens that begin, end and pad a text.

    They are ids in generation_config.json, which takes precedence, or in config.json, or names in
    tokenizer_config.json.
    """
    generation, settings = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in ('generation_config.json', 'tokenizer_config.json')
    )
    named = {}
    if (folder / 'tokenizer.json').is_file():
        added = read_json(folder / 'tokenizer.json').get('added_tokens')
        named = {token['content']: token['id'] for token in added or []}

    def first(role):
        for one in (generation, fields):
            if one.get(f'{role}_token_id') is not None:
                return one[f'{role}_token_id']
        name = settings.get(f'{role}_token')
        return named.get(name['content'] if isinstance(name, dict) else name)

    ends = first('eos')
    if ends is None:
        raise ValueError(
            f'{folder} does not say which token ends a text: there is no eos_token_id in config.json or '
            'generation_config.json, and no eos_token in tokenizer_config.json that tokenizer.json has. Add '
            'eos_token_id to config.json.'
        )
    ends = ends if isinstance(ends, list) else [ends]
    bos, pad = first('bos'), first('pad')
    return dict(bos=ends[0] if bos is None else bos, eos=ends, pad=ends[0] if pad is None else pad)
