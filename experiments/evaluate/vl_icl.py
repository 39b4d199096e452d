"""VL-ICL Bench, its six tasks of images to text.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/vl_icl.py --checkpoint=BUNDLE_OR_WORKDIR \
        --workdir=DIR --config.data=FOLDER

`:drawn` after the config's path asks a folder that `python -m data.icl_tasks.build` drew. It adds clock arithmetic, and
answers that are ranked, with every control that the share of the few-shot gain needs. The set's own instructions, which
are in the code of the benchmark, go before a prompt with `--config.tasks.clevr.instruction='...'`.
"""

from ml_collections import ConfigDict

from flamingo_jax import commands
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.datasets.vl_icl import PARTS, VLICL

OF_TWO = ('open_mi', 'matching_mi')  # A shot is two demonstrations, and `open_mi` has five of each class.


def get_config(which: str = 'published') -> ConfigDict:
    """Answers are written by one beam, as the benchmark's code has it."""
    drawn = commands.part(dict(published=False, drawn=True), which)
    c = evaluation.base()
    c.episodes, c.num_beams = evaluation.ALL, 1
    for part in (*PARTS, *['operator_induction_clock'] * drawn):
        how = dict(answers=('open-ended', 'ranked'), controls=('gain',)) if drawn else {}
        shots = (0, 1, 2, 4, 5) if part in OF_TWO else (0, 1, 2, 4, 8)
        c.tasks[part] = evaluation.task(VLICL, part=part, shots=shots, **how)
    return c
