"""A converted model is fine-tuned: it starts from its weights, changes only the trained trees, and converts back."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import flamingo_jax
from experiments import finetune_idefics, finetune_open_flamingo
from flamingo_jax import convert
from flamingo_jax.checkpoints import bundle
from flamingo_jax.checkpoints.run_format import read_latest
from flamingo_jax.conversion.readers import read_torch_checkpoint
from flamingo_jax.inputs import pipeline
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.train import train
from flamingo_jax.training.assemble import assemble
from flamingo_jax.training.config import source_of
from tests import peers
from tests.tiny_run import losses

pytestmark = pytest.mark.usefixtures('quick_compilation')
TRAINED = {'resampler', 'xattn', 'extra_tokens'}
TOLERANCE = 1e-4  # Relative to the largest logit.


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    """A file of eight documents of the tiny tokenizer's words, two images each; one image is damaged."""
    folder, rng = tmp_path_factory.mktemp('own'), np.random.default_rng(0)
    for i in range(8):
        PIL.Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / f'{i}.png')
    (folder / '3.png').write_bytes(b'damaged')
    lines = [
        [{'image': f'{i}.png'}, {'text': f'w{i} w9', 'weight': 0}, f'w{i + 1}', {'image': f'{i ^ 1}.png'}, 'w3 w4']
        for i in range(8)
    ]
    (folder / 'own.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    return str(folder / 'own.jsonl')


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """The bundle of the tiny OpenFlamingo in tests/golden/peers.npz."""
    folder = tmp_path_factory.mktemp('start')
    peers.write_golden(folder, 'open_flamingo')
    paths = [str(folder / name) for name in ('checkpoint.pt', 'lm', 'clip.safetensors', 'bundle')]
    convert.open_flamingo(*paths, heads=3)
    return paths[-1]


def tiny_config(start, own, **lora):
    c = finetune_open_flamingo.get_config()
    c.start, c.datasets.own.path = start, own
    c.steps, c.checkpoint_every, c.log_every = 3, 2, 1
    c.mesh.update(data=1, fsdp=8)
    c.datasets.own.update(length=20, images=2, batch_size=8)
    c.optimizer.update(learning_rate=1e-2, warmup_steps=1, final_fraction=1.0)
    c.remat = ''  # Compiles sooner.
    c.max_unreadable = 1.0  # One of the few images is damaged. A tenth would leave the checkpoint in doubt.
    c.lora.update(lora)
    return c


@pytest.fixture(scope='module')
def run(start, own, tmp_path_factory):
    """Three steps with LoRA."""
    workdir = tmp_path_factory.mktemp('run')
    metrics = train(tiny_config(start, own, rank=2, alpha=4.0, targets=('query', 'value', 'down')), workdir)
    return workdir, metrics


def test_the_first_loss_is_that_of_the_model_itself(start, own, run):
    """Of the model as users load it, which knows neither the run's config nor LoRA."""
    config, model = tiny_config(start, own), flamingo_jax.load(start)
    data = pipeline.batches({'own': source_of(config.datasets.own)}, model.tokenizer, model.image_format, 0)['own']
    batch = data[0]
    logits = np.asarray(model.logits(batch.images, batch.tokens))[:, :-1]
    nll = jax.nn.logsumexp(logits, axis=-1) - np.take_along_axis(logits, batch.tokens[:, 1:, None], 2)[..., 0]
    weights = batch.weights[:, 1:]
    assert losses(run[0])[0] == (1, pytest.approx(float((nll * weights).sum() / weights.sum()), rel=1e-5))
    assert losses(run[0])[-1][1] < losses(run[0])[0][1]
    assert run[1]['unreadable_images'] > 0


def test_the_trained_trees_alone_are_changed_and_kept(start, run):
    about, params, step = read_latest(run[0])
    assert step == 3 and set(params) == set(about['trained']) == TRAINED | {'lora'}
    assert about['frozen'] == {name: bundle.read(start).checksums[name] for name in ('lm', 'vision')}
    for name in TRAINED:
        before = bundle.read(start).params(name)
        assert jax.tree.structure(before) == jax.tree.structure(params[name])
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, params[name])
        # Adam moves a parameter by no more than its learning rate a step: it began where the bundle is.
        assert 0 < max(jax.tree.leaves(moved)) < 0.1
    assert params['lora']['query']['kernel']['b'].any() and params['lora']['ffw']['down']['kernel']['b'].any()


def test_it_resumes(start, own, run, tmp_path):
    shutil.copytree(run[0] / 'checkpoints/2', tmp_path / 'checkpoints/2')
    train(tiny_config(start, own, rank=2, alpha=4.0, targets=('query', 'value', 'down')), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, read_latest(tmp_path)[1], read_latest(run[0])[1])


def test_it_does_not_resume_on_an_edited_file(start, own, run, tmp_path):
    shutil.copytree(run[0] / 'checkpoints/2', tmp_path / 'checkpoints/2')
    text = pathlib.Path(own).read_text()
    pathlib.Path(own).write_text(text.replace('w9', 'w8'))
    try:
        with pytest.raises(ValueError, match='another recipe. These fields differ: datasets.own.contents'):
            train(tiny_config(start, own, rank=2, alpha=4.0, targets=('query', 'value', 'down')), tmp_path)
    finally:
        pathlib.Path(own).write_text(text)


@pytest.mark.long
@pytest.mark.parametrize('tree, other', [('lm', 'vision'), ('vision', 'lm')])
def test_a_frozen_tree_may_be_replaced_by_one_that_was_trained_further(start, own, tmp_path, tree, other):
    whole = bundle.read(start)
    params = {name: whole.params(name) for name in whole.checksums}
    params[tree] = jax.tree.map(lambda x: x * 1.01, params[tree])
    further = str(tmp_path / 'further')
    trained = dict(lm='lora', vision='vision')[tree]  # LoRA is merged.
    bundle.save(further, whole.config, params, whole.tokenizer(), whole.image_tag, '# Further', trained=[trained])
    config = tiny_config(start, own)
    config[tree], config.steps = further, 1
    train(config, tmp_path / 'run')
    convert.run(str(tmp_path / 'run'), str(tmp_path / 'bundle'))
    assert trained in bundle.read(tmp_path / 'bundle').trained  # An export says that it would lose that.
    got = bundle.read(tmp_path / 'bundle').checksums
    assert got[tree] == bundle.read(further).checksums[tree] != whole.checksums[tree]
    assert got[other] == whole.checksums[other]


def test_it_becomes_a_plain_bundle(start, run, tmp_path):
    """Its language model is the effective one; what OpenFlamingo's format would lose is not exported."""
    convert.run(str(run[0]), str(tmp_path / 'bundle'))
    merged, unmerged = bundle.read(tmp_path / 'bundle'), read_latest(run[0])[1]
    assert set(merged.checksums) == TRAINED | {'lm', 'vision'} and merged.config == bundle.read(start).config
    assert merged.checksums['vision'] == bundle.read(start).checksums['vision']
    config = assemble(tiny_config(start, '', rank=2, alpha=4.0, targets=('query', 'value', 'down'))).model.config
    trees = unmerged | {name: bundle.read(start).params(name) for name in ('lm', 'vision')}
    images = np.random.default_rng(3).integers(0, 256, (1, 2, 1, 42, 42, 3)).astype(np.uint8)
    tokens = np.array([[95, 5, 6, 94, 95, 7, 8]], np.int32)
    expected = np.asarray(jax.jit(Flamingo(config).logits)(jax.tree.map(jnp.asarray, trees), images, tokens))
    for path in (tmp_path / 'bundle', run[0]):
        got = flamingo_jax.load(path).logits(images, tokens)
        assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()
    with pytest.raises(
        ValueError, match="has trained .'lora'., but an OpenFlamingo file contains neither the language model"
    ):
        convert.export('to_open_flamingo', str(tmp_path / 'bundle'), str(tmp_path / 'out.pt'))
    assert not (tmp_path / 'out.pt').exists()


@pytest.mark.parametrize(
    'key, value, says',
    [
        ('vision', 'experiments/picture_dictionary', 'picture_dictionary has another trunk or image size'),
        ('lm', 'experiments/lm_dictionary', 'experiments/lm_dictionary has another shape or tokenizer'),
        ('model.image_size', 64, 'config.start names a whole model, so that model must not be set'),
        ('trained', ('xattn', 'decoder'), "config.trained has .'decoder'."),
        ('trained', ('xattn', 'lm'), r"config.trained has 'lm', and config.lora.rank is 1: .* remove 'lm'"),
        ('targets', ('querry',), "lora.targets is .*'querry'.*. Name some of"),
        ('rank', -1, 'lora.rank is -1'),
        ('start', '/nowhere', '/nowhere is not a bundle'),
    ],
)
def test_what_makes_no_sense_is_refused(start, own, tmp_path, key, value, says):
    config = tiny_config(start, own, rank=1)
    of_model = key.startswith('model.')
    place = config.model if of_model else config if key in config else config.lora
    place[key.removeprefix('model.')] = value
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        train(config, tmp_path)
    assert not (tmp_path / 'checkpoints').exists()


def test_the_experiments_differ_in_what_they_say():
    a, b = finetune_open_flamingo.get_config(), finetune_idefics.get_config()
    assert a.start == 'bundles/open_flamingo' and b.start == 'bundles/idefics'
    assert set(a.trained) == set(b.trained) == TRAINED and not a.lora.rank


@pytest.mark.parity
def test_the_original_says_the_same_after_fine_tuning(own, tmp_path):
    for module in ('torch', 'transformers', 'open_clip', 'open_flamingo'):
        pytest.importorskip(module)
    import torch

    model, _ = peers.open_flamingo(tmp_path, 'mpt', every=1, depth=3)
    paths = [str(tmp_path / name) for name in ('checkpoint.pt', 'lm', 'clip.pt', 'bundle')]
    convert.open_flamingo(*paths, heads=3)
    config = tiny_config(paths[-1], own)
    config.steps = 3
    train(config, tmp_path / 'run')
    convert.run(str(tmp_path / 'run'), str(tmp_path / 'tuned'))
    convert.export('to_open_flamingo', str(tmp_path / 'tuned'), str(tmp_path / 'tuned.pt'))
    before, after = (read_torch_checkpoint(tmp_path / name) for name in ('checkpoint.pt', 'tuned.pt'))
    changed = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert 'perceiver.latents' in changed and len(changed) > len(after) / 2
    images = np.random.default_rng(3).integers(0, 256, (1, 2, 1, 42, 42, 3)).astype(np.uint8)
    ids = np.array([[95, 5, 6, 94, 95, 7, 8]])
    tuned = flamingo_jax.load(tmp_path / 'tuned')

    def original():
        x = peers.standardised(images, tuned.config.vision)
        with torch.no_grad():
            return model(vision_x=x, lang_x=torch.tensor(ids), attention_mask=torch.ones(1, 7)).logits.numpy()

    untuned = original()
    assert not model.load_state_dict(torch.load(tmp_path / 'tuned.pt', weights_only=True), strict=False).unexpected_keys
    expected, got = original(), np.asarray(tuned.logits(images, ids.astype(np.int32)))
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()
    assert np.abs(got - untuned).max() > 100 * TOLERANCE * np.abs(expected).max()


@pytest.mark.parity
def test_an_original_idefics_says_what_lora_taught(own, tmp_path):
    """Its export holds the language model too."""
    transformers = pytest.importorskip('transformers')
    torch = pytest.importorskip('torch')
    peers.idefics(tmp_path / 'original')
    convert.idefics(str(tmp_path / 'original'), str(tmp_path / 'bundle'))
    config = tiny_config(str(tmp_path / 'bundle'), own, rank=2, targets=('query', 'out', 'up'))
    train(config, tmp_path / 'run')
    convert.run(str(tmp_path / 'run'), str(tmp_path / 'tuned'))
    convert.export('to_idefics', str(tmp_path / 'tuned'), str(tmp_path / 'exported'))
    images = np.random.default_rng(3).integers(0, 256, (1, 2, 1, 42, 42, 3)).astype(np.uint8)
    ids = np.array([[1, 94, 95, 94, 5, 6, 94, 95, 94, 7, 8, 9]])
    tuned = flamingo_jax.load(tmp_path / 'tuned')
    x = peers.standardised(images, tuned.config.vision)[:, :, 0]
    seen = ((torch.tensor(ids) == 95).cumsum(1)[..., None] == torch.arange(1, 3)).long()

    def original(folder):
        model = transformers.IdeficsForVisionText2Text.from_pretrained(tmp_path / folder).eval()
        inputs = dict(input_ids=torch.tensor(ids), attention_mask=torch.ones(1, 12, dtype=torch.long))
        with torch.no_grad():
            return model(**inputs, pixel_values=x, image_attention_mask=seen).logits.numpy()

    expected, got = original('exported'), np.asarray(tuned.logits(images, ids.astype(np.int32)))
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()
    assert np.abs(got - original('original')).max() > 100 * TOLERANCE * np.abs(expected).max()
