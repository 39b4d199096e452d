"""How well the frozen features, and the resampler's latents, tell the name of an image: linear readers of both.

    python -m research.analyses.name_features --checkpoint=experiments/smollm_bridge --lm=LMS/smollm2 \
        --data=DATA/picture_dictionary/artists/1.0.0 --features=runs/artists

Ridge regression and nearest centroid, from drawings of four artists whom the bridge was trained on, tested on drawings
of artists of whom training showed nothing, and on photographs, of the same things. The inputs are the mean of a
image's features over the grid, and all its latents. What a reader finds in the latents and the Flamingo does not say
is lost after the resampler: in the gated blocks, or in the language model.
"""

import argparse
import functools
from collections.abc import Callable

import jax
import numpy as np

from experiments.picture_words import STYLES
from flamingo_jax import load
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inputs.sources.features import format_of
from flamingo_jax.inputs.sources.image_set import ImageSet
from flamingo_jax.tasks.nearest import centroids

ASKED = ('fluent-3d', 'openmoji-black', 'fxemoji', 'streamline-emojis', 'ph', 'tux-photo')
BATCH = 64


def parser(doc: str, data: str, needs_model: bool = True) -> argparse.ArgumentParser:
    """What every reader of features is told on the command line.

    Args:
      doc: the module's docstring.
      data: what --data is.
      needs_model: whether --checkpoint must be given; if not, its latents are read where it is.
    """
    told = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument('--checkpoint', required=needs_model, help='bundle, or workdir of a run, whose latents are read')
    told.add_argument('--lm', default='', help='bundle of the language model, if the checkpoint has none')
    told.add_argument('--data', required=True, help=data)
    told.add_argument('--features', required=True, help='folder of the features command')
    return told


def in_batches(read: Callable[[np.ndarray], jax.Array], features: np.ndarray) -> np.ndarray:
    """What `read` makes of features [n t s d_v], of BATCH images at a time: [BATCH 1 t s d_v] -> [BATCH ...]."""
    rows = []
    for begin in range(0, len(features), BATCH):
        batch = features[begin : begin + BATCH]
        full = np.concatenate([batch, np.zeros((BATCH - len(batch), *batch.shape[1:]), batch.dtype)])
        rows.append(np.asarray(read(full[:, None]))[: len(batch)])
    return np.concatenate(rows)


# Compiled once, however often `latents` is asked.
_resampled = jax.jit(lambda model, params, x: model.resampled(params, x), static_argnums=0)


def latents(model: Pretrained, features: np.ndarray) -> np.ndarray:
    """Features [n t s d_v] -> the resampler's latents, [n r * d]."""
    rows = in_batches(functools.partial(_resampled, model.model, model.params), features)
    return rows.reshape(len(rows), -1)


def accuracy(train: np.ndarray, things: np.ndarray, test: np.ndarray, expected: np.ndarray) -> float:
    """Accuracy of ridge regression on one vector an image, [n d] each."""
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    names, which = np.unique(things, return_inverse=True)
    weights = np.linalg.solve(train.T @ train + 0.1 * np.eye(train.shape[1]), train.T @ np.eye(len(names))[which])
    return float((names[(test @ weights).argmax(1)] == expected).mean())


def readers(train: np.ndarray, names: np.ndarray, test: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Accuracy of nearest centroid and of ridge regression on one vector an image, [n d] each."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in ((train - mean) / std, (test - mean) / std))
    classes, means = centroids(train, names)
    nearest = classes[(test @ means.T).argmax(1)]
    return float((nearest == expected).mean()), accuracy(train, names, test, expected)


def main() -> None:
    """Prints a row for each artist asked about, and each input."""
    a = parser(__doc__, 'the picture dictionary').parse_args()
    model = load(a.checkpoint, lm=a.lm)
    every = ImageSet(a.data, 'train', format_of(a.features, 'train'), features=a.features)

    def of(styles: tuple[str, ...], known: frozenset[str] | None = None) -> tuple[np.ndarray, list[str]]:
        images = [p for p in every.only(styles).images if known is None or p.concept in known]
        return np.stack([every.frames(p) for p in images]).astype(np.float32), [p.concept for p in images]

    features, concepts = of(STYLES)
    print('| asked about | images | input | nearest centroid | ridge regression |\n|---|---|---|---|---|')
    inputs = {'features': lambda x: x.mean((1, 2)), 'latents': lambda x: latents(model, x)}
    for style in ASKED:
        asked, expected = of((style,), frozenset(concepts))
        for name, make in inputs.items():
            scores = readers(make(features), np.array(concepts), make(asked), np.array(expected))
            print(f'| {style} | {len(expected)} | {name} | {scores[0]:.3f} | {scores[1]:.3f} |')


if __name__ == '__main__':
    main()
