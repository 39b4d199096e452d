"""The quickstart: a Flamingo that learns new words from its prompt, trained and evaluated on an ordinary CPU.

    python experiments/quickstart.py [--workdir=runs/quickstart]
    python -m flamingo_jax.quickstart [--workdir=runs/quickstart]     (the same, from an installed package)

It runs the project's own commands one after the other, and prints each. It converts the trunk and computes its
features once. It trains the resampler and the gated blocks between the frozen trunk and the frozen language model of
experiments/lm_dictionary/. Last, it evaluates the result on held-out concepts in a held-out style. Run again, it
resumes.

As the config of a training run: python -m flamingo_jax.train --config=experiments/quickstart.py --workdir=DIR
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('workdir', 'runs/quickstart', 'Folder of all that is made.')
    flags.DEFINE_integer('steps', None, 'Training steps; by default those of the config.')
    flags.DEFINE_integer('episodes', 400, 'Episodes a setting of the evaluation.')
    commands.start(__doc__)

import os
import pathlib
import shlex
import subprocess
import sys
import time

from ml_collections import ConfigDict

from flamingo_jax.model.config import TINY
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.words import Words
from flamingo_jax.training import config as training

SAMPLE = 'data/picture_dictionary/sample'
STYLES = ('noto', 'noto-v1', 'fluent-flat')


def get_config() -> ConfigDict:
    """Sequences of eight examples: new words for images, and their true names in English.

    The names are more than a second task: trained on new words alone, the model only guesses among the words of the
    prompt (5-way .168 after 450 steps; .575 after 300 with this mixture).
    """
    c = training.base()
    c.steps = 500
    c.lm = 'experiments/lm_dictionary'
    c.vision = 'runs/quickstart/trunk'
    c.image_tag = 'token'
    c.model.resampler = ConfigDict(TINY['resampler'].to_json())
    # The paper's gates begin at 0, which takes about twice the steps.
    c.model.xattn = ConfigDict(TINY['xattn'].to_json() | dict(initial_alpha=0.5))
    c.datasets.names = training.dataset(
        FewShot,
        shots=8,
        games=dict(bind=game(Words, share=0.6), name=game(Names, share=0.4)),
        path=SAMPLE,
        features='runs/quickstart/features',
        styles=STYLES,
        length=56,
        images=8,
        batch_size=32,
    )
    c.noise.feature_dropout = 0.1
    c.optimizer.update(learning_rate=1.5e-3, warmup_steps=40, final_fraction=0.05, weight_decay=0.05, b2=0.98)
    c.optimizer.gate_factor = 3.0
    c.checkpoint_every = 250
    return c


def main(workdir: str, steps: int | None, episodes: int) -> None:
    """Runs the commands; the arguments are the flags."""
    work, start = pathlib.Path(workdir).expanduser().absolute(), time.time()
    os.chdir(pathlib.Path(__file__).parents[1])  # Paths of the configs begin at the project's root.
    trunk, features, model = work / 'trunk', work / 'features', work / 'model'
    if not (trunk / 'config.json').is_file():
        measured = (f'--standardise={SAMPLE}', f'--styles={",".join(STYLES)}')
        run('flamingo_jax.convert', 'efficientnet', *measured, '--image_size=160', f'--out={trunk}')
    run('flamingo_jax.features', f'--data={SAMPLE}', f'--vision={trunk}', f'--out={features}')
    run(
        'flamingo_jax.train',
        '--config=experiments/quickstart.py',
        f'--workdir={model}',
        f'--config.vision={trunk}',
        f'--config.datasets.names.features={features}',
        *([f'--config.steps={steps}'] if steps else []),
    )
    run(
        'flamingo_jax.evaluate',
        '--config=experiments/evaluate/quickstart.py',
        f'--checkpoint={model}',
        f'--workdir={work / "evaluation"}',
        f'--config.features={features}',
        f'--config.episodes={episodes}',
    )
    print(f'Done in {(time.time() - start) / 60:.1f} minutes.')


def run(module: str, *arguments: str) -> None:
    """One command of the project, printed first; stops the quickstart where it fails."""
    line = [sys.executable, '-m', module, *arguments]
    print('\n$ ' + shlex.join(['python', *line[1:]]), flush=True)
    if code := subprocess.run(line).returncode:
        sys.exit(code)  # The command has said why.


if __name__ == '__main__':
    try:
        main(flags.FLAGS.workdir, flags.FLAGS.steps, flags.FLAGS.episodes)
    except KeyboardInterrupt:
        sys.exit(130)  # The command that ran says so.
