"""From the files of a published set to the rows of a batch."""

import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from data.films.build import Videos
from data.instructions.build import Instructions
from data.mmc4.build import Mmc4
from data.obelics.build import Obelics
from data.pairs.build import Pairs
from flamingo_jax.building import write
from flamingo_jax.building.duplicates import index_benchmarks
from flamingo_jax.building.readers.media_files import READABLE
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.pipeline import rows
from flamingo_jax.inputs.prompts import chat, encode
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.inputs.sources.documents import Documents
from flamingo_jax.inputs.tokenizer import Tokenizer
from tests.building.readers import published
from tests.building.readers.published import SETS
from tests.building.web import encoded_image

ROOT = pathlib.Path(__file__).parents[3]
SMOLLM = ROOT / 'experiments/smollm_bridge'  # Its tokenizer has the marks of a chat.


def built(builder, tmp_path, *names, **how):
    """The data set of several written sets, which lie in folders of their own."""
    for name in names:
        (tmp_path / f'raw/{name}').mkdir(parents=True)
        written = SETS[name](tmp_path / f'raw/{name}')
    images = str(written.images or '')
    source = str(tmp_path / f'raw/**/*{written.path.suffix}')
    return write.build(builder, str(tmp_path / 'out'), source=source, images=images, **how)


def texts(folder, tokenizer, number=8, **fields):
    every = rows(Documents(path=str(folder), length=128, batch_size=1, **fields), tokenizer, ImageFormat(8), 0)
    return [(tokenizer.decode(every[i].tokens[: every[i].used]), every[i]) for i in range(number)]


@pytest.mark.parametrize(
    'builder, name, fields, expected',
    [
        (Obelics, 'obelics', {}, '<image><EOC><image>After the error.<EOC>'),
        (Mmc4, 'mmc4', {}, '<image>Lock it. Press < image> it. Then go.<EOC>'),
        (Pairs, 'pairs', dict(images=1, space=1.0), '<image> A dog.<EOC>'),
        (Videos, 'videos', dict(images=1, frames=8), '<image>It gets bright.<EOC>'),
        (Instructions, 'llava', {}, '<image> Question: The title? Answer: Cats.<EOC>'),
    ],
)
def test_a_set_becomes_rows(builder, name, fields, expected, tmp_path, tokenizer):
    folder = built(builder, tmp_path, name)
    every = texts(folder, tokenizer, **fields)
    expected = expected.replace('<image><EOC><image>After', '<image>After')
    [row] = [row for text, row in every if text == expected][:1]
    assert row.images[0].any() and row.phi.max() == 1 and row.unreadable == 0
    if name == 'videos':
        assert (row.images[0, 1:, 4, 4, 0] > row.images[0, :-1, 4, 4, 0]).all()
    if name == 'llava':
        learnt = tokenizer.decode(row.tokens[row.weights > 0])
        assert learnt.strip() == 'Cats.<EOC>'
    counts = json.loads((folder / 'ledger.json').read_text())
    assert sum(sum(of_rule.values()) for of_rule in counts['dropped'].values()) >= 1
    said = write.summary(folder)
    assert f'{counts["kept"]["train"]["documents"]} documents' in said and 'dropped by' in said
    packed = texts(folder, tokenizer, documents=4, window=(128, 3), **dict(dict(images=5), **fields))
    assert all(row.document.max() >= 1 for _, row in packed)


def test_instructions_as_a_chat_are_what_a_chat_asks(tmp_path):
    """From the files to the row, token for token."""
    folder, tokenizer = built(Instructions, tmp_path, 'llava', chat=True), Tokenizer.read(SMOLLM, 'token')
    blank = np.zeros((1, 8, 8, 3), np.uint8)
    expected = encode(chat([blank, ' What is it?'], 'A cat.', 'Sure?', 'Yes, < image>.'), tokenizer).tokens
    every = [row.tokens[: row.used - 2].tolist() for _, row in texts(folder, tokenizer, images=1, chat=True)]
    assert expected in every


def test_images_of_benchmarks_are_left_out(tmp_path):
    """Whatever their format."""
    (tmp_path / 'coco').mkdir()
    (tmp_path / 'coco/a.jpg').write_bytes(encoded_image(2, format='JPEG'))
    index = index_benchmarks([str(tmp_path / 'coco')], READABLE, str(tmp_path / 'benchmarks.npz'))
    members = {
        f'{i}.{end}': data for i in range(4) for end, data in (('png', encoded_image(i)), ('txt', b'It is %d.' % i))
    }
    source = str(published.tar(tmp_path / '0.tar', members))
    folder = write.build(Pairs, str(tmp_path / 'out'), source=source, benchmarks=index)
    kept = [b''.join(record['texts']).decode() for record in open_split(str(folder), 'train')]
    assert sorted(kept) == ['It is 0.', 'It is 1.', 'It is 3.']
    assert json.loads((folder / 'ledger.json').read_text())['dropped'] == {'benchmark_distance': {'document': 1}}


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_files_have_names_of_their_own_in_a_data_set(tmp_path):
    """Files of the same name in two folders do not hide each other's documents."""
    folder = built(Pairs, tmp_path, 'pairs', 'videos')
    counts = json.loads((folder / 'ledger.json').read_text())
    assert counts['kept']['train']['documents'] == 3 and 'document_id' not in counts['dropped']


@pytest.mark.long
def test_workers_change_no_byte(tmp_path):
    one = built(Pairs, tmp_path / 'one', 'pairs', 'videos')
    two = built(Pairs, tmp_path / 'two', 'pairs', 'videos', workers=2)
    assert digests(one) == digests(two)


def test_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match='There is no file .*tar'):
        Pairs(source=str(tmp_path / '*.tar'))
    with pytest.raises(FileNotFoundError, match='There is no folder /no/where'):
        Pairs(source=str(tmp_path), images='/no/where')
    SETS['pairs'](tmp_path)
    with pytest.raises(ValueError, match="end in '.parquet', '.tar'.*Narrow --source"):
        Pairs(source=str(tmp_path / '*'))
    (tmp_path / 'a.rar').touch()
    with pytest.raises(ValueError, match="end in '.rar'"):
        Pairs(source=str(tmp_path / '*.rar'))


@pytest.mark.parametrize('name', ['obelics', 'mmc4', 'pairs', 'films', 'instructions'])
def test_every_command_has_help(name):
    said = subprocess.run(
        [sys.executable, '-m', f'data.{name}.build', '--help'], cwd=ROOT, capture_output=True, text=True
    )
    assert said.returncode == 0 and f'python -m data.{name}.build' in said.stdout and '--images' in said.stdout


@pytest.mark.long
def test_the_command(tmp_path):
    """In two processes: what a command's own file defines reaches them."""
    SETS['cc3m'](tmp_path)
    command = [sys.executable, '-m', 'data.pairs.build', f'--source={tmp_path}/*.tsv', f'--images={tmp_path}/got']
    said = subprocess.run(
        [*command, f'--out={tmp_path}/out', '--name=cc3m', '--workers=2'], cwd=ROOT, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert '2 documents with 2 images' in said.stdout and 'dropped by image_missing: 1 (image)' in said.stdout
    assert len(Documents(path=f'{tmp_path}/out/pairs/cc3m/1.0.0').open(ImageFormat(8))) == 2
