"""MMC4: zips of JSON lines, or the lines themselves. A page is its sentences, and an image stands before one of them.

The file says for each image the sentence that it was assigned to, and its similarity to every sentence. If an image
is missing, the rest is assigned anew, to the largest sum of similarities, as MMC4 did it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.optimize

from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, extension, json_lines, opened, zip_members
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import image_rule
from flamingo_jax.errors import UserError

SIMILARITY = 0.24  # Least similarity of an image to its sentence, by CLIP ViT-L/14 (OpenFlamingo's value).


def read(path: str, name: str, image_folder: ImageFolder) -> Iterator[Document | Dropped]:
    """The documents of a .zip or .jsonl file. Images are found by `image_name`, in any folder, or by `raw_url`."""

    def make(row: Row) -> Iterator[Document | Dropped]:
        found = []
        for image in row.value['image_info']:
            data = image_folder.read(image['image_name'])
            found.append(image_folder.read(image.get('raw_url')) if data is None else data)
        yield from page(row, found)

    yield from documents(_lines(path, name), make)


def page(row: Row, found: list[bytes | None]) -> Iterator[Document | Dropped]:
    """The document of a line of MMC4.

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
