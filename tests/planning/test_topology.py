import pytest

from flamingo_jax.planning.topology import CHIPS, parse, peak_flops


@pytest.mark.parametrize(
    'name, kind, shape, chips',
    [
        ('v4:8x12x16', 'v4', (8, 12, 16), 1536),
        ('v5e-16', 'v5e', (4, 4), 16),
        ('v6e:16x16', 'v6e', (16, 16), 256),
        ('v5p-16', 'v5p', (2, 2, 2), 8),  # The cloud counts cores, two a chip.
        ('v5p-128', 'v5p', (4, 4, 4), 64),
        ('tpu7x-8', 'tpu7x', (2, 2, 1), 8),  # JAX has a device for each core.
        ('h100:8', 'h100', (8,), 8),
        ('cpu:8', 'cpu', (8,), 8),
    ],
)
def test_names_of_machines(name, kind, shape, chips):
    topology = parse(name)
    assert (topology.kind, topology.shape, topology.chips) == (kind, shape, chips)
    assert topology.chip is CHIPS[kind] and topology.name == name


def test_slices_multiply():
    assert parse('v5e:16x16', 4).chips == 1024


@pytest.mark.parametrize(
    'name', ['v4', 'v9:2x2', 'v4:8x8', 'v4-17', 'v5e-17', 'h100-8', 'v5e:0x4', 'cpu:2x2', 'v4:8x8x8x8', '']
)
def test_an_unknown_machine_says_what_there_is(name):
    with pytest.raises(ValueError, match=f'{name!r}'):
        parse(name)
    with pytest.raises(ValueError, match='slices'):
        parse('cpu:8', 2)


def test_cpu_devices_are_those_of_this_process():
    assert len(parse('cpu:4').devices()) == 4
    with pytest.raises(ValueError, match='cpu:64 needs 64 CPU devices, but this process already has 8'):
        parse('cpu:64').devices()


@pytest.mark.parametrize(
    'kind, peak',
    [
        ('TPU v4', 275e12),
        ('TPU v5 lite', 197e12),
        ('TPU v5', 459e12),
        ('TPU v6 lite', 918e12),
        ('NVIDIA H100 80GB HBM3', 989e12),
        ('NVIDIA A100-SXM4-80GB', 312e12),
        ('NVIDIA H200', 989e12),
        ('NVIDIA H100 PCIe', 756e12),
        ('NVIDIA L40S', 362e12),
        ('NVIDIA L4', 121e12),
        ('TPU7x', 1153.5e12),
        ('NVIDIA A10', 125e12),
        ('Tesla T4', None),
        ('cpu', None),
    ],
)
def test_the_peak_of_a_device(kind, peak):
    assert peak_flops(kind) == peak


def test_a_shape_that_is_not_made_is_refused_with_what_is():
    pytest.importorskip('libtpu')
    with pytest.raises(ValueError, match='v5e:3x5. Give a slice that is made, such as v5e:4x4'):
        parse('v5e:3x5').devices()


def test_a_chip_of_several_devices():
    pytest.importorskip('libtpu')
    topology = parse('tpu7x:2x2x2')
    assert len(topology.devices()) == topology.chips == 16
