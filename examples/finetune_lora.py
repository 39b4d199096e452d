"""Fine-tune a trained model on your own images and texts, with LoRA on its language model.

    python examples/finetune_lora.py --workdir=DIR [--steps=40]

Three drawings get names that the model never heard. It learns them from a .jsonl file, and then says them of the same
things in another style, without an example in the prompt. Give your own file in place of `documents`:
data/README.md#your-own-images-and-texts has its form. For a large model, take `--config=experiments/
finetune_open_flamingo.py`, which is this with other numbers.

Cost: 6 minutes on two CPU cores that thirty processes shared, and 1.4 GB of memory.

Expect a loss that falls from step to step, and four lines: what the model said, and what the fine-tuned bundle says.
The first three should end in the names of the file; the last is a thing that was not in it.

    gorilla_3d: '...' -> 'Kong'
    mushroom_3d: '...' -> 'Toad'
    rooster_3d: '...' -> 'Chanticleer'
    sailboat_3d: '...' -> '...'
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'Folder of all that is made.', required=True)
    flags.DEFINE_integer('steps', 40, 'Training steps.')
    commands.start(__doc__)

import json
import pathlib
import shutil

from ml_collections import ConfigDict

import flamingo_jax
from flamingo_jax.checkpoints import bundle_of_run
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.train import train
from flamingo_jax.training import config as training

ROOT = pathlib.Path(__file__).parents[1]
MODEL = ROOT / 'experiments/picture_dictionary'
IMAGES = ROOT / 'docs/pictures'
NAMES = dict(gorilla='Kong', mushroom='Toad', rooster='Chanticleer')
ASKED = ('gorilla_3d', 'mushroom_3d', 'rooster_3d', 'sailboat_3d')


def documents(file: pathlib.Path) -> None:
    """Writes one document a line: a list of images and texts in reading order. The images lie beside the file."""
    lines = [[{'image': f'{image}.png'}, f' {name}'] for image, name in NAMES.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    for image in NAMES:
        shutil.copy(IMAGES / f'{image}.png', file.parent)
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def get_config(file: pathlib.Path) -> ConfigDict:
    """The whole model is frozen, but for the bridge, which goes on from its values, and LoRA, which is new."""
    c = training.base()
    c.start = str(MODEL)
    c.lora.update(rank=8, alpha=16.0, targets=('query', 'value'))
    c.datasets.own = training.dataset(Documents, path=str(file), length=24, images=1, from_start=True, batch_size=6)
    c.optimizer.update(learning_rate=1e-3, warmup_steps=5, final_fraction=0.1)
    return c


def answers(model: pathlib.Path) -> dict[str, str]:
    """What a model says of each image, without examples."""
    flamingo = flamingo_jax.load(model)
    return {name: flamingo.generate([IMAGES / f'{name}.png']) for name in ASKED}


def main(workdir: str, steps: int) -> None:
    """Asks the model, fine-tunes it, writes a plain bundle with LoRA merged, and asks that."""
    folder = pathlib.Path(workdir)
    before = answers(MODEL)

    documents(folder / 'own.jsonl')
    config = get_config(folder / 'own.jsonl')
    config.steps, config.checkpoint_every = steps, steps
    train(config, folder / 'run')

    # The run itself can be loaded too. A bundle needs nothing beside it, and no LoRA: it is part of the weights.
    if not (folder / 'bundle').exists():
        bundle_of_run.write(str(folder / 'run'), str(folder / 'bundle'))
    after = answers(folder / 'bundle')
    for name in ASKED:
        print(f'{name}: {before[name]!r} -> {after[name]!r}')


if __name__ == '__main__':
    main(flags.FLAGS.workdir, flags.FLAGS.steps)
