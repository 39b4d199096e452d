"""transformers' BLIP-2 with an OPT and its conversion: logits, answers, prompts, pixels; both ways; bad folders."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from flamingo_jax.checkpoints import bundle, export
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import blip2
from flamingo_jax.conversion.hugging_face import open_tensors
from flamingo_jax.inference import pretrained
from flamingo_jax.inputs.images import ImageFormat, to_frames
from flamingo_jax.inputs.layout import Layout
from flamingo_jax.inputs.prompts import encode_prompt
from flamingo_jax.model.connectors.bert_qformer import BertQFormerConfig
from tests import peers

pytestmark = pytest.mark.usefixtures('quick_compilation')

TOLERANCE = 1e-4  # Relative to the largest logit.
IMG, R = 94, 5
FIELDS = dict(
    model_type='blip-2',
    image_token_index=IMG,
    num_query_tokens=R,
    vision_config=dict(hidden_size=48, intermediate_size=90, num_hidden_layers=3, num_attention_heads=3, image_size=42),
    qformer_config=dict(hidden_size=36, intermediate_size=50, num_hidden_layers=4, num_attention_heads=3),
    text_config=dict(
        model_type='opt',
        vocab_size=104,
        hidden_size=64,
        word_embed_proj_dim=64,
        ffn_dim=90,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    ),
)


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """(the original, ours, the folder)."""
    pytest.importorskip('torch')
    pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('blip2')
    model = peers.blip2(folder / 'source')
    write(blip2.convert, str(folder / 'source'), str(folder / 'bundle'))
    export.to_blip2(str(folder / 'bundle'), str(folder / 'exported'))
    return model, pretrained.load(folder / 'bundle'), folder


def used(tensor: np.ndarray, name: str) -> np.ndarray:
    """What is read of a tensor: the first two positions of an OPT are padding's, and are zeros in an export."""
    return tensor[2:] if name.endswith('embed_positions.weight') else tensor


def prompts():
    """(prompts as a user writes them, their images, their texts): the processor takes one image before each text."""
    rng = np.random.default_rng(5)
    shapes = (60, 42, 3), (30, 50, 3), (42, 42, 3)
    images = [PIL.Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)) for shape in shapes]
    texts = ['w1 w2 w3 w4 w5', 'w6 w7', 'w9 w10 w11 w12']
    return [[image, text] for image, text in zip(images, texts, strict=True)], images, texts


@pytest.mark.parity
def test_logits(both, record_property):
    import torch

    model, ours, _ = both
    tag = [IMG] * R
    rows = [[*tag, 1, 5, 6, 7], [*tag, *tag, 1, 5, 9, *tag, 6, 7, 8]]
    length = max(map(len, rows))
    ids = np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
    images, count = peers.random_images(2, 3), [1, 3]
    shown = np.concatenate([row[:n, 0] for row, n in zip(images, count, strict=True)])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    with torch.no_grad():
        x = peers.standardised(shown, ours.config.vision)
        expected = model(pixel_values=x, input_ids=torch.tensor(ids).long(), attention_mask=mask).logits.numpy()
    got, used = np.asarray(ours.logits(images, ids)), np.asarray(mask, bool)
    difference = float(np.abs(got - expected)[used].max() / np.abs(expected).max())
    print(f'largest difference {difference:.1e}')
    assert difference < TOLERANCE
    assert (
        np.abs(np.asarray(ours.logits(255 - images, ids)) - got)[used].max() > 100 * TOLERANCE * np.abs(expected).max()
    )
    record_property('row', 'BLIP-2 with an OPT')
    record_property('difference', difference)


@pytest.mark.parity
@pytest.mark.parametrize('beams', [1, 3])
def test_answers_pixels_and_tokens_are_the_originals(both, beams):
    """By its own processor, from the folder that was exported."""
    import torch
    import transformers

    model, ours, folder = both
    given, images, texts = prompts()
    processor = transformers.AutoProcessor.from_pretrained(folder / 'exported', backend='pil')
    expected = []
    for prompt, image, text in zip(given, images, texts, strict=True):
        x = processor(images=[image], text=[text], return_tensors='pt')
        tokens, frames = encode_prompt(prompt, ours.tokenizer, ours.image_format)
        assert x['input_ids'][0].tolist() == tokens
        pixels = peers.standardised(frames[0], ours.config.vision).numpy()
        np.testing.assert_allclose(x['pixel_values'].numpy(), pixels, atol=1e-6)
        how = dict(num_beams=beams, length_penalty=0.0, suppress_tokens=list(ours.banned), do_sample=False)
        with torch.no_grad():
            out = model.generate(**x, max_new_tokens=12, eos_token_id=2, pad_token_id=0, **how)
        ids = out[0].tolist()
        ids = ids[len(tokens) :] if ids[: len(tokens)] == tokens else ids
        expected.append(ours.tokenizer.decode(ids[: ids.index(2) if 2 in ids else None]).strip())
    got = ours.generate(given, max_new_tokens=12, num_beams=beams)
    assert got == expected and len(set(got)) > 1


@pytest.mark.parity
def test_export_is_the_folder_again(both):
    import transformers

    model, ours, folder = both
    before, after = open_tensors(folder / 'source'), open_tensors(folder / 'exported')
    assert set(before) == set(after)
    for name, value in before.items():
        np.testing.assert_array_equal(*map(used, (after[name], value), [name] * 2), err_msg=name)
    again = transformers.AutoModelForImageTextToText.from_pretrained(folder / 'exported')
    assert type(again).__name__ == 'Blip2ForConditionalGeneration'
    theirs = dict(again.named_parameters())
    for name, value in model.named_parameters():
        pair = (used(x.detach().numpy(), name) for x in (theirs[name], value))
        np.testing.assert_array_equal(*pair, err_msg=name)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """(folder, tensors, bundle) of a tiny one with random weights."""
    folder = tmp_path_factory.mktemp('blip2') / 'source'
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps(FIELDS))
    tensors = blip2.tensors_of(blip2.config_of(FIELDS, {}))
    state = {tensor.name: peers.value(tensor.name, tensor.shape) for tensor in tensors}
    safetensors.numpy.save_file(state, folder / 'model.safetensors')
    peers.write_tokenizer(folder, ('<image>',))
    write(blip2.convert, str(folder), str(folder.parent / 'bundle'))
    return folder, state, folder.parent / 'bundle'


def test_the_command_and_its_inverse(source, tmp_path):
    folder, state, made = source
    export.to_blip2(str(made), str(tmp_path / 'again'))
    again = open_tensors(tmp_path / 'again')
    assert set(again) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(*map(used, (again[name], value), [name] * 2), err_msg=name)
    write(blip2.convert, str(tmp_path / 'again'), str(tmp_path / 'bundle'))
    one, two = bundle.read(made), bundle.read(tmp_path / 'bundle')
    assert one.checksums == two.checksums and one.config == two.config
    assert two.tokenizer().image_tag == (IMG,) * R and two.tokenizer().begin_after_images
    with pytest.raises(ValueError, match='cannot be written as a LLaVA'):
        export.to_llava(str(made), str(tmp_path / 'x'))
    with pytest.raises(ValueError, match='as a BLIP-2: vision.fit'):
        blip2.fields_of(dataclasses.replace(one.config, vision=dataclasses.replace(one.config.vision, fit='crop')))


def test_images_at_the_beginning_come_before_its_token(source):
    tokenizer = bundle.read(source[2]).tokenizer()
    a, b = peers.random_images(1, 2)[0, :, 0]
    tag = [IMG] * R
    for prompt, expected in (
        ([a], [*tag, 1]),
        ([a, 'w1', b], [*tag, 1, 5, *tag]),
        ([a, b, 'w1'], [*tag, *tag, 1, 5]),
        (['w1', a, 'w2'], [1, 5, *tag, 6]),
    ):
        assert encode_prompt(prompt, tokenizer, ImageFormat(42, 'squash'))[0] == expected
    layout = Layout(tokenizer)
    for _ in range(2):
        layout.image()
    layout.text('w1', weight=1.0)
    assert layout.begins == [0, R] and layout.weights == [0.0] * (2 * R + 1) + [1.0]


def test_images_are_seen_and_prompts_that_begin_alike_are_answered_as_each_alone(source):
    ours = pretrained.load(source[2])
    a, b, c = peers.random_images(1, 3)[0, :, 0]
    many = ' '.join(f'w{i}' for i in range(40))
    given = [[a, many, b, ' w1'], [a, many, c, ' w1'], [c, ' w2 w3']]
    assert ours.generate(given, 5) == [pretrained.load(source[2]).generate(prompt, 5) for prompt in given]
    ids = np.array([[*[IMG] * R, 1, 5, 6]])
    shown = [ours.logits(x[None, None, None], ids) for x in (a, b)]
    assert np.abs(shown[0] - shown[1]).max() > 1e-2
    assert to_frames(PIL.Image.fromarray(a).resize((80, 30)), 42, ours.config.vision.fit).shape == (1, 42, 42, 3)


def test_the_published_shape():
    """Of Salesforce/blip2-opt-2.7b: its Q-Former has 105M parameters, its trunk 986M."""
    text = dict(vocab_size=50_304, hidden_size=2560, ffn_dim=10_240, num_hidden_layers=32, num_attention_heads=32)
    fields = dict(model_type='blip-2', image_token_index=50_265, text_config=text | dict(word_embed_proj_dim=2560))
    config = blip2.config_of(fields, {})
    assert config.resampler == BertQFormerConfig() and config.image_tag == (50_265,) * 32 and config.image_size == 224
    parts = dict.fromkeys(('vision', 'resampler', 'lm'), 0)
    for name, (part, size) in {t.name: (t.path[0], int(np.prod(t.shape))) for t in blip2.tensors_of(config)}.items():
        parts[part] += size
        assert name
    assert (round(parts['vision'] / 1e6), round(parts['resampler'] / 1e6)) == (986, 107)
    assert blip2.config_of(blip2.fields_of(config), {}) == config


def test_bad_folders_are_named_and_leave_nothing(source, tmp_path):
    folder, state, _ = source
    bad = tmp_path / 'bad'
    shutil.copytree(folder, bad)

    def refuses(match, error=ValueError, state=state, images=None, **changed):
        safetensors.numpy.save_file(state, bad / 'model.safetensors')
        (bad / 'config.json').write_text(json.dumps(FIELDS | changed))
        (bad / 'preprocessor_config.json').write_text(json.dumps(images or {}))
        with pytest.raises(error, match=match) as caught:
            write(blip2.convert, str(bad), str(tmp_path / 'out'))
        assert str(bad) in str(caught.value) and sorted(path.name for path in tmp_path.iterdir()) == ['bad']

    text, seen, asks = (FIELDS[f'{part}_config'] for part in ('text', 'vision', 'qformer'))
    refuses("model_type 'llava', not 'blip-2'.*Give a folder", model_type='llava')
    without = {name: value for name, value in state.items() if name != 'query_tokens'}
    refuses('missing: query_tokens', state=without)
    refuses('unused: x', state=state | {'x': np.zeros(3, np.float32)})
    refuses("is a 't5', and only an opt", text_config=text | dict(model_type='t5'))
    refuses('no biases of queries', vision_config=seen | dict(qkv_bias=False))
    refuses('its Q-Former reads text', qformer_config=asks | dict(use_qformer_text_input=True))
    refuses('resampler.every is 3, which does not divide 4', qformer_config=asks | dict(cross_attention_frequency=3))
    refuses('image_token_index is 93, but in its tokenizer.json that is not <image>', image_token_index=93)
    refuses('image_token_index is None.*before 2024', image_token_index=None)
    refuses("the size .'height': 224", images=dict(size=dict(height=224, width=224)))
    for name in ('num_query_tokens', 'image_token_index', 'vision_config', 'qformer_config', 'text_config'):
        for value in ('x', -1, [1], {'a': 1}, dict(FIELDS['text_config'], hidden_size='x')):
            refuses('.', **{name: value}) if not (name.endswith('config') and value == {'a': 1}) else None
    (bad / 'config.json').write_text(json.dumps(FIELDS))
    (bad / 'tokenizer.json').unlink()
    refuses('no tokenizer.json', FileNotFoundError)


def test_every_parameter_of_the_connector_has_a_gradient(source):
    ours = pretrained.load(source[2])
    module = ours.config.resampler.module(ours.config.lm.width)
    features = jax.random.normal(jax.random.key(0), (1, 2, 1, 10, 48))
    grads = jax.grad(lambda p: (module.apply({'params': p}, features) ** 2).sum())(ours.params['resampler'])
    # A bias of the keys changes no softmax.
    leaves = [(jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(grads)]
    assert not [name for name, x in leaves if not np.any(x) and not name.endswith("_key']['bias']")]
