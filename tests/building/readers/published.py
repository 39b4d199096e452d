"""Writes small files in the shapes of the published sets, with real images and clips."""

import base64
import csv
import io
import json
import pathlib
import tarfile
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet

from data.films import build as films
from data.instructions import build as instructions
from data.mmc4 import build as mmc4
from data.obelics import build as obelics
from data.pairs import build as pairs
from flamingo_jax.building.readers import webdataset

ERROR_PAGE = b'<!DOCTYPE html><html><body>404</body></html>'


class Written(NamedTuple):
    """A set on disk."""

    read: Callable
    path: pathlib.Path
    images: pathlib.Path | None = None


def encoded_image(number: int, kind: str = 'PNG') -> bytes:
    """An image whose red is 20 times `number`, with an edge."""
    pixels = np.full((12, 16, 3), 90, np.uint8)
    pixels[:, :12] = 20 * number, 20, 200
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind, **(dict(quality=95, subsampling=0) if kind == 'JPEG' else {}))
    return file.getvalue()


def clip(number: int, seconds: int = 3) -> bytes:
    """An MP4 of 5 frames a second whose grey is 10 times `number` at first, and rises."""
    file = io.BytesIO()
    with av.open(file, 'w', format='mp4') as container:
        stream = container.add_stream('mpeg4', rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, 'yuv420p'
        for i in range(5 * seconds):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10 * number + 4 * i, np.uint8), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def tar(path: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    with tarfile.open(path, 'w') as archive:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def stored_by_img2dataset(folder: pathlib.Path, urls: dict[str, bytes], ending: str = 'jpg') -> pathlib.Path:
    """A tar of what could be downloaded, as img2dataset writes it, without captions: a sample's files are sorted."""
    members = {}
    for number, (url, data) in enumerate(urls.items()):
        about = json.dumps(dict(url=url, key=f'{number:09d}', status='success')).encode()
        members |= {f'{number:09d}.{end}': file for end, file in sorted({ending: data, 'json': about}.items())}
    folder.mkdir()
    return tar(folder / '00000.tar', members).parent


def write_obelics(folder: pathlib.Path) -> Written:
    """Two images and one that is lost; two articles; lost ones only; lists that are not parallel; an error page."""
    a, b, lost, error = (f'https://a.b/{name}.jpg?x=1' for name in ('a', 'b', 'lost', 'error'))
    rows = [
        ([a, None, lost, None, b], [None, 'Two cats.\n\nA dog.', None, 'No bird.', None]),
        (
            [None, a, None, None],
            ['One.END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED\n\nTwo.', None, 'Three.', 'Four <image> <EOC>'],
        ),
        ([lost, None], [None, 'Gone.']),
        ([a], [None, 'One too many.']),
        ([error, b, None], [None, None, 'After the error.']),
    ]
    columns = dict(
        images=[images for images, _ in rows],
        texts=[texts for _, texts in rows],
        metadata=[json.dumps([dict(src=image) if image else None for image in images]) for images, _ in rows],
        general_metadata=[json.dumps(dict(url=f'https://a.b/{i}', warc_filename='x')) for i in range(len(rows))],
    )
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / 'train-00000-of-01370.parquet', row_group_size=2)
    stored = {a: encoded_image(1, 'JPEG'), b: encoded_image(2, 'JPEG'), error: ERROR_PAGE}
    return Written(
        obelics.read_table, folder / 'train-00000-of-01370.parquet', stored_by_img2dataset(folder / 'got', stored)
    )


def write_omnicorpus(folder: pathlib.Path) -> Written:
    """As OBELICS, but metadata are structs."""
    rows = dict(
        images=[['https://a.b/a.jpg', None]],
        texts=[[None, 'A cat.']],
        metadata=[[dict(aesthetic_prob=0.5, bytes=3, height=12, img_url_sha='ab', width=16), None]],
        general_metadata=[dict(domain=['a', 'b'], fluency_prob=0.9, id=1, url='https://a.b/page')],
    )
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / '0.parquet')
    return Written(
        obelics.read_table,
        folder / '0.parquet',
        stored_by_img2dataset(folder / 'got', {'https://a.b/a.jpg': encoded_image(1)}),
    )


def write_mint1t(folder: pathlib.Path) -> Written:
    """Two papers: of the second, the pages end before the last image."""
    pages = [PIL.Image.open(io.BytesIO(encoded_image(number))) for number in (1, 2)]
    tiff = io.BytesIO()
    pages[0].save(tiff, 'TIFF', save_all=True, append_images=pages[1:])
    members = {}
    for key, names in (('a', ['p0', None, 'p1']), ('b', ['p0', None, 'p1', 'p2'])):
        texts = [None if name else 'Figure.' for name in names]
        about = dict(texts=texts, images=names, image_metadata=[dict(page=0, height=12)], language_id_whole_page=1)
        members |= {f'{key}.json': json.dumps(about).encode(), f'{key}.tiff': tiff.getvalue()}
    return Written(obelics.read_tar, tar(folder / 'CC-MAIN-1.tar', members))


SIMILARITY = [[0.30, 0.10, 0.29], [0.28, 0.20, 0.27], [0.1, 0.1, 0.1]]


def mmc4_page(**changes) -> dict:
    """Images a and b both like sentence 0 best; the file gives it to a. c is like none."""
    infos = [
        dict(
            image_name=f'{letter * 12}.jpg',
            raw_url=f'http://x.y/{letter}.jpg',
            matched_text_index=index,
            matched_sim=sim,
        )
        for letter, index, sim in (('a', 0, 0.3), ('b', 2, 0.27), ('c', 1, 0.1))
    ]
    page = dict(text_list=['Lock it.', 'Press <image> it.', 'Then go.'], url='http://x.y', image_info=infos)
    return page | dict(similarity_matrix=SIMILARITY, could_have_url_duplicate=0) | changes


def write_mmc4(folder: pathlib.Path) -> Written:
    """Whole; a is missing; a line that is cut; a matrix of another shape. Files lie under the position of the zip."""
    missing = mmc4_page(url='http://x.y/2')
    missing['image_info'][0] |= dict(image_name='dddddddddddd.jpg', raw_url='http://x.y/d.jpg')
    lines = [json.dumps(mmc4_page()), json.dumps(missing), json.dumps(mmc4_page())[:200]]
    lines.append(json.dumps(mmc4_page(similarity_matrix=[[0.3]])))
    path = folder / 'docs_no_face_shard_7_v2.jsonl.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('docs_no_face_shard_7_v2.jsonl', '\n'.join(lines) + '\n')
    (folder / 'got/0').mkdir(parents=True)
    for number, letter in enumerate('abc'):
        (folder / f'got/0/{letter * 12}.jpg').write_bytes(encoded_image(number, 'JPEG'))
    return Written(mmc4.read_lines, path, folder / 'got')


def write_mmc4_lines(folder: pathlib.Path) -> Written:
    """The same without the zip."""
    written = write_mmc4(folder)
    with zipfile.ZipFile(written.path) as archive:
        lines = archive.read(archive.namelist()[0])
    (folder / 'docs.jsonl').write_bytes(lines)
    return written._replace(path=folder / 'docs.jsonl')


def write_open_flamingo(folder: pathlib.Path) -> Written:
    """A page of MMC4 without its first image, and one of ChatGPT."""
    page = mmc4_page()
    for number in (1, 2):
        page['image_info'][number]['image_base64'] = in_base64(encoded_image(number, 'JPEG'))
    gpt = dict(is_gpt=True, example='Look: _!_IMAGE1_!_ A cat. _!_IMAGE2_!_ A dog.')
    gpt['image_map'] = {f'_!_IMAGE{i}_!_': dict(base64_image=in_base64(encoded_image(i)), caption='x') for i in (1, 2)}
    members = {'0a' * 16 + '.json': json.dumps(page).encode(), '0b' * 16 + '.json': json.dumps(gpt).encode()}
    return Written(mmc4.read_tar, tar(folder / '000000000.tar', members))


def write_pairs(folder: pathlib.Path) -> Written:
    """Three pairs of img2dataset: the text in .txt, in .json alone, and none; and its list with one that failed."""
    members = {}
    for number, text in enumerate(('A cat <|endofchunk|> sits.', None, '')):
        key = f'00000000{number}'
        about = dict(url=f'http://x.y/{number}', caption='A dog.' if number == 1 else text, key=key, status='success')
        members[f'{key}.jpg'] = encoded_image(number, 'JPEG')
        if text is not None:
            members[f'{key}.txt'] = text.encode()
        members[f'{key}.json'] = json.dumps(about).encode()
    statuses = dict(url=[f'http://x.y/{i}' for i in range(4)], status=['success'] * 3 + ['failed_to_download'])
    pyarrow.parquet.write_table(pyarrow.table(statuses), folder / '00000.parquet')
    return Written(webdataset.read, tar(folder / '00000.tar', members))


URLS = {f'http://x.y/{number}.jpg': encoded_image(number, 'JPEG') for number in range(2)}


def write_cc3m(folder: pathlib.Path) -> Written:
    """CC3M's order, CC12M's order, a lost image, and a line that is none of it."""
    lines = ['a cat\thttp://x.y/0.jpg', 'http://x.y/1.jpg\ta dog', 'a bird\thttp://x.y/2.jpg', 'no tab']
    (folder / 'Train_GCC-training.tsv').write_text('\n'.join(lines) + '\n')
    got = stored_by_img2dataset(folder / 'got', URLS)
    return Written(pairs.read_tsv, folder / 'Train_GCC-training.tsv', got)


def write_laion(folder: pathlib.Path) -> Written:
    rows = dict(URL=[*URLS, 'http://x.y/2.jpg'], TEXT=['a cat', None, 'a bird'], hash=[1, 2, 3], similarity=[0.3] * 3)
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / 'part-00000.snappy.parquet')
    return Written(
        pairs.read_parquet, folder / 'part-00000.snappy.parquet', stored_by_img2dataset(folder / 'got', URLS)
    )


def write_coco(folder: pathlib.Path) -> Written:
    """Two captions of an image, one of a lost one, one of an image that is not listed."""
    images = [
        dict(id=9, file_name='COCO_train2014_000000000009.jpg', coco_url='http://c/9'),
        dict(id=3, file_name='b.jpg'),
    ]
    captions = [(9, 'A cat. '), (9, 'One cat.'), (3, 'A dog.'), (4, 'None.')]
    annotations = [dict(id=i, image_id=image, caption=text) for i, (image, text) in enumerate(captions)]
    (folder / 'captions_train2014.json').write_text(json.dumps(dict(info={}, images=images, annotations=annotations)))
    (folder / 'train2014').mkdir()
    (folder / 'train2014/COCO_train2014_000000000009.jpg').write_bytes(encoded_image(9, 'JPEG'))
    return Written(pairs.read_coco, folder / 'captions_train2014.json', folder)


def write_videos(folder: pathlib.Path) -> Written:
    """A clip with its text, and one that is cut short."""
    members = {}
    for key, data in (('0_0', clip(1)), ('0_1', clip(2)[:600])):
        members |= {f'{key}.mp4': data, f'{key}.txt': b'It gets bright.', f'{key}.json': b'{"caption": "x"}'}
    return Written(webdataset.read, tar(folder / '00000.tar', members))


def write_webvid(folder: pathlib.Path) -> Written:
    path = folder / 'results_2M_train.csv'
    with open(path, 'w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['videoid', 'contentUrl', 'duration', 'page_dir', 'name'])
        rows.writerow(
            ['21179416', 'https://a.b/x.mp4', 'PT00H00M11S', '000001_000050', 'Bright, "very" bright.\nReally.']
        )
        rows.writerow(['5629184', 'https://a.b/y.mp4', 'PT00H00M29S', '000001_000050', 'Lost.'])
    (folder / 'videos/000001_000050').mkdir(parents=True)
    (folder / 'videos/000001_000050/21179416.mp4').write_bytes(clip(1))
    return Written(films.read_webvid, path, folder / 'videos')


def write_sharegpt4video(folder: pathlib.Path) -> Written:
    captions = [dict(idx='1', content='A piece.'), dict(idx='-1', content='It gets bright.')]
    about = dict(video_id='a', video_path='pexels/a.mp4', timestamp=['0', '3'], keyframe=[0, 3], zip_folder='p_1.zip')
    lines = [about | dict(captions=captions), about | dict(captions=captions[:1])]
    (folder / 'sharegpt4video_40k.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    (folder / 'videos/p_1/pexels').mkdir(parents=True)
    (folder / 'videos/p_1/pexels/a.mp4').write_bytes(clip(1))
    return Written(films.read_sharegpt4video, folder / 'sharegpt4video_40k.jsonl', folder / 'videos')


def turns(*texts: str) -> list[dict[str, str]]:
    return [{'from': ('human', 'gpt')[i % 2], 'value': text} for i, text in enumerate(texts)]


def write_llava(folder: pathlib.Path) -> Written:
    """The mix's prefixes, the 150K's bare name, a tag at the end, no image, a lost one, and OCR-VQA's endings."""
    rows = [
        ('coco/train2017/000000000001.jpg', turns('<image>\nWhat is it?', 'A cat.', 'Sure?', 'Yes, <image>.')),
        ('000000000001.jpg', turns('What is it?\n<image>', 'A cat.')),
        (None, turns('Two and two?', 'Four.')),
        ('gqa/images/5.jpg', turns('<image>\nLost?', 'Yes.')),
        ('ocr_vqa/images/7.jpg', turns('<image>\nThe title?', 'Cats.')),
        ('../secret.jpg', turns('<image>\nOutside?', 'Yes.')),
        (None, turns('<image>\nNo image?', 'Yes.')),
    ]
    rows = [
        dict(id=str(i), conversations=said) | (dict(image=name) if name else {}) for i, (name, said) in enumerate(rows)
    ]
    (folder / 'llava_v1_5_mix665k.json').write_text(json.dumps(rows, indent=1))
    for name, number in (('coco/train2017/000000000001.jpg', 1), ('ocr_vqa/images/7.png', 7)):
        (folder / 'got' / name).parent.mkdir(parents=True)
        (folder / 'got' / name).write_bytes(encoded_image(number))
    (folder / 'secret.jpg').write_bytes(encoded_image(9))
    return Written(instructions.read, folder / 'llava_v1_5_mix665k.json', folder / 'got')


def write_mimic_it(folder: pathlib.Path) -> Written:
    """A question with three related ones, of which one lost its image, one its answer; and a video of three frames."""
    related = ['LA_INS_2', 'LA_INS_3', 'LA_INS_5']
    data = {
        'LA_INS_1': dict(instruction='What?', answer='A cat.', image_ids=['LA_1'], rel_ins_ids=related),
        'LA_INS_2': dict(instruction='Who?', answer='A dog.', image_ids=['LA_2'], rel_ins_ids=[]),
        'LA_INS_3': dict(instruction='Where?', answer='Here.', image_ids=['LA_3'], rel_ins_ids=['LA_INS_9']),
        'DC_INS_4': dict(instruction='Then?', answer='Blue.', image_ids=['LA_1', 'LA_2', 'LA_1'], rel_ins_ids=[]),
        'LA_INS_5': dict(instruction='Why?', answer=None, image_ids=['LA_1'], rel_ins_ids=None),
    }
    (folder / 'LA_instructions.json').write_text(json.dumps(dict(meta=dict(version='0.0.1'), data=data)))
    rows = {'base64': [in_base64(encoded_image(i)) for i in (1, 2)], '__index_level_0__': ['LA_1', 'LA_2']}
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / 'images.parquet')
    return Written(instructions.read, folder / 'LA_instructions.json', folder / 'images.parquet')


def write_m3it(folder: pathlib.Path) -> Written:
    lines = [
        dict(
            instruction='Look.', inputs='What is it?', image_base64_str=[in_base64(encoded_image(1))], outputs='A cat.'
        ),
        dict(instruction='Describe.', inputs='', img_str=in_base64(encoded_image(2)), outputs='A dog.'),
        dict(instruction='Describe.', inputs=None, image_base64_str=['!!!'], outputs='A bird.'),
    ]
    (folder / 'train.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    return Written(instructions.read, folder / 'train.jsonl')


def write_llava_next(folder: pathlib.Path) -> Written:
    """Rows that hold their images, and one of text alone."""
    said = [turns('<image>\nWhat is it?', 'A cat.'), turns('Hi.', 'Hello.')]
    images = [dict(bytes=encoded_image(1), path='a.png'), None]
    rows = dict(id=['a', 'b'], image=images, conversations=said, data_source=['x', 'y'])
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / 'train-00000-of-00250.parquet')
    return Written(instructions.read, folder / 'train-00000-of-00250.parquet')


SETS = {name.removeprefix('write_'): write for name, write in list(globals().items()) if name.startswith('write_')}
