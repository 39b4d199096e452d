"""VQAv2 by VQA accuracy, few-shot. DEV in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/vqav2.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path writes the prompts, and reads the answers, as OpenFlamingo does, and `:idefics`
as its suite does for an IDEFICS. Both retrieve examples by a CLIP, as OpenFlamingo's --rices: --config.clip=BUNDLE.
To tune on training questions: --config.tasks.vqav2.query_split=dev. For EvalAI: ...query_split=test-dev.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.vqav2 import VQAv2
from flamingo_jax.evaluation.prompts import named, retrieval


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Random examples, and those most similar to the query."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens = evaluation.ALL, 5
    c.tasks.vqav2 = evaluation.task(VQAv2, prompts=named(prompts), support=('random', retrieval(prompts)))
    return c
