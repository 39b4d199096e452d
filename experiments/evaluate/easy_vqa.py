"""easy-VQA, few-shot: `what color is the shape?`, `is there a circle?`. Majority answer of each question: .678.

    pip download --no-deps easy-vqa==1.0 && unzip easy_vqa-1.0-py3-none-any.whl -d easy_vqa
    python -m flamingo_jax.evaluate --config=experiments/evaluate/easy_vqa.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=easy_vqa/easy_vqa/data
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.easy_vqa import EasyVQA


def get_config() -> ConfigDict:
    """The answer is ranked among the 13, and written freely."""
    c = evaluation.base()
    c.max_new_tokens = 5
    c.tasks.easy_vqa = evaluation.task(
        EasyVQA, shots=(0, 4), answers=('ranked', 'open-ended'), support=('random', 'rices'), text_examples=2
    )
    return c
