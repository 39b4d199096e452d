"""What the Flamingo on SmolLM2 learns from its prompt, and what its language model knows of what it sees.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/smollm_pictures.py --checkpoint=WORKDIR \
        --workdir=DIR --config.data=DATA/picture_dictionary/artists/1.0.0 --config.features=runs/artists

`:words`, `:questions`, `:things`, `:artists`, `:names`, `:phrases` or `:facts` after the config's path evaluates that
part alone. Not among the rest: `:seen` and `:unseen` evaluate names in other languages, and `:clips` names of short
videos (its data is DATA/picture_dictionary/clips/1.0.0, without features). `:selection` has the names by which the
temperature of its probabilities is chosen, `:confidence` those by which it is judged (`flamingo_jax.calibrate`).

The images asked about are by artists of whom training showed nothing. `told the names` is the language model alone,
which reads the names of all images.
"""

from collections.abc import Sequence
from functools import partial

from ml_collections import ConfigDict

from experiments.picture_words import KINDS, STYLES
from experiments.smollm_pictures import ARTISTS, BEGINNINGS, FORMS, IS_IT, KIND, NAME, QUESTIONS, SEEN, UNSEEN
from flamingo_jax import commands
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.tasks.facts import Facts
from flamingo_jax.tasks.kinds import Kinds, as_question
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.which import Which
from flamingo_jax.tasks.words import Words
from flamingo_jax.tasks.yes_or_no import YesOrNo

DRAWINGS = dict(query_styles=('fluent-3d',), support_styles=STYLES)
# Examples by one artist: at most one of them shows the thing itself, so that its name must be looked for.
ONE_EACH = DRAWINGS | dict(support_styles=('noto',))
KNOWN = dict(query_split='train', support_split='train')
NAMES = dict(answers=('open-ended',), support=('rices',), prompt=NAME, **KNOWN)
# Other words that ask for a name, and whether an image shows a thing.
NEVER_TRAINED = (
    as_question('What does the picture show?'),
    as_question('What thing is in this image?'),
    as_question('Tell me what this is.'),
    *(' Human: What is this? AI:', ' Instruction: Name the object. Response:'),
    *(' I see a', ' Here is a', ' A drawing of a'),
)
# Drawings and photographs by which a temperature is chosen, and others by which it is judged.
SELECTION, TESTED = ('fxemoji', 'ph'), ('fluent-3d', 'openmoji-black', 'streamline-emojis', 'tux-photo')
DOES_IT_SHOW = 'does this show {}?'


def get_config(part: str = '') -> ConfigDict:
    """All parts but other languages, or one. ValueError: the part is not known."""
    c = evaluation.base()
    parts = dict(words=words, questions=questions, things=things)
    parts |= dict(artists=artists, names=names, phrases=phrases, facts=facts)
    # 35 languages would take longer than all others.
    apart = dict(seen=partial(other_languages, SEEN), unseen=partial(other_languages, UNSEEN), clips=clips)
    apart |= dict(selection=partial(names_by, SELECTION), confidence=partial(names_by, TESTED))
    for add in [commands.part(parts | apart, part)] if part else parts.values():
        add(c)
    return c


def words(c: ConfigDict) -> None:
    """New words for things that training never showed, and what kind of thing they are."""
    c.tasks.words = evaluation.task(
        Words, title='5-way new words', ways=5, shots=(1, 2, 4), prompt=':', told=True, **DRAWINGS
    )
    c.tasks.kinds = evaluation.task(
        Kinds, title='what kind of thing', shots=(8,), kinds=KINDS, prompt=KIND, told=True, **DRAWINGS
    )


def questions(c: ConfigDict) -> None:
    """Yes or no, and which of two images, of things that training never showed."""
    common = dict(kinds=KINDS, told=True, **DRAWINGS)
    c.tasks.yes_or_no = evaluation.task(YesOrNo, title='is it an animal?', shots=(0, 4), **common)
    c.tasks.which = evaluation.task(Which, title='which is an animal?', questions='which', shots=(0, 2), **common)
    c.tasks.what = evaluation.task(Which, title='what kind is the first?', questions='what', shots=(0, 2), **common)


def things(c: ConfigDict) -> None:
    """Yes or no, and which of two images, by the names of things that training showed and of others."""
    for label, split in (('known', 'train'), ('new', 'test')):
        common = dict(shots=(0,), answers=('ranked', 'open-ended'), query_split=split, support_split=split, **DRAWINGS)
        for form in (IS_IT[0], DOES_IT_SHOW):
            title = f'{form.format("a dog")} ({label} things)'
            c.tasks[f'{form.split()[0]}_{label}'] = evaluation.task(YesOrNo, title=title, form=form, **common)
        for questions in ('which is', 'what is'):
            title = f'two images: {questions}, {label} things'
            c.tasks[f'{questions.split()[0]}_{label}'] = evaluation.task(
                Which, title=title, questions=questions, **common
            )


def artists(c: ConfigDict) -> None:
    """New words and names, asked of other artists. The examples of a new word are by any artist of training."""
    for artist in ('openmoji-black', 'fxemoji', 'streamline-emojis', 'ph'):
        c.tasks['words_' + artist.replace('-', '_')] = evaluation.task(
            Words,
            title=f'5-way new words, {artist}',
            ways=5,
            shots=(1, 2),
            prompt=':',
            query_styles=(artist,),
            support_styles=ARTISTS,
        )
        c.tasks['names_' + artist.replace('-', '_')] = evaluation.task(
            Names, title=f'names, {artist}', shots=(0, 8), query_styles=(artist,), support_styles=STYLES, **NAMES
        )


def names(c: ConfigDict) -> None:
    """English names of things that training showed, of drawings and of photographs.

    Few photographs show what the dictionary's four artists drew, and twice as many what any artist of training did.
    """
    common = NAMES | dict(support=('random', 'rices'))
    asked_about = dict(
        drawings=('names of drawings', 'fluent-3d', STYLES),
        photographs=('names of photographs', 'tux-photo', STYLES),
        more_photographs=('names of photographs of all things', 'tux-photo', ARTISTS),
    )
    for label, (title, style, support) in asked_about.items():
        c.tasks[f'names_{label}'] = evaluation.task(
            Names, title=title, shots=(0, 4, 8), query_styles=(style,), support_styles=support, **common
        )


def names_by(artists: Sequence[str], c: ConfigDict) -> None:
    """English names of things that training showed, without examples."""
    for artist in artists:
        c.tasks['names_' + artist.replace('-', '_')] = evaluation.task(
            Names, title=f'names, {artist}', shots=(0,), query_styles=(artist,), support_styles=STYLES, **NAMES
        )


def clips(c: ConfigDict) -> None:
    """English names of short videos; `--config.stills=True` shows the first of their frames alone."""
    c.frames = 8
    videos = dict(query_styles=('fluent-anim',), support_styles=('fluent-anim',))
    c.tasks.names_clips = evaluation.task(Names, title='names of clips', shots=(0,), **videos, **NAMES)


def other_languages(languages: Sequence[str], c: ConfigDict) -> None:
    """Names in these languages, beside examples in the language. Training shows no name in those of `UNSEEN`."""
    for language in languages:
        c.tasks[f'names_{language}'] = evaluation.task(
            Names,
            title=f'names in {language}',
            language=language,
            shots=(4,),
            answers=('open-ended',),
            support=('random', 'rices'),
            prompt=':',
            max_new_tokens=60,  # In a script that SmolLM2 hardly read, each letter takes several.
            **ONE_EACH,
            **KNOWN,
        )


def phrases(c: ConfigDict) -> None:
    """The name of a drawing, asked for in other words: those of training, and some that training never had."""
    first, *other_forms = FORMS
    questions = [first.format(question) for question in QUESTIONS]
    forms = [form.format(QUESTIONS[0]) for form in other_forms]
    for i, phrase in enumerate([*questions, *forms, *BEGINNINGS, *NEVER_TRAINED]):
        c.tasks[f'phrase_{i}'] = evaluation.task(
            Names,
            title=f'names, by `{phrase.strip()}`',
            prompt=phrase,
            shots=(0,),
            answers=('open-ended',),
            controls=(),
            query_styles=('fluent-3d',),
            support_styles=STYLES,
            **KNOWN,
        )


def facts(c: ConfigDict) -> None:
    """Questions that no training sequence asked, about things that training showed and about others."""
    common = dict(facts='data/picture_facts/facts.json', told=True, support_split='train', **DRAWINGS)
    c.tasks.facts_known = evaluation.task(
        Facts, title='facts about known things', shots=(0, 4, 16), query_split='train', **common
    )
    c.tasks.facts_new = evaluation.task(
        Facts, title='facts about new things', shots=(0, 4, 16), query_split='test', **common
    )
