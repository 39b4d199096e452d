"""Builds the scenes from a prepared picture dictionary:

    python -m data.picture_scenes.build --pictures=DATA_DIR/picture_dictionary/full/1.0.0 --out=DATA_DIR

The data set appears at DATA_DIR/picture_scenes/full/VERSION, in a minute of one core.
"""

import sys

from absl import app, flags, logging

from data.building import build
from data.picture_scenes.picture_scenes_dataset_builder import Builder

_PICTURES = flags.DEFINE_string('pictures', None, 'Folder of a prepared picture dictionary.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Folder to put data sets in.', required=True)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Build again what is built already.')


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'unknown arguments {argv[1:]}')
    logging.set_verbosity(logging.INFO)
    try:
        build(Builder, 'full', _PICTURES.value, _OUT.value, _OVERWRITE.value)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    app.run(main)
