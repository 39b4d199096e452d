"""What a bridge of research/experiments/bridges.py learned, and what training never asked: kinds, and yes or no.

`told the names` is the language model alone, which reads the names of all images.
"""

from ml_collections import ConfigDict

from experiments.evaluate import quickstart, sample_questions


def get_config() -> ConfigDict:
    """New words and names as in the quickstart, kinds and yes or no as in sample_questions.py."""
    c = quickstart.get_config()
    c.tasks.words.shots = (1,)  # LLaVA's prefix of eleven images does not fit into the context.
    questions = sample_questions.get_config()
    for name in ('kinds', 'yes_or_no'):
        c.tasks[name] = questions.tasks[name]
        c.tasks[name].told = True
    return c
