"""Images to ask about."""

import numpy as np
import pytest


@pytest.fixture(scope='session')
def stills() -> list[np.ndarray]:
    """Six images of noise, uint8 [20 16 3]."""
    return list(np.random.default_rng(5).integers(0, 256, (6, 20, 16, 3), np.uint8))
