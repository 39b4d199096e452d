"""The train command fine-tunes a converted LLaVA, in both stages, and a converted Llama 3.2 Vision."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

import flamingo_jax
from experiments import finetune_llava, finetune_mllama
from flamingo_jax.checkpoints import bundle, bundle_of_run, export
from flamingo_jax.checkpoints.converted import write
from flamingo_jax.checkpoints.run_format import read_latest
from flamingo_jax.conversion import llava, mllama
from flamingo_jax.conversion.hugging_face import open_tensors
from tests import peers
from tests.conversion.test_mllama import FIELDS
from tests.tiny_run import ROOT, losses

COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 250))


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    """A file of eight documents: the second image has another colour than the first, and each its own word."""
    folder = tmp_path_factory.mktemp('own')
    for i, colour in enumerate(COLOURS):
        PIL.Image.new('RGB', (40, 30), colour).save(folder / f'{i}.png')
    lines = [
        [{'image': f'{i % 4}.png'}, f'w{i % 4} w9', {'image': f'{(i + 1 + i // 4) % 4}.png'}, 'w3 w4'] for i in range(8)
    ]
    (folder / 'own.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    return str(folder / 'own.jsonl')


@pytest.fixture(scope='module')
def starts(tmp_path_factory):
    """The bundles of a tiny LLaVA and a tiny Llama 3.2 Vision with random weights."""
    folder = tmp_path_factory.mktemp('starts')
    peers.write_golden(folder / 'llava', 'llava')
    write(llava.convert, str(folder / 'llava'), str(folder / 'bundle of llava'))
    (folder / 'mllama').mkdir()
    (folder / 'mllama/config.json').write_text(json.dumps(FIELDS))
    tensors = mllama.tensors_of(mllama.config_of(FIELDS))
    state = {tensor.name: peers.value(tensor.name, tensor.shape) for tensor in tensors}
    safetensors.numpy.save_file(state, folder / 'mllama/model.safetensors')
    peers.write_tokenizer(folder / 'mllama', ('<|image|>',))
    write(mllama.convert, str(folder / 'mllama'), str(folder / 'bundle of mllama'))
    return {name: str(folder / f'bundle of {name}') for name in ('llava', 'mllama')}


def fine_tune(config: str, start: str, own: str, workdir: pathlib.Path, **fields) -> list[float]:
    """The command, on one device; the loss of each step."""
    fields = {
        'start': start,
        'datasets.own.path': own,
        'datasets.own.length': 64,
        'datasets.own.images': 2,
        'datasets.own.batch_size': 8,
        'optimizer.warmup_steps': 1,
        'optimizer.final_fraction': 1.0,
        'steps': 12,
        'log_every': 1,
        'remat': '',
    } | fields
    line = [sys.executable, '-m', 'flamingo_jax.train', f'--config={config}', f'--workdir={workdir}']
    environment = os.environ | dict(XLA_FLAGS='')  # One device.
    subprocess.run([*line, *(f'--config.{k}={v}' for k, v in fields.items())], cwd=ROOT, env=environment, check=True)
    found = [loss for _, loss in losses(workdir)]
    print(f'{config}: {found[0]:.2f} -> {found[-1]:.2f}')
    return found


def assert_trained(workdir: pathlib.Path, start: str, trees: set[str]) -> None:
    """Each of these trees alone was trained and has changed, and each of the others is the bundle's."""
    about, params, _ = read_latest(workdir)
    whole = bundle.read(start)
    assert set(params) == set(about['trained']) == trees
    assert about['frozen'] == {name: digest for name, digest in whole.checksums.items() if name not in trees}
    for name in trees - {'lora'}:
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), whole.params(name), params[name])
        assert max(jax.tree.leaves(moved)) > 0
    if 'lora' in trees:
        assert params['lora']['query']['kernel']['b'].any()


def fell(found: list[float]) -> None:
    assert np.mean(found[-3:]) < 0.9 * found[0], found


@pytest.mark.long
def test_a_llava_by_both_stages(starts, own, tmp_path):
    """The projector first; then with LoRA, on what that gave. It goes back into LLaVA's format."""
    fell(fine_tune('experiments/finetune_llava.py:projector', starts['llava'], own, tmp_path / 'one'))
    assert_trained(tmp_path / 'one', starts['llava'], {'resampler'})
    bundle_of_run.write(str(tmp_path / 'one'), str(tmp_path / 'projector'))
    fields = {'lora.rank': 4, 'lora.alpha': 8.0, 'optimizer.learning_rate': 3e-3}
    start = str(tmp_path / 'projector')
    fell(fine_tune('experiments/finetune_llava.py', start, own, tmp_path / 'two', **fields))
    assert_trained(tmp_path / 'two', start, {'resampler', 'lora'})
    bundle_of_run.write(str(tmp_path / 'two'), str(tmp_path / 'tuned'))
    export.to_llava(str(tmp_path / 'tuned'), str(tmp_path / 'exported'))
    write(llava.convert, str(tmp_path / 'exported'), str(tmp_path / 'again'))
    images, tokens = peers.random_images(1, 1), np.array([[1, 5, *[94] * 9, 6, 7]], np.int32)
    got, tuned, before = (
        flamingo_jax.load(path).logits(images, tokens) for path in (tmp_path / 'again', tmp_path / 'tuned', start)
    )
    np.testing.assert_array_equal(got, tuned)
    assert np.abs(got - before).max() > 1e-2


@pytest.mark.long
@pytest.mark.parametrize('rank, trained', [(0, "('resampler','xattn')"), (4, '()')])
def test_a_llama_vision(starts, own, tmp_path, rank, trained):
    """Its gated blocks and projector, or LoRA alone; documents with two images. It goes back into mllama's format."""
    fields = {'optimizer.learning_rate': 3e-3, 'lora.rank': rank, 'trained': trained}
    fell(fine_tune('experiments/finetune_mllama.py', starts['mllama'], own, tmp_path / 'run', **fields))
    assert_trained(tmp_path / 'run', starts['mllama'], {'lora'} if rank else {'resampler', 'xattn'})
    bundle_of_run.write(str(tmp_path / 'run'), str(tmp_path / 'tuned'))
    export.to_mllama(str(tmp_path / 'tuned'), str(tmp_path / 'exported'))
    before = bundle.read(starts['mllama'])
    changed = open_tensors(tmp_path / 'exported')
    original = {tensor.name: peers.value(tensor.name, tensor.shape) for tensor in mllama.tensors_of(before.config)}
    moved = {name for name, value in original.items() if not np.array_equal(changed[name], value)}
    of_text = {name for name in original if name.startswith('language_model.model.layers.') and '_proj.' in name}
    gated = {name for name in of_text if 'cross_attn' in name}
    assert not [name for name in moved if name.startswith('vision_model.')]
    assert (moved & of_text and not moved & gated) if rank else gated <= moved and 'multi_modal_projector.bias' in moved


def test_what_the_experiments_train():
    one, two = finetune_llava.get_config('projector'), finetune_llava.get_config()
    three = finetune_mllama.get_config()
    assert one.trained == two.trained == ('resampler',) and not one.lora.rank and two.lora.rank
    assert three.trained == ('resampler', 'xattn') and three.start == 'bundles/mllama'
    assert (
        finetune_llava.get_config('7b').model.lm.depth == 32 and finetune_mllama.get_config('90b').model.lm.depth == 80
    )
    with pytest.raises(ValueError, match="The stage is 'x'. Give finetune_llava.py:projector"):
        finetune_llava.get_config('x')
