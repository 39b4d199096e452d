"""Reads the tokenizer in the keys of a GGUF file, and changes the first token of any tokenizer.

`tokenizer.ggml.model` is 'gpt2' for byte-level BPE, which becomes a tokenizer.json with roles, or 'llama' for
SentencePiece, which becomes a SentencePiece model again. A GGUF file names the rule that splits text before byte-level
BPE, but does not contain it: known rules are in `SPLITS`.

Sources: llama-vocab.cpp of llama.cpp; the tokenizer.json files of the models.
"""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Split
from tokenizers.processors import TemplateProcessing

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.tokenizer import Tokenizer

# Numbers of `tokenizer.ggml.token_type`, which are those of SentencePiece.
UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5
UNSET = 2**32 - 1  # The id of a token that the model does not have.
ASCII_SPACE, SPACE = ' ', '\u2581'
NO_PIECE = 'no piece'  # No piece has a space, so that SentencePiece finds no token for the role.

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
QWEN2_WORDS = LLAMA3_WORDS.replace('{1,3}', '')


def _split(words: str) -> list[pre_tokenizers.PreTokenizer]:
    return [Split(Regex(words), 'isolated'), ByteLevel(add_prefix_space=False, use_regex=False)]


# tokenizer.ggml.pre -> how text is split before BPE.
SPLITS = {
    'gpt-2': [ByteLevel(add_prefix_space=False)],
    'smollm': [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)],
    'llama-bpe': _split(LLAMA3_WORDS),
    'qwen2': _split(QWEN2_WORDS),
    'deepseek-r1-qwen': _split(QWEN2_WORDS),
}
NFC = ('qwen2', 'deepseek-r1-qwen')


def read_tokenizer(keys: Mapping[str, Any], vocab_size: int) -> Tokenizer:
    """The tokenizer in the keys of a GGUF file.

    Args:
      keys: the keys of the file.
      vocab_size: of the language model.

    Raises:
      KeyError: a key is missing.
      ValueError: the tokenizer is of an unknown kind, is damaged, or does not fit the model.
    """
    about = {name.removeprefix('tokenizer.ggml.'): value for name, value in keys.items()}
    about = {name: value for name, value in about.items() if not (name.endswith('token_id') and value == UNSET)}
    kind, tokens = about['model'], about['tokens']
    if len(tokens) != vocab_size:
        raise UserError(
            f'its tokenizer has {len(tokens)} tokens, but its language model has {vocab_size}. Download it again.'
        )
    readers = {'gpt2': _byte_level, 'llama': _sentencepiece}
    if kind not in readers:
        raise UserError(f'the tokenizer {kind!r} is not known. Known: {", ".join(readers)}.')
    if wrong := [name for name in about if name.endswith('token_id') and not 0 <= about[name] < vocab_size]:
        raise UserError(f'{wrong[0]} = {about[wrong[0]]} is not one of its {vocab_size} tokens. Download it again.')
    kinds = about.get('token_type') or [1] * vocab_size
    if len(kinds) != vocab_size:
        raise UserError(f'its tokenizer has {len(kinds)} token types for {vocab_size} tokens. Download it again.')
    try:
        return Tokenizer(readers[kind](about, kinds), vocab_size=vocab_size)
    except (KeyError, _Unsupported):
        raise
    except Exception as error:  # Both libraries have error types of their own.
        raise UserError(f'its tokenizer cannot be read ({error}). Download it again.') from error


class _Unsupported(ValueError):
    """A fault whose message is complete."""


def _byte_level(about: Mapping[str, Any], kinds: list[int]) -> bytes:
    tokens, split = about['tokens'], about.get('pre')
    if split not in SPLITS:
        raise _Unsupported(f'its rule for splitting text, {split!r}, is not known. Known: {", ".join(SPLITS)}.')
    # Rows beyond the tokens are padded.
    ids = {token: i for i, token in enumerate(tokens) if not (kinds[i] == UNUSED and token == f'[PAD{i}]')}
    merges = [tuple(merge.split(' ')) for merge in about['merges']]
    made = tokenizers.Tokenizer(BPE(ids, merges, ignore_merges=split == 'llama-bpe'))
    made.normalizer = normalizers.NFC() if split in NFC else None
    made.pre_tokenizer, made.decoder = pre_tokenizers.Sequence(SPLITS[split]), ByteLevelDecoder()
    added = [i for i, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)]
    made.add_tokens([AddedToken(tokens[i], special=kinds[i] == CONTROL, normalized=False) for i in added])
    fields = json.loads(made.to_str())
    if about.get('add_bos_token', split == 'llama-bpe'):
        fields |= beginning(tokens[about['bos_token_id']], about['bos_token_id'])
    ends = [about[role] for role in ('eos_token_id', 'eot_token_id', 'eom_token_id') if role in about]
    if not ends:
        raise _Unsupported(
            'it does not say which token ends a text: it has no tokenizer.ggml.eos_token_id. Use '
            'another file of this model.'
        )
    ends = list(dict.fromkeys(ends))
    roles: dict[str, Any] = dict(
        bos=about.get('bos_token_id', ends[0]), eos=ends, pad=about.get('padding_token_id', ends[0])
    )
    return json.dumps(dict(roles=roles) | fields, ensure_ascii=False).encode()


def _sentencepiece(about: Mapping[str, Any], kinds: list[int]) -> bytes:
    tokens, scores, kinds = about['tokens'], about['scores'], list(kinds)
    unknown = about['unknown_token_id'] if 'unknown_token_id' in about else kinds.index(UNKNOWN)
    # Some writers mark the unknown token as a control token, and the tokens that begin and end a text as mere text.
    kinds[unknown] = UNKNOWN
    for role in ('bos_token_id', 'eos_token_id', 'padding_token_id'):
        if role in about and about[role] != unknown:
            kinds[about[role]] = CONTROL
    model = sentencepiece_model_pb2.ModelProto()
    for token, score, kind in zip(tokens, scores, kinds, strict=True):
        # Writers of GGUF use plain spaces in user-defined tokens.
        model.pieces.add(
            piece=token.replace(ASCII_SPACE, SPACE) if kind == USER_DEFINED else token, score=score, type=kind
        )
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = trainer.BPE, len(tokens), True
    trainer.unk_piece = tokens[unknown]
    trainer.bos_piece = tokens[about['bos_token_id']] if about.get('add_bos_token', True) else NO_PIECE
    trainer.eos_piece = tokens[about['eos_token_id']]
    trainer.pad_piece = tokens[about['padding_token_id']] if 'padding_token_id' in about else NO_PIECE
    normalizer.name = 'identity'
    normalizer.add_dummy_prefix = about.get('add_space_prefix', True)
    normalizer.remove_extra_whitespaces = about.get('remove_extra_whitespaces', False)
    return model.SerializeToString()


def begin_with(tokenizer: Tokenizer, token: str) -> Tokenizer:
    """The same tokenizer with `token` before every text, in place of its former first tokens.

    Many language models attend to the first token, whatever it is, when there is nothing else to attend to (the
    attention sink of Xiao et al. 2023). In a model without a token before its texts, that would be the tag of a
    image.

    Raises:
      ValueError: `token` is not in the tokenizer, or is ordinary text.
    """
    if tokenizer.file == 'tokenizer.json':
        fields = json.loads(tokenizer.model)
        ids = {added['content']: added['id'] for added in fields['added_tokens']}
        if token in ids:
            roles: dict[str, Any] = dict(roles=fields['roles'] | dict(bos=ids[token]))
            model = json.dumps(fields | roles | beginning(token, ids[token]), ensure_ascii=False).encode()
    else:
        proto = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model)
        ids = {piece.piece: i for i, piece in enumerate(proto.pieces) if piece.type == CONTROL}
        if token in ids:
            proto.trainer_spec.bos_piece = token
            model = proto.SerializeToString()
    if token not in ids:
        raise UserError(f'{token!r} cannot be the first token. Use one of {", ".join(map(repr, list(ids)[:20]))}.')
    return Tokenizer(model, vocab_size=tokenizer.vocab_size)


def beginning(token: str, i: int) -> dict[str, Any]:
    """The part of a tokenizer.json that puts a token before every text."""
    return dict(
        post_processor=json.loads(TemplateProcessing(f'{token} $A', special_tokens=[(token, i)]).__getstate__())
    )
