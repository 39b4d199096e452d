"""Maps a published model's tensors to our tree and back, by one list.

A `Tensor` says how one original tensor, or a part of it, becomes a leaf: viewed in another shape, cut, transposed,
reshaped. This needs no rounding, so the same list converts a file to a tree (`to_tree`) and back (`to_state`), bit for
bit. torch keeps matrices as [out in] and kernels as [out in height width]; ours are [in out] and [height width in out].
"""

import collections
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flamingo_jax.errors import UserError

Path = tuple[str | int, ...]
State = Mapping[str, Any]  # Arrays, or objects with shape and dtype that `np.asarray` makes arrays.
Empty = Callable[[tuple[str, ...], tuple[int, ...], Any], np.ndarray]  # (path, shape, dtype) -> an array to fill.


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor, or a part of one.

    Attributes:
      path: path in our tree; a number is the index along a stacked axis, which is the first.
      name: name in the original.
      shape: shape of the whole original tensor.
      ours: shape in our tree, without the stacked axis.
      axes: the axes of the original, or of the part, in our order, before the reshape to `ours`.
      view, at: a shape for the original, and the index of the part in it. If one tensor [3 d d] has queries, keys and
        values, the keys are view (3, d, d), at (1,). () is the whole tensor.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    ours: tuple[int, ...]
    axes: tuple[int, ...]
    view: tuple[int, ...] = ()
    at: tuple[int | slice, ...] = ()

    @property
    def leaf(self) -> tuple[str, ...]:
        """The path without the index along a stacked axis."""
        return tuple(step for step in self.path if isinstance(step, str))

    @property
    def row(self) -> int | None:
        """The index along the stacked axis; None without one."""
        return next((step for step in self.path if isinstance(step, int)), None)

    def part(self, whole: np.ndarray) -> np.ndarray:
        """The part of an original tensor. It may not be contiguous; a contiguous part is not copied."""
        return whole.reshape(self.view or self.shape)[(*self.at, ...)]

    def to_ours(self, whole: np.ndarray) -> np.ndarray:
        """The original tensor in the form of our tree."""
        return self.part(whole).transpose(self.axes).reshape(self.ours)

    def to_theirs(self, ours: np.ndarray, whole: np.ndarray) -> None:
        """Writes our leaf into its part of an original tensor."""
        part = self.part(whole)
        part[...] = ours.reshape([part.shape[axis] for axis in self.axes]).transpose(np.argsort(self.axes))


def vector(path: Path, name: str, *shape: int, ours: tuple[int, ...] | None = None) -> Tensor:
    """A tensor that is the same array in both, up to a reshape."""
    return Tensor(path, name, shape, shape if ours is None else ours, tuple(range(len(shape))))


def matrix(
    path: Path, name: str, inputs: int, outputs: int, ours: tuple[int, ...] = (), part: int = 0, parts: int = 1
) -> Tensor:
    """A linear map: [out in] there; [in out] here, or `ours`, whose product is the same (heads have axes of their own).

    part, parts: which of several equal parts of the original's rows it is.
    """
    ours, shape = ours or (inputs, outputs), (parts * outputs, inputs)
    return Tensor(path, name, shape, ours, (1, 0), (parts, outputs, inputs), (part,))


def kernel(path: Path, name: str, inputs: int, outputs: int, height: int, width: int) -> Tensor:
    """A convolution: [out in height width] there, [height width in out] here."""
    return Tensor(path, name, (outputs, inputs, height, width), (height, width, inputs, outputs), (2, 3, 1, 0))


def norm(path: Path, name: str, width: int, bias: bool = True) -> Iterable[Tensor]:
    """A layer norm, or without `bias` an RMS norm."""
    yield vector((*path, 'scale'), f'{name}.weight', width)
    if bias:
        yield vector((*path, 'bias'), f'{name}.bias', width)


def in_memory(path: tuple[str, ...], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to fill, for a leaf of a tree that is not larger than the memory."""
    return np.empty(shape, dtype)


def to_tree(
    tensors: Iterable[Tensor],
    state: State,
    leftover: Collection[str] = (),
    empty: Empty = in_memory,
    progress: bool = False,
) -> dict[str, Any]:
    """The tree of a state dict, in its stored dtypes; each tensor is read once, in the order of the state.

    Args:
      tensors: all tensors of the tree.
      state: names -> arrays, which may be mapped from files.
      leftover: names in the state that may remain unused.
      empty: gives the arrays of the tree, which may be mapped to files (`bundle.on_disk`).
      progress: whether to show a bar with bytes and time left.

    Raises:
      ValueError: tensors are missing, unused, of another shape, not of a floating dtype, or of another dtype than
        those they are stacked with. The message lists them; nothing is read.
    """
    by_name: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        by_name.setdefault(tensor.name, []).append(tensor)
    tensors = [tensor for several in by_name.values() for tensor in several]
    rows = collections.Counter(tensor.leaf for tensor in tensors)
    wrong, dtypes = {}, {}  # Dict keys, so that each message comes once and in order.
    for tensor in tensors:
        if tensor.name not in state:
            wrong[f'missing: {tensor.name} {tensor.shape}'] = None
            continue
        shape, dtype = state[tensor.name].shape, state[tensor.name].dtype
        if shape != tensor.shape:
            wrong[f'{tensor.name} has shape {shape}, not {tensor.shape}'] = None
        elif not jnp.issubdtype(dtype, jnp.floating):
            wrong[f'{tensor.name} is of {dtype}'] = None
        elif dtypes.setdefault(tensor.leaf, dtype) != dtype:
            wrong[f'{tensor.name} is of {dtype}, but that of another block of {dtypes[tensor.leaf]}'] = None
    wrong |= {f'unused: {name}': None for name in sorted(set(state) - set(by_name) - set(leftover))}
    if wrong:
        more = f' and {len(wrong) - 10} more' if len(wrong) > 10 else ''
        raise UserError('; '.join(list(wrong)[:10]) + more)

    leaves: dict[tuple[str, ...], np.ndarray] = {}
    total = sum(state[name].nbytes for name in by_name)
    with tqdm(total=total, unit='B', unit_scale=True, desc='convert', disable=not progress) as bar:
        for name in state:  # In the order of the files.
            if name not in by_name:
                continue
            whole = np.asarray(state[name])
            for tensor in by_name[name]:
                if tensor.leaf not in leaves:
                    stack = () if tensor.row is None else (rows[tensor.leaf],)
                    leaves[tensor.leaf] = empty(tensor.leaf, (*stack, *tensor.ours), whole.dtype)
                leaf = leaves[tensor.leaf]
                _copy(leaf if tensor.row is None else leaf[tensor.row, ...], tensor.to_ours(whole))
            bar.update(whole.nbytes)
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        at = tree
        for step in path[:-1]:
            at = at.setdefault(step, {})
        at[path[-1]] = leaf
    return tree


def _copy(to: np.ndarray, new: np.ndarray) -> None:
    if new.dtype.itemsize == 2:  # numpy transposes its own types ten times as fast as bfloat16.
        to, new = to.view(np.uint16), new.view(np.uint16)
    np.copyto(to, new)


def to_state(tensors: Iterable[Tensor], tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `to_tree`: the original tensors by name. Elements outside all parts are zero."""
    state: dict[str, np.ndarray] = {}
    for tensor in tensors:
        value: Any = tree
        for step in tensor.leaf:
            value = value[step]
        value = np.asarray(value if tensor.row is None else value[tensor.row])
        if tensor.name not in state:
            state[tensor.name] = np.zeros(tensor.shape, value.dtype)
        tensor.to_theirs(value, state[tensor.name])
    return state


def sizes(state: State, beginning: str) -> int:
    """The length of a numbered list: the highest number after `beginning`, such as 'layers.', plus one; 0 if none."""
    numbers = [name[len(beginning) :].split('.')[0] for name in state if name.startswith(beginning)]
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)
