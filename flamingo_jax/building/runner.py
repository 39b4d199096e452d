"""Apache Beam, and the options by which a build chooses where it runs."""

from collections.abc import Sequence

from flamingo_jax.errors import MissingPackageError, UserError

try:
    import apache_beam as beam
except ImportError as error:
    raise MissingPackageError(
        f"Data sets are built with Apache Beam: pip install 'flamingo_jax[build]' ({error})."
    ) from error
from apache_beam.options.pipeline_options import PipelineOptions

# By name, since 'DirectRunner' first tries to download a runner written in Go.
EMBEDDED = 'apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner'


def pipeline_options(workers: int = 1, flags: Sequence[str] = ()) -> PipelineOptions:
    """Options of a pipeline.

    Args:
      workers: processes of the embedded runner; 1 is this process.
      flags: Beam's own flags. With '--runner=FlinkRunner', 'SparkRunner' or 'DataflowRunner' the workers are elsewhere;
        they need flamingo_jax[build] installed, the clone in PYTHONPATH (its data/) and the folders in reach.

    Raises:
      ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise UserError(f'A build needs at least one worker, not {workers}.')
    if any(flag.startswith('--runner') for flag in flags):
        return PipelineOptions(list(flags))
    several = ['--direct_running_mode=multi_processing', f'--direct_num_workers={workers}'] if workers > 1 else []
    quiet = '--default_sdk_harness_log_level=ERROR'
    return PipelineOptions([f'--runner={EMBEDDED}', quiet, *several, *flags])


__all__ = ['beam', 'pipeline_options']
