"""Whatever bytes a file holds, a reader ends, and gives documents and what it dropped."""

import numpy as np
import pytest

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.folder import ImageFolder, make_index
from flamingo_jax.building.texts import MARKS
from tests.building.readers.published import SETS
from tests.mutations import NUMBERS, damaged


@pytest.mark.parametrize('number', [20, *NUMBERS])
@pytest.mark.parametrize('name', SETS)
def test_damaged_files(name, number, tmp_path):
    rng = np.random.default_rng(0)
    written = SETS[name](tmp_path)
    index, whole = str(tmp_path / 'index'), written.path.read_bytes()
    if written.images:
        make_index(str(written.images), index)
    images = ImageFolder(str(written.images), index) if written.images else ImageFolder()
    kept = dropped = 0
    for i in range(number):
        data = damaged(whole, rng)
        written.path.write_bytes(data)
        try:
            made = list(written.read(str(written.path), 'file', images))
        except BaseException:
            (tmp_path / f'failed-{i}').write_bytes(data)
            raise
        for one in made:
            if isinstance(one, Document):
                kept += 1
                assert not any(MARKS.search(text) for text in one.texts)
                '\n'.join([*one.texts, one.id, one.url]).encode()
            else:
                dropped += 1
                assert isinstance(one, Dropped) and one.rule
                one.line().encode()
    assert kept + dropped > number / 2 and (number < 1000 or min(kept, dropped) > number / 200)
