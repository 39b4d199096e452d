"""The smallest real run: a random trunk of a few channels, a random language model, the committed sample, one config.

    python tests/tiny_run.py PARTS WORKDIR STEPS [--help]

trains in a process of its own, for tests that kill it.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import random
import socket
import time
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from flamingo_jax import features
from flamingo_jax.checkpoints import bundle
from flamingo_jax.files import as_path
from flamingo_jax.inputs.rows import Interleaved
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import TINY, FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.vision.efficientnet import EfficientNetConfig
from flamingo_jax.tasks.names import Names
from flamingo_jax.tasks.source import FewShot, game
from flamingo_jax.tasks.words import Words
from flamingo_jax.training import config as training
from flamingo_jax.training.objectives.objective import LOSSES
from flamingo_jax.training.progress import Progress

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = str(ROOT / 'data/picture_dictionary/sample')
TOKENIZER = ROOT / 'experiments/lm_dictionary/tokenizer.model'


def make_trunk(path: pathlib.Path) -> bundle.Bundle:
    """A random trunk of 4 features of 24 channels, for images of 16 pixels."""
    vision = EfficientNetConfig(stages=((1, 3, 1, 1, 8), (1, 3, 2, 2, 8)), stem_width=8, head_width=24, resolution=16)
    config = FlamingoConfig(vision=vision, image_size=16)
    params = nn.meta.unbox(jax.jit(Flamingo(config).init)(jax.random.key(1)))
    bundle.save(path, config, params, None, None, '')
    return bundle.read(path)


def make_parts(folder: pathlib.Path) -> None:
    """Bundles FOLDER/trunk and FOLDER/lm, and FOLDER/features of the sample."""
    make_trunk(folder / 'trunk')
    tokenizer = Tokenizer.read(TOKENIZER)
    lm = dict(vocab_size=tokenizer.vocab_size, width=32, depth=3, heads=2, kv_heads=2, head_dim=16, ffw_width=64)
    config = FlamingoConfig(lm=dataclasses.replace(TINY['lm'], **lm))
    params = nn.meta.unbox(jax.jit(Flamingo(config).init)(jax.random.key(2)))
    bundle.save(folder / 'lm', config, params, tokenizer, None, '')
    features.compute(SAMPLE, bundle.read(folder / 'trunk'), str(folder / 'features'), ['train', 'test'])


def tiny_config(parts: pathlib.Path) -> ConfigDict:
    """Two data sets, one of pixels and one of features, 4 sequences each."""
    c = training.base()
    c.steps, c.checkpoint_every, c.log_every = 6, 2, 1
    c.lm, c.vision, c.image_tag = str(parts / 'lm'), str(parts / 'trunk'), 'token'
    c.model.resampler = ConfigDict(TINY['resampler'].to_json() | dict(latents=2, width=16, heads=2, head_dim=8))
    c.model.xattn = ConfigDict(TINY['xattn'].to_json() | dict(every=2, heads=2, head_dim=16, initial_alpha=0.3))
    common = dict(path=SAMPLE, length=48, images=4, batch_size=8)
    words = dict(shots=4, games=dict(bind=game(Words, classes=(2, 3))))
    names = dict(shots=4, games=dict(name=game(Names, languages=('fr', 'ja'))))
    c.datasets.words = training.dataset(FewShot, **words, features=str(parts / 'features'), **common)
    c.datasets.names = training.dataset(FewShot, **names, loss_weight=0.2, **common)
    c.noise.feature_dropout = 0.1
    c.optimizer.warmup_steps = 2
    c.optimizer.learning_rate = 1e-2
    return c


def losses(workdir: pathlib.Path, tag: str = 'loss') -> list[tuple[int, float]]:
    """(step, loss) as TensorBoard has it, in the order of time: a step that was trained again is there again."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    return [
        (event.step, make_ndarray(value.tensor).item())
        for file in sorted(workdir.glob('events.out.tfevents*'), key=lambda file: file.stat().st_mtime)
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag == tag
    ]


def break_gradients(seed: int, steps: Sequence[int]) -> None:
    """Makes the gradient of these steps NaN in every run of this process, though their loss is finite."""
    honest, key = LOSSES[Interleaved], jax.random.split(jax.random.key(seed))[1]
    # What a step draws from: its first data set's key tells it.
    keys = [jax.random.split(jax.random.fold_in(jax.random.fold_in(key, step - 1), 0), 1)[0] for step in steps]
    broken = np.stack([jax.random.key_data(key) for key in keys])

    def loss_sum(model, trained, frozen, batch, key, noise):
        loss, sums = honest(model, trained, frozen, batch, key, noise)
        now = (jax.random.key_data(key) == broken).all(axis=1).any()
        x = sum(leaf.sum() for leaf in jax.tree.leaves(trained))
        # The square root is 0, and its slope is 0 * inf.
        return loss + jnp.sqrt(jnp.where(now, 0 * x, 1.0)) - jnp.where(now, 0.0, 1.0), sums

    LOSSES[Interleaved] = loss_sum


def be_patient(seconds: float) -> None:
    """How long this process waits for another, for the lease of another, and for a worker that was stopped."""
    from flamingo_jax import locks
    from flamingo_jax.inputs import pipeline
    from flamingo_jax.parallel import processes

    processes.HEARTBEAT_SECONDS = round(seconds)
    locks.LEASE, locks.RENEWED = seconds, seconds / 6
    pipeline.BETWEEN = seconds / pipeline.LOOKS


def slow_down(seconds: float) -> None:
    """Each step takes so much longer, as those of a real model do, which take longer than what a disk answers."""
    add = Progress.add

    def slowly(self, *of_step):
        add(self, *of_step)
        time.sleep(seconds)

    Progress.add = slowly


def free_port() -> int:
    """A port on which the first of several processes may listen.

    It is below those that the system hands out to whoever asks for any, since another could be given it meanwhile.
    """
    while True:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(('localhost', port := random.SystemRandom().randrange(10_000, 32_000)))
            return port


def main() -> None:
    """Reads the arguments and trains."""
    parser = argparse.ArgumentParser()
    parser.add_argument('parts', type=as_path)
    parser.add_argument('workdir')
    parser.add_argument('steps', type=int)
    parser.add_argument('--devices', type=int, default=1, help='of each process')
    parser.add_argument('--data', default=SAMPLE)
    parser.add_argument('--mesh', type=int, nargs=3, default=(-1, 1, 1))
    parser.add_argument('--checkpoint_every', type=int, default=2)
    parser.add_argument('--one_data_set', action='store_true', help='halves the time to compile')
    parser.add_argument('--broken', type=int, nargs='*', default=(), help='steps whose gradient is NaN')
    parser.add_argument('--workers', type=int, default=0, help='processes that read each data set')
    parser.add_argument('--hang_seconds', type=float, help='after which a run that hangs ends itself')
    parser.add_argument('--own', type=as_path, help='instead: FOLDER/PROCESS/own.jsonl (tests/own_data.py)')
    parser.add_argument('--pace', type=float, default=0.0, help='seconds that a step takes longer')
    parser.add_argument('--patience', type=float, help='seconds after which what does not answer is taken for dead')
    parser.add_argument('--validate_every', type=int, default=0, help='steps')
    parser.add_argument('--coordinator', default='')
    parser.add_argument('--processes', type=int)
    parser.add_argument('--process_id', type=int)
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # Grain reads its own in workers.
    from flamingo_jax.parallel import processes
    from flamingo_jax.train import train

    jax.config.update('jax_num_cpu_devices', arguments.devices)
    if arguments.patience:
        be_patient(arguments.patience)
    processes.join(arguments.coordinator, arguments.processes, arguments.process_id)
    config = tiny_config(arguments.parts)
    config.steps, config.checkpoint_every = arguments.steps, arguments.checkpoint_every
    config.mesh = dict(zip(('data', 'fsdp', 'tensor'), arguments.mesh, strict=True))
    for data in config.datasets.values():
        data.path, data.workers = arguments.data, arguments.workers
    if arguments.hang_seconds:
        config.hang_seconds = arguments.hang_seconds
    if arguments.own:
        del config.datasets.words, config.datasets.names
        os.chdir(arguments.own / str(arguments.process_id or 0))  # All processes of a run have the same config.
        common = dict(path='own.jsonl', length=32, images=1, batch_size=8)
        config.datasets.own = training.dataset(Documents, workers=arguments.workers, **common)
    if arguments.validate_every:
        config.datasets.words.validation_split, config.validate_every = 'test', arguments.validate_every
        config.validation_batches = 10**6  # Without end.
    if arguments.one_data_set:
        del config.datasets.names
    if arguments.broken:
        break_gradients(config.seed, arguments.broken)
    slow_down(arguments.pace)
    train(config, arguments.workdir)


if __name__ == '__main__':
    main()
