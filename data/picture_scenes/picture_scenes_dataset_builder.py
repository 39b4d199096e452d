"""The scenes as a TFDS data set in ArrayRecord: an image set whose images have questions. See scenes.py.

The input is a prepared picture dictionary. Neither network nor TensorFlow is needed. Scenes depend on the drawings and
the config alone.
"""

import dataclasses
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from data.building import progress
from data.picture_dictionary import pixels
from data.picture_dictionary.picture_dictionary_dataset_builder import image_features, names_of
from data.picture_scenes import scenes
from flamingo_jax.errors import UserError
from flamingo_jax.inputs.images import tiles
from flamingo_jax.inputs.sources.array_record import open_split

QUALITY = 90  # Of the WebP.


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """The styles of all splits, a style that only half of the test has, and the numbers of scenes."""

    styles: tuple[str, ...] = ('noto', 'twemoji', 'fluent-flat', 'openmoji-color')
    heldout_style: str = 'fluent-3d'
    side: int = 1  # Above 1, a scene is its whole and its tiles, so many rows of as many: 5 frames, or 10.
    train: int = 3_000
    validation: int = 300
    test: int = 700


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One artist's drawing of a thing, trimmed, with the source fields of its record."""

    image: Image.Image
    source: str
    licence: str


class Builder(tfds.core.GeneratorBasedBuilder):
    """Built by `python -m data.picture_scenes.build`."""

    VERSION = tfds.core.Version('1.1.0')
    BUILDER_CONFIGS = [
        Config(name='full', description='60 things in four styles and a held-out one.'),
        Config(name='quarters', description='The same scenes, each with its four quarters.', side=2),
        Config(name='ninths', description='The same scenes, each with nine tiles.', side=3),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'Prepare the picture dictionary first: data/picture_dictionary/README.md'

    def _info(self) -> tfds.core.DatasetInfo:
        # `frames` has one image, or the whole and its tiles; `concept` says what stands where: 'top left dog + bottom
        # left taxi', and so does the only name, in English. Answers are parallel to questions.
        texts = tfds.features.Sequence(tfds.features.Text())
        return tfds.core.DatasetInfo(
            builder=self,
            description='A few drawings on one canvas, with questions about which, where and how many.',
            features=tfds.features.FeaturesDict(image_features() | dict(questions=texts, answers=texts)),
            license='per record, in the feature `licence`',
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        config = self.builder_config
        drawings = read_drawings(Path(dl_manager.manual_dir), (*config.styles, config.heldout_style))
        half_heldout = tuple(drawn for style in config.styles for drawn in (style, config.heldout_style))
        return {
            'train': self._generate_examples(drawings, 'train', config.train, config.styles),
            'validation': self._generate_examples(drawings, 'validation', config.validation, config.styles),
            'test': self._generate_examples(drawings, 'test', config.test, half_heldout),
        }

    def _generate_examples(
        self, drawings: dict[str, dict[str, Drawing]], split: str, number: int, styles: tuple[str, ...]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        compositions = scenes.Compositions(sorted(drawings[styles[0]]), split)
        drawn = set()
        for i in progress(range(number), total=number, name=split):
            rng = random.Random(f'{split}/{i}')
            make = (compositions.place, compositions.count)[i % 2]
            scene = make(rng)
            while scene.composition in drawn:  # Each scene once, so that an example never shows the query's scene.
                scene = make(rng)
            drawn.add(scene.composition)
            yield i, _record(scene, styles[i // 2 % len(styles)], drawings, self.builder_config.side)


def read_drawings(dictionary: Path, styles: tuple[str, ...]) -> dict[str, dict[str, Drawing]]:
    """Style -> thing -> drawing, for THINGS in the dictionary's training split that every style has.

    FileNotFoundError if `dictionary` is not a prepared data set, ValueError if a style is missing.
    """
    found: dict[str, dict[str, Drawing]] = {style: {} for style in styles}
    for record in open_split(dictionary, 'train'):
        if (style := record['style'].decode()) not in found:
            continue
        name = names_of(record)['en']
        if name in scenes.THINGS:
            image = Image.open(io.BytesIO(record['frames'][0])).convert('RGB')
            source, licence = record['source'].decode(), record['licence'].decode()
            found[style][name] = Drawing(scenes.trimmed(image), source, licence)
    if lacking := [style for style, drawings in found.items() if not drawings]:
        raise UserError(f'{dictionary} has no drawings in {lacking}. Build its config `full`.')
    everywhere = set.intersection(*(set(drawings) for drawings in found.values()))
    return {style: {name: drawings[name] for name in sorted(everywhere)} for style, drawings in found.items()}


def _record(scene: scenes.Scene, style: str, drawings: dict[str, dict[str, Drawing]], side: int) -> dict[str, Any]:
    parts = {placed.thing: drawings[style][placed.thing] for placed in scene.placed}
    image = scenes.draw(scene, {thing: part.image for thing, part in parts.items()})
    questions, answers = zip(*scene.questions, strict=True)
    return {
        'frames': [pixels.webp(frame, QUALITY) for frame in (tiles(image, side) if side > 1 else [image])],
        'concept': scene.composition,
        'style': style,
        'category': 'scene',
        'subcategory': 'scene',
        'languages': ['en'],
        'names': [scene.composition.replace(' + ', ', ')],
        'heldout_languages': [],
        'questions': questions,
        'answers': answers,
        'source': '; '.join(sorted({part.source for part in parts.values()})),
        'licence': ' AND '.join(sorted({part.licence for part in parts.values()})),
    }
