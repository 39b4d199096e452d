"""Icons of 189 sets, as pairs with sentences (`Documents`): DATA/icons/pairs/1.0.0.

    data/picture_dictionary/fetch.sh --icons RAW
    python -m data.icons.build --raw=RAW --dictionary=DATA/picture_dictionary/full/1.0.0 --out=DATA

For games, the picture dictionary's config `artists` has the things that 31 of these sets drew.
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

from data import drawings
from data.icons import iconify
from data.picture_dictionary.icons import ROOT


class Pairs(drawings.Drawings, skip_registration=True):
    """Icons with their names and what WordNet says of them."""

    name = 'icons'

    def __init__(self, things: dict[str, drawings.Thing] | None = None, **rest):
        """things: `drawings.things_of`."""
        self.READERS = {'.json': functools.partial(iconify.read, things=things)}
        super().__init__(**rest)


def main() -> None:
    """Builds them."""
    f = flags.FLAGS
    things = drawings.things_of(Path(f.raw), Path(f.dictionary))
    config = tfds.core.BuilderConfig(name='pairs', version='1.0.0')
    source = f'{f.raw}/{ROOT}/*.json'
    beam_flags.build(Pairs, config, source=source, things=things)


if __name__ == '__main__':
    main()
