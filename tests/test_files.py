import resource

import pytest

from flamingo_jax.files import write_whole


def test_a_file_has_the_old_content_or_the_new(tmp_path):
    path = tmp_path / 'report.json'
    assert write_whole(path, b'old') == path
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # As a disk with room for so many bytes.
    try:
        with pytest.raises(OSError):
            write_whole(path, b'new' * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]
    write_whole(path, b'new')
    assert path.read_bytes() == b'new' and list(tmp_path.iterdir()) == [path]
