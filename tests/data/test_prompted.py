"""Generated images with their prompts."""

import json

import PIL.Image

from data.prompted import build as prompted
from flamingo_jax.building.document import Document
from flamingo_jax.building.readers.folder import ImageFolder

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
