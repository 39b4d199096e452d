"""Answers many prompts at once (continuous batching: Yu et al. 2022, Orca).

    with Engine(flamingo) as engine:
        for written in engine.ask(prompt):
            print(written.text)

One thread runs the model. Prompts come at any time and from any thread. Those that wait and have similar lengths are
read together, and join the rows that are decoded together, one token for all rows at each step. A row is free again
when its answer ends. An answer does not depend on its neighbours: up to rounding, it is what `Pretrained.generate`
gives.

A beam search has rows and programs of its own; it takes a step between two steps of the others.

Programs are few, whatever the prompts' lengths. Prompts are read one or four at a time, padded to a power of two. The
number of rows, the places in their caches and the images that they see are powers of two as well; they grow when a
prompt needs it, and shrink when nobody is answered, or much less would do.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jaxtyping import Array, Bool, Int, Key

from flamingo_jax.errors import UserError
from flamingo_jax.inference import decode, search
from flamingo_jax.inference.pretrained import Pretrained, Written, up_to
from flamingo_jax.inference.sampling import GREEDY, Sampling
from flamingo_jax.inputs.prompts import Encoded, Prompt, as_batch
from flamingo_jax.model.flamingo import Flamingo, Media, Params
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules
from flamingo_jax.ranges import require

PLACES = 256  # The least in a cache: fewer would save little, and each size is another program.
SHRINK = 8  # What is so many times as large as needed becomes smaller.
GROUP = 4  # Prompts that are read at a time, if so many of one shape wait; else one is.


class Rows(NamedTuple):
    """Answers that are decoded together. Rows do not share anything, and each is at a place of its own."""

    media: Media | None
    text: decode.Text
    token: Int[Array, 'b']  # The last one of each answer, which its text does not have yet.
    step: Int[Array, 'b']  # The number of its tokens.
    key: Key[Array, 'b']
    drawing: search.Drawing  # Of arrays [b].


class Size(NamedTuple):
    """The size of `Rows`."""

    rows: int
    places: int  # Of each row's cache.
    media: int  # Media tokens that each row may see.


class Answer(Iterator[Written]):
    """The answer to one prompt while it is written: after each token, the whole so far. Made by `Engine.ask`."""

    def __init__(self, prompt: Encoded, sampling: Sampling, beams: Iterator[Written] | None):
        """Not yet asked. beams: the search that writes it; None: it is one of the rows."""
        self.prompt, self.sampling, self.beams = prompt, sampling, beams
        self.key = sampling.keys(1)[0]
        self.tokens: list[int] = []
        self.over, self._last = False, Written('', [])  # What was read last.
        self._written: queue.SimpleQueue[Written | Exception | None] = queue.SimpleQueue()

    def __next__(self) -> Written:
        """Waits for the next token. What ended the answer before its end is raised here."""
        found = self._written.get()
        if isinstance(found, Written):
            self._last = found
            return found
        self._written.put(None)  # Whoever asks again.
        raise StopIteration if found is None else found

    def cancel(self) -> None:
        """Ends the answer with what is written. Its row is free at the next step."""
        self.end(None)

    def text(self) -> str:
        """Waits for the whole answer, of which a part may have been read."""
        for _ in self:
            pass
        return self._last.text

    def end(self, why: Exception | None) -> None:
        """Nothing is written after this. why: the error that ends it."""
        if not self.over:
            self.over = True
            self._written.put(why)

    def add(self, written: Written) -> None:
        """One more token is written."""
        if not self.over:
            self._written.put(written)


class Engine:
    """Answers prompts together. Use it in a `with`, or close it. Its thread owns the model: others do not use it."""

    def __init__(self, flamingo: Pretrained, slots: int = 32):
        """Starts the thread.

        Args:
          flamingo: on one device, or on a mesh that is tensor-parallel alone.
          slots: most answers that are written at a time; further prompts wait. Each needs memory for a cache.

        Raises:
          ValueError: `slots` is not positive, or the mesh shards rows.
        """
        require('', dict(slots=slots), 'a whole number, 1 or more', 'slots')
        if meshes.row_shards(flamingo.mesh) > 1:
            raise UserError(
                'Rows that come and go cannot be sharded. Load the model on one device, or on a mesh with data=1, '
                'fsdp=1, and start an engine on each.'
            )
        self.flamingo, self.slots = flamingo, slots
        self._changed = threading.Condition()
        self._waiting: list[Answer] = []
        self._calls: list[tuple[concurrent.futures.Future, Callable[[], Any]]] = []
        self._closed = False
        self._rows: Rows | None = None
        self._size = Size(0, 0, 0)  # Of these rows.
        self._live: dict[int, Answer] = {}  # By row.
        self._searches: list[Answer] = []
        self._thread = threading.Thread(target=self._run, name='flamingo engine', daemon=True)
        self._thread.start()

    def __enter__(self) -> 'Engine':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread after the step that is running, and with a RuntimeError all answers that are not whole."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def writing(self) -> int:
        """The number of answers that are being written."""
        return len(self._live) + len(self._searches)

    def ask(self, prompt: Prompt, sampling: Sampling = GREEDY) -> Answer:
        """Asks for the continuation of one prompt, and returns at once.

        An answer that ends by one of `stop` frees its row there.

        Raises:
          ValueError: the prompt is not valid, or exceeds the context with its answer: the message says how many new
            tokens fit. An image that cannot be read is told by the answer.
          RuntimeError: the engine is closed. Answers that were not whole by then raise it, too.
        """
        (prompt, *_), several = as_batch(prompt)
        if several:
            raise UserError('Ask one prompt at a time: a list of strings and images.')
        prompt = [_own(item) for item in cast(list[Any], prompt)]
        encoded = self.flamingo.encoded(prompt, sampling.max_new_tokens)
        beams = self.flamingo.write(prompt, sampling) if sampling.num_beams > 1 else None
        answer = Answer(encoded, sampling, beams)
        self._add(self._waiting, answer)
        return answer

    def call(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future:
        """Runs something else that needs the model, between two steps of the answers. `close` cancels what waits.

        RuntimeError: the engine is closed.
        """
        future = concurrent.futures.Future()
        self._add(self._calls, (future, functools.partial(function, *arguments)))
        return future

    def _add(self, where: list[Any], what: Any) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError('The engine is closed.')
            where.append(what)
            self._changed.notify()

    def _run(self) -> None:
        while self._turn():
            pass
        closed = RuntimeError('The engine was closed.')
        for answer in (*self._live.values(), *self._searches, *self._waiting):
            answer.end(closed)
        for future, _ in self._calls:
            future.cancel()

    def _turn(self) -> bool:
        """One call, all prompts that have room, and one token of each answer. False when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._calls or self._waiting or self.writing)
            if self._closed:
                return False
            call = self._calls.pop(0) if self._calls else None
        if call is not None:
            _resolve(*call)
        try:
            self._leave()
            while self._waiting and self.writing < self.slots:
                group = self._take()
                try:
                    self._admit(group)
                except Exception as error:  # It waits no longer, and not all of it may have rows.
                    for answer in group:
                        answer.end(error)
                    raise
            self._leave()
            if self._live:
                self._step()
            for answer in self._searches:
                _search(answer)
        except Exception as error:  # Such as memory. The engine goes on with other prompts.
            for answer in self._live.values():
                answer.end(error)
            self._rows, self._live = None, {}
        return True

    def _leave(self) -> None:
        """Frees the rows of the answers that are over."""
        self._searches = [answer for answer in self._searches if not answer.over]
        self._live = {row: answer for row, answer in self._live.items() if not answer.over}
        if not self._live:
            self._rows = None

    def _take(self) -> list[Answer]:
        """The prompts that come next: the oldest that waits, with others of its shape if there is a group of them."""

        def shape(answer: Answer) -> Any:
            if answer.beams is not None:
                return answer  # By itself.
            before, *sizes = self.flamingo.reader.shape([answer.prompt], few_programs=True)
            return id(before), sizes

        with self._changed:
            waiting = [answer for answer in self._waiting if not answer.over]
            first = shape(waiting[0]) if waiting else None
            alike = (answer for answer in waiting if shape(answer) == first)
            group = list(itertools.islice(alike, min(GROUP, self.slots - self.writing)))
            group = group if len(group) == GROUP else group[:1]
            self._waiting[:] = [answer for answer in waiting if answer not in group]
        return group

    def _admit(self, group: list[Answer]) -> None:
        """Reads prompts, writes the first token of each answer, and gives it a row."""
        if not group:
            return
        if group[0].beams is not None:
            self._searches += group
            return
        try:
            read = self.flamingo.reader.read([answer.prompt for answer in group], few_programs=True)
        except Exception as error:  # Such as an image that cannot be read.
            if len(group) == 1:
                return group[0].end(error)
            for answer in group:
                self._admit([answer])
            return
        self._join(group, read)

    def _join(self, group: list[Answer], read: decode.Prompts) -> None:
        f, size = self.flamingo, self._make_room(group, read.media)
        with rules.activations(f.mesh):
            keys = jnp.stack([answer.key for answer in group])
            each = (search.Drawing.of(answer.sampling) for answer in group)
            drawing = search.Drawing(*map(np.array, zip(*each, strict=True)))
            # The same program for any number of rows.
            own = size._replace(rows=len(group))
            new = _first(f.by_token[0], read, keys, drawing, banned=f.banned, size=own)
            free = np.array([i for i in range(size.rows) if i not in self._live][: len(group)], np.int32)
            if self._rows is None:
                self._rows = _resize(new, np.resize(np.arange(len(group), dtype=np.int32), size.rows), size)
            else:
                self._rows = _place(self._rows, new, free)
        self._size = size
        for row, answer, token in zip(free.tolist(), group, np.asarray(new.token).tolist(), strict=True):
            self._live[row] = answer
            self._wrote(answer, token)

    def _make_room(self, group: list[Answer], media: Media | None) -> Size:
        """The size of the rows with more answers. They get it, if there are any."""
        every = (*self._live.values(), *group)
        coming = min(self.slots, len(every) + len(self._waiting))
        places = max(len(one.prompt.tokens) + one.sampling.max_new_tokens for one in every)
        c, images = self.flamingo.config, 0
        if media is not None and not c.xattn.at_tag:
            shown = max(len(one.prompt.images) for one in every)
            images = 1 if c.xattn.only_last_image else decode.power_of_two(max(shown, 1))
        needed = Size(
            rows=min(decode.power_of_two(coming), self.slots),
            places=max(PLACES, decode.power_of_two(places)),
            media=images * c.media_tokens if images else 0,
        )
        if self._rows is None:
            return needed
        pairs = zip(self._size, needed, strict=True)
        size = Size(*(need if have < need or have >= SHRINK * need else have for have, need in pairs))
        if size != self._size:
            # The live rows come first.
            order = np.resize(np.array([*self._live], np.int32), size.rows)
            with rules.activations(self.flamingo.mesh):
                self._rows = _resize(self._rows, order, size)
            self._live = dict(enumerate(self._live.values()))
        return size

    def _step(self) -> None:
        f = self.flamingo
        live = np.isin(np.arange(self._size.rows), [*self._live])
        model, params = f.by_token
        with rules.activations(f.mesh):
            self._rows = _step(model, params, self._rows, live, f.banned)
        tokens = np.asarray(self._rows.token)
        for row, answer in self._live.items():
            self._wrote(answer, int(tokens[row]))

    def _wrote(self, answer: Answer, token: int) -> None:
        """Adds a token to an answer, which may end by it."""
        ends = token in self.flamingo.ends
        answer.tokens += [] if ends else [token]
        whole = self.flamingo.tokenizer.written(answer.tokens)
        text = up_to(whole, answer.sampling.stop)
        answer.add(Written(text.strip(), list(answer.tokens)))
        if ends or text != whole or len(answer.tokens) == answer.sampling.max_new_tokens:
            answer.end(None)


def _own(item: Any) -> Any:
    """An item of a prompt as it is now: the engine reads images later, and a camera may write into the same array."""
    if isinstance(item, list | tuple):
        return [_own(frame) for frame in item]
    with contextlib.suppress(Exception):  # One that cannot be read, which the answer tells.
        return item.copy() if isinstance(item, np.ndarray | PIL.Image.Image) else item
    return item


def _search(answer: Answer) -> None:
    """One step of a search."""
    try:
        written = next(answer.beams, None)
    except Exception as error:
        return answer.end(error)
    if written is None:
        return answer.end(None)
    answer.add(written)


def _resolve(future: concurrent.futures.Future, call: Callable[[], Any]) -> None:
    """Runs a call and gives its result, or its error, to who waits for it."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # A StopIteration too.
        future.set_exception(error)


@functools.partial(jax.jit, static_argnames=('model', 'banned', 'size'))
def _first(
    model: Flamingo,
    prompts: decode.Prompts,
    keys: Key[Array, 'b'],
    drawing: search.Drawing,
    banned: tuple[int, ...],
    size: Size,
) -> Rows:
    """Prompts that were read -> rows of their own, with the first token of each answer."""
    b = size.rows
    media, text = decode.after_prompt(model, prompts.media, prompts.text)
    if media is not None:

        def whole(*parts):
            return jnp.concatenate([jnp.repeat(x, b // x.shape[-4], axis=-4) for x in parts], axis=-2)

        media = _lengthen(Media(None, (jax.tree.map(whole, *media.keys_values),)), size.media)
    steps = jnp.zeros(b, jnp.int32)
    token = _next(prompts.logits, keys, steps, drawing, banned)
    return Rows(media, decode.alone(text, size.places), token, steps + 1, keys, drawing)


def _next(logits, keys, steps, drawing: search.Drawing, banned: tuple[int, ...]) -> Int[Array, 'b']:
    """The next token of each row. Each draws as it would in any other batch."""
    return search.next_token(search.ban(logits, banned), search.keys_of(keys, steps), drawing)


@functools.partial(jax.jit, static_argnames=('model', 'banned'), donate_argnames='rows')
def _step(model: Flamingo, params: Params, rows: Rows, live: Bool[Array, 'b'], banned: tuple[int, ...]) -> Rows:
    """One more token of each live row. The others have no tokens, and what they write is not used."""
    logits, text = decode.extend(model, params, rows.media, rows.text, rows.token[:, None], valid=live[:, None])
    token = _next(logits[:, 0], rows.key, rows.step, rows.drawing, banned)
    return rows._replace(text=text, token=token, step=rows.step + 1)


@functools.partial(jax.jit, donate_argnums=0)
def _place(rows: Rows, new: Rows, where: Int[Array, 'c']) -> Rows:
    """Rows with new ones in some places."""
    return jax.tree.map(lambda x, some: x.at[(slice(None),) * _axis(x) + (where,)].set(some), rows, new)


@functools.partial(jax.jit, static_argnames='size')
def _resize(rows: Rows, order: Int[Array, 'b'], size: Size) -> Rows:
    """These rows, in this order, in another size."""
    rows = jax.tree.map(lambda x: jnp.take(x, order, axis=_axis(x)), rows)
    valid = decode.lengthen(rows.text.valid, size.places, axis=-1)
    text = rows.text._replace(cache=_lengthen(rows.text.cache, size.places), valid=valid)
    return rows._replace(text=text, media=_lengthen(rows.media, size.media))


def _lengthen(keys_values: Any, length: int) -> Any:
    """Keys and values of so many tokens: the end is padded or cut."""
    return jax.tree.map(lambda x: decode.lengthen(x, length, axis=-2), keys_values)


def _axis(x: Array) -> int:
    """The axis of the rows: keys and values may have one for the blocks before it."""
    return x.ndim - 4 if x.ndim >= 4 else 0
