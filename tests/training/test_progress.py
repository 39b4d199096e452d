import gzip
import json

import pytest

from flamingo_jax.train import train
from flamingo_jax.training.progress import Profile, mfu, peak_flops
from tests.tiny_run import make_parts, tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.mark.parametrize(
    'kind, peak',
    [
        ('TPU v4', 275e12),
        ('TPU v5 lite', 197e12),
        ('TPU v5', 459e12),
        ('TPU v6 lite', 918e12),
        ('NVIDIA H100 80GB HBM3', 989e12),
        ('NVIDIA H100 PCIe', 756e12),
        ('NVIDIA A100-SXM4-80GB', 312e12),
        ('NVIDIA H200', 989e12),
        ('cpu', None),
    ],
)
def test_the_peak_of_a_device(kind, peak):
    assert peak_flops(kind) == peak


def test_no_share_of_a_peak_that_is_not_known():
    assert mfu(1e12, 1.0) is None


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
