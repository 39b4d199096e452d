"""Inputs for the metrics: texts that real ones are changed into, captions, annotators' answers, clips."""

import pathlib
import random
import re

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
# Captions with all that a tokenizer of captions should know.
CAPTIONS = [
    line.strip()
    for line in r"""
    A man's dog isn't on the sofa, but it's asleep.
    They're saying "Don't touch!", aren't they?
    I'd've said we'll see what she's got; you've no idea.
    The dogs' bowls and the children's toys lie on James' bed.
    You cannot see it, gonna rain, wanna go, gotta run, gimme that, lemme see
    'Tis an image of 'em from the '90s, the 1980s or the 80's.
    Class of '97
    It’s a cat that doesn’t care, at 5 o’clock.
    Five o'clock at O'Neil's: hors d'oeuvre, ma'am, y'all and rock'n'roll.
    A "STOP" sign, a 'yield' sign, a `wet paint' sign and an “exit” ‘sign’.
    Mr. and Mrs. Smith meet Dr. Jones and St. Nicholas on Main St. in Jan. 2012.
    J.R.R. Tolkien, F. Scott Fitzgerald and a Ph.D. from the U.S.
    A U.S.-based airline at 10 a.m. or 5 p.m., e.g., Delta (i.e., a jet).
    dogs, cats, etc.
    Yankees vs. Mets
    No. 5 is red and no. 7 is blue. The rest? no.
    Vitamin B. The bottle is full.
    Plan b. is on the table
    A T-shirt, a 3-year-old girl, an x-ray and a jack-o'-lantern
    and/or, he/she, 24/7, w/o, 1/2 cup and 3/4 inch, ½ cup
    1,000 people, $5.00, 50% off, £3, 99¢, #1, 3.5mm, 12:30pm, -5 degrees, 70°F
    10/12/2012, 5-6 years, 1.5.2, 555-1234, a 2x4, 21st, 4th and 2xu
    A 6'2" man holds a 12" ruler.
    A dog... no, a cat ... or a bird -- maybe - no: two; three!
    What is this?? Look!! Really?! Wait!?
    What color is it?I don't know
    (a man) [a woman] {a child}
    The -lrb- and -rrb- of the Treebank
    Call (555) 123-4567 now
    Cats & dogs, AT&T, R&B, black&white, salt &amp; pepper
    a + b = c, 3 < 5 > 2, 50 % of * and ~ or ^ and | and \ and / and _
    www.example.com, http://example.com/a?b=c, example.org, a@b.com @me #tag image.jpg
    :) :-( ;) =D
    a man–woman pair — in love… or not
    café, naïve, Málaga and jalapeño
    two dogs 😀 playing
    A word<b>in bold</b> and an <image>
    c++ and c# and snake_case and C-3PO and R2-D2
    A WOMAN IN RED. THE END.
    a cat.A dog
    ,a ;b :c .d !e ?f
    &quot;hello&quot; &lt;there&gt;
    a tall    building   with  spaces
    the cat sat. The dog sat on sat. and sun.
""".strip().split('\n')
]
CHARACTERS = 'abcXYZ0123456789 .,:;!?\'"`-_/\\&()[]{}<>@#$%^*+=~|’“é½'


def words() -> list[str]:
    """The words of the project's own pages, with their punctuation, and special ones."""
    pages = [file.read_text(encoding='utf-8') for file in sorted(ROOT.glob('*.md')) + sorted(ROOT.glob('docs/*.md'))]
    return ' '.join(pages).split() + 20 * SPECIAL


def sentences() -> list[str]:
    """The lines of prose of the project's own pages."""
    pages = [file.read_text(encoding='utf-8') for file in sorted(ROOT.glob('*.md')) + sorted(ROOT.glob('docs/*.md'))]
    return [line for page in pages for line in page.splitlines() if re.fullmatch('[^`|#<>=]*[a-z]{3}[^`|#<>=]*', line)]


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


def captions(images: int, seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """A caption of each image, and those of 1 to 5 people, which have words in common."""
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
    for i in range(images):
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
    """Clips of a few videos with an action each, and how likely each action is; some are equally likely."""
    rng = random.Random(seed)
    actions = [(verb, noun) for verb in ('cut', 'wash', 'hammer') for noun in ('phone', 'apple', 'shoe')]
    predictions, references = {}, {}
    for i in range(number):
        verb, noun = rng.choice(actions)
        annotation = rng.choice([0, 1, 1, 2, 3, 4])
        references[str(i)] = dict(video=f'video{rng.randrange(12)}', verb=verb, noun=noun, annotation=annotation)
        predictions[str(i)] = {
            f'{v} {n}': round(rng.gauss(0, 1) + ((v, n) == (verb, noun)) * (annotation == 1), rng.choice([1, 6]))
            for v, n in actions
        }
    return predictions, references
