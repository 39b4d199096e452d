"""Stored documents: videos, what is left to chance, and features in place of pixels."""

import dataclasses
import io
import json
import pathlib
import shutil
import types

import jax
import numpy as np
import PIL.Image
import pytest

from flamingo_jax import features, files
from flamingo_jax.files import whole
from flamingo_jax.inputs import augment
from flamingo_jax.inputs.images import ImageFormat, to_frames
from flamingo_jax.inputs.pipeline import rows
from flamingo_jax.inputs.prompts import ANSWERS, ASKS, ENDS_TURN, chat, encode
from flamingo_jax.inputs.sources.documents import Documents, holds_image
from flamingo_jax.inputs.tokenizer import Tokenizer
from flamingo_jax.training import config as training
from tests.tiny_run import SAMPLE, make_trunk

pytestmark = pytest.mark.usefixtures('quick_compilation')


def save(path, value, half=None):
    pixels = np.full((16, 16, 3), value, np.uint8)
    pixels[:, 8:] = value if half is None else half
    PIL.Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """An image that is darker on its right, a clip of four frames, and one that cannot be read."""
    save(tmp_path / 'a.png', 200, 100)
    for i in range(4):
        save(tmp_path / f'{i}.png', 40 * i)
    frames = [PIL.Image.open(tmp_path / f'{i}.png') for i in range(4)]
    frames[0].save(tmp_path / 'b.webp', save_all=True, append_images=frames[1:], duration=250, lossless=True)
    (tmp_path / 'bad.png').write_bytes(b'no image')
    return tmp_path


def write(folder, *lines):
    (folder / 'own.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    return str(folder / 'own.jsonl')


IMAGES = ImageFormat(8)
CHATS = Tokenizer.read(pathlib.Path(__file__).parents[3] / 'experiments/smollm_bridge', 'token')  # SmolLM2's.


def drawn(tokenizer, image_format=IMAGES, number=40, length=40, **fields):
    every = rows(Documents(length=length, batch_size=1, **fields), tokenizer, image_format, 0)
    return [every[i] for i in range(number)]


def test_an_image_set_has_no_documents(tokenizer):
    with pytest.raises(ValueError, match=r'sample has no documents: its records hold .*such as FewShot'):
        drawn(tokenizer, path=SAMPLE)


def test_videos_are_videos(folder, tokenizer):
    """Encoded, as frames, and a still in which nothing moves."""
    path = write(
        folder, [{'video': 'b.webp'}, ' dax', {'video': ['0.png', '3.png']}, ' wug', {'image': '2.png'}, ' zup']
    )
    (row,) = drawn(tokenizer, path=path, images=3, frames=4, number=1)
    assert row.images.shape == (3, 4, 8, 8, 3)
    assert row.images[:, :, 4, 4, 0].tolist() == [[0, 40, 80, 120], [0, 0, 120, 120], [80] * 4]


def test_images_are_mirrored_and_recoloured_by_chance(folder, tokenizer):
    path = write(folder, [{'image': 'a.png'}, ' dax'])
    plain = drawn(tokenizer, path=path, images=1, number=4)
    assert {int(row.images[0, 0, 4, 1, 0]) for row in plain} == {200}
    left = [int(row.images[0, 0, 4, 1, 0]) for row in drawn(tokenizer, path=path, images=1, flip=True)]
    assert set(left) == {200, 100} and 8 < left.count(100) < 32
    colours = {int(row.images[0, 0, 4, 1, 0]) for row in drawn(tokenizer, path=path, images=1, recolour=True)}
    assert len(colours) > 10 and min(colours) < 190
    again = drawn(tokenizer, path=path, images=1, flip=True, recolour=True)
    for a, b in zip(again, drawn(tokenizer, path=path, images=1, flip=True, recolour=True), strict=True):
        np.testing.assert_array_equal(a.images, b.images)  # Chance is a function of seed and position.


def test_an_image_is_recoloured_by_brightness_contrast_and_saturation():
    red = np.zeros((1, 2, 2, 3), np.uint8)
    red[..., 0] = 100
    np.testing.assert_array_equal(augment.recolour(red, (2.0, 1.0, 1.0)), 2 * red)
    (flat,) = augment.recolour(red, (1.0, 0.0, 1.0))
    assert (flat == flat[0, 0, 0]).all() and flat.any()  # The mean.
    (grey,) = augment.recolour(red, (1.0, 1.0, 0.0))
    assert (grey == grey[..., :1]).all() and 25 < grey[0, 0, 0] < 35  # .3 of 100.


def test_half_of_paired_texts_begin_with_a_space(folder, tokenizer):
    path = write(folder, [{'image': 'a.png'}, 'dax', ' wug'])
    texts = [tokenizer.decode(row.tokens[: row.used]) for row in drawn(tokenizer, path=path, images=1, space=0.5)]
    assert set(texts) == {'<image>dax wug<EOC>', '<image> dax wug<EOC>'}
    assert 8 < texts.count('<image> dax wug<EOC>') < 32


@pytest.mark.parametrize('kind', ['align', 'ltip', 'vtp'])
def test_each_word_of_a_long_caption_sees_its_image(folder, tokenizer, kind):
    """In the paper's recipe, of a caption that does not fit, packed or not."""
    path = write(folder, [{'image': 'a.png'}, ' dax wug zup bim' * 40])
    source = training.source_of(training.paper('3b').datasets[kind])
    source = dataclasses.replace(source, path=path, split='train', batch_size=1, workers=0)
    every = rows(source, tokenizer, IMAGES, 0)
    for row in (every[i] for i in range(8)):
        (targets,) = np.nonzero(row.weights)
        assert len(targets) and row.phi[targets].all()


def test_a_set_without_a_readable_image_is_refused(folder, tokenizer):
    """Its rows would be empty, and the loss 0."""
    path = write(folder, [{'image': 'bad.png'}, ' dax'], [{'video': 'bad.png'}, ' wug'])
    with pytest.raises(ValueError, match=f'None of the . images of {path} .* can be read.*\n?.*bad.png'):
        drawn(tokenizer, path=path, images=1)
    assert drawn(tokenizer, path=path, images=0, number=1)[0].weights.any()  # Its texts can be learned alone.
    path = write(folder, *[['Three weeks old.']] * 9, [{'image': 'bad.png'}, ' dax'])
    assert drawn(tokenizer, path=path, images=1, number=1)[0].weights.any()  # So can texts of other documents.


def test_a_set_whose_questions_fill_the_rows_is_refused(folder, tokenizer):
    """Its loss would be 0, and the weights would decay."""
    asked = dict(text=' Question: dax?' * 30 + ' Answer:', weight=0)
    path = write(folder, *[[{'image': 'a.png'}, asked, ' wug']] * 3, [{'image': 'a.png'}, ' dax'])
    for packed in (dict(length=40), dict(length=80, documents=4, window=(40, 1))):
        with pytest.raises(ValueError, match='have nothing to learn within 40 tokens.*larger `length`'):
            drawn(tokenizer, path=path, images=1, from_start=True, **packed)
    path = write(folder, [{'image': 'a.png'}, asked, ' wug'], *[[{'image': 'a.png'}, ' dax']] * 3)
    assert drawn(tokenizer, path=path, images=1, from_start=True, number=1)


def test_videos_of_one_frame_are_told_of_frames(folder, tokenizer):
    (folder / 'clip.mp4').write_bytes(b'\0\0\0\x18ftypmp42' + bytes(40))
    path = write(folder, [{'video': 'clip.mp4'}, ' dax'])
    with pytest.raises(ValueError, match='If they are videos, set `frames` of the data set'):
        drawn(tokenizer, path=path, images=1)


def test_each_answer_of_a_dialogue_ends(folder, tokenizer):
    """Else a model that learned from dialogues would go on with a question of its own."""
    asked = [dict(text=f' Question: {what}? Answer:', weight=0) for what in ('dax', 'zup')]
    path = write(folder, [{'image': 'a.png'}, asked[0], ' wug', '.', asked[1], ' bim'])
    row = rows(Documents(path=path, length=100, images=1, batch_size=1), tokenizer, IMAGES, 0)[0]
    text = '<image> Question: dax? Answer: wug.<EOC> Question: zup? Answer: bim<EOC>'
    assert tokenizer.decode(row.tokens[: row.used]) == text
    learnt = row.tokens[row.weights > 0]
    assert (learnt == tokenizer.eoc).sum() == 2 and tokenizer.decode(learnt).replace('<EOC>', '') == ' wug. bim'
    assert row.phi[: row.used].tolist()[-20:] == [1] * 20  # The second question is about the image, too.


def test_a_chat_is_learnt_as_it_is_asked(folder):
    """Token for token, and nothing is learnt but what the assistant says."""
    asked = [
        dict(text=text, weight=0)
        for text in (ASKS, f' What is it?{ANSWERS}', f'\n{ASKS}Like ', f' this?{ANSWERS}', f'\n{ASKS}Why?{ANSWERS}')
    ]
    first, second = {'image': 'a.png'}, {'image': '3.png'}
    said = [f'{answer}{ENDS_TURN}' for answer in ('A wug.', 'No.', 'Guess.')]
    line = [asked[0], first, asked[1], said[0], asked[2], second, asked[3], said[1], asked[4], said[2]]
    path = write(folder, line)
    (row,) = drawn(CHATS, path=path, images=2, length=80, from_start=True, chat=True, number=1)
    blank = np.zeros((1, 8, 8, 3), np.uint8)
    prompt = chat([blank, ' What is it?'], 'A wug.', ['Like ', blank, ' this?'], 'No.', 'Why?', 'Guess.')
    whole = [*encode(prompt, CHATS).tokens, CHATS.eoc, CHATS.eos]
    assert row.tokens[: row.used].tolist() == whole and row.phi.max() == 2
    learnt = ''.join(map(CHATS.name, row.tokens[row.weights > 0].tolist())).replace('Ġ', ' ')
    assert learnt == ''.join(said) + '<EOC>' + CHATS.name(CHATS.eos)
    # Of texts that are none, the marks are characters.
    (row,) = drawn(CHATS, path=path, images=2, length=160, from_start=True, number=1)
    assert '<|im_start|>' not in map(CHATS.name, row.tokens[: row.used].tolist())


def test_a_language_model_that_does_not_chat_is_refused(folder, tokenizer):
    path = write(folder, [dict(text=f'{ASKS}Why?{ANSWERS}', weight=0), f'Guess.{ENDS_TURN}'])
    with pytest.raises(ValueError, match='does not chat.*leave out chat=True'):
        drawn(tokenizer, path=path, images=0, chat=True)


def test_all_questions_about_an_image_go_with_it(folder, tokenizer):
    """Else those after the first would be answered from nothing, or about the image before."""
    asked = [dict(text=f' Question: {what}? Answer:', weight=0) for what in ('dax', 'zup')]
    two = [asked[0], ' wug', asked[1], ' bim']
    path = write(folder, [{'image': 'a.png'}, ' mi', {'image': 'bad.png'}, *two, {'image': '3.png'}, ' lo'])
    row = rows(Documents(path=path, length=100, images=3, batch_size=1), tokenizer, IMAGES, 0)[0]
    assert tokenizer.decode(row.tokens[: row.used]) == '<image> mi<EOC><image> lo<EOC>' and row.unreadable == 1


@pytest.mark.parametrize('kind', ['stills', 'videos'])
def test_features_are_read_in_place_of_pixels(folder, tokenizer, tmp_path_factory, kind):
    """Each image has its own, by document and place; one that cannot be read is left out, as its pixels would be."""
    frames = 4 if kind == 'videos' else 1
    path = write(
        folder,
        [{'image': 'a.png'}, ' dax', {'image': 'bad.png'}, ' zup', {'image': '3.png'}, ' wug'],
        ['title', {'image': '2.png'}, ' bim'],
    )
    work = tmp_path_factory.mktemp('features')
    trunk = make_trunk(work / 'trunk')
    features.compute(path, trunk, str(work), ['train'], frames=frames)
    image_format = ImageFormat.of(trunk.config, trunk.checksums['vision'])
    common = dict(path=path, images=3, frames=frames, number=4)
    of_pixels = drawn(tokenizer, image_format, **common)
    of_features = drawn(tokenizer, image_format, features=str(work), **common)
    model, params = features.Flamingo(trunk.config), {'vision': trunk.params('vision')}
    for a, b in zip(of_pixels, of_features, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        assert b.images is None and b.features.dtype == np.float16 and a.unreadable == b.unreadable
        used = int(a.phi.max())
        expected = np.asarray(model.features(params, jax.numpy.asarray(a.images[None, :used])))[0]
        np.testing.assert_allclose(b.features[:used], expected, rtol=2e-3, atol=2e-3)
    assert {int(row.unreadable) for row in of_features} == {0, 1}
    (folder / 'own.jsonl').write_text(json.dumps([{'image': 'a.png'}, ' dax']))
    with pytest.raises(ValueError, match='of another data set'):
        drawn(tokenizer, image_format, features=str(work), **common)


def test_features_of_other_frames_are_computed_anew(folder, tmp_path_factory):
    """Of a .jsonl file under the one name that training asks for, unless another is given."""
    path, work = write(folder, [{'video': 'b.webp'}, ' dax']), tmp_path_factory.mktemp('features')
    trunk = make_trunk(work / 'trunk')
    (work / 'out').mkdir()
    (work / 'out/train.json').write_text('{"data": "')  # Cut short, so that it counts as absent.
    for frames in (1, 4, 1):
        features.compute(path, trunk, str(work / 'out'), frames=frames)
        assert np.load(work / 'out/train.npy').shape[2] == frames
    written = ['train.begins.npy', 'train.digests.json', 'train.json', 'train.npy']
    assert sorted(file.name for file in (work / 'out').iterdir()) == written


def test_a_record_of_a_builder_may_hold_frames():
    """As ArrayRecord gives them: bytes, or a list of bytes."""
    file = io.BytesIO()
    PIL.Image.new('RGB', (4, 4)).save(file, 'PNG')
    data = file.getvalue()
    assert holds_image(data) and holds_image([data]) and holds_image(np.array([data], object))
    assert not holds_image(b'') and not holds_image([]) and not holds_image(np.array([], object))


def test_features_that_were_stopped_go_on(folder, monkeypatch):
    """From what was noted, to the same bytes; not if the images are others."""
    monkeypatch.setattr(features, 'BATCH', 4)
    monkeypatch.setattr(features, 'NOTED', 2)
    path = write(folder, *[[{'image': f'{i % 4}.png'}, f' dax {i}'] for i in range(18)])
    trunk, out = make_trunk(folder / 'trunk'), folder / 'out'
    features.compute(path, trunk, str(folder / 'whole'))
    read, until = [], [11]

    def counted(*arguments):
        if len(read) == until[0]:
            raise KeyboardInterrupt
        read.append(None)
        return to_frames(*arguments)

    monkeypatch.setattr('flamingo_jax.inputs.sources.documents.to_frames', counted)
    with pytest.raises(KeyboardInterrupt):
        features.compute(path, trunk, str(out))
    assert not (out / 'train.npy').exists()
    until[0] = 100
    features.compute(path, trunk, str(out))
    assert len(read) == 11 + 18 - 8  # The first eight were noted.
    assert (out / 'train.npy').read_bytes() == (folder / 'whole/train.npy').read_bytes()
    assert not [file for file in out.iterdir() if file.name.startswith('.')]
    path, until[0] = write(folder, *[[{'image': f'{i % 3}.png'}, f' dax {i}'] for i in range(18)]), len(read) + 11
    with pytest.raises(KeyboardInterrupt):
        features.compute(path, trunk, str(out))
    lines = [[{'image': f'{i % 2}.png'}, ' dax'] for i in range(18)]
    path, until[0], before = write(folder, *lines), len(read) + 3, len(read) + 3
    with pytest.raises(KeyboardInterrupt):  # Other images, and stopped before anything is noted: the note is gone.
        features.compute(path, trunk, str(out))
    path, until[0] = write(folder, *[[{'image': f'{i % 3}.png'}, f' dax {i}'] for i in range(18)]), 200
    features.compute(path, trunk, str(out))
    assert len(read) == before + 18
    (out / 'train.json').unlink()
    with whole(out / 'train.npy', resumed=True) as file:
        with pytest.raises(ValueError, match=r'train\.npy is in use by process'):
            features.compute(path, trunk, str(out))
        file.write_bytes(b'')


def test_features_that_could_not_be_copied_are_kept(folder, monkeypatch):
    path = write(folder, *[[{'image': f'{i}.png'}, ' dax'] for i in range(4)])
    trunk, out, read = make_trunk(folder / 'trunk'), folder / 'out', []

    def counted(*arguments):
        read.append(None)
        return to_frames(*arguments)

    monkeypatch.setattr('flamingo_jax.inputs.sources.documents.to_frames', counted)
    with monkeypatch.context() as broken:

        def full(*_):
            raise OSError(28, 'No space left on device')

        broken.setattr(pathlib.Path, 'rename', full)
        with pytest.raises(OSError, match='No space left'):
            features.compute(path, trunk, str(out))
    features.compute(path, trunk, str(out))
    assert len(read) == 4 and np.isfinite(np.load(out / 'train.npy')).all()


def test_a_disk_that_fails_ends_features_and_damages_none(folder, tmp_path_factory, monkeypatch):
    """An error that passes is not seen in the features; one that stays ends the command, which then goes on."""
    path = write(folder, [{'image': 'a.png'}, ' dax', {'image': 'bad.png'}, ' zup', {'image': '3.png'}, ' wug'])
    work = tmp_path_factory.mktemp('features')
    trunk = make_trunk(work / 'trunk')
    features.compute(path, trunk, str(work / 'whole'))
    whole = np.load(work / 'whole/train.npy')
    assert np.isnan(whole[1]).all() and np.isfinite(whole[[0, 2]]).all()  # A damaged image has none.

    good, image = (folder / '3.png').rename(folder / 'good'), folder / '3.png'
    opened = features.open_records
    for stays in (True, False):
        # The first byte of a process is no memory, and reading it is EIO. Only the sizes of files are looked at before.
        monkeypatch.setattr(files, 'time', types.SimpleNamespace(sleep=lambda _: None))

        def break_disk(*where):
            records = opened(*where)
            image.unlink()
            image.symlink_to('/proc/self/mem')
            return records

        def repair(_):
            image.unlink(missing_ok=True)
            shutil.copy(good, image)

        shutil.copy(good, image)
        monkeypatch.setattr(features, 'open_records', break_disk)
        if stays:
            with pytest.raises(OSError, match=r'Errno 5.*3\.png'):
                features.compute(path, trunk, str(work / 'out'))
            assert not (work / 'out/train.json').exists() and not (work / 'out/train.npy').exists()
            image.unlink()
        else:
            monkeypatch.setattr(files, 'time', types.SimpleNamespace(sleep=repair))
            features.compute(path, trunk, str(work / 'out'))
        monkeypatch.setattr(features, 'open_records', opened)
    np.testing.assert_array_equal(np.load(work / 'out/train.npy'), whole)
