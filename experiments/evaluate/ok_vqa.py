"""OK-VQA by VQA accuracy, few-shot. DEV in the paper.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/ok_vqa.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:open_flamingo` after the config's path writes the prompts, and reads the answers, as OpenFlamingo does, and `:idefics`
as its suite does for an IDEFICS. Both retrieve examples by a CLIP, as OpenFlamingo's --rices: --config.clip=BUNDLE.
To tune on training questions: --config.tasks.ok_vqa.query_split=dev.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.ok_vqa import OKVQA
from flamingo_jax.evaluation.prompts import named, retrieval


def get_config(prompts: str = 'paper') -> ConfigDict:
    """Random examples, and those most similar to the query."""
    c = evaluation.base()
    c.episodes, c.max_new_tokens = evaluation.ALL, 5
    # OpenFlamingo stems predictions, as the set's authors did the references.
    accuracy = 'vqa' if prompts == 'paper' else 'vqa_ok_vqa'
    c.tasks.ok_vqa = evaluation.task(
        OKVQA, prompts=named(prompts), accuracy=accuracy, support=('random', retrieval(prompts))
    )
    return c
