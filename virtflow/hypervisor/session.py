"""One connection to libvirt that mends itself, and libvirt's errors in virtflow's words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from virtflow.errors import HypervisorError, HypervisorUnreachable
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.connection import close_connection, open_connection

T = TypeVar("T")

_BROKEN = (libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN)


class Session:
    """Opened at the first call. Thread-safe: libvirt's calls are, and opening is behind a lock."""

    def __init__(self, uri: str, embed_root: Path | None, wait_seconds: float) -> None:
        self.uri = uri
        self._embed_root = embed_root
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._connection: libvirt.virConnect | None = None

    def call(self, function: Callable[[libvirt.virConnect], T]) -> T:
        """Run ``function``; when the connection turns out to be broken, open a new one and run it once more.

        So ``function`` must be safe to repeat. Raises libvirtError, or HypervisorUnreachable.
        """
        connection = self._connect()
        try:
            return function(connection)
        except libvirt.libvirtError as error:
            if not _is_broken(connection, error):
                raise
        self._drop(connection)
        connection = self._connect()
        try:
            return function(connection)
        except libvirt.libvirtError as error:
            if not _is_broken(connection, error):
                raise
            self._drop(connection)
            raise HypervisorUnreachable(uri=self.uri, reason=message(error)) from error

    def close(self) -> None:
        """Let go of the connection; the next call opens another. An embedded driver stays until the process ends."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            close_connection(connection)

    def _connect(self) -> libvirt.virConnect:
        with self._lock:
            if self._connection is None:
                self._connection = open_connection(
                    self.uri, embed_root=self._embed_root, wait_seconds=self._wait_seconds
                )
            return self._connection

    def _drop(self, broken: libvirt.virConnect) -> None:
        with self._lock:
            if self._connection is not broken:
                return  # another thread has replaced it already
            self._connection = None
        close_connection(broken)


def message(error: libvirt.libvirtError) -> str:
    """libvirt's words in one line."""
    return " ".join(str(error.get_error_message() or error).split())


def domain_error(action: str, domain: str, error: libvirt.libvirtError) -> HypervisorError:
    return HypervisorError(action=action, domain=domain, reason=message(error), code=error.get_error_code())


def _is_broken(connection: libvirt.virConnect, error: libvirt.libvirtError) -> bool:
    # VIR_ERR_SYSTEM_ERROR alone says nothing: it also stands for a disk that cannot be opened
    if error.get_error_code() in _BROKEN:
        return True
    try:
        return not connection.isAlive()
    except libvirt.libvirtError:
        return True
