"""Things of WordNet and of the picture dictionary, and an image set made of documents."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data import building
from data.picture_dictionary.picture_dictionary_dataset_builder import split_of
from flamingo_jax.building import write
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.image_set import ImageSet
from research.data import drawings
from research.data.clip_art import build as clip_art
from research.data.icons.build import Pairs

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / 'data/picture_dictionary/sample'
# Word, file of its sense (man 5 lexnames), definition.
NOUNS = (
    ('tiger', 5, 'large feline'),
    ('house_of_lords', 14, 'a chamber'),
    ('sabre_tiger', 5, 'an extinct cat'),
    ('bell_jar', 6, 'a jar'),
    ('freedom', 7, 'being free'),
    ('mouse', 5, 'a rodent'),
)


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    """A WordNet of a few nouns, and three sets of icons."""
    raw = tmp_path_factory.mktemp('raw')
    wordnet = raw / 'x/wordnet-base/usr/share/wordnet'
    wordnet.mkdir(parents=True)
    lines = [f'{i:08d} {kind:02d} n 01 {word} 0 000 | {defined}' for i, (word, kind, defined) in enumerate(NOUNS)]
    (wordnet / 'data.noun').write_text('  the licence\n' + '\n'.join(lines) + '\n')
    lines = [f'{word} n 1 1 @ 1 0 {i:08d}' for i, (word, _, _) in enumerate(NOUNS)]
    (wordnet / 'index.noun').write_text('  the licence\n' + '\n'.join(lines) + '\n')
    for style in 'abc':
        info = dict(name=style, author=dict(name=f'artist {style}'), license=dict(spdx='MIT'))
        names = ('tiger', 'bell-jar') if style == 'a' else ('tiger',)
        icons = {name: dict(body='<rect width="9" height="9"/>') for name in names}
        (raw / f'{style}.json').write_text(json.dumps(dict(prefix=style, info=info, icons=icons)))
    return raw


@pytest.fixture(scope='module')
def things(raw):
    return drawings.things_of(raw, SAMPLE)


def known(name):
    """The record and the split of a thing of the sample."""
    for split in drawings.SPLITS:
        for record in open_split(SAMPLE, split):
            if record['names'][record['languages'].index(b'en')].decode() == name:
                return record, split
    return None


def test_a_bucket_is_refused_before_anything_is_built(tmp_path):
    command = [sys.executable, '-m', 'research.data.clip_art.build', '--out=gs://b/x', '--raw=r', '--dictionary=d']
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith('error: gs://b/x is in a bucket. Build in a folder of this machine')


def test_things(things):
    tiger, split = known('tiger')
    assert sorted(things) == ['bell jar', 'sabre tiger', 'tiger']
    assert things['tiger'].concept == tiger['concept'].decode() and len(things['tiger'].names) == 36
    # A word with the head noun of another is in its split.
    assert things['tiger'].split == things['sabre tiger'].split == split
    assert things['bell jar'] == drawings.Thing(
        *('word:bell jar', 'bell jar', split_of('jar'), 'Objects', 'artifact-wordnet', 'a jar', dict(en='bell jar'), ())
    )


def test_an_image_set_has_what_its_documents_show(raw, things, tmp_path, monkeypatch):
    splits = {things['tiger'].split, things['bell jar'].split}
    monkeypatch.setattr(drawings, 'SPLITS', tuple(sorted(splits)))
    config = write.tfds.core.BuilderConfig(name='pairs', version='1.0.0')
    documents = write.build(Pairs, str(tmp_path), config, source=f'{raw}/*.json', things=things)
    kept = json.loads((documents / 'ledger.json').read_text())['kept']
    assert sum(one['documents'] for one in kept.values()) == 4
    monkeypatch.setattr(clip_art, 'PROLIFIC', 1)
    monkeypatch.setattr(drawings, 'SPLITS', (things['tiger'].split,))
    folder = building.build(clip_art.Images, 'full', str(documents), str(tmp_path))
    images = ImageSet(str(folder), things['tiger'].split, ImageFormat(16)).images
    assert sorted(image.style for image in images) == [f'clip-art artist {artist}' for artist in 'abc']
    assert {image.concept for image in images} == {things['tiger'].concept}
    assert images[0].names['de'] == 'Tiger'
