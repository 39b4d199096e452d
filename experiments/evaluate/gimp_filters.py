"""Name the filter of the third image from two examples, on the pages of GIMP's manual. Chance is one half.

    pip install 'flamingo_jax[build]' && data/debian_pages/fetch.sh RAW en
    python -m flamingo_jax.evaluate --config=experiments/evaluate/gimp_filters.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=RAW
"""

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.gimp_filters import GimpFilters


def get_config() -> ConfigDict:
    """The name is ranked against that of the other example."""
    c = evaluation.base()
    c.tasks.gimp_filters = evaluation.task(GimpFilters)
    return c
