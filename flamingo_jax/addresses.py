"""Addresses of other machines that may be asked: public ones, checked before they are connected to."""

import http.client
import ipaddress
import socket
import ssl


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet: not this machine, its network, or a way around that."""
    one = ipaddress.ip_address(address.split('%')[0])
    inner = getattr(one, 'ipv4_mapped', None)
    if inner is not None:
        one = inner
    if one.version == 6 and (one.sixtofour or one.teredo or one in ipaddress.ip_network('64:ff9b::/96')):
        return False
    return one.is_global and not one.is_multicast and not one.is_reserved


def addresses_of(host: str, port: int) -> list[str]:
    """The IP addresses of a host, IPv4 first. OSError or UnicodeError if there are none."""
    found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    return sorted(found, key=lambda one: (':' in one, one))


class PinnedConnection(http.client.HTTPConnection):
    """A connection to an address that was checked before. The name is for TLS and the header Host.

    The name is not looked up again: it could have another address by then (DNS rebinding).
    """

    def __init__(self, host: str, port: int, address: str, secure: bool, timeout: float):
        """secure: whether by TLS. timeout: seconds without an answer."""
        super().__init__(host, port, timeout=timeout)
        self._address, self._secure = address, secure

    def connect(self) -> None:
        """Opens the socket."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
