"""Documents keep what their kinds promise. The raw files are a small excerpt in the layout that fetch.sh leaves."""

import collections
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `data` is a folder of builders beside the package, and not installed with it

from data.dictionary_text import documents  # noqa: E402
from data.dictionary_text.dictionary_text_dataset_builder import Builder, example  # noqa: E402
from data.dictionary_text.lexicon import read_lexicon  # noqa: E402

ANIMALS = (
    '1F436 dog Hund chien|1F431 cat Katze chat|1F434 horse Pferd cheval|1F42E cow Kuh vache|1F437 pig Schwein cochon'
)
ANIMALS += '|1F42D mouse Maus souris|1F43B bear Bär ours'
FOOD = '1F34E apple Apfel pomme|1F34C banana Banane banane|1F350 pear Birne poire|1F34B lemon Zitrone citron'
FOOD += '|1F352 cherry Kirsche cerise|1F349 melon Melone pastèque|1F351 peach Pfirsich pêche'
TOOLS = '1F528 hammer Hammer marteau|1FA9A saw Säge scie|1F529 bolt Schraube boulon|1FA93 axe Axt hache'
TOOLS += '|1F527 wrench Schlüssel clé|1F5E1 dagger Dolch dague|26CF pick Hacke pioche'
SUBCATEGORIES = {'animal-mammal': ANIMALS, 'food-fruit': FOOD, 'tool': TOOLS}
WORDNET = '  1 the licence\n00001740 03 n 01 {word}_ly 0 000 | {word} is a definition; "and this an example"  \n'


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    """CLDR, emoji-datasource and WordNet in their own formats, 21 concepts in 3 languages."""
    raw = tmp_path_factory.mktemp('raw')
    emoji, names = [], collections.defaultdict(dict)
    for subcategory, rows in SUBCATEGORIES.items():
        for row in rows.split('|'):
            point, *words = row.split()
            category = subcategory.split('-')[0]
            emoji.append(dict(unified=point, category=category, subcategory=subcategory, sort_order=len(emoji)))
            for language, word in zip(('en', 'de', 'fr'), words, strict=True):
                keywords = [f'{word} {number}' for number in range(4)] + [category]
                names[language][chr(int(point, 16))] = {'default': keywords, 'tts': [word]}
    _write(raw / 'n/emoji-datasource-16.0.0/package/emoji.json', json.dumps(emoji))
    for language, entries in names.items():
        file = raw / f'n/cldr-annotations-full-48.2.0/package/annotations/{language}/annotations.json'
        _write(file, json.dumps({'annotations': {'annotations': entries}}))
    for part in ('noun', 'verb', 'adj', 'adv'):
        _write(raw / f'x/wordnet-base/usr/share/wordnet/data.{part}', WORDNET.format(word=part))
    return raw


def _write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, 'utf-8')


@pytest.fixture(scope='module')
def lexicon(raw):
    return read_lexicon(raw, ('en', 'de', 'fr'))


def draws(make, lexicon, number=300):
    for seed in range(number):
        segments = make(lexicon, random.Random(seed))
        lines = [[]]
        for text, weight in segments:
            lines[-1].append((text, weight))
            if text == '\n':
                lines.append([])
        assert lines.pop() == []  # every line is ended
        yield lines


def test_lexicon_reads_names_synonyms_and_glosses(lexicon):
    dog = lexicon.concepts[0]
    assert dog.names == {'en': 'dog', 'de': 'Hund', 'fr': 'chien'} and dog.kind == 'animal'
    assert set(dog.synonyms) == {'dog', 'dog 0', 'dog 1', 'dog 2', 'dog 3'}
    assert 'animal' not in dog.synonyms  # a keyword of many concepts
    assert lexicon.glosses[0] == ('noun ly', 'noun is a definition')


@pytest.mark.parametrize(
    'make', [documents.nonce_keys, documents.same_surface, documents.synonyms, documents.categories]
)
def test_a_repeated_class_has_its_label_and_full_weight(make, lexicon):
    class_of = {s: c.id for c in lexicon.concepts for s in (*c.synonyms, *c.names.values())}
    group_of = {name: c.subcategory for c in lexicon.concepts for name in c.names.values()}
    repeats = 0
    for lines in draws(make, lexicon):
        labels, keys = {}, []
        for (key, key_weight), (label, label_weight), (end, end_weight) in lines:
            assert end == '\n' and label.startswith(' ') and key.startswith(' ')
            key = key[1:]
            assert (key_weight, end_weight) == (0.1, 0.5)
            name = {'synonyms': class_of, 'categories': group_of}.get(make.__name__, {}).get(key, key)
            assert label_weight == (1.0 if name in labels else 0.1)
            assert labels.setdefault(name, label) == label
            repeats += name in labels
            keys.append(key)
        assert len(set(labels.values())) == len(labels) <= documents.MOST_CLASSES
        if make in (documents.synonyms, documents.categories):
            assert len({key.casefold() for key in keys}) == len(keys)  # never the same surface
        assert sum(len(text.encode()) for line in lines for text, _ in line) <= documents.DOCUMENT_BYTES
    assert repeats > 1000


def test_a_thing_that_nobody_knows_has_a_name_in_the_language_of_the_document(lexicon):
    invented = known = 0
    for lines in draws(documents.unknown_keys, lexicon, 100):
        fitting = set(lexicon.languages)
        for (key, _), (label, label_weight), _ in lines:
            assert label_weight == documents.TOLD
            of_key = [concept for concept in lexicon.things if f' {concept.names["en"]}' == key]
            among = of_key or lexicon.things
            fitting &= {language for c in among for language, name in c.names.items() if f' {name}' == label}
            known, invented = known + bool(of_key), invented + (not of_key)
        assert fitting
    assert 0.4 < known / (known + invented) < 0.6


def test_labels_are_real_words_in_a_fifth_of_the_documents(lexicon):
    words = {f' {name}' for concept in lexicon.concepts for name in concept.names.values()}
    share = sum(lines[0][1][0] in words for lines in draws(documents.nonce_keys, lexicon, 2000)) / 2000
    assert share == pytest.approx(documents.REAL_WORD_LABELS, abs=0.03)


def test_a_dictionary_translates_between_two_languages(lexicon):
    for lines in draws(documents.dictionary, lexicon):
        pairs = [(key, label) for (key, _), _, (label, _), _ in lines]
        found = [
            (a, b)
            for a in lexicon.languages
            for b in lexicon.languages
            if a != b and all(any((c.names[a], f' {c.names[b]}') == pair for c in lexicon.concepts) for pair in pairs)
        ]
        assert found and len(set(pairs)) == len(pairs)
        assert all(weights == (0.3, 0.1, 1.0, 0.5) for weights in (tuple(w for _, w in line) for line in lines))


def test_questions_are_answered_truly_and_evenly(lexicon):
    kind = {name: concept.kind for concept in lexicon.concepts for name in concept.names.values()}
    answers = collections.Counter()
    for lines in draws(documents.questions, lexicon, 1000):
        for (key, _), (asks, _), (question, _), (answers_with, _), (answer, weight), _ in lines:
            assert (asks, answers_with, weight) == (' Question:', ' Answer:', 1.0)
            if question == ' what kind is it?':
                assert answer == f' {kind[key[1:]]}'
            else:
                assert answer == (' yes' if question.rstrip('?').endswith(f' {kind[key[1:]]}') else ' no')
                answers[answer] += 1
    assert answers[' yes'] / answers.total() == pytest.approx(0.5, abs=0.03)


def test_glosses_ask_for_the_whole_definition(lexicon):
    for lines in draws(documents.glosses, lexicon, 20):
        assert all((key, label[1:]) in lexicon.glosses and weight == 1.0 for (key, _), _, (label, weight), _ in lines)


def test_a_document_follows_its_seed_and_splits_differ(lexicon):
    first = example(lexicon, '0/train/7')
    again = example(lexicon, '0/train/7')
    assert first['texts'] == again['texts'] and (first['weights'] == again['weights']).all()
    train, validation = (
        {example(lexicon, f'0/{split}/{i}')['texts'] for i in range(300)} for split in ('train', 'validation')
    )
    assert not train & validation
    assert sum(documents.MIXTURE.values()) == 100


def test_the_two_configs():
    small, full = (Builder.builder_configs[name] for name in ('small', 'full'))
    assert len(small.languages) == 8 and len(full.languages) == len(set(full.languages)) == 36


def test_what_is_missing_is_named(raw, tmp_path):
    with pytest.raises(FileNotFoundError, match='wordnet.*fetch.sh'):
        read_lexicon(tmp_path, ('en',))
    with pytest.raises(FileNotFoundError, match='no language xx'):
        read_lexicon(raw, ('en', 'xx'))


SCRIPT = """
import sys
import tensorflow_datasets as tfds
from data.building import build
from data.dictionary_text.dictionary_text_dataset_builder import Builder, Config

Builder.BUILDER_CONFIGS = [Config(name='tiny', languages=('en', 'de', 'fr'), train=50, validation=5)]
Builder.builder_configs = {'tiny': Builder.BUILDER_CONFIGS[0]}
folder = build(Builder, 'tiny', *sys.argv[1:])
records = tfds.builder_from_directory(folder).as_data_source('train')
assert len(records) == 50
for record in records:
    assert len(record['texts']) == len(record['weights']) == len(record['images']) and not any(record['images'])
    assert all(record['texts']) and record['texts'][-1] == b'\\n'
assert 'tensorflow' not in sys.modules
"""


def test_a_data_set_is_built_and_read_without_tensorflow(raw, tmp_path):
    subprocess.run([sys.executable, '-c', SCRIPT, str(raw), str(tmp_path)], cwd=ROOT, check=True, timeout=600)
    assert [path.name for path in tmp_path.iterdir()] == ['dictionary_text']
