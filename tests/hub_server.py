"""A server on the loopback that speaks as much of the Hugging Face Hub's protocol as its client needs for a model."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator


class Hub:
    """Its repositories: for each name, for each revision, the content of each file."""

    def __init__(self):
        """An empty one."""
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()  # Names.
        self.cut: set[str] = set()  # Files that are cut off in the middle, the next time that they are asked for.
        self.asked: list[str] = []  # Each request, with the range it wants.
        self.address = ''

    def add(self, name: str, files: dict[str, bytes], *revisions: str) -> str:
        """Commits files as the whole of these revisions. Returns the commit."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repositories.setdefault(name, {}).update(dict.fromkeys((commit, *revisions), files))
        return commit

    def commit_of(self, name: str, revision: str) -> str:
        """The commit that a revision names."""
        files = self.repositories[name][revision]
        return next(one for one, same in self.repositories[name].items() if same is files and len(one) == 40)


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = 'HTTP/1.1'
    hub: Hub

    def handle_one(self) -> None:
        """Any request but those of the client about itself."""
        hub, (path, _, _) = self.hub, self.path.partition('?')
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path = urllib.parse.unquote(path)
        hub.asked.append(f'{self.command} {path} {self.headers.get("Range") or ""}'.strip())
        if path == '/api/repos/create':
            asked = json.loads(body)
            name = f'{asked["organization"]}/{asked["name"]}' if asked.get('organization') else asked['name']
            hub.add(name, {}, 'main')
            return self.answer(dict(url=f'{hub.address}/{name}'))
        if path == '/api/validate-yaml':
            return self.answer(dict(warnings=[], errors=[]))
        of_api = re.fullmatch(r'/api/models/([\w.-]+/[\w.-]+)/(tree|revision|preupload|commit)/([^/]+)', path)
        of_file = re.fullmatch(r'/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)', path)
        name, revision = (of_api[1], of_api[3]) if of_api else (of_file[1], of_file[2]) if of_file else ('', '')
        if name in hub.gated:
            return self.answer({}, 403, 'GatedRepo')
        if name not in hub.repositories:
            return self.answer({}, 404, 'RepoNotFound')
        if revision not in hub.repositories[name]:
            return self.answer({}, 404, 'RevisionNotFound')
        files, commit = hub.repositories[name][revision], hub.commit_of(name, revision)
        if of_file:
            return self.send_file(files, commit, of_file[3])
        if of_api[2] == 'tree':
            return self.answer([dict(type='file', path=at, size=len(x), oid=etag(x)) for at, x in files.items()])
        if of_api[2] == 'revision':
            return self.answer(dict(id=name, sha=commit, siblings=[dict(rfilename=at) for at in files]))
        if of_api[2] == 'preupload':
            every = [
                dict(path=file['path'], uploadMode='regular', shouldIgnore=False) for file in json.loads(body)['files']
            ]
            return self.answer(dict(files=every))
        lines = [json.loads(line) for line in body.splitlines()]
        new = {x['value']['path']: base64.b64decode(x['value']['content']) for x in lines if x['key'] == 'file'}
        commit = hub.add(name, files | new, revision)
        self.answer(
            dict(success=True, commitOid=commit, commitUrl=f'{hub.address}/{name}/commit/{commit}', hookOutput='')
        )

    do_GET = do_HEAD = do_POST = handle_one

    def send_file(self, files: dict[str, bytes], commit: str, at: str) -> None:
        """A file, or what is asked for of it."""
        if at not in files:
            return self.answer({}, 404, 'EntryNotFound')
        whole = files[at]
        begin = int((self.headers.get('Range') or 'bytes=0-').removeprefix('bytes=').split('-')[0])
        content = whole[begin:]
        self.send_response(206 if begin else 200)
        headers = {'ETag': f'"{etag(whole)}"', 'X-Repo-Commit': commit, 'Content-Length': len(content)}
        headers |= (
            {'Accept-Ranges': 'bytes', 'Content-Range': f'bytes {begin}-{len(whole) - 1}/{len(whole)}'} if begin else {}
        )
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == 'HEAD':
            return
        if at in self.hub.cut:
            self.hub.cut.remove(at)
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)

    def answer(self, found: object, status: int = 200, error: str = '') -> None:
        """JSON, with the name of an error as the Hub gives it."""
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(content)))
        if error:
            self.send_header('X-Error-Code', error)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


def etag(content: bytes) -> str:
    """What a file is known by."""
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub that is served while the context is open."""
    hub = Hub()
    handler = type('HandlerOfOne', (Handler,), dict(hub=hub))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        hub.address = f'http://127.0.0.1:{server.server_port}'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
