"""Sequences a second that one core makes of a data set: ArrayRecord -> decoded, fitted, tokenized -> a batch in memory.

    python -m benchmarks.reading --data=DATA/debian_pages/all/1.0.0

Sequences are the paper's: a random window of 256 tokens with up to five images of 320 x 320. Seconds are those of the
processor, so that a busy machine changes little.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('data', None, 'Folder of prepared documents, or a .jsonl file.', required=True)
    flags.DEFINE_string('split', 'train', 'Its split.')
    flags.DEFINE_string('tokenizer', 'experiments/lm_dictionary/tokenizer.model', 'SentencePiece file.')
    flags.DEFINE_integer('size', 320, 'Height and width of an image.', lower_bound=1)
    flags.DEFINE_integer('frames', 1, 'Frames of an image; 8 for videos.', lower_bound=1)
    flags.DEFINE_integer(
        'batches', 24, 'Batches of 16 sequences to read, after one that does not count.', lower_bound=1
    )
    commands.start(__doc__)

import pathlib
import time

from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.pipeline import batches
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.inputs.tokenizer import Tokenizer


def main() -> None:
    """Prints the rates."""
    f = flags.FLAGS
    tokenizer = Tokenizer(pathlib.Path(f.tokenizer).read_bytes(), 'text')
    source = Documents(
        path=f.data, split=f.split, length=256, images=5, p_next=0.5, batch_size=16, flip=True, frames=f.frames
    )
    every = batches({'data': source}, tokenizer, ImageFormat(f.size, 'mean'), 0)['data']
    every[0]
    begin, images = time.process_time(), 0
    for number in range(1, f.batches + 1):
        images += int(every[number].phi.max(-1).sum()) * f.frames
    seconds = time.process_time() - begin
    print(
        f'{f.batches * source.batch_size / seconds:.0f} sequences a second and core, '
        f'with {images / seconds:.0f} images of {f.size} x {f.size}'
    )


if __name__ == '__main__':
    main()
