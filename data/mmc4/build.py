"""Interleaved pages from MMC4, or from the tars that OpenFlamingo made of it.

    python -m data.mmc4.build --source="mmc4/*.jsonl.zip" --images=IMAGES --out=DATA
    python -m data.mmc4.build --source="shards/*.tar" --out=DATA --name=open_flamingo

IMAGES has the images by their names in MMC4 (image_name), in any folders, or as img2dataset stored them.
"""

from data import published

if __name__ == '__main__':
    published.start(__doc__)

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.optimize

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.builder import PublishedBuilder
from flamingo_jax.building.readers.containers import (
    Row,
    documents,
    extension,
    json_lines,
    opened,
    parsed,
    tar_members,
    zip_members,
)
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import decoded, image_rule
from flamingo_jax.errors import UserError

SIMILARITY = 0.24  # Least similarity of an image to its sentence, by CLIP ViT-L/14 (OpenFlamingo's value).
PLACE = re.compile('(_!_IMAGE[0-9]+_!_)')  # Of an image in a page of ChatGPT.


def read_lines(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """Zips of JSON lines, or the lines alone. Images are found by `image_name`, in any folder, or by `raw_url`."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        found = []
        for image in row.value['image_info']:
            data = image_folder.read(image['image_name'])
            found.append(image_folder.read(image.get('raw_url')) if data is None else data)
        yield from page(row, found)

    yield from documents(_lines(path, name), make)


def page(row: Row, found: list[bytes | None]) -> Iterator[Document | Dropped]:
    """The document of a line of MMC4: its sentences, and an image stands before one of them.

    The line says for each image the sentence that it was assigned to, and its similarity to every sentence. If an image
    is missing, the rest is assigned anew, to the largest sum of similarities, as MMC4 did it.

    Args:
      row: with `text_list`, `image_info` and `similarity_matrix` [images sentences].
      found: its images; None is missing.
    """
    texts, infos = row.value['text_list'], row.value['image_info']
    similarity = np.array(row.value['similarity_matrix'], np.float64).reshape(len(infos), len(texts))
    if not np.isfinite(similarity).all():
        raise UserError('similarity_matrix has a number that is not finite')
    draft = Draft(row.where, str(row.value.get('url') or ''))
    rules = ['image_missing' if data is None else image_rule(data) for data in found]
    here = [i for i, rule in enumerate(rules) if not rule]
    for info, rule in zip(infos, rules, strict=True):
        if rule:
            draft.drop(rule, 'image', _name(info))
    if len(here) == len(infos):
        sentences = {i: int(info['matched_text_index']) for i, info in enumerate(infos)}
        if any(not 0 <= sentence < len(texts) for sentence in sentences.values()):
            raise UserError('matched_text_index is of no sentence')
    else:
        chosen = scipy.optimize.linear_sum_assignment(-similarity[here])
        sentences = {here[i]: int(sentence) for i, sentence in zip(*chosen, strict=True)}
    before: dict[int, list[int]] = {}
    for i in here:
        if i not in sentences:  # More images than sentences.
            draft.drop('image_without_sentence', 'image', _name(infos[i]))
        elif (value := similarity[i, sentences[i]]) < SIMILARITY:
            draft.drop('image_similarity', 'image', _name(infos[i]), value)
        else:
            before.setdefault(sentences[i], []).append(i)
    waiting: list[str] = []
    for number, text in enumerate(texts):
        if number in before:
            if waiting:
                draft.text(' '.join(waiting))
            for i in before[number]:
                draft.add(found[i])
            waiting = []
        waiting.append(text)
    draft.text(' '.join(waiting))
    yield from draft.finish()


def _lines(path: str, name: str) -> Iterator[Row | Dropped]:
    if extension(path) != '.zip':
        with opened(path) as file:
            yield from json_lines(file, name)
        return
    for member in zip_members(path, name):
        if isinstance(member, Dropped):
            yield member
        else:
            yield from json_lines(member.value[1], member.where)


def _name(info: dict[str, Any]) -> str:
    return str(info.get('raw_url') or info.get('image_name') or '')


def read_tar(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """OpenFlamingo's own tars of MMC4, and of the pages that ChatGPT wrote: a .json a page, with its images inside.

    A page of MMC4 has `image_info` with an `image_base64` for each image that could be downloaded. One of ChatGPT has
    an `example` with `_!_IMAGE1_!_` in its text, and `image_map`. `image_folder` is not used.
    """

    def make(member: Row) -> Iterator[Document | Dropped]:
        file, data = member.value
        if not file.endswith('.json'):
            return
        row = parsed(data, member.where)
        if isinstance(row, Dropped):
            yield row
        elif row.value.get('is_gpt'):
            draft = Draft(row.where)
            for part in PLACE.split(row.value['example']):
                if PLACE.fullmatch(part):
                    image = row.value['image_map'].get(part) or {}
                    draft.image(decoded(image.get('base64_image')), part)
                else:
                    draft.text(part.strip(), after_text=' ')
            yield from draft.finish()
        else:
            yield from page(row, [decoded(info.get('image_base64')) for info in row.value['image_info']])

    yield from documents(tar_members(path, name), make)


class Mmc4(PublishedBuilder):
    """Interleaved pages of MMC4."""

    READERS = {'.zip': read_lines, '.jsonl': read_lines, '.tar': read_tar}


if __name__ == '__main__':
    published.build(Mmc4)
