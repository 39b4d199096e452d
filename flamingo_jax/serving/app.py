"""The server that clients of OpenAI's API know.

    GET  /v1/models, /v1/models/NAME   the model
    POST /v1/chat/completions          messages with images and videos -> what the assistant says
    POST /v1/completions               a prompt, also of texts and images in reading order -> its continuation
    POST /v1/memories                  examples, sent once and referred to by name: {"memory": NAME} in a request
    GET  /v1/memories, /v1/memories/NAME;  DELETE /v1/memories/NAME
    POST /v1/rank                      messages or a prompt, and candidates -> their probabilities
    GET  /health, /metrics             for whoever runs it

One engine (`inference/serving.py`) writes all answers together. Nothing is written to disk. When a client closes a
request, no further step of it is run.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import json
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from absl import logging
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from flamingo_jax.errors import UserError
from flamingo_jax.inference.pretrained import Pretrained, Written, up_to
from flamingo_jax.inference.serving import Engine
from flamingo_jax.serving.answers import Choice, Form, Question
from flamingo_jax.serving.images import Images, frames_of
from flamingo_jax.serving.requests import json_object
from flamingo_jax.serving.service import Memory, Service
from flamingo_jax.serving.settings import read_settings
from flamingo_jax.serving.watch import TOKENS, Counts, Keyed, Receive, Scope, Send, Watched, error_of

BROKEN = 'The server has an error of its own. Its log shows more.'
LOCAL = ['127.0.0.1', 'localhost']
PATHS = frozenset(
    f'/{name}' for name in 'v1/models v1/chat/completions v1/completions v1/memories v1/rank health metrics'.split()
)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server takes at most."""

    body_bytes: int = 48 * 2**20
    body_seconds: float = 60.0  # For a body to arrive.
    answer_seconds: float = 600.0  # For all answers of a request.
    answers: int = 256  # At a time, of all clients; more are told to come again.


LIMITS = Limits()


class Server:
    """The endpoints of one model."""

    def __init__(self, service: Service, limits: Limits):
        """service: of the model. limits: what is taken at most."""
        self.service, self.limits, self.counts = service, limits, Counts()
        self.created = int(time.time())
        self.open = 0  # Answers that are asked for and not whole.
        self._readers = concurrent.futures.ThreadPoolExecutor(2, 'reader')
        self._writers = concurrent.futures.ThreadPoolExecutor(limits.answers, 'writer')  # Each waits for one token.

    async def _read(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._readers, call, *arguments)

    async def _compute(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.wrap_future(self.service.engine.call(call, *arguments))

    async def _asked(self, request: Request) -> dict[str, Any]:
        """A request's JSON. A page of another site can't send this type without asking, which is not answered."""
        kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
        if kind != 'application/json':
            raise HTTPException(415, 'Send JSON, with the header Content-Type: application/json.')
        asked = await json_object(request, self.limits.body_bytes, self.limits.body_seconds)
        self._refuse_other_model(asked.get('model', self.service.name))
        return asked

    def _refuse_other_model(self, name: Any) -> None:
        if name != self.service.name:
            raise HTTPException(404, f'The model {name!r} does not exist. This server has {self.service.name!r}.')

    async def _remember(self, memory: Memory | None) -> None:
        if memory is not None:
            await self._compute(self.service.remember, memory)

    async def _while_there(self, request: Request, work: Awaitable[Any]) -> Any:
        return await while_there(request, work, self.limits.answer_seconds)

    # ---- Answers

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await self._answer(request, chat=True)

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await self._answer(request, chat=False)

    async def _answer(self, request: Request, chat: bool) -> Response:
        asked = await self._asked(request)
        settings = read_settings(asked, chat)
        prompts, memory = await self._while_there(request, self._read(self.service.prompts, asked, chat))
        question, form = Question(prompts, settings), Form(chat, self.service.name)
        release = self._reserve(question)
        try:
            await self._while_there(request, self._ask(question, memory))
            if settings.stream:
                response = Stream(self._events(request, form, question), release)
                release = _nothing
                return response
            every = asyncio.gather(*(self._follow(question, i) for i in range(len(question.answers))))
            choices = await self._while_there(request, every)
            usage = self._usage(request, question, choices)
            return JSONResponse(form.whole([form.choice(i, one) for i, one in enumerate(choices)], usage=usage))
        finally:
            release()

    def _reserve(self, question: Question) -> Callable[[], None]:
        """Keeps room for a question's answers until what it returns is called, which also ends them."""
        number = len(question.prompts) * question.settings.n
        if number > self.limits.answers:
            raise UserError(f'{number} answers are asked for. Ask for at most {self.limits.answers} at a time.')
        if self.open + number > self.limits.answers:
            raise HTTPException(429, 'Too many answers are being written. Come again.', {'Retry-After': '1'})
        self.open += number

        def release() -> None:
            self.open -= number
            question.close()

        return release

    async def _ask(self, question: Question, memory: Memory | None) -> None:
        await self._remember(memory)
        await self._read(question.ask, self.service)

    async def _follow(self, question: Question, i: int, say: Callable[[str], None] | None = None) -> Choice:
        """Waits for an answer. In between, says each piece of it that is sure to stay."""
        answer, settings, shown, last = question.answers[i], question.settings, '', Written('', [])
        sure = settings.likeliest is None and settings.sampling.num_beams == 1
        stop, run = settings.sampling.stop, asyncio.get_running_loop().run_in_executor
        while (written := await run(self._writers, next, answer, None)) is not None:
            last = written
            text = written.text[: len(written.text) - _begun(written.text, stop)]
            if say and sure and text.startswith(shown):
                say(text[len(shown) :])
                shown = text
        whole = self.service.flamingo.tokenizer.written(last.tokens)
        cut = len(last.tokens) == answer.sampling.max_new_tokens and up_to(whole, stop) == whole
        prompt, likelihoods, probability = question.prompts[i // settings.n], None, None
        if settings.likeliest is not None:
            likelihoods = await self._compute(self.service.likelihoods, prompt, last.tokens, settings.likeliest)
        if settings.probability:
            probability = await self._compute(self.service.probability, prompt, last)
        if say:
            say(last.text[len(shown) :])
        return Choice(last.text, len(last.tokens), 'length' if cut else 'stop', likelihoods, probability)

    def _usage(self, request: Request, question: Question, choices: list[Choice]) -> dict[str, Any]:
        read = [answer.prompt for answer in question.answers[:: question.settings.n]]
        usage = self.service.usage(read, sum(choice.tokens for choice in choices))
        images = sum(len(one.images) for one in read)
        request.scope['counted'].update(images=images, **{name: usage[name] for name in TOKENS})
        return usage

    async def _events(self, request: Request, form: Form, question: Question) -> AsyncIterator[str]:
        """The events of all answers, as they come."""
        parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def write(i: int) -> Choice:
            begun = False

            def say(text: str, choice: Choice | None = None) -> None:
                nonlocal begun
                if text or choice:
                    parts.put_nowait(form.part(i, text, not begun, choice))
                    begun = True

            choice = await self._follow(question, i, say)
            say('', choice)
            return choice

        every = asyncio.gather(*(write(i) for i in range(len(question.answers))))
        ends = time.monotonic() + self.limits.answer_seconds
        try:
            while not (every.done() and parts.empty()):
                coming = asyncio.ensure_future(parts.get())
                await asyncio.wait(
                    {coming, every}, timeout=ends - time.monotonic(), return_when=asyncio.FIRST_COMPLETED
                )
                if coming.done():
                    yield _event(form.whole([coming.result()], part=True))
                    continue
                coming.cancel()
                if not every.done():
                    raise TimeoutError
            usage = self._usage(request, question, every.result())
            if question.settings.usage:
                yield _event(form.whole([], part=True, usage=usage))
            yield 'data: [DONE]\n\n'
        except Exception as error:
            status, message = _said(error)
            yield _event(error_of(message, status))
        finally:
            every.cancel()

    # ---- Memories and ranks

    def _memory(self, name: str, memory: Memory) -> dict[str, Any]:
        return dict(id=name, object='memory', created=memory.created, usage=memory.usage)

    async def add_memory(self, request: Request) -> Response:
        """POST /v1/memories."""
        asked = await self._asked(request)

        async def added() -> dict[str, Any]:
            name, memory = await self._read(self.service.add, asked)
            await self._remember(memory)
            return self._memory(name, memory)

        return JSONResponse(await self._while_there(request, added()), 201)

    async def memories(self, request: Request) -> Response:
        """GET /v1/memories."""
        return JSONResponse(dict(object='list', data=[self._memory(*one) for one in self.service.memories.items()]))

    async def memory(self, request: Request) -> Response:
        """GET and DELETE /v1/memories/NAME."""
        name = request.path_params['name']
        memory = self.service.memories.get(name)
        if memory is None:
            raise HTTPException(404, f'There is no memory {name!r}.')
        if request.method != 'DELETE':
            return JSONResponse(self._memory(name, memory))
        del self.service.memories[name]
        return JSONResponse(dict(id=name, object='memory.deleted', deleted=True))

    async def rank(self, request: Request) -> Response:
        """POST /v1/rank."""
        asked = await self._asked(request)
        return JSONResponse(await self._while_there(request, self._ranked(asked)))

    async def _ranked(self, asked: dict[str, Any]) -> dict[str, Any]:
        service = self.service
        texts = service.candidates(asked)
        (prompt, *others), memory = await self._read(service.prompts, asked, 'messages' in asked)
        if others:
            raise UserError('Rank the candidates of one prompt at a time.')
        examples = await self._read(service.examples, asked) if asked.get('nearest') is True else None
        await self._remember(memory)
        found = await self._compute(service.rank, prompt, texts)
        data = [one | dict(candidate=asked['candidates'][one['index']]) for one in found]
        nearest = dict(nearest=await self._compute(service.nearest, *examples)) if examples else {}
        usage = service.usage([service.flamingo.encoded(prompt, 1)])
        return dict(object='ranking', model=service.name, data=data, **nearest, usage=usage)

    # ---- Others

    async def models(self, request: Request) -> Response:
        """GET /v1/models and /v1/models/NAME."""
        model = dict(id=self.service.name, object='model', created=self.created, owned_by='flamingo_jax')
        if 'name' not in request.path_params:
            return JSONResponse(dict(object='list', data=[model]))
        self._refuse_other_model(request.path_params['name'])
        return JSONResponse(model)

    async def health(self, request: Request) -> Response:
        """GET /health."""
        return JSONResponse(dict(status='ok'))

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        service = self.service
        now = dict(answers_open=self.open, answers_writing=service.engine.writing, memories=len(service.memories))
        return PlainTextResponse(self.counts.page(**now), media_type='text/plain; version=0.0.4')

    @property
    def routes(self) -> list[Route]:
        """All endpoints."""
        return [
            Route('/v1/models', self.models),
            Route('/v1/models/{name:path}', self.models),
            Route('/v1/chat/completions', self.chat, methods=['POST']),
            Route('/v1/completions', self.complete, methods=['POST']),
            Route('/v1/memories', self.add_memory, methods=['POST']),
            Route('/v1/memories', self.memories),
            Route('/v1/memories/{name}', self.memory, methods=['GET', 'DELETE']),
            Route('/v1/rank', self.rank, methods=['POST']),
            Route('/health', self.health),
            Route('/metrics', self.metrics),
        ]


async def while_there(request: Request, work: Awaitable[Any], seconds: float) -> Any:
    """What `work` gives. It is ended if the client goes (HTTPException), or after so many seconds (TimeoutError)."""

    async def gone() -> None:
        while (await request.receive())['type'] != 'http.disconnect':
            pass

    task, watch = asyncio.ensure_future(work), asyncio.create_task(gone())
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise HTTPException(499, 'The client has gone.')
    finally:
        for one in (task, watch):
            one.cancel()


class Stream(StreamingResponse):
    """Server-sent events. What it holds is released when it ends, also if it never began."""

    def __init__(self, events: AsyncIterator[str], release: Callable[[], None]):
        """events: as they are sent."""
        super().__init__(events, media_type='text/event-stream')
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends all events, unless the client goes."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


def make_app(
    flamingo: Pretrained,
    name: str,
    key: str = '',
    hosts: frozenset[str] = frozenset(),
    limits: Limits = LIMITS,
    log: Callable[[str], None] = logging.info,
    warm: int | None = None,
) -> Starlette:
    """The server of one model.

    Args:
      flamingo: on one device, or on a mesh that is tensor-parallel alone.
      name: of the model, as clients call it.
      key: what clients must send as `Authorization: Bearer KEY`. '': they need none, and this machine alone is served.
      hosts: from which images may be fetched.
      limits: what it takes at most.
      log: takes a line of JSON for each request.
      warm: compiles before it returns what conversations about up to so many images need; None compiles nothing.
    """
    engine = Engine(flamingo)
    images = Images(flamingo.image_format, frames_of(flamingo.config), hosts)
    service = Service(engine, images, name)
    if warm is not None:
        service.warm(warm)
    server = Server(service, limits)

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        with engine:
            yield

    guard = Middleware(Keyed, key) if key else Middleware(TrustedHostMiddleware, LOCAL, www_redirect=False)
    return Starlette(
        routes=server.routes,
        middleware=[Middleware(Watched, server.counts, log, PATHS), guard],
        lifespan=running,
        exception_handlers={HTTPException: _refuse_http, UserError: _refuse, TimeoutError: _refuse, Exception: _fail},
    )


async def _refuse(request: Request, error: Exception) -> Response:
    status, message = _said(error)
    return JSONResponse(error_of(message, status), status)


async def _fail(request: Request, error: Exception) -> Response:
    return JSONResponse(error_of(BROKEN, 500), 500)  # Starlette raises the error again, and uvicorn logs it.


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = 'model_not_found' if error.status_code == 404 and error.detail.startswith('The model') else None
    return JSONResponse(error_of(error.detail, error.status_code, code), error.status_code, error.headers)


def _said(error: Exception) -> tuple[int, str]:
    """The status and what a client is told of an error. A bug's traceback goes to the log."""
    if isinstance(error, TimeoutError):
        return 504, 'The answer took too long. Ask for fewer tokens.'
    if isinstance(error, UserError):
        return 400, str(error)
    traceback.print_exception(error)
    return 500, BROKEN


def _nothing() -> None:
    """Releases nothing."""


def _event(found: dict[str, Any]) -> str:
    return f'data: {json.dumps(found)}\n\n'


def _begun(text: str, stop: Sequence[str]) -> int:
    """How many letters at the end of a text may be the beginning of a stop, which would not be shown."""
    return max((n for mark in stop for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0)
