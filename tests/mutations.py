"""Damages data by chance, for tests that read what nobody wrote."""

import numpy as np
import pytest

# How many files are damaged: by CI's long checks, and with `-m fuzz`.
NUMBERS = pytest.param(1000, marks=pytest.mark.long), pytest.param(10_000, marks=pytest.mark.fuzz)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A few changes: bytes overwritten, cut out, inserted, repeated or set to zero, or the end cut off."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, size = int(rng.integers(len(out) + 1)), int(rng.integers(1, 1 + int(rng.choice([1, 4, 64, 1000]))))
        match rng.integers(7):
            case 0:
                out[at : at + size] = rng.bytes(min(size, len(out) - at))
            case 1:
                del out[at : at + size]
            case 2:
                out[at:at] = rng.bytes(size)
            case 3:
                out[at:at] = out[at : at + size] * int(rng.integers(1, 4))
            case 4:
                out[at : at + size] = bytes(min(size, len(out) - at))
            case 5:
                if rng.random() < 0.2:
                    del out[at:]
            case _:  # Where text is structured.
                out[at : at + 1] = rng.choice([b'"', b'{', b']', b'\\', b'null', b'-1e999', b'\xff', b'<image>', b'0'])
    return bytes(out)
