import pytest
from ml_collections import ConfigDict

from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.training import config as training


@pytest.fixture
def tiny(config) -> ConfigDict:
    """The tests' model in a config of pages and videos, 8 sequences each."""
    c = training.base()
    c.model = ConfigDict(config.to_json())
    c.image_tag, c.remat = 'text', 'full'
    c.mesh = ConfigDict(dict(data=2, fsdp=2, tensor=2))
    c.datasets.pages = training.dataset(Documents, length=24, images=2, batch_size=8)
    c.datasets.videos = training.dataset(Documents, length=12, images=1, frames=4, batch_size=8, loss_weight=0.1)
    return c
