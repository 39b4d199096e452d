"""Measures the output channels of a vision trunk on an image set, so that they can be standardised."""

import collections
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Params

STANDARDISE_ON = 512  # Images. With 512, the deviation of a channel is known to about 3 %.


def to_measure(path: str, styles: Sequence[str]) -> list[bytes]:
    """A random sample of an image set's training images of some styles, encoded.

    ValueError for an unknown style, or () where there are several; the message lists the styles.
    """
    records = open_split(path, 'train')
    style_of = [records[i]['style'].decode() for i in range(len(records))]
    if not styles and len(set(style_of)) > 1:
        raise UserError(
            f'The train split of {path} has the styles {sorted(set(style_of))}. Name with --styles=A,B those that are '
            'trained on: a style that is kept for the evaluation must not be measured.'
        )
    if unknown := sorted(set(styles) - set(style_of)):
        have = dict(collections.Counter(style_of))
        raise UserError(f'The train split of {path} has no images of style {unknown}. Its styles are {have}.')
    chosen = [i for i in np.random.default_rng(0).permutation(len(records)) if not styles or style_of[i] in styles]
    return [records[int(i)]['frames'][0] for i in chosen[:STANDARDISE_ON]]


def channels(
    config: FlamingoConfig, vision: Params, images: Sequence[bytes]
) -> tuple[Float[np.ndarray, ' d_v'], Float[np.ndarray, ' d_v']]:
    """Mean and deviation of each output channel of a trunk on these images, float32 [d_v] each."""
    features, rows, spatial = jax.jit(Flamingo(config).features), [], config.vision.spatial(config.image_size)
    for begin in tqdm(range(0, len(images), 32), unit=' batches', desc='standardise'):
        some = images[begin : begin + 32]
        frames = [to_frames(image, config.image_size, config.vision.fit) for image in some]
        batch = np.stack(frames + frames[:1] * (32 - len(frames)))[:, None]
        made = np.asarray(features({'vision': vision}, batch))[: len(frames), :, :, :spatial]
        rows.append(made.reshape(-1, config.vision.width))
    rows = np.concatenate(rows)
    return rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-3)
