"""Prepared data set -> sequences -> Grain -> batches on the mesh.

A data set of a config is either a picture set, from which few-shot sequences are built on the fly (`few_shot` is set),
or stored documents (texts and pictures in reading order; one's own stand in a .jsonl file). What comes out is the same.

The data is a function of the seed and of the position alone: sequence i is drawn by a generator of its own, so that a
run resumes in the middle of an epoch by its position, and no worker or process count changes what is trained on.
"""

import dataclasses
import functools
import zlib
from collections.abc import Iterator
from typing import Any

import grain.python as grain
import jax
import numpy as np

from flamingo_jax.few_shot.sequences import FewShot, FewShotConfig
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.interleave import Chunk, interleave, pair
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.json_lines import JsonLines
from flamingo_jax.inputs.sources.picture_set import PictureSet
from flamingo_jax.inputs.tokenizer import Tokenizer

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """One data set of the mixture."""

    path: str = ''  # Folder of the prepared data set, or the .jsonl file of one's own documents.
    split: str = 'train'
    validation_split: str = ''  # Held out: its loss is taken every `config.validate_every` steps; '' is none.
    features: str = ''  # Folder of features computed once; '' reads pixels.
    styles: tuple[str, ...] = ()  # Of a picture set; () is all.
    few_shot: FewShotConfig | None = None  # None reads stored documents.
    length: int = 256  # Tokens a sequence.
    images: int = 5  # Pictures a sequence; 0 = text alone.
    frames: int = 1  # Frames a picture; more is video.
    p_next: float = 0.0  # Probability that text is tied to the next picture (paper: 0.5 on web pages).
    batch_size: int = 32  # Sequences a step, over all devices.
    loss_weight: float = 1.0  # lambda_m.
    # Not next tokens are learned, but that each picture by itself means what its text says (training/losses/alignment.py).
    align: bool = False
    workers: int = 0  # Processes that decode and build; 0 does it in threads.


class Documents:
    """Stored interleaved documents: parallel lists of texts, pictures (encoded, or paths) and loss weights."""

    def __init__(self, config: DatasetConfig, image_size: int, fit: str = 'pad'):
        """Opens the split, or all of a .jsonl file; errors as `open_split` and `JsonLines`."""
        own = config.path.endswith('.jsonl')
        self._records, self._config = JsonLines(config.path) if own else open_split(config.path, config.split), config
        self._image_size, self._fit = image_size, fit

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> list[Chunk]:
        """Document `index` as chunks: each picture begins one. A text-only data set drops pictures."""
        record = self._records[index]
        chunks = [Chunk(None, [], [])]
        for text, image, weight in zip(record['texts'], record['images'], record['weights'], strict=True):
            if image and self._config.images:
                chunks.append(Chunk(lambda image=image: to_frames(image, self._image_size, self._fit), [], []))
            elif text:
                chunks[-1].texts.append(text.decode())
                chunks[-1].weights.append(float(weight))
        return [chunk for chunk in chunks if chunk.picture or chunk.texts]


def sequences(
    config: DatasetConfig, tokenizer: Tokenizer, image_size: int, seed: int, trunk: str = '', fit: str = 'pad'
) -> grain.MapDataset:
    """The endless training sequences of one data set, in their final order.

    Args:
      config: the data set.
      tokenizer: the model's.
      image_size: height and width of the pictures, in pixels: the model's.
      seed: of order and drawing.
      trunk: checksum of the frozen trunk, against which features are checked.
      fit: how pictures are made square, the trunk's (`inputs/images.py`).

    Raises:
      FileNotFoundError, ValueError: as the data set's own; before anything is read.
    """
    if config.align and config.images != 1:
        raise ValueError(
            f'A data set with `align` shows one picture at a time: set its images to 1, not {config.images}.'
        )
    if config.few_shot is not None:
        pictures = PictureSet(
            config.path, config.split, config.styles, config.features, image_size, config.frames, trunk, fit
        )
        few_shot = FewShot(pictures, config.few_shot)
        source = grain.MapDataset.range(2**40).seed(seed)  # Endless: each position draws its own sequence.
        return source.random_map(lambda _, rng: _row(few_shot(rng), pictures.blank, rng, config, tokenizer))
    blank = np.zeros((config.frames, image_size, image_size, 3), np.uint8) if config.images else None
    source = grain.MapDataset.source(Documents(config, image_size, fit)).seed(seed).shuffle().repeat()
    return source.random_map(lambda chunks, rng: _row(chunks, blank, rng, config, tokenizer))


def _row(
    chunks: list[Chunk], blank: Any, rng: np.random.Generator, config: DatasetConfig, tokenizer: Tokenizer
) -> Batch:
    if config.align:
        return pair(chunks, tokenizer, config.length, blank)
    return interleave(chunks, tokenizer, config.length, config.images, blank, rng, config.p_next)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Some rows of each batch, one after the other."""

    sequences: grain.MapDataset
    batch_size: int
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sequences) // self.batch_size * len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch, row = divmod(index, len(self.rows))
        return self.sequences[batch * self.batch_size + self.rows[row]]


def batches(
    configs: dict[str, DatasetConfig],
    tokenizer: Tokenizer,
    image_size: int,
    seed: int,
    trunk: str = '',
    where: jax.sharding.Sharding | None = None,
    fit: str = 'pad',
) -> dict[str, grain.MapDataset]:
    """This process's share of the batches of each data set: element k has its rows of the k-th batch of the run.

    A process reads the rows that its devices hold, be they few, or all (where only the model is cut). Row r of batch k is
    sequence k * batch_size + r whoever reads it, so that the number of batches read is a position from which any number
    of processes can go on.

    Args:
      where: how batches lie on the mesh; None reads whole batches.
    """
    datasets = {}
    for name, config in configs.items():
        rows = _rows(config.batch_size, where) if where else range(config.batch_size)
        source = sequences(config, tokenizer, image_size, _seed_of(seed, name), trunk, fit)
        dataset = grain.MapDataset.source(_Rows(source, config.batch_size, tuple(rows)))
        datasets[name] = dataset.batch(len(rows), drop_remainder=True)
    return datasets


@functools.cache  # Asked for at every step.
def _rows(batch_size: int, where: jax.sharding.Sharding) -> tuple[int, ...]:
    """The rows of a batch that this process's devices hold, in order."""
    held = where.addressable_devices_indices_map((batch_size,)).values()
    return tuple(sorted({row for (rows,) in held for row in range(*rows.indices(batch_size))}))


def read(dataset: grain.MapDataset, start: int, workers: int) -> Iterator[Batch]:
    """Reads batches ahead, from batch `start` on, in threads or in `workers` processes."""
    dataset = dataset[start:].to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(dataset)


def _seed_of(seed: int, name: str) -> int:
    """A data set's own seed: it depends on no other data set of the mixture."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def put(batch: Batch, where: jax.sharding.Sharding, batch_size: int) -> Batch:
    """This process's rows -> global arrays of `batch_size` rows, sharded over them."""
    first = {row: i for i, row in enumerate(_rows(batch_size, where))}

    def shard(value: np.ndarray) -> jax.Array:
        def held(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            return value[first[start] :][: stop - start]

        return jax.make_array_from_callback((batch_size, *value.shape[1:]), where, held)

    return {key: shard(value) for key, value in batch.items()}
