"""Probabilities of answers beside how many are right: the measures, the fit, and the command on the published model."""

import io
import json
import shutil

import jax
import numpy as np
import PIL.Image
import pytest

import flamingo_jax
from experiments.evaluate import quickstart
from flamingo_jax.calibrate import calibrate
from flamingo_jax.checkpoints import bundle
from flamingo_jax.evaluation import calibration
from flamingo_jax.evaluation.calibration import TEMPERATURES, Answered
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inputs.prompts import encode_prompt


def test_the_error_is_the_gap_of_each_bin_by_its_share():
    p, marks = np.array([0.05, 0.15, 0.15, 0.95, 1.0]), np.array([0.0, 0, 1, 1, 1])
    gaps = [0.05 / 5, abs(0.15 - 0.5) * 2 / 5, abs(0.975 - 1) * 2 / 5]
    assert calibration.expected_error(p, marks) == pytest.approx(sum(gaps))
    assert calibration.expected_error(marks, marks) == 0


def test_coverage_takes_the_most_probable():
    p, marks = np.array([0.9, 0.1, 0.8, 0.3]), np.array([1.0, 0, 0, 1])
    found = [calibration.accuracy_at(share, p, marks) for share in (0.01, 0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([1, 1, 1 / 2, 2 / 3, 1 / 2])


def test_the_fit_finds_the_temperature_of_the_truth():
    """Answers of a model whose logits are too large by a factor that the temperatures have."""
    rng, true = np.random.default_rng(0), TEMPERATURES[20]
    logits = true * rng.normal(size=(20000, 8)) * 1.5
    at = np.array([jax.nn.softmax(logits / t, axis=1).max(axis=1) for t in TEMPERATURES])
    marks = (rng.random(len(logits)) < at[20]).astype(float)
    assert abs(calibration.fit(Answered(at, marks)) - 20) <= 1
    assert calibration.expected_error(at[20], marks) < 0.02 < calibration.expected_error(at[12], marks)


def test_a_probability_is_the_product_under_the_uncached_model(pretrained, stills):
    """Of the text alone, at each temperature, with the end of the chunk; a text that was cut by a stop, too."""
    prompts = [[stills[0], ' a dog'], [stills[1], ' the cat sat']]
    whole = pretrained.answers(prompts, Sampling(max_new_tokens=5, stop=('<EOC>',)))
    stop = pretrained.tokenizer.written(whole[0].tokens).strip()[2:4]
    cut = pretrained.answers(prompts, Sampling(max_new_tokens=5, stop=(stop,)))
    assert len(cut[0].text) < len(whole[0].text)
    for answers in (whole, cut):
        found = pretrained.probabilities(prompts, answers, (1.0, 2.0))
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids = next(
                answer.tokens[:n]
                for n in range(len(answer.tokens) + 1)
                if pretrained.tokenizer.written(answer.tokens[:n]).strip().startswith(answer.text)
            )
            tokens, images = encode_prompt(prompt, pretrained.tokenizer, pretrained.image_format)
            ids = [*ids, pretrained.tokenizer.eoc]
            logits = pretrained.logits(np.stack(images)[None], np.array([[*tokens, *ids]]))[0, len(tokens) - 1 : -1]
            for at, temperature in enumerate((1.0, 2.0)):
                logp = jax.nn.log_softmax(logits / temperature)
                expected = float(np.exp(sum(logp[i, token] for i, token in enumerate(ids))))
                assert found[at, row] == pytest.approx(expected, rel=1e-4)
    assert np.array_equal(
        pretrained.probabilities(prompts, whole)[0], pretrained.probabilities(prompts, whole, (1.0,))[0]
    )
    with pytest.raises(flamingo_jax.errors.UserError, match='2 prompts and 1 answers'):
        pretrained.probabilities(prompts, whole[:1])


@pytest.fixture(scope='module')
def asked():
    c = quickstart.get_config()
    c.episodes, c.num_beams = 24, 1
    c.tasks.names.shots = (0,)
    return c


def test_the_temperature_is_kept_in_the_bundle_and_used(asked, tmp_path, capsys):
    copy = shutil.copytree('experiments/picture_dictionary', tmp_path / 'bundle')
    before = json.loads((copy / 'config.json').read_bytes())
    fitted = calibrate(asked, copy, tmp_path / 'fit', fit=True)
    assert fitted in TEMPERATURES
    assert json.loads((copy / 'config.json').read_bytes()) == before | dict(temperature=round(fitted, 3))
    model = flamingo_jax.load(copy)
    assert model.temperature == pytest.approx(fitted, abs=1e-3)
    capsys.readouterr()
    asked.seed = 7
    calibrate(asked, copy, tmp_path / 'told')
    said = capsys.readouterr().out
    assert '24 answers' in said and f'{1:>12.3f}' in said and f'{fitted:>12.3f}' in said
    image = PIL.Image.open(io.BytesIO((tmp_path / 'told/calibration.png').read_bytes()))
    assert image.width > 400
    kept = np.load(tmp_path / 'told/answers.npz')
    assert kept['probabilities'].shape == (2, 24) and set(kept['marks']) <= {0.0, 1.0}
    # The kept temperature is the one at which `probabilities` are given.
    prompts = [['Output:']]
    answers = model.answers(prompts, Sampling(max_new_tokens=4))
    assert model.probabilities(prompts, answers) == pytest.approx(
        model.probabilities(prompts, answers, (round(fitted, 3),))
    )


def test_what_cannot_be_calibrated_is_refused_before_anything_is_asked(asked, tmp_path):
    with pytest.raises(ValueError, match="No task of the config has 'open-ended' answers"):
        ranked = quickstart.get_config()
        ranked.tasks.names.answers = ('ranked',)
        calibrate(ranked, 'experiments/picture_dictionary', tmp_path)
    with pytest.raises(FileNotFoundError, match='not a bundle'):
        calibrate(asked, tmp_path, tmp_path, fit=True)
    copy = shutil.copytree('experiments/picture_dictionary', tmp_path / 'bundle')
    for wrong in (0, -1, 'warm', float('inf')):
        fields = json.loads((copy / 'config.json').read_bytes()) | dict(temperature=wrong)
        (copy / 'config.json').write_text(json.dumps(fields))
        with pytest.raises(ValueError, match='temperature is .* finite number above 0'):
            bundle.read(copy)
