import math

import jax
import numpy as np
import pytest

from flamingo_jax.conversion.language_model_configs import CONFIGS, config_of
from flamingo_jax.model.config import FlamingoConfig
from flamingo_jax.model.flamingo import Flamingo
from tests.conversion.published_configs import PUBLISHED


@pytest.mark.parametrize('name', PUBLISHED)
def test_parameters_of_published_models(name):
    count, fields = PUBLISHED[name]
    shapes = jax.eval_shape(Flamingo(FlamingoConfig(lm=config_of(fields))).init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count


def test_every_family_is_among_them():
    published = {fields.get('text_config', fields)['model_type'] for _, fields in PUBLISHED.values()}
    assert set(CONFIGS) - {'mosaic_gpt'} == published


@pytest.mark.parity
@pytest.mark.parametrize('name', PUBLISHED)
def test_what_a_file_leaves_out_or_names_in_old_ways(name):
    """transformers writes a config that it read from an old file in today's names, with all defaults in it."""
    transformers = pytest.importorskip('transformers')
    fields = PUBLISHED[name][1]
    theirs = transformers.AutoConfig.for_model(**fields)
    rewritten = theirs.to_dict() | dict(model_type=theirs.model_type)
    assert config_of(rewritten) == config_of(fields)


def test_any_change_of_a_field_is_a_config_or_a_value_error():
    rng, refused = np.random.default_rng(0), 0
    values = [None, -1, 0, 7, 2.5, 1e30, 'gelu', '', [], [3], {}, {'rope_type': 'yarn'}, True]
    for _, published in PUBLISHED.values():
        for _ in range(10):
            fields = dict(published)
            for key in rng.choice(list(fields), 2):
                fields[key] = values[rng.integers(len(values))]
            try:
                assert config_of(fields, 'here').width > 0
            except ValueError as error:
                assert str(error).startswith('here')
                refused += 1
    assert refused > 60


def test_windows_and_bands():
    gemma = config_of(PUBLISHED['gemma-3-1b-it'][1])
    assert gemma.windows[:7] == (512, 512, 512, 512, 512, 0, 512) and len(gemma.windows) == 26
    assert (gemma.rotary_base, gemma.rotary_local_base, gemma.rotary_factor) == (1e6, 1e4, 1.0)
    assert config_of(PUBLISHED['gemma-3-4b-pt'][1]).rotary_factor == 8.0
    assert config_of(PUBLISHED['gemma-2-2b'][1]).windows == (4096, 0) * 13
    assert set(config_of(PUBLISHED['Mistral-7B-v0.1'][1]).windows) == {4096}
    assert config_of(PUBLISHED['Qwen2-7B'][1]).windows == config_of(PUBLISHED['Mistral-7B-v0.3'][1]).windows == ()
    llama = config_of(PUBLISHED['Llama-3.1-8B'][1])
    assert (llama.rotary_factor, llama.rotary_bands, llama.kv_heads) == (8.0, (1.0, 4.0, 8192.0), 8)
