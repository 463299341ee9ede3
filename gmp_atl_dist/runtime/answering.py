"""Whether a cluster answers at its address, before ``ray.init`` is asked to connect.

``ray.init`` has no limit of its own. Where something takes the connection and says nothing, such as a head
that was stopped or a forwarded port without a pod behind it, Ray tries again for ever, in C++, where Ctrl-C
does not reach it. A server of gRPC sends its settings as soon as a client has sent its own (RFC 9113, 3.4).
"""

from __future__ import annotations

import os
import re
import socket
import time

from gmp_atl_dist import stopping
from gmp_atl_dist.errors import WorkerError

_WAIT_S = 60.0
"""A head that is restarted answers again within it."""
_TRY_S = 10.0
_AGAIN_S = 1.0
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""The preface of HTTP/2, and an empty frame of settings: 3 bytes of length, then type, flags and stream."""
_SETTINGS = 4
_ADDRESS = re.compile(r"(?P<host>[^/\[\]:]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")


def await_answer(address: str, *, wait_s: float = _WAIT_S, try_s: float = _TRY_S) -> None:
    """Return once the control service at ``HOST:PORT`` answers. Other forms of an address are not tried.

    Raises:
        WorkerError: it has not answered for ``wait_s``; says what happened instead.
        KeyboardInterrupt: the run was asked to stop.
    """
    until_s = time.monotonic() + wait_s
    while problem := why_silent(address, try_s):
        if time.monotonic() >= until_s:
            raise WorkerError(
                f"no Ray answers at {address} within {wait_s:g} s: {problem}; check runtime.ray_address or "
                f"RAY_ADDRESS, and that the cluster's head runs"
            )
        stopping.check()
        time.sleep(_AGAIN_S)


def why_silent(address: str, try_s: float) -> str:
    """Why no server of gRPC answers at ``HOST:PORT``; empty if one does, or for another form of address."""
    place = _ADDRESS.fullmatch(address)
    if place is None or os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return ""
    where = (place["host"].strip("[]"), int(place["port"]))
    try:
        with socket.create_connection(where, timeout=try_s) as connection:
            connection.sendall(_HELLO)
            head = connection.recv(9)
    except TimeoutError:
        return f"nothing is said within {try_s:g} s"
    except (OSError, OverflowError) as e:
        return f"{type(e).__name__}: {e}"
    if len(head) > 3 and head[3] == _SETTINGS:
        return ""
    return f"what answers is no Ray head ({head!r})" if head else "the connection is closed at once"
