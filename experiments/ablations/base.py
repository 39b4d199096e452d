"""The base of the ablations. Each config beside this one changes one thing of it, and says what the paper found.

    python -m flamingo_jax.train --config=experiments/ablations/NAME.py --workdir=runs/ablations/NAME \
        --config.datasets.bind.path=DATA/picture_dictionary/full/1.0.0 \
        --config.datasets.name.path=DATA/picture_dictionary/full/1.0.0

Data, features, trunk and language model are those of experiments/picture_words.py. The paper's figures are its
overall score (version 2): the mean over five benchmarks, at 4 shots, of the score in % of the best published one. Its
base has 70.7. The rows are those of its tables 3 and 10.

    table 3   (ii)    optimisation             round_robin
              (iii)   tanh gating              no_gates
              (v)     how often                every_2, every_4
              (vi)    resampler                mlp
              (viii)  the language model       lm_trained
    table 10  (i)     resampler's size         latents_16, latents_64   (only the number of latents)
              (ii)    several images           all_images
              (iii)   p_next                   p_next_half, p_next_1
              (v)     the trunk                random_trunk             (frozen all the same)
    no row            resampler                pooling
"""

from ml_collections import ConfigDict

from experiments import picture_words, quickstart


def get_config() -> ConfigDict:
    """The quickstart's recipe, with new words and true names in English as two data sets of 16 sequences each."""
    c = quickstart.get_config()
    c.steps = c.checkpoint_every = 400
    c.lm, c.vision = 'runs/lm_pictures_bundle', 'runs/trunk'
    both = c.datasets.names
    both.update(path='', features='runs/features', styles=picture_words.STYLES, batch_size=16)
    c.datasets = ConfigDict()
    for kind in ('bind', 'name'):
        c.datasets[kind] = both.copy_and_resolve_references()
        c.datasets[kind].games = ConfigDict({kind: both.games[kind]})
    return c
