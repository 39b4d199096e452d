"""Battle for Wesnoth's portraits and stories in their languages, and generated images with their prompts."""

import io
import json
import struct

import PIL.Image
import pytest

from data.prompted import build as prompted
from data.wesnoth import wml
from flamingo_jax.building.document import Document
from flamingo_jax.building.readers.folder import ImageFolder

SPEARMAN = """#textdomain units
# [unit_type]
[unit_type]
    id=Spearman
    name= _ "Spearman"
    race=human
    profile="portraits/spearman.webp~CROP(0,0,4,4)"
    description= _ "He has a <i>""spear""</i>" + _ " and a #shield."  # Not a comment.
    [attack]
        description=_"spear"
    [/attack]
    [female]
        name= _ "female^Spearwoman"
        profile=portraits/spearman+female.webp
    [/female]
[/unit_type]
[unit_type]
    id=Ship
    name= _ "Ship"
    description= _ "A ship."
[/unit_type]
"""
STORY = """#textdomain units
#define INTRO
[story]
    [part]
        story= _ "Once."
        {A_MAP}
    [/part]
    [part]
        story= _ "Then."
        background=story/war.webp
    [/part]
    [part]
        story= _ "At last."
        background=story/war.webp
    [/part]
[/story]
#enddef
"""
GERMAN = {
    'Spearman': 'Speerträger',
    'female^Spearwoman': 'Speerträgerin',
    'He has a <i>"spear"</i>': 'Er hat einen Speer',
    ' and a #shield.': ' und einen Schild.',
    'Once.': 'Einst.',
    'Then.': 'Dann.',
}


def catalogue(texts):
    """The bytes of a gettext .mo file (its manual, section 'The format of GNU MO files')."""
    texts = {'': 'Content-Type: text/plain; charset=UTF-8\n'} | texts
    pairs = sorted((key.encode(), value.encode()) for key, value in texts.items())
    tables, strings, at = [b'', b''], b'', 28 + 16 * len(pairs)
    for column in (0, 1):
        for pair in pairs:
            tables[column] += struct.pack('<2I', len(pair[column]), at + len(strings))
            strings += pair[column] + b'\0'
    head = struct.pack('<7I', 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return head + b''.join(tables) + strings


def encoded_image(colour):
    made = io.BytesIO()
    PIL.Image.new('RGB', (8, 8), colour).save(made, 'WEBP')
    return made.getvalue()


@pytest.fixture
def game(tmp_path):
    """A game in German. Its other catalogues are without a header, and in another script."""
    for name in ('portraits/spearman.webp', 'portraits/spearman+female.webp', 'story/war.webp'):
        path = tmp_path / 'data/images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image('red' if 'female' in name else 'blue'))
    broken = {'': 'Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=INTEGER; plural=EXPRESSION;\n'}
    for language, texts in (('de', GERMAN), ('xx', broken), ('sr@latin', GERMAN)):
        path = tmp_path / 'locale' / language / 'LC_MESSAGES/units.mo'
        path.parent.mkdir(parents=True)
        path.write_bytes(catalogue(texts))
    return tmp_path


def read(game, text):
    path = game / 'data/units/one.cfg'
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    made = list(wml.read(str(path), 'one.cfg', ImageFolder(), f'{game}/locale', lambda name: f'split of {name}'))
    documents = {one.id: one for one in made if isinstance(one, Document)}
    return documents, [one for one in made if not isinstance(one, Document)]


def test_a_portrait_has_its_description_in_each_language(game):
    documents, dropped = read(game, SPEARMAN)
    said = {id: list(one.texts) for id, one in documents.items()}
    assert said == {
        'one.cfg#Spearman:en': ['', 'Spearman: He has a "spear" and a #shield.'],
        'one.cfg#Spearman:de': ['', 'Speerträger: Er hat einen Speer und einen Schild.'],
        'one.cfg#Spearman+female:en': ['', 'Spearwoman: He has a "spear" and a #shield.'],
        'one.cfg#Spearman+female:de': ['', 'Speerträgerin: Er hat einen Speer und einen Schild.'],
    }
    man, woman = (json.loads(documents[f'one.cfg#Spearman{form}:de'].meta) for form in ('', '+female'))
    assert (man['language'], man['race']) == ('de', 'human')
    assert man['split'] == woman['split'] == 'split of portraits/spearman'
    assert documents['one.cfg#Spearman:en'].images[0] == encoded_image('blue')
    assert documents['one.cfg#Spearman+female:en'].images[0] == encoded_image('red')
    assert [(one.rule, one.where) for one in dropped] == [('image_missing', 'one.cfg#Ship')]


def test_a_story_has_its_images_before_their_texts(game):
    documents, _ = read(game, STORY)
    # Its last text has no translation, so there is no story in German.
    [story] = documents.values()
    assert story.id == 'one.cfg#0:en'
    assert list(story.texts) == ['Once.', '', 'Then.', '\nAt last.']
    assert [bool(image) for image in story.images] == [False, True, False, False]


def test_wml_that_is_not_closed():
    root = wml.parse('[a]\nx=1\n[b]\ny="2"\n[/c]\n[/a]\n[d]\nz=3')
    [a, d] = root.within
    assert (a.attributes, d.attributes) == (dict(x='1'), dict(z='3'))
    assert [b.attributes for b in root.every('b')] == [dict(y='"2"')]


A_FOX = 'A fox runs through the snow, seen from above.'


def workflow(*texts, **node):
    return dict(nodes=[dict(type='CLIPTextEncode', widgets_values=list(texts)) | node])


def test_a_prompt_is_the_one_text_that_a_workflow_has(tmp_path):
    def listed(name, tags, **more):
        return dict(name=name, tags=tags, models=['Flux']) | more

    still, clip = ['Text to Image'], ['Text to Video']
    workflows = dict(
        fox=(listed('fox', still), workflow(A_FOX, 'euler')),
        within=(listed('within', still), dict(definitions=[workflow([A_FOX], 7)])),
        moves=(listed('moves', clip), workflow(A_FOX)),
        two=(listed('two', still), workflow(A_FOX, 'Another prompt that has as many words.')),
        edits=(listed('edits', still, io=dict(inputs=[1])), workflow(A_FOX)),
        other=(listed('other', ['Image Edit']), workflow(A_FOX)),
        lost=(listed('lost', still), workflow(A_FOX)),
    )
    workflows['fox'][1]['nodes'] += workflow('blurry, low quality, and many other bad things')['nodes']
    workflows['fox'][1]['nodes'] += workflow('This node tells how to use the graph.', type='MarkdownNote')['nodes']
    for name, (_, graph) in workflows.items():
        (tmp_path / f'{name}.json').write_text(json.dumps(graph))
        if name != 'lost':
            frames = [PIL.Image.new('RGB', (32, 32), colour) for colour in ('red', 'blue')]
            rest = dict(save_all=True, append_images=frames[1:]) if name == 'moves' else {}
            frames[0].save(tmp_path / f'{name}-1.webp', **rest)
    index = tmp_path / 'index.json'
    index.write_text(json.dumps([dict(templates=[one for one, _ in workflows.values()])]))
    made = list(prompted.read(str(index), 'index.json', ImageFolder(str(tmp_path))))
    documents = {one.id: one for one in made if isinstance(one, Document)}
    assert {id: list(one.texts) for id, one in documents.items()} == dict.fromkeys(
        ('fox', 'within', 'moves'), ['', A_FOX]
    )
    assert documents['moves'].images[0] == (tmp_path / 'moves-1.webp').read_bytes()
    assert json.loads(documents['fox'].meta) == dict(
        generated=True, models=['Flux'], licence='MIT', source='ComfyUI workflow templates'
    )
    rules = [(one.where, one.rule) for one in made if not isinstance(one, Document)]
    assert rules == [('two', 'not_one_prompt'), ('lost', 'image_missing'), ('lost', 'document_without_image')]
