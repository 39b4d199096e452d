"""Writes tiny checkpoints in both of torch's file formats, and tiny_checkpoint.npz with what they hold.

Run where torch is installed: python tests/golden/make_checkpoints.py
"""

import pathlib

import numpy as np
import torch

FOLDER = pathlib.Path(__file__).parent


def main():
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.BatchNorm2d(3))
    torch.nn.init.normal_(module[0].weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.zeros_(module[0].bias)
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = module.state_dict()  # An OrderedDict with the attribute `_metadata`.
    state |= {
        'transposed': base.T,
        'slice of the same storage': base[1:, ::2],
        'float16': base[0].half(),
        'bfloat16': base[1].bfloat16() / 3,
        'float64': base[2].double(),
        'int32': base[0].int(),
        'int8': -base[1].to(torch.int8),
        'uint8': base[2].byte(),
        'bool': base[0] > 1,
        'empty': torch.zeros(0, 3),
        'scalar': torch.tensor(2.5),
        'parameter': torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(state, FOLDER / 'tiny_zip.pth')
    torch.save(state, FOLDER / 'tiny_legacy.pth', _use_new_zipfile_serialization=False)
    torch.save({'epoch': 3, 'model_state_dict': state, 'note': 'x', 'lr': [0.1]}, FOLDER / 'tiny_training.pt')
    # numpy has no bfloat16 of its own: its float32 value stands in the file.
    np.savez_compressed(
        FOLDER / 'tiny_checkpoint.npz',
        **{
            name: (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
            for name, value in state.items()
        },
    )


if __name__ == '__main__':
    main()
