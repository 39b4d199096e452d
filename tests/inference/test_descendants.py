"""LLaVA and Llama 3.2 Vision: the engine, remembered examples and shared beginnings answer as `generate` does alone."""

import json

import PIL.Image
import pytest
import safetensors.numpy

from flamingo_jax.checkpoints.converted import write
from flamingo_jax.conversion import llava, mllama
from flamingo_jax.inference import pretrained
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inference.serving import Engine
from tests import peers
from tests.conversion.test_mllama import FIELDS

pytestmark = pytest.mark.usefixtures('quick_compilation')
NEW = 5


@pytest.fixture(scope='module', params=['llava', 'mllama'])
def path(request, tmp_path_factory):
    """The bundle of a tiny model with random weights."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == 'llava':
        peers.write_golden(folder / 'source', 'llava')
        write(llava.convert, str(folder / 'source'), str(folder / 'bundle'))
        return folder / 'bundle'
    (folder / 'source').mkdir()
    (folder / 'source/config.json').write_text(json.dumps(FIELDS))
    tensors = mllama.tensors_of(mllama.config_of(FIELDS))
    state = {tensor.name: peers.value(tensor.name, tensor.shape) for tensor in tensors}
    safetensors.numpy.save_file(state, folder / 'source/model.safetensors')
    peers.write_tokenizer(folder / 'source', ('<|image|>',))
    write(mllama.convert, str(folder / 'source'), str(folder / 'bundle'))
    return folder / 'bundle'


@pytest.fixture(scope='module')
def examples():
    """Two examples, of which the second has two images side by side, of one tile and of several."""
    pixels = peers.random_images(1, 3)[0, :, 0]
    a, b, c = (
        PIL.Image.fromarray(one).resize(size) for one, size in zip(pixels, [(40, 42), (90, 30), (30, 60)], strict=True)
    )
    many = ' '.join(f'w{i}' for i in range(30))  # A short beginning is not worth its own program.
    return [f'{many} ', a, ' w1 w2 w3 ', b, c, ' w4 w5 ']


@pytest.fixture(scope='module')
def prompts(examples):
    """One without examples, two with them and an image of another shape each, and one of text alone."""
    a, b = (PIL.Image.fromarray(one) for one in 255 - peers.random_images(1, 2)[0, :, 0])
    return [[a, ' w6 w7'], [*examples, b.resize((80, 70)), ' w6 w7'], [*examples, a, ' w6'], ['w1 w2 w8']]


@pytest.fixture(scope='module')
def alone(path, prompts):
    """Each answer by a model that has read nothing before."""
    model = pretrained.load(path)
    found = []
    for prompt in prompts:
        model.__dict__.pop('reader', None)
        found.append(model.generate(prompt, NEW))
    assert len(set(found)) > 2
    return found


def test_the_engine(path, prompts, alone):
    with Engine(pretrained.load(path), slots=3) as engine:
        answers = [engine.ask(prompt, Sampling(NEW)) for prompt in (*prompts, prompts[1])]
        assert [answer.text() for answer in answers] == [*alone, alone[1]]


def test_remembered_examples(path, examples, prompts, alone):
    model = pretrained.load(path)
    model.remember(examples)
    assert [model.generate(prompt, NEW) for prompt in prompts] == alone
    assert len(model.reader.beginnings._kept) == 1
    with Engine(model, slots=2) as engine:
        assert [engine.ask(prompt, Sampling(NEW)).text() for prompt in prompts] == alone


def test_shared_beginnings(path, prompts, alone):
    model = pretrained.load(path)
    assert model.generate(prompts[1:3], NEW) == alone[1:3]
    assert len(model.reader.beginnings._kept) == 1
    assert model.generate(prompts, NEW) == alone


def test_candidates_are_ranked_as_their_tokens_are_likely(path, prompts):
    model, candidates = pretrained.load(path), [' w1 w2', ' w3', ' w9 w8 w7']
    together = model.score(prompts[1], candidates)
    for candidate, score in zip(candidates, together, strict=True):
        likely = model.likelihoods(prompts[1], model.tokenizer.encode(candidate, continues=True))
        assert score == pytest.approx(float(sum(likely.written)), rel=1e-4)
