"""The connection to ZooKeeper: one session, which outlives connections, and also a server that lost its data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from virtflow.eventletless import without_eventlet
from virtflow.worker.boards.server_url import credentials_of, hosts_of

with without_eventlet():
    from kazoo.client import KazooClient, KazooState
    from kazoo.exceptions import KazooException
    from kazoo.handlers.threading import KazooTimeoutError
    from kazoo.security import make_digest_acl

UNREACHABLE = (KazooException, KazooTimeoutError, OSError)
"""What is raised when the server does not answer."""

_SOON = 0.5
"""Seconds for which a question waits for a connection; it is asked again after that."""
_HOPELESS = 2.0
"""Seconds without a connection after which a new one is made from scratch, in the same session.

A server refuses who has seen more than it has: after it lost its data, a client that insists never comes back.
"""


class Session:
    """Thread-safe. Nothing is connected before it is used.

    ``timeout``: seconds after which the server gives up who does not answer. ``changed`` is called, from any thread,
    when the connection comes or goes: watches do not outlive it.
    """

    def __init__(self, url: str, timeout: float, changed: Callable[[], None]) -> None:
        self.timeout = timeout
        self._hosts = ",".join(f"{host}:{port}" for host, port in hosts_of(url, 2181))
        self._access = _access(url)
        self._changed = changed
        self._making = threading.RLock()
        self._client: Any = None
        self._closed = False
        self._up = threading.Event()
        self._lost_at = time.monotonic()

    def client(self) -> Any:
        """The connected client. Raises one of UNREACHABLE."""
        with self._making:
            if self._closed:
                raise OSError("the board is closed")
            if self._client is None:
                self._client = self._new_client(None)
            client = self._client
        if not self._up.wait(_SOON):
            raise KazooTimeoutError(f"no connection to {self._hosts}")
        return client

    def reconnect(self) -> None:
        """Start anew where that is the only hope."""
        with self._making:
            client = self._client
            if client is None or self._up.is_set() or time.monotonic() - self._lost_at < _HOPELESS:
                return
            client.remove_listener(self._on_state)
            self._client = self._new_client(client.client_id)
        _discard(client)

    def close(self) -> None:
        """End the session, and with it what depends on it."""
        with self._making:
            self._closed = True
            if self._client is not None:
                self._client.remove_listener(self._on_state)
                _discard(self._client)

    def _new_client(self, client_id: tuple[int, bytes] | None) -> Any:
        retry = {"max_tries": -1, "delay": 0.05, "backoff": 2, "max_delay": 0.5}
        identity = {"timeout": self.timeout, "client_id": client_id, **self._access}
        client = KazooClient(self._hosts, connection_retry=retry, **identity)
        client.add_listener(self._on_state)
        self._lost_at = time.monotonic()
        client.start_async()
        return client

    def _on_state(self, state: str) -> None:
        if state == KazooState.CONNECTED:
            self._up.set()
        elif self._up.is_set():
            self._up.clear()
            self._lost_at = time.monotonic()
        self._changed()


def _access(url: str) -> dict[str, Any]:
    """How to be let in."""
    access: dict[str, Any] = {}
    if credentials := credentials_of(url):
        access |= {
            "auth_data": [("digest", ":".join(credentials))],
            "default_acl": [make_digest_acl(*credentials, all=True)],
        }
    if urlsplit(url).scheme == "zookeepers":
        files = dict(parse_qsl(urlsplit(url).query))
        access |= {"use_ssl": True, "ca": files.get("ca"), "certfile": files.get("cert"), "keyfile": files.get("key")}
    return access


def _discard(client: Any) -> None:
    with suppress(KazooException, KazooTimeoutError, OSError):
        client.stop()
    with suppress(KazooException, KazooTimeoutError, OSError):
        client.close()
