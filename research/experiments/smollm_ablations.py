"""The paper's ablations on a real language model: new gated blocks on SmolLM2, one thing changed in each run.

    python -m flamingo_jax.train --config=research/experiments/smollm_ablations.py:NAME --workdir=runs/ablations/NAME \
        --config.lm=LMS/smollm2 --config.datasets.single.path=ARTISTS --config.datasets.games.path=ARTISTS
    python -m flamingo_jax.evaluate --config=research/experiments/evaluate/smollm_ablations.py --workdir=DIR \
        --checkpoint=runs/ablations/NAME --config.data=ARTISTS --config.features=runs/artists --config.episodes=200

ARTISTS is DATA/picture_dictionary/artists/1.0.0; `experiments/smollm_pictures.py` has the commands that make it and its
features. The resampler is that of `experiments/smollm_bridge`, and frozen. So a run of ten minutes tells how
soon a bridge learns to name drawings by other artists, and to bind new words. NAME is one of these; the rows are those
of the paper's tables 3 and 10:

    base           four gated blocks, before every sixth block of the language model; gates from tanh(1.5) = .905
    half_open      gates of the attention from tanh(.5) = .46, those of the feed-forward closed
    gates_from_0   gates that begin closed, as the paper's do
    no_gates       no gates: both branches are added as they are                              table 3 (iii)
    norms_of_lm    no gates, and the text is normed as the language model norms it
    every_3        nine gated blocks                                                          table 3 (v)
    every_12       two                                                                        table 3 (v)
    wide           the gated feed-forward four times as wide, as in the paper
    all_images     text sees all images before it                                           table 10 (ii)
    at_tag         an image's tag alone sees it
    prefix         no gated blocks: the resampler's 8 latents stand in the text; it is trained too
    qformer        no gated blocks: 8 queries of a new Q-Former in the text, as in BLIP-2; it is trained too
    llava          no gated blocks: each of the 25 places of the trunk's output, by two linear maps
    lm_trained     the language model is trained too                                          table 3 (viii)
"""

from ml_collections import ConfigDict

from experiments import smollm_pictures
from experiments.smollm_pictures import KNOWN, NAME, NAMED, RESAMPLER
from flamingo_jax import commands
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.words import Words
from flamingo_jax.training import config as training
from research.experiments.bridges import put

TOKENS = dict(prefix=RESAMPLER.latents, qformer=RESAMPLER.latents, llava=25)  # What an image takes of the text; else 1.
NEW = dict(qformer='qformer', llava='mlp')  # Kinds of connectors that begin anew.
PREFIX = dict(kind='gated_prefix')
ABLATIONS = dict(
    base={},
    half_open=dict(initial_alpha=0.5, initial_alpha_dense=0.0),
    gates_from_0=dict(initial_alpha=0.0, initial_alpha_dense=0.0),
    no_gates=dict(gates=False),
    norms_of_lm=dict(gates=False, norms_of_lm=True),
    every_3=dict(first=3, every=3),
    every_12=dict(every=12),
    wide=dict(ffw_multiplier=4),
    all_images=dict(only_last_image=False),
    at_tag=dict(only_at_tag=True),
    prefix=PREFIX,
    qformer=PREFIX,
    llava=PREFIX,
    lm_trained={},
)


def get_config(name: str = 'base') -> ConfigDict:
    """The base with one thing changed. ValueError: the ablation is not known."""
    changed = commands.part(ABLATIONS, name)
    c = smollm_pictures.base()
    smollm_pictures.new_bridge(c)
    c.vision = c.resampler = 'experiments/smollm_bridge'
    put(c, NEW.get(name, 'perceiver'), **dict(kind='selective_xattn') | changed)
    if name in NEW:
        c.resampler = ''
    if name in TOKENS:
        c.trained = ('resampler', *c.trained)
    more = TOKENS.get(name, 1) - 1
    single = NAMED | dict(length=64 + 10 * more, window=(9 + more, 1))
    games = dict(
        bind=game(Words, share=0.7, prompt=':', blend=1.0, classes=(2, 4)),
        name=game(Names, share=0.3, prompt=NAME, repeats=0.5),
    )
    row = dict(shots=6, games=games, length=52 + 6 * more, targets=40, images=6)
    c.datasets = ConfigDict(
        dict(
            single=training.dataset(FewShot, batch_size=4, **single, **KNOWN),
            games=training.dataset(FewShot, batch_size=4, **row, **KNOWN),
        )
    )
    if name == 'lm_trained':
        c.trained = ('lm', *c.trained)
        c.optimizer.tree_factors.lm = 0.05
    c.steps, c.optimizer.learning_rate = 200, 1e-3
    return c
