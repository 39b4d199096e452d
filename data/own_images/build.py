"""An image set of one's own images, from a folder that has a folder of images for each thing:

    FOLDER/robin/1.jpg FOLDER/robin/2.jpg FOLDER/blackbird/a.png ...

    python -m data.own_images.build --folder=FOLDER --out=DATA

DATA/own_images/full/1.0.0 has a record for each image, named by its folder (`_` is a space). Of each thing's
images about a fifth is the split `test`, and the others are `train`; of two or more, at least one is in each. A
image's content decides, so that images which are added hardly move others into another split. Files that are no
images are left out, and so are hidden files and folders, and an image that is there already.
"""

from absl import flags

from flamingo_jax import commands
from flamingo_jax.errors import UserError

if __name__ == '__main__':
    flags.DEFINE_string('folder', None, 'Folder of folders of images.', required=True)
    flags.DEFINE_string('out', None, 'Folder for data sets.', required=True)
    flags.DEFINE_integer('size', 256, 'Longer side of a stored image in pixels.', lower_bound=16)
    flags.DEFINE_bool('overwrite', False, 'Build again if the data set exists.')
    commands.start(__doc__)

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from data import building
from data.picture_dictionary import pixels
from data.picture_dictionary.picture_dictionary_dataset_builder import image_features
from flamingo_jax.files import read_bytes
from flamingo_jax.inputs.images import ImageError, decode

FORM = 'It must have a folder for each thing, named by it, with images: robin/1.jpg, robin/2.jpg, blackbird/1.jpg.'


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """`size` is the longer side of a stored image."""

    size: int = 256


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One's own images, named by the folders in which they lie."""

    name = 'own_images'
    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = FORM

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(image_features())
        return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features)

    def _split_generators(self, dl_manager):
        folder = Path(dl_manager.manual_dir)
        things = sorted(thing for thing in folder.iterdir() if thing.is_dir() and not _hidden(thing))
        for thing in things:
            try:
                thing.name.encode()
            except UnicodeEncodeError as error:
                raise UserError(f'The name of the folder {os.fsencode(thing)!r} is not UTF-8. Rename it.') from error
        records: dict[str, list[tuple[str, dict[str, Any]]]] = dict(train=[], test=[])
        seen: dict[str, Path] = {}
        for thing in building.progress(things, len(things), 'things'):
            found = sorted(self._images(thing, seen), key=lambda one: one[0])
            test = [one for one in found if int(one[0], 16) % 5 == 0] or found[:1]
            # At least one image is for training, and of two or more, one is asked about.
            test = test[: len(found) - 1]
            records['test'] += test
            records['train'] += [one for one in found if one not in test]
        if not all(records.values()):
            raise UserError(
                f'{folder} has {sum(map(len, records.values()))} images in {len(things)} folders, and no folder has '
                f'two different ones. {FORM}'
            )
        if len({record['concept'] for _, record in records['train']}) == 1:
            raise UserError(f'{folder} has images of one thing. A name tells one thing from another. {FORM}')
        return records

    def _generate_examples(self):
        raise NotImplementedError('`_split_generators` makes the records.')

    def _images(self, thing: Path, seen: dict[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(digest, record) of each image of a thing that is not in `seen`, the file of each digest so far."""
        name, wrong, twice = thing.name.replace('_', ' ').strip(), [], []
        for file in sorted(thing.rglob('*')):
            if not file.is_file() or any(map(_hidden, (file, *file.relative_to(thing).parents))):
                continue
            try:
                frame = _stored(decode(read_bytes(file)), self.builder_config.size)
            except ImageError as error:
                wrong.append(f'{file.name} ({error})')
                continue
            digest = hashlib.sha256(frame).hexdigest()
            if digest in seen:
                twice.append(f'{file} (as {seen[digest]})')
                continue
            seen[digest] = file
            source = os.fsencode(file.name).decode(errors='replace')
            texts = dict(concept=name, style='own', category='own', subcategory='', source=source, licence='')
            yield digest, dict(frames=[frame], languages=['en'], names=[name], heldout_languages=[], **texts)
        if wrong:
            logging.warning('%s: left out %d files that are no images, such as %s', thing, len(wrong), wrong[0])
        if twice:
            logging.warning('%s: left out %d images that are there already, such as %s', thing, len(twice), twice[0])


def _hidden(path: Path) -> bool:
    """Whether a file or folder is a system's own: thumbnails of a desktop or a NAS, what macOS puts into an archive."""
    return path.name.startswith(('.', '@')) or path.name == '__MACOSX'


def _stored(image: Image.Image, size: int) -> bytes:
    """The image as it is stored: its longer side at most `size`. It is made square where it is read."""
    image = image.convert('RGBA' if image.has_transparency_data else 'RGB')
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return pixels.webp(image, 90)


def main() -> None:
    """Builds the image set."""
    f = flags.FLAGS
    config = Config(name='full', description='All images.', size=f.size)
    print(building.build(Builder, config, f.folder, f.out, f.overwrite))


if __name__ == '__main__':
    main()
