"""The mesh of `generate`, as its flag says it."""

import pytest

from flamingo_jax.generate import mesh_of


def test_a_mesh_is_three_numbers():
    assert mesh_of([]) is None
    assert dict(mesh_of(['-1', '2', '2']).shape) == dict(data=2, fsdp=2, tensor=2)
    for wrong in (['2', '2'], ['a', '1', '1'], ['1.5', '1', '1']):
        with pytest.raises(ValueError, match='--mesh is data,fsdp,tensor, three numbers'):
            mesh_of(wrong)
    with pytest.raises(ValueError, match='does not fit 8 devices'):
        mesh_of(['3', '1', '1'])
