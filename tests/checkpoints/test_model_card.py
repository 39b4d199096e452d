"""Cards are in the form of the field: a card of each published bundle, and of what is written now."""

import pathlib

import pytest

from flamingo_jax.checkpoints import model_card
from flamingo_jax.checkpoints.model_card import ModelCard

EXPERIMENTS = pathlib.Path(__file__).parents[2] / 'experiments'
PUBLISHED = ('lm_dictionary', 'lm_names', 'picture_dictionary', 'smollm_bridge')
SECTIONS = (
    'Model description',
    'Intended use',
    'Limits',
    'Training data',
    'Training procedure',
    'Evaluation',
    'How to use',
)


def parts(card: str) -> tuple[dict, list[str]]:
    """The YAML before a card, and the names of its sections."""
    yaml = pytest.importorskip('yaml')
    empty, front, text = card.split('---\n', 2)
    assert not empty
    return yaml.safe_load(front), [line[3:] for line in text.splitlines() if line.startswith('## ')]


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_cards_have_the_fields_and_sections_of_the_field(name):
    fields, sections = parts((EXPERIMENTS / name / 'README.md').read_text(encoding='utf-8'))
    assert tuple(sections[: len(SECTIONS)]) == SECTIONS
    assert fields['license'] == 'apache-2.0' and fields['library_name'] == 'flamingo_jax'
    assert {'language', 'tags', 'datasets', 'metrics'} <= fields.keys() and all(fields.values())
    assert ('base_model' in fields) == (name == 'smollm_bridge')
    assert all(isinstance(one, str) for values in fields.values() for one in values)  # YAML's `no` is no language.


@pytest.mark.parametrize('name', PUBLISHED[:3])
def test_a_bundle_has_the_card_that_its_recipe_names(name):
    beginning = (EXPERIMENTS / f'{name}.md').read_text(encoding='utf-8')
    assert (EXPERIMENTS / name / 'README.md').read_text(encoding='utf-8').startswith(beginning)


def test_what_is_not_known_is_not_made_up():
    card = ModelCard('Φλαμίνγκο', 'It reads.', language=['no', 'en'], tags=['a: b'])
    fields, sections = parts(str(card) + model_card.parameters(dict(lm=1234), step=5))
    assert fields['language'] == ['no', 'en'] and fields['tags'][-1] == 'a: b' and 'datasets' not in fields
    assert (*sections, 'How to use') == (*SECTIONS[:-1], 'Parameters', 'How to use')
    assert str(card).count(model_card.UNKNOWN) == 5 and '| lm | 1,234 |' in model_card.parameters(dict(lm=1234), 5)


def test_a_card_that_somebody_wrote_stays_as_it_is():
    written = '---\nlicense: mit\n---\n\n# Mine\n'
    assert model_card.with_front_matter(written) == written
    fields, _ = parts(model_card.with_front_matter('# Mine\n'))
    assert fields['license'] == 'other' and model_card.with_front_matter('# Mine\n').endswith('# Mine\n')
