"""The flags that every build on Apache Beam has, and the build that they describe."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()  # A flag that is defined here belongs to the command that calls it.


def define() -> None:
    """Defines --out, --workers, --beam, --overwrite and --validation."""
    flags.DEFINE_string('out', None, 'Folder for data sets.', required=True)
    flags.DEFINE_integer('workers', 1, 'Processes of this machine.', lower_bound=1)
    flags.DEFINE_list('beam', [], "Beam's own flags, such as --runner=FlinkRunner,--flink_master=HOST:8081.")
    flags.DEFINE_bool('overwrite', False, 'Build again if the data set exists.')
    flags.DEFINE_float('validation', 0.0, 'Share of the documents to hold out.', lower_bound=0.0, upper_bound=1.0)


def build(builder_class: type, config: Any, **fields: Any) -> Any:
    """Builds a data set, prints what it holds and what was dropped, and returns its folder.

    `fields` are those of the builder. Errors are those of `flamingo_jax.building.write.build`.
    """
    from flamingo_jax.building import write  # Beam takes a second, which --help does not need.

    f = flags.FLAGS
    how = dict(workers=f.workers, beam_flags=f.beam, overwrite=f.overwrite, validation=f.validation)
    folder = write.build(builder_class, f.out, config, **how, **fields)
    print(write.summary(folder))
    return folder
