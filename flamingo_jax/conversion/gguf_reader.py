"""Reads GGUF, the file format of llama.cpp: a header of keys and values, then tensors, most of them quantised.

    magic 'GGUF', version, numbers of tensors and keys    little-endian throughout
    keys                                                  a name, a type, a value; the whole tokenizer is among them
    tensors                                               a name, a shape (innermost dimension first), a type, an offset
    the tensors' bytes                                    each begins at a multiple of `general.alignment`

The file is mapped. The package `gguf` (the extra of that name) dequantises a tensor when it is needed. The header is
read here, because that package makes several arrays for each word of a vocabulary, and trusts every size in the file.

Source: docs/gguf.md of ggml.
"""

import dataclasses
import math
import mmap
import os
import pathlib
import re
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from flamingo_jax.errors import MissingPackageError, UserError

MAGIC = b'GGUF'
VERSIONS = (2, 3)
SHARD = re.compile(r'(.*)-(\d{5})-of-(\d{5})\.gguf')
# The types of values in the header by number; 8 is a string and 9 a list.
SCALARS = dict(enumerate('<u1 <i1 <u2 <i2 <u4 <i4 <f4 ?'.split())) | {10: '<u8', 11: '<i8', 12: '<f8'}
STRING, LIST = 8, 9
AT_ONCE = 2**20  # Weights that are dequantised at once; in float32 each takes four bytes.


@dataclasses.dataclass(frozen=True)
class Quantised:
    """A tensor of a GGUF file, which `np.asarray` dequantises to bfloat16.

    Attributes:
      stored: its bytes, mapped: uint8 [rows, bytes of a row].
      kind: the number of its type.
      shape: shape of the tensor, outermost dimension first, as in torch.
      change: undoes a change that the writer of the file made; takes the whole tensor in float32.
    """

    stored: np.ndarray
    kind: int
    shape: tuple[int, ...]
    change: Callable[[np.ndarray], np.ndarray] | None = None

    dtype = np.dtype(ml_dtypes.bfloat16)

    @property
    def nbytes(self) -> int:
        """Size after dequantisation."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        import gguf

        kind, dtype = gguf.GGMLQuantizationType(self.kind), dtype or self.dtype
        if self.change:
            return self.change(gguf.quants.dequantize(self.stored, kind).reshape(self.shape)).astype(dtype)
        out = np.empty((len(self.stored), self.shape[-1]), dtype)
        step = max(AT_ONCE // self.shape[-1], 1)
        for begin in range(0, len(out), step):
            out[begin : begin + step] = gguf.quants.dequantize(self.stored[begin : begin + step], kind)
        return out.reshape(self.shape)


def read_gguf(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Quantised]]:
    """The keys and the tensors of a GGUF file, or of all shards of a model, of which `path` is one.

    Raises:
      FileNotFoundError: there is no such file, or a shard is missing.
      ImportError: the package `gguf` is not installed.
      ValueError: the file is truncated, damaged or not GGUF, or a tensor has an unknown type.
    """
    path = pathlib.Path(path).expanduser()
    fields, tensors = _read_file(path)
    if (count := fields.get('split.count', 1)) > 1:
        named = SHARD.fullmatch(path.name)
        if not named:
            raise UserError(
                f'{path} is one of {count} shards, but its name does not end in -00001-of-{count:05}.gguf. Rename the '
                'shards to their published names.'
            )
        shards = [path.parent / f'{named[1]}-{number:05}-of-{count:05}.gguf' for number in range(1, count + 1)]
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise FileNotFoundError(
                f'{path.parent} does not have {len(missing)} of {count} shards: {missing}. Download them.'
            )
        fields, tensors = _read_file(shards[0])  # The first shard has the keys of the model.
        for shard in shards[1:]:
            tensors |= _read_file(shard)[1]
        if (said := fields.get('split.tensors.count', len(tensors))) != len(tensors):
            raise UserError(f'The shards of {path} have {len(tensors)} tensors, not {said}. Download them again.')
    return fields, tensors


def _read_file(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Quantised]]:
    try:
        import gguf
    except ImportError as error:
        raise MissingPackageError(
            'Reading a GGUF file needs the package gguf. Install it: pip install gguf.'
        ) from error
    with open(path, 'rb') as file:
        begins, size = file.read(4), os.fstat(file.fileno()).st_size
        if begins != MAGIC:
            raise UserError(f'{path} is not a GGUF file: it begins with {begins!r}. Give the .gguf file of a model.')
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        header = _Header(content)
        if (version := header.number('<u4')) not in VERSIONS:
            raise _Refused(
                f'its GGUF version is {version}, not one of {VERSIONS}. Convert it again with a newer llama.cpp.'
            )
        tensor_count, key_count = header.number('<u8'), header.number('<u8')
        fields = {header.text(): header.value(header.number('<u4')) for _ in range(key_count)}
        described = [header.tensor() for _ in range(tensor_count)]
        alignment = fields.get('general.alignment', 32)
        data = -(-header.at // alignment) * alignment
        tensors = {}
        for name, shape, kind, offset in described:
            if kind not in gguf.GGML_QUANT_SIZES or not _known(kind):
                raise _Refused(
                    f'the tensor {name} is of type {kind}, which the installed package gguf does not dequantise. '
                    'Update gguf, or use another quantisation, such as Q8_0.'
                )
            block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            if shape[-1] % block:
                raise _Refused(f'the rows of {name} {shape} are not whole blocks of {block}. Download it again.')
            row, rows = shape[-1] // block * block_bytes, math.prod(shape[:-1])
            if data + offset + rows * row > size:
                raise _Refused(
                    f'it ends before its tensor {name} {shape}: it is cut short or damaged. Download it again.'
                )
            stored = np.frombuffer(content, np.uint8, rows * row, data + offset).reshape(rows, row)
            tensors[name] = Quantised(stored, kind, shape)
        return fields, tensors
    except _Refused as error:
        raise UserError(f'{path}: {error}') from error
    except Exception as error:  # A damaged header raises many types of error, which all mean the same.
        raise UserError(
            f'{path} is truncated or damaged ({type(error).__name__}: {error}). Download it again and compare its '
            'checksum.'
        ) from error


def _known(kind: int) -> bool:
    """Whether the package can dequantise a type; some types are for computing only."""
    import gguf

    block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
    try:
        gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), gguf.GGMLQuantizationType(kind))
    except NotImplementedError:
        return False
    return True


class _Refused(Exception):
    """A fault whose message already says what is wrong and what to do."""


class _Header:
    """The header, read in order. Sizes are checked against the bytes in the file."""

    def __init__(self, content: mmap.mmap):
        self.content, self.at = content, 4

    def take(self, size: int) -> bytes:
        taken = self.content[self.at : self.at + size]
        if len(taken) < size:
            raise UserError(f'{size} bytes should follow at byte {self.at}, but there are {len(taken)}')
        self.at += size
        return taken

    def number(self, kind: str) -> Any:
        dtype = np.dtype(kind)
        read = np.frombuffer(self.take(dtype.itemsize), dtype)[0]
        return float(str(read)) if dtype == np.float32 else read.item()  # 1e-06, not 9.999999974752427e-07.

    def text(self) -> str:
        return self.take(struct.unpack('<Q', self.take(8))[0]).decode(errors='replace')

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != LIST:
            return self.number(SCALARS[kind])
        kind, length = self.number('<u4'), self.number('<u8')
        if kind == STRING:
            return [self.text() for _ in range(length)]
        dtype = np.dtype(SCALARS[kind])
        return np.frombuffer(self.take(length * dtype.itemsize), dtype).tolist()

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dims = self.text(), self.number('<u4')
        if not 1 <= dims <= 4:
            raise UserError(f'the tensor {name!r} has {dims} dimensions')
        shape = tuple(self.number('<u8') for _ in range(dims))[::-1]
        return name, shape, self.number('<u4'), self.number('<u8')
