"""The mean of bundles: of what was trained, and of nothing else."""

import dataclasses

import jax
import numpy as np
import pytest

from flamingo_jax.checkpoints import bundle, bundle_of_run, converted, mean
from flamingo_jax.conversion import idefics

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture
def saved(pretrained, tmp_path):
    """Writes a bundle of the tiny model, its parameters and fields changed."""

    def save(name, params=None, config=None, without_lm=False, trained=('xattn', 'extra_tokens')):
        bundle.save(
            tmp_path / name,
            config or pretrained.config,
            pretrained.params | (params or {}),
            pretrained.tokenizer,
            'text',
            card=f'# γάτα {name}',
            trained=trained,
            without_lm=without_lm,
        )
        return str(tmp_path / name)

    return save


def changed(tree, by):
    return jax.tree.map(lambda x: x + by, tree)


def test_the_card_is_utf_8_whatever_the_locale(saved, tmp_path, ascii_locale):
    mean.write([saved('a'), saved('b')], [0.5, 0.5], str(tmp_path / 'mean'))
    assert '# γάτα a' in (tmp_path / 'mean/README.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('without_lm', [False, True])
def test_the_mean_is_of_what_was_trained(pretrained, saved, tmp_path, without_lm):
    xattn = pretrained.params['xattn']
    a = saved('a', without_lm=without_lm)
    b = saved('b', dict(xattn=changed(xattn, 1.0)), without_lm=without_lm)
    lm = saved('lm') if without_lm else ''
    mean.write([a, b], [0.25, 0.75], str(tmp_path / 'mean'), lm)
    found = bundle.read(tmp_path / 'mean', lm)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), found.params('xattn'), changed(xattn, 0.75)
    )
    same = bundle.read(a)
    assert {k: v for k, v in found.checksums.items() if k != 'xattn'} == {
        k: v for k, v in same.checksums.items() if k != 'xattn'
    }
    assert found.trained == ('extra_tokens', 'xattn') and (found.path / 'README.md').read_text() == '# γάτα a'
    assert (found.path / 'params' / 'lm').is_dir() != without_lm


def test_before_and_after_are_averaged_in_any_order(pretrained, saved, tmp_path):
    """A bundle that was converted has trained nothing, and LoRA changed the language model (WiSE-FT)."""
    changes = {name: changed(pretrained.params[name], 1.0) for name in ('xattn', 'lm')}
    before, after = saved('before', trained=()), saved('after', changes, trained=('lora', 'xattn'))
    for name, sources in (('one', [before, after]), ('other', [after, before])):
        mean.write(sources, [0.5, 0.5], str(tmp_path / name))
        found = bundle.read(tmp_path / name)
        for tree in changes:
            expected = changed(pretrained.params[tree], 0.5)
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), found.params(tree), expected)
        assert found.trained == ('lora', 'xattn')


def test_bundles_without_a_mean_are_refused_and_nothing_is_written(pretrained, saved, tmp_path):
    a, out = saved('a'), str(tmp_path / 'mean')
    other = saved('other', config=dataclasses.replace(pretrained.config, image_tag=(1, 2, 3)))
    trunk = saved('trunk', dict(resampler=changed(pretrained.params['resampler'], 1.0)))
    for sources, weights, message in (
        ([a], [1.0], 'two bundles'),
        ([a, a], [0.5, 0.6], 'add up to 1'),
        ([a, a], [1.0], 'each with a weight'),
        ([a, a], [0.5, float('nan')], 'add up to 1'),
        ([a, other], [0.5, 0.5], 'another config'),
        ([a, trunk], [0.5, 0.5], 'resampler.*not trained'),
    ):
        with pytest.raises(ValueError, match=message):
            mean.write(sources, weights, out)
    with pytest.raises(FileNotFoundError):
        mean.write([a, str(tmp_path / 'nothing')], [0.5, 0.5], out)
    assert not (tmp_path / 'mean').exists()


@pytest.mark.parametrize(
    'write',
    [
        lambda out: mean.write(['none', 'none'], [0.5, 0.5], out),
        lambda out: bundle_of_run.write('none', out),
        lambda out: converted.write(idefics.convert, 'none', out),
    ],
)
def test_a_bundle_that_exists_is_refused_before_anything_is_read(write, tmp_path):
    with pytest.raises(FileExistsError, match='exists already. Remove it'):
        write(str(tmp_path))
