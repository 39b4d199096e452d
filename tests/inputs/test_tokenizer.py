import numpy as np
import pytest

from flamingo_jax.inputs import tokenizer as tokenizers
from flamingo_jax.inputs.nonce import nonces
from flamingo_jax.inputs.tokenizer import Tokenizer

TEXTS = [
    'bodex Output: trusavi\n',
    '  two spaces,  then a tab\tand an end ',
    'Zwölf Boxkämpfer jagen Виктора 狐 🐶\u200d',
    '\n\n Output: Output:',
    '<image>',
    '',
]


@pytest.mark.parametrize('text', TEXTS)
def test_text_and_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_segments_are_the_tokens_of_the_whole(tokenizer):
    """What a prompt and a training sequence rely on: they encode a text in pieces, at a prompt's keyword."""
    for word, answer in zip(nonces(np.random.default_rng(5), 50), nonces(np.random.default_rng(6), 50), strict=True):
        segments = [word, ' Output:', ' ' + answer, '\n']
        assert sum(map(tokenizer.encode, segments), []) == tokenizer.encode(''.join(segments))


def test_symbols_are_one_token_and_unknown_letters_are_bytes(tokenizer):
    assert len(tokenizer.encode(' Output:')) == len(tokenizer.encode('\n')) == 1
    dog = tokenizer.encode('🐶')
    assert len(dog) == 4 and len(set(dog)) == 4 and tokenizer.decode(dog) == '🐶'
    # '<image>' in plain text is several ordinary pieces, the same in any text.
    assert len(tokenizer.image_tag) > 1 and max(tokenizer.image_tag) < tokenizer.vocab_size
    assert tuple(tokenizer.encode('<image>')) == tokenizer.image_tag


def test_ids(sentencepiece):
    text, token, bare = (Tokenizer(sentencepiece, tag) for tag in ('text', 'token', None))
    assert [t.vocab_size for t in (text, token, bare)] == [400, 400, 400]
    assert (bare.pad, bare.bos, bare.eos, bare.eoc, bare.image_tag, bare.extra_tokens) == (0, 2, 3, None, (), ())
    assert (text.eoc, text.extra_tokens) == (400, ('<EOC>',))
    assert (token.eoc, token.image_tag, token.extra_tokens) == (400, (401,), ('<EOC>', '<image>'))


def test_extra_tokens(sentencepiece, tokenizer):
    text = 'bodex<EOC> Output:<EOC>'
    a, b = tokenizer.encode('bodex'), tokenizer.encode(' Output:')
    assert tokenizer.encode(text) == [*a, 400, *b, 400]
    assert tokenizer.decode([2, *tokenizer.encode(text), 3]) == text  # Control tokens are left out.
    assert Tokenizer(sentencepiece, 'token').decode([401, *a, 400]) == '<image>bodex<EOC>'


def test_errors(sentencepiece, tmp_path):
    with pytest.raises(ValueError, match='<EOC>.*without it'):
        Tokenizer(sentencepiece).encode('a<EOC>')
    with pytest.raises(ValueError, match="image_tag must be 'text', 'token' or None, not 'tag'"):
        Tokenizer(sentencepiece, 'tag')
    with pytest.raises(FileNotFoundError, match='No tokenizer at .*missing.model. Train one'):
        Tokenizer.read(tmp_path / 'missing.model')
    with pytest.raises(ValueError, match='vocabulary of 4000'):
        tokenizers.train(iter(['a b c'] * 10), 4000)
    (tmp_path / 'x.model').write_bytes(sentencepiece)
    assert Tokenizer.read(tmp_path / 'x.model', 'text').encode('bodex') == Tokenizer(sentencepiece).encode('bodex')
