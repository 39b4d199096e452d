"""Writes nfnet.npz: what timm and the authors' own code make of two images, with one small NFNet of random weights.

Run where torch, timm and dm-haiku are installed, with the parent of the folder `nfnets` of
github.com/google-deepmind/deepmind-research on PYTHONPATH: python tests/golden/make_nfnet.py
"""

import pathlib

import numpy as np

# The stem is that of every NFNet-F; of the rest, the least that has all kinds of blocks and more than one group.
DEPTHS, WIDTHS, GROUP_WIDTH, FINAL_WIDTH = (1, 2, 3, 2), (256, 64, 128, 128), 32, 256
MEAN, STD = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights, float32, by their names in timm. No gain or bias is left out: those of a new network are 1 and 0.

    numpy promises the numbers of RandomState for ever, so that the weights need not be stored.
    """
    rng, state = np.random.RandomState(0), {}
    for name, shape in sorted(shapes.items()):
        noise = rng.standard_normal(shape)
        if name.endswith('.gain'):
            value = 1 + 0.2 * noise
        elif name.endswith('.skipinit_gain'):
            value = 0.6 + 0.2 * noise
        elif name.endswith('.bias'):
            value = 0.1 * noise
        else:  # Kernels: not centred, and of another deviation for each output channel.
            scale = rng.uniform(0.5, 2, (shape[0],) + (1,) * (len(shape) - 1))
            value = scale * (noise + 0.3) / np.prod(shape[1:]) ** 0.5
        state[name] = np.asarray(value, np.float32)
    return state


def random_images() -> np.ndarray:
    """Noise on a slope, uint8 [2 75 50 3]: height and width are no multiples of the stride, and differ."""
    return (np.linspace(0, 200, 50)[:, None] + np.random.RandomState(1).uniform(0, 55, (2, 75, 50, 3))).astype(np.uint8)


def timm_model():
    """timm's network of this size, as it builds its dm_nfnet_f0 to f6."""
    import dataclasses

    from timm.models import nfnet

    config = nfnet._dm_nfnet_cfg(DEPTHS, WIDTHS)
    return nfnet.NormFreeNet(dataclasses.replace(config, group_size=GROUP_WIDTH)).eval()


def timm_features(model, images: np.ndarray) -> np.ndarray:
    """[b s d], row by row."""
    import torch

    with torch.no_grad():
        x = torch.from_numpy(((images - MEAN) / STD).astype(np.float32)).permute(0, 3, 1, 2)
        return model.forward_features(x).flatten(2).permute(0, 2, 1).numpy()


def authors_features(state: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """[b d], the mean over space: all that the authors' module gives before its classifier."""
    import haiku as hk
    from nfnets import nfnet

    nfnet.NFNet.variant_dict['small'] = dict(
        width=WIDTHS, depth=DEPTHS, group_width=[GROUP_WIDTH] * 4, train_imsize=64, test_imsize=64, drop_rate=0.0
    )
    network = hk.without_apply_rng(hk.transform(lambda x: nfnet.NFNet(1000, 'small')(x, is_training=False)['pool']))
    params = {}

    def conv(theirs, ours):
        weight = state[f'{theirs}.weight'].transpose(2, 3, 1, 0)
        params[f'NFNet/~/{ours}'] = dict(w=weight, gain=state[f'{theirs}.gain'].ravel(), bias=state[f'{theirs}.bias'])

    def linear(theirs, ours, weight):
        params[f'NFNet/~/{ours}'] = dict(w=weight.T, b=state[f'{theirs}.bias'])

    for i in range(4):
        conv(f'stem.conv{i + 1}', f'stem_conv{i}')
    names = [f'stages.{stage}.{number}' for stage, depth in enumerate(DEPTHS) for number in range(depth)]
    for i, theirs in enumerate(names):
        ours = f'nf_block_{i}' if i else 'nf_block'
        for one, other in (('conv1', 'conv0'), ('conv2', 'conv1'), ('conv2b', 'conv1b'), ('conv3', 'conv2')):
            conv(f'{theirs}.{one}', f'{ours}/~/{other}')
        if theirs.endswith('.0'):
            conv(f'{theirs}.downsample.conv', f'{ours}/~/conv_shortcut')
        for one, other in (('fc1', 'linear'), ('fc2', 'linear_1')):
            weight = state[f'{theirs}.attn_last.{one}.weight'][:, :, 0, 0]
            linear(f'{theirs}.attn_last.{one}', f'{ours}/~/squeeze_excite/~/{other}', weight)
        params[f'NFNet/~/{ours}'] = dict(skip_gain=state[f'{theirs}.skipinit_gain'])
    conv('final_conv', 'final_conv')
    linear('head.fc', 'linear', state['head.fc.weight'])
    return np.asarray(network.apply(params, ((images - MEAN) / STD).astype(np.float32)))


def main():
    import json

    import torch

    model = timm_model()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = random_state(shapes)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()}, strict=True)
    np.savez_compressed(
        pathlib.Path(__file__).with_name('nfnet.npz'),
        shapes=json.dumps(shapes),  # Of the state dict, by timm's names.
        timm=timm_features(model, random_images()),
        authors=authors_features(state, random_images()),
    )


if __name__ == '__main__':
    main()
