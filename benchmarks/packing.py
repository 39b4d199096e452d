"""How full the rows of a data set are, one document a row and packed.

    python -m benchmarks.packing --data=DATA/debian_pages/all/1.0.0 --length=1024 --images=6 --documents=7

Prints, for both, the share of tokens that are not padding, the share of images that are not blank, and the documents
of a row, of those that it is offered.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('data', None, 'Folder of prepared documents, or a .jsonl file.', required=True)
    flags.DEFINE_string('split', 'train', 'Its split.')
    flags.DEFINE_string('tokenizer', 'experiments/lm_dictionary/tokenizer.model', 'SentencePiece file.')
    flags.DEFINE_integer('length', 1024, 'Tokens of a packed row, or of each of its lines.', lower_bound=2)
    flags.DEFINE_integer('lines', 1, 'Lines of a packed row, which share its images.', lower_bound=1)
    flags.DEFINE_integer('images', 6, 'Images of a packed row.', lower_bound=0)
    flags.DEFINE_integer('documents', 8, 'Documents offered to a packed row.', lower_bound=2)
    flags.DEFINE_list('window', ['256', '5'], 'Most tokens and images of a document.')
    flags.DEFINE_integer('rows', 200, 'Packed rows to look at.', lower_bound=1)
    commands.start(__doc__)

import dataclasses
import pathlib

import numpy as np

from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.pipeline import rows
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.inputs.tokenizer import Tokenizer


def main() -> None:
    """Prints two lines."""
    f = flags.FLAGS
    tokenizer, image_format = Tokenizer(pathlib.Path(f.tokenizer).read_bytes(), 'text'), ImageFormat(1)
    window = tuple(map(int, f.window))
    alone = Documents(path=f.data, split=f.split, length=window[0], images=window[1], p_next=0.5)
    packed = dataclasses.replace(
        alone, length=f.length, images=f.images, documents=f.documents, window=window, lines=f.lines
    )
    for name, source in (('one document a row', alone), ('packed', packed)):
        every = rows(source, tokenizer, image_format, 0)
        got = [every[i] for i in range(f.rows)]
        tokens = np.mean([row.used for row in got]) / source.length / source.lines
        shown = np.mean([row.phi.max() for row in got])
        held = np.mean([1 if row.document is None else row.document.max() for row in got])
        slots = f'{shown / source.images:.3f} of {source.images} images' if source.images else 'no images'
        places = f'{source.lines} x {source.length}'
        print(f'{name}: {tokens:.3f} of {places} tokens, {slots}, {held:.2f} of {source.documents} documents')


if __name__ == '__main__':
    main()
