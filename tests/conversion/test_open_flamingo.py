"""OpenFlamingo 2.0 against its conversion: logits, greedy and beams, every kind of prompt; both ways; bad files."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from flamingo_jax.checkpoints import bundle, export
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import open_flamingo
from flamingo_jax.conversion.readers import read_torch_checkpoint
from flamingo_jax.conversion.writers import write_torch_checkpoint
from flamingo_jax.inference import pretrained
from flamingo_jax.model.flamingo import Flamingo
from tests import peers
from tests.golden.make_peers import SEQUENCES as GOLDEN_SEQUENCES
from tests.golden.make_peers import pixels

pytestmark = pytest.mark.usefixtures('quick_compilation')

TOLERANCE = 1e-4  # Relative to the largest logit.
EOC, IMG = 94, 95
KINDS = [('gpt_neox', 2, 4), ('llama', 4, 4), ('mpt', 1, 3), ('mosaic_gpt', 1, 3), ('opt', 2, 5)]


@pytest.fixture(scope='module', params=KINDS, ids=lambda kind: '-'.join(map(str, kind)))
def both(request, tmp_path_factory):
    """(the original, its trained tensors, ours, the folder)."""
    for module in ('torch', 'transformers', 'open_clip', 'open_flamingo'):
        pytest.importorskip(module)
    kind, every, depth = request.param
    folder = tmp_path_factory.mktemp(kind)
    model, state = peers.open_flamingo(folder, kind, every, depth, spare=2, pads=kind != 'opt')
    write(
        open_flamingo.convert, *(str(folder / name) for name in ('checkpoint.pt', 'bundle', 'lm', 'clip.pt')), heads=3
    )
    return model, state, pretrained.load(folder / 'bundle'), folder


def row_of(ours) -> str:
    """Of docs/checkpoints.md."""
    lm = ours.config.lm
    if lm.norm_query_key:
        return 'OpenFlamingo on MPT-1B'
    name = {'alibi': 'MPT', 'learned': 'OPT'}.get(lm.positions) or ('LLaMA' if lm.norm == 'rms' else 'GPT-NeoX')
    return f'OpenFlamingo on {name}'


def theirs(model, ours, images, ids, mask=None):
    import torch

    x = peers.standardised(images, ours.config.vision)
    mask = torch.ones_like(torch.tensor(ids)) if mask is None else torch.tensor(mask)
    with torch.no_grad():
        return model(vision_x=x, lang_x=torch.tensor(ids), attention_mask=mask).logits.numpy()


SEQUENCES = {
    'one image': [[IMG, 5, 6, 7, 8]],
    'several images': [[IMG, 5, 6, EOC, IMG, 7, 8, 9, EOC, IMG, 10, 11]],
    'text before the first image': [[5, 6, 7, EOC, IMG, 7, 8, 9]],
    'different numbers of images': [[IMG, 5, 6, EOC, IMG, 7, 8, 9], [4, IMG, 15, 16, EOC, 17, 18, 19]],
    'more images than in training': [[token for i in range(9) for token in (IMG, 20 + i, EOC)]],
}


@pytest.mark.parity
@pytest.mark.parametrize('case', SEQUENCES)
def test_logits(both, case, record_property):
    model, _, ours, _ = both
    ids = np.array(SEQUENCES[case], np.int32)
    images = peers.random_images(len(ids), int((ids == IMG).sum(1).max()))
    expected = theirs(model, ours, images, ids)
    difference = peers.assert_same_logits(ours, images, ids, expected, TOLERANCE)
    print(f'{case}: largest difference {difference:.1e}')
    record_property('row', row_of(ours))
    record_property('difference', difference)


@pytest.mark.parity
def test_a_model_of_todays_open_clip(tmp_path):
    for module in ('torch', 'transformers', 'open_clip', 'open_flamingo'):
        pytest.importorskip(module)
    model, _ = peers.open_flamingo(tmp_path, 'llama', normed=True)
    files = [str(tmp_path / name) for name in ('checkpoint.pt', 'bundle', 'lm', 'clip.pt')]
    write(open_flamingo.convert, *files, heads=3, norm_features=True)
    ours = pretrained.load(tmp_path / 'bundle')
    images, ids = peers.random_images(1, 1), np.array(SEQUENCES['one image'], np.int32)
    expected = theirs(model, ours, images, ids)
    got = np.asarray(ours.logits(images, ids))
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()


@pytest.mark.parity
@pytest.mark.parametrize('beams', [1, 3])
def test_generation(both, beams, record_property):
    """Prompts of a batch differ in length and in images.

    The original stops and bans as ours does, else nothing is changed.
    """
    import torch

    model, _, ours, _ = both
    frames = peers.random_images(1, 4)[0, :, 0]
    prompts = [
        [frames[0], 'w1 w2<|endofchunk|>', frames[1], 'w3'],
        ['w9 w8<EOC>', frames[2], 'w4 w5'],
        [frames[3], 'w6 w7 w8'],
        [frames[0], 'w10<EOC>', frames[1], 'w11<EOC>', frames[2], 'w12<EOC>', frames[3], 'w13'],
    ]
    record_property('row', row_of(ours))
    record_property('equal', 'beams' if beams > 1 else 'greedy')
    got = ours.generate(prompts, max_new_tokens=12, num_beams=beams)
    begin = list(ours.tokenizer.begin)
    w = 4
    ids = [
        [*begin, IMG, w + 1, w + 2, EOC, IMG, w + 3],
        [*begin, w + 9, w + 8, EOC, IMG, w + 4, w + 5],
        [*begin, IMG, w + 6, w + 7, w + 8],
        [*begin, IMG, w + 10, EOC, IMG, w + 11, EOC, IMG, w + 12, EOC, IMG, w + 13],
    ]
    images = np.zeros((4, 4, 1, 42, 42, 3), np.uint8)
    for row, shown in enumerate(([0, 1], [2], [3], [0, 1, 2, 3])):
        images[row, : len(shown), 0] = frames[shown]
    longest = max(map(len, ids))
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    padded = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
    with torch.no_grad():
        out = model.generate(
            vision_x=peers.standardised(images, ours.config.vision),
            lang_x=padded,
            attention_mask=mask,
            max_new_tokens=12,
            num_beams=beams,
            length_penalty=0.0,
            eos_token_id=[2, EOC],
            suppress_tokens=sorted(
                {0, 1, IMG, *range(IMG, model.lang_encoder.get_input_embeddings().weight.shape[0])} - {2}
            ),
            pad_token_id=0,
        )
    expected = []
    for row in out[:, longest:].tolist():
        end = min([row.index(stop) for stop in (2, EOC) if stop in row], default=len(row))
        expected.append(ours.tokenizer.decode(row[:end]).strip())
    assert got == expected
    assert len(set(got)) > 1


@pytest.mark.parity
def test_export_is_the_file_again(both, tmp_path, record_property):
    import torch

    model, state, ours, folder = both
    record_property('row', row_of(ours))
    record_property('equal', 'export')
    export.to_open_flamingo(str(folder / 'bundle'), str(tmp_path / 'again.pt'))
    loaded = torch.load(tmp_path / 'again.pt', weights_only=True)
    assert not model.load_state_dict(
        {k: v for k, v in loaded.items() if 'embed_out' not in k}, strict=False
    ).unexpected_keys
    exported = {name: value.numpy() for name, value in loaded.items()}
    assert {n: v.tobytes() for n, v in open_flamingo.export(ours.config, ours.params).items()} == {
        n: v.tobytes() for n, v in exported.items()
    }
    # What the frozen LM has too: OPT's positions, and the output where it is the embedding.
    repeated = {
        name for name in state if name.endswith('embed_positions.weight') or name == 'lang_encoder.lm_head.weight'
    }
    assert set(exported) == set(state) - repeated
    for name, value in exported.items():
        assert value.dtype == state[name].dtype
        np.testing.assert_array_equal(value, state[name], err_msg=name)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """(folder, checkpoint) of the OpenFlamingo in tests/golden/peers.npz."""
    folder = tmp_path_factory.mktemp('golden')
    return folder, peers.write_golden(folder, 'open_flamingo')


def read(folder, checkpoint='checkpoint.pt', lm='lm', clip='clip.safetensors'):
    return open_flamingo.convert(str(folder / checkpoint), str(folder / lm), str(folder / clip), heads=3)


def test_it_says_what_the_original_said(files):
    converted, golden = read(files[0]), peers.golden()
    assert converted.report == (
        f'{len(files[1])} trained tensors loaded, LM from {files[0] / "lm"}, trunk from '
        f'{files[0] / "clip.safetensors"}, '
        'nothing missing, nothing unused.'
    )
    model, params = Flamingo(converted.config), jax.tree.map(jnp.asarray, converted.params)
    images, ids = pixels(), np.array(GOLDEN_SEQUENCES, np.int32)
    logits = np.asarray(jax.jit(model.logits)(params, images, ids))
    expected = golden['open_flamingo_logits']
    assert np.abs(logits - expected).max() < TOLERANCE * np.abs(expected).max()
    got = peers.answers(model, params, images, ids, 3, [2, 94], (0, 1, 95, 96))
    np.testing.assert_array_equal(got, golden['open_flamingo_beams'])


def test_the_command_and_its_inverse(files, tmp_path):
    folder, state = files
    paths = [str(folder / name) for name in ('checkpoint.pt', 'lm', 'clip.safetensors')]
    write(open_flamingo.convert, paths[0], str(tmp_path / 'bundle'), *paths[1:], heads=3)
    export.to_open_flamingo(str(tmp_path / 'bundle'), str(tmp_path / 'again.pt'))
    again = read_torch_checkpoint(tmp_path / 'again.pt')
    assert set(again) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    found = bundle.read(tmp_path / 'bundle')
    trees = {name: found.params(name) for name in found.checksums}
    for name, change, trained in (
        ('trained', {}, ('vision', 'xattn')),
        ('standardised', dict(vision=trees['vision'] | dict(std=trees['vision']['std'] * 2)), ('xattn',)),
    ):
        of = dict(tokenizer=found.tokenizer(), image_tag=found.image_tag, card='', trained=trained)
        bundle.save(tmp_path / name, found.config, trees | change, **of)
        with pytest.raises(ValueError, match=name):
            export.to_open_flamingo(str(tmp_path / name), str(tmp_path / 'no.pt'))
        shutil.rmtree(tmp_path / name)
    with pytest.raises(ValueError, match='it has no vision, xattn, resampler'):
        export.to_open_flamingo('experiments/lm_dictionary', str(tmp_path / 'no.pt'))
    tokenizer = bundle.read(tmp_path / 'bundle').tokenizer()
    assert tokenizer.encode('w1<|endofchunk|>') == tokenizer.encode('w1<EOC>') == [5, EOC]
    assert tokenizer.image_tag == (IMG,) and tokenizer.pad == 96
    assert sorted(path.name for path in tmp_path.iterdir()) == ['again.pt', 'bundle']


def test_a_model_that_no_openflamingo_can_be_is_not_written(files):
    ours = read(files[0])
    c = ours.config
    for changes, said in (
        (
            dict(
                xattn=c.xattn.as_kind('gated_prefix'),
                resampler=dataclasses.replace(c.resampler, projects=True),
                image_tag=(IMG,) * c.media_tokens,
            ),
            "xattn.kind = 'gated_prefix', not 'gated_xattn'",
        ),
        # It would read the same matrices as other heads.
        (dict(xattn=dataclasses.replace(c.xattn, head_dim=32)), 'xattn.head_dim = 32, not 64'),
    ):
        with pytest.raises(ValueError, match=f'cannot be written as an OpenFlamingo: .*{said}'):
            open_flamingo.export(dataclasses.replace(c, **changes), ours.params)


def test_bad_files_are_named_and_leave_nothing(files, tmp_path):
    folder, state = files
    bad = tmp_path / 'bad'
    shutil.copytree(folder, bad)

    def refuses(match, error=ValueError):
        with pytest.raises(error, match=match) as caught:
            write(
                open_flamingo.convert,
                str(bad / 'checkpoint.pt'),
                str(tmp_path / 'out'),
                lm=str(bad / 'lm'),
                clip=str(bad / 'clip.safetensors'),
                heads=3,
            )
        assert str(bad) in str(caught.value) and sorted(path.name for path in tmp_path.iterdir()) == ['bad']

    def checkpoint(changed):
        write_torch_checkpoint(bad / 'checkpoint.pt', changed)

    gate = 'lang_encoder.model.layers.3.gated_cross_attn_layer.attn_gate'
    checkpoint({name: value for name, value in state.items() if name != 'perceiver.norm.bias'})
    refuses(r'missing: perceiver.norm.bias \(48,\).*Give the checkpoint.pt of an OpenFlamingo')
    checkpoint(state | {'perceiver.media_time_embs': np.zeros((4, 1, 48), np.float32)})
    refuses('unused: perceiver.media_time_embs')
    checkpoint(state | {'lang_encoder.model.layers.0.decoder_layer.mlp.up_proj.weight': np.zeros((2, 2), np.float32)})
    refuses('unused: lang_encoder.model.layers.0.decoder_layer')
    checkpoint(state | {'perceiver.layers.3.0.to_kv.weight': np.zeros((1024, 47), np.float32)})
    refuses(r'perceiver.layers.3.0.to_kv.weight has shape \(1024, 47\), not \(1024, 48\)')
    checkpoint({name: value for name, value in state.items() if name != gate})
    refuses('gated blocks come before the blocks .1. of the language model, which has 4')
    checkpoint({name: value for name, value in state.items() if 'embed_tokens' not in name})
    refuses('missing: lang_encoder.model.embed_tokens.weight')
    rows = state['lang_encoder.model.embed_tokens.weight']
    checkpoint(state | {'lang_encoder.model.embed_tokens.weight': np.concatenate([rows, rows])})
    refuses('embedding has 194 rows, but the tokenizer has 94 tokens')
    checkpoint(state | {'perceiver.latents': np.zeros(3, np.float32)})
    refuses(r'perceiver.latents has shape \(3,\), but must be a matrix')
    checkpoint({'layer1.weight': np.zeros(3, np.float32)})
    refuses('missing: lang_encoder.model.embed_tokens.weight')
    whole = (folder / 'checkpoint.pt').read_bytes()
    (bad / 'checkpoint.pt').write_bytes(whole[: len(whole) // 2])
    refuses('truncated or damaged')
    (bad / 'checkpoint.pt').write_bytes(whole)
    clip = (folder / 'clip.safetensors').read_bytes()
    (bad / 'clip.safetensors').write_bytes(clip[:-9])
    refuses('not a complete safetensors file')
    safetensors.numpy.save_file({'conv1.weight': np.zeros((64, 3, 7, 7), np.float32)}, bad / 'clip.safetensors')
    refuses('missing: positional_embedding')
    (bad / 'clip.safetensors').write_bytes(clip)
    (bad / 'lm' / 'model.safetensors').unlink()
    refuses('neither model.safetensors', FileNotFoundError)
    (bad / 'lm' / 'config.json').write_text('{"model_type": "bert"}')
    refuses("'bert' is not known")
