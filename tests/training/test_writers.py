"""The writers of metrics: those of the package, and one of a user's own."""

import csv
import sys

import pytest

from flamingo_jax.errors import MissingPackageError
from flamingo_jax.train import train
from flamingo_jax.training.tensorboard import TensorBoard
from flamingo_jax.training.writers import Csv
from tests.tiny_run import losses, tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')


class Kept:
    """A writer of one's own, as small as one can be."""

    def __init__(self):
        self.steps, self.closed = {}, 0

    def write(self, step, scalars):
        assert not self.closed
        self.steps[step] = dict(scalars)

    def close(self):
        self.closed += 1


def test_own_writers_get_what_tensorboard_gets(parts, tmp_path):
    config = tiny_config(parts)
    del config.datasets.names  # One data set is enough.
    config.steps, config.log_every = 3, 2
    kept, run = Kept(), tmp_path / 'run'
    last = train(config, run, writers=[TensorBoard(run), kept, Csv(tmp_path / 'metrics.csv')])
    assert kept.closed == 1 and list(kept.steps) == [2, 3] and kept.steps[3] == last
    for name in ('loss', 'words/accuracy', 'speed/tokens_per_second'):
        assert dict(losses(run, name)) == pytest.approx({step: kept.steps[step][name] for step in (2, 3)})
    with open(tmp_path / 'metrics.csv') as file:
        lines = list(csv.DictReader(file))
    assert {(int(line['step']), line['name'], float(line['value'])) for line in lines} == {
        (step, name, value) for step, values in kept.steps.items() for name, value in values.items()
    }
    # Every array of the model, and how many parameters it has.
    table = (run / 'parameters.txt').read_text()
    assert '| trained/resampler/latents ' in table and '| frozen/lm/embedder/tokens ' in table


class Full(Kept):
    """A writer that fails."""

    def write(self, step, scalars):
        raise OSError('no room')


def test_writers_are_closed_after_an_error(parts, tmp_path):
    config = tiny_config(parts)
    del config.datasets.names
    config.steps, config.log_every, config.checkpoint_every = 3, 1, 100
    kept, full = Kept(), Full()
    with pytest.raises(OSError, match='no room'):
        train(config, tmp_path / 'run', writers=[kept, full])
    assert kept.closed == full.closed == 1 and list(kept.steps) == [1, 2]
    assert not list((tmp_path / 'run').glob('events*'))  # Nobody asked for them.


def test_a_csv_file_is_continued(tmp_path):
    for step in (1, 2):
        writer = Csv(tmp_path / 'new' / 'metrics.csv')
        writer.write(step, dict(loss=0.5))
        writer.close()
    lines = (tmp_path / 'new' / 'metrics.csv').read_text().splitlines()
    assert lines[0] == 'wall_time,step,name,value' and [line.split(',')[1] for line in lines[1:]] == ['1', '2']


def test_training_without_tensorboard_names_the_extra_before_any_work(parts, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, 'flamingo_jax.training.tensorboard')
    monkeypatch.setitem(sys.modules, 'tensorboard.compat.proto.event_pb2', None)
    with pytest.raises(MissingPackageError, match=r"pip install 'flamingo_jax\[tensorboard\]'"):
        train(tiny_config(parts), tmp_path / 'run')
    assert not (tmp_path / 'run/run.json').exists()
