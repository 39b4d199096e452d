"""Stills and clips that models made, with the prompts that they were made from.

    data/prompted/fetch.sh RAW
    python -m data.prompted.build --raw=RAW --out=DATA

DATA/prompted/full/1.0.0 has documents (`Documents`).
"""

from absl import flags

from data import beam_flags
from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('raw', None, 'Folder that fetch.sh filled.', required=True)
    beam_flags.define()
    commands.start(__doc__)

import tensorflow_datasets as tfds

from flamingo_jax.building.readers import comfyui
from flamingo_jax.building.readers.builder import PublishedBuilder


class Prompted(PublishedBuilder, skip_registration=True):
    """Stills and clips made by models, with their prompts."""

    name = 'prompted'
    READERS = {'.json': comfyui.read}


def main() -> None:
    """Builds them."""
    raw = f'{flags.FLAGS.raw}/prompted'
    config = tfds.core.BuilderConfig(name='full', version='1.0.0')
    source = f'{raw}/comfyui_workflow_templates_json/templates/index.json'
    beam_flags.build(Prompted, config, source=source, images=raw)


if __name__ == '__main__':
    main()
