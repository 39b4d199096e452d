"""Each published set in its official shape: what becomes of it, and what is counted as dropped."""

import codecs
import collections
import functools
import gzip
import hashlib
import io
import json
import tracemalloc
import unicodedata
import zlib

import numpy as np
import PIL.Image
import pytest

from data.instructions import llava
from data.pairs import build as pairs
from flamingo_jax import files
from flamingo_jax.building.document import Document
from flamingo_jax.building.readers import containers
from flamingo_jax.building.readers.containers import Row, extension, json_items, json_lines, opened
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder, make_index
from flamingo_jax.building.readers.media_files import image_rule
from flamingo_jax.inputs.prompts import ANSWERS, ASKS, ENDS_TURN
from flamingo_jax.inputs.videos import to_video
from tests.building.readers import published
from tests.building.readers.published import SETS, clip, encoded_image


def read(written, work):
    """(documents, dropped by rule)."""
    index = None
    if written.images is not None:
        index = str(work / 'index')
        make_index(str(written.images), index)
    images = ImageFolder(str(written.images) if written.images else None, index)
    made = list(written.read(str(written.path), written.path.name, images))
    documents = [one for one in made if isinstance(one, Document)]
    dropped = collections.Counter(one.rule for one in made if not isinstance(one, Document))
    assert len({one.id for one in documents}) == len(documents)
    return documents, dict(dropped)


def spelled(document):
    """A document as one string: <number> is an image, [number] a video, (a text) is not learnt."""
    parts = []
    for text, image, weight in zip(document.texts, document.images, document.weights, strict=True):
        if image:
            red, green, blue = to_video(image, 8, 12, 'squash', 0.0)[0, 6, 4].tolist()
            is_video = abs(red - blue) < 5
            parts.append(f'[{round(red / 10)}]' if is_video else f'<{round(red / 20)}>')
        else:
            parts.append(text if weight else f'({text})')
    return '|'.join(parts)


def test_letters_with_their_accents_are_one_character():
    draft = Draft('here')
    assert draft.text(unicodedata.normalize('NFD', 'một con mèo'))
    [document] = draft.finish(alone=True)
    assert document.texts == ['một con mèo']


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp'])
def test_an_image_in_a_tar_has_the_url_beside_it(tmp_path, ending):
    """Before it or after it, by their endings."""
    urls = {f'https://a.b/{number}?x': encoded_image(number) for number in range(3)}
    folder = published.stored_by_img2dataset(tmp_path / 'got', urls, ending)
    make_index(str(folder), str(tmp_path / 'index'))
    found = ImageFolder(str(folder), str(tmp_path / 'index'))
    assert {url: found.read(url) for url in urls} == urls
    assert found.read(f'000000001.{ending}') == encoded_image(1) and found.read('https://a.b/3?x') is None


def test_images_of_one_name_in_two_folders_of_a_tar_have_their_own_urls(tmp_path):
    members = {}
    for folder, number in (('a', 1), ('b', 2)):
        about = json.dumps(dict(url=f'http://{folder}/')).encode()
        members |= {f'{folder}/1.jpg': encoded_image(number), f'{folder}/1.json': about}
    (tmp_path / 'got').mkdir()
    published.tar(tmp_path / 'got/0.tar', members)
    make_index(str(tmp_path / 'got'), str(tmp_path / 'index'))
    found = ImageFolder(str(tmp_path / 'got'), str(tmp_path / 'index'))
    assert [found.read(f'http://{folder}/') for folder in 'ab'] == [encoded_image(1), encoded_image(2)]


@pytest.fixture
def of(tmp_path):
    def written(name):
        (tmp_path / 'set').mkdir()
        return read(SETS[name](tmp_path / 'set'), tmp_path)

    return written


def test_obelics(of):
    """A lost image leaves the text where it is; another article is another document; a tag's name is no tag."""
    documents, dropped = of('obelics')
    assert [spelled(one) for one in documents] == [
        '<1>|Two cats.\n\nA dog.|\n\nNo bird.|<2>',
        'Two.|<1>|Three.|\n\nFour < image> < EOC>',
        '<2>|After the error.',
    ]
    assert documents[0].url == 'https://a.b/0' and documents[1].id.endswith('#1.1')
    assert dropped == dict(
        image_missing=2,
        image_is_html=1,
        document_without_image=2,
        document_malformed=1,
        mark_in_text=1,
    )


def test_omnicorpus(of):
    documents, dropped = of('omnicorpus')
    assert [spelled(one) for one in documents] == ['<1>|A cat.'] and not dropped
    assert documents[0].url == 'https://a.b/page'


def test_mint1t(of):
    documents, dropped = of('mint1t')
    assert [spelled(one) for one in documents] == ['<1>|Figure.|<2>', '<1>|Figure.|<2>']
    assert dropped == dict(image_missing=1)


def test_mmc4(of):
    """Whole, a page keeps its own assignment. Without image a, sentence 0 is free for b."""
    documents, dropped = of('mmc4')
    assert [spelled(one) for one in documents] == [
        '<0>|Lock it. Press < image> it.|<1>|Then go.',
        '<1>|Lock it. Press < image> it. Then go.',
    ]
    assert dropped == dict(image_similarity=2, image_missing=1, json_damaged=1, document_malformed=1, mark_in_text=2)


def test_open_flamingo(of):
    documents, dropped = of('open_flamingo')
    assert [spelled(one) for one in documents] == [
        '<1>|Lock it. Press < image> it. Then go.',
        'Look:|<1>|A cat.|<2>|A dog.',
    ]
    assert dropped == dict(image_missing=1, image_similarity=1, mark_in_text=1)


def test_pairs(of):
    documents, dropped = of('pairs')
    assert [spelled(one) for one in documents] == ['<0>|A cat < |endofchunk|> sits.', '<1>|A dog.']
    assert documents[0].url == 'http://x.y/0'
    assert dropped == dict(image_not_downloaded=1, document_without_text=1, mark_in_text=1)


def test_cc3m_and_cc12m(of):
    documents, dropped = of('cc3m')
    assert [spelled(one) for one in documents] == ['<0>|a cat', '<1>|a dog']
    assert dropped == dict(image_missing=1, document_without_image=1, document_malformed=1)


def test_laion(of):
    documents, dropped = of('laion')
    assert [spelled(one) for one in documents] == ['<0>|a cat']
    assert dropped == dict(image_missing=1, document_without_image=1, document_without_text=1)


def test_coco(of):
    documents, dropped = of('coco')
    assert [spelled(one) for one in documents] == ['<9>|A cat.', '<9>|One cat.']
    assert dropped == dict(image_missing=1, document_without_image=1, document_malformed=1)


def test_a_caption_of_coco_is_given_before_the_next_image_is_read(tmp_path):
    """The images of the whole set would not fit into memory."""
    written = SETS['coco'](tmp_path)
    made = pairs.read_coco(str(written.path), written.path.name, ImageFolder(str(tmp_path / 'train2014')))
    assert spelled(next(made)) == '<9>|A cat.'
    (tmp_path / 'train2014/COCO_train2014_000000000009.jpg').unlink()
    assert not [one for one in made if isinstance(one, Document)]


@pytest.mark.parametrize('value', [[], {}, dict(images=[]), dict(images=[], annotations={})])
def test_a_file_without_the_lists_of_coco_is_dropped(tmp_path, value):
    (tmp_path / 'captions.json').write_text(json.dumps(value))
    [one] = pairs.read_coco(str(tmp_path / 'captions.json'), 'captions.json', ImageFolder())
    assert (one.rule, one.what) == ('json_damaged', 'file')


def test_videos(of):
    documents, dropped = of('videos')
    assert [spelled(one) for one in documents] == ['[1]|It gets bright.']
    assert dropped == dict(video_unreadable=1, document_without_image=1)


def test_webvid(of):
    documents, dropped = of('webvid')
    assert [spelled(one) for one in documents] == ['[1]|Bright, "very" bright.\nReally.']
    assert dropped == dict(video_missing=1, document_without_image=1)


def test_sharegpt4video(of):
    """The caption of the whole, not that of a piece."""
    documents, dropped = of('sharegpt4video')
    assert [spelled(one) for one in documents] == ['[1]|It gets bright.']
    assert dropped == dict(document_without_text=1)


def test_llava(of):
    """The tag of a human's turn is an image, wherever it stands; the same text in an answer is none."""
    documents, dropped = of('llava')
    assert [spelled(one) for one in documents] == [
        '<1>|( Question: What is it? Answer:)| A cat.|( Question: Sure? Answer:)| Yes, < image>.',
        '<1>|( Question: What is it? Answer:)| A cat.',
        '( Question: Two and two? Answer:)| Four.',
        '<7>|( Question: The title? Answer:)| Cats.',
    ]
    assert dropped == dict(image_missing=2, document_without_image=2, document_malformed=1, mark_in_text=1)


def conversation(tmp_path, images, *said, chat=False):
    """A conversation about images 1 to `images`, spelled."""
    for number in range(1, images + 1):
        (tmp_path / f'{number}.png').write_bytes(encoded_image(number))
    roles = ('system', 'human', 'gpt') if said[0].endswith('Hindi.') else ('human', 'gpt')
    roles = (*roles, *('human', 'gpt') * len(said))
    turns = [{'from': role, 'value': text} for role, text in zip(roles, said, strict=False)]
    value = dict(image=[f'{number}.png' for number in range(1, images + 1)], conversations=turns)
    document, *_ = llava.document(Row('here', value), ImageFolder(str(tmp_path)), chat)
    return spelled(document)


@pytest.mark.parametrize(
    'images, said, expected',
    [
        (
            3,
            ('One: <image>\nTwo: <image>\nWhich is red?', 'Two.', 'Compare <image> with the first.', 'Redder.'),
            '( Question: One:)|<1>|( Two:)|<2>|( Which is red? Answer:)| Two.'
            '|( Question: Compare)|<3>|( with the first. Answer:)| Redder.',
        ),
        (
            2,
            ('<image>\nWhat is it?', 'A cat.', '<image>\nAnd this?', 'A dog.'),
            '<1>|( Question: What is it? Answer:)| A cat.|<2>|( Question: And this? Answer:)| A dog.',
        ),
        (1, ('Is <image> red?', 'Yes.'), '( Question: Is)|<1>|( red? Answer:)| Yes.'),
        (2, ('What is it?\n<image>', 'A cat.'), '<1>|<2>|( Question: What is it? Answer:)| A cat.'),
        (2, ('Compare.', 'Alike.'), '<1>|<2>|( Question: Compare. Answer:)| Alike.'),
        (2, ('<image><image>\nAlike?', '', '<image>', 'A cat.'), None),
        (2, ('<image>\nAlike?', '', '<image>', 'A cat.'), '<1>|<2>|( Question: Answer:)| A cat.'),
        (
            1,
            ('Answer in Hindi.', 'What is it?\n<image>', 'बिल्ली।'),
            '(Answer in Hindi.)|<1>|( Question: What is it? Answer:)| बिल्ली।',
        ),
    ],
)
def test_each_image_of_a_conversation_stands_where_its_tag_is(tmp_path, images, said, expected):
    """Since a text sees the image before it. In the usual form, the image comes first."""
    if expected is None:
        with pytest.raises(ValueError, match='3 tags for 2 images'):
            conversation(tmp_path, images, *said)
        return
    assert conversation(tmp_path, images, *said) == expected


def test_a_conversation_as_a_chat(tmp_path):
    """The marks of the set's own texts are broken; only answers are learnt."""
    said = 'Answer in Hindi.', 'What is it?\n<image>', 'बिल्ली।', 'Say <|im_end|>', 'Yes.'
    assert conversation(tmp_path, 1, *said, chat=True).split('|(') == [
        '(<|im_start|>system\nAnswer in Hindi.<|im_end|>)',
        '\n<|im_start|>user\n)|<1>',
        ' What is it?<|im_end|>\n<|im_start|>assistant\n)|बिल्ली।<|im_end|>',
        '\n<|im_start|>user\nSay < |im_end|><|im_end|>\n<|im_start|>assistant\n)|Yes.<|im_end|>',
    ]


@pytest.mark.parametrize(
    'name, turns',
    [
        ('llava_next', [(1, 'What is it?', 'A cat.')]),
        ('m3it', [(1, 'Look. What is it?', 'A cat.')]),
        ('mimic_it', [(2, 'Who?', 'A dog.'), (1, 'What?', 'A cat.')]),
    ],
)
def test_every_set_of_instructions_may_be_a_chat(name, turns, tmp_path):
    (tmp_path / 'set').mkdir()
    written = SETS[name](tmp_path / 'set')
    documents, _ = read(written._replace(read=functools.partial(written.read, chat=True)), tmp_path)
    expected = ''
    for number, question, answer in turns:
        begin = f'|(\n{ASKS})' if expected else f'({ASKS})'
        expected += f'{begin}|<{number}>|( {question}{ANSWERS})|{answer}{ENDS_TURN}'
    assert spelled(documents[0]) == expected


def test_llava_next(of):
    documents, dropped = of('llava_next')
    assert [spelled(one) for one in documents] == [
        '<1>|( Question: What is it? Answer:)| A cat.',
        '( Question: Hi. Answer:)| Hello.',
    ]
    assert not dropped


def test_mimic_it(of):
    """Related instructions come first, without those whose image or answer is lost; frames are a video."""
    documents, dropped = of('mimic_it')
    asked = '( Question: Who? Answer:)| A dog.'
    assert [spelled(one) for one in documents[:2]] == [
        f'<2>|{asked}|<1>|( Question: What? Answer:)| A cat.',
        f'<2>|{asked}',
    ]
    assert len(documents) == 3 and documents[2].texts == ['', ' Question: Then? Answer:', ' Blue.']
    reds = to_video(documents[2].images[0], 3, 12, 'squash')[:, 6, 4, 0]
    assert np.abs(reds.astype(int) - [20, 40, 20]).max() < 8  # WebP is lossy.
    assert dropped == dict(
        image_missing=2,
        related_instruction_missing=1,
        related_instruction_malformed=1,
        document_without_image=1,
        document_malformed=1,
    )


def test_m3it(of):
    documents, dropped = of('m3it')
    assert [spelled(one) for one in documents] == [
        '<1>|( Question: Look. What is it? Answer:)| A cat.',
        '<2>|( Question: Describe. Answer:)| A dog.',
    ]
    assert dropped == dict(image_empty=1, document_without_image=1)


DAMAGED = dict(obelics='parquet', omnicorpus='parquet', laion='parquet', mmc4='zip', llava='json', mimic_it='json')
DAMAGED |= dict(coco='json', sharegpt4video='json', m3it='json') | dict.fromkeys(
    ('mint1t', 'open_flamingo', 'pairs', 'videos'), 'tar'
)


@pytest.mark.parametrize('name', ['cc3m', 'coco', 'videos', 'llava', 'm3it', 'mimic_it', 'mmc4_lines', 'webvid'])
def test_a_file_may_be_compressed(name, tmp_path):
    """Cut short, it gives what is whole."""
    (tmp_path / 'set').mkdir()
    written = SETS[name](tmp_path / 'set')
    documents, dropped = read(written, tmp_path)
    path = tmp_path / f'set/{written.path.name}.gz'
    path.write_bytes(gzip.compress(written.path.read_bytes()))
    assert extension(str(path)) == written.path.suffix
    again, again_dropped = read(written._replace(path=path), tmp_path)
    assert [one.texts for one in again] == [one.texts for one in documents] and again_dropped == dropped
    path.write_bytes(path.read_bytes()[:-50])
    some, some_dropped = read(written._replace(path=path), tmp_path)
    assert len(some) <= len(documents) and {'file_damaged', 'json_damaged', 'tar_damaged'} & some_dropped.keys()


@pytest.mark.parametrize('name', ['cc3m', 'coco', 'llava', 'm3it', 'mimic_it', 'mmc4_lines', 'webvid'])
def test_a_file_may_begin_with_a_byte_order_mark(name, tmp_path):
    (tmp_path / 'set').mkdir()
    written = SETS[name](tmp_path / 'set')
    documents, dropped = read(written, tmp_path)
    written.path.write_bytes(codecs.BOM_UTF8 + written.path.read_bytes())
    again, again_dropped = read(written, tmp_path)
    assert [one.texts for one in again] == [one.texts for one in documents] and again_dropped == dropped


@pytest.mark.parametrize('name', DAMAGED)
def test_a_file_that_is_cut_short_is_counted_and_its_beginning_kept(name, tmp_path):
    (tmp_path / 'set').mkdir()
    written = SETS[name](tmp_path / 'set')
    whole, _ = read(written, tmp_path)
    data = written.path.read_bytes()
    # Where a tar has its last member: behind it is only zero.
    written.path.write_bytes(data[: len(data.rstrip(b'\0')) * 3 // 4])
    documents, dropped = read(written, tmp_path)
    assert f'{DAMAGED[name]}_damaged' in dropped
    assert {one.id for one in documents} <= {one.id for one in whole}
    written.path.write_bytes(b'')
    documents, dropped = read(written, tmp_path)
    assert not documents
    assert name in ('sharegpt4video', 'm3it') or f'{DAMAGED[name]}_damaged' in dropped


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_its_end(tmp_path):
    """Python's `tarfile` takes it for one."""
    written = SETS['pairs'](tmp_path)
    data = bytearray(written.path.read_bytes())
    begin = data.index(b'000000001.jpg')
    data[begin + 148 : begin + 156] = b'7' * 8  # The checksum.
    written.path.write_bytes(data)
    documents, dropped = read(written, tmp_path)
    assert len(documents) == 1 and dropped['tar_damaged'] == 1


@pytest.mark.parametrize('begin, rule', [(b'', 'line_too_long'), (b'[', 'json_damaged')])
def test_a_gzip_of_zeros_does_not_fill_the_memory(begin, rule, tmp_path, monkeypatch):
    """64 MB of zeros in 64 kB, where a line may have 1 MB."""
    monkeypatch.setattr(containers, 'LONGEST_LINE', 2**20)
    path = tmp_path / 'bomb.jsonl.gz'
    with gzip.open(path, 'wb') as file:
        file.write(begin)
        for _ in range(64):
            file.write(bytes(2**20))
    tracemalloc.start()
    if begin:
        [one] = json_items(str(path), 'bomb')
    else:
        [one] = json_lines(opened(str(path)), 'bomb')
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert one.rule == rule and most < 2**24


def test_a_long_list_is_read_in_pieces(tmp_path):
    """Items of every length around the size that is read at once."""
    items = [dict(text='é' * length) for length in (10, 2**20 - 20, 2**20, 2 * 2**20, 1)] + ['], [{', 7, None]
    (tmp_path / 'list.json').write_text(' [\n' + ' ,\n'.join(map(json.dumps, items)) + ' ]\n')
    assert [row.value for row in json_items(str(tmp_path / 'list.json'), 'list')] == items


def test_images_are_checked():
    assert image_rule(encoded_image(1)) == ''
    assert image_rule(b'') == 'image_empty'
    assert image_rule(b' \n<HTML>') == 'image_is_html'
    assert image_rule(encoded_image(1)[:-40]) == 'image_damaged' and image_rule(b'GIF89a') == 'image_unreadable'
    bomb = bytearray(encoded_image(1))
    bomb[16:24] = (60_000).to_bytes(4, 'big') * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, 'big')
    assert image_rule(bytes(bomb)) == 'image_max_pixels'
    long = io.BytesIO()
    PIL.Image.new('1', (20_001, 1)).save(long, 'PNG')
    assert image_rule(long.getvalue()) == 'image_max_side'


@pytest.mark.parametrize('name', ['x.png', 'a.b/x.png', 'y.png'])
def test_no_image_is_dropped_for_a_disk_that_fails(tmp_path, monkeypatch, name):
    """By its path, its base name, and in a tar. The first byte of a process is no memory."""
    monkeypatch.setattr(files, 'WAITS', ())
    folder, index = tmp_path / 'got', str(tmp_path / 'index')
    (folder / 'a.b').mkdir(parents=True)
    (folder / 'a.b/x.png').write_bytes(encoded_image(1))
    published.tar(folder / '0.tar', {'y.png': encoded_image(2)})
    make_index(str(folder), index)
    assert ImageFolder(str(folder), index).read(name) == encoded_image(2 if name == 'y.png' else 1)
    for file in (folder / 'a.b/x.png', folder / '0.tar'):
        file.unlink()
        file.symlink_to('/proc/self/mem')
    with pytest.raises(OSError, match='Errno 5'):
        ImageFolder(str(folder), index).read(name)
    folder.rename(tmp_path / 'away')
    for one in (ImageFolder(str(folder), index), ImageFolder(str(folder))):
        with pytest.raises(FileNotFoundError):
            one.read(name)


def test_images_are_found_by_path_name_and_url(tmp_path):
    (tmp_path / 'a/b').mkdir(parents=True)
    (tmp_path / 'a/b/x.png').write_bytes(encoded_image(1))
    (tmp_path / 'a/b/x.json').write_text(json.dumps(dict(url='http://c.d/é.png')))
    (tmp_path / 'secret.png').write_bytes(encoded_image(2))
    published.stored_by_img2dataset(tmp_path / 'a/tars', {'http://c.d/1': encoded_image(3), 'http://c.d/2': clip(4)})
    assert make_index(str(tmp_path / 'a'), str(tmp_path / 'index')) == 3
    images = ImageFolder(str(tmp_path / 'a'), str(tmp_path / 'index'))
    assert images.read('b/x.png') == images.read('x.png') == images.read('http://c.d/é.png') == encoded_image(1)
    assert images.read('http://c.d/1') == encoded_image(3) and len(images.read('http://c.d/2')) == len(clip(4))
    (tmp_path / 'a/e.f/g').mkdir(parents=True)
    (tmp_path / 'a/e.f/g/h i.png').write_bytes(encoded_image(5))
    (tmp_path / 'a' / hashlib.sha256(b'https://e.f/j?k=1').hexdigest()).write_bytes(encoded_image(6))
    assert images.read('https://e.f/g/h%20i.png') == encoded_image(5)
    assert images.read('https://e.f/j?k=1') == encoded_image(6) and images.read('https://e.f/j') is None
    for name in ('http://[/x', 'http://../secret.png', 'http://e.f/../../secret.png'):
        assert images.read(name) is None
    for name in ('../secret.png', str(tmp_path / 'secret.png'), 'b', '', 'x\0y', 'http://c.d/3', None, 7):
        assert images.read(name) is None
    assert ImageFolder().read('x.png') is None
