import errno
import os
import resource
import types

import pytest

from flamingo_jax import files
from flamingo_jax.files import persist, read_bytes, read_part, write_whole


@pytest.fixture
def waits(monkeypatch):
    """The waits of `persist`, which do not take their time."""
    seconds = []
    monkeypatch.setattr(files, 'time', types.SimpleNamespace(sleep=seconds.append))
    return seconds


def failing(*errors):
    """A call that raises these, one after the other, and then returns."""
    left = list(errors)

    def call():
        if left:
            raise left.pop(0)
        return 'content'

    return call


PASSING = [
    OSError(errno.EIO, 'Input/output error'),
    OSError(errno.ESTALE, 'Stale file handle'),
    OSError(errno.EMFILE, 'Too many open files'),
    ConnectionResetError(errno.ECONNRESET, 'Connection reset by peer'),
    TimeoutError(),
]


@pytest.mark.parametrize('error', PASSING, ids=repr)
def test_what_passes_is_tried_again(error, waits):
    assert persist(failing(error, error), '/disk/a.png') == 'content' and waits == [0.5, 2.0]
    waits.clear()
    with pytest.raises(OSError) as raised:
        persist(failing(*4 * [error]), '/disk/a.png')
    assert waits == [0.5, 2.0, 8.0]
    assert raised.value.errno == (error.errno or errno.ETIMEDOUT) and raised.value.filename == '/disk/a.png'


@pytest.mark.parametrize(
    'error', [FileNotFoundError(errno.ENOENT, 'x'), PermissionError(errno.EACCES, 'x'), MemoryError(), ValueError('x')]
)
def test_what_does_not_pass_is_told_at_once(error, waits):
    with pytest.raises(type(error)):
        persist(failing(error), '/disk/a.png')
    assert not waits


def test_of_a_bucket_everything_may_pass_but_that_there_is_nothing(waits):
    class Cut(Exception):
        """As clients of buckets have them."""

    assert persist(failing(Cut('half of it'), OSError('no number')), 'gs://b/a') == 'content' and waits == [0.5, 2.0]
    with pytest.raises(OSError, match=r'Errno 5. Cut: half of it: .gs://b/a'):
        persist(failing(*4 * [Cut('half of it')]), 'gs://b/a')
    waits.clear()
    with pytest.raises(FileNotFoundError, match='b/a'):
        persist(failing(FileNotFoundError('b/a')), 'gs://b/a')
    assert not waits


def test_a_file_on_a_disk_that_fails(tmp_path, waits):
    """The first bytes of a process's memory are no memory, and reading them is EIO."""
    (tmp_path / 'a.png').symlink_to('/proc/self/mem')
    for read in (read_bytes, lambda path: read_part(path, 0, 10)):
        with pytest.raises(OSError, match=r'Errno 5.*a\.png'):
            read(tmp_path / 'a.png')
    assert len(waits) == 6


def test_a_part_of_a_file_is_whole_or_an_error(tmp_path, waits):
    (tmp_path / 'a').write_bytes(bytes(range(100)))
    assert read_part(tmp_path / 'a', 20, 30) == bytes(range(20, 50))
    with pytest.raises(OSError, match=r'Errno 5. The file ends before byte 110: .*a'):
        read_part(tmp_path / 'a', 90, 20)


def test_without_free_file_handles(tmp_path, waits):
    (tmp_path / 'a.png').write_bytes(b'content')
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened, hard))
    try:
        with pytest.raises(OSError, match=r'Errno 24.*a\.png'):
            read_bytes(tmp_path / 'a.png')
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(opened)
    assert read_bytes(tmp_path / 'a.png') == b'content'


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
