"""The Flamingo in the repository answers as the README says, and the language model of names names things."""

import pathlib

import pytest

import flamingo_jax

ROOT = pathlib.Path(__file__).parents[2]
BUNDLE = ROOT / 'experiments/picture_dictionary'
LANGUAGE_MODEL = ROOT / 'experiments/lm_names'

pytestmark = pytest.mark.usefixtures('quick_compilation')


def picture(name):
    return ROOT / f'docs/pictures/{name}.png'


def test_it_learns_words_for_pictures_and_answers_questions_about_them():
    flamingo = flamingo_jax.load(BUNDLE)
    words = [picture('gorilla'), ' dax kuv<EOC>', picture('mushroom'), ' zev gof<EOC>']
    two = [
        picture('gorilla'),
        ' first<EOC>',
        picture('mushroom_3d'),
        ' second<EOC> Question: which is a plant? Answer:',
    ]
    assert flamingo.generate([*words, picture('mushroom_3d')]) == 'zev gof'
    assert flamingo.generate([*words, picture('gorilla_3d')]) == 'dax kuv'
    assert flamingo.generate(two) == 'second'
    assert flamingo.generate([picture('rooster_3d'), ' Question: is it an animal? Answer:']) == 'yes'


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


@pytest.mark.parametrize('bundle', [BUNDLE, LANGUAGE_MODEL])
def test_it_is_small(bundle):
    assert sum(file.stat().st_size for file in bundle.rglob('*') if file.is_file()) <= 10_000_000
