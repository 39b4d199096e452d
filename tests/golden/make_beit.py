"""Writes beit.npz: the features of small random BEiTs, from transformers (pip install -e '.[parity]').

python -m tests.golden.make_beit
"""

import pathlib

import numpy as np

from flamingo_jax.conversion.beit import beit_tensors
from flamingo_jax.model.vision.beit import BEiTConfig

SMALL = dict(width=24, depth=2, heads=3, ffw_width=48, patch=8, resolution=32)
KINDS = {
    'block': BEiTConfig(**SMALL),
    'shared': BEiTConfig(**SMALL, relative='shared'),
    'neither': BEiTConfig(**SMALL, relative='', absolute=True, layer_scale=False, norm_out=True),
}
SIZES = dict(
    block=(32, 48), shared=(32, 48), neither=(32,)
)  # Pixels. transformers interpolates learnt positions otherwise.


def images(size: int) -> np.ndarray:
    """Two images."""
    return np.random.RandomState(0).randint(0, 256, (2, size, size, 3)).astype(np.uint8)


def random_state(config: BEiTConfig) -> dict[str, np.ndarray]:
    """Random tensors by the names in published files; numpy promises the numbers of RandomState for ever."""
    rng = np.random.RandomState(1)
    shapes = {tensor.name: tensor.shape for tensor in beit_tensors(config, '')}
    return {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def transformers_model(config: BEiTConfig, kind):
    """The original with these tensors, by way of a folder, whose names are those of published files."""
    import tempfile

    import safetensors.numpy
    import transformers

    fields = transformers.BeitConfig(
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=config.ffw_width,
        patch_size=config.patch,
        image_size=config.resolution,
        use_relative_position_bias=config.relative == 'block',
        use_shared_relative_position_bias=config.relative == 'shared',
        use_absolute_position_embeddings=config.absolute,
        layer_scale_init_value=0.1 if config.layer_scale else 0.0,
        use_mean_pooling=not config.norm_out,
        attn_implementation='eager',
    )
    with tempfile.TemporaryDirectory() as folder:
        fields.save_pretrained(folder)
        prefix = '' if kind is transformers.BeitModel else 'beit.'
        state = {prefix + name: x for name, x in random_state(config).items()}
        safetensors.numpy.save_file(state, f'{folder}/model.safetensors', {'format': 'pt'})
        return kind.from_pretrained(folder, attn_implementation='eager').eval()


def transformers_features(model, size: int) -> np.ndarray:
    """The original's patch tokens."""
    import torch

    pixels = torch.tensor(images(size).transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32)
    with torch.no_grad():
        return getattr(model, 'beit', model)(pixel_values=pixels).last_hidden_state[:, 1:].numpy()


def main() -> None:
    """Writes the file."""
    import transformers

    out = {}
    for kind, config in KINDS.items():
        model = transformers_model(config, transformers.BeitModel)
        for size in SIZES[kind]:
            out[f'{kind}_{size}'] = transformers_features(model, size)
    np.savez_compressed(pathlib.Path(__file__).with_name('beit.npz'), **out)


if __name__ == '__main__':
    main()
