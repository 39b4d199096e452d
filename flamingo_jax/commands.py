"""Start, messages and exit of every command.

A command defines its flags and starts before it imports JAX, so that --help and errors in flags are fast:

    if __name__ == '__main__':
        flags.DEFINE_string('out', None, 'Folder to write.', required=True)
        commands.start(__doc__)

    import jax
    ...
    if __name__ == '__main__':
        main()

This file imports nothing else of the project but its errors. Exit code 2 means a wrong command line or config, 1 any
other error. Ctrl-C ends a command like SIGINT (130 in a shell). A user's mistake (see errors.py) shows its message
without a traceback; --debug shows the traceback.
"""

import os
import pathlib
import platform
import re
import sys
import tempfile
import textwrap
import traceback
import warnings
from collections.abc import Mapping
from logging import ERROR, WARNING, LogRecord
from types import TracebackType
from typing import NoReturn, TypeVar

from absl import flags, logging

from flamingo_jax.errors import UserError

flags.disclaim_key_flags()  # A flag that is defined here belongs to the command that calls it.
PROGRAMS = 10 * 2**30  # Most bytes of compiled programs on disk; those not used for the longest time are removed.
T = TypeVar('T')
OURS = pathlib.Path(__file__).parents[1]
OUR_ROOMS = tuple(str(OURS / name) + os.sep for name in ('flamingo_jax', 'data'))


def start(doc: str, config: bool = False, positional: bool = False) -> list[str]:
    """Starts a command: reads its flags, silences libraries, and handles errors.

    Args:
      doc: the text of --help above the flags.
      config: whether there is a flag --config=FILE.py, whose keys --config.KEY=VALUE changes.
      positional: whether arguments other than flags are allowed.

    Returns:
      The arguments other than flags.
    """
    _keep_programs()
    flags.DEFINE_bool('debug', False, 'Show the traceback of an error.')
    if config:
        _find_configs_beside(_config_file())
        from ml_collections import config_flags

        meaning = 'Python file with get_config(). --config.KEY=VALUE changes a key.'
        config_flags.DEFINE_config_file('config', None, meaning, lock_config=True)
        flags.mark_flag_as_required('config')
    if {'--help', '-h', '-help'} & set(sys.argv[1:]):
        print(_help(doc))
        sys.exit(0)
    _silence()
    sys.excepthook = _end
    if config and _config_file() and not pathlib.Path(_config_file()).is_file():
        refuse(f'There is no config at {_config_file()}. Give a Python file, such as experiments/quickstart.py.')
    try:
        _, *rest = flags.FLAGS(sys.argv)
    except flags.Error as error:
        missing = re.match(r'flag --(\S+)=None: ', str(error))
        said = str(error)
        if 'Traceback' in said:  # Of get_config(), with the argument after FILE.py:
            said = f'{_config_file()}: {said.strip().splitlines()[-1]}'
        refuse(f'--{missing[1]} is missing.' if missing else _in_words(said))
    except Exception as error:  # The config is Python and can raise any error.
        if message := _config_mistake(error):
            refuse(message)
        raise
    if rest and not positional:
        refuse(f'Unknown arguments: {" ".join(rest)}. A flag begins with --.')
    return rest


def _in_words(said: str) -> str:
    """What absl says of a flag, without what Python says of a number; of a flag of an older version, its new name."""
    if unknown := re.match(r"Unknown command line flag '(\S+?)'", said):
        new = unknown[1].replace('picture', 'image').replace('film', 'video')
        if new != unknown[1] and new in flags.FLAGS:
            return f'--{unknown[1]} is --{new} now.'
    said = re.sub(r"invalid literal for int\(\) with base \d+: ('.*')", r'\1 is not a whole number.', said)
    return re.sub(r"could not convert string to float: ('.*')", r'\1 is not a number.', said)


def _find_configs_beside(file: str) -> None:
    """Lets a config import others as `experiments.NAME`, from any folder in which a command is run."""
    above = next(
        (folder.parent for folder in pathlib.Path(file).absolute().parents if folder.name == 'experiments'), None
    )
    if above:
        sys.path.append(str(above))


def part(parts: Mapping[str, T], name: str) -> T:
    """The part of a config that is meant by --config=FILE.py:NAME. ValueError for an unknown one names all parts."""
    if name not in parts:
        known = ', '.join(f':{known}' if known else 'none' for known in parts)
        raise UserError(f'The config has no part {name!r} after its colon. Its parts are {known}.')
    return parts[name]


def refuse_config_of(kind: str, config: Mapping[str, object]) -> None:
    """Ends a command that was given the config of another one.

    Args:
      kind: 'training' or 'evaluation', which the command needs. An evaluation's config has `tasks`, a training's
        `datasets`.
    """
    if ('tasks' if kind == 'training' else 'datasets') not in config:
        return
    is_of, needs, command, others = (
        ('an evaluation', 'a training', 'evaluate', ' --checkpoint=BUNDLE_OR_WORKDIR')
        if kind == 'training'
        else ('a training', 'an evaluation', 'train', '')
    )
    file = _config_file()
    refuse(
        f'{file} is the config of {is_of}, and this command needs that of {needs}. '
        f'Run: python -m flamingo_jax.{command} --config={file}{others} --workdir=DIR'
    )


def define_processes() -> None:
    """The flags of one process among several, for `parallel.processes.join`; by default JAX's environment variables."""
    flags.DEFINE_string(
        'coordinator',
        os.environ.get('JAX_COORDINATOR_ADDRESS', ''),
        "Address host:port of process 0, if there are several; 'auto' on TPU pods and SLURM.",
    )
    flags.DEFINE_integer('processes', _number_in('JAX_NUM_PROCESSES'), 'Number of processes.')
    flags.DEFINE_integer('process_id', _number_in('JAX_PROCESS_ID'), 'Number of this process, from 0.')


def _number_in(variable: str) -> int | None:
    """The number that an environment variable holds, if it is set."""
    value = os.environ.get(variable, '')
    if value and not value.isdecimal():
        refuse(f'The environment variable {variable} is {value!r}. Set it to a whole number, or unset it.')
    return int(value) if value else None


def define_mesh(meaning: str) -> None:
    """The flag --mesh=DATA,FSDP,TENSOR, which `parallel.mesh.parse` reads; `meaning` is its help."""
    flags.DEFINE_string('mesh', None, f'{meaning} Three sizes, DATA,FSDP,TENSOR; -1 takes the remaining devices.')


def define_dtype() -> None:
    """The flag --dtype, which `flamingo_jax.load` reads."""
    flags.DEFINE_string(
        'dtype',
        '',
        'float32 or bfloat16; or int8, int4 or fp8 for the matrices of the language model. Default: bfloat16 on TPU '
        'and GPU, float32 on CPU.',
    )


def is_mistake(error: BaseException) -> bool:
    """Whether an error is the user's mistake (bad input, a full disk), not a bug.

    An error of the operating system is none of ours. A ValueError from NumPy or JAX is a bug of ours.
    """
    return isinstance(error, (UserError, OSError))


def refuse(message: str) -> NoReturn:
    """Ends a command whose command line or config is wrong."""
    if '--debug' in sys.argv and sys.exc_info()[0]:
        traceback.print_exc()
    _say(f'error: {message}')
    sys.exit(2)


def _end(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Replaces `sys.excepthook`. Python then exits with 1, or by SIGINT after Ctrl-C."""
    if '--debug' in sys.argv:
        sys.__excepthook__(kind, error, where)
    elif issubclass(kind, KeyboardInterrupt):
        _say('Stopped by Ctrl-C.')
    elif isinstance(error, OSError) and error.filename:
        _say(f'error: {error.strerror}: {error.filename}')
    elif is_mistake(error):
        _say(f'error: {error}')
    else:
        sys.__excepthook__(kind, error, where)


def _say(message: str) -> None:
    """Writes a message on stderr, below a progress bar if there is one."""
    if 'tqdm' in sys.modules:
        sys.modules['tqdm'].tqdm.write(message, file=sys.stderr)
    else:
        print(message, file=sys.stderr)


def _keep_programs() -> None:
    """Keeps compiled programs for the next command, unless JAX's own variables say otherwise ('' keeps none).

    A program for a CPU may not run on another one, so each machine has a folder of its own.
    """
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _own_programs())
    os.environ.setdefault('JAX_COMPILATION_CACHE_MAX_SIZE', str(PROGRAMS))


def keeps_own_programs() -> bool:
    """Whether compiled programs are kept in a folder of this machine, which no variable of JAX's names."""
    return os.environ.get('JAX_COMPILATION_CACHE_DIR') == _own_programs()


def _own_programs() -> str:
    return str(cache() / platform.node())


def cache() -> pathlib.Path:
    """Where this machine keeps what can be made again."""
    try:
        folder = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    except RuntimeError:  # A user without a home, in some containers.
        folder = pathlib.Path(tempfile.gettempdir())
    return folder / 'flamingo_jax'


def _silence() -> None:
    """Keeps start-up lines and warnings of libraries, which a user cannot act on, from stderr."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # XLA uses this old name. 2 shows only errors.
    if not sys.stderr.isatty():  # A log keeps every bar.
        os.environ.setdefault('TQDM_MININTERVAL', '30')
    if not sys.warnoptions:
        warnings.simplefilter('ignore')
        # JAX's own tell of hosts that are missing, or of pages that slow a TPU; and of each program that it could not
        # keep, such as one that another command has just removed to make room.
        warnings.filterwarnings('default', category=UserWarning, module='jax')
        warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache entry')
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(None)  # Only the message.
    logging.get_absl_handler().addFilter(_worth_reading)


def _worth_reading(record: LogRecord) -> bool:
    """Keeps all that this project logs, errors of libraries, and JAX's warnings, such as that of an unused GPU.

    Orbax and TFDS log every step, and warn about intended settings.
    """
    return record.pathname.startswith(OUR_ROOMS) or record.levelno >= (WARNING if record.name[:3] == 'jax' else ERROR)


def _help(doc: str) -> str:
    lines = [doc.strip(), '', 'Flags:']
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(sys.argv[0]), key=lambda flag: flag.name):
        none = flag.default is None or flag.default is False or flag.default in ('', [])  # 0 is a default.
        default = '' if none else f' (default: {flag.default_as_str.strip(chr(39))})'
        needed = any('must have a value' in check.message for check in flag.validators)  # As absl says it.
        default += ' (required)' if needed else ''
        no = '[no]' if flag.boolean and flag.default is not False else ''
        lines.append(f'  --{no}{flag.name}' + ('' if flag.boolean else f'={flag.name.upper()}'))
        meaning = re.sub(r'\.?;\s+repeat this option.*', '. May be repeated.', flag.help)  # As absl says it.
        lines += textwrap.wrap(meaning + default, 100, initial_indent=' ' * 6, subsequent_indent=' ' * 6)
    return '\n'.join(lines)


def _config_mistake(error: Exception) -> str:
    """What is wrong with --config or --config.KEY, in one line; '' if the error is about something else."""
    text: object = error
    while isinstance(text, Exception):
        text = text.args[0] if text.args else type(text).__name__
    text = re.sub(r' Other fields present: ".*"\n', ' ', str(text), flags=re.DOTALL).replace('\n', '. ')
    file = pathlib.Path(_config_file()).absolute()
    if isinstance(error, SyntaxError):
        return f'{error.filename}, line {error.lineno}: {error.msg}.'
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if pathlib.Path(frame.filename) == file
    ]
    if lines:
        return f'{file}, line {lines[-1]}: {type(error).__name__}: {text}'
    if 'get_config' in text:
        return f'{file} is not a config: it has no function get_config().'
    return f'The config has no such key: {text}' if isinstance(error, (AttributeError, KeyError)) else ''


def _config_file() -> str:
    """The value of --config on the command line. The flag itself has none if the file cannot be read."""
    for argument, following in zip(sys.argv, [*sys.argv[1:], ''], strict=True):
        name, equals, value = argument.lstrip('-').partition('=')
        if argument.startswith('-') and name == 'config':
            return (value if equals else following).partition(':')[0]  # FILE.py:ARGUMENT calls get_config(ARGUMENT).
    return ''
