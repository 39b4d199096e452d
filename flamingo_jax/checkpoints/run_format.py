"""Reads a training run's folder: run.json, and the newest checkpoint that agrees with its checksums.

`training/checkpoint.py` writes the checkpoints, and describes the folder.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from orbax.checkpoint import v1 as ocp

from flamingo_jax.checkpoints import bundle
from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path, below, in_bucket, names
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Params
from flamingo_jax.parallel import processes

CHECKSUMS = 'checksums.json'


@dataclasses.dataclass(frozen=True)
class Run:
    """The newest checkpoint of a training run, and the bundles of the trees that it did not train."""

    path: Path  # The checkpoint.
    config: FlamingoConfig
    image_tag: str | Sequence[int] | None
    tokenizer: Tokenizer
    frozen: dict[str, bundle.Bundle]
    trained: tuple[str, ...]  # The names of the trained trees.
    step: int
    digest: str  # Of the checksums of the checkpoint's files; '' if it has none.

    def params(self, name: str, dtype: DTypeLike | None = None, sharding: Any = None) -> Params:
        """Reads a trained tree, with floating leaves cast to `dtype`, directly into the shards of `sharding`.

        dtype: None is float32. sharding: a tree of shardings, or None for the default device.
        """
        return _read(self.path, {name: sharding}, dtype)[name]


def open_run(path: Path, lm: str | Path = '') -> Run:
    """Opens a run, without reading what it trained.

    lm: where the bundle of its frozen language model is now, if it was moved.

    Raises:
      FileNotFoundError: there is no finished checkpoint, or the tokenizer or the bundle of a frozen tree is missing.
      ValueError: a bundle has changed since the training, or run.json is damaged.
    """
    paths = _frozen_paths(path / 'run.json')
    paths |= dict(lm=str(lm)) if lm and 'lm' in paths else {}
    checkpoint = _newest(path)
    found = ocp.metadata(checkpoint)
    about = _metadata(found)['about']
    try:
        config, image_tag = FlamingoConfig.from_json(about['model']), about['image_tag']
    except ValueError as error:
        raise UserError(f'{checkpoint}: {error}') from error
    try:
        tokenizer = Tokenizer.read(path, image_tag, config.lm.vocab_size, config.extra_tokens)
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{path} has no tokenizer.model and no tokenizer.json. Restore it, or start the training command again: it '
            'writes the file.'
        ) from None
    frozen = {name: _frozen(path, name, source) for name, source in paths.items()}
    for name, source in frozen.items():
        if source.checksums.get(name) != about['frozen'][name]:
            raise UserError(
                f'{source.path} no longer has the {name!r} with which the run {path} was trained. Restore that bundle.'
            )
    sums = checkpoint / CHECKSUMS
    digest = hashlib.sha256(sums.read_bytes()).hexdigest() if sums.is_file() else ''
    names = tuple(found.metadata['params'])
    return Run(checkpoint, config, image_tag, tokenizer, frozen, names, int(checkpoint.name), digest)


def _frozen(path: Path, name: str, source: str) -> bundle.Bundle:
    """The bundle of a run's frozen tree. FileNotFoundError says what to do if it was moved."""
    try:
        return bundle.read(source)
    except FileNotFoundError as error:
        give = ', or give its folder: --lm=BUNDLE, or load(..., lm=BUNDLE)' if name == 'lm' else ''
        raise FileNotFoundError(f'The run {path} needs its frozen {name!r}: {error} Put it back{give}.') from error


def _frozen_paths(file: Path) -> dict[str, str]:
    """The bundles of a run's frozen trees. ValueError if the file is damaged."""
    try:
        return {name: str(path) for name, path in json.loads(file.read_bytes())['frozen_paths'].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{file} is damaged ({type(error).__name__}: {error}). Restore it, or start the training command again: it '
            'writes the file, and goes on from the newest checkpoint.'
        ) from error


def read_latest(workdir: str | Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The newest whole checkpoint of a run: (about, trained trees on one device, step).

    If the run keeps an average of its parameters (`config.optimizer.average`), the trees are that average.

    Raises:
      FileNotFoundError: the run has no finished checkpoint.
      OSError: every checkpoint is damaged.
    """
    checkpoint = _newest(workdir)
    found = ocp.metadata(checkpoint)
    params = _read(checkpoint, dict.fromkeys(found.metadata['params']))
    return _metadata(found)['about'], params, int(checkpoint.name)


def _newest(workdir: str | Path) -> Path:
    """The folder of the newest whole checkpoint; errors as for `read_latest`."""
    folder = as_path(workdir) / 'checkpoints'
    if not folder.is_dir():
        raise FileNotFoundError(f'{workdir} has no checkpoints. Give the workdir of a training run, or a bundle.')
    if (step := newest_whole(folder)) is None:
        raise FileNotFoundError(f'{workdir} has no finished checkpoint yet. Wait for one, or train further.')
    return folder / str(step)


def _read(checkpoint: Path, shardings: dict[str, Any], dtype: DTypeLike | None = None) -> Params:
    """Trained trees, or their average if the run keeps one, into their shards; None is the default device.

    Of the optimizer's state, nothing else is read.
    """
    found = ocp.metadata(checkpoint)
    decay = _metadata(found).get('recipe', {}).get('optimizer.average', 0)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def cast_to(leaf):
        return dtype if dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype

    def abstract(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype if decay else cast_to(leaf), sharding=sharding)

    wanted = jax.tree.map(lambda _: ocp.PLACEHOLDER, found.metadata)
    stored, place = (tree['opt_state'][-1] if decay else tree for tree in (found.metadata, wanted))
    trees = 'ema' if decay else 'params'
    for name, sharding in shardings.items():
        tree = stored[trees][name]
        sharding = jax.tree.map(lambda _: device, tree) if sharding is None else sharding
        place[trees][name] = jax.tree.map(abstract, tree, sharding)
    if not decay:
        params = ocp.load(checkpoint, wanted)['params']
        return {name: params[name] for name in shardings}
    place['count'] = jax.ShapeDtypeStruct((), stored['count'].dtype, sharding=device)
    average = ocp.load(checkpoint, wanted)['opt_state'][-1]
    whole = 1 - decay ** int(average['count'])  # As `optax.ema` corrects it: it began at 0.
    return {name: jax.tree.map(lambda x: (x / whole).astype(cast_to(x)), average['ema'][name]) for name in shardings}


def steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints, newest first."""
    found = [name for name in names(folder) if name.isdecimal()]
    if in_bucket(folder):
        found = [name for name in found if CHECKSUMS in names(folder / name)]
    return sorted(map(int, found), reverse=True)


def unfinished(folder: Path) -> list[Path]:
    """What killed processes left of checkpoints that they were writing or deleting."""
    if in_bucket(folder):
        found = [name for name in names(folder) if name.isdecimal()]
        return [folder / name for name in found if CHECKSUMS not in names(folder / name)]
    if not folder.is_dir():
        return []
    return sorted({*folder.glob('writing-*'), *folder.glob('*.orbax-checkpoint-tmp*')})


def newest_whole(folder: Path) -> int | None:
    """The newest checkpoint that agrees with its checksums. Prints each newer one that does not.

    All processes must call this. Each reads its share of the files, and all get the same answer.
    """
    found = processes.gather(steps(folder))[0]
    for step in found:
        damages = (damage for damage in processes.gather(_damage(folder / str(step))) if damage)
        if (damage := next(damages, None)) is None:
            return step
        processes.say(f'The checkpoint {folder / str(step)} is damaged: {damage}. Using the one before.')
    if found:
        raise OSError(
            f'All checkpoints in {folder} are damaged: those of the steps {found}. Restore a copy of one, or give '
            'another --workdir to start from the beginning.'
        )
    return None


def digests(folder: Path, of: Callable[[str], bool] = lambda name: True) -> dict[str, str]:
    """SHA-256 of the files in a folder and below, except checksums.json, by relative path.

    In a bucket, sizes in bytes: the store has checksums of its own, and to read everything once more could take hours.

    Args:
      of: which files, by relative path.
    """
    files = {name: size for name, size in below(folder).items() if name != CHECKSUMS and of(name)}
    if in_bucket(folder):
        return {name: f'{size} bytes' for name, size in files.items()}

    def digest(name: str) -> str:
        with open(folder / name, 'rb') as content:
            return hashlib.file_digest(content, 'sha256').hexdigest()

    with concurrent.futures.ThreadPoolExecutor() as threads:
        return dict(zip(files, threads.map(digest, files), strict=True))


def _metadata(found: ocp.CheckpointMetadata[Any]) -> dict[str, Any]:
    """What the training wrote beside the arrays of a checkpoint."""
    return cast(dict[str, Any], found.custom_metadata)


def _damage(folder: Path) -> str | None:
    """What is wrong with this process's share of a checkpoint's files; None if nothing is."""
    try:
        if not (folder / CHECKSUMS).exists():
            if 'checksums' in _metadata(ocp.metadata(folder)):
                return f'{CHECKSUMS} is missing'
            processes.say(f'The checkpoint {folder} has no checksums; it is used unchecked.')
            return None
        recorded = json.loads((folder / CHECKSUMS).read_bytes())
        own = sorted(recorded)[jax.process_index() :: jax.process_count()]
        there = digests(folder, of=set(own).__contains__)
        different = [file for file in own if there.get(file) != recorded[file]]
    except Exception as error:  # Orbax has many errors for metadata that is cut short.
        return f'it cannot be read ({error})'
    if different:
        state = 'differs from its checksum' if different[0] in there else 'is missing'
        return f'{different[0]} {state}'
    return None if recorded else f'{CHECKSUMS} is empty'
