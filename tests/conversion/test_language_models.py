"""Language models of every family, built by transformers with random weights of realistic size, and converted."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

import flamingo_jax
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import language_model_files
from flamingo_jax.conversion.hugging_face import open_tokenizer
from flamingo_jax.inference import decode, search
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inputs.tokenizer import train
from tests.golden import make_language_models
from tests.golden.make_language_models import FAMILIES, FOLDER, left_padded, logits_of

pytestmark = pytest.mark.usefixtures('quick_compilation')
TOLERANCE = 1e-4  # Of the largest logit.


def assert_close(ours, theirs):
    assert 1 < np.abs(theirs).max() < 200, 'These weights are not of a realistic size.'
    difference = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    print(f'largest difference {difference:.1e} of the largest logit {np.abs(theirs).max():.1f}')
    assert difference <= TOLERANCE


def logits_in_parts(pretrained, tokens, valid):
    """Logits [b 9 v] after the place 15 and those that follow: a prompt of 16 places, then two parts of 4 tokens."""
    prefill, extend = jax.jit(decode.prefill, static_argnums=(0, 5)), jax.jit(decode.extend, static_argnums=0)
    model = (pretrained.model, pretrained.params, None)
    last, text = prefill(*model, tokens[:, :16], valid[:, :16], 8)
    first, text = extend(*model, text, tokens[:, 16:20])
    second, _ = extend(*model, text, tokens[:, 20:])
    return np.concatenate([last[:, None], first, second], axis=1)


def continuations(pretrained, tokens, valid):
    """16 greedy tokens a row."""
    model = (pretrained.model, pretrained.params, None)
    logits, text = jax.jit(decode.prefill, static_argnums=(0, 5))(*model, tokens, valid, 16)
    prompts = decode.Prompts(None, text, logits)
    return search.answer(*model[:2], prompts, jax.random.key(0), Sampling(16), search.Marks((-1,)))


@pytest.mark.parametrize('name', make_language_models.GOLDEN)
def test_golden(name, tmp_path):
    expected = np.load(FOLDER / name / 'expected.npz')
    tokens, valid = left_padded()
    write(language_model_files.convert, str(FOLDER / name), str(tmp_path / 'bundle'))
    ours = flamingo_jax.load(tmp_path / 'bundle')
    assert_close(logits_in_parts(ours, tokens, valid), expected['logits'][:, 15:])
    np.testing.assert_array_equal(continuations(ours, tokens, valid), expected['continuations'])


@pytest.fixture(scope='module', params=sorted(FAMILIES))
def both(request, tmp_path_factory):
    """(transformers' model, ours) of one family."""
    pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp(request.param)
    theirs = make_language_models.random_model(request.param)
    make_language_models.save(theirs, request.param, folder / 'source')
    write(language_model_files.convert, str(folder / 'source'), str(folder / 'bundle'))
    assert {path.name for path in folder.iterdir()} == {'source', 'bundle'}
    return theirs, flamingo_jax.load(folder / 'bundle')


@pytest.mark.parity
def test_without_padding(both):
    theirs, ours = both
    tokens, _ = left_padded()
    assert_close(ours.logits(None, tokens), logits_of(theirs, tokens, np.ones(tokens.shape, bool)))


@pytest.mark.parity
def test_padding_on_the_right(both):
    theirs, ours = both
    tokens, valid = left_padded()
    valid = valid[:, ::-1]
    assert_close(ours.logits(None, tokens)[valid], logits_of(theirs, tokens, valid)[valid])


@pytest.mark.parity
def test_padding_on_the_left_and_the_cache(both):
    theirs, ours = both
    tokens, valid = left_padded()
    assert_close(logits_in_parts(ours, tokens, valid), logits_of(theirs, tokens, valid)[:, 15:])


@pytest.mark.parity
def test_greedy_continuations(both):
    theirs, ours = both
    expected = make_language_models.continuations_of(theirs, *left_padded())
    np.testing.assert_array_equal(continuations(ours, *left_padded()), expected)
    assert len(np.unique(expected)) > 2, 'A model that repeats itself proves little.'


@pytest.fixture(scope='module')
def golden_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp('golden')
    write(language_model_files.convert, str(FOLDER / 'golden_llama3'), str(folder / 'bundle'))
    return flamingo_jax.checkpoints.bundle.read(folder / 'bundle')


def test_words_in_and_words_out(golden_bundle):
    ours = flamingo_jax.load(golden_bundle.path)
    encoded = [1, 8, 9, 10]  # <s> comes first, and three special tokens have the ids before those of the words.
    word = 2 + int(ours.logits(None, np.array([encoded]))[0, -1, 2:].argmax())  # Neither <pad> nor <s>.
    assert ours.generate('w5 w6 w7', max_new_tokens=1) == ours.tokenizer.decode([word]) == f'w{word - 3}'


def test_candidates_side_by_side_have_their_windows(tmp_path):
    write(language_model_files.convert, str(FOLDER / 'golden_gemma3'), str(tmp_path / 'bundle'))
    ours = flamingo_jax.load(tmp_path / 'bundle')
    prompt, candidates = 'w5 w6 w7 w8 w9 w10 w11 w12', ['w1 w2 w3', 'w4 w5 w6']
    for candidate, score in zip(candidates, ours.score(prompt, candidates), strict=True):
        ids = ours.tokenizer.encode(candidate)
        logits = ours.logits(None, np.array([[1, *ours.tokenizer.encode(prompt), *ids]]))[0, 8:-1]
        expected = jax.nn.log_softmax(logits)[np.arange(3), np.array(ids)].sum()
        np.testing.assert_allclose(score, expected, rtol=1e-4)


def test_shards_are_the_whole(tmp_path, golden_bundle):
    """Names without their prefix, old buffers, a repeated tied output: as in files of other years."""
    source = tmp_path / 'source'
    shutil.copytree(FOLDER / 'golden_llama3', source)
    tensors = safetensors.numpy.load_file(source / 'model.safetensors')
    (source / 'model.safetensors').unlink()
    tensors = {name.removeprefix('model.'): tensor for name, tensor in tensors.items()}
    tensors['layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(2, np.float32)
    index = {}
    for number in range(3):
        name = f'model-{number + 1:05}-of-00003.safetensors'
        part = dict(list(tensors.items())[number::3])
        safetensors.numpy.save_file(part, source / name)
        index |= dict.fromkeys(part, name)
    (source / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=index)))
    write(language_model_files.convert, str(source), str(tmp_path / 'bundle'))
    assert flamingo_jax.checkpoints.bundle.read(tmp_path / 'bundle').checksums == golden_bundle.checksums


@pytest.mark.parametrize('inside', ['language_model.model.', 'model.language_model.'])
def test_the_language_model_inside_a_gemma_that_sees(inside, tmp_path):
    source = tmp_path / 'source'
    shutil.copytree(FOLDER / 'golden_gemma3', source)
    text = json.loads((source / 'config.json').read_text())
    (source / 'config.json').write_text(json.dumps(dict(model_type='gemma3', text_config=text, eos_token_id=[1, 2])))
    tensors = safetensors.numpy.load_file(source / 'model.safetensors')
    tensors = {name.replace('model.', inside, 1): tensor for name, tensor in tensors.items()}
    tensors['vision_tower.vision_model.post_layernorm.weight'] = np.ones(3, np.float16)
    tensors['multi_modal_projector.mm_soft_emb_norm.weight'] = np.ones(3, np.float16)
    safetensors.numpy.save_file(tensors, source / 'model.safetensors')
    write(language_model_files.convert, str(FOLDER / 'golden_gemma3'), str(tmp_path / 'alone'))
    write(language_model_files.convert, str(source), str(tmp_path / 'inside'))
    bundles = [flamingo_jax.checkpoints.bundle.read(tmp_path / name) for name in ('alone', 'inside')]
    assert bundles[0].checksums == bundles[1].checksums and bundles[0].config == bundles[1].config
    assert bundles[1].tokenizer().ends == (1, 2)


@pytest.mark.parity
def test_torch_files_are_the_same(tmp_path, golden_bundle):
    torch = pytest.importorskip('torch')
    source = tmp_path / 'source'
    shutil.copytree(FOLDER / 'golden_llama3', source)
    tensors = safetensors.numpy.load_file(source / 'model.safetensors')
    (source / 'model.safetensors').unlink()
    torch.save({name: torch.tensor(tensor) for name, tensor in tensors.items()}, source / 'pytorch_model.bin')
    write(language_model_files.convert, str(source), str(tmp_path / 'bundle'))
    assert flamingo_jax.checkpoints.bundle.read(tmp_path / 'bundle').checksums == golden_bundle.checksums


@pytest.mark.parity
def test_the_tokenizer_of_opt_is_that_of_transformers(tmp_path):
    """Which comes as vocab.json and merges.txt."""
    transformers = pytest.importorskip('transformers')
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    special = ['<s>', '<pad>', '</s>', '<unk>']
    made.train_from_iterator(['some words, and some more words'] * 9, 280, special_tokens=special, show_progress=False)
    made.save_model(str(tmp_path))
    settings = dict(add_bos_token=True, bos_token='</s>', eos_token='</s>', pad_token='<pad>', unk_token='</s>')
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(settings | dict(tokenizer_class='GPT2Tokenizer')))
    ours = open_tokenizer(tmp_path, dict(model_type='opt', bos_token_id=2, eos_token_id=2, pad_token_id=1), 288)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ('some more words', ' and  Zwölf\n狐', 'words</s>words'):
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
        assert ours.decode(ours.encode(text)) == text.replace('</s>', '')
    assert (ours.begin, ours.ends, ours.pad, ours.vocab_size) == ((2,), (2,), 1, 288)


def change_json(path: pathlib.Path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensors(source: pathlib.Path, change):
    tensors = safetensors.numpy.load_file(source / 'model.safetensors')
    change(tensors)
    safetensors.numpy.save_file(tensors, source / 'model.safetensors')


def without_a_shard(source):
    names = safetensors.numpy.load_file(source / 'model.safetensors')
    (source / 'model.safetensors').rename(source / 'model-1.safetensors')
    index = dict.fromkeys(names, 'model-1.safetensors') | {'lm_head.weight': 'model-2.safetensors'}
    (source / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=index)))


def without_its_end(source):
    (source / 'generation_config.json').unlink()
    change_json(source / 'config.json', eos_token_id=None)


def cut(source):
    content = (source / 'model.safetensors').read_bytes()
    (source / 'model.safetensors').write_bytes(content[:-1000])


def test_roles_by_name(tmp_path):
    """As in the files of MPT-1B, whose config.json tells no ids."""
    source = tmp_path / 'source'
    shutil.copytree(FOLDER / 'golden_llama3', source)
    without_its_end(source)
    (source / 'tokenizer_config.json').write_text(json.dumps(dict(eos_token=dict(content='</s>'), pad_token='<pad>')))
    tokenizer = open_tokenizer(source, {}, 96)
    assert (tokenizer.ends, tokenizer.pad, tokenizer.bos, tokenizer.begin) == ((2,), 0, 2, (1,))


def byte_level(folder: pathlib.Path, *added: str, **settings):
    """A tokenizer.json of 256 bytes and these tokens, which adds nothing to a text, and its settings."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    made.add_special_tokens(list(added))
    (folder / 'tokenizer.json').write_text(made.to_str())
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings))


@pytest.mark.parametrize(
    'of, adds, begins',
    [
        ('LlamaTokenizerFast', True, (256,)),  # As in DeepSeek's distilled models.
        ('LlamaTokenizerFast', False, ()),
        ('PreTrainedTokenizerFast', True, ()),
    ],
)
def test_a_text_begins_as_transformers_has_it(tmp_path, of, adds, begins):
    byte_level(tmp_path, '<begin>', '<end>', tokenizer_class=of, add_bos_token=adds, bos_token=dict(content='<begin>'))
    ours = open_tokenizer(tmp_path, dict(bos_token_id=256, eos_token_id=257), 300)
    assert (ours.begin, ours.bos, ours.ends) == (begins, 256, (257,))


def test_a_negative_id_is_none(tmp_path):
    """As in configs of fine-tuned LLaMAs, whose tokenizer has no padding: -1 would be the last row of the logits."""
    byte_level(tmp_path, '<begin>', '<end>')
    ours = open_tokenizer(tmp_path, dict(bos_token_id=256, eos_token_id=[-1, 257], pad_token_id=-1), 300)
    assert (ours.bos, ours.ends, ours.pad) == (256, (257,), 257)
    with pytest.raises(ValueError, match='Add eos_token_id to config.json'):
        open_tokenizer(tmp_path, dict(eos_token_id=-1), 300)


def test_a_token_that_has_no_row_is_none(tmp_path):
    """Gemma 3 without vision has `<image_soft_token>` after its last row."""
    byte_level(tmp_path, '<end>', '<image_soft_token>')
    ours = open_tokenizer(tmp_path, dict(eos_token_id=256), 257)
    assert ours.vocab_size == 257 and max(ours.encode('<image_soft_token>')) < 256

    with pytest.raises(ValueError, match='padded with the token 256, but the language model has 256'):
        open_tokenizer(tmp_path, dict(eos_token_id=256), 256)  # That of a chat, beside the model before it.


def test_files_that_do_not_say_all_are_refused(tmp_path):
    (tmp_path / 'tokenizer.model').write_bytes(train(iter(['some words'] * 20), 280))
    (tmp_path / 'added_tokens.json').write_text(json.dumps({'<|im_end|>': 280}))
    with pytest.raises(ValueError, match=r"added_tokens.json has \['<|im_end|>'\].*save_pretrained"):
        open_tokenizer(tmp_path, dict(eos_token_id=280), 281)
    (tmp_path / 'tokenizer.model').unlink()
    (tmp_path / 'vocab.json').write_text('{"a": 0}')
    (tmp_path / 'merges.txt').write_text('')
    with pytest.raises(ValueError, match="how a model of type 'qwen2' splits a text. .*save_pretrained"):
        open_tokenizer(tmp_path, dict(model_type='qwen2', eos_token_id=0), 1)


UP = 'model.layers.1.mlp.up_proj.weight'


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (without_a_shard, r"does not have 1 of 2 shards: \['model-2.safetensors'\]. Download"),
        (cut, 'model.safetensors is not a complete safetensors file.*Download it again'),
        (lambda s: (s / 'model.safetensors').unlink(), 'neither model.safetensors nor pytorch_model.bin'),
        (lambda s: (s / 'config.json').unlink(), 'no config.json. Give'),
        (lambda s: (s / 'config.json').write_text('{'), 'config.json is not JSON.*Download'),
        (lambda s: (s / 'tokenizer.json').unlink(), 'no tokenizer.json and no tokenizer.model. Download'),
        (lambda s: (s / 'tokenizer.json').write_text('{}'), 'tokenizer.json cannot be read'),
        (without_its_end, 'no eos_token_id in config.json.*Add eos_token_id to config.json'),
        (
            lambda s: change_json(s / 'config.json', model_type='mamba'),
            "config.json: the model_type 'mamba' is not known",
        ),
        (lambda s: change_json(s / 'config.json', hidden_act='mish'), "the activation 'mish' is not known"),
        (lambda s: change_json(s / 'config.json', mlp_bias=True), 'mlp_bias = True is not supported'),
        (
            lambda s: change_json(s / 'config.json', rope_parameters=dict(rope_type='yarn', factor=2.0)),
            "config.json: the rope scaling 'yarn' is not supported. Supported: default, linear, llama3",
        ),
        (lambda s: change_json(s / 'config.json', quantization_config=dict(bits=4)), 'quantized. Give the folder'),
        (
            lambda s: change_json(s / 'config.json', vocab_size=90),
            'tokenizer.json has 96 tokens.*90.*Give the tokenizer',
        ),
        (
            lambda s: change_json(s / 'config.json', intermediate_size=88),
            r'source.*mlp.down_proj.weight has shape \(24, 80\), not \(24, 88\).*Give the config.json',
        ),
        (
            lambda s: change_json(s / 'config.json', num_hidden_layers=1),
            rf'unused: {UP}.*Give the config.json',
        ),
        (lambda s: change_tensors(s, lambda t: t.pop(UP)), rf'missing: {UP} \(80, 24\)'),
        (
            lambda s: change_tensors(s, lambda t: t.update({UP: t[UP].astype(np.float32)})),
            f'{UP} is of float32, but that of another block of float16',
        ),
        (lambda s: change_tensors(s, lambda t: t.update({UP: t[UP].astype(np.int8)})), f'{UP} is of int8'),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(damage, message, tmp_path):
    shutil.copytree(FOLDER / 'golden_llama3', tmp_path / 'source')
    damage(tmp_path / 'source')
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        write(language_model_files.convert, str(tmp_path / 'source'), str(tmp_path / 'bundle'))
    assert [path.name for path in tmp_path.iterdir()] == ['source']
