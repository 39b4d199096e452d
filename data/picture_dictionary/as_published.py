"""Writes the images of the sample in the shapes of published sets, to try the commands that read those:

    python -m data.picture_dictionary.as_published --out=RAW

    RAW/pairs/00000.tar             webdataset: a drawing and its English name
    RAW/videos/00000.tar             webdataset: MP4 clips of 4 s in which a drawing slides, and which way
    RAW/instructions/llava.json     LLaVA's conversations about the drawings in RAW/instructions/images/

Videos need the extra `videos`.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('out', None, 'Folder to write.', required=True)
    flags.DEFINE_string('data', 'data/picture_dictionary/sample', 'Folder of a prepared image set.')
    flags.DEFINE_string('split', 'train', 'Its split.')
    flags.DEFINE_integer('number', 400, 'Drawings to write.', lower_bound=1)
    commands.start(__doc__)

import io
import json
import pathlib
import tarfile

import numpy as np
import PIL.Image
from tqdm import tqdm

from data.picture_dictionary.picture_dictionary_dataset_builder import names_of
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.sources.array_record import open_split
from flamingo_jax.tasks.kinds import with_article

SIDE, RATE, SECONDS = 96, 4, 4  # Pixels, frames a second, and seconds of a video.
WAYS = {'right': (0, 1), 'left': (0, -1), 'down': (1, 0), 'up': (-1, 0)}


def main() -> None:
    """Writes the three sets."""
    f = flags.FLAGS
    out, records, rng = pathlib.Path(f.out), open_split(f.data, f.split), np.random.default_rng(0)
    (out / 'instructions/images').mkdir(parents=True, exist_ok=True)
    (out / 'pairs').mkdir(exist_ok=True)
    (out / 'videos').mkdir(exist_ok=True)
    conversations = []
    chosen = rng.permutation(len(records))[: f.number]
    with tarfile.open(out / 'pairs/00000.tar', 'w') as pairs, tarfile.open(out / 'videos/00000.tar', 'w') as videos:
        for number, i in enumerate(tqdm(chosen, unit=' drawings', desc=str(out))):
            record, key = records[int(i)], f'{number:09d}'
            image, name = record['frames'][0], names_of(record)['en']
            category = record['category'].decode()
            _add(pairs, {f'{key}.webp': image, f'{key}.txt': name.encode(), f'{key}.json': b'{}'})
            way = str(rng.choice(list(WAYS)))
            text = f'{with_article(name)} moves {way}'.encode()
            _add(videos, {f'{key}.mp4': _video(image, way), f'{key}.txt': text, f'{key}.json': b'{}'})
            (out / f'instructions/images/{key}.webp').write_bytes(image)
            turns = ('<image>\nWhat is this?', with_article(name), 'What kind of thing is it?', category)
            said = [{'from': ('human', 'gpt')[turn % 2], 'value': text} for turn, text in enumerate(turns)]
            conversations.append(dict(id=key, image=f'{key}.webp', conversations=said))
    (out / 'instructions/llava.json').write_text(json.dumps(conversations))


def _add(archive: tarfile.TarFile, members: dict[str, bytes]) -> None:
    for name, data in members.items():
        about = tarfile.TarInfo(name)
        about.size = len(data)
        archive.addfile(about, io.BytesIO(data))


def _video(image: bytes, way: str) -> bytes:
    import av  # The extra `videos`.

    small = PIL.Image.fromarray(to_frames(image, SIDE // 2)[0])
    file, steps = io.BytesIO(), RATE * SECONDS
    with av.open(file, 'w', format='mp4') as container:
        stream = container.add_stream('mpeg4', rate=RATE)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, 'yuv420p'
        for step in range(steps):
            at = [round(SIDE / 4 + sign * SIDE / 2 * (step / (steps - 1) - 0.5)) for sign in WAYS[way]]
            frame = PIL.Image.new('RGB', (SIDE, SIDE), 'white')
            frame.paste(small, (at[1], at[0]))
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))
    return file.getvalue()


if __name__ == '__main__':
    main()
