import json
import re

import numpy as np
import pytest

from flamingo_jax.inputs import tokenizer as tokenizers
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import encode_prompt, is_continued
from flamingo_jax.inputs.rows import Chunk, Interleaved, RowFormat
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.tasks.nonce import nonces
from flamingo_jax.training.objectives.told import Told

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


def test_it_learns_from_pages_as_from_short_texts():
    """SentencePiece leaves out a text of more than 4 kB if it is not told otherwise; a web page has more."""
    page = ' '.join(f'flamingo wades {number}' for number in range(400))
    assert len(page) > 6000
    trained = Tokenizer(tokenizers.train(iter(['a b c'] * 20 + [page] * 3), 300), 'text')
    assert len(trained.encode(' flamingo')) == 1


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


@pytest.fixture(scope='module')
def json_file() -> bytes:
    """A byte-level tokenizer.json of 300 tokens and its roles: one token begins and pads, two end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ['<|begin|>', '<|end|>', '<|turn|>'], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator((f'{word} Output:' for word in nonces(np.random.default_rng(0), 500)), trainer)
    made.post_processor = processors.TemplateProcessing('<|begin|> $A', special_tokens=[('<|begin|>', 0)])
    made.enable_truncation(3)
    return json.dumps(dict(roles=dict(bos=0, eos=[1, 2], pad=0)) | json.loads(made.to_str())).encode()


@pytest.mark.parametrize('text', TEXTS)
def test_a_tokenizer_json_gives_text_and_back(json_file, text):
    tokenizer = Tokenizer(json_file, 'text')
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_roles_of_a_tokenizer_json(json_file, tmp_path):
    (tmp_path / 'tokenizer.json').write_bytes(json_file)
    tokenizer = Tokenizer.read(tmp_path, 'token', 320)
    assert (tokenizer.begin, tokenizer.bos, tokenizer.pad, tokenizer.eos, tokenizer.ends) == ((0,), 0, 0, 1, (1, 2))
    # Rows of the language model that no token has come before the extra tokens.
    assert (tokenizer.vocab_size, tokenizer.eoc, tokenizer.image_tag) == (320, 320, (321,))
    assert tokenizer.encode('a<EOC>b')[1] == 320 and tokenizer.decode([0, *tokenizer.encode('a<EOC>b'), 2]) == 'a<EOC>b'
    assert (tokenizer.file, tokenizer.model) == ('tokenizer.json', json_file)
    with pytest.raises(ValueError, match='tokenizer has 300 tokens, but the language model only 200'):
        Tokenizer(json_file, vocab_size=200)


def test_no_text_of_a_data_set_becomes_a_token_with_a_role(json_file, sentencepiece):
    """What a page says is text, even `<|end|>` and `</s>`."""
    tokenizer = Tokenizer(json_file, 'text')
    text = 'a<|end|><EOC>b'
    assert tokenizer.encode(text)[1:3] == [1, 300]
    chunk = Chunk(None, (text,), (1.0,))
    row = Interleaved.of([chunk], tokenizer, None, np.random.default_rng(0), RowFormat(64, 0))
    ids = row.tokens[len(tokenizer.begin) : row.used - 2].tolist()
    assert ids == tokenizer.encode(text, marks=False) and not {0, 1, 2, 300} & set(ids)
    assert tokenizer.decode(ids) == text
    assert not set(Tokenizer(sentencepiece).encode('a</s><s><pad>', marks=False)) & {0, 2, 3}


def test_a_literal_text_is_its_characters(json_file, sentencepiece):
    text = 'a<|end|> <EOC><image>b'
    for tokenizer in (Tokenizer(json_file, 'token'), Tokenizer(json_file), Tokenizer(sentencepiece, 'token')):
        quoted = tokenizer.literal(text)
        ids = tokenizer.encode(quoted)
        assert tokenizer.decode(ids) == text and max(ids) < tokenizer.vocab_size and not set(ids) & {*tokenizer.ends}
        assert tokenizer.literal(' Output: dax') == ' Output: dax'
        assert tokenizer.encode(tokenizer.literal(quoted)) == ids
    # Where the tag is plain text, it is written by other tokens, also in the middle of a text.
    tokenizer = Tokenizer(sentencepiece, 'text')
    ids = tokenizer.encode(tokenizer.literal('<image>') + '<EOC>')
    assert tuple(ids[: len(tokenizer.image_tag)]) != tokenizer.image_tag and ids[-1] == tokenizer.eoc
    assert tokenizer.decode(ids) == '<image><EOC>'
    one_by_one = Tokenizer(json_file, 'text')  # No letters are merged, so that there is one way to write it.
    with pytest.raises(ValueError, match='cannot write <image> as text'):
        one_by_one.encode(one_by_one.literal(text))


def test_a_mark_that_a_sentencepiece_model_has_as_a_symbol_is_text_where_it_should_be():
    """As Gemma's <start_of_image>. Its <table> is HTML, which stays one piece."""
    lines = iter(['see the start of image'] * 50)
    marked = Tokenizer(tokenizers.train(lines, 300, ['<start_of_image>', '<|im_end|>', '<table>']), 'token')
    text = 'see <start_of_image><|im_end|> <table>'
    for ids in (marked.encode(marked.literal(text)), marked.encode(text, marks=False)):
        assert marked.decode(ids) == text and not {*map(marked.name, ids)} & {'<start_of_image>', '<|im_end|>'}
        assert '<table>' in map(marked.name, ids)
    assert [marked.name(i) for i in marked.encode('<start_of_image>')] == ['<start_of_image>']


def test_an_added_token_that_its_file_does_not_call_special_is_text_where_it_should_be(json_file):
    """As <think> of Qwen 3 and the user-defined tokens of a GGUF file. HTML and white space stay tokens."""
    fields, names = json.loads(json_file), ['<think>', '</think>', '<tool_call>', '<table>', '    ']
    for i, name in enumerate(names, 300):
        rest = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
        fields['added_tokens'].append(dict(id=i, content=name) | rest)
    text = 'a<think>b</think>[x] <tool_call><table>    c'
    lines = ['what is thought of the table'] * 50
    of_sentencepiece = tokenizers.train(iter(lines), 310, ['<think>', '</think>', '[TOOL]', '<tool_call>', '<table>'])
    for tokenizer in (Tokenizer(json.dumps(fields).encode(), 'token'), Tokenizer(of_sentencepiece, 'token')):
        assert {*names[:3]} <= {*map(tokenizer.name, tokenizer.encode(text))}
        for ids in (tokenizer.encode(tokenizer.literal(text)), tokenizer.encode(text, marks=False)):
            found = {*map(tokenizer.name, ids)}
            assert tokenizer.decode(ids) == text and not found & {*names[:3]} and '<table>' in found
    assert '[TOOL]' not in map(tokenizer.name, tokenizer.encode(tokenizer.literal('[TOOL]')))


@pytest.mark.parametrize('kind', ['json_file', 'sentencepiece'])
def test_a_letter_of_several_bytes_is_written_when_it_is_whole(kind, request):
    tokenizer = Tokenizer(request.getfixturevalue(kind), 'text')
    text = 'bodex कुत्ता 猫\ufffd'  # The last one was written by the model itself.
    ids = tokenizer.encode(text)
    steps = [tokenizer.written(ids[:i]) for i in range(len(ids) + 1)]
    assert steps[-1] == text and steps == sorted(steps, key=len)
    assert all(text.startswith(step) and '\ufffd' not in step for step in steps[:-1])
    assert [tokenizer.shown(i) for i in tokenizer.encode('猫')] == ['<0xE7>', '<0x8C>', '<0xAB>']
    assert [tokenizer.shown(i) for i in tokenizer.encode(' Output:<EOC>')[-1:]] == ['<EOC>']


def test_nothing_before_a_text_where_the_model_was_trained_so(json_file):
    fields = json.loads(json_file) | dict(post_processor=None)
    tokenizer = Tokenizer(json.dumps(fields).encode())
    assert tokenizer.begin == ()
    assert encode_prompt(['dax'], tokenizer, ImageFormat(16))[0] == tokenizer.encode('dax')
    with pytest.raises(ValueError, match='empty text'):
        encode_prompt([''], tokenizer, ImageFormat(16))
    chunk = Chunk(None, ('dax',), (1.0,))
    row = Interleaved.of([chunk], tokenizer, None, np.random.default_rng(0), RowFormat(8, 0))
    ids = tokenizer.encode('dax')
    assert row.tokens.tolist() == [*ids, 1] + [0] * (7 - len(ids))
    assert row.weights.tolist() == [1.0] * (len(ids) + 1) + [0.0] * (7 - len(ids))


def _sentencepiece_with_prefix():
    """A SentencePiece model as LLaMA's, and its own ids of a text between two tags."""
    import io

    import sentencepiece

    model = io.BytesIO()
    how = dict(model_type='bpe', vocab_size=400, byte_fallback=True, remove_extra_whitespaces=False, minloglevel=2)
    texts = (f'{word} Output: {word}' for word in nonces(np.random.default_rng(0), 2000))
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_writer=model, **how)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return model.getvalue(), lambda text: [
        i
        for part in re.split('(<EOC>|<image>)', text)
        for i in ({'<EOC>': [400], '<image>': [401]}.get(part) or pieces.encode(part))
    ]


def _json_with_prefix(normalizer, pre_tokenizer):
    """A tokenizer.json as LLaMA's, and what the library makes of a text with the tags in it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    texts = (f'{word} Output: {word}' for word in nonces(np.random.default_rng(0), 2000))
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    made.pre_tokenizer = pre_tokenizer
    file = json.dumps(dict(roles=dict(bos=0, eos=[1], pad=0)) | json.loads(made.to_str())).encode()
    made.add_special_tokens(['<EOC>', '<image>'])
    return file, lambda text: made.encode(text).ids


@pytest.mark.parametrize('kind', ['sentencepiece', 'prepend', 'always', 'first'])
def test_a_space_before_each_text_is_not_between_its_segments(kind):
    """As the originals, which encode a whole prompt at once."""
    from tokenizers import normalizers, pre_tokenizers

    if kind == 'sentencepiece':
        file, whole = _sentencepiece_with_prefix()
    elif kind == 'prepend':
        steps = [normalizers.Prepend('\u2581'), normalizers.Replace(' ', '\u2581')]
        file, whole = _json_with_prefix(normalizers.Sequence(steps), None)
    else:
        file, whole = _json_with_prefix(None, pre_tokenizers.Metaspace(prepend_scheme=kind))
    tokenizer, image = Tokenizer(file, 'token'), np.zeros((1, 1, 1), np.float32)
    expected = [*tokenizer.begin, *whole('bodex<EOC><image>Output: trusavi<EOC><image>Output: bodex<EOC>')]
    prompt = ['bodex<EOC>', image, 'Output:', '', ' trusavi<EOC>', image, 'Output:']
    candidate = tokenizer.encode(' bodex<EOC>', is_continued(prompt, tokenizer))
    assert encode_prompt(prompt, tokenizer, ImageFormat(16))[0] + candidate == expected
    assert whole('a') == tokenizer.encode('a') != tokenizer.encode('a', continues=True)
    literal = tokenizer.literal('<EOC>')  # Nor is one around a text that is read as its characters.
    for begin, continues in (('', False), ('bodex', True), ('<EOC>', tokenizer.prefix_once)):
        characters = tokenizer.encode('<EOC>', continues, marks=False)
        expected_of_parts = [*tokenizer.encode(begin), *characters, *tokenizer.encode('Output:', continues=True)]
        assert tokenizer.encode(f'{begin}{literal}Output:') == expected_of_parts
    chunks = [Chunk(None, ('bodex',), (1.0,))]
    chunks += [Chunk(lambda: image, ('Output:', f' {word}'), (0.0, 1.0)) for word in ('trusavi', 'bodex')]
    row = Interleaved.of(chunks, tokenizer, image, np.random.default_rng(0), RowFormat(64, 2))
    assert row.tokens[: len(expected)].tolist() == expected


def test_what_follows_an_image_and_its_words_is_the_same_tokens():
    """In a told row of a model with a space before each text. A new line stands for <EOC>."""
    tokenizer, image = Tokenizer(_sentencepiece_with_prefix()[0], 'token'), np.zeros((1, 1, 1), np.float32)
    chunks = [Chunk(lambda: image, ('Output:', ' bodex'), (1.0, 1.0), says='trusavi')] * 2
    row = Told.of(chunks, tokenizer, image, np.random.default_rng(0), RowFormat(64, 2))
    at, told_at = row.at[row.weights > 0], row.told_at[row.weights > 0]
    told = row.told[told_at + 1]
    assert np.where(told == row.newline, tokenizer.eoc, told).tolist() == row.tokens[at + 1].tolist()


@pytest.mark.parity
@pytest.mark.parametrize('legacy', [True, False])
def test_llama_as_transformers_has_it(legacy, tmp_path):
    """In the two ways of its spaces, which LLaMA's published folders choose between."""
    transformers = pytest.importorskip('transformers')
    (tmp_path / 'tokenizer.model').write_bytes(_sentencepiece_with_prefix()[0])
    original = transformers.LlamaTokenizer.from_pretrained(tmp_path, legacy=legacy)
    original.save_pretrained(tmp_path / 'saved')
    names = ['<|endofchunk|>', '<image>']
    original.add_special_tokens(dict(additional_special_tokens=names))
    file = dict(roles=dict(bos=1, eos=[2], pad=0)) | json.loads((tmp_path / 'saved/tokenizer.json').read_text())
    tokenizer = Tokenizer(json.dumps(file).encode(), 'token', extra_tokens=names)
    image = np.zeros((1, 1, 1), np.float32)
    for prompt in (
        [image, 'Output:', ' trusavi<|endofchunk|>', image, 'Output:'],
        ['bodex', ' bodex<|endofchunk|>', image, 'Output: trusavi'],
    ):
        text = ''.join(item if isinstance(item, str) else '<image>' for item in prompt)
        candidate = tokenizer.encode(' bodex<|endofchunk|>', is_continued(prompt, tokenizer))
        whole = original(f'{text} bodex<|endofchunk|>', add_special_tokens=False)['input_ids']
        assert encode_prompt(prompt, tokenizer, ImageFormat(16))[0] == [*tokenizer.begin, *whole[: -len(candidate)]]
        assert candidate == whole[-len(candidate) :]


def test_errors(sentencepiece, tmp_path):
    with pytest.raises(ValueError, match='<EOC>.*has no such token'):
        Tokenizer(sentencepiece).encode('a<EOC>')
    with pytest.raises(ValueError, match="image_tag must be 'text', 'token' or None, not 'tag'"):
        Tokenizer(sentencepiece, 'tag')
    with pytest.raises(FileNotFoundError, match='There is no tokenizer at .*missing.model. Train one'):
        Tokenizer.read(tmp_path / 'missing.model')
    with pytest.raises(ValueError, match='vocabulary of 4000'):
        tokenizers.train(iter(['a b c'] * 10), 4000)
    (tmp_path / 'x.model').write_bytes(sentencepiece)
    assert Tokenizer.read(tmp_path / 'x.model', 'text').encode('bodex') == Tokenizer(sentencepiece).encode('bodex')
