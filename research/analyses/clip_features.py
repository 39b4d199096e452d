"""How well the frozen features tell the direction of a clip: a linear classifier of forward and backward.

    python -m research.analyses.clip_features --data=DATA/picture_dictionary/clips/1.0.0 \
        --features=WORK/features_clips [--checkpoint=BUNDLE --lm=LMS/smollm2]

Ridge regression on the training clips, each in both directions, tested on clips of held-out concepts (validation and
test). The inputs are the first and last frame, all eight, or those that the game `Direction` reverses: a clip is a
loop, and played backward it still begins with its first frame. Each is read as the mean over the grid or as the whole
grid, and with `--checkpoint` as the resampler's latents of the frame alone. A model can read that much from the
features. A clip and its reverse are right or wrong together, since the classifier has no constant.
"""

import numpy as np

from flamingo_jax import load
from flamingo_jax.inputs.sources.features import format_of
from flamingo_jax.inputs.sources.image_set import ImageSet
from research.analyses.name_features import latents, parser

PENALTY = 10.0  # From 1 to 1,000, no figure changes by more than two of the 55 clips.


def clips(data: str, features: str, *splits: str) -> np.ndarray:
    """Features [clips t s d_v] of all clips of these splits."""
    sets = [ImageSet(data, split, format_of(features, split), features=features, frames=8) for split in splits]
    return np.array([s.frames(image) for s in sets for image in s.images], np.float32)


def difference(x: np.ndarray) -> np.ndarray:
    """Frames minus those at the other end, which change sign when played backward: [clips t s d_v] -> [clips n]."""
    return (x - x[:, ::-1])[:, : x.shape[1] // 2].reshape(len(x), -1)


def accuracy(train: np.ndarray, test: np.ndarray) -> float:
    """Share of clips [clips n] on the right side of zero by ridge regression, fitted on `train`, all forward."""
    weights = np.linalg.solve(train @ train.T + PENALTY * np.eye(len(train)), np.ones(len(train)))
    return float((test @ train.T @ weights > 0).mean())


def main() -> None:
    """Prints a line for each set of features."""
    a = parser(__doc__, 'the prepared clips', needs_model=False).parse_args()
    train, test = clips(a.data, a.features, 'train'), clips(a.data, a.features, 'validation', 'test')
    read = {'mean of the grid': lambda x: x.mean(2, keepdims=True), 'whole grid': lambda x: x}
    if a.checkpoint:
        model = load(a.checkpoint, lm=a.lm)
        read['latents'] = lambda x: latents(model, x.reshape(-1, 1, *x.shape[2:])).reshape(*x.shape[:2], 1, -1)
    print(f'{len(train)} training clips, {len(test)} held out\n')
    print('| features | right |\n|---|---|')
    shown = {'first and last frame': [0, -1], 'eight frames': slice(None), 'as the game asks': slice(1, None)}
    for frames, chosen in shown.items():
        for name, take in read.items():
            scores = accuracy(*(difference(take(x[:, chosen])) for x in (train, test)))
            print(f'| {frames}, {name} | {scores:.3f} |', flush=True)


if __name__ == '__main__':
    main()
