"""Add a data set of your own: a class in one file, which a config names.

    python examples/add_data_set.py --workdir=DIR [--steps=60]

The data set draws coloured squares with a sentence about each, without end: nothing is stored. What training needs of a
data set is `open`, which gives the number of its documents and each of them as chunks: an image, and texts with loss
weights. Rows, packing, shuffling, batches, sharding and resumption are the house's. If your images and texts are files,
no class is needed: `Documents` reads a .jsonl file (examples/finetune_lora.py). CONTRIBUTING.md says how a published
set is added.

Cost: some minutes on two CPU cores, most of them to compile; it was not timed.

Expect: one document as the data set gives it, one row as the model reads it, and what a model says after training:

    document: [image] ' Question: which colour? Answer:' (0) ' blue' (1)
    row: <image> Question: which colour? Answer: blue<EOC>
    learnt: 4 of 64 tokens
    red: '...', blue: '...', green: '...'
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
    flags.DEFINE_integer('steps', 60, 'Training steps.')
    commands.start(__doc__)

import dataclasses
import pathlib

import numpy as np
from ml_collections import ConfigDict

import flamingo_jax
from flamingo_jax.inputs.images import ImageFormat, to_frames
from flamingo_jax.inputs.rows import Chunk
from flamingo_jax.inputs.sources.source import ENDLESS, Opened, Source
from flamingo_jax.train import train
from flamingo_jax.training import config as training

MODEL = pathlib.Path(__file__).parents[1] / 'experiments/picture_dictionary'
COLOURS = dict(red=(200, 30, 30), green=(30, 160, 60), blue=(30, 60, 200))
QUESTION = ' Question: which colour? Answer:'


@dataclasses.dataclass(frozen=True)
class Squares(Source):
    """Squares of one colour on white. A field is a key of the config: --config.datasets.NAME.pixels=96."""

    pixels: int = 64  # Height and width of an image.

    def open(self, image_format: ImageFormat) -> Opened:
        """See `Source.open`."""
        return _Opened(self, image_format)


@dataclasses.dataclass(frozen=True)
class _Opened:
    source: Squares
    images: ImageFormat  # The size and the shape that the model takes.

    def __len__(self) -> int:
        return ENDLESS

    def document(self, index: int, rng: np.random.Generator) -> list[Chunk]:
        """One square. All that is random comes from `rng`, so that a run can be repeated and resumed."""
        colour = str(rng.choice(list(COLOURS)))
        drawn = square(colour, self.source.pixels, rng)
        # The image is a function: it is called where the row is made, in a thread or a process of its own.
        image = lambda: to_frames(drawn, self.images.size, self.images.fit)  # noqa: E731
        return [Chunk(image, (QUESTION, f' {colour}'), (0.0, 1.0))]


def square(colour: str, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [pixels pixels 3]: a square of random size and place."""
    image = np.full((pixels, pixels, 3), 255, np.uint8)
    size = rng.integers(pixels // 3, pixels // 2)
    top, left = rng.integers(pixels - size, size=2)
    image[top : top + size, left : left + size] = COLOURS[colour]
    return image


def get_config() -> ConfigDict:
    """A trained model, further on squares. The class of the data set stands in the config."""
    c = training.base()
    c.start = str(MODEL)
    c.datasets.squares = training.dataset(Squares, length=64, images=1, batch_size=8)
    c.optimizer.update(learning_rate=1e-3, warmup_steps=5, final_fraction=0.1)
    return c


def main(workdir: str, steps: int) -> None:
    """Looks at what is learnt from, trains, and asks."""
    config, model, rng = get_config(), flamingo_jax.load(MODEL), np.random.default_rng(0)
    source = training.source_of(config.datasets.squares)
    (chunk,) = source.open(model.image_format).document(0, rng)
    texts = ' '.join(f'{text!r} ({weight:.0f})' for text, weight in zip(chunk.texts, chunk.weights, strict=True))
    print('document: [image]', texts)
    row = source.make_row([[chunk]], model.tokenizer, source.blank(model.image_format), rng)
    print('row:', model.tokenizer.decode(row.tokens[: row.used].tolist()))
    print(f'learnt: {int((row.weights > 0).sum())} of {source.length} tokens')

    config.steps, config.checkpoint_every = steps, steps
    train(config, workdir)
    answers = flamingo_jax.load(workdir).generate([[square(colour, 64, rng), QUESTION] for colour in COLOURS])
    print(', '.join(f'{colour}: {answer!r}' for colour, answer in zip(COLOURS, answers, strict=True)))


if __name__ == '__main__':
    main(flags.FLAGS.workdir, flags.FLAGS.steps)
