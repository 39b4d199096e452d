"""Clip art by some hundred artists, as pairs with titles and descriptions and as an image set.

    data/clip_art/fetch.sh RAW
    python -m data.clip_art.build --raw=RAW --dictionary=DATA/picture_dictionary/full/1.0.0 --out=DATA

DATA/clip_art/pairs/1.0.0 has documents (`Documents`), DATA/clip_art/full/1.0.0 images (`FewShot`). The style is
'clip-art ARTIST'; artists of few images are together in 'clip-art'.
"""

from absl import flags

from data import beam_flags
from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('raw', None, 'Folder that fetch.sh filled.', required=True)
    flags.DEFINE_string('dictionary', None, 'The prepared picture dictionary.', required=True)
    beam_flags.define()
    commands.start(__doc__)

import collections
import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data import building, drawings
from data.clip_art import openclipart
from data.picture_dictionary.picture_dictionary_dataset_builder import image_features
from flamingo_jax.inputs.sources.array_record import open_split

# Fields of a record of an image set that a document's `meta` has too.
ALIKE = ('concept', 'style', 'category', 'subcategory', 'heldout_languages', 'source', 'licence', 'artist')
PROLIFIC = 20  # Images of an artist whose style has a name of its own.


class Pairs(drawings.Drawings, skip_registration=True):
    """Clip art with its titles and descriptions."""

    name = 'clip_art'

    def __init__(self, things: Any = None, english: Any = None, **rest):
        """things, english: those of `data/drawings.py`."""
        self.READERS = {'.svg': functools.partial(openclipart.read, things=things, english=english)}
        super().__init__(**rest)


class Images(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Clip art: things by many artists, named by their titles and keywords. Read from the built documents."""

    name = 'clip_art'
    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='full', description='Every image.')]
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'Build the documents first.'

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(image_features() | dict(artist=tfds.features.Text())),
            license='per record, in the feature `licence`',
        )

    def _split_generators(self, dl_manager):
        records = {split: open_split(str(dl_manager.manual_dir), split) for split in drawings.SPLITS}
        about = {split: [json.loads(record['meta']) for record in records[split]] for split in drawings.SPLITS}
        images = collections.Counter(one['artist'] for some in about.values() for one in some)
        for one in itertools.chain(*about.values()):
            one['style'] = f'clip-art {one["artist"]}' if images[one['artist']] >= PROLIFIC else 'clip-art'
        return {split: self._examples(records[split], about[split]) for split in drawings.SPLITS}

    def _generate_examples(self):
        raise NotImplementedError('`_split_generators` gives them.')

    def _examples(self, records: Sequence[Any], about: Sequence[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for record, one in zip(records, about, strict=True):
            languages = sorted(one['names'])
            names = [one['names'][language] for language in languages]
            frames = [next(image for image in record['images'] if image)]
            alike = {key: one[key] for key in ALIKE}
            yield record['id'].decode(), dict(frames=frames, languages=languages, names=names, **alike)


def main() -> None:
    """Builds both."""
    f = flags.FLAGS
    building.refuse_bucket(f.out)  # Before the pairs, which could be there.
    things, english = drawings.things_of(Path(f.raw), Path(f.dictionary)), drawings.english_words(Path(f.raw))
    config = tfds.core.BuilderConfig(name='pairs', version='1.0.0')
    source = f'{f.raw}/x/openclipart-svg/usr/share/openclipart/svg/**/*.svg'
    documents = beam_flags.build(Pairs, config, source=source, things=things, english=english)
    print(building.build(Images, 'full', str(documents), f.out, f.overwrite))


if __name__ == '__main__':
    main()
