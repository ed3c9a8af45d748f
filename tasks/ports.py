"""Ports of this machine's loopback: a free one, and whether a given one is free."""

from __future__ import annotations

import socket

from amopo_core.errors import UserError

LOOPBACK = "127.0.0.1"


def chosen_port(port: int, whose: str, option: str) -> int:
    """The port, which nobody listens on; any free one for 0.

    Args:
        port: what was asked for, 0 to 65535.
        whose: the service that would listen there.
        option: how another port is asked for.

    Raises:
        UserError: the port is in use, or only root may use it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise UserError(
                f"port {port} for {whose} cannot be used ({error.strerror}); choose another with {option}"
            ) from None
        return int(probe.getsockname()[1])


def free_port() -> int:
    """A port that nobody listens on."""
    return chosen_port(0, "a server", "")


def page(port: int) -> str:
    """The address of what is served there."""
    return f"http://{LOOPBACK}:{port}"
