"""Train on one GPU: features of the frozen trunk computed once, and a batch that is larger than the memory.

    python examples/train_gpu.py --workdir=DIR
    python examples/train_gpu.py --workdir=DIR --steps=4        a try, also without a GPU

Three things save memory here, and each costs time or nothing:

- features: the trunk is frozen, so that it need not run in each step. Its parameters and activations are not there.
- micro_batches: gradients of 32 rows are added up over 4 parts of 8. The result is that of the whole batch.
- remat: the backward pass computes activations again and keeps none.

Cost: the try takes about 3 minutes of CPU time, most of it to compile, and 1.5 GB of memory. Nobody
has run this script on a GPU: none was at hand. docs/tpu.md#one-gpu says what to install, and what makes a GPU's run
repeatable.

Expect: features of 1,400 images, one progress line for each run, and 'Resumed from step 2.' between them, since the
script stops half-way to show that the same command goes on:

    half: loss 9.1
    whole: loss 9.0
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'Folder of all that is made.', required=True)
    flags.DEFINE_integer('steps', 500, 'Training steps.', lower_bound=2)
    commands.start(__doc__)

import pathlib

from ml_collections import ConfigDict

from flamingo_jax import features
from flamingo_jax.checkpoints import bundle
from flamingo_jax.model.config import TINY
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.words import Words
from flamingo_jax.train import train
from flamingo_jax.training import config as training

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = str(ROOT / 'data/picture_dictionary/sample')
TRUNK = str(ROOT / 'experiments/picture_dictionary')  # A bundle; this one's trunk is an EfficientNet-Lite0.


def get_config(computed: pathlib.Path) -> ConfigDict:
    """The quickstart's data and model. computed: the folder of the features."""
    c = training.base()
    c.lm, c.vision, c.image_tag = str(ROOT / 'experiments/lm_dictionary'), TRUNK, 'token'
    c.model.resampler = ConfigDict(TINY['resampler'].to_json())
    c.model.xattn = ConfigDict(TINY['xattn'].to_json() | dict(initial_alpha=0.5))
    c.datasets.names = training.dataset(
        FewShot,
        path=SAMPLE,
        features=str(computed),  # In place of pixels.
        games=dict(bind=game(Words, share=0.6), name=game(Names, share=0.4)),
        styles=('noto', 'noto-v1', 'fluent-flat'),
        shots=8,
        images=8,
        length=56,
        batch_size=32,
    )
    c.noise.feature_dropout = 0.1  # Features cannot be changed as pixels can; dropping some takes its place.
    c.micro_batches = 4
    c.remat = 'full'
    # '' is bfloat16 on a GPU and float32 on a CPU. The optimizer's moments and what is trained stay in float32.
    c.dtype = ''
    c.optimizer.update(learning_rate=1.5e-3, warmup_steps=40, final_fraction=0.05, b2=0.98, gate_factor=3.0)
    return c


def main(workdir: str, steps: int) -> None:
    """Computes the features, trains half of the steps, and goes on as after a stop."""
    folder = pathlib.Path(workdir)
    features.compute(SAMPLE, bundle.read(TRUNK), str(folder / 'features'), splits=['train'])
    config = get_config(folder / 'features')
    config.steps, config.checkpoint_every, config.log_every = steps, max(steps // 2, 1), max(steps // 10, 1)

    # The optimizer's schedule ends at `steps`, so a shorter run would learn at other rates: this one only shows where
    # a run goes on. A real one is stopped by SIGTERM, Ctrl-C or the machine, at any step.
    half = config.copy_and_resolve_references()
    half.steps = config.checkpoint_every
    print(f'half: loss {train(half, folder / "run")["loss"]:.1f}')
    config.resume_changed = True  # Only because the two configs differ; the same command needs no such key.
    print(f'whole: loss {train(config, folder / "run")["loss"]:.1f}')


if __name__ == '__main__':
    main(flags.FLAGS.workdir, flags.FLAGS.steps)
