"""Reads a training run's folder: run.json, and the newest checkpoint that agrees with its checksums.

`training/checkpoint.py` writes the checkpoints, and describes the folder.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from flamingo_jax.files import Path, as_path, below, in_bucket
from flamingo_jax.inference import bundle
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Params

CHECKSUMS = 'checksums.json'


@dataclasses.dataclass(frozen=True)
class Run:
    """The newest checkpoint of a training run, and the bundles of the trees that it did not train."""

    config: FlamingoConfig
    image_tag: str | None
    tokenizer: Tokenizer
    frozen: dict[str, bundle.Bundle]
    trained: Params  # On the host, float32.
    step: int


def open_run(path: Path) -> Run:
    """Reads what a run trained.

    Raises:
      FileNotFoundError: there is no finished checkpoint, or the bundle of a frozen tree is missing.
      ValueError: a bundle has changed since the training.
    """
    run = json.loads((path / 'run.json').read_text())
    about, trained, step = read_latest(path)
    config, image_tag = FlamingoConfig.from_json(about['model']), about['image_tag']
    tokenizer = Tokenizer.read(path, image_tag, config.lm.vocab_size, config.extra_tokens)
    frozen = {name: bundle.read(source) for name, source in run['frozen_paths'].items()}
    for name, source in frozen.items():
        if source.checksums.get(name) != about['frozen'][name]:
            raise ValueError(
                f'{source.path} no longer has the {name!r} with which the run {path} was trained. Restore that bundle.'
            )
    return Run(config, image_tag, tokenizer, frozen, jax.tree.map(np.asarray, trained), step)


def read_latest(workdir: str | Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The newest whole checkpoint of a run: (about, trained trees on one device, step).

    Raises:
      FileNotFoundError: the run has no finished checkpoint.
      OSError: every checkpoint is damaged.
    """
    folder = as_path(workdir) / 'checkpoints'
    if not folder.is_dir():
        raise FileNotFoundError(f'{workdir} has no checkpoints. Give the workdir of a training run, or a bundle.')
    if (step := newest_whole(folder)) is None:
        raise FileNotFoundError(f'{workdir} has no finished checkpoint yet. Wait for one, or train further.')
    found = ocp.metadata(folder / str(step))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda _: ocp.PLACEHOLDER, found.metadata)  # The optimizer's state is not read.
    abstract['params'] = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), found.metadata['params']
    )
    return found.custom_metadata['about'], ocp.load(folder / str(step), abstract)['params'], step


def steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints, newest first."""
    found = [entry for entry in folder.iterdir() if entry.name.isdecimal()] if folder.is_dir() else []
    if in_bucket(folder):
        found = [entry for entry in found if (entry / CHECKSUMS).exists()]
    return sorted((int(entry.name) for entry in found), reverse=True)


def unfinished(folder: Path) -> list[Path]:
    """What killed processes left of checkpoints that they were writing or deleting."""
    if not folder.is_dir():
        return []
    if in_bucket(folder):
        whole = set(map(str, steps(folder)))
        return [entry for entry in folder.iterdir() if entry.name.isdecimal() and entry.name not in whole]
    return sorted({*folder.glob('writing-*'), *folder.glob('*.orbax-checkpoint-tmp*')})


def newest_whole(folder: Path) -> int | None:
    """The newest checkpoint that agrees with its checksums. Prints each newer one that does not."""
    found = steps(folder)
    for step in found:
        if (damage := _damage(folder / str(step))) is None:
            return step
        print(f'The checkpoint {folder / str(step)} is damaged: {damage}. Using the one before.', flush=True)
    if found:
        raise OSError(
            f'All checkpoints in {folder} are damaged: those of the steps {found}. Restore a copy of one, or give '
            'another --workdir to start from the beginning.'
        )
    return None


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder and below, except checksums.json, by relative path.

    In a bucket, sizes in bytes: the store has checksums of its own, and to read everything once more could take hours.
    """
    files = {name: size for name, size in below(folder).items() if name != CHECKSUMS}
    if in_bucket(folder):
        return {name: f'{size} bytes' for name, size in files.items()}

    def digest(name: str) -> str:
        with open(folder / name, 'rb') as content:
            return hashlib.file_digest(content, 'sha256').hexdigest()

    with concurrent.futures.ThreadPoolExecutor() as threads:
        return dict(zip(files, threads.map(digest, files), strict=True))


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if nothing is."""
    try:
        if not (folder / CHECKSUMS).exists():
            if 'checksums' in ocp.metadata(folder).custom_metadata:
                return f'{CHECKSUMS} is missing'
            print(f'The checkpoint {folder} has no checksums; it is used unchecked.', flush=True)
            return None
        recorded = json.loads((folder / CHECKSUMS).read_bytes())
        there = digests(folder)
        different = [file for file, digest in recorded.items() if there.get(file) != digest]
    except Exception as error:  # Orbax has many errors for metadata that is cut short.
        return f'it cannot be read ({error})'
    if different:
        state = 'differs from its checksum' if different[0] in there else 'is missing'
        return f'{different[0]} {state}'
    return None if recorded else f'{CHECKSUMS} is empty'
