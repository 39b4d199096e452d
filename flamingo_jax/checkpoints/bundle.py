"""A bundle: a folder with a model, or with a part of one (a language model, a vision trunk).

config.json        the model's config; checksums of the trees; the temperature of its probabilities, if fitted
tokenizer.model    of SentencePiece; a bundle with a language model has this or
tokenizer.json     of the library `tokenizers`, with roles (see `inputs/tokenizer.py`)
digests.json       SHA-256 of every file in params (`parallel/digests.py`); absent in older bundles
params/NAME        one Orbax checkpoint for each component tree
README.md          the model card

A small bundle may omit the weights of an EfficientNet-Lite0, which come with an installed package. Its `params/vision`
then has only the means and deviations that standardise the features.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import re
import shutil
import tempfile
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from orbax.checkpoint import v1 as ocp
from tqdm import tqdm

from flamingo_jax import commands
from flamingo_jax.conversion import vision_trunks
from flamingo_jax.errors import UserError
from flamingo_jax.files import Path, as_path, below, in_bucket, refuse_existing, reserve, whole_folder, write_whole
from flamingo_jax.hub import fetched
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo, Params
from flamingo_jax.model.quantised import quantise
from flamingo_jax.parallel import digests

CONFIG = 'config.json'  # Written last: without it, a folder is not a bundle.
LARGE, PIECE = 2**30, 2**26  # Bytes: a tree of this size is written in pieces of that size.
CHECKED = 2**26  # Bytes: a tree up to this size is compared with its checksum, too, when it is read on one device.
AGAIN = 'Copy or download the bundle again, or restore that file.'


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An open bundle, without its parameters."""

    path: Path
    config: FlamingoConfig
    image_tag: str | Sequence[int] | None  # How the tokenizer writes <image> (`Tokenizer`); None: no vision.
    checksums: dict[str, str]  # Component tree -> sha256 of its leaves.
    trained: tuple[str, ...] = ()  # Trees that were trained further after conversion; 'lora' is merged into `lm`.
    packaged_trunk: bool = False  # Whether the trunk's weights are in the installed package.
    lm: 'Bundle | None' = None  # The bundle of its language model, if that was given apart.
    temperature: float = 1.0  # At which the probabilities of its answers were fitted (`flamingo_jax.calibrate`).

    def tokenizer(self, image_tag: str | Sequence[int] | None = None, extra_tokens: Sequence[str] = ()) -> Tokenizer:
        """The bundle's tokenizer, or that of a new model, with another tag; FileNotFoundError if it is missing."""
        try:
            extra_tokens = extra_tokens if image_tag else self.config.extra_tokens
            return Tokenizer.read(self.path, image_tag or self.image_tag, self.config.lm.vocab_size, extra_tokens)
        except FileNotFoundError:
            raise FileNotFoundError(
                f'The bundle {self.path} has no tokenizer.model and no tokenizer.json. Convert or export it again.'
            ) from None

    def params(self, name: str, dtype: DTypeLike | None = None, sharding: Any = None) -> Params:
        """Reads one component tree, with floating leaves cast to `dtype`, directly into the shards of `sharding`.

        The bytes of its files are verified before, in the processes of the shards side by side.

        Args:
          name: vision, lm, resampler, xattn or extra_tokens.
          dtype: None keeps the stored dtypes.
          sharding: a tree of shardings, or None for the default device.

        Raises:
          ValueError: the bundle has no such tree; or it is damaged, or does not fit the config. The message names it.
          OSError: a file cannot be read.
          MissingPackageError: the trunk's weights are in a package that is not installed.
          FileNotFoundError: the language model is not in the bundle and was not given.
        """
        folder = self.path / 'params' / name
        if name == 'lm' and self.lm is not None:
            return self.lm.params(name, dtype, sharding)
        if name == 'lm' and name in self.checksums and not folder.is_dir():
            raise FileNotFoundError(
                f'The language model of {self.path} is not in the bundle. Its README.md says how to get it. Then give '
                'its folder: --lm=BUNDLE, config.lm in training, or load(..., lm=BUNDLE).'
            )
        if name not in self.checksums:
            raise UserError(f'The bundle {self.path} has no tree {name!r}. Its trees are {sorted(self.checksums)}.')
        together = any(not to.is_fully_addressable for to in jax.tree.leaves(sharding))
        digests.verify(self.path / digests.FILE, AGAIN, under=f'params/{name}/', together=together)
        with _refusing_damage(folder):
            if (shapes := ocp.metadata(folder).metadata) is None:  # Orbax has only logged why.
                raise UserError('its metadata cannot be read')
        trunk = {}
        if name == 'vision' and self.packaged_trunk:
            trunk = vision_trunks.packaged(self.config.vision.classes)
        self._check_shapes(name, shapes | trunk)
        size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        checked = sharding is None and size <= CHECKED  # Then it is first read as it was stored.

        def kind(leaf) -> DTypeLike:
            return dtype if dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype

        def abstract(leaf, sharding):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype if checked else kind(leaf), sharding=sharding)

        if not checked:
            trunk = jax.tree.map(lambda x: x.astype(kind(x)), trunk)
        if sharding is None:
            device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            sharding = jax.tree.map(lambda _: device, shapes | trunk)
        # Each process has it all. `device_put` would compare each array with the other hosts'.
        trunk = jax.tree.map(
            lambda x, to: jax.make_array_from_callback(x.shape, to, lambda index: x[index]),
            trunk,
            {key: sharding[key] for key in trunk},
        )
        sharding = {key: sharding[key] for key in shapes}
        with _refusing_damage(folder):
            tree = trunk | ocp.load(folder, jax.tree.map(abstract, shapes, sharding))
            if checked and checksum(tree) != self.checksums[name]:
                raise UserError('it differs from its checksum in config.json')
        if not checked:
            return tree
        return jax.tree.map(  # By NumPy, since JAX would compile a program for each shape.
            lambda x: x if x.dtype == kind(x) else jax.device_put(np.asarray(x).astype(kind(x)), device), tree
        )

    def _check_shapes(self, name: str, tree: Any) -> None:
        """ValueError if a leaf of a component tree is not as the config says."""
        found, expected = (
            {jax.tree_util.keystr(path, simple=True, separator='.'): leaf.shape for path, leaf in leaves}
            for leaves in map(jax.tree_util.tree_leaves_with_path, (tree, shapes_of(self.config).get(name, {})))
        )
        for leaf in sorted(found | expected):
            if found.get(leaf) != expected.get(leaf):
                raise UserError(
                    f'The tree {name!r} of {self.path} does not fit its config.json: {leaf} is '
                    f'{found.get(leaf, "absent")}, not {expected.get(leaf, "absent")}. Copy or download the whole '
                    'bundle again.'
                )


@functools.lru_cache(maxsize=4)
def shapes_of(config: FlamingoConfig) -> Params:
    """The component trees of a model with their shapes."""
    return jax.eval_shape(lambda: nn.meta.unbox(Flamingo(config).init(jax.random.key(0))))


@contextlib.contextmanager
def _refusing_damage(folder: Path) -> Iterator[None]:
    """ValueError for whatever Orbax raises over damaged files, which are many types of error.

    Not for a full memory, and not for a file that the disk or the network cannot give.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise
    except OSError as error:
        if error.errno is not None and not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise
        raise UserError(f'{folder} is missing ({textwrap.shorten(str(error), 200)}). {AGAIN}') from error
    except Exception as error:
        files = below(folder) if folder.is_dir() else {}
        small = (folder / name for name, size in files.items() if size < 1024)
        if pointer := next(filter(digests.is_pointer, small), None):
            raise UserError(
                f'{pointer} is a pointer of Git LFS and not the file. In the clone: git lfs pull.'
            ) from error
        if not files:
            raise UserError(f'{folder} is missing. {AGAIN}') from error
        raise UserError(f'{folder} is damaged ({_reason(error)}). {AGAIN}') from error


def _reason(error: BaseException) -> str:
    """What was wrong at first, without the settings of the library that found it."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = re.split(r' \[tensorstore_spec|\. See full | See full |<bound method', str(error))[0]
    return textwrap.shorten(said, 300) or type(error).__name__


def as_kept(source: Any, name: str, model: Flamingo, sharding: Any = None) -> Params:
    """A component tree of a bundle or a run as the model keeps what it does not train: in its dtype, or quantised.

    A language model that is to be quantised is read in its stored dtype. So a device needs memory for that, and for one
    matrix more. A trunk may compute once what depends on no image (`VisionConfig.kept`), in float32.
    """
    dtype = model.dtype_of(name)
    if name == 'vision' and (kept := model.config.vision.kept):
        as_stored = source.params(name, jnp.float32, sharding)
        return jax.jit(lambda params: jax.tree.map(lambda x: x.astype(dtype), kept(params)))(as_stored)
    if name != 'lm' or model.quantised is None:
        return source.params(name, dtype, sharding)
    return quantise(source.params(name, None, sharding), model.quantised, dtype)


def read(path: str | Path, lm: str | Path = '') -> Bundle:
    """Opens a bundle without reading its parameters.

    Args:
      lm: the bundle of its language model, if it was saved without; '' is none.

    Raises:
      FileNotFoundError: there is no bundle.
      ValueError: `lm` is another language model than the one that the bundle was trained with, or config.json is
        damaged or of another folder than a bundle.
    """
    path = as_path(fetched(path))
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(
            f'{path} is not a bundle (it has no config.json). `python -m flamingo_jax.convert` makes one.'
        )
    try:
        fields = json.loads((path / CONFIG).read_bytes())
        config, _, _ = FlamingoConfig.from_json(fields['model']), fields['image_tag'], dict(fields['checksums'])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if commands.is_mistake(error):  # The config says what is wrong.
            raise UserError(f'{path / CONFIG}: {error}') from error
        raise UserError(
            f'{path / CONFIG} is not that of a bundle, or it is damaged ({type(error).__name__}: {error}). '
            '`python -m flamingo_jax.convert` makes a bundle, also of a Hugging Face folder.'
        ) from error
    trained, packaged = tuple(fields.get('trained', ())), fields.get('packaged_trunk', False)
    temperature = fields.get('temperature', 1.0)
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise UserError(f'{path / CONFIG}: temperature is {temperature!r}. It must be a finite number above 0.')
    apart = read(lm) if lm else None
    if apart is not None and apart.checksums.get('lm') != fields['checksums'].get('lm'):
        raise UserError(f'{lm} is not the language model of {path}. Its README.md says how to get it.')
    return Bundle(path, config, fields['image_tag'], fields['checksums'], trained, packaged, apart, temperature)


def set_temperature(path: str | Path, temperature: float) -> None:
    """Keeps in a bundle the temperature at which the probabilities of its answers hold. Errors as for `read`."""
    file = read(path).path / CONFIG
    write_whole(
        file, json.dumps(json.loads(file.read_bytes()) | dict(temperature=temperature), indent=2).encode() + b'\n'
    )


def save(
    path: str | Path,
    config: FlamingoConfig,
    params: Params,
    tokenizer: Tokenizer | None,
    image_tag: str | Sequence[int] | None,
    card: str,
    trained: Sequence[str] = (),
    packaged_trunk: bool = False,
    without_lm: bool = False,
    progress: bool = False,
) -> None:
    """Writes a bundle, so that `path` never has half of one.

    Args:
      params: the component trees to store, unboxed, in the dtypes to store.
      card: the model card, Markdown.
      trained: trees that were trained here, not converted.
      packaged_trunk: whether to omit the trunk's weights, which must be those of the installed EfficientNet-Lite0.
      without_lm: whether to omit the language model, which must then be given to whoever reads the bundle.
      progress: whether to show bars with bytes, rate and time left.

    Raises:
      FileExistsError: `path` exists.
    """
    with whole_folder(as_path(path), last=CONFIG) as aside:
        (aside / 'params').mkdir(parents=True)
        stored = dict(params)
        if packaged_trunk:
            omitted = ('trunk', 'classifier')
            stored['vision'] = {name: tree for name, tree in params['vision'].items() if name not in omitted}
        if without_lm:
            del stored['lm']
        size = sum(getattr(leaf, 'nbytes', 0) for leaf in jax.tree.leaves(stored))
        with _bar_of(aside, size, progress):
            for name, tree in stored.items():
                with _sparing(tree):
                    ocp.save(aside / 'params' / name, tree)
        for name in below(aside):
            if name.endswith('/commit_success.txt'):
                (aside / name).write_text('Committed.\n')  # Orbax writes the folder's own path.
        digests.write(aside / digests.FILE, digests.of_folder(aside, 'params/'))
        size = sum(getattr(leaf, 'nbytes', 0) for leaf in jax.tree.leaves(params))
        with tqdm(desc='checksums', total=size, unit='B', unit_scale=True, disable=not progress) as bar:
            checksums = {name: checksum(tree, bar.update) for name, tree in params.items()}
        fields = dict(
            model=config.to_json(),
            image_tag=image_tag,
            checksums=checksums,
            trained=sorted(trained),
            packaged_trunk=packaged_trunk,
        )
        (aside / 'README.md').write_text(card, encoding='utf-8')
        if tokenizer is not None:
            (aside / tokenizer.file).write_bytes(tokenizer.model)
        (aside / CONFIG).write_text(json.dumps(fields, indent=2) + '\n')


@contextlib.contextmanager
def _bar_of(folder: Path, size: int, shown: bool) -> Iterator[None]:
    """A bar of the bytes on disk while `size` bytes are written. Compression makes it end before it is full."""
    bar, end = tqdm(desc='write', total=size, unit='B', unit_scale=True, disable=not shown), threading.Event()

    def watch():
        while not end.wait(10 if in_bucket(folder) else 0.5):
            with contextlib.suppress(FileNotFoundError):  # Orbax renames finished files.
                written = sum(below(folder).values())
                bar.update(max(0, min(written, size) - bar.n))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        bar.close()


@contextlib.contextmanager
def on_disk(path: str | Path) -> Iterator[Callable[[tuple[str, ...], tuple[int, ...], Any], np.ndarray]]:
    """Arrays on disk for the leaves of a bundle that is larger than memory; removed at the end.

    They are next to `path`, or in the system's folder for temporary files if that is in a bucket.

    Gives a function (path in the tree, shape, dtype) -> an array to fill, which raises OSError if the disk has no room.
    `path` itself is not written.
    """
    path = as_path(path)
    refuse_existing(path, CONFIG)

    def empty(name: Sequence[str], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = np.memmap(aside / '.'.join(name), dtype, 'w+', shape=shape)
        reserve(aside / '.'.join(name))
        return array

    near = pathlib.Path(tempfile.gettempdir()) if in_bucket(path) else path.parent
    near.mkdir(parents=True, exist_ok=True)
    aside = near / f'.{path.name}.{uuid.uuid4().hex[:8]}'
    aside.mkdir()
    try:
        yield empty
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sparing(tree: Params) -> ocp.Context:
    """Orbax options with which a large tree needs little memory in addition to its leaves, which may be mapped."""
    context = ocp.Context()
    context.memory.deepcopy_host_arrays = False  # Nothing changes them meanwhile.
    if sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) > LARGE:
        # By default the whole tree is compressed into few files before anything is written.
        context.array.saving.use_ocdbt = False
        pieces = ocp.options.ArrayOptions.Saving.StorageOptions(chunk_byte_size=PIECE, shard_axes=(0,))
        saving: Any = context.array.saving
        saving.scoped_storage_options_creator = lambda _, leaf: pieces if leaf.nbytes > PIECE else None
    return context


def checksum(tree: Params, done: Callable[[int], Any] = lambda _: None) -> str:
    """sha256 of the names, shapes, dtypes and bytes of a tree's leaves, sorted by name.

    Calls `done` with bytes read.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(tree), key=lambda item: jax.tree_util.keystr(item[0])):
        leaf = np.asarray(leaf)
        digest.update(f'{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}'.encode())
        content = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
        for begin in range(0, content.size, PIECE):
            digest.update(content[begin : begin + PIECE])
            done(content[begin : begin + PIECE].size)
    return digest.hexdigest()
