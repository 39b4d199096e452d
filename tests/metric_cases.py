"""Inputs for the metrics: texts that real ones are changed into, captions, annotators' answers, clips."""

import pathlib
import random
import re
import unicodedata

ROOT = pathlib.Path(__file__).parents[1]
# What a tokenizer may stumble over.
SPECIAL = r"""
    etc. Mr. a.m. U.S. U.S.A. Ph.D. e.g. No. 5 3/4 1/2 12:30 3.5 1,000 -5 +7 $5 50% #tag @me a@b.com www.x.com x.com
    http://a.b/c 'hello' "hi" ``x'' it's don't cannot gonna wanna 'tis 'twas o'clock d'or rock'n'roll (555) 123-4567
    555-1234 ... -- --- ---- ?? !! ?! ; : , . ! ? & &amp; &lt; &quot; < > <b> </b> * ** / \ | ~ ^ ` ' '' " “x” ‘y’ ’s …
    – — ½ ² ° € £ ¥ ¢ © T-shirt x_y 3-year-old 80's '80s '90 y'all ol' 'em ca. fig. 3 pp. 4 st. ave. inc. co. Co. ltd.
    Jan. Mon. sat. :) :-( ;) =D :P ^_^ <3 c++ c# O'Neil l'eau he'll she'd we've I'm isn't ain't café naïve 日本語 नमस्ते
    русский 😀 two None the A an theres dont T.V. u.s.a 1.5.2 image.jpg 9.txt (tall) [x] {y}
""".split()
CHARACTERS = 'abcXYZ0123456789 .,:;!?\'"`-_/\\&()[]{}<>@#$%^*+=~|’“é½'


def words() -> list[str]:
    """The words of the project's own pages, with their punctuation, and special ones."""
    pages = [file.read_text(encoding='utf-8') for file in sorted(ROOT.glob('*.md')) + sorted(ROOT.glob('docs/*.md'))]
    return ' '.join(pages).split() + 20 * SPECIAL


def sentences() -> list[str]:
    """The lines of the project's own pages."""
    pages = [file.read_text(encoding='utf-8') for file in sorted(ROOT.glob('*.md')) + sorted(ROOT.glob('docs/*.md'))]
    return [line for page in pages for line in re.split('[\n|]', page) if line.strip()]


def changed(word: str, rng: random.Random) -> str:
    """A word with up to three letters inserted, removed or replaced."""
    letters = list(word)
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        place, what = rng.randrange(len(letters) + 1), rng.random()
        if what < 0.6 or not letters:
            letters.insert(place, rng.choice(CHARACTERS))
        elif what < 0.8:
            letters.pop(min(place, len(letters) - 1))
        else:
            letters[min(place, len(letters) - 1)] = rng.choice(CHARACTERS)
    return ''.join(letters)


def texts(number: int, seed: int) -> list[str]:
    """Texts of a few changed words."""
    rng, known = random.Random(seed), words()
    return [' '.join(changed(rng.choice(known), rng) for _ in range(rng.randint(1, 8))) for _ in range(number)]


def unicode_texts(number: int, seed: int) -> list[str]:
    """Texts of random characters, half of them ASCII, without line ends."""
    rng = random.Random(seed)
    known = [chr(i) for i in range(0x20, 0xD7FF) if unicodedata.category(chr(i)) not in ('Cc', 'Cn', 'Co', 'Zl', 'Zp')]
    ascii_letters, below = [chr(i) for i in range(0x20, 0x7F)], known[: known.index('\u3000')]

    def character() -> str:
        kind = rng.random()
        if kind < 0.55:
            return rng.choice(ascii_letters)
        if kind < 0.75:
            return ' '
        return rng.choice('’‘“”…–—é½²°€£\u00a0\u2009') if kind < 0.85 else rng.choice(below if kind < 0.98 else known)

    return [''.join(character() for _ in range(rng.randint(1, 30))) for _ in range(number)]


def captions(pictures: int, seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """A caption of each picture, and those of 1 to 5 people, which have words in common."""
    rng = random.Random(seed)
    parts = (
        ['A', 'the', 'Two', 'some'],
        ['man', 'dogs', 'woman', "child's toy", 'T-shirt', 'cat', 'zebras'],
        ['runs', 'is sitting', 'stand', "doesn't move", 'eats'],
        ['on the grass', 'in a park', 'near (white) cars', 'at 3:30 p.m.', 'under the blue sky', ''],
        ['.', '', '!', ' etc.', ' with a ball.'],
    )

    def caption(about):
        return ' '.join(rng.choice(some) if rng.random() < 0.5 else one for some, one in zip(parts, about, strict=True))

    predictions, references = {}, {}
    for i in range(pictures):
        about = [rng.choice(some) for some in parts]
        references[str(i)] = [caption(about) for _ in range(rng.randint(1, 5))]
        predictions[str(i)] = caption(about) if rng.random() < 0.95 else rng.choice(['', 'dog', 'unseen words alone'])
    return predictions, references


def answers(questions: int, seed: int) -> tuple[dict[str, str], dict[str, list[dict]]]:
    """An answer to each question, and the entries of 10 annotators; those of every other question have no ids."""
    rng, known = random.Random(seed), words()
    predictions, references = {}, {}
    for i in range(questions):
        some = [' '.join(changed(rng.choice(known), rng) for _ in range(rng.randint(1, 2))) for _ in range(3)]
        some += [rng.choice(['yes', 'no', 'two', '2', 'none', 'The dog.', 'dont', "don't", '1,000', 'a / b', 'u.s.a.'])]
        given = [rng.choice(some[: rng.randint(1, 4)]) for _ in range(10)]
        entries = [dict(answer=answer, answer_confidence=rng.choice(['yes', 'maybe'])) for answer in given]
        if i % 2:
            entries = [dict(entry, answer_id=j + 1) for j, entry in enumerate(entries)]
        prediction = rng.choice(given)
        change = rng.random()
        if change < 0.2:
            prediction = prediction.upper()
        elif change < 0.4:
            prediction = f' the {prediction}.\n'
        elif change < 0.5:
            prediction = changed(prediction, rng)
        predictions[str(i)], references[str(i)] = prediction, entries
    return predictions, references


def clips(number: int, seed: int) -> tuple[dict[str, dict[str, float]], dict[str, dict]]:
    """Clips of a few films with an action each, and how likely each action is; some are equally likely."""
    rng = random.Random(seed)
    actions = [(verb, noun) for verb in ('cut', 'wash', 'hammer') for noun in ('phone', 'apple', 'shoe')]
    predictions, references = {}, {}
    for i in range(number):
        verb, noun = rng.choice(actions)
        annotation = rng.choice([0, 1, 1, 2, 3, 4])
        references[str(i)] = dict(video=f'film{rng.randrange(12)}', verb=verb, noun=noun, annotation=annotation)
        predictions[str(i)] = {
            f'{v} {n}': round(rng.gauss(0, 1) + ((v, n) == (verb, noun)) * (annotation == 1), rng.choice([1, 6]))
            for v, n in actions
        }
    return predictions, references
