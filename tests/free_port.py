"""Ports for servers that are told their number, or that must find the same one again after a kill."""

import itertools
import os
import socket

_FIRST, _COUNT = 10_000, 20_000  # below those that the kernel gives to connections and to servers that ask for any
_next = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """A port that nothing listens on, that the kernel gives to nobody meanwhile, and no other worker's tests either."""
    while True:
        port = _FIRST + next(_next) % _COUNT
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if _binds(probe, port):
                return port


def _binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
