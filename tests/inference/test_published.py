"""The Flamingo in the repository answers as the README says, and the language model of names names things."""

import os
import pathlib

import PIL.Image
import pytest

import flamingo_jax
from flamingo_jax.inputs.prompts import chat, in_tiles

ROOT = pathlib.Path(__file__).parents[2]
BUNDLE = ROOT / 'experiments/picture_dictionary'
BRIDGE = ROOT / 'experiments/smollm_bridge'
LANGUAGE_MODEL = ROOT / 'experiments/lm_names'

pytestmark = pytest.mark.usefixtures('quick_compilation')


def image(name):
    return ROOT / f'docs/pictures/{name}.png'


def test_it_learns_words_for_images_and_answers_questions_about_them():
    flamingo = flamingo_jax.load(BUNDLE)
    words = [image('gorilla'), ' dax kuv<EOC>', image('mushroom'), ' zev gof<EOC>']
    two = [
        image('gorilla'),
        ' first<EOC>',
        image('mushroom_3d'),
        ' second<EOC> Question: which is a plant? Answer:',
    ]
    assert flamingo.generate([*words, image('mushroom_3d')]) == 'zev gof'
    assert flamingo.generate([*words, image('gorilla_3d')]) == 'dax kuv'
    assert flamingo.generate(two) == 'second'
    assert flamingo.generate([image('rooster_3d'), ' Question: is it an animal? Answer:']) == 'yes'


def test_the_language_model_takes_the_language_from_the_lines_before():
    english = ('dog', 'cat', 'tree', 'ship')
    languages = {
        ('Hund', 'Katze', 'Baum', 'Schiff'): ['Elefant', 'Schlüssel'],
        ('chien', 'chat', 'arbre', 'bateau'): ['éléphant', 'clé'],
        ('собака', 'кошка', 'дерево', 'корабль'): ['слон', 'ключ'],
    }
    model = flamingo_jax.load(LANGUAGE_MODEL)
    for shown, answers in languages.items():
        lines = [text for a, b in zip(english, shown, strict=True) for text in (f' {a}', f' {b}', '\n')]
        assert model.generate([[*lines, ' elephant'], [*lines, ' key']], stop=('\n',)) == answers


@pytest.mark.parity
def test_the_bridge_on_a_real_language_model_answers_as_the_readme_says():
    """LANGUAGE_MODELS is the folder where data/language_models/fetch.sh left smollm2."""
    language_model = pathlib.Path(os.environ.get('LANGUAGE_MODELS', '.')) / 'smollm2'
    if not language_model.is_dir():
        pytest.skip('no smollm2 in LANGUAGE_MODELS')
    bridge = flamingo_jax.load(BRIDGE, lm=language_model)
    boat, spider = image('sailboat_3d'), image('spider_3d')
    asked = {
        'sailboat': [boat, ' Question: What is shown here? Answer:'],
        'second': [boat, ' first<EOC>', spider, ' second<EOC> Question: which is an animal? Answer:'],
        'yes': [boat, ' Question: is it a ship? Answer:'],
        'svamp': [
            image('mushroom'),
            ': svamp<EOC>',
            image('gorilla'),
            ': gorilla<EOC>',
            image('mushroom_3d'),
            ':',
        ],
        'bottom right': [
            *in_tiles(PIL.Image.open(image('scene_3d'))),
            ' Question: where is the flamingo? Answer:',
        ],
    }
    assert bridge.generate(list(asked.values())) == list(asked)
    story = bridge.generate(chat([boat, ' Write a short story about it.']), max_new_tokens=30)
    assert story.startswith('Once upon a time') and 'sailboat' in story


@pytest.mark.parametrize('bundle, most', [(BUNDLE, 10), (LANGUAGE_MODEL, 10), (BRIDGE, 20)])
def test_it_is_small(bundle, most):
    """In megabytes."""
    assert sum(file.stat().st_size for file in bundle.rglob('*') if file.is_file()) <= most * 1_000_000
