import gzip
import json
import shutil

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from flamingo_jax.checkpoints.run_format import read_latest
from flamingo_jax.train import train
from flamingo_jax.training.progress import Profile
from tests.tiny_run import tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.mark.parametrize('steps', [(3,), (0, 2), (5, 4)])
def test_a_profile_is_two_steps(steps, tmp_path):
    with pytest.raises(ValueError, match='config.profile is'):
        Profile(steps, tmp_path)


@pytest.mark.long
def test_a_trace_holds_the_steps_that_were_asked_for(parts, tmp_path):
    config = tiny_config(parts)
    del config.datasets.names  # One data set is enough.
    config.steps, config.profile = 4, (2, 3)
    metrics = train(config, tmp_path / 'run')
    assert 'speed/mfu' not in metrics
    (folder,) = (tmp_path / 'run/plugins/profile').iterdir()
    assert list(folder.glob('*.xplane.pb'))  # TensorBoard's.
    trace = json.loads(gzip.decompress((folder / 'perfetto_trace.json.gz').read_bytes()))
    steps = {event['args']['step_num'] for event in trace['traceEvents'] if event.get('name') == 'train'}
    assert steps == {'2', '3'}


@pytest.mark.long
def test_data_sets_in_turn(parts, tmp_path):
    """The ablation of accumulation (paper table 3, row ii): each step is of one data set, after a stop too."""
    config, compiled = tiny_config(parts), []
    # What both steps compute is then the same, and compiled for the first alone.
    config.datasets.names.update(features=config.datasets.words.features, loss_weight=1.0)
    config.round_robin, config.steps, config.checkpoint_every, config.log_every = True, 5, 3, 5

    def listen(event, seconds, **of):
        if 'backend_compile' in event and of.get('fun_name') == 'jit(step)':
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    metrics = train(config, tmp_path / 'whole')
    jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) == 2  # One program a data set, be it found in the cache.
    # The mean over its own steps for each data set, over all for the whole.
    assert metrics['loss'] == pytest.approx((2 * metrics['words/loss'] + 3 * metrics['names/loss']) / 5, rel=1e-5)
    shutil.copytree(tmp_path / 'whole/checkpoints/3', tmp_path / 'resumed/checkpoints/3')
    train(config, tmp_path / 'resumed')
    (_, whole, _), (_, resumed, _) = read_latest(tmp_path / 'whole'), read_latest(tmp_path / 'resumed')
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    assert ocp.metadata(tmp_path / 'resumed/checkpoints/5').custom_metadata['data'] == dict(words=2, names=3)
