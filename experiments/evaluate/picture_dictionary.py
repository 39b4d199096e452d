"""In-context learning over the whole picture dictionary, on held-out concepts and in held-out styles.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/picture_dictionary.py --checkpoint=WORKDIR \
        --workdir=DIR --config.data=DATA/picture_dictionary/full/1.0.0 --config.features=runs/features

`:words`, `:names`, `:tasks` or `:languages` after the config's path evaluates that part alone. `:ablation` evaluates
a little of two parts.
"""

from ml_collections import ConfigDict

from experiments.picture_dictionary import LANGUAGES
from experiments.picture_words import KINDS, STYLES
from flamingo_jax import commands
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.kinds import Kinds
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.which import Which
from flamingo_jax.tasks.words import Words
from flamingo_jax.tasks.yes_or_no import YesOrNo

HELD_OUT = dict(query_styles=('fluent-3d',), support_styles=STYLES)


def get_config(part: str = '') -> ConfigDict:
    """The tables of research/small_model.md. ValueError: the part is not known."""
    c = evaluation.base()
    parts = dict(words=words, names=names, tasks=tasks, languages=languages, ablation=ablation)
    for add in [commands.part(parts, part)] if part else list(parts.values())[:-1]:
        add(c)
    return c


def words(c: ConfigDict) -> None:
    """New words for concepts that were never trained on; then the same in a style that was."""
    for ways in (2, 5):
        title = f'{ways}-way new words'
        c.tasks[f'words_{ways}'] = evaluation.task(Words, title=title, ways=ways, shots=(1, 2, 4), **HELD_OUT)
    c.tasks.words_photographs = evaluation.task(
        Words,
        title='5-way new words, photographs',
        ways=5,
        shots=(1,),
        query_styles=('tux-photo',),
        support_styles=(*STYLES, 'tux-drawing'),
    )


def named(style: str, **fields) -> ConfigDict:
    """Names of concepts that were trained on, in a style that was not, beside images of the styles that were."""
    splits = dict(query_split='train', support_split='train')
    return evaluation.task(Names, query_styles=(style,), support_styles=STYLES, controls=(), **splits, **fields)


def names(c: ConfigDict) -> None:
    """Names in English; those of drawn stamps once without examples, once with."""
    for label, style in (('drawings', 'fluent-3d'), ('photographs', 'tux-photo')):
        c.tasks[f'names_{label}'] = named(
            style,
            title=f'names of {label}',
            shots=(0, 1, 2, 4, 8, 16),
            support=('random', 'rices'),
            answers=('ranked', 'open-ended'),
        )
    c.tasks.names_stamps = named('tux-drawing', title='names of drawn stamps', shots=(0, 8), support=('rices',))


def tasks(c: ConfigDict) -> None:
    """The same held-out images, asked for their kind, for yes or no, and for one of two."""
    common = dict(kinds=KINDS, **HELD_OUT)
    c.tasks.kinds = evaluation.task(Kinds, title='what kind of thing', shots=(1, 4, 8), **common)
    c.tasks.yes_or_no = evaluation.task(YesOrNo, title='is it an animal?', shots=(1, 4, 8), **common)
    c.tasks.which = evaluation.task(Which, title='which is an animal?', questions='which', shots=(0, 1, 3), **common)
    c.tasks.what = evaluation.task(Which, title='what kind is the first?', questions='what', shots=(0, 1, 3), **common)


def languages(c: ConfigDict) -> None:
    """Names at four shots in each language: is the answer in it, and is it right? And where the name was held out."""
    for language in LANGUAGES:
        for heldout in (False, True) if language in ('gu', 'is', 'ka') else (False,):
            label = f'{language}, held out' if heldout else language
            c.tasks['names_' + label.replace(', ', '_').replace(' ', '_')] = named(
                'fluent-3d',
                title=f'names in {label}',
                language=language,
                heldout=heldout,
                shots=(4,),
                answers=('language', 'open-ended'),
            )


def ablation(c: ConfigDict) -> None:
    """What the ablations are compared by."""
    c.tasks.words = evaluation.task(Words, title='5-way new words', ways=5, shots=(1, 2), controls=(), **HELD_OUT)
    c.tasks.names = named('fluent-3d', title='names of drawings', shots=(4,), support=('rices',))
