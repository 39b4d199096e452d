"""What the Flamingo on SmolLM2 learns from its prompt, and what its language model knows of what it sees.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/smollm_pictures.py --checkpoint=WORKDIR \
        --workdir=DIR --config.data=DATA/picture_dictionary/full/1.0.0 --config.features=runs/features

`:words`, `:names` or `:facts` after the config's path evaluates that part alone. The pictures asked about are in styles
that training never showed. `told the names` is the language model alone, which reads the names of all pictures.
"""

from ml_collections import ConfigDict

from experiments.picture_words import KINDS, STYLES
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.few_shot.facts import Facts
from flamingo_jax.few_shot.kinds import Kinds
from flamingo_jax.few_shot.names import Names
from flamingo_jax.few_shot.words import Words

DRAWINGS = dict(query_styles=('fluent-3d',), support_styles=STYLES)
KNOWN = dict(query_split='train', support_split='train')


def get_config(part: str = '') -> ConfigDict:
    """All parts, or one."""
    c = evaluation.base()
    parts = dict(words=words, names=names, facts=facts)
    for add in [parts[part]] if part else parts.values():
        add(c)
    return c


def words(c: ConfigDict) -> None:
    """New words for things that training never showed, and what kind of thing they are."""
    c.tasks['5-way new words'] = evaluation.task(Words, ways=5, shots=(1, 2, 4), prompt=':', told=True, **DRAWINGS)
    c.tasks['what kind of thing'] = evaluation.task(Kinds, shots=(8,), kinds=KINDS, prompt=':', told=True, **DRAWINGS)


def names(c: ConfigDict) -> None:
    """English names of things that training showed, of drawings and of photographs."""
    common = dict(answers=('open-ended',), support=('random', 'rices'), prompt=':', controls=False, **KNOWN)
    for label, style in (('drawings', 'fluent-3d'), ('photographs', 'tux-photo')):
        c.tasks[f'names of {label}'] = evaluation.task(
            Names, shots=(0, 4, 8), query_styles=(style,), support_styles=STYLES, **common
        )


def facts(c: ConfigDict) -> None:
    """Questions that no training sequence asked, about things that training showed and about others."""
    common = dict(facts='data/picture_facts/facts.json', told=True, support_split='train', **DRAWINGS)
    c.tasks['facts about known things'] = evaluation.task(Facts, shots=(0, 4, 8), query_split='train', **common)
    c.tasks['facts about new things'] = evaluation.task(Facts, shots=(0, 4, 8), query_split='test', **common)
