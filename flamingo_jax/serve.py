"""Serves a model to clients of OpenAI's API. Prints its address; Ctrl-C or SIGTERM ends it when answers are whole.

    pip install 'flamingo_jax[demo]'
    python -m flamingo_jax.serve --checkpoint=BUNDLE_OR_WORKDIR [--lm=BUNDLE] [--port=8000]
    curl http://127.0.0.1:8000/v1/models

It has /v1/models, /v1/chat/completions, /v1/completions, /v1/memories, /v1/rank, /health and /metrics: docs/serving.md.
Clients need a key if the environment variable FLAMINGO_API_KEY has one; other machines are served only so. Each request
is a line of JSON on stderr, without what was asked.
"""

from absl import flags

from flamingo_jax import commands

if __name__ == '__main__':
    flags.DEFINE_string('checkpoint', None, 'A bundle, or the workdir of a run.', required=True)
    flags.DEFINE_string('lm', '', 'Bundle of the language model, if the checkpoint is a bundle without one.')
    flags.DEFINE_string('host', '127.0.0.1', 'Address to serve; 0.0.0.0 is all of this machine, and needs a key.')
    flags.DEFINE_integer('port', 8000, 'Port; 0 takes a free one.', lower_bound=0, upper_bound=65535)
    flags.DEFINE_string('name', '', "Name of the model for clients; default: the checkpoint's folder.")
    flags.DEFINE_list('image_hosts', [], 'Hosts from whose public addresses images may be fetched; default: none.')
    flags.DEFINE_integer(
        'warm',
        None,
        'Compile at the start for prompts of up to so many images, so that no client waits.',
        lower_bound=0,
    )
    flags.DEFINE_integer('grace', 30, 'Seconds for open answers after SIGTERM.', lower_bound=0)
    commands.define_dtype()
    commands.start(__doc__)

import os
import signal

from flamingo_jax.serving.listen import listen

KEY = 'FLAMINGO_API_KEY'
CONNECTIONS = 512  # More are told to come again.


def main() -> None:
    """Serves until SIGTERM or Ctrl-C."""
    try:
        import uvicorn

        from flamingo_jax.serving.app import make_app
    except ModuleNotFoundError as error:
        if error.name not in ('starlette', 'uvicorn'):
            raise
        commands.refuse("It needs a web server. Install it: pip install 'flamingo_jax[demo]'")
    from flamingo_jax.inference.pretrained import load

    f, key = flags.FLAGS, os.environ.get(KEY, '')
    if not key and f.host not in ('127.0.0.1', 'localhost'):
        commands.refuse(f'--host={f.host} serves other machines. Set a key for them in the variable {KEY}.')
    with listen(f.port, f.host) as found:
        flamingo = load(f.checkpoint, dtype=f.dtype, lm=f.lm)
        name = f.name or os.path.basename(os.path.normpath(f.checkpoint))
        app = make_app(flamingo, name, key, frozenset(host.lower() for host in f.image_hosts), warm=f.warm)
        host = f'[{f.host}]' if ':' in f.host else f.host
        print(f'{name} is at http://{host}:{found.getsockname()[1]}/v1 (Ctrl-C ends it).', flush=True)
        signal.signal(signal.SIGTERM, lambda *_: None)  # Uvicorn ends by it first, and then lets this command end.
        config = uvicorn.Config(
            app, log_level='warning', limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=f.grace
        )
        uvicorn.Server(config).run(sockets=[found])


if __name__ == '__main__':
    main()
