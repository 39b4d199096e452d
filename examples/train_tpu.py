"""Train a bridge on all chips of a TPU VM, with parameters and batches sharded over them.

    python examples/train_tpu.py --workdir=DIR                              on a TPU VM with 4 or 8 chips, or more
    python examples/train_tpu.py --workdir=DIR --cpu_devices=8 --steps=4    anywhere: 8 devices that the CPU plays
    python examples/train_tpu.py --workdir=gs://BUCKET/RUN --coordinator=auto       on each host of a pod slice

docs/tpu.md has the commands that make the VM. The same command resumes a run that was stopped.

Cost: the small form takes some minutes on two CPU cores, most of them to compile for a mesh of 8. It was not timed.
The full form (500 steps of 32 rows) has not run on a TPU: none was at hand. The same step runs on meshes of 8 simulated
devices in tests/training/test_step.py, and `python -m flamingo_jax.plan` compiles such steps for TPUs.

Expect: 'On 8 x cpu, in float32', a progress line, and last how the parameters lie:

    trained: N parameters, of which a device holds fewer than N / 2
    answer after 4 steps: '...'

After 4 steps the answer means nothing. With all 500, new words are right in about .73 of the cases: this is the
quickstart's recipe, whose table is in README.md.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'Folder of the run; for several hosts one in a bucket.', required=True)
    flags.DEFINE_integer('steps', 500, 'Training steps.')
    flags.DEFINE_integer('cpu_devices', 0, 'Devices that the CPU plays; 0 takes the devices that there are.')
    commands.define_processes()
    commands.start(__doc__)

import pathlib

import jax
from ml_collections import ConfigDict

import flamingo_jax
from flamingo_jax.model.config import TINY
from flamingo_jax.parallel import processes
from flamingo_jax.parallel.mesh import make_mesh
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.words import Words
from flamingo_jax.train import train
from flamingo_jax.training import config as training

ROOT = pathlib.Path(__file__).parents[1]
# Two ways to cut a parameter, for a VM of 4 chips or more: `fsdp` cuts what each device stores, `tensor` the products
# themselves. `data` takes the remaining devices. All devices along `data` and `fsdp` have rows of their own.
MESH = dict(data=-1, fsdp=2, tensor=2)


def get_config() -> ConfigDict:
    """New words and English names, from pixels: on a TPU the trunk is fast, and images can be changed at random."""
    c = training.base()
    c.lm = str(ROOT / 'experiments/lm_dictionary')  # Bundles: its language model, and a trunk. Both stay frozen.
    c.vision = str(ROOT / 'experiments/picture_dictionary')
    c.image_tag = 'token'
    c.model.resampler = ConfigDict(TINY['resampler'].to_json())
    c.model.xattn = ConfigDict(TINY['xattn'].to_json() | dict(initial_alpha=0.5))
    c.datasets.names = training.dataset(
        FewShot,
        path=str(ROOT / 'data/picture_dictionary/sample'),
        games=dict(bind=game(Words, share=0.6), name=game(Names, share=0.4)),
        styles=('noto', 'noto-v1', 'fluent-flat'),
        shots=8,
        images=8,
        length=56,
        batch_size=32,  # Over all devices.
    )
    c.optimizer.update(learning_rate=1.5e-3, warmup_steps=40, final_fraction=0.05, b2=0.98, gate_factor=3.0)
    c.mesh = ConfigDict(MESH)
    c.checkpoint_every = 250
    return c


def main(workdir: str, steps: int) -> None:
    """Trains, then reads the run back into the same shards and asks it."""
    config = get_config()
    config.steps = steps
    train(config, workdir)

    flamingo = flamingo_jax.load(workdir, mesh=make_mesh(**MESH))
    trained = jax.tree.leaves([flamingo.params[name] for name in config.trained])
    held = sum(leaf.addressable_shards[0].data.size for leaf in trained)
    processes.say(f'trained: {sum(x.size for x in trained):,} parameters, of which a device holds {held:,}')
    gorilla, mushroom, query = (ROOT / f'docs/pictures/{name}.png' for name in ('gorilla', 'mushroom', 'mushroom_3d'))
    answer = flamingo.generate([gorilla, ' dax<EOC>', mushroom, ' wug<EOC>', query])
    processes.say(f'answer after {steps} steps: {answer!r}')


if __name__ == '__main__':
    f = flags.FLAGS
    if f.cpu_devices:
        jax.config.update('jax_platforms', 'cpu')
        jax.config.update('jax_num_cpu_devices', f.cpu_devices)
    processes.join(f.coordinator, f.processes, f.process_id)
    main(f.workdir, f.steps)
