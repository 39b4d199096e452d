"""Scenes composed from the committed sample: questions match the scene, and splits share no pair of things."""

import collections
import io
import itertools
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `data` is a folder of builders beside the package, and not installed with it

from data import building  # noqa: E402
from data.picture_scenes import scenes  # noqa: E402
from data.picture_scenes.picture_scenes_dataset_builder import Builder, Config, read_drawings  # noqa: E402
from flamingo_jax.inputs.images import ImageFormat  # noqa: E402
from flamingo_jax.inputs.sources.image_set import ImageSet  # noqa: E402
from flamingo_jax.tasks.episode import Pool  # noqa: E402

SAMPLE = ROOT / 'data/picture_dictionary/sample'
STYLES = ('noto', 'noto-v1')
SPLITS = {'train': 60, 'validation': 20, 'test': 40}


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The scenes of the sample's drawings."""
    config = Config(name='tiny', styles=STYLES, heldout_style='fluent-3d', **SPLITS)
    return building.build(Builder, config, str(SAMPLE), str(tmp_path_factory.mktemp('scenes')))


def records(folder, split):
    return list(tfds.builder_from_directory(folder).as_data_source(split))


def parts(composition):
    """'top left dog + bottom left cat' -> {'dog': 'top left', 'cat': 'bottom left'}; 'three dog' -> {'dog': 'three'}"""
    return {part.split()[-1]: ' '.join(part.split()[:-1]) for part in composition.split(' + ')}


def test_things_that_meet_in_a_test_scene_meet_in_no_training_scene(built):
    meetings = {
        split: {
            pair
            for record in records(built, split)
            for pair in itertools.combinations(sorted(parts(record['concept'].decode())), 2)
        }
        for split in SPLITS
    }
    assert all(meetings.values())
    for one, other in itertools.combinations(SPLITS, 2):
        assert not meetings[one] & meetings[other]
    alone = {
        split: {r['concept'] for r in records(built, split) if b' + ' not in r['concept'] and len(r['questions']) == 1}
        for split in SPLITS
    }
    assert alone['test'] and not alone['test'] & alone['train']


def test_questions_and_answers_tell_the_composition(built):
    answers = collections.Counter()
    for record in records(built, 'train'):
        asked = dict(
            zip((q.decode() for q in record['questions']), (a.decode() for a in record['answers']), strict=True)
        )
        for thing, place_or_number in parts(record['concept'].decode()).items():
            if place_or_number in scenes.NUMBERS:
                assert asked.pop(f'how many: {thing}?') == place_or_number
            else:
                assert asked.pop(f'where is the {thing}?') == place_or_number
                assert asked.pop(f'what is in the {place_or_number}?') == thing
            answers[place_or_number] += 1
        assert not asked
    assert set(answers) == {*scenes.QUARTERS, *scenes.NUMBERS}


def test_a_split_has_its_number_of_different_scenes_half_of_the_test_in_the_heldout_style(built):
    for split, number in SPLITS.items():
        rows = records(built, split)
        assert len({row['concept'] for row in rows}) == len(rows) == number
        styles = collections.Counter(row['style'].decode() for row in rows)
        held = {'fluent-3d': number // 2} if split == 'test' else {}
        assert styles == held | {style: (number - sum(held.values())) // 2 for style in STYLES}
        for row in rows:
            assert row['source'] and row['licence'] in (b'Apache-2.0 AND Unicode-3.0', b'MIT AND Unicode-3.0')


def ink(image, left, top, right, bottom):
    return (np.asarray(image.convert('L'))[top:bottom, left:right] < 200).sum()


def test_the_canvas_shows_each_thing_where_the_scene_puts_it():
    drawings = {thing: d.image for thing, d in read_drawings(SAMPLE, ('noto',))['noto'].items()}
    compositions = scenes.Compositions(sorted(drawings), 'train')
    rng = random.Random(0)
    for make in (compositions.place, compositions.count):
        for _ in range(50):
            scene = make(rng)
            canvas = scenes.draw(scene, drawings)
            assert canvas.size == (160, 160)
            for one, other in itertools.combinations(scene.placed, 2):
                assert max(abs(one.left - other.left), abs(one.top - other.top)) >= min(one.size, other.size)
            everything = ink(canvas, 0, 0, 160, 160)
            inside = [ink(canvas, p.left, p.top, p.left + p.size, p.top + p.size) for p in scene.placed]
            assert min(inside) > 30 and sum(inside) == everything
            said = parts(scene.composition)
            for placed in scene.placed:
                if said[placed.thing] in scenes.QUARTERS:
                    middle = placed.left + placed.size / 2, placed.top + placed.size / 2
                    assert scenes.QUARTERS.index(said[placed.thing]) == 2 * (middle[1] > 80) + (middle[0] > 80)
            counted = collections.Counter(placed.thing for placed in scene.placed)
            if make == compositions.count:
                assert {t: scenes.NUMBERS[n - 1] for t, n in counted.items()} == said


def test_the_same_input_gives_the_same_scenes(built, tmp_path):
    config = Config(name='tiny', styles=STYLES, heldout_style='fluent-3d', **SPLITS)
    again = building.build(Builder, config, str(SAMPLE), str(tmp_path))
    for one, other in zip(records(built, 'test'), records(again, 'test'), strict=True):
        assert one['frames'] == other['frames'] and list(one['answers']) == list(other['answers'])


def test_an_image_set_reads_scenes_with_their_questions(built):
    images = ImageSet(str(built), 'test', ImageFormat(160), styles=('fluent-3d',))
    assert len(images.images) == 20 and all(image.questions for image in images.images)
    assert all(image.names['en'].split(', ') == image.concept.split(' + ') for image in images.images)
    frames = images.frames(images.images[0])
    assert frames.shape == (1, 160, 160, 3) and frames.min() < 100 and frames.max() == 255
    stored = Image.open(io.BytesIO(images.encoded(images.images[0])))
    assert stored.size == (160, 160)


@pytest.mark.parametrize('side', [2, 3])
def test_tiled_scenes_are_the_same_with_their_tiles(built, side, tmp_path):
    """In a corner's quarter there is ink if the scene has a thing there; in so many ninths as it has things."""
    config = Config(name='tiled_tiny', styles=STYLES, heldout_style='fluent-3d', side=side, **SPLITS)
    tiled = building.build(Builder, config, str(SAMPLE), str(tmp_path))
    for one, other in zip(records(built, 'test'), records(tiled, 'test'), strict=True):
        whole, *parts_of = other['frames']
        assert [whole] == list(one['frames']) and len(parts_of) == side**2
        assert one['concept'] == other['concept'] and list(one['answers']) == list(other['answers'])
    for record in records(tiled, 'test'):
        said = parts(record['concept'].decode())
        inked = [(np.asarray(Image.open(io.BytesIO(tile)).convert('L')) < 200).any() for tile in record['frames'][1:]]
        if set(said.values()) <= set(scenes.QUARTERS):
            assert side == 3 or inked == [place in said.values() for place in scenes.QUARTERS], record['concept']
        elif side == 3:
            assert sum(inked) == sum(1 + scenes.NUMBERS.index(number) for number in said.values()), record['concept']
    images = ImageSet(str(tiled), 'test', ImageFormat(160), frames=1 + side**2)
    for tile, frame in enumerate(records(tiled, 'test')[0]['frames']):
        assert Pool(images, dict, 'test', tile).encoded(images.images[0]) == frame


def test_things_are_trained_concepts_of_one_word():
    assert len(set(scenes.THINGS)) == len(scenes.THINGS) == 60 and not any(' ' in thing for thing in scenes.THINGS)
    assert len(read_drawings(SAMPLE, ('noto',))['noto']) > 20  # of 60; the sample has not all


@pytest.mark.parametrize('images, says', [('nothing', 'README.md'), (SAMPLE, 'twemoji')])
def test_a_wrong_input_is_named_with_the_remedy(images, says, tmp_path):
    (tmp_path / 'nothing').mkdir()
    result = subprocess.run(
        [sys.executable, '-m', 'data.picture_scenes.build', f'--images={tmp_path / images}',
         f'--out={tmp_path}/out'],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1 and 'Traceback' not in result.stderr and says in result.stderr
    assert not list(tmp_path.glob('out/picture_scenes/full/1*'))
