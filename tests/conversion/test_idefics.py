"""transformers' IDEFICS and its conversion: logits, greedy, beams, all kinds of prompts; both ways; bad folders."""

import dataclasses
import io
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy
import sentencepiece

from flamingo_jax.checkpoints import bundle, export
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import idefics
from flamingo_jax.conversion.hugging_face import open_tensors
from flamingo_jax.conversion.idefics import NEW_TOKENS
from flamingo_jax.inference import pretrained
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import encode_prompt
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.vision.vit import CLIP_MEAN, CLIP_STD
from flamingo_jax.tasks.nonce import nonces
from tests import peers
from tests.golden.make_peers import SEQUENCES as GOLDEN_SEQUENCES
from tests.golden.make_peers import pixels

pytestmark = pytest.mark.usefixtures('quick_compilation')

TOLERANCE = 1e-4  # Relative to the largest logit.
AROUND, IMG, EOU = 94, 95, 96
CASES = {
    'published': dict(),
    'no resampler, vector alphas': dict(resampler=False, alpha='vector'),
    'no norms, instruct': dict(qk_norms=False, every=3, depth=3, extra=3),
}


@pytest.fixture(scope='module', params=CASES)
def both(request, tmp_path_factory):
    """(the original, ours, the folder)."""
    pytest.importorskip('torch')
    pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('idefics')
    model = peers.idefics(folder / 'source', **CASES[request.param])
    write(idefics.convert, str(folder / 'source'), str(folder / 'bundle'))
    return model, pretrained.load(folder / 'bundle'), folder


def row_of(ours) -> str:
    """Of docs/checkpoints.md."""
    c = ours.config
    parts = [
        'resampler' if c.resampler else 'no resampler',
        'vector alphas' if c.xattn.vector_alphas else 'scalar alphas',
    ]
    parts += ['q/k norms'] * c.xattn.qk_norms + ['end of utterance'] * (c.extra_tokens[-1] == '<end_of_utterance>')
    return f'IDEFICS: {", ".join(parts)}'


def inputs(ours, images, ids, valid=None):
    """What the original takes; its processor's mask shows each token the last image before it."""
    import torch

    ids = torch.tensor(ids).long()
    seen = (ids == IMG).cumsum(1)
    which = torch.arange(1, images.shape[1] + 1)
    mask = torch.ones_like(ids) if valid is None else torch.tensor(valid)
    return dict(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=peers.standardised(images[:, :, 0], ours.config.vision),
        image_attention_mask=(seen[..., None] == which).long(),
    )


TAG = [AROUND, IMG, AROUND]
SEQUENCES = {
    'one image': [[1, *TAG, 5, 6, 7, 8]],
    'several images': [[1, *TAG, 5, 6, *TAG, IMG, AROUND, 7, 8, 9, *TAG, 10, 11]],
    'text before the first image': [[1, 5, 6, 7, *TAG, 7, 8, 9]],
    'different numbers of images': [[1, *TAG, 5, 6, *TAG, 7, 8, 9], [1, 4, *TAG, 15, 16, 17, 18, 19, 20, 21]],
    'more images than in training': [[1, *(token for i in range(9) for token in (*TAG, 20 + i))]],
}


@pytest.mark.parity
@pytest.mark.parametrize('case', SEQUENCES)
def test_logits(both, case, record_property):
    import torch

    model, ours, _ = both
    ids = np.array(SEQUENCES[case], np.int32)
    images = peers.random_images(len(ids), int((ids == IMG).sum(1).max()))
    with torch.no_grad():
        expected = model(**inputs(ours, images, ids)).logits.numpy()
    difference = peers.assert_same_logits(ours, images, ids, expected, TOLERANCE)
    print(f'{case}: largest difference {difference:.1e}')
    record_property('row', row_of(ours))
    record_property('difference', difference)


@pytest.mark.parity
@pytest.mark.parametrize('beams', [1, 3])
def test_generation(both, beams, record_property):
    """Prompts as a user writes them, through the original's own processor; they differ in length and in images."""
    import torch
    import transformers

    model, ours, folder = both
    rng = np.random.default_rng(5)
    p = [
        PIL.Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
        for shape in ((60, 42, 3), (30, 50, 3), (42, 42, 3))
    ]
    prompts = [
        ['w1 w2', p[0], 'w3 ', p[1], p[2], ' w4 w5'],
        [p[1], 'w6 w7 w8'],
        ['w9', 'w10', p[2], 'w11 w12'],
        ['w13 w14 w15 w16'],
    ]
    record_property('row', row_of(ours))
    record_property('equal', 'beams' if beams > 1 else 'greedy')
    got = ours.generate(prompts, max_new_tokens=12, num_beams=beams)
    names = list(ours.tokenizer.extra_tokens)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / 'source' / 'tokenizer.json'),
        bos_token='<s>',
        eos_token='</s>',
        pad_token='<pad>',
        unk_token='<unk>',
        padding_side='left',
        additional_special_tokens=names,
    )
    processor = transformers.IdeficsProcessor(transformers.IdeficsImageProcessorPil(image_size=42), fast)
    x = processor(text=prompts, return_tensors='pt', add_end_of_utterance_token='<end_of_utterance>' in names)
    stops = [2] + ([EOU] if EOU in range(94, 94 + len(names)) else [])
    with torch.no_grad():
        banned = sorted({0, 1, AROUND, IMG} - set(stops))
        how = dict(num_beams=beams, length_penalty=0.0, eos_token_id=stops, suppress_tokens=banned, do_sample=False)
        out = model.generate(**x, max_new_tokens=12, pad_token_id=0, **how)
    expected = []
    for row in out[:, x['input_ids'].shape[1] :].tolist():
        end = min([row.index(stop) for stop in stops if stop in row], default=len(row))
        expected.append(ours.tokenizer.decode(row[:end]).strip())
    assert got == expected
    assert len(set(got)) > 1


@pytest.mark.parity
def test_export_is_the_folder_again(both, record_property):
    import transformers

    _, ours, folder = both
    record_property('row', row_of(ours))
    record_property('equal', 'export')
    out = folder / 'exported'
    export.to_idefics(str(folder / 'bundle'), str(out))
    before, after = open_tensors(folder / 'source'), open_tensors(out)
    assert set(before) == set(after)
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert type(transformers.AutoModelForImageTextToText.from_pretrained(out)).__name__ == 'IdeficsForVisionText2Text'
    write(idefics.convert, str(out), str(folder / 'again'))
    assert bundle.read(folder / 'again').checksums == ours.checksums
    assert json.loads((folder / 'again' / 'config.json').read_text())['model'] == ours.config.to_json()


def llama_pieces() -> bytes:
    """A SentencePiece model of 400 pieces with what is special in LLaMA's: its control tokens, and no padding."""
    rng, model = np.random.default_rng(0), io.BytesIO()
    lines = (f'{a} Output: {b}' for a, b in zip(nonces(rng, 3000), nonces(rng, 3000), strict=True))
    how = dict(normalization_rule_name='identity', remove_extra_whitespaces=False, minloglevel=1)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=400, model_type='bpe', byte_fallback=True, **how
    )
    return model.getvalue()


@pytest.mark.parity
@pytest.mark.parametrize('file', ['tokenizer.json', 'tokenizer.model'])
def test_transformers_opens_the_processor_of_an_export(file, tmp_path, record_property):
    record_property('row', 'an exported IDEFICS, as opened by AutoProcessor')
    pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    peers.idefics(tmp_path / 'source', depth=2, extra=3, words=396)
    if file == 'tokenizer.model':
        (tmp_path / 'source' / 'tokenizer.json').unlink()
        (tmp_path / 'source' / file).write_bytes(llama_pieces())
    write(idefics.convert, str(tmp_path / 'source'), str(tmp_path / 'bundle'))
    export.to_idefics(str(tmp_path / 'bundle'), str(tmp_path / 'exported'))
    ours = pretrained.load(tmp_path / 'bundle')
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / 'exported', backend='pil')
    assert type(processor).__name__ == 'IdeficsProcessor'
    rng = np.random.default_rng(5)
    a, b = (PIL.Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for shape in ((60, 42, 3), (30, 50, 3)))
    for prompt in (['w1  w2', a, 'w3 dax\n', b, b, ' bodex Output:', '\nw5 é'], [b, 'w6'], ['w7']):
        x = processor(text=[prompt], return_tensors='pt', add_end_of_utterance_token=True)
        tokens, images = encode_prompt(prompt, ours.tokenizer, ours.image_format)
        assert x['input_ids'][0].tolist() == tokens
        expected = [peers.standardised(frames[0], ours.config.vision).numpy() for frames in images]
        for got, image in zip(x['pixel_values'][0].numpy(), expected, strict=bool(expected)):
            np.testing.assert_allclose(got, image, atol=1e-5)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """(folder, tensors) of the IDEFICS in tests/golden/peers.npz."""
    folder = tmp_path_factory.mktemp('golden') / 'idefics'
    return folder, peers.write_golden(folder, 'idefics')


def test_it_says_what_the_original_said(source):
    config, params, *_ = idefics.convert(str(source[0]))
    golden, model, params = peers.golden(), Flamingo(config), jax.tree.map(jnp.asarray, params)
    images, ids = pixels(), np.array(GOLDEN_SEQUENCES, np.int32)
    logits = np.asarray(jax.jit(model.logits)(params, images, ids))
    expected = golden['idefics_logits']
    assert np.abs(logits - expected).max() < TOLERANCE * np.abs(expected).max()
    got = peers.answers(model, params, images, ids, 1, [2], (0, 1, AROUND, IMG))
    np.testing.assert_array_equal(got, golden['idefics_greedy'])


def test_the_command_and_its_inverse(source, tmp_path):
    folder, state = source
    write(idefics.convert, str(folder), str(tmp_path / 'bundle'))
    export.to_idefics(str(tmp_path / 'bundle'), str(tmp_path / 'again'))
    again = open_tensors(tmp_path / 'again')
    assert set(again) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    before, after = (json.loads((path / 'config.json').read_text()) for path in (folder, tmp_path / 'again'))
    assert idefics.config_of(before) == idefics.config_of(after)
    names = [
        [(t['id'], t['content']) for t in json.loads((p / 'tokenizer.json').read_text())['added_tokens']]
        for p in (folder, tmp_path / 'again')
    ]
    assert names[0] == names[1]
    tokenizer = bundle.read(tmp_path / 'bundle').tokenizer()
    assert (tokenizer.around, tokenizer.image_tag, tokenizer.eoc) == (AROUND, (IMG,), None)
    images, texts = (
        json.loads((tmp_path / 'again' / name).read_text())
        for name in ('preprocessor_config.json', 'tokenizer_config.json')
    )
    assert images['processor_class'] == texts['processor_class'] == 'IdeficsProcessor'
    assert (images['image_size'], images['image_num_channels']) == (42, 3)
    assert (tuple(images['image_mean']), tuple(images['image_std'])) == (CLIP_MEAN, CLIP_STD)
    named = [texts[f'{role}_token'] for role in ('bos', 'eos', 'pad', 'unk')]
    assert named == ['<s>', '</s>', '<pad>', '<unk>'] and texts['additional_special_tokens'] == list(NEW_TOKENS[:2])
    with pytest.raises(ValueError, match='cannot be written as an OpenFlamingo: .*resampler.activation'):
        export.to_open_flamingo(str(tmp_path / 'bundle'), str(tmp_path / 'x.pt'))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['again', 'bundle']


def test_an_export_with_a_sentencepiece_model_has_the_tokens_that_are_not_in_it(source, tmp_path):
    config = idefics.convert(str(source[0])).config
    pieces = llama_pieces()
    idefics.write_processor(tmp_path, config, Tokenizer(pieces, 'token', extra_tokens=NEW_TOKENS[:2]))
    assert (tmp_path / 'tokenizer.model').read_bytes() == pieces
    assert json.loads((tmp_path / 'added_tokens.json').read_text()) == {NEW_TOKENS[0]: 400, NEW_TOKENS[1]: 401}
    texts = json.loads((tmp_path / 'tokenizer_config.json').read_text())
    assert texts['tokenizer_class'] == 'LlamaTokenizer' and texts['legacy']
    assert [texts[f'{role}_token'] for role in ('bos', 'eos', 'pad', 'unk')] == ['<s>', '</s>', '<unk>', '<unk>']


@pytest.mark.parametrize('field, value', [('gates', False), ('only_last_image', False)])
def test_a_model_that_is_no_idefics_is_not_exported(source, field, value):
    config = idefics.convert(str(source[0])).config
    other = dataclasses.replace(config, xattn=dataclasses.replace(config.xattn, **{field: value}))
    with pytest.raises(ValueError, match=f'as an IDEFICS: xattn.{field} = {value}, not {not value}[.]'):
        idefics.fields_of(other)


def test_prompts_are_written_as_by_the_original(source):
    config, _, tokenizer, *_ = idefics.convert(str(source[0]))
    a, b = peers.random_images(1, 2)[0, :, 0]
    tokens, frames = encode_prompt([' w1 ', a, b, 'w2', 'w3', a], tokenizer, ImageFormat(42, config.vision.fit))
    assert tokens == [1, 5, AROUND, IMG, AROUND, IMG, AROUND, *tokenizer.encode('w2w3'), AROUND, IMG, AROUND]
    assert len(frames) == 3


def test_bad_folders_are_named_and_leave_nothing(source, tmp_path):
    folder, state = source
    bad = tmp_path / 'bad'
    shutil.copytree(folder, bad)
    fields = json.loads((bad / 'config.json').read_text())

    def refuses(match, error=ValueError, state=state, **changed):
        safetensors.numpy.save_file(state, bad / 'model.safetensors')
        (bad / 'config.json').write_text(json.dumps(fields | changed))
        with pytest.raises(error, match=match) as caught:
            write(idefics.convert, str(bad), str(tmp_path / 'out'))
        assert str(bad) in str(caught.value) and sorted(path.name for path in tmp_path.iterdir()) == ['bad']

    refuses("model_type 'llama', not 'idefics'.*Give a folder", model_type='llama')
    refuses(
        'missing: model.norm.weight',
        state={name: value for name, value in state.items() if name != 'model.norm.weight'},
    )
    refuses('unused: model.norm.bias', state=state | {'model.norm.bias': np.zeros(64, np.float32)})
    refuses(r'model.norm.weight has shape \(63,\)', state=state | {'model.norm.weight': np.zeros(63, np.float32)})
    refuses('unused: model.perceiver_resampler', use_resampler=False)
    refuses('not a multiple of cross_layer_interval = 3', cross_layer_interval=3)
    refuses('additional_vocab_size = 3', additional_vocab_size=3)
    one = 'model.layers.1.self_attn.q_proj.weight'
    refuses(
        f'{one} is of float16, but that of another block of float32', state=state | {one: state[one].astype(np.float16)}
    )
    for name in fields:
        for value in ('x', -1, [], {'a': 1}):
            (bad / 'config.json').write_text(json.dumps(fields | {name: value}))
            try:
                write(idefics.convert, str(bad), str(tmp_path / 'out'))
            except ValueError as error:
                assert str(bad) in str(error)
            else:  # Of no meaning to the weights, such as transformers_version.
                shutil.rmtree(tmp_path / 'out')
    (bad / 'tokenizer.json').unlink()
    refuses('no tokenizer.json', FileNotFoundError)
