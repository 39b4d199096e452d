"""What of a new thing reaches the language model: which of five examples an image is like, by nearest centroid.

    python -m research.analyses.word_features --checkpoint=experiments/smollm_bridge --lm=LMS/smollm2 \
        --data=DATA/picture_dictionary/artists/1.0.0 --features=runs/artists

As in the evaluation of new words, the things were never shown in training; with `--split=train`, they were. The
examples are drawings by four artists whom the bridge was trained on, and the image is by one of whom training showed
nothing. The inputs are the mean of an image's features over the grid, the mean of its latents, and the language
model's state at the colon after the image, after each of its blocks, as the next one reads it. What nearest centroid
finds in a state and the Flamingo does not say is lost where the language model looks for the example in its prompt.
"""

import functools

import jax
import numpy as np

from experiments.picture_words import STYLES
from flamingo_jax import load
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.sources.features import format_of
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.model import states as blocks
from flamingo_jax.model.language_model import as_read
from flamingo_jax.tasks.nearest import nearest_centroid
from research.analyses.name_features import BATCH, in_batches, latents, parser

ASKED, PROMPT, WAYS, SHOTS = 'fluent-3d', ':', 5, (1, 4)


def states(model: Pretrained, features: np.ndarray) -> np.ndarray:
    """Features [n 1 s d_v] -> [n depth d]: the state at the colon after an image, as the next block reads it."""
    tokens = [model.tokenizer.bos, *model.config.image_tag, *model.tokenizer.encode(PROMPT)]
    tokens = np.tile(tokens, (BATCH, 1))

    @jax.jit
    def read(params, images):
        at_colon = blocks.states(model.model, params, images, tokens)[:, :, -1]
        return as_read(model.config.lm, params['lm'], at_colon).swapaxes(0, 1)

    return in_batches(functools.partial(read, model.params), features)


def right(rows: np.ndarray, concepts: np.ndarray, styles: np.ndarray, shots: int, questions: int) -> float:
    """Share of questions in which the nearest of five centroids, each of `shots` examples, is that of the thing."""
    rng = np.random.default_rng(0)
    rows = rows - rows.mean(0)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    asked = {c: np.flatnonzero((concepts == c) & (styles == ASKED)) for c in np.unique(concepts)}
    shown = {c: np.flatnonzero((concepts == c) & (styles != ASKED)) for c in asked}
    things = [c for c in asked if len(asked[c]) and len(shown[c]) >= max(SHOTS)]
    found = 0
    for _ in range(questions):
        five = rng.choice(things, WAYS, replace=False)
        examples = np.concatenate([rng.choice(shown[c], shots, replace=False) for c in five])
        query = rng.choice(asked[five[0]])
        found += nearest_centroid(rows[query], rows[examples], list(concepts[examples])) == five[0]
    return found / questions


def main() -> None:
    """Prints a row for each input."""
    told = parser(__doc__, 'the picture dictionary')
    told.add_argument('--split', default='test', help='test: things never shown; train: things that training showed')
    told.add_argument('--questions', type=int, default=1000)
    a = told.parse_args()
    model = load(a.checkpoint, lm=a.lm)
    of = ImageSet(a.data, a.split, format_of(a.features, a.split), features=a.features, styles=(*STYLES, ASKED))
    concepts = np.array([image.concept for image in of.images])
    styles = np.array([image.style for image in of.images])
    features = np.stack([of.frames(image) for image in of.images]).astype(np.float32)
    width = model.config.lm.width
    inputs = {
        'features': features.mean((1, 2)),
        'latents': latents(model, features).reshape(len(features), -1, width).mean(1),
    }
    inputs |= {f'state after block {i}': rows for i, rows in enumerate(states(model, features).swapaxes(0, 1), start=1)}
    print(f'| input | {" | ".join(f"{shots} of each" for shots in SHOTS)} |\n|---|{"---|" * len(SHOTS)}')
    for name, rows in inputs.items():
        scores = [right(rows, concepts, styles, shots, a.questions) for shots in SHOTS]
        print(f'| {name} | {" | ".join(f"{score:.3f}" for score in scores)} |', flush=True)


if __name__ == '__main__':
    main()
