"""Builds the scenes from a prepared picture dictionary:

    python -m data.picture_scenes.build --images=DATA_DIR/picture_dictionary/full/1.0.0 --out=DATA_DIR

The data set appears at DATA_DIR/picture_scenes/full/VERSION, in a minute of one core.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('images', None, 'Folder of a prepared picture dictionary.', required=True)
    configs = ['full', 'quarters', 'ninths']
    flags.DEFINE_enum('config', 'full', configs, 'Whole scenes, or each with its four quarters, or nine tiles.')
    flags.DEFINE_string('out', None, 'Folder for data sets.', required=True)
    flags.DEFINE_bool('overwrite', False, 'Build again if the data set exists.')
    commands.start(__doc__)

from data.building import build
from data.picture_scenes.picture_scenes_dataset_builder import Builder


def main() -> None:
    """Builds the scenes."""
    f = flags.FLAGS
    build(Builder, f.config, f.images, f.out, f.overwrite)


if __name__ == '__main__':
    main()
