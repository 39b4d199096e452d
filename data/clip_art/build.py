"""Clip art by some hundred artists, as pairs with titles and descriptions and as a picture set.

    data/clip_art/fetch.sh RAW
    python -m data.clip_art.build --raw=RAW --dictionary=DATA/picture_dictionary/full/1.0.0 --out=DATA

DATA/clip_art/pairs/1.0.0 has documents (`Documents`), DATA/clip_art/full/1.0.0 pictures (`FewShot`). The style is
'clip-art ARTIST'; artists of few pictures are together in 'clip-art'.
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
from typing import Any

import tensorflow_datasets as tfds

from data import building, drawings
from flamingo_jax.building.readers import clip_art
from flamingo_jax.building.readers.builder import summary

PROLIFIC = 20  # Pictures of an artist whose style has a name of its own.


class Pairs(drawings.Drawings, skip_registration=True):
    """Clip art with its titles and descriptions."""

    name = 'clip_art'

    def __init__(self, things: Any = None, english: Any = None, **rest):
        """things, english: those of `data/drawings.py`."""
        self.READERS = {'.svg': functools.partial(clip_art.read, things=things, english=english)}
        super().__init__(**rest)


class Pictures(drawings.Pictures, skip_registration=True):
    """Clip art: things by many artists, named by their titles and keywords."""

    name = 'clip_art'
    FEWEST = 1

    def style(self, about: dict[str, Any], pictures: int) -> str:
        """The artist's, if there are many pictures."""
        return f'clip-art {about["artist"]}' if pictures >= PROLIFIC else 'clip-art'


def main() -> None:
    """Builds both."""
    f = flags.FLAGS
    things, english = drawings.things_of(Path(f.raw), Path(f.dictionary)), drawings.english_words(Path(f.raw))
    config = tfds.core.BuilderConfig(name='pairs', version='1.0.0')
    source = f'{f.raw}/x/openclipart-svg/usr/share/openclipart/svg/**/*.svg'
    documents = beam_flags.build(Pairs, config, source=source, things=things, english=english)
    print(summary(documents))
    print(building.build(Pictures, 'full', str(documents), f.out, f.overwrite))


if __name__ == '__main__':
    main()
