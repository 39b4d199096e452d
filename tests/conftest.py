"""Eight devices on the CPU, run-time checks of every shape annotation, and the tiny model that most tests share."""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import json
import locale
import os
import pathlib
import tempfile

# Many tests start the same run, some in processes of their own, which inherit this: only the first compiles its step.
# The many small programs count, too: a worker forgets what it compiled after each file.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    _compiled = tempfile.TemporaryDirectory()
    os.environ |= dict(JAX_COMPILATION_CACHE_DIR=_compiled.name, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0')
# Most of the time goes to compiling. The newer emitters, which make a module of each fusion, take over twice as long.
# From 0.11.1 on, jaxlib has no others and ends a program that asks for them. So does the TPU's compiler.
OLDER_EMITTERS = tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:3])) < (0, 11, 1)
OLDER_EMITTERS = OLDER_EMITTERS and importlib.util.find_spec('libtpu') is None
# Programs are small: a module of LLVM for each of 32 parts of one takes a third more time than one module.
if OLDER_EMITTERS:
    quick = '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {quick}'
# Not a GPU that is there: it is one device, of which each worker would take most of the memory.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax  # noqa: E402

jax.config.update('jax_num_cpu_devices', 8)

import jaxtyping  # noqa: E402

# Every function of the package that is imported after this line checks the shapes of its arguments and of its result.
jaxtyping.install_import_hook('flamingo_jax', 'beartype.beartype')

import flax.linen as nn  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from flamingo_jax.inference.pretrained import Pretrained  # noqa: E402
from flamingo_jax.inputs import tokenizer as tokenizers  # noqa: E402
from flamingo_jax.model.bridges.gated_xattn import GatedXattnConfig  # noqa: E402
from flamingo_jax.model.config import TINY, FlamingoConfig  # noqa: E402
from flamingo_jax.model.connectors.perceiver import PerceiverConfig  # noqa: E402
from flamingo_jax.model.flamingo import Flamingo  # noqa: E402
from flamingo_jax.model.vision.efficientnet import EfficientNetConfig  # noqa: E402
from flamingo_jax.tasks.nonce import nonces  # noqa: E402

# So that all workers end together: the last file must not be a long one.
LONGEST = (
    'test_buckets.py',
    'test_evaluate.py',
    'test_processes.py',
    'test_kills.py',
    'test_pages.py',
    'test_pretrained.py',
    'test_commands.py',
    'test_flamingo.py',
    'test_data_faults.py',
    'test_train.py',
    'test_step.py',
    'test_finetune.py',
    'test_readme.py',
    'test_plan.py',
    'test_locks.py',
    'test_peers_suite.py',
    'test_lmms_eval.py',
)


def pytest_collection_modifyitems(items):
    """Long files first."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope='session')
def config() -> FlamingoConfig:
    """Three blocks and a gated block before every second: the last group is ragged. The gates are open."""
    lm = dict(
        positions='rotary', vocab_size=304, width=32, depth=3, heads=4, kv_heads=2, head_dim=8, ffw_width=64, context=64
    )
    return FlamingoConfig(
        lm=dataclasses.replace(TINY['lm'], **lm),
        vision=EfficientNetConfig(
            stages=((1, 3, 1, 1, 8), (1, 3, 2, 2, 8)), stem_width=8, head_width=24, resolution=16
        ),
        resampler=PerceiverConfig(latents=3, width=16, depth=2, heads=2, head_dim=8, frames=4),
        xattn=GatedXattnConfig(every=2, heads=4, head_dim=8, initial_alpha=0.5),
        image_tag=(7, 8, 9),
        extra_tokens=('<EOC>',),
        image_size=16,
    )


@pytest.fixture(scope='session')
def model(config) -> Flamingo:
    return Flamingo(config)


@contextlib.contextmanager
def _optimised(yes: bool):
    before = not jax.config.read('jax_disable_most_optimizations')
    jax.config.update('jax_disable_most_optimizations', not yes)
    yield
    jax.config.update('jax_disable_most_optimizations', not before)


@pytest.fixture(scope='module')
def quick_compilation():
    """Halves the time to compile, for modules that compile much and compute little."""
    with _optimised(False):
        yield


@pytest.fixture(scope='module', autouse=True)
def forgotten_programs():
    """A worker forgets what a module compiled when it is through: it would hold 6 GB at the end."""
    yield
    jax.clear_caches()


@pytest.fixture
def ascii_locale():
    """A machine whose locale is C: a file that is opened without a charset is ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, 'C')
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.fixture
def full_optimisation():
    """Undoes `quick_compilation`, and gives the option that undoes the older emitters if there are any, for one test.

    Bit-for-bit equality must hold in what users run.
    """
    with _optimised(True):
        yield dict(xla_cpu_use_fusion_emitters=True) if OLDER_EMITTERS else {}


@contextlib.contextmanager
def _made_once(tmp_path_factory, name: str):
    """A folder that all workers of a suite share, and whether it is to be made: the first makes it, others wait.

    It exists only when it is whole.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / name
    with open(folder.with_suffix('.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder, not folder.exists()


@pytest.fixture(scope='session')
def parts(tmp_path_factory) -> pathlib.Path:
    """What the smallest real run is made of. It takes seconds to make, and nothing is written there."""
    from tests.tiny_run import make_parts

    with _made_once(tmp_path_factory, 'parts') as (folder, missing), _optimised(False):
        if missing:
            make_parts(making := tmp_path_factory.mktemp('parts_in_the_making'))
            making.rename(folder)
    return folder


@pytest.fixture(scope='session')
def trained(parts, tmp_path_factory) -> tuple[pathlib.Path, dict[str, float]]:
    """The workdir of the smallest real run, of 6 steps, and its last metrics. Nothing else is written there."""
    from flamingo_jax.train import train
    from tests.tiny_run import tiny_config

    with _made_once(tmp_path_factory, 'trained') as (folder, missing), _optimised(False):
        if missing:
            making = tmp_path_factory.mktemp('trained_in_the_making')
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr('flamingo_jax.planning.topology.peak_flops', lambda kind: 1e12)  # A CPU has none.
                metrics = train(tiny_config(parts), making / 'run')
            (making / 'metrics.json').write_text(json.dumps(metrics))
            making.rename(folder)
    return folder / 'run', json.loads((folder / 'metrics.json').read_text())


@pytest.fixture(scope='session')
def run(trained) -> pathlib.Path:
    return trained[0]


@pytest.fixture(scope='session')
def params(model):
    with _optimised(False):
        params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0)))
    params['xattn']['alpha_dense'] += 0.5  # As open as `initial_alpha` makes the other gate.
    return params


@pytest.fixture(scope='session')
def tokens() -> np.ndarray:
    """int32 [2 16], with tags at 2 and 9, and at 0 and 3; <EOC> (304) before all but the first thing."""
    tokens = np.random.default_rng(0).integers(10, 304, (2, 16), np.int32)
    for row, places in ((0, (2, 9)), (1, (0, 3))):
        for place in places:
            tokens[row, place : place + 3] = 7, 8, 9
            if place:
                tokens[row, place - 1] = 304
    tokens[:, -1] = 304
    return tokens


@pytest.fixture(scope='session')
def features() -> np.ndarray:
    """float32 [2 2 1 4 24]: for two texts two images each, as features of the trunk."""
    return np.random.default_rng(1).standard_normal((2, 2, 1, 4, 24), np.float32)


@pytest.fixture(scope='session')
def sentencepiece() -> bytes:
    return _sentencepiece(['\n', ' Output:'])


def _sentencepiece(symbols) -> bytes:
    """A SentencePiece model of 400 pieces, trained on invented words."""
    rng = np.random.default_rng(0)
    lines = (f'{a} Output: {b}\n' for a, b in zip(nonces(rng, 3000), nonces(rng, 3000), strict=True))
    return tokenizers.train(lines, 400, symbols)


@pytest.fixture(scope='session')
def tokenizer(sentencepiece) -> tokenizers.Tokenizer:
    """With '<image>' in plain text, as in the paper."""
    return tokenizers.Tokenizer(sentencepiece, 'text')


@pytest.fixture(scope='session')
def stills() -> list[np.ndarray]:
    """Six images of noise, uint8 [20 16 3]."""
    return list(np.random.default_rng(5).integers(0, 256, (6, 20, 16, 3), np.uint8))


@pytest.fixture(scope='session')
def pretrained(config, tokenizer) -> Pretrained:
    return _pretrained(config, tokenizer)


@pytest.fixture(scope='session')
def chatting(config) -> Pretrained:
    """The same, with the marks of a chat in its tokenizer."""
    pieces = _sentencepiece(['\n', ' Output:', '<|im_start|>', '<|im_end|>'])
    return _pretrained(config, tokenizers.Tokenizer(pieces, 'text'))


def _pretrained(config, tokenizer) -> Pretrained:
    """A tiny model with its tokenizer, ready for use."""
    lm = dataclasses.replace(config.lm, vocab_size=tokenizer.vocab_size, context=128)
    config = dataclasses.replace(config, lm=lm, image_tag=tokenizer.image_tag, extra_tokens=tokenizer.extra_tokens)
    model = Flamingo(config)
    with _optimised(False):
        params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(3)))
    # Larger rows make the distributions of a random model uneven enough that ties and rounding decide nothing.
    params['lm']['embedder']['tokens'] *= 4
    return Pretrained(model, params, tokenizer, 'text', None, {})
