"""A .json file of instructions: a list is LLaVA's, an object is MIMIC-IT's."""

from collections.abc import Iterator

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers import llava, mimic_it
from flamingo_jax.building.readers.folder import Pictures


def read(path: str, name: str, pictures: Pictures) -> Iterator[Document | Dropped]:
    """The documents of a file of either kind."""
    with open(path, 'rb') as file:
        is_list = file.read(1000).lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'[')
    yield from (llava if is_list else mimic_it).read(path, name, pictures)
