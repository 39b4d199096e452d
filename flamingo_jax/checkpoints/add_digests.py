"""Adds digests to what was written before there were any."""

from flamingo_jax.checkpoints import bundle
from flamingo_jax.errors import UserError
from flamingo_jax.files import as_path, local
from flamingo_jax.inputs.sources.features import REMEDY
from flamingo_jax.parallel import digests


def add_digests(source: str) -> None:
    """Writes the digests of a bundle or of a folder of features that has none (`parallel/digests.py`).

    Raises:
      FileNotFoundError: there is neither.
      ValueError: a tree of the bundle differs from its checksum, or a file from the digest that there is.
    """
    folder = as_path(source)
    splits = [file.name.removesuffix('.json') for file in sorted(folder.glob('*.json'))] if folder.is_dir() else []
    if splits := [split for split in splits if (folder / f'{split}.npy').is_file()]:
        for split in splits:
            if (file := folder / f'{split}.{digests.FILE}').exists():
                digests.verify(file, REMEDY, at=local)
                continue
            names = [name for name in (f'{split}.npy', f'{split}.begins.npy') if (folder / name).is_file()]
            digests.write(file, digests.of_files({name: local(folder / name) for name in names}))
        return
    found = bundle.read(source)
    for name, checksum in found.checksums.items():
        if (folder / 'params' / name).is_dir() and bundle.checksum(found.params(name)) != checksum:
            raise UserError(f'{folder / "params" / name} differs from its checksum in config.json. {bundle.AGAIN}')
    digests.write(folder / digests.FILE, digests.of_folder(folder, 'params/'))
