"""Icons and clip art: which are kept, under which name, and by which rule the others are dropped."""

import collections
import io
import json

import numpy as np
import PIL.Image
import pytest

from data.clip_art import openclipart
from data.icons import iconify
from data.svg import SIZE, Thing, draw
from flamingo_jax.building.document import Document

SQUARE = '<rect x="2" y="2" width="8" height="8" fill="red"/>'
THINGS = {
    phrase: Thing(phrase, phrase, 'train', 'Objects', 'artifact', f'what a {phrase} is', dict(en=phrase), ())
    for phrase in ('bell', 'truck', 'fire truck', 'soft couch')
}


def a_set(tmp_path, **changes):
    info = dict(name='Some', author=dict(name='Ann'), license=dict(spdx='MIT'), category='Thematic')
    drawn = ('bell-outline', 'bell', 'bell-16', 'fire-truck-filled', 'arrow-left', 'truck')
    found = {icon: dict(body=SQUARE) for icon in drawn} | dict(truck=dict(body='<broken')) | {'couch': dict(body='')}
    path = tmp_path / 'some.json'
    path.write_text(json.dumps(dict(prefix='some', info=info | changes, icons=found, width=12, height=12)))
    return str(path)


def split(made):
    made = list(made)
    documents = {one.id: one for one in made if isinstance(one, Document)}
    return documents, collections.Counter(one.rule for one in made if not isinstance(one, Document))


def test_a_set_gives_one_drawing_of_each_thing(tmp_path):
    documents, dropped = split(iconify.read(a_set(tmp_path), 'some.json', None, THINGS))
    assert sorted(documents) == ['some/bell', 'some/fire-truck-filled']
    assert dropped == dict(variant=2, name_of_no_thing=2, image_damaged=1)
    bell = documents['some/bell']
    meta = json.loads(bell.meta)
    assert bell.texts[1] in ('Bell.', 'Bell: what a bell is.') and list(bell.weights) == [0.0, 1.0]
    assert (meta['style'], meta['artist'], meta['licence'], meta['concept']) == ('some', 'Ann', 'MIT', 'bell')
    image = PIL.Image.open(io.BytesIO(bell.images[0])).convert('RGB')
    assert image.size == (SIZE, SIZE)
    # The square is in the middle, on white.
    assert np.allclose(image.getpixel((SIZE // 2, SIZE // 2)), (255, 0, 0), atol=16)
    assert np.allclose(image.getpixel((2, 2)), 255, atol=4)


@pytest.mark.parametrize(
    'changes, rule',
    [
        (dict(license=dict(spdx='CC-BY-NC-4.0')), 'set_not_for_commerce'),
        (dict(license={}), 'set_not_for_commerce'),
        (dict(category='Logos'), 'set_of_no_things'),
        (dict(author=None), 'json_damaged'),
    ],
)
def test_sets_that_are_left_out(tmp_path, changes, rule):
    assert split(iconify.read(a_set(tmp_path, **changes), 'some.json', None, THINGS)) == ({}, {rule: 1})


def test_a_drawing_reads_no_other_file(tmp_path):
    secret = tmp_path / 'secret.png'
    PIL.Image.new('RGB', (8, 8), 'blue').save(secret)
    head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 8 8"'
    outside = f'<image xlink:href="file://{secret}" width="8" height="8"/>'
    with pytest.raises(ValueError, match='nothing is to be seen|Error'):
        draw(f'<svg {head}>{outside}</svg>')
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    with pytest.raises(ValueError):
        draw(f'{bomb}<svg {head}><text y="8">&b;</text></svg>')


def test_sizes_have_units_and_a_small_drawing_is_cut_out():
    square = '<rect x="20" y="20" width="80" height="80" fill="red"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="210mm" height="297mm">{square}</svg>'
    image = np.asarray(PIL.Image.open(io.BytesIO(draw(svg, on_page=True))).convert('RGB'))
    red = (image[..., 1] < 128).mean()
    assert 0.8 < red < 0.95 and (image[0] > 200).all()


def a_file(
    tmp_path, title, keywords=(), description='', licence='http://web.resource.org/cc/PublicDomain', body=SQUARE
):
    said = ''.join(f'<rdf:li>{word}</rdf:li>' for word in keywords)
    rdf = f'<dc:title>{title}</dc:title><dc:description>{description}</dc:description>{said}'
    creator = '<dc:creator><cc:Agent><dc:title>Ann &amp; Bo</dc:title></cc:Agent></dc:creator>'
    names = 'xmlns:rdf="r" xmlns:cc="c" xmlns:dc="d" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 12 12"'
    path = tmp_path / 'one.svg'
    path.write_text(
        f'<svg {names}><metadata>{rdf}{creator}<cc:license rdf:resource="{licence}"/></metadata>{body}</svg>'
    )
    return str(path)


@pytest.mark.parametrize(
    'said, concept, text',
    [
        (dict(title='Big truck'), 'truck', 'Big truck.'),
        (dict(title='fire truck | red'), 'fire truck', None),
        (dict(title='Lemon SVG theme', keywords=['office', 'bell']), 'bell', None),
        (dict(title='bob@example.com', keywords=['hash(0x858dfb8)', 'truck']), 'truck', None),
        (dict(title='Truck', description='A big red truck.'), 'truck', 'A big red truck.'),
        (dict(title='Truck', description='Un camion grande'), 'truck', None),
    ],
)
def test_what_clip_art_shows(tmp_path, said, concept, text):
    english = frozenset('a big red truck fire bell'.split())
    documents, _ = split(openclipart.read(a_file(tmp_path, **said), 'tools/one.svg', None, THINGS, english=english))
    [one] = documents.values()
    meta = json.loads(one.meta)
    assert meta['concept'] == concept and meta['artist'] == 'Ann & Bo' and meta['licence'] == 'public domain'
    thing = f'{concept[0].upper()}{concept[1:]}'
    assert one.texts[1] == text if text else one.texts[1] in (f'{thing}.', f'{thing}: what a {concept} is.')


@pytest.mark.parametrize(
    'said, name, rule',
    [
        (dict(title='gramastar'), 'a/one.svg', 'title_of_no_thing'),
        (dict(title='truck', licence='http://creativecommons.org/licenses/GPL/2.0/'), 'a/one.svg', 'licence'),
        (dict(title='naked truck'), 'a/one.svg', 'nude'),
        (dict(title='truck'), 'svg/shapes/one.svg', 'folder_of_no_things'),
        (dict(title='truck', body='<g'), 'a/one.svg', 'image_damaged'),
        (dict(title='truck', body=''), 'a/one.svg', 'image_damaged'),
    ],
)
def test_clip_art_that_is_left_out(tmp_path, said, name, rule):
    documents, dropped = split(openclipart.read(a_file(tmp_path, **said), name, None, THINGS, english=frozenset()))
    assert not documents and dropped == {rule: 1}
