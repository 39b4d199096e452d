"""The server behind the page.

    GET  /, /style.css, /page.js   the page; no other file is served
    GET  /card                     the model card
    GET  /about                    the model, and the ready sets
    POST /image                  a file -> the frames that the page keeps
    POST /answer                   a prompt -> lines of JSON, one for each token; then what the model looked at
    POST /rank                     a prompt and candidates -> their log-likelihoods
    POST /nearest                  images and labels -> the nearest neighbour's label for the last image

A prompt is a list of texts and images in reading order. An image is {"frames": [data URL, ...]}. The server keeps
nothing: each request brings its whole prompt.

One engine (`inference/serving.py`) writes the answers of several people together, and runs whatever else needs the
model between two steps. When a browser closes a request, no further step of it is run.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.resources
import json
import traceback
from asyncio import get_running_loop, wrap_future
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flamingo_jax import commands
from flamingo_jax.demo import cards
from flamingo_jax.demo.ready import Ready
from flamingo_jax.errors import UserError
from flamingo_jax.inference.inspection import look
from flamingo_jax.inference.pretrained import Pretrained
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inference.serving import Answer, Engine
from flamingo_jax.inputs.images import to_frames
from flamingo_jax.inputs.prompts import dialogue_of, end_of_answer
from flamingo_jax.inputs.tokenizer import QUOTE
from flamingo_jax.serving import uploads
from flamingo_jax.serving.images import frames_of
from flamingo_jax.serving.requests import body, from_data_url, json_object, require_numbers, to_data_url
from flamingo_jax.tasks.nearest import nearest_neighbour, pooled

BROKEN = 'The server has an error of its own. Its terminal shows more.'
AT_ONCE = 32  # Most connections; more are told to come again.
PAGE = {
    '/': ('index.html', 'text/html'),
    '/style.css': ('style.css', 'text/css'),
    '/page.js': ('page.js', 'text/javascript'),
}
PROMPT_BYTES, ITEMS, FRAMES, CANDIDATES = 48 * 2**20, 256, 256, 256  # Most of a request.
HEADERS = {
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; media-src blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
}


# What a visitor may set: type, from and to.
BOUNDS = dict(
    max_new_tokens=(int, 1, 256), num_beams=(int, 1, 10), temperature=(float, 0, 10), top_k=(int, 0, 10**6),
    top_p=(float, 0.01, 1), seed=(int, 0, 2**31 - 1),
)  # fmt: skip


def sampling_of(given: Any) -> Sampling:
    """How a request wants its answer written. ValueError names the setting that is wrong, and its bounds."""
    if not isinstance(given, dict) or set(given) - set(BOUNDS):
        raise UserError(f'The settings are not valid. They are {", ".join(BOUNDS)}.')
    require_numbers(given, BOUNDS)
    return Sampling(**given)


class Model:
    """What the page asks of a model."""

    def __init__(self, engine: Engine):
        self.engine, self.flamingo = engine, engine.flamingo
        self.frames = frames_of(self.flamingo.config)
        # Features are computed once an image, also when another prompt shows it again.
        self._features = functools.lru_cache(maxsize=128)(self._compute)

    def _compute(self, frames: tuple[bytes, ...]) -> Float[np.ndarray, 't s d_v']:
        for frame in frames:
            uploads.check(frame)
        image_format = self.flamingo.image_format
        pixels = to_frames(frames[0] if len(frames) == 1 else list(frames), image_format.size, image_format.fit)
        return np.asarray(self.flamingo.features(pixels), np.float32)

    def prompt(self, items: Any) -> list[str | np.ndarray]:
        """A request's prompt, with features in place of images. ValueError if it is not valid."""
        if not isinstance(items, list) or len(items) > ITEMS:
            raise UserError(f'A prompt is a list of at most {ITEMS} texts and images.')
        number = sum(len(_frames(item)) for item in items if not isinstance(item, str))
        if number > FRAMES:
            raise UserError(f'The prompt has {number} frames. Use at most {FRAMES}.')
        return [item if isinstance(item, str) else self.image(item) for item in items]

    def image(self, item: Any) -> Float[np.ndarray, 't s d_v']:
        """The features of a request's image."""
        return self._features(tuple(map(from_data_url, _frames(item))))

    def ask(self, asked: dict[str, Any]) -> tuple[list[str | np.ndarray], Answer]:
        """The prompt, and its answer while it is written."""
        sampling = sampling_of(asked.get('settings', {}))
        prompt = self.prompt(asked.get('prompt'))
        return prompt, self.engine.ask(prompt, sampling)

    def look(self, prompt: list[str | np.ndarray], answer: list[int]) -> dict[str, Any]:
        """What the model looked at while it wrote the tokens of an answer."""
        seen = look(self.flamingo, prompt, answer)
        shown = [i for i in range(seen.weights.shape[2]) if seen.weights[:, :, i].any()]
        return dict(
            tokens=seen.tokens,
            likeliest=seen.likeliest,
            gates=seen.gates.tolist(),
            # By image number: [block][position][frame][row][column], rounded to keep the line short.
            over={i: np.round(seen.over(i), 4).tolist() for i in shown},
        )

    def rank(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The log-likelihood of each candidate, with the end of the chunk."""
        candidates = asked.get('candidates')
        if not isinstance(candidates, list) or not all(isinstance(text, str) and text for text in candidates):
            raise UserError('Candidates are a list of texts that are not empty.')
        if not 0 < len(candidates) <= CANDIDATES:
            raise UserError(f'Give 1 to {CANDIDATES} candidates.')
        scores = self.flamingo.score(self.prompt(asked.get('prompt')), candidates)
        return dict(log_likelihoods=[float(score) for score in scores])

    def nearest(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The label of the image whose frozen features are most similar to those of the last image."""
        images, labels = asked.get('images'), asked.get('labels')
        if not isinstance(images, list) or not isinstance(labels, list) or not 0 < len(labels) == len(images) - 1:
            raise UserError('Give a label for each image but the last, and at least one.')
        rows = np.stack([pooled(self.image(image)) for image in images])
        label = nearest_neighbour(rows[-1], rows[:-1], labels)
        return dict(label=label, cosines=(rows[:-1] @ rows[-1]).tolist())


def make_app(
    flamingo: Pretrained, checkpoint: str, ready: Sequence[Ready], lm: str = '', card: str = '', start: str = ''
) -> Starlette:
    """The server of one model.

    Args:
      flamingo: on one device.
      checkpoint: its path, for the commands that the page shows.
      ready: the sets of examples that the page offers.
      lm: the path of its language model, for the same commands, if the checkpoint has none.
      card: the model card, Markdown; '' if there is none.
      start: the command that starts this server, which the page shows when the server has ended.

    Raises:
      ValueError: the model takes no images.
    """
    if flamingo.config.vision is None or flamingo.config.xattn is None:
        raise UserError(f'{checkpoint} is no Flamingo: it needs a vision encoder and gated blocks.')
    engine = Engine(flamingo)
    model = Model(engine)
    decoder, people = (concurrent.futures.ThreadPoolExecutor(number) for number in (1, AT_ONCE))
    about = _about(flamingo, checkpoint, ready, lm) | dict(card=bool(card), start=start)
    folder = importlib.resources.files('flamingo_jax.demo') / 'page'

    async def on(pool: concurrent.futures.Executor, call: Callable[..., Any], *arguments: Any) -> Any:
        return await get_running_loop().run_in_executor(pool, call, *arguments)

    async def on_engine(call: Callable[..., Any], *arguments: Any) -> Any:
        return await wrap_future(engine.call(call, *arguments))

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        with engine:
            yield

    async def page(request: Request) -> Response:
        name, kind = PAGE[request.url.path]
        return Response((folder / name).read_bytes(), media_type=kind)

    async def model_card(request: Request) -> Response:
        if not card:
            raise HTTPException(404, f'{checkpoint} has no model card.')
        return HTMLResponse(cards.page(card))

    async def tell(request: Request) -> Response:
        return JSONResponse(about)

    async def image(request: Request) -> Response:
        data = await body(request, uploads.BYTES)
        video = request.headers.get('content-type', '').startswith('video/')
        frames = await on(decoder, uploads.prepare, data, flamingo.image_format, model.frames, video)
        return JSONResponse(dict(frames=[to_data_url(frame) for frame in frames]))

    async def answer(request: Request) -> Response:
        asked = await json_object(request, PROMPT_BYTES)
        prompt, answer = await on_engine(model.ask, asked)

        async def write() -> AsyncIterator[str]:
            try:
                while (written := await on(people, next, answer, None)) is not None:
                    last = written
                    yield _line(text=written.text, tokens=len(written.tokens))
                yield _line(done=True)
                if asked.get('probability'):
                    found = await on_engine(flamingo.probabilities, [prompt], [last])
                    yield _line(probability=float(found[0, 0]))
                if asked.get('look'):
                    try:  # The answer stands, whatever becomes of this.
                        yield _line(look=await on_engine(model.look, prompt, last.tokens))
                    except Exception as error:
                        yield _line(look_error=_said(error))
            except Exception as error:
                yield _line(error=_said(error))
            finally:
                answer.cancel()  # If the browser has gone.

        return StreamingResponse(write(), media_type='application/x-ndjson')

    def ask(method: Callable[[dict[str, Any]], dict[str, Any]]):
        async def endpoint(request: Request) -> Response:
            return JSONResponse(await on_engine(method, await json_object(request, PROMPT_BYTES)))

        return endpoint

    async def refuse(request: Request, error: Exception) -> Response:
        status = 400 if commands.is_mistake(error) else 500
        return JSONResponse(dict(error=_said(error)), status)

    async def fail(request: Request, error: Exception) -> Response:
        return JSONResponse(dict(error=BROKEN), 500)  # Starlette raises the error again, and uvicorn logs it.

    async def refuse_http(request: Request, error: HTTPException) -> Response:
        return JSONResponse(dict(error=error.detail), error.status_code)

    return Starlette(
        routes=[
            *[Route(path, page) for path in PAGE],
            Route('/card', model_card),
            Route('/about', tell),
            Route('/image', image, methods=['POST']),
            Route('/answer', answer, methods=['POST']),
            Route('/rank', ask(model.rank), methods=['POST']),
            Route('/nearest', ask(model.nearest), methods=['POST']),
        ],
        middleware=[
            # A site that gives its own name this machine's address (DNS rebinding) does not get past this.
            Middleware(TrustedHostMiddleware, allowed_hosts=['127.0.0.1', 'localhost'], www_redirect=False),
            Middleware(_SameOrigin),
        ],
        lifespan=running,
        exception_handlers={HTTPException: refuse_http, ValueError: refuse, Exception: fail},
    )


class _SameOrigin:
    """Refuses what another site's page sends, and adds `HEADERS` to every answer."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope['type'] != 'http':
            return await self.app(scope, receive, send)

        async def with_headers(message):
            if message['type'] == 'http.response.start':
                message['headers'] += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        headers = {name: value.decode('latin-1') for name, value in scope['headers']}
        origin, host = headers.get(b'origin'), headers.get(b'host', '')
        foreign = origin is not None and origin != f'http://{host}'
        # A link to the page may be clicked anywhere; what it opens can't be read there, nor framed (`HEADERS`).
        how = tuple(headers.get(f'sec-fetch-{name}'.encode()) for name in ('mode', 'dest'))
        opened = (scope['method'], scope['path'], *how) == ('GET', '/', 'navigate', 'document')
        if foreign or (headers.get(b'sec-fetch-site') in ('cross-site', 'same-site') and not opened):
            refused = JSONResponse(dict(error='Only the page itself may ask.'), 403)
            return await refused(scope, receive, with_headers)
        return await self.app(scope, receive, with_headers)


def _line(**fields: Any) -> str:
    return json.dumps(fields) + '\n'


def _said(error: Exception) -> str:
    """What the page shows of an error. A bug's traceback goes to the terminal."""
    if commands.is_mistake(error):
        return str(error)
    traceback.print_exception(error)
    return BROKEN


def _frames(item: Any) -> list[Any]:
    """The frames of a request's image, not yet checked."""
    frames = item.get('frames') if isinstance(item, dict) else None
    if not isinstance(frames, list) or not frames:
        raise UserError('An image is {"frames": [data URL, ...]}.')
    return frames


def _about(flamingo: Pretrained, checkpoint: str, ready: Sequence[Ready], lm: str) -> dict[str, Any]:
    """What the page says of the model, and offers."""
    c = flamingo.config

    def card(card) -> dict[str, Any]:
        return dict(name=card.name, frames=[to_data_url(frame) for frame in card.frames], text=card.text)

    marks = dialogue_of(flamingo.tokenizer)
    return dict(
        checkpoint=checkpoint,
        lm=lm,
        chunk_end=flamingo.tokenizer.chunk_end,
        quote=QUOTE,
        chat=marks and marks._asdict() | dict(ends_answer=end_of_answer(marks, flamingo.tokenizer)),
        context=c.lm.context,
        fitted=flamingo.temperature != 1,  # Its probabilities can be believed.
        fit=c.fit,
        only_last_image=c.xattn.only_last_image,
        only_at_tag=c.xattn.at_tag,
        blocks=[c.xattn.first + i for i in range(0, c.lm.depth - c.xattn.first, c.xattn.every)],
        upload_bytes=uploads.BYTES,
        shown=uploads.SHOWN,
        ready=[dataclasses.asdict(one) | dict(cards=[card(each) for each in one.cards]) for one in ready],
    )
