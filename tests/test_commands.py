"""The commands that a user gives after training, as real processes on a real run."""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import pathlib
import pty
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict

from experiments.evaluate import quickstart
from flamingo_jax import commands
from flamingo_jax.checkpoints import bundle
from flamingo_jax.errors import MissingPackageError, UserError
from flamingo_jax.evaluation import config as evaluation
from flamingo_jax.evaluation.run import evaluate, measure
from flamingo_jax.inference.sampling import Sampling
from flamingo_jax.training import config as training

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures('quick_compilation')


def command(*arguments, python=(), cwd=ROOT):
    environment = os.environ | dict(JAX_DISABLE_MOST_OPTIMIZATIONS='1')
    line = [sys.executable, *python, '-m', *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope='module')
def forked():
    """`command`, in processes that begin with JAX and the commands imported: those who import them cost 2 s each."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([f'flamingo_jax.{name}' for name in ('train', 'evaluate', 'plan', 'generate')])

    def run(*arguments):
        with tempfile.TemporaryDirectory() as folder:
            files = [f'{folder}/{name}' for name in ('stdout', 'stderr')]
            process = context.Process(target=as_main, args=(arguments, *files))
            process.start()
            process.join()
            return subprocess.CompletedProcess(arguments, process.exitcode, *map(_text, files))

    return run


def _text(file):
    return pathlib.Path(file).read_text(encoding='utf-8')


def as_main(arguments, *files):
    """Runs a module in this process as `python -m MODULE ARGUMENT...`; stdout and stderr are files."""
    sys.argv, (sys.stdout, sys.stderr) = list(arguments), (open(file, 'w', encoding='utf-8') for file in files)
    sys.modules.pop(arguments[0], None)  # It was imported ahead, and runs anew.
    try:
        runpy.run_module(arguments[0], run_name='__main__', alter_sys=True)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())  # As Python does; multiprocessing would not.
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def test_evaluate_writes_every_report(parts, run, tmp_path):
    done = command(
        'flamingo_jax.evaluate',
        '--config=experiments/evaluate/quickstart.py',
        f'--checkpoint={run}',
        f'--workdir={tmp_path}',
        f'--config.features={parts / "features"}',
        '--config.episodes=6',
        '--config.max_new_tokens=1',
        '--config.tasks.names.shots=(4,)',
        '--config.tasks.words.shots=(1,)',
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert '5-way new words' in done.stdout
    said = [line for line in re.split('[\\r\\n]', done.stderr) if line.strip()]
    # Progress, and nothing else.
    assert all(re.search('[0-9]%|[0-9] (settings|images)', line) for line in said), said
    assert re.search('Task names: . of 6 right answers have more than max_new_tokens=1 tokens, .* longest', done.stdout)
    report = json.loads((tmp_path / 'report.json').read_text())
    names = {'model', 'shuffled images', 'text only', 'nearest centroid', 'nearest neighbour', 'chance'}
    assert len(report['rows']) == 2
    for row in report['rows']:
        assert set(row['scores']) == names | ({'any candidate'} if row['answers'] == 'open-ended' else set())
        assert row['episodes'] == 6
    for name in ('report.txt', 'report.png', 'contact_sheet.html'):
        assert (tmp_path / name).stat().st_size > 100
    again = command(
        'flamingo_jax.evaluate',
        '--config=experiments/evaluate/quickstart.py',
        f'--checkpoint={parts / "nothing"}',
        f'--workdir={tmp_path}',
    )
    assert again.returncode != 0
    assert 'neither a bundle' in again.stderr


def test_prompts_longer_than_the_context_are_refused_before_the_first_episode(parts, run, tmp_path, monkeypatch):
    monkeypatch.setattr('flamingo_jax.evaluation.run.measure', None)
    config = quickstart.get_config()
    config.features, config.episodes, config.max_new_tokens = str(parts / 'features'), 20, 3
    config.tasks.names.update(shots=(4, 60), answers=('open-ended', 'ranked'))
    with pytest.raises(ValueError, match='exceed the context of 128 tokens') as error:
        evaluate(config, run, tmp_path / 'report')
    generated, ranked, remedy = str(error.value).splitlines()
    assert re.match(
        'Task names, 60 shots, random, open-ended: a prompt of [0-9]+ tokens and 3 for the answer', generated
    )
    assert ranked.startswith('Task names, 60 shots, random, ranked: ') and 'longer context' in remedy
    assert not (tmp_path / 'report').exists()


@pytest.mark.long
def test_without_examples_random_and_rices_are_asked_once(parts, run, tmp_path, monkeypatch):
    ran = []

    def measured(setting, *more):
        ran.append((setting.shots, setting.support))
        return measure(setting, *more)

    monkeypatch.setattr('flamingo_jax.evaluation.run.measure', measured)
    config = quickstart.get_config()
    config.features, config.episodes = str(parts / 'features'), 4
    config.tasks = ConfigDict(dict(names=config.tasks.names))
    config.tasks.names.update(shots=(0, 1), support=('random', 'rices'), answers=('ranked',))
    rows = evaluate(config, run, tmp_path / 'report')
    assert ran == [(0, 'random'), (1, 'random'), (1, 'rices')]
    assert [(row.shots, row.support) for row in rows] == [(0, 'random'), (1, 'random'), (0, 'rices'), (1, 'rices')]
    assert rows[0].scores == rows[2].scores


def test_generate_keeps_the_order_of_its_arguments(forked, run, pretrained, chatting, tmp_path):
    for name, colour in (('a', 'red'), ('b', 'blue')):
        PIL.Image.fromarray(np.full((30, 30, 3), 200 if colour == 'red' else 20, np.uint8)).save(
            tmp_path / f'{name}.png'
        )
    prompt = [
        f'--image={tmp_path / "a.png"}',
        '--text= Output: dax<EOC>',
        f'--image={tmp_path / "a.png"},{tmp_path / "b.png"}',
        '--text= Output:',
    ]
    how = ('--dtype=bfloat16', '--mesh=1,1,1', '--num_beams=2', '--max_new_tokens=4')
    done = command('flamingo_jax.generate', f'--checkpoint={run}', *how, *prompt)
    assert (done.returncode, done.stderr) == (0, '')

    import flamingo_jax
    from flamingo_jax.inputs.prompts import chat

    model = flamingo_jax.load(run, dtype='bfloat16')
    a, b = tmp_path / 'a.png', tmp_path / 'b.png'
    assert done.stdout.strip() == model.generate([a, ' Output: dax<EOC>', [a, b], ' Output:'], 4, num_beams=2)
    asked = (f'--image={a}', '--text= What is it?', '--chat', '--max_new_tokens=8')
    bundle.save(tmp_path / 'mute', pretrained.config, pretrained.params, pretrained.tokenizer, 'text', card='')
    shutil.rmtree(tmp_path / 'mute/params')  # It is refused before they are read.
    done = forked('flamingo_jax.generate', f'--checkpoint={tmp_path / "mute"}', *asked)
    assert done.returncode != 0 and 'does not chat' in done.stderr
    bundle.save(tmp_path / 'chat', chatting.config, chatting.params, chatting.tokenizer, 'text', card='')
    done = command('flamingo_jax.generate', f'--checkpoint={tmp_path / "chat"}', *asked, '--temperature=2')
    *_, last = chatting.write(chat([a, ' What is it?']), Sampling(8, temperature=2.0))
    cut = len(last.tokens) == 8
    assert last.text and done.stdout == last.text + (' […]\n' if cut else '\n')
    assert done.stderr == ('Cut after 8 tokens. --max_new_tokens=N writes up to N.\n' if cut else '')
    done = forked('flamingo_jax.generate', f'--checkpoint={run}', '--image=missing.png', '--text= Output:')
    assert done.returncode != 0
    assert 'missing.png' in done.stderr


def test_a_chat_is_shown_while_it_is_written_and_says_where_it_was_cut(chatting, tmp_path):
    """On a terminal. By default it may be as long as the context allows."""
    bundle.save(tmp_path / 'chat', chatting.config, chatting.params, chatting.tokenizer, 'text', card='')
    line = [
        sys.executable,
        '-m',
        'flamingo_jax.generate',
        f'--checkpoint={tmp_path / "chat"}',
        '--text= What?',
        '--chat',
    ]
    ours, theirs = pty.openpty()
    with subprocess.Popen(line, stdout=theirs, stderr=subprocess.PIPE, text=True, cwd=ROOT) as running:
        os.close(theirs)
        seen = b''
        with contextlib.suppress(OSError):  # The terminal is closed.
            while part := os.read(ours, 4096):
                seen += part
        said = running.stderr.read()
    os.close(ours)
    from flamingo_jax.inputs.prompts import chat, encode

    prompt = chat([' What?'])
    room = min(256, chatting.config.lm.context - len(encode(prompt, chatting.tokenizer).tokens))
    *_, last = chatting.write(prompt, Sampling(room))
    cut = len(last.tokens) == room
    assert seen.decode().replace('\r\n', '\n') == last.text + (' […]\n' if cut else '\n')
    assert said == (f'Cut after {room} tokens. --max_new_tokens=N writes up to N.\n' if cut else '')


def test_an_answer_is_written_token_by_token_only_where_nothing_is_replaced():
    from flamingo_jax.generate import show
    from flamingo_jax.inference.pretrained import Written

    class Parts(io.StringIO):
        def __init__(self):
            super().__init__()
            self.parts = []

        def write(self, text):
            self.parts += [text] if text else []
            return super().write(text)

    so_far = [Written('a', [1]), Written('a b', [1, 2]), Written('a b c', [1, 2, 3])]
    for at_once, parts in ((True, ['a', ' b', ' c']), (False, ['a b c'])):
        out = Parts()
        assert show(so_far, out, at_once) == so_far[-1] and out.parts == parts


@pytest.mark.parametrize(
    'prompt, says',
    [
        (['--image=~/torn.png', '--text= Output:'], 'torn.png is not an image that PIL can read'),
        (['--text= A <image>'], 'Item 0 of the prompt is text that contains the tag <image>'),
    ],
)
def test_generate_looks_at_the_prompt_before_it_reads_a_model(pretrained, tmp_path, monkeypatch, prompt, says):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'torn.png').write_text('not an image')
    bundle.save(tmp_path / 'bundle', pretrained.config, pretrained.params, pretrained.tokenizer, 'text', card='')
    shutil.rmtree(tmp_path / 'bundle/params')
    done = command('flamingo_jax.generate', f'--checkpoint={tmp_path / "bundle"}', *prompt)
    assert (done.returncode, done.stdout) == (1, '') and says in done.stderr, done.stderr


NAMES = ('train', 'evaluate', 'compare', 'generate', 'convert', 'features', 'plan', 'demo', 'serve', 'inputs.tokenizer')


@pytest.mark.parametrize('name', [*NAMES, 'quickstart'])
def test_help_shows_how_a_command_is_used_and_needs_no_jax(name):
    done = command('flamingo_jax.' + name, '--help', python=('-X', 'importtime'))
    assert done.returncode == 0 and f'python -m flamingo_jax.{name}' in done.stdout
    imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
    assert 'absl' in imported and not imported & {'jax', 'tensorflow', 'tensorflow_datasets', 'orbax'}
    assert '--debug' in done.stdout
    assert '--alsologtostderr' not in done.stdout  # The command's own flags, not every library's.
    if name in ('train', 'evaluate'):
        package = {'train': 'training', 'evaluate': 'evaluation'}[name]
        assert f'flamingo_jax/{package}/config.py' in done.stdout  # Where the keys of a config stand.


def test_the_package_lists_its_commands():
    done = command('flamingo_jax')
    for name in NAMES[:-1]:
        assert f'python -m flamingo_jax.{name} ' in done.stdout, done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason='needs root, to be a user of whom nothing is known')
def test_a_user_without_a_home_has_a_cache():
    nobody = 'import os, pwd; from flamingo_jax import commands; os.setuid(54321); print(commands.cache())'
    known = {key: value for key, value in os.environ.items() if key not in ('HOME', 'XDG_CACHE_HOME')}
    done = subprocess.run([sys.executable, '-c', nobody], cwd=ROOT, env=known, capture_output=True, text=True)
    assert done.stdout.endswith('/flamingo_jax\n'), done.stderr


@pytest.mark.parametrize('name', ['pairs', 'films', 'mmc4', 'obelics', 'instructions', 'web_pages', 'debian_pages'])
def test_help_of_a_build_shows_the_flags_that_all_builds_share(name):
    done = command(f'data.{name}.build', '--help', python=('-X', 'importtime'))
    assert done.returncode == 0 and all(f'--{flag}' in done.stdout for flag in ('out', 'workers', 'beam', 'overwrite'))
    assert not re.search(r'\b(jax|tensorflow_datasets|apache_beam)$', done.stderr, re.MULTILINE)


@pytest.mark.parametrize('name', ['dictionary_text', 'picture_dictionary', 'picture_scenes'])
def test_help_of_a_build_shows_all_its_configs(name):
    done = command(f'data.{name}.build', '--help', python=('-X', 'importtime'))
    builder = importlib.import_module(f'data.{name}.{name}_dataset_builder').Builder
    assert f'<{"|".join(config.name for config in builder.BUILDER_CONFIGS)}>' in done.stdout
    assert not re.search(r'\b(jax|tensorflow_datasets)$', done.stderr, re.MULTILINE)


def test_a_config_imports_its_neighbours_from_any_folder(tmp_path):
    config = pathlib.Path('experiments/finetune_idefics.py').absolute()
    done = command('flamingo_jax.train', f'--config={config}', '--workdir=w', cwd=tmp_path)
    assert done.returncode == 1 and 'bundles/idefics is not a bundle' in done.stderr, done.stderr


CONFIG = 'from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict(dict(steps={steps}))\n'


@pytest.mark.parametrize(
    'arguments, code, said',
    [
        (['train'], 2, '--workdir is missing.'),
        (['train', '--wrkdir=w'], 2, "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
        (
            ['train', '--config=CONFIG', '--workdir=w', 'steps=3'],
            2,
            'Unknown arguments: steps=3. A flag begins with --.',
        ),
        (
            ['train', '--config=none.py', '--workdir=w'],
            2,
            'There is no config at none.py. Give a Python file, such as ',
        ),
        (['train', '--config=BROKEN', '--workdir=w'], 2, "BROKEN, line 5: NameError: name 'oops' is not defined"),
        (['train', '--config=CONFIG:stage', '--workdir=w'], 2, 'CONFIG: TypeError: get_config() takes'),
        (['train', '--config=CONFIG', '--workdir=w', '--config.stepps=3'], 2, "The config has no such key: 'stepps'."),
        (
            ['train', '--config=CONFIG', '--workdir=w', '--config.steps=x'],
            2,
            "flag --config.steps=x: 'x' is not a whole number.",
        ),
        (
            ['train', '--config=experiments/evaluate/quickstart.py', '--workdir=w'],
            2,
            'experiments/evaluate/quickstart.py is the config of an evaluation, and this command needs that of a '
            'training. Run: python -m flamingo_jax.evaluate --config=experiments/evaluate/quickstart.py --check',
        ),
        (
            ['evaluate', '--config=experiments/quickstart.py', '--checkpoint=none', '--workdir=w'],
            2,
            'experiments/quickstart.py is the config of a training, and this command needs that of an evaluation. '
            'Run: python -m flamingo_jax.train --config=experiments/quickstart.py --workdir=DIR',
        ),
        (
            ['plan', '--config=experiments/evaluate/quickstart.py', '--topology=cpu:1'],
            2,
            'experiments/evaluate/quickstart.py is the config of an evaluation, and this command needs that of a ',
        ),
        (['generate', '--checkpoint=none', '--text=a'], 1, 'none is neither a bundle (config.json) nor the workdir of'),
        (
            ['generate', '--checkpoint=none', '--text=a', '--num_beams=x'],
            2,
            "flag --num_beams=x: 'x' is not a whole number.",
        ),
        (['generate', '--checkpoint=none', '--text=a', '--top_p=x'], 2, "flag --top_p=x: 'x' is not a number."),
        (['generate', '--checkpoint=none', '--text=a', '--num_beams=0'], 2, 'flag --num_beams=0: 0 is not a positive'),
        (
            ['generate', '--checkpoint=none', '--text=a', '--num_beams=2', '--temperature=1'],
            1,
            'Beam search and sampling exclude each other.',
        ),
        (['generate', '--checkpoint=none', '--text=a', '--temperature=nan'], 1, 'temperature is nan. It must be '),
        (
            ['generate', '--checkpoint=none', '--text=a', f'--seed={10**22}'],
            2,
            f'flag --seed={10**22}: {10**22} is not',
        ),
        (['convert', 'nfnet', '--source=none', '--out=CONFIG'], 1, 'CONFIG exists already. Remove it, or choose'),
        (['convert', 'lm', '--source=a', '--heads=2', '--out=none'], 2, 'lm does not read --heads. Remove it; --help'),
        (['convert', 'efficientnet', '--source=a', '--random_seed=1', '--out=none'], 2, '--source and --random_seed '),
        (['convert', 'efficientnet', '--styles=a', '--out=none'], 2, '--styles needs --standardise: it names'),
        (['convert', 'efficientnet', '--image_size=-5', '--out=none'], 2, 'flag --image_size=-5: -5 is not a non-neg'),
        (['convert', 'mean', '--source=a,b', '--weights=.4,x', '--out=none'], 2, '--weights=.4,x are not numbers.'),
        (
            ['plan', '--config=CONFIG', '--topology=cpu:2', '--mesh=2,2'],
            1,
            '--mesh=2,2 is not three sizes. Give data,f',
        ),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, list) else '',
)
def test_a_mistake_ends_with_one_line(forked, arguments, code, said, tmp_path):
    files = dict(CONFIG=CONFIG.format(steps=1), BROKEN=CONFIG.format(steps='oops'))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        arguments = [argument.replace(name, str(tmp_path / name)) for argument in arguments]
        said = said.replace(name, str(tmp_path / name))
    done = forked(f'flamingo_jax.{arguments[0]}', *arguments[1:])
    assert (done.returncode, done.stdout) == (code, '')
    assert done.stderr.startswith(f'error: {said}') and done.stderr.count('\n') == 1


@pytest.mark.parametrize('variable', ['JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'])
def test_a_number_of_processes_that_is_none_ends_with_one_line(monkeypatch, variable):
    monkeypatch.setenv(variable, 'x')
    done = command('flamingo_jax.train', '--config=none.py', '--workdir=w')
    assert (done.returncode, done.stdout) == (2, '')
    said = f"The environment variable {variable} is 'x'. Set it to a whole number, or unset it."
    assert done.stderr == f'error: {said}\n'


def test_debug_shows_the_traceback_of_a_mistake():
    done = command('flamingo_jax.generate', '--checkpoint=none', '--text=a', '--debug')
    assert done.returncode == 1 and 'Traceback' in done.stderr and 'neither a bundle' in done.stderr


def test_ctrl_c_ends_with_one_line(tmp_path):
    os.mkfifo(tmp_path / 'card')
    line = [
        sys.executable,
        '-m',
        'flamingo_jax.convert',
        'run',
        '--source=none',
        '--out=none',
        f'--card={tmp_path}/card',
    ]

    def as_in_a_terminal():
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # A suite in the background ignores it, and so would this.

    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal) as running:
        with open(tmp_path / 'card', 'w'):  # Returns when the command has opened it, and now waits for a text.
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=600)
    assert running.returncode == -signal.SIGINT and said == 'Stopped by Ctrl-C.\n'


def test_a_bug_is_not_taken_for_a_mistake():
    """Mistakes have a class of their own: nothing is read from the place where an error was raised."""

    def raised(act) -> bool:
        with pytest.raises(Exception) as caught:
            act()
        return commands.is_mistake(caught.value)

    def fail(error: Exception) -> None:
        raise error

    assert raised(lambda: fail(UserError('say')))
    assert raised(lambda: open('/nothing/there'))  # The operating system refused it.
    assert raised(lambda: fail(MissingPackageError('say')))
    assert not raised(lambda: fail(ValueError('say')))
    assert not raised(lambda: np.zeros(2) + np.zeros(3))  # A ValueError too.
    assert not raised(lambda: int('x'))
    assert not raised(lambda: fail(NotImplementedError()))


def test_every_mistake_of_a_user_has_its_class():
    """A bare ValueError in the product would be shown with a traceback, as a bug."""
    bare = re.compile(r'raise (ValueError|ImportError|FloatingPointError)\b')
    for room in ('flamingo_jax', 'data'):
        for file in (ROOT / room).rglob('*.py'):
            assert not bare.search(file.read_text()), file


def test_a_mistyped_key_in_a_config_is_refused():
    for config in (training.base(), evaluation.base()):
        with pytest.raises(AttributeError, match='stepps'):
            config.stepps = 3


def test_training_and_evaluation_load_neither_tensorflow_nor_what_they_do_not_use_yet():
    heavy = ['tensorflow', 'tensorflow_datasets', 'matplotlib', 'torch']
    code = (
        'import sys, flamingo_jax.train, flamingo_jax.evaluate, flamingo_jax.generate\n'
        'from flamingo_jax.training.tensorboard import TensorBoard\n'
        f'print([name for name in {heavy} if name in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr


LEFT_OUT = ('lm_names/', 'picture_dictionary/', 'smollm_bridge/')


def test_an_installed_package_brings_the_quickstart(tmp_path):
    """A wheel is what `build_py` leaves, zipped."""
    build = [sys.executable, 'setup.py', '-q', 'build_py', f'--build-lib={tmp_path}']
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, '-m', 'flamingo_jax.quickstart', '--where'], cwd=tmp_path, capture_output=True, text=True
    )
    where = pathlib.Path(done.stdout.strip())
    assert where == tmp_path / 'flamingo_jax/embedded'
    files = 'git', 'ls-files', 'experiments', 'data/picture_dictionary/sample'
    for file in subprocess.run(files, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split():
        # The published bundles but for the quickstart's are left out.
        left_out = file.startswith(tuple(f'experiments/{name}' for name in LEFT_OUT))
        assert (where / file).is_file() != left_out, file
