"""Icons by 180 artists, as pairs with sentences and as a picture set.

    data/icons/fetch.sh RAW
    python -m data.icons.build --raw=RAW --dictionary=DATA/picture_dictionary/full/1.0.0 --out=DATA

DATA/icons/pairs/1.0.0 has documents (`Documents`), DATA/icons/full/1.0.0 pictures of things with at least three artists
(`FewShot`).
"""

from absl import flags

from data import beam_flags
from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('raw', None, 'Folder that fetch.sh filled.', required=True)
    flags.DEFINE_string('dictionary', None, 'The prepared picture dictionary.', required=True)
    beam_flags.define()
    commands.start(__doc__)

import functools
from pathlib import Path

import tensorflow_datasets as tfds

from data import building, drawings
from flamingo_jax.building.readers import icons
from flamingo_jax.building.readers.builder import summary


class Pairs(drawings.Drawings, skip_registration=True):
    """Icons with their names and what WordNet says of them."""

    name = 'icons'

    def __init__(self, things: drawings.Thing = None, **rest):
        """things: `drawings.things_of`."""
        self.READERS = {'.json': functools.partial(icons.read, things=things)}
        super().__init__(**rest)


class Pictures(drawings.Pictures, skip_registration=True):
    """Icons: one thing by many artists. The style is the icon set."""

    name = 'icons'


def main() -> None:
    """Builds both."""
    f = flags.FLAGS
    things = drawings.things_of(Path(f.raw), Path(f.dictionary))
    config = tfds.core.BuilderConfig(name='pairs', version='1.0.0')
    source = f'{f.raw}/n/iconify-json-2.2.535/package/json/*.json'
    documents = beam_flags.build(Pairs, config, source=source, things=things)
    print(summary(documents))
    print(building.build(Pictures, 'full', str(documents), f.out, f.overwrite))


if __name__ == '__main__':
    main()
