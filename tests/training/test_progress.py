import gzip
import json

import pytest

from flamingo_jax.train import train
from flamingo_jax.training.progress import Profile
from tests.tiny_run import make_parts, tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.mark.parametrize('steps', [(3,), (0, 2), (5, 4)])
def test_a_profile_is_two_steps(steps, tmp_path):
    with pytest.raises(ValueError, match='config.profile is'):
        Profile(steps, str(tmp_path))


def test_a_trace_holds_the_steps_that_were_asked_for(tmp_path):
    make_parts(tmp_path)
    config = tiny_config(tmp_path)
    del config.datasets.names  # One data set is enough.
    config.steps, config.profile = 4, (2, 3)
    metrics = train(config, str(tmp_path / 'run'))
    assert 'speed/mfu' not in metrics
    (folder,) = (tmp_path / 'run/plugins/profile').iterdir()
    assert list(folder.glob('*.xplane.pb'))  # TensorBoard's.
    trace = json.loads(gzip.decompress((folder / 'perfetto_trace.json.gz').read_bytes()))
    steps = {event['args']['step_num'] for event in trace['traceEvents'] if event.get('name') == 'train'}
    assert steps == {'2', '3'}
