"""Serves a page on which one teaches a Flamingo by examples, and asks it. Prints its address.

    pip install 'flamingo_jax[demo]'
    python -m flamingo_jax.demo [--checkpoint=BUNDLE_OR_WORKDIR] [--lm=BUNDLE] [--port=8321]

The default is the small model that comes with the clone. A model that chats can also be asked so. The page is served
on this machine only. Nothing is sent elsewhere or written to disk. To use it from another machine, take the port there:

    ssh -L 8321:127.0.0.1:8321 THIS_MACHINE
"""

from absl import flags

from flamingo_jax import commands
from flamingo_jax.quickstart import ROOT

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', str(ROOT / 'experiments' / 'picture_dictionary'), 'A bundle, or a workdir.')
    flags.DEFINE_string('lm', '', 'Bundle of the language model, if the checkpoint is a bundle without one.')
    flags.DEFINE_integer('port', 8321, 'Port of 127.0.0.1; 0 takes a free one.', lower_bound=0, upper_bound=65535)
    flags.DEFINE_bool('open', False, 'Also open the page in the default browser.')
    commands.define_dtype()
    commands.start(__doc__)

import contextlib
import os
import shlex
import socket
import sys
import webbrowser

from flamingo_jax.serving.listen import listen


def main() -> None:
    """Serves the page until Ctrl-C."""
    try:
        import uvicorn  # Only the page needs it.

        from flamingo_jax.demo import server
    except ModuleNotFoundError as error:
        if error.name not in ('starlette', 'uvicorn'):
            raise
        commands.refuse("The page needs a web server. Install it: pip install 'flamingo_jax[demo]'")
    from flamingo_jax.demo.ready import ready_sets
    from flamingo_jax.files import as_path
    from flamingo_jax.hub import fetched
    from flamingo_jax.inference.pretrained import load

    f = flags.FLAGS
    if f['checkpoint'].using_default_value and not os.path.isdir(f.checkpoint):
        commands.refuse(
            'The published models come with the clone, not with the installed package. Give --checkpoint: a bundle, or '
            'the workdir of a run, such as runs/quickstart/model after python -m flamingo_jax.quickstart.'
        )
    with listen(f.port) as found:
        flamingo = load(f.checkpoint, dtype=f.dtype, lm=f.lm)
        checkpoint, lm = (
            os.path.relpath(path) if path and '://' not in path else path for path in (f.checkpoint, f.lm)
        )
        port = found.getsockname()[1]
        again = [f'--port={port}'] if port != f.port else []  # A free port was asked for: the page knows this one.
        start = shlex.join(['python', '-m', 'flamingo_jax.demo', *sys.argv[1:], *again])
        card = as_path(fetched(f.checkpoint)) / 'README.md'
        card = card.read_text(encoding='utf-8') if card.is_file() else ''
        app = server.make_app(flamingo, checkpoint, ready_sets(), lm, card, start)
        address = f'http://127.0.0.1:{port}'
        print(f'The page is at {address} (Ctrl-C ends it).')
        print(
            f'From another machine, run there: ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}, and open the '
            'same address.',
            flush=True,
        )
        if flags.FLAGS.open:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(address)
        config = uvicorn.Config(app, log_level='warning', limit_concurrency=server.AT_ONCE, timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[found])


if __name__ == '__main__':
    main()
