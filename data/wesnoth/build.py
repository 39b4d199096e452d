"""Portraits with their descriptions, and illustrated stories, of Battle for Wesnoth, in up to 45 languages.

    data/wesnoth/fetch.sh RAW
    python -m data.wesnoth.build --raw=RAW --out=DATA [--notranslations]

DATA/wesnoth/full/1.0.0 has documents (`Documents`); without translations, DATA/wesnoth/english/1.0.0.
"""

from absl import flags

from data import beam_flags
from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('raw', None, 'Folder that fetch.sh filled.', required=True)
    flags.DEFINE_bool('translations', True, 'Other languages than English, too.')
    beam_flags.define()
    commands.start(__doc__)

import functools

import tensorflow_datasets as tfds

from data import drawings
from data.picture_dictionary.picture_dictionary_dataset_builder import split_of
from data.wesnoth import wml

GAME = 'usr/share/games/wesnoth/1.18'


class Wesnoth(drawings.Drawings, skip_registration=True):
    """Portraits and illustrated stories, with their texts in many languages."""

    name = 'wesnoth'

    def __init__(self, locale: str = '', **rest):
        """locale: the folders of translations."""
        self.READERS = {'.cfg': functools.partial(wml.read, locale=locale, split_of=split_of)}
        super().__init__(**rest)


def main() -> None:
    """Builds them."""
    raw = f'{flags.FLAGS.raw}/x/wesnoth-1.18-'
    translations = flags.FLAGS.translations
    config = tfds.core.BuilderConfig(name='full' if translations else 'english', version='1.0.0')
    source, locale = f'{raw}*/{GAME}/data/c*/**/*.cfg', f'{raw}*/{GAME}/locale'
    beam_flags.build(Wesnoth, config, source=source, locale=locale if translations else '')


if __name__ == '__main__':
    main()
