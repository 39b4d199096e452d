"""Reads files of published weights as numpy arrays, without torch and without running their code.

A torch checkpoint is a pickle, and a pickle is a program. The unpickler here knows only the instructions that build
strings, numbers, tuples, lists and dicts, and the few constructors of a state dict, which are functions in this file.
A tensor is first a description (dtype, shape, strides, storage), which becomes an array when the pickle has ended. Any
other name is an error. There are two container formats:

    zip (torch >= 1.6)   <name>/data.pkl, and one uncompressed member <name>/data/<key> for each storage
    legacy               pickles, one after another: a magic number, a version, the writer's types, the state dict, the
                         storage keys; then for each key an int64 number of elements and the elements themselves

The zip's checksums are verified. The legacy format has none, so that a changed weight is not detected.

Arrays of a zip or a .safetensors file are mapped, not read, so that a file may be larger than memory. Do not write to
the file while they are in use.
"""

import collections
import dataclasses
import functools
import io
import json
import math
import mmap
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from flamingo_jax.errors import UserError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
# Training checkpoints have the weights under one of these names, next to the step and the optimizer.
NESTED = ('state_dict', 'model_state_dict', 'model')

DTYPES = {
    'DoubleStorage': np.float64,
    'FloatStorage': np.float32,
    'HalfStorage': np.float16,
    'BFloat16Storage': ml_dtypes.bfloat16,
    'LongStorage': np.int64,
    'IntStorage': np.int32,
    'ShortStorage': np.int16,
    'CharStorage': np.int8,
    'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
}
SAFETENSORS_DTYPES = {
    'F64': np.float64,
    'F32': np.float32,
    'F16': np.float16,
    'BF16': ml_dtypes.bfloat16,
    'I64': np.int64,
    'I32': np.int32,
    'I16': np.int16,
    'I8': np.int8,
    'U8': np.uint8,
    'BOOL': np.bool_,
}


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file or of a torch checkpoint, by the file's suffix; errors as for these two."""
    return read_safetensors(path) if str(path).endswith('.safetensors') else read_torch_checkpoint(path)


def read_torch_checkpoint(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The state dict in a .pth, .pt or .bin file, in its stored dtypes (bfloat16 as that of ml_dtypes).

    ValueError, with the fault and the remedy, if the file is truncated, is of another type, has anything but tensors
    in plain containers, or names code.
    """
    with open(path, 'rb') as file:
        try:
            state = _read_zip(file) if file.read(4) == b'PK\x03\x04' else _read_legacy(file)
            return _weights(state)
        except Exception as error:  # A damaged pickle or zip raises many types of error, which all mean the same.
            if isinstance(error, _Refused):
                raise UserError(f'{path}: {error}') from error
            raise UserError(
                f'{path} is truncated or damaged ({type(error).__name__}: {error}). Download it again and compare its '
                'checksum.'
            ) from error


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file, in their stored dtypes. Raises ValueError for any other or damaged file."""
    with open(path, 'rb') as file:  # A missing or unreadable file raises the system's error, which names it.
        length = int.from_bytes(file.read(8), 'little')
    try:
        with safetensors.safe_open(path, framework='np') as checked:  # Checks that the header describes the whole file.
            names = list(checked.keys())
        content = np.memmap(path, np.uint8, 'r')
        header, data = json.loads(content[8 : 8 + length].tobytes()), content[8 + length :]

        def array(name):
            about, (begin, end) = header[name], header[name]['data_offsets']
            if about['dtype'] not in SAFETENSORS_DTYPES:
                raise _Refused(
                    f'its tensor {name} is of {about["dtype"]}. Only {", ".join(SAFETENSORS_DTYPES)} are read: give '
                    'the weights in one of these.'
                )
            return data[begin:end].view(np.ndarray).view(SAFETENSORS_DTYPES[about['dtype']]).reshape(about['shape'])

        return {name: array(name) for name in names}
    except Exception as error:  # The library's own error type, and others for a damaged header.
        if isinstance(error, _Refused):
            raise UserError(f'{path}: {error}') from error
        raise UserError(
            f'{path} is not a complete safetensors file ({error}). Download it again and compare its checksum. If it '
            'is a torch checkpoint, name it .pth, .pt or .bin.'
        ) from error


class _Refused(Exception):
    """A fault whose message already says what is wrong and what to do."""


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int  # elements


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements, as everywhere in torch


def _rebuild_tensor(storage, offset, shape, strides, *_):
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise _Refused('a tensor in it has no storage, or strides that do not fit its shape. Download the file again.')
    if any(type(number) is not int or number < 0 for number in numbers):
        raise _Refused('a tensor in it has a negative size or stride. Download the file again.')
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise _Refused('a tensor in it reaches beyond its storage. Download the file again.')
    # Strides of 0 could describe a terabyte in a few bytes.
    if math.prod(shape) > max(storage.size, 1):
        raise _Refused(
            'a tensor in it is larger than its storage (an expanded view). Save a contiguous copy with torch.'
        )
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Module(dict):
    """A module of a TorchScript archive, as in OpenAI's CLIP files: its attributes, including tensors and modules."""

    def tensors(self, prefix: str = '') -> dict[str, np.ndarray]:
        state = {}
        for name, value in self.items():
            if isinstance(value, _Module):
                state |= value.tensors(f'{prefix}{name}.')
            elif isinstance(value, np.ndarray):
                state[prefix + name] = value
        return state


def _rebuild_parameter(tensor, *_):
    return tensor


CONSTRUCTORS: dict[tuple[str, str], Callable] = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    ('torch.nn.parameter', 'Parameter'): _rebuild_parameter,
    ('torch', 'Size'): tuple,
}

# The instructions that torch.save writes for containers, text, numbers and the constructors above. INST, OBJ and EXT
# are missing, which make objects in other ways, and those of protocols 4 and 5, which torch does not use. NEWOBJ makes
# only modules.
INSTRUCTIONS = (
    'MARK STOP POP POP_MARK DUP PROTO NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT '
    'UNICODE BINUNICODE STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES '
    'TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 LIST EMPTY_LIST APPEND APPENDS DICT EMPTY_DICT SETITEM SETITEMS '
    'GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT GLOBAL REDUCE BUILD PERSID BINPERSID'
).split()


class _Unpickler(pickle._Unpickler):
    """The standard library's Python unpickler, because the C one has no table from which to remove instructions.

    The C one also allocates 2 ** 32 entries if a damaged byte asks it to store one under that number.
    """

    stack: list[Any]
    append: Callable[[Any], None]

    dispatch: dict[int, Any] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
        for name in INSTRUCTIONS
        if hasattr(pickle, name)
    }

    def load_newobj(self):
        _, kind = self.stack.pop(), self.stack.pop()
        if kind is not _Module:
            raise _Refused('it makes an object that is not a module. Save only model.state_dict() with torch.')
        self.append(_Module())

    def load_build(self):
        attributes = self.stack.pop()
        if isinstance(self.stack[-1], _Module) and isinstance(attributes, dict):
            self.stack[-1].update(attributes)
        # Else these are the attributes of an object, such as the _metadata of a state dict, which are not used.

    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in CONSTRUCTORS:
            return CONSTRUCTORS[module, name]
        if module.startswith('__torch__.'):  # Any class: only its attributes are used.
            return _Module
        if module == 'torch' and name in DTYPES:
            return np.dtype(DTYPES[name])
        raise _Refused(
            f'it asks for {module}.{name}, which is code or an object, not a weight. Nothing was loaded. If you trust '
            'its source, open it with torch and save only model.state_dict().'
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if (
            kind != 'storage'
            or not isinstance(dtype, np.dtype)
            or type(key) is not str
            or type(size) is not int
            or size < 0
        ):
            raise _Refused('it has a wrong description of a storage. Download the file again.')
        if view and view[0] is not None:
            raise _Refused('its storages are views of each other (torch < 0.4). Save it again with a newer torch.')
        return _Storage(key, dtype, size)


def _read_zip(file) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith('data.pkl')]
        if len(pickles) != 1:
            raise _Refused(
                'it is a zip file, but not a torch checkpoint: it has no data.pkl. Give the .pth, .pt or .bin file '
                'itself.'
            )
        folder = pickles[0].removesuffix('data.pkl')
        weights = (info for info in archive.infolist() if info.filename.startswith((pickles[0], folder + 'data/')))
        if any(info.compress_type != zipfile.ZIP_STORED for info in weights):
            raise _Refused('its members are compressed, but torch does not compress. Download the file again.')
        if folder + 'byteorder' in archive.namelist() and archive.read(folder + 'byteorder') != b'little':
            raise _Refused('it was written on a big-endian machine. Save it again on another.')
        state = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()

        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

        @functools.cache  # Each storage is checked once, however many tensors are views of it.
        def elements(storage: _Storage) -> np.ndarray:
            return np.frombuffer(_member(content, archive.getinfo(f'{folder}data/{storage.key}')), storage.dtype)

        return _materialize(state, elements)


def _member(content: mmap.mmap, info: zipfile.ZipInfo) -> memoryview:
    """The mapped bytes of an uncompressed member, after a check of its checksum."""
    begin = info.header_offset
    signature, sizes = content[begin : begin + 4], content[begin + 26 : begin + 30]
    if signature != b'PK\x03\x04' or info.file_size != info.compress_size:
        raise zipfile.BadZipFile(f'{info.filename} does not begin at the place in the directory')
    begin += 30 + int.from_bytes(sizes[:2], 'little') + int.from_bytes(sizes[2:], 'little')
    data = memoryview(content)[begin : begin + info.file_size]
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile(f'{info.filename} differs from its checksum')
    return data


def _read_legacy(file) -> Any:
    other_type = _Refused(
        'it is not a torch checkpoint. Give a .pth, .pt or .bin file, or name a safetensors file .safetensors.'
    )
    # A mapping, whose `read` returns the available bytes if a damaged length asks for more.
    if not os.fstat(file.fileno()).st_size:
        raise _Refused('it is empty. Download it again.')
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            magic = _Unpickler(content).load()
        except Exception:
            raise other_type from None
        if magic != LEGACY_MAGIC:
            raise other_type
        if _Unpickler(content).load() != LEGACY_VERSION or not _Unpickler(content).load().get('little_endian'):
            raise _Refused('its version or byte order is unknown. Save it again with a newer torch.')
        state = _Unpickler(content).load()
        keys = _Unpickler(content).load()
        storages = {tensor.storage.key: tensor.storage for tensor in _tensors(state)}
        arrays = {}
        for key in keys:
            storage = storages.get(key)
            size = int.from_bytes(content.read(8), 'little')
            if storage is None or size != storage.size:
                raise _Refused(f'it is damaged at storage {key!r}. Download it again and compare its checksum.')
            data = content.read(size * storage.dtype.itemsize)
            arrays[key] = np.frombuffer(data, storage.dtype)
        return _materialize(state, lambda storage: arrays[storage.key])


def _tensors(tree: Any) -> Iterator[_Tensor]:
    """The tensors in a tree. A container is looked into once, though a few bytes can put it in a million places."""
    waiting, seen = [tree], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, _Tensor):
            yield part
        elif isinstance(part, dict | list | tuple) and id(part) not in seen:
            seen.add(id(part))
            waiting += part.values() if isinstance(part, dict) else part


def _materialize(tree: Any, elements: Callable[[_Storage], np.ndarray], made: dict[int, Any] | None = None) -> Any:
    """The dicts of `tree` with an array for each tensor. Lists (an optimizer's groups) remain descriptions.

    `made` has what was made of each dict, by its id: one that is in many places is made once.
    """
    made = {} if made is None else made
    if isinstance(tree, dict):
        if id(tree) not in made:
            kind = _Module if isinstance(tree, _Module) else dict
            made[id(tree)] = kind({key: _materialize(value, elements, made) for key, value in tree.items()})
        return made[id(tree)]
    if not isinstance(tree, _Tensor):
        return tree
    data, itemsize = elements(tree.storage), tree.storage.dtype.itemsize
    if data.size != tree.storage.size:
        raise _Refused(f'its storage {tree.storage.key!r} is cut short. Download the file again.')
    strides = tuple(stride * itemsize for stride in tree.strides)
    view = np.lib.stride_tricks.as_strided(data[tree.offset :], tree.shape, strides, writeable=False)
    return np.ascontiguousarray(view).reshape(tree.shape)  # `ascontiguousarray` makes a scalar one-dimensional.


def _weights(state: Any) -> dict[str, np.ndarray]:
    if not isinstance(state, dict):
        raise _Refused(f'it has a {type(state).__name__}, not a state dict. Save model.state_dict() with torch.')
    if isinstance(state, _Module):
        state = state.tensors()
    for name in NESTED:
        if isinstance(state.get(name), dict):
            state = state[name]
            break
    odd = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, np.ndarray))]
    if odd or not state:
        raise _Refused(f'not everything in it is a tensor: {odd[:5]}. Save only model.state_dict() with torch.')
    return dict(state)
