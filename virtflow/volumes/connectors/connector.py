"""What a connector is. It gets plain values, and knows neither operations nor the database."""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from virtflow.activity import IDLE, Activity
from virtflow.errors import VolumeError
from virtflow.volumes.driver import SERVED, Connection

BLOCK, FILE, NETWORK = "block", "file", "network"
_SECONDS = 5.0


@dataclass(frozen=True)
class Attached:
    """What the guest's disk stands on. ``kind`` is file or block (``path``, ``format``, on this host), or network:
    QEMU itself goes to the server that the connection names, and waits ``reconnect`` seconds for one that has gone."""

    kind: str
    path: str = ""
    format: str = "raw"
    reconnect: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_server(connection: Connection) -> None:
    """VolumeError where nobody listens at the server's address. What is no network connection has none."""
    if connection.kind in SERVED:
        try:
            socket.create_connection((connection.address, connection.port), _SECONDS).close()
        except OSError as error:
            reason = f"its server at {connection.address}, port {connection.port}, does not answer ({error})"
            raise VolumeError(action="reach", volume=connection.target, reason=reason) from error


class Connector(Protocol):
    """Every method may be called twice. Errors are VolumeError (or another VirtflowError)."""

    def connect(self, connection: Connection, password: str = "", activity: Activity = IDLE) -> Attached:
        """Let this host reach the volume; ``password`` is the CHAP user's."""

    def disconnect(self, connection: Connection, activity: Activity = IDLE) -> None:
        """This host reaches it no more. Nobody uses the device any longer: what was written is on the volume."""

    def extend(self, connection: Connection, activity: Activity = IDLE) -> None:
        """Let this host see that the volume has grown."""
