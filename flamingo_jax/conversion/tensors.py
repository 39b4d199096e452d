"""A published model's tensors and the places of our tree where they go, as one list that is read in both directions.

A `Tensor` says where one original tensor, or some rows of it, goes: transposed, then reshaped. That can be undone without
rounding, so the same list converts a file into a tree (`to_tree`) and the tree back into the file (`to_state`), bit for bit.
torch keeps matrices as [out in] and kernels as [out in height width]; ours are [in out] and [height width in out].
"""

import collections
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

Path = tuple[str | int, ...]
State = Mapping[str, np.ndarray]
Empty = Callable[[tuple[str, ...], tuple[int, ...], Any], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor, or one of several equal parts of its rows.

    Attributes:
      path: in our tree; a number is a place along a stacked axis, which is the first.
      name: in the original.
      shape: in the original, of the part.
      ours: shape in our tree, without the stacked axis.
      axes: the original's axes in our order, before the reshape.
      part, parts: which part of the original's rows this is; (0, 1) is the whole.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    ours: tuple[int, ...]
    axes: tuple[int, ...]
    part: int = 0
    parts: int = 1

    @property
    def leaf(self) -> tuple[str, ...]:
        """The path without the place along a stacked axis."""
        return tuple(step for step in self.path if isinstance(step, str))

    @property
    def row(self) -> int | None:
        """The place along the stacked axis, None without one."""
        return next((step for step in self.path if isinstance(step, int)), None)

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """Of the original's whole tensor."""
        return (self.shape[0] * self.parts, *self.shape[1:]) if self.parts > 1 else self.shape


def vector(path: Path, name: str, *shape: int, ours: tuple[int, ...] | None = None) -> Tensor:
    """A tensor that is the same array in both, up to a reshape."""
    return Tensor(path, name, shape, shape if ours is None else ours, tuple(range(len(shape))))


def matrix(
    path: Path, name: str, inputs: int, outputs: int, ours: tuple[int, ...] = (), part: int = 0, parts: int = 1
) -> Tensor:
    """A linear map: [out in] there; [in out] here, or `ours`, whose product is the same (heads have axes of their own)."""
    return Tensor(path, name, (outputs, inputs), ours or (inputs, outputs), (1, 0), part, parts)


def norm(path: Path, name: str, width: int, bias: bool = True) -> Iterable[Tensor]:
    """A layer norm, or without `bias` an RMS norm."""
    yield vector((*path, 'scale'), f'{name}.weight', width)
    if bias:
        yield vector((*path, 'bias'), f'{name}.bias', width)


def to_tree(
    tensors: Iterable[Tensor],
    state: State,
    leftover: Collection[str] = (),
    empty: Empty = lambda _, *like: np.empty(*like),
    progress: bool = False,
) -> dict[str, Any]:
    """The tree of a state dict, in its stored dtypes; each tensor is read once, in the order of the list.

    Args:
      tensors: all that belong into the tree.
      state: names -> arrays, which may be mapped from files.
      leftover: names that may be in the state without being used.
      empty: (path, shape, dtype) -> an array to be filled, which may be mapped to a file (`bundle.on_disk`).
      progress: whether a bar shows bytes and time left.

    Raises:
      ValueError: lists the tensors that are missing, unused, of another shape, or of another dtype than those they are stacked
        with; nothing was read.
    """
    tensors = list(tensors)
    rows = collections.Counter(tensor.leaf for tensor in tensors)
    wrong, dtypes = [], {}
    for tensor in tensors:
        if tensor.name not in state:
            wrong.append(f'missing: {tensor.name} {tensor.whole_shape}')
            continue
        shape, dtype = state[tensor.name].shape, state[tensor.name].dtype
        if shape != tensor.whole_shape:
            wrong.append(f'{tensor.name} has shape {shape} and not {tensor.whole_shape}')
        elif dtypes.setdefault(tensor.leaf, dtype) != dtype:
            wrong.append(f'{tensor.name} is of {dtype}, but that of another block of {dtypes[tensor.leaf]}')
    used = {tensor.name for tensor in tensors}
    wrong += [f'unused: {name}' for name in sorted(set(state) - used - set(leftover))]
    if wrong:
        wrong = list(dict.fromkeys(wrong))  # Parts of one tensor are missing once.
        more = f' and {len(wrong) - 10} more' if len(wrong) > 10 else ''
        raise ValueError('; '.join(wrong[:10]) + more)

    leaves: dict[tuple[str, ...], np.ndarray] = {}
    bar = tqdm(total=sum(state[name].nbytes for name in used), unit='B', unit_scale=True, disable=not progress)
    for tensor in tensors:
        value = state[tensor.name]
        if tensor.parts > 1:
            value = value[tensor.part * tensor.shape[0] :][: tensor.shape[0]]
        if tensor.leaf not in leaves:
            stack = () if tensor.row is None else (rows[tensor.leaf],)
            leaves[tensor.leaf] = empty(tensor.leaf, (*stack, *tensor.ours), value.dtype)
        leaf = leaves[tensor.leaf]
        place = leaf if tensor.row is None else leaf[tensor.row, ...]
        new = value.transpose(tensor.axes).reshape(tensor.ours)
        if new.dtype.itemsize == 2:  # numpy transposes its own types an order of magnitude faster than bfloat16.
            place, new = place.view(np.uint16), new.view(np.uint16)
        np.copyto(place, new)
        bar.update(value.nbytes)
    bar.close()
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        at = tree
        for step in path[:-1]:
            at = at.setdefault(step, {})
        at[path[-1]] = leaf
    return tree


def to_state(tensors: Iterable[Tensor], tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `to_tree`: the original's tensors of a tree, by name."""
    state: dict[str, Any] = {}
    for tensor in tensors:
        value: Any = tree
        for step in tensor.leaf:
            value = value[step]
        value = value if tensor.row is None else value[tensor.row]
        before = tuple(tensor.shape[axis] for axis in tensor.axes)
        value = np.asarray(value).reshape(before).transpose(np.argsort(tensor.axes))
        state.setdefault(tensor.name, []).append(np.ascontiguousarray(value).reshape(tensor.shape))
    return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in state.items()}


def sizes(state: State, beginning: str) -> int:
    """How many numbered parts a list has: with 'layers.' the highest number after it plus one, 0 without any."""
    numbers = [name[len(beginning) :].split('.')[0] for name in state if name.startswith(beginning)]
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)
