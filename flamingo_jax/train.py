"""Trains a Flamingo, or pretrains its language model on text alone.

    python -m flamingo_jax.train --config=experiments/NAME.py --workdir=DIR [--config.KEY=VALUE ...]

All keys of a config, with meanings and defaults, are in flamingo_jax/training/config.py, or in the dataclasses named
there.

The workdir gets run.json (which describes the model), tokenizer.model, parameters.txt (their shapes and shardings),
checkpoints/ and TensorBoard's files; for metrics elsewhere, see flamingo_jax/training/writers.py. To resume
from the newest checkpoint, bit for bit, run the same command again. After SIGTERM, training writes a checkpoint after
the current step and exits with code 0.

Several processes, one per host, each with the same command and the same shared workdir:

    ... --coordinator=HOST:PORT --processes=4 --process_id=0
    ... --coordinator=auto                                       (TPU pods, SLURM: JAX finds all three by itself)

JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID can replace these flags.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
    commands.define_processes()
    commands.start(__doc__, config=True)

import multiprocessing
from collections.abc import Sequence

from ml_collections import ConfigDict

from flamingo_jax import memory
from flamingo_jax.files import Path
from flamingo_jax.parallel import processes
from flamingo_jax.planning import flops
from flamingo_jax.training import run
from flamingo_jax.training.writers import Writer


def train(config: ConfigDict, workdir: str | Path, writers: Sequence[Writer] | None = None) -> dict[str, float]:
    """Runs a config to its last step, or until SIGTERM, and returns the last logged metrics.

    writers: where process 0 writes metrics; None is TensorBoard's event files in the workdir (`training/writers.py`).
    They are closed when the steps end, after an error too.

    Raises:
      OSError: a checkpoint cannot be written, or no existing one is whole; or what is trained on cannot be read.
      DivergedError: the loss, the gradient or the state is not finite for too long; the last good checkpoint is
        kept.
      PartedError: processes hold different copies of the same rows or parameters; nothing of it is saved.
      ValueError, FileNotFoundError: bad input, or another process trains in the workdir. Raised before anything is
        computed.
    """
    return run.train(config, workdir, flops.of_run, writers)


def main() -> None:
    """Runs the training that the flags describe."""
    memory.keep_freed()
    f = flags.FLAGS
    commands.refuse_config_of('training', f.config)
    processes.join(f.coordinator, f.processes, f.process_id)
    try:
        train(f.config, f.workdir)
    finally:
        for worker in multiprocessing.active_children():
            worker.kill()  # Grain ends them one after the other, while other hosts wait for this one to leave.


if __name__ == '__main__':
    main()
