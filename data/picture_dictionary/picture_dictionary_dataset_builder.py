"""The picture dictionary as a TFDS data set in ArrayRecord: a record is an image (or clip of 8 frames) and its names.

There are four configs. `full`, for training, has every still style of emoji and the stamps; `artists` has icons by 31
more artists, of three times as many things. `clips` has only the clips.
`sample` is small and has only images that may be redistributed; it is in the repository (`sample/`) for tests and
demos. Splits are by concept: a test concept is a new word that only the shots of a prompt can teach. Words with the
same head noun ('dog', 'dog face', 'guide dog', the stamp 'A dog.') are in one split, since the test must not ask for a
word seen in training.

No TensorFlow: images are yielded as encoded bytes in `Sequence(Text)`, which readers get back as `list[bytes]`.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data import building
from data.picture_dictionary import emoji, icons, pixels, stamps

LICENCES = {
    'noto': 'Apache-2.0',
    'noto-v1': 'Apache-2.0',
    'fluent-flat': 'MIT',
    'fluent-3d': 'MIT',
    'fluent-anim': 'MIT',
    'twemoji': 'CC-BY-4.0',
    'openmoji-color': 'CC-BY-SA-4.0',
    'openmoji-black': 'CC-BY-SA-4.0',
    'tux-photo': 'GPL-2.0-or-later',
    'tux-drawing': 'GPL-2.0-or-later',
}
SOURCES = {
    'noto': 'npm emoji-datasource-google 16.0.0',
    'noto-v1': 'npm @iconify-json/noto-v1 1.2.5',
    'fluent-flat': 'npm @iconify-json/fluent-emoji-flat 1.2.6',
    'fluent-3d': 'npm @lobehub/fluent-emoji-3d 1.1.0',
    'fluent-anim': 'npm @lobehub/fluent-emoji-anim-1..4 1.0.0',
    'twemoji': 'npm emoji-datasource-twitter 16.0.0',
    'openmoji-color': 'npm openmoji 17.0.0',
    'openmoji-black': 'npm openmoji 17.0.0',
    'tux-photo': 'Debian tuxpaint-stamps-default 2025.03.31-1',
    'tux-drawing': 'Debian tuxpaint-stamps-default 2025.03.31-1',
}
HELDOUT_LANGUAGES = ('gu', 'is', 'ka')


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Which images, and how they are stored: `styles` of emoji; longer side `size` px; WebP `quality` 0 to 100."""

    styles: tuple[str, ...] = ()
    size: int = 128
    quality: int = 90
    enlarge: bool = False  # Whether to enlarge smaller images to `size`.
    with_stamps: bool = False
    with_icons: bool = False
    records_per_group: int = 1  # Compressed together. More than 1 saves bytes: see `build.pack`.
    max_concepts: int | None = None  # How many of the concepts that have every style to keep. None: all, in any style.


CONFIGS = [
    Config(
        name='full',
        description='Every still of the raw packages, at most 128 px, with the Tux Paint stamps.',
        styles=('noto', 'twemoji', 'openmoji-color', 'openmoji-black', 'fluent-flat', 'fluent-3d'),
        with_stamps=True,
    ),
    Config(
        name='artists',
        description='Every still of the raw packages, at most 128 px, with the Tux Paint stamps and the icons.',
        styles=('noto', 'twemoji', 'openmoji-color', 'openmoji-black', 'fluent-flat', 'fluent-3d'),
        with_stamps=True,
        with_icons=True,
    ),
    Config(
        name='clips',
        # A separate config, since the images of a sequence and the features of a data set have one number of frames.
        description='The clips alone, 8 frames each, at most 128 px.',
        styles=('fluent-anim',),
    ),
    Config(
        name='sample',
        description='Concepts that have all four styles whose images may be passed on, at 72 px.',
        styles=('noto', 'noto-v1', 'fluent-flat', 'fluent-3d'),
        size=72,
        quality=80,
        enlarge=True,
        max_concepts=500,
        records_per_group=16,
    ),
]


def fraction(purpose: str, concept: str) -> float:
    """A number in [0, 1) that depends on its arguments alone: the same on every machine and in every release."""
    return int(hashlib.sha1(f'{purpose}{concept}'.encode()).hexdigest()[:8], 16) / 2**32


def split_of(family: str) -> str:
    """'train' (80 %), 'validation' or 'test' (10 % each), by the sha1 of the concept id that heads the family."""
    position = fraction('', family)
    return 'train' if position < 0.8 else 'validation' if position < 0.9 else 'test'


def heldout_languages(family: str) -> tuple[str, ...]:
    """The languages whose names for a family training never shows: three for a third of the families, else none."""
    return HELDOUT_LANGUAGES if fraction('heldout:', family) < 1 / 3 else ()


def image_features() -> dict[str, tfds.features.FeatureConnector]:
    """The fields of a record of an image set."""
    text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
    return {
        'frames': texts,  # encoded images: one for a still, 8 for a clip
        'concept': text,
        'style': text,
        'category': text,
        'subcategory': text,
        'languages': texts,
        'names': texts,  # parallel to languages
        'heldout_languages': texts,
        'source': text,
        'licence': text,
    }


def names_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Language -> name, of a record as it is read."""
    names = zip(record['languages'], record['names'], strict=True)
    return {language.decode(): name.decode() for language, name in names}


def missing(raw: Path, config: Config) -> list[str]:
    """The paths, relative to `raw`, that the config needs and that are missing."""
    needed = [emoji.TABLE, emoji.CLDR, emoji.CLDR_DERIVED]
    paths = {
        'noto': [emoji.GOOGLE],
        'noto-v1': [f'{emoji.NOTO_V1}/icons.json', f'{emoji.FLUENT_FLAT}/chars.json'],
        'fluent-flat': [f'{emoji.FLUENT_FLAT}/icons.json', f'{emoji.FLUENT_FLAT}/chars.json'],
        'fluent-3d': [emoji.FLUENT_3D],
        'twemoji': [emoji.TWITTER],
        'openmoji-color': [f'{emoji.OPENMOJI}/color/svg'],
        'openmoji-black': [f'{emoji.OPENMOJI}/black/svg'],
        'fluent-anim': emoji.FLUENT_ANIM,
    }
    for style in config.styles:
        needed += paths[style]
    if config.with_stamps:
        needed.append(stamps.ROOT)
    if config.with_icons:
        needed += [icons.WORDNET, *(f'{icons.ROOT}/{style}.json' for style in icons.SETS)]
    return [path for path in dict.fromkeys(needed) if not (raw / path).exists()]


class Builder(tfds.core.GeneratorBasedBuilder):
    """Built by `python -m data.picture_dictionary.build`, which checks the raw folder first."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = CONFIGS
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'Fetch the raw packages: bash data/picture_dictionary/fetch.sh RAW_DIR'

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description='Images of things by many artists, each named in 36 languages. '
            + (self.builder_config.description or ''),
            features=tfds.features.FeaturesDict(image_features()),
            # Records of a concept are neighbours only if they are compressed together.
            disable_shuffling=self.builder_config.records_per_group > 1,
            license='per record, in the feature `licence`',
        )

    def _split_generators(self, dl_manager):
        raw = Path(dl_manager.manual_dir)
        records = collections.defaultdict(list)
        for split, key, record in self._records(raw):
            records[split].append((key, record))
        return {split: records[split] for split in ('train', 'validation', 'test')}

    def _generate_examples(self):
        raise NotImplementedError('the splits are made together, in _split_generators')

    def _records(self, raw: Path) -> Iterator[tuple[str, str, dict]]:
        """All (split, key, record), in an order that depends on the raw files only."""
        config = self.builder_config
        concepts = emoji.read_concepts(raw)
        families = stamps.Families({concept.code: concept.names['en'] for concept in concepts})
        drawers = {style: emoji.drawer(raw, style) for style in config.styles}
        if config.max_concepts is not None:
            concepts = [c for c in concepts if all(draw(c) is not None for draw in drawers.values())]
            concepts = sorted(concepts, key=lambda c: fraction('sample:', c.code))[: config.max_concepts]
            concepts.sort(key=lambda c: c.code)
        for concept in building.progress(concepts, len(concepts), 'emoji'):
            for style, draw in drawers.items():
                image = draw(concept)
                if image is None:
                    continue
                frames = pixels.clip_frames(image) if style == 'fluent-anim' else [image]
                yield self._record(
                    frames,
                    concept.code,
                    families.of_code(concept.code),
                    style=style,
                    category=concept.category,
                    subcategory=concept.subcategory,
                    names=concept.names,
                )
        if config.with_stamps:
            for stamp in stamps.read_stamps(raw, families):
                yield self._record(
                    [stamp.image()],
                    stamp.concept,
                    stamp.family,
                    style=stamp.style,
                    category=stamp.category,
                    subcategory=stamp.subcategory,
                    names=stamp.captions,
                    key=f'tux:{stamp.stem}',
                )
                families.named(stamps.noun_phrase(stamp.captions['en']), stamp.concept)
        if config.with_icons:
            yield from self._icons(raw, families, {concept.code: concept for concept in concepts})

    def _icons(
        self, raw: Path, families: stamps.Families, concepts: dict[str, emoji.Concept]
    ) -> Iterator[tuple[str, str, dict]]:
        """The records of icons. An icon of an emoji's concept has its category and all of its names."""
        found = list(icons.read_icons(raw, families))
        for icon in building.progress(found, len(found), 'icons'):
            image = icon.image()
            if image is None:
                continue
            of = concepts.get(icon.concept)
            yield self._record(
                [image],
                icon.concept,
                icon.family,
                style=icon.style,
                category=of.category if of else icons.CATEGORIES[icon.kind],
                subcategory=of.subcategory if of else f'icon-{icon.kind}',
                names=of.names if of else {'en': icon.english},
                key=f'icon:{icon.style}:{icon.key}',
                source=f'npm @iconify/json {icons.VERSION}: {icon.style}',
                licence=f'{icon.licence} AND Unicode-3.0' if of else icon.licence,
            )

    def _record(
        self, frames, concept, family, *, style, category, subcategory, names, key=None, source=None, licence=None
    ):
        config = self.builder_config
        languages = sorted(names)
        if licence is None:  # Stamps have their own captions; Unicode names emoji.
            licence = LICENCES[style] if style.startswith('tux-') else f'{LICENCES[style]} AND Unicode-3.0'
        record = {
            'frames': [pixels.webp(pixels.on_white(f, config.size, config.enlarge), config.quality) for f in frames],
            'concept': concept,
            'style': style,
            'category': category,
            'subcategory': subcategory,
            'languages': languages,
            'names': [names[language] for language in languages],
            'heldout_languages': [language for language in heldout_languages(family) if language in names],
            'source': source or SOURCES[style],
            'licence': licence,
        }
        return split_of(family), key or f'{concept}/{style}', record
