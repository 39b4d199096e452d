"""Small sets of questions in the official formats of the paper's benchmarks, cut from their documentation.

Each function writes one set into a folder, with real images and videos, and returns what must be read from it.
"""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

from flamingo_jax.evaluation import metrics
from flamingo_jax.evaluation.datasets.coco import COCO
from flamingo_jax.evaluation.datasets.flickr30k import Flickr30k
from flamingo_jax.evaluation.datasets.hateful_memes import HatefulMemes
from flamingo_jax.evaluation.datasets.imagenet import ImageNet
from flamingo_jax.evaluation.datasets.ivqa import IVQA
from flamingo_jax.evaluation.datasets.kinetics700 import Kinetics700
from flamingo_jax.evaluation.datasets.msrvtt_qa import MSRVTTQA
from flamingo_jax.evaluation.datasets.msvd_qa import MSVDQA
from flamingo_jax.evaluation.datasets.next_qa import NExTQA
from flamingo_jax.evaluation.datasets.ok_vqa import OKVQA
from flamingo_jax.evaluation.datasets.rareact import RareAct
from flamingo_jax.evaluation.datasets.star import STAR
from flamingo_jax.evaluation.datasets.textvqa import TextVQA
from flamingo_jax.evaluation.datasets.vatex import VATEX
from flamingo_jax.evaluation.datasets.visdial import VisDial
from flamingo_jax.evaluation.datasets.vizwiz import VizWiz
from flamingo_jax.evaluation.datasets.vqav2 import VQAv2
from flamingo_jax.evaluation.datasets.youcook2 import YouCook2


@dataclasses.dataclass(frozen=True)
class Expected:
    """What must be read from a set."""

    of: type
    metric: metrics.Metric
    references: dict[str, Any]  # By the id of a question.
    text: str  # Between the image and the answer of the first question.
    example: str  # Text and answer of one of the examples.
    candidates: tuple[str, ...] = ()
    written: tuple[str, ...] = ()  # The spelling of each candidate, if others.
    segment: tuple[float, float | None] | None = None  # Of the first question's video.


def image(path: pathlib.Path) -> None:
    """An image of its own colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    PIL.Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path, 'JPEG')


def write_video(path: pathlib.Path, seconds: int = 6) -> None:
    """A video of 5 frames a second, which grows lighter: 40 more in each second."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w', format='mp4') as container:
        stream = container.add_stream('mpeg4', rate=5, options={'qscale': '1'})
        stream.width = stream.height = 16
        for i in range(5 * seconds):
            still = PIL.Image.new('RGB', (16, 16), (8 * i,) * 3)
            container.mux(stream.encode(av.VideoFrame.from_image(still)))
        container.mux(stream.encode())


def as_json(path: pathlib.Path, value: Any) -> None:
    """Writes a .json file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def as_csv(path: pathlib.Path, columns: str, rows: Sequence[Sequence[Any]]) -> None:
    """Writes a .csv file."""
    with open(path, 'w', newline='') as file:
        csv.writer(file).writerows([columns.split(), *rows])


def ten(answer: str, others: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The answers of ten annotators; `others` gave the first ones."""
    given = [*others, *[answer] * (10 - len(others))]
    return [dict(answer=a, answer_confidence='yes', answer_id=i + 1) for i, a in enumerate(given)]


def _karpathy(folder: pathlib.Path, coco: bool) -> list[dict[str, Any]]:
    images = []
    for number, split in enumerate(['train'] * 5 + ['restval', 'val', 'test', 'test'], 1):
        part = 'train2014' if split == 'train' else 'val2014'
        name = f'COCO_{part}_{number:012d}.jpg' if coco else f'{1000 + number}.jpg'
        raws = [f'A {split} image, number {number}.', f'Image {number} of "{split}"']
        sentences = [
            dict(tokens=raw.lower().split(), raw=raw, imgid=number, sentid=10 * number + i)
            for i, raw in enumerate(raws)
        ]
        one = dict(
            filename=name, imgid=number, split=split, sentences=sentences, sentids=[10 * number, 10 * number + 1]
        )
        images.append(one | dict(filepath=part, cocoid=number) if coco else one)
        image(folder / part / name if coco else folder / 'flickr30k-images' / name)
    return images


def coco(folder: pathlib.Path) -> Expected:
    as_json(folder / 'dataset_coco.json', dict(images=_karpathy(folder, True), dataset='coco'))
    image(folder / 'test2014/COCO_test2014_000000000077.jpg')
    info = dict(id=77, file_name='COCO_test2014_000000000077.jpg', height=20, width=24)
    as_json(folder / 'annotations/image_info_test2014.json', dict(images=[info], info={}))
    references = {str(n): (f'A test image, number {n}.', f'Image {n} of "test"') for n in (8, 9)}
    return Expected(COCO, metrics.find('cider'), references, ' Output:', ' Output: A restval image, number 6.')


def flickr30k(folder: pathlib.Path) -> Expected:
    as_json(folder / 'dataset_flickr30k.json', dict(images=_karpathy(folder, False), dataset='flickr30k'))
    references = {f'100{n}.jpg': (f'A test image, number {n}.', f'Image {n} of "test"') for n in (8, 9)}
    return Expected(Flickr30k, metrics.find('cider'), references, ' Output:', ' Output: A train image, number 3.')


def _two_files(folder: pathlib.Path, questions: str, annotations: str, parts: dict[str, int]) -> None:
    for part, first in parts.items():
        of_part = part.replace('-dev', '')
        # Two questions of each image.
        asked = [
            dict(question_id=10 * number + i, image_id=number, question=f'What is {i} in {number}?')
            for number in range(first, first + 4)
            for i in range(2)
        ]
        as_json(folder / questions.format(part), dict(info={}, questions=asked, task_type='Open-Ended'))
        for number in range(first, first + 4):
            image(folder / of_part / f'COCO_{of_part}_{number:012d}.jpg')
        if 'test' not in part:
            answered = [
                dict(
                    question_id=q['question_id'],
                    image_id=q['image_id'],
                    question_type='what is',
                    answer_type='other',
                    multiple_choice_answer=f'thing {q["question_id"]}',
                    answers=ten(f'thing {q["question_id"]}', ['perhaps']),
                )
                for q in reversed(asked)  # Their order is their own.
            ]
            as_json(folder / annotations.format(part), dict(info={}, annotations=answered))


def _vqa_references(ids: Sequence[int]) -> dict[str, Any]:
    return {str(id): tuple(ten(f'thing {id}', ['perhaps'])) for id in ids}


def vqav2(folder: pathlib.Path) -> Expected:
    parts = {'train2014': 1, 'val2014': 21, 'test2015': 31, 'test-dev2015': 31}
    _two_files(folder, 'v2_OpenEnded_mscoco_{}_questions.json', 'v2_mscoco_{}_annotations.json', parts)
    dev = folder / 'v2_OpenEnded_mscoco_test-dev2015_questions.json'
    as_json(dev, json.loads(dev.read_text()) | dict(questions=json.loads(dev.read_text())['questions'][:3]))
    ids = [10 * n + i for n in range(21, 25) for i in range(2)]
    text = ' Question: What is 0 in 21? Answer:'
    return Expected(
        VQAv2, metrics.find('vqa'), _vqa_references(ids), text, ' Question: What is 1 in 2? Answer: thing 21'
    )


def ok_vqa(folder: pathlib.Path) -> Expected:
    parts = {'train2014': 1, 'val2014': 21}
    _two_files(folder, 'OpenEnded_mscoco_{}_questions.json', 'mscoco_{}_annotations.json', parts)
    ids = [10 * n + i for n in range(21, 25) for i in range(2)]
    text = ' Question: What is 0 in 21? Answer:'
    return Expected(
        OKVQA, metrics.find('vqa'), _vqa_references(ids), text, ' Question: What is 1 in 2? Answer: thing 21'
    )


def textvqa(folder: pathlib.Path) -> Expected:
    for split, first in (('train', 100), ('val', 200), ('test', 300)):
        images = 'test_images' if split == 'test' else 'train_images'
        data = []
        for id in range(first, first + 4):
            name = f'{id:x}0000000000beef'
            image(folder / images / f'{name}.jpg')
            one = dict(question=f'what is written on {id}?', question_id=id, image_id=name, set_name=split)
            data.append(one if split == 'test' else one | dict(answers=['stop'] * 8 + [f'sign {id}'] * 2))
        as_json(folder / f'TextVQA_0.5.1_{split}.json', dict(dataset_type=split, data=data))
    references = {str(id): ('stop',) * 8 + (f'sign {id}',) * 2 for id in range(200, 204)}
    text = ' Question: what is written on 200? Answer:'
    return Expected(TextVQA, metrics.find('vqa'), references, text, ' Question: what is written on 101? Answer: stop')


def without_ids(i: int) -> list[dict[str, str]]:
    """Answers as VizWiz has them."""
    return [dict(answer=a, answer_confidence='yes') for a in ['unsuitable'] * 4 + [f'can {i}'] * 6]


def vizwiz(folder: pathlib.Path) -> Expected:
    for split in ('train', 'val', 'test'):
        found = []
        for i in range(4):
            name = f'VizWiz_{split}_{i:08d}.jpg'
            image(folder / split / name)
            one = dict(image=name, question=f"What's this {i}?")
            answers = without_ids(i)
            found.append(
                one if split == 'test' else one | dict(answers=answers, answer_type='other', answerable=int(i > 0))
            )
        as_json(folder / 'Annotations' / f'{split}.json', found)
    references = {f'VizWiz_val_{i:08d}.jpg': tuple(without_ids(i)) for i in range(4)}
    text = " Question: What's this 0? Answer:"
    return Expected(VizWiz, metrics.find('vqa'), references, text, " Question: What's this 2? Answer: can 2")


def visdial(folder: pathlib.Path) -> Expected:
    questions, answers = ['is it red', 'is it big', 'how many'], ['yes', 'no', 'two', 'Yes', 'can not tell']
    dense = []
    for split, first in (('train', 1), ('val', 11)):
        dialogs = []
        for id in range(first, first + 3):
            turns = [dict(question=q, answer=a) for q, a in ((0, 0), (1, 1), (2, 2))]
            if split == 'val':
                turns = [t | dict(answer_options=[1, 3, 0, 2, 4], gt_index=[2, 0, 3][i]) for i, t in enumerate(turns)]
                image(folder / 'VisualDialog_val2018' / f'VisualDialog_val2018_{id:012d}.jpg')
                dense.append(dict(image_id=id, round_id=2, gt_relevance=[1.0, 0.0, 0.2, 0.0, 0.0]))
            else:
                part = 'train2014' if id == first else 'val2014'
                image(folder / part / f'COCO_{part}_{id:012d}.jpg')
            dialogs.append(dict(image_id=id, caption=f'a cat on {id} mats', dialog=turns))
        data = dict(questions=questions, answers=answers, dialogs=dialogs)
        as_json(folder / f'visdial_1.0_{split}.json', dict(version='1.0', split=split, data=data))
    as_json(folder / 'visdial_1.0_val_dense_annotations.json', dense)
    # `Yes` and `yes` are one to a reader, and two to the set.
    names = ('no', 'Yes (1)', 'yes (2)', 'two', 'can not tell')
    references = {str(id): dict(zip(names, (1.0, 0.0, 0.2, 0.0, 0.0), strict=True)) for id in (11, 12, 13)}
    text = ' a cat on 11 mats Question: is it red? Answer: yes Question: is it big? Answer:'
    example = ' a cat on 2 mats Question: is it red? Answer: yes Question: is it big? Answer: no'
    example += ' Question: how many? Answer: two'
    return Expected(
        VisDial, metrics.find('ndcg'), references, text, example, names, ('no', 'Yes', 'yes', 'two', 'can not tell')
    )


def hateful_memes(folder: pathlib.Path) -> Expected:
    for split, first in (('train', 42950), ('dev_seen', 1000), ('test_seen', 2000), ('test', 3000)):
        lines = []
        for id in range(first, first + 4):
            image(folder / 'img' / f'{id:05d}.png')
            one = dict(id=id, img=f'img/{id:05d}.png', label=id % 2, text=f'look at {{this}} {id}')
            lines.append({key: value for key, value in one.items() if split != 'test' or key != 'label'})
        (folder / f'{split}.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    references = {str(id): ('no', 'yes')[id % 2] for id in range(2000, 2004)}
    meme = ' is an image with written: "look at {{this}} {}" on it. Is it hateful? Answer:'
    example = meme.format(42951) + ' yes'
    return Expected(HatefulMemes, metrics.find('roc_auc'), references, meme.format(2000), example, ('yes', 'no'))


CLASSES = 'n02012849 crane\nn01440764 tench, Tinca tinca\nn03126707 crane\n'  # In no order.


def imagenet(folder: pathlib.Path) -> Expected:
    (folder / 'LOC_synset_mapping.txt').write_text(CLASSES)
    root = folder / 'ILSVRC/Data/CLS-LOC'
    ids = ['n01440764', 'n02012849', 'n03126707']
    for key in ids:
        for i in range(4):
            image(root / 'train' / key / f'{key}_{i}.JPEG')
    rows = [(f'ILSVRC2012_val_{i + 1:08d}', f'{key} 85 1 499 272 ') for i, key in enumerate(reversed(ids))]
    for name, _ in rows:
        image(root / 'val' / f'{name}.JPEG')
    as_csv(folder / 'LOC_val_solution.csv', 'ImageId PredictionString', rows)
    names = ('tench', 'crane (n02012849)', 'crane (n03126707)')
    references = {row[0]: (name,) for row, name in zip(rows, reversed(names), strict=True)}
    return Expected(
        ImageNet, metrics.find('accuracy'), references, ' Output:', ' Output: crane', names, ('tench', 'crane', 'crane')
    )


def kinetics700(folder: pathlib.Path) -> Expected:
    for name, part in (('train', 'train'), ('validate', 'val')):
        rows = []
        for i in range(6 if name == 'train' else 2):
            label = ('yoga', 'abseiling')[i % 2]
            rows.append((label, f'{name[:3]}-_{i}', i, i + 10, name))
            # The training videos lie in folders of actions, the others do not.
            folders = folder / part / label if name == 'train' else folder / part
            write_video(folders / f'{name[:3]}-_{i}_{i:06d}_{i + 10:06d}.mp4', 1)
        as_csv(folder / f'{name}.csv', 'label youtube_id time_start time_end split', rows)
    references = {'val-_0_000000_000010': 'yoga', 'val-_1_000001_000011': 'abseiling'}
    candidates = ('abseiling', 'yoga')
    return Expected(
        Kinetics700,
        metrics.find('top1_top5'),
        references,
        ' Output:',
        ' Output: abseiling',
        candidates,
        candidates,
        (0.0, None),
    )


def vatex(folder: pathlib.Path) -> Expected:
    files = dict(
        vatex_training='train', vatex_public_test_english='test', vatex_private_test_without_annotations='private'
    )
    for file, split in files.items():
        version = dict(train='_v1.0', test='_v1.1', private='')[split]
        found = []
        for i in range(4):
            id = f'{split[:4]}-_{i}_00000{i}_00001{i}'
            one = dict(videoID=id, enCap=[f'A man is {split} {i} .', f'Someone, {i}.'], chCap=['一个男人'])
            found.append(dict(videoID=id) if split == 'private' else one)
            write_video(folder / 'videos' / f'{id}.mp4', 1)
        as_json(folder / f'{file}{version}.json', found)
    references = {f'test-_{i}_00000{i}_00001{i}': (f'A man is test {i} .', f'Someone, {i}.') for i in range(4)}
    return Expected(
        VATEX, metrics.find('cider'), references, ' Output:', ' Output: A man is train 2 .', segment=(0.0, None)
    )


def youcook2(folder: pathlib.Path) -> Expected:
    database = {}
    for subset, names in (('training', ('GLd3aX16zBg', 'xHr8X2Wpmno')), ('validation', ('fn9anlEL4FI',))):
        for name in names:
            steps = [
                dict(id=0, segment=[1, 3], sentence=f'chop {name}'),
                dict(id=1, segment=[4, 6], sentence=f'fry {name}'),
            ]
            about = dict(subset=subset, recipe_type='113', duration=6.0, annotations=steps)
            database[name] = about | dict(video_url=f'https://www.youtube.com/watch?v={name}')
            write_video(folder / 'raw_videos' / subset / '113' / f'{name}.mp4')
    as_json(folder / 'youcookii_annotations_trainval.json', dict(database=database))
    references = {'fn9anlEL4FI_0': ('chop fn9anlEL4FI',), 'fn9anlEL4FI_1': ('fry fn9anlEL4FI',)}
    return Expected(
        YouCook2, metrics.find('cider'), references, ' Output:', ' Output: fry xHr8X2Wpmno', segment=(1.0, 3.0)
    )


def _qa(folder: pathlib.Path, videos: str, mapping: dict[str, str]) -> dict[str, Any]:
    for split, first in (('train', 1), ('test', 6)):
        found = []
        for i in range(first, first + 4):
            path = folder / videos.format(mapping.get(f'vid{i}', i))
            write_video(path, 1)
            found.append(dict(question=f'what is a man doing {i}', answer=f'run{i}', video_id=i, id=i))
        as_json(folder / f'{split}_qa.json', found)
    return {str(i): (f'run{i}',) for i in range(6, 10)}


def msvd_qa(folder: pathlib.Path) -> Expected:
    mapping = {f'vid{i}': f'-4wsuPCjDBç_{i}_15' for i in range(1, 10)}
    lines = ''.join(f'{name} {number}\n' for number, name in mapping.items())
    (folder / 'youtube_mapping.txt').write_text(lines, encoding='utf-8')
    references = _qa(folder, 'YouTubeClips/{}.avi', mapping)
    text, example = (f' Question: what is a man doing {i}? Answer:' for i in (6, 2))
    return Expected(MSVDQA, metrics.find('exact'), references, text, f'{example} run2', segment=(0.0, None))


def msrvtt_qa(folder: pathlib.Path) -> Expected:
    references = _qa(folder, 'videos/video{}.mp4', {})
    text, example = (f' Question: what is a man doing {i}? Answer:' for i in (6, 2))
    return Expected(MSRVTTQA, metrics.find('exact'), references, text, f'{example} run2', segment=(0.0, None))


def ivqa(folder: pathlib.Path) -> Expected:
    columns = 'video_id start end question answer1 answer2 answer3 answer4 answer5'
    for split, first in (('train', 1), ('test', 6)):
        rows = [
            (f'vid{i}', 1, 4, f'what is, in {i}?', 'pan', 'a pan', 'pan', f'pan {i}', 'pot')
            for i in range(first, first + 4)
        ]
        as_csv(folder / f'{split}.csv', columns, rows)
        for name, *_ in rows:
            write_video(folder / 'videos' / f'{name}.mp4')
    references = {str(i): ('pan', 'a pan', 'pan', f'pan {i + 6}', 'pot') for i in range(4)}
    text, example = (f' Question: what is, in {i}? Answer:' for i in (6, 2))
    return Expected(IVQA, metrics.find('ivqa'), references, text, f'{example} pan', segment=(1.0, 4.0))


def rareact(folder: pathlib.Path) -> Expected:
    rows = [
        (0, '7frRY7aGwMU', 3, 5, 0, 'cut', 'laptop', 1),
        (1, '7frRY7aGwMU', 0, 2, 0, 'cut', 'laptop', 2),
        (2, 'RB0rGYsRkRU', 1, 4, 1, 'blend', 'phone', 1),
        (3, 'RB0rGYsRkRU', 2, 5, 2, 'wash', 'egg', 0),
    ]
    as_csv(folder / 'rareact.csv', 'id video_id start end class_id verb noun annotation', rows)
    for name in {row[1] for row in rows}:
        write_video(folder / 'videos' / f'{name}.mp4')
    references = {
        str(id): dict(video=video, verb=verb, noun=noun, annotation=annotation)
        for id, video, _, _, _, verb, noun, annotation in rows
    }
    written = ('a person cuts a laptop', 'a person blends a phone', 'a person washes an egg')
    names = ('cut laptop', 'blend phone', 'wash egg')
    return Expected(RareAct, metrics.find('mwap'), references, ' Caption:', '', names, written, (3.0, 5.0))


def next_qa(folder: pathlib.Path) -> Expected:
    columns, names = 'video frame_count width height question answer qid type', {}
    for split, first in (('train', 1), ('test', 6)):
        rows = []
        for i in range(first, first + 4):
            video = f'408240149{i}'
            names[video] = f'1164/{video}'
            write_video(folder / 'NExTVideo' / '1164' / f'{video}.mp4', 1)
            rows.append((video, 5, 16, 16, f'why did the dog {i} run', f'to play, {i}', i % 2, 'CW'))
        as_csv(folder / f'{split}.csv', columns, rows)
    as_json(folder / 'map_vid_vidorID.json', names)
    as_json(folder / 'add_reference_answer_test.json', {'4082401496': {'0': 'to have fun'}})
    references = {f'408240149{i}_{i % 2}': dict(answer=f'to play, {i}', type='CW') for i in range(6, 10)}
    references['4082401496_0']['additional'] = 'to have fun'
    text, example = (f' Question: why did the dog {i} run? Answer:' for i in (6, 2))
    of, metric = NExTQA, metrics.find('wups')
    try:
        metric({'': 'dogs'}, {'': dict(answer='dog', type='CW')})
    except (ImportError, FileNotFoundError):  # NLTK or its data are not here. The files can be read without.

        def metric(predictions, references):
            return 0.0, dict.fromkeys(references, 0.0)

        of = type('NExTQA', (NExTQA,), dict(metric=staticmethod(metric)))
    return Expected(of, metric, references, text, f'{example} to play, 2', segment=(0.0, None))


def star(folder: pathlib.Path) -> Expected:
    texts = ('The closet/cabinet.', 'The blanket.', 'The clothes.', 'The table.')
    for split, first in (('train', 1), ('val', 4), ('test', 7)):
        found = []
        for i in range(first, first + 3):
            one = dict(
                question_id=f'Interaction_T1_{i}',
                question='Which object was tidied up by the person?',
                video_id=f'6H78{i}',
                start=1.2,
                end=4.0,
                question_program=[],
                choices=[dict(choice_id=c, choice=texts[c], choice_program=[]) for c in (2, 0, 1, 3)],
                situations={},
            )
            found.append(one if split == 'test' else one | dict(answer=texts[i % 4]))
            write_video(folder / 'Charades_v1_480' / f'6H78{i}.mp4')
        as_json(folder / f'STAR_{split}.json', found)
    references = {f'Interaction_T1_{i}': (texts[i % 4],) for i in (4, 5, 6)}
    text = ' Question: Which object was tidied up by the person? Answer:'
    return Expected(STAR, metrics.find('exact'), references, text, f'{text} The clothes.', texts, texts, (1.2, 4.0))


SETS = {
    'coco': coco,
    'flickr30k': flickr30k,
    'vqav2': vqav2,
    'ok_vqa': ok_vqa,
    'textvqa': textvqa,
    'vizwiz': vizwiz,
    'visdial': visdial,
    'hateful_memes': hateful_memes,
    'imagenet': imagenet,
    'kinetics700': kinetics700,
    'vatex': vatex,
    'youcook2': youcook2,
    'msvd_qa': msvd_qa,
    'msrvtt_qa': msrvtt_qa,
    'ivqa': ivqa,
    'rareact': rareact,
    'next_qa': next_qa,
    'star': star,
}
