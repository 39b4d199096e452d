"""A bundle of a vision trunk alone, whatever its family."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from flamingo_jax.conversion.converted import FROZEN, Converted, not_standardised
from flamingo_jax.conversion.standardise import channels, to_measure
from flamingo_jax.conversion.tensors import Empty, in_memory
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Params
from flamingo_jax.model.vision.trunk import VisionConfig

IMAGENET = 'ImageNet weights, Apache-2.0. '


class Trunk(NamedTuple):
    """A vision trunk as it was read."""

    name: str
    vision: VisionConfig
    params: Params
    weights: str = ''  # What the model card says of them.
    classifier: Params | None = None  # The tree of its own classifier (`model/vision/classifier.py`), if it is kept.


def alone(read: Callable[..., Trunk]) -> Callable[..., Converted]:
    """Of a function that reads a trunk, the one that reads it as a model of its own.

    The function takes what `read` does, and the arguments of `as_model`.
    """

    def convert(
        source: str,
        image_size: int = 0,
        standardise: str = '',
        styles: Sequence[str] = (),
        empty: Empty = in_memory,
        progress: bool = False,
        **of_trunk: Any,
    ) -> Converted:
        del empty, progress  # A trunk fits in memory.
        return as_model(read(source, **of_trunk), image_size, standardise, styles)

    return convert


def as_model(trunk: Trunk, image_size: int = 0, standardise: str = '', styles: Sequence[str] = ()) -> Converted:
    """A model that is a vision trunk.

    Args:
      image_size: height and width of its images in pixels; 0 is the trunk's own resolution.
      standardise: the image set on whose train split its output channels are measured; '' leaves them as they are.
      styles: of the images to measure on; () is all, of a set that has one.

    Raises:
      ValueError: no image has such a style, or there are several and none is named.
    """
    name, vision, params, weights, classifier = trunk
    config = FlamingoConfig(vision=vision, image_size=image_size or cast(Any, vision).resolution)
    params = {'trunk': params, **not_standardised(vision.width)}
    if classifier is not None:
        params['classifier'] = classifier
        weights += f'What its classifier of {vision.classes} classes answers is the last place of its features. '
    note = ''
    if standardise:
        images = to_measure(standardise, styles)
        params['mean'], params['std'] = channels(config, params, images)
        of = f', of {", ".join(styles)} alone' if styles else ''
        note = f'Output channels are standardised on {len(images)} training images of {standardise}{of}.\n'
    card = dict(
        title=f'{name} vision trunk',
        description=f'A vision trunk for images of {config.image_size} pixels. {weights}\n{note}',
        license='apache-2.0' if weights == IMAGENET else 'other',
        tags=['image-feature-extraction'],
        uses=FROZEN.format('vision trunk'),
    )
    return Converted(config, {'vision': params}, None, card)
