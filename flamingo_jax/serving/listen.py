"""The socket of a server, taken before the model is loaded."""

import socket

from flamingo_jax import commands


def listen(port: int, host: str = '127.0.0.1') -> socket.socket:
    """A socket, by default on the loopback. Ends the command if the port is taken."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        commands.refuse(f'Port {port} cannot be used ({error.strerror}). Choose another with --port, or 0 for any.')
    return found
