"""A picture set of one's own pictures, from a folder that has a folder of pictures for each thing:

    FOLDER/robin/1.jpg FOLDER/robin/2.jpg FOLDER/blackbird/a.png ...

    python -m data.own_pictures.build --folder=FOLDER --out=DATA

DATA/own_pictures/full/1.0.0 has a record for each picture, named by its folder (`_` is a space). Of each thing's
pictures a fifth is the split `test`, and the others are `train`. Files that are no pictures are left out, and counted.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('folder', None, 'Folder of folders of pictures.', required=True)
    flags.DEFINE_string('out', None, 'Folder for data sets.', required=True)
    flags.DEFINE_integer('size', 256, 'Longer side of a stored picture in pixels.', lower_bound=16)
    flags.DEFINE_bool('overwrite', False, 'Build again if the data set exists.')
    commands.start(__doc__)

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from data import building
from data.picture_dictionary import pixels
from data.picture_dictionary.picture_dictionary_dataset_builder import picture_features
from flamingo_jax.inputs.images import PictureError, decode

FORM = 'It must have a folder for each thing, named by it, with pictures: robin/1.jpg, robin/2.jpg, blackbird/1.jpg.'


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """`size` is the longer side of a stored picture."""

    size: int = 256


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One's own pictures, named by the folders in which they lie."""

    name = 'own_pictures'
    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = FORM

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(picture_features())
        return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features)

    def _split_generators(self, dl_manager):
        folder = Path(dl_manager.manual_dir)
        things = sorted(thing for thing in folder.iterdir() if thing.is_dir())
        records: dict[str, list[tuple[str, dict[str, Any]]]] = dict(train=[], test=[])
        for thing in building.progress(things, len(things), 'things'):
            found = sorted(self._pictures(thing), key=lambda one: one[0])
            for place, (digest, record) in enumerate(found):
                # At least one of two pictures is asked about, and a single one is for training.
                records['test' if place % 5 == 1 else 'train'].append((digest, record))
        if not all(records.values()):
            raise ValueError(
                f'{folder} has {sum(map(len, records.values()))} pictures in {len(things)} folders, and no folder has '
                f'two different ones. {FORM}'
            )
        return records

    def _generate_examples(self):
        raise NotImplementedError('`_split_generators` makes the records.')

    def _pictures(self, thing: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """(digest, record) of each picture of a thing; equal files are one picture."""
        name, seen, wrong = thing.name.replace('_', ' ').strip(), set(), []
        for file in sorted(path for path in thing.rglob('*') if path.is_file()):
            try:
                picture = decode(file.read_bytes())
                frame = pixels.webp(pixels.on_white(picture, self.builder_config.size, enlarge=False), 90)
            except (OSError, PictureError) as error:
                wrong.append(f'{file.name} ({error})')
                continue
            digest = hashlib.sha256(f'{name}\n'.encode() + frame).hexdigest()
            if digest in seen:
                continue
            seen.add(digest)
            texts = dict(concept=name, style='own', category='own', subcategory='', source=file.name, licence='')
            yield digest, dict(frames=[frame], languages=['en'], names=[name], heldout_languages=[], **texts)
        if wrong:
            logging.warning('%s: left out %d files that are no pictures, such as %s', thing, len(wrong), wrong[0])


def main() -> None:
    """Builds the picture set."""
    f = flags.FLAGS
    config = Config(name='full', description='All pictures.', size=f.size)
    print(building.build(Builder, config, f.folder, f.out, f.overwrite))


if __name__ == '__main__':
    main()
