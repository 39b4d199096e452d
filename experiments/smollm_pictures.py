"""A Flamingo on a real language model: SmolLM2-135M learns to see images by many artists.

    data/language_models/fetch.sh LMS smollm2
    data/picture_dictionary/fetch.sh --icons RAW
    python -m data.picture_dictionary.build --raw=RAW --out=DATA --config=artists
    python -m flamingo_jax.convert efficientnet --image_size=160 --out=runs/trunk \
        --standardise=DATA/picture_dictionary/artists/1.0.0 --styles=noto,twemoji,openmoji-color,fluent-flat
    python -m flamingo_jax.features --data=DATA/picture_dictionary/artists/1.0.0 --vision=runs/trunk \
        --out=runs/artists --splits=train --views=8
    python -m flamingo_jax.features --data=DATA/picture_dictionary/artists/1.0.0 --vision=runs/trunk \
        --out=runs/artists --splits=validation,test
    data/dictionary_text/fetch.sh RAW/wordnet
    python -m data.picture_texts.build --images=DATA/picture_dictionary/artists/1.0.0 --wordnet=RAW/wordnet \
        --out=runs/texts.jsonl
    python -m data.picture_texts.dialogues --images=DATA/picture_dictionary/artists/1.0.0 \
        --styles=noto,twemoji,openmoji-color,fluent-flat --lm=LMS/smollm2 --out=runs/dialogues.jsonl
    pip download --no-deps timm==1.0.19
    python -m data.imagenet_names.build --images=DATA/picture_dictionary/artists/1.0.0 --features=runs/artists \
        --vision=runs/trunk --labels=timm-1.0.19-py3-none-any.whl --wordnet=RAW/wordnet --out=DATA \
        --features_out=runs/imagenet_names
    for CONFIG in quarters ninths; do
      python -m data.picture_scenes.build --config=$CONFIG --images=DATA/picture_dictionary/artists/1.0.0 --out=DATA
      python -m flamingo_jax.features --data=DATA/picture_scenes/$CONFIG/1.1.0 --vision=runs/trunk \
          --out=runs/features_$CONFIG
    done
    ARTISTS=DATA/picture_dictionary/artists/1.0.0 CLASSES=DATA/imagenet_names/full/1.1.0
    python -m flamingo_jax.train --config=experiments/smollm_pictures.py:contrast --workdir=runs/smollm_contrast \
        --config.lm=LMS/smollm2 --config.datasets.names.path=$ARTISTS --config.datasets.known.path=$ARTISTS \
        --config.datasets.classes.path=$CLASSES
    python -m flamingo_jax.convert run --source=runs/smollm_contrast --out=runs/smollm_resampler
    PATHS="--config.lm=LMS/smollm2 --config.datasets.captions.path=$ARTISTS --config.datasets.known.path=$ARTISTS \
        --config.datasets.classes.path=$CLASSES --config.datasets.games.path=$ARTISTS"
    python -m flamingo_jax.train --config=experiments/smollm_pictures.py --workdir=runs/smollm_pictures $PATHS
    python -m flamingo_jax.convert run --source=runs/smollm_pictures --out=runs/smollm_names --without_lm
    python -m flamingo_jax.train --config=experiments/smollm_pictures.py:further --workdir=runs/smollm_further $PATHS \
        --config.start=runs/smollm_names --config.datasets.pairs.path=$ARTISTS \
        --config.datasets.languages.path=$ARTISTS --config.datasets.texts.path=$ARTISTS \
        --config.datasets.dialogues.path=$ARTISTS --config.datasets.answers.path=$ARTISTS \
        --config.datasets.quarters.path=DATA/picture_scenes/quarters/1.1.0 \
        --config.datasets.ninths.path=DATA/picture_scenes/ninths/1.1.0

Without `--config.start`, `:further` goes on from the published bridge; take features of its trunk
(`--vision=experiments/smollm_bridge`). So do `:asked`, with single images, pairs and other languages alone, `:games`,
with few-shot games alone, and `:together`, with all but texts and dialogues.
`--config.resampler=experiments/smollm_bridge` lets `:contrast` go on with the published resampler. The published bridge
came about in more steps: research/tried.md has them.

The bridge does not change a text without images: both gated branches act only on tokens that may see one.

First, the resampler alone learns to tell names apart, with a classifier that is thrown away (`contrast`); from then on
it is frozen. Then the gated blocks learn to say the names of single images, and few-shot games. Their gates begin
open, since they learn sooner so (research/bridges.md). Last, they learn all that may be asked, and go on with texts
and dialogues as the language model does when it is told the names (`further`). What photographs show is known to the
trunk's own classifier, which `data/imagenet_names` turns into features.

A scene of several things is shown as images of its parts, each with its place, and as a whole (LLaVA 1.6, Liu et al.
2024). So `where is the dog?` asks which of several images shows a dog, as is asked of pairs; and `how many: dog?`, of
nine parts, how many do.

New words are for things that training never showed. So all things in the games of new words are blends of two
things, which have no name and are different in each sequence: to learn the things by heart does not help.
"""

from functools import partial

from ml_collections import ConfigDict

from experiments.picture_dictionary import LANGUAGES
from experiments.picture_words import KINDS, STYLES
from flamingo_jax import commands
from flamingo_jax.model.bridges.selective_xattn import SelectiveXattnConfig
from flamingo_jax.model.config import ContrastiveConfig
from flamingo_jax.model.connectors.perceiver import PerceiverConfig
from flamingo_jax.tasks.kinds import Kinds, as_question
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.questions import Questions
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.texts import Texts
from flamingo_jax.tasks.which import Which
from flamingo_jax.tasks.words import Words
from flamingo_jax.tasks.yes_or_no import YesOrNo
from flamingo_jax.training import config as training
from flamingo_jax.training.objectives.contrastive import Paired
from flamingo_jax.training.objectives.told import Told

# Whose images are trained on. Of the other artists, no image is: fluent-3d, openmoji-black, fxemoji,
# streamline-emojis, ph (Phosphor), and the photographs and drawings of Tux Paint.
ARTISTS = (
    *STYLES,
    *('emojione', 'noto-v1', 'icon-park', 'glyphs-poly', 'flat-color-icons', 'streamline-color', 'marketeq'),
    *('streamline-cyber-color', 'streamline-plump-color', 'streamline-kameleon-color', 'streamline-ultimate-color'),
    *('game-icons', 'iconmind', 'hugeicons', 'mdi', 'whh', 'tabler', 'mingcute', 'picon', 'boxicons', 'fa7-solid'),
    *('material-symbols', 'lucide', 'ri', 'healthicons', 'solar', 'carbon', 'si-glyph'),
)
# Validation is on things that training never shows.
DRAWINGS = dict(features='runs/artists', styles=ARTISTS, validation_split='validation')
# The things that the dictionary's four styles show. A third of all things have one drawing, by one artist: with all
# things alike, their names would be a third of the training, and the names that most artists draw come late.
KNOWN = DRAWINGS | dict(styles=STYLES)
# The same things by all artists, lest four artists' drawings be learned by heart.
BY_ALL = DRAWINGS | dict(things_of=STYLES)
CLASSES = dict(path='DATA/imagenet_names/full/1.1.0', features='runs/imagenet_names', styles=('imagenet',))
# No training names an image in these languages.
UNSEEN = ('hu', 'nl', 'pt', 'sv', 'uk', 'zh')
SEEN = tuple(language for language in LANGUAGES if language not in ('en', *UNSEEN))
NAME, KIND = ' name:', ' kind:'  # What is asked of an image. A new word is asked for by a colon alone.
# How a name is asked for, and how often: by ` name:`, by the beginning of a sentence, or by a question in one of these
# forms. With few phrases, others are hardly understood.
FORMS = {
    as_question('{}'): 0.3,
    ' {}': 0.06,
    ' Q: {} A:': 0.06,
    ' User: {} Assistant:': 0.06,
    ' USER: {} ASSISTANT:': 0.06,
}
QUESTIONS = (
    *('What is this?', 'What is in the picture?', 'What do you see?', 'What is shown here?', 'What is it called?'),
    *('Which thing is it?', 'What object is this?', 'What is in this image?', 'What is depicted?', 'Name it.'),
    *('What can you see in the photo?', 'Identify the object.'),
)
BEGINNINGS = (
    *(' Output:', ' An image of', ' Caption:', ' Answer:', ' This is a', ' An image of a', ' Object:', ' Label:'),
    *(' The image shows a', ' A photo of a'),
)
PHRASES = {NAME: 0.24}
PHRASES |= {form.format(question): share / len(QUESTIONS) for form, share in FORMS.items() for question in QUESTIONS}
PHRASES |= dict.fromkeys(BEGINNINGS, 0.22 / len(BEGINNINGS))
# How it is asked whether an image shows a thing.
IS_IT = ('is it {}?', 'is this {}?', 'is there {} in the image?', 'can you see {}?')
# Ten single images a row at most, each with its name. The window holds the longest question with its answer.
SINGLE = dict(shots=1, games={phrase: game(Names, prompt=phrase, share=share) for phrase, share in PHRASES.items()})
SINGLE |= dict(length=64, targets=48, images=10, documents=10, window=(24, 1))
# The same, where a name is asked for in one way.
NAMED = SINGLE | dict(games=dict(name=game(Names, prompt=NAME)))


def games_of(**shares: float) -> dict[str, ConfigDict]:
    """The few-shot games of these names, with their shares."""
    games = dict(
        bind=partial(game, Words, prompt=':', blend=1.0, text_keys=0.1, real_words=0.3, classes=(3, 6)),
        name=partial(game, Names, prompt=NAME, similar=0.5, repeats=0.5),
        kind=partial(game, Kinds, prompt=KIND, kinds=KINDS),
        what_kind=partial(game, Kinds, prompt=as_question('What kind of thing is this?'), kinds=KINDS),
        yes_or_no=partial(game, YesOrNo, kinds=KINDS),
        is_it=partial(game, YesOrNo, forms=IS_IT),
        which=partial(game, Which, kinds=KINDS),
        which_thing=partial(game, Which),
    )
    return {name: games[name](share=share) for name, share in shares.items()}


# Single images of which the name is asked, or the kind, or whether they are of a kind or have a name. Without
# examples, only the question tells which.
ASKED = SINGLE | dict(games=SINGLE['games'] | games_of(kind=0.07, what_kind=0.07, yes_or_no=0.14, is_it=0.14))
# Pairs of images without examples, so that the question alone tells what is asked of two.
PAIRS = SINGLE | dict(shots=2, games=games_of(which=0.4, which_thing=0.6), images=6, window=(32, 2))
# Names in one of 29 languages. Things come several times, so that a name can be taken from an example; or examples are
# similar, so that it must be seen whether one shows the thing.
COPIED = dict(shots=6, games=dict(name=game(Names, prompt=':', languages=SEEN, similar=0.5, repeats=1.0)))
COPIED |= dict(length=128, targets=96, images=6)
# What photographs show, after the drawings that are most similar to it, which may show other things.
BESIDE = dict(shots=6, games=dict(name=game(Names, prompt=NAME, similar=1.0)), **CLASSES | dict(styles=()))
BESIDE |= dict(length=64, targets=40, images=6)
# Twelve images a row at most, of one game.
GAMES = dict(shots=12, length=96, targets=60, images=12)
GAMES |= dict(
    games=games_of(
        bind=0.4, name=0.1, kind=0.15, what_kind=0.05, yes_or_no=0.05, is_it=0.05, which=0.1, which_thing=0.1
    )
)
# What the language model says when it is told the name, the Flamingo is to say when it sees the thing.
TOLD = dict(row=Told, **BY_ALL | dict(validation_split=''))  # There are no texts about other things.
TALK = dict(shots=1, games=dict(talk=game(Texts, path='runs/dialogues.jsonl')), images=1)
# A thing is named where its first answer begins, so that short rows teach names for the least.
ANSWERS = TALK | TOLD | dict(length=36, targets=20)
# Eight million parameters with the gated blocks: in bfloat16 they are less than 20 MB.
RESAMPLER = PerceiverConfig(latents=8, width=256, depth=2, heads=4, head_dim=64)


def get_config(stage: str = '') -> ConfigDict:
    """A stage, or ValueError. 'contrast' makes a resampler, '' a bridge with it; the others go on."""
    stages = {'contrast': contrast, '': bridge, 'further': further}
    stages |= {'asked': asked_alone, 'games': games_alone, 'together': together}
    c = base()
    commands.part(stages, stage)(c)
    return c


def base() -> ConfigDict:
    """What all stages share."""
    c = training.base()
    c.noise.feature_dropout = 0.1
    c.optimizer.update(warmup_steps=50, final_fraction=0.1, weight_decay=0.05, b2=0.98, gate_factor=3.0)
    c.checkpoint_every, c.validate_every, c.validation_batches = 100, 200, 8
    return c


def contrast(c: ConfigDict) -> None:
    """A new resampler, and a linear classifier of names behind it."""
    c.lm, c.vision = 'runs/smollm2', 'runs/trunk'  # Of the language model, only the width counts.
    c.model.resampler = ConfigDict(RESAMPLER.to_json())
    c.model.contrastive = ConfigDict(vars(ContrastiveConfig(loss='classes', scale=24.0)))
    c.trained = ('resampler', 'contrastive')
    pairs = dict(row=Paired, shots=1, games=dict(name=game(Names)), length=12, images=1)
    c.datasets.names = training.dataset(FewShot, batch_size=96, **pairs, **DRAWINGS)
    c.datasets.known = training.dataset(FewShot, batch_size=48, **pairs, **BY_ALL)
    c.datasets.classes = training.dataset(FewShot, batch_size=32, **pairs, **CLASSES)
    c.steps, c.optimizer.learning_rate = 1800, 1e-3


def new_bridge(c: ConfigDict) -> None:
    """New gated blocks, between a frozen resampler and the language model."""
    c.lm, c.vision, c.resampler, c.image_tag = 'runs/smollm2', 'runs/trunk', 'runs/smollm_resampler', 'token'
    # A block before the first layer closes its gate: the last token of a name is not yet the name there.
    xattn = SelectiveXattnConfig(
        first=6,
        every=6,
        heads=6,
        head_dim=64,
        ffw_multiplier=1,
        initial_alpha=1.5,
        initial_alpha_dense=1.5,
        ffw_where_seen=True,
    )
    c.model.resampler = ConfigDict(RESAMPLER.to_json())
    c.model.xattn = ConfigDict(xattn.to_json())
    c.trained = ('xattn', 'extra_tokens')
    c.remat = 'dots'


def bridge(c: ConfigDict) -> None:
    """New gated blocks learn names by one phrase, and few-shot games: beside all else, names come late."""
    new_bridge(c)
    c.datasets.known = training.dataset(FewShot, batch_size=8, **NAMED, **BY_ALL)
    other_images(c, NAMED)
    c.noise.feature_dropout = 0.0
    c.steps, c.optimizer.learning_rate = 500, 1e-3


def further(c: ConfigDict) -> None:
    """The published bridge, or another that knows names (`config.start`), learns all that may be asked."""
    without_noise(c)
    all_asked(c, 8)
    scenes(c)
    other_images(c, SINGLE)
    c.datasets.answers = training.dataset(FewShot, batch_size=16, loss_weight=0.7, **ANSWERS)
    texts = TOLD | dict(loss_weight=0.3)
    go_on = dict(shots=3, games=dict(go_on=game(Texts, path='runs/texts.jsonl')), length=64, images=3)
    c.datasets.texts = training.dataset(FewShot, batch_size=1, **go_on, **texts)
    c.datasets.dialogues = training.dataset(FewShot, batch_size=1, length=104, **TALK, **texts)
    c.steps = 400


def asked_alone(c: ConfigDict) -> None:
    """The published bridge is asked, of single images and of pairs, and takes names from examples."""
    without_noise(c)
    all_asked(c, 16)


def games_alone(c: ConfigDict) -> None:
    """The published bridge plays few-shot games, most of them with new words. It forgets some names."""
    without_noise(c)
    games = games_of(bind=0.8, kind=0.1, name=0.1)
    c.datasets.games = training.dataset(FewShot, batch_size=10, **GAMES | dict(games=games), **DRAWINGS)
    c.steps = 400


def together(c: ConfigDict) -> None:
    """The same, beside scenes, answers in a chat and few-shot games."""
    without_noise(c)
    all_asked(c, 8)
    scenes(c)
    c.datasets.classes = training.dataset(FewShot, batch_size=1, loss_weight=0.5, **SINGLE, **CLASSES)
    c.datasets.beside = training.dataset(FewShot, batch_size=2, loss_weight=0.5, **BESIDE)
    c.datasets.answers = training.dataset(FewShot, batch_size=6, loss_weight=0.7, **ANSWERS)
    c.datasets.games = training.dataset(FewShot, batch_size=2, **GAMES, **DRAWINGS)
    c.optimizer.learning_rate = 8e-4


def all_asked(c: ConfigDict, rows: int) -> None:
    """`rows` of single images, each with its question, and a quarter as many of pairs, and of other languages."""
    c.datasets.known = training.dataset(FewShot, batch_size=rows, **ASKED, **BY_ALL)
    c.datasets.pairs = training.dataset(FewShot, batch_size=rows // 4, **PAIRS, **DRAWINGS)
    c.datasets.languages = training.dataset(FewShot, batch_size=rows // 4, **COPIED, **BY_ALL)


def scenes(c: ConfigDict) -> None:
    """Three scenes a row, so that a question has none, one or two examples, and two questions about each."""
    for name, tiles, length, rows, questions in (
        ('quarters', 5, 144, 2, ('what is in', 'where is')),
        ('ninths', 10, 192, 6, ('how many',)),
    ):
        games = {
            begins.replace(' ', '_'): game(Questions, questions=begins, each=2, tiled=True) for begins in questions
        }
        row = dict(shots=3, tiles=tiles, games=games, images=3 * tiles, length=length, targets=24)
        held_out = dict(features=f'runs/features_{name}', validation_split='validation')
        c.datasets[name] = training.dataset(FewShot, batch_size=rows, **row, **held_out)


def other_images(c: ConfigDict, single: dict) -> None:
    """Single images of all things and of ImageNet's classes, `single` being what is asked; and few-shot games."""
    c.datasets.captions = training.dataset(FewShot, batch_size=1, loss_weight=0.5, **single, **DRAWINGS)
    c.datasets.classes = training.dataset(FewShot, batch_size=1, loss_weight=0.5, **single, **CLASSES)
    c.datasets.games = training.dataset(FewShot, batch_size=3, **GAMES, **DRAWINGS)


def without_noise(c: ConfigDict) -> None:
    """The published bridge goes on, for minutes and without noise. The mean with the bridge before keeps the rest."""
    go_on_from(c)
    c.noise.feature_dropout = 0.0
    c.steps, c.optimizer.learning_rate = 150, 1e-3


def go_on_from(c: ConfigDict, start: str = 'experiments/smollm_bridge') -> None:
    """The gated blocks of the published bridge go on, or those of another."""
    c.start, c.lm, c.trained = start, 'runs/smollm2', ('xattn', 'extra_tokens')
    c.remat = 'dots'
    c.optimizer.update(learning_rate=5e-4, warmup_steps=20)
