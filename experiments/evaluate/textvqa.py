"""TextVQA by VQA accuracy, few-shot. Held out in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/textvqa.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path writes the prompts, and reads the answers, as OpenFlamingo does, and `:idefics`
as its suite does for an IDEFICS. Both retrieve examples by a CLIP, as OpenFlamingo's --rices: --config.clip=BUNDLE.
For EvalAI: --config.tasks.textvqa.query_split=test.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.textvqa import TextVQA
from flamingo_jax.evaluation.prompts import named, retrieval


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Random examples, and those most similar to the query."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens = evaluation.ALL, 10
    c.tasks.textvqa = evaluation.task(TextVQA, prompts=named(prompts), support=('random', retrieval(prompts)))
    return c
