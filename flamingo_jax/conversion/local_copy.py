"""The files of another project, on this machine."""

import re

from flamingo_jax.files import as_path, download, find, in_bucket, local, whole
from flamingo_jax.hub import fetched


def local_copy(path: str) -> str:
    """The path of a copy on this machine, if the files of another project are in a bucket or on the Hub.

    With a file comes what its reader looks for beside it: other shards, and what open_clip says of it.
    """
    path = str(fetched(path))
    if not in_bucket(path):
        return path
    here = local(as_path(path))
    folder, _, name = path.rpartition('/')
    shards = re.sub(r'-\d{5}-of-', '-?????-of-', name)
    for pattern in [shards, 'open_clip_config.json'] if here.is_file() else ():
        for file in find(f'{folder}/{pattern}'):
            if not (there := here.parent / file.rpartition('/')[2]).exists():
                with whole(there) as aside:
                    download(file, aside)
    return str(here)
