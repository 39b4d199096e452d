"""Pictures to ask about."""

import numpy as np
import pytest


@pytest.fixture(scope='session')
def pictures() -> list[np.ndarray]:
    """Six pictures of noise, uint8 [20 16 3]."""
    return list(np.random.default_rng(5).integers(0, 256, (6, 20, 16, 3), np.uint8))
