"""Sequences by hand. The texts are symbols, one token each, so that positions can be counted."""

import jax
import numpy as np
import pytest

from flamingo_jax.inputs import tokenizer as tokenizers
from flamingo_jax.inputs.images import ImageError
from flamingo_jax.inputs.rows import Chunk, Interleaved, RowFormat
from flamingo_jax.training.objectives.aligned import Aligned
from flamingo_jax.training.objectives.told import Told

BLANK = np.zeros((1, 2, 2, 3), np.uint8)


@pytest.fixture(scope='module')
def letters():
    """'a' to 'h' are one token each; '<image>' is three, as in figure 6 of the paper."""
    symbols = [*'abcdefgh', '<ima', 'ge', '>']
    return tokenizers.Tokenizer(tokenizers.train(iter([' '.join(symbols)] * 20), 272, symbols), 'text')


def image(number):
    return lambda: BLANK + np.uint8(number)


def unreadable():
    raise ImageError('broken')


def build(chunks, letters, length=16, images=3, seed=0, **options):
    rng = np.random.default_rng(seed)
    return Interleaved.of(chunks, letters, BLANK, rng, RowFormat(length, images, **options))


def spelled(sequence, letters):
    """A sequence as one string: . padding, ^ BOS, $ EOS, / EOC, i each piece of a tag."""
    marks = {letters.pad: '.', letters.bos: '^', letters.eos: '$', letters.eoc: '/'} | dict.fromkeys(
        letters.image_tag, 'i'
    )
    return ''.join(marks.get(int(token)) or letters.decode([token]) for token in sequence.tokens)


def digits(array):
    return ''.join(str(int(x)) for x in array)


TWO = [
    Chunk(None, ['ab'], [1.0]),
    Chunk(image(1), ['c', 'd'], [0.0, 1.0]),
    Chunk(image(2), ['e', 'f'], [1.0, 0.0]),
]


def test_a_document(letters):
    assert len(letters.image_tag) == 3
    sequence = build(TWO, letters, length=20)
    assert spelled(sequence, letters) == '^ab/iiicd/iiief/$...'
    assert digits(sequence.phi) ==    '00001111112222222222'  # fmt: skip  # noqa: E222
    # Tags are no targets; a chunk's <EOC> weighs what its last segment does, and <EOS> what the last <EOC> does.
    assert digits(sequence.weights) == '01110000110001000000'
    np.testing.assert_array_equal(sequence.images, [BLANK + 1, BLANK + 2, BLANK])
    assert sequence.unreadable == 0
    kinds = {name: (value.dtype, value.shape) for name, value in sequence._asdict().items() if value is not None}
    assert kinds['tokens'] == (np.int32, (20,)) and kinds['phi'] == (np.int32, (20,))
    assert kinds['weights'] == (np.float32, (20,)) and kinds['images'] == (np.uint8, (3, 1, 2, 2, 3))


def test_the_model_counts_the_same_phi(letters, config):
    """Where nothing is cut, phi of a sequence is what the model makes of its tokens alone."""
    import dataclasses

    import jax.numpy as jnp

    from flamingo_jax.model.flamingo import Flamingo

    model = Flamingo(dataclasses.replace(config, image_tag=letters.image_tag))
    sequence = build(TWO, letters, length=20)
    np.testing.assert_array_equal(model.phi(jnp.array(sequence.tokens[None])), sequence.phi[None])


def test_text_tied_to_the_next_image(letters):
    """All but the tags moves on by one; what has no next image sees none."""
    sequence = build(TWO, letters, length=20, p_next=1.0)
    assert spelled(sequence, letters) == '^ab/iiicd/iiief/$...'
    assert digits(sequence.phi) ==    '11111112222220000000'  # fmt: skip  # noqa: E222
    drawn = {digits(build(TWO, letters, length=20, seed=seed, p_next=0.5).phi) for seed in range(20)}
    assert drawn == {'00001111112222222222', digits(sequence.phi)}


def test_a_long_document_gives_a_window(letters):
    """Every window of 10 of the 17 tokens comes; a tag that is cut at the front has lost its image."""
    whole, found = '^ab/iiicd/iiief/$', {}
    for seed in range(100):
        sequence = build(TWO, letters, length=10, seed=seed)
        text = spelled(sequence, letters)
        assert text in whole and len(text) == 10
        found[text] = sequence
    assert len(found) == 8
    cut = found['iicd/iiief']
    assert digits(cut.phi) == '0000011111' and digits(cut.weights) == '0001100010'
    np.testing.assert_array_equal(cut.images, [BLANK + 2, BLANK, BLANK])
    first = found['^ab/iiicd/']
    assert digits(first.phi) == '0000111111'
    np.testing.assert_array_equal(first.images, [BLANK + 1, BLANK, BLANK])
    starts = {spelled(build(TWO, letters, length=10, seed=seed, from_start=True), letters) for seed in range(20)}
    assert starts == {'^ab/iiicd/'}


@pytest.mark.parametrize('length', [30, 12, 11, 10, 9, 8, 5])
@pytest.mark.parametrize('images', [1, 2])
def test_more_images_than_room(letters, length, images):
    """The window ends before the first image too many, or at its length, whichever comes first."""
    chunks = [Chunk(image(number), ['a'], [1.0]) for number in range(1, 7)]
    whole = '^' + 'iiia/' * 6 + '$'
    for seed in range(30):
        sequence = build(chunks, letters, length=length, images=images, seed=seed)
        text = spelled(sequence, letters).rstrip('.')
        assert text in whole and len(sequence.tokens) == length
        assert sequence.images.shape[0] == images and sequence.phi.max() <= images
        assert text.count('iiia') <= images
        shown = [int(frame.max()) for frame in sequence.images if frame.max()]
        assert shown == list(range(shown[0], shown[0] + len(shown))) if shown else True


def test_room_for_no_more(letters):
    chunks = [Chunk(image(number), ['a'], [1.0]) for number in range(1, 4)]
    sequence = build(chunks, letters, length=20, images=2)
    assert spelled(sequence, letters) == '^iiia/iiia/.........'
    assert digits(sequence.phi[:11]) == '01111122222'


def test_text_alone(letters):
    sequence = build([Chunk(None, ['abc'], [1.0])], letters, length=8, images=0)
    assert spelled(sequence, letters) == '^abc/$..' and sequence.images is None and not sequence.phi.any()
    bare = tokenizers.Tokenizer(letters.model)
    sequence = build([Chunk(None, ['abc'], [1.0])], bare, length=8, images=0)
    assert list(sequence.tokens) == [2, *letters.encode('abc'), 3, 0, 0, 0]
    assert digits(sequence.weights) == '01111000'


def test_an_unreadable_image_takes_its_text_along(letters):
    chunks = [TWO[0], Chunk(unreadable, ['g'], [1.0]), TWO[2]]
    sequence = build(chunks, letters)
    assert spelled(sequence, letters) == '^ab/iiief/$.....' and sequence.unreadable == 1
    assert digits(sequence.phi[:11]) == '00001111111'
    nothing = build([Chunk(unreadable, ['g'], [1.0])], letters)
    assert spelled(nothing, letters) == '^$' + 14 * '.' and not nothing.weights.any()


def test_images_outside_the_window_are_not_decoded(letters):
    read = []

    def noted(i):
        def decode():
            read.append(i)
            if i % 3 == 2:
                raise ImageError('broken')
            return BLANK + np.uint8(i)

        return decode

    page = [Chunk(noted(i), ['ab'], [1.0]) for i in range(100)]
    for seed in range(20):
        read.clear()
        sequence = build(page, letters, seed=seed)
        broken = {i for i in read if i % 3 == 2}
        assert len(read) <= 3 * (1 + len(broken)) and sequence.unreadable == len(broken)
        shown = sequence.images[: sequence.phi.max(), 0, 0, 0, 0] - BLANK.flat[0]
        assert len(shown) and set(shown) <= set(read) - broken


def test_an_image_of_another_shape_is_an_error(letters):
    with pytest.raises(ValueError, match=r'shape \(2, 2, 2, 3\).*read as \(1, 2, 2, 3\)'):
        build([Chunk(lambda: np.zeros((2, 2, 2, 3), np.uint8), [], [])], letters)


def pack(documents, letters, length=32, images=5, window=(17, 2), seed=0, lines=1, **options):
    row = RowFormat(length, images, **options)
    return Interleaved.packed(documents, letters, BLANK, np.random.default_rng(seed), row, window, lines)


ONE = [Chunk(image(3), ['g', 'h'], [0.0, 1.0])]


def test_a_packed_row(letters):
    """Images are counted through the row; the first token of a document is not the target of the one before it."""
    row = pack([TWO, ONE], letters)
    assert spelled(row, letters) == '^ab/iiicd/iiief/$^iiigh/$.......'
    assert digits(row.phi) == '00001111112222222' + '03333333' + 7 * '0'
    assert digits(row.document) == '1' * 17 + '2' * 8 + '0' * 7
    assert digits(row.weights) == '01110000110001000' + '00000111' + '0' * 7
    np.testing.assert_array_equal(row.images, [BLANK + 1, BLANK + 2, BLANK + 3, BLANK, BLANK])
    assert row.used == 25
    tied = pack([TWO, ONE], letters, p_next=1.0)
    assert digits(tied.phi[:25]) == '11111112222220000' + '33330000'
    assert pack([TWO, ONE], letters, targets=12).at.tolist() == [0, 1, 2, 7, 8, 12, 21, 22, 23, -1, -1, -1]


@pytest.mark.parametrize('length, images, expected', [(24, 5, '^ab/iiicd/iiief/$'), (32, 2, '^ab/iiicd/iiief/$')])
def test_a_document_that_fits_a_window_is_packed_whole_or_not_at_all(letters, length, images, expected):
    row = pack([TWO, ONE, TWO], letters, length, images)
    assert spelled(row, letters) == expected.ljust(length, '.') and row.unreadable == 0
    # The next that fits is taken.
    small = [Chunk(None, ['a'], [1.0])]
    assert spelled(pack([TWO, ONE, small], letters, length, images), letters).rstrip('.') == expected + '^a/$'


def test_a_longer_document_fills_the_row_with_a_part_of_its_window(letters):
    long = [Chunk(image(number), ['abc'], [1.0]) for number in range(4, 9)]
    whole, parts = '^' + 'iiiabc/' * 5 + '$', set()
    for seed in range(50):
        row = pack([TWO, long, long], letters, seed=seed)
        text = spelled(row, letters)
        assert text.startswith('^ab/iiicd/iiief/$') and text[17:].rstrip('.') in whole
        assert row.used == 32 or 'iii' in whole[whole.index(text[17 : row.used]) + 3 :]  # Ends before a third image.
        parts.add(text[17:])
    assert len(parts) > 8
    for length in (17, 18):  # One token more has no room for a target.
        read = iter([TWO, ONE, TWO])
        pack(read, letters, length=length)
        assert len(list(read)) == 2


def test_lines_share_the_images_of_a_row(letters):
    """Each document goes into the first line that has room; images and documents are counted through the row."""
    three = [Chunk(image(number), ['a'], [1.0]) for number in (4, 5, 6)]
    row = pack([TWO, three, ONE, ONE], letters, length=20, images=6, window=(18, 3), lines=2)
    lines = [spelled(row._replace(tokens=line), letters) for line in row.tokens]
    assert lines == ['^ab/iiicd/iiief/$...', '^iiia/iiia/iiia/$...']
    np.testing.assert_array_equal(row.images[:, 0, 0, 0, 0] - BLANK.flat[0], [1, 2, 4, 5, 6, 0])
    assert digits(row.phi[1]) == '0333334444455555' + '5' + '000' and digits(row.document[1]) == '2' * 17 + '000'
    small = pack([TWO, ONE, three, ONE], letters, length=20, images=4, window=(18, 3), lines=2)  # No room for three.
    assert [spelled(small._replace(tokens=line), letters) for line in small.tokens] == [
        '^ab/iiicd/iiief/$...',
        '^iiigh/$^iiigh/$....',
    ]
    assert (
        digits(small.phi[1]) == '03333333' + '04444444' + '0000'
        and digits(small.document[1, :17]) == '2' * 8 + '3' * 8 + '0'
    )
    assert small.used == 33 and small.weights.shape == (2, 20)
    assert pack([TWO, ONE], letters, length=20, lines=2, targets=7).at.shape == (2, 7)
    batch = jax.tree.map(lambda x: np.stack([x, x]), small)
    assert batch.lines().tokens.shape == (4, 20) and batch.lines().images.shape[:2] == (2, 4)
    assert batch.counts() == dict(tokens=66, images=8, documents=6, targets=24, unreadable=0)
    assert batch.total_weight() == batch.lines().total_weight() == 24


def test_documents_with_nothing_to_learn_are_not_packed(letters):
    silent, broken = [Chunk(image(1), ['a'], [0.0])], [Chunk(unreadable, ['g'], [1.0])]
    row = pack([silent, broken, ONE], letters)
    assert spelled(row, letters).rstrip('.') == '^iiigh/$' and row.unreadable == 1
    empty = pack([silent], letters)
    assert spelled(empty, letters) == 32 * '.' and not empty.weights.any() and not empty.document.any()
    assert jax.tree.map(np.shape, empty) == jax.tree.map(np.shape, row)


def aligned(chunks, letters, length):
    return Aligned.of(chunks, letters, BLANK, np.random.default_rng(0), RowFormat(length))


@pytest.mark.parametrize('document', [TWO, TWO[1:]])
def test_a_pair(letters, document):
    """The first image by itself, and its text by itself, whatever stands around them."""
    row = aligned(document, letters, 6)
    assert spelled(row, letters) == '^iii/' and digits(row.phi) == '01111' and row.weight == 1
    assert spelled(row._replace(tokens=row.text), letters) == '^cd...' and row.used == 3
    np.testing.assert_array_equal(row.images, [BLANK + 1])
    cut = aligned(document, letters, 2)
    assert spelled(cut._replace(tokens=cut.text), letters) == '^c' and cut.used == 2


@pytest.mark.parametrize(
    'chunk, bad', [(Chunk(unreadable, ['g'], [1.0]), 1), (TWO[0], 0), (Chunk(image(1), [], []), 0)]
)
def test_no_pair_weighs_nothing(letters, chunk, bad):
    row, whole = aligned([chunk], letters, 6), aligned(TWO, letters, 6)
    assert jax.tree.map(np.shape, row) == jax.tree.map(np.shape, whole)
    assert not row.weight and row.unreadable == bad and not row.images.any()
    np.testing.assert_array_equal(row.tokens, whole.tokens)


def test_told_without_an_image_is_without_what_is_said_of_it(letters):
    """Of a dialogue about a damaged image nothing is left, and of one for which there is no room neither."""
    dialogue = [
        Chunk(None, ['ab'], [1.0]),
        Chunk(unreadable, ['c'], [1.0], says='g'),
        Chunk(None, ['d'], [1.0], continues=True),
        Chunk(image(2), ['e'], [1.0], says='h'),
        Chunk(None, ['f'], [1.0], continues=True),
        Chunk(image(3), ['c'], [1.0], says='g'),
        Chunk(None, ['d'], [1.0], continues=True),
    ]
    row = Told.of(dialogue, letters, BLANK, np.random.default_rng(0), RowFormat(32, 1))
    assert spelled(row, letters).rstrip('.') == '^ab/iiie/f/' and row.unreadable == 1
    words = letters.decode([token for token in row.told if token != letters.pad])
    assert 'd' not in words and 'f' in words
