"""Every ablation builds, on the committed language model, and changes something of the base."""

import pathlib

import pytest

from flamingo_jax.checkpoints import bundle
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.training.assemble import assemble
from flamingo_jax.training.config import source_of
from flamingo_jax.training.optimizer import OptimizerConfig
from research.experiments import ablations

EXPERIMENTS = pathlib.Path(__file__).parents[2] / 'experiments'
NAMES = [name for name in ablations.ABLATIONS if name != 'base']


@pytest.fixture(scope='module')
def trunk(config, params, tmp_path_factory):
    path = tmp_path_factory.mktemp('parts') / 'trunk'
    vision = FlamingoConfig(vision=config.vision, image_size=config.image_size)
    bundle.save(path, vision, {'vision': params['vision']}, None, None, '')
    return path


@pytest.mark.parametrize('name', NAMES)
def test_an_ablation_builds_and_differs_from_the_base(name, trunk):
    c = ablations.get_config(name)
    assert c.to_dict() != ablations.get_config().to_dict()
    c.lm, c.vision = str(EXPERIMENTS / 'lm_dictionary'), str(trunk)
    parts = assemble(c)
    assert set(parts.frozen) == {'lm', 'vision'} - set(c.trained)
    assert set(parts.start) == {'lm'} & set(c.trained)  # Trained on from its bundle.
    OptimizerConfig(**c.optimizer.to_dict())
    for data in c.datasets.values():
        source_of(data)


def test_the_docstring_names_them_all():
    assert [name for name in NAMES if f' {name} ' not in ablations.__doc__] == []
