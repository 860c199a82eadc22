"""A way to a server on loopback that can be cut: what is sent gets lost, and nobody is told."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.lab.servers import free_port

Listening = Callable[[], socket.socket]


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and passes everything on to ``target``, as long as it is not frozen.

    ``limit``: it freezes by itself when that many bytes have been sent. ``sent`` is how many were. With ``within``, the
    call of another network, it listens there, on ``target``: who is there finds the server where it is here.
    """

    def __init__(
        self, target: int, limit: int | None = None, *, within: Callable[[Listening], socket.socket] | None = None
    ) -> None:
        self._target = target
        self._limit = limit
        self.sent = 0
        self.port = free_port() if within is None else target
        self._flowing = threading.Event()
        self._flowing.set()
        self._end = threading.Event()
        self._listener = self._listen() if within is None else within(self._listen)
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)

    def _listen(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", self.port))

    def freeze(self) -> None:
        """From now on nothing passes, and new connections hang."""
        self._flowing.clear()

    @property
    def frozen(self) -> bool:
        return not self._flowing.is_set()

    def thaw(self) -> None:
        """What was held back passes, however much it is."""
        self._limit = None
        self._flowing.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._flowing.set()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._end.is_set():
            if select.select([self._listener], [], [], 0.1)[0]:
                client, _address = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), name="proxied", daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        self._flowing.wait()
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            ways = {client: server, server: client}
            while not self._end.is_set():
                for source in select.select(list(ways), [], [], 0.1)[0]:
                    self._flowing.wait()
                    try:
                        data = source.recv(1 << 16)
                        self._count(len(data) if source is client else 0)
                        ways[source].sendall(data)
                    except OSError:
                        return
                    if not data:
                        return

    def _count(self, sent: int) -> None:
        self.sent += sent
        if self._limit is not None and self.sent > self._limit:
            self.freeze()
            self._flowing.wait()
