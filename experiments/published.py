"""A small run on pairs, videos or instructions, from the files of a published set to a trained model.

    python -m experiments.published pairs [--workdir=runs/published] [--steps=100]
    python -m experiments.published videos
    python -m experiments.published instructions

It runs the project's own commands one after the other, and prints each. The sets are drawings of the repository's
sample, written in the shapes of published ones (data/picture_dictionary/as_published.py). To train on a set of your
own, give the command of data/README.md that builds it, and then

    python -m flamingo_jax.train --config=experiments/published.py:pairs --workdir=DIR \
        --config.datasets.pairs.path=DATA/pairs/NAME/1.0.0

Rows are packed: the progress line counts tokens that are not padding.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('workdir', 'runs/published', 'Folder of all that is made.')
    flags.DEFINE_integer('steps', None, 'Training steps; by default those of the config.')
    flags.DEFINE_integer('number', 400, 'Drawings.')
    ARGUMENTS = commands.start(__doc__, positional=True)

import os
import pathlib

from ml_collections import ConfigDict

from experiments.quickstart import get_config as quickstart
from experiments.quickstart import run
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.training import config as training

# Of each kind: tokens and images of a row, documents that it is filled from, and the most of each document, from its
# beginning, where the image is.
ROWS = dict(
    pairs=dict(length=128, images=16, documents=20, window=(32, 1), batch_size=8, space=0.5, from_start=True),
    videos=dict(length=128, images=10, documents=12, window=(32, 1), batch_size=8, frames=8, from_start=True),
    instructions=dict(length=384, images=9, documents=10, window=(100, 5), batch_size=4, from_start=True),
)


def get_config(kind: str = 'pairs') -> ConfigDict:
    """The quickstart's model, trained on one set of one kind."""
    c = quickstart()
    del c.datasets.names
    c.steps, c.checkpoint_every = 100, 50
    c.vision = 'runs/published/trunk'
    path = f'runs/published/{kind}/sample/1.0.0'
    features = f'runs/published/features_{kind}'
    c.datasets[kind] = training.dataset(Documents, path=path, features=features, **commands.part(ROWS, kind))
    return c


def main(arguments: list[str]) -> None:
    """Runs the commands."""
    if len(arguments) != 1 or arguments[0] not in ROWS:
        commands.refuse(f'Give one kind of set: {", ".join(ROWS)}. Given: {" ".join(arguments) or "none"}.')
    f, (kind,) = flags.FLAGS, arguments
    work = pathlib.Path(f.workdir).expanduser().absolute()
    os.chdir(pathlib.Path(__file__).parents[1])  # Paths of the configs begin at the project's root.
    raw, trunk, features, data = work / 'raw', work / 'trunk', work / f'features_{kind}', work / f'{kind}/sample/1.0.0'
    if not (trunk / 'config.json').is_file():
        run('flamingo_jax.convert', 'efficientnet', '--image_size=96', f'--out={trunk}')
    run('data.picture_dictionary.as_published', f'--out={raw}', f'--number={f.number}')
    of = ['*.json', f'--images={raw}/{kind}/images'] if kind == 'instructions' else ['*.tar']
    run(f'data.{kind}.build', f'--source={raw}/{kind}/{of[0]}', *of[1:], f'--out={work}', '--name=sample')
    how = ('--splits=train', f'--frames={ROWS[kind].get("frames", 1)}')
    run('flamingo_jax.features', f'--data={data}', f'--vision={trunk}', f'--out={features}', *how)
    run(
        'flamingo_jax.train',
        f'--config=experiments/published.py:{kind}',
        f'--workdir={work / "model"}_{kind}',
        f'--config.vision={trunk}',
        f'--config.datasets.{kind}.path={data}',
        f'--config.datasets.{kind}.features={features}',
        *([f'--config.steps={f.steps}'] if f.steps else []),
    )


if __name__ == '__main__':
    try:
        main(ARGUMENTS)
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # The command that ran says so.
