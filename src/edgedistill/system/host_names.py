"""Under which names a server of this machine may be asked: what stands between it and the pages of other servers.

A page may have a browser connect anywhere, and a name of its own may resolve to 127.0.0.1 (DNS rebinding). The name in
the header ``Host`` and the ``Origin`` are what tells its requests from others.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")


def names_of(host: str, more: Iterable[str] = ()) -> frozenset[str]:
    """What a server that listens on ``host`` may be called: in lower case, ``more`` included."""
    own = {host}
    if host in EVERYWHERE:
        import psutil

        addresses = {entry.address.partition("%")[0] for found in psutil.net_if_addrs().values() for entry in found}
        own = {socket.gethostname(), socket.getfqdn(), f"{socket.gethostname()}.local", *addresses}
    return frozenset(name.lower() for name in (*LOOPBACK, *more, *own))


def host_name(header: str) -> str:
    """The name in a header ``Host``, without its port, in lower case; empty where there is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def is_own_page(origin: str, host: str) -> bool:
    """Whether ``Origin`` is that of a page which the server asked as ``host`` gave out."""
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def address(host: str, port: int) -> str:
    """``http://HOST:PORT`` as one opens it on this machine."""
    name = "localhost" if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"
