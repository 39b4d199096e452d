"""The engine: what it answers is what `generate` gives, whoever else is answered."""

import concurrent.futures
import dataclasses
import io
import logging
import threading

import jax
import numpy as np
import PIL.Image
import pytest

from flamingo_jax.inference import answer_rows, prefill, serving
from flamingo_jax.inference.prefill import Reader
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.inference.search import Drawing
from flamingo_jax.inference.serving import Engine
from flamingo_jax.inputs.images import ImageError
from flamingo_jax.parallel import rules
from flamingo_jax.parallel.mesh import make_mesh
from tests.inference.test_pretrained import prompts_of, queries_of, shots_of

pytestmark = pytest.mark.usefixtures('quick_compilation')
NEW = 6


@pytest.fixture(scope='module')
def pretrained(pretrained):
    """The tiny model with larger weights, so that it does not repeat its last token."""
    lm = pretrained.params['lm']
    blocks = jax.tree.map(lambda x: 4 * x, lm['blocks'])
    return dataclasses.replace(pretrained, params=pretrained.params | dict(lm=lm | dict(blocks=blocks)))


@pytest.fixture(scope='module')
def prompts(stills):
    return prompts_of(stills)


@pytest.fixture(scope='module')
def expected(pretrained, prompts):
    """Greedy answers by `generate`."""
    found = pretrained.generate(prompts, NEW)
    assert len(set(found)) == len(found)
    return found


@pytest.fixture
def gate(monkeypatch):
    """Steps run only while it is set."""
    gate, step = threading.Event(), Engine._step

    def gated(engine):
        assert gate.wait(600)
        return step(engine)

    monkeypatch.setattr(Engine, '_step', gated)
    yield gate
    gate.set()


def test_prompts_that_come_one_after_another_are_answered_as_by_generate(pretrained, prompts, expected):
    with Engine(dataclasses.replace(pretrained), slots=3) as engine:
        answers = []
        for prompt in prompts:
            answers.append(engine.ask(prompt, Sampling(NEW)))
            next(answers[-1])  # The others are at other tokens by then, or over.
        written = [list(answer) for answer in answers]
    assert [one[-1].text for one in written] == expected
    assert [answer.text() for answer in answers] == expected  # All of it was read before.
    for one in written:
        tokens = one[-1].tokens
        assert [len(each.tokens) for each in one] == list(range(2, len(one) + 2))
        assert all(each.tokens == tokens[: len(each.tokens)] for each in one)


def test_many_threads_are_answered_together(pretrained, prompts, expected, gate):
    with Engine(dataclasses.replace(pretrained), slots=4) as engine:
        with concurrent.futures.ThreadPoolExecutor(12) as people:
            found = [people.submit(lambda i=i: engine.ask(prompts[i % 4], Sampling(NEW)).text()) for i in range(12)]
            gate.set()
            assert [one.result(60) for one in found] == expected * 3


def test_sampling_depends_on_the_seed_and_not_on_the_neighbours(pretrained, prompts):
    hows = [dict(temperature=2.0, top_k=20, top_p=0.9, seed=seed) for seed in range(3)]
    alone = [pretrained.generate(prompts[0], NEW, **how) for how in hows]
    assert len(set(alone)) > 1
    with Engine(dataclasses.replace(pretrained), slots=4) as engine:
        answers = [engine.ask(prompts[0], Sampling(NEW, **how)) for how in hows for _ in range(2)]
        assert [answer.text() for answer in answers] == [one for one in alone for _ in range(2)]
        together = pretrained.generate(prompts, NEW, temperature=2.0, seed=range(len(prompts)))
        answers = [engine.ask(prompt, Sampling(NEW, temperature=2.0, seed=seed)) for seed, prompt in enumerate(prompts)]
        assert [answer.text() for answer in answers] == together


def test_other_lengths_are_read_by_the_programs_that_are_there(pretrained, stills, caplog):
    with Engine(dataclasses.replace(pretrained), slots=2) as engine:
        engine.ask([stills[0], ' Output: dax<EOC>', stills[1], ' Output:'], Sampling(NEW)).text()
        jax.config.update('jax_log_compiles', True)
        try:
            with caplog.at_level(logging.WARNING):
                for more in range(1, 8):
                    two = [stills[0], ' Output:' + ' lo' * more + '<EOC>', stills[1], ' Output:']
                    engine.ask(two, Sampling(NEW - more % 3)).text()
                assert not caplog.records
                engine.call(jax.jit(lambda x: x + 1), 1).result(60)
                assert caplog.records  # A new program is seen.
        finally:
            jax.config.update('jax_log_compiles', False)


def test_nothing_is_compiled_for_prompts_of_sizes_that_are_warm(pretrained, stills, caplog):
    def asked(i: int) -> list:
        return [stills[i], ' Output: dax<EOC>', stills[i + 1], ' Output:']

    expected = pretrained.generate(asked(1), NEW)
    jax.clear_caches()
    with Engine(dataclasses.replace(pretrained), slots=4) as engine:
        done = []
        engine.warm([['Output:'], asked(0)], Sampling(NEW), done.append)
        assert sum(done) == 2 * engine.sizes == 2 * (3 + 1)  # One alone in 1, 2 and 4 rows; four in four.
        jax.config.update('jax_log_compiles', True)
        try:
            with caplog.at_level(logging.WARNING):
                assert engine.ask(asked(1), Sampling(NEW)).text() == expected
                together = [engine.ask(asked(i % 3), Sampling(NEW)) for i in range(9)]
                together += [engine.ask('Output: lo', Sampling(NEW, temperature=1.0, seed=i)) for i in range(9)]
                for answer in together:
                    answer.text()
            assert [record.message for record in caplog.records if 'Compiling' in record.message] == []
        finally:
            jax.config.update('jax_log_compiles', False)


def test_an_answer_is_written_while_another_prompt_is_read(pretrained, prompts, expected, monkeypatch):
    read, go_on = Reader.read, threading.Event()

    def slow(self, some, **how):
        found = read(self, some, **how)
        assert len(some[0].tokens) == short or go_on.wait(600)
        return found

    short = len(pretrained.encoded(prompts[0], 1).tokens)
    other = next(i for i, prompt in enumerate(prompts) if len(pretrained.encoded(prompt, 1).tokens) != short)
    monkeypatch.setattr(Reader, 'read', slow)
    with Engine(dataclasses.replace(pretrained), slots=2) as engine:
        first = engine.ask(prompts[0], Sampling(NEW))
        next(first)
        second = engine.ask(prompts[other], Sampling(NEW))
        assert first.text() == expected[0]
        go_on.set()
        assert second.text() == expected[other]


def test_a_long_prompt_is_read_in_pieces_which_change_nothing(pretrained, stills, monkeypatch):
    """Also after examples that are remembered. No piece ends within a tag."""
    monkeypatch.setattr(prefill, 'CPU_PIECE', 16)
    one = dataclasses.replace(pretrained)
    assert len(one.tokenizer.image_tag) > 1
    shots = [item for still in stills for item in (still, ' Output: dax lo<EOC>')]
    encoded = one.encoded([*shots, stills[0], ' Output:'], NEW)
    cut = {end for begin in encoded.begins for end in range(begin + 1, begin + len(one.tokenizer.image_tag))}
    assert {16, 32, 48} & cut and not set(one.reader._ends(encoded, 0, 16)) & cut
    whole, between = one.reader.read([encoded]), []
    read = one.reader.read([encoded], few_programs=True, between=lambda: between.append(0))
    assert len(between) >= len(encoded.tokens) // 16 + 1
    np.testing.assert_allclose(read.logits, whole.logits, rtol=1e-4, atol=1e-4)
    expected = one.generate([*shots, stills[0], ' Output:'], NEW)
    with Engine(one, slots=2) as engine:
        assert engine.ask([*shots, stills[0], ' Output:'], Sampling(NEW)).text() == expected
        engine.call(one.remember, shots[:2]).result(60)
        assert engine.ask([*shots, stills[0], ' Output:'], Sampling(NEW)).text() == expected


def test_searches_take_turns_and_a_prompt_waits_for_one_step(pretrained, prompts, expected, monkeypatch):
    done, begun, go_on = [], threading.Event(), threading.Event()
    search, admit = serving.Answer.search, Engine._admit

    def searched(answer):
        done.append(answer)
        begun.set()
        assert go_on.wait(600)
        search(answer)

    def admitted(engine, group):
        done.extend(group)
        admit(engine, group)

    monkeypatch.setattr(serving.Answer, 'search', searched)
    monkeypatch.setattr(Engine, '_admit', admitted)
    with Engine(dataclasses.replace(pretrained), slots=8) as engine:
        searches = [engine.ask(prompts[0], Sampling(NEW, num_beams=2)) for _ in range(3)]
        assert begun.wait(600)
        greedy = engine.ask(prompts[1], Sampling(NEW))
        go_on.set()
        assert greedy.text() == expected[1]
        assert {answer.text() for answer in searches} == {pretrained.generate(prompts[0], NEW, num_beams=2)}
    assert done.index(greedy) == 3  # Before it one step for each prompt that came first, and none of all searches.
    assert len(set(map(id, done[5:8]))) == 3


def test_the_thread_that_writes_compiles_nothing(pretrained, prompts, caplog, monkeypatch):
    """Whatever rows come: more of them, longer ones."""
    monkeypatch.setattr(serving, 'PLACES', 32)
    engine = Engine(dataclasses.replace(pretrained), slots=4)
    jax.clear_caches()
    jax.config.update('jax_log_compiles', True)
    try:
        with caplog.at_level(logging.WARNING), engine:
            answers = [engine.ask(prompt, Sampling(NEW)) for prompt in prompts]
            next(answers[0])
            answers += [engine.ask(prompts[0], Sampling(more)) for more in (8, 40)]
            for answer in answers:
                answer.text()
        compiled = {record.threadName for record in caplog.records if 'Compiling' in record.message}
        assert 'flamingo reader' in compiled and 'flamingo writer' not in compiled
    finally:
        jax.config.update('jax_log_compiles', False)


def test_an_answer_that_is_cancelled_frees_its_row(pretrained, prompts, expected, gate):
    with Engine(dataclasses.replace(pretrained), slots=1) as engine:
        first, waiting, second = (engine.ask(prompts[i], Sampling(NEW)) for i in (0, 2, 1))
        written = next(first)
        waiting.cancel()
        assert list(waiting) == [] and waiting.text() == ''
        assert engine.writing == 1
        first.cancel()
        gate.set()
        assert second.text() == expected[1]
        assert len(list(first)) <= 1 and len(written.tokens) == 1


def test_a_stop_ends_the_answer_and_frees_the_row(pretrained, prompts, expected):
    mark = expected[0][2]
    with Engine(dataclasses.replace(pretrained), slots=1) as engine:
        written = list(engine.ask(prompts[0], Sampling(NEW, stop=[mark])))
        assert written[-1].text == expected[0].split(mark)[0].strip()
        assert len(written[-1].tokens) < NEW


def test_what_is_wrong_with_one_prompt_does_not_touch_the_others(pretrained, prompts, expected, monkeypatch):
    with Engine(dataclasses.replace(pretrained), slots=2) as engine:
        tokens = len(pretrained.encoded(prompts[0], 1).tokens)
        with pytest.raises(ValueError, match=f'context of 128 tokens. Use at most {128 - tokens} new tokens'):
            engine.ask(prompts[0], Sampling(128))
        with pytest.raises(ValueError, match='new ones exceeds the context of 128 tokens. Use fewer examples'):
            engine.ask(['word ' * 200])
        with pytest.raises(ValueError, match='top_k is -1'):
            engine.ask(prompts[0], Sampling(top_k=-1))
        with pytest.raises(ValueError, match='one prompt at a time'):
            engine.ask([['a'], ['b']])
        for stop in ('dax', ('',)):
            with pytest.raises(ValueError, match='stop is'):
                engine.ask(prompts[0], Sampling(stop=stop))
        with pytest.raises(ValueError, match='below 2\\^31'):
            engine.ask(prompts[0], Sampling(top_k=2**64))
        for wrong in (dict(max_new_tokens=2.5), dict(top_k='3'), dict(seed='a')):
            with pytest.raises((ValueError, TypeError)):
                engine.ask(prompts[0], Sampling(**wrong))
        whole = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
        PIL.Image.fromarray(noise).save(whole, 'JPEG')
        cut = PIL.Image.open(io.BytesIO(whole.getvalue()[:5000]))  # PIL reads it when it is copied.
        with pytest.raises(ImageError):
            engine.ask([cut, ' Output:'], Sampling(NEW)).text()
        broken, good = engine.ask([b'no image', ' Output:']), engine.ask(prompts[0], Sampling(NEW))
        with pytest.raises(ImageError):
            broken.text()
        assert good.text() == expected[0] and list(broken) == []
        # Also an error of a step, such as memory, ends no more than what it was for.
        step = Engine._step
        monkeypatch.setattr(Engine, '_step', lambda engine: (_ for _ in ()).throw(MemoryError('full')))
        with pytest.raises(MemoryError, match='full'):
            engine.ask(prompts[0], Sampling(NEW)).text()
        monkeypatch.setattr(Engine, '_step', step)
        assert engine.ask(prompts[1], Sampling(NEW)).text() == expected[1]
        assert engine.call(pretrained.generate, prompts, NEW).result(60) == expected
        with pytest.raises(ZeroDivisionError):
            engine.call(lambda: 1 / 0).result(60)


def test_an_error_ends_all_that_were_to_be_read_together(pretrained, prompts, gate, monkeypatch):
    """Four do not fit into memory, nor does one by itself: nobody waits for ever."""
    with Engine(dataclasses.replace(pretrained), slots=8) as engine:
        monkeypatch.setattr(answer_rows, 'begin', lambda *args, **sizes: (_ for _ in ()).throw(MemoryError('full')))
        read = Reader.read

        def one_at_a_time(self, some, **how):
            if len(some) > 1:
                raise MemoryError('full')
            return read(self, some, **how)

        monkeypatch.setattr(Reader, 'read', one_at_a_time)
        engine.call(gate.wait, 60)  # All wait by then.
        answers = [engine.ask(prompts[0], Sampling(NEW)) for _ in range(serving.GROUP)]
        gate.set()
        with concurrent.futures.ThreadPoolExecutor(len(answers)) as people:
            for waiting in [people.submit(answer.text) for answer in answers]:
                with pytest.raises(MemoryError, match='full'):
                    waiting.result(60)


def test_an_image_is_the_one_that_was_asked_about(pretrained, stills):
    """A camera may write the next image into the same array before the engine has read it."""
    first, second = (np.array(image) for image in stills[:2])
    expected = [pretrained.generate([image, ' Output:'], NEW) for image in (first, second)]
    seen, written = first.copy(), threading.Event()
    with Engine(dataclasses.replace(pretrained), slots=2) as engine:
        engine.call(written.wait, 60)  # The engine is busy.
        answer = engine.ask([seen, ' Output:'], Sampling(NEW))
        seen[...] = second
        written.set()
        assert answer.text() == expected[0]
        assert engine.ask([first, ' Output:'], Sampling(NEW)).text() == expected[0]
        assert engine.ask([second, ' Output:'], Sampling(NEW)).text() == expected[1]


def test_a_closed_engine_says_so(pretrained, prompts, gate):
    with Engine(dataclasses.replace(pretrained), slots=1) as engine:
        writing, waiting = engine.ask(prompts[0], Sampling(NEW)), engine.ask(prompts[1], Sampling(NEW))
        next(writing)
        closing = threading.Thread(target=engine.close)
        closing.start()
        gate.set()
        closing.join()
        for answer in (writing, waiting):
            with pytest.raises(RuntimeError, match='was closed'):
                answer.text()
        with pytest.raises(RuntimeError, match='is closed'):
            engine.ask(prompts[0])
    with pytest.raises(ValueError, match='slots is 0'):
        Engine(pretrained, slots=0)


@pytest.mark.long
@pytest.mark.parametrize('seen', ['the last image', 'all images', 'no image after its tag'])
def test_rows_grow_and_shrink_with_what_they_hold(pretrained, stills, seen, monkeypatch):
    """Also after examples that are remembered, and where words see all images before them (IDEFICS)."""
    monkeypatch.setattr(serving, 'PLACES', 32)
    monkeypatch.setattr(serving, 'SHRINK', 2)
    c = pretrained.config
    fields = dict(only_last_image=seen != 'all images', only_at_tag=seen == 'no image after its tag')
    config = dataclasses.replace(c, xattn=c.xattn.as_kind('selective_xattn', **fields))
    one = dataclasses.replace(pretrained, model=dataclasses.replace(pretrained.model, config=config))
    shots = shots_of(stills)
    prompts = [*prompts_of(stills), *([*shots, *query] for query in queries_of(stills))]
    expected = [one.generate(prompt, NEW) for prompt in prompts]
    one.remember(shots)
    with Engine(one, slots=5) as engine:
        for _ in range(2):
            answers = [engine.ask(prompt, Sampling(NEW)) for prompt in prompts]
            assert [answer.text() for answer in answers] == expected
            assert [engine.ask(prompt, Sampling(NEW)).text() for prompt in prompts] == expected


@pytest.mark.long
def test_a_tensor_parallel_mesh_answers_as_one_device(pretrained, prompts, expected):
    def on(mesh):
        boxed = jax.eval_shape(pretrained.model.init, jax.random.key(0))
        where = {name: rules.shardings(boxed[name], mesh) for name in pretrained.params}
        return dataclasses.replace(pretrained, params=jax.device_put(pretrained.params, where), mesh=mesh)

    with Engine(on(make_mesh(1, 1, 2, devices=jax.devices()[:2])), slots=4) as engine:
        answers = [engine.ask(prompt, Sampling(NEW)) for prompt in prompts]
        assert [answer.text() for answer in answers] == expected
    with pytest.raises(ValueError, match='cannot be sharded'):
        Engine(on(make_mesh(2, 1, 1, devices=jax.devices()[:2])))


def test_rows_without_an_answer_change_nothing(pretrained, prompts):
    """The keys and values of a row are the same whatever the other rows are, bit for bit."""
    encoded = [pretrained.encoded(prompt, NEW) for prompt in prompts[:2]]
    model, params = pretrained.by_token
    keys, drawing = jax.random.split(jax.random.key(0), 2), Drawing(np.zeros(2), np.zeros(2, int), np.ones(2))
    size, banned = answer_rows.Size(2, 64, pretrained.config.media_tokens), pretrained.banned

    def after(live, order):
        read = pretrained.reader.read([encoded[i] for i in order], few_programs=True)
        rows = answer_rows.begin(model, read, keys, drawing, banned=banned, size=size)
        for _ in range(3):
            rows = answer_rows.step(model, params, rows, np.array(live), banned)
        return rows

    alone, beside = after([True, False], [0, 0]), after([True, True], [0, 1])
    for one, two in zip(jax.tree.leaves(alone.text.cache), jax.tree.leaves(beside.text.cache), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    assert not np.array_equal(alone.text.valid[1], beside.text.valid[1])


def test_an_answer_is_greedy_beside_a_sampled_one(pretrained, stills):
    """By a language model whose blocks say enough for the temperature to change what is said."""
    lm = pretrained.params['lm']
    lm = lm | dict(blocks=jax.tree.map(lambda x: 4 * x, lm['blocks']))
    one = dataclasses.replace(pretrained, params=pretrained.params | dict(lm=lm))
    asked = prompts_of(stills)[:2]
    expected = [one.generate(prompt, 6) for prompt in asked]
    with Engine(one, slots=4) as engine:
        each = Sampling(6), Sampling(6, temperature=2.0, seed=1)
        answers = [engine.ask(prompt, how) for prompt in asked for how in each]
        texts = [answer.text() for answer in answers]
    assert texts[::2] == expected and texts[1::2] != expected
