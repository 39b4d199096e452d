"""The Flamingo that lies in the repository answers what the README says it does."""

import pathlib

import flamingo_jax

ROOT = pathlib.Path(__file__).parents[2]
BUNDLE = ROOT / 'experiments/picture_dictionary'


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


def test_it_is_small():
    assert sum(file.stat().st_size for file in BUNDLE.rglob('*') if file.is_file()) <= 10_000_000
