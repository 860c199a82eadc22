"""The connector ``qemu``: QEMU's own initiators (libiscsi, NBD). The host needs no kernel module and does nothing."""

from __future__ import annotations

from collections.abc import Callable

from virtflow.activity import IDLE, Activity
from virtflow.volumes.connectors.connector import BLOCK, FILE, NETWORK, Attached
from virtflow.volumes.driver import Connection


class QemuConnector:
    """QEMU connects when the disk is plugged in, and follows a new size by itself.

    ``nbd_reconnect``: for how many seconds it waits for an NBD server that has gone. Asked when it matters."""

    def __init__(self, nbd_reconnect: Callable[[], int] = int) -> None:
        self._nbd_reconnect = nbd_reconnect

    def connect(self, connection: Connection, password: str = "", activity: Activity = IDLE) -> Attached:  # noqa: ARG002
        if connection.kind in (BLOCK, FILE):
            return Attached(connection.kind, connection.path, connection.format)
        return Attached(NETWORK, reconnect=self._nbd_reconnect() if connection.kind == "nbd" else 0)

    def disconnect(self, connection: Connection, activity: Activity = IDLE) -> None:
        """Whoever unplugs the disk has disconnected it."""

    def extend(self, connection: Connection, activity: Activity = IDLE) -> None:
        """``blockResize`` of the running guest asks the server itself."""
