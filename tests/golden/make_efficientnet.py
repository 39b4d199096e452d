"""Writes efficientnet_lite0.npz: features and class of two images, by timm with the published weights.

Run where torch and timm are installed: python tests/golden/make_efficientnet.py
"""

import pathlib

import numpy as np


def published(size: int, state: dict):
    """timm's model of EfficientNet-Lite{size} with `state` (name -> torch tensor), ready for inference."""
    import timm

    model = timm.create_model(f'tf_efficientnet_lite{size}', pretrained=False).eval()
    # The names differ, the order is the same.
    counters = '.num_batches_tracked'
    names = [name for name in model.state_dict() if not name.endswith(counters)]
    tensors = [tensor for name, tensor in state.items() if not name.endswith(counters)]
    model.load_state_dict(model.state_dict() | dict(zip(names, tensors, strict=True)))
    return model


def drawn() -> np.ndarray:
    """Two drawings, uint8 [2 224 224 3]: an orange ball on blue, and slanted stripes with a dark square."""
    y, x = np.mgrid[:224, :224]
    ball = (y - 120) ** 2 + (x - 100) ** 2 < 70**2
    shade = np.stack([240 - y // 2, 140 - y // 3, 40 + x // 8], -1)
    first = np.where(ball[..., None], shade, [40, 80, 200])
    second = np.stack([(x + y) // 14 % 2 * 200 + 30, x, 255 - y], -1)
    second[60:110, 90:150] = 20
    return np.stack([first, second]).astype(np.uint8)


def main():
    import torch

    from flamingo_jax.conversion.vision_trunks import efficientnet_lite0_file

    model = published(0, torch.load(efficientnet_lite0_file(), weights_only=True))
    images = drawn()
    with torch.no_grad():
        features = model.forward_features(torch.from_numpy((images - np.float32(127)) / 128).permute(0, 3, 1, 2))
        logits = model.forward_head(features).numpy()
    channels = np.arange(0, 1280, 40)
    np.savez_compressed(
        pathlib.Path(__file__).with_name('efficientnet_lite0.npz'),
        images=images,
        channels=channels,
        features=features.flatten(2).permute(0, 2, 1).numpy()[:, :, channels],  # [2 49 32]
        classes=logits.argmax(-1),
        largest_logits=logits.max(-1),
    )


if __name__ == '__main__':
    main()
