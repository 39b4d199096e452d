"""What a server tells of its work: a line of JSON for each request, and counts as Prometheus reads them.

Neither has a prompt, an answer, an image, a memory's name or a key.
"""

import hmac
import json
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
TOKENS = ('prompt_tokens', 'completion_tokens')
COUNTED = (*TOKENS, 'images')  # Of a request, in its log line and summed.


def error_of(message: str, status: int, code: str | None = None) -> dict[str, Any]:
    """An error in the form of OpenAI's API."""
    kinds = {401: 'authentication_error', 429: 'rate_limit_error'}
    kind = kinds.get(status, 'server_error' if status >= 500 else 'invalid_request_error')
    return dict(error=dict(message=message, type=kind, param=None, code=code))


class Counts:
    """What was counted since the start."""

    def __init__(self):
        """Nothing yet."""
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.sums: Counter[str] = Counter()

    def page(self, **now: int | float) -> str:
        """All counts in Prometheus's text format. now: other values, which may go down as well."""
        lines = ['# TYPE flamingo_requests_total counter']
        for (path, status), number in sorted(self.requests.items()):
            lines.append(f'flamingo_requests_total{{path="{path}",status="{status}"}} {number}')
        lines.append('# TYPE flamingo_request_seconds summary')
        for path, seconds in sorted(self.seconds.items()):
            number = sum(some for (one, _), some in self.requests.items() if one == path)
            lines.append(f'flamingo_request_seconds_sum{{path="{path}"}} {seconds:.6f}')
            lines.append(f'flamingo_request_seconds_count{{path="{path}"}} {number}')
        for name in COUNTED:
            lines += [f'# TYPE flamingo_{name}_total counter', f'flamingo_{name}_total {self.sums[name]}']
        for name, value in now.items():
            lines += [f'# TYPE flamingo_{name} gauge', f'flamingo_{name} {value}']
        return '\n'.join(lines) + '\n'


class Watched:
    """Counts and logs requests. What an endpoint counts, it adds to `scope['counted']`."""

    def __init__(self, app: App, counts: Counts, log: Callable[[str], None], paths: frozenset[str]):
        """log: takes each line. paths: those that are told by name; all others are 'other'."""
        self._app, self._counts, self._log, self._paths = app, counts, log, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope['type'] != 'http':
            return await self._app(scope, receive, send)
        begun, status, name = time.monotonic(), 499, uuid.uuid4().hex  # 499: the client has gone.
        scope['counted'] = counted = Counter()

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message['type'] == 'http.response.start':
                status = message['status']
                extra = {'x-request-id': name, 'x-content-type-options': 'nosniff', 'cache-control': 'no-store'}
                message['headers'] = [
                    *message.get('headers', []),
                    *((key.encode(), value.encode()) for key, value in extra.items()),
                ]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            path, seconds = self._path(scope['path']), time.monotonic() - begun
            self._counts.requests[path, status] += 1
            self._counts.seconds[path] += seconds
            self._counts.sums.update(counted)
            at = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
            line = dict(time=at, id=name, method=scope['method'], path=path, status=status, seconds=round(seconds, 3))
            self._log(json.dumps(line | counted))

    def _path(self, path: str) -> str:
        if path in self._paths:
            return path
        return '/v1/memories/{name}' if path.startswith('/v1/memories/') else 'other'


class Keyed:
    """Refuses requests without the key, but to `/health`."""

    def __init__(self, app: App, key: str):
        """key: what clients send as `Authorization: Bearer KEY`."""
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope['type'] == 'http' and scope['path'] != '/health':
            given = dict(scope['headers']).get(b'authorization', b'')
            scheme, _, key = given.partition(b' ')
            if scheme.lower() != b'bearer' or not hmac.compare_digest(key.strip(), self._key):
                said = error_of('The API key is missing or wrong.', 401, 'invalid_api_key')
                return await JSONResponse(said, 401, {'WWW-Authenticate': 'Bearer'})(scope, receive, send)
        await self._app(scope, receive, send)
