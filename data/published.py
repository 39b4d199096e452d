"""The flags and the run of the commands that build published sets; what reads a set stands in its folder here."""

import tempfile
from typing import Any

from absl import flags

from data import beam_flags
from flamingo_jax import commands

flags.disclaim_key_flags()  # A flag that is defined here belongs to the command that calls it.


def start(doc: str) -> None:
    """Defines the flags and starts the command."""
    flags.DEFINE_string('source', None, 'Files of the set, such as FOLDER/*.tar; ** is any folder.', required=True)
    flags.DEFINE_string('images', '', 'Folder of the images or videos that the set names.')
    flags.DEFINE_string('name', 'all', 'Name of this build, if there are several: part of its path.')
    flags.DEFINE_list('benchmarks', [], 'Folders and files of evaluation sets, whose images are left out.')
    beam_flags.define()
    commands.start(doc)


def build(builder_class: type, **fields: Any) -> None:
    """Builds the data set; `fields` are the builder's own.

    Raises:
      FileNotFoundError, ValueError: those of the builder and of `flamingo_jax.building.write.build`.
    """
    import tensorflow_datasets as tfds

    from flamingo_jax.building.duplicates import index_benchmarks
    from flamingo_jax.building.readers.media_files import READABLE

    f = flags.FLAGS
    config = tfds.core.BuilderConfig(name=f.name, version='1.0.0')
    with tempfile.TemporaryDirectory() as folder:
        benchmarks = index_benchmarks(f.benchmarks, READABLE, f'{folder}/benchmarks.npz') if f.benchmarks else ''
        beam_flags.build(builder_class, config, source=f.source, images=f.images, benchmarks=benchmarks, **fields)
