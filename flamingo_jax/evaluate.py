"""Few-shot evaluation of a checkpoint, with baselines for every score.

    python -m flamingo_jax.evaluate --config=experiments/evaluate/NAME.py --checkpoint=BUNDLE_OR_WORKDIR --workdir=DIR

All keys of a config, with meanings and defaults, are in flamingo_jax/evaluation/config.py, those of a task in
flamingo_jax/evaluation/task.py. --config.KEY=VALUE changes one.

The baselines use the same episodes: the model with images shuffled among prompts, the model without images, nearest
centroid and nearest neighbour on the frozen features, and chance.

--config.seeds=3 repeats each setting with other examples, and shows how far the scores lie apart. To compare two
checkpoints on the same queries: python -m flamingo_jax.compare WORKDIR_A WORKDIR_B

To continue an evaluation that was stopped, run the same command again: no question is asked twice. Answers are kept in
DIR/answers by checkpoint and prompt, so more tasks, shots or seeds cost only what is new.

--config.mesh.data=-1 uses all devices of this machine. Several processes, each with the same command and the same
shared workdir, share the questions:

    ... --coordinator=HOST:PORT --processes=4 --process_id=0      (as for flamingo_jax.train)

Mesh, number of processes and batch size do not change an answer, unless two candidates are equally likely up to
rounding.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'A bundle, or the workdir of a training run.', required=True)
    flags.DEFINE_string('lm', '', 'Bundle of the language model, if the checkpoint is a bundle without one.')
    flags.DEFINE_string('workdir', None, 'Folder for the reports.', required=True)
    commands.define_dtype()
    commands.define_processes()
    commands.start(__doc__, config=True)

from flamingo_jax import memory
from flamingo_jax.evaluation.run import evaluate
from flamingo_jax.parallel import processes


def main() -> None:
    """Runs the evaluation that the flags describe."""
    memory.keep_freed()
    f = flags.FLAGS
    commands.refuse_config_of('evaluation', f.config)
    processes.join(f.coordinator, f.processes, f.process_id)
    evaluate(f.config, f.checkpoint, f.workdir, lm=f.lm, dtype=f.dtype)


if __name__ == '__main__':
    main()
