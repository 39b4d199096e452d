"""Writes weights in other formats: a torch checkpoint without torch, and a Hugging Face folder.

A torch checkpoint is a zip file with a pickle, which describes a dict of tensors, and a member of bytes for each
tensor. The pickle has names in place of torch's functions and types; `readers.py` and torch can read it.
"""

import io
import json
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from flamingo_jax.conversion.readers import DTYPES
from flamingo_jax.conversion.tensors import Tensor, to_state

SHARD_BYTES = 5 * 10**9


class _Name:
    """The name of a torch function or type in the pickle."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class _Storage:
    """A reference in the pickle to the bytes in another member of the zip."""

    def __init__(self, key: str, kind: str, size: int):
        self.key, self.kind, self.size = key, kind, size


class _Tensor:
    """Pickles like a contiguous tensor of torch."""

    def __init__(self, storage: _Storage, shape: tuple[int, ...]):
        self.storage, self.shape = storage, shape

    def arguments(self) -> tuple[Any, ...]:
        strides = tuple(int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape)))
        return self.storage, 0, self.shape, strides, False, {}


class _Pickler(pickle._Pickler):
    """The standard library's Python pickler, whose table can be extended."""

    write: Callable[[bytes], Any]
    save: Callable[[Any], None]
    dispatch: dict[type, Any] = dict(pickle._Pickler.dispatch)

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, _Storage):
            return 'storage', _Name('torch', obj.kind), obj.key, 'cpu', obj.size
        return None

    def save_name(self, obj: _Name):
        self.write(pickle.GLOBAL + f'{obj.module}\n{obj.name}\n'.encode())

    def save_tensor(self, obj: _Tensor):
        self.save(_Name('torch._utils', '_rebuild_tensor_v2'))
        self.save(obj.arguments())
        self.write(pickle.REDUCE)

    dispatch[_Name], dispatch[_Tensor] = save_name, save_tensor


def write_torch_checkpoint(path: pathlib.Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes a .pt file that torch.load reads as the state dict, each tensor in its dtype."""
    kinds = {np.dtype(dtype): kind for kind, dtype in DTYPES.items()}
    tensors = {
        name: _Tensor(_Storage(str(i), kinds[value.dtype], value.size), value.shape)
        for i, (name, value) in enumerate(state.items())
    }
    described = io.BytesIO()
    _Pickler(described, protocol=2).dump(tensors)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        archive.writestr('archive/data.pkl', described.getvalue())
        archive.writestr('archive/byteorder', 'little')
        for i, value in enumerate(state.values()):
            with archive.open(f'archive/data/{i}', 'w', force_zip64=True) as member:
                member.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        archive.writestr('archive/version', '3\n')


def write_folder(folder: pathlib.Path, fields: Mapping[str, Any], tensors: Iterable[Tensor], tree: Any) -> None:
    """Writes config.json, and a tree's weights in safetensors shards, one of which is in memory at a time."""
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(json.dumps(fields, indent=2) + '\n')
    shards = list(_shards(tensors, tree))
    index, total = {}, 0
    for i, shard in enumerate(shards):
        name = 'model.safetensors' if len(shards) == 1 else f'model-{i + 1:05}-of-{len(shards):05}.safetensors'
        state = to_state(shard, tree)
        safetensors.numpy.save_file(state, folder / name, metadata={'format': 'pt'})
        index |= dict.fromkeys(state, name)
        total += sum(value.nbytes for value in state.values())
    if len(shards) > 1:
        about = dict(metadata=dict(total_size=total), weight_map=index)
        (folder / 'model.safetensors.index.json').write_text(json.dumps(about, indent=2) + '\n')


def _shards(tensors: Iterable[Tensor], tree: Any) -> Iterator[list[Tensor]]:
    shard, size, last = [], 0, ''
    for tensor in tensors:
        leaf = tree
        for step in tensor.leaf:
            leaf = leaf[step]
        size += int(np.prod(tensor.ours)) * leaf.dtype.itemsize
        if size > SHARD_BYTES and shard and tensor.name != last:  # Parts of one tensor stay together.
            yield shard
            shard, size = [], int(np.prod(tensor.ours)) * leaf.dtype.itemsize
        shard.append(tensor)
        last = tensor.name
    yield shard
