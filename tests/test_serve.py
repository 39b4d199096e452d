"""The server of OpenAI's API over real HTTP: a tiny model in a thread, and the command with the published model."""

import asyncio
import base64
import contextlib
import dataclasses
import http.client
import http.server
import io
import json
import logging
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import PIL.Image
import pytest
import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request

from flamingo_jax import addresses
from flamingo_jax.errors import UserError
from flamingo_jax.inference import serving
from flamingo_jax.inputs.images import ImageFormat
from flamingo_jax.inputs.prompts import chat, encode, is_continued
from flamingo_jax.serving import uploads
from flamingo_jax.serving.app import Limits, make_app, while_there
from flamingo_jax.serving.conversation import Message, answer_of, prompt_of
from flamingo_jax.serving.images import Images
from flamingo_jax.serving.requests import body

ROOT = pathlib.Path(__file__).parents[1]
LIMITS = Limits(body_bytes=2**21, answers=4)

pytestmark = pytest.mark.usefixtures('quick_compilation')


def png(seed=0) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 20, 3), np.uint8)).save(out, 'PNG')
    return out.getvalue()


def url(data: bytes, kind='image/png') -> str:
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'


def shown(data: bytes) -> dict:
    return dict(type='image_url', image_url=dict(url=url(data)))


def text(said: str) -> dict:
    return dict(type='text', text=said)


def user(*parts) -> dict:
    return dict(role='user', content=list(parts))


def assistant(said: str) -> dict:
    return dict(role='assistant', content=said)


A, B, C = png(0), png(1), png(2)
TURNS = [user(shown(A)), assistant('dax'), user(shown(B)), assistant('mi'), user(shown(C))]
PROMPT = [A, ' dax<EOC>', B, ' mi<EOC>', C]  # The same for `generate`.
DRAWN = dict(temperature=5.0, top_p=0.9, seed=8)  # The likeliest token of a random model is always the same.
LONG = dict(messages=TURNS, max_tokens=6, **DRAWN)


def answer(pretrained, **settings) -> str:
    """What `generate` answers to the same."""
    return pretrained.generate(PROMPT, 6, **DRAWN | settings)


class Running:
    """A server in a thread of this process."""

    def __init__(self, app):
        self._uvicorn = uvicorn.Server(uvicorn.Config(app, port=0, log_level='error', timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._uvicorn.run)

    def __enter__(self):
        self._thread.start()
        while not self._uvicorn.started:
            time.sleep(0.01)
        self.port = self._uvicorn.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error):
        self._uvicorn.should_exit = True
        self._thread.join()


@pytest.fixture(scope='module')
def lines() -> list[str]:
    """What the server logs."""
    return []


@pytest.fixture(scope='module')
def port(pretrained, lines):
    with Running(make_app(pretrained, 'tiny', limits=LIMITS, log=lines.append)) as running:
        yield running.port


def connected(port, method, path, sent=None, **headers) -> http.client.HTTPConnection:
    """A connection on which a request was sent."""
    connection = http.client.HTTPConnection('127.0.0.1', port)
    sent = json.dumps(sent) if isinstance(sent, dict | list) else sent
    given = {name.replace('_', '-'): value for name, value in headers.items()}
    connection.request(method, path, sent, {'Content-Type': 'application/json'} | given)
    return connection


def send(port, method, path, sent=None, **headers):
    """(status, headers, body) of one request."""
    with contextlib.closing(connected(port, method, path, sent, **headers)) as connection:
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def asked(port, path, sent, status=200) -> dict:
    found, _, data = send(port, 'POST', f'/v1/{path}', sent)
    assert found == status, data
    return json.loads(data)


def chatted(port, **sent) -> list[str]:
    return [one['message']['content'] for one in asked(port, 'chat/completions', sent)['choices']]


def events(data: bytes) -> list:
    """The events of a stream, without the last one, which says that it is over."""
    *found, over, rest = data.decode().split('\n\n')
    assert (over, rest) == ('data: [DONE]', '')
    return [json.loads(event.removeprefix('data: ')) for event in found]


def gauge(port, name) -> float:
    return float(re.search(rf'^{name} (.*)$', send(port, 'GET', '/metrics')[2].decode(), re.MULTILINE)[1])


# ---- Answers


def test_the_model_is_listed(port):
    listed = json.loads(send(port, 'GET', '/v1/models')[2])
    assert [one['id'] for one in listed['data']] == ['tiny'] and listed['object'] == 'list'
    assert json.loads(send(port, 'GET', '/v1/models/tiny')[2]) == listed['data'][0]
    status, _, data = send(port, 'GET', '/v1/models/gpt')
    assert status == 404 and json.loads(data)['error']['code'] == 'model_not_found'


def test_examples_as_turns_or_in_one_message_are_answered_as_generate_answers(port, pretrained):
    expected = answer(pretrained)
    found = asked(port, 'chat/completions', LONG | dict(model='tiny'))
    (choice,) = found['choices']
    assert (found['object'], found['model']) == ('chat.completion', 'tiny')
    assert choice['message'] == dict(role='assistant', content=expected) and expected
    n = len(pretrained.encoded(PROMPT, 6).tokens)
    usage, media = found['usage'], 3 * pretrained.config.media_tokens
    assert usage['prompt_tokens_details'] == dict(text_tokens=n, image_tokens=media)
    assert usage['total_tokens'] == usage['prompt_tokens'] + usage['completion_tokens'] == n + media + 6
    assert choice['finish_reason'] == 'length'
    whole = user(shown(A), text(' dax<EOC>'), shown(B), text(' mi<EOC>'), shown(C))
    assert chatted(port, **LONG | dict(messages=[whole])) == [expected]
    parts = dict(prompt=whole['content'], max_tokens=6, **DRAWN)
    assert asked(port, 'completions', parts)['choices'][0]['text'] == expected


def test_sampling_seeds_choices_stops_and_beams_are_those_of_generate(port, pretrained):
    expected = [answer(pretrained, seed=seed) for seed in (8, 9)]
    assert chatted(port, **LONG, n=2) == expected and expected[0] != expected[1]
    whole = answer(pretrained)
    stop = whole[len(whole) // 2 :][:2]
    found = asked(port, 'chat/completions', LONG | dict(stop=stop))['choices'][0]
    assert found['message']['content'] == answer(pretrained, stop=[stop]) != whole
    assert found['finish_reason'] == 'stop'
    beams = dict(messages=TURNS, max_tokens=6, num_beams=2)
    assert chatted(port, **beams) == [pretrained.generate(PROMPT, 6, num_beams=2)]


def test_a_stream_has_the_same_text_in_pieces(port, pretrained):
    status, headers, data = send(
        port, 'POST', '/v1/chat/completions', LONG | dict(stream=True, stream_options=dict(include_usage=True))
    )
    *parts, last = events(data)
    assert status == 200 and headers['Content-Type'].startswith('text/event-stream')
    deltas = [part['choices'][0]['delta'] for part in parts]
    assert ''.join(delta.get('content', '') for delta in deltas) == answer(pretrained)
    assert deltas[0]['role'] == 'assistant' and len(deltas) > 3
    assert [part['choices'][0]['finish_reason'] for part in parts] == [None] * (len(parts) - 1) + ['length']
    assert last['choices'] == [] and last['usage']['completion_tokens'] == 6
    # A piece that may be the beginning of a stop waits.
    whole = answer(pretrained)
    stop = whole[-3:]
    sent = dict(prompt=TURNS[0]['content'] + [text(' dax<EOC>')] + TURNS[2]['content'] + [text(' mi<EOC>'), shown(C)])
    parts = events(
        send(port, 'POST', '/v1/completions', sent | DRAWN | dict(max_tokens=6, stop=[stop], stream=True, n=2))[2]
    )
    for i in range(2):
        said = ''.join(one['text'] for part in parts for one in part['choices'] if one['index'] == i)
        assert said == answer(pretrained, stop=[stop], seed=8 + i)


def test_videos_are_a_file_or_a_list_of_frames(port, pretrained):
    frames = [png(i) for i in range(3, 7)]
    sent = dict(type='video', video=[url(frame) for frame in frames])
    expected = pretrained.generate([frames, ' lo'], 4)
    assert chatted(port, messages=[user(sent, text(' lo'))], max_tokens=4) == [expected]
    out = io.BytesIO()
    first, *rest = (PIL.Image.open(io.BytesIO(frame)) for frame in frames)
    first.save(out, 'GIF', save_all=True, append_images=rest, duration=500)
    seen = uploads.prepare(out.getvalue(), pretrained.image_format, 4, video=True)
    sent = dict(type='video_url', video_url=dict(url=url(out.getvalue(), 'image/gif')))
    assert chatted(port, messages=[user(sent, text(' lo'))], max_tokens=4) == [pretrained.generate([seen, ' lo'], 4)]


def test_log_probabilities_are_those_of_score(port, pretrained):
    candidate = ' dax mi<EOC>'
    ids = pretrained.tokenizer.encode(candidate, is_continued(PROMPT, pretrained.tokenizer))
    found = pretrained.likelihoods(PROMPT, ids, 3)
    assert found.written.sum() == pytest.approx(pretrained.score(PROMPT, [candidate])[0], rel=1e-4)
    assert found.likeliest.shape == found.their.shape == (len(ids), 3)
    with pytest.raises(UserError, match='no tokens'):
        pretrained.likelihoods(PROMPT, [])

    *_, written = pretrained.write(PROMPT, serving.Sampling(6, **DRAWN))
    expected = pretrained.likelihoods(PROMPT, written.tokens, 2)
    (choice,) = asked(port, 'chat/completions', LONG | dict(logprobs=True, top_logprobs=2))['choices']
    told = choice['logprobs']['content']
    np.testing.assert_allclose([one['logprob'] for one in told], expected.written, rtol=1e-3)
    tops = [[top['logprob'] for top in one['top_logprobs']] for one in told]
    np.testing.assert_allclose(tops, expected.their, rtol=1e-3)
    assert ''.join(one['token'] for one in told).strip() == choice['message']['content']
    parts = events(send(port, 'POST', '/v1/chat/completions', LONG | dict(logprobs=True, stream=True))[2])
    assert [one['logprob'] for one in parts[-1]['choices'][0]['logprobs']['content']] == pytest.approx(
        [one['logprob'] for one in told]
    )
    sent = dict(prompt=[' lo', ' mi'], max_tokens=3, logprobs=1)
    for choice, prompt in zip(asked(port, 'completions', sent)['choices'], sent['prompt'], strict=True):
        logprobs = choice['logprobs']
        assert choice['text'] == pretrained.generate(prompt, 3)
        assert len(logprobs['tokens']) == len(logprobs['token_logprobs']) == len(logprobs['text_offset'])
        assert all(len(top) == 1 for top in logprobs['top_logprobs'])


@pytest.mark.parametrize('how', [{}, dict(num_beams=2)], ids=['greedy', 'beams'])
def test_an_answer_is_told_with_its_probability_if_that_is_asked_for(port, pretrained, how):
    sent = dict(messages=TURNS, max_tokens=6, **how)
    (written,) = pretrained.answers([PROMPT], serving.Sampling(6, **how))
    expected = pytest.approx(float(pretrained.probabilities([PROMPT], [written])[0, 0]), rel=1e-3)
    (choice,) = asked(port, 'chat/completions', sent | dict(probability=True))['choices']
    assert (choice['message']['content'], choice['probability']) == (written.text, expected)
    *parts, last = events(send(port, 'POST', '/v1/chat/completions', sent | dict(probability=True, stream=True))[2])
    assert last['choices'][0]['probability'] == expected
    assert all('probability' not in part['choices'][0] for part in parts)
    assert 'probability' not in asked(port, 'chat/completions', sent)['choices'][0]


def test_an_answer_that_fills_the_context_has_a_probability(port, pretrained):
    """The token that ends it needs no place."""
    beginning = len(pretrained.encoded('lo', 0).tokens)
    sent = dict(prompt='lo', max_tokens=pretrained.config.lm.context - beginning, probability=True)
    (choice,) = asked(port, 'completions', sent)['choices']
    assert choice['finish_reason'] == 'length' and 0 <= choice['probability'] < 1


def test_a_memory_is_sent_once_and_stands_before_what_is_asked(port, pretrained):
    made = asked(port, 'memories', dict(name='words', messages=TURNS[:4]), status=201)
    assert made['id'] == 'words' and made['usage']['prompt_tokens_details']['image_tokens'] > 0
    assert [one['id'] for one in json.loads(send(port, 'GET', '/v1/memories')[2])['data']] == ['words']
    rest = LONG | dict(messages=TURNS[4:], memory='words')
    assert chatted(port, **rest) == [answer(pretrained)]
    raw = dict(prompt=[shown(C)], max_tokens=6, memory='words', **DRAWN)
    assert asked(port, 'completions', raw)['choices'][0]['text'] == answer(pretrained)
    assert json.loads(send(port, 'GET', '/v1/memories/words')[2]) == made
    assert json.loads(send(port, 'DELETE', '/v1/memories/words')[2])['deleted']
    assert send(port, 'GET', '/v1/memories/words')[0] == 404
    assert "no memory 'words'" in asked(port, 'chat/completions', rest, status=400)['error']['message']


def test_candidates_are_ranked_beside_the_nearest_neighbour(port, pretrained):
    candidates = ['mi', 'dax', 'lo']
    ended = [f' {one}<EOC>' for one in candidates]
    expected = pretrained.score(PROMPT, ended)
    whole = user(shown(A), text(' dax<EOC>'), shown(B), text(' mi<EOC>'), shown(C))
    for messages in (TURNS, [whole]):
        found = asked(port, 'rank', dict(messages=messages, candidates=candidates))['data']
        assert [one['candidate'] for one in found] == [candidates[i] for i in np.argsort(-expected)]
        for one in found:
            assert one['log_likelihood'] == pytest.approx(expected[one['index']], rel=1e-3)
        assert sum(one['probability'] for one in found) == pytest.approx(1)
        last = [*messages[:-1], user(*messages[-1]['content'][:-1], shown(B))]
        nearest = asked(port, 'rank', dict(messages=last, candidates=candidates, nearest=True))['nearest']
        assert nearest['label'] == 'mi' and nearest['cosines'][1] == pytest.approx(1)
    raw = asked(port, 'rank', dict(prompt=whole['content'], candidates=ended))['data']
    assert raw[0]['log_likelihood'] == pytest.approx(expected.max(), rel=1e-3)


def test_a_model_that_chats_is_asked_so(chatting):
    said = [Message('system', ['Be brief.']), Message('user', ['a', ' b']), Message('assistant', ['c'])]
    asks = [*said, Message('user', ['What?']), Message('user', ['<EOC> Now?'])]
    built = prompt_of(asks, chatting.tokenizer)
    assert built == chat(['a b'], 'c', 'What?\n<EOC> Now?', system='Be brief.')
    assert ''.join(built).startswith(''.join(prompt_of(said, chatting.tokenizer, open_end=False)))
    assert answer_of(['c'], chatting.tokenizer) == 'c<|im_end|>'
    for wrong in (said, [*said[1:], said[0], asks[-1]], said[2:] + asks[-1:]):
        with pytest.raises(UserError):
            prompt_of(wrong, chatting.tokenizer)


# ---- What is refused


def test_nobody_learns_which_files_there_are(tokenizer, chatting):
    """`generate` tells a user who names an image file to give the file."""
    name = str(ROOT / 'docs/pictures/gorilla.png')
    with pytest.raises(UserError, match='name of an image file'):
        encode([name], tokenizer)
    built = prompt_of([Message('user', [name[:-2], name[-2:]])], tokenizer)
    assert encode(built, tokenizer).tokens == [*tokenizer.begin, *tokenizer.encode(name)]
    image = np.zeros((16, 16, 3), np.uint8)
    encode(prompt_of([Message('user', [image, name, image])], chatting.tokenizer), chatting.tokenizer)


HOLE = url(b'not an image')
WRONG = {
    'no JSON': ('chat/completions', '{', 400, 'not a JSON object'),
    'deep': ('chat/completions', '[' * 100_000, 400, 'not a JSON object'),
    'a list': ('completions', [], 400, 'not a JSON object'),
    'large': ('chat/completions', ' ' * (2**21 + 1), 413, 'larger than 2 MiB'),
    'another model': ('chat/completions', dict(LONG, model='gpt'), 404, "'gpt' does not exist"),
    'no messages': ('chat/completions', {}, 400, 'messages must be a list'),
    'a role': ('chat/completions', dict(messages=[dict(role='x', content='a')]), 400, 'Roles are system'),
    'no content': ('chat/completions', dict(messages=[dict(role='user')]), 400, 'must be a text, or a list of parts'),
    'the last word': ('chat/completions', dict(messages=TURNS[:2]), 400, 'last message must be of the user'),
    'a late system': ('chat/completions', dict(messages=[*TURNS, dict(role='system', content='a')]), 400, 'before all'),
    'a part': ('chat/completions', dict(messages=[user(dict(type='audio'))]), 400, 'A part of a message is'),
    'no image': (
        'chat/completions',
        dict(messages=[user(dict(type='image_url', image_url=HOLE))]),
        400,
        'not an image',
    ),
    'a path': (
        'chat/completions',
        dict(messages=[user(dict(type='image_url', image_url='file:///etc/passwd'))]),
        400,
        'not a data URL',
    ),
    'an address': (
        'chat/completions',
        dict(messages=[user(dict(type='image_url', image_url='http://127.0.0.1/a.png'))]),
        400,
        'not fetched from this address',
    ),
    'many images': ('chat/completions', dict(messages=[user(*[dict(type='image_url')] * 300)]), 400, '300 images'),
    'many frames': ('completions', dict(prompt=[dict(type='video', video=['x'] * 300)]), 400, '300 images or frames'),
    'much text': ('completions', dict(prompt='a' * (2**20 + 1)), 400, 'more than 1,048,576 letters'),
    'many choices': ('completions', dict(prompt='a', n=17), 400, 'n must be a whole number from 1 to 16'),
    'many answers': ('completions', dict(prompt=['a', 'b', 'c'], n=2), 400, 'at most 4 at a time'),
    'too long': ('completions', dict(prompt='a', max_tokens=128), 400, 'exceeds the context of 128 tokens'),
    'no tokens': ('completions', dict(prompt='a', max_tokens=0), 400, 'max_tokens must be a whole number from 1'),
    'a temperature': ('completions', dict(prompt='a', temperature='1'), 400, 'temperature must be a number from 0'),
    'not a number': ('completions', '{"prompt": "a", "temperature": NaN}', 400, 'temperature must be a number'),
    'a seed': ('completions', dict(prompt='a', seed=1.5), 400, 'seed must be a whole number'),
    'a stop': ('completions', dict(prompt='a', stop=['']), 400, 'stop must be a text that is not empty'),
    'beams': ('completions', dict(prompt='a', num_beams=2, temperature=1), 400, 'exclude each other'),
    'a tool': ('chat/completions', dict(LONG, tools=[dict(type='function')]), 400, 'tools other than .* not supported'),
    'an unknown field': ('chat/completions', dict(LONG, hello=1), 400, 'hello is not supported'),
    'logprobs': ('chat/completions', dict(LONG, logprobs=3), 400, 'logprobs must be true or false'),
    'a probability': ('completions', dict(prompt='a', probability=1), 400, 'probability must be true or false'),
    'a prompt': ('completions', dict(prompt=3), 400, 'prompt must be a text'),
    'no prompt': ('completions', dict(prompt=[]), 400, 'prompt must be a text'),
    'a tag': ('completions', dict(prompt='a <image>'), 400, 'contains the tag <image>'),
    'half a letter': ('completions', '{"prompt": "a\\ud83d"}', 400, 'half of a surrogate pair'),
    'a name': ('memories', dict(name='a/b', messages=TURNS[:2]), 400, 'name must be'),
    'no candidates': ('rank', dict(messages=TURNS), 400, 'candidates must be a list'),
    'no labels': ('rank', dict(messages=TURNS[4:], candidates=['a'], nearest=True), 400, 'nearest neighbour needs'),
}


@pytest.mark.parametrize('name', WRONG)
def test_a_bad_request_is_refused_in_the_form_of_the_api(port, name, capfd):
    path, sent, status, message = WRONG[name]
    error = asked(port, path, sent, status)['error']
    assert re.search(message, error['message']) and error['type'] == 'invalid_request_error'
    assert {'param', 'code'} <= error.keys() and not capfd.readouterr().err
    if path != 'rank' and isinstance(sent, dict):  # A stream that can't begin is an error as well, and no stream.
        assert asked(port, path, dict(sent, stream=True), status)['error'] == error


def test_other_names_and_other_sites_are_refused(port):
    assert send(port, 'GET', '/v1/models', Host='evil.example')[0] == 400
    status, _, data = send(port, 'POST', '/v1/completions', dict(prompt='a'), Content_Type='text/plain')
    assert status == 415 and 'application/json' in json.loads(data)['error']['message']
    assert send(port, 'OPTIONS', '/v1/completions', Origin='http://evil.example')[0] == 405
    for path in ('/', '/v1', '/docs', '/../setup.py', '/v1/memories/..%2f..%2fsetup.py'):
        assert send(port, 'GET', path)[0] == 404
    assert send(port, 'PUT', '/v1/models')[0] == 405


def test_what_takes_too_long_is_ended():
    async def never(*_):
        await asyncio.Event().wait()

    async def run():
        request = Request(dict(type='http', method='POST', headers=[]), never)
        with pytest.raises(HTTPException) as refused:
            await body(request, 10, 0.01)
        assert refused.value.status_code == 408
        with pytest.raises(TimeoutError):
            await while_there(request, never(), 0.01)

    asyncio.run(run())


@pytest.fixture
def site():
    """A web server on the loopback: (its port, the paths that it was asked for with their header Host)."""
    seen = []
    moves = {'/out': 'http://other.example/a.png', '/file': 'file:///etc/passwd', '/loop': '/loop', '/moved': '/a.png'}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers['Host']))
            self.send_response(302 if self.path in moves else 200 if self.path == '/a.png' else 404)
            if self.path in moves:
                self.send_header('Location', moves[self.path])
            self.end_headers()
            self.wfile.write(A if self.path == '/a.png' else b'')

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, seen
        server.shutdown()
        thread.join()


def test_images_are_fetched_only_from_hosts_that_are_named_and_public_also_after_redirects(site, monkeypatch):
    port, seen = site
    names = {'named.example': ['127.0.0.1'], 'both.example': ['93.184.215.14', '10.0.0.1'], '127.0.0.1': ['127.0.0.1']}
    monkeypatch.setattr(addresses, 'addresses_of', lambda host, port: names[host])

    def refused(images, address, message='not fetched from this address') -> bool:
        with pytest.raises(UserError, match=message):
            images.image(address)
        return True

    address = f'http://named.example:{port}'
    hosts = frozenset(names)
    for images in (Images(ImageFormat(16), 1), Images(ImageFormat(16), 1, hosts)):
        assert refused(images, f'{address}/a.png') and refused(images, f'http://127.0.0.1:{port}/a.png')
        assert refused(images, 'http://both.example/a.png')  # One of its addresses is private.
    assert not seen
    # From here on, the loopback counts as public. The name has no other address: the one that was checked is asked.
    images = Images(ImageFormat(16), 1, hosts, allowed=lambda one: one == '127.0.0.1')
    whole = images.image(url(A))
    for path in ('/a.png', '/moved'):
        np.testing.assert_array_equal(images.image(address + path), whole)
    assert seen[0] == ('/a.png', f'named.example:{port}')
    assert refused(images, f'{address}/out') and refused(images, f'{address}/file')
    assert refused(images, f'{address}/loop', 'redirects more than 3 times')
    assert refused(images, f'{address}/none', 'answers 404')
    assert refused(images, f'http://a:b@named.example:{port}/a.png')
    assert refused(images, 'http://named.example:99999/a.png')
    monkeypatch.setattr(uploads, 'BYTES', 10)
    assert refused(images, f'{address}/a.png', 'larger than')


# ---- Clients that go, and many of them


@pytest.fixture
def held(monkeypatch):
    """Events: a step of the engine has begun, and may be run; an answer was cancelled."""
    begun, go_on, gone = (threading.Event() for _ in range(3))
    step, cancel = serving.Engine._step, serving.Answer.cancel

    def watched(engine):
        begun.set()
        assert go_on.wait(600)
        return step(engine)

    def cancelled(answer):
        cancel(answer)
        gone.set()

    monkeypatch.setattr(serving.Engine, '_step', watched)
    monkeypatch.setattr(serving.Answer, 'cancel', cancelled)
    yield begun, go_on, gone
    go_on.set()


@pytest.mark.parametrize('stream', [True, False])
def test_a_client_that_goes_ends_its_answer(port, pretrained, held, stream, lines):
    begun, go_on, gone = held
    connection = connected(port, 'POST', '/v1/chat/completions', LONG | dict(stream=stream, max_tokens=50))
    if stream:
        response = connection.getresponse()
        assert response.readline().startswith(b'data: {')  # The first token, before the second is computed.
        response.close()
    assert begun.wait(600)
    connection.close()
    assert gone.wait(600)  # The server knows.
    go_on.set()
    assert chatted(port, **LONG) == [answer(pretrained)]
    assert gauge(port, 'flamingo_answers_open') == 0


def test_more_than_there_is_room_for_is_told_to_come_again(port, pretrained, held):
    begun, go_on, _ = held
    with ThreadPoolExecutor() as people:
        first = people.submit(chatted, port, **LONG, n=4)
        assert begun.wait(600)
        status, headers, data = send(port, 'POST', '/v1/chat/completions', LONG)
        assert (status, headers['Retry-After']) == (429, '1')
        assert json.loads(data)['error']['type'] == 'rate_limit_error'
        assert json.loads(send(port, 'GET', '/health')[2]) == dict(status='ok')
        assert gauge(port, 'flamingo_answers_open') == 4
        go_on.set()
        assert first.result() == [answer(pretrained, seed=8 + i) for i in range(4)]


def test_the_log_and_the_counts_have_no_prompt(port, lines):
    asked(port, 'memories', dict(name='a_secret_name', messages=[user(text('lo')), assistant('dax')]), status=201)
    send(port, 'DELETE', '/v1/memories/a_secret_name')
    send(port, 'GET', '/a_secret_path')
    asked(port, 'completions', dict(prompt='a secret', max_tokens=1))
    found = json.loads(lines[-1])
    assert (found['path'], found['status'], found['completion_tokens']) == ('/v1/completions', 200, 1)
    counts = send(port, 'GET', '/metrics')[2].decode()
    assert 'flamingo_requests_total{path="/v1/completions",status="200"}' in counts and 'path="other"' in counts
    assert 'secret' not in counts and not [line for line in lines if 'secret' in line]


def test_the_openai_package(port, pretrained):
    openai = pytest.importorskip('openai')
    expected, address = answer(pretrained), f'http://127.0.0.1:{port}/v1'
    with openai.OpenAI(base_url=address, api_key='none', max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ['tiny']
        found = client.chat.completions.create(model='tiny', **LONG, logprobs=True, top_logprobs=1, n=2)
        assert [choice.message.content for choice in found.choices] == [expected, answer(pretrained, seed=9)]
        assert found.usage.completion_tokens == 12 and len(found.choices[0].logprobs.content) == 6
        parts = client.chat.completions.create(model='tiny', **LONG, stream=True)
        assert ''.join(part.choices[0].delta.content or '' for part in parts) == expected
        with client.chat.completions.create(model='tiny', **LONG, stream=True) as cancelled:
            next(iter(cancelled))
        assert client.completions.create(model='tiny', prompt=' lo', max_tokens=3).choices[0].text == (
            pretrained.generate(' lo', 3)
        )
        client.post('/memories', cast_to=object, body=dict(name='words', messages=TURNS[:4]))
        found = client.chat.completions.create(
            model='tiny', **LONG | dict(messages=TURNS[4:]), extra_body=dict(memory='words')
        )
        assert found.choices[0].message.content == expected
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model='gpt', **LONG)
        with pytest.raises(openai.BadRequestError, match='exceeds the context'):
            client.chat.completions.create(model='tiny', **LONG | dict(max_tokens=500))

    async def both():
        async with openai.AsyncOpenAI(base_url=address, api_key='none', max_retries=0) as client:
            return await asyncio.gather(*(client.chat.completions.create(model='tiny', **LONG) for _ in range(2)))

    assert [one.choices[0].message.content for one in asyncio.run(both())] == [expected] * 2


def test_a_warm_server_compiles_nothing_for_its_first_client(pretrained, chatting, caplog):
    jax.clear_caches()
    for model in (pretrained, chatting):
        model = dataclasses.replace(model)  # Which has read nothing.
        with Running(make_app(model, 'warm', log=lambda line: None, warm=1)) as running:
            jax.config.update('jax_log_compiles', True)
            try:
                with caplog.at_level(logging.WARNING):
                    asked(running.port, 'chat/completions', dict(messages=[user(shown(png(7)), text('Is it?'))]))
                    asked(running.port, 'chat/completions', dict(messages=[user(text('What is it?'))]))
            finally:
                jax.config.update('jax_log_compiles', False)
        assert [record.message[:80] for record in caplog.records if 'Compiling' in record.message] == []


# ---- The command


@contextlib.contextmanager
def command(*flags, **variables):
    """The process of the real command."""
    line = [sys.executable, '-m', 'flamingo_jax.serve', *flags]
    with subprocess.Popen(
        line, cwd=ROOT, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_command_serves_the_published_model_to_who_has_the_key_and_ends_when_answers_are_whole():
    bundle = '--checkpoint=experiments/picture_dictionary'
    with command(bundle, '--port=0', '--grace=600', FLAMINGO_API_KEY='a-key') as process:
        port = int(re.search(r'picture_dictionary is at http://127\.0\.0\.1:(\d+)/v1', process.stdout.readline())[1])
        for headers in ({}, dict(Authorization='Bearer b-key'), dict(Authorization='a-key')):
            status, _, data = send(port, 'GET', '/v1/models', **headers)
            assert status == 401 and json.loads(data)['error']['code'] == 'invalid_api_key'
        assert send(port, 'GET', '/health')[0] == 200
        key, pictures = dict(Authorization='Bearer a-key'), ROOT / 'docs/pictures'
        gorilla, mushroom, query = (
            shown((pictures / f'{name}.png').read_bytes()) for name in ('gorilla', 'mushroom', 'mushroom_3d')
        )
        turns = [user(gorilla), assistant('dax'), user(mushroom), assistant('wug'), user(query)]
        status, _, data = send(port, 'POST', '/v1/chat/completions', dict(messages=turns), **key)
        (choice,) = json.loads(data)['choices']
        assert choice['message']['content'] == 'wug' and choice['finish_reason'] == 'stop'
        sent = dict(prompt='The', max_tokens=150, stream=True)
        with contextlib.closing(connected(port, 'POST', '/v1/completions', sent, **key)) as connection:
            response = connection.getresponse()
            first = response.readline()
            process.send_signal(signal.SIGTERM)
            parts = events(first + response.read())
        assert parts[-1]['choices'][0]['finish_reason']
        _, said = process.communicate(timeout=600)
    assert process.returncode == 0
    logged = [json.loads(line) for line in said.splitlines()]
    assert [line['status'] for line in logged] == [401, 401, 401, 200, 200, 200]
    assert 'a-key' not in said and 'wug' not in said


def test_the_command_refuses_other_machines_without_a_key_and_a_port_that_is_taken():
    bundle = '--checkpoint=experiments/picture_dictionary'
    with command(bundle, '--host=0.0.0.0', FLAMINGO_API_KEY='') as process:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 2 and 'FLAMINGO_API_KEY' in said
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        with command(bundle, f'--port={taken.getsockname()[1]}', FLAMINGO_API_KEY='') as process:
            _, said = process.communicate(timeout=600)
            assert process.returncode == 2 and 'cannot be used' in said
