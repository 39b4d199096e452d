"""How well the frozen features, and the resampler's latents, tell what is where in a scene, and how many there are.

    python -m research.analyses.scene_features --data=DATA/picture_scenes/full/1.1.0 --features=WORK/features_scenes
    python -m research.analyses.scene_features --data=DATA/picture_scenes/quarters/1.1.0 \
        --features=WORK/features_quarters --checkpoint=BUNDLE --lm=LMS/smollm2

Ridge regression from features to things on the training scenes, tested on held-out compositions in a held-out style.
The inputs are what lies in the corner, which is four cells of the 5 x 5 grid, or of scenes with their quarters the
quarter's mean; the mean of everything; and with `--checkpoint`, the resampler's latents of the scene, or of the quarter
as an image of its own. A model can read that much of `what is in the top left?`.

`how many: dog?` is read from how much each place looks like a dog, sorted: a second ridge regression tells the number.
What a dog looks like comes from the corners in which one stands. The places are those of the whole and, of scenes with
their quarters, of these.
"""

import pathlib
from collections.abc import Callable

import numpy as np

from flamingo_jax import load
from flamingo_jax.inputs.images import QUARTERS
from flamingo_jax.inputs.sources.features import format_of
from flamingo_jax.inputs.sources.image_set import ImageSet
from research.analyses.name_features import accuracy, latents, parser, readers

STYLE = 'fluent-3d'
GRID = np.arange(25).reshape(5, 5)
CORNERS = dict(zip(QUARTERS, (GRID[:2, :2], GRID[:2, -2:], GRID[-2:, :2], GRID[-2:, -2:]), strict=True))


def questions(images: ImageSet, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Features [n t 25 d_v] of the scenes with a thing in this place, and the things."""
    answers = [(p, dict(p.questions).get(f'what is in the {place}?')) for p in images.images]
    features, things = zip(*((images.frames(p), answer) for p, answer in answers if answer), strict=True)
    return np.stack(features).astype(np.float32), np.array(things)


def corner(features: np.ndarray, place: str) -> np.ndarray:
    """The mean [n d_v] of what lies in a corner, of features [n 1 25 d_v], or [n 5 25 d_v] of scenes with quarters."""
    if features.shape[1] > 1:
        return features[:, 1 + QUARTERS.index(place)].mean(1)
    return features[:, 0, CORNERS[place].ravel()].mean(1)


def looks(x: np.ndarray, things: np.ndarray) -> tuple[dict[str, int], Callable[[np.ndarray], np.ndarray]]:
    """Corners [n d_v] with their things -> a column for each thing, and how much features [... d_v] look like each."""
    names, which = np.unique(things, return_inverse=True)
    mean, std = x.mean(0), x.std(0) + 1e-3
    x = (x - mean) / std
    ridge = 0.1 * x.shape[1] * np.eye(x.shape[1])
    weights = np.linalg.solve(x.T @ x + ridge, x.T @ (np.eye(len(names))[which] - 1 / len(names)))
    return {name: i for i, name in enumerate(names)}, lambda features: (features - mean) / std @ weights


def numbers(images: ImageSet, columns: dict[str, int], like: Callable) -> tuple[np.ndarray, np.ndarray]:
    """For each question for a number: how much each place of each tile [n t 25] looks like the thing; the number."""
    rows, answers = [], []
    for image in images.images:
        about = [(q.removeprefix('how many: ').rstrip('?'), a) for q, a in image.questions if q.startswith('how many')]
        if about:
            places = like(images.frames(image).astype(np.float32))
            rows += [places[..., columns[thing]] for thing, _ in about]
            answers += [answer for _, answer in about]
    return np.array(rows), np.array(answers)


def main() -> None:
    """Prints a line for each corner."""
    a = parser(__doc__, 'the prepared scenes', needs_model=False).parse_args()
    frames = np.load(pathlib.Path(a.features) / 'train.npy', mmap_mode='r').shape[2]
    shown = dict(features=a.features, frames=frames)
    train = ImageSet(a.data, 'train', format_of(a.features, 'train'), **shown)
    test = ImageSet(a.data, 'test', format_of(a.features, 'test'), styles=(STYLE,), **shown)
    inputs = {'the corner': corner, 'the mean of all': lambda x, _: x.mean((1, 2))}
    if a.checkpoint:
        model = load(a.checkpoint, lm=a.lm)
        inputs['latents'] = lambda x, place: latents(model, x[:, [1 + QUARTERS.index(place)]] if frames > 1 else x)
    print(f'| place | scenes | {" | ".join(inputs)} |\n|---|---{"|---" * len(inputs)}|')
    corners = []
    for place in QUARTERS:
        (x, things), (query, expected) = questions(train, place), questions(test, place)
        corners.append((corner(x, place), things))
        scores = [accuracy(make(x, place), things, make(query, place), expected) for make in inputs.values()]
        print(f'| {place} | {len(expected)} | {" | ".join(f"{score:.3f}" for score in scores)} |', flush=True)
    columns, like = looks(*map(np.concatenate, zip(*corners, strict=True)))
    (x, answers), (query, expected) = (numbers(part, columns, like) for part in (train, test))
    print('\n| how many, from each place of | questions | right |\n|---|---|---|')
    for name, tiles in {'the whole': slice(1), 'the quarters': slice(1, frames)}.items():
        shown, asked = (np.sort(rows[:, tiles].reshape(len(rows), -1)) for rows in (x, query))
        if shown.shape[1]:
            print(f'| {name} | {len(expected)} | {readers(shown, answers, asked, expected)[1]:.3f} |', flush=True)


if __name__ == '__main__':
    main()
