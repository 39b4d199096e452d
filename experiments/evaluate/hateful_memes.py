"""Hateful Memes by ROC AUC, few-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/hateful_memes.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path writes the prompts, and reads the answers, as OpenFlamingo does. `:idefics` has
the prompts of an IDEFICS and ranks as OpenFlamingo does.
OpenFlamingo asks about dev_seen: --config.tasks.hateful_memes.query_split=dev_seen.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.benchmarks.hateful_memes import HatefulMemes
from flamingo_jax.evaluation.prompts import named


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Random examples, and those most similar to the query."""
    c = evaluation.base()
    c.episodes = evaluation.ALL
    answers = ('ranked',) if prompts == 'paper' else ('ranked by length',)
    c.tasks.hateful_memes = evaluation.task(
        HatefulMemes, prompts=named(prompts), answers=answers, support=('random', 'rices')
    )
    return c
