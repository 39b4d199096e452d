"""Object stores on the loopback: Amazon's by moto, Google's by gcp-storage-emulator.

Their requests can be made to fail, in several ways. They can keep every state that they went through, as a killed
client leaves them.
"""

import contextlib
import functools
import http.server
import io
import logging
import os
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

WRITES = ('PUT', 'POST', 'DELETE', 'PATCH')
# How a request fails. The connection is reset before an answer, or ends within it; or the answer comes late.
FAILURES = ('503', '500', 'reset', 'cut', 'late')


class Store:
    """A store with one empty bucket.

    Attributes:
      url: of the bucket.
      failures: the probability that a request fails,
      how: and in which of the ways of FAILURES.
      lost: whether half of those that fail are carried out nevertheless.
      failures_of: when each request failed at last, by its text: `time.monotonic()`.
      states: the state after every request that may change something, if it is a list.
    """

    def __init__(self, url: str, state: Callable[[], Any], go_back: Callable[[Any], None]):
        self.url, self.failures, self.how, self.lost, self.states = url, 0.0, '503', False, None
        self.failures_of: dict[str, float] = {}
        self.failed, self._state, self._random, self._lock = 0, state, random.Random(0), threading.RLock()
        self.go_back = go_back

    def answer(self, method: str, carry_out: Callable[[], Any], text: str = '') -> tuple[Any, str]:
        """What `carry_out` gives, None if it is not carried out, and how the request is to fail; '' if it is not."""
        with self._lock:
            fails, after = self._random.random() < self.failures, self.lost and self._random.random() < 0.5
            how = self.how if fails else ''
            self.failed += fails
            if fails:
                self.failures_of[text] = time.monotonic()
            answer = carry_out() if after or how in ('', 'cut', 'late') else None
            if method in WRITES and self.states is not None and (state := self._state()) not in self.states[-1:]:
                self.states.append(state)
        if how == 'late':
            time.sleep(2)
        return answer, how

    @contextlib.contextmanager
    def failing(self, probability: float, how: str = '503', lost: bool = False) -> Iterator[None]:
        """Lets requests fail."""
        self.failures, self.how, self.lost, self.failed = probability, how, lost, 0
        yield
        self.failures = 0.0


def _reset(connection: socket.socket) -> None:
    """Lets a connection end in a reset when it is closed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))


def _with_generation(answer: bytes, generation: str) -> bytes:
    """An answer that says which version of the object it has. The emulator leaves it out; TensorStore wants it."""
    first, _, rest = answer.partition(b'\r\n')
    return first + b'\r\nx-goog-generation: ' + generation.encode() + b'\r\n' + rest


def _last_bytes(answer: bytes, number: int) -> bytes:
    """The end of what a whole answer holds. The emulator knows no ranges from the end; ArrayRecord asks for them."""
    head, _, body = answer.partition(b'\r\n\r\n')
    end = body[-number:]
    head = head.replace(b' 200 OK', b' 206 Partial Content').replace(
        b'Content-Length: %d' % len(body),
        b'Content-Length: %d\r\nContent-Range: bytes %d-%d/%d'
        % (len(end), len(body) - len(end), len(body) - 1, len(body)),
    )
    return head + b'\r\n\r\n' + end


def google() -> Store:
    """Google's, with the environment that leads clients to it."""
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import buckets

    logging.getLogger('gcp_storage_emulator').setLevel(logging.CRITICAL)
    storage = server.Storage(use_memory_fs=True)
    buckets.create_bucket('bucket', storage)

    def state():
        return dict(storage.objects['bucket']), dict(storage._store._files)

    def go_back(state):
        storage.objects['bucket'], storage._store._files = map(dict, state)

    store = Store('gs://bucket', state, go_back)

    class Handler(server.RequestHandler):
        def send(self, method):
            body, out = io.BytesIO(self.rfile.read(int(self.headers.get('Content-Length') or 0))), self.wfile

            asked = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(asked.query))
            name = query.get('name') or urllib.parse.unquote(asked.path.rpartition('/o/')[2])

            def generation():
                return storage.objects.get('bucket', {}).get(name, {}).get('generation', '0')

            def carry_out():
                if query.get('ifGenerationMatch', generation()) != generation():  # The emulator compares nothing.
                    return b'HTTP/1.0 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n'
                self.rfile, self.wfile = body, io.BytesIO()
                server.Router(self).handle(method)
                last = re.fullmatch(r'bytes=-(\d+)', self.headers.get('Range') or '')
                answer = _last_bytes(self.wfile.getvalue(), int(last[1])) if last else self.wfile.getvalue()
                return _with_generation(answer, generation()) if query.get('alt') == 'media' else answer

            text = urllib.parse.unquote(f'{self.path} {body.getvalue()[:500]}')
            answer, how = store.answer(method, carry_out, text)
            if how == 'reset':
                _reset(self.connection)
                self.connection.close()
                return
            if how == 'cut':
                head, _, content = answer.partition(b'\r\n\r\n')
                answer = head + b'\r\n\r\n' + content[: len(content) // 2]
            elif how.isdecimal():
                answer = f'HTTP/1.0 {how} Unavailable\r\nContent-Length: 0\r\n\r\n'.encode()
            with contextlib.suppress(OSError):  # The client did not wait, or was cut off.
                out.write(answer)

        def do_GET(self):
            self.send('GET')

        def do_POST(self):
            self.send('POST')

        def do_PUT(self):
            self.send('PUT')

        def do_DELETE(self):
            self.send('DELETE')

        def do_PATCH(self):
            self.send('PATCH')

    listening = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, storage))
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{listening.server_address[1]}'
    # Of gcsfs, of TensorStore and of ArrayRecord. No one is asked who this machine is.
    os.environ |= dict(
        STORAGE_EMULATOR_HOST=address, TENSORSTORE_GCS_HTTP_URL=address, CLOUD_STORAGE_EMULATOR_ENDPOINT=address
    )
    os.environ |= dict(TENSORSTORE_GCE_METADATA_ROOT='127.0.0.1:9', GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT='false')
    return store


def amazon() -> Store:
    """Amazon's, with the environment that leads clients to it."""
    from moto.backends import get_backend
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import FakeKey
    from werkzeug.serving import WSGIRequestHandler, make_server

    FakeKey.dispose = lambda self, garbage=False: None  # An object that was deleted may come back by `go_back`.
    moto = DomainDispatcherApplication(create_backend_app)
    backend = get_backend('s3')['123456789012']['aws']
    backend.create_bucket('bucket', 'us-east-1')
    keys = backend.buckets['bucket'].keys

    def go_back(state):
        for name in list(keys):
            del keys[name]
        for name, key in state:
            keys[name] = key

    store = Store('s3://bucket', lambda: list(keys.items()), go_back)

    def app(environ, start_response):
        length, begun = int(environ.get('CONTENT_LENGTH') or 0), []
        body = environ['wsgi.input'].read(*(() if environ.get('wsgi.input_terminated') else (length,)))
        environ['wsgi.input'] = io.BytesIO(body)

        def carry_out():
            return b''.join(moto(environ, lambda *begin: begun.append(begin)))

        answer, how = store.answer(environ['REQUEST_METHOD'], carry_out)
        if how == 'reset':
            _reset(environ['werkzeug.socket'])
            raise ConnectionResetError
        if how.isdecimal():
            answer, begun[:] = b'', [(f'{how} Slow Down', [('Content-Length', '0')])]
        start_response(*begun[0])
        return [answer[: len(answer) // 2] if how == 'cut' else answer]

    class Quiet(WSGIRequestHandler):
        def log(self, *_):
            pass

    listening = make_server('127.0.0.1', 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    os.environ |= dict(AWS_ENDPOINT_URL=f'http://127.0.0.1:{listening.server_port}', AWS_REGION='us-east-1')
    os.environ |= dict(AWS_ACCESS_KEY_ID='nobody', AWS_SECRET_ACCESS_KEY='nothing', AWS_DEFAULT_REGION='us-east-1')
    return store


STORES = dict(gs=functools.cache(google), s3=functools.cache(amazon))
