"""Builds the text on which the small language model is pretrained:

    bash data/dictionary_text/fetch.sh RAW_DIR
    python -m data.dictionary_text.build --raw=RAW_DIR --out=DATA_DIR --config=small

The data set appears at DATA_DIR/dictionary_text/CONFIG/VERSION. `small` takes one minute of one core, `full` five.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('raw', None, 'Folder that fetch.sh filled.', required=True)
    flags.DEFINE_string('out', None, 'Folder for data sets.', required=True)
    configs = ['copying', 'small', 'copying_full', 'full', 'names_full']
    flags.DEFINE_enum('config', 'small', configs, 'small: 8 languages; full: 36.')
    flags.DEFINE_bool('overwrite', False, 'Build again if the data set exists.')
    commands.start(__doc__)

from data.building import build
from data.dictionary_text.dictionary_text_dataset_builder import Builder


def main() -> None:
    """Builds the config that the flags name."""
    f = flags.FLAGS
    build(Builder, f.config, f.raw, f.out, f.overwrite)


if __name__ == '__main__':
    main()
