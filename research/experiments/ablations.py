"""The paper's ablations, small: the quickstart's recipe, one thing changed in each run.

    python -m flamingo_jax.train --config=research/experiments/ablations.py:NAME --workdir=runs/ablations/NAME \
        --config.datasets.bind.path=DATA/picture_dictionary/full/1.0.0 \
        --config.datasets.name.path=DATA/picture_dictionary/full/1.0.0

Data, features, trunk and language model are those of experiments/picture_words.py. NAME is one of these. The figures
are the paper's, of its tables 3 and 10 (version 2): the mean over five benchmarks, at 4 shots, of the score in % of the
best published one.

    base                                                                                                  70.7
    round_robin    each step is of one data set, in turn; the base accumulates over both     3 (ii)       62.9
    no_gates       no tanh gates: both branches are added as they are; less stable           3 (iii)      66.5
    every_2        a gated block before every second LM block, 2 in all                      3 (v)        68.2
    every_4        one gated block, before the first LM block; 68.8 has six                  3 (v)        68.8
                   blocks, and one in the middle has 59.8
    mlp            an MLP for the Perceiver: it maps each of the 25 features by itself, so   3 (vi)       66.6
                   an image has 25 media tokens, where the base has 8; as many parameters
    pooling        one attention of the latents to the features for the Perceiver            no row
    lm_trained     the language model is trained too, from its weights; from random ones     3 (viii)     62.7
                   57.8
    latents_16     16 latents for 8. The paper has 64 in all its models. It varies the       no row
    latents_64     size of the whole resampler (10 (i)): 67.9 smaller, 69.0 larger           no row
    all_images     text sees all images before it, not only the last                       10 (ii)      63.5
    p_next_half    text is tied to the next image in half of the sequences, as in the      10 (iii)     70.7
                   paper's base; never, as in the base here, has 69.6
    p_next_1       text is always tied to the next image                                   10 (iii)     70.4
    random_trunk   a frozen trunk of random weights, which shows what pretraining gives.     no row
                   The paper trains it with the rest (10 (v)): 61.4

The paper draws p_next for web pages, where text may belong to either image. Here text follows its image, so the
next image is always the wrong one. A label can tell its own image only through the tag, which sees it. The first
piece of a label is predicted at the tag. Its other pieces are not, and the last label sees no image.

The random trunk and its features:

    python -m flamingo_jax.convert efficientnet --random_seed=0 --image_size=160 --out=runs/random_trunk \
        --standardise=DATA/picture_dictionary/full/1.0.0 --styles=noto,twemoji,openmoji-color,fluent-flat
    python -m flamingo_jax.features --data=DATA/picture_dictionary/full/1.0.0 --vision=runs/random_trunk \
        --out=runs/random_features --splits=train --views=4
    python -m flamingo_jax.features --data=DATA/picture_dictionary/full/1.0.0 --vision=runs/random_trunk \
        --out=runs/random_features --splits=validation,test
"""

from ml_collections import ConfigDict

from experiments import picture_words, quickstart
from flamingo_jax import commands
from research.experiments import bridges

RANDOM = 'runs/random_features'
# Each change is written as on the command line: --config.model.xattn.gates=False.
ABLATIONS = dict(
    base={},
    # The same number of sequences of each data set takes twice the steps. The warm-up is as long, in sequences.
    round_robin={'round_robin': True, 'steps': 800, 'checkpoint_every': 800, 'optimizer.warmup_steps': 80},
    no_gates={'model.xattn.gates': False},
    every_2={'model.xattn.every': 2},
    every_4={'model.xattn.every': 4},
    # Two linear maps with 2 * (2 + 4) times their width between, for two layers of attention and feed-forward.
    mlp={'model.resampler.ffw_multiplier': 12},
    pooling={},
    lm_trained={'trained': ('lm', 'resampler', 'xattn', 'extra_tokens')},
    latents_16={'model.resampler.latents': 16},
    latents_64={'model.resampler.latents': 64},
    all_images={'model.xattn.only_last_image': False},
    p_next_half={'datasets.bind.p_next': 0.5, 'datasets.name.p_next': 0.5},
    p_next_1={'datasets.bind.p_next': 1.0, 'datasets.name.p_next': 1.0},
    random_trunk={'vision': 'runs/random_trunk', 'datasets.bind.features': RANDOM, 'datasets.name.features': RANDOM},
)


def get_config(name: str = 'base') -> ConfigDict:
    """New words and true names in English as two data sets of 16 sequences each, and one change of that.

    ValueError: the ablation is not known.
    """
    changed = commands.part(ABLATIONS, name)
    c = quickstart.get_config()
    c.steps = c.checkpoint_every = 400
    c.lm, c.vision = 'runs/lm_pictures_bundle', 'runs/trunk'
    both = c.datasets.names
    both.update(path='', features='runs/features', styles=picture_words.STYLES, batch_size=16)
    c.datasets = ConfigDict()
    for kind in ('bind', 'name'):
        c.datasets[kind] = both.copy_and_resolve_references()
        c.datasets[kind].games = ConfigDict({kind: both.games[kind]})
    if name in ('mlp', 'pooling'):
        bridges.put(c, name, kind='gated_xattn')
    c.update_from_flattened_dict(changed)
    return c
