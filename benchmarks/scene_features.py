"""How well the frozen features tell what is where: a linear classifier of the thing in a corner of a scene.

    python benchmarks/scene_features.py --data=DATA/picture_scenes/full/1.0.0 --features=WORK/features_scenes

Ridge regression from features to things on the training scenes, tested on held-out compositions in a held-out style.
The inputs are the four cells of the 5 x 5 grid in the corner, or the mean over the grid. A model can read that much of
`what is in the top left?` from the features.
"""

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from data.picture_scenes.scenes import PLACES  # noqa: E402
from flamingo_jax.inputs.sources.features import format_of  # noqa: E402
from flamingo_jax.inputs.sources.picture_set import PictureSet  # noqa: E402

STYLE = 'fluent-3d'
GRID = np.arange(25).reshape(5, 5)
CORNERS = dict(zip(PLACES, (GRID[:2, :2], GRID[:2, -2:], GRID[-2:, :2], GRID[-2:, -2:]), strict=True))


def questions(pictures: PictureSet, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Features [n 25 d_v] of the scenes with a thing in this place, and the things."""
    answers = [(p, dict(p.questions).get(f'what is in the {place}?')) for p in pictures.pictures]
    found = [(pictures.frames(picture)[0], answer) for picture, answer in answers if answer]
    features, things = zip(*found, strict=True)
    return np.array(features, np.float32), np.array(things)


def accuracy(train: np.ndarray, things: np.ndarray, test: np.ndarray, expected: np.ndarray) -> float:
    """Accuracy of ridge regression on one vector per scene, [n d_v] each."""
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    names, which = np.unique(things, return_inverse=True)
    weights = np.linalg.solve(train.T @ train + 0.1 * np.eye(train.shape[1]), train.T @ np.eye(len(names))[which])
    return float((names[(test @ weights).argmax(1)] == expected).mean())


def main() -> None:
    """Prints a line for each corner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, help='the prepared scenes')
    parser.add_argument('--features', required=True, help='folder of the features command')
    arguments = parser.parse_args()
    train = PictureSet(arguments.data, 'train', format_of(arguments.features, 'train'), features=arguments.features)
    test = PictureSet(
        arguments.data,
        'test',
        format_of(arguments.features, 'test'),
        styles=(STYLE,),
        features=arguments.features,
    )
    print('| place | scenes | its four cells | mean of all cells |\n|---|---|---|---|')
    for place, cells in CORNERS.items():
        (x, things), (query, expected) = questions(train, place), questions(test, place)
        scores = [
            accuracy(x[:, of].mean(1), things, query[:, of].mean(1), expected) for of in (cells.ravel(), slice(None))
        ]
        print(f'| {place} | {len(expected)} | {scores[0]:.3f} | {scores[1]:.3f} |')


if __name__ == '__main__':
    main()
