"""What CONTRIBUTING.md says how to add is added here as it says: one file each, of examples/adding."""

import dataclasses
import importlib
import json
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from flamingo_jax.building.document import Document
from flamingo_jax.building.readers.folder import ImageFolder, make_index
from flamingo_jax.evaluation import metrics
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo

ROOT = pathlib.Path(__file__).parents[1]
ADDING = ROOT / 'examples/adding'
FILES = sorted(path.relative_to(ADDING) for path in ADDING.rglob('*.py'))
NAMES = ['.'.join(file.with_suffix('').parts) for file in FILES]

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture
def added(monkeypatch):
    """Each file's module, found as any other of its folder is, and forgotten after the test."""
    for name, file in zip(NAMES, FILES, strict=True):
        folder = name.rpartition('.')[0]
        if (ROOT / file.parent).is_dir():
            package = importlib.import_module(folder)
            monkeypatch.setattr(package, '__path__', [*package.__path__, str(ADDING / file.parent)])
        else:  # A folder of its own.
            package = importlib.import_module(folder.rpartition('.')[0])
            monkeypatch.setattr(package, '__path__', [*package.__path__, str(ADDING / file.parent.parent)])
    yield {name: importlib.import_module(name) for name in NAMES}
    for name in NAMES:
        if not name.startswith('data.'):  # TFDS registers a builder once in a process.
            del sys.modules[name]


def test_the_page_names_each_file_and_two_pages_suffice():
    page = (ROOT / 'CONTRIBUTING.md').read_text()
    assert all(f'(examples/adding/{file.as_posix()})' in page for file in FILES) and len(page.splitlines()) <= 120


def test_a_metric(added, monkeypatch):
    # The names that there are, are those of files.
    monkeypatch.setattr(metrics, '__file__', added['flamingo_jax.evaluation.metrics.within_one'].__file__)
    assert metrics.score('within_one', dict(a='3', b='7'), dict(a='4', b='5')) == (0.5, dict(a=1.0, b=0.0))


def test_an_evaluation_set_and_its_config(added, tmp_path):
    (tmp_path / 'test.json').write_text('[["a.png", 3], ["b.png", 4]]')
    task = added['experiments.evaluate.counting'].get_config().tasks.counting
    asked = added['flamingo_jax.evaluation.datasets.counting'].Counting()
    items = list(asked.read(tmp_path, 'test'))
    assert task.asks is type(asked) and task.query_split == 'test' and task.shots == (0, 4)
    assert [(item.id, item.file.name, item.answer) for item in items] == [
        ('a.png', 'a.png', '3'),
        ('b.png', 'b.png', '4'),
    ]
    assert 'How many?' in items[0].text


def test_a_published_data_set(added, tmp_path):
    for name in 'ab':
        PIL.Image.fromarray(np.full((8, 8, 3), ord(name), np.uint8)).save(tmp_path / f'{name}.png')
    lines = [dict(file=f'{name}.png', caption=f'This is {name}.') for name in 'abc']
    (tmp_path / 'x.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    make_index(str(tmp_path), str(tmp_path / 'index'))
    ((_, read),) = added['data.captioned.build'].Captioned.READERS.items()
    read = list(read(str(tmp_path / 'x.jsonl'), 'x.jsonl', ImageFolder(str(tmp_path), str(tmp_path / 'index'))))
    whole = [one for one in read if isinstance(one, Document)]
    assert [document.texts[-1] for document in whole] == ['This is a.', 'This is b.']
    assert 'image_missing' in {one.rule for one in read if one not in whole}


def test_a_trunk_a_connector_and_a_bridge(added, config, tokens):
    """They are stored and found by name, initialised and computed; closed gates give the bare language model."""
    vision = added['flamingo_jax.model.vision.blocks'].BlocksConfig()
    connector = added['flamingo_jax.model.connectors.mean'].MeanConfig()
    bridge = added['flamingo_jax.model.bridges.added'].AddedConfig()
    whole = dataclasses.replace(config, vision=vision, resampler=connector, xattn=bridge, image_size=32)
    assert FlamingoConfig.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    model = Flamingo(whole)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    n = int(np.asarray(model.phi(jnp.asarray(tokens))).max())
    images = np.random.default_rng(0).integers(0, 255, (len(tokens), n, 1, 32, 32, 3), np.uint8)
    features = jax.jit(model.features)(params, images)
    assert features.shape == (len(tokens), n, 1, 16, 3)
    logits = jax.jit(model.logits)
    closed, without = (np.asarray(logits(params, x, tokens)) for x in (features, None))
    np.testing.assert_array_equal(closed, without)
    params['xattn'] = jax.tree.map(lambda alpha: alpha + 0.5, params['xattn'])
    assert np.abs(np.asarray(logits(params, features, tokens)) - without).max() > 1e-4
