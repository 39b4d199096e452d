"""MIMIC-IT: XX_instructions.json, in which an instruction names its images and related instructions.

The related ones become the shots of the document, in their order; the instruction itself comes last. `--images` is
images.parquet (image id, base64) or XX.json (its older form).
"""

import io
from collections.abc import Iterator
from typing import Any

import PIL.Image

from data.instructions.questions import ask
from flamingo_jax.building.document import Document
from flamingo_jax.building.ledger import Dropped
from flamingo_jax.building.readers.containers import Row, documents, json_file
from flamingo_jax.building.readers.draft import Draft
from flamingo_jax.building.readers.folder import ImageFolder
from flamingo_jax.building.readers.media_files import image_rule
from flamingo_jax.errors import UserError

VIDEOS = ('DC_', 'E4D_', 'TVC_')  # Dense captions, Ego4D, TV captions: the images of an instruction are frames.


def read(path: str, name: str, image_folder: ImageFolder, chat: bool = False) -> Iterator[Document | Dropped]:
    """The documents of a file. It is read into memory, since any instruction may name any other. chat: as for `ask`."""
    file = json_file(path, name)
    if isinstance(file, Dropped):
        yield file
        return
    instructions = file.value.get('data') if isinstance(file.value, dict) else None
    if not isinstance(instructions, dict):
        yield Dropped('json_damaged', 'file', name, excerpt='it has no `data` with the instructions by their id')
        return

    def make(row: Row) -> Iterator[Document | Dropped]:
        identity, own = row.value
        if not _is_whole(own):
            raise UserError('an instruction without question, answer or images')
        draft = Draft(row.where)
        for other in own.get('rel_ins_ids') or []:
            if other == identity:
                continue
            if other not in instructions:
                draft.drop('related_instruction_missing', 'document', str(other))
            elif not _is_whole(instructions[other]):
                draft.drop('related_instruction_malformed', 'document', str(other))
            else:
                _add(draft, str(other), instructions[other], image_folder, chat)
        if _add(draft, identity, own, image_folder, chat):
            yield from draft.finish()
        else:
            yield from draft.give_up('document_without_image', own.get('instruction'))

    rows = (Row(f'{name}#{identity}', (identity, own)) for identity, own in instructions.items())
    yield from documents(rows, make)


def _is_whole(instruction: Any) -> bool:
    """Whether it has a question, an answer and images."""
    return (
        isinstance(instruction, dict)
        and isinstance(instruction.get('instruction'), str)
        and isinstance(instruction.get('answer'), str)
        and bool(instruction['answer'].strip())
        and isinstance(instruction.get('image_ids'), list)
    )


def _add(draft: Draft, identity: str, instruction: dict[str, Any], image_folder: ImageFolder, chat: bool) -> bool:
    """Adds an instruction with its images, unless one is missing: then a shot would show something else."""
    names = instruction['image_ids']
    found = [image_folder.read(name) for name in names]
    bad = [name for name, data in zip(names, found, strict=True) if data is None or image_rule(data)]
    if bad or not found:
        draft.drop('image_missing', 'image', ' '.join(map(str, bad)) or identity)
        return False
    shown = [_clip(found)] if identity.startswith(VIDEOS) else found
    return ask(draft, [*shown, instruction['instruction']], instruction['answer'], chat)


def _clip(frames: list[bytes]) -> bytes:
    """Frames, a second apart, as an animated WebP of the size of the first."""
    images = [PIL.Image.open(io.BytesIO(frame)).convert('RGB') for frame in frames]
    images = [image if image.size == images[0].size else image.resize(images[0].size) for image in images]
    clip = io.BytesIO()
    images[0].save(clip, 'WEBP', save_all=True, append_images=images[1:], duration=1000, quality=90)
    return clip.getvalue()
