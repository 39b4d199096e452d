"""Training questions of a benchmark become documents in the words in which it is evaluated."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `data` is a folder beside the package.

from data.benchmarks.build import build  # noqa: E402
from experiments.evaluate import coco, star, vatex, vqav2  # noqa: E402
from flamingo_jax.evaluation.datasets.vqav2 import VQAv2  # noqa: E402
from flamingo_jax.inputs.sources.json_lines import JsonLines  # noqa: E402
from tests.evaluation import official_files  # noqa: E402


def records(config, folder, out, dev_size=0):
    config.data = str(folder)
    for fields in config.tasks.values():
        fields.dev_size = dev_size
    number = build(config, out)
    found = list(JsonLines(out))
    assert len(found) == number
    return found


def test_a_question_is_read_and_its_answer_is_learnt(tmp_path):
    expected = official_files.vqav2(tmp_path)
    found = records(vqav2.get_config(), tmp_path, tmp_path / 'train.jsonl')
    assert len(found) == 8 and expected.example in [(b''.join(r['texts'])).decode() for r in found]
    for record in found:
        assert record['weights'] == [1.0, 0.0, 1.0] and record['images'][0].is_file()
        assert record['texts'][1].endswith(b' Answer:') and record['texts'][2].startswith(b' thing ')
    other = records(vqav2.get_config('open_flamingo'), tmp_path, tmp_path / 'other.jsonl')
    assert other[0]['texts'][1:] == [b'Question:What is 0 in 1? Short answer:', b'perhaps']


def test_what_is_tuned_on_is_not_learnt(tmp_path):
    official_files.vqav2(tmp_path)
    every = records(vqav2.get_config(), tmp_path, tmp_path / 'every.jsonl')
    (task,) = vqav2.get_config().tasks.to_dict().values()
    benchmark = VQAv2(**{key: value for key, value in task.items() if key != 'asks'} | dict(dev_size=2))
    asked, _ = benchmark.divided(list(benchmark.read(tmp_path, benchmark.support_split)))
    shown = {item.file.name for item in asked}
    found = records(vqav2.get_config(), tmp_path, tmp_path / 'train.jsonl', dev_size=2)
    left = [record['images'][0].name for record in found]
    assert left == [name for record in every if (name := record['images'][0].name) not in shown] and len(shown) == 2
    with pytest.raises(ValueError, match='has no others. Set --config.tasks.vqav2.dev_size=0'):
        records(vqav2.get_config(), tmp_path, tmp_path / 'train.jsonl', dev_size=1024)


def test_every_caption_is_learnt(tmp_path):
    official_files.coco(tmp_path)
    found = records(coco.get_config(), tmp_path, tmp_path / 'train.jsonl')
    assert len(found) == 2 * 6 and found[0]['texts'][2] == b' A train image, number 1.'


def test_whole_videos_only(tmp_path):
    pytest.importorskip('av')
    official_files.vatex(tmp_path / 'vatex')
    found = records(vatex.get_config(), tmp_path / 'vatex', tmp_path / 'vatex/train.jsonl')
    assert len(found) == 8 and found[0]['images'][0].suffix == '.mp4'
    gone, empty, cut, *whole = sorted((tmp_path / 'vatex/videos').glob('trai-*.mp4'))
    gone.unlink()
    empty.write_bytes(b'')
    cut.write_bytes(cut.read_bytes()[:30])
    left = records(vatex.get_config(), tmp_path / 'vatex', tmp_path / 'vatex/train.jsonl')
    assert {record['images'][0] for record in left} == {*whole} and len(whole) == 1  # Videos vanish from YouTube.
    with pytest.raises(ValueError, match='is not below'):
        records(vatex.get_config(), tmp_path / 'vatex', tmp_path / 'vatex/videos/deeper/train.jsonl')
    official_files.star(tmp_path / 'star')
    with pytest.raises(ValueError, match='about a part of .*6H781.mp4'):
        records(star.get_config(), tmp_path / 'star', tmp_path / 'star/train.jsonl')
