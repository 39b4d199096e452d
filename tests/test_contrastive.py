"""Contrastive pretraining end to end: a tiny run on the sample, its bundle as a trunk, and its evaluations."""

import dataclasses
import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict

import flamingo_jax
from flamingo_jax.checkpoints import bundle, bundle_of_run
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.flickr30k import Flickr30k
from flamingo_jax.evaluation.metrics import score
from flamingo_jax.evaluation.retrieval import ImagesOfTexts, TextsOfImages
from flamingo_jax.evaluation.run import evaluate
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import TINY, ContrastiveConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.train import train
from flamingo_jax.training import config as training
from flamingo_jax.training.assemble import assemble
from flamingo_jax.training.objectives.contrastive import Paired
from tests.tiny_run import SAMPLE, TOKENIZER, losses, make_trunk, tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')


SMALL = dict(width=32, depth=2, heads=2, kv_heads=2, head_dim=16, ffw_width=64, context=12)


@pytest.fixture(scope='module')
def towers(tmp_path_factory):
    """A bundle of two random towers."""
    folder = tmp_path_factory.mktemp('contrastive')
    trunk, tokenizer = make_trunk(folder / 'trunk'), Tokenizer.read(TOKENIZER)
    lm = dataclasses.replace(TINY['lm'], **SMALL, vocab_size=tokenizer.vocab_size)
    config = dataclasses.replace(trunk.config, lm=lm, contrastive=ContrastiveConfig(width=16))
    params = nn.meta.unbox(jax.jit(Flamingo(config).init)(jax.random.key(2)))
    bundle.save(folder / 'towers', config, params, tokenizer, None, '')
    return folder / 'towers'


@pytest.mark.long
def test_a_run_trains_a_trunk_for_a_flamingo(parts, tmp_path):
    """Twelve steps of two micro-batches on eight devices; the bundle of what they trained is a trunk."""
    before = make_trunk(tmp_path / 'trunk').params('vision')
    c = training.base()
    c.steps = c.checkpoint_every = 12
    c.log_every, c.micro_batches = 1, 2
    c.vision, c.tokenizer = str(tmp_path / 'trunk'), str(TOKENIZER)
    c.model.lm = ConfigDict(vars(TINY['lm']) | SMALL)
    c.model.contrastive = ConfigDict(vars(ContrastiveConfig(width=16)))
    c.trained = ('vision', 'lm', 'contrastive')
    c.datasets.images = training.dataset(
        FewShot,
        row=Paired,
        path=SAMPLE,
        shots=1,
        games=dict(name=game(Names)),
        views=3,
        length=12,
        images=1,
        batch_size=16,
        validation_split='validation',
    )
    c.validate_every, c.validation_batches = 12, 1
    c.optimizer.update(learning_rate=1e-2, warmup_steps=1, decay='linear', final_fraction=0.0, clip_trunk=0.1)
    c.mesh.data, c.mesh.fsdp = 2, 4
    train(c, tmp_path / 'run')
    recorded = [loss for _, loss in losses(tmp_path / 'run')]
    assert len(recorded) == 12 and np.mean(recorded[-3:]) < np.mean(recorded[:3])
    assert len(losses(tmp_path / 'run', 'validation/images/loss')) == 1

    bundle_of_run.write(str(tmp_path / 'run'), str(tmp_path / 'bundle'))
    found = bundle.read(tmp_path / 'bundle')
    assert set(found.checksums) == {'vision', 'lm', 'contrastive'} == set(found.trained)
    trained = found.params('vision')
    assert not np.array_equal(before['trunk']['head']['kernel'], trained['trunk']['head']['kernel'])
    np.testing.assert_array_equal(before['trunk']['head']['mean'], trained['trunk']['head']['mean'])
    assert trained['trunk']['head']['kernel'].dtype == np.float32  # As an EfficientNet must be.
    config = tiny_config(parts)
    config.vision = str(tmp_path / 'bundle')
    del config.datasets.words  # Its features are another trunk's.
    made = assemble(config)
    assert made.frozen['vision'].checksums['vision'] == found.checksums['vision']
    assert made.model.config.contrastive is None


@pytest.mark.long
@pytest.mark.parametrize('loss', ['softmax', 'classes'])
def test_a_resampler_is_trained_for_a_flamingo(loss, parts, tmp_path):
    """On features of a frozen trunk. The Flamingo that takes the resampler may keep it frozen."""
    flamingo = tiny_config(parts)
    del flamingo.datasets.names
    c = training.base()
    c.steps = c.checkpoint_every = 40
    c.log_every = 1
    c.vision, c.model.resampler = str(parts / 'trunk'), flamingo.model.resampler
    c.model.contrastive = ConfigDict(vars(ContrastiveConfig(width=16, loss=loss, classes=256)))
    if loss == 'classes':
        c.lm, c.trained = str(parts / 'lm'), ('resampler', 'contrastive')
    else:
        c.tokenizer, c.model.lm = str(TOKENIZER), ConfigDict(vars(TINY['lm']) | SMALL)  # As wide as the Flamingo's.
        c.trained = ('resampler', 'lm', 'contrastive')
    pairs = dict(row=Paired, shots=1, games=dict(name=game(Names)), length=12, images=1, batch_size=64)
    c.datasets.images = training.dataset(FewShot, path=SAMPLE, features=str(parts / 'features'), **pairs)
    c.optimizer.update(learning_rate=1e-2, warmup_steps=1)
    train(c, tmp_path / 'contrast')
    recorded = [loss for _, loss in losses(tmp_path / 'contrast')]
    assert np.mean(recorded[-5:]) < np.mean(recorded[:5]) - 0.1
    bundle_of_run.write(str(tmp_path / 'contrast'), str(tmp_path / 'towers'))

    flamingo.resampler, flamingo.trained = str(tmp_path / 'towers'), ('xattn', 'extra_tokens')
    flamingo.steps = flamingo.checkpoint_every = 1
    train(flamingo, tmp_path / 'run')
    bundle_of_run.write(str(tmp_path / 'run'), str(tmp_path / 'flamingo'))
    before, after = (bundle.read(tmp_path / name) for name in ('towers', 'flamingo'))
    assert after.checksums['resampler'] == before.checksums['resampler'] and after.config.contrastive is None
    assert after.trained == ('extra_tokens', 'resampler', 'xattn')  # Of the towers, it has the resampler alone.
    jax.tree.map(np.testing.assert_array_equal, before.params('resampler'), after.params('resampler'))
    flamingo.trained += ('resampler',)
    assert set(assemble(flamingo).start) == {'resampler'}  # It goes on from the pretrained one.

    shutil.copytree(parts / 'trunk', tmp_path / 'other')
    fields = json.loads((tmp_path / 'other/config.json').read_text())
    fields['checksums']['vision'] = 'of another'
    (tmp_path / 'other/config.json').write_text(json.dumps(fields))
    flamingo.vision = str(tmp_path / 'other')
    with pytest.raises(ValueError, match='trained on the features of another trunk than .*other'):
        assemble(flamingo)
    flamingo.vision = str(parts / 'trunk')
    flamingo.model.resampler.latents = 3
    with pytest.raises(ValueError, match='The resampler of config.resampler does not fit'):
        assemble(flamingo)
    flamingo.resampler = str(parts / 'trunk')
    with pytest.raises(ValueError, match='has no resampler'):
        assemble(flamingo)


def test_it_names_images_without_examples(towers, tmp_path):
    c = evaluation.base()
    c.data, c.episodes = SAMPLE, 20
    c.tasks.names = evaluation.task(Names, shots=(0,), answers=('compared',))
    (row,) = evaluate(c, towers, tmp_path / 'names')
    assert set(row.scores) >= {'model', 'shuffled images', 'chance'} and 'text only' not in row.scores
    c.tasks.names.shots = (1,)
    with pytest.raises(ValueError, match='two towers compare an image with texts, and see no examples'):
        evaluate(c, towers, tmp_path / 'more')


def test_it_writes_nothing(towers):
    with pytest.raises(ValueError, match='two towers, which compare images with texts and write nothing'):
        flamingo_jax.load(towers).generate([' a cat'])


def test_a_class_is_the_mean_of_its_spellings(towers):
    from flamingo_jax.evaluation.answers import Compared
    from flamingo_jax.tasks.episode import Episode

    model = flamingo_jax.load(towers)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(3)]
    names = ('cat', 'hammer', 'tree')
    spellings = {name: (f'a {name}', f'an image of a {name}') for name in names}
    episode = Episode((), (), 'cat', candidates=names, written=spellings)
    found = Compared(likelihoods=True)(model, [[image] for image in images], [episode] * 3)
    classes = np.stack([model.text_vectors([f' {text}' for text in spellings[name]]).mean(axis=0) for name in names])
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    logits = model.inverse_temperature * model.image_vectors(images) @ classes.T
    assert model.image_vectors([]).shape == model.text_vectors([]).shape == (0, 16)
    expected = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    np.testing.assert_allclose([[one[name] for name in names] for one in found], expected, atol=1e-5)


def test_retrieval_both_ways(towers, tmp_path):
    """In Flickr30k's own format: four images of two captions, one of which two images share."""
    rng = np.random.default_rng(0)
    (tmp_path / 'flickr30k-images').mkdir()
    captions = [('a cat', 'an animal'), ('a dog', 'an animal'), ('a tree', 'green'), ('a hammer', 'a tool')]
    images = []
    for i, texts in enumerate(captions):
        PIL.Image.fromarray(rng.integers(0, 256, (20, 16, 3)).astype(np.uint8)).save(
            tmp_path / f'flickr30k-images/{i}.png'
        )
        images.append(dict(filename=f'{i}.png', split='test', sentences=[dict(raw=text) for text in texts]))
    (tmp_path / 'dataset_flickr30k.json').write_text(json.dumps(dict(images=images)))
    c = evaluation.base()
    c.data = str(tmp_path)
    c.tasks.texts = evaluation.task(TextsOfImages, captions=Flickr30k)
    c.tasks.images = evaluation.task(ImagesOfTexts, captions=Flickr30k)
    rows = evaluate(c, towers, tmp_path / 'out')
    model = flamingo_jax.load(towers)
    texts = list(dict.fromkeys(text for two in captions for text in two))
    cosines = model.image_vectors([tmp_path / f'flickr30k-images/{i}.png' for i in range(4)])
    cosines = cosines @ model.text_vectors([f' {text}' for text in texts]).T
    right = np.array([[text in two for text in texts] for two in captions])
    for row in rows:
        k = int(row.answers.split()[-1])
        scores, own = (cosines, right) if row.task == 'texts' else (cosines.T, right.T)
        first = np.argsort(-scores, axis=1)[:, :k]
        expected = np.take_along_axis(own, first, axis=1).any(axis=1).mean()
        assert row.scores['model'].value == pytest.approx(expected), (row.task, k)
        assert row.episodes == len(own)
    assert len(rows) == 6
    shutil.rmtree(tmp_path / 'flickr30k-images')
    with pytest.raises(FileNotFoundError):
        evaluate(c, towers, tmp_path / 'missing')


def test_a_flamingo_has_no_shared_space(pretrained):
    with pytest.raises(ValueError, match='Give one that was trained contrastively'):
        pretrained.text_vectors([' a cat'])


def test_recall():
    found = dict(a=['x', 'y'], b=['z'], c=['x'])
    assert score('recall', found, dict(a=('y',), b=('x',), c=('x', 'q'))) == (2 / 3, dict(a=1.0, b=0.0, c=1.0))
    with pytest.raises(ValueError, match='must be a sequence of candidates'):
        score('recall', dict(a='x'), dict(a=('x',)))
