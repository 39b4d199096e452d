"""The Cauldron, FineVision and chats, in their published shapes, and data sets that `datasets` saved on disk."""

import base64
import json

import pyarrow
import pyarrow.parquet
import pytest

from data.instructions import build as instructions
from flamingo_jax.building.document import Document
from flamingo_jax.building.readers.folder import ImageFolder
from tests.building.readers.published import encoded_image

FIRST, SECOND = encoded_image(1), encoded_image(2)
# FineVision has ratings beside these two; The Cauldron has them alone.
ROWS = [
    dict(
        images=[dict(bytes=FIRST, path=None), dict(bytes=SECOND, path=None)],
        texts=[
            dict(user='What is it?', assistant='A cat.', source='a'),
            dict(user='And here?', assistant='A dog.', source='a'),
        ],
        relevance_ratings=[5, 5],
    ),
    dict(
        images=[dict(bytes=b'no', path=None)],
        texts=[dict(user='What?', assistant='That.', source='a')],
        relevance_ratings=[1],
    ),
]


def read(path, folder=None):
    made = list(instructions.read(str(path), path.name, ImageFolder(str(folder) if folder else None)))
    return [one for one in made if isinstance(one, Document)], [one for one in made if not isinstance(one, Document)]


def parts(document: Document) -> list:
    return [text or image for text, image in zip(document.texts, document.images, strict=True)]


@pytest.mark.parametrize('form', ['parquet', 'stream', 'file'])
def test_the_cauldron_and_finevision(tmp_path, form):
    table, path = pyarrow.Table.from_pylist(ROWS), tmp_path / ('a.parquet' if form == 'parquet' else 'a.arrow')
    if form == 'parquet':
        pyarrow.parquet.write_table(table, path)
    else:
        with (pyarrow.ipc.new_stream if form == 'stream' else pyarrow.ipc.new_file)(str(path), table.schema) as writer:
            writer.write_table(table)
    [document], dropped = read(path)
    assert parts(document) == [
        FIRST, SECOND, ' Question: What is it? Answer:', ' A cat.', ' Question: And here? Answer:', ' A dog.',
    ]  # fmt: skip
    assert [one.rule for one in dropped] == ['image_unreadable', 'document_without_image']


def test_a_damaged_file_of_arrow_gives_its_beginning(tmp_path):
    table, path = pyarrow.Table.from_pylist(ROWS[:1]), tmp_path / 'a.arrow'
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        for _ in range(3):
            writer.write_table(table)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
    documents, dropped = read(path)
    assert len(documents) in (1, 2) and [one.rule for one in dropped] == ['arrow_damaged']


def test_messages_show_images_where_their_parts_are(tmp_path):
    (tmp_path / 'a.png').write_bytes(FIRST)
    inside = 'data:image/png;base64,' + base64.b64encode(SECOND).decode()
    show = [
        dict(type='image', image='a.png'),
        dict(type='text', text='Compare it, not <image>, with'),
        dict(type='image_url', image_url=dict(url=inside)),
    ]
    chat = [
        dict(role='system', content='Be brief.'),
        dict(role='user', content=show),
        dict(role='assistant', content=[dict(type='text', text='They differ.')]),
        dict(role='user', content='Why?'),
    ]
    by_order = [dict(role='user', content=[dict(type='image'), dict(type='text', text='What?')])]
    rows = [
        dict(messages=chat),
        dict(messages=[*by_order, dict(role='assistant', content='That.')], images=['a.png']),
        dict(messages=[*by_order, dict(role='assistant', content='That.')]),
    ]
    path = tmp_path / 'a.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    (first, second), dropped = read(path, tmp_path)
    assert parts(first) == [
        'Be brief.', FIRST, ' Question: Compare it, not < image>, with', SECOND, ' Answer:', ' They differ.',
    ]  # fmt: skip
    assert parts(second) == [FIRST, ' Question: What? Answer:', ' That.']
    assert [(one.rule, one.excerpt[:4]) for one in dropped] == [
        ('question_without_answer', 'Why?'), ('document_malformed', 'User'),
    ]  # fmt: skip
