"""The makers of documents: text on which a language model learns to copy in context.

A Flamingo's language model is frozen, so whatever it does with its few-shot prompt it must know already. A model that
has only seen plain text of this size does not copy from its context, and pictures do not teach it. So each document
here is one few-shot task in text, `key label` line by line, the analogue of `<image> label<EOC>`:

- Four kinds bind classes to labels anew in every document, so that only an earlier line tells the label. They climb
  from matching a string to matching a meaning, as pictures will ask: the same invented word, the same name, another
  name of the same thing, another thing of the same kind.
- Three kinds keep what a label means in general: dictionaries, glosses, questions about the key.
- Four are what pictures will be asked, in text: the names of things in one language, known or not, their kinds, questions
  about one of two things.

Things that stand for something that is meant, not written, are called by their English names: a picture will stand there, which
is of no language, and from one language a model of this size learns 36 in an hour. From all to all, after 1,800 steps it was
still guessing.

Between a key and its label stands nothing. With a constant ` Output:` between them a model of this size learnt the set of labels
but not which belongs to which key (2,000 steps: 35 % of the first sub-words, where a guess among the labels is as good).
Dictionaries and glosses have it.

A document is a list of segments: a text with the weight of its loss. Segments follow one another without anything
between them (a space belongs to the word after it) and a tokenizer encodes each by itself, so that a label is the same
tokens wherever it stands. A maker is a function of a lexicon and a `random.Random`, and of nothing else.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from data.dictionary_text.lexicon import Concept, Lexicon
from flamingo_jax.few_shot.kinds import exclude, with_article
from flamingo_jax.few_shot.nonce import nonces

Segment = tuple[str, float]
Document = list[Segment]

# Weights of the loss. What the context tells is asked in full; what nothing can tell is asked gently.
TOLD = 1.0  # a repeated label, a translation, a gloss, an answer
UNTOLD = 0.1  # a first label, a key, a question, ` Output:`
TRANSLATED_KEY = 0.3  # the key of a dictionary is a word worth knowing
LINE_END = 0.5

# A document holds as many lines as fit into this many bytes of UTF-8: 86 to 128 tokens on average, by kind, of a BPE of
# 4,096 pieces. A training sequence should hold it whole, since a window of it asks for labels that it does not show.
# Bytes, because a token holds fewer characters of Japanese than of English.
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
    """Each class is a name in some language, written the same way every time."""
    names = _classes(lexicon.concepts, lambda concept: [rng.choice(list(concept.names.values()))], rng)
    return _binding([itertools.repeat(name) for (name,) in names], lexicon, rng)


def synonyms(lexicon: Lexicon, rng: random.Random) -> Document:
    """Each class is a concept, called by another English name or keyword every time."""
    return _binding(_shuffled(_classes(lexicon.concepts, lambda concept: concept.synonyms, rng), rng), lexicon, rng)


def categories(lexicon: Lexicon, rng: random.Random) -> Document:
    """Each class is a subcategory, for which another member stands every time."""

    def names(members: tuple[Concept, ...]) -> list[str]:
        return [member.names['en'] for member in members]

    return _binding(_shuffled(_classes(lexicon.groups, names, rng), rng), lexicon, rng)


def dictionary(lexicon: Lexicon, rng: random.Random) -> Document:
    """Names in one language with their names in another: the language is told by the context, the word is not."""
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
    """Things by their English names, and their names in one language; in a quarter of the documents they come again."""
    language, known = _things_in_a_language(lexicon, rng)
    few = rng.sample(known, MOST_CLASSES) if rng.random() < 0.25 else known
    return _as_many_as_fit(_names_of(few, language, rng, lambda thing: thing.names['en']))


def unknown_keys(lexicon: Lexicon, rng: random.Random) -> Document:
    """Names in one language of things, and of what nobody knows: every other key is invented.

    What a picture shows is never sure, and a model that has read names of known things alone answers with pieces of several
    names where it does not know the thing. Half known, so that it does not unlearn to look at the key.
    """
    language, known = _things_in_a_language(lexicon, rng)

    def key(thing: Concept) -> str:
        return nonces(rng, 1)[0] if rng.random() < 0.5 else thing.names['en']

    return _as_many_as_fit(_names_of(known, language, rng, key))


def kinds(lexicon: Lexicon, rng: random.Random) -> Document:
    """Things and the word for what kind they are: ` dog animal`."""

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


# Per cent of the documents.
MIXTURE = {
    nonce_keys: 25,
    same_surface: 25,
    synonyms: 18,
    categories: 8,
    dictionary: 12,
    glosses: 6,
    questions: 6,
}

# The same for a model that is to be asked about pictures.
FOR_PICTURES = {
    nonce_keys: 6,
    same_surface: 6,
    synonyms: 12,
    categories: 6,
    names: 46,
    kinds: 6,
    questions: 9,
    pairs: 9,
}

# What it reads last: mostly names, of which there are more than of all else, some 850 things in 36 languages.
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

# What a model reads first: copying comes suddenly, and a thousand steps sooner where all documents ask for it.
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
    """Lines of classes in random order. `surfaces` holds the keys of each class in turn; each class gets one label."""
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
    """Different labels, drawn anew: invented names, or in a fifth of the documents short names of one language."""
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
    """All items in a random order without repetition, then again, lazily: a document takes a dozen of a thousand."""
    while True:
        order: dict[int, int] = {}
        for first in range(len(items)):  # Fisher-Yates; `order` holds only the places that were swapped
            other = rng.randrange(first, len(items))
            order[first], order[other] = order.get(other, other), order.get(first, first)
            yield items[order[first]]


def _classes(items: tuple, surfaces_of: Callable[..., Sequence[str]], rng: random.Random) -> list[list[str]]:
    """Draws the classes of a document: for each its surfaces, of which no two classes share one."""
    classes: list[list[str]] = []
    while len(classes) < FEWEST_CLASSES:  # two classes may be called the same and drop out
        drawn = rng.sample(items, rng.randint(FEWEST_CLASSES, min(MOST_CLASSES, len(items))))
        classes = _distinct([surfaces_of(item) for item in drawn])
    return classes


def _distinct(classes: list[Sequence[str]]) -> list[list[str]]:
    """Drops the surfaces that two classes share, whatever their case, and the classes of which nothing is left."""
    once: dict[str, int] = {}
    for number, surfaces in enumerate(classes):
        for surface in surfaces:
            once[surface.casefold()] = number if once.get(surface.casefold(), number) == number else -1
    kept = [[s for s in dict.fromkeys(surfaces) if once[s.casefold()] == n] for n, surfaces in enumerate(classes)]
    return [surfaces for surfaces in kept if surfaces]


def _shuffled(classes: list[list[str]], rng: random.Random) -> list[Iterator[str]]:
    return [iter(rng.sample(surfaces, len(surfaces))) for surfaces in classes]
