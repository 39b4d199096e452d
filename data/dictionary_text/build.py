"""Builds the text on which the small language model is pretrained:

    bash data/dictionary_text/fetch.sh RAW_DIR
    python -m data.dictionary_text.build --raw=RAW_DIR --out=DATA_DIR --config=small

The data set appears at DATA_DIR/dictionary_text/CONFIG/VERSION. `small` takes one minute of one core, `full` three.
"""

import sys

from absl import app, flags, logging

from data.building import build
from data.dictionary_text.dictionary_text_dataset_builder import Builder

_RAW = flags.DEFINE_string('raw', None, 'Folder that fetch.sh filled.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Folder to put data sets in.', required=True)
_CONFIG = flags.DEFINE_enum('config', 'small', list(Builder.builder_configs), 'small: 8 languages; full: 36.')
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Build again what is built already.')


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'unknown arguments {argv[1:]}')
    logging.set_verbosity(logging.INFO)
    try:
        build(Builder, _CONFIG.value, _RAW.value, _OUT.value, _OVERWRITE.value)
    except FileNotFoundError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    app.run(main)
