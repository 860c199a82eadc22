"""What a server of volumes does. Drivers use one; it knows neither operations nor the database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from virtflow.activity import IDLE, Activity
from virtflow.errors import VolumeError
from virtflow.volumes.driver import Connection, Reach


@dataclass(frozen=True)
class Backing:
    """What is served: a file or a block device of this host, and how its content is kept."""

    path: Path
    format: str = "raw"


class Exporter(Protocol):
    """Every method may be called twice. Volumes are known by their names, and never touched unless they are backed by
    what the caller says: numbers of targets and ports are used again by other volumes."""

    def export(self, name: str, backing: Backing, reach: Reach) -> Connection: ...

    def unexport(self, name: str, backing: Backing) -> None: ...

    def exported(self, directory: Path) -> list[str]:
        """The volumes that are served now from below this directory, by name; not what is exported half."""

    def check_growth(self, name: str) -> None:
        """VolumeError where a volume that is served cannot grow."""

    def grown(self, name: str, backing: Backing, activity: Activity = IDLE) -> None:
        """The backing has another size now: let clients see it."""


def check_wanted(name: str, reach: Reach) -> None:
    """To be called under the lock that ``unexport`` takes, too."""
    if not reach.wanted():
        raise VolumeError(action="export", volume=name, reason="nobody wants it any more")


class NoServer:
    """``[volumes] export = none``: volumes are reached on their own host only."""

    def export(self, name: str, backing: Backing, reach: Reach) -> Connection:  # noqa: ARG002
        raise VolumeError(
            action="export",
            volume=name,
            reason="instances of other hosts can only be served with [volumes] export = tgt or nbd",
        )

    def unexport(self, name: str, backing: Backing) -> None:
        """There is nothing to take back."""

    def exported(self, directory: Path) -> list[str]:  # noqa: ARG002
        return []

    def check_growth(self, name: str) -> None:
        """Nobody else looks at it."""

    def grown(self, name: str, backing: Backing, activity: Activity = IDLE) -> None:
        """Nobody else looks at it."""


NO_SERVER = NoServer()
