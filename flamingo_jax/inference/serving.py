"""Answers many prompts at once (continuous batching: Yu et al. 2022, Orca).

    with Engine(flamingo) as engine:
        for written in engine.ask(prompt):
            print(written.text)

Prompts come at any time and from any thread. One thread of the engine reads them: those that wait and have similar
lengths together. Another writes: one token of all answers at each step. So an answer goes on while another prompt is
read, and while a program for it is compiled. A row is free again when its answer ends. An answer does not depend on its
neighbours: up to rounding, it is what `Pretrained.generate` gives.

A long prompt is read in pieces, so that what is written waits for no more than one. A beam search has rows and programs
of its own. One of them, in turn, takes a step between two prompts that are read.

Programs are few, whatever the prompts' lengths. Prompts are read one or four at a time, padded to a power of two. The
number of rows, the places in their caches and the images that they see are powers of two as well; they grow when a
prompt needs it, and shrink when nobody is answered, or much less would do. The thread that reads runs each program of
the other once, before that one needs it.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from flamingo_jax.errors import UserError
from flamingo_jax.inference import answer_rows, decode, search
from flamingo_jax.inference.answer import Answer
from flamingo_jax.inference.answer_rows import Rows, Size
from flamingo_jax.inference.pretrained import Pretrained, Written, up_to
from flamingo_jax.inference.sampling import GREEDY, Sampling
from flamingo_jax.inputs.prompts import Prompt, as_batch
from flamingo_jax.model.flamingo import Media
from flamingo_jax.parallel import mesh as meshes
from flamingo_jax.parallel import rules
from flamingo_jax.ranges import require

PLACES = 256  # The least in a cache: fewer would save little, and each size is another program.
SHRINK = 8  # What is so many times as large as needed becomes smaller.
GROUP = 4  # Prompts that are read at a time, if so many of one shape wait; else one is.


class Read(NamedTuple):
    """Answers whose prompts are read, and whose first token is written."""

    answers: list[Answer]
    rows: Rows  # A row for each.
    size: Size  # Which all rows have with them.


class Engine:
    """Answers prompts together. Use it in a `with`, or close it. Its threads own the model: others do not use it."""

    def __init__(self, flamingo: Pretrained, slots: int = 32):
        """Starts the threads.

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
        self._closed = False
        self._calls: list[tuple[concurrent.futures.Future, Callable[[], Any]]] = []
        # An answer goes from one of these to the next. Beams end in `_searches`.
        self._waiting: list[Answer] = []
        self._reading: list[Answer] = []
        self._read: list[Read] = []
        self._live: dict[int, Answer] = {}  # By row.
        self._searches: list[Answer] = []
        self._size: Size | None = None  # Of the rows when all that is read has joined them. For who reads alone.
        self._ready: set[tuple] = set()  # Programs that the other thread will not have to compile. The same.
        self._rows: Rows | None = None  # For who writes alone.
        self._rows_size: Size | None = None  # The same.
        read, write = (self._has_to_read, self._read_some), (self._has_to_write, self._write_one)
        # On a mesh, programs that wait for one another must begin on all devices in the same order: in one thread.
        work = dict(reader=[read], writer=[write]) if flamingo.mesh is None else dict(engine=[read, write])
        self._threads = [
            threading.Thread(target=self._work, args=args, name=f'flamingo {name}', daemon=True)
            for name, args in work.items()
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> 'Engine':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads after what they are at, and with a RuntimeError all answers that are not whole."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        closed = RuntimeError('The engine was closed.')
        for answer in (*self._written, *self._searches, *self._waiting):
            answer.end(closed)
        for future, _ in self._calls:
            future.cancel()

    @property
    def writing(self) -> int:
        """The number of answers that are being written, or whose prompts are being read."""
        return len(self._written) + len(self._searches)

    @property
    def _written(self) -> list[Answer]:
        """The answers that have a row, or will have one."""
        coming = (answer for read in self._read for answer in read.answers if not answer.over)
        return [*self._live.values(), *coming, *self._reading]

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
        """Runs something else that needs the model, between two prompts that are read. `close` cancels what waits.

        RuntimeError: the engine is closed.
        """
        future = concurrent.futures.Future()
        self._add(self._calls, (future, functools.partial(function, *arguments)))
        return future

    def warm(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, progress: Callable[[int], Any] = lambda _: None
    ) -> None:
        """Compiles what prompts of these sizes need, with any number of others; for before anything is asked.

        Whoever asks such a prompt then waits for no compiler. Returns when all is compiled.

        Args:
          prompts: one of each size: sizes are powers of two of the tokens and of the images.
          sampling: its number of tokens counts; not for beams.
          progress: called with the number of programs' sizes that are done, of `sizes` for each prompt.
        """
        for prompt in prompts:
            self.call(self._warm, prompt, sampling, progress).result()

    @property
    def sizes(self) -> int:
        """The number of sizes that `warm` compiles for each prompt."""
        return sum(map(len, self._rows_of_groups().values()))

    def _rows_of_groups(self) -> dict[int, list[int]]:
        """Prompts that are read at a time -> the numbers of rows that there may be with them."""
        return {
            group: sorted({min(decode.power_of_two(group + others), self.slots) for others in range(self.slots)})
            for group in (1, min(GROUP, self.slots))
        }

    def _warm(self, prompt: Prompt, sampling: Sampling, progress: Callable[[int], Any]) -> None:
        encoded, reader = self.flamingo.encoded(prompt, sampling.max_new_tokens), self.flamingo.reader
        for image in encoded.images[:1]:
            reader.compile_for(image)
        for number, every in self._rows_of_groups().items():
            group = [Answer(encoded, sampling, None) for _ in range(number)]
            read = reader.read([encoded] * number, few_programs=True)
            for rows in every:
                size = self._needed(group, rows, read.media)
                self._make_ready(self._begin(group, read, size), size)
                self._size = size  # From which more answers make it grow.
                progress(1)
            self._size = None

    def _add(self, where: list[Any], what: Any) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError('The engine is closed.')
            where.append(what)
            self._changed.notify_all()

    def _work(self, *work: tuple[Callable[[], Any], Callable[[], None]]) -> None:
        """Does each of these whenever there is something to do, until the engine is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or any(there_is() for there_is, _ in work))
                if self._closed:
                    return
            for there_is, do in work:
                if there_is():
                    do()

    # ---- The thread that reads

    def _has_to_read(self) -> bool:
        return bool(self._calls or self._searches or self._waiting and self.writing < self.slots)

    def _read_some(self) -> None:
        """One call, the prompts that come next, and one step of the search whose turn it is."""
        with self._changed:
            call = self._calls.pop(0) if self._calls else None
        if call is not None:
            _resolve(*call)
        group = self._take()
        try:
            self._admit(group)
        except Exception as error:  # Such as memory. They wait no longer.
            for answer in group:
                answer.end(error)
        turn, *later = self._searches or [None]
        if turn is not None:
            turn.search()
        with self._changed:
            self._reading = []
            self._searches = [answer for answer in (*later, turn) if answer is not None and not answer.over]

    def _take(self) -> list[Answer]:
        """The prompts that come next: the oldest that waits, with others of its shape if there is a group of them."""

        def shape(answer: Answer) -> Any:
            if answer.beams is not None:
                return answer  # By itself.
            before, *sizes = found = self.flamingo.reader.shape([answer.prompt], few_programs=True)
            return answer if found.pieces > 1 else (id(before), sizes)

        with self._changed:
            waiting, room = [answer for answer in self._waiting if not answer.over], self.slots - self.writing
            first = shape(waiting[0]) if waiting else None
            alike = (answer for answer in waiting if shape(answer) == first)
            group = list(itertools.islice(alike, min(GROUP, max(room, 0))))
            group = group if len(group) == GROUP else group[:1]
            self._waiting[:] = [answer for answer in waiting if answer not in group]
            beams = bool(group) and group[0].beams is not None
            self._searches += group if beams else []
            self._reading = [] if beams else group
        return self._reading

    def _admit(self, group: list[Answer]) -> None:
        """Reads prompts, writes the first token of each answer, and gives the others to the thread that writes."""
        if not group:
            return
        f = self.flamingo
        try:
            prompts = f.reader.read([answer.prompt for answer in group], few_programs=True, between=self._between)
        except Exception as error:  # Such as an image that cannot be read.
            if len(group) == 1:
                return group[0].end(error)
            for answer in group:
                self._admit([answer])
            return
        size = self._size_with(group, prompts.media)
        rows = self._begin(group, prompts, size)
        for answer, token in zip(group, np.asarray(rows.token).tolist(), strict=True):
            self._wrote(answer, token)
        if all(answer.over for answer in group):
            return
        self._make_ready(rows, size)
        with self._changed:
            self._reading = [answer for answer in self._reading if answer not in group]
            self._read.append(Read(group, rows, size))
            self._size = size
            self._changed.notify_all()

    def _begin(self, group: list[Answer], prompts: decode.Prompts, size: Size) -> Rows:
        """A row for each answer, with its first token."""
        f = self.flamingo
        with rules.activations(f.mesh):
            keys = jnp.stack([answer.key for answer in group])
            each = (search.Drawing.of(answer.sampling) for answer in group)
            drawing = search.Drawing(*map(np.array, zip(*each, strict=True)))
            # The same program for any number of rows.
            own = size._replace(rows=len(group))
            rows = answer_rows.begin(f.by_token[0], prompts, keys, drawing, banned=f.banned, size=own)
        # For JAX, arrays that may go to any device are another program's.
        return rows if f.mesh is not None else jax.device_put(rows, *rows.token.devices())

    def _between(self) -> None:
        """Between two pieces of a prompt, the thread writes a token if no other does."""
        if len(self._threads) == 1 and self._has_to_write():
            self._write_one()

    def _size_with(self, group: list[Answer], media: Media | None) -> Size:
        """The size of the rows with more answers."""
        with self._changed:
            every = [answer for answer in self._written if not answer.over or answer in group]
            coming = len(every) + len(self._waiting)
        if len(every) == len(self._reading):
            self._size = None  # Nobody is answered.
        needed = self._needed(every, coming, media)
        if self._size is None:
            return needed
        pairs = zip(self._size, needed, strict=True)
        return Size(*(need if have < need or have >= SHRINK * need else have for have, need in pairs))

    def _needed(self, answers: list[Answer], coming: int, media: Media | None) -> Size:
        """The size that these answers need among so many."""
        places = max(len(answer.prompt.tokens) + answer.sampling.max_new_tokens for answer in answers)
        c, images = self.flamingo.config, 0
        if media is not None and not c.xattn.at_tag:
            shown = max(len(answer.prompt.images) for answer in answers)
            images = 1 if c.xattn.only_last_image else decode.power_of_two(max(shown, 1))
        return Size(
            rows=min(decode.power_of_two(coming), self.slots),
            places=max(PLACES, decode.power_of_two(places)),
            media=images * c.media_tokens if images else 0,
        )

    def _make_ready(self, new: Rows, size: Size) -> None:
        """Runs, on rows of nobody, the programs that these rows will need, so that no answer waits for them."""
        f, own, before = self.flamingo, len(new.token), self._size
        if (before, size, own) in self._ready:
            return

        def of_nobody(rows: Rows, size: Size) -> Rows:
            return answer_rows.resize(rows, np.zeros(size.rows, np.int32), size)

        with rules.activations(f.mesh):
            if before not in (None, size):
                of_nobody(of_nobody(new, before), size)
            trial = answer_rows.place(of_nobody(new, size), new, np.arange(own, dtype=np.int32))
            answer_rows.step(*f.by_token, trial, np.zeros(size.rows, bool), f.banned)
        self._ready.add((before, size, own))

    # ---- The thread that writes

    def _has_to_write(self) -> bool:
        return bool(self._read or self._live)

    def _write_one(self) -> None:
        """Gives the answers whose prompts are read their rows, and writes one token of each answer."""
        read = list(self._read)
        self._leave()
        try:
            for each in read:
                self._join(each)
            if self._live:
                self._step()
        except Exception as error:  # Such as memory. The engine goes on with other prompts.
            for answer in (*self._live.values(), *(answer for each in read for answer in each.answers)):
                answer.end(error)
            with self._changed:
                self._read = [each for each in self._read if each not in read]
        self._leave()

    def _leave(self) -> None:
        """Frees the rows of the answers that are over."""
        with self._changed:
            self._live = {row: answer for row, answer in self._live.items() if not answer.over}
            self._changed.notify_all()
        if not self._live:
            self._rows = None

    def _join(self, read: Read) -> None:
        """Gives answers their rows."""
        size, live = read.size, self._live
        own = [i for i, answer in enumerate(read.answers) if not answer.over]
        if own:
            with rules.activations(self.flamingo.mesh):
                if self._rows is None:
                    rows, where = answer_rows.resize(read.rows, _cycle(own, size.rows), size), range(len(own))
                else:
                    rows = self._rows
                    if size != self._rows_size:
                        # The live rows come first.
                        rows = answer_rows.resize(rows, _cycle(live, size.rows), size)
                        live = dict(enumerate(live.values()))
                    where = [row for row in range(size.rows) if row not in live][: len(own)]
                    to = np.full(len(read.answers), size.rows, np.int32)  # Those that are over have no place.
                    to[own] = where
                    rows = answer_rows.place(rows, read.rows, to)
            self._rows, self._rows_size = rows, size
        with self._changed:
            self._live = live | {row: read.answers[i] for row, i in zip(where, own, strict=True)} if own else live
            self._read.remove(read)

    def _step(self) -> None:
        f, rows = self.flamingo, self._rows
        assert rows is not None
        live = np.isin(np.arange(len(rows.token)), [*self._live])
        with rules.activations(f.mesh):
            self._rows = rows = answer_rows.step(*f.by_token, rows, live, f.banned)
        tokens = np.asarray(rows.token)
        for row, answer in self._live.items():
            self._wrote(answer, int(tokens[row]))

    # ---- Both

    def _wrote(self, answer: Answer, token: int) -> None:
        """Adds a token to an answer, which may end by it."""
        if answer.over:
            return
        ends = token in self.flamingo.ends
        answer.tokens += [] if ends else [token]
        whole = self.flamingo.tokenizer.written(answer.tokens)
        text = up_to(whole, answer.sampling.stop)
        answer.add(Written(text.strip(), list(answer.tokens)))
        if ends or text != whole or len(answer.tokens) == answer.sampling.max_new_tokens:
            answer.end(None)


def _cycle(rows: Iterable[int], number: int) -> np.ndarray:
    """So many rows: these, again and again."""
    return np.resize(np.array([*rows], np.int32), number)


def _own(item: Any) -> Any:
    """An item of a prompt as it is now: the engine reads images later, and a camera may write into the same array."""
    if isinstance(item, list | tuple):
        return [_own(frame) for frame in item]
    with contextlib.suppress(Exception):  # One that cannot be read, which the answer tells.
        return item.copy() if isinstance(item, np.ndarray | PIL.Image.Image) else item
    return item


def _resolve(future: concurrent.futures.Future, call: Callable[[], Any]) -> None:
    """Runs a call and gives its result, or its error, to who waits for it."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # A StopIteration too.
        future.set_exception(error)
