"""The sets of OpenFlamingo's table, asked in the prompts of an IDEFICS, beside the published scores of IDEFICS-9B.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/idefics.py --checkpoint=BUNDLE --workdir=DIR \
        --config.data=FOLDER

All else is as in `experiments/evaluate/open_flamingo.py`. For the larger model:
--config.published=experiments/evaluate/published/IDEFICS-80B.json.
"""

from ml_collections import ConfigDict

from experiments.evaluate import open_flamingo


def get_config(sets: str = '') -> ConfigDict:
    """All sets, or those of a list with commas."""
    return open_flamingo.suite('idefics', 'IDEFICS-9B', sets)
