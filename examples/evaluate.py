"""Evaluate a model few-shot on a set, and read its scores beside their baselines.

    python examples/evaluate.py --workdir=DIR [--episodes=100] [--checkpoint=experiments/picture_dictionary]

Two tasks of the repository's own sample: the English name of a drawing, written freely after 0 and 4 examples, and new
words for things that training never showed. A published benchmark is asked in the same way: `Vqav2` and others in
flamingo_jax/evaluation/datasets/ take the place of `Names`, and `c.data` is the folder of its files. For those,
`python -m flamingo_jax.evaluate --config=experiments/evaluate/vqav2.py` is the same as this script.

Cost: some minutes on two CPU cores for 100 episodes; it was not timed. Answers are kept in the workdir, so that a
second run, with more episodes or shots, asks only what is new.

Expect a table as in README.md, the paths of the report, and one line for each of the four settings:

    words, 2 shots: SCORE ±HALF, shuffled images SCORE, nearest centroid SCORE

A score without its baselines says little. Shuffled images: the same prompts with images of others. Nearest centroid:
the frozen features alone. HALF is half of the 95 % interval over the images that are asked about.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', 'experiments/picture_dictionary', 'A bundle, or the workdir of a training run.')
    flags.DEFINE_string('workdir', None, 'Folder of the report.', required=True)
    flags.DEFINE_integer('episodes', 100, 'Questions of each setting.', lower_bound=1)
    commands.start(__doc__)

import pathlib

from ml_collections import ConfigDict

from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.run import evaluate
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.words import Words

ROOT = pathlib.Path(__file__).parents[1]


def get_config() -> ConfigDict:
    """Which set, which tasks, and how each is asked."""
    c = evaluation.base()
    c.data = str(ROOT / 'data/picture_dictionary/sample')
    c.num_beams = 1  # The paper has 3, which takes longer.
    # Asked about drawings in one style, with examples in others: what is asked about is never among the examples.
    styles = dict(query_styles=('fluent-3d',), support_styles=('noto', 'noto-v1', 'fluent-flat'))
    c.tasks.names = evaluation.task(
        Names,
        shots=(0, 4),
        answers=('open-ended',),  # Written, and right if it is the name exactly. 'ranked' chooses among all names.
        support=('random',),  # Or 'rices': the most similar images as examples.
        query_split='train',
        support_split='train',
        **styles,
    )
    c.tasks.words = evaluation.task(Words, ways=5, shots=(1, 2), query_split='test', support_split='test', **styles)
    return c


def main(checkpoint: str, workdir: str, episodes: int) -> None:
    """Evaluates, and prints what a paper would report."""
    config = get_config()
    config.episodes = episodes
    for row in evaluate(config, checkpoint, workdir):
        model, scores = row.scores['model'], {name: f'{score.value:.2f}' for name, score in row.scores.items()}
        print(
            f'{row.task}, {row.shots} shots: {model.value:.2f} ±{model.interval:.2f}, '
            f'shuffled images {scores["shuffled images"]}, nearest centroid {scores["nearest centroid"]}'
        )


if __name__ == '__main__':
    f = flags.FLAGS
    main(f.checkpoint, f.workdir, f.episodes)
