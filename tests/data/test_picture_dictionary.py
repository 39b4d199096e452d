"""The committed sample of the picture dictionary, and its builder on a raw folder made of a few drawings."""

import collections
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `data` is a folder of builders beside the package, and not installed with it

from data.picture_dictionary import build, emoji, icons, pixels, stamps  # noqa: E402
from data.picture_dictionary import picture_dictionary_dataset_builder as dictionary  # noqa: E402

SAMPLE = ROOT / 'data/picture_dictionary/sample'
SPLITS = ('train', 'validation', 'test')


@pytest.fixture(scope='module')
def records():
    """Split -> all records of the sample."""
    builder = tfds.builder_from_directory(SAMPLE)
    return {split: list(builder.as_data_source(split)) for split in SPLITS}


def test_sample_opens_without_tensorflow():
    code = (
        'import sys, tensorflow_datasets as tfds\n'
        f'source = tfds.builder_from_directory({str(SAMPLE)!r}).as_data_source("train")\n'
        'assert source[0]["frames"][0][:4] == b"RIFF", source[0]["frames"][0][:4]\n'
        'assert "tensorflow" not in sys.modules\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_every_record_is_whole(records):
    for record in sum(records.values(), []):
        (frame,) = record['frames']
        image = Image.open(io.BytesIO(frame))
        image.load()
        assert image.size == (72, 72) and image.mode == 'RGB'
        assert np.asarray(image).std() > 5, f'{record["concept"]} {record["style"]} is blank'
        languages = [language.decode() for language in record['languages']]
        assert languages == list(emoji.LANGUAGES) and len(record['names']) == len(languages) == 36
        assert all(name.decode().strip() for name in record['names'])
        assert record['licence'] in (b'Apache-2.0 AND Unicode-3.0', b'MIT AND Unicode-3.0')
        assert record['source'] and record['category'].decode() in emoji.CATEGORIES and record['subcategory']


def test_splits_share_no_concept_no_name_and_no_head_noun(records):
    families = stamps.Families(
        {
            record['concept'].decode(): record['names'][record['languages'].index(b'en')].decode()
            for record in sum(records.values(), [])
        }
    )
    of_split = {}
    for split, rows in records.items():
        codes = {row['concept'].decode() for row in rows}
        names = {row['names'][row['languages'].index(b'en')] for row in rows}
        of_split[split] = codes | names | {families.of_code(code) for code in codes}
    for one, other in (('train', 'validation'), ('train', 'test'), ('validation', 'test')):
        assert not of_split[one] & of_split[other]
    shares = {split: len({row['concept'] for row in rows}) for split, rows in records.items()}
    assert 0.7 < shares['train'] / sum(shares.values()) < 0.9 and min(shares.values()) >= 40


def test_every_concept_has_every_style_and_one_set_of_heldout_languages(records):
    styles, heldout = collections.defaultdict(set), {}
    for row in sum(records.values(), []):
        styles[row['concept']].add(row['style'])
        assert heldout.setdefault(row['concept'], row['heldout_languages']) == row['heldout_languages']
    assert set(map(frozenset, styles.values())) == {frozenset((b'noto', b'noto-v1', b'fluent-flat', b'fluent-3d'))}
    held = [languages for languages in heldout.values() if languages]
    assert set(map(tuple, held)) == {(b'gu', b'is', b'ka')}
    assert 0.2 < len(held) / len(heldout) < 0.45


def test_sample_is_small_and_carries_its_notices():
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 2.5e6
    notice = (SAMPLE / 'NOTICE.md').read_text(encoding='utf-8')
    for needed in ('Apache License', 'Copyright (c) Microsoft Corporation', 'UNICODE LICENSE V3', 'noto-v1'):
        assert needed in notice


def test_a_missing_raw_folder_is_named_with_the_remedy(tmp_path):
    result = subprocess.run(
        [sys.executable, '-m', 'data.picture_dictionary.build', f'--raw={tmp_path}/raw', f'--out={tmp_path}/out'],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert emoji.GOOGLE in result.stderr and f'fetch.sh {tmp_path}/raw' in result.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'english, concept, family',
    [
        ('A dog.', 'dog', 'dog'),
        ('Some dogs', 'dog', 'dog'),
        ('A sleeping dog with a bone.', None, 'dog'),
        ('A fork', None, 'fork and knife'),
        ('A “Fuji” apple.', None, 'red apple'),
        ('A tiger, the largest cat.', None, 'tiger'),
    ],
)
def test_captions_find_their_concept_and_family(english, concept, family):
    names = ['dog', 'dog face', 'hot dog', 'fork and knife', 'red apple']
    families = stamps.Families({name: name for name in names})
    assert families.concept(english) == concept
    assert families.of_english(english) == family
    assert families.of_code('dog face') == families.of_code('hot dog') == 'dog'


def test_icons_are_the_things_of_emoji_stamps_and_wordnet(tmp_path, monkeypatch):
    """Two sets: variants, synonyms and things of one's own are found; actions, hidden and blank icons are left out."""
    synset = '{} {} n {:02x} {} 001 @ 00000001 n 0000 | words; "an example"'
    meanings = [
        ('00000010', '06', ('fire_engine', 'fire_truck')),
        ('00000020', '05', ('cat',)),
        ('00000030', '06', ('stapler',)),
        ('00000040', '04', ('alignment',)),  # An act.
    ]
    lines = [synset.format(at, file, len(words), ' '.join(f'{w} 0' for w in words)) for at, file, words in meanings]
    (tmp_path / icons.WORDNET).mkdir(parents=True)
    (tmp_path / icons.WORDNET / 'data.noun').write_text('\n'.join(['  1 licence', *lines]))
    index = [f'{word} n 1 1 @ 1 0 {at}' for at, _, words in meanings for word in words]
    (tmp_path / icons.WORDNET / 'index.noun').write_text('\n'.join(['  1 licence', *index]))
    square = {'body': '<path fill="#000" d="M0 0h24v24H0z"/>'}
    drawn = {
        'a': dict.fromkeys(('cat-outline', 'cat', 'fire-truck', 'alignment', 'stapler-24-filled', 'guitar'), square),
        'b': {'stapler': square, 'cat': square | {'hidden': True}, 'dog-face': square, 'fire-engine': {'body': ''}},
    }
    for style, of in drawn.items():
        licence = {'license': {'spdx': 'MIT'}}
        write(tmp_path / icons.ROOT / f'{style}.json', {'info': licence, 'icons': of, 'width': 24, 'height': 24})
    monkeypatch.setattr(icons, 'SETS', ('a', 'b'))
    families = stamps.Families({'1f692': 'fire engine', '1f415': 'dog', '1f436': 'dog face'})
    families.named('guitar', 'tux:guitar')

    found = {(icon.style, icon.key): icon for icon in icons.read_icons(tmp_path, families)}
    assert {key: (icon.concept, icon.english, icon.family) for key, icon in found.items()} == {
        ('a', 'cat'): ('icon:cat', 'cat', 'cat'),
        ('a', 'fire-truck'): ('1f692', 'fire engine', '1f692'),
        ('a', 'stapler-24-filled'): ('icon:stapler', 'stapler', 'stapler'),
        ('a', 'guitar'): ('tux:guitar', 'guitar', 'guitar'),
        ('b', 'stapler'): ('icon:stapler', 'stapler', 'stapler'),
        ('b', 'dog-face'): ('1f436', 'dog face', '1f415'),
        ('b', 'fire-engine'): ('1f692', 'fire engine', '1f692'),
    }
    assert found['a', 'cat'].kind == 'animal' and found['b', 'dog-face'].licence == 'MIT'
    assert found['a', 'cat'].image().getpixel((128, 128)) == (0, 0, 0, 255)
    assert found['b', 'fire-engine'].image() is None


def test_captions_lose_their_final_mark_only():
    text = 'A tiger.\nfr.utf8=Un tigre.\nja.utf8=トラ\nzh_CN.utf8=老虎。\nzu.utf8=Ithayiga.\nka.utf8=\n'
    assert stamps.read_captions(text) == {'en': 'A tiger', 'fr': 'Un tigre', 'ja': 'トラ', 'zh': '老虎'}


def test_photographs_have_grain():
    drawing = Image.new('RGBA', (64, 64))
    ImageDraw.Draw(drawing).ellipse((4, 4, 60, 60), fill='red', outline='black', width=3)
    noise = np.random.default_rng(0).integers(0, 24, (64, 64, 1)) + np.array([90, 120, 60])
    photo = Image.fromarray(np.concatenate([noise, np.full((64, 64, 1), 255)], -1).astype(np.uint8), 'RGBA')
    assert not stamps.is_photo(drawing) and stamps.is_photo(photo)


def test_builds_from_raw_files(tmp_path):
    """Forty fabricated emoji in the layout of the packages, in the one style that needs no vector renderer."""
    raw = tmp_path / 'raw'
    names = {f'1f4{i:02x}': f'thing{i}' for i in range(40)} | {'1f415': 'dog', '1f436': 'dog face'}
    rows = [
        {'unified': code.upper(), 'category': 'Objects', 'subcategory': 'tool', 'image': f'{code}.png'}
        for code in names
    ]
    write(raw / emoji.TABLE, [*rows, {'unified': '1F600', 'category': 'Smileys & Emotion'}])
    for language in emoji.LANGUAGES:
        entries = {chr(int(code, 16)): {'tts': [f'{language} {name}']} for code, name in names.items()}
        locale = emoji.CLDR_LOCALE.get(language, language)
        write(raw / emoji.CLDR / locale / 'annotations.json', {'annotations': {'annotations': entries}})
    (raw / emoji.CLDR_DERIVED).mkdir(parents=True)
    (raw / emoji.GOOGLE).mkdir(parents=True)
    for row in rows[1:]:  # nobody drew the first
        Image.new('RGBA', (64, 32), 'red').save(raw / emoji.GOOGLE / row['image'])

    config = dictionary.Config(name='tiny', styles=('noto',))
    folder = build.build(raw, tmp_path / 'out', config)
    builder = tfds.builder_from_directory(folder)
    split_of = {}
    for split in SPLITS:
        for record in builder.as_data_source(split):
            code = record['concept'].decode()
            split_of[code] = split
            assert record['names'][record['languages'].index(b'nb')].decode() == f'nb {names[code]}'
            image = Image.open(io.BytesIO(record['frames'][0]))
            assert image.size == (64, 64) and image.getpixel((0, 0)) == (255, 255, 255)
            assert image.getpixel((32, 32))[0] > 200 > 50 > image.getpixel((32, 32))[1]
    assert set(split_of) == set(names) - {'1f400'}
    assert split_of['1f415'] == split_of['1f436'], 'a dog and its face belong to one split'

    clips = next(config for config in dictionary.CONFIGS if config.name == 'clips')
    with pytest.raises(FileNotFoundError, match=r'anim-4.*\n.*fetch\.sh --animations'):
        build.build(raw, tmp_path / 'out', clips)
    for part in emoji.FLUENT_ANIM:
        (raw / part).mkdir(parents=True)
    for code in names:
        frames = [Image.new('RGB', (16, 16), (i, 0, 0)) for i in range(0, 200, 20)]
        frames[0].save(raw / emoji.FLUENT_ANIM[0] / f'{code}.webp', save_all=True, append_images=frames[1:])
    opened = tfds.builder_from_directory(build.build(raw, tmp_path / 'out', clips))
    moving = [record for split in SPLITS for record in opened.as_data_source(split)]
    assert len(moving) == len(names)
    assert all(len(record['frames']) == 8 and record['style'] == b'fluent-anim' for record in moving)
    assert all(split_of.get(r['concept'].decode(), 'test') == 'test' for r in opened.as_data_source('test'))

    (raw / emoji.TABLE).unlink()
    with pytest.raises(FileNotFoundError, match=r'emoji\.json'):
        build.build(raw, tmp_path / 'out', config, overwrite=True)
    assert folder.exists(), 'a build that cannot begin leaves the built data set alone'


def test_packing_keeps_every_record(tmp_path):
    shard = tmp_path / 'shard'
    shard.write_bytes(next(SAMPLE.glob('*test.array_record*')).read_bytes())
    before = build.array_record_module.ArrayRecordReader(str(shard)).read_all()
    build.pack(shard, 4)
    assert build.array_record_module.ArrayRecordReader(str(shard)).read_all() == before


def test_clips_give_eight_frames_over_the_loop():
    greys = [Image.new('RGB', (8, 8), (8 * i, 0, 0)) for i in range(24)]
    buffer = io.BytesIO()
    greys[0].save(buffer, 'WEBP', save_all=True, append_images=greys[1:], lossless=True, minimize_size=False)
    frames = pixels.clip_frames(Image.open(buffer))
    assert [frame.getpixel((0, 0))[0] // 8 for frame in frames] == [0, 3, 6, 9, 12, 15, 18, 21]


def write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding='utf-8')
