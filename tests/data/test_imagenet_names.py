"""What a trunk's own classifier knows, as features that a bridge can be trained on."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `data` is a folder of builders beside the package, and not installed with it

from data import building  # noqa: E402
from data.imagenet_names.build import CLASSES, HIGHEST, MARGINS, Builder, moved, named, read_labels  # noqa: E402
from flamingo_jax.conversion import vision_trunks  # noqa: E402
from flamingo_jax.inputs.images import ImageFormat  # noqa: E402
from flamingo_jax.inputs.sources.array_record import open_split  # noqa: E402
from flamingo_jax.inputs.sources.image_set import ImageSet  # noqa: E402

SAMPLE = str(ROOT / 'data/picture_dictionary/sample')


def english(split):
    """The English names of the sample's things in a split."""
    records = open_split(SAMPLE, split)
    return {r['names'][r['languages'].index(b'en')].decode() for r in records if b'en' in r['languages']}


@pytest.fixture
def wordnet(tmp_path):
    """dog and owl are animals, a beagle is a hound is a dog, and the bat of the sports field comes second."""
    synsets = dict(
        animal=('animal', []), dog=('dog', ['animal']), hound=('hound', ['dog']), beagle=('beagle', ['hound']),
        owl=('owl', ['animal']), flying=('bat', ['animal']), club=('bat', []), baseball=('baseball_bat', ['club']),
    )  # fmt: skip
    number = {key: f'{i:08d}' for i, key in enumerate(synsets)}
    lines, senses = ['  1 licence'], {}
    for key, (word, above) in synsets.items():
        pointers = ' '.join(f'@ {number[one]} n 0000' for one in above)
        lines.append(f'{number[key]} 05 n 01 {word} 0 {len(above):03d} {pointers} | what it is')
        senses.setdefault(word, []).append(number[key])
    (tmp_path / 'data.noun').write_text('\n'.join(lines) + '\n')
    index = [f'{word} n {len(found)} 1 @ {len(found)} 0 {" ".join(found)}' for word, found in senses.items()]
    (tmp_path / 'index.noun').write_text('\n'.join(['  1 licence', *index]) + '\n')
    return tmp_path, number


def test_classes_have_the_names_of_the_dictionary_and_none_that_is_held_out(wordnet):
    folder, number = wordnet
    heldout = sorted(english('test') - english('train'))[0]
    assert {'dog', 'owl', 'bat'} <= english('train') | english('validation') | english('test')
    words = [['beagle'], ['great owl', 'owl'], ['baseball bat'], ['thing nobody drew'], [f'blue {heldout}']]
    synsets = [number[key] for key in ('beagle', 'owl', 'baseball', 'animal', 'animal')]
    found = named(words, synsets, folder, SAMPLE, styles=['noto'])
    shown = english('train')
    expected = {0: 'dog', 1: 'owl', 3: 'thing nobody drew'}
    expected = {i: name for i, name in expected.items() if i == 3 or name in shown}
    # The bat of the field is not the animal, and its head noun is left out if the animal is held out.
    assert found == expected | ({2: 'baseball bat'} if 'bat' in shown else {})


def test_moved_features_are_of_their_class():
    classifier = vision_trunks.packaged(CLASSES)['classifier']['linear']
    weights, bias = classifier['kernel'].T, classifier['bias']
    rng = np.random.default_rng(0)
    features = rng.gamma(0.3, 1.0, (64, 25, weights.shape[1])).clip(0, HIGHEST)
    towards = rng.integers(len(weights), size=64)
    made = moved(features, towards, weights, bias, rng)
    assert made.shape == features.shape and made.min() >= 0 and made.max() <= HIGHEST
    logits = made.mean(1) @ weights.T + bias
    assert (logits.argmax(1) == towards).mean() > 0.9
    # What they were is still in them: no two are alike.
    same = [np.corrcoef(a.mean(0), b.mean(0))[0, 1] for a, b in zip(made, features, strict=True)]
    other = [np.corrcoef(a.mean(0), b.mean(0))[0, 1] for a, b in zip(made, np.roll(features, 1, 0), strict=True)]
    assert np.mean(same) > np.mean(other) + 0.1
    assert 0 < MARGINS[0] < MARGINS[1]


def test_a_record_for_each_class_and_each_drawing_of_a_thing_so_called(tmp_path):
    told = dict(classes={7: 'owl', 12: 'tench'}, images=SAMPLE, styles=['noto', 'fluent-flat'])
    (tmp_path / 'names.json').write_text(json.dumps(told))
    built = building.build(Builder, 'full', str(tmp_path), str(tmp_path))
    images = ImageSet(str(built), 'train', ImageFormat(8)).images
    classes = [p for p in images if p.style == 'imagenet']
    assert sorted(p.concept for p in classes) == sorted(p.names['en'] for p in classes) == ['owl', 'tench']
    there = ImageSet(SAMPLE, 'train', ImageFormat(8), styles=told['styles']).images
    owls = sorted(p.style for p in there if p.names.get('en') == 'owl')
    assert owls and owls == sorted(p.style for p in images if p.style != 'imagenet')
    assert {p.concept for p in images} == {'owl', 'tench'}


def test_another_file_than_the_wheel_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'other.whl', 'w') as wheel:
        wheel.writestr('other/labels.txt', 'owl')
    (tmp_path / 'cut.whl').write_bytes(b'PK')
    for name in ('other.whl', 'cut.whl'):
        with pytest.raises(ValueError, match=f'{name} is not a wheel of timm .*pip download'):
            read_labels(str(tmp_path / name))
