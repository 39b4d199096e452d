"""The makers of documents: text on which a language model learns to copy in context.

A Flamingo's language model is frozen, so it must be able to use a few-shot prompt beforehand. A model trained on plain
text of this size does not copy from its context, and images do not teach it. So each document here is a few-shot
task in text, `key label` line by line, the analogue of `<image> label<EOC>`:

- Four kinds give classes new labels in every document, so that only an earlier line tells the label. They go from
  matching strings to matching meanings, which images need: the same invented word, the same name, another name of
  the same thing, another thing of the same kind.
- In three kinds a label has its usual meaning: dictionaries, glosses, questions about the key.
- Four are the later tasks with images, in text: names of things in one language, for known things or also unknown
  ones; their kinds; questions about one of two things.

Keys that an image will replace are English names: from one language, a model of this size learns names in 36
languages in an hour. From all languages to all, it was still guessing after 1,800 steps.

There is nothing between a key and its label. With a constant ` Output:` between them, a model of this size learnt the
set of labels, but not which label belongs to which key (2,000 steps: 35 % of the first sub-words, as good as a guess
among the labels). Dictionaries and glosses have ` Output:`.

A document is a list of segments, each a text with its loss weight. There is nothing between segments (a space belongs
to the word after it). A tokenizer encodes each segment by itself, so that a label always has the same tokens. A maker
depends on a lexicon and a `random.Random` alone.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from data.dictionary_text.lexicon import Concept, Lexicon
from flamingo_jax.tasks.kinds import exclude, with_article
from flamingo_jax.tasks.nonce import nonces

Segment = tuple[str, float]
Document = list[Segment]

# Loss weights: full for what the context tells, small for what it cannot tell.
TOLD = 1.0  # a repeated label, a translation, a gloss, an answer
UNTOLD = 0.1  # a first label, a key, a question, ` Output:`
TRANSLATED_KEY = 0.3  # the key of a dictionary is a word worth knowing
LINE_END = 0.5

# A document has as many lines as fit into this many bytes of UTF-8: on average 86 to 128 tokens, by kind, with a BPE
# of 4,096 pieces. A training sequence should have a whole document, since part of one asks for labels that it does not
# show. The limit is in bytes, because a token has fewer characters in Japanese than in English.
DOCUMENT_BYTES = 320
FEWEST_CLASSES, MOST_CLASSES = 2, 6
REAL_WORD_LABELS = 0.2
LONGEST_LABEL = 10  # characters of a real word


def document(lexicon: Lexicon, rng: random.Random, mixture: dict[Callable[..., Document], int]) -> tuple[str, Document]:
    """Draws a kind by a mixture, such as MIXTURE, and a document of it: (name of the kind, segments)."""
    (make,) = rng.choices(list(mixture), weights=list(mixture.values()))
    return make.__name__, make(lexicon, rng)


def nonce_keys(lexicon: Lexicon, rng: random.Random) -> Document:
    """Each class is an invented name: ` dax kuv zev gof`."""
    keys = nonces(rng, rng.randint(FEWEST_CLASSES, MOST_CLASSES))
    return _binding([itertools.repeat(key) for key in keys], lexicon, rng)


def same_surface(lexicon: Lexicon, rng: random.Random) -> Document:
    """Each class is a name in some language, always written in the same way."""
    names = _classes(lexicon.concepts, lambda concept: [rng.choice(list(concept.names.values()))], rng)
    return _binding([itertools.repeat(name) for (name,) in names], lexicon, rng)


def synonyms(lexicon: Lexicon, rng: random.Random) -> Document:
    """Each class is a concept, with another English name or keyword each time."""
    return _binding(_shuffled(_classes(lexicon.concepts, lambda concept: concept.synonyms, rng), rng), lexicon, rng)


def categories(lexicon: Lexicon, rng: random.Random) -> Document:
    """Each class is a subcategory, with another member each time."""

    def names(members: tuple[Concept, ...]) -> list[str]:
        return [member.names['en'] for member in members]

    return _binding(_shuffled(_classes(lexicon.groups, names, rng), rng), lexicon, rng)


def dictionary(lexicon: Lexicon, rng: random.Random) -> Document:
    """Names in one language with their names in another. The context tells the language, but not the word."""
    source, target = rng.sample(lexicon.languages, 2)
    lines = (
        _line(concept.names[source], concept.names[target], TRANSLATED_KEY, TOLD)
        for concept in _endless(lexicon.concepts, rng)
        if source in concept.names and target in concept.names
    )
    return _as_many_as_fit(lines)


def glosses(lexicon: Lexicon, rng: random.Random) -> Document:
    """Words or phrases with their definitions in English."""
    return _as_many_as_fit(_line(*rng.choice(lexicon.glosses), UNTOLD, TOLD) for _ in itertools.count())


def questions(lexicon: Lexicon, rng: random.Random) -> Document:
    """`dog Question: is it an animal? Answer: yes` (as often no) or `dog Question: what kind is it? Answer: animal`."""

    def lines() -> Iterator[Document]:
        while True:
            kind, thing = _thing(lexicon, rng)
            yield [(f' {thing}', UNTOLD), *_asked(*_ask(kind, list(lexicon.kinds), rng))]

    return _as_many_as_fit(lines())


def names(lexicon: Lexicon, rng: random.Random) -> Document:
    """English names of things, and their names in one language. In a quarter of the documents things are repeated."""
    language, known = _things_in_a_language(lexicon, rng)
    few = rng.sample(known, MOST_CLASSES) if rng.random() < 0.25 else known
    return _as_many_as_fit(_names_of(few, language, rng, lambda thing: thing.names['en']))


def unknown_keys(lexicon: Lexicon, rng: random.Random) -> Document:
    """Names in one language of things, where every other key is an invented word.

    What an image shows is never certain. A model that has read only names of known things answers with pieces of
    several names if it does not know the thing. Half of the keys are known, so that it still reads the key.
    """
    language, known = _things_in_a_language(lexicon, rng)

    def key(thing: Concept) -> str:
        return nonces(rng, 1)[0] if rng.random() < 0.5 else thing.names['en']

    return _as_many_as_fit(_names_of(known, language, rng, key))


def kinds(lexicon: Lexicon, rng: random.Random) -> Document:
    """Things and the words for their kinds: ` dog animal`."""

    def lines() -> Iterator[Document]:
        while True:
            kind, thing = _thing(lexicon, rng)
            yield _named(thing, kind)

    return _as_many_as_fit(lines())


def pairs(lexicon: Lexicon, rng: random.Random) -> Document:
    """Two things, ` dog first`, ` apple second`, and a question: `which is an animal?` or `what kind is the first?`."""

    def lines() -> Iterator[Document]:
        while True:
            (kind, thing), (other_kind, other) = _thing(lexicon, rng), _thing(lexicon, rng)
            if not exclude(kind, other_kind):
                continue
            asked, which = rng.choice([(kind, 'first'), (other_kind, 'second')])
            question = (
                (f'which is {with_article(asked)}?', which)
                if rng.random() < 0.5
                else (f'what kind is the {which}?', asked)
            )
            lines = (f' {thing}', ' first', '\n', f' {other}', ' second', '\n')
            yield [(text, UNTOLD) for text in lines] + _asked(*question)

    return _as_many_as_fit(lines())


# Percentages of documents.
MIXTURE = {
    nonce_keys: 25,
    same_surface: 25,
    synonyms: 18,
    categories: 8,
    dictionary: 12,
    glosses: 6,
    questions: 6,
}

# The same for a model that will be asked about images.
FOR_IMAGES = {
    nonce_keys: 6,
    same_surface: 6,
    synonyms: 12,
    categories: 6,
    names: 46,
    kinds: 6,
    questions: 9,
    pairs: 9,
}

# Its last stage: mostly names, since there are so many, about 850 things in 36 languages.
FOR_LANGUAGES = {
    nonce_keys: 3,
    same_surface: 3,
    synonyms: 6,
    categories: 3,
    names: 38,
    unknown_keys: 38,
    kinds: 2,
    questions: 3,
    pairs: 4,
}

# A model's first stage: copying comes suddenly, and a thousand steps sooner if all documents need it.
COPYING = {nonce_keys: 70, same_surface: 30}


def _ask(kind: str, kinds: list[str], rng: random.Random) -> tuple[str, str]:
    if rng.random() < 1 / 3:
        return 'what kind is it?', kind
    if rng.random() < 0.5:
        asked, answer = kind, 'yes'
    else:
        others = [other for other in kinds if exclude(kind, other)]
        asked, answer = rng.choice(others), 'no'
    return f'is it {with_article(asked)}?', answer


def _asked(question: str, answer: str) -> Document:
    return [
        *((text, UNTOLD) for text in (' Question:', f' {question}', ' Answer:')),
        (f' {answer}', TOLD),
        ('\n', LINE_END),
    ]


def _named(thing: str, label: str) -> Document:
    return [(f' {thing}', UNTOLD), (f' {label}', TOLD), ('\n', LINE_END)]


def _things_in_a_language(lexicon: Lexicon, rng: random.Random) -> tuple[str, list[Concept]]:
    language = rng.choice(lexicon.languages)
    return language, [thing for thing in lexicon.things if language in thing.names]


def _names_of(
    things: list[Concept], language: str, rng: random.Random, key: Callable[[Concept], str]
) -> Iterator[Document]:
    while True:
        thing = rng.choice(things)
        yield _named(key(thing), thing.names[language])


def _thing(lexicon: Lexicon, rng: random.Random) -> tuple[str, str]:
    """A kind, and the English name of something of that kind."""
    kind = rng.choice(list(lexicon.kinds))
    return kind, rng.choice(lexicon.kinds[kind]).names['en']


def _binding(surfaces: list[Iterator[str]], lexicon: Lexicon, rng: random.Random) -> Document:
    """Lines of classes in random order. `surfaces` gives the keys of each class in turn; each class gets one label."""
    labels = _labels(len(surfaces), lexicon, rng)

    def lines() -> Iterator[Document]:
        seen, left = set(), list(range(len(surfaces)))
        while left:
            chosen = rng.choice(left)
            key = next(surfaces[chosen], None)
            if key is None:
                left.remove(chosen)
                continue
            label = (f' {labels[chosen]}', TOLD if chosen in seen else UNTOLD)
            yield [(f' {key}', UNTOLD), label, ('\n', LINE_END)]
            seen.add(chosen)

    return _as_many_as_fit(lines())


def _labels(number: int, lexicon: Lexicon, rng: random.Random) -> list[str]:
    """Different new labels: invented names, or in a fifth of the documents short names of one language."""
    if rng.random() >= REAL_WORD_LABELS:
        return nonces(rng, number)
    language = rng.choice(lexicon.languages)
    labels: dict[str, None] = {}
    for concept in _endless(lexicon.concepts, rng):
        name = concept.names.get(language, '')
        if name and ' ' not in name and len(name) <= LONGEST_LABEL:
            labels[name] = None
        if len(labels) == number:
            break
    return list(labels)


def _line(key: str, label: str, key_weight: float, label_weight: float) -> Document:
    return [(key, key_weight), (' Output:', UNTOLD), (f' {label}', label_weight), ('\n', LINE_END)]


def _as_many_as_fit(lines: Iterator[Document]) -> Document:
    segments: Document = []
    size = 0
    for line in lines:
        size += sum(len(text.encode()) for text, _ in line)
        if size > DOCUMENT_BYTES:
            break
        segments += line
    return segments


def _endless(items: tuple, rng: random.Random) -> Iterator:
    """All items in random order, then again, lazily, since a document takes a dozen of a thousand."""
    while True:
        order: dict[int, int] = {}
        for first in range(len(items)):  # Fisher-Yates; `order` has only the swapped places.
            other = rng.randrange(first, len(items))
            order[first], order[other] = order.get(other, other), order.get(first, first)
            yield items[order[first]]


def _classes(items: tuple, surfaces_of: Callable[..., Sequence[str]], rng: random.Random) -> list[list[str]]:
    """Draws the classes of a document, each with its surfaces. No two classes share a surface."""
    classes: list[list[str]] = []
    while len(classes) < FEWEST_CLASSES:  # Two classes with the same name may drop out.
        drawn = rng.sample(items, rng.randint(FEWEST_CLASSES, min(MOST_CLASSES, len(items))))
        classes = _distinct([surfaces_of(item) for item in drawn])
    return classes


def _distinct(classes: list[Sequence[str]]) -> list[list[str]]:
    """Drops surfaces that two classes share, ignoring case, and classes without any left."""
    once: dict[str, int] = {}
    for number, surfaces in enumerate(classes):
        for surface in surfaces:
            once[surface.casefold()] = number if once.get(surface.casefold(), number) == number else -1
    kept = [[s for s in dict.fromkeys(surfaces) if once[s.casefold()] == n] for n, surfaces in enumerate(classes)]
    return [surfaces for surfaces in kept if surfaces]


def _shuffled(classes: list[list[str]], rng: random.Random) -> list[Iterator[str]]:
    return [iter(rng.sample(surfaces, len(surfaces))) for surfaces in classes]
