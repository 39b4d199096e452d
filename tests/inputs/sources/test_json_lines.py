"""One's own documents, from the file to training sequences."""

import json
import pickle
import unicodedata

import numpy as np
import PIL.Image
import pytest

from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.pipeline import rows
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.inputs.sources.json_lines import JsonLines

LINES = [
    ['a title', {'image': 'pets/a.png'}, ' dax', {'image': 'pets/b.jpg'}, {'text': ' wug', 'weight': 0.5}],
    [{'image': 'damaged.png'}, {'text': 'Question:', 'weight': 0}, ' zup\u00e9'],
]


@pytest.fixture
def folder(tmp_path):
    """Three images, of which one is damaged, and two documents with an empty line between them."""
    (tmp_path / 'pets').mkdir()
    for name, value in (('pets/a.png', 200), ('pets/b.jpg', 90)):
        PIL.Image.fromarray(np.full((20, 20, 3), value, np.uint8)).save(tmp_path / name)
    (tmp_path / 'damaged.png').write_bytes(b'no image')
    (tmp_path / 'own.jsonl').write_text('\n\n'.join(map(json.dumps, LINES)))
    return tmp_path


def test_records_name_their_images(folder):
    records = pickle.loads(pickle.dumps(JsonLines(folder / 'own.jsonl')))  # As a worker gets them.
    assert len(records) == 2
    images = [folder / 'pets/a.png', folder / 'pets/b.jpg']
    assert records[0] == dict(
        texts=[b'a title', b'', b' dax', b'', b' wug'],
        images=[b'', images[0], b'', images[1], b''],
        weights=[1.0, 1.0, 1.0, 1.0, 0.5],
    )
    assert records[1]['texts'] == [b'', b'Question:', ' zup\u00e9'.encode()]
    assert records[1]['weights'] == [1.0, 0, 1.0]


def test_documents_become_sequences_and_damaged_images_are_counted(folder, tokenizer):
    config = Documents(path=str(folder / 'own.jsonl'), length=60, images=2, batch_size=2)
    every = rows(config, tokenizer, ImageFormat(8), 0)
    both = {int(row.unreadable): row for row in (every[0], every[1])}
    whole, damaged = both[0], both[1]
    text = tokenizer.decode(whole.tokens[: whole.used])
    assert text.startswith('a title<EOC><image> dax<EOC><image> wug<EOC>')
    assert [int(value) for value in whole.images[:, 0, 4, 4, 0]] == [200, 90]
    assert set(whole.weights) == {0.0, 0.5, 1.0}
    assert not damaged.images.any() and not damaged.phi.any()


@pytest.mark.parametrize('written, stored', [('NFC', 'NFD'), ('NFD', 'NFC')])
def test_a_name_with_accents_is_found_in_either_form(folder, written, stored):
    """Of a Mac, where the accent is a character of its own, and of other systems."""
    image = folder / unicodedata.normalize(stored, 'mèo.png')
    PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(image)
    name = unicodedata.normalize(written, 'mèo.png')
    (folder / 'cat.jsonl').write_text(json.dumps([{'image': name}, ' con mèo', {'video': [name]}, ' con mèo']))
    [record] = JsonLines(folder / 'cat.jsonl')
    assert record['images'] == [image, b'', [image], b'']


def refused(folder, line, error=ValueError):
    (folder / 'bad.jsonl').write_bytes(b'["fine"]\n' + (line if isinstance(line, bytes) else json.dumps(line).encode()))
    with pytest.raises(error) as caught:
        JsonLines(folder / 'bad.jsonl')
    message = str(caught.value)
    assert message.startswith(f'{folder / "bad.jsonl"}, line 2')
    return message


@pytest.mark.parametrize(
    'line, says',
    [
        (b'["a", ', 'is not JSON'),
        (b'["\xff"]', 'is not JSON'),
        (b'[' * 100_000, 'is not JSON'),
        ({'texts': ['a']}, 'is an object, not a list. A line is'),
        ([], 'nothing to learn'),
        ([{'image': 'pets/a.png'}], 'nothing to learn'),
        (['', {'text': 'a', 'weight': 0}], 'nothing to learn'),
        (['a', 3], 'part 2 is a number'),
        (['a', ['b']], 'part 2 is a list'),
        ([{'photo': 'pets/a.png'}], "part 1 has the keys ['photo']"),
        ([{'image': 'pets/a.png', 'weight': 1}], "has the keys ['image', 'weight']"),
        ([{'image': 'pets/a.png', 'text': 'a'}], "has the keys ['image', 'text']"),
        ([{'text': 7}], 'its "text" is a number'),
        (['a', {'text': 'b', 'weight': -1}], 'its "weight" is -1'),
        (b'[{"text": "a", "weight": NaN}]', 'its "weight" is nan'),
        (['a', {'text': 'b', 'weight': 10**400}], 'It must be a number from 0 to 1,000,000.'),
        (['a', {'text': 'b', 'weight': 1e39}], 'its "weight" is 1e+39'),
        ([{'text': 'a', 'weight': True}], 'its "weight" is True'),
        (['<image> a'], 'Replace it by a part {"image": ...}'),
        (b'["\\ud800"]', 'is not valid UTF-8'),
        (['a', {'image': 3}], 'its image is a number'),
        (['a', {'image': ''}], 'its image is empty'),
        (['a', {'video': []}], 'its image is a list'),
        (['a', {'image': ['pets/a.png']}], 'its image is a list'),
        (['a', {'video': ['pets/a.png', 3]}], 'its image is a number'),
        (['a', {'image': '../own.jsonl'}], 'is outside'),
        (['a', {'image': '/etc/hostname'}], 'is outside'),
    ],
)
def test_a_line_that_is_no_document_is_named(folder, line, says):
    assert says in refused(folder, line)


def test_what_is_missing_is_named(folder):
    message = refused(folder, ['a', {'image': 'pets/c.png'}], FileNotFoundError)
    assert "part 2: the image 'pets/c.png' is not in" in message
    (folder / 'empty.jsonl').write_text('\n\n')
    with pytest.raises(ValueError, match='empty.jsonl has no documents. A line is'):
        JsonLines(folder / 'empty.jsonl')
    with pytest.raises(FileNotFoundError, match='no file .*nowhere.jsonl'):
        JsonLines(folder / 'nowhere.jsonl')
