"""GGUF files: those that a test writes are the models they were written from, and bad ones are refused."""

import json
import os
import pathlib
import struct

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

import flamingo_jax
from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import language_model_files, language_models
from flamingo_jax.conversion.gguf_models import FAMILY, read_model
from flamingo_jax.conversion.gguf_reader import read_gguf
from flamingo_jax.conversion.language_model_tokenizers import SPLITS, begin_with, read_tokenizer
from flamingo_jax.inputs.tokenizer import EOC, Tokenizer, train
from tests.conversion import gguf_files
from tests.golden.make_language_models import FAMILIES, FOLDER, random_model, save
from tests.mutations import NUMBERS, damaged

pytestmark = pytest.mark.usefixtures('quick_compilation')
TEXTS = (
    'The capital of France is Paris. In 2024, 1234.5 € were paid (for 3 things).',
    " Grüße, ça va?  Привет, мир! 你好，世界。犬と猫 اَلسَّلَامُ ഇത് don't DON'T",
    'a\nb\n\n\nc\r\n\n    four\n\t\ttabs  ',
    '😀👍🏽 é é ﬁ',
    '    ',
    '',
)


def assert_the_same_model(one: pathlib.Path, other: pathlib.Path):
    """Bit for bit, when `one` is rounded to bfloat16 as `other` is."""
    one, other = bundle.read(one), bundle.read(other)
    assert one.config == other.config

    def same(a, b):
        assert b.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(a).astype(b.dtype).view(np.uint16), np.asarray(b).view(np.uint16))

    jax.tree.map(same, one.params('lm'), other.params('lm'))


@pytest.mark.parametrize('name', ['golden_llama3', 'golden_gemma3'])
def test_a_file_is_the_folder_it_was_written_from(name, tmp_path):
    gguf_files.from_folder(FOLDER / name, tmp_path / 'file.gguf')
    write(language_model_files.convert, str(tmp_path / 'file.gguf'), str(tmp_path / 'ours'))
    write(language_model_files.convert, str(FOLDER / name), str(tmp_path / 'folder'))
    assert_the_same_model(tmp_path / 'folder', tmp_path / 'ours')
    assert 'A tiny model' in (tmp_path / 'ours' / 'README.md').read_text()
    tokenizer = bundle.read(tmp_path / 'ours').tokenizer()
    assert (tokenizer.begin, tokenizer.ends, tokenizer.pad, tokenizer.vocab_size) == ((1,), (2,), 0, 96)


def test_biases_of_queries_and_keys_are_in_the_order_of_their_rows(tmp_path):
    """llama.cpp's writer changes the order of both."""
    fields = json.loads((FOLDER / 'golden_llama3' / 'config.json').read_text())
    tensors = safetensors.numpy.load_file(FOLDER / 'golden_llama3' / 'model.safetensors')
    names = dict(attn_q='model.layers.0.self_attn.q_proj', attn_k='model.layers.0.self_attn.k_proj')
    biases = {f'{name}.bias': np.arange(len(tensors[f'{name}.weight']), dtype=np.float32) for name in names.values()}
    gguf_files.write_model(fields, tensors | biases, tmp_path / 'file.gguf')
    found = read_model(tmp_path / 'file.gguf').tensors
    for ours, theirs in names.items():
        np.testing.assert_array_equal(np.asarray(found[f'blk.0.{ours}.bias'], np.float32), biases[f'{theirs}.bias'])


@pytest.mark.parametrize('key', ['gemma3.rope.scaling.factor', 'gemma3.rope.scale_linear'])
def test_a_factor_of_positions_without_a_kind_is_linear(key, tmp_path, monkeypatch):
    """So llama.cpp reads it, also by the name that it had in the files of 2023."""
    gguf_files.from_folder(FOLDER / 'golden_gemma3', tmp_path / 'file.gguf')
    monkeypatch.setattr(gguf.GGUFWriter, 'add_rope_scaling_type', lambda out, kind: None)
    monkeypatch.setattr(gguf.GGUFWriter, 'add_rope_scaling_factor', lambda out, factor: out.add_float32(key, factor))
    gguf_files.from_folder(FOLDER / 'golden_gemma3', tmp_path / 'other.gguf')
    scaling = read_model(tmp_path / 'other.gguf').fields['rope_scaling']
    assert scaling == read_model(tmp_path / 'file.gguf').fields['rope_scaling'] == dict(rope_type='linear', factor=8.0)
    monkeypatch.setattr(gguf.GGUFWriter, 'add_rope_scaling_factor', lambda out, factor: None)
    gguf_files.from_folder(FOLDER / 'golden_gemma3', tmp_path / 'none.gguf')
    assert read_model(tmp_path / 'none.gguf').fields['rope_scaling']['rope_type'] == 'default'


@pytest.mark.parity
@pytest.mark.parametrize('name', ['llama', 'llama_linear', 'qwen2', 'qwen3', 'gemma', 'gemma2', 'gemma3'])
def test_every_family(name, tmp_path):
    """The file is the folder, and transformers reads it so too."""
    transformers = pytest.importorskip('transformers')
    model = random_model(name)
    for parameter in model.parameters():  # As published; in float32, a norm would lose a bit when 1 is added.
        parameter.data = parameter.data.bfloat16().float()
    save(model, name, tmp_path / 'source')
    gguf_files.from_folder(tmp_path / 'source', tmp_path / 'file.gguf')
    write(language_model_files.convert, str(tmp_path / 'file.gguf'), str(tmp_path / 'ours'))
    write(language_model_files.convert, str(tmp_path / 'source'), str(tmp_path / 'folder'))
    assert_the_same_model(tmp_path / 'folder', tmp_path / 'ours')
    if name in ('gemma', 'llama_linear'):
        return  # It does not read Gemma 1, nor biases.
    # Keys that it does not read.
    unread = {'qwen3': ['head_dim'], 'gemma2': ['query_pre_attn_scalar'], 'gemma3': ['rope_parameters']}.get(name, [])
    unread = {key: FAMILIES[name][1][key] for key in unread}
    read = dict(gguf_file='file.gguf', dtype='float32', attn_implementation='eager')
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, **read, **unread)
    assert_equal_answers(theirs, flamingo_jax.load(tmp_path / 'ours'), np.arange(3, 90, 4))


def assert_equal_answers(theirs, ours, prompt):
    """Logits within 1e-4 of the largest, and the same 16 greedy tokens, once their weights are rounded as ours are."""
    import torch

    for parameter in theirs.parameters():
        parameter.data = parameter.data.bfloat16().float()
    prompt = np.array([[*ours.tokenizer.begin, *prompt]])
    ids, settings = torch.tensor(prompt), dict(max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)
    with torch.no_grad():
        expected = theirs(ids).logits.numpy()
        # The mask, because a first token may be what it pads with.
        greedy = theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings).numpy()
    difference = np.abs(np.asarray(ours.logits(None, prompt)) - expected).max() / np.abs(expected).max()
    print(f'largest difference {difference:.1e} of the largest logit {np.abs(expected).max():.1f}')
    assert difference <= 1e-4
    begins = np.asarray(ours.logits(None, greedy))[0, prompt.shape[1] - 1 : -1].argmax(-1)
    np.testing.assert_array_equal(begins, greedy[0, prompt.shape[1] :])


MODELS = pathlib.Path(os.environ.get('LANGUAGE_MODELS', '.'))


@pytest.mark.parity
@pytest.mark.parametrize('name', ['smollm2', 'gemma3'])
def test_published_files(name):
    """LANGUAGE_MODELS is the folder where data/language_models/fetch.sh left both."""
    if not (MODELS / f'{name}.gguf').is_file():
        pytest.skip(f'no {name}.gguf in LANGUAGE_MODELS')
    transformers = pytest.importorskip('transformers')
    ours = flamingo_jax.load(MODELS / name)
    read = dict(pretrained_model_name_or_path=MODELS, gguf_file=f'{name}.gguf')
    words = transformers.AutoTokenizer.from_pretrained(**read)
    for text in TEXTS:
        ids = ours.tokenizer.encode(text)
        assert ids == words(text, add_special_tokens=False).input_ids
        assert ours.tokenizer.decode(ids) == words.decode(ids) == text
    theirs = transformers.AutoModelForCausalLM.from_pretrained(**read, dtype='float32')
    for text in TEXTS[:2]:
        assert_equal_answers(theirs, ours, ours.tokenizer.encode(text))
    if name == 'smollm2':
        assert ours.generate('The capital of France is', max_new_tokens=1).strip() == 'Paris'
        assert ours.tokenizer.begin == (0,)


@pytest.mark.parametrize('kind', ['F32', 'F16', 'BF16', 'Q4_0', 'Q5_1', 'Q8_0'])
def test_tensors_are_dequantised_in_parts(kind, tmp_path, monkeypatch):
    monkeypatch.setattr('flamingo_jax.conversion.gguf_reader.AT_ONCE', 200)  # Three rows.
    kind = gguf.GGMLQuantizationType[kind]
    tensor = np.random.default_rng(0).normal(size=(11, 64)).astype(np.float32)
    stored = gguf.quants.quantize(tensor, kind)
    out = gguf.GGUFWriter(tmp_path / 'file.gguf', 'llama')
    out.add_tensor('one', stored, raw_dtype=kind)
    gguf_files.write(out)
    fields, tensors = read_gguf(tmp_path / 'file.gguf')
    assert fields['general.architecture'] == 'llama' and tensors['one'].shape == (11, 64)
    assert np.abs(np.asarray(tensors['one'], np.float32) - tensor).max() < 0.3
    np.testing.assert_array_equal(np.asarray(tensors['one'], np.float32), gguf.quants.dequantize(stored, kind))
    assert np.asarray(tensors['one']).dtype == jnp.bfloat16


def test_shards_are_the_whole(tmp_path):
    gguf_files.from_folder(FOLDER / 'golden_gemma3', tmp_path / 'whole.gguf')
    gguf_files.from_folder(FOLDER / 'golden_gemma3', tmp_path / 'model.gguf', split_max_tensors=15)
    shards = sorted(path.name for path in tmp_path.glob('model-*'))
    assert shards == [f'model-0000{i}-of-00003.gguf' for i in (1, 2, 3)]
    write(language_model_files.convert, str(tmp_path / shards[1]), str(tmp_path / 'bundle'))
    write(language_model_files.convert, str(tmp_path / 'whole.gguf'), str(tmp_path / 'expected'))
    assert bundle.read(tmp_path / 'bundle').checksums == bundle.read(tmp_path / 'expected').checksums
    (tmp_path / shards[2]).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"does not have 1 of 3 shards: \['model-00003-of-00003.gguf'\]. Download"
    ):
        write(language_model_files.convert, str(tmp_path / shards[0]), str(tmp_path / 'again'))


# Tokenizers.


@pytest.fixture(scope='module')
def pieces():
    """A SentencePiece model with byte fallback, and keys of a GGUF file that hold it."""
    import sentencepiece

    model = train(iter(TEXTS[:3] * 30), 380, ['\n', '  '])
    read = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = range(read.vocab_size())
    kinds = [6 if read.is_byte(i) else 3 if read.is_control(i) else 2 if read.is_unknown(i) else 1 for i in ids]
    kinds = [4 if read.id_to_piece(i) in ('\n', '▁▁') else kind for i, kind in zip(ids, kinds, strict=True)]
    kinds[read.unk_id()] = 3  # As in the file of Gemma 3.
    tokens = [read.id_to_piece(i) for i in ids]
    keys = {
        'model': 'llama',
        'tokens': [token.replace('▁', ' ') if kind == 4 else token for token, kind in zip(tokens, kinds, strict=True)],
        'scores': [read.get_score(i) for i in ids],
        'token_type': kinds,
        'bos_token_id': 2,
        'eos_token_id': 3,
        'unknown_token_id': 1,
        'padding_token_id': 0,
        'add_space_prefix': False,
    }
    return Tokenizer(model), {f'tokenizer.ggml.{name}': value for name, value in keys.items()}


def test_sentencepiece(pieces):
    expected, keys = pieces
    ours = read_tokenizer(keys, expected.size)
    for text in TEXTS:
        assert ours.encode(text) == expected.encode(text)
        assert ours.decode(ours.encode(text)) == expected.decode(expected.encode(text)) == text
    assert (ours.begin, ours.bos, ours.ends, ours.pad) == ((2,), 2, (3,), 0)
    with_images = Tokenizer(ours.model, 'text')
    parts = [ours.encode(TEXTS[0]), [with_images.eoc], ours.encode(TEXTS[1])]
    assert with_images.encode(TEXTS[0] + EOC + TEXTS[1]) == sum(parts, [])


def test_sentencepiece_that_begins_with_a_space_or_without_a_token(pieces):
    expected, keys = pieces
    other = {'tokenizer.ggml.add_bos_token': False, 'tokenizer.ggml.add_space_prefix': True}
    ours = read_tokenizer(keys | other, expected.size)
    assert ours.begin == () and ours.encode('a') == expected.encode(' a') and ours.decode(ours.encode('a')) == 'a'
    assert begin_with(ours, '</s>').begin == (3,)
    with pytest.raises(ValueError, match="'a' cannot be the first token. Use one of '<pad>', '<s>', '</s>'"):
        begin_with(ours, 'a')


def test_sentencepiece_whose_end_is_marked_as_text(pieces):
    """So are the ends of chats in files of 2023; a token that a model does not have may be 2^32 - 1."""
    expected, keys = pieces
    kinds = list(keys['tokenizer.ggml.token_type'])
    kinds[3] = 4
    ours = read_tokenizer(keys | {'tokenizer.ggml.token_type': kinds}, expected.size)
    assert (ours.begin, ours.ends) == ((2,), (3,)) and ours.encode('</s>') == expected.encode('</s>')
    assert read_tokenizer(keys | {'tokenizer.ggml.padding_token_id': 2**32 - 1}, expected.size).ends == (3,)


@pytest.mark.parametrize('split', sorted(SPLITS))
def test_byte_level(split):
    """Against the library's own training with the same rule; digits stay alone where the rule says so."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(SPLITS[split])
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=['<|endoftext|>', '<|im_end|>'],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(list(TEXTS[:3]) * 30 + ['2024 2024'] * 30, trainer)
    fields = json.loads(made.to_str())['model']
    tokens = sorted(fields['vocab'], key=fields['vocab'].get)
    keys = dict(model='gpt2', pre=split, tokens=tokens, merges=[' '.join(merge) for merge in fields['merges']])
    keys |= dict(token_type=[3, 3] + [1] * (len(tokens) - 2), bos_token_id=0, eos_token_id=1, add_bos_token=False)
    ours = read_tokenizer({f'tokenizer.ggml.{name}': value for name, value in keys.items()}, len(tokens))
    for text in TEXTS[:3]:
        assert ours.encode(text) == made.encode(text).ids
        assert ours.decode(ours.encode(text)) == text
    digits = {'smollm': 4, 'gpt-2': 1, 'llama-bpe': 2}.get(split, 4)
    assert len(ours.encode('2024')) == digits
    assert (ours.begin, ours.ends, ours.bos, ours.pad) == ((), (1,), 0, 1)
    begun = begin_with(ours, '<|endoftext|>')
    assert begun.begin == (0,) and begun.encode(TEXTS[0]) == ours.encode(TEXTS[0])
    with pytest.raises(ValueError, match="'the' cannot be the first token. Use one of '<|endoftext|>', '<|im_end|>'"):
        begin_with(ours, 'the')


# Bad input.


def find(content: bytes, name: str) -> int:
    """Where the name of a key or tensor ends in a file."""
    written = struct.pack('<Q', len(name)) + name.encode()
    return content.index(written) + len(written)


def put(at: int, kind: str, value: int):
    def change(content):
        return content[:at] + struct.pack(kind, value) + content[at + struct.calcsize(kind) :]

    return change


def replaced(before: str, after: str):
    assert len(before) == len(after)
    return lambda content: content.replace(before.encode(), after.encode())


def tensor_type(kind: int):
    return lambda content: put(find(content, 'token_embd.weight') + 4 + 16, '<I', kind)(content)


def tensor_rows(rows: int):
    return lambda content: put(find(content, 'token_embd.weight') + 4 + 8, '<Q', rows)(content)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda content: content[:-4000], 'ends before its tensor .*: it is cut short or damaged. Download it again'),
        (lambda content: content[:3000], 'is truncated or damaged .*bytes should follow.*Download it again'),
        (lambda content: content[:5], 'is truncated or damaged.*Download it again'),
        (lambda content: b'', "is not a GGUF file: it begins with b''. Give the .gguf file"),
        (lambda content: b'PK\3\4' + content[4:], r"is not a GGUF file: it begins with b'PK\\x03\\x04'. Give"),
        (put(4, '<I', 1), 'GGUF version is 1, not one of .*newer llama.cpp'),
        (put(4, '>I', 3), 'GGUF version is 50331648'),
        (put(8, '<Q', 2**60), 'is truncated or damaged'),
        (put(16, '<Q', 2**60), 'is truncated or damaged'),
        (put(24, '<Q', 2**62), 'is truncated or damaged'),
        (lambda c: put(find(c, 'tokenizer.ggml.tokens') + 8, '<Q', 2**60)(c), 'is truncated or damaged'),
        (lambda c: put(find(c, 'tokenizer.ggml.token_type') + 8, '<Q', 2**60)(c), 'is truncated or damaged'),
        (lambda c: put(find(c, 'general.name'), '<I', 77)(c), 'is truncated or damaged'),
        (tensor_rows(2**50), 'ends before its tensor token_embd.weight .*Download it again'),
        (tensor_rows(95), 'its tokenizer has 96 tokens, but its language model has 95'),
        (
            tensor_type(99),
            'token_embd.weight is of type 99, which the installed package gguf does not dequ.*Update gguf',
        ),
        (tensor_type(24), 'token_embd.weight is of type 24, which .*use another quantisation'),
        (tensor_type(8), 'the rows of token_embd.weight .* are not whole blocks of 32'),
        (replaced('gemma3', 'mamba2'), "the architecture 'mamba2' is not known. Known: llama, .*gemma3"),
        (replaced('gemma3.block_count', 'gemma3.block_co__t'), "has no key for 'block_count'. Download"),
        (replaced('token_embd.weight', 'token_emb_.weight'), 'it is not a language model'),
        (replaced('blk.1.ffn_up', 'blk.1.ffn_xx'), r'missing: blk.1.ffn_up.weight.*unused: blk.1.ffn_xx.weight'),
        (replaced('blk.1.ffn_up', 'blk.9.ffn_up'), 'its block_count is 3, but it has tensors of 10 blocks'),
        (lambda c: put(find(c, 'gemma3.block_count') + 4, '<I', 2**32 - 1)(c), 'its block_count is 4294967295'),
        (
            lambda c: put(find(c, 'gemma3.attention.head_count') + 4, '<I', 0)(c),
            'lm.heads is 0. It must be a whole number',
        ),
        (replaced('gpt2', 'bert'), "the tokenizer 'bert' is not known. Known: gpt2, llama"),
        (replaced('gpt-2', 'tekke'), "its rule for splitting text, 'tekke', is not known. Known: gpt-2, smollm"),
        (replaced('tokenizer.ggml.merges', 'tokenizer.ggml.mergex'), "has no key for 'merges'"),
        (lambda c: put(find(c, 'tokenizer.ggml.eos_token_id') + 4, '<I', 96)(c), 'eos_token_id = 96 is not one of'),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(damage, message, tmp_path, good):
    (tmp_path / 'bad.gguf').write_bytes(damage(good))
    with pytest.raises(ValueError, match=f'bad.gguf.*{message}'):
        write(language_model_files.convert, str(tmp_path / 'bad.gguf'), str(tmp_path / 'bundle'))
    assert [path.name for path in tmp_path.iterdir()] == ['bad.gguf']


@pytest.mark.parametrize('number', [20, *NUMBERS])
def test_damaged_files(number, tmp_path, good):
    """Whatever the header says, the file is a model, or is refused."""
    rng, read = np.random.default_rng(0), 0
    header = good.index(b'output_norm.weight')
    for i in range(number):
        (tmp_path / 'bad.gguf').write_bytes(damaged(good[:header], rng) + good[header:])
        try:
            model = read_model(tmp_path / 'bad.gguf')
            language_models.convert(model.fields, model.tensors, family=FAMILY)
            read += 1
        except ValueError:
            pass
        except BaseException:
            (tmp_path / 'bad.gguf').rename(tmp_path / f'failed-{i}.gguf')
            raise
    assert number < 1000 or number / 20 < read < number / 2


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp('good') / 'good.gguf'
    gguf_files.from_folder(FOLDER / 'golden_gemma3', path)
    return path.read_bytes()


def test_other_errors(tmp_path, good):
    with pytest.raises(FileNotFoundError, match='missing.gguf'):
        write(language_model_files.convert, str(tmp_path / 'missing.gguf'), str(tmp_path / 'bundle'))
    (tmp_path / 'good.gguf').write_bytes(good)
    with pytest.raises(ValueError, match="'<bos>' cannot be the first token. Use one of '<pad>', '<s>', '</s>'"):
        write(language_model_files.convert, str(tmp_path / 'good.gguf'), str(tmp_path / 'bundle'), first_token='<bos>')
    assert [path.name for path in tmp_path.iterdir()] == ['good.gguf']
    write(language_model_files.convert, str(tmp_path / 'good.gguf'), str(tmp_path / 'bundle'), first_token='<pad>')
    assert bundle.read(tmp_path / 'bundle').tokenizer().begin == (0,)
