"""Models on the Hugging Face Hub: hf://OWNER/NAME[@REVISION][/FOLDER_OR_FILE], read from its cache on this machine.

What is missing there is downloaded once, and goes on where it was cut off. `huggingface_hub` reads its own variables:
HF_TOKEN for what is private, HF_HOME for the cache, HF_HUB_OFFLINE for no network, HF_ENDPOINT for another server.
"""

import functools
import os
import pathlib
import re
from typing import NamedTuple

from flamingo_jax.errors import UserError

SCHEME = 'hf://'
# The same weights in other forms: not read, if there are safetensors.
OTHER_FORMS = ('*.bin', '*.pt', '*.pth', '*.h5', '*.msgpack', '*.onnx', '*.gguf', 'original/*')
FORM = 'hf://OWNER/NAME[@REVISION][/FOLDER_OR_FILE]'


class Place(NamedTuple):
    """What a path on the Hub names."""

    repository: str  # OWNER/NAME.
    revision: str | None  # A branch, a tag or a commit; None: its main branch.
    inside: str  # A file or folder; '' is the whole.


def on_hub(path: str | os.PathLike[str]) -> bool:
    """Whether a path begins with hf://."""
    return os.fspath(path).startswith(SCHEME)


def parse(path: str) -> Place:
    """The parts of a path on the Hub. ValueError if it is none."""
    part = r'[\w.-]+'
    found = re.fullmatch(rf'hf://({part}/{part})(?:@([^/@]+))?(?:/(.*?))?/*', path)
    if not found or '..' in (found[3] or '').split('/'):
        raise UserError(f'{path} is not of the form {FORM}.')
    revision = found[2] and found[2].replace('%2F', '/')
    return Place(found[1], revision, found[3] or '')


@functools.lru_cache
def fetched(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The path on this machine of what a path names: what is on the Hub is downloaded, any other path stays.

    Raises:
      ValueError: the path has another form; there is no such repository, revision or file, or no right to it; or the
        Hub cannot be reached and not all of it is in the cache. The message names the remedy.
    """
    if not on_hub(path):
        return path
    path = os.fspath(path)
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    place = parse(path)
    repository, revision, inside = place
    # With a file come its other shards, and what open_clip says of it.
    shards = re.sub(r'-\d{5}-of-', '-?????-of-', inside)
    beside = f'{inside.rpartition("/")[0]}/open_clip_config.json'.lstrip('/')
    wanted: list[str] | None = [shards, f'{inside}/*', beside] if inside else None
    try:
        files = [] if constants.HF_HUB_OFFLINE else HfApi().list_repo_files(repository, revision=revision)
        has_safetensors = any(file.endswith('.safetensors') for file in files)
        spare: list[str] | None = list(OTHER_FORMS) if has_safetensors and not inside else None
        folder = snapshot_download(repository, revision=revision, allow_patterns=wanted, ignore_patterns=spare)
    except errors.GatedRepoError as error:
        raise UserError(f'{repository} wants its terms accepted: on its page, with the account of HF_TOKEN.') from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f'The Hub has no {repository}, or it is private. Check its name, or set HF_TOKEN.') from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f'{repository} has no revision {revision!r}. Give a branch, a tag or a commit.') from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError, OSError) as error:
        said = str(error).strip().partition('\n')[0]
        raise UserError(
            f'{path} could not be read: {said} What is in the cache stays; the same command goes on from there.'
        ) from error
    if not (here := pathlib.Path(folder) / inside).exists():
        raise UserError(f'{repository} has no {inside!r}. It has {", ".join(sorted(files)[:20]) or "nothing"}.')
    return str(here)


def origin(path: str) -> str:
    """OWNER/NAME and the commit of a path on the Hub that was fetched, for a model card; '' for any other path."""
    if not on_hub(path):
        return ''
    commit = re.search(r'/snapshots/(\w+)', os.fspath(fetched(path)))
    return f'{parse(path).repository} (revision {commit[1] if commit else "unknown"})'


def push(folder: str, path: str) -> str:
    """Uploads a bundle with its card. The repository is made if there is none, and is then private.

    Args:
      folder: a bundle on this machine.
      path: where it comes, hf://OWNER/NAME[@REVISION][/FOLDER].

    Returns:
      The commit's address.

    Raises:
      ValueError: the path has another form, or the Hub refuses it; the message names the remedy.
    """
    from huggingface_hub import HfApi, errors

    repository, revision, inside = parse(path)
    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        made = api.upload_folder(
            repo_id=repository, folder_path=folder, path_in_repo=inside or None, revision=revision,
            commit_message=f'Bundle of flamingo_jax: {pathlib.Path(folder).name}',
        )  # fmt: skip
    except errors.HfHubHTTPError as error:
        said = str(error).strip().partition('\n')[0]
        raise UserError(
            f'{folder} could not be pushed to {path}: {said} HF_TOKEN needs the right to write there; a branch must '
            'exist.'
        ) from error
    return made.commit_url
